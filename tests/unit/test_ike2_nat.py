"""IKEv2 through NATs: detection, the other port, keepalives, and peers whose address changes."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

import pytest
from tests.support.ike_memory import (
    LEFT_ADDRESS,
    RIGHT_ADDRESS,
    Disturbance,
    Network,
    Passage,
    keys_agree,
    network,
)

from locum.ike.configuration import Connection, Timing
from locum.ike.engine import Path, PathChanged, State
from locum.ike.nat import KEEPALIVE
from locum.ike.policy import ChildPolicy
from locum.ike.registry import ProtocolId
from locum.ike.traffic_selectors import selector_of
from locum.ipsec.sa import UdpEncapsulation

PUBLIC = ip_address("203.0.113.9")
MOVED = ip_address("203.0.113.77")


def behind_nat(
    made: Network, *, hidden: str = "left", public: str = str(PUBLIC), shift: int = 20_000
) -> Disturbance:
    """`hidden` is behind a NAT with this public address; its ports seem to be `shift` higher."""
    inside = (made.left if hidden == "left" else made.right).address
    outside = ip_address(public)

    def translate(passage: Passage) -> Iterable[tuple[float, Passage]]:
        path = passage.datagram.path
        if passage.sender == hidden:
            return ((0.0, passage.moved(local=outside, local_port=path.local_port + shift)),)
        if path.remote == outside:
            return ((0.0, passage.moved(remote=inside, remote_port=path.remote_port - shift)),)
        return ((0.0, passage),)

    return translate


def traffic(left: str = "10.1.0.0/16", right: str = "10.2.0.0/16") -> tuple[Connection, Connection]:
    here, there = (selector_of(ip_network(left)),), (selector_of(ip_network(right)),)
    timing = Timing(liveness=0.0, keepalive=20.0)
    return (
        Connection(local_traffic=here, remote_traffic=there, timing=timing),
        Connection(local_traffic=there, remote_traffic=here, timing=timing),
    )


def through_nat() -> Network:
    made = network(*traffic())
    made.disturb = behind_nat(made)
    return made.connect()


def established(made: Network) -> bool:
    return made.left.sa.state is made.right.sa.state is State.ESTABLISHED and keys_agree(made)


def test_an_initiator_behind_a_nat_goes_on_at_port_4500() -> None:
    made = through_nat()
    assert established(made)
    ports = [(each.datagram.path.local_port, each.datagram.path.remote_port) for each in made.log]
    assert ports == [(500, 500), (500, 20500), (4500, 4500), (4500, 24500)]
    assert made.left.sa.path == Path(LEFT_ADDRESS, 4500, RIGHT_ADDRESS, 4500)
    assert made.right.sa.path == Path(RIGHT_ADDRESS, 4500, PUBLIC, 24500)


def test_esp_travels_in_udp_through_a_nat() -> None:
    made = through_nat()
    assert made.left.child.outbound.encapsulation == UdpEncapsulation(source_port=4500, destination_port=4500)
    assert made.right.child.outbound.encapsulation == UdpEncapsulation(source_port=4500, destination_port=24500)
    assert made.right.child.inbound.encapsulation == UdpEncapsulation(source_port=24500, destination_port=4500)
    assert made.right.child.outbound.destination == made.right.child.inbound.source == PUBLIC


def test_a_responder_behind_a_nat_is_reached_at_port_4500_too() -> None:
    made = network(*traffic())
    made.left.address = LEFT_ADDRESS
    made.disturb = behind_nat(made, hidden="right", shift=0)
    made.left.endpoint.initiate(Path(LEFT_ADDRESS, 500, PUBLIC, 500), now=made.now)
    made.run()
    assert established(made)
    assert made.left.sa.path == Path(LEFT_ADDRESS, 4500, PUBLIC, 4500)
    assert made.left.child.outbound.encapsulation is not None


def test_without_a_nat_nothing_moves() -> None:
    made = network(*traffic()).connect()
    assert made.left.sa.path.local_port == 500
    assert made.left.child.outbound.encapsulation is None


@pytest.mark.parametrize("forcing", ["left", "right"])
def test_encapsulation_can_be_forced_by_either_end(forcing: str) -> None:
    pair = (Connection(force_encapsulation=True), Connection())
    made = network(*(pair if forcing == "left" else pair[::-1])).connect()
    assert established(made)
    assert made.left.child.outbound.encapsulation == UdpEncapsulation(source_port=4500, destination_port=4500)
    assert made.right.child.outbound.encapsulation == UdpEncapsulation(source_port=4500, destination_port=4500)


def test_ah_is_never_put_into_udp() -> None:
    made = network(Connection(force_encapsulation=True, child=ChildPolicy(protocol=ProtocolId.AH))).connect()
    assert made.left.child.outbound.encapsulation is None


def test_an_sa_that_begins_at_port_4500_stays_there() -> None:
    made = network(*traffic())
    made.initiate(port=4500)
    made.run()
    assert established(made)
    assert {each.datagram.path.marked for each in made.log} == {True}


def test_who_is_behind_a_nat_keeps_its_mapping_alive() -> None:
    made = through_nat()
    before = len(made.log)
    made.advance(61.0)
    sent = made.log[before:]
    assert [(each.sender, each.message) for each in sent] == [("left", KEEPALIVE)] * 3
    assert made.right.endpoint.dropped == 0 or made.right.sa.state is State.ESTABLISHED


def test_a_peer_behind_a_nat_is_followed_to_its_new_address_with_its_children() -> None:
    made = through_nat()
    child = made.right.child
    made.disturb = behind_nat(made, public=str(MOVED), shift=1000)
    made.left.sa.check_liveness(now=made.now)
    made.run()
    (changed,) = made.right.of(PathChanged)
    assert changed.moved == ((child, made.right.child),)
    assert made.right.sa.path == Path(RIGHT_ADDRESS, 4500, MOVED, 5500)
    assert made.right.child.outbound.destination == MOVED
    assert made.right.child.outbound.encapsulation == UdpEncapsulation(source_port=4500, destination_port=5500)
    assert keys_agree(made)
    made.right.sa.rekey_child(made.right.child, now=made.now)
    made.run()
    assert established(made)
    assert len(made.right.installed) == 1


def test_a_repeated_message_moves_nobody() -> None:
    made = through_nat()
    made.left.sa.check_liveness(now=made.now)
    made.run()
    old = next(each for each in reversed(made.log) if each.sender == "left")
    path = made.right.sa.path
    made.right.endpoint.receive(old.message, Path(RIGHT_ADDRESS, 4500, MOVED, 4500), now=made.now)
    made.run()
    assert made.right.sa.path == path
    assert made.right.of(PathChanged) == []
    # The answer, no longer than what asked for it, goes to whoever asked.
    assert made.log[-1].datagram.path.remote == MOVED
    assert len(made.log[-1].message) <= len(old.message)


def test_a_forged_message_moves_nobody() -> None:
    made = through_nat()
    made.left.sa.check_liveness(now=made.now)
    made.disturb = lambda passage: ()
    made.run()
    message = made.log[-1].message
    forged = message[:-1] + bytes((message[-1] ^ 1,))
    path = made.right.sa.path
    made.right.endpoint.receive(forged, Path(RIGHT_ADDRESS, 4500, MOVED, 4500), now=made.now)
    made.run()
    assert made.right.sa.path == path


def test_who_is_behind_a_nat_itself_follows_nobody() -> None:
    made = through_nat()
    made.right.sa.check_liveness(now=made.now)
    made.disturb = lambda passage: ()
    made.run()
    path = made.left.sa.path
    made.left.endpoint.receive(made.log[-1].message, Path(LEFT_ADDRESS, 4500, MOVED, 4500), now=made.now)
    made.run()
    assert made.left.sa.path == path


def test_transport_mode_through_a_nat_puts_the_seen_address_in_the_place_of_the_hidden_one() -> None:
    made = network(Connection(transport=True, timing=Timing(liveness=0.0)))
    made.disturb = behind_nat(made)
    made.connect()
    assert established(made)
    assert [str(each) for each in made.right.child.inbound.remote] == [f"{PUBLIC}/32"]
    assert [str(each) for each in made.right.child.inbound.local] == [f"{RIGHT_ADDRESS}/32"]
    assert [str(each) for each in made.left.child.inbound.local] == [f"{LEFT_ADDRESS}/32"]


@pytest.mark.parametrize("hidden", ["left", "right"])
def test_transport_mode_through_a_nat_tells_which_addresses_packets_had_when_they_left(hidden: str) -> None:
    """RFC 7296 section 2.23.1, RFC 3948 section 3.1.2: also of the successor that either end makes."""
    made = network(Connection(transport=True, timing=Timing(liveness=0.0)))
    made.disturb = behind_nat(made, hidden=hidden, shift=20_000 if hidden == "left" else 0)
    destination = RIGHT_ADDRESS if hidden == "left" else PUBLIC
    made.left.endpoint.initiate(Path(LEFT_ADDRESS, 500, destination, 500), now=made.now)
    made.run()
    for _ in range(3):
        assert established(made)
        left, right = made.left.child, made.right.child
        for sent, received in ((left.outbound, right.inbound), (right.outbound, left.inbound)):
            assert received.original_addresses == (sent.source, sent.destination)
            assert received.original_addresses != (received.source, received.destination)
            assert sent.original_addresses is None
        made.left.sa.rekey_child(left, now=made.now)
        made.run()


def test_tunnels_and_open_paths_have_no_other_addresses_than_their_own() -> None:
    for made in (through_nat(), network(Connection(transport=True)).connect()):
        assert made.left.child.inbound.original_addresses is None
        assert made.right.child.inbound.original_addresses is None


def test_a_rekeyed_sa_goes_on_where_its_predecessor_was() -> None:
    made = through_nat()
    path = made.right.sa.path
    made.right.sa.rekey(now=made.now)
    made.run()
    assert established(made)
    assert made.right.sa.path == path
    made.left.sa.create_child(now=made.now)
    made.run()
    assert made.left.installed[-1].outbound.encapsulation is not None
