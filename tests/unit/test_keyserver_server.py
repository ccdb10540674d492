"""A process of a key server as a whole: what goes on while its database does not answer (X3)."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from tests.support.stores import NODE_KEY

from locum.keyserver import databases
from locum.keyserver.server import KeyServer, Options
from locum.names import HostPort
from locum.processes import bind
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
    monkeypatch.setattr("locum.keyserver.server.HOUSE_SECONDS", 0.0)
    monkeypatch.setattr(databases.Databases, "poll", hang)

    async def check(server: KeyServer) -> None:
        running = asyncio.create_task(server.run(lambda: None))
        kept: list[float] = []
        monkeypatch.setattr(server, "_keep_house", kept.append)
        async with asyncio.timeout(PATIENCE):
            while not (hanging.is_set() and server.service.suspended and len(kept) > 2):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        over.set()
        server._stop()
        await running

    with Store.open(f"sqlite:///{tmp_path}/locum.db", NODE_KEY) as store:
        listener = bind(HostPort("127.0.0.1", 0), shared=False)
        listener.listen()

        async def main() -> None:
            await check(KeyServer(store, listener, Options(poll_seconds=0.01)))

        try:
            asyncio.run(main())
        finally:
            over.set()
