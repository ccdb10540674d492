"""The policy database of A5: which peers may reach which terminals, and which may not.

Keeps the rules and never decides by them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, select

from locum.errors import ConfigurationError
from locum.patterns import normalize_pattern
from locum.store import schema
from locum.store.changes import Area, terminal_id
from locum.store.records import Action, Policy

#: Stands for every terminal.
EVERY_TERMINAL = "*"


class Policies(Area):
    """The rules; their order has no meaning."""

    def add(self, terminal: str, peer: str, action: Action, *, actor: str) -> tuple[Policy, bool]:
        """Add a rule for a terminal (``*``: all) and a peer pattern; returns it, and False when it was there.

        Raises: ConfigurationError when there is no such terminal, or `peer` is no pattern.
        """
        peer = normalize_pattern(peer)
        table = schema.policies
        with self._changing(actor) as change:
            number = None if terminal == EVERY_TERMINAL else terminal_id(change.connection, terminal)
            same = (
                table.c.terminal_id.is_not_distinct_from(number),
                table.c.peer == peer,
                table.c.action == str(action),
            )
            found = change.connection.execute(_policies().where(*same)).first()
            if found is not None:
                return _policy(found), False
            values = {"terminal_id": number, "peer": peer, "action": str(action), "added": change.time}
            policy_id: int = change.connection.execute(
                insert(table).values(values).returning(table.c.id)
            ).scalar_one()
            policy = Policy(id=policy_id, terminal=terminal, peer=peer, action=action, added=change.time)
            change.record("policy.add", terminal, _detail(policy))
        return policy, True

    def all(self) -> list[Policy]:
        """Every rule, in the order of their ids."""
        with self._reading() as connection:
            return list(read_all(connection))

    def remove(self, policy_id: int, *, actor: str) -> Policy:
        """Remove a rule and return it; ConfigurationError when there is none with this id."""
        with self._changing(actor) as change:
            found = change.connection.execute(_policies().where(schema.policies.c.id == policy_id)).one_or_none()
            if found is None:
                raise ConfigurationError(f"no policy has the id {policy_id}; see: locum policy list")
            policy = _policy(found)
            change.connection.execute(delete(schema.policies).where(schema.policies.c.id == policy_id))
            change.record("policy.remove", policy.terminal, _detail(policy))
        return policy


def read_all(connection: Connection) -> tuple[Policy, ...]:
    """Every rule, in the order of their ids."""
    return tuple(map(_policy, connection.execute(_policies().order_by(schema.policies.c.id)).all()))


def _policies() -> Select[Any]:
    table = schema.policies
    return select(
        table.c.id, table.c.peer, table.c.action, table.c.added, schema.terminals.c.name.label("terminal")
    ).join_from(table, schema.terminals, isouter=True)


def _policy(row: Row[Any]) -> Policy:
    return Policy(**{**row._mapping, "terminal": row.terminal or EVERY_TERMINAL, "action": Action(row.action)})


def _detail(policy: Policy) -> str:
    return f"{policy.action} {policy.peer} (id {policy.id})"
