"""The asyncio driver: `connect_tls` and `Terminal`, which give ordinary asyncio streams over delegated TLS.

Never contains protocol: it moves bytes between the peer, a `Negotiation` and a delegate's channel, in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, Unpack

from locum.errors import LocumError, TimedOut
from locum.terminal.aio_channel import AsyncChannel
from locum.terminal.aio_transport import TlsTransport
from locum.terminal.channel import CONNECT_TIMEOUT
from locum.terminal.connecting import (
    AskDelegate,
    Dial,
    EnterChannel,
    HangUp,
    Pause,
    SendToPeer,
    Step,
    connecting,
    unreachable,
)
from locum.terminal.credential import TerminalCredential
from locum.terminal.device import Authority, Device
from locum.terminal.negotiation import Established, SessionKeys
from locum.terminal.options import TlsOptions
from locum.terminal.steps import Observer
from locum.tls_transport import Wire

#: Bytes that `StreamReader` keeps before it pauses the peer (twice this is the most), and its longest line.
STREAM_LIMIT = 65_536

P = TypeVar("P", bound=asyncio.Protocol)


async def connect_tls(
    host: str,
    port: int,
    *,
    credential: TerminalCredential | Path | str | None = None,
    authority: Authority | None = None,
    observer: Observer | None = None,
    **options: Unpack[TlsOptions],
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a TLS server through a delegate and return asyncio streams.

    `credential` is a credential file or what was read from it; `authority` replaces the delegate by one in this
    process. `observer` is told every step. The options are those of `TlsOptions`.
    ``writer.get_extra_info("tls")`` is the `SessionInfo`, ``writer.write_eof()`` sends close_notify, and a stream
    that ends without close_notify raises `Truncated` when read.

    Raises: LocumError of the kind that says who is at fault; OperationError for the delegate's part.
    """
    async with Terminal(credential, authority=authority, observer=observer) as terminal:
        return await terminal.connect_tls(host, port, **options)


class Terminal:
    """A device with its delegates: one channel to each, used by any number of connections at a time (A12).

    Belongs to the event loop it is first used on. Closing it closes the channels; connections made by it live on.
    """

    def __init__(
        self,
        credential: TerminalCredential | Path | str | None = None,
        *,
        authority: Authority | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Arguments and errors are those of the function `connect_tls`."""
        self._device: Device[AsyncChannel] = Device(
            credential, authority=authority, observer=observer, channel=AsyncChannel
        )

    @property
    def keys(self) -> SessionKeys:
        """The cipher-key database of fig 2: the sessions that are established."""
        return self._device.keys

    async def __aenter__(self) -> Terminal:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channels to the delegates and wipe their keys."""
        self._device.close()

    async def connect_tls(
        self, host: str, port: int, *, limit: int = STREAM_LIMIT, **options: Unpack[TlsOptions]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As the function `connect_tls`; `limit` is that of `asyncio.StreamReader`, in bytes."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        transport, protocol = await self.create_connection(
            lambda: asyncio.StreamReaderProtocol(reader, loop=loop), host, port, **options
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def create_connection(
        self, protocol_factory: Callable[[], P], host: str, port: int, **options: Unpack[TlsOptions]
    ) -> tuple[TlsTransport, P]:
        """As `connect_tls`, for an asyncio protocol of one's own."""
        timeout = options.get("timeout", CONNECT_TIMEOUT)
        loop = asyncio.get_running_loop()
        steps = connecting(self._device, host, port, options, clock=loop.time, timeout=timeout)
        wire, established = await _Driver(self._device, host, port, timeout).run(steps)
        application = protocol_factory()
        transport = TlsTransport(
            wire, established, application=application, keys=self.keys, on_ticket=options.get("on_ticket")
        )
        transport.begin()
        return transport, application


class _Driver:
    """Does on the event loop what `connecting` asks for."""

    def __init__(self, device: Device[AsyncChannel], host: str, port: int, timeout: float) -> None:
        self._device = device
        self._host = host
        self._port = port
        self._timeout = timeout
        self._deadline = asyncio.get_running_loop().time() + timeout
        self._wire: Wire | None = None

    async def run(self, steps: Generator[Step, Any, Established]) -> tuple[Wire, Established]:
        """The TCP connection and the session on it. Raises: LocumError; TCP is closed then."""
        try:
            established = await self._drive(steps)
        except LocumError:
            self._hang_up()
            raise
        except BaseException:
            steps.close()
            if self._wire is not None:
                self._wire.tcp.abort()
            raise
        assert self._wire is not None
        return self._wire, established

    async def _drive(self, steps: Generator[Step, Any, Established]) -> Established:
        step = next(steps)
        try:
            while True:
                try:
                    result = await self._perform(step)
                except LocumError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as stop:
            established: Established = stop.value
            return established

    async def _perform(self, step: Step) -> object:
        if isinstance(step, AskDelegate):
            return await self._device.channels[step.delegate].post(step.payload, deadline=step.deadline)
        if isinstance(step, EnterChannel):
            await self._device.channels[step.delegate].enter(deadline=step.deadline)
            return None
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._perform_in_time(step)
        except TimeoutError:
            what = "connecting" if self._wire is None else "waiting for the peer"
            raise TimedOut(
                f"{self._host}:{self._port}: no TLS session within {self._timeout:g} s, {what}"
            ) from None
        except OSError as error:
            raise unreachable(f"{self._host}:{self._port}", error) from None

    async def _perform_in_time(self, step: Step) -> object:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds, None)
        if isinstance(step, Dial):
            return await self._dial()
        wire = self._wire
        assert wire is not None
        if isinstance(step, SendToPeer):
            wire.send(step.data)
        elif isinstance(step, HangUp):
            self._hang_up()
        else:
            return await wire.read()
        return None

    async def _dial(self) -> str:
        loop = asyncio.get_running_loop()
        _, self._wire = await loop.create_connection(Wire, self._host, self._port)
        return self._wire.peer_address

    def _hang_up(self) -> None:
        if self._wire is not None:
            self._wire.tcp.close()
            self._wire = None
