"""A TLS connection without I/O: runs the handshake, then carries application data, key updates and tickets.

Bytes go in and out through `receive_data` and `data_to_send`; operations that the handshake asks for wait in
`pending` until somebody answers. Knows no socket, no clock and no authority.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar

from locum.crypto.symmetric import Buffer
from locum.errors import LocumError
from locum.handshake import Ask, Now, Random, Request, Response
from locum.tls import client, schedule, server
from locum.tls.alerts import (
    AlertDescription,
    AlertLevel,
    AlertReceived,
    Truncated,
    UnexpectedMessage,
    alert_for,
)
from locum.tls.configuration import ClientConfiguration
from locum.tls.incoming import Alert, ApplicationData, ChangeCipherSpecReceived, HandshakeMessage, Incoming, Item
from locum.tls.messages import serialize
from locum.tls.messages13 import KeyUpdate, NewSessionTicket
from locum.tls.outcome import Outcome
from locum.tls.receiving import message_name, parse_message
from locum.tls.record import REKEY_AFTER, RecordWriter, protection
from locum.tls.registry import CipherSuite, ContentType, HandshakeType, ProtocolVersion
from locum.tls.server_configuration import ServerConfiguration
from locum.tls.session import MAX_TICKET, SessionInfo, SessionTicket
from locum.tls.steps import (
    Handshake,
    ReadKeys,
    Receive,
    ReceiveChangeCipherSpec,
    RecordLimits,
    Send,
    SendChangeCipherSpec,
    SetVersion,
    Tolerate,
    WriteKeys,
)
from locum.values import dataclass

#: The steps that somebody else has to take.
_WAITING = frozenset((Ask, Receive, ReceiveChangeCipherSpec))

_CHANGE_CIPHER_SPEC = ContentType.CHANGE_CIPHER_SPEC

#: Bytes from the peer that may wait while the handshake waits for an authority.
MAX_WAITING = 1 << 20

#: Key updates, tickets, warnings and dummy change_cipher_specs accepted without application data between them.
MAX_IDLE_MESSAGES = 32


@dataclass(frozen=True, slots=True)
class HandshakeComplete:
    """The peer is authentic and allowed; application data may flow both ways."""

    session: SessionInfo


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Application data, in order."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TicketReceived:
    """A ticket with which a later connection can resume this session."""

    ticket: SessionTicket


@dataclass(frozen=True, slots=True)
class CloseReceived:
    """close_notify: the peer will send nothing more, and everything it sent has arrived."""


Event = HandshakeComplete | DataReceived | TicketReceived | CloseReceived


class Connection:
    """One end of a TLS connection, driven by a handshake generator.

    `random(length)` gives that many random bytes; `now()` the time in seconds since the epoch. Every method
    that takes input may raise a `LocumError`; the fitting alert then waits in `data_to_send`.
    """

    #: True for the end that says the first word: nothing may come before it, and no alert is sent.
    _begins: ClassVar[bool]
    #: TLS 1.2: the message by which the peer asks for another handshake.
    _asks_again: ClassVar[HandshakeType]

    def __init__(
        self, handshake: Handshake[Outcome], *, random: Callable[[int], bytes], now: Callable[[], float]
    ) -> None:
        self._handshake = handshake
        self._random = random
        self._now = now
        self._incoming = Incoming()
        self._writer = RecordWriter(begins=self._begins)
        self._waiting: Ask | Receive | ReceiveChangeCipherSpec | None = None
        self._version: ProtocolVersion | None = None
        self._early_change_cipher_spec = False
        self._outcome: Outcome | None = None
        self._events: list[Event] = []
        self._idle = 0
        self._error: LocumError | None = None
        self._spoken = not self._begins
        self._close_sent = self._close_received = False
        self._read_secret = self._write_secret = b""

    def __repr__(self) -> str:
        state = "failed" if self._error else "established" if self._outcome else "in handshake"
        return f"<{type(self).__name__} {state}>"

    # --- what the driver sees -----------------------------------------------------------------------------

    @property
    def pending(self) -> tuple[Request, ...] | None:
        """The operations that the handshake waits for; answer them with `answer` or `fail`."""
        return self._waiting.requests if type(self._waiting) is Ask else None

    @property
    def handshake_complete(self) -> bool:
        """True once application data may flow."""
        return self._outcome is not None

    @property
    def wants_data(self) -> bool:
        """False while bytes from the peer would only pile up, or after the end."""
        return self.pending is None and self._error is None and not self._close_received

    @property
    def close_sent(self) -> bool:
        """True once close_notify was sent: by `close`, or in TLS 1.2 in answer to the peer's."""
        return self._close_sent

    @property
    def session(self) -> SessionInfo | None:
        """The session's facts once the handshake is complete."""
        return self._outcome.session if self._outcome is not None else None

    def start(self) -> None:
        """Begin: a client asks for the first operation, a server is ready to receive."""
        self._guarded(lambda: self._advance(None))

    def answer(self, responses: tuple[Response, ...]) -> None:
        """The pending operations were performed; goes on, also with bytes that waited meanwhile.

        Raises: LocumError when the responses or the waiting bytes end the handshake.
        """
        if self.pending is None:
            raise RuntimeError("no operation is pending")
        self._guarded(lambda: self._go_on(responses))

    def fail(self, error: LocumError) -> None:
        """The pending operations were not performed; the handshake ends with an alert, and raises `error`."""
        if self.pending is None:
            raise RuntimeError("no operation is pending")
        self._guarded(lambda: self._throw(error))

    def receive_data(self, data: Buffer) -> None:
        """Bytes from the peer; none at all mean the end of the stream.

        Raises: LocumError when they end the connection.
        """
        if self._error is not None:
            raise self._error
        if self._close_received:
            return
        self._guarded(lambda: self._receive(data))

    def data_to_send(self) -> bytes | bytearray:
        """Bytes for the peer that have collected since the last call."""
        return self._writer.take()

    def events(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def send_data(self, data: Buffer) -> None:
        """Send application data; the key is updated in time."""
        self._check_writable()
        if self._writer.protection is not None and self._writer.protection.sequence >= REKEY_AFTER:
            self.update_keys()
        self._writer.write(ContentType.APPLICATION_DATA, data)

    def update_keys(self, *, request_peer: bool = False) -> None:
        """Change the key of what we send, and ask the peer for the same if `request_peer`.

        Does nothing in TLS 1.2, which has no such message (RFC 8446 section 4.6.3).
        """
        self._check_writable()
        suite = self._suite
        if suite.version is not ProtocolVersion.TLS_1_3:
            return
        self._writer.write(ContentType.HANDSHAKE, serialize(KeyUpdate(update_requested=request_peer)))
        self._write_secret = schedule.next_traffic_secret(suite.hash, self._write_secret)
        self._writer.protection = protection(suite, *schedule.traffic_keys(suite, self._write_secret))

    def close(self) -> None:
        """Send close_notify; nothing can be sent afterwards. Closing twice is harmless."""
        if self._close_sent or self._error is not None or not self._spoken:
            return
        self._close_sent = True
        self._writer.write(ContentType.ALERT, bytes((AlertLevel.WARNING, AlertDescription.CLOSE_NOTIFY)))

    # --- the end in error -----------------------------------------------------------------------------------

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except LocumError as error:
            self._end(error)
            raise

    def _end(self, error: LocumError) -> None:
        self._error = error
        self._waiting = None
        self._handshake.close()
        self._read_secret = self._write_secret = b""
        alert = alert_for(error)
        # Before the ClientHello there is nobody to tell.
        if alert is not None and self._spoken and not self._close_sent:
            self._writer.write(ContentType.ALERT, bytes((AlertLevel.FATAL, alert)))

    def _check_writable(self) -> None:
        if self._error is not None:
            raise self._error
        if self._outcome is None:
            raise RuntimeError("the handshake is not complete")
        if self._close_sent:
            raise RuntimeError("close_notify has been sent")

    # --- the handshake's steps --------------------------------------------------------------------------------

    def _advance(self, value: Any) -> None:
        """Send `value` into the handshake and carry out its steps until it waits or ends."""
        self._waiting = None
        send = self._handshake.send
        while True:
            try:
                step = send(value)
            except StopIteration as stop:
                self._complete(stop.value)
                return
            if type(step) in _WAITING:
                self._waiting = step
                return
            value = self._carry_out(step)

    def _throw(self, error: LocumError) -> None:
        self._waiting = None
        self._handshake.throw(error)

    def _carry_out(self, step: Any) -> Any:
        handler = self._steps.get(type(step))
        if handler is None:
            raise TypeError(f"a handshake yielded {step!r}")
        return handler(self, step)

    def _send(self, step: Send) -> None:
        self._spoken = True
        self._writer.write(ContentType.HANDSHAKE, step.message)

    def _read_keys(self, step: ReadKeys) -> None:
        if self._incoming.inside_message:
            raise UnexpectedMessage("a handshake message that spans a change of keys")
        self._incoming.records.protection = protection(step.suite, step.key, step.iv)

    def _write_keys(self, step: WriteKeys) -> None:
        self._writer.protection = protection(step.suite, step.key, step.iv)

    def _record_limits(self, step: RecordLimits) -> None:
        self._writer.limit = step.send
        self._incoming.records.limit = step.receive

    #: One handshake takes a dozen steps, so they are found by their type.
    _steps: ClassVar[dict[type, Callable[[Any, Any], Any]]] = {
        Random: lambda self, step: self._random(step.length),
        Now: lambda self, step: self._now(),
        Send: _send,
        SendChangeCipherSpec: lambda self, step: self._writer.write_unprotected(_CHANGE_CIPHER_SPEC, b"\x01"),
        SetVersion: lambda self, step: self._set_version(step.version),
        ReadKeys: _read_keys,
        WriteKeys: _write_keys,
        RecordLimits: _record_limits,
        Tolerate: lambda self, step: self._incoming.records.tolerate(step.early_data),
    }

    def _set_version(self, version: ProtocolVersion) -> None:
        self._version = version
        self._incoming.records.version = version
        if version is ProtocolVersion.TLS_1_2 and self._early_change_cipher_spec:
            raise UnexpectedMessage("change_cipher_spec before ServerHello")

    def _complete(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._idle = 0
        if outcome.secrets is not None:
            self._read_secret, self._write_secret = outcome.secrets.read, outcome.secrets.write
        self._events.append(HandshakeComplete(outcome.session))
        self._events += [TicketReceived(ticket) for ticket in outcome.tickets]

    # --- what the peer sends ------------------------------------------------------------------------------------

    def _receive(self, data: Buffer) -> None:
        if not data:
            during = "" if self._outcome is not None else " during the handshake"
            raise Truncated(f"the peer ended the stream{during} without close_notify")
        self._incoming.feed(data)
        if self.pending is not None:
            if self._incoming.records.waiting > MAX_WAITING:
                raise UnexpectedMessage(f"more than {MAX_WAITING} bytes while the handshake waits")
            return
        self._pump()

    def _go_on(self, responses: tuple[Response, ...]) -> None:
        self._advance(responses)
        self._pump()

    def _pump(self) -> None:
        """Take items one at a time: each may change the key under which the next is read."""
        while type(self._waiting) is not Ask and not self._close_received:
            item = self._incoming.next()
            if item is None:
                return
            if isinstance(item, Alert):
                self._alert(item)
            elif self._outcome is None:
                self._in_handshake(item)
            else:
                self._established(item)

    def _count_idle(self, what: str) -> None:
        self._idle += 1
        if self._idle > MAX_IDLE_MESSAGES:
            raise UnexpectedMessage(f"more than {MAX_IDLE_MESSAGES} times {what} without data")

    def _in_handshake(self, item: Item) -> None:
        if isinstance(item, HandshakeMessage):
            if not isinstance(self._waiting, Receive):
                raise UnexpectedMessage(f"{message_name(item.code)} where change_cipher_spec is due")
            if not self._ignored(item.code):
                self._advance((item.code, item.raw))
        elif isinstance(item, ChangeCipherSpecReceived):
            self._change_cipher_spec()
        else:
            raise UnexpectedMessage("application data during the handshake")

    def _ignored(self, code: int) -> bool:
        """True for a message that is dropped during the handshake, and is not part of it."""
        return False

    def _change_cipher_spec(self) -> None:
        if isinstance(self._waiting, ReceiveChangeCipherSpec):
            self._advance(None)
            return
        if self._version is ProtocolVersion.TLS_1_2 or (self._version is None and not self._begins):
            raise UnexpectedMessage("change_cipher_spec out of turn")
        # RFC 8446 section 5: dropped "at any time after the first ClientHello message has been sent or received".
        self._early_change_cipher_spec |= self._version is None
        self._count_idle("change_cipher_spec")

    def _alert(self, alert: Alert) -> None:
        if alert.description == AlertDescription.CLOSE_NOTIFY:
            if self._outcome is None:
                raise AlertReceived(alert.description)
            self._close_received = True
            self._events.append(CloseReceived())
            if self._version is ProtocolVersion.TLS_1_2:
                # RFC 5246 section 7.2.1: "MUST respond with a close_notify alert of its own".
                self.close()
            return
        tolerated = alert.description == AlertDescription.USER_CANCELED or (
            self._version is not ProtocolVersion.TLS_1_3 and alert.level == AlertLevel.WARNING
        )
        if not tolerated:
            raise AlertReceived(alert.description)
        self._count_idle("a warning")

    def _established(self, item: Item) -> None:
        match item:
            case ApplicationData(data):
                if data:
                    self._idle = 0
                    self._events.append(DataReceived(data))
            case HandshakeMessage(code, raw):
                self._post_handshake(code, raw)
            case _:
                raise UnexpectedMessage("change_cipher_spec after the handshake")

    def _post_handshake(self, code: int, raw: bytes) -> None:
        self._count_idle(message_name(code))
        if self._version is ProtocolVersion.TLS_1_2:
            if code != self._asks_again:
                raise UnexpectedMessage(f"{message_name(code)} after the handshake")
            if not self._close_sent:
                refusal = bytes((AlertLevel.WARNING, AlertDescription.NO_RENEGOTIATION))
                self._writer.write(ContentType.ALERT, refusal)
        else:
            self._post_handshake13(code, raw)

    def _post_handshake13(self, code: int, raw: bytes) -> None:
        if code != HandshakeType.KEY_UPDATE:
            raise UnexpectedMessage(f"{message_name(code)} after the handshake")
        self._key_update(parse_message(KeyUpdate, raw))

    # --- TLS 1.3 after the handshake (RFC 8446 section 4.6) -----------------------------------------------------

    @property
    def _suite(self) -> CipherSuite:
        assert self._outcome is not None
        return self._outcome.session.cipher_suite

    def _key_update(self, message: KeyUpdate) -> None:
        if self._incoming.inside_message:
            raise UnexpectedMessage("a KeyUpdate that is not the last of its record")
        suite = self._suite
        self._read_secret = schedule.next_traffic_secret(suite.hash, self._read_secret)
        keys = schedule.traffic_keys(suite, self._read_secret)
        self._incoming.records.protection = protection(suite, *keys)
        if message.update_requested and not self._close_sent:
            self.update_keys()


class ClientConnection(Connection):
    """A TLS client: asks for everything that needs a public key, so that a delegate can do it (A10)."""

    _begins = True
    _asks_again = HandshakeType.HELLO_REQUEST

    def __init__(
        self,
        configuration: ClientConfiguration,
        *,
        random: Callable[[int], bytes],
        now: Callable[[], float],
    ) -> None:
        super().__init__(client.handshake(configuration), random=random, now=now)

    def _ignored(self, code: int) -> bool:
        if code != HandshakeType.HELLO_REQUEST or self._version is not ProtocolVersion.TLS_1_2:
            return False
        # RFC 5246 section 7.4.1.1: "ignored by the client if [it] is currently negotiating".
        self._count_idle("HelloRequest")
        return True

    def _post_handshake13(self, code: int, raw: bytes) -> None:
        if code == HandshakeType.NEW_SESSION_TICKET:
            self._ticket(parse_message(NewSessionTicket, raw))
        else:
            super()._post_handshake13(code, raw)

    def _ticket(self, message: NewSessionTicket) -> None:
        outcome = self._outcome
        if outcome is None or outcome.secrets is None or message.lifetime == 0 or len(message.ticket) > MAX_TICKET:
            return
        session, suite = outcome.session, self._suite
        ticket = SessionTicket(
            version=ProtocolVersion.TLS_1_3,
            suite=suite,
            server_name=session.server_name,
            peer_identity=session.peer_identity,
            ticket=message.ticket,
            secret=schedule.resumption_psk(suite.hash, outcome.secrets.resumption, message.nonce),
            issued_at=self._now(),
            lifetime=message.lifetime,
            age_add=message.age_add,
        )
        self._events.append(TicketReceived(ticket))


class ServerConnection(Connection):
    """A TLS server: asks for key shares, signatures and secrets, as in `server_operations` (C1, C2).

    Beside `HandshakeComplete` it has no event of a handshake's: its session says what a client certificate
    proved (`peer_identity`) and which name the client asked for (`server_name`).
    """

    _begins = False
    _asks_again = HandshakeType.CLIENT_HELLO

    def __init__(
        self,
        configuration: ServerConfiguration,
        *,
        random: Callable[[int], bytes],
        now: Callable[[], float],
    ) -> None:
        super().__init__(server.handshake(configuration), random=random, now=now)
