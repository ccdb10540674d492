"""Through a real delegate to three real servers: resumption and what a ClientHello can ask for (A10)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.delegation import SERVERS, TLS12, TLS13, Delegation, Visit, started
from tests.support.peers import Server, ServerOptions
from tests.support.terminal_system import NAME

from locum.errors import LocumError
from locum.terminal.steps import Actor
from locum.tls.alerts import AlertReceived
from locum.tls.registry import NamedGroup, ProtocolVersion
from locum.tls.session import SessionTicket

pytestmark = pytest.mark.xdist_group("delegated-sessions")

VERSIONS = pytest.mark.parametrize("version", [TLS13, TLS12], ids=["TLS 1.3", "TLS 1.2"])
EVERY_SERVER = pytest.mark.parametrize("kind", SERVERS)
OTHER_NAME = "other.example"
LARGE = bytes(range(256)) * 400


@pytest.fixture(scope="module")
def delegation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delegation]:
    with started(Delegation(tmp_path_factory.mktemp("sessions"))) as running:
        yield running


def server(delegation: Delegation, kind: str, *extra: str, **options: Any) -> Server:
    """A server with an ECDSA certificate."""
    settings = ServerOptions(certificates=(delegation.certificate("p256"),), **options)
    return delegation.server(kind, settings, *extra)


def operations(visit: Visit) -> list[str]:
    """What the delegate was asked, in the words of the steps."""
    return [step.detail for step in visit.steps if step.actor is Actor.DELEGATE]


def from_a_file(ticket: SessionTicket) -> SessionTicket:
    """The ticket after it has been written and read."""
    return SessionTicket.from_bytes(ticket.to_bytes())


# --- resumption -------------------------------------------------------------------------------------------


def check_resumed(visit: Visit) -> None:
    """Both ends say that the session was resumed; the peer is who it was."""
    assert visit.session.resumed
    assert visit.seen.resumed is not False
    assert visit.session.peer_identity == f"dns:{NAME}"
    assert visit.session.peer_certificates == ()
    assert not any("authentic" in detail for detail in operations(visit))


@EVERY_SERVER
@pytest.mark.parametrize("suite", [0x1301, 0x1302], ids=["SHA256", "SHA384"])
def test_a_tls_13_session_is_resumed_with_a_key_exchange(delegation: Delegation, kind: str, suite: int) -> None:
    options: dict[str, Any] = {"cipher_suites": (suite,), "groups": (NamedGroup.X25519,)}
    first = delegation.visit(server(delegation, kind), **options)
    assert not first.session.resumed and first.seen.resumed is not True
    second = delegation.visit(server(delegation, kind), ticket=from_a_file(first.tickets[-1]), **options)
    check_resumed(second)
    assert operations(second)[1:] == ["shared secret, X25519"]
    # A resumed session gives tickets too, and they are as good.
    check_resumed(delegation.visit(server(delegation, kind), ticket=second.tickets[-1], **options))


@EVERY_SERVER
def test_a_tls_13_session_is_resumed_after_a_hello_retry_request(delegation: Delegation, kind: str) -> None:
    picky = server(delegation, kind, groups="P-384")
    groups = (NamedGroup.X25519, NamedGroup.SECP384R1)
    ticket = delegation.visit(picky, groups=groups).tickets[-1]
    visit = delegation.visit(picky, groups=groups, ticket=ticket)
    check_resumed(visit)
    assert operations(visit)[1:] == ["another key share, SECP384R1", "shared secret, SECP384R1"]


@pytest.mark.parametrize("kind", ["s_server", "OpenSSL 4"])
def test_a_tls_13_session_is_resumed_without_a_key_exchange_where_both_sides_allow_it(
    delegation: Delegation, kind: str
) -> None:
    allowing = server(delegation, kind, resume_without_dhe=True)
    ticket = delegation.visit(allowing).tickets[-1]
    # s_server allows it and prefers a key exchange where the terminal offers one, which it always does.
    with_dhe = delegation.visit(allowing, ticket=ticket)
    check_resumed(with_dhe)
    assert with_dhe.session.group is not None
    without = delegation.visit(allowing, ticket=with_dhe.tickets[-1], psk_without_dhe=True)
    check_resumed(without)
    if kind == "OpenSSL 4":
        assert without.session.group is None
        assert len(operations(without)) == 1, "nothing but the start"


@EVERY_SERVER
def test_a_tls_12_session_is_resumed_from_a_ticket(delegation: Delegation, kind: str) -> None:
    first = delegation.visit(server(delegation, kind), versions=(TLS12,))
    (ticket,) = first.tickets
    second = delegation.visit(server(delegation, kind), versions=(TLS12,), ticket=from_a_file(ticket))
    check_resumed(second)
    assert len(operations(second)) == 1, "nothing but the start"


@EVERY_SERVER
@VERSIONS
def test_a_ticket_of_another_server_leads_to_a_full_handshake(
    delegation: Delegation, kind: str, version: ProtocolVersion
) -> None:
    ticket = delegation.visit(server(delegation, kind), versions=(version,)).tickets[-1]
    stranger = server(delegation, kind, groups="X25519:P-256")
    visit = delegation.visit(stranger, versions=(version,), ticket=ticket)
    assert not visit.session.resumed and visit.seen.resumed is not True
    assert any("authentic and allowed" in detail for detail in operations(visit))


@pytest.mark.parametrize(("kind", "version"), [("s_server", TLS13), ("OpenSSL 4", TLS12)], ids=str)
def test_a_server_without_tickets_gives_none(delegation: Delegation, kind: str, version: ProtocolVersion) -> None:
    # In TLS 1.3 the option only changes what is in a ticket; in TLS 1.2 the other two know session ids too.
    silent = (
        server(delegation, kind, "-num_tickets", "0")
        if version is TLS13
        else server(delegation, kind, tickets=False)
    )
    assert delegation.visit(silent, versions=(version,)).tickets == ()


# --- extended master secret -------------------------------------------------------------------------------


def test_extended_master_secret_is_used_where_the_server_has_it(delegation: Delegation) -> None:
    # Of the three, nginx alone can be told to do without.
    old = server(delegation, "nginx", "ssl_conf_command Options -ExtendedMasterSecret")
    without = delegation.visit(old, versions=(TLS12,))
    with_it = delegation.visit(server(delegation, "nginx"), versions=(TLS12,))
    assert len(with_it.session.export_keying_material("EXPORTER-locum-test", b"", 16)) == 16
    # RFC 7627 section 5.4: without it neither exporters nor resumption are safe.
    with pytest.raises(LocumError, match="export"):
        without.session.export_keying_material("EXPORTER-locum-test", b"", 16)
    assert with_it.tickets and not without.tickets


def test_s_server_confirms_the_extended_master_secret(delegation: Delegation) -> None:
    visit = delegation.visit(server(delegation, "s_server"), versions=(TLS12,))
    assert b"Extended master secret: yes" in visit.page


# --- names and protocols ----------------------------------------------------------------------------------


@VERSIONS
def test_the_server_name_chooses_the_certificate(delegation: Delegation, version: ProtocolVersion) -> None:
    other = delegation.authority.issue(OTHER_NAME, names=(OTHER_NAME,))
    words = ("-servername", OTHER_NAME, "-cert2", str(other.chain), "-key2", str(other.key))
    named = server(delegation, "s_server", *words)
    for name in (NAME, OTHER_NAME, NAME):
        visit = delegation.visit(named, versions=(version,), server_name=name)
        assert visit.session.peer_identity == f"dns:{name}"


@VERSIONS
def test_nginx_is_told_the_name(delegation: Delegation, version: ProtocolVersion) -> None:
    visit = delegation.visit(server(delegation, "nginx"), versions=(version,))
    assert f"X-Name: {NAME}\r\n".encode() in visit.page


@EVERY_SERVER
@VERSIONS
def test_an_application_protocol_is_negotiated(
    delegation: Delegation, kind: str, version: ProtocolVersion
) -> None:
    # nginx knows one by itself; the others are told.
    options = {} if kind == "nginx" else {"alpn": ("http/1.1", "mqtt")}
    offered = ("mqttx", "http/1.1")
    visit = delegation.visit(server(delegation, kind, **options), versions=(version,), alpn=offered)
    assert visit.session.alpn == "http/1.1"
    if kind == "nginx":
        assert b"X-Alpn: http/1.1\r\n" in visit.page


@pytest.mark.parametrize("kind", ["s_server", "OpenSSL 4"])
@VERSIONS
def test_without_a_common_protocol_the_server_decides(
    delegation: Delegation, kind: str, version: ProtocolVersion
) -> None:
    picky = server(delegation, kind, alpn=("mqtt",))
    if kind == "s_server":
        # RFC 7301 section 3.2: "the server SHALL send a fatal no_application_protocol alert".
        with pytest.raises(AlertReceived, match="no_application_protocol"):
            delegation.visit(picky, versions=(version,), alpn=("coap",))
    else:
        assert delegation.visit(picky, versions=(version,), alpn=("coap",)).session.alpn is None


# --- record sizes -----------------------------------------------------------------------------------------


@EVERY_SERVER
@VERSIONS
def test_a_limit_on_records_is_offered_to_servers_that_ignore_it(
    delegation: Delegation, kind: str, version: ProtocolVersion
) -> None:
    """None of the three knows RFC 8449; what they must not do is stumble over it."""
    visit = delegation.visit(server(delegation, kind), versions=(version,), record_size_limit=1024)
    assert visit.session.version is version


@pytest.mark.parametrize("kind", ["s_server", "nginx"])
@VERSIONS
def test_small_records_of_the_server_are_put_together(
    delegation: Delegation, kind: str, version: ProtocolVersion
) -> None:
    certificate = delegation.certificate("p256")
    settings = ServerOptions(certificates=(certificate,), pages={"index.html": LARGE}, record_size=512)
    small = delegation.server(kind, settings, telling=False)
    with delegation.connect(small, versions=(version,)) as session:
        session.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
        with session.makefile("rb") as file:
            assert file.read().endswith(LARGE)


@VERSIONS
def test_records_without_compatibility_mode_are_understood(
    delegation: Delegation, version: ProtocolVersion
) -> None:
    plain = server(delegation, "s_server", middlebox_compatibility=False)
    assert delegation.visit(plain, versions=(version,)).session.version is version


@VERSIONS
def test_padded_records_are_understood(delegation: Delegation, version: ProtocolVersion) -> None:
    padded = server(delegation, "s_server", "-record_padding", "1000")
    assert delegation.visit(padded, versions=(version,)).session.version is version


def test_every_ticket_of_a_session_is_told(delegation: Delegation) -> None:
    told: list[SessionTicket] = []
    visit = delegation.visit(
        server(delegation, "s_server", "-num_tickets", "5"), versions=(TLS13,), on_ticket=told.append
    )
    assert len(told) == len(visit.tickets) == 5
