"""The keys of one IKEv2 SA in the making, from one key exchange to the next, and what its AUTH payloads cover.

Never knows who the peer is; a post-quantum pre-shared key is handed in where one is used (RFC 8784).
"""

from __future__ import annotations

from collections.abc import Sequence

from locum.authority.ike2_messages import Spis
from locum.errors import Refused
from locum.ike import keying2
from locum.ike.keying2 import IkeKeys
from locum.ike.operations import MAX_INTERMEDIATE
from locum.ike.suites import IkeSuite, Nonces

#: The message id of the first IKE_AUTH where no IKE_INTERMEDIATE came between.
_IKE_AUTH = 1


class KeySchedule:
    """SK_* after IKE_SA_INIT, and after each additional key exchange (RFC 9370 section 2.2.2)."""

    __slots__ = ("_keys", "_stages", "nonces", "spis", "suite")

    def __init__(self, suite: IkeSuite, nonces: Nonces, spis: Spis, shared_secret: bytes) -> None:
        self.suite = suite
        self.nonces = nonces
        self.spis = spis
        self._keys = self._derive(keying2.skeyseed(suite.prf, nonces, shared_secret))
        #: The keys that were in force in each IKE_INTERMEDIATE exchange.
        self._stages: list[IkeKeys] = []

    def __repr__(self) -> str:
        return f"<KeySchedule {self.suite}>"

    @property
    def exchanges(self) -> int:
        """How many additional key exchanges there have been."""
        return len(self._stages)

    @property
    def protection(self) -> bytes:
        """SK_ai, SK_ar, SK_ei and SK_er, one after the other."""
        keys = self._keys
        return keys.sk_ai + keys.sk_ar + keys.sk_ei + keys.sk_er

    def add(self, shared_secret: bytes) -> None:
        """Go on to the keys after an additional key exchange."""
        self._stages.append(self._keys)
        seed = keying2.rekeyed_skeyseed(self.suite.prf, self._keys.sk_d, self.nonces, shared_secret)
        self._keys = self._derive(seed)

    def _derive(self, seed: bytes) -> IkeKeys:
        return keying2.ike_keys(self.suite, seed, self.nonces, self.spis.initiator, self.spis.responder)

    def _final(self, ppk: bytes | None) -> IkeKeys:
        return self._keys if ppk is None else keying2.with_ppk(self.suite.prf, self._keys, ppk)

    # --- AUTH ---------------------------------------------------------------------------------------------

    def signed_octets(
        self,
        *,
        by_initiator: bool,
        message: bytes,
        identification: bytes,
        intermediate: Sequence[bytes],
        ppk: bytes | None,
    ) -> bytes:
        """What the AUTH payload of one end covers (RFC 7296 section 2.15, RFC 9242 section 3.3.1).

        `message` and `identification` are that end's; `intermediate` as in `ProveRequest`.
        Raises: Refused unless there are two messages of IKE_INTERMEDIATE for each additional key exchange.
        """
        keys = self._final(ppk)
        return keying2.signed_octets(
            self.suite.prf,
            message,
            self.nonces.responder if by_initiator else self.nonces.initiator,
            keys.sk_pi if by_initiator else keys.sk_pr,
            identification,
            self._intermediate_auth(intermediate),
        )

    def _intermediate_auth(self, messages: Sequence[bytes]) -> bytes:
        if len(messages) != 2 * self.exchanges or sum(map(len, messages)) > MAX_INTERMEDIATE:
            raise Refused(f"{len(messages)} messages of IKE_INTERMEDIATE, not {2 * self.exchanges}")
        if not messages:
            return b""
        prf, initiator, responder = self.suite.prf, b"", b""
        for stage, theirs, answer in zip(self._stages, messages[::2], messages[1::2], strict=True):
            initiator = keying2.intermediate_mac(prf, stage.sk_pi, initiator, theirs)
            responder = keying2.intermediate_mac(prf, stage.sk_pr, responder, answer)
        return keying2.intermediate_auth(initiator, responder, _IKE_AUTH + self.exchanges)

    # --- what the terminal gets ---------------------------------------------------------------------------

    def sk_d(self, ppk: bytes | None) -> bytes:
        """SK_d, from which everything further is derived."""
        return self._final(ppk).sk_d

    def child_keymat(self, ppk: bytes | None, length: int) -> bytes:
        """KEYMAT of the first CHILD_SA, `length` bytes for both directions together (RFC 7296 section 2.17)."""
        return keying2.prf_plus(self.suite.prf, self.sk_d(ppk), self.nonces.both, length)
