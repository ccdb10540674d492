"""TLS as a transport: what becomes of a peer that makes it write, and does not read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from locum.errors import Misbehaved
from locum.tls.connection import Connection
from locum.tls_transport import ANSWERS_LIMIT, TlsTransport, Wire

ANSWER = bytes(40)


class Tcp(asyncio.Transport):
    """A connection whose other end may take nothing."""

    def __init__(self, *, taken: bool) -> None:
        super().__init__()
        self.taken = taken
        self.written = 0
        self.aborted = False

    def is_closing(self) -> bool:
        return self.aborted

    def write(self, data: Any) -> None:
        self.written += len(data)

    def get_write_buffer_size(self) -> int:
        return 0 if self.taken else self.written

    def abort(self) -> None:
        self.aborted = True


class Demanding:
    """A connection in which whatever comes demands an answer."""

    session = SimpleNamespace(version=None)

    def receive_data(self, data: bytes) -> None: ...

    def data_to_send(self) -> bytes:
        return ANSWER

    def events(self) -> list[object]:
        return []


class Application(asyncio.Protocol):
    lost: Exception | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "left"])
def test_a_peer_that_demands_answers_and_takes_none_is_cut_off(taken: bool) -> None:
    async def check() -> None:
        wire, tcp, application = Wire(), Tcp(taken=taken), Application()
        wire.connection_made(tcp)
        transport = TlsTransport(wire, cast(Connection, Demanding()), peer="the client", application=application)
        transport.begin()
        for _ in range(2 * ANSWERS_LIMIT // len(ANSWER)):
            transport.received(b"KeyUpdate")
        assert tcp.aborted is not taken
        if not taken:
            assert tcp.written <= ANSWERS_LIMIT + len(ANSWER)
            wire.connection_lost(None)
            assert isinstance(application.lost, Misbehaved)

    asyncio.run(check())
