"""The agent as a process: every call has its answer, whatever happens to the workers behind it."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support.p11_agent import agent_process
from tests.support.p11_client import SHA256_PSS, Failure, P11Client, byte_array, mechanism, u32, u64
from tests.support.p11_keys import encrypt, verify_ec, verify_pkcs1, verify_pss, write_keys

from locum.demo.process import BackgroundProcess
from locum.edge.p11.agent import MAX_WAITING
from locum.edge.p11.registry import Call, Mechanism, Rv
from locum.tls.schedule import certificate_verify_content

#: Generous: the machine that runs this does other things too.
PATIENCE = 60.0
CONTENT = b"content"
DIGEST = hashlib.sha256(CONTENT).digest()


class Running:
    """An agent, its socket, and its workers."""

    def __init__(self, process: BackgroundProcess, path: Path) -> None:
        self.process = process
        self.path = path

    def client(self) -> P11Client:
        return P11Client(self.path)

    def workers(self) -> list[int]:
        pid = self.process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.process.log
            time.sleep(0.02)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts agents, with the settings of `agent_process`; they end with the test."""
    keys = write_keys(tmp_path)
    with ExitStack() as running:

        def begin(**settings: Any) -> Running:
            process = running.enter_context(agent_process(tmp_path, keys, **settings))
            return Running(process, tmp_path / "p11.sock")

        yield begin


def sign_some(client: P11Client) -> None:
    """A signature of each kind, verified."""
    session = client.open_session()
    rsa, ec = (client.private_key(session, name) for name in ("rsa", "ec"))
    verify_pss(client.sign(session, rsa, Mechanism.RSA_PKCS_PSS, DIGEST, SHA256_PSS), CONTENT)
    verify_pkcs1(client.sign(session, rsa, Mechanism.SHA256_RSA_PKCS, CONTENT), CONTENT)
    verify_ec(client.sign(session, ec, Mechanism.ECDSA, DIGEST), CONTENT)
    verify_ec(client.sign(session, ec, Mechanism.ECDSA_SHA256, CONTENT), CONTENT)
    client.call(Call.CLOSE_SESSION, u64(session))


def test_keys_are_used(start: Callable[..., Running]) -> None:
    with start().client() as client:
        sign_some(client)
        session = client.open_session()
        assert client.decrypt(session, client.private_key(session, "rsa"), encrypt(b"pre-master")) == b"pre-master"


def test_what_was_not_encrypted_to_the_key_decrypts_to_something_else(start: Callable[..., Running]) -> None:
    with start().client() as client:
        session = client.open_session()
        key = client.private_key(session, "rsa")
        forged = bytes(range(1, 256)) + b"\1"
        assert client.decrypt(session, key, forged) == client.decrypt(session, key, forged)


def test_a_bound_edge_signs_handshakes_and_nothing_else(start: Callable[..., Running]) -> None:
    with start(raw=False).client() as client:
        session = client.open_session()
        ec = client.private_key(session, "ec")
        content = certificate_verify_content(b"server", DIGEST)
        verify_ec(client.sign(session, ec, Mechanism.ECDSA_SHA256, content), content)
        for kind, data in ((Mechanism.ECDSA_SHA256, CONTENT), (Mechanism.ECDSA, DIGEST)):
            with pytest.raises(Failure) as failure:
                client.sign(session, ec, kind, data)
            assert failure.value.rv == Rv.KEY_FUNCTION_NOT_PERMITTED
        with pytest.raises(Failure) as failure:
            client.decrypt(session, client.private_key(session, "rsa"), encrypt(b"pre-master"))
        assert failure.value.rv == Rv.KEY_FUNCTION_NOT_PERMITTED


# --- workers that fail ------------------------------------------------------------------------------------


class Load:
    """Clients that sign without a pause; each signature is verified."""

    def __init__(self, running: Running, clients: int = 4) -> None:
        self.signed = 0
        self.faults: list[str] = []
        self._running = running
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._sign) for _ in range(clients)]

    def _sign(self) -> None:
        try:
            with self._running.client() as client:
                session = client.open_session()
                key = client.private_key(session, "ec")
                while not self._ending.is_set():
                    verify_ec(client.sign(session, key, Mechanism.ECDSA, DIGEST), CONTENT)
                    self.signed += 1
        except Exception as error:
            self.faults.append(repr(error))

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self) -> None:
        """Return when each client has had time for more signatures."""
        wanted = self.signed + 20
        self._running.until(lambda: bool(self.faults) or self.signed >= wanted)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_killed_under_load_cost_no_signature(start: Callable[..., Running], workers: int) -> None:
    running = start(workers=workers)
    with Load(running) as load:
        for _ in range(4):
            load.goes_on()
            for pid in running.workers():
                os.kill(pid, signal.SIGKILL)
        load.goes_on()
    assert load.faults == []
    assert "a worker ended and is replaced" in running.process.log


def test_a_restart_of_the_workers_costs_no_signature(start: Callable[..., Running]) -> None:
    running = start()
    with Load(running) as load:
        for _ in range(2):
            before = running.workers()
            load.goes_on()
            os.kill(running.process.pid, signal.SIGHUP)
            running.until(lambda before=before: not set(before) & set(running.workers()))
        load.goes_on()
    assert load.faults == []


def test_a_session_outlives_the_worker_that_served_it(start: Callable[..., Running]) -> None:
    running = start()
    with running.client() as client:
        session = client.open_session()
        key = client.private_key(session, "ec")
        client.call(Call.SIGN_INIT, u64(session) + mechanism(Mechanism.ECDSA) + u64(key))
        (worker,) = running.workers()
        os.kill(worker, signal.SIGKILL)
        signature = client.call(Call.SIGN, u64(session) + byte_array(DIGEST) + u32(64))
        verify_ec(signature[5:], CONTENT)


def test_a_worker_that_says_nothing_is_replaced_and_its_calls_are_answered(start: Callable[..., Running]) -> None:
    running = start(timeout=1.5)
    with running.client() as client:
        session = client.open_session()
        key = client.private_key(session, "ec")
        (worker,) = running.workers()
        os.kill(worker, signal.SIGSTOP)
        with pytest.raises(Failure) as failure:
            client.sign(session, key, Mechanism.ECDSA, DIGEST)
        assert failure.value.rv == Rv.DEVICE_ERROR
        running.until(lambda: worker not in running.workers() and "a worker has 2 keys" in running.process.log)
        running.until(lambda: running.process.log.count("a worker has") == 2)
        verify_ec(client.sign(session, key, Mechanism.ECDSA, DIGEST), CONTENT)


def test_a_call_that_ends_every_worker_is_answered_in_the_end(start: Callable[..., Running]) -> None:
    running = start(fatal="poison", timeout=PATIENCE)
    with running.client() as client:
        session = client.open_session()
        key = client.private_key(session, "ec")
        before = running.workers()
        with pytest.raises(Failure) as failure:
            # Raw signatures show a worker the digest alone, so the word is in the randoms of a ServerKeyExchange.
            client.sign(
                session, key, Mechanism.ECDSA_SHA256, b"poison".ljust(64) + b"\x03\x00\x1d\x20" + bytes(32)
            )
        assert failure.value.rv == Rv.DEVICE_ERROR
        running.until(lambda: bool(running.workers()) and running.workers() != before)
        verify_ec(client.sign(session, key, Mechanism.ECDSA, DIGEST), CONTENT)


def test_a_key_that_takes_too_long_is_given_up(start: Callable[..., Running]) -> None:
    running = start(delay=PATIENCE * 10, timeout=0.3)
    with running.client() as client:
        session = client.open_session()
        key = client.private_key(session, "ec")
        with pytest.raises(Failure) as failure:
            client.sign(session, key, Mechanism.ECDSA, DIGEST)
        assert failure.value.rv == Rv.DEVICE_ERROR
        assert client.open_session()


# --- clients that misbehave -------------------------------------------------------------------------------


def test_many_calls_at_once_are_all_answered(start: Callable[..., Running]) -> None:
    running = start()
    sessions = 2 * MAX_WAITING + 5
    with running.client() as client:
        first = client.open_session()
        key = client.private_key(first, "ec")
        codes = set()
        for session in [client.open_session() for _ in range(sessions)]:
            codes.add(client.send(Call.SIGN_INIT, u64(session) + mechanism(Mechanism.ECDSA) + u64(key)))
            codes.add(client.send(Call.SIGN, u64(session) + byte_array(DIGEST) + u32(64)))
        replies = [client.receive() for _ in codes]
        assert {reply.code for reply in replies} == codes
        assert {reply.rv for reply in replies} == {Rv.OK}
        assert sum(len(reply.data) == 69 for reply in replies) == sessions


def test_a_client_that_does_not_read_holds_up_nobody(start: Callable[..., Running]) -> None:
    running = start()
    with running.client() as deaf, running.client() as client:
        session = deaf.open_session()
        deaf.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            while True:
                deaf.send(Call.GENERATE_RANDOM, u64(session) + u32(4096))
        sign_some(client)


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n" * 4, b"\0" + bytes(64), b"\0" + u32(1) + u32(0) + u32(1 << 30), b"\0" + u32(1)],
    ids=["http", "zeros", "1 GiB", "nothing more"],
)
def test_garbage_ends_its_own_connection_alone(start: Callable[..., Running], data: bytes) -> None:
    running = start()
    with running.client() as client, socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(PATIENCE)
        stranger.connect(str(running.path))
        stranger.sendall(data)
        stranger.shutdown(socket.SHUT_WR)
        while stranger.recv(1024):
            pass
        sign_some(client)


def test_a_thousand_clients_are_served(start: Callable[..., Running]) -> None:
    running = start()
    with ExitStack() as open_clients:
        clients = [open_clients.enter_context(running.client()) for _ in range(1000)]
        for client in (clients[0], clients[500], clients[-1]):
            sign_some(client)


def test_more_clients_than_allowed_are_turned_away(start: Callable[..., Running]) -> None:
    running = start(max_clients=2)
    with running.client() as first, running.client():
        with pytest.raises((EOFError, ConnectionError)):
            running.client()
        sign_some(first)


def greeted_as(uid: int, path: Path) -> bytes:
    """What a process of this user is told when it connects; nothing when it is turned away."""
    path.parent.chmod(0o711)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chdir(path.parent)  # while it may
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(path.name)
                connection.send(b"\0")
                os.write(writing, connection.recv(1))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        answer = said.read()
    os.waitpid(child, 0)
    return answer


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
@pytest.mark.parametrize(("uid", "answer"), [(65_534, b"\0"), (65_533, b"")], ids=["allowed", "other"])
def test_users_are_told_apart(start: Callable[..., Running], uid: int, answer: bytes) -> None:
    running = start(uids=[65_534])
    assert greeted_as(uid, running.path) == answer
    running.until(lambda: ("refused a client" in running.process.log) == (answer == b""))


# --- beginning and end ------------------------------------------------------------------------------------


def test_the_end_lets_calls_in_flight_be_answered(start: Callable[..., Running]) -> None:
    running = start(delay=1.0)
    with running.client() as client:
        session = client.open_session()
        key = client.private_key(session, "ec")
        client.call(Call.SIGN_INIT, u64(session) + mechanism(Mechanism.ECDSA) + u64(key))
        client.send(Call.SIGN, u64(session) + byte_array(DIGEST) + u32(64))
        # An answer to the next call says that the one before it has been read.
        code = client.send(Call.GET_INFO)
        assert client.receive().code == code
        workers = running.workers()
        os.kill(running.process.pid, signal.SIGTERM)
        verify_ec(client.receive().data[5:], CONTENT)
        with pytest.raises((EOFError, ConnectionError)):
            client.receive()
        running.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
        assert not running.path.exists()


def test_a_socket_that_is_served_is_not_taken_and_a_stale_one_is(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    first = start()
    second = agent_process(tmp_path, {"rsa": tmp_path / "rsa.key"}, log="second")
    second.log_path = tmp_path / "second.log"
    done = subprocess.run(second.command, capture_output=True, timeout=PATIENCE, cwd=Path(__file__).parents[2])
    assert done.returncode != 0
    assert b"another agent serves there" in done.stderr
    with first.client() as client:
        sign_some(client)
    os.kill(first.process.pid, signal.SIGKILL)
    first.until(lambda: not first.process.running)
    assert first.path.is_socket()
    with start().client() as client:
        sign_some(client)


def test_workers_do_not_outlive_their_parent(start: Callable[..., Running]) -> None:
    running = start()
    workers = running.workers()
    os.kill(running.process.pid, signal.SIGKILL)
    running.until(lambda: not any(Path(f"/proc/{pid}/fd").exists() for pid in workers))


def test_the_parent_imports_no_cryptography() -> None:
    program = """
import json, sys
import locum.edge.p11.agent
unwanted = ("cryptography", "ssl", "asyncio", "uvloop")
print(json.dumps([name for name in sys.modules if name.split(".")[0] in unwanted]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=PATIENCE, check=True)
    assert json.loads(done.stdout) == []
