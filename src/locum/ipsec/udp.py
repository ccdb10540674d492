"""ESP inside of UDP, beside IKE on the same port (RFC 3948).

Knows the first bytes of a datagram, and neither key nor association.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from locum.errors import DecodeError
from locum.ipsec.faults import PacketTooLong
from locum.ipsec.ip import MAX_PACKET, UDP, checksum

#: The port of IKE and ESP behind a NAT (RFC 3948 section 4).
NAT_TRAVERSAL_PORT = 4500
#: Keeps a NAT's mapping alive; a receiver ignores it (RFC 3948 section 2.3).
KEEPALIVE = b"\xff"
#: In front of IKE, where ESP has its SPI, which is never 0 (RFC 3948 section 2.2).
NON_ESP_MARKER = bytes(4)

HEADER_LENGTH = 8
_LEAST_ESP = 8


class Kind(Enum):
    """What a datagram on the NAT traversal port is."""

    ESP = "esp"
    IKE = "ike"
    KEEPALIVE = "keepalive"


class Datagram(NamedTuple):
    """A datagram's kind and what is in it, without the non-ESP marker."""

    kind: Kind
    payload: bytes


def classify(datagram: bytes) -> Datagram:
    """Tell ESP, IKE and keepalives apart (RFC 3948 section 2). Raises: DecodeError when it is none of them."""
    if datagram[:4] == NON_ESP_MARKER:
        return Datagram(Kind.IKE, datagram[4:])
    if len(datagram) >= _LEAST_ESP:
        return Datagram(Kind.ESP, datagram)
    if datagram == KEEPALIVE:
        return Datagram(Kind.KEEPALIVE, b"")
    raise DecodeError(f"a datagram of {len(datagram)} bytes that is neither ESP, nor IKE, nor a keepalive")


def mark_ike(message: bytes) -> bytes:
    """An IKE message as it travels on the NAT traversal port (RFC 3948 section 3.2)."""
    return NON_ESP_MARKER + message


def encapsulate(esp: bytes, source_port: int, destination_port: int, addresses: bytes | None = None) -> bytes:
    """A UDP header and `esp` behind it.

    `addresses`, source then destination, are given for IPv6 only, where UDP has a checksum; in IPv4 it is zero
    (RFC 3948 section 2.1). Raises: PacketTooLong.
    """
    length = HEADER_LENGTH + len(esp)
    if length > MAX_PACKET:
        raise PacketTooLong(f"a UDP datagram of {length} bytes")
    ports = source_port.to_bytes(2, "big") + destination_port.to_bytes(2, "big") + length.to_bytes(2, "big")
    total = 0
    if addresses is not None:
        pseudo_header = addresses + length.to_bytes(4, "big") + UDP.to_bytes(4, "big")
        total = checksum(pseudo_header + ports + b"\0\0" + esp) or 0xFFFF
    return ports + total.to_bytes(2, "big") + esp


def decapsulate(segment: bytes) -> bytes:
    """What is behind a UDP header, as long as that says. The checksum is not looked at: ESP has a better one.

    Raises: DecodeError.
    """
    length = int.from_bytes(segment[4:6], "big")
    if not HEADER_LENGTH <= length <= len(segment):
        raise DecodeError(f"a UDP datagram of {length} bytes, of which {len(segment)} are there")
    return segment[HEADER_LENGTH:length]
