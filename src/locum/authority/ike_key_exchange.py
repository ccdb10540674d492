"""One key exchange of IKE: public values in the shapes of its KE payload, and the shared secret.

Never knows what the secret is for. Shapes (RFC 7296 section 2.14, RFC 5903, RFC 8031): a finite field's elements
have the length of its prime; a point is x followed by y, and its secret x alone; X25519 and X448 are as they are.
"""

from __future__ import annotations

from functools import partial

from locum.crypto.asymmetric import groups
from locum.crypto.asymmetric.finite_field import modp
from locum.crypto.asymmetric.groups import KeyAgreement
from locum.errors import Incompatible, Misbehaved
from locum.ike import algorithms as alg
from locum.ike.algorithms import Group

#: SEC 1 section 2.3.3: what stands before an uncompressed point everywhere but in IKE.
_UNCOMPRESSED = b"\x04"

_NAMES: dict[int, str] = {
    alg.CURVE25519.id: "X25519",
    alg.CURVE448.id: "X448",
    alg.ECP_256.id: "SECP256R1",
    alg.ECP_384.id: "SECP384R1",
    alg.ECP_521.id: "SECP521R1",
    alg.ML_KEM_768.id: "MLKEM768",
    alg.ML_KEM_1024.id: "MLKEM1024",
}
_POINTS = frozenset({alg.ECP_256.id, alg.ECP_384.id, alg.ECP_521.id})
_FINITE_FIELD_BITS: dict[int, int] = {
    group.id: group.initiator_length * 8
    for group in (alg.MODP_2048, alg.MODP_3072, alg.MODP_4096, alg.MODP_6144, alg.MODP_8192)
}

#: Every method that can be performed here. ML-KEM-512 is not one: the library leaves it out.
PERFORMED: frozenset[Group] = frozenset(
    group for group in alg.GROUPS.values() if group.id in _NAMES or group.id in _FINITE_FIELD_BITS
)


def find(code: int) -> Group:
    """The method with this code point. Raises: Incompatible when it cannot be performed."""
    group = alg.GROUPS.get(code)
    if group is None or group not in PERFORMED:
        raise Incompatible(f"key exchange method {code} is not implemented")
    return group


class KeyExchange:
    """The initiator's half of one key exchange; completing uses it up.

    `public_value` is the content of the KE payload, `group.initiator_length` bytes.
    """

    __slots__ = ("_agreement", "group", "public_value")

    def __init__(self, group: Group) -> None:
        self.group = group
        self._agreement = _start(group)
        self.public_value = _to_wire(group, self._agreement.share)

    def complete(self, peer_value: bytes) -> bytes:
        """The shared secret with the responder's public value or ciphertext of `group.responder_length` bytes.

        Raises: Misbehaved when it has another length, is not in the group, is our own, or forces the secret.
        """
        _check_length(self.group, peer_value, self.group.responder_length)
        if peer_value == self.public_value:
            raise Misbehaved(f"the peer's public value in {self.group.name} is our own, sent back")
        return self._agreement.complete(_from_wire(self.group, peer_value))

    def discard(self) -> None:
        """Forget the private value without using it."""
        self._agreement.discard()


def respond(group: Group, peer_value: bytes) -> tuple[bytes, bytes]:
    """Answer the initiator's public value: our public value or ciphertext, and the shared secret.

    Raises: Misbehaved as `KeyExchange.complete` does.
    """
    _check_length(group, peer_value, group.initiator_length)
    if group.id in _FINITE_FIELD_BITS:
        agreement = _start(group)
        return agreement.share, agreement.complete(peer_value)
    share, secret = groups.respond(_NAMES[group.id], _from_wire(group, peer_value))
    return _to_wire(group, share), secret


def _start(group: Group) -> KeyAgreement:
    bits = _FINITE_FIELD_BITS.get(group.id)
    start = (
        partial(groups.start, _NAMES[group.id]) if bits is None else partial(groups.start_finite_field, modp(bits))
    )
    return start()


def _check_length(group: Group, value: bytes, length: int) -> None:
    if len(value) != length:
        raise Misbehaved(f"a public value of {len(value)} bytes in {group.name}, not {length}")


def _to_wire(group: Group, share: bytes) -> bytes:
    return share[1:] if group.id in _POINTS else share


def _from_wire(group: Group, value: bytes) -> bytes:
    return _UNCOMPRESSED + value if group.id in _POINTS else value
