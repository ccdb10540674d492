"""AUTH and SIG data: every algorithm in every encoding that peers use, and nothing else."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo
from tests.support import pki

from locum.authority.ike_signatures import find_signer, sign1, verify1, verify2
from locum.crypto.asymmetric.signatures import KeyKind, PublicKey
from locum.errors import Incompatible, Misbehaved, Refused, Unauthenticated
from locum.ike import algorithms as alg
from locum.ike.registry import AuthenticationMethod1, AuthenticationMethod2, SignatureHash
from locum.keys.file import FileKey

OCTETS = b"what an AUTH payload covers"
ALL = (2, 3, 4, 5)
M2, M1 = AuthenticationMethod2, AuthenticationMethod1

#: RFC 7427 appendix A.4.3 (RSASSA-PSS with SHA-256, trailer written out), A.1.2 (sha256WithRSAEncryption),
#: A.3.2 to A.3.4 (ecdsa-with-SHA256 to 512); RFC 8420 appendix A (Ed25519, Ed448).
PSS_SHA256 = bytes.fromhex(
    "304606092a864886f70d01010a3039a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d0609608648"
    "0165030402010500a203020120a303020101"
)
PKCS1_SHA256 = bytes.fromhex("300d06092a864886f70d01010b0500")
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
ECDSA_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")
ECDSA_SHA512 = bytes.fromhex("300a06082a8648ce3d040304")
ED25519 = bytes.fromhex("300506032b6570")
ED448 = bytes.fromhex("300506032b6571")
#: A.4.1, RSASSA-PSS with empty parameters, which mean SHA-1; A.1.1, sha1WithRSAEncryption; A.2.1, dsa-with-sha1.
SHA1_BLOBS = (
    bytes.fromhex("300d06092a864886f70d01010a3000"),
    bytes.fromhex("300d06092a864886f70d0101050500"),
    bytes.fromhex("300906072a8648ce380403"),
)


def key(kind: str) -> FileKey:
    return FileKey(pki.key(kind))


def public(kind: str) -> PublicKey:
    return PublicKey.of(pki.key(kind).public_key())


def framed(identifier: bytes, signature: bytes) -> bytes:
    return bytes((len(identifier),)) + identifier + signature


def pss(algorithm: hashes.HashAlgorithm, salt: int | None = None) -> bytes:
    salt = algorithm.digest_size if salt is None else salt
    signature: bytes = pki.key("rsa").sign(OCTETS, padding.PSS(padding.MGF1(algorithm), salt), algorithm)
    return signature


# --- auth method 14 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "hash_", "identifier"),
    [
        ("p256", SignatureHash.SHA2_256, ECDSA_SHA256),
        ("p384", SignatureHash.SHA2_384, ECDSA_SHA384),
        ("p521", SignatureHash.SHA2_512, ECDSA_SHA512),
        ("ed25519", SignatureHash.IDENTITY, ED25519),
        ("ed448", SignatureHash.IDENTITY, ED448),
    ],
)
def test_data_begins_with_the_identifier_of_the_rfc(kind: str, hash_: SignatureHash, identifier: bytes) -> None:
    signer = find_signer(public(kind).kind, (hash_,), legacy_sha1=False, rsa_pss=True)
    assert signer is not None
    data = signer.sign(key(kind), OCTETS)
    assert data.startswith(framed(identifier, b""))
    verify2(M2.DIGITAL_SIGNATURE, public(kind), data, OCTETS, legacy_sha1=False)


def test_rsa_is_signed_with_either_padding_as_asked() -> None:
    for rsa_pss in (True, False):
        signer = find_signer(KeyKind.RSA, ALL, legacy_sha1=False, rsa_pss=rsa_pss)
        assert signer is not None
        data = signer.sign(key("rsa"), OCTETS)
        verify2(14, public("rsa"), data, OCTETS, legacy_sha1=False)
        assert data.startswith(framed(PKCS1_SHA256, b"")) is not rsa_pss
        # DER leaves a default out: the trailer of RFC 7427's example is not ours to write.
        assert data.startswith(bytes((0x43,)) + bytes.fromhex("304106092a864886f70d01010a3034")) is rsa_pss


@pytest.mark.parametrize(
    "identifier",
    [PSS_SHA256, bytes.fromhex("304106092a864886f70d01010a3034") + PSS_SHA256[15:67]],
    ids=["trailer written", "trailer left out"],
)
def test_rsassa_pss_is_accepted_as_the_rfc_writes_it_and_as_der(identifier: bytes) -> None:
    verify2(14, public("rsa"), framed(identifier, pss(hashes.SHA256())), OCTETS, legacy_sha1=False)


def test_hash_parameters_may_be_left_out() -> None:
    bare = bytes.fromhex(
        "303d06092a864886f70d01010a3030a00d300b0609608648016503040201a11a301806092a864886f70d010108300b0609608648"
        "016503040201a203020120"
    )
    verify2(14, public("rsa"), framed(bare, pss(hashes.SHA256())), OCTETS, legacy_sha1=False)


@pytest.mark.parametrize("salt", [0, 20, 31, 33, 64])
def test_salt_of_another_length_than_said_is_not_accepted(salt: int) -> None:
    with pytest.raises(Unauthenticated):
        verify2(14, public("rsa"), framed(PSS_SHA256, pss(hashes.SHA256(), salt)), OCTETS, legacy_sha1=False)


@pytest.mark.parametrize("identifier", [*SHA1_BLOBS, b"", PKCS1_SHA256[:-1], PKCS1_SHA256 + b"\0"], ids=bytes.hex)
def test_other_algorithms_are_not_accepted(identifier: bytes) -> None:
    signature = pki.key("rsa").sign(OCTETS, padding.PKCS1v15(), hashes.SHA1())
    for legacy in (True, False):
        with pytest.raises(Incompatible):
            verify2(14, public("rsa"), framed(identifier, signature), OCTETS, legacy_sha1=legacy)


@pytest.mark.parametrize(
    ("identifier", "kind"), [(PKCS1_SHA256, "p256"), (ECDSA_SHA256, "rsa"), (ED25519, "ed448"), (ED448, "ed25519")]
)
def test_algorithm_must_be_that_of_the_key(identifier: bytes, kind: str) -> None:
    with pytest.raises(Misbehaved):
        verify2(14, public(kind), framed(identifier, bytes(64)), OCTETS, legacy_sha1=True)


def test_ecdsa_with_another_hash_than_the_curves_is_accepted_and_made() -> None:
    signer = find_signer(KeyKind.P256, (SignatureHash.SHA2_512,), legacy_sha1=False, rsa_pss=True)
    assert signer is not None
    data = signer.sign(key("p256"), OCTETS)
    assert data.startswith(framed(ECDSA_SHA512, b""))
    verify2(14, public("p256"), data, OCTETS, legacy_sha1=False)


def test_key_restricted_to_pss_signs_with_pss() -> None:
    signer = find_signer(KeyKind.RSA_PSS, ALL, legacy_sha1=True, rsa_pss=False)
    assert signer is not None
    data = signer.sign(key("rsa"), OCTETS)
    restricted = PublicKey.of(pki.key("rsa").public_key(), pss_only=True)
    verify2(14, restricted, data, OCTETS, legacy_sha1=False)
    with pytest.raises(Misbehaved):
        verify2(14, restricted, framed(PKCS1_SHA256, bytes(256)), OCTETS, legacy_sha1=False)


@pytest.mark.parametrize("length", [0, 1, 5, 200, 255])
def test_data_cut_short_is_not_accepted(length: int) -> None:
    data = framed(PSS_SHA256, pss(hashes.SHA256()))
    with pytest.raises((Incompatible, Unauthenticated)):
        verify2(14, public("rsa"), data[:length], OCTETS, legacy_sha1=True)


# --- the older methods --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "method", "length"),
    [("p256", M2.ECDSA_256, 64), ("p384", M2.ECDSA_384, 96), ("p521", M2.ECDSA_521, 132)],
)
def test_ecdsa_is_two_numbers_one_after_the_other(kind: str, method: AuthenticationMethod2, length: int) -> None:
    signer = find_signer(public(kind).kind, (), legacy_sha1=False, rsa_pss=True)
    assert signer is not None
    assert signer.method is method
    data = signer.sign(key(kind), OCTETS)
    assert len(data) == length
    verify2(method, public(kind), data, OCTETS, legacy_sha1=False)
    for wrong in (data[:-1], data + b"\0", b"", data[1:] + data[:1], bytes(length)):
        with pytest.raises((Misbehaved, Unauthenticated)):
            verify2(method, public(kind), wrong, OCTETS, legacy_sha1=False)
    with pytest.raises(Misbehaved):
        verify2(method, public("rsa"), data, OCTETS, legacy_sha1=False)


def test_sha1_with_rsa_is_off_unless_allowed() -> None:
    assert find_signer(KeyKind.RSA, (), legacy_sha1=False, rsa_pss=True) is None
    signer = find_signer(KeyKind.RSA, (), legacy_sha1=True, rsa_pss=True)
    assert signer is not None
    data = signer.sign(key("rsa"), OCTETS)
    assert data == pki.key("rsa").sign(OCTETS, padding.PKCS1v15(), hashes.SHA1())
    verify2(1, public("rsa"), data, OCTETS, legacy_sha1=True)
    with pytest.raises(Incompatible, match="SHA-1"):
        verify2(1, public("rsa"), data, OCTETS, legacy_sha1=False)


@pytest.mark.parametrize("kind", ["ed25519", "ed448", "mldsa44"])
def test_key_that_an_old_peer_cannot_know_does_not_sign(kind: str) -> None:
    assert find_signer(public(kind).kind, (), legacy_sha1=True, rsa_pss=True) is None


def test_ml_dsa_has_no_place_in_ike() -> None:
    assert find_signer(KeyKind.MLDSA65, ALL, legacy_sha1=True, rsa_pss=True) is None


@pytest.mark.parametrize("method", [0, 2, 3, 12, 13, 201])
def test_other_methods_are_no_signatures(method: int) -> None:
    with pytest.raises(Incompatible):
        verify2(method, public("rsa"), bytes(256), OCTETS, legacy_sha1=True)


# --- IKEv1 ------------------------------------------------------------------------------------------------


def test_rsa_of_ikev1_covers_the_bare_hash() -> None:
    value = bytes(range(32))
    data = sign1(M1.RSA_SIGNATURE, alg.PRF_HMAC_SHA2_256, key("rsa"), value)
    private: rsa.RSAPrivateKey = pki.key("rsa")
    assert data == private.sign(value, padding.PKCS1v15(), NoDigestInfo())
    numbers = private.public_key().public_numbers()
    block = pow(int.from_bytes(data, "big"), numbers.e, numbers.n).to_bytes(256, "big")
    assert block == b"\0\1" + b"\xff" * (256 - 3 - 32) + b"\0" + value
    verify1(M1.RSA_SIGNATURE, alg.PRF_HMAC_SHA2_256, public("rsa"), data, value)
    for wrong in (value[:-1], value + b"\0", bytes(32), b""):
        with pytest.raises(Unauthenticated):
            verify1(M1.RSA_SIGNATURE, alg.PRF_HMAC_SHA2_256, public("rsa"), data, wrong)


def test_hash_inside_a_digest_info_is_not_the_bare_hash() -> None:
    value = bytes(range(32))
    data = pki.key("rsa").sign(OCTETS, padding.PKCS1v15(), hashes.SHA256())
    with pytest.raises(Unauthenticated):
        verify1(M1.RSA_SIGNATURE, alg.PRF_HMAC_SHA2_256, public("rsa"), data, value)


@pytest.mark.parametrize("prf", [alg.PRF_HMAC_SHA2_256, alg.PRF_HMAC_SHA2_384, alg.PRF_HMAC_SHA2_512], ids=str)
@pytest.mark.parametrize(
    ("kind", "method"), [("p256", M1.ECDSA_256), ("p384", M1.ECDSA_384), ("p521", M1.ECDSA_521)]
)
def test_ecdsa_of_ikev1_takes_the_hash_for_the_digest(
    prf: alg.Prf, kind: str, method: AuthenticationMethod1
) -> None:
    value = bytes(range(prf.length))
    data = sign1(method, prf, key(kind), value)
    verify1(method, prf, public(kind), data, value)
    with pytest.raises(Unauthenticated):
        verify1(method, prf, public(kind), data, value[::-1])
    with pytest.raises(Misbehaved):
        verify1(method, prf, public("rsa"), data, value)


def test_ecdsa_over_a_sha1_hash_is_not_implemented() -> None:
    with pytest.raises(Incompatible):
        sign1(M1.ECDSA_256, alg.PRF_HMAC_SHA1, key("p256"), bytes(20))


# --- the private key ----------------------------------------------------------------------------------------


def test_decryption_has_no_telling_errors() -> None:
    private: rsa.RSAPrivateKey = pki.key("rsa")
    ciphertext = private.public_key().encrypt(b"hello", padding.PKCS1v15())
    assert key("rsa").decrypt_pkcs1(ciphertext) == b"hello"
    wrong = ciphertext[:-1] + bytes((ciphertext[-1] ^ 1,))
    assert key("rsa").decrypt_pkcs1(wrong) != b"hello"
    assert key("rsa").decrypt_pkcs1(wrong) == key("rsa").decrypt_pkcs1(wrong)
    for impossible in (b"", ciphertext + b"\0", b"\xff" * 256):
        with pytest.raises(Refused):
            key("rsa").decrypt_pkcs1(impossible)
    with pytest.raises(Refused):
        key("p256").decrypt_pkcs1(ciphertext)
