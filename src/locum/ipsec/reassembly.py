"""Fragments put together again, where IPsec needs whole packets (RFC 791 section 3.2, RFC 8200 section 4.5).

Knows IP headers, and no association. For packets that leave: transport mode protects whole packets only (RFC 4303
section 3.3.4), and only the first fragment shows its ports (RFC 4301 section 7).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from locum.ipsec.faults import FragmentRefused
from locum.ipsec.ip import FRAGMENT, FRAGMENT_HEADER, MAX_PACKET, Extension, IpPacket, parse, set_length

#: Packets of which fragments are waited for, and for how long, in seconds; a host sends them all at once.
MAX_PACKETS = 64
PATIENCE = 2.0
#: Fragments of one packet. With the longest packet there is this bounds the memory: 4 MiB.
MAX_FRAGMENTS = 256

#: In the first byte of the field for fragmentation.
_DONT_FRAGMENT = 0x40

#: The longest header of IPv4; in IPv6 whoever puts too much into a packet finds out later.
_LONGEST_HEADER = 60

_Key = tuple[bytes, bytes, int, bytes]


@dataclass(slots=True)
class _Partial:
    """A packet of which some fragments are there."""

    since: float
    #: its header, from the fragment that begins it
    header: bytes | None = None
    #: the length of what is behind the header, from the fragment that ends it
    length: int | None = None
    pieces: dict[int, bytes] = field(default_factory=dict)

    def whole(self) -> bytes | None:
        """Everything behind the header, once it is there without a gap."""
        if self.header is None or self.length is None:
            return None
        at = 0
        pieces = []
        for offset in sorted(self.pieces):
            if offset != at:
                return None
            pieces.append(self.pieces[offset])
            at += len(self.pieces[offset])
        return b"".join(pieces) if at == self.length else None


class Reassembly:
    """Packets whose fragments come in any order. Not for use by several threads at a time."""

    def __init__(self) -> None:
        self._partial: dict[_Key, _Partial] = {}

    def take(self, packet: bytes, now: float) -> bytes | None:
        """The whole packet once the last of its fragments is taken; `now` is in seconds, and never runs backwards.

        Fragments that overlap, or claim too much, end the packet that they are of (RFC 5722). Raises:
        FragmentRefused then, and for what is no fragment; DecodeError.
        """
        ip = parse(packet)
        if not ip.fragment:
            raise FragmentRefused("a whole packet, where fragments are put together")
        key, start, more = _identity(packet, ip)
        self._forget(now)
        partial = self._partial.setdefault(key, _Partial(now))
        piece = packet[start : ip.length]
        if not self._fits(partial, ip.fragment_offset, piece, more=more):
            del self._partial[key]
            raise FragmentRefused("fragments that do not make a packet")
        partial.pieces[ip.fragment_offset] = piece
        if not ip.fragment_offset:
            partial.header = _header(packet, ip)
        if not more:
            partial.length = ip.fragment_offset + len(piece)
        payload = partial.whole()
        if payload is None:
            return None
        del self._partial[key]
        assert partial.header is not None
        header = bytearray(partial.header)
        set_length(header, len(header) + len(payload))
        return bytes(header) + payload

    @staticmethod
    def _fits(partial: _Partial, offset: int, piece: bytes, *, more: bool) -> bool:
        end = offset + len(piece)
        return (
            len(partial.pieces) < MAX_FRAGMENTS
            and end <= MAX_PACKET - _LONGEST_HEADER
            and not (more and (len(piece) % 8 or not piece))
            and (partial.length is None or (more and end <= partial.length))
            and all(end <= other or offset >= other + len(data) for other, data in partial.pieces.items())
        )

    def _forget(self, now: float) -> None:
        """Give up what was waited for too long, and the oldest where there is too much."""
        while self._partial:
            key, oldest = next(iter(self._partial.items()))
            if len(self._partial) < MAX_PACKETS and now - oldest.since < PATIENCE:
                return
            del self._partial[key]


def _identity(packet: bytes, ip: IpPacket) -> tuple[_Key, int, bool]:
    """What fragments of one packet have in common, where their data begins, and whether more of them follow."""
    if ip.version == 4:
        return (ip.source, ip.destination, ip.protocol, packet[4:6]), ip.payload, bool(packet[6] & 0x20)
    at = _fragment_header(ip).offset
    # The protocol is that of the first fragment, whatever the others say.
    key = ip.source, ip.destination, FRAGMENT, packet[at + 4 : at + 8]
    return key, at + FRAGMENT_HEADER, bool(packet[at + 3] & 1)


def _header(packet: bytes, ip: IpPacket) -> bytes:
    """The header of the whole packet, from that of its first fragment."""
    header = bytearray(packet[: ip.payload if ip.version == 4 else _fragment_header(ip).offset])
    if ip.version == 4:
        header[6:8] = bytes((header[6] & _DONT_FRAGMENT, 0))
    else:
        at = _fragment_header(ip).offset
        before = [extension.offset for extension in ip.extensions if extension.offset < at]
        header[before[-1] if before else 6] = packet[at]
    return bytes(header)


def _fragment_header(ip: IpPacket) -> Extension:
    return next(extension for extension in ip.extensions if extension.kind == FRAGMENT)
