"""What a terminal has put into effect through an installer: associations of its children, and policies.

Never negotiates. Traffic that is to be protected is never let through unprotected, neither before there is an
association for it nor while a lost one is being made again (RFC 4301 section 4.4.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from locum.errors import LocumError
from locum.ike.children import ipsec_selector
from locum.ike.configuration import Connection
from locum.ike.engine import Child, IkeSa
from locum.ike.traffic_selectors import TrafficSelector as IkeSelector
from locum.ipsec.installer import Installer
from locum.ipsec.policy import Action, Policy, Protection
from locum.ipsec.sa import Expiry, Mode, Protocol
from locum.ipsec.selectors import Address, TrafficSelector, parse_selectors

#: ICMPv6 from router solicitation to redirect (types 133 to 137), by which IPv6 finds its neighbours on a link:
#: without it nothing at all is sent. A selector has type * 256 + code where others have ports.
NEIGHBOURS = parse_selectors(f"::/0[icmpv6/{133 * 256}-{137 * 256 + 255}]")


class Dataplane:
    """The children in effect at one installer, and the policies that they and the connection make."""

    def __init__(
        self, installer: Installer, connection: Connection, *, outside: Sequence[TrafficSelector]
    ) -> None:
        """`outside` is traffic that stays outside of all protection: to the delegates."""
        self._installer = installer
        self._connection = connection
        self._outside = tuple(outside)
        self._always: Policy | None = None
        self._owners: dict[Child, IkeSa] = {}
        #: those whose successor is being made
        self._replacing: set[Child] = set()
        self._policies: tuple[Policy, ...] = ()

    @property
    def name(self) -> str:
        """What the installer is called."""
        return self._installer.name

    @property
    def children(self) -> tuple[Child, ...]:
        """Those in effect, the oldest first."""
        return tuple(self._owners)

    def owner(self, child: Child) -> IkeSa | None:
        """The IKE SA that a child in effect belongs to."""
        return self._owners.get(child)

    def adopt(self, sa: IkeSa) -> None:
        """The children of `sa` were another's before."""
        for child in sa.children:
            if child in self._owners:
                self._owners[child] = sa

    def expect(self, local: Address, remote: Address) -> None:
        """Protect the connection's traffic from now on, between these two ends. Raises: LocumError."""
        self._always = policy_of(self._connection, local, remote)
        self._set_policies()

    def child_up(self, sa: IkeSa, child: Child) -> None:
        """Put a child of `sa` into effect. Raises: LocumError; nothing of it is in effect then."""
        self._installer.install((child.inbound, child.outbound))
        self._owners[child] = sa
        try:
            self._set_policies()
        except LocumError:
            self.child_down(child)
            raise

    def child_down(self, child: Child) -> bool:
        """Take a child out of effect; False for one that is not in effect."""
        if self._owners.pop(child, None) is None:
            return False
        self._replacing.discard(child)
        # A policy outlives its last association at worst: nothing goes out unprotected meanwhile.
        with suppress(LocumError):
            self._installer.remove((child.inbound, child.outbound))
        with suppress(LocumError):
            self._set_policies()
        return True

    def moved(self, old: Child, new: Child) -> None:
        """The ends of a child have moved. Raises: LocumError; the child is out of effect then."""
        # In the place where it was, so that the oldest stays the oldest.
        self._owners = {new if child is old else child: sa for child, sa in self._owners.items()}
        try:
            self._installer.move(old.inbound, new.inbound)
            self._installer.move(old.outbound, new.outbound)
            self._set_policies()
        except LocumError:
            self._installer.remove((old.inbound, old.outbound))
            self.child_down(new)
            raise

    def due(self, now: float) -> list[tuple[Child, Expiry]]:
        """Children of which one association has carried as much as it may, or is as old. Raises: LocumError.

        One that needs a successor (SOFT) is named once, and again after `not_replaced`.
        """
        worst: dict[Child, Expiry] = {}
        for association, expiry in self._installer.expired(now):
            for child in self._owners:
                if association in (child.inbound, child.outbound):
                    worst[child] = max(expiry, worst.get(child, Expiry.NONE))
        due = [
            (child, expiry)
            for child, expiry in worst.items()
            if expiry is Expiry.HARD or child not in self._replacing
        ]
        self._replacing.update(worst)
        return due

    def not_replaced(self, child: Child) -> None:
        """No successor was made."""
        self._replacing.discard(child)

    def _set_policies(self) -> None:
        # The newest child has the last word on how its traffic is protected.
        protected = [child_policy(child) for child in reversed(self._owners)]
        protected += [self._always] if self._always is not None else []
        rows = [*self._bypassing(protected), *protected]
        named = tuple(replace(row, name=f"locum-{index}") for index, row in enumerate(dict.fromkeys(rows), 1))
        if named != self._policies:
            self._installer.set_policies(named)
            self._policies = named

    def _bypassing(self, protected: Iterable[Policy]) -> list[Policy]:
        """Rows for what stays outside, of which only those matter that others would take in."""
        covered = {selector for row in protected for selector in row.remote}
        rows = [
            Policy(name="", action=Action.BYPASS, remote=(selector,))
            for selector in self._outside
            if any(selector.intersection(each) for each in covered)
        ]
        if any(selector.start.version == 6 for selector in covered):
            rows.append(Policy(name="", action=Action.BYPASS, local=NEIGHBOURS, remote=NEIGHBOURS))
        return rows


def child_policy(child: Child) -> Policy:
    """The row for the traffic that a child carries."""
    outbound = child.outbound
    tunnel = outbound.mode is Mode.TUNNEL
    protection = Protection(
        protocol=outbound.protocol,
        mode=outbound.mode,
        tunnel_local=outbound.source if tunnel else None,
        tunnel_remote=outbound.destination if tunnel else None,
    )
    return Policy(
        name="", action=Action.PROTECT, local=outbound.local, remote=outbound.remote, protection=protection
    )


def policy_of(connection: Connection, local: Address, remote: Address) -> Policy:
    """The row for the traffic that a connection is for, between these two ends."""
    protection = Protection(
        protocol=Protocol[connection.child.protocol.name],
        mode=Mode.TRANSPORT if connection.transport else Mode.TUNNEL,
        tunnel_local=None if connection.transport else local,
        tunnel_remote=None if connection.transport else remote,
    )
    return Policy(
        name="",
        action=Action.PROTECT,
        local=_selectors(connection.local_traffic, local),
        remote=_selectors(connection.remote_traffic, remote),
        protection=protection,
    )


def _selectors(selectors: Iterable[IkeSelector], alone: Address) -> tuple[TrafficSelector, ...]:
    """Selectors of IKE as policies have them; without any, the one address."""
    converted = tuple(ipsec_selector(each) for each in selectors)
    return converted or (TrafficSelector(start=alone, end=alone),)
