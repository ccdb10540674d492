"""Fragments put together again (RFC 791, RFC 8200): in any order, within limits, and never when they overlap."""

from __future__ import annotations

import random

import pytest
from tests.support.ipsec import ipv4_packet, ipv6_packet

from locum.errors import DecodeError
from locum.ipsec import reassembly
from locum.ipsec.faults import FragmentRefused
from locum.ipsec.ip import FRAGMENT
from locum.ipsec.reassembly import MAX_FRAGMENTS, MAX_PACKETS, PATIENCE, Reassembly
from locum.ipsec.too_big import fragments

DATA = bytes(range(256)) * 20
PACKETS = [
    ipv4_packet(DATA, dont_fragment=False, identification=9),
    ipv6_packet(DATA),
    ipv6_packet(DATA, extensions=bytes((17, 0, 1, 4)) + bytes(4), first=0),
    # Destination options are a part of what is cut.
    ipv6_packet(DATA, extensions=bytes((17, 0, 1, 4)) + bytes(4), first=60),
]
IDS = ["ipv4", "ipv6", "hop-by-hop", "destination options"]


def taken(pieces: list[bytes], whole: Reassembly | None = None, now: float = 0.0) -> list[bytes]:
    """What comes out when these are taken."""
    whole = whole or Reassembly()
    return [packet for packet in (whole.take(piece, now) for piece in pieces) if packet is not None]


@pytest.mark.parametrize("packet", PACKETS, ids=IDS)
def test_fragments_make_their_packet_in_any_order(packet: bytes) -> None:
    pieces = fragments(packet, 600, 7)
    assert len(pieces) > 5
    dice = random.Random(1)
    for _ in range(20):
        assert taken(pieces) == [packet]
        dice.shuffle(pieces)


def test_packets_between_the_same_hosts_are_told_apart() -> None:
    one = ipv4_packet(DATA, dont_fragment=False, identification=1)
    other = ipv4_packet(DATA[::-1], dont_fragment=False, identification=2)
    mixed = [each for pair in zip(fragments(one, 600, 0), fragments(other, 600, 0), strict=True) for each in pair]
    assert taken(mixed) == [one, other]


def test_an_atomic_fragment_is_a_packet() -> None:
    packet = ipv6_packet(b"whole", extensions=bytes((17, 0, 0, 0)) + bytes(4), first=FRAGMENT)
    assert taken([packet]) == [ipv6_packet(b"whole")]


@pytest.mark.parametrize("packet", PACKETS, ids=IDS)
def test_overlaps_end_the_packet(packet: bytes) -> None:
    pieces, others = fragments(packet, 600, 7), fragments(packet, 408, 7)
    whole = Reassembly()
    whole.take(pieces[0], 0.0)
    with pytest.raises(FragmentRefused):
        whole.take(others[1], 0.0)
    # What came before is forgotten too.
    assert taken(pieces[1:], whole) == []


@pytest.mark.parametrize("packet", PACKETS[:2], ids=IDS[:2])
def test_two_ends_do_not_make_a_packet(packet: bytes) -> None:
    whole = Reassembly()
    whole.take(fragments(packet, 600, 7)[-1], 0.0)
    with pytest.raises(FragmentRefused):
        whole.take(fragments(packet + b"", 408, 7)[-1], 0.0)


def test_what_would_be_too_long_is_refused() -> None:
    piece = bytearray(fragments(PACKETS[0], 600, 0)[1])
    piece[6:8] = b"\x3f\xff"
    piece[10:12] = bytes(2)
    from locum.ipsec.ip import set_length

    set_length(header := piece[:20], len(piece))
    with pytest.raises(FragmentRefused):
        Reassembly().take(bytes(header + piece[20:]), 0.0)


def test_whole_packets_and_junk_are_refused() -> None:
    with pytest.raises(FragmentRefused):
        Reassembly().take(ipv4_packet(), 0.0)
    with pytest.raises(DecodeError):
        Reassembly().take(b"\x45", 0.0)


def test_what_is_waited_for_is_bounded_in_time_and_number() -> None:
    pieces = fragments(PACKETS[0], 600, 0)
    whole = Reassembly()
    whole.take(pieces[0], 0.0)
    assert taken(pieces[1:], whole, now=PATIENCE) == []
    whole = Reassembly()
    for number in range(MAX_PACKETS * 3):
        packet = ipv4_packet(DATA, dont_fragment=False, identification=100 + number)
        whole.take(fragments(packet, 600, 0)[0], 0.0)
    assert len(whole._partial) == MAX_PACKETS
    assert taken(pieces, whole) == [PACKETS[0]]


def test_the_fragments_of_a_packet_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = fragments(PACKETS[0], 68, 0)
    assert len(pieces) <= MAX_FRAGMENTS
    assert taken(pieces) == [PACKETS[0]]
    monkeypatch.setattr(reassembly, "MAX_FRAGMENTS", len(pieces) - 1)
    with pytest.raises(FragmentRefused):
        taken(pieces)
