"""The endpoint's streams: bounded in number and in silence, read only as fast as they read, closed in order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from locum.delegate import endpoint as module
from locum.delegate.endpoint import Endpoint
from locum.delegate.journal import Journal
from locum.delegate.service import DelegateService
from locum.delegate.sockets import bind
from locum.errors import ConfigurationError, Unavailable
from locum.link.coap import Code, Message, OptionNumber, StreamReader
from locum.link.exchange import TransmissionParameters
from locum.names import HostPort

KX = ((int(OptionNumber.URI_PATH), b"kx"), (int(OptionNumber.URI_QUERY), b"t=meter"))
REQUEST = Message(Code.POST, b"t", KX, b"\xff").write_stream()


class NoAuthority:
    def open(self, terminal: str) -> object:
        raise Unavailable("not in this test")


def serve(test: Callable[[Endpoint], Awaitable[None]]) -> None:
    """Run `test` with a plain endpoint that answers every message of the terminal `meter` with a refusal."""

    async def main() -> None:
        service = DelegateService(
            authority=NoAuthority(),  # type: ignore[arg-type]
            serves=lambda terminal, plain: terminal == "meter",
            journal=Journal(lambda entry: None, time=lambda: 0.0),
            random=os.urandom,
        )
        endpoint = Endpoint(
            bind(HostPort("127.0.0.1", 0)),
            service,
            credentials=None,
            random=os.urandom,
            parameters=TransmissionParameters(),
        )
        await endpoint.start()
        try:
            await test(endpoint)
        finally:
            await endpoint.close()

    uvloop.run(asyncio.wait_for(main(), 20))


async def connect(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(endpoint.address.host, endpoint.address.port)


async def answer(reader: asyncio.StreamReader, messages: StreamReader) -> Message:
    """The next response on a stream, without signalling messages."""
    while True:
        message = messages.next()
        if message is None:
            data = await reader.read(4096)
            assert data, "the stream was closed"
            messages.feed(data)
        elif message.code < Code.CSM:
            return message


async def gone(reader: asyncio.StreamReader) -> bool:
    """True when the other end has closed the stream."""
    try:
        return not await asyncio.wait_for(reader.read(), 2.0) or reader.at_eof()
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def test_the_stream_that_was_silent_longest_makes_room_for_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAXIMUM_STREAMS", 2)

    async def test(endpoint: Endpoint) -> None:
        first, second = await connect(endpoint), await connect(endpoint)
        messages = StreamReader()
        for reader, writer in (second, first):
            writer.write(REQUEST)
            assert (await answer(reader, messages if reader is first[0] else StreamReader())).code >= 0x80
        third = await connect(endpoint)
        third[1].write(REQUEST)
        assert (await answer(third[0], StreamReader())).code >= 0x80
        assert await gone(second[0])
        first[1].write(REQUEST)
        assert (await answer(first[0], messages)).code >= 0x80

    serve(test)


def test_a_silent_stream_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(endpoint: Endpoint) -> None:
        reader, writer = await connect(endpoint)
        messages = StreamReader()
        writer.write(REQUEST)
        await answer(reader, messages)
        endpoint.close_idle()
        writer.write(REQUEST)
        await answer(reader, messages)
        monkeypatch.setattr(module, "IDLE_SECONDS", 0.0)
        endpoint.close_idle()
        assert await gone(reader)

    serve(test)


def test_whoever_does_not_read_its_answers_is_not_read_from() -> None:
    async def test(endpoint: Endpoint) -> None:
        _, writer = await connect(endpoint)
        transport = writer.transport
        transport.pause_reading()  # type: ignore[attr-defined]
        transport.set_write_buffer_limits(high=1 << 30)
        batch = REQUEST * 1000
        waiting = 0
        for _ in range(2000):
            writer.write(batch)
            await asyncio.sleep(0)
            waiting = transport.get_write_buffer_size()
            if waiting > 1 << 20:
                break
        assert waiting > 1 << 20, "requests must wait at their sender, not pile up as answers here"
        # Everybody else is served meanwhile.
        other, other_writer = await connect(endpoint)
        other_writer.write(REQUEST)
        assert (await answer(other, StreamReader())).code >= 0x80

    serve(test)


def test_a_stream_that_breaks_the_protocol_is_told_so_and_closed() -> None:
    async def test(endpoint: Endpoint) -> None:
        reader, writer = await connect(endpoint)
        writer.write(b"\xff" * 64)
        messages = StreamReader()
        messages.feed(await asyncio.wait_for(reader.read(), 2.0))
        codes = []
        while (message := messages.next()) is not None:
            codes.append(message.code)
        assert codes[-1] == Code.ABORT

    serve(test)


def test_the_end_sends_what_is_waiting_and_closes_every_stream() -> None:
    async def test(endpoint: Endpoint) -> None:
        reader, writer = await connect(endpoint)
        writer.write(REQUEST)
        messages = StreamReader()
        await answer(reader, messages)
        await endpoint.close()
        assert await gone(reader)
        with pytest.raises(OSError):
            await connect(endpoint)

    serve(test)


def test_a_port_is_never_shared() -> None:
    first = bind(HostPort("127.0.0.1", 0))
    try:
        with pytest.raises(ConfigurationError, match="in use"):
            bind(first.address)
    finally:
        first.close()
    bind(first.address).close()


def test_port_0_takes_one_port_for_both_kinds() -> None:
    for host in ("127.0.0.1", "::1"):
        try:
            sockets = bind(HostPort(host, 0))
        except ConfigurationError:
            assert host == "::1", "only IPv6 may be missing"
            continue
        assert sockets.datagram.getsockname()[:2] == sockets.stream.getsockname()[:2]
        assert sockets.address == HostPort(host, sockets.stream.getsockname()[1])
        sockets.close()
