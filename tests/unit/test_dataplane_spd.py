"""Which policies the kernel gets for rows and associations: every packet has the verdict that the rows give it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.ipsec import FAR4, NEAR4, esp_sa, far_end

from locum.dataplane import spd
from locum.dataplane.spd import FIRST_PRIORITY, Bundle, kernel_policies, selectors
from locum.dataplane.xfrm import ANY_PORT, KernelPolicy, PolicyDirection, Selector
from locum.errors import Refused
from locum.ipsec.policy import Action, Policy, Protection
from locum.ipsec.sa import Direction, Mode
from locum.ipsec.selectors import Flow, TrafficSelector, parse_selectors

TRAP, NUMBER = 1, 2
IN, OUT, FORWARD = PolicyDirection.IN, PolicyDirection.OUT, PolicyDirection.FORWARD
LOCAL, REMOTE = parse_selectors("10.1.0.0/16"), parse_selectors("10.2.0.0/16")
TUNNEL = Protection(tunnel_local=NEAR4, tunnel_remote=FAR4)
PROTECT = Policy(name="protect", action=Action.PROTECT, local=LOCAL, remote=REMOTE, protection=TUNNEL)


def matches(selector: Selector, flow: Flow) -> bool:
    """As the kernel compares (RFC 4301 has no say in it): prefixes, a protocol, and masked ports."""
    if len(flow.source) != len(selector.source.network_address.packed):
        return False
    if ip_address(flow.source) not in selector.source or ip_address(flow.destination) not in selector.destination:
        return False
    if selector.protocol not in (0, flow.protocol):
        return False
    ports = (flow.source_port or 0, flow.destination_port or 0)
    if flow.protocol in (1, 58):
        ports = ports[0] >> 8, ports[1] & 0xFF
    return all(
        (port ^ wanted.value) & wanted.mask == 0
        for port, wanted in zip(ports, (selector.source_port, selector.destination_port), strict=True)
    )


def decision(policies: dict[object, KernelPolicy], direction: PolicyDirection, flow: Flow) -> KernelPolicy | None:
    """The policy that the kernel goes by."""
    found = [each for each in policies.values() if each.direction is direction and matches(each.selector, flow)]
    return min(found, key=lambda each: each.priority, default=None)


def flow(source: str, destination: str, protocol: int = 17, ports: tuple[int, int] = (1024, 53)) -> Flow:
    return Flow(ip_address(source).packed, ip_address(destination).packed, protocol, *ports)


def made(*rows: Policy, bundles: dict[Bundle, int] | None = None) -> dict[object, KernelPolicy]:
    return dict(kernel_policies(rows, bundles or {}, TRAP))


@pytest.mark.parametrize(
    "selector", ["10.1.0.0/16", "10.1.0.1-10.1.0.6", "10.1.2.3[tcp/443]", "any[udp/1000-2000]"]
)
def test_selectors_of_the_kernel_speak_of_the_same_packets(selector: str) -> None:
    (here,), there = parse_selectors(selector)[:1], parse_selectors("10.2.0.0/24")[0]
    found = list(selectors(here, there))
    for address in ("10.1.0.0", "10.1.0.1", "10.1.0.6", "10.1.0.7", "10.1.2.3", "10.3.0.0"):
        for protocol, port in ((6, 443), (6, 444), (17, 999), (17, 1000), (17, 1999), (17, 2000), (17, 2001)):
            one = flow(address, "10.2.0.9", protocol, (port, 7))
            expected = here.matches(one.source, protocol, port) and there.matches(one.destination, protocol, 7)
            assert sum(matches(each, one) for each in found) == expected


ports = st.integers(0, 65535)
ranges = st.tuples(ports, ports).map(sorted)


@given(ranges, ranges, ports, ports)
def test_ranges_of_ports_become_blocks_that_do_not_overlap(
    source: list[int], destination: list[int], one: int, other: int
) -> None:
    here, there = (
        TrafficSelector(start=NEAR4, end=NEAR4, protocol=6, first_port=first, last_port=last)
        for first, last in (source, destination)
    )
    found = list(selectors(here, there))
    inside = source[0] <= one <= source[1] and destination[0] <= other <= destination[1]
    packet = Flow(NEAR4.packed, NEAR4.packed, 6, one, other)
    assert sum(matches(each, packet) for each in found) == inside
    assert len(found) <= 30 * 30


@given(ranges, ports)
def test_ranges_of_icmp_types_and_codes_become_blocks(types: list[int], value: int) -> None:
    here, there = (
        TrafficSelector(start=NEAR4, end=NEAR4, protocol=1, first_port=types[0], last_port=types[1])
        for _ in range(2)
    )
    packet = Flow(NEAR4.packed, NEAR4.packed, 1, value, value)
    assert sum(matches(each, packet) for each in selectors(here, there)) == (types[0] <= value <= types[1])


@pytest.mark.parametrize("selector", ["10.1.0.0/16[udp/opaque]", "10.1.0.0/16[50/7]"])
def test_what_the_kernel_cannot_compare_is_refused(selector: str) -> None:
    with pytest.raises(Refused):
        list(selectors(parse_selectors(selector)[0], parse_selectors("any")[0]))


def test_what_no_association_carries_is_trapped_in_every_direction() -> None:
    policies = made(PROTECT)
    for direction, ends in (
        (OUT, ("10.1.0.1", "10.2.0.1")),
        (IN, ("10.2.0.1", "10.1.0.1")),
        (FORWARD, ("10.2.0.1", "10.1.0.1")),
    ):
        found = decision(policies, direction, flow(*ends))
        assert found is not None and found.template is not None
        assert found.template.bundle == TRAP
        expected = (NEAR4, FAR4) if direction is OUT else (FAR4, NEAR4)
        assert (found.template.source, found.template.destination) == expected
    assert decision(policies, OUT, flow("10.1.0.1", "10.3.0.1")) is None


def test_an_association_gets_its_own_traffic_and_the_rest_stays_trapped() -> None:
    sa = esp_sa(local=parse_selectors("10.1.0.0/24"), remote=parse_selectors("10.2.0.0/24"))
    policies = made(PROTECT, bundles={Bundle.of(sa): NUMBER})
    for source, destination, expected in (
        ("10.1.0.1", "10.2.0.1", NUMBER),
        ("10.1.1.1", "10.2.0.1", TRAP),
        ("10.1.0.1", "10.2.1.1", TRAP),
    ):
        for direction, one in ((OUT, flow(source, destination)), (IN, flow(destination, source))):
            found = decision(policies, direction, one)
            assert found is not None and found.template is not None
            assert found.template.bundle == expected


def test_both_directions_and_all_successors_are_one_bundle() -> None:
    sa = esp_sa(local=LOCAL, remote=REMOTE)
    back = far_end(replace(sa, source=FAR4, destination=NEAR4, local=REMOTE, remote=LOCAL, spi=0x2000))
    assert back.direction is Direction.IN
    assert Bundle.of(sa) == Bundle.of(back) == Bundle.of(replace(sa, spi=0x3000))
    assert Bundle.of(sa) != Bundle.of(replace(sa, local=parse_selectors("10.1.0.0/17")))


def test_an_association_of_another_kind_than_a_row_asks_for_is_not_used() -> None:
    sa = esp_sa(local=LOCAL, remote=REMOTE)
    for other in (replace(sa, mode=Mode.TRANSPORT), replace(sa, destination=ip_address("198.51.100.99"))):
        policies = made(PROTECT, bundles={Bundle.of(other): NUMBER})
        assert {each.template.bundle for each in policies.values() if each.template} == {TRAP}


def test_the_newest_of_two_that_carry_the_same_decides() -> None:
    exact = Bundle.of(esp_sa(local=LOCAL, remote=REMOTE))
    wider = Bundle.of(esp_sa(local=parse_selectors("10.0.0.0/8"), remote=REMOTE))
    for bundles in ({exact: 2, wider: 3}, {wider: 2, exact: 3}):
        found = decision(made(PROTECT, bundles=bundles), OUT, flow("10.1.0.1", "10.2.0.1"))
        assert found is not None and found.template is not None
        assert found.template.bundle == 3


def test_earlier_rows_come_first() -> None:
    bypass = Policy(name="bypass", action=Action.BYPASS, local=parse_selectors("10.1.0.0/24"), remote=REMOTE)
    discard = Policy(name="discard", action=Action.DISCARD)
    policies = made(bypass, PROTECT, discard)
    for one, expected in (
        (flow("10.1.0.1", "10.2.0.1"), (False, None)),
        (flow("10.1.1.1", "10.2.0.1"), (False, TRAP)),
        (flow("10.9.0.1", "10.2.0.1"), (True, None)),
        (flow("2001:db8::1", "2001:db8::2"), (True, None)),
    ):
        found = decision(policies, OUT, one)
        assert found is not None
        assert (found.blocked, found.template.bundle if found.template else None) == expected
    assert min(each.priority for each in policies.values()) == FIRST_PRIORITY


def test_rows_for_the_very_same_packets_are_told_once_and_the_first_counts() -> None:
    discard = Policy(name="discard", action=Action.DISCARD, local=LOCAL, remote=REMOTE)
    bypass = replace(discard, name="bypass", action=Action.BYPASS)
    assert made(discard, bypass) == made(discard)


def test_what_will_be_protected_passes_through_unprotected() -> None:
    """A gateway takes packets for the tunnel from its network: the row that discards the rest must let them in."""
    policies = made(PROTECT, Policy(name="discard", action=Action.DISCARD))
    out_of_our_network = decision(policies, FORWARD, flow("10.1.0.1", "10.2.0.1"))
    assert out_of_our_network is not None
    assert (out_of_our_network.blocked, out_of_our_network.template) == (False, None)
    elsewhere = decision(policies, FORWARD, flow("10.1.0.1", "10.3.0.1"))
    assert elsewhere is not None and elsewhere.blocked


@pytest.mark.parametrize(("only", "expected"), [(Direction.IN, {IN, FORWARD}), (Direction.OUT, {OUT, FORWARD})])
def test_a_row_for_one_direction_says_nothing_about_the_other(
    only: Direction, expected: set[PolicyDirection]
) -> None:
    assert {each.direction for each in made(replace(PROTECT, direction=only)).values()} == expected


def test_transport_mode_asks_for_the_hosts_own_addresses() -> None:
    row = replace(PROTECT, protection=Protection(mode=Mode.TRANSPORT))
    policies = made(row)
    assert {each.direction for each in policies.values()} == {IN, OUT}
    assert {(each.template.source, each.template.destination) for each in policies.values() if each.template} == {
        (None, None)
    }


def test_more_policies_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spd, "MAX_KERNEL_POLICIES", 3)
    with pytest.raises(Refused, match="more than 3"):
        made(PROTECT)


def test_versions_of_ip_are_not_mixed() -> None:
    any_to_any = Policy(name="any", action=Action.DISCARD)
    found = [each.selector for each in made(any_to_any).values()]
    assert {(each.source.version, each.destination.version) for each in found} == {(4, 4), (6, 6)}
    assert {each.source_port for each in found} == {ANY_PORT}
