"""Through a real delegate to three real servers: every cipher suite, group and kind of key (A10, X1, X2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.delegation import SERVERS, TLS12, TLS13, Delegation, KeyFiles, openssl, started
from tests.support.openssl_names import CLASSICAL_GROUPS, GROUPS, HYBRID_GROUPS, SUITES_12, SUITES_13
from tests.support.peers import Server, ServerOptions

from locum.tls.registry import CIPHER_SUITES, KeyExchange, NamedGroup, ProtocolVersion

pytestmark = pytest.mark.xdist_group("delegated-suites")

#: CCM with a tag of 8 bytes is below OpenSSL's default security level.
EVERY_CIPHER = "ALL:@SECLEVEL=0"
#: Which servers know which groups.
KNOWN = [(kind, group) for kind in SERVERS for group in CLASSICAL_GROUPS]
KNOWN += [("OpenSSL 4", group) for group in HYBRID_GROUPS]


@pytest.fixture(scope="module")
def delegation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delegation]:
    directory = tmp_path_factory.mktemp("suites")
    for group in ("ffdhe2048", "ffdhe3072", "modp_2048"):
        openssl(directory, "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", f"group:{group}", "-out", group)
    prepared = Delegation(directory)
    pin = ("--pin", "--peer", "dns:localhost", "--name", "pss")
    prepared.locum("trust", "add", rsassa_pss(directory).chain, *pin)
    with started(prepared) as running:
        yield running


def rsassa_pss(directory: Path) -> KeyFiles:
    """A certificate whose key is for RSASSA-PSS only, which no library but OpenSSL makes."""
    files = KeyFiles(chain=directory / "pss.pem", key=directory / "pss.key")
    if not files.chain.exists():
        openssl(
            directory,
            *("req", "-x509", "-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048", "-nodes", "-sha256"),
            *("-days", "30", "-subj", "/CN=pss", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", files.key, "-out", files.chain),
        )
    return files


def permissive(delegation: Delegation, kind: str) -> Server:
    """A server that speaks every suite there is, with an ECDSA and an RSA certificate."""
    certificates = (delegation.certificate("p256"), delegation.certificate("rsa2048"))
    options = ServerOptions(certificates=certificates, ciphers=EVERY_CIPHER, suites=":".join(SUITES_13.values()))
    if kind == "nginx":
        # Without parameters nginx speaks no DHE.
        options = replace(options, dhparam=delegation.directory / "ffdhe2048")
    return delegation.server(kind, options)


def narrow(delegation: Delegation, kind: str, group: NamedGroup, *, key: str = "p256") -> Server:
    """A server that speaks one group only."""
    certificate = delegation.certificate(key)
    return delegation.server(kind, ServerOptions(certificates=(certificate,), groups=GROUPS[group]))


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("suite", SUITES_13, ids=SUITES_13.values())
def test_every_suite_of_tls_13_is_spoken_by_both_ends(delegation: Delegation, kind: str, suite: int) -> None:
    visit = delegation.visit(permissive(delegation, kind), cipher_suites=(suite,))
    assert (visit.session.version, visit.session.cipher_suite.code) == (TLS13, suite)
    assert (visit.seen.version, visit.seen.cipher) == ("TLSv1.3", SUITES_13[suite])


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("suite", SUITES_12, ids=SUITES_12.values())
def test_every_suite_of_tls_12_is_spoken_by_both_ends(delegation: Delegation, kind: str, suite: int) -> None:
    visit = delegation.visit(permissive(delegation, kind), cipher_suites=(suite,))
    assert (visit.session.version, visit.session.cipher_suite.code) == (TLS12, suite)
    assert (visit.seen.version, visit.seen.cipher) == ("TLSv1.2", SUITES_12[suite])
    exchange = CIPHER_SUITES[suite].key_exchange
    assert (visit.session.group is not None) == (exchange is KeyExchange.ECDHE)


@pytest.mark.parametrize("kind", ["s_server", "nginx"])
@pytest.mark.parametrize("parameters", ["ffdhe2048", "ffdhe3072", "modp_2048"])
def test_dhe_works_with_the_parameters_that_the_server_was_given(
    delegation: Delegation, kind: str, parameters: str
) -> None:
    certificate = delegation.certificate("rsa2048")
    options = ServerOptions(certificates=(certificate,), dhparam=delegation.directory / parameters)
    visit = delegation.visit(delegation.server(kind, options), cipher_suites=(0x009E,))
    assert visit.seen.cipher == "DHE-RSA-AES128-GCM-SHA256"


@pytest.mark.parametrize(("kind", "group"), KNOWN, ids=str)
def test_every_group_of_tls_13_gives_a_session(delegation: Delegation, kind: str, group: NamedGroup) -> None:
    visit = delegation.visit(narrow(delegation, kind, group), groups=(group,))
    assert (visit.session.version, visit.session.group) == (TLS13, group)
    assert not any("another key share" in detail for detail in visit.asked())


@pytest.mark.parametrize(("kind", "group"), KNOWN, ids=str)
def test_every_group_can_be_asked_for_by_a_hello_retry_request(
    delegation: Delegation, kind: str, group: NamedGroup
) -> None:
    first = NamedGroup.SECP256R1 if group is not NamedGroup.SECP256R1 else NamedGroup.X25519
    visit = delegation.visit(narrow(delegation, kind, group), groups=(first, group))
    assert (visit.session.version, visit.session.group) == (TLS13, group)
    assert f"another key share, {group.name}" in visit.asked()


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("group", CLASSICAL_GROUPS, ids=CLASSICAL_GROUPS.values())
def test_every_classical_group_gives_a_tls_12_session(
    delegation: Delegation, kind: str, group: NamedGroup
) -> None:
    visit = delegation.visit(narrow(delegation, kind, group, key="rsa2048"), groups=(group,), versions=(TLS12,))
    assert (visit.session.version, visit.session.group) == (TLS12, group)


# --- kinds of certificate keys ----------------------------------------------------------------------------

KEY_KINDS = ("rsa2048", "rsa3072", "p256", "p384", "ed25519", "ed448")
ML_DSA_KINDS = ("mldsa44", "mldsa65", "mldsa87")


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("version", [TLS13, TLS12], ids=["TLS 1.3", "TLS 1.2"])
@pytest.mark.parametrize("key", KEY_KINDS)
def test_every_kind_of_certificate_key_is_authenticated(
    delegation: Delegation, kind: str, version: ProtocolVersion, key: str
) -> None:
    certificate = delegation.certificate(key)
    visit = delegation.visit(
        delegation.server(kind, ServerOptions(certificates=(certificate,))), versions=(version,)
    )
    assert visit.session.version is version
    assert visit.session.peer_identity == "dns:localhost"
    assert visit.session.peer_certificates[0] == certificate.certificate.public_bytes(Encoding.DER)


@pytest.mark.parametrize("key", ML_DSA_KINDS)
def test_ml_dsa_certificates_are_authenticated_where_the_server_has_them(delegation: Delegation, key: str) -> None:
    server = delegation.server("OpenSSL 4", ServerOptions(certificates=(delegation.certificate(key),)))
    visit = delegation.visit(server, groups=(NamedGroup.X25519MLKEM768,))
    assert visit.session.group == NamedGroup.X25519MLKEM768
    assert visit.session.peer_identity == "dns:localhost"


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("version", [TLS13, TLS12], ids=["TLS 1.3", "TLS 1.2"])
def test_a_key_for_rsassa_pss_only_is_authenticated_when_it_is_pinned(
    delegation: Delegation, kind: str, version: ProtocolVersion
) -> None:
    server = delegation.server(kind, ServerOptions(certificates=(rsassa_pss(delegation.directory),)))
    visit = delegation.visit(server, versions=(version,))
    assert visit.session.peer_identity == "pin:pss"


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("algorithm", ["RSA-PSS+SHA256", "RSA-PSS+SHA512", "RSA+SHA256", "RSA+SHA384"])
def test_rsa_keys_sign_tls_12_with_pss_and_with_pkcs1(delegation: Delegation, kind: str, algorithm: str) -> None:
    options = ServerOptions(certificates=(delegation.certificate("rsa2048"),))
    if kind == "nginx":
        server = delegation.server(kind, options, f"ssl_conf_command SignatureAlgorithms {algorithm}")
    else:
        server = delegation.server(kind, replace(options, signature_algorithms=algorithm))
    visit = delegation.visit(server, versions=(TLS12,), cipher_suites=(0xC02F,))
    assert visit.seen.cipher == "ECDHE-RSA-AES128-GCM-SHA256"
