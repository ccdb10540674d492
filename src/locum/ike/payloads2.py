"""The payloads of IKEv2, each with its parse and its write side by side (RFC 7296 section 3).

What they mean is the exchange's matter. Unknown payloads, notify types, transforms and attributes survive.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from typing import ClassVar, Protocol, Self

from locum.errors import DecodeError
from locum.ike.errors import UnsupportedCriticalPayload
from locum.ike.header import Attribute, RawPayload, parse_attributes, parse_chain, write_chain
from locum.ike.registry import KEY_LENGTH_ATTRIBUTE, IdentificationType, PayloadType2, ProtocolId
from locum.ike.traffic_selectors import TrafficSelectorsInitiator, TrafficSelectorsResponder
from locum.values import dataclass
from locum.wire.cursor import Reader, Writer

#: More of each in one payload than this is refused.
MAX_PROPOSALS = 64
MAX_TRANSFORMS = 64
MAX_SPIS = 256

#: Bytes of a nonce (RFC 7296 section 3.9).
MIN_NONCE = 16
MAX_NONCE = 256

#: Bytes of one certification authority's name in a CERTREQ: SHA-1 of its public key (RFC 7296 section 3.7).
AUTHORITY_LENGTH = 20

#: SPI lengths in bytes by protocol; IKE has none in IKE_SA_INIT and 8 when an IKE SA is rekeyed.
SPI_LENGTHS: dict[int, tuple[int, ...]] = {
    ProtocolId.NONE: (0,),
    ProtocolId.IKE: (0, 8),
    ProtocolId.AH: (4,),
    ProtocolId.ESP: (4,),
}

_LAST = 0
_MORE_PROPOSALS = 2
_MORE_TRANSFORMS = 3


_TWO_U16 = Struct(">2H")
_TWO_U8_U16 = Struct(">2BH")


class Payload(Protocol):
    """A payload without its generic header; all but `Unknown` have a `parse` beside their `write`."""

    @property
    def type(self) -> int:
        """The payload's type on the wire."""
        ...

    def write(self, writer: Writer) -> None:
        """Write the body."""
        ...


# --- SA ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """RFC 7296 section 3.3.2: one algorithm, `type` says for what."""

    type: int
    id: int
    attributes: tuple[Attribute, ...] = ()

    @property
    def key_length(self) -> int | None:
        """The Key Length attribute in bits, None where there is none."""
        for attribute in self.attributes:
            if attribute.type == KEY_LENGTH_ATTRIBUTE:
                return attribute.number
        return None

    @classmethod
    def parse(cls, reader: Reader) -> Transform:
        """Read what follows the transform's length."""
        kind, _, code = reader.u8(), reader.u8(), reader.u16()
        return cls(type=kind, id=code, attributes=parse_attributes(reader))

    def write(self, writer: Writer) -> None:
        """Write what follows the transform's length."""
        writer.u8(self.type)
        writer.u8(0)
        writer.u16(self.id)
        for attribute in self.attributes:
            attribute.write(writer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """RFC 7296 section 3.3.1: of each transform type that occurs, exactly one transform is to be chosen."""

    number: int
    protocol: int
    spi: bytes = b""
    transforms: tuple[Transform, ...]

    @classmethod
    def parse(cls, reader: Reader) -> Proposal:
        """Read what follows the proposal's length."""
        number, protocol, size, count = reader.u8(), reader.u8(), reader.u8(), reader.u8()
        if protocol in SPI_LENGTHS and size not in SPI_LENGTHS[protocol]:
            raise DecodeError(f"an SPI of {size} bytes for protocol {protocol}")
        spi = reader.block(size)
        if count > MAX_TRANSFORMS:
            raise DecodeError(f"more than {MAX_TRANSFORMS} transforms")
        transforms = tuple(
            Transform.parse(_substructure(reader, _MORE_TRANSFORMS, index == count - 1)) for index in range(count)
        )
        reader.finish()
        return cls(number=number, protocol=protocol, spi=spi, transforms=transforms)

    def write(self, writer: Writer) -> None:
        """Write what follows the proposal's length."""
        writer.u8(self.number)
        writer.u8(self.protocol)
        writer.u8(len(self.spi))
        writer.u8(len(self.transforms))
        writer.block(self.spi)
        for index, transform in enumerate(self.transforms):
            body = Writer()
            transform.write(body)
            _write_substructure(writer, _MORE_TRANSFORMS, index == len(self.transforms) - 1, body)


def _substructure(reader: Reader, more: int, last: bool) -> Reader:
    """The content of the next proposal or transform; its first byte must say whether another follows."""
    mark, _, length = reader.u8(), reader.u8(), reader.u16()
    if mark != (_LAST if last else more):
        raise DecodeError(f"substructure marked {mark}")
    if length < 4:
        raise DecodeError(f"a substructure of {length} bytes")
    return Reader(reader.block(length - 4))


def _write_substructure(writer: Writer, more: int, last: bool, body: Writer) -> None:
    content = body.getvalue()
    writer.u8(_LAST if last else more)
    writer.u8(0)
    writer.u16(len(content) + 4)
    writer.block(content)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityAssociation:
    """RFC 7296 section 3.3: the proposals in the initiator's order, or the one that was chosen."""

    type: ClassVar[PayloadType2] = PayloadType2.SECURITY_ASSOCIATION
    proposals: tuple[Proposal, ...]

    @classmethod
    def parse(cls, reader: Reader) -> SecurityAssociation:
        """Read the body."""
        proposals: list[Proposal] = []
        last = False
        while not last:
            if len(proposals) >= MAX_PROPOSALS:
                raise DecodeError(f"more than {MAX_PROPOSALS} proposals")
            mark, _, length = reader.u8(), reader.u8(), reader.u16()
            if mark not in (_LAST, _MORE_PROPOSALS) or length < 4:
                raise DecodeError(f"a proposal marked {mark} of {length} bytes")
            last = mark == _LAST
            proposals.append(Proposal.parse(Reader(reader.block(length - 4))))
        return cls(proposals=tuple(proposals))

    def write(self, writer: Writer) -> None:
        """Write the body."""
        if not self.proposals:
            raise ValueError("an SA payload without a proposal")
        for index, proposal in enumerate(self.proposals):
            body = Writer()
            proposal.write(body)
            _write_substructure(writer, _MORE_PROPOSALS, index == len(self.proposals) - 1, body)


class Flat:
    """A payload whose body is one thing, read and written in one go; it needs neither reader nor writer."""

    __slots__ = ()

    @property
    def body(self) -> bytes:
        """The payload without its generic header."""
        raise NotImplementedError

    @classmethod
    def of(cls, body: bytes) -> Self:
        """The payload with this body. Raises: DecodeError."""
        raise NotImplementedError

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read the body, all that there is."""
        return cls.of(reader.rest())

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.block(self.body)


def _check_length(body: bytes, least: int) -> None:
    if len(body) < least:
        raise DecodeError(f"{least} bytes expected, {len(body)} left")


# --- KE, IDi, IDr, CERT, CERTREQ, AUTH, Nonce ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyExchange(Flat):
    """RFC 7296 section 3.4; `group` is a `KeyExchangeId`."""

    type: ClassVar[PayloadType2] = PayloadType2.KEY_EXCHANGE
    group: int
    data: bytes

    @property
    def body(self) -> bytes:
        """As on the wire."""
        return _TWO_U16.pack(self.group, 0) + self.data

    @classmethod
    def of(cls, body: bytes) -> Self:
        """From the wire."""
        _check_length(body, _TWO_U16.size)
        group, _ = _TWO_U16.unpack_from(body)
        return cls(group=group, data=body[_TWO_U16.size :])


@dataclass(frozen=True, slots=True, kw_only=True)
class Identification(Flat):
    """RFC 7296 section 3.5: who claims to speak; `body` is what AUTH covers of it."""

    id_type: int
    data: bytes

    @property
    def body(self) -> bytes:
        """The payload without its generic header: RestOfIDPayload of RFC 7296 section 2.15."""
        return bytes((self.id_type, 0, 0, 0)) + self.data

    @classmethod
    def of(cls, body: bytes) -> Self:
        """From the wire."""
        _check_length(body, 4)
        kind, data = body[0], body[4:]
        expected = {IdentificationType.IPV4_ADDR: 4, IdentificationType.IPV6_ADDR: 16}
        if kind in expected and len(data) != expected[IdentificationType(kind)]:
            raise DecodeError(f"an address of {len(data)} bytes as an identification")
        return cls(id_type=kind, data=data)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentificationInitiator(Identification):
    """IDi."""

    type: ClassVar[PayloadType2] = PayloadType2.IDENTIFICATION_INITIATOR


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentificationResponder(Identification):
    """IDr."""

    type: ClassVar[PayloadType2] = PayloadType2.IDENTIFICATION_RESPONDER


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate(Flat):
    """RFC 7296 section 3.6: one certificate, CRL or OCSP response in `encoding`."""

    type: ClassVar[PayloadType2] = PayloadType2.CERTIFICATE
    encoding: int
    data: bytes

    @property
    def body(self) -> bytes:
        """As on the wire."""
        return bytes((self.encoding,)) + self.data

    @classmethod
    def of(cls, body: bytes) -> Self:
        """From the wire."""
        _check_length(body, 1)
        return cls(encoding=body[0], data=body[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRequest(Flat):
    """RFC 7296 section 3.7; for X.509 `data` is the SHA-1 hashes of the accepted authorities' public keys."""

    type: ClassVar[PayloadType2] = PayloadType2.CERTIFICATE_REQUEST
    encoding: int
    data: bytes

    @property
    def authorities(self) -> tuple[bytes, ...]:
        """`data` cut into hashes of 20 bytes; an incomplete last one is left out."""
        whole = len(self.data) // AUTHORITY_LENGTH * AUTHORITY_LENGTH
        return tuple(self.data[i : i + AUTHORITY_LENGTH] for i in range(0, whole, AUTHORITY_LENGTH))

    @property
    def body(self) -> bytes:
        """As on the wire."""
        return bytes((self.encoding,)) + self.data

    @classmethod
    def of(cls, body: bytes) -> Self:
        """From the wire."""
        _check_length(body, 1)
        return cls(encoding=body[0], data=body[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication(Flat):
    """RFC 7296 section 3.8; with RFC 7427 `data` begins with the length and DER of the AlgorithmIdentifier."""

    type: ClassVar[PayloadType2] = PayloadType2.AUTHENTICATION
    method: int
    data: bytes

    @property
    def body(self) -> bytes:
        """As on the wire."""
        return bytes((self.method, 0, 0, 0)) + self.data

    @classmethod
    def of(cls, body: bytes) -> Self:
        """From the wire."""
        _check_length(body, 4)
        return cls(method=body[0], data=body[4:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Nonce(Flat):
    """RFC 7296 section 3.9: 16 to 256 bytes."""

    type: ClassVar[PayloadType2] = PayloadType2.NONCE
    data: bytes

    @property
    def body(self) -> bytes:
        """As on the wire."""
        return self.data

    @classmethod
    def of(cls, body: bytes) -> Self:
        """From the wire."""
        if not MIN_NONCE <= len(body) <= MAX_NONCE:
            raise DecodeError(f"a nonce of {len(body)} bytes")
        return cls(data=body)


# --- Notify, Delete, Vendor ID --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify(Flat):
    """RFC 7296 section 3.10; `protocol` and `spi` only where an existing SA is meant."""

    type: ClassVar[PayloadType2] = PayloadType2.NOTIFY
    notify_type: int
    data: bytes = b""
    protocol: int = 0
    spi: bytes = b""

    @property
    def body(self) -> bytes:
        """As on the wire."""
        return _TWO_U8_U16.pack(self.protocol, len(self.spi), self.notify_type) + self.spi + self.data

    @classmethod
    def of(cls, body: bytes) -> Self:
        """From the wire."""
        _check_length(body, _TWO_U8_U16.size)
        protocol, size, code = _TWO_U8_U16.unpack_from(body)
        if not size:
            return cls(notify_type=code, data=body[_TWO_U8_U16.size :], protocol=protocol)
        data = _TWO_U8_U16.size + size
        _check_length(body, data)
        return cls(notify_type=code, data=body[data:], protocol=protocol, spi=body[_TWO_U8_U16.size : data])


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """RFC 7296 section 3.11: SPIs of one protocol, none for the IKE SA itself."""

    type: ClassVar[PayloadType2] = PayloadType2.DELETE
    protocol: int
    spis: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, reader: Reader) -> Delete:
        """Read the body."""
        protocol, size, count = reader.u8(), reader.u8(), reader.u16()
        if count > MAX_SPIS:
            raise DecodeError(f"more than {MAX_SPIS} SPIs")
        if size != (0 if protocol == ProtocolId.IKE else 4) or (not size and count):
            raise DecodeError(f"{count} SPIs of {size} bytes for protocol {protocol}")
        return cls(protocol=protocol, spis=tuple(reader.block(size) for _ in range(count)))

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.u8(self.protocol)
        writer.u8(0 if self.protocol == ProtocolId.IKE else 4)
        writer.u16(len(self.spis))
        for spi in self.spis:
            writer.block(spi)


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorId(Flat):
    """RFC 7296 section 3.12."""

    type: ClassVar[PayloadType2] = PayloadType2.VENDOR_ID
    data: bytes

    @property
    def body(self) -> bytes:
        """As on the wire."""
        return self.data

    @classmethod
    def of(cls, body: bytes) -> Self:
        """From the wire."""
        return cls(data=body)


# --- SK, SKF, unknown -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Encrypted:
    """RFC 7296 section 3.14: initialization vector, ciphertext and ICV; `first` is the type of what is inside."""

    type: ClassVar[PayloadType2] = PayloadType2.ENCRYPTED
    first: int
    data: bytes

    @classmethod
    def of(cls, raw: RawPayload) -> Encrypted:
        """From the last payload of a chain."""
        return cls(first=raw.next_payload, data=raw.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptedFragment:
    """RFC 7383 section 2.5: fragment `number`, from 1, of `total`; `first` counts in the first one only."""

    type: ClassVar[PayloadType2] = PayloadType2.ENCRYPTED_FRAGMENT
    first: int
    number: int
    total: int
    data: bytes

    @classmethod
    def of(cls, raw: RawPayload) -> EncryptedFragment:
        """From the last payload of a chain; DecodeError unless 1 <= number <= total."""
        reader = Reader(raw.body)
        number, total = reader.u16(), reader.u16()
        if not 1 <= number <= total:
            raise DecodeError(f"fragment {number} of {total}")
        return cls(first=raw.next_payload, number=number, total=total, data=reader.rest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A payload that is not understood here, Configuration and EAP among them; it may be skipped."""

    type: int
    body: bytes

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.block(self.body)


@dataclass(frozen=True, slots=True)
class Written:
    """A payload of ours whose body is there already, because it was written before."""

    type: int
    body: bytes

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.block(self.body)


_PARSERS: dict[int, Callable[[Reader], Payload]] = {
    kind.type: kind.parse
    for kind in (
        SecurityAssociation,
        KeyExchange,
        IdentificationInitiator,
        IdentificationResponder,
        Certificate,
        CertificateRequest,
        Authentication,
        Nonce,
        Notify,
        Delete,
        VendorId,
        TrafficSelectorsInitiator,
        TrafficSelectorsResponder,
    )
}

_FLAT: dict[int, Callable[[bytes], Payload]] = {
    kind.type: kind.of for kind in (KeyExchange, Certificate, Authentication, Nonce, Notify)
}

#: Types whose chain ends with them, because the rest is inside.
FINAL = frozenset({PayloadType2.ENCRYPTED, PayloadType2.ENCRYPTED_FRAGMENT})

#: Payloads that peers send alike again and again, up to so many bytes each, and so many of them are remembered.
#: Longer notifies have a hash, an address or a cookie in them.
_REPEATED: dict[int, int] = {
    PayloadType2.SECURITY_ASSOCIATION: 1024,
    PayloadType2.IDENTIFICATION_INITIATOR: 1024,
    PayloadType2.IDENTIFICATION_RESPONDER: 1024,
    PayloadType2.CERTIFICATE_REQUEST: 1024,
    PayloadType2.VENDOR_ID: 1024,
    PayloadType2.NOTIFY: 16,
    PayloadType2.DELETE: 4,
}
_REMEMBERED = 256

#: RFC 7296 section 2.5: the critical bit says nothing where the RFC itself defines the payload.
_CRITICAL_IGNORED = frozenset(PayloadType2)


def interpret(raw: RawPayload) -> Payload:
    """The payload that `raw` is, or `Unknown`.

    Raises: DecodeError for a malformed body, UnsupportedCriticalPayload for an unknown type that is critical.
    """
    kind, body, critical, _, _ = raw
    if len(body) <= _REPEATED.get(kind, -1):
        return _interpret_once(kind, body)
    flat = _FLAT.get(kind)
    if flat is not None:
        return flat(body)
    if kind in _PARSERS:
        return _interpret(kind, body)
    if critical and kind not in _CRITICAL_IGNORED:
        raise UnsupportedCriticalPayload(kind)
    return Unknown(type=kind, body=body)


def _interpret(kind: int, body: bytes) -> Payload:
    reader = Reader(body)
    payload = _PARSERS[kind](reader)
    reader.finish()
    return payload


_interpret_once = lru_cache(_REMEMBERED)(_interpret)


def parse_payloads(first: int, data: bytes) -> tuple[Payload, ...]:
    """Every payload of a chain that must fill `data`, the inside of an encrypted payload or a whole message.

    Raises: DecodeError, also where an encrypted payload stands in it; UnsupportedCriticalPayload.
    """
    chain = parse_chain(first, data, final=FINAL)
    if any(raw.type in FINAL for raw in chain):
        raise DecodeError("an encrypted payload where there must be none")
    if (chain[-1].end if chain else 0) != len(data):
        raise DecodeError("bytes behind the last payload")
    return tuple(interpret(raw) for raw in chain)


def write_payloads(payloads: tuple[Payload, ...]) -> tuple[int, bytes]:
    """The type of the first payload (0: none) and the chain as bytes."""
    return write_chain([(payload.type, body_of(payload)) for payload in payloads])


_WITH_BODY = (Flat, Written)


def body_of(payload: Payload) -> bytes:
    """The payload without its generic header."""
    if isinstance(payload, _WITH_BODY):
        return payload.body
    writer = Writer()
    payload.write(writer)
    return writer.getvalue()
