"""`TokenKey` against SoftHSM: every kind of key, implicit rejection, and a token that comes and goes (X6)."""

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.support import bound_operations as bound
from tests.support import pki
from tests.support.softhsm import LABEL, PIN, SoftHsm, soft_hsm

from locum.crypto.asymmetric.signatures import (
    IKE_RSA_HASH,
    IKE_RSA_SHA1,
    LEGACY_SCHEMES,
    SCHEMES,
    PublicKey,
    schemes_for,
    verify,
)
from locum.errors import ConfigurationError, Refused, Unavailable
from locum.keyless.operations import CertificateVerify, Decrypt, Role
from locum.keys import token_session
from locum.keys.file import FileKey
from locum.keys.performing import LocalHolder
from locum.keys.token import TokenKey
from locum.tls import schedule

#: Label of a key in the token -> id. SoftHSM of most distributions has no ML-DSA.
KEYS = {"rsa": "01", "p256": "02", "p384": "03", "p521": "04", "ed25519": "05"}


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    """SoftHSM with a key of each kind. The library reads its configuration once in a process, when it starts."""
    made = soft_hsm(tmp_path_factory.mktemp("softhsm"))
    before = {name: os.environ.get(name) for name in made.environment}
    os.environ.update(made.environment)
    for label, identifier in KEYS.items():
        made.store(pki.key(label), label, identifier)
    restart(made)
    yield made
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def restart(hsm: SoftHsm) -> None:
    """Begin anew, as after a long time in which nobody asked."""
    library = token_session.library(str(hsm.library))
    allow_restart(library)
    library.restart()
    allow_restart(library)


def allow_restart(library: token_session.Library) -> None:
    library._restarted_at = -token_session.RESTART_INTERVAL


def lose_sessions(hsm: SoftHsm) -> None:
    """What a token does when it is reset: nothing that was opened before is known any more."""
    library = pkcs11.lib(str(hsm.library))
    library.finalize()
    library.initialize()
    allow_restart(token_session.library(str(hsm.library)))


# --- the same as a key in a file --------------------------------------------------------------------------


@pytest.mark.parametrize("label", KEYS)
def test_public_key_is_that_of_the_private_key(hsm: SoftHsm, label: str) -> None:
    expected = pki.key(label).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert hsm.key(label).public_key == expected


@pytest.mark.parametrize("label", KEYS)
def test_key_signs_under_every_scheme_of_its_kind(hsm: SoftHsm, label: str) -> None:
    public = PublicKey.of(pki.key(label).public_key())
    key = hsm.key(label)
    for name in schemes_for(public.kind, strict=False):
        verify(name, public, key.sign(name, b"content"), b"content", strict=False)
        algorithm = SCHEMES[name].hash
        if algorithm is not None:
            digest = hashlib.new(algorithm.name, b"content").digest()
            verify(name, public, key.sign(name, digest, prehashed=True), b"content", strict=False)


@pytest.mark.parametrize(
    "name", [IKE_RSA_SHA1, *(name for name in LEGACY_SCHEMES if name.startswith("RSA_PKCS1_SHA"))]
)
def test_deterministic_signature_is_that_of_a_key_in_a_file(hsm: SoftHsm, name: str) -> None:
    assert hsm.key("rsa").sign(name, b"content") == FileKey(pki.key("rsa")).sign(name, b"content")


@pytest.mark.parametrize(("name", "content"), [(IKE_RSA_HASH, bytes(20)), ("RSA_PKCS1_MD5_SHA1", bytes(36))])
def test_signature_without_a_digest_info_is_that_of_a_key_in_a_file(
    hsm: SoftHsm, name: str, content: bytes
) -> None:
    assert hsm.key("rsa").sign(name, content) == FileKey(pki.key("rsa")).sign(name, content)


@pytest.mark.parametrize(
    ("label", "scheme", "content", "prehashed"),
    [
        ("rsa", "ECDSA_SECP256R1_SHA256", b"", False),
        ("rsa", "RSA_PKCS1_SHA256", bytes(31), True),
        ("rsa", "RSA_PKCS1_MD5_SHA1", bytes(35), False),
        ("rsa", "unknown", b"", False),
        ("rsa", "MLDSA65", b"", False),
        ("rsa", IKE_RSA_HASH, bytes(300), False),
        ("p256", "RSA_PSS_RSAE_SHA256", b"", False),
        ("p256", IKE_RSA_HASH, b"", False),
        ("p256", "ED25519", b"", False),
        ("ed25519", "ED25519", bytes(64), True),
        ("ed25519", "ED448", b"", False),
        ("ed25519", "ECDSA_SECP256R1_SHA256", b"", False),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else str(value),
)
def test_signature_that_the_key_cannot_make_is_refused(
    hsm: SoftHsm, label: str, scheme: str, content: bytes, prehashed: bool
) -> None:
    with pytest.raises(Refused):
        hsm.key(label).sign(scheme, content, prehashed=prehashed)


def test_bound_operations_are_performed(hsm: SoftHsm) -> None:
    for label, scheme in (("rsa", "RSA_PSS_RSAE_SHA256"), ("p256", "ECDSA_SECP256R1_SHA256")):
        public = PublicKey.of(pki.key(label).public_key())
        signature = LocalHolder(hsm.key(label)).perform_now(CertificateVerify(scheme, Role.SERVER, bytes(32)))
        content = schedule.certificate_verify_content(b"server", bytes(32))
        verify(scheme, public, signature, content, strict=True)


# --- decryption -------------------------------------------------------------------------------------------


@pytest.fixture(params=["raw", "pkcs1"])
def rsa_key(hsm: SoftHsm, request: pytest.FixtureRequest) -> TokenKey:
    """The RSA key, with the padding taken off here, or by the token."""
    key = hsm.key("rsa")
    key._decrypts_raw = request.param == "raw"
    return key


def _not_padded() -> bytes:
    public = pki.key("rsa").public_key().public_numbers()
    return pow(12345, public.e, public.n).to_bytes(256, "big")


@pytest.mark.parametrize("message", [b"", b"x", bytes(48), b"y" * 245], ids=len)
def test_what_was_encrypted_is_decrypted(rsa_key: TokenKey, message: bytes) -> None:
    assert rsa_key.decrypt_pkcs1(bound.encrypted(pki.key("rsa").public_key(), message)) == message


def test_bad_padding_gives_other_bytes_and_always_the_same(hsm: SoftHsm, rsa_key: TokenKey) -> None:
    first = rsa_key.decrypt_pkcs1(_not_padded())
    assert first == rsa_key.decrypt_pkcs1(_not_padded()) == hsm.key("rsa").decrypt_pkcs1(_not_padded())
    assert len(first) <= 245


def test_zero_is_rejected_implicitly_too(rsa_key: TokenKey) -> None:
    assert rsa_key.decrypt_pkcs1(bytes(256)) == rsa_key.decrypt_pkcs1(bytes(256))


@pytest.mark.parametrize("ciphertext", [b"", bytes(255), bytes(257), b"\xff" * 256], ids=len)
def test_ciphertext_that_does_not_fit_is_refused(rsa_key: TokenKey, ciphertext: bytes) -> None:
    with pytest.raises(Refused):
        rsa_key.decrypt_pkcs1(ciphertext)


def test_key_that_is_no_rsa_key_does_not_decrypt(hsm: SoftHsm) -> None:
    with pytest.raises(Refused):
        hsm.key("p256").decrypt_pkcs1(bytes(256))
    with pytest.raises(Refused):
        LocalHolder(hsm.key("p256")).perform_now(Decrypt(bytes(256)))


@pytest.mark.parametrize("make", ["good", "not padded", "another length"])
def test_master_secret_is_that_of_the_same_key_in_a_file(rsa_key: TokenKey, make: str) -> None:
    public = pki.key("rsa").public_key()
    ciphertext = {
        "good": bound.encrypted(public),
        "not padded": _not_padded(),
        "another length": bound.encrypted(public, bytes(47)),
    }[make]
    operation = bound.master_secret(ciphertext)
    in_a_file = LocalHolder(FileKey(pki.key("rsa")))
    assert LocalHolder(rsa_key).perform_now(operation) == in_a_file.perform_now(operation)


# --- what goes wrong --------------------------------------------------------------------------------------


def test_lost_sessions_are_opened_again(hsm: SoftHsm) -> None:
    keys = [hsm.key("rsa"), hsm.key("p256")]
    lose_sessions(hsm)
    for key, scheme in zip(keys, ("RSA_PSS_RSAE_SHA256", "ECDSA_SECP256R1_SHA256"), strict=True):
        verify(scheme, PublicKey.from_der(key.public_key), key.sign(scheme, b"x"), b"x", strict=True)


def test_library_is_not_restarted_with_each_request(hsm: SoftHsm) -> None:
    key = hsm.key("p256")
    lose_sessions(hsm)
    key.sign("ECDSA_SECP256R1_SHA256", b"x")
    pkcs11.lib(str(hsm.library)).reinitialize()
    with pytest.raises(Unavailable, match="a moment ago"):
        key.sign("ECDSA_SECP256R1_SHA256", b"x")
    restart(hsm)
    assert key.sign("ECDSA_SECP256R1_SHA256", b"x")


def test_token_that_is_gone_is_unavailable_until_it_is_back(hsm: SoftHsm, tmp_path: Path) -> None:
    key = hsm.key("p256")
    tokens = hsm.directory / "tokens"
    tokens.rename(tmp_path / "away")
    tokens.mkdir()
    try:
        lose_sessions(hsm)
        with pytest.raises(Unavailable):
            key.sign("ECDSA_SECP256R1_SHA256", b"x")
    finally:
        tokens.rmdir()
        (tmp_path / "away").rename(tokens)
    allow_restart(token_session.library(str(hsm.library)))
    assert key.sign("ECDSA_SECP256R1_SHA256", b"x")


def test_another_key_in_its_place_is_not_used(hsm: SoftHsm) -> None:
    hsm.store(pki.key("p256", "first"), "changing", "21")
    restart(hsm)
    key = hsm.key("changing")
    session = hsm.session()
    for each in list(session.get_objects({pkcs11.Attribute.LABEL: "changing"})):
        each.destroy()
    hsm.store(pki.key("p256", "second"), "changing", "21")
    restart(hsm)
    with pytest.raises(Unavailable, match="another key"):
        key.sign("ECDSA_SECP256R1_SHA256", b"x")
    restart(hsm)
    assert hsm.key("changing").public_key != key.public_key


def test_child_process_opens_its_own_session(hsm: SoftHsm) -> None:
    key = hsm.key("p256")
    key.sign("ECDSA_SECP256R1_SHA256", b"x")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, key.sign("ECDSA_SECP256R1_SHA256", b"x"))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        signature = pipe.read()
    os.waitpid(child, 0)
    public = PublicKey.from_der(key.public_key)
    verify("ECDSA_SECP256R1_SHA256", public, signature, b"x", strict=True)
    assert key.sign("ECDSA_SECP256R1_SHA256", b"x")


def test_many_threads_use_one_token(hsm: SoftHsm) -> None:
    keys = [hsm.key("p256"), hsm.key("rsa")]
    faults: list[Any] = []

    def work(key: TokenKey, scheme: str) -> None:
        try:
            public = PublicKey.from_der(key.public_key)
            for number in range(20):
                content = str(number).encode()
                verify(scheme, public, key.sign(scheme, content), content, strict=True)
        except Exception as error:
            faults.append(error)

    threads = [
        threading.Thread(target=work, args=pair)
        for pair in zip(keys * 4, ["ECDSA_SECP256R1_SHA256", "RSA_PSS_RSAE_SHA256"] * 4, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_key_is_found_by_its_id(hsm: SoftHsm) -> None:
    assert TokenKey.open(hsm.uri("", id="%02")).public_key == hsm.key("p256").public_key


def test_token_is_found_by_everything_that_is_known_of_it(hsm: SoftHsm) -> None:
    token = hsm.session().token
    uri = hsm.uri("p256", manufacturer="SoftHSM%20project", model="SoftHSM%20v2", serial=token.serial.decode())
    assert TokenKey.open(uri).public_key == hsm.key("p256").public_key
    assert TokenKey.open(uri.replace(";manu", f";slot-id={token.slot.slot_id};manu")).public_key


@pytest.mark.parametrize(
    ("label", "changes", "kind", "why"),
    [
        ("nothing", {}, Unavailable, "no such key"),
        ("p256", {"token": "other"}, Unavailable, "no token"),
        ("p256", {"serial": "00"}, Unavailable, "no token"),
        ("p256", {"slot-id": "12345"}, Unavailable, "no token"),
        ("p256", {"module-path": "/nowhere/x.so"}, ConfigurationError, "no such PKCS#11 library"),
        ("p256", {"module-path": "/etc/hostname"}, ConfigurationError, "not a PKCS#11 library"),
        ("p256", {"pin-source": "file:/nowhere/pin"}, ConfigurationError, "no such PIN"),
    ],
)
def test_what_is_not_there_is_said(
    hsm: SoftHsm, label: str, changes: dict[str, str], kind: type[Exception], why: str
) -> None:
    restart(hsm)
    with pytest.raises(kind, match=why) as error:
        TokenKey.open(hsm.uri(label, **changes))
    assert "\n" not in str(error.value)
    assert PIN not in str(error.value)


def test_label_of_two_keys_needs_an_id(hsm: SoftHsm) -> None:
    hsm.store(pki.key("p256", "one"), "twice", "31")
    hsm.store(pki.key("p256", "two"), "twice", "32")
    restart(hsm)
    with pytest.raises(ConfigurationError, match="2 keys fit"):
        hsm.key("twice")
    assert (
        TokenKey.open(hsm.uri("twice", id="%31")).public_key
        != TokenKey.open(hsm.uri("twice", id="%32")).public_key
    )


def test_without_a_login_the_key_is_not_seen(hsm: SoftHsm) -> None:
    restart(hsm)
    with pytest.raises(Unavailable, match="pin-source"):
        TokenKey.open(hsm.uri("p256", **{"pin-source": ""}))
    assert hsm.key("p256").public_key


def test_wrong_pin_is_tried_once(hsm: SoftHsm, tmp_path: Path) -> None:
    wrong = tmp_path / "pin"
    wrong.write_text("0000\n")
    wrong.chmod(0o600)
    restart(hsm)
    with pytest.raises(ConfigurationError, match="refuses this PIN: PinIncorrect") as error:
        TokenKey.open(hsm.uri("p256", **{"pin-source": f"file:{wrong}"}))
    assert "0000" not in str(error.value)
    with pytest.raises(ConfigurationError, match="refused this PIN before"):
        TokenKey.open(hsm.uri("p256", **{"pin-source": f"file:{wrong}"}))
    wrong.write_text(PIN)
    assert TokenKey.open(hsm.uri("p256", **{"pin-source": f"file:{wrong}"})).public_key


def test_pin_that_others_can_read_is_an_error(hsm: SoftHsm, tmp_path: Path) -> None:
    path = tmp_path / "pin"
    path.write_text(PIN)
    path.chmod(0o640)
    restart(hsm)
    with pytest.raises(ConfigurationError, match="open to other users"):
        TokenKey.open(hsm.uri("p256", **{"pin-source": f"file:{path}"}))


def test_key_that_may_not_sign_or_decrypt_is_refused(hsm: SoftHsm) -> None:
    session = hsm.session()
    flags = {pkcs11.Attribute.SIGN: False, pkcs11.Attribute.DECRYPT: False}
    session.generate_keypair(
        pkcs11.KeyType.RSA, 2048, id=b"\x41", label="idle", store=True, private_template=flags
    )
    key = hsm.key("idle")
    with pytest.raises(Refused, match="sign"):
        key.sign("RSA_PKCS1_SHA256", b"")
    with pytest.raises(Refused):
        key.decrypt_pkcs1(bytes(256))


def test_representation_shows_where_the_key_is_and_no_pin(hsm: SoftHsm) -> None:
    text = repr(hsm.key("p256"))
    assert LABEL.replace(" ", "%20") in text
    assert PIN not in text
