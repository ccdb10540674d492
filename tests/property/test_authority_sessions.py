"""Every operation at every state of a session: typed errors only, and no key without a verdict."""

import dataclasses
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import pki
from tests.support.exchange import (
    ALLOW_ALL,
    ECDHE_ECDSA,
    EXTENDED_KEYS,
    FULL_KEYS,
    RANDOMS,
    RSA,
    START,
    TERMINAL,
    TLS_AES_128_GCM_SHA256,
    TRANSCRIPT_HASH,
    authenticate12,
    authenticate13,
    authenticate_rsa,
    authority,
    ecdh_parameters,
    identity,
    start12,
    told12,
)

from locum.authority.databases import Action, PolicyRule
from locum.errors import LocumError, Refused
from locum.handshake import Request, Response, Verdict
from locum.tls.operations import (
    ClientCertificateRequest,
    ClientKeyExchangeRequest,
    ClientKeyExchangeResponse,
    ClientSignatureRequest,
    ClientSignatureResponse,
    HandshakeSecretsRequest,
    KeyBlockResponse,
    KeyForm,
    KeyShareRequest,
    MasterSecretRequest,
    MasterSecretResponse,
    ServerFinishedRequest,
    ServerFinishedResponse,
    SessionKeysRequest,
    SharedSecretRequest,
    SharedSecretResponse,
    StartRequest,
)
from locum.tls.registry import NamedGroup, ProtocolVersion, SignatureScheme

LEAF, RSA_LEAF, STRANGER = pki.leaf(pki.ca()), pki.leaf(pki.ca(), "rsa"), pki.leaf(pki.ca(name="Unknown"))
PARAMETERS = ecdh_parameters()
SHARE = PARAMETERS[4:]
SCHEMES = tuple(int(scheme) for scheme in SignatureScheme)
TLS_1_3, TLS_1_2 = ProtocolVersion.TLS_1_3, ProtocolVersion.TLS_1_2

POOL: tuple[Request, ...] = (
    START,
    start12(),
    start12(key_forms=(KeyForm.KEYS,)),
    dataclasses.replace(START, resumption=True),
    dataclasses.replace(START, server_name="denied.example.com"),
    KeyShareRequest(group=NamedGroup.SECP256R1),
    HandshakeSecretsRequest(
        cipher_suite=TLS_AES_128_GCM_SHA256,
        group=NamedGroup.X25519,
        key_share=SHARE,
        transcript_hash=TRANSCRIPT_HASH,
    ),
    SharedSecretRequest(group=NamedGroup.X25519, key_share=SHARE),
    authenticate13(LEAF),
    authenticate13(STRANGER),
    authenticate13(LEAF, signature=b"forged"),
    authenticate12(LEAF, PARAMETERS),
    authenticate_rsa(RSA_LEAF),
    ClientKeyExchangeRequest(cipher_suite=ECDHE_ECDSA, parameters=PARAMETERS),
    ClientKeyExchangeRequest(cipher_suite=RSA),
    ClientCertificateRequest(version=TLS_1_3, schemes=SCHEMES),
    ClientCertificateRequest(version=TLS_1_2, schemes=SCHEMES),
    ClientSignatureRequest(version=TLS_1_3, content=TRANSCRIPT_HASH),
    ClientSignatureRequest(version=TLS_1_2, content=b"".join(told12())),
    MasterSecretRequest(),
    EXTENDED_KEYS,
    FULL_KEYS,
    SessionKeysRequest(extended=False, seed=RANDOMS),
    ServerFinishedRequest(finished_hash=TRANSCRIPT_HASH),
)
#: What a session gives away only after an accepted verdict.
GUARDED = (
    ClientKeyExchangeResponse,
    ClientSignatureResponse,
    MasterSecretResponse,
    KeyBlockResponse,
    ServerFinishedResponse,
)
DELEGATE = authority(
    identities=(identity(),),
    policy=(*ALLOW_ALL, PolicyRule(terminal="*", peer="dns:denied.example.com", action=Action.DENY)),
)


def flow(*indexes: int) -> list[Request]:
    return [POOL[index] for index in indexes]


#: Handshakes that work, so that random walks begin deep inside one.
FLOWS = (
    flow(0, 6, 8, 15, 17, 19),
    flow(3, 7),
    flow(1, 11, 16, 13, 18, 20),
    flow(2, 11, 13, 21, 23),
    flow(1, 12, 14, 20),
)


def test_every_flow_works_by_itself() -> None:
    for requests in FLOWS:
        responses = DELEGATE.open(TERMINAL).perform(requests)
        assert len(responses) == len(requests)


@st.composite
def walks(draw: st.DrawFn) -> list[Request]:
    """A good beginning, then anything; or a good handshake with one request put in or left out."""
    requests = list(draw(st.sampled_from(FLOWS)))
    if draw(st.booleans()):
        kept = requests[: draw(st.integers(0, len(requests)))]
        return kept + draw(st.lists(st.sampled_from(POOL), max_size=6))
    position = draw(st.integers(0, len(requests)))
    requests[position : position + draw(st.integers(0, 1))] = draw(st.lists(st.sampled_from(POOL), max_size=1))
    return requests


@settings(max_examples=200)
@given(walks())
def test_no_order_of_operations_gets_a_key_without_a_verdict(requests: list[Request]) -> None:
    session = DELEGATE.open(TERMINAL)
    start: StartRequest | None = None
    accepted = ended = False
    for request in requests:
        try:
            (response,) = session.perform([request])
        except LocumError as error:
            if ended:
                assert isinstance(error, Refused)
            ended = True
            continue
        assert not ended
        start = request if isinstance(request, StartRequest) else start
        accepted = accepted or (isinstance(response, Verdict) and response.accepted)
        assert accepted or not isinstance(response, GUARDED)
        if isinstance(response, SharedSecretResponse):
            assert start is not None
            assert start.resumption
        ended = _is_last(response)


def _is_last(response: Response) -> bool:
    last = (MasterSecretResponse, SharedSecretResponse, ServerFinishedResponse)
    return isinstance(response, last) or (isinstance(response, Verdict) and not response.accepted)


def _damaged(request: Request) -> st.SearchStrategy[Request]:
    """The request with one of its fields replaced by another value of its type."""

    @st.composite
    def build(draw: st.DrawFn) -> Request:
        fields = dataclasses.fields(request)
        if not fields:
            return request
        field = draw(st.sampled_from(fields))
        value: Any = getattr(request, field.name)
        match value:
            case bool():
                value = not value
            case int():
                value = draw(st.integers(0, 0xFFFF))
            case bytes():
                value = draw(st.binary(max_size=100))
            case str():
                value = draw(st.text(max_size=30))
            case tuple():
                value = ()
        return dataclasses.replace(request, **{field.name: value})

    return build()


@settings(max_examples=200)
@given(st.data())
def test_damaged_operation_is_a_typed_error_or_does_no_harm(data: st.DataObject) -> None:
    requests = data.draw(st.sampled_from(FLOWS))
    position = data.draw(st.integers(0, len(requests) - 1))
    session = DELEGATE.open(TERMINAL)
    session.perform(requests[:position])
    try:
        session.perform([data.draw(_damaged(requests[position]))])
        session.perform(requests[position + 1 :])
    except LocumError as error:
        assert "\n" not in str(error)
        assert str(error)
