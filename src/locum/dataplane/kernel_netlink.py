"""Requests to the Linux kernel over netlink and their answers, and the attributes that both consist of (RFC 3549).

Never knows what a request is about: xfrm.py says that of IPsec.

Nothing but a socket, so that a request is a matter of microseconds, takes no thread and no event loop, and comes
in the midst of either.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
from collections.abc import Iterator

from locum.errors import DecodeError, TimedOut, Unavailable

#: The kernel answers at once; seconds after which something must be very wrong.
ANSWER_TIMEOUT = 5.0
#: The longest answer that is read, in bytes; the kernel sends none beyond 32 KiB.
_LONGEST_ANSWER = 1 << 16

# linux/netlink.h
_REQUEST, _ACKNOWLEDGE, _DUMP = 0x001, 0x004, 0x300
_CAPPED, _WITH_ATTRIBUTES = 0x100, 0x200
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_EXPLANATION = 1
# linux/err.h
_MAX_ERRNO = 4095
_KIND_MASK = 0x3FFF

# Integers are in the byte order and alignment of this machine.
_HEADER = struct.Struct("@IHHII")
_ATTRIBUTE = struct.Struct("@HH")
_CODE = struct.Struct("@i")
_ALIGNMENT = 4


class NetlinkError(Unavailable):
    """The kernel did not do what it was asked; `code` is its errno."""

    def __init__(self, code: int, explanation: str = "") -> None:
        super().__init__(explanation or os.strerror(code))
        self.code = code


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute: its length, `kind` and `value`, padded to 4 bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % _ALIGNMENT)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in `data`, kind and value. Raises: DecodeError when they do not fit into it."""
    position = 0
    while position < len(data):
        if len(data) - position < _ATTRIBUTE.size:
            raise DecodeError("a netlink attribute that is cut off")
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if not _ATTRIBUTE.size <= length <= len(data) - position:
            raise DecodeError("a netlink attribute of a length that its message has no room for")
        yield kind & _KIND_MASK, data[position + _ATTRIBUTE.size : position + length]
        position += length + -length % _ALIGNMENT


class NetlinkSocket:
    """A socket to one part of the kernel, of the network namespace that the calling thread is in.

    Not for use by several threads at a time. Every method but `close` raises: NetlinkError, TimedOut, DecodeError.
    """

    def __init__(self, family: int) -> None:
        """`family` as in linux/netlink.h. Raises: NetlinkError when the kernel has no such part."""
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        except OSError as error:
            raise NetlinkError(error.errno or 0) from None
        self._socket.settimeout(ANSWER_TIMEOUT)
        # What was asked, keys least of all, need not come back with a refusal; an explanation should.
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._numbers = itertools.count(1)

    def close(self) -> None:
        """Close it; may be called twice."""
        self._socket.close()

    def request(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Have something done; `flags` are those of linux/netlink.h that modify it."""
        for _answer in self._exchange(kind, _ACKNOWLEDGE | flags, body):
            pass

    def query(self, kind: int, body: bytes) -> bytes:
        """Ask for one thing: the body of the answer."""
        answer = next(self._exchange(kind, 0, body), None)
        if answer is None:
            raise DecodeError("the kernel answered nothing where it was asked for something")
        return answer

    def dump(self, kind: int, body: bytes = b"") -> list[bytes]:
        """Ask for all things of a kind: their bodies."""
        return list(self._exchange(kind, _DUMP, body))

    def _exchange(self, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        """Send a request: the bodies of the messages that answer it, up to the one that says they are complete."""
        number = next(self._numbers)
        header = _HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST, number, 0)
        self._send(header + body)
        while True:
            for answer, answer_flags, answered, content in _messages(self._receive()):
                if answered != number:
                    # What is left of a question whose answer was not read to its end.
                    continue
                if answer in (_ERROR, _DONE):
                    _check(content, answer_flags)
                    return
                yield content

    def _send(self, message: bytes) -> None:
        try:
            self._socket.sendto(message, (0, 0))
        except OSError as error:
            raise NetlinkError(error.errno or 0) from None

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_LONGEST_ANSWER)
        except TimeoutError:
            raise TimedOut(f"no answer from the kernel within {ANSWER_TIMEOUT:g} seconds") from None
        except OSError as error:
            raise NetlinkError(error.errno or 0) from None


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, number and body of each message in a datagram from the kernel. Raises: DecodeError."""
    position = 0
    while len(data) - position >= _HEADER.size:
        length, kind, flags, number, _port = _HEADER.unpack_from(data, position)
        if not _HEADER.size <= length <= len(data) - position:
            raise DecodeError("a netlink message that is cut off")
        yield kind, flags, number, data[position + _HEADER.size : position + length]
        position += length + -length % _ALIGNMENT


def _check(body: bytes, flags: int) -> None:
    """Raise the `NetlinkError` that the end of an answer reports, if it does."""
    if len(body) < _CODE.size:
        raise DecodeError("a netlink answer that is cut off")
    code = -_CODE.unpack_from(body)[0]
    if code <= 0:
        return
    if code > _MAX_ERRNO:
        raise DecodeError(f"the kernel reports error {code}, and there is none of that number")
    explanation = b""
    if flags & _CAPPED and flags & _WITH_ATTRIBUTES:
        explanation = dict(attributes(body[_CODE.size + _HEADER.size :])).get(_EXPLANATION, b"")
    raise NetlinkError(code, explanation.rstrip(b"\0").decode("ascii", "replace"))
