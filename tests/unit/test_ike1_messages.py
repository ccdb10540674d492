"""The table of IKEv1's messages: what each must, may and must not have; and signs of life by the clock."""

from __future__ import annotations

import pytest
from tests.support.ike1_memory import connected

from locum.ike.configuration import Timing
from locum.ike.engine import MessagePassed
from locum.ike.errors import UnexpectedMessage
from locum.ike.header import RawPayload
from locum.ike.payloads1 import Notification, Payloads, Unknown
from locum.ike.registry import AuthenticationMethod1 as Method
from locum.ike.registry import NotifyType1, PayloadType1
from locum.ike.v1 import messages
from locum.ike.v1.liveness import Liveness
from locum.ike.v1.messages import (
    CERT,
    CR,
    HASH,
    ID,
    KE,
    NAT_D,
    NAT_OA,
    NONCE,
    SA,
    SIG,
    VID,
    D,
    N,
    Rule,
    describe,
)


def payloads(*types: int) -> Payloads:
    """A message with payloads of these types; nobody looks into them."""
    return Payloads(
        tuple(Unknown(type=kind, body=b"") for kind in types), tuple(RawPayload(kind, b"") for kind in types), b""
    )


SIGNED, SHARED, ENCRYPTED = Method.ECDSA_256, Method.PRE_SHARED_KEY, Method.RSA_ENCRYPTION

RIGHT: list[tuple[Rule, tuple[int, ...]]] = [
    (messages.MAIN_1, (SA,)),
    (messages.MAIN_1, (SA, VID, VID, VID)),
    (messages.MAIN_2, (SA, VID, 130)),
    (messages.main_key_exchange(SIGNED, from_initiator=True), (KE, NONCE)),
    (messages.main_key_exchange(SIGNED, from_initiator=True), (NONCE, CR, KE, NAT_D, NAT_D, NAT_D)),
    (messages.main_key_exchange(ENCRYPTED, from_initiator=True), (KE, HASH, ID, NONCE)),
    (messages.main_key_exchange(ENCRYPTED, from_initiator=False), (KE, ID, NONCE)),
    (messages.main_proof(SIGNED, from_initiator=True), (ID, CERT, CERT, SIG, N)),
    (messages.main_proof(SHARED, from_initiator=False), (ID, HASH)),
    (messages.main_proof(ENCRYPTED, from_initiator=False), (HASH,)),
    (messages.AGGRESSIVE_1, (SA, KE, NONCE, ID, VID)),
    (messages.aggressive_answer(SIGNED), (SA, KE, NONCE, ID, CERT, SIG, NAT_D, NAT_D)),
    (messages.aggressive_answer(SHARED), (SA, KE, NONCE, ID, HASH)),
    (messages.aggressive_proof(SIGNED), (SIG,)),
    (messages.aggressive_proof(SHARED), (NAT_D, NAT_D, HASH)),
    (messages.QUICK_1, (HASH, SA, NONCE)),
    (messages.QUICK_2, (HASH, SA, NONCE, KE, ID, ID, NAT_OA, NAT_OA)),
    (messages.QUICK_3, (HASH,)),
    (messages.INFORMATIONAL, (HASH, D, N)),
    (messages.INFORMATIONAL_CLEAR, (N,)),
]

WRONG: list[tuple[Rule, tuple[int, ...]]] = [
    (messages.MAIN_1, ()),
    (messages.MAIN_1, (VID, SA)),
    (messages.MAIN_1, (SA, SA)),
    (messages.MAIN_1, (SA, KE)),
    (messages.MAIN_2, (SA, HASH)),
    (messages.main_key_exchange(SIGNED, from_initiator=True), (KE,)),
    (messages.main_key_exchange(SIGNED, from_initiator=True), (KE, KE, NONCE)),
    (messages.main_key_exchange(SIGNED, from_initiator=True), (KE, NONCE, ID)),
    (messages.main_key_exchange(ENCRYPTED, from_initiator=True), (KE, NONCE)),
    (messages.main_key_exchange(ENCRYPTED, from_initiator=False), (KE, HASH, ID, NONCE)),
    (messages.main_proof(SIGNED, from_initiator=True), (ID, HASH)),
    (messages.main_proof(SHARED, from_initiator=True), (ID, SIG)),
    (messages.main_proof(SHARED, from_initiator=True), (ID, HASH, CERT)),
    (messages.main_proof(ENCRYPTED, from_initiator=True), (ID, HASH)),
    (messages.AGGRESSIVE_1, (SA, KE, NONCE)),
    (messages.AGGRESSIVE_1, (KE, SA, NONCE, ID)),
    (messages.aggressive_answer(SIGNED), (SA, KE, NONCE, ID, HASH)),
    (messages.aggressive_answer(SHARED), (SA, KE, NONCE, ID, SIG)),
    (messages.aggressive_proof(SHARED), (HASH, HASH)),
    (messages.QUICK_1, (SA, HASH, NONCE)),
    (messages.QUICK_1, (HASH, NONCE, SA)),
    (messages.QUICK_1, (HASH, SA, NONCE, ID, ID, ID)),
    (messages.QUICK_1, (HASH, SA, NONCE, D)),
    (messages.QUICK_3, (HASH, SA)),
    (messages.INFORMATIONAL, (D,)),
    (messages.INFORMATIONAL, (HASH, KE)),
]


def case(value: object) -> str:
    return value.name if isinstance(value, Rule) else "-".join(map(str, map(int, value)))  # type: ignore[call-overload]


@pytest.mark.parametrize(("rule", "types"), RIGHT, ids=case)
def test_what_a_message_may_be_made_of(rule: Rule, types: tuple[int, ...]) -> None:
    rule.check(payloads(*types))


@pytest.mark.parametrize(("rule", "types"), WRONG, ids=case)
def test_what_a_message_may_not_be_made_of(rule: Rule, types: tuple[int, ...]) -> None:
    with pytest.raises(UnexpectedMessage, match=rule.name):
        rule.check(payloads(*types))


def test_messages_are_described_for_people() -> None:
    notification = Notification(notify_type=NotifyType1.INITIAL_CONTACT)
    assert describe((*payloads(SA, VID, VID, KE, 99).items, notification)) == (
        "SA, VID x 2, KE, payload 99, N(INITIAL_CONTACT)"
    )
    descriptions = [each.description for each in connected().left.of(MessagePassed)]
    assert descriptions[0] == "main mode 1: SA, VID x 3"
    assert descriptions[-1] == "quick mode 3: HASH"


def test_every_known_payload_has_a_short_name() -> None:
    inside = {PayloadType1.NONE, PayloadType1.PROPOSAL, PayloadType1.TRANSFORM, PayloadType1.FRAGMENT}
    for kind in set(PayloadType1) - inside:
        assert "payload" not in describe(payloads(kind).items)


# --- signs of life ----------------------------------------------------------------------------------------------

TIMING = Timing(liveness=10.0, retransmission=1.0, longest_retransmission=3.0, attempts=4)


def test_the_peer_is_asked_after_silence_and_dead_after_so_many_questions() -> None:
    liveness = Liveness(TIMING, 7, able=True, now=100.0)
    moments = []
    now = 100.0
    while not liveness.dead(now=now):
        due = liveness.next_timeout()
        assert due is not None
        now = due
        if liveness.due(now=now):
            moments.append(now)
            liveness.ask(now=now)
    assert moments == [110.0, 111.0, 113.0, 116.0]
    assert now == 119.0


def test_every_question_has_the_next_number_and_repetitions_the_same() -> None:
    liveness = Liveness(TIMING, 7, able=True, now=0.0)
    assert [liveness.ask(now=10.0), liveness.ask(now=11.0)] == [b"\0\0\0\x08"] * 2
    assert liveness.asking
    liveness.heard(now=12.0)
    assert not liveness.asking
    assert liveness.next_timeout() == 22.0
    assert liveness.ask(now=22.0) == b"\0\0\0\x09"


def test_sequence_numbers_begin_in_the_lower_half() -> None:
    assert Liveness(TIMING, 0xFFFFFFFF, able=True, now=0.0).ask(now=1.0) == b"\x80\0\0\0"


def test_nobody_is_asked_who_cannot_answer_or_need_not() -> None:
    assert Liveness(TIMING, 0, able=False, now=0.0).next_timeout() is None
    assert Liveness(Timing(liveness=0), 0, able=True, now=0.0).next_timeout() is None
