"""The algorithms that IKE negotiates here, with their lengths, and those that it never will.

Knows code points and lengths; which of them a policy prefers is said in `proposals2` and `proposals1`.
"""

from __future__ import annotations

from locum.crypto.symmetric import (
    AES_128_GCM,
    AES_256_GCM,
    AES_BLOCK,
    CHACHA20_POLY1305,
    SHA1,
    SHA256,
    SHA384,
    SHA512,
    AeadAlgorithm,
    HashAlgorithm,
)
from locum.ike.registry import EncryptionId, IntegrityId, KeyExchangeId, PrfId
from locum.values import dataclass

#: Bytes of the explicit IV of an AEAD in IKE and ESP (RFC 4106 section 3, RFC 5282, RFC 7634).
AEAD_IV = 8


@dataclass(frozen=True, slots=True, repr=False)
class Encryption:
    """An encryption algorithm with one key length; lengths in bytes.

    `salt_length` bytes of an AEAD's keying material are the nonce's implicit part. `block_length` is what
    plaintext is padded to a multiple of. `aead` is None where an integrity algorithm is needed as well.
    `key_attribute` tells whether its transform must say the key length, in bits.
    """

    id: EncryptionId
    name: str
    key_length: int
    salt_length: int
    iv_length: int
    block_length: int
    aead: AeadAlgorithm | None
    key_attribute: bool = True

    @property
    def material_length(self) -> int:
        """Bytes of keying material for one direction: key and salt (RFC 5282 section 7.1)."""
        return self.key_length + self.salt_length

    @property
    def key_bits(self) -> int | None:
        """The Key Length attribute that its transform must have, None for none."""
        return self.key_length * 8 if self.key_attribute else None

    def __repr__(self) -> str:
        return self.name


def _aead(code: EncryptionId, name: str, aead: AeadAlgorithm, *, key_attribute: bool = True) -> Encryption:
    return Encryption(code, name, aead.key_length, 4, AEAD_IV, 1, aead, key_attribute)


def _cbc(bits: int) -> Encryption:
    return Encryption(EncryptionId.AES_CBC, f"AES-CBC-{bits}", bits // 8, 0, AES_BLOCK, AES_BLOCK, None)


ENCR_AES_GCM_16_128 = _aead(EncryptionId.AES_GCM_16, "AES-GCM-16-128", AES_128_GCM)
ENCR_AES_GCM_16_256 = _aead(EncryptionId.AES_GCM_16, "AES-GCM-16-256", AES_256_GCM)
ENCR_CHACHA20_POLY1305 = _aead(
    EncryptionId.CHACHA20_POLY1305, "ChaCha20-Poly1305", CHACHA20_POLY1305, key_attribute=False
)
ENCR_AES_CBC_128 = _cbc(128)
ENCR_AES_CBC_192 = _cbc(192)
ENCR_AES_CBC_256 = _cbc(256)

#: ESP that only protects integrity (RFC 2410; B13): there is no key and no IV.
ENCR_NULL = Encryption(EncryptionId.NULL, "NULL", 0, 0, 0, 1, None, key_attribute=False)

ENCRYPTIONS = (
    ENCR_AES_GCM_16_128,
    ENCR_AES_GCM_16_256,
    ENCR_CHACHA20_POLY1305,
    ENCR_AES_CBC_128,
    ENCR_AES_CBC_192,
    ENCR_AES_CBC_256,
    ENCR_NULL,
)


@dataclass(frozen=True, slots=True, repr=False)
class Prf:
    """A pseudo-random function: HMAC with `hash`, whose length in bytes is also the preferred key length."""

    id: PrfId
    name: str
    hash: HashAlgorithm
    legacy: bool = False

    @property
    def length(self) -> int:
        """Bytes of output, and of SK_d, SK_pi and SK_pr."""
        return self.hash.length

    def __call__(self, key: bytes, data: bytes) -> bytes:
        """prf(key, data)."""
        return self.hash.hmac(key, data)

    def __repr__(self) -> str:
        return self.name


PRF_HMAC_SHA2_256 = Prf(PrfId.HMAC_SHA2_256, "PRF-HMAC-SHA2-256", SHA256)
PRF_HMAC_SHA2_384 = Prf(PrfId.HMAC_SHA2_384, "PRF-HMAC-SHA2-384", SHA384)
PRF_HMAC_SHA2_512 = Prf(PrfId.HMAC_SHA2_512, "PRF-HMAC-SHA2-512", SHA512)
PRF_HMAC_SHA1 = Prf(PrfId.HMAC_SHA1, "PRF-HMAC-SHA1", SHA1, legacy=True)

PRFS = (PRF_HMAC_SHA2_256, PRF_HMAC_SHA2_384, PRF_HMAC_SHA2_512, PRF_HMAC_SHA1)


@dataclass(frozen=True, slots=True, repr=False)
class Integrity:
    """An HMAC cut to `tag_length` bytes; its key is as long as the hash (RFC 4868 section 2.1.1)."""

    id: IntegrityId
    name: str
    hash: HashAlgorithm
    tag_length: int
    legacy: bool = False

    @property
    def key_length(self) -> int:
        """Bytes of key."""
        return self.hash.length

    def __repr__(self) -> str:
        return self.name


AUTH_HMAC_SHA2_256_128 = Integrity(IntegrityId.HMAC_SHA2_256_128, "HMAC-SHA2-256-128", SHA256, 16)
AUTH_HMAC_SHA2_384_192 = Integrity(IntegrityId.HMAC_SHA2_384_192, "HMAC-SHA2-384-192", SHA384, 24)
AUTH_HMAC_SHA2_512_256 = Integrity(IntegrityId.HMAC_SHA2_512_256, "HMAC-SHA2-512-256", SHA512, 32)
AUTH_HMAC_SHA1_96 = Integrity(IntegrityId.HMAC_SHA1_96, "HMAC-SHA1-96", SHA1, 12, legacy=True)

INTEGRITIES = (AUTH_HMAC_SHA2_256_128, AUTH_HMAC_SHA2_384_192, AUTH_HMAC_SHA2_512_256, AUTH_HMAC_SHA1_96)


@dataclass(frozen=True, slots=True, repr=False)
class Group:
    """A key exchange method: bytes of the initiator's and of the responder's public value.

    They differ for a KEM alone, which serves as additional key exchange only (RFC 9370): its public key
    does not fit a first message that must not be fragmented.
    """

    id: KeyExchangeId
    name: str
    initiator_length: int
    responder_length: int
    additional_only: bool = False

    def __repr__(self) -> str:
        return self.name


def _group(code: KeyExchangeId, name: str, length: int) -> Group:
    return Group(code, name, length, length)


MODP_2048 = _group(KeyExchangeId.MODP_2048, "modp2048", 256)
MODP_3072 = _group(KeyExchangeId.MODP_3072, "modp3072", 384)
MODP_4096 = _group(KeyExchangeId.MODP_4096, "modp4096", 512)
MODP_6144 = _group(KeyExchangeId.MODP_6144, "modp6144", 768)
MODP_8192 = _group(KeyExchangeId.MODP_8192, "modp8192", 1024)
ECP_256 = _group(KeyExchangeId.ECP_256, "ecp256", 64)
ECP_384 = _group(KeyExchangeId.ECP_384, "ecp384", 96)
ECP_521 = _group(KeyExchangeId.ECP_521, "ecp521", 132)
CURVE25519 = _group(KeyExchangeId.CURVE25519, "x25519", 32)
CURVE448 = _group(KeyExchangeId.CURVE448, "x448", 56)
ML_KEM_512 = Group(KeyExchangeId.ML_KEM_512, "mlkem512", 800, 768, additional_only=True)
ML_KEM_768 = Group(KeyExchangeId.ML_KEM_768, "mlkem768", 1184, 1088, additional_only=True)
ML_KEM_1024 = Group(KeyExchangeId.ML_KEM_1024, "mlkem1024", 1568, 1568, additional_only=True)

#: Every implemented method by code point.
GROUPS: dict[int, Group] = {
    group.id: group
    for group in (
        CURVE25519,
        CURVE448,
        ECP_256,
        ECP_384,
        ECP_521,
        MODP_2048,
        MODP_3072,
        MODP_4096,
        MODP_6144,
        MODP_8192,
        ML_KEM_512,
        ML_KEM_768,
        ML_KEM_1024,
    )
}

#: Never negotiated, whatever a policy says (RFC 8247): the tables above have none of these.
NEVER_ENCRYPTION = frozenset(
    {
        EncryptionId.DES_IV64,
        EncryptionId.DES,
        EncryptionId.TRIPLE_DES,
        EncryptionId.RC5,
        EncryptionId.IDEA,
        EncryptionId.CAST,
        EncryptionId.BLOWFISH,
        EncryptionId.TRIPLE_IDEA,
        EncryptionId.DES_IV32,
    }
)
NEVER_PRF = frozenset({PrfId.HMAC_MD5, PrfId.HMAC_TIGER})
NEVER_INTEGRITY = frozenset(
    {IntegrityId.HMAC_MD5_96, IntegrityId.DES_MAC, IntegrityId.KPDK_MD5, IntegrityId.HMAC_MD5_128}
)
NEVER_GROUP = frozenset(
    {
        KeyExchangeId.MODP_768,
        KeyExchangeId.MODP_1024,
        KeyExchangeId.MODP_1536,
        KeyExchangeId.MODP_1024_160,
    }
)


def find_encryption(code: int, key_bits: int | None) -> Encryption | None:
    """The implemented algorithm of this transform id and Key Length attribute, or None."""
    for algorithm in ENCRYPTIONS:
        if algorithm.id == code and algorithm.key_bits == key_bits:
            return algorithm
    return None


def find_prf(code: int) -> Prf | None:
    """The implemented PRF of this transform id, or None."""
    return next((prf for prf in PRFS if prf.id == code), None)


def find_integrity(code: int) -> Integrity | None:
    """The implemented integrity algorithm of this transform id, or None."""
    return next((integrity for integrity in INTEGRITIES if integrity.id == code), None)
