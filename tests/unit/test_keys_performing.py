"""`LocalHolder`: raw and bound operations, what each key can do, and that bound ones are of TLS alone (X3)."""

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from hypothesis import given
from hypothesis import strategies as st
from tests.support import bound_operations as bound
from tests.support import pki

from locum.crypto.asymmetric.signatures import IKE_RSA_HASH, SCHEMES, PublicKey, verify
from locum.crypto.symmetric import SHA256, SHA384
from locum.errors import Incompatible, LocumError, Refused
from locum.keyless.operations import (
    MAX_CONTENT,
    CertificateVerify,
    ClientVerify,
    Decrypt,
    KeyOperation,
    MasterSecret,
    Role,
    ServerKeyExchange,
    Sign,
)
from locum.keys.file import FileKey
from locum.keys.performing import LocalHolder
from locum.tls import schedule
from locum.tls.extensions import Extensions
from locum.tls.messages import DOWNGRADE_SENTINELS, HELLO_RETRY_REQUEST_RANDOM
from locum.tls.registry import ExtensionType
from locum.tls.signed_messages12 import cut_messages

KINDS = tuple(kind for kind in pki.KINDS if kind != "rsa1024")
#: A scheme of TLS 1.3 for each kind of key.
MODERN = {
    "rsa": "RSA_PSS_RSAE_SHA256",
    "p256": "ECDSA_SECP256R1_SHA256",
    "p384": "ECDSA_SECP384R1_SHA384",
    "p521": "ECDSA_SECP521R1_SHA512",
    "ed25519": "ED25519",
    "ed448": "ED448",
    "mldsa44": "MLDSA44",
    "mldsa65": "MLDSA65",
    "mldsa87": "MLDSA87",
}
TLS12_KINDS = tuple(kind for kind in KINDS if not kind.startswith("mldsa"))
HASH = bytes(32)
P256 = MODERN["p256"]


def holder(kind: str) -> LocalHolder:
    return LocalHolder(FileKey(pki.key(kind)))


def check(kind: str, scheme: str, signature: bytes, content: bytes, *, strict: bool = True) -> None:
    """Raises when the signature is not good."""
    pss_only = "PSS_PSS" in scheme
    verify(scheme, PublicKey.of(pki.key(kind).public_key(), pss_only=pss_only), signature, content, strict=strict)


def refused(kind: str, operation: KeyOperation, why: str = ".") -> None:
    with pytest.raises(Refused, match=why):
        holder(kind).perform_now(operation)


# --- raw --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_raw_signature_of_a_whole_content_verifies(kind: str) -> None:
    signature = holder(kind).perform_now(Sign(MODERN[kind], b"content", prehashed=False))
    check(kind, MODERN[kind], signature, b"content")


@pytest.mark.parametrize("scheme", [name for name, scheme in SCHEMES.items() if scheme.hash is not None])
def test_raw_signature_of_a_digest_verifies(scheme: str) -> None:
    kind = {"RSA": "rsa"}.get(scheme[:3]) or {"256R": "p256", "384R": "p384", "521R": "p521"}[scheme[10:14]]
    algorithm = SCHEMES[scheme].hash
    assert algorithm is not None
    signature = holder(kind).perform_now(Sign(scheme, hashlib.new(algorithm.name, b"content").digest()))
    check(kind, scheme, signature, b"content", strict=False)


def test_performing_with_a_loop_is_the_same() -> None:
    operation = Sign("RSA_PKCS1_SHA256", bytes(32))
    assert asyncio.run(holder("rsa").perform(operation)) == holder("rsa").perform_now(operation)


def test_hashes_of_old_are_signed_when_asked_for() -> None:
    key: rsa.RSAPublicKey = pki.key("rsa").public_key()
    for name, algorithm in (("SHA1", hashes.SHA1()), ("SHA224", hashes.SHA224())):
        signature = holder("rsa").perform_now(Sign(f"RSA_PKCS1_{name}", bytes(algorithm.digest_size)))
        key.verify(signature, bytes(algorithm.digest_size), padding.PKCS1v15(), Prehashed(algorithm))
        signature = holder("p256").perform_now(Sign(f"ECDSA_{name}", bytes(algorithm.digest_size)))
        point: ec.EllipticCurvePublicKey = pki.key("p256").public_key()
        point.verify(signature, bytes(algorithm.digest_size), ec.ECDSA(Prehashed(algorithm)))
    signature = holder("rsa").perform_now(Sign("RSA_PKCS1_MD5_SHA1", bytes(range(36))))
    assert key.recover_data_from_signature(signature, padding.PKCS1v15(), None) == bytes(range(36))


@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        ("rsa", Sign("RSA_PKCS1_SHA256", bytes(31))),
        ("rsa", Sign("RSA_PKCS1_MD5_SHA1", bytes(35))),
        ("rsa", Sign("RSA_PKCS1_MD5_SHA1", bytes(51))),
        ("rsa", Sign(P256, HASH)),
        ("rsa", Sign("IKE_RSA_PKCS1_HASH", HASH)),
        ("rsa", Sign("IKE_RSA_PKCS1_SHA1", bytes(20))),
        ("rsa", Sign("", HASH)),
        ("p256", Sign("RSA_PKCS1_SHA256", HASH)),
        ("p256", Sign("ECDSA_SECP256R1_SHA256", bytes(48))),
        ("p256", Sign("ED25519", HASH, prehashed=False)),
        ("ed25519", Sign(P256, HASH)),
        ("ed25519", Sign("ED25519", HASH)),
        ("ed25519", Sign("ED25519", bytes(MAX_CONTENT + 1), prehashed=False)),
        ("mldsa65", Sign("MLDSA65", HASH)),
        ("mldsa65", Sign("MLDSA44", HASH, prehashed=False)),
        ("p256", Decrypt(bytes(256))),
        ("mldsa65", Decrypt(bytes(256))),
        ("rsa", Decrypt(bytes(255))),
        ("rsa", Decrypt(b"")),
        ("rsa", Decrypt(b"\xff" * 256)),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value)[:40],
)
def test_raw_operation_that_does_not_fit_the_key_is_refused(kind: str, operation: KeyOperation) -> None:
    refused(kind, operation)


def test_decryption_gives_the_message() -> None:
    ciphertext = bound.encrypted(pki.key("rsa").public_key(), b"any message")
    assert holder("rsa").perform_now(Decrypt(ciphertext)) == b"any message"


def test_decryption_of_something_else_gives_other_bytes_and_always_the_same() -> None:
    number = pow(7, 3, pki.key("rsa").public_key().public_numbers().n)
    first = holder("rsa").perform_now(Decrypt(number.to_bytes(256, "big")))
    assert first == holder("rsa").perform_now(Decrypt(number.to_bytes(256, "big")))


def test_key_that_cannot_sign_a_handshake_is_no_holder() -> None:
    with pytest.raises(Incompatible):
        LocalHolder(FileKey(pki.key("rsa1024")))


def test_representation_shows_nothing() -> None:
    assert repr(holder("rsa")) == "<LocalHolder RSA>"


# --- bound signatures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", Role)
def test_certificate_verify_is_what_tls13_signs(kind: str, role: Role) -> None:
    signature = holder(kind).perform_now(CertificateVerify(MODERN[kind], role, bytes(48)))
    content = schedule.certificate_verify_content(role.name.lower().encode(), bytes(48))
    check(kind, MODERN[kind], signature, content)


def test_shortcuts_sign_what_the_operations_do() -> None:
    rsa_holder, curve_holder = holder("rsa"), holder("p256")
    digest = hashlib.sha256(b"content").digest()
    operation = Sign("RSA_PKCS1_SHA256", digest)
    assert rsa_holder.signer(operation.scheme)(digest) == rsa_holder.perform_now(operation)
    for role in Role:
        content = schedule.certificate_verify_content(role.name.lower().encode(), digest)
        check("p256", P256, curve_holder.transcript_signer(P256, role)(digest), content)


def test_shortcuts_of_a_key_elsewhere_ask_it() -> None:
    class Elsewhere:
        public_key = FileKey(pki.key("p256")).public_key

        def sign(self, scheme: str, content: bytes, *, prehashed: bool = False) -> bytes:
            return f"{scheme} {prehashed} ".encode() + content

        def decrypt_pkcs1(self, ciphertext: bytes) -> bytes:
            raise Refused("not here")

    elsewhere = LocalHolder(Elsewhere())
    assert elsewhere.signer(P256)(b"digest") == f"{P256} True digest".encode()
    expected = f"{P256} False ".encode() + schedule.certificate_verify_content(b"client", b"hash")
    assert elsewhere.transcript_signer(P256, Role.CLIENT)(b"hash") == expected


@pytest.mark.parametrize("scheme", ["RSA_PSS_PSS_SHA256", "RSA_PSS_PSS_SHA384", "RSA_PSS_PSS_SHA512"])
def test_rsa_key_signs_for_a_certificate_that_restricts_it(scheme: str) -> None:
    signature = holder("rsa").perform_now(CertificateVerify(scheme, Role.SERVER, HASH))
    check("rsa", scheme, signature, schedule.certificate_verify_content(b"server", HASH))


@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        ("rsa", CertificateVerify("RSA_PKCS1_SHA256", Role.SERVER, HASH)),
        ("rsa", CertificateVerify("RSA_PKCS1_MD5_SHA1", Role.SERVER, HASH)),
        ("rsa", CertificateVerify("IKE_RSA_PKCS1_HASH", Role.SERVER, HASH)),
        ("p256", CertificateVerify("ECDSA_SECP384R1_SHA384", Role.SERVER, HASH)),
        ("p256", CertificateVerify("ECDSA_SHA1", Role.SERVER, HASH)),
        ("p256", CertificateVerify(P256, Role.SERVER, b"")),
        ("p256", CertificateVerify(P256, Role.SERVER, bytes(31))),
        ("p256", CertificateVerify(P256, Role.SERVER, bytes(33))),
        ("p256", CertificateVerify(P256, Role.SERVER, bytes(64))),
        ("p256", CertificateVerify(P256, 2, HASH)),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_what_is_no_certificate_verify_of_tls13_is_refused(kind: str, operation: KeyOperation) -> None:
    refused(kind, operation)


@pytest.mark.parametrize("kind", TLS12_KINDS)
def test_server_key_exchange_is_what_tls12_signs(kind: str) -> None:
    operation = bound.server_key_exchange(MODERN[kind])
    content = operation.client_random + operation.server_random + operation.parameters
    check(kind, MODERN[kind], holder(kind).perform_now(operation), content)


@pytest.mark.parametrize("bits", [2048, 3072, 4096, 6144, 8192])
def test_groups_of_rfc7919_are_signed(bits: int) -> None:
    operation = bound.server_key_exchange("RSA_PKCS1_SHA256", parameters=bound.finite_field_parameters(bits))
    content = operation.client_random + operation.server_random + operation.parameters
    check("rsa", "RSA_PKCS1_SHA256", holder("rsa").perform_now(operation), content, strict=False)


@pytest.mark.parametrize(("group", "length"), [(0x18, 97), (0x1D, 32), (0x1E, 56)])
def test_every_curve_is_signed(group: int, length: int) -> None:
    parameters = bytes((3, 0, group, length, 4)) + bytes(length - 1)
    holder("p256").perform_now(bound.server_key_exchange(P256, parameters=parameters))


CURVE = bound.curve_parameters()
BAD_PARAMETERS = {
    "nothing": b"",
    "text": b"any text that somebody wants to have signed",
    "explicit prime curve": b"\x01" + CURVE[1:],
    "unknown curve": b"\x03\x00\x01" + CURVE[3:],
    "hybrid group": b"\x03\x11\xec\x20" + bytes(32),
    "point too short": b"\x03\x00\x17\x40" + CURVE[4:-1],
    "point too long": b"\x03\x00\x17\x42" + CURVE[4:] + b"\0",
    "compressed point": b"\x03\x00\x17\x21\x02" + bytes(32),
    "hybrid point form": CURVE[:4] + b"\x06" + CURVE[5:],
    "point of another curve": b"\x03\x00\x1d" + CURVE[3:],
    "trailing byte": CURVE + b"\0",
    "cut short": CURVE[:-1],
    "own prime": bound.finite_field_parameters(prime=(1 << 2047) + 1),
    "other generator": bound.finite_field_parameters().replace(b"\0\1\2\1\0", b"\0\1\3\1\0"),
    "public value 0": bound.finite_field_parameters(public=0),
    "public value 1": bound.finite_field_parameters(public=1),
    "trailing byte in a finite field": bound.finite_field_parameters() + b"\0",
    "certificate verify of tls 1.3": b"TLS 1.3, server CertificateVerify\0" + bytes(32),
}


@pytest.mark.parametrize("parameters", BAD_PARAMETERS.values(), ids=BAD_PARAMETERS)
def test_other_parameters_are_not_signed(parameters: bytes) -> None:
    refused("p256", bound.server_key_exchange(P256, parameters=parameters))


@pytest.mark.parametrize("changes", [{"client_random": bytes(31)}, {"server_random": bytes(33)}], ids=repr)
def test_randoms_of_another_length_are_not_signed(changes: dict[str, Any]) -> None:
    refused("p256", bound.server_key_exchange(P256, **changes), "random")


def test_randoms_and_a_public_value_that_are_a_clients_handshake_are_not_signed() -> None:
    """Neither is a value of its own then, and all that is signed is what a client's CertificateVerify signs."""
    numbers = bound.finite_field_parameters(8192)
    prime = numbers[: -(2 + 1024)]  # with the generator
    # The cipher suites of such a ClientHello are the prime; the rest of the handshake is the public value.
    parts = bound.client_messages(P256).parts()
    rest, others = bytes((0, 0x9C, 1, 0)), b"".join(parts[1:])
    suites = 64 - 41 + len(prime) + 2 + 2
    body = b"\3\3" + bound.CLIENT_RANDOM + b"\0" + suites.to_bytes(2, "big")
    hello = b"\1" + (len(body) + suites + 2).to_bytes(3, "big") + body
    public = rest + others
    content = hello + bytes(64 - len(hello)) + prime + len(public).to_bytes(2, "big") + public
    assert len(list(cut_messages(content))) == len(parts)
    operation = ServerKeyExchange(P256, content[:32], content[32:64], content[64:])
    refused("p256", operation, "CertificateVerify")
    other = replace(operation, client_random=b"\2" + content[1:32])
    check("p256", P256, holder("p256").perform_now(other), b"\2" + content[1:])


@pytest.mark.parametrize("scheme", ["ECDSA_SHA1", "RSA_PKCS1_SHA256", "MLDSA65", ""])
def test_scheme_that_the_key_has_not_in_tls12_is_refused(scheme: str) -> None:
    refused("p256", bound.server_key_exchange(scheme))


def test_mldsa_signs_nothing_in_tls12() -> None:
    refused("mldsa65", bound.server_key_exchange("MLDSA65"))


@pytest.mark.parametrize("kind", TLS12_KINDS)
def test_client_verify_signs_the_messages(kind: str) -> None:
    operation = bound.client_verify(MODERN[kind])
    check(kind, MODERN[kind], holder(kind).perform_now(operation), operation.messages)


def test_client_verify_knows_every_handshake_of_tls12() -> None:
    messages = bound.client_messages(P256)
    messages.status = True
    holder("p256").perform_now(bound.client_verify(P256, messages))
    messages.parameters = None
    holder("p256").perform_now(bound.client_verify(P256, messages))


BAD_CLIENTS: dict[str, dict[str, Any]] = {
    "tls 1.3": {"server_extensions": Extensions(((int(ExtensionType.SUPPORTED_VERSIONS), b"\3\4"),))},
    "tls 1.1": {"server_version": 0x0302},
    "client of tls 1.1": {"client_version": 0x0302},
    "hello retry request": {"server_random": HELLO_RETRY_REQUEST_RANDOM},
    "suite not offered": {"suite": 0x1301},
    "no certificate request": {"requested": None},
    "no certificate of the client": {"client_certificates": None},
    "empty certificate of the client": {"client_certificates": ()},
    "scheme not accepted": {"requested": (0x0804,)},
}


@pytest.mark.parametrize("changes", BAD_CLIENTS.values(), ids=BAD_CLIENTS)
def test_other_handshakes_are_not_signed_by_a_client(changes: dict[str, Any]) -> None:
    refused("p256", bound.client_verify(P256, replace(bound.client_messages(P256), **changes)))


def test_no_message_may_be_left_out_doubled_or_swapped() -> None:
    parts = bound.client_messages(P256).parts()
    optional = 3  # the ServerKeyExchange
    for index in range(len(parts)):
        if index != optional:
            refused("p256", ClientVerify(P256, b"".join(parts[:index] + parts[index + 1 :])))
        refused("p256", ClientVerify(P256, b"".join(parts[: index + 1] + parts[index:])))
        refused("p256", ClientVerify(P256, b"".join([*parts[index:], *parts[:index]][: len(parts)][1:])))


def test_messages_that_are_not_whole_are_not_signed() -> None:
    whole = bound.client_messages(P256).whole()
    for end in range(len(whole)):
        refused("p256", ClientVerify(P256, whole[:end]))
    refused("p256", ClientVerify(P256, whole + b"\0"))


def test_too_many_bytes_of_messages_are_refused() -> None:
    messages = bound.client_messages(P256)
    messages.client_certificates = (bytes(MAX_CONTENT),)
    refused("p256", bound.client_verify(P256, messages), "more than")


# --- RSA key exchange -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ciphertext() -> bytes:
    return bound.encrypted(pki.key("rsa").public_key())


@pytest.mark.parametrize("algorithm", [SHA256, SHA384], ids=lambda value: value.name)
@pytest.mark.parametrize("sentinel", [b"", *DOWNGRADE_SENTINELS], ids=repr)
def test_master_secret_is_that_of_rfc5246(ciphertext: bytes, algorithm: Any, sentinel: bytes) -> None:
    random = schedule.bound_random(bound.SEED, sentinel)
    operation = bound.master_secret(ciphertext, hash=algorithm.name, server_random=random)
    expected = schedule.master_secret12(algorithm, bound.PRE_MASTER_SECRET, bound.CLIENT_RANDOM + random, False)
    assert holder("rsa").perform_now(operation) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"status": True},
        {"requested": (0x0804,), "client_certificates": ()},
        {"requested": (0x0804,), "client_certificates": (b"a client",)},
        {"client_version": 0x0304},
    ],
    ids=repr,
)
def test_extended_master_secret_is_that_of_rfc7627(ciphertext: bytes, changes: dict[str, Any]) -> None:
    messages = bound.exchange_messages(ciphertext, **changes)
    version = messages.client_version
    secret = version.to_bytes(2, "big") + bound.PRE_MASTER_SECRET[2:]
    sent = bound.encrypted(pki.key("rsa").public_key(), secret)
    messages.key_exchange = len(sent).to_bytes(2, "big") + sent
    operation = bound.extended_master_secret(sent, messages, client_version=version)
    expected = schedule.master_secret12(SHA256, secret, SHA256.digest(messages.whole()), True)
    assert holder("rsa").perform_now(operation) == expected


def test_extended_master_secret_with_the_other_hash(ciphertext: bytes) -> None:
    messages = bound.exchange_messages(ciphertext, suite=bound.RSA_SHA384)
    operation = bound.extended_master_secret(ciphertext, messages, hash="sha384")
    expected = schedule.master_secret12(SHA384, bound.PRE_MASTER_SECRET, SHA384.digest(messages.whole()), True)
    assert holder("rsa").perform_now(operation) == expected


BAD_EXCHANGES: dict[str, dict[str, Any]] = {
    "other client random": {"client_random": bytes(32)},
    "other server random": {"server_random": bytes(32)},
    "other version": {"client_version": 0x0304},
    "other ciphertext": {"key_exchange": b"\x01\x00" + bytes(256)},
    "no ciphertext": {"key_exchange": b""},
    "other key exchange": {"suite": bound.ECDHE, "parameters": bound.curve_parameters()},
    "other key exchange without parameters": {"suite": bound.ECDHE},
    "other hash": {"suite": bound.RSA_SHA384},
    "client without extended master secret": {"client_extensions": Extensions()},
    "server without extended master secret": {"server_extensions": Extensions()},
    "hello retry request": {"server_random": HELLO_RETRY_REQUEST_RANDOM},
}


@pytest.mark.parametrize("changes", BAD_EXCHANGES.values(), ids=BAD_EXCHANGES)
def test_messages_of_another_exchange_are_refused(ciphertext: bytes, changes: dict[str, Any]) -> None:
    messages = bound.exchange_messages(ciphertext, **changes)
    refused("rsa", bound.extended_master_secret(ciphertext, messages))


@pytest.mark.parametrize(
    "changes",
    [
        {"server_random": bytes(32)},
        {"server_random": bound.SEED},
        {"server_random": b""},
        {"server_random": schedule.bound_random(bound.SEED)[:-8] + b"DOWNGRD\x02"},
        {"random_seed": bytes(32)},
        {"random_seed": b""},
        {"client_random": bytes(31)},
        {"hash": "sha1"},
        {"hash": "md5"},
        {"client_version": -1},
        {"client_version": 0x10000},
        {"messages": b"\x01"},
        {"extended": True},
    ],
    ids=repr,
)
def test_master_secret_of_no_fresh_handshake_is_refused(ciphertext: bytes, changes: dict[str, Any]) -> None:
    refused("rsa", bound.master_secret(ciphertext, **changes))


def test_only_rsa_keys_have_master_secrets(ciphertext: bytes) -> None:
    refused("p256", bound.master_secret(ciphertext))


def _unusable() -> dict[str, bytes]:
    key: rsa.RSAPublicKey = pki.key("rsa").public_key()
    modulus = key.public_numbers().n
    return {
        "another version": bound.encrypted(key, b"\x03\x01" + bytes(46)),
        "47 bytes": bound.encrypted(key, b"\x03\x03" + bytes(45)),
        "49 bytes": bound.encrypted(key, b"\x03\x03" + bytes(47)),
        "nothing": bound.encrypted(key, b""),
        "not padded": pow(5, 65537, modulus).to_bytes(256, "big"),
        "zero": bytes(256),
        "the modulus": modulus.to_bytes(256, "big"),
        "too short": bytes(255),
        "empty": b"",
        "too long": bytes(257),
    }


@pytest.mark.parametrize("name", _unusable())
def test_unusable_pre_master_secret_gives_a_master_secret_like_any_other(name: str) -> None:
    operation = bound.master_secret(_unusable()[name])
    secret = holder("rsa").perform_now(operation)
    assert len(secret) == schedule.MASTER_SECRET_LENGTH
    assert secret not in (_master(b"\x03\x03" + bytes(46)), _master(bytes(48)), _master(b""))


@pytest.mark.parametrize("name", _unusable())
def test_asking_again_or_elsewhere_does_not_show_that_a_pre_master_secret_is_unusable(name: str) -> None:
    operation = bound.master_secret(_unusable()[name])
    first = holder("rsa")
    assert first.perform_now(operation) == first.perform_now(operation) == holder("rsa").perform_now(operation)


@pytest.mark.parametrize("name", ["good", *_unusable()])
def test_asking_with_another_version_gives_another_secret_in_every_case(name: str) -> None:
    good = bound.encrypted(pki.key("rsa").public_key())
    operation = bound.master_secret(({"good": good} | _unusable())[name])
    other = replace(operation, client_version=0x0302)
    assert holder("rsa").perform_now(operation) != holder("rsa").perform_now(other)


def _master(pre_master_secret: bytes) -> bytes:
    seed = bound.CLIENT_RANDOM + schedule.bound_random(bound.SEED)
    return schedule.master_secret12(SHA256, pre_master_secret, seed, False)


def test_secret_of_the_rejection_cannot_be_had_by_asking() -> None:
    signed: list[tuple[str, bytes]] = []

    class Watched(FileKey):
        def sign(self, scheme: str, content: bytes, *, prehashed: bool = False) -> bytes:
            signed.append((scheme, content))
            return super().sign(scheme, content, prehashed=prehashed)

    watched = LocalHolder(Watched(pki.key("rsa")))
    watched.perform_now(bound.master_secret(bytes(256)))
    ((scheme, content),) = signed
    assert scheme == IKE_RSA_HASH
    for prehashed in (True, False):
        with pytest.raises(Refused):
            watched.perform_now(Sign(scheme, content, prehashed))
        with pytest.raises(Refused):
            watched.perform_now(Sign("RSA_PKCS1_MD5_SHA1", content, prehashed))


# --- anything ---------------------------------------------------------------------------------------------

_BYTES = st.binary(max_size=300)
_SCHEMES = st.sampled_from([*SCHEMES, "RSA_PKCS1_MD5_SHA1", "ECDSA_SHA1", "IKE_RSA_PKCS1_HASH", "x"])


@given(
    st.one_of(
        st.builds(Sign, _SCHEMES, _BYTES, st.booleans()),
        st.builds(Decrypt, _BYTES),
        st.builds(CertificateVerify, _SCHEMES, st.sampled_from(Role), _BYTES),
        st.builds(ServerKeyExchange, _SCHEMES, st.binary(min_size=32, max_size=32), _BYTES, _BYTES),
        st.builds(ClientVerify, _SCHEMES, _BYTES),
        st.builds(MasterSecret, _BYTES, st.integers(0, 0xFFFF), _BYTES, _BYTES, _BYTES, messages=_BYTES),
    ),
    st.sampled_from(("rsa", "p256", "ed25519", "mldsa44")),
)
def test_no_operation_gets_anything_but_bytes_or_a_typed_error(operation: KeyOperation, kind: str) -> None:
    try:
        result = holder(kind).perform_now(operation)
    except LocumError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(result, bytes)
