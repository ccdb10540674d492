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
from locum.handshake import Fault, Opening, PeerAuthentication, PeerChain, Request, Response, Verdict
from locum.ike import operations as ike
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
SPI = st.binary(min_size=8, max_size=8)
FLAG = st.booleans()
#: What IKE has shown of a peer; from few values, so that a proof in the same batch covers the same ones.
MESSAGES = st.one_of(st.just((b"first", b"second")), CERTIFICATES)
IDENTIFICATION = st.one_of(st.just(b"\2\0\0\0peer.example"), SHORT)
IKE_START = st.builds(
    ike.IkeStartRequest,
    exchange=st.sampled_from(ike.Exchange),
    initiator=FLAG,
    sa=BLOB,
    initiator_sa=BLOB,
    group=CODE,
    peer_address=NAME,
    local_identity=NAME,
    remote_identity=NAME,
)
IKE_REQUESTS: dict[type[Request], st.SearchStrategy[Any]] = {
    ike.IkeStartRequest: IKE_START,
    ike.PublicValueRequest: st.builds(ike.PublicValueRequest, group=CODE, sa=BLOB),
    ike.KeyExchangeRequest: st.builds(
        ike.KeyExchangeRequest,
        group=CODE,
        public_value=BLOB,
        initiator_spi=SPI,
        responder_spi=SPI,
        peer_nonce=SHORT,
        own_nonce=SHORT,
        sa=BLOB,
    ),
    ike.AdditionalKeyExchangeRequest: st.builds(ike.AdditionalKeyExchangeRequest, group=CODE, public_value=BLOB),
    ike.SharedSecretRequest: st.builds(ike.SharedSecretRequest, group=CODE, public_value=BLOB, more=FLAG),
    ike.IntroduceRequest: st.builds(ike.IntroduceRequest),
    ike.ProveRequest: st.builds(
        ike.ProveRequest,
        message=BLOB,
        intermediate=MESSAGES,
        hashes=CODES,
        authorities=CERTIFICATES,
        peer_supports_ppk=FLAG,
        remote_identification=IDENTIFICATION,
    ),
    ike.IkeAuthenticateRequest: st.builds(
        ike.IkeAuthenticateRequest,
        chain=st.one_of(CHAIN, st.just(PeerChain(()))),
        identification=IDENTIFICATION,
        method=CODE,
        proof=BLOB,
        message=BLOB,
        intermediate=MESSAGES,
        ppk_identity=SHORT,
        proof_without_ppk=SHORT,
        ppk_confirmed=FLAG,
    ),
    ike.EncryptedIntroductionRequest: st.builds(ike.EncryptedIntroductionRequest),
    ike.DisclosureRequest: st.builds(
        ike.DisclosureRequest, identification=BLOB, nonce=BLOB, certificate_hash=SHORT
    ),
    ike.SaKeysRequest: st.builds(
        ike.SaKeysRequest, child_encryption=st.integers(0, 64), child_integrity=st.integers(0, 64)
    ),
}
REQUESTS: dict[type[Request], st.SearchStrategy[Any]] = {
    **IKE_REQUESTS,
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
IKE_KEYS = st.builds(ike.IkeKeysResponse, keys=SHORT, public_value=BLOB, nonce=SHORT)
RESPONSES: dict[type[Response], tuple[type[Request], st.SearchStrategy[Any]]] = {
    ike.IkeStartResponse: (
        ike.IkeStartRequest,
        st.builds(ike.IkeStartResponse, sa=BLOB, group=CODE, other_group_wanted=FLAG),
    ),
    ike.PublicValueResponse: (
        ike.PublicValueRequest,
        st.builds(ike.PublicValueResponse, public_value=BLOB, nonce=SHORT),
    ),
    ike.IkeKeysResponse: (ike.KeyExchangeRequest, IKE_KEYS),
    ike.SharedSecretResponse: (
        ike.SharedSecretRequest,
        st.builds(ike.SharedSecretResponse, secret=BLOB, public_value=BLOB, more=FLAG),
    ),
    ike.IntroduceResponse: (ike.IntroduceRequest, st.builds(ike.IntroduceResponse, identification=BLOB)),
    ike.ProveResponse: (
        ike.ProveRequest,
        st.builds(
            ike.ProveResponse,
            identification=BLOB,
            certificates=CERTIFICATES,
            method=CODE,
            proof=BLOB,
            ppk_identity=SHORT,
            proof_without_ppk=BLOB,
        ),
    ),
    ike.EncryptedIntroductionResponse: (
        ike.EncryptedIntroductionRequest,
        st.builds(ike.EncryptedIntroductionResponse, identification=BLOB, nonce=BLOB, certificate_hash=SHORT),
    ),
    ike.DisclosureResponse: (ike.DisclosureRequest, st.builds(ike.DisclosureResponse)),
    ike.RejectedWithFarewell: (
        ike.IkeAuthenticateRequest,
        st.builds(
            ike.RejectedWithFarewell,
            authentic=FLAG,
            allowed=st.just(False),
            identity=NAME,
            reason=LINE,
            fault=st.sampled_from(Fault),
            farewell=SHORT,
        ),
    ),
    ike.SaKeysResponse: (ike.SaKeysRequest, st.builds(ike.SaKeysResponse, keys=SHORT, ppk_used=FLAG)),
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


OPENINGS = [kind for kind in REQUESTS if issubclass(kind, Opening)]
LATER = [kind for kind in REQUESTS if kind not in OPENINGS]


def label(kind: type) -> str:
    """The protocol and the name of a message."""
    return f"{kind.__module__.split('.')[1]}-{kind.__name__}"


def test_every_message_has_a_strategy() -> None:
    assert REQUESTS.keys() == {shape.message for shape in _REQUESTS}
    assert RESPONSES.keys() == {shape.message for shape in _RESPONSES}


@pytest.mark.parametrize("kind", LATER, ids=label)
def test_request_survives(kind: type[Request]) -> None:
    @given(TOKEN, REQUESTS[kind])
    def check(token: bytes, request: Request) -> None:
        message = decode_requests(encode_requests(token, [request], with_chain=True), ChainCache())
        assert (message.token, message.requests, message.chain_wanted) == (token, (request,), False)

    check()


@pytest.mark.parametrize("kind", OPENINGS, ids=label)
def test_opening_survives(kind: type[Request]) -> None:
    @given(REQUESTS[kind])
    def check(start: Request) -> None:
        message = decode_requests(encode_requests(b"", [start]), ChainCache())
        assert (message.token, message.requests) == (b"", (start,))

    check()


@given(
    st.one_of([REQUESTS[kind] for kind in OPENINGS]),
    st.booleans(),
    TOKEN,
    st.lists(st.one_of([REQUESTS[kind] for kind in LATER]), max_size=7),
)
def test_batch_of_requests_survives_with_chains_by_their_digest(
    start: Request, opening: bool, token: bytes, later: list[Request]
) -> None:
    requests, token = ([start, *later], b"") if opening else (later, token)
    chains = ChainCache()
    for request in requests:
        if isinstance(request, PeerAuthentication):
            chains.add(request.chain)
    message = decode_requests(encode_requests(token, requests), chains)
    assert (message.token, message.requests) == (token, tuple(requests))


@pytest.mark.parametrize("kind", RESPONSES, ids=label)
def test_response_survives(kind: type[Response]) -> None:
    asked, answers = RESPONSES[kind]
    check_answer(asked, answers)


def check_answer(asked: type[Request], answers: st.SearchStrategy[Any]) -> None:
    @given(st.one_of(st.just(b""), TOKEN), REQUESTS[asked], answers)
    def check(token: bytes, request: Request, response: Response) -> None:
        answer = decode_responses(encode_responses(token, [request], [response]), [request])
        assert (answer.token, answer.responses) == (token, (response,))

    check()


def test_keys_that_come_again_survive() -> None:
    check_answer(ike.AdditionalKeyExchangeRequest, IKE_KEYS)


def test_verdict_of_ike_survives() -> None:
    check_answer(ike.IkeAuthenticateRequest, RESPONSES[Verdict][1])


@given(TOKEN, st.one_of(list(REQUESTS.values())), st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_damaged_request_is_a_decode_error_or_another_request(
    token: bytes, request: Request, position: int, patch: bytes
) -> None:
    payload = bytearray(encode_requests(b"" if isinstance(request, Opening) else token, [request]))
    payload[position % len(payload) : position % len(payload) + len(patch)] = patch
    try:
        message = decode_requests(bytes(payload), ChainCache())
    except DecodeError:
        return
    if not message.chain_wanted:
        assert encode_requests(message.token, message.requests, with_chain=True) == bytes(payload)
