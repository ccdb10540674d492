"""A proxy on the device: any unmodified program connects in plaintext and gets delegated TLS to one peer.

Never looks at what it relays. An authentic end stays an end, in each direction by itself, and a truncated stream
reaches the program as a reset, so that it cannot be taken for a complete one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections.abc import Callable
from dataclasses import field
from typing import cast

from locum.errors import ConfigurationError, LocumError, Unavailable
from locum.names import HostPort
from locum.terminal.aio import Terminal
from locum.terminal.aio_transport import TlsTransport
from locum.terminal.cipher_keys import MAXIMUM_SESSION_KEYS
from locum.terminal.options import IDLE_TIMEOUT, MAXIMUM_CONNECTIONS, TlsOptions, configuration
from locum.values import dataclass

#: Connections that wait to be accepted.
BACKLOG = 128

#: Seconds that connections get to end when the proxy is told to.
DRAIN_TIMEOUT = 3.0

#: Seconds before the next attempt when the system has no descriptor for another connection.
ACCEPT_PAUSE = 0.2

_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """Where to listen, where to connect, and within which limits; times in seconds.

    Without `allow_remote` only loopback addresses are listened on: the inside is plaintext.
    """

    listen: HostPort
    to: HostPort
    tls: TlsOptions = field(default_factory=TlsOptions)
    maximum_connections: int = MAXIMUM_CONNECTIONS
    idle_timeout: float = IDLE_TIMEOUT
    allow_remote: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.maximum_connections <= MAXIMUM_SESSION_KEYS:
            raise ConfigurationError(f"a proxy relays 1 to {MAXIMUM_SESSION_KEYS} connections at a time")
        if self.idle_timeout <= 0:
            raise ConfigurationError("the idle time-out is above 0 seconds")
        configuration(self.tls, host=self.to.host, peer_address="")


class Proxy:
    """Listens and relays until it is told to stop. `report` is given one line per connection that failed."""

    def __init__(self, terminal: Terminal, options: ProxyOptions, *, report: Callable[[str], None]) -> None:
        self._terminal = terminal
        self._options = options
        self._report = report
        self._room = asyncio.Semaphore(options.maximum_connections)
        self._relays: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None

    def listen(self) -> HostPort:
        """Open the listening socket and return its address. Raises: ConfigurationError; Unavailable."""
        options = self._options
        address = _address_to_listen_on(options.listen, allow_remote=options.allow_remote)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            self._listener = socket.create_server((address, options.listen.port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise Unavailable(f"{options.listen}: {error.strerror}") from None
        self._listener.setblocking(False)
        host, port = self._listener.getsockname()[:2]
        return HostPort(host, port)

    async def serve(self, stop: asyncio.Event) -> None:
        """Relay until `stop` is set, then end every connection in order."""
        accepting = asyncio.ensure_future(self._accept())
        try:
            await stop.wait()
        finally:
            accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await accepting
            await self._drain()

    async def _accept(self) -> None:
        assert self._listener is not None
        loop = asyncio.get_running_loop()
        with self._listener as listener:
            while True:
                await self._room.acquire()
                try:
                    inside, _ = await loop.sock_accept(listener)
                except OSError:
                    self._room.release()
                    await asyncio.sleep(ACCEPT_PAUSE)
                    continue
                except BaseException:
                    self._room.release()
                    raise
                task = asyncio.ensure_future(self._relay(inside))
                self._relays.add(task)
                task.add_done_callback(self._relayed)

    def _relayed(self, task: asyncio.Task[None]) -> None:
        self._relays.discard(task)
        self._room.release()

    async def _relay(self, inside: socket.socket) -> None:
        """One connection: the peer first, so that a program is only attached to what works."""
        options = self._options
        try:
            tls, outer = await self._terminal.create_connection(
                _Outside, options.to.host, options.to.port, **options.tls
            )
        except LocumError as error:
            self._report(str(error))
            _reset(inside)
            return
        except BaseException:
            _reset(inside)
            raise
        loop = asyncio.get_running_loop()
        pipe = _Pipe(inside, tls, outer, idle_timeout=options.idle_timeout)
        try:
            await loop.connect_accepted_socket(lambda: pipe.inner, inside)
            error_at_end = await pipe.done
            if error_at_end is not None:
                self._report(str(error_at_end))
        except OSError as error:
            self._report(f"the program's connection: {error.strerror}")
        finally:
            pipe.close()
            await asyncio.wait([outer.lost], timeout=DRAIN_TIMEOUT)

    async def _drain(self) -> None:
        """End those that are left with their close_notify."""
        for task in self._relays:
            task.cancel()
        if self._relays:
            await asyncio.wait(self._relays, timeout=2 * DRAIN_TIMEOUT)


class _Pipe:
    """Both ends of one relayed connection, and what ends it."""

    def __init__(self, sock: socket.socket, tls: TlsTransport, outer: _Outside, *, idle_timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self.inner = _Inside(self)
        self.outer = outer
        self.tls = tls
        #: Set when the connection is over, to what went wrong.
        self.done: asyncio.Future[Exception | None] = self._loop.create_future()
        self._idle_timeout = idle_timeout
        self._active = self._loop.time()
        self._timer = self._loop.call_later(idle_timeout, self._check_idle)

    def touch(self) -> None:
        """Bytes have passed."""
        self._active = self._loop.time()

    def ended(self, error: Exception | None) -> None:
        """One of the two connections is gone."""
        if not self.done.done():
            self.done.set_result(error)

    def reset(self) -> None:
        """End the program's connection in a way that it cannot take for an orderly end."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.inner.abort()

    def close(self) -> None:
        """End both connections in order."""
        self._timer.cancel()
        self.inner.close()
        self.tls.close()

    def _check_idle(self) -> None:
        left = self._active + self._idle_timeout - self._loop.time()
        if left <= 0:
            self.ended(Unavailable(f"closed after {self._idle_timeout:g} s without a byte"))
        else:
            self._timer = self._loop.call_later(left, self._check_idle)


class _Outside(asyncio.Protocol):
    """What comes from the peer. Until the program is attached, it is kept, and the peer is paused."""

    def __init__(self) -> None:
        self._pipe: _Pipe | None = None
        self._tls: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._ended = False
        #: Set when the connection to the peer is gone, to what went wrong.
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, TlsTransport)
        self._tls = transport
        transport.pause_reading()

    def attach(self, pipe: _Pipe) -> None:
        """The program is there: hand over what came early."""
        assert self._tls is not None
        self._pipe = pipe
        for data in self._early:
            pipe.inner.write(data)
        self._early.clear()
        if self._ended:
            pipe.inner.write_eof()
        if self.lost.done():
            self._tell_lost(pipe, self.lost.result())
        else:
            self._tls.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._pipe is None:
            self._early.append(data)
            return
        self._pipe.touch()
        self._pipe.inner.write(data)

    def eof_received(self) -> bool:
        self._ended = True
        if self._pipe is not None:
            self._pipe.inner.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)
        if self._pipe is not None:
            self._tell_lost(self._pipe, exc)

    def _tell_lost(self, pipe: _Pipe, exc: Exception | None) -> None:
        # Whoever has closed its own direction may find the other one ended without ceremony: many servers do so.
        if exc is not None and not pipe.inner.ended:
            pipe.reset()
            pipe.ended(exc)
        else:
            pipe.ended(None)

    def pause_writing(self) -> None:
        if self._pipe is not None:
            self._pipe.inner.pause_reading()

    def resume_writing(self) -> None:
        if self._pipe is not None:
            self._pipe.inner.resume_reading()


class _Inside(asyncio.Protocol):
    """What comes from the program."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe
        self._transport: asyncio.Transport | None = None
        #: True when the program has closed its direction.
        self.ended = False
        self._end_sent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._pipe.outer.attach(self._pipe)

    def data_received(self, data: bytes) -> None:
        self._pipe.touch()
        self._pipe.tls.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        self._pipe.tls.write_eof()
        if self._end_sent:
            self._pipe.ended(None)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pipe.ended(None)

    def pause_writing(self) -> None:
        self._pipe.tls.pause_reading()

    def resume_writing(self) -> None:
        self._pipe.tls.resume_reading()

    def write(self, data: bytes) -> None:
        """To the program."""
        if self._transport is not None:
            self._transport.write(data)

    def write_eof(self) -> None:
        """The peer has ended its direction."""
        self._end_sent = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()
        if self.ended:
            self._pipe.ended(None)

    def pause_reading(self) -> None:
        """The peer does not keep up."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """The peer keeps up again."""
        if self._transport is not None:
            self._transport.resume_reading()

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close the connection after what was written to it."""
        if self._transport is not None:
            self._transport.close()


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


def _address_to_listen_on(listen: HostPort, *, allow_remote: bool) -> str:
    """The textual IP address of `listen`. Raises: ConfigurationError when it is not of this machine alone."""
    try:
        address = str(socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise ConfigurationError(f"{listen}: {error.strerror}") from None
    if not allow_remote and not ipaddress.ip_address(address).is_loopback:
        raise ConfigurationError(
            f"{listen} can be reached from other machines, and what arrives there is plaintext: "
            "listen on 127.0.0.1, or say --allow-remote"
        )
    return address
