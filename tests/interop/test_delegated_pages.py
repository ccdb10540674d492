"""Through a real delegate to three real servers: the main job, data both ways, the end of a stream (A10, A11)."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support.delegation import SERVERS, TLS12, TLS13, Delegation, started
from tests.support.peers import OpensslServer, Server, ServerOptions
from tests.support.terminal_system import NAME, REQUEST, read_page

from locum.demo.peers import PAGE
from locum.demo.scenario import CIPHERS, WAYS, Way
from locum.errors import Unavailable
from locum.terminal import TlsSocket, connect_tls
from locum.terminal.tls_socket import SocketTimedOut
from locum.tls import connection as engine
from locum.tls import schedule
from locum.tls.alerts import Truncated
from locum.tls.registry import NamedGroup, ProtocolVersion
from locum.tls.session import SessionInfo, SessionTicket

pytestmark = pytest.mark.xdist_group("delegated-pages")

PATIENCE = 20.0
VERSIONS = pytest.mark.parametrize("version", [TLS13, TLS12], ids=["TLS 1.3", "TLS 1.2"])
EVERY_SERVER = pytest.mark.parametrize("kind", SERVERS)
#: Several records, several TCP segments, and no multiple of anything.
LARGE = bytes(range(256)) * 12_000 + b"the last of it"


@pytest.fixture(scope="module")
def delegation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delegation]:
    prepared = Delegation(tmp_path_factory.mktemp("pages"))
    identity = prepared.authority.issue("meter-7", usage="client", names=("meter-7.example",))
    files = ("--cert", identity.chain, "--key", identity.key)
    prepared.locum("identity", "add", "meter-7", "--terminal", "*", *files)
    with started(prepared) as running:
        yield running


def serving(delegation: Delegation, kind: str, *, client_ca: Path | None = None, **options: Any) -> Server:
    """A server of files with an ECDSA and an RSA certificate."""
    certificates = (delegation.certificate("p256"), delegation.certificate("rsa2048"))
    settings = ServerOptions(certificates=certificates, ciphers=CIPHERS, client_ca=client_ca, **options)
    return delegation.server(kind, settings, telling=False)


def echoing(delegation: Delegation) -> Server:
    """A server that sends back what it receives."""
    return delegation.server("OpenSSL 4", ServerOptions(certificates=(delegation.certificate("p256"),), echo=True))


# --- the main job -----------------------------------------------------------------------------------------


def can(way: Way, kind: str) -> bool:
    """Whether this server knows what the way needs."""
    return way.group is not NamedGroup.X25519MLKEM768 or kind == "OpenSSL 4"


def offer(way: Way) -> dict[str, Any]:
    """What a terminal offers that goes this way."""
    groups = () if way.group is None else (way.group, *way.groups)
    return {"versions": way.versions, "cipher_suites": way.cipher_suites, "groups": groups}


async def fetch_with_asyncio(port: int, credential: Path, **options: Any) -> tuple[bytes, SessionInfo]:
    reader, writer = await connect_tls(NAME, port, credential=credential, **options)
    writer.write(REQUEST)
    page = await asyncio.wait_for(reader.read(), PATIENCE)
    info: SessionInfo = writer.get_extra_info("tls")
    writer.close()
    await writer.wait_closed()
    return page, info


@pytest.mark.parametrize("driver", ["blocking", "asyncio"])
@pytest.mark.parametrize(
    ("kind", "way"),
    [(kind, way) for kind in SERVERS for way in WAYS if can(way, kind)],
    ids=lambda value: value.title if isinstance(value, Way) else value,
)
def test_every_way_of_the_main_job_fetches_its_page(
    delegation: Delegation, kind: str, way: Way, driver: str
) -> None:
    server = serving(delegation, kind, client_ca=delegation.authority.path if way.client_certificate else None)
    tickets: list[SessionTicket] = []
    options = offer(way)
    if way.resumed:
        with delegation.connect(server, on_ticket=tickets.append, **options) as session:
            assert read_page(session).endswith(PAGE)
        options["ticket"] = tickets[-1]
    if driver == "asyncio":
        page, info = asyncio.run(fetch_with_asyncio(server.port, delegation.enrol(), **options))
    else:
        with delegation.connect(server, **options) as session:
            page, info = read_page(session), session.session
    way.check(info)
    assert page.endswith(PAGE)


# --- much data --------------------------------------------------------------------------------------------


@EVERY_SERVER
@VERSIONS
def test_a_large_file_arrives_whole(delegation: Delegation, kind: str, version: ProtocolVersion) -> None:
    server = serving(delegation, kind, pages={"index.html": LARGE})
    with delegation.connect(server, versions=(version,)) as session:
        page = read_page(session)
    assert hashlib.sha256(page[-len(LARGE) :]).digest() == hashlib.sha256(LARGE).digest()


@VERSIONS
def test_much_data_goes_out_and_comes_back(delegation: Delegation, version: ProtocolVersion) -> None:
    with delegation.connect(echoing(delegation), versions=(version,)) as session:
        assert echoed(session, LARGE) == LARGE


def echoed(session: TlsSocket, data: bytes) -> bytes:
    """`data` as an echo server sends it back, piece by piece, so that no buffer has to hold all of it."""
    back = bytearray()
    for start in range(0, len(data), 50_000):
        piece = data[start : start + 50_000]
        session.sendall(piece)
        while len(back) < start + len(piece):
            received = session.recv(65_536)
            assert received
            back += received
    return bytes(back)


@VERSIONS
def test_many_requests_use_one_connection(delegation: Delegation, version: ProtocolVersion) -> None:
    with delegation.connect(serving(delegation, "nginx"), versions=(version,)) as session:
        assert pages(session, 50) == [PAGE] * 50


def pages(session: TlsSocket, count: int) -> list[bytes]:
    """So many pages over one connection, which of the three servers only nginx keeps open for it."""
    found: list[bytes] = []
    with session.makefile("rwb") as file:
        for _ in range(count):
            file.write(b"GET /index.html HTTP/1.1\r\nHost: localhost\r\n\r\n")
            file.flush()
            headers = list(iter(file.readline, b"\r\n"))
            length = next(int(line.split(b":")[1]) for line in headers if line.startswith(b"Content-Length"))
            found.append(file.read(length))
    return found


# --- new keys ---------------------------------------------------------------------------------------------


@pytest.fixture
def conversation(delegation: Delegation, tmp_path: Path) -> Iterator[OpensslServer]:
    """s_server in the mode in which what it is told goes to the peer, and what the peer says is printed."""
    options = ServerOptions(certificates=(delegation.certificate("p256"),))
    with OpensslServer(tmp_path, options, interactive=True) as server:
        yield server


def heard(server: OpensslServer, text: str) -> None:
    """Return once the server has printed `text`."""
    deadline = time.monotonic() + PATIENCE
    while text not in server.log:
        assert time.monotonic() < deadline, server.log
        time.sleep(0.01)


def test_the_servers_key_updates_are_followed_and_answered(
    delegation: Delegation, conversation: OpensslServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived: list[bytes] = []
    next_traffic_secret = schedule.next_traffic_secret

    def counted(algorithm: Any, secret: bytes) -> bytes:
        derived.append(next_traffic_secret(algorithm, secret))
        return derived[-1]

    monkeypatch.setattr(schedule, "next_traffic_secret", counted)
    with delegation.connect(conversation, versions=(TLS13,)) as session:
        # k: new keys of its own; K: it asks for new keys of ours too.
        for number, (command, secrets) in enumerate(((b"k", 1), (b"K", 3), (b"K", 5), (b"k", 6))):
            conversation.process.write(command + b"\n")
            read_until(session, lambda secrets=secrets: len(derived) == secrets)
            line = b"after update %d\n" % number
            conversation.process.write(line)
            assert received(session, len(line)) == line
            session.sendall(b"heard " + line)
            heard(conversation, f"heard after update {number}")


def read_until(session: TlsSocket, condition: Callable[[], bool]) -> None:
    """Take what is not data from the peer until `condition` holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        with suppress(SocketTimedOut):
            assert not session.recv_within(1, 0.05), "no data was sent"


def received(session: TlsSocket, length: int) -> bytes:
    """Exactly so many bytes."""
    data = b""
    while len(data) < length:
        piece = session.recv(length - len(data))
        assert piece
        data += piece
    return data


@EVERY_SERVER
def test_the_terminals_key_updates_are_followed_by_the_server(
    delegation: Delegation, kind: str, conversation: OpensslServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates: list[bool] = []
    update_keys = engine.ClientConnection.update_keys

    def counted(self: engine.ClientConnection, *, request_peer: bool = False) -> None:
        updates.append(request_peer)
        update_keys(self, request_peer=request_peer)

    monkeypatch.setattr(engine.ClientConnection, "update_keys", counted)
    monkeypatch.setattr(engine, "REKEY_AFTER", 3)
    server = {"s_server": conversation, "nginx": serving(delegation, "nginx")}.get(kind) or echoing(delegation)
    with delegation.connect(server, versions=(TLS13,)) as session:
        if kind == "nginx":
            assert pages(session, 20) == [PAGE] * 20
        elif kind == "s_server":
            for number in range(20):
                session.sendall(b"line %d.\n" % number)
                heard(conversation, f"line {number}.")
        else:
            assert echoed(session, LARGE[:1_000_000]) == LARGE[:1_000_000]
    assert len(updates) >= 6


# --- the end ----------------------------------------------------------------------------------------------


@EVERY_SERVER
@VERSIONS
def test_the_server_ends_the_stream_first(delegation: Delegation, kind: str, version: ProtocolVersion) -> None:
    with delegation.connect(serving(delegation, kind), versions=(version,)) as session:
        assert read_page(session).endswith(PAGE)
        assert session.recv(1) == b"", "an end in order, and it stays the end"


@VERSIONS
def test_the_terminal_ends_the_stream_first_and_the_server_follows(
    delegation: Delegation, version: ProtocolVersion
) -> None:
    with delegation.connect(echoing(delegation), versions=(version,)) as session:
        session.sendall(b"the last line")
        assert received(session, 13) == b"the last line"
        session.shutdown(socket.SHUT_WR)
        assert session.recv(1) == b""
    assert "failed" not in echoing(delegation).log


@VERSIONS
@pytest.mark.parametrize("killed", [False, True], ids=["gives up", "is killed"])
def test_a_server_that_goes_without_close_notify_is_not_taken_for_one_that_has_finished(
    delegation: Delegation, conversation: OpensslServer, version: ProtocolVersion, killed: bool
) -> None:
    with delegation.connect(conversation, versions=(version,)) as session:
        if killed:
            conversation.process.kill()
        else:
            conversation.process.write(b"q\n")
        with pytest.raises((Truncated, Unavailable)):
            session.recv(1)
