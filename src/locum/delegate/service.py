"""The delegate's flow, figs 8 and 9 (A3): take a message, dispatch it, answer, go on. No I/O.

Never knows how messages travel or are protected, and no cryptography: the link says which terminal asks, and the
authority does the four operations.

=====================================  =====  =================================================================
what arrived                           code   what follows
=====================================  =====  =================================================================
operations, performed                  2.04   the responses; a session whose key was handed over is wiped
an end of a session                    2.04   the session is wiped
a chain the delegate has not seen      2.04   nothing is performed; the terminal sends the chain itself
an operation that was refused          4.03   the error; the session is wiped
an operation that cannot be done now   5.03   the error; the session is wiped
an unknown or malformed message        4.00   discarded: no session is touched, not even the one it names
a token unknown, expired or another's  4.04   the same answer for all three
another path                           4.04   discarded
more than the terminal's rate          4.29   discarded; the answer says when to come back
a terminal not, or no longer, served   4.01   discarded
no room, or the node is ending         5.03   no session is opened
=====================================  =====  =================================================================
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from locum.authority.chains import ChainCache
from locum.authority.messages import (
    Message,
    decode_requests,
    encode_chain_wanted,
    encode_error,
    encode_responses,
)
from locum.authority.port import AuthoritySession
from locum.authority.remote import PATH
from locum.defects import whereabouts
from locum.delegate.journal import Journal
from locum.delegate.limits import RateLimiter, RateLimits
from locum.delegate.sessions import Session, SessionLimits, SessionTable
from locum.errors import DecodeError, LocumError, Refused, TimedOut, Unavailable
from locum.handshake import Opening, Request, Response, Verdict
from locum.link.coap import Code

log = logging.getLogger(__name__)

#: CPU seconds that one request may take; one that takes more counts as so many requests. Most take a tenth of it,
#: but a peer can choose its certificates so that they are hard to validate.
EFFORT_OF_A_REQUEST = 0.005

#: What the audit log calls the endpoint of plain messages.
_SECURE_PATH = "secure path"
_UNKNOWN_SESSION = encode_error(Unavailable("the delegate has no such session, or has it no more: begin again"))
_NOT_SERVED = encode_error(Refused("this terminal is not served here: it was removed, disabled or not enrolled"))
_NO_ROOM = encode_error(Unavailable("the delegate has no room for another session: try again later"))
_ENDING = encode_error(Unavailable("the delegate is being stopped: try another one"))
_OUTDATED = encode_error(Unavailable("the delegate cannot read its databases: try another one, or later"))
_INTERNAL = encode_error(Unavailable("the delegate failed; its log says why"))
_NOTHING = b"\x80"  # the empty CBOR array: an end of a session has no responses


class Authority(Protocol):
    """Whoever performs the operations: opens one session for each handshake."""

    def open(self, terminal: str) -> AuthoritySession:
        """Begin a session for `terminal`."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """A CoAP code and a payload, which may hold secrets."""

    code: Code
    payload: bytes = field(repr=False)


@dataclass(slots=True)
class Counters:
    """What has happened since the start: requests, and how handshakes and `further` key exchanges ended."""

    requests: int = 0
    completed: int = 0
    further: int = 0
    rejected: int = 0
    failed: int = 0
    refused: int = 0


class DelegateService:
    """Answers the messages of all terminals, one at a time (A12).

    `serves(terminal, plain)` tells whether a terminal is enrolled and enabled, and `plain` whether its message
    came over the secure path (A4). `effort` tells the CPU time of this thread so far. `now` is always a clock that
    never runs backwards. Both are in seconds.
    """

    def __init__(
        self,
        *,
        authority: Authority,
        serves: Callable[[str, bool], bool],
        journal: Journal,
        random: Callable[[int], bytes],
        session_limits: SessionLimits | None = None,
        rate_limits: RateLimits | None = None,
        effort: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.counters = Counters()
        self.sessions = SessionTable(session_limits or SessionLimits(), random=random)
        self._authority = authority
        self._serves = serves
        self._journal = journal
        self._limiter = RateLimiter(rate_limits or RateLimits())
        self._effort = effort
        self._chains = ChainCache()
        # Why no session may be opened, as an answer; empty while they may.
        self._closed = b""

    def handle(
        self, terminal: str, path: str, payload: bytes, *, now: float, plain: bool = False
    ) -> ServiceAnswer:
        """Answer one message of `terminal` to the resource `path`. Raises nothing: bad input has an answer."""
        self.counters.requests += 1
        self.expire(now=now)
        if not self._serves(terminal, plain):
            # A name that is not enrolled was merely claimed, so it does not get into the log.
            self._journal.refused(_SECURE_PATH if plain else terminal, "not enrolled, or disabled", now=now)
            return self._refusal(Code.UNAUTHORIZED, _NOT_SERVED)
        # Who claims a name on the secure path shares neither sessions nor rate with who proves it elsewhere.
        owner = f"{terminal} ({_SECURE_PATH})" if plain else terminal
        wait = self._limiter.take(owner, now)
        if wait:
            return self._too_many(owner, wait, now=now)
        begun = self._effort()
        answer = self._answer(terminal, owner, path, payload, now=now)
        spent = self._effort() - begun
        if spent > EFFORT_OF_A_REQUEST:
            self._limiter.charge(owner, spent / EFFORT_OF_A_REQUEST - 1.0)
        return answer

    def _answer(self, terminal: str, owner: str, path: str, payload: bytes, *, now: float) -> ServiceAnswer:
        if path != PATH:
            self._journal.refused(owner, "unknown resource", now=now)
            return self._refusal(Code.NOT_FOUND, b"")
        try:
            message = decode_requests(payload, self._chains)
        except DecodeError as error:
            self._journal.refused(owner, "malformed message", now=now)
            refused = Refused(f"the delegate cannot read this: {error}")
            return self._refusal(Code.BAD_REQUEST, encode_error(refused))
        return self._dispatch(terminal, owner, message, now=now)

    def expire(self, *, now: float) -> None:
        """Wipe the sessions whose time is up."""
        for session in self.sessions.expired(now=now):
            self._lose(session, "not completed in time", now=now)

    def suspend(self, suspended: bool) -> None:
        """Open no sessions while the databases are too old to decide by; those in flight may go on."""
        if self._closed is not _ENDING:
            self._closed = _OUTDATED if suspended else b""

    def end_sessions(self) -> None:
        """Open no more sessions; those in flight may go on."""
        self._closed = _ENDING

    def close(self) -> None:
        """Wipe every session that is left."""
        self.end_sessions()
        for session in self.sessions:
            self.sessions.end(session)
            self.counters.failed += 1
            self._journal.stopped(session)

    def _dispatch(self, terminal: str, owner: str, message: Message, *, now: float) -> ServiceAnswer:
        session = self.sessions.find(message.token, owner, now=now) if message.token else None
        if message.token and session is None:
            self._journal.refused(owner, "unknown session", now=now)
            return self._refusal(Code.NOT_FOUND, _UNKNOWN_SESSION)
        if message.chain_wanted:
            return ServiceAnswer(Code.CHANGED, encode_chain_wanted())
        if not message.requests:
            assert session is not None
            self._abandon(session, "given up by the terminal", now=now)
            return ServiceAnswer(Code.CHANGED, _NOTHING)
        if session is None:
            if self._closed:
                return self._refusal(Code.SERVICE_UNAVAILABLE, self._closed)
            session = self._open(terminal, owner, message.requests[0], now=now)
            if session is None:
                self._journal.refused(owner, "no room for another session", now=now)
                return self._refusal(Code.SERVICE_UNAVAILABLE, _NO_ROOM)
        return self._perform(session, message, now=now)

    def _open(self, terminal: str, owner: str, first: Request, *, now: float) -> Session | None:
        room, oldest = self.sessions.room_for(owner)
        if oldest is not None:
            self._lose(oldest, "made room for a newer session of the same terminal", now=now)
        if not room:
            return None
        session = self.sessions.open(owner, self._authority.open(terminal), now=now)
        if isinstance(first, Opening):
            session.peer = first.peer
            session.further = first.further
            session.uninvited = first.uninvited
        return session

    def _perform(self, session: Session, message: Message, *, now: float) -> ServiceAnswer:
        """Have the operations performed; whatever goes wrong costs this session and no other."""
        try:
            responses = session.authority.perform(message.requests)
            payload = encode_responses(b"" if message.token else session.token, message.requests, responses)
        except LocumError as error:
            return self._fail(session, error, now=now)
        except Exception as error:
            # A defect of ours must not take the delegate away from everybody else. The text of an unforeseen
            # error may quote a secret, so only its kind and place are logged.
            log.error("operation failed unexpectedly", extra=whereabouts(error) | {"terminal": session.terminal})
            self._fail(session, Unavailable(f"unexpected {type(error).__name__}"), now=now)
            return ServiceAnswer(Code.INTERNAL_SERVER_ERROR, _INTERNAL)
        self._chains.remember(message.requests, responses, terminal=session.terminal)
        self._settle(session, responses, now=now)
        return ServiceAnswer(Code.CHANGED, payload)

    def _settle(self, session: Session, responses: Sequence[Response], *, now: float) -> None:
        """End the session when its peer was not accepted, has to begin anew, or its key has been handed over."""
        handed_over = False
        for response in responses:
            if isinstance(response, Verdict):
                session.verdict = response
                if not response.accepted:
                    self.sessions.end(session)
                    self.counters.rejected += 1
                    self._journal.rejected(session, now=now)
                    return
            elif response.ends_batch:
                self._abandon(session, "nothing can be made of the peer's offer; it has to begin anew", now=now)
                return
            elif response.last:
                handed_over = True
        if handed_over:
            self.sessions.end(session)
            if session.further:
                self.counters.further += 1
            else:
                self.counters.completed += 1
            self._journal.completed(session)

    def _fail(self, session: Session, error: LocumError, *, now: float) -> ServiceAnswer:
        self.sessions.end(session)
        self.counters.failed += 1
        self._journal.failed(session, error, now=now)
        code = Code.SERVICE_UNAVAILABLE if isinstance(error, (Unavailable, TimedOut)) else Code.FORBIDDEN
        return ServiceAnswer(code, encode_error(error))

    def _abandon(self, session: Session, why: str, *, now: float) -> None:
        self.sessions.end(session)
        self.counters.failed += 1
        self._journal.abandoned(session, why, now=now)

    def _lose(self, session: Session, why: str, *, now: float) -> None:
        self.sessions.end(session)
        self.counters.failed += 1
        self._journal.lost(session, why, now=now)

    def _refusal(self, code: Code, payload: bytes) -> ServiceAnswer:
        self.counters.refused += 1
        return ServiceAnswer(code, payload)

    def _too_many(self, owner: str, wait: float, *, now: float) -> ServiceAnswer:
        self._journal.refused(owner, "too many requests", now=now)
        error = Unavailable(f"too many requests from this terminal: try again in {math.ceil(wait)} s")
        return self._refusal(Code.TOO_MANY_REQUESTS, encode_error(error))
