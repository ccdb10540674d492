"""OpenSSL 4 (pyOpenSSL) as a client in memory against our server: whatever it can offer, and faults on the way."""

from __future__ import annotations

import pytest
from OpenSSL import SSL
from tests.support import pki
from tests.support.tls_memory import OP_NO_EXTENDED_MASTER_SECRET, Flip, client_leaf, server_leaf
from tests.support.tls_server_memory import Answerer, OpenSslPair, client_context, server_configuration

from locum.errors import LocumError
from locum.tls.alerts import AlertReceived
from locum.tls.connection import CloseReceived, HandshakeComplete
from locum.tls.registry import CIPHER_SUITES, Authentication, KeyExchange, NamedGroup, ProtocolVersion
from locum.tls.server_configuration import ClientCertificates

ONLY13 = (SSL.TLS1_3_VERSION, SSL.TLS1_3_VERSION)
ONLY12 = (SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION)
pytestmark = pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields")

BOTH = pytest.mark.parametrize("versions", [ONLY13, ONLY12], ids=["TLS_1_3", "TLS_1_2"])
#: The CCM suites, RSA key exchange and DHE are below OpenSSL's default level.
LOW = ":@SECLEVEL=0"

SUITES12 = {
    "ECDHE-ECDSA-AES128-GCM-SHA256": 0xC02B,
    "ECDHE-ECDSA-AES256-GCM-SHA384": 0xC02C,
    "ECDHE-ECDSA-CHACHA20-POLY1305": 0xCCA9,
    "ECDHE-ECDSA-AES128-CCM": 0xC0AC,
    "ECDHE-ECDSA-AES128-CCM8": 0xC0AE,
    "ECDHE-RSA-AES128-GCM-SHA256": 0xC02F,
    "ECDHE-RSA-AES256-GCM-SHA384": 0xC030,
    "ECDHE-RSA-CHACHA20-POLY1305": 0xCCA8,
    "DHE-RSA-AES128-GCM-SHA256": 0x009E,
    "DHE-RSA-AES256-GCM-SHA384": 0x009F,
    "DHE-RSA-CHACHA20-POLY1305": 0xCCAA,
    "DHE-RSA-AES128-CCM": 0xC09E,
    "AES128-GCM-SHA256": 0x009C,
    "AES256-GCM-SHA384": 0x009D,
    "AES128-CCM": 0xC09C,
}
SUITES13 = (
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256",
    "TLS_AES_128_CCM_8_SHA256",
)
EVERYTHING = {"cipher_suites": tuple(CIPHER_SUITES), "groups": tuple(NamedGroup)}


@pytest.mark.parametrize("suite", SUITES13)
def test_every_suite_of_tls_13_works_with_openssl(suite: str) -> None:
    context = client_context(versions=ONLY13, suites=suite, ciphers="ALL" + LOW)
    pair = OpenSslPair(server_configuration(**EVERYTHING), context).shake().check_data()
    assert pair.suite == suite


@pytest.mark.parametrize("suite", SUITES12)
@pytest.mark.parametrize("extended", [True, False], ids=["EMS", "no EMS"])
def test_every_suite_of_tls_12_works_with_openssl(suite: str, extended: bool) -> None:
    ours = CIPHER_SUITES[SUITES12[suite]]
    leaf = server_leaf("p256" if ours.authentication is Authentication.ECDSA else "rsa")
    options = 0 if extended else OP_NO_EXTENDED_MASTER_SECRET
    context = client_context(versions=ONLY12, ciphers=suite + LOW, options=options)
    pair = OpenSslPair(server_configuration(**EVERYTHING), context, by=Answerer(leaf)).shake().check_data()
    assert pair.suite == suite
    assert pair.server.session is not None
    assert pair.server.session.cipher_suite is ours
    assert (pair.server.session.group is None) == (ours.key_exchange is KeyExchange.RSA)


GROUPS13 = {
    "X25519MLKEM768": NamedGroup.X25519MLKEM768,
    "SecP256r1MLKEM768": NamedGroup.SECP256R1MLKEM768,
    "X25519": NamedGroup.X25519,
    "X448": NamedGroup.X448,
    "P-256": NamedGroup.SECP256R1,
    "P-384": NamedGroup.SECP384R1,
}


@pytest.mark.parametrize("group", GROUPS13)
def test_every_group_of_tls_13_works_with_openssl(group: str) -> None:
    context = client_context(versions=ONLY13, groups=group)
    pair = OpenSslPair(server_configuration(), context).shake().check_data()
    assert pair.server.session is not None
    assert pair.server.session.group == GROUPS13[group]


@pytest.mark.parametrize("group", ["X25519", "X448", "P-256", "P-384"])
def test_every_curve_of_tls_12_works_with_openssl(group: str) -> None:
    context = client_context(versions=ONLY12, groups=f"{group}:P-256")
    wishes = server_configuration(groups=(GROUPS13[group],))
    pair = OpenSslPair(wishes, context).shake().check_data()
    assert pair.server.session is not None
    assert pair.server.session.group == GROUPS13[group]


@pytest.mark.parametrize("size", [2048, 3072, 4096])
def test_finite_fields_of_rfc_7919_work_with_openssl(size: int) -> None:
    context = client_context(versions=ONLY12, ciphers="DHE-RSA-AES128-GCM-SHA256", groups=f"X25519:ffdhe{size}")
    by = Answerer(server_leaf("rsa"))
    pair = OpenSslPair(server_configuration(**EVERYTHING), context, by=by).shake().check_data()
    assert pair.server.session is not None
    assert pair.server.session.group == NamedGroup[f"FFDHE{size}"]


@BOTH
@pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "p521", "ed25519", "ed448"])
def test_openssl_verifies_every_kind_of_signature_of_the_server(versions: tuple[int, int], kind: str) -> None:
    context = client_context(versions=versions)
    OpenSslPair(server_configuration(), context, by=Answerer(server_leaf(kind))).shake().check_data()


def test_openssl_verifies_a_post_quantum_signature_of_the_server() -> None:
    pair = OpenSslPair(
        server_configuration(), client_context(versions=ONLY13), by=Answerer(server_leaf("mldsa65"))
    )
    pair.shake().check_data()


@pytest.mark.parametrize("group", ["P-384", "X25519MLKEM768"])
def test_openssl_answers_a_hello_retry_request(group: str) -> None:
    """OpenSSL shares the first group that it names, and has the other one when it is asked."""
    wishes = server_configuration(groups=(GROUPS13[group],))
    context = client_context(versions=ONLY13, groups=f"X25519:{group}")
    pair = OpenSslPair(wishes, context).shake().check_data()
    assert pair.server.session is not None
    assert pair.server.session.group == GROUPS13[group]
    session = pair.client.get_session()
    again = OpenSslPair(wishes, context, session=session).shake().check_data()
    assert again.resumed
    assert pair.sent_by_client.count(b"\x16\x03") >= 2


# --- resumption ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", [0x1301, 0x1302, 0x1303, 0xC02B, 0xC02C], ids=hex)
def test_openssl_resumes_a_session_again_and_again(suite: int) -> None:
    version = CIPHER_SUITES[suite].version
    context = client_context(versions=ONLY13 if version is ProtocolVersion.TLS_1_3 else ONLY12)
    wishes = server_configuration(versions=(version,), cipher_suites=(suite,))
    # All stay alive: OpenSSL forgets the session of a connection that is dropped without being closed.
    pairs = [OpenSslPair(wishes, context).shake().check_data()]
    assert not pairs[0].resumed
    for _ in range(3):
        pairs.append(OpenSslPair(wishes, context, session=pairs[-1].client.get_session()).shake().check_data())
        assert pairs[-1].resumed
        assert pairs[-1].server.session is not None
        assert pairs[-1].server.session.resumed


def test_openssl_gets_its_two_tickets() -> None:
    pair = OpenSslPair(server_configuration(), client_context(versions=ONLY13)).shake()
    assert pair.client.get_session() is not None
    pair.check_data()
    without = OpenSslPair(server_configuration(tickets=None), client_context(versions=ONLY13)).shake().check_data()
    assert len(pair.sent_by_server) - len(without.sent_by_server) > 2 * 100


@BOTH
def test_a_ticket_of_another_name_is_not_resumed_with_openssl(versions: tuple[int, int]) -> None:
    context = client_context(versions=versions)
    first = OpenSslPair(server_configuration(), context).shake().check_data()
    second = OpenSslPair(
        server_configuration(), context, server_name="other.example.com", session=first.client.get_session()
    )
    second.shake().check_data()
    assert second.server.session is not None
    assert not second.server.session.resumed


# --- client certificates ------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "p521", "ed25519", "ed448"])
def test_openssl_proves_every_kind_of_client_certificate(versions: tuple[int, int], kind: str) -> None:
    context = client_context(versions=versions, certificate=client_leaf(kind))
    wishes = server_configuration(
        client_certificates=ClientCertificates.REQUIRED,
        client_authorities=(pki.ca().certificate.subject.public_bytes(),),
    )
    pair = OpenSslPair(wishes, context).shake().check_data()
    assert pair.server.session is not None
    assert pair.server.session.peer_identity == "dns:terminal.example.com"
    again = OpenSslPair(wishes, context, session=pair.client.get_session()).shake().check_data()
    assert again.resumed
    assert again.server.session is not None
    assert again.server.session.peer_identity == "dns:terminal.example.com"


@BOTH
def test_openssl_without_a_certificate_is_let_in_where_it_is_optional(versions: tuple[int, int]) -> None:
    context = client_context(versions=versions)
    wishes = server_configuration(client_certificates=ClientCertificates.OPTIONAL)
    pair = OpenSslPair(wishes, context).shake().check_data()
    assert pair.server.session is not None
    assert not pair.server.session.client_authenticated
    pair = OpenSslPair(server_configuration(client_certificates=ClientCertificates.REQUIRED), context).run()
    assert isinstance(pair.error, LocumError)
    # In TLS 1.3 the client is done before it hears of it.
    if versions == ONLY13:
        with pytest.raises(SSL.Error, match="certificate required"):
            pair.client.recv(1)
    else:
        assert "handshake failure" in str(pair.client_error)


# --- names, protocols, OCSP ---------------------------------------------------------------------------------


@BOTH
def test_openssl_agrees_on_an_application_protocol(versions: tuple[int, int]) -> None:
    context = client_context(versions=versions, alpn=("http/1.1", "h2"))
    pair = OpenSslPair(server_configuration(alpn=("h2", "http/1.1")), context).shake().check_data()
    assert pair.client.get_alpn_proto_negotiated() == b"h2"
    pair = OpenSslPair(server_configuration(alpn=("mqtt",)), context).run()
    assert "no application protocol" in str(pair.client_error)


@BOTH
def test_openssl_gets_the_certificate_of_the_name_it_asks_for(versions: tuple[int, int]) -> None:
    other = pki.leaf(pki.ca(), "rsa", ("other.example.com",), slot="server:other")
    by = Answerer(by_name={"other.example.com": other})
    for name, expected in (("other.example.com", other), (pki.PEER_NAME, by.default)):
        pair = OpenSslPair(server_configuration(), client_context(versions=versions), by=by, server_name=name)
        pair.shake().check_data()
        shown = pair.client.get_peer_certificate(as_cryptography=True)
        assert shown == expected.certificate


@BOTH
def test_openssl_gets_a_stapled_ocsp_response_when_it_asks(versions: tuple[int, int]) -> None:
    seen: list[bytes] = []
    context = client_context(versions=versions)
    context.set_ocsp_client_callback(lambda connection, response, data: bool(seen.append(response)) or True)
    status = pki.ocsp_response(pki.ca(), server_leaf("p256").certificate)
    by = Answerer(server_leaf("p256"), ocsp_response=status)
    OpenSslPair(server_configuration(), context, by=by, status=True).shake().check_data()
    assert seen == [status]


# --- data, keys, closing ------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("context_value", [b"", b"some context"], ids=["empty context", "context"])
def test_exported_keying_material_is_openssls(versions: tuple[int, int], context_value: bytes) -> None:
    pair = OpenSslPair(server_configuration(), client_context(versions=versions)).shake()
    assert pair.server.session is not None
    ours = pair.server.session.export_keying_material("EXPORTER-locum-test", context_value, 48)
    assert ours == pair.client.export_keying_material(b"EXPORTER-locum-test", 48, context_value)


@BOTH
def test_large_transfers_arrive_whole_with_openssl(versions: tuple[int, int]) -> None:
    pair = OpenSslPair(server_configuration(), client_context(versions=versions)).shake()
    data = bytes(range(256)) * 2048
    pair.server.send_data(data)
    pair.move()
    assert pair.read(len(data)) == data
    view = memoryview(data)
    while view:
        view = view[pair.client.send(bytes(view[:16384])) :]
        pair.move()
    assert pair.at_server == data


def test_keys_are_updated_with_openssl() -> None:
    pair = OpenSslPair(server_configuration(), client_context(versions=ONLY13)).shake().check_data()
    for request_peer in (False, True, True):
        pair.server.update_keys(request_peer=request_peer)
        pair.move()
        pair.check_data()


@BOTH
def test_openssl_and_our_server_close_either_way(versions: tuple[int, int]) -> None:
    pair = OpenSslPair(server_configuration(), client_context(versions=versions)).shake().check_data()
    pair.server.close()
    pair.move()
    with pytest.raises(SSL.ZeroReturnError):
        pair.client.recv(1)
    pair = OpenSslPair(server_configuration(), client_context(versions=versions)).shake().check_data()
    pair.client.shutdown()
    pair.move()
    assert isinstance(pair.server_events[-1], CloseReceived)


def test_renegotiation_is_refused_and_openssls_session_goes_on() -> None:
    pair = OpenSslPair(server_configuration(), client_context(versions=ONLY12)).shake().check_data()
    assert pair.client.renegotiate()
    with pytest.raises(SSL.Error):
        pair.client.do_handshake()
        pair.move()
        pair.client.do_handshake()
    assert pair.server.handshake_complete
    assert pair.error is None


def test_a_client_that_rejects_the_certificate_says_so_although_in_clear() -> None:
    stranger = Answerer(pki.leaf(pki.ca(name="Other Root"), "p256", slot="server:stranger"))
    for versions in (ONLY13, ONLY12):
        pair = OpenSslPair(server_configuration(), client_context(versions=versions), by=stranger).run()
        assert isinstance(pair.error, AlertReceived)
        assert "unknown_ca" in str(pair.error)


# --- how bytes may be cut and damaged -----------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
def test_the_servers_handshake_does_not_depend_on_how_openssls_bytes_are_cut(
    versions: tuple[int, int], chunk: int
) -> None:
    context = client_context(versions=versions, groups="X25519:P-384:P-256", certificate=client_leaf("rsa"))
    wishes = server_configuration(groups=(NamedGroup.SECP384R1,), client_certificates=ClientCertificates.REQUIRED)
    pair = OpenSslPair(wishes, context)
    pair.chunk = chunk
    pair.shake().check_data()


@BOTH
def test_any_flipped_bit_of_openssls_ends_in_a_typed_error(versions: tuple[int, int]) -> None:
    context = client_context(versions=versions)
    wishes = server_configuration()
    length = len(OpenSslPair(wishes, context).shake().sent_by_client)
    for position in range(0, length, 11):
        pair = OpenSslPair(wishes, context)
        pair.edit_to_server = Flip(position)
        pair.run()
        if pair.error is None:
            # What a flip makes of a record's length is that bytes are still missing.
            with pytest.raises(LocumError):
                pair.server.receive_data(b"")
        assert not any(isinstance(event, HandshakeComplete) for event in pair.server_events)
