"""IKEv2 under an SA that is established: further CHILD_SAs, successors, deletion, and both ends acting at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
from tests.support.ike_memory import Host, Network, keys_agree, network

from locum.errors import Incompatible
from locum.ike import algorithms as alg
from locum.ike.allowance import FURTHER_AT_ONCE
from locum.ike.configuration import Connection, Timing
from locum.ike.engine import (
    ChildClosed,
    ChildEstablished,
    ChildFailed,
    Closed,
    IkeSa,
    MessagePassed,
    Rekeyed,
    State,
)
from locum.ike.errors import NotifyReceived
from locum.ike.operations import Exchange, IkeStartRequest, SharedSecretRequest
from locum.ike.policy import ChildPolicy, IkePolicy
from locum.ike.registry import NotifyType2

PFS = ChildPolicy(groups=(alg.CURVE25519,))
HYBRID = ChildPolicy(groups=(alg.CURVE25519,), additional=((alg.ML_KEM_768,), (alg.ECP_256,)))
PLAIN = ChildPolicy()
POLICIES = {"without": PLAIN, "pfs": PFS, "hybrid": HYBRID}


def connected(child: ChildPolicy = PLAIN, **settings: object) -> Network:
    return network(replace(Connection(child=child), **settings), observed=True).connect()  # type: ignore[arg-type]


def alive(made: Network, *, children: int = 1) -> bool:
    """One SA at both ends, the same children under it, with the same keys, and it answers."""
    for host in (made.left, made.right):
        host.sa.check_liveness(now=made.now)
    made.run()
    return (
        len(made.left.live) == len(made.right.live) == 1
        and made.left.sa.own_spi == made.right.sa.peer_spi
        and len(made.left.installed) == len(made.right.installed) == children
        and set(made.left.sa.children) == set(made.left.installed)
        and set(made.right.sa.children) == set(made.right.installed)
        and keys_agree(made)
    )


def ends(made: Network) -> tuple[Host, Host]:
    return made.left, made.right


def further(host: Host) -> list[IkeStartRequest]:
    """The sessions for further key exchanges that were begun."""
    return [each for each in host.asked if isinstance(each, IkeStartRequest) and each.exchange is Exchange.FURTHER]


def exchanges(host: Host) -> list[str]:
    """The messages that `host` saw, by exchange."""
    return [event.description.split(":")[0] for event in host.of(MessagePassed)]


# --- CHILD_SAs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_another_child_is_made_by_either_end(policy: ChildPolicy, side: str) -> None:
    made = connected(policy)
    host: Host = getattr(made, side)
    host.sa.create_child(now=made.now)
    made.run()
    assert alive(made, children=2)
    assert len(further(host)) == (0 if policy is PLAIN else 1)
    keys = {each.inbound.encryption_key for each in host.installed}
    assert len(keys) == 2


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_child_is_rekeyed_by_either_end(policy: ChildPolicy, side: str) -> None:
    made = connected(policy)
    host: Host = getattr(made, side)
    old = host.child
    host.sa.rekey_child(old, now=made.now)
    made.run()
    assert alive(made)
    for each in ends(made):
        first, second = each.of(ChildEstablished)
        assert second.replaced is first.child
        assert [event.child for event in each.of(ChildClosed)] == [first.child]
        # The successor is there before its predecessor goes.
        assert each.events.index(second) < each.events.index(each.of(ChildClosed)[0])
    assert host.child.inbound.encryption_key != old.inbound.encryption_key


def test_additional_key_exchanges_of_a_child_follow_in_ike_followup_ke() -> None:
    made = connected(HYBRID)
    made.left.sa.rekey_child(made.left.child, now=made.now)
    made.run()
    assert exchanges(made.left).count("IKE_FOLLOWUP_KE request") == 2
    secrets = [each for each in made.right.asked if isinstance(each, SharedSecretRequest)]
    assert [(each.group, each.more) for each in secrets] == [(31, True), (36, True), (19, False)]
    assert made.left.child.suite.additional == (alg.ML_KEM_768, alg.ECP_256)


@pytest.mark.parametrize("first", [alg.CURVE25519, None], ids=str)
def test_a_responder_that_wants_another_group_for_a_child_gets_it(first: alg.Group | None) -> None:
    left = Connection(child=ChildPolicy(groups=(first, alg.ECP_384)))
    right = Connection(child=ChildPolicy(groups=(alg.ECP_384,)))
    made = network(left, right, observed=True).connect()
    made.left.sa.create_child(now=made.now)
    made.run()
    assert alive(made, children=2)
    assert exchanges(made.left).count("CREATE_CHILD_SA request") == 2


def test_a_responder_may_do_without_forward_secrecy_where_that_was_offered() -> None:
    left = Connection(child=ChildPolicy(groups=(alg.CURVE25519, None)))
    made = network(left, Connection(child=PLAIN), observed=True).connect()
    made.left.sa.create_child(now=made.now)
    made.run()
    assert alive(made, children=2)


def test_a_successor_that_is_refused_leaves_its_predecessor_in_force() -> None:
    # Only IKE_AUTH has no key exchange to disagree on.
    left = Connection(child=ChildPolicy(groups=(alg.ECP_256,)))
    right = Connection(child=ChildPolicy(groups=(alg.CURVE448,)))
    made = network(left, right).connect()
    old = made.left.child
    made.left.sa.rekey_child(old, now=made.now)
    made.run()
    assert alive(made)
    (failed,) = made.left.of(ChildFailed)
    assert failed.replaced is old is made.left.child
    assert isinstance(failed.error, NotifyReceived)


def test_a_child_that_the_peer_does_not_know_is_made_anew() -> None:
    made = connected()
    forgotten = made.right.sa._core.children  # type: ignore[attr-defined]
    for entry in forgotten:
        forgotten.remove(entry)
    made.right.installed.clear()
    made.left.sa.rekey_child(made.left.child, now=made.now)
    made.run()
    assert alive(made)
    assert made.left.of(ChildClosed)[0].reason == "the peer does not know it"


@pytest.mark.parametrize("what", ["child", "sa"])
def test_key_exchanges_that_a_peer_begins_too_often_are_put_off(what: str) -> None:
    made = connected(PFS)
    for _ in range(FURTHER_AT_ONCE + 4):
        sa = made.left.sa
        if what == "sa":
            sa.rekey(now=made.now)
        else:
            sa.rekey_child(made.left.child, now=made.now)
        made.run()
    # A successor of the SA does not begin with a rest of its own.
    assert len(further(made.right)) == FURTHER_AT_ONCE
    # The peer was told to come again, and does.
    made.advance(60.0)
    assert len(further(made.right)) > FURTHER_AT_ONCE
    assert alive(made)


def test_rekeying_without_a_key_exchange_is_not_counted() -> None:
    made = connected()
    for _ in range(2 * FURTHER_AT_ONCE):
        made.left.sa.rekey_child(made.left.child, now=made.now)
        made.run()
    assert len(made.right.of(ChildEstablished)) == 1 + 2 * FURTHER_AT_ONCE


def test_a_further_key_exchange_names_whom_the_peer_has_proven_to_be() -> None:
    made = connected(PFS)
    made.left.sa.rekey_child(made.left.child, now=made.now)
    made.run()
    assert [each.remote_identity for each in further(made.right)] == [made.right.sa.peer_identity]
    assert [each.remote_identity for each in further(made.left)] == [made.left.sa.peer_identity]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_child_is_deleted_at_both_ends(side: str) -> None:
    made = connected()
    host: Host = getattr(made, side)
    host.sa.close_child(host.child, now=made.now)
    made.run()
    assert alive(made, children=0)
    assert [len(each.of(ChildClosed)) for each in ends(made)] == [1, 1]


def test_both_ends_may_delete_a_child_at_once() -> None:
    made = connected()
    for host in ends(made):
        host.sa.close_child(host.child, now=made.now)
    made.run()
    assert alive(made, children=0)


def test_children_are_bounded() -> None:
    made = connected()
    for _ in range(70):
        made.left.sa.create_child(now=made.now)
        made.run()
    assert len(made.right.installed) == 64
    assert alive(made, children=64)
    failed = made.left.of(ChildFailed)[-1].error
    assert isinstance(failed, NotifyReceived)
    assert failed.notify_type == NotifyType2.NO_ADDITIONAL_SAS


def test_where_the_authority_keeps_sk_d_nothing_further_is_made() -> None:
    made = network(Connection(), Connection(keys_from_authority=True)).connect()
    made.left.sa.create_child(now=made.now)
    made.left.sa.rekey(now=made.now)
    made.run()
    assert len(made.left.of(ChildFailed)) == 1
    assert alive(made)


# --- the IKE SA ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("additional", [(), ((alg.ML_KEM_768,), (alg.ECP_384,))], ids=["plain", "hybrid"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_an_ike_sa_is_rekeyed_by_either_end(side: str, additional: tuple[tuple[alg.Group, ...], ...]) -> None:
    made = connected(ike=IkePolicy(additional=additional))
    old = {host: host.sa for host in ends(made)}
    children = {host: host.child for host in ends(made)}
    host: Host = getattr(made, side)
    host.sa.rekey(now=made.now)
    made.run()
    assert alive(made)
    for each in ends(made):
        (rekeyed,) = each.of(Rekeyed)
        assert rekeyed.replaced is old[each]
        assert rekeyed.sa is each.sa
        assert each.sa.peer_identity == old[each].peer_identity
        assert each.child is children[each]
        assert each.of(ChildClosed) == []
        (closed,) = each.of(Closed)
        assert closed.sa is old[each]
        assert closed.error is None
    assert made.left.sa.initiator is (side == "left")


def test_a_rekeyed_sa_is_rekeyed_again_and_its_children_too() -> None:
    made = connected(PFS)
    for host in (made.left, made.right, made.right, made.left):
        host.sa.rekey(now=made.now)
        made.run()
        assert alive(made)
        host.sa.rekey_child(host.child, now=made.now)
        made.run()
        assert alive(made)
    assert len({each.own_spi for each in made.left.endpoint.sas if each.state is not State.CLOSED}) == 1


def test_a_rekeying_in_another_group_is_asked_for_again() -> None:
    left = Connection(ike=IkePolicy(groups=(alg.CURVE25519, alg.ECP_256)))
    made = network(left, Connection(ike=IkePolicy(groups=(alg.CURVE25519, alg.ECP_256)))).connect()
    made.right.endpoint.connection = replace(left, ike=IkePolicy(groups=(alg.ECP_256,)))
    made.right.sa.connection = made.right.endpoint.connection
    made.left.sa.rekey(now=made.now)
    made.run()
    assert alive(made)
    assert "ecp256" in made.left.sa.algorithms


def test_what_was_asked_of_an_sa_that_was_replaced_is_done_by_its_successor() -> None:
    made = connected()
    old, child = made.left.sa, made.left.child
    old.rekey(now=made.now)
    old.create_child(now=made.now)
    made.run()
    assert alive(made, children=2)
    old.rekey_child(child, now=made.now)
    made.run()
    assert alive(made, children=2)
    assert child not in made.left.installed


def test_an_sa_that_was_rekeyed_keeps_repeating_its_last_answer_for_a_while() -> None:
    made = connected()
    old = made.right.sa
    made.left.sa.rekey(now=made.now)
    made.run()
    assert old.state is State.CLOSED
    assert old in made.right.endpoint.sas
    made.advance(20)
    assert made.right.endpoint.sas == (made.right.sa,)


# --- both at once -------------------------------------------------------------------------------------------

Action = Callable[[Host, IkeSa, float], None]

ACTIONS: dict[str, Action] = {
    "rekey child": lambda host, sa, now: sa.rekey_child(host.installed[0], now=now),
    "rekey sa": lambda host, sa, now: sa.rekey(now=now),
    "create child": lambda host, sa, now: sa.create_child(now=now),
    "delete child": lambda host, sa, now: sa.close_child(host.installed[0], now=now),
    "liveness": lambda host, sa, now: sa.check_liveness(now=now),
}


PAIRS = list(product(ACTIONS, repeat=2))


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize(("left", "right"), PAIRS, ids=map("/".join, PAIRS))
def test_whatever_both_ends_do_at_once_they_stay_of_one_mind(left: str, right: str, policy: ChildPolicy) -> None:
    made = connected(policy)
    for host, name in ((made.left, left), (made.right, right)):
        ACTIONS[name](host, host.sa, made.now)
    made.run()
    made.advance(15)
    expected = 1 + (left == "create child") + (right == "create child") - ("delete child" in (left, right))
    if "rekey child" in (left, right) and "delete child" in (left, right):
        # Whether the deletion or the rekeying comes first is left to chance; a successor may be there.
        expected = len(made.left.installed)
    assert alive(made, children=expected)
    assert not made.left.of(Closed) or made.left.of(Closed)[0].error is None


@pytest.mark.parametrize("what", ["rekey child", "rekey sa"])
@pytest.mark.parametrize("delays", [(0.2, 0.2), (0.2, 0.01), (0.01, 0.2), (1.2, 0.3)], ids=str)
def test_a_collision_ends_alike_whoever_is_faster(what: str, delays: tuple[float, float]) -> None:
    made = connected(PFS)
    to_right, to_left = delays
    made.disturb = lambda passage: ((to_right if passage.sender == "left" else to_left, passage),)
    for host in ends(made):
        ACTIONS[what](host, host.sa, made.now)
    made.advance(20)
    made.disturb = lambda passage: ((0.0, passage),)
    assert alive(made)


@pytest.mark.parametrize("what", ["rekey child", "rekey sa"])
@pytest.mark.parametrize("lost", [1, 2, 3, 4])
def test_a_collision_in_which_a_message_is_lost_ends_well(what: str, lost: int) -> None:
    made = connected()
    begun = len(made.log)
    made.disturb = lambda passage: () if passage.number == begun + lost else ((0.05, passage),)
    for host in ends(made):
        ACTIONS[what](host, host.sa, made.now)
    # What the peer was to delete, and has not, is given up after two minutes.
    made.advance(150)
    assert alive_in_time(made)


def alive_in_time(made: Network) -> bool:
    made.disturb = lambda passage: ((0.0, passage),)
    return alive(made)


def test_an_exchange_that_collides_is_tried_again() -> None:
    made = connected(timing=Timing(liveness=0.0))
    made.left.sa.rekey(now=made.now)
    made.right.sa.rekey_child(made.right.child, now=made.now)
    made.run()
    made.advance(15)
    assert alive(made)
    # One of the two was told to wait, and came again.
    assert len(made.left.of(Rekeyed)) == 1
    assert len(made.right.of(ChildEstablished)) == 2


# --- the end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_sa_is_deleted_at_both_ends_with_its_children(side: str) -> None:
    made = connected()
    getattr(made, side).sa.close(now=made.now)
    made.run()
    for host in ends(made):
        assert host.live == host.installed == []
        assert host.error is None
        assert [type(event) for event in host.events if not isinstance(event, MessagePassed)][-2:] == [
            ChildClosed,
            Closed,
        ]


def test_both_ends_may_delete_the_sa_at_once() -> None:
    made = connected()
    for host in ends(made):
        host.endpoint.close(now=made.now)
    made.run()
    assert made.left.live == made.right.live == []
    made.advance(20)
    assert made.left.endpoint.sas == made.right.endpoint.sas == ()
    assert made.left.endpoint.next_timeout() is None


def test_a_close_does_not_wait_for_ever() -> None:
    made = connected()
    made.disturb = lambda passage: ()
    made.left.sa.close(now=made.now)
    made.run()
    assert made.left.live
    made.advance(4)
    assert made.left.live == []
    assert made.left.error is None


def test_a_close_in_the_middle_of_an_operation_gives_it_up() -> None:
    made = connected(PFS)
    made.left.hold = True
    made.left.sa.rekey_child(made.left.child, now=made.now)
    made.run()
    made.left.sa.close(now=made.now)
    made.run()
    assert made.left.live == made.right.live == []
    made.release(made.left)
    assert made.left.live == []


def test_a_handshake_that_is_closed_ends_without_a_word() -> None:
    made = network(Connection())
    made.initiate()
    made.left.endpoint.close(now=made.now)
    made.run()
    assert made.left.endpoint.sas == ()
    assert isinstance(made.left.of(Closed)[0], Closed)


def test_an_endpoint_that_was_closed_begins_nothing_for_strangers() -> None:
    made = network(Connection())
    made.right.endpoint.close(now=made.now)
    made.connect()
    assert made.right.endpoint.sas == ()
    assert made.right.endpoint.dropped == 1


def test_what_comes_with_a_refusal_is_a_typed_error() -> None:
    made = network(Connection(), Connection(keys_from_authority=True)).connect()
    made.left.sa.create_child(now=made.now)
    made.run()
    assert not isinstance(made.left.of(ChildFailed)[0].error, Incompatible)
