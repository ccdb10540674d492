"""The terminating proxy: TLS from clients, plaintext to one backend, over TCP or a unix socket (C9).

Never looks at what it relays, and never sees a private key.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass

from locum.edge.proxy_protocol import Ends, proxy_header
from locum.errors import ConfigurationError
from locum.names import HostPort
from locum.relay import Relay, TlsSide
from locum.text import what_failed
from locum.tls.connection import ServerConnection
from locum.tls.session import SessionInfo
from locum.tls_transport import TlsTransport, Wire

log = logging.getLogger(__name__)

#: Seconds without a byte in either direction after which a connection is closed.
IDLE_TIMEOUT = 600.0
#: Seconds that the backend has to take a connection.
CONNECT_TIMEOUT = 10.0
#: Seconds for which the addresses of a backend's name are used.
ADDRESS_SECONDS = 30.0
#: Seconds between two lines in the log about the same trouble.
LOG_INTERVAL = 10.0
#: Application protocols in which the client speaks first: until it does, the backend has nothing to do with it.
CLIENT_FIRST = frozenset(("http/1.0", "http/1.1", "h2"))
#: What a unix socket is written like.
UNIX_PREFIX = "unix:"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """Where to, and how. Times in seconds. Raises: ConfigurationError.

    `backend` is an address, or the path of a unix socket. With `proxy_protocol` the backend is told who the client
    is, by version 2 of the PROXY protocol.
    """

    backend: HostPort | str
    proxy_protocol: bool = False
    idle_timeout: float = IDLE_TIMEOUT
    connect_timeout: float = CONNECT_TIMEOUT

    def __post_init__(self) -> None:
        if self.idle_timeout <= 0 or self.connect_timeout <= 0:
            raise ConfigurationError("a time-out is above 0 seconds")
        if isinstance(self.backend, HostPort) and self.backend.port == 0:
            raise ConfigurationError("the backend's port 0 cannot be reached")


def parse_backend(text: str) -> HostPort | str:
    """``HOST:PORT``, or ``unix:PATH`` as the path. Raises: ConfigurationError."""
    if not text.startswith(UNIX_PREFIX):
        return HostPort.parse(text)
    path = text.removeprefix(UNIX_PREFIX)
    if not path:
        raise ConfigurationError("unix: without the path of a socket")
    return path


class Proxy:
    """Relays established connections to the backend."""

    def __init__(self, options: ProxyOptions) -> None:
        self._options = options
        self._addresses: list[str] = []
        self._resolved_at = -ADDRESS_SECONDS
        self._complained = -LOG_INTERVAL

    async def serve(self, wire: Wire, connection: ServerConnection) -> None:
        """Relay one connection until it is over: a `Serve`."""
        session = connection.session
        assert session is not None
        outer = TlsSide()
        transport = TlsTransport(
            wire, connection, peer="the client", application=outer, events=connection.events()
        )
        transport.begin()
        relay = Relay(
            transport,
            outer,
            idle_timeout=self._options.idle_timeout,
            preamble=self._preamble(wire, session) if self._options.proxy_protocol else b"",
        )
        try:
            if session.alpn in CLIENT_FIRST and not await outer.spoken():
                return
            await self._dial(relay)
            error = await relay.done
            if error is not None and log.isEnabledFor(logging.INFO):
                log.info("connection ended", extra={"client": wire.peer_address, "reason": str(error)})
        except (OSError, TimeoutError) as error:
            # Without close_notify: the client must not take this for an empty answer.
            transport.abort()
            self._complain(error)
        finally:
            relay.close()
            # The transport sees to it that this comes, in time.
            await outer.lost

    async def _dial(self, relay: Relay) -> None:
        """Connect to the backend. Raises: OSError, TimeoutError."""
        loop = asyncio.get_running_loop()
        backend = self._options.backend
        async with asyncio.timeout(self._options.connect_timeout):
            if isinstance(backend, str):
                await loop.create_unix_connection(lambda: relay.inner, backend)
                return
            addresses = await self._resolve(backend)
            for index, address in enumerate(addresses):
                try:
                    await loop.create_connection(lambda: relay.inner, address, backend.port)
                    return
                except OSError:
                    if index == len(addresses) - 1:
                        self._resolved_at = -ADDRESS_SECONDS
                        raise

    async def _resolve(self, backend: HostPort) -> list[str]:
        """The backend's textual IP addresses, looked up once in a while. Raises: OSError."""
        loop = asyncio.get_running_loop()
        if not self._addresses or loop.time() - self._resolved_at >= ADDRESS_SECONDS:
            found = await loop.getaddrinfo(backend.host, backend.port, type=socket.SOCK_STREAM)
            self._addresses = [str(each[4][0]) for each in found]
            self._resolved_at = loop.time()
        return self._addresses

    def _preamble(self, wire: Wire, session: SessionInfo) -> bytes:
        source, destination = (wire.tcp.get_extra_info(end) for end in ("peername", "sockname"))
        ends = Ends((wire.peer_address, source[1]), (str(destination[0]).partition("%")[0], destination[1]))
        return proxy_header(ends, session)

    def _complain(self, error: OSError) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._complained >= LOG_INTERVAL:
            self._complained = now
            reason = "no answer in time" if isinstance(error, TimeoutError) else what_failed(error)
            log.warning("backend cannot be reached", extra={"backend": self._options.backend, "error": reason})
