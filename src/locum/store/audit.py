"""The audit log: every key use, refusal and change of policy, append-only.

Never changes or deletes an entry; the database itself refuses to.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select

from locum.store import schema
from locum.store.changes import Area, append
from locum.store.records import AuditEntry, Outcome

#: Most entries that are read at once.
READ_LIMIT = 100_000


class AuditLog(Area):
    """What happened, in the order in which it was written."""

    def append(self, entries: Iterable[AuditEntry]) -> None:
        """Write entries durably, in order: all of them or, when this raises, none."""
        with self._writing() as connection:
            append(connection, entries)

    def newest(self, limit: int) -> list[AuditEntry]:
        """The newest `limit` entries (1..100,000), the oldest of them first."""
        if not 1 <= limit <= READ_LIMIT:
            raise ValueError(f"{limit} entries cannot be read at once")
        table = schema.audit
        columns = (table.c.time, table.c.actor, table.c.action, table.c.subject, table.c.outcome, table.c.detail)
        with self._reading() as connection:
            rows = connection.execute(select(*columns).order_by(table.c.id.desc()).limit(limit)).all()
        return [AuditEntry(**{**row._mapping, "outcome": Outcome(row.outcome)}) for row in reversed(rows)]
