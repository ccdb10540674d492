"""Which packets of this host go into the TUN device: a routing table of our own, and the rules that lead there.

Knows policies and no association. The rules are for every packet without our mark; IKE and ESP themselves carry
it, so that they find their way past the table even where it speaks of the peer's own address. Nothing is changed
that is not ours. Routes go with the device; of the rules that a crash leaves behind, the next start removes those
whose device is gone.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import summarize_address_range
from pathlib import Path

from locum.dataplane import rtnetlink
from locum.dataplane.kernel_netlink import NetlinkError, NetlinkSocket
from locum.dataplane.paths import family_of
from locum.dataplane.rtnetlink import Network, Rule
from locum.dataplane.tun import TunDevice
from locum.errors import OperationError, Refused, Unavailable
from locum.ipsec.policy import Action, Policy
from locum.ipsec.sa import Direction
from locum.ipsec.selectors import Address, TrafficSelector

#: What IKE and ESP carry as SO_MARK: "locu".
MARK = 0x6C6F6375
#: The rules stand behind that of local addresses (0) and before that of the main table (32766).
RULE_PRIORITY = 4500
#: The table of a device has this number and the device's index together.
FIRST_TABLE, _LAST_TABLE = 0x4C00_0000, 0x4CFF_FFFF
#: Who made a rule or a route (rtnetlink(7)).
PROTOCOL = 76
#: Routes at a time; a range of addresses can take many.
MAX_ROUTES = 4096

#: A kernel without this IP version.
_NO_FAMILY = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)
_STRICT = 1
#: Up to this scope an address is good for more than one link.
_SITE = 200


class Routing:
    """Leads packets into `device`. Not for use by several threads at a time."""

    def __init__(self, device: TunDevice, *, mark: int) -> None:
        """Raises: Unavailable."""
        self._kernel = NetlinkSocket(rtnetlink.NETLINK_ROUTE)
        self._device = device
        self._mark = mark
        self._table = FIRST_TABLE + device.index
        self._rules: list[Rule] = []
        self._routes: dict[Network, Address | None] = {}

    def open(self) -> None:
        """Put the rules in. Raises: Refused, Unavailable; `close` then takes out what there is."""
        with suppress(NetlinkError):  # an older kernel; or one without IPv6
            # The device has no use for an address of its own, and nobody to announce one to.
            self._kernel.request(rtnetlink.SET_LINK, rtnetlink.link_without_addresses(self._device.index))
        for family in (socket.AF_INET, socket.AF_INET6):
            rule = Rule(family, self._table, self._mark, RULE_PRIORITY, PROTOCOL)
            try:
                self._remove_leftovers(family)
                self._kernel.request(rtnetlink.NEW_RULE, rule.write(), rtnetlink.CREATE | rtnetlink.EXCLUSIVE)
            except NetlinkError as error:
                if error.code not in _NO_FAMILY:
                    raise _explain(error, "set a routing rule") from None
            else:
                self._rules.append(rule)

    def lead(self, policies: Iterable[Policy]) -> None:
        """Have packets that go where a policy protects or discards come to the device, and no others.

        From which address this host speaks to such places: one of its own that the policy is about, if it has
        one now. Raises: Refused, Unavailable; what was led here before still is.
        """
        wanted = self._wanted(policies)
        for network, source in wanted.items():
            if network not in self._routes or self._routes[network] != source:
                self._set_route(network, source)
                self._routes[network] = source
        for network in [network for network in self._routes if network not in wanted]:
            self._delete_route(network)
            del self._routes[network]

    def check_way_back(self, peer: Address) -> None:
        """Raise `Refused` when this host would drop what comes from `peer`, since it is routed into the device.

        That is what a strict reverse path filter does (RFC 3704): it cannot see our mark. IPv6 has none.
        """
        if peer.version != 4 or not any(peer in network for network in self._routes):
            return
        try:
            answer = self._kernel.query(rtnetlink.GET_ROUTE, rtnetlink.way_to(peer, self._mark))
            way = rtnetlink.parse_way(answer)
            name = socket.if_indextoname(way.interface) if way else "lo"
        except (NetlinkError, OSError):
            return  # there is no way now
        if max(map(_reverse_path_filter, ("all", name))) == _STRICT:
            setting = f"net.ipv4.conf.{name}.rp_filter"
            raise Refused(f"the reverse path filter would drop what comes from {peer}: set {setting} to 2")

    def close(self) -> None:
        """Take the rules out; the routes go with the device. May be called twice; raises nothing."""
        while self._rules:
            with suppress(OperationError):
                self._kernel.request(rtnetlink.DELETE_RULE, self._rules.pop().write())
        self._kernel.close()

    def _wanted(self, policies: Iterable[Policy]) -> dict[Network, Address | None]:
        families = {rule.family for rule in self._rules}
        own = own_addresses(self._kernel)
        wanted: dict[Network, Address | None] = {}
        for policy in policies:
            if policy.action is Action.BYPASS or policy.direction is Direction.IN:
                continue
            for remote in policy.remote:
                local = [each for each in policy.local if each.start.version == remote.start.version]
                if not local or family_of(remote.start) not in families:
                    continue
                source = first_covered(own, local)
                for network in summarize_address_range(remote.start, remote.end):
                    wanted.setdefault(network, source)
                if len(wanted) > MAX_ROUTES:
                    raise Refused(f"policies that take more than {MAX_ROUTES} routes")
        return wanted

    def _set_route(self, network: Network, source: Address | None) -> None:
        body = rtnetlink.route(network, self._device.index, self._table, source, PROTOCOL)
        try:
            self._kernel.request(rtnetlink.NEW_ROUTE, body, rtnetlink.CREATE | rtnetlink.REPLACE)
        except NetlinkError as error:
            raise _explain(error, f"route {network} through {self._device.name}") from None

    def _delete_route(self, network: Network) -> None:
        body = rtnetlink.route(network, self._device.index, self._table, None, PROTOCOL)
        try:
            self._kernel.request(rtnetlink.DELETE_ROUTE, body)
        except NetlinkError as error:
            if error.code != errno.ESRCH:  # somebody else was faster
                raise _explain(error, f"remove the route to {network}") from None

    def _remove_leftovers(self, family: int) -> None:
        """Remove rules of ours that lead to the table of a device that is gone."""
        for rule in map(Rule.parse, self._kernel.dump(rtnetlink.GET_RULES, rtnetlink.rules_of(family))):
            ours = rule.protocol == PROTOCOL and FIRST_TABLE <= rule.table <= _LAST_TABLE
            if ours and not _exists(rule.table - FIRST_TABLE):
                with suppress(NetlinkError):  # somebody else was faster
                    self._kernel.request(rtnetlink.DELETE_RULE, rule.write())


def own_addresses(kernel: NetlinkSocket) -> list[Address]:
    """Addresses of this host that others can reach. Raises: Unavailable, DecodeError."""
    answers = kernel.dump(rtnetlink.GET_ADDRESSES, rtnetlink.addresses_of(socket.AF_UNSPEC))
    return [address for address, scope in map(rtnetlink.parse_address, answers) if scope <= _SITE]


def first_covered(addresses: Iterable[Address], selectors: Iterable[TrafficSelector]) -> Address | None:
    """The first of these addresses that a selector speaks of."""
    return next((each for each in addresses if any(selector.covers(each) for selector in selectors)), None)


def _reverse_path_filter(interface: str) -> int:
    """The setting of an interface, or of `all`: 0 off, 1 strict, 2 loose."""
    try:
        return int(Path(f"/proc/sys/net/ipv4/conf/{interface}/rp_filter").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _exists(interface: int) -> bool:
    try:
        socket.if_indextoname(interface)
    except OSError:
        return False
    return True


def _explain(error: NetlinkError, what: str) -> OperationError:
    if error.code in (errno.EPERM, errno.EACCES):
        return Refused(f"cannot {what}: this takes CAP_NET_ADMIN")
    return Unavailable(f"cannot {what}: {error}")
