"""Quick mode of IKEv1 between two of our ends: what is agreed on, for which traffic, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from tests.support.ike1_memory import connected, connection, only, prepared
from tests.support.ike_memory import LEFT_ADDRESS, RIGHT_ADDRESS, Network, keys_agree, network

from locum.errors import ConfigurationError, LocumError, Unavailable
from locum.ike import algorithms as alg
from locum.ike.allowance import FURTHER_AT_ONCE
from locum.ike.configuration import Connection, Timing
from locum.ike.engine import ChildClosed, ChildEstablished, ChildFailed, MessagePassed, State
from locum.ike.errors import Notification, NotifyReceived
from locum.ike.operations import Exchange, IkeStartRequest, SharedSecretRequest
from locum.ike.policy import ChildPolicy
from locum.ike.registry import NotifyType1, ProtocolId
from locum.ike.traffic_selectors import TrafficSelector, selector_of
from locum.ike.v1 import informational
from locum.ike.v1.kept import MAX_CHILDREN
from locum.ike.v1.phase2 import MAX_QUICK_MODES
from locum.ipsec.sa import Mode, Protocol


def network_of(text: str, *, protocol: int = 0, port: int = 0) -> TrafficSelector:
    return selector_of(ip_network(text), protocol=protocol, port=port)


def ends(local: str, remote: str, **settings: Any) -> tuple[Connection, Connection]:
    """Connections of both ends for the same two networks."""
    left = connection(local_traffic=(network_of(local),), remote_traffic=(network_of(remote),), **settings)
    return left, replace(left, local_traffic=left.remote_traffic, remote_traffic=left.local_traffic)


def failures(net: Network) -> list[LocumError]:
    return [event.error for event in net.left.of(ChildFailed)]


# --- what is agreed on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pfs", [None, alg.ECP_256, alg.MODP_2048], ids=str)
@pytest.mark.parametrize(
    ("encryption", "integrity"),
    [
        (alg.ENCR_AES_GCM_16_256, None),
        (alg.ENCR_AES_CBC_128, alg.AUTH_HMAC_SHA2_256_128),
        (alg.ENCR_NULL, alg.AUTH_HMAC_SHA2_512_256),
    ],
    ids=str,
)
def test_both_ends_have_the_same_keys(
    pfs: alg.Group | None, encryption: alg.Encryption, integrity: alg.Integrity | None
) -> None:
    integrities = (integrity,) if integrity is not None else ()
    net = connected(child=ChildPolicy(encryptions=(encryption,), integrities=integrities, groups=(pfs,)))
    assert keys_agree(net)
    suite = net.left.child.suite
    assert (suite.encryption, suite.integrity, suite.group) == (encryption, integrity, pfs)
    assert (
        net.left.child.inbound.encryption_key != net.left.child.outbound.encryption_key
        or not encryption.key_length
    )


def test_ah_protects_without_encryption() -> None:
    net = connected(child=ChildPolicy(protocol=ProtocolId.AH))
    assert keys_agree(net)
    assert net.left.child.inbound.protocol is Protocol.AH


def test_extended_sequence_numbers_are_negotiated() -> None:
    net = connected(child=ChildPolicy(extended_sequence_numbers=(True,)))
    assert net.left.child.inbound.extended_sequence
    assert net.right.child.inbound.extended_sequence


@pytest.mark.parametrize("initiator", ["left", "right"])
def test_perfect_forward_secrecy_is_one_key_exchange_of_the_authority_for_the_proven_peer(initiator: str) -> None:
    net = connected(child=ChildPolicy(groups=(alg.ECP_256,)))
    for host in (net.left, net.right):
        host.asked.clear()
    getattr(net, initiator).sa.create_child(now=net.now)
    net.run()
    assert keys_agree(net)
    assert len(net.left.installed) == 2
    for host in (net.left, net.right):
        start = host.asked[0]
        assert isinstance(start, IkeStartRequest)
        assert start.exchange is Exchange.FURTHER
        assert start.initiator == (host.name == initiator)
        assert start.sa == b""
        assert start.remote_identity == host.sa.peer_identity != ""
        assert isinstance(host.asked[-1], SharedSecretRequest)


def test_without_perfect_forward_secrecy_the_terminal_is_alone() -> None:
    """A9, fig 13."""
    net = connected()
    for host in (net.left, net.right):
        assert not any(isinstance(each, SharedSecretRequest) for each in host.asked)
        host.asked.clear()
    net.right.sa.create_child(now=net.now)
    net.run()
    assert len(net.left.installed) == 2
    assert net.left.asked == net.right.asked == []


@pytest.mark.parametrize("group", [alg.ECP_256, alg.CURVE25519], ids=str)
def test_an_initiator_gives_in_to_a_peer_that_insists_on_perfect_forward_secrecy(group: alg.Group) -> None:
    """First in the group of phase 1, which is ECP-256 here; without it in policy, in our best."""
    ours = ChildPolicy(groups=(None, alg.CURVE25519, group))
    net = connected(child=ours, right=connection(child=ChildPolicy(groups=(group,))))
    assert keys_agree(net)
    assert net.left.child.suite.group is group
    assert failures(net) == []
    assert net.left.of(ChildEstablished)[0].replaced is None
    # What replaces it is offered in that group at once.
    net.left.events.clear()
    net.left.sa.rekey_child(net.left.child, now=net.now)
    net.run()
    assert keys_agree(net)
    offers = [each for each in net.left.of(MessagePassed) if each.description.startswith("quick mode 1")]
    assert len(offers) == 1


def test_an_initiator_gives_in_once() -> None:
    net = connected(right=connection(child=ChildPolicy(groups=(alg.ECP_384,))))
    assert net.left.installed == net.right.installed == []
    assert len(failures(net)) == 1
    offers = [each for each in net.left.of(MessagePassed) if each.description.startswith("quick mode 1")]
    assert len(offers) == 2


def test_quick_modes_with_a_key_exchange_that_come_too_often_wait_until_they_are_repeated() -> None:
    net = connected(child=ChildPolicy(groups=(alg.ECP_256,)), timing=Timing(liveness=0.0))

    def begun() -> int:
        return sum(
            isinstance(each, IkeStartRequest) and each.exchange is Exchange.FURTHER for each in net.right.asked
        )

    assert begun() == 1
    for _ in range(FURTHER_AT_ONCE + 4):
        net.left.sa.create_child(now=net.now)
    net.run()
    assert begun() == FURTHER_AT_ONCE
    net.advance(20.0)
    assert begun() == 1 + FURTHER_AT_ONCE + 4
    assert failures(net) == []
    assert keys_agree(net)


def test_an_end_that_insists_on_perfect_forward_secrecy_gets_it_or_nothing() -> None:
    without = ChildPolicy(groups=(None,))
    net = connected(child=without, right=connection(child=ChildPolicy(groups=(alg.ECP_256,))))
    assert net.left.installed == net.right.installed == []
    (error,) = failures(net)
    assert isinstance(error, NotifyReceived)
    assert error.notify_type == NotifyType1.NO_PROPOSAL_CHOSEN
    assert net.left.sa.state is net.right.sa.state is State.ESTABLISHED


# --- traffic ----------------------------------------------------------------------------------------------------


def test_without_selectors_a_child_is_for_both_addresses() -> None:
    net = connected()
    (local,), (remote,) = net.left.child.outbound.local, net.left.child.outbound.remote
    assert (str(local), str(remote)) == (f"{LEFT_ADDRESS}/32", f"{RIGHT_ADDRESS}/32")
    assert net.right.child.outbound.local == net.left.child.outbound.remote


@pytest.mark.parametrize(
    ("local", "remote"),
    [("10.1.0.0/16", "10.2.0.0/24"), ("10.1.0.7/32", "0.0.0.0/0"), ("2001:db8:1::/48", "2001:db8:2::/64")],
)
def test_networks_are_told_and_kept(local: str, remote: str) -> None:
    left, right = ends(local, remote)
    net = network(left, right, observed=True).connect()
    assert str(net.left.child.outbound.local[0]) == local
    assert str(net.right.child.outbound.remote[0]) == local
    assert str(net.left.child.inbound.remote[0]) == remote
    assert net.left.child.inbound.mode is Mode.TUNNEL


def test_one_protocol_and_port_are_told_and_kept() -> None:
    left, _ = ends("10.1.0.0/16", "10.2.0.0/16")
    left = replace(left, remote_traffic=(network_of("10.2.0.0/16", protocol=6, port=443),))
    right = replace(left, local_traffic=left.remote_traffic, remote_traffic=left.local_traffic)
    net = network(left, right, observed=True).connect()
    assert str(net.right.child.inbound.local[0]) == "10.2.0.0/16[tcp/443]"


def test_a_responder_takes_a_part_of_what_it_may() -> None:
    left, _ = ends("10.1.2.0/24", "10.2.0.0/16")
    _, right = ends("10.1.0.0/16", "10.0.0.0/8")
    net = network(left, right, observed=True).connect()
    assert str(net.right.child.outbound.remote[0]) == "10.1.2.0/24"
    assert str(net.right.child.outbound.local[0]) == "10.2.0.0/16"


@pytest.mark.parametrize(
    ("local", "remote"), [("10.1.0.0/16", "10.2.0.0/16"), ("10.9.0.0/24", "10.2.0.0/24"), ("::/0", "::/0")]
)
def test_a_responder_takes_nothing_beyond_it(local: str, remote: str) -> None:
    left, _ = ends(local, remote)
    _, right = ends("10.1.0.0/24", "10.2.0.0/24")
    net = network(left, right, observed=True).connect()
    assert net.left.installed == net.right.installed == []
    (error,) = failures(net)
    assert isinstance(error, NotifyReceived)
    assert error.notify_type == NotifyType1.INVALID_ID_INFORMATION
    assert net.left.sa.children == ()


def test_traffic_that_quick_mode_cannot_speak_of_is_a_configuration_error() -> None:
    ports = TrafficSelector(
        ts_type=7, protocol=6, start_port=1, end_port=9, start=LEFT_ADDRESS.packed, end=LEFT_ADDRESS.packed
    )
    net = prepared(local_traffic=(ports,))
    with pytest.raises(ConfigurationError, match="range"):
        net.initiate()


# --- transport mode ---------------------------------------------------------------------------------------------


def test_transport_mode_is_between_the_hosts_themselves() -> None:
    net = connected(transport=True)
    assert net.left.child.inbound.mode is net.right.child.inbound.mode is Mode.TRANSPORT
    assert keys_agree(net)


def test_transport_mode_is_for_no_network() -> None:
    left, right = ends("10.1.0.0/16", "10.2.0.0/16", transport=True)
    net = network(left, right, observed=True).connect()
    assert net.left.installed == []
    assert len(failures(net)) == 1


def test_one_end_in_transport_mode_and_one_in_tunnel_mode_do_not_agree() -> None:
    net = connected(transport=True, right=connection())
    (error,) = failures(net)
    assert isinstance(error, NotifyReceived)
    assert error.notify_type == NotifyType1.NO_PROPOSAL_CHOSEN


# --- several, and too many --------------------------------------------------------------------------------------


def test_several_quick_modes_at_once_do_not_disturb_each_other() -> None:
    net = connected(child=ChildPolicy(groups=(alg.ECP_256,)))
    for _ in range(3):
        net.left.sa.create_child(now=net.now)
        net.right.sa.create_child(now=net.now)
    net.run()
    assert len(net.left.of(ChildEstablished)) == len(net.right.of(ChildEstablished)) == 7
    assert keys_agree(net)
    net.advance(60)
    # All are for the same traffic, so that in the end one is left.
    assert len(net.left.installed) == len(net.right.installed) == 1
    assert keys_agree(net)


def test_more_quick_modes_than_fit_are_refused_here_and_there() -> None:
    net = connected()
    net.disturb = lambda passage: ()
    for _ in range(MAX_QUICK_MODES + 3):
        net.left.sa.create_child(now=net.now)
    net.run()
    assert len(failures(net)) == 4
    assert MAX_QUICK_MODES < MAX_CHILDREN


def test_a_quick_mode_that_is_not_answered_fails_and_leaves_the_sa_alone() -> None:
    net = connected(timing=Timing(attempts=2, retransmission=0.5))
    net.disturb = lambda passage: ()
    net.left.sa.create_child(now=net.now)
    net.advance(5)
    assert len(failures(net)) == 1
    assert net.left.sa.state is State.ESTABLISHED
    assert len(net.left.installed) == 1


def test_an_authority_that_fails_in_quick_mode_fails_that_alone() -> None:
    net = connected(child=ChildPolicy(groups=(alg.ECP_256,)))
    net.right.hold = True
    net.left.sa.create_child(now=net.now)
    net.run()
    ((sa, _, _),) = net.right.held
    sa.fail(Unavailable("the delegate is away"), now=net.now)
    net.advance(1)
    (error,) = failures(net)
    assert isinstance(error, NotifyReceived)
    assert sa.state is State.ESTABLISHED
    assert len(net.left.installed) == len(net.right.installed) == 1


def test_a_notify_says_which_quick_mode_it_ends() -> None:
    """Two are open; the peer refuses the second one only, by its SPI."""
    net = connected(child=ChildPolicy(groups=(None,)))
    net.right.hold = True
    sa = only(net.left)
    net.disturb = lambda passage: ()
    sa.create_child(now=net.now)
    sa.create_child(now=net.now)
    net.run()
    spis = [each.spi for each in sa._phase2._quick.values() if each.initiator][-2:]
    right = only(net.right)
    net.disturb = lambda passage: ((0.0, passage),)
    reason = Notification(NotifyType1.NO_PROPOSAL_CHOSEN)
    right._core.inform(informational.failure(reason, protocol=ProtocolId.ESP, spi=spis[1].to_bytes(4, "big")))
    right.touched(right)
    net.run()
    assert len(failures(net)) == 1
    open_ = [each.spi for each in sa._phase2._quick.values() if not each.settled]
    assert open_ == [spis[0]]


# --- replay -----------------------------------------------------------------------------------------------------


def test_messages_of_a_quick_mode_that_is_over_begin_nothing() -> None:
    net = connected()
    quick = [each for each in net.log if each.message[18] == 32]
    net.advance(120)
    before = len(net.log)
    dropped = net.right.sa.dropped
    for _ in range(5):
        for each in quick:
            net.inject(net.right if each.sender == "left" else net.left, each.message)
    assert len(net.right.of(ChildEstablished)) == len(net.left.of(ChildEstablished)) == 1
    assert len(net.log) == before
    assert net.right.sa.dropped > dropped


def test_the_last_message_of_quick_mode_is_repeated_when_the_peer_repeats_its_own() -> None:
    net = prepared(timing=Timing(retransmission=0.5))
    lost: list[int] = []

    def lose_the_third(passage: Any) -> Any:
        third = passage.sender == "left" and passage.message[18] == 32 and len(passage.message) < 90
        if third and len(lost) < 2:
            lost.append(passage.number)
            return ()
        return ((0.0, passage),)

    net.disturb = lose_the_third
    net.initiate()
    net.run()
    assert len(net.left.installed) == 1
    assert net.right.installed == []
    net.advance(3)
    assert len(lost) == 2
    assert keys_agree(net)
    assert len(net.right.installed) == 1


def test_the_commit_bit_changes_nothing() -> None:
    """RFC 2408 section 3.1: it is not protected, and all that it asks for is patience."""
    net = prepared()
    net.disturb = lambda passage: (
        (0.0, passage.altered(passage.message[:19] + bytes((passage.message[19] | 2,)) + passage.message[20:])),
    )
    net.initiate()
    net.run()
    assert len(net.left.installed) == 1
    assert keys_agree(net)
    assert any("quick mode 3" in each.description for each in net.right.of(MessagePassed))
    assert net.right.of(ChildClosed) == []
