"""The delegate's flow (A3, figs 8 and 9): every message has its answer, and nobody pays for another's mistakes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import cbor2
import pytest
from tests.support.delegate_bench import (
    ACCEPTED,
    AUTHENTICATE,
    CHAIN,
    DENIED,
    KEYS,
    MASTER,
    SECRET,
    START,
    Bench,
    ScriptedSession,
)

from locum.authority.chains import MAX_BYTES
from locum.authority.databases import Action, PolicyRule, TrustMaterial
from locum.authority.local import LocalAuthority
from locum.authority.messages import encode_requests
from locum.authority.remote import PATH
from locum.delegate.journal import REFUSAL_ACTION, REFUSAL_WINDOW, SESSION_ACTION
from locum.delegate.limits import RateLimits
from locum.delegate.service import EFFORT_OF_A_REQUEST
from locum.delegate.sessions import SessionLimits
from locum.errors import DecodeError, Refused, Unavailable
from locum.handshake import MAX_CHAIN, Fault, PeerChain, Request, Response, Verdict
from locum.link.coap import Code
from locum.store.records import Outcome
from locum.tls.operations import (
    AuthenticateRequest,
    HandshakeSecretsRequest,
    HandshakeSecretsResponse,
    KeyShareRequest,
    MasterSecretResponse,
    SharedSecretRequest,
    SharedSecretResponse,
    StartResponse,
)
from locum.tls.registry import NamedGroup


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_handshake_takes_three_messages_and_is_wiped_when_its_key_is_handed_over(bench: Bench) -> None:
    token = bench.start()
    (keys,) = bench.ask(token, KEYS).responses
    assert isinstance(keys, HandshakeSecretsResponse)
    verdict, master = bench.ask(token, AUTHENTICATE, MASTER).responses
    assert verdict == ACCEPTED
    assert master == MasterSecretResponse(secret=SECRET)
    assert bench.authority.opened[0].closed
    assert len(bench.service.sessions) == 0
    (entry,) = bench.audited
    assert (entry.actor, entry.action, entry.subject, entry.outcome) == (
        "terminal:meter",
        SESSION_ACTION,
        "peer.example",
        Outcome.OK,
    )
    assert "dns:peer.example" in entry.detail


def test_one_message_can_carry_all_operations_that_need_no_answer_before_them(bench: Bench) -> None:
    answer = bench.ask(b"", START, SharedSecretRequest(group=29, key_share=bytes(32)))
    assert [type(response) for response in answer.responses] == [StartResponse, SharedSecretResponse]
    assert bench.authority.opened[0].closed


def test_a_session_that_is_over_answers_like_one_that_never_was(bench: Bench) -> None:
    token = bench.start()
    bench.ask(token, AUTHENTICATE, MASTER)
    after = bench.post(encode_requests(token, (KEYS,)))
    never = bench.post(encode_requests(b"\xff" * 8, (KEYS,)))
    assert after.code == Code.NOT_FOUND
    assert (after.code, after.payload) == (never.code, never.payload)


def test_another_terminals_token_answers_like_an_unknown_one_and_leaves_its_session_alone(bench: Bench) -> None:
    token = bench.start("meter")
    foreign = bench.post(encode_requests(token, (KEYS,)), "thief")
    unknown = bench.post(encode_requests(b"\xff" * 8, (KEYS,)), "thief")
    assert foreign.code == Code.NOT_FOUND
    assert (foreign.code, foreign.payload) == (unknown.code, unknown.payload)
    closing = bench.post(encode_requests(token, ()), "thief")
    assert (closing.code, closing.payload) == (foreign.code, foreign.payload)
    bench.ask(token, KEYS)


def test_an_expired_session_is_wiped_without_anybody_asking(bench: Bench) -> None:
    token = bench.start()
    bench.now += 59.9
    bench.service.expire(now=bench.now)
    assert not bench.authority.opened[0].closed
    bench.now += 0.2
    bench.service.expire(now=bench.now)
    assert bench.authority.opened[0].closed
    assert bench.post(encode_requests(token, (KEYS,))).code == Code.NOT_FOUND
    (entry,) = bench.ended
    assert (entry.outcome, entry.detail) == (Outcome.FAILED, "not completed in time")


def test_the_terminal_can_end_its_session(bench: Bench) -> None:
    token = bench.start()
    answer = bench.post(encode_requests(token, ()))
    assert (answer.code, answer.payload) == (Code.CHANGED, cbor2.dumps([]))
    assert bench.authority.opened[0].closed
    assert bench.post(encode_requests(token, (KEYS,))).code == Code.NOT_FOUND


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("empty", b""),
        ("not CBOR", b"\xff\xff\xff"),
        ("truncated", encode_requests(b"", (START,))[:-1]),
        ("trailing bytes", encode_requests(b"", (START,)) + b"\x00"),
        ("a map", cbor2.dumps({0: 1})),
        ("an empty array", cbor2.dumps([])),
        ("unknown operation", cbor2.dumps([{0: 77}])),
        ("unknown operation in a session", None),
        ("unknown key", cbor2.dumps([{0: 9, 99: 1}])),
        ("token of the wrong length", cbor2.dumps([b"1234", {0: 9}])),
        ("two starts", encode_requests(b"", (START, START))),
        ("no start", encode_requests(b"", (KEYS,))),
        ("start with a token", None),
        ("too many requests", cbor2.dumps([bytes(8)] + [{0: 9}] * 9)),
        ("deeply nested", b"\x81" * 5000 + b"\x00"),
        ("huge", cbor2.dumps([bytes(8), bytes(1 << 18)])),
        ("text for bytes", cbor2.dumps(["token", {0: 9}])),
        ("a tag", b"\x81\xd8\x1e\x82\x01\x02"),
        ("indefinite length", b"\x9f\xa1\x00\x09\xff"),
    ],
)
def test_what_is_unknown_or_malformed_is_discarded_and_touches_no_session(
    bench: Bench, name: str, payload: bytes | None
) -> None:
    token = bench.start()
    other = bench.start("other")
    if payload is None:
        payload = cbor2.dumps([token, {0: 77}]) if "unknown" in name else encode_requests(token, (START,))
    answer = bench.post(payload)
    assert answer.code == Code.BAD_REQUEST
    assert isinstance(bench.error(answer), Refused)
    assert len(bench.authority.opened) == 2
    assert bench.ask(token, KEYS).responses
    assert bench.ask(other, KEYS, terminal="other").responses


@pytest.mark.parametrize("path", ["", "/", "/kx/1", "/KX", "/kx/", "kx", "/.well-known/core", "/../kx"])
def test_another_path_is_not_found(bench: Bench, path: str) -> None:
    assert bench.post(encode_requests(b"", (START,)), path=path).code == Code.NOT_FOUND
    assert bench.authority.opened == []


@pytest.mark.parametrize("split", [False, True], ids=["in one message", "in two messages"])
def test_an_operation_is_performed_once_and_the_second_time_ends_the_session(split: bool) -> None:
    everybody = PolicyRule(terminal="*", peer="*", action=Action.ALLOW)
    bench = Bench(
        authority=LocalAuthority(trust=TrustMaterial(), policy=(everybody,), now=lambda: 1.7e9),
    )
    token = bench.start()
    again = KeyShareRequest(group=NamedGroup.SECP256R1)
    if split:
        bench.ask(token, again)
    answer = bench.post(encode_requests(token, (again,) if split else (again, again)))
    assert answer.code == Code.FORBIDDEN
    assert "before" in str(bench.error(answer))
    assert len(bench.service.sessions) == 0
    assert bench.post(encode_requests(token, (MASTER,))).code == Code.NOT_FOUND


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        (Refused("the transcript does not fit"), Code.FORBIDDEN, Outcome.REFUSED),
        (DecodeError("the share has 31 bytes"), Code.FORBIDDEN, Outcome.FAILED),
        (Unavailable("the key server is away"), Code.SERVICE_UNAVAILABLE, Outcome.FAILED),
    ],
)
def test_a_failed_operation_ends_its_session_and_no_other(
    bench: Bench, error: Exception, code: Code, outcome: Outcome
) -> None:
    other = bench.start("other")
    token = bench.start()
    bench.authority.answers[HandshakeSecretsRequest] = error
    answer = bench.post(encode_requests(token, (KEYS,)))
    assert answer.code == code
    assert type(bench.error(answer)) is type(error)
    assert str(bench.error(answer)) == str(error)
    assert [session.closed for session in bench.authority.opened] == [False, True]
    assert bench.post(encode_requests(token, (MASTER,))).code == Code.NOT_FOUND
    assert [(entry.outcome, entry.detail) for entry in bench.ended] == [(outcome, str(error))]
    bench.ask(other, AUTHENTICATE, terminal="other")


def test_a_defect_costs_one_session_and_tells_no_secret(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    other = bench.start("other")
    token = bench.start()
    bench.authority.answers[HandshakeSecretsRequest] = ZeroDivisionError(SECRET.decode())
    with caplog.at_level(logging.DEBUG):
        answer = bench.post(encode_requests(token, (KEYS,)))
    assert answer.code == Code.INTERNAL_SERVER_ERROR
    assert isinstance(bench.error(answer), Unavailable)
    assert bench.authority.opened[1].closed
    (record,) = caplog.records
    assert vars(record)["kind"] == "ZeroDivisionError"
    assert "delegate_bench.py" in vars(record)["where"]
    everything = repr([vars(record), bench.audited, answer])
    assert SECRET.decode() not in everything
    bench.ask(other, AUTHENTICATE, terminal="other")


def test_a_peer_that_is_not_accepted_ends_the_session_with_both_verdicts(bench: Bench) -> None:
    token = bench.start()
    bench.authority.answers[AuthenticateRequest] = DENIED
    assert bench.ask(token, AUTHENTICATE, MASTER).responses == (DENIED,)
    assert bench.authority.opened[0].closed
    (entry,) = bench.audited
    assert entry.outcome is Outcome.REFUSED
    assert "authentic=yes allowed=no: no rule allows it" in entry.detail


def test_a_chain_is_asked_for_once_and_then_known_by_its_digest_to_all_terminals(bench: Bench) -> None:
    token = bench.start()
    answer = bench.ask(token, AUTHENTICATE, MASTER, with_chain=False)
    assert answer.chain_wanted
    assert bench.authority.opened[0].performed == [START], "nothing may be performed before the chain is there"
    assert len(bench.ask(token, AUTHENTICATE, MASTER).responses) == 2
    other = bench.start("other")
    assert len(bench.ask(other, AUTHENTICATE, MASTER, terminal="other", with_chain=False).responses) == 2


def test_a_terminal_that_floods_with_chains_leaves_those_of_others_alone(bench: Bench) -> None:
    bench.ask(bench.start("other"), AUTHENTICATE, terminal="other")
    for number in range(2 * MAX_BYTES // MAX_CHAIN):
        padding = number.to_bytes(2, "big") + bytes(MAX_CHAIN - 1000)
        chain = PeerChain((*CHAIN.certificates, padding))
        bench.ask(bench.start(), dataclasses.replace(AUTHENTICATE, chain=chain))
    assert not bench.ask(bench.start("other"), AUTHENTICATE, terminal="other", with_chain=False).chain_wanted


def test_a_chain_that_was_not_authentic_is_not_kept(bench: Bench) -> None:
    bench.authority.answers[AuthenticateRequest] = Verdict(
        authentic=False, allowed=False, reason="expired", fault=Fault.EXPIRED
    )
    bench.ask(bench.start(), AUTHENTICATE)
    assert bench.ask(bench.start(), AUTHENTICATE, with_chain=False).chain_wanted


def test_an_unknown_session_learns_nothing_about_chains(bench: Bench) -> None:
    answer = bench.post(encode_requests(b"\xff" * 8, (AUTHENTICATE,)))
    assert answer.code == Code.NOT_FOUND


def test_a_flood_is_limited_while_another_terminal_is_served() -> None:
    bench = Bench(rate_limits=RateLimits(rate=10.0, burst=5.0))
    start = encode_requests(b"", (START,))
    codes = [bench.post(start, "flood").code for _ in range(200)]
    assert codes[:5] == [Code.CHANGED] * 5
    assert set(codes[5:]) == {Code.TOO_MANY_REQUESTS}
    limited = bench.post(start, "flood")
    assert isinstance(bench.error(limited), Unavailable)
    assert "try again in 1 s" in str(bench.error(limited))
    token = bench.start("meter")
    bench.ask(token, AUTHENTICATE, MASTER)
    bench.now += 1.0
    assert bench.post(start, "flood").code == Code.CHANGED
    refusals = [entry for entry in bench.audited if entry.action == REFUSAL_ACTION]
    assert len(refusals) == 1, "a flood must not fill the audit log"


def test_a_request_that_takes_long_counts_as_several() -> None:
    """A terminal must not keep everybody waiting with certificates that are hard to validate."""
    bench = Bench(rate_limits=RateLimits(rate=10.0, burst=5.0))
    perform = ScriptedSession.perform

    class Laborious(ScriptedSession):
        def perform(self, requests: Sequence[Request]) -> tuple[Response, ...]:
            bench.effort += 9 * EFFORT_OF_A_REQUEST
            return perform(self, requests)

    bench.authority.session = Laborious
    start = encode_requests(b"", (START,))
    assert bench.post(start, "heavy").code == Code.CHANGED
    assert bench.post(start, "heavy").code == Code.TOO_MANY_REQUESTS
    assert bench.post(start, "meter").code == Code.CHANGED
    bench.now += 0.45
    assert bench.post(start, "heavy").code == Code.TOO_MANY_REQUESTS
    bench.now += 0.1
    assert bench.post(start, "heavy").code == Code.CHANGED


def test_repeated_refusals_are_counted_and_the_number_is_audited_later(bench: Bench) -> None:
    for _ in range(4):
        bench.post(b"\xff")
    bench.now += REFUSAL_WINDOW
    bench.post(b"\xff")
    assert [entry.detail for entry in bench.audited] == ["malformed message", "malformed message; 3 more before"]


def test_a_terminal_with_too_many_sessions_loses_its_own_oldest() -> None:
    bench = Bench(session_limits=SessionLimits(per_terminal=2))
    other = bench.start("other")
    first, second, third = (bench.start() for _ in range(3))
    assert bench.post(encode_requests(first, (KEYS,))).code == Code.NOT_FOUND
    assert [session.closed for session in bench.authority.opened] == [False, True, False, False]
    for token in (second, third):
        bench.ask(token, KEYS)
    bench.ask(other, KEYS, terminal="other")


def test_a_full_table_refuses_newcomers_with_a_try_again() -> None:
    bench = Bench(session_limits=SessionLimits(overall=2))
    bench.start("a")
    bench.start("b")
    answer = bench.post(encode_requests(b"", (START,)), "c")
    assert answer.code == Code.SERVICE_UNAVAILABLE
    assert isinstance(bench.error(answer), Unavailable)
    assert len(bench.authority.opened) == 2
    bench.now += 61.0
    bench.start("c")


def test_a_terminal_that_is_not_served_is_refused_even_in_the_middle_of_a_session() -> None:
    served = {"meter"}
    bench = Bench(serves=lambda terminal, plain: terminal in served and not plain)
    token = bench.start()
    served.clear()
    answer = bench.post(encode_requests(token, (KEYS,)))
    assert answer.code == Code.UNAUTHORIZED
    assert bench.authority.opened[0].performed == [START]


def test_a_name_claimed_on_the_secure_path_is_not_audited_unless_it_is_enrolled() -> None:
    bench = Bench(serves=lambda terminal, plain: False)
    for number in range(50):
        bench.service.handle(f"invented-{number}", PATH, b"", now=bench.now, plain=True)
    assert len(bench.audited) == 1
    assert "invented" not in repr(bench.audited)


def test_a_name_claimed_on_the_secure_path_shares_nothing_with_the_terminal_that_proves_it() -> None:
    bench = Bench(rate_limits=RateLimits(rate=1.0, burst=4.0), session_limits=SessionLimits(per_terminal=1))
    token = bench.start("meter")
    claimed = bench.post(encode_requests(token, (KEYS,)), "meter", plain=True)
    assert claimed.code == Code.NOT_FOUND
    for _ in range(10):
        bench.post(encode_requests(b"", (START,)), "meter", plain=True)
    bench.ask(token, KEYS)
    assert {entry.actor for entry in bench.audited} == {"terminal:meter (secure path)"}


def test_a_node_that_is_ending_finishes_sessions_and_opens_none(bench: Bench) -> None:
    token = bench.start()
    bench.service.end_sessions()
    answer = bench.post(encode_requests(b"", (START,)))
    assert answer.code == Code.SERVICE_UNAVAILABLE
    assert isinstance(bench.error(answer), Unavailable)
    assert bench.ask(token, AUTHENTICATE, MASTER).responses


def test_outdated_databases_open_no_session_until_they_are_read_again(bench: Bench) -> None:
    token = bench.start()
    bench.service.suspend(True)
    answer = bench.post(encode_requests(b"", (START,)))
    assert answer.code == Code.SERVICE_UNAVAILABLE
    assert isinstance(bench.error(answer), Unavailable)
    assert bench.ask(token, AUTHENTICATE, MASTER).responses
    bench.service.suspend(False)
    bench.start()
    bench.service.end_sessions()
    bench.service.suspend(False)
    assert bench.post(encode_requests(b"", (START,))).code == Code.SERVICE_UNAVAILABLE


def test_closing_wipes_every_session_that_is_left(bench: Bench) -> None:
    for terminal in ("a", "b", "b"):
        bench.start(terminal)
    bench.service.close()
    assert all(session.closed for session in bench.authority.opened)
    assert len(bench.service.sessions) == 0
    assert [entry.detail for entry in bench.audited] == ["the node was stopped"] * 3


def test_answers_and_audit_entries_show_no_secret(bench: Bench) -> None:
    token = bench.start()
    answer = bench.post(encode_requests(token, (AUTHENTICATE, MASTER), with_chain=True))
    assert SECRET in answer.payload
    assert repr(SECRET)[2:-1] not in repr(answer)
    assert repr(SECRET)[2:-1] not in repr(bench.audited)
