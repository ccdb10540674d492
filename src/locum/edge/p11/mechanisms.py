"""Mechanisms of PKCS#11 and what they come to: a signature scheme, and a digest or a whole content to sign.

Knows no key and does no cryptography. CKM_RSA_X_509, with which a caller does the padding and so gets anything
signed or decrypted, is not here (X3).
"""

from __future__ import annotations

from locum.edge.p11.registry import KeyType, Mechanism, MechanismFlag, Rv
from locum.values import dataclass

#: Longest content that a mechanism with a hash signs, in bytes: the messages of a handshake fit.
MAX_CONTENT = 48 * 1024


class Failed(Exception):
    """A call that ends with this CK_RV."""

    def __init__(self, rv: Rv) -> None:
        super().__init__(rv.name)
        self.rv = rv


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """How a mechanism signs. `schemes` by what decides: the hash's mechanism (PSS), the DigestInfo, or the length.

    `whole` says that the mechanism hashes the content itself, so that whoever signs sees what it signs; then there
    is one scheme, under 0.
    """

    key_type: KeyType
    schemes: dict[int | bytes, str]
    pss: bool = False
    whole: bool = False

    @property
    def flags(self) -> int:
        """CK_MECHANISM_INFO.flags."""
        if self.key_type is KeyType.EC:
            return (
                MechanismFlag.SIGN
                | MechanismFlag.EC_F_P
                | MechanismFlag.EC_NAMEDCURVE
                | MechanismFlag.EC_UNCOMPRESS
            )
        return MechanismFlag.SIGN if self.pss or self.whole else MechanismFlag.SIGN | MechanismFlag.DECRYPT


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hash:
    mechanism: int
    length: int
    #: CK_RSA_PKCS_MGF_TYPE of MGF1 with this hash
    mgf: int
    #: DigestInfo up to the digest (RFC 8017 section 9.2, note 1)
    digest_info: bytes


_HASHES = {
    256: _Hash(
        mechanism=Mechanism.SHA256,
        length=32,
        mgf=2,
        digest_info=bytes.fromhex("3031300d060960864801650304020105000420"),
    ),
    384: _Hash(
        mechanism=Mechanism.SHA384,
        length=48,
        mgf=3,
        digest_info=bytes.fromhex("3041300d060960864801650304020205000430"),
    ),
    512: _Hash(
        mechanism=Mechanism.SHA512,
        length=64,
        mgf=4,
        digest_info=bytes.fromhex("3051300d060960864801650304020305000440"),
    ),
}
_BY_MECHANISM: dict[int, _Hash] = {each.mechanism: each for each in _HASHES.values()}
_CURVES = {256: "SECP256R1", 384: "SECP384R1", 512: "SECP521R1"}


def _table() -> dict[int, Signing]:
    rsa, ec = KeyType.RSA, KeyType.EC
    table: dict[int, Signing] = {
        Mechanism.RSA_PKCS: Signing(
            key_type=rsa, schemes={each.digest_info: f"RSA_PKCS1_SHA{bits}" for bits, each in _HASHES.items()}
        ),
        Mechanism.RSA_PKCS_PSS: Signing(
            key_type=rsa, pss=True, schemes={each.mechanism: f"RSA_PSS_RSAE_SHA{n}" for n, each in _HASHES.items()}
        ),
        Mechanism.ECDSA: Signing(
            key_type=ec, schemes={each.length: f"ECDSA_{_CURVES[n]}_SHA{n}" for n, each in _HASHES.items()}
        ),
    }
    for bits in _HASHES:
        name = f"SHA{bits}_RSA_PKCS"
        table[Mechanism[name]] = Signing(key_type=rsa, whole=True, schemes={0: f"RSA_PKCS1_SHA{bits}"})
        table[Mechanism[f"{name}_PSS"]] = Signing(
            key_type=rsa, whole=True, pss=True, schemes={0: f"RSA_PSS_RSAE_SHA{bits}"}
        )
        table[Mechanism[f"ECDSA_SHA{bits}"]] = Signing(
            key_type=ec, whole=True, schemes={0: f"ECDSA_{_CURVES[bits]}_SHA{bits}"}
        )
    return table


#: Every mechanism that the agent signs with.
SIGNING = _table()
#: The hash that a mechanism for PSS with a hash insists on.
_PSS_HASH: dict[int, _Hash] = {Mechanism[f"SHA{bits}_RSA_PKCS_PSS"]: each for bits, each in _HASHES.items()}


def signing(mechanism: int, parameters: tuple[int, int, int]) -> Signing:
    """The mechanism, once its parameters are known to be those of TLS: one hash, and a salt as long as its digest.

    `parameters` as `Arguments.mechanism` gives them. Raises: Failed.
    """
    found = SIGNING.get(mechanism)
    if found is None:
        raise Failed(Rv.MECHANISM_INVALID)
    if found.pss:
        used, mgf, salt = parameters
        hash_ = _BY_MECHANISM.get(used)
        if (
            hash_ is None
            or (mgf, salt) != (hash_.mgf, hash_.length)
            or _PSS_HASH.get(mechanism, hash_) is not hash_
        ):
            raise Failed(Rv.MECHANISM_PARAM_INVALID)
    return found


def scheme_and_content(how: Signing, pss_hash: int, data: bytes) -> tuple[str, bytes]:
    """The IANA name of the signature scheme, and the content or the digest to sign.

    `pss_hash` is the first parameter of PSS. Raises: Failed when `data` is no digest of SHA-256, SHA-384 or
    SHA-512 in the form that the mechanism takes, or too long.
    """
    if how.whole:
        if len(data) > MAX_CONTENT:
            raise Failed(Rv.DATA_LEN_RANGE)
        return how.schemes[0], data
    if how.pss:
        if len(data) != _BY_MECHANISM[pss_hash].length:
            raise Failed(Rv.DATA_LEN_RANGE)
        return how.schemes[pss_hash], data
    if how.key_type is KeyType.EC:
        scheme = how.schemes.get(len(data))
        if scheme is None:
            raise Failed(Rv.DATA_LEN_RANGE)
        return scheme, data
    for hash_ in _HASHES.values():
        if len(data) == len(hash_.digest_info) + hash_.length and data.startswith(hash_.digest_info):
            return how.schemes[hash_.digest_info], data[-hash_.length :]
    raise Failed(Rv.DATA_INVALID)
