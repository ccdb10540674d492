"""A small public-key infrastructure for tests: authorities, leaves, CRLs and OCSP responses of every kind.

Keys are made once per process and kind, because RSA generation is slow; nothing here is fit for real use.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
#: The moment this process started; every certificate is valid around it unless asked otherwise.
NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
#: `NOW` in seconds since the epoch.
EPOCH = NOW.timestamp()
#: The DNS name and the address that a leaf is made for when nothing else is said.
PEER_NAME = "peer.example.com"
PEER_ADDRESS = "127.0.0.1"

_MAKERS: dict[str, Callable[[], Any]] = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
    "mldsa44": mldsa.MLDSA44PrivateKey.generate,
    "mldsa65": mldsa.MLDSA65PrivateKey.generate,
    "mldsa87": mldsa.MLDSA87PrivateKey.generate,
}
#: Every kind of key that `key` makes.
KINDS = tuple(_MAKERS)


@functools.cache
def key(kind: str, slot: str = "") -> Any:
    """A private key of this kind; another `slot` gives another key, the same one the same key."""
    return _MAKERS[kind]()


def _hash_for(private_key: Any) -> hashes.HashAlgorithm | None:
    if isinstance(private_key, rsa.RSAPrivateKey):
        return hashes.SHA256()
    if isinstance(private_key, ec.EllipticCurvePrivateKey):
        return {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[private_key.key_size]
    return None


@dataclass(frozen=True, eq=False)
class Issued:
    """A certificate with its private key, and the certificates between it and its root (root left out)."""

    certificate: x509.Certificate
    key: Any
    parents: tuple[x509.Certificate, ...] = ()
    root: x509.Certificate | None = field(default=None, repr=False)

    @property
    def der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The certificates a peer sends, in DER, its own first, without the root."""
        return (self.der, *(parent.public_bytes(serialization.Encoding.DER) for parent in self.parents))

    @property
    def chain_pem(self) -> bytes:
        """`chain` in PEM."""
        certificates = (self.certificate, *self.parents)
        return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)

    @property
    def key_pem(self) -> bytes:
        """The private key in PEM (PKCS#8, not encrypted)."""
        return bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    @property
    def public_pem(self) -> bytes:
        """The public key in PEM (SubjectPublicKeyInfo)."""
        return self.certificate.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def write(self, directory: Path, stem: str) -> tuple[Path, Path]:
        """Write STEM.pem (chain) and STEM.key into `directory` and return both paths."""
        chain, private = directory / f"{stem}.pem", directory / f"{stem}.key"
        chain.write_bytes(self.chain_pem)
        private.write_bytes(self.key_pem)
        private.chmod(0o600)
        return chain, private


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]) if common_name else x509.Name([])


def _builder(
    subject: str, public_key: Any, issuer: x509.Name, not_before: datetime.datetime, not_after: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _key_usage(**bits: bool) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: bits.get(name, False) for name in names})


@functools.cache
def ca(kind: str = "p256", name: str = "Test Root", *, plain: bool = False) -> Issued:
    """A self-signed root; `plain` leaves out everything but basicConstraints, as old private roots do."""
    private = key(kind, f"ca:{name}")
    builder = _builder(name, private.public_key(), _name(name), NOW - 30 * DAY, NOW + 3650 * DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if not plain:
        builder = builder.add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), False)
    certificate = builder.sign(private, _hash_for(private))
    return Issued(certificate, private, (), certificate)


@functools.cache
def intermediate(
    issuer: Issued,
    kind: str = "p256",
    name: str = "Test Intermediate",
    *,
    path_length: int | None = 0,
    is_ca: bool = True,
    not_after: datetime.datetime = NOW + 1825 * DAY,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
) -> Issued:
    """An authority certified by `issuer`; with `is_ca` false a certificate that only pretends to be one."""
    private = key(kind, f"ca:{name}")
    builder = _builder(name, private.public_key(), issuer.certificate.subject, NOW - 20 * DAY, not_after)
    builder = builder.add_extension(x509.BasicConstraints(is_ca, path_length if is_ca else None), critical=True)
    if is_ca:
        builder = builder.add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.certificate.public_key()), False
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    certificate = builder.sign(issuer.key, _hash_for(issuer.key))
    parents = () if issuer.certificate == issuer.root else (issuer.certificate, *issuer.parents)
    return Issued(certificate, private, parents, issuer.root)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def leaf(
    issuer: Issued,
    kind: str = "p256",
    names: Iterable[str] = (PEER_NAME, PEER_ADDRESS),
    *,
    slot: str = "leaf",
    subject: str = "peer",
    not_before: datetime.datetime = NOW - DAY,
    not_after: datetime.datetime = NOW + 365 * DAY,
    usage: Sequence[str] | None = ("digital_signature", "key_encipherment"),
    purposes: Sequence[x509.ObjectIdentifier] | None = (ExtendedKeyUsageOID.SERVER_AUTH,),
    must_staple: bool = False,
    plain: bool = False,
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
) -> Issued:
    """An end-entity certificate for DNS names and IP addresses (no subjectAltName when there are none).

    `usage` and `purposes` are left out of the certificate when None; `plain` leaves out the key identifiers
    and basicConstraints too, as `openssl x509 -req` does without an extension file.
    """
    private = key(kind, slot)
    builder = _builder(subject, private.public_key(), issuer.certificate.subject, not_before, not_after)
    general_names = [_general_name(name) for name in names]
    if general_names:
        builder = builder.add_extension(x509.SubjectAlternativeName(general_names), critical=not subject)
    if usage is not None:
        builder = builder.add_extension(_key_usage(**dict.fromkeys(usage, True)), critical=True)
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if must_staple:
        builder = builder.add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False)
    if not plain:
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.certificate.public_key()), False
        )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    certificate = builder.sign(issuer.key, _hash_for(issuer.key))
    parents = () if issuer.certificate == issuer.root else (issuer.certificate, *issuer.parents)
    return Issued(certificate, private, parents, issuer.root)


def client(issuer: Issued, kind: str = "p256", name: str = "terminal.example.com", **options: Any) -> Issued:
    """A client certificate (clientAuth)."""
    options.setdefault("purposes", (ExtendedKeyUsageOID.CLIENT_AUTH,))
    options.setdefault("slot", "client")
    return leaf(issuer, kind, (name,), subject=name, **options)


def self_signed(kind: str = "p256", names: Iterable[str] = (PEER_NAME, PEER_ADDRESS)) -> Issued:
    """A certificate that nobody vouches for, as `openssl req -x509` makes it."""
    private = key(kind, "self-signed")
    builder = _builder("self-signed", private.public_key(), _name("self-signed"), NOW - DAY, NOW + 365 * DAY)
    builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(private, _hash_for(private))
    return Issued(certificate, private, (), certificate)


def crl(
    issuer: Issued,
    revoked: Iterable[x509.Certificate] = (),
    *,
    this_update: datetime.datetime = NOW - DAY,
    next_update: datetime.datetime = NOW + 30 * DAY,
    signing_key: Any = None,
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
) -> bytes:
    """A CRL of `issuer` in PEM; `signing_key` forges it."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    builder = builder.last_update(this_update).next_update(next_update)
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(this_update).build())
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    private = signing_key or issuer.key
    return builder.sign(private, _hash_for(private)).public_bytes(serialization.Encoding.PEM)


def ocsp_response(
    issuer: Issued,
    certificate: x509.Certificate,
    *,
    revoked: bool = False,
    unknown: bool = False,
    this_update: datetime.datetime = NOW - DAY,
    next_update: datetime.datetime | None = NOW + 7 * DAY,
    responder: Issued | None = None,
    forged: bool = False,
    algorithm: hashes.HashAlgorithm | None = None,
) -> bytes:
    """An OCSP response in DER about `certificate`, by its issuer or by a delegated `responder`.

    `forged` alters its signature.
    """
    status = ocsp.OCSPCertStatus.GOOD
    if revoked:
        status = ocsp.OCSPCertStatus.REVOKED
    if unknown:
        status = ocsp.OCSPCertStatus.UNKNOWN
    signer = responder or issuer
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=certificate,
        issuer=issuer.certificate,
        algorithm=algorithm or hashes.SHA1(),
        cert_status=status,
        this_update=this_update,
        next_update=next_update,
        revocation_time=this_update if revoked else None,
        revocation_reason=None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
    if responder is not None:
        builder = builder.certificates([responder.certificate])
    data = builder.sign(signer.key, _hash_for(signer.key)).public_bytes(serialization.Encoding.DER)
    if forged:
        position = data.index(ocsp.load_der_ocsp_response(data).signature) + 16
        data = data[:position] + bytes((data[position] ^ 1,)) + data[position + 1 :]
    return data


def ocsp_error() -> bytes:
    """An OCSP response in DER that says tryLater and nothing else."""
    response = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
    return response.public_bytes(serialization.Encoding.DER)


def ocsp_responder(issuer: Issued, kind: str = "p256", *, delegated: bool = True, **options: Any) -> Issued:
    """A delegated OCSP responder of `issuer`; not `delegated`: a leaf without id-kp-OCSPSigning."""
    purposes = (ExtendedKeyUsageOID.OCSP_SIGNING,) if delegated else (ExtendedKeyUsageOID.SERVER_AUTH,)
    return leaf(issuer, kind, (), subject="responder", slot="responder", purposes=purposes, **options)
