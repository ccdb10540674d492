"""The port `PrivateKey`: whoever signs for an identity, be it a file, a token or a key server.

Never says where the key is, and never hands it out.
"""

from __future__ import annotations

from typing import Protocol

from locum.keyless.operations import KeyOperation


class PrivateKey(Protocol):
    """A private key that signs, and decrypts where IKE wants that. Its `repr` shows nothing of it."""

    @property
    def public_key(self) -> bytes:
        """The SubjectPublicKeyInfo in DER, to find out whether it belongs to a certificate."""
        ...

    def sign(self, scheme: str, content: bytes, *, prehashed: bool = False) -> bytes:
        """Sign `content` under the scheme with this IANA name (RFC 8446 section 4.2.3), or one that only IKE has.

        With `prehashed`, `content` is the digest of what is to be signed, under the scheme's hash; EdDSA and
        ML-DSA take none.
        Raises: Refused when the key cannot or may not sign that; Unavailable or TimedOut when its holder cannot
        be reached.
        """
        ...

    def decrypt_pkcs1(self, ciphertext: bytes) -> bytes:
        """Decrypt RSAES-PKCS1-v1_5, for public key encryption in IKEv1 (RFC 2409 section 5.2) and nothing else.

        Rejection is implicit: what was not encrypted to this key comes out as other bytes, without an error.
        Raises: Refused when the key cannot or may not decrypt, or the ciphertext does not fit it; Unavailable or
        TimedOut when its holder cannot be reached.
        """
        ...


class KeyHolder(Protocol):
    """Whoever performs operations with one private key, near or far, in its own time. Its `repr` shows nothing."""

    @property
    def public_key(self) -> bytes:
        """The SubjectPublicKeyInfo in DER."""
        ...

    async def perform(self, operation: KeyOperation) -> bytes:
        """Perform one operation; returns the signature, the decrypted message or the master secret.

        Raises: Refused when the key cannot or may not do that; Unavailable or TimedOut when its holder cannot be
        reached or does not answer in time.
        """
        ...
