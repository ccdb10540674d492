"""The sessions in flight: random tokens, each bound to one terminal, bounded in number and in time.

Never knows what the operations of a session mean, nor how its messages travel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from locum.authority.port import AuthoritySession
from locum.handshake import Verdict

#: Length of a session's token in bytes. It need not be a secret: only its terminal's messages can use it.
TOKEN_LENGTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """How long a session lives, in seconds, and how many there may be, overall and for one terminal."""

    lifetime: float = 60.0
    overall: int = 10_000
    per_terminal: int = 64

    def __post_init__(self) -> None:
        if self.lifetime <= 0 or self.overall < 1 or self.per_terminal < 1:
            raise ValueError("a lifetime above zero and room for at least one session are needed")


@dataclass(slots=True, kw_only=True)
class Session:
    """One handshake in flight, or a `further` key exchange. `authority` holds its secrets until it is closed.

    One that a stranger began is `uninvited`.
    """

    token: bytes
    terminal: str
    authority: AuthoritySession = field(repr=False)
    expires: float
    peer: str = ""
    further: bool = False
    uninvited: bool = False
    verdict: Verdict | None = None


class SessionTable:
    """Every session in flight, found only with its token *and* its terminal's name.

    A terminal that has as many as it may loses its oldest: it alone pays for handshakes that it abandoned.
    When the table is full and the terminal has none of its own to lose, it is told to come back later.
    """

    def __init__(self, limits: SessionLimits, *, random: Callable[[int], bytes]) -> None:
        self._limits = limits
        self._random = random
        # All lifetimes are equal, so the order of insertion is the order of expiry.
        self._sessions: dict[bytes, Session] = {}
        self._by_terminal: dict[str, dict[bytes, Session]] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._sessions.values()))

    def count(self, terminal: str) -> int:
        """Number of sessions of one terminal."""
        return len(self._by_terminal.get(terminal, ()))

    def room_for(self, terminal: str) -> tuple[bool, Session | None]:
        """Whether a session may be opened, and which one has to be ended before that."""
        own = self._by_terminal.get(terminal)
        if own and (len(own) >= self._limits.per_terminal or len(self._sessions) >= self._limits.overall):
            return True, next(iter(own.values()))
        return len(self._sessions) < self._limits.overall, None

    def open(self, terminal: str, authority: AuthoritySession, *, now: float) -> Session:
        """Add a session with a new token. The caller has made room, see `room_for`."""
        token = self._random(TOKEN_LENGTH)
        while token in self._sessions:
            token = self._random(TOKEN_LENGTH)
        session = Session(token=token, terminal=terminal, authority=authority, expires=now + self._limits.lifetime)
        self._sessions[token] = session
        self._by_terminal.setdefault(terminal, {})[token] = session
        return session

    def find(self, token: bytes, terminal: str, *, now: float) -> Session | None:
        """The session, or None: unknown, another terminal's and expired are not told apart."""
        session = self._sessions.get(token)
        if session is None or session.terminal != terminal or session.expires <= now:
            return None
        return session

    def end(self, session: Session) -> None:
        """Wipe the session's secrets and forget it; harmless when it has ended already."""
        session.authority.close()
        if self._sessions.pop(session.token, None) is None:
            return
        own = self._by_terminal[session.terminal]
        del own[session.token]
        if not own:
            del self._by_terminal[session.terminal]

    def expired(self, *, now: float) -> list[Session]:
        """The sessions whose time is up, oldest first."""
        due: list[Session] = []
        for session in self._sessions.values():
            if session.expires > now:
                break
            due.append(session)
        return due
