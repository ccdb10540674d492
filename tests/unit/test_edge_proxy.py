"""The terminating proxy: ends, limits, faults, and what the backend is told (C9)."""

from __future__ import annotations

import contextlib
import gc
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable

import pytest
from tests.support import pki
from tests.support.edge import (
    LOOPBACK,
    PATIENCE,
    SITE,
    Running,
    certificate,
    client_context,
    connected,
    echo,
    exchange,
    running_edge,
)
from tests.support.terminal_peer import RawPeer

from locum.edge.proxy import ProxyOptions, parse_backend
from locum.edge.proxy_protocol import Ends, proxy_header
from locum.edge.tls_server import Limits
from locum.errors import ConfigurationError
from locum.names import HostPort
from locum.relay import PlainSide, Relay
from locum.tls.connection import ServerConnection
from locum.tls.registry import CIPHER_SUITES, ProtocolVersion
from locum.tls.session import SessionInfo

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def edge_for(backend: int = 0, **options):  # type: ignore[no-untyped-def]
    """An edge with a key of its own: the key server has no part in what is tested here."""
    site = certificate("p256")
    return running_edge(files=[site], own=[site], backend=backend, **options)


def exchange_at_once(stream: ssl.SSLSocket, data: bytes) -> bytes:
    """Send `data` and take as much, whichever way something can go: OpenSSL wants one thread for both."""
    stream.setblocking(False)
    received, rest = bytearray(), memoryview(data)
    while len(received) < len(data):
        writable = [stream] if rest else []
        assert any(select.select([stream], writable, [], PATIENCE)), "nothing has come or gone"
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while rest:
                rest = rest[stream.send(rest[: 1 << 14]) :]
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while len(received) < len(data):
                part = stream.recv(1 << 16)
                assert part, "it has ended"
                received += part
    stream.setblocking(True)
    return bytes(received)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def read_all(stream: ssl.SSLSocket) -> bytes:
    data = b""
    while part := stream.recv(1 << 16):
        data += part
    return data


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["tls12", "tls13"])
def test_a_great_deal_passes_in_both_directions_at_once(version: ssl.TLSVersion) -> None:
    data = bytes(range(256)) * 40_000
    with RawPeer(echo) as backend, edge_for(backend.port) as edge:
        with connected(edge.port, client_context(version)) as stream:
            received = exchange_at_once(stream, data)
        assert received == data


def test_a_client_that_has_said_everything_still_gets_its_answer() -> None:
    def answer(sock: socket.socket) -> None:
        question = b""
        while part := sock.recv(1 << 16):
            question += part
        sock.sendall(question.upper())
        sock.shutdown(socket.SHUT_WR)

    with RawPeer(answer) as backend, edge_for(backend.port) as edge:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context(TLS13).wrap_bio(incoming, outgoing, server_hostname=SITE)
        with socket.create_connection((LOOPBACK, edge.port), PATIENCE) as plain:

            def run(step: Callable[[], bytes | None]) -> bytes | None:
                while True:
                    try:
                        result = step()
                    except ssl.SSLWantReadError:
                        plain.sendall(outgoing.read())
                        incoming.write(plain.recv(1 << 16))
                    else:
                        plain.sendall(outgoing.read())
                        return result

            run(client.do_handshake)
            client.write(b"question")
            with contextlib.suppress(ssl.SSLWantReadError):
                client.unwrap()  # sends close_notify and would wait for the other one
            plain.sendall(outgoing.read())
            # What OpenSSL does not deliver after its own close_notify still came in order, and with an end.
            received = b""
            while part := plain.recv(1 << 16):
                received += part
        assert len(received) > len(b"question")


def test_a_stream_that_is_cut_off_reaches_the_backend_as_a_reset() -> None:
    ends: list[str] = []

    def listen(sock: socket.socket) -> None:
        try:
            while sock.recv(1 << 16):
                pass
            ends.append("end")
        except ConnectionResetError:
            ends.append("reset")

    with RawPeer(listen) as backend, edge_for(backend.port) as edge:
        with connected(edge.port) as stream:
            stream.sendall(b"half of a mess")
            wait_until(lambda: backend.accepted == 1)
            stream.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: bool(ends))
    assert ends == ["reset"]


def test_a_backend_that_breaks_off_is_not_taken_for_one_that_has_ended() -> None:
    def break_off(sock: socket.socket) -> None:
        sock.recv(1 << 16)
        sock.sendall(b"half of an ans")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with RawPeer(break_off) as backend, edge_for(backend.port) as edge, connected(edge.port) as stream:
        stream.sendall(b"question")
        with pytest.raises(OSError):
            read_all(stream)


def test_a_backend_that_ends_in_order_ends_the_client_in_order() -> None:
    def answer(sock: socket.socket) -> None:
        sock.recv(1 << 16)
        sock.sendall(b"answer")

    with RawPeer(answer) as backend, edge_for(backend.port) as edge:
        context = client_context()
        with (
            socket.create_connection((LOOPBACK, edge.port), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=SITE, suppress_ragged_eofs=False) as stream,
        ):
            stream.sendall(b"question")
            assert read_all(stream) == b"answer"


def test_a_backend_that_speaks_first_is_heard() -> None:
    def greet(sock: socket.socket) -> None:
        sock.sendall(b"220 ready\r\n")
        echo(sock)

    with RawPeer(greet) as backend, edge_for(backend.port) as edge, connected(edge.port) as stream:
        assert stream.recv(100) == b"220 ready\r\n"
        assert exchange(stream, b"EHLO") == b"EHLO"


def test_without_a_backend_clients_are_cut_off_and_served_again_when_it_is_there() -> None:
    with socket.create_server((LOOPBACK, 0)) as reserved:
        port = reserved.getsockname()[1]
    with edge_for(port) as edge:
        with pytest.raises(OSError), connected(edge.port) as stream:
            stream.sendall(b"x")
            assert stream.recv(1) == b""
            raise OSError("an end without anything")
        with socket.create_server((LOOPBACK, port)) as backend:
            thread = threading.Thread(target=lambda: echo(backend.accept()[0]))
            thread.start()
            with connected(edge.port) as stream:
                assert exchange(stream, b"x") == b"x"
            thread.join(PATIENCE)


def test_where_clients_speak_first_the_backend_hears_of_those_that_speak() -> None:
    context = client_context()
    context.set_alpn_protocols(["http/1.1"])
    with RawPeer(echo) as backend, edge_for(backend.port, alpn=("http/1.1",)) as edge:
        with connected(edge.port, context) as silent, contextlib.suppress(OSError):
            silent.unwrap()
        with connected(edge.port, context) as stream:
            assert exchange(stream, b"GET /") == b"GET /"
        assert backend.accepted == 1


def test_a_silent_client_of_such_a_protocol_is_closed_when_it_is_idle() -> None:
    context = client_context()
    context.set_alpn_protocols(["h2"])
    proxy = ProxyOptions(backend=HostPort(LOOPBACK, 9), idle_timeout=0.3)
    with edge_for(proxy=proxy, alpn=("h2",)) as edge, connected(edge.port, context) as stream:
        assert stream.recv(1) == b""


def test_a_backend_can_be_a_unix_socket(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "backend"
    with socket.socket(socket.AF_UNIX) as backend:
        backend.bind(str(path))
        backend.listen()
        thread = threading.Thread(target=lambda: echo(backend.accept()[0]))
        thread.start()
        proxy = ProxyOptions(backend=parse_backend(f"unix:{path}"))
        with edge_for(proxy=proxy) as edge, connected(edge.port) as stream:
            assert exchange(stream, b"unix") == b"unix"
        thread.join(PATIENCE)


# --- limits -----------------------------------------------------------------------------------------------


def test_a_client_that_dawdles_over_its_handshake_is_dropped() -> None:
    with (
        edge_for(limits=Limits(handshake_timeout=0.3)) as edge,
        socket.create_connection((LOOPBACK, edge.port), PATIENCE) as plain,
    ):
        plain.sendall(b"\x16\x03\x01")
        with contextlib.suppress(ConnectionResetError):
            assert plain.recv(1) == b""
        wait_until(lambda: edge.server.counts.failed == 1)


def test_connections_beyond_the_limit_wait_for_their_turn() -> None:
    with (
        RawPeer(echo) as backend,
        edge_for(backend.port, limits=Limits(maximum_connections=2)) as edge,
        contextlib.ExitStack() as open_ones,
    ):
        for _ in range(2):
            open_ones.enter_context(connected(edge.port))
        with socket.create_connection((LOOPBACK, edge.port), PATIENCE) as third:
            third.settimeout(0.5)
            with pytest.raises(TimeoutError):
                client_context().wrap_socket(third, server_hostname=SITE)
        open_ones.close()
        with connected(edge.port) as stream:
            assert exchange(stream, b"my turn") == b"my turn"


def test_an_idle_connection_is_closed() -> None:
    with RawPeer(echo) as backend:
        proxy = ProxyOptions(backend=HostPort(LOOPBACK, backend.port), idle_timeout=0.3)
        with edge_for(proxy=proxy) as edge, connected(edge.port) as stream:
            assert stream.recv(1) == b""


def test_garbage_ends_with_an_alert_and_nothing_else_suffers() -> None:
    with RawPeer(echo) as backend, edge_for(backend.port) as edge:
        with socket.create_connection((LOOPBACK, edge.port), PATIENCE) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: site\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                while plain.recv(100):
                    pass
        with connected(edge.port) as stream:
            assert exchange(stream, b"x") == b"x"
        assert edge.server.counts.failed == 1


def test_a_client_that_hangs_up_during_its_handshake_is_forgotten() -> None:
    with RawPeer(echo) as backend, edge_for(backend.port) as edge:
        for _ in range(5):
            socket.create_connection((LOOPBACK, edge.port), PATIENCE).close()
        wait_until(lambda: edge.server.counts.failed == 5)
        with connected(edge.port) as stream:
            assert exchange(stream, b"x") == b"x"


def test_when_it_is_told_to_stop_open_connections_go_on_until_they_end() -> None:
    with RawPeer(echo) as backend, edge_for(backend.port) as edge, connected(edge.port) as stream:
        edge.stop()
        wait_until(lambda: not _listens(edge))
        assert exchange(stream, b"still") == b"still"


def test_connections_that_do_not_end_in_time_are_ended_with_close_notify() -> None:
    with RawPeer(echo) as backend, edge_for(backend.port, limits=Limits(drain_timeout=0.2)) as edge:
        context = client_context()
        with (
            socket.create_connection((LOOPBACK, edge.port), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=SITE, suppress_ragged_eofs=False) as stream,
        ):
            assert exchange(stream, b"x") == b"x"
            edge.stop()
            assert stream.recv(1) == b""


def _listens(edge: Running) -> bool:
    try:
        socket.create_connection((LOOPBACK, edge.port), 1).close()
    except (ConnectionRefusedError, ConnectionResetError):  # the latter while it is being closed
        return False
    return True


# --- the PROXY protocol -----------------------------------------------------------------------------------


def parse_values(data: bytes) -> dict[int, bytes]:
    values = {}
    while data:
        code, length = struct.unpack(">BH", data[:3])
        values[code] = data[3 : 3 + length]
        data = data[3 + length :]
    return values


def test_the_backend_is_told_who_the_client_is(tmp_path) -> None:  # type: ignore[no-untyped-def]
    authority = tmp_path / "clients.pem"
    authority.write_bytes(pki.ca(name="Clients").pem)
    with RawPeer(echo) as backend:
        proxy = ProxyOptions(backend=HostPort(LOOPBACK, backend.port), proxy_protocol=True)
        identity = pki.client(pki.ca(name="Clients"), name="me.example.com")
        with edge_for(proxy=proxy, client_authorities=(authority,), alpn=("h2",)) as edge:
            context = client_context(TLS13, identity=identity)
            context.set_alpn_protocols(["h2"])
            with connected(edge.port, context) as stream:
                own = stream.getsockname()
                stream.sendall(b"and then the first byte")
                header = stream.recv(16)
                length = struct.unpack(">H", header[14:])[0]
                rest = b""
                while len(rest) < length + 23:
                    rest += stream.recv(1000)
    assert header[:14] == b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
    assert rest[length:] == b"and then the first byte"
    assert rest[:8] == socket.inet_aton(LOOPBACK) * 2
    assert struct.unpack(">HH", rest[8:12]) == (own[1], edge.port)
    values = parse_values(rest[12:length])
    assert values[0x01] == b"h2"
    assert values[0x02] == SITE.encode()
    assert values[0x20][:5] == b"\x07\0\0\0\0"
    details = parse_values(values[0x20][5:])
    assert details[0x21] == b"TLSv1.3"
    assert details[0x22] == b"dns:me.example.com"
    assert details[0x23].startswith(b"TLS_")


def test_a_client_over_ipv6_without_a_certificate_is_told_as_such() -> None:
    suite = next(iter(CIPHER_SUITES.values()))
    session = SessionInfo(
        version=ProtocolVersion.TLS_1_3,
        cipher_suite=suite,
        group=None,
        server_name="",
        peer_identity="",
        alpn=None,
        resumed=False,
        client_authenticated=False,
        peer_certificates=(),
    )
    header = proxy_header(Ends(("2001:db8::1", 1000), ("2001:db8::2", 443)), session)
    assert header[13] == 0x21
    assert header[16:32] == socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    values = parse_values(header[52:])
    assert set(values) == {0x20}
    assert values[0x20][:5] == b"\x01\0\0\0\1"


# --- options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["unix:", "host", "host:0:1", ""])
def test_a_backend_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_backend(text)


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        ProxyOptions(backend=HostPort("h", 1), idle_timeout=0)
    with pytest.raises(ConfigurationError):
        ProxyOptions(backend=HostPort("h", 0))
    with pytest.raises(ConfigurationError):
        Limits(maximum_connections=0)
    with pytest.raises(ConfigurationError):
        Limits(handshake_timeout=0)


@pytest.mark.parametrize("speaks", [True, False], ids=["relayed", "silent"])
def test_a_connection_that_is_over_does_not_wait_for_the_collector(speaks: bool) -> None:
    def alive() -> int:
        return sum(type(each) in (ServerConnection, Relay, PlainSide) for each in gc.get_objects())

    context = client_context(TLS13)
    context.set_alpn_protocols(["http/1.1"])
    gc.collect()
    gc.disable()
    try:
        before = alive()
        with RawPeer(echo) as backend, edge_for(backend.port, alpn=("http/1.1",)) as edge:
            with connected(edge.port, context) as stream:
                wait_until(lambda: alive() > before)
                if speaks:
                    assert exchange(stream, b"anything") == b"anything"
                stream.unwrap()
            wait_until(lambda: alive() == before)
    finally:
        gc.enable()
