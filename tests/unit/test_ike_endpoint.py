"""What an endpoint gives to strangers: SAs within limits, cookies, notifies; and who a message is for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest
from tests.support.ike_memory import (
    LEFT_ADDRESS,
    LEFT_NAME,
    RIGHT_ADDRESS,
    RIGHT_NAME,
    Network,
    keys_agree,
    network,
    psk_authority,
)

from locum.ike.configuration import Connection, Limits, Timing
from locum.ike.cookies import SECRET_LIFETIME
from locum.ike.engine import Path, State
from locum.ike.header import HEADER_LENGTH, NO_SPI, parse_chain
from locum.ike.payloads2 import Notify, parse_payloads
from locum.ike.registry import ExchangeType, Flags2, NotifyType2, PayloadType2, Version

TIMING = Timing(handshake=10.0, liveness=0.0)
CONNECTION = Connection(timing=TIMING)


def first_message() -> bytes:
    """An IKE_SA_INIT request of ours."""
    made = network(CONNECTION)
    made.disturb = lambda passage: ()
    made.connect()
    return made.log[0].message


FIRST = first_message()


def strangers() -> Iterator[tuple[bytes, IPv4Address]]:
    """First messages with SPIs of their own, each from an address of its own."""
    for number in range(1, 1 << 20):
        yield number.to_bytes(8, "big") + FIRST[8:], IPv4Address((10 << 24) + number)


def flood(made: Network, count: int, *, address: IPv4Address | None = None) -> None:
    """So many strangers begin with the right end; nobody hears what it answers."""
    made.disturb = lambda passage: ()
    for _, (message, source) in zip(range(count), strangers(), strict=False):
        path = Path(RIGHT_ADDRESS, 500, address or source, 500)
        made.right.endpoint.receive(message, path, now=made.now)
        made.run()


def notifies(message: bytes) -> list[int]:
    return [each.notify_type for each in parse_payloads(message[16], message[28:]) if isinstance(each, Notify)]


# --- half-open SAs ------------------------------------------------------------------------------------------


def test_strangers_get_half_open_sas_up_to_the_limit_and_not_one_more() -> None:
    limits = Limits(cookie_threshold=1000, half_open=20)
    made = network(CONNECTION, limits=limits)
    flood(made, 100)
    endpoint = made.right.endpoint
    assert endpoint.half_open == len(endpoint.sas) == 20
    assert endpoint.dropped == 80
    assert len(endpoint._by_spi) == len(endpoint._by_beginning) == 20
    assert len(endpoint._timers) <= 8 * 21


def test_half_open_sas_go_by_themselves_and_leave_nothing_behind() -> None:
    made = network(CONNECTION, limits=Limits(cookie_threshold=1000, half_open=20))
    flood(made, 100)
    made.advance(11.0)
    endpoint = made.right.endpoint
    assert endpoint.half_open == 0
    assert endpoint.sas == ()
    assert endpoint.next_timeout() is None
    for left in (endpoint._by_spi, endpoint._by_beginning, endpoint._half_open_from, endpoint._waiting):
        assert left == {}
    assert endpoint._timers == []


def test_one_address_gets_a_few_of_them_only() -> None:
    made = network(CONNECTION, limits=Limits(cookie_threshold=1000, half_open=100, half_open_per_address=6))
    flood(made, 50, address=IPv4Address("10.0.0.1"))
    # From half of them on a cookie must be shown.
    assert made.right.endpoint.half_open == 3
    made.disturb = lambda passage: ((0.0, passage),)
    made.connect()
    assert made.left.sa.state is State.ESTABLISHED


def test_a_flood_in_somebodys_name_does_not_keep_that_one_out() -> None:
    made = network(CONNECTION, limits=Limits(half_open_per_address=6))
    flood(made, 50, address=LEFT_ADDRESS)
    made.disturb = lambda passage: ((0.0, passage),)
    made.connect()
    assert made.left.sa.state is State.ESTABLISHED
    assert keys_agree(made)


def test_who_is_established_is_not_half_open() -> None:
    made = network(CONNECTION, limits=Limits(half_open=1))
    for _ in range(5):
        made.connect()
    assert made.right.endpoint.half_open == 0
    assert len(made.right.live) == 5


def test_no_more_sas_are_established_than_the_limit_says() -> None:
    made = network(CONNECTION, limits=Limits(established=3))
    for _ in range(5):
        made.connect()
    assert len(made.right.live) == 3
    made.left.live[0].close(now=made.now)
    made.run()
    made.advance(30.0)
    made.connect()
    assert sum(sa.state is State.ESTABLISHED for sa in made.right.live) == 3


def test_what_failed_counts_until_it_has_repeated_its_last_word() -> None:
    wrong = (psk_authority(LEFT_NAME, RIGHT_NAME, secret=b"1" * 20), psk_authority(RIGHT_NAME, LEFT_NAME))
    made = network(CONNECTION, authorities=wrong).connect()
    assert made.right.endpoint.half_open == 1
    made.advance(9.0)
    assert made.right.endpoint.half_open == 0


def test_established_sas_are_undisturbed_by_a_flood() -> None:
    made = network(CONNECTION, limits=Limits(cookie_threshold=8, half_open=16)).connect()
    sa = made.right.sa
    flood(made, 200)
    made.disturb = lambda passage: ((0.0, passage),)
    made.left.sa.rekey_child(made.left.child, now=made.now)
    made.run()
    assert sa.state is State.ESTABLISHED
    assert keys_agree(made)
    assert len(made.left.installed) == 1


# --- cookies ------------------------------------------------------------------------------------------------


def test_cookies_are_asked_for_from_the_threshold_on_and_not_before() -> None:
    made = network(CONNECTION, limits=Limits(cookie_threshold=8))
    flood(made, 20)
    answers = [notifies(passage.message) for passage in made.log]
    assert made.right.endpoint.half_open == 8
    assert [NotifyType2.COOKIE in each for each in answers] == [False] * 8 + [True] * 12
    assert answers[-1] == [NotifyType2.COOKIE]


def test_who_returns_its_cookie_is_served_in_the_middle_of_a_flood() -> None:
    made = network(CONNECTION, limits=Limits(cookie_threshold=8), observed=True)
    flood(made, 50)
    made.disturb = lambda passage: ((0.0, passage),)
    begun = len(made.log)
    made.connect()
    assert made.left.sa.state is State.ESTABLISHED
    assert notifies(made.log[begun + 1].message) == [NotifyType2.COOKIE]
    assert notifies(made.log[begun + 2].message)[0] == NotifyType2.COOKIE


def test_cookies_are_switched_off_when_the_flood_is_over() -> None:
    made = network(CONNECTION, limits=Limits(cookie_threshold=8))
    flood(made, 50)
    made.advance(11.0)
    made.disturb = lambda passage: ((0.0, passage),)
    begun = len(made.log)
    made.connect()
    assert len(made.log) == begun + 4


def test_a_cookie_costs_no_memory_and_is_no_larger_than_what_asked_for_it() -> None:
    made = network(CONNECTION, limits=Limits(cookie_threshold=0))
    flood(made, 100)
    endpoint = made.right.endpoint
    assert endpoint.sas == ()
    assert endpoint.half_open == 0
    assert len(made.log) == 100
    assert all(len(passage.message) == 28 + 8 + 33 < len(FIRST) for passage in made.log)


@pytest.mark.parametrize("other", ["spi", "address", "nonce", "cookie", "time"])
def test_a_cookie_is_good_for_one_initiator_and_a_short_time(other: str) -> None:
    made = network(CONNECTION, limits=Limits(cookie_threshold=0))
    sent: list[bytes] = []
    made.disturb = lambda passage: (sent.append(passage.message), ((0.0, passage),))[1] if len(sent) < 3 else ()
    made.initiate()
    made.run()
    request = sent[2]
    assert notifies(request)[0] == NotifyType2.COOKIE
    fresh = network(CONNECTION, limits=Limits(cookie_threshold=0))
    endpoint = fresh.right.endpoint
    endpoint._cookies = made.right.endpoint._cookies
    now, address = made.now, LEFT_ADDRESS
    if other == "spi":
        request = b"anotherX" + request[8:]
    elif other == "address":
        address = ip_address("192.0.2.99")
    elif other == "nonce":
        request = with_other_nonce(request)
    elif other == "cookie":
        request = request[:40] + bytes((request[40] ^ 1,)) + request[41:]
    else:
        now += 2 * SECRET_LIFETIME + 1
    endpoint.receive(request, Path(RIGHT_ADDRESS, 500, address, 500), now=now)
    assert endpoint.half_open == 0
    assert notifies(endpoint.transmit()[0].message) == [NotifyType2.COOKIE]


def with_other_nonce(message: bytes) -> bytes:
    """The message with one bit of its nonce flipped."""
    chain = parse_chain(message[16], message[HEADER_LENGTH:])
    (nonce,) = (raw for raw in chain if raw.type == PayloadType2.NONCE)
    last = HEADER_LENGTH + nonce.end - 1
    return message[:last] + bytes((message[last] ^ 1,)) + message[last + 1 :]


# --- notifies that belong to no SA --------------------------------------------------------------------------


def protected(made: Network) -> bytes:
    """A request under the SA of the left end."""
    made.left.sa.check_liveness(now=made.now)
    made.run()
    ours = (passage.message for passage in reversed(made.log) if passage.sender == "left")
    return next(message for message in ours if not message[19] & Flags2.RESPONSE)


def test_a_request_for_an_sa_that_is_not_here_is_told_so_by_a_bounded_number_of_notifies() -> None:
    message = protected(network(CONNECTION).connect())
    made = network(CONNECTION)
    begun = len(made.log)
    made.disturb = lambda passage: ()
    for _ in range(100):
        made.inject(made.right, message)
    answers = made.log[begun:]
    assert len(answers) == 10
    for passage in answers:
        assert notifies(passage.message) == [NotifyType2.INVALID_IKE_SPI]
        assert passage.message[:16] == message[:16]
        assert passage.message[19] == Flags2.RESPONSE
        assert len(passage.message) <= len(message)
    made.now += 1.5
    made.inject(made.right, message)
    assert len(made.log) == begun + 11


def test_answers_to_nothing_are_not_answered() -> None:
    message = bytearray(protected(network(CONNECTION).connect()))
    message[19] |= Flags2.RESPONSE
    made = network(CONNECTION)
    made.inject(made.right, bytes(message))
    assert made.log == []
    assert made.right.endpoint.dropped == 1


def test_another_major_version_is_told_ours() -> None:
    made = network(CONNECTION)
    made.disturb = lambda passage: ()
    made.inject(made.right, FIRST[:17] + b"\x30" + FIRST[18:])
    (passage,) = made.log
    assert notifies(passage.message) == [NotifyType2.INVALID_MAJOR_VERSION]
    assert passage.message[17] == Version.IKE_2


def test_another_minor_version_is_read_like_ours() -> None:
    made = network(CONNECTION)
    made.disturb = lambda passage: ()
    made.inject(made.right, FIRST[:17] + b"\x21" + FIRST[18:])
    assert made.right.endpoint.half_open == 1


def test_the_other_version_of_ike_is_left_alone() -> None:
    for first, second in ((Version.IKE_1, Version.IKE_2), (Version.IKE_2, Version.IKE_1)):
        made = network(replace(CONNECTION, version=first), replace(CONNECTION, version=second))
        made.connect()
        assert made.right.endpoint.sas == ()
        assert made.right.endpoint.dropped >= 1


@pytest.mark.parametrize("length", [0, 1, 27, 28, 40])
def test_what_is_no_message_is_dropped(length: int) -> None:
    made = network(CONNECTION)
    made.inject(made.right, bytes(range(length)))
    made.inject(made.right, b"\xff" * length)
    assert made.right.endpoint.dropped >= 1
    assert made.right.endpoint.sas == ()
    assert made.log == []


def test_only_the_remote_end_of_the_connection_may_begin() -> None:
    made = network(CONNECTION, replace(CONNECTION, remote=LEFT_ADDRESS))
    made.disturb = lambda passage: ()
    made.inject(made.right, FIRST, source=ip_address("192.0.2.66"))
    assert made.right.endpoint.sas == ()
    made.inject(made.right, FIRST)
    assert made.right.endpoint.half_open == 1


def test_a_first_message_that_comes_again_belongs_to_the_sa_that_it_began() -> None:
    made = network(CONNECTION)
    made.disturb = lambda passage: ()
    for _ in range(3):
        made.inject(made.right, FIRST)
    assert made.right.endpoint.half_open == 1
    answers = [passage.message for passage in made.log]
    assert len(answers) == 3
    assert len(set(answers)) == 1


def test_first_messages_that_do_not_look_like_one_begin_nothing() -> None:
    made = network(CONNECTION)
    made.disturb = lambda passage: ()
    spoiled = {
        "a responder's SPI": FIRST[:8] + b"whatever" + FIRST[16:],
        "a response": FIRST[:19] + bytes((Flags2.RESPONSE,)) + FIRST[20:],
        "not from an initiator": FIRST[:19] + b"\0" + FIRST[20:],
        "a message id": FIRST[:20] + b"\0\0\0\1" + FIRST[24:],
        "another exchange": FIRST[:18] + bytes((ExchangeType.IKE_AUTH,)) + FIRST[19:],
    }
    for name, message in spoiled.items():
        made.inject(made.right, message)
        assert made.right.endpoint.sas == (), name


# --- what a driver sees -------------------------------------------------------------------------------------


def test_an_operation_is_given_once_to_be_performed() -> None:
    made = network(CONNECTION)
    endpoint = made.left.endpoint
    sa = endpoint.initiate(Path(LEFT_ADDRESS, 500, RIGHT_ADDRESS, 500), now=0.0)
    assert endpoint.waiting() == [sa]
    assert endpoint.waiting() == []
    assert sa.pending is not None
    assert sa.peer_spi == NO_SPI


def test_many_sas_live_side_by_side() -> None:
    made = network(CONNECTION)
    for _ in range(20):
        made.connect()
    assert len(made.left.live) == len(made.right.live) == 20
    assert keys_agree(made)
    made.left.live[7].rekey(now=made.now)
    made.right.live[3].close(now=made.now)
    made.run()
    assert len(made.left.live) == len(made.right.live) == 19
    made.left.endpoint.close(now=made.now)
    made.run()
    made.advance(30.0)
    for host in (made.left, made.right):
        assert host.endpoint.sas == ()
        assert host.installed == []
        assert host.endpoint.next_timeout() is None
        assert host.endpoint._by_identity == {}
        assert host.endpoint._established == 0
