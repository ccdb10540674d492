"""An edge without raw permission, whatever it sends: what it gets is of a TLS handshake, or nothing (X3).

Every signature that comes out is verified against what it may cover. What that is, is told here by the letter of
RFC 8446 section 4.4.3, RFC 5246 sections 7.4.3 and 7.4.8, RFC 8422 section 5.4 and RFC 7919, not by the code under
test.
"""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.bound_operations import (
    SEED,
    client_verify,
    curve_parameters,
    encrypted,
    exchange_messages,
    extended_master_secret,
    finite_field_parameters,
    master_secret,
    server_key_exchange,
)
from tests.support.key_pairs import key_pair
from tests.support.key_service import Bench, answered, edge, held

from locum.crypto.asymmetric.finite_field import ffdhe
from locum.crypto.asymmetric.signatures import PublicKey, schemes_for, verify
from locum.errors import LocumError
from locum.keyless.bound import encode_function
from locum.keyless.frames import Frame, KeyReference, encode_frame
from locum.keyless.operations import CertificateVerify, Decrypt, KeyOperation, MasterSecret, Role, Sign
from locum.keyless.registry import SIGNING, Function, Opcode
from locum.keyless.requests import encode_request
from locum.keys.file import FileKey
from locum.keyserver.keyring import held_here
from locum.store.records import Allow, EdgeRole
from locum.tls.schedule import bound_random

SETTINGS = settings(max_examples=150)
KINDS = ("rsa2048", "p256", "p384", "ed25519", "ml-dsa-65")


class Witness(FileKey):
    """Signs as its key does, and remembers every content that it has signed, and how."""

    def __init__(self, kind: str) -> None:
        super().__init__(key_pair(kind).key)
        self.signed: list[tuple[str, bytes, bool]] = []
        self.decrypted: list[bytes] = []

    def sign(self, scheme: str, content: bytes, *, prehashed: bool = False) -> bytes:
        self.signed.append((scheme, content, prehashed))
        return super().sign(scheme, content, prehashed=prehashed)

    def signer(self, scheme: str, *, prehashed: bool = False) -> Any:
        plain = super().signer(scheme, prehashed=prehashed)

        def sign(content: bytes) -> bytes:
            self.signed.append((scheme, content, prehashed))
            signature: bytes = plain(content)
            return signature

        return sign

    def decrypt_pkcs1(self, ciphertext: bytes) -> bytes:
        message = super().decrypt_pkcs1(ciphertext)
        self.decrypted.append(message)
        return message


WITNESSES = {kind: Witness(kind) for kind in KINDS}
KEYS = {kind: held_here(kind, witness) for kind, witness in WITNESSES.items()}
PUBLIC = {kind: PublicKey.of(key_pair(kind).key.public_key()) for kind in KINDS}
RSA = key_pair("rsa2048").key.public_key()
assert isinstance(RSA, rsa.RSAPublicKey)
#: The label under which the key server makes secrets of its own, for implicit rejection: it does not come out.
INTERNAL = b"locum: what is to be seen in place of messages that were none"


# --- what TLS signs, by the letter --------------------------------------------------------------------------

#: Named groups and the lengths of their points (RFC 8422 section 5.4.1: uncompressed).
POINTS = {0x0017: 65, 0x0018: 97, 0x001D: 32, 0x001E: 56}
PRIMES = {ffdhe(bits).prime.to_bytes(bits // 8, "big") for bits in (2048, 3072, 4096, 6144, 8192)}


def is_tls13(content: bytes) -> bool:
    """RFC 8446 section 4.4.3."""
    for who in (b"server", b"client"):
        prefix = b"\x20" * 64 + b"TLS 1.3, " + who + b" CertificateVerify\0"
        if content.startswith(prefix) and len(content) - len(prefix) in (32, 48):
            return True
    return False


def is_server_key_exchange(content: bytes) -> bool:
    """Both randoms, and ServerECDHParams with a named curve or ServerDHParams in a group of RFC 7919."""
    parameters = content[64:]
    if parameters[:1] == b"\x03":
        length = POINTS.get(int.from_bytes(parameters[1:3], "big"))
        return length is not None and parameters[3] == length == len(parameters) - 4
    numbers, rest = [], parameters
    while len(rest) >= 2:
        length = int.from_bytes(rest[:2], "big")
        numbers.append(rest[2 : 2 + length])
        rest = rest[2 + length :]
    return not rest and len(numbers) == 3 and numbers[0] in PRIMES and numbers[1] == b"\x02"


def is_handshake(content: bytes) -> bool:
    """Whole handshake messages of TLS 1.2 from a ClientHello to a ClientKeyExchange."""
    types, rest = [], content
    while len(rest) >= 4:
        types.append(rest[0])
        length = int.from_bytes(rest[1:4], "big")
        if len(rest) < 4 + length:
            return False
        rest = rest[4 + length :]
    # CertificateRequest and the client's Certificate are there: else there is nothing for a client to sign.
    return not rest and types[:3] == [1, 2, 11] and types[-4:] == [13, 14, 11, 16]


def is_of_tls(content: bytes) -> bool:
    """True for what a key without raw permission may sign."""
    return is_tls13(content) or is_server_key_exchange(content) or is_handshake(content)


def test_the_letter_tells_what_it_should() -> None:
    assert is_handshake(client_verify("RSA_PKCS1_SHA256").messages)
    assert is_server_key_exchange(bytes(64) + curve_parameters())
    assert is_server_key_exchange(bytes(64) + finite_field_parameters(2048))
    assert not is_server_key_exchange(bytes(64) + finite_field_parameters(2048, prime=ffdhe(2048).prime - 2))
    for content in (
        b"",
        b"a document",
        bytes(64),
        b"\x20" * 64 + b"TLS 1.3, server CertificateVerify\0" + bytes(31),
    ):
        assert not is_of_tls(content)


# --- what is sent -------------------------------------------------------------------------------------------

FUNCTIONS = sorted(value for name, value in vars(Function).items() if name.isupper())
REFERENCES = st.sampled_from(KINDS).map(lambda kind: KeyReference(ski=KEYS[kind].ski))
#: Contents that somebody would like to have signed, and things near those that are.
WANTED = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([32, 48, 64]).flatmap(lambda length: st.binary(min_size=length, max_size=length)),
    st.sampled_from(
        [
            b"\x20" * 64 + b"TLS 1.3, server CertificateVerify\0" + bytes(32),
            bytes(64) + curve_parameters(),
            bytes.fromhex("3031300d060960864801650304020105000420") + bytes(32),
            client_verify("RSA_PKCS1_SHA256").messages,
            INTERNAL,
        ]
    ),
)
ARBITRARY = st.builds(
    lambda opcode, payload, reference, function, name: encode_frame(
        Frame(7, opcode, payload, reference.ski, b"", name, function)
    ),
    st.one_of(st.sampled_from(sorted(SIGNING)), st.integers(0, 255)),
    WANTED,
    REFERENCES,
    st.one_of(st.just(b""), st.sampled_from(FUNCTIONS), st.binary(max_size=20)),
    st.sampled_from([b"", b"www.example.com"]),
)
SCHEMES = st.sampled_from(
    sorted({name for key in PUBLIC.values() for name in schemes_for(key.kind, strict=False)})
)
RANDOM = st.one_of(st.just(b"\x20" * 32), st.binary(min_size=32, max_size=32))


def _cut(data: bytes, position: int, inserted: bytes, removed: int) -> bytes:
    position %= len(data) + 1
    return data[:position] + inserted + data[position + removed :]


def near(data: bytes) -> st.SearchStrategy[bytes]:
    """These bytes, or with a few of them changed, gone or added."""
    return st.one_of(
        st.just(data),
        st.builds(_cut, st.just(data), st.integers(0, len(data)), st.binary(max_size=4), st.integers(0, 4)),
    )


PARAMETERS = st.one_of(
    near(curve_parameters()),
    near(finite_field_parameters(2048)),
    near(b"\x03\x00\x1d\x20" + bytes(32)),
    st.binary(max_size=300),
)
VERIFY = client_verify("RSA_PKCS1_SHA256")
CIPHERTEXT = encrypted(RSA)
BOUND = st.one_of(
    st.builds(CertificateVerify, SCHEMES, st.sampled_from(Role), st.one_of(RANDOM, st.binary(max_size=64))),
    st.builds(
        lambda scheme, one, other, parameters: server_key_exchange(
            scheme, client_random=one, server_random=other, parameters=parameters
        ),
        SCHEMES,
        RANDOM,
        RANDOM,
        PARAMETERS,
    ),
    st.builds(
        lambda scheme, messages: replace(VERIFY, scheme=scheme, messages=messages), SCHEMES, near(VERIFY.messages)
    ),
)
SECRETS = st.builds(
    lambda ciphertext, seed, server_random, version, extended: replace(
        extended_master_secret(CIPHERTEXT, exchange_messages(CIPHERTEXT))
        if extended
        else master_secret(CIPHERTEXT),
        ciphertext=ciphertext,
        random_seed=seed,
        client_version=version,
        **({} if server_random is None else {"server_random": server_random}),
    ),
    st.one_of(st.just(CIPHERTEXT), near(CIPHERTEXT), st.binary(min_size=256, max_size=256)),
    st.one_of(st.just(SEED), RANDOM),
    st.one_of(st.none(), RANDOM),
    st.sampled_from([0x0303, 0x0301, 0xFFFF]),
    st.booleans(),
)


def got(data: bytes, roles: EdgeRole = EdgeRole.BOTH) -> list[Frame]:
    """The answers of a key server to an edge that may ask for bound operations only."""
    for witness in WITNESSES.values():
        witness.signed.clear()
        witness.decrypted.clear()
    connection = Bench(KEYS.values(), [edge(allow=Allow.BOUND, roles=roles)]).connection()
    connection.receive(data)
    return answered(connection.turn(only_short=False))


def nothing_but_tls(answers: list[Frame]) -> None:
    """Every content that a key has signed is of TLS, and no message that it has decrypted came out."""
    for kind, witness in WITNESSES.items():
        signed = [
            (scheme, content, prehashed) for scheme, content, prehashed in witness.signed if content != INTERNAL
        ]
        for scheme, content, prehashed in signed:
            assert not prehashed
            assert is_of_tls(content), content
            assert any(verifies(kind, scheme, answer.payload, content) for answer in answers)
        for message in filter(None, witness.decrypted):
            assert not any(hmac.compare_digest(message, answer.payload) for answer in answers)
            assert len(message) < 16 or not any(message in answer.payload for answer in answers)


def verifies(kind: str, scheme: str, signature: bytes, content: bytes) -> bool:
    try:
        verify(scheme, certified(kind, scheme), signature, content, strict=False)
    except LocumError:
        return False
    return True


def certified(kind: str, scheme: str) -> PublicKey:
    """The key, under the certificate that goes with the scheme."""
    return PublicKey.of(key_pair(kind).key.public_key(), pss_only="PSS_PSS" in scheme)


# --- the properties -----------------------------------------------------------------------------------------


@SETTINGS
@given(st.lists(ARBITRARY, min_size=1, max_size=8))
def test_no_opcode_and_no_payload_gets_anything_signed_that_is_not_of_tls(frames: list[bytes]) -> None:
    nothing_but_tls(got(b"".join(frames)))


@SETTINGS
@given(st.lists(st.tuples(BOUND, REFERENCES), min_size=1, max_size=4), st.sampled_from(EdgeRole))
def test_bound_operations_sign_contents_of_tls_for_the_roles_of_the_edge(
    asked: list[tuple[KeyOperation, KeyReference]], roles: EdgeRole
) -> None:
    answers = got(b"".join(encode_request(7, operation, reference) for operation, reference in asked), roles)
    assert len(answers) == len(asked)
    nothing_but_tls(answers)
    for witness in WITNESSES.values():
        for _, content, _ in witness.signed:
            is_client = is_handshake(content) or b"TLS 1.3, client" in content[:80]
            assert roles.client if is_client else roles.server


@SETTINGS
@given(WANTED, REFERENCES, SCHEMES)
def test_a_function_with_the_payload_of_another_signs_nothing_else(
    content: bytes, reference: KeyReference, scheme: str
) -> None:
    raw = Sign(scheme, content, prehashed=False)
    _, payload = encode_function(raw)
    frames = [
        encode_frame(Frame(7, Opcode.CUSTOM, payload, reference.ski, function=function)) for function in FUNCTIONS
    ]
    answers = got(b"".join(frames))
    assert len(answers) == len(frames)
    nothing_but_tls(answers)


@SETTINGS
@given(SECRETS)
def test_of_a_ciphertext_nothing_comes_out_but_the_master_secret_of_a_fresh_handshake(
    operation: MasterSecret,
) -> None:
    (answer,) = got(encode_request(7, operation, KeyReference(ski=KEYS["rsa2048"].ski)))
    nothing_but_tls([answer])
    if answer.opcode == Opcode.RESPONSE:
        assert len(answer.payload) == 48
        assert operation.server_random[:24] == bound_random(operation.random_seed)[:24]


@SETTINGS
@given(st.binary(min_size=1, max_size=200), st.sampled_from(["decrypt", "unseal", "function"]))
def test_a_message_for_the_key_cannot_be_read_through_the_server(message: bytes, way: str) -> None:
    assert isinstance(RSA, rsa.RSAPublicKey)
    ciphertext = RSA.encrypt(message, padding.PKCS1v15())
    reference = KeyReference(ski=KEYS["rsa2048"].ski)
    frames = {
        "decrypt": encode_request(7, Decrypt(ciphertext), reference),
        "unseal": encode_frame(Frame(7, Opcode.UNSEAL, ciphertext, reference.ski)),
        "function": encode_request(7, master_secret(ciphertext), reference),
    }
    (answer,) = got(frames[way])
    nothing_but_tls([answer])
    assert len(message) < 16 or message not in answer.payload


def test_a_key_whose_holder_keeps_no_watch_gives_the_same_answers() -> None:
    """The shortcuts that the witness's class would hide from are tried with a plain key too."""
    key = held("p256")
    connection = Bench([key], [edge(allow=Allow.BOUND)]).connection()
    operation = CertificateVerify("ECDSA_SECP256R1_SHA256", Role.SERVER, bytes(32))
    for number in range(3):
        transcript_hash = bytes([number]) * 32
        connection.receive(
            encode_request(7, replace(operation, transcript_hash=transcript_hash), KeyReference(ski=key.ski))
        )
        (answer,) = answered(connection.turn(only_short=False))
        content = b"\x20" * 64 + b"TLS 1.3, server CertificateVerify\0" + transcript_hash
        assert verifies("p256", operation.scheme, answer.payload, content)
