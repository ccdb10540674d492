"""The keying material of IKEv2: SKEYSEED, SK_*, KEYMAT, AUTH (RFC 7296 section 2, RFC 8784, 9242, 9370).

Pure functions from secrets to secrets; who calls them, terminal or delegate (X1), is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace

from locum.crypto.symmetric import hkdf_expand
from locum.ike.algorithms import Prf
from locum.ike.header import GENERIC_HEADER_LENGTH, Header, generic_header
from locum.ike.registry import PayloadType2
from locum.ike.suites import ChildKeys, ChildSuite, DirectionKeys, IkeSuite, Nonces
from locum.values import dataclass

#: RFC 7296 section 2.15.
_KEY_PAD = b"Key Pad for IKEv2"


def prf_plus(prf: Prf, key: bytes, seed: bytes, length: int) -> bytes:
    """prf+ to `length` bytes, at most 255 blocks (RFC 7296 section 2.13); with HMAC it is HKDF-Expand."""
    return hkdf_expand(prf.hash, key, seed, length)


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeKeys:
    """SK_*: the seven keys of an IKE SA (RFC 7296 section 2.14); _i is used by its initiator, _r by its responder.

    sk_ai and sk_ar are empty with an AEAD, whose salts are the ends of sk_ei and sk_er.
    """

    sk_d: bytes = field(repr=False)
    sk_ai: bytes = field(repr=False)
    sk_ar: bytes = field(repr=False)
    sk_ei: bytes = field(repr=False)
    sk_er: bytes = field(repr=False)
    sk_pi: bytes = field(repr=False)
    sk_pr: bytes = field(repr=False)


def skeyseed(prf: Prf, nonces: Nonces, shared_secret: bytes) -> bytes:
    """SKEYSEED of IKE_SA_INIT: prf(Ni | Nr, g^ir)."""
    return prf(nonces.both, shared_secret)


def rekeyed_skeyseed(
    prf: Prf, sk_d: bytes, nonces: Nonces, shared_secret: bytes, additional: Sequence[bytes] = ()
) -> bytes:
    """SKEYSEED from the SK_d before: prf(SK_d, g^ir | Ni | Nr | SK(1) | ... | SK(n)).

    Of a rekeyed IKE SA, where `additional` are the secrets of its additional key exchanges, the nonces are
    new and `prf` is the old SA's (RFC 7296 section 2.18, RFC 9370 section 2.2.4); and, without `additional`,
    after each IKE_INTERMEDIATE with a key exchange, with the nonces of IKE_SA_INIT (RFC 9370 section 2.2.2).
    """
    return prf(sk_d, b"".join((shared_secret, nonces.both, *additional)))


def ike_keys(suite: IkeSuite, seed: bytes, nonces: Nonces, initiator_spi: bytes, responder_spi: bytes) -> IkeKeys:
    """SK_* from SKEYSEED; for a rekeyed IKE SA the SPIs are the new ones."""
    prf, cipher, mac = suite.prf.length, suite.encryption.material_length, suite.integrity_length
    lengths = (prf, mac, mac, cipher, cipher, prf, prf)
    material = prf_plus(suite.prf, seed, nonces.both + initiator_spi + responder_spi, sum(lengths))
    sk_d, sk_ai, sk_ar, sk_ei, sk_er, sk_pi, sk_pr = _cut(material, lengths)
    return IkeKeys(sk_d=sk_d, sk_ai=sk_ai, sk_ar=sk_ar, sk_ei=sk_ei, sk_er=sk_er, sk_pi=sk_pi, sk_pr=sk_pr)


def _cut(material: bytes, lengths: Sequence[int]) -> list[bytes]:
    parts, start = [], 0
    for length in lengths:
        parts.append(material[start : start + length])
        start += length
    return parts


def with_ppk(prf: Prf, keys: IkeKeys, ppk: bytes) -> IkeKeys:
    """Mix a post-quantum pre-shared key into SK_d, SK_pi and SK_pr (RFC 8784 section 3)."""
    return replace(
        keys,
        sk_d=prf_plus(prf, ppk, keys.sk_d, len(keys.sk_d)),
        sk_pi=prf_plus(prf, ppk, keys.sk_pi, len(keys.sk_pi)),
        sk_pr=prf_plus(prf, ppk, keys.sk_pr, len(keys.sk_pr)),
    )


# --- AUTH -------------------------------------------------------------------------------------------------


def signed_octets(
    prf: Prf, message: bytes, peer_nonce: bytes, sk_p: bytes, id_body: bytes, intermediate: bytes = b""
) -> bytes:
    """What an AUTH payload covers (RFC 7296 section 2.15).

    `message` is the signer's whole IKE_SA_INIT message as sent last, `peer_nonce` the other end's nonce,
    `sk_p` and `id_body` the signer's own SK_pi or SK_pr and identification without generic header.
    `intermediate` is `intermediate_auth` where there were IKE_INTERMEDIATE exchanges (RFC 9242 section 3.3.1).
    """
    return b"".join((message, peer_nonce, prf(sk_p, id_body), intermediate))


def shared_key_auth(prf: Prf, secret: bytes, octets: bytes) -> bytes:
    """The AUTH data of a pre-shared key: prf(prf(secret, "Key Pad for IKEv2"), octets)."""
    return prf(padded_secret(prf, secret), octets)


def padded_secret(prf: Prf, secret: bytes) -> bytes:
    """What of `shared_key_auth` is the same whatever is covered: it may be kept instead of the secret."""
    return prf(secret, _KEY_PAD)


def intermediate_octets(header: Header, first: int, plaintext: bytes) -> bytes:
    """IntAuth_*A | IntAuth_*P of one message that carries nothing outside its encrypted payload.

    `header` is the message's, `first` the type of the first payload in `plaintext`. Both length fields are
    written as though there were no IV, padding and ICV, and a fragmented message counts as though it had not
    been fragmented (RFC 9242 section 3.3.2).
    """
    before = header.before(PayloadType2.ENCRYPTED, GENERIC_HEADER_LENGTH + len(plaintext))
    return b"".join((before, generic_header(first, len(plaintext)), plaintext))


def intermediate_mac(prf: Prf, sk_p: bytes, previous: bytes, octets: bytes) -> bytes:
    """IntAuth_i(N) or IntAuth_r(N): prf(SK_p(N), IntAuth(N-1) | octets); `previous` is empty for the first."""
    return prf(sk_p, previous + octets)


def intermediate_auth(initiator: bytes, responder: bytes, message_id: int) -> bytes:
    """IntAuth: the last MACs of both directions and the message id of the first IKE_AUTH."""
    return initiator + responder + message_id.to_bytes(4, "big")


# --- CHILD_SA ---------------------------------------------------------------------------------------------


def child_keys(
    prf: Prf,
    suite: ChildSuite,
    sk_d: bytes,
    nonces: Nonces,
    shared_secret: bytes = b"",
    additional: Sequence[bytes] = (),
) -> ChildKeys:
    """KEYMAT = prf+(SK_d, g^ir | Ni | Nr | SK(1) | ... | SK(n)), cut up (RFC 7296 section 2.17, RFC 9370 2.2.4).

    `prf` is that of the IKE SA; nonces are those of IKE_SA_INIT for the first CHILD_SA, else of its own
    exchange; `shared_secret` is empty without perfect forward secrecy.
    """
    cipher, mac = suite.encryption_length, suite.integrity_length
    seed = b"".join((shared_secret, nonces.both, *additional))
    material = prf_plus(prf, sk_d, seed, 2 * (cipher + mac))
    ei, ai, er, ar = _cut(material, (cipher, mac, cipher, mac))
    return ChildKeys(
        initiator=DirectionKeys(encryption=ei, integrity=ai), responder=DirectionKeys(encryption=er, integrity=ar)
    )
