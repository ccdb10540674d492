"""The store: one opened database with its areas, its generation, and the node key that seals its secrets.

Never does anything by itself: no thread, no clock of its own, nothing kept that another process could change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from os import environ
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.engine import URL

from locum.crypto.symmetric import AuthenticationFailed
from locum.errors import ConfigurationError, Unavailable
from locum.store import certificates, edges, identities, internal, keys, policies, schema, secrets, trust
from locum.store.audit import AuditLog
from locum.store.certificates import ServedCertificates
from locum.store.edges import Edges
from locum.store.engine import (
    connect,
    database_url,
    make_private,
    opening_lock,
    shown,
    transaction,
    use_write_ahead_log,
)
from locum.store.identities import Identities
from locum.store.internal import Internal
from locum.store.keys import PrivateKeys
from locum.store.migration import current_revision, migrate
from locum.store.policies import Policies
from locum.store.records import AuditEntry, KeyServerSnapshot, Snapshot
from locum.store.sealing import NODE_KEY_FILE, NodeKey, Sealer, load_node_key
from locum.store.secrets import SharedSecrets
from locum.store.terminals import Terminals
from locum.store.trust import AuthenticationKeys

#: What is sealed in `meta` to notice a wrong node key.
_CHECK = b"locum node key"
_CHECK_PLACE = {"table": "meta", "row": str(schema.META_ID), "column": "sealed_check"}


class Store:
    """The databases of A5, opened. A context manager; safe for several threads and several processes.

    Every method raises `Unavailable` when the database cannot do its work now (disk full, locked, connection
    lost) and `ConfigurationError` when somebody must change something first (read-only, damaged); after either
    nothing was changed.
    """

    def __init__(self, engine: Engine, sealer: Sealer, now: Callable[[], float]) -> None:
        self._engine = engine
        self._sealer = sealer
        self.terminals = Terminals(engine, sealer, now)
        self.trust = AuthenticationKeys(engine, sealer, now)
        self.policies = Policies(engine, sealer, now)
        self.identities = Identities(engine, sealer, now)
        self.secrets = SharedSecrets(engine, sealer, now)
        self.keys = PrivateKeys(engine, sealer, now)
        self.certificates = ServedCertificates(engine, sealer, now)
        self.edges = Edges(engine, sealer, now)
        self.internal = Internal(engine, sealer, now)
        self.audit = AuditLog(engine, sealer, now)

    @classmethod
    def open(cls, location: str | Path, node_key: NodeKey, *, now: Callable[[], float] = time.time) -> Self:
        """Open a database, made and migrated as needed: a directory (SQLite in it) or a SQLite or PostgreSQL URL.

        Raises: ConfigurationError when the node key is not the one that the database was sealed with, or the
        database was made by a newer version; and what every method raises.
        """
        url = database_url(location)
        engine = connect(url)
        sealer = Sealer(node_key)
        try:
            with opening_lock(Path(url.database or ".").parent) if url.drivername == "sqlite" else nullcontext():
                _prepare(engine, sealer, now)
            _check_node_key(engine, sealer, node_key)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, sealer, now)

    def close(self) -> None:
        """Close every connection. Closing twice is harmless."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def generation(self) -> int:
        """A number that every change of configuration raises, whichever process makes it. Cheap: ask often."""
        with transaction(self._engine, writing=False) as connection:
            return _generation(connection)

    def snapshot(self) -> Snapshot:
        """Everything that a delegate decides by, as of one moment."""
        with transaction(self._engine, writing=False) as connection:
            return Snapshot(
                generation=_generation(connection),
                authentication_keys=trust.read_all(connection),
                policies=policies.read_all(connection),
                identities=identities.read_all(connection, self._sealer),
                shared_secrets=secrets.read_all(connection, self._sealer),
            )

    def key_server_snapshot(self) -> KeyServerSnapshot:
        """Everything that a key server decides by and works with, as of one moment."""
        with transaction(self._engine, writing=False) as connection:
            ca_certificate, ticket_root = internal.read_all(connection, self._sealer)
            return KeyServerSnapshot(
                generation=_generation(connection),
                keys=keys.read_all(connection, self._sealer),
                certificates=certificates.read_all(connection),
                edges=edges.read_all(connection),
                ca_certificate=ca_certificate,
                ticket_root=ticket_root,
            )

    def audit_many(self, entries: Iterable[AuditEntry]) -> None:
        """As `AuditLog.append`: for one who writes many entries at once."""
        self.audit.append(entries)


def open_node_store(
    data_dir: Path, database: str | None = None, *, create: bool = True, environment: Mapping[str, str] = environ
) -> Store:
    """Open a node's store: `database`, or SQLite in `data_dir`, sealed under the node key that is found there.

    With `create` the directory (0700) and the node key (0600) are made when they are missing, but never a new
    node key for a database that has been sealed with another. Raises: as `Store.open` and `load_node_key`.
    """
    if create:
        make_data_directory(data_dir)
    elif not data_dir.is_dir():
        raise ConfigurationError(
            f"{data_dir}: no such directory; fix: locum up --data {data_dir}, or another --data"
        )
    location: str | Path = database or data_dir
    with opening_lock(data_dir):
        node_key = load_node_key(data_dir, create=False, environment=environment)
        if node_key is None and _is_sealed(database_url(location)):
            raise ConfigurationError(
                f"{data_dir / NODE_KEY_FILE} is missing, and the database was sealed with it: put it back, "
                "or name it with $LOCUM_NODE_KEY_FILE"
            )
        node_key = node_key or load_node_key(data_dir, create=True, environment=environment)
    if node_key is None:
        raise Unavailable(f"{data_dir / NODE_KEY_FILE}: the node key went away while it was read")
    return Store.open(location, node_key)


def make_data_directory(data_dir: Path) -> None:
    """Make a node's data directory (0700) unless it is there. Raises: ConfigurationError."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{data_dir}: the data directory cannot be made: {error.strerror}") from None


def _is_sealed(url: URL) -> bool:
    """True when the database is there and has been opened under some node key before."""
    if url.drivername == "sqlite" and not Path(url.database or "").exists():
        return False
    engine = connect(url)
    try:
        with transaction(engine, writing=False) as connection:
            return current_revision(connection) is not None
    finally:
        engine.dispose()


def _prepare(engine: Engine, sealer: Sealer, now: Callable[[], float]) -> None:
    """Make or migrate the tables where that is needed; a database that is ready is only read."""
    if engine.dialect.name == "sqlite":
        make_private(engine.url)
        use_write_ahead_log(engine)
    with transaction(engine, writing=False) as connection:
        if current_revision(connection) == schema.HEAD:
            return
    with transaction(engine, writing=True) as connection:
        migrate(connection)
        if connection.execute(select(schema.meta.c.id)).first() is None:
            values = {
                "id": schema.META_ID,
                "created": now(),
                "generation": 1,
                "next_kid": 1,
                "sealed_check": sealer.seal(_CHECK, **_CHECK_PLACE),
            }
            connection.execute(insert(schema.meta).values(values))


def _check_node_key(engine: Engine, sealer: Sealer, node_key: NodeKey) -> None:
    with transaction(engine, writing=False) as connection:
        sealed = connection.execute(select(schema.meta.c.sealed_check)).scalar_one()
    try:
        sealer.open(sealed, **_CHECK_PLACE)
    except AuthenticationFailed:
        raise ConfigurationError(
            f"wrong node key: {node_key.origin} is not the key that database {shown(engine.url)} was sealed with"
        ) from None


def _generation(connection: Connection) -> int:
    generation: int = connection.execute(select(schema.meta.c.generation)).scalar_one()
    return generation
