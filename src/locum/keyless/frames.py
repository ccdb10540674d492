"""Frames of the keyless protocol: a header, and a body of tagged items; read from a stream, and written (X5).

Never knows what an operation means, nor does anything with it.
"""

from __future__ import annotations

from dataclasses import field
from struct import Struct

from locum.errors import DecodeError
from locum.keyless.registry import (
    DIGEST_LENGTH,
    HEADER_LENGTH,
    MAJOR_VERSION,
    MAX_BODY,
    MAX_FUNCTION,
    MAX_REASON,
    MAX_SERVER_NAME,
    MINOR_VERSION,
    SKI_LENGTH,
    ErrorCode,
    Opcode,
    Tag,
)
from locum.values import dataclass

_HEADER = Struct(">BBHI")
_ITEM = Struct(">BH")
#: The layout that this package writes: opcode, SKI, payload (or function, payload). Reading it takes one call.
_KEYED = Struct(">BBHIBHBBH20sBH")
_KEYED_BODY = _KEYED.size - HEADER_LENGTH
#: The same of an answer: opcode, payload.
_PLAIN = Struct(">BBHIBHBBH")
_PLAIN_BODY = _PLAIN.size - HEADER_LENGTH

_OPCODE, _SKI, _PAYLOAD, _FUNCTION = int(Tag.OPCODE), int(Tag.SKI), int(Tag.PAYLOAD), int(Tag.FUNCTION)
_RESPONSE, _PONG, _ERROR = int(Opcode.RESPONSE), int(Opcode.PONG), int(Opcode.ERROR)


@dataclass(frozen=True, slots=True)
class KeyReference:
    """Which key is meant: by its SKI (20 bytes), by its digest (32 bytes), or by a server name; the first that is
    there counts.
    """

    ski: bytes = b""
    digest: bytes = b""
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. Items that are not there are empty.

    With the opcode `MALFORMED` the header could be read and the body could not; `extra` then says why.
    """

    id: int
    opcode: int
    payload: bytes = field(default=b"", repr=False)
    ski: bytes = b""
    digest: bytes = b""
    server_name: bytes = b""
    function: bytes = b""
    extra: bytes = b""

    @property
    def reference(self) -> KeyReference:
        """The key that is meant. Raises: DecodeError for a server name that is none."""
        try:
            return KeyReference(self.ski, self.digest, self.server_name.decode("ascii").lower())
        except UnicodeDecodeError:
            raise DecodeError("a server name that is not ASCII") from None


class FrameReader:
    """The frames of a stream, however it is cut. What it keeps never exceeds one frame.

    `fault` is None until the stream cannot be followed any further: another version, or a body longer than
    `max_body` bytes. What came before that has been returned.
    """

    __slots__ = ("_kept", "_length", "_max_body", "_wanted", "fault")

    def __init__(self, *, max_body: int = MAX_BODY) -> None:
        self._max_body = max_body
        self._kept: list[bytes] = []
        self._length = 0
        self._wanted = HEADER_LENGTH
        self.fault: RejectedStream | None = None

    @property
    def pending(self) -> int:
        """Bytes of a frame that has begun and is not complete."""
        return self._length

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes as they arrived; returns the frames that they complete. Raises: DecodeError after a fault."""
        return [parse_frame(frame) for frame in self.cut(data)]

    def cut(self, data: bytes) -> list[bytes]:
        """As `feed`, for those who look into a frame later, if at all: headers are checked, bodies are not."""
        if self.fault is not None:
            raise self.fault
        if self._length:
            self._kept.append(data)
            self._length += len(data)
            if self._length < self._wanted:
                return []
            data = b"".join(self._kept)
            self._kept.clear()
        frames: list[bytes] = []
        position = self._split(data, frames)
        self._length = len(data) - position
        if self._length:
            self._kept.append(data[position:])
        return frames

    def _split(self, data: bytes, frames: list[bytes]) -> int:
        """Append the frames of `data`; returns where the first incomplete one begins."""
        position, end = 0, len(data)
        while end - position >= HEADER_LENGTH:
            major, minor, length, number = _HEADER.unpack_from(data, position)
            if major != MAJOR_VERSION or length > self._max_body:
                self.fault = _rejection(major, minor, length, number)
                return end
            after = position + HEADER_LENGTH + length
            if after > end:
                self._wanted = after - position
                return position
            frames.append(data[position:after])
            position = after
        self._wanted = HEADER_LENGTH
        return position


class RejectedStream(DecodeError):
    """A stream whose frames cannot be told apart any more; `id` and `code` are for a last answer."""

    def __init__(self, code: ErrorCode, number: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.id = number


def _rejection(major: int, minor: int, length: int, number: int) -> RejectedStream:
    if major != MAJOR_VERSION:
        return RejectedStream(
            ErrorCode.VERSION_MISMATCH, number, f"version {major}.{minor} of the keyless protocol"
        )
    return RejectedStream(ErrorCode.FORMAT, number, f"a message of {length} bytes")


def parse_frame(data: bytes) -> Frame:
    """The frame that `data` is, with a header that has been checked."""
    end = len(data)
    body = end - HEADER_LENGTH
    if body >= _KEYED_BODY:
        _, _, _, number, tag1, length1, opcode, tag2, length2, ski, tag3, length3 = _KEYED.unpack_from(data)
        if tag1 == _OPCODE and length1 == 1 and tag2 == _SKI and length2 == SKI_LENGTH:
            rest = body - _KEYED_BODY - length3
            if tag3 == _PAYLOAD and rest == 0:
                return Frame(number, opcode, data[_KEYED.size :], ski)
            if tag3 == _FUNCTION and rest >= _ITEM.size and length3 <= MAX_FUNCTION:
                tag4, length4 = _ITEM.unpack_from(data, end - rest)
                if tag4 == _PAYLOAD and length4 == rest - _ITEM.size:
                    begin = end - rest
                    function = data[begin - length3 : begin]
                    return Frame(number, opcode, data[end - length4 : end], ski, b"", b"", function)
    if body >= _PLAIN_BODY:
        _, _, _, number, tag1, length1, opcode, tag2, length2 = _PLAIN.unpack_from(data)
        if tag2 == _PAYLOAD and length2 == body - _PLAIN_BODY and tag1 == _OPCODE and length1 == 1:
            return Frame(number, opcode, data[_PLAIN.size :])
    return _parse_items(data, _HEADER.unpack_from(data)[3])


def _parse_items(data: bytes, number: int) -> Frame:
    """As `parse_frame`, of items in any order; an item of a known kind comes once."""
    items: dict[int, bytes] = {}
    position, end = HEADER_LENGTH, len(data)
    while position < end:
        if end - position < _ITEM.size:
            return _malformed(number, "an item that is cut off")
        tag, length = _ITEM.unpack_from(data, position)
        position += _ITEM.size
        if position + length > end:
            return _malformed(number, f"an item {tag:02x} longer than the message")
        limits = _LENGTHS.get(tag)
        if limits is not None:
            if tag in items:
                return _malformed(number, f"two items {tag:02x}")
            if not limits[0] <= length <= limits[1]:
                return _malformed(number, f"an item {tag:02x} of {length} bytes")
            items[tag] = data[position : position + length]
        position += length
    opcode = items.get(_OPCODE)
    if not opcode:
        return _malformed(number, "no opcode")
    if opcode[0] == Opcode.MALFORMED:
        return _malformed(number, "the opcode 00")
    get = items.get
    return Frame(
        number,
        opcode[0],
        get(_PAYLOAD, b""),
        get(_SKI, b""),
        get(Tag.DIGEST, b""),
        get(Tag.SERVER_NAME, b""),
        get(_FUNCTION, b""),
        get(Tag.EXTRA, b""),
    )


def _malformed(number: int, reason: str) -> Frame:
    return Frame(number, Opcode.MALFORMED, extra=reason.encode())


#: The shortest and the longest that an item may be, in bytes. What is not here is ignored, whatever its length.
_LENGTHS: dict[int, tuple[int, int]] = {
    Tag.DIGEST: (DIGEST_LENGTH, DIGEST_LENGTH),
    Tag.SERVER_NAME: (0, MAX_SERVER_NAME),
    Tag.SKI: (SKI_LENGTH, SKI_LENGTH),
    Tag.OPCODE: (1, 1),
    Tag.PAYLOAD: (0, MAX_BODY),
    Tag.FUNCTION: (0, MAX_FUNCTION),
    Tag.EXTRA: (0, MAX_BODY),
}


# --- writing ----------------------------------------------------------------------------------------------


def encode_frame(frame: Frame) -> bytes:
    """Write a frame; its items come in the order in which they are read fastest.

    Raises: ValueError when the body is longer than `MAX_BODY` bytes.
    """
    payload, ski = frame.payload, frame.ski
    if ski and not (frame.digest or frame.server_name or frame.extra):
        return _encode_keyed(frame.id, frame.opcode, ski, frame.function, payload)
    parts = [_ITEM.pack(_OPCODE, 1), bytes((frame.opcode,))]
    for tag, item in (
        (_SKI, ski),
        (Tag.DIGEST, frame.digest),
        (Tag.SERVER_NAME, frame.server_name),
        (_FUNCTION, frame.function),
        (_PAYLOAD, payload),
        (Tag.EXTRA, frame.extra),
    ):
        if item:
            if len(item) > MAX_BODY:
                raise _too_long(len(item))
            parts += (_ITEM.pack(tag, len(item)), item)
    body = b"".join(parts)
    if len(body) > MAX_BODY:
        raise _too_long(len(body))
    return _HEADER.pack(MAJOR_VERSION, MINOR_VERSION, len(body), frame.id) + body


def _encode_keyed(number: int, opcode: int, ski: bytes, function: bytes, payload: bytes) -> bytes:
    """The frame of an operation on a key that goes by its SKI."""
    third = _PAYLOAD
    length = len(payload)
    body = _KEYED_BODY + length
    rest = payload
    if function:
        third, length = _FUNCTION, len(function)
        body += _ITEM.size + length
        if body <= MAX_BODY:
            rest = b"".join((function, _ITEM.pack(_PAYLOAD, len(payload)), payload))
    if body > MAX_BODY:
        raise _too_long(body)
    head = _KEYED.pack(
        MAJOR_VERSION, MINOR_VERSION, body, number, _OPCODE, 1, opcode, _SKI, SKI_LENGTH, ski, third, length
    )
    return head + rest


def encode_response(number: int, payload: bytes) -> bytes:
    """The answer to request `number` that it was performed. Raises: ValueError for a payload too long."""
    return _plain(number, _RESPONSE, payload)


def encode_pong(number: int, payload: bytes) -> bytes:
    """The answer to a ping, which brings back its payload."""
    return _plain(number, _PONG, payload)


def encode_error(number: int, code: int, reason: str = "") -> bytes:
    """The answer to request `number` that it was not performed; a longer reason is cut to `MAX_REASON` bytes."""
    extra = reason.encode(errors="replace")[:MAX_REASON]
    return encode_frame(Frame(number, _ERROR, bytes((code,)), extra=extra))


def _plain(number: int, opcode: int, payload: bytes) -> bytes:
    length = len(payload)
    if length > MAX_BODY - _PLAIN_BODY:
        raise _too_long(length)
    body = _PLAIN_BODY + length
    return _PLAIN.pack(MAJOR_VERSION, MINOR_VERSION, body, number, _OPCODE, 1, opcode, _PAYLOAD, length) + payload


def _too_long(length: int) -> ValueError:
    return ValueError(f"{length} bytes do not fit a message of the keyless protocol")
