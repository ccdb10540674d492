"""Proposals as people write them: what each word means, and what is refused with one line that says why."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locum.errors import ConfigurationError
from locum.ike import algorithms as alg
from locum.ike.policy import ChildPolicy, IkePolicy
from locum.ike.proposal_names import (
    ENCRYPTION_NAMES,
    GROUP_NAMES,
    INTEGRITY_NAMES,
    MAX_PROPOSALS,
    MAX_TEXT,
    PRF_NAMES,
    parse_child_proposals,
    parse_ike_proposals,
    parse_phase1_proposals,
)
from locum.ike.registry import AuthenticationMethod1, EncapsulationMode, ProtocolId

METHODS = (AuthenticationMethod1.RSA_SIGNATURE,)
WORDS = (*ENCRYPTION_NAMES, *INTEGRITY_NAMES, *PRF_NAMES, *GROUP_NAMES, "esn", "noesn", "ke1_mlkem768", "md5", "")


# --- IKEv2 ------------------------------------------------------------------------------------------------


def test_an_aead_proposal_names_encryption_prf_and_group() -> None:
    policy = parse_ike_proposals("aes256gcm16-prfsha384-x25519")
    assert policy.encryptions == (alg.ENCR_AES_GCM_16_256,)
    assert policy.prfs == (alg.PRF_HMAC_SHA2_384,)
    assert policy.groups == (alg.CURVE25519,)
    assert policy.additional == ()


def test_without_a_prf_the_integrity_algorithm_says_which_it_is() -> None:
    policy = parse_ike_proposals("aes128-sha256-modp2048")
    assert policy.encryptions == (alg.ENCR_AES_CBC_128,)
    assert policy.integrities == (alg.AUTH_HMAC_SHA2_256_128,)
    assert policy.prfs == (alg.PRF_HMAC_SHA2_256,)
    assert policy.groups == (alg.MODP_2048,)


def test_a_prf_that_is_named_wins_over_the_integrity_algorithm() -> None:
    policy = parse_ike_proposals("aes256-sha256-prfsha512-ecp384")
    assert policy.prfs == (alg.PRF_HMAC_SHA2_512,)
    assert policy.integrities == (alg.AUTH_HMAC_SHA2_256_128,)


def test_several_proposals_are_united_in_their_order_without_repetition() -> None:
    policy = parse_ike_proposals("chacha20poly1305-prfsha256-x448, aes256gcm16-prfsha512-x25519-x448")
    assert policy.encryptions == (alg.ENCR_CHACHA20_POLY1305, alg.ENCR_AES_GCM_16_256)
    assert policy.prfs == (alg.PRF_HMAC_SHA2_256, alg.PRF_HMAC_SHA2_512)
    assert policy.groups == (alg.CURVE448, alg.CURVE25519)


def test_additional_key_exchanges_are_numbered() -> None:
    policy = parse_ike_proposals("aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_mlkem1024-ke2_none")
    assert policy.additional == ((alg.ML_KEM_768,), (alg.ML_KEM_1024, None))


def test_where_one_proposal_does_without_an_additional_exchange_it_may_be_left_out() -> None:
    policy = parse_ike_proposals("aes256gcm16-prfsha384-x25519-ke1_mlkem768,aes256gcm16-prfsha384-x25519")
    assert policy.additional == ((alg.ML_KEM_768, None),)


@pytest.mark.parametrize("name", sorted(GROUP_NAMES))
def test_every_group_has_a_place(name: str) -> None:
    group = GROUP_NAMES[name]
    if group.additional_only:
        assert parse_ike_proposals(f"aes256gcm16-prfsha256-x25519-ke1_{name}").additional == ((group,),)
        with pytest.raises(ConfigurationError, match=f"additional key exchange only: ke1_{name}"):
            parse_ike_proposals(f"aes256gcm16-prfsha256-{name}")
    else:
        assert parse_ike_proposals(f"aes256gcm16-prfsha256-{name}").groups == (group,)


def test_legacy_algorithms_take_part_where_they_are_named() -> None:
    policy = parse_ike_proposals("aes256-sha1-modp2048")
    assert policy.prfs == (alg.PRF_HMAC_SHA1,)
    assert policy.integrities == (alg.AUTH_HMAC_SHA1_96,)
    default = IkePolicy()
    assert not any(prf.legacy for prf in default.prfs)
    assert not any(integrity.legacy for integrity in default.integrities)


@pytest.mark.parametrize(
    "text",
    [
        "3des-sha256-modp2048",
        "des-sha256-modp2048",
        "aes256-md5-modp2048",
        "aes256-sha256-modp768",
        "aes256-sha256-modp1024",
        "aes256-sha256-modp1536",
        "aes256gcm16-prfmd5-x25519",
    ],
)
def test_what_is_too_weak_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is too weak and never negotiated") as refusal:
        parse_ike_proposals(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("prfsha256-x25519", "an encryption algorithm"),
        ("aes256gcm16-prfsha256", "a key exchange"),
        ("aes256gcm16-x25519", "a pseudo-random function"),
        ("aes256-prfsha256-x25519", "an integrity algorithm"),
    ],
    ids=["encryption", "group", "prf", "integrity"],
)
def test_what_is_missing_is_said(text: str, missing: str) -> None:
    with pytest.raises(ConfigurationError, match=missing):
        parse_ike_proposals(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a word is missing"),
        ("aes256gcm16--x25519", "a word is missing"),
        ("aes256gcm16-prfsha256-x25519,", "a word is missing"),
        ("aes257-sha256-x25519", "'aes257' is not an algorithm"),
        ("aes256gcm16-prfsha256-x25519-ke8_mlkem768", "is not an algorithm"),
        ("aes256gcm16-prfsha256-x25519-ke1_x", "is not an algorithm"),
        ("aes256gcm16-prfsha256-x25519-ke1_modp1024", "too weak"),
        ("aes256gcm16-prfsha256-x25519-ke2_mlkem768", "begin at ke1"),
        ("aes256gcm16-prfsha256-x25519-esn", "esn and noesn are for ESP and AH"),
        ("null-sha256-x25519", "must encrypt"),
        ("a" * (MAX_TEXT + 1), "characters"),
        (",".join(["aes256gcm16-prfsha256-x25519"] * (MAX_PROPOSALS + 1)), "proposals"),
    ],
    ids=[
        "nothing",
        "gap",
        "comma",
        "unknown",
        "ke8",
        "ke1-unknown",
        "ke1-weak",
        "ke2",
        "esn",
        "null",
        "long",
        "many",
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as refusal:
        parse_ike_proposals(text)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 250


# --- IKEv1 ------------------------------------------------------------------------------------------------


def test_phase_1_takes_the_hash_from_the_integrity_algorithm() -> None:
    policy = parse_phase1_proposals("aes256-sha384-modp3072", methods=METHODS, lifetime=600)
    assert policy.methods == METHODS
    assert policy.encryptions == (alg.ENCR_AES_CBC_256,)
    assert policy.prfs == (alg.PRF_HMAC_SHA2_384,)
    assert policy.groups == (alg.MODP_3072,)
    assert policy.lifetime == 600


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("aes256gcm16-prfsha256-modp2048", "cannot protect phase 1"),
        ("aes256-sha256-modp2048-ke1_mlkem768", "additional key exchanges are for IKEv2"),
        ("aes256-sha256-modp1024", "too weak"),
        ("sha256-modp2048", "an encryption algorithm"),
        ("aes256-modp2048", "a pseudo-random function"),
        ("aes256-sha256", "a key exchange"),
    ],
    ids=["aead", "additional", "weak", "encryption", "hash", "group"],
)
def test_what_phase_1_cannot_have_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        parse_phase1_proposals(text, methods=METHODS, lifetime=None)


# --- CHILD_SA ---------------------------------------------------------------------------------------------


def test_a_child_without_a_group_has_no_forward_secrecy_and_keeps_the_rest_of_the_default() -> None:
    policy = parse_child_proposals("aes256gcm16", modes=(EncapsulationMode.TRANSPORT,), lifetime=77)
    assert policy.encryptions == (alg.ENCR_AES_GCM_16_256,)
    assert policy.groups == (None,)
    assert policy.extended_sequence_numbers == ChildPolicy().extended_sequence_numbers
    assert policy.modes == (EncapsulationMode.TRANSPORT,)
    assert policy.lifetime == 77


def test_a_group_asks_for_perfect_forward_secrecy_and_may_be_left_out_where_a_proposal_has_none() -> None:
    assert parse_child_proposals("aes256gcm16-x25519").groups == (alg.CURVE25519,)
    assert parse_child_proposals("aes256gcm16-x25519,aes128gcm16").groups == (alg.CURVE25519, None)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("aes128gcm16-esn", (True,)),
        ("aes128gcm16-noesn", (False,)),
        ("aes128gcm16-esn-noesn", (True, False)),
        ("aes128gcm16-esn,aes256gcm16", (True, False)),
    ],
    ids=["esn", "noesn", "both", "one-of-two"],
)
def test_extended_sequence_numbers_are_a_word(text: str, values: tuple[bool, ...]) -> None:
    assert parse_child_proposals(text).extended_sequence_numbers == values


def test_integrity_alone_is_null_encryption_or_ah() -> None:
    assert parse_child_proposals("null-sha256").encryptions == (alg.ENCR_NULL,)
    policy = parse_child_proposals("sha384-x25519", protocol=ProtocolId.AH)
    assert policy.protocol == ProtocolId.AH
    assert policy.integrities == (alg.AUTH_HMAC_SHA2_384_192,)
    assert policy.groups == (alg.CURVE25519,)


@pytest.mark.parametrize(
    ("text", "protocol", "why"),
    [
        ("aes256", ProtocolId.ESP, "an integrity algorithm"),
        ("sha256", ProtocolId.ESP, "an encryption algorithm"),
        ("aes256gcm16-prfsha256", ProtocolId.ESP, "for IKE alone"),
        ("aes256gcm16-ke1_mlkem768", ProtocolId.ESP, "comes after a first key exchange"),
        ("3des-sha256", ProtocolId.ESP, "too weak"),
        ("aes256-sha1", ProtocolId.ESP, "sha1 is for IKE alone"),
        ("aes256-sha256", ProtocolId.AH, "AH encrypts nothing"),
        ("x25519", ProtocolId.AH, "an integrity algorithm"),
    ],
    ids=["integrity", "encryption", "prf", "additional", "weak", "legacy", "ah-encryption", "ah-integrity"],
)
def test_what_a_child_cannot_have_is_refused(text: str, protocol: ProtocolId, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        parse_child_proposals(text, protocol=protocol)


# --- anything ---------------------------------------------------------------------------------------------

texts = st.one_of(
    st.text(max_size=60),
    st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map("-".join), max_size=4).map(",".join),
)


@settings(max_examples=200)
@given(texts)
def test_any_text_gives_a_policy_or_one_line(text: str) -> None:
    for parse in (
        parse_ike_proposals,
        parse_child_proposals,
        lambda words: parse_phase1_proposals(words, methods=METHODS, lifetime=None),
        lambda words: parse_child_proposals(words, protocol=ProtocolId.AH),
    ):
        try:
            parse(text)
        except ConfigurationError as error:
            assert "\n" not in str(error)
