"""The messages between terminal and delegate: requests and responses in CBOR (RFC 8949).

Never knows what an operation does, who performs it, or any public-key algorithm: terminals import this. What a
single request or response looks like is in `shapes_tls` and `shapes_ike`.

A message is one CBOR array in preferred serialization, and nothing after it::

    terminal -> delegate   [token?, request, request, ...]     no token: the first request opens a session
                           [token]                             no request: the session is over, forget it
    delegate -> terminal   [token?, response, response, ...]   the token of a session that was opened
                           [{0: 15}]                           the chain's body is wanted, nothing was done
                           [{0: 14, 1: code, 2: text}]         the error that ended the session

Requests and responses are maps with integer keys; key 0 is the type. Bytes are saved where the receiver can know
them: a field at its default is left out, lists of code points are byte strings of two bytes each, a certificate
chain is named by its SHA-256 until the delegate asks for it, and a shape can say that a field of a request repeats
what the judgement of the peer before it in the same message has, or a field of a response what its request has.
An unknown type or key is an error, not ignored: a delegate must never act on a request it understands in part.
New meaning gets a new type.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any

from locum.authority import shapes_ike, shapes_tls
from locum.authority.chains import ChainCache
from locum.authority.shapes import MAX_TEXT
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
from locum.handshake import Opening, PeerAuthentication, Request, Response
from locum.values import dataclass
from locum.wire.cbor import TYPE, Shape, dump, load_array, one_line, shape_of

#: A session's token: this many random bytes.
TOKEN_LENGTH = 8
#: A whole message, in bytes: as much as the link carries in one body. The largest chain leaves room in it for a
#: signature and what else goes with it.
MAX_MESSAGE = 64 * 1024
#: Requests, and so responses, in one message.
MAX_REQUESTS = 8

_CHAIN_DIGEST = 32
_ERROR = 14
_CHAIN_WANTED = 15

_ENCODED_CHAIN_WANTED = dump([{TYPE: _CHAIN_WANTED}])

_REQUESTS: tuple[Shape, ...] = (*shapes_tls.REQUESTS, *shapes_ike.REQUESTS)
_RESPONSES: tuple[Shape, ...] = (*shapes_tls.RESPONSES, *shapes_ike.RESPONSES)
_BY_CLASS: dict[type, Shape] = {shape.message: shape for shape in (*_REQUESTS, *_RESPONSES)}
_REQUEST_BY_TYPE = {shape.type: shape for shape in _REQUESTS}
_RESPONSE_BY_TYPE = {shape.type: shape for shape in _RESPONSES}
_ANSWERS: dict[type[Request], set[int]] = shapes_tls.ANSWERS | shapes_ike.ANSWERS
#: Under which key the requests that have a chain have it.
_CHAIN_KEYS = {
    shape.message: shape.key_of("chain") for shape in _REQUESTS if issubclass(shape.message, PeerAuthentication)
}


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


# --- terminal to delegate ---------------------------------------------------------------------------------


def encode_requests(token: bytes, requests: Iterable[Request], *, with_chain: bool = False) -> bytes:
    """Write a message to the delegate.

    `token` is empty when the first request opens a session. A chain is written as its digest, or, `with_chain`,
    in full; one without certificates always as it is. Without requests the message ends the session `token`.
    """
    message: list[Any] = [token] if token else []
    judged: PeerAuthentication | None = None
    for request in requests:
        encoded = _BY_CLASS[type(request)].encode(request, judged)
        if isinstance(request, PeerAuthentication):
            judged = request
            if request.chain.certificates and not with_chain:
                encoded[_CHAIN_KEYS[type(request)]] = request.chain.digest
        message.append(encoded)
    return dump(message)


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
    judged: PeerAuthentication | None = None
    for item in items:
        shape = shape_of(item, _REQUEST_BY_TYPE)
        key = _CHAIN_KEYS.get(shape.message)
        named = item.get(key) if key is not None else None
        if type(named) is bytes and len(named) == _CHAIN_DIGEST:
            chain = chains.find(named)
            if chain is None:
                return Message(token=token, requests=(), chain_wanted=True)
            item[key] = chain
        request = shape.decode(item, judged)
        if isinstance(request, PeerAuthentication):
            judged = request
        requests.append(request)
    _check_opening(token, requests)
    return Message(token=token, requests=tuple(requests))


def _check_opening(token: bytes, requests: list[Request]) -> None:
    if not token and not requests:
        raise DecodeError("neither a session nor a request")
    for index, request in enumerate(requests):
        if isinstance(request, Opening) != (index == 0 and not token):
            raise DecodeError("a session is opened by one request, the first in a message without a token")


# --- delegate to terminal ---------------------------------------------------------------------------------


def encode_responses(token: bytes, requests: Sequence[Request], responses: Sequence[Response]) -> bytes:
    """Write the answer to `requests`; `token` is the new session's, empty when the terminal sent it itself."""
    message: list[Any] = [token] if token else []
    for request, response in zip(requests, responses, strict=False):
        message.append(_BY_CLASS[type(response)].encode(response, request))
    return dump(message)


def encode_chain_wanted() -> bytes:
    """Write the answer that asks for the chain in full; nothing has been performed."""
    return _ENCODED_CHAIN_WANTED


def encode_error(error: LocumError) -> bytes:
    """Write the error that ended a session; an error that has no code of its own travels as REFUSED."""
    code = next((code for code, kind in _ERRORS.items() if isinstance(error, kind)), ErrorCode.REFUSED)
    return dump([{TYPE: _ERROR, 1: int(code), 2: one_line(str(error), MAX_TEXT)}])


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the delegate answered; `token` is empty unless a session was opened by this exchange."""

    token: bytes
    responses: tuple[Response, ...]
    chain_wanted: bool = False
    error: LocumError | None = None


def decode_responses(payload: bytes, requests: Sequence[Request]) -> Answer:
    """Read the delegate's answer to `requests`.

    There is one response for each request, but none after one that `ends_batch`.
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
        responses.append(shape.decode(item, request))
    ended = [response.ends_batch for response in responses]
    if len(items) > len(requests) or any(ended[:-1]) or (len(items) < len(requests) and not any(ended)):
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
