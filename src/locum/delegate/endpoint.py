"""The delegate at one address: datagrams and streams in, answers out, timers kept.

Never knows what a request asks for, nor any key: it moves bytes between sockets, the link and the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import cast

from locum.delegate.service import DelegateService
from locum.delegate.sockets import BoundSockets
from locum.errors import LocumError
from locum.link.coap import Framing
from locum.link.contexts import ContextLimits, ContextTable, CredentialSource
from locum.link.exchange import RandomSource, TransmissionParameters
from locum.link.server import Server

log = logging.getLogger(__name__)

#: Streams open at once; the one that has been silent longest makes room for a new one.
MAXIMUM_STREAMS = 1024
#: Seconds after which a silent stream is closed.
IDLE_SECONDS = 300.0
#: Streams waiting to be accepted.
BACKLOG = 512
#: Seconds that the last answers have to leave when the endpoint ends.
CLOSE_SECONDS = 2.0

Send = Callable[[bytes, Hashable], None]


class Pump:
    """Moves bytes between one link server, the service, and a way to send; keeps the server's timers."""

    def __init__(
        self,
        server: Server,
        service: DelegateService,
        send: Send,
        *,
        plain: bool,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._server = server
        self._service = service
        self._send = send
        self._plain = plain
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def received(self, data: bytes, remote: Hashable) -> None:
        """Work on what arrived and send what is ready. Raises: LocumError when a stream cannot go on."""
        now = self._loop.time()
        server = self._server
        try:
            for request in server.receive(data, remote, now=now):
                answer = self._service.handle(
                    request.terminal, request.path, request.payload, now=now, plain=self._plain
                )
                server.respond(request, answer.code, answer.payload, now=now)
        finally:
            self._flush()

    def disconnected(self, remote: Hashable) -> None:
        """A stream has ended."""
        self._server.disconnected(remote)

    def close(self) -> None:
        """Keep no more timers."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        for data, remote in self._server.transmit():
            self._send(data, remote)
        due = self._server.next_timeout()
        if due is None:
            return
        # A timer that fires too early costs one look; moving it back with every datagram would cost more.
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._server.expire(now=self._loop.time())
        self._flush()


class _Datagrams(asyncio.DatagramProtocol):
    """One UDP socket."""

    pump: Pump

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are datagram transports without saying so.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, remote: tuple[str | int, ...]) -> None:
        self.pump.received(data, remote)

    def error_received(self, error: Exception) -> None:
        # An ICMP message about an answer sent earlier; whoever asked will ask again, or not.
        log.debug("answer not delivered", extra={"error": str(error)})

    def send(self, data: bytes, remote: Hashable) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, cast(tuple[str, int], remote))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Stream(asyncio.Protocol):
    """One TCP connection; it is its own name towards the link."""

    def __init__(self, streams: _Streams) -> None:
        self._streams = streams
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._streams.opened(self)

    def data_received(self, data: bytes) -> None:
        self._streams.active(self)
        try:
            self._streams.pump.received(data, self)
        except LocumError as error:
            log.debug("stream closed", extra={"reason": str(error)})
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._streams.lost(self)

    # Whoever does not read its answers is not read from, so nothing piles up.
    def pause_writing(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Streams:
    """All TCP connections of one port, those silent longest first."""

    pump: Pump

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: OrderedDict[_Stream, float] = OrderedDict()
        self.drained = asyncio.Event()
        self._closing = False

    def opened(self, stream: _Stream) -> None:
        if len(self._open) >= MAXIMUM_STREAMS:
            silent, _ = self._open.popitem(last=False)
            silent.abort()
        self._open[stream] = self._loop.time()

    def active(self, stream: _Stream) -> None:
        if stream in self._open:
            self._open[stream] = self._loop.time()
            self._open.move_to_end(stream)

    def lost(self, stream: _Stream) -> None:
        self._open.pop(stream, None)
        self.pump.disconnected(stream)
        self._note_drained()

    def close_idle(self) -> None:
        limit = self._loop.time() - IDLE_SECONDS
        while self._open and (oldest := next(iter(self._open.items())))[1] <= limit:
            del self._open[oldest[0]]
            oldest[0].abort()

    def close(self) -> None:
        """Close every stream once its answers have left; `drained` is set when all are gone."""
        self._closing = True
        for stream in tuple(self._open):
            stream.close()
        self._note_drained()

    def _note_drained(self) -> None:
        if self._closing and not self._open:
            self.drained.set()

    def abort(self) -> None:
        for stream in tuple(self._open):
            stream.abort()

    @staticmethod
    def send(data: bytes, remote: Hashable) -> None:
        cast(_Stream, remote).send(data)


class Endpoint:
    """The delegate at one address, over UDP and TCP; to be made inside of the event loop.

    With `credentials` every message must be protected by OSCORE. Without, this is the endpoint of the secure
    path, and messages are plain (A4).
    """

    def __init__(
        self,
        sockets: BoundSockets,
        service: DelegateService,
        *,
        credentials: CredentialSource | None,
        random: RandomSource,
        parameters: TransmissionParameters,
    ) -> None:
        self.address = sockets.address
        self._sockets = sockets
        self._loop = asyncio.get_running_loop()
        self._service = service
        # One table for both kinds of transport: a request replayed from one to the other must not look fresh.
        contexts = (
            None if credentials is None else ContextTable(credentials, random=random, limits=ContextLimits())
        )

        def pump(framing: Framing, send: Send) -> Pump:
            server = Server(
                credentials=contexts,
                plain=contexts is None,
                framing=framing,
                random=random,
                parameters=parameters,
            )
            return Pump(server, service, send, plain=contexts is None, loop=self._loop)

        self._datagrams = _Datagrams()
        self._datagrams.pump = pump(Framing.DATAGRAM, self._datagrams.send)
        self._streams = _Streams(self._loop)
        self._streams.pump = pump(Framing.STREAM, self._streams.send)
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to serve."""
        datagrams, streams = self._datagrams, self._streams
        await self._loop.create_datagram_endpoint(lambda: datagrams, sock=self._sockets.datagram)
        self._listener = await self._loop.create_server(
            lambda: _Stream(streams), sock=self._sockets.stream, backlog=BACKLOG
        )

    def close_idle(self) -> None:
        """Close the streams that have been silent too long; call it now and then."""
        self._streams.close_idle()

    def stop_accepting(self) -> None:
        """Accept no more streams; those that are open, and datagrams, are still served."""
        if self._listener is not None:
            self._listener.close()

    async def close(self) -> None:
        """Send what is waiting, at most for `CLOSE_SECONDS`, and close everything."""
        self.stop_accepting()
        self._datagrams.close()
        self._streams.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._streams.drained.wait(), CLOSE_SECONDS)
        self._streams.abort()
        # A transport closes its socket in the next round of the loop.
        await asyncio.sleep(0)
