"""Reading and changing: every change is audited and raises the generation, in one transaction or not at all.

Knows of the tables only `meta` and `audit`; what else is changed is the business of each area.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update

from locum.errors import ConfigurationError
from locum.store import schema
from locum.store.engine import transaction
from locum.store.records import AuditEntry, Outcome
from locum.store.sealing import Sealer
from locum.text import printable

#: Lengths, in characters, that the texts of an audit entry are cut to.
ACTOR_LIMIT, ACTION_LIMIT, SUBJECT_LIMIT, DETAIL_LIMIT = 128, 64, 260, 1024


@dataclass(slots=True)
class Change:
    """A change under way: its transaction, who makes it and when, and what it has done so far."""

    connection: Connection
    actor: str
    time: float
    done: list[AuditEntry] = field(default_factory=list)

    def record(self, action: str, subject: str, detail: str = "") -> None:
        """Note something that was done. A change that notes nothing has changed nothing."""
        self.done.append(
            AuditEntry(
                time=self.time, actor=self.actor, action=action, subject=subject, outcome=Outcome.OK, detail=detail
            )
        )


class Area:
    """One of the databases of A5; what all of them share."""

    def __init__(self, engine: Engine, sealer: Sealer, now: Callable[[], float]) -> None:
        self._engine = engine
        self._sealer = sealer
        self._now = now

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        with transaction(self._engine, writing=False) as connection:
            yield connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        with transaction(self._engine, writing=True) as connection:
            yield connection

    @contextlib.contextmanager
    def _changing(self, actor: str) -> Iterator[Change]:
        with transaction(self._engine, writing=True) as connection:
            # Changes of configuration are rare: one after the other, so that what was looked up stays true.
            connection.execute(select(schema.meta.c.id).with_for_update())
            change = Change(connection, actor, self._now())
            yield change
            if change.done:
                append(connection, change.done)
                connection.execute(update(schema.meta).values(generation=schema.meta.c.generation + 1))


def append(connection: Connection, entries: Iterable[AuditEntry]) -> None:
    """Insert audit entries, in order, with texts that are too long cut."""
    rows: list[dict[str, Any]] = [
        {
            "time": entry.time,
            "actor": storable(entry.actor, ACTOR_LIMIT),
            "action": storable(entry.action, ACTION_LIMIT),
            "subject": storable(entry.subject, SUBJECT_LIMIT),
            "outcome": str(entry.outcome),
            "detail": storable(entry.detail, DETAIL_LIMIT),
        }
        for entry in entries
    ]
    if rows:
        connection.execute(insert(schema.audit), rows)


def storable(text: str, limit: int) -> str:
    """`text` in at most `limit` characters, those that are not printable escaped: it may come from a peer."""
    shown = printable(text[:limit])
    return shown if len(shown) <= limit and len(text) <= limit else shown[: limit - 1] + "…"


def terminal_id(connection: Connection, name: str) -> int:
    """The number of the terminal `name`; ConfigurationError when it is not enrolled."""
    found: int | None = connection.execute(
        select(schema.terminals.c.id).where(schema.terminals.c.name == name)
    ).scalar()
    if found is None:
        raise ConfigurationError(f"no terminal is called {name!r}; see: locum terminals list")
    return found
