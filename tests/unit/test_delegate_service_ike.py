"""Sessions of IKE at the delegate: what ends them, how they are counted, and what the audit log says of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.support.delegate_bench import ACCEPTED, DENIED, SECRET, Bench

from locum.authority.messages import encode_requests
from locum.delegate.journal import MANY_STRANGERS, MAXIMUM_STRANGERS, REFUSAL_WINDOW
from locum.delegate.sessions import SessionLimits
from locum.errors import Refused
from locum.handshake import Fault, PeerChain, Request, Verdict
from locum.ike import operations as ike
from locum.link.coap import Code
from locum.store.records import Outcome

START = ike.IkeStartRequest(
    exchange=ike.Exchange.IKE_2, initiator=False, sa=bytes(48), group=31, peer_address="192.0.2.9"
)
KEYS = ike.KeyExchangeRequest(
    group=31,
    public_value=bytes(32),
    initiator_spi=bytes(8),
    responder_spi=bytes(8),
    peer_nonce=bytes(32),
    own_nonce=bytes(32),
)
AUTHENTICATE = ike.IkeAuthenticateRequest(
    chain=PeerChain(()), identification=b"\x02\0\0\0peer.example", proof=b"p"
)
PROOF: tuple[Request, ...] = (AUTHENTICATE, ike.ProveRequest(), ike.SaKeysRequest())
FURTHER = ike.IkeStartRequest(exchange=ike.Exchange.FURTHER, initiator=False, remote_identity="dns:peer.example")
SHARED = ike.SharedSecretRequest(group=31, public_value=bytes(32))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_ike_handshake_takes_two_messages_and_is_wiped_when_its_keys_are_handed_over(bench: Bench) -> None:
    token = bench.ask(b"", START, KEYS).token
    verdict, _, keys = bench.ask(token, *PROOF).responses
    assert (verdict, keys) == (ACCEPTED, ike.SaKeysResponse(keys=SECRET))
    assert bench.authority.opened[0].closed
    assert (bench.service.counters.completed, bench.service.counters.further) == (1, 0)
    (entry,) = bench.ended
    assert (entry.subject, entry.outcome) == ("192.0.2.9", Outcome.OK)
    assert entry.detail == "key handed over (peer dns:peer.example)"


def test_the_peer_that_is_wanted_is_the_one_that_is_audited(bench: Bench) -> None:
    wanted = dataclasses.replace(START, initiator=True, remote_identity="dns:peer.example")
    bench.ask(bench.ask(b"", wanted, KEYS).token, *PROOF)
    assert bench.ended[0].subject == "dns:peer.example"


@pytest.mark.parametrize(
    ("verdict", "judged"),
    [
        (DENIED, "authentic=yes allowed=no: no rule allows it (peer dns:peer.example)"),
        (
            Verdict(authentic=False, allowed=False, reason="wrong AUTH", fault=Fault.BAD_SIGNATURE),
            "authentic=no allowed=no: wrong AUTH",
        ),
    ],
    ids=["denied", "not authentic"],
)
def test_a_peer_that_is_rejected_gets_no_proof_of_the_terminal(
    bench: Bench, verdict: Verdict, judged: str
) -> None:
    bench.authority.answers[ike.IkeAuthenticateRequest] = verdict
    token = bench.ask(b"", START, KEYS).token
    assert bench.ask(token, *PROOF).responses == (verdict,)
    assert bench.authority.opened[0].performed == [START, KEYS, AUTHENTICATE]
    assert bench.authority.opened[0].closed
    assert bench.service.counters.rejected == 1
    assert [(entry.outcome, entry.detail) for entry in bench.ended] == [(Outcome.REFUSED, judged)]


def test_a_further_exchange_is_counted_and_audited_as_one(bench: Bench) -> None:
    bench.ask(b"", FURTHER, SHARED)
    assert bench.authority.opened[0].closed
    assert (bench.service.counters.completed, bench.service.counters.further) == (0, 1)
    (entry,) = bench.ended
    assert (entry.subject, entry.outcome, entry.detail) == ("dns:peer.example", Outcome.OK, "further key exchange")


def test_a_further_exchange_goes_on_while_more_follows(bench: Bench) -> None:
    bench.authority.answers[ike.SharedSecretRequest] = ike.SharedSecretResponse(secret=SECRET, more=True)
    token = bench.ask(b"", FURTHER, dataclasses.replace(SHARED, more=True)).token
    assert not bench.authority.opened[0].closed
    bench.authority.answers[ike.SharedSecretRequest] = ike.SharedSecretResponse(secret=SECRET)
    bench.ask(token, SHARED)
    assert bench.authority.opened[0].closed
    assert bench.service.counters.further == 1


def test_a_peer_that_must_take_another_group_begins_anew_in_another_session(bench: Bench) -> None:
    wanted = ike.IkeStartResponse(group=19, other_group_wanted=True)
    bench.authority.answers[ike.IkeStartRequest] = wanted
    assert bench.ask(b"", START, KEYS).responses == (wanted,)
    assert bench.authority.opened[0].performed == [START]
    assert bench.authority.opened[0].closed
    assert len(bench.service.sessions) == 0
    assert (bench.service.counters.completed, bench.service.counters.failed) == (0, 1)
    (entry,) = bench.ended
    assert entry.outcome == Outcome.FAILED
    assert "begin anew" in entry.detail


@pytest.mark.parametrize("per_terminal", [64, 4], ids=["time", "room"])
def test_strangers_that_begin_and_never_finish_do_not_fill_the_audit_log(per_terminal: int) -> None:
    bench = Bench(session_limits=SessionLimits(per_terminal=per_terminal))
    for _ in range(20):
        bench.ask(b"", START, KEYS)
    bench.ask(b"", dataclasses.replace(START, peer_address="192.0.2.10"), KEYS)
    bench.now += REFUSAL_WINDOW
    bench.service.expire(now=bench.now)
    assert bench.service.counters.failed == 21
    assert all(session.closed for session in bench.authority.opened)
    entries = [(entry.subject, entry.detail) for entry in bench.ended]
    assert entries.count(("192.0.2.9", "not completed in time")) == 1
    assert entries.count(("192.0.2.10", "not completed in time")) == 1
    assert len(entries) == (2 if per_terminal == 64 else 3)
    bench.ask(b"", START, KEYS)
    bench.now += REFUSAL_WINDOW
    bench.service.expire(now=bench.now)
    more = {64: 19, 4: 2}[per_terminal]
    assert bench.ended[-1].detail == f"not completed in time; {more} more before"


def start_and_fail(bench: Bench, **changes: Any) -> None:
    bench.authority.answers[ike.IkeStartRequest] = Refused("no proposal was chosen")
    answer = bench.post(encode_requests(b"", (dataclasses.replace(START, **changes),)))
    assert answer.code == Code.FORBIDDEN


def test_strangers_that_fail_do_not_fill_the_audit_log(bench: Bench) -> None:
    for _ in range(50):
        start_and_fail(bench)
    assert bench.service.counters.failed == 50
    (entry,) = bench.ended
    assert (entry.subject, entry.outcome, entry.detail) == (
        "192.0.2.9",
        Outcome.REFUSED,
        "no proposal was chosen",
    )


def test_strangers_with_many_addresses_get_a_bounded_number_of_audit_entries(bench: Bench) -> None:
    for number in range(4 * MAXIMUM_STRANGERS):
        start_and_fail(bench, peer_address=f"10.0.{number // 250}.{number % 250}")
    assert len(bench.ended) == MAXIMUM_STRANGERS + 1
    assert (bench.ended[-1].subject, bench.ended[-1].detail) == ("", MANY_STRANGERS)
    bench.now += REFUSAL_WINDOW
    start_and_fail(bench)
    assert bench.ended[-1].subject == "192.0.2.9"


def test_strangers_with_many_names_get_a_bounded_number_of_audit_entries(bench: Bench) -> None:
    for number in range(2 * MAXIMUM_STRANGERS):
        bench.authority.answers[ike.IkeAuthenticateRequest] = Verdict(
            authentic=False, allowed=False, reason=f"{number} is not known", fault=Fault.UNKNOWN_ISSUER
        )
        bench.ask(bench.ask(b"", START, KEYS).token, *PROOF)
    assert bench.service.counters.rejected == 2 * MAXIMUM_STRANGERS
    assert len(bench.ended) == MAXIMUM_STRANGERS + 1


def test_authentic_peer_that_is_not_allowed_is_audited_every_time(bench: Bench) -> None:
    bench.authority.answers[ike.IkeAuthenticateRequest] = DENIED
    for _ in range(3):
        bench.ask(bench.ask(b"", START, KEYS).token, *PROOF)
    assert len(bench.ended) == 3


def test_failure_of_what_the_terminal_itself_began_is_audited_every_time(bench: Bench) -> None:
    for _ in range(3):
        start_and_fail(bench, initiator=True)
    assert len(bench.ended) == 3
