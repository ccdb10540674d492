"""Signatures over digests, as the opcodes of the keyless protocol make them, verified with OpenSSL alone."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from locum.keyless.registry import Opcode

_HASHES: dict[int, hashes.HashAlgorithm] = {32: hashes.SHA256(), 48: hashes.SHA384(), 64: hashes.SHA512()}
_PSS = (Opcode.RSA_PSS_SIGN_SHA256, Opcode.RSA_PSS_SIGN_SHA384, Opcode.RSA_PSS_SIGN_SHA512)


def verify_digest(public: PublicKeyTypes, opcode: int, signature: bytes, content: bytes) -> None:
    """Raise InvalidSignature unless this is the signature that `opcode` asks for over `content`.

    That is a digest, but for Ed25519.
    """
    if isinstance(public, ed25519.Ed25519PublicKey):
        public.verify(signature, content)
        return
    algorithm = _HASHES[len(content)]
    if isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, content, ec.ECDSA(Prehashed(algorithm)))
        return
    assert isinstance(public, rsa.RSAPublicKey)
    pss = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
    public.verify(signature, content, pss if opcode in _PSS else padding.PKCS1v15(), Prehashed(algorithm))
