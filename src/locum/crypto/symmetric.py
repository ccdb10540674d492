"""AEAD, AES-CBC, GMAC, hash, HMAC, HKDF (RFC 5869) and the TLS 1.2 PRF: the whole of a terminal's cryptography.

Never imports anything asymmetric: a terminal is built on this module alone.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from locum.errors import LocumError

Buffer = bytes | bytearray | memoryview


class AuthenticationFailed(LocumError):
    """A tag did not verify: wrong key, wrong nonce, or altered bytes."""


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


#: The ciphers that are made of a key alone; CCM needs to know its tag's length too.
_CIPHERS: dict[str, Callable[[bytes], _Cipher]] = {
    AES_128_GCM.name: AESGCM,
    AES_256_GCM.name: AESGCM,
    CHACHA20_POLY1305.name: ChaCha20Poly1305,
}


def _cipher(algorithm: AeadAlgorithm, key: bytes) -> _Cipher:
    make = _CIPHERS.get(algorithm.name)
    return make(key) if make is not None else AESCCM(key, tag_length=algorithm.tag_length)


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
        return _CONSTRUCTORS[self.name](data).digest()

    def new(self) -> hashlib._Hash:
        """An incremental hash object with update, copy and digest."""
        return _CONSTRUCTORS[self.name]()

    def hmac(self, key: bytes, data: Buffer) -> bytes:
        """HMAC (RFC 2104) of `data` under `key`."""
        state = HMAC(key, _HASHES[self.name])
        state.update(data)
        return state.finalize()


#: The module's own functions, which are faster than `hashlib.new` by name.
_CONSTRUCTORS: dict[str, Callable[..., hashlib._Hash]] = {
    "sha1": hashlib.sha1,
    "sha256": hashlib.sha256,
    "sha384": hashlib.sha384,
    "sha512": hashlib.sha512,
}
_HASHES = {
    "sha1": hashes.SHA1(),  # noqa: S303
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}

SHA256 = HashAlgorithm("sha256", 32)
SHA384 = HashAlgorithm("sha384", 48)
SHA512 = HashAlgorithm("sha512", 64)

#: Legacy: for IKEv1 peers that know nothing else, and where a protocol uses it as a mere fingerprint.
SHA1 = HashAlgorithm("sha1", 20)


#: Bytes of an AES block, and of the IV of CBC.
AES_BLOCK = 16


class AesCbcKey:
    """AES-CBC without padding and without integrity: for IKEv1, whose messages carry their own hash.

    Everything else takes `AesCbcHmacKey`.
    """

    __slots__ = ("_algorithm", "_decrypt")

    def __init__(self, key: bytes) -> None:
        if len(key) not in (16, 24, 32):
            raise ValueError("AES needs a key of 16, 24 or 32 bytes")
        self._algorithm = AES(key)
        self._decrypt: Callable[[bytes], bytes] | None = None

    def __repr__(self) -> str:
        return "<AesCbcKey>"

    def encrypt(self, iv: Buffer, plaintext: Buffer) -> bytes:
        """Encrypt whole blocks; ValueError for an incomplete one."""
        encryptor = Cipher(self._algorithm, CBC(iv)).encryptor()
        return encryptor.update(plaintext) + encryptor.finalize()

    def decrypt(self, iv: Buffer, ciphertext: Buffer) -> bytes:
        """Decrypt whole blocks; ValueError for an incomplete one."""
        if len(iv) != AES_BLOCK or len(ciphertext) % AES_BLOCK:
            raise ValueError(f"AES-CBC takes whole blocks of {AES_BLOCK} bytes")
        if self._decrypt is None:
            self._decrypt = Cipher(self._algorithm, CBC(bytes(AES_BLOCK))).decryptor().update
        # One cipher for all: an IV is nothing but the block before, and what it decrypts to itself is cut off.
        return self._decrypt(b"".join((iv, ciphertext)))[AES_BLOCK:]


class AesCbcHmacKey:
    """AES-CBC, then HMAC cut to `tag_length` bytes over everything: the Encrypted payload of IKEv2.

    RFC 3602 and RFC 4868. The caller pads, and takes an unpredictable IV for each message.
    """

    __slots__ = ("_cbc", "_hash", "_integrity_key", "tag_length")

    def __init__(self, key: bytes, integrity_key: bytes, algorithm: HashAlgorithm, tag_length: int) -> None:
        self._cbc = AesCbcKey(key)
        self._hash = algorithm
        self._integrity_key = integrity_key
        self.tag_length = tag_length

    def __repr__(self) -> str:
        return f"<AesCbcHmacKey {self._hash.name}>"

    def seal(self, iv: Buffer, plaintext: Buffer, associated_data: Buffer) -> bytes:
        """Ciphertext and tag, which covers all that is given here; ValueError for an incomplete block."""
        ciphertext = self._cbc.encrypt(iv, plaintext)
        return ciphertext + self._tag(iv, ciphertext, associated_data)

    def open(self, iv: Buffer, sealed: Buffer, associated_data: Buffer) -> bytes:
        """Verify, and only then decrypt; `AuthenticationFailed` when the tag does not verify or is not there."""
        end = len(sealed) - self.tag_length
        if end < 0 or end % AES_BLOCK:
            raise AuthenticationFailed("AES-CBC: no whole blocks and a tag")
        ciphertext = bytes(sealed[:end])
        due = self._tag(iv, ciphertext, associated_data)
        if not hmac.compare_digest(due, sealed[end:]):
            raise AuthenticationFailed("AES-CBC with HMAC: authentication failed")
        return self._cbc.decrypt(iv, ciphertext)

    def _tag(self, iv: Buffer, ciphertext: bytes, associated_data: Buffer) -> bytes:
        covered = b"".join((associated_data, iv, ciphertext))
        return self._hash.hmac(self._integrity_key, covered)[: self.tag_length]


@dataclass(frozen=True, slots=True)
class MacAlgorithm:
    """HMAC cut to its first `tag_length` bytes, with keys as long as the hash (RFC 4868 section 2)."""

    name: str
    hash: HashAlgorithm
    tag_length: int

    @property
    def key_length(self) -> int:
        """Length of a key in bytes."""
        return self.hash.length

    def new(self, key: bytes) -> MacKey:
        """Make a key ready for use; ValueError unless `key` has `key_length` bytes."""
        if len(key) != self.key_length:
            raise ValueError(f"{self.name} needs a key of {self.key_length} bytes")
        return MacKey(self, key)


HMAC_SHA2_256_128 = MacAlgorithm("HMAC-SHA2-256-128", SHA256, 16)
HMAC_SHA2_384_192 = MacAlgorithm("HMAC-SHA2-384-192", SHA384, 24)
HMAC_SHA2_512_256 = MacAlgorithm("HMAC-SHA2-512-256", SHA512, 32)


class MacKey:
    """A MAC key whose first block is hashed once and for all: half the cost of a new HMAC for each message."""

    __slots__ = ("_start", "_tag_length", "algorithm")

    def __init__(self, algorithm: MacAlgorithm, key: bytes) -> None:
        self.algorithm = algorithm
        self._tag_length = algorithm.tag_length
        self._start = HMAC(key, _HASHES[algorithm.hash.name])

    def __repr__(self) -> str:
        return f"<MacKey {self.algorithm.name}>"

    def tag(self, data: Buffer) -> bytes:
        """The tag of `data`, `tag_length` bytes."""
        state = self._start.copy()
        state.update(data)
        return state.finalize()[: self._tag_length]

    def verify(self, data: Buffer, tag: bytes) -> None:
        """Raise `AuthenticationFailed` unless `tag` is the tag of `data`; in constant time."""
        if not hmac.compare_digest(self.tag(data), tag):
            raise AuthenticationFailed(f"{self.algorithm.name}: authentication failed")


class CbcChain:
    """AES-CBC under one key for a series of messages, whole blocks, each message with an IV of its own in front.

    All messages of one end form a single CBC stream in which each begins with a block that holds its number.
    What that block is encrypted to is the IV of the rest: nobody can know it before the message is there (compare
    NIST SP 800-38A Appendix C), and it costs neither randomness nor a cipher set up for each message. One end
    only encrypts, the other only decrypts.
    """

    __slots__ = ("_decrypt", "_encrypt")

    def __init__(self, key: bytes) -> None:
        cipher = Cipher(AES(key), CBC(bytes(AES_BLOCK)))
        self._encrypt = cipher.encryptor().update
        self._decrypt = cipher.decryptor().update

    def __repr__(self) -> str:
        return "<CbcChain>"

    def encrypt(self, number: int, plaintext: bytes) -> bytes:
        """IV and ciphertext of message `number`, never used before; whole blocks, or ValueError."""
        if len(plaintext) % AES_BLOCK:
            raise ValueError(f"AES-CBC takes whole blocks of {AES_BLOCK} bytes")
        return self._encrypt(number.to_bytes(AES_BLOCK, "big") + plaintext)

    def decrypt(self, message: Buffer) -> bytes:
        """The plaintext of IV and ciphertext, from whoever made them; whole blocks, or ValueError."""
        if len(message) % AES_BLOCK or not message:
            raise ValueError(f"AES-CBC takes whole blocks of {AES_BLOCK} bytes")
        # The IV is decrypted as any block would be, and comes out as nothing that matters.
        return self._decrypt(message)[AES_BLOCK:]


def constant_time_equal(left: bytes, right: bytes) -> bool:
    """Compare two secrets or MACs in time that does not depend on where they differ."""
    return hmac.compare_digest(left, right)


#: The number of the only block of a short HKDF-Expand.
_FIRST_BLOCK = b"\x01"


def hkdf_extract(algorithm: HashAlgorithm, salt: bytes, input_keying_material: bytes) -> bytes:
    """HKDF-Extract (RFC 5869 section 2.2); an empty salt stands for a block of zeros."""
    return algorithm.hmac(salt or bytes(algorithm.length), input_keying_material)


def hkdf_expand(algorithm: HashAlgorithm, key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand (RFC 5869 section 2.3) to `length` bytes, at most 255 times the hash length."""
    if length <= algorithm.length:
        return algorithm.hmac(key, info + _FIRST_BLOCK)[:length]
    if length > 255 * algorithm.length:
        raise ValueError("HKDF-Expand beyond 255 blocks")
    return HKDFExpand(_HASHES[algorithm.name], length, info).derive(key)


class HkdfKey:
    """A pseudorandom key of HKDF that several values are expanded from: it is keyed once for all of them."""

    __slots__ = ("_length", "_start")

    def __init__(self, algorithm: HashAlgorithm, key: bytes) -> None:
        self._length = algorithm.length
        self._start = HMAC(key, _HASHES[algorithm.name])

    def __repr__(self) -> str:
        return "<HkdfKey>"

    def expand(self, info: bytes, length: int) -> bytes:
        """HKDF-Expand (RFC 5869 section 2.3) to `length` bytes, at most one hash: a single HMAC."""
        if length > self._length:
            raise ValueError(f"more than one block of {self._length} bytes")
        state = self._start.copy()
        state.update(info + _FIRST_BLOCK)
        return state.finalize()[:length]


def tls12_prf(algorithm: HashAlgorithm, secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """The PRF of TLS 1.2, P_hash(secret, label + seed) cut to `length` bytes (RFC 5246 section 5)."""
    seed = label + seed
    output = b""
    chained = seed
    while len(output) < length:
        chained = algorithm.hmac(secret, chained)
        output += algorithm.hmac(secret, chained + seed)
    return output[:length]
