"""Successors and ends of SAs with strongSwan, asked for by either end, with and without a key exchange."""

import time
from collections.abc import Callable

import pytest
from tests.support.ike_device import Device
from tests.support.ike_strongswan import Bench, Case

from locum.ike.configuration import Timing
from locum.ike.engine import ChildClosed, ChildEstablished, Closed, Established, Rekeyed
from locum.ike.operations import SharedSecretRequest

VERSIONS = pytest.mark.parametrize("version", [1, 2])
ROLES = pytest.mark.parametrize("initiator", [True, False], ids=["initiator", "responder"])
ASKING = pytest.mark.parametrize("we_ask", [True, False], ids=["we-ask", "peer-asks"])
#: IKEv1: strongSwan leaves a CHILD_SA that it has replaced to its lifetime, if it is not told otherwise.
DELETING = {"delete_rekeyed": "yes"}
V1_PROPOSAL = "aes128-sha256-ecp256"


def now() -> float:
    return time.monotonic()


def settled(bench: Bench, device: Device, case: Case) -> None:
    """Wait until either end has one CHILD_SA, and look whether packets pass."""
    bench.charon.wait(lambda: [len(sa.installed) for sa in bench.charon.sas()] == [1], "more than one SA is left")
    device.wait(lambda: [len(sa.children) for sa in device.live] == [1])
    bench.check_traffic(device, case)


@ROLES
@ASKING
@pytest.mark.parametrize("pfs", ["", "-ecp256"], ids=["plain", "pfs"])
@VERSIONS
def test_a_child_is_rekeyed(
    make_bench: Callable[..., Bench], version: int, pfs: str, we_ask: bool, initiator: bool
) -> None:
    bench = make_bench(settings=DELETING)
    case = Case(version=version, ike=V1_PROPOSAL, esp=f"aes128gcm16{pfs}")
    device = bench.connect(case, initiator=initiator)
    sa, first = device.sa, device.sa.children[0]
    if we_ask:
        device.order(lambda: sa.rekey_child(first, now=now()))
    else:
        bench.charon.rekey(child="net")
    second = device.wait_event(ChildEstablished, count=2).child
    assert second.inbound.encryption_key != first.inbound.encryption_key
    bench.check_keys(device, second, initiator=we_ask)
    # The first CHILD_SA of IKEv2 comes with the IKE SA; quick mode of IKEv1 has its own exchange each time.
    exchanges = [each for each in device.asked.requests if isinstance(each, SharedSecretRequest)]
    assert len(exchanges) == (0 if not pfs else 2 if version == 1 else 1)
    bench.check_traffic(device, case)
    if version == 2 or not we_ask:
        settled(bench, device, case)


def test_a_child_of_ike1_that_we_replaced_is_deleted_after_a_while(bench: Bench) -> None:
    case = Case(version=1, ike=V1_PROPOSAL)
    device = bench.connect(case, initiator=True)
    sa, first = device.sa, device.sa.children[0]
    device.order(lambda: sa.rekey_child(first, now=now()))
    assert device.wait_event(ChildClosed).child is first
    settled(bench, device, case)


@ROLES
@ASKING
def test_an_ike2_sa_is_rekeyed(bench: Bench, we_ask: bool, initiator: bool) -> None:
    case = Case(own="p256", peer="p256")
    device = bench.connect(case, initiator=initiator)
    before = device.sa
    if we_ask:
        device.order(lambda: before.rekey(now=now()))
    else:
        bench.charon.rekey()
    device.wait_event(Rekeyed)
    bench.charon.wait(lambda: len(bench.charon.sas()) == 1, "more than one IKE SA is left")
    device.wait(lambda: len(device.live) == 1)
    after, theirs = device.sa, bench.peer_sa()
    assert after is not before
    assert {after.own_spi, after.peer_spi} == {theirs.initiator_spi, theirs.responder_spi}
    bench.check_traffic(device, case)
    # The successor is as good as the first: it makes another child's keys from its own SK_d.
    child = after.children[0]
    device.order(lambda: after.rekey_child(child, now=now()))
    device.wait_event(ChildEstablished, count=2)
    settled(bench, device, case)


@ROLES
@ASKING
def test_an_ike1_sa_is_authenticated_anew(bench: Bench, we_ask: bool, initiator: bool) -> None:
    case = Case(version=1, own="rsa2048", peer="rsa2048", ike=V1_PROPOSAL)
    device = bench.connect(case, initiator=initiator)
    before = device.sa
    if we_ask:
        device.order(lambda: before.rekey(now=now()))
    else:
        bench.charon.rekey(anew=True)
    device.wait_event(Established, count=2)
    bench.charon.wait(
        lambda: [sa for sa in bench.charon.sas() if sa.state == "ESTABLISHED" and sa.unique > 1], "no new SA"
    )
    bench.check_traffic(device, case)


@ASKING
@VERSIONS
def test_short_lifetimes_are_lived_through(bench: Bench, version: int, we_ask: bool) -> None:
    case = Case(version=version, ike=V1_PROPOSAL, esp="aes128gcm16-ecp256")
    short = Timing(ike_lifetime=4.0, child_lifetime=2.0, margin=0.5, liveness=0, retransmission=0.3)
    device = bench.device(case, **({"timing": short} if we_ask else {}))
    if we_ask:
        bench.load(case)
    else:
        bench.load(case, soft=3, hard=6, child={"soft": 1, "hard": 3})
    bench.initiate(device, case)
    device.established()
    device.wait_event(ChildEstablished, count=4, patience=20)
    if version == 2:
        device.wait_event(Rekeyed, patience=20)
    else:
        device.wait_event(Established, count=2, patience=20)
    bench.check_traffic(device, case)


@VERSIONS
def test_both_ends_rekey_a_child_at_once(make_bench: Callable[..., Bench], version: int) -> None:
    bench = make_bench(settings=DELETING)
    case = Case(version=version, ike=V1_PROPOSAL)
    device = bench.connect(case, initiator=True)
    sa, first = device.sa, device.sa.children[0]
    # What the peer says is held back until both have begun.
    held = True
    device.lose = lambda outgoing, _: held and not outgoing
    bench.charon.rekey(child="net")
    device.order(lambda: sa.rekey_child(first, now=now()))
    bench.charon.wait_log("CREATE_CHILD_SA request" if version == 2 else "QUICK_MODE request")
    held = False
    device.wait_event(ChildClosed, patience=20)
    settled(bench, device, case)


def test_both_ends_rekey_an_ike2_sa_at_once(bench: Bench) -> None:
    case = Case()
    device = bench.connect(case, initiator=True)
    sa = device.sa
    held = True
    device.lose = lambda outgoing, _: held and not outgoing
    bench.charon.rekey()
    device.order(lambda: sa.rekey(now=now()))
    bench.charon.wait_log("generating CREATE_CHILD_SA request")
    held = False
    device.wait_event(Rekeyed, patience=20)
    bench.charon.wait(lambda: len(bench.charon.sas()) == 1, "more than one IKE SA is left", patience=20)
    settled(bench, device, case)


# --- the end ----------------------------------------------------------------------------------------------------


@ROLES
@VERSIONS
def test_we_delete_the_sa(bench: Bench, version: int, initiator: bool) -> None:
    case = Case(version=version, ike=V1_PROPOSAL)
    device = bench.connect(case, initiator=initiator)
    sa = device.sa
    device.order(lambda: sa.close(now=now()))
    closed = device.wait_event(Closed)
    assert closed.error is None
    assert len(device.seen(ChildClosed)) == 1
    bench.charon.gone()


@ROLES
@VERSIONS
def test_the_peer_deletes_the_sa(bench: Bench, version: int, initiator: bool) -> None:
    case = Case(version=version, ike=V1_PROPOSAL)
    device = bench.connect(case, initiator=initiator)
    bench.charon.terminate()
    assert device.wait_event(Closed).error is None
    assert len(device.seen(ChildClosed)) == 1
    assert device.live == []


@ROLES
@VERSIONS
def test_a_child_is_deleted_and_the_sa_stays(bench: Bench, version: int, initiator: bool) -> None:
    case = Case(version=version, ike=V1_PROPOSAL)
    device = bench.connect(case, initiator=initiator)
    sa, child = device.sa, device.sa.children[0]
    device.order(lambda: sa.close_child(child, now=now()))
    device.wait_event(ChildClosed)
    bench.charon.wait(lambda: not bench.charon.sas()[0].installed, "the child is still there")
    assert [each.state for each in bench.charon.sas()] == ["ESTABLISHED"]
    device.order(lambda: sa.create_child(now=now()))
    device.wait_event(ChildEstablished, count=2)
    settled(bench, device, case)


@ROLES
@VERSIONS
def test_the_peer_deletes_a_child_and_makes_another(bench: Bench, version: int, initiator: bool) -> None:
    case = Case(version=version, ike=V1_PROPOSAL)
    device = bench.connect(case, initiator=initiator)
    bench.charon.terminate(child="net")
    device.wait_event(ChildClosed)
    assert device.seen(Closed) == []
    bench.charon.initiate()
    device.wait_event(ChildEstablished, count=2)
    settled(bench, device, case)


@VERSIONS
def test_signs_of_life_are_given_by_the_peer(bench: Bench, version: int) -> None:
    case = Case(version=version, ike=V1_PROPOSAL)
    device = bench.connect(case, initiator=True)
    sa = device.sa
    before = len(device.messages())
    device.order(lambda: sa.check_liveness(now=now()))
    device.wait(lambda: len(device.messages()) >= before + 2)
    assert device.messages()[-1].startswith("<")
    assert device.seen(Closed) == []


def test_a_child_of_its_own_beside_the_first(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    case = Case()
    device = bench.connect(case, initiator=True)
    sa = device.sa
    device.order(lambda: sa.create_child(now=now()))
    second = device.wait_event(ChildEstablished, count=2).child
    bench.check_keys(device, second, initiator=True)
    assert len(device.sa.children) == 2
    bench.check_traffic(device, case)
