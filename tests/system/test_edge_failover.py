"""Two key servers, one or the other killed again and again, and clients of an edge that notice nothing (C4)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.edge import LOOPBACK, echo, exchange
from tests.support.edge_process import EdgeProcess, edge_process
from tests.support.key_pairs import key_pair
from tests.support.key_server_client import PATIENCE
from tests.support.key_server_process import KeyServerProcess, eventually
from tests.support.terminal_peer import RawPeer
from tests.support.web_certificates import authority, root, web_certificate

from locum.store import Allow, EdgeRole

SITE = "www.example"
KINDS = ("p256", "rsa2048")
#: Each a version and a way to use the key: all the operations that an edge asks for.
CLIENTS = {
    "tls13": (ssl.TLSVersion.TLSv1_3, ""),
    "tls12-ecdhe-ecdsa": (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    "tls12-ecdhe-rsa": (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256"),
    "tls12-rsa": (ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256"),
}


class Load:
    """Clients of every kind, each making one full handshake after another, until the block ends."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stopping = threading.Event()
        self.done = dict.fromkeys(CLIENTS, 0)
        self.failures: list[tuple[str, Exception]] = []
        self._threads = [threading.Thread(target=self._run, args=(name,)) for name in CLIENTS]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _run(self, name: str) -> None:
        version, ciphers = CLIENTS[name]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=root().pem.decode())
        context.minimum_version = context.maximum_version = version
        if ciphers:
            context.set_ciphers(ciphers)
        while not self._stopping.is_set():
            try:
                self._handshake(context)
            except OSError as error:
                self.failures.append((name, error))
            self.done[name] += 1

    def _handshake(self, context: ssl.SSLContext) -> None:
        with (
            socket.create_connection((LOOPBACK, self._port), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=SITE) as stream,
        ):
            assert not stream.session_reused
            assert exchange(stream, b"hello") == b"hello"

    def more(self, count: int) -> None:
        """Return when every client has made `count` more handshakes, or one of them has failed."""
        wanted = {name: done + count for name, done in self.done.items()}
        eventually(
            lambda: self.failures or all(self.done[name] >= wanted[name] for name in CLIENTS), "handshakes go on"
        )


@dataclass
class Stage:
    """Two key servers with the same keys, and what an edge of theirs needs, in `directory`."""

    directory: Path
    servers: tuple[KeyServerProcess, KeyServerProcess]

    @contextmanager
    def edge(self, *words: str) -> Iterator[EdgeProcess]:
        files = [word for kind in KINDS for word in ("--cert", f"{kind}.pem")]
        with (
            RawPeer(echo) as backend,
            edge_process(self.directory, backend.port, "--credential", "edge-web", *files, *words) as edge,
        ):
            eventually(self.connected, "the edge is connected with both key servers")
            yield edge

    def connected(self) -> bool:
        """True when both key servers have a connection."""
        return all(map(is_connected_to, self.servers))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("twins")
    with contextlib.ExitStack() as stack:
        first = KeyServerProcess(directory, KINDS)
        stack.callback(first.close)
        second = KeyServerProcess(directory, twin=first)
        stack.callback(second.close)
        first.enrol("web", second, allow=Allow.BOUND, roles=EdgeRole.SERVER)
        for kind in KINDS:
            issued = web_certificate(pair=key_pair(kind))
            (directory / f"{kind}.pem").write_bytes(issued.pem + authority().pem)
        yield Stage(directory, (first, second))


def kill(server: KeyServerProcess) -> None:
    """End all its processes as the kernel does when there is no memory left."""
    for worker in server.node.workers:
        os.kill(worker, signal.SIGKILL)
    server.node.kill()


def is_connected_to(server: KeyServerProcess) -> bool:
    """True when somebody has a connection to this key server."""
    place = f"0100007F:{server.address.port:04X}"
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    return any(line.split()[2:4] == [place, "01"] for line in lines)


@pytest.mark.parametrize(("policy", "victims"), [("ordered", (0, 1, 0)), ("least", (1,))])
def test_key_servers_killed_in_a_loop_cost_no_handshake(
    stage: Stage, policy: str, victims: tuple[int, ...]
) -> None:
    with stage.edge("--policy", policy) as edge, Load(edge.port) as load:
        for victim in victims:
            eventually(stage.connected, "the edge is connected with both key servers")
            load.more(5)
            kill(stage.servers[victim])
            load.more(5)
            stage.servers[victim].node.start()
        # And their processes alone, which their parents replace: faster than anybody could wait for.
        for server in stage.servers:
            eventually(stage.connected, "the edge is connected with both key servers")
            os.kill(server.node.workers[0], signal.SIGKILL)
            load.more(2)
    assert not load.failures
    assert min(load.done.values()) >= 10 * len(victims)
    assert "unexpectedly" not in edge.log


def test_without_any_key_server_clients_get_an_alert_in_time_and_are_served_when_one_is_back(stage: Stage) -> None:
    with stage.edge() as edge:
        for server in stage.servers:
            kill(server)
        began = time.monotonic()
        with pytest.raises(ssl.SSLError, match="internal error"):
            one_handshake(edge.port)
        assert time.monotonic() - began < PATIENCE / 2
        stage.servers[1].node.start()
        eventually(lambda: is_served(edge.port), "handshakes are made again")
        stage.servers[0].node.start()


def one_handshake(port: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=root().pem.decode())
    with (
        socket.create_connection((LOOPBACK, port), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname=SITE) as stream,
    ):
        assert exchange(stream, b"hello") == b"hello"


def is_served(port: int) -> bool:
    try:
        one_handshake(port)
    except OSError:
        return False
    return True
