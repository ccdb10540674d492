"""Who may connect to the agent: users and groups, told by the kernel and not by a PIN (SO_PEERCRED).

Never knows what a client asks for.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct

from locum.errors import ConfigurationError

#: SO_PEERGROUPS of Linux 4.13 and later, which Python has no name for.
_SO_PEERGROUPS = 59
_GROUP = Struct("=I")
#: Supplementary groups of one process that are looked at.
_MAX_GROUPS = 1024
_CREDENTIALS = Struct("=iII")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The process at the other end, as it was when it connected."""

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """Users and groups by their numbers."""

    uids: frozenset[int]
    gids: frozenset[int] = frozenset()

    @classmethod
    def of(cls, *, uids: Iterable[int] = (), users: Iterable[str] = (), groups: Iterable[str] = ()) -> Allowed:
        """The user of this process, and those given by number and by name. Raises: ConfigurationError."""
        return cls(
            uids=frozenset((os.geteuid(), *uids, *map(_uid, users))),
            gids=frozenset(map(_gid, groups)),
        )

    @property
    def others(self) -> bool:
        """True when more than the user of this process may connect."""
        return bool(self.gids) or self.uids != {os.geteuid()}

    def allows(self, connection: socket.socket, client: Client) -> bool:
        """True when the process at the other end of `connection` is of one of the users or groups."""
        if client.uid in self.uids:
            return True
        return bool(self.gids) and not self.gids.isdisjoint((client.gid, *_groups(connection)))


def client_of(connection: socket.socket) -> Client:
    """Who is at the other end."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(data)
    return Client(pid=pid, uid=uid, gid=gid)


def _groups(connection: socket.socket) -> list[int]:
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUP.size * _MAX_GROUPS)
    except OSError:  # an older kernel, or more groups than that
        return []
    return [number for (number,) in _GROUP.iter_unpack(data)]


def _uid(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ConfigurationError(f"there is no user '{name}' on this machine") from None


def _gid(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigurationError(f"there is no group '{name}' on this machine") from None
