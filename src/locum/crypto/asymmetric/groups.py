"""Key agreement: elliptic curves, ML-KEM, their hybrids, and finite fields.

Never knows a transcript or a key schedule: a share goes out, the peer's comes in, a shared secret comes out.
Groups go by their IANA names (RFC 8446 section 4.2.7), so that no protocol's code points are needed here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from cryptography.hazmat.primitives.asymmetric import dh, ec, mlkem, x448, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from locum.crypto.asymmetric.finite_field import FiniteFieldGroup, ffdhe
from locum.errors import Incompatible, Misbehaved

#: FIPS 203 section 8: the lengths of ML-KEM ciphertexts, and of an encapsulation key, in bytes.
MLKEM768_CIPHERTEXT_LENGTH = 1088
_MLKEM1024_CIPHERTEXT_LENGTH = 1568
_MLKEM768_KEY_LENGTH = 1184
#: SEC 1 section 2.3.3: an uncompressed P-256 point.
_P256_POINT_LENGTH = 65
_UNCOMPRESSED = 4

_Complete = Callable[[bytes], bytes]


class KeyAgreement:
    """One private value and the share that goes with it; completing uses it up, so that no value serves twice.

    `share` is what the peer gets: KeyShareEntry.key_exchange of TLS 1.3, the bare public value of TLS 1.2.
    """

    __slots__ = ("_complete", "share")

    def __init__(self, share: bytes, complete: _Complete) -> None:
        self.share = share
        self._complete: _Complete | None = complete

    def complete(self, peer_share: bytes) -> bytes:
        """Combine with the peer's share and return the shared secret; the private value is gone then.

        The secret is as TLS 1.3 takes it: for a finite field with its leading zeros.
        Raises: Misbehaved when the share has the wrong length, is not in the group, or forces the secret.
        """
        complete, self._complete = self._complete, None
        if complete is None:
            raise RuntimeError("a key agreement is completed once")
        return complete(peer_share)

    def discard(self) -> None:
        """Forget the private value without using it."""
        self._complete = None


def start(name: str) -> KeyAgreement:
    """Make a private value in the group of this name. Raises: Incompatible when it is not implemented."""
    maker = _MAKERS.get(name)
    if maker is None:
        raise Incompatible(f"the group {name} is not implemented")
    return maker()


def respond(name: str, peer_share: bytes) -> tuple[bytes, bytes]:
    """Answer the initiator's share in the group of this name: our share, or ciphertext, and the shared secret.

    Raises: Incompatible when the group is not implemented; Misbehaved as `KeyAgreement.complete` does.
    """
    encapsulation = _ENCAPSULATIONS.get(name)
    if encapsulation is not None:
        return encapsulation(peer_share)
    agreement = start(name)
    return agreement.share, agreement.complete(peer_share)


def start_finite_field(group: FiniteFieldGroup) -> KeyAgreement:
    """Make a private value in a finite-field group (RFC 7919, RFC 3526)."""
    numbers = dh.DHParameterNumbers(group.prime, group.generator, group.order)
    private = numbers.parameters().generate_private_key()

    def complete(peer_share: bytes) -> bytes:
        value = int.from_bytes(peer_share, "big")
        # RFC 7919 section 5.1: 1 < Y < p - 1; the rest of a safe-prime group has no small subgroup to fall into.
        if len(peer_share) > group.length or not 1 < value < group.prime - 1:
            raise Misbehaved(f"the peer's public value is not in the group {group.name}")
        peer = dh.DHPublicNumbers(value, numbers).public_key()
        return private.exchange(peer).rjust(group.length, b"\0")

    return KeyAgreement(private.public_key().public_numbers().y.to_bytes(group.length, "big"), complete)


def _start_x25519() -> KeyAgreement:
    private = x25519.X25519PrivateKey.generate()

    def complete(peer_share: bytes) -> bytes:
        try:
            return private.exchange(x25519.X25519PublicKey.from_public_bytes(peer_share))
        except ValueError:  # wrong length, or the all-zero secret of RFC 7748 section 6.1
            raise Misbehaved("the peer's X25519 share is not usable") from None

    return KeyAgreement(private.public_key().public_bytes_raw(), complete)


def _start_x448() -> KeyAgreement:
    private = x448.X448PrivateKey.generate()

    def complete(peer_share: bytes) -> bytes:
        try:
            return private.exchange(x448.X448PublicKey.from_public_bytes(peer_share))
        except ValueError:  # wrong length, or the all-zero secret of RFC 7748 section 6.2
            raise Misbehaved("the peer's X448 share is not usable") from None

    return KeyAgreement(private.public_key().public_bytes_raw(), complete)


def _start_curve(curve: ec.EllipticCurve) -> KeyAgreement:
    private = ec.generate_private_key(curve)
    length = 1 + 2 * ((curve.key_size + 7) // 8)

    def complete(peer_share: bytes) -> bytes:
        # RFC 8446 section 4.2.8.2: the uncompressed form, and no other.
        if len(peer_share) != length or peer_share[0] != _UNCOMPRESSED:
            raise Misbehaved(f"the peer's share is not an uncompressed point of {curve.name}")
        try:
            peer = ec.EllipticCurvePublicKey.from_encoded_point(curve, peer_share)
        except ValueError:
            raise Misbehaved(f"the peer's share is not on the curve {curve.name}") from None
        return private.exchange(ec.ECDH(), peer)

    share = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return KeyAgreement(share, complete)


def _start_mlkem(
    kind: type[mlkem.MLKEM768PrivateKey] | type[mlkem.MLKEM1024PrivateKey], name: str, ciphertext_length: int
) -> KeyAgreement:
    private = kind.generate()

    def complete(peer_share: bytes) -> bytes:
        if len(peer_share) != ciphertext_length:
            raise Misbehaved(f"an {name} ciphertext has {ciphertext_length} bytes")
        return private.decapsulate(peer_share)

    return KeyAgreement(private.public_key().public_bytes_raw(), complete)


def _start_mlkem768() -> KeyAgreement:
    return _start_mlkem(mlkem.MLKEM768PrivateKey, "ML-KEM-768", MLKEM768_CIPHERTEXT_LENGTH)


def _start_mlkem1024() -> KeyAgreement:
    return _start_mlkem(mlkem.MLKEM1024PrivateKey, "ML-KEM-1024", _MLKEM1024_CIPHERTEXT_LENGTH)


def _encapsulate(
    kind: type[mlkem.MLKEM768PublicKey] | type[mlkem.MLKEM1024PublicKey], name: str, peer_share: bytes
) -> tuple[bytes, bytes]:
    try:
        secret, ciphertext = kind.from_public_bytes(peer_share).encapsulate()
    except ValueError:  # wrong length, or a coefficient out of range (FIPS 203 section 7.2)
        raise Misbehaved(f"the peer's {name} encapsulation key is not usable") from None
    return ciphertext, secret


def _hybrid(first: KeyAgreement, second: KeyAgreement, first_length: int) -> KeyAgreement:
    """Two agreements as one: shares and secrets one after the other; the peer's first has `first_length` bytes."""

    def complete(peer_share: bytes) -> bytes:
        return first.complete(peer_share[:first_length]) + second.complete(peer_share[first_length:])

    return KeyAgreement(first.share + second.share, complete)


def _start_x25519mlkem768() -> KeyAgreement:
    # draft-ietf-tls-ecdhe-mlkem section 3: here ML-KEM comes first, in shares and secret ...
    return _hybrid(_start_mlkem768(), _start_x25519(), MLKEM768_CIPHERTEXT_LENGTH)


def _start_secp256r1mlkem768() -> KeyAgreement:
    # ... and here it comes second.
    return _hybrid(_start_curve(ec.SECP256R1()), _start_mlkem768(), _P256_POINT_LENGTH)


def _respond_hybrid(first: str, second: str, first_length: int, peer_share: bytes) -> tuple[bytes, bytes]:
    """Two groups as one, for a responder; the peer's share in the first has `first_length` bytes."""
    first_share, first_secret = respond(first, peer_share[:first_length])
    second_share, second_secret = respond(second, peer_share[first_length:])
    return first_share + second_share, first_secret + second_secret


def _start_ffdhe(bits: int) -> KeyAgreement:
    return start_finite_field(ffdhe(bits))


_MAKERS: dict[str, Callable[[], KeyAgreement]] = {
    "SECP256R1": partial(_start_curve, ec.SECP256R1()),
    "SECP384R1": partial(_start_curve, ec.SECP384R1()),
    "SECP521R1": partial(_start_curve, ec.SECP521R1()),
    "X25519": _start_x25519,
    "X448": _start_x448,
    "FFDHE2048": partial(_start_ffdhe, 2048),
    "FFDHE3072": partial(_start_ffdhe, 3072),
    "FFDHE4096": partial(_start_ffdhe, 4096),
    "FFDHE6144": partial(_start_ffdhe, 6144),
    "FFDHE8192": partial(_start_ffdhe, 8192),
    "MLKEM768": _start_mlkem768,
    "MLKEM1024": _start_mlkem1024,
    "SECP256R1MLKEM768": _start_secp256r1mlkem768,
    "X25519MLKEM768": _start_x25519mlkem768,
}

#: The groups that are not symmetric: what a responder makes of the initiator's encapsulation key.
_ENCAPSULATIONS: dict[str, Callable[[bytes], tuple[bytes, bytes]]] = {
    "MLKEM768": partial(_encapsulate, mlkem.MLKEM768PublicKey, "ML-KEM-768"),
    "MLKEM1024": partial(_encapsulate, mlkem.MLKEM1024PublicKey, "ML-KEM-1024"),
    "SECP256R1MLKEM768": partial(_respond_hybrid, "SECP256R1", "MLKEM768", _P256_POINT_LENGTH),
    "X25519MLKEM768": partial(_respond_hybrid, "MLKEM768", "X25519", _MLKEM768_KEY_LENGTH),
}
