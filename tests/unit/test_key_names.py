"""How public keys are called, held against what certificates and existing clients of the keyless protocol say."""

from __future__ import annotations

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.support.key_pairs import key_pair

from locum.crypto.asymmetric.key_names import names_of
from locum.errors import ConfigurationError
from locum.keys.generation import KINDS


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("rsa3072", "rsa4096")])
def test_every_kind_that_can_be_made_is_called_as_it_is_asked_for(kind: str) -> None:
    pair = key_pair(kind)
    names = names_of(pair.public_key)
    assert names.kind == kind
    assert names.ski == x509.SubjectKeyIdentifier.from_public_key(pair.key.public_key()).digest
    if kind != "rsa2048":
        assert names.digest == hashlib.sha256(pair.public_key).hexdigest()


def test_the_digest_of_an_rsa_key_is_that_of_its_modulus_in_hexadecimal() -> None:
    modulus = rsa.RSAPublicNumbers(65537, int("C0" + "5A" * 255, 16))
    public_key = modulus.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert names_of(public_key).digest == hashlib.sha256(b"C0" + b"5A" * 255).hexdigest()


def test_another_curve_is_called_by_its_name() -> None:
    key = ec.generate_private_key(ec.SECP256K1()).public_key()
    assert names_of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).kind == "secp256k1"


@pytest.mark.parametrize("data", [b"", b"\x30\x00", bytes(100)])
def test_what_is_no_public_key_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigurationError, match="not a public key"):
        names_of(data)


def test_a_key_that_is_too_short_is_refused() -> None:
    key = rsa.generate_private_key(65537, 1024).public_key()
    with pytest.raises(ConfigurationError, match="1024 bits"):
        names_of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
