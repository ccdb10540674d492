"""A connection of an edge with its socket: bytes in and out, flow control, and whose turn it is to be worked for.

Never looks into a message.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from locum.errors import LocumError
from locum.keyserver.answering import Deferred
from locum.keyserver.connection import Connection
from locum.keyserver.limits import Limits
from locum.keyserver.link import fingerprint
from locum.keyserver.service import UNKNOWN, KeyService

#: Bytes of answers that the other end has not taken, before no more requests of it are worked on.
OUTPUT_LIMIT = 256 * 1024


class Turns:
    """The connections that have long work to do: each in turn, and between two turns whoever has short work.

    `soon` has a call made in the next round of the event loop, after it has looked for what has arrived.
    """

    __slots__ = ("_called", "_queue", "_soon")

    def __init__(self, soon: Callable[[Callable[[], None]], object]) -> None:
        self._queue: deque[Peer] = deque()
        self._soon = soon
        self._called = False

    def add(self, peer: Peer) -> None:
        """Give `peer` a turn when those before it have had theirs."""
        if not peer.queued:
            peer.queued = True
            self._queue.append(peer)
            self._call()

    def _call(self) -> None:
        if not self._called:
            self._called = True
            self._soon(self._next)

    def _next(self) -> None:
        self._called = False
        peer = self._queue.popleft()
        peer.queued = False
        try:
            peer.take_turn(only_short=False)
        finally:
            if self._queue:
                self._call()


class Owner(Protocol):
    """The server, as its connections see it."""

    service: KeyService
    turns: Turns

    def made(self, peer: Peer) -> None:
        """The TLS handshake has ended."""

    def lost(self, peer: Peer) -> None:
        """The connection has ended."""

    def look(self, peer: Peer) -> bool:
        """Look at the databases for a stranger's sake, and `peer.judge` him then; False when that is too much."""
        ...

    def defer(self, peer: Peer, deferred: Deferred) -> None:
        """Have an operation performed elsewhere, and `peer.finish` it."""


class Peer(asyncio.Protocol):
    """One connection. Times are those of the event loop's clock, in seconds."""

    def __init__(self, owner: Owner, time: Callable[[], float]) -> None:
        self._owner = owner
        self._time = time
        self._limits: Limits = owner.service.limits
        self._transport: asyncio.Transport | None = None
        self._connection: Connection | None = None
        self._judged = False
        self._reading = True
        self._fingerprint = ""
        #: True while it waits in `Turns`, for which this is.
        self.queued = False
        self._heard = time()
        self._incomplete_since: float | None = None
        self._blocked_since: float | None = None

    # --- asyncio.Protocol ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The other end has a certificate of the right CA; whether it may ask is another question."""
        transport = cast(asyncio.Transport, transport)  # uvloop's is one, and is not registered as such
        self._transport = transport
        transport.set_write_buffer_limits(high=OUTPUT_LIMIT)
        connection: ssl.SSLObject = transport.get_extra_info("ssl_object")
        self._fingerprint = fingerprint(connection)
        self._connection = Connection(self._owner.service, self._fingerprint)
        self._owner.made(self)
        self.judge(may_look=True)

    def data_received(self, data: bytes) -> None:
        """Short requests are answered at once, unless long ones of this connection wait already."""
        connection = self._connection
        if connection is None:
            return
        self._heard = self._time()
        if connection.receive(data) or not connection.incomplete:
            self._incomplete_since = None
        if connection.incomplete and self._incomplete_since is None:
            self._incomplete_since = self._heard
        if self._judged and not self.queued:
            self.take_turn(only_short=True)
        elif connection.waiting > self._limits.waiting:
            self._pause()

    def pause_writing(self) -> None:
        """The other end takes no answers: nothing more is done for it."""
        self._blocked_since = self._time()
        self._pause()

    def resume_writing(self) -> None:
        """The other end takes answers again."""
        self._blocked_since = None
        self.take_turn(only_short=True)

    def connection_lost(self, error: Exception | None) -> None:
        """What was asked and not answered is lost; the other end asks somebody else."""
        self._transport = self._connection = None
        self._owner.lost(self)

    # --- work ---------------------------------------------------------------------------------------------

    def judge(self, *, may_look: bool = False) -> None:
        """Begin to work for whoever this is, or close the connection, by the newest state of the databases."""
        connection = self._connection
        if connection is None:
            return
        _, reason = self._owner.service.objection(self._fingerprint)
        if reason == UNKNOWN and not self._judged and may_look and self._owner.look(self):
            return
        self._judged = True
        if reason and self._blocked_since is not None:
            # Who takes no answers would not take the end of the connection either.
            connection.turn(only_short=True)
            self.abort()
            return
        self.take_turn(only_short=True)

    def take_turn(self, *, only_short: bool) -> None:
        """Work on what has arrived, as long as one turn is, and send the answers."""
        connection = self._connection
        if connection is None or not self._judged or self._blocked_since is not None:
            return
        self._send(connection.turn(only_short=only_short))
        for deferred in connection.take_deferred():
            self._owner.defer(self, deferred)
        self._go_on(connection)

    def finish(self, deferred: Deferred, result: bytes | LocumError) -> None:
        """Answer an operation that has been performed elsewhere, or not."""
        connection = self._connection
        if connection is None:
            return
        if isinstance(result, bytes):
            self._send(connection.complete(deferred, result))
        else:
            self._send(connection.fail(deferred, result))
        self._go_on(connection)

    def _go_on(self, connection: Connection) -> None:
        if connection.closing:
            self.close()
        elif self._blocked_since is None:
            if connection.ready:
                self._owner.turns.add(self)
            if connection.waiting > self._limits.waiting:
                self._pause()
            elif not self._reading and connection.waiting <= self._limits.waiting // 2:
                self._reading = True
                if self._incomplete_since is not None:
                    self._incomplete_since = self._time()
                if self._transport is not None:
                    self._transport.resume_reading()

    def _send(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._transport.write(data)

    def _pause(self) -> None:
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    # --- the end ------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """True when every request that has arrived has been answered."""
        return self._connection is None or self._connection.idle

    def overdue(self, now: float) -> str:
        """Why the other end has had its time; empty when it has not."""
        limits = self._limits
        if self._blocked_since is not None and now - self._blocked_since > limits.message_seconds:
            return "answers are not taken"
        # Whoever is not read from cannot end a message.
        began = self._incomplete_since if self._reading else None
        if began is not None and now - began > limits.message_seconds:
            return "a message that does not end"
        if now - self._heard > limits.idle_seconds and self.idle:
            return "idle"
        return ""

    def close(self) -> None:
        """End the connection when what has been written has been sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()
