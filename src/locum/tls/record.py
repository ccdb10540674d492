"""The record layer: fragments in, content out, and the other way (RFC 8446 section 5, RFC 5246 section 6.2).

Knows keys and sequence numbers, but no handshake message. Nothing here performs I/O.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

from cryptography.exceptions import InvalidTag

from locum.crypto.symmetric import Buffer
from locum.errors import DecodeError
from locum.tls.alerts import BadRecordMac, RecordOverflow, UnexpectedMessage
from locum.tls.registry import CipherSuite, ContentType, ProtocolVersion

HEADER_LENGTH = 5

#: The most content that one record carries, in bytes (RFC 8446 section 5.1).
MAX_PLAINTEXT = 1 << 14

#: How much longer than its content a protected record may be (RFC 8446 section 5.2, RFC 5246 section 6.2.3).
_MAX_EXPANSION_13 = 256
_MAX_EXPANSION_12 = 2048

#: After so many records under one key TLS 1.3 updates it: safely below 2^24.5 for AES-GCM and 2^23 for CCM
#: (RFC 8446 section 5.5).
REKEY_AFTER = 1 << 22

#: Empty records in a row that are tolerated before the peer is taken to be idling us to death.
MAX_EMPTY_RECORDS = 32

_CONTENT_TYPES = frozenset(ContentType)
_APPLICATION_DATA, _CHANGE_CIPHER_SPEC, _ALERT = map(
    int, (ContentType.APPLICATION_DATA, ContentType.CHANGE_CIPHER_SPEC, ContentType.ALERT)
)
_TLS_1_2, _TLS_1_3 = ProtocolVersion.TLS_1_2, ProtocolVersion.TLS_1_3
_VERSION_BYTES = b"\x03\x03"
_FIRST_VERSION_BYTES = b"\x03\x01"


class Protection(Protocol):
    """One direction's key: seals and opens whole records, counting them."""

    sequence: int
    tag_length: int

    def seal(self, content_type: int, content: Buffer) -> bytearray:
        """A whole record, header included, around `content` (at most 2^14 bytes)."""
        ...

    def open(self, header: bytes, body: memoryview) -> tuple[int, bytes]:
        """Content type and content of a record; BadRecordMac when it was not sealed by the peer."""
        ...


@cache
def _tails(tag_length: int) -> dict[int, bytes]:
    """What stands behind the content, by its type: that type, and room for the tag."""
    return {int(code): bytes((code,)) + bytes(tag_length) for code in ContentType}


class Protection13:
    """TLS 1.3: the content type is inside, the nonce is IV xor sequence number (RFC 8446 sections 5.2, 5.3)."""

    __slots__ = ("_iv", "_key", "_tail", "sequence", "tag_length")

    def __init__(self, suite: CipherSuite, key: bytes, iv: bytes) -> None:
        self._key = suite.aead.new(key)
        self._iv = int.from_bytes(iv, "big")
        self.tag_length = suite.aead.tag_length
        self._tail = _tails(self.tag_length)
        self.sequence = 0

    def seal(self, content_type: int, content: Buffer) -> bytearray:
        inner = len(content) + 1
        header = b"\x17\x03\x03" + (inner + self.tag_length).to_bytes(2, "big")
        record = bytearray().join((header, content, self._tail[content_type]))
        nonce = (self._iv ^ self.sequence).to_bytes(12, "big")
        with memoryview(record) as view:
            self._key.seal_into(nonce, view[5 : 5 + inner], header, view[5:])
        self.sequence += 1
        return record

    def open(self, header: bytes, body: memoryview) -> tuple[int, bytes]:
        if header[0] != _APPLICATION_DATA:
            raise UnexpectedMessage("an unprotected record where a protected one is due")
        if len(body) < self.tag_length + 1:
            raise BadRecordMac("a protected record shorter than its tag")
        nonce = (self._iv ^ self.sequence).to_bytes(12, "big")
        inner = bytearray(len(body) - self.tag_length)
        try:
            self._key.open_into(nonce, body, header, inner)
        except InvalidTag:
            raise BadRecordMac("a record does not authenticate") from None
        self.sequence += 1
        end = len(inner)
        if end > MAX_PLAINTEXT + 1:
            # RFC 8446 section 5.4: padding does not make a record any longer.
            raise RecordOverflow(f"{end - 1} bytes of content and padding in one record")
        if not inner[-1]:
            end = len(inner.rstrip(b"\0"))
            if not end:
                raise UnexpectedMessage("a protected record without content type")
        if inner[end - 1] == _CHANGE_CIPHER_SPEC:
            # RFC 8446 section 5: it is never protected, and dropped only where it is not.
            raise UnexpectedMessage("a protected change_cipher_spec")
        return inner[end - 1], bytes(memoryview(inner)[: end - 1])


class Protection12:
    """TLS 1.2 AEAD: explicit nonce for GCM and CCM (RFC 5288), IV xor sequence for ChaCha20 (RFC 7905)."""

    __slots__ = ("_explicit", "_iv", "_key", "sequence", "tag_length")

    def __init__(self, suite: CipherSuite, key: bytes, iv: bytes) -> None:
        self._key = suite.aead.new(key)
        self._iv = iv
        self.tag_length = suite.aead.tag_length
        self._explicit = 12 - suite.implicit_nonce
        self.sequence = 0

    def _nonce(self, explicit: bytes) -> bytes:
        if self._explicit:
            return self._iv + explicit
        return (int.from_bytes(self._iv, "big") ^ self.sequence).to_bytes(12, "big")

    def seal(self, content_type: int, content: Buffer) -> bytearray:
        length, number = len(content), self.sequence.to_bytes(8, "big")
        start = 5 + self._explicit
        head = bytes((content_type,)) + _VERSION_BYTES
        total = self._explicit + length + self.tag_length
        explicit = number[: self._explicit]
        record = bytearray().join((head, total.to_bytes(2, "big"), explicit, content, bytes(self.tag_length)))
        associated = number + head + length.to_bytes(2, "big")
        with memoryview(record) as view:
            self._key.seal_into(self._nonce(explicit), view[start : start + length], associated, view[start:])
        self.sequence += 1
        return record

    def open(self, header: bytes, body: memoryview) -> tuple[int, bytes]:
        length = len(body) - self._explicit - self.tag_length
        if length < 0:
            raise BadRecordMac("a protected record shorter than its nonce and tag")
        nonce = self._nonce(bytes(body[: self._explicit]))
        associated = self.sequence.to_bytes(8, "big") + header[:3] + length.to_bytes(2, "big")
        content = bytearray(length)
        try:
            self._key.open_into(nonce, body[self._explicit :], associated, content)
        except InvalidTag:
            raise BadRecordMac("a record does not authenticate") from None
        self.sequence += 1
        return header[0], bytes(content)


def protection(suite: CipherSuite, key: bytes, iv: bytes) -> Protection:
    """The protection that `suite` stands for, with sequence number 0."""
    kind = Protection13 if suite.version is _TLS_1_3 else Protection12
    return kind(suite, key, iv)


class RecordWriter:
    """Cuts content into records, protects them when there is a key, and collects them for sending."""

    def __init__(self, *, begins: bool = True) -> None:
        self._out: list[bytes | bytearray] = []
        self._first = begins
        self.protection: Protection | None = None
        #: the most content a record may carry; the peer can lower it (RFC 8449)
        self.limit = MAX_PLAINTEXT

    def write(self, content_type: ContentType, content: Buffer) -> None:
        """Queue `content`, in as many records as it needs; empty application data makes no record."""
        with memoryview(content) as view:
            length = len(view)
            if 0 < length <= self.limit:
                self._write_one(content_type, view)
                return
            for start in range(0, length, self.limit):
                self._write_one(content_type, view[start : start + self.limit])

    def _write_one(self, content_type: ContentType, content: memoryview) -> None:
        if self.protection is not None:
            self._out.append(self.protection.seal(content_type, content))
            return
        # RFC 8446 section 5.1: 0x0301 in the first ClientHello's record, for the sake of old middleboxes.
        version = _FIRST_VERSION_BYTES if self._first else _VERSION_BYTES
        self._first = False
        self._out.append(b"".join((bytes((content_type,)), version, len(content).to_bytes(2, "big"), content)))

    def write_unprotected(self, content_type: ContentType, content: bytes) -> None:
        """Queue one record in clear whatever the key: TLS 1.3's dummy change_cipher_spec."""
        self._out.append(bytes((content_type,)) + _VERSION_BYTES + len(content).to_bytes(2, "big") + content)

    @property
    def pending(self) -> bool:
        """True when there is something to send."""
        return bool(self._out)

    def take(self) -> bytes | bytearray:
        """Everything queued since the last call."""
        out, self._out = self._out, []
        if len(out) == 1:
            return out[0]
        return b"".join(out)


class RecordReader:
    """Finds records in a byte stream and opens them when there is a key.

    Holds at most one incomplete record and what one call to `feed` brought.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0
        self._empty = 0
        self.protection: Protection | None = None
        #: the most that a record's plaintext may have, content type included in TLS 1.3 (RFC 8449)
        self.limit: int | None = None
        self.version = _TLS_1_3
        self._tolerant = False
        self._early_data = 0

    def feed(self, data: Buffer) -> None:
        """Add bytes from the peer."""
        if self._position:
            del self._buffer[: self._position]
            self._position = 0
        self._buffer += data

    def tolerate(self, early_data: int) -> None:
        """See `Tolerate`: until the first protected record opens, or this is called again."""
        self._tolerant = True
        self._early_data = early_data

    @property
    def waiting(self) -> int:
        """Bytes that have not been read as records yet."""
        return len(self._buffer) - self._position

    def next(self) -> tuple[int, bytes] | None:
        """The next record's content type and content, or None when more bytes are needed.

        Raises: DecodeError, RecordOverflow, BadRecordMac, UnexpectedMessage.
        """
        while True:
            start = self._position
            if len(self._buffer) - start < HEADER_LENGTH:
                return None
            header = bytes(self._buffer[start : start + HEADER_LENGTH])
            length = header[3] << 8 | header[4]
            self._check_header(header, length)
            end = start + HEADER_LENGTH + length
            if len(self._buffer) < end:
                return None
            self._position = end
            with memoryview(self._buffer) as view, view[start + HEADER_LENGTH : end] as body:
                if self._tolerant and self._early(header, body):
                    continue
                kind, content = self._open(header, body)
            self._check_content(kind, content)
            return kind, content

    def _check_header(self, header: bytes, length: int) -> None:
        if header[0] not in _CONTENT_TYPES:
            raise UnexpectedMessage(f"a record of type {header[0]}: the peer does not speak TLS here")
        if header[1] != 3:
            raise DecodeError(f"a record of version {header[1]}.{header[2]}: the peer does not speak TLS here")
        if length > MAX_PLAINTEXT:
            expansion = _MAX_EXPANSION_13 if self.version is _TLS_1_3 else _MAX_EXPANSION_12
            if length > MAX_PLAINTEXT + (expansion if self.protection is not None or self._tolerant else 0):
                raise RecordOverflow(f"a record of {length} bytes")

    def _early(self, header: bytes, body: memoryview) -> bool:
        """True for a record of 0-RTT data: it is protected, but not with the key that is here, if one is."""
        length = HEADER_LENGTH + len(body)
        if header[0] != _APPLICATION_DATA or length > self._early_data:
            return False
        if self.protection is not None:
            sequence = self.protection.sequence
            try:
                self.protection.open(header, body)
            except BadRecordMac:
                pass
            else:
                # It will be opened once more, where it belongs.
                self.protection.sequence = sequence
                return False
        self._early_data -= length
        return True

    def _open(self, header: bytes, body: memoryview) -> tuple[int, bytes]:
        unprotected = self.protection is None or (header[0] == _CHANGE_CIPHER_SPEC and self.version is _TLS_1_3)
        if self._tolerant:
            unprotected |= header[0] == _ALERT
            self._tolerant = unprotected
        if unprotected or self.protection is None:
            return header[0], bytes(body)
        if self.limit is not None and self.version is _TLS_1_3:
            longest = self.limit + self.protection.tag_length
            if len(body) > longest:
                raise RecordOverflow(f"a record of {len(body)} bytes beyond our record_size_limit")
        return self.protection.open(header, body)

    def _check_content(self, kind: int, content: bytes) -> None:
        longest = MAX_PLAINTEXT
        if self.limit is not None and self.protection is not None and self.version is _TLS_1_2:
            longest = self.limit
        if len(content) > longest:
            raise RecordOverflow(f"{len(content)} bytes of content in one record")
        if content:
            self._empty = 0
            return
        if kind != _APPLICATION_DATA:
            raise UnexpectedMessage("an empty record that is not application data")
        self._empty += 1
        if self._empty > MAX_EMPTY_RECORDS:
            raise UnexpectedMessage(f"more than {MAX_EMPTY_RECORDS} empty records in a row")
