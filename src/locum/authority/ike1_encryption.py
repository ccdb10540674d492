"""Authentication with public key encryption in IKEv1 (RFC 2409 section 5.2): what goes out hidden, what comes in.

Never tells whether anything decrypted: what did not is replaced by random bytes, and no HASH will verify. The
peer's public key is a pinned one, since it must be known before the peer has shown anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field

from locum.authority.authentication import Pin
from locum.authority.client_identities import KnownIdentity
from locum.authority.ike_identities import Identification, parse_identification
from locum.crypto.asymmetric.signatures import PublicKey, encrypt_pkcs1
from locum.errors import DecodeError, Refused
from locum.ike.algorithms import Prf
from locum.ike.payloads1 import MAX_NONCE, MIN_NONCE
from locum.values import dataclass

#: Bytes of what stands for a nonce that did not decrypt, and for an identification.
_STAND_IN = 32


@dataclass(frozen=True, slots=True)
class Disclosed:
    """What the peer has said: its nonce, the body of its identification, and who that is where it is anybody."""

    nonce: bytes = field(repr=False)
    body: bytes = field(repr=False)
    claimed: Identification | None


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whom something is encrypted to; `pin` is None for nobody, whose key is there for appearance."""

    key: PublicKey
    pin: Pin | None = None


def encrypt(key: PublicKey, content: bytes) -> bytes:
    """`content` encrypted to `key`. Raises: Refused when it does not fit."""
    try:
        return encrypt_pkcs1(key, content)
    except ValueError:
        raise Refused(
            f"{len(content)} bytes cannot be encrypted to the peer's key; it needs a longer one"
        ) from None


def find_recipient(identities: Sequence[KnownIdentity], certificate_hash: bytes, prf: Prf) -> KnownIdentity | None:
    """The identity that the peer has encrypted to: the one with this HASH(1) of its certificate, or the first."""
    for known in identities:
        if not certificate_hash or prf.hash.digest(known.identity.certificates[0]) == certificate_hash:
            return known
    return None


def disclose(
    known: KnownIdentity | None, identification: bytes, nonce: bytes, random: Callable[[int], bytes]
) -> Disclosed:
    """Decrypt both, or make them up. Raises: Unavailable or TimedOut when the key's holder cannot be reached."""
    body = _decrypt(known, identification, random)
    clear = _decrypt(known, nonce, random)
    if not MIN_NONCE <= len(clear) <= MAX_NONCE:
        clear = random(_STAND_IN)
    try:
        return Disclosed(clear, body, parse_identification(body))
    except DecodeError:
        return Disclosed(clear, body, None)


def _decrypt(known: KnownIdentity | None, ciphertext: bytes, random: Callable[[int], bytes]) -> bytes:
    if known is None:
        return random(_STAND_IN)
    try:
        return known.identity.key.decrypt_pkcs1(ciphertext)
    except Refused:
        return random(_STAND_IN)
