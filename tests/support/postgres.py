"""A private PostgreSQL cluster for tests: its own directory, a unix socket only, ended with the session.

A pytest plugin with the fixture `postgres`. Without PostgreSQL on the machine its tests are skipped, or fail
where CI=true.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

BINARIES = "/usr/lib/postgresql"
USER = "locum"
#: PostgreSQL refuses to run as root; Debian's packages make this user.
SYSTEM_USER = "postgres"
START_SECONDS = 30.0
STOP_SECONDS = 15.0


class Cluster:
    """One PostgreSQL server; every call of `new_database` gives an empty database of its own."""

    def __init__(self, binaries: Path, directory: Path) -> None:
        self._binaries = binaries
        self.directory = directory
        self._as_user = {"user": SYSTEM_USER, "group": SYSTEM_USER} if os.geteuid() == 0 else {}
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self.own(directory)
        self._run("initdb", "-D", directory / "data", "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")

    def own(self, directory: Path) -> None:
        """Give a directory to the user that the server runs as."""
        if self._as_user:
            shutil.chown(directory, SYSTEM_USER, SYSTEM_USER)

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [self._binaries / program, *arguments]
        result = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, **self._as_user)
        assert result.returncode == 0, result.stderr

    def sibling(self, directory: Path) -> Cluster:
        """Another cluster of the same programs, not started."""
        return Cluster(self._binaries, directory)

    def start(self, *more: str) -> None:
        """Start the server and wait until it answers; `more` settings, as name=value, win over ours."""
        settings = [f"unix_socket_directories={self.directory}", "listen_addresses=", "fsync=off", *more]
        options = [word for setting in settings for word in ("-c", setting)]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self.directory / "data", *options],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._as_user,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.directory / "log").read_text()
                assert self._process.poll() is None, (self.directory / "log").read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        """End the server, and with it every connection."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run one statement outside of a transaction, as the owner of everything."""
        with psycopg.connect(host=str(self.directory), user=USER, dbname=database, autocommit=True) as connection:
            connection.execute(statement)

    def new_database(self, *, tablespace: str = "pg_default") -> str:
        """Make an empty database and return its URL."""
        name = f"test{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TABLESPACE {tablespace}")
        return self.url(name)

    def url(self, database: str) -> str:
        """The URL of a database of this cluster."""
        return f"postgresql://{USER}@/{database}?host={self.directory}"


def _binaries() -> Path:
    found = sorted(Path(BINARIES).glob("*/bin"), key=lambda path: float(path.parent.name))
    path = shutil.which("initdb")
    if found or path:
        return found[-1] if found else Path(path or "").resolve().parent
    reason = "PostgreSQL is not installed; fix: apt-get install postgresql"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A running cluster, the same one for the whole session."""
    # Not pytest's temporary directory: nobody but its owner may enter that, and a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="locum-pg-") as name:
        cluster = Cluster(_binaries(), Path(name))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
