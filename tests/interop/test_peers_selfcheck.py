"""The peers that the other interop tests rely on do what their options say, seen by independent clients."""

import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from OpenSSL import SSL
from tests.support.peers import (
    CertificateAuthority,
    Issued,
    NginxServer,
    Openssl4Server,
    OpensslServer,
    Server,
    ServerOptions,
)

from locum.demo.programs import PROGRAMS, Program, ProgramMissing
from locum.errors import ConfigurationError, Unavailable

SERVERS = (OpensslServer, NginxServer, Openssl4Server)
PAGE = b"It works, and the peer cannot tell.\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("pki"), "root")


@pytest.fixture(scope="module")
def leaf(authority: CertificateAuthority) -> Issued:
    return authority.intermediate("intermediate").issue("leaf")


@pytest.fixture(autouse=True)
def programs(require: Callable[[str], Path]) -> None:
    require("openssl")
    require("nginx")


def client(authority: CertificateAuthority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.path))


def connect(server: Server, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    raw = socket.create_connection((server.host, server.port), timeout=10)
    return context.wrap_socket(raw, server_hostname="localhost", session=session)


def fetch(server: Server, context: ssl.SSLContext, connection: ssl.SSLSocket | None = None) -> bytes:
    with connection or connect(server, context) as connection:
        connection.sendall(b"GET /index.html HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b""
        while data := connection.recv(65_536):
            answer += data
        return answer


def openssl4_client(server: Server, groups: str) -> str:
    """Handshake with an OpenSSL 4 client; returns the group."""
    from OpenSSL._util import lib

    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    assert lib.SSL_CTX_set1_curves_list(context._context, groups.encode()) == 1
    with socket.create_connection((server.host, server.port), timeout=10) as raw:
        raw.setblocking(True)
        connection = SSL.Connection(context, raw)
        connection.set_connect_state()
        connection.do_handshake()
        group = connection.get_group_name()
        assert group is not None
        return group


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_serves_its_page_in_the_one_version_asked_for(
    kind: type[Server], version: str, tmp_path: Path, authority: CertificateAuthority, leaf: Issued
) -> None:
    with kind(tmp_path, ServerOptions(certificates=(leaf,), versions=(version,))) as server:
        context = client(authority)
        connection = connect(server, context)
        assert connection.version() == f"TLSv{version}"
        answer = fetch(server, context, connection)
    assert answer.endswith(PAGE), server.log
    assert b" 200 " in answer.split(b"\r\n")[0]


@pytest.mark.parametrize("kind", SERVERS)
def test_another_version_is_not_spoken(
    kind: type[Server], tmp_path: Path, authority: CertificateAuthority, leaf: Issued
) -> None:
    context = client(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        kind(tmp_path, ServerOptions(certificates=(leaf,), versions=("1.3",))) as server,
        pytest.raises(ssl.SSLError),
    ):
        fetch(server, context)


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("cipher", ["ECDHE-RSA-AES256-GCM-SHA384", "AES128-GCM-SHA256"])
def test_cipher_list_decides_the_tls12_suite(
    kind: type[Server], cipher: str, tmp_path: Path, authority: CertificateAuthority
) -> None:
    leaf = authority.issue("rsa", kind="rsa2048")
    context = client(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ALL")
    with (
        kind(tmp_path, ServerOptions(certificates=(leaf,), ciphers=cipher)) as server,
        connect(server, context) as connection,
    ):
        assert (connection.cipher() or [None])[0] == cipher


@pytest.mark.parametrize("kind", SERVERS)
def test_two_certificates_are_chosen_by_key_type(
    kind: type[Server], tmp_path: Path, authority: CertificateAuthority, leaf: Issued
) -> None:
    rsa = authority.issue("rsa-of-two", kind="rsa2048")
    context = client(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with kind(tmp_path, ServerOptions(certificates=(rsa, leaf))) as server:
        for cipher in ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"):
            context.set_ciphers(cipher)
            assert fetch(server, context).endswith(PAGE)


@pytest.mark.parametrize("kind", SERVERS)
def test_client_certificate_is_demanded(
    kind: type[Server], tmp_path: Path, authority: CertificateAuthority, leaf: Issued
) -> None:
    identity = authority.issue("client", usage="client", names=("client.example",))
    options = ServerOptions(certificates=(leaf,), client_ca=authority.path, versions=("1.2",))
    with kind(tmp_path, options) as server:
        context = client(authority)
        try:
            answer = fetch(server, context)
        except OSError:
            answer = b""
        assert not answer.endswith(PAGE)
        context.load_cert_chain(str(identity.chain), str(identity.key))
        answer = fetch(server, context)
    assert answer.endswith(PAGE), server.log


# The other two resume from a cache of their own when tickets are off.
@pytest.mark.parametrize(("kind", "tickets"), [*((kind, True) for kind in SERVERS), (Openssl4Server, False)])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_sessions_resume_where_there_are_tickets(
    kind: type[Server], version: str, tickets: bool, tmp_path: Path, authority: CertificateAuthority, leaf: Issued
) -> None:
    context = client(authority)
    with kind(tmp_path, ServerOptions(certificates=(leaf,), versions=(version,), tickets=tickets)) as server:
        first = connect(server, context)
        first.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
        assert first.recv(65_536)
        session = first.session
        first.close()
        with connect(server, context, session) as second:
            assert second.session_reused is tickets


@pytest.mark.parametrize("kind", SERVERS)
def test_ocsp_response_is_stapled(
    kind: type[Server],
    tmp_path: Path,
    authority: CertificateAuthority,
    leaf: Issued,
    require: Callable[[str], Path],
) -> None:
    staple = leaf.issuer.ocsp(leaf)
    with kind(tmp_path, ServerOptions(certificates=(leaf,), ocsp_response=staple)) as server:
        done = subprocess.run(
            [require("openssl"), "s_client", "-connect", f"{server.host}:{server.port}", "-status"],
            input=b"",
            capture_output=True,
            timeout=20,
            check=False,
        )
    assert b"Cert Status: good" in done.stdout


@pytest.mark.parametrize("group", ["X25519MLKEM768", "SecP256r1MLKEM768", "X448", "secp384r1"])
def test_openssl4_speaks_the_group_asked_for(group: str, tmp_path: Path, leaf: Issued) -> None:
    with Openssl4Server(tmp_path, ServerOptions(certificates=(leaf,), groups=group)) as server:
        assert openssl4_client(server, f"X25519:{group}").lower() == group.lower()


@pytest.mark.parametrize("kind", ["mldsa44", "mldsa65", "mldsa87", "ed25519", "ed448", "p521"])
def test_openssl4_serves_certificates_of_every_kind(
    kind: str, tmp_path: Path, authority: CertificateAuthority
) -> None:
    leaf = authority.issue(kind, kind=kind)
    with Openssl4Server(tmp_path, ServerOptions(certificates=(leaf,))) as server:
        assert openssl4_client(server, "X25519") == "x25519"


def test_echo_sends_back(tmp_path: Path, authority: CertificateAuthority, leaf: Issued) -> None:
    options = ServerOptions(certificates=(leaf,), echo=True)
    with Openssl4Server(tmp_path, options) as server, connect(server, client(authority)) as connection:
        connection.sendall(b"abc")
        assert connection.recv(3) == b"abc"


def test_alpn_is_negotiated(tmp_path: Path, authority: CertificateAuthority, leaf: Issued) -> None:
    context = client(authority)
    context.set_alpn_protocols(["mqtt", "http/1.1"])
    options = ServerOptions(certificates=(leaf,), alpn=("http/1.1",))
    for kind in (OpensslServer, Openssl4Server):
        with kind(tmp_path / kind.__name__, options) as server, connect(server, context) as connection:
            assert connection.selected_alpn_protocol() == "http/1.1"


def test_a_server_that_cannot_start_says_why(tmp_path: Path, leaf: Issued) -> None:
    with pytest.raises(Unavailable, match="no-such-cipher"):
        NginxServer(tmp_path, ServerOptions(certificates=(leaf,), ciphers="no-such-cipher")).start()


def test_an_option_that_a_server_does_not_have_is_refused(tmp_path: Path, leaf: Issued) -> None:
    with pytest.raises(ConfigurationError, match="echo"):
        NginxServer(tmp_path, ServerOptions(certificates=(leaf,), echo=True))


def test_a_stopped_server_is_gone(tmp_path: Path, leaf: Issued) -> None:
    with NginxServer(tmp_path, ServerOptions(certificates=(leaf,))) as server:
        process = server.process
        assert process.running
    assert not process.running
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port), timeout=10)


def test_a_missing_program_names_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaf: Issued
) -> None:
    monkeypatch.setitem(PROGRAMS, "nginx", Program("no-such-program", "nginx"))
    with pytest.raises(ProgramMissing, match="apt-get install --no-install-recommends nginx"):
        NginxServer(tmp_path, ServerOptions(certificates=(leaf,)))
