"""AEAD, hash, HMAC, HKDF (RFC 5869) and the TLS 1.2 PRF: the whole of a terminal's cryptography.

Never imports anything asymmetric: a terminal is built on this module alone.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

from locum.errors import LocumError

Buffer = bytes | bytearray | memoryview


class AuthenticationFailed(LocumError):
    """An AEAD tag did not verify: wrong key, wrong nonce, or altered bytes."""


class _Cipher(Protocol):
    def encrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None) -> bytes: ...
    def decrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None) -> bytes: ...
    def encrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int: ...
    def decrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int: ...


@dataclass(frozen=True, slots=True)
class AeadAlgorithm:
    """One AEAD of RFC 5116 or RFC 6655: lengths in bytes."""

    name: str
    key_length: int
    tag_length: int

    def new(self, key: bytes) -> AeadKey:
        """Make a key ready for use; ValueError unless `key` has `key_length` bytes."""
        if len(key) != self.key_length:
            raise ValueError(f"{self.name} needs a key of {self.key_length} bytes")
        return AeadKey(self, key)


AES_128_GCM = AeadAlgorithm("AES-128-GCM", 16, 16)
AES_256_GCM = AeadAlgorithm("AES-256-GCM", 32, 16)
CHACHA20_POLY1305 = AeadAlgorithm("ChaCha20-Poly1305", 32, 16)
AES_128_CCM = AeadAlgorithm("AES-128-CCM", 16, 16)
AES_128_CCM_8 = AeadAlgorithm("AES-128-CCM-8", 16, 8)
AES_256_CCM = AeadAlgorithm("AES-256-CCM", 32, 16)
AES_256_CCM_8 = AeadAlgorithm("AES-256-CCM-8", 32, 8)


def _cipher(algorithm: AeadAlgorithm, key: bytes) -> _Cipher:
    if algorithm in (AES_128_GCM, AES_256_GCM):
        return AESGCM(key)
    if algorithm is CHACHA20_POLY1305:
        return ChaCha20Poly1305(key)
    return AESCCM(key, tag_length=algorithm.tag_length)


class AeadKey:
    """An AEAD key. The caller guarantees that no nonce is used twice for sealing."""

    __slots__ = ("_cipher", "algorithm", "open_into", "seal", "seal_into")

    def __init__(self, algorithm: AeadAlgorithm, key: bytes) -> None:
        self.algorithm = algorithm
        self._cipher = _cipher(algorithm, key)
        #: seal(nonce, plaintext, associated_data) -> ciphertext followed by the tag
        self.seal = self._cipher.encrypt
        #: seal_into(nonce, plaintext, associated_data, buffer): as seal, into `buffer`, which may begin
        #: with the plaintext itself; buffer length = plaintext length + tag length
        self.seal_into = self._cipher.encrypt_into
        #: open_into(nonce, ciphertext, associated_data, buffer): raises cryptography's InvalidTag
        self.open_into = self._cipher.decrypt_into

    def __repr__(self) -> str:
        return f"<AeadKey {self.algorithm.name}>"

    def open(self, nonce: Buffer, ciphertext: Buffer, associated_data: Buffer | None) -> bytes:
        """Verify and decrypt; `AuthenticationFailed` when the tag does not verify or is not there."""
        try:
            return self._cipher.decrypt(nonce, ciphertext, associated_data)
        except InvalidTag:
            raise AuthenticationFailed(f"{self.algorithm.name}: authentication failed") from None


@dataclass(frozen=True, slots=True)
class HashAlgorithm:
    """A hash function by its hashlib name; `length` is the digest's length in bytes."""

    name: str
    length: int

    def digest(self, data: Buffer) -> bytes:
        """Hash `data`."""
        return hashlib.new(self.name, data, usedforsecurity=True).digest()

    def new(self) -> hashlib._Hash:
        """An incremental hash object with update, copy and digest."""
        return hashlib.new(self.name)

    def hmac(self, key: bytes, data: Buffer) -> bytes:
        """HMAC (RFC 2104) of `data` under `key`."""
        return hmac.digest(key, data, self.name)


SHA256 = HashAlgorithm("sha256", 32)
SHA384 = HashAlgorithm("sha384", 48)
SHA512 = HashAlgorithm("sha512", 64)


def constant_time_equal(left: bytes, right: bytes) -> bool:
    """Compare two secrets or MACs in time that does not depend on where they differ."""
    return hmac.compare_digest(left, right)


def hkdf_extract(algorithm: HashAlgorithm, salt: bytes, input_keying_material: bytes) -> bytes:
    """HKDF-Extract (RFC 5869 section 2.2); an empty salt stands for a block of zeros."""
    return algorithm.hmac(salt or bytes(algorithm.length), input_keying_material)


def hkdf_expand(algorithm: HashAlgorithm, key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand (RFC 5869 section 2.3) to `length` bytes, at most 255 times the hash length."""
    if length > 255 * algorithm.length:
        raise ValueError("HKDF-Expand beyond 255 blocks")
    output = block = b""
    counter = 1
    while len(output) < length:
        block = algorithm.hmac(key, block + info + bytes((counter,)))
        output += block
        counter += 1
    return output[:length]


def tls12_prf(algorithm: HashAlgorithm, secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """The PRF of TLS 1.2, P_hash(secret, label + seed) cut to `length` bytes (RFC 5246 section 5)."""
    seed = label + seed
    output = b""
    chained = seed
    while len(output) < length:
        chained = algorithm.hmac(secret, chained)
        output += algorithm.hmac(secret, chained + seed)
    return output[:length]
