"""Clients that an edge must not trust, and an edge that its key server does not trust any more (C9, X3).

The edge runs in a process of its own. Whatever one client does, the next one is served, and nothing is unexpected.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from cryptography import x509
from OpenSSL import SSL
from tests.support.edge import LOOPBACK, PATIENCE, SITE, certificate, client_context, connected, echo, exchange
from tests.support.edge_process import EdgeProcess, edge_process
from tests.support.key_pairs import key_pair
from tests.support.key_server_process import KeyServerProcess, eventually, key_server, peak_memory
from tests.support.shell import Shell
from tests.support.terminal_peer import RawPeer
from tests.support.web_certificates import authority, root, web_certificate

from locum.store import Allow, EdgeRole
from locum.tls.extensions import Extensions
from locum.tls.messages import ClientHello, serialize
from locum.tls.registry import ExtensionType

pytest_plugins = ("tests.support.shell_fixtures",)

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
HANDSHAKE_SECONDS = 2.0
#: What all that strangers do may cost a process of the edge in memory, in bytes.
MEMORY = 48 << 20
ALERT, HANDSHAKE, APPLICATION_DATA = 21, 22, 23


@pytest.fixture(scope="module")
def backend() -> Iterator[RawPeer]:
    with RawPeer(echo) as peer:
        yield peer


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory, backend: RawPeer) -> Iterator[EdgeProcess]:
    directory = tmp_path_factory.mktemp("edge")
    certificate("p256").write(directory, "site")
    words = ("--cert", "site.pem", "--own-key", "site.key", "--handshake-timeout", str(HANDSHAKE_SECONDS))
    with edge_process(directory, backend.port, *words) as process:
        yield process


@pytest.fixture(autouse=True)
def served(edge: EdgeProcess) -> Iterator[None]:
    """Somebody who was there before goes on all the while, and somebody who comes afterwards is served."""
    with connected(edge.port) as stream:
        assert exchange(stream, b"before") == b"before"
        yield
        assert exchange(stream, b"after") == b"after"
    with connected(edge.port, client_context(TLS12)) as stream:
        assert exchange(stream, b"next") == b"next"
    # Strangers are no trouble for whoever reads the log.
    assert not any(word in edge.log for word in ("unexpectedly", "Traceback", "warning", "error"))


def dial(edge: EdgeProcess) -> socket.socket:
    return socket.create_connection((LOOPBACK, edge.port), PATIENCE)


def record(kind: int, data: bytes, version: int = 0x0303) -> bytes:
    return struct.pack(">BHH", kind, version, len(data)) + data


def said_before_the_end(sock: socket.socket) -> bytes:
    """Everything up to the end of the connection, however it ends."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(1 << 16):
            said += data
    return said


# --- the first bytes ----------------------------------------------------------------------------------------


def client_hello(**changes: object) -> ClientHello:
    """A hello of TLS 1.2 that the edge could answer."""
    extensions = changes.pop("extensions", _EXTENSIONS)
    fields = {
        "legacy_version": 0x0303,
        "random": bytes(range(32)),
        "session_id": b"",
        "cipher_suites": (0xC02B,),
        "extensions": Extensions(tuple(extensions)),  # type: ignore[call-overload]
    }
    return ClientHello(**(fields | changes))


def codes(*values: int) -> bytes:
    return struct.pack(f">H{len(values)}H", 2 * len(values), *values)


_EXTENSIONS = (
    (int(ExtensionType.SUPPORTED_GROUPS), codes(23)),
    (int(ExtensionType.SIGNATURE_ALGORITHMS), codes(0x0403)),
    (11, b"\x01\x00"),
)


def hello_bytes(**changes: object) -> bytes:
    return serialize(client_hello(**changes))


def handshake_header(length: int, kind: int = 1) -> bytes:
    return bytes([kind]) + length.to_bytes(3, "big")


WRONG = {
    "http": b"GET / HTTP/1.1\r\nHost: site.example.com\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.9\r\n",
    "sslv2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(40),
    "zeros": bytes(2000),
    "data-before-the-handshake": record(APPLICATION_DATA, b"x" * 100),
    "change-cipher-spec-first": record(20, b"\x01"),
    "empty-handshake-records": record(HANDSHAKE, b"") * 100,
    "record-that-is-too-long": struct.pack(">BHH", HANDSHAKE, 0x0301, 0x4801) + bytes(20_000),
    "message-of-16-megabytes": record(HANDSHAKE, handshake_header(0xFFFFFF) + bytes(16_000)) * 8,
    "message-of-no-type": record(HANDSHAKE, handshake_header(10, 99) + bytes(10)),
    "server-hello": record(HANDSHAKE, handshake_header(38, 2) + b"\x03\x03" + bytes(36)),
    "finished-first": record(HANDSHAKE, handshake_header(12, 20) + bytes(12)),
    "no-cipher-suite-in-common": record(HANDSHAKE, hello_bytes(cipher_suites=(0x0005,))),
    "version-1.0": record(HANDSHAKE, hello_bytes(legacy_version=0x0301)),
    "trailing-bytes": record(HANDSHAKE, handshake_header(len(hello_bytes())) + hello_bytes()[4:] + bytes(4)),
    "hello-cut-in-the-middle-of-its-extensions": record(HANDSHAKE, handshake_header(60) + hello_bytes()[4:64]),
    "an-extension-twice": record(HANDSHAKE, hello_bytes(extensions=(*_EXTENSIONS, _EXTENSIONS[0]))),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_handshake_ends_with_one_fatal_alert(edge: EdgeProcess, what: str) -> None:
    with dial(edge) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(WRONG[what])
        said = said_before_the_end(sock)
    kind, _, length = struct.unpack(">BHH", said[:5])
    assert (kind, length, said[5]) == (ALERT, 2, 2)
    assert len(said) == 7


def test_a_fatal_alert_instead_of_a_hello_is_not_answered(edge: EdgeProcess) -> None:
    with dial(edge) as sock:
        sock.sendall(record(ALERT, b"\x02\x28"))
        assert said_before_the_end(sock) == b""


@pytest.mark.parametrize("size", [1, 50])
def test_a_hello_in_many_small_records_is_a_hello(edge: EdgeProcess, size: int) -> None:
    hello = hello_bytes()
    with dial(edge) as sock:
        sock.sendall(
            b"".join(record(HANDSHAKE, hello[start : start + size]) for start in range(0, len(hello), size))
        )
        kind = sock.recv(1)
    assert kind == bytes([HANDSHAKE])


def test_a_hello_as_large_as_it_may_be_is_answered_and_a_larger_one_is_not(edge: EdgeProcess) -> None:
    for length, answer in ((30_000, HANDSHAKE), (40_000, ALERT)):
        hello = hello_bytes(extensions=(*_EXTENSIONS, (0xFFAA, bytes(length))))
        records = [record(HANDSHAKE, hello[start : start + 16_384]) for start in range(0, len(hello), 16_384)]
        with dial(edge) as sock:
            sock.sendall(b"".join(records))
            assert sock.recv(1) == bytes([answer])


def test_thousands_of_hellos_with_thousands_of_made_up_groups_do_not_fill_the_memory(edge: EdgeProcess) -> None:
    (worker,) = edge.workers
    before = peak_memory(worker)
    for number in range(400):
        groups = codes(23, *(0x1000 + (number + 7 * index) % 0xD000 for index in range(12_000)))
        extensions = ((int(ExtensionType.SUPPORTED_GROUPS), groups), *_EXTENSIONS[1:])
        hello = hello_bytes(extensions=extensions)
        with dial(edge) as sock:
            sock.sendall(record(HANDSHAKE, hello[:16_384]) + record(HANDSHAKE, hello[16_384:]))
            assert sock.recv(1) == bytes([HANDSHAKE])
    assert peak_memory(worker) - before < MEMORY


# --- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["unknown.example.net", "site.example.com.", "SITE.example.com", "a.b.site.example.com", "x" * 63 + ".net"],
)
def test_a_name_that_no_certificate_is_for_gets_the_default_one(edge: EdgeProcess, name: str) -> None:
    context = client_context()
    context.check_hostname = False
    with connected(edge.port, context, name=name) as stream:
        shown = stream.getpeercert(binary_form=True)
        assert exchange(stream, b"x") == b"x"
    assert shown is not None
    names = x509.load_der_x509_certificate(shown).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == [SITE]


def server_name(name: bytes, kind: int = 0) -> tuple[int, bytes]:
    entry = bytes([kind]) + struct.pack(">H", len(name)) + name
    return int(ExtensionType.SERVER_NAME), struct.pack(">H", len(entry)) + entry


@pytest.mark.parametrize(
    "name",
    [b"", b"\xff\xfe.example.com", b"a" * 300, b"site\0.example.com", b"..", b"../../etc/passwd", b"127.0.0.1"],
    ids=["empty", "not-ascii", "long", "with-a-zero", "dots", "path", "address"],
)
def test_a_name_that_is_none_gets_an_alert_or_the_default_certificate(edge: EdgeProcess, name: bytes) -> None:
    with dial(edge) as sock:
        sock.sendall(record(HANDSHAKE, hello_bytes(extensions=(*_EXTENSIONS, server_name(name)))))
        assert sock.recv(1) in (bytes([ALERT]), bytes([HANDSHAKE]))


# --- slowly -------------------------------------------------------------------------------------------------


def drip(sock: socket.socket, data: bytes, seconds: float) -> None:
    """Send a byte now and then, until there is no more or the other end has had enough."""
    for byte in data:
        try:
            sock.sendall(bytes([byte]))
        except OSError:
            return
        if select.select([sock], [], [], seconds)[0]:
            return


def test_hundreds_who_send_their_hello_a_byte_at_a_time_are_cut_off_and_keep_nobody_out(edge: EdgeProcess) -> None:
    hello = record(HANDSHAKE, hello_bytes(extensions=(*_EXTENSIONS, (0xFFAA, bytes(400)))))
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(dial(edge)) for _ in range(400)]
        for sock in slow:
            sock.sendall(hello[:30])
        with connected(edge.port) as stream:
            assert exchange(stream, b"x") == b"x"
        drip(slow[0], hello[30:], HANDSHAKE_SECONDS / 20)
        for sock in slow:
            assert said_before_the_end(sock) == b""


def test_a_client_that_stops_in_the_middle_of_its_handshake_is_cut_off(edge: EdgeProcess) -> None:
    with dial(edge) as sock:
        sock.sendall(record(HANDSHAKE, hello_bytes()))
        assert said_before_the_end(sock)[0] == HANDSHAKE


def test_a_thousand_idle_connections_disturb_nobody(edge: EdgeProcess) -> None:
    (worker,) = edge.workers
    before = peak_memory(worker)
    context = client_context(TLS13)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connected(edge.port, context)) for _ in range(1000)]
        for _ in range(20):
            with connected(edge.port) as stream:
                assert exchange(stream, b"x" * 5000) == b"x" * 5000
        assert exchange(idle[0], b"still there") == b"still there"
        assert exchange(idle[-1], b"so am I") == b"so am I"
    # Buffers, a task and two sockets for each.
    assert peak_memory(worker) - before < 200 << 20


def test_a_client_that_reads_nothing_costs_little_memory(edge: EdgeProcess) -> None:
    (worker,) = edge.workers
    with connected(edge.port) as stream:
        assert exchange(stream, b"x") == b"x"
        before = peak_memory(worker)
        stream.settimeout(0.5)
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 1 << 28:
                stream.sendall(b"x" * (1 << 16))
                sent += 1 << 16
        assert sent < 1 << 28, "the edge takes no more"
        assert peak_memory(worker) - before < MEMORY
        # What is unsent must not be waited for.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# --- after the handshake ------------------------------------------------------------------------------------


@contextlib.contextmanager
def openssl(edge: EdgeProcess, version: int) -> Iterator[SSL.Connection]:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    with dial(edge) as sock:
        sock.settimeout(None)
        connection = SSL.Connection(context, sock)
        connection.set_tlsext_host_name(SITE.encode())
        connection.set_connect_state()
        connection.do_handshake()
        yield connection


def test_renegotiation_is_refused_and_the_connection_goes_on(edge: EdgeProcess) -> None:
    with openssl(edge, SSL.TLS1_2_VERSION) as connection:
        connection.sendall(b"before")
        assert connection.recv(100) == b"before"
        assert connection.renegotiate()
        with pytest.raises(SSL.Error, match="no renegotiation"):
            connection.do_handshake()
        assert connection.total_renegotiations() <= 1


def test_bytes_that_were_changed_on_the_way_end_the_connection_with_an_alert(edge: EdgeProcess) -> None:
    for version, alert in ((TLS12, "bad record mac"), (TLS13, "bad record mac")):
        with dial(edge) as sock:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = client_context(version).wrap_bio(incoming, outgoing, server_hostname=SITE)
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(1 << 16))
            client.write(b"x" * 100)
            data = bytearray(outgoing.read())
            data[-1] ^= 1
            sock.sendall(data)
            incoming.write(said_before_the_end(sock))
            incoming.write_eof()
            with pytest.raises(ssl.SSLError, match=alert):
                while client.read(100):
                    pass


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["tls12", "tls13"])
def test_those_who_hang_up_at_every_point_of_the_handshake_leave_nothing_behind(
    edge: EdgeProcess, version: ssl.TLSVersion
) -> None:
    flights = _flights(edge, version)
    (worker,) = edge.workers
    before = _sockets(worker)
    for reset in (False, True):
        for end in range(0, len(flights), max(1, len(flights) // 40)):
            with dial(edge) as sock:
                sock.sendall(flights[:end])
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: _sockets(worker) <= before, "their sockets are closed")


def _sockets(pid: int) -> int:
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")  # noqa: PTH115
    return found


def _flights(edge: EdgeProcess, version: ssl.TLSVersion) -> bytes:
    """What a client sends in a handshake."""
    said = b""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context(version).wrap_bio(incoming, outgoing, server_hostname=SITE)
    with dial(edge) as sock:
        while True:
            try:
                client.do_handshake()
                return said + outgoing.read()
            except ssl.SSLWantReadError:
                flight = outgoing.read()
                said += flight
                sock.sendall(flight)
                incoming.write(sock.recv(1 << 16))


# --- an edge that is not trusted any more, and certificates that have ended ---------------------------------


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyServerProcess]:
    with key_server(tmp_path_factory.mktemp("keys"), ("p256", "rsa2048")) as server:
        for kind in ("p256", "rsa2048"):
            chain = web_certificate(pair=key_pair(kind)).pem + authority().pem
            (server.directory / f"{kind}.pem").write_bytes(chain)
        yield server


def shake_hands(port: int, version: ssl.TLSVersion, ciphers: str = "") -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=root().pem.decode())
    context.minimum_version = context.maximum_version = version
    if ciphers:
        context.set_ciphers(ciphers)
    with connected(port, context, name="www.example") as stream:
        assert exchange(stream, b"x") == b"x"


HANDSHAKES = [(TLS13, ""), (TLS12, "ECDHE-RSA-AES128-GCM-SHA256"), (TLS12, "AES128-GCM-SHA256")]
FILES = ("--cert", "p256.pem", "--cert", "rsa2048.pem")


def test_a_revoked_edge_gives_its_clients_an_alert_and_connections_that_are_open_go_on(
    stage: KeyServerProcess, backend: RawPeer
) -> None:
    stage.enrol("revoked", allow=Allow.BOUND, roles=EdgeRole.SERVER)
    with edge_process(stage.directory, backend.port, "--credential", "edge-revoked", *FILES) as edge:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=root().pem.decode())
        for version, ciphers in HANDSHAKES:
            shake_hands(edge.port, version, ciphers)
        with connected(edge.port, context, name="www.example") as stream:
            stage.revoke("revoked")
            eventually(lambda: stage.audited("revoked"), "its connections are closed")
            began = time.monotonic()
            with ThreadPoolExecutor(len(HANDSHAKES)) as pool:
                for refused in [pool.submit(shake_hands, edge.port, *each) for each in HANDSHAKES]:
                    with pytest.raises(ssl.SSLError, match="internal error"):
                        refused.result()
            assert time.monotonic() - began < PATIENCE / 2
            assert exchange(stream, b"application data needs no key") == b"application data needs no key"
        assert "unexpectedly" not in edge.log


def test_an_edge_whose_client_certificate_has_expired_begins_and_gives_its_clients_an_alert(
    stage: KeyServerProcess, backend: RawPeer
) -> None:
    issued = stage.issue("expired", now=time.time() - 2 * 86_400, lifetime=86_400)
    stage.enrol("expired", issued=issued)
    with edge_process(stage.directory, backend.port, "--credential", "edge-expired", *FILES) as edge:
        with pytest.raises(ssl.SSLError, match="internal error"):
            shake_hands(edge.port, TLS13)
        assert "unexpectedly" not in edge.log


def test_a_certificate_that_has_expired_is_shown_when_there_is_no_other_and_the_client_says_so(
    stage: KeyServerProcess, backend: RawPeer, locum: Shell
) -> None:
    old = stage.directory / "old.pem"
    old.write_bytes(web_certificate(pair=key_pair("p256"), end=-1).pem + authority().pem)
    added = locum.ok("certificate", "add", old, "--data", stage.node.data)
    assert "expired on" in added.err
    stage.enrol("old", allow=Allow.BOUND, roles=EdgeRole.SERVER)
    # From the file it is shown, so that the client's complaint says what is the matter ...
    edge = partial(edge_process, stage.directory, backend.port, "--credential", "edge-old")
    with edge("--cert", "old.pem") as running, pytest.raises(ssl.SSLCertVerificationError, match="has expired"):
        shake_hands(running.port, TLS13)
    # ... and goes behind one that is good, of whichever key.
    with edge("--cert", "old.pem", "--cert", "rsa2048.pem") as running:
        shake_hands(running.port, TLS13)
    # The key server hands it out to nobody.
    with edge() as running, pytest.raises(ssl.SSLError, match="unrecognized name"):
        shake_hands(running.port, TLS13)
