"""The blocking driver of a delegate's channel: one socket and one link client for any number of threads.

Never looks into a payload, and has no thread of its own: of the threads that wait for answers one reads for all.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time

from locum.errors import LocumError
from locum.link.coap import Framing
from locum.terminal.channel import (
    MAXIMUM_DATAGRAM,
    MAXIMUM_HANDSHAKES,
    Answer,
    Channel,
    DelegateFailed,
    crowded,
    late,
)
from locum.terminal.credential import DelegateCredential


class BlockingChannel:
    """Requests to one delegate from any thread. Times are those of `time.monotonic`."""

    def __init__(self, delegate: DelegateCredential, terminal: str) -> None:
        self._channel = Channel(delegate, terminal=terminal, random=os.urandom)
        self._room = threading.BoundedSemaphore(MAXIMUM_HANDSHAKES)
        self._socket: socket.socket | None = None
        self._reading = False
        # Guards everything above; notified whenever an answer may have come or the reader has changed.
        self._changed = threading.Condition()

    @property
    def name(self) -> str:
        """The delegate's address."""
        return self._channel.name

    @property
    def secure_path(self) -> bool:
        """True when messages to this delegate are plain (A4)."""
        return self._channel.secure_path

    def enter(self, *, deadline: float) -> None:
        """Wait for one's turn, until `deadline`; then call `leave`. Raises: DelegateFailed."""
        if not self._room.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise crowded(self.name)

    def leave(self) -> None:
        """One's turn is over."""
        self._room.release()

    def post(self, payload: bytes, *, deadline: float) -> Answer:
        """Send a message of operations and wait for the answer, until `deadline`. Raises: DelegateFailed."""
        started = time.monotonic()
        with self._changed:
            self._open(deadline)
            exchange = self._channel.post(payload, now=started)
            try:
                self._flush(deadline)
                while (answer := self._channel.settled(exchange, now=time.monotonic())) is None:
                    if time.monotonic() >= deadline:
                        raise late(self.name, deadline - started)
                    if self._reading:
                        self._changed.wait(max(0.0, deadline - time.monotonic()))
                    else:
                        self._read(deadline)
                return answer
            finally:
                self._channel.abandon(exchange)

    def tell(self, payload: bytes) -> None:
        """Send a message whose answer does not matter, if the channel is open and has room."""
        with self._changed:
            if self._socket is None:
                return
            try:
                exchange = self._channel.post(payload, now=time.monotonic())
                self._flush(time.monotonic())
            except LocumError:
                return
            self._channel.abandon(exchange)

    def close(self) -> None:
        """Close the socket; whoever still waits gets a `DelegateFailed`."""
        with self._changed:
            self._lose("the channel was closed")

    # --- the socket, with the lock held -------------------------------------------------------------------

    def _open(self, deadline: float) -> None:
        if self._socket is not None:
            return
        endpoint = self._channel.delegate.address.endpoint
        left = max(0.001, deadline - time.monotonic())
        try:
            if self._channel.framing is Framing.DATAGRAM:
                self._socket = _connected_datagrams(endpoint.host, endpoint.port)
            else:
                self._channel.renew()
                self._socket = socket.create_connection((endpoint.host, endpoint.port), left)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except TimeoutError:
            raise late(self.name, left) from None
        except OSError as error:
            raise DelegateFailed(self.name, error) from None
        self._socket.setblocking(False)

    def _flush(self, deadline: float) -> None:
        for data in self._channel.transmit():
            if self._socket is None:
                return
            try:
                self._send(self._socket, data, deadline)
            except OSError as error:
                self._lose(error)

    def _send(self, sock: socket.socket, data: bytes, deadline: float) -> None:
        """All of `data`; a datagram that the socket's buffer has no room for is lost, as others are on the way."""
        if self._channel.framing is Framing.DATAGRAM:
            with contextlib.suppress(BlockingIOError):
                sock.send(data)
            return
        view = memoryview(data)
        while view:
            try:
                view = view[sock.send(view) :]
            except BlockingIOError:
                if not _wait(sock, select.POLLOUT, deadline):
                    raise TimeoutError("the delegate does not read") from None

    def _read(self, deadline: float) -> None:
        """Read for everybody: wait without the lock for a message, a timer or `deadline`, then work on it."""
        sock = self._socket
        if sock is None:
            return
        due = self._channel.next_timeout()
        self._reading = True
        self._changed.release()
        try:
            readable = _wait(sock, select.POLLIN, deadline if due is None else min(deadline, due))
        finally:
            self._changed.acquire()
            self._reading = False
            self._changed.notify_all()
        if readable and sock is self._socket:
            self._receive(sock)
        self._channel.expire(now=time.monotonic())
        self._flush(deadline)

    def _receive(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(MAXIMUM_DATAGRAM)
            if not data and self._channel.framing is Framing.STREAM:
                self._lose("the connection was closed")
                return
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        self._channel.receive(data, now=time.monotonic())
        if self._channel.closed:
            self._drop()

    def _lose(self, reason: OSError | str) -> None:
        """The socket is gone, or the system says that nobody is there: everything in flight fails."""
        self._drop()
        self._channel.disconnected(reason)
        self._changed.notify_all()

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _connected_datagrams(host: str, port: int) -> socket.socket:
    """A UDP socket that hears of no other address, and of ICMP errors from this one."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


def _wait(sock: socket.socket, events: int, deadline: float) -> bool:
    """True when `sock` is ready for `events` before `deadline`."""
    poll = select.poll()
    poll.register(sock, events)
    return bool(poll.poll(max(0.0, (deadline - time.monotonic()) * 1000)))
