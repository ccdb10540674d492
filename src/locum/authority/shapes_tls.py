"""The requests and responses of `tls.operations` as CBOR maps: types 1 to 11.

Never knows what an operation does, nor in which message it travels.
"""

from __future__ import annotations

from locum.authority.shapes import (
    AUTHORITIES,
    CERTIFICATES,
    CHAIN,
    CODE,
    CODES,
    MAX_NAME,
    MAX_SIGNATURE,
    VERDICT,
)
from locum.handshake import PeerAuthentication, Request
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
from locum.wire.cbor import FLAG, Shape, blob, member, members, text

#: A key share: X25519MLKEM768 is 1,216 bytes, an ffdhe8192 public value 1,024.
MAX_SHARE = 4096
#: ServerDHParams with an 8,192-bit prime is 2,055 bytes; the randoms before it are 64.
MAX_PARAMETERS = 4096
#: The hellos and the CertificateRequest that a client's signature covers, together.
MAX_TOLD = 40 * 1024
#: A hash, a secret or a seed.
MAX_HASH = 64
#: The key block of TLS 1.2, at most 2 * (32 + 12).
MAX_KEY_BLOCK = 128

_RANDOMS = 64

_HASH = blob(MAX_HASH)
_SHARE = blob(MAX_SHARE)


def _signed_parameters(judged: PeerAuthentication | None) -> bytes:
    """The parameters at the end of the content that has just been verified."""
    return judged.content[_RANDOMS:] if isinstance(judged, AuthenticateRequest) else b""


REQUESTS = (
    Shape(
        StartRequest,
        1,
        {
            1: ("versions", CODES),
            2: ("cipher_suites", CODES),
            3: ("groups", CODES),
            4: ("server_name", text(MAX_NAME)),
            5: ("peer_address", text(MAX_NAME)),
            6: ("key_forms", members(KeyForm)),
            7: ("resumption", FLAG),
        },
    ),
    Shape(KeyShareRequest, 2, {1: ("group", CODE)}),
    Shape(
        HandshakeSecretsRequest,
        3,
        {
            1: ("cipher_suite", CODE),
            2: ("group", CODE),
            3: ("key_share", _SHARE),
            4: ("transcript_hash", _HASH),
        },
    ),
    Shape(SharedSecretRequest, 4, {1: ("group", CODE), 2: ("key_share", _SHARE)}),
    Shape(
        ClientKeyExchangeRequest,
        5,
        {1: ("cipher_suite", CODE), 2: ("parameters", blob(MAX_PARAMETERS))},
        known={"parameters": _signed_parameters},
    ),
    Shape(
        AuthenticateRequest,
        6,
        {
            1: ("version", CODE),
            2: ("cipher_suite", CODE),
            3: ("chain", CHAIN),
            4: ("scheme", CODE),
            5: ("signature", blob(MAX_SIGNATURE)),
            6: ("content", blob(MAX_PARAMETERS)),
        },
    ),
    Shape(
        ClientCertificateRequest,
        7,
        {1: ("version", CODE), 2: ("schemes", CODES), 3: ("authorities", AUTHORITIES)},
    ),
    Shape(
        ClientSignatureRequest,
        8,
        {1: ("version", CODE), 2: ("content", blob(MAX_TOLD))},
    ),
    Shape(MasterSecretRequest, 9, {}),
    Shape(
        SessionKeysRequest,
        10,
        {
            1: ("extended", FLAG),
            2: ("seed", _HASH),
            3: ("randoms", _HASH),
            4: ("finished_hash", _HASH),
        },
    ),
    Shape(ServerFinishedRequest, 11, {1: ("finished_hash", _HASH)}),
)

RESPONSES = (
    Shape(
        StartResponse,
        1,
        {
            1: ("versions", CODES),
            2: ("cipher_suites", CODES),
            3: ("groups", CODES),
            4: ("signature_schemes", CODES),
            5: ("key_share_group", CODE),
            6: ("key_share", _SHARE),
            7: ("key_form", member(KeyForm)),
        },
        known={
            "versions": lambda request: request.versions,
            "cipher_suites": lambda request: request.cipher_suites,
        },
    ),
    Shape(KeyShareResponse, 2, {1: ("key_share", _SHARE)}),
    Shape(HandshakeSecretsResponse, 3, {1: ("client_secret", _HASH), 2: ("server_secret", _HASH)}),
    Shape(SharedSecretResponse, 4, {1: ("secret", _SHARE)}),
    Shape(ClientKeyExchangeResponse, 5, {1: ("body", _SHARE)}),
    VERDICT,
    Shape(ClientCertificateResponse, 7, {1: ("certificates", CERTIFICATES), 2: ("scheme", CODE)}),
    Shape(ClientSignatureResponse, 8, {1: ("signature", blob(MAX_SIGNATURE))}),
    Shape(MasterSecretResponse, 9, {1: ("secret", _HASH)}),
    Shape(
        KeyBlockResponse,
        10,
        {1: ("key_block", blob(MAX_KEY_BLOCK)), 2: ("client_verify_data", _HASH)},
    ),
    Shape(ServerFinishedResponse, 11, {1: ("server_verify_data", _HASH)}),
)

#: What may answer what: the response of the same type, and for TLS 1.2 keys either of the two forms of A7.
ANSWERS: dict[type[Request], set[int]] = {shape.message: {shape.type} for shape in REQUESTS}
ANSWERS[SessionKeysRequest] = {9, 10}
