"""The authentication-key database of A5: trust anchors, pinned keys and CRLs, by which peers are verified.

Keeps DER and never looks into it; whether a certificate is good is decided elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from locum.errors import ConfigurationError
from locum.names import check_name
from locum.patterns import normalize_pattern
from locum.store import schema
from locum.store.changes import Area, Change, storable
from locum.store.records import AuthenticationKey, AuthenticationKeyKind

#: Largest certificate or public key in bytes.
KEY_LIMIT = 64 * 1024
#: Largest CRL in bytes.
CRL_LIMIT = 16 * 1024 * 1024
#: Longest name of a trust anchor or CRL, which is its subject or issuer; a longer one is cut.
NAME_LIMIT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key to add. `peer` is the pattern of the peers that a pinned key stands for, empty for the other kinds.

    `replaces` are the ids of rows that go in the same step, such as an older CRL of the same issuer.
    Raises: ConfigurationError when it is too large, or a pinned key has no usable name or peer.
    """

    kind: AuthenticationKeyKind
    name: str
    der: bytes
    peer: str = ""
    replaces: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        limit = CRL_LIMIT if self.kind is AuthenticationKeyKind.CRL else KEY_LIMIT
        if not 0 < len(self.der) <= limit:
            raise ConfigurationError(f"{self.name}: {len(self.der)} bytes, outside 1..{limit}")
        if self.kind is AuthenticationKeyKind.PIN:
            check_name(self.name, "pinned key's name")
            if not self.peer or self.peer.startswith("pin:"):
                raise ConfigurationError("a pinned key stands for a peer: dns:NAME, ip:ADDRESS or '*'")
            object.__setattr__(self, "peer", normalize_pattern(self.peer))
        elif self.peer:
            raise ConfigurationError("only a pinned key stands for a peer")


class AuthenticationKeys(Area):
    """What verifies peers."""

    def add(self, keys: Sequence[NewKey], *, actor: str) -> list[tuple[AuthenticationKey, bool]]:
        """Add keys, all or none; returns each as it is kept, and False with those that were there already.

        Raises: ConfigurationError when a name belongs to another pinned key.
        """
        with self._changing(actor) as change:
            return [_add(change, key) for key in keys]

    def all(self) -> list[AuthenticationKey]:
        """Every key, in the order of their ids."""
        with self._reading() as connection:
            return list(read_all(connection))

    def remove(self, ids: Sequence[int], *, actor: str) -> list[AuthenticationKey]:
        """Remove the rows with these ids, and return those that were there."""
        with self._changing(actor) as change:
            return _remove(change, ids)


def read_all(connection: Connection) -> tuple[AuthenticationKey, ...]:
    """Every key, in the order of their ids."""
    table = schema.authentication_keys
    return tuple(map(_key, connection.execute(select(table).order_by(table.c.id)).all()))


def _key(row: Row[Any]) -> AuthenticationKey:
    return AuthenticationKey(**{**row._mapping, "kind": AuthenticationKeyKind(row.kind)})


def _add(change: Change, key: NewKey) -> tuple[AuthenticationKey, bool]:
    table = schema.authentication_keys
    fingerprint = hashlib.sha256(key.der).hexdigest()
    same = (table.c.kind == str(key.kind), table.c.fingerprint == fingerprint, table.c.peer == key.peer)
    found = change.connection.execute(select(table).where(*same)).one_or_none()
    if found is not None:
        return _key(found), False
    if key.kind is AuthenticationKeyKind.PIN:
        _check_pin_name_free(change.connection, key.name)
    _remove(change, key.replaces, why=" (replaced)")
    values = {
        "kind": str(key.kind),
        "name": storable(key.name, NAME_LIMIT),
        "peer": key.peer,
        "der": key.der,
        "fingerprint": fingerprint,
        "added": change.time,
    }
    added = _key(change.connection.execute(insert(table).values(values).returning(table)).one())
    change.record("trust.add", added.name, _detail(added) + (f" for {added.peer}" if added.peer else ""))
    return added, True


def _remove(change: Change, ids: Sequence[int], *, why: str = "") -> list[AuthenticationKey]:
    if not ids:
        return []
    table = schema.authentication_keys
    rows = change.connection.execute(delete(table).where(table.c.id.in_(ids)).returning(table)).all()
    removed = sorted(map(_key, rows), key=lambda key: key.id)
    for key in removed:
        change.record("trust.remove", key.name, _detail(key) + why)
    return removed


def _detail(key: AuthenticationKey) -> str:
    return f"{key.kind} sha256:{key.fingerprint}"


def _check_pin_name_free(connection: Connection, name: str) -> None:
    table = schema.authentication_keys
    if connection.execute(select(table.c.id).where(table.c.kind == "pin", table.c.name == name)).first():
        raise ConfigurationError(f"a pinned key is called {name!r} already; choose another with --name")
