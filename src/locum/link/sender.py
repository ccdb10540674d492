"""The sequence numbers of a terminal: which security context it sends in, and that no number is used twice.

Never knows messages or where the store keeps what it is given.
"""

from __future__ import annotations

from typing import Protocol

from locum.errors import LocumError
from locum.link.exchange import RandomSource
from locum.link.oscore import MAXIMUM_SEQUENCE, Credential, SecurityContext

#: Bytes of a fresh ID Context: random, so that no two processes ever have the same.
ID_CONTEXT_LENGTH = 8
#: Sequence numbers that are reserved in the store at once; a process that ends loses what is left of them.
RESERVATION = 16


class SequenceStore(Protocol):
    """Where a terminal's ID Context and next sequence number outlast the process (RFC 8613 Appendix B.1.1).

    Whoever has one has it alone: two clients on one store would use numbers twice.
    """

    def load(self) -> tuple[bytes, int]:
        """The ID Context, 1 to 32 bytes, and the first number that was never reserved. Raises: LocumError."""
        ...

    def reserve(self, upto: int) -> None:
        """Make sure, before returning, that `load` never again gives a number below `upto`. Raises: LocumError."""
        ...


class Sender:
    """The terminal's security context and the numbers it may use.

    Without a store, or when the store fails, or when its numbers are used up, a context of a fresh random ID
    Context takes its place, whose numbers begin at 0 and are in memory only. No nonce is used twice either way.
    """

    __slots__ = ("_credential", "_next", "_random", "_reserved", "_store", "confirmed", "context")

    def __init__(self, credential: Credential, store: SequenceStore | None, random: RandomSource) -> None:
        self._credential = credential
        self._random = random
        self._store: SequenceStore | None = None
        self._renew()
        if store is not None:
            try:
                id_context, self._next = store.load()
            except (LocumError, OSError):
                return
            self._store = store
            self._reserved = self._next
            self.context = SecurityContext.of_terminal(credential, id_context)

    def take(self) -> tuple[SecurityContext, int]:
        """A context, and a number that was never used in it."""
        if self._next > MAXIMUM_SEQUENCE:
            self._renew()
        elif self._next == self._reserved and self._store is not None:
            upto = min(self._next + RESERVATION, MAXIMUM_SEQUENCE + 1)
            try:
                self._store.reserve(upto)
                self._reserved = upto
            except (LocumError, OSError):
                self._renew()
        number = self._next
        self._next += 1
        return self.context, number

    def _renew(self) -> None:
        self._store = None
        self._next = 0
        self._reserved = MAXIMUM_SEQUENCE + 1
        #: The delegate has answered in this context, and so can find it by where requests come from.
        self.confirmed = False
        self.context = SecurityContext.of_terminal(self._credential, self._random(ID_CONTEXT_LENGTH))
