"""IKEv2 between two of our ends: IKE_SA_INIT, IKE_INTERMEDIATE, IKE_AUTH and the first CHILD_SA."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from tests.support import pki
from tests.support.ike_memory import (
    LEFT_ADDRESS,
    LEFT_NAME,
    RIGHT_ADDRESS,
    RIGHT_NAME,
    TERMINAL,
    Network,
    certificate_authority,
    keys_agree,
    network,
    psk_authority,
)

from locum.authority.databases import Action, PostquantumSecret, TrustMaterial
from locum.authority.local import IkeOptions, LocalAuthority
from locum.errors import Incompatible, Refused, TimedOut, Unauthenticated
from locum.handshake import PeerRejected
from locum.ike import algorithms as alg
from locum.ike.configuration import Connection, Timing
from locum.ike.engine import ChildEstablished, ChildFailed, Closed, Established, MessagePassed, Path, State
from locum.ike.errors import NotifyReceived
from locum.ike.operations import (
    AdditionalKeyExchangeRequest,
    IkeAuthenticateRequest,
    IkeStartRequest,
    KeyExchangeRequest,
    ProveRequest,
    PublicValueRequest,
    SaKeysRequest,
)
from locum.ike.policy import ChildPolicy, IkePolicy
from locum.ike.registry import NotifyType2, ProtocolId
from locum.ike.traffic_selectors import TrafficSelector, selector_of
from locum.ipsec.sa import Mode, Protocol

QUICK = Timing(attempts=3, handshake=10.0)


def traffic(*networks: str, **limits: int) -> tuple[TrafficSelector, ...]:
    return tuple(selector_of(ip_network(each), **limits) for each in networks)


def established(made: Network) -> bool:
    """Both ends have the same SA, and the same CHILD_SA under it."""
    return (
        made.left.sa.state is made.right.sa.state is State.ESTABLISHED
        and len(made.left.installed) == len(made.right.installed) == 1
        and keys_agree(made)
    )


def asked(host_requests: list[Any]) -> list[str]:
    return [type(request).__name__ for request in host_requests]


def messages(made: Network) -> list[str]:
    """What passed, as the left end saw it."""
    return [event.description for event in made.left.of(MessagePassed)]


# --- authentication -----------------------------------------------------------------------------------------


def test_two_ends_with_a_pre_shared_key_agree_on_an_sa_and_a_child() -> None:
    made = network(Connection(), observed=True).connect()
    assert established(made)
    assert made.left.sa.peer_identity == f"dns:{RIGHT_NAME}"
    assert made.right.sa.peer_identity == f"dns:{LEFT_NAME}"
    assert [event.split(":")[0] for event in messages(made)] == [
        "IKE_SA_INIT request",
        "IKE_SA_INIT response",
        "IKE_AUTH request",
        "IKE_AUTH response",
    ]
    assert made.left.child.inbound.encapsulation is None


def test_what_is_asked_of_the_authority_is_what_the_table_of_operations_says() -> None:
    made = network(Connection()).connect()
    assert asked(made.left.asked) == [
        "IkeStartRequest",
        "PublicValueRequest",
        "KeyExchangeRequest",
        "ProveRequest",
        "IkeAuthenticateRequest",
        "SaKeysRequest",
    ]
    assert asked(made.right.asked) == [
        "IkeStartRequest",
        "KeyExchangeRequest",
        "IkeAuthenticateRequest",
        "ProveRequest",
        "SaKeysRequest",
    ]


@pytest.mark.parametrize("left", ["p256", "p384", "p521", "ed25519", "rsa"])
def test_certificates_of_every_kind_authenticate_both_ends(left: str) -> None:
    authorities = (
        certificate_authority(LEFT_NAME, kind=left),
        certificate_authority(RIGHT_NAME, kind="p256"),
    )
    made = network(Connection(), authorities=authorities, observed=True).connect()
    assert established(made)
    assert made.right.sa.peer_identity == f"dns:{LEFT_NAME}"
    assert "CERT" in messages(made)[2]
    assert "CERT" in messages(made)[3]


def test_an_initiator_insists_on_the_responder_it_wants_and_says_so_in_idr() -> None:
    authorities = (certificate_authority(LEFT_NAME), certificate_authority(RIGHT_NAME))
    wanted = Connection(remote_identity="dns:other.example.com")
    made = network(wanted, Connection(), authorities=authorities, observed=True).connect()
    made.advance(5)
    assert "IDr" in messages(made)[2]
    assert isinstance(made.left.error, PeerRejected)
    assert made.left.endpoint.sas == ()
    # The responder believed in the SA, and is told.
    assert isinstance(made.right.error, NotifyReceived)
    assert made.right.error.notify_type == NotifyType2.AUTHENTICATION_FAILED
    assert made.right.installed == []


@pytest.mark.parametrize(
    "wanted", ["ip:198.51.100.2", "email:gateway@example.com", "keyid:0badcafe", "dn:CN=right"]
)
def test_every_kind_of_identity_can_be_wanted(wanted: str) -> None:
    authorities = (certificate_authority(LEFT_NAME), certificate_authority(RIGHT_NAME))
    made = network(Connection(remote_identity=wanted), authorities=authorities, observed=True).connect()
    made.advance(5)
    assert ("IDr" in messages(made)[2]) == (not wanted.startswith("dn:"))
    assert made.left.endpoint.sas == ()


def test_another_pre_shared_key_is_refused_by_the_responder() -> None:
    authorities = (
        psk_authority(LEFT_NAME, RIGHT_NAME, secret=b"correct horse battery"),
        psk_authority(RIGHT_NAME, LEFT_NAME, secret=b"another horse altogether"),
    )
    made = network(Connection(), authorities=authorities).connect()
    assert isinstance(made.right.error, PeerRejected)
    assert isinstance(made.left.error, NotifyReceived)
    assert made.left.error.notify_type == NotifyType2.AUTHENTICATION_FAILED
    assert made.left.installed == made.right.installed == []


def test_a_peer_that_policy_denies_is_refused_after_it_has_proven_who_it_is() -> None:
    denying = psk_authority(RIGHT_NAME, LEFT_NAME, rules=(("dns:other.example.com", Action.ALLOW),))
    made = network(Connection(), Connection(), authorities=(psk_authority(LEFT_NAME, RIGHT_NAME), denying))
    made.connect()
    assert made.left.live == made.right.live == []
    assert isinstance(made.left.error, NotifyReceived)


def test_an_authority_that_cannot_prove_itself_ends_the_handshake_with_authentication_failed() -> None:
    authorities = (
        psk_authority(LEFT_NAME, RIGHT_NAME),
        psk_authority(RIGHT_NAME, "somebody.example.com"),
    )
    right = Connection(remote_identity="dns:stranger.example.com")
    made = network(Connection(), right, authorities=authorities).connect()
    made.advance(60)
    assert made.left.live == made.right.live == []
    assert isinstance(made.left.error, NotifyReceived)


def test_an_authority_that_is_away_is_a_temporary_failure() -> None:
    made = network(Connection())
    made.right.hold = True
    made.connect()
    ((sa, _, _),) = made.right.held
    made.right.held.clear()
    sa.fail(TimedOut("the delegate does not answer"), now=made.now)
    made.run()
    made.advance(3)
    assert isinstance(made.left.error, NotifyReceived)
    assert made.left.error.notify_type == NotifyType2.TEMPORARY_FAILURE


# --- IKE_SA_INIT --------------------------------------------------------------------------------------------


def test_a_responder_that_wants_another_group_gets_one_that_was_offered() -> None:
    left = Connection(ike=IkePolicy(groups=(alg.CURVE25519, alg.ECP_256, alg.ECP_384)))
    right = Connection(ike=IkePolicy(groups=(alg.ECP_384,)))
    made = network(left, right, observed=True).connect()
    assert established(made)
    assert "ecp384" in made.left.sa.algorithms
    assert "N(INVALID_KE_PAYLOAD)" in messages(made)[1]
    assert [each.group for each in made.left.asked if isinstance(each, PublicValueRequest)] == [31, 20]
    # The first try cost the responder nothing that stays.
    assert len(made.right.endpoint.sas) == 1


def test_an_authority_that_wants_another_group_gets_it_too() -> None:
    options = IkeOptions(policy=IkePolicy(groups=(alg.ECP_256,), additional=()))
    authorities = (
        psk_authority(LEFT_NAME, RIGHT_NAME),
        psk_authority(RIGHT_NAME, LEFT_NAME, ike_options=options),
    )
    made = network(Connection(), authorities=authorities, observed=True).connect()
    assert established(made)
    assert "N(INVALID_KE_PAYLOAD)" in messages(made)[1]
    assert "ecp256" in made.left.sa.algorithms


def test_an_authority_that_cuts_the_offer_down_decides_what_is_offered() -> None:
    options = IkeOptions(
        policy=IkePolicy(encryptions=(alg.ENCR_CHACHA20_POLY1305,), prfs=(alg.PRF_HMAC_SHA2_512,), additional=())
    )
    authorities = (
        psk_authority(LEFT_NAME, RIGHT_NAME, ike_options=options),
        psk_authority(RIGHT_NAME, LEFT_NAME),
    )
    made = network(Connection(), authorities=authorities).connect()
    assert established(made)
    assert made.right.sa.algorithms == "ChaCha20-Poly1305/PRF-HMAC-SHA2-512/x25519"


def test_ends_without_a_common_algorithm_find_no_proposal() -> None:
    left = Connection(ike=IkePolicy(encryptions=(alg.ENCR_AES_GCM_16_256,)), timing=QUICK)
    right = Connection(ike=IkePolicy(encryptions=(alg.ENCR_AES_CBC_128,)), timing=QUICK)
    made = network(left, right).connect()
    assert isinstance(made.right.error, Incompatible)
    # The answer came in clear: it is believed only when nothing better comes.
    assert made.left.sa.state is State.CONNECTING
    made.advance(3)
    assert isinstance(made.left.error, NotifyReceived)
    assert made.left.error.notify_type == NotifyType2.NO_PROPOSAL_CHOSEN
    assert made.right.endpoint.sas == ()


@pytest.mark.parametrize(
    "encryption",
    [alg.ENCR_AES_GCM_16_128, alg.ENCR_AES_GCM_16_256, alg.ENCR_CHACHA20_POLY1305, alg.ENCR_AES_CBC_256],
    ids=str,
)
@pytest.mark.parametrize("prf", [alg.PRF_HMAC_SHA2_256, alg.PRF_HMAC_SHA2_512], ids=str)
def test_every_cipher_protects_the_ike_sa(encryption: alg.Encryption, prf: alg.Prf) -> None:
    made = network(Connection(ike=IkePolicy(encryptions=(encryption,), prfs=(prf,)))).connect()
    assert established(made)
    assert made.left.sa.algorithms.startswith(encryption.name)


@pytest.mark.parametrize("group", [each for each in alg.GROUPS.values() if not each.additional_only], ids=str)
def test_every_group_makes_the_same_keys_at_both_ends(group: alg.Group) -> None:
    made = network(Connection(ike=IkePolicy(groups=(group,)))).connect()
    assert established(made)


# --- additional key exchanges, PPK --------------------------------------------------------------------------


def test_an_ml_kem_exchange_follows_in_ike_intermediate() -> None:
    made = network(Connection(ike=IkePolicy(additional=((alg.ML_KEM_768,),))), observed=True).connect()
    assert established(made)
    assert [each.split(":")[0] for each in messages(made)][2:4] == [
        "IKE_INTERMEDIATE request",
        "IKE_INTERMEDIATE response",
    ]
    assert made.left.sa.algorithms.endswith("x25519/mlkem768")
    prove = next(each for each in made.left.asked if isinstance(each, ProveRequest))
    judge = next(each for each in made.right.asked if isinstance(each, IkeAuthenticateRequest))
    assert len(prove.intermediate) == 2
    assert prove.intermediate == judge.intermediate


def test_several_additional_exchanges_follow_one_another() -> None:
    additional = ((alg.ML_KEM_1024,), (alg.ECP_256, None), (alg.CURVE448,))
    authorities = (certificate_authority(LEFT_NAME), certificate_authority(RIGHT_NAME))
    made = network(Connection(ike=IkePolicy(additional=additional)), authorities=authorities).connect()
    assert established(made)
    assert made.left.sa.algorithms.endswith("x25519/mlkem1024/ecp256/x448")
    assert sum(isinstance(each, AdditionalKeyExchangeRequest) for each in made.right.asked) == 3


def test_an_additional_exchange_that_may_be_left_out_is_left_out_with_a_peer_that_has_none() -> None:
    left = Connection(ike=IkePolicy(additional=((alg.ML_KEM_768, None),)))
    made = network(left, Connection(), observed=True).connect()
    assert established(made)
    assert not any("IKE_INTERMEDIATE" in each for each in messages(made))


def test_an_additional_exchange_that_is_insisted_on_is_not_left_out() -> None:
    left = Connection(ike=IkePolicy(additional=((alg.ML_KEM_768,),)), timing=QUICK)
    made = network(left, Connection(timing=QUICK)).connect()
    made.advance(5)
    assert made.left.live == []


def ppks(own: str, peer: str, **settings: Any) -> dict[str, Any]:
    secret = PostquantumSecret(
        identifier="ppk-1", secret=b"post" * 8, terminal=TERMINAL, peer=f"dns:{peer}", **settings
    )
    return {"ppks": (secret,)}


def with_ppks(left: Connection, right: Connection, *, at_right: bool = True, **settings: Any) -> Network:
    authorities = (
        psk_authority(LEFT_NAME, RIGHT_NAME, **ppks(LEFT_NAME, RIGHT_NAME, **settings)),
        psk_authority(RIGHT_NAME, LEFT_NAME, **(ppks(RIGHT_NAME, LEFT_NAME, **settings) if at_right else {})),
    )
    return network(left, right, authorities=authorities, observed=True).connect()


def test_a_ppk_that_both_ends_have_is_used() -> None:
    made = with_ppks(Connection(use_ppk=True), Connection(use_ppk=True))
    assert established(made)
    assert "N(PPK_IDENTITY), N(NO_PPK_AUTH)" in messages(made)[2]
    assert "N(PPK_IDENTITY)" in messages(made)[3]


def test_a_ppk_that_only_one_end_has_is_done_without_where_it_is_not_required() -> None:
    made = with_ppks(Connection(use_ppk=True), Connection(use_ppk=True), at_right=False)
    assert established(made)
    assert "N(PPK_IDENTITY)" not in messages(made)[3]


def test_a_ppk_that_is_required_is_used_and_nothing_else_is_offered() -> None:
    required = Connection(ppk_required=True)
    made = with_ppks(required, required)
    assert established(made)
    assert "N(NO_PPK_AUTH)" not in messages(made)[2]


@pytest.mark.parametrize("requiring", ["left", "right"])
def test_a_peer_without_the_required_ppk_is_refused(requiring: str) -> None:
    required, without = Connection(ppk_required=True, timing=QUICK), Connection(timing=QUICK)
    left, right = (required, without) if requiring == "left" else (without, required)
    made = with_ppks(left, right)
    made.advance(20)
    assert made.left.live == made.right.live == []
    host = made.left if requiring == "left" else made.right
    assert isinstance(host.error, Incompatible | Unauthenticated)


# --- the first CHILD_SA -------------------------------------------------------------------------------------


def test_the_child_carries_what_both_ends_allow() -> None:
    left = Connection(local_traffic=traffic("10.1.0.0/16"), remote_traffic=traffic("10.2.0.0/16", "10.3.0.0/16"))
    right = Connection(local_traffic=traffic("10.2.5.0/24", "10.9.0.0/16"), remote_traffic=traffic("10.0.0.0/8"))
    made = network(left, right).connect()
    assert established(made)
    for sa in (made.left.child.inbound, made.left.child.outbound):
        assert [str(each) for each in sa.local] == ["10.1.0.0/16"]
        assert [str(each) for each in sa.remote] == ["10.2.5.0/24"]
    assert [str(each) for each in made.right.child.outbound.local] == ["10.2.5.0/24"]


def test_protocols_and_ports_are_narrowed_too() -> None:
    left = Connection(
        local_traffic=traffic("10.1.0.0/16", protocol=6), remote_traffic=traffic("10.2.0.0/16", protocol=6)
    )
    right = Connection(
        local_traffic=traffic("10.2.0.0/16", protocol=6, port=443), remote_traffic=traffic("10.1.0.0/16")
    )
    made = network(left, right).connect()
    assert [str(each) for each in made.left.child.outbound.remote] == ["10.2.0.0/16[tcp/443]"]


def test_an_ike_sa_stands_without_a_child_when_selectors_have_nothing_in_common() -> None:
    left = Connection(local_traffic=traffic("10.1.0.0/16"), remote_traffic=traffic("10.2.0.0/16"))
    right = Connection(local_traffic=traffic("10.7.0.0/16"), remote_traffic=traffic("10.1.0.0/16"))
    made = network(left, right).connect()
    assert made.left.sa.state is made.right.sa.state is State.ESTABLISHED
    assert made.left.installed == made.right.installed == []
    (failed,) = made.left.of(ChildFailed)
    assert isinstance(failed.error, NotifyReceived)
    assert failed.error.notify_type == NotifyType2.TS_UNACCEPTABLE
    assert made.right.of(ChildFailed)
    made.left.sa.check_liveness(now=made.now)
    made.run()
    assert made.left.sa.state is State.ESTABLISHED


def test_an_ike_sa_stands_without_a_child_when_no_proposal_is_common() -> None:
    left = Connection(child=ChildPolicy(encryptions=(alg.ENCR_AES_GCM_16_128,)))
    right = Connection(child=ChildPolicy(encryptions=(alg.ENCR_CHACHA20_POLY1305,)))
    made = network(left, right).connect()
    assert made.left.sa.state is made.right.sa.state is State.ESTABLISHED
    (failed,) = made.left.of(ChildFailed)
    assert isinstance(failed.error, NotifyReceived)
    assert failed.error.notify_type == NotifyType2.NO_PROPOSAL_CHOSEN


def test_transport_mode_is_agreed_on_where_both_want_it() -> None:
    made = network(Connection(transport=True)).connect()
    assert established(made)
    assert made.left.child.inbound.mode is made.right.child.outbound.mode is Mode.TRANSPORT


@pytest.mark.parametrize("wanting", ["left", "right"])
def test_transport_mode_is_not_had_by_half(wanting: str) -> None:
    pair = (Connection(transport=True), Connection())
    made = network(*(pair if wanting == "left" else pair[::-1])).connect()
    made.run()
    assert made.left.sa.state is made.right.sa.state is State.ESTABLISHED
    # Whatever one end made is deleted again.
    assert made.left.installed == made.right.installed == []
    assert made.left.of(ChildFailed)


@pytest.mark.parametrize(
    ("policy", "protocol"),
    [
        (ChildPolicy(encryptions=(alg.ENCR_AES_CBC_256,)), Protocol.ESP),
        (ChildPolicy(encryptions=(alg.ENCR_NULL,)), Protocol.ESP),
        (ChildPolicy(protocol=ProtocolId.AH), Protocol.AH),
        (ChildPolicy(extended_sequence_numbers=(True,)), Protocol.ESP),
    ],
    ids=["cbc", "null", "ah", "esn"],
)
def test_every_kind_of_child_has_the_same_keys_at_both_ends(policy: ChildPolicy, protocol: Protocol) -> None:
    made = network(Connection(child=policy)).connect()
    assert established(made)
    assert made.left.child.inbound.protocol is protocol
    assert made.left.child.inbound.extended_sequence == (policy.extended_sequence_numbers == (True,))


def test_an_authority_can_make_the_keys_of_the_child_itself() -> None:
    connection = Connection(keys_from_authority=True)
    made = network(connection).connect()
    assert established(made)
    request = next(each for each in made.left.asked if isinstance(each, SaKeysRequest))
    assert request.child_encryption == made.left.child.suite.encryption_length
    # Both forms give the same keys.
    assert established(network(connection, Connection()).connect())


def test_ipv6_ends_agree() -> None:
    made = network(Connection())
    made.left.address, made.right.address = ip_address("2001:db8::1"), ip_address("2001:db8::2")
    made.connect()
    assert established(made)
    assert made.left.child.outbound.destination == made.right.address


# --- fragments and INITIAL_CONTACT --------------------------------------------------------------------------


def long_chains() -> tuple[LocalAuthority, LocalAuthority]:
    """Chains that no datagram carries whole."""
    issuer = pki.intermediate(pki.ca("rsa"), "rsa", path_length=1)
    issuer = pki.intermediate(issuer, "rsa", "Test Intermediate Below")
    trust = TrustMaterial(anchors=(pki.ca("rsa").pem,))
    return tuple(  # type: ignore[return-value]
        certificate_authority(name, kind="rsa", issuer=issuer, trust=trust) for name in (LEFT_NAME, RIGHT_NAME)
    )


def test_long_messages_go_in_fragments_that_fit_every_path() -> None:
    authorities = long_chains()
    made = network(Connection(), authorities=authorities, observed=True).connect()
    assert established(made)
    assert len(made.log) > 4
    assert max(len(passage.message) for passage in made.log) <= 1280 - 28


def test_ends_of_which_one_cannot_cut_messages_do_not() -> None:
    authorities = long_chains()
    made = network(Connection(fragmentation=False), Connection(), authorities=authorities).connect()
    assert established(made)
    assert len(made.log) == 4


def test_a_peer_that_begins_anew_takes_the_place_of_its_old_sa() -> None:
    made = network(Connection()).connect()
    old = made.right.sa
    # The left end has lost its memory.
    made.left = network(Connection(), seed="again").left
    made.connect()
    assert old.state is State.CLOSED
    assert established(made)
    assert [event.sa for event in made.right.of(Closed)] == [old]
    assert made.right.of(Closed)[0].error is None


def test_a_second_sa_from_the_same_end_is_no_initial_contact() -> None:
    made = network(Connection(), observed=True).connect()
    made.connect()
    assert len(made.left.live) == len(made.right.live) == 2
    assert [event for event in messages(made) if "INITIAL_CONTACT" in event] == [messages(made)[2]]


def test_both_ends_that_begin_at_once_keep_an_sa() -> None:
    made = network(Connection(), Connection(remote_identity=f"dns:{LEFT_NAME}"))
    made.initiate()
    made.right.endpoint.initiate(Path(RIGHT_ADDRESS, 500, LEFT_ADDRESS, 500), now=made.now)
    made.run()
    made.advance(1)
    assert len(made.left.live) == len(made.right.live) >= 1
    assert keys_agree(made)


def test_events_come_in_an_order_that_a_driver_can_act_on() -> None:
    made = network(Connection()).connect()
    for host in (made.left, made.right):
        assert [type(event) for event in host.events] == [Established, ChildEstablished]


def test_a_start_says_who_is_wanted_and_from_where() -> None:
    connection = replace(Connection(), local_identity=f"dns:{LEFT_NAME}", remote_identity=f"dns:{RIGHT_NAME}")
    made = network(connection, Connection()).connect()
    start = made.left.asked[0]
    assert isinstance(start, IkeStartRequest)
    assert (start.local_identity, start.remote_identity) == (f"dns:{LEFT_NAME}", f"dns:{RIGHT_NAME}")
    assert (start.peer_address, start.initiator) == (str(RIGHT_ADDRESS), True)
    answered = made.right.asked[1]
    assert isinstance(answered, KeyExchangeRequest)
    assert len(answered.peer_nonce) == len(answered.own_nonce) == 32


def test_a_refused_start_is_told_to_the_driver_and_nothing_is_sent() -> None:
    denying = psk_authority(LEFT_NAME, RIGHT_NAME, rules=(("dns:other.example.com", Action.ALLOW),))
    made = network(Connection(), authorities=(denying, psk_authority(RIGHT_NAME, LEFT_NAME))).connect()
    assert isinstance(made.left.error, Refused)
    assert made.log == []
