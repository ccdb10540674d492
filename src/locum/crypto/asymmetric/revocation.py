"""Has a certificate been revoked? CRLs that an administrator gave (RFC 5280) and stapled OCSP (RFC 6960).

Never fetches anything: a delegate does not open connections for a peer's certificate.

Both fail closed. Once a CRL of an authority has been given, every certificate of that authority needs a current
one: a CRL past its nextUpdate makes its certificates fail until it is replaced, because an attacker who can hold
back a new CRL must gain nothing. A stapled response that is present must be good, and must be present where the
certificate demands it (RFC 7633).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from locum.errors import ConfigurationError, LocumError

#: By how many seconds the clock of an authority may be ahead of ours.
CLOCK_SKEW = 300.0
#: Seconds for which an OCSP response without nextUpdate is good.
OCSP_LIFETIME_WITHOUT_NEXT_UPDATE = 7 * 86400.0
#: Certificates of delegated responders looked at in one OCSP response.
_MAX_RESPONDERS = 4

#: What the library raises for bytes that are no certificate, CRL, response or key; not all of it is a ValueError.
MALFORMED = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class StatusProblem(LocumError):
    """A certificate is `revoked`, or nobody can say that it is not."""

    def __init__(self, reason: str, *, revoked: bool = False) -> None:
        super().__init__(reason)
        self.revoked = revoked


# --- certificate revocation lists -------------------------------------------------------------------------


class RevocationLists:
    """The CRLs that were given, by the name of their issuer. Raises: ConfigurationError when one is of no use."""

    def __init__(self, crls: Sequence[bytes]) -> None:
        self._by_issuer: dict[x509.Name, list[x509.CertificateRevocationList]] = {}
        for data in crls:
            crl = load_crl(data)
            self._by_issuer.setdefault(crl.issuer, []).append(crl)
        for lists in self._by_issuer.values():
            lists.sort(key=lambda crl: crl.last_update_utc, reverse=True)

    def check(self, path: Sequence[x509.Certificate], *, now: float) -> list[float]:
        """Check every certificate of a validated path, the peer's first, except the trust anchor at its end.

        Returns the nextUpdate of each CRL used, in seconds since the epoch. Raises: StatusProblem.
        """
        until: list[float] = []
        for certificate, issuer in pairwise(path):
            lists = self._by_issuer.get(certificate.issuer)
            if lists:
                crl = _current_list(lists, issuer, now)
                until.append(_next_update(crl))
                if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                    raise StatusProblem(
                        f"the certificate with serial number {certificate.serial_number:x} has been revoked",
                        revoked=True,
                    )
        return until


def load_crl(data: bytes) -> x509.CertificateRevocationList:
    """Read a complete CRL in PEM or DER.

    Raises: ConfigurationError when it is none, has no nextUpdate, or has a critical extension: delta CRLs, and
    CRLs for a part of the certificates or for other issuers (RFC 5280 section 5.2), are not implemented.
    """
    try:
        crl = x509.load_pem_x509_crl(data) if b"-----BEGIN" in data else x509.load_der_x509_crl(data)
        critical = [extension.oid.dotted_string for extension in crl.extensions if extension.critical]
        _, next_update = crl.issuer, crl.next_update_utc
    except MALFORMED:
        raise ConfigurationError("a revocation list must be a CRL in PEM or DER") from None
    if critical:
        raise ConfigurationError(
            f"the CRL has critical extensions, which are not implemented: {', '.join(critical)}"
        )
    if next_update is None:
        raise ConfigurationError("the CRL does not say until when it is good (nextUpdate)")
    return crl


def _current_list(
    lists: Sequence[x509.CertificateRevocationList], issuer: x509.Certificate, now: float
) -> x509.CertificateRevocationList:
    name = issuer.subject.rfc4514_string()
    # An authority that has changed its key has lists under both; the newest that this key signed counts.
    crl = next((each for each in lists if _signed_list(each, issuer)), None)
    if crl is None:
        raise StatusProblem(f"no CRL given for {name} is signed by it")
    if crl.last_update_utc.timestamp() > now + CLOCK_SKEW:
        raise StatusProblem(f"the CRL of {name} is from the future: {crl.last_update_utc:%Y-%m-%d %H:%M} UTC")
    if _next_update(crl) < now:
        raise StatusProblem(
            f"the CRL of {name} was good until {crl.next_update_utc:%Y-%m-%d %H:%M} UTC; "
            "give a newer one with 'locum trust add FILE.pem'"
        )
    return crl


def _signed_list(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        usage = key_usage(issuer)
        if usage is not None and not usage.crl_sign:
            return False
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except MALFORMED:
        return False


def _next_update(crl: x509.CertificateRevocationList) -> float:
    assert crl.next_update_utc is not None
    return crl.next_update_utc.timestamp()


# --- stapled OCSP -----------------------------------------------------------------------------------------


def check_staple(path: Sequence[x509.Certificate], ocsp_response: bytes, *, now: float) -> list[float]:
    """Check the OCSP response about the first certificate of a validated path; empty when none was stapled.

    Returns until when the response is good, in seconds since the epoch. Raises: StatusProblem.
    """
    leaf = path[0]
    issuer = path[1] if len(path) > 1 else leaf
    if not ocsp_response:
        if _must_staple(leaf):
            raise StatusProblem("the certificate demands a stapled OCSP response (RFC 7633), and there is none")
        return []
    try:
        response = ocsp.load_der_ocsp_response(ocsp_response)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise StatusProblem(f"the stapled OCSP response says {response.response_status.name}")
        if not _signed_response(response, issuer, now):
            raise StatusProblem("the stapled OCSP response is signed neither by the issuer nor for it")
        single = next(_matching(response, leaf, issuer), None)
        if single is None:
            raise StatusProblem("the stapled OCSP response is about another certificate")
        return [_judge(single, now)]
    except MALFORMED:
        raise StatusProblem("the stapled OCSP response is malformed") from None


def _must_staple(leaf: x509.Certificate) -> bool:
    return any(
        isinstance(extension.value, x509.TLSFeature) and x509.TLSFeatureType.status_request in extension.value
        for extension in leaf.extensions
    )


def _matching(
    response: ocsp.OCSPResponse, leaf: x509.Certificate, issuer: x509.Certificate
) -> Iterator[ocsp.OCSPSingleResponse]:
    """The single responses whose CertID (RFC 6960 section 4.1.1) is that of `leaf`."""
    for single in response.responses:
        if single.serial_number != leaf.serial_number:
            continue
        # The library's request for this certificate has the very hashes to compare with.
        wanted = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, single.hash_algorithm).build()
        if (single.issuer_name_hash, single.issuer_key_hash) == (wanted.issuer_name_hash, wanted.issuer_key_hash):
            yield single


def _judge(single: ocsp.OCSPSingleResponse, now: float) -> float:
    """Until when a single response is good. Raises: StatusProblem when it is not, or is not good news."""
    this_update = single.this_update_utc.timestamp()
    next_update = single.next_update_utc
    until = next_update.timestamp() if next_update else this_update + OCSP_LIFETIME_WITHOUT_NEXT_UPDATE
    if this_update > now + CLOCK_SKEW:
        raise StatusProblem("the stapled OCSP response is from the future")
    if until < now:
        ended = datetime.datetime.fromtimestamp(until, datetime.UTC)
        raise StatusProblem(f"the stapled OCSP response was good until {ended:%Y-%m-%d %H:%M} UTC")
    if single.certificate_status is ocsp.OCSPCertStatus.REVOKED:
        raise StatusProblem("the stapled OCSP response says that the certificate has been revoked", revoked=True)
    if single.certificate_status is not ocsp.OCSPCertStatus.GOOD:
        raise StatusProblem("the stapled OCSP response says that the certificate is not known")
    return until


def _signed_response(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: float) -> bool:
    """True when the issuer signed the response, or a responder that it certified for this (RFC 6960 4.2.2.2)."""
    if _verifies(response, issuer.public_key()):
        return True
    for responder in response.certificates[:_MAX_RESPONDERS]:
        try:
            responder.verify_directly_issued_by(issuer)
        except (InvalidSignature, *MALFORMED):
            continue
        if _may_respond(responder, now) and _verifies(response, responder.public_key()):
            return True
    return False


def _may_respond(responder: x509.Certificate, now: float) -> bool:
    usage = key_usage(responder)
    if usage is not None and not usage.digital_signature:
        return False
    if not responder.not_valid_before_utc.timestamp() <= now <= responder.not_valid_after_utc.timestamp():
        return False
    return any(
        isinstance(extension.value, x509.ExtendedKeyUsage) and ExtendedKeyUsageOID.OCSP_SIGNING in extension.value
        for extension in responder.extensions
    )


def _verifies(response: ocsp.OCSPResponse, key: PublicKeyTypes) -> bool:
    """True when `key` made the response's signature: RSA PKCS#1 v1.5 or ECDSA with SHA-2, EdDSA, ML-DSA."""
    signature, content = response.signature, response.tbs_response_bytes
    try:
        algorithm = response.signature_hash_algorithm
        if isinstance(algorithm, hashes.SHA1 | hashes.MD5):
            return False
        match key:
            case rsa.RSAPublicKey() if algorithm is not None:
                key.verify(signature, content, padding.PKCS1v15(), algorithm)
            case ec.EllipticCurvePublicKey() if algorithm is not None:
                key.verify(signature, content, ec.ECDSA(algorithm))
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
                key.verify(signature, content)
            case mldsa.MLDSA44PublicKey() | mldsa.MLDSA65PublicKey() | mldsa.MLDSA87PublicKey():
                key.verify(signature, content)
            case _:
                return False
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def key_usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    """The keyUsage extension, or None when there is none. Raises: ValueError when an extension is malformed."""
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.KeyUsage):
            return extension.value
    return None
