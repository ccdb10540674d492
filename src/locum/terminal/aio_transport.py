"""The transport of a delegated session: `TlsTransport` whose key is in the terminal's cipher-key database (fig 2).

Never knows a delegate; the handshake itself is driven from outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from locum import tls_transport
from locum.terminal.cipher_keys import SessionKey
from locum.terminal.negotiation import Established, SessionKeys
from locum.tls.connection import ClientConnection
from locum.tls.session import SessionTicket


class TlsTransport(tls_transport.TlsTransport):
    """An established session as an application sees it, until its key is wiped."""

    def __init__(
        self,
        wire: tls_transport.Wire,
        established: Established,
        *,
        application: asyncio.Protocol,
        keys: SessionKeys,
        on_ticket: Callable[[SessionTicket], None] | None = None,
    ) -> None:
        key = established.key
        super().__init__(
            wire,
            key.holder,
            peer=key.peer,
            application=application,
            events=established.events,
            on_ticket=on_ticket,
        )
        self._keys = keys
        self._key: SessionKey[ClientConnection] = key

    @property
    def engine(self) -> ClientConnection:
        """The connection that seals and opens; Unavailable after its key was wiped."""
        return self._key.holder

    def gone(self) -> None:
        """The key has no use any more."""
        self._keys.remove(self._key)
