"""`serve_tls`: serve TLS from asyncio with a private key that is at a key server (C1, C2).

Never knows what the handler does with its streams.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType

from locum.edge.service import Edge, EdgeOptions
from locum.edge.tls_server import Limits, TlsServer
from locum.names import HostPort
from locum.processes import BACKLOG, bind
from locum.tls.connection import ServerConnection
from locum.tls_transport import TlsTransport, Wire

#: Bytes that `StreamReader` keeps before it pauses the client (twice this is the most), and its longest line.
STREAM_LIMIT = 65_536

#: Serves one client; the connection is closed when it returns.
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def serve_tls(
    handler: Handler,
    host: str,
    port: int,
    options: EdgeOptions,
    *,
    limits: Limits | None = None,
    stream_limit: int = STREAM_LIMIT,
) -> TlsService:
    """Listen at `host` and `port` (0: a free one) and have `handler` serve every client whose handshake succeeds.

    ``writer.get_extra_info("tls")`` is the `SessionInfo`: name asked for, ALPN, identity of the client.
    ``writer.write_eof()`` sends close_notify, and a stream that ends without one raises `Truncated` when read.
    Close the service when it is no longer needed, or use it as a context.
    Raises: ConfigurationError when a file or the address cannot be used.
    """
    edge = Edge(options)
    listener = bind(HostPort(host, port), shared=False)
    listener.listen(BACKLOG)
    address = HostPort(host, listener.getsockname()[1])

    async def serve(wire: Wire, connection: ServerConnection) -> None:
        await _serve(handler, wire, connection, stream_limit)

    server = TlsServer(listener, edge.authority, edge.configuration, serve, limits=limits)
    try:
        await edge.__aenter__()
    except BaseException:
        listener.close()
        raise
    return TlsService(edge, server, address)


class TlsService:
    """What `serve_tls` has begun. `address` is where it listens."""

    def __init__(self, edge: Edge, server: TlsServer, address: HostPort) -> None:
        self.address = address
        self._edge = edge
        self._stop = asyncio.Event()
        self._serving = asyncio.ensure_future(server.run(self._stop))

    async def __aenter__(self) -> TlsService:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def reload(self) -> None:
        """Read certificates again, and ask the key servers which keys there are."""
        await self._edge.reload()

    async def close(self) -> None:
        """Accept nothing more, let connections end within the limits, and close the links to the key servers."""
        self._stop.set()
        try:
            await self._serving
        finally:
            await self._edge.__aexit__(None, None, None)


async def _serve(handler: Handler, wire: Wire, connection: ServerConnection, limit: int) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    peer = f"the client {wire.peer_address}"
    transport = TlsTransport(wire, connection, peer=peer, application=protocol, events=connection.events())
    transport.begin()
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    try:
        await handler(reader, writer)
    except BaseException:
        # Without close_notify: what was sent must not be taken for everything.
        transport.abort()
        raise
    finally:
        writer.close()
        # What went wrong with the connection, the handler has heard when it used it.
        with contextlib.suppress(Exception):
            await writer.wait_closed()
