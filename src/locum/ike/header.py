"""The ISAKMP header of both versions, the chain of payloads behind it, and data attributes.

Knows where a payload begins and ends, not what is in it (RFC 2408 section 3, RFC 7296 sections 3.1 and 3.2).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from locum.errors import DecodeError
from locum.ike.errors import UnsupportedVersion
from locum.ike.registry import Version
from locum.wire.cursor import Reader, Writer

HEADER_LENGTH = 28
SPI_LENGTH = 8
GENERIC_HEADER_LENGTH = 4

#: The longest message that is read or reassembled, in bytes: what one UDP datagram can carry.
MAX_MESSAGE = 65_507

#: More payloads in one message, or attributes in one transform, than this are refused.
MAX_PAYLOADS = 64
MAX_ATTRIBUTES = 16

_CRITICAL = 0x80

#: What SPI or cookie of the responder is before the responder has chosen one.
NO_SPI = bytes(SPI_LENGTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The 28 bytes before every message; SPIs are called cookies in IKEv1, 8 bytes each.

    `length` counts the whole message in bytes, this header included; a writer fills it in.
    """

    initiator_spi: bytes
    responder_spi: bytes = NO_SPI
    next_payload: int = 0
    version: int
    exchange_type: int
    flags: int
    message_id: int = 0
    length: int = 0

    @property
    def major_version(self) -> int:
        """1 or 2 in a message that was parsed by `parse_header`."""
        return self.version >> 4

    @classmethod
    def parse(cls, reader: Reader) -> Header:
        """Read 28 bytes."""
        return cls(
            initiator_spi=reader.block(SPI_LENGTH),
            responder_spi=reader.block(SPI_LENGTH),
            next_payload=reader.u8(),
            version=reader.u8(),
            exchange_type=reader.u8(),
            flags=reader.u8(),
            message_id=reader.u32(),
            length=reader.u32(),
        )

    def write(self, writer: Writer) -> None:
        """Write 28 bytes."""
        writer.block(self.initiator_spi)
        writer.block(self.responder_spi)
        writer.u8(self.next_payload)
        writer.u8(self.version)
        writer.u8(self.exchange_type)
        writer.u8(self.flags)
        writer.u32(self.message_id)
        writer.u32(self.length)


def parse_header(datagram: bytes) -> Header:
    """The header of a whole message as it came out of a datagram, without non-ESP marker.

    Raises: DecodeError unless `datagram` is as long as the header says, UnsupportedVersion for any major
    version but 1 and 2. A higher minor version is read like ours (RFC 7296 section 2.5).
    """
    if len(datagram) > MAX_MESSAGE:
        raise DecodeError(f"a message of {len(datagram)} bytes")
    header = Header.parse(Reader(datagram))
    if header.major_version not in (Version.IKE_1 >> 4, Version.IKE_2 >> 4):
        raise UnsupportedVersion(f"IKE version {header.major_version}.{header.version & 15}")
    if header.length != len(datagram):
        raise DecodeError(f"a message of {len(datagram)} bytes that says it has {header.length}")
    if header.initiator_spi == NO_SPI:
        raise DecodeError("an initiator SPI of zero")
    return header


@dataclass(frozen=True, slots=True)
class RawPayload:
    """One payload without its generic header; `end` is where it ends in the bytes that were parsed.

    `next_payload` is what its generic header says: for the last payload of a chain 0, and for an encrypted
    payload of IKEv2, which always is the last, the type of the first payload inside it.
    """

    type: int
    body: bytes
    critical: bool = False
    next_payload: int = 0
    end: int = 0


def parse_chain(first: int, data: bytes, *, final: Collection[int] = ()) -> tuple[RawPayload, ...]:
    """Cut `data` into payloads, the first of which has the type `first`; what follows the last one is left.

    A payload whose type is in `final` ends the chain whatever its next payload field says.
    Raises: DecodeError for a length below 4, one beyond the end, or more than `MAX_PAYLOADS` payloads.
    """
    reader = Reader(data)
    chain: list[RawPayload] = []
    kind = first
    while kind:
        if len(chain) >= MAX_PAYLOADS:
            raise DecodeError(f"more than {MAX_PAYLOADS} payloads")
        following, flags, length = reader.u8(), reader.u8(), reader.u16()
        if length < GENERIC_HEADER_LENGTH:
            raise DecodeError(f"a payload of {length} bytes")
        body = reader.block(length - GENERIC_HEADER_LENGTH)
        end = len(data) - reader.remaining
        chain.append(RawPayload(kind, body, bool(flags & _CRITICAL), following, end))
        if kind in final:
            break
        kind = following
    return tuple(chain)


def write_chain(payloads: Iterable[tuple[int, bytes]]) -> tuple[int, bytes]:
    """The type of the first payload (0: none) and all payloads with their generic headers; never critical.

    RFC 7296 section 2.5: every payload that this program writes is one that its peer must know.
    """
    items = tuple(payloads)
    writer = Writer()
    following = (*(kind for kind, _ in items[1:]), 0)
    for (_, body), after in zip(items, following, strict=False):
        write_generic_header(writer, after, len(body))
        writer.block(body)
    return (items[0][0] if items else 0), writer.getvalue()


def write_generic_header(writer: Writer, next_payload: int, body_length: int) -> None:
    """The 4 bytes before a body of `body_length` bytes (RFC 7296 section 3.2); ValueError beyond 65,531."""
    writer.u8(next_payload)
    writer.u8(0)
    writer.u16(GENERIC_HEADER_LENGTH + body_length)


@dataclass(frozen=True, slots=True)
class Attribute:
    """A data attribute: two bytes of value in the short form, any number in the long one.

    RFC 2408 section 3.3, RFC 7296 section 3.3.5.
    """

    type: int
    value: bytes
    short: bool = True

    @classmethod
    def of(cls, kind: int, number: int) -> Attribute:
        """An attribute with a number for its value, in the short form where it fits into two bytes."""
        short = number < 1 << 16
        return cls(kind, number.to_bytes(2 if short else 4, "big"), short)

    @property
    def number(self) -> int:
        """The value as an unsigned integer."""
        return int.from_bytes(self.value, "big")

    @classmethod
    def parse(cls, reader: Reader) -> Attribute:
        """Read one attribute."""
        head = reader.u16()
        short = bool(head & 0x8000)
        return cls(head & 0x7FFF, reader.block(2) if short else reader.vector(2), short)

    def write(self, writer: Writer) -> None:
        """Write one attribute; ValueError when a short value has not two bytes."""
        if not self.short:
            writer.u16(self.type)
            writer.vector(self.value, 2)
            return
        if len(self.value) != 2:
            raise ValueError("the value of a short attribute has two bytes")
        writer.u16(0x8000 | self.type)
        writer.block(self.value)


def parse_attributes(reader: Reader) -> tuple[Attribute, ...]:
    """Every attribute up to the end of `reader`; DecodeError beyond `MAX_ATTRIBUTES`."""
    attributes: list[Attribute] = []
    while reader.remaining:
        if len(attributes) >= MAX_ATTRIBUTES:
            raise DecodeError(f"more than {MAX_ATTRIBUTES} attributes")
        attributes.append(Attribute.parse(reader))
    return tuple(attributes)
