"""Keys for the tests of the PKCS#11 agent: as files, as objects of a token, and to verify with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tests.support.p11_worker import offered_key

from locum.edge.p11.objects import key_objects
from locum.edge.p11.token import Token
from locum.keyless.queries import OfferedKey

RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
KEYS = {"rsa": RSA, "ec": EC}


def write_keys(directory: Path) -> dict[str, Path]:
    """The keys as files; name to path."""
    paths = {}
    for name, key in KEYS.items():
        paths[name] = directory / f"{name}.key"
        paths[name].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        paths[name].chmod(0o600)
    return paths


def offered(name: str, *, raw: bool = True, bound: bool = True) -> OfferedKey:
    """What a key server says of one of the keys."""
    public_key = KEYS[name].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return offered_key(name, public_key, raw=raw, bound=bound)


def token(*, raw: bool = True, bound: bool = True) -> Token:
    """A token with both keys. Handles: rsa 1 (private) and 2 (public), ec 3 and 4."""
    made = Token()
    made.replace([item for name in KEYS for item in key_objects(offered(name, raw=raw, bound=bound))])
    return made


@dataclass(frozen=True)
class Handles:
    rsa: int = 1
    rsa_public: int = 2
    ec: int = 3
    ec_public: int = 4


HANDLES = Handles()


def verify_ec(signature: bytes, content: bytes) -> None:
    """Verify r and s of 32 bytes each."""
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    EC.public_key().verify(encode_dss_signature(r, s), content, ec.ECDSA(hashes.SHA256()))


def verify_pss(signature: bytes, content: bytes) -> None:
    """Verify RSASSA-PSS with SHA-256 and a salt of 32 bytes."""
    RSA.public_key().verify(signature, content, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())


def verify_pkcs1(signature: bytes, content: bytes) -> None:
    """Verify RSASSA-PKCS1-v1_5 with SHA-256."""
    RSA.public_key().verify(signature, content, padding.PKCS1v15(), hashes.SHA256())


def encrypt(message: bytes) -> bytes:
    """RSAES-PKCS1-v1_5."""
    return RSA.public_key().encrypt(message, padding.PKCS1v15())
