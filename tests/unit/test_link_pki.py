"""The PKI of the link: what is issued is what both ends of a mutual TLS connection take, and nothing more."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from locum.errors import ConfigurationError
from locum.keys.link_pki import (
    AUTHORITY_LIFETIME,
    CLOCK_SKEW,
    DAY,
    EDGE_LIFETIME,
    LIFETIME_RANGE,
    NAMES_LIMIT,
    SERVER_LIFETIME,
    SERVER_NAME,
    Issued,
    LinkIssuer,
    fingerprint_of,
    new_authority,
    pem_of,
)

NOW = datetime.datetime.now(datetime.UTC).timestamp()
AUTHORITY = new_authority(now=NOW)
ISSUER = LinkIssuer(AUTHORITY.certificate, AUTHORITY.private_key)


def parsed(issued: Issued) -> x509.Certificate:
    return x509.load_der_x509_certificate(issued.certificate)


def until(issued: Issued) -> float:
    assert parsed(issued).not_valid_after_utc.timestamp() == issued.not_after
    return issued.not_after


def context(purpose: ssl.Purpose, issued: Issued, ca: Issued, directory: Path) -> ssl.SSLContext:
    """One end of the link, that demands a certificate of the other."""
    made = ssl.create_default_context(purpose, cadata=pem_of(ca.certificate).decode())
    made.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    made.verify_mode = ssl.CERT_REQUIRED
    file = directory / f"{issued.fingerprint}.pem"
    file.write_bytes(issued.private_key_pem + issued.certificate_pem)
    made.load_cert_chain(file)
    return made


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> bytes:
    """A whole handshake in memory; returns the client's certificate as the server sees it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[1].getpeercert(binary_form=True) or b""


@pytest.mark.parametrize("name", [SERVER_NAME, "keys.example", "2001:db8::1", "192.0.2.1"])
def test_an_edge_and_a_key_server_authenticate_each_other(name: str, tmp_path: Path) -> None:
    edge, server = (
        ISSUER.edge("edge-1", now=NOW),
        ISSUER.server(("keys.example", "2001:db8::1", "192.0.2.1"), now=NOW),
    )
    client_end = context(ssl.Purpose.SERVER_AUTH, edge, AUTHORITY, tmp_path)
    server_end = context(ssl.Purpose.CLIENT_AUTH, server, AUTHORITY, tmp_path)
    seen = shake_hands(client_end, server_end, name)
    assert seen == edge.certificate
    assert fingerprint_of(seen) == edge.fingerprint == hashlib.sha256(seen).hexdigest()


def test_an_edge_cannot_pose_as_a_key_server(tmp_path: Path) -> None:
    edge, other = ISSUER.edge("edge-1", now=NOW), ISSUER.edge("edge-2", now=NOW)
    client_end = context(ssl.Purpose.SERVER_AUTH, edge, AUTHORITY, tmp_path)
    client_end.check_hostname = False
    server_end = context(ssl.Purpose.CLIENT_AUTH, other, AUTHORITY, tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake_hands(client_end, server_end, SERVER_NAME)


def test_a_key_server_cannot_pose_as_an_edge(tmp_path: Path) -> None:
    server = ISSUER.server(now=NOW)
    client_end = context(ssl.Purpose.SERVER_AUTH, server, AUTHORITY, tmp_path)
    server_end = context(ssl.Purpose.CLIENT_AUTH, server, AUTHORITY, tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake_hands(client_end, server_end, SERVER_NAME)


def test_what_another_authority_issued_is_refused(tmp_path: Path) -> None:
    stranger = new_authority(now=NOW)
    edge = LinkIssuer(stranger.certificate, stranger.private_key).edge("edge-1", now=NOW)
    client_end = context(ssl.Purpose.SERVER_AUTH, edge, AUTHORITY, tmp_path)
    server_end = context(ssl.Purpose.CLIENT_AUTH, ISSUER.server(now=NOW), AUTHORITY, tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(client_end, server_end, SERVER_NAME)


def test_certificates_say_what_they_are_for() -> None:
    edge, server = parsed(ISSUER.edge("edge-1", now=NOW)), parsed(ISSUER.server(("A.Example.", "::1"), now=NOW))
    for certificate, purpose in (
        (edge, ExtendedKeyUsageOID.CLIENT_AUTH),
        (server, ExtendedKeyUsageOID.SERVER_AUTH),
    ):
        extensions = certificate.extensions
        assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [purpose]
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        certificate.verify_directly_issued_by(parsed(AUTHORITY))
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [SERVER_NAME, "a.example"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("::1")]
    names = edge.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["locum:edge:edge-1"]
    assert names.get_values_for_type(x509.DNSName) == []


def test_the_authority_certifies_no_other() -> None:
    constraints = parsed(AUTHORITY).extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)


def test_two_authorities_have_two_names() -> None:
    assert parsed(new_authority(now=NOW)).subject != parsed(AUTHORITY).subject


def test_lifetimes_are_as_stated_and_end_with_the_authority() -> None:
    assert until(AUTHORITY) == int(NOW + AUTHORITY_LIFETIME)
    assert until(ISSUER.edge("a", now=NOW)) == int(NOW + EDGE_LIFETIME)
    assert until(ISSUER.server(now=NOW)) == int(NOW + SERVER_LIFETIME)
    assert until(ISSUER.edge("a", now=NOW, lifetime=60)) == int(NOW + 60)
    late = NOW + AUTHORITY_LIFETIME - DAY
    assert until(ISSUER.server(now=late)) == until(AUTHORITY)
    assert parsed(ISSUER.server(now=NOW)).not_valid_before_utc.timestamp() == int(NOW - CLOCK_SKEW)


@pytest.mark.parametrize("lifetime", [0, LIFETIME_RANGE[0] - 1, LIFETIME_RANGE[1] + 1])
def test_a_lifetime_out_of_range_is_refused(lifetime: int) -> None:
    with pytest.raises(ConfigurationError, match="certificate is good for"):
        ISSUER.edge("edge", now=NOW, lifetime=lifetime)


def test_names_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="edge's name"):
        ISSUER.edge("no name", now=NOW)
    with pytest.raises(ConfigurationError, match="not a DNS name"):
        ISSUER.server(("a..b",), now=NOW)
    with pytest.raises(ConfigurationError, match="at most"):
        ISSUER.server(("a.example",) * (NAMES_LIMIT + 1), now=NOW)


def test_a_key_that_is_not_the_authoritys_issues_nothing() -> None:
    with pytest.raises(ConfigurationError, match="does not belong"):
        LinkIssuer(AUTHORITY.certificate, new_authority(now=NOW).private_key)


def test_private_keys_are_new_and_stay_out_of_repr() -> None:
    first, second = ISSUER.edge("edge", now=NOW), ISSUER.edge("edge", now=NOW)
    assert first.private_key != second.private_key
    assert isinstance(load_der_private_key(first.private_key, None), ec.EllipticCurvePrivateKey)
    assert "private_key" not in repr(first)
    assert repr(ISSUER) == "<LinkIssuer>"
