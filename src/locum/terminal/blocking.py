"""The blocking driver: `connect_tls_blocking` and `BlockingTerminal`, which give a socket-like object.

Never contains protocol, and starts no thread or event loop: the calling thread does everything.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

from locum.errors import LocumError, TimedOut
from locum.terminal.blocking_channel import BlockingChannel
from locum.terminal.channel import CONNECT_TIMEOUT
from locum.terminal.connecting import (
    AskDelegate,
    Dial,
    EnterChannel,
    HangUp,
    Pause,
    SendToPeer,
    Step,
    connecting,
    unreachable,
)
from locum.terminal.credential import TerminalCredential
from locum.terminal.device import Authority, Device
from locum.terminal.negotiation import Established, SessionKeys
from locum.terminal.options import TlsOptions
from locum.terminal.steps import Observer
from locum.terminal.tls_socket import READ_BUFFER, TlsSocket

#: Seconds that the last bytes to a peer may take when no time is left.
LAST_WORDS_SECONDS = 0.01


def connect_tls_blocking(
    host: str,
    port: int,
    *,
    credential: TerminalCredential | Path | str | None = None,
    authority: Authority | None = None,
    observer: Observer | None = None,
    **options: Unpack[TlsOptions],
) -> TlsSocket:
    """Connect to a TLS server through a delegate and return a socket-like object.

    `credential` is a credential file or what was read from it; `authority` replaces the delegate by one in this
    process. `observer` is told every step. The options are those of `TlsOptions`.

    Raises: LocumError of the kind that says who is at fault; OperationError for the delegate's part.
    """
    with BlockingTerminal(credential, authority=authority, observer=observer) as terminal:
        return terminal.connect_tls(host, port, **options)


class BlockingTerminal:
    """A device with its delegates: one channel to each, used by any number of threads at a time (A12).

    Closing it closes the channels; connections made by it live on.
    """

    def __init__(
        self,
        credential: TerminalCredential | Path | str | None = None,
        *,
        authority: Authority | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Arguments and errors are those of `connect_tls_blocking`."""
        self._device: Device[BlockingChannel] = Device(
            credential, authority=authority, observer=observer, channel=BlockingChannel
        )

    @property
    def keys(self) -> SessionKeys:
        """The cipher-key database of fig 2: the sessions that are established."""
        return self._device.keys

    def __enter__(self) -> BlockingTerminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channels to the delegates and wipe their keys."""
        self._device.close()

    def connect_tls(self, host: str, port: int, **options: Unpack[TlsOptions]) -> TlsSocket:
        """As `connect_tls_blocking`."""
        timeout = options.get("timeout", CONNECT_TIMEOUT)
        steps = connecting(self._device, host, port, options, clock=time.monotonic, timeout=timeout)
        tcp, established = _Driver(self._device, host, port, timeout).run(steps)
        return TlsSocket(tcp, established, keys=self.keys, on_ticket=options.get("on_ticket"))


class _Driver:
    """Does with blocking calls what `connecting` asks for."""

    def __init__(self, device: Device[BlockingChannel], host: str, port: int, timeout: float) -> None:
        self._device = device
        self._host = host
        self._port = port
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._tcp: socket.socket | None = None

    def run(self, steps: Generator[Step, Any, Established]) -> tuple[socket.socket, Established]:
        """The TCP connection and the session on it. Raises: LocumError; TCP is closed then."""
        try:
            established = self._drive(steps)
        except BaseException:
            steps.close()
            self._hang_up()
            raise
        assert self._tcp is not None
        return self._tcp, established

    def _drive(self, steps: Generator[Step, Any, Established]) -> Established:
        step = next(steps)
        try:
            while True:
                try:
                    result = self._perform(step)
                except LocumError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as stop:
            established: Established = stop.value
            return established

    def _perform(self, step: Step) -> object:
        if isinstance(step, AskDelegate):
            return self._device.channels[step.delegate].post(step.payload, deadline=step.deadline)
        if isinstance(step, EnterChannel):
            self._device.channels[step.delegate].enter(deadline=step.deadline)
            return None
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        if isinstance(step, HangUp):
            self._hang_up()
            return None
        try:
            if isinstance(step, Dial):
                return self._dial()
            if isinstance(step, SendToPeer):
                self._send(step.data)
                return None
            return self._read()
        except TimeoutError:
            what = "connecting" if self._tcp is None else "waiting for the peer"
            raise TimedOut(
                f"{self._host}:{self._port}: no TLS session within {self._timeout:g} s, {what}"
            ) from None
        except OSError as error:
            raise unreachable(f"{self._host}:{self._port}", error) from None

    def _dial(self) -> str:
        self._tcp = socket.create_connection((self._host, self._port), self._left())
        self._tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return str(self._tcp.getpeername()[0]).partition("%")[0]

    def _send(self, data: bytes | bytearray) -> None:
        assert self._tcp is not None
        # An alert that says that the time is up still goes out, if TCP takes it at once.
        self._tcp.settimeout(max(LAST_WORDS_SECONDS, self._deadline - time.monotonic()))
        self._tcp.sendall(data)

    def _read(self) -> bytes:
        assert self._tcp is not None
        self._tcp.settimeout(self._left())
        return self._tcp.recv(READ_BUFFER)

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _hang_up(self) -> None:
        if self._tcp is not None:
            self._tcp.close()
            self._tcp = None
