"""A further key exchange under an established SA: a bare shared secret, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support import pki
from tests.support.ike_authority import LEFT, RIGHT_ADDRESS, authority

from locum.authority.databases import Action, PinnedKey, PolicyRule, TrustMaterial
from locum.authority.ike_further_session import MAX_EXCHANGES
from locum.authority.ike_key_exchange import PERFORMED
from locum.authority.local import IkeOptions, LocalAuthority, LocalSession
from locum.errors import Incompatible, Misbehaved, Refused
from locum.ike import algorithms as alg
from locum.ike.algorithms import Group
from locum.ike.operations import (
    Exchange,
    IkeStartRequest,
    ProveRequest,
    PublicValueRequest,
    PublicValueResponse,
    SaKeysRequest,
    SharedSecretRequest,
    SharedSecretResponse,
)
from locum.ike.policy import IkePolicy, Phase1Policy


def start(*, initiator: bool, **changes: Any) -> IkeStartRequest:
    return IkeStartRequest(
        exchange=Exchange.FURTHER, initiator=initiator, **{"peer_address": RIGHT_ADDRESS, **changes}
    )


def opened(*, initiator: bool, by: LocalAuthority | None = None) -> LocalSession:
    session = (by or authority()).open(LEFT)
    session.perform([start(initiator=initiator)])
    return session


def exchange(ours: LocalSession, theirs: LocalSession, group: Group, *, more: bool = False) -> tuple[bytes, bytes]:
    (value,) = ours.perform([PublicValueRequest(group=group.id)])
    assert isinstance(value, PublicValueResponse)
    assert value.nonce == b""
    request = SharedSecretRequest(group=group.id, public_value=value.public_value, more=more)
    (answer,) = theirs.perform([request])
    assert isinstance(answer, SharedSecretResponse)
    (secret,) = ours.perform([SharedSecretRequest(group=group.id, public_value=answer.public_value, more=more)])
    assert isinstance(secret, SharedSecretResponse)
    assert secret.public_value == b""
    return secret.secret, answer.secret


@pytest.mark.parametrize("group", sorted(PERFORMED, key=lambda group: group.id), ids=str)
def test_both_ends_get_the_same_secret(group: Group) -> None:
    ours, theirs = opened(initiator=True), opened(initiator=False)
    first, second = exchange(ours, theirs, group)
    assert first == second
    for session in (ours, theirs):
        with pytest.raises(Refused, match="over"):
            session.perform([PublicValueRequest(group=group.id)])


def test_several_exchanges_follow_one_another_while_more_is_said() -> None:
    ours, theirs = opened(initiator=True), opened(initiator=False)
    secrets = []
    for index in range(MAX_EXCHANGES):
        first, second = exchange(ours, theirs, alg.CURVE25519, more=index < MAX_EXCHANGES - 1)
        assert first == second
        secrets.append(first)
    assert len(set(secrets)) == MAX_EXCHANGES


def test_there_is_an_end_to_them() -> None:
    session = opened(initiator=False)
    value = authority().open(LEFT).perform([start(initiator=True), PublicValueRequest(group=31)])[1]
    assert isinstance(value, PublicValueResponse)
    request = SharedSecretRequest(group=31, public_value=value.public_value, more=True)
    for _ in range(MAX_EXCHANGES):
        session.perform([request])
    with pytest.raises(Refused, match="before"):
        session.perform([request])


def test_initiator_may_begin_in_another_group_before_an_answer() -> None:
    ours, theirs = opened(initiator=True), opened(initiator=False)
    ours.perform([PublicValueRequest(group=31)])
    assert len(set(exchange(ours, theirs, alg.ECP_256))) == 1


def test_value_is_not_made_twice_in_one_group() -> None:
    session = opened(initiator=True)
    session.perform([PublicValueRequest(group=31)])
    with pytest.raises(Refused, match="begun"):
        session.perform([PublicValueRequest(group=31)])


def test_peers_value_in_another_group_is_noticed() -> None:
    session = opened(initiator=True)
    session.perform([PublicValueRequest(group=31)])
    with pytest.raises(Misbehaved):
        session.perform([SharedSecretRequest(group=19, public_value=bytes(64))])


def test_responder_has_no_value_before_the_peers() -> None:
    with pytest.raises(Refused):
        opened(initiator=False).perform([PublicValueRequest(group=31)])


def test_initiator_completes_nothing_that_it_has_not_begun() -> None:
    with pytest.raises(Refused, match="turn"):
        opened(initiator=True).perform([SharedSecretRequest(group=31, public_value=bytes(32))])


def test_group_must_be_implemented_and_allowed() -> None:
    few = IkeOptions(
        policy=IkePolicy(groups=(alg.ECP_256,)), phase1=Phase1Policy(methods=(), groups=(alg.ECP_384,))
    )
    for group in (alg.ECP_256, alg.ECP_384):
        opened(initiator=True, by=authority(ike_options=few)).perform([PublicValueRequest(group=group.id)])
    with pytest.raises(Refused, match="not allowed"):
        opened(initiator=True, by=authority(ike_options=few)).perform([PublicValueRequest(group=31)])
    with pytest.raises(Incompatible):
        opened(initiator=True).perform([PublicValueRequest(group=alg.ML_KEM_512.id)])


def test_negotiation_is_the_terminals_own() -> None:
    with pytest.raises(Refused):
        authority().open(LEFT).perform([start(initiator=True, sa=b"x")])


def test_peer_that_policy_denies_by_now_gets_no_new_keys() -> None:
    denied = authority(policy=(PolicyRule(terminal="*", peer=f"ip:{RIGHT_ADDRESS}", action=Action.DENY),))
    with pytest.raises(Refused, match="denies"):
        denied.open(LEFT).perform([start(initiator=False)])


NAMED = "dns:right.example.com"
PINNED = "pin:right"


def pinned(*peers: str) -> TrustMaterial:
    issued = pki.leaf(pki.ca(), "p256", ("right.example.com",), slot="further", subject="right", purposes=None)
    return TrustMaterial(pinned=(PinnedKey(name="right", key=issued.chain[0], peers=peers),))


def begin(by: LocalAuthority, proven: str) -> None:
    by.open(LEFT).perform(
        [
            start(initiator=False, remote_identity=proven),
        ]
    )


def rules(*rows: tuple[str, Action]) -> tuple[PolicyRule, ...]:
    return tuple(PolicyRule(terminal="*", peer=peer, action=action) for peer, action in rows)


ALLOW, DENY = Action.ALLOW, Action.DENY


@pytest.mark.parametrize(
    ("proven", "peers", "rows", "allowed"),
    [
        pytest.param(NAMED, (), [(NAMED, ALLOW)], True, id="name allowed"),
        pytest.param(NAMED, (), [("*", ALLOW), (NAMED, DENY)], False, id="name denied"),
        pytest.param(NAMED, (), [("dns:other.example.com", ALLOW)], False, id="name not allowed any more"),
        pytest.param(NAMED, (NAMED,), [(PINNED, ALLOW)], False, id="only its key allowed, which it did not show"),
        pytest.param(PINNED, (NAMED,), [(PINNED, ALLOW)], True, id="key allowed"),
        pytest.param(PINNED, (NAMED,), [(NAMED, ALLOW)], True, id="owner of the key allowed"),
        pytest.param(PINNED, (NAMED,), [("*", ALLOW), (PINNED, DENY)], False, id="key denied"),
        pytest.param(PINNED, (NAMED,), [("*", ALLOW), (NAMED, DENY)], False, id="owner of the key denied"),
        pytest.param(PINNED, (NAMED,), [("dns:other.example.com", ALLOW)], False, id="key not allowed any more"),
        pytest.param(PINNED, ("dns:*.example.com",), [(NAMED, ALLOW)], True, id="one of the key's owners allowed"),
        pytest.param(
            PINNED, ("dns:*.example.com",), [("*", ALLOW), (PINNED, DENY)], False, id="shared key denied"
        ),
        pytest.param("pin:gone", (NAMED,), [("*", ALLOW)], False, id="key not pinned any more"),
    ],
)
def test_policy_is_asked_about_whom_the_peer_has_proven_to_be(
    proven: str, peers: tuple[str, ...], rows: list[tuple[str, Action]], allowed: bool
) -> None:
    by = authority(policy=rules(*rows), trust=pinned(*peers) if peers else TrustMaterial())
    if allowed:
        begin(by, proven)
    else:
        with pytest.raises(Refused, match=r"denies|allows|pinned"):
            begin(by, proven)


def test_pinned_key_is_nobody_to_ask_for_where_nothing_is_proven_yet() -> None:
    by = authority(trust=pinned(NAMED))
    with pytest.raises(Refused):
        by.open(LEFT).perform([replace(start(initiator=True, remote_identity=PINNED), exchange=Exchange.MAIN)])


@pytest.mark.parametrize("request_", [ProveRequest(), SaKeysRequest()], ids=["prove", "keys"])
def test_nothing_is_proven_and_no_other_key_is_given(request_: Any) -> None:
    with pytest.raises(Refused, match="not an operation"):
        opened(initiator=True).perform([request_])


def test_options_name_only_what_can_be_performed() -> None:
    assert alg.ML_KEM_512 not in PERFORMED
    with pytest.raises(Exception, match="mlkem512"):
        IkeOptions(policy=IkePolicy(additional=((alg.ML_KEM_512,),)))
