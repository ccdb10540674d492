"""Shared secrets: what a terminal and a peer of IKE know in common, pre-shared keys and post-quantum ones.

Keeps them sealed, each in its own row; how they are used is decided elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, select

from locum.crypto.symmetric import AuthenticationFailed
from locum.errors import ConfigurationError
from locum.patterns import normalize_identity
from locum.store import schema
from locum.store.changes import Area, terminal_id
from locum.store.records import SharedSecret, SharedSecretKind
from locum.store.sealing import Sealer

#: Stands for every peer.
EVERY_PEER = "*"
#: Longest secret in bytes. HMAC uses more than its block, at most 128 bytes, only as a hash of it.
SECRET_LIMIT = 512
#: Longest identifier of a post-quantum pre-shared key in bytes of UTF-8.
IDENTIFIER_LIMIT = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSecret:
    """A secret to be added: of `SECRET_LIMIT` bytes at most, for `terminal` and `peer`, an identity or ``*``.

    With an `identifier` it is a post-quantum pre-shared key, else one to authenticate with. Identities are
    brought to their normal form. Raises: ConfigurationError when it makes no sense.
    """

    terminal: str
    peer: str
    secret: bytes = field(repr=False)
    local_identity: str = ""
    identifier: str = ""
    required: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.secret) <= SECRET_LIMIT:
            raise ConfigurationError(f"a shared secret has 1 to {SECRET_LIMIT} bytes, not {len(self.secret)}")
        if self.identifier and self.local_identity:
            raise ConfigurationError("a post-quantum pre-shared key has no identity of the terminal")
        if self.required and not self.identifier:
            raise ConfigurationError("only a post-quantum pre-shared key can be required")
        # What is not UTF-8 is not printable either.
        if not self.identifier.isprintable() or len(self.identifier.encode()) > IDENTIFIER_LIMIT:
            raise ConfigurationError(
                f"{self.identifier[:80]!r} cannot identify a post-quantum pre-shared key: "
                f"use 1 to {IDENTIFIER_LIMIT} bytes of printable characters"
            )
        if self.peer != EVERY_PEER:
            object.__setattr__(self, "peer", normalize_identity(self.peer))
        if self.local_identity:
            normal = normalize_identity(self.local_identity)
            # It is not looked for but sent, so a distinguished name stays as it was written.
            if not normal.startswith("dn:"):
                object.__setattr__(self, "local_identity", normal)

    @property
    def kind(self) -> SharedSecretKind:
        """What it is for."""
        return SharedSecretKind.POST_QUANTUM if self.identifier else SharedSecretKind.PRE_SHARED_KEY


class SharedSecrets(Area):
    """The secrets; a terminal has one pre-shared key for a peer, and one post-quantum one of each identifier."""

    def add(self, new: NewSecret, *, actor: str, replace: bool = False) -> SharedSecret:
        """Add a secret and return it as it is kept.

        Raises: ConfigurationError when there is no such terminal, or it has one for the same that is not replaced.
        """
        table = schema.shared_secrets
        with self._changing(actor) as change:
            number = terminal_id(change.connection, new.terminal)
            removed = change.connection.execute(
                delete(table).where(
                    table.c.terminal_id == number,
                    table.c.kind == str(new.kind),
                    table.c.peer == new.peer,
                    table.c.identifier == new.identifier,
                )
            ).rowcount
            if removed and not replace:
                raise ConfigurationError(
                    f"terminal {new.terminal!r} has a {_described(new)} already; "
                    "--replace puts this one in its place"
                )
            values = {
                "kind": str(new.kind),
                "terminal_id": number,
                "peer": new.peer,
                "identifier": new.identifier,
                "local_identity": new.local_identity,
                "required": new.required,
                "sealed_secret": self._sealer.seal(new.secret, **_place(new)),
                "added": change.time,
            }
            secret_id: int = change.connection.execute(
                insert(table).values(values).returning(table.c.id)
            ).scalar_one()
            action = "secret.replace" if removed else "secret.add"
            change.record(action, new.terminal, f"{_described(new)} (id {secret_id})")
        return SharedSecret(
            id=secret_id,
            kind=new.kind,
            terminal=new.terminal,
            peer=new.peer,
            identifier=new.identifier,
            local_identity=new.local_identity,
            required=new.required,
            secret=new.secret,
            added=change.time,
        )

    def all(self) -> list[SharedSecret]:
        """Every secret, in the order of their ids; ConfigurationError when a sealed one does not open."""
        with self._reading() as connection:
            return list(read_all(connection, self._sealer))

    def remove(self, secret_id: int, *, actor: str) -> None:
        """Remove a secret; ConfigurationError when there is none with this id."""
        table = schema.shared_secrets
        with self._changing(actor) as change:
            found = change.connection.execute(_rows().where(table.c.id == secret_id)).one_or_none()
            if found is None:
                raise ConfigurationError(f"no shared secret has the id {secret_id}; see: locum secret list")
            change.connection.execute(delete(table).where(table.c.id == secret_id))
            change.record("secret.remove", found.terminal, f"{_described(found)} (id {secret_id})")


def read_all(connection: Connection, sealer: Sealer) -> tuple[SharedSecret, ...]:
    """Every secret, in the order of their ids; ConfigurationError when a sealed one does not open."""
    rows = connection.execute(_rows().order_by(schema.shared_secrets.c.id)).all()
    return tuple(_opened(row, sealer) for row in rows)


def _rows() -> Select[Any]:
    table = schema.shared_secrets
    return select(table, schema.terminals.c.name.label("terminal")).join_from(table, schema.terminals)


def _opened(row: Row[Any], sealer: Sealer) -> SharedSecret:
    try:
        secret = sealer.open(row.sealed_secret, **_place(row))
    except AuthenticationFailed:
        raise ConfigurationError(
            f"the {_described(row)} of terminal {row.terminal!r} was altered in the database: remove it with "
            f"locum secret remove {row.id}, and add it again"
        ) from None
    return SharedSecret(
        id=row.id,
        kind=SharedSecretKind(row.kind),
        terminal=row.terminal,
        peer=row.peer,
        identifier=row.identifier,
        local_identity=row.local_identity,
        required=row.required,
        secret=secret,
        added=row.added,
    )


def _described(secret: NewSecret | Row[Any]) -> str:
    """What it is, for messages and the audit log."""
    if secret.kind == SharedSecretKind.PRE_SHARED_KEY:
        return f"pre-shared key for {secret.peer}"
    return f"post-quantum pre-shared key {secret.identifier!r} for {secret.peer}"


def _place(secret: NewSecret | Row[Any]) -> dict[str, str]:
    """A secret opens only with everything that its row says of it: nobody can make it another's, or optional."""
    said = (
        str(secret.kind),
        secret.terminal,
        secret.peer,
        secret.identifier,
        secret.local_identity,
        bool(secret.required),
    )
    return {"table": "shared_secrets", "row": json.dumps(said), "column": "sealed_secret"}
