"""The keying material of IKEv1: SKEYID*, HASH_I and HASH_R, HASH(1) to HASH(3), KEYMAT, initial vectors.

Pure functions from secrets to secrets (RFC 2409 section 5 and appendix B). Who calls them is not known here:
of A8 the delegate, of A9, quick mode, the terminal alone.
"""

from __future__ import annotations

from dataclasses import field

from locum.crypto.symmetric import AES_BLOCK
from locum.ike.algorithms import Encryption, Prf
from locum.ike.suites import ChildKeys, ChildSuite, DirectionKeys, Nonces
from locum.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cookies:
    """CKY-I and CKY-R, 8 bytes each."""

    initiator: bytes
    responder: bytes

    @property
    def both(self) -> bytes:
        """CKY-I | CKY-R."""
        return self.initiator + self.responder


def skeyid_for_signatures(prf: Prf, nonces: Nonces, shared_secret: bytes) -> bytes:
    """SKEYID = prf(Ni_b | Nr_b, g^xy)."""
    return prf(nonces.both, shared_secret)


def skeyid_for_public_key_encryption(prf: Prf, nonces: Nonces, cookies: Cookies) -> bytes:
    """SKEYID = prf(hash(Ni_b | Nr_b), CKY-I | CKY-R)."""
    return prf(prf.hash.digest(nonces.both), cookies.both)


def skeyid_for_pre_shared_key(prf: Prf, nonces: Nonces, pre_shared_key: bytes) -> bytes:
    """SKEYID = prf(pre-shared-key, Ni_b | Nr_b)."""
    return prf(pre_shared_key, nonces.both)


@dataclass(frozen=True, slots=True, kw_only=True)
class IsakmpKeys:
    """SKEYID_d for other SAs, SKEYID_a for HASH payloads, SKEYID_e for encryption; each one hash long."""

    d: bytes = field(repr=False)
    a: bytes = field(repr=False)
    e: bytes = field(repr=False)


def isakmp_keys(prf: Prf, skeyid: bytes, shared_secret: bytes, cookies: Cookies) -> IsakmpKeys:
    """SKEYID_d, SKEYID_a and SKEYID_e from SKEYID and g^xy."""
    seed = shared_secret + cookies.both
    d = prf(skeyid, seed + b"\0")
    a = prf(skeyid, d + seed + b"\1")
    e = prf(skeyid, a + seed + b"\2")
    return IsakmpKeys(d=d, a=a, e=e)


def encryption_key(prf: Prf, skeyid_e: bytes, encryption: Encryption) -> bytes:
    """The key of phase 1 encryption: SKEYID_e cut short, or stretched where it is too short (appendix B)."""
    if encryption.key_length <= len(skeyid_e):
        return skeyid_e[: encryption.key_length]
    material = block = prf(skeyid_e, b"\0")
    while len(material) < encryption.key_length:
        block = prf(skeyid_e, block)
        material += block
    return material[: encryption.key_length]


# --- phase 1 ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicValues:
    """g^xi and g^xr: the bodies of both KE payloads."""

    initiator: bytes
    responder: bytes


def hash_i(prf: Prf, skeyid: bytes, values: PublicValues, cookies: Cookies, sa: bytes, identity: bytes) -> bytes:
    """HASH_I = prf(SKEYID, g^xi | g^xr | CKY-I | CKY-R | SAi_b | IDii_b).

    `sa` is the body of the initiator's SA payload as it was sent, `identity` that of its ID payload.
    """
    return prf(skeyid, b"".join((values.initiator, values.responder, cookies.both, sa, identity)))


def hash_r(prf: Prf, skeyid: bytes, values: PublicValues, cookies: Cookies, sa: bytes, identity: bytes) -> bytes:
    """HASH_R = prf(SKEYID, g^xr | g^xi | CKY-R | CKY-I | SAi_b | IDir_b).

    `sa` is the initiator's here too; `identity` is the body of the responder's ID payload.
    """
    turned = (values.responder, values.initiator, cookies.responder, cookies.initiator, sa, identity)
    return prf(skeyid, b"".join(turned))


def phase1_iv(prf: Prf, values: PublicValues) -> bytes:
    """The first IV of phase 1: hash(g^xi | g^xr), cut to a block (appendix B)."""
    return prf.hash.digest(values.initiator + values.responder)[:AES_BLOCK]


def phase2_iv(prf: Prf, last_block: bytes, message_id: int) -> bytes:
    """The first IV of an exchange in phase 2: hash(last ciphertext block of phase 1 | M-ID), cut to a block."""
    return prf.hash.digest(last_block + _m_id(message_id))[:AES_BLOCK]


# --- phase 2 ----------------------------------------------------------------------------------------------


def _m_id(message_id: int) -> bytes:
    return message_id.to_bytes(4, "big")


def hash_1(prf: Prf, skeyid_a: bytes, message_id: int, rest: bytes) -> bytes:
    """HASH(1) = prf(SKEYID_a, M-ID | rest), also the HASH of an informational exchange (section 5.7).

    `rest` is every payload behind the HASH with its header, without padding.
    """
    return prf(skeyid_a, _m_id(message_id) + rest)


def hash_2(prf: Prf, skeyid_a: bytes, message_id: int, initiator_nonce: bytes, rest: bytes) -> bytes:
    """HASH(2) = prf(SKEYID_a, M-ID | Ni_b | rest)."""
    return prf(skeyid_a, _m_id(message_id) + initiator_nonce + rest)


def hash_3(prf: Prf, skeyid_a: bytes, message_id: int, nonces: Nonces) -> bytes:
    """HASH(3) = prf(SKEYID_a, 0 | M-ID | Ni_b | Nr_b)."""
    return prf(skeyid_a, b"\0" + _m_id(message_id) + nonces.both)


def keymat(
    prf: Prf,
    skeyid_d: bytes,
    suite: ChildSuite,
    spi: bytes,
    nonces: Nonces,
    shared_secret: bytes = b"",
) -> DirectionKeys:
    """KEYMAT of the SA with this SPI, which its receiver chose (section 5.5).

    `nonces` are those of quick mode; `shared_secret` is g(qm)^xy, empty without perfect forward secrecy.
    """
    seed = b"".join((shared_secret, bytes((suite.protocol,)), spi, nonces.both))
    length = suite.encryption_length + suite.integrity_length
    material = block = b""
    while len(material) < length:
        block = prf(skeyid_d, block + seed)
        material += block
    cut = suite.encryption_length
    return DirectionKeys(encryption=material[:cut], integrity=material[cut:length])


def child_keys(
    prf: Prf,
    skeyid_d: bytes,
    suite: ChildSuite,
    spis: tuple[bytes, bytes],
    nonces: Nonces,
    shared_secret: bytes = b"",
) -> ChildKeys:
    """Both SAs of quick mode; `spis` are the initiator's and the responder's, 4 bytes each.

    What the initiator sends arrives under the responder's SPI, and the other way round.
    """
    ours, theirs = spis
    return ChildKeys(
        initiator=keymat(prf, skeyid_d, suite, theirs, nonces, shared_secret),
        responder=keymat(prf, skeyid_d, suite, ours, nonces, shared_secret),
    )
