"""From records to what they carry: whole handshake messages, alerts, change_cipher_spec, application data.

Enforces how records may be cut and mixed (RFC 8446 section 5.1); knows nothing of turns.
"""

from __future__ import annotations

from locum.crypto.symmetric import Buffer
from locum.errors import DecodeError
from locum.tls.alerts import UnexpectedMessage
from locum.tls.messages import HEADER_LENGTH, maximum_length
from locum.tls.record import RecordReader
from locum.tls.registry import ContentType
from locum.values import dataclass


@dataclass(frozen=True, slots=True)
class HandshakeMessage:
    """One whole message; `raw` includes the header."""

    code: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class ChangeCipherSpecReceived:
    """A change_cipher_spec record."""


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert record; level and description as received."""

    level: int
    description: int


@dataclass(frozen=True, slots=True)
class ApplicationData:
    """The content of one application data record."""

    data: bytes


_HANDSHAKE = ContentType.HANDSHAKE
_CHANGE_CIPHER_SPEC = ChangeCipherSpecReceived()

Item = HandshakeMessage | ChangeCipherSpecReceived | Alert | ApplicationData


class Incoming:
    """Reads items one at a time, so that the key may change between any two of them."""

    def __init__(self) -> None:
        self.records = RecordReader()
        self._fragment = bytearray()

    def feed(self, data: Buffer) -> None:
        """Add bytes from the peer."""
        self.records.feed(data)

    @property
    def inside_message(self) -> bool:
        """True when part of a handshake message, or a further one, came under the current key."""
        return bool(self._fragment)

    def next(self) -> Item | None:
        """The next item, or None when more bytes are needed.

        Raises: DecodeError, Misbehaved.
        """
        while True:
            if self._fragment:
                message = self._whole_message()
                if message is not None:
                    return message
            record = self.records.next()
            if record is None:
                return None
            kind, content = record
            if kind != _HANDSHAKE:
                return self._other(kind, content)
            self._fragment += content

    def _whole_message(self) -> HandshakeMessage | None:
        if len(self._fragment) < HEADER_LENGTH:
            return None
        code, high, middle, low = self._fragment[:HEADER_LENGTH]
        length = high << 16 | middle << 8 | low
        if length > maximum_length(code):
            raise DecodeError(
                f"a handshake message of {length} bytes, at most {maximum_length(code)} are accepted"
            )
        end = HEADER_LENGTH + length
        if len(self._fragment) < end:
            return None
        raw = bytes(self._fragment[:end])
        del self._fragment[:end]
        return HandshakeMessage(code, raw)

    def _other(self, kind: int, content: bytes) -> Item:
        if kind == ContentType.ALERT:
            if len(content) != 2:
                raise DecodeError(f"an alert record of {len(content)} bytes")
            return Alert(content[0], content[1])
        if self._fragment:
            # RFC 8446 section 5.1: "Handshake messages MUST NOT be interleaved with other record types."
            raise UnexpectedMessage("another record inside a handshake message")
        if kind == ContentType.CHANGE_CIPHER_SPEC:
            if content != b"\x01":
                raise UnexpectedMessage("a change_cipher_spec that is not the single byte 1")
            return _CHANGE_CIPHER_SPEC
        if kind == ContentType.APPLICATION_DATA:
            return ApplicationData(content)
        raise UnexpectedMessage(f"a protected record of content type {kind}")
