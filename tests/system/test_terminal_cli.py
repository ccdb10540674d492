"""`locum terminal` as a person uses it: a real node, real servers, the command line and nothing else."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.node import LOCUM
from tests.support.peers import NginxServer, OpensslServer, Server
from tests.support.terminal_peer import TlsPeer, drain
from tests.support.terminal_system import NAME, REQUEST, Setting, setting
from tests.support.tls_memory import server_context

from locum.demo.peers import PAGE
from locum.tls.session import SessionTicket


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with setting(tmp_path_factory.mktemp("terminal-cli")) as running:
        yield running


@pytest.fixture(scope="module")
def credential(world: Setting) -> Path:
    return world.enrol("meter-7")


@pytest.fixture(scope="module", params=[OpensslServer, NginxServer], ids=["s_server", "nginx"])
def server(world: Setting, request: pytest.FixtureRequest, require: Any) -> Iterator[Server]:
    require("openssl")
    require("nginx")
    with request.param(world.directory / request.param.__name__, world.server_options) as running:
        yield running


@pytest.fixture
def address(server: Server) -> str:
    return f"{NAME}:{server.port}"


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_standard_input_goes_to_the_peer_and_the_peer_to_standard_output(
    world: Setting, credential: Path, address: str, version: str
) -> None:
    done = world.terminal("tls", address, "--credential", credential, "--tls", version, data=REQUEST)
    assert done.stdout.endswith(PAGE)
    assert f"connected to {address}: TLS {version}, " in done.stderr.decode()
    assert f"peer dns:{NAME}" in done.stderr.decode()


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_session_is_resumed_from_a_private_file(
    world: Setting, credential: Path, address: str, version: str, tmp_path: Path
) -> None:
    ticket = tmp_path / "ticket"
    words = ("tls", address, "--credential", credential, "--tls", version, "--resume", ticket)
    assert b"resumed" not in world.terminal(*words, data=REQUEST).stderr
    assert stat.S_IMODE(ticket.stat().st_mode) == 0o600
    assert SessionTicket.from_bytes(ticket.read_bytes()).server_name == NAME
    assert b", resumed" in world.terminal(*words, data=REQUEST).stderr


def test_verbose_tells_every_step_and_no_secret(world: Setting, credential: Path, address: str) -> None:
    done = world.terminal("tls", address, "--credential", credential, "--verbose", data=REQUEST)
    lines = done.stderr.decode()
    for words in (
        "secure path",
        "channel key",
        "start",
        "generate key",
        "authenticate",
        "request key",
        "store key",
    ):
        assert words in lines
    key = next(line for line in credential.read_text().splitlines() if line.startswith("key"))
    assert key.split('"')[1] not in lines


def test_options_reach_the_handshake(world: Setting, credential: Path, address: str) -> None:
    done = world.terminal(
        "tls",
        address.replace(NAME, "127.0.0.1"),
        "--credential",
        credential,
        "--server-name",
        NAME,
        "--groups",
        "SECP384R1",
        "--cipher-suites",
        "TLS_AES_256_GCM_SHA384",
        data=REQUEST,
    )
    assert b"TLS_AES_256_GCM_SHA384, SECP384R1, peer dns:localhost" in done.stderr


def one_line(done: subprocess.CompletedProcess[bytes]) -> str:
    """The only line on standard error of a command that failed."""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert done.stdout == b""
    return lines[0]


def test_a_wrong_name_is_one_line_and_exit_status_1(world: Setting, credential: Path, address: str) -> None:
    done = world.terminal(
        "tls", address, "--credential", credential, "--server-name", "other.example", data=REQUEST, check=False
    )
    assert done.returncode == 1
    assert one_line(done).startswith("locum: error: the peer is not authentic: ")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("tls", f"{NAME}:1"), 1, "Connection refused"),
        (("tls", NAME), 1, "needs a port"),
        (("tls", f"{NAME}:1", "--tls", "1.1"), 1, "give 1.2 or 1.3"),
        (("tls", f"{NAME}:1", "--groups", "X25518"), 1, "known are SECP256R1"),
        (("tls", f"{NAME}:1", "--cipher-suites", "RC4"), 1, "known are TLS_AES_128_GCM_SHA256"),
        (("tls", f"{NAME}:1", "--alpn", "x" * 256), 1, "ALPN"),
        (("tls", f"{NAME}:1", "--timeout", "0"), 2, "--timeout"),
        (("proxy", "--listen", "0.0.0.0:0", "--to", f"{NAME}:1"), 1, "--allow-remote"),
        (("proxy", "--listen", "127.0.0.1:0", "--to", NAME), 1, "needs a port"),
    ],
)
def test_a_mistake_is_one_line(
    world: Setting, credential: Path, words: tuple[str, ...], status: int, message: str
) -> None:
    done = world.terminal(*words, "--credential", credential, check=False)
    assert done.returncode == status
    assert message in one_line(done)


def test_a_credential_that_others_can_read_is_refused(world: Setting, credential: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(credential.read_bytes())
    copy.chmod(0o644)
    done = world.terminal("tls", f"{NAME}:1", "--credential", copy, check=False)
    assert done.returncode == 1
    assert "chmod 600" in one_line(done)


def test_a_file_that_is_no_ticket_is_not_overwritten(world: Setting, credential: Path, tmp_path: Path) -> None:
    mistaken = tmp_path / "letter"
    mistaken.write_text("Dear all,")
    mistaken.chmod(0o600)
    done = world.terminal("tls", f"{NAME}:1", "--credential", credential, "--resume", mistaken, check=False)
    assert done.returncode == 1
    assert "not a session ticket" in one_line(done)
    assert mistaken.read_text() == "Dear all,"


def test_a_standard_input_that_was_never_open_is_at_its_end(
    world: Setting, credential: Path, server: Server
) -> None:
    words = ["terminal", "tls", f"{NAME}:{server.port}", "--credential", str(credential)]
    command = [
        sys.executable,
        "-c",
        f"import os; os.close(0); os.execv({str(LOCUM)!r}, {[str(LOCUM), *words]!r})",
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert done.returncode == 0
    assert b"connected to" in done.stderr


def test_a_truncated_stream_is_exit_status_1(world: Setting, credential: Path) -> None:
    def cut(connection: Any, sock: socket.socket) -> None:
        connection.sendall(b"half of")
        sock.shutdown(socket.SHUT_WR)
        drain(sock)

    context = server_context((world.certificate.chain, world.certificate.key))
    with TlsPeer(cut, context) as peer:
        process = subprocess.Popen(
            [LOCUM, "terminal", "tls", f"{NAME}:{peer.port}", "--credential", credential],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None and process.stderr is not None and process.stdin is not None
        assert process.stdout.read() == b"half of"
        assert process.wait(20) == 1
        assert b"locum: error: the peer ended the stream without close_notify" in process.stderr.read()
        for file in (process.stdin, process.stdout, process.stderr):
            file.close()


def test_a_peer_that_closes_in_order_ends_it_with_0_while_standard_input_is_open(
    world: Setting, credential: Path
) -> None:
    def greet(connection: Any, sock: socket.socket) -> None:
        connection.sendall(b"bye")
        connection.shutdown()
        drain(sock)

    context = server_context((world.certificate.chain, world.certificate.key))
    with TlsPeer(greet, context) as peer:
        process = subprocess.Popen(
            [LOCUM, "terminal", "tls", f"{NAME}:{peer.port}", "--credential", credential],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.read() == b"bye"
        assert process.wait(20) == 0
        process.stdin.close()
        process.stdout.close()


class RunningProxy:
    """A `locum terminal proxy` process."""

    def __init__(self, credential: Path, server: Server, *words: str) -> None:
        self.process = subprocess.Popen(
            [
                *(LOCUM, "terminal", "proxy", "--listen", "127.0.0.1:0"),
                *("--to", f"{NAME}:{server.port}", "--credential", credential, *words),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline().strip()
        self.address = self.ready.removeprefix("ready ")

    def end(self) -> tuple[int, str]:
        """Exit status after SIGTERM, and everything on standard error."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@pytest.fixture
def running_proxy(credential: Path, server: Server) -> Iterator[RunningProxy]:
    running = RunningProxy(credential, server)
    yield running
    running.process.kill()
    running.process.wait()


def test_an_unmodified_program_gets_tls_through_the_proxy(running_proxy: RunningProxy, require: Any) -> None:
    assert running_proxy.ready.startswith("ready 127.0.0.1:")
    url = f"http://{running_proxy.address}/index.html"
    command = [require("curl"), "--silent", "--show-error", "--fail", "--max-time", "20", url, url]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == PAGE + PAGE
    assert running_proxy.end() == (0, "")


def test_many_programs_at_once_use_one_proxy(running_proxy: RunningProxy, server: Server) -> None:
    host, _, port = running_proxy.address.rpartition(":")
    pages: list[bytes] = []

    def get() -> None:
        with socket.create_connection((host, int(port)), timeout=30) as sock, sock.makefile("rb") as file:
            sock.sendall(REQUEST)
            pages.append(file.read())

    threads = [threading.Thread(target=get) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [page.endswith(PAGE) for page in pages] == [True] * 20
    assert running_proxy.end() == (0, "")


def test_the_proxy_keeps_running_when_a_connection_fails(world: Setting, credential: Path, server: Server) -> None:
    running = RunningProxy(credential, server, "--server-name", "other.example")
    host, _, port = running.address.rpartition(":")
    for _ in range(2):
        with socket.create_connection((host, int(port)), timeout=30) as sock, pytest.raises(ConnectionResetError):
            sock.recv(1)
    status, errors = running.end()
    assert status == 0
    assert errors.count("locum: warning: the peer is not authentic") == 2


def test_the_terminal_works_without_home_and_data_directories(
    world: Setting, credential: Path, address: str, tmp_path: Path
) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run(
        [LOCUM, "terminal", "tls", address, "--credential", credential],
        input=REQUEST,
        capture_output=True,
        cwd=tmp_path,
        env=environment,
        timeout=60,
    )
    assert done.stdout.endswith(PAGE)
    assert list(tmp_path.iterdir()) == []
