"""TCP segments of one stream put together before the kernel sees them, as network cards do it (GRO).

Knows IP and TCP headers, and nothing of where packets come from. The checksum of what comes out is computed from
those of what went in and not from the data: what was altered before is found out by the receiver as ever.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from locum.dataplane.tun import GSO_TCP4, GSO_TCP6
from locum.ipsec.ip import IPV4_HEADER, IPV6_HEADER, MAX_PACKET, TCP, set_length

#: Segments in one packet: one call can write 1,024 pieces (IOV_MAX), and more than this has no use.
MAX_SEGMENTS = 256

#: An IP header without options and what follows of TCP's: version and traffic class; fragmentation, TTL and
#: protocol; addresses and ports; sequence number; acknowledgment, data offset, flags and window; checksum; urgent
#: pointer. Without the length, identification and header checksum of IPv4.
_IPV4 = struct.Struct("!H4xI2x12sI8sHH")
#: The same in IPv6, flow label, next header and hop limit in the places of what it does not have.
_IPV6 = struct.Struct("!I2xH36sI8sHH")
_CHECKSUM_FIELD = 5

_PLAIN_IPV4 = 0x45
_TCP_HEADER = 20
_TCP_CHECKSUM = 16
#: Within acknowledgment, data offset, flags and window.
_OFFSET_AT, _FLAGS_AT = 4, 5
_FLAGS_IN_HEADER = 13
_ACK, _PSH = 0x10, 0x08
_ACK_PSH = bytes((_ACK | _PSH,))
_MODULUS = 0xFFFF
_SEQUENCE = 0xFFFF_FFFF


class Segments(NamedTuple):
    """What `TunDevice.write_segments` takes."""

    kind: int
    header: bytes
    segment_size: int
    segments: list[bytes]


class Gathered(NamedTuple):
    """Packets that follow one another: `first` of them whole; `segments` is None where it is alone."""

    first: bytes
    segments: Segments | None


def gather(packets: Sequence[bytes]) -> Iterator[Gathered]:
    """The packets in their order, in one piece those that continue one another.

    They are IP packets, each as long as it says. One continues another of the same stream when it has the next
    sequence number, the same length or, as the last, less, and everything else in its headers is the same, but for
    the IPv4 identification and for PSH, which only the last has.
    """
    index, count = 0, len(packets)
    while index < count:
        first = packets[index]
        stream = _begin(first)
        index += 1
        if stream is not None:
            index = stream.follow(packets, index)
            yield stream.finish()
        else:
            yield Gathered(first, None)


def _begin(packet: bytes) -> _Stream | None:
    """A stream that begins with a segment with data and without any flag but ACK; None for any other packet."""
    version4 = packet[0] == _PLAIN_IPV4
    layout, ip_header = (_IPV4, IPV4_HEADER) if version4 else (_IPV6, IPV6_HEADER)
    if len(packet) < layout.size:
        return None
    start, middle, _, _, rest, _, urgent = layout.unpack_from(packet)
    if version4:
        # Neither a fragment nor the reserved bit; protocol TCP.
        fits = middle & 0xBFFF_00FF == TCP
    else:
        fits = start >> 28 == 6 and middle >> 8 == TCP
    header = ip_header + (rest[_OFFSET_AT] >> 4) * 4
    payload = len(packet) - header
    # Sums of odd pieces do not add up.
    if not fits or payload <= 0 or payload & 1 or urgent or rest[_FLAGS_AT] != _ACK:
        return None
    if rest[_OFFSET_AT] & 0x0F or header < ip_header + _TCP_HEADER:
        return None
    return _Stream(packet, layout, ip_header, header)


class _Stream:
    """A segment and those that continue it."""

    __slots__ = ("_first", "_header", "_ip_header", "_layout", "_payloads", "_pushed", "_sum")

    def __init__(self, packet: bytes, layout: struct.Struct, ip_header: int, header: int) -> None:
        """`ip_header` is the length of the IP header, `header` that of the TCP header besides, in bytes."""
        self._first = packet
        self._layout = layout
        self._ip_header = ip_header
        self._header = header
        self._payloads = [packet[header:]]
        self._pushed = False
        self._sum = layout.unpack_from(packet)[_CHECKSUM_FIELD]

    def follow(self, packets: Sequence[bytes], index: int) -> int:
        """Take what continues the stream of packets[index:]; returns where that ends."""
        unpack, header, payloads, total = self._layout.unpack_from, self._header, self._payloads, self._sum
        start, middle, addresses, sequence, rest, _, _ = unpack(self._first)
        options_at = self._ip_header + _TCP_HEADER
        options, length = self._first[options_at:header], len(self._first)
        size = length - header
        last = rest[:_FLAGS_AT] + _ACK_PSH + rest[_FLAGS_AT + 1 :]
        end = min(len(packets), index - 1 + min(MAX_SEGMENTS, (MAX_PACKET - header) // size))
        while index < end:
            packet = packets[index]
            if not header < len(packet) <= length:
                break
            start_, middle_, addresses_, sequence_, rest_, checksum, urgent = unpack(packet)
            if (
                sequence_ != (sequence + size) & _SEQUENCE
                or addresses_ != addresses
                or middle_ != middle
                or start_ != start
                or (rest_ != rest and rest_ != last)
                or packet[options_at:header] != options
                or urgent
            ):
                break
            payloads.append(packet[header:])
            sequence = sequence_
            total += sequence + checksum
            index += 1
            if rest_ == last:
                self._pushed = True
                break
            if len(packet) != length:
                break
        self._sum = total
        return index

    def finish(self) -> Gathered:
        """All of it in one piece."""
        count = len(self._payloads)
        if count == 1:
            return Gathered(self._first, None)
        at, end = self._ip_header, self._header
        header = bytearray(self._first[:end])
        if self._pushed:
            header[at + _FLAGS_IN_HEADER] |= _PSH
        # Pseudo header, header and data of every segment add up to 0 modulo 2^16 - 1, and so must those of the
        # whole. All of its headers but one are missing there, and so is what made up for them in the checksums:
        # what they have in common and, already in the sum, their sequence numbers.
        _, _, addresses, _, rest, _, _ = self._layout.unpack_from(self._first)
        constant = int.from_bytes(addresses + rest + header[at + _TCP_HEADER :], "big") + TCP + end - at
        checksum = (self._sum + (count - 1) * constant) % _MODULUS
        header[at + _TCP_CHECKSUM : at + _TCP_CHECKSUM + 2] = checksum.to_bytes(2, "big")
        ip = header[:at]
        set_length(ip, end + sum(map(len, self._payloads)))
        header[:at] = ip
        kind = GSO_TCP4 if self._layout is _IPV4 else GSO_TCP6
        return Gathered(self._first, Segments(kind, bytes(header), len(self._payloads[0]), self._payloads))
