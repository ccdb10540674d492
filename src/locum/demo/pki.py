"""Certificates for the peers of the demo and of the tests: authorities, servers, clients, CRLs, OCSP responses.

Writes into one directory, for one run; nothing here is fit to protect anything.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOCALHOST = ("localhost", "127.0.0.1", "::1")
VALIDITY = datetime.timedelta(days=30)
#: Certificates begin this long ago, for machines whose clocks disagree a little.
BACKDATED = datetime.timedelta(hours=1)

KEY_KINDS: dict[str, Callable[[], Any]] = {
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa3072": lambda: rsa.generate_private_key(65537, 3072),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
    "mldsa44": mldsa.MLDSA44PrivateKey.generate,
    "mldsa65": mldsa.MLDSA65PrivateKey.generate,
    "mldsa87": mldsa.MLDSA87PrivateKey.generate,
}
HASHES: dict[str, hashes.SHA256 | hashes.SHA384 | hashes.SHA512] = {
    "rsa2048": hashes.SHA256(),
    "rsa3072": hashes.SHA384(),
    "p256": hashes.SHA256(),
    "p384": hashes.SHA384(),
    "p521": hashes.SHA512(),
}
USAGES = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    "ipsec": ExtendedKeyUsageOID.IPSEC_IKE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate with its key, and the files a server is configured with.

    `chain` is a PEM file with the certificate and its intermediates, `key` a PEM file with the private key.
    """

    kind: str
    certificate: x509.Certificate
    private_key: Any = field(repr=False)
    issuer: CertificateAuthority = field(repr=False)
    chain: Path
    key: Path

    @property
    def der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def intermediates(self) -> tuple[bytes, ...]:
        """The certificates between this one and the root, which is left out, in DER."""
        between = self.issuer._intermediates()
        return tuple(each.public_bytes(serialization.Encoding.DER) for each in between)


class CertificateAuthority:
    """A certificate authority in `directory`: a root, or an intermediate below another one.

    Its own certificate is the PEM file `path`; everything it issues is written beside it.
    """

    def __init__(
        self, directory: Path, name: str, *, kind: str = "p256", parent: CertificateAuthority | None = None
    ) -> None:
        self.directory = directory
        self.name = name
        self.kind = kind
        self.parent = parent
        self.private_key = KEY_KINDS[kind]()
        subject = _name(name)
        builder = _builder(subject, self.private_key.public_key(), _start(), _start() + VALIDITY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(authority=True), critical=True)
        signer = parent or self
        issuer = parent.certificate.subject if parent else subject
        self.certificate: x509.Certificate = signer._sign(builder.issuer_name(issuer))
        self.path = directory / f"{name}.pem"
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    @property
    def der(self) -> bytes:
        """Its own certificate in DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def intermediate(self, name: str, *, kind: str = "p256") -> CertificateAuthority:
        """An authority whose certificate this one has issued."""
        return CertificateAuthority(self.directory, name, kind=kind, parent=self)

    def issue(
        self,
        name: str,
        *,
        kind: str = "p256",
        names: Sequence[str] = LOCALHOST,
        subject: str = "",
        usage: str = "server",
        start: datetime.datetime | None = None,
        end: datetime.datetime | None = None,
    ) -> Issued:
        """Issue a certificate for `names` (DNS names, IP and mail addresses) with a new key of `kind`.

        `usage` is one of `USAGES`; `name` is the stem of the file names, and the common name where no
        distinguished name is given as `subject` (RFC 4514).
        """
        private_key = KEY_KINDS[kind]()
        start = start or _start()
        full_name = x509.Name.from_rfc4514_string(subject) if subject else _name(name)
        builder = _builder(full_name, private_key.public_key(), start, end or start + VALIDITY)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(authority=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([USAGES[usage]]), critical=False)
        if names:
            alternative = x509.SubjectAlternativeName(list(map(_general_name, names)))
            builder = builder.add_extension(alternative, critical=False)
        certificate = self._sign(builder.issuer_name(self.certificate.subject))
        chain = self.directory / f"{name}.chain.pem"
        chain.write_bytes(b"".join(map(_pem, (certificate, *self._intermediates()))))
        key = self.directory / f"{name}.key.pem"
        key.touch(mode=0o600)
        key.write_bytes(_key_pem(private_key))
        return Issued(
            kind=kind, certificate=certificate, private_key=private_key, issuer=self, chain=chain, key=key
        )

    def revoke(self, *certificates: Issued) -> Path:
        """Write a CRL that revokes `certificates`; returns its PEM file."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(_start()).next_update(_start() + VALIDITY)
        builder = builder.add_extension(x509.CRLNumber(1), critical=False)
        builder = builder.add_extension(self._key_identifier(), critical=False)
        for revoked in certificates:
            entry = x509.RevokedCertificateBuilder().serial_number(revoked.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(_start()).build())
        path = self.directory / f"{self.name}.crl.pem"
        crl = builder.sign(self.private_key, HASHES.get(self.kind))
        path.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
        return path

    def ocsp(
        self, subject: Issued, *, revoked: bool = False, this_update: datetime.datetime | None = None
    ) -> Path:
        """Write an OCSP response about `subject`, valid for a day from `this_update`; returns its DER file."""
        start = this_update or _start()
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=subject.certificate,
            issuer=self.certificate,
            algorithm=hashes.SHA1(),  # noqa: S303 - the CertID of RFC 5019 section 2.1.1
            cert_status=ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD,
            this_update=start,
            next_update=start + datetime.timedelta(days=1),
            revocation_time=start if revoked else None,
            revocation_reason=x509.ReasonFlags.key_compromise if revoked else None,
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, self.certificate)
        response = builder.sign(self.private_key, HASHES.get(self.kind))
        path = subject.chain.with_suffix(".revoked.ocsp" if revoked else ".ocsp")
        path.write_bytes(response.public_bytes(serialization.Encoding.DER))
        return path

    def _intermediates(self) -> list[x509.Certificate]:
        """The certificates between what this authority issues and the root, which is left out."""
        if self.parent is None:
            return []
        return [self.certificate, *self.parent._intermediates()]

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.private_key.public_key())

    def _sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        builder = builder.add_extension(self._key_identifier(), critical=False)
        return builder.sign(self.private_key, HASHES.get(self.kind))


def _start() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0) - BACKDATED


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    if "@" in name:
        return x509.RFC822Name(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, public_key: Any, start: datetime.datetime, end: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not authority,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(private_key: Any) -> bytes:
    encoded: bytes = private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return encoded
