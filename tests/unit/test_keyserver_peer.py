"""Whose turn it is, and who is not read from while he takes no answers: connections over transports in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.key_service import Bench, answered, asked, fingerprint, held

from locum.keyless.operations import Sign
from locum.keyless.requests import Ping
from locum.keyserver import peer as peers
from locum.keyserver.answering import Deferred
from locum.keyserver.limits import Limits
from locum.keyserver.peer import Peer, Turns
from locum.keyserver.service import KeyService

RSA, P256 = held("rsa2048"), held("p256")
LONG = Sign("RSA_PKCS1_SHA256", bytes(32))


class Transport(asyncio.Transport):
    """What a peer does with its connection."""

    def __init__(self) -> None:
        super().__init__({"ssl_object": None})
        self.written = b""
        self.reading = True
        self.ended = ""

    def write(self, data: Any) -> None:
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def ids(self) -> list[int]:
        """The ids of the answers so far."""
        return [answer.id for answer in answered(self.written)]


class House:
    """The owner of the connections: an event loop that makes one round when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **limits: int) -> None:
        self.bench = Bench([RSA, P256], limits=Limits(**limits))  # type: ignore[arg-type]
        self.service: KeyService = self.bench.service
        self.due: deque[Callable[[], None]] = deque()
        self.turns = Turns(self.due.append)
        self.now = 0.0
        self.looked: list[Peer] = []
        monkeypatch.setattr(peers, "fingerprint", lambda connection: fingerprint("edge"))

    def made(self, peer: Peer) -> None: ...

    def lost(self, peer: Peer) -> None: ...

    def look(self, peer: Peer) -> bool:
        self.looked.append(peer)
        return True

    def defer(self, peer: Peer, deferred: Deferred) -> None:
        raise AssertionError("no key is elsewhere")

    def connect(self) -> tuple[Peer, Transport]:
        peer, transport = Peer(self, lambda: self.now), Transport()
        peer.connection_made(transport)
        return peer, transport

    def round(self) -> None:
        """What the loop does between two looks for what has arrived."""
        for _ in range(len(self.due)):
            self.due.popleft()()


def many(request: Any, key: Any, count: int) -> bytes:
    return b"".join(asked(request, key, number) for number in range(1, count + 1))


def test_a_short_request_does_not_wait_for_the_long_ones_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(monkeypatch, turn=2 * RSA.cost)
    busy, busy_transport = house.connect()
    short, short_transport = house.connect()
    busy.data_received(many(LONG, RSA, 10))
    assert busy_transport.ids() == []
    house.round()
    assert busy_transport.ids() == [1, 2]
    short.data_received(asked(Sign("ECDSA_SECP256R1_SHA256", bytes(32)), P256, 9))
    assert short_transport.ids() == [9]
    assert busy_transport.ids() == [1, 2]


def test_connections_with_long_work_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(monkeypatch, turn=RSA.cost)
    first, first_transport = house.connect()
    second, second_transport = house.connect()
    first.data_received(many(LONG, RSA, 3))
    second.data_received(many(LONG, RSA, 3))
    progress = []
    while house.due:
        house.round()
        progress.append((len(first_transport.ids()), len(second_transport.ids())))
    assert progress == [(1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)]


def test_a_connection_with_much_waiting_is_not_read_from_until_there_is_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = House(monkeypatch, turn=RSA.cost, waiting=1000)
    peer, transport = house.connect()
    peer.data_received(many(LONG, RSA, 30))
    assert not transport.reading
    while house.due:
        house.round()
    assert transport.reading
    assert transport.ids() == list(range(1, 31))


def test_nothing_is_done_for_one_who_takes_no_answers_and_he_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(monkeypatch)
    peer, transport = house.connect()
    peer.pause_writing()
    peer.data_received(asked(Ping(b"x")))
    assert transport.written == b""
    assert not transport.reading
    house.now += house.service.limits.message_seconds + 1
    assert peer.overdue(house.now) == "answers are not taken"
    peer.resume_writing()
    assert transport.ids() == [7]
    assert transport.reading
    assert not peer.overdue(house.now)


def test_each_message_that_ends_gives_time_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(monkeypatch)
    peer, _ = house.connect()
    whole = asked(Ping(b"x"))
    seconds = house.service.limits.message_seconds
    peer.data_received(whole[:5])
    house.now += 0.6 * seconds
    peer.data_received(whole[5:] + whole[:5])
    house.now += 0.6 * seconds
    assert not peer.overdue(house.now)
    house.now += 0.6 * seconds
    peer.data_received(whole[5:6])
    assert peer.overdue(house.now) == "a message that does not end"


def test_a_stranger_waits_for_one_look_at_the_databases(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(monkeypatch)
    monkeypatch.setattr(peers, "fingerprint", lambda connection: fingerprint("stranger"))
    peer, transport = house.connect()
    assert house.looked == [peer]
    peer.data_received(asked(Ping(b"x")))
    assert transport.written == b"" and not transport.ended
    peer.judge()
    assert transport.written == b"" and transport.ended == "closed"


def test_what_waited_during_that_look_is_answered_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(monkeypatch)
    edges = house.bench.edges
    house.bench.change(edges=[])
    peer, transport = house.connect()
    peer.data_received(asked(Ping(b"x")))
    house.bench.change(edges=edges)
    peer.judge()
    assert transport.ids() == [7]


def test_a_stranger_is_not_read_from_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(monkeypatch, waiting=1000)
    monkeypatch.setattr(peers, "fingerprint", lambda connection: fingerprint("stranger"))
    peer, transport = house.connect()
    peer.data_received(many(LONG, RSA, 30))
    assert not transport.reading


def test_whoever_is_not_read_from_has_time_to_end_his_message_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(monkeypatch, turn=RSA.cost, waiting=1000)
    peer, transport = house.connect()
    requests = many(LONG, RSA, 30)
    peer.data_received(requests[:-1])
    assert not transport.reading
    house.now += 2 * house.service.limits.message_seconds
    assert not peer.overdue(house.now)
    while not transport.reading:
        house.round()
    assert not peer.overdue(house.now)
    house.now += 2 * house.service.limits.message_seconds
    assert peer.overdue(house.now) == "a message that does not end"
