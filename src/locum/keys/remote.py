"""`RemoteKey`: a private key that is at key servers, as a `KeyHolder` (C1, C2, C7).

Never has the key, and decides nothing: a key server performs, or refuses.
"""

from __future__ import annotations

from typing import Protocol

from locum.errors import DecodeError, Unavailable
from locum.keyless.frames import KeyReference
from locum.keyless.opcodes import strip_block
from locum.keyless.operations import Decrypt, KeyOperation
from locum.keyless.queries import OfferedKey


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
        """As `KeyHolder.perform`."""
        answer = await self._performer.perform(self._reference, operation)
        if type(operation) is not Decrypt:
            return answer
        try:
            return strip_block(answer)
        except DecodeError as error:
            raise Unavailable(str(error)) from None
