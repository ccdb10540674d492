"""What programs hand over to be signed is recognized as TLS content, or is not, and the key agrees."""

import asyncio
import hashlib
import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.support.p11_keys import KEYS, offered, verify_ec, verify_pss

from locum.crypto.asymmetric.signatures import concatenated
from locum.edge.p11.errands import Errand, Task
from locum.edge.p11.tls_content import bound_signature
from locum.edge.p11.worker import _Key
from locum.errors import Refused
from locum.keyless.operations import CertificateVerify, ClientVerify, Role, ServerKeyExchange, Sign
from locum.keys.file import FileKey
from locum.keys.performing import LocalHolder
from locum.tls.schedule import certificate_verify_content

EC_SCHEME, PSS_SCHEME = "ECDSA_SECP256R1_SHA256", "RSA_PSS_RSAE_SHA256"
HASH = hashlib.sha256(b"transcript").digest()
CLIENT_RANDOM, SERVER_RANDOM = os.urandom(32), os.urandom(32)
POINT = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
)
ECDH_PARAMETERS = b"\x03\x00\x17" + bytes((len(POINT),)) + POINT
DH_PARAMETERS = b"\x00\x02pp\x00\x01g\x00\x02yy"


@pytest.mark.parametrize("role", [Role.SERVER, Role.CLIENT])
def test_a_certificate_verify_is_recognized(role: Role) -> None:
    content = certificate_verify_content(role.name.lower().encode(), HASH)
    assert bound_signature(EC_SCHEME, content) == CertificateVerify(EC_SCHEME, role, HASH)


@pytest.mark.parametrize("parameters", [ECDH_PARAMETERS, DH_PARAMETERS], ids=["ECDH", "DH"])
def test_a_server_key_exchange_is_recognized(parameters: bytes) -> None:
    content = CLIENT_RANDOM + SERVER_RANDOM + parameters
    expected = ServerKeyExchange(EC_SCHEME, CLIENT_RANDOM, SERVER_RANDOM, parameters)
    assert bound_signature(EC_SCHEME, content) == expected


def test_the_messages_of_a_client_are_recognized() -> None:
    messages = b"\x01\x00\x00\x02\x03\x03" + bytes(100)
    assert bound_signature(EC_SCHEME, messages) == ClientVerify(EC_SCHEME, messages)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a contract",
        b"TLS 1.3, server CertificateVerify\0" + HASH,
        b" " * 64 + b"TLS 1.3, somebody else's CertificateVerify\0" + HASH,
        bytes(64) + ECDH_PARAMETERS + b"\0",
        bytes(64) + ECDH_PARAMETERS[:-1],
        bytes(64),
    ],
)
def test_anything_else_is_not(content: bytes) -> None:
    assert bound_signature(EC_SCHEME, content) is None


def errand(task: Task, data: bytes, scheme: str = EC_SCHEME) -> Errand:
    return Errand(number=1, task=task, ski=bytes(20), scheme=scheme, data=data)


def key(name: str, *, raw: bool, bound: bool) -> _Key:
    return _Key(offered(name, raw=raw, bound=bound), LocalHolder(FileKey(KEYS[name])))


def perform(used: _Key, wanted: Errand) -> bytes:
    return asyncio.run(used.holder.perform(used.operation(wanted)))


def test_bound_signatures_are_good_signatures_over_the_content() -> None:
    for content in (
        certificate_verify_content(b"server", HASH),
        CLIENT_RANDOM + SERVER_RANDOM + ECDH_PARAMETERS,
    ):
        wanted = errand(Task.SIGN_CONTENT, content)
        verify_ec(concatenated(perform(key("ec", raw=False, bound=True), wanted), 32), content)
        wanted = errand(Task.SIGN_CONTENT, content, PSS_SCHEME)
        verify_pss(perform(key("rsa", raw=False, bound=True), wanted), content)


def test_raw_signatures_over_any_content_need_the_permission() -> None:
    wanted = errand(Task.SIGN_CONTENT, b"a contract")
    verify_ec(concatenated(perform(key("ec", raw=True, bound=True), wanted), 32), b"a contract")
    with pytest.raises(Refused):
        key("ec", raw=False, bound=True).operation(wanted)


def test_tls_content_is_signed_raw_where_only_that_is_permitted() -> None:
    content = certificate_verify_content(b"server", HASH)
    operation = key("ec", raw=True, bound=False).operation(errand(Task.SIGN_CONTENT, content))
    assert operation == Sign(EC_SCHEME, hashlib.sha256(content).digest())


@pytest.mark.parametrize("task", [Task.SIGN_DIGEST, Task.DECRYPT])
def test_digests_and_ciphertexts_need_the_permission(task: Task) -> None:
    with pytest.raises(Refused, match="raw operations"):
        key("rsa", raw=False, bound=True).operation(errand(task, HASH, PSS_SCHEME))


@pytest.mark.parametrize(
    "content",
    [
        certificate_verify_content(b"server", b"any text instead of a hash"),
        CLIENT_RANDOM + SERVER_RANDOM + b"\x03\x00\x17\x05short",
        CLIENT_RANDOM + SERVER_RANDOM + DH_PARAMETERS,
        b"\x01 a contract that begins like a ClientHello",
    ],
    ids=["CertificateVerify", "ECDH", "DH", "ClientHello"],
)
def test_content_that_only_looks_like_tls_is_refused_by_the_key(content: bytes) -> None:
    with pytest.raises(Refused):
        perform(key("ec", raw=False, bound=True), errand(Task.SIGN_CONTENT, content))
