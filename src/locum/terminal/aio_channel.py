"""The asyncio driver of a delegate's channel: one socket and one link client for any number of handshakes.

Never looks into a payload; timing and cost are those of `channel.Channel`.
"""

from __future__ import annotations

import asyncio
import os
from typing import cast

from locum.errors import LocumError
from locum.link.coap import Framing
from locum.names import DelegateAddress
from locum.terminal.channel import MAXIMUM_HANDSHAKES, Answer, Channel, DelegateFailed, crowded, late
from locum.terminal.credential import DelegateCredential


class AsyncChannel:
    """Requests to one delegate, many at a time, on the event loop that it is first used on."""

    def __init__(self, delegate: DelegateCredential, terminal: str) -> None:
        self._channel = Channel(delegate, terminal=terminal, random=os.urandom)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._room = asyncio.Semaphore(MAXIMUM_HANDSHAKES)
        self._opening = asyncio.Lock()
        self._wire: _Datagrams | _Stream | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0

    @property
    def name(self) -> str:
        """The delegate's address."""
        return self._channel.name

    @property
    def address(self) -> DelegateAddress:
        """Where the delegate answers."""
        return self._channel.delegate.address

    @property
    def secure_path(self) -> bool:
        """True when messages to this delegate are plain (A4)."""
        return self._channel.secure_path

    async def enter(self, *, deadline: float) -> None:
        """Wait for one's turn, until `deadline` of the loop's clock; then call `leave`. Raises: DelegateFailed."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._room.acquire()
        except TimeoutError:
            raise crowded(self.name) from None

    def leave(self) -> None:
        """One's turn is over."""
        self._room.release()

    async def post(self, payload: bytes, *, deadline: float) -> Answer:
        """Send a message of operations and wait for the answer, until `deadline` of the loop's clock.

        Raises: DelegateFailed.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout_at(deadline):
                await self._open()
                return await self._exchange(payload)
        except TimeoutError:
            raise late(self.name, loop.time() - started) from None

    def tell(self, payload: bytes) -> None:
        """Send a message whose answer does not matter, if the channel is open."""
        if self._wire is None:
            return
        now = asyncio.get_running_loop().time()
        try:
            exchange = self._channel.post(payload, now=now)
        except LocumError:
            return
        self._flush()
        self._channel.abandon(exchange)

    def close(self) -> None:
        """Close the socket; whoever still waits gets a `DelegateFailed`."""
        self.lost("the channel was closed")

    async def _open(self) -> None:
        async with self._opening:
            if self._wire is not None:
                return
            endpoint = self._channel.delegate.address.endpoint
            loop = asyncio.get_running_loop()
            wire: _Datagrams | _Stream
            try:
                if self._channel.framing is Framing.DATAGRAM:
                    _, wire = await loop.create_datagram_endpoint(
                        lambda: _Datagrams(self), remote_addr=(endpoint.host, endpoint.port)
                    )
                else:
                    self._channel.renew()
                    _, wire = await loop.create_connection(lambda: _Stream(self), endpoint.host, endpoint.port)
            except OSError as error:
                raise DelegateFailed(self.name, error) from None
            self._wire = wire
            self._flush()

    async def _exchange(self, payload: bytes) -> Answer:
        loop = asyncio.get_running_loop()
        exchange = self._channel.post(payload, now=loop.time())
        waiter: asyncio.Future[Answer] = loop.create_future()
        self._waiting[exchange] = waiter
        try:
            self._flush()
            return await waiter
        finally:
            self._waiting.pop(exchange, None)
            self._channel.abandon(exchange)

    # --- from the wire ------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Bytes from the delegate."""
        self._channel.receive(data, now=asyncio.get_running_loop().time())
        self._settle()
        self._flush()
        if self._channel.closed:
            self._drop()

    def lost(self, reason: OSError | str) -> None:
        """The socket is gone, or the system says that nobody is there."""
        self._drop()
        self._channel.disconnected(reason)
        self._settle()

    def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def _settle(self) -> None:
        if not self._waiting:
            return
        now = asyncio.get_running_loop().time()
        for exchange, waiter in self._waiting.items():
            if waiter.done():
                continue
            try:
                answer = self._channel.settled(exchange, now=now)
            except DelegateFailed as error:
                waiter.set_exception(error)
                continue
            if answer is not None:
                waiter.set_result(answer)

    def _flush(self) -> None:
        for data in self._channel.transmit() if self._wire is not None else ():
            # Sending a datagram can already tell that nobody is there.
            if self._wire is None:
                return
            self._wire.send(data)
        self._schedule()

    def _schedule(self) -> None:
        due = self._channel.next_timeout()
        if self._timer is not None:
            if due is not None and self._timer_due <= due:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer_due = due
            self._timer = asyncio.get_running_loop().call_at(due, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._channel.expire(now=asyncio.get_running_loop().time())
        self._settle()
        self._flush()


class _Datagrams(asyncio.DatagramProtocol):
    """One connected UDP socket."""

    def __init__(self, channel: AsyncChannel) -> None:
        self._channel = channel
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        if self._transport is not None:
            self._channel.received(data)

    def error_received(self, exc: Exception) -> None:
        if self._transport is not None:
            self._channel.lost(exc if isinstance(exc, OSError) else str(exc))

    def send(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.sendto(data)

    def close(self) -> None:
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.close()


class _Stream(asyncio.Protocol):
    """One TCP connection."""

    def __init__(self, channel: AsyncChannel) -> None:
        self._channel = channel
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._channel.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._transport = None
            self._channel.lost(exc if isinstance(exc, OSError) else "the connection was closed")

    def send(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.close()
