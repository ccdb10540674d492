"""The steps by which a handshake asks for what it cannot or should not do itself.

Every handshake, TLS or IKE, is a generator that yields these; a driver answers them. Nothing here knows
a protocol, a socket or a clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from enum import IntEnum
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from locum.errors import OperationError, Unauthenticated
from locum.values import dataclass

#: A certificate chain: its certificates, and the bytes of all of them with the stapled OCSP response.
MAX_CERTIFICATES = 10
MAX_CHAIN = 48 * 1024


@dataclass(frozen=True)
class PeerChain:
    """What the peer showed: its certificates in DER, its own first, and a stapled OCSP response in DER.

    Without certificates it stands for a peer that proves itself without any, with a pre-shared key.
    """

    certificates: tuple[bytes, ...]
    ocsp_response: bytes = b""

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over every part, each preceded by its length in 3 bytes: the name a delegate knows it by."""
        state = hashlib.sha256()
        for part in (self.ocsp_response, *self.certificates):
            state.update(len(part).to_bytes(3, "big"))
            state.update(part)
        return state.digest()


class Operation(IntEnum):
    """The four request/response pairs between terminal and delegate (A1; claims 2 and 11)."""

    START = 1
    GENERATE_KEY = 2
    AUTHENTICATE = 3
    REQUEST_KEY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One operation asked of an authority. Each protocol defines its own requests for each operation."""

    operation: ClassVar[Operation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening(Request):
    """The request that opens a session with an authority: the first of its batch, and the only one of its kind."""

    operation: ClassVar[Operation] = Operation.START

    @property
    def peer(self) -> str:
        """Whom the terminal talks to, for people to read."""
        raise NotImplementedError

    @property
    def without_authentication(self) -> bool:
        """True when the peer may turn out to be proven otherwise, so that no verdict may be asked for."""
        return False

    @property
    def further(self) -> bool:
        """True when this is no handshake, but a key exchange under an association that is established."""
        return False

    @property
    def uninvited(self) -> bool:
        """True when it was the peer that began: anybody may, as often as they like."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAuthentication(Request):
    """The request to judge the peer by what it showed. Answered by a `Verdict`, and nothing else is."""

    operation: ClassVar[Operation] = Operation.AUTHENTICATE
    chain: PeerChain


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The answer to one `Request`."""

    @property
    def last(self) -> bool:
        """True when the authority has nothing more to give, and forgets the session by itself."""
        return False

    @property
    def ends_batch(self) -> bool:
        """True when the requests after this one are not performed, and have no response."""
        return False


class Fault(IntEnum):
    """Why a peer is not authentic or not allowed; each maps to one alert or notify."""

    NONE = 0
    BAD_CERTIFICATE = 1
    EXPIRED = 2
    UNKNOWN_ISSUER = 3
    WRONG_NAME = 4
    REVOKED = 5
    BAD_SIGNATURE = 6
    UNSUPPORTED = 7
    BAD_STATUS_RESPONSE = 8
    POLICY = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Response):
    """Both results of an authentication (A6; para 91), the peer's identity, and a reason to read.

    `identity` is ``dns:NAME``, ``ip:ADDRESS`` or ``pin:NAME``, empty when the peer is not authentic.
    `fault` is `Fault.NONE` and `reason` empty exactly when the peer is authentic and allowed.
    """

    authentic: bool
    allowed: bool
    identity: str = ""
    reason: str = ""
    fault: Fault = Fault.NONE

    @property
    def accepted(self) -> bool:
        """True when the handshake may go on: authentic and allowed."""
        return self.authentic and self.allowed

    @property
    def ends_batch(self) -> bool:
        """A rejected peer is the end of the session."""
        return not self.accepted


class PeerRejected(Unauthenticated):
    """The authority's verdict was negative; `verdict` is the whole of it (A2, fig 5 S11)."""

    def __init__(self, verdict: Verdict) -> None:
        what = "not authentic" if not verdict.authentic else "not allowed"
        super().__init__(f"the peer is {what}: {verdict.reason or verdict.fault.name.lower()}")
        self.verdict = verdict


@dataclass(frozen=True, slots=True)
class Ask:
    """A step: have these requests performed, in order, by the authority.

    The driver sends back the responses, or throws an `OperationError` into the generator. There are fewer
    responses than requests where one of them `ends_batch`, as a verdict does that is not accepted.
    """

    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Random:
    """A step: the driver sends back `length` bytes from a cryptographic random source."""

    length: int


@dataclass(frozen=True, slots=True)
class Now:
    """A step: the driver sends back the current time in seconds since the epoch, as a float."""


R = TypeVar("R", bound=Response)
Step = Ask | Random | Now


def ask(request: Request, answer: type[R]) -> Generator[Any, Any, R]:
    """Ask for one operation and return its response, which must be of type `answer`.

    Raises: OperationError when the answerer refused, was unreachable, or gave an answer of another type.
    """
    responses = yield Ask((request,))
    return expect(responses, 0, answer)


def expect(responses: tuple[Response, ...], index: int, answer: type[R]) -> R:
    """Return the response at `index` if it is of type `answer`; raise OperationError otherwise."""
    if index >= len(responses) or not isinstance(responses[index], answer):
        raise OperationError(f"the authority's answer {index + 1} is not a {answer.__name__}")
    response = responses[index]
    assert isinstance(response, answer)
    return response


def random(length: int) -> Generator[Any, Any, bytes]:
    """Ask the driver for `length` random bytes."""
    data: bytes = yield Random(length)
    return data


def now() -> Generator[Any, Any, float]:
    """Ask the driver for the time, in seconds since the epoch."""
    moment: float = yield Now()
    return moment
