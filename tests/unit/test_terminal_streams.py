"""asyncio streams over delegated TLS, against OpenSSL: data both ways, every kind of end, flow control."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import uvloop
from OpenSSL import SSL
from tests.support import pki, tls_memory
from tests.support.terminal_peer import LOOPBACK, RawPeer, TlsPeer, drain, echo, read_to_end, wait_until

from locum.errors import ConfigurationError, LocumError, PeerError, TimedOut, Unavailable
from locum.handshake import PeerRejected
from locum.terminal import Terminal, connect_tls
from locum.terminal.steps import Actor, StepName, TerminalStep
from locum.tls.alerts import AlertReceived, Truncated
from locum.tls.registry import ProtocolVersion
from locum.tls.session import SessionTicket

#: Longer than any of these tests takes on a slow machine, in seconds.
PATIENCE = 30.0


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[Any]], Any]:
    """Run a coroutine on each kind of event loop."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else None

    def run(awaitable: Awaitable[Any]) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(awaitable, PATIENCE))

    return run


@asynccontextmanager
async def connected(
    peer: RawPeer, **options: Any
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    options.setdefault("server_name", pki.PEER_NAME)
    reader, writer = await connect_tls(LOOPBACK, peer.port, authority=tls_memory.authority(), **options)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(LocumError):
            await writer.wait_closed()


def test_what_is_written_comes_back_and_both_ends_close_in_order(run: Any) -> None:
    received: list[bytes] = []

    def answer(connection: SSL.Connection, sock: socket.socket) -> None:
        received.append(read_to_end(connection))
        connection.sendall(b"line one\nline two\nrest")
        connection.shutdown()

    async def main(peer: TlsPeer) -> None:
        async with connected(peer) as (reader, writer):
            writer.write(b"hello")
            writer.writelines([b", ", b"peer"])
            await writer.drain()
            assert writer.can_write_eof()
            writer.write_eof()
            assert await reader.readline() == b"line one\n"
            assert await reader.readuntil(b"two\n") == b"line two\n"
            assert await reader.readexactly(2) == b"re"
            assert await reader.read() == b"st"
            assert reader.at_eof()

    with TlsPeer(answer) as peer:
        run(main(peer))
    assert received == [b"hello, peer"]
    assert peer.errors == []


@pytest.mark.parametrize("version", ProtocolVersion)
def test_the_session_is_told(run: Any, version: ProtocolVersion) -> None:
    async def main(peer: TlsPeer) -> None:
        async with connected(peer, versions=(version,), alpn=("mqtt",)) as (_, writer):
            session = writer.get_extra_info("tls")
            assert session.version is version
            assert session.peer_identity == f"dns:{pki.PEER_NAME}"
            assert session.alpn == "mqtt"
            assert writer.get_extra_info("peername")[0] == LOOPBACK
            assert writer.get_extra_info("no such thing", 7) == 7

    with TlsPeer(echo, tls_memory.server_context(alpn=("mqtt",))) as peer:
        run(main(peer))


def test_a_stream_cut_off_without_close_notify_is_an_error_and_not_an_end(run: Any) -> None:
    def cut(connection: SSL.Connection, sock: socket.socket) -> None:
        connection.sendall(b"half of")
        sock.shutdown(socket.SHUT_WR)
        drain(sock)

    async def main(peer: TlsPeer) -> None:
        async with connected(peer) as (reader, _):
            assert await reader.readexactly(7) == b"half of"
            with pytest.raises(Truncated):
                await reader.read()

    with TlsPeer(cut) as peer:
        run(main(peer))


def test_a_reset_connection_is_an_error(run: Any) -> None:
    def reset(connection: SSL.Connection, sock: socket.socket) -> None:
        connection.recv(1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        sock.close()

    async def main(peer: TlsPeer) -> None:
        async with connected(peer) as (reader, writer):
            writer.write(b"x")
            with pytest.raises((Unavailable, Truncated)):
                await reader.read()

    with TlsPeer(reset) as peer:
        run(main(peer))


def test_bytes_that_are_no_record_end_the_session_with_an_alert(run: Any) -> None:
    alerts: list[bytes] = []

    def babble(connection: SSL.Connection, sock: socket.socket) -> None:
        sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        try:
            connection.recv(1)
        except SSL.Error as error:
            alerts.append(str(error).encode())

    async def main(peer: TlsPeer) -> None:
        async with connected(peer) as (reader, _):
            with pytest.raises(PeerError):
                await reader.read()

    with TlsPeer(babble) as peer:
        run(main(peer))
    assert b"bad record mac" in alerts[0].lower()


def test_much_data_both_ways_at_once_arrives_whole(run: Any) -> None:
    size = 3_000_000
    data = bytes(range(256)) * (size // 256)

    async def main(peer: TlsPeer) -> bytes:
        async with connected(peer) as (reader, writer):

            async def send() -> None:
                writer.write(data)
                await writer.drain()
                writer.write_eof()

            sending = asyncio.ensure_future(send())
            received = await reader.read()
            await sending
            return received

    with TlsPeer(echo) as peer:
        assert run(main(peer)) == data


def test_a_peer_that_does_not_read_stops_the_writer(run: Any) -> None:
    go = threading.Event()
    received: list[int] = []

    def wait_first(connection: SSL.Connection, sock: socket.socket) -> None:
        go.wait(PATIENCE)
        received.append(len(read_to_end(connection)))

    async def main(peer: TlsPeer) -> int:
        async with connected(peer) as (_, writer):
            sent = 0
            while True:
                writer.write(bytes(65_536))
                sent += 65_536
                try:
                    await asyncio.wait_for(asyncio.shield(drained := asyncio.ensure_future(writer.drain())), 0.5)
                except TimeoutError:
                    break
                assert sent < 64 * 2**20, "drain never waits"
            assert writer.transport.get_write_buffer_size() > 0
            go.set()
            await drained
            return sent

    with TlsPeer(wait_first) as peer:
        sent = run(main(peer))
    assert received == [sent]


def test_a_reader_that_does_not_read_stops_the_peer(run: Any) -> None:
    sent: list[int] = []
    poured = threading.Event()

    def pour(connection: SSL.Connection, sock: socket.socket) -> None:
        sock.settimeout(0.5)
        total = 0
        with contextlib.suppress(OSError, SSL.Error):
            while total < 256 * 2**20:
                total += connection.send(bytes(16_384))
        sent.append(total)
        poured.set()

    async def main(peer: TlsPeer) -> None:
        async with connected(peer) as (reader, _):
            assert await asyncio.to_thread(poured.wait, PATIENCE)
            assert sent[0] < 64 * 2**20, "the peer was never stopped"
            received = 0
            with contextlib.suppress(PeerError, Unavailable):
                while data := await reader.read(65_536):
                    received += len(data)
            assert received >= sent[0] - 16_384

    with TlsPeer(pour) as peer:
        run(main(peer))


def test_close_sends_what_was_written_and_then_close_notify(run: Any) -> None:
    received: list[bytes] = []

    def read(connection: SSL.Connection, sock: socket.socket) -> None:
        time.sleep(0.3)
        received.append(read_to_end(connection))

    async def main(peer: TlsPeer) -> None:
        async with connected(peer) as (_, writer):
            writer.write(bytes(2_000_000))

    with TlsPeer(read) as peer:
        run(main(peer))
    assert [len(data) for data in received] == [2_000_000]
    assert peer.errors == []


def test_after_write_eof_nothing_can_be_written(run: Any) -> None:
    async def main(peer: TlsPeer) -> None:
        async with connected(peer) as (_, writer):
            writer.write_eof()
            writer.write_eof()
            with pytest.raises(RuntimeError):
                writer.write(b"more")

    with TlsPeer(echo) as peer:
        run(main(peer))


def test_tls12_ends_both_directions_at_the_peers_close_notify(run: Any) -> None:
    def leave(connection: SSL.Connection, sock: socket.socket) -> None:
        connection.shutdown()
        drain(sock)

    async def main(peer: TlsPeer) -> None:
        async with connected(peer, versions=(ProtocolVersion.TLS_1_2,)) as (reader, writer):
            assert await reader.read() == b""
            assert writer.transport.is_closing()
            writer.write(b"dropped")

    with TlsPeer(leave) as peer:
        run(main(peer))


def test_an_answer_to_data_that_came_with_a_tls12_close_notify_is_dropped(run: Any) -> None:
    class Answering(asyncio.Protocol):
        def __init__(self) -> None:
            self.received = b""
            self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.Transport, transport)

        def data_received(self, data: bytes) -> None:
            self.received += data
            self.transport.write(b"answer")

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set_result(exc)

    def say_and_leave(connection: SSL.Connection, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        connection.sendall(b"the last word")
        connection.shutdown()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        drain(sock)

    async def main(peer: TlsPeer) -> None:
        terminal = Terminal(authority=tls_memory.authority())
        _, protocol = await terminal.create_connection(
            Answering, LOOPBACK, peer.port, server_name=pki.PEER_NAME, versions=(ProtocolVersion.TLS_1_2,)
        )
        assert await protocol.lost is None
        assert protocol.received == b"the last word"

    with TlsPeer(say_and_leave) as peer:
        run(main(peer))


def test_the_session_key_is_wiped_when_the_connection_ends(run: Any) -> None:
    async def main(peer: TlsPeer) -> None:
        async with Terminal(authority=tls_memory.authority()) as terminal:
            _, writer = await terminal.connect_tls(LOOPBACK, peer.port, server_name=pki.PEER_NAME)
            (key,) = terminal.keys.sessions()
            assert not key.wiped
            writer.close()
            await writer.wait_closed()
            assert key.wiped
            assert terminal.keys.sessions() == ()

    with TlsPeer(echo) as peer:
        run(main(peer))


def test_abort_ends_at_once_and_wipes_the_key(run: Any) -> None:
    async def main(peer: TlsPeer) -> None:
        async with Terminal(authority=tls_memory.authority()) as terminal:
            reader, writer = await terminal.connect_tls(LOOPBACK, peer.port, server_name=pki.PEER_NAME)
            writer.transport.abort()
            assert await reader.read() == b""
            assert terminal.keys.sessions() == ()

    with TlsPeer(echo) as peer:
        run(main(peer))


@pytest.mark.parametrize("version", ProtocolVersion)
def test_a_ticket_resumes_a_session(run: Any, version: ProtocolVersion) -> None:
    tickets: list[SessionTicket] = []

    async def main(peer: TlsPeer) -> None:
        for resumed in (False, True):
            steps: list[TerminalStep] = []
            async with connected(
                peer,
                versions=(version,),
                ticket=tickets[-1] if tickets else None,
                on_ticket=tickets.append,
                observer=steps.append,
            ) as (reader, writer):
                writer.write(b"ping")
                assert await reader.readexactly(4) == b"ping"
                assert writer.get_extra_info("tls").resumed is resumed
                assert set(writer.get_extra_info("session_tickets")) <= set(tickets)
                asked = [step.operation for step in steps if step.actor is Actor.DELEGATE]
                assert (StepName.AUTHENTICATE in asked) is not resumed

    with TlsPeer(echo) as peer:
        run(main(peer))
    assert tickets


def test_a_peer_that_closes_in_mid_handshake_is_at_fault(run: Any) -> None:
    def leave(sock: socket.socket) -> None:
        sock.recv(1)

    async def main(peer: RawPeer) -> None:
        with pytest.raises((PeerError, Unavailable)):
            await connect_tls(LOOPBACK, peer.port, authority=tls_memory.authority(), server_name="x.example")

    with RawPeer(leave) as peer:
        run(main(peer))


def test_a_peer_that_speaks_something_else_gets_an_alert(run: Any) -> None:
    heard: list[bytes] = []

    def greet(sock: socket.socket) -> None:
        sock.sendall(b"220 mail.example.com ESMTP\r\n")
        sock.settimeout(5)
        while data := sock.recv(4096):
            heard.append(data)

    async def main(peer: RawPeer) -> None:
        with pytest.raises(LocumError):
            await connect_tls(LOOPBACK, peer.port, authority=tls_memory.authority(), server_name="x.example")

    with RawPeer(greet) as peer:
        run(main(peer))
    assert b"".join(heard)[-7:-4] == b"\x15\x03\x03"


def test_a_silent_peer_ends_in_a_time_out_that_says_so(run: Any) -> None:
    async def main(peer: RawPeer) -> None:
        with pytest.raises(TimedOut, match=r"no TLS session within 0\.3 s, waiting for the peer"):
            await connect_tls(
                LOOPBACK, peer.port, authority=tls_memory.authority(), server_name="x.example", timeout=0.3
            )

    with RawPeer(drain) as peer:
        run(main(peer))


def test_a_peer_of_another_name_is_rejected_and_leaves_no_key(run: Any) -> None:
    steps: list[TerminalStep] = []

    async def main(peer: TlsPeer) -> None:
        async with Terminal(authority=tls_memory.authority(), observer=steps.append) as terminal:
            with pytest.raises(PeerRejected):
                await terminal.connect_tls(LOOPBACK, peer.port, server_name="other.example.com")
            assert terminal.keys.sessions() == ()

    with TlsPeer(echo) as peer:
        run(main(peer))
        wait_until(lambda: peer.errors)
    assert steps[-1].operation is StepName.ERROR
    assert "bad certificate" in str(peer.errors[0])


def test_an_alert_of_the_peer_is_told(run: Any) -> None:
    async def main(peer: TlsPeer) -> None:
        with pytest.raises(AlertReceived, match=r"protocol_version|handshake_failure"):
            await connect_tls(
                LOOPBACK,
                peer.port,
                authority=tls_memory.authority(),
                server_name=pki.PEER_NAME,
                versions=(ProtocolVersion.TLS_1_2,),
            )

    versions = (SSL.TLS1_3_VERSION, SSL.TLS1_3_VERSION)
    with TlsPeer(echo, tls_memory.server_context(versions=versions)) as peer:
        run(main(peer))


def test_a_port_where_nobody_listens_is_unavailable(run: Any) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unavailable, match=f"{LOOPBACK}:{port}: "):
        run(connect_tls(LOOPBACK, port, authority=tls_memory.authority()))


def test_a_cancelled_connect_leaves_nothing_behind(run: Any) -> None:
    async def main(peer: RawPeer) -> None:
        async with Terminal(authority=tls_memory.authority()) as terminal:
            connecting = asyncio.ensure_future(terminal.connect_tls(LOOPBACK, peer.port, server_name="x.example"))
            await asyncio.sleep(0.2)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            assert terminal.keys.sessions() == ()

    with RawPeer(drain) as peer:
        run(main(peer))
        assert peer.accepted == 1


def test_a_terminal_needs_a_credential_or_an_authority_and_not_both() -> None:
    with pytest.raises(ConfigurationError, match="either a credential or an authority"):
        Terminal()
