"""UDP ports of IKE, and on one of them ESP: datagrams in great numbers by few calls (RFC 3948).

Knows no key and no policy. Equal datagrams to one place go out in one call, which the kernel, or the network
card, cuts apart (UDP_SEGMENT), and what the kernel has put together comes in by one call (UDP_GRO); where a kernel
cannot do this, one by one.

The UDP checksum of ESP is left to the kernel, as the great calls ask, though RFC 3948 section 2.1 would rather see
zero in IPv4; a receiver does not depend on either.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address

from locum.dataplane.paths import Prepare, family_of, set_mark
from locum.errors import DecodeError, Refused, Unavailable
from locum.ipsec.installer import Receive
from locum.ipsec.selectors import Address
from locum.ipsec.udp import KEEPALIVE, Kind, classify, mark_ike

#: Calls for receiving in one turn of the event loop, and bytes: others want their turn too.
READS_PER_TURN = 64
BYTES_PER_TURN = 512 << 10
#: The kernel's limits of one call for sending: datagrams (64 in older ones), and bytes of all together.
MAX_SEGMENTS = 64
MAX_SEGMENTED = 65_000
#: What the kernel keeps for us while we are busy, in bytes, in either direction.
SOCKET_BUFFER = 4 << 20
_LARGEST = 65_535

# linux/udp.h, linux/in.h, linux/in6.h, asm/socket.h: what Python's socket module does not name.
_UDP_NO_CHECK6_RX = 102
_UDP_SEGMENT = 103
_UDP_GRO = 104
_IP_PKTINFO = 8
_IP_RECVTOS = 13
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_WANT, _PMTUDISC_DO = 1, 2
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33

#: Many datagrams in one call are too long for the path, or the kernel cannot cut them.
_ONE_BY_ONE = (errno.EMSGSIZE, errno.EINVAL, errno.EIO)

_U16 = struct.Struct("=H")
_INT = struct.Struct("=i")
#: Addresses read once and kept for the next datagram.
_address = lru_cache(1024)(ip_address)
#: Interface, local address, address of the packet.
_PACKET_INFO4 = struct.Struct("=i4s4s")
_PACKET_INFO6 = struct.Struct("=16si")
_ANCILLARY = 256

Ancillary = tuple[int, int, bytes]
#: What a socket calls the other end: address and port, and more in IPv6.
Source = tuple[str, int]
#: Takes datagrams that arrived where ESP may: datagrams, local address (4 or 16 bytes), where they come from,
#: traffic class of the IP header. Returns those that are not ESP.
ReceiveEsp = Callable[[list[bytes], bytes, Source, int], list[bytes]]
#: Sends ESP packets to one place.
Send = Callable[[list[bytes]], None]


class EspPort:
    """An `installer.Port`: one number, one socket for IPv4 and one for IPv6, or for one address.

    `dropped` counts what was not sent and not understood, by reason.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        number: int,
        receive: Receive,
        receive_esp: ReceiveEsp,
        *,
        local: Address | None,
        encapsulated: bool,
        mark: int,
        dropped: Counter[str],
        prepare: Prepare | None = None,
    ) -> None:
        """`prepare` is for a port whose ESP the kernel keeps. Raises: Refused, Unavailable."""
        self.number = number
        self.encapsulated = encapsulated
        self.local = local
        #: where all datagrams arrive and leave from, None where that is for each of them to say
        self._only = None if local is None or local.is_unspecified else local
        self._loop = loop
        self._receive = receive
        self._receive_esp = receive_esp
        self._dropped = dropped
        self._prepare_for_kernel = prepare
        self._segmenting = True
        self._sockets: dict[int, socket.socket] = {}
        families = (socket.AF_INET, socket.AF_INET6) if local is None else (family_of(local),)
        try:
            for family in families:
                self._open(family, mark)
            if not self._sockets:
                raise Unavailable("this host speaks neither IPv4 nor IPv6")
        except BaseException:
            self.close()
            raise

    def _open(self, family: socket.AddressFamily, mark: int) -> None:
        try:
            opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError:
            if self.local is None:
                return  # a host with one of the two
            raise Unavailable(f"this host has no way to use {self.local}") from None
        version = 4 if family is socket.AF_INET else 6
        try:
            set_mark(opened, mark)
            _prepare(
                opened,
                version,
                described=self.encapsulated or self._only is None,
                grow=self.encapsulated and self._prepare_for_kernel is None,
            )
            if self._prepare_for_kernel is not None:
                self._prepare_for_kernel(opened)
            opened.bind(("" if self.local is None else str(self.local), self.number))
        except OSError as error:
            opened.close()
            place = "every address" if self.local is None else str(self.local)
            kind = Refused if error.errno in (errno.EPERM, errno.EACCES) else Unavailable
            raise kind(f"cannot listen on UDP port {self.number} of {place}: {error.strerror}") from error
        except Refused:
            opened.close()
            raise
        self.number = opened.getsockname()[1]
        self._sockets[version] = opened
        readable = self._readable if self.encapsulated else self._message_readable
        self._loop.add_reader(opened, readable, opened, version)

    def serves(self, local: Address, number: int) -> bool:
        """True when ESP from `local` and port `number` leaves through this port."""
        mine = self.number == number and self.local in (None, local)
        return self.encapsulated and mine and bool(self._sockets)

    # --- out ----------------------------------------------------------------------------------------------

    def send(self, message: bytes, local: Address, remote: Address, remote_port: int) -> None:
        """Send an IKE message; see `installer.Port`."""
        data = mark_ike(message) if self.encapsulated else message
        self._send(remote.version, [data], self._from(local), (str(remote), remote_port))

    def send_keepalive(self, local: Address, remote: Address, remote_port: int) -> None:
        """Send a NAT keepalive; see `installer.Port`."""
        self._send(remote.version, [KEEPALIVE], self._from(local), (str(remote), remote_port))

    def _from(self, local: Address) -> list[Ancillary]:
        """As the function of this name; a socket of one address need not be told that it is that one."""
        return [] if local is self._only else _from(local, 0)

    def towards(self, local: Address, remote: Address, remote_port: int, traffic_class: int) -> Send:
        """A function that sends ESP packets from `local` with `traffic_class` in the IP header."""
        version, ancillary, address = remote.version, _from(local, traffic_class), (str(remote), remote_port)

        def send(packets: list[bytes]) -> None:
            if not self._segmenting or len(packets) == 1:
                for packet in packets:
                    self._send(version, [packet], ancillary, address)
                return
            for size, run in runs(packets):
                segment = (
                    [*ancillary, (socket.SOL_UDP, _UDP_SEGMENT, _U16.pack(size))] if len(run) > 1 else ancillary
                )
                self._send(version, run, segment, address)

        return send

    def _send(
        self, version: int, packets: list[bytes], ancillary: list[Ancillary], address: tuple[str, int]
    ) -> None:
        opened = self._sockets.get(version)
        if opened is None:
            self._dropped["no socket for this IP version"] += len(packets)
            return
        try:
            opened.sendmsg(packets, ancillary, 0, address)
        except OSError as error:
            if error.errno not in _ONE_BY_ONE:
                self._dropped[f"not sent: {error.strerror}"] += len(packets)
            elif len(packets) == 1:
                self._send_in_fragments(opened, version, packets[0], ancillary, address)
            else:
                # Without hardware that sums, older kernels do not cut; without a cut nothing may be too long.
                self._segmenting = self._segmenting and error.errno != errno.EIO
                for packet in packets:
                    self._send(version, [packet], ancillary[:-1], address)

    def _send_in_fragments(
        self,
        opened: socket.socket,
        version: int,
        packet: bytes,
        ancillary: list[Ancillary],
        address: tuple[str, int],
    ) -> None:
        """Send a datagram that is longer than the path takes; ESP only carries one where that may be so."""
        _set_path_discovery(opened, version, _PMTUDISC_WANT)
        try:
            opened.sendmsg([packet], ancillary, 0, address)
        except OSError as error:
            self._dropped[f"not sent: {error.strerror}"] += 1
        finally:
            _set_path_discovery(opened, version, _PMTUDISC_DO)

    # --- in -----------------------------------------------------------------------------------------------

    def _message_readable(self, opened: socket.socket, version: int) -> None:
        """IKE alone comes one by one, and a call that finds nothing is not for free."""
        try:
            local = self._only
            if local is not None:
                message, source = opened.recvfrom(_LARGEST)
            else:
                message, ancillary, _, source = opened.recvmsg(_LARGEST, _ANCILLARY)
                local = _address(_described(ancillary)[0])
        except OSError:  # nothing there any more, or an error of an earlier datagram
            return
        self._receive(message, local, _address(source[0]), source[1])

    def _readable(self, opened: socket.socket, version: int) -> None:
        """Take what has arrived, as much as one turn allows, and pass on together what came the same way."""
        batch: list[bytes] = []
        origin: tuple[list[Ancillary], Source] | None = None
        size, room = 0, BYTES_PER_TURN
        for _ in range(READS_PER_TURN):
            try:
                data, ancillary, _, source = opened.recvmsg(_LARGEST, _ANCILLARY)
            except OSError:  # nothing there any more, or an error of an earlier datagram
                break
            if origin is None or ancillary != origin[0] or source != origin[1]:
                if origin is not None:
                    self._arrived(batch, *origin)
                batch, origin = [], (ancillary, source)
                size = _segment_size(ancillary)
            if 0 < size < len(data):
                batch += [data[at : at + size] for at in range(0, len(data), size)]
            else:
                batch.append(data)
            room -= len(data)
            if room <= 0:
                break
        if origin is not None:
            self._arrived(batch, *origin)

    def _arrived(self, datagrams: list[bytes], ancillary: list[Ancillary], source: Source) -> None:
        """Take datagrams that came the same way."""
        local, traffic_class = _described(ancillary)
        for datagram in self._receive_esp(datagrams, local, source, traffic_class):
            self._hand_over(datagram, local, source)

    def _hand_over(self, datagram: bytes, local: bytes, source: Source) -> None:
        try:
            kind, message = classify(datagram)
        except DecodeError:
            self._dropped["neither ESP nor IKE"] += 1
            return
        if kind is Kind.IKE:
            self._receive(message, _address(local), _address(source[0]), source[1])

    def close(self) -> None:
        """Close the sockets; may be called twice."""
        while self._sockets:
            _, opened = self._sockets.popitem()
            self._loop.remove_reader(opened)
            opened.close()


def runs(packets: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Packets that one call can send, with their size in bytes: the last one of them may be shorter."""
    start, count = 0, len(packets)
    while start < count:
        size = len(packets[start])
        limit = min(count, start + max(1, min(MAX_SEGMENTS, MAX_SEGMENTED // size)))
        end = start + 1
        while end < limit and len(packets[end]) == size:
            end += 1
        if end < limit and len(packets[end]) < size:
            end += 1
        yield size, packets[start:end]
        start = end


def _segment_size(ancillary: list[Ancillary]) -> int:
    """The size of each datagram, in bytes, where the kernel has put several into one; else 0."""
    for level, kind, value in ancillary:
        if level == socket.SOL_UDP and kind == _UDP_GRO:
            return int(_INT.unpack(value)[0])
    return 0


def _described(ancillary: list[Ancillary]) -> tuple[bytes, int]:
    """The local address of a datagram that arrived, and the traffic class of its IP header."""
    local, traffic_class = b"", 0
    for level, kind, value in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            local = value[8:12]
        elif level == socket.IPPROTO_IP and kind == socket.IP_TOS:
            traffic_class = value[0]
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            local = value[:16]
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_TCLASS:
            traffic_class = _INT.unpack(value)[0] & 0xFF
    return local, traffic_class


def _from(local: Address, traffic_class: int) -> list[Ancillary]:
    """What has a datagram leave from `local` with `traffic_class` in its IP header."""
    if local.version == 4:
        ancillary: list[Ancillary] = [
            (socket.IPPROTO_IP, _IP_PKTINFO, _PACKET_INFO4.pack(0, local.packed, bytes(4)))
        ]
        if traffic_class:
            ancillary.append((socket.IPPROTO_IP, socket.IP_TOS, _INT.pack(traffic_class)))
    else:
        ancillary = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PACKET_INFO6.pack(local.packed, 0))]
        if traffic_class:
            ancillary.append((socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _INT.pack(traffic_class)))
    return ancillary


def _prepare(opened: socket.socket, version: int, *, described: bool, grow: bool) -> None:
    """Options of a socket that is not bound yet; with `described` it says of datagrams what `_described` reads.

    Raises: OSError.
    """
    if version == 4:
        level: int = socket.IPPROTO_IP
        options: tuple[int, ...] = (_IP_PKTINFO, _IP_RECVTOS)
    else:
        level, options = socket.IPPROTO_IPV6, (socket.IPV6_RECVPKTINFO, socket.IPV6_RECVTCLASS)
        opened.setsockopt(level, socket.IPV6_V6ONLY, 1)
    _set_path_discovery(opened, version, _PMTUDISC_DO)
    for option in options if described else ():
        opened.setsockopt(level, option, 1)
    if not grow:
        return
    for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
        with suppress(PermissionError):
            opened.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
    # Linux 5.0; and UDP without a checksum over IPv6, as some peers send ESP, which has a better one.
    for option in (_UDP_GRO, _UDP_NO_CHECK6_RX):
        with suppress(OSError):
            opened.setsockopt(socket.SOL_UDP, option, 1)


def _set_path_discovery(opened: socket.socket, version: int, how: int) -> None:
    """Whether datagrams may be cut on their way: DO says no, so that the path MTU is found out; WANT says yes."""
    if version == 4:
        opened.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, how)
    else:
        opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, how)
