"""What all key servers of one database have in common: the root of ticket keys, and what they seal for edges.

Never knows who may ask for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from locum.crypto.symmetric import AES_256_GCM, SHA256, AuthenticationFailed, hkdf_expand
from locum.keyless.errors import RequestFault
from locum.keyless.queries import TicketsAnswer
from locum.keyless.registry import ErrorCode

#: Seconds for which edges use one ticket key.
TICKET_EPOCH = 12 * 3600
#: Seconds for which edges get the same root: whoever steals one opens the tickets of that time and no others.
ROOT_PERIOD = 7 * 86_400
#: Seconds after which an edge asks again at the latest: the root is another one after an edge has been cut off.
ROOT_LIFETIME = 600
#: Seconds for which one key seals; what it sealed is opened for as long again at least.
SEAL_PERIOD = 86_400

_TICKET_LABEL = b"locum root of ticket keys"
_SEAL_LABEL = b"locum seal"
_NONCE_LENGTH = 12
_PERIOD_LENGTH = 4


class SharedSecrets:
    """Derived from `root`, 32 bytes, which every key server on one database has. Times are since the epoch."""

    __slots__ = ("_root",)

    def __init__(self, root: bytes) -> None:
        self._root = root

    def __repr__(self) -> str:
        return "<SharedSecrets>"

    def tickets(self, keys: Iterable[str], now: float) -> TicketsAnswer:
        """The root of the keys for session tickets, as edges are told it that may use exactly these private keys.

        A ticket contains what a session's keys come from. So edges share them only where each of them could have
        made the session itself.
        """
        scope = SHA256.digest(b"\0".join(sorted(name.encode() for name in keys)))
        period = int(now // ROOT_PERIOD)
        remaining = (period + 1) * ROOT_PERIOD - int(now)
        return TicketsAnswer(
            root=self._derived(_TICKET_LABEL + scope, period),
            epoch_seconds=TICKET_EPOCH,
            lifetime=min(ROOT_LIFETIME, remaining),
        )

    def seal(self, edge: str, content: bytes, *, now: float, nonce: bytes) -> bytes:
        """Encrypt `content` for the same edge to have it opened later; `nonce` is 12 random bytes."""
        period = int(now // SEAL_PERIOD)
        key = AES_256_GCM.new(self._derived(_SEAL_LABEL, period))
        return period.to_bytes(_PERIOD_LENGTH, "big") + nonce + key.seal(nonce, content, edge.encode())

    def unseal(self, edge: str, sealed: bytes, *, now: float) -> bytes:
        """Decrypt what `seal` made for this edge in this period or the one before.

        Raises: RequestFault, with the code for what has expired or, if it is nothing of ours, for a bad format.
        """
        period = int.from_bytes(sealed[:_PERIOD_LENGTH], "big")
        nonce = sealed[_PERIOD_LENGTH : _PERIOD_LENGTH + _NONCE_LENGTH]
        ciphertext = sealed[_PERIOD_LENGTH + _NONCE_LENGTH :]
        if len(ciphertext) < AES_256_GCM.tag_length:
            raise RequestFault(ErrorCode.FORMAT, "nothing that was sealed here")
        if period not in (int(now // SEAL_PERIOD), int(now // SEAL_PERIOD) - 1):
            raise RequestFault(ErrorCode.EXPIRED)
        try:
            return AES_256_GCM.new(self._derived(_SEAL_LABEL, period)).open(nonce, ciphertext, edge.encode())
        except AuthenticationFailed:
            raise RequestFault(ErrorCode.CRYPTO, "nothing that was sealed here for this edge") from None

    def _derived(self, label: bytes, period: int) -> bytes:
        return hkdf_expand(SHA256, self._root, label + period.to_bytes(8, "big"), SHA256.length)
