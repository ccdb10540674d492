"""TCP segments put together: only those that continue one another, and with a checksum that is right."""

from __future__ import annotations

import os
from typing import Any

import pytest
from tests.support.ipsec import ipv4_packet, ipv6_packet
from tests.support.tcp import ACK, FIN, PSH, TIMESTAMP, is_intact, tcp_packet

from locum.dataplane.gathering import MAX_SEGMENTS, Gathered, gather
from locum.dataplane.tun import GSO_TCP4, GSO_TCP6
from locum.ipsec.ip import MAX_PACKET, parse
from locum.ipsec.too_big import fragments

SIZE = 1340
FAMILIES = pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])


def whole(gathered: Gathered) -> bytes:
    if gathered.segments is None:
        return gathered.first
    return gathered.segments.header + b"".join(gathered.segments.segments)


def payload_of(packet: bytes) -> bytes:
    ip = parse(packet)
    return packet[ip.payload + (packet[ip.payload + 12] >> 4) * 4 : ip.length]


def stream(count: int, *, start: int = 1, last: int = SIZE, size: int = SIZE, **settings: Any) -> list[bytes]:
    """A stream in `count` segments, the last with `last` bytes."""
    sizes = [size] * (count - 1) + [last]
    return [
        tcp_packet(start + number * size, os.urandom(length), identification=number, **settings)
        for number, length in enumerate(sizes)
    ]


@FAMILIES
@pytest.mark.parametrize("last", [SIZE, 301, 1])
@pytest.mark.parametrize("start", [1, (1 << 32) - 3000], ids=["plain", "sequence numbers wrap"])
@pytest.mark.parametrize("options", [b"", TIMESTAMP], ids=["bare", "timestamps"])
def test_segments_of_a_stream_become_one_with_a_right_checksum(
    ipv6: bool, last: int, start: int, options: bytes
) -> None:
    packets = stream(9, ipv6=ipv6, last=last, start=start, options=options)
    (gathered,) = gather(packets)
    assert gathered.segments is not None
    assert gathered.first == packets[0]
    assert gathered.segments.kind == (GSO_TCP6 if ipv6 else GSO_TCP4)
    assert gathered.segments.segment_size == SIZE
    assert is_intact(whole(gathered))
    assert payload_of(whole(gathered)) == b"".join(map(payload_of, packets))


@FAMILIES
def test_an_altered_segment_does_not_become_intact(ipv6: bool) -> None:
    packets = stream(4, ipv6=ipv6)
    packets[2] = packets[2][:-1] + bytes((packets[2][-1] ^ 1,))
    (gathered,) = gather(packets)
    assert gathered.segments is not None
    assert not is_intact(whole(gathered))


def test_push_is_kept_and_ends_the_piece() -> None:
    packets = stream(3) + stream(2, start=1 + 3 * SIZE)
    packets[2] = tcp_packet(1 + 2 * SIZE, bytes(SIZE), flags=ACK | PSH)
    first, second = gather(packets)
    assert first.segments is not None and second.segments is not None
    assert (len(first.segments.segments), len(second.segments.segments)) == (3, 2)
    assert whole(first)[20 + 13] == ACK | PSH
    assert is_intact(whole(first))


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 1 + SIZE + 1},
        {"sequence": 1},
        {"payload": bytes(SIZE + 2)},
        {"payload": b""},
        {"flags": ACK | FIN},
        {"flags": 0},
        {"acknowledgment": 78},
        {"window": 501},
        {"urgent": 1},
        {"options": TIMESTAMP[:-1] + b"\xff"},
        {"options": b""},
        {"ports": (1000, 2001)},
        {"traffic_class": 1},
        {"hop_limit": 63},
    ],
    ids=lambda change: next(iter(change)) + repr(next(iter(change.values())))[:12],
)
@FAMILIES
def test_what_differs_stays_apart(ipv6: bool, change: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"sequence": 1 + SIZE, "payload": bytes(SIZE), "ipv6": ipv6}
    packets = [tcp_packet(1, bytes(SIZE), ipv6=ipv6), tcp_packet(**(usual | change))]
    assert [each.segments for each in gather(packets)] == [None, None]
    assert [each.first for each in gather(packets)] == packets
    together = [packets[0], tcp_packet(**usual)]
    assert len(list(gather(together))) == 1


FRAGMENT = fragments(tcp_packet(1, bytes(100), may_be_cut=True), 100, 0)[0]
ALONE = {
    "odd length": (tcp_packet(1, b"odd"), 3),
    "push": (tcp_packet(1, bytes(10), flags=ACK | PSH), 10),
    "urgent": (tcp_packet(1, bytes(10), urgent=3), 10),
    "nothing inside": (tcp_packet(1, b""), 0),
    "fragment": (FRAGMENT, len(FRAGMENT) - 52),
    "no tcp header": (ipv4_packet(bytes(2), protocol=6), 2),
    "udp": (ipv4_packet(bytes(40)), 40),
    "udp over ipv6": (ipv6_packet(bytes(40)), 40),
    "icmp": (ipv4_packet(bytes(100), protocol=1), 2),
    "extension header": (ipv6_packet(bytes(99), extensions=bytes((6, 0, 1, 4)) + bytes(4), first=0), 2),
}


@pytest.mark.parametrize("name", ALONE)
def test_some_packets_begin_nothing(name: str) -> None:
    alone, length = ALONE[name]
    follower = tcp_packet(1 + length, bytes(2))
    assert [each.first for each in gather([alone, follower])] == [alone, follower]


def test_nothing_becomes_longer_than_a_packet_can_be() -> None:
    pieces = [whole(each) for each in gather(stream(100))]
    assert all(len(piece) <= MAX_PACKET and is_intact(piece) for piece in pieces)
    assert len(pieces) == 3
    small = [each.segments for each in gather(stream(MAX_SEGMENTS + 1, size=2, last=2))]
    assert small[0] is not None and len(small[0].segments) == MAX_SEGMENTS


def test_streams_that_come_mixed_keep_their_order() -> None:
    one, other = stream(4), stream(4, ports=(5, 6))
    mixed = [each for pair in zip(one, other, strict=True) for each in pair]
    assert [each.first for each in gather(mixed)] == mixed
