"""The monitor of figs 4 and 5 over arbitrary sequences: what it lets complete has gone through every box."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from locum.handshake import Fault, PeerChain, Request, Response, Verdict
from locum.terminal.cipher_keys import CipherKeyDatabase
from locum.terminal.flow import Flow, Malfunction, Stage
from locum.terminal.steps import Cost
from locum.tls.operations import (
    AuthenticateRequest,
    ClientCertificateRequest,
    ClientCertificateResponse,
    HandshakeSecretsRequest,
    HandshakeSecretsResponse,
    KeyForm,
    MasterSecretRequest,
    MasterSecretResponse,
    StartRequest,
    StartResponse,
)

START: Request = StartRequest(versions=(), cipher_suites=(), server_name="x")
GENERATE: Request = HandshakeSecretsRequest(cipher_suite=0, group=0, key_share=b"", transcript_hash=b"")
AUTHENTICATE: Request = AuthenticateRequest(version=0, cipher_suite=0, chain=PeerChain(()), scheme=0)
CERTIFICATE: Request = ClientCertificateRequest(version=0, schemes=())
KEY: Request = MasterSecretRequest()
REQUESTS = (START, GENERATE, AUTHENTICATE, CERTIFICATE, KEY)

RESPONSES: tuple[Response, ...] = (
    StartResponse(
        versions=(),
        cipher_suites=(),
        groups=(),
        signature_schemes=(),
        key_share_group=0,
        key_share=b"",
        key_form=KeyForm.SECRET,
    ),
    HandshakeSecretsResponse(client_secret=b"", server_secret=b""),
    Verdict(authentic=True, allowed=True, identity="dns:x"),
    Verdict(authentic=False, allowed=False, reason="no", fault=Fault.BAD_SIGNATURE),
    Verdict(authentic=True, allowed=False, reason="no", fault=Fault.POLICY),
    ClientCertificateResponse(certificates=()),
    MasterSecretResponse(secret=b""),
)

#: Operations with the answers they hope for; sequences of these get further than random ones.
HOPEFUL = tuple(
    ([request], [response]) for request, response in zip(REQUESTS, (*RESPONSES[:3], *RESPONSES[5:]), strict=True)
)

messages = st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=3)
answers = st.lists(st.sampled_from(RESPONSES), max_size=4)


random_exchanges = st.lists(st.tuples(messages, answers), max_size=8)
hopeful = st.lists(st.sampled_from(HOPEFUL), min_size=2, max_size=6)
hopeful_exchanges = hopeful.map(lambda rest: [HOPEFUL[0], *rest])


@given(st.one_of(random_exchanges, hopeful_exchanges), st.booleans())
def test_no_sequence_of_operations_and_answers_gets_a_key_past_the_figures(
    exchanges: list[tuple[list[Request], list[Response]]], resumed: bool
) -> None:
    keys: CipherKeyDatabase[object] = CipherKeyDatabase()
    flow = Flow(peer="x:1")
    flow.path("local", secure=True, keys=keys)
    asked: list[Request] = []
    answered: list[Response] = []
    try:
        for requests, responses in exchanges:
            flow.ask(requests)
            asked += requests
            flow.answered(requests, responses, cost=Cost())
            answered += responses
        flow.complete(object(), keys=keys, resumed=resumed, now=0.0)
    except Malfunction:
        assert keys.sessions() == ()
        return
    # It may only have come so far along the arrows of the figures.
    assert asked[0] is START
    assert asked.count(START) == 1
    assert len(answered) == len(asked)
    assert GENERATE in asked
    assert KEY in asked
    assert AUTHENTICATE in asked
    assert asked[asked.index(KEY) :].count(KEY) == len(asked) - asked.index(KEY)
    verdicts = [response for response in answered if isinstance(response, Verdict)]
    assert verdicts
    assert all(verdict.accepted for verdict in verdicts)
    assert len(keys.sessions()) == 1


@given(st.lists(messages, max_size=6))
def test_a_failed_flow_never_goes_on(sequence: list[list[Request]]) -> None:
    keys: CipherKeyDatabase[object] = CipherKeyDatabase()
    flow = Flow(peer="x:1")
    flow.path("local", secure=True, keys=keys)
    with contextlib.suppress(Malfunction):
        flow.ask((KEY,))
    assert flow.stage is Stage.FAILED
    for requests in sequence:
        try:
            flow.ask(requests)
        except Malfunction:
            continue
        raise AssertionError("went on")
