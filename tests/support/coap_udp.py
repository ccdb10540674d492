"""Drives the link's client and server over real sockets with asyncio: loopback, UDP or TCP."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any

from tests.support.link_network import MemoryCredentials, MemoryStore, echo_back

from locum.errors import LocumError, Unavailable
from locum.link.blockwise import Reply
from locum.link.client import Client
from locum.link.coap import Framing
from locum.link.exchange import TransmissionParameters
from locum.link.server import IncomingRequest, Server


class ServerDriver(asyncio.DatagramProtocol):
    """One UDP endpoint of our server, or all connections of one TCP port."""

    def __init__(
        self,
        credentials: MemoryCredentials | None,
        *,
        framing: Framing = Framing.DATAGRAM,
        plain: bool = False,
        application: Callable[[IncomingRequest], tuple[int, bytes]] = echo_back,
        parameters: TransmissionParameters | None = None,
        delay: float = 0.0,
    ) -> None:
        self.framing = framing
        self.server = Server(
            credentials=credentials, plain=plain, framing=framing, random=os.urandom, parameters=parameters
        )
        self.application = application
        self.delay = delay
        self.requests: list[IncomingRequest] = []
        self.port = 0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.DatagramTransport | None = None
        self._listener: asyncio.Server | None = None
        self._writers: dict[Hashable, asyncio.StreamWriter] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> ServerDriver:
        if self.framing is Framing.DATAGRAM:
            transport, _ = await self._loop.create_datagram_endpoint(
                lambda: self, local_addr=("127.0.0.1", self.port)
            )
            self._transport = transport
            self.port = transport.get_extra_info("sockname")[1]
        else:
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()
        if self._listener is not None:
            self._listener.close()
        for writer in self._writers.values():
            writer.close()
        await asyncio.sleep(0)

    def datagram_received(self, data: bytes, remote: Any) -> None:
        self._received(data, remote)

    def _received(self, data: bytes, remote: Hashable) -> None:
        try:
            for request in self.server.receive(data, remote, now=self._loop.time()):
                self.requests.append(request)
                if self.delay:
                    self._loop.call_later(self.delay, self._respond, request)
                else:
                    self._respond(request)
        finally:
            self._flush()

    def _respond(self, request: IncomingRequest) -> None:
        self.server.respond(request, *self.application(request), now=self._loop.time())
        self._flush()

    def _flush(self) -> None:
        for data, remote in self.server.transmit():
            if self._transport is not None:
                self._transport.sendto(data, remote)
            elif remote in self._writers:
                self._writers[remote].write(data)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.server.next_timeout()
        if due is not None:
            self._timer = self._loop.call_at(due, self._expire)

    def _expire(self) -> None:
        self.server.expire(now=self._loop.time())
        self._flush()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        remote = writer.get_extra_info("peername")
        self._writers[remote] = writer
        with suppress(LocumError, ConnectionError):
            while data := await reader.read(65536):
                self._received(data, remote)
        self.server.disconnected(remote)
        self._writers.pop(remote).close()


class ClientDriver(asyncio.DatagramProtocol):
    """Our client on one connected UDP socket or one TCP connection."""

    def __init__(
        self,
        port: int,
        credential: Any,
        *,
        framing: Framing = Framing.DATAGRAM,
        store: MemoryStore | None = None,
        name: str = "",
        parameters: TransmissionParameters | None = None,
    ) -> None:
        self.client = Client(
            credential=credential,
            sequence=store,
            framing=framing,
            random=os.urandom,
            terminal_name=name,
            parameters=parameters,
        )
        self.framing = framing
        self._port = port
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.DatagramTransport | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ClientDriver:
        if self.framing is Framing.DATAGRAM:
            address = ("127.0.0.1", self._port)
            self._transport, _ = await self._loop.create_datagram_endpoint(lambda: self, remote_addr=address)
        else:
            reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._reading = self._loop.create_task(self._read(reader))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._transport is not None:
            self._transport.close()
        if self._writer is not None:
            self._writer.close()
        if self._reading is not None:
            self._reading.cancel()
        await asyncio.sleep(0)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            self.client.receive(data, now=self._loop.time())
            self._arrived.set()
        self.client.disconnected()
        self._arrived.set()

    def datagram_received(self, data: bytes, remote: Any) -> None:
        self.client.receive(data, now=self._loop.time())
        self._arrived.set()

    async def ask(self, payload: bytes, path: str = "/kx") -> Reply:
        """One request and its reply."""
        exchange = self.client.request(path, payload, now=self._loop.time())
        while True:
            for data in self.client.transmit():
                if self._transport is not None:
                    self._transport.sendto(data)
                elif self._writer is not None:
                    self._writer.write(data)
            reply = self.client.outcome(exchange)
            if reply is not None:
                return reply
            due = self.client.next_timeout()
            if due is None:
                raise Unavailable("nothing will ever happen again")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), max(0.0, due - self._loop.time()))
            self._arrived.clear()
            self.client.expire(now=self._loop.time())
