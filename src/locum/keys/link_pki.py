"""The PKI of the link between edges and key servers (C6): one CA for both ends, made where the databases are.

Never keeps anything, and never sees a key that an edge is to use. Every key here is ECDSA on P-256.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from locum.errors import ConfigurationError
from locum.names import check_name, normalize_dns_name

DAY = 24 * 3600
#: How long certificates are good, in seconds: the CA's, an edge's, and a key server's, which is made at its start.
AUTHORITY_LIFETIME = 20 * 365 * DAY
EDGE_LIFETIME = 2 * 365 * DAY
SERVER_LIFETIME = 365 * DAY
#: Shortest and longest life of an edge's certificate that can be asked for, in seconds.
LIFETIME_RANGE = (60, 10 * 365 * DAY)
#: Certificates are good from a little earlier on: the other end's clock may be slow. In seconds.
CLOCK_SKEW = 300
#: In the certificate of every key server of a CA, wherever it is reached: what an edge asks for.
SERVER_NAME = "keyserver.locum.internal"
#: Most names of one key server besides that.
NAMES_LIMIT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate and its private key (PKCS #8), both in DER, and when it ends, in seconds since the epoch."""

    certificate: bytes
    private_key: bytes = field(repr=False)
    not_after: float

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate in hexadecimal, by which an edge is known."""
        return fingerprint_of(self.certificate)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate in PEM."""
        return pem_of(self.certificate)

    @property
    def private_key_pem(self) -> bytes:
        """The private key as PKCS #8 in PEM, without a passphrase."""
        key = load_der_private_key(self.private_key, None)
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def fingerprint_of(certificate: bytes) -> str:
    """The SHA-256 of a certificate in DER, as 64 hexadecimal digits."""
    return hashlib.sha256(certificate).hexdigest()


def pem_of(certificate: bytes) -> bytes:
    """A certificate in DER, which has been read before, in PEM."""
    return x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM)


class LinkIssuer:
    """The CA at work: issues certificates to edges and key servers.

    Takes the CA's certificate and private key, both in DER. Raises: ConfigurationError when they do not fit.
    """

    def __init__(self, certificate: bytes, private_key: bytes) -> None:
        self._certificate = x509.load_der_x509_certificate(certificate)
        key = load_der_private_key(private_key, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != self._certificate.public_key():
            raise ConfigurationError("the private key of the link's CA does not belong to its certificate")
        self._key = key

    def __repr__(self) -> str:
        return "<LinkIssuer>"

    def edge(self, name: str, *, now: float, lifetime: float = EDGE_LIFETIME) -> Issued:
        """A client certificate for the edge `name`, good for `lifetime` seconds and no longer than the CA's.

        Raises: ConfigurationError when the name cannot be one, or the lifetime is out of `LIFETIME_RANGE`.
        """
        check_name(name, "edge's name")
        least, most = LIFETIME_RANGE
        if not least <= lifetime <= most:
            raise ConfigurationError(f"a certificate is good for {least} s to {most // DAY} days")
        identity = x509.UniformResourceIdentifier(f"locum:edge:{name}")
        return self._issue(name, [identity], ExtendedKeyUsageOID.CLIENT_AUTH, now, lifetime)

    def server(self, names: Sequence[str] = (), *, now: float, lifetime: float = SERVER_LIFETIME) -> Issued:
        """A key server's certificate for `SERVER_NAME` and for `names`, which are DNS names and IP addresses.

        Raises: ConfigurationError when one is neither, or there are more than `NAMES_LIMIT`.
        """
        if len(names) > NAMES_LIMIT:
            raise ConfigurationError(f"a key server has at most {NAMES_LIMIT} names")
        alternatives = [x509.DNSName(SERVER_NAME), *map(_general_name, names)]
        return self._issue(SERVER_NAME, alternatives, ExtendedKeyUsageOID.SERVER_AUTH, now, lifetime)

    def _issue(
        self,
        common_name: str,
        alternatives: Sequence[x509.GeneralName],
        purpose: x509.ObjectIdentifier,
        now: float,
        lifetime: float,
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        end = min(now + lifetime, self._certificate.not_valid_after_utc.timestamp())
        builder = (
            _builder(common_name, key, now, end)
            .issuer_name(self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(_authority_key_identifier(self._certificate), critical=False)
        )
        return _issued(builder, key, self._key)


def new_authority(*, now: float) -> Issued:
    """A new CA, which certifies edges and key servers and no other CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # Two CAs with one name would be mistaken for one another where somebody trusts both.
    name = f"locum link {ski.digest[:8].hex()}"
    builder = (
        _builder(name, key, now, now + AUTHORITY_LIFETIME)
        .issuer_name(_name(name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    )
    return _issued(builder, key, key)


def _builder(common_name: str, key: ec.EllipticCurvePrivateKey, now: float, end: float) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(now - CLOCK_SKEW))
        .not_valid_after(_moment(end))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _issued(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, issuer: ec.EllipticCurvePrivateKey
) -> Issued:
    certificate = builder.sign(issuer, hashes.SHA256())
    return Issued(
        certificate=certificate.public_bytes(Encoding.DER),
        private_key=key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        not_after=certificate.not_valid_after_utc.timestamp(),
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _moment(seconds: float) -> datetime.datetime:
    # Certificates know no fractions of a second.
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(normalize_dns_name(text))


def _authority_key_identifier(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    ski = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski)


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
