"""The payloads of IKEv1, each with its parse and its write side by side (RFC 2407, 2408, 2409, 3947).

What they mean is the exchange's matter. Unknown payloads, transforms, attributes and notify types survive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from functools import lru_cache
from typing import ClassVar, Protocol, Self

from locum.errors import DecodeError
from locum.ike.header import (
    Attribute,
    RawPayload,
    generic_header,
    parse_attributes,
    parse_chain,
    write_chain,
)
from locum.ike.registry import (
    DOI_IPSEC,
    SITUATION_IDENTITY_ONLY,
    IdentificationType,
    PayloadType1,
    ProtocolId,
)
from locum.values import dataclass
from locum.wire.cursor import Reader, Writer

#: More of each in one payload than this is refused.
MAX_PROPOSALS = 64
#: Every combination of a wide policy is offered one by one; the number on the wire has one byte.
MAX_TRANSFORMS = 200
MAX_SPIS = 256

#: The longest SPI that a proposal, a notification or a deletion carries: both cookies, in bytes.
MAX_SPI = 16

#: Bytes of a nonce (RFC 2409 section 5).
MIN_NONCE = 8
MAX_NONCE = 256

#: Padding behind the last payload of an encrypted message, in bytes. One block less one byte would do; some
#: peers send more.
MAX_PADDING = 255


class Payload(Protocol):
    """A payload without its generic header; all but `Unknown` have a `parse` beside their `write`."""

    @property
    def type(self) -> int:
        """The payload's type on the wire."""
        ...

    def write(self, writer: Writer) -> None:
        """Write the body."""
        ...


# --- SA, proposal, transform ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """RFC 2408 section 3.6; the meaning of `attributes` depends on the phase."""

    number: int
    id: int
    attributes: tuple[Attribute, ...] = ()

    @classmethod
    def parse(cls, reader: Reader) -> Transform:
        """Read what follows the generic header."""
        number, code, _ = reader.u8(), reader.u8(), reader.u16()
        return cls(number=number, id=code, attributes=parse_attributes(reader))

    def write(self, writer: Writer) -> None:
        """Write what follows the generic header."""
        writer.u8(self.number)
        writer.u8(self.id)
        writer.u16(0)
        for attribute in self.attributes:
            attribute.write(writer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """RFC 2408 section 3.5: one of `transforms` is to be chosen; proposals of one number belong together."""

    number: int
    protocol: int
    spi: bytes = b""
    transforms: tuple[Transform, ...]

    @classmethod
    def parse(cls, reader: Reader) -> Proposal:
        """Read what follows the generic header."""
        number, protocol, size, count = reader.u8(), reader.u8(), reader.u8(), reader.u8()
        if size > MAX_SPI or (protocol in (ProtocolId.AH, ProtocolId.ESP) and size != 4):
            raise DecodeError(f"an SPI of {size} bytes for protocol {protocol}")
        spi = reader.block(size)
        bodies = _substructures(reader, PayloadType1.TRANSFORM, MAX_TRANSFORMS)
        reader.finish()
        if len(bodies) != count:
            raise DecodeError(f"{len(bodies)} transforms where {count} were announced")
        return cls(
            number=number, protocol=protocol, spi=spi, transforms=tuple(Transform.parse(body) for body in bodies)
        )

    def write(self, writer: Writer) -> None:
        """Write what follows the generic header."""
        writer.u8(self.number)
        writer.u8(self.protocol)
        writer.u8(len(self.spi))
        writer.u8(len(self.transforms))
        writer.block(self.spi)
        _write_substructures(writer, PayloadType1.TRANSFORM, self.transforms)


def _substructures(reader: Reader, kind: PayloadType1, maximum: int) -> list[Reader]:
    """Proposals or transforms: a chain of its own, whose members name one another as next payload."""
    bodies: list[Reader] = []
    following: int = kind
    while following == kind:
        if len(bodies) >= maximum:
            raise DecodeError(f"more than {maximum} {kind.name.lower()} payloads")
        following, _, length = reader.u8(), reader.u8(), reader.u16()
        if length < 4:
            raise DecodeError(f"a {kind.name.lower()} payload of {length} bytes")
        bodies.append(Reader(reader.block(length - 4)))
    if following != PayloadType1.NONE:
        raise DecodeError(f"payload {following} among the {kind.name.lower()} payloads")
    return bodies


def _write_substructures(writer: Writer, kind: PayloadType1, items: Sequence[Proposal | Transform]) -> None:
    if not items:
        raise ValueError(f"no {kind.name.lower()} payload")
    for index, item in enumerate(items):
        body = Writer()
        item.write(body)
        content = body.getvalue()
        writer.block(generic_header(kind if index < len(items) - 1 else PayloadType1.NONE, len(content)))
        writer.block(content)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityAssociation:
    """RFC 2408 section 3.4, RFC 2407 section 4.6.1: the proposals in order, or the one that was chosen."""

    type: ClassVar[PayloadType1] = PayloadType1.SECURITY_ASSOCIATION
    doi: int = DOI_IPSEC
    situation: int = SITUATION_IDENTITY_ONLY
    proposals: tuple[Proposal, ...]

    @classmethod
    def parse(cls, reader: Reader) -> SecurityAssociation:
        """Read the body; other situations than SIT_IDENTITY_ONLY have fields that nobody uses: DecodeError."""
        doi, situation = reader.u32(), reader.u32()
        if situation != SITUATION_IDENTITY_ONLY:
            raise DecodeError(f"situation {situation} instead of SIT_IDENTITY_ONLY")
        bodies = _substructures(reader, PayloadType1.PROPOSAL, MAX_PROPOSALS)
        return cls(doi=doi, situation=situation, proposals=tuple(Proposal.parse(body) for body in bodies))

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.u32(self.doi)
        writer.u32(self.situation)
        _write_substructures(writer, PayloadType1.PROPOSAL, self.proposals)


# --- KE, ID, CERT, CR, HASH, SIG, NONCE ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Opaque:
    """A payload whose body is one field."""

    data: bytes

    @classmethod
    def of(cls, body: bytes) -> Self:
        """The payload with this body. Raises: DecodeError."""
        return cls(data=body)

    @classmethod
    def parse(cls, reader: Reader) -> Self:
        """Read the body, all that there is."""
        return cls.of(reader.rest())

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.block(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyExchange(Opaque):
    """RFC 2408 section 3.7: the public value; the group is that of the SA."""

    type: ClassVar[PayloadType1] = PayloadType1.KEY_EXCHANGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Identification:
    """RFC 2407 section 4.6.2: who claims to speak, or in quick mode for which traffic.

    In phase 1 `protocol` and `port` are 0 and 0, or 17 and 500.
    """

    type: ClassVar[PayloadType1] = PayloadType1.IDENTIFICATION
    id_type: int
    protocol: int = 0
    port: int = 0
    data: bytes

    @property
    def body(self) -> bytes:
        """The payload without its generic header: IDii_b or IDir_b of RFC 2409 section 5."""
        return bytes((self.id_type, self.protocol)) + self.port.to_bytes(2, "big") + self.data

    @classmethod
    def parse(cls, reader: Reader) -> Identification:
        """Read the body."""
        kind, protocol, port, data = reader.u8(), reader.u8(), reader.u16(), reader.rest()
        if kind in _ID_LENGTHS and len(data) != _ID_LENGTHS[kind]:
            raise DecodeError(f"an identification of type {kind} with {len(data)} bytes")
        return cls(id_type=kind, protocol=protocol, port=port, data=data)

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.block(self.body)


_ID_LENGTHS: dict[int, int] = {
    IdentificationType.IPV4_ADDR: 4,
    IdentificationType.IPV4_ADDR_SUBNET: 8,
    IdentificationType.IPV4_ADDR_RANGE: 8,
    IdentificationType.IPV6_ADDR: 16,
    IdentificationType.IPV6_ADDR_SUBNET: 32,
    IdentificationType.IPV6_ADDR_RANGE: 32,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ciphertext:
    """An ID or nonce payload of RFC 2409 section 5.2: its body, encrypted to the other end's public key."""

    type: PayloadType1
    data: bytes

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.block(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """RFC 2408 section 3.9: one certificate or CRL in `encoding`."""

    type: ClassVar[PayloadType1] = PayloadType1.CERTIFICATE
    encoding: int
    data: bytes

    @classmethod
    def parse(cls, reader: Reader) -> Certificate:
        """Read the body."""
        return cls(encoding=reader.u8(), data=reader.rest())

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.u8(self.encoding)
        writer.block(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRequest:
    """RFC 2408 section 3.10; `authority` is a distinguished name in DER, or empty for any."""

    type: ClassVar[PayloadType1] = PayloadType1.CERTIFICATE_REQUEST
    encoding: int
    authority: bytes

    @classmethod
    def parse(cls, reader: Reader) -> CertificateRequest:
        """Read the body."""
        return cls(encoding=reader.u8(), authority=reader.rest())

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.u8(self.encoding)
        writer.block(self.authority)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hash(Opaque):
    """RFC 2408 section 3.11: HASH_I, HASH_R, or one of HASH(1) to HASH(3)."""

    type: ClassVar[PayloadType1] = PayloadType1.HASH


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature(Opaque):
    """RFC 2408 section 3.12."""

    type: ClassVar[PayloadType1] = PayloadType1.SIGNATURE


@dataclass(frozen=True, slots=True, kw_only=True)
class Nonce(Opaque):
    """RFC 2408 section 3.13: 8 to 256 bytes."""

    type: ClassVar[PayloadType1] = PayloadType1.NONCE

    @classmethod
    def of(cls, body: bytes) -> Self:
        """The payload with this body. Raises: DecodeError."""
        if not MIN_NONCE <= len(body) <= MAX_NONCE:
            raise DecodeError(f"a nonce of {len(body)} bytes")
        return cls(data=body)


# --- N, D, VID, NAT-D, NAT-OA, fragment ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """RFC 2408 section 3.14."""

    type: ClassVar[PayloadType1] = PayloadType1.NOTIFICATION
    notify_type: int
    doi: int = DOI_IPSEC
    protocol: int = ProtocolId.IKE
    spi: bytes = b""
    data: bytes = b""

    @classmethod
    def parse(cls, reader: Reader) -> Notification:
        """Read the body."""
        doi, protocol, size, code = reader.u32(), reader.u8(), reader.u8(), reader.u16()
        if size > MAX_SPI:
            raise DecodeError(f"an SPI of {size} bytes")
        return cls(doi=doi, protocol=protocol, notify_type=code, spi=reader.block(size), data=reader.rest())

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.u32(self.doi)
        writer.u8(self.protocol)
        writer.u8(len(self.spi))
        writer.u16(self.notify_type)
        writer.block(self.spi)
        writer.block(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """RFC 2408 section 3.15: SPIs of one protocol, all of one length; both cookies for an ISAKMP SA."""

    type: ClassVar[PayloadType1] = PayloadType1.DELETE
    doi: int = DOI_IPSEC
    protocol: int
    spis: tuple[bytes, ...]

    @classmethod
    def parse(cls, reader: Reader) -> Delete:
        """Read the body."""
        doi, protocol, size, count = reader.u32(), reader.u8(), reader.u8(), reader.u16()
        if not 1 <= count <= MAX_SPIS:
            raise DecodeError(f"{count} SPIs, outside 1..{MAX_SPIS}")
        if size != (MAX_SPI if protocol == ProtocolId.IKE else 4):
            raise DecodeError(f"an SPI of {size} bytes for protocol {protocol}")
        return cls(doi=doi, protocol=protocol, spis=tuple(reader.block(size) for _ in range(count)))

    def write(self, writer: Writer) -> None:
        """Write the body; ValueError without an SPI."""
        if not self.spis:
            raise ValueError("a deletion without an SPI")
        writer.u32(self.doi)
        writer.u8(self.protocol)
        writer.u8(len(self.spis[0]))
        writer.u16(len(self.spis))
        for spi in self.spis:
            writer.block(spi)


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorId(Opaque):
    """RFC 2408 section 3.16."""

    type: ClassVar[PayloadType1] = PayloadType1.VENDOR_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class NatDetection(Opaque):
    """NAT-D (RFC 3947 section 3.2): a hash of cookies, address and port."""

    type: ClassVar[PayloadType1] = PayloadType1.NAT_D


@dataclass(frozen=True, slots=True, kw_only=True)
class NatOriginalAddress:
    """NAT-OA (RFC 3947 section 5.2): an address of 4 or 16 bytes as `id_type` says."""

    type: ClassVar[PayloadType1] = PayloadType1.NAT_OA
    id_type: int
    address: bytes

    @classmethod
    def parse(cls, reader: Reader) -> NatOriginalAddress:
        """Read the body."""
        kind, _, address = reader.u8(), reader.u24(), reader.rest()
        if kind not in (IdentificationType.IPV4_ADDR, IdentificationType.IPV6_ADDR):
            raise DecodeError(f"an original address of type {kind}")
        if len(address) != _ID_LENGTHS[kind]:
            raise DecodeError(f"an original address of {len(address)} bytes")
        return cls(id_type=kind, address=address)

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.u8(self.id_type)
        writer.u24(0)
        writer.block(self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """A piece of a whole message, its header included; `number` counts from 1, one message has one `id`."""

    type: ClassVar[PayloadType1] = PayloadType1.FRAGMENT
    id: int
    number: int
    last: bool
    data: bytes

    @classmethod
    def parse(cls, reader: Reader) -> Fragment:
        """Read the body."""
        return cls(id=reader.u16(), number=reader.u8(), last=bool(reader.u8() & 1), data=reader.rest())

    def write(self, writer: Writer) -> None:
        """Write the body."""
        writer.u16(self.id)
        writer.u8(self.number)
        writer.u8(int(self.last))
        writer.block(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A payload that is not understood here; it may be skipped."""

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
        Identification,
        Certificate,
        CertificateRequest,
        Hash,
        Signature,
        Nonce,
        Notification,
        Delete,
        VendorId,
        NatDetection,
        NatOriginalAddress,
        Fragment,
    )
}


_OPAQUE: dict[int, Callable[[bytes], Payload]] = {
    kind.type: kind.of for kind in (KeyExchange, Hash, Signature, Nonce, NatDetection)
}

#: Payloads that peers send alike again and again; so many of them, of so many bytes at most, are remembered.
_REPEATED = frozenset(
    {
        PayloadType1.SECURITY_ASSOCIATION,
        PayloadType1.IDENTIFICATION,
        PayloadType1.CERTIFICATE_REQUEST,
        PayloadType1.VENDOR_ID,
    }
)
_REMEMBERED = 256
_MAX_REMEMBERED = 1024


def interpret(raw: RawPayload, *, public_key_encryption: bool = False) -> Payload:
    """The payload that `raw` is, or `Unknown`; DecodeError for a malformed body.

    `public_key_encryption` reads ID and nonce payloads as `Ciphertext` (RFC 2409 section 5.2).
    """
    kind = raw.type
    if kind not in _PARSERS:
        return Unknown(type=kind, body=raw.body)
    if public_key_encryption and kind in (PayloadType1.IDENTIFICATION, PayloadType1.NONCE):
        return Ciphertext(type=PayloadType1(kind), data=raw.body)
    if kind in _REPEATED and len(raw.body) <= _MAX_REMEMBERED:
        return _interpret_once(kind, raw.body)
    opaque = _OPAQUE.get(kind)
    return _interpret(kind, raw.body) if opaque is None else opaque(raw.body)


def _interpret(kind: int, body: bytes) -> Payload:
    reader = Reader(body)
    payload = _PARSERS[kind](reader)
    reader.finish()
    return payload


_interpret_once = lru_cache(_REMEMBERED)(_interpret)


@dataclass(frozen=True, slots=True)
class Payloads:
    """What a message of IKEv1 carries: each payload with its body as received, and the bytes of all.

    `chain` ends with the last payload: the padding of an encrypted message is not in it.
    """

    items: tuple[Payload, ...]
    raw: tuple[RawPayload, ...]
    chain: bytes
    by_class: dict[type[Payload], list[Payload]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_class: dict[type[Payload], list[Payload]] = {}
        for item in self.items:
            by_class.setdefault(type(item), []).append(item)
        object.__setattr__(self, "by_class", by_class)

    def after_first(self) -> bytes:
        """Everything behind the first payload, headers included: what HASH(1) and HASH(2) cover."""
        return self.chain[self.raw[0].end :] if self.raw else b""


def parse_payloads(
    first: int, data: bytes, *, maximum_padding: int = 0, public_key_encryption: bool = False
) -> Payloads:
    """Every payload of a chain that must fill `data` but for at most `maximum_padding` bytes of any content.

    A decrypted message may be followed by up to `MAX_PADDING` bytes.
    Raises: DecodeError.
    """
    chain = parse_chain(first, data)
    end = chain[-1].end if chain else 0
    if len(data) - end > maximum_padding:
        raise DecodeError(f"{len(data) - end} bytes behind the last payload")
    items = tuple(interpret(raw, public_key_encryption=public_key_encryption) for raw in chain)
    return Payloads(items, chain, data[:end])


def write_payloads(payloads: tuple[Payload, ...]) -> tuple[int, bytes]:
    """The type of the first payload (0: none) and the chain as bytes."""
    return write_chain([(payload.type, body_of(payload)) for payload in payloads])


def body_of(payload: Payload) -> bytes:
    """A payload's body, without generic header: SAi_b, Ni_b and the like of RFC 2409 section 3.2."""
    if isinstance(payload, Opaque):
        return payload.data
    writer = Writer()
    payload.write(writer)
    return writer.getvalue()
