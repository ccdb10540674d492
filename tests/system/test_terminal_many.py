"""Two hundred at once: as many terminals, or as many handshakes of one terminal over one channel (A12)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.peers import NginxServer, Server
from tests.support.terminal_system import NAME, REQUEST, Setting, read_page, setting

from locum.cli.main import run as locum
from locum.demo.peers import PAGE
from locum.terminal import BlockingTerminal, Terminal, connect_tls

MANY = 200
#: Seconds for all of them on two busy cores.
PATIENCE = 90.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with setting(tmp_path_factory.mktemp("terminal-many")) as running:
        yield running


@pytest.fixture(scope="module")
def server(world: Setting, require: Any) -> Iterator[Server]:
    require("nginx")
    with NginxServer(world.directory / "nginx", world.server_options) as running:
        yield running


async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(REQUEST)
    received = await reader.read()
    writer.close()
    await writer.wait_closed()
    return received


def test_two_hundred_terminals_at_once(world: Setting, server: Server) -> None:
    credentials: list[Path] = []
    for number in range(MANY):
        credential = world.directory / f"terminal-{number}.credential"
        words = ["enroll", "terminal", f"terminal-{number}", "--out", str(credential)]
        assert locum([*words, "--address", world.node.url, "--data", str(world.node.data)]) == 0
        credentials.append(credential)

    async def fetch(credential: Path) -> bytes:
        return await page(*await connect_tls(NAME, server.port, credential=credential, timeout=PATIENCE))

    async def main() -> list[bytes]:
        return await asyncio.wait_for(asyncio.gather(*map(fetch, credentials)), PATIENCE)

    assert all(received.endswith(PAGE) for received in asyncio.run(main()))


def test_two_hundred_handshakes_of_one_terminal_over_one_channel(world: Setting, server: Server) -> None:
    credential = world.enrol("busy")

    async def fetch(terminal: Terminal) -> bytes:
        return await page(*await terminal.connect_tls(NAME, server.port, timeout=PATIENCE))

    async def main() -> list[bytes]:
        async with Terminal(credential) as terminal:
            return await asyncio.wait_for(asyncio.gather(*(fetch(terminal) for _ in range(MANY))), PATIENCE)

    assert all(received.endswith(PAGE) for received in asyncio.run(main()))


def test_many_threads_share_one_blocking_terminal(world: Setting, server: Server) -> None:
    credential = world.enrol("threads")
    pages: list[bytes] = []

    def fetch(terminal: BlockingTerminal) -> None:
        with terminal.connect_tls(NAME, server.port, timeout=PATIENCE) as session:
            pages.append(read_page(session))

    with BlockingTerminal(credential) as terminal:
        threads = [threading.Thread(target=fetch, args=(terminal,)) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert terminal.keys.sessions() == ()
    assert [received.endswith(PAGE) for received in pages] == [True] * 40
