"""The algorithms of ESP and AH: names, numbers, lengths, and how keying material is divided.

Never handles a packet and never touches a key.
"""

from __future__ import annotations

from dataclasses import dataclass

from locum.crypto.symmetric import (
    AES_128_GCM,
    AES_256_GCM,
    CHACHA20_POLY1305,
    HMAC_SHA2_256_128,
    HMAC_SHA2_384_192,
    HMAC_SHA2_512_256,
    AeadAlgorithm,
    MacAlgorithm,
)

#: Bytes of salt that follow the key in the keying material (RFC 4106 section 8.1, RFC 7634 section 2).
_SALT = 4
#: Bytes of the explicit IV of counter-based algorithms (RFC 4106 section 3.1, RFC 4543 section 3.1, RFC 7634).
_COUNTER_IV = 8
_AES_BLOCK = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptionAlgorithm:
    """An encryption transform; all lengths in bytes.

    `transform_id` is IANA's for IKEv2 Transform Type 1. `aead` is set where the algorithm also provides
    integrity ("combined mode"); `confidential` is False where it provides nothing else. ESP pads the plaintext
    to a multiple of `alignment`.
    """

    name: str
    transform_id: int
    key_length: int
    salt_length: int = 0
    iv_length: int = 0
    alignment: int = 4
    aead: AeadAlgorithm | None = None
    confidential: bool = True

    @property
    def icv_length(self) -> int:
        """Length of the integrity check value, 0 without one."""
        return self.aead.tag_length if self.aead else 0

    @property
    def keymat_length(self) -> int:
        """What it takes from the keying material: key, then salt."""
        return self.key_length + self.salt_length


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegrityAlgorithm:
    """An integrity transform; all lengths in bytes.

    `transform_id` is IANA's for IKEv2 Transform Type 3. Exactly one of `mac` and `gmac` is set; AES-GMAC as an
    integrity algorithm of its own exists in AH only (RFC 4543 section 4).
    """

    name: str
    transform_id: int
    key_length: int
    salt_length: int = 0
    iv_length: int = 0
    icv_length: int
    mac: MacAlgorithm | None = None
    gmac: AeadAlgorithm | None = None

    @property
    def keymat_length(self) -> int:
        """What it takes from the keying material: key, then salt."""
        return self.key_length + self.salt_length


def _combined(
    name: str, transform_id: int, aead: AeadAlgorithm, *, confidential: bool = True
) -> EncryptionAlgorithm:
    return EncryptionAlgorithm(
        name=name,
        transform_id=transform_id,
        key_length=aead.key_length,
        salt_length=_SALT,
        iv_length=_COUNTER_IV,
        aead=aead,
        confidential=confidential,
    )


def _cbc(name: str, key_length: int) -> EncryptionAlgorithm:
    return EncryptionAlgorithm(
        name=name, transform_id=12, key_length=key_length, iv_length=_AES_BLOCK, alignment=_AES_BLOCK
    )


def _hmac(name: str, transform_id: int, mac: MacAlgorithm) -> IntegrityAlgorithm:
    return IntegrityAlgorithm(
        name=name, transform_id=transform_id, key_length=mac.key_length, icv_length=mac.tag_length, mac=mac
    )


def _gmac(name: str, transform_id: int, aead: AeadAlgorithm) -> IntegrityAlgorithm:
    return IntegrityAlgorithm(
        name=name,
        transform_id=transform_id,
        key_length=aead.key_length,
        salt_length=_SALT,
        iv_length=_COUNTER_IV,
        icv_length=_COUNTER_IV + aead.tag_length,
        gmac=aead,
    )


AES128_GCM16 = _combined("aes128gcm16", 20, AES_128_GCM)
AES256_GCM16 = _combined("aes256gcm16", 20, AES_256_GCM)
CHACHA20POLY1305 = _combined("chacha20poly1305", 28, CHACHA20_POLY1305)
NULL_AES128_GMAC = _combined("aes128gmac", 21, AES_128_GCM, confidential=False)
NULL_AES256_GMAC = _combined("aes256gmac", 21, AES_256_GCM, confidential=False)
AES128_CBC = _cbc("aes128", 16)
AES192_CBC = _cbc("aes192", 24)
AES256_CBC = _cbc("aes256", 32)
NULL = EncryptionAlgorithm(name="null", transform_id=11, key_length=0, confidential=False)

SHA2_256_128 = _hmac("sha256", 12, HMAC_SHA2_256_128)
SHA2_384_192 = _hmac("sha384", 13, HMAC_SHA2_384_192)
SHA2_512_256 = _hmac("sha512", 14, HMAC_SHA2_512_256)
AH_AES128_GMAC = _gmac("aes128gmac", 9, AES_128_GCM)
AH_AES256_GMAC = _gmac("aes256gmac", 11, AES_256_GCM)

#: Encryption algorithms by name, the best first.
ENCRYPTION = {
    algorithm.name: algorithm
    for algorithm in (
        AES256_GCM16,
        AES128_GCM16,
        CHACHA20POLY1305,
        AES256_CBC,
        AES192_CBC,
        AES128_CBC,
        NULL_AES256_GMAC,
        NULL_AES128_GMAC,
        NULL,
    )
}

#: Integrity algorithms by name, the best first.
INTEGRITY = {
    algorithm.name: algorithm
    for algorithm in (SHA2_512_256, SHA2_384_192, SHA2_256_128, AH_AES256_GMAC, AH_AES128_GMAC)
}


def encryption_of(transform_id: int, key_bits: int | None) -> EncryptionAlgorithm | None:
    """The algorithm of an IKEv2 transform and its Key Length attribute, None where it has none."""
    for algorithm in ENCRYPTION.values():
        fixed = algorithm in (CHACHA20POLY1305, NULL)
        if algorithm.transform_id == transform_id and key_bits == (None if fixed else algorithm.key_length * 8):
            return algorithm
    return None


def integrity_of(transform_id: int) -> IntegrityAlgorithm | None:
    """The algorithm of an IKEv2 transform; None if unknown."""
    return next((found for found in INTEGRITY.values() if found.transform_id == transform_id), None)
