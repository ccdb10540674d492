"""Peers and networks that misbehave on purpose: TLS servers in threads, and a UDP middleman.

The TLS is OpenSSL's; what the server does after, or instead of, the handshake is the test's own function.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from OpenSSL import SSL
from tests.support.tls_memory import server_context

LOOPBACK = "127.0.0.1"
#: Seconds after which a test's server gives up on a client that does nothing.
PATIENCE = 20.0

TlsHandler = Callable[[SSL.Connection, socket.socket], None]
RawHandler = Callable[[socket.socket], None]


class RawPeer:
    """A TCP server on loopback that runs `handler` in a thread for each connection."""

    def __init__(self, handler: RawHandler) -> None:
        self._handler = handler
        self._listener = socket.create_server((LOOPBACK, 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(PATIENCE)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._open.append(sock)
            thread = threading.Thread(target=self._run, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, sock: socket.socket) -> None:
        try:
            with sock:
                self._handler(sock)
        except (OSError, SSL.Error) as error:
            self.errors.append(error)


class TlsPeer(RawPeer):
    """A `RawPeer` that makes the TLS handshake first. `sock` is blocking; use the connection for TLS."""

    def __init__(self, handler: TlsHandler, context: SSL.Context | None = None) -> None:
        self._context = context or server_context()
        self._tls_handler = handler
        super().__init__(self._secure)

    def _secure(self, sock: socket.socket) -> None:
        connection = SSL.Connection(self._context, sock)
        connection.set_accept_state()
        connection.do_handshake()
        self._tls_handler(connection, sock)


def read_to_end(connection: SSL.Connection) -> bytes:
    """Everything until close_notify."""
    data = bytearray()
    while True:
        try:
            data += connection.recv(65_536)
        except SSL.ZeroReturnError:
            return bytes(data)


def drain(sock: socket.socket) -> None:
    """Wait until the other end has closed TCP."""
    with contextlib.suppress(OSError):
        while sock.recv(65_536):
            pass


def echo(connection: SSL.Connection, sock: socket.socket) -> None:
    """Send everything back until close_notify, then end in order."""
    while True:
        try:
            data = connection.recv(65_536)
        except SSL.ZeroReturnError:
            break
        connection.sendall(data)
    connection.shutdown()
    sock.shutdown(socket.SHUT_WR)
    drain(sock)


def wait_until(condition: Callable[[], object]) -> None:
    """Return as soon as `condition` holds; fail after `PATIENCE` seconds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


#: What a middleman does with a datagram: the datagrams that go on in its place.
Edit = Callable[[bytes], list[bytes]]


def _pass(data: bytes) -> list[bytes]:
    return [data]


class Middleman:
    """A UDP relay between one terminal and one delegate, which can lose, change and count what passes.

    `to_delegate` and `to_terminal` may be replaced at any time. `delay` holds every datagram that many seconds.
    """

    def __init__(self, delegate: tuple[str, int]) -> None:
        self.to_delegate: Edit = _pass
        self.to_terminal: Edit = _pass
        self.delay = 0.0
        self.forwarded = 0
        self._delegate = delegate
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind((LOOPBACK, 0))
        self._backs: dict[tuple[str, int], socket.socket] = {}
        self._ended = False
        self._threads: list[threading.Thread] = []

    @property
    def address(self) -> str:
        """What a credential calls it."""
        return f"coap://{LOOPBACK}:{self._front.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._start(self._forward)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        for thread in self._threads:
            thread.join(PATIENCE)
        self._front.close()
        for back in self._backs.values():
            back.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _forward(self) -> None:
        self._front.settimeout(0.05)
        while not self._ended:
            try:
                data, terminal = self._front.recvfrom(65_535)
            except TimeoutError:
                continue
            if terminal not in self._backs:
                back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                back.connect(self._delegate)
                self._backs[terminal] = back
                self._start(self._return, back, terminal)
            time.sleep(self.delay)
            for datagram in self.to_delegate(data):
                self.forwarded += 1
                with contextlib.suppress(OSError):
                    self._backs[terminal].send(datagram)

    def _return(self, back: socket.socket, terminal: tuple[str, int]) -> None:
        back.settimeout(0.05)
        while not self._ended:
            try:
                data = back.recv(65_535)
            except (TimeoutError, ConnectionRefusedError):
                continue
            time.sleep(self.delay)
            for datagram in self.to_terminal(data):
                self._front.sendto(datagram, terminal)
