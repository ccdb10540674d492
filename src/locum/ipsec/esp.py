"""ESP: payloads sealed into packets and opened again, with padding, numbering and anti-replay (RFC 4303, B13).

Knows what comes after the IP header only; how it got there, and what the policy says, is not its business.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from locum.crypto.symmetric import AuthenticationFailed
from locum.errors import DecodeError
from locum.ipsec.faults import UnknownAssociation
from locum.ipsec.ip import IPV4, IPV4_HEADER, IPV6, IPV6_HEADER, NO_NEXT_HEADER, inner_length
from locum.ipsec.protection import HEADER_LENGTH, protection
from locum.ipsec.sa import SecurityAssociation
from locum.ipsec.sequence import InboundSequence, OutboundSequence

#: Pad length and next header, at the end of every plaintext.
_TRAILER_LENGTH = 2
#: The longest payload, in bytes: what an IP packet can be long.
MAX_PAYLOAD = 65_535

#: _PADDING[n] are n bytes of padding, 1, 2, 3, ... (RFC 4303 section 2.4).
_PADDING = tuple(bytes(range(1, length + 1)) for length in range(256))


class Opened(NamedTuple):
    """What was inside of an ESP packet; `next_header` is the IP protocol of `payload`."""

    next_header: int
    payload: bytes


class EspSender:
    """The sending end of an outbound ESP association. Not for use by several threads at a time.

    `first_sequence`: see `OutboundSequence`; a number, and with it an IV, is never used twice.
    """

    __slots__ = ("_alignment", "_next", "_seal", "_seal_run", "_trailers", "overhead", "sa", "sequence")

    def __init__(self, sa: SecurityAssociation, *, first_sequence: int = 1) -> None:
        encryption = sa.encryption
        assert encryption is not None
        self.sa = sa
        self.sequence = OutboundSequence(sa, first=first_sequence)
        self._next = self.sequence.next
        key = protection(sa)
        self._seal, self._seal_run = key.seal, key.seal_run
        self._alignment = encryption.alignment
        self._trailers = _Trailers(encryption.alignment)
        #: the most bytes by which a sealed packet is longer than its payload
        self.overhead = HEADER_LENGTH + encryption.iv_length + encryption.alignment + 1 + _icv_length(sa)

    def room(self, length: int) -> int:
        """The longest payload, in bytes, of which the ESP packet is no longer than `length` bytes."""
        encryption = self.sa.encryption
        assert encryption is not None
        blocks = (length - HEADER_LENGTH - encryption.iv_length - _icv_length(self.sa)) // self._alignment
        return blocks * self._alignment - _TRAILER_LENGTH

    def seal(self, payload: bytes, next_header: int, *, traffic_flow_padding: int = 0) -> bytes:
        """An ESP packet, from SPI to ICV, around a payload of the IP protocol `next_header`.

        `traffic_flow_padding` appends so many zero bytes to hide the length; only for payloads that say their
        own length, as IP packets do (RFC 4303 section 2.7).
        Raises: SequenceExhausted, LifetimeExpired; ValueError for a payload beyond `MAX_PAYLOAD`.
        """
        if traffic_flow_padding:
            payload += bytes(traffic_flow_padding)
        length = len(payload)
        if length > MAX_PAYLOAD:
            raise ValueError(f"a payload of {length} bytes")
        number = self._next(length)
        return self._seal(number, payload + self._trailers[next_header][length % self._alignment])

    def seal_packets(self, packets: Sequence[bytes]) -> list[bytes]:
        """Tunnel mode without outer headers: an ESP packet around each of these IP packets, in order.

        What a sender hands to a UDP socket, many at a time; the packets are those that a policy has looked at, and
        none is empty. Raises as `seal` does; then none is sealed, and no number is used.
        """
        alignment = self._alignment
        ipv4, ipv6 = self._trailers[IPV4], self._trailers[IPV6]
        number = self.sequence.next_run(len(packets), sum(map(len, packets)))
        return self._seal_run(
            number,
            [packet + (ipv6 if packet[0] & 0x20 else ipv4)[len(packet) % alignment] for packet in packets],
        )

    def dummy(self, length: int) -> bytes:
        """A packet of `length` bytes of nothing, which the receiver drops (RFC 4303 section 2.6)."""
        return self.seal(bytes(length), NO_NEXT_HEADER)


class _Trailers(dict[int, tuple[bytes, ...]]):
    """For each next header: padding, pad length and next header, by what a payload's length leaves over."""

    def __init__(self, alignment: int) -> None:
        self._alignment = alignment

    def __missing__(self, next_header: int) -> tuple[bytes, ...]:
        table = []
        for remainder in range(self._alignment):
            padding = -(remainder + _TRAILER_LENGTH) % self._alignment
            table.append(_PADDING[padding] + bytes((padding, next_header)))
        self[next_header] = trailers = tuple(table)
        return trailers


class EspReceiver:
    """The receiving end of an inbound ESP association. Not for use by several threads at a time."""

    __slots__ = (
        "_alignment",
        "_check",
        "_count",
        "_minimum",
        "_open",
        "_open_run",
        "_spi",
        "_trailers",
        "sa",
        "sequence",
    )

    def __init__(self, sa: SecurityAssociation) -> None:
        encryption = sa.encryption
        assert encryption is not None
        self.sa = sa
        self.sequence = InboundSequence(sa)
        self._check, self._count = self.sequence.check, self.sequence.count
        self._spi = sa.spi.to_bytes(4, "big")
        key = protection(sa)
        self._open, self._open_run = key.open, key.open_run
        self._alignment = encryption.alignment
        self._trailers = _Trailers(encryption.alignment)
        self._minimum = HEADER_LENGTH + encryption.iv_length + _TRAILER_LENGTH + _icv_length(sa)

    def open(self, packet: bytes) -> Opened | None:
        """What is inside of an ESP packet, from SPI to ICV; None when it is a dummy packet.

        Traffic flow padding is still there: only what is inside knows its length.
        Raises: UnknownAssociation, Replayed, LifetimeExpired, AuthenticationFailed, DecodeError.
        """
        plaintext, end = self._open_whole(packet)
        next_header = plaintext[-1]
        return None if next_header == NO_NEXT_HEADER else Opened(next_header, plaintext[:end])

    def open_packet(self, packet: bytes) -> bytes | None:
        """Tunnel mode without outer headers: the IP packet inside, without traffic flow padding; None for a dummy.

        Raises: as `open`; DecodeError when it is no IP packet.
        """
        plaintext, end = self._open_whole(packet)
        next_header = plaintext[-1]
        if next_header == NO_NEXT_HEADER:
            return None
        return plaintext[: inner_length(plaintext, end, next_header)]

    def open_run(self, packets: Sequence[bytes], start: int) -> tuple[list[bytes], int]:
        """Tunnel mode: what is inside of packets[start:] as far as each has the next number, and where that ends.

        What is out of turn, a dummy, padded to hide its length, not authentic, or close to a limit, ends the run,
        and is left to `open_packet`, which takes it or says what is wrong with it. Raises nothing.
        """
        sequence, alignment = self.sequence, self._alignment
        ipv4, ipv6 = self._trailers[IPV4], self._trailers[IPV6]
        run = packets[start : start + sequence.allowance]
        opened: list[bytes] = []
        for plaintext in self._open_run(run, sequence.highest + 1, self._minimum):
            if len(plaintext) < IPV4_HEADER:
                break
            version = plaintext[0] >> 4
            if version == 4:
                end = plaintext[2] << 8 | plaintext[3]
                trailer = ipv4[end % alignment]
            else:
                end = IPV6_HEADER + (plaintext[4] << 8 | plaintext[5])
                trailer = ipv6[end % alignment]
            # Padding, its length and the next header: there is only one that fits, unless lengths are hidden.
            if plaintext[end:] != trailer or end < IPV4_HEADER or version not in (4, 6):
                break
            opened.append(plaintext[:end])
        if opened:
            sequence.count_run(len(opened), sum(map(len, opened)))
        return opened, start + len(opened)

    def _open_whole(self, packet: bytes) -> tuple[bytes, int]:
        """The plaintext of a packet that is authentic and new, and where in it the payload ends."""
        if len(packet) < self._minimum:
            raise DecodeError(f"an ESP packet of {len(packet)} bytes, less than {self._minimum}")
        if packet[:4] != self._spi:
            raise UnknownAssociation("an ESP packet of another association")
        number = self._check(int.from_bytes(packet[4:8], "big"))
        try:
            plaintext = self._open(packet, number)
        except AuthenticationFailed:
            number, plaintext = self._resynchronize(packet, number)
        padding = plaintext[-2]
        end = len(plaintext) - _TRAILER_LENGTH - padding
        if end < 0 or (padding and plaintext[end:-2] != _PADDING[padding]):
            # It is authentic, so its number is used up.
            self._count(number, 0)
            raise DecodeError("the padding of an ESP packet is not 1, 2, 3, ...")
        self._count(number, end)
        return plaintext, end

    def _resynchronize(self, packet: bytes, number: int) -> tuple[int, bytes]:
        """Number and plaintext of a packet that is not authentic with `number`. Raises: AuthenticationFailed."""
        for candidate in self.sequence.candidates(number):
            with suppress(AuthenticationFailed):
                return candidate, self._open(packet, candidate)
        raise AuthenticationFailed("an ESP packet that is not authentic")


def _icv_length(sa: SecurityAssociation) -> int:
    if sa.integrity is not None:
        return sa.integrity.icv_length
    assert sa.encryption is not None
    return sa.encryption.icv_length
