"""TLS as an asyncio transport over a TCP connection: the handshake's bytes first, then the application's.

Never knows who makes the handshake, nor at which end this is. Flow control runs through in both directions: a
paused application pauses TCP, and a full TCP buffer pauses the application.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

from locum.crypto.symmetric import Buffer
from locum.errors import LocumError, Misbehaved, Unavailable
from locum.text import what_failed
from locum.tls.connection import CloseReceived, Connection, DataReceived, Event, TicketReceived
from locum.tls.registry import ProtocolVersion
from locum.tls.session import SessionInfo, SessionTicket

#: Bytes taken from TCP at once: sixteen full records and what surrounds them.
READ_BUFFER = 16 * (16_384 + 300)

#: Bytes from the peer kept while the handshake waits for others; TCP is paused beyond.
HANDSHAKE_BACKLOG = 262_144

#: Plaintext bytes sealed before TCP gets them, so that one great write does not double in memory.
WRITE_CHUNK = 262_144

#: Seconds that a closed connection waits for the peer's end of the stream, and for more of its own bytes to leave.
CLOSE_TIMEOUT = 5.0

#: Bytes of answers to the peer's KeyUpdates and the like that it has not taken, before it is cut off.
ANSWERS_LIMIT = 65_536

#: Session tickets kept for `get_extra_info("session_tickets")`, the latest.
MAXIMUM_TICKETS = 8


class _Room(threading.local):
    """Where bytes from TCP arrive. They are taken out before the event loop, one for each thread, goes on."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_BUFFER))


_room = _Room()


def read_room() -> memoryview:
    """This thread's room for what TCP brings, `READ_BUFFER` bytes: for protocols that keep none of it there."""
    return _room.view


class Wire(asyncio.BufferedProtocol):
    """The TCP connection to the peer: a mailbox during the handshake, the wire under `TlsTransport` after it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._view = read_room()
        self._inbox = bytearray()
        self._ended = False
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._tls: TlsTransport | None = None
        self._lost: OSError | None = None
        self.tcp: asyncio.Transport

    @property
    def peer_address(self) -> str:
        """The textual IP address of the peer."""
        name: tuple[Any, ...] = self.tcp.get_extra_info("peername") or ("",)
        return str(name[0]).partition("%")[0]

    # --- handshake ----------------------------------------------------------------------------------------

    async def read(self) -> bytes:
        """Whatever the peer sent since the last call, at least one byte; empty at the end of its stream.

        Raises: OSError when TCP lost the peer.
        """
        if not self._inbox and not self._ended:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._lost is not None and not self._inbox:
            raise self._lost
        data = bytes(self._inbox)
        self._inbox.clear()
        if self._paused:
            self._paused = False
            self.tcp.resume_reading()
        return data

    def send(self, data: Buffer) -> None:
        """Send bytes, unless TCP is gone already; that is heard of by reading."""
        if not self.tcp.is_closing():
            self.tcp.write(data)

    def attach(self, tls: TlsTransport) -> None:
        """The handshake is complete: everything from now on, and what is in the mailbox, goes to `tls`."""
        self._tls = tls
        if self._paused:
            self._paused = False
            if tls.is_reading():
                self.tcp.resume_reading()
        if self._inbox:
            tls.received(bytes(self._inbox))
            self._inbox.clear()
        if self._ended:
            tls.ended()

    # --- asyncio ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.tcp = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        if self._tls is not None:
            self._tls.received(self._view[:nbytes])
            return
        self._inbox += self._view[:nbytes]
        if len(self._inbox) > HANDSHAKE_BACKLOG and not self._paused:
            self._paused = True
            self.tcp.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return self._tls.ended() if self._tls is not None else True

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._lost = exc if isinstance(exc, OSError) else None
        self._wake()
        # What is over refers to itself no more: it goes at once, and not when the collector finds it.
        tls, self._tls = self._tls, None
        if tls is not None:
            tls.lost(exc)

    def pause_writing(self) -> None:
        if self._tls is not None:
            self._tls.application.pause_writing()

    def resume_writing(self) -> None:
        if self._tls is not None:
            self._tls.application.resume_writing()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class TlsTransport(asyncio.Transport):
    """An established session as an application sees it.

    `write_eof` sends close_notify and leaves the other direction open. `close` sends it too, then waits up to
    `CLOSE_TIMEOUT` for the peer's end. A stream that ends without close_notify reaches the application as
    `connection_lost` with a `Truncated` error, never as an end of file.

    `get_extra_info` knows ``tls`` (`SessionInfo`), ``session_tickets`` (the latest, a tuple) and what TCP knows.
    """

    def __init__(
        self,
        wire: Wire,
        connection: Connection,
        *,
        peer: str,
        application: asyncio.Protocol,
        events: Iterable[Event] = (),
        on_ticket: Callable[[SessionTicket], None] | None = None,
    ) -> None:
        """`events` are those of `connection` that came after the end of its handshake; `peer` is for people."""
        super().__init__()
        assert connection.session is not None
        self.application = application
        self.peer = peer
        self._wire = wire
        self._tcp = wire.tcp
        self._connection = connection
        self._info: SessionInfo = connection.session
        self._on_ticket = on_ticket
        self._tickets: deque[SessionTicket] = deque(maxlen=MAXIMUM_TICKETS)
        self._closing = False
        self._close_notify_sent = False
        self._end_received = False
        self._application_paused = False
        self._error: Exception | None = None
        self._answers = 0
        self._close_timer: asyncio.TimerHandle | None = None
        self._begin = tuple(events)

    @property
    def engine(self) -> Connection:
        """The connection that seals and opens."""
        return self._connection

    def begin(self) -> None:
        """Introduce the application to its transport and hand over what has already arrived."""
        self.application.connection_made(self)
        self._dispatch(self._begin)
        self._begin = ()
        self._wire.attach(self)

    def gone(self) -> None:
        """TCP has ended, and with it the session; for those who keep account of sessions."""

    # --- from the wire ------------------------------------------------------------------------------------

    def received(self, data: Buffer) -> None:
        """Records from the peer."""
        if self._closing or self._end_received:
            return
        connection = self.engine
        try:
            connection.receive_data(data)
        except LocumError as error:
            self._flush(connection)
            self._break(error)
            return
        self._answer(connection)
        self._dispatch(connection.events())

    def ended(self) -> bool:
        """The peer's stream has ended; returns True when TCP is to stay open for writing."""
        if self._closing:
            return False
        if not self._end_received:
            try:
                self.engine.receive_data(b"")
            except LocumError as error:
                self._break(error)
                return False
        return not self._closing

    def lost(self, error: Exception | None) -> None:
        """TCP is gone."""
        if self._close_timer is not None:
            self._close_timer.cancel()
        cause = self._error
        if cause is None and not self._closing and not self._end_received:
            reason = what_failed(error) if isinstance(error, OSError) else "closed"
            cause = Unavailable(f"the connection to {self.peer} was lost: {reason}")
        self._closing = True
        self.gone()
        self.application.connection_lost(cause)

    def _dispatch(self, events: Iterable[Event]) -> None:
        """Tell the application; the content of records that came together in one piece."""
        pieces: list[bytes] = []
        for event in events:
            if isinstance(event, DataReceived):
                pieces.append(event.data)
                continue
            self._deliver(pieces)
            if self._closing:
                return
            if isinstance(event, TicketReceived):
                self._tickets.append(event.ticket)
                if self._on_ticket is not None:
                    self._on_ticket(event.ticket)
            elif isinstance(event, CloseReceived):
                self._end_received = True
                stays_open = self.application.eof_received()
                if not stays_open or self._info.version is ProtocolVersion.TLS_1_2:
                    # RFC 5246 section 7.2.1: "close down the connection immediately".
                    self.close()
        self._deliver(pieces)

    def _deliver(self, pieces: list[bytes]) -> None:
        if pieces and not self._closing:
            self.application.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        pieces.clear()

    def _break(self, error: LocumError) -> None:
        """The session is over because of `error`; the alert for it, if any, is on its way."""
        self._error = error
        self._closing = True
        self._linger()

    # --- from the application -----------------------------------------------------------------------------

    def write(self, data: Buffer) -> None:
        if self._close_notify_sent or self._closing:
            if self._closing:
                return
            raise RuntimeError("write after write_eof")
        connection = self.engine
        if connection.close_sent:
            # RFC 5246 section 7.2.1: the peer's close_notify discards what is still to be written.
            return
        if len(data) <= WRITE_CHUNK:
            connection.send_data(data)
            self._flush(connection)
            return
        with memoryview(data).cast("B") as view:
            for start in range(0, len(view), WRITE_CHUNK):
                connection.send_data(view[start : start + WRITE_CHUNK])
                self._flush(connection)

    def write_eof(self) -> None:
        if not self._close_notify_sent and not self._closing:
            self._close_notify_sent = True
            connection = self.engine
            connection.close()
            self._flush(connection)

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if self._closing:
            return
        self.write_eof()
        self._closing = True
        self._linger()

    def abort(self) -> None:
        self._closing = True
        self._tcp.abort()

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._application_paused = True
        if not self._closing:
            self._tcp.pause_reading()

    def resume_reading(self) -> None:
        self._application_paused = False
        if not self._closing:
            self._tcp.resume_reading()

    def is_reading(self) -> bool:
        return not self._application_paused and not self._closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._tcp.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._tcp.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._tcp.get_write_buffer_limits()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.application

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.application = cast(asyncio.Protocol, protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        match name:
            case "tls":
                return self._info
            case "session_tickets":
                return tuple(self._tickets)
            case _:
                return self._tcp.get_extra_info(name, default)

    def _answer(self, connection: Connection) -> None:
        """Send what the peer's messages demand. An application can be paused, and one who demands cannot."""
        data = connection.data_to_send()
        if not data:
            return
        self._answers = len(data) + (self._answers if self._tcp.get_write_buffer_size() else 0)
        self._wire.send(data)
        if self._answers > ANSWERS_LIMIT:
            self._error = Misbehaved(f"{self.peer} demands more and more answers, and takes none")
            self.abort()

    def _flush(self, connection: Connection) -> None:
        data = connection.data_to_send()
        if data:
            self._wire.send(data)

    def _linger(self) -> None:
        """Let the last bytes leave and the peer end its stream: closing at once could destroy both."""
        if self._application_paused:
            self._tcp.resume_reading()
        if self._tcp.is_closing():
            return
        left = self._tcp.get_write_buffer_size()
        if self._end_received or self._error is not None:
            self._tcp.close()
            if not left:
                return
        elif self._tcp.can_write_eof():
            self._tcp.write_eof()
        self._watch_close(left)

    def _watch_close(self, left: int) -> None:
        loop = asyncio.get_running_loop()
        self._close_timer = loop.call_later(CLOSE_TIMEOUT, self._close_overdue, left)

    def _close_overdue(self, left: int) -> None:
        """`CLOSE_TIMEOUT` has passed: go on only while bytes are still leaving, of which there were `left`."""
        now_left = self._tcp.get_write_buffer_size()
        if not now_left:
            self._tcp.close()
        elif now_left < left:
            self._watch_close(now_left)
        else:
            self._tcp.abort()
