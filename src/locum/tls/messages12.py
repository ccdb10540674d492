"""Handshake messages of TLS 1.2 (RFC 5246 section 7.4, RFC 8422, RFC 5077), parse and write side by side."""

from __future__ import annotations

from typing import ClassVar

from locum.errors import DecodeError
from locum.handshake import MAX_CERTIFICATES
from locum.tls.alerts import IllegalParameter
from locum.tls.extensions import parse_certificate_status, parse_names, write_certificate_status, write_names
from locum.tls.registry import HandshakeType, KeyExchange
from locum.values import dataclass
from locum.wire.cursor import Reader, Writer

_NAMED_CURVE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloRequest:
    """RFC 5246 section 7.4.1.1; never part of the transcript."""

    type: ClassVar[HandshakeType] = HandshakeType.HELLO_REQUEST

    @classmethod
    def parse(cls, reader: Reader) -> HelloRequest:
        """Read the body, which is empty."""
        return cls()

    def write(self, writer: Writer) -> None:
        """Write the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """RFC 5246 section 7.4.2; DER certificates, the sender's own first."""

    type: ClassVar[HandshakeType] = HandshakeType.CERTIFICATE
    certificates: tuple[bytes, ...]

    @classmethod
    def parse(cls, reader: Reader) -> Certificate:
        """Read the body."""
        inner = reader.sub(3)
        certificates: list[bytes] = []
        while inner.remaining:
            if len(certificates) >= MAX_CERTIFICATES:
                raise DecodeError(f"more than {MAX_CERTIFICATES} certificates")
            certificates.append(inner.vector(3, minimum=1))
        return cls(certificates=tuple(certificates))

    def write(self, writer: Writer) -> None:
        """Write the body."""
        with writer.prefixed(3):
            for data in self.certificates:
                writer.vector(data, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateStatus:
    """RFC 6066 section 8; `ocsp_response` in DER."""

    type: ClassVar[HandshakeType] = HandshakeType.CERTIFICATE_STATUS
    ocsp_response: bytes

    @classmethod
    def parse(cls, reader: Reader) -> CertificateStatus:
        """Read the body."""
        return cls(ocsp_response=parse_certificate_status(reader.rest()))

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.block(write_certificate_status(self.ocsp_response))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKeyExchange:
    """RFC 5246 section 7.4.3 and RFC 8422 section 5.4: parameters as they were sent, and the signature.

    Which parameters these are depends on the cipher suite, so `body` is kept whole until `split`.
    """

    type: ClassVar[HandshakeType] = HandshakeType.SERVER_KEY_EXCHANGE
    body: bytes

    @classmethod
    def parse(cls, reader: Reader) -> ServerKeyExchange:
        """Read the body."""
        return cls(body=reader.rest())

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.block(self.body)

    def split(self, exchange: KeyExchange) -> tuple[bytes, int, bytes, int | None]:
        """Cut into (parameters, scheme, signature, named group or None).

        Raises: DecodeError, or IllegalParameter for an explicitly given curve.
        """
        reader = Reader(self.body)
        group: int | None = None
        if exchange is KeyExchange.ECDHE:
            if reader.u8() != _NAMED_CURVE:
                raise IllegalParameter("ServerKeyExchange without a named curve")
            group = reader.u16()
            reader.vector(1, minimum=1)
        else:
            for _ in range(3):  # dh_p, dh_g, dh_Ys
                reader.vector(2, minimum=1)
        parameters = self.body[: len(self.body) - reader.remaining]
        scheme, signature = reader.u16(), reader.vector(2, minimum=1)
        reader.finish()
        return parameters, scheme, signature, group

    @classmethod
    def join(cls, parameters: bytes, scheme: int, signature: bytes) -> ServerKeyExchange:
        """The inverse of `split`."""
        writer = Writer()
        writer.block(parameters)
        writer.u16(scheme)
        writer.vector(signature, 2)
        return cls(body=writer.getvalue())


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRequest:
    """RFC 5246 section 7.4.4."""

    type: ClassVar[HandshakeType] = HandshakeType.CERTIFICATE_REQUEST
    certificate_types: bytes
    schemes: tuple[int, ...]
    authorities: tuple[bytes, ...]

    @classmethod
    def parse(cls, reader: Reader) -> CertificateRequest:
        """Read the body."""
        kinds, schemes = reader.vector(1, minimum=1), reader.vector(2, minimum=2)
        if len(schemes) % 2:
            raise DecodeError("supported_signature_algorithms has an odd length")
        codes = tuple(int.from_bytes(schemes[i : i + 2], "big") for i in range(0, len(schemes), 2))
        return cls(certificate_types=kinds, schemes=codes, authorities=parse_names(reader.rest()))

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.vector(self.certificate_types, 1)
        writer.vector(b"".join(scheme.to_bytes(2, "big") for scheme in self.schemes), 2)
        writer.block(write_names(self.authorities))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerHelloDone:
    """RFC 5246 section 7.4.5."""

    type: ClassVar[HandshakeType] = HandshakeType.SERVER_HELLO_DONE

    @classmethod
    def parse(cls, reader: Reader) -> ServerHelloDone:
        """Read the body, which is empty."""
        return cls()

    def write(self, writer: Writer) -> None:
        """Write the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKeyExchange:
    """RFC 5246 section 7.4.7; `body` as the authority made it, inner length included."""

    type: ClassVar[HandshakeType] = HandshakeType.CLIENT_KEY_EXCHANGE
    body: bytes

    @classmethod
    def parse(cls, reader: Reader) -> ClientKeyExchange:
        """Read the body."""
        return cls(body=reader.rest())

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.block(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSessionTicket:
    """RFC 5077 section 3.3; `lifetime_hint` in seconds."""

    type: ClassVar[HandshakeType] = HandshakeType.NEW_SESSION_TICKET
    lifetime_hint: int
    ticket: bytes

    @classmethod
    def parse(cls, reader: Reader) -> NewSessionTicket:
        """Read the body; an empty ticket is allowed and means none."""
        return cls(lifetime_hint=reader.u32(), ticket=reader.vector(2))

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.u32(self.lifetime_hint)
        writer.vector(self.ticket, 2)
