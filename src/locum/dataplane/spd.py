"""From policies and associations to the policies that the Linux kernel must have (RFC 4301 section 4.4.1).

Computes, and neither asks nor tells the kernel anything.

A row of ours speaks of ranges of addresses and ports, the kernel's of prefixes, so one becomes many. A row that
protects becomes policies for every bundle of associations under it, which ask for that bundle alone: so no packet
goes through, or is accepted from, an association that may not carry it. Behind them stands one that asks for a
bundle that nobody has: it stops what no association carries yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import summarize_address_range

from locum.dataplane.xfrm import ANY_PORT, Bits, KernelPolicy, PolicyDirection, Selector, Template
from locum.errors import Refused
from locum.ipsec.policy import Action, Policy
from locum.ipsec.sa import Direction, Mode, Protocol, SecurityAssociation
from locum.ipsec.selectors import Address, TrafficSelector

#: Policies that one set of rows may come to in the kernel.
MAX_KERNEL_POLICIES = 50_000
#: Priority of the first row; the kernel takes the lowest number first.
FIRST_PRIORITY = 1000

_PORT_BITS = 16
_ICMP, _ICMPV6 = 1, 58
#: Protocols whose ports the kernel looks at: TCP, UDP, DCCP, SCTP, UDP-Lite.
_WITH_PORTS = frozenset((6, 17, 33, 132, 136))

Pair = tuple[TrafficSelector, TrafficSelector]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What associations that take over from one another have in common, whatever their direction."""

    protocol: Protocol
    mode: Mode
    local_end: Address
    remote_end: Address
    local: tuple[TrafficSelector, ...]
    remote: tuple[TrafficSelector, ...]

    @classmethod
    def of(cls, sa: SecurityAssociation) -> Bundle:
        """The bundle of an association."""
        ends = sa.source, sa.destination
        here, there = ends if sa.direction is Direction.OUT else reversed(ends)
        return cls(
            protocol=sa.protocol, mode=sa.mode, local_end=here, remote_end=there, local=sa.local, remote=sa.remote
        )

    def template(self, direction: PolicyDirection, number: int) -> Template:
        """What a policy says that asks for this bundle, known to the kernel by `number`."""
        outward = direction is PolicyDirection.OUT
        source, destination = (self.local_end, self.remote_end) if outward else (self.remote_end, self.local_end)
        return Template(self.protocol, self.mode, self.local_end.version, source, destination, number)


def kernel_policies(
    rows: Iterable[Policy], bundles: Mapping[Bundle, int], trap: int
) -> dict[tuple[PolicyDirection, Selector], KernelPolicy]:
    """The policies for `rows`, the first first, by what the kernel tells them apart by.

    `bundles` are those that have an association, each with the number that stands for it; the newest comes last,
    and decides where two carry the same. `trap` is the number that no association has.
    Raises: Refused for what the kernel cannot express.
    """
    wanted: dict[tuple[PolicyDirection, Selector], KernelPolicy] = {}
    newest_first = list(bundles.items())[::-1]
    for place, row in enumerate(rows):
        for policy in _of_row(row, FIRST_PRIORITY + 2 * place, newest_first, trap):
            # Where two speak of the very same packets, the first of them decides about all.
            wanted.setdefault(policy.key, policy)
            if len(wanted) > MAX_KERNEL_POLICIES:
                raise Refused(f"these policies come to more than {MAX_KERNEL_POLICIES} in the kernel")
    return wanted


def _of_row(row: Policy, priority: int, bundles: list[tuple[Bundle, int]], trap: int) -> Iterator[KernelPolicy]:
    pairs = [(local, remote) for local in row.local for remote in row.remote if _meet(local, remote)]
    protection = row.protection
    if protection is None:
        for direction, selector in (
            *_directed(pairs, row.direction, forwards=True),
            *_through(pairs, row.direction),
        ):
            blocked = row.action is Action.DISCARD
            yield KernelPolicy(direction=direction, selector=selector, priority=priority, blocked=blocked)
        return
    tunnel = protection.mode is Mode.TUNNEL
    for bundle, number in bundles:
        if _serves(bundle, row):
            common = list(_common(pairs, bundle))
            for direction, selector in _directed(common, row.direction, forwards=tunnel):
                template = bundle.template(direction, number)
                yield KernelPolicy(direction=direction, selector=selector, priority=priority, template=template)
    for direction, selector in _directed(pairs, row.direction, forwards=tunnel):
        # No association is in bundle `trap`, so the ends matter no more than that the kernel accepts them.
        ends = protection.tunnel_local, protection.tunnel_remote
        version = next((end.version for end in ends if end is not None), selector.source.version)
        source, destination = ends if direction is PolicyDirection.OUT else reversed(ends)
        template = Template(protection.protocol, protection.mode, version, source, destination, trap)
        yield KernelPolicy(direction=direction, selector=selector, priority=priority + 1, template=template)
    if tunnel:
        # What will be protected on its way through has arrived unprotected, and no later row is to stop it there.
        for direction, selector in _through(pairs, row.direction):
            yield KernelPolicy(direction=direction, selector=selector, priority=priority + 1)


def _serves(bundle: Bundle, row: Policy) -> bool:
    wanted = row.protection
    assert wanted is not None
    return (
        (bundle.protocol, bundle.mode) == (wanted.protocol, wanted.mode)
        and wanted.tunnel_local in (None, bundle.local_end)
        and wanted.tunnel_remote in (None, bundle.remote_end)
    )


def _common(pairs: list[Pair], bundle: Bundle) -> Iterator[Pair]:
    """The traffic that is in `pairs` and may go through `bundle`."""
    for local, remote in pairs:
        for here in bundle.local:
            for there in bundle.remote:
                near, far = local.intersection(here), remote.intersection(there)
                if near is not None and far is not None and _meet(near, far):
                    yield near, far


def _meet(local: TrafficSelector, remote: TrafficSelector) -> bool:
    """True when there can be a packet between these two."""
    protocols = local.protocol, remote.protocol
    return local.start.version == remote.start.version and (0 in protocols or protocols[0] == protocols[1])


def _directed(
    pairs: Iterable[Pair], only: Direction | None, *, forwards: bool
) -> Iterator[tuple[PolicyDirection, Selector]]:
    """Where a row in direction `only`, None for both, looks at packets: what leaves, and what arrives."""
    for local, remote in pairs:
        if only is not Direction.IN:
            yield from ((PolicyDirection.OUT, selector) for selector in selectors(local, remote))
        if only is not Direction.OUT:
            for selector in selectors(remote, local):
                yield PolicyDirection.IN, selector
                if forwards:
                    yield PolicyDirection.FORWARD, selector


def _through(pairs: Iterable[Pair], only: Direction | None) -> Iterator[tuple[PolicyDirection, Selector]]:
    """Where the kernel looks, besides, at packets that it forwards and that will leave as `pairs` say."""
    if only is not Direction.IN:
        for local, remote in pairs:
            yield from ((PolicyDirection.FORWARD, selector) for selector in selectors(local, remote))


# --- selectors --------------------------------------------------------------------------------------------


def selectors(source: TrafficSelector, destination: TrafficSelector) -> Iterator[Selector]:
    """The kernel's selectors for packets from `source` to `destination`. Raises: Refused."""
    protocol = source.protocol or destination.protocol
    ports = list(_ports(protocol, source, destination))
    for start in summarize_address_range(source.start, source.end):
        for end in summarize_address_range(destination.start, destination.end):
            yield from (Selector(start, end, protocol, *both) for both in ports)


def _ports(protocol: int, source: TrafficSelector, destination: TrafficSelector) -> Iterator[tuple[Bits, Bits]]:
    if source.any_port and destination.any_port:
        yield ANY_PORT, ANY_PORT
        return
    if source.opaque or destination.opaque:
        raise Refused("the kernel has no policies for packets that do not show their ports (OPAQUE)")
    if protocol in (_ICMP, _ICMPV6):
        # Both ends hold type * 256 + code; the kernel has the type for one port, the code for the other.
        first, last = max(source.first_port, destination.first_port), min(source.last_port, destination.last_port)
        for value, mask in _blocks(first, last):
            yield Bits(value >> 8, mask >> 8), Bits(value & 0xFF, mask & 0xFF)
        return
    if protocol not in _WITH_PORTS:
        raise Refused(f"the kernel has no policies for ports of IP protocol {protocol}")
    for one in _blocks(source.first_port, source.last_port):
        for other in _blocks(destination.first_port, destination.last_port):
            yield one, other


def _blocks(first: int, last: int) -> Iterator[Bits]:
    """The numbers from `first` to `last` as the fewest blocks that share their leading bits."""
    while first <= last:
        size = first & -first or 1 << _PORT_BITS
        while size > last - first + 1:
            size >>= 1
        yield Bits(first, (1 << _PORT_BITS) - size)
        first += size
