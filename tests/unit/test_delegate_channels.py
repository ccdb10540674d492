"""Channel keys and sequence numbers between store and link: who is found, and what an outage does (A4, A5)."""

from __future__ import annotations

import logging

import pytest

from locum.delegate.channels import BLOCK, READ_PAUSE, STOCKED_TERMINALS, WRITE_PAUSE, Channels
from locum.errors import ConfigurationError, LocumError, Refused, Unavailable
from locum.store.records import Channel, Terminal


class Store:
    """Terminals in memory; `outage` is raised by everything while it is set."""

    def __init__(self, *names: str) -> None:
        self.channels = {number.to_bytes(2, "big"): channel(number, name) for number, name in enumerate(names, 1)}
        self.next_number = dict.fromkeys(self.channels, 0)
        self.lookups = self.reservations = 0
        self.outage: LocumError | None = None
        self.damaged: set[bytes] = set()

    def terminals(self, *disabled: str) -> list[Terminal]:
        return [
            Terminal(
                id=number,
                name=each.terminal,
                kid=kid,
                created=0.0,
                enabled=each.terminal not in disabled,
                algorithm=each.algorithm,
            )
            for number, (kid, each) in enumerate(self.channels.items(), 1)
        ]

    def find_channel(self, kid: bytes) -> Channel | None:
        self.lookups += 1
        if self.outage is not None:
            raise self.outage
        if kid in self.damaged:
            raise ConfigurationError("the channel key was altered")
        return self.channels.get(kid)

    def reserve(self, kid: bytes, count: int) -> int:
        self.reservations += 1
        if self.outage is not None:
            raise self.outage
        if kid not in self.next_number:
            raise Refused("no such terminal")
        first = self.next_number[kid]
        self.next_number[kid] += count
        return first


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def channel(number: int, name: str) -> Channel:
    return Channel(
        terminal=name,
        kid=number.to_bytes(2, "big"),
        delegate_id=b"\0",
        secret=bytes([number % 256]) * 16,
        salt=b"salt",
        algorithm="AES-CCM-16-64-128",
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


def channels(store: Store, clock: Clock) -> Channels:
    found = Channels(store, clock=clock)
    found.use(store.terminals())
    return found


KID, OTHER = b"\0\1", b"\0\2"
AWAY = Unavailable("the database is away")


def test_a_terminal_is_found_by_its_kid_and_read_from_the_store_once(clock: Clock) -> None:
    store = Store("meter")
    found = channels(store, clock)
    for _ in range(3):
        name, credential = found.find(KID) or ("", None)
        assert name == "meter"
        assert credential is not None
        assert (credential.kid, credential.peer_id, credential.secret) == (KID, b"\0", b"\1" * 16)
    assert store.lookups == 1
    assert found.serves("meter")
    assert not found.serves("stranger")


def test_a_terminal_enrolled_after_the_last_look_is_found_and_served(clock: Clock) -> None:
    store = Store("meter")
    found = channels(store, clock)
    store.channels[OTHER] = channel(2, "newcomer")
    assert (found.find(OTHER) or ("",))[0] == "newcomer"
    assert found.serves("newcomer")


def test_disabled_and_removed_terminals_are_gone_at_the_next_look(clock: Clock) -> None:
    store = Store("meter", "other")
    found = channels(store, clock)
    assert found.find(KID) and found.find(OTHER)
    found.use(store.terminals("meter"))
    del store.channels[KID]
    assert found.find(KID) is None
    assert not found.serves("meter")
    assert found.find(OTHER) and found.serves("other")


def test_made_up_kids_do_not_keep_the_database_busy(clock: Clock) -> None:
    store = Store("meter")
    found = channels(store, clock)
    for number in range(1000, 2000):
        assert found.find(number.to_bytes(2, "big")) is None
    assert store.lookups <= 40
    assert found.find(KID), "those who are enrolled do not suffer"


def test_a_damaged_key_is_logged_once_and_harms_nobody_else(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store("meter", "other")
    store.damaged.add(KID)
    found = channels(store, clock)
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            assert found.find(KID) is None
    assert len(caplog.records) == 1
    assert found.find(OTHER)
    store.damaged.clear()
    found.use(store.terminals())
    assert found.find(KID)


def test_while_the_database_is_away_known_terminals_are_served_and_it_is_not_asked_for_each_message(
    clock: Clock,
) -> None:
    store = Store("meter", "other")
    found = channels(store, clock)
    found.find(KID)
    store.outage = AWAY
    assert found.find(KID)
    for _ in range(10):
        with pytest.raises(Unavailable):
            found.find(OTHER)
    assert store.lookups == 2
    store.outage = None
    clock.now += READ_PAUSE
    assert found.find(OTHER)


def test_numbers_are_handed_out_once_from_stock_and_from_the_store(clock: Clock) -> None:
    store = Store("meter")
    found = channels(store, clock)
    blocks: list[int] = []
    for _ in range(4):
        blocks += [found.reserve(KID, BLOCK), found.reserve(KID, BLOCK)]
        found.restock()
    assert len({number for first in blocks for number in range(first, first + BLOCK)}) == BLOCK * len(blocks)


def test_more_than_a_block_is_never_taken_from_stock(clock: Clock) -> None:
    store = Store("meter")
    found = channels(store, clock)
    found.restock()
    first = found.reserve(KID, BLOCK + 1)
    assert first == BLOCK
    assert found.reserve(KID, 1) == 0


def test_stock_outlasts_an_outage_and_is_filled_up_after_it(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store("meter", "other")
    found = channels(store, clock)
    found.restock()
    store.outage = AWAY
    with caplog.at_level(logging.WARNING):
        assert found.reserve(KID, BLOCK) == 0
        for _ in range(10):
            with pytest.raises(Unavailable):
                found.reserve(KID, BLOCK)
            found.restock()
        assert store.reservations == 3, "the link does not wait for a database that is away"
        store.outage = None
        clock.now += WRITE_PAUSE
        found.restock()
    assert found.reserve(KID, BLOCK) == BLOCK
    assert found.reserve(OTHER, BLOCK) == 0
    assert len(caplog.records) == 2, "an outage is logged when it begins and when it ends"


def test_a_terminal_without_numbers_does_not_stop_the_others(clock: Clock) -> None:
    store = Store("meter", "other")
    found = channels(store, clock)
    del store.next_number[KID]
    found.restock()
    with pytest.raises(Refused):
        found.reserve(KID, BLOCK)
    assert found.reserve(OTHER, BLOCK) == 0


def test_the_stock_is_bounded_and_forgets_the_removed(clock: Clock) -> None:
    store = Store(*(f"meter-{number}" for number in range(STOCKED_TERMINALS + 10)))
    found = channels(store, clock)
    found.restock()
    assert store.reservations == STOCKED_TERMINALS
    found.use([])
    found.use(store.terminals()[-10:])
    found.restock()
    assert store.reservations == STOCKED_TERMINALS + 10
