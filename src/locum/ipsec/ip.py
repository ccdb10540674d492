"""IPv4 and IPv6 headers: read as far as selectors and IPsec need, and written (RFC 791, RFC 8200).

Knows no association and no key. Every length is checked against the bytes at hand; nothing recurses.
"""

from __future__ import annotations

from typing import NamedTuple

from locum.errors import DecodeError
from locum.ipsec.faults import FragmentRefused, PacketTooLong
from locum.ipsec.selectors import Flow

#: IP protocol numbers and IPv6 next headers (IANA).
HOP_BY_HOP = 0
ICMP = 1
IPV4 = 4
TCP = 6
UDP = 17
IPV6 = 41
ROUTING = 43
FRAGMENT = 44
ICMPV6 = 58
NO_NEXT_HEADER = 59
DESTINATION_OPTIONS = 60
DCCP = 33
SCTP = 132
MOBILITY = 135
UDP_LITE = 136

#: The longest IP packet, in bytes; jumbograms (RFC 2675) are not spoken.
MAX_PACKET = 65_535
#: Extension headers in one IPv6 packet; RFC 8200 section 4.1 gives a use to seven.
MAX_EXTENSION_HEADERS = 8

IPV4_HEADER = 20
IPV6_HEADER = 40
FRAGMENT_HEADER = 8

_WITH_PORTS = frozenset((TCP, UDP, DCCP, SCTP, UDP_LITE))
_EXTENSIONS = frozenset((HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS))


class Extension(NamedTuple):
    """An IPv6 extension header: its protocol number, where it begins and how long it is, in bytes."""

    kind: int
    offset: int
    length: int


class IpPacket(NamedTuple):
    """What stands in the IP header of a packet of `length` bytes; offsets are from the packet's beginning.

    `protocol` says what begins at `payload`, and stands itself at `protocol_at`. Addresses are 4 or 16 bytes.
    `traffic_class` is DSCP and ECN. `fragment` is True for a part of a packet, which begins `fragment_offset`
    bytes behind the packet's payload.
    """

    version: int
    length: int
    traffic_class: int
    source: bytes
    destination: bytes
    protocol: int
    protocol_at: int
    payload: int
    fragment: bool
    fragment_offset: int
    dont_fragment: bool
    extensions: tuple[Extension, ...] = ()


def parse(packet: bytes) -> IpPacket:
    """Read the header of an IP packet; bytes beyond its length are allowed. Raises: DecodeError."""
    if not packet:
        raise DecodeError("an empty IP packet")
    version = packet[0] >> 4
    if version == 4:
        return _parse_ipv4(packet)
    if version == 6:
        return _parse_ipv6(packet)
    raise DecodeError(f"an IP packet of version {version}")


def _parse_ipv4(packet: bytes) -> IpPacket:
    header = (packet[0] & 0x0F) * 4
    if header < IPV4_HEADER or len(packet) < header:
        raise DecodeError("an IPv4 header that is cut off")
    length = int.from_bytes(packet[2:4], "big")
    if not header <= length <= len(packet):
        raise DecodeError(f"an IPv4 packet of {length} bytes, of which {len(packet)} are there")
    if int.from_bytes(packet[:header], "big") % 0xFFFF:
        raise DecodeError("an IPv4 header with a wrong checksum")
    fragment = _u16(packet, 6)
    return IpPacket(
        4,
        length,
        packet[1],
        packet[12:16],
        packet[16:20],
        packet[9],
        9,
        header,
        bool(fragment & 0x3FFF),
        (fragment & 0x1FFF) * 8,
        bool(fragment & 0x4000),
    )


def _parse_ipv6(packet: bytes) -> IpPacket:
    if len(packet) < IPV6_HEADER:
        raise DecodeError("an IPv6 header that is cut off")
    length = IPV6_HEADER + int.from_bytes(packet[4:6], "big")
    if length > len(packet) or length > MAX_PACKET:
        raise DecodeError(f"an IPv6 packet of {length} bytes, of which {len(packet)} are there")
    extensions, fragment = _extensions(packet, length)
    last = extensions[-1] if extensions else None
    protocol_at = last.offset if last else 6
    return IpPacket(
        6,
        length,
        _u16(packet, 0) >> 4 & 0xFF,
        packet[8:24],
        packet[24:40],
        packet[protocol_at],
        protocol_at,
        last.offset + last.length if last else IPV6_HEADER,
        fragment is not None,
        (fragment or 0) & 0xFFF8,
        True,
        extensions,
    )


def _extensions(packet: bytes, length: int) -> tuple[tuple[Extension, ...], int | None]:
    """The extension headers of an IPv6 packet of `length` bytes, and the offset field of a Fragment header.

    Nothing behind a Fragment header is walked unless it is the first fragment: it is the middle of something.
    """
    found: list[Extension] = []
    kind, offset = packet[6], IPV6_HEADER
    fragment: int | None = None
    while (kind in _EXTENSIONS or kind == FRAGMENT) and not (fragment or 0) & 0xFFF8:
        if len(found) == MAX_EXTENSION_HEADERS:
            raise DecodeError(f"more than {MAX_EXTENSION_HEADERS} IPv6 extension headers")
        if kind == HOP_BY_HOP and found:
            raise DecodeError("an IPv6 Hop-by-Hop Options header that is not the first")
        if offset + 8 > length:
            raise DecodeError("an IPv6 extension header that is cut off")
        size = 8 if kind == FRAGMENT else (packet[offset + 1] + 1) * 8
        if offset + size > length:
            raise DecodeError("an IPv6 extension header that is cut off")
        if kind == FRAGMENT:
            fragment = _u16(packet, offset + 2)
        found.append(Extension(kind, offset, size))
        kind, offset = packet[offset], offset + size
    return tuple(found), fragment


def flow_of(packet: bytes) -> Flow:
    """What traffic selectors look at in an IP packet. Raises: DecodeError."""
    ip = parse(packet)
    ports: tuple[int, int] | None = None
    start = ip.payload
    if not ip.fragment_offset:
        if ip.protocol in _WITH_PORTS and ip.length >= start + 4:
            ports = _u16(packet, start), _u16(packet, start + 2)
        elif ip.protocol in (ICMP, ICMPV6) and ip.length >= start + 2:
            ports = (_u16(packet, start),) * 2
        elif ip.protocol == MOBILITY and ip.length >= start + 3:
            ports = (packet[start + 2] << 8,) * 2
    source_port, destination_port = ports or (None, None)
    return Flow(ip.source, ip.destination, ip.protocol, source_port, destination_port)


def _u16(packet: bytes, position: int) -> int:
    return packet[position] << 8 | packet[position + 1]


def flow_key(packet: bytes) -> bytes | None:
    """A name for the flow of a packet of the plainest kind, or None: a short cut for those who remember flows.

    Two packets of one name have the same flow. Nothing is checked but what the name needs.
    """
    length = len(packet)
    if length < IPV4_HEADER + 4:
        return None
    if packet[0] == _PLAIN_IPV4:
        if packet[9] in _TCP_UDP and not (packet[6] & 0x3F or packet[7]):
            return packet[9:10] + packet[12:24]
    elif packet[0] & 0xF0 == _PLAIN_IPV6 and length >= IPV6_HEADER + 4 and packet[6] in _TCP_UDP:
        return packet[6:7] + packet[8:44]
    return None


_TCP_UDP = frozenset((TCP, UDP))
_PLAIN_IPV4 = 0x45
_PLAIN_IPV6 = 0x60


def inner_length(packet: bytes, end: int, next_header: int) -> int:
    """The length that an IP packet out of a tunnel says it has, at most `end`, the bytes at hand.

    `next_header` is what the tunnel said it is, IPV4 or IPV6. Raises: DecodeError.
    """
    if next_header == IPV4 and end >= IPV4_HEADER and packet[0] >> 4 == 4:
        length = packet[2] << 8 | packet[3]
        if IPV4_HEADER <= length <= end:
            return length
    elif next_header == IPV6 and end >= IPV6_HEADER and packet[0] >> 4 == 6:
        length = IPV6_HEADER + (packet[4] << 8 | packet[5])
        if length <= end:
            return length
    raise DecodeError(f"what came out of a tunnel is not the IP packet that protocol {next_header} says")


def checksum(data: bytes) -> int:
    """The Internet checksum of `data`, which is not all zero (RFC 1071)."""
    # The ones' complement sum of 16-bit words is the whole number modulo 2^16 - 1.
    number = int.from_bytes(data, "big")
    return -(number << 8 if len(data) & 1 else number) % 0xFFFF


def require_whole(ip: IpPacket) -> None:
    """Raise `FragmentRefused` for a fragment."""
    if ip.fragment:
        raise FragmentRefused("a fragment, where IPsec processes whole packets only")


def insertion_point(ip: IpPacket) -> tuple[int, int]:
    """Where AH or ESP goes in transport mode, and where stands what says so (RFC 4303 section 3.1.1).

    That is behind the IPv4 header, or behind the IPv6 extension headers that routers on the way look at:
    Hop-by-Hop, Routing, and Destination Options in front of a Routing header.
    """
    if ip.version == 4:
        return ip.payload, ip.protocol_at
    offset, protocol_at = IPV6_HEADER, 6
    for extension in ip.extensions:
        if extension.kind in (HOP_BY_HOP, ROUTING):
            offset, protocol_at = extension.offset + extension.length, extension.offset
    return offset, protocol_at


def set_length(header: bytearray, length: int) -> None:
    """Make `header`, an IP header with what belongs to it, that of a packet of `length` bytes, checksum included.

    Raises: PacketTooLong.
    """
    if length > MAX_PACKET:
        raise PacketTooLong(f"an IP packet of {length} bytes")
    if header[0] >> 4 == 4:
        header[2:4] = length.to_bytes(2, "big")
        header[10:12] = b"\0\0"
        header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    else:
        header[4:6] = (length - IPV6_HEADER).to_bytes(2, "big")


def ipv4_header(
    source: bytes,
    destination: bytes,
    protocol: int,
    length: int,
    *,
    traffic_class: int = 0,
    hop_limit: int = 64,
    identification: int = 0,
    dont_fragment: bool = True,
) -> bytes:
    """An IPv4 header without options for a packet of `length` bytes altogether. Raises: PacketTooLong."""
    if length > MAX_PACKET:
        raise PacketTooLong(f"an IP packet of {length} bytes")
    number = (
        (0x4500 | traffic_class) << 80
        | length << 64
        | identification << 48
        | (0x4000 if dont_fragment else 0) << 32
        | hop_limit << 24
        | protocol << 16
    )
    addresses = source + destination
    total = -(number + int.from_bytes(addresses, "big")) % 0xFFFF
    return (number | total).to_bytes(12, "big") + addresses


def ipv6_header(
    source: bytes, destination: bytes, protocol: int, length: int, *, traffic_class: int = 0, hop_limit: int = 64
) -> bytes:
    """An IPv6 header, flow label 0, for a packet of `length` bytes altogether. Raises: PacketTooLong."""
    if length > MAX_PACKET:
        raise PacketTooLong(f"an IP packet of {length} bytes")
    first = 0x60000000 | traffic_class << 20
    number = first << 32 | (length - IPV6_HEADER) << 16 | protocol << 8 | hop_limit
    return number.to_bytes(8, "big") + source + destination
