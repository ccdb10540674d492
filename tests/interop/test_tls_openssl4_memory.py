"""The TLS client against OpenSSL 4 in memory: every group, suite, key type and form that both sides speak."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from OpenSSL import SSL
from tests.support import pki
from tests.support.openssl_names import CLASSICAL_GROUPS, GROUPS, SUITES_12, SUITES_13
from tests.support.tls_memory import (
    OP_ALLOW_NO_DHE_KEX,
    OP_NO_EXTENDED_MASTER_SECRET,
    OP_PREFER_NO_DHE_KEX,
    Flip,
    Link,
    ask_for_client_certificate,
    authority,
    configuration,
    identity,
    server_context,
    server_leaf,
)

from locum.authority.databases import PinnedKey
from locum.errors import LocumError
from locum.handshake import PeerRejected
from locum.tls.alerts import AlertDescription, AlertReceived, IllegalParameter, Truncated
from locum.tls.connection import CloseReceived, HandshakeComplete
from locum.tls.operations import KeyForm
from locum.tls.registry import CIPHER_SUITES, KeyExchange, NamedGroup, ProtocolVersion
from locum.tls.session import SessionTicket

TLS12, TLS13 = ProtocolVersion.TLS_1_2, ProtocolVersion.TLS_1_3
ONLY12 = (SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION)
ONLY13 = (SSL.TLS1_3_VERSION, SSL.TLS1_3_VERSION)

#: ML-DSA, the last, exists in TLS 1.3 only.
KINDS = ("rsa", "p256", "p384", "ed25519", "ed448", "mldsa65")


def check_data(link: Link) -> None:
    """A few bytes both ways."""
    assert link.send(b"from the terminal") == b"from the terminal"
    assert link.reply(b"from the peer") == b"from the peer"


def test_the_suites_with_a_name_are_all_that_are_implemented() -> None:
    assert set(SUITES_13) | set(SUITES_12) == set(CIPHER_SUITES)


@pytest.fixture(scope="session")
def dh_parameters(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A file with the Diffie-Hellman parameters of this name, made by the openssl command."""
    directory = tmp_path_factory.mktemp("dh")

    def find(group: str) -> Path:
        path = directory / f"{group}.pem"
        if not path.exists():
            openssl(directory, f"genpkey -genparam -algorithm DH -pkeyopt group:{group} -out {path.name}")
        return path

    return find


def openssl(directory: Path, arguments: str) -> None:
    """Run the openssl command in `directory`."""
    made = subprocess.run(["openssl", *arguments.split()], cwd=directory, capture_output=True, check=False)
    assert made.returncode == 0, made.stderr.decode()


# --- groups, suites, keys ---------------------------------------------------------------------------------


@pytest.mark.parametrize("group", GROUPS, ids=GROUPS.values())
def test_every_group_of_tls_13_gives_a_session(group: NamedGroup) -> None:
    context = server_context(versions=ONLY13, groups=GROUPS[group])
    link = Link(configuration(groups=(group,)), context).shake()
    assert link.client.session is not None
    assert link.client.session.group == group
    assert "KeyShareRequest" not in link.asked
    check_data(link)


@pytest.mark.parametrize("group", GROUPS, ids=GROUPS.values())
def test_every_group_can_be_asked_for_by_a_hello_retry_request(group: NamedGroup) -> None:
    first = NamedGroup.SECP256R1 if group is not NamedGroup.SECP256R1 else NamedGroup.X25519
    context = server_context(versions=ONLY13, groups=GROUPS[group])
    link = Link(configuration(groups=(first, group)), context).shake()
    assert link.client.session is not None
    assert link.client.session.group == group
    assert link.asked.count("KeyShareRequest") == 1
    check_data(link)


@pytest.mark.parametrize("group", CLASSICAL_GROUPS, ids=CLASSICAL_GROUPS.values())
def test_every_classical_group_gives_a_tls_12_session(group: NamedGroup) -> None:
    # With an ECDSA key the certificate's own curve would have to be offered too.
    context = server_context(server_leaf("rsa"), versions=ONLY12, groups=GROUPS[group])
    link = Link(configuration(groups=(group,)), context).shake()
    assert link.client.session is not None
    assert link.client.session.group == group
    check_data(link)


@pytest.mark.parametrize("suite", SUITES_13, ids=SUITES_13.values())
def test_every_suite_of_tls_13_gives_a_session(suite: int) -> None:
    # CCM with a tag of 8 bytes is below OpenSSL's default security level.
    context = server_context(versions=ONLY13, suites=SUITES_13[suite], ciphers="DEFAULT:@SECLEVEL=0")
    link = Link(configuration(), context).shake()
    assert link.client.session is not None
    assert link.client.session.cipher_suite.code == suite
    assert link.server.get_cipher_name() == SUITES_13[suite]
    check_data(link)


@pytest.mark.parametrize("form", KeyForm, ids=lambda form: form.name)
@pytest.mark.parametrize("suite", SUITES_12, ids=SUITES_12.values())
def test_every_suite_of_tls_12_gives_a_session_in_both_key_forms(suite: int, form: KeyForm) -> None:
    kind = "p256" if "ECDSA" in CIPHER_SUITES[suite].name else "rsa"
    context = server_context(server_leaf(kind), versions=ONLY12, ciphers=f"{SUITES_12[suite]}:@SECLEVEL=0")
    link = Link(configuration(key_forms=(form,)), context).shake()
    session = link.client.session
    assert session is not None
    assert session.cipher_suite.code == suite
    assert link.server.get_cipher_name() == SUITES_12[suite]
    exchange = session.cipher_suite.key_exchange
    assert (session.group is not None) == (exchange is KeyExchange.ECDHE)
    assert ("ServerFinishedRequest" in link.asked) == (form is KeyForm.KEYS)
    check_data(link)


@pytest.mark.parametrize("group", [NamedGroup.FFDHE2048, NamedGroup.FFDHE3072], ids=lambda group: group.name)
def test_dhe_works_in_a_group_that_was_offered_by_its_name(group: NamedGroup) -> None:
    context = server_context(server_leaf("rsa"), versions=ONLY12, ciphers="DHE-RSA-AES128-GCM-SHA256")
    link = Link(configuration(groups=(group,), versions=(TLS12,)), context).shake()
    assert link.server.get_group_name() == group.name.lower()
    check_data(link)


@pytest.mark.parametrize("group", ["modp_2048", "modp_3072", "ffdhe2048"])
def test_dhe_works_with_a_server_that_knows_no_names_of_groups(
    group: str, dh_parameters: Callable[[str], Path]
) -> None:
    context = server_context(server_leaf("rsa"), versions=ONLY12, ciphers="DHE-RSA-AES128-GCM-SHA256")
    context.load_tmp_dh(str(dh_parameters(group)))
    # Where the client names no finite-field group, this server takes the one it was given.
    link = Link(configuration(groups=(NamedGroup.X25519,)), context).shake()
    check_data(link)


@pytest.mark.parametrize(
    ("kind", "version"),
    [(kind, TLS13) for kind in KINDS] + [(kind, TLS12) for kind in KINDS if kind != "mldsa65"],
)
def test_every_kind_of_server_key_is_authenticated(kind: str, version: ProtocolVersion) -> None:
    context = server_context(server_leaf(kind), versions=ONLY13 if version is TLS13 else ONLY12)
    link = Link(configuration(), context).shake()
    session = link.client.session
    assert session is not None
    assert session.peer_identity == f"dns:{pki.PEER_NAME}"
    assert session.peer_certificates == server_leaf(kind).chain
    assert not session.resumed
    check_data(link)


@pytest.fixture(scope="session")
def pss_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate whose key is for RSASSA-PSS only, and its key, made by the openssl command."""
    directory = tmp_path_factory.mktemp("pss")
    openssl(
        directory,
        "req -x509 -newkey rsa-pss -pkeyopt rsa_keygen_bits:2048 -nodes -sha256 -days 30 -subj /CN=pss "
        f"-keyout key.pem -out cert.pem -addext subjectAltName=DNS:{pki.PEER_NAME}",
    )
    return directory / "cert.pem", directory / "key.pem"


@pytest.mark.parametrize("versions", [ONLY13, ONLY12], ids=["TLS_1_3", "TLS_1_2"])
def test_a_key_for_rsassa_pss_only_is_authenticated(
    pss_files: tuple[Path, Path], versions: tuple[int, int]
) -> None:
    pin = PinnedKey(name="pss", key=pss_files[0].read_bytes(), peers=("*",))
    context = server_context(pss_files, versions=versions)
    link = Link(configuration(), context, by=authority(pinned=(pin,))).shake()
    assert link.client.session is not None
    assert link.client.session.peer_identity == "pin:pss"
    check_data(link)


# --- what a ClientHello can ask for -----------------------------------------------------------------------


@pytest.mark.parametrize("versions", [ONLY13, ONLY12], ids=["TLS_1_3", "TLS_1_2"])
def test_alpn_and_server_name_reach_the_server_and_come_back(versions: tuple[int, int]) -> None:
    context = server_context(versions=versions, alpn=("mqtt", "h2"))
    link = Link(configuration(alpn=("h2", "mqtt")), context).shake()
    assert link.client.session is not None
    assert link.client.session.alpn == "mqtt"
    assert link.server.get_alpn_proto_negotiated() == b"mqtt"
    assert link.server.get_servername() == pki.PEER_NAME.encode()


@pytest.mark.parametrize("versions", [ONLY13, ONLY12], ids=["TLS_1_3", "TLS_1_2"])
def test_a_server_without_a_common_protocol_answers_none_and_the_session_has_none(
    versions: tuple[int, int],
) -> None:
    link = Link(configuration(alpn=("h2",)), server_context(versions=versions, alpn=("mqtt",))).shake()
    assert link.client.session is not None
    assert link.client.session.alpn is None


def test_an_ip_address_is_not_sent_as_a_server_name_and_is_what_the_certificate_must_be_good_for() -> None:
    link = Link(configuration(server_name=pki.PEER_ADDRESS), server_context()).shake()
    assert link.server.get_servername() is None
    assert link.client.session is not None
    assert link.client.session.peer_identity == f"ip:{pki.PEER_ADDRESS}"


def test_without_compatibility_mode_nothing_of_it_is_sent() -> None:
    link = Link(configuration(compatibility_mode=False), server_context(versions=ONLY13)).shake()
    # No change_cipher_spec record (OpenSSL sends one all the same), and an empty legacy_session_id, which stands
    # after 5 + 4 bytes of headers, version and random.
    assert b"\x14\x03\x03\x00\x01\x01" not in link.sent_by_client
    assert link.sent_by_client[43] == 0
    check_data(link)


def test_compatibility_mode_looks_like_a_resumed_tls_12_session() -> None:
    link = Link(configuration(), server_context(versions=ONLY13)).shake()
    assert link.sent_by_client[43] == 32
    assert link.sent_by_client.count(b"\x14\x03\x03\x00\x01\x01") == 1
    assert link.sent_by_server.count(b"\x14\x03\x03\x00\x01\x01") == 1


@pytest.mark.parametrize("versions", [ONLY13, ONLY12], ids=["TLS_1_3", "TLS_1_2"])
def test_a_stapled_ocsp_response_reaches_the_authority(versions: tuple[int, int]) -> None:
    leaf = server_leaf("p256")
    good = pki.ocsp_response(pki.ca(), leaf.certificate)
    Link(configuration(), server_context(versions=versions, ocsp_response=good)).shake()
    revoked = pki.ocsp_response(pki.ca(), leaf.certificate, revoked=True)
    link = Link(configuration(), server_context(versions=versions, ocsp_response=revoked))
    with pytest.raises(PeerRejected, match="revoked"):
        link.shake()


def test_a_server_that_does_not_know_record_size_limit_ignores_it() -> None:
    """OpenSSL 4 does not; the limits themselves are tested against a scripted server."""
    link = Link(configuration(record_size_limit=512), server_context(versions=ONLY13)).shake()
    assert link.reply(bytes(2000)) == bytes(2000)
    assert link.send(bytes(2000)) == bytes(2000)


@pytest.mark.parametrize("extended", [True, False])
def test_extended_master_secret_is_used_where_the_server_has_it(extended: bool) -> None:
    options = 0 if extended else OP_NO_EXTENDED_MASTER_SECRET
    link = Link(configuration(), server_context(versions=ONLY12, options=options)).shake()
    check_data(link)
    assert bool(link.tickets) == extended
    session = link.client.session
    assert session is not None
    if extended:
        assert len(session.export_keying_material("EXPERIMENTAL test", b"", 16)) == 16
    else:
        with pytest.raises(LocumError, match="export"):
            session.export_keying_material("EXPERIMENTAL test", b"", 16)


# --- resumption ---------------------------------------------------------------------------------------------


def stored(ticket: SessionTicket) -> SessionTicket:
    """A ticket that has been in a file."""
    return SessionTicket.from_bytes(ticket.to_bytes())


@pytest.mark.parametrize("suite", [0x1301, 0x1302], ids=["SHA256", "SHA384"])
@pytest.mark.parametrize("retry", [False, True], ids=["direct", "after HelloRetryRequest"])
def test_a_tls_13_session_is_resumed_with_dhe(suite: int, retry: bool) -> None:
    context = server_context(versions=ONLY13, suites=SUITES_13[suite], groups="P-256")
    first = Link(configuration(groups=(NamedGroup.SECP256R1,)), context).shake()
    assert len(first.tickets) == 2
    groups = (NamedGroup.X25519, NamedGroup.SECP256R1) if retry else (NamedGroup.SECP256R1,)
    second = Link(configuration(ticket=stored(first.tickets[-1]), groups=groups), context).shake()
    session = second.client.session
    assert session is not None
    assert session.resumed
    assert second.resumed_at_server
    assert session.group == NamedGroup.SECP256R1
    assert session.peer_identity == f"dns:{pki.PEER_NAME}"
    assert session.peer_certificates == ()
    expected = ["StartRequest", "KeyShareRequest", "SharedSecretRequest"]
    assert second.asked == [name for name in expected if retry or name != "KeyShareRequest"]
    check_data(second)
    # What was resumed gives tickets of its own.
    third = Link(configuration(ticket=second.tickets[0], groups=groups), context).shake()
    assert third.resumed_at_server


def test_a_tls_13_session_is_resumed_without_dhe_where_both_sides_allow_it() -> None:
    context = server_context(versions=ONLY13, options=OP_ALLOW_NO_DHE_KEX | OP_PREFER_NO_DHE_KEX)
    ticket = Link(configuration(), context).shake().tickets[0]
    link = Link(configuration(ticket=ticket, psk_without_dhe=True), context).shake()
    assert link.client.session is not None
    assert link.client.session.resumed
    assert link.client.session.group is None
    assert link.asked == ["StartRequest"]
    check_data(link)
    link = Link(configuration(ticket=ticket), context).shake()
    assert link.client.session is not None
    assert link.client.session.resumed
    assert link.client.session.group is not None


def test_a_ticket_that_the_server_does_not_know_leads_to_a_full_handshake() -> None:
    for versions in (ONLY13, ONLY12):
        ticket = Link(configuration(), server_context(versions=versions)).shake().tickets[0]
        link = Link(configuration(ticket=ticket), server_context(versions=versions)).shake()
        assert link.client.session is not None
        assert not link.client.session.resumed
        assert "AuthenticateRequest" in link.asked
        check_data(link)


def test_a_psk_of_another_hash_is_withdrawn_after_a_hello_retry_request() -> None:
    context = server_context(versions=ONLY13, suites=SUITES_13[0x1302])
    ticket = Link(configuration(), context).shake().tickets[0]
    context = server_context(versions=ONLY13, suites=SUITES_13[0x1301], groups="P-384")
    groups = (NamedGroup.X25519, NamedGroup.SECP384R1)
    link = Link(configuration(ticket=ticket, groups=groups), context).shake()
    assert link.client.session is not None
    assert not link.client.session.resumed
    check_data(link)


@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_a_tls_12_session_is_resumed_from_a_ticket(kind: str) -> None:
    context = server_context(server_leaf(kind), versions=ONLY12)
    first = Link(configuration(), context).shake()
    (ticket,) = first.tickets
    second = Link(configuration(ticket=stored(ticket)), context).shake()
    session = second.client.session
    assert session is not None
    assert session.resumed
    assert second.resumed_at_server
    assert second.asked == ["StartRequest"]
    assert session.peer_identity == f"dns:{pki.PEER_NAME}"
    check_data(second)


def test_a_session_whose_secret_the_delegate_keeps_gives_no_ticket() -> None:
    link = Link(configuration(key_forms=(KeyForm.KEYS,)), server_context(versions=ONLY12)).shake()
    assert link.tickets == []
    check_data(link)


def test_a_tls_12_ticket_does_not_stand_in_the_way_of_tls_13() -> None:
    ticket = Link(configuration(), server_context(versions=ONLY12)).shake().tickets[0]
    link = Link(configuration(ticket=ticket), server_context()).shake()
    assert link.client.session is not None
    assert link.client.session.version is TLS13


def test_a_tls_13_ticket_does_not_stand_in_the_way_of_tls_12() -> None:
    ticket = Link(configuration(), server_context()).shake().tickets[0]
    link = Link(configuration(ticket=ticket), server_context(versions=ONLY12)).shake()
    assert link.client.session is not None
    assert link.client.session.version is TLS12
    assert not link.client.session.resumed


# --- client certificates --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "version", "form"),
    [(kind, TLS13, KeyForm.SECRET) for kind in KINDS]
    + [(kind, TLS12, form) for kind in KINDS if kind != "mldsa65" for form in KeyForm],
)
def test_every_kind_of_client_certificate_is_accepted(kind: str, version: ProtocolVersion, form: KeyForm) -> None:
    context = server_context(versions=ONLY13 if version is TLS13 else ONLY12, client_ca=True)
    link = Link(configuration(key_forms=(form,)), context, by=authority(identities=(identity(kind),))).shake()
    assert link.client.session is not None
    assert link.client.session.client_authenticated
    shown = link.server.get_peer_certificate(as_cryptography=True)
    assert shown is not None
    assert shown.subject.rfc4514_string() == "CN=terminal.example.com"
    check_data(link)


def test_a_client_certificate_goes_with_rsa_key_exchange() -> None:
    context = server_context(
        server_leaf("rsa"), versions=ONLY12, client_ca=True, ciphers="AES128-GCM-SHA256:@SECLEVEL=0"
    )
    link = Link(configuration(), context, by=authority(identities=(identity("rsa"),))).shake()
    assert link.client.session is not None
    assert link.client.session.client_authenticated


@pytest.mark.parametrize("versions", [ONLY13, ONLY12], ids=["TLS_1_3", "TLS_1_2"])
@pytest.mark.parametrize("willing", [True, False], ids=["none fits", "none wanted"])
def test_without_a_fitting_identity_an_empty_certificate_is_sent_and_the_server_decides(
    versions: tuple[int, int], willing: bool
) -> None:
    context = server_context(versions=versions, client_ca=True)
    known = () if willing else (identity("p256"),)
    link = Link(configuration(client_certificate=willing), context, by=authority(identities=known))
    with pytest.raises((SSL.Error, AlertReceived)):
        link.shake()
    assert link.server_error is not None
    optional = server_context(versions=versions)
    ask_for_client_certificate(optional, required=False)
    link = Link(configuration(client_certificate=willing), optional, by=authority(identities=known)).shake()
    assert link.client.session is not None
    assert not link.client.session.client_authenticated
    check_data(link)


# --- after the handshake ----------------------------------------------------------------------------------------


def test_keys_are_updated_by_us_and_by_the_server_when_asked() -> None:
    link = Link(configuration(), server_context(versions=ONLY13)).shake()
    check_data(link)
    link.client.update_keys()
    check_data(link)
    for _ in range(3):
        link.client.update_keys(request_peer=True)
        check_data(link)
    assert link.server_error is None


def test_update_keys_does_nothing_in_tls_12() -> None:
    link = Link(configuration(), server_context(versions=ONLY12)).shake()
    link.client.update_keys(request_peer=True)
    assert link.client.data_to_send() == b""
    check_data(link)


@pytest.mark.parametrize("versions", [ONLY13, ONLY12], ids=["TLS_1_3", "TLS_1_2"])
def test_each_side_can_close_first(versions: tuple[int, int]) -> None:
    link = Link(configuration(), server_context(versions=versions)).shake()
    link.client.close()
    link.client.close()
    link.client_to_server()
    with pytest.raises(SSL.ZeroReturnError):
        link.server.recv(1)
    # The other direction stays open until the server closes it too.
    if versions == ONLY13:
        assert link.reply(b"still here") == b"still here"
    link.server.shutdown()
    link.server_to_client()
    assert isinstance(link.events[-1], CloseReceived)
    link.client.receive_data(b"")

    link = Link(configuration(), server_context(versions=versions)).shake()
    link.server.shutdown()
    link.server_to_client()
    assert isinstance(link.events[-1], CloseReceived)
    if versions == ONLY13:
        assert link.send(b"the rest") == b"the rest"
        link.client.close()
    link.client_to_server()
    assert link.server.shutdown() or link.server.get_shutdown() & SSL.RECEIVED_SHUTDOWN


@pytest.mark.parametrize("versions", [ONLY13, ONLY12], ids=["TLS_1_3", "TLS_1_2"])
def test_a_stream_that_ends_without_close_notify_is_truncated(versions: tuple[int, int]) -> None:
    link = Link(configuration(), server_context(versions=versions)).shake()
    check_data(link)
    with pytest.raises(Truncated):
        link.client.receive_data(b"")


@pytest.mark.parametrize("versions", [ONLY13, ONLY12], ids=["TLS_1_3", "TLS_1_2"])
@pytest.mark.parametrize("context_value", [b"", b"some context"], ids=["empty context", "context"])
def test_exported_keying_material_is_the_servers(versions: tuple[int, int], context_value: bytes) -> None:
    link = Link(configuration(), server_context(versions=versions)).shake()
    assert link.client.session is not None
    ours = link.client.session.export_keying_material("EXPORTER-locum-test", context_value, 48)
    assert ours == link.server.export_keying_material(b"EXPORTER-locum-test", 48, context_value)


@pytest.mark.parametrize("versions", [ONLY13, ONLY12], ids=["TLS_1_3", "TLS_1_2"])
def test_the_exporter_works_in_a_resumed_session(versions: tuple[int, int]) -> None:
    context = server_context(versions=versions)
    ticket = Link(configuration(), context).shake().tickets[0]
    link = Link(configuration(ticket=ticket), context).shake()
    assert link.resumed_at_server
    assert link.client.session is not None
    ours = link.client.session.export_keying_material("EXPORTER-locum-test", b"x", 32)
    assert ours == link.server.export_keying_material(b"EXPORTER-locum-test", 32, b"x")


def test_renegotiation_is_refused_with_a_warning_and_the_session_goes_on() -> None:
    link = Link(configuration(), server_context(versions=ONLY12)).shake()
    assert link.server.renegotiate()
    link.drive_server()
    link.server_to_client()
    assert link.client.data_to_send()[0] == 21
    assert not link.client.pending
    assert link.client.handshake_complete


# --- how bytes may be cut ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("versions", [ONLY13, ONLY12], ids=["TLS_1_3", "TLS_1_2"])
@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
def test_the_handshake_does_not_depend_on_how_its_bytes_are_cut(versions: tuple[int, int], chunk: int) -> None:
    context = server_context(versions=versions, client_ca=True, groups="P-384")
    link = Link(configuration(), context, by=authority(identities=(identity("rsa"),)), chunk=chunk).shake()
    check_data(link)


@pytest.mark.parametrize("versions", [ONLY13, ONLY12], ids=["TLS_1_3", "TLS_1_2"])
def test_large_transfers_arrive_whole_in_both_directions(versions: tuple[int, int]) -> None:
    link = Link(configuration(), server_context(versions=versions)).shake()
    data = bytes(range(256)) * 4096
    assert link.send(data) == data
    assert link.reply(data) == data


def test_records_that_arrive_in_one_piece_are_read_one_by_one() -> None:
    link = Link(configuration(), server_context()).shake()
    for number in range(50):
        link.server.send(b"%d," % number)
    link.server.shutdown()
    before = len(link.events)
    link.server_to_client()
    assert len(link.events) - before == 51
    assert isinstance(link.events[-1], CloseReceived)


# --- somebody on the path ---------------------------------------------------------------------------------------


def without_supported_versions(data: bytes) -> bytes:
    """What an attacker makes of a ClientHello who wants TLS 1.2: supported_versions becomes an unknown type."""
    versions = b"\x00\x2b\x00\x05\x04\x03\x04\x03\x03"
    return data.replace(versions, b"\xfa\xfa" + versions[2:])


def test_a_downgrade_by_somebody_on_the_path_is_noticed() -> None:
    link = Link(configuration(), server_context(), edit_to_server=without_supported_versions)
    with pytest.raises(IllegalParameter, match="downgraded"):
        link.shake()
    assert bytes(link.client.data_to_send()) == b"\x15\x03\x03\x00\x02\x02" + bytes(
        (AlertDescription.ILLEGAL_PARAMETER,)
    )


def test_a_server_that_can_only_tls_12_is_no_downgrade() -> None:
    link = Link(configuration(), server_context(versions=ONLY12)).shake()
    assert link.client.session is not None
    assert link.client.session.version is TLS12


@pytest.mark.parametrize("versions", [ONLY13, ONLY12], ids=["TLS_1_3", "TLS_1_2"])
def test_any_flipped_bit_in_the_servers_flight_ends_in_a_typed_error(versions: tuple[int, int]) -> None:
    context = server_context(versions=versions)
    flight = len(Link(configuration(), context).shake().sent_by_server) // 2
    for position in range(0, flight, 17):
        link = Link(configuration(), context, edit_to_client=Flip(position))
        with pytest.raises(LocumError):
            link.run()
            # What a flip makes of a record's length is that bytes are still missing.
            link.client.receive_data(b"")
        assert not any(isinstance(event, HandshakeComplete) for event in link.events)


def test_the_server_learns_by_alert_why_it_was_rejected() -> None:
    wrong = pki.leaf(pki.ca(), "p256", ("other.example.com",), slot="server:wrong")
    for versions in (ONLY13, ONLY12):
        link = Link(configuration(), server_context(wrong, versions=versions))
        with pytest.raises(PeerRejected):
            link.shake()
        link.client_to_server()
        link.drive_server()
        assert "bad certificate" in str(link.server_error)
