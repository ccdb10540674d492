"""Traffic selectors: which packets a policy or an association speaks of (RFC 4301 section 4.4.1, B4).

Knows addresses, protocols and ports, but no action, no key and no packet format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network, summarize_address_range
from typing import NamedTuple

from locum.errors import ConfigurationError

Address = IPv4Address | IPv6Address

ANY_PROTOCOL = 0
_LAST_PORT = 65535
_PROTOCOLS = {"any": 0, "icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
_PROTOCOL_NAMES = {number: name for name, number in _PROTOCOLS.items()}

#: Flows whose verdict is remembered; more make it forget them all and begin again.
MAX_REMEMBERED_FLOWS = 4096


class Flow(NamedTuple):
    """What selectors look at in a packet.

    Addresses are 4 or 16 bytes, both the same. Ports are None where the packet does not show them (a later
    fragment, or a protocol without ports). Of ICMP, both ports are type * 256 + code (RFC 7296 section
    3.13.1); of Mobile IPv6, both are message type * 256.
    """

    source: bytes
    destination: bytes
    protocol: int
    source_port: int | None
    destination_port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSelector:
    """A range of addresses, a protocol (0: any), and a range of ports, all inclusive (RFC 7296 section 3.13.1).

    `first_port` 65535 with `last_port` 0 stands for OPAQUE: only packets that do not show their ports.
    Raises: ConfigurationError when the ends do not fit together.
    """

    start: Address
    end: Address
    protocol: int = ANY_PROTOCOL
    first_port: int = 0
    last_port: int = _LAST_PORT

    def __post_init__(self) -> None:
        if self.start.version != self.end.version or int(self.start) > int(self.end):
            raise ConfigurationError(f"{self.start}-{self.end} is not a range of addresses")
        if any(getattr(address, "scope_id", None) for address in (self.start, self.end)):
            raise ConfigurationError(f"{self.start}: a zone is not a part of an address in a packet")
        if not 0 <= self.protocol <= 255:
            raise ConfigurationError(f"{self.protocol} is not an IP protocol")
        if not (0 <= self.first_port <= _LAST_PORT and 0 <= self.last_port <= _LAST_PORT):
            raise ConfigurationError(f"{self.first_port}-{self.last_port} is not a range of ports")
        if self.first_port > self.last_port and not self.opaque:
            raise ConfigurationError(f"{self.first_port}-{self.last_port} is not a range of ports")

    @property
    def opaque(self) -> bool:
        """True for packets that do not show their ports, and no others."""
        return self.first_port == _LAST_PORT and self.last_port == 0

    @property
    def any_port(self) -> bool:
        """True when ports do not matter."""
        return self.first_port == 0 and self.last_port == _LAST_PORT

    def covers(self, address: Address) -> bool:
        """True when `address` is within the range, whatever the protocol and port."""
        return address.version == self.start.version and self.start <= address <= self.end  # type: ignore[operator]

    def contains(self, other: TrafficSelector) -> bool:
        """True when every packet that `other` speaks of is one that this speaks of."""
        return self.intersection(other) == other

    def intersection(self, other: TrafficSelector) -> TrafficSelector | None:
        """What both speak of, or None; this is how a responder narrows (RFC 7296 section 2.9)."""
        if self.start.version != other.start.version:
            return None
        start, end = max(self.start, other.start, key=int), min(self.end, other.end, key=int)
        if int(start) > int(end) or (self.protocol and other.protocol and self.protocol != other.protocol):
            return None
        ports = self._common_ports(other)
        if ports is None:
            return None
        protocol = self.protocol or other.protocol
        return TrafficSelector(start=start, end=end, protocol=protocol, first_port=ports[0], last_port=ports[1])

    def _common_ports(self, other: TrafficSelector) -> tuple[int, int] | None:
        if self.opaque or other.opaque:
            both = (self.opaque or self.any_port) and (other.opaque or other.any_port)
            return (_LAST_PORT, 0) if both else None
        first, last = max(self.first_port, other.first_port), min(self.last_port, other.last_port)
        return (first, last) if first <= last else None

    def matches(self, address: bytes, protocol: int, port: int | None) -> bool:
        """True when this speaks of the end of a flow that has this address (4 or 16 bytes) and port."""
        if len(address) * 8 != self.start.max_prefixlen or (self.protocol and self.protocol != protocol):
            return False
        if not self.start.packed <= address <= self.end.packed:
            return False
        if port is None or self.opaque:
            return port is None and (self.opaque or self.any_port)
        return self.first_port <= port <= self.last_port

    def __str__(self) -> str:
        networks = list(summarize_address_range(self.start, self.end))
        text = str(networks[0]) if len(networks) == 1 else f"{self.start}-{self.end}"
        if not self.protocol and self.any_port:
            return text
        name = _PROTOCOL_NAMES.get(self.protocol, str(self.protocol))
        if self.any_port:
            return f"{text}[{name}]"
        if self.opaque:
            return f"{text}[{name}/opaque]"
        ports = (
            str(self.first_port) if self.first_port == self.last_port else f"{self.first_port}-{self.last_port}"
        )
        return f"{text}[{name}/{ports}]"


_TEXT = re.compile(r"(?P<addresses>[^\[\]]+)(\[(?P<protocol>[a-z0-9]+)(/(?P<ports>[a-z0-9-]+))?\])?")


def parse_selectors(text: str) -> tuple[TrafficSelector, ...]:
    """The selectors that a person writes: ADDRESSES, ADDRESSES[PROTOCOL] or ADDRESSES[PROTOCOL/PORTS].

    ADDRESSES is an address, a prefix (10.1.0.0/16), a range (A-B) or `any`, which gives a selector for IPv4 and
    one for IPv6; PROTOCOL a name or number; PORTS a number, a range or `opaque`. Raises: ConfigurationError.
    """
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(f"{text!r} is not a traffic selector: write 10.1.0.0/16[tcp/443], for example")
    protocol = _parse_protocol(match["protocol"] or "any")
    first, last = _parse_ports(match["ports"])
    if match["ports"] and not protocol:
        raise ConfigurationError(f"{text!r}: ports need a protocol")
    return tuple(
        TrafficSelector(start=start, end=end, protocol=protocol, first_port=first, last_port=last)
        for start, end in _parse_addresses(match["addresses"])
    )


def _parse_addresses(text: str) -> tuple[tuple[Address, Address], ...]:
    if text == "any":
        return _parse_addresses("0.0.0.0/0") + _parse_addresses("::/0")
    try:
        if "-" in text:
            start, end = (ip_address(part.strip()) for part in text.split("-", 1))
            return ((start, end),)
        network = ip_network(text)
        return ((network.network_address, network.broadcast_address),)
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is not an address, a prefix or a range: {error}") from None


def _parse_protocol(text: str) -> int:
    if text.isdecimal() and len(text) <= 3:
        return int(text)
    if text not in _PROTOCOLS:
        raise ConfigurationError(f"{text!r} is not a protocol: use a number or one of {', '.join(_PROTOCOLS)}")
    return _PROTOCOLS[text]


def _parse_ports(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, _LAST_PORT
    if text == "opaque":
        return _LAST_PORT, 0
    first, _, last = text.partition("-")
    last = last or first
    if not (first.isdecimal() and last.isdecimal() and len(first) <= 5 and len(last) <= 5):
        raise ConfigurationError(f"{text!r} is not a port, a range of ports or `opaque`")
    return int(first), int(last)


def flow_matches(flow: Flow, source: Iterable[TrafficSelector], destination: Iterable[TrafficSelector]) -> bool:
    """True when one of `source` speaks of where `flow` comes from, and one of `destination` of where it goes."""
    protocol = flow.protocol
    return any(each.matches(flow.source, protocol, flow.source_port) for each in source) and any(
        each.matches(flow.destination, protocol, flow.destination_port) for each in destination
    )


#: Every packet of IPv4 and of IPv6.
ANY = parse_selectors("any")
