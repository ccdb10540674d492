"""What a handshake hands to its connection: the session's facts, and what is needed to go on."""

from __future__ import annotations

from dataclasses import field

from locum.tls.session import SessionInfo, SessionTicket
from locum.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationSecrets:
    """TLS 1.3 secrets that outlive the handshake (RFC 8446 section 7.1), each one hash long.

    `resumption` is empty at a server, which has sent its tickets by then.
    """

    read: bytes = field(repr=False)
    write: bytes = field(repr=False)
    resumption: bytes = field(repr=False, default=b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of a successful handshake; `secrets` is None in TLS 1.2, where keys never change."""

    session: SessionInfo
    secrets: ApplicationSecrets | None = None
    tickets: tuple[SessionTicket, ...] = ()
