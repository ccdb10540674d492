"""The ways of packets that the kernel's IPsec tunnels: routes, and the address that this host speaks from.

Knows policies and no association.

The kernel looks a packet's way up before it looks for a policy: without a route it is not sent at all, and without
a hint it comes from another address than the policy is about. So networks behind a tunnel get a route, the same
way as the tunnel's end, in a table of our own. The main table comes before it with everything but its default
routes: what this host knows better stays as it is. Routes are set anew with the policies, and at no other time.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import summarize_address_range
from pathlib import Path
from typing import NamedTuple

from locum.dataplane import rtnetlink
from locum.dataplane.kernel_netlink import NetlinkError, NetlinkSocket
from locum.dataplane.paths import family_of
from locum.dataplane.routing import MARK, MAX_ROUTES, PROTOCOL, RULE_PRIORITY, first_covered, own_addresses
from locum.dataplane.rtnetlink import Network, Rule, Way
from locum.errors import OperationError, Refused, Unavailable
from locum.ipsec.policy import Policy
from locum.ipsec.sa import Direction, Mode
from locum.ipsec.selectors import Address

#: The table of a process has this number and the process id together.
FIRST_TABLE = 0x4D00_0000
_LAST_TABLE = 0x4DFF_FFFF

_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class _Route(NamedTuple):
    way: Way
    source: Address | None


class KernelRoutes:
    """Routes to what is behind tunnels. Packets with `MARK` do not follow them: those of IKE."""

    def __init__(self) -> None:
        """Raises: Unavailable."""
        self._kernel = NetlinkSocket(rtnetlink.NETLINK_ROUTE)
        self._table = FIRST_TABLE + os.getpid()
        self._ruled: list[int] = []
        self._routes: dict[Network, _Route] = {}
        try:
            self._remove_leftovers()
        except BaseException:
            self._kernel.close()
            raise

    def set(self, policies: Iterable[Policy]) -> None:
        """Have the routes that these policies need, and no others. Raises: Refused, Unavailable."""
        wanted = self._wanted(policies)
        for network, route in wanted.items():
            if self._routes.get(network) != route:
                self._add_rules(family_of(network.network_address))
                self._change(rtnetlink.NEW_ROUTE, network, route, rtnetlink.CREATE | rtnetlink.REPLACE)
                self._routes[network] = route
        for network in [network for network in self._routes if network not in wanted]:
            self._change(rtnetlink.DELETE_ROUTE, network, self._routes[network])
            del self._routes[network]
        if not self._routes:
            self._remove_rules()

    def close(self) -> None:
        """Take everything out. May be called twice; raises nothing."""
        with suppress(OperationError):
            self.set(())
        self._remove_rules()
        self._kernel.close()

    def _wanted(self, policies: Iterable[Policy]) -> dict[Network, _Route]:
        wanted: dict[Network, _Route] = {}
        own = own_addresses(self._kernel)
        for policy in policies:
            protection = policy.protection
            if protection is None or protection.mode is not Mode.TUNNEL or policy.direction is Direction.IN:
                continue
            way = self._way(protection.tunnel_remote)
            for remote in policy.remote:
                local = [each for each in policy.local if each.start.version == remote.start.version]
                if way is None or not local:
                    continue
                # A gateway of the other version of IP leads nowhere; the interface alone will do.
                gateway = way.gateway if way.gateway and way.gateway.version == remote.start.version else None
                route = _Route(Way(way.interface, gateway), first_covered(own, local))
                for network in summarize_address_range(remote.start, remote.end):
                    wanted.setdefault(network, route)
                if len(wanted) > MAX_ROUTES:
                    raise Refused(f"policies that take more than {MAX_ROUTES} routes")
        return wanted

    def _way(self, end: Address | None) -> Way | None:
        """The way to the other end of a tunnel; None where there is no end, no way, or no need of one."""
        if end is None:
            return None
        try:
            return rtnetlink.parse_way(self._kernel.query(rtnetlink.GET_ROUTE, rtnetlink.way_to(end, MARK)))
        except NetlinkError:
            return None

    def _change(self, kind: int, network: Network, route: _Route, flags: int = 0) -> None:
        way = route.way
        body = rtnetlink.route(network, way.interface, self._table, route.source, PROTOCOL, gateway=way.gateway)
        try:
            self._kernel.request(kind, body, flags)
        except NetlinkError as error:
            # Somebody else took it out, or the interface is gone and its routes with it.
            if kind != rtnetlink.DELETE_ROUTE or error.code not in (errno.ESRCH, errno.ENODEV):
                raise Unavailable(f"cannot set a route to {network}: {error}") from None

    # --- rules --------------------------------------------------------------------------------------------

    def _add_rules(self, family: int) -> None:
        if family in self._ruled:
            return
        self._ruled.append(family)
        try:
            # Every process has its own of both; that two are the same matters to nobody.
            for body in _rules(family, self._table):
                self._kernel.request(rtnetlink.NEW_RULE, body, rtnetlink.CREATE)
        except NetlinkError as error:
            raise Unavailable(f"cannot set a routing rule: {error}") from None

    def _remove_rules(self) -> None:
        while self._ruled:
            self._delete_rules(self._ruled.pop(), self._table)

    def _delete_rules(self, family: int, table: int) -> None:
        for body in _rules(family, table):
            with suppress(OperationError):
                self._kernel.request(rtnetlink.DELETE_RULE, body)

    def _remove_leftovers(self) -> None:
        """Remove the rules of processes that are gone; nothing finds their routes then."""
        for family in _FAMILIES:
            with suppress(NetlinkError):  # a kernel without this version of IP
                answers = self._kernel.dump(rtnetlink.GET_RULES, rtnetlink.rules_of(family))
                tables = [rule.table for rule in map(Rule.parse, answers) if _is_ours(rule)]
                for table in tables:
                    if not Path(f"/proc/{table - FIRST_TABLE}").exists():
                        self._delete_rules(family, table)


def _rules(family: int, table: int) -> tuple[bytes, bytes]:
    return (
        rtnetlink.rule_for_all_but_defaults(family, RULE_PRIORITY, PROTOCOL),
        Rule(family, table, MARK, RULE_PRIORITY + 1, PROTOCOL).write(),
    )


def _is_ours(rule: Rule) -> bool:
    return rule.protocol == PROTOCOL and FIRST_TABLE < rule.table <= _LAST_TABLE
