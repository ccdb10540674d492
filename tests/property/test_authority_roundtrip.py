"""Every message between terminal and delegate survives the wire, whatever its values."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.authority.chains import ChainCache
from locum.authority.messages import (
    _REQUESTS,
    _RESPONSES,
    TOKEN_LENGTH,
    decode_requests,
    decode_responses,
    encode_requests,
    encode_responses,
)
from locum.errors import DecodeError
from locum.handshake import Fault, PeerChain, Request, Response, Verdict
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

CODE = st.integers(0, 0xFFFF)
CODES = st.lists(CODE, max_size=40).map(tuple)
NAME = st.text(max_size=60)
SHORT = st.binary(max_size=64)
BLOB = st.binary(max_size=300)
CERTIFICATES = st.lists(st.binary(min_size=1, max_size=60), max_size=4).map(tuple)
CHAIN = st.builds(PeerChain, CERTIFICATES.filter(bool), BLOB)
FORMS = st.permutations(tuple(KeyForm)).map(tuple)
LINE = st.text(st.characters(categories=["L", "N", "P"]), max_size=80)
TOKEN = st.binary(min_size=TOKEN_LENGTH, max_size=TOKEN_LENGTH)

START = st.builds(
    StartRequest,
    versions=CODES,
    cipher_suites=CODES,
    groups=CODES,
    server_name=NAME,
    peer_address=NAME,
    key_forms=FORMS,
    resumption=st.booleans(),
)
REQUESTS: dict[type[Request], st.SearchStrategy[Any]] = {
    StartRequest: START,
    KeyShareRequest: st.builds(KeyShareRequest, group=CODE),
    HandshakeSecretsRequest: st.builds(
        HandshakeSecretsRequest, cipher_suite=CODE, group=CODE, key_share=BLOB, transcript_hash=SHORT
    ),
    SharedSecretRequest: st.builds(SharedSecretRequest, group=CODE, key_share=BLOB),
    ClientKeyExchangeRequest: st.builds(ClientKeyExchangeRequest, cipher_suite=CODE, parameters=BLOB),
    AuthenticateRequest: st.builds(
        AuthenticateRequest,
        version=CODE,
        cipher_suite=CODE,
        chain=CHAIN,
        scheme=CODE,
        signature=BLOB,
        content=BLOB,
    ),
    ClientCertificateRequest: st.builds(
        ClientCertificateRequest, version=CODE, schemes=CODES, authorities=CERTIFICATES
    ),
    ClientSignatureRequest: st.builds(ClientSignatureRequest, version=CODE, content=BLOB),
    MasterSecretRequest: st.builds(MasterSecretRequest),
    SessionKeysRequest: st.builds(
        SessionKeysRequest, extended=st.booleans(), seed=SHORT, randoms=SHORT, finished_hash=SHORT
    ),
    ServerFinishedRequest: st.builds(ServerFinishedRequest, finished_hash=SHORT),
}
RESPONSES: dict[type[Response], tuple[type[Request], st.SearchStrategy[Any]]] = {
    StartResponse: (
        StartRequest,
        st.builds(
            StartResponse,
            versions=CODES,
            cipher_suites=CODES,
            groups=CODES,
            signature_schemes=CODES,
            key_share_group=CODE,
            key_share=BLOB,
            key_form=st.sampled_from(KeyForm),
        ),
    ),
    KeyShareResponse: (KeyShareRequest, st.builds(KeyShareResponse, key_share=BLOB)),
    HandshakeSecretsResponse: (
        HandshakeSecretsRequest,
        st.builds(HandshakeSecretsResponse, client_secret=SHORT, server_secret=SHORT),
    ),
    SharedSecretResponse: (SharedSecretRequest, st.builds(SharedSecretResponse, secret=BLOB)),
    ClientKeyExchangeResponse: (ClientKeyExchangeRequest, st.builds(ClientKeyExchangeResponse, body=BLOB)),
    Verdict: (
        AuthenticateRequest,
        st.builds(
            Verdict,
            authentic=st.booleans(),
            allowed=st.booleans(),
            identity=NAME,
            reason=LINE,
            fault=st.sampled_from(Fault),
        ),
    ),
    ClientCertificateResponse: (
        ClientCertificateRequest,
        st.builds(ClientCertificateResponse, certificates=CERTIFICATES, scheme=CODE),
    ),
    ClientSignatureResponse: (ClientSignatureRequest, st.builds(ClientSignatureResponse, signature=BLOB)),
    MasterSecretResponse: (MasterSecretRequest, st.builds(MasterSecretResponse, secret=SHORT)),
    KeyBlockResponse: (
        SessionKeysRequest,
        st.builds(KeyBlockResponse, key_block=BLOB.map(lambda block: block[:128]), client_verify_data=SHORT),
    ),
    ServerFinishedResponse: (
        ServerFinishedRequest,
        st.builds(ServerFinishedResponse, server_verify_data=SHORT),
    ),
}


def test_every_message_has_a_strategy() -> None:
    assert REQUESTS.keys() == {shape.message for shape in _REQUESTS}
    assert RESPONSES.keys() == {shape.message for shape in _RESPONSES}


@pytest.mark.parametrize("kind", [kind for kind in REQUESTS if kind is not StartRequest])
def test_request_survives(kind: type[Request]) -> None:
    @given(TOKEN, REQUESTS[kind])
    def check(token: bytes, request: Request) -> None:
        message = decode_requests(encode_requests(token, [request], with_chain=True), ChainCache())
        assert (message.token, message.requests, message.chain_wanted) == (token, (request,), False)

    check()


@given(START)
def test_start_survives(start: StartRequest) -> None:
    message = decode_requests(encode_requests(b"", [start]), ChainCache())
    assert (message.token, message.requests) == (b"", (start,))


@given(
    TOKEN, st.lists(st.one_of([each for kind, each in REQUESTS.items() if kind is not StartRequest]), max_size=8)
)
def test_batch_of_requests_survives_with_chains_by_their_digest(token: bytes, requests: list[Request]) -> None:
    chains = ChainCache()
    for request in requests:
        if isinstance(request, AuthenticateRequest):
            chains.add(request.chain)
    message = decode_requests(encode_requests(token, requests), chains)
    assert (message.token, message.requests) == (token, tuple(requests))


@pytest.mark.parametrize("kind", RESPONSES)
def test_response_survives(kind: type[Response]) -> None:
    asked, answers = RESPONSES[kind]

    @given(st.one_of(st.just(b""), TOKEN), REQUESTS[asked], answers)
    def check(token: bytes, request: Request, response: Response) -> None:
        answer = decode_responses(encode_responses(token, [request], [response]), [request])
        assert (answer.token, answer.responses) == (token, (response,))

    check()


@given(TOKEN, st.one_of(list(REQUESTS.values())), st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_damaged_request_is_a_decode_error_or_another_request(
    token: bytes, request: Request, position: int, patch: bytes
) -> None:
    payload = bytearray(encode_requests(b"" if isinstance(request, StartRequest) else token, [request]))
    payload[position % len(payload) : position % len(payload) + len(patch)] = patch
    try:
        message = decode_requests(bytes(payload), ChainCache())
    except DecodeError:
        return
    if not message.chain_wanted:
        assert encode_requests(message.token, message.requests, with_chain=True) == bytes(payload)
