"""Sockets for an endpoint: one port of one address, for datagrams and for streams.

Never reads or writes anything.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from dataclasses import dataclass
from typing import Any

from locum.errors import ConfigurationError
from locum.names import HostPort
from locum.processes import why_not_bound

#: Kernel buffer for datagrams that arrive while others are worked on, in bytes; the kernel may give less.
RECEIVE_BUFFER = 4 << 20
#: Attempts to find a port that is free for both kinds, when port 0 asked for any.
PORT_ATTEMPTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundSockets:
    """Both sockets, bound and not yet listening, and where."""

    datagram: socket.socket
    stream: socket.socket
    address: HostPort

    def close(self) -> None:
        """Close both."""
        self.datagram.close()
        self.stream.close()


def bind(listen: HostPort) -> BoundSockets:
    """Bind both sockets to `listen`; port 0 takes one that is free for both.

    A machine with several addresses should name one: from a wildcard address the kernel chooses where datagrams
    come from, and a terminal does not take an answer from another address than it asked.
    Raises: ConfigurationError when the address is not of this machine, or the port is taken or not allowed.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigurationError(f"cannot listen at {listen}: {error.strerror}") from None
    for _ in range(PORT_ATTEMPTS):
        try:
            return _bind(family, address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and not listen.port:
                continue
            raise ConfigurationError(f"cannot listen at {listen}: {why_not_bound(error)}") from None
    raise ConfigurationError(f"cannot listen at {listen}: no port is free for both UDP and TCP")


def _bind(family: socket.AddressFamily, address: tuple[Any, ...]) -> BoundSockets:
    with contextlib.ExitStack() as undo:
        stream = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
        # For streams only: there it lets a restart pass connections that are still being forgotten. For
        # datagrams it would let a second process share the port and take messages away from the first.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        datagram = undo.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        datagram.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if family == socket.AF_INET6:
            for each in (stream, datagram):
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        stream.bind(address)
        name = stream.getsockname()
        datagram.bind((address[0], name[1], *address[2:]))
        # Streams listen before anybody is told the address, so that two nodes cannot both believe to have it.
        stream.listen(0)
        for each in (stream, datagram):
            each.setblocking(False)
        undo.pop_all()
    return BoundSockets(datagram=datagram, stream=stream, address=HostPort(name[0], name[1]))
