"""What an edge costs beside nginx: full TLS 1.3 handshakes with a P-256 key, and bulk data through a proxy.

A real `locum edge` whose key is at a real key server, and nginx with the key in a file, in one run and by turns;
one process each, and CPU time is that of this process alone. The clients are in processes of their own.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.harness import Benchmark, Row, process_seconds

from locum.demo.node import DemoNode
from locum.demo.peers import NginxServer, ServerOptions
from locum.demo.pki import CertificateAuthority
from locum.demo.process import BackgroundProcess
from locum.errors import Unavailable

LOOPBACK = "127.0.0.1"
SITE = "site.example.com"
ROUNDS = 6
SECONDS = {"handshakes": 3.0, "bulk": 2.0}
CLIENTS = {"handshakes": 2, "bulk": 1}
PATIENCE = 20.0
MEGABYTE = 1e6
PIECE = bytes(1 << 18)


@dataclass(frozen=True, slots=True)
class Subject:
    """A TLS server, and the process that does its work."""

    port: int
    pid: int

    def drive(self, what: str) -> tuple[int, float]:
        """How many handshakes or bytes there were in one turn, and the CPU time of the server for them."""
        words = [sys.executable, "-m", "bench.edge_load", what, str(self.port), SITE, str(SECONDS[what])]
        with ExitStack() as running:
            clients = [
                running.enter_context(
                    subprocess.Popen(
                        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
                    )
                )
                for _ in range(CLIENTS[what])
            ]
            for client in clients:
                assert client.stdout is not None
                assert client.stdout.readline() == b"ready\n"
            before = process_seconds(self.pid)
            outputs = [client.communicate(b"\n")[0] for client in clients]
            used = process_seconds(self.pid) - before
        return sum(map(int, outputs)), used


def child_of(process: BackgroundProcess) -> int:
    """The only child of a process that has one worker, or is about to have it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
        if children:
            return int(children[0])
        time.sleep(0.05)
    raise Unavailable(f"{process.name} has no worker")


@contextmanager
def backend() -> Iterator[int]:
    """A plain HTTP server with a page without end; gives its port."""

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if not connection.recv(1 << 16):
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            while True:
                connection.sendall(PIECE)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server((LOOPBACK, 0), backlog=512) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def subjects() -> Iterator[tuple[Subject, Subject]]:
    """The edge, and nginx."""
    with ExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="locum-bench-")))
        port = running.enter_context(backend())
        issued = CertificateAuthority(directory, "bench-root").issue("site", kind="p256", names=(SITE,))
        node = running.enter_context(DemoNode(directory, key_server=True))
        node.command("key", "import", issued.key.name, "--name", "site")
        node.command("enroll", "edge", "bench", "--out", "bench", "--server", node.key_server)
        words = ["edge", "--credential", "bench", "--cert", issued.chain.name, "--alpn", "http/1.1"]
        words += ["--processes", "1", "--listen", f"{LOOPBACK}:0", "--backend", f"{LOOPBACK}:{port}"]
        edge = running.enter_context(
            BackgroundProcess(
                "locum edge",
                [sys.executable, "-m", "locum", *words],
                log_path=directory / "edge.log",
                ready=lambda log: "ready edge=" in log,
                working_directory=directory,
            )
        )
        found = re.search(r"ready edge=\S+:(\d+)", edge.log)
        assert found is not None
        stream = f"location /stream {{ proxy_pass http://{LOOPBACK}:{port}; proxy_max_temp_file_size 0; }}"
        nginx = running.enter_context(
            NginxServer(
                directory / "nginx",
                ServerOptions(certificates=(issued,), groups="X25519:P-256"),
                extra=(f"{stream} access_log off",),
            )
        )
        yield Subject(int(found[1]), child_of(edge)), Subject(nginx.port, child_of(nginx.process))


def measure(name: str, what: str, unit: str, scale: float) -> list[Row]:
    """The most per second of CPU time of each, by turns: whatever else the machine does only ever takes away."""
    best = [0.0, 0.0]
    with subjects() as both:
        for _ in range(ROUNDS):
            for index, subject in enumerate(both):
                count, used = subject.drive(what)
                best[index] = max(best[index], count / scale / used)
    return [Row(name=name, value=best[0], unit=unit, reference="nginx, key in a file", reference_value=best[1])]


def measure_handshakes() -> list[Row]:
    """Full handshakes of TLS 1.3."""
    return measure("edge-handshakes", "handshakes", "per CPU s", 1.0)


def measure_bulk() -> list[Row]:
    """A page that goes through."""
    return measure("edge-bulk", "bulk", "MB/CPU s", MEGABYTE)


BENCHMARKS = (
    Benchmark(("edge-handshakes",), measure_handshakes),
    Benchmark(("edge-bulk",), measure_bulk),
)
