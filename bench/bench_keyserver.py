"""What a signature of the key server costs it, beside OpenSSL's own benchmark on the same machine in the same run.

A real key server in its own process, real connections with mutual TLS, and a client in this process whose CPU time
does not count.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvloop
from bench.harness import Benchmark, Row, process_seconds
from bench.keyserver_load import Load, connect

from locum.demo.node import DemoNode
from locum.keyless.operations import Sign
from locum.keys.credential import EdgeCredential
from locum.keys.pool import KeyServerPool

#: The best of so many rounds counts: whatever else the machine does only ever adds. They take turns with OpenSSL.
ROUNDS = 8
IN_FLIGHT = 64
DIGEST = bytes(range(32))
#: Requests that tell which process has a connection.
PROBE = 200


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of key, the scheme to sign under, what `openssl speed` calls it, and requests in one round."""

    kind: str
    scheme: str
    reference: str
    requests: int

    @property
    def operation(self) -> Sign:
        """What is asked, again and again."""
        return Sign(self.scheme, DIGEST)


RSA = Case("rsa2048", "RSA_PKCS1_SHA256", "rsa2048", 3000)
P256 = Case("p256", "ECDSA_SECP256R1_SHA256", "ecdsap256", 30_000)


@dataclass(frozen=True, slots=True)
class Laboratory:
    """A running key server: its processes, the credential of an edge, and the SKIs of its keys by their kinds."""

    workers: tuple[int, ...]
    credential: Path
    keys: dict[str, bytes]


@contextmanager
def laboratory(processes: int) -> Iterator[Laboratory]:
    """A key server with a key of each kind and an edge that may use them, on this machine."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        node = DemoNode(
            directory,
            key_server=True,
            configuration=f"[keyserver]\nprocesses = {processes}\n[log]\nlevel = 'error'\n",
        )
        with node:
            for case in (RSA, P256):
                node.command("key", "generate", case.kind, "--name", case.kind)
            node.command(
                *("enroll", "edge", "bench", "--out", "edge", "--key", "all"),
                *("--allow", "raw", "--server", node.key_server),
            )
            credential = directory / "edge"
            yield Laboratory(_children(node.process.pid), credential, asyncio.run(_keys(credential)))


def _children(pid: int) -> tuple[int, ...]:
    return tuple(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()))


async def _keys(credential: Path) -> dict[str, bytes]:
    async with KeyServerPool(EdgeCredential.load(credential)) as pool:
        return {key.kind: key.ski for key in await pool.keys()}


def openssl_speed(algorithm: str) -> float:
    """Signatures per second of CPU time by OpenSSL's own benchmark."""
    command = ["openssl", "speed", "-seconds", "1", algorithm]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.strip().splitlines()[-1].split()[-2])


def measure_rate(name: str, case: Case) -> list[Row]:
    """Signatures per second of CPU time of the server, with many requests in flight on one connection."""
    with laboratory(1) as server:
        ours, theirs = uvloop.run(_rates(server, case))
    return [
        Row(
            name=name,
            value=ours,
            unit="1/s of CPU",
            reference=f"openssl speed {case.reference}",
            reference_value=theirs,
        )
    ]


async def _rates(server: Laboratory, case: Case) -> tuple[float, float]:
    (worker,) = server.workers
    (load,) = await connect(server.credential, 1)
    ours = theirs = 0.0
    for _ in range(ROUNDS):
        theirs = max(theirs, openssl_speed(case.reference))
        ours = max(ours, await _rate(server, load, case, worker))
    return ours, theirs


async def _rate(server: Laboratory, load: Load, case: Case, worker: int) -> float:
    before = process_seconds(worker)
    await load.drive(server.keys[case.kind], case.operation, in_flight=IN_FLIGHT, total=case.requests)
    return case.requests / (process_seconds(worker) - before)


def measure_latency() -> list[Row]:
    """The median time from one request to its answer on loopback, as the client sees it."""
    with laboratory(1) as server:
        best = uvloop.run(_latency(server))
    return [Row(name="keyserver-p256-latency", value=best * 1e6, unit="us")]


async def _latency(server: Laboratory) -> float:
    (load,) = await connect(server.credential, 1)
    best = float("inf")
    for _ in range(ROUNDS):
        await load.drive(server.keys[P256.kind], P256.operation, in_flight=1, total=3000)
        best = min(best, statistics.median(load.times))
    return best


def measure_two_processes() -> list[Row]:
    """What two processes can do that are busy at once, by their own CPU time, beside one alone."""
    with laboratory(2) as server:
        both, one = uvloop.run(_two_processes(server))
    return [
        Row(
            name="keyserver-two-cores",
            value=both,
            unit="1/s of CPU",
            reference="one process",
            reference_value=one,
        )
    ]


async def _two_processes(server: Laboratory) -> tuple[float, float]:
    loads = await _one_for_each(server)
    (first, load), *_ = loads.items()
    both = one = 0.0
    for _ in range(ROUNDS):
        one = max(one, await _rate(server, load, RSA, first))
        rates = await asyncio.gather(*(_rate(server, load, RSA, worker) for worker, load in loads.items()))
        both = max(both, sum(rates))
    return both, one


async def _one_for_each(server: Laboratory) -> dict[int, Load]:
    """A connection to every process."""
    found: dict[int, Load] = {}
    while len(found) < len(server.workers):
        (load,) = await connect(server.credential, 1)
        before = {worker: process_seconds(worker) for worker in server.workers}
        await load.drive(server.keys[RSA.kind], RSA.operation, in_flight=IN_FLIGHT, total=PROBE)
        used = {worker: process_seconds(worker) - before[worker] for worker in server.workers}
        found[max(used, key=lambda worker: used[worker])] = load
    return found


BENCHMARKS: Sequence[Benchmark] = (
    Benchmark(("keyserver-rsa2048",), partial(measure_rate, "keyserver-rsa2048", RSA)),
    Benchmark(("keyserver-p256",), partial(measure_rate, "keyserver-p256", P256)),
    Benchmark(("keyserver-p256-latency",), measure_latency),
    Benchmark(("keyserver-two-cores",), measure_two_processes),
)
