"""Sequence numbers of an association: each sent once, each accepted once, and the limits on their use.

Knows neither keys nor packets (RFC 4303 sections 2.2, 3.3.3, 3.4.3 and Appendix A; RFC 4302 the same).
"""

from __future__ import annotations

from locum.errors import ConfigurationError
from locum.ipsec.faults import LifetimeExpired, Replayed, SequenceExhausted
from locum.ipsec.sa import SecurityAssociation

_LOW = (1 << 32) - 1
#: The last sequence number, without and with extended sequence numbers.
LAST_SEQUENCE = _LOW
LAST_EXTENDED_SEQUENCE = (1 << 64) - 1

_UNLIMITED = float("inf")
#: The longest payload of a packet, in bytes, and the most packets that are counted at once.
_LONGEST = 65_535
_LARGEST_RUN = 4096

#: After so many packets one after the other that are not authentic, the upper half of an extended number is looked
#: for in so many next places (RFC 4303 Appendix A2.3). A forger makes a receiver verify that much more.
RESYNCHRONIZE_AFTER = 32
RESYNCHRONIZE_PLACES = 4


class OutboundSequence:
    """Hands out the sequence numbers of an outbound association, each once, and counts what was protected.

    Not for use by several threads at a time. `first` is the first number given out, 1 in a new association;
    one that is taken up again after a restart begins beyond all that can have been used before, or nonces
    repeat.
    """

    __slots__ = ("_first", "_hard_bytes", "_last", "_last_packet", "bytes", "sequence")

    def __init__(self, sa: SecurityAssociation, *, first: int = 1) -> None:
        self._last = LAST_EXTENDED_SEQUENCE if sa.extended_sequence else LAST_SEQUENCE
        if not 1 <= first <= self._last:
            raise ConfigurationError(f"an IPsec sequence number is within 1..{self._last}, not {first}")
        limit = sa.lifetime.hard_packets
        self._last_packet = self._last if limit is None else min(self._last, first - 1 + limit)
        self._hard_bytes = _UNLIMITED if sa.lifetime.hard_bytes is None else sa.lifetime.hard_bytes
        #: the last number given out
        self.sequence = first - 1
        self._first = first
        #: bytes protected so far, before protection
        self.bytes = 0

    @property
    def packets(self) -> int:
        """Numbers given out so far."""
        return self.sequence - self._first + 1

    def next(self, length: int) -> int:
        """The next number, for a packet of `length` bytes. Raises: SequenceExhausted, LifetimeExpired."""
        sequence = self.sequence + 1
        total = self.bytes + length
        if sequence > self._last_packet or total > self._hard_bytes:
            raise self._refusal(sequence)
        self.sequence = sequence
        self.bytes = total
        return sequence

    def next_run(self, packets: int, length: int) -> int:
        """The first of as many numbers as there are packets, `length` bytes altogether. Raises: as `next`."""
        last, total = self.sequence + packets, self.bytes + length
        if last > self._last_packet or total > self._hard_bytes:
            raise self._refusal(last)
        first = self.sequence + 1
        self.sequence = last
        self.bytes = total
        return first

    def _refusal(self, sequence: int) -> SequenceExhausted | LifetimeExpired:
        if sequence > self._last:
            return SequenceExhausted("the sequence numbers of an association are used up: it must be replaced")
        return LifetimeExpired("an association has protected as much as it may: it must be replaced")


class ReplayWindow:
    """Which sequence numbers have been seen: the highest, and a bit for each of the `size` up to it.

    `size` 0 stands for no anti-replay service; then every number is acceptable.
    """

    __slots__ = ("_mask", "_seen", "_size", "highest")

    def __init__(self, size: int) -> None:
        self._size = size
        self._mask = (1 << size) - 1
        # Number 0 is never sent, so it counts as seen.
        self._seen = 1
        self.highest = 0

    def acceptable(self, sequence: int) -> bool:
        """True unless `sequence` was seen or lies behind the window."""
        behind = self.highest - sequence
        return behind < 0 or not self._size or (behind < self._size and not self._seen >> behind & 1)

    def accept(self, sequence: int) -> None:
        """Remember an acceptable `sequence`, after its packet has been authenticated."""
        ahead = sequence - self.highest
        if ahead > 0:
            self.highest = sequence
            # A jump beyond the window leaves nothing of it; shifting by its length would cost memory.
            self._seen = (self._seen << ahead & self._mask if ahead < self._size else 0) | 1
        elif -ahead < self._size:
            self._seen |= 1 << -ahead

    def extend(self, low: int) -> int:
        """The 64-bit number whose lower half `low` came in a packet (RFC 4303 Appendix A2.2).

        It is the one within reach of the window; negative when there is none, before the first packet or beyond
        the last possible.
        """
        high, top = self.highest >> 32, self.highest & _LOW
        bottom = top - self._size + 1
        if bottom >= 0:
            if low < bottom:
                high = high + 1 if high < _LOW else -1
        elif low >= bottom & _LOW:
            high -= 1
        return (high << 32) + low


class InboundSequence(ReplayWindow):
    """The window of an inbound association, which also counts what was accepted and enforces its limits."""

    __slots__ = ("_extended", "_failures", "_hard_bytes", "_hard_packets", "bytes", "packets")

    def __init__(self, sa: SecurityAssociation) -> None:
        super().__init__(sa.replay_window)
        self._extended = sa.extended_sequence
        self._hard_packets = _UNLIMITED if sa.lifetime.hard_packets is None else sa.lifetime.hard_packets
        self._hard_bytes = _UNLIMITED if sa.lifetime.hard_bytes is None else sa.lifetime.hard_bytes
        self._failures = 0
        #: packets accepted so far, and their bytes without protection
        self.packets = 0
        self.bytes = 0

    def check(self, low: int) -> int:
        """The whole sequence number for the 32 bits in a packet, if that packet may be new.

        To be called before the packet is authenticated. Raises: Replayed, LifetimeExpired.
        """
        sequence = self.extend(low) if self._extended else low
        # Beyond the highest is new, and usual; the window need not be asked.
        if sequence <= self.highest and (sequence <= 0 or not self.acceptable(sequence)):
            raise Replayed("a packet was seen before, or is too old to tell")
        if self.packets >= self._hard_packets or self.bytes >= self._hard_bytes:
            raise LifetimeExpired("an association has accepted as much as it may")
        return sequence

    def count(self, sequence: int, length: int) -> None:
        """Accept a packet of `length` bytes that has been authenticated, and its number never again."""
        self.accept(sequence)
        self._failures = 0
        self.packets += 1
        self.bytes += length

    def candidates(self, sequence: int) -> list[int]:
        """Other numbers to try for a packet that was not authentic with this one.

        There are none most of the time. But where 2^32 packets or more were lost one after the other, every packet
        would fail for ever (RFC 4303 Appendix A2.3).
        """
        if not self._extended:
            return []
        self._failures += 1
        if self._failures < RESYNCHRONIZE_AFTER:
            return []
        self._failures = 0
        low, high = sequence & _LOW, self.highest >> 32
        places = (((high + ahead) << 32) + low for ahead in range(1, RESYNCHRONIZE_PLACES + 1))
        return [number for number in places if number != sequence and number <= LAST_EXTENDED_SEQUENCE]

    @property
    def allowance(self) -> int:
        """So many packets behind the highest number can be accepted at once, whatever their length."""
        last = LAST_EXTENDED_SEQUENCE if self._extended else LAST_SEQUENCE
        packets = min(last - self.highest, self._hard_packets - self.packets, _LARGEST_RUN)
        return max(0, int(min(packets, (self._hard_bytes - self.bytes) // _LONGEST)))

    def count_run(self, packets: int, length: int) -> None:
        """Accept so many packets, of the numbers that follow the highest, `length` bytes altogether."""
        self.highest += packets
        self._failures = 0
        self._seen = (self._seen << packets | (1 << packets) - 1) & self._mask | 1
        self.packets += packets
        self.bytes += length
