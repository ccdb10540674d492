"""Dead peer detection of one ISAKMP SA (RFC 3706): when to ask, what answers, when the peer is dead.

Sends nothing itself and knows no message.
"""

from __future__ import annotations

from locum.ike.configuration import Timing

#: The sequence number is 32 bits long and begins below half of that (RFC 3706 section 6.2).
_MODULUS = 1 << 32

#: Bytes of a sequence number in R-U-THERE and its answer.
SEQUENCE_LENGTH = 4


class Liveness:
    """Asks after `Timing.liveness` seconds of silence, and again like any request that is not answered.

    `able` is False where the peer knows no dead peer detection: then nothing is asked.
    """

    __slots__ = ("_asked", "_heard_at", "_next_at", "_sequence", "_timing", "able")

    def __init__(self, timing: Timing, first_sequence: int, *, able: bool, now: float) -> None:
        self.able = able
        self._timing = timing
        self._sequence = first_sequence % (_MODULUS // 2)
        self._heard_at = now
        #: transmissions of the question that is open
        self._asked = 0
        self._next_at = 0.0

    def heard(self, *, now: float) -> None:
        """An authentic message came: the peer is alive."""
        self._heard_at = now
        self._asked = 0

    def next_timeout(self) -> float | None:
        """When `due` is to be looked at; None for never."""
        if not self.able:
            return None
        if self._asked:
            return self._next_at
        return self._heard_at + self._timing.liveness if self._timing.liveness else None

    def due(self, *, now: float) -> bool:
        """True when the peer is to be asked now."""
        at = self.next_timeout()
        return at is not None and now >= at and not self.dead(now=now)

    def dead(self, *, now: float) -> bool:
        """True when the peer was asked often enough."""
        return self._asked >= self._timing.attempts and now >= self._next_at

    @property
    def asking(self) -> bool:
        """True while a question is open."""
        return self._asked > 0

    def ask(self, *, now: float) -> bytes:
        """Note that the peer is asked, and return the sequence number to ask with."""
        if not self._asked:
            self._sequence = (self._sequence + 1) % _MODULUS
        timing = self._timing
        self._next_at = now + min(timing.retransmission * 2**self._asked, timing.longest_retransmission)
        self._asked += 1
        return self._sequence.to_bytes(SEQUENCE_LENGTH, "big")
