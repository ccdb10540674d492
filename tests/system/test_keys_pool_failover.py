"""Two real key servers under load, killed, frozen and ended in turn: no operation is lost (C4)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.node import Node

from locum.crypto.asymmetric.signatures import PublicKey, verify
from locum.keyless.operations import CertificateVerify, Role
from locum.keys.credential import EdgeCredential
from locum.keys.pool import KeyServerPool, PoolOptions
from locum.keys.remote import RemoteKey
from locum.keys.server_link import LinkOptions
from locum.runtime import loop_factory
from locum.tls.schedule import certificate_verify_content

SCHEME = "ECDSA_SECP256R1_SHA256"
#: Operations at the same time.
IN_FLIGHT = 64
#: The machine may be loaded, so that the start of a process takes its time; nothing else may.
OPTIONS = PoolOptions(policy="ordered", timeout=60, link=LinkOptions(longest_delay=0.2))


class Load:
    """Operations without a pause, each one's result verified by its own task."""

    def __init__(self, key: RemoteKey) -> None:
        self._key = key
        self._public_key = PublicKey.from_der(key.public_key)
        self.done = 0
        self.stopping = False

    async def run(self) -> None:
        """Until `stopping`. Raises whatever goes wrong."""
        async with asyncio.TaskGroup() as group:
            for number in range(IN_FLIGHT):
                group.create_task(self._one(number))

    async def _one(self, number: int) -> None:
        round_ = 0
        while not self.stopping:
            round_ += 1
            digest = (number << 32 | round_).to_bytes(32, "big")
            signature = await self._key.perform(CertificateVerify(SCHEME, Role.SERVER, digest))
            verify(SCHEME, self._public_key, signature, certificate_verify_content(b"server", digest), strict=True)
            self.done += 1

    async def more(self, count: int) -> None:
        """Return when so many further operations are done."""
        wanted = self.done + count
        async with asyncio.timeout(60):
            while self.done < wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@contextmanager
def twins(directory: Path) -> Iterator[tuple[Node, Node, EdgeCredential]]:
    """Two key servers on the same data, with one key, and an edge that is enrolled with both."""
    config = "[keyserver]\nprocesses = 1\n"
    first = Node(directory / "data", key_server="127.0.0.1:0", name="first", config=config)
    second = Node(directory / "data", key_server="127.0.0.1:0", name="second")
    first.locum("key", "generate", "p256", "--name", "web")
    try:
        first.start()
        second.start()
        servers = ["--server", first.key_server, "--server", second.key_server]
        first.locum("enroll", "edge", "edge-1", "--out", directory / "edge", *servers)
        yield first, second, EdgeCredential.load(directory / "edge")
    finally:
        first.stop()
        second.stop()


def under_load(credential: EdgeCredential, test: Callable[[Load, KeyServerPool], Awaitable[None]]) -> None:
    """Run `test` while operations go on, and fail if one of them does."""

    async def main() -> None:
        async with KeyServerPool(credential, options=OPTIONS) as pool:
            (offered,) = await pool.keys()
            load = Load(pool.key(offered))
            async with asyncio.TaskGroup() as group:
                group.create_task(load.run())
                await load.more(100)
                await test(load, pool)
                await load.more(100)
                load.stopping = True

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())


def kill(node: Node) -> None:
    """End the whole key server as the kernel does when there is no memory left."""
    for worker in node.workers:
        os.kill(worker, signal.SIGKILL)
    node.kill()


async def both_up(pool: KeyServerPool) -> None:
    async with asyncio.timeout(60):
        while not all(status.up for status in pool.status()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("end", [kill, Node.stop], ids=["killed", "ended"])
def test_no_operation_is_lost_when_key_servers_go_and_come_back(
    tmp_path: Path, end: Callable[[Node], object]
) -> None:
    with twins(tmp_path) as (first, second, credential):

        async def test(load: Load, pool: KeyServerPool) -> None:
            for node in (first, second, first):
                await both_up(pool)
                await load.more(200)
                await asyncio.to_thread(end, node)
                await load.more(200)
                await asyncio.to_thread(node.start)

        under_load(credential, test)


def test_no_operation_waits_for_a_frozen_key_server(tmp_path: Path) -> None:
    with twins(tmp_path) as (first, _second, credential):

        async def test(load: Load, pool: KeyServerPool) -> None:
            await both_up(pool)
            workers = first.workers
            for worker in workers:
                os.kill(worker, signal.SIGSTOP)
            try:
                async with asyncio.timeout(30):
                    await load.more(500)
                    while pool.status()[0].up:
                        await load.more(10)
            finally:
                for worker in workers:
                    os.kill(worker, signal.SIGCONT)
            await both_up(pool)

        under_load(credential, test)
