"""What a server chooses of a client's offer: version, suite, group, scheme, protocol. Its own order decides.

Never knows a message of the answer: `server13` and `server12` write those.
"""

from __future__ import annotations

from locum.errors import Incompatible, OperationError
from locum.tls.alerts import InappropriateFallback, MissingExtension, NoApplicationProtocol, UnsupportedVersion
from locum.tls.client_offer import ClientOffer
from locum.tls.registry import (
    CIPHER_SUITES,
    FINITE_FIELD_RANGE,
    HYBRID_GROUPS,
    PKCS1_SCHEMES,
    Authentication,
    CipherSuite,
    KeyExchange,
    NamedGroup,
    ProtocolVersion,
    scheme_authentication,
)
from locum.tls.server_configuration import ServerConfiguration
from locum.tls.server_operations import ServerStartRequest, ServerStartResponse
from locum.values import dataclass


def choose_version(wishes: ServerConfiguration, offer: ClientOffer) -> ProtocolVersion:
    """The highest version that both know.

    Never a lower one, whatever the certificate can do: else who strips the client's offer on its way would choose.
    Raises: UnsupportedVersion, InappropriateFallback (RFC 7507 section 3).
    """
    version = max((version for version in wishes.versions if version in offer.versions), default=None)
    if version is None:
        raise UnsupportedVersion("the client offers no version that is spoken here")
    if offer.fallback and version < max(wishes.versions):
        raise InappropriateFallback("the client has fallen back to a version lower than the highest here")
    return version


def choose_protocol(wishes: ServerConfiguration, offer: ClientOffer) -> str | None:
    """The application protocol; None where either side does not care. Raises: NoApplicationProtocol."""
    if not wishes.alpn or offer.alpn is None:
        return None
    for name in wishes.alpn:
        if name in offer.alpn:
            return name
    raise NoApplicationProtocol("the client offers no application protocol that is spoken here")


def start_request(wishes: ServerConfiguration, offer: ClientOffer) -> ServerStartRequest:
    """What decides about the certificate."""
    offered = frozenset(offer.hello.cipher_suites)
    return ServerStartRequest(
        server_name=offer.server_name,
        versions=tuple(sorted((v for v in wishes.versions if v in offer.versions), reverse=True)),
        cipher_suites=tuple(code for code in wishes.cipher_suites if code in offered),
        signature_schemes=offer.schemes or (),
        alpn=offer.alpn or (),
        groups=offer.groups,
    )


def checked(start: ServerStartResponse, offer: ClientOffer) -> ServerStartResponse:
    """The answer to `start_request`, if it can be used at all. Raises: OperationError."""
    if not start.certificates:
        raise OperationError("there is no certificate to show")
    if not set(offer.schemes or ()).issuperset(start.schemes13 + start.schemes12):
        raise OperationError("the certificate's key would sign under a scheme that the client does not offer")
    return start


# --- TLS 1.3 ----------------------------------------------------------------------------------------------


def choose_suite13(wishes: ServerConfiguration, offer: ClientOffer) -> CipherSuite:
    """The cipher suite of TLS 1.3, which says nothing of the key exchange. Raises: Incompatible."""
    offered = offer.hello.cipher_suites
    for code in wishes.cipher_suites:
        suite = CIPHER_SUITES[code]
        if suite.version is ProtocolVersion.TLS_1_3 and code in offered:
            return suite
    raise Incompatible("the client offers no cipher suite of TLS 1.3 that is spoken here")


def choose_group13(wishes: ServerConfiguration, offer: ClientOffer) -> int:
    """The group of the key exchange; where the client sent no share in it, a HelloRetryRequest has to be made.

    One of the groups that have a share, unless the first common one is hybrid: what protects against a quantum
    computer is worth a round trip. Raises: Incompatible, MissingExtension (RFC 8446 section 9.2).
    """
    if offer.groups is None or offer.shares is None:
        raise MissingExtension("a ClientHello of TLS 1.3 without supported_groups or key_share")
    common = [group for group in wishes.groups if group in offer.groups]
    if not common:
        raise Incompatible("the client offers no group that is spoken here")
    if common[0] in HYBRID_GROUPS:
        return common[0]
    return next((group for group in common if offer.share(group) is not None), common[0])


def choose_scheme13(start: ServerStartResponse) -> int:
    """The scheme of the server's CertificateVerify. Raises: Incompatible."""
    scheme = next((code for code in start.schemes13 if code not in PKCS1_SCHEMES), None)
    if scheme is None:
        raise Incompatible("the certificate's key signs under no scheme that the client offers for TLS 1.3")
    return scheme


# --- TLS 1.2 ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice12:
    """Suite, group and scheme that go together; with RSA key exchange the last two are 0."""

    suite: CipherSuite
    group: int = 0
    scheme: int = 0


def choose12(wishes: ServerConfiguration, offer: ClientOffer, start: ServerStartResponse) -> Choice12:
    """The first suite for which there are a group and a key that signs or decrypts. Raises: Incompatible."""
    offered = offer.hello.cipher_suites
    for code in wishes.cipher_suites:
        suite = CIPHER_SUITES[code]
        if suite.version is not ProtocolVersion.TLS_1_2 or code not in offered:
            continue
        if suite.key_exchange is KeyExchange.RSA:
            if start.rsa_key_exchange:
                return Choice12(suite=suite)
            continue
        group = _group12(wishes, offer, suite.key_exchange)
        scheme = _scheme12(start, suite)
        if group and scheme:
            return Choice12(suite=suite, group=group, scheme=scheme)
    raise Incompatible("the client offers no cipher suite of TLS 1.2 that fits the certificate and is spoken here")


def _group12(wishes: ServerConfiguration, offer: ClientOffer, exchange: KeyExchange) -> int:
    finite = exchange is KeyExchange.DHE
    ours = [
        group for group in wishes.groups if (group in FINITE_FIELD_RANGE) is finite and group not in HYBRID_GROUPS
    ]
    offered = offer.groups or ()
    if finite and not any(group in FINITE_FIELD_RANGE for group in offered):
        # RFC 7919 section 4: a client that names none takes what it gets.
        return ours[0] if ours else 0
    if not finite and offer.groups is None:
        # RFC 8422 section 4 leaves the choice to the server; every client of that kind has this curve.
        return NamedGroup.SECP256R1 if NamedGroup.SECP256R1 in ours else 0
    return next((group for group in ours if group in offered), 0)


def _scheme12(start: ServerStartResponse, suite: CipherSuite) -> int:
    return next(
        (
            code
            for code in start.schemes12
            if suite.authentication in (Authentication.ANY, scheme_authentication(code))
        ),
        0,
    )
