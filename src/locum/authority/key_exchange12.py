"""The client's half of a TLS 1.2 key exchange: ClientKeyExchange and pre-master secret (para 115).

Never knows who the peer is; that its parameters are authentic has been found out before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field

from locum.authority.selection import FINITE_FIELD_BITS
from locum.crypto.asymmetric import groups
from locum.crypto.asymmetric.finite_field import find_group
from locum.crypto.asymmetric.signatures import PublicKey, encrypt_pkcs1
from locum.errors import Incompatible, Misbehaved
from locum.tls.registry import HYBRID_GROUPS, KeyExchange, ProtocolVersion, group_name
from locum.values import dataclass
from locum.wire.cursor import Reader, Writer

#: RFC 8422 section 5.4: ECCurveType named_curve.
_NAMED_CURVE = 3
#: RFC 5246 section 7.4.7.1: client_version (2 bytes) and 46 random ones.
_PRE_MASTER_RANDOM = 46
#: Where no finite-field group was offered by its name, a server takes its own, as before RFC 7919; of this size.
_MAX_UNOFFERED_BITS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientExchange:
    """The body of the ClientKeyExchange, its inner length included, and the secret that goes with it."""

    body: bytes
    pre_master_secret: bytes = field(repr=False)


def perform_key_exchange(
    exchange: KeyExchange,
    parameters: bytes,
    *,
    offered_groups: Sequence[int],
    peer_key: PublicKey,
    random: Callable[[int], bytes],
) -> ClientExchange:
    """Perform the exchange with the server's `parameters`, or for RSA with the key of its certificate.

    Raises: DecodeError, Misbehaved or Incompatible when the parameters are malformed, not what was offered, or in
    a finite-field group that is neither of RFC 7919 nor of RFC 3526, or larger than those offered.
    """
    if exchange is KeyExchange.ECDHE:
        return _ecdhe(parameters, offered_groups)
    if exchange is KeyExchange.DHE:
        return _dhe(parameters, offered_groups)
    return _rsa(peer_key, random)


def _ecdhe(parameters: bytes, offered_groups: Sequence[int]) -> ClientExchange:
    """ServerECDHParams (RFC 8422 section 5.4)."""
    reader = Reader(parameters)
    curve_type, group, point = reader.u8(), reader.u16(), reader.vector(1, minimum=1)
    reader.finish()
    if (
        curve_type != _NAMED_CURVE
        or group not in offered_groups
        or group in FINITE_FIELD_BITS
        or group in HYBRID_GROUPS
    ):
        raise Misbehaved(f"the server's key exchange is in {group_name(group)}, which was not offered for it")
    agreement = groups.start(group_name(group))
    return ClientExchange(body=_vector(agreement.share, 1), pre_master_secret=agreement.complete(point))


def _dhe(parameters: bytes, offered_groups: Sequence[int]) -> ClientExchange:
    """ServerDHParams (RFC 5246 section 7.4.3); no larger group than was offered: the cost grows as the cube."""
    reader = Reader(parameters)
    prime, generator, public = (reader.vector(2, minimum=1) for _ in range(3))
    reader.finish()
    group = find_group(int.from_bytes(prime, "big"), int.from_bytes(generator, "big"))
    if group is None:
        raise Incompatible(
            f"the server's Diffie-Hellman group of {len(prime) * 8} bits is not one of RFC 7919 or RFC 3526 "
            "with 2048 bits or more"
        )
    offered = [FINITE_FIELD_BITS[each] for each in offered_groups if each in FINITE_FIELD_BITS]
    if group.bits > max(offered, default=_MAX_UNOFFERED_BITS):
        raise Incompatible(f"the server's Diffie-Hellman group {group.name} is larger than any that was offered")
    agreement = groups.start_finite_field(group)
    secret = agreement.complete(public)
    # RFC 5246 section 8.1.2: leading zero bytes are stripped before the secret is used.
    return ClientExchange(body=_vector(agreement.share, 2), pre_master_secret=secret.lstrip(b"\0"))


def _rsa(peer_key: PublicKey, random: Callable[[int], bytes]) -> ClientExchange:
    """EncryptedPreMasterSecret (RFC 5246 section 7.4.7.1)."""
    secret = ProtocolVersion.TLS_1_2.to_bytes(2, "big") + random(_PRE_MASTER_RANDOM)
    return ClientExchange(body=_vector(encrypt_pkcs1(peer_key, secret), 2), pre_master_secret=secret)


def _vector(data: bytes, size: int) -> bytes:
    writer = Writer()
    writer.vector(data, size)
    return writer.getvalue()
