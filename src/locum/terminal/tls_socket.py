"""A socket-like object over an established session: blocking, with time-outs, one reader and one writer at a time.

Never knows how the session came about. Programs written for `socket.socket` can use it, `http.client` included.
"""

from __future__ import annotations

import contextlib
import io
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import IO, Any

from locum.crypto.symmetric import Buffer
from locum.errors import LocumError, OperationError, TimedOut, Unavailable
from locum.terminal.cipher_keys import SessionKey
from locum.terminal.negotiation import Established, SessionKeys
from locum.text import what_failed
from locum.tls.connection import ClientConnection, CloseReceived, DataReceived, Event, TicketReceived
from locum.tls.registry import ProtocolVersion
from locum.tls.session import SessionInfo, SessionTicket

#: Bytes taken from TCP at once: four full records and what surrounds them.
READ_BUFFER = 65_536 + 4 * 300

#: Plaintext bytes that one `send` takes, and that are sealed before TCP gets them.
WRITE_CHUNK = 65_536

#: Seconds that `close` waits for the peer's end of the stream, and for its own last bytes to leave.
CLOSE_TIMEOUT = 2.0

#: Session tickets kept in `session_tickets`, the latest.
MAXIMUM_TICKETS = 8

_FOREVER = float("inf")


class SocketTimedOut(TimedOut, TimeoutError):
    """An operation on a `TlsSocket` took longer than its time-out; the session goes on."""


class TlsSocket:
    """One TLS session, used like a connected, blocking `socket.socket`.

    One thread may receive while another sends. ``shutdown(SHUT_WR)`` sends close_notify. `recv` returns no bytes
    after the peer's close_notify, and raises `Truncated` when its stream ends without one.
    """

    def __init__(
        self,
        tcp: socket.socket,
        established: Established,
        *,
        keys: SessionKeys,
        on_ticket: Callable[[SessionTicket], None] | None = None,
    ) -> None:
        tcp.setblocking(False)
        self._tcp = tcp
        self._key: SessionKey[ClientConnection] = established.key
        # A socket that nobody closes takes its key with it all the same.
        self._wipe_key = weakref.finalize(self, keys.remove, established.key)
        self._on_ticket = on_ticket
        self.session: SessionInfo = established.info
        self._tickets: deque[SessionTicket] = deque(maxlen=MAXIMUM_TICKETS)
        self._timeout: float | None = None
        self._buffer = memoryview(bytearray(READ_BUFFER))
        self._received: deque[memoryview] = deque()
        self._ended = False
        self._error: LocumError | None = None
        self._close_notify_sent = False
        self._files = 0
        self._closed = False
        # The engine is used for moments only; TCP is read by one thread at a time, and written by one.
        self._engine = threading.Lock()
        self._receiving = threading.Lock()
        self._sending = threading.Lock()
        self._unsent = memoryview(b"")
        self._output_waits = False
        self._take(established.events)

    # --- receiving ----------------------------------------------------------------------------------------

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """At most `bufsize` bytes, at least one; none after the peer's close_notify.

        Raises: Truncated or another PeerError; SocketTimedOut; ValueError for flags, which TLS has no use for.
        """
        _refuse_flags(flags)
        with self._receiving:
            return bytes(self._next(bufsize, self._deadline()))

    def recv_within(self, bufsize: int, seconds: float) -> bytes:
        """As `recv`, with a time-out for this call alone, whatever `settimeout` was given."""
        with self._receiving:
            return bytes(self._next(bufsize, time.monotonic() + seconds))

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> int:
        """As `recv`, into `buffer`; at most `nbytes` unless 0. Returns the number of bytes."""
        _refuse_flags(flags)
        with memoryview(buffer).cast("B") as view, self._receiving:
            data = self._next(nbytes or len(view), self._deadline())
            view[: len(data)] = data
            return len(data)

    def pending(self) -> int:
        """Bytes that `recv` would return without looking at TCP; `select` does not know of them."""
        return sum(map(len, tuple(self._received)))

    def _next(self, limit: int, deadline: float) -> memoryview:
        while not self._received:
            if self._closed and not self._files:
                raise OSError("the socket is closed")
            if self._ended or not limit:
                return memoryview(b"")
            if self._error is not None:
                raise self._error
            self._receive(deadline)
        first = self._received[0]
        if len(first) <= limit:
            return self._received.popleft()
        self._received[0] = first[limit:]
        return first[:limit]

    def _receive(self, deadline: float) -> None:
        """Read TCP once and open what it had."""
        self._wait(select.POLLIN, deadline, "receiving")
        try:
            length = self._tcp.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError as error:
            self._error = Unavailable(f"the connection to {self._key.peer} was lost: {what_failed(error)}")
            return
        try:
            with self._engine:
                connection = self._key.holder
                connection.receive_data(self._buffer[:length])
                events = connection.events()
        except LocumError as error:
            self._error = error
            events = []
        self._take(events)
        self._flush(at_once=True)

    def _take(self, events: tuple[Event, ...] | list[Event]) -> None:
        for event in events:
            if isinstance(event, DataReceived):
                self._received.append(memoryview(event.data))
            elif isinstance(event, TicketReceived):
                self._tickets.append(event.ticket)
                if self._on_ticket is not None:
                    self._on_ticket(event.ticket)
            elif isinstance(event, CloseReceived):
                self._ended = True
                # RFC 5246 section 7.2.1: the engine has answered it, and nothing can follow the answer.
                self._close_notify_sent |= self.session.version is ProtocolVersion.TLS_1_2

    # --- sending ------------------------------------------------------------------------------------------

    def send(self, data: Buffer, flags: int = 0) -> int:
        """Send at most `WRITE_CHUNK` bytes of `data` and return how many. Errors are those of `sendall`."""
        _refuse_flags(flags)
        with memoryview(data).cast("B") as view:
            chunk = view[:WRITE_CHUNK]
            self._send(chunk, self._deadline())
            return len(chunk)

    def sendall(self, data: Buffer, flags: int = 0) -> None:
        """Send all of `data`.

        Raises: PeerError; Unavailable when TCP lost the peer; SocketTimedOut, after which it is unknown how much
        the peer will receive; OSError after `shutdown` or `close`.
        """
        _refuse_flags(flags)
        deadline = self._deadline()
        with memoryview(data).cast("B") as view:
            for start in range(0, len(view), WRITE_CHUNK):
                self._send(view[start : start + WRITE_CHUNK], deadline)

    def _send(self, chunk: memoryview, deadline: float) -> None:
        with self._sending:
            self._drain(deadline)
            with self._engine:
                if self._close_notify_sent or self._key.holder.close_sent:
                    raise BrokenPipeError("the sending side is closed")
                self._key.holder.send_data(chunk)
            self._drain(deadline)
        self._flush_left_over()

    def _flush(self, *, at_once: bool) -> None:
        """Send what the engine has to say, or leave it to the thread that is sending."""
        self._output_waits = True
        while self._output_waits and self._sending.acquire(blocking=not at_once):
            try:
                self._output_waits = False
                self._drain(time.monotonic() if at_once else self._deadline())
            except OperationError:
                if not at_once:
                    raise
                # TCP is full, or gone; what is left goes out before anything else does, or fails then.
                return
            finally:
                self._sending.release()

    def _flush_left_over(self) -> None:
        if self._output_waits:
            self._flush(at_once=True)

    def _drain(self, deadline: float) -> None:
        """Write to TCP until nothing is left; the lock for sending is held."""
        while True:
            if not self._unsent:
                with self._engine:
                    data = b"" if self._key.wiped else self._key.holder.data_to_send()
                if not data:
                    return
                self._unsent = memoryview(data)
            try:
                self._unsent = self._unsent[self._tcp.send(self._unsent) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline, "sending")
            except OSError as error:
                raise Unavailable(f"the connection to {self._key.peer} was lost: {what_failed(error)}") from None

    # --- the end ------------------------------------------------------------------------------------------

    def shutdown(self, how: int) -> None:
        """SHUT_WR and SHUT_RDWR send close_notify; SHUT_RD and SHUT_RDWR end receiving."""
        if how in (socket.SHUT_WR, socket.SHUT_RDWR):
            with self._engine:
                if not self._close_notify_sent and not self._key.wiped:
                    self._close_notify_sent = True
                    self._key.holder.close()
            self._flush(at_once=False)
        if how in (socket.SHUT_RD, socket.SHUT_RDWR):
            self._ended = True

    def close(self) -> None:
        """Send close_notify, wait a little for the peer's end, and close, once no file made of it is open."""
        self._closed = True
        if self._files == 0:
            self._close()

    def _close(self) -> None:
        if self._tcp.fileno() < 0:
            return
        deadline = time.monotonic() + CLOSE_TIMEOUT
        self._timeout = CLOSE_TIMEOUT
        with contextlib.suppress(LocumError, OSError):
            over = self._ended or self._error is not None
            self.shutdown(socket.SHUT_WR)
            if not over:
                self._linger(deadline)
        with self._engine:
            self._wipe_key()
        with contextlib.suppress(OSError):
            # Wakes a thread that still waits for the peer.
            self._tcp.shutdown(socket.SHUT_RDWR)
        self._tcp.close()

    def _linger(self, deadline: float) -> None:
        """Discard what the peer still sends: closing over it would destroy our own last bytes on the way."""
        if not self._receiving.acquire(blocking=False):
            return
        try:
            self._tcp.shutdown(socket.SHUT_WR)
            while True:
                self._wait(select.POLLIN, deadline, "closing")
                if not self._tcp.recv_into(self._buffer):
                    return
        finally:
            self._receiving.release()

    # --- the rest of a socket -----------------------------------------------------------------------------

    @property
    def session_tickets(self) -> tuple[SessionTicket, ...]:
        """The latest tickets that the peer has sent; TLS 1.3 peers send them with or after their first data."""
        return tuple(self._tickets)

    def settimeout(self, value: float | None) -> None:
        """Seconds that every operation may take; None is for ever. Raises: ValueError for 0 and less."""
        if value is not None and value <= 0:
            raise ValueError("a TlsSocket blocks: give a time-out above 0, or None")
        self._timeout = value

    def gettimeout(self) -> float | None:
        """What `settimeout` was given."""
        return self._timeout

    def fileno(self) -> int:
        """The descriptor of the TCP socket, for `select` (see `pending`); -1 after closing."""
        return self._tcp.fileno()

    def getpeername(self) -> Any:
        """As `socket.getpeername`."""
        return self._tcp.getpeername()

    def getsockname(self) -> Any:
        """As `socket.getsockname`."""
        return self._tcp.getsockname()

    def setsockopt(self, *arguments: Any) -> None:
        """As `socket.setsockopt`, on the TCP socket."""
        self._tcp.setsockopt(*arguments)

    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """As `socket.makefile`. The connection stays open until the socket and all such files are closed."""
        if not set(mode) <= set("rwb") or not set(mode) & set("rw"):
            raise ValueError(f"invalid mode {mode!r} (only r, w and b)")
        raw = _TlsFile(self, mode)
        self._files += 1
        if buffering == 0:
            if "b" not in mode:
                raise ValueError("text has to be buffered")
            return raw  # type: ignore[return-value]
        size = buffering if buffering is not None and buffering > 1 else io.DEFAULT_BUFFER_SIZE
        binary: io.BufferedReader | io.BufferedWriter | io.BufferedRWPair
        if raw.readable() and raw.writable():
            binary = io.BufferedRWPair(raw, raw, size)
        elif raw.readable():
            binary = io.BufferedReader(raw, size)
        else:
            binary = io.BufferedWriter(raw, size)
        if "b" in mode:
            return binary  # type: ignore[return-value]
        return io.TextIOWrapper(binary, encoding, errors, newline)  # type: ignore[type-var]

    def __enter__(self) -> TlsSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<TlsSocket to {self._key.peer}{', closed' if self._closed else ''}>"

    def file_closed(self) -> None:
        """A file made of this socket was closed."""
        self._files -= 1
        if self._closed and self._files == 0:
            self._close()

    def _deadline(self) -> float:
        return _FOREVER if self._timeout is None else time.monotonic() + self._timeout

    def _wait(self, events: int, deadline: float, what: str) -> None:
        if self._tcp.fileno() < 0:
            raise OSError("the socket is closed")
        poll = select.poll()
        poll.register(self._tcp, events)
        left = None if deadline == _FOREVER else max(0.0, deadline - time.monotonic()) * 1000
        if not poll.poll(left):
            raise SocketTimedOut(f"{self._key.peer}: {what} timed out")


class _TlsFile(io.RawIOBase):
    """The unbuffered file under `TlsSocket.makefile`."""

    def __init__(self, tls: TlsSocket, mode: str) -> None:
        self._tls: TlsSocket | None = tls
        self._mode = mode

    def readable(self) -> bool:
        return "r" in self._mode

    def writable(self) -> bool:
        return "w" in self._mode

    def readinto(self, buffer: Any) -> int:
        return self._open().recv_into(buffer)

    def write(self, data: Any) -> int:
        return self._open().send(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            tls, self._tls = self._tls, None
            if tls is not None:
                tls.file_closed()

    def _open(self) -> TlsSocket:
        if self._tls is None:
            raise ValueError("I/O operation on closed file")
        return self._tls


def _refuse_flags(flags: int) -> None:
    if flags:
        raise ValueError("a TlsSocket takes no flags")
