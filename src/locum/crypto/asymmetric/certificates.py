"""Is a peer who it says it is? Path validation (RFC 5280), names (RFC 9525), key usage, revocation.

Never knows sessions, policies or how certificates arrived. The path itself is built and checked by the library's
`cryptography.x509.verification`; here is what a private PKI needs differently from the public web, revocation,
and the translation of every outcome into a `Fault` with a reason that a person can act on.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, PublicKeyAlgorithmOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from locum.crypto.asymmetric.revocation import MALFORMED, RevocationLists, StatusProblem, check_staple, key_usage
from locum.crypto.asymmetric.signatures import KeyKind, PublicKey
from locum.crypto.symmetric import SHA1
from locum.errors import ConfigurationError, Incompatible, Unauthenticated
from locum.handshake import Fault

#: Certificates in a chain, and bytes of all of them with the OCSP response; the same as in `tls.operations`.
MAX_CERTIFICATES = 10
MAX_CHAIN_BYTES = 48 * 1024
#: Intermediate certificates in a path, between the peer's own and the trust anchor.
MAX_PATH_DEPTH = 6


class Rejected(Unauthenticated):
    """The peer is not authentic: `fault` says which alert, the text says why."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Peer:
    """What a chain proves: the peer's key, what it may be used for, and until when all of that holds.

    `may_sign` is keyUsage's digitalSignature, `may_commit` its nonRepudiation. `valid_until` is in seconds since
    the epoch: the earliest end of a certificate, CRL or OCSP response used.
    """

    key: PublicKey
    may_sign: bool
    may_commit: bool
    may_encipher: bool
    valid_until: float


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a certificate names: its subject, and of its subjectAltName what can stand for an IKE peer."""

    name: x509.Name
    dns_names: tuple[str, ...] = ()
    addresses: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...] = ()
    emails: tuple[str, ...] = ()


class PathValidator:
    """Validates chains against trust anchors and CRLs.

    A trust anchor is a certificate, self-signed or not, an authority's or a peer's own.
    Raises: ConfigurationError when an anchor or a CRL is not one, or a CRL is of a kind that is not implemented.
    """

    def __init__(self, anchors: Sequence[bytes], crls: Sequence[bytes] = ()) -> None:
        #: The trust anchors, in the order in which they were given.
        self.anchors = tuple(certificate for anchor in anchors for certificate in load_anchors(anchor))
        self._store = Store(list(self.anchors)) if self.anchors else None
        self._lists = RevocationLists(crls)

    def validate(self, chain: Sequence[bytes], ocsp_response: bytes, server_name: str, *, now: float) -> Peer:
        """Validate a TLS server's chain in DER, its own certificate first, for `server_name` at the time `now`.

        `server_name` is a DNS name or a textual IP address, compared with the subjectAltName only.
        Raises: Rejected.
        """
        try:
            find_path = _builder(_CA_POLICY, _PEER_POLICY, self._trusted, now).build_server_verifier(
                _subject(server_name)
            )
        except ValueError:
            raise Rejected(Fault.WRONG_NAME, f"no certificate can be for {server_name}") from None
        return self._validate(chain, ocsp_response, server_name, find_path.verify, now)

    def validate_ike(self, chain: Sequence[bytes], *, now: float) -> Peer:
        """Validate an IKE peer's chain in DER, its own certificate first, whoever it is for (RFC 4945 section 5).

        Any of the purposes that IKE certificates have in practice will do. Raises: Rejected.
        """
        return self._validate_nameless(chain, _IKE_CA_POLICY, _IKE_PEER_POLICY, "the peer", now)

    def validate_client(self, chain: Sequence[bytes], *, now: float) -> Peer:
        """Validate a TLS client's chain in DER, its own certificate first, whoever it is for. Raises: Rejected."""
        return self._validate_nameless(chain, _CLIENT_CA_POLICY, _CLIENT_POLICY, "the client", now)

    def _validate_nameless(
        self, chain: Sequence[bytes], ca_policy: ExtensionPolicy, policy: ExtensionPolicy, who: str, now: float
    ) -> Peer:
        find_path = _builder(ca_policy, policy, self._trusted, now).build_client_verifier()
        return self._validate(
            chain, b"", who, lambda leaf, candidates: find_path.verify(leaf, candidates).chain, now
        )

    @property
    def _trusted(self) -> Store:
        if self._store is None:
            raise Rejected(Fault.UNKNOWN_ISSUER, "no trust anchor is set; add one with 'locum trust add FILE.pem'")
        return self._store

    def _validate(
        self, chain: Sequence[bytes], ocsp_response: bytes, who: str, find_path: _FindPath, now: float
    ) -> Peer:
        leaf, *intermediates = parse_chain(chain, ocsp_response)
        path = _build_path(find_path, leaf, intermediates, who, now)
        peer = describe(leaf)
        until = [certificate.not_valid_after_utc.timestamp() for certificate in path]
        try:
            until += self._lists.check(path, now=now)
            until += check_staple(path, ocsp_response, now=now)
        except StatusProblem as problem:
            raise Rejected(Fault.REVOKED if problem.revoked else Fault.BAD_STATUS_RESPONSE, str(problem)) from None
        return replace(peer, valid_until=min(until))


_FindPath = Callable[[x509.Certificate, list[x509.Certificate]], list[x509.Certificate]]


def _builder(ca_policy: ExtensionPolicy, peer_policy: ExtensionPolicy, store: Store, now: float) -> PolicyBuilder:
    return (
        PolicyBuilder()
        .store(store)
        .time(datetime.datetime.fromtimestamp(now, datetime.UTC))
        .max_chain_depth(MAX_PATH_DEPTH)
        .extension_policies(ca_policy=ca_policy, ee_policy=peer_policy)
    )


def _build_path(
    find_path: _FindPath, leaf: x509.Certificate, intermediates: list[x509.Certificate], who: str, now: float
) -> list[x509.Certificate]:
    # What is issued by itself, as a root sent along, can be put on itself without end and hide what is wrong.
    for candidates in (intermediates, [each for each in intermediates if each.issuer != each.subject]):
        try:
            return find_path(leaf, candidates)
        except VerificationError as error:
            message = str(error)
        if _TOO_DEEP not in message:
            break
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    raise _explain(message, leaf, intermediates, who, moment)


def parse_chain(chain: Sequence[bytes], ocsp_response: bytes = b"") -> list[x509.Certificate]:
    """Parse a chain in DER within the limits of this module. Raises: Rejected."""
    if not 1 <= len(chain) <= MAX_CERTIFICATES:
        raise Rejected(Fault.BAD_CERTIFICATE, f"a chain of {len(chain)} certificates, not 1 to {MAX_CERTIFICATES}")
    if sum(map(len, chain)) + len(ocsp_response) > MAX_CHAIN_BYTES:
        raise Rejected(Fault.BAD_CERTIFICATE, f"a chain of more than {MAX_CHAIN_BYTES} bytes")
    try:
        return [_complete(x509.load_der_x509_certificate(certificate)) for certificate in chain]
    except MALFORMED:
        raise Rejected(Fault.BAD_CERTIFICATE, "the peer sent something that is not a certificate") from None


def _complete(certificate: x509.Certificate) -> x509.Certificate:
    """`certificate`, if the parts that the library parses only when they are asked for can be parsed too."""
    _ = certificate.subject, certificate.issuer
    return certificate


def describe(leaf: x509.Certificate) -> Peer:
    """The peer's key and what its keyUsage lets it do, until the certificate ends; nothing is validated.

    Raises: Rejected when the key or an extension cannot be used.
    """
    try:
        restricted = leaf.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS
        key = PublicKey.of(leaf.public_key(), pss_only=restricted)
        usage = key_usage(leaf)
    except (Incompatible, UnsupportedAlgorithm) as error:
        raise Rejected(Fault.UNSUPPORTED, f"the peer's certificate has {error}") from None
    except MALFORMED:
        raise Rejected(Fault.BAD_CERTIFICATE, "the peer's certificate is malformed") from None
    return Peer(
        key=key,
        # RFC 5280 section 4.2.1.3: a certificate without the extension does not restrict its key.
        may_sign=usage is None or usage.digital_signature,
        may_commit=usage is None or usage.content_commitment,
        may_encipher=(usage is None or usage.key_encipherment) and key.kind is KeyKind.RSA,
        valid_until=leaf.not_valid_after_utc.timestamp(),
    )


def subject_of(leaf: x509.Certificate) -> Subject:
    """Whom a certificate names. Raises: Rejected when its subjectAltName is malformed."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return Subject(leaf.subject)
    except MALFORMED:
        raise Rejected(Fault.BAD_CERTIFICATE, "the peer's certificate is malformed") from None
    return Subject(
        name=leaf.subject,
        dns_names=tuple(names.get_values_for_type(x509.DNSName)),
        addresses=tuple(
            address
            for address in names.get_values_for_type(x509.IPAddress)
            if isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)
        ),
        emails=tuple(names.get_values_for_type(x509.RFC822Name)),
    )


# --- reading what an administrator gives ------------------------------------------------------------------


def load_anchors(data: bytes) -> list[x509.Certificate]:
    """The certificates in PEM (one or more) or DER (one). Raises: ConfigurationError."""
    try:
        if b"-----BEGIN" in data:
            return [_complete(certificate) for certificate in x509.load_pem_x509_certificates(data)]
        return [_complete(x509.load_der_x509_certificate(data))]
    except MALFORMED:
        raise ConfigurationError("a trust anchor must be a certificate in PEM or DER") from None


def load_public_key(data: bytes) -> bytes:
    """The SubjectPublicKeyInfo, in DER, of a public key or a certificate in PEM or DER.

    Raises: ConfigurationError.
    """
    for load in (
        load_pem_public_key,
        load_der_public_key,
        lambda text: x509.load_pem_x509_certificate(text).public_key(),
        lambda text: x509.load_der_x509_certificate(text).public_key(),
    ):
        try:
            key = load(data)
            return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except MALFORMED:
            continue
    raise ConfigurationError("a pinned key must be a public key or a certificate in PEM or DER")


def public_key_of(leaf: x509.Certificate) -> bytes:
    """The SubjectPublicKeyInfo of a certificate in DER, as `load_public_key` gives it. Raises: Rejected."""
    try:
        return leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except MALFORMED:
        raise Rejected(Fault.UNSUPPORTED, "the peer's public key is of a kind that is not implemented") from None


def public_key_hash(certificate: x509.Certificate) -> bytes:
    """SHA-1 of the SubjectPublicKeyInfo, 20 bytes: a mere name of an authority (RFC 7296 section 3.7).

    Raises: Rejected.
    """
    return SHA1.digest(public_key_of(certificate))


# --- what a private PKI needs -----------------------------------------------------------------------------
# Certificates made with `openssl req` and `openssl x509` often have no key identifiers, no keyUsage in the root,
# a criticality that the CA/Browser Forum forbids, and cA set in a peer's own certificate; none of that weakens
# what they prove. What does is checked: basicConstraints, path length and name constraints of every authority,
# validity, signatures and their algorithms (by the library, always), and key usages and purposes (here).


_SERVER_PURPOSES = frozenset((ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE))
_CLIENT_PURPOSES = frozenset((ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE))
#: RFC 4945 section 5.1.3.12 knows id-kp-ipsecIKE; certificates that VPN gateways have were made for TLS.
_IKE_PURPOSES = _SERVER_PURPOSES | {ExtendedKeyUsageOID.IPSEC_IKE, ExtendedKeyUsageOID.CLIENT_AUTH}


def _check_authority_usage(policy: Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("an authority's keyUsage does not allow it to sign certificates")


_PurposeCheck = Callable[[Policy, x509.Certificate, x509.ExtendedKeyUsage | None], None]


def _purpose_check(wanted: Collection[x509.ObjectIdentifier], whom: str) -> _PurposeCheck:
    """A check that a certificate's extendedKeyUsage, if there is one, has one of the `wanted` purposes."""

    def check(policy: Policy, certificate: x509.Certificate, purposes: x509.ExtendedKeyUsage | None) -> None:
        if not _is_for(wanted, purposes):
            raise ValueError(f"a certificate is not meant for {whom} (extendedKeyUsage)")

    return check


def _is_for(wanted: Collection[x509.ObjectIdentifier], purposes: x509.ExtendedKeyUsage | None) -> bool:
    return purposes is None or any(purpose in wanted for purpose in purposes)


def _authority_policy(check_purpose: _PurposeCheck) -> ExtensionPolicy:
    return (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _check_authority_usage)
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, check_purpose)
    )


def _leaf_policy(check_purpose: _PurposeCheck) -> ExtensionPolicy:
    return ExtensionPolicy.permit_all().may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, check_purpose)


_check_server_purpose = _purpose_check(_SERVER_PURPOSES, "servers")
_check_client_purpose = _purpose_check(_CLIENT_PURPOSES, "clients")
_check_ike_purpose = _purpose_check(_IKE_PURPOSES, "IKE")

_CA_POLICY = _authority_policy(_check_server_purpose)
_PEER_POLICY = _leaf_policy(_check_server_purpose).require_present(
    x509.SubjectAlternativeName, Criticality.AGNOSTIC, None
)
_CLIENT_CA_POLICY = _authority_policy(_check_client_purpose)
_CLIENT_POLICY = _leaf_policy(_check_client_purpose)
_IKE_CA_POLICY = _authority_policy(_check_ike_purpose)
_IKE_PEER_POLICY = _leaf_policy(_check_ike_purpose)


def _subject(server_name: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(server_name))
    except ValueError:
        return x509.DNSName(server_name)


def _explain(
    message: str,
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    server_name: str,
    moment: datetime.datetime,
) -> Rejected:
    """Translate the library's message; what no phrase below covers is a bad certificate, in its own words."""
    if "not valid at validation time" in message:
        return Rejected(Fault.EXPIRED, _validity_problem((leaf, *intermediates), moment))
    for phrase, fault, reason in _PHRASES:
        if phrase in message:
            return Rejected(
                fault, reason.format(name=server_name, issuer=_shown(_last_issuer(leaf, intermediates)))
            )
    detail = message.removeprefix("validation failed: ").removeprefix("candidates exhausted: ")
    detail = detail.split(" (encountered processing")[0].removeprefix("Python extension validator failed: ")
    return Rejected(Fault.BAD_CERTIFICATE, f"the certificate of {server_name}: {detail}")


_TOO_DEEP = "exceeds max depth"
_PHRASES = (
    ("arsing", Fault.BAD_CERTIFICATE, "a certificate of {name} is malformed"),
    ("no matching subjectAltName", Fault.WRONG_NAME, "the peer's certificate is not for {name}"),
    ("has no subjectAltName", Fault.WRONG_NAME, "the peer's certificate names nobody: it has no subjectAltName"),
    (
        "all candidates exhausted with no interior errors",
        Fault.UNKNOWN_ISSUER,
        "the certificate of {name} was issued by {issuer}, which is not trusted; "
        "add its certificate with 'locum trust add FILE.pem'",
    ),
    (
        "signature does not match",
        Fault.BAD_CERTIFICATE,
        "a certificate of {name} is not signed by {issuer}, although it says so",
    ),
    (
        "Forbidden",
        Fault.UNSUPPORTED,
        "a certificate of {name} is signed with an algorithm that path validation does not support (RSA of "
        "2048 bits and more, ECDSA on P-256, P-384 and P-521, and ML-DSA are); pin the peer's key instead",
    ),
    (
        "RSA key is too weak",
        Fault.UNSUPPORTED,
        "an authority that certified {name} has an RSA key of less than 2048 bits",
    ),
    (_TOO_DEEP, Fault.BAD_CERTIFICATE, "the path from {name} to a trust anchor is too long"),
)


def _validity_problem(certificates: Sequence[x509.Certificate], moment: datetime.datetime) -> str:
    for certificate in certificates:
        subject = _shown(certificate.subject)
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if moment > end:
            return f"the certificate of {subject} expired on {end:%Y-%m-%d %H:%M} UTC"
        if moment < begin:
            return f"the certificate of {subject} is valid only from {begin:%Y-%m-%d %H:%M} UTC on"
    return "a trust anchor has expired or is not valid yet"


def _last_issuer(leaf: x509.Certificate, intermediates: Sequence[x509.Certificate]) -> x509.Name:
    """The issuer that the chain as sent ends in: of the certificates that can be reached, the last one's."""
    by_subject = {certificate.subject: certificate for certificate in intermediates}
    certificate, seen = leaf, {leaf.subject}
    while certificate.issuer not in seen and certificate.issuer in by_subject:
        certificate = by_subject[certificate.issuer]
        seen.add(certificate.subject)
    return certificate.issuer


def _shown(name: x509.Name) -> str:
    """A distinguished name for a person to read; it comes from the peer, so it is cut and made one line."""
    text = name.rfc4514_string()
    text = "".join(character if character.isprintable() else "?" for character in text)
    return repr(text if len(text) <= 100 else text[:97] + "...") if text else "an issuer without a name"
