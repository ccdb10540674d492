"""IKEv2 over a network that loses, repeats, delays and reorders: both ends come to the same end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.ike_memory import Disturbance, Network, Passage, keys_agree, network

from locum.ike import algorithms as alg
from locum.ike.configuration import Connection, Limits, Timing
from locum.ike.engine import Closed, State
from locum.ike.policy import ChildPolicy, IkePolicy

#: Twelve transmissions: whatever is lost below stays under that. Nothing but the scenario sends.
TIMING = Timing(
    retransmission=0.5,
    longest_retransmission=1.0,
    attempts=12,
    handshake=60.0,
    liveness=0.0,
    ike_lifetime=1e6,
    child_lifetime=1e6,
)
#: Of one message at most so many transmissions are lost: with its answer that makes eight of twelve.
MOST_LOST = 4

Fate = tuple[bool, float, bool]
#: Of each datagram: is it lost, how long does it take, does it arrive twice?
FATES = st.lists(
    st.tuples(st.booleans(), st.sampled_from((0.0, 0.02, 0.3, 0.9)), st.booleans()), min_size=1, max_size=60
)


def by(fates: list[Fate]) -> Disturbance:
    """Deal the fates out, one after the other and again from the first, but never lose too much of one message."""
    lost: Counter[tuple[str, bytes]] = Counter()
    count = iter(range(1 << 30))

    def disturb(passage: Passage) -> Iterable[tuple[float, Passage]]:
        gone, delay, twice = fates[next(count) % len(fates)]
        # SPIi, exchange, flags and message id: in every transmission the same.
        which = (passage.sender, passage.message[:8] + passage.message[18:24])
        if gone and lost[which] < MOST_LOST:
            lost[which] += 1
            return ()
        return ((delay, passage), (delay + 0.4, passage)) if twice else ((delay, passage),)

    return disturb


def of_one_mind(made: Network) -> bool:
    """One SA, the same at both ends, with the same children under the same keys."""
    (left,), (right,) = made.left.live, made.right.live
    return (
        left.state is right.state is State.ESTABLISHED
        and (left.own_spi, left.peer_spi) == (right.peer_spi, right.own_spi)
        and keys_agree(made)
    )


@settings(max_examples=60, deadline=None)
@given(fates=FATES)
def test_any_losses_below_the_limit_end_in_the_same_sa_at_both_ends(fates: list[Fate]) -> None:
    made = network(Connection(timing=TIMING))
    made.disturb = by(fates)
    made.initiate()
    made.advance(60)
    assert of_one_mind(made)
    assert len(made.left.installed) == 1


@settings(max_examples=40, deadline=None)
@given(fates=FATES)
def test_so_do_cookies_another_group_and_additional_exchanges(fates: list[Fate]) -> None:
    additional = ((alg.ML_KEM_768,),)
    left = Connection(timing=TIMING, ike=IkePolicy(groups=(alg.CURVE25519, alg.ECP_256), additional=additional))
    right = Connection(timing=TIMING, ike=IkePolicy(groups=(alg.ECP_256,), additional=additional))
    made = network(left, right, limits=Limits(cookie_threshold=0))
    made.disturb = by(fates)
    made.initiate()
    made.advance(80)
    assert of_one_mind(made)
    assert "ecp256/mlkem768" in made.left.sa.algorithms


SIDES = st.sampled_from(("left", "right"))
WHAT = st.sampled_from(("child", "sa", "create", "delete", "alive"))
ACTIONS = st.lists(st.tuples(SIDES, WHAT, st.floats(0, 2)), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(fates=FATES, actions=ACTIONS, secret=st.sampled_from(((None,), (alg.CURVE25519,))))
def test_rekeying_by_either_end_at_any_moment_ends_alike(
    fates: list[Fate], actions: list[tuple[str, str, float]], secret: tuple[alg.Group | None, ...]
) -> None:
    made = network(Connection(timing=TIMING, child=ChildPolicy(groups=secret))).connect()
    made.disturb = by(fates)
    for side, what, pause in actions:
        host = made.left if side == "left" else made.right
        sa = host.current
        if what == "child":
            for child in host.installed[-1:]:
                sa.rekey_child(child, now=made.now)
        elif what == "sa":
            sa.rekey(now=made.now)
        elif what == "create":
            sa.create_child(now=made.now)
        elif what == "delete" and host.installed:
            sa.close_child(host.installed[-1], now=made.now)
        else:
            sa.check_liveness(now=made.now)
        made.advance(pause)
    made.advance(900)
    assert of_one_mind(made)
    assert set(made.left.sa.children) == set(made.left.installed)
    if all(what != "delete" for _, what, _ in actions):
        assert len(made.left.installed) == 1 + sum(what == "create" for _, what, _ in actions)
    for host in (made.left, made.right):
        assert all(event.error is None for event in host.of(Closed))


@settings(max_examples=40, deadline=None)
@given(fates=FATES, side=st.sampled_from(("left", "right")))
def test_a_deletion_is_one_at_both_ends(fates: list[Fate], side: str) -> None:
    made = network(Connection(timing=TIMING)).connect()
    made.disturb = by(fates)
    (made.left if side == "left" else made.right).sa.close(now=made.now)
    made.advance(60)
    deleted = made.left if side == "left" else made.right
    assert deleted.live == deleted.installed == []
    assert deleted.endpoint.sas == ()
