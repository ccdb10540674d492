"""The p11-kit remote protocol, version 0, without I/O: frames cut from bytes, arguments read, results written.

Never knows what a call means. Frame: code, length of the options, length of the message (4 bytes each), options,
message. Message: call, its signature with a length of 4 bytes, arguments. All integers are big-endian.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from locum.edge.p11.registry import (
    BYTE_ATTRIBUTES,
    MECHANISM_LIST_ATTRIBUTE,
    NO_LENGTH,
    OAEP_MECHANISM,
    PSS_MECHANISMS,
    SIGNATURES,
    TEMPLATE_ATTRIBUTES,
    ULONG_ATTRIBUTES,
    Call,
)
from locum.errors import DecodeError
from locum.wire.cursor import Reader

#: The one version that every client speaks; those that know a later one come down to it.
VERSION = b"\0"
#: Longest options (the name of the module) and longest message that are accepted, in bytes.
MAX_OPTIONS = 1024
MAX_MESSAGE = 64 * 1024
#: Attributes in one template or one question, at most.
MAX_ATTRIBUTES = 64

_HEADER = Struct(">III")
HEADER_LENGTH = _HEADER.size
_ULONG = Struct(">Q").pack
_LENGTH = Struct(">I").pack
_PSS = Struct(">QQQ").unpack

#: What an attribute of a template is compared with; None for a value that no object here can have.
Value = int | bytes | None


class FrameReader:
    """Cuts what a client sends into messages."""

    __slots__ = ("_buffer", "_position")

    def __init__(self) -> None:
        self._buffer = b""
        self._position = 0

    def add(self, data: bytes) -> None:
        """Take what has come."""
        self._buffer = self._buffer[self._position :] + data if self._position < len(self._buffer) else data
        self._position = 0

    def next(self) -> tuple[int, bytes] | None:
        """The next frame that is complete: its code and its message; None when there is none.

        Raises: DecodeError for a frame that no client sends; nothing can be read after it.
        """
        buffer, position = self._buffer, self._position
        if len(buffer) - position < HEADER_LENGTH:
            return None
        code, options, length = _HEADER.unpack_from(buffer, position)
        if not code or options > MAX_OPTIONS or length > MAX_MESSAGE:
            raise DecodeError("not a frame of the p11-kit remote protocol")
        start = position + HEADER_LENGTH + options
        end = start + length
        if end > len(buffer):
            return None
        self._position = end
        return code, buffer[start:end]


class Arguments(Reader):
    """Reads the arguments of a call, in the shapes that the signatures name."""

    __slots__ = ()

    def ulong(self) -> int:
        """`u`: a CK_ULONG."""
        return int.from_bytes(self.block(8), "big")

    def raw(self) -> bytes | None:
        """A length and so many bytes; None for the absent value."""
        length = self.u32()
        return None if length == NO_LENGTH else self.block(length)

    def byte_array(self) -> bytes:
        """`ay`: bytes; the null pointer counts as none."""
        if not self.u8():
            self.u32()  # the length that the null pointer came with
            return b""
        return self.raw() or b""

    def room(self) -> int:
        """`fy`, `fu`: how much the caller has room for; 0 when it only asks for the length."""
        length = self.u32()
        return 0 if length == NO_LENGTH else length

    def mechanism(self) -> tuple[int, tuple[int, int, int]]:
        """`M`: the mechanism, and the parameters of PSS: hash, mask generation function, salt length in bytes."""
        mechanism = self.u32()
        if mechanism in PSS_MECHANISMS:
            return mechanism, _PSS(self.block(24))
        if mechanism == OAEP_MECHANISM:
            self.block(24)
        self.raw()
        return mechanism, (0, 0, 0)

    def template(self) -> list[tuple[int, Value]]:
        """`aA`: attributes that an object must have."""
        return [self._attribute() for _ in range(self._count())]

    def wanted(self) -> list[tuple[int, int]]:
        """`fA`: attributes that are asked for, each with the room for its value in bytes."""
        return [(self.u32(), self.room()) for _ in range(self._count())]

    def _count(self) -> int:
        count = self.u32()
        if count > MAX_ATTRIBUTES:
            raise DecodeError(f"{count} attributes at once")
        return count

    def _attribute(self) -> tuple[int, Value]:
        kind = self.u32()
        if not self.u8():
            return kind, None
        self.u32()  # the length in the caller's memory, which the value has again
        if kind in BYTE_ATTRIBUTES:
            return kind, self.u8()
        if kind in ULONG_ATTRIBUTES:
            return kind, self.ulong()
        if kind == MECHANISM_LIST_ATTRIBUTE:
            self.block(8 * self._count())
            return kind, None
        if kind in TEMPLATE_ATTRIBUTES:
            raise DecodeError("a template inside a template")
        return kind, self.raw() or b""


def parse_call(message: bytes) -> tuple[int, Arguments]:
    """The call of a message and a reader of its arguments. Raises: DecodeError."""
    arguments = Arguments(message)
    call = arguments.u32()
    arguments.raw()  # the signature: what follows is checked as it is read
    return call, arguments


# --- results ----------------------------------------------------------------------------------------------


def ulong(value: int) -> bytes:
    """`u`: a CK_ULONG."""
    return _ULONG(value)


def text(value: str, length: int) -> bytes:
    """`s`: a string of `length` bytes, filled up with spaces."""
    return _LENGTH(length) + value.encode()[:length].ljust(length)


def byte_array(data: bytes, room: int) -> bytes:
    """`ay`: `data` where there is room for it, else its length alone, which the client knows how to tell apart."""
    length = _LENGTH(len(data))
    return b"\1" + length + data if room >= len(data) and room else length_only(len(data))


def length_only(length: int) -> bytes:
    """`ay`, `au`: the length of a value that is not given, because it was not asked for or does not fit."""
    return b"\0" + _LENGTH(length)


def ulong_array(values: Sequence[int], room: int) -> bytes:
    """`au`: `values` where there is room for all of them, else their number alone."""
    if not room or room < len(values):
        return length_only(len(values))
    return b"\1" + _LENGTH(len(values)) + b"".join(map(_ULONG, values))


def attribute(kind: int, value: int | bytes, room: int) -> bytes:
    """One attribute of an `aA`: with its value where there is room for any, else with its length alone."""
    head = _LENGTH(kind) + b"\1"
    if isinstance(value, bytes):
        return head + _LENGTH(len(value)) + (_LENGTH(len(value)) + value if room else _LENGTH(NO_LENGTH))
    if kind in BYTE_ATTRIBUTES:
        return head + _LENGTH(1) + bytes((value if room else 0,))
    return head + _LENGTH(8) + _ULONG(value if room else 0)


def attribute_length(kind: int, value: int | bytes) -> int:
    """Bytes that the value takes in the caller's memory."""
    return len(value) if isinstance(value, bytes) else 1 if kind in BYTE_ATTRIBUTES else 8


def no_attribute(kind: int) -> bytes:
    """One attribute of an `aA` that the object does not have or does not show."""
    return _LENGTH(kind) + b"\0"


def attributes(items: Sequence[bytes], rv: int) -> bytes:
    """`aAu`: attributes and the CK_RV that goes with them."""
    return _LENGTH(len(items)) + b"".join(items) + _ULONG(rv)


_HEADS = {
    call: _LENGTH(call) + _LENGTH(len(SIGNATURES.get(call, b""))) + SIGNATURES.get(call, b"") for call in Call
}
_ERROR_HEAD = _LENGTH(0) + _LENGTH(1) + b"u"


def answer(code: int, call: Call, results: bytes) -> bytes:
    """The frame that answers the frame `code` with the results of `call`."""
    head = _HEADS[call]
    return b"".join((_HEADER.pack(code, 0, len(head) + len(results)), head, results))


def failure(code: int, rv: int) -> bytes:
    """The frame that answers the frame `code` with a CK_RV other than CKR_OK."""
    return _HEADER.pack(code, 0, len(_ERROR_HEAD) + 8) + _ERROR_HEAD + _ULONG(rv)
