"""Successors of IKEv1: quick mode anew, phase 1 anew, by whoever is first, and what happens when it fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.ike1_memory import authorities, connected, connection, only, prepared
from tests.support.ike_memory import (
    LEFT_NAME,
    Network,
    certificate_authority,
    keys_agree,
    network,
)

from locum.errors import Unauthenticated
from locum.ike import algorithms as alg
from locum.ike.configuration import Mode, Timing
from locum.ike.engine import ChildClosed, ChildEstablished, ChildFailed, Closed, Established, Rekeyed, State
from locum.ike.policy import ChildPolicy
from locum.ike.v1.kept import OVERLAP, OVERLAP_OF_PEER, renewal
from locum.ike.v1.message_ids import ENOUGH_MESSAGE_IDS, MAX_MESSAGE_IDS, MessageIds

LONG = Timing(liveness=0)
ENDS = pytest.mark.parametrize("end", ["left", "right"])


def timed(end: str, **changes: float) -> dict[str, Any]:
    """Settings of both ends where only one has short lifetimes."""
    short = replace(LONG, **changes)
    return {
        "timing": short if end == "left" else LONG,
        "right": connection(timing=short if end == "right" else LONG),
    }


def one_each(net: Network) -> None:
    """Both ends have one SA and one child, the same one."""
    assert len(net.left.live) == len(net.right.live) == 1
    assert len(net.left.installed) == len(net.right.installed) == 1
    assert keys_agree(net)


# --- children ---------------------------------------------------------------------------------------------------


@ENDS
@pytest.mark.parametrize("pfs", [None, alg.ECP_256], ids=str)
def test_a_child_is_renewed_on_demand_and_the_old_one_deleted(end: str, pfs: alg.Group | None) -> None:
    net = connected(child=ChildPolicy(groups=(pfs,)), timing=LONG)
    host = getattr(net, end)
    old = host.child
    host.sa.rekey_child(old, now=net.now)
    net.run()
    for each in (net.left, net.right):
        first, second = each.of(ChildEstablished)
        assert second.replaced is first.child
        assert len(each.installed) == 2
    net.advance(OVERLAP + 0.1)
    one_each(net)
    assert host.child is not old
    assert [each.reason for each in host.of(ChildClosed)] == ["replaced"]


@ENDS
def test_a_child_is_renewed_in_time_by_whoever_is_first(end: str) -> None:
    net = connected(**timed(end, child_lifetime=100.0))
    net.advance(89)
    assert len(net.left.of(ChildEstablished)) == 1
    net.advance(7)
    assert len(net.left.of(ChildEstablished)) == len(net.right.of(ChildEstablished)) == 2
    net.advance(1000)
    assert 11 <= len(net.left.of(ChildEstablished)) <= 13
    one_each(net)


def test_both_ends_renewing_at_once_end_up_with_one_child() -> None:
    net = connected(timing=LONG)
    for round_ in range(3):
        net.disturb = lambda passage: ((0.05, passage),)
        for host in (net.left, net.right):
            host.sa.rekey_child(host.installed[-1], now=net.now)
        net.run()
        assert len(net.left.of(ChildEstablished)) == 3 + 2 * round_
        net.advance(OVERLAP_OF_PEER + 1)
        one_each(net)


def test_a_renewal_that_crosses_a_finished_one_is_given_up() -> None:
    """The right end's own attempt was lost; the left end's successor has come meanwhile."""
    net = connected(timing=replace(LONG, retransmission=1.0))
    net.disturb = lambda passage: () if passage.sender == "right" else ((0.0, passage),)
    net.right.sa.rekey_child(net.right.child, now=net.now)
    net.run()
    net.disturb = lambda passage: ((0.0, passage),)
    net.left.sa.rekey_child(net.left.child, now=net.now)
    net.run()
    net.advance(20)
    assert len(net.left.of(ChildEstablished)) == 2
    assert net.right.of(ChildFailed) == []
    one_each(net)


def test_a_successor_that_goes_first_leaves_the_old_child_in_force() -> None:
    net = connected(timing=LONG)
    net.left.sa.rekey_child(net.left.child, now=net.now)
    net.run()
    net.right.sa.close_child(net.right.installed[-1], now=net.now)
    net.run()
    assert len(net.left.installed) == 1
    net.advance(OVERLAP_OF_PEER + OVERLAP + 5)
    one_each(net)


def test_a_renewal_that_fails_is_tried_again_and_the_child_goes_at_its_end() -> None:
    net = connected(timing=replace(LONG, child_lifetime=200.0, margin=0.5, attempts=2, handshake=10.0))
    net.disturb = lambda passage: ()
    net.advance(150)
    failed = net.left.of(ChildFailed)
    assert len(failed) >= 2
    assert all(each.replaced is net.left.child for each in failed)
    net.advance(60)
    assert net.left.installed == net.right.installed == []
    assert [each.reason for each in net.left.of(ChildClosed)] == ["its lifetime is over"]
    assert net.left.live


def test_children_of_nobody_are_not_renewed() -> None:
    net = connected()
    child = net.left.child
    sa = net.left.sa
    sa.close_child(child, now=net.now)
    sa.rekey_child(child, now=net.now)
    net.run()
    assert len(net.left.of(ChildEstablished)) == 1
    sa.close_child(child, now=net.now)
    assert len(net.left.of(ChildClosed)) == 1


# --- the ISAKMP SA ----------------------------------------------------------------------------------------------


@ENDS
@pytest.mark.parametrize("mode", list(Mode), ids=[mode.value for mode in Mode])
@pytest.mark.parametrize("method", ["psk", "rsa"])
def test_a_successor_takes_the_children_over(method: str, mode: Mode, end: str) -> None:
    net = connected(method, mode, timing=LONG)
    host = getattr(net, end)
    before = {each: (each.sa, each.child) for each in (net.left, net.right)}
    host.sa.rekey(now=net.now)
    net.run()
    net.advance(OVERLAP + 0.1)
    one_each(net)
    for each, (old, child) in before.items():
        (rekeyed,) = each.of(Rekeyed)
        assert rekeyed.replaced is old
        assert rekeyed.sa is each.sa
        assert each.child is child
        assert each.sa.children == (child,)
        assert old.state is State.CLOSED
        assert len(each.of(Established)) == 2
    # The successor can do everything that the first one could.
    net.right.sa.rekey_child(net.right.child, now=net.now)
    net.advance(OVERLAP + 1)
    one_each(net)


@ENDS
def test_an_sa_is_renewed_in_time_by_whoever_is_first(end: str) -> None:
    net = connected(**timed(end, ike_lifetime=100.0))
    net.advance(1000)
    assert 11 <= len(net.left.of(Established)) <= 13
    one_each(net)
    assert len(net.left.of(ChildEstablished)) == 1


@pytest.mark.parametrize("delays", [(0.05, 0.05), (0.01, 0.09), (0.09, 0.01)])
def test_both_ends_renewing_the_sa_at_once_end_up_with_one(delays: tuple[float, float]) -> None:
    """Which one depends on chance, so that it is tried more than once."""
    net = connected(timing=LONG)
    child = net.left.child
    for _ in range(4):
        net.disturb = lambda passage: ((delays[passage.sender == "left"], passage),)
        net.left.sa.rekey(now=net.now)
        net.right.sa.rekey(now=net.now)
        net.run()
        net.advance(2 * LONG.handshake)
        one_each(net)
        assert net.left.child is child


def test_a_successor_that_fails_is_tried_for_again_until_the_end() -> None:
    timing = replace(LONG, ike_lifetime=300.0, margin=0.5, attempts=3, handshake=20.0)
    net = connected(timing=timing)
    net.disturb = lambda passage: ()
    net.advance(280)
    # Those that failed are over; the first one and its child are not.
    assert len(net.left.of(Closed)) >= 3
    assert len(net.left.installed) == 1
    net.disturb = lambda passage: ((0.0, passage),)
    net.advance(19)
    assert len(net.left.of(Rekeyed)) == 1
    one_each(net)


def test_an_sa_that_nobody_renews_ends_with_its_lifetime() -> None:
    net = connected(timing=replace(LONG, ike_lifetime=100.0))
    net.disturb = lambda passage: ()
    net.advance(101)
    for host in (net.left, net.right):
        assert host.installed == []
        assert "its lifetime is over" in [each.reason for each in host.of(Closed)]


def test_a_peer_that_has_become_somebody_else_takes_nothing_over() -> None:
    net = network(connection(timing=LONG), authorities=authorities("p256"), observed=True).connect()
    child = net.right.child
    net.left.authority = certificate_authority("somebody.else.example")
    net.right.sa.rekey(now=net.now)
    net.run()
    assert net.right.child is child
    assert net.right.of(Rekeyed) == []
    assert isinstance(net.right.error, Unauthenticated)
    assert "somebody.else.example" in str(net.right.error)
    assert net.right.sa.peer_identity == f"dns:{LEFT_NAME}"


def test_another_peer_at_the_same_address_takes_nothing_over() -> None:
    pair = authorities("p256")
    net = network(connection(timing=LONG), authorities=pair, observed=True).connect()
    child = net.right.child
    net.left.authority = certificate_authority("somebody.else.example")
    net.initiate()
    net.run()
    assert child in net.right.installed
    assert net.right.of(Rekeyed) == []
    assert sorted(sa.peer_identity for sa in net.right.live) == sorted(
        (f"dns:{LEFT_NAME}", "dns:somebody.else.example")
    )


def test_an_sa_that_was_closed_meanwhile_has_no_successor() -> None:
    net = connected(timing=LONG)
    net.disturb = lambda passage: ((1.0, passage),)
    first = net.left.sa
    first.rekey(now=net.now)
    first.close(now=net.now)
    net.run()
    assert net.left.installed == net.right.installed == []
    assert net.left.live == net.right.live == []


# --- message ids ------------------------------------------------------------------------------------------------


def test_message_ids_are_random_new_and_never_zero() -> None:
    ids = MessageIds()
    given = iter([bytes(4), b"\0\0\0\1", b"\0\0\0\1", bytes(4), b"\xff\xff\xff\xff"])
    assert ids.draw(lambda _: next(given)) == 1
    assert ids.draw(lambda _: next(given)) == 0xFFFFFFFF
    assert not ids.is_new(1)
    assert not ids.is_new(0)
    assert ids.is_new(2)
    assert 1 in ids
    assert len(ids) == 2


def test_message_ids_come_to_an_end_and_ask_for_a_successor_before() -> None:
    ids = MessageIds()
    for number in range(1, ENOUGH_MESSAGE_IDS):
        ids.use(number * 7)
    assert not ids.enough
    for number in range(ENOUGH_MESSAGE_IDS, MAX_MESSAGE_IDS + 1):
        ids.use(number * 7)
    assert ids.enough
    assert not ids.is_new(3)
    assert ids.draw(lambda length: bytes(length - 1) + b"\1") is None

    net = connected(timing=replace(LONG, liveness=10.0))
    sa = only(net.left)
    for number in range(1, ENOUGH_MESSAGE_IDS):
        if sa._core.message_ids.is_new(number):
            sa._core.message_ids.use(number)
    net.advance(20)
    assert len(net.left.of(Rekeyed)) == 1
    one_each(net)


def test_successors_are_made_at_random_moments_within_the_margin() -> None:
    timing = replace(LONG, margin=0.2)
    assert renewal(100.0, timing, lambda length: bytes(length)) == 80.0
    assert 89.9 < renewal(100.0, timing, lambda length: b"\xff" * length) < 90.0


def test_an_sa_under_way_is_not_renewed() -> None:
    net = prepared()
    net.left.hold = True
    sa = net.initiate()
    sa.rekey(now=net.now)
    sa.create_child(now=net.now)
    sa.check_liveness(now=net.now)
    net.run()
    assert net.log == []
    assert sa.begun == []
