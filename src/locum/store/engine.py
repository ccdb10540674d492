"""The connection to SQLite or PostgreSQL: its settings, its transactions, its errors in one clear line.

Knows how a database behaves, never what is in its tables.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from locum.errors import ConfigurationError, LocumError, Unavailable

#: The SQLite database in a data directory.
DATABASE_FILE = "locum.db"
#: Seconds that a writer waits for another one.
BUSY_SECONDS = 5
#: Seconds to reach PostgreSQL.
CONNECT_SECONDS = 5
#: Longest statement on PostgreSQL in milliseconds: a lost server must not hold a caller for ever.
STATEMENT_MILLISECONDS = 15_000
#: Seconds that one process waits for another that is opening, and perhaps migrating, the same database.
OPENING_SECONDS = 60

_POSTGRESQL = "postgresql+psycopg"


def database_url(location: str | Path) -> URL:
    """The URL of a database: `location` is a data directory (SQLite in it) or a URL.

    Raises ConfigurationError for a URL that is neither SQLite nor PostgreSQL; its password is never shown.
    """
    if isinstance(location, Path) or "://" not in location:
        return URL.create("sqlite", database=str(Path(location) / DATABASE_FILE))
    try:
        if not location.isprintable():
            raise ValueError("a URL has no control characters")
        url = make_url(location)
    except (ArgumentError, ValueError, TypeError):
        raise ConfigurationError("the database URL cannot be read; see postgresql://USER@HOST/NAME") from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername=_POSTGRESQL)
    if url.drivername == _POSTGRESQL or (url.drivername == "sqlite" and url.database):
        return url
    raise ConfigurationError(f"database {shown(url)}: only sqlite:///FILE and postgresql://... can be used")


def shown(url: URL) -> str:
    """The URL for a message; a SQLite database is shown as its file.

    Without its password, and without what follows the question mark, where there may be another.
    """
    if url.drivername == "sqlite":
        return str(url.database)
    return url.set(query={}).render_as_string(hide_password=True)


def connect(url: URL) -> Engine:
    """Make an engine with the settings that a store needs; connects later."""
    if url.drivername == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    options = {
        "connect_timeout": CONNECT_SECONDS,
        "options": f"-c statement_timeout={STATEMENT_MILLISECONDS} -c lock_timeout={BUSY_SECONDS * 1000}",
        "tcp_user_timeout": STATEMENT_MILLISECONDS,
    }
    return create_engine(url, connect_args=options, pool_pre_ping=True)


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver's own idea of transactions leaves DDL outside of them; ours begin and end where we say.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    # Sender sequence numbers that were handed out must stay so after a power failure, or a nonce is used twice.
    connection.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(connection: Connection) -> None:
    # A reader that turns writer in mid-transaction cannot wait its turn, so writers say so at the start.
    writing = connection.get_execution_options().get("locum_writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


@contextlib.contextmanager
def transaction(engine: Engine, *, writing: bool) -> Iterator[Connection]:
    """One transaction: all of it or nothing. Database errors leave as `LocumError`, one line each."""
    with translated(engine.url), engine.connect() as connection:
        options: dict[str, Any] = {"locum_writing": writing}
        if not writing and connection.dialect.name == "postgresql":
            # Several queries of one reader see one moment; SQLite's WAL gives that by itself.
            options["isolation_level"] = "REPEATABLE READ"
        connection = connection.execution_options(**options)
        with connection.begin():
            yield connection


def make_private(url: URL) -> None:
    """Make an empty SQLite file of mode 0600 if there is none; what SQLite puts beside it gets the same mode."""
    path = Path(str(url.database))
    if not path.exists():
        try:
            path.touch(mode=0o600)
        except OSError as error:
            raise ConfigurationError(f"database {path}: {error.strerror}") from None


def use_write_ahead_log(engine: Engine) -> None:
    """Put a SQLite database into WAL mode, once for all: readers and a writer then do not wait for each other."""
    with translated(engine.url), contextlib.closing(engine.raw_connection()) as connection:
        if connection.driver_connection is None:
            raise Unavailable(f"database {shown(engine.url)}: no connection")
        mode = connection.driver_connection.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            connection.driver_connection.execute("PRAGMA journal_mode = WAL").fetchone()


@contextlib.contextmanager
def opening_lock(directory: Path) -> Iterator[None]:
    """Hold the right to set up the data directory; another process that opens it waits, at most a minute."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigurationError(f"{directory}: {error.strerror}") from None
    deadline = time.monotonic() + OPENING_SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unavailable(f"{directory}: another process has been opening it for too long") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def translated(url: URL) -> Iterator[None]:
    """Turn the errors of SQLAlchemy and its drivers into `LocumError` with one line that says what to do."""
    try:
        yield
    except LocumError:
        raise
    except DBAPIError as error:
        raise _translate(url, error.orig, lost=error.connection_invalidated) from None
    except sqlite3.Error as error:
        raise _translate(url, error, lost=False) from None
    except PoolTimeoutError:
        raise Unavailable(f"database {shown(url)}: too many operations at once") from None
    except SQLAlchemyError as error:
        raise Unavailable(f"database {shown(url)}: {type(error).__name__}") from None


#: SQLite's primary result codes (https://sqlite.org/rescode.html): whose fault, and what to do.
_SQLITE_ERRORS: dict[int, tuple[type[LocumError], str]] = {
    sqlite3.SQLITE_FULL: (Unavailable, "the disk is full; nothing was changed"),
    sqlite3.SQLITE_IOERR: (Unavailable, "the disk cannot be read or written; nothing was changed"),
    sqlite3.SQLITE_BUSY: (Unavailable, f"locked by another process for more than {BUSY_SECONDS} s; try again"),
    sqlite3.SQLITE_LOCKED: (Unavailable, "locked by another connection; try again"),
    sqlite3.SQLITE_READONLY: (ConfigurationError, "read-only; fix: let the user of locum write to its directory"),
    sqlite3.SQLITE_PERM: (ConfigurationError, "access denied; fix: let the user of locum write to its directory"),
    sqlite3.SQLITE_CANTOPEN: (
        ConfigurationError,
        "cannot be opened; does its directory exist, and may we write there?",
    ),
    sqlite3.SQLITE_CORRUPT: (ConfigurationError, "damaged; restore it from a backup"),
    sqlite3.SQLITE_NOTADB: (ConfigurationError, "not a database; restore it from a backup"),
}

#: PostgreSQL's SQLSTATEs, the longest prefix first (PostgreSQL manual, appendix A).
_POSTGRESQL_ERRORS: tuple[tuple[str, type[LocumError], str], ...] = (
    ("25006", ConfigurationError, "read-only: a standby, or a role that may not write"),
    ("3D000", ConfigurationError, "no such database; fix: createdb"),
    ("42501", ConfigurationError, "the role may not do this; it needs all rights on its database"),
    ("53100", Unavailable, "the server's disk is full; nothing was changed"),
    ("55P03", Unavailable, f"locked by another node for more than {BUSY_SECONDS} s; try again"),
    ("57014", Unavailable, f"no answer within {STATEMENT_MILLISECONDS // 1000} s; nothing was changed"),
    ("08", Unavailable, "the connection was lost"),
    ("28", ConfigurationError, "login refused; check user and password"),
    ("40", Unavailable, "two changes collided; try again"),
    ("53", Unavailable, "the server is out of resources"),
    ("57", Unavailable, "the server is shutting down or starting"),
    ("58", Unavailable, "the server cannot read or write its disk"),
    ("XX", ConfigurationError, "damaged; restore it from a backup"),
)


def _translate(url: URL, error: Any, *, lost: bool) -> LocumError:
    where = f"database {shown(url)}"
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        kind, text = _SQLITE_ERRORS.get((code or 0) & 0xFF, (Unavailable, f"{type(error).__name__}: {error}"))
        return kind(f"{where}: {text}")
    state = getattr(error, "sqlstate", None) or ""
    for prefix, kind, text in _POSTGRESQL_ERRORS:
        if state.startswith(prefix):
            return kind(f"{where}: {text}")
    if lost or not state:
        # While connecting there is no SQLSTATE; what the server itself says begins with FATAL.
        _, fatal, reason = str(error).partition("FATAL:")
        said = f": {' '.join(reason.split())}" if fatal else ""
        return Unavailable(f"{where}: the server cannot be reached, or the connection was lost{said}")
    return Unavailable(f"{where}: PostgreSQL error {state}")
