"""Negotiation of both versions: who chooses what, and which answers are taken for an alteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from locum.errors import ConfigurationError
from locum.ike import algorithms as alg
from locum.ike import payloads1 as p1
from locum.ike import payloads2 as p2
from locum.ike import proposals1, proposals2
from locum.ike.errors import AlteredProposal, NoProposalChosen
from locum.ike.header import Attribute
from locum.ike.policy import ChildPolicy, IkePolicy, Phase1Policy
from locum.ike.registry import (
    AuthenticationMethod1,
    EncapsulationMode,
    EncryptionId,
    IntegrityId,
    IpsecAttribute,
    KeyExchangeId,
    OakleyAttribute,
    PrfId,
    ProtocolId,
    TransformType,
)

SPI, SPI_8 = b"\1\2\3\4", b"new spi!"


def transform(kind: int, code: int, *attributes: Attribute) -> p2.Transform:
    return p2.Transform(type=kind, id=code, attributes=attributes)


AES_128 = Attribute.of(14, 128)
AES_CBC_128 = transform(1, EncryptionId.AES_CBC, AES_128)
AES_GCM_128 = transform(1, EncryptionId.AES_GCM_16, AES_128)
TRIPLE_DES = transform(1, EncryptionId.TRIPLE_DES)
PRF_SHA256 = transform(2, PrfId.HMAC_SHA2_256)
INTEG_SHA256 = transform(3, IntegrityId.HMAC_SHA2_256_128)
INTEG_NONE = transform(3, IntegrityId.NONE)
X25519 = transform(4, KeyExchangeId.CURVE25519)
P256 = transform(4, KeyExchangeId.ECP_256)
NO_ESN, ESN = transform(5, 0), transform(5, 1)


def ike(*transforms: p2.Transform, spi: bytes = b"", number: int = 1) -> p2.Proposal:
    return p2.Proposal(number=number, protocol=ProtocolId.IKE, spi=spi, transforms=transforms)


def esp(*transforms: p2.Transform, number: int = 1) -> p2.Proposal:
    return p2.Proposal(number=number, protocol=ProtocolId.ESP, spi=SPI, transforms=transforms)


def sa(*proposals: p2.Proposal) -> p2.SecurityAssociation:
    return p2.SecurityAssociation(proposals=proposals)


# --- IKEv2 ----------------------------------------------------------------------------------------------------


def test_both_sides_of_a_default_offer_agree() -> None:
    offer = proposals2.offer_ike(IkePolicy())
    chosen = proposals2.choose_ike(IkePolicy(), offer)
    assert chosen.suite.encryption is alg.ENCR_AES_GCM_16_256
    assert chosen.suite.integrity is None
    assert chosen.suite.group is alg.CURVE25519
    assert proposals2.accept_ike(offer, sa(chosen.proposal)).suite == chosen.suite


def test_combined_ciphers_and_others_stand_in_proposals_of_their_own() -> None:
    offer = proposals2.offer_ike(IkePolicy())
    assert [proposal.number for proposal in offer.proposals] == [1, 2]
    kinds = [{each.type for each in proposal.transforms} for proposal in offer.proposals]
    assert TransformType.INTEGRITY not in kinds[0]
    assert TransformType.INTEGRITY in kinds[1]


def test_the_responder_keeps_to_the_initiators_proposals_and_to_its_own_order_within() -> None:
    cbc = ike(AES_CBC_128, INTEG_SHA256, PRF_SHA256, P256, X25519)
    gcm = ike(AES_GCM_128, PRF_SHA256, X25519, number=2)
    chosen = proposals2.choose_ike(IkePolicy(), sa(cbc, gcm))
    assert chosen.proposal == ike(AES_CBC_128, INTEG_SHA256, PRF_SHA256, X25519)


def test_the_group_of_the_ke_payload_is_preferred_where_it_is_allowed() -> None:
    offer = sa(ike(AES_GCM_128, PRF_SHA256, P256, X25519))
    assert proposals2.choose_ike(IkePolicy(), offer, preferred_group=19).suite.group is alg.ECP_256
    strict = IkePolicy(groups=(alg.CURVE25519,))
    assert proposals2.choose_ike(strict, offer, preferred_group=19).suite.group is alg.CURVE25519


@pytest.mark.parametrize(
    "proposal",
    [
        ike(TRIPLE_DES, INTEG_SHA256, PRF_SHA256, X25519),
        ike(AES_CBC_128, transform(3, IntegrityId.HMAC_MD5_96), PRF_SHA256, X25519),
        ike(AES_CBC_128, INTEG_SHA256, transform(2, PrfId.HMAC_MD5), X25519),
        ike(AES_CBC_128, INTEG_SHA256, transform(2, PrfId.HMAC_SHA1), X25519),
        ike(AES_CBC_128, INTEG_SHA256, PRF_SHA256, transform(4, KeyExchangeId.MODP_1024)),
        ike(AES_CBC_128, PRF_SHA256, X25519),
        ike(AES_CBC_128, INTEG_NONE, PRF_SHA256, X25519),
        ike(AES_GCM_128, INTEG_SHA256, PRF_SHA256, X25519),
        ike(AES_GCM_128, PRF_SHA256),
        ike(AES_GCM_128, X25519),
        ike(PRF_SHA256, X25519),
        ike(AES_GCM_128, PRF_SHA256, X25519, transform(99, 1)),
        ike(transform(1, EncryptionId.AES_GCM_16), PRF_SHA256, X25519),
        ike(transform(1, EncryptionId.AES_GCM_16, Attribute.of(14, 64)), PRF_SHA256, X25519),
        ike(transform(1, EncryptionId.AES_GCM_16, AES_128, AES_128), PRF_SHA256, X25519),
        ike(transform(1, EncryptionId.AES_GCM_16, Attribute.of(15, 128)), PRF_SHA256, X25519),
        ike(AES_GCM_128, transform(2, PrfId.HMAC_SHA2_256, AES_128), X25519),
        ike(AES_GCM_128, PRF_SHA256, X25519, spi=SPI_8),
        esp(AES_GCM_128, PRF_SHA256, X25519),
        ike(AES_GCM_128, PRF_SHA256, X25519, transform(6, KeyExchangeId.ML_KEM_768)),
        ike(AES_GCM_128, PRF_SHA256, transform(4, KeyExchangeId.NONE)),
        ike(AES_GCM_128, PRF_SHA256, transform(4, KeyExchangeId.ML_KEM_768)),
    ],
)
def test_what_is_unknown_unsafe_or_incomplete_is_not_chosen(proposal: p2.Proposal) -> None:
    with pytest.raises(NoProposalChosen):
        proposals2.choose_ike(IkePolicy(), sa(proposal))


def test_a_combined_cipher_beside_integrity_none_is_chosen() -> None:
    chosen = proposals2.choose_ike(IkePolicy(), sa(ike(AES_GCM_128, INTEG_NONE, PRF_SHA256, X25519)))
    assert chosen.suite.integrity is None
    assert INTEG_NONE in chosen.proposal.transforms


def test_an_unacceptable_proposal_is_passed_over() -> None:
    bad = ike(TRIPLE_DES, INTEG_SHA256, PRF_SHA256, X25519)
    good = ike(AES_GCM_128, PRF_SHA256, X25519, number=2)
    assert proposals2.choose_ike(IkePolicy(), sa(bad, good)).proposal == good


def test_the_error_names_what_is_never_negotiated() -> None:
    offer = sa(ike(TRIPLE_DES, INTEG_SHA256, PRF_SHA256, transform(4, KeyExchangeId.MODP_1024)))
    with pytest.raises(NoProposalChosen, match="TRIPLE_DES, MODP_1024"):
        proposals2.choose_ike(IkePolicy(), offer)


def test_a_rekeyed_ike_sa_carries_both_new_spis() -> None:
    offer = proposals2.offer_ike(IkePolicy(), SPI_8)
    chosen = proposals2.choose_ike(IkePolicy(), offer, spi=b"answered")
    assert (chosen.peer_spi, chosen.proposal.spi) == (SPI_8, b"answered")
    assert proposals2.accept_ike(offer, sa(chosen.proposal)).peer_spi == b"answered"


# --- IKEv2, additional key exchanges --------------------------------------------------------------------------

HYBRID = IkePolicy(additional=((alg.ML_KEM_768,), (alg.ML_KEM_1024, None)))


def test_additional_key_exchanges_are_agreed_in_order() -> None:
    offer = proposals2.offer_ike(HYBRID)
    chosen = proposals2.choose_ike(HYBRID, offer)
    assert chosen.suite.additional == (alg.ML_KEM_768, alg.ML_KEM_1024)
    assert proposals2.accept_ike(offer, sa(chosen.proposal)).suite == chosen.suite


def test_an_additional_key_exchange_may_be_left_out_where_both_sides_say_so() -> None:
    offer = proposals2.offer_ike(HYBRID)
    narrow = IkePolicy(additional=((alg.ML_KEM_768,),))
    chosen = proposals2.choose_ike(narrow, offer)
    assert chosen.suite.additional == (alg.ML_KEM_768, None)
    assert proposals2.accept_ike(offer, sa(chosen.proposal)).suite == chosen.suite


def test_an_additional_key_exchange_that_must_be_is_not_done_without() -> None:
    with pytest.raises(NoProposalChosen):
        proposals2.choose_ike(HYBRID, proposals2.offer_ike(IkePolicy()))
    with pytest.raises(NoProposalChosen):
        proposals2.choose_ike(IkePolicy(), proposals2.offer_ike(HYBRID))


def test_no_method_is_chosen_twice() -> None:
    twice = IkePolicy(additional=((alg.ML_KEM_768,), (alg.ML_KEM_768, None)))
    offer = proposals2.offer_ike(twice)
    chosen = proposals2.choose_ike(twice, offer)
    assert chosen.suite.additional == (alg.ML_KEM_768, None)
    doubled = tuple(
        replace(each, id=KeyExchangeId.ML_KEM_768)
        if each.type == TransformType.ADDITIONAL_KEY_EXCHANGE_2
        else each
        for each in chosen.proposal.transforms
    )
    with pytest.raises(AlteredProposal, match="twice"):
        proposals2.accept_ike(offer, sa(replace(chosen.proposal, transforms=doubled)))


# --- IKEv2, CHILD_SA ------------------------------------------------------------------------------------------


def test_the_first_child_sa_negotiates_no_key_exchange() -> None:
    policy = ChildPolicy(groups=(alg.CURVE25519,))
    offer = proposals2.offer_child(policy, SPI, first=True)
    assert all(each.type != TransformType.KEY_EXCHANGE for each in offer.proposals[0].transforms)
    assert proposals2.choose_child(policy, offer, spi=SPI, first=True).suite.group is None
    with_group = sa(esp(AES_GCM_128, X25519, NO_ESN))
    chosen = proposals2.choose_child(policy, with_group, spi=SPI, first=True)
    assert chosen.proposal == esp(AES_GCM_128, NO_ESN)


@pytest.mark.parametrize(
    ("groups", "offered", "group"),
    [
        ((alg.CURVE25519,), (X25519,), alg.CURVE25519),
        ((alg.CURVE25519, None), (), None),
        ((None, alg.CURVE25519), (X25519, transform(4, 0)), None),
        ((None, alg.CURVE25519), (X25519,), alg.CURVE25519),
    ],
)
def test_perfect_forward_secrecy_is_as_both_sides_want_it(
    groups: tuple[alg.Group | None, ...], offered: tuple[p2.Transform, ...], group: alg.Group | None
) -> None:
    policy = ChildPolicy(groups=groups)
    chosen = proposals2.choose_child(policy, sa(esp(AES_GCM_128, *offered, NO_ESN)), spi=SPI)
    assert chosen.suite.group is group


@pytest.mark.parametrize(
    ("groups", "offered"),
    [((alg.CURVE25519,), ()), ((None,), (X25519,)), ((alg.ECP_256,), (X25519, transform(4, 0)))],
)
def test_perfect_forward_secrecy_is_refused_where_one_side_cannot(
    groups: tuple[alg.Group | None, ...], offered: tuple[p2.Transform, ...]
) -> None:
    with pytest.raises(NoProposalChosen):
        proposals2.choose_child(ChildPolicy(groups=groups), sa(esp(AES_GCM_128, *offered, NO_ESN)), spi=SPI)


@pytest.mark.parametrize(
    ("offered", "group"),
    [
        pytest.param((), None, id="without"),
        pytest.param((X25519,), alg.CURVE25519, id="insists"),
        pytest.param((X25519, transform(4, 0)), None, id="either"),
    ],
)
def test_default_policy_does_without_perfect_forward_secrecy_unless_the_peer_insists(
    offered: tuple[p2.Transform, ...], group: alg.Group | None
) -> None:
    chosen = proposals2.choose_child(ChildPolicy(), sa(esp(AES_GCM_128, *offered, NO_ESN)), spi=SPI)
    assert chosen.suite.group is group


def test_extended_sequence_numbers_follow_the_policy() -> None:
    offer = sa(esp(AES_GCM_128, NO_ESN, ESN))
    assert not proposals2.choose_child(ChildPolicy(), offer, spi=SPI).suite.extended_sequence_numbers
    extended = ChildPolicy(extended_sequence_numbers=(True,))
    assert proposals2.choose_child(extended, offer, spi=SPI).suite.extended_sequence_numbers
    without = sa(esp(AES_GCM_128))
    assert proposals2.choose_child(ChildPolicy(), without, spi=SPI).proposal == esp(AES_GCM_128)
    with pytest.raises(NoProposalChosen):
        proposals2.choose_child(extended, without, spi=SPI)


def test_ah_has_integrity_and_no_cipher() -> None:
    policy = ChildPolicy(protocol=ProtocolId.AH)
    offer = proposals2.offer_child(policy, SPI)
    chosen = proposals2.choose_child(policy, offer, spi=SPI)
    assert chosen.suite.encryption is None
    assert chosen.suite.integrity is alg.AUTH_HMAC_SHA2_256_128
    assert proposals2.accept_child(offer, sa(chosen.proposal)).suite == chosen.suite
    with_cipher = p2.Proposal(number=1, protocol=ProtocolId.AH, spi=SPI, transforms=(AES_CBC_128, INTEG_SHA256))
    with pytest.raises(NoProposalChosen):
        proposals2.choose_child(policy, sa(with_cipher), spi=SPI)


def test_esp_without_encryption_needs_integrity() -> None:
    policy = ChildPolicy(encryptions=(alg.ENCR_NULL,))
    offer = proposals2.offer_child(policy, SPI)
    assert proposals2.choose_child(policy, offer, spi=SPI).suite.encryption is alg.ENCR_NULL
    with pytest.raises(NoProposalChosen):
        proposals2.choose_child(policy, sa(esp(transform(1, EncryptionId.NULL), NO_ESN)), spi=SPI)


# --- IKEv2, an offer cut down ----------------------------------------------------------------------------------


def test_an_offer_is_cut_down_to_what_a_policy_allows_and_keeps_its_order() -> None:
    offer = sa(
        ike(
            AES_CBC_128, TRIPLE_DES, INTEG_SHA256, PRF_SHA256, transform(4, KeyExchangeId.MODP_1024), P256, X25519
        ),
        ike(AES_GCM_128, PRF_SHA256, X25519, number=2),
    )
    policy = IkePolicy(encryptions=(alg.ENCR_AES_CBC_128,))
    assert proposals2.restrict_ike(offer, policy) == sa(ike(AES_CBC_128, INTEG_SHA256, PRF_SHA256, P256, X25519))


def test_an_own_offer_is_not_cut_down_by_its_policy() -> None:
    for policy in (IkePolicy(), HYBRID):
        for spi in (b"", SPI_8):
            offer = proposals2.offer_ike(policy, spi)
            assert proposals2.restrict_ike(offer, policy) == offer


def test_a_key_exchange_that_was_asked_for_is_not_dropped_from_an_offer() -> None:
    additional = transform(6, KeyExchangeId.ML_KEM_768)
    with pytest.raises(NoProposalChosen):
        proposals2.restrict_ike(sa(ike(AES_GCM_128, PRF_SHA256, X25519, additional)), IkePolicy())
    optional = sa(ike(AES_GCM_128, PRF_SHA256, X25519, additional, transform(6, KeyExchangeId.NONE)))
    cut = sa(ike(AES_GCM_128, PRF_SHA256, X25519, transform(6, KeyExchangeId.NONE)))
    assert proposals2.restrict_ike(optional, IkePolicy()) == cut


@pytest.mark.parametrize(
    "proposal",
    [
        ike(TRIPLE_DES, INTEG_SHA256, PRF_SHA256, X25519),
        ike(AES_CBC_128, INTEG_NONE, PRF_SHA256, X25519),
        ike(AES_GCM_128, PRF_SHA256),
        ike(AES_GCM_128, PRF_SHA256, X25519, transform(99, 1)),
        ike(AES_GCM_128, transform(2, PrfId.HMAC_SHA2_256, AES_128), X25519),
        esp(AES_GCM_128, PRF_SHA256, X25519),
    ],
)
def test_nothing_is_left_of_an_offer_from_which_nothing_could_be_chosen(proposal: p2.Proposal) -> None:
    with pytest.raises(NoProposalChosen):
        proposals2.restrict_ike(sa(proposal), IkePolicy())


# --- IKEv2, answers -------------------------------------------------------------------------------------------

OFFER = sa(
    ike(AES_GCM_128, PRF_SHA256, X25519, P256),
    ike(AES_CBC_128, INTEG_SHA256, PRF_SHA256, X25519, P256, number=2),
)


@pytest.mark.parametrize(
    "answer",
    [
        sa(),
        sa(*OFFER.proposals),
        OFFER,
        sa(OFFER.proposals[0]),
        sa(ike(AES_GCM_128, PRF_SHA256, X25519, number=3)),
        sa(ike(AES_GCM_128, PRF_SHA256, X25519, spi=SPI_8)),
        sa(esp(AES_GCM_128, PRF_SHA256, X25519)),
        sa(ike(AES_GCM_128, PRF_SHA256)),
        sa(ike(AES_GCM_128, X25519)),
        sa(ike(AES_CBC_128, PRF_SHA256, X25519, number=2)),
        sa(ike(AES_CBC_128, INTEG_SHA256, PRF_SHA256, X25519)),
        sa(ike(AES_GCM_128, PRF_SHA256, X25519, transform(6, 36))),
        sa(ike(transform(1, EncryptionId.AES_GCM_16, Attribute.of(14, 256)), PRF_SHA256, X25519)),
        sa(ike(AES_GCM_128, transform(2, PrfId.HMAC_SHA1), X25519)),
    ],
)
def test_an_answer_that_is_not_one_of_ours_is_an_alteration(answer: p2.SecurityAssociation) -> None:
    with pytest.raises(AlteredProposal):
        proposals2.accept_ike(OFFER, answer)


def test_what_we_never_implemented_cannot_be_accepted_even_if_it_was_offered() -> None:
    offer = sa(ike(TRIPLE_DES, INTEG_SHA256, PRF_SHA256, X25519))
    with pytest.raises(AlteredProposal, match="lacks"):
        proposals2.accept_ike(offer, offer)


# --- the tables -----------------------------------------------------------------------------------------------


def test_nothing_that_is_never_negotiated_is_implemented() -> None:
    assert not alg.NEVER_ENCRYPTION & {each.id for each in alg.ENCRYPTIONS}
    assert not alg.NEVER_PRF & {each.id for each in alg.PRFS}
    assert not alg.NEVER_INTEGRITY & {each.id for each in alg.INTEGRITIES}
    assert not alg.NEVER_GROUP & set(alg.GROUPS)
    assert min(alg.GROUPS) == KeyExchangeId.MODP_2048


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: IkePolicy(encryptions=(alg.ENCR_NULL,)), "must encrypt"),
        (lambda: IkePolicy(groups=(alg.ML_KEM_768,)), "mlkem768"),
        (lambda: IkePolicy(additional=((alg.ML_KEM_768, None),) * 8), "more than 7"),
        (lambda: replace(PSK, encryptions=(alg.ENCR_AES_GCM_16_128,)), "AES-GCM-16-128"),
    ],
)
def test_a_policy_that_no_sa_could_follow_is_a_configuration_error(make: Callable[[], object], what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        make()


def test_legacy_algorithms_are_in_no_default_policy() -> None:
    for policy in (IkePolicy(), Phase1Policy(methods=())):
        assert not any(prf.legacy for prf in policy.prfs)
    for integrities in (IkePolicy().integrities, ChildPolicy().integrities):
        assert not any(each.legacy for each in integrities)


# --- IKEv1, phase 1 -------------------------------------------------------------------------------------------

PSK = Phase1Policy(methods=(AuthenticationMethod1.PRE_SHARED_KEY,))


def one1(*transforms: p1.Transform, protocol: int = 1, spi: bytes = b"", number: int = 1) -> p1.Proposal:
    return p1.Proposal(number=number, protocol=protocol, spi=spi, transforms=transforms)


def sa1(*proposals: p1.Proposal, doi: int = 1) -> p1.SecurityAssociation:
    return p1.SecurityAssociation(doi=doi, proposals=proposals)


def phase1(number: int = 1, **changed: int | None) -> p1.Transform:
    values: dict[str, int | None] = {
        "ENCRYPTION_ALGORITHM": 7,
        "KEY_LENGTH": 128,
        "HASH_ALGORITHM": 4,
        "GROUP_DESCRIPTION": 19,
        "AUTHENTICATION_METHOD": 1,
    } | changed
    attributes = tuple(
        Attribute.of(OakleyAttribute[name], value) for name, value in values.items() if value is not None
    )
    return p1.Transform(number=number, id=1, attributes=attributes)


def test_both_sides_of_a_default_phase_1_offer_agree() -> None:
    offer = proposals1.offer_phase1(PSK)
    assert len(offer.proposals[0].transforms) <= p1.MAX_TRANSFORMS
    chosen = proposals1.choose_phase1(PSK, offer)
    assert chosen.suite.encryption is alg.ENCR_AES_CBC_256
    assert chosen.suite.lifetime == PSK.lifetime
    assert chosen.answer.proposals[0].transforms == offer.proposals[0].transforms[:1]
    assert proposals1.accept_phase1(offer, chosen.answer).suite == chosen.suite


def test_a_policy_may_offer_no_lifetime() -> None:
    offer = proposals1.offer_phase1(replace(PSK, lifetime=None))
    assert proposals1.choose_phase1(PSK, offer).suite.lifetime is None


def test_the_first_acceptable_transform_is_returned_unmodified() -> None:
    lifetime = (Attribute.of(11, 1), Attribute.of(12, 86_400), Attribute.of(11, 2), Attribute.of(12, 5000))
    good = replace(phase1(7), attributes=(*phase1().attributes, *lifetime))
    offer = sa1(one1(phase1(1, ENCRYPTION_ALGORITHM=5), good, phase1(8)))
    chosen = proposals1.choose_phase1(PSK, offer)
    assert chosen.answer == sa1(one1(good))
    assert chosen.suite.lifetime == 86_400


@pytest.mark.parametrize(
    "bad",
    [
        phase1(ENCRYPTION_ALGORITHM=5),
        phase1(ENCRYPTION_ALGORITHM=1, KEY_LENGTH=None),
        phase1(KEY_LENGTH=None),
        phase1(KEY_LENGTH=64),
        phase1(HASH_ALGORITHM=1),
        phase1(HASH_ALGORITHM=2),
        phase1(GROUP_DESCRIPTION=2),
        phase1(GROUP_DESCRIPTION=5),
        phase1(AUTHENTICATION_METHOD=3),
        phase1(AUTHENTICATION_METHOD=65001),
        phase1(AUTHENTICATION_METHOD=None),
        phase1(PRF=1),
        replace(phase1(), id=2),
        replace(phase1(), attributes=(*phase1().attributes, Attribute.of(5, 1))),
        replace(phase1(), attributes=(*phase1().attributes, Attribute.of(4, 19))),
        replace(phase1(), attributes=(*phase1().attributes, Attribute.of(12, 100))),
        replace(phase1(), attributes=(*phase1().attributes, Attribute.of(11, 1))),
        replace(phase1(), attributes=(*phase1().attributes, Attribute.of(11, 1), Attribute.of(11, 2))),
    ],
)
def test_what_is_unknown_or_unsafe_in_phase_1_is_not_chosen(bad: p1.Transform) -> None:
    with pytest.raises(NoProposalChosen):
        proposals1.choose_phase1(PSK, sa1(one1(bad)))


def test_sha_1_is_taken_where_a_policy_names_it() -> None:
    legacy = replace(PSK, prfs=(alg.PRF_HMAC_SHA1,))
    chosen = proposals1.choose_phase1(legacy, sa1(one1(phase1(HASH_ALGORITHM=2))))
    assert chosen.suite.prf.legacy


def test_another_doi_protocol_or_a_bundle_is_not_chosen() -> None:
    for offer in (
        sa1(one1(phase1()), doi=2),
        sa1(one1(phase1(), protocol=3, spi=SPI)),
        sa1(one1(phase1()), one1(phase1(), protocol=3, spi=SPI)),
    ):
        with pytest.raises(NoProposalChosen):
            proposals1.choose_phase1(PSK, offer)


@pytest.mark.parametrize(
    "answer",
    [
        sa1(),
        sa1(one1(phase1()), one1(phase1(), number=2)),
        sa1(one1(phase1(), phase1(2))),
        sa1(one1(phase1()), doi=0),
        sa1(one1(phase1(KEY_LENGTH=256))),
        sa1(one1(phase1(KEY_LENGTH=None))),
        sa1(one1(replace(phase1(), attributes=(*phase1().attributes, Attribute.of(11, 1), Attribute.of(12, 1))))),
        sa1(one1(phase1(), protocol=3, spi=SPI)),
    ],
)
def test_an_altered_phase_1_answer_is_refused(answer: p1.SecurityAssociation) -> None:
    # RFC 2409 section 5: "If the initiator of an exchange notices that attribute values have changed or
    # attributes have been added or deleted from an offer made, that response MUST be rejected."
    with pytest.raises(AlteredProposal):
        proposals1.accept_phase1(sa1(one1(phase1(), phase1(2, GROUP_DESCRIPTION=20))), answer)


def test_an_answer_may_reorder_attributes_and_renumber_its_transform() -> None:
    turned = p1.Transform(number=9, id=1, attributes=tuple(reversed(phase1().attributes)))
    assert proposals1.accept_phase1(sa1(one1(phase1())), sa1(one1(turned))).suite.group is alg.ECP_256


def test_what_we_never_implemented_cannot_be_accepted_in_phase_1() -> None:
    offer = sa1(one1(phase1(ENCRYPTION_ALGORITHM=5)))
    with pytest.raises(AlteredProposal):
        proposals1.accept_phase1(offer, offer)


def test_a_phase_1_offer_is_cut_down_to_what_a_policy_allows() -> None:
    offer = sa1(
        one1(phase1(1, AUTHENTICATION_METHOD=3), phase1(2), phase1(3, GROUP_DESCRIPTION=2), phase1(4)),
        one1(phase1(1, GROUP_DESCRIPTION=2), number=2),
        one1(phase1(7), number=3),
    )
    due = sa1(one1(phase1(2), phase1(4)), one1(phase1(7), number=3))
    assert proposals1.restrict_phase1(offer, PSK) == due
    assert proposals1.choose_phase1(PSK, due) == proposals1.choose_phase1(PSK, offer)
    assert proposals1.restrict_phase1(proposals1.offer_phase1(PSK), PSK) == proposals1.offer_phase1(PSK)


def test_nothing_is_left_of_a_phase_1_offer_from_which_nothing_could_be_chosen() -> None:
    bundle = sa1(one1(phase1()), one1(phase1()))
    for offer in (sa1(one1(phase1(GROUP_DESCRIPTION=2))), sa1(one1(phase1()), doi=2), bundle):
        with pytest.raises(NoProposalChosen):
            proposals1.restrict_phase1(offer, PSK)


# --- IKEv1, phase 2 -------------------------------------------------------------------------------------------


def phase2(code: int = 12, **changed: int | None) -> p1.Transform:
    values: dict[str, int | None] = {
        "ENCAPSULATION_MODE": 1,
        "KEY_LENGTH": 128,
        "AUTHENTICATION_ALGORITHM": 5,
    } | changed
    attributes = tuple(
        Attribute.of(IpsecAttribute[name], value) for name, value in values.items() if value is not None
    )
    return p1.Transform(number=1, id=code, attributes=attributes)


@pytest.mark.parametrize(
    "policy",
    [
        ChildPolicy(),
        ChildPolicy(groups=(alg.ECP_256,)),
        ChildPolicy(protocol=ProtocolId.AH, modes=(EncapsulationMode.TRANSPORT,)),
        ChildPolicy(encryptions=(alg.ENCR_NULL,), extended_sequence_numbers=(True,)),
        ChildPolicy(integrities=(alg.AUTH_HMAC_SHA1_96,), encryptions=(alg.ENCR_AES_CBC_192,)),
        ChildPolicy(protocol=ProtocolId.AH, integrities=(alg.AUTH_HMAC_SHA1_96,)),
        ChildPolicy(lifetime=None),
    ],
)
def test_both_sides_of_a_quick_mode_offer_agree(policy: ChildPolicy) -> None:
    offer = proposals1.offer_phase2(policy, SPI)
    chosen = proposals1.choose_phase2(policy, offer, spi=b"resp")
    assert (chosen.peer_spi, chosen.answer.proposals[0].spi) == (SPI, b"resp")
    accepted = proposals1.accept_phase2(offer, chosen.answer)
    assert (accepted.suite, accepted.peer_spi) == (chosen.suite, b"resp")
    assert chosen.suite.group is policy.groups[0]
    assert chosen.suite.mode is policy.modes[0]
    assert chosen.suite.lifetime == policy.lifetime


def test_a_policy_of_one_kind_of_cipher_makes_one_proposal() -> None:
    (only,) = proposals2.offer_ike(IkePolicy(encryptions=(alg.ENCR_AES_CBC_256,))).proposals
    assert only.number == 1
    (only,) = proposals2.offer_ike(IkePolicy(encryptions=(alg.ENCR_AES_GCM_16_256,))).proposals
    assert only.number == 1


def test_algorithms_are_shown_by_name() -> None:
    members = (alg.ENCR_AES_CBC_128, alg.PRF_HMAC_SHA1, alg.AUTH_HMAC_SHA1_96, alg.MODP_2048)
    assert repr(members) == "(AES-CBC-128, PRF-HMAC-SHA1, HMAC-SHA1-96, modp2048)"


def test_an_answer_that_we_never_implemented_is_refused_in_phase_2() -> None:
    offer = sa1(one1(phase2(3, KEY_LENGTH=None), protocol=3, spi=SPI))
    with pytest.raises(AlteredProposal):
        proposals1.accept_phase2(offer, offer)


def test_chacha20_is_not_offered_where_it_has_no_number() -> None:
    offer = proposals1.offer_phase2(ChildPolicy(), SPI)
    assert EncryptionId.CHACHA20_POLY1305 not in {each.id for each in offer.proposals[0].transforms}


@pytest.mark.parametrize(
    "bad",
    [
        phase2(3, KEY_LENGTH=None),
        phase2(KEY_LENGTH=None),
        phase2(AUTHENTICATION_ALGORITHM=None),
        phase2(AUTHENTICATION_ALGORITHM=1),
        phase2(AUTHENTICATION_ALGORITHM=2),
        phase2(20),
        phase2(28, KEY_LENGTH=None, AUTHENTICATION_ALGORITHM=None),
        phase2(GROUP_DESCRIPTION=2),
        phase2(GROUP_DESCRIPTION=5),
        phase2(ENCAPSULATION_MODE=None),
        phase2(ENCAPSULATION_MODE=2),
        phase2(ENCAPSULATION_MODE=61443),
        phase2(EXTENDED_SEQUENCE_NUMBER=2),
        replace(phase2(), attributes=(*phase2().attributes, Attribute.of(8, 1))),
    ],
)
def test_what_is_unknown_or_unsafe_in_phase_2_is_not_chosen(bad: p1.Transform) -> None:
    with pytest.raises(NoProposalChosen):
        proposals1.choose_phase2(ChildPolicy(), sa1(one1(bad, protocol=3, spi=SPI)), spi=SPI)


def test_a_bundle_of_ah_and_esp_is_passed_over() -> None:
    ah = one1(phase2(5, KEY_LENGTH=None), protocol=2, spi=SPI)
    alone = one1(phase2(), protocol=3, spi=SPI, number=2)
    offer = sa1(ah, one1(phase2(), protocol=3, spi=SPI), alone)
    assert proposals1.choose_phase2(ChildPolicy(), offer, spi=SPI).answer == sa1(alone)


def test_ah_wants_one_algorithm_named_twice_alike() -> None:
    policy = ChildPolicy(protocol=ProtocolId.AH)
    differing = one1(phase2(6, KEY_LENGTH=None), protocol=2, spi=SPI)
    with pytest.raises(NoProposalChosen):
        proposals1.choose_phase2(policy, sa1(differing), spi=SPI)


def test_an_altered_phase_2_answer_is_refused() -> None:
    offer = proposals1.offer_phase2(ChildPolicy(), SPI)
    for answer in (
        sa1(one1(phase2(AUTHENTICATION_ALGORITHM=6), protocol=3, spi=SPI)),
        sa1(one1(*offer.proposals[0].transforms, protocol=3, spi=SPI)),
        sa1(one1(offer.proposals[0].transforms[0], protocol=2, spi=SPI)),
    ):
        with pytest.raises(AlteredProposal):
            proposals1.accept_phase2(offer, answer)


@pytest.mark.parametrize("suite", [1, 2])
def test_suites_name_their_algorithms(suite: int) -> None:
    if suite == 1:
        assert str(proposals1.choose_phase1(PSK, proposals1.offer_phase1(PSK)).suite) == (
            "AES-CBC-256/PRF-HMAC-SHA2-256/ecp256"
        )
        return
    chosen = proposals2.choose_ike(HYBRID, proposals2.offer_ike(HYBRID))
    assert str(chosen.suite) == "AES-GCM-16-256/PRF-HMAC-SHA2-256/x25519/mlkem768/mlkem1024"
    child = proposals2.choose_child(ChildPolicy(), sa(esp(AES_CBC_128, INTEG_SHA256, NO_ESN)), spi=SPI)
    assert str(child.suite) == "ESP/AES-CBC-128/HMAC-SHA2-256-128"
