"""Which client certificate to show to a peer, and the signature that goes with it.

Knows identities by what their certificates say; never a private key itself, only the port to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cryptography import x509

from locum.authority.databases import ANY, Identity
from locum.crypto.asymmetric.certificates import Rejected, describe, parse_chain, public_key_of
from locum.crypto.asymmetric.signatures import KeyKind, schemes_for
from locum.errors import ConfigurationError
from locum.keys.port import PrivateKey
from locum.patterns import PeerPattern, parse_pattern
from locum.tls.operations import ClientCertificateRequest
from locum.tls.registry import ProtocolVersion, SignatureScheme, scheme_name


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """An identity chosen for one handshake, and the scheme that it will sign under."""

    certificates: tuple[bytes, ...]
    scheme: int
    key: PrivateKey = field(repr=False)

    def sign(self, content: bytes) -> bytes:
        """The signature of a CertificateVerify over `content`. Raises: what `PrivateKey.sign` raises."""
        return self.key.sign(scheme_name(self.scheme), content)


@dataclass(frozen=True, slots=True)
class _Known:
    identity: Identity
    kind: KeyKind
    peers: tuple[PeerPattern, ...]
    #: The subjects of the authorities in the chain, in DER.
    issuers: frozenset[bytes]
    not_before: float
    not_after: float


class ClientIdentities:
    """The identities that there are. Raises: ConfigurationError when a key is not its certificate's."""

    def __init__(self, identities: Iterable[Identity]) -> None:
        self._known = tuple(_examine(identity) for identity in identities)

    def choose(
        self,
        request: ClientCertificateRequest,
        *,
        terminal: str,
        peer: Sequence[str],
        address: str,
        now: float,
    ) -> ClientIdentity | None:
        """The first identity for this terminal and this peer (its identities) that fits what the peer asks for.

        One that is valid at `now` comes before one that is not; None when there is none at all.
        """
        strict = request.version == ProtocolVersion.TLS_1_3
        authorities = frozenset(request.authorities)
        fallback: ClientIdentity | None = None
        for known in self._known:
            if not _usable(known, terminal, peer, address) or (authorities and not authorities & known.issuers):
                continue
            scheme = _scheme(known.kind, request.schemes, strict=strict)
            if scheme is None:
                continue
            chosen = ClientIdentity(known.identity.certificates, scheme, known.identity.key)
            if known.not_before <= now <= known.not_after:
                return chosen
            fallback = fallback or chosen
        return fallback


def _usable(known: _Known, terminal: str, peer: Sequence[str], address: str) -> bool:
    terminals = known.identity.terminals
    return (terminal in terminals or ANY in terminals) and any(
        pattern.matches(identity, address) for pattern in known.peers for identity in peer
    )


def _scheme(kind: KeyKind, accepted: Sequence[int], *, strict: bool) -> int | None:
    """The scheme that this kind of key prefers among those that the peer accepts."""
    for name in schemes_for(kind, strict=strict):
        code = SignatureScheme[name]
        if code in accepted:
            return int(code)
    return None


def _examine(identity: Identity) -> _Known:
    try:
        chain = parse_chain(identity.certificates)
        description = describe(chain[0])
        matches = public_key_of(chain[0]) == identity.key.public_key
    except Rejected as error:
        raise ConfigurationError(f"identity {identity.name!r}: {error}") from None
    if not matches:
        raise ConfigurationError(f"identity {identity.name!r}: the private key is not that of its certificate")
    if not description.may_sign:
        raise ConfigurationError(f"identity {identity.name!r}: its certificate is not for signatures (keyUsage)")
    return _Known(
        identity=identity,
        kind=description.key.kind,
        peers=tuple(parse_pattern(peer) for peer in identity.peers),
        issuers=frozenset(certificate.issuer.public_bytes() for certificate in chain),
        not_before=_timestamp_before(chain[0]),
        not_after=description.valid_until,
    )


def _timestamp_before(leaf: x509.Certificate) -> float:
    return leaf.not_valid_before_utc.timestamp()
