"""The ISAKMP header of both versions, the chain of payloads behind it, and data attributes.

Knows where a payload begins and ends, not what is in it (RFC 2408 section 3, RFC 7296 sections 3.1 and 3.2).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from struct import Struct
from typing import NamedTuple

from locum.errors import DecodeError
from locum.ike.errors import UnsupportedVersion
from locum.ike.registry import Version
from locum.values import dataclass
from locum.wire.cursor import Reader, Writer

HEADER_LENGTH = 28
SPI_LENGTH = 8
GENERIC_HEADER_LENGTH = 4

#: The longest message that is read or reassembled, in bytes: what one UDP datagram can carry.
MAX_MESSAGE = 65_507

#: More payloads in one message, or attributes in one transform, than this are refused.
MAX_PAYLOADS = 64
MAX_ATTRIBUTES = 16

_HEADER = Struct(">8s8s4B2I")
_GENERIC_HEADER = Struct(">2BH")
_parse_generic_header = _GENERIC_HEADER.unpack_from
_new_tuple = tuple.__new__
_LONGEST_PAYLOAD = 0xFFFF
_CRITICAL = 0x80
_MAJOR_VERSIONS = (Version.IKE_1 >> 4, Version.IKE_2 >> 4)

#: What SPI or cookie of the responder is before the responder has chosen one.
NO_SPI = bytes(SPI_LENGTH)


class Header(NamedTuple):
    """The 28 bytes before every message; SPIs are called cookies in IKEv1, 8 bytes each.

    `length` counts the whole message in bytes, this header included; a writer fills it in.
    """

    initiator_spi: bytes
    responder_spi: bytes = NO_SPI
    next_payload: int = 0
    version: int = Version.IKE_2
    exchange_type: int = 0
    flags: int = 0
    message_id: int = 0
    length: int = 0

    @property
    def major_version(self) -> int:
        """1 or 2 in a message that was parsed by `parse_header`."""
        return self.version >> 4

    @classmethod
    def parse(cls, reader: Reader) -> Header:
        """Read 28 bytes."""
        return cls._make(_HEADER.unpack(reader.block(HEADER_LENGTH)))

    def write(self, writer: Writer) -> None:
        """Write 28 bytes."""
        writer.block(_HEADER.pack(*self))

    def before(self, next_payload: int, length: int) -> bytes:
        """This header as it stands before `length` bytes that begin with a payload of type `next_payload`."""
        return _HEADER.pack(*self[:2], next_payload, *self[3:7], HEADER_LENGTH + length)


def parse_header(datagram: bytes) -> Header:
    """The header of a whole message as it came out of a datagram, without non-ESP marker.

    Raises: DecodeError unless `datagram` is as long as the header says, UnsupportedVersion for any major
    version but 1 and 2. A higher minor version is read like ours (RFC 7296 section 2.5).
    """
    if not HEADER_LENGTH <= len(datagram) <= MAX_MESSAGE:
        raise DecodeError(f"a message of {len(datagram)} bytes")
    header = _new_tuple(Header, _HEADER.unpack_from(datagram))
    if header.version >> 4 not in _MAJOR_VERSIONS:
        raise UnsupportedVersion(f"IKE version {header.major_version}.{header.version & 15}")
    if header.length != len(datagram):
        raise DecodeError(f"a message of {len(datagram)} bytes that says it has {header.length}")
    if header.initiator_spi == NO_SPI:
        raise DecodeError("an initiator SPI of zero")
    return header


class RawPayload(NamedTuple):
    """One payload without its generic header; `end` is where it ends in the bytes that were parsed.

    `next_payload` is what its generic header says: for the last payload of a chain 0, and for an encrypted
    payload of IKEv2, which always is the last, the type of the first payload inside it.
    """

    type: int
    body: bytes
    critical: bool = False
    next_payload: int = 0
    end: int = 0


def parse_chain(
    first: int, data: bytes, *, final: Collection[int] = (), only: Collection[int] | None = None
) -> tuple[RawPayload, ...]:
    """Cut `data` into payloads, the first of which has the type `first`; what follows the last one is left.

    A payload whose type is in `final` ends the chain whatever its next payload field says. Of types that are not
    in `only`, if given, nothing is returned.
    Raises: DecodeError for a length below 4, one beyond the end, or more than `MAX_PAYLOADS` payloads.
    """
    chain: list[RawPayload] = []
    kind, begin, available, count = first, 0, len(data), 0
    while kind:
        content, count = begin + GENERIC_HEADER_LENGTH, count + 1
        if count > MAX_PAYLOADS:
            raise DecodeError(f"more than {MAX_PAYLOADS} payloads")
        if content > available:
            raise DecodeError(f"{GENERIC_HEADER_LENGTH} bytes expected, {available - begin} left")
        following, flags, length = _parse_generic_header(data, begin)
        end = begin + length
        if not content <= end <= available:
            raise DecodeError(f"a payload of {length} bytes, {available - begin} left")
        if only is None or kind in only:
            # As RawPayload(...), at half the cost: messages have many payloads, and some are cut more than once.
            raw = (kind, data[content:end], flags >= _CRITICAL, following, end)
            chain.append(_new_tuple(RawPayload, raw))
        if kind in final:
            break
        kind, begin = following, end
    return tuple(chain)


def write_chain(payloads: Iterable[tuple[int, bytes]]) -> tuple[int, bytes]:
    """The type of the first payload (0: none) and all payloads with their generic headers; never critical.

    RFC 7296 section 2.5: every payload that this program writes is one that its peer must know.
    """
    parts: list[bytes] = []
    following = 0
    for kind, body in reversed(tuple(payloads)):
        parts += (body, generic_header(following, len(body)))
        following = kind
    parts.reverse()
    return following, b"".join(parts)


def generic_header(next_payload: int, body_length: int) -> bytes:
    """The 4 bytes before a body of `body_length` bytes (RFC 7296 section 3.2); ValueError beyond 65,531."""
    length = GENERIC_HEADER_LENGTH + body_length
    if length > _LONGEST_PAYLOAD:
        raise ValueError(f"a payload of {length} bytes")
    return _GENERIC_HEADER.pack(next_payload, 0, length)


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
