"""Routes, routing rules, addresses and links as the kernel's netlink has them (rtnetlink(7)).

Knows formats, and neither socket nor purpose.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple

from locum.dataplane.kernel_netlink import attribute, attributes
from locum.errors import DecodeError
from locum.ipsec.selectors import Address

Network = IPv4Network | IPv6Network

#: The part of the kernel that speaks this (linux/netlink.h), and what may be asked of it (linux/rtnetlink.h).
NETLINK_ROUTE = 0
SET_LINK = 19
GET_ADDRESSES = 22
NEW_ROUTE = 24
DELETE_ROUTE = 25
GET_ROUTE = 26
NEW_RULE = 32
DELETE_RULE = 33
GET_RULES = 34
#: What a request for something new may say (linux/netlink.h).
REPLACE = 0x100
EXCLUSIVE = 0x200
CREATE = 0x400

_MAIN_TABLE_OR_OTHER = 0
_SCOPE_UNIVERSE = 0
_SCOPE_LINK = 253
_UNICAST = 1
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_TABLE, _RTA_MARK = 1, 4, 5, 7, 15, 16
# linux/fib_rules.h
_TO_TABLE = 1
_INVERT = 2
_FRA_PRIORITY, _FRA_FWMARK, _FRA_SUPPRESS, _FRA_TABLE, _FRA_FWMASK, _FRA_PROTOCOL = 6, 10, 14, 15, 16, 21
_MAIN_TABLE = 254
# linux/if_addr.h, linux/if_link.h
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFLA_AF_SPEC, _IFLA_INET6_ADDR_GEN_MODE, _NO_ADDRESSES = 26, 8, 1

#: Family, lengths of destination and source, traffic class, table, protocol, scope, type (a rule: action), flags.
_ROUTE = struct.Struct("=BBBBBBBBI")
#: Family, length of the prefix, flags, scope, index of the interface.
_ADDRESS = struct.Struct("=BBBBI")
#: Family, type, index, flags, which flags to change.
_LINK = struct.Struct("=BxHiII")
_U32 = struct.Struct("=I")


class Rule(NamedTuple):
    """Packets without `mark` look their way up in `table` first; `protocol` says who made it."""

    family: int
    table: int
    mark: int
    priority: int
    protocol: int

    def write(self) -> bytes:
        """The body of a request for it."""
        header = _ROUTE.pack(self.family, 0, 0, 0, _MAIN_TABLE_OR_OTHER, 0, 0, _TO_TABLE, _INVERT)
        numbers = (
            (_FRA_PRIORITY, self.priority),
            (_FRA_FWMARK, self.mark),
            (_FRA_FWMASK, 0xFFFF_FFFF),
            (_FRA_TABLE, self.table),
        )
        attached = b"".join(attribute(kind, _U32.pack(value)) for kind, value in numbers)
        return header + attached + attribute(_FRA_PROTOCOL, bytes((self.protocol,)))

    @classmethod
    def parse(cls, body: bytes) -> Rule:
        """Read an answer; what a rule does not say is 0. Raises: DecodeError."""
        if len(body) < _ROUTE.size:
            raise DecodeError("a routing rule that is cut off")
        found = dict(attributes(body[_ROUTE.size :]))

        def number(kind: int) -> int:
            value = found.get(kind, b"")
            return int(_U32.unpack(value)[0]) if len(value) == _U32.size else 0

        protocol = (found.get(_FRA_PROTOCOL) or b"\0")[0]
        return cls(body[0], number(_FRA_TABLE), number(_FRA_FWMARK), number(_FRA_PRIORITY), protocol)


def rule_for_all_but_defaults(family: int, priority: int, protocol: int) -> bytes:
    """A rule by which packets look their way up in the main table first, unless they find a default route."""
    header = _ROUTE.pack(family, 0, 0, 0, _MAIN_TABLE, 0, 0, _TO_TABLE, 0)
    numbers = ((_FRA_PRIORITY, priority), (_FRA_TABLE, _MAIN_TABLE), (_FRA_SUPPRESS, 0))
    attached = b"".join(attribute(kind, _U32.pack(value)) for kind, value in numbers)
    return header + attached + attribute(_FRA_PROTOCOL, bytes((protocol,)))


def rules_of(family: int) -> bytes:
    """Asks for all rules of a family."""
    return _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)


def route(
    network: Network,
    interface: int,
    table: int,
    source: Address | None,
    protocol: int,
    *,
    gateway: Address | None = None,
) -> bytes:
    """A route to `network` through an interface, by its index, for which this host speaks from `source`.

    Without a `gateway` the network is on the link itself.
    """
    version4 = network.version == 4
    family = socket.AF_INET if version4 else socket.AF_INET6
    scope = _SCOPE_LINK if version4 and gateway is None else _SCOPE_UNIVERSE
    header = _ROUTE.pack(family, network.prefixlen, 0, 0, _MAIN_TABLE_OR_OTHER, protocol, scope, _UNICAST, 0)
    attached = [
        attribute(_RTA_DST, network.network_address.packed),
        attribute(_RTA_OIF, _U32.pack(interface)),
        attribute(_RTA_TABLE, _U32.pack(table)),
    ]
    if gateway is not None:
        attached.append(attribute(_RTA_GATEWAY, gateway.packed))
    if source is not None:
        attached.append(attribute(_RTA_PREFSRC, source.packed))
    return header + b"".join(attached)


class Way(NamedTuple):
    """How packets get to an address: through which interface, by its index, and over which router."""

    interface: int
    gateway: Address | None


def way_to(address: Address, mark: int) -> bytes:
    """Asks (GET_ROUTE) for the way of packets with `mark` to an address."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    header = _ROUTE.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    return header + attribute(_RTA_DST, address.packed) + attribute(_RTA_MARK, _U32.pack(mark))


def parse_way(body: bytes) -> Way | None:
    """Read the answer; None when the address is one of this host. Raises: DecodeError."""
    if len(body) < _ROUTE.size:
        raise DecodeError("a route that is cut off")
    if _ROUTE.unpack_from(body)[7] != _UNICAST:
        return None
    found = dict(attributes(body[_ROUTE.size :]))
    interface, gateway = found.get(_RTA_OIF, b""), found.get(_RTA_GATEWAY)
    try:
        return Way(_U32.unpack(interface)[0], ip_address(gateway) if gateway else None)
    except (struct.error, ValueError):
        raise DecodeError("a route without an interface, or with an odd gateway") from None


def addresses_of(family: int) -> bytes:
    """Asks for all addresses of a family."""
    return _ADDRESS.pack(family, 0, 0, 0, 0)


def parse_address(body: bytes) -> tuple[Address, int]:
    """An address of this host and its scope: 0 everywhere, 253 one link, 254 this host. Raises: DecodeError."""
    if len(body) < _ADDRESS.size:
        raise DecodeError("an interface address that is cut off")
    found = dict(attributes(body[_ADDRESS.size :]))
    packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS) or b""
    try:
        return ip_address(packed), body[3]
    except ValueError:
        raise DecodeError("an interface address of an odd length") from None


def link_without_addresses(interface: int) -> bytes:
    """Has IPv6 give an interface no address of its own making."""
    mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes((_NO_ADDRESSES,)))
    return _LINK.pack(0, 0, interface, 0, 0) + attribute(_IFLA_AF_SPEC, attribute(socket.AF_INET6, mode))
