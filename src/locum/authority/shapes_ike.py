"""The requests and responses of `ike.operations` as CBOR maps: types 32 to 43.

Never knows what an operation does, nor in which message it travels.
"""

from __future__ import annotations

from locum.authority.shapes import (
    AUTHORITIES,
    CERTIFICATES,
    CHAIN_OR_NONE,
    CODE,
    CODES,
    MAX_NAME,
    VERDICT,
    VERDICT_FIELDS,
)
from locum.handshake import PeerAuthentication, Request
from locum.ike.operations import (
    MAX_IDENTIFICATION,
    MAX_INIT_MESSAGE,
    MAX_INTERMEDIATE,
    MAX_PROOF,
    MAX_PUBLIC_VALUE,
    MAX_SA,
    AdditionalKeyExchangeRequest,
    DisclosureRequest,
    DisclosureResponse,
    EncryptedIntroductionRequest,
    EncryptedIntroductionResponse,
    Exchange,
    IkeAuthenticateRequest,
    IkeKeysResponse,
    IkeStartRequest,
    IkeStartResponse,
    IntroduceRequest,
    IntroduceResponse,
    KeyExchangeRequest,
    ProveRequest,
    ProveResponse,
    PublicValueRequest,
    PublicValueResponse,
    RejectedWithFarewell,
    SaKeysRequest,
    SaKeysResponse,
    SharedSecretRequest,
    SharedSecretResponse,
)
from locum.ike.payloads2 import MAX_NONCE
from locum.ike.registry import ADDITIONAL_KEY_EXCHANGES
from locum.patterns import PATTERN_LIMIT
from locum.wire.cbor import FLAG, Shape, blob, blobs, fixed, integer, member, text

#: An SPI of an IKE SA, or a cookie.
SPI_LENGTH = 8
#: Keys of one answer together; the most is SK_ai, SK_ar, SK_ei and SK_er with 64 and 36 bytes each.
MAX_KEYS = 256
#: Keying material for one direction of a CHILD_SA, of either kind.
MAX_CHILD_KEY = 64
#: Messages of IKE_INTERMEDIATE: a request and a response for each additional key exchange (RFC 9370).
MAX_INTERMEDIATE_MESSAGES = 2 * len(ADDITIONAL_KEY_EXCHANGES)
#: An identification or a nonce encrypted with RSA of up to 16,384 bits (RFC 2409 section 5.2).
MAX_ENCRYPTED = 2048

_SA = blob(MAX_SA)
_SPI = fixed(SPI_LENGTH)
_NONCE = blob(MAX_NONCE)
_PUBLIC_VALUE = blob(MAX_PUBLIC_VALUE)
_IDENTIFICATION = blob(MAX_IDENTIFICATION)
_PROOF = blob(MAX_PROOF)
_HASH = blob(64)
_KEYS = blob(MAX_KEYS)
_MESSAGE_ID = integer(0xFFFFFFFF)
_CHILD_KEY = integer(MAX_CHILD_KEY)
_INIT_MESSAGE = blob(MAX_INIT_MESSAGE)
_INTERMEDIATE = blobs(MAX_INTERMEDIATE_MESSAGES, MAX_INIT_MESSAGE, MAX_INTERMEDIATE)
#: An identity that a terminal names; nothing longer can be in a policy.
_WANTED = text(PATTERN_LIMIT)


def _judged_intermediate(judged: PeerAuthentication | None) -> tuple[bytes, ...]:
    """Both proofs cover the same messages of IKE_INTERMEDIATE."""
    return judged.intermediate if isinstance(judged, IkeAuthenticateRequest) else ()


def _judged_identification(judged: PeerAuthentication | None) -> bytes:
    """A responder proves itself to the peer that it has just heard."""
    return judged.identification if isinstance(judged, IkeAuthenticateRequest) else b""


REQUESTS = (
    Shape(
        IkeStartRequest,
        32,
        {
            1: ("exchange", member(Exchange)),
            2: ("initiator", FLAG),
            3: ("sa", _SA),
            4: ("initiator_sa", _SA),
            5: ("group", CODE),
            6: ("peer_address", text(MAX_NAME)),
            7: ("local_identity", _WANTED),
            8: ("remote_identity", _WANTED),
        },
    ),
    Shape(PublicValueRequest, 33, {1: ("group", CODE), 2: ("sa", _SA)}),
    Shape(
        KeyExchangeRequest,
        34,
        {
            1: ("group", CODE),
            2: ("public_value", _PUBLIC_VALUE),
            3: ("initiator_spi", _SPI),
            4: ("responder_spi", _SPI),
            5: ("peer_nonce", _NONCE),
            6: ("own_nonce", _NONCE),
            7: ("sa", _SA),
        },
    ),
    Shape(AdditionalKeyExchangeRequest, 35, {1: ("group", CODE), 2: ("public_value", _PUBLIC_VALUE)}),
    Shape(SharedSecretRequest, 36, {1: ("group", CODE), 2: ("public_value", _PUBLIC_VALUE), 3: ("more", FLAG)}),
    Shape(IntroduceRequest, 37, {}),
    Shape(
        ProveRequest,
        38,
        {
            1: ("message", _INIT_MESSAGE),
            2: ("intermediate", _INTERMEDIATE),
            3: ("hashes", CODES),
            4: ("authorities", AUTHORITIES),
            5: ("peer_supports_ppk", FLAG),
            6: ("remote_identification", _IDENTIFICATION),
        },
        known={"intermediate": _judged_intermediate, "remote_identification": _judged_identification},
    ),
    Shape(
        IkeAuthenticateRequest,
        39,
        {
            1: ("identification", _IDENTIFICATION),
            2: ("method", CODE),
            3: ("chain", CHAIN_OR_NONE),
            4: ("proof", _PROOF),
            5: ("message", _INIT_MESSAGE),
            6: ("intermediate", _INTERMEDIATE),
            7: ("ppk_identity", _IDENTIFICATION),
            8: ("proof_without_ppk", _PROOF),
            9: ("ppk_confirmed", FLAG),
            10: ("farewell", _MESSAGE_ID),
        },
    ),
    Shape(EncryptedIntroductionRequest, 40, {}),
    Shape(
        DisclosureRequest,
        41,
        {
            1: ("identification", blob(MAX_ENCRYPTED)),
            2: ("nonce", blob(MAX_ENCRYPTED)),
            3: ("certificate_hash", _HASH),
        },
    ),
    Shape(SaKeysRequest, 42, {1: ("child_encryption", _CHILD_KEY), 2: ("child_integrity", _CHILD_KEY)}),
)

RESPONSES = (
    Shape(
        IkeStartResponse,
        32,
        {1: ("sa", _SA), 2: ("group", CODE), 3: ("other_group_wanted", FLAG)},
        known={"group": lambda request: request.group},
    ),
    Shape(PublicValueResponse, 33, {1: ("public_value", _PUBLIC_VALUE), 2: ("nonce", _NONCE)}),
    Shape(IkeKeysResponse, 34, {1: ("keys", _KEYS), 2: ("public_value", _PUBLIC_VALUE), 3: ("nonce", _NONCE)}),
    Shape(
        SharedSecretResponse,
        36,
        {1: ("secret", _PUBLIC_VALUE), 2: ("public_value", _PUBLIC_VALUE), 3: ("more", FLAG)},
        known={"more": lambda request: request.more},
    ),
    Shape(IntroduceResponse, 37, {1: ("identification", _IDENTIFICATION)}),
    Shape(
        ProveResponse,
        38,
        {
            1: ("identification", _IDENTIFICATION),
            2: ("certificates", CERTIFICATES),
            3: ("method", CODE),
            4: ("proof", _PROOF),
            5: ("ppk_identity", _IDENTIFICATION),
            6: ("proof_without_ppk", _PROOF),
        },
    ),
    Shape(
        EncryptedIntroductionResponse,
        40,
        {
            1: ("identification", blob(MAX_ENCRYPTED)),
            2: ("nonce", blob(MAX_ENCRYPTED)),
            3: ("certificate_hash", _HASH),
        },
    ),
    Shape(DisclosureResponse, 41, {}),
    Shape(SaKeysResponse, 42, {1: ("keys", _KEYS), 2: ("ppk_used", FLAG)}),
    Shape(RejectedWithFarewell, 43, {**VERDICT_FIELDS, 6: ("farewell", _HASH)}),
)

#: What may answer what: the response of the same type, but for keys that come a second time, and a judgement.
ANSWERS: dict[type[Request], set[int]] = {shape.message: {shape.type} for shape in REQUESTS}
ANSWERS[AdditionalKeyExchangeRequest] = {34}
ANSWERS[IkeAuthenticateRequest] = {VERDICT.type, 43}
