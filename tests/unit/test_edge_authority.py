"""What answers a TLS server's operations: turns, faults, keys of every place, and clients (C1, C2, C8, X5)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from tests.support import pki
from tests.support.edge import Keys, certificate

from locum.crypto.asymmetric.certificates import parse_chain, public_key_of
from locum.edge.authority import EdgeAuthority, EdgeSession
from locum.edge.certificates import CertificateIndex, Chain, Choice, Served
from locum.edge.clients import ClientVerifier
from locum.edge.key_ring import KeyRing
from locum.edge.raw import RawHolder
from locum.edge.ticket_keys import EPOCH_SECONDS, TicketKeyring
from locum.errors import ConfigurationError, DecodeError, LocumError, Misbehaved, Refused, Unavailable
from locum.handshake import Fault, PeerChain, Request, Verdict
from locum.keyless.errors import RequestFault
from locum.keyless.operations import Decrypt, KeyOperation, MasterSecret, Sign
from locum.keyless.queries import CertificateAnswer, OfferedKey, TicketsAnswer
from locum.keyless.registry import ErrorCode
from locum.keys.file import FileKey
from locum.keys.performing import LocalHolder
from locum.keys.port import KeyHolder
from locum.tls import schedule
from locum.tls.registry import CIPHER_SUITES, NamedGroup, ProtocolVersion, SignatureScheme
from locum.tls.server_configuration import DEFAULT_CIPHER_SUITES
from locum.tls.server_operations import (
    ClientAuthenticateRequest,
    ServerMasterSecretRequest,
    ServerParametersRequest,
    ServerParametersResponse,
    ServerShareRequest,
    ServerSignatureRequest,
    ServerSignatureResponse,
    ServerStartRequest,
)
from locum.tls.tickets import TicketState

NOW = pki.EPOCH
RANDOM = bytes(range(32))


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


class OneSite:
    """A `Chooser` with a single certificate, whose key is in this process."""

    def __init__(self, kind: str = "p256") -> None:
        issued = certificate(kind)
        served = Served(chain=Chain.read(issued.chain), holder=LocalHolder(FileKey(issued.key)))
        self.index = CertificateIndex([served], now=NOW)

    async def choose(self, request: ServerStartRequest) -> Choice:
        return self.index.choose(request)


def session(kind: str = "p256", clients: ClientVerifier | None = None) -> EdgeSession:
    return EdgeAuthority(OneSite(kind), clients=clients, now=lambda: NOW).open()


def start() -> ServerStartRequest:
    return ServerStartRequest(
        server_name="",
        versions=tuple(ProtocolVersion),
        cipher_suites=DEFAULT_CIPHER_SUITES,
        signature_schemes=tuple(SignatureScheme),
    )


def parameters(group: int = NamedGroup.X25519) -> ServerParametersRequest:
    scheme = SignatureScheme.ECDSA_SECP256R1_SHA256
    return ServerParametersRequest(group=group, scheme=scheme, client_random=RANDOM, server_random=RANDOM)


def key_exchange(body: bytes, suite: int = 0xC02B) -> ServerMasterSecretRequest:
    return ServerMasterSecretRequest(
        cipher_suite=suite,
        extended=False,
        client_random=RANDOM,
        server_random=RANDOM,
        key_exchange=body,
        messages=b"\x01\x00\x00\x02\x03\x03",
    )


SIGNATURE = ServerSignatureRequest(scheme=SignatureScheme.ECDSA_SECP256R1_SHA256, transcript_hash=bytes(32))


@pytest.mark.parametrize("request_", [SIGNATURE, parameters(), key_exchange(b"\x20" + bytes(32))])
def test_nothing_comes_before_the_start(request_: Request) -> None:
    with pytest.raises(Refused, match="turn"):
        run(session().perform([request_]))


def test_a_failure_is_the_end_of_the_session() -> None:
    async def main() -> None:
        edge = session()
        await edge.perform([start()])
        with pytest.raises(Misbehaved):
            await edge.perform([ServerShareRequest(group=NamedGroup.X25519, key_share=b"short")])
        with pytest.raises(Refused, match="over"):
            await edge.perform([SIGNATURE])
        await edge.close()

    run(main())


def test_several_requests_are_answered_in_order() -> None:
    share = ServerShareRequest(group=NamedGroup.X25519, key_share=b"\x09" + bytes(31))
    responses = run(session().perform([start(), share, SIGNATURE]))
    assert len(responses) == 3
    assert isinstance(responses[2], ServerSignatureResponse)


def test_what_is_no_operation_of_a_server_is_refused() -> None:
    with pytest.raises(Refused, match="not an operation"):
        run(session().perform([Request()]))


def test_an_ephemeral_key_serves_once() -> None:
    async def main() -> None:
        edge = session()
        responses = await edge.perform([start(), parameters()])
        assert isinstance(responses[1], ServerParametersResponse)
        point = responses[1].parameters[4:]
        body = bytes((len(point),)) + point
        assert (await edge.perform([key_exchange(body)]))[0].last
        with pytest.raises(Refused, match="turn"):
            await edge.perform([key_exchange(body)])

    run(main())


@pytest.mark.parametrize(
    ("body", "error"),
    [(b"", DecodeError), (b"\x00", Misbehaved), (b"\x20" + bytes(31), DecodeError), (b"\x01x", Misbehaved)],
    ids=["empty", "no point", "short", "no curve's"],
)
def test_a_malformed_client_key_exchange_is_the_clients_fault(body: bytes, error: type[LocumError]) -> None:
    async def main() -> None:
        edge = session()
        await edge.perform([start(), parameters()])
        with pytest.raises(error):
            await edge.perform([key_exchange(body)])

    run(main())


@pytest.mark.parametrize("group", [NamedGroup.FFDHE2048, NamedGroup.SECP256R1, NamedGroup.X448])
def test_parameters_are_made_in_every_kind_of_group(group: int) -> None:
    response = run(session().perform([start(), parameters(group)]))[1]
    if group == NamedGroup.FFDHE2048:
        assert len(response.parameters) == 2 + 256 + 2 + 1 + 2 + 256
    else:
        assert response.parameters[:3] == bytes((3,)) + group.to_bytes(2, "big")


# --- raw operations ---------------------------------------------------------------------------------------


class Recording:
    """A holder that only takes raw operations, and has them performed."""

    def __init__(self, key: FileKey) -> None:
        self._holder = LocalHolder(key)
        self.public_key = key.public_key
        self.asked: list[KeyOperation] = []

    async def perform(self, operation: KeyOperation) -> bytes:
        assert isinstance(operation, Sign | Decrypt)
        self.asked.append(operation)
        return await self._holder.perform(operation)


@pytest.mark.parametrize(
    ("secret", "same"),
    [(b"\x03\x03" + bytes(46), True), (b"\x03\x02" + bytes(46), False), (b"\x03\x03" + bytes(45), False)],
    ids=["right", "wrong version", "too short"],
)
def test_with_raw_decryption_a_wrong_secret_is_replaced_without_a_word(secret: bytes, same: bool) -> None:
    key = FileKey(certificate("rsa").key)
    ciphertext = certificate("rsa").key.public_key().encrypt(secret, PKCS1v15())
    operation = MasterSecret(
        ciphertext=ciphertext,
        client_version=0x0303,
        client_random=RANDOM,
        random_seed=RANDOM,
        server_random=schedule.bound_random(RANDOM),
        extended=False,
    )
    found = run(RawHolder(Recording(key)).perform(operation))
    assert len(found) == 48
    bound = run(LocalHolder(key).perform(operation))
    assert (found == bound) is same


def test_a_key_server_that_refuses_a_ciphertext_is_no_oracle() -> None:
    """With an error the handshake would end before the client's Finished, and so say what the padding was."""

    class Refusing(Recording):
        async def perform(self, operation: KeyOperation) -> bytes:
            raise Refused("bad padding")

    operation = MasterSecret(
        ciphertext=bytes(256),
        client_version=0x0303,
        client_random=RANDOM,
        random_seed=RANDOM,
        server_random=schedule.bound_random(RANDOM),
        extended=False,
    )
    assert len(run(RawHolder(Refusing(FileKey(certificate("rsa").key))).perform(operation))) == 48


def test_a_raw_holder_passes_raw_operations_on() -> None:
    recording = Recording(FileKey(certificate("p256").key))
    operation = Sign("ECDSA_SECP256R1_SHA256", bytes(32))
    assert run(RawHolder(recording).perform(operation))
    assert recording.asked == [operation]


# --- key rings and ticket keys ----------------------------------------------------------------------------


class Servers:
    """Key servers that offer what they are told to."""

    def __init__(self, *offered: OfferedKey) -> None:
        self.offered = offered
        self.error: LocumError | None = None
        self.root = bytes(32)

    async def keys(self) -> tuple[OfferedKey, ...]:
        if self.error is not None:
            raise self.error
        return self.offered

    def key(self, offered: OfferedKey) -> KeyHolder:
        return Recording(FileKey(certificate("p256").key))

    async def certificate(self, server_name: str) -> CertificateAnswer:
        raise NotImplementedError

    async def certificate_names(self) -> tuple[str, ...]:
        raise NotImplementedError

    async def tickets(self) -> TicketsAnswer:
        if self.error is not None:
            raise self.error
        return TicketsAnswer(root=self.root, epoch_seconds=3600, lifetime=60)


def offered() -> OfferedKey:
    return Keys(certificate("p256")).offered[0]


def test_keys_are_found_when_they_are_offered_and_kept_while_nobody_answers() -> None:
    async def main() -> None:
        servers = Servers()
        ring = KeyRing(servers=servers)
        public_key = offered().public_key
        with pytest.raises(Unavailable, match="not answered"):
            await ring.holder(public_key).perform(Sign("ED25519", b""))
        assert not await ring.refresh()
        with pytest.raises(Unavailable, match="does not offer"):
            await ring.holder(public_key).perform(Sign("ED25519", b""))
        servers.offered = (offered(),)
        assert await ring.refresh()
        assert not await ring.refresh()
        holder = ring.holder(public_key)
        servers.error = Unavailable("away")
        with pytest.raises(Unavailable):
            await ring.refresh()
        assert ring.holder(public_key) is holder

    run(main())


def test_a_server_that_does_not_know_the_question_is_taken_to_have_every_key() -> None:
    async def main() -> None:
        servers = Servers()
        servers.error = RequestFault(ErrorCode.BAD_OPCODE)
        ring = KeyRing(servers=servers)
        assert await ring.refresh()
        assert not await ring.refresh()
        assert isinstance(ring.holder(offered().public_key), RawHolder)
        with pytest.raises(Unavailable):
            await ring.holder(b"no key").perform(Sign("ED25519", b""))
        servers.error, servers.offered = None, (offered(),)
        assert await ring.refresh()
        assert not isinstance(ring.holder(offered().public_key), RawHolder)

    run(main())


def test_a_refusal_for_another_reason_is_none_of_that() -> None:
    async def main() -> None:
        servers = Servers()
        servers.error = RequestFault(ErrorCode.KEY_NOT_FOUND, "revoked")
        ring = KeyRing(servers=servers)
        with pytest.raises(Refused):
            await ring.refresh()
        with pytest.raises(Refused):
            await TicketKeyring(servers, now=lambda: NOW).refresh()

    run(main())


def test_edges_with_the_same_key_server_open_one_anothers_tickets() -> None:
    async def main() -> None:
        first, second = (TicketKeyring(Servers(), now=lambda: NOW) for _ in range(2))
        state = TicketState(suite=CIPHER_SUITES[0x1301], secret=bytes(32), server_name="", authenticated_at=NOW)
        ticket = first.ring.seal(state, now=NOW, nonce=os.urandom(12))
        assert ticket is not None
        assert second.ring.open(ticket, now=NOW) is None
        assert await first.refresh() == await second.refresh() == 60
        ticket = first.ring.seal(state, now=NOW, nonce=os.urandom(12))
        assert ticket is not None
        assert second.ring.open(ticket, now=NOW) == state

    run(main())


def test_without_a_key_server_an_edge_has_ticket_keys_of_its_own_and_renews_them() -> None:
    async def main() -> None:
        clock = [NOW]
        keyring = TicketKeyring(None, now=lambda: clock[0])
        assert await keyring.refresh() == EPOCH_SECONDS / 2
        clock[0] += 10 * EPOCH_SECONDS
        assert keyring.ring.lifetime(clock[0]) == 0
        await keyring.refresh()
        assert keyring.ring.lifetime(clock[0]) > 0
        mute = Servers()
        mute.error = RequestFault(ErrorCode.BAD_OPCODE)
        assert await TicketKeyring(mute, now=lambda: NOW).refresh() == EPOCH_SECONDS / 2

    run(main())


# --- clients ----------------------------------------------------------------------------------------------


def judged(identity: pki.Issued, *, verifier: ClientVerifier | None = None, **changes: Any) -> Verdict:
    digest = bytes(32)
    content = schedule.certificate_verify_content(b"client", digest)
    request = {
        "chain": PeerChain(certificates=identity.chain),
        "version": ProtocolVersion.TLS_1_3,
        "scheme": SignatureScheme.ECDSA_SECP256R1_SHA256,
        "signature": FileKey(identity.key).sign("ECDSA_SECP256R1_SHA256", content),
        "content": digest,
    } | changes
    verifier = verifier or ClientVerifier((pki.ca(name="Clients").pem,))
    return verifier.judge(ClientAuthenticateRequest(**request), now=NOW)


def clients(**options: Any) -> pki.Issued:
    return pki.client(pki.ca(name="Clients"), **options)


def test_a_client_is_known_by_the_first_name_in_its_certificate() -> None:
    verdict = judged(clients(name="me.example.com"))
    assert verdict.accepted
    assert verdict.identity == "dns:me.example.com"


def test_a_client_that_only_has_a_subject_is_known_by_that() -> None:
    identity = pki.leaf(
        pki.ca(name="Clients"), names=(), subject="somebody", slot="client", purposes=None, usage=None
    )
    assert judged(identity).identity == "dn:CN=somebody"


@pytest.mark.parametrize(
    ("identity", "fault"),
    [
        (lambda: pki.client(pki.ca(name="Strangers")), Fault.UNKNOWN_ISSUER),
        (lambda: clients(not_before=pki.NOW - 9 * pki.DAY, not_after=pki.NOW - pki.DAY), Fault.EXPIRED),
        (lambda: clients(usage=("key_encipherment",)), Fault.UNSUPPORTED),
        (lambda: pki.leaf(pki.ca(name="Clients"), slot="client"), None),
    ],
    ids=["stranger", "expired", "not for signatures", "a server's"],
)
def test_others_are_turned_away_with_a_reason(identity: Any, fault: Fault | None) -> None:
    verdict = judged(identity())
    assert not verdict.accepted
    assert verdict.reason
    if fault is not None:
        assert verdict.fault is fault


@pytest.mark.parametrize(
    "changes",
    [
        {"signature": b"forged"},
        {"content": b"\1" * 32},
        {"scheme": SignatureScheme.RSA_PSS_RSAE_SHA256},
        {"version": ProtocolVersion.TLS_1_2},
    ],
    ids=["forged", "of another handshake", "of another kind", "of another version"],
)
def test_a_certificate_without_its_key_proves_nothing(changes: dict[str, Any]) -> None:
    assert judged(clients(), **changes).fault is Fault.BAD_SIGNATURE


def test_a_revoked_client_is_turned_away_even_if_it_was_known() -> None:
    identity, authority = clients(), pki.ca(name="Clients")
    assert judged(identity).accepted
    strict = ClientVerifier((authority.pem,), (pki.crl(authority, [identity.certificate]),))
    assert judged(identity, verifier=strict).fault is Fault.REVOKED


def test_the_authorities_are_named_for_clients_that_need_it() -> None:
    authority = pki.ca(name="Clients")
    assert ClientVerifier((authority.pem,)).authorities == (authority.certificate.subject.public_bytes(),)
    with pytest.raises(ConfigurationError):
        ClientVerifier((b"nothing",))
    with pytest.raises(ConfigurationError):
        ClientVerifier(())


def test_public_keys_are_compared_as_they_stand_in_certificates() -> None:
    issued = certificate("p256")
    assert Chain.read(issued.chain).public_key == public_key_of(parse_chain(issued.chain)[0])
    assert offered().public_key == Chain.read(issued.chain).public_key
