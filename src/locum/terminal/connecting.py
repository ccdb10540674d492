"""Connecting to a peer with the help of the delegates, without I/O: dial, negotiate, next delegate (A12).

Never opens a socket: a generator that yields what it needs done, and a driver, asyncio or blocking, does it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import field
from typing import Any, Generic

from locum.authority.remote import RemoteSession
from locum.errors import LocumError, Unavailable
from locum.link.coap import Code
from locum.terminal.channel import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Answer,
    Attempts,
    DelegateFailed,
)
from locum.terminal.device import C, Device
from locum.terminal.flow import Flow
from locum.terminal.negotiation import Established, Negotiation, Wants
from locum.terminal.options import TlsOptions, configuration
from locum.terminal.steps import Actor, Observer, StepName, TerminalStep
from locum.text import what_failed
from locum.tls.connection import ClientConnection
from locum.values import dataclass


@dataclass(frozen=True, slots=True)
class Dial:
    """A step: open a TCP connection to the peer; the driver sends back its textual IP address."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """A step: end the TCP connection to the peer, after what was sent on it has left."""


@dataclass(frozen=True, slots=True)
class SendToPeer:
    """A step: send these bytes to the peer."""

    data: bytes | bytearray = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReadFromPeer:
    """A step: the driver sends back bytes from the peer, at least one; none at all at the end of its stream."""


@dataclass(frozen=True, slots=True)
class EnterChannel:
    """A step: wait until this delegate may be asked about one more handshake, which ends with `leave`.

    `deadline` is in seconds of the clock that connecting goes by; the driver throws `DelegateFailed` then.
    """

    delegate: str
    deadline: float


@dataclass(frozen=True, slots=True)
class AskDelegate:
    """A step: post `payload` to this delegate; the driver sends back an `Answer` or throws `DelegateFailed`.

    `deadline` is in seconds of the clock that connecting goes by.
    """

    delegate: str
    payload: bytes = field(repr=False)
    deadline: float


@dataclass(frozen=True, slots=True)
class Pause:
    """A step: let so many seconds pass."""

    seconds: float


Step = Dial | HangUp | SendToPeer | ReadFromPeer | EnterChannel | AskDelegate | Pause


def connecting(
    device: Device[C],
    host: str,
    port: int,
    options: TlsOptions,
    *,
    clock: Callable[[], float],
    timeout: float,
) -> Generator[Step, Any, Established]:
    """Yield what has to be done until there is a session with the peer, and return it.

    A delegate that fails before the peer was sent anything is replaced on the same TCP connection; after that,
    everything is begun anew with the next one, once. The driver throws LocumErrors into the generator.
    `clock` and `timeout` are in seconds. Raises: LocumError.
    """
    # A mistake of the caller is told before anybody is bothered.
    configuration(options, host=host, peer_address="")
    now = clock()
    attempts = Attempts(device.delegates, now=now, deadline=now + timeout)
    address: str | None = None
    while True:
        delegate = attempts.next()
        if address is None:
            address = yield Dial()
        wishes = configuration(options, host=host, peer_address=address)
        engine = ClientConnection(wishes, random=os.urandom, now=time.time)
        attempt = _Attempt(device, delegate, engine, peer=f"{host}:{port}", clock=clock)
        try:
            established = yield from attempt.run(attempts)
        except DelegateFailed as error:
            attempts.failed(error, peer_touched=attempt.peer_touched, now=clock())
            _tell(device.observer, f"after {error}")
            if attempt.peer_touched:
                yield HangUp()
                address = None
        else:
            attempts.worked(delegate)
            return established


def _tell(observer: Observer, detail: str) -> None:
    observer(TerminalStep(actor=Actor.TERMINAL, operation=StepName.NEXT_DELEGATE, detail=detail))


class _Attempt(Generic[C]):
    """One handshake with the help of one delegate."""

    def __init__(
        self, device: Device[C], delegate: str, engine: ClientConnection, *, peer: str, clock: Callable[[], float]
    ) -> None:
        self.peer_touched = False
        self._entered = False
        self._delegate = delegate
        self._clock = clock
        self._channel = device.channels.get(delegate)
        flow = Flow(peer=peer, observer=device.observer)
        secure = self._channel is None or self._channel.secure_path
        if not secure:
            device.keys.set_channel_key(delegate, self._channel)
        flow.path(delegate, secure=secure, keys=device.keys)
        self._negotiation = Negotiation(
            engine,
            flow,
            keys=device.keys,
            clock=clock,
            authority=RemoteSession() if device.authority is None else device.authority.open(device.name),
            observer=device.observer,
        )

    def run(self, attempts: Attempts) -> Generator[Step, Any, Established]:
        """The steps of the handshake. Raises: LocumError; `DelegateFailed` where another delegate may help."""
        negotiation = self._negotiation
        try:
            yield from self._enter(attempts)
            negotiation.start()
            while negotiation.wants is not Wants.NOTHING:
                yield from self._send()
                if negotiation.wants is Wants.DELEGATE:
                    yield from self._ask(attempts)
                else:
                    yield from self._read()
            yield from self._send()
        except LocumError:
            if self.peer_touched:
                # That the alert does not get through any more must not hide why it was to be sent.
                with suppress(LocumError):
                    yield from self._send()
            raise
        finally:
            self._forget()
        assert negotiation.established is not None
        return negotiation.established

    def _enter(self, attempts: Attempts) -> Generator[Step, Any, None]:
        if self._channel is not None:
            yield EnterChannel(self._delegate, attempts.answer_deadline(self._clock()))
            self._entered = True

    def _send(self) -> Generator[Step, Any, None]:
        if data := self._negotiation.to_peer():
            self.peer_touched = True
            yield SendToPeer(data)

    def _read(self) -> Generator[Step, Any, None]:
        try:
            data = yield ReadFromPeer()
        except LocumError as error:
            self._negotiation.fail(error)
            raise
        self._negotiation.receive(data)

    def _ask(self, attempts: Attempts) -> Generator[Step, Any, None]:
        payload = self._negotiation.delegate_payload()
        deadline = attempts.answer_deadline(self._clock())
        pause = FIRST_PAUSE
        try:
            answer: Answer = yield AskDelegate(self._delegate, payload, deadline)
            # Such an answer means that the request was not looked at, so it may be repeated.
            while answer.code == Code.TOO_MANY_REQUESTS and self._clock() + pause < deadline:
                yield Pause(pause * (0.5 + os.urandom(1)[0] / 510))
                pause = min(2 * pause, LONGEST_PAUSE)
                answer = yield AskDelegate(self._delegate, payload, deadline)
        except LocumError as error:
            self._negotiation.fail(error)
            raise
        self._negotiation.answered(answer)

    def _forget(self) -> None:
        """Whatever the outcome, nobody keeps more of this handshake than is needed."""
        self._negotiation.close()
        payload = self._negotiation.close_payload()
        if self._channel is not None:
            if payload:
                self._channel.tell(payload)
            if self._entered:
                self._channel.leave()


def unreachable(peer: str, error: OSError) -> Unavailable:
    """The error for a peer that TCP cannot reach, or has lost."""
    return Unavailable(f"{peer}: {what_failed(error)}")
