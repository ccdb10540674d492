"""Fixtures of the store's tests, each on SQLite and on a real PostgreSQL: a pytest plugin.

`location` is where an empty database is, `store` one that is open there, `raw` runs SQL behind its back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.support.stores import NODE_KEY, Raw

from locum.store import Store
from locum.store.engine import connect, database_url

pytest_plugins = ["tests.support.postgres"]


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/locum.db"
    url: str = request.getfixturevalue("postgres").new_database()
    return url


@pytest.fixture
def store(location: str) -> Iterator[Store]:
    """A new store at `location`."""
    with Store.open(location, NODE_KEY) as opened:
        yield opened


@pytest.fixture
def raw(location: str) -> Iterator[Raw]:
    """`raw(statement, **values)` runs SQL in a transaction of its own and returns the rows, if any."""
    engine = connect(database_url(location))

    def run(statement: str, **values: object) -> Sequence[Any]:
        with engine.connect().execution_options(locum_writing=True) as connection, connection.begin():
            result = connection.execute(text(statement), values)
            return result.all() if result.returns_rows else ()

    yield run
    engine.dispose()
