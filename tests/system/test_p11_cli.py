"""`locum pkcs11` with key servers behind it: permissions, a lost server, a revoked edge, a bad credential."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.p11_client import SHA256_PSS, Failure, P11Client
from tests.support.p11_keys import encrypt, verify_ec, verify_pss, write_keys
from tests.support.shell import Shell

from locum.demo.node import DemoNode
from locum.demo.process import BackgroundProcess
from locum.edge.p11.registry import Mechanism, Rv
from locum.edge.p11.settings import Modules, Program, Stack, Use, key_stub, settings_for
from locum.errors import ConfigurationError
from locum.tls.schedule import certificate_verify_content

pytest_plugins = ["tests.support.shell_fixtures"]

PATIENCE = 60.0
CONTENT = certificate_verify_content(b"server", hashlib.sha256(b"transcript").digest())
DIGEST = hashlib.sha256(CONTENT).digest()


class Servers:
    """Two key servers on the same data, and agents for edges that are enrolled there."""

    def __init__(self, directory: Path, running: ExitStack) -> None:
        self.directory = directory
        self.running = running
        self.nodes = [
            running.enter_context(DemoNode(directory, key_server=True, name=name)) for name in ("a", "b")
        ]
        for name, path in write_keys(directory).items():
            self.nodes[0].command("key", "import", path.name, "--name", name)

    def agent(self, edge: str, *words: str) -> BackgroundProcess:
        """An agent with this edge's credential; its socket is `EDGE.sock`."""
        return self.running.enter_context(
            BackgroundProcess(
                "locum pkcs11",
                [
                    sys.executable,
                    "-m",
                    "locum",
                    "pkcs11",
                    "--credential",
                    edge,
                    "--socket",
                    f"{edge}.sock",
                    *words,
                ],
                log_path=self.directory / f"{edge}.log",
                ready=lambda log: "ready pkcs11=" in log,
                working_directory=self.directory,
            )
        )

    def enroll(self, edge: str, allow: str) -> None:
        servers = [word for node in self.nodes for word in ("--server", node.key_server)]
        self.nodes[0].command("enroll", "edge", edge, "--out", edge, "--key", "all", "--allow", allow, *servers)

    def client(self, edge: str) -> P11Client:
        return self.running.enter_context(P11Client(self.directory / f"{edge}.sock"))


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with ExitStack() as running:
        yield Servers(tmp_path, running)


def refused(call: Callable[[], bytes]) -> int:
    with pytest.raises(Failure) as failure:
        call()
    return failure.value.rv


def test_an_edge_uses_its_keys_as_far_as_it_may_until_it_is_revoked(servers: Servers) -> None:
    for edge in ("raw", "bound"):
        servers.enroll(edge, edge)
        servers.agent(edge)
    raw, bound = servers.client("raw"), servers.client("bound")
    sessions = {client: client.open_session() for client in (raw, bound)}
    keys = {
        (client, name): client.private_key(session, name)
        for client, session in sessions.items()
        for name in ("rsa", "ec")
    }

    def sign(client: P11Client, name: str, kind: int, data: bytes, *parameters: tuple[int, int, int]) -> bytes:
        return client.sign(sessions[client], keys[client, name], kind, data, *parameters)

    verify_ec(sign(raw, "ec", Mechanism.ECDSA, DIGEST), CONTENT)
    verify_pss(sign(raw, "rsa", Mechanism.RSA_PKCS_PSS, DIGEST, SHA256_PSS), CONTENT)
    assert raw.decrypt(sessions[raw], keys[raw, "rsa"], encrypt(b"key material")) == b"key material"

    verify_ec(sign(bound, "ec", Mechanism.ECDSA_SHA256, CONTENT), CONTENT)
    verify_pss(sign(bound, "rsa", Mechanism.SHA256_RSA_PKCS_PSS, CONTENT, SHA256_PSS), CONTENT)
    for kind, data in ((Mechanism.ECDSA, DIGEST), (Mechanism.ECDSA_SHA256, b"a contract")):
        assert refused(lambda kind=kind, data=data: sign(bound, "ec", kind, data)) == Rv.KEY_FUNCTION_NOT_PERMITTED

    servers.nodes[0].command("revoke", "edge", "raw")
    deadline = time.monotonic() + PATIENCE
    with pytest.raises(Failure):
        while time.monotonic() < deadline:
            sign(raw, "ec", Mechanism.ECDSA, DIGEST)
    verify_ec(sign(bound, "ec", Mechanism.ECDSA_SHA256, CONTENT), CONTENT)


def test_a_key_server_that_is_killed_costs_no_signature(servers: Servers) -> None:
    servers.enroll("web", "raw")
    servers.agent("web")
    client = servers.client("web")
    session = client.open_session()
    key = client.private_key(session, "ec")
    for round_number in range(60):
        if round_number == 20:
            os.kill(servers.nodes[0].process.pid, signal.SIGKILL)
        verify_ec(client.sign(session, key, Mechanism.ECDSA, DIGEST), CONTENT)


def test_without_any_key_server_calls_are_answered_in_time_and_work_again_later(servers: Servers) -> None:
    servers.enroll("web", "raw")
    servers.agent("web", "--timeout", "2")
    client = servers.client("web")
    session = client.open_session()
    key = client.private_key(session, "ec")
    addresses = [node.key_server for node in servers.nodes]
    for node in servers.nodes:
        os.kill(node.process.pid, signal.SIGKILL)
    with pytest.raises(Failure) as failure:
        while True:  # until the last of their processes is gone
            client.sign(session, key, Mechanism.ECDSA, DIGEST)
    assert failure.value.rv == Rv.DEVICE_ERROR
    again = BackgroundProcess(
        "locum up",
        [sys.executable, "-m", "locum", "up", "--data", "node", "--no-delegate", "--key-server", addresses[0]],
        log_path=servers.directory / "again.log",
        ready=lambda log: "ready " in log,
        working_directory=servers.directory,
    )
    servers.running.enter_context(again)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            verify_ec(client.sign(session, key, Mechanism.ECDSA, DIGEST), CONTENT)
            break
        except Failure:
            assert time.monotonic() < deadline


def test_a_credential_that_is_none_is_one_line(locum: Shell, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "locum",
            "pkcs11",
            "--credential",
            tmp_path / "nothing",
            "--socket",
            tmp_path / "s",
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nothing" in done.stderr
    assert "--credential DIR is missing" in locum.refused("pkcs11")


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", list(Program))
@pytest.mark.parametrize("stack", list(Stack))
def test_settings_are_printed_whole_or_in_parts(locum: Shell, program: Program, stack: Stack) -> None:
    words = ("pkcs11", "config", program, "--stack", stack, "--socket", "/run/x.sock", "--key", "web 1")
    if program is Program.HAPROXY and stack is Stack.ENGINE:
        assert "pkcs11-provider" in locum.refused(*words)
        return
    whole = locum.ok(*words).out
    use = Use(socket=Path("/run/x.sock"), key="web 1", modules=Modules.installed())
    for part in settings_for(program, stack, use):
        assert locum.ok(*words, "--part", part.name).out == part.content
        assert part.content in whole
    assert "/run/x.sock" in whole or program is Program.JAVA
    assert "there are" in locum.refused(*words, "--part", "nothing")


def test_the_name_of_a_key_is_escaped_in_its_address() -> None:
    use = Use(socket=Path("/s"), key="web;1/ü", modules=Modules.installed())
    assert use.uri == "pkcs11:token=locum;object=web%3B1%2F%C3%BC;type=private"


def test_a_stub_holds_an_address_and_nothing_else() -> None:
    # The bytes that pkcs11-provider's own uri2pem makes of this address.
    assert key_stub("pkcs11:object=x") == (
        "-----BEGIN PKCS#11 PROVIDER URI-----\n"
        "MCwaGVBLQ1MjMTEgUHJvdmlkZXIgVVJJIHYxLjAMD3BrY3MxMTpvYmplY3Q9eA==\n"
        "-----END PKCS#11 PROVIDER URI-----\n"
    )


def test_haproxy_has_no_use_for_an_engine() -> None:
    with pytest.raises(ConfigurationError):
        settings_for(Program.HAPROXY, Stack.ENGINE, Use(socket=Path("/s"), key="x", modules=Modules.installed()))
