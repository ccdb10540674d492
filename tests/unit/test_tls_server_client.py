"""Our server and our client in memory: every suite, group and kind of key, client certificates, resumption."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support import pki
from tests.support.tls_memory import authority, configuration, identity, server_leaf
from tests.support.tls_server_memory import EPOCH_SECONDS, Answerer, Pair, ring, server_configuration

from locum.authority.local import LocalOptions
from locum.errors import Incompatible
from locum.handshake import PeerRejected
from locum.tls.alerts import AlertReceived, BadRecordMac, NoApplicationProtocol, UnrecognizedName
from locum.tls.registry import (
    CIPHER_SUITES,
    FINITE_FIELD_RANGE,
    HYBRID_GROUPS,
    Authentication,
    KeyExchange,
    NamedGroup,
    ProtocolVersion,
)
from locum.tls.server_configuration import ClientCertificates

TLS12, TLS13 = ProtocolVersion.TLS_1_2, ProtocolVersion.TLS_1_3
pytestmark = pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields")

BOTH = pytest.mark.parametrize("version", [TLS13, TLS12], ids=lambda version: version.name)
EVERY_GROUP = tuple(NamedGroup)


def leaf_for(code: int) -> pki.Issued:
    return server_leaf("p256" if CIPHER_SUITES[code].authentication is Authentication.ECDSA else "rsa")


@pytest.mark.parametrize("suite", CIPHER_SUITES.values(), ids=repr)
def test_every_suite_works_with_our_client(suite: Any) -> None:
    wishes = server_configuration(versions=(suite.version,), cipher_suites=(suite.code,), groups=EVERY_GROUP)
    pair = Pair(wishes, configuration(), by=Answerer(leaf_for(suite.code))).shake().check_data()
    assert pair.server.session is not None
    assert pair.server.session.cipher_suite is suite
    assert pair.server.session.version is suite.version
    assert (pair.server.session.group is None) == (suite.key_exchange is KeyExchange.RSA)


GROUPS = [
    (version, group)
    for version in (TLS13, TLS12)
    for group in NamedGroup
    if version is TLS13 or group not in HYBRID_GROUPS
    if version is TLS12 or group not in FINITE_FIELD_RANGE
]


@pytest.mark.parametrize(("version", "group"), GROUPS, ids=lambda each: each.name)
def test_every_group_works_with_our_client(version: ProtocolVersion, group: NamedGroup) -> None:
    wishes = server_configuration(groups=(group,), cipher_suites=tuple(CIPHER_SUITES))
    by = Answerer(server_leaf("rsa"), rsa_key_exchange=False)
    pair = Pair(wishes, configuration(versions=(version,)), by=by).shake().check_data()
    assert pair.server.session is not None
    assert pair.server.session.group == group


@BOTH
@pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "p521", "ed25519", "ed448", "mldsa65"])
def test_every_kind_of_key_signs_for_the_server(version: ProtocolVersion, kind: str) -> None:
    pair = Pair(server_configuration(), configuration(versions=(version,)), by=Answerer(server_leaf(kind)))
    if kind == "mldsa65" and version is TLS12:
        with pytest.raises(Incompatible):
            pair.shake()
        assert isinstance(pair.client_error, AlertReceived)
        return
    pair.shake().check_data()


@BOTH
def test_a_client_that_shares_another_group_is_asked_again(version: ProtocolVersion) -> None:
    client_by = authority(options=LocalOptions(groups=(NamedGroup.X25519, NamedGroup.SECP384R1)))
    wishes = server_configuration(groups=(NamedGroup.SECP384R1,))
    pair = Pair(wishes, configuration(versions=(version,)), client_by=client_by).shake().check_data()
    assert pair.server.session is not None
    assert pair.server.session.group == NamedGroup.SECP384R1


@BOTH
def test_certificates_go_by_the_name_that_is_asked_for(version: ProtocolVersion) -> None:
    other = pki.leaf(pki.ca(), "rsa", ("other.example.com",), slot="server:other")
    by = Answerer(by_name={"other.example.com": other, pki.PEER_NAME: server_leaf("p256")}, unknown=True)
    for name in ("other.example.com", pki.PEER_NAME):
        pair = Pair(server_configuration(), configuration(server_name=name, versions=(version,)), by=by)
        session = pair.shake().check_data().server.session
        assert session is not None
        assert session.server_name == name
    pair = Pair(server_configuration(), configuration(server_name="third.example.com", versions=(version,)), by=by)
    with pytest.raises(UnrecognizedName):
        pair.shake()
    assert isinstance(pair.client_error, AlertReceived)
    assert "unrecognized_name" in str(pair.client_error)


@BOTH
def test_application_protocols_are_agreed_or_refused(version: ProtocolVersion) -> None:
    wishes = server_configuration(alpn=("h2", "http/1.1"))
    pair = Pair(wishes, configuration(alpn=("http/1.1", "h2"), versions=(version,))).shake()
    assert pair.server.session is not None
    assert pair.client.session is not None
    assert pair.server.session.alpn == pair.client.session.alpn == "h2"
    pair = Pair(wishes, configuration(alpn=("mqtt",), versions=(version,)))
    with pytest.raises(NoApplicationProtocol):
        pair.shake()
    assert "no_application_protocol" in str(pair.client_error)


# --- client certificates ------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "p521", "ed25519", "ed448"])
@pytest.mark.parametrize("key_exchange", ["signed", "RSA"])
def test_every_kind_of_client_certificate_is_proven_to_our_server(
    version: ProtocolVersion, kind: str, key_exchange: str
) -> None:
    settings: dict[str, Any] = {"client_certificates": ClientCertificates.REQUIRED}
    if key_exchange == "RSA":
        settings["cipher_suites"] = (0x1301, 0x009C)
    wishes = server_configuration(**settings)
    client_by = authority(identities=(identity(kind),))
    client = configuration(versions=(version,))
    pair = Pair(wishes, client, by=Answerer(server_leaf("rsa")), client_by=client_by).shake().check_data()
    assert pair.server.session is not None
    assert pair.server.session.client_authenticated
    assert pair.server.session.peer_identity == "dns:terminal.example.com"
    assert pair.server.session.peer_certificates == identity(kind).certificates
    resumed = Pair(
        wishes,
        configuration(versions=(version,), ticket=pair.tickets[0]),
        by=Answerer(server_leaf("rsa")),
        client_by=client_by,
    )
    session = resumed.shake().check_data().server.session
    assert session is not None
    assert session.resumed
    assert session.peer_identity == "dns:terminal.example.com"
    assert session.peer_certificates == ()


@BOTH
def test_a_ticket_from_where_no_certificate_is_asked_for_is_of_no_use_where_one_is(
    version: ProtocolVersion,
) -> None:
    anonymous = Pair(server_configuration(), configuration(versions=(version,))).shake()
    wishes = server_configuration(client_certificates=ClientCertificates.REQUIRED)
    client = configuration(versions=(version,), ticket=anonymous.tickets[0])
    pair = Pair(wishes, client, client_by=authority(identities=(identity("p256"),))).shake()
    assert pair.server.session is not None
    assert not pair.server.session.resumed
    assert pair.server.session.client_authenticated


@BOTH
def test_a_client_whose_certificate_nobody_knows_is_rejected(version: ProtocolVersion) -> None:
    stranger = pki.client(pki.ca(name="Other Root"), "p256", slot="client:stranger")
    known = identity("p256")
    client_by = authority(
        identities=(type(known)(name="x", certificates=stranger.chain, key=_file_key(stranger)),)
    )
    wishes = server_configuration(client_certificates=ClientCertificates.OPTIONAL)
    pair = Pair(wishes, configuration(versions=(version,)), client_by=client_by)
    with pytest.raises(PeerRejected):
        pair.shake()
    assert not pair.server.handshake_complete
    assert "unknown_ca" in str(pair.client_error)


def _file_key(issued: pki.Issued) -> Any:
    from locum.keys.file import FileKey

    return FileKey.from_pem(issued.key_pem)


# --- resumption ---------------------------------------------------------------------------------------------


@BOTH
def test_a_session_is_resumed_at_any_server_that_has_the_root_and_chained_on(version: ProtocolVersion) -> None:
    pair = Pair(server_configuration(), configuration(versions=(version,))).shake()
    tickets = pair.tickets
    assert len(tickets) == (2 if version is TLS13 else 1)
    for _ in range(3):
        client = configuration(versions=(version,), ticket=tickets[0])
        pair = Pair(server_configuration(tickets=ring()), client).shake().check_data()
        assert pair.server.session is not None
        assert pair.client.session is not None
        assert pair.server.session.resumed
        assert pair.client.session.resumed
        assert "ServerStartRequest" not in pair.asked
        tickets = pair.tickets or tickets


@BOTH
def test_an_expired_or_foreign_ticket_leads_to_a_full_handshake(version: ProtocolVersion) -> None:
    ticket = Pair(server_configuration(), configuration(versions=(version,))).shake().tickets[0]
    late = pki.EPOCH + 2 * EPOCH_SECONDS
    for wishes, now in (
        (server_configuration(tickets=ring(bytes(32))), pki.EPOCH),
        (server_configuration(tickets=ring(now=late)), late),
        (server_configuration(tickets=None), pki.EPOCH),
    ):
        client = configuration(versions=(version,), ticket=ticket)
        pair = Pair(wishes, client, now=lambda now=now: now).shake().check_data()
        assert pair.server.session is not None
        assert not pair.server.session.resumed


def test_a_session_is_resumed_across_a_retry() -> None:
    client_by = authority(options=LocalOptions(groups=(NamedGroup.X25519, NamedGroup.SECP384R1)))
    ticket = Pair(server_configuration(), configuration(), client_by=client_by).shake().tickets[0]
    wishes = server_configuration(groups=(NamedGroup.SECP384R1,))
    pair = Pair(wishes, configuration(ticket=ticket), client_by=client_by).shake().check_data()
    assert pair.server.session is not None
    assert pair.server.session.resumed
    assert pair.server.session.group == NamedGroup.SECP384R1


# --- facts, keys, attackers ---------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("resumes", [False, True], ids=["full", "resumed"])
def test_both_ends_export_the_same_keying_material(version: ProtocolVersion, resumes: bool) -> None:
    pair = Pair(server_configuration(), configuration(versions=(version,))).shake()
    if resumes:
        pair = Pair(server_configuration(), configuration(versions=(version,), ticket=pair.tickets[0])).shake()
    assert pair.server.session is not None
    assert pair.client.session is not None
    for context in (b"", b"some context"):
        ours = pair.server.session.export_keying_material("EXPORTER-locum", context, 40)
        assert ours == pair.client.session.export_keying_material("EXPORTER-locum", context, 40)


@BOTH
def test_an_ocsp_response_reaches_the_client(version: ProtocolVersion) -> None:
    issued = pki.leaf(pki.ca(), "p256", slot="server:staple", must_staple=True)
    status = pki.ocsp_response(pki.ca(), issued.certificate)
    client = configuration(versions=(version,))
    Pair(server_configuration(), client, by=Answerer(issued, ocsp_response=status)).shake().check_data()
    revoked = pki.ocsp_response(pki.ca(), issued.certificate, revoked=True)
    pair = Pair(server_configuration(), client, by=Answerer(issued, ocsp_response=revoked)).run()
    assert isinstance(pair.client_error, PeerRejected)
    assert "certificate_revoked" in str(pair.error)


@BOTH
def test_keys_are_updated_from_either_side(version: ProtocolVersion) -> None:
    pair = Pair(server_configuration(), configuration(versions=(version,))).shake().check_data()
    for end in (pair.server, pair.client):
        for request_peer in (False, True):
            end.update_keys(request_peer=request_peer)
            pair.move()
            pair.check_data()


def test_a_client_without_tls_13_that_is_talked_down_notices() -> None:
    """RFC 8446 section 4.1.3: what an attacker makes of the offer does not escape the sentinel."""
    pair = Pair(server_configuration(), configuration())
    versions = b"\x00\x2b\x00\x05\x04\x03\x04\x03\x03"
    pair.edit_to_server = lambda data: data.replace(versions, b"\xfa\xfa" + versions[2:])
    pair.run()
    assert "downgraded" in str(pair.client_error)
    assert not pair.server.handshake_complete


def test_probes_of_the_padding_all_end_alike() -> None:
    """Bleichenbacher's attack needs a difference; what the server says has none (RFC 5246 section 7.4.7.1)."""
    endings = set()
    modulus = server_leaf("rsa").key.public_key().public_numbers().n
    for probe in (0, 1, 2, modulus - 1, modulus // 3, pow(2, 1000)):
        pair = Pair(
            server_configuration(versions=(TLS12,), cipher_suites=(0x009C,)),
            configuration(versions=(TLS12,)),
            by=Answerer(server_leaf("rsa")),
        )

        def probed(data: bytes, probe: int = probe) -> bytes:
            at = data.find(b"\x10\x00\x01\x02\x01\x00")
            if at < 0:
                return data
            return data[: at + 6] + probe.to_bytes(256, "big") + data[at + 6 + 256 :]

        pair.edit_to_server = probed
        pair.run()
        assert isinstance(pair.error, BadRecordMac)
        endings.add((str(pair.error), pair.sent_by_server[-7:]))
    assert len(endings) == 1


@BOTH
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_neither_side_cares_how_bytes_are_cut(version: ProtocolVersion, chunk: int) -> None:
    wishes = server_configuration(groups=(NamedGroup.SECP384R1,), client_certificates=ClientCertificates.REQUIRED)
    pair = Pair(wishes, configuration(versions=(version,)), client_by=authority(identities=(identity("rsa"),)))
    pair.chunk = chunk
    pair.shake().check_data()
