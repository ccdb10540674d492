"""What this host knows of the way to another one, outside of all tunnels: its own address there, and the path MTU.

Sends nothing: a UDP socket that is connected and never written to has the kernel look the way up.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from locum.errors import Refused, Unavailable
from locum.ipsec.selectors import Address

#: Any port will do: nothing is sent.
_PORT = 9
# linux/in.h, linux/in6.h: what Python's socket module does not name.
_IP_MTU = 14
_IPV6_MTU = 24

#: Gets a socket ready before it is bound or connected. Raises: OSError.
Prepare = Callable[[socket.socket], None]


def family_of(address: Address) -> socket.AddressFamily:
    """The address family of an address."""
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def set_mark(opened: socket.socket, mark: int) -> None:
    """Have packets of a socket carry `mark` (SO_MARK), 0 for none. Raises: Refused without CAP_NET_ADMIN."""
    if mark:
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        except PermissionError as error:
            raise Refused("cannot mark the packets of a socket: this takes CAP_NET_ADMIN") from error


def local_address(remote: Address, *, mark: int = 0, prepare: Prepare | None = None) -> Address:
    """The address from which packets with `mark` would go to `remote`. Raises: Refused, Unavailable.

    `prepare` is given the socket that is asked.
    """
    with _towards(remote, mark, prepare) as probe:
        return ip_address(probe.getsockname()[0])


def path_mtu(remote: Address, *, mark: int = 0) -> int:
    """The longest packet, in bytes, that gets to `remote` whole as far as this host knows. Raises: as above."""
    with _towards(remote, mark) as probe:
        if remote.version == 4:
            return probe.getsockopt(socket.IPPROTO_IP, _IP_MTU)
        return probe.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)


@contextmanager
def _towards(remote: Address, mark: int, prepare: Prepare | None = None) -> Iterator[socket.socket]:
    try:
        with socket.socket(family_of(remote), socket.SOCK_DGRAM) as probe:
            set_mark(probe, mark)
            if prepare is not None:
                prepare(probe)
            probe.connect((str(remote), _PORT))
            yield probe
    except OSError as error:
        raise Unavailable(f"this host has no way to {remote}: {error.strerror}") from error
