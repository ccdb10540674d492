"""A real key server: its link, its permissions, its end, and what broken edges do to it (C, X3, X5, X6)."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from tests.support.key_pairs import key_pair
from tests.support.key_server_client import PATIENCE, KeyServerClient
from tests.support.key_server_process import eventually
from tests.support.node import LOCUM, Node
from tests.support.softhsm import soft_hsm

from locum.errors import LocumError
from locum.keyless.frames import KeyReference
from locum.keyless.operations import CertificateVerify, Role, Sign
from locum.keyless.queries import KeysAnswer, KeysQuery, OfferedKey, decode_answer
from locum.keyless.registry import Opcode
from locum.keyless.requests import Ping, encode_request
from locum.keys.blocking import BlockingKeys
from locum.keys.credential import EdgeCredential
from locum.keys.server_link import client_context

SCHEME = "ECDSA_SECP256R1_SHA256"
DIGEST = bytes(range(32))
SIGN = Sign(SCHEME, DIGEST)


def enrol(node: Node, name: str, *options: str, servers: Sequence[Node] = ()) -> EdgeCredential:
    """Enrol an edge at the key server of `node`, which need not run yet; it may ask `servers` too."""
    out = node.data.parent / f"edge-{name}"
    places = [word for each in (node, *servers) for word in ("--server", each.key_server)]
    node.locum("enroll", "edge", name, "--out", out, "--key", "all", *places, *options)
    return EdgeCredential.load(out)


def key_of(client: KeyServerClient, kind: str = "p256") -> OfferedKey:
    """The only key of a kind that is offered."""
    answer = decode_answer(KeysQuery(), client.ask(KeysQuery()).payload)
    assert isinstance(answer, KeysAnswer)
    (found,) = [key for key in answer.keys if key.kind == kind]
    return found


def check(signature: bytes, digest: bytes = DIGEST) -> None:
    public = key_pair("p256").key.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(signature, digest, ec.ECDSA(Prehashed(hashes.SHA256())))


def key_server(data: Path, **options: str) -> Node:
    """A node with the test's P-256 key, not started."""
    node = Node(data, key_server="127.0.0.1:0", **options)  # type: ignore[arg-type]
    pem = data.parent / "p256.pem"
    pem.write_bytes(key_pair("p256").pem())
    node.locum("key", "import", pem, "--name", "main")
    return node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = key_server(tmp_path / "node", config="[keyserver]\nprocesses = 2\n")
    node.start()
    yield node
    node.stop()


# --- it serves --------------------------------------------------------------------------------------------


def test_a_key_server_is_ready_signs_and_ends_cleanly(node: Node) -> None:
    assert node.ready_line == f"ready keyserver={node.key_server} data={node.data}"
    with KeyServerClient(enrol(node, "web", "--allow", "both")) as client:
        check(client.ask(SIGN, key_of(client).ski).payload)
    assert node.stop() == 0


def test_a_delegate_and_a_key_server_run_beside_each_other(tmp_path: Path) -> None:
    node = key_server(tmp_path / "node", delegate=True)  # type: ignore[arg-type]
    node.start()
    try:
        assert node.ready_line.startswith(f"ready delegate=coap://{node.listen} keyserver={node.key_server} ")
        with KeyServerClient(enrol(node, "web")) as client:
            assert client.is_alive()
        node.enrol("meter")
    finally:
        assert node.stop() == 0


@pytest.mark.parametrize(
    ("version", "ciphers"),
    [
        (ssl.TLSVersion.TLSv1_3, ""),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ],
    ids=["tls13", "tls12"],
)
def test_the_link_is_tls_13_or_12(node: Node, version: ssl.TLSVersion, ciphers: str) -> None:
    with KeyServerClient(enrol(node, "web"), version=version, ciphers=ciphers) as client:
        assert client.is_alive()


def test_messages_may_arrive_byte_by_byte_and_answers_have_their_ids(node: Node) -> None:
    with KeyServerClient(enrol(node, "web", "--allow", "raw")) as client:
        key = key_of(client)
        for byte in encode_request(9, SIGN) + encode_request(10, Ping(b"x")):
            client.send(bytes([byte]))
        error, pong = client.receive(2)
        assert (error.id, error.opcode) == (9, Opcode.ERROR)
        assert (pong.id, pong.payload) == (10, b"x")
        check(client.ask(SIGN, key.ski).payload)


def client_frames(ski: bytes, total: int) -> bytes:
    frame = encode_request(0, SIGN, KeyReference(ski=ski))
    return b"".join(frame[:4] + number.to_bytes(4, "big") + frame[8:] for number in range(1, total + 1))


# --- who may ------------------------------------------------------------------------------------------------


def test_a_revoked_edge_loses_its_open_connections_and_gets_no_new_one(node: Node) -> None:
    credential = enrol(node, "web")
    with KeyServerClient(credential) as client, KeyServerClient(credential) as other:
        assert client.is_alive() and other.is_alive()
        node.locum("revoke", "edge", "web")
        assert client.is_closed() and other.is_closed()
    with KeyServerClient(credential) as client:
        assert not client.is_alive()
    eventually(lambda: "revoked" in node.locum("audit", "list").stdout, "the audit log tells of it")


def test_an_edge_that_has_just_been_enrolled_is_served_at_once(node: Node) -> None:
    for number in range(5):
        with KeyServerClient(enrol(node, f"web-{number}")) as client:
            assert client.is_alive()


def test_another_enrolment_of_the_same_name_ends_the_old_certificate(node: Node) -> None:
    old = enrol(node, "web")
    with KeyServerClient(old) as client:
        assert client.is_alive()
        context = client_context(old)
        new = enrol(node, "web", "--replace")
        assert client.is_closed()
    with KeyServerClient(old, context=context) as client:
        assert not client.is_alive()
    with KeyServerClient(new) as client:
        assert client.is_alive()


def test_a_key_that_is_removed_or_added_is_so_on_open_connections(node: Node, tmp_path: Path) -> None:
    with KeyServerClient(enrol(node, "web", "--allow", "both")) as client:
        ski = key_of(client).ski
        check(client.ask(SIGN, ski).payload)
        node.locum("key", "remove", "main")
        eventually(lambda: client.ask(SIGN, ski).opcode == Opcode.ERROR, "the key is gone")
        node.locum("key", "import", tmp_path / "p256.pem", "--name", "again")
        eventually(lambda: client.ask(SIGN, ski).opcode == Opcode.RESPONSE, "the key is back")


def test_uses_and_refusals_are_in_the_audit_log(node: Node) -> None:
    with KeyServerClient(enrol(node, "web")) as client:
        ski = key_of(client).ski
        for _ in range(3):
            assert client.ask(CertificateVerify(SCHEME, Role.SERVER, DIGEST), ski).opcode == Opcode.RESPONSE
        assert client.ask(SIGN, ski).opcode == Opcode.ERROR
        eventually(lambda: "bound to TLS only" in node.locum("audit", "list").stdout, "the refusal")
        assert "certificate-verify ECDSA_SECP256R1_SHA256" in node.locum("audit", "list").stdout


# --- broken and hostile edges -------------------------------------------------------------------------------


def limited(tmp_path: Path, **settings: object) -> Node:
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    return key_server(tmp_path / "node", config=f"[keyserver]\nprocesses = 1\n{lines}").start()


@pytest.mark.parametrize("data", [b"\x01\x00\x00\x40", encode_request(1, Ping(b"x"))[:-1]], ids=["header", "body"])
def test_a_message_that_does_not_end_costs_the_connection(tmp_path: Path, data: bytes) -> None:
    node = limited(tmp_path, message_seconds=0.5)
    try:
        credential = enrol(node, "web")
        with KeyServerClient(credential) as slow, KeyServerClient(credential) as other:
            slow.send(data)
            assert slow.is_closed()
            assert other.is_alive()
    finally:
        node.stop()


def test_an_idle_connection_ends_and_a_busy_one_stays(tmp_path: Path) -> None:
    node = limited(tmp_path, idle_seconds=1.0)
    try:
        credential = enrol(node, "web")
        with KeyServerClient(credential) as idle, KeyServerClient(credential) as busy:
            watching = threading.Thread(target=idle.is_closed)
            watching.start()
            while watching.is_alive():
                assert busy.is_alive()
                time.sleep(0.05)
            assert busy.is_alive()
    finally:
        node.stop()


def test_tcp_connections_that_say_nothing_are_given_up_and_keep_nobody_out(tmp_path: Path) -> None:
    node = limited(tmp_path, handshake_seconds=0.5, max_handshakes=4)
    try:
        credential = enrol(node, "web")
        place = credential.servers[0]
        silent = [socket.create_connection((place.host, place.port), timeout=PATIENCE) for _ in range(20)]
        with KeyServerClient(credential) as client:
            assert client.is_alive()
        for each in silent:
            assert each.recv(1) == b""
            each.close()
    finally:
        node.stop()


def test_no_more_connections_than_allowed(tmp_path: Path) -> None:
    node = limited(tmp_path, max_connections=3)
    try:
        credential = enrol(node, "web")
        clients = [KeyServerClient(credential) for _ in range(3)]
        with pytest.raises(OSError):
            KeyServerClient(credential)
        assert all(client.is_alive() for client in clients)
        clients[0].socket.close()
        eventually(lambda: can_connect(credential), "there is room again")
    finally:
        node.stop()


def can_connect(credential: EdgeCredential) -> bool:
    try:
        with KeyServerClient(credential) as client:
            return client.is_alive()
    except OSError:
        return False


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100_000, b"\x01\x00\xff\xff" + b"\0" * 65_539]
)
def test_garbage_ends_in_an_error_and_other_connections_go_on(node: Node, data: bytes) -> None:
    credential = enrol(node, "web")
    with KeyServerClient(credential) as hostile, KeyServerClient(credential) as other:
        hostile.send(data)
        (answer,) = hostile.receive(1)
        assert answer.opcode == Opcode.ERROR
        assert other.is_alive()


def test_an_edge_that_takes_no_answers_is_given_up(tmp_path: Path) -> None:
    node = limited(tmp_path, message_seconds=1.0)
    try:
        credential = enrol(node, "web")
        with KeyServerClient(credential) as greedy, KeyServerClient(credential) as other:
            greedy.socket.settimeout(PATIENCE)
            pings = encode_request(1, Ping(b"x" * 60_000)) * 8
            with pytest.raises(OSError):
                while True:
                    greedy.send(pings)
            assert other.is_alive()
    finally:
        node.stop()


# --- processes ------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_is_replaced(node: Node) -> None:
    credential = enrol(node, "web")
    before = node.workers
    assert len(before) == 2
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: can_connect(credential), "somebody answers again")
    eventually(lambda: len(node.workers) == 2 and not set(before) & set(node.workers), "both are back")


def test_sighup_reads_everything_again_and_drops_nobody(node: Node) -> None:
    with KeyServerClient(enrol(node, "web")) as client:
        assert client.is_alive()
        os.kill(node.pid, signal.SIGHUP)
        time.sleep(0.5)
        assert client.is_alive()


def test_what_has_arrived_is_answered_before_the_end(node: Node) -> None:
    with KeyServerClient(enrol(node, "web", "--allow", "raw")) as client:
        ski = key_of(client).ski
        client.send(client_frames(ski, 500))
        client.receive(1)
        ended = threading.Thread(target=node.stop)
        ended.start()
        answers = client.receive(499)
        assert all(answer.opcode == Opcode.RESPONSE for answer in answers)
        ended.join(PATIENCE)


def test_two_key_servers_on_one_data_directory_and_one_is_killed_again_and_again(tmp_path: Path) -> None:
    first = key_server(tmp_path / "node", name="first", config="[keyserver]\nprocesses = 1\n").start()
    twin = Node(tmp_path / "node", key_server="127.0.0.1:0", name="twin").start()
    failures: list[LocumError] = []
    done = threading.Event()
    count = 0
    try:
        credential = enrol(first, "web", "--allow", "both", servers=[twin])

        def load(keys: BlockingKeys) -> None:
            nonlocal count
            key = keys.key(keys.keys()[0])
            while not done.is_set():
                try:
                    check(key.sign(SCHEME, DIGEST, prehashed=True))
                    count += 1
                except LocumError as error:
                    failures.append(error)

        with BlockingKeys(credential) as keys:
            threads = [threading.Thread(target=load, args=(keys,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for victim in (first, twin, first, twin):
                seen = count
                eventually(lambda seen=seen: count > seen + 20, "the load goes on")  # type: ignore[misc]
                victim.kill()
                seen = count
                eventually(lambda seen=seen: count > seen + 20, "the other one answers")  # type: ignore[misc]
                victim.start()
                time.sleep(1.0)
            done.set()
            for thread in threads:
                thread.join(PATIENCE)
        assert not failures
    finally:
        done.set()
        first.stop()
        twin.stop()


# --- other places for keys ------------------------------------------------------------------------------------


def test_keys_of_a_directory_are_offered_and_followed(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    write_key(keys / "one.key", "p256")
    node = Node(
        tmp_path / "node",
        key_server="127.0.0.1:0",
        config=f'[keyserver]\nprocesses = 1\nkey_directory = "{keys}"\n',
    ).start()
    try:
        with KeyServerClient(enrol(node, "web", "--allow", "both")) as client:
            check(client.ask(SIGN, key_of(client).ski).payload)
            write_key(keys / "two.key", "rsa2048")
            os.kill(node.pid, signal.SIGHUP)
            eventually(lambda: offered(client) == {"one", "two"}, "the second key is offered")
            (keys / "one.key").unlink()
            os.kill(node.pid, signal.SIGHUP)
            eventually(lambda: offered(client) == {"two"}, "the first key is gone")
    finally:
        node.stop()


def write_key(path: Path, kind: str) -> None:
    path.touch(mode=0o600)
    path.write_bytes(key_pair(kind).pem())


def offered(client: KeyServerClient) -> set[str]:
    answer = decode_answer(KeysQuery(), client.ask(KeysQuery()).payload)
    assert isinstance(answer, KeysAnswer)
    return {key.name for key in answer.keys}


def test_a_key_that_stays_in_a_token_signs_through_the_key_server(tmp_path: Path) -> None:
    directory = tmp_path / "softhsm"
    directory.mkdir()
    token = soft_hsm(directory)
    token.store(key_pair("p256").key, "main", "01")
    node = Node(tmp_path / "node", key_server="127.0.0.1:0", environment=token.environment)
    node.locum("key", "token", token.uri("main"), "--name", "main")
    node.start()
    try:
        with KeyServerClient(enrol(node, "web", "--allow", "both")) as client:
            ski = key_of(client).ski
            for _ in range(3):
                check(client.ask(SIGN, ski).payload)
            assert client.ask(CertificateVerify(SCHEME, Role.SERVER, DIGEST), ski).opcode == Opcode.RESPONSE
            client.send(client_frames(ski, 50))
            assert all(answer.opcode == Opcode.RESPONSE for answer in client.receive(50))
    finally:
        node.stop()


def test_a_cascade_performs_with_a_key_that_only_its_upstream_has(tmp_path: Path, node: Node) -> None:
    upstream = enrol(node, "cascade", "--allow", "both")
    cascade = Node(
        tmp_path / "cascade",
        key_server="127.0.0.1:0",
        config=f'[keyserver]\nprocesses = 1\n[[keyserver.upstream]]\ncredential = "{upstream.directory}"\n',
    ).start()
    try:
        with KeyServerClient(enrol(cascade, "web-edge", "--allow", "both")) as client:
            eventually(lambda: offered(client) == {"main"}, "the key of upstream is offered")
            ski = key_of(client).ski
            check(client.ask(SIGN, ski).payload)
            verify = CertificateVerify(SCHEME, Role.SERVER, DIGEST)
            assert client.ask(verify, ski).opcode == Opcode.RESPONSE
            node.locum("revoke", "edge", "cascade")
            eventually(lambda: client.ask(SIGN, ski).opcode == Opcode.ERROR, "upstream refuses the cascade")
            assert client.is_alive()
    finally:
        cascade.stop()


# --- how it is started ----------------------------------------------------------------------------------------


def refused(*arguments: str | Path) -> str:
    result = subprocess.run([LOCUM, "up", *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1]


def test_a_port_in_use_is_one_clear_line(node: Node, tmp_path: Path) -> None:
    line = refused("--data", tmp_path / "other", "--no-delegate", "--key-server", node.key_server)
    assert "the port is in use" in line


def test_a_node_without_any_role_is_refused(tmp_path: Path) -> None:
    assert "nothing to run" in refused("--data", tmp_path / "node", "--no-delegate")


def test_a_key_directory_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    config = tmp_path / "locum.toml"
    config.write_text(f'[keyserver]\nkey_directory = "{tmp_path}/missing"\n')
    line = refused("--data", tmp_path / "node", "--no-delegate", "--key-server", "127.0.0.1:0", "--config", config)
    assert "missing" in line


def test_no_process_of_a_key_server_may_be_traced_or_dump_core(node: Node) -> None:
    for pid in (node.pid, *node.workers):
        limits = Path(f"/proc/{pid}/limits").read_text()
        (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
        assert core.split()[4:6] == ["0", "0"]
        # The owner of an undumpable process's files is root, whoever runs it; and its memory is not swapped.
        status = Path(f"/proc/{pid}/status").read_text()
        if os.geteuid() == 0:
            (locked,) = [line for line in status.splitlines() if line.startswith("VmLck")]
            assert int(locked.split()[1]) > 0
