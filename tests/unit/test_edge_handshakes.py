"""An edge whose keys are elsewhere: handshakes of every kind, with OpenSSL as the client (C1, C2, C5, C10, X5)."""

from __future__ import annotations

import ssl
import time

import pytest
from tests.support import pki
from tests.support.edge import (
    SITE,
    Keys,
    certificate,
    client_context,
    connected,
    exchange,
    running_edge,
)
from tests.support.edge import echo as echo_handler
from tests.support.terminal_peer import RawPeer

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
DATA = bytes(range(256)) * 64

#: Name, kind of key, version, cipher list of the client, and what the key server is asked.
MODES = {
    "tls13-p256": ("p256", TLS13, "", "CertificateVerify"),
    "tls13-p384": ("p384", TLS13, "", "CertificateVerify"),
    "tls13-rsa": ("rsa", TLS13, "", "CertificateVerify"),
    "tls13-ed25519": ("ed25519", TLS13, "", "CertificateVerify"),
    "tls12-ecdhe-ecdsa": ("p256", TLS12, "ECDHE-ECDSA-AES128-GCM-SHA256", "ServerKeyExchange"),
    "tls12-ecdhe-rsa": ("rsa", TLS12, "ECDHE-RSA-AES256-GCM-SHA384", "ServerKeyExchange"),
    "tls12-chacha": ("p256", TLS12, "ECDHE-ECDSA-CHACHA20-POLY1305", "ServerKeyExchange"),
    "tls12-rsa": ("rsa", TLS12, "AES128-GCM-SHA256", "MasterSecret"),
    "tls12-rsa-sha384": ("rsa", TLS12, "AES256-GCM-SHA384", "MasterSecret"),
}
_RAW = {"CertificateVerify": "Sign", "ServerKeyExchange": "Sign", "MasterSecret": "Decrypt"}


@pytest.fixture(scope="module")
def backend():  # type: ignore[no-untyped-def]
    with RawPeer(echo_handler) as peer:
        yield peer.port


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("permission", ["bound", "raw", "mute"])
def test_a_handshake_takes_one_private_operation_and_the_rest_is_the_edges(
    backend: int, mode: str, permission: str
) -> None:
    kind, version, ciphers, operation = MODES[mode]
    site = certificate(kind)
    keys = Keys(site, bound=permission == "bound", raw=permission != "bound", mute=permission == "mute")
    with running_edge([keys], files=[site], backend=backend) as edge:
        keys.performed.clear()
        with connected(edge.port, client_context(version, ciphers=ciphers)) as stream:
            assert exchange(stream, DATA) == DATA
            assert stream.version() == ("TLSv1.3" if version is TLS13 else "TLSv1.2")
        wanted = operation if permission == "bound" else _RAW[operation]
        assert [each for each in keys.performed if "Quer" not in each] == [wanted]


def test_a_client_gets_the_certificate_that_it_can_verify(backend: int) -> None:
    curve, rsa = certificate("p256"), certificate("rsa")
    with running_edge([Keys(curve, rsa)], files=[rsa, curve], backend=backend) as edge:
        shown = {}
        for name, ciphers in (("curve", "ECDHE-ECDSA-AES128-GCM-SHA256"), ("rsa", "ECDHE-RSA-AES128-GCM-SHA256")):
            with connected(edge.port, client_context(TLS12, ciphers=ciphers)) as stream:
                shown[name] = stream.getpeercert(binary_form=True)
        with connected(edge.port) as stream:
            shown["best"] = stream.getpeercert(binary_form=True)
    assert shown == {"curve": curve.der, "rsa": rsa.der, "best": curve.der}


def test_an_own_key_and_a_remote_one_serve_side_by_side(backend: int) -> None:
    own, remote = certificate("p256", ("own.example.com",)), certificate("p256", ("remote.example.com",))
    keys = Keys(remote)
    with running_edge([keys], files=[own, remote], own=[own], backend=backend) as edge:
        keys.performed.clear()
        with connected(edge.port, name="own.example.com") as stream:
            assert exchange(stream, b"own") == b"own"
        assert "CertificateVerify" not in keys.performed
        with connected(edge.port, name="remote.example.com") as stream:
            assert exchange(stream, b"remote") == b"remote"
        assert "CertificateVerify" in keys.performed


def test_without_a_key_server_an_edge_serves_with_its_own_key(backend: int) -> None:
    site = certificate("p256")
    with running_edge(files=[site], own=[site], backend=backend) as edge, connected(edge.port) as stream:
        assert exchange(stream, DATA) == DATA


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["tls12", "tls13"])
def test_a_session_is_resumed_at_another_edge_of_the_same_key_server(
    backend: int, version: ssl.TLSVersion
) -> None:
    site = certificate("p256")
    context = client_context(version)
    with (
        running_edge([Keys(site)], files=[site], backend=backend) as first,
        running_edge([Keys(site)], files=[site], backend=backend) as second,
    ):
        with connected(first.port, context) as stream:
            assert exchange(stream, b"first") == b"first"
            session = stream.session
        with connected(second.port, context, session=session) as stream:
            assert exchange(stream, b"second") == b"second"
            assert stream.session_reused
        assert second.server.counts.resumed == 1


def test_two_key_servers_and_one_of_them_lost_costs_no_handshake(backend: int) -> None:
    site = certificate("p256")
    with running_edge([Keys(site), Keys(site)], files=[site], backend=backend) as edge:
        for round_number in range(6):
            if round_number == 2:
                edge.thread.call(edge.servers[0].stop())
            if round_number == 4:
                edge.thread.call(edge.servers[0].start())
                deadline = time.monotonic() + 20
                while edge.servers[0].connections < 2 and time.monotonic() < deadline:
                    time.sleep(0.05)
                edge.thread.call(edge.servers[1].stop())
            with connected(edge.port) as stream:
                assert exchange(stream, b"x") == b"x"
        assert edge.server.counts.failed == 0


def test_a_refused_operation_ends_the_handshake_with_an_alert_and_others_go_on(backend: int) -> None:
    site = certificate("p256")
    keys = Keys(site)
    with running_edge([keys], files=[site], backend=backend) as edge:
        keys.refusing = True
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"), connected(edge.port):
            pass
        keys.refusing = False
        with connected(edge.port) as stream:
            assert exchange(stream, b"again") == b"again"


def test_a_key_that_nobody_offers_is_said_to_be_missing_by_an_alert(backend: int) -> None:
    site = certificate("p256")
    with (
        running_edge([Keys(certificate("rsa"))], files=[site], backend=backend) as edge,
        pytest.raises(ssl.SSLError, match=r"(?i)alert"),
        connected(edge.port),
    ):
        pass


def test_alpn_is_chosen_by_the_edge_and_must_be_met(backend: int) -> None:
    site = certificate("p256")
    with running_edge([Keys(site)], files=[site], backend=backend, alpn=("h2", "http/1.1")) as edge:
        context = client_context()
        context.set_alpn_protocols(["http/1.1", "h2"])
        with connected(edge.port, context) as stream:
            assert stream.selected_alpn_protocol() == "h2"
        context.set_alpn_protocols(["smtp"])
        with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"), connected(edge.port, context):
            pass


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["tls12", "tls13"])
class TestClientCertificates:
    def edge(self, tmp_path, backend: int, **options):  # type: ignore[no-untyped-def]
        site = certificate("p256")
        authority = tmp_path / "clients.pem"
        authority.write_bytes(pki.ca(name="Clients").pem)
        return running_edge(
            [Keys(site)], files=[site], backend=backend, client_authorities=(authority,), **options
        )

    def test_a_client_of_the_authority_is_let_in(self, tmp_path, backend: int, version: ssl.TLSVersion) -> None:  # type: ignore[no-untyped-def]
        identity = pki.client(pki.ca(name="Clients"))
        with (
            self.edge(tmp_path, backend) as edge,
            connected(edge.port, client_context(version, identity=identity)) as stream,
        ):
            assert exchange(stream, b"known") == b"known"

    @pytest.mark.parametrize("who", ["nobody", "stranger"])
    def test_others_are_not(self, tmp_path, backend: int, version: ssl.TLSVersion, who: str) -> None:  # type: ignore[no-untyped-def]
        identity = pki.client(pki.ca(name="Strangers")) if who == "stranger" else None
        with (
            self.edge(tmp_path, backend) as edge,
            pytest.raises((ssl.SSLError, ConnectionError)),
            connected(edge.port, client_context(version, identity=identity)) as stream,
        ):
            assert exchange(stream, b"unknown") == b"unknown"

    def test_where_it_is_optional_nobody_is_let_in_too(
        self,
        tmp_path,  # type: ignore[no-untyped-def]
        backend: int,
        version: ssl.TLSVersion,
    ) -> None:
        with (
            self.edge(tmp_path, backend, client_optional=True) as edge,
            connected(edge.port, client_context(version)) as stream,
        ):
            assert exchange(stream, b"nobody") == b"nobody"


def test_the_site_is_the_default_for_names_that_are_unknown(backend: int) -> None:
    site = certificate("p256")
    with running_edge([Keys(site)], files=[site], backend=backend) as edge:
        context = client_context()
        context.check_hostname = False
        with connected(edge.port, context, name="other.example.com") as stream:
            assert stream.getpeercert(binary_form=True) == site.der
    assert SITE in str(site.certificate.extensions)
