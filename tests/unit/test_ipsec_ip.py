"""IP headers: read within bounds, written as read, checksums right (RFC 791, RFC 8200, RFC 1071)."""

from __future__ import annotations

import pytest
from tests.support.ipsec import ipv4_packet, ipv6_packet

from locum.errors import DecodeError
from locum.ipsec.faults import FragmentRefused, PacketTooLong
from locum.ipsec.ip import (
    DESTINATION_OPTIONS,
    FRAGMENT,
    HOP_BY_HOP,
    ICMP,
    ICMPV6,
    MAX_EXTENSION_HEADERS,
    MOBILITY,
    ROUTING,
    TCP,
    UDP,
    checksum,
    flow_key,
    flow_of,
    inner_length,
    insertion_point,
    ipv4_header,
    ipv6_header,
    parse,
    require_whole,
)


def extension(next_header: int, length: int = 8) -> bytes:
    return bytes((next_header, length // 8 - 1)) + bytes(length - 2)


def test_the_checksum_of_rfc1071() -> None:
    # RFC 1071 section 3 sums these to ddf2.
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2
    assert checksum(b"\x01") == 0xFFFF - 0x0100


def test_an_ipv4_header_reads_as_written() -> None:
    packet = ipv4_packet(b"x" * 100, traffic_class=0xB9, hop_limit=7, identification=77, dont_fragment=False)
    ip = parse(packet)
    assert (ip.version, ip.length, ip.traffic_class, ip.protocol, ip.payload) == (4, 128, 0xB9, UDP, 20)
    assert (ip.dont_fragment, ip.fragment, packet[8], packet[4:6]) == (False, False, 7, b"\0\x4d")
    assert parse(ipv4_packet()).dont_fragment


def test_an_ipv6_header_reads_as_written() -> None:
    packet = ipv6_packet(b"x" * 100, traffic_class=0xB9, hop_limit=7)
    ip = parse(packet)
    assert (ip.version, ip.length, ip.traffic_class, ip.protocol, ip.payload) == (6, 148, 0xB9, UDP, 40)
    assert packet[7] == 7


@pytest.mark.parametrize(
    "packet", [ipv4_packet(), ipv6_packet(), ipv6_packet(extensions=extension(UDP), first=60)]
)
def test_a_packet_cut_anywhere_is_refused(packet: bytes) -> None:
    for length in range(len(packet)):
        with pytest.raises(DecodeError):
            parse(packet[:length])
    assert parse(packet + b"trailing").length == len(packet)


@pytest.mark.parametrize(
    "position, value",
    [(0, 0x44), (0, 0x46), (0, 0x55), (2, 0xFF), (3, 19), (10, 0), (8, 1)],
)
def test_an_ipv4_header_that_is_wrong_is_refused(position: int, value: int) -> None:
    packet = bytearray(ipv4_packet())
    packet[position] = value
    with pytest.raises(DecodeError):
        parse(bytes(packet))


def test_extension_headers_are_walked_to_what_they_carry() -> None:
    chain = (
        extension(DESTINATION_OPTIONS)
        + extension(ROUTING, 16)
        + extension(DESTINATION_OPTIONS, 24)
        + extension(UDP)
    )
    packet = ipv6_packet(extensions=chain, first=HOP_BY_HOP)
    ip = parse(packet)
    assert [e.kind for e in ip.extensions] == [HOP_BY_HOP, DESTINATION_OPTIONS, ROUTING, DESTINATION_OPTIONS]
    assert (ip.protocol, ip.payload) == (UDP, 40 + 56)
    assert packet[ip.protocol_at] == UDP
    assert flow_of(packet).destination_port == 53
    # Behind the routing header, with the destination options in front of it (RFC 4303 section 3.1.1).
    routing = ip.extensions[2]
    assert insertion_point(ip) == (routing.offset + routing.length, routing.offset)


def test_destination_options_for_the_last_hop_are_protected() -> None:
    packet = ipv6_packet(extensions=extension(UDP), first=DESTINATION_OPTIONS)
    assert insertion_point(parse(packet)) == (40, 6)
    assert insertion_point(parse(ipv4_packet())) == (20, 9)


def test_too_many_or_misplaced_extension_headers_are_refused() -> None:
    many = b"".join(extension(DESTINATION_OPTIONS) for _ in range(MAX_EXTENSION_HEADERS)) + extension(UDP)
    with pytest.raises(DecodeError):
        parse(ipv6_packet(extensions=many, first=DESTINATION_OPTIONS))
    with pytest.raises(DecodeError):
        parse(ipv6_packet(extensions=extension(HOP_BY_HOP) + extension(UDP), first=DESTINATION_OPTIONS))


def test_fragments_are_recognised_and_show_ports_only_at_the_beginning() -> None:
    def ipv4_fragment(field: int) -> bytes:
        packet = bytearray(ipv4_packet())
        packet[6:8] = field.to_bytes(2, "big")
        packet[10:12] = b"\0\0"
        packet[10:12] = checksum(bytes(packet[:20])).to_bytes(2, "big")
        return bytes(packet)

    def ipv6_fragment(field: int) -> bytes:
        header = bytes((UDP, 0)) + field.to_bytes(2, "big") + bytes(4)
        return ipv6_packet(extensions=header, first=FRAGMENT)

    for packet, ports in (
        (ipv4_fragment(0x2000), 1024),
        (ipv4_fragment(0x0001), None),
        (ipv6_fragment(1), 1024),
        (ipv6_fragment(8), None),
        (ipv6_fragment(0), 1024),
    ):
        assert parse(packet).fragment
        assert flow_of(packet).source_port == ports
        assert flow_key(packet) is None
        with pytest.raises(FragmentRefused):
            require_whole(parse(packet))


def test_icmp_and_mobility_show_their_type_as_port() -> None:
    assert flow_of(ipv4_packet(b"\x08\x01" + bytes(6), protocol=ICMP))[2:] == (ICMP, 0x0801, 0x0801)
    assert flow_of(ipv6_packet(b"\x80\x00" + bytes(6), protocol=ICMPV6))[2:] == (ICMPV6, 0x8000, 0x8000)
    assert flow_of(ipv6_packet(b"\x3b\x00\x05" + bytes(5), protocol=MOBILITY))[2:] == (MOBILITY, 0x0500, 0x0500)
    assert flow_of(ipv4_packet(b"", protocol=ICMP)).source_port is None
    assert flow_of(ipv4_packet(protocol=47)).source_port is None


def test_the_name_of_a_flow_is_as_fine_as_the_flow() -> None:
    packets = [
        build(protocol=protocol, ports=(source, destination))
        for build in (ipv4_packet, ipv6_packet)
        for protocol in (TCP, UDP)
        for source in (1, 2)
        for destination in (1, 2)
    ]
    assert len({flow_key(packet) for packet in packets}) == len({flow_of(packet) for packet in packets}) == 16
    assert flow_key(b"") is None


def test_lengths_out_of_a_tunnel_are_bounded_by_what_is_there() -> None:
    for packet, next_header in ((ipv4_packet(), 4), (ipv6_packet(), 41)):
        assert inner_length(packet + bytes(9), len(packet) + 9, next_header) == len(packet)
        for bad in ((packet, len(packet) - 1, next_header), (packet, len(packet), 45 - next_header), (b"", 0, 4)):
            with pytest.raises(DecodeError):
                inner_length(*bad)


def test_headers_of_packets_that_are_too_long_are_not_written() -> None:
    for header, size in ((ipv4_header, 4), (ipv6_header, 16)):
        assert len(header(bytes(size), bytes(size), 50, 65_535)) in (20, 40)
        with pytest.raises(PacketTooLong):
            header(bytes(size), bytes(size), 50, 65_536)
