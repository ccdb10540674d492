"""The identities that terminals have, and which client certificate to show to a TLS peer.

Knows identities by what their certificates say; never a private key itself, only the port to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field

from cryptography import x509

from locum.authority.databases import ANY, Identity
from locum.authority.ike_identities import Identification, identities_of
from locum.crypto.asymmetric.certificates import (
    Rejected,
    describe,
    parse_chain,
    public_key_hash,
    public_key_of,
    subject_of,
)
from locum.crypto.asymmetric.signatures import KeyKind, schemes_for
from locum.errors import ConfigurationError
from locum.keys.port import PrivateKey
from locum.patterns import PeerPattern, parse_pattern
from locum.tls.operations import ClientCertificateRequest
from locum.tls.registry import ProtocolVersion, SignatureScheme, scheme_name
from locum.values import dataclass


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
class KnownIdentity:
    """An identity with what its certificates say; times are in seconds since the epoch.

    `names` are what it can say it is in IKE, the one to say by default first. `issuers` are the subjects of the
    authorities in the chain, in DER, and `issuer_keys` SHA-1 of the public keys of those that are in it.
    """

    identity: Identity
    kind: KeyKind
    names: tuple[Identification, ...]
    may_encipher: bool
    peers: tuple[PeerPattern, ...]
    issuers: frozenset[bytes]
    issuer_keys: frozenset[bytes]
    not_before: float
    not_after: float

    def is_of(self, terminal: str) -> bool:
        """True when `terminal` may use it, towards whomever."""
        return terminal in self.identity.terminals or ANY in self.identity.terminals

    def is_for(self, terminal: str, peer: Sequence[str], address: str) -> bool:
        """True when `terminal` may use it towards the peer with these identities, or at this address."""
        return self.is_of(terminal) and any(
            pattern.matches(identity, address) for pattern in self.peers for identity in peer
        )

    def is_valid(self, now: float) -> bool:
        """True when its certificate is valid at `now`."""
        return self.not_before <= now <= self.not_after


class ClientIdentities:
    """The identities that there are. Raises: ConfigurationError when a key is not its certificate's."""

    def __init__(self, identities: Iterable[Identity]) -> None:
        self.known = tuple(_examine(identity) for identity in identities)

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
        for known in self.known:
            if not known.is_for(terminal, peer, address) or (authorities and not authorities & known.issuers):
                continue
            scheme = _scheme(known.kind, request.schemes, strict=strict)
            if scheme is None:
                continue
            chosen = ClientIdentity(known.identity.certificates, scheme, known.identity.key)
            if known.is_valid(now):
                return chosen
            fallback = fallback or chosen
        return fallback


def _scheme(kind: KeyKind, accepted: Sequence[int], *, strict: bool) -> int | None:
    """The scheme that this kind of key prefers among those that the peer accepts."""
    for name in schemes_for(kind, strict=strict):
        code = SignatureScheme[name]
        if code in accepted:
            return int(code)
    return None


def _examine(identity: Identity) -> KnownIdentity:
    try:
        chain = parse_chain(identity.certificates)
        description = describe(chain[0])
        names = identities_of(subject_of(chain[0]))
        issuer_keys = frozenset(public_key_hash(certificate) for certificate in chain[1:])
        matches = public_key_of(chain[0]) == identity.key.public_key
    except Rejected as error:
        raise ConfigurationError(f"identity {identity.name!r}: {error}") from None
    if not matches:
        raise ConfigurationError(f"identity {identity.name!r}: the private key is not that of its certificate")
    if not description.may_sign:
        raise ConfigurationError(f"identity {identity.name!r}: its certificate is not for signatures (keyUsage)")
    return KnownIdentity(
        identity=identity,
        kind=description.key.kind,
        names=names,
        may_encipher=description.may_encipher,
        peers=tuple(parse_pattern(peer) for peer in identity.peers),
        issuers=frozenset(certificate.issuer.public_bytes() for certificate in chain),
        issuer_keys=issuer_keys,
        not_before=_timestamp_before(chain[0]),
        not_after=description.valid_until,
    )


def _timestamp_before(leaf: x509.Certificate) -> float:
    return leaf.not_valid_before_utc.timestamp()
