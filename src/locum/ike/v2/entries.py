"""The CHILD_SAs of one IKE SA: where each stands, what collides with it, and when something is due.

Never negotiates one and sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from locum.ike.children import SPI_LENGTH
from locum.ike.engine import Child
from locum.ike.payloads2 import Delete
from locum.ike.registry import ProtocolId
from locum.ipsec.sa import Protocol

#: More CHILD_SAs than this under one IKE SA are refused; with those that have been replaced, more than twice that.
MAX_CHILDREN = 64

_PROTOCOL_IDS = {Protocol.ESP: ProtocolId.ESP, Protocol.AH: ProtocolId.AH}


class Progress(Enum):
    """Where a CHILD_SA stands."""

    INSTALLED = auto()
    #: we are about to make a successor, or are making it
    REKEYING = auto()
    #: the peer has made a successor, and is to delete this one
    REPLACED = auto()
    #: we are about to delete it, or are deleting it
    DELETING = auto()


@dataclass(slots=True, eq=False)
class Entry:
    """A CHILD_SA in force. Times are those of the engine's clock; `rekey_at` is None for never."""

    child: Child
    rekey_at: float | None
    ends_at: float
    progress: Progress = Progress.INSTALLED
    #: a successor that the peer made while we were making one, and the lowest nonce of that exchange (RFC 7296
    #: section 2.8.1)
    rival: Entry | None = None
    rival_nonce: bytes = field(default=b"", repr=False)

    @property
    def inbound_spi(self) -> bytes:
        """Ours, as on the wire."""
        return self.child.inbound.spi.to_bytes(SPI_LENGTH, "big")

    @property
    def outbound_spi(self) -> bytes:
        """The peer's, as on the wire."""
        return self.child.outbound.spi.to_bytes(SPI_LENGTH, "big")

    @property
    def protocol(self) -> ProtocolId:
        """ESP or AH."""
        return _PROTOCOL_IDS[self.child.inbound.protocol]

    @property
    def delete(self) -> Delete:
        """What tells the peer that our half is gone, or is to go (RFC 7296 section 1.4.1)."""
        return Delete(protocol=self.protocol, spis=(self.inbound_spi,))

    @property
    def next_moment(self) -> float:
        """When something is due with it."""
        if self.progress is Progress.INSTALLED and self.rekey_at is not None:
            return min(self.rekey_at, self.ends_at)
        return self.ends_at


class Children:
    """Every entry, the oldest first."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._entries

    def add(self, entry: Entry) -> None:
        """One more."""
        self._entries.append(entry)

    def remove(self, entry: Entry) -> bool:
        """One less; false where it was not there."""
        if entry not in self._entries:
            return False
        self._entries.remove(entry)
        return True

    def take_all(self, other: Children) -> None:
        """Have what the other had."""
        self._entries += other._entries
        other._entries.clear()

    def of(self, child: Child) -> Entry | None:
        """The entry of this child, None when it is not in force, or has moved to another path since."""
        return next((entry for entry in self._entries if entry.child is child), None)

    def by_outbound(self, protocol: int, spi: bytes) -> Entry | None:
        """The entry that the peer names by its own SPI."""
        for entry in self._entries:
            if entry.outbound_spi == spi and entry.protocol == protocol:
                return entry
        return None
