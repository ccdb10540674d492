"""Associations in pairs, and IP packets, for the tests of IPsec."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from locum.ipsec import algorithms
from locum.ipsec.algorithms import EncryptionAlgorithm, IntegrityAlgorithm
from locum.ipsec.ip import ICMP, TCP, UDP, ipv4_header, ipv6_header
from locum.ipsec.sa import Direction, Protocol, SecurityAssociation

NEAR4, FAR4 = ip_address("192.0.2.1"), ip_address("198.51.100.2")
NEAR6, FAR6 = ip_address("2001:db8::1"), ip_address("2001:db8:ffff::2")

#: Every combination that ESP has.
ESP_SUITES: tuple[tuple[EncryptionAlgorithm, IntegrityAlgorithm | None], ...] = (
    (algorithms.AES128_GCM16, None),
    (algorithms.AES256_GCM16, None),
    (algorithms.CHACHA20POLY1305, None),
    (algorithms.NULL_AES128_GMAC, None),
    (algorithms.NULL_AES256_GMAC, None),
    (algorithms.AES128_CBC, algorithms.SHA2_256_128),
    (algorithms.AES192_CBC, algorithms.SHA2_384_192),
    (algorithms.AES256_CBC, algorithms.SHA2_512_256),
    (algorithms.NULL, algorithms.SHA2_256_128),
    (algorithms.NULL, algorithms.SHA2_512_256),
)
#: Every algorithm that AH has.
AH_SUITES = tuple(algorithms.INTEGRITY.values())


def key_of(length: int, seed: int = 1) -> bytes:
    """A key of `length` bytes, another for another `seed`."""
    return bytes((seed * 37 + position * 11) & 0xFF for position in range(length))


def esp_sa(
    encryption: EncryptionAlgorithm = algorithms.AES128_GCM16,
    integrity: IntegrityAlgorithm | None = None,
    **changes: Any,
) -> SecurityAssociation:
    """An outbound ESP association in tunnel mode between two IPv4 hosts, but for `changes`."""
    settings: dict[str, Any] = {
        "spi": 0x1000_0001,
        "direction": Direction.OUT,
        "source": NEAR4,
        "destination": FAR4,
        "encryption": encryption,
        "encryption_key": key_of(encryption.keymat_length),
        "integrity": integrity,
        "integrity_key": key_of(integrity.keymat_length, 2) if integrity else b"",
    }
    return SecurityAssociation(**{**settings, **changes})


def ah_sa(integrity: IntegrityAlgorithm = algorithms.SHA2_256_128, **changes: Any) -> SecurityAssociation:
    """An outbound AH association in tunnel mode between two IPv4 hosts, but for `changes`."""
    settings: dict[str, Any] = {
        "spi": 0x2000_0002,
        "protocol": Protocol.AH,
        "direction": Direction.OUT,
        "source": NEAR4,
        "destination": FAR4,
        "integrity": integrity,
        "integrity_key": key_of(integrity.keymat_length),
    }
    return SecurityAssociation(**{**settings, **changes})


def far_end(sa: SecurityAssociation) -> SecurityAssociation:
    """The same association as the other end has it."""
    direction = Direction.IN if sa.direction is Direction.OUT else Direction.OUT
    return replace(sa, direction=direction, local=sa.remote, remote=sa.local)


def ipv4_packet(
    payload: bytes = b"payload",
    *,
    source: str = "10.1.0.1",
    destination: str = "10.2.0.1",
    protocol: int = UDP,
    ports: tuple[int, int] = (1024, 53),
    **header: Any,
) -> bytes:
    """An IPv4 packet; of UDP and TCP only the ports are real."""
    body = _with_ports(payload, protocol, ports)
    ends = ip_address(source).packed, ip_address(destination).packed
    return ipv4_header(*ends, protocol, 20 + len(body), **header) + body


def ipv6_packet(
    payload: bytes = b"payload",
    *,
    source: str = "2001:db8:1::1",
    destination: str = "2001:db8:2::1",
    protocol: int = UDP,
    ports: tuple[int, int] = (1024, 53),
    extensions: bytes = b"",
    first: int | None = None,
    **header: Any,
) -> bytes:
    """An IPv6 packet; `extensions` stand before the payload, the first of them of kind `first`."""
    body = extensions + _with_ports(payload, protocol, ports)
    ends = ip_address(source).packed, ip_address(destination).packed
    return ipv6_header(*ends, protocol if first is None else first, 40 + len(body), **header) + body


def _with_ports(payload: bytes, protocol: int, ports: tuple[int, int]) -> bytes:
    if protocol == ICMP or protocol not in (TCP, UDP):
        return payload
    return ports[0].to_bytes(2, "big") + ports[1].to_bytes(2, "big") + bytes(4) + payload
