"""IKEv1 over networks that lose, repeat, delay and alter what they carry."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.ike1_memory import connected, prepared
from tests.support.ike_memory import Network, Passage, keys_agree

from locum.ike import algorithms as alg
from locum.ike.configuration import Mode, Timing
from locum.ike.engine import ChildEstablished, Established, State
from locum.ike.policy import ChildPolicy
from locum.ike.v1.kept import OVERLAP_OF_PEER

#: Patient ends, so that what was lost arrives in the end.
PATIENT = Timing(retransmission=0.5, longest_retransmission=2.0, attempts=20, handshake=120.0, liveness=0)
#: Longer than any delay, and than all retransmissions together.
LONG_ENOUGH = 150.0

MODES = st.sampled_from(list(Mode))
CHILDREN = st.sampled_from([ChildPolicy(), ChildPolicy(groups=(alg.ECP_256,))])

#: What becomes of one datagram: when each copy of it arrives, in seconds.
Fate = list[float]
ARRIVES: Fate = [0.01]
DELAYS = st.floats(0.0, 4.0)
#: Lost, once, twice.
FATES = st.lists(DELAYS, max_size=2)


def losses(fates: list[Fate]) -> int:
    return sum(not fate for fate in fates)


class Fates:
    """Disposes of the first datagrams as was drawn; all others arrive."""

    def __init__(self, fates: list[Fate]) -> None:
        self._fates = iter(fates)

    def __call__(self, passage: Passage) -> Iterable[tuple[float, Passage]]:
        return [(delay, passage) for delay in next(self._fates, ARRIVES)]


def one_sa_and_one_child(net: Network) -> None:
    for host in (net.left, net.right):
        assert len(host.of(Established)) == 1, host.events
        assert len(host.live) == 1
        assert len(host.installed) == 1
    assert keys_agree(net)


@given(mode=MODES, child=CHILDREN, fates=st.lists(FATES, max_size=30))
@settings(max_examples=60, deadline=None)
def test_an_sa_and_a_child_come_about_however_the_network_behaves(
    mode: Mode, child: ChildPolicy, fates: list[Fate]
) -> None:
    if mode is Mode.AGGRESSIVE and losses(fates) > 2:
        # Its responder does not repeat itself for long to a peer that has proven nothing.
        fates = [fate or ARRIVES for fate in fates]
    net = prepared("psk", mode, child=child, timing=PATIENT)
    net.disturb = Fates(fates)
    net.initiate()
    net.advance(LONG_ENOUGH)
    one_sa_and_one_child(net)


@given(
    ends=st.lists(st.sampled_from(["left", "right"]), min_size=1, max_size=3), fates=st.lists(FATES, max_size=20)
)
@settings(max_examples=40, deadline=None)
def test_a_child_is_renewed_however_the_network_behaves(ends: list[str], fates: list[Fate]) -> None:
    net = connected(timing=PATIENT)
    net.disturb = Fates(fates)
    for end in ends:
        host = getattr(net, end)
        host.sa.rekey_child(host.installed[-1], now=net.now)
        net.run()
    net.advance(LONG_ENOUGH)
    for host in (net.left, net.right):
        assert len(host.live) == 1
        assert len(host.of(ChildEstablished)) >= 2
        # Of a deletion nobody hears whether it arrived; the child then goes with its lifetime.
        assert 1 <= len(host.installed) <= 1 + len(ends)
    outbound = {each.outbound.spi for each in net.left.installed}
    assert outbound & {each.inbound.spi for each in net.right.installed}
    net.advance(OVERLAP_OF_PEER)


@given(ends=st.sets(st.sampled_from(["left", "right"]), min_size=1), fates=st.lists(FATES, max_size=30))
@settings(max_examples=40, deadline=None)
def test_a_reauthentication_loses_no_child_however_the_network_behaves(ends: set[str], fates: list[Fate]) -> None:
    net = connected(timing=PATIENT)
    child = net.left.child
    net.disturb = Fates(fates)
    for sa in [getattr(net, end).sa for end in sorted(ends)]:
        sa.rekey(now=net.now)
    net.advance(2 * LONG_ENOUGH)
    assert net.left.installed == [child]
    assert keys_agree(net)
    assert len(net.right.installed) == 1


# --- hostile messages -------------------------------------------------------------------------------------------


@st.composite
def alterations(draw: st.DrawFn) -> tuple[int, str, int, int]:
    """Which message, what is done to it, where, and with what."""
    kind = draw(st.sampled_from(["flip", "cut", "extend", "replay", "header"]))
    return draw(st.integers(0, 99)), kind, draw(st.integers(0, 2000)), draw(st.integers(1, 255))


def altered(message: bytes, kind: str, at: int, value: int) -> bytes:
    if kind == "flip":
        at %= len(message)
        return message[:at] + bytes((message[at] ^ value,)) + message[at + 1 :]
    if kind == "header":
        # Cookies stay, or it would belong to nobody.
        at = 16 + at % 8
        return message[:at] + bytes((value,)) + message[at + 1 :]
    if kind == "replay":
        return message
    body = message[: at % len(message)] if kind == "cut" else message + bytes((value,)) * (at % 64)
    return body[:24] + len(body).to_bytes(4, "big") + body[28:] if len(body) >= 28 else body


@given(mode=MODES, hostile=st.lists(alterations(), min_size=1, max_size=12), late=st.booleans())
@settings(max_examples=60, deadline=None)
def test_an_established_sa_is_undisturbed_by_what_was_not_sent_by_its_peer(
    mode: Mode, hostile: list[tuple[int, str, int, int]], late: bool
) -> None:
    net = connected("psk", mode, timing=replace(PATIENT, liveness=20.0))
    if late:
        net.advance(130)
    children = (net.left.child, net.right.child)
    sas = (net.left.sa, net.right.sa)
    messages = list(net.log)
    for number, kind, at, value in hostile:
        passage = messages[number % len(messages)]
        host = net.right if passage.sender == "left" else net.left
        net.inject(host, altered(passage.message, kind, at, value))
    net.advance(2)
    assert (net.left.child, net.right.child) == children
    assert all(sa.state is State.ESTABLISHED for sa in sas)
    sas[0].rekey_child(net.left.child, now=net.now)
    net.run()
    assert keys_agree(net)
    assert len(net.right.of(ChildEstablished)) == 2


@given(mode=MODES, hostile=st.dictionaries(st.integers(0, 9), alterations(), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_a_handshake_that_is_meddled_with_ends_in_the_same_keys_or_in_nothing(
    mode: Mode, hostile: dict[int, tuple[int, str, int, int]]
) -> None:
    net = prepared("psk", mode, timing=replace(PATIENT, handshake=20.0))
    count = 0

    def meddle(passage: Passage) -> Iterable[tuple[float, Passage]]:
        nonlocal count
        count += 1
        found = hostile.get(count - 1)
        if found is None:
            return ((0.0, passage),)
        _, kind, at, value = found
        return ((0.0, passage.altered(altered(passage.message, kind, at, value))), (0.1, passage))

    net.disturb = meddle
    net.initiate()
    net.advance(60)
    for host in (net.left, net.right):
        assert all(sa.state is State.ESTABLISHED for sa in host.live)
    inbound = {each.inbound.spi: each.inbound.encryption_key for each in net.right.installed}
    for each in net.left.installed:
        assert inbound.get(each.outbound.spi, each.outbound.encryption_key) == each.outbound.encryption_key
