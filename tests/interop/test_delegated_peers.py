"""Through a real delegate to three real servers: who the peer is, and who the terminal is (A5, A6, A10)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import pki
from tests.support.delegation import SERVERS, TLS12, TLS13, Delegation, started
from tests.support.peers import CertificateAuthority, Server, ServerOptions
from tests.support.terminal_system import NAME, read_page

from locum.errors import Unavailable
from locum.handshake import PeerRejected
from locum.tls.alerts import AlertReceived
from locum.tls.registry import NamedGroup, ProtocolVersion

pytestmark = pytest.mark.xdist_group("delegated-peers")

VERSIONS = pytest.mark.parametrize("version", [TLS13, TLS12], ids=["TLS 1.3", "TLS 1.2"])
EVERY_SERVER = pytest.mark.parametrize("kind", SERVERS)
#: Kinds of keys that a terminal's identity at the delegate may have.
IDENTITIES = ("rsa2048", "p256", "p384", "ed25519")
#: Who signs certificates that path validation of the library accepts.
AUTHORITIES = ("rsa2048", "rsa3072", "p256", "p384", "mldsa65")
#: An alert, or what is left when a server closes TCP over its own alert, as the OpenSSL 4 server does.
TURNED_AWAY = (AlertReceived, Unavailable)
WITHOUT_IDENTITY = "meter-without-identity"


class Peers(Delegation):
    """Besides: authorities of every kind, a pinned key, and for identities of every kind a terminal each."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.authorities = {kind: CertificateAuthority(directory, f"by-{kind}", kind=kind) for kind in AUTHORITIES}
        self.demanding = pki.ca(name="demanding")
        self.demanded = pki.leaf(self.demanding, names=(NAME,), must_staple=True)
        self.pinned = self.files(pki.self_signed(names=(NAME,)), "pinned")
        (directory / "demanding.pem").write_bytes(self.demanding.pem)
        self.locum("trust", "add", directory / "demanding.pem", *(root.path for root in self.authorities.values()))
        self.locum("trust", "add", self.pinned.chain, "--pin", "--peer", f"dns:{NAME}", "--name", "my-server")

    def start(self) -> None:
        super().start()
        for kind in IDENTITIES:
            self.enrol(f"meter-{kind}")
            issued = self.authority.issue(f"client-{kind}", kind=kind, usage="client", names=("meter.example",))
            self.locum(
                *("identity", "add", kind, "--cert", issued.chain, "--key", issued.key),
                *("--terminal", f"meter-{kind}", "--peer", f"dns:{NAME}"),
            )
        # An identity is only for a terminal that is enrolled; from now on it is in force.
        self.node.stop()
        self.node.start()

    def serve(self, kind: str, certificate: Any, *extra: str, **options: Any) -> Server:
        """A server that shows this certificate."""
        return self.server(kind, ServerOptions(certificates=(certificate,), **options), *extra)


@pytest.fixture(scope="module")
def delegation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    prepared = Peers(tmp_path_factory.mktemp("peers"))
    with started(prepared):
        yield prepared


# --- chains -----------------------------------------------------------------------------------------------


@EVERY_SERVER
@VERSIONS
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_chain_is_followed_to_its_root(
    delegation: Peers, kind: str, version: ProtocolVersion, depth: int
) -> None:
    authority = delegation.authority
    for level in range(depth):
        authority = authority.intermediate(f"intermediate-{depth}-{level}")
    certificate = authority.issue(f"below-{depth}")
    visit = delegation.visit(delegation.serve(kind, certificate), versions=(version,))
    assert visit.session.peer_identity == f"dns:{NAME}"
    assert len(visit.session.peer_certificates) >= depth + 1


@pytest.mark.parametrize(
    ("kind", "key"),
    # An older OpenSSL does not load a certificate that was signed with ML-DSA.
    [(kind, key) for kind in SERVERS for key in AUTHORITIES if kind == "OpenSSL 4" or key != "mldsa65"],
)
def test_every_kind_of_authority_vouches_for_a_server(delegation: Peers, kind: str, key: str) -> None:
    certificate = delegation.authorities[key].issue(f"by-{key}")
    assert delegation.visit(delegation.serve(kind, certificate)).session.peer_identity == f"dns:{NAME}"


def test_a_session_is_post_quantum_from_the_root_to_the_record(delegation: Peers) -> None:
    """X2: ML-DSA authority and certificate, ML-KEM key exchange, and a terminal that knows neither."""
    root = delegation.authorities["mldsa65"]
    certificate = root.intermediate("ml-dsa-intermediate", kind="mldsa65").issue("ml-dsa", kind="mldsa44")
    visit = delegation.visit(delegation.serve("OpenSSL 4", certificate), groups=(NamedGroup.X25519MLKEM768,))
    assert visit.session.group == NamedGroup.X25519MLKEM768
    assert visit.session.peer_identity == f"dns:{NAME}"


@EVERY_SERVER
@VERSIONS
def test_a_server_without_a_chain_to_trust_is_told_so(
    delegation: Peers, kind: str, version: ProtocolVersion
) -> None:
    certificate = CertificateAuthority(delegation.directory, "nobody").issue("stranger")
    with pytest.raises(PeerRejected, match="not trusted"):
        delegation.visit(delegation.serve(kind, certificate), versions=(version,))


# --- names ------------------------------------------------------------------------------------------------


@EVERY_SERVER
@VERSIONS
@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("127.0.0.1", "ip:127.0.0.1"),
        ("::1", "ip:::1"),
        ("localhost", "dns:localhost"),
        ("LOCALHOST", "dns:localhost"),
        ("plc.plant.example", "dns:plc.plant.example"),
    ],
)
def test_a_peer_proves_the_name_that_it_is_called_by(
    delegation: Peers, kind: str, version: ProtocolVersion, name: str, identity: str
) -> None:
    certificate = delegation.authority.issue("named", names=("localhost", "127.0.0.1", "::1", "*.plant.example"))
    visit = delegation.visit(delegation.serve(kind, certificate), versions=(version,), server_name=name)
    assert visit.session.peer_identity == identity


def test_an_address_is_proven_as_an_address_where_the_terminal_connects_to_one(delegation: Peers) -> None:
    visit = delegation.visit(delegation.serve("nginx", delegation.certificate("p256")), host="127.0.0.1")
    assert visit.session.peer_identity == "ip:127.0.0.1"
    assert b"X-Name" not in visit.page, "RFC 6066 section 3: literal addresses are not sent as names"


@EVERY_SERVER
@VERSIONS
@pytest.mark.parametrize("name", ["other.example", "127.0.0.2", "local", "a.localhost"])
def test_another_name_is_not_proven(delegation: Peers, kind: str, version: ProtocolVersion, name: str) -> None:
    server = delegation.serve(kind, delegation.certificate("p256"))
    with pytest.raises(PeerRejected, match=f"not for {name}"):
        delegation.visit(server, versions=(version,), server_name=name)


@EVERY_SERVER
@VERSIONS
def test_a_pinned_key_needs_no_authority_and_is_for_its_peer_alone(
    delegation: Peers, kind: str, version: ProtocolVersion
) -> None:
    server = delegation.serve(kind, delegation.pinned)
    visit = delegation.visit(server, versions=(version,))
    assert visit.session.peer_identity == "pin:my-server"
    with pytest.raises(PeerRejected):
        delegation.visit(server, versions=(version,), server_name="other.example")


# --- stapled OCSP responses -------------------------------------------------------------------------------


@EVERY_SERVER
@VERSIONS
@pytest.mark.parametrize("revoked", [False, True], ids=["good", "revoked"])
def test_a_stapled_response_decides(delegation: Peers, kind: str, version: ProtocolVersion, revoked: bool) -> None:
    certificate = delegation.certificate("p256")
    staple = certificate.issuer.ocsp(certificate, revoked=revoked)
    server = delegation.serve(kind, certificate, ocsp_response=staple)
    if not revoked:
        assert delegation.visit(server, versions=(version,)).session.version is version
        return
    with pytest.raises(PeerRejected, match="revoked"):
        delegation.visit(server, versions=(version,))


@EVERY_SERVER
@VERSIONS
@pytest.mark.parametrize("staple", ["good", "revoked", "missing"])
def test_a_certificate_that_must_be_stapled_is_nothing_without(
    delegation: Peers, kind: str, version: ProtocolVersion, staple: str
) -> None:
    issued = delegation.demanded
    certificate = delegation.files(issued, "must-staple")
    options: dict[str, Any] = {}
    if staple != "missing":
        response = pki.ocsp_response(delegation.demanding, issued.certificate, revoked=staple == "revoked")
        options["ocsp_response"] = delegation.directory / f"{staple}.ocsp"
        options["ocsp_response"].write_bytes(response)
    server = delegation.serve(kind, certificate, **options)
    if staple == "good":
        assert delegation.visit(server, versions=(version,)).session.version is version
        return
    with pytest.raises(PeerRejected, match={"revoked": "revoked", "missing": "OCSP"}[staple]):
        delegation.visit(server, versions=(version,))


# --- the terminal's own certificate -----------------------------------------------------------------------


def demanding(delegation: Peers, kind: str) -> Server:
    """A server that insists on a certificate of the terminal."""
    return delegation.serve(kind, delegation.certificate("p256"), client_ca=delegation.authority.path)


def asking(delegation: Peers, kind: str) -> Server:
    """A server that asks for a certificate and does without."""
    certificate, ca = delegation.certificate("p256"), delegation.authority.path
    if kind == "s_server":
        return delegation.serve(kind, certificate, "-verify", "3", "-CAfile", str(ca))
    return delegation.serve(kind, certificate, "ssl_verify_client optional", f"ssl_client_certificate {ca}")


@EVERY_SERVER
@VERSIONS
@pytest.mark.parametrize("key", IDENTITIES)
def test_the_delegate_signs_for_the_terminal(
    delegation: Peers, kind: str, version: ProtocolVersion, key: str
) -> None:
    visit = delegation.visit(
        demanding(delegation, kind), credential=delegation.enrol(f"meter-{key}"), versions=(version,)
    )
    assert visit.session.client_authenticated
    assert visit.seen.client == f"client-{key}"


@EVERY_SERVER
@pytest.mark.parametrize("key", ["rsa2048", "p256"])
def test_the_delegate_signs_in_a_session_with_rsa_key_exchange(delegation: Peers, kind: str, key: str) -> None:
    certificate, ca = delegation.certificate("rsa2048"), delegation.authority.path
    server = delegation.serve(kind, certificate, client_ca=ca, ciphers="AES128-GCM-SHA256")
    visit = delegation.visit(server, credential=delegation.enrol(f"meter-{key}"), versions=(TLS12,))
    assert visit.session.client_authenticated
    assert visit.seen.client == f"client-{key}"


@pytest.mark.parametrize("kind", ["s_server", "nginx"])
@VERSIONS
@pytest.mark.parametrize("key", ["p256", None])
def test_a_server_that_asks_gets_a_certificate_or_does_without(
    delegation: Peers, kind: str, version: ProtocolVersion, key: str | None
) -> None:
    credential = delegation.enrol(f"meter-{key}" if key else WITHOUT_IDENTITY)
    visit = delegation.visit(asking(delegation, kind), credential=credential, versions=(version,))
    assert visit.session.client_authenticated == (key is not None)
    assert visit.seen.client == (f"client-{key}" if key else "")


@EVERY_SERVER
@VERSIONS
@pytest.mark.parametrize("willing", [True, False], ids=["has none", "wants none"])
def test_a_server_that_insists_turns_away_who_shows_no_certificate(
    delegation: Peers, kind: str, version: ProtocolVersion, willing: bool
) -> None:
    credential = delegation.enrol(WITHOUT_IDENTITY if willing else "meter-p256")
    options = {"credential": credential, "versions": (version,), "client_certificate": willing}
    if kind == "nginx":
        # It makes the handshake all the same, and says no in HTTP.
        with delegation.connect(demanding(delegation, kind), **options) as session:
            assert b"400 No required SSL certificate was sent" in read_page(session)
        return
    # In TLS 1.3 the session is there before the server has looked at the certificate.
    with pytest.raises(TURNED_AWAY):
        delegation.visit(demanding(delegation, kind), **options)


@EVERY_SERVER
@VERSIONS
def test_an_identity_is_shown_to_its_own_peers_only(
    delegation: Peers, kind: str, version: ProtocolVersion
) -> None:
    options = {"credential": delegation.enrol("meter-p256"), "versions": (version,), "server_name": "127.0.0.1"}
    if kind == "OpenSSL 4":
        with pytest.raises(TURNED_AWAY):
            delegation.visit(demanding(delegation, kind), **options)
    else:
        assert delegation.visit(asking(delegation, kind), **options).seen.client == ""
