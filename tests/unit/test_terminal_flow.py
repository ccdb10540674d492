"""The monitor of figs 4 and 5 (A1, A2): what it lets pass, what it takes for a malfunction, what it tells."""

from __future__ import annotations

import pytest

from locum.errors import Unauthenticated, Unavailable
from locum.handshake import Fault, PeerChain, Request, Response, Verdict
from locum.terminal.cipher_keys import CipherKeyDatabase, KeyOrigin
from locum.terminal.flow import MAXIMUM_OPERATIONS, Flow, Malfunction, Stage
from locum.terminal.steps import Actor, Cost, StepName, TerminalStep
from locum.tls.operations import (
    AuthenticateRequest,
    ClientCertificateRequest,
    ClientCertificateResponse,
    ClientKeyExchangeRequest,
    ClientKeyExchangeResponse,
    ClientSignatureRequest,
    ClientSignatureResponse,
    HandshakeSecretsRequest,
    HandshakeSecretsResponse,
    KeyBlockResponse,
    KeyForm,
    KeyShareRequest,
    KeyShareResponse,
    MasterSecretRequest,
    MasterSecretResponse,
    ServerFinishedRequest,
    ServerFinishedResponse,
    SessionKeysRequest,
    SharedSecretRequest,
    SharedSecretResponse,
    StartRequest,
    StartResponse,
)
from locum.tls.registry import NamedGroup, ProtocolVersion

DELEGATE = "coap://192.0.2.1:5683"
PEER = "peer.example.com:443"
SECRET = b"this must never be shown to anybody"

START = StartRequest(versions=(0x0304,), cipher_suites=(0x1301,), server_name="peer.example.com")
RESUME = StartRequest(versions=(0x0304,), cipher_suites=(0x1301,), server_name="peer.example.com", resumption=True)
STARTED = StartResponse(
    versions=(0x0304,),
    cipher_suites=(0x1301,),
    groups=(0x1D,),
    signature_schemes=(0x0403,),
    key_share_group=NamedGroup.X25519,
    key_share=bytes(32),
    key_form=KeyForm.SECRET,
)
GENERATE = HandshakeSecretsRequest(cipher_suite=0x1301, group=0x1D, key_share=bytes(32), transcript_hash=bytes(32))
GENERATED = HandshakeSecretsResponse(client_secret=SECRET, server_secret=SECRET)
AUTHENTICATE = AuthenticateRequest(version=0x0304, cipher_suite=0x1301, chain=PeerChain((b"",)), scheme=0x0403)
ACCEPTED = Verdict(authentic=True, allowed=True, identity="dns:peer.example.com")
FORGED = Verdict(authentic=False, allowed=False, reason="the signature is wrong", fault=Fault.BAD_SIGNATURE)
DENIED = Verdict(
    authentic=True, allowed=False, identity="dns:peer.example.com", reason="no rule allows it", fault=Fault.POLICY
)
KEY = MasterSecretRequest()
MASTER_SECRET = MasterSecretResponse(secret=SECRET)


class Observed:
    """A flow, its cipher-key database, and everything the observer was told."""

    def __init__(self, *, secure: bool = False, channel_key: bool = True) -> None:
        self.steps: list[TerminalStep] = []
        self.keys: CipherKeyDatabase[object] = CipherKeyDatabase()
        self.flow = Flow(peer=PEER, observer=self.steps.append)
        if channel_key:
            self.keys.set_channel_key(DELEGATE, object())
        self.secure = secure

    def path(self) -> Observed:
        self.flow.path(DELEGATE, secure=self.secure, keys=self.keys)
        return self

    def exchange(self, *pairs: tuple[Request, Response]) -> Observed:
        """One message with these requests, and its answer."""
        requests, responses = zip(*pairs, strict=True)
        self.flow.ask(requests)
        self.flow.answered(requests, responses, cost=Cost(bytes_out=100, bytes_in=50, seconds=0.5))
        return self

    def complete(self, *, resumed: bool = False) -> KeyOrigin:
        return self.flow.complete(object(), keys=self.keys, resumed=resumed, now=1.0).origin

    @property
    def names(self) -> list[StepName]:
        return [step.operation for step in self.steps]


def in_exchange(**options: bool) -> Observed:
    return Observed(**options).path().exchange((START, STARTED))


def with_key() -> Observed:
    """All of TLS 1.3's operations."""
    generated = in_exchange().exchange((GENERATE, GENERATED))
    return generated.exchange((AUTHENTICATE, ACCEPTED), (KEY, MASTER_SECRET))


def test_tls13_goes_through_the_boxes_in_the_order_of_the_figures() -> None:
    observed = (
        in_exchange().exchange((GENERATE, GENERATED)).exchange((AUTHENTICATE, ACCEPTED), (KEY, MASTER_SECRET))
    )
    assert observed.complete() is KeyOrigin.DERIVED
    assert observed.names == [
        StepName.SECURE_PATH,
        StepName.CHANNEL_KEY,
        StepName.START,
        StepName.GENERATE_KEY,
        StepName.AUTHENTICATE,
        StepName.REQUEST_KEY,
        StepName.DERIVE_KEY,
        StepName.STORE_KEY,
    ]
    assert observed.flow.stage is Stage.COMPLETE
    assert [key.peer for key in observed.keys.sessions()] == [PEER]


def test_a_secure_path_sets_no_channel_key() -> None:
    assert Observed(secure=True, channel_key=False).path().names == [StepName.SECURE_PATH]


def test_a_path_that_is_not_secure_is_not_used_without_its_key() -> None:
    with pytest.raises(Malfunction, match="no channel key"):
        Observed(channel_key=False).path()


def test_key_generation_and_authentication_may_come_in_either_order_and_repeat() -> None:
    client = ClientCertificateRequest(version=0x0303, schemes=(0x0403,))
    observed = (
        in_exchange()
        .exchange((KeyShareRequest(group=0x17), KeyShareResponse(key_share=bytes(65))))
        .exchange((AUTHENTICATE, ACCEPTED), (client, ClientCertificateResponse(certificates=())))
        .exchange(
            (ClientKeyExchangeRequest(cipher_suite=0xC02B), ClientKeyExchangeResponse(body=b"")),
            (
                ClientSignatureRequest(version=0x0303, content=b""),
                ClientSignatureResponse(signature=b""),
            ),
        )
        .exchange((SessionKeysRequest(extended=True, seed=b""), MASTER_SECRET))
    )
    assert observed.complete() is KeyOrigin.DERIVED


def test_a_key_block_in_the_key_response_is_taken_and_not_derived() -> None:
    block = KeyBlockResponse(key_block=SECRET, client_verify_data=bytes(12))
    observed = (
        in_exchange()
        .exchange((AUTHENTICATE, ACCEPTED), (ClientKeyExchangeRequest(cipher_suite=0xC02B), GENERATED))
        .exchange((SessionKeysRequest(extended=True, seed=b"", randoms=b"", finished_hash=b""), block))
        .exchange((ServerFinishedRequest(finished_hash=b""), ServerFinishedResponse(server_verify_data=bytes(12))))
    )
    assert observed.complete() is KeyOrigin.TAKEN
    assert observed.names[-2:] == [StepName.TAKE_KEY, StepName.STORE_KEY]


def test_a_resumed_session_has_its_information_from_the_one_before() -> None:
    shared = (SharedSecretRequest(group=0x1D, key_share=bytes(32)), SharedSecretResponse(secret=SECRET))
    observed = Observed().path().exchange((RESUME, STARTED)).exchange(shared)
    assert observed.complete(resumed=True) is KeyOrigin.DERIVED


def test_a_session_that_nobody_offered_cannot_be_resumed() -> None:
    with pytest.raises(Malfunction, match="not offered"):
        in_exchange().exchange((GENERATE, GENERATED)).complete(resumed=True)


@pytest.mark.parametrize("request_", [GENERATE, AUTHENTICATE, KEY, ClientSignatureRequest(version=0, content=b"")])
def test_nothing_comes_before_the_start(request_: Request) -> None:
    with pytest.raises(Malfunction, match="out of turn"):
        Observed().path().flow.ask((request_,))


def test_no_operation_comes_before_the_path_is_judged() -> None:
    with pytest.raises(Malfunction, match="out of turn"):
        Observed().flow.ask((START,))


def test_the_path_is_judged_once() -> None:
    with pytest.raises(Malfunction, match="path"):
        Observed().path().path()


def test_a_second_start_is_a_malfunction() -> None:
    with pytest.raises(Malfunction, match="start asked for out of turn"):
        in_exchange().flow.ask((START,))


def test_a_key_request_where_neither_operation_was_needed_is_the_malfunction_of_s18() -> None:
    observed = in_exchange()
    with pytest.raises(Malfunction, match="neither key generation nor authentication was needed"):
        observed.flow.ask((KEY,))
    assert observed.names[-1] is StepName.MALFUNCTION
    assert observed.flow.stage is Stage.FAILED


def test_no_key_is_requested_before_the_peer_was_authenticated() -> None:
    with pytest.raises(Malfunction, match="before the peer was authenticated"):
        in_exchange().exchange((GENERATE, GENERATED)).flow.ask((KEY,))


def test_no_key_is_requested_before_one_was_generated() -> None:
    with pytest.raises(Malfunction, match="before one was generated"):
        in_exchange().flow.ask((AUTHENTICATE, KEY))


@pytest.mark.parametrize("request_", [GENERATE, AUTHENTICATE, START])
def test_after_the_key_request_there_are_only_key_requests(request_: Request) -> None:
    observed = (
        in_exchange().exchange((GENERATE, GENERATED)).exchange((AUTHENTICATE, ACCEPTED), (KEY, MASTER_SECRET))
    )
    with pytest.raises(Malfunction, match="out of turn"):
        observed.flow.ask((request_,))


@pytest.mark.parametrize("verdict", [FORGED, DENIED])
def test_a_rejected_peer_gets_no_key(verdict: Verdict) -> None:
    observed = in_exchange().exchange((GENERATE, GENERATED))
    observed.flow.ask((AUTHENTICATE, KEY))
    observed.flow.answered((AUTHENTICATE, KEY), (verdict,), cost=Cost())
    observed.flow.failed(Unauthenticated("rejected"))
    assert observed.names[-2:] == [StepName.AUTHENTICATE, StepName.ERROR]
    with pytest.raises(Malfunction):
        observed.complete()
    assert observed.keys.sessions() == ()


def test_a_key_that_comes_with_a_rejection_is_a_malfunction() -> None:
    observed = in_exchange().exchange((GENERATE, GENERATED))
    with pytest.raises(Malfunction, match="follows the rejection"):
        observed.exchange((AUTHENTICATE, FORGED), (KEY, MASTER_SECRET))


@pytest.mark.parametrize(
    ("request_", "response"), [(AUTHENTICATE, GENERATED), (GENERATE, ACCEPTED), (AUTHENTICATE, MASTER_SECRET)]
)
def test_a_verdict_answers_an_authentication_and_nothing_else(request_: Request, response: Response) -> None:
    with pytest.raises(Malfunction, match="a verdict"):
        in_exchange().exchange((request_, response))


@pytest.mark.parametrize("responses", [(), (GENERATED, GENERATED)])
def test_every_operation_has_one_answer(responses: tuple[Response, ...]) -> None:
    observed = in_exchange()
    observed.flow.ask((GENERATE,))
    with pytest.raises(Malfunction, match=f"{len(responses)} answers to 1 operations"):
        observed.flow.answered((GENERATE,), responses, cost=Cost())


def test_a_handshake_does_not_end_without_a_key() -> None:
    with pytest.raises(Malfunction, match="without a key"):
        in_exchange().exchange((GENERATE, GENERATED)).complete()


def test_the_loop_of_the_figures_is_bounded() -> None:
    observed = in_exchange()
    for _ in range(MAXIMUM_OPERATIONS - 1):
        observed.exchange((GENERATE, GENERATED))
    with pytest.raises(Malfunction, match="more than"):
        observed.flow.ask((GENERATE,))


def test_the_cost_of_a_message_is_told_once() -> None:
    observed = (
        in_exchange().exchange((GENERATE, GENERATED)).exchange((AUTHENTICATE, ACCEPTED), (KEY, MASTER_SECRET))
    )
    costs = [(step.bytes_out, step.bytes_in) for step in observed.steps if step.actor is Actor.DELEGATE]
    assert costs == [(100, 50), (100, 50), (100, 50), (0, 0)]


def test_no_step_tells_a_secret() -> None:
    observed = (
        in_exchange().exchange((GENERATE, GENERATED)).exchange((AUTHENTICATE, ACCEPTED), (KEY, MASTER_SECRET))
    )
    observed.complete()
    observed.flow.failed(Unavailable("gone"))
    assert SECRET.decode() not in repr(observed.steps)
    assert SECRET.decode() not in repr(observed.keys) + repr(observed.keys.sessions())


def test_versions_that_are_not_known_are_named_by_their_code() -> None:
    from locum.terminal.steps import suite_name, version_name

    assert version_name(ProtocolVersion.TLS_1_2) == "TLS 1.2"
    assert version_name(0x0305) == "0x0305"
    assert suite_name(0x1301) == "TLS_AES_128_GCM_SHA256"
    assert suite_name(0xFFFF) == "0xffff"
