"""What the delegate did, as audit entries: one per session, and refusals without letting them fill the log.

Never knows a key or a payload; names and reasons only.
"""

from __future__ import annotations

from collections.abc import Callable

from locum.delegate.sessions import Session
from locum.errors import LocumError, Refused
from locum.store.records import AuditEntry, Outcome

#: Seconds in which equal refusals of one terminal become one entry with their number.
REFUSAL_WINDOW = 60.0
#: Pairs of terminal and refusal remembered for that.
MAXIMUM_REFUSALS = 10_000

SESSION_ACTION = "delegate.session"
REFUSAL_ACTION = "delegate.refusal"


class Journal:
    """Makes audit entries and hands them to `put`; `time` is in seconds since the epoch."""

    def __init__(self, put: Callable[[AuditEntry], None], *, time: Callable[[], float]) -> None:
        self._put = put
        self._time = time
        # (terminal, reason) -> [when an entry was made, refusals since then]; the oldest entry first
        self._refusals: dict[tuple[str, str], list[float]] = {}

    def completed(self, session: Session) -> None:
        """The session handed its key over."""
        self._session(session, Outcome.OK, "key handed over")

    def rejected(self, session: Session) -> None:
        """The session's peer was not authentic or not allowed (A6)."""
        verdict = session.verdict
        assert verdict is not None
        judged = f"authentic={_yes(verdict.authentic)} allowed={_yes(verdict.allowed)}"
        self._session(session, Outcome.REFUSED, f"{judged}: {verdict.reason}")

    def failed(self, session: Session, error: LocumError) -> None:
        """An operation of the session was refused, or could not be done."""
        self._session(session, Outcome.REFUSED if isinstance(error, Refused) else Outcome.FAILED, str(error))

    def abandoned(self, session: Session, why: str) -> None:
        """The session ended before its key was handed over."""
        self._session(session, Outcome.FAILED, why)

    def refused(self, terminal: str, reason: str, *, now: float) -> None:
        """A message was refused outside any session, for one of a few fixed reasons; `now` as for sessions."""
        key = terminal, reason
        seen = self._refusals.get(key)
        if seen is not None and now - seen[0] < REFUSAL_WINDOW:
            seen[1] += 1
            return
        if seen is not None:
            del self._refusals[key]
        elif len(self._refusals) >= MAXIMUM_REFUSALS:
            del self._refusals[next(iter(self._refusals))]
        self._refusals[key] = [now, 0]
        suppressed = f"; {int(seen[1])} more before" if seen is not None and seen[1] else ""
        self._entry(terminal, REFUSAL_ACTION, "", Outcome.REFUSED, reason + suppressed)

    def _session(self, session: Session, outcome: Outcome, detail: str) -> None:
        verdict = session.verdict
        identity = verdict.identity if verdict is not None else ""
        if identity:
            detail += f" (peer {identity})"
        self._entry(session.terminal, SESSION_ACTION, session.peer, outcome, detail)

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


def _yes(value: bool) -> str:
    return "yes" if value else "no"
