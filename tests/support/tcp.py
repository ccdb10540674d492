"""TCP segments in IP packets with right checksums, and what a receiver thinks of them."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from locum.ipsec.ip import TCP, checksum, ipv4_header, ipv6_header, parse

ACK, PSH, FIN = 0x10, 0x08, 0x01
_HEADER = struct.Struct("!HHIIBBHHH")
TIMESTAMP = b"\x01\x01\x08\x0a" + bytes(range(8))


def tcp_packet(
    sequence: int,
    payload: bytes,
    *,
    ipv6: bool = False,
    flags: int = ACK,
    acknowledgment: int = 77,
    window: int = 500,
    urgent: int = 0,
    options: bytes = TIMESTAMP,
    ports: tuple[int, int] = (1000, 2000),
    identification: int = 0,
    traffic_class: int = 0,
    hop_limit: int = 64,
    may_be_cut: bool = False,
) -> bytes:
    """A whole IP packet."""
    ends = [ip_address(text).packed for text in (("fd00::1", "fd00::2") if ipv6 else ("10.1.0.1", "10.2.0.1"))]
    offset = (_HEADER.size + len(options)) // 4 << 4
    segment = _HEADER.pack(*ports, sequence & 0xFFFF_FFFF, acknowledgment, offset, flags, window, 0, urgent)
    segment += options + payload
    total = checksum(pseudo_header(*ends, len(segment)) + segment)
    segment = segment[:16] + total.to_bytes(2, "big") + segment[18:]
    fields = {"traffic_class": traffic_class, "hop_limit": hop_limit}
    if ipv6:
        return ipv6_header(*ends, TCP, 40 + len(segment), **fields) + segment
    length = 20 + len(segment)
    header = ipv4_header(*ends, TCP, length, identification=identification, dont_fragment=not may_be_cut, **fields)
    return header + segment


def pseudo_header(source: bytes, destination: bytes, length: int) -> bytes:
    """What a TCP checksum covers besides the segment."""
    return source + destination + length.to_bytes(4, "big") + TCP.to_bytes(4, "big")


def is_intact(packet: bytes) -> bool:
    """True when the length and the checksum of a TCP packet are right."""
    ip = parse(packet)
    segment = packet[ip.payload :]
    return ip.length == len(packet) and not checksum(
        pseudo_header(ip.source, ip.destination, len(segment)) + segment
    )
