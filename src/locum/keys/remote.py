"""`RemoteKey`: a private key that is at key servers, as a `KeyHolder` (C1, C2, C7).

Never has the key, and decides nothing: a key server performs, or refuses.
"""

from __future__ import annotations

import os
from typing import Protocol

from locum.errors import Unavailable
from locum.keyless.frames import KeyReference
from locum.keyless.operations import Decrypt, KeyOperation
from locum.keyless.queries import OfferedKey
from locum.keys.rejection import OVERHEAD, instead_of_message, take_off_padding

#: Of this process and those that it forks: what comes instead of messages that were none.
_SECRET = os.urandom(32)


class Performer(Protocol):
    """Who has operations performed: a `KeyServerPool`."""

    async def perform(self, reference: KeyReference, operation: KeyOperation) -> bytes:
        """As `KeyServerPool.perform`."""
        ...


class RemoteKey:
    """A key that a key server offers to this edge."""

    __slots__ = ("_performer", "_reference", "offered")

    def __init__(self, performer: Performer, offered: OfferedKey) -> None:
        self._performer = performer
        self._reference = KeyReference(ski=offered.ski)
        self.offered = offered

    def __repr__(self) -> str:
        return f"<RemoteKey {self.offered.name}>"

    @property
    def public_key(self) -> bytes:
        """The SubjectPublicKeyInfo in DER."""
        return self.offered.public_key

    async def perform(self, operation: KeyOperation) -> bytes:
        """As `KeyHolder.perform`.

        Key servers of others answer a decryption with the block as it is, good or bad, and leave it to us to see
        no difference (RFC 5246 section 7.4.7.1); locum's own never send a bad one.
        """
        answer = await self._performer.perform(self._reference, operation)
        if type(operation) is not Decrypt:
            return answer
        ciphertext = operation.ciphertext
        if len(answer) != len(ciphertext) or len(answer) < OVERHEAD:
            raise Unavailable("the key server's answer is no block of RSAES-PKCS1-v1_5")
        return take_off_padding(answer, instead_of_message(_SECRET + self.public_key, ciphertext))
