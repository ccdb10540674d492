"""`RemoteSession`: the operations of one handshake asked of a delegate, without any I/O.

Never knows how a payload travels, and no public-key algorithm: this is all of an authority that a terminal has.

A driver does, for every batch of requests::

    payload = session.encode(requests)
    while True:
        reply = post("/kx", payload)                       # over whatever reaches the delegate
        outcome = session.decode(reply.payload, reply.code)
        if not isinstance(outcome, Resend):
            break                                          # the responses
        payload = outcome.payload

and at the end, or when anything failed, posts `close_payload()` unless it is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from locum.authority.messages import Answer, decode_responses, encode_requests
from locum.errors import DecodeError, LocumError, OperationError, Refused, Unavailable
from locum.handshake import Request, Response
from locum.values import dataclass

#: The path on the delegate that all of this is posted to.
PATH = "/kx"

_SUCCESS, _CLIENT_ERROR = 2, 4
_TOO_MANY_REQUESTS = 0x9D


@dataclass(frozen=True, slots=True)
class Resend:
    """The delegate does not know the peer's chain: post `payload`, which has it in full, instead."""

    payload: bytes = field(repr=False)


class RemoteSession:
    """One handshake's session with one delegate; which delegate, the driver decides before the first request."""

    __slots__ = ("_over", "_pending", "_sent_chain", "_token")

    def __init__(self) -> None:
        self._token = b""
        self._pending: tuple[Request, ...] = ()
        self._sent_chain = False
        self._over = False

    def encode(self, requests: Sequence[Request]) -> bytes:
        """The payload that asks for `requests`; one batch is under way at a time.

        Raises: Refused when the session is over or an answer is outstanding.
        """
        if self._over or self._pending or not requests:
            raise Refused("the session with the delegate is over, or waits for an answer")
        self._pending = tuple(requests)
        self._sent_chain = False
        return encode_requests(self._token, self._pending)

    def decode(self, payload: bytes, code: int) -> tuple[Response, ...] | Resend:
        """The responses in the delegate's answer, which came with CoAP `code`, or what to send again.

        Raises: the error that the delegate met: OperationError, or PeerError or DecodeError where the peer's
        bytes were at fault; Unavailable when the answer makes no sense. The session is over then.
        """
        requests, self._pending = self._pending, ()
        if not requests:
            raise self._ended(Unavailable("an answer of the delegate to nothing"))
        try:
            answer = decode_responses(payload, requests)
        except DecodeError as error:
            raise self._ended(_failure(code, error)) from None
        if answer.error is not None:
            raise self._ended(answer.error)
        if code >> 5 != _SUCCESS:
            raise self._ended(_failure(code, None))
        if answer.chain_wanted:
            return self._resend(requests)
        return self._accept(answer)

    def close_payload(self) -> bytes:
        """The payload that makes the delegate forget the session; empty when there is nothing to forget."""
        over, self._over, self._pending = self._over, True, ()
        return b"" if over or not self._token else encode_requests(self._token, ())

    def _resend(self, requests: tuple[Request, ...]) -> Resend:
        if self._sent_chain:
            raise self._ended(Unavailable("the delegate asks again for the chain it was given"))
        self._sent_chain = True
        self._pending = requests
        return Resend(encode_requests(self._token, requests, with_chain=True))

    def _accept(self, answer: Answer) -> tuple[Response, ...]:
        if bool(answer.token) == bool(self._token):
            raise self._ended(Unavailable("the delegate's answer is not of this session"))
        self._token = self._token or answer.token
        for response in answer.responses:
            self._over = self._over or response.ends_batch or response.last
        return answer.responses

    def _ended(self, error: LocumError) -> LocumError:
        self._over = True
        return error


def _failure(code: int, error: DecodeError | None) -> OperationError:
    """The error for an answer that is not one: by its CoAP code if that tells of a failure."""
    shown = f"{code >> 5}.{code & 0x1F:02}"
    if code >> 5 == _SUCCESS:
        return Unavailable(f"the delegate's answer cannot be understood: {error}")
    if code >> 5 == _CLIENT_ERROR and code != _TOO_MANY_REQUESTS:
        return Refused(f"the delegate refused the request with {shown}")
    return Unavailable(f"the delegate answered {shown}; try again later, or another delegate")
