"""The terminal's cipher-key database (figs 2, 6 and 7): who holds which key, in memory, until it is wiped.

Never reaches a disk, and never copies a secret: an entry refers to the one object that works with the key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

from locum.errors import Unavailable

#: Session keys that one terminal keeps at a time, unless told otherwise.
MAXIMUM_SESSION_KEYS = 4096

Holder = TypeVar("Holder")


class KeyOrigin(StrEnum):
    """Where a session key came from (A7; S15 of fig 5)."""

    DERIVED = "derived by the terminal"
    TAKEN = "taken from the key response"


@dataclass(slots=True, kw_only=True, eq=False)
class SessionKey(Generic[Holder]):
    """The key of one encrypted communication with a peer (S17 of fig 5).

    `established` is in seconds of the clock that the caller goes by. The key itself is inside `holder`, which is
    let go of when the key is wiped; nothing can be sealed or opened after that.
    """

    peer: str
    origin: KeyOrigin
    established: float
    _holder: Holder | None = field(repr=False)

    @property
    def holder(self) -> Holder:
        """The object that seals and opens with this key; `Unavailable` after the key was wiped."""
        if self._holder is None:
            raise Unavailable(f"the session key for {self.peer} has been wiped")
        return self._holder

    @property
    def wiped(self) -> bool:
        """True when the key is gone."""
        return self._holder is None

    def wipe(self) -> None:
        """Let go of the key; wiping twice is harmless."""
        self._holder = None


@dataclass(slots=True, kw_only=True, eq=False)
class CipherKeyDatabase(Generic[Holder]):
    """Channel keys by delegate (S2), and the session keys in use (S17).

    `maximum` bounds the session keys; `Unavailable` is raised beyond it.
    """

    maximum: int = MAXIMUM_SESSION_KEYS
    _channels: dict[str, object] = field(default_factory=dict, repr=False)
    _sessions: set[SessionKey[Holder]] = field(default_factory=set, repr=False)

    def set_channel_key(self, delegate: str, holder: object) -> None:
        """Set the key agreed beforehand for `delegate` (para 55); `holder` works with it."""
        self._channels[delegate] = holder

    def has_channel_key(self, delegate: str) -> bool:
        """True when the channel to `delegate` has its key."""
        return delegate in self._channels

    def drop_channel_key(self, delegate: str) -> None:
        """Let go of the channel key of `delegate`, if there is one."""
        self._channels.pop(delegate, None)

    def set_session_key(
        self, peer: str, holder: Holder, *, origin: KeyOrigin, established: float
    ) -> SessionKey[Holder]:
        """Set the key for the communication with `peer` (para 73) and return its entry."""
        if len(self._sessions) >= self.maximum:
            raise Unavailable(f"{self.maximum} session keys are in use, the most this terminal keeps")
        entry = SessionKey(peer=peer, origin=origin, established=established, _holder=holder)
        self._sessions.add(entry)
        return entry

    def sessions(self) -> tuple[SessionKey[Holder], ...]:
        """The session keys in use, the oldest first."""
        # A copy first, in one step: other threads may come and go meanwhile.
        entries = list(self._sessions)
        entries.sort(key=lambda entry: entry.established)
        return tuple(entries)

    def remove(self, entry: SessionKey[Holder]) -> None:
        """Wipe one session key; removing twice is harmless."""
        self._sessions.discard(entry)
        entry.wipe()

    def wipe(self) -> None:
        """Wipe everything."""
        for entry in self._sessions:
            entry.wipe()
        self._sessions.clear()
        self._channels.clear()
