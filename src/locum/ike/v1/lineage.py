"""The ISAKMP SAs that one peer and we have had one after the other, and the children that they share.

In IKEv1 a child outlives the SA it was made under. Both ends may make a successor at once, so that for a while
there are several, and the ends may differ about which comes after which; the children are safe from that here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from locum.ike.allowance import for_further_exchanges
from locum.ike.engine import IkeSa
from locum.ike.v1.kept import Children

if TYPE_CHECKING:
    from locum.ike.v1.core import Core


class Lineage:
    """SAs that are established, oldest first, and their children. Each SA begins in one of its own."""

    def __init__(self) -> None:
        self.children = Children()
        #: quick modes with a key exchange that the peer may begin, under all of them together
        self.further = for_further_exchanges()
        self._members: dict[IkeSa, Core] = {}
        #: those that have a successor, and when they are to go
        self._retiring: dict[IkeSa, float] = {}

    @property
    def members(self) -> tuple[IkeSa, ...]:
        """Oldest first."""
        return tuple(self._members)

    @property
    def leader(self) -> IkeSa | None:
        """The one that looks after the children: the youngest without a successor."""
        current = [each for each in self._members if each not in self._retiring]
        return next(reversed(current or list(self._members)), None)

    def join(self, sa: IkeSa, core: Core) -> None:
        """Take an SA in that has been established."""
        self._members[sa] = core

    def adopt(self, younger: Lineage) -> None:
        """Take in the members and children of another lineage, which comes after this one."""
        if younger is self:
            return
        self._members |= younger._members
        self._retiring |= younger._retiring
        self.children.add_all(younger.children)
        for core in younger._members.values():
            core.lineage = self
        younger._members = {}
        younger.children.clear()

    def leave(self, sa: IkeSa) -> None:
        """Take an SA out that is over."""
        self._members.pop(sa, None)
        self._retiring.pop(sa, None)

    def supersede(self, sa: IkeSa, *, until: float) -> None:
        """Say that an SA has a successor, and stays until then at most."""
        self._retiring[sa] = min(until, self._retiring.get(sa, until))

    def is_superseded(self, sa: IkeSa) -> bool:
        """True when an SA has a successor."""
        return sa in self._retiring

    def retires_at(self, sa: IkeSa) -> float | None:
        """When an SA is to go, None for one without a successor."""
        return self._retiring.get(sa)

    def revive(self, sa: IkeSa) -> None:
        """The successor has gone before it: nothing has happened."""
        self._retiring.pop(sa, None)
