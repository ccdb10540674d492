"""ESP in user space: a TCP stream between two namespaces, through our data plane at both ends and strongSwan's.

AES-128-GCM in UDP, in one run and by turns, each between namespaces of its own, over wires without offloads: every
packet passes as it would between two machines. Ours has keys set by hand; strongSwan's `kernel-libipsec` agrees on
its own. CPU time is that of the processes at both ends, for a gigabyte of TCP payload.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.harness import Benchmark, Row

from locum.demo.laboratory import Host, Laboratory
from locum.demo.strongswan import Child, Connection, StrongSwan

CIPHER = "aes128gcm16"
ROUNDS = 7
#: How long a stream flows in one turn, in seconds, and before the first, to find its pace.
TURN = 1.5
PIECE = 1 << 18
PATIENCE = 20.0
MEGABYTE, GIGABYTE = 1e6, 1e9
#: Nothing is logged that is not asked for.
QUIET = {"filelog": {"log": {"default": 0}}}


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Two hosts, and the processes that do ESP at either."""

    first: Host
    second: Host
    processes: tuple[int, int]

    def cpu_seconds(self) -> float:
        """CPU time of both processes so far, user and system, all threads, from the scheduler."""
        tasks = (task for each in self.processes for task in Path(f"/proc/{each}/task").glob("*/schedstat"))
        return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


@contextmanager
def our_tunnel() -> Iterator[Tunnel]:
    """Our data plane at both ends."""
    with ExitStack() as running:
        laboratory = running.enter_context(Laboratory())
        first, second = laboratory.terminal, laboratory.peer
        ends = []
        for host, other, which in ((first, second, "first"), (second, first, "second")):
            words = [
                sys.executable,
                "-m",
                "bench.esp_end",
                host.address,
                other.address,
                host.network,
                other.network,
            ]
            ends.append(
                running.enter_context(
                    subprocess.Popen(
                        host.namespace.command([*words, CIPHER, which]),
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        cwd=Path(__file__).parents[1],
                    )
                )
            )
        for end in ends:
            assert end.stdout is not None
            assert end.stdout.readline() == b"ready\n"
        yield Tunnel(first, second, (ends[0].pid, ends[1].pid))
        for end in ends:
            end.communicate()


@contextmanager
def their_tunnel(directory: Path) -> Iterator[Tunnel]:
    """strongSwan's user-space ESP at both ends."""
    with ExitStack() as running:
        laboratory = running.enter_context(Laboratory())
        first, second = laboratory.terminal, laboratory.peer
        daemons = []
        for host, other in ((first, second), (second, first)):
            daemon = StrongSwan(host.namespace, directory / host.namespace.name, settings=QUIET)
            daemons.append(running.enter_context(daemon))
            child = Child(local=[host.network], remote=[other.network], proposals=[CIPHER])
            connection = Connection(
                local=host.address,
                remote=other.address,
                identity=f"{host.namespace.name}.example",
                peer_identity=f"{other.namespace.name}.example",
                children=[child],
            )
            daemon.share(b"a secret for a benchmark", connection.identity, connection.peer_identity)
            daemon.load(connection)
        daemons[0].initiate()
        daemons[1].established()
        yield Tunnel(first, second, (daemons[0].pid, daemons[1].pid))


def stream(tunnel: Tunnel, seconds: float) -> int:
    """Have a TCP stream flow for so long; returns how many bytes of it arrived in that time."""
    arrived = 0

    def receive() -> None:
        nonlocal arrived
        connection, _ = listener.accept()
        with connection:
            room = bytearray(PIECE)
            while not over.is_set() and (count := connection.recv_into(room)):
                arrived += count

    def send() -> None:
        piece = bytes(PIECE)
        try:
            while not over.is_set():
                sender.sendall(piece)
        except OSError:
            return  # the receiver has had enough

    over = threading.Event()
    with (
        tunnel.second.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as listener,
        tunnel.first.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as sender,
    ):
        listener.bind((tunnel.second.inner, 0))
        listener.listen(1)
        sender.settimeout(PATIENCE)
        sender.bind((tunnel.first.inner, 0))
        sender.connect(listener.getsockname())
        threads = [threading.Thread(target=each, daemon=True) for each in (receive, send)]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        over.set()
        total = arrived
        for thread in threads:
            thread.join(PATIENCE)
    return total


@dataclass(slots=True)
class Best:
    """The best turns of one tunnel."""

    megabytes_per_second: float = 0.0
    seconds_per_gigabyte: float = float("inf")

    def turn(self, tunnel: Tunnel, flow: Callable[[Tunnel, float], int] = stream) -> None:
        """One more turn."""
        used, started = tunnel.cpu_seconds(), time.monotonic()
        octets = flow(tunnel, TURN)
        used, passed = tunnel.cpu_seconds() - used, time.monotonic() - started
        self.megabytes_per_second = max(self.megabytes_per_second, octets / MEGABYTE / passed)
        self.seconds_per_gigabyte = min(self.seconds_per_gigabyte, used / (octets / GIGABYTE))


def measure() -> list[Row]:
    """By turns, so that whatever else the machine does falls on both."""
    with (
        tempfile.TemporaryDirectory(prefix="locum-bench-") as directory,
        our_tunnel() as ours,
        their_tunnel(Path(directory)) as theirs,
    ):
        mine, reference = Best(), Best()
        for _ in range(ROUNDS):
            mine.turn(ours)
            reference.turn(theirs)
    name = "strongSwan kernel-libipsec"
    return [
        Row(
            name="esp-userspace",
            value=mine.megabytes_per_second,
            unit="MB/s",
            reference=name,
            reference_value=reference.megabytes_per_second,
        ),
        Row(
            name="esp-userspace-cpu",
            value=mine.seconds_per_gigabyte,
            unit="CPU s/GB",
            reference=name,
            reference_value=reference.seconds_per_gigabyte,
        ),
    ]


BENCHMARKS = (Benchmark(("esp-userspace", "esp-userspace-cpu"), measure),)
