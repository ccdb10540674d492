"""A delegate's process as a whole: what goes on while its database does not answer (A5)."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from tests.support.stores import NODE_KEY

from locum.delegate import databases
from locum.names import HostPort
from locum.node.config import Configuration, DelegateSection
from locum.node.node import Node, bind_endpoints
from locum.store import Store

#: Far more than it takes, in seconds.
PATIENCE = 30.0


def test_a_database_that_hangs_stops_neither_the_house_nor_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, over = threading.Event(), threading.Event()

    def hang(self: databases.Databases) -> None:
        hanging.set()
        over.wait(PATIENCE)

    monkeypatch.setattr(databases, "STALE_SECONDS", 0.05)
    monkeypatch.setattr("locum.node.node.POLL_SECONDS", 0.01)
    monkeypatch.setattr(databases.Databases, "poll", hang)

    async def check(node: Node) -> None:
        suspended: list[bool] = []
        monkeypatch.setattr(node._service, "suspend", suspended.append)
        running = asyncio.create_task(node.run(lambda: None))
        async with asyncio.timeout(PATIENCE):
            while not (hanging.is_set() and suspended[-2:] == [True, True]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        over.set()
        node._stopping.set()
        await running

    configuration = Configuration(delegate=DelegateSection(listen=HostPort("127.0.0.1", 0)))
    with Store.open(f"sqlite:///{tmp_path}/locum.db", NODE_KEY) as store:
        endpoints = bind_endpoints(configuration.delegate, configuration.delegate.listen)

        async def main() -> None:
            await check(Node(configuration, store, endpoints))

        try:
            asyncio.run(main())
        finally:
            over.set()
