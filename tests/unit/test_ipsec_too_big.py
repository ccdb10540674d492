"""Packets longer than their way: the message to the sender, and the pieces (RFC 792, 791, 4443, 8200)."""

from __future__ import annotations

import pytest
from tests.support.ipsec import ipv4_packet, ipv6_packet

from locum.ipsec.faults import PacketTooLong
from locum.ipsec.ip import FRAGMENT, ICMP, ICMPV6, checksum, parse
from locum.ipsec.too_big import fragments, may_be_cut, too_big


def test_the_sender_of_an_ipv4_packet_is_told_the_mtu_and_shown_the_packet() -> None:
    packet = ipv4_packet(bytes(2000))
    message = too_big(packet, 1400)
    assert message is not None
    ip = parse(message)
    assert (ip.source, ip.destination, ip.protocol) == (parse(packet).destination, parse(packet).source, ICMP)
    body = message[ip.payload :]
    assert body[:2] == bytes((3, 4)) and int.from_bytes(body[6:8], "big") == 1400
    assert checksum(body) == 0
    assert packet.startswith(body[8:]) and len(body) > 8 + 20 + 8
    assert len(message) <= 576


def test_the_sender_of_an_ipv6_packet_is_told_the_mtu_and_shown_the_packet() -> None:
    packet = ipv6_packet(bytes(2000))
    message = too_big(packet, 1300)
    assert message is not None
    ip = parse(message)
    assert (ip.source, ip.destination, ip.protocol) == (parse(packet).destination, parse(packet).source, ICMPV6)
    body = message[ip.payload :]
    assert body[:2] == bytes((2, 0)) and int.from_bytes(body[4:8], "big") == 1300
    pseudo_header = ip.source + ip.destination + len(body).to_bytes(4, "big") + bytes((0, 0, 0, ICMPV6))
    assert checksum(pseudo_header + body) == 0
    assert packet.startswith(body[8:])
    assert len(message) == 1280


@pytest.mark.parametrize(
    "packet",
    [
        ipv4_packet(b"\x03\x04" + bytes(600), protocol=ICMP),
        ipv6_packet(b"\x01\x00" + bytes(600), protocol=ICMPV6),
        ipv4_packet(bytes(600), destination="224.0.0.251"),
        ipv4_packet(bytes(600), destination="255.255.255.255"),
        ipv6_packet(bytes(600), destination="ff02::1"),
        fragments(ipv4_packet(bytes(600), dont_fragment=False), 400, 0)[1],
    ],
    ids=["icmp error", "icmpv6 error", "multicast", "broadcast", "multicast6", "later fragment"],
)
def test_nobody_is_told_about_some_packets(packet: bytes) -> None:
    assert too_big(packet, 500) is None


def test_echo_requests_are_answered_as_data_is() -> None:
    assert too_big(ipv4_packet(b"\x08\x00" + bytes(600), protocol=ICMP), 500) is not None
    assert too_big(ipv6_packet(b"\x80\x00" + bytes(600), protocol=ICMPV6), 500) is not None


def test_only_ipv4_without_the_bit_may_be_cut() -> None:
    assert may_be_cut(ipv4_packet(dont_fragment=False))
    assert not may_be_cut(ipv4_packet())
    assert not may_be_cut(ipv6_packet())


@pytest.mark.parametrize("mtu", [68, 576, 1401])
def test_ipv4_pieces_are_fragments_of_the_packet(mtu: int) -> None:
    packet = ipv4_packet(bytes(range(256)) * 10, dont_fragment=False, identification=77)
    pieces = fragments(packet, mtu, 0)
    parsed = [parse(piece) for piece in pieces]
    assert all(ip.length == len(piece) <= mtu for ip, piece in zip(parsed, pieces, strict=True))
    assert [ip.fragment_offset for ip in parsed] == [
        sum(len(piece) - 20 for piece in pieces[:index]) for index in range(len(pieces))
    ]
    assert {piece[4:6] for piece in pieces} == {packet[4:6]}
    assert [piece[6] & 0x20 for piece in pieces] == [0x20] * (len(pieces) - 1) + [0]
    assert b"".join(piece[20:] for piece in pieces) == packet[20:]


def test_a_fragment_can_be_cut_again() -> None:
    packet = ipv4_packet(bytes(range(256)) * 10, dont_fragment=False)
    again = [piece for part in fragments(packet, 1000, 0) for piece in fragments(part, 300, 0)]
    assert b"".join(piece[20:] for piece in again) == packet[20:]
    assert [parse(piece).fragment_offset for piece in again] == [
        sum(len(piece) - 20 for piece in again[:index]) for index in range(len(again))
    ]
    assert [piece[6] & 0x20 for piece in again] == [0x20] * (len(again) - 1) + [0]


@pytest.mark.parametrize("extended", [False, True], ids=["plain", "hop-by-hop"])
def test_ipv6_pieces_have_a_fragment_header_behind_what_routers_read(extended: bool) -> None:
    extensions = bytes((17, 0, 1, 4)) + bytes(4) if extended else b""
    packet = ipv6_packet(bytes(range(256)) * 10, extensions=extensions, first=0 if extended else None)
    start = 48 if extended else 40
    pieces = fragments(packet, 1280, 0xDEAD_BEEF)
    for number, piece in enumerate(pieces):
        ip = parse(piece)
        assert ip.length == len(piece) <= 1280
        assert ip.extensions[-1].kind == FRAGMENT
        assert piece[start] == 17 and piece[start + 4 : start + 8] == b"\xde\xad\xbe\xef"
        assert piece[start + 3] & 1 == (number < len(pieces) - 1)
    assert b"".join(piece[start + 8 :] for piece in pieces) == packet[start:]


def test_what_fits_stays_whole() -> None:
    packet = ipv4_packet(bytes(100))
    assert fragments(packet + b"behind", len(packet), 0) == [packet]


@pytest.mark.parametrize(
    "packet, mtu", [(ipv4_packet(bytes(100)), 68), (ipv4_packet(bytes(100), dont_fragment=False), 24)]
)
def test_what_must_not_or_cannot_be_cut_is_refused(packet: bytes, mtu: int) -> None:
    with pytest.raises(PacketTooLong):
        fragments(packet, mtu, 0)
