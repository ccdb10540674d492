"""`locum edge` as a command: its line, its signals, its processes, and what it says of mistakes."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support.edge import LOOPBACK, SITE, certificate, connected, echo, exchange
from tests.support.edge_process import edge_process
from tests.support.terminal_peer import RawPeer

PATIENCE = 30.0


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A directory with a certificate and its key."""
    certificate("p256").write(tmp_path, "site")
    return tmp_path


OWN_KEY = ("--cert", "site.pem", "--own-key", "site.key")


def test_a_worker_that_is_killed_is_replaced_and_the_others_go_on(own: Path) -> None:
    with RawPeer(echo) as backend, edge_process(own, backend.port, *OWN_KEY, processes=2) as edge:
        before = edge.workers
        assert len(before) == 2
        subprocess.run(["kill", "-9", str(before[0])], check=True)
        deadline = time.monotonic() + PATIENCE
        while len(set(edge.workers) - {before[0]}) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _ in range(8):
            with connected(edge.port) as stream:
                assert exchange(stream, b"x") == b"x"


def test_sigterm_lets_connections_end_and_then_ends_it(own: Path) -> None:
    with RawPeer(echo) as backend, edge_process(own, backend.port, *OWN_KEY) as edge:
        with connected(edge.port) as stream:
            assert exchange(stream, b"before") == b"before"
            subprocess.run(["kill", str(edge.pid)], check=True)
            deadline = time.monotonic() + PATIENCE
            while _listens(edge.port):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert exchange(stream, b"after") == b"after"
        while Path(f"/proc/{edge.pid}/status").read_text(encoding="ascii").count("Z (zombie)") == 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_sighup_shows_a_new_certificate(own: Path) -> None:
    with RawPeer(echo) as backend, edge_process(own, backend.port, *OWN_KEY, processes=2) as edge:
        renewed = certificate("p256", (SITE, "new.example.com"))
        (own / "site.pem").write_bytes(renewed.chain_pem)
        subprocess.run(["kill", "-HUP", str(edge.pid)], check=True)
        deadline = time.monotonic() + PATIENCE
        while _shown(edge.port) != renewed.der:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _shown(port: int) -> bytes | None:
    with connected(port) as stream:
        return stream.getpeercert(binary_form=True)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), 1).close()
    except (ConnectionRefusedError, ConnectionResetError):  # the latter while it is being closed
        return False
    return True


ADDRESSES = ("--listen", "127.0.0.1:0", "--backend", "127.0.0.1:9")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (ADDRESSES, "needs a certificate"),
        ((*ADDRESSES, "--cert", "site.pem"), "needs a key of its own"),
        ((*ADDRESSES, "--cert", "missing.pem", "--own-key", "site.key"), "missing.pem: No such file"),
        ((*ADDRESSES, "--cert", "site.key", "--own-key", "site.key"), "site.key: not certificates"),
        ((*ADDRESSES, "--cert", "site.pem", "--own-key", "site.pem"), "site.pem"),
        ((*ADDRESSES, "--credential", "nowhere"), "nowhere"),
        ((*ADDRESSES, "--policy", "random", "--credential", "x"), "--policy"),
        ((*ADDRESSES, "--tls", "1.1", "--credential", "x"), "--tls"),
        ((*ADDRESSES, "--ocsp", "x", "--credential", "x"), "--ocsp"),
        (("--listen", "nonsense:port", "--backend", "127.0.0.1:9"), "nonsense:port"),
        (("--listen", "127.0.0.1:0", "--backend", "unix:", "--credential", "x"), "unix:"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_is_wrong(own: Path, words: Sequence[str], complaint: str) -> None:
    (own / "site.pem").chmod(0o600)
    done = subprocess.run(
        [sys.executable, "-m", "locum", "edge", *words],
        cwd=own,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("locum: error: ")]
    assert len(lines) == 1
    assert complaint in lines[0]
    assert "ready" not in done.stdout


def test_an_address_that_is_taken_is_said_to_be(own: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        address = f"{LOOPBACK}:{taken.getsockname()[1]}"
        words = ["--listen", address, *ADDRESSES[2:], "--cert", "site.pem", "--own-key", "site.key"]
        done = subprocess.run(
            [sys.executable, "-m", "locum", "edge", *words],
            cwd=own,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert "in use" in done.stderr


def test_ctrl_c_ends_it_with_0(own: Path) -> None:
    with RawPeer(echo) as backend:
        command = [sys.executable, "-m", "locum", "edge", "--cert", "site.pem", "--own-key", "site.key"]
        command += ["--listen", f"{LOOPBACK}:0", "--backend", f"{LOOPBACK}:{backend.port}"]
        with subprocess.Popen(command, cwd=own, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"ready edge=")
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
