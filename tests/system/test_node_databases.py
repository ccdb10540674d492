"""A real node and its databases: changes take effect while it runs, outages do not stop handshakes (A5, X8)."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support import exchange, pki
from tests.support.delegate_client import DelegateClient
from tests.support.ike_offers import psk_opening
from tests.support.node import LOCUM, Node

from locum.authority.remote import RemoteSession
from locum.errors import LocumError, Refused
from locum.handshake import Fault, Verdict
from locum.link.coap import Code
from locum.tls.operations import MasterSecretRequest, StartResponse

ROOT = pki.ca()
PEER = pki.leaf(pki.intermediate(ROOT))

#: Seconds in which a change of the databases has to be in force.
EFFECT_SECONDS = 2.0


def prepare(node: Node) -> Node:
    root = node.data.parent / "root.pem"
    root.write_bytes(ROOT.pem)
    node.trust(root)
    node.allow()
    return node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = prepare(Node(tmp_path / "node"))
    node.start()
    yield node
    node.stop()


def within(seconds: float, condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; fail when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in force in time"
        time.sleep(0.05)


def outcome(terminal: DelegateClient) -> str:
    """How a handshake ends: ``ok``, the fault of the verdict, or the class of the error."""
    try:
        verdict = terminal.verdict(PEER)[0]
    except LocumError as error:
        return type(error).__name__
    assert isinstance(verdict, Verdict)
    return "ok" if verdict.accepted else verdict.fault.name


# --- changes while the node runs --------------------------------------------------------------------------


def test_a_terminal_enrolled_a_moment_ago_is_served_at_once(node: Node) -> None:
    with DelegateClient(node.enrol("meter")) as terminal:
        assert outcome(terminal) == "ok"


def test_a_policy_added_or_removed_is_in_force_within_two_seconds(node: Node) -> None:
    with DelegateClient(node.enrol("meter")) as terminal:
        assert outcome(terminal) == "ok"
        node.allow(terminal="meter", peer=f"dns:{pki.PEER_NAME}", action="deny")
        within(EFFECT_SECONDS, lambda: outcome(terminal) == "Refused")
        node.locum("policy", "remove", "2")
        within(EFFECT_SECONDS, lambda: outcome(terminal) == "ok")


def test_trust_removed_or_added_is_in_force_within_two_seconds(node: Node) -> None:
    with DelegateClient(node.enrol("meter")) as terminal:
        assert outcome(terminal) == "ok"
        node.locum("trust", "remove", "1")
        within(EFFECT_SECONDS, lambda: outcome(terminal) == Fault.UNKNOWN_ISSUER.name)
        node.trust(node.data.parent / "root.pem")
        within(EFFECT_SECONDS, lambda: outcome(terminal) == "ok")


def test_a_change_is_in_force_for_a_session_that_began_before_it(node: Node) -> None:
    with DelegateClient(node.enrol("meter")) as terminal, DelegateClient(node.enrol("other")) as other:
        session = RemoteSession()
        (start,) = terminal.perform(session, exchange.START)
        assert isinstance(start, StartResponse)
        node.allow(terminal="*", peer=f"dns:{pki.PEER_NAME}", action="deny")
        within(EFFECT_SECONDS, lambda: outcome(other) == "Refused")
        terminal.perform(session, exchange.server_share(start)[0])
        (verdict,) = terminal.perform(session, exchange.authenticate13(PEER), MasterSecretRequest())
        assert isinstance(verdict, Verdict)
        assert (verdict.authentic, verdict.allowed) == (True, False)


def test_a_shared_secret_is_in_force_at_once_and_until_it_is_removed(node: Node) -> None:
    def offered() -> bool:
        try:
            terminal.perform(RemoteSession(), *psk_opening("dns:vpn.example"))
        except LocumError:
            return False
        return True

    secret = node.data.parent / "psk"
    secret.write_bytes(b"correct horse battery staple\n")
    secret.chmod(0o600)
    with DelegateClient(node.enrol("meter")) as terminal:
        assert not offered()
        node.locum("secret", "add", "--terminal", "meter", "--peer", "vpn.example", secret)
        assert offered()
        node.locum("secret", "remove", "1")
        within(EFFECT_SECONDS, lambda: not offered())
    assert "horse" not in node.logged()


def test_a_disabled_terminal_is_turned_away_and_comes_back_when_enabled(node: Node) -> None:
    with DelegateClient(node.enrol("meter")) as terminal, DelegateClient(node.enrol("other")) as other:
        assert outcome(terminal) == "ok"
        node.locum("terminals", "disable", "meter")
        within(1.5, lambda: outcome(terminal) == "Refused")
        assert outcome(other) == "ok"
        node.locum("terminals", "enable", "meter")
        within(5.0, lambda: outcome(terminal) == "ok")


def test_a_removed_terminal_is_turned_away(node: Node) -> None:
    with DelegateClient(node.enrol("meter")) as terminal:
        assert outcome(terminal) == "ok"
        node.locum("terminals", "remove", "meter")
        within(1.5, lambda: outcome(terminal) in ("Refused", "Unavailable"))


def test_a_replaced_credential_ends_the_old_one(node: Node) -> None:
    credential = node.enrol("meter")
    old = credential.with_name("old")
    old.write_bytes(credential.read_bytes())
    old.chmod(0o600)
    with DelegateClient(old) as terminal:
        assert outcome(terminal) == "ok"
        node.enrol("meter", "--replace")
        within(EFFECT_SECONDS, lambda: outcome(terminal) in ("Refused", "Unavailable"))
    with DelegateClient(credential) as terminal:
        assert outcome(terminal) == "ok"


# --- outages ----------------------------------------------------------------------------------------------


def audited(node: Node) -> int:
    return node.locum("audit", "list").stdout.count("key handed over")


def settled(terminal: DelegateClient) -> None:
    """One handshake, and time for the node to have sequence numbers in stock and the audit log written."""
    assert outcome(terminal) == "ok"
    time.sleep(1.5)


def test_a_locked_database_does_not_stop_handshakes_and_loses_no_audit_entry(node: Node) -> None:
    credential = node.enrol("meter")
    with DelegateClient(credential) as terminal, sqlite3.connect(node.data / "locum.db") as writer:
        settled(terminal)
        writer.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        for _ in range(10):
            assert outcome(terminal) == "ok"
        assert time.monotonic() - started < 4.0, "no handshake waits for the database"
        with DelegateClient(credential) as newcomer:
            # A new security context must be challenged, with a number that was in stock.
            assert outcome(newcomer) == "ok"
        time.sleep(6.0)
        writer.rollback()
        within(10.0, lambda: audited(node) == 12)
    assert node.logged().count("audit log cannot be written") == 1
    assert "audit log is written again" in node.logged()


def test_a_disk_that_takes_no_more_writes_does_not_stop_handshakes(node: Node) -> None:
    """As after a remount read-only: every write of the node fails, to its log too, and nothing else does."""
    credential = node.enrol("meter")
    with DelegateClient(credential) as terminal:
        settled(terminal)
        _, hard = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (1, hard))
        try:
            for _ in range(10):
                assert outcome(terminal) == "ok"
                time.sleep(0.1)
            with DelegateClient(credential) as newcomer:
                assert outcome(newcomer) == "ok"
            assert audited(node) == 1
        finally:
            resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (hard, hard))
        within(10.0, lambda: audited(node) == 12)
        assert outcome(terminal) == "ok"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of one megabyte; skipped where nothing may be mounted."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "locum-test", directory], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield directory
    subprocess.run(["umount", directory], check=True)


def test_a_full_disk_does_not_stop_handshakes_and_loses_no_audit_entry(small_disk: Path) -> None:
    node = prepare(Node(small_disk / "node"))
    credential = node.data.parent.parent / "meter.credential"
    node.start()
    try:
        node.locum("enroll", "terminal", "meter", "--out", credential, "--address", node.url)
        filler = small_disk / "filler"
        with DelegateClient(credential) as terminal:
            settled(terminal)
            with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(512))
            for _ in range(40):
                assert outcome(terminal) == "ok"
                time.sleep(0.05)
            within(5.0, lambda: "audit log cannot be written" in node.logged())
            filler.unlink()
            within(10.0, lambda: audited(node) == 41)
            assert outcome(terminal) == "ok"
    finally:
        assert node.stop() == 0


def test_a_node_that_cannot_write_at_the_start_does_not_start(node: Node) -> None:
    """Without a write there are no sequence numbers, and without those no terminal can be proven fresh."""
    node.stop()
    lock = node.data / "node.lock"
    lock.unlink()
    lock.mkdir()
    result = subprocess.run(
        [LOCUM, "up", "--data", node.data],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert result.returncode == 1
    assert "must be writable" in result.stderr
    lock.rmdir()
    node.start()


def test_refusals_are_audited_without_filling_the_log(node: Node) -> None:
    with DelegateClient(node.enrol("meter")) as terminal:
        for _ in range(50):
            assert terminal.post(b"\xff").code == Code.BAD_REQUEST
        time.sleep(1.0)
        entries = node.locum("audit", "list").stdout
        assert entries.count("malformed message") == 1
        with pytest.raises(Refused, match="cannot read this"):
            session = RemoteSession()
            session.encode((exchange.START,))
            session.decode(terminal.post(b"\xff").payload, Code.BAD_REQUEST)
