"""What was done with keys, as audit entries: equal uses of one second are one entry with their number.

Never knows what was signed or decrypted.
"""

from __future__ import annotations

from collections.abc import Callable

from locum.store.records import AuditEntry, Outcome

#: Different refusals of one edge in one second that get an entry each; the rest share one.
MAXIMUM_REFUSALS = 16
#: Strangers in one second whose connections get an entry each; the rest share one.
MAXIMUM_STRANGERS = 16

USE_ACTION = "keyserver.use"
REFUSAL_ACTION = "keyserver.refusal"
CONNECTION_ACTION = "keyserver.connection"
_REST = "other refusals"


class Use:
    """A counter: how often an edge has used a key for an operation since the last entry."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Journal:
    """Makes audit entries and hands them to `put`; `time` is in seconds since the epoch."""

    def __init__(self, put: Callable[[AuditEntry], None], *, time: Callable[[], float]) -> None:
        self._put = put
        self._time = time
        self._uses: dict[tuple[str, str, str], Use] = {}
        self._refusals: dict[str, dict[tuple[str, str, str, Outcome], int]] = {}
        self._strangers: dict[tuple[str, str], int] = {}

    def use(self, edge: str, key: str, operation: str) -> Use:
        """The counter of an edge's operations of one kind with one key; good until `forget`."""
        found = self._uses.get((edge, key, operation))
        if found is None:
            found = self._uses[edge, key, operation] = Use()
        return found

    def forget(self) -> None:
        """Write what has been counted, and count anew with other counters."""
        self.flush()
        self._uses.clear()

    def refused(self, edge: str, key: str, operation: str, reason: str, *, failed: bool = False) -> None:
        """An operation was refused, or it `failed`. The reason is one of ours and quotes nobody."""
        refusals = self._refusals.setdefault(edge, {})
        kind = key, operation, reason, Outcome.FAILED if failed else Outcome.REFUSED
        if kind not in refusals and len(refusals) >= MAXIMUM_REFUSALS:
            kind = "", "", _REST, Outcome.REFUSED
        refusals[kind] = refusals.get(kind, 0) + 1

    def turned_away(self, who: str, reason: str) -> None:
        """A connection was not accepted, or was ended, because of who is at its other end."""
        kind = who, reason
        if kind not in self._strangers and len(self._strangers) >= MAXIMUM_STRANGERS:
            kind = "", "others who may not connect"
        self._strangers[kind] = self._strangers.get(kind, 0) + 1

    def flush(self) -> None:
        """Make entries of what has been counted. To be called about once a second."""
        for (edge, key, operation), use in self._uses.items():
            if use.count:
                count, use.count = use.count, 0
                self._entry(f"edge:{edge}", USE_ACTION, key, Outcome.OK, _times(operation, count))
        for edge, refusals in self._refusals.items():
            for (key, operation, reason, outcome), count in refusals.items():
                detail = f"{operation}: {reason}" if operation else reason
                self._entry(f"edge:{edge}", REFUSAL_ACTION, key, outcome, _times(detail, count))
        self._refusals.clear()
        for (who, reason), count in self._strangers.items():
            self._entry("keyserver", CONNECTION_ACTION, who, Outcome.REFUSED, _times(reason, count))
        self._strangers.clear()

    def _entry(self, actor: str, action: str, subject: str, outcome: Outcome, detail: str) -> None:
        self._put(
            AuditEntry(
                time=self._time(), actor=actor, action=action, subject=subject, outcome=outcome, detail=detail
            )
        )


def _times(what: str, count: int) -> str:
    return what if count == 1 else f"{what} ({count} times)"
