"""What strangers can make an endpoint ask of its authority, and what it must not take for somebody else's."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from tests.support.ike_memory import LEFT_ADDRESS, RIGHT_ADDRESS, Network, keys_agree, network

from locum.delegate.limits import RateLimits
from locum.delegate.sessions import SessionLimits
from locum.ike.allowance import FURTHER_PER_SECOND
from locum.ike.configuration import Connection, Limits, Timing
from locum.ike.engine import ChildFailed, Closed, Path, State
from locum.ike.registry import Version
from locum.ike.v2.entries import MAX_CHILDREN

CONNECTION = Connection(timing=Timing(handshake=10.0, liveness=0.0))
VERSIONS = pytest.mark.parametrize("version", [Version.IKE_1, Version.IKE_2], ids=["ikev1", "ikev2"])
#: Nothing else than the pace of new SAs counts.
PACE = Limits(cookie_threshold=1000, half_open=1000, begun_per_second=1.0, begun_at_once=8)


def first_message(version: Version) -> bytes:
    """The first message of an initiator."""
    made = network(replace(CONNECTION, version=version))
    made.disturb = lambda passage: ()
    made.connect()
    return made.log[0].message


def flood(made: Network, message: bytes, count: int) -> None:
    """So many strangers, each with an SPI and an address of its own, begin with the right end and hear nothing."""
    made.disturb = lambda passage: ()
    for number in range(1, count + 1):
        spi, address = (number + (1 << 60)).to_bytes(8, "big"), IPv4Address((10 << 24) + number)
        made.right.endpoint.receive(spi + message[8:], Path(RIGHT_ADDRESS, 500, address, 500), now=made.now)
        made.run()


def test_pace_of_strangers_is_bounded_however_soon_their_sas_end() -> None:
    made = network(replace(CONNECTION, version=Version.IKE_1), limits=PACE)
    flood(made, first_message(Version.IKE_1), 100)
    assert made.right.endpoint.half_open == 8
    made.advance(4.0)
    flood(made, first_message(Version.IKE_1)[:-1] + b"\x55", 100)
    assert made.right.endpoint.half_open == 8 + 4


def test_second_half_of_the_pace_is_for_those_who_show_a_cookie() -> None:
    made = network(CONNECTION, limits=PACE)
    flood(made, first_message(Version.IKE_2), 100)
    assert made.right.endpoint.half_open == 5
    made.disturb = lambda passage: ((0.0, passage),)
    made.connect()
    assert made.left.sa.state is State.ESTABLISHED
    assert keys_agree(made)


def test_defaults_fit_what_a_delegate_has_for_one_terminal() -> None:
    limits, sessions, rate = Limits(), SessionLimits(), RateLimits()
    assert limits.cookie_threshold < limits.half_open
    assert limits.half_open + limits.known_half_open < sessions.per_terminal
    # Two requests for each handshake of IKEv2.
    assert 2 * (limits.begun_per_second + limits.known_per_second) < rate.rate
    assert 2 * (limits.begun_at_once + limits.known_at_once) < rate.burst
    # What an SA that is established may spend besides.
    assert FURTHER_PER_SECOND + 2 * (limits.begun_per_second + limits.known_per_second) < rate.rate


def connected_and_flooded(limits: Limits) -> Network:
    """An IKEv1 connection, whose responder then has no places and no beginnings left for strangers."""
    made = network(replace(CONNECTION, version=Version.IKE_1), limits=limits).connect()
    flood(made, first_message(Version.IKE_1), 100)
    made.disturb = lambda passage: ((0.0, passage),)
    return made


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(replace(PACE, known_half_open=0), id="beginnings"),
        pytest.param(Limits(half_open=8, begun_at_once=1000), id="places"),
    ],
)
def test_flood_does_not_keep_a_peer_from_authenticating_anew(limits: Limits) -> None:
    made = connected_and_flooded(limits)
    old = made.left.sa
    old.rekey(now=made.now)
    made.run()
    assert made.left.current is not old
    assert made.left.current.state is State.ESTABLISHED
    assert keys_agree(made)


def test_known_address_has_places_that_strangers_cannot_take() -> None:
    limits = Limits(cookie_threshold=1000, half_open=8, begun_at_once=1000, known_half_open=1)
    made = network(CONNECTION, limits=limits).connect()
    flood(made, first_message(Version.IKE_2), 100)
    assert made.right.endpoint.half_open == 8
    made.disturb = lambda passage: ((0.0, passage),) if passage.sender == "left" else ()
    made.connect()
    assert made.right.endpoint.half_open == 8 + 1
    made.connect()
    assert made.right.endpoint.half_open == 8 + 1


def test_what_is_kept_for_known_addresses_is_bounded_too() -> None:
    limits = replace(PACE, known_half_open=2, known_per_second=1.0, known_at_once=3)
    made = connected_and_flooded(limits)
    before = made.right.endpoint.half_open
    made.disturb = lambda passage: ()
    for number in range(1, 100):
        spi = (number + (2 << 60)).to_bytes(8, "big")
        made.inject(made.right, spi + first_message(Version.IKE_1)[8:])
    assert made.right.endpoint.half_open == before + 3


def test_newcomer_takes_the_place_of_the_oldest_that_has_not_returned_its_cookie() -> None:
    limits = Limits(half_open=8, begun_at_once=1000)
    made = network(replace(CONNECTION, version=Version.IKE_1), limits=limits)
    # The left end gets as far as message 3, the answer to which is lost.
    made.disturb = lambda passage: ((0.0, passage),) if len(made.log) < 4 else ()
    made.connect()
    (honest,) = made.right.endpoint.sas
    message = first_message(Version.IKE_1)
    flood(made, message, 7)
    oldest = made.right.endpoint.sas[1]
    flood(made, message[:-1] + b"\x55", 1)
    endpoint = made.right.endpoint
    assert oldest.state is State.CLOSED
    assert oldest not in endpoint.sas
    assert endpoint.half_open == len(endpoint.sas) == 8
    assert oldest in [event.sa for event in made.right.of(Closed)]
    flood(made, message[:-1] + b"\x66", 100)
    assert endpoint.half_open == len(endpoint.sas) == 8
    assert honest in endpoint.sas
    made.disturb = lambda passage: ((0.0, passage),)
    made.advance(2.0)
    assert made.left.sa.state is honest.state is State.ESTABLISHED


def test_peers_that_have_returned_their_cookies_are_never_pushed_out() -> None:
    limits = Limits(half_open=1)
    made = network(replace(CONNECTION, version=Version.IKE_1), limits=limits)
    made.disturb = lambda passage: ((0.0, passage),) if len(made.log) < 4 else ()
    made.connect()
    (honest,) = made.right.endpoint.sas
    flood(made, first_message(Version.IKE_1), 20)
    assert made.right.endpoint.sas == (honest,)


def test_half_open_sas_leave_no_trace_behind() -> None:
    made = network(replace(CONNECTION, version=Version.IKE_1)).connect()
    flood(made, first_message(Version.IKE_1), 100)
    made.advance(11.0)
    made.disturb = lambda passage: ((0.0, passage),)
    made.left.endpoint.close(now=made.now)
    made.run()
    made.advance(11.0)
    endpoint = made.right.endpoint
    assert endpoint._unproven == endpoint._established_from == endpoint._half_open_from == {}


@VERSIONS
def test_first_message_that_is_sent_back_begins_nothing(version: Version) -> None:
    made = network(replace(CONNECTION, version=version))
    made.disturb = lambda passage: ()
    made.connect()
    (sa,) = made.left.endpoint.sas
    made.inject(made.left, made.log[0].message)
    made.inject(made.left, made.log[0].message, source=IPv4Address("203.0.113.9"))
    assert made.left.endpoint.sas == (sa,)
    assert made.left.endpoint.half_open == 0
    # And what was begun goes on.
    made.disturb = lambda passage: ((0.0, passage),)
    made.advance(2.0)
    assert sa.state is State.ESTABLISHED


def test_handshake_does_not_go_on_from_another_address() -> None:
    made = network(CONNECTION)
    moved = IPv4Address("203.0.113.9")
    made.disturb = lambda passage: ((0.0, passage),) if len(made.log) < 3 else ()
    made.connect()
    third = made.log[2].message
    made.right.endpoint.receive(third, Path(RIGHT_ADDRESS, 500, moved, 500), now=made.now)
    made.run()
    (sa,) = made.right.endpoint.sas
    assert sa.state is State.CONNECTING
    assert sa.path.remote == LEFT_ADDRESS
    made.right.endpoint.receive(third, Path(RIGHT_ADDRESS, 500, LEFT_ADDRESS, 4500), now=made.now)
    made.run()
    assert sa.state is State.ESTABLISHED


def test_peer_that_never_deletes_what_it_replaces_does_not_get_ever_more() -> None:
    made = network(CONNECTION).connect()
    children = made.right.sa._core.children  # type: ignore[attr-defined]
    (entry,) = children
    for _ in range(2 * MAX_CHILDREN - 1):
        children.add(entry)
    made.left.sa.rekey_child(made.left.child, now=made.now)
    made.run()
    assert len(children) == 2 * MAX_CHILDREN
    (failed,) = made.left.of(ChildFailed)
    assert "NO_ADDITIONAL_SAS" in str(failed.error)
