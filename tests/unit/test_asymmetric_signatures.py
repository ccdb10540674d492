"""Signatures under every scheme, and which key may be used with which scheme."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, x25519
from tests.support import pki

from locum.crypto.asymmetric.certificates import describe
from locum.crypto.asymmetric.signatures import (
    LEGACY_SCHEMES,
    SCHEMES,
    KeyKind,
    PublicKey,
    check_private_key,
    encrypt_pkcs1,
    schemes_for,
    sign,
    verify,
)
from locum.errors import ConfigurationError, Incompatible, Misbehaved, Unauthenticated
from locum.tls.registry import SignatureScheme

CONTENT = b"what only this handshake contains"

#: Scheme -> the kind of key in `pki` that signs under it, strictly.
SIGNERS = {
    "RSA_PKCS1_SHA256": "rsa",
    "RSA_PKCS1_SHA384": "rsa",
    "RSA_PKCS1_SHA512": "rsa",
    "RSA_PSS_RSAE_SHA256": "rsa",
    "RSA_PSS_RSAE_SHA384": "rsa",
    "RSA_PSS_RSAE_SHA512": "rsa",
    "RSA_PSS_PSS_SHA256": "rsa",
    "RSA_PSS_PSS_SHA384": "rsa",
    "RSA_PSS_PSS_SHA512": "rsa",
    "ECDSA_SECP256R1_SHA256": "p256",
    "ECDSA_SECP384R1_SHA384": "p384",
    "ECDSA_SECP521R1_SHA512": "p521",
    "ED25519": "ed25519",
    "ED448": "ed448",
    "MLDSA44": "mldsa44",
    "MLDSA65": "mldsa65",
    "MLDSA87": "mldsa87",
}


def _public(kind: str, *, pss_only: bool = False) -> PublicKey:
    return PublicKey.of(pki.key(kind).public_key(), pss_only=pss_only)


def test_every_scheme_of_the_registry_is_implemented() -> None:
    assert SCHEMES.keys() == SignatureScheme.__members__.keys() == SIGNERS.keys()


@pytest.mark.parametrize("name", SIGNERS)
def test_what_is_signed_verifies(name: str) -> None:
    public = _public(SIGNERS[name], pss_only="PSS_PSS" in name)
    signature = sign(name, pki.key(SIGNERS[name]), CONTENT)
    verify(name, public, signature, CONTENT, strict=not SCHEMES[name].legacy)


@pytest.mark.parametrize("name", SIGNERS)
def test_altered_content_does_not_verify(name: str) -> None:
    public = _public(SIGNERS[name], pss_only="PSS_PSS" in name)
    signature = sign(name, pki.key(SIGNERS[name]), CONTENT)
    with pytest.raises(Unauthenticated):
        verify(name, public, signature, CONTENT + b"!", strict=False)


@pytest.mark.parametrize("name", LEGACY_SCHEMES)
def test_hashes_of_old_are_signed_and_never_verified(name: str) -> None:
    kind = "rsa" if name.startswith("RSA") else "p256"
    signature = sign(name, pki.key(kind), bytes(36))
    with pytest.raises(Incompatible):
        verify(name, _public(kind), signature, bytes(36), strict=False)


@pytest.mark.parametrize("name", SIGNERS)
@pytest.mark.parametrize("signature", [b"", b"\x30\x00", bytes(256), bytes(64)])
def test_rubbish_does_not_verify(name: str, signature: bytes) -> None:
    public = _public(SIGNERS[name], pss_only="PSS_PSS" in name)
    with pytest.raises(Unauthenticated):
        verify(name, public, signature, CONTENT, strict=False)


@pytest.mark.parametrize("name", [name for name, scheme in SCHEMES.items() if scheme.hash])
def test_digest_signs_like_the_content_it_is_of(name: str) -> None:
    algorithm = SCHEMES[name].hash
    assert algorithm is not None
    digest = hashlib.new(algorithm.name, CONTENT).digest()
    signature = sign(name, pki.key(SIGNERS[name]), digest, prehashed=True)
    verify(name, _public(SIGNERS[name], pss_only="PSS_PSS" in name), signature, CONTENT, strict=False)


@pytest.mark.parametrize("name", ["ED25519", "ED448", "MLDSA65"])
def test_scheme_that_hashes_itself_takes_no_digest(name: str) -> None:
    with pytest.raises(ValueError, match="whole content"):
        sign(name, pki.key(SIGNERS[name]), bytes(64), prehashed=True)


def test_digest_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError):
        sign("ECDSA_SECP256R1_SHA256", pki.key("p256"), bytes(31), prehashed=True)


# --- scheme and key ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, scheme in SCHEMES.items() if scheme.legacy])
def test_pkcs1_is_out_of_place_in_tls_1_3(name: str) -> None:
    # RFC 8446 section 4.2.3: these "are not defined for use in signed TLS handshake messages".
    signature = sign(name, pki.key("rsa"), CONTENT)
    with pytest.raises(Misbehaved):
        verify(name, _public("rsa"), signature, CONTENT, strict=True)


def test_ecdsa_scheme_fixes_the_curve_in_tls_1_3_only() -> None:
    signature = sign("ECDSA_SECP256R1_SHA256", pki.key("p384"), CONTENT)
    verify("ECDSA_SECP256R1_SHA256", _public("p384"), signature, CONTENT, strict=False)
    with pytest.raises(Misbehaved):
        verify("ECDSA_SECP256R1_SHA256", _public("p384"), signature, CONTENT, strict=True)


@pytest.mark.parametrize("strict", [True, False])
def test_scheme_for_another_kind_of_key_is_misbehaviour(strict: bool) -> None:
    for name, scheme in SCHEMES.items():
        for kind in pki.KINDS:
            if kind == "rsa1024" or scheme.fits(_public(kind).kind, strict=strict):
                continue
            with pytest.raises(Misbehaved):
                verify(name, _public(kind), b"x", CONTENT, strict=strict)


@pytest.mark.parametrize("strict", [True, False])
def test_rsae_and_pss_keys_are_told_apart(strict: bool) -> None:
    # RFC 8446 section 4.2.3: the rsaEncryption OID for RSAE, the RSASSA-PSS OID for PSS.
    signature = sign("RSA_PSS_RSAE_SHA256", pki.key("rsa"), CONTENT)
    with pytest.raises(Misbehaved):
        verify("RSA_PSS_RSAE_SHA256", _public("rsa", pss_only=True), signature, CONTENT, strict=strict)
    with pytest.raises(Misbehaved):
        verify("RSA_PSS_PSS_SHA256", _public("rsa"), signature, CONTENT, strict=strict)


def test_pss_salt_must_be_as_long_as_the_digest() -> None:
    scheme = SCHEMES["RSA_PSS_RSAE_SHA256"]
    assert scheme.hash is not None
    short = pki.key("rsa").sign(CONTENT, padding.PSS(padding.MGF1(scheme.hash), 20), scheme.hash)
    with pytest.raises(Unauthenticated):
        verify("RSA_PSS_RSAE_SHA256", _public("rsa"), short, CONTENT, strict=True)


def test_unknown_scheme_is_incompatible() -> None:
    with pytest.raises(Incompatible):
        verify("0x0201", _public("rsa"), b"", CONTENT, strict=False)
    with pytest.raises(Incompatible):
        sign("0x0201", pki.key("rsa"), CONTENT)


def test_key_that_cannot_sign_under_a_scheme_says_so() -> None:
    for name, kind in (("ED25519", "p256"), ("ECDSA_SECP256R1_SHA256", "rsa"), ("MLDSA65", "mldsa44")):
        with pytest.raises(Incompatible):
            sign(name, pki.key(kind), CONTENT)


def test_key_prefers_the_scheme_of_its_curve() -> None:
    assert schemes_for(KeyKind.P384, strict=True) == ("ECDSA_SECP384R1_SHA384",)
    in_tls12 = schemes_for(KeyKind.P384, strict=False)
    assert in_tls12[0] == "ECDSA_SECP384R1_SHA384"
    assert set(in_tls12) == {"ECDSA_SECP256R1_SHA256", "ECDSA_SECP384R1_SHA384", "ECDSA_SECP521R1_SHA512"}


def test_rsa_key_prefers_pss() -> None:
    assert schemes_for(KeyKind.RSA, strict=False)[0] == "RSA_PSS_RSAE_SHA256"
    assert not any("PKCS1" in name for name in schemes_for(KeyKind.RSA, strict=True))


# --- kinds of keys -----------------------------------------------------------------------------------------


def test_short_rsa_key_is_refused() -> None:
    with pytest.raises(Incompatible, match="1024 bits"):
        _public("rsa1024")
    with pytest.raises(ConfigurationError, match="1024 bits"):
        check_private_key(pki.key("rsa1024"))


def test_rsa_key_that_is_too_costly_is_refused() -> None:
    numbers = rsa.RSAPublicNumbers(65537, (1 << 8200) + 1)
    with pytest.raises(Incompatible, match="8201 bits"):
        PublicKey.of(numbers.public_key())


def test_other_curve_signs_in_tls_1_2_only() -> None:
    key = ec.generate_private_key(ec.BrainpoolP256R1())
    public = PublicKey.of(key.public_key())
    assert public.kind is KeyKind.OTHER_CURVE
    signature = sign("ECDSA_SECP256R1_SHA256", key, CONTENT)
    verify("ECDSA_SECP256R1_SHA256", public, signature, CONTENT, strict=False)
    with pytest.raises(Misbehaved):
        verify("ECDSA_SECP256R1_SHA256", public, signature, CONTENT, strict=True)


def test_agreement_key_is_not_a_signature_key() -> None:
    with pytest.raises(Incompatible, match="not implemented"):
        PublicKey.of(x25519.X25519PrivateKey.generate().public_key())


def test_certificate_of_openssl_with_a_pss_key_is_recognized(tmp_path: Path) -> None:
    commands = (
        "openssl genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out k.pem",
        "openssl req -x509 -key k.pem -subj /CN=x -days 3 -out c.pem",
    )
    for command in commands:
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    certificate = x509.load_pem_x509_certificate((tmp_path / "c.pem").read_bytes())
    assert describe(certificate).key.kind is KeyKind.RSA_PSS


# --- RSA key exchange --------------------------------------------------------------------------------------


def test_encrypted_pre_master_can_be_decrypted_by_the_key() -> None:
    secret = b"\x03\x03" + bytes(46)
    encrypted = encrypt_pkcs1(_public("rsa"), secret)
    assert pki.key("rsa").decrypt(encrypted, padding.PKCS1v15()) == secret


@pytest.mark.parametrize("public", [_public("p256"), _public("ed25519")], ids=["p256", "ed25519"])
def test_only_an_rsa_key_encrypts(public: PublicKey) -> None:
    with pytest.raises(Misbehaved):
        encrypt_pkcs1(public, bytes(48))


def test_pss_key_does_not_encrypt() -> None:
    with pytest.raises(Misbehaved):
        encrypt_pkcs1(_public("rsa", pss_only=True), bytes(48))
