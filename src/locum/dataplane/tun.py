"""A TUN device: IP packets that this host routes into a program, and packets that come back out of it.

Knows neither association nor policy. Packets come one by one and no longer than the device's MTU; going back, many
segments of one TCP stream may be written at once, and the kernel takes them as it takes what a network card has
put together (`gathering` makes them).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from typing import Self

from locum.errors import Refused, Unavailable

#: The kernel puts a number in the place of %d that makes the name unique on this host.
NAME_PATTERN = "locum%d"
#: The virtio header in front of every packet that is read or written (linux/virtio_net.h): flags, GSO type,
#: header length, segment size, checksum start and offset. All zero: a packet as any other.
VNET_HEADER = 10
PLAIN = bytes(VNET_HEADER)
GSO_TCP4 = 1
GSO_TCP6 = 4
#: The least MTU of IPv4 (RFC 791), and of IPv6 (RFC 8200 section 5), in bytes; the most that a device takes.
LEAST_MTU = 576
LEAST_IPV6_MTU = 1280
LARGEST_MTU = 65_535
#: How many packets the kernel keeps while this program is busy; it drops what comes beyond.
QUEUE_LENGTH = 1000

_DEVICE = "/dev/net/tun"
# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
# linux/sockios.h
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCSIFMTU = 0x8922
_SIOCSIFTXQLEN = 0x8943
_IFF_UP = 1
_REQUEST = struct.Struct("16sH22x")
_NUMBER_REQUEST = struct.Struct("16si20x")
_VNET = struct.Struct("=BBHHHH")


class TunDevice:
    """A device of this program; it is gone when it is closed, and also when the program ends without.

    A packet that the kernel routes into it is what `os.read` gets from `descriptor`, behind `VNET_HEADER` bytes.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.descriptor = descriptor
        self.name = name
        self.index = socket.if_nametoindex(name)
        self.mtu = 0
        #: the longest packet that the device can have, in bytes: its MTU may have been more than it is now
        self.largest_mtu = 0

    @classmethod
    def open(cls, *, mtu: int = 1400) -> Self:
        """A new device, down and without addresses. Raises: Refused without privilege, Unavailable."""
        try:
            descriptor = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise Unavailable(f"this host has no TUN devices: {_DEVICE}: {error.strerror}") from error
        try:
            flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
            answer = fcntl.ioctl(descriptor, _TUNSETIFF, _REQUEST.pack(NAME_PATTERN.encode(), flags))
            # Whole checksums and nothing longer than the MTU, please: the kernel sums faster than we do.
            fcntl.ioctl(descriptor, _TUNSETOFFLOAD, 0)
            device = cls(descriptor, answer[:16].rstrip(b"\0").decode())
            device._set(_SIOCSIFTXQLEN, QUEUE_LENGTH)
            device.set_mtu(mtu)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EPERM, errno.EACCES):
                raise Refused("cannot make a TUN device: this takes CAP_NET_ADMIN") from error
            raise Unavailable(f"cannot make a TUN device: {error.strerror}") from error
        except BaseException:
            os.close(descriptor)
            raise
        return device

    def up(self) -> None:
        """Switch the device on. Raises: Unavailable."""
        name = self.name.encode()
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                answer = fcntl.ioctl(control, _SIOCGIFFLAGS, _REQUEST.pack(name, 0))
                flags = _REQUEST.unpack(answer)[1] | _IFF_UP
                fcntl.ioctl(control, _SIOCSIFFLAGS, _REQUEST.pack(name, flags))
        except OSError as error:
            raise Unavailable(f"cannot switch {self.name} on: {error.strerror}") from error

    def set_mtu(self, mtu: int) -> None:
        """The longest packet that the kernel hands over, in bytes. Raises: Unavailable."""
        mtu = max(LEAST_MTU, min(mtu, LARGEST_MTU))
        if mtu != self.mtu:
            try:
                self._set(_SIOCSIFMTU, mtu)
            except OSError as error:
                raise Unavailable(f"cannot set the MTU of {self.name}: {error.strerror}") from error
            self.mtu = mtu
            self.largest_mtu = max(mtu, self.largest_mtu)

    def _set(self, command: int, value: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, command, _NUMBER_REQUEST.pack(self.name.encode(), value))

    def write(self, packet: bytes) -> None:
        """Have the kernel take `packet` as one that arrived. Raises: OSError when it is no IP packet."""
        os.write(self.descriptor, PLAIN + packet)

    def write_segments(self, kind: int, header: bytes, segment_size: int, segments: Sequence[bytes]) -> None:
        """As `write`, for TCP segments of one stream at once.

        `kind` is GSO_TCP4 or GSO_TCP6, `header` the IP and TCP header of all of them together, with a checksum
        that is right for it; `segment_size` is the length of all `segments` but the last, in bytes.
        """
        prefix = _VNET.pack(0, kind, len(header), segment_size, 0, 0)
        os.writev(self.descriptor, (prefix, header, *segments))

    def close(self) -> None:
        """Take the device away, with every route through it; may be called twice."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)
