"""Migrations: from nothing to the schema of today, once, whoever opens first."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from tests.support.stores import ACTOR, NODE_KEY, Raw, enroll, finish, start_process

from locum.errors import ConfigurationError
from locum.store import NewSecret, Store, migration, schema
from locum.store.engine import connect, database_url
from locum.store.migration import SCRIPTS
from locum.store.sealing import Sealer

pytest_plugins = ["tests.support.store_fixtures"]

OPEN_AND_ENROLL = """
with Store.open(location, NODE_KEY) as store:
    print(enroll(store, arguments[0]).kid.hex())
"""


def test_the_schema_that_the_code_uses_is_the_one_that_migrations_make(store: Store, location: str) -> None:
    engine = connect(database_url(location))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()


def test_the_newest_migration_is_the_one_that_the_code_expects() -> None:
    configuration = Config()
    configuration.set_main_option("script_location", str(SCRIPTS))
    assert ScriptDirectory.from_config(configuration).get_current_head() == schema.HEAD


def test_a_database_of_the_first_version_is_migrated_with_everything_in_it(location: str, raw: Raw) -> None:
    engine = connect(database_url(location))
    with engine.connect().execution_options(locum_writing=True) as connection, connection.begin():
        configuration = Config(attributes={"connection": connection})
        configuration.set_main_option("script_location", str(SCRIPTS))
        command.upgrade(configuration, "0001")
    engine.dispose()
    sealed = Sealer(NODE_KEY).seal(b"locum node key", table="meta", row="1", column="sealed_check")
    raw("INSERT INTO meta VALUES (1, 0, 5, 2, :sealed)", sealed=sealed)
    raw("INSERT INTO terminals VALUES (1, 'meter', :kid, 0, true)", kid=b"\x00\x01")
    raw("INSERT INTO policies VALUES (1, 1, 'dns:a.example', 'allow', 0)")
    raw("INSERT INTO identities VALUES (1, 'id', '*', 'chain', :sealed, false, 0)", sealed=b"")
    raw("INSERT INTO identity_terminals VALUES (1, 1)")
    with Store.open(location, NODE_KEY) as store:
        assert store.generation() == 5
        assert [policy.peer for policy in store.policies.all()] == ["dns:a.example"]
        new = NewSecret(terminal="meter", peer="a.example", secret=b"s")
        added = store.secrets.add(new, actor=ACTOR)
        assert store.secrets.all() == [added]
        assert store.key_server_snapshot().keys == ()
    assert raw("SELECT * FROM identity_terminals") == [(1, 1)]
    assert raw("SELECT version_num FROM alembic_version") == [(schema.HEAD,)]


def test_opening_again_changes_nothing(location: str, raw: Raw) -> None:
    with Store.open(location, NODE_KEY) as store:
        channel = enroll(store)
    before = raw("SELECT * FROM meta"), raw("SELECT * FROM alembic_version")
    with Store.open(location, NODE_KEY) as store:
        assert store.terminals.find_channel(channel.kid) == channel
    assert (raw("SELECT * FROM meta"), raw("SELECT * FROM alembic_version")) == before


def test_a_database_of_a_newer_version_is_left_alone(location: str, raw: Raw) -> None:
    Store.open(location, NODE_KEY).close()
    raw("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigurationError, match="newer locum"):
        Store.open(location, NODE_KEY)
    assert raw("SELECT version_num FROM alembic_version") == [("9999",)]


def test_processes_that_open_an_empty_database_at_once_share_it(location: str) -> None:
    processes = [start_process(OPEN_AND_ENROLL, location, f"meter-{number}") for number in range(4)]
    kids = finish(processes)
    assert sorted(kids) == [f"{number:04x}\n" for number in range(1, 5)]
    with Store.open(location, NODE_KEY) as store:
        assert len(store.terminals.all()) == 4
        assert store.generation() == 5


def test_a_ready_database_is_opened_without_loading_alembic(location: str) -> None:
    Store.open(location, NODE_KEY).close()
    code = """
with Store.open(location, NODE_KEY) as store:
    assert store.generation() == 1
assert "sqlalchemy" in sys.modules and not any(name.split(".")[0] == "alembic" for name in sys.modules)
"""
    finish([start_process(code, location)])


def test_the_package_may_be_in_a_directory_with_a_percent_sign(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = shutil.copytree(SCRIPTS, tmp_path / "100%" / "migrations")
    monkeypatch.setattr(migration, "SCRIPTS", scripts)
    with Store.open(location, NODE_KEY) as store:
        assert store.generation() == 1
