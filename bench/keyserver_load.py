"""Puts load on a key server: one connection over mutual TLS, a number of requests in flight, as a pool would.

Only what is needed to keep the server busy: answers are counted and not verified, but the first of each kind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from locum.errors import LocumError
from locum.keyless.errors import error_of
from locum.keyless.frames import FrameReader, KeyReference, parse_frame
from locum.keyless.operations import KeyOperation
from locum.keyless.registry import Opcode
from locum.keyless.requests import encode_request
from locum.keys.credential import EdgeCredential
from locum.keys.server_link import client_context

#: Where the id is in a frame.
_ID = slice(4, 8)


class Load(asyncio.Protocol):
    """Keeps `in_flight` requests like `operation` under way until `total` have been answered."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._reader = FrameReader()
        self._frame = b""
        self._left = self._awaited = 0
        self._sent_at = 0.0
        self._ended: asyncio.Future[None] | None = None
        #: Seconds from a request to its answer, where one is in flight.
        self.times: list[float] = []
        self._one = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    async def drive(self, ski: bytes, operation: KeyOperation, *, in_flight: int, total: int) -> None:
        """Return when all have been answered. Raises: LocumError when one was refused."""
        self._frame = encode_request(1, operation, KeyReference(ski=ski))
        self._left, self._awaited, self._one = total, total, in_flight == 1
        self.times.clear()
        self._ended = asyncio.get_running_loop().create_future()
        self._send(in_flight)
        await self._ended

    def data_received(self, data: bytes) -> None:
        if self._one:
            self.times.append(time.perf_counter() - self._sent_at)
        frames = self._reader.cut(data)
        first = parse_frame(frames[0]) if frames else None
        assert self._ended is not None
        if first is not None and first.opcode != Opcode.RESPONSE:
            self._ended.set_exception(error_of(first.payload, first.extra))
            return
        self._awaited -= len(frames)
        if not self._awaited:
            self._ended.set_result(None)
        elif frames:
            self._send(len(frames))

    def connection_lost(self, error: Exception | None) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(LocumError("the key server closed the connection"))

    def _send(self, count: int) -> None:
        count = min(count, self._left)
        frame, left = self._frame, self._left
        self._left -= count
        before, after = frame[: _ID.start], frame[_ID.stop :]
        parts = [before + (left - number).to_bytes(4, "big") + after for number in range(count)]
        self._sent_at = time.perf_counter()
        if parts and self._transport is not None:
            self._transport.write(b"".join(parts))


async def connect(credential: Path, count: int) -> Sequence[Load]:
    """`count` connections to the first key server of a credential."""
    edge = EdgeCredential.load(credential)
    loop = asyncio.get_running_loop()
    server = edge.servers[0]
    return [
        (
            await loop.create_connection(
                Load, server.host, server.port, ssl=client_context(edge), server_hostname=edge.server_name
            )
        )[1]
        for _ in range(count)
    ]
