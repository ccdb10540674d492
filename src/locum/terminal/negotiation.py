"""One delegated handshake without I/O: TLS engine, flow of figs 4-5 and delegate's session, joined (A1, A2, A10).

Never opens a socket, never reads a clock by itself, and knows no public-key code: whoever drives it moves bytes
between it, the peer and the delegate, and asks `wants` what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto

from locum.authority.port import AuthoritySession
from locum.authority.remote import RemoteSession, Resend
from locum.crypto.symmetric import Buffer
from locum.errors import LocumError, TimedOut, Unavailable
from locum.handshake import Request, Response
from locum.terminal.channel import Answer, DelegateFailed
from locum.terminal.cipher_keys import CipherKeyDatabase, SessionKey
from locum.terminal.flow import Flow
from locum.terminal.steps import Actor, Cost, Observer, StepName, TerminalStep, ignore
from locum.tls.connection import ClientConnection, Event, HandshakeComplete
from locum.tls.session import SessionInfo
from locum.values import dataclass

SessionKeys = CipherKeyDatabase[ClientConnection]


class Wants(Enum):
    """Whose turn it is."""

    PEER = auto()
    DELEGATE = auto()
    NOTHING = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Established:
    """The outcome: the entry in the cipher-key database, the session's facts, and events after the handshake."""

    key: SessionKey[ClientConnection]
    info: SessionInfo
    events: tuple[Event, ...]


class Negotiation:
    """The handshake of one connection with one delegate.

    `start` it; while `wants` is PEER, pass on `to_peer` and give `receive` what comes; while it is DELEGATE, pass
    `delegate_payload` on and give `answered` what comes. When it is NOTHING there is `established`; send
    `to_peer` once more. Methods raise LocumError when the handshake fails; `to_peer` then still holds the alert.
    """

    def __init__(
        self,
        connection: ClientConnection,
        flow: Flow,
        *,
        keys: SessionKeys,
        clock: Callable[[], float],
        authority: AuthoritySession | RemoteSession,
        observer: Observer = ignore,
    ) -> None:
        self.wants = Wants.PEER
        self.established: Established | None = None
        self._connection = connection
        self._flow = flow
        self._keys = keys
        self._clock = clock
        self._observer = observer
        self._remote = authority if isinstance(authority, RemoteSession) else None
        self._local = None if isinstance(authority, RemoteSession) else authority
        self._hello_sent = False
        self._asked: tuple[Request, ...] = ()
        self._payload = b""
        self._cost = Cost()
        self._round = _Round(clock())

    def start(self) -> None:
        """Ask for the first operation, the start (S3)."""
        with self._failing():
            self._connection.start()
            self._advance()

    def to_peer(self) -> bytes | bytearray:
        """What the peer is to be sent now; also after a failure, when it is the alert."""
        data = self._connection.data_to_send()
        if data:
            self._round.sent(
                len(data), self._clock(), first=not self._hello_sent, last=self.wants is Wants.NOTHING
            )
            self._hello_sent = True
            if self.wants is Wants.NOTHING:
                self._end_of_round()
        return data

    def receive(self, data: Buffer) -> None:
        """Take bytes from the peer; empty means that its stream has ended."""
        self._round.received(len(data), self._clock())
        with self._failing():
            self._connection.receive_data(data)
            self._advance()

    def delegate_payload(self) -> bytes:
        """The message that the delegate is to be sent, while `wants` is DELEGATE."""
        return self._payload

    def answered(self, answer: Answer) -> None:
        """Take the delegate's answer to `delegate_payload`."""
        assert self._remote is not None
        with self._failing():
            with self._alerting():
                responses = self._decoded(answer)
            cost, self._cost = self._cost + answer.cost, Cost()
            if isinstance(responses, Resend):
                self._payload, self._cost = responses.payload, cost
                return
            with self._alerting():
                self._flow.answered(self._asked, responses, cost=cost)
            self._connection.answer(responses)
            self._advance()

    def _decoded(self, answer: Answer) -> tuple[Response, ...] | Resend:
        """What the delegate answered; `DelegateFailed` where another delegate may do better."""
        assert self._remote is not None
        try:
            return self._remote.decode(answer.payload, answer.code)
        except (Unavailable, TimedOut) as error:
            raise DelegateFailed(answer.delegate, error) from None

    def fail(self, error: LocumError) -> None:
        """The delegate could not be asked: end the handshake. The alert for the peer is in `to_peer`."""
        self._alert(error)
        self._flow.failed(error)

    def close_payload(self) -> bytes:
        """The message by which the delegate forgets this session, or nothing when there is nothing to forget."""
        return self._remote.close_payload() if self._remote is not None else b""

    def close(self) -> None:
        """Make a local authority forget this session."""
        if self._local is not None:
            self._local.close()

    def _advance(self) -> None:
        """Have what the handshake waits for performed, or find out what it wants next."""
        self.wants = Wants.PEER
        while (requests := self._connection.pending) is not None:
            self._end_of_round()
            with self._alerting():
                self._flow.ask(requests)
                if self._local is None:
                    self._ask_delegate(requests)
                    return
                started = self._clock()
                responses = self._local.perform(requests)
                self._flow.answered(requests, responses, cost=Cost(seconds=self._clock() - started))
            self._connection.answer(responses)
        if self._connection.handshake_complete:
            self._complete()

    def _ask_delegate(self, requests: tuple[Request, ...]) -> None:
        assert self._remote is not None
        self._asked = requests
        self._payload = self._remote.encode(requests)
        self.wants = Wants.DELEGATE

    def _complete(self) -> None:
        events = self._connection.events()
        info = next(event.session for event in events if isinstance(event, HandshakeComplete))
        rest = tuple(event for event in events if not isinstance(event, HandshakeComplete))
        with self._alerting():
            key = self._flow.complete(self._connection, keys=self._keys, resumed=info.resumed, now=self._clock())
        self.established = Established(key=key, info=info, events=rest)
        self.wants = Wants.NOTHING

    def _end_of_round(self) -> None:
        if step := self._round.step():
            self._observer(step)
        self._round = _Round(self._clock())

    @contextmanager
    def _alerting(self) -> Iterator[None]:
        """An error in here is not the engine's own: tell it, so that the peer gets an alert."""
        try:
            yield
        except LocumError as error:
            self._alert(error)
            raise

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """An error in here is the end of the handshake (S19)."""
        try:
            yield
        except LocumError as error:
            self._flow.failed(error)
            raise

    def _alert(self, error: LocumError) -> None:
        if self._connection.pending is None:
            self._connection.close()
            return
        # The engine raises the error it was given, after it has queued the alert for it.
        with suppress(LocumError):
            self._connection.fail(error)


class _Round:
    """The bytes to and from the peer between two operations."""

    __slots__ = ("_bytes_in", "_bytes_out", "_detail", "_ended", "_started")

    def __init__(self, now: float) -> None:
        self._started = self._ended = now
        self._bytes_in = self._bytes_out = 0
        self._detail = "handshake messages"

    def sent(self, length: int, now: float, *, first: bool, last: bool) -> None:
        """Count bytes sent at `now`, the first of the handshake or the last."""
        if not self._bytes_out and not self._bytes_in:
            self._started = self._ended = now
        self._bytes_out += length
        if first:
            self._detail = "ClientHello and the answer"
        elif last:
            self._detail = "Finished"

    def received(self, length: int, now: float) -> None:
        """Count bytes received at `now`."""
        self._bytes_in += length
        self._ended = now

    def step(self) -> TerminalStep | None:
        """What to tell the observer, if anything happened."""
        if not self._bytes_in and not self._bytes_out:
            return None
        return TerminalStep(
            actor=Actor.PEER,
            operation=StepName.TLS,
            detail=self._detail,
            bytes_out=self._bytes_out,
            bytes_in=self._bytes_in,
            seconds=self._ended - self._started,
        )
