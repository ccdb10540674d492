"""The message ids of one ISAKMP SA: each begins one exchange and never another (RFC 2408 section 3.1).

Message ids are random, so that every one that was used must be remembered: that ends with a bounded number.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Callable

#: Exchanges of phase 2 under one ISAKMP SA, those of both ends together: 4 bytes each. After them nothing begins
#: any more, and long before that a successor should be there.
MAX_MESSAGE_IDS = 8192
ENOUGH_MESSAGE_IDS = 6144


class MessageIds:
    """The ids used so far. Only those of authentic messages belong here, or anybody could use them up."""

    __slots__ = ("_used",)

    def __init__(self) -> None:
        self._used = array("I")

    def __len__(self) -> int:
        return len(self._used)

    def __contains__(self, message_id: int) -> bool:
        at = bisect_left(self._used, message_id)
        return at < len(self._used) and self._used[at] == message_id

    @property
    def enough(self) -> bool:
        """True when it is time for another ISAKMP SA."""
        return len(self._used) >= ENOUGH_MESSAGE_IDS

    def is_new(self, message_id: int) -> bool:
        """True for an id that the peer may begin an exchange with."""
        return message_id != 0 and message_id not in self and len(self._used) < MAX_MESSAGE_IDS

    def use(self, message_id: int) -> None:
        """Note an id that was new."""
        insort(self._used, message_id)

    def draw(self, random: Callable[[int], bytes]) -> int | None:
        """A new id for an exchange of ours, which is noted; None when there were enough."""
        if len(self._used) >= MAX_MESSAGE_IDS:
            return None
        while True:
            message_id = int.from_bytes(random(4), "big")
            if self.is_new(message_id):
                self.use(message_id)
                return message_id
