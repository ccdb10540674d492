"""Certificates of web servers, for tests of what keeps or shows them: a root, an authority below it, leaves."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.support.key_pairs import KeyPair, key_pair

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class WebCertificate:
    """A certificate, its key, and who issued it; a root issued itself."""

    certificate: x509.Certificate
    pair: KeyPair
    issuer: WebCertificate | None

    @property
    def pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(Encoding.DER)

    def ocsp_response(
        self, *, status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD, until: datetime.timedelta = DAY
    ) -> bytes:
        """What its issuer says about it, in DER, good from yesterday on."""
        assert self.issuer is not None
        revoked = status is ocsp.OCSPCertStatus.REVOKED
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=self.certificate,
            issuer=self.issuer.certificate,
            algorithm=hashes.SHA256(),
            cert_status=status,
            this_update=NOW - DAY,
            next_update=NOW + until,
            revocation_time=NOW - DAY if revoked else None,
            revocation_reason=None,
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, self.issuer.certificate)
        key = self.issuer.pair.key
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@cache
def root() -> WebCertificate:
    """The root."""
    return _issue("root", key_pair("p256", 100), None, ca=True)


@cache
def authority() -> WebCertificate:
    """The authority below the root, which issues to servers."""
    return _issue("authority", key_pair("p256", 101), root(), ca=True)


def web_certificate(
    names: Sequence[x509.GeneralName] = (x509.DNSName("www.example"),),
    pair: KeyPair | None = None,
    *,
    purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    end: int = 30,
) -> WebCertificate:
    """A server's certificate that ends in `end` days."""
    return _issue("server", pair or key_pair(), authority(), names=names, purpose=purpose, end=end)


def _issue(
    name: str,
    pair: KeyPair,
    issuer: WebCertificate | None,
    *,
    ca: bool = False,
    names: Sequence[x509.GeneralName] = (),
    purpose: x509.ObjectIdentifier | None = None,
    end: int = 30,
) -> WebCertificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(pair.key.public_key())  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 60 * DAY)
        .not_valid_after(NOW + end * DAY)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    signer = (issuer.pair if issuer else pair).key
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    return WebCertificate(builder.sign(signer, hashes.SHA256()), pair, issuer)
