"""Private keys for tests of whatever keeps keys: made once, in the forms in which they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from locum.keys.generation import generate


@dataclass(frozen=True)
class KeyPair:
    """A private key of a kind that `locum key generate` knows."""

    kind: str
    key: PrivateKeyTypes

    @property
    def public_key(self) -> bytes:
        """The SubjectPublicKeyInfo in DER."""
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def pkcs8(self) -> bytes:
        """PKCS #8 in DER."""
        return self.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def pem(self, password: bytes | None = None) -> bytes:
        """PKCS #8 in PEM, under a password if there is one."""
        encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@cache
def key_pair(kind: str = "p256", number: int = 0) -> KeyPair:
    """The key pair of this kind and number, the same one in every test of a process."""
    return KeyPair(kind, generate(kind))
