"""The extensions of hello, certificate and ticket messages: the list, and each body's parse and write.

Knows which bytes an extension has, not when it may be sent; unknown types survive untouched.
"""

from __future__ import annotations

import ipaddress
from struct import Struct, unpack

from locum.errors import DecodeError
from locum.tls.alerts import IllegalParameter
from locum.tls.registry import ExtensionType
from locum.values import dataclass
from locum.wire.cursor import Reader, Writer

#: More extensions in one message than this are refused.
MAX_EXTENSIONS = 64

#: More protocols, key shares or pre-shared keys than this are refused: no client has so many.
MAX_ENTRIES = 128

#: Type and length of an extension; group and length of a key share.
_HEAD = Struct(">HH")
_HEAD_LENGTH, _unpack_head = _HEAD.size, _HEAD.unpack_from


@dataclass(frozen=True, slots=True)
class Extensions:
    """Extensions in their order on the wire, each type at most once (RFC 8446 section 4.2)."""

    items: tuple[tuple[int, bytes], ...] = ()

    @classmethod
    def parse(cls, reader: Reader) -> Extensions:
        """Read `Extension extensions<0..2^16-1>`; IllegalParameter when a type occurs twice."""
        data = reader.vector(2)
        found: dict[int, bytes] = {}
        position, end = 0, len(data)
        while position < end:
            start = position + _HEAD_LENGTH
            if start > end:
                raise DecodeError("an extension without type and length")
            code, length = _unpack_head(data, position)
            position = start + length
            if position > end:
                raise DecodeError(f"extension {code} is longer than the list that it is in")
            if code in found:
                raise IllegalParameter(f"extension {code} occurs twice")
            if len(found) >= MAX_EXTENSIONS:
                raise DecodeError(f"more than {MAX_EXTENSIONS} extensions")
            found[code] = data[start:position]
        return cls(tuple(found.items()))

    def write(self, writer: Writer) -> None:
        """Write the list with its length."""
        writer.vector(b"".join([_HEAD.pack(code, len(data)) + data for code, data in self.items]), 2)

    def get(self, code: ExtensionType) -> bytes | None:
        """The body of the extension of this type, or None."""
        for present, data in self.items:
            if present == code:
                return data
        return None

    def types(self) -> set[int]:
        """The types that are present."""
        return {code for code, _ in self.items}


def _few(count: int) -> None:
    if count > MAX_ENTRIES:
        raise DecodeError(f"a list of more than {MAX_ENTRIES} entries")


def _whole(reader: Reader, value: bytes) -> bytes:
    reader.finish()
    return value


def parse_codes(data: bytes, *, prefix: int = 2) -> tuple[int, ...]:
    """A vector of 2-byte code points whose length is `prefix` bytes: groups, signature schemes, versions."""
    length = int.from_bytes(data[:prefix], "big")
    if length < 2 or length != len(data) - prefix:
        raise DecodeError(f"a list of 2-byte codes of {length} bytes in {len(data)}")
    return unpack_codes(data[prefix:])


def unpack_codes(codes: bytes) -> tuple[int, ...]:
    """2-byte code points one after the other. Raises: DecodeError for an odd number of bytes."""
    if len(codes) % 2:
        raise DecodeError("a list of 2-byte codes has an odd length")
    return unpack(f">{len(codes) // 2}H", codes)


def write_codes(codes: tuple[int, ...], *, prefix: int = 2) -> bytes:
    """The inverse of `parse_codes`."""
    writer = Writer()
    writer.vector(b"".join(code.to_bytes(2, "big") for code in codes), prefix)
    return writer.getvalue()


def parse_u16(data: bytes) -> int:
    """A single 2-byte value: the selected version, the selected group, a record size limit."""
    reader = Reader(data)
    value = reader.u16()
    reader.finish()
    return value


def write_u16(value: int) -> bytes:
    """The inverse of `parse_u16`."""
    return value.to_bytes(2, "big")


def is_ip_address(name: str) -> bool:
    """True for a literal IPv4 or IPv6 address, which must not be sent as a server name (RFC 6066 section 3)."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def parse_server_name(data: bytes) -> str:
    """The one host_name of a ServerNameList (RFC 6066 section 3)."""
    reader = Reader(data)
    names = reader.sub(2, minimum=1)
    reader.finish()
    kind, name = names.u8(), names.vector(2, minimum=1)
    names.finish()
    if kind != 0:
        raise DecodeError(f"server name of type {kind}")
    try:
        return name.decode("ascii")
    except UnicodeDecodeError:
        raise DecodeError("server name is not ASCII") from None


def write_server_name(name: str) -> bytes:
    """A ServerNameList with one host_name; ValueError when `name` is not ASCII."""
    writer = Writer()
    with writer.prefixed(2):
        writer.u8(0)
        writer.vector(name.encode("ascii"), 2)
    return writer.getvalue()


def parse_alpn(data: bytes) -> tuple[str, ...]:
    """The protocol names of RFC 7301, as Latin-1 text so that every octet survives."""
    reader = Reader(data)
    names = reader.sub(2, minimum=2)
    reader.finish()
    found = []
    while names.remaining:
        found.append(names.vector(1, minimum=1).decode("latin-1"))
        _few(len(found))
    return tuple(found)


def write_alpn(protocols: tuple[str, ...]) -> bytes:
    """The inverse of `parse_alpn`."""
    writer = Writer()
    with writer.prefixed(2):
        for protocol in protocols:
            writer.vector(protocol.encode("latin-1"), 1)
    return writer.getvalue()


@dataclass(frozen=True, slots=True)
class KeyShareEntry:
    """RFC 8446 section 4.2.8."""

    group: int
    key_exchange: bytes

    @classmethod
    def parse(cls, reader: Reader) -> KeyShareEntry:
        """Read one entry."""
        return cls(reader.u16(), reader.vector(2, minimum=1))

    def write(self, writer: Writer) -> None:
        """Write one entry."""
        writer.u16(self.group)
        writer.vector(self.key_exchange, 2)


def parse_server_share(data: bytes) -> KeyShareEntry:
    """The server's key_share in a ServerHello."""
    reader = Reader(data)
    entry = KeyShareEntry.parse(reader)
    reader.finish()
    return entry


def write_server_share(entry: KeyShareEntry) -> bytes:
    """The inverse of `parse_server_share`."""
    return _HEAD.pack(entry.group, len(entry.key_exchange)) + entry.key_exchange


def parse_client_shares(data: bytes) -> tuple[KeyShareEntry, ...]:
    """The client's key_share list."""
    reader = Reader(data)
    inner = reader.sub(2)
    reader.finish()
    entries = []
    while inner.remaining:
        entries.append(KeyShareEntry(inner.u16(), inner.vector(2, minimum=1)))
        _few(len(entries))
    return tuple(entries)


def write_client_shares(entries: tuple[KeyShareEntry, ...]) -> bytes:
    """The inverse of `parse_client_shares`."""
    writer = Writer()
    with writer.prefixed(2):
        for entry in entries:
            entry.write(writer)
    return writer.getvalue()


def write_offered_psk(identity: bytes, obfuscated_age: int, binder_length: int) -> bytes:
    """pre_shared_key with one identity and a binder of zeros, to be filled in last (RFC 8446 section 4.2.11)."""
    writer = Writer()
    with writer.prefixed(2):
        writer.vector(identity, 2)
        writer.u32(obfuscated_age)
    with writer.prefixed(2):
        writer.vector(bytes(binder_length), 1)
    return writer.getvalue()


@dataclass(frozen=True, slots=True)
class OfferedPsks:
    """The client's pre_shared_key: identities with their obfuscated ages (milliseconds), and as many binders."""

    identities: tuple[tuple[bytes, int], ...]
    binders: tuple[bytes, ...]

    @property
    def binders_length(self) -> int:
        """Bytes of the list of binders at the end of the ClientHello, its length included."""
        return 2 + sum(1 + len(binder) for binder in self.binders)


def parse_offered_psks(data: bytes) -> OfferedPsks:
    """The pre_shared_key of a ClientHello (RFC 8446 section 4.2.11)."""
    reader = Reader(data)
    inner = reader.sub(2, minimum=7)
    identities = []
    while inner.remaining:
        identities.append((inner.vector(2, minimum=1), inner.u32()))
        _few(len(identities))
    inner = reader.sub(2, minimum=33)
    reader.finish()
    binders = []
    while inner.remaining:
        binders.append(inner.vector(1, minimum=32))
        _few(len(binders))
    if len(binders) != len(identities):
        raise IllegalParameter(f"{len(identities)} pre-shared keys with {len(binders)} binders")
    return OfferedPsks(tuple(identities), tuple(binders))


def parse_psk_modes(data: bytes) -> bytes:
    """The PskKeyExchangeModes of RFC 8446 section 4.2.9, one byte each."""
    reader = Reader(data)
    return _whole(reader, reader.vector(1, minimum=1))


def binders_length(binder_length: int) -> int:
    """Bytes that one binder of `binder_length` bytes takes at the end of a ClientHello, lengths included."""
    return 2 + 1 + binder_length


def write_status_request() -> bytes:
    """An OCSP status_request without responder ids and extensions (RFC 6066 section 8)."""
    return b"\x01\x00\x00\x00\x00"


def parse_status_request(data: bytes) -> bool:
    """True when an OCSP response is asked for; other kinds of status are well-formed whatever they say."""
    reader = Reader(data)
    if reader.u8() != 1:
        return False
    reader.vector(2)
    reader.vector(2)
    reader.finish()
    return True


def parse_certificate_status(data: bytes) -> bytes:
    """The OCSP response in DER of a CertificateStatus (RFC 6066 section 8)."""
    reader = Reader(data)
    kind = reader.u8()
    if kind != 1:
        raise DecodeError(f"certificate status of type {kind}")
    return _whole(reader, reader.vector(3, minimum=1))


def write_certificate_status(response: bytes) -> bytes:
    """The inverse of `parse_certificate_status`."""
    writer = Writer()
    writer.u8(1)
    writer.vector(response, 3)
    return writer.getvalue()


def parse_names(data: bytes) -> tuple[bytes, ...]:
    """DistinguishedName authorities<..>, each in DER (RFC 8446 section 4.2.4)."""
    reader = Reader(data)
    inner = reader.sub(2)
    reader.finish()
    names = []
    while inner.remaining:
        names.append(inner.vector(2, minimum=1))
    return tuple(names)


def write_names(names: tuple[bytes, ...]) -> bytes:
    """The inverse of `parse_names`."""
    writer = Writer()
    with writer.prefixed(2):
        for name in names:
            writer.vector(name, 2)
    return writer.getvalue()


def parse_point_formats(data: bytes) -> bytes:
    """The ECPointFormatList of RFC 8422 section 5.1.2, one byte each."""
    reader = Reader(data)
    return _whole(reader, reader.vector(1, minimum=1))


def parse_renegotiation_info(data: bytes) -> bytes:
    """The renegotiated_connection of RFC 5746 section 3.2, empty in a first handshake."""
    reader = Reader(data)
    return _whole(reader, reader.vector(1))


def parse_cookie(data: bytes) -> bytes:
    """The cookie of a HelloRetryRequest (RFC 8446 section 4.2.2)."""
    reader = Reader(data)
    return _whole(reader, reader.vector(2, minimum=1))


def expect_empty(data: bytes) -> None:
    """An extension whose presence is all it says; DecodeError when it has a body."""
    if data:
        raise DecodeError("an extension that must be empty is not")
