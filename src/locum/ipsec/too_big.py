"""Packets longer than their way: what their sender is told, and how they are cut (RFC 792, 791, 4443, 8200).

Knows IP headers, and no association.
"""

from __future__ import annotations

from locum.ipsec.faults import PacketTooLong
from locum.ipsec.ip import (
    FRAGMENT,
    FRAGMENT_HEADER,
    ICMP,
    ICMPV6,
    IPV4_HEADER,
    IPV6_HEADER,
    checksum,
    insertion_point,
    ipv4_header,
    ipv6_header,
    parse,
    set_length,
)

#: An ICMP error shows no more of a packet than this, in bytes of the whole message (RFC 1812 section 4.3.2.3, RFC
#: 4443 section 2.4).
_LONGEST_ICMP = 576
_LONGEST_ICMPV6 = 1280
_ICMP_HEADER = 8
_FRAGMENTATION_NEEDED = bytes((3, 4))
_PACKET_TOO_BIG = bytes((2, 0))
#: Types of ICMP that are errors themselves; of ICMPv6 all below 128.
_ICMP_ERRORS = frozenset((3, 4, 5, 11, 12))
_FIRST_ICMPV6_INFORMATION = 128
#: Fragments begin at multiples of so many bytes.
_FRAGMENT_UNIT = 8
_MORE_IPV4, _RESERVED_AND_DF = 0x2000, 0xC000
_MORE_IPV6 = 1


def may_be_cut(packet: bytes) -> bool:
    """True for an IPv4 packet that its sender allows routers to fragment."""
    return not parse(packet).dont_fragment


def too_big(packet: bytes, mtu: int) -> bytes | None:
    """The ICMP message that tells the sender of `packet` that the way takes `mtu` bytes; None if none may be sent.

    It comes from where the packet was to go, for a tunnel has no address of its own inside. None is sent about
    an ICMP error, a later fragment, or a multicast (RFC 1122 section 3.2.2, RFC 4443 section 2.4; for multicasts
    of IPv6 one could). Raises: DecodeError.
    """
    ip = parse(packet)
    if ip.fragment_offset or _is_error(packet, ip.protocol, ip.payload) or _is_group(ip.destination):
        return None
    if ip.version == 4:
        shown = packet[: min(ip.length, _LONGEST_ICMP - IPV4_HEADER - _ICMP_HEADER)]
        body = _FRAGMENTATION_NEEDED + bytes(4) + mtu.to_bytes(2, "big") + shown
        body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
        return ipv4_header(ip.destination, ip.source, ICMP, IPV4_HEADER + len(body)) + body
    shown = packet[: min(ip.length, _LONGEST_ICMPV6 - IPV6_HEADER - _ICMP_HEADER)]
    body = _PACKET_TOO_BIG + bytes(2) + mtu.to_bytes(4, "big") + shown
    pseudo_header = ip.destination + ip.source + len(body).to_bytes(4, "big") + ICMPV6.to_bytes(4, "big")
    body = body[:2] + checksum(pseudo_header + body).to_bytes(2, "big") + body[4:]
    return ipv6_header(ip.destination, ip.source, ICMPV6, IPV6_HEADER + len(body)) + body


def _is_error(packet: bytes, protocol: int, payload: int) -> bool:
    kind = packet[payload] if payload < len(packet) else 0
    return (protocol == ICMP and kind in _ICMP_ERRORS) or (protocol == ICMPV6 and kind < _FIRST_ICMPV6_INFORMATION)


def _is_group(address: bytes) -> bool:
    """True for multicast, and for IPv4's broadcast to all."""
    return address[0] >= 224 if len(address) == 4 else address[0] == 0xFF


def fragments(packet: bytes, mtu: int, identification: int) -> list[bytes]:
    """`packet` in pieces of at most `mtu` bytes; `identification`, 32 bits, is for IPv6, which has none before.

    For a packet that leaves this host: in IPv6 nobody else may cut it. Raises: PacketTooLong when its header says
    that it must not be cut, or there is no room for the pieces; DecodeError.
    """
    ip = parse(packet)
    if ip.length <= mtu:
        return [packet[: ip.length]]
    start, protocol_at = (ip.payload, 0) if ip.version == 4 else insertion_point(ip)
    overhead = 0 if ip.version == 4 else FRAGMENT_HEADER
    step = (mtu - start - overhead) // _FRAGMENT_UNIT * _FRAGMENT_UNIT
    if step <= 0 or (ip.version == 4 and (ip.dont_fragment or start != IPV4_HEADER)):
        raise PacketTooLong(f"a packet of {ip.length} bytes where {mtu} fit")
    pieces = []
    for at in range(start, ip.length, step):
        end = min(at + step, ip.length)
        header = bytearray(packet[:start])
        if ip.version == 4:
            field = int.from_bytes(header[6:8], "big") & ~_RESERVED_AND_DF
            more = _MORE_IPV4 if end < ip.length else field & _MORE_IPV4
            offset = (field & 0x1FFF) + (at - start) // _FRAGMENT_UNIT
            header[6:8] = (more | offset).to_bytes(2, "big")
        else:
            next_header, header[protocol_at] = header[protocol_at], FRAGMENT
            offset = at - start | (_MORE_IPV6 if end < ip.length else 0)
            header += bytes((next_header, 0)) + offset.to_bytes(2, "big") + identification.to_bytes(4, "big")
        set_length(header, len(header) + end - at)
        pieces.append(bytes(header) + packet[at:end])
    return pieces
