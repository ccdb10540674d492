"""AH: a header that authenticates a whole IP packet, but for what routers may change (RFC 4302, B13).

Knows IP headers and one key; tunnels and policies are not its business.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from locum.crypto.symmetric import AeadKey, AuthenticationFailed, MacKey
from locum.errors import DecodeError
from locum.ipsec.faults import HeaderRefused, UnknownAssociation
from locum.ipsec.ip import (
    DESTINATION_OPTIONS,
    HOP_BY_HOP,
    IpPacket,
    insertion_point,
    parse,
    require_whole,
    set_length,
)
from locum.ipsec.sa import Protocol as IpsecProtocol
from locum.ipsec.sa import SecurityAssociation
from locum.ipsec.sequence import InboundSequence, OutboundSequence

#: Next header, payload length, reserved, SPI and sequence number, in bytes.
FIXED_LENGTH = 12
_WORD = 4

#: IPv4 options that nothing on the way changes (RFC 4302 Appendix A1): end, no operation, security, extended
#: security, commercial security, router alert, multi-destination delivery.
_IMMUTABLE_OPTIONS = frozenset((0, 1, 130, 133, 134, 148, 149))
_SOURCE_ROUTES = frozenset((131, 137))
#: An IPv6 option whose number has this bit may change on the way (RFC 8200 section 4.2).
_MAY_CHANGE = 0x20


class AhSender:
    """The sending end of an outbound AH association. Not for use by several threads at a time.

    `first_sequence`: see `OutboundSequence`.
    """

    __slots__ = ("_extended", "_integrity", "_spi", "overhead", "sa", "sequence")

    def __init__(self, sa: SecurityAssociation, *, first_sequence: int = 1) -> None:
        self.sa = sa
        self.sequence = OutboundSequence(sa, first=first_sequence)
        self._integrity = _integrity(sa)
        self._spi = sa.spi.to_bytes(4, "big")
        self._extended = sa.extended_sequence
        #: the bytes by which a sealed packet is longer
        self.overhead = self._length(6 if sa.source.version == 6 else 4)

    def _length(self, version: int) -> int:
        """The length of the header. RFC 4302 section 3.3.3.2.1: a multiple of 4 bytes in IPv4 and of 8 in IPv6."""
        alignment = 4 if version == 4 else 8
        return -(-(FIXED_LENGTH + self._integrity.icv_length) // alignment) * alignment

    def seal(self, packet: bytes) -> bytes:
        """`packet`, a whole IP packet, with AH in it (RFC 4302 sections 3.1 and 3.3).

        Raises: FragmentRefused, HeaderRefused, PacketTooLong, SequenceExhausted, LifetimeExpired, DecodeError.
        """
        ip = parse(packet)
        require_whole(ip)
        start, protocol_at = insertion_point(ip)
        ah_length = self._length(ip.version)
        padding = bytes(ah_length - FIXED_LENGTH - self._integrity.icv_length)
        header = bytearray(packet[:start])
        next_header = header[protocol_at]
        header[protocol_at] = IpsecProtocol.AH
        set_length(header, ip.length + ah_length)
        muted = _mute(header, ip, start)
        number = self.sequence.next(ip.length)
        whole = number.to_bytes(8, "big")
        fixed = bytes((next_header, ah_length // _WORD - 2, 0, 0)) + self._spi + whole[4:]
        behind = padding + packet[start : ip.length] + (whole[:4] if self._extended else b"")
        icv = self._integrity.tag(whole, muted + fixed, behind)
        return bytes(header) + fixed + icv + padding + packet[start : ip.length]


class AhReceiver:
    """The receiving end of an inbound AH association. Not for use by several threads at a time."""

    __slots__ = ("_extended", "_integrity", "_spi", "sa", "sequence")

    def __init__(self, sa: SecurityAssociation) -> None:
        self.sa = sa
        self.sequence = InboundSequence(sa)
        self._integrity = _integrity(sa)
        self._spi = sa.spi.to_bytes(4, "big")
        self._extended = sa.extended_sequence

    def open(self, packet: bytes) -> bytes:
        """`packet`, a whole IP packet with AH in it, without AH (RFC 4302 section 3.4).

        Raises: FragmentRefused, HeaderRefused, UnknownAssociation, Replayed, LifetimeExpired,
        AuthenticationFailed, DecodeError.
        """
        ip = parse(packet)
        require_whole(ip)
        if ip.protocol != IpsecProtocol.AH:
            raise DecodeError("an IP packet without AH")
        start = ip.payload
        fixed = packet[start : start + FIXED_LENGTH]
        if len(fixed) < FIXED_LENGTH:
            raise DecodeError("an authentication header that is cut off")
        end = start + (fixed[1] + 2) * _WORD
        icv_end = start + FIXED_LENGTH + self._integrity.icv_length
        # Some align AH to 8 bytes in IPv4 too: whatever padding there is, is authenticated.
        if end > ip.length or not 0 <= end - icv_end < 8 or (ip.version == 6 and end - start & 7):
            raise DecodeError("an authentication header of another length than its algorithm asks")
        if fixed[4:8] != self._spi:
            raise UnknownAssociation("an authentication header of another association")
        number = self.sequence.check(int.from_bytes(fixed[8:12], "big"))
        header = bytearray(packet[:start])
        muted = _mute(header, ip, start)
        # The bytes that the sender did not count, behind what the IP header calls the end, are not looked at.
        icv, behind = packet[start + FIXED_LENGTH : icv_end], packet[icv_end : ip.length]
        number = self._authenticate(number, muted + fixed, icv, behind)
        self.sequence.count(number, ip.length - (end - start))
        header[ip.protocol_at] = fixed[0]
        set_length(header, ip.length - (end - start))
        return bytes(header) + packet[end : ip.length]

    def _authenticate(self, number: int, front: bytes, icv: bytes, behind: bytes) -> int:
        """The number with which a packet is authentic, mostly `number`. Raises: AuthenticationFailed."""
        if not self._extended:
            self._integrity.verify(front, icv, behind)
            return number
        try:
            self._integrity.verify(front, icv, behind + (number >> 32).to_bytes(4, "big"))
        except AuthenticationFailed:
            for candidate in self.sequence.candidates(number):
                with suppress(AuthenticationFailed):
                    self._integrity.verify(front, icv, behind + (candidate >> 32).to_bytes(4, "big"))
                    return candidate
            raise
        return number


class _Integrity(Protocol):
    """An ICV over what is in front of it and what is behind it, the ICV itself counting as zeros."""

    icv_length: int

    def tag(self, number: bytes, front: bytes, behind: bytes) -> bytes:
        """The ICV for sequence number `number`, 8 bytes."""
        ...

    def verify(self, front: bytes, icv: bytes, behind: bytes) -> None:
        """Raise `AuthenticationFailed` unless `icv` is right."""
        ...


class _Hmac:
    """HMAC-SHA2 (RFC 4868)."""

    __slots__ = ("_key", "_zeros", "icv_length")

    def __init__(self, key: MacKey) -> None:
        self._key = key
        self.icv_length = key.algorithm.tag_length
        self._zeros = bytes(self.icv_length)

    def tag(self, number: bytes, front: bytes, behind: bytes) -> bytes:
        return self._key.tag(front + self._zeros + behind)

    def verify(self, front: bytes, icv: bytes, behind: bytes) -> None:
        self._key.verify(front + self._zeros + behind, icv)


class _Gmac:
    """AES-GMAC (RFC 4543 section 4): the ICV begins with the IV, the sequence number, authenticated too."""

    __slots__ = ("_iv_length", "_key", "_salt", "_zeros", "icv_length")

    def __init__(self, key: AeadKey, salt: bytes, iv_length: int) -> None:
        self._key = key
        self._salt = salt
        self._iv_length = iv_length
        self._zeros = bytes(key.algorithm.tag_length)
        self.icv_length = iv_length + key.algorithm.tag_length

    def tag(self, number: bytes, front: bytes, behind: bytes) -> bytes:
        return number + self._key.seal(self._salt + number, b"", front + number + self._zeros + behind)

    def verify(self, front: bytes, icv: bytes, behind: bytes) -> None:
        iv, tag = icv[: self._iv_length], icv[self._iv_length :]
        self._key.open(self._salt + iv, tag, front + iv + self._zeros + behind)


def _integrity(sa: SecurityAssociation) -> _Integrity:
    integrity = sa.integrity
    assert integrity is not None
    if integrity.mac is not None:
        return _Hmac(integrity.mac.new(sa.integrity_key))
    assert integrity.gmac is not None
    length = integrity.key_length
    key = integrity.gmac.new(sa.integrity_key[:length])
    return _Gmac(key, sa.integrity_key[length:], integrity.iv_length)


def _mute(header: bytearray, ip: IpPacket, end: int) -> bytes:
    """A copy of everything in front of AH with zeros in what may change (RFC 4302 section 3.3.3.1).

    Raises: HeaderRefused where the packet has a source route, which would change addresses; DecodeError.
    """
    muted = bytearray(header)
    if ip.version == 4:
        muted[1] = 0  # DSCP and ECN
        muted[6:9] = bytes(3)  # flags, fragment offset, time to live
        muted[10:12] = bytes(2)  # checksum
        _mute_options(muted)
        return bytes(muted)
    muted[0:4] = b"\x60\0\0\0"  # traffic class and flow label
    muted[7] = 0  # hop limit
    for kind, offset, length in ip.extensions:
        if offset >= end:
            break
        if kind not in (HOP_BY_HOP, DESTINATION_OPTIONS):
            raise HeaderRefused("AH cannot protect a packet with a routing header")
        _mute_extension(muted, offset + 2, offset + length)
    return bytes(muted)


def _mute_options(header: bytearray) -> None:
    position, end = 20, len(header)
    while position < end:
        kind = header[position]
        if kind == 0:
            return
        if kind == 1:
            position += 1
            continue
        length = header[position + 1] if position + 1 < end else 0
        if length < 2 or position + length > end:
            raise DecodeError("an IPv4 option that is cut off")
        if kind in _SOURCE_ROUTES:
            raise HeaderRefused("AH cannot protect a packet with a source route")
        if kind not in _IMMUTABLE_OPTIONS:
            header[position : position + length] = bytes(length)
        position += length


def _mute_extension(header: bytearray, position: int, end: int) -> None:
    while position < end:
        if header[position] == 0:  # Pad1
            position += 1
            continue
        data = position + 2
        stop = data + header[position + 1] if data <= end else end + 1
        if stop > end:
            raise DecodeError("an IPv6 option that is cut off")
        if header[position] & _MAY_CHANGE:
            header[data:stop] = bytes(stop - data)
        position = stop
