"""Security associations: everything that two ends agreed on for one direction, and where they are found (B5).

Knows parameters, not packets; a key is never shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum

from locum.errors import ConfigurationError
from locum.ipsec.algorithms import EncryptionAlgorithm, IntegrityAlgorithm
from locum.ipsec.selectors import ANY, Address, Flow, TrafficSelector, flow_matches

#: SPIs up to here are reserved (RFC 4303 section 2.1).
LAST_RESERVED_SPI = 255
_LAST_SPI = (1 << 32) - 1
#: Anti-replay window, in packets; RFC 4303 section 3.4.3 asks for 32 and prefers 64.
DEFAULT_REPLAY_WINDOW = 64
MAX_REPLAY_WINDOW = 4096


class Protocol(IntEnum):
    """The two protocols, by their IP protocol numbers."""

    ESP = 50
    AH = 51


class Mode(StrEnum):
    """What is protected: the payload of a packet, or a packet as a whole (RFC 4301 section 3.2)."""

    TRANSPORT = "transport"
    TUNNEL = "tunnel"


class Direction(StrEnum):
    """As seen from the end that holds the association."""

    IN = "in"
    OUT = "out"


class DontFragment(StrEnum):
    """What the outer header says about fragmentation (RFC 4301 section 8.1)."""

    COPY = "copy"
    SET = "set"
    CLEAR = "clear"


class Expiry(IntEnum):
    """How far an association is through its lifetime: SOFT asks for a new one, HARD ends this one."""

    NONE = 0
    SOFT = 1
    HARD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """Limits on an association in seconds since its creation, protected bytes and packets; None is no limit.

    RFC 4301 section 4.4.2.1. Raises: ConfigurationError for a limit that is not positive or soft beyond hard.
    """

    soft_seconds: float | None = None
    hard_seconds: float | None = None
    soft_bytes: int | None = None
    hard_bytes: int | None = None
    soft_packets: int | None = None
    hard_packets: int | None = None

    def __post_init__(self) -> None:
        for unit in ("seconds", "bytes", "packets"):
            soft, hard = getattr(self, f"soft_{unit}"), getattr(self, f"hard_{unit}")
            if any(limit is not None and limit <= 0 for limit in (soft, hard)):
                raise ConfigurationError(f"a lifetime in {unit} is positive")
            if soft is not None and hard is not None and soft > hard:
                raise ConfigurationError(f"the soft lifetime in {unit} is beyond the hard one")

    def expiry(self, *, age: float, used_bytes: int, used_packets: int) -> Expiry:
        """How far an association of this age, in seconds, and use has come."""
        if _reached(self.hard_seconds, age) or _reached(self.hard_bytes, used_bytes):
            return Expiry.HARD
        if _reached(self.hard_packets, used_packets):
            return Expiry.HARD
        if _reached(self.soft_seconds, age) or _reached(self.soft_bytes, used_bytes):
            return Expiry.SOFT
        return Expiry.SOFT if _reached(self.soft_packets, used_packets) else Expiry.NONE


#: No limit at all: for associations that were set by hand.
UNLIMITED = Lifetime()


def _reached(limit: float | None, value: float) -> bool:
    return limit is not None and value >= limit


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpEncapsulation:
    """Ports of the UDP header in front of ESP, in the direction of the association (RFC 3948)."""

    source_port: int
    destination_port: int

    def __post_init__(self) -> None:
        if not (0 < self.source_port <= 65535 and 0 < self.destination_port <= 65535):
            raise ConfigurationError("a UDP port is within 1..65535")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityAssociation:
    """One direction of protected traffic (RFC 4301 section 4.4.2, B5).

    `source` and `destination` are the addresses of the protected packets as they travel: the ends of the tunnel,
    or the two hosts in transport mode. `encryption_key` is key, then salt, as taken from the keying material.
    AH has no `encryption`; a combined mode has no `integrity`. `original_addresses` are those that the sender of
    transport mode wrote on its packets before a NAT changed them, source then destination, where they are known
    (NAT-OA of RFC 3947 section 5.2, traffic selectors of RFC 7296 section 2.23.1).

    `local` and `remote` say which traffic the association carries, seen from this end whatever the direction.
    `created` is in seconds of the clock that `SaDatabase.expired` is asked with. `copy_dscp` False sends outer
    headers with DSCP 0 (RFC 4301 section 5.1.2). Raises: ConfigurationError.
    """

    spi: int
    protocol: Protocol = Protocol.ESP
    mode: Mode = Mode.TUNNEL
    direction: Direction
    source: Address
    destination: Address
    encryption: EncryptionAlgorithm | None = None
    encryption_key: bytes = field(default=b"", repr=False)
    integrity: IntegrityAlgorithm | None = None
    integrity_key: bytes = field(default=b"", repr=False)
    local: tuple[TrafficSelector, ...] = ANY
    remote: tuple[TrafficSelector, ...] = ANY
    extended_sequence: bool = False
    replay_window: int = DEFAULT_REPLAY_WINDOW
    encapsulation: UdpEncapsulation | None = None
    original_addresses: tuple[Address, Address] | None = None
    lifetime: Lifetime = UNLIMITED
    created: float = 0.0
    dont_fragment: DontFragment = DontFragment.COPY
    copy_dscp: bool = True

    def __post_init__(self) -> None:
        if not LAST_RESERVED_SPI < self.spi <= _LAST_SPI:
            raise ConfigurationError(f"an SPI is within {LAST_RESERVED_SPI + 1}..{_LAST_SPI}")
        if self.source.version != self.destination.version:
            raise ConfigurationError("an association runs between two addresses of one IP version")
        if not 0 <= self.replay_window <= MAX_REPLAY_WINDOW:
            raise ConfigurationError(f"an anti-replay window is within 0..{MAX_REPLAY_WINDOW} packets")
        if self.extended_sequence and not self.replay_window:
            # RFC 4303 Appendix A2: the upper half is found through the window.
            raise ConfigurationError("extended sequence numbers need an anti-replay window")
        if not self.local or not self.remote:
            raise ConfigurationError("an association without traffic selectors carries nothing")
        self._check_algorithms()

    def _check_algorithms(self) -> None:
        encryption, integrity = self.encryption, self.integrity
        if self.protocol is Protocol.AH:
            if encryption is not None or integrity is None or self.encapsulation is not None:
                raise ConfigurationError("AH has an integrity algorithm, no encryption, and no UDP encapsulation")
        elif encryption is None:
            raise ConfigurationError("ESP has an encryption algorithm, `null` where nothing is hidden")
        elif (encryption.aead is None) == (integrity is None):
            # RFC 8221 section 4: encryption without integrity is no protection.
            raise ConfigurationError("ESP has an integrity algorithm exactly when its encryption provides none")
        elif integrity is not None and integrity.mac is None:
            raise ConfigurationError(f"{integrity.name} is an integrity algorithm of AH only")
        if len(self.encryption_key) != (encryption.keymat_length if encryption else 0):
            raise ConfigurationError("the encryption key does not have the length of its algorithm, salt included")
        if len(self.integrity_key) != (integrity.keymat_length if integrity else 0):
            raise ConfigurationError("the integrity key does not have the length of its algorithm, salt included")

    @property
    def identity(self) -> tuple[Protocol, int, Address]:
        """What tells this association from all others in its direction (RFC 4301 section 4.1)."""
        return self.protocol, self.spi, self.destination

    def continues(self, other: SecurityAssociation) -> bool:
        """True when this is `other` at other addresses: what has been protected by one was by both."""
        moved = replace(
            other,
            source=self.source,
            destination=self.destination,
            encapsulation=self.encapsulation,
            local=self.local,
            remote=self.remote,
            original_addresses=self.original_addresses,
        )
        return moved == self

    def carries(self, flow: Flow) -> bool:
        """True when this association may carry `flow`, a packet in the association's own direction."""
        here, there = (self.local, self.remote) if self.direction is Direction.OUT else (self.remote, self.local)
        return flow_matches(flow, here, there)


class SaDatabase:
    """The associations of one end (RFC 4301 section 4.4.2, B5): inbound by SPI, outbound by traffic."""

    def __init__(self) -> None:
        self._inbound: dict[tuple[Protocol, int], SecurityAssociation] = {}
        self._outbound: list[SecurityAssociation] = []
        #: goes up whenever something is added or removed, so that what was found can be remembered
        self.generation = 0

    def __iter__(self) -> Iterator[SecurityAssociation]:
        yield from self._inbound.values()
        yield from self._outbound

    def __len__(self) -> int:
        return len(self._inbound) + len(self._outbound)

    def add(self, sa: SecurityAssociation) -> None:
        """Put an association in. Raises: ConfigurationError when its SPI is taken.

        That also keeps an outbound one from being put to work twice, with the same key and from the same number.
        """
        if sa.direction is Direction.IN:
            if (sa.protocol, sa.spi) in self._inbound:
                raise ConfigurationError(f"SPI {sa.spi:#010x} is in use already")
            self._inbound[sa.protocol, sa.spi] = sa
        else:
            if any(other.identity == sa.identity for other in self._outbound):
                raise ConfigurationError(f"SPI {sa.spi:#010x} is in use already towards {sa.destination}")
            self._outbound.insert(0, sa)
        self.generation += 1

    def replace(self, old: SecurityAssociation, new: SecurityAssociation) -> None:
        """Put `new` in the place of `old`.

        Raises: ConfigurationError unless `new` continues `old`, which is there, and its SPI is free at its peer.
        """
        taken = any(each.identity == new.identity for each in self._outbound if each is not old)
        if not new.continues(old) or not any(each is old for each in self) or taken:
            raise ConfigurationError(f"SPI {old.spi:#010x} cannot be replaced by {new.spi:#010x}")
        if new.direction is Direction.IN:
            self._inbound[new.protocol, new.spi] = new
        else:
            self._outbound = [new if each is old else each for each in self._outbound]
        self.generation += 1

    def remove(self, sa: SecurityAssociation) -> None:
        """Take an association out; one that is not there is no error."""
        if sa.direction is Direction.IN:
            if self._inbound.get((sa.protocol, sa.spi)) is sa:
                del self._inbound[sa.protocol, sa.spi]
        else:
            self._outbound = [other for other in self._outbound if other is not sa]
        self.generation += 1

    def inbound(self, protocol: Protocol, spi: int) -> SecurityAssociation | None:
        """The association that a packet with this SPI belongs to (RFC 4301 section 4.1)."""
        return self._inbound.get((protocol, spi))

    def outbound(self, flow: Flow) -> SecurityAssociation | None:
        """The newest association that carries `flow`."""
        return next((sa for sa in self._outbound if sa.carries(flow)), None)
