"""When an IPsec terminal tries again and when it gives up, and what it has in effect meanwhile."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from tests.support.ipsec_hosts import MemoryHost, Wire

from locum.errors import Incompatible, LocumError, Refused, TimedOut, Unauthenticated, Unavailable
from locum.ike import algorithms as alg
from locum.ike.children import ChildTerms, child_on, keys_from_material, make_child
from locum.ike.configuration import Connection
from locum.ike.engine import Child, Path
from locum.ike.errors import notify_received
from locum.ike.registry import NotifyType2, ProtocolId
from locum.ike.suites import ChildSuite
from locum.ike.traffic_selectors import selector_of
from locum.ipsec.policy import Action
from locum.ipsec.sa import Expiry
from locum.ipsec.selectors import parse_selectors
from locum.terminal.channel import DelegateFailed
from locum.terminal.ipsec_dataplane import Dataplane
from locum.terminal.ipsec_keeping import FIRST_DELAY, LONGEST_DELAY, STEADY, Keeper

HERE, THERE = ip_address("192.0.2.1"), ip_address("192.0.2.2")
SUITE = ChildSuite(protocol=ProtocolId.ESP, encryption=alg.ENCR_AES_GCM_16_256, integrity=None)


#: Whose children they are matters to nobody here.
SA: Any = object()


def keeper(delegates: int = 1, *, spread: int = 255) -> Keeper:
    return Keeper(delegates=delegates, random=lambda length: bytes([spread]) * length)


# --- trying again -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("no way"),
        TimedOut("no answer"),
        notify_received(NotifyType2, NotifyType2.TEMPORARY_FAILURE),
        DelegateFailed("coap://192.0.2.9:5683", "no answer"),
    ],
    ids=["unavailable", "timed-out", "temporary", "delegate"],
)
def test_what_may_pass_by_itself_is_tried_again_from_the_beginning(error: LocumError) -> None:
    assert keeper().down(error, 0.0) == FIRST_DELAY


@pytest.mark.parametrize(
    "error",
    [
        Refused("no policy"),
        Unauthenticated("forged"),
        Incompatible("no proposal"),
        notify_received(NotifyType2, NotifyType2.AUTHENTICATION_FAILED),
        DelegateFailed("coap://192.0.2.9:5683", Refused("the delegate does not know this terminal")),
        None,
    ],
    ids=["refused", "unauthenticated", "incompatible", "notify", "not-enrolled", "ended"],
)
def test_everything_else_is_the_end_the_first_time_and_tried_again_after_a_success(
    error: LocumError | None,
) -> None:
    new, old = keeper(), keeper()
    assert new.down(error, 0.0) is None
    old.up(0.0)
    assert old.down(error, 1.0) == FIRST_DELAY


def test_pauses_double_up_to_the_longest_and_are_spread() -> None:
    kept = keeper()
    delays = [kept.down(TimedOut("no answer"), float(moment)) for moment in range(9)]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert delays[-1] == LONGEST_DELAY
    assert keeper(spread=0).down(TimedOut("no answer"), 0.0) == FIRST_DELAY / 2


def test_an_sa_that_held_makes_the_next_failure_the_first_and_one_that_did_not_does_not() -> None:
    kept = keeper()
    for moment in range(3):
        kept.down(TimedOut("no answer"), float(moment))
    kept.up(10.0)
    assert kept.down(TimedOut("dead"), 10.0 + STEADY / 2) == 8 * FIRST_DELAY
    kept.up(100.0)
    assert kept.down(TimedOut("dead"), 100.0 + STEADY) == FIRST_DELAY


def test_a_delegate_that_failed_is_replaced_at_once_where_there_is_another() -> None:
    error = DelegateFailed("coap://192.0.2.9:5683", "no answer")
    assert keeper(delegates=1).down(error, 0.0) == FIRST_DELAY
    kept = keeper(delegates=2)
    assert kept.down(error, 0.0) == 0.0
    assert kept.down(error, 1.0) == FIRST_DELAY
    assert kept.down(error, 2.0) == 0.0


# --- what is in effect ------------------------------------------------------------------------------------


def child(local: str = "10.1.0.0/16", remote: str = "10.2.0.0/16", *, spi: int = 0x1000) -> Child:
    terms = ChildTerms(
        suite=SUITE,
        initiator=True,
        inbound_spi=spi,
        outbound_spi=spi + 1,
        local=(selector_of(ip_network(local)),),
        remote=(selector_of(ip_network(remote)),),
        transport=False,
        encapsulated=False,
        lifetime=3600.0,
        created=0.0,
    )
    return make_child(terms, keys_from_material(SUITE, bytes(72)), Path(HERE, 500, THERE, 500))


def dataplane(
    local: str = "10.1.0.0/16", remote: str = "10.2.0.0/16", *, outside: str = ""
) -> tuple[MemoryHost, Dataplane]:
    host = MemoryHost(Wire(), str(HERE))
    connection = Connection(
        remote=THERE,
        local_traffic=(selector_of(ip_network(local)),),
        remote_traffic=(selector_of(ip_network(remote)),),
    )
    return host, Dataplane(host, connection, outside=parse_selectors(outside) if outside else ())


def rows(host: MemoryHost) -> list[tuple[Action, str, str]]:
    return [(row.action, str(row.local[0]), str(row.remote[0])) for row in host.policies]


def test_traffic_is_protected_before_there_is_an_association_for_it() -> None:
    host, plane = dataplane()
    plane.expect(HERE, THERE)
    assert rows(host) == [(Action.PROTECT, "10.1.0.0/16", "10.2.0.0/16")]
    protection = host.policies[0].protection
    assert protection is not None
    assert (protection.tunnel_local, protection.tunnel_remote) == (HERE, THERE)


def test_a_child_for_all_of_the_traffic_adds_no_row_and_one_for_a_part_comes_first() -> None:
    host, plane = dataplane()
    plane.expect(HERE, THERE)
    plane.child_up(SA, child())
    assert len(host.policies) == 1
    narrow = child(remote="10.2.3.0/24", spi=0x2000)
    plane.child_up(SA, narrow)
    assert [row[2] for row in rows(host)] == ["10.2.3.0/24", "10.2.0.0/16"]
    assert len(host.associations) == 4


def test_a_lost_child_leaves_the_traffic_protected() -> None:
    host, plane = dataplane()
    plane.expect(HERE, THERE)
    lost = child(remote="10.2.3.0/24")
    plane.child_up(SA, lost)
    plane.child_down(lost)
    assert host.associations == []
    assert rows(host) == [(Action.PROTECT, "10.1.0.0/16", "10.2.0.0/16")]


def test_a_child_that_cannot_be_installed_is_not_in_effect() -> None:
    host, plane = dataplane()
    host.fault = Refused("the kernel has no such algorithm")
    with pytest.raises(Refused):
        plane.child_up(SA, child())
    assert plane.children == ()


def test_a_delegate_within_the_protected_traffic_stays_reachable() -> None:
    host, plane = dataplane(remote="0.0.0.0/0", outside="198.51.100.9[udp/5683]")
    plane.expect(HERE, THERE)
    assert rows(host)[0] == (Action.BYPASS, "0.0.0.0/0", "198.51.100.9/32[udp/5683]")
    assert rows(host)[1][0] is Action.PROTECT


def test_a_delegate_elsewhere_needs_no_row() -> None:
    host, plane = dataplane(outside="198.51.100.9[udp/5683]")
    plane.expect(HERE, THERE)
    assert [row[0] for row in rows(host)] == [Action.PROTECT]


def test_ipv6_may_look_for_its_neighbours() -> None:
    host, plane = dataplane("2001:db8:1::/48", "2001:db8:2::/48")
    plane.expect(ip_address("2001:db8::1"), ip_address("2001:db8::2"))
    assert rows(host)[0] == (Action.BYPASS, "::/0[icmpv6/34048-35327]", "::/0[icmpv6/34048-35327]")


def test_a_peer_that_moved_takes_its_associations_and_its_row_along() -> None:
    host, plane = dataplane()
    old = child()
    plane.child_up(SA, old)
    new = child_on(old, Path(HERE, 4500, ip_address("192.0.2.77"), 61000))
    plane.moved(old, new)
    assert host.moves == [(old.inbound, new.inbound), (old.outbound, new.outbound)]
    assert plane.children == (new,)
    protection = host.policies[0].protection
    assert protection is not None
    assert protection.tunnel_remote == ip_address("192.0.2.77")


def test_what_an_association_has_carried_counts_for_its_child_and_the_worst_counts() -> None:
    host, plane = dataplane()
    first, second = child(), child(spi=0x2000)
    plane.child_up(SA, first)
    plane.child_up(SA, second)
    host.expiring = [(first.inbound, Expiry.HARD), (first.outbound, Expiry.SOFT), (second.outbound, Expiry.SOFT)]
    assert dict(plane.due(0.0)) == {first: Expiry.HARD, second: Expiry.SOFT}


def test_one_that_needs_a_successor_is_named_once_and_again_when_none_was_made() -> None:
    host, plane = dataplane()
    used = child()
    plane.child_up(SA, used)
    seen = []
    for _ in range(2):
        host.expiring = [(used.outbound, Expiry.SOFT)]
        seen.append(plane.due(0.0))
    plane.not_replaced(used)
    host.expiring = [(used.outbound, Expiry.SOFT)]
    assert [*seen, plane.due(0.0)] == [[(used, Expiry.SOFT)], [], [(used, Expiry.SOFT)]]
