"""Traffic selectors: the TSi and TSr payloads of IKEv2, their narrowing, and the identities of quick mode.

Knows ranges of addresses and ports, not the policy that they come from (RFC 7296 sections 2.9 and 3.13).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import ClassVar, Self

from locum.errors import DecodeError
from locum.ike.payloads1 import Identification
from locum.ike.registry import IdentificationType, PayloadType2, TrafficSelectorType
from locum.values import dataclass
from locum.wire.cursor import Reader, Writer

#: More selectors in one payload than this are refused; narrowing makes no more either.
MAX_TRAFFIC_SELECTORS = 64

#: The highest port; a range from 0 to it is any port, one from it to 0 is OPAQUE.
MAX_PORT = 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSelector:
    """RFC 7296 section 3.13.1: inclusive ranges; `protocol` 0 is any, ports 0 to 65535 are any.

    `start` and `end` are addresses of 4 or 16 bytes as `ts_type` says. Ports 65535 to 0 mean OPAQUE.
    For a type that is not known, everything after the protocol is in `start`, and ports are 0.
    """

    ts_type: int
    protocol: int = 0
    start_port: int = 0
    end_port: int = 0
    start: bytes
    end: bytes = b""

    @classmethod
    def parse(cls, reader: Reader) -> TrafficSelector:
        """Read one selector."""
        kind, protocol, length = reader.u8(), reader.u8(), reader.u16()
        size = _ADDRESS_LENGTHS.get(kind)
        if length < 4 or (size is not None and length != 8 + 2 * size):
            raise DecodeError(f"a traffic selector of type {kind} and {length} bytes")
        if size is None:
            return cls(ts_type=kind, protocol=protocol, start=reader.block(length - 4))
        return cls(
            ts_type=kind,
            protocol=protocol,
            start_port=reader.u16(),
            end_port=reader.u16(),
            start=reader.block(size),
            end=reader.block(size),
        )

    def write(self, writer: Writer) -> None:
        """Write one selector; ValueError when an address has not the length of its type."""
        size = _ADDRESS_LENGTHS.get(self.ts_type)
        writer.u8(self.ts_type)
        writer.u8(self.protocol)
        if size is None:
            writer.u16(4 + len(self.start))
            writer.block(self.start)
            return
        if len(self.start) != size or len(self.end) != size:
            raise ValueError(f"addresses of a selector of type {self.ts_type} have {size} bytes")
        writer.u16(8 + 2 * size)
        writer.u16(self.start_port)
        writer.u16(self.end_port)
        writer.block(self.start)
        writer.block(self.end)


_ADDRESS_LENGTHS: dict[int, int] = {
    TrafficSelectorType.IPV4_ADDR_RANGE: 4,
    TrafficSelectorType.IPV6_ADDR_RANGE: 16,
}
_TYPE_BY_LENGTH = {length: kind for kind, length in _ADDRESS_LENGTHS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSelectors:
    """RFC 7296 section 3.13: at least one selector."""

    selectors: tuple[TrafficSelector, ...]

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read the body."""
        count, _ = reader.u8(), reader.u24()
        if not 1 <= count <= MAX_TRAFFIC_SELECTORS:
            raise DecodeError(f"{count} traffic selectors, outside 1..{MAX_TRAFFIC_SELECTORS}")
        return cls(selectors=tuple(TrafficSelector.parse(reader) for _ in range(count)))

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.u8(len(self.selectors))
        writer.u24(0)
        for selector in self.selectors:
            selector.write(writer)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSelectorsInitiator(TrafficSelectors):
    """TSi."""

    type: ClassVar[PayloadType2] = PayloadType2.TRAFFIC_SELECTOR_INITIATOR


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSelectorsResponder(TrafficSelectors):
    """TSr."""

    type: ClassVar[PayloadType2] = PayloadType2.TRAFFIC_SELECTOR_RESPONDER


# --- making and narrowing -------------------------------------------------------------------------------------


def selector_of(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network, *, protocol: int = 0, port: int = 0
) -> TrafficSelector:
    """The selector of a network; `protocol` 0 and `port` 0 mean any."""
    return TrafficSelector(
        ts_type=_TYPE_BY_LENGTH[network.max_prefixlen // 8],
        protocol=protocol,
        start_port=port,
        end_port=port or MAX_PORT,
        start=network.network_address.packed,
        end=network.broadcast_address.packed,
    )


def intersection(left: TrafficSelector, right: TrafficSelector) -> TrafficSelector | None:
    """What both selectors have in common, None for nothing or where one is of a type that is not known."""
    if left.ts_type != right.ts_type or left.ts_type not in _ADDRESS_LENGTHS:
        return None
    if left.protocol and right.protocol and left.protocol != right.protocol:
        return None
    start, end = max(left.start, right.start), min(left.end, right.end)
    ports = _common_ports(left, right)
    if start > end or ports is None:
        return None
    return TrafficSelector(
        ts_type=left.ts_type,
        protocol=left.protocol or right.protocol,
        start_port=ports[0],
        end_port=ports[1],
        start=start,
        end=end,
    )


def _common_ports(left: TrafficSelector, right: TrafficSelector) -> tuple[int, int] | None:
    """The common range; OPAQUE, a start above its end, goes with OPAQUE and with any port (RFC 7296 3.13.1)."""
    opaque = (left.start_port > left.end_port, right.start_port > right.end_port)
    if any(opaque):
        other = right if opaque[0] else left
        either_any = (other.start_port, other.end_port) == (0, MAX_PORT)
        return (MAX_PORT, 0) if all(opaque) or either_any else None
    start, end = max(left.start_port, right.start_port), min(left.end_port, right.end_port)
    return (start, end) if start <= end else None


def narrow(offered: Sequence[TrafficSelector], allowed: Sequence[TrafficSelector]) -> tuple[TrafficSelector, ...]:
    """The part of `offered` that is `allowed`, in the order of the offer and without repetition (section 2.9).

    Empty where nothing is common: TS_UNACCEPTABLE. At most `MAX_TRAFFIC_SELECTORS`.
    """
    common = (intersection(left, right) for left in offered for right in allowed)
    return tuple(dict.fromkeys(each for each in common if each is not None))[:MAX_TRAFFIC_SELECTORS]


def is_within(narrowed: Sequence[TrafficSelector], offered: Sequence[TrafficSelector]) -> bool:
    """True when an answer keeps to the offer: every selector in it lies within one that was offered."""
    return bool(narrowed) and all(any(intersection(each, whole) == each for whole in offered) for each in narrowed)


# --- quick mode -----------------------------------------------------------------------------------------------


def selector_from_identification(identification: Identification) -> TrafficSelector:
    """The traffic that an ID payload of quick mode speaks of (RFC 2407 section 4.6.2).

    Raises: DecodeError for an identification that is no address, subnet or range, and for a subnet mask with
    holes.
    """
    kind, data = identification.id_type, identification.data
    half = len(data) // 2
    if kind in (IdentificationType.IPV4_ADDR, IdentificationType.IPV6_ADDR):
        start = end = data
    elif kind in (IdentificationType.IPV4_ADDR_RANGE, IdentificationType.IPV6_ADDR_RANGE):
        start, end = data[:half], data[half:]
    elif kind in (IdentificationType.IPV4_ADDR_SUBNET, IdentificationType.IPV6_ADDR_SUBNET):
        start, end = _subnet(data[:half], data[half:])
    else:
        raise DecodeError(f"an identification of type {kind} as traffic selector")
    port = identification.port
    return TrafficSelector(
        ts_type=_TYPE_BY_LENGTH[len(start)],
        protocol=identification.protocol,
        start_port=port,
        end_port=port or MAX_PORT,
        start=start,
        end=end,
    )


def _subnet(address: bytes, mask: bytes) -> tuple[bytes, bytes]:
    size = len(mask)
    hosts = ~int.from_bytes(mask, "big") & ((1 << size * 8) - 1)
    if hosts & (hosts + 1):
        raise DecodeError(f"a subnet mask with holes: {mask.hex()}")
    first = int.from_bytes(address, "big") & ~hosts
    return first.to_bytes(size, "big"), (first | hosts).to_bytes(size, "big")


def identification_from_selector(selector: TrafficSelector) -> Identification:
    """The ID payload of quick mode for a selector: a subnet where it is one, else a range.

    Raises: ValueError for a range of ports, which IKEv1 cannot say, and for a type that is not known.
    """
    if selector.ts_type not in _ADDRESS_LENGTHS:
        raise ValueError(f"a selector of type {selector.ts_type}")
    any_port = (selector.start_port, selector.end_port) == (0, MAX_PORT)
    if not any_port and selector.start_port != selector.end_port:
        raise ValueError("quick mode knows one port or any, not a range")
    four = selector.ts_type == TrafficSelectorType.IPV4_ADDR_RANGE
    first, last = (int.from_bytes(each, "big") for each in (selector.start, selector.end))
    hosts = last - first
    if hosts & (hosts + 1) or first & hosts:
        kind = IdentificationType.IPV4_ADDR_RANGE if four else IdentificationType.IPV6_ADDR_RANGE
        data = selector.start + selector.end
    else:
        kind = IdentificationType.IPV4_ADDR_SUBNET if four else IdentificationType.IPV6_ADDR_SUBNET
        size = len(selector.start)
        data = selector.start + (((1 << size * 8) - 1) ^ hosts).to_bytes(size, "big")
    port = 0 if any_port else selector.start_port
    return Identification(id_type=kind, protocol=selector.protocol, port=port, data=data)
