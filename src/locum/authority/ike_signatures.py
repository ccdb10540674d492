"""The signatures in AUTH payloads of IKEv2 and SIG payloads of IKEv1: which to make, and whether one is good.

Never knows what is signed, nor whose key it is. An AlgorithmIdentifier (RFC 7427) is compared with those that
there are, in every encoding that peers use, and never taken apart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache

from locum.crypto.asymmetric.signatures import (
    IKE_RSA_HASH,
    IKE_RSA_SHA1,
    SCHEMES,
    KeyKind,
    PublicKey,
    concatenated,
    from_concatenated,
    verify,
)
from locum.errors import Incompatible, Misbehaved
from locum.ike.algorithms import Prf
from locum.ike.registry import AuthenticationMethod1, AuthenticationMethod2, SignatureHash
from locum.keys.port import PrivateKey
from locum.values import dataclass

# --- AlgorithmIdentifiers (RFC 7427 appendix A, RFC 8420 appendix A) ---------------------------------------


def _sequence(*parts: bytes) -> bytes:
    content = b"".join(parts)
    assert len(content) < 0x80
    return bytes((0x30, len(content))) + content


def _explicit(tag: int, content: bytes) -> bytes:
    return bytes((0xA0 | tag, len(content))) + content


_NULL = bytes.fromhex("0500")
_RSASSA_PSS = bytes.fromhex("06092a864886f70d01010a")
_MGF1 = bytes.fromhex("06092a864886f70d010108")
_TRAILER = _explicit(3, bytes.fromhex("020101"))
_HASH_OIDS = {
    SignatureHash.SHA2_256: bytes.fromhex("0609608648016503040201"),
    SignatureHash.SHA2_384: bytes.fromhex("0609608648016503040202"),
    SignatureHash.SHA2_512: bytes.fromhex("0609608648016503040203"),
}
_HASH_BYTES = {SignatureHash.SHA2_256: 32, SignatureHash.SHA2_384: 48, SignatureHash.SHA2_512: 64}
_PKCS1_OIDS = {
    SignatureHash.SHA2_256: bytes.fromhex("06092a864886f70d01010b"),
    SignatureHash.SHA2_384: bytes.fromhex("06092a864886f70d01010c"),
    SignatureHash.SHA2_512: bytes.fromhex("06092a864886f70d01010d"),
}
_ECDSA_OIDS = {
    SignatureHash.SHA2_256: bytes.fromhex("06082a8648ce3d040302"),
    SignatureHash.SHA2_384: bytes.fromhex("06082a8648ce3d040303"),
    SignatureHash.SHA2_512: bytes.fromhex("06082a8648ce3d040304"),
}
_ED25519 = _sequence(bytes.fromhex("06032b6570"))
_ED448 = _sequence(bytes.fromhex("06032b6571"))


def _pss_identifiers(algorithm: SignatureHash) -> Iterator[bytes]:
    """RSASSA-PSS with a salt as long as the hash: parameters of hashes present or not, trailer written or not.

    The first is the DER of RFC 4055 section 3.1, which is what peers with this hash are sent.
    """
    salt = _explicit(2, bytes((2, 1, _HASH_BYTES[algorithm])))
    hashes = (_sequence(_HASH_OIDS[algorithm], _NULL), _sequence(_HASH_OIDS[algorithm]))
    for outer in hashes:
        for inner in hashes:
            for trailer in (b"", _TRAILER):
                parameters = _sequence(_explicit(0, outer), _explicit(1, _sequence(_MGF1, inner)), salt, trailer)
                yield _sequence(_RSASSA_PSS, parameters)


@dataclass(frozen=True, slots=True)
class _Signature:
    """One algorithm of auth method 14: the name of its scheme, its hash, and its encodings, ours first."""

    scheme: str
    hash: SignatureHash
    kinds: Collection[KeyKind]
    identifiers: tuple[bytes, ...]


_ELLIPTIC = frozenset((KeyKind.P256, KeyKind.P384, KeyKind.P521, KeyKind.OTHER_CURVE))
_RSA = frozenset((KeyKind.RSA,))
_RSA_PSS = frozenset((KeyKind.RSA, KeyKind.RSA_PSS))
_BITS = {SignatureHash.SHA2_256: "256", SignatureHash.SHA2_384: "384", SignatureHash.SHA2_512: "512"}
_CURVE_SCHEMES = {
    SignatureHash.SHA2_256: "ECDSA_SECP256R1_SHA256",
    SignatureHash.SHA2_384: "ECDSA_SECP384R1_SHA384",
    SignatureHash.SHA2_512: "ECDSA_SECP521R1_SHA512",
}

_PSS = tuple(
    _Signature(f"RSA_PSS_RSAE_SHA{bits}", code, _RSA_PSS, tuple(_pss_identifiers(code)))
    for code, bits in _BITS.items()
)
_PKCS1 = tuple(
    _Signature(
        f"RSA_PKCS1_SHA{bits}",
        code,
        _RSA,
        (_sequence(_PKCS1_OIDS[code], _NULL), _sequence(_PKCS1_OIDS[code])),
    )
    for code, bits in _BITS.items()
)
_ECDSA = tuple(
    _Signature(
        _CURVE_SCHEMES[code],
        code,
        _ELLIPTIC,
        (_sequence(_ECDSA_OIDS[code]), _sequence(_ECDSA_OIDS[code], _NULL)),
    )
    for code in _BITS
)
_EDWARDS = (
    _Signature("ED25519", SignatureHash.IDENTITY, frozenset((KeyKind.ED25519,)), (_ED25519,)),
    _Signature("ED448", SignatureHash.IDENTITY, frozenset((KeyKind.ED448,)), (_ED448,)),
)
_BY_IDENTIFIER = {
    identifier: signature
    for signature in (*_PSS, *_PKCS1, *_ECDSA, *_EDWARDS)
    for identifier in signature.identifiers
}

_HASHES = frozenset(SignatureHash)

#: Auth methods 9 to 11 of both versions by kind of key: the scheme, and bytes of r and of s (RFC 4754 section 7).
_CURVES = {
    AuthenticationMethod2.ECDSA_256: (KeyKind.P256, "ECDSA_SECP256R1_SHA256", 32),
    AuthenticationMethod2.ECDSA_384: (KeyKind.P384, "ECDSA_SECP384R1_SHA384", 48),
    AuthenticationMethod2.ECDSA_521: (KeyKind.P521, "ECDSA_SECP521R1_SHA512", 66),
}


# --- IKEv2 ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Signer:
    """How one AUTH payload is signed: the auth method, the scheme, and the shape of the data."""

    method: AuthenticationMethod2
    scheme: str
    #: What stands before the signature: with method 14 the AlgorithmIdentifier and its length.
    prefix: bytes = b""
    #: Bytes of r and of s where the signature is both, one after the other.
    integer_length: int = 0

    def sign(self, key: PrivateKey, octets: bytes) -> bytes:
        """The AUTH data over `octets`. Raises: what `PrivateKey.sign` raises."""
        signature = key.sign(self.scheme, octets)
        if self.integer_length:
            return concatenated(signature, self.integer_length)
        return self.prefix + signature


def find_signer(kind: KeyKind, hashes: Collection[int], *, legacy_sha1: bool, rsa_pss: bool) -> Signer | None:
    """How a key of this kind signs for a peer with these SIGNATURE_HASH_ALGORITHMS; None when it cannot.

    With one that fits it is auth method 14, and what suits the key best; without, ECDSA by its curve, or, where
    that is allowed, RSA with SHA-1.
    """
    return _find_signer(kind, _HASHES.intersection(hashes), legacy_sha1, rsa_pss)


@cache
def _find_signer(
    kind: KeyKind, hashes: frozenset[SignatureHash], legacy_sha1: bool, rsa_pss: bool
) -> Signer | None:
    for signature in _preferred(kind, rsa_pss):
        if kind in signature.kinds and signature.hash in hashes:
            return _signer14(signature, kind)
    for method, (curve, scheme, length) in _CURVES.items():
        if kind is curve:
            return Signer(method, scheme, integer_length=length)
    if kind is KeyKind.RSA and legacy_sha1:
        return Signer(AuthenticationMethod2.RSA_SIGNATURE, IKE_RSA_SHA1)
    return None


def _preferred(kind: KeyKind, rsa_pss: bool) -> Iterator[_Signature]:
    # A key signs best with the hash that was made for its curve; the sort keeps the order of the others.
    yield from sorted(_ECDSA, key=lambda each: SCHEMES[each.scheme].kind is not kind)
    yield from (*_PSS, *_PKCS1) if rsa_pss else (*_PKCS1, *_PSS)
    yield from _EDWARDS


def _signer14(signature: _Signature, kind: KeyKind) -> Signer:
    identifier = signature.identifiers[0]
    prefix = bytes((len(identifier),)) + identifier
    return Signer(AuthenticationMethod2.DIGITAL_SIGNATURE, _scheme_for(signature, kind), prefix)


def _scheme_for(signature: _Signature, kind: KeyKind) -> str:
    """RFC 8446 has two names for RSASSA-PSS, by what the certificate says of the key."""
    return signature.scheme.replace("RSAE", "PSS") if kind is KeyKind.RSA_PSS else signature.scheme


def verify2(method: int, key: PublicKey, proof: bytes, octets: bytes, *, legacy_sha1: bool) -> None:
    """Verify the AUTH data of a signature; returns when it is good.

    Raises: Incompatible for a method or algorithm that is not accepted, Misbehaved for one that does not fit the
    key, Unauthenticated when the signature is wrong.
    """
    if method == AuthenticationMethod2.DIGITAL_SIGNATURE:
        _verify14(key, proof, octets)
    elif method in _CURVES:
        curve, scheme, length = _CURVES[AuthenticationMethod2(method)]
        _check_curve(key, curve, proof, length)
        verify(scheme, key, from_concatenated(proof), octets, strict=True)
    elif method == AuthenticationMethod2.RSA_SIGNATURE and legacy_sha1:
        verify(IKE_RSA_SHA1, key, proof, octets, strict=False)
    elif method == AuthenticationMethod2.RSA_SIGNATURE:
        raise Incompatible("an RSA signature over SHA-1; the peer should know RFC 7427")
    else:
        raise Incompatible(f"auth method {method} is not a signature that is implemented")


def _verify14(key: PublicKey, proof: bytes, octets: bytes) -> None:
    length = proof[0] if proof else 0
    identifier, signature = proof[1 : 1 + length], proof[1 + length :]
    algorithm = _BY_IDENTIFIER.get(identifier)
    if algorithm is None:
        raise Incompatible(f"the signature algorithm {identifier.hex()[:80] or 'without a name'} is not accepted")
    if key.kind not in algorithm.kinds:
        raise Misbehaved(f"a signature under {algorithm.scheme} by a key of the kind {key.kind.value}")
    verify(_scheme_for(algorithm, key.kind), key, signature, octets, strict=False)


def _check_curve(key: PublicKey, curve: KeyKind, proof: bytes, length: int) -> None:
    if key.kind is not curve:
        raise Misbehaved(f"an ECDSA signature for {curve.value} by a key of the kind {key.kind.value}")
    if len(proof) != 2 * length:
        raise Misbehaved(f"an ECDSA signature of {len(proof)} bytes, not {2 * length}")


# --- IKEv1 ------------------------------------------------------------------------------------------------

#: HASH_I and HASH_R are what ECDSA takes for the digest; a hash function of the same length tells it so.
_DIGEST_SCHEMES = {32: "ECDSA_SECP256R1_SHA256", 48: "ECDSA_SECP384R1_SHA384", 64: "ECDSA_SECP521R1_SHA512"}

#: The kind of key that each method of IKEv1 with signatures takes.
METHOD1_KINDS: dict[AuthenticationMethod1, KeyKind] = {
    AuthenticationMethod1.RSA_SIGNATURE: KeyKind.RSA,
    AuthenticationMethod1.ECDSA_256: KeyKind.P256,
    AuthenticationMethod1.ECDSA_384: KeyKind.P384,
    AuthenticationMethod1.ECDSA_521: KeyKind.P521,
}


def sign1(method: AuthenticationMethod1, prf: Prf, key: PrivateKey, value: bytes) -> bytes:
    """The SIG data over `value`, a HASH_I or HASH_R (RFC 2409 section 5.1, RFC 4754).

    Raises: Incompatible as `verify1` does, and what `PrivateKey.sign` raises.
    """
    if method is AuthenticationMethod1.RSA_SIGNATURE:
        return key.sign(IKE_RSA_HASH, value)
    signature = key.sign(_digest_scheme(prf), value, prehashed=True)
    return concatenated(signature, _CURVES[AuthenticationMethod2(method)][2])


def verify1(method: AuthenticationMethod1, prf: Prf, key: PublicKey, proof: bytes, value: bytes) -> None:
    """Verify SIG data over `value`; returns when it is good.

    Raises: Incompatible for ECDSA with SHA-1, Misbehaved when the key does not fit, Unauthenticated when the
    signature is wrong.
    """
    if method is AuthenticationMethod1.RSA_SIGNATURE:
        verify(IKE_RSA_HASH, key, proof, value, strict=False)
        return
    curve, _, length = _CURVES[AuthenticationMethod2(method)]
    _check_curve(key, curve, proof, length)
    verify(_digest_scheme(prf), key, from_concatenated(proof), value, strict=False, prehashed=True)


def _digest_scheme(prf: Prf) -> str:
    scheme = _DIGEST_SCHEMES.get(prf.length)
    if scheme is None:
        raise Incompatible(f"ECDSA over a {prf.name} value is not implemented")
    return scheme
