"""`LocalAuthority`: performs the four operations itself. A delegate is this behind a network (A1, A2, A10).

Never knows how requests arrive, nor what a protocol asks: its sessions do, and the first request says which.
"""

from __future__ import annotations

from collections.abc import Sequence

from locum.authority.ike1_session import Ike1Session
from locum.authority.ike2_session import Ike2Session
from locum.authority.ike_further_session import FurtherSession
from locum.authority.ike_negotiation import IkeOptions
from locum.authority.ike_session import IkeSession
from locum.authority.selection import LocalOptions
from locum.authority.session import Databases, Session
from locum.authority.tls_session import TlsSession
from locum.handshake import Request, Response
from locum.ike.operations import Exchange, IkeStartRequest

__all__ = ["IkeOptions", "LocalAuthority", "LocalOptions", "LocalSession"]


_IKE_SESSIONS: dict[Exchange, type[IkeSession]] = {
    Exchange.IKE_2: Ike2Session,
    Exchange.MAIN: Ike1Session,
    Exchange.AGGRESSIVE: Ike1Session,
    Exchange.FURTHER: FurtherSession,
}


class LocalAuthority(Databases):
    """An authority that holds the databases of A5 and does the public-key work in this process.

    `now` gives seconds since the epoch; `random` gives that many bytes from a cryptographic source. `refresh` is
    called before anybody is turned away, and brings the databases up to date: true when they were not.
    `options` are what it lets TLS negotiate, `ike_options` what IKE. Not to be used from several threads at once.
    Raises: ConfigurationError when trust material, a rule, an identity or a secret is not what it should be.
    """

    def open(self, terminal: str) -> LocalSession:
        """Begin the session of one handshake for the terminal of this name, which has been authenticated."""
        return LocalSession(self, terminal)


class LocalSession:
    """One handshake of whichever protocol its first request is of. A failed operation ends it."""

    __slots__ = ("_authority", "_closed", "_session", "_terminal")

    def __init__(self, authority: LocalAuthority, terminal: str) -> None:
        self._authority = authority
        self._terminal = terminal
        self._session: Session | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<LocalSession of {self._terminal!r}{', over' if self._over else ''}>"

    @property
    def _over(self) -> bool:
        return self._closed or (self._session is not None and self._session.over)

    def perform(self, requests: Sequence[Request]) -> tuple[Response, ...]:
        """As `AuthoritySession.perform`.

        Raises: Refused for an operation out of turn or a peer that policy denies from the start; Misbehaved,
        Incompatible or DecodeError when the peer's key exchange is at fault; and what a `PrivateKey` raises.
        """
        if not requests:
            return ()
        if self._session is None:
            self._session = self._begin(requests)
        return self._session.perform(requests)

    def _begin(self, requests: Sequence[Request]) -> Session:
        session: Session
        if isinstance(requests[0], IkeStartRequest):
            session = _IKE_SESSIONS[requests[0].exchange](self._authority, self._terminal)
        else:
            session = TlsSession(self._authority, self._terminal)
        if self._closed:
            session.close()
        return session

    def close(self) -> None:
        """Forget everything; harmless when done before."""
        self._closed = True
        if self._session is not None:
            self._session.close()
