"""The private keys of the key server (C): sealed here, or staying in a PKCS #11 token (X6).

Keeps DER and never looks into a private key; who may use it is in `store.edges`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from locum.crypto.asymmetric.key_names import names_of
from locum.crypto.symmetric import AuthenticationFailed
from locum.errors import ConfigurationError
from locum.names import check_name
from locum.store import schema
from locum.store.changes import Area, Change
from locum.store.records import StoredKey
from locum.store.sealing import Sealer

#: Largest private key and largest public key in DER, in bytes. RSA of 8192 bits needs 4.7 KiB.
PRIVATE_KEY_LIMIT = 64 * 1024
PUBLIC_KEY_LIMIT = 8 * 1024
#: Longest URI of a key in a token, in characters.
TOKEN_LIMIT = 2048


class PrivateKeys(Area):
    """The keys, each under a name of its own and only once."""

    def add(
        self,
        name: str,
        *,
        public_key: bytes,
        private_key: bytes | None = None,
        token: str = "",
        actor: str,
    ) -> StoredKey:
        """Add a key: `private_key` as PKCS #8 in DER without a passphrase, or the `token` URI where it stays.

        `public_key` is its SubjectPublicKeyInfo in DER.
        Raises: ConfigurationError when the name or the key is there already, or it cannot be used.
        """
        check_name(name, "key's name")
        if (private_key is None) == (token == ""):
            raise ValueError("a key is either here or in a token")
        if len(private_key or b"") > PRIVATE_KEY_LIMIT or len(public_key) > PUBLIC_KEY_LIMIT:
            raise ConfigurationError(f"{name}: the key is too large")
        if len(token) > TOKEN_LIMIT or not token.isprintable():
            raise ConfigurationError(f"{name}: a token's URI has at most {TOKEN_LIMIT} printable characters")
        names = names_of(public_key)
        table = schema.private_keys
        with self._changing(actor) as change:
            _check_new(change.connection, name, names.ski)
            secret = token.encode() if private_key is None else private_key
            values = {
                "name": name,
                "kind": names.kind,
                "public_key": public_key,
                "ski": names.ski,
                "digest": names.digest,
                "sealed_private_key": self._sealer.seal(secret, **_place(name, names.ski, token)),
                "token": token,
                "added": change.time,
            }
            added = change.connection.execute(insert(table).values(values).returning(table)).one()
            where = " in a token" if token else ""
            change.record("key.add", name, f"{names.kind} ski:{names.ski.hex()}{where}")
        return _opened(added, self._sealer)

    def all(self) -> list[StoredKey]:
        """Every key, by name; ConfigurationError when a sealed one does not open."""
        with self._reading() as connection:
            return list(read_all(connection, self._sealer))

    def remove(self, name: str, *, actor: str) -> tuple[str, ...]:
        """Remove a key, and every edge's permission to use it; returns the names of those edges.

        Raises: ConfigurationError when there is no key of this name.
        """
        table = schema.private_keys
        with self._changing(actor) as change:
            found = change.connection.execute(delete(table).where(table.c.name == name).returning(table.c.ski))
            ski: bytes | None = found.scalar()
            if ski is None:
                raise ConfigurationError(f"no key is called {name!r}; see: locum key list")
            edges = _withdraw(change, name)
            change.record("key.remove", name, f"ski:{ski.hex()}" + (f", of {', '.join(edges)}" if edges else ""))
        return edges


def read_all(connection: Connection, sealer: Sealer) -> tuple[StoredKey, ...]:
    """Every key, by name; ConfigurationError when a sealed one does not open."""
    table = schema.private_keys
    rows = connection.execute(select(table).order_by(table.c.name)).all()
    return tuple(_opened(row, sealer) for row in rows)


def _check_new(connection: Connection, name: str, ski: bytes) -> None:
    table = schema.private_keys
    query = select(table.c.name).where((table.c.name == name) | (table.c.ski == ski))
    taken = set(connection.execute(query).scalars())
    if name in taken:
        raise ConfigurationError(f"a key is called {name!r} already; choose another with --name")
    if taken:
        raise ConfigurationError(f"the key is there already, as {min(taken)!r}")


def _withdraw(change: Change, name: str) -> tuple[str, ...]:
    """Take the key from every edge that has it by its name: a later key of that name is another one."""
    edges, links = schema.edges, schema.edge_keys
    query = select(edges.c.name).join_from(edges, links).where(links.c.key_name == name).order_by(edges.c.name)
    names = tuple(change.connection.execute(query).scalars())
    change.connection.execute(delete(links).where(links.c.key_name == name))
    return names


def _opened(row: Row[Any], sealer: Sealer) -> StoredKey:
    try:
        secret = sealer.open(row.sealed_private_key, **_place(row.name, row.ski, row.token))
        if row.token and secret != row.token.encode():
            raise AuthenticationFailed("another token")
    except AuthenticationFailed:
        raise ConfigurationError(
            f"the private key {row.name!r} was altered in the database: remove it with "
            f"locum key remove {row.name}, and import it again"
        ) from None
    return StoredKey(
        id=row.id,
        name=row.name,
        kind=row.kind,
        public_key=row.public_key,
        ski=row.ski,
        digest=row.digest,
        private_key=None if row.token else secret,
        token=row.token,
        added=row.added,
    )


def _place(name: str, ski: bytes, token: str) -> dict[str, str]:
    # Of a key in a token the URI is sealed, which names a library to be loaded: nobody else is to say which.
    column = "token" if token else "sealed_private_key"
    return {"table": "private_keys", "row": f"{name}/{ski.hex()}", "column": column}
