"""ESP and AH as IP protocols of their own, and packets that go past the policies: whole IP packets, in and out.

Knows no key and no policy. What the kernel has no use for itself it leaves to whoever listens: raw sockets.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address

from locum.dataplane.paths import path_mtu, set_mark
from locum.errors import OperationError, Refused, Unavailable
from locum.ipsec.faults import PacketTooLong
from locum.ipsec.ip import IPV6_HEADER, ipv6_header
from locum.ipsec.sa import Protocol
from locum.ipsec.selectors import Address
from locum.ipsec.too_big import fragments

#: Packets in one turn of the event loop.
READS_PER_TURN = 64
#: What the kernel keeps for us while we are busy, in bytes.
SOCKET_BUFFER = 4 << 20
_LARGEST = 65_535
_ANCILLARY = 128
_SO_RCVBUFFORCE = 33
_INT = struct.Struct("=i")

#: Takes an IP packet with ESP or AH in it.
ReceivePacket = Callable[[bytes], None]


class RawSockets:
    """Raw sockets of both IP versions, opened when they are needed; `dropped` counts what was not sent."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, receive: ReceivePacket, *, mark: int, dropped: Counter[str]
    ) -> None:
        self._loop = loop
        self._receive = receive
        self._mark = mark
        self._dropped = dropped
        self._senders: dict[int, socket.socket] = {}
        self._listeners: dict[tuple[int, Protocol], socket.socket] = {}

    def listen(self, version: int, protocol: Protocol) -> None:
        """Take what comes with `protocol` in IP of `version`. Raises: Refused, Unavailable."""
        if (version, protocol) in self._listeners:
            return
        opened = self._open(version, protocol)
        with suppress(PermissionError):
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, SOCKET_BUFFER)
        if version == 6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        self._listeners[version, protocol] = opened
        self._loop.add_reader(opened, self._readable, opened, version, protocol)

    def send(self, packet: bytes, destination: Address) -> None:
        """Send an IP packet as it is, in fragments where that must be and may be; else it is dropped."""
        try:
            sender = self._senders.get(destination.version)
            if sender is None:
                sender = self._senders[destination.version] = self._open(destination.version, socket.IPPROTO_RAW)
            self._send(sender, packet, destination)
        except (OSError, OperationError, PacketTooLong) as error:
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            self._dropped[f"not sent: {reason}"] += 1

    def _send(self, sender: socket.socket, packet: bytes, destination: Address) -> None:
        address = (str(destination), 0)
        try:
            sender.sendto(packet, address)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            mtu = path_mtu(destination, mark=self._mark)
            for piece in fragments(packet, mtu, secrets.randbits(32)):
                sender.sendto(piece, address)

    def _open(self, version: int, protocol: int) -> socket.socket:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        try:
            opened = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        except PermissionError as error:
            raise Refused("cannot send ESP and AH without UDP: this takes CAP_NET_RAW") from error
        except OSError as error:
            raise Unavailable(f"this host has no raw sockets for IPv{version}: {error.strerror}") from error
        try:
            set_mark(opened, self._mark)
        except BaseException:
            opened.close()
            raise
        return opened

    def _readable(self, opened: socket.socket, version: int, protocol: Protocol) -> None:
        for _ in range(READS_PER_TURN):
            try:
                data, ancillary, _, source = opened.recvmsg(_LARGEST, _ANCILLARY)
            except OSError:  # nothing there any more
                return
            self._receive(data if version == 4 else _with_header(data, ancillary, source[0], protocol))

    def close(self) -> None:
        """Close them all; may be called twice."""
        while self._listeners:
            _, opened = self._listeners.popitem()
            self._loop.remove_reader(opened)
            opened.close()
        while self._senders:
            self._senders.popitem()[1].close()


def _with_header(payload: bytes, ancillary: list[tuple[int, int, bytes]], source: str, protocol: int) -> bytes:
    """What came without its IPv6 header with one as it had, but for what routers may change.

    Extension headers in front of `payload` are not there again: AH that covers some is not authentic then.
    """
    destination, traffic_class = bytes(16), 0
    for level, kind, value in ancillary:
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            destination = value[:16]
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_TCLASS:
            traffic_class = _INT.unpack(value)[0] & 0xFF
    length = IPV6_HEADER + len(payload)
    header = ipv6_header(ip_address(source).packed, destination, protocol, length, traffic_class=traffic_class)
    return header + payload
