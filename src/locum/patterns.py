"""Peer patterns: which peers a policy rule, a pinned key, an identity or a shared secret is meant for.

Knows the text of a pattern and of an identity, never certificates, terminals or what follows from a match.

======================  =====================================================================================
``dns:NAME``            the peer proved to be NAME
``dns:*.example.com``   ... or any name with exactly one label in the star's place, as in certificates
                        (RFC 9525 section 6.3): ``a.example.com``, not ``example.com`` nor ``a.b.example.com``
``ip:ADDRESS|NETWORK``  the peer proved to be, or is reached at, an address in the network
``email:LOCAL@DOMAIN``  the peer proved to be this e-mail address; ``email:*@DOMAIN`` any of the domain
``dn:CN=a,O=b``         the peer proved to have exactly this distinguished name, in the order of RFC 4514
``keyid:HEX``           the peer proved to have this key ID, which only IKE has, in hexadecimal
``pin:NAME``            the peer showed the pinned key NAME
``*``                   every authenticated peer
======================  =====================================================================================

An identity is what a peer proved to be: a pattern without a star and without a network.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from locum.errors import ConfigurationError
from locum.names import check_name, normalize_distinguished_name, normalize_dns_name, normalize_email

#: Longest text of a pattern in characters: distinguished names of any length that people write fit.
PATTERN_LIMIT = 1024
#: Parsed patterns and identities kept for the next use.
_CACHED = 4096

_KEY_ID = re.compile(r"(?:[0-9a-f]{2})+", re.ASCII)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Kind = Literal["dns", "ip", "email", "dn", "keyid", "pin", "*"]


@dataclass(frozen=True, slots=True)
class PeerPattern:
    """A parsed pattern; `value` is in its normal form, `network` is there for ``ip`` alone."""

    kind: _Kind
    value: str = ""
    network: _Network | None = None

    def __str__(self) -> str:
        return "*" if self.kind == "*" else f"{self.kind}:{self.value}"

    @property
    def is_identity(self) -> bool:
        """True when there is one identity that this pattern matches by name, and no other."""
        if self.network is not None:
            return self.network.prefixlen == self.network.max_prefixlen
        return self.kind != "*" and not self.value.startswith(("*.", "*@"))

    def matches(self, identity: str, address: str = "") -> bool:
        """True when a peer fits that proved to be `identity` (``dns:NAME`` and so on) and is at `address`.

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
        if kind != self.kind:
            return False
        if kind == "dns":
            return self._matches_dns(value)
        normal = _normal_value(kind, value)
        if kind == "email" and self.value.startswith("*@"):
            return normal is not None and normal.rpartition("@")[2] == self.value[2:]
        return normal == self.value

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
    pattern = _parse(text)
    # The normal form of a distinguished name may be longer than what was written.
    if len(str(pattern)) > PATTERN_LIMIT:
        raise ConfigurationError(f"{text[:80]!r} has more than {PATTERN_LIMIT} characters in its normal form")
    return pattern


def _parse(text: str) -> PeerPattern:
    if text == "*":
        return PeerPattern("*")
    kind, colon, value = text.partition(":")
    if not colon or len(text) > PATTERN_LIMIT or kind not in ("dns", "ip", "email", "dn", "keyid", "pin"):
        raise ConfigurationError(
            f"{text[:80]!r} is not dns:NAME, dns:*.NAME, ip:NETWORK, email:LOCAL@DOMAIN, email:*@DOMAIN, "
            "dn:NAME, keyid:HEX, pin:NAME or '*'"
        )
    if kind == "dns":
        star, parent = ("*.", value[2:]) if value.startswith("*.") else ("", value)
        return PeerPattern("dns", star + normalize_dns_name(parent))
    if kind == "email":
        return PeerPattern("email", normalize_email(value))
    if kind == "dn":
        return PeerPattern("dn", normalize_distinguished_name(value))
    if kind == "keyid":
        return PeerPattern("keyid", _normalize_key_id(value))
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


def normalize_identity(text: str) -> str:
    """The one way to write the identity that a peer may prove; ConfigurationError when `text` is none.

    A bare IP address, e-mail address or DNS name is taken for one. A pinned key is no identity to ask for.
    """
    pattern = parse_pattern(_with_kind(text))
    if not pattern.is_identity or pattern.kind == "pin":
        raise ConfigurationError(
            f"{text[:80]!r} does not name one peer: dns:NAME, ip:ADDRESS, email:LOCAL@DOMAIN, dn:NAME or keyid:HEX"
        )
    return str(pattern)


def _with_kind(text: str) -> str:
    if _parse_address(text) is not None:
        return f"ip:{text}"
    if ":" in text or text == "*":
        return text
    return f"email:{text}" if "@" in text else f"dns:{text}"


@lru_cache(_CACHED)
def _normal_value(kind: str, value: str) -> str | None:
    """The normal form of what an identity of this kind has after its colon; None when it is none."""
    normalize = {"email": normalize_email, "dn": normalize_distinguished_name, "keyid": _normalize_key_id}[kind]
    try:
        return normalize(value)
    except ConfigurationError:
        return None


def _normalize_key_id(text: str) -> str:
    octets = text.lower()
    if not _KEY_ID.fullmatch(octets):
        raise ConfigurationError(f"{text[:80]!r} is not a key ID: pairs of hexadecimal digits are needed")
    return octets


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
