"""Signatures under every scheme of TLS and IKE, made and verified; and RSA encryption as both have it.

Never knows what is signed. Schemes go by their IANA names (RFC 8446 section 4.2.3), so that no protocol's code
points are needed here; two that only IKE has go by names that no protocol gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import (
    NoDigestInfo,
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import load_der_public_key

from locum.errors import ConfigurationError, Incompatible, Misbehaved, Unauthenticated

#: Smallest and largest RSA modulus, in bits: below, factoring is in reach; above, verifying costs too much.
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192


class KeyKind(Enum):
    """What a public key is, as far as a signature scheme cares."""

    RSA = "RSA"
    #: A key whose certificate allows RSASSA-PSS only (RFC 4055 section 1.2).
    RSA_PSS = "RSASSA-PSS"
    P256 = "P-256"
    P384 = "P-384"
    P521 = "P-521"
    OTHER_CURVE = "an elliptic curve that TLS 1.3 has no scheme for"
    ED25519 = "Ed25519"
    ED448 = "Ed448"
    MLDSA44 = "ML-DSA-44"
    MLDSA65 = "ML-DSA-65"
    MLDSA87 = "ML-DSA-87"


_CURVES = {"secp256r1": KeyKind.P256, "secp384r1": KeyKind.P384, "secp521r1": KeyKind.P521}
_ELLIPTIC = frozenset((KeyKind.P256, KeyKind.P384, KeyKind.P521, KeyKind.OTHER_CURVE))


#: The keys that handshake signatures can be verified with.
VerifyingKey = (
    rsa.RSAPublicKey
    | ec.EllipticCurvePublicKey
    | ed25519.Ed25519PublicKey
    | ed448.Ed448PublicKey
    | mldsa.MLDSA44PublicKey
    | mldsa.MLDSA65PublicKey
    | mldsa.MLDSA87PublicKey
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key and its kind."""

    kind: KeyKind
    key: VerifyingKey

    @classmethod
    def of(cls, key: PublicKeyTypes, *, pss_only: bool = False) -> PublicKey:
        """Find the kind of `key`; `pss_only` when its certificate restricts it to RSASSA-PSS.

        Raises: Incompatible for a key that nothing here can verify with, or that is too weak or too large.
        """
        match key:
            case rsa.RSAPublicKey():
                if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
                    raise Incompatible(
                        f"an RSA key of {key.key_size} bits, not of {MIN_RSA_BITS} to {MAX_RSA_BITS}"
                    )
                return cls(KeyKind.RSA_PSS if pss_only else KeyKind.RSA, key)
            case ec.EllipticCurvePublicKey():
                return cls(_CURVES.get(key.curve.name, KeyKind.OTHER_CURVE), key)
            case ed25519.Ed25519PublicKey():
                return cls(KeyKind.ED25519, key)
            case ed448.Ed448PublicKey():
                return cls(KeyKind.ED448, key)
            case mldsa.MLDSA44PublicKey():
                return cls(KeyKind.MLDSA44, key)
            case mldsa.MLDSA65PublicKey():
                return cls(KeyKind.MLDSA65, key)
            case mldsa.MLDSA87PublicKey():
                return cls(KeyKind.MLDSA87, key)
        raise Incompatible(f"a public key of a kind that is not implemented: {type(key).__name__}")

    @classmethod
    def from_der(cls, data: bytes) -> PublicKey:
        """As `of`, from a SubjectPublicKeyInfo that has been read before. Raises: Incompatible."""
        return cls.of(load_der_public_key(data))


@dataclass(frozen=True, slots=True)
class Scheme:
    """One signature scheme. `hash` is None where the algorithm hashes by itself (EdDSA, ML-DSA).

    `legacy` is RSASSA-PKCS1-v1_5, which TLS 1.3 does not allow in handshake signatures. `bare` is the same
    without a DigestInfo around the content, which is a hash value of any algorithm.
    """

    name: str
    kind: KeyKind
    hash: hashes.HashAlgorithm | None = None
    legacy: bool = False
    bare: bool = False
    #: Bytes of the content, where it is bare and has no other length.
    length: int | None = None

    @property
    def elliptic(self) -> bool:
        """True for ECDSA, on whichever curve."""
        return self.kind in _ELLIPTIC

    @property
    def pss(self) -> bool:
        """True for RSASSA-PSS, whichever kind of key it is for."""
        return self.kind is KeyKind.RSA_PSS or (self.kind is KeyKind.RSA and not self.legacy)

    def fits(self, kind: KeyKind, *, strict: bool) -> bool:
        """True when a key of this kind can be used with this scheme.

        `strict` as in TLS 1.3: an ECDSA scheme fixes the curve, and PKCS#1 v1.5 is out. In TLS 1.2 an ECDSA
        scheme says the hash only (RFC 5246 section 7.4.1.4.1).
        """
        if strict:
            return kind is self.kind and not self.legacy
        return kind is self.kind or (self.kind in _ELLIPTIC and kind in _ELLIPTIC)


_SHA256, _SHA384, _SHA512 = hashes.SHA256(), hashes.SHA384(), hashes.SHA512()
_SHA1, _SHA224 = hashes.SHA1(), hashes.SHA224()  # noqa: S303

#: Every implemented scheme by its IANA name, the most preferred first.
SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("ECDSA_SECP256R1_SHA256", KeyKind.P256, _SHA256),
        Scheme("ED25519", KeyKind.ED25519),
        Scheme("ECDSA_SECP384R1_SHA384", KeyKind.P384, _SHA384),
        Scheme("ECDSA_SECP521R1_SHA512", KeyKind.P521, _SHA512),
        Scheme("ED448", KeyKind.ED448),
        Scheme("RSA_PSS_RSAE_SHA256", KeyKind.RSA, _SHA256),
        Scheme("RSA_PSS_RSAE_SHA384", KeyKind.RSA, _SHA384),
        Scheme("RSA_PSS_RSAE_SHA512", KeyKind.RSA, _SHA512),
        Scheme("RSA_PSS_PSS_SHA256", KeyKind.RSA_PSS, _SHA256),
        Scheme("RSA_PSS_PSS_SHA384", KeyKind.RSA_PSS, _SHA384),
        Scheme("RSA_PSS_PSS_SHA512", KeyKind.RSA_PSS, _SHA512),
        Scheme("MLDSA44", KeyKind.MLDSA44),
        Scheme("MLDSA65", KeyKind.MLDSA65),
        Scheme("MLDSA87", KeyKind.MLDSA87),
        Scheme("RSA_PKCS1_SHA256", KeyKind.RSA, _SHA256, legacy=True),
        Scheme("RSA_PKCS1_SHA384", KeyKind.RSA, _SHA384, legacy=True),
        Scheme("RSA_PKCS1_SHA512", KeyKind.RSA, _SHA512, legacy=True),
    )
}


#: RSASSA-PKCS1-v1_5 as IKE alone has it: with SHA-1 (auth method 1 of IKEv2), and over a HASH of IKEv1 without a
#: DigestInfo (RFC 2409 section 5.1). No name of a protocol's registry leads here.
IKE_RSA_SHA1 = "IKE_RSA_PKCS1_SHA1"
IKE_RSA_HASH = "IKE_RSA_PKCS1_HASH"
_IKE_SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme(IKE_RSA_SHA1, KeyKind.RSA, _SHA1, legacy=True),
        Scheme(IKE_RSA_HASH, KeyKind.RSA, legacy=True, bare=True),
    )
}

#: Bytes of MD5 followed by SHA-1, which TLS before 1.2 signs with RSA without a DigestInfo (RFC 4346 section 4.7).
_MD5_SHA1_LENGTH = 36
#: Schemes with hashes that are weak: signed for those who have nothing else, never verified in a handshake.
LEGACY_SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("RSA_PKCS1_MD5_SHA1", KeyKind.RSA, legacy=True, bare=True, length=_MD5_SHA1_LENGTH),
        Scheme("RSA_PKCS1_SHA1", KeyKind.RSA, _SHA1, legacy=True),
        Scheme("RSA_PKCS1_SHA224", KeyKind.RSA, _SHA224, legacy=True),
        Scheme("ECDSA_SHA1", KeyKind.OTHER_CURVE, _SHA1),
        Scheme("ECDSA_SHA224", KeyKind.OTHER_CURVE, _SHA224),
    )
}


def verify(
    name: str,
    public_key: PublicKey,
    signature: bytes,
    content: bytes,
    *,
    strict: bool,
    prehashed: bool = False,
) -> None:
    """Verify a handshake signature of `content`; returns when it is good.

    `prehashed`, for ECDSA, says that `content` is the digest, as long as that of the scheme's hash.
    Raises: Incompatible when the scheme is not implemented, Misbehaved when it does not fit the key (`strict`
    as in `Scheme.fits`), Unauthenticated when the signature is wrong.
    """
    scheme = SCHEMES.get(name) or _IKE_SCHEMES.get(name)
    if scheme is None:
        raise Incompatible(f"the signature scheme {name} is not implemented")
    if not scheme.fits(public_key.kind, strict=strict):
        raise Misbehaved(f"a signature under {name} by a key of the kind {public_key.kind.value}")
    try:
        _verify_with(public_key.key, scheme, signature, content, prehashed)
    except InvalidSignature:
        raise Unauthenticated(f"the {name} signature does not verify") from None


def _verify_with(key: VerifyingKey, scheme: Scheme, signature: bytes, content: bytes, prehashed: bool) -> None:
    match key:
        case rsa.RSAPublicKey() if scheme.bare:
            if key.recover_data_from_signature(signature, padding.PKCS1v15(), None) != content:
                raise InvalidSignature
        case rsa.RSAPublicKey():
            assert scheme.hash is not None
            key.verify(signature, content, _rsa_padding(scheme, scheme.hash), scheme.hash)
        case ec.EllipticCurvePublicKey():
            assert scheme.hash is not None
            key.verify(signature, content, ec.ECDSA(Prehashed(scheme.hash) if prehashed else scheme.hash))
        case _:  # EdDSA and ML-DSA hash the content themselves
            key.verify(signature, content)


def _rsa_padding(scheme: Scheme, algorithm: hashes.HashAlgorithm) -> padding.AsymmetricPadding:
    # RFC 8446 section 4.2.3: the salt is as long as the digest.
    return padding.PSS(padding.MGF1(algorithm), algorithm.digest_size) if scheme.pss else padding.PKCS1v15()


def sign(name: str, key: PrivateKeyTypes, content: bytes, *, prehashed: bool = False) -> bytes:
    """Sign `content`, or, `prehashed`, the content whose digest under the scheme's hash it is.

    Raises: Incompatible when the scheme is not implemented or the key cannot sign under it; ValueError when a
    digest has the wrong length or the scheme takes none.
    """
    return signer(name, key, prehashed=prehashed)(content)


def signer(name: str, key: PrivateKeyTypes, *, prehashed: bool = False) -> Callable[[bytes], bytes]:
    """What makes of a content its signature, as `sign` does: worth keeping by whoever signs more than once.

    Raises: Incompatible, ValueError as `sign`, which the result raises for a digest of the wrong length.
    """
    scheme = signing_scheme(name)
    if scheme.hash is None and not scheme.bare and prehashed:
        raise ValueError(f"{name} signs the whole content, not a digest")
    match key:
        case rsa.RSAPrivateKey() if scheme.bare:
            return _bare_signer(key, scheme.length)
        case rsa.RSAPrivateKey() if scheme.kind in (KeyKind.RSA, KeyKind.RSA_PSS) and scheme.hash:
            rsa_sign, rsa_padding = key.sign, _rsa_padding(scheme, scheme.hash)
            rsa_hash = Prehashed(scheme.hash) if prehashed else scheme.hash
            return lambda content: rsa_sign(content, rsa_padding, rsa_hash)
        case ec.EllipticCurvePrivateKey() if scheme.kind in _ELLIPTIC and scheme.hash:
            ec_sign, ecdsa = key.sign, ec.ECDSA(Prehashed(scheme.hash) if prehashed else scheme.hash)
            return lambda content: ec_sign(content, ecdsa)
        case _ if (simple := _SIMPLE_SIGNERS.get(scheme.kind)) is not None and isinstance(key, simple):
            return key.sign
    raise Incompatible(f"the private key cannot sign under {name}")


def signing_scheme(name: str) -> Scheme:
    """The scheme of this name that a private key may sign under. Raises: Incompatible when it is none."""
    scheme = SCHEMES.get(name) or _IKE_SCHEMES.get(name) or LEGACY_SCHEMES.get(name)
    if scheme is None:
        raise Incompatible(f"the signature scheme {name} is not implemented")
    return scheme


def _bare_signer(key: rsa.RSAPrivateKey, length: int | None) -> Callable[[bytes], bytes]:
    """RSASSA-PKCS1-v1_5 without a DigestInfo, over contents of this length."""

    def sign_bare(content: bytes) -> bytes:
        if length not in (None, len(content)):
            raise ValueError(f"the content has {len(content)} bytes and not {length}")
        return key.sign(content, padding.PKCS1v15(), NoDigestInfo())

    return sign_bare


_SIMPLE_SIGNERS: dict[
    KeyKind,
    type[ed25519.Ed25519PrivateKey]
    | type[ed448.Ed448PrivateKey]
    | type[mldsa.MLDSA44PrivateKey]
    | type[mldsa.MLDSA65PrivateKey]
    | type[mldsa.MLDSA87PrivateKey],
] = {
    KeyKind.ED25519: ed25519.Ed25519PrivateKey,
    KeyKind.ED448: ed448.Ed448PrivateKey,
    KeyKind.MLDSA44: mldsa.MLDSA44PrivateKey,
    KeyKind.MLDSA65: mldsa.MLDSA65PrivateKey,
    KeyKind.MLDSA87: mldsa.MLDSA87PrivateKey,
}


def schemes_for(kind: KeyKind, *, strict: bool) -> tuple[str, ...]:
    """The names of the schemes that a key of this kind can sign under, the most preferred first."""
    fitting = [scheme.name for scheme in SCHEMES.values() if scheme.fits(kind, strict=strict)]
    # In TLS 1.2 a key may sign with any hash; the one made for its curve stays the first choice.
    return tuple(sorted(fitting, key=lambda name: SCHEMES[name].kind is not kind))


def check_private_key(key: PrivateKeyTypes) -> None:
    """Raise ConfigurationError unless `key` is of a kind and size that can sign in a handshake."""
    try:
        PublicKey.of(key.public_key())
    except Incompatible as error:
        raise ConfigurationError(f"the private key cannot be used: {error}") from None


def encrypt_pkcs1(public_key: PublicKey, secret: bytes) -> bytes:
    """Encrypt a pre-master secret with RSAES-PKCS1-v1_5 (RFC 5246 section 7.4.7.1).

    Raises: Misbehaved when the key is not an RSA key that may encrypt.
    """
    if public_key.kind is not KeyKind.RSA or not isinstance(public_key.key, rsa.RSAPublicKey):
        raise Misbehaved(f"RSA key exchange with a key of the kind {public_key.kind.value}")
    return public_key.key.encrypt(secret, padding.PKCS1v15())


def decrypt_pkcs1(key: PrivateKeyTypes, ciphertext: bytes) -> bytes:
    """Decrypt RSAES-PKCS1-v1_5 with implicit rejection: what was not encrypted to this key gives other bytes.

    Their number is no more to be relied on than they are.
    Raises: Incompatible when the key is not an RSA key, ValueError when the ciphertext is no number below its
    modulus, which anybody can see.
    """
    if not isinstance(key, rsa.RSAPrivateKey):
        raise Incompatible("the private key cannot decrypt")
    return key.decrypt(ciphertext, padding.PKCS1v15())


# --- ECDSA signatures as IKE writes them ------------------------------------------------------------------


def concatenated(signature: bytes, length: int) -> bytes:
    """An ECDSA signature in DER as r followed by s, `length` bytes each (RFC 4754 section 7)."""
    r, s = decode_dss_signature(signature)
    return r.to_bytes(length, "big") + s.to_bytes(length, "big")


def from_concatenated(signature: bytes) -> bytes:
    """The DER of an ECDSA signature that is r followed by s, both of the same length."""
    half = len(signature) // 2
    return encode_dss_signature(int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))
