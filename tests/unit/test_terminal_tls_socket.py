"""The socket-like object, against OpenSSL: what a program written for `socket.socket` expects of it."""

from __future__ import annotations

import contextlib
import gc
import http.client
import select
import socket
import threading
import time
from typing import Any

import pytest
from OpenSSL import SSL
from tests.support import pki, tls_memory
from tests.support.terminal_peer import LOOPBACK, RawPeer, TlsPeer, drain, echo, read_to_end

from locum.errors import ConfigurationError, LocumError, PeerError, TimedOut, Unavailable
from locum.terminal import BlockingTerminal, TlsSocket, connect_tls_blocking
from locum.terminal.tls_socket import WRITE_CHUNK, SocketTimedOut
from locum.tls.alerts import PeerRejected, Truncated
from locum.tls.registry import ProtocolVersion
from locum.tls.session import SessionTicket

PATIENCE = 30.0


def connect(peer: RawPeer, **options: Any) -> TlsSocket:
    options.setdefault("server_name", pki.PEER_NAME)
    session = connect_tls_blocking(LOOPBACK, peer.port, authority=tls_memory.authority(), **options)
    session.settimeout(PATIENCE)
    return session


def receive(session: TlsSocket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        data += session.recv(length - len(data))
    return data


@pytest.mark.parametrize("version", ProtocolVersion)
def test_what_is_sent_comes_back(version: ProtocolVersion) -> None:
    with TlsPeer(echo) as peer, connect(peer, versions=(version,)) as session:
        assert session.session.version is version
        session.sendall(b"hello")
        assert session.recv(2) == b"he"
        assert session.pending() == 3
        buffer = bytearray(8)
        assert session.recv_into(buffer) == 3
        assert bytes(buffer[:3]) == b"llo"
        assert session.send(bytes(2 * WRITE_CHUNK)) == WRITE_CHUNK
        assert receive(session, WRITE_CHUNK) == bytes(WRITE_CHUNK)
    assert peer.errors == []


def test_shutdown_sends_close_notify_and_leaves_receiving_open() -> None:
    def answer(connection: SSL.Connection, sock: socket.socket) -> None:
        data = read_to_end(connection)
        connection.sendall(data.upper())
        connection.shutdown()

    with TlsPeer(answer) as peer, connect(peer) as session:
        session.sendall(b"whole question")
        session.shutdown(socket.SHUT_WR)
        with pytest.raises(BrokenPipeError):
            session.sendall(b"more")
        assert receive(session, 14) == b"WHOLE QUESTION"
        assert session.recv(1) == b""
        assert session.recv(1) == b""


def test_a_stream_cut_off_is_an_error_after_its_last_byte_and_stays_one() -> None:
    def cut(connection: SSL.Connection, sock: socket.socket) -> None:
        connection.sendall(b"half of")

    with TlsPeer(cut) as peer, connect(peer) as session:
        assert receive(session, 7) == b"half of"
        for _ in range(2):
            with pytest.raises(Truncated):
                session.recv(1)


def test_a_time_out_is_both_ours_and_pythons_and_the_session_goes_on() -> None:
    with TlsPeer(echo) as peer, connect(peer) as session:
        session.settimeout(0.05)
        for kind in (TimedOut, TimeoutError, SocketTimedOut):
            with pytest.raises(kind):
                session.recv(1)
        with pytest.raises(SocketTimedOut):
            session.recv_within(1, 0.01)
        session.settimeout(PATIENCE)
        assert session.gettimeout() == PATIENCE
        session.sendall(b"still here")
        assert receive(session, 10) == b"still here"


def test_sending_to_a_peer_that_does_not_read_times_out() -> None:
    done = threading.Event()

    def sleep(connection: SSL.Connection, sock: socket.socket) -> None:
        done.wait(PATIENCE)

    with TlsPeer(sleep) as peer, connect(peer) as session:
        session.settimeout(0.2)
        with pytest.raises(SocketTimedOut, match="sending timed out"):
            session.sendall(bytes(64 * 2**20))
        done.set()


@pytest.mark.parametrize("value", [0, -1])
def test_it_cannot_be_made_non_blocking(value: float) -> None:
    with TlsPeer(echo) as peer, connect(peer) as session, pytest.raises(ValueError, match="blocks"):
        session.settimeout(value)


def test_flags_are_refused() -> None:
    with TlsPeer(echo) as peer, connect(peer) as session, pytest.raises(ValueError, match="flags"):
        session.recv(1, socket.MSG_PEEK)


def test_one_thread_sends_while_another_receives() -> None:
    data = bytes(range(256)) * 12_000
    with TlsPeer(echo) as peer, connect(peer) as session:

        def send() -> None:
            session.sendall(data)
            session.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        received = bytearray()
        while piece := session.recv(65_536):
            received += piece
        sender.join(PATIENCE)
        assert bytes(received) == data


def test_closing_wakes_a_thread_that_waits_for_the_peer() -> None:
    outcome: list[object] = []
    with TlsPeer(lambda connection, sock: drain(sock)) as peer:
        session = connect(peer)

        def wait() -> None:
            try:
                outcome.append(session.recv(1))
            except (LocumError, OSError) as error:
                outcome.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.2)
        session.close()
        waiting.join(PATIENCE)
        assert not waiting.is_alive()
    assert len(outcome) == 1


def test_close_is_clean_and_wipes_the_key() -> None:
    received: list[bytes] = []

    def read(connection: SSL.Connection, sock: socket.socket) -> None:
        received.append(read_to_end(connection))

    with TlsPeer(read) as peer, BlockingTerminal(authority=tls_memory.authority()) as terminal:
        session = terminal.connect_tls(LOOPBACK, peer.port, server_name=pki.PEER_NAME)
        (key,) = terminal.keys.sessions()
        session.sendall(b"last words")
        assert select.select([], [session], [], 5)[1] == [session]
        assert session.getpeername() == (LOOPBACK, peer.port)
        assert session.getsockname()[0] == LOOPBACK
        session.close()
        session.close()
        assert key.wiped
        assert session.fileno() == -1
        assert "closed" in repr(session)
        with pytest.raises(OSError, match="closed"):
            session.recv(1)
        with pytest.raises(OSError, match="closed"):
            session.sendall(b"x")
    assert received == [b"last words"]
    assert peer.errors == []


def test_close_does_not_wait_long_for_a_peer_that_never_ends() -> None:
    done = threading.Event()

    def stay(connection: SSL.Connection, sock: socket.socket) -> None:
        done.wait(PATIENCE)

    with TlsPeer(stay) as peer:
        session = connect(peer)
        started = time.monotonic()
        session.close()
        assert time.monotonic() - started < 10
        done.set()


def test_a_socket_that_nobody_closes_takes_its_key_with_it() -> None:
    with TlsPeer(echo) as peer, BlockingTerminal(authority=tls_memory.authority()) as terminal:
        session = terminal.connect_tls(LOOPBACK, peer.port, server_name=pki.PEER_NAME)
        (key,) = terminal.keys.sessions()
        with pytest.warns(ResourceWarning):
            del session
            gc.collect()
        assert key.wiped
        assert terminal.keys.sessions() == ()


def test_files_keep_the_connection_open_until_the_last_is_closed() -> None:
    with TlsPeer(echo) as peer:
        session = connect(peer)
        with session.makefile("rwb") as both, session.makefile("r", encoding="utf-8", newline="\n") as text:
            session.close()
            both.write("grüße\nrest\n".encode())
            both.flush()
            assert text.readline() == "grüße\n"
            assert text.readline() == "rest\n"
            assert session.fileno() >= 0
        assert session.fileno() == -1


def test_files_have_the_modes_of_a_sockets_files() -> None:
    with TlsPeer(echo) as peer, connect(peer) as session:
        with pytest.raises(ValueError, match="mode"):
            session.makefile("a")
        with pytest.raises(ValueError, match="buffered"):
            session.makefile("r", buffering=0)
        with session.makefile("wb", buffering=0) as raw, session.makefile("rb") as reading:
            assert raw.write(b"unbuffered") == 10
            assert reading.read(10) == b"unbuffered"
        with pytest.raises(ValueError, match="closed"):
            raw.write(b"x")


def test_http_client_of_the_standard_library_works_over_it() -> None:
    page = b"x" * 100_000

    def serve(connection: SSL.Connection, sock: socket.socket) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += connection.recv(4096)
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + page)
        connection.shutdown()
        sock.shutdown(socket.SHUT_WR)
        drain(sock)

    with TlsPeer(serve) as peer:
        client = http.client.HTTPConnection(LOOPBACK)
        session = connect(peer)
        client.sock = session  # type: ignore[assignment]
        client.request("GET", "/")
        # HTTP/1.0: the client closes its socket here and reads on from the file.
        assert client.getresponse().read() == page
        assert session.fileno() == -1


def test_tickets_are_collected_and_resume() -> None:
    heard: list[SessionTicket] = []
    with TlsPeer(echo) as peer:
        with connect(peer, on_ticket=heard.append) as session:
            session.sendall(b"x")
            session.recv(1)
            assert session.session_tickets
            assert list(session.session_tickets) == heard
        with connect(peer, ticket=heard[-1]) as session:
            assert session.session.resumed


def test_tls12_answers_the_peers_close_notify_and_sends_no_more() -> None:
    def leave(connection: SSL.Connection, sock: socket.socket) -> None:
        connection.shutdown()
        with contextlib.suppress(SSL.ZeroReturnError):
            connection.recv(1)

    with TlsPeer(leave) as peer, connect(peer, versions=(ProtocolVersion.TLS_1_2,)) as session:
        assert session.recv(1) == b""
        with pytest.raises(BrokenPipeError):
            session.sendall(b"x")
    assert peer.errors == []


def test_sending_after_the_engine_has_answered_the_peers_close_notify_is_a_broken_pipe() -> None:
    """One thread has fed the peer's close_notify to the engine, and another sends before the first has seen it."""
    with TlsPeer(echo) as peer, connect(peer, versions=(ProtocolVersion.TLS_1_2,)) as session:
        session._key.holder.close()
        with pytest.raises(BrokenPipeError):
            session.sendall(b"x")


def test_a_peer_that_closes_in_mid_handshake_is_at_fault() -> None:
    with RawPeer(lambda sock: None) as peer, pytest.raises((PeerError, Unavailable)):
        connect(peer)


def test_a_silent_peer_ends_in_a_time_out_that_says_so() -> None:
    message = r"no TLS session within 0\.3 s, waiting for the peer"
    with RawPeer(drain) as peer, pytest.raises(TimedOut, match=message):
        connect(peer, timeout=0.3)


def test_a_rejected_peer_leaves_no_key() -> None:
    with TlsPeer(echo) as peer, BlockingTerminal(authority=tls_memory.authority()) as terminal:
        with pytest.raises(PeerRejected):
            terminal.connect_tls(LOOPBACK, peer.port, server_name="other.example.com")
        assert terminal.keys.sessions() == ()


def test_a_port_where_nobody_listens_and_a_name_that_is_none_are_unavailable() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
    with BlockingTerminal(authority=tls_memory.authority()) as terminal:
        with pytest.raises(Unavailable, match=f"{LOOPBACK}:{port}: Connection refused"):
            terminal.connect_tls(LOOPBACK, port)
        with pytest.raises(Unavailable, match=r"no-such-host\.invalid:443: "):
            terminal.connect_tls("no-such-host.invalid", 443)


def test_options_that_tls_cannot_express_are_refused() -> None:
    with TlsPeer(echo) as peer, pytest.raises(ConfigurationError, match="server name"):
        connect(peer, server_name="grüße.example")
