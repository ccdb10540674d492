"""Identities: client certificates, with their private keys, that the delegate may use for terminals (A10).

Keeps PEM and never looks into it; a private key is sealed, and opens only in its own row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from locum.crypto.symmetric import AuthenticationFailed
from locum.errors import ConfigurationError
from locum.names import check_name
from locum.patterns import normalize_pattern
from locum.store import schema
from locum.store.changes import Area, terminal_id
from locum.store.policies import EVERY_TERMINAL
from locum.store.records import Identity
from locum.store.sealing import Sealer

#: Largest chain and largest private key, in PEM, in bytes.
CHAIN_LIMIT = 256 * 1024
PRIVATE_KEY_LIMIT = 64 * 1024


class Identities(Area):
    """The client certificates, each with the terminals that it may be used for."""

    def add(
        self,
        name: str,
        *,
        chain_pem: str,
        private_key_pem: bytes,
        terminals: Sequence[str],
        actor: str,
        peer: str = "*",
        replace: bool = False,
    ) -> None:
        """Add an identity for `terminals` (``*`` among them means all) towards the peers that match `peer`.

        Raises: ConfigurationError when the name is taken and not replaced, or there is no such terminal.
        """
        check_name(name, "identity's name")
        if len(chain_pem) > CHAIN_LIMIT or len(private_key_pem) > PRIVATE_KEY_LIMIT:
            raise ConfigurationError(f"{name}: the chain or the private key is too large")
        if not terminals:
            raise ConfigurationError(f"{name}: an identity is for some terminal, or for '*'")
        peer = normalize_pattern(peer)
        for_all = EVERY_TERMINAL in terminals
        table, links = schema.identities, schema.identity_terminals
        with self._changing(actor) as change:
            removed = change.connection.execute(delete(table).where(table.c.name == name)).rowcount
            if removed and not replace:
                raise ConfigurationError(
                    f"an identity is called {name!r} already; --replace puts this one in its place"
                )
            numbers = [] if for_all else [terminal_id(change.connection, terminal) for terminal in set(terminals)]
            values = {
                "name": name,
                "peer": peer,
                "chain_pem": chain_pem,
                "sealed_private_key": self._sealer.seal(private_key_pem, **_place(name)),
                "all_terminals": for_all,
                "added": change.time,
            }
            identity_id = change.connection.execute(
                insert(table).values(values).returning(table.c.id)
            ).scalar_one()
            if numbers:
                rows = [{"identity_id": identity_id, "terminal_id": number} for number in numbers]
                change.connection.execute(insert(links), rows)
            whom = EVERY_TERMINAL if for_all else ", ".join(sorted(set(terminals)))
            change.record("identity.replace" if removed else "identity.add", name, f"for {whom} towards {peer}")

    def all(self) -> list[Identity]:
        """Every identity, by name; ConfigurationError when a sealed key does not open."""
        with self._reading() as connection:
            return list(read_all(connection, self._sealer))

    def remove(self, name: str, *, actor: str) -> None:
        """Remove an identity; ConfigurationError when there is none of this name."""
        table = schema.identities
        with self._changing(actor) as change:
            if not change.connection.execute(delete(table).where(table.c.name == name)).rowcount:
                raise ConfigurationError(f"no identity is called {name!r}; see: locum identity list")
            change.record("identity.remove", name)


def read_all(connection: Connection, sealer: Sealer) -> tuple[Identity, ...]:
    """Every identity, by name; ConfigurationError when a sealed key does not open."""
    table, links = schema.identities, schema.identity_terminals
    names: dict[int, list[str]] = {}
    query = select(links.c.identity_id, schema.terminals.c.name).join_from(links, schema.terminals)
    for identity_id, terminal in connection.execute(query.order_by(schema.terminals.c.name)):
        names.setdefault(identity_id, []).append(terminal)
    return tuple(
        Identity(
            id=row.id,
            name=row.name,
            terminals=(EVERY_TERMINAL,) if row.all_terminals else tuple(names.get(row.id, ())),
            peer=row.peer,
            chain_pem=row.chain_pem,
            private_key_pem=_open(sealer, row.name, row.sealed_private_key),
            added=row.added,
        )
        for row in connection.execute(select(table).order_by(table.c.name))
    )


def _open(sealer: Sealer, name: str, sealed: bytes) -> bytes:
    try:
        return sealer.open(sealed, **_place(name))
    except AuthenticationFailed:
        raise ConfigurationError(
            f"the private key of identity {name!r} was altered in the database; add it again with --replace"
        ) from None


def _place(name: str) -> dict[str, Any]:
    return {"table": "identities", "row": name, "column": "sealed_private_key"}
