"""The parent of worker processes: readiness, replacement, reload, and an end in order."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from locum import processes
from locum.errors import ConfigurationError
from locum.names import HostPort
from locum.processes import Reservation, Worker

#: A parent with two workers. What happens is appended to the file that is its argument, one line each.
SCRIPT = """
import os, signal, sys, time
from locum.errors import ConfigurationError
from locum.processes import Worker, supervise

path, mode = sys.argv[1:]

def note(*words):
    with open(path, "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

def work(name):
    def run(ready):
        ending = []
        signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
        signal.signal(signal.SIGHUP, lambda *_: note("reload", name))
        if mode == "fails" and name == "two":
            raise ConfigurationError("two cannot begin")
        if mode == "dies" and name == "two":
            os._exit(3)
        note("run", name, os.getpid())
        ready(name + "!")
        while not ending or mode == "hangs":
            time.sleep(0.01)
        note("end", name)
    return Worker(name=name, run=run)

def announce(said):
    note("announce", *sorted(said.items()))

try:
    supervise([work("one"), work("two")], announce=announce, grace=0.5 if mode == "hangs" else 30)
except ConfigurationError as error:
    note("error", error)
    sys.exit(1)
note("over")
"""


class Parent:
    """The script above, running."""

    def __init__(self, directory: Path, mode: str = "") -> None:
        self.path = directory / "events"
        self.process = subprocess.Popen([sys.executable, "-c", SCRIPT, self.path, mode], stderr=subprocess.PIPE)

    def events(self, *words: str) -> list[list[str]]:
        """What has happened so far, of the events that begin with `words`."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        events = [line.split() for line in lines]
        return [event for event in events if tuple(event[: len(words)]) == words]

    def wait(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, self.events()
            time.sleep(0.01)

    def started(self) -> Parent:
        self.wait(lambda: self.events("announce"))
        return self

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(30)


@pytest.fixture
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], Parent]:
    def start(mode: str = "") -> Parent:
        parent = Parent(tmp_path, mode)
        request.addfinalizer(parent.process.wait)
        request.addfinalizer(parent.process.kill)
        return parent

    return start


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_all_workers_are_ready_before_it_is_announced_with_what_they_said(start: Callable[..., Parent]) -> None:
    parent = start().started()
    assert len(parent.events("run")) == 2
    assert parent.events("announce") == [["announce", "('one',", "'one!')", "('two',", "'two!')"]]
    assert parent.end() == 0
    assert len(parent.events("end")) == 2
    assert parent.events("over")


def test_a_worker_that_dies_is_replaced_and_the_other_one_stays(start: Callable[..., Parent]) -> None:
    parent = start().started()
    (first,) = (int(event[2]) for event in parent.events("run", "one"))
    os.kill(first, signal.SIGKILL)
    parent.wait(lambda: len(parent.events("run", "one")) == 2)
    assert int(parent.events("run", "one")[1][2]) != first
    assert len(parent.events("run", "two")) == 1
    assert len(parent.events("announce")) == 1
    assert parent.end() == 0
    assert len(parent.events("end")) == 2


def test_sighup_reaches_every_worker(start: Callable[..., Parent]) -> None:
    parent = start().started()
    parent.process.send_signal(signal.SIGHUP)
    parent.wait(lambda: len(parent.events("reload")) == 2)
    assert parent.end() == 0


def test_a_worker_that_cannot_begin_ends_all_with_its_reason(start: Callable[..., Parent]) -> None:
    parent = start("fails")
    assert parent.process.wait(30) == 1
    assert parent.events("error") == [["error", "two", "cannot", "begin"]]
    assert all(not alive(int(event[2])) for event in parent.events("run"))


def test_a_worker_that_dies_before_it_is_ready_ends_all(start: Callable[..., Parent]) -> None:
    parent = start("dies")
    assert parent.process.wait(30) == 1
    assert "code 3" in " ".join(parent.events("error")[0])


def test_workers_that_do_not_end_in_time_are_killed(start: Callable[..., Parent]) -> None:
    parent = start("hangs").started()
    pids = [int(event[2]) for event in parent.events("run")]
    assert parent.end() == 0
    assert not any(map(alive, pids))
    assert not parent.events("end")


def test_a_second_signal_ends_workers_that_have_more_time_left(start: Callable[..., Parent]) -> None:
    parent = start("hangs").started()
    for number in (signal.SIGINT, signal.SIGTERM):
        parent.process.send_signal(number)
    assert parent.process.wait(30) == 0


def test_no_worker_outlives_a_parent_that_is_killed(start: Callable[..., Parent]) -> None:
    parent = start().started()
    pids = [int(event[2]) for event in parent.events("run")]
    parent.process.kill()
    parent.wait(lambda: not any(map(alive, pids)))


# --- the address ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("announced", [True, False], ids=["later", "at the start"])
def test_without_room_for_a_process_the_others_go_on_and_it_is_tried_again(
    announced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room() -> int:
        raise OSError(errno.EAGAIN, "no room")

    supervisor = processes._Supervisor([Worker(name="web", run=lambda ready: None)], lambda said: None, 1.0)
    (child,) = supervisor._children
    supervisor._announced = announced
    monkeypatch.setattr(processes.os, "fork", no_room)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with contextlib.nullcontext() if announced else pytest.raises(ConfigurationError, match=r"web .* no room"):
        supervisor._start(child)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert not child.pid and not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert (child.due > 0 and child.delay > processes.FIRST_DELAY) is announced


def test_every_worker_has_a_listener_at_the_reserved_address() -> None:
    reservation = Reservation(HostPort("127.0.0.1", 0))
    listeners = [reservation.listener() for _ in range(2)]
    assert {listener.getsockname()[1] for listener in listeners} == {reservation.address.port}
    listeners[0].close()
    for _ in range(8):
        with socket.create_connection(("127.0.0.1", reservation.address.port), timeout=10):
            pass
    listeners[1].close()
    reservation.close()


def test_without_a_listener_nobody_gets_a_connection_at_a_reserved_address() -> None:
    reservation = Reservation(HostPort("127.0.0.1", 0))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", reservation.address.port), timeout=10)
    reservation.close()


def test_an_address_that_is_in_use_is_not_shared_unnoticed() -> None:
    reservation = Reservation(HostPort("127.0.0.1", 0))
    listener = reservation.listener()
    with pytest.raises(ConfigurationError, match="the port is in use"):
        Reservation(reservation.address)
    listener.close()
    reservation.close()


@pytest.mark.parametrize(
    ("address", "complaint"),
    [(HostPort("192.0.2.1", 1), "does not have that address"), (HostPort("nowhere.invalid", 1), "cannot listen")],
    ids=["foreign", "unknown"],
)
def test_an_address_that_cannot_be_listened_at_is_one_clear_line(address: HostPort, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Reservation(address)
