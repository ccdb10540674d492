"""The messages between terminal and delegate: the requests and responses of `tls.operations` in CBOR (RFC 8949).

Never knows what an operation does, who performs it, or any public-key algorithm: terminals import this.

A message is one CBOR array in preferred serialization, and nothing after it::

    terminal -> delegate   [token?, request, request, ...]     no token: the first request opens a session
                           [token]                             no request: the session is over, forget it
    delegate -> terminal   [token?, response, response, ...]   the token of a session that was opened
                           [{0: 15}]                           the chain's body is wanted, nothing was done
                           [{0: 14, 1: code, 2: text}]         the error that ended the session

Requests and responses are maps with integer keys, registered in `_REQUESTS` and `_RESPONSES` below; key 0 is the
type. Bytes are saved where the receiver can know them: a field at its default is left out, lists of code points
are byte strings of two bytes each, a certificate chain is named by its SHA-256 until the delegate asks for it,
and see `_elide_request` and `_elide_response`. An unknown type or key is an error, not ignored: a delegate
must never act on a request it understands in part. New meaning gets a new type.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from locum.authority.chains import ChainCache
from locum.authority.encoding import (
    FLAG,
    TYPE,
    Kind,
    Shape,
    blob,
    blobs,
    codes,
    dump_array,
    encode_codes,
    integer,
    load_array,
    member,
    members,
    one_line,
    shape_of,
    text,
)
from locum.errors import (
    DecodeError,
    Incompatible,
    LocumError,
    Misbehaved,
    Refused,
    TimedOut,
    Unauthenticated,
    Unavailable,
)
from locum.handshake import MAX_CERTIFICATES, MAX_CHAIN, Fault, PeerChain, Request, Response, Verdict
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

#: A session's token: this many random bytes.
TOKEN_LENGTH = 8
#: A whole message, in bytes: as much as the link carries in one body. The largest chain leaves room in it for a
#: signature and what else goes with it.
MAX_MESSAGE = 64 * 1024
#: Requests, and so responses, in one message.
MAX_REQUESTS = 8
#: Code points in one list.
MAX_CODES = 128
#: A server name or an address, in bytes of UTF-8.
MAX_NAME = 255
#: The reason of a verdict or the text of an error, in bytes of UTF-8; longer ones are cut when written.
MAX_TEXT = 512
#: Distinguished names of certification authorities in a CertificateRequest: their number and the bytes of one.
MAX_AUTHORITIES = 512
MAX_DISTINGUISHED_NAME = 2048
#: A key share: X25519MLKEM768 is 1,216 bytes, an ffdhe8192 public value 1,024.
MAX_SHARE = 4096
#: A signature; ML-DSA-87 is 4,627 bytes.
MAX_SIGNATURE = 8192
#: ServerDHParams with an 8,192-bit prime is 2,055 bytes; the randoms before it are 64.
MAX_PARAMETERS = 4096
#: The hellos and the CertificateRequest that a client's signature covers, together.
MAX_TOLD = 40 * 1024
#: A hash, a secret or a seed.
MAX_HASH = 64
#: The key block of TLS 1.2, at most 2 * (32 + 12).
MAX_KEY_BLOCK = 128

_CHAIN_DIGEST = 32
_RANDOMS = 64
_ERROR = 14
_CHAIN_WANTED = 15

_ENCODED_CHAIN_WANTED = dump_array([{TYPE: _CHAIN_WANTED}])


class ErrorCode(IntEnum):
    """How an error travels; each stands for one class of `locum.errors`."""

    REFUSED = 1
    UNAVAILABLE = 2
    TIMED_OUT = 3
    MISBEHAVED = 4
    INCOMPATIBLE = 5
    UNAUTHENTICATED = 6
    DECODE = 7


_ERRORS: dict[ErrorCode, type[LocumError]] = {
    ErrorCode.REFUSED: Refused,
    ErrorCode.UNAVAILABLE: Unavailable,
    ErrorCode.TIMED_OUT: TimedOut,
    ErrorCode.MISBEHAVED: Misbehaved,
    ErrorCode.INCOMPATIBLE: Incompatible,
    ErrorCode.UNAUTHENTICATED: Unauthenticated,
    ErrorCode.DECODE: DecodeError,
}


# --- the registry -----------------------------------------------------------------------------------------


def _encode_chain(chain: PeerChain) -> list[bytes]:
    """The body of a chain: the OCSP response, which may be empty, and the certificates."""
    return [chain.ocsp_response, *chain.certificates]


def _decode_chain(value: Any) -> PeerChain:
    if type(value) is PeerChain:
        return value  # found by its digest
    if type(value) is not list or not 2 <= len(value) <= MAX_CERTIFICATES + 1:
        raise DecodeError(f"an OCSP response and 1 to {MAX_CERTIFICATES} certificates expected")
    for item in value:
        if type(item) is not bytes:
            raise DecodeError("a certificate chain of byte strings expected")
    if sum(map(len, value)) > MAX_CHAIN or not all(value[1:]):
        raise DecodeError(f"a certificate chain of at most {MAX_CHAIN} bytes and no empty certificate expected")
    return PeerChain(tuple(value[1:]), value[0])


_CODE = integer(0xFFFF)
_CODES = codes(MAX_CODES)
_CHAIN = Kind(_decode_chain, _encode_chain)
_CERTIFICATES = blobs(MAX_CERTIFICATES, MAX_CHAIN, MAX_CHAIN)
_AUTHORITIES = blobs(MAX_AUTHORITIES, MAX_DISTINGUISHED_NAME, MAX_CHAIN)
_HASH = blob(MAX_HASH)
_SHARE = blob(MAX_SHARE)

_REQUESTS = (
    Shape(
        StartRequest,
        1,
        {
            1: ("versions", _CODES),
            2: ("cipher_suites", _CODES),
            3: ("groups", _CODES),
            4: ("server_name", text(MAX_NAME)),
            5: ("peer_address", text(MAX_NAME)),
            6: ("key_forms", members(KeyForm)),
            7: ("resumption", FLAG),
        },
    ),
    Shape(KeyShareRequest, 2, {1: ("group", _CODE)}),
    Shape(
        HandshakeSecretsRequest,
        3,
        {
            1: ("cipher_suite", _CODE),
            2: ("group", _CODE),
            3: ("key_share", _SHARE),
            4: ("transcript_hash", _HASH),
        },
    ),
    Shape(SharedSecretRequest, 4, {1: ("group", _CODE), 2: ("key_share", _SHARE)}),
    Shape(ClientKeyExchangeRequest, 5, {1: ("cipher_suite", _CODE), 2: ("parameters", blob(MAX_PARAMETERS))}),
    Shape(
        AuthenticateRequest,
        6,
        {
            1: ("version", _CODE),
            2: ("cipher_suite", _CODE),
            3: ("chain", _CHAIN),
            4: ("scheme", _CODE),
            5: ("signature", blob(MAX_SIGNATURE)),
            6: ("content", blob(MAX_PARAMETERS)),
        },
    ),
    Shape(
        ClientCertificateRequest,
        7,
        {1: ("version", _CODE), 2: ("schemes", _CODES), 3: ("authorities", _AUTHORITIES)},
    ),
    Shape(
        ClientSignatureRequest,
        8,
        {1: ("version", _CODE), 2: ("content", blob(MAX_TOLD))},
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

_RESPONSES = (
    Shape(
        StartResponse,
        1,
        {
            1: ("versions", _CODES),
            2: ("cipher_suites", _CODES),
            3: ("groups", _CODES),
            4: ("signature_schemes", _CODES),
            5: ("key_share_group", _CODE),
            6: ("key_share", _SHARE),
            7: ("key_form", member(KeyForm)),
        },
    ),
    Shape(KeyShareResponse, 2, {1: ("key_share", _SHARE)}),
    Shape(HandshakeSecretsResponse, 3, {1: ("client_secret", _HASH), 2: ("server_secret", _HASH)}),
    Shape(SharedSecretResponse, 4, {1: ("secret", _SHARE)}),
    Shape(ClientKeyExchangeResponse, 5, {1: ("body", _SHARE)}),
    Shape(
        Verdict,
        6,
        {
            1: ("authentic", FLAG),
            2: ("allowed", FLAG),
            3: ("identity", text(MAX_NAME + 8)),
            4: ("reason", text(MAX_TEXT, cut=True)),
            5: ("fault", member(Fault)),
        },
    ),
    Shape(ClientCertificateResponse, 7, {1: ("certificates", _CERTIFICATES), 2: ("scheme", _CODE)}),
    Shape(ClientSignatureResponse, 8, {1: ("signature", blob(MAX_SIGNATURE))}),
    Shape(MasterSecretResponse, 9, {1: ("secret", _HASH)}),
    Shape(
        KeyBlockResponse,
        10,
        {1: ("key_block", blob(MAX_KEY_BLOCK)), 2: ("client_verify_data", _HASH)},
    ),
    Shape(ServerFinishedResponse, 11, {1: ("server_verify_data", _HASH)}),
)

_BY_CLASS = {shape.message: shape for shape in (*_REQUESTS, *_RESPONSES)}
_REQUEST_BY_TYPE = {shape.type: shape for shape in _REQUESTS}
_RESPONSE_BY_TYPE = {shape.type: shape for shape in _RESPONSES}
_CLIENT_KEY_EXCHANGE = _BY_CLASS[ClientKeyExchangeRequest].type
_VERDICT = _BY_CLASS[Verdict].type

#: What may answer what: the response of the same type, and for TLS 1.2 keys either of the two forms of A7.
_ANSWERS = {shape.message: {shape.type} for shape in _REQUESTS}
_ANSWERS[SessionKeysRequest] = {9, 10}


# --- what the receiver knows already ----------------------------------------------------------------------


def _elide_request(encoded: dict[int, Any], request: Request, signed: bytes) -> None:
    """Leave out of a ClientKeyExchangeRequest the parameters that `signed`, the content just verified, ends in."""
    if isinstance(request, ClientKeyExchangeRequest) and request.parameters == signed[_RANDOMS:]:
        encoded.pop(2, None)
    elif isinstance(request, ClientKeyExchangeRequest):
        encoded[2] = request.parameters


def _restore_request(encoded: dict[int, Any], signed: bytes) -> None:
    if encoded[TYPE] == _CLIENT_KEY_EXCHANGE:
        encoded.setdefault(2, signed[_RANDOMS:])


def _elide_response(encoded: dict[int, Any], response: Response, request: Request | None) -> None:
    """Leave out of a StartResponse what is as it was offered, and of a Verdict that both results are good."""
    if isinstance(response, StartResponse) and isinstance(request, StartRequest):
        if response.versions == request.versions:
            del encoded[1]
        if response.cipher_suites == request.cipher_suites:
            del encoded[2]
    elif isinstance(response, Verdict) and response.accepted:
        del encoded[1], encoded[2]


def _restore_response(encoded: dict[int, Any], request: Request) -> None:
    if isinstance(request, StartRequest):
        encoded.setdefault(1, encode_codes(request.versions))
        encoded.setdefault(2, encode_codes(request.cipher_suites))
    elif encoded[TYPE] == _VERDICT and 1 not in encoded and 2 not in encoded:
        encoded[1] = encoded[2] = True


# --- terminal to delegate ---------------------------------------------------------------------------------


def encode_requests(token: bytes, requests: Iterable[Request], *, with_chain: bool = False) -> bytes:
    """Write a message to the delegate.

    `token` is empty when the first request opens a session. A chain is written as its digest, or, `with_chain`,
    in full. Without requests the message ends the session `token`.
    """
    message: list[Any] = [token] if token else []
    signed = b""
    for request in requests:
        encoded = _BY_CLASS[type(request)].encode(request)
        if isinstance(request, AuthenticateRequest):
            signed = request.content
            if not with_chain:
                encoded[3] = request.chain.digest
        else:
            _elide_request(encoded, request, signed)
        message.append(encoded)
    return dump_array(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a terminal sent: `token` is empty to open a session; no `requests` ends the session `token`.

    `chain_wanted` says that a chain was named which is not known: there are no `requests` then, and the answer
    is `encode_chain_wanted()`. The session stays as it was.
    """

    token: bytes
    requests: tuple[Request, ...]
    chain_wanted: bool = False


def decode_requests(payload: bytes, chains: ChainCache) -> Message:
    """Read a message from a terminal, with `chains` to find the chains that it names by their digest.

    Raises: DecodeError, and then nothing of the message may be performed (A3).
    """
    items = _load(payload)
    token = _take_token(items)
    requests: list[Request] = []
    signed = b""
    for item in items:
        shape = shape_of(item, _REQUEST_BY_TYPE)
        named = item.get(3) if shape.message is AuthenticateRequest else None
        if type(named) is bytes and len(named) == _CHAIN_DIGEST:
            chain = chains.find(named)
            if chain is None:
                return Message(token=token, requests=(), chain_wanted=True)
            item[3] = chain
        _restore_request(item, signed)
        request = shape.decode(item)
        if isinstance(request, AuthenticateRequest):
            signed = request.content
        requests.append(request)
    _check_opening(token, requests)
    return Message(token=token, requests=tuple(requests))


def _check_opening(token: bytes, requests: list[Request]) -> None:
    if not token and not requests:
        raise DecodeError("neither a session nor a request")
    for index, request in enumerate(requests):
        if isinstance(request, StartRequest) != (index == 0 and not token):
            raise DecodeError("a session is opened by one StartRequest, first in a message without a token")


# --- delegate to terminal ---------------------------------------------------------------------------------


def encode_responses(token: bytes, requests: Sequence[Request], responses: Sequence[Response]) -> bytes:
    """Write the answer to `requests`; `token` is the new session's, empty when the terminal sent it itself."""
    message: list[Any] = [token] if token else []
    for request, response in zip(requests, responses, strict=False):
        encoded = _BY_CLASS[type(response)].encode(response)
        _elide_response(encoded, response, request)
        message.append(encoded)
    return dump_array(message)


def encode_chain_wanted() -> bytes:
    """Write the answer that asks for the chain in full; nothing has been performed."""
    return _ENCODED_CHAIN_WANTED


def encode_error(error: LocumError) -> bytes:
    """Write the error that ended a session; an error that has no code of its own travels as REFUSED."""
    code = next((code for code, kind in _ERRORS.items() if isinstance(error, kind)), ErrorCode.REFUSED)
    return dump_array([{TYPE: _ERROR, 1: int(code), 2: one_line(str(error), MAX_TEXT)}])


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the delegate answered; `token` is empty unless a session was opened by this exchange."""

    token: bytes
    responses: tuple[Response, ...]
    chain_wanted: bool = False
    error: LocumError | None = None


def decode_responses(payload: bytes, requests: Sequence[Request]) -> Answer:
    """Read the delegate's answer to `requests`.

    There is one response for each request, fewer only after a verdict that is not accepted.
    Raises: DecodeError.
    """
    items = _load(payload)
    token = _take_token(items)
    if not token and len(items) == 1 and type(items[0]) is dict:
        only: dict[Any, Any] = items[0]
        if only == {TYPE: _CHAIN_WANTED}:
            return Answer(token=b"", responses=(), chain_wanted=True)
        if only.get(TYPE) == _ERROR:
            return Answer(token=b"", responses=(), error=_decode_error(only))
    responses: list[Response] = []
    for item, request in zip(items, requests, strict=False):
        shape = shape_of(item, _RESPONSE_BY_TYPE)
        if shape.type not in _ANSWERS[type(request)]:
            raise DecodeError(f"{shape.message.__name__} does not answer {type(request).__name__}")
        _restore_response(item, request)
        responses.append(shape.decode(item))
    rejected = bool(responses) and isinstance(responses[-1], Verdict) and not responses[-1].accepted
    if len(items) > len(requests) or (len(items) < len(requests) and not rejected):
        raise DecodeError(f"{len(items)} responses to {len(requests)} requests")
    return Answer(token=token, responses=tuple(responses))


def _decode_error(item: dict[Any, Any]) -> LocumError:
    code, text = item.get(1), item.get(2)
    if len(item) != 3 or type(code) is not int or type(text) is not str or len(text) > MAX_TEXT:
        raise DecodeError("an error is a code and a text")
    # A code of a newer delegate is still a refusal, and ends the session like any other.
    kind = _ERRORS[ErrorCode(code)] if code in ErrorCode.__members__.values() else Refused
    return kind(one_line(text, MAX_TEXT))


# --- common to both directions ----------------------------------------------------------------------------


def _load(payload: bytes) -> list[Any]:
    items = load_array(payload, MAX_MESSAGE)
    if len(items) > MAX_REQUESTS + 1:
        raise DecodeError(f"more than {MAX_REQUESTS} in one message")
    return items


def _take_token(items: list[Any]) -> bytes:
    if not items or type(items[0]) is not bytes:
        return b""
    token: bytes = items.pop(0)
    if len(token) != TOKEN_LENGTH:
        raise DecodeError(f"a session token has {TOKEN_LENGTH} bytes")
    return token
