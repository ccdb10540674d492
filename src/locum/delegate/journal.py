"""What the delegate did, as audit entries: one per session, but what strangers can cause does not fill the log.

Never knows a key or a payload; names and reasons only.
"""

from __future__ import annotations

from collections.abc import Callable

from locum.delegate.sessions import Session
from locum.errors import LocumError, Refused
from locum.store.records import AuditEntry, Outcome

#: Seconds in which equal refusals of one terminal, or equal losses, become one entry with their number.
REFUSAL_WINDOW = 60.0
#: How many different ones are remembered for that.
MAXIMUM_REFUSALS = 10_000
#: Entries of one terminal in that time about sessions that strangers began, and that came to nothing.
MAXIMUM_STRANGERS = 64
#: What is said of all others.
MANY_STRANGERS = "sessions that many strangers began came to nothing"

SESSION_ACTION = "delegate.session"
REFUSAL_ACTION = "delegate.refusal"


class Journal:
    """Makes audit entries and hands them to `put`; `time` is in seconds since the epoch."""

    def __init__(self, put: Callable[[AuditEntry], None], *, time: Callable[[], float]) -> None:
        self._put = put
        self._time = time
        # what an entry says -> [when it was made, how often it would have been since then]; the oldest entry first
        self._refusals: dict[tuple[str, str, str, str], list[float]] = {}
        # terminal -> since when its entries about strangers are counted, and their number
        self._strangers: dict[str, tuple[float, int]] = {}

    def completed(self, session: Session) -> None:
        """The session handed its key over; nobody was judged where it was a further key exchange."""
        self._session(session, Outcome.OK, "further key exchange" if session.further else "key handed over")

    def rejected(self, session: Session, *, now: float) -> None:
        """The session's peer was not authentic or not allowed (A6)."""
        verdict = session.verdict
        assert verdict is not None
        judged = f"authentic={_yes(verdict.authentic)} allowed={_yes(verdict.allowed)}"
        self._unfinished(session, Outcome.REFUSED, f"{judged}: {verdict.reason}", now)

    def failed(self, session: Session, error: LocumError, *, now: float) -> None:
        """An operation of the session was refused, or could not be done."""
        outcome = Outcome.REFUSED if isinstance(error, Refused) else Outcome.FAILED
        self._unfinished(session, outcome, str(error), now)

    def abandoned(self, session: Session, why: str, *, now: float) -> None:
        """The session ended before its key was handed over."""
        self._unfinished(session, Outcome.FAILED, why, now)

    def lost(self, session: Session, why: str, *, now: float) -> None:
        """The session was never completed. Strangers begin as many as they like, where a terminal responds."""
        if session.verdict is None and session.uninvited:
            self._stranger(session, Outcome.FAILED, why, now)
            return
        detail = _with_identity(session, why)
        self._rarely(session.terminal, SESSION_ACTION, session.peer, Outcome.FAILED, detail, now)

    def stopped(self, session: Session) -> None:
        """The session was in flight when the node was stopped."""
        self._session(session, Outcome.FAILED, "the node was stopped")

    def _unfinished(self, session: Session, outcome: Outcome, why: str, now: float) -> None:
        """An entry of its own, unless anybody at all can have caused it."""
        verdict = session.verdict
        if session.uninvited and not (verdict is not None and verdict.authentic):
            self._stranger(session, outcome, why, now)
        else:
            self._session(session, outcome, why)

    def _stranger(self, session: Session, outcome: Outcome, why: str, now: float) -> None:
        """Equal entries become one, and all beyond a number: a stranger's address and name may be made up."""
        since, count = self._strangers.pop(session.terminal, (now, 0))
        if now - since >= REFUSAL_WINDOW:
            since, count = now, 0
        if count < MAXIMUM_STRANGERS:
            count += self._rarely(session.terminal, SESSION_ACTION, session.peer, outcome, why, now)
        else:
            self._rarely(session.terminal, SESSION_ACTION, "", Outcome.FAILED, MANY_STRANGERS, now)
        if len(self._strangers) >= MAXIMUM_REFUSALS:
            del self._strangers[next(iter(self._strangers))]
        self._strangers[session.terminal] = since, count

    def refused(self, terminal: str, reason: str, *, now: float) -> None:
        """A message was refused outside any session, for one of a few fixed reasons; `now` as for sessions."""
        self._rarely(terminal, REFUSAL_ACTION, "", Outcome.REFUSED, reason, now)

    def _rarely(self, terminal: str, action: str, subject: str, outcome: Outcome, reason: str, now: float) -> bool:
        """Make an entry, unless there was an equal one a short time ago; False then."""
        key = terminal, action, subject, reason
        seen = self._refusals.get(key)
        if seen is not None and now - seen[0] < REFUSAL_WINDOW:
            seen[1] += 1
            return False
        if seen is not None:
            del self._refusals[key]
        elif len(self._refusals) >= MAXIMUM_REFUSALS:
            del self._refusals[next(iter(self._refusals))]
        self._refusals[key] = [now, 0]
        suppressed = f"; {int(seen[1])} more before" if seen is not None and seen[1] else ""
        self._entry(terminal, action, subject, outcome, reason + suppressed)
        return True

    def _session(self, session: Session, outcome: Outcome, detail: str) -> None:
        self._entry(session.terminal, SESSION_ACTION, session.peer, outcome, _with_identity(session, detail))

    def _entry(self, terminal: str, action: str, subject: str, outcome: Outcome, detail: str) -> None:
        self._put(
            AuditEntry(
                time=self._time(),
                actor=f"terminal:{terminal}",
                action=action,
                subject=subject,
                outcome=outcome,
                detail=detail,
            )
        )


def _with_identity(session: Session, detail: str) -> str:
    """`detail`, and who the peer has proven to be if it has."""
    identity = session.verdict.identity if session.verdict is not None else ""
    return f"{detail} (peer {identity})" if identity else detail


def _yes(value: bool) -> str:
    return "yes" if value else "no"
