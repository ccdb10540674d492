"""Is an IKE peer who it says it is? Certificates, pinned keys, and signatures of both versions (A5, A6; RFC 4945).

Never knows sessions, policies or pre-shared keys. As in TLS, what is remembered is that a chain was good for an
identity, never a signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from locum.authority.authentication import Authenticator, Pin, Proven, ProvenCache
from locum.authority.databases import TrustMaterial
from locum.authority.ike_identities import Identification, identities_of, proves
from locum.crypto.asymmetric.certificates import (
    Peer,
    Rejected,
    describe,
    parse_chain,
    public_key_of,
    subject_of,
)
from locum.crypto.asymmetric.signatures import KeyKind, PublicKey
from locum.errors import Incompatible, Misbehaved, Unauthenticated
from locum.handshake import Fault, PeerChain

#: A pinned key ends with its row, not with a date.
_FOREVER = float("inf")
#: Pinned keys that are tried for a peer that sends no certificate.
_MAX_CANDIDATES = 4


class IkeAuthenticator(Authenticator):
    """Verifies the peers of IKE, and as an `Authenticator` those of TLS, by one `TrustMaterial`."""

    def __init__(self, trust: TrustMaterial) -> None:
        super().__init__(trust)
        self._ike_cache = ProvenCache()

    def prove_ike(self, chain: PeerChain, claimed: Identification, *, now: float) -> tuple[Proven, ...]:
        """Find out who may prove to be `claimed` with this chain: one peer, or several keys without a chain.

        A peer without certificates must hold a key that is pinned for what it claims to be.
        Raises: Rejected.
        """
        if not chain.certificates:
            return self._pinned(claimed)
        key = hashlib.sha256(chain.digest + claimed.body).digest()
        proven = self._ike_cache.find(key, now=now)
        if proven is None:
            proven = self._prove_ike(chain, claimed, now)
            self._ike_cache.add(key, proven, now=now)
        return (proven,)

    def _prove_ike(self, chain: PeerChain, claimed: Identification, now: float) -> Proven:
        leaf = parse_chain(chain.certificates)[0]
        if self.pins:
            shown = public_key_of(leaf)
            pin = next((pin for pin in self.pins if pin.key == shown and pin.is_for(claimed.text)), None)
            if pin is not None:
                return Proven((pin.identity, claimed.text), describe(leaf))
        peer = self.paths.validate_ike(chain.certificates, now=now)
        subject = subject_of(leaf)
        if not proves(subject, claimed):
            named = ", ".join(each.text for each in identities_of(subject)) or "nobody"
            raise Rejected(
                Fault.WRONG_NAME, f"the peer says it is {claimed.text}, but its certificate is for {named[:200]}"
            )
        return Proven((claimed.text,), peer)

    def _pinned(self, claimed: Identification) -> tuple[Proven, ...]:
        fitting = [pin for pin in self.pins if pin.is_for(claimed.text)][:_MAX_CANDIDATES]
        if not fitting:
            raise Rejected(
                Fault.UNKNOWN_ISSUER, f"{claimed.text} showed no certificate, and no key is pinned for it"
            )
        return tuple(Proven((pin.identity, claimed.text), _pinned_peer(pin)) for pin in fitting)

    def encryption_keys(self, identity: str, address: str) -> tuple[tuple[Pin, PublicKey], ...]:
        """The pinned RSA keys that something can be encrypted to for this peer (RFC 2409 section 5.2).

        `identity` is what the peer claims or is wanted to be; `address` where it is, for one that is not known.
        """
        found = []
        for pin in self.pins:
            if pin.is_for(identity, "" if identity else address):
                peer = _pinned_peer(pin)
                if peer.may_encipher:
                    found.append((pin, peer.key))
        return tuple(found)


def check_possession(candidates: Iterable[Proven], verify: Callable[[PublicKey], None]) -> Proven:
    """The first of the candidates whose key passes `verify`, if its certificate lets it sign.

    RFC 4945 section 5.1.3.2: digitalSignature or nonRepudiation, either will do. Raises: Rejected.
    """
    problem = Rejected(Fault.UNKNOWN_ISSUER, "the peer has no key that is known")
    for candidate in candidates:
        peer = candidate.peer
        if not (peer.may_sign or peer.may_commit):
            problem = Rejected(Fault.UNSUPPORTED, "the peer's certificate is not for signatures (keyUsage)")
            continue
        try:
            verify(peer.key)
        except Unauthenticated as error:
            problem = Rejected(Fault.BAD_SIGNATURE, f"the peer did not prove to hold its key: {error}")
        except Misbehaved as error:
            problem = Rejected(Fault.BAD_SIGNATURE, f"the peer's proof is not acceptable: {error}")
        except Incompatible as error:
            problem = Rejected(Fault.UNSUPPORTED, f"the peer's proof is not acceptable: {error}")
        else:
            return candidate
    raise problem


def _pinned_peer(pin: Pin) -> Peer:
    try:
        key = PublicKey.from_der(pin.key)
    except Incompatible as error:
        raise Rejected(Fault.UNSUPPORTED, f"the pinned key {pin.name!r} cannot be used: {error}") from None
    return Peer(
        key=key, may_sign=True, may_commit=True, may_encipher=key.kind is KeyKind.RSA, valid_until=_FOREVER
    )
