"""The CHILD_SAs of one ISAKMP SA and their times: when each needs a successor, and when it must go.

Sends nothing and knows no key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from locum.ike.configuration import Timing
from locum.ike.engine import Child
from locum.ike.traffic_selectors import TrafficSelector
from locum.ipsec.sa import Protocol

#: Seconds that a CHILD_SA lives on after its successor was made, for packets that are under way: where we began
#: the quick mode, and where the peer did, which should delete the old one itself but may not.
OVERLAP = 3.0
OVERLAP_OF_PEER = 6.0

#: Pairs of associations under one ISAKMP SA; beyond it the peer is refused more.
MAX_CHILDREN = 128


@dataclass(slots=True, eq=False, kw_only=True)
class Kept:
    """One CHILD_SA; `initiator` tells whether we began its quick mode, `replaces` what it is the successor of.

    `renew_at` is None while a successor is being made and once there is one. At `retire_at` it goes because it has
    been replaced; at `remove_at` in any case.
    """

    child: Child
    local: TrafficSelector
    remote: TrafficSelector
    initiator: bool
    remove_at: float
    renew_at: float | None
    retire_at: float | None = None
    replaces: Kept | None = None

    @property
    def traffic(self) -> tuple[TrafficSelector, TrafficSelector]:
        """What it is for: another one for the same is its successor."""
        return self.local, self.remote

    @property
    def rank(self) -> list[int]:
        """The same at both ends: of two successors made at once the lower one goes."""
        return sorted((self.child.inbound.spi, self.child.outbound.spi))

    @property
    def due(self) -> float:
        """When something is to be done about it."""
        return min(each for each in (self.renew_at, self.retire_at, self.remove_at) if each is not None)

    def retire(self, *, ours: bool, now: float) -> None:
        """It has been replaced, or is one successor too many; `ours` tells whether that is for us to clear up."""
        self.renew_at = None
        self.retire_at = now + (OVERLAP if ours else OVERLAP_OF_PEER)


class Children:
    """Those in force, oldest first."""

    def __init__(self) -> None:
        self._kept: list[Kept] = []

    def __iter__(self) -> Iterator[Kept]:
        return iter(tuple(self._kept))

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, kept: Kept) -> None:
        """Put one in."""
        self._kept.append(kept)

    def remove(self, kept: Kept) -> None:
        """Take one out."""
        self._kept.remove(kept)

    def clear(self) -> None:
        """Forget them all."""
        self._kept.clear()

    def add_all(self, others: Children) -> None:
        """Put in what others have, as younger."""
        self._kept += others._kept

    def find(self, child: Child) -> Kept | None:
        """What is kept of this child."""
        return next((each for each in self._kept if each.child is child), None)

    def sent_under(self, protocol: Protocol, spi: int) -> Kept | None:
        """The child whose packets to the peer have this SPI, which the peer chose."""
        return next(
            (
                each
                for each in self._kept
                if each.child.outbound.spi == spi and each.child.outbound.protocol is protocol
            ),
            None,
        )

    def newest_for(
        self, traffic: tuple[TrafficSelector, TrafficSelector], among: Collection[Kept] | None = None
    ) -> Kept | None:
        """The youngest for the same traffic, of all or of those in `among`."""
        return next(
            (
                each
                for each in reversed(self._kept)
                if each.traffic == traffic and (among is None or each in among)
            ),
            None,
        )

    def successors_of(self, old: Kept) -> list[Kept]:
        """Those that replace it: more than one where both ends made one at the same time."""
        return [each for each in self._kept if each.replaces is old]

    def next_timeout(self) -> float | None:
        """When the next must be renewed or removed."""
        return min((each.due for each in self._kept), default=None)


def renewal(lifetime: float, timing: Timing, random: Callable[[int], bytes]) -> float:
    """Seconds after which a successor is made, where `lifetime` ends it: the margin less up to a half of it."""
    share = int.from_bytes(random(2), "big") / (1 << 17)
    return lifetime * (1 - timing.margin * (1 - share))
