"""The session ticket keys of an edge: those of all its siblings, from the key server, or its own.

Never opens a ticket. As long as the key servers cannot be asked, sessions are resumed at this edge alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from locum.edge.key_ring import KeyServers, unknown_question
from locum.errors import ConfigurationError, LocumError, Unavailable
from locum.tls.tickets import ROOT_LENGTH, TicketKeys

#: Seconds that a key made from this edge's own root seals tickets.
EPOCH_SECONDS = 3600


class TicketKeyring:
    """A ring for `ServerConfiguration.tickets` that `refresh` keeps up to date.

    `root`, 32 bytes, is what an edge without key server shares with the processes beside it. `now` gives seconds
    since the epoch.
    """

    def __init__(self, servers: KeyServers | None, *, root: bytes = b"", now: Callable[[], float]) -> None:
        self._servers = servers
        self._now = now
        self._root, self._epoch_seconds = root or os.urandom(ROOT_LENGTH), EPOCH_SECONDS
        self.ring = TicketKeys.derived(self._root, self._epoch_seconds, now())

    def __repr__(self) -> str:
        return f"<TicketKeyring {self.ring!r}>"

    async def refresh(self) -> float:
        """Bring the ring up to date; returns after how many seconds that is due again.

        Raises: LocumError when the key servers cannot be asked; the root that there is stays in use.
        """
        lifetime = float(EPOCH_SECONDS)
        try:
            if self._servers is not None:
                answer = await self._servers.tickets()
                self._root, self._epoch_seconds = answer.root, answer.epoch_seconds
                lifetime = answer.lifetime
        except LocumError as error:
            if not unknown_question(error):
                raise
            # A key server that speaks the published protocol and no more has none.
            self._servers = None
        finally:
            self._derive()
        return max(1.0, min(lifetime, self._epoch_seconds / 2))

    def _derive(self) -> None:
        try:
            self.ring.replace(TicketKeys.derived(self._root, self._epoch_seconds, self._now()))
        except ConfigurationError as error:
            raise Unavailable(f"the key server's ticket keys cannot be used: {error}") from None
