"""Accepts connections on one socket, makes the TLS handshake of each, and has it served, all within limits.

Never knows what is served, nor where keys are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from locum.defects import whereabouts
from locum.edge.authority import EdgeAuthority
from locum.edge.handshake import shake_hands
from locum.errors import ConfigurationError, LocumError, OperationError
from locum.processes import BACKLOG
from locum.tls.connection import ServerConnection
from locum.tls.server_configuration import ServerConfiguration
from locum.tls_transport import Wire

log = logging.getLogger(__name__)

#: Connections at a time, and the most that can be asked for: each has two sockets.
MAXIMUM_CONNECTIONS = 10_000
CONNECTION_LIMIT = 30_000
#: Seconds that a client has for its handshake.
HANDSHAKE_TIMEOUT = 15.0
#: Seconds that connections have to end when the server is told to; then they are ended.
DRAIN_TIMEOUT = 10.0
#: Seconds that ended ones have for their last bytes.
END_TIMEOUT = 3.0
#: Seconds in which a client can take the alert that its handshake ended with.
ALERT_TIMEOUT = 1.0
#: Seconds between looks at handshakes that may be overdue.
SWEEP_SECONDS = 1.0
#: Seconds between two lines in the log about the same trouble.
LOG_INTERVAL = 10.0

#: Serves an established connection until it is over.
Serve = Callable[[Wire, ServerConnection], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many connections, and how long their parts may take, in seconds. Raises: ConfigurationError."""

    maximum_connections: int = MAXIMUM_CONNECTIONS
    handshake_timeout: float = HANDSHAKE_TIMEOUT
    drain_timeout: float = DRAIN_TIMEOUT

    def __post_init__(self) -> None:
        if not 1 <= self.maximum_connections <= CONNECTION_LIMIT:
            raise ConfigurationError(f"1 to {CONNECTION_LIMIT} connections at a time, for each process")
        if self.handshake_timeout <= 0 or self.drain_timeout < 0:
            raise ConfigurationError("a time-out is above 0 seconds")


@dataclass(slots=True)
class Counts:
    """What has happened so far."""

    accepted: int = 0
    established: int = 0
    resumed: int = 0
    failed: int = 0


class TlsServer:
    """Serves the connections of one listening socket, which is not blocking, and is closed at the end."""

    def __init__(
        self,
        listener: socket.socket,
        authority: EdgeAuthority,
        configuration: ServerConfiguration,
        serve: Serve,
        *,
        limits: Limits | None = None,
    ) -> None:
        self.counts = Counts()
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._authority = authority
        self._configuration = configuration
        self._serve = serve
        self._limits = limits or Limits()
        self._accepting: asyncio.Server | None = None
        self._changing: asyncio.Task[None] | None = None
        self._stopped = False
        self._connections: set[asyncio.Task[None]] = set()
        #: Handshakes that are under way, by the moment at which they began, the oldest first.
        self._handshakes: dict[Wire, float] = {}
        self._complained = -LOG_INTERVAL

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then let connections end, and end those that have not in time."""
        sweeping = asyncio.ensure_future(self._sweep())
        await self._begin_accepting()
        try:
            await stop.wait()
        finally:
            self._stopped = True
            self._stop_accepting()
            self._listener.close()
            await self._drain()
            sweeping.cancel()

    # --- accepting ----------------------------------------------------------------------------------------

    async def _begin_accepting(self) -> None:
        # A copy, so that the socket goes on listening while nobody accepts: then connections wait in the kernel.
        accepting = await self._loop.create_server(
            lambda: _Accepted(self.accepted), sock=self._listener.dup(), backlog=BACKLOG
        )
        if self._stopped:
            accepting.close()
        else:
            self._accepting = accepting

    def _stop_accepting(self) -> None:
        if self._accepting is not None:
            self._accepting.close()
            self._accepting = None

    def accepted(self, wire: Wire) -> None:
        """A connection is there."""
        self.counts.accepted += 1
        self._handshakes[wire] = self._loop.time()
        task = self._loop.create_task(self._connection(wire))
        self._connections.add(task)
        task.add_done_callback(self._ended)
        if len(self._connections) >= self._limits.maximum_connections:
            self._stop_accepting()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("connection failed unexpectedly", extra=whereabouts(error))
        if self._accepting is None and not self._stopped and (self._changing is None or self._changing.done()):
            self._changing = asyncio.ensure_future(self._begin_accepting())

    async def _drain(self) -> None:
        if self._connections:
            await asyncio.wait(self._connections, timeout=self._limits.drain_timeout)
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=END_TIMEOUT)

    # --- one connection -----------------------------------------------------------------------------------

    async def _connection(self, wire: Wire) -> None:
        try:
            connection = await self._established(wire)
            if connection is not None:
                await self._serve(wire, connection)
        finally:
            # Where everything went as it should this does nothing.
            wire.tcp.close()

    async def _established(self, wire: Wire) -> ServerConnection | None:
        """Make the handshake; None when it failed, which the client has been told, and the log."""
        connection = ServerConnection(self._configuration, random=os.urandom, now=time.time)
        try:
            await shake_hands(wire, connection, self._authority.open())
        except LocumError as error:
            # A client that is gone is no trouble of this side's.
            if isinstance(error, OperationError) and wire in self._handshakes and not wire.tcp.is_closing():
                self._complain("a handshake could not be made", error)
            self._failed(wire, error)
            await _hang_up(wire)
            return None
        finally:
            self._handshakes.pop(wire, None)
        self.counts.established += 1
        session = connection.session
        if session is not None and session.resumed:
            self.counts.resumed += 1
        return connection

    async def _sweep(self) -> None:
        """Cut off those whose handshakes take too long: one timer for all of them."""
        while True:
            await asyncio.sleep(min(SWEEP_SECONDS, self._limits.handshake_timeout / 2))
            oldest = self._loop.time() - self._limits.handshake_timeout
            overdue = [wire for wire, began in self._handshakes.items() if began <= oldest]
            for wire in overdue:
                del self._handshakes[wire]
                wire.tcp.abort()

    def _failed(self, wire: Wire, error: LocumError) -> None:
        self.counts.failed += 1
        if log.isEnabledFor(logging.INFO):
            reason = str(error) if wire in self._handshakes else "no handshake in time"
            log.info("handshake failed", extra={"client": wire.peer_address, "reason": reason})

    def _complain(self, what: str, error: Exception) -> None:
        """Say once in a while what an administrator should know."""
        now = self._loop.time()
        if now - self._complained >= LOG_INTERVAL:
            self._complained = now
            log.warning(what, extra={"error": str(error)})


async def _hang_up(wire: Wire) -> None:
    """End a connection so that its last words arrive: closing while bytes are unread would destroy them."""
    if wire.tcp.can_write_eof() and not wire.tcp.is_closing():
        wire.tcp.write_eof()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(ALERT_TIMEOUT):
            while await wire.read():
                pass
    wire.tcp.close()


class _Accepted(Wire):
    """A wire that says when it is there."""

    def __init__(self, accepted: Callable[[Wire], None]) -> None:
        super().__init__()
        self._accepted = accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._accepted(self)
