"""Disks that are full or take no writes: handshakes with real servers go on, commands say what is wrong (X8)."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.delegation import Delegation, started
from tests.support.disks import SmallDisk, small_disk
from tests.support.node import LOCUM
from tests.support.peers import ServerOptions
from tests.support.terminal_peer import wait_until
from tests.support.terminal_system import fetch

from locum.demo.peers import PAGE

pytestmark = pytest.mark.xdist_group("faults-storage")

DISK_BYTES = 1 << 20
PAGES = 10
#: Seconds in which a node has sequence numbers in stock, and its audit log written.
SETTLED = 1.5


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", DISK_BYTES) as disk:
        yield disk


def prepared(directory: Path) -> Delegation:
    """A delegation whose node has its data in `directory`, where nothing else is, and two enrolled terminals."""
    return Delegation(directory.parent, data=directory / "node")


def port(delegation: Delegation) -> int:
    return delegation.server("nginx", ServerOptions(certificates=(delegation.certificate("p256"),))).port


def handed_over(delegation: Delegation) -> int:
    entries = json.loads(delegation.node.locum("audit", "list", "--json", "--limit", "1000").stdout)
    return sum(entry["detail"].startswith("key handed over") for entry in entries)


def fails(delegation: Delegation, *words: str | Path) -> str:
    """The one line that a command fails with."""
    command = [LOCUM, *words, "--data", delegation.node.data]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("locum: error: ")
    return line


def test_handshakes_go_on_while_the_disk_is_full_and_none_is_lost_from_the_audit_log(disk: SmallDisk) -> None:
    with started(prepared(disk.path)) as delegation:
        known, newcomer = delegation.enrol("known"), delegation.enrol("newcomer")
        assert fetch(known, port(delegation)).endswith(PAGE)
        time.sleep(SETTLED)
        disk.fill()
        for _ in range(PAGES):
            assert fetch(known, port(delegation)).endswith(PAGE)
        # Somebody whom the delegate must challenge needs a sequence number, of which there are some in stock.
        assert fetch(newcomer, port(delegation)).endswith(PAGE)
        refused = delegation.directory / "refused.credential"
        line = fails(delegation, "enroll", "terminal", "late", "--out", refused, "--address", delegation.node.url)
        assert "the disk is full" in line
        assert not refused.exists(), "no credential for a terminal that nobody knows"
        disk.free()
        wait_until(lambda: handed_over(delegation) == PAGES + 2)


def test_handshakes_go_on_while_nothing_can_be_written(tmp_path: Path) -> None:
    """As on a file system that was remounted read-only because of an error."""
    with started(Delegation(tmp_path)) as delegation:
        known, newcomer = delegation.enrol("known"), delegation.enrol("newcomer")
        assert fetch(known, port(delegation)).endswith(PAGE)
        time.sleep(SETTLED)
        _, hard = resource.prlimit(delegation.node.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(delegation.node.pid, resource.RLIMIT_FSIZE, (1, hard))
        for _ in range(PAGES):
            assert fetch(known, port(delegation)).endswith(PAGE)
        assert fetch(newcomer, port(delegation)).endswith(PAGE)
        resource.prlimit(delegation.node.pid, resource.RLIMIT_FSIZE, (hard, hard))
        wait_until(lambda: handed_over(delegation) == PAGES + 2)


def test_commands_on_a_read_only_disk_say_so_and_a_node_does_not_start_on_one(disk: SmallDisk) -> None:
    delegation = prepared(disk.path)
    with started(delegation):
        delegation.enrol("known")
    disk.make_read_only()
    out = delegation.directory / "new.credential"
    for words in (
        ("enroll", "terminal", "new", "--out", out, "--address", "coap://127.0.0.1"),
        ("policy", "add", "--terminal", "*", "--peer", "*", "--action", "deny"),
        ("trust", "remove", "1"),
        ("up",),
    ):
        assert re.search("read-only|may we write there|must be writable", fails(delegation, *words).lower()), words
    assert not out.exists()
