"""Who an IKE peer says it is: identification payloads, the text of a verdict, and what a certificate proves.

Never knows whether anybody is who it says: here things are compared (RFC 7296 section 3.5, RFC 4945 section 3).

=================  ================================================================================
``dns:NAME``       ID_FQDN, a dNSName
``ip:ADDRESS``     ID_IPV4_ADDR, ID_IPV6_ADDR, an iPAddress
``email:A@B``      ID_RFC822_ADDR, an rfc822Name
``dn:CN=..,O=..``  ID_DER_ASN1_DN, the subject; written as in RFC 4514, the most specific part first
``keyid:HEX``      ID_KEY_ID, which no certificate has
=================  ================================================================================
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from cryptography import x509

from locum.crypto.asymmetric.certificates import Subject
from locum.errors import ConfigurationError, DecodeError, Refused
from locum.ike.operations import MAX_IDENTIFICATION
from locum.ike.registry import IdentificationType
from locum.patterns import normalize_identity
from locum.values import dataclass

#: Bytes before the identification itself: type, and protocol and port in IKEv1 or three reserved ones in IKEv2.
_PREFIX = 4
#: Identities whose text was worked out and kept for the next use; each has at most `_MAX_CACHED_BODY` bytes.
_CACHED = 1024
_MAX_CACHED_BODY = 256

_KINDS: dict[str, IdentificationType] = {
    "dns": IdentificationType.FQDN,
    "email": IdentificationType.RFC822_ADDR,
    "dn": IdentificationType.DER_ASN1_DN,
    "keyid": IdentificationType.KEY_ID,
}


@dataclass(frozen=True, slots=True)
class Identification:
    """The body of an ID payload, and the identity that it claims in the form of a verdict."""

    body: bytes
    text: str

    @property
    def kind(self) -> int:
        """The `IdentificationType`."""
        return self.body[0]

    @property
    def data(self) -> bytes:
        """What follows type, protocol and port."""
        return self.body[_PREFIX:]


def parse_identification(body: bytes) -> Identification:
    """Read the body of an ID payload.

    Raises: DecodeError when it is malformed, or of a type that can name nobody: subnets and ranges, and general
    names, of which RFC 4945 section 3.1 advises against the latter too.
    """
    if len(body) > _MAX_CACHED_BODY:
        return Identification(body, _text(body))
    return _remembered(body)


@lru_cache(_CACHED)
def _remembered(body: bytes) -> Identification:
    return Identification(body, _text(body))


def _text(body: bytes) -> str:
    if not _PREFIX < len(body) <= MAX_IDENTIFICATION:
        raise DecodeError(f"an identification of {len(body)} bytes")
    kind, data = body[0], body[_PREFIX:]
    try:
        return normalize_identity(_written(kind, data))
    except (ValueError, ConfigurationError):
        raise DecodeError(f"a malformed identification of type {kind}, or one that can name nobody") from None


def _written(kind: int, data: bytes) -> str:
    """The identity as it stands there; ValueError when it is malformed or its type has no name here."""
    match kind:
        case IdentificationType.FQDN:
            return f"dns:{data.decode('ascii')}"
        case IdentificationType.RFC822_ADDR:
            return f"email:{data.decode('ascii')}"
        case IdentificationType.IPV4_ADDR:
            return f"ip:{ipaddress.IPv4Address(data)}"
        case IdentificationType.IPV6_ADDR:
            return f"ip:{ipaddress.IPv6Address(data)}"
        case IdentificationType.DER_ASN1_DN:
            return f"dn:{x509.Name.from_bytes(data).rfc4514_string()}"
        case IdentificationType.KEY_ID:
            return f"keyid:{data.hex()}"
    raise ValueError(kind)


# --- from text --------------------------------------------------------------------------------------------


@lru_cache(_CACHED)
def identification_of(text: str) -> Identification:
    """The ID payload that says `text`, an identity in the form of a verdict. Raises: ConfigurationError."""
    normal = normalize_identity(text)
    # A distinguished name is sent as it was written: the normal form is for comparing.
    value = (text if text.startswith("dn:") else normal).partition(":")[2]
    kind = normal.partition(":")[0]
    if kind == "ip":
        packed = ipaddress.ip_address(value).packed
        code, data = IdentificationType.IPV4_ADDR if len(packed) == 4 else IdentificationType.IPV6_ADDR, packed
    else:
        code, data = _KINDS[kind], _encode(kind, value)
    if len(data) > MAX_IDENTIFICATION - _PREFIX:
        raise ConfigurationError(f"{text[:80]!r} is too long for an identification")
    return Identification(bytes((code, 0, 0, 0)) + data, normal)


def _encode(kind: str, value: str) -> bytes:
    if kind == "keyid":
        return bytes.fromhex(value)
    if kind != "dn":
        return value.encode("ascii")
    try:
        return x509.Name.from_rfc4514_string(value).public_bytes()
    except ValueError as error:
        raise ConfigurationError(f"'dn:{value[:80]}' cannot be written as a distinguished name: {error}") from None


def wanted_identity(text: str, what: str) -> Identification | None:
    """An identity that a terminal named; None for none. Raises: Refused."""
    if not text:
        return None
    try:
        return identification_of(text)
    except ConfigurationError as error:
        raise Refused(f"{what}: {error}") from None


# --- certificates -----------------------------------------------------------------------------------------


def identities_of(subject: Subject) -> tuple[Identification, ...]:
    """What a certificate proves, in the order in which one of them stands for it by default.

    Names, addresses, mail addresses, and the subject unless that is empty. What is malformed proves nothing.
    """
    texts: Sequence[str] = (
        *(f"dns:{name}" for name in subject.dns_names),
        *(f"ip:{address}" for address in subject.addresses),
        *(f"email:{email}" for email in subject.emails),
    )
    found: dict[str, Identification] = {}
    for text in texts:
        try:
            identification = identification_of(text)
        except ConfigurationError:
            continue
        found.setdefault(identification.text, identification)
    if subject.name.rdns:
        body = bytes((IdentificationType.DER_ASN1_DN, 0, 0, 0)) + subject.name.public_bytes()
        try:
            name = parse_identification(body)
        except DecodeError:
            return tuple(found.values())
        found[name.text] = name
    return tuple(found.values())


def proves(subject: Subject, claimed: Identification) -> bool:
    """True when a certificate for `subject` is one for `claimed`; names with a ``*`` prove none (RFC 4945 3.1.2).

    Distinguished names are compared in their normal form, so that string types do not matter.
    """
    return any(each.text == claimed.text for each in identities_of(subject))
