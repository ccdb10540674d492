"""Peer patterns: which peers a policy rule, a pinned key or an identity is meant for.

Knows the text of a pattern and of an identity, never certificates, terminals or what follows from a match.

======================  =====================================================================================
``dns:NAME``            the peer proved to be NAME
``dns:*.example.com``   ... or any name with exactly one label in the star's place, as in certificates
                        (RFC 9525 section 6.3): ``a.example.com``, not ``example.com`` nor ``a.b.example.com``
``ip:ADDRESS|NETWORK``  the peer proved to be, or is reached at, an address in the network
``pin:NAME``            the peer showed the pinned key NAME
``*``                   every authenticated peer
======================  =====================================================================================
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from locum.errors import ConfigurationError
from locum.names import check_name, normalize_dns_name

#: Longest text of a pattern or identity: a DNS name with its prefix fits.
PATTERN_LIMIT = 260
#: Parsed patterns and identities kept for the next use.
_CACHED = 4096

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class PeerPattern:
    """A parsed pattern; `value` is in its normal form, `network` is there for ``ip`` alone."""

    kind: Literal["dns", "ip", "pin", "*"]
    value: str = ""
    network: _Network | None = None

    def __str__(self) -> str:
        return "*" if self.kind == "*" else f"{self.kind}:{self.value}"

    def matches(self, identity: str, address: str = "") -> bool:
        """True when a peer fits that proved to be `identity` (``dns:``, ``ip:`` or ``pin:``) and is at `address`.

        `address` is a textual IP address, or empty when it is not known. Text that is neither an identity
        nor an address matches nothing but ``*``.
        """
        if self.kind == "*":
            return True
        kind, _, value = identity.partition(":")
        if self.kind == "ip":
            return self._contains(value if kind == "ip" else "") or self._contains(address)
        if self.kind == "pin":
            return identity == f"pin:{self.value}"
        return kind == "dns" and self._matches_dns(value)

    def _matches_dns(self, name: str) -> bool:
        name = name.lower().removesuffix(".")
        if not self.value.startswith("*."):
            return name == self.value
        label, dot, parent = name.partition(".")
        return bool(label and dot) and parent == self.value[2:]

    def _contains(self, text: str) -> bool:
        address = _parse_address(text)
        return address is not None and self.network is not None and address in self.network


@lru_cache(_CACHED)
def parse_pattern(text: str) -> PeerPattern:
    """Read a pattern; ConfigurationError, saying what would be right, when it is none."""
    if text == "*":
        return PeerPattern("*")
    kind, colon, value = text.partition(":")
    if not colon or len(text) > PATTERN_LIMIT or kind not in ("dns", "ip", "pin"):
        raise ConfigurationError(
            f"{text[:PATTERN_LIMIT]!r} is not dns:NAME, dns:*.NAME, ip:NETWORK, pin:NAME or '*'"
        )
    if kind == "dns":
        star, parent = ("*.", value[2:]) if value.startswith("*.") else ("", value)
        return PeerPattern("dns", star + normalize_dns_name(parent))
    if kind == "pin":
        return PeerPattern("pin", check_name(value, "pinned key's name"))
    network = _parse_network(value)
    single = network.prefixlen == network.max_prefixlen
    return PeerPattern("ip", str(network.network_address) if single else str(network), network)


def normalize_pattern(text: str) -> str:
    """The one way to write the pattern `text`; ConfigurationError when it is none."""
    return str(parse_pattern(text))


def matches(pattern: str, identity: str, address: str = "") -> bool:
    """As `PeerPattern.matches`, for a pattern in its textual form; ConfigurationError when that is none."""
    return parse_pattern(pattern).matches(identity, address)


def _parse_network(text: str) -> _Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigurationError(f"'ip:{text}': {error}") from None
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


@lru_cache(_CACHED)
def _parse_address(text: str) -> _Address | None:
    if not text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # ::ffff:192.0.2.1 reaches 192.0.2.1, and must not slip past a rule about it.
    return address if isinstance(address, ipaddress.IPv4Address) else (address.ipv4_mapped or address)
