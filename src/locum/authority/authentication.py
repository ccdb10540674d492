"""Is the peer who it says it is? Pinned keys, certificate paths, and the memory of both (A5, A6).

Never knows sessions or policies. What is remembered is that a chain was good for a name, never a signature, so
the steady cost of a handshake is the one signature that only this handshake contains.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from locum.authority.databases import PinnedKey, TrustMaterial, named_identity
from locum.crypto.asymmetric.certificates import (
    PathValidator,
    Peer,
    Rejected,
    describe,
    load_public_key,
    parse_chain,
    public_key_of,
)
from locum.crypto.asymmetric.signatures import KeyKind, verify
from locum.errors import Incompatible, Misbehaved, Unauthenticated
from locum.handshake import Fault, PeerChain
from locum.patterns import PeerPattern, parse_pattern
from locum.tls.operations import AuthenticateRequest
from locum.tls.registry import (
    CIPHER_SUITES,
    Authentication,
    CipherSuite,
    KeyExchange,
    ProtocolVersion,
    scheme_name,
)
from locum.tls.schedule import certificate_verify_content
from locum.values import dataclass

#: For how many seconds a validated chain is taken as valid without another look.
CACHE_LIFETIME = 300.0
#: Validated chains remembered, by their hash.
MAX_CACHED_CHAINS = 4096


@dataclass(frozen=True, slots=True)
class Proven:
    """A peer whose chain is good: the identities it has proven, the most telling first, and its key."""

    identities: tuple[str, ...]
    peer: Peer


@dataclass(frozen=True, slots=True)
class Pin:
    """A pinned key ready for use; `key` is its SubjectPublicKeyInfo in DER."""

    name: str
    key: bytes
    peers: tuple[PeerPattern, ...]

    @property
    def identity(self) -> str:
        """The identity of whoever proves to hold it, in the form of a verdict."""
        return f"pin:{self.name}"

    def is_for(self, identity: str, address: str = "") -> bool:
        """True when a peer of this identity, or at this address, may be authenticated by it."""
        return any(pattern.matches(identity, address) for pattern in self.peers)


class Authenticator:
    """Verifies peers by one `TrustMaterial`; another one takes its place when the material changes.

    Raises: ConfigurationError when an anchor, a CRL or a pinned key is not what it should be.
    """

    def __init__(self, trust: TrustMaterial) -> None:
        self.paths = PathValidator(trust.anchors, trust.crls)
        self.pins = tuple(_load_pin(pin) for pin in trust.pinned)
        self._cache = ProvenCache()

    def possible_pins(self, identity: str) -> tuple[str, ...]:
        """The ``pin:`` identities that a peer of this name can still turn out to have."""
        return tuple(pin.identity for pin in self.pins if pin.is_for(identity))

    def prove(self, chain: PeerChain, server_name: str, *, now: float) -> Proven:
        """Find out whether `chain` is good for `server_name`, from memory if it was so a moment ago.

        Raises: Rejected.
        """
        key = hashlib.sha256(chain.digest + server_name.encode()).digest()
        proven = self._cache.find(key, now=now)
        if proven is None:
            proven = self._prove(chain, server_name, now)
            self._cache.add(key, proven, now=now)
        return proven

    def _prove(self, chain: PeerChain, server_name: str, now: float) -> Proven:
        identity = named_identity(server_name)
        leaf = parse_chain(chain.certificates, chain.ocsp_response)[0]
        if self.pins:
            shown = public_key_of(leaf)
            pin = next((pin for pin in self.pins if pin.key == shown and pin.is_for(identity)), None)
            if pin is not None:
                return Proven((pin.identity, identity), describe(leaf))
        name = identity.partition(":")[2]
        return Proven((identity,), self.paths.validate(chain.certificates, chain.ocsp_response, name, now=now))


def _load_pin(pin: PinnedKey) -> Pin:
    return Pin(pin.name, load_public_key(pin.key), tuple(parse_pattern(peer) for peer in pin.peers))


class ProvenCache:
    """Proven chains, forgotten after `CACHE_LIFETIME`, at the end of what they prove, or to make room."""

    def __init__(self) -> None:
        self._entries: OrderedDict[bytes, tuple[Proven, float]] = OrderedDict()

    def find(self, key: bytes, *, now: float) -> Proven | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        proven, until = entry
        # A clock that was set back must not make an entry live longer.
        if not until - CACHE_LIFETIME <= now <= until:
            del self._entries[key]
            return None
        return proven

    def add(self, key: bytes, proven: Proven, *, now: float) -> None:
        until = min(now + CACHE_LIFETIME, proven.peer.valid_until)
        if until < now:
            return
        self._entries[key] = proven, until
        if len(self._entries) > MAX_CACHED_CHAINS:
            self._entries.popitem(last=False)


# --- the peer's key in this handshake ---------------------------------------------------------------------


def check_possession(request: AuthenticateRequest, peer: Peer) -> None:
    """Verify that the peer holds the key of its certificate, in the way that `request` calls for.

    TLS 1.3: CertificateVerify (RFC 8446 section 4.4.3). TLS 1.2: the signature of ServerKeyExchange (RFC 5246
    section 7.4.3, RFC 8422 section 5.4); with RSA key exchange the Finished proves it, and here only that the
    key may encrypt. Raises: Rejected.
    """
    suite = CIPHER_SUITES[request.cipher_suite]
    _check_kind(suite, peer)
    if suite.key_exchange is KeyExchange.RSA:
        if not peer.may_encipher:
            raise Rejected(Fault.UNSUPPORTED, "the peer's certificate is not for RSA key exchange (keyUsage)")
        return
    if not peer.may_sign:
        raise Rejected(Fault.UNSUPPORTED, "the peer's certificate is not for signatures (keyUsage)")
    strict = request.version == ProtocolVersion.TLS_1_3
    content = certificate_verify_content(b"server", request.content) if strict else request.content
    try:
        verify(scheme_name(request.scheme), peer.key, request.signature, content, strict=strict)
    except Unauthenticated as error:
        raise Rejected(Fault.BAD_SIGNATURE, f"the peer did not prove to hold its key: {error}") from None
    except (Misbehaved, Incompatible) as error:
        raise Rejected(Fault.BAD_SIGNATURE, f"the peer's proof is not acceptable: {error}") from None


_RSA_KINDS = frozenset((KeyKind.RSA, KeyKind.RSA_PSS))


def _check_kind(suite: CipherSuite, peer: Peer) -> None:
    """RFC 5246 section 7.4.2, RFC 8422 section 2.2: the suite of TLS 1.2 says what kind of key there must be."""
    is_rsa = peer.key.kind in _RSA_KINDS
    if suite.authentication is not Authentication.ANY and is_rsa != (suite.authentication is Authentication.RSA):
        raise Rejected(Fault.UNSUPPORTED, f"{suite.name} with a key of the kind {peer.key.kind.value}")
