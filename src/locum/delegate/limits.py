"""How often each terminal may ask: one token bucket per terminal.

Never knows what is asked for, nor who is behind a name.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Terminals whose bucket is remembered. A full bucket is the same as none, so the longest unused one goes first.
MAXIMUM_BUCKETS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """Requests per second that one terminal may make in the long run, and how many at once after a rest.

    A TLS 1.3 handshake takes three requests, one under TLS 1.2 takes four.
    """

    rate: float = 60.0
    burst: float = 240.0

    def __post_init__(self) -> None:
        if self.rate <= 0 or self.burst < 1:
            raise ValueError("a rate above zero and a burst of at least one request are needed")


class RateLimiter:
    """Token buckets by terminal name; time is any clock in seconds that never runs backwards."""

    __slots__ = ("_buckets", "_limits", "_maximum")

    def __init__(self, limits: RateLimits, *, maximum: int = MAXIMUM_BUCKETS) -> None:
        self._limits = limits
        self._maximum = maximum
        # name -> [tokens, when they were counted]; the longest unused first
        self._buckets: dict[str, list[float]] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, terminal: str, now: float) -> float:
        """Take one token; return 0.0 when there was one, else the seconds until there will be one."""
        bucket = self._buckets.pop(terminal, None)
        if bucket is None:
            if len(self._buckets) >= self._maximum:
                del self._buckets[next(iter(self._buckets))]
            bucket = [self._limits.burst, now]
        tokens = min(self._limits.burst, bucket[0] + max(0.0, now - bucket[1]) * self._limits.rate)
        self._buckets[terminal] = bucket
        bucket[1] = now
        if tokens < 1.0:
            bucket[0] = tokens
            return (1.0 - tokens) / self._limits.rate
        bucket[0] = tokens - 1.0
        return 0.0

    def charge(self, terminal: str, tokens: float) -> None:
        """Take more tokens for a request that was let through, and turned out to be worth several."""
        bucket = self._buckets.get(terminal)
        if bucket is not None:
            bucket[0] -= tokens
