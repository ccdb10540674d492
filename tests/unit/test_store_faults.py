"""When the database cannot: full, read-only, locked, damaged, gone. One clear line, and nothing half done."""

from __future__ import annotations

import contextlib
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.support.disks import small_disk
from tests.support.stores import ACTOR, NODE_KEY, enroll, finish, start_process

from locum.errors import ConfigurationError, LocumError, Unavailable
from locum.store import Action, AuditEntry, Outcome, Store, engine, open_node_store

if TYPE_CHECKING:
    from tests.support.postgres import Cluster

pytest_plugins = ["tests.support.store_fixtures"]

MEGABYTE = 1 << 20
MANY = [
    AuditEntry(time=0.0, actor="a", action="b", subject="c", outcome=Outcome.OK, detail="x" * 1000)
    for _ in range(500)
]


def write_until_refused(store: Store) -> LocumError:
    """Write audit entries until the database refuses, and return how it did."""
    for _ in range(1000):
        try:
            store.audit_many(MANY)
        except LocumError as error:
            return error
    raise AssertionError("the disk is larger than the test expects")


def assert_one_line(error: BaseException) -> None:
    assert "\n" not in str(error)
    assert str(error).startswith("database ")


# --- SQLite -----------------------------------------------------------------------------------------------


def test_a_full_disk_is_said_changes_nothing_and_passes(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2 * MEGABYTE) as disk, Store.open(disk.path, NODE_KEY) as store:
        channel = enroll(store)
        disk.fill()
        error = write_until_refused(store)
        assert isinstance(error, Unavailable)
        assert_one_line(error)
        assert "disk is full" in str(error)
        before = store.snapshot(), store.terminals.all(), len(store.audit.newest(100_000))
        assert before[2] % len(MANY) == 1
        with pytest.raises(Unavailable, match="disk is full"):
            for number in range(1000):
                enroll(store, f"meter-{number}")
        disk.free()
        assert store.terminals.find_channel(channel.kid) == channel
        enroll(store, "after")


def test_a_disk_that_is_full_from_the_start_is_said(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", MEGABYTE) as disk:
        disk.fill()
        with pytest.raises(Unavailable, match=r"node\.key.*cannot be written: No space left"):
            open_node_store(disk.path, environment={})
        with pytest.raises((Unavailable, ConfigurationError)) as caught:
            Store.open(disk.path, NODE_KEY)
        assert_one_line(caught.value)
        disk.free()
        open_node_store(disk.path, environment={}).close()


def test_a_file_that_may_not_grow_is_said_and_changes_nothing(tmp_path: Path) -> None:
    # As a full disk, for every user: the limit of the process is as real to SQLite.
    code = """
import resource
from locum.errors import Unavailable
with Store.open(location, NODE_KEY) as store:
    enroll(store)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    enrolled = 1
    try:
        while True:
            enroll(store, f"meter-{enrolled}")
            enrolled += 1
    except Unavailable as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert len(store.terminals.all()) == enrolled == len(store.audit.newest(1000)), enrolled
    enroll(store, "after")
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    [output] = finish([start_process(code, f"sqlite:///{tmp_path}/locum.db")])
    assert "nothing was changed" in output


def test_a_disk_that_becomes_read_only_is_said(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 * MEGABYTE) as disk:
        with Store.open(disk.path, NODE_KEY) as store:
            enroll(store)
        disk.make_read_only()
        with (
            pytest.raises(ConfigurationError, match=r"read-only; fix|may we write") as caught,
            Store.open(disk.path, NODE_KEY) as store,
        ):
            enroll(store, "another")
        assert_one_line(caught.value)


def test_a_database_file_without_a_place_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        Store.open(tmp_path / "nowhere", NODE_KEY)


def test_a_writer_that_never_ends_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.2)
    with (
        Store.open(tmp_path, NODE_KEY) as store,
        contextlib.closing(sqlite3.connect(tmp_path / "locum.db", isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked by another process") as caught:
            enroll(store)
        assert_one_line(caught.value)
        assert store.terminals.all() == []
        other.execute("ROLLBACK")
        enroll(store)


def test_a_file_that_is_no_database_is_said_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "locum.db"
    path.write_bytes(b"precious" * 1000)
    with pytest.raises(ConfigurationError, match="not a database"):
        Store.open(tmp_path, NODE_KEY)
    assert path.read_bytes() == b"precious" * 1000


def test_a_damaged_database_is_said(tmp_path: Path) -> None:
    with Store.open(tmp_path, NODE_KEY) as store:
        store.audit_many(MANY)
    path = tmp_path / "locum.db"
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"\xa5" * (len(content) - 8192))
    with (
        pytest.raises(ConfigurationError, match="damaged; restore it"),
        Store.open(tmp_path, NODE_KEY) as store,
    ):
        store.audit.newest(1000)


def test_only_sqlite_and_postgresql_are_opened_and_passwords_not_shown() -> None:
    hidden = "postgresql://u@h/d?password=hunter2"
    assert "hunter2" not in engine.shown(engine.database_url(hidden))
    for url in ("mysql://u:hunter2@h/d", "sqlite://", "://", "postgresql+asyncpg://u:hunter2@h/d"):
        with pytest.raises(ConfigurationError) as caught:
            Store.open(url, NODE_KEY)
        assert "hunter2" not in str(caught.value)


# --- PostgreSQL -------------------------------------------------------------------------------------------


@pytest.fixture
def database(postgres: Cluster) -> Iterator[tuple[Cluster, str, str]]:
    """The cluster, a database's name and its URL."""
    url = postgres.new_database()
    yield postgres, url.partition("@/")[2].partition("?")[0], url


def terminate(cluster: Cluster, name: str) -> None:
    cluster.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")


def test_a_connection_lost_while_idle_is_replaced(database: tuple[Cluster, str, str]) -> None:
    cluster, name, url = database
    with Store.open(url, NODE_KEY) as store:
        channel = enroll(store)
        terminate(cluster, name)
        assert store.terminals.find_channel(channel.kid) == channel


def test_a_connection_lost_in_a_change_undoes_it(database: tuple[Cluster, str, str]) -> None:
    cluster, name, url = database
    with Store.open(url, NODE_KEY) as store:
        with pytest.raises(Unavailable) as caught:
            enroll(store, deliver=lambda channel: terminate(cluster, name))
        assert_one_line(caught.value)
        assert store.terminals.all() == []
        enroll(store)


def test_a_server_that_is_not_there_is_said_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be reached") as caught:
        Store.open(f"postgresql://locum:hunter2@/x?host={tmp_path}", NODE_KEY)
    assert_one_line(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_database_that_is_not_there_is_said(postgres: Cluster) -> None:
    with pytest.raises(LocumError, match='database "nowhere" does not exist') as caught:
        Store.open(postgres.url("nowhere"), NODE_KEY)
    assert_one_line(caught.value)


def test_a_read_only_server_is_said(database: tuple[Cluster, str, str]) -> None:
    cluster, name, url = database
    Store.open(url, NODE_KEY).close()
    cluster.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with Store.open(url, NODE_KEY) as store:
        assert store.generation() == 1
        with pytest.raises(ConfigurationError, match="read-only") as caught:
            enroll(store)
        assert_one_line(caught.value)


def test_another_nodes_endless_change_is_said(
    database: tuple[Cluster, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database[2]
    monkeypatch.setattr(engine, "BUSY_SECONDS", 1)
    with Store.open(url, NODE_KEY) as store, psycopg.connect(url) as other:
        other.execute("UPDATE meta SET generation = generation")
        with pytest.raises(Unavailable, match="locked by another node"):
            store.policies.add("*", "*", Action.DENY, actor=ACTOR)
        other.rollback()
        store.policies.add("*", "*", Action.DENY, actor=ACTOR)


def test_a_full_server_is_said_and_changes_nothing(postgres: Cluster, tmp_path: Path) -> None:
    # A tablespace must be where the server's user can go; the cluster's directory is.
    place = postgres.directory / "tiny"
    with small_disk(place, 24 * MEGABYTE) as disk:
        postgres.own(place)
        postgres.execute(f"CREATE TABLESPACE tiny LOCATION '{place}'")
        url = postgres.new_database(tablespace="tiny")
        try:
            with Store.open(url, NODE_KEY) as store:
                disk.fill()
                error = write_until_refused(store)
                assert isinstance(error, Unavailable)
                assert_one_line(error)
                assert "disk is full" in str(error)
                assert len(store.audit.newest(100_000)) % len(MANY) == 0
                disk.free()
                enroll(store)
        finally:
            postgres.execute(f"DROP DATABASE {url.partition('@/')[2].partition('?')[0]} WITH (FORCE)")
            postgres.execute("DROP TABLESPACE tiny")
