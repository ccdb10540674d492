"""Peers that must not be talked to: what the user reads, what the peer is told, that no key is set (A2, A6)."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import pki
from tests.support.delegation import Delegation, started
from tests.support.node import LOCUM
from tests.support.peers import CertificateAuthority, Server, ServerOptions
from tests.support.terminal_peer import RawPeer, wait_until
from tests.support.terminal_system import NAME, REQUEST, fetch

from locum.errors import LocumError, Refused
from locum.handshake import PeerRejected
from locum.terminal import BlockingTerminal, TerminalStep
from locum.terminal.steps import StepName

pytestmark = pytest.mark.xdist_group("faults-peers")

DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
SECONDS = 60
RESTRICTED = "meter-restricted"
VERSIONS = pytest.mark.parametrize("version", ["1.2", "1.3"])


class World(Delegation):
    """A delegate with a CRL, a pinned key, and rules for one terminal that the others do not have."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, policy=False)
        self.certificates = {
            "good": self.authority.issue("good"),
            "expired": self.authority.issue("expired", start=NOW - 3 * DAY, end=NOW - DAY),
            "not yet valid": self.authority.issue("early", start=NOW + DAY, end=NOW + 3 * DAY),
            "wrong name": self.authority.issue("misnamed", names=("other.example",)),
            "unknown issuer": CertificateAuthority(directory, "stranger").issue("unknown"),
            "revoked by CRL": self.authority.issue("listed"),
            "revoked by staple": self.authority.issue("stapled"),
            "not for servers": self.authority.issue("client", usage="client"),
            "self-signed": self.files(pki.self_signed("p384", names=(NAME,)), "self-signed"),
        }
        self.pinned = self.files(pki.self_signed(names=(NAME,)), "pinned")
        revoked = self.certificates["revoked by CRL"]
        self.locum("trust", "add", self.authority.revoke(revoked))
        self.locum("trust", "add", self.pinned.chain, "--pin", "--peer", f"dns:{NAME}", "--name", "mine")

    def start(self) -> None:
        super().start()
        for terminal, peer in (("meter-7", f"dns:{NAME}"), (RESTRICTED, "pin:mine")):
            self.enrol(terminal)
            self.locum("policy", "add", "--terminal", terminal, "--peer", peer, "--action", "allow")

    def serve(self, what: str) -> Server:
        """s_server with this certificate, which prints the alerts that it receives."""
        certificate = self.certificates[what]
        options: dict[str, Any] = {}
        if what == "revoked by staple":
            options["ocsp_response"] = certificate.issuer.ocsp(certificate, revoked=True)
        return self.server("s_server", ServerOptions(certificates=(certificate,), **options), telling=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    prepared = World(tmp_path_factory.mktemp("faults-peers"))
    with started(prepared):
        yield prepared


def talk(server: Server, credential: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """`locum terminal tls` at this server."""
    command = [LOCUM, "terminal", "tls", f"{NAME}:{server.port}", "--credential", credential, *words]
    return subprocess.run(command, input=REQUEST, capture_output=True, timeout=SECONDS)


def only_line(done: subprocess.CompletedProcess[bytes]) -> str:
    """The error of a command that failed: one line, nothing else anywhere."""
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("locum: error: ")
    return line


#: What is wrong with the peer, what the user reads, and which alert the peer gets (RFC 8446 section 6.2).
BAD_PEERS = [
    ("expired", f"expired on {NOW - DAY:%Y-%m-%d}", "certificate expired"),
    ("not yet valid", f"valid only from {NOW + DAY:%Y-%m-%d}", "certificate expired"),
    ("wrong name", f"not for {NAME}", "bad certificate"),
    ("unknown issuer", "add its certificate with 'locum trust add", "unknown ca"),
    ("self-signed", "add its certificate with 'locum trust add", "unknown ca"),
    ("revoked by CRL", "revoked", "certificate revoked"),
    ("revoked by staple", "revoked", "certificate revoked"),
    ("not for servers", "not meant for servers", "bad certificate"),
]


@VERSIONS
@pytest.mark.parametrize(("what", "message", "alert"), BAD_PEERS, ids=[what for what, _, _ in BAD_PEERS])
def test_a_peer_that_is_not_authentic_is_one_line_here_and_an_alert_there(
    world: World, version: str, what: str, message: str, alert: str
) -> None:
    server = world.serve(what)
    line = only_line(talk(server, world.enrol(), "--tls", version))
    assert line.startswith("locum: error: the peer is not authentic: ")
    assert message in line
    assert f"alert {alert}" in server.log


@VERSIONS
def test_a_good_peer_beside_them_is_served(world: World, version: str) -> None:
    done = talk(world.serve("good"), world.enrol(), "--tls", version)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_peer_that_policy_denies_by_name_is_never_sent_a_byte(world: World) -> None:
    received: list[bytes] = []
    with RawPeer(lambda sock: received.append(sock.recv(1))) as listener:
        credential = world.enrol()
        done = subprocess.run(
            [LOCUM, "terminal", "tls", f"127.0.0.1:{listener.port}", "--credential", credential],
            input=REQUEST,
            capture_output=True,
            timeout=SECONDS,
        )
    line = only_line(done)
    assert "no policy allows terminal 'meter-7' to reach ip:127.0.0.1" in line
    assert "locum policy add --terminal meter-7" in line
    assert received == [b""]


@VERSIONS
def test_a_peer_that_policy_denies_for_what_it_proved_gets_an_alert(world: World, version: str) -> None:
    # Only the pinned key is allowed. Whether the peer has it is known when it has been authenticated.
    server = world.serve("good")
    line = only_line(talk(server, world.enrol(RESTRICTED), "--tls", version))
    assert "allowed" in line and f"terminal '{RESTRICTED}'" in line
    assert "alert access denied" in server.log
    pinned = world.server("s_server", ServerOptions(certificates=(world.pinned,)))
    assert talk(pinned, world.enrol(RESTRICTED), "--tls", version).returncode == 0


@pytest.mark.parametrize("what", ["expired", "wrong name", "unknown issuer", "revoked by CRL"])
def test_no_key_is_set_for_a_peer_that_was_rejected(world: World, what: str) -> None:
    steps: list[TerminalStep] = []
    with BlockingTerminal(world.enrol(), observer=steps.append) as terminal:
        with pytest.raises(LocumError):
            terminal.connect_tls(NAME, world.serve(what).port)
        assert terminal.keys.sessions() == ()
    names = [step.operation for step in steps]
    assert names[-1] is StepName.ERROR
    assert StepName.REQUEST_KEY not in names and StepName.STORE_KEY not in names


def test_every_rejection_is_in_the_audit_log_with_its_reason(world: World) -> None:
    line = only_line(talk(world.serve("expired"), world.enrol()))
    reason = line.removeprefix("locum: error: the peer is not authentic: ")
    wait_until(lambda: reason in world.node.locum("audit", "list", "--json").stdout)


# --- what was allowed a moment ago ------------------------------------------------------------------------


def test_a_policy_is_in_force_for_the_first_handshake_after_the_command(world: World) -> None:
    server = world.serve("good")
    for number in range(5):
        credential = world.enrol(f"fresh-{number}")
        with pytest.raises(Refused, match="no policy allows"):
            fetch(credential, server.port)
        world.locum("policy", "add", "--terminal", f"fresh-{number}", "--peer", f"dns:{NAME}", "--action", "allow")
        assert fetch(credential, server.port)


def test_trust_is_in_force_for_the_first_handshake_after_the_command(world: World) -> None:
    for number in range(5):
        authority = CertificateAuthority(world.directory, f"new-{number}")
        certificate = authority.issue(f"by-new-{number}")
        server = world.server("s_server", ServerOptions(certificates=(certificate,)))
        with pytest.raises(PeerRejected, match="not trusted"):
            fetch(world.enrol(), server.port)
        world.locum("trust", "add", authority.path)
        assert fetch(world.enrol(), server.port)
