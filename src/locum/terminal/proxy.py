"""A proxy on the device: any unmodified program connects in plaintext and gets delegated TLS to one peer.

Never looks at what it relays. An authentic end stays an end, in each direction by itself, and a truncated stream
reaches the program as a reset, so that it cannot be taken for a complete one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import field

from locum.errors import ConfigurationError, LocumError, Unavailable
from locum.names import HostPort
from locum.relay import Relay, TlsSide, set_reset
from locum.terminal.aio import Terminal
from locum.terminal.cipher_keys import MAXIMUM_SESSION_KEYS
from locum.terminal.options import IDLE_TIMEOUT, MAXIMUM_CONNECTIONS, TlsOptions, configuration
from locum.values import dataclass

#: Connections that wait to be accepted.
BACKLOG = 128

#: Seconds that connections get to end when the proxy is told to.
DRAIN_TIMEOUT = 3.0

#: Seconds before the next attempt when the system has no descriptor for another connection.
ACCEPT_PAUSE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """Where to listen, where to connect, and within which limits; times in seconds.

    Without `allow_remote` only loopback addresses are listened on: the inside is plaintext.
    """

    listen: HostPort
    to: HostPort
    tls: TlsOptions = field(default_factory=TlsOptions)
    maximum_connections: int = MAXIMUM_CONNECTIONS
    idle_timeout: float = IDLE_TIMEOUT
    allow_remote: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.maximum_connections <= MAXIMUM_SESSION_KEYS:
            raise ConfigurationError(f"a proxy relays 1 to {MAXIMUM_SESSION_KEYS} connections at a time")
        if self.idle_timeout <= 0:
            raise ConfigurationError("the idle time-out is above 0 seconds")
        configuration(self.tls, host=self.to.host, peer_address="")


class Proxy:
    """Listens and relays until it is told to stop. `report` is given one line per connection that failed."""

    def __init__(self, terminal: Terminal, options: ProxyOptions, *, report: Callable[[str], None]) -> None:
        self._terminal = terminal
        self._options = options
        self._report = report
        self._room = asyncio.Semaphore(options.maximum_connections)
        self._relays: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None

    def listen(self) -> HostPort:
        """Open the listening socket and return its address. Raises: ConfigurationError; Unavailable."""
        options = self._options
        address = _address_to_listen_on(options.listen, allow_remote=options.allow_remote)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            self._listener = socket.create_server((address, options.listen.port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise Unavailable(f"{options.listen}: {error.strerror}") from None
        self._listener.setblocking(False)
        host, port = self._listener.getsockname()[:2]
        return HostPort(host, port)

    async def serve(self, stop: asyncio.Event) -> None:
        """Relay until `stop` is set, then end every connection in order."""
        accepting = asyncio.ensure_future(self._accept())
        try:
            await stop.wait()
        finally:
            accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await accepting
            await self._drain()

    async def _accept(self) -> None:
        assert self._listener is not None
        loop = asyncio.get_running_loop()
        with self._listener as listener:
            while True:
                await self._room.acquire()
                try:
                    inside, _ = await loop.sock_accept(listener)
                except OSError:
                    self._room.release()
                    await asyncio.sleep(ACCEPT_PAUSE)
                    continue
                except BaseException:
                    self._room.release()
                    raise
                task = asyncio.ensure_future(self._relay(inside))
                self._relays.add(task)
                task.add_done_callback(self._relayed)

    def _relayed(self, task: asyncio.Task[None]) -> None:
        self._relays.discard(task)
        self._room.release()

    async def _relay(self, inside: socket.socket) -> None:
        """One connection: the peer first, so that a program is only attached to what works."""
        options = self._options
        try:
            tls, outer = await self._terminal.create_connection(
                TlsSide, options.to.host, options.to.port, **options.tls
            )
        except LocumError as error:
            self._report(str(error))
            _reset(inside)
            return
        except BaseException:
            _reset(inside)
            raise
        loop = asyncio.get_running_loop()
        relay = Relay(tls, outer, idle_timeout=options.idle_timeout)
        try:
            await loop.connect_accepted_socket(lambda: relay.inner, inside)
            error_at_end = await relay.done
            if error_at_end is not None:
                self._report(str(error_at_end))
        except OSError as error:
            self._report(f"the program's connection: {error.strerror}")
        finally:
            relay.close()
            await asyncio.wait([outer.lost], timeout=DRAIN_TIMEOUT)

    async def _drain(self) -> None:
        """End those that are left with their close_notify."""
        for task in self._relays:
            task.cancel()
        if self._relays:
            await asyncio.wait(self._relays, timeout=2 * DRAIN_TIMEOUT)


def _reset(sock: socket.socket) -> None:
    set_reset(sock)
    sock.close()


def _address_to_listen_on(listen: HostPort, *, allow_remote: bool) -> str:
    """The textual IP address of `listen`. Raises: ConfigurationError when it is not of this machine alone."""
    try:
        address = str(socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise ConfigurationError(f"{listen}: {error.strerror}") from None
    if not allow_remote and not ipaddress.ip_address(address).is_loopback:
        raise ConfigurationError(
            f"{listen} can be reached from other machines, and what arrives there is plaintext: "
            "listen on 127.0.0.1, or say --allow-remote"
        )
    return address
