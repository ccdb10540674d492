"""Handshake messages of TLS 1.3 (RFC 8446 section 4), parse and write side by side."""

from __future__ import annotations

from struct import Struct
from typing import ClassVar

from locum.errors import DecodeError
from locum.handshake import MAX_CERTIFICATES, PeerChain
from locum.tls.alerts import IllegalParameter
from locum.tls.extensions import Extensions, parse_certificate_status
from locum.tls.registry import ExtensionType, HandshakeType
from locum.values import dataclass
from locum.wire.cursor import Reader, Writer

#: NewSessionTicket: lifetime, age_add, length of the nonce.
_TICKET_HEAD = Struct(">IIB")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptedExtensions:
    """RFC 8446 section 4.3.1."""

    type: ClassVar[HandshakeType] = HandshakeType.ENCRYPTED_EXTENSIONS
    extensions: Extensions

    @classmethod
    def parse(cls, reader: Reader) -> EncryptedExtensions:
        """Read the body."""
        return cls(extensions=Extensions.parse(reader))

    def write(self, writer: Writer) -> None:
        """Write the body."""
        self.extensions.write(writer)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRequest:
    """RFC 8446 section 4.3.2."""

    type: ClassVar[HandshakeType] = HandshakeType.CERTIFICATE_REQUEST
    context: bytes
    extensions: Extensions

    @classmethod
    def parse(cls, reader: Reader) -> CertificateRequest:
        """Read the body."""
        return cls(context=reader.vector(1), extensions=Extensions.parse(reader))

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.vector(self.context, 1)
        self.extensions.write(writer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """RFC 8446 section 4.4.2; `entries` are DER certificates with their extensions, the sender's own first."""

    type: ClassVar[HandshakeType] = HandshakeType.CERTIFICATE
    context: bytes = b""
    entries: tuple[tuple[bytes, Extensions], ...]

    @classmethod
    def parse(cls, reader: Reader) -> Certificate:
        """Read the body."""
        context = reader.vector(1)
        inner = reader.sub(3)
        entries: list[tuple[bytes, Extensions]] = []
        while inner.remaining:
            if len(entries) >= MAX_CERTIFICATES:
                raise DecodeError(f"more than {MAX_CERTIFICATES} certificates")
            entries.append((inner.vector(3, minimum=1), Extensions.parse(inner)))
        return cls(context=context, entries=tuple(entries))

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.vector(self.context, 1)
        with writer.prefixed(3):
            for data, extensions in self.entries:
                writer.vector(data, 3)
                extensions.write(writer)

    def chain(self) -> PeerChain:
        """The certificates and the stapled OCSP response of the first; DecodeError when there are none."""
        if not self.entries:
            raise DecodeError("the server sent no certificate")
        status = self.entries[0][1].get(ExtensionType.STATUS_REQUEST)
        return PeerChain(
            tuple(data for data, _ in self.entries),
            parse_certificate_status(status) if status is not None else b"",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSessionTicket:
    """RFC 8446 section 4.6.1; `lifetime` in seconds, `age_add` in milliseconds."""

    type: ClassVar[HandshakeType] = HandshakeType.NEW_SESSION_TICKET
    lifetime: int
    age_add: int
    nonce: bytes
    ticket: bytes
    extensions: Extensions

    @classmethod
    def parse(cls, reader: Reader) -> NewSessionTicket:
        """Read the body."""
        return cls(
            lifetime=reader.u32(),
            age_add=reader.u32(),
            nonce=reader.vector(1),
            ticket=reader.vector(2, minimum=1),
            extensions=Extensions.parse(reader),
        )

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.block(_TICKET_HEAD.pack(self.lifetime, self.age_add, len(self.nonce)) + self.nonce)
        writer.vector(self.ticket, 2)
        self.extensions.write(writer)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUpdate:
    """RFC 8446 section 4.6.3."""

    type: ClassVar[HandshakeType] = HandshakeType.KEY_UPDATE
    update_requested: bool

    @classmethod
    def parse(cls, reader: Reader) -> KeyUpdate:
        """Read the body; IllegalParameter for any value but 0 and 1."""
        value = reader.u8()
        if value > 1:
            raise IllegalParameter(f"KeyUpdate with request_update {value}")
        return cls(update_requested=bool(value))

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.u8(int(self.update_requested))
