"""A TLS session and a plain TCP connection joined to one: what comes from either goes to the other.

Never looks at what it relays. An authentic end stays an end, in each direction by itself, and a truncated stream
reaches the other side as a reset, so that it cannot be taken for a complete one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import cast

from locum.crypto.symmetric import Buffer
from locum.errors import Unavailable
from locum.text import what_failed
from locum.tls_transport import TlsTransport, read_room

_RESET = struct.pack("ii", 1, 0)


def set_reset(sock: socket.socket) -> None:
    """Have `sock` end with a reset when it is closed, which nobody can take for an orderly end."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class Relay:
    """Both ends of one relayed connection, and what ends it.

    The TLS session is there first, with `outer` for its application; `inner` is the protocol for the plain
    connection, which gets `preamble` before everything else. `idle_timeout` is in seconds.
    """

    def __init__(self, tls: TlsTransport, outer: TlsSide, *, idle_timeout: float, preamble: bytes = b"") -> None:
        self._loop = asyncio.get_running_loop()
        self.inner = PlainSide(self)
        self.outer = outer
        self.tls = tls
        self.preamble = preamble
        #: Set when the connection is over, to what went wrong.
        self.done: asyncio.Future[Exception | None] = self._loop.create_future()
        self._idle_timeout = idle_timeout
        self._active = self._loop.time()
        self._timer = self._loop.call_later(idle_timeout, self._check_idle)

    def touch(self) -> None:
        """Bytes have passed."""
        self._active = self._loop.time()

    def ended(self, error: Exception | None) -> None:
        """One of the two connections is gone."""
        self.outer.give_up()
        if not self.done.done():
            self.done.set_result(error)

    def close(self) -> None:
        """End both connections in order."""
        self._timer.cancel()
        self.inner.close()
        self.tls.close()

    def _check_idle(self) -> None:
        left = self._active + self._idle_timeout - self._loop.time()
        if left <= 0:
            self.ended(Unavailable(f"closed after {self._idle_timeout:g} s without a byte"))
        else:
            self._timer = self._loop.call_later(left, self._check_idle)


class TlsSide(asyncio.Protocol):
    """What comes through TLS. Until the plain side is attached, the first of it is kept, and the peer paused."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._relay: Relay | None = None
        self._tls: TlsTransport | None = None
        self._early: list[bytes] = []
        self._ended = False
        self._spoken: asyncio.Future[bool] | None = None
        #: Set when the TLS session is gone, to what went wrong.
        self.lost: asyncio.Future[Exception | None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, TlsTransport)
        self._tls = transport

    async def spoken(self) -> bool:
        """Wait for the peer's first byte; false when it ends, or is given up, without any. Before `attach`."""
        if self._early:
            return True
        if self._ended or self.lost.done():
            return False
        self._spoken = self._loop.create_future()
        return await self._spoken

    def give_up(self) -> None:
        """Nobody waits for the peer's first byte any more."""
        self._speak(False)

    def _speak(self, anything: bool) -> None:
        if self._spoken is not None and not self._spoken.done():
            self._spoken.set_result(anything)

    def attach(self, relay: Relay) -> None:
        """The plain side is there: hand over what came early."""
        for data in (relay.preamble, *self._early):
            if data:
                relay.inner.write(data)
        self._early.clear()
        if self._ended:
            relay.inner.write_eof()
        if self.lost.done():
            self._tell_lost(relay, self.lost.result())
            return
        assert self._tls is not None
        self._relay = relay
        if not self._tls.is_reading():
            self._tls.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._relay is None:
            self._early.append(data)
            assert self._tls is not None
            self._tls.pause_reading()
            self._speak(True)
            return
        self._relay.touch()
        self._relay.inner.write(data)

    def eof_received(self) -> bool:
        self._ended = True
        self._speak(False)
        if self._relay is not None:
            self._relay.inner.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)
        self._speak(False)
        # What is over refers to itself no more: it goes at once, and not when the collector finds it.
        relay, self._relay, self._tls = self._relay, None, None
        if relay is not None:
            self._tell_lost(relay, exc)

    def _tell_lost(self, relay: Relay, exc: Exception | None) -> None:
        # Whoever has closed its own direction may find the other one ended without ceremony: many peers do so.
        if exc is not None and not relay.inner.ended:
            relay.inner.reset()
            relay.ended(exc)
        else:
            relay.ended(None)

    def pause_writing(self) -> None:
        if self._relay is not None:
            self._relay.inner.pause_reading()

    def resume_writing(self) -> None:
        if self._relay is not None:
            self._relay.inner.resume_reading()


class PlainSide(asyncio.BufferedProtocol):
    """What comes over the plain connection."""

    def __init__(self, relay: Relay) -> None:
        #: None when the relay is closed: what comes after that is for nobody.
        self._relay: Relay | None = relay
        self._view = read_room()
        self._transport: asyncio.Transport | None = None
        #: True when the plain side has closed its direction.
        self.ended = False
        self._end_sent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._relay is not None:
            self._relay.outer.attach(self._relay)
        else:
            self._transport.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        if self._relay is not None:
            self._relay.touch()
            self._relay.tls.write(self._view[:nbytes])

    def eof_received(self) -> bool:
        self.ended = True
        if self._relay is not None:
            self._relay.tls.write_eof()
            if self._end_sent:
                self._relay.ended(None)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        relay = self._relay
        if relay is None:
            return
        if isinstance(exc, OSError) and not relay.done.done():
            # Without close_notify: what the peer has got may not be all.
            relay.tls.abort()
            relay.ended(Unavailable(f"the plain connection was lost: {what_failed(exc)}"))
        relay.ended(None)

    def pause_writing(self) -> None:
        if self._relay is not None:
            self._relay.tls.pause_reading()

    def resume_writing(self) -> None:
        if self._relay is not None:
            self._relay.tls.resume_reading()

    def write(self, data: Buffer) -> None:
        """To the plain side."""
        if self._transport is not None:
            self._transport.write(data)

    def write_eof(self) -> None:
        """The TLS peer has ended its direction."""
        self._end_sent = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()
        if self.ended and self._relay is not None:
            self._relay.ended(None)

    def pause_reading(self) -> None:
        """The TLS peer does not keep up."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """The TLS peer keeps up again."""
        if self._transport is not None:
            self._transport.resume_reading()

    def reset(self) -> None:
        """End the connection in a way that cannot be taken for an orderly end."""
        if self._transport is not None:
            set_reset(self._transport.get_extra_info("socket"))
            self._transport.abort()

    def close(self) -> None:
        """Close the connection after what was written to it."""
        self._relay = None
        if self._transport is not None:
            self._transport.close()
