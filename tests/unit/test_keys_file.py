"""`FileKey`: reading private keys, signing, and showing nothing."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from tests.support import pki

from locum.crypto.asymmetric.certificates import load_public_key
from locum.crypto.asymmetric.signatures import PublicKey, schemes_for, verify
from locum.errors import ConfigurationError, Refused
from locum.keys.file import FileKey

KINDS = [kind for kind in pki.KINDS if kind != "rsa1024"]


@pytest.mark.parametrize("kind", KINDS)
def test_key_signs_under_every_scheme_of_its_kind(kind: str) -> None:
    issued = pki.leaf(pki.ca(), kind)
    key = FileKey.from_pem(issued.key_pem)
    public = PublicKey.of(issued.key.public_key())
    for scheme in schemes_for(public.kind, strict=False):
        verify(scheme, public, key.sign(scheme, b"content"), b"content", strict=False)
    assert key.public_key == load_public_key(issued.pem)


def test_older_forms_of_pem_are_read() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert FileKey.from_pem(pem).sign("ECDSA_SECP256R1_SHA256", b"x")


def test_encrypted_key_needs_its_password() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    assert FileKey.from_pem(pem, b"secret").sign("ECDSA_SECP256R1_SHA256", b"x")
    with pytest.raises(ConfigurationError, match="needs a password"):
        FileKey.from_pem(pem)
    with pytest.raises(ConfigurationError, match="wrong password"):
        FileKey.from_pem(pem, b"guess")


def test_password_for_a_key_without_one_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="is not encrypted"):
        FileKey.from_pem(pki.leaf(pki.ca()).key_pem, b"secret")


@pytest.mark.parametrize("data", [b"", b"rubbish", pki.ca().pem, pki.ca().public_pem])
def test_what_is_no_private_key_is_a_configuration_error(data: bytes) -> None:
    with pytest.raises(ConfigurationError):
        FileKey.from_pem(data)


def test_key_that_cannot_sign_is_a_configuration_error() -> None:
    private = x25519.X25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ConfigurationError):
        FileKey.from_pem(pem)
    weak = pki.key("rsa1024").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ConfigurationError, match="1024"):
        FileKey.from_pem(weak)


def test_signature_that_the_key_cannot_make_is_refused() -> None:
    key = FileKey.from_pem(pki.leaf(pki.ca(), "ed25519").key_pem)
    with pytest.raises(Refused):
        key.sign("ECDSA_SECP256R1_SHA256", b"x")
    with pytest.raises(Refused):
        key.sign("ED25519", bytes(64), prehashed=True)


def test_representation_shows_nothing() -> None:
    assert repr(FileKey.from_pem(pki.leaf(pki.ca()).key_pem)) == "<FileKey>"
