"""UDP ports of IKE and ESP, over the loopback and without privileges."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.dataplane.datagrams import MAX_SEGMENTED, MAX_SEGMENTS, EspPort, runs
from locum.dataplane.paths import local_address, path_mtu
from locum.errors import Unavailable
from locum.ipsec.udp import NON_ESP_MARKER

HOME4, HOME6 = ip_address("127.0.0.1"), ip_address("::1")
SECONDS = 10


@given(st.lists(st.integers(1, 3000) | st.sampled_from((1400, 60_000)), max_size=200))
def test_runs_hold_everything_in_order_and_within_the_kernels_limits(sizes: list[int]) -> None:
    packets = [number.to_bytes(2, "big") + bytes(size) for number, size in enumerate(sizes)]
    found = list(runs(packets))
    assert [packet for _, run in found for packet in run] == packets
    for size, run in found:
        assert all(len(packet) == size for packet in run[:-1]) and 0 < len(run[-1]) <= size
        assert len(run) <= MAX_SEGMENTS and (len(run) == 1 or sum(map(len, run)) <= MAX_SEGMENTED)


def test_equal_packets_make_few_runs() -> None:
    assert [len(run) for _, run in runs([bytes(1000)] * 130)] == [64, 64, 2]
    assert [len(run) for _, run in runs([bytes(1400)] * 60)] == [46, 14]
    assert [len(run) for _, run in runs([bytes(9), bytes(9), bytes(3), bytes(9), bytes(10)])] == [3, 1, 1]


@dataclass
class Ends:
    """Two ports of this host, and what they have received."""

    first: EspPort
    second: EspPort
    messages: list[Any]
    esp: list[tuple[list[bytes], bytes, Any, int]]
    dropped: Counter[str] = field(default_factory=Counter)


@asynccontextmanager
async def ends(*, encapsulated: bool = True) -> AsyncIterator[Ends]:
    messages: list[Any] = []
    esp: list[Any] = []
    dropped: Counter[str] = Counter()

    def receive_esp(datagrams: list[bytes], *origin: Any) -> list[bytes]:
        others = [each for each in datagrams if each[:4] == NON_ESP_MARKER or len(each) < 8]
        esp.append(([each for each in datagrams if each not in others], *origin))
        return others

    def port() -> EspPort:
        return EspPort(
            asyncio.get_running_loop(),
            0,
            lambda *message: messages.append(message),
            receive_esp,
            local=HOME4,
            encapsulated=encapsulated,
            mark=0,
            dropped=dropped,
        )

    first, second = port(), port()
    try:
        yield Ends(first, second, messages, esp, dropped)
    finally:
        first.close()
        second.close()
        second.close()


async def eventually(look: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not look():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("encapsulated", [False, True])
def test_messages_arrive_without_the_marker_and_with_both_ends(encapsulated: bool) -> None:
    async def run() -> None:
        async with ends(encapsulated=encapsulated) as it:
            it.first.send(b"message", HOME4, HOME4, it.second.number)
            it.first.send_keepalive(HOME4, HOME4, it.second.number)
            await eventually(lambda: it.messages)
            assert it.messages[0] == (b"message", HOME4, HOME4, it.first.number)

    asyncio.run(run())


def test_esp_arrives_in_order_whatever_its_sizes() -> None:
    async def run() -> None:
        async with ends() as it:
            send = it.first.towards(HOME4, HOME4, it.second.number, 0x28)
            packets = [b"\x01" + bytes(7) + number.to_bytes(2, "big") * (5 + number % 3) for number in range(150)]
            packets += [b"\x01" + bytes(1399)] * 90
            send(packets)
            await eventually(lambda: sum(len(each[0]) for each in it.esp) == len(packets))
            assert [packet for each in it.esp for packet in each[0]] == packets
            assert {each[3] for each in it.esp} == {0x28}
            assert {(each[1], each[2]) for each in it.esp} == {(HOME4.packed, ("127.0.0.1", it.first.number))}

    asyncio.run(run())


def test_without_cutting_by_the_kernel_packets_go_one_by_one() -> None:
    async def run() -> None:
        async with ends() as it:
            it.first._segmenting = False
            packets = [b"\x01" + bytes(99)] * 5
            it.first.towards(HOME4, HOME4, it.second.number, 0)(packets)
            await eventually(lambda: sum(len(each[0]) for each in it.esp) == 5)
            assert [packet for each in it.esp for packet in each[0]] == packets

    asyncio.run(run())


def test_what_is_neither_is_counted() -> None:
    async def run() -> None:
        async with ends() as it:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                for datagram in (b"", b"xy", NON_ESP_MARKER[:3], b"\xff"):
                    stranger.sendto(datagram, ("127.0.0.1", it.second.number))
                stranger.sendto(NON_ESP_MARKER + b"ike", ("127.0.0.1", it.second.number))
            await eventually(lambda: it.messages)
            assert [message[0] for message in it.messages] == [b"ike"]
            assert it.dropped == {"neither ESP nor IKE": 3}

    asyncio.run(run())


def test_what_cannot_be_sent_is_counted_and_raises_nothing() -> None:
    async def run() -> None:
        async with ends() as it:
            it.first.send(bytes(70_000), HOME4, HOME4, it.second.number)
            it.first.send(b"x", HOME6, HOME6, it.second.number)
            it.first.towards(HOME4, HOME4, it.second.number, 0)([bytes(66_000)] * 2)
            it.first.close()
            it.first.send(b"x", HOME4, HOME4, it.second.number)
            assert it.dropped == {"not sent: Message too long": 3, "no socket for this IP version": 2}

    asyncio.run(run())


def test_a_port_serves_its_own_address_and_number() -> None:
    async def run() -> None:
        async with ends() as it:
            assert it.first.serves(HOME4, it.first.number)
            assert not it.first.serves(ip_address("127.0.0.2"), it.first.number)
            assert not it.first.serves(HOME4, it.second.number)
        async with ends(encapsulated=False) as it:
            assert not it.first.serves(HOME4, it.first.number)

    asyncio.run(run())


def test_a_taken_port_is_unavailable_and_says_which() -> None:
    async def run() -> None:
        async with ends() as it:
            with pytest.raises(Unavailable, match=rf"UDP port {it.first.number} of 127\.0\.0\.1: Address already"):
                EspPort(
                    asyncio.get_running_loop(),
                    it.first.number,
                    lambda *_: None,
                    lambda *_: [],
                    local=HOME4,
                    encapsulated=False,
                    mark=0,
                    dropped=Counter(),
                )

    asyncio.run(run())


def test_the_host_knows_its_way_to_itself() -> None:
    assert local_address(HOME4) == HOME4
    assert path_mtu(HOME4) >= 576
    with pytest.raises(Unavailable, match=r"no way to 255\.255\.255\.255"):
        local_address(ip_address("255.255.255.255"))
