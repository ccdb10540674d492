"""Keying material: what the RFCs build and no published vector covers, rebuilt here from its formulas."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from locum.ike import algorithms as alg
from locum.ike import keying1, keying2
from locum.ike.header import Header
from locum.ike.registry import EncapsulationMode, ProtocolId
from locum.ike.suites import ChildSuite, IkeSuite, Nonces

PRF = alg.PRF_HMAC_SHA2_256
NONCES = Nonces(initiator=b"i" * 16, responder=b"r" * 16)
COOKIES = keying1.Cookies(initiator=b"cookie-i", responder=b"cookie-r")
SUITE = IkeSuite(
    encryption=alg.ENCR_AES_CBC_256,
    integrity=alg.AUTH_HMAC_SHA2_256_128,
    prf=PRF,
    group=alg.CURVE25519,
)
ESP_GCM = ChildSuite(protocol=ProtocolId.ESP, encryption=alg.ENCR_AES_GCM_16_256, integrity=None)
AH = ChildSuite(
    protocol=ProtocolId.AH,
    encryption=None,
    integrity=alg.AUTH_HMAC_SHA2_512_256,
    mode=EncapsulationMode.TRANSPORT,
)


def prf(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


# --- IKEv2 ----------------------------------------------------------------------------------------------------


def test_prf_plus_ends_at_255_blocks() -> None:
    assert len(keying2.prf_plus(PRF, b"k", b"s", 255 * 32)) == 255 * 32
    with pytest.raises(ValueError, match="255"):
        keying2.prf_plus(PRF, b"k", b"s", 255 * 32 + 1)


def test_the_seven_keys_have_their_lengths_and_are_different() -> None:
    keys = keying2.ike_keys(SUITE, bytes(32), NONCES, b"initiatr", b"responde")
    parts = (keys.sk_d, keys.sk_ai, keys.sk_ar, keys.sk_ei, keys.sk_er, keys.sk_pi, keys.sk_pr)
    assert [len(each) for each in parts] == [32] * 7
    assert len(set(parts)) == 7
    assert "sk_d" not in repr(keys)


def test_a_ppk_changes_sk_d_and_sk_p_and_nothing_else() -> None:
    # RFC 8784 section 3: SK_d = prf+ (PPK, SK_d'), SK_pi = prf+ (PPK, SK_pi'), SK_pr = prf+ (PPK, SK_pr')
    keys = keying2.ike_keys(SUITE, bytes(32), NONCES, b"initiatr", b"responde")
    mixed = keying2.with_ppk(PRF, keys, b"post-quantum")
    assert mixed.sk_d == prf(b"post-quantum", keys.sk_d + b"\1")
    assert mixed.sk_pi == prf(b"post-quantum", keys.sk_pi + b"\1")
    assert mixed.sk_pr == prf(b"post-quantum", keys.sk_pr + b"\1")
    assert (mixed.sk_ai, mixed.sk_ar, mixed.sk_ei, mixed.sk_er) == (
        keys.sk_ai,
        keys.sk_ar,
        keys.sk_ei,
        keys.sk_er,
    )


def test_additional_key_exchanges_enter_skeyseed() -> None:
    # RFC 9370 section 2.2.2: SKEYSEED(n) = prf(SK_d(n-1), SK(n) | Ni | Nr); section 2.2.4: all behind the nonces
    assert keying2.rekeyed_skeyseed(PRF, b"d" * 32, NONCES, b"kem") == prf(b"d" * 32, b"kem" + NONCES.both)
    assert keying2.rekeyed_skeyseed(PRF, b"d" * 32, NONCES, b"ecdh", (b"one", b"two")) == prf(
        b"d" * 32, b"ecdh" + NONCES.both + b"onetwo"
    )


def test_additional_key_exchanges_enter_keymat() -> None:
    keys = keying2.child_keys(PRF, AH, b"d" * 32, NONCES, b"ecdh", (b"one", b"two"))
    seed = b"ecdh" + NONCES.both + b"onetwo"
    material = keying2.prf_plus(PRF, b"d" * 32, seed, 128)
    assert keys.initiator.integrity + keys.responder.integrity == material
    assert keys.initiator.encryption == keys.responder.encryption == b""


def test_an_aeads_salt_is_part_of_its_material() -> None:
    keys = keying2.child_keys(PRF, ESP_GCM, b"d" * 32, NONCES)
    assert len(keys.initiator.encryption) == len(keys.responder.encryption) == 36
    assert keys.initiator.integrity == b""
    assert "encryption" not in repr(keys)


def test_signed_octets_are_message_nonce_and_mac_of_the_identity() -> None:
    octets = keying2.signed_octets(PRF, b"message", b"nonce", b"p" * 32, b"id", b"intermediate")
    assert octets == b"message" + b"nonce" + prf(b"p" * 32, b"id") + b"intermediate"


def test_a_shared_key_is_padded_before_use() -> None:
    assert keying2.shared_key_auth(PRF, b"psk", b"octets") == prf(prf(b"psk", b"Key Pad for IKEv2"), b"octets")


def test_an_intermediate_exchange_counts_as_though_nothing_but_its_plaintext_were_there() -> None:
    # RFC 9242 section 3.3.2: the lengths leave out IV, padding, pad length and ICV.
    header = Header(
        initiator_spi=b"initiatr",
        responder_spi=b"responde",
        version=0x20,
        exchange_type=43,
        flags=8,
        message_id=1,
        next_payload=53,
        length=999,
    )
    octets = keying2.intermediate_octets(header, 34, b"plaintext")
    assert octets == (
        b"initiatrresponde"
        + bytes.fromhex("2e202b08 00000001 00000029")
        + bytes.fromhex("2200000d")
        + b"plaintext"
    )
    first = keying2.intermediate_mac(PRF, b"p" * 32, b"", octets)
    assert first == prf(b"p" * 32, octets)
    assert keying2.intermediate_mac(PRF, b"q" * 32, first, octets) == prf(b"q" * 32, first + octets)
    assert keying2.intermediate_auth(b"I", b"R", 2) == b"IR\0\0\0\2"


# --- IKEv1 ----------------------------------------------------------------------------------------------------


def test_skeyid_of_public_key_encryption_hashes_the_nonces() -> None:
    # RFC 2409 section 5: SKEYID = prf(hash(Ni_b | Nr_b), CKY-I | CKY-R)
    skeyid = keying1.skeyid_for_public_key_encryption(PRF, NONCES, COOKIES)
    assert skeyid == prf(hashlib.sha256(NONCES.both).digest(), b"cookie-icookie-r")


def test_a_short_skeyid_e_is_stretched() -> None:
    # RFC 2409 appendix B: Ka = K1 | K2 | K3, K1 = prf(SKEYID_e, 0), K2 = prf(SKEYID_e, K1)
    sha1 = alg.PRF_HMAC_SHA1
    k1 = hmac.digest(b"e" * 20, b"\0", "sha1")
    k2 = hmac.digest(b"e" * 20, k1, "sha1")
    assert keying1.encryption_key(sha1, b"e" * 20, alg.ENCR_AES_CBC_256) == (k1 + k2)[:32]
    assert keying1.encryption_key(sha1, b"e" * 20, alg.ENCR_AES_CBC_128) == b"e" * 16


def test_keymat_is_stretched_over_as_many_blocks_as_it_takes() -> None:
    # RFC 2409 section 5.5: KEYMAT = K1 | K2 | ..., K1 = prf(SKEYID_d, seed), K2 = prf(SKEYID_d, K1 | seed)
    seed = b"g^xy" + b"\2" + b"spi!" + NONCES.both
    k1 = prf(b"d" * 32, seed)
    k2 = prf(b"d" * 32, k1 + seed)
    keys = keying1.keymat(PRF, b"d" * 32, AH, b"spi!", NONCES, b"g^xy")
    assert keys.integrity == k1 + k2
    assert keys.encryption == b""


def test_each_direction_is_under_its_receivers_spi() -> None:
    both = keying1.child_keys(PRF, b"d" * 32, ESP_GCM, (b"ours", b"them"), NONCES)
    assert both.initiator == keying1.keymat(PRF, b"d" * 32, ESP_GCM, b"them", NONCES)
    assert both.responder == keying1.keymat(PRF, b"d" * 32, ESP_GCM, b"ours", NONCES)


def test_hash_r_turns_values_and_cookies_round_but_not_the_sa() -> None:
    values = keying1.PublicValues(initiator=b"XI", responder=b"XR")
    assert keying1.hash_i(PRF, b"s" * 32, values, COOKIES, b"SA", b"ID") == prf(
        b"s" * 32, b"XIXRcookie-icookie-rSAID"
    )
    assert keying1.hash_r(PRF, b"s" * 32, values, COOKIES, b"SA", b"ID") == prf(
        b"s" * 32, b"XRXIcookie-rcookie-iSAID"
    )


def test_no_key_is_shown() -> None:
    assert "eee" not in repr(keying1.IsakmpKeys(d=b"e" * 20, a=b"e" * 20, e=b"e" * 20))
