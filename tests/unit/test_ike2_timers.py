"""IKEv2 as time goes by: repetition and giving up, lifetimes, liveness, keepalives, and what never ends."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tests.support.ike_memory import BEGINNING, Host, Network, keys_agree, network, undisturbed

from locum.errors import TimedOut
from locum.ike import algorithms as alg
from locum.ike.configuration import Connection, Timing
from locum.ike.engine import ChildClosed, ChildEstablished, Closed, Established, Rekeyed, State
from locum.ike.policy import ChildPolicy

NO_LIVENESS = Timing(liveness=0.0)


def sent_by(made: Network, name: str) -> list[bytes]:
    return [passage.message for passage in made.log if passage.sender == name]


def moments(made: Network, connection: Connection) -> list[float]:
    """When the left end sent, while nothing arrived."""
    found: list[float] = []

    def lose(_: object) -> tuple[()]:
        found.append(made.now - BEGINNING)
        return ()

    made.disturb = lose
    return found


def test_a_request_is_sent_again_after_twice_the_time_each_and_never_after_more_than_the_longest() -> None:
    timing = Timing(retransmission=0.5, longest_retransmission=4.0, attempts=6, handshake=100.0)
    made = network(Connection(timing=timing))
    when = moments(made, made.left.endpoint.connection)
    made.initiate()
    made.advance(100)
    assert when == [0.0, 0.5, 1.5, 3.5, 7.5, 11.5]
    assert len(set(sent_by(made, "left"))) == 1
    assert isinstance(made.left.error, TimedOut)
    assert made.left.endpoint.sas == ()
    assert made.left.endpoint.next_timeout() is None


def test_a_handshake_is_given_up_after_its_time_whatever_is_still_to_be_sent() -> None:
    made = network(Connection(timing=Timing(handshake=3.0, attempts=50)))
    made.disturb = lambda passage: ()
    made.initiate()
    made.advance(3.5)
    assert isinstance(made.left.error, TimedOut)


def test_a_half_open_sa_of_a_responder_goes_after_its_time() -> None:
    made = network(Connection(timing=Timing(handshake=5.0)))
    made.disturb = lambda passage: undisturbed(passage) if len(made.log) <= 2 else ()
    made.initiate()
    made.run()
    assert made.right.endpoint.half_open == 1
    made.advance(6.0)
    assert made.right.endpoint.sas == ()
    assert made.right.endpoint.half_open == 0
    assert isinstance(made.right.error, TimedOut)
    assert made.right.of(Established) == []


def test_a_handshake_whose_authority_never_answers_is_given_up() -> None:
    made = network(Connection(timing=Timing(handshake=5.0)))
    made.right.hold = True
    made.initiate()
    made.advance(6.0)
    assert made.right.endpoint.sas == ()
    made.release(made.right)
    assert made.right.endpoint.sas == ()


def test_silence_is_answered_with_a_question_and_the_answer_is_life() -> None:
    made = network(Connection(timing=Timing(liveness=10.0))).connect()
    before = len(made.log)
    made.advance(25.0)
    assert len(made.log) > before
    assert made.left.sa.state is State.ESTABLISHED
    assert made.left.of(Closed) == []


def test_who_is_heard_is_not_asked() -> None:
    made = network(Connection(timing=Timing(liveness=10.0)), Connection(timing=Timing(liveness=3.0))).connect()
    before = len(made.log)
    made.advance(30.0)
    # The right end asks every three seconds; that is enough life for the left one.
    assert all(passage.sender == "right" or passage.message[19] & 0x20 for passage in made.log[before:])


def test_a_peer_that_is_gone_is_found_out() -> None:
    made = network(Connection(timing=Timing(liveness=10.0, attempts=4))).connect()
    made.disturb = lambda passage: ()
    made.advance(30.0)
    for host in (made.left, made.right):
        assert host.live == host.installed == []
        assert isinstance(host.error, TimedOut)
        assert [type(event) for event in host.events][-2:] == [ChildClosed, Closed]


def test_liveness_can_be_switched_off() -> None:
    made = network(Connection(timing=NO_LIVENESS)).connect()
    before = len(made.log)
    made.advance(600.0)
    assert len(made.log) == before


# --- lifetimes ----------------------------------------------------------------------------------------------


def lifetimes(**settings: float) -> Timing:
    return Timing(**{"liveness": 0.0, "ike_lifetime": 1e6, "child_lifetime": 1e6, **settings})


def test_a_child_is_replaced_before_its_time_is_up() -> None:
    made = network(Connection(timing=lifetimes(child_lifetime=100.0))).connect()
    made.advance(88.0)
    assert all(len(host.of(ChildEstablished)) == 1 for host in (made.left, made.right))
    made.advance(10.0)
    assert keys_agree(made)
    for host in (made.left, made.right):
        assert len(host.installed) == 1
        assert host.of(ChildEstablished)[-1].replaced is host.of(ChildEstablished)[0].child


def test_an_sa_is_replaced_before_its_time_is_up() -> None:
    made = network(Connection(timing=lifetimes(ike_lifetime=100.0))).connect()
    made.advance(88.0)
    assert made.left.of(Rekeyed) == []
    made.advance(10.0)
    assert len(made.left.of(Rekeyed)) == len(made.right.of(Rekeyed)) == 1
    assert made.left.sa.state is State.ESTABLISHED
    assert len(made.left.installed) == 1


def test_lifetimes_go_on_for_as_long_as_anybody_likes() -> None:
    timing = lifetimes(ike_lifetime=70.0, child_lifetime=30.0)
    made = network(Connection(timing=timing, child=ChildPolicy(groups=(alg.CURVE25519,)))).connect()
    for _ in range(100):
        made.advance(10.0)
        assert len(made.left.installed) >= 1
        assert len(made.left.installed) <= 2
    made.disturb = undisturbed
    made.run()
    assert len(made.left.of(Rekeyed)) > 10
    assert len(made.left.of(ChildEstablished)) > 30
    assert all(event.error is None for event in made.left.of(Closed))
    # What was replaced is forgotten.
    assert len(made.left.endpoint.sas) <= 3
    assert len(made.left.endpoint._timers) < 100


def test_both_ends_do_not_begin_at_the_same_moment() -> None:
    made = network(Connection(timing=lifetimes(child_lifetime=1000.0))).connect()
    due = sorted(host.endpoint.next_timeout() or 0.0 for host in (made.left, made.right))
    assert due[1] - due[0] > 0.001
    assert all(900.0 <= moment - BEGINNING <= 950.0 for moment in due)


def test_what_cannot_be_replaced_ends_when_its_time_is_up() -> None:
    connection = Connection(keys_from_authority=True, timing=lifetimes(child_lifetime=50.0))
    made = network(connection).connect()
    made.advance(49.0)
    assert len(made.left.installed) == 1
    made.advance(2.0)
    assert made.left.installed == made.right.installed == []
    assert made.left.sa.state is State.ESTABLISHED


def test_an_sa_that_cannot_be_replaced_ends_when_its_time_is_up() -> None:
    made = network(Connection(keys_from_authority=True, timing=lifetimes(ike_lifetime=50.0))).connect()
    made.advance(52.0)
    for host in (made.left, made.right):
        assert host.live == host.installed == []
        assert host.error is None


def test_a_successor_that_is_refused_is_asked_for_ever_later_until_the_end() -> None:
    left = Connection(timing=lifetimes(child_lifetime=1000.0), child=ChildPolicy(groups=(alg.ECP_256,)))
    right = Connection(timing=lifetimes(child_lifetime=5000.0), child=ChildPolicy(groups=(alg.CURVE448,)))
    made = network(left, right).connect()
    begun = len(made.log)
    when: list[float] = []

    def note(passage: object) -> object:
        when.append(made.now)
        return undisturbed(passage)  # type: ignore[arg-type]

    made.disturb = note  # type: ignore[assignment]
    made.advance(990.0)
    requests = sorted(set(when))
    assert 3 <= len(requests) <= 8
    gaps = [later - earlier for earlier, later in pairwise(requests)]
    assert gaps[-1] > gaps[0]
    assert len(made.log) - begun == 2 * len(requests)
    made.advance(20.0)
    assert made.left.installed == made.right.installed == []


# --- what comes late ----------------------------------------------------------------------------------------


def test_an_authority_that_answers_after_the_end_changes_nothing() -> None:
    made = network(Connection(child=ChildPolicy(groups=(alg.CURVE25519,)), timing=NO_LIVENESS)).connect()
    made.right.hold = True
    made.left.sa.create_child(now=made.now)
    made.run()
    made.left.sa.close(now=made.now)
    made.advance(10.0)
    assert made.left.live == []
    made.release(made.right)
    made.advance(60.0)
    assert len(made.left.installed) == 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_authority_that_takes_its_time_delays_and_nothing_else(side: str) -> None:
    made = network(Connection())
    host: Host = getattr(made, side)
    host.hold = True
    made.initiate()
    for _ in range(8):
        made.advance(2.0)
        held, host.held = host.held, []
        for task in held:
            host.perform(*task, now=made.now)
    made.run()
    assert made.left.sa.state is made.right.sa.state is State.ESTABLISHED
    assert keys_agree(made)
    assert len(made.left.installed) == 1


def test_two_questions_to_the_authority_at_once_are_asked_one_after_the_other() -> None:
    made = network(Connection(child=ChildPolicy(groups=(alg.CURVE25519,)), timing=NO_LIVENESS)).connect()
    made.left.hold = made.right.hold = True
    for host in (made.left, made.right):
        host.sa.create_child(now=made.now)
    for _ in range(6):
        made.advance(0.4)
        for host in (made.left, made.right):
            held, host.held = host.held, []
            assert len(held) <= 1
            for task in held:
                host.perform(*task, now=made.now)
    made.left.hold = made.right.hold = False
    made.advance(5.0)
    assert len(made.left.installed) == len(made.right.installed) == 3
    assert keys_agree(made)
