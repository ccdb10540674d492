"""The keys of an established ISAKMP SA at work: HASH payloads and initial vectors of phase 2.

Knows no exchange and keeps no state: every message id has a chain of its own (RFC 2409 sections 5.5, 5.7, B).
"""

from __future__ import annotations

from dataclasses import field

from locum.crypto.symmetric import AesCbcKey, constant_time_equal
from locum.ike.keying1 import IsakmpKeys, encryption_key, hash_1, phase2_iv
from locum.ike.payloads1 import Hash, Payload, write_payloads
from locum.ike.protection import CbcChain
from locum.ike.suites import Phase1Suite
from locum.ike.v1.messages import Message
from locum.values import dataclass


@dataclass(frozen=True, slots=True)
class Isakmp:
    """An ISAKMP SA's algorithms, keys, and the last block of phase 1, which the IVs of phase 2 come from."""

    suite: Phase1Suite
    keys: IsakmpKeys = field(repr=False)
    cipher: AesCbcKey = field(repr=False)
    last_block: bytes = field(repr=False)

    @classmethod
    def of(cls, suite: Phase1Suite, keys: IsakmpKeys, last_block: bytes) -> Isakmp:
        """From what phase 1 ended in."""
        return cls(suite, keys, AesCbcKey(encryption_key(suite.prf, keys.e, suite.encryption)), last_block)

    def chain(self, message_id: int) -> CbcChain:
        """The encryption of an exchange from its first message on."""
        return CbcChain(self.cipher, phase2_iv(self.suite.prf, self.last_block, message_id))

    def with_hash(self, message_id: int, payloads: tuple[Payload, ...]) -> tuple[Payload, ...]:
        """HASH(1) in front of the payloads that it covers."""
        rest = write_payloads(payloads)[1]
        return (Hash(data=hash_1(self.suite.prf, self.keys.a, message_id, rest)), *payloads)

    def vouches_for(self, message: Message) -> bool:
        """True when the message begins with the HASH(1) of the rest."""
        due = hash_1(self.suite.prf, self.keys.a, message.header.message_id, message.payloads.after_first())
        return constant_time_equal(message.one(Hash).data, due)
