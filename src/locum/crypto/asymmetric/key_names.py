"""How a public key is called: its kind in one word, and its identifiers in the keyless protocol.

Never knows whose key it is. A SubjectPublicKeyInfo goes in, in DER, and names come out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from locum.crypto.asymmetric.signatures import KeyKind, PublicKey
from locum.errors import ConfigurationError, Incompatible

#: Length of a SubjectKeyIdentifier in bytes: a SHA-1 value, which is a name here and proves nothing.
SKI_LENGTH = 20
#: Length of a digest in hexadecimal digits.
DIGEST_LENGTH = 64

_KINDS = {
    KeyKind.P256: "p256",
    KeyKind.P384: "p384",
    KeyKind.P521: "p521",
    KeyKind.ED25519: "ed25519",
    KeyKind.ED448: "ed448",
    KeyKind.MLDSA44: "ml-dsa-44",
    KeyKind.MLDSA65: "ml-dsa-65",
    KeyKind.MLDSA87: "ml-dsa-87",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyNames:
    """The names of one public key.

    `kind` is a word as ``rsa2048``, ``p256`` or ``ml-dsa-65``. `ski`, 20 bytes, is the SHA-1 of the
    subjectPublicKey bits (RFC 5280 section 4.2.1.2, method 1). `digest`, 64 hexadecimal digits, is the SHA-256
    of an RSA key's modulus written in upper-case hexadecimal, and of any other key's SubjectPublicKeyInfo.
    """

    kind: str
    ski: bytes
    digest: str


def names_of(public_key: bytes) -> KeyNames:
    """The names of a SubjectPublicKeyInfo in DER.

    Raises: ConfigurationError when it is none, or of a kind or size that cannot sign in a handshake.
    """
    try:
        key = load_der_public_key(public_key)
        ski = x509.SubjectKeyIdentifier.from_public_key(PublicKey.of(key).key).digest
        return KeyNames(kind=_kind(key), ski=ski, digest=_digest(key, public_key))
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError("not a public key in DER, or of a kind that is not implemented") from None
    except Incompatible as error:
        raise ConfigurationError(f"the key cannot be used: {error}") from None


def _kind(key: PublicKeyTypes) -> str:
    kind = PublicKey.of(key).kind
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa{key.key_size}"
    if kind is KeyKind.OTHER_CURVE and isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.name.lower()
    return _KINDS[kind]


def _digest(key: PublicKeyTypes, public_key: bytes) -> str:
    # "%X" of the modulus, as existing clients of the protocol compute it: no leading zeros.
    named = f"{key.public_numbers().n:X}".encode() if isinstance(key, rsa.RSAPublicKey) else public_key
    return hashlib.sha256(named).hexdigest()
