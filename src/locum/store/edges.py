"""Edges: who may use which private keys of the key server, and how far (X3).

Never sees an edge's own private key; of its client certificate it keeps the fingerprint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from locum.errors import ConfigurationError
from locum.names import check_name
from locum.store import schema
from locum.store.changes import Area, Change
from locum.store.internal import renew_ticket_root
from locum.store.records import Allow, Edge, EdgeRole

#: Stands for every key that there is and will be.
EVERY_KEY = "*"
#: Most keys that one edge is given by name.
KEYS_LIMIT = 1000
#: Highest rate that an edge can be given, in operations per second.
RATE_LIMIT = 1_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """What an edge may do, with the fields of `Edge`. Names of keys are sorted, and need not exist here.

    Raises: ConfigurationError when a name cannot be one, or the rate is none.
    """

    keys: tuple[str, ...]
    allow: Allow = Allow.BOUND
    roles: EdgeRole = EdgeRole.SERVER
    certificates: bool = False
    rate: float = 0.0

    def __post_init__(self) -> None:
        if EVERY_KEY in self.keys:
            object.__setattr__(self, "keys", (EVERY_KEY,))
        else:
            object.__setattr__(self, "keys", tuple(sorted({check_name(key, "key's name") for key in self.keys})))
        if len(self.keys) > KEYS_LIMIT:
            raise ConfigurationError(
                f"an edge is given at most {KEYS_LIMIT} keys by name; '{EVERY_KEY}' means all"
            )
        if not (math.isfinite(self.rate) and 0 <= self.rate <= RATE_LIMIT):
            raise ConfigurationError(f"a rate is 0 to {RATE_LIMIT:g} operations per second")


class Edges(Area):
    """The edges. One that is revoked stays in the list, and is refused."""

    def enroll(
        self,
        name: str,
        *,
        fingerprint: str,
        not_after: float,
        permissions: Permissions,
        actor: str,
        replace: bool = False,
        deliver: Callable[[Edge], None] | None = None,
    ) -> Edge:
        """Enroll an edge with the SHA-256 of its client certificate; under `replace` an older certificate ends.

        `deliver` is called with the result before anything is final: what it raises undoes the enrolment, so that
        nobody is enrolled whose credential nobody has.
        Raises: ConfigurationError when the name cannot be used, or is enrolled already and not replaced.
        """
        check_name(name, "edge's name")
        with self._changing(actor) as change:
            found = _find(change.connection, name)
            if found is not None and not replace:
                raise ConfigurationError(
                    f"edge {name!r} is enrolled already; "
                    "--replace gives it a new certificate, and ends the old one"
                )
            values = _columns(permissions) | {
                "name": name,
                "fingerprint": fingerprint,
                "not_after": not_after,
                "created": change.time,
                "revoked": None,
            }
            table = schema.edges
            if found is None:
                number = change.connection.execute(insert(table).values(values).returning(table.c.id)).scalar_one()
            else:
                number = found.id
                change.connection.execute(update(table).where(table.c.id == number).values(values))
                renew_ticket_root(change, self._sealer)
            edge = _set_keys(change, number, permissions)
            action = "edge.replace" if found is not None else "edge.enroll"
            change.record(action, name, f"sha256:{fingerprint}, {_described(permissions)}")
            if deliver is not None:
                deliver(edge)
        return edge

    def permit(self, name: str, permissions: Permissions, *, actor: str) -> Edge:
        """Give an edge other permissions; its certificate stays.

        When it loses a key, or may not be a server any more, the keys of session tickets get a new root.
        Raises: ConfigurationError when there is no edge of this name.
        """
        with self._changing(actor) as change:
            number = _required(change.connection, name).id
            before = next(edge for edge in read_all(change.connection) if edge.id == number)
            table = schema.edges
            change.connection.execute(update(table).where(table.c.id == number).values(_columns(permissions)))
            edge = _set_keys(change, number, permissions)
            if _loses(before, permissions):
                renew_ticket_root(change, self._sealer)
            change.record("edge.permit", name, _described(permissions))
        return edge

    def revoke(self, name: str, *, actor: str) -> bool:
        """Refuse an edge from now on; False when it was so already.

        What it knows of the keys of session tickets opens no later ones: they get a new root.
        Raises: ConfigurationError when there is no edge of this name.
        """
        with self._changing(actor) as change:
            found = _required(change.connection, name)
            changed: bool = found.revoked is None
            if changed:
                table = schema.edges
                change.connection.execute(update(table).where(table.c.id == found.id).values(revoked=change.time))
                renew_ticket_root(change, self._sealer)
                change.record("edge.revoke", name, f"sha256:{found.fingerprint}")
        return changed

    def all(self) -> list[Edge]:
        """Every edge, by name."""
        with self._reading() as connection:
            return list(read_all(connection))

    def get(self, name: str) -> Edge | None:
        """The edge called `name`, or None."""
        return next((edge for edge in self.all() if edge.name == name), None)

    def remove(self, name: str, *, actor: str) -> None:
        """Forget an edge, which is refused from then on; ConfigurationError when there is none of this name."""
        with self._changing(actor) as change:
            found = _required(change.connection, name)
            change.connection.execute(delete(schema.edges).where(schema.edges.c.id == found.id))
            if found.revoked is None:
                renew_ticket_root(change, self._sealer)
            change.record("edge.remove", name, f"sha256:{found.fingerprint}")


def read_all(connection: Connection) -> tuple[Edge, ...]:
    """Every edge, by name."""
    keys: dict[int, list[str]] = {}
    links, table = schema.edge_keys, schema.edges
    for row in connection.execute(select(links).order_by(links.c.key_name)):
        keys.setdefault(row.edge_id, []).append(row.key_name)
    rows = connection.execute(select(table).order_by(table.c.name)).all()
    return tuple(_edge(row, tuple(keys.get(row.id, ()))) for row in rows)


def _find(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(schema.edges).where(schema.edges.c.name == name)).one_or_none()


def _required(connection: Connection, name: str) -> Row[Any]:
    found = _find(connection, name)
    if found is None:
        raise ConfigurationError(f"no edge is called {name!r}; see: locum edges list")
    return found


def _loses(before: Edge, permissions: Permissions) -> bool:
    """True when the edge could serve sites whose keys, or whose handshakes, it has no permission for any more."""
    keeps_keys = EVERY_KEY in permissions.keys or set(before.keys) <= set(permissions.keys)
    return before.roles.server and not (keeps_keys and permissions.roles.server)


def _columns(permissions: Permissions) -> dict[str, Any]:
    return {
        "allow": str(permissions.allow),
        "roles": str(permissions.roles),
        "all_keys": permissions.keys == (EVERY_KEY,),
        "certificates": permissions.certificates,
        "rate": permissions.rate,
    }


def _set_keys(change: Change, number: int, permissions: Permissions) -> Edge:
    """Put the keys that are permitted in the place of those before, and return the edge as it is now."""
    links, table = schema.edge_keys, schema.edges
    change.connection.execute(delete(links).where(links.c.edge_id == number))
    rows: Sequence[dict[str, Any]] = [
        {"edge_id": number, "key_name": key} for key in permissions.keys if key != EVERY_KEY
    ]
    if rows:
        change.connection.execute(insert(links), rows)
    row = change.connection.execute(select(table).where(table.c.id == number)).one()
    return _edge(row, permissions.keys)


def _edge(row: Row[Any], keys: tuple[str, ...]) -> Edge:
    return Edge(
        id=row.id,
        name=row.name,
        fingerprint=row.fingerprint,
        not_after=row.not_after,
        allow=Allow(row.allow),
        roles=EdgeRole(row.roles),
        keys=(EVERY_KEY,) if row.all_keys else keys,
        certificates=row.certificates,
        rate=row.rate,
        created=row.created,
        revoked=row.revoked,
    )


def _described(permissions: Permissions) -> str:
    """The permissions in words, for the audit log."""
    keys = "every key" if permissions.keys == (EVERY_KEY,) else ", ".join(permissions.keys) or "no key"
    rate = f", {permissions.rate:g}/s" if permissions.rate else ""
    certificates = ", certificates" if permissions.certificates else ""
    return f"{permissions.allow} as {permissions.roles}{certificates}{rate}: {keys}"
