"""A client of a real key server that does what no pool would: one connection, and bytes as a test wants them."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from locum.keyless.frames import Frame, FrameReader, KeyReference
from locum.keyless.requests import NO_KEY, Ping, Request, encode_request
from locum.keys.credential import EdgeCredential
from locum.keys.server_link import client_context

#: Seconds after which anything that has not happened never will.
PATIENCE = 30.0
#: Seconds without room for another byte after which the server is taken to want no more.
FULL_SECONDS = 0.5
#: Bytes of one record: one that has begun is sent as it is, however long that takes.
_RECORD = 16_000
_NOT_NOW = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class KeyServerClient:
    """A blocking connection with an edge's credential; `version` and `ciphers` narrow what it offers."""

    def __init__(
        self,
        credential: EdgeCredential,
        *,
        server: int = 0,
        version: ssl.TLSVersion | None = None,
        ciphers: str = "",
        context: ssl.SSLContext | None = None,
    ) -> None:
        context = context or client_context(credential)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if ciphers:
            context.set_ciphers(ciphers)
        place = credential.servers[server]
        raw = socket.create_connection((place.host, place.port), timeout=PATIENCE)
        try:
            self.socket = context.wrap_socket(raw, server_hostname=credential.server_name)
        except BaseException:
            raw.close()
            raise
        self._reader = FrameReader()
        self._frames: list[Frame] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def receive(self, count: int) -> Sequence[Frame]:
        """The next `count` answers. Raises: ConnectionError when the server has closed before."""
        while len(self._frames) < count:
            data = self.socket.recv(65_536)
            if not data:
                raise ConnectionError("the key server has closed the connection")
            self._frames += self._reader.feed(data)
        found, self._frames = self._frames[:count], self._frames[count:]
        return found

    def exchange(self, data: bytes, count: int) -> Sequence[Frame]:
        """Send `data`, more than all buffers may take, and receive the next `count` answers meanwhile.

        One thread does both, as OpenSSL wants it: two of them on one connection spoil its records.
        Raises: as `receive`; TimeoutError when nothing happens for long.
        """
        sock, position = self.socket, 0
        sock.setblocking(False)
        try:
            while position < len(data) or len(self._frames) < count:
                sent = self._send_some(data, position)
                received = self._receive_some()
                position += sent
                if not sent and not received:
                    writing = [sock] if position < len(data) else []
                    if not any(select.select([sock], writing, [], PATIENCE)):
                        raise TimeoutError("the key server does nothing")
        finally:
            sock.settimeout(PATIENCE)
        found, self._frames = self._frames[:count], self._frames[count:]
        return found

    def arrived(self) -> Sequence[Frame]:
        """The answers that are there already."""
        self.socket.setblocking(False)
        try:
            while self._receive_some():
                pass
        finally:
            self.socket.settimeout(PATIENCE)
        found, self._frames = self._frames, []
        return found

    def press(self, data: bytes) -> bytes:
        """Send `data` without reading anything, until the server takes no more; returns what is left to send."""
        position = 0
        self.socket.setblocking(False)
        try:
            until = time.monotonic() + FULL_SECONDS
            while position < len(data) and time.monotonic() < until:
                sent = self._send_some(data, position)
                position += sent
                if sent:
                    until = time.monotonic() + FULL_SECONDS
                else:
                    select.select([], [self.socket], [], FULL_SECONDS)
        finally:
            self.socket.settimeout(PATIENCE)
        return data[position:]

    def _send_some(self, data: bytes, position: int) -> int:
        if position == len(data):
            return 0
        try:
            return self.socket.send(data[position : position + _RECORD])
        except _NOT_NOW:
            return 0

    def _receive_some(self) -> int:
        try:
            data = self.socket.recv(65_536)
        except _NOT_NOW:
            return 0
        if not data:
            raise ConnectionError("the key server has closed the connection")
        self._frames += self._reader.feed(data)
        return len(data)

    def ask(self, request: Request, ski: bytes = b"", number: int = 7) -> Frame:
        """The answer to one request."""
        self.send(encode_request(number, request, KeyReference(ski=ski) if ski else NO_KEY))
        (answer,) = self.receive(1)
        assert answer.id == number
        return answer

    def is_alive(self) -> bool:
        """True when the server answers a ping."""
        try:
            return self.ask(Ping(b"?")).payload == b"?"
        except OSError:
            return False

    def is_closed(self) -> bool:
        """Wait for the server to end the connection; False when it has not in time."""
        try:
            while self.socket.recv(65_536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True
