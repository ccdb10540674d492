"""Brings a database to the newest schema when it is opened, also when several processes open it at once.

Never changes a database that a newer version of locum has made.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from locum.errors import ConfigurationError
from locum.store.engine import OPENING_SECONDS
from locum.store.schema import HEAD

SCRIPTS = Path(__file__).parent / "migrations"

#: The number of PostgreSQL's advisory lock that one process holds while it migrates ("locum" in ASCII).
_LOCK = int.from_bytes(b"locum", "big")


def current_revision(connection: Connection) -> str | None:
    """The revision that the database is at, or None when it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def migrate(connection: Connection) -> None:
    """Migrate to `HEAD` inside the transaction of `connection`, which is a writing one.

    Raises ConfigurationError when the database was made by a newer version, which this one does not know.
    """
    if connection.dialect.name == "postgresql":
        # A migration may take its time, and whoever opens meanwhile waits for it.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(f"SET LOCAL lock_timeout = '{OPENING_SECONDS}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    revision = current_revision(connection)
    if revision == HEAD:
        return
    # Alembic is slow to load, and needed once in a database's life.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    # Alembic interpolates % in its options; a directory may have one in its name.
    configuration = Config(attributes={"connection": connection})
    configuration.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(configuration).walk_revisions()}
    if revision is not None and revision not in known:
        raise ConfigurationError(
            f"the database is of a newer locum (schema {revision}, known {HEAD}): update locum"
        )
    command.upgrade(configuration, "head")
