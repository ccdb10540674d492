"""Main and aggressive mode of IKEv1 between two of our ends, with every method of authentication."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from tests.support import pki
from tests.support.ike1_memory import METHODS, connected, connection, only, prepared
from tests.support.ike_memory import (
    LEFT_NAME,
    RIGHT_NAME,
    Host,
    Network,
    authority,
    certificate_authority,
    keys_agree,
    network,
    psk_authority,
)

from locum.authority.databases import Action, Identity, Policy, PolicyRule
from locum.errors import Incompatible, LocumError, Refused, TimedOut, Unavailable
from locum.handshake import PeerRejected
from locum.ike import algorithms as alg
from locum.ike.configuration import Mode, Timing
from locum.ike.engine import Closed, Established, MessagePassed, State
from locum.ike.errors import AuthenticationFailed, NotifyReceived, UnexpectedMessage
from locum.ike.header import HEADER_LENGTH
from locum.ike.keying1 import phase2_iv
from locum.ike.operations import IkeKeysResponse, ProveResponse
from locum.ike.payloads1 import Hash, Notification
from locum.ike.policy import Phase1Policy
from locum.ike.protection import CbcChain
from locum.ike.registry import AuthenticationMethod1, NotifyType1, PayloadType1
from locum.ike.v1.asking import MAX_WAITING_HALF_OPEN
from locum.ike.v1.running import HINT_GRACE, MAX_SPARING_REPLAYS, SPARING_ATTEMPTS
from locum.keys.file import FileKey

MODES = pytest.mark.parametrize("mode", list(Mode), ids=[mode.value for mode in Mode])
PSK = (AuthenticationMethod1.PRE_SHARED_KEY,)


def names(host: Host) -> list[str]:
    """The operations that were asked of an authority, in order."""
    return [type(request).__name__.removesuffix("Request") for request in host.asked]


def passed(host: Host) -> list[str]:
    """The messages that were sent and accepted."""
    return [each.description for each in host.of(MessagePassed)]


# --- what works -------------------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("method", METHODS)
def test_both_ends_agree_on_an_sa_and_a_child(method: str, mode: Mode) -> None:
    net = connected(method, mode)
    assert len(net.left.installed) == 1
    assert keys_agree(net)
    assert net.left.sa.peer_identity in (f"dns:{RIGHT_NAME}", f"pin:{RIGHT_NAME}")
    assert net.right.sa.peer_identity in (f"dns:{LEFT_NAME}", f"pin:{LEFT_NAME}")
    assert net.left.sa.algorithms == net.right.sa.algorithms
    assert (net.left.sa.own_spi, net.left.sa.peer_spi) == (net.right.sa.peer_spi, net.right.sa.own_spi)


@MODES
@pytest.mark.parametrize("prf", [alg.PRF_HMAC_SHA2_256, alg.PRF_HMAC_SHA2_512], ids=str)
@pytest.mark.parametrize("group", [alg.ECP_256, alg.ECP_521, alg.MODP_2048], ids=str)
def test_hashes_and_groups_of_a_policy_are_used(mode: Mode, prf: alg.Prf, group: alg.Group) -> None:
    net = connected("psk", mode, phase1=Phase1Policy(methods=PSK, prfs=(prf,), groups=(group,)))
    assert net.left.sa.algorithms == f"AES-CBC-256/{prf.name}/{group.name}/PRE_SHARED_KEY"
    assert keys_agree(net)


INITIATOR_MAIN = ["IkeStart", "PublicValue", "KeyExchange", "Prove", "IkeAuthenticate", "SaKeys"]
RESPONDER_MAIN = ["IkeStart", "KeyExchange", "IkeAuthenticate", "Prove", "SaKeys"]
INITIATOR_AGGRESSIVE = [
    "IkeStart",
    "PublicValue",
    "Introduce",
    "KeyExchange",
    "IkeAuthenticate",
    "Prove",
    "SaKeys",
]
RESPONDER_AGGRESSIVE = ["IkeStart", "KeyExchange", "Prove", "IkeAuthenticate", "SaKeys"]
HIDDEN = ["Disclosure", "EncryptedIntroduction"]


@pytest.mark.parametrize("method", ["psk", "rsa", "p256"])
def test_the_authority_is_asked_in_the_order_of_the_document(method: str) -> None:
    """A8, fig 12; quick mode without perfect forward secrecy asks nothing (A9, fig 13)."""
    net = connected(method, Mode.MAIN)
    assert (names(net.left), names(net.right)) == (INITIATOR_MAIN, RESPONDER_MAIN)
    net = connected(method, Mode.AGGRESSIVE)
    assert (names(net.left), names(net.right)) == (INITIATOR_AGGRESSIVE, RESPONDER_AGGRESSIVE)


def test_with_public_key_encryption_names_and_nonces_go_through_the_authority() -> None:
    """RFC 2409 section 5.2."""
    net = connected("encryption", Mode.MAIN)
    assert names(net.left) == [*INITIATOR_MAIN[:2], *reversed(HIDDEN), *INITIATOR_MAIN[2:]]
    assert names(net.right) == [RESPONDER_MAIN[0], *HIDDEN, *RESPONDER_MAIN[1:]]
    assert "main mode 5: HASH, N(INITIAL_CONTACT)" in passed(net.right)
    assert all(LEFT_NAME.encode() not in each.message for each in net.log)
    net = connected("encryption", Mode.AGGRESSIVE)
    assert names(net.left) == [*INITIATOR_AGGRESSIVE[:2], *reversed(HIDDEN), *INITIATOR_AGGRESSIVE[3:]]
    assert names(net.right) == [RESPONDER_AGGRESSIVE[0], *HIDDEN, *RESPONDER_AGGRESSIVE[1:]]
    assert all(LEFT_NAME.encode() not in each.message for each in net.log)


def test_identities_go_out_encrypted_in_main_mode_and_in_clear_in_aggressive_mode() -> None:
    name = LEFT_NAME.encode()
    assert not any(name in each.message for each in connected("psk", Mode.MAIN).log)
    assert name in connected("psk", Mode.AGGRESSIVE).log[0].message


def test_every_combination_of_a_wide_policy_can_be_chosen() -> None:
    """The last one of the default policy; the authority has left out those that it has no key for."""
    last = Phase1Policy(
        methods=PSK,
        encryptions=(alg.ENCR_AES_CBC_128,),
        prfs=(alg.PRF_HMAC_SHA2_512,),
        groups=(alg.MODP_2048,),
    )
    net = connected("psk", right=connection(phase1=last))
    assert net.left.sa.algorithms == "AES-CBC-128/PRF-HMAC-SHA2-512/modp2048/PRE_SHARED_KEY"


def test_certificates_longer_than_a_datagram_go_in_fragments() -> None:
    many = tuple(f"name-{number}.{RIGHT_NAME}" for number in range(60))
    issued = pki.leaf(pki.ca(), "rsa", (RIGHT_NAME, *many), slot="ike1:long", subject="long", purposes=None)
    identity = Identity(name="long", certificates=issued.chain, key=FileKey.from_pem(issued.key_pem))
    pair = (certificate_authority(LEFT_NAME, kind="rsa"), authority(RIGHT_NAME, identities=(identity,)))
    net = network(connection(), authorities=pair, observed=True).connect()
    assert keys_agree(net)
    assert len(net.left.installed) == 1
    fragments = [each for each in net.log if each.message[16] == PayloadType1.FRAGMENT]
    assert {each.sender for each in fragments} == {"right"}
    assert len(fragments) >= 2

    whole = network(connection(fragmentation=False), connection(), authorities=pair).connect()
    assert len(whole.left.installed) == 1
    assert not any(each.message[16] == PayloadType1.FRAGMENT for each in whole.log)


@MODES
def test_what_arrives_while_the_authority_works_is_not_lost(mode: Mode) -> None:
    net = prepared("psk", mode)
    net.left.hold = net.right.hold = True
    net.initiate()
    for _ in range(40):
        # Longer than a retransmission takes, so that messages arrive twice meanwhile.
        net.advance(0.7)
        for host in (net.left, net.right):
            held, host.held = host.held, []
            for task in held:
                host.perform(*task, now=net.now)
    assert len(net.left.of(Established)) == len(net.right.of(Established)) == 1
    assert len(net.left.installed) == 1
    assert keys_agree(net)


# --- what does not ----------------------------------------------------------------------------------------------


def fail(net: Network) -> Network:
    """Have both ends try for as long as they may."""
    net.initiate()
    net.advance(60)
    assert net.left.installed == net.right.installed == []
    return net


@MODES
def test_different_secrets_set_nothing_up(mode: Mode) -> None:
    pair = (psk_authority(LEFT_NAME, RIGHT_NAME), psk_authority(RIGHT_NAME, LEFT_NAME, secret=b"other"))
    net = fail(network(connection(mode), authorities=pair))
    assert net.left.of(Established) == net.right.of(Established) == []
    assert isinstance(net.left.error, PeerRejected if mode is Mode.AGGRESSIVE else LocumError)
    if mode is Mode.MAIN:
        # Message 5 makes no sense to the responder, which says so in the end.
        assert isinstance(net.right.error, AuthenticationFailed)
        assert isinstance(net.left.error, TimedOut)


@MODES
def test_a_stranger_is_turned_away_by_either_end(mode: Mode) -> None:
    denied = authority(RIGHT_NAME, identities=_identities(RIGHT_NAME), rules=[("dns:other", Action.ALLOW)])
    net = fail(network(connection(mode), authorities=(certificate_authority(LEFT_NAME), denied)))
    assert net.right.of(Established) == []
    # A peer that policy denies whatever it proves is refused from the start.
    assert isinstance(net.right.error, PeerRejected | Refused)

    denying = authority(LEFT_NAME, identities=_identities(LEFT_NAME), rules=[("dns:other", Action.ALLOW)])
    net = fail(network(connection(mode), authorities=(denying, certificate_authority(RIGHT_NAME))))
    assert net.left.of(Established) == []
    assert isinstance(net.left.error, PeerRejected | Refused)


def _identities(own: str) -> tuple[Identity, ...]:
    issued = pki.leaf(pki.ca(), "p256", (own,), slot=f"ike1:{own}", subject=own, purposes=None)
    return (Identity(name=own, certificates=issued.chain, key=FileKey.from_pem(issued.key_pem)),)


@MODES
def test_without_a_common_proposal_both_ends_say_so(mode: Mode) -> None:
    left = connection(mode, phase1=Phase1Policy(methods=PSK, groups=(alg.ECP_256,)))
    right = connection(mode, phase1=Phase1Policy(methods=PSK, groups=(alg.ECP_384,)))
    net = fail(network(left, right))
    assert isinstance(net.right.error, Incompatible)
    error = net.left.error
    assert isinstance(error, NotifyReceived)
    assert error.notify_type == NotifyType1.NO_PROPOSAL_CHOSEN


@MODES
def test_a_responder_keeps_to_the_mode_of_its_connection(mode: Mode) -> None:
    other = Mode.AGGRESSIVE if mode is Mode.MAIN else Mode.MAIN
    net = fail(network(connection(mode), connection(other)))
    assert isinstance(net.right.error, UnexpectedMessage)
    assert isinstance(net.left.error, NotifyReceived)
    assert net.right.asked == []


def test_nobody_at_the_other_end_ends_in_a_time_out() -> None:
    net = prepared("psk", timing=Timing(attempts=3, retransmission=1.0))
    net.disturb = lambda passage: ()
    sa = net.initiate()
    net.advance(10)
    assert isinstance(net.left.error, TimedOut)
    assert sa.state is State.CLOSED
    # Sent after 0, 1 and 3 seconds.
    assert len(net.log) == 3
    assert len({each.message for each in net.log}) == 1


@MODES
@pytest.mark.parametrize("end", ["left", "right"])
@pytest.mark.parametrize("batch", range(4))
def test_an_authority_that_fails_ends_the_sa(mode: Mode, end: str, batch: int) -> None:
    net = prepared("psk", mode)
    host: Host = getattr(net, end)
    host.hold = True
    net.initiate()
    net.run()
    for _ in range(batch):
        if not host.held:
            return
        task = host.held.pop()
        host.perform(*task, now=net.now)
        net.run()
    if not host.held:
        return
    sa, _, _ = host.held.pop()
    sa.fail(Unavailable("the delegate is away"), now=net.now)
    net.advance(60)
    assert isinstance(host.error, Unavailable)
    assert sa.state is State.CLOSED
    assert [event.sa for event in host.of(Closed)] == [sa]


def test_an_answer_that_comes_after_the_end_is_not_taken() -> None:
    net = prepared("psk")
    net.left.hold = True
    sa = net.initiate()
    net.run()
    ((_, requests, _),) = net.left.held
    sa.close(now=net.now)
    session = net.left.authority.open("meter-7")
    sa.answer(session.perform(requests), now=net.now)
    sa.fail(Unavailable("late"), now=net.now)
    net.run()
    assert net.log == []
    assert len(net.left.of(Closed)) == 1


# --- what strangers can do --------------------------------------------------------------------------------------


def _notify_in_clear(net: Network, notify_type: int) -> bytes:
    """A forged error notify of the responder's, with both cookies."""
    cookies = next(each.message[:16] for each in net.log if each.sender == "left")
    body = (1).to_bytes(4, "big") + bytes((1, 0)) + notify_type.to_bytes(2, "big")
    payload = bytes((0, 0)) + (4 + len(body)).to_bytes(2, "big") + body
    header = cookies + bytes((PayloadType1.NOTIFICATION, 0x10, 5, 0)) + b"\0\0\0\7"
    return header + (HEADER_LENGTH + len(payload)).to_bytes(4, "big") + payload


def test_an_error_notify_in_clear_is_only_a_hint() -> None:
    """What it denies may come all the same; then it is as if nothing had been said."""
    net = prepared("psk", timing=Timing(retransmission=1.0))
    net.right.hold = True
    net.initiate()
    net.run()
    net.inject(net.left, _notify_in_clear(net, NotifyType1.NO_PROPOSAL_CHOSEN))
    assert net.left.live
    net.advance(HINT_GRACE / 2)
    net.release(net.right)
    net.advance(1)
    assert net.left.of(Established)
    assert len(net.left.installed) == 1


def test_an_error_notify_in_clear_is_believed_when_nothing_else_comes() -> None:
    net = prepared("psk")
    net.right.hold = True
    net.initiate()
    net.run()
    net.inject(net.left, _notify_in_clear(net, NotifyType1.INVALID_COOKIE))
    net.advance(HINT_GRACE + 0.1)
    error = net.left.error
    assert isinstance(error, NotifyReceived)
    assert error.notify_type == NotifyType1.INVALID_COOKIE


def test_an_encrypted_error_notify_is_a_hint_too_before_there_are_keys_for_its_hash() -> None:
    """As real responders send it when message 5 proves nothing to them."""
    net = prepared("psk")
    net.right.hold = True
    net.initiate()
    for _ in range(2):
        net.run()
        held, net.right.held = net.right.held, []
        for task in held:
            net.right.perform(*task, now=net.now)
    net.run()
    right, message_id = only(net.right), 77
    first, suite = right._first, right._phase1.suite
    assert first is not None
    assert first.chain is not None
    assert suite is not None
    chain = CbcChain(first.chain.key, phase2_iv(suite.prf, first.chain.iv, message_id))
    notification = Notification(notify_type=NotifyType1.AUTHENTICATION_FAILED)
    messages, _ = right._channel.write(5, message_id, (Hash(data=bytes(32)), notification), chain)
    net.inject(net.left, messages[0])
    net.advance(HINT_GRACE + 0.1)
    error = net.left.error
    assert isinstance(error, NotifyReceived)
    assert error.notify_type == NotifyType1.AUTHENTICATION_FAILED


def test_keys_of_a_wrong_length_are_an_error_of_the_authority() -> None:
    net = prepared("psk")
    net.left.hold = True
    net.initiate()
    for _ in range(2):
        net.run()
        held, net.left.held = net.left.held, []
        for task in held:
            net.left.perform(*task, now=net.now)
    net.run()
    ((sa, _, _),) = net.left.held
    sa.answer((IkeKeysResponse(keys=b"short"), ProveResponse(identification=b"", proof=b"")), now=net.now)
    net.run()
    assert isinstance(net.left.error, LocumError)
    assert sa.state is State.CLOSED


def test_a_message_from_another_address_is_not_taken_during_phase_1() -> None:
    net = prepared("psk")
    net.disturb = lambda passage: () if passage.sender == "right" else ((0.0, passage),)
    sa = net.initiate()
    net.run()
    answer = next(each.message for each in net.log if each.sender == "right")
    net.inject(net.left, answer, source=ip_address("203.0.113.9"))
    assert sa.dropped == 1
    assert sa.peer_spi == bytes(8)


def test_the_last_message_come_again_is_answered_a_bounded_number_of_times() -> None:
    net = connected("psk")
    first = next(each.message for each in net.log if each.sender == "left" and each.message[18] == 2)
    fifth = [each.message for each in net.log if each.sender == "left" and each.message[18] == 2][-1]
    before = len(net.log)
    for _ in range(100):
        net.inject(net.right, fifth)
        net.inject(net.right, first)
    assert 1 <= len(net.log) - before <= 16
    assert len(net.right.of(Established)) == 1


def test_an_answer_of_aggressive_mode_is_sent_twice_unasked_and_thrice_more_when_asked_for() -> None:
    """The address that asks may be forged, and the answer is the longer one."""
    net = prepared("rsa", Mode.AGGRESSIVE)
    net.disturb = lambda passage: ((0.0, passage),) if passage.number == 1 else ()
    net.initiate()
    net.run()
    net.left.endpoint.close(now=net.now)
    net.advance(20.0)
    answers = [each.message for each in net.log if each.sender == "right"]
    assert len(answers) == SPARING_ATTEMPTS == 2
    for _ in range(20):
        net.inject(net.right, net.log[0].message)
    answers = [each.message for each in net.log if each.sender == "right"]
    assert len(answers) == 2 + MAX_SPARING_REPLAYS == 5
    assert len(set(answers)) == 1


def test_a_responder_of_aggressive_mode_waits_for_a_slow_peer() -> None:
    net = prepared("psk", Mode.AGGRESSIVE)
    net.disturb = lambda passage: ((0.0, passage),) if passage.sender == "left" or net.now > 1003 else ()
    net.initiate()
    net.advance(5.0)
    assert len(net.left.installed) == 1
    assert keys_agree(net)


def test_few_messages_wait_for_an_sa_that_is_not_established() -> None:
    net = prepared("psk")
    net.right.hold = True
    net.initiate()
    net.run()
    first, sa = net.log[0].message, only(net.right)
    for number in range(20):
        net.inject(net.right, first[:8] + sa.own_spi + first[16:-1] + bytes((number,)))
    assert len(sa._asking._waiting) == MAX_WAITING_HALF_OPEN == 2


@pytest.mark.parametrize("method", ["p256", "psk", "encryption"])
def test_a_responder_that_is_turned_down_at_the_end_is_told_so_that_it_believes_it(method: str) -> None:
    """Main mode's responder has an SA when it has sent message 6, and heeds nothing without a HASH."""
    net = prepared(method)
    net.left.hold = True
    net.initiate()
    net.run()
    while not net.right.of(Established):
        held, net.left.held = net.left.held, []
        for task in held:
            net.left.perform(*task, now=net.now)
        net.run()
    ((sa, requests, number),) = net.left.held
    # A rule that was added meanwhile.
    net.left.authority.policy = Policy((PolicyRule(terminal="*", peer="*", action=Action.DENY),))
    net.left.perform(sa, requests, number, now=net.now)
    net.run()
    assert isinstance(net.left.error, PeerRejected)
    assert net.left.of(Established) == []
    (closed,) = net.right.of(Closed)
    assert (closed.error, closed.reason) == (None, "deleted by the peer")
    assert net.right.live == []
