"""Handshake messages common to both versions: the header, hellos, Finished, CertificateVerify.

Each message has its parse and its write side by side; what they mean is the handshake's matter.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, Self

from locum.tls.extensions import Extensions, unpack_codes
from locum.tls.registry import HandshakeType
from locum.values import dataclass
from locum.wire.cursor import Reader, Writer

#: Bytes of HandshakeType and length before every message.
HEADER_LENGTH = 4

#: Bytes of the random in either hello.
RANDOM_LENGTH = 32

#: The longest message that is accepted: a Certificate with long post-quantum chains fits; others are short.
MAX_CERTIFICATE_MESSAGE = 131_072
MAX_MESSAGE = 16_384 * 2
_LONG = frozenset((HandshakeType.CERTIFICATE, HandshakeType.NEW_SESSION_TICKET))

#: A ServerHello with this random is a HelloRetryRequest (RFC 8446 section 4.1.3).
HELLO_RETRY_REQUEST_RANDOM = bytes.fromhex("CF21AD74E59A6111BE1D8C021E65B891C2A211167ABB8C5E079E09E2C8A8339C")

#: The last 8 bytes of a server random that was made to speak less than it could (RFC 8446 section 4.1.3).
DOWNGRADE_SENTINELS = (b"DOWNGRD\x01", b"DOWNGRD\x00")


class Message(Protocol):
    """A handshake message without its header."""

    type: ClassVar[HandshakeType]

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read the body; the caller checks that nothing is left."""
        ...

    def write(self, writer: Writer) -> None:
        """Write the body."""
        ...


def serialize(message: Message) -> bytes:
    """A message with its header, as it is sent and hashed."""
    writer = Writer()
    message.write(writer)
    body = writer.getvalue()
    return b"".join((message.type.to_bytes(1, "big"), len(body).to_bytes(3, "big"), body))


def maximum_length(message_type: int) -> int:
    """The longest body accepted for this HandshakeType, in bytes."""
    return MAX_CERTIFICATE_MESSAGE if message_type in _LONG else MAX_MESSAGE


def _extensions_or_none(reader: Reader) -> Extensions:
    """TLS 1.2 hellos may end without an extensions field (RFC 5246 section 7.4.1)."""
    return Extensions.parse(reader) if reader.remaining else Extensions()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHello:
    """RFC 8446 section 4.1.2; `random` has 32 bytes, `session_id` 0 to 32."""

    type: ClassVar[HandshakeType] = HandshakeType.CLIENT_HELLO
    legacy_version: int = 0x0303
    random: bytes
    session_id: bytes
    cipher_suites: tuple[int, ...]
    compression_methods: bytes = b"\0"
    extensions: Extensions

    @classmethod
    def parse(cls, reader: Reader) -> ClientHello:
        """Read the body."""
        return cls(
            legacy_version=reader.u16(),
            random=reader.block(32),
            session_id=reader.vector(1, maximum=32),
            cipher_suites=unpack_codes(reader.vector(2, minimum=2)),
            compression_methods=reader.vector(1, minimum=1),
            extensions=_extensions_or_none(reader),
        )

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.u16(self.legacy_version)
        writer.block(self.random)
        writer.vector(self.session_id, 1)
        writer.vector(b"".join(suite.to_bytes(2, "big") for suite in self.cipher_suites), 2)
        writer.vector(self.compression_methods, 1)
        self.extensions.write(writer)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerHello:
    """RFC 8446 section 4.1.3, and HelloRetryRequest, which differs by its random alone."""

    type: ClassVar[HandshakeType] = HandshakeType.SERVER_HELLO
    legacy_version: int = 0x0303
    random: bytes
    session_id: bytes
    cipher_suite: int
    compression_method: int = 0
    extensions: Extensions

    @property
    def is_hello_retry_request(self) -> bool:
        """True when this asks for a second ClientHello."""
        return self.random == HELLO_RETRY_REQUEST_RANDOM

    @classmethod
    def parse(cls, reader: Reader) -> ServerHello:
        """Read the body."""
        return cls(
            legacy_version=reader.u16(),
            random=reader.block(32),
            session_id=reader.vector(1, maximum=32),
            cipher_suite=reader.u16(),
            compression_method=reader.u8(),
            extensions=_extensions_or_none(reader),
        )

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.u16(self.legacy_version)
        writer.block(self.random)
        writer.vector(self.session_id, 1)
        writer.u16(self.cipher_suite)
        writer.u8(self.compression_method)
        self.extensions.write(writer)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateVerify:
    """RFC 8446 section 4.4.3 and, with the same bytes, RFC 5246 section 7.4.8."""

    type: ClassVar[HandshakeType] = HandshakeType.CERTIFICATE_VERIFY
    scheme: int
    signature: bytes

    @classmethod
    def parse(cls, reader: Reader) -> CertificateVerify:
        """Read the body."""
        return cls(scheme=reader.u16(), signature=reader.vector(2, minimum=1))

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.u16(self.scheme)
        writer.vector(self.signature, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """RFC 8446 section 4.4.4 (one hash long) and RFC 5246 section 7.4.9 (12 bytes)."""

    type: ClassVar[HandshakeType] = HandshakeType.FINISHED
    verify_data: bytes

    @classmethod
    def parse(cls, reader: Reader) -> Finished:
        """Read the body."""
        return cls(verify_data=reader.rest())

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.block(self.verify_data)
