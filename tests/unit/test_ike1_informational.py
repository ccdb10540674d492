"""Informational exchanges of IKEv1: deletions, signs of life, lifetimes, and what strangers cannot say."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.ike1_memory import connected, connection, only, prepared
from tests.support.ike_memory import Network, keys_agree
from tests.support.tls_memory import Deterministic

from locum.errors import TimedOut
from locum.ike.configuration import Mode, Timing
from locum.ike.endpoint import Endpoint
from locum.ike.engine import ChildClosed, Closed, MessagePassed, State
from locum.ike.payloads1 import Delete, Notification
from locum.ike.registry import NotifyType1, ProtocolId
from locum.ike.v1 import informational
from locum.ike.v1.sa import Ike1Sa

BOTH = pytest.mark.parametrize("end", ["left", "right"])


def say(net: Network, sa: Ike1Sa, *payloads: Notification | Delete) -> None:
    """Have an end say something in an informational message."""
    sa._core.inform(*payloads)
    sa.touched(sa)
    net.run()


def said(net: Network, text: str) -> int:
    """How many messages with this in them were sent."""
    events = net.left.of(MessagePassed) + net.right.of(MessagePassed)
    return sum(text in each.description for each in events if each.outgoing)


def restart(net: Network) -> None:
    """Put a new endpoint in the left one's place, which knows nothing of what was."""
    net.left.endpoint = Endpoint(
        net.left.endpoint.connection, random=Deterministic(b"restarted"), reserve_spi=lambda: 0xF0000001
    )
    net.left.installed.clear()


# --- deletions --------------------------------------------------------------------------------------------------


@BOTH
def test_an_sa_that_is_closed_is_closed_at_both_ends(end: str) -> None:
    net = connected()
    getattr(net, end).sa.close(now=net.now)
    net.run()
    for host in (net.left, net.right):
        assert host.installed == []
        (closed,) = host.of(Closed)
        assert closed.error is None
        assert host.endpoint.sas == ()
    other = net.right if end == "left" else net.left
    assert other.of(Closed)[0].reason == "deleted by the peer"


@BOTH
def test_a_child_that_is_closed_is_closed_at_both_ends(end: str) -> None:
    net = connected()
    host = getattr(net, end)
    host.sa.close_child(host.child, now=net.now)
    net.run()
    assert net.left.installed == net.right.installed == []
    assert net.left.sa.state is net.right.sa.state is State.ESTABLISHED
    net.left.sa.create_child(now=net.now)
    net.run()
    assert keys_agree(net)
    assert len(net.left.installed) == 1


def test_a_deletion_names_what_the_sender_receives_with() -> None:
    net = connected()
    child, sa = net.right.child, only(net.right)
    say(net, only(net.left), informational.child_deletion(child.outbound.protocol, child.inbound.spi))
    assert net.right.installed == [child]
    # Its own inbound SPI is what the left end may delete.
    own = net.left.child.inbound
    say(net, only(net.left), informational.child_deletion(own.protocol, own.spi))
    assert net.right.installed == []
    assert sa.state is State.ESTABLISHED


def test_a_deletion_of_another_sa_means_nothing() -> None:
    net = connected()
    say(net, only(net.left), Delete(protocol=ProtocolId.IKE, spis=(b"somebody else..!",)))
    say(net, only(net.left), Delete(protocol=99, spis=(b"1234",)))
    assert net.right.sa.state is State.ESTABLISHED
    assert len(net.right.installed) == 1


# --- forgery and replay -----------------------------------------------------------------------------------------


def _informational(net: Network) -> bytes:
    """A deletion of the ISAKMP SA as the left end would send it, kept from the right end."""
    net.disturb = lambda passage: ()
    net.left.sa.close(now=net.now)
    net.run()
    net.disturb = lambda passage: ((0.0, passage),)
    return net.log[-1].message


def test_a_deletion_that_was_altered_anywhere_is_dropped() -> None:
    net = connected()
    message = _informational(net)
    sa = only(net.right)
    flags = 19
    for at in range(len(message)):
        if at == flags:
            # Not covered by the HASH; and only the first of them means anything here.
            continue
        before = sa.dropped + net.right.endpoint.dropped
        net.inject(net.right, message[:at] + bytes((message[at] ^ 0x10,)) + message[at + 1 :])
        assert sa.dropped + net.right.endpoint.dropped == before + 1
        assert sa.state is State.ESTABLISHED
        assert len(net.right.installed) == 1
    net.inject(net.right, message)
    assert sa.state is not State.ESTABLISHED


def test_a_deletion_in_clear_is_dropped() -> None:
    net = connected()
    right = only(net.right)
    cookies = right._channel.cookies
    child = net.right.child
    for payload in (
        informational.sa_deletion(cookies),
        informational.child_deletion(child.outbound.protocol, child.outbound.spi),
        Notification(notify_type=NotifyType1.NO_PROPOSAL_CHOSEN, spi=cookies.both),
        Notification(notify_type=NotifyType1.INITIAL_CONTACT, spi=cookies.both),
    ):
        messages, _ = only(net.left)._channel.write(5, 77, (payload,), None)
        net.inject(net.right, messages[0])
    assert right.state is State.ESTABLISHED
    assert net.right.installed == [child]
    assert right.dropped == 4


def test_a_message_that_comes_again_is_not_heeded_again() -> None:
    net = connected()
    left, right = only(net.left), only(net.right)
    own = net.left.child.inbound
    say(net, left, informational.child_deletion(own.protocol, own.spi))
    message = net.log[-1].message
    before = right.dropped
    for _ in range(3):
        net.inject(net.right, message)
    assert right.dropped == before + 3
    assert len(net.right.of(ChildClosed)) == 1


def test_invalid_cookie_in_clear_asks_for_a_sign_of_life_and_nothing_more() -> None:
    net = connected()
    right = only(net.right)
    notification = Notification(notify_type=NotifyType1.INVALID_COOKIE, spi=right._channel.cookies.both)
    messages, _ = only(net.left)._channel.write(5, 77, (notification,), None)
    net.inject(net.right, messages[0])
    assert said(net, "R_U_THERE)") == 1
    assert said(net, "R_U_THERE_ACK)") == 1
    assert right.state is State.ESTABLISHED


# --- signs of life ----------------------------------------------------------------------------------------------


@BOTH
def test_a_sign_of_life_is_asked_for_after_silence_and_given(end: str) -> None:
    quiet = Timing(liveness=0)
    asking = Timing(liveness=5.0)
    timings = (asking, quiet) if end == "left" else (quiet, asking)
    net = connected(timing=timings[0], right=connection(timing=timings[1]))
    net.advance(26)
    assert said(net, "N(R_U_THERE)") == 5
    assert said(net, "N(R_U_THERE_ACK)") == 5
    assert net.left.live
    assert net.right.live


@BOTH
def test_a_peer_that_gives_no_sign_of_life_is_dead(end: str) -> None:
    net = connected(timing=Timing(liveness=5.0, attempts=3, retransmission=1.0))
    host = getattr(net, end)
    net.disturb = lambda passage: ()
    before = len(net.log)
    net.advance(5 + 1 + 2 + 3)
    assert host.live
    net.advance(2)
    assert not host.live
    assert isinstance(host.error, TimedOut)
    assert host.installed == []
    asked = [each.message for each in net.log[before:] if each.sender == end]
    assert len(asked) == 3
    # Each repetition is a message of its own.
    assert len(set(asked)) == 3


def test_one_answer_is_enough() -> None:
    net = connected(timing=Timing(liveness=5.0, attempts=4, retransmission=1.0), right=connection())
    count = 0

    def lose_two(passage: Any) -> Any:
        nonlocal count
        count += 1
        return () if count <= 2 else ((0.0, passage),)

    net.disturb = lose_two
    net.advance(60)
    assert net.left.live
    assert net.right.live


def test_a_question_that_comes_twice_is_answered_twice() -> None:
    """Some peers send the same message again."""
    net = connected(timing=Timing(liveness=0))
    net.left.sa.check_liveness(now=net.now)
    net.run()
    question, answer = net.log[-2:]
    for _ in range(3):
        net.inject(net.right, question.message)
        assert net.log[-1].message == answer.message
    assert only(net.right).dropped == 0


def test_a_peer_without_dead_peer_detection_is_not_asked() -> None:
    vendor = bytes.fromhex("afcad71368a1f1c96b8696fc77570100")
    net = prepared(timing=Timing(liveness=5.0, attempts=2))
    net.disturb = lambda passage: ((0.0, passage.altered(passage.message.replace(vendor, bytes(16)))),)
    net.initiate()
    net.run()
    net.left.sa.check_liveness(now=net.now)
    net.disturb = lambda passage: ()
    net.advance(600)
    assert said(net, "R_U_THERE") == 0
    assert net.left.live


# --- other notifies ---------------------------------------------------------------------------------------------


def test_connected_is_taken_under_the_message_id_of_its_quick_mode() -> None:
    """RFC 2408 section 3.1: it goes with the commit bit, and needs nothing to be done."""
    net = connected()
    left, right = only(net.left), only(net.right)
    (message_id,) = left._phase2._quick
    isakmp, running = right._core.isakmp, right._phase2.find(message_id)
    assert isakmp is not None
    assert running is not None
    payloads = isakmp.with_hash(message_id, (Notification(notify_type=NotifyType1.CONNECTED),))
    messages, _ = right._channel.write(5, message_id, payloads, running.chain)
    net.inject(net.left, messages[0])
    assert left.dropped == 0
    assert len(net.left.installed) == 1


def test_a_responder_says_how_long_its_sas_live() -> None:
    """RFC 2407 section 4.5.4: the initiator offered more, and takes less."""
    short = Timing(ike_lifetime=500.0, child_lifetime=100.0, margin=0.1, liveness=0)
    net = connected(timing=Timing(liveness=0), right=connection(timing=short))
    assert said(net, "N(RESPONDER_LIFETIME)") == 2
    left = only(net.left)
    assert left._remove_at == net.now + 500
    (kept,) = left._phase2._children
    assert kept.remove_at == net.now + 100
    assert net.left.child.inbound.lifetime.hard_seconds == 100


def test_a_lifetime_is_shortened_and_never_lengthened() -> None:
    net = connected(timing=Timing(ike_lifetime=1000.0, child_lifetime=300.0, liveness=0))
    left, right = only(net.left), only(net.right)
    (kept,) = right._phase2._children
    for seconds, remaining in ((5000.0, 1000.0), (200.0, 200.0), (900.0, 200.0)):
        say(net, left, informational.lifetime(left._channel.cookies, seconds))
        assert right._remove_at == net.now + remaining
    spi = net.left.child.inbound.spi.to_bytes(4, "big")
    for data, remaining in (
        (bytes.fromhex("800100018002 0064"), 100.0),
        (bytes.fromhex("800100018002 0fff"), 100.0),
        (bytes.fromhex("800100028002 0001"), 100.0),
        (bytes.fromhex("8001"), 100.0),
    ):
        notification = Notification(
            notify_type=NotifyType1.RESPONDER_LIFETIME, protocol=ProtocolId.ESP, spi=spi, data=data
        )
        say(net, left, notification)
        assert kept.remove_at == net.now + remaining


@pytest.mark.parametrize("mode", list(Mode), ids=[mode.value for mode in Mode])
def test_a_peer_that_has_begun_anew_is_believed(mode: Mode) -> None:
    """INITIAL_CONTACT: what the other end has of it is forgotten."""
    net = connected("psk", mode)
    restart(net)
    net.initiate()
    net.run()
    assert len(net.left.installed) == len(net.right.installed) == 1
    assert keys_agree(net)
    assert len(net.right.live) == 1
    assert [each.reason for each in net.right.of(Closed)] == ["the peer has begun anew"]


def test_initial_contact_may_come_after_phase_1() -> None:
    net = connected()
    restart(net)
    sa = net.initiate()
    sa.initial_contact = False
    net.run()
    say(
        net,
        only(net.left),
        Notification(notify_type=NotifyType1.INITIAL_CONTACT, spi=only(net.left)._channel.cookies.both),
    )
    assert len(net.right.live) == 1
