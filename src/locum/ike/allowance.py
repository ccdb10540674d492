"""How often something may be had: a token bucket, for what others can make us do.

Knows neither who they are nor what is had.
"""

from __future__ import annotations

#: Key exchanges in a session of their own with the authority that a peer may begin under an SA and its successors,
#: in a second in the long run, and after a rest. A delegate takes 60 requests of one terminal in a second.
FURTHER_PER_SECOND = 2.0
FURTHER_AT_ONCE = 16


class Allowance:
    """At most `at_once` after a rest, and `per_second` in the long run; full at first.

    Times are in seconds of one clock that never runs backwards.
    """

    __slots__ = ("_at", "_at_once", "_left", "_per_second")

    def __init__(self, *, per_second: float, at_once: int) -> None:
        self._per_second = per_second
        self._at_once = float(at_once)
        self._left, self._at = self._at_once, 0.0

    def left(self, *, now: float) -> float:
        """How many may be had now, parts of one included."""
        gained = max(0.0, now - self._at) * self._per_second
        self._left, self._at = min(self._at_once, self._left + gained), now
        return self._left

    def take(self, *, now: float) -> bool:
        """Have one; False when there is none."""
        if self.left(now=now) < 1:
            return False
        self._left -= 1
        return True


def for_further_exchanges() -> Allowance:
    """What the peer of an SA that is established may begin."""
    return Allowance(per_second=FURTHER_PER_SECOND, at_once=FURTHER_AT_ONCE)
