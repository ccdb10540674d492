"""The proxy on the device: plaintext inside, delegated TLS outside, ends and limits kept apart (A11)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from OpenSSL import SSL
from tests.support import pki, tls_memory
from tests.support.terminal_peer import LOOPBACK, RawPeer, TlsPeer, drain, echo, read_to_end, wait_until

from locum.errors import ConfigurationError, Unavailable
from locum.names import HostPort
from locum.terminal import Terminal
from locum.terminal.options import TlsOptions
from locum.terminal.proxy import Proxy, ProxyOptions
from locum.tls.registry import ProtocolVersion

PATIENCE = 30.0


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[Any]], Any]:
    """Run a coroutine on each kind of event loop."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else None

    def run(awaitable: Awaitable[Any]) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(awaitable, PATIENCE))

    return run


class Running:
    """A proxy that serves, and what it reported."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.reports: list[str] = []
        self.stop = asyncio.Event()
        self.address = HostPort(LOOPBACK, 0)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.address.host, self.address.port)


@asynccontextmanager
async def proxy(peer: RawPeer, *, tls: TlsOptions | None = None, **options: Any) -> AsyncIterator[Running]:
    tls = tls or TlsOptions(server_name=pki.PEER_NAME)
    settings = ProxyOptions(listen=HostPort(LOOPBACK, 0), to=HostPort(LOOPBACK, peer.port), tls=tls, **options)
    async with Terminal(authority=tls_memory.authority()) as terminal:
        running = Running(terminal)
        server = Proxy(terminal, settings, report=running.reports.append)
        running.address = server.listen()
        serving = asyncio.ensure_future(server.serve(running.stop))
        try:
            yield running
        finally:
            running.stop.set()
            await serving


async def finish(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def test_a_program_talks_through_it_in_plaintext(run: Any) -> None:
    async def main(peer: TlsPeer) -> None:
        async with proxy(peer) as running:
            reader, writer = await running.connect()
            data = bytes(range(256)) * 4000
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
            await finish(writer)
        assert running.reports == []

    with TlsPeer(echo) as peer:
        run(main(peer))
    assert peer.errors == []


def test_a_half_closed_direction_leaves_the_other_one_open(run: Any) -> None:
    def answer(connection: SSL.Connection, sock: socket.socket) -> None:
        data = read_to_end(connection)
        connection.sendall(data.upper())
        connection.shutdown()
        drain(sock)

    async def main(peer: TlsPeer) -> None:
        async with proxy(peer) as running:
            reader, writer = await running.connect()
            writer.write(b"question")
            writer.write_eof()
            assert await reader.read() == b"QUESTION"
            await finish(writer)

    with TlsPeer(answer) as peer:
        run(main(peer))


def test_a_peer_that_ends_first_leaves_the_program_its_direction(run: Any) -> None:
    received: list[bytes] = []

    def speak_first(connection: SSL.Connection, sock: socket.socket) -> None:
        connection.sendall(b"220 ready\n")
        connection.shutdown()
        received.append(read_to_end(connection))

    async def main(peer: TlsPeer) -> None:
        async with proxy(peer) as running:
            reader, writer = await running.connect()
            assert await reader.read() == b"220 ready\n"
            writer.write(b"late words")
            await finish(writer)
            await asyncio.to_thread(wait_until, lambda: received)

    with TlsPeer(speak_first) as peer:
        run(main(peer))
    assert received == [b"late words"]


def test_a_truncated_stream_reaches_the_program_as_a_reset(run: Any) -> None:
    def cut(connection: SSL.Connection, sock: socket.socket) -> None:
        connection.sendall(b"half of")
        sock.shutdown(socket.SHUT_WR)
        drain(sock)

    async def main(peer: TlsPeer) -> None:
        async with proxy(peer) as running:
            reader, writer = await running.connect()
            with pytest.raises(ConnectionResetError):
                while await reader.read(100):
                    pass
            await finish(writer)
        assert any("without close_notify" in report for report in running.reports)

    with TlsPeer(cut) as peer:
        run(main(peer))


def test_a_peer_that_answers_our_close_notify_with_a_bare_end_is_no_error(run: Any) -> None:
    def curt(connection: SSL.Connection, sock: socket.socket) -> None:
        connection.sendall(read_to_end(connection).upper())
        sock.shutdown(socket.SHUT_WR)
        drain(sock)

    async def main(peer: TlsPeer) -> None:
        async with proxy(peer) as running:
            reader, writer = await running.connect()
            writer.write(b"question")
            writer.write_eof()
            assert await reader.read() == b"QUESTION"
            await finish(writer)
        assert running.reports == []

    with TlsPeer(curt) as peer:
        run(main(peer))


def test_a_failed_handshake_resets_the_program_and_is_reported(run: Any) -> None:
    async def main(peer: TlsPeer) -> None:
        async with proxy(peer, tls=TlsOptions(server_name="other.example.com")) as running:
            reader, writer = await running.connect()
            with pytest.raises(ConnectionResetError):
                await reader.read()
            await finish(writer)
        assert len(running.reports) == 1
        assert "not authentic" in running.reports[0]

    with TlsPeer(echo) as peer:
        run(main(peer))


def test_connections_beyond_the_limit_wait_for_their_turn(run: Any) -> None:
    async def main(peer: TlsPeer) -> None:
        async with proxy(peer, maximum_connections=1) as running:
            first_reader, first = await running.connect()
            first.write(b"1")
            assert await first_reader.readexactly(1) == b"1"
            second_reader, second = await running.connect()
            second.write(b"2")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(second_reader.read(1), 0.3)
            assert peer.accepted == 1
            await finish(first)
            reader, third = await running.connect()
            third.write(b"3")
            await finish(second)
            assert await reader.readexactly(1) == b"3"
            await finish(third)

    with TlsPeer(echo) as peer:
        run(main(peer))


def test_an_idle_connection_is_closed(run: Any) -> None:
    async def main(peer: TlsPeer) -> None:
        async with proxy(peer, idle_timeout=0.3) as running:
            reader, writer = await running.connect()
            for _ in range(3):
                await asyncio.sleep(0.2)
                writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
            assert await reader.read() == b""
            await finish(writer)
        assert any("without a byte" in report for report in running.reports)

    with TlsPeer(echo) as peer:
        run(main(peer))


def test_a_program_that_does_not_read_stops_the_peer(run: Any) -> None:
    sent: list[int] = []

    def pour(connection: SSL.Connection, sock: socket.socket) -> None:
        sock.settimeout(0.5)
        total = 0
        with contextlib.suppress(OSError, SSL.Error):
            while total < 256 * 2**20:
                total += connection.send(bytes(16_384))
        sent.append(total)

    async def main(peer: TlsPeer) -> None:
        async with proxy(peer) as running:
            _, writer = await running.connect()
            await asyncio.to_thread(wait_until, lambda: sent)
            await finish(writer)

    with TlsPeer(pour) as peer:
        run(main(peer))
    assert sent[0] < 128 * 2**20


def test_stopping_sends_close_notify_on_every_connection(run: Any) -> None:
    ended: list[bytes] = []

    def note(connection: SSL.Connection, sock: socket.socket) -> None:
        ended.append(read_to_end(connection))

    async def main(peer: TlsPeer) -> None:
        async with proxy(peer) as running:
            writers = [(await running.connect())[1] for _ in range(3)]
            for writer in writers:
                writer.write(b"x")
            await asyncio.to_thread(wait_until, lambda: len(running.terminal.keys.sessions()) == 3)
            await asyncio.sleep(0.2)
        assert running.terminal.keys.sessions() == ()
        for writer in writers:
            await finish(writer)

    with TlsPeer(note) as peer:
        run(main(peer))
    assert ended == [b"x"] * 3


def test_tls12_through_the_proxy(run: Any) -> None:
    async def main(peer: TlsPeer) -> None:
        tls = TlsOptions(server_name=pki.PEER_NAME, versions=(ProtocolVersion.TLS_1_2,))
        async with proxy(peer, tls=tls) as running:
            reader, writer = await running.connect()
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            writer.write_eof()
            assert await reader.read() == b""
            await finish(writer)
        assert running.reports == []

    with TlsPeer(echo) as peer:
        run(main(peer))


def options(listen: str, **settings: Any) -> ProxyOptions:
    return ProxyOptions(listen=HostPort.parse(listen), to=HostPort("peer.example.com", 443), **settings)


async def _listen(settings: ProxyOptions) -> HostPort:
    async with Terminal(authority=tls_memory.authority()) as terminal:
        server = Proxy(terminal, settings, report=lambda _: None)
        address = server.listen()
        stop = asyncio.Event()
        stop.set()
        await server.serve(stop)
        return address


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_an_address_that_other_machines_reach_has_to_be_allowed(listen: str) -> None:
    with pytest.raises(ConfigurationError, match="--allow-remote"):
        asyncio.run(_listen(options(listen)))


def test_an_allowed_remote_address_is_listened_on() -> None:
    address = asyncio.run(_listen(options("0.0.0.0:0", allow_remote=True)))
    assert (address.host, address.port > 0) == ("0.0.0.0", True)


def test_a_port_in_use_is_unavailable() -> None:
    with socket.create_server((LOOPBACK, 0)) as other, pytest.raises(Unavailable, match="in use"):
        asyncio.run(_listen(options(f"{LOOPBACK}:{other.getsockname()[1]}")))


@pytest.mark.parametrize("settings", [{"maximum_connections": 0}, {"idle_timeout": 0.0}])
def test_limits_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        options("127.0.0.1:0", **settings)
