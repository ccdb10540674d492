"""Offers that a responder has seen before: what is remembered of them is what would be worked out again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from locum.ike import algorithms as alg
from locum.ike.errors import AlteredProposal, NoProposalChosen
from locum.ike.payloads1 import body_of as body_of_1
from locum.ike.payloads2 import Proposal, SecurityAssociation, body_of
from locum.ike.policy import IkePolicy, Phase1Policy
from locum.ike.proposals1 import choose_phase1, offer_phase1
from locum.ike.proposals2 import choose_ike, offer_ike
from locum.ike.registry import AuthenticationMethod1
from locum.ike.v1 import offers as offers1
from locum.ike.v2 import offers as offers2

WIDE = IkePolicy()
NARROW = IkePolicy(encryptions=(alg.ENCR_AES_GCM_16_256,), prfs=(alg.PRF_HMAC_SHA2_384,), groups=(alg.ECP_384,))
OFFER = offer_ike(WIDE)

WIDE_1 = Phase1Policy(methods=(AuthenticationMethod1.RSA_SIGNATURE, AuthenticationMethod1.PRE_SHARED_KEY))
NARROW_1 = Phase1Policy(methods=(AuthenticationMethod1.PRE_SHARED_KEY,), groups=(alg.ECP_384,))
OFFER_1 = offer_phase1(WIDE_1)


def chosen(policy: IkePolicy, offer: SecurityAssociation) -> bytes:
    """What an authority answers."""
    return body_of(SecurityAssociation(proposals=(choose_ike(policy, offer).proposal,)))


def long(offer: SecurityAssociation) -> SecurityAssociation:
    """The same again and again, until it is too long to be remembered."""
    first = offer.proposals[0]
    return SecurityAssociation(
        proposals=tuple(replace(first, number=number) for number in range(1, 1 + 1200 // len(body_of(offer)) * 2))
    )


@pytest.mark.parametrize("offer", [OFFER, long(OFFER)], ids=["short", "long"])
def test_an_offer_is_cut_down_the_same_way_each_time(offer: SecurityAssociation) -> None:
    body = body_of(offer)
    first = offers2.cut_down(NARROW, body)
    assert offers2.cut_down(NARROW, body) == first
    assert body_of(first.sa) == first.body
    choice = offers2.accept(NARROW, body, chosen(NARROW, offer))
    assert choice.suite.group is alg.ECP_384
    assert body_of(choice.sa) == chosen(NARROW, offer)


def test_the_same_offer_means_another_thing_under_another_policy() -> None:
    body = body_of(OFFER)
    assert offers2.cut_down(WIDE, body) != offers2.cut_down(NARROW, body)
    other = replace(NARROW, groups=(alg.ECP_256,))
    assert offers2.cut_down(NARROW, body) != offers2.cut_down(other, body)


def test_what_fails_fails_again() -> None:
    proposal = OFFER.proposals[0]
    nothing = body_of(
        SecurityAssociation(proposals=(Proposal(number=1, protocol=1, transforms=proposal.transforms[:1]),))
    )
    for _ in range(2):
        with pytest.raises(NoProposalChosen):
            offers2.cut_down(NARROW, nothing)
        with pytest.raises(AlteredProposal):
            offers2.accept(NARROW, body_of(OFFER), chosen(WIDE, OFFER))


def test_an_offer_of_phase_1_is_cut_down_the_same_way_each_time() -> None:
    body = body_of_1(OFFER_1)
    first = offers1.cut_down(NARROW_1, body)
    assert offers1.cut_down(NARROW_1, body) == first != body
    assert offers1.cut_down(WIDE_1, body) == body
    suite = offers1.accept(first, body_of_1(choose_phase1(NARROW_1, OFFER_1).answer))
    assert (suite.group, suite.method) == (alg.ECP_384, AuthenticationMethod1.PRE_SHARED_KEY)
