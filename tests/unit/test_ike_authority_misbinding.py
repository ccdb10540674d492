"""An authority of IKE that is shown itself, somebody else's name, or a way around what is required."""

from __future__ import annotations

import pytest
from tests.support import pki
from tests.support.ike_authority import (
    LEFT,
    LEFT_ADDRESS,
    LEFT_NAME,
    RIGHT,
    RIGHT_ADDRESS,
    RIGHT_NAME,
    SECRET,
    Play1,
    Play2,
    authority,
    body_of,
    identity,
    policy1,
    psk_pair,
)

from locum.authority.databases import Action, PinnedKey, PolicyRule, PostquantumSecret, SharedSecret, TrustMaterial
from locum.authority.ike_identities import identification_of
from locum.authority.ike_key_exchange import PERFORMED, KeyExchange
from locum.authority.local import LocalAuthority
from locum.errors import DecodeError, Misbehaved, Refused
from locum.handshake import Fault
from locum.ike.algorithms import Group
from locum.ike.operations import Exchange, IkeStartRequest
from locum.ike.proposals1 import offer_phase1
from locum.ike.registry import AuthenticationMethod1 as Method

PSK = policy1(Method.PRE_SHARED_KEY)
BOTH_WAYS = sorted(
    (group for group in PERFORMED if group.initiator_length == group.responder_length), key=lambda group: group.id
)


def by_address(own: str, peer: str) -> LocalAuthority:
    """An authority that knows its peer by address only, and says a name that the other one says too."""
    return authority(
        secrets=(SharedSecret(terminal=own, peer=f"ip:{peer}", secret=SECRET, local_identity="dns:the.same"),)
    )


def itself() -> tuple[LocalAuthority, LocalAuthority]:
    return by_address(LEFT, RIGHT_ADDRESS), by_address(RIGHT, LEFT_ADDRESS)


# --- reflection -------------------------------------------------------------------------------------------


def test_end_does_not_talk_to_itself_by_a_secret_for_an_address() -> None:
    play = Play2(*itself(), remote_identity="")
    with pytest.raises(Refused, match="the terminal itself"):
        play.run()


def test_end_does_not_talk_to_itself_in_main_mode() -> None:
    with pytest.raises(Refused, match="the terminal itself"):
        Play1(*itself(), PSK, remote_identity="").run()


def test_end_does_not_talk_to_itself_in_aggressive_mode() -> None:
    # Whoever has said its name before it judges gives a verdict.
    verdict = Play1(*itself(), PSK, Exchange.AGGRESSIVE, remote_identity="").run().by_responder
    assert verdict.fault is Fault.WRONG_NAME
    assert "the terminal itself" in verdict.reason


def test_end_does_not_talk_to_itself_by_its_own_certificate() -> None:
    left = authority(identities=(identity(LEFT_NAME),))
    right = authority(identities=(identity(LEFT_NAME),))
    with pytest.raises(Refused, match="the terminal itself"):
        Play2(left, right, remote_identity="").run()


@pytest.mark.parametrize("group", BOTH_WAYS, ids=str)
def test_own_public_value_is_not_taken_back(group: Group) -> None:
    exchange = KeyExchange(group)
    with pytest.raises(Misbehaved, match="our own"):
        exchange.complete(exchange.public_value)


# --- the key for everybody --------------------------------------------------------------------------------


def several(*rows: tuple[str, bytes]) -> LocalAuthority:
    return authority(secrets=tuple(SharedSecret(terminal=RIGHT, peer=peer, secret=key) for peer, key in rows))


@pytest.mark.parametrize("own_first", [True, False], ids=["own first", "own last"])
def test_key_for_everybody_does_not_prove_a_name_that_has_its_own(own_first: bool) -> None:
    rows = ((f"dns:{LEFT}", b"the key of this peer alone"), ("*", SECRET))
    left, _ = psk_pair()
    play = Play2(left, several(*(rows if own_first else rows[::-1])))
    assert play.run().by_responder.fault is Fault.BAD_SIGNATURE
    assert Play2(left, several(("*", SECRET), ("dns:another.example.com", b"y" * 20))).run().agreed


def test_key_for_everybody_does_not_prove_a_name_that_has_its_own_in_main_mode() -> None:
    left, _ = psk_pair()
    right = several((f"dns:{LEFT}", b"the key of this peer alone"), ("*", SECRET))
    verdict = Play1(left, right, PSK).run().by_responder
    assert verdict.fault is Fault.WRONG_NAME
    assert "of its own" in verdict.reason
    assert Play1(left, several(("*", SECRET)), PSK).run().agreed


# --- policy, and what else is required --------------------------------------------------------------------


def test_peer_named_late_is_held_against_policy_at_once() -> None:
    rules = (
        PolicyRule(terminal=LEFT, peer="dns:other.example.com", action=Action.ALLOW),
        PolicyRule(terminal=LEFT, peer=f"dns:{RIGHT}", action=Action.DENY),
    )
    left = authority(policy=rules, secrets=(SharedSecret(terminal=LEFT, peer=f"dns:{RIGHT}", secret=SECRET),))
    play = Play2(left, psk_pair()[1], remote_identity="")
    play.init()
    with pytest.raises(Refused, match="denies"):
        play.prove_initiator(remote_identification=identification_of(f"dns:{RIGHT}").body)


def test_ppk_is_required_for_whatever_has_been_proven() -> None:
    pin = PinnedKey(
        name="gateway",
        key=pki.leaf(pki.ca(), "p256", (LEFT_NAME,), slot=LEFT_NAME, subject=LEFT_NAME, purposes=None).public_pem,
        peers=(f"dns:{LEFT_NAME}",),
    )
    right = authority(
        trust=TrustMaterial(pinned=(pin,)),
        identities=(identity(RIGHT_NAME),),
        ppks=(
            PostquantumSecret(
                identifier="ppk", secret=b"quantum", terminal=RIGHT, peer="pin:gateway", required=True
            ),
        ),
    )
    left = authority(identities=(identity(LEFT_NAME),))
    verdict = Play2(left, right, remote_identity=f"dns:{RIGHT_NAME}").run().by_responder
    assert not verdict.authentic
    assert "PPK" in verdict.reason


def test_optional_ppk_does_not_stand_in_for_a_required_one() -> None:
    def keys(terminal: str, *, required: bool) -> tuple[PostquantumSecret, ...]:
        peer = RIGHT if terminal == LEFT else LEFT
        old = PostquantumSecret(identifier="old", secret=b"old", terminal=terminal, peer=f"dns:{peer}")
        new = PostquantumSecret(
            identifier="new", secret=b"new", terminal=terminal, peer=f"dns:{peer}", required=required
        )
        return old, new

    left = psk_pair(ppks=keys(LEFT, required=False))[0]
    right = psk_pair(ppks=keys(RIGHT, required=True))[1]
    verdict = Play2(left, right, ppk=True).run().by_responder
    assert not verdict.authentic
    # Who requires one names that one.
    strict = psk_pair(ppks=keys(LEFT, required=True))[0]
    assert Play2(strict, psk_pair(ppks=keys(RIGHT, required=True))[1], ppk=True).run().ppk_used


def test_what_the_hashes_of_ikev1_cover_is_an_sa_payload_and_nothing_behind_it() -> None:
    offer = body_of(offer_phase1(PSK))
    start = IkeStartRequest(
        exchange=Exchange.MAIN,
        initiator=False,
        sa=offer,
        initiator_sa=offer + identification_of("dns:boss.example.com").body,
        peer_address=LEFT_ADDRESS,
    )
    with pytest.raises(DecodeError):
        psk_pair()[1].open(RIGHT).perform([start])
