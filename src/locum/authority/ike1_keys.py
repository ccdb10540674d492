"""The keys of one ISAKMP SA, and what HASH_I and HASH_R cover (RFC 2409 section 5).

Never knows who the peer is, nor how SKEYID came about.
"""

from __future__ import annotations

from locum.ike import keying1
from locum.ike.algorithms import Prf
from locum.ike.keying1 import Cookies, PublicValues
from locum.ike.payloads1 import write_payloads
from locum.ike.v1.informational import sa_deletion


class Phase1Keys:
    """SKEYID and what follows from it."""

    __slots__ = ("_cookies", "_keys", "_prf", "_sa", "_skeyid", "_values")

    def __init__(
        self,
        prf: Prf,
        skeyid: bytes,
        shared_secret: bytes,
        *,
        cookies: Cookies,
        values: PublicValues,
        sa: bytes,
    ) -> None:
        """`sa` is the body of the initiator's SA payload as it was sent."""
        self._prf = prf
        self._skeyid = skeyid
        self._cookies = cookies
        self._values = values
        self._sa = sa
        self._keys = keying1.isakmp_keys(prf, skeyid, shared_secret, cookies)

    def __repr__(self) -> str:
        return "<Phase1Keys>"

    @property
    def skeyid_e(self) -> bytes:
        """SKEYID_e, one hash long."""
        return self._keys.e

    @property
    def all(self) -> bytes:
        """SKEYID_d, SKEYID_a and SKEYID_e, one after the other."""
        return self._keys.d + self._keys.a + self._keys.e

    def hash_of(self, identification: bytes, *, initiator: bool) -> bytes:
        """HASH_I or HASH_R of the end with this identification (the body of its ID payload)."""
        function = keying1.hash_i if initiator else keying1.hash_r
        return function(self._prf, self._skeyid, self._values, self._cookies, self._sa, identification)

    def farewell(self, message_id: int) -> bytes:
        """The HASH of an informational message that deletes this SA and says nothing else (section 5.7)."""
        deletion = write_payloads((sa_deletion(self._cookies),))[1]
        return keying1.hash_1(self._prf, self._keys.a, message_id, deletion)
