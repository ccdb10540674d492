"""The command line against servers started by hand, with a certificate of their own making, as README says."""

from __future__ import annotations

import re
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.delegation import openssl
from tests.support.node import LOCUM, Node, running_node
from tests.support.peers import BackgroundProcess
from tests.support.require import require

pytestmark = pytest.mark.xdist_group("delegated-by-hand")

SECONDS = 60
GREETING = b"Hello from behind TLS.\n"
ACCEPTING = re.compile(r"^ACCEPT \S*:(\d+)$", re.MULTILINE)
REQUEST = b"GET /hello.txt HTTP/1.0\r\n\r\n"


class ByHand:
    """A directory in which somebody follows README: one certificate, one node, one terminal, some servers."""

    def __init__(self, directory: Path, node: Node) -> None:
        self.directory = directory
        self.node = node
        self._servers = 0
        (directory / "hello.txt").write_bytes(GREETING)
        openssl(
            directory,
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", "server.key", "-out", "server.pem"),
        )
        self.credential = node.enrol("meter-7")
        node.trust(directory / "server.pem")
        node.allow(terminal="meter-7", peer="dns:localhost")

    @contextmanager
    def server(self, *words: str) -> Iterator[str]:
        """`openssl s_server` with these words, on a port that the system chooses; gives its address."""
        self._servers += 1
        process = BackgroundProcess(
            "s_server",
            [require("openssl"), "s_server", "-accept", "0", "-cert", "server.pem", "-key", "server.key", *words],
            log_path=self.directory / f"s_server-{self._servers}.log",
            ready=lambda log: ACCEPTING.search(log) is not None,
            working_directory=self.directory,
        )
        with process:
            accepting = ACCEPTING.search(process.log)
            assert accepting is not None
            yield f"localhost:{accepting[1]}"

    def talk(self, address: str, *words: str | Path) -> subprocess.CompletedProcess[bytes]:
        """`locum terminal tls ADDRESS` with one request as its standard input."""
        command = [LOCUM, "terminal", "tls", address, "--credential", self.credential, *words]
        return subprocess.run(command, input=REQUEST, capture_output=True, timeout=SECONDS, check=True)

    @contextmanager
    def proxy(self, to: str, *words: str) -> Iterator[str]:
        """`locum terminal proxy --to TO`; gives the address that it listens at, and expects an end in order."""
        command = [LOCUM, "terminal", "proxy", "--listen", "127.0.0.1:0", "--to", to]
        process = subprocess.Popen(
            [*command, "--credential", self.credential, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            yield process.stdout.readline().removeprefix("ready ").strip()
            process.send_signal(signal.SIGTERM)
            assert process.communicate(timeout=SECONDS)[1] == ""
            assert process.returncode == 0
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ByHand]:
    directory = tmp_path_factory.mktemp("by-hand")
    with running_node(directory) as node:
        yield ByHand(directory, node)


@pytest.fixture(scope="module")
def address(by_hand: ByHand) -> Iterator[str]:
    with by_hand.server("-WWW") as address:
        yield address


def test_a_page_is_fetched(by_hand: ByHand, address: str) -> None:
    done = by_hand.talk(address)
    assert done.stdout.endswith(GREETING)
    assert b"peer dns:localhost" in done.stderr


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_the_version_is_the_one_asked_for(by_hand: ByHand, address: str, version: str) -> None:
    done = by_hand.talk(address, "--tls", version)
    assert done.stdout.endswith(GREETING)
    assert f"TLS {version}, ".encode() in done.stderr


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_session_is_resumed_time_and_again(by_hand: ByHand, address: str, version: str, tmp_path: Path) -> None:
    ticket = tmp_path / "ticket"
    for number in range(3):
        done = by_hand.talk(address, "--tls", version, "--resume", ticket)
        assert done.stdout.endswith(GREETING)
        assert (b", resumed" in done.stderr) == (number > 0)
        assert stat.S_IMODE(ticket.stat().st_mode) == 0o600


def test_the_name_may_be_another_than_the_address(by_hand: ByHand, address: str) -> None:
    done = by_hand.talk(address.replace("localhost", "127.0.0.1"), "--server-name", "localhost")
    assert done.stdout.endswith(GREETING)


def test_application_protocols_are_offered(by_hand: ByHand, address: str) -> None:
    with by_hand.server("-WWW", "-alpn", "mqtt,http/1.1") as choosing:
        done = by_hand.talk(choosing, "--alpn", "http/1.1,http/1.0")
        assert done.stdout.endswith(GREETING)
        assert b", ALPN http/1.1" in done.stderr
    # A server that knows nothing of them does without.
    assert b"ALPN" not in by_hand.talk(address, "--alpn", "http/1.1").stderr


@pytest.mark.parametrize("words", [(), ("--tls", "1.2")], ids=["as it is", "TLS 1.2"])
def test_curl_gets_pages_through_the_proxy(by_hand: ByHand, address: str, words: tuple[str, ...]) -> None:
    curl = require("curl")
    with by_hand.proxy(address, *words) as local:
        for _ in range(3):
            command = [curl, "--silent", "--show-error", "--max-time", "20", f"http://{local}/hello.txt"]
            assert subprocess.run(command, capture_output=True, timeout=SECONDS).stdout == GREETING


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_long_conversation_in_plaintext_goes_through_the_proxy(by_hand: ByHand, version: str) -> None:
    with by_hand.server("-rev") as reversing, by_hand.proxy(reversing, "--tls", version) as local:
        host, _, port = local.rpartition(":")
        program = socket.create_connection((host, int(port)), timeout=SECONDS)
        with program, program.makefile("rb") as lines:
            for number in range(200):
                line = b"measurement %d of the long conversation" % number
                program.sendall(line + b"\n")
                assert lines.readline() == line[::-1] + b"\n"
                if number % 50 == 0:
                    # As a device does that has nothing to say for a while.
                    time.sleep(0.5)
