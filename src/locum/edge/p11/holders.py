"""The port of the agent's workers to keys: which ones there are, and whoever performs operations with each.

The pool of connections to key servers is one; keys of this process make another, for tests.
"""

from __future__ import annotations

from typing import Protocol

from locum.keyless.queries import OfferedKey
from locum.keys.port import KeyHolder


class Holders(Protocol):
    """Where the keys are."""

    async def keys(self) -> tuple[OfferedKey, ...]:
        """The keys that this edge may use, now. Raises: Unavailable, TimedOut, Refused."""
        ...

    def key(self, offered: OfferedKey) -> KeyHolder:
        """Whoever performs operations with one of them."""
        ...
