"""Which certificate a client is shown: by the name it asks for, and by what it can verify (C3, C5).

Never knows where certificates or keys are kept, and never waits: what is here is what there is at this moment.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates, ocsp

from locum.crypto.asymmetric.certificates import (
    Rejected,
    describe,
    parse_chain,
    public_key_of,
    subject_of,
)
from locum.crypto.asymmetric.signatures import SCHEMES, KeyKind, schemes_for
from locum.errors import ConfigurationError, Unavailable
from locum.keyless.operations import KeyOperation
from locum.keys.port import KeyHolder
from locum.tls.registry import (
    CIPHER_SUITES,
    Authentication,
    CipherSuite,
    KeyExchange,
    ProtocolVersion,
    SignatureScheme,
    scheme_authentication,
)
from locum.tls.server_operations import ServerStartRequest, ServerStartResponse

#: Choices remembered: clients come in few kinds, and what strangers make up must not fill the memory.
MAX_REMEMBERED = 2048
#: Signature schemes and groups of one client with which a choice is remembered, several times what browsers have:
#: a ClientHello has room for thousands, all of them made up.
MAX_CODES = 128
#: Seconds for which an OCSP response without nextUpdate is shown.
OCSP_LIFETIME = 86_400.0

#: The kinds of keys, the cheapest for both sides first: schemes are listed in that order.
_RANK = {kind: rank for rank, kind in enumerate(dict.fromkeys(scheme.kind for scheme in SCHEMES.values()))}
#: The groups that go with keys on curves.
_CURVES = {KeyKind.P256: 23, KeyKind.P384: 24, KeyKind.P521: 25}


# --- a certificate ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A certificate with those that lead to its root, in DER, and what it says.

    `names` are DNS names in lower case, with a ``*`` as the first label where there is one, and textual IP
    addresses. `public_key` is the SubjectPublicKeyInfo in DER. Times are in seconds since the epoch.
    """

    certificates: tuple[bytes, ...]
    names: tuple[str, ...]
    kind: KeyKind
    may_sign: bool
    may_encipher: bool
    public_key: bytes = field(repr=False)
    not_after: float

    @classmethod
    def read(cls, certificates: Sequence[bytes]) -> Chain:
        """Read certificates in DER, the server's own first. Raises: ConfigurationError."""
        try:
            leaf = parse_chain(certificates)[0]
            said, subject, public_key = describe(leaf), subject_of(leaf), public_key_of(leaf)
        except Rejected as error:
            raise ConfigurationError(str(error)) from None
        return cls(
            certificates=tuple(certificates),
            names=(*(name.lower() for name in subject.dns_names), *map(str, subject.addresses)),
            kind=said.key.kind,
            may_sign=said.may_sign,
            may_encipher=said.may_encipher,
            public_key=public_key,
            not_after=said.valid_until,
        )

    @classmethod
    def from_pem(cls, data: bytes) -> Chain:
        """Read certificates in PEM, the server's own first. Raises: ConfigurationError."""
        try:
            certificates = load_pem_x509_certificates(data)
        except ValueError:
            raise ConfigurationError("not certificates in PEM") from None
        return cls.read([certificate.public_bytes(Encoding.DER) for certificate in certificates])

    @property
    def shown(self) -> str:
        """The name by which people know it."""
        return self.names[0] if self.names else "a certificate without names"


def staple_end(response: bytes) -> float:
    """Until when an OCSP response in DER may be shown, in seconds since the epoch. Raises: ConfigurationError.

    Only what the client will look at too: that somebody says something good. Whether it is true, the client finds
    out.
    """
    try:
        read = ocsp.load_der_ocsp_response(response)
        if read.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise ConfigurationError("the OCSP response is an error")
        single = next(iter(read.responses))
        if single.certificate_status is not ocsp.OCSPCertStatus.GOOD:
            raise ConfigurationError("the OCSP response does not say that the certificate is good")
        end = single.next_update_utc
        if end is None:
            end = single.this_update_utc + datetime.timedelta(seconds=OCSP_LIFETIME)
    except (ValueError, StopIteration):
        raise ConfigurationError("not an OCSP response in DER") from None
    return end.timestamp()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Served:
    """A chain with the holder of its key, and an OCSP response to staple until `ocsp_until`."""

    chain: Chain
    holder: KeyHolder = field(repr=False)
    ocsp: bytes = field(default=b"", repr=False)
    ocsp_until: float = 0.0


class AbsentKey:
    """A `KeyHolder` for a key that nobody offers at the moment."""

    def __init__(self, public_key: bytes, reason: str) -> None:
        self.public_key = public_key
        self._reason = reason

    def __repr__(self) -> str:
        return "<AbsentKey>"

    async def perform(self, operation: KeyOperation) -> bytes:
        """Raises: Unavailable, always."""
        raise Unavailable(self._reason)


# --- the choice -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choice:
    """What a client is shown, and what its handshake learns of it."""

    served: Served
    response: ServerStartResponse


class CertificateIndex:
    """Certificates by name at one moment, `now`; another takes its place when one of them changes or ends.

    Among several for a name that comes first with which the client can have the better handshake: TLS 1.3, then a
    signature in TLS 1.2, then RSA key exchange; then the cheaper key; then the one that was given first.
    """

    def __init__(self, served: Iterable[Served], *, now: float) -> None:
        every = tuple(served)
        # One that has ended is better than none: the client's complaint then says what is the matter.
        order = sorted(every, key=lambda each: (each.chain.not_after <= now, _RANK[each.chain.kind]))
        self._by_name: dict[str, list[Served]] = {}
        for each in order:
            for name in each.chain.names:
                self._by_name.setdefault(name, []).append(each)
        self._default = [each for each in order if every and _together(each, every[0])]
        self._remembered: dict[tuple[object, ...], Choice] = {}
        ends = (end for each in every for end in (each.chain.not_after, each.ocsp_until) if end > now)
        #: When this is no longer how things are, in seconds since the epoch.
        self.until = min(ends, default=float("inf"))
        self._now = now

    def __bool__(self) -> bool:
        return bool(self._default)

    def covers(self, name: str) -> bool:
        """True when there is a certificate for this name."""
        return self._find(name) is not None

    def choose(self, request: ServerStartRequest) -> Choice:
        """The certificate for this client; the default one for a name that there is none for.

        Raises: Unavailable when there is none at all.
        """
        key = (
            request.server_name,
            request.versions,
            request.cipher_suites,
            request.signature_schemes,
            request.groups,
        )
        choice = self._remembered.get(key)
        if choice is None:
            choice = self._choose(request)
            if len(request.signature_schemes) + len(request.groups or ()) > MAX_CODES:
                return choice
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = choice
        return choice

    def _choose(self, request: ServerStartRequest) -> Choice:
        candidates = self._find(request.server_name) or self._default
        if not candidates:
            raise Unavailable("there is no certificate to show")
        suites = [CIPHER_SUITES[code] for code in request.cipher_suites if code in CIPHER_SUITES]
        abilities = [_Abilities.of(each.chain, request, suites) for each in candidates]
        # max takes the first of several
        best = max(range(len(candidates)), key=lambda index: abilities[index].level)
        served, able = candidates[best], abilities[best]
        return Choice(
            served,
            ServerStartResponse(
                certificates=served.chain.certificates,
                ocsp_response=served.ocsp if served.ocsp_until > self._now else b"",
                schemes13=able.schemes13,
                schemes12=able.schemes12,
                rsa_key_exchange=able.rsa_key_exchange,
            ),
        )

    def _find(self, name: str) -> list[Served] | None:
        name = name.lower().removesuffix(".")
        if not name:
            return None
        found = self._by_name.get(name)
        if found is None:
            # RFC 9525 section 6.3: the star stands for exactly one label, the first.
            _, dot, rest = name.partition(".")
            found = self._by_name.get(f"*.{rest}") if dot else None
        return found


def _together(one: Served, other: Served) -> bool:
    """True when both are for the same site, as an RSA certificate and one for a curve can be."""
    return one is other or not {*one.chain.names}.isdisjoint(other.chain.names)


@dataclass(frozen=True, slots=True)
class _Abilities:
    """What a key can do for one client; see `ServerStartResponse`."""

    schemes13: tuple[int, ...]
    schemes12: tuple[int, ...]
    rsa_key_exchange: bool

    @classmethod
    def of(cls, chain: Chain, request: ServerStartRequest, suites: Sequence[CipherSuite]) -> _Abilities:
        rsa = chain.kind in (KeyKind.RSA, KeyKind.RSA_PSS)
        wanted = Authentication.RSA if rsa else Authentication.ECDSA
        fitting = [suite for suite in suites if suite.authentication is wanted]
        has12 = ProtocolVersion.TLS_1_2 in request.versions
        has13 = ProtocolVersion.TLS_1_3 in request.versions and any(
            suite.version is ProtocolVersion.TLS_1_3 for suite in suites
        )
        curve = _CURVES.get(chain.kind)
        # RFC 8422 section 5.1: supported_groups of TLS 1.2 limits the curves of certificates too.
        verifies12 = curve is None or request.groups is None or curve in request.groups
        signs12 = has12 and verifies12 and any(suite.key_exchange is not KeyExchange.RSA for suite in fitting)
        return cls(
            _schemes(chain, request, strict=True) if has13 else (),
            tuple(
                scheme
                for scheme in _schemes(chain, request, strict=False)
                if scheme_authentication(scheme) is wanted
            )
            if signs12
            else (),
            has12 and chain.may_encipher and any(suite.key_exchange is KeyExchange.RSA for suite in fitting),
        )

    @property
    def level(self) -> int:
        """The more, the better the handshake."""
        return 3 if self.schemes13 else 2 if self.schemes12 else int(self.rsa_key_exchange)


def _schemes(chain: Chain, request: ServerStartRequest, *, strict: bool) -> tuple[int, ...]:
    if not chain.may_sign:
        return ()
    codes = (int(SignatureScheme[name]) for name in schemes_for(chain.kind, strict=strict))
    return tuple(code for code in codes if code in request.signature_schemes)
