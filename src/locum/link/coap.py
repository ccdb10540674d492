"""CoAP messages: codes, options, and their form in a datagram (RFC 7252) and on a stream (RFC 8323).

Never knows what a message is for, nor any key, socket or clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, IntEnum
from typing import NamedTuple

from locum.errors import DecodeError

#: Options in one message; more than any request or response of ours or of a sensible peer has.
MAXIMUM_OPTIONS = 32
#: Bytes of a token (RFC 7252 section 3).
MAXIMUM_TOKEN = 8
#: The largest option number (RFC 7252 section 12.2).
MAXIMUM_OPTION_NUMBER = 0xFFFF
#: Bytes of a body put together from blocks, and so of any payload: 64 KiB.
MAXIMUM_BODY = 1 << 16
#: Bytes of one message on a stream from its code on: a whole body and everything around it.
MAXIMUM_STREAM_MESSAGE = MAXIMUM_BODY + 1024
#: What a peer on a stream takes before it has said so (RFC 8323 section 5.3.1).
BASE_STREAM_MESSAGE = 1152

_PAYLOAD_MARKER = 0xFF
_VERSION = 1
_HEADER = 4


class Framing(Enum):
    """How messages are cut out of the bytes that arrive: one per datagram, or preceded by a length."""

    DATAGRAM = "datagram"
    STREAM = "stream"


class Type(IntEnum):
    """Message types of a datagram (RFC 7252 section 3)."""

    CONFIRMABLE = 0
    NON_CONFIRMABLE = 1
    ACKNOWLEDGEMENT = 2
    RESET = 3


class Code(IntEnum):
    """Method, response and signalling codes, class in the upper three bits (RFC 7252 section 12.1)."""

    EMPTY = 0x00
    GET = 0x01
    POST = 0x02
    FETCH = 0x05
    CREATED = 0x41
    DELETED = 0x42
    VALID = 0x43
    CHANGED = 0x44
    CONTENT = 0x45
    CONTINUE = 0x5F
    BAD_REQUEST = 0x80
    UNAUTHORIZED = 0x81
    BAD_OPTION = 0x82
    FORBIDDEN = 0x83
    NOT_FOUND = 0x84
    METHOD_NOT_ALLOWED = 0x85
    REQUEST_ENTITY_INCOMPLETE = 0x88
    REQUEST_ENTITY_TOO_LARGE = 0x8D
    TOO_MANY_REQUESTS = 0x9D
    INTERNAL_SERVER_ERROR = 0xA0
    SERVICE_UNAVAILABLE = 0xA3
    CSM = 0xE1
    PING = 0xE2
    PONG = 0xE3
    RELEASE = 0xE4
    ABORT = 0xE5


class OptionNumber(IntEnum):
    """Option numbers that are understood here; odd ones are critical (RFC 7252 section 5.4.6)."""

    URI_HOST = 3
    ETAG = 4
    URI_PORT = 7
    OSCORE = 9
    URI_PATH = 11
    URI_QUERY = 15
    BLOCK2 = 23
    BLOCK1 = 27
    SIZE2 = 28
    SIZE1 = 60
    ECHO = 252
    REQUEST_TAG = 292


class SignalOption(IntEnum):
    """Option numbers of signalling messages; each code has a number space of its own (RFC 8323 section 5)."""

    CSM_MAX_MESSAGE_SIZE = 2
    CSM_BLOCK_WISE_TRANSFER = 4


class OptionRule(NamedTuple):
    """What is acceptable of one option: lengths in bytes, and whether it may come more than once."""

    minimum: int
    maximum: int
    repeatable: bool = False


Option = tuple[int, bytes]
Options = tuple[Option, ...]

#: Options of requests and responses as a whole (RFC 7252 table 4, 7959 table 1, 9175 table 1).
RULES: dict[int, OptionRule] = {
    OptionNumber.URI_HOST: OptionRule(1, 255),
    OptionNumber.ETAG: OptionRule(1, 8),
    OptionNumber.URI_PORT: OptionRule(0, 2),
    OptionNumber.URI_PATH: OptionRule(0, 255, True),
    OptionNumber.URI_QUERY: OptionRule(0, 255, True),
    OptionNumber.BLOCK2: OptionRule(0, 3),
    OptionNumber.BLOCK1: OptionRule(0, 3),
    OptionNumber.SIZE2: OptionRule(0, 4),
    OptionNumber.SIZE1: OptionRule(0, 4),
    OptionNumber.ECHO: OptionRule(1, 40),
    OptionNumber.REQUEST_TAG: OptionRule(0, 8),
}
#: Options outside of the protection of OSCORE. Those that belong inside are discarded (RFC 8613 section 8.2
#: step 1); outer blocks would need reassembly of what nobody has authenticated, and are refused.
OUTER_RULES: dict[int, OptionRule] = {
    OptionNumber.URI_HOST: OptionRule(1, 255),
    OptionNumber.URI_PORT: OptionRule(0, 2),
    OptionNumber.URI_PATH: OptionRule(0, 255, True),
    OptionNumber.URI_QUERY: OptionRule(0, 255, True),
    OptionNumber.OSCORE: OptionRule(0, 255),
}


_CSM_RULES: dict[int, OptionRule] = {
    SignalOption.CSM_MAX_MESSAGE_SIZE: OptionRule(0, 4),
    SignalOption.CSM_BLOCK_WISE_TRANSFER: OptionRule(0, 0),
}


class UnacceptableOption(DecodeError):
    """A critical option that is not understood, has a wrong length, or comes too often."""


def recognise(options: Iterable[Option], rules: Mapping[int, OptionRule]) -> dict[int, list[bytes]]:
    """Sort `options` by number, leaving out the elective ones that `rules` do not admit.

    An option of a wrong length, or repeated where it may not be, counts as not understood
    (RFC 7252 sections 5.4.1, 5.4.3 and 5.4.5). Raises: UnacceptableOption for a critical one.
    """
    known: dict[int, list[bytes]] = {}
    for number, value in options:
        rule = rules.get(number)
        if rule is not None and rule.minimum <= len(value) <= rule.maximum:
            values = known.get(number)
            if values is None:
                known[number] = [value]
                continue
            if rule.repeatable:
                values.append(value)
                continue
        if number & 1:
            raise UnacceptableOption(f"critical option {number} is not acceptable here")
    return known


def uint(value: int) -> bytes:
    """An option value of format uint: the fewest bytes, none for zero (RFC 7252 section 3.2)."""
    return value.to_bytes((value.bit_length() + 7) >> 3, "big")


class Message(NamedTuple):
    """One message. `options` are in ascending order of their numbers.

    `type` and `message_id` exist in datagrams only. A named tuple, because one is made for every message
    that a delegate receives.
    """

    code: int
    token: bytes = b""
    options: Options = ()
    payload: bytes = b""
    type: int = Type.CONFIRMABLE
    message_id: int = 0

    @classmethod
    def parse_datagram(cls, data: bytes) -> Message:
        """Parse one datagram (RFC 7252 section 3). Raises: DecodeError."""
        if len(data) < _HEADER:
            raise DecodeError(f"datagram of {len(data)} bytes")
        first = data[0]
        if first >> 6 != _VERSION:
            raise DecodeError(f"CoAP version {first >> 6}")
        code = data[1]
        message_id = data[2] << 8 | data[3]
        if code == Code.EMPTY:
            # "the bytes after the Message ID field MUST NOT be present" (RFC 7252 section 4.1)
            if len(data) != _HEADER or first & 0x0F:
                raise DecodeError("empty message with content")
            return cls(0, b"", (), b"", first >> 4 & 3, message_id)
        position = _HEADER + (first & 0x0F)
        if first & 0x0F > MAXIMUM_TOKEN or position > len(data):
            raise DecodeError("token length out of range")
        options, payload = _parse_options(data, position)
        return cls(code, data[_HEADER:position], options, payload, first >> 4 & 3, message_id)

    def write_datagram(self) -> bytes:
        """The datagram of this message."""
        header = bytes(
            (
                _VERSION << 6 | self.type << 4 | len(self.token),
                self.code,
                self.message_id >> 8,
                self.message_id & 255,
            )
        )
        return header + self.token + _write_options(self.options, self.payload)

    @classmethod
    def parse_stream(cls, data: bytes) -> Message:
        """Parse one message as `StreamReader` cut it out (RFC 8323 section 3.2). Raises: DecodeError."""
        token_length = data[0] & 0x0F
        position = 1 + _LENGTH_BYTES.get(data[0] >> 4, 0)
        code = data[position]
        start = position + 1
        position = start + token_length
        options, payload = _parse_options(data, position)
        return cls(code, data[start:position], options, payload)

    def write_stream(self) -> bytes:
        """The bytes of this message on a stream, its length first."""
        body = _write_options(self.options, self.payload)
        length = len(body)
        if length < 13:
            prefix = bytes((length << 4 | len(self.token),))
        elif length < 269:
            prefix = bytes((13 << 4 | len(self.token), length - 13))
        elif length < 65805:
            prefix = bytes((14 << 4 | len(self.token),)) + (length - 269).to_bytes(2, "big")
        else:
            prefix = bytes((15 << 4 | len(self.token),)) + (length - 65805).to_bytes(4, "big")
        return prefix + bytes((self.code,)) + self.token + body

    @classmethod
    def parse_plaintext(cls, data: bytes) -> Message:
        """Parse what OSCORE protects: code, options, payload (RFC 8613 section 5.3). Raises: DecodeError."""
        if not data:
            raise DecodeError("nothing was protected")
        options, payload = _parse_options(data, 1)
        return cls(data[0], b"", options, payload)

    def write_plaintext(self) -> bytes:
        """What OSCORE protects of this message."""
        return bytes((self.code,)) + _write_options(self.options, self.payload)


def capabilities() -> bytes:
    """The CSM that opens a stream: a whole body goes in one message (RFC 8323 section 5.3)."""
    size = (int(SignalOption.CSM_MAX_MESSAGE_SIZE), uint(MAXIMUM_STREAM_MESSAGE))
    return Message(Code.CSM, b"", (size,)).write_stream()


def maximum_message_size(message: Message) -> int | None:
    """The Max-Message-Size of a CSM, None in any other signalling message or where a CSM does not say.

    Raises: UnacceptableOption, at which the connection must end (RFC 8323 section 5.3).
    """
    if message.code != Code.CSM:
        recognise(message.options, {})
        return None
    values = recognise(message.options, _CSM_RULES).get(SignalOption.CSM_MAX_MESSAGE_SIZE)
    return None if values is None else int.from_bytes(values[0], "big")


def reset_for(data: bytes) -> bytes | None:
    """The Reset that answers a confirmable message which could not be parsed; None where silence is the answer.

    RFC 7252 section 4.2; messages of another version are silently ignored (section 3).
    """
    if len(data) < _HEADER or data[0] >> 4 != _VERSION << 2 | Type.CONFIRMABLE:
        return None
    return bytes((_VERSION << 6 | Type.RESET << 4, 0)) + data[2:4]


def empty(kind: Type, message_id: int) -> bytes:
    """An empty message: an acknowledgement, a reset, or (confirmable) a ping."""
    return bytes((_VERSION << 6 | kind << 4, 0, message_id >> 8, message_id & 255))


def _parse_options(data: bytes, position: int) -> tuple[Options, bytes]:
    """Options in delta encoding and the payload after them (RFC 7252 section 3.1)."""
    end = len(data)
    options: list[Option] = []
    number = 0
    while position < end:
        head = data[position]
        position += 1
        if head == _PAYLOAD_MARKER:
            if position == end:
                raise DecodeError("payload marker without payload")
            return tuple(options), data[position:]
        delta = head >> 4
        length = head & 0x0F
        if delta > 12:
            delta, position = _parse_extended(data, position, delta)
        if length > 12:
            length, position = _parse_extended(data, position, length)
        number += delta
        stop = position + length
        if stop > end:
            raise DecodeError(f"option {number} is cut off")
        if number > MAXIMUM_OPTION_NUMBER or len(options) == MAXIMUM_OPTIONS:
            raise DecodeError("too many options, or a number out of range")
        options.append((number, data[position:stop]))
        position = stop
    return tuple(options), b""


def _parse_extended(data: bytes, position: int, nibble: int) -> tuple[int, int]:
    size = nibble - 12
    stop = position + size
    if size == 3 or stop > len(data):
        raise DecodeError("reserved or cut off option header")
    return int.from_bytes(data[position:stop], "big") + (13 if size == 1 else 269), stop


def _write_options(options: Options, payload: bytes) -> bytes:
    buffer = bytearray()
    previous = 0
    for number, value in options:
        delta = number - previous
        if delta < 0:
            raise ValueError("options out of order")
        previous = number
        length = len(value)
        if delta < 13 and length < 13:
            buffer.append(delta << 4 | length)
        else:
            nibble, extension = _write_extended(delta)
            second, more = _write_extended(length)
            buffer.append(nibble << 4 | second)
            buffer += extension + more
        buffer += value
    if payload:
        buffer.append(_PAYLOAD_MARKER)
        buffer += payload
    return bytes(buffer)


def _write_extended(value: int) -> tuple[int, bytes]:
    if value < 13:
        return value, b""
    if value < 269:
        return 13, bytes((value - 13,))
    return 14, (value - 269).to_bytes(2, "big")


#: Bytes of the extended length by the value of the length nibble (RFC 8323 section 3.2).
_LENGTH_BYTES = {13: 1, 14: 2, 15: 4}
_LENGTH_OFFSET = {13: 13, 14: 269, 15: 65805}


class StreamReader:
    """Cuts messages out of a stream (RFC 8323 section 3.2), holding at most one unfinished one."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take bytes as they arrived."""
        self._buffer += data

    def next(self) -> Message | None:
        """The next whole message, or None until more bytes arrive.

        Raises: DecodeError when the stream cannot be read any further: a message that is malformed or larger
        than `MAXIMUM_STREAM_MESSAGE`, which is known, and refused, from its first bytes.
        """
        buffer = self._buffer
        if not buffer:
            return None
        nibble = buffer[0] >> 4
        token_length = buffer[0] & 0x0F
        if token_length > MAXIMUM_TOKEN:
            raise DecodeError("token length out of range")
        extension = _LENGTH_BYTES.get(nibble, 0)
        if len(buffer) < 1 + extension:
            return None
        length = nibble
        if extension:
            length = int.from_bytes(buffer[1 : 1 + extension], "big") + _LENGTH_OFFSET[nibble]
        if length > MAXIMUM_STREAM_MESSAGE:
            raise DecodeError(f"message of {length} bytes, more than {MAXIMUM_STREAM_MESSAGE}")
        total = 2 + extension + token_length + length
        if len(buffer) < total:
            return None
        data = bytes(buffer[:total])
        del buffer[:total]
        return Message.parse_stream(data)
