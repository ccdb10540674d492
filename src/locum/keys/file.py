"""`FileKey`: a private key in this process's memory, read from PEM.

Never knows what it signs for whom; that is decided by whoever holds it.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from locum.crypto.asymmetric.signatures import check_private_key, decrypt_pkcs1, signer
from locum.errors import ConfigurationError, Incompatible, Refused


class FileKey:
    """A `PrivateKey` held as it is."""

    __slots__ = ("_key", "_public_key", "_signers")

    def __init__(self, key: PrivateKeyTypes) -> None:
        self._key = key
        #: By scheme and `prehashed`: a server signs under few of them, and often.
        self._signers: dict[tuple[str, bool], Callable[[bytes], bytes]] = {}
        self._public_key = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @classmethod
    def from_pem(cls, data: bytes, password: bytes | None = None) -> FileKey:
        """Read a key in PEM (PKCS#8 or the older forms), decrypting it with `password` when it is encrypted.

        Raises: ConfigurationError when it is none, is encrypted otherwise, or cannot sign in a TLS handshake
        (RSA of 2048 to 8192 bits, ECDSA, EdDSA and ML-DSA can).
        """
        try:
            key = load_pem_private_key(data, password)
        except TypeError:
            wanted = "is encrypted and needs a password" if password is None else "is not encrypted"
            raise ConfigurationError(f"the private key {wanted}") from None
        except (ValueError, UnsupportedAlgorithm):
            raise ConfigurationError("not a private key in PEM, or the wrong password") from None
        check_private_key(key)
        return cls(key)

    def __repr__(self) -> str:
        return "<FileKey>"

    @property
    def public_key(self) -> bytes:
        """The SubjectPublicKeyInfo in DER."""
        return self._public_key

    def sign(self, scheme: str, content: bytes, *, prehashed: bool = False) -> bytes:
        """As `PrivateKey.sign`."""
        try:
            return (self._signers.get((scheme, prehashed)) or self.signer(scheme, prehashed=prehashed))(content)
        except (Incompatible, ValueError) as error:
            raise Refused(f"the key cannot sign this: {error}") from None

    def signer(self, scheme: str, *, prehashed: bool = False) -> Callable[[bytes], bytes]:
        """What makes of contents, or digests, their signatures, in the least time; see `signatures.signer`.

        Raises: Incompatible when the key cannot sign under the scheme.
        """
        kept = self._signers[scheme, prehashed] = signer(scheme, self._key, prehashed=prehashed)
        return kept

    def decrypt_pkcs1(self, ciphertext: bytes) -> bytes:
        """As `PrivateKey.decrypt_pkcs1`."""
        try:
            return decrypt_pkcs1(self._key, ciphertext)
        except (Incompatible, ValueError):
            raise Refused("the key cannot decrypt this") from None
