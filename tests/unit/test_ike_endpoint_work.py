"""What an endpoint has for its driver, and what it keeps of SAs that are over."""

from __future__ import annotations

from tests.support.ike_memory import network

from locum.ike.configuration import Connection, Limits
from locum.ike.endpoint import MAX_TIMERS_PER_SA
from locum.ike.engine import State

SEVERAL = 60
NO_LIMITS = Limits(begun_per_second=1000.0, begun_at_once=1000)


def test_an_endpoint_is_busy_exactly_while_it_has_something_to_give() -> None:
    made = network(Connection())
    endpoint = made.left.endpoint
    assert not endpoint.busy
    made.initiate()
    assert endpoint.busy
    (sa,) = endpoint.waiting()
    assert not endpoint.busy
    assert sa.pending is not None
    made.left.perform(sa, sa.pending, sa.session, now=made.now)
    assert endpoint.busy
    assert endpoint.transmit()
    assert not endpoint.busy


def test_what_an_answer_brings_about_is_there_at_once() -> None:
    made = network(Connection()).connect()
    assert made.left.sa.state is State.ESTABLISHED
    assert made.left.endpoint.next_timeout() is not None


def test_timers_of_sas_that_are_over_do_not_pile_up() -> None:
    made = network(Connection(), limits=NO_LIMITS)
    for _ in range(SEVERAL):
        made.connect()
        made.left.sa.close(now=made.now)
        made.run()
        made.advance(0.01)
    made.advance(60.0)
    for host in (made.left, made.right):
        assert not host.endpoint.sas
        assert len(host.endpoint._timers) <= MAX_TIMERS_PER_SA
