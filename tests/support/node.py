"""A real `locum up` process for tests: its own data directory, a free port of loopback, ended by its pid."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

LOCUM = Path(sys.executable).with_name("locum")
START_SECONDS = 20.0
STOP_SECONDS = 15.0


class Node:
    """One node and its data directory; `start` and `stop` may alternate, on the same ports.

    With `key_server` it listens there for edges too, and has no delegate unless `delegate` says so. Several of
    these may have the same data; `name` is that of its log.
    """

    def __init__(
        self,
        data: Path,
        *,
        listen: str = "127.0.0.1:0",
        key_server: str = "",
        delegate: bool | None = None,
        name: str = "",
        config: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.data = data
        self.listen = listen
        self.key_server = key_server
        self.delegate = not key_server if delegate is None else delegate
        self.environment = {**os.environ, **(environment or {})}
        self.environment.pop("LOCUM_DATA", None)
        self.log = data.parent / f"{name or data.name}.log"
        self.process: subprocess.Popen[str] | None = None
        self.ready_line = ""
        if config:
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            (data / "locum.toml").write_text(config)

    @property
    def address(self) -> str:
        """The delegate's address as HOST:PORT, with the real port once the node has been started."""
        return self.listen

    @property
    def url(self) -> str:
        """The delegate's address for a credential file."""
        return f"coap://{self.listen}"

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> Node:
        """Start the process and wait for its ready line."""
        assert self.process is None
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [LOCUM, "up", "--data", self.data, *self._roles()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environment,
                text=True,
            )
        try:
            self.ready_line = _first_line(process)
            assert self.ready_line.startswith("ready "), self.ready_line
        except BaseException:
            process.kill()
            process.wait()
            raise
        self.process = process
        places = dict(word.partition("=")[::2] for word in self.ready_line.split()[1:])
        assert ("delegate" in places, "keyserver" in places) == (self.delegate, bool(self.key_server))
        self.listen = places.get("delegate", self.listen).removeprefix("coap://")
        self.key_server = places.get("keyserver", self.key_server)
        return self

    def _roles(self) -> list[str]:
        roles = ["--listen", self.listen] if self.delegate else ["--no-delegate"]
        return [*roles, "--key-server", self.key_server] if self.key_server else roles

    @property
    def workers(self) -> list[int]:
        """The processes that the node has started itself."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def stop(self) -> int:
        """End the process with SIGTERM; returns its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """End the process with SIGKILL, as a crash would; returns its exit code."""
        return self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()

    def locum(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `locum ARGUMENTS --data DIR` to its end."""
        result = subprocess.run(
            [LOCUM, *arguments, "--data", self.data],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=self.environment,
            text=True,
            timeout=60,
        )
        assert not check or result.returncode == 0, f"{arguments}: {result.stderr}"
        return result

    def enrol(self, name: str, *options: str | Path) -> Path:
        """Enrol a terminal at this node; returns its credential file. Start the node first, for its port."""
        credential = self.data.parent / f"{name}.credential"
        self.locum("enroll", "terminal", name, "--out", credential, "--address", self.url, *options)
        return credential

    def allow(self, *, terminal: str = "*", peer: str = "*", action: str = "allow") -> None:
        """Add one row of the policy database."""
        self.locum("policy", "add", "--terminal", terminal, "--peer", peer, "--action", action)

    def trust(self, certificate: Path) -> None:
        """Add the certificates of a PEM file as trust anchors."""
        self.locum("trust", "add", certificate)

    def logged(self) -> str:
        """Everything the node has written on stderr."""
        return self.log.read_text() if self.log.exists() else ""

    def cpu_seconds(self) -> float:
        """CPU time that the running process has used, user and system, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running_node(
    directory: Path, *, name: str = "node", config: str = "", listen: str = "127.0.0.1:0"
) -> Iterator[Node]:
    """A started node with its data in `directory`/`name`, ended at the exit of the block."""
    node = Node(directory / name, listen=listen, config=config)
    node.start()
    try:
        yield node
    finally:
        node.stop()


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not selector.select(max(0.0, deadline - time.monotonic())):
            assert time.monotonic() < deadline, "no ready line in time"
    line = process.stdout.readline().rstrip("\n")
    assert line, f"the node ended with exit code {process.wait(STOP_SECONDS)} before it was ready"
    return line
