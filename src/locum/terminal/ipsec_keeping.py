"""When an IPsec terminal tries again, and when it gives up: what an initiator does about an SA that failed.

Reads no clock and starts nothing: it is told what happened, and says what comes next.
"""

from __future__ import annotations

from collections.abc import Callable

from locum.errors import LocumError, TimedOut, Unavailable
from locum.ike.errors import NotifyReceived
from locum.ike.registry import NotifyType2
from locum.terminal.channel import MAXIMUM_RESTARTS, DelegateFailed

#: Seconds before the second attempt; doubled each time, and spread at random between half and all of it.
FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0

#: Seconds for which an SA must have been up for the next failure to count as the first one again.
STEADY = 30.0


class Keeper:
    """The attempts of one initiator to have an SA. All times are in seconds."""

    def __init__(self, *, delegates: int, random: Callable[[int], bytes]) -> None:
        """`delegates` is how many there are to ask."""
        self._delegates = delegates
        self._random = random
        self._failures = 0
        self._restarts = 0
        self._up_since: float | None = None
        #: there has been an SA at least once
        self.succeeded = False

    def up(self, now: float) -> None:
        """There is an SA that carries traffic."""
        self.succeeded = True
        if self._up_since is None:
            self._up_since = now
        self._restarts = 0

    def down(self, error: LocumError | None, now: float) -> float | None:
        """There is no SA any more, or it could not be made: seconds until the next attempt, None to give up.

        `error` is None when it was ended in order. Before the first success only that is tried again which may
        pass by itself: a peer or a delegate that does not answer. A delegate that failed is replaced by another
        one at once (A12).
        """
        if self._up_since is not None and now - self._up_since >= STEADY:
            self._failures = 0
        self._up_since = None
        if not self.succeeded and not _may_pass(error):
            return None
        if isinstance(error, DelegateFailed) and self._delegates > 1 and self._restarts < MAXIMUM_RESTARTS:
            self._restarts += 1
            return 0.0
        self._restarts = 0
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0**self._failures)
        # Counted no further than it makes a difference.
        self._failures += delay < LONGEST_DELAY
        return delay * (0.5 + self._random(1)[0] / 510)


def _may_pass(error: LocumError | None) -> bool:
    if isinstance(error, NotifyReceived):
        return error.notify_type == NotifyType2.TEMPORARY_FAILURE
    if isinstance(error, DelegateFailed):
        return not error.refused
    return isinstance(error, Unavailable | TimedOut)
