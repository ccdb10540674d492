"""Edges that a real key server must not trust: wrong opcodes, wrong permissions, wrong certificates, wrong bytes.

What is asked here comes over mutual TLS to processes of its own; each fault leaves everybody else served.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.support import key_servers
from tests.support.bound_operations import client_verify, encrypted, master_secret, server_key_exchange
from tests.support.key_pairs import key_pair
from tests.support.key_server_client import PATIENCE, KeyServerClient
from tests.support.key_server_process import (
    KeyServerProcess,
    eventually,
    key_server,
    ski,
)
from tests.support.raw_signatures import verify_digest

from locum.keyless.frames import Frame, KeyReference, encode_frame
from locum.keyless.operations import CertificateVerify, Decrypt, Role, Sign
from locum.keyless.queries import (
    CertificateNamesQuery,
    CertificateQuery,
    KeysAnswer,
    KeysQuery,
    TicketsQuery,
    decode_answer,
)
from locum.keyless.registry import SIGNING, ErrorCode, Family, Opcode
from locum.keyless.requests import Ping, Request, Seal, Unseal, encode_request
from locum.keys.credential import EdgeCredential
from locum.keys.link_pki import LinkIssuer
from locum.keys.server_link import client_context
from locum.store import Allow, EdgeRole

KINDS = ("rsa2048", "p256", "p384", "ed25519", "ml-dsa-65")
FAMILIES = {"rsa2048": Family.RSA, "p256": Family.ECDSA, "p384": Family.ECDSA, "ed25519": Family.ED25519}
DIGEST = bytes(range(32))
SCHEME = "ECDSA_SECP256R1_SHA256"
SIGN = Sign(SCHEME, DIGEST)
VERIFY = CertificateVerify(SCHEME, Role.SERVER, DIGEST)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyServerProcess]:
    with key_server(tmp_path_factory.mktemp("keyserver"), KINDS, message_seconds=120) as process:
        yield process


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyServerProcess]:
    limits = {"message_seconds": 1, "handshake_seconds": 1, "max_handshakes": 8}
    with key_server(tmp_path_factory.mktemp("impatient"), **limits) as process:
        yield process


@pytest.fixture(scope="module")
def witness(server: KeyServerProcess) -> EdgeCredential:
    """An edge that does nothing wrong."""
    return server.enrol("witness")


@pytest.fixture(autouse=True)
def served(witness: EdgeCredential) -> Iterator[None]:
    """Whatever somebody else does, the witness is served all the while, on a connection that stays."""
    with KeyServerClient(witness) as client:
        assert client.is_alive()
        yield
        assert client.ask(VERIFY, ski("p256")).opcode == Opcode.RESPONSE


def code(answer: Frame) -> ErrorCode:
    assert answer.opcode == Opcode.ERROR
    return ErrorCode(answer.payload[0])


# --- opcodes and keys ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything(server: KeyServerProcess) -> EdgeCredential:
    """An edge that may do whatever there is."""
    return server.enrol("everything")


def payload_for(opcode: int) -> bytes:
    """What an opcode takes: a digest of its length, or a whole message, or a ciphertext."""
    if opcode == Opcode.RSA_DECRYPT:
        return encrypted(rsa_public())
    signing = SIGNING.get(opcode)
    return bytes(range(signing.digest_length or 50)) if signing else b"payload"


def rsa_public() -> rsa.RSAPublicKey:
    public = key_pair("rsa2048").key.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    return public


@pytest.mark.parametrize("kind", KINDS)
def test_of_all_opcodes_a_key_performs_those_of_its_family(everything: EdgeCredential, kind: str) -> None:
    reference = KeyReference(ski=ski(kind))
    with KeyServerClient(everything) as client:
        for opcode in range(1, 256):
            frame = Frame(opcode, opcode, payload_for(opcode), ski=reference.ski)
            client.send(encode_frame(frame))
        for opcode, answer in zip(range(1, 256), client.receive(255), strict=True):
            assert answer.id == opcode
            check_answer(kind, opcode, answer)


def check_answer(kind: str, opcode: int, answer: Frame) -> None:
    signing = SIGNING.get(opcode)
    if signing is not None and signing.family is FAMILIES.get(kind) and not signing.legacy:
        assert answer.opcode == Opcode.RESPONSE, answer.extra
        verify_digest(key_pair(kind).key.public_key(), opcode, answer.payload, payload_for(opcode))
    elif signing is not None or (opcode == Opcode.RSA_DECRYPT and kind != "rsa2048"):
        assert code(answer) is ErrorCode.CRYPTO
    elif opcode in (Opcode.RSA_DECRYPT, Opcode.SEAL):
        assert answer.opcode == Opcode.RESPONSE
    elif opcode == Opcode.PING:
        assert (answer.opcode, answer.payload) == (Opcode.PONG, b"payload")
    elif opcode == Opcode.UNSEAL:
        assert code(answer) in (ErrorCode.FORMAT, ErrorCode.CRYPTO)
    elif opcode in (Opcode.RESPONSE, Opcode.PONG, Opcode.ERROR):
        assert code(answer) is ErrorCode.UNEXPECTED_OPCODE
    else:
        assert code(answer) is ErrorCode.BAD_OPCODE


@pytest.mark.parametrize("kind", KINDS)
def test_digests_of_every_wrong_length_are_refused(everything: EdgeCredential, kind: str) -> None:
    with KeyServerClient(everything) as client:
        for opcode, signing in SIGNING.items():
            for length in {0, 1, signing.digest_length - 1, signing.digest_length + 1, 256, 60_000}:
                if not signing.digest_length or length < 0:
                    continue
                client.send(encode_frame(Frame(3, opcode, bytes(length), ski=ski(kind))))
                (answer,) = client.receive(1)
                assert code(answer) is ErrorCode.FORMAT, (opcode, length)


@pytest.mark.parametrize("length", [0, 1, 255, 257, 1024, 1025, 60_000])
def test_ciphertexts_of_another_length_than_the_modulus_are_refused(
    everything: EdgeCredential, length: int
) -> None:
    with KeyServerClient(everything) as client:
        assert client.ask(Decrypt(b"\1" * length), ski("rsa2048")).opcode == Opcode.ERROR


# --- permissions --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A request, the key that it is for, and what an edge must be allowed for it."""

    request: Request
    kind: str = ""
    raw: bool = False
    bound: bool = False
    server: bool = False
    client: bool = False
    certificates: bool = False


RSA_SCHEME = "RSA_PSS_RSAE_SHA256"
ASKED = {
    "sign-p256": Asked(SIGN, "p256", raw=True),
    "sign-rsa": Asked(Sign("RSA_PKCS1_SHA256", DIGEST), "rsa2048", raw=True),
    "sign-ed25519": Asked(Sign("ED25519", b"message", False), "ed25519", raw=True),
    "sign-ml-dsa": Asked(Sign("MLDSA65", b"message", False), "ml-dsa-65", raw=True),
    "decrypt": Asked(Decrypt(encrypted(rsa_public())), "rsa2048", raw=True),
    "server-verify": Asked(VERIFY, "p256", bound=True, server=True),
    "client-verify-13": Asked(replace(VERIFY, role=Role.CLIENT), "p256", bound=True, client=True),
    "server-key-exchange": Asked(server_key_exchange(RSA_SCHEME), "rsa2048", bound=True, server=True),
    "client-verify-12": Asked(client_verify(RSA_SCHEME), "rsa2048", bound=True, client=True),
    "master-secret": Asked(master_secret(encrypted(rsa_public())), "rsa2048", bound=True, server=True),
    "tickets": Asked(TicketsQuery(), server=True),
    "certificate-names": Asked(CertificateNamesQuery(), certificates=True),
    "certificate": Asked(CertificateQuery(server_name="www.example.com"), certificates=True),
}
PERMISSIONS = [
    (Allow.BOTH, EdgeRole.BOTH, True),
    (Allow.RAW, EdgeRole.BOTH, True),
    (Allow.BOUND, EdgeRole.SERVER, False),
    (Allow.BOUND, EdgeRole.CLIENT, False),
]


@pytest.mark.parametrize(("allow", "roles", "certificates"), PERMISSIONS)
@pytest.mark.parametrize("keys", [("*",), ("p256",), ()], ids=["all", "p256", "none"])
def test_an_edge_gets_what_it_is_allowed_and_nothing_else(
    server: KeyServerProcess, allow: Allow, roles: EdgeRole, certificates: bool, keys: tuple[str, ...]
) -> None:
    name = f"edge-{allow}-{roles}-{len(keys)}-{'-'.join(keys).replace('*', 'all')}".rstrip("-")
    credential = server.enrol(name, keys=keys, allow=allow, roles=roles, certificates=certificates)
    with KeyServerClient(credential) as client:
        for what, asked in ASKED.items():
            answer = client.ask(asked.request, ski(asked.kind) if asked.kind else b"")
            may_use = not asked.kind or "*" in keys or asked.kind in keys
            allowed = (
                (allow.raw or not asked.raw)
                and (allow.bound or not asked.bound)
                and (roles.server or not asked.server)
                and (roles.client or not asked.client)
                and (certificates or not asked.certificates)
            )
            if not may_use:
                assert code(answer) is ErrorCode.KEY_NOT_FOUND, what
            elif what == "certificate" and allowed:
                assert code(answer) is ErrorCode.CERTIFICATE_NOT_FOUND
            elif allowed:
                assert answer.opcode == Opcode.RESPONSE, (what, answer.extra)
            else:
                assert code(answer) is ErrorCode.CRYPTO, what


def test_permissions_change_under_open_connections(server: KeyServerProcess) -> None:
    credential = server.enrol("changing")
    with KeyServerClient(credential) as client:
        assert client.ask(SIGN, ski("p256")).opcode == Opcode.RESPONSE
        server.permit("changing", allow=Allow.BOUND)
        eventually(lambda: client.ask(SIGN, ski("p256")).opcode == Opcode.ERROR, "raw operations end")
        assert client.ask(VERIFY, ski("p256")).opcode == Opcode.RESPONSE
        server.permit("changing", keys=("rsa2048",), allow=Allow.BOTH)
        eventually(lambda: client.ask(VERIFY, ski("p256")).opcode == Opcode.ERROR, "the key is out of reach")
        assert offered(client) == {"rsa2048"}


def offered(client: KeyServerClient) -> set[str]:
    answer = decode_answer(KeysQuery(), client.ask(KeysQuery()).payload)
    assert isinstance(answer, KeysAnswer)
    return {key.name for key in answer.keys}


def test_sealed_content_is_opened_for_its_edge_alone(
    server: KeyServerProcess, everything: EdgeCredential, witness: EdgeCredential
) -> None:
    with KeyServerClient(everything) as one, KeyServerClient(witness) as other:
        sealed = one.ask(Seal(b"session state")).payload
        assert one.ask(Unseal(sealed)).payload == b"session state"
        assert code(other.ask(Unseal(sealed))) is ErrorCode.CRYPTO
        for position in range(0, len(sealed), 7):
            changed = sealed[:position] + bytes([sealed[position] ^ 1]) + sealed[position + 1 :]
            assert one.ask(Unseal(changed)).opcode == Opcode.ERROR


def test_an_edge_that_asks_more_often_than_it_may_is_put_off_and_others_are_not(
    server: KeyServerProcess, witness: EdgeCredential
) -> None:
    credential = server.enrol("frequent", rate=20.0)
    with KeyServerClient(credential) as first, KeyServerClient(credential) as second:
        answers = []
        for client in (first, second):
            client.send(b"".join(encode_request(number, VERIFY, key("p256")) for number in range(200)))
        with KeyServerClient(witness) as other:
            for _ in range(100):
                assert other.ask(VERIFY, ski("p256")).opcode == Opcode.RESPONSE
        for client in (first, second):
            answers += client.receive(200)
        performed = [answer for answer in answers if answer.opcode == Opcode.RESPONSE]
        # Twenty at once, and then as many as come in the time that the machine takes for all this.
        assert 20 <= len(performed) < 300
        refused = next(answer for answer in answers if answer.opcode == Opcode.ERROR)
        # Not a refusal: another key server may do it.
        assert code(refused) is ErrorCode.INTERNAL
        assert b"more often than it may" in refused.extra
        eventually(lambda: first.ask(VERIFY, ski("p256")).opcode == Opcode.RESPONSE, "it may again after a while")


def key(kind: str) -> KeyReference:
    return KeyReference(ski=ski(kind))


# --- certificates -------------------------------------------------------------------------------------------


def test_without_a_certificate_or_with_one_of_another_authority_nobody_is_let_in(
    server: KeyServerProcess, witness: EdgeCredential, tmp_path: Path
) -> None:
    stranger = key_servers.credential(tmp_path / "stranger", witness.servers)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        for directory in (stranger.directory, None):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = context.maximum_version = version
            context.load_verify_locations(cadata=witness.ca.decode())
            if directory is not None:
                context.load_cert_chain(directory / "certificate.pem", directory / "key.pem")
            assert gets_nowhere(witness, context)


def gets_nowhere(credential: EdgeCredential, context: ssl.SSLContext | None = None) -> bool:
    try:
        with KeyServerClient(credential, context=context) as client:
            return not client.is_alive()
    except OSError:
        return True


def test_a_certificate_of_the_right_authority_that_nobody_was_given_is_not_enough(
    server: KeyServerProcess,
) -> None:
    assert gets_nowhere(server.credential("never-enrolled", server.issue("never-enrolled")))


def test_a_certificate_that_has_expired_is_refused(server: KeyServerProcess) -> None:
    issued = server.issue("expired", now=time.time() - 2 * 86_400, lifetime=86_400)
    credential = server.enrol("expired", issued=issued)
    assert gets_nowhere(credential)


def test_a_certificate_that_expires_ends_the_connections_that_were_made_with_it(server: KeyServerProcess) -> None:
    credential = server.enrol("short", not_after=time.time() + 2.0)
    with KeyServerClient(credential) as client:
        assert client.ask(VERIFY, ski("p256")).opcode == Opcode.RESPONSE
        with pytest.raises(OSError):
            eventually(lambda: client.ask(VERIFY, ski("p256")).opcode != Opcode.RESPONSE, "its time is over")
        assert client.is_closed()
    assert gets_nowhere(credential)


def test_a_key_servers_certificate_is_none_for_an_edge(server: KeyServerProcess) -> None:
    issuer = LinkIssuer(server.authority.certificate, server.authority.private_key)
    issued = issuer.server(["127.0.0.1"], now=time.time())
    assert gets_nowhere(server.enrol("server-like", issued=issued))


def test_a_revoked_edge_is_cut_off_with_its_requests_in_flight(server: KeyServerProcess) -> None:
    credential = server.enrol("revoked", allow=Allow.BOTH)
    with KeyServerClient(credential) as idle, KeyServerClient(credential) as busy:
        assert idle.is_alive() and busy.is_alive()
        busy.exchange(encode_request(1, VERIFY, key("p256")) * 50, 50)
        busy.press(encode_request(1, VERIFY, key("p256")) * 50_000)
        server.revoke("revoked")
        assert idle.is_closed() and busy.is_closed()
    assert gets_nowhere(credential)
    eventually(lambda: server.audited("revoked"), "the audit log tells of it")


def test_a_revoked_edge_that_takes_no_answers_is_cut_off_as_well(server: KeyServerProcess) -> None:
    credential = server.enrol("deaf")
    with KeyServerClient(credential) as client:
        assert client.press(encode_request(1, Ping(b"x" * 60_000)) * 500), "the server waits for somebody to read"
        server.revoke("deaf")
        # Nothing is read here: the end of the connection shows in what cannot be sent any more.
        eventually(lambda: hung_up(client.socket), "the connection is reset")


def hung_up(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return any(events & (select.POLLRDHUP | select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


# --- bytes --------------------------------------------------------------------------------------------------


GARBAGE = {
    "zeros": bytes(5000),
    "http": b"GET / HTTP/1.1\r\nHost: keyserver\r\n\r\n" * 50,
    "version-2": b"\x02" + encode_request(1, Ping(b"x"))[1:],
    "random": random.Random(1).randbytes(200_000),
    "tls-in-tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_gets_one_error_and_the_end(everything: EdgeCredential, what: str) -> None:
    with KeyServerClient(everything) as client:
        with contextlib.suppress(OSError):
            client.send(GARBAGE[what])
        (answer,) = client.receive(1)
        assert code(answer) is ErrorCode.VERSION_MISMATCH
        assert client.is_closed()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x11",
        b"\x11\x00\x01",
        b"\x11\x00\x02\x05\x05",
        b"\x11\xff\xff\x05",
        b"\x11\x00\x01\x05\x11\x00\x01\x35",
        b"\x12\xff\xff" + b"x" * 65_532,
        b"\xee\x00\x00" * 21_845,
        b"\x11\x00\x01\x05\x04\x00\x13" + b"s" * 19,
        b"\x11\x00\x01\x05\x02\x01\x00" + b"n" * 256,
        b"\x11\x00\x01\x05\x02\x00\x02\xff\xfe",
        b"\x11\x00\x01\x24\x13\x00\x40" + b"f" * 64,
        b"\x11\x00\x01\x24\x13\x00\x0alocum/keys\x12\x00\x03\xbf\xff\xff",
    ],
    ids=lambda body: f"{len(body)}-{body[:4].hex() or 'empty'}",
)
def test_a_body_that_is_none_gets_an_error_and_the_connection_goes_on(
    everything: EdgeCredential, body: bytes
) -> None:
    with KeyServerClient(everything) as client:
        client.send(b"\x01\x00" + len(body).to_bytes(2, "big") + b"\0\0\0\x05" + body)
        (answer,) = client.receive(1)
        assert answer.id == 5
        assert answer.opcode == Opcode.ERROR
        assert client.ask(VERIFY, ski("p256")).opcode == Opcode.RESPONSE


def test_garbage_in_place_of_tls_is_dropped(server: KeyServerProcess) -> None:
    place = server.address
    for data in (*GARBAGE.values(), encode_request(1, SIGN, key("p256"))):
        with (
            socket.create_connection((place.host, place.port), timeout=PATIENCE) as plain,
            contextlib.suppress(ConnectionError),
        ):
            plain.sendall(data)
            while plain.recv(65_536):
                pass


# --- slowly -------------------------------------------------------------------------------------------------


def drip(sock: socket.socket, data: bytes, *, seconds: float) -> bool:
    """Send a byte now and then; true when the other end has had enough before the last one."""
    sock.settimeout(PATIENCE)
    for byte in data:
        try:
            sock.sendall(bytes([byte]))
        except OSError:
            return True
        if select.select([sock], [], [], seconds)[0]:
            return closed(sock)
    return False


def closed(sock: socket.socket) -> bool:
    try:
        while sock.recv(65_536):
            pass
    except OSError:
        return True
    return True


def test_a_message_a_byte_at_a_time_is_answered_or_given_up_and_costs_nobody_else(
    impatient: KeyServerProcess,
) -> None:
    credential = impatient.enrol("drip")
    with KeyServerClient(credential) as patient, KeyServerClient(credential) as slow:
        for byte in encode_request(1, VERIFY, key("p256")):
            patient.send(bytes([byte]))
        assert patient.receive(1)[0].opcode == Opcode.RESPONSE
        # A byte comes every so often, and yet the message does not end: that is no reason to wait for it.
        assert drip(slow.socket, encode_request(1, Ping(b"x" * 1000)), seconds=0.05)
        assert patient.is_alive()


def test_a_handshake_a_byte_at_a_time_is_given_up(impatient: KeyServerProcess) -> None:
    credential = impatient.enrol("slow")
    hello = client_hello(credential)
    place = impatient.address
    with contextlib.ExitStack() as stack:
        # Twice as many as may shake hands at a time: whoever comes after them is served all the same.
        slow = [
            stack.enter_context(socket.create_connection((place.host, place.port), timeout=PATIENCE))
            for _ in range(16)
        ]
        for each in slow:
            each.sendall(hello[:40])
        with KeyServerClient(credential) as client:
            assert client.is_alive()
    with socket.create_connection((place.host, place.port), timeout=PATIENCE) as each:
        assert drip(each, hello, seconds=0.02)


def client_hello(credential: EdgeCredential) -> bytes:
    """The first flight of a client of this edge."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context(credential).wrap_bio(incoming, outgoing, server_hostname=credential.server_name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_nothing_in_all_this_was_unexpected(server: KeyServerProcess) -> None:
    log = server.node.logged()
    assert "unexpectedly" not in log
    assert "Traceback" not in log
