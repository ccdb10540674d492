"""What a key server does at most for one edge and for all: the numbers, and the bucket that counts requests.

Never knows what is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Requests that an edge may ask at once after a rest, as a multiple of what it may ask in a second.
BURST_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one process of a key server; times in seconds."""

    #: Requests per second of one edge in the long run, unless its record says otherwise.
    rate: float = 100_000.0
    #: Connections that are open at once, and of these, such whose TLS handshake has not ended.
    connections: int = 4096
    handshakes: int = 512
    #: For the TLS handshake, and for the rest of a message that has begun.
    handshake_seconds: float = 10.0
    message_seconds: float = 10.0
    #: Without any message.
    idle_seconds: float = 600.0
    #: Microseconds of work that are done at once while others may be waiting.
    turn: int = 2000
    #: An operation that takes longer, in microseconds, waits for its connection's turn.
    short: int = 100
    #: An operation is never longer than this, in microseconds: RSA of 8192 bits takes 14,000.
    longest: int = 1_000_000
    #: Bytes of requests of one connection that wait, before no more of them are read.
    waiting: int = 128 * 1024
    #: Operations of one connection that are under way elsewhere.
    under_way: int = 256


class Bucket:
    """The tokens of one edge: `rate` more each second, up to what it may ask at once.

    Time is any clock in seconds that never runs backwards.
    """

    __slots__ = ("_counted", "_most", "_rate", "tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._most = max(1.0, rate * BURST_SECONDS)
        self.tokens = self._most
        self._counted = now

    def change(self, rate: float) -> None:
        """Go on at another rate."""
        if rate != self._rate:
            self._rate = rate
            self._most = max(1.0, rate * BURST_SECONDS)
            self.tokens = min(self.tokens, self._most)

    def refill(self, now: float) -> int:
        """Count what has come since the last time; returns the whole tokens that there are."""
        self.tokens = min(self._most, self.tokens + max(0.0, now - self._counted) * self._rate)
        self._counted = now
        return int(self.tokens)
