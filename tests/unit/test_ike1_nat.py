"""IKEv1 through a NAT (RFC 3947, RFC 3948): detection, port 4500, encapsulation, mappings that change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from tests.support.ike1_memory import connected, connection, only, prepared
from tests.support.ike_memory import LEFT_ADDRESS, RIGHT_ADDRESS, Network, Passage, keys_agree, network

from locum.ike.configuration import Mode, Timing
from locum.ike.engine import Path, PathChanged
from locum.ike.nat import KEEPALIVE
from locum.ike.payloads1 import Identification, NatOriginalAddress
from locum.ike.registry import EncapsulationMode
from locum.ike.traffic_selectors import selector_of
from locum.ike.v1.traffic import Traffic
from locum.ipsec.sa import UdpEncapsulation

MODES = pytest.mark.parametrize("mode", list(Mode), ids=[mode.value for mode in Mode])
INSIDE = LEFT_ADDRESS
OUTSIDE = ip_address("203.0.113.1")
INNER_LEFT, INNER_RIGHT = (selector_of(ip_network(each)) for each in ("10.1.0.0/24", "10.2.0.0/24"))


class Translator:
    """A NAT before the left end: its address outside, and a port for each of its own."""

    def __init__(self) -> None:
        self.base = 40_000

    def __call__(self, passage: Passage) -> Iterable[tuple[float, Passage]]:
        path = passage.datagram.path
        if passage.sender == "left":
            return ((0.0, passage.moved(local=OUTSIDE, local_port=self.base + path.local_port)),)
        inside = path.remote_port - self.base
        if path.remote != OUTSIDE or inside not in (500, 4500):
            return ()
        return ((0.0, passage.moved(remote=INSIDE, remote_port=inside)),)


def behind_a_nat(
    mode: Mode = Mode.MAIN, *, right: dict[str, Any] | None = None, **settings: Any
) -> tuple[Network, Translator]:
    """The left end has made its SAs through a NAT; `right` are other settings of the right end."""
    settings.setdefault("timing", Timing(liveness=0))
    if not settings.get("transport"):
        # An address that a NAT translates is not what a tunnel can be for.
        settings["local_traffic"], settings["remote_traffic"] = (INNER_LEFT,), (INNER_RIGHT,)
    left = connection(mode, **settings)
    settings |= right or {}
    right_end = replace(
        connection(mode, **settings), local_traffic=left.remote_traffic, remote_traffic=left.local_traffic
    )
    net = network(left, right_end, observed=True)
    nat = Translator()
    net.disturb = nat
    net.initiate()
    net.run()
    return net, nat


@MODES
@pytest.mark.parametrize("transport", [False, True], ids=["tunnel", "transport"])
def test_a_nat_is_seen_and_everything_goes_over_port_4500(mode: Mode, transport: bool) -> None:
    net, nat = behind_a_nat(mode, transport=transport)
    assert net.left.sa.path == Path(INSIDE, 4500, RIGHT_ADDRESS, 4500)
    assert net.right.sa.path == Path(RIGHT_ADDRESS, 4500, OUTSIDE, nat.base + 4500)
    assert keys_agree(net)
    left, right = net.left.child, net.right.child
    due = EncapsulationMode.UDP_TRANSPORT if transport else EncapsulationMode.UDP_TUNNEL
    assert left.suite.mode is right.suite.mode is due
    assert left.outbound.encapsulation == UdpEncapsulation(source_port=4500, destination_port=4500)
    assert right.outbound.encapsulation == UdpEncapsulation(source_port=4500, destination_port=nat.base + 4500)
    assert right.outbound.destination == right.inbound.source == OUTSIDE


@MODES
def test_without_a_nat_ports_and_encapsulation_stay_as_they_are(mode: Mode) -> None:
    net = connected("psk", mode)
    assert {(each.datagram.path.local_port, each.datagram.path.remote_port) for each in net.log} == {(500, 500)}
    assert net.left.child.outbound.encapsulation is None
    assert net.left.child.suite.mode is EncapsulationMode.TUNNEL


@MODES
@pytest.mark.parametrize("end", ["left", "right"])
def test_either_end_can_have_encapsulation_without_a_nat(mode: Mode, end: str) -> None:
    forced, plain = connection(mode, force_encapsulation=True), connection(mode)
    net = connected("psk", mode, force_encapsulation=end == "left", right=plain if end == "left" else forced)
    assert net.left.child.outbound.encapsulation is not None
    assert net.right.child.outbound.encapsulation is not None
    assert keys_agree(net)


def test_in_transport_mode_the_original_addresses_are_told() -> None:
    """RFC 3947 section 5.2; the selectors are for the addresses on the path."""
    traffic = Traffic.of(
        connection(transport=True), Path(INSIDE, 4500, RIGHT_ADDRESS, 4500), initiator=True, nat=True
    )
    original = [each for each in traffic.original_addresses() if isinstance(each, NatOriginalAddress)]
    assert [each.address for each in original] == [INSIDE.packed, RIGHT_ADDRESS.packed]
    assert [each.data for each in traffic.identifications() if isinstance(each, Identification)] == [
        INSIDE.packed,
        RIGHT_ADDRESS.packed,
    ]
    assert replace(traffic, nat=False).original_addresses() == ()
    assert replace(traffic, transport=False).original_addresses() == ()

    net, _ = behind_a_nat(transport=True)
    assert str(net.right.child.inbound.remote[0]) == f"{OUTSIDE}/32"
    assert str(net.left.child.outbound.local[0]) == f"{INSIDE}/32"


@MODES
def test_in_transport_mode_both_ends_know_which_addresses_packets_had_when_they_left(mode: Mode) -> None:
    """RFC 3948 section 3.1.2: that is what the checksums inside were made for."""
    net, _ = behind_a_nat(mode, transport=True)
    left, right = net.left.child, net.right.child
    assert right.inbound.original_addresses == (INSIDE, RIGHT_ADDRESS)
    assert left.inbound.original_addresses == (RIGHT_ADDRESS, OUTSIDE)
    assert left.outbound.original_addresses is right.outbound.original_addresses is None

    net, _ = behind_a_nat(mode)
    assert net.right.child.inbound.original_addresses is net.left.child.inbound.original_addresses is None


def test_the_end_behind_the_nat_keeps_its_mapping() -> None:
    net, _ = behind_a_nat()
    before = len(net.log)
    net.advance(61)
    kept = [each for each in net.log[before:] if each.message == KEEPALIVE]
    assert len(kept) == 3
    assert {(each.sender, each.datagram.path.remote_port) for each in kept} == {("left", 4500)}


def test_a_new_mapping_is_learnt_from_an_authentic_message() -> None:
    net, nat = behind_a_nat()
    nat.base = 50_000
    net.left.sa.check_liveness(now=net.now)
    net.run()
    assert net.right.sa.path.remote_port == nat.base + 4500
    (changed,) = net.right.of(PathChanged)
    ((_, after),) = changed.moved
    assert after.outbound.encapsulation == UdpEncapsulation(source_port=4500, destination_port=nat.base + 4500)
    assert after.inbound.encryption_key == net.left.child.outbound.encryption_key
    assert keys_agree(net)
    net.right.sa.close(now=net.now)
    net.run()
    assert net.left.installed == net.right.installed == []


def test_a_new_mapping_is_learnt_from_nothing_else() -> None:
    net, _ = behind_a_nat()
    path = net.right.sa.path
    message = [each.message for each in net.log if each.sender == "left"][-1]
    stranger = ip_address("203.0.113.66")
    net.inject(net.right, message, source=stranger, port=4500)
    net.inject(net.right, message[:-1] + b"?", source=stranger, port=4500)
    assert net.right.sa.path == path
    assert net.right.of(PathChanged) == []


def test_without_a_nat_the_peer_does_not_move() -> None:
    net = connected()
    path = net.right.sa.path
    net.disturb = lambda passage: ((0.0, passage.moved(local=OUTSIDE)),)
    net.left.sa.check_liveness(now=net.now)
    net.run()
    assert net.right.sa.path == path


def test_a_responder_behind_a_nat_is_reached() -> None:
    inside = RIGHT_ADDRESS

    def translate(passage: Passage) -> Iterable[tuple[float, Passage]]:
        if passage.sender == "right":
            return ((0.0, passage.moved(local=OUTSIDE)),)
        return ((0.0, passage.moved(remote=inside)),)

    net = prepared("psk", timing=Timing(liveness=0), transport=True)
    net.disturb = translate
    net.left.endpoint.initiate(Path(LEFT_ADDRESS, 500, OUTSIDE, 500), now=net.now)
    net.run()
    assert keys_agree(net)
    assert only(net.right)._channel.nat_here
    assert only(net.left)._channel.nat_there
    assert net.left.child.outbound.encapsulation is not None


def test_a_reauthentication_goes_the_way_that_is_open() -> None:
    net, nat = behind_a_nat(right={"timing": Timing(ike_lifetime=100.0, liveness=0)})
    net.advance(98)
    assert len(net.right.installed) == 1
    assert net.right.sa.path.remote_port == nat.base + 4500
    assert keys_agree(net)
