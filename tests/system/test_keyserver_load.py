"""A real key server with much to do: floods, deaf edges, idle ones by the thousand, and its processes' ends."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.key_pairs import key_pair
from tests.support.key_server_client import KeyServerClient
from tests.support.key_server_process import KeyServerProcess, eventually, is_served, key_server, ski
from tests.support.raw_signatures import verify_digest

from locum.keyless.frames import Frame, KeyReference
from locum.keyless.operations import CertificateVerify, KeyOperation, Role, Sign
from locum.keyless.registry import Opcode
from locum.keyless.requests import Ping, encode_request
from locum.keys.server_link import client_context

DIGEST = bytes(range(32))
SIGN_RSA = Sign("RSA_PKCS1_SHA256", DIGEST)
VERIFY = CertificateVerify("ECDSA_SECP256R1_SHA256", Role.SERVER, DIGEST)
#: What one edge may cost a process of the server in memory, in bytes, whatever it does. Buffers are part of it.
MEMORY = 24 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyServerProcess]:
    with key_server(tmp_path_factory.mktemp("keyserver"), ("p256", "rsa2048"), processes=1) as process:
        yield process


def key(kind: str) -> KeyReference:
    return KeyReference(ski=ski(kind))


def flood(operation: KeyOperation, kind: str, total: int) -> bytes:
    """This request under the ids from 1 to `total`."""
    frame = encode_request(0, operation, key(kind))
    return b"".join(frame[:4] + number.to_bytes(4, "big") + frame[8:] for number in range(1, total + 1))


def all_answered(answers: Sequence[Frame], total: int) -> None:
    assert sorted(answer.id for answer in answers) == list(range(1, total + 1))
    assert {answer.opcode for answer in answers} == {Opcode.RESPONSE}


def test_ten_thousand_requests_at_once_are_answered_in_bounded_memory_and_others_meanwhile(
    server: KeyServerProcess,
) -> None:
    greedy, modest = server.enrol("greedy"), server.enrol("modest")
    with KeyServerClient(greedy) as client, KeyServerClient(modest) as other:
        client.ask(SIGN_RSA, ski("rsa2048"))
        other.ask(VERIFY, ski("p256"))
        before = server.memory()
        # RSA first, which takes long: whoever comes with a short request must not wait for all of it.
        client.send(flood(SIGN_RSA, "rsa2048", 4000))
        for _ in range(20):
            assert other.ask(VERIFY, ski("p256")).opcode == Opcode.RESPONSE
        answers = [*client.arrived()]
        assert len(answers) < 4000, "the others were served before the flood was over"
        total = 10_000
        rest = flood(VERIFY, "p256", total)[4000 * len(flood(VERIFY, "p256", 1)) :]
        answers += client.exchange(rest, total - len(answers))
        all_answered(answers, total)
        verify_digest(
            key_pair("rsa2048").key.public_key(),
            Opcode.RSA_SIGN_SHA256,
            next(answer.payload for answer in answers if answer.id == 1),
            DIGEST,
        )
        assert server.memory() - before < MEMORY


def test_an_edge_that_does_not_read_costs_little_memory_and_gets_its_answers_when_it_does(
    server: KeyServerProcess,
) -> None:
    with KeyServerClient(server.enrol("late")) as client, KeyServerClient(server.enrol("other")) as other:
        assert client.is_alive() and other.is_alive()
        before = server.memory()
        # Far more than there is room for in all buffers between the two.
        total, payload = 1500, b"x" * 60_000
        frames = b"".join(encode_request(number, Ping(payload)) for number in range(1, total + 1))
        rest = client.press(frames)
        assert rest, "the server takes no more before somebody reads"
        for _ in range(200):
            assert other.ask(VERIFY, ski("p256")).opcode == Opcode.RESPONSE
        answers = client.exchange(rest, total)
        assert [answer.id for answer in answers] == list(range(1, total + 1))
        assert all(answer.payload == payload for answer in answers)
        assert server.memory() - before < MEMORY


def test_a_thousand_idle_connections_with_half_a_message_each_disturb_nobody(server: KeyServerProcess) -> None:
    crowd, worker = server.enrol("crowd"), server.enrol("worker")
    context = client_context(crowd)
    half = encode_request(1, Ping(b"x" * 1000))[:500]
    with contextlib.ExitStack() as stack, KeyServerClient(worker) as client:
        for number in range(1000):
            each = stack.enter_context(KeyServerClient(crowd, context=context))
            if number % 2:
                each.send(half)
        all_answered(client.exchange(flood(VERIFY, "p256", 2000), 2000), 2000)


def test_sighup_again_and_again_costs_no_request(server: KeyServerProcess) -> None:
    credential = server.enrol("hup")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(KeyServerClient(credential)) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            frames = flood(VERIFY, "p256", 4000)
            under_way = [pool.submit(client.exchange, frames, 4000) for client in clients]
            hangups = 0
            while not all(each.done() for each in under_way):
                os.kill(server.node.pid, signal.SIGHUP)
                hangups += 1
                time.sleep(0.1)
        for each in under_way:
            all_answered(each.result(), 4000)
        assert hangups >= 2
        assert all(client.is_alive() for client in clients)


def test_a_worker_killed_with_requests_in_flight_is_replaced_and_serves_the_same_edges(
    server: KeyServerProcess,
) -> None:
    credential = server.enrol("web")
    for _ in range(2):
        (worker,) = server.node.workers
        with KeyServerClient(credential) as client:
            client.press(flood(VERIFY, "p256", 50_000))
            os.kill(worker, signal.SIGKILL)
            with pytest.raises(OSError):
                client.receive(50_000)
        eventually(lambda: is_served(credential), "another worker serves")
        assert worker not in server.node.workers


def test_sigterm_answers_what_has_arrived_and_then_nobody_is_served(tmp_path: Path) -> None:
    with key_server(tmp_path, ("rsa2048",), processes=2) as server:
        credential = server.enrol("web")
        with KeyServerClient(credential) as client, KeyServerClient(credential) as idle:
            assert idle.is_alive()
            client.send(flood(SIGN_RSA, "rsa2048", 400))
            first = client.receive(1)
            os.kill(server.node.pid, signal.SIGTERM)
            all_answered([*first, *client.receive(399)], 400)
            assert client.is_closed() and idle.is_closed()
        eventually(lambda: not is_served(credential), "it listens no more")


def test_nothing_in_all_this_was_unexpected(server: KeyServerProcess) -> None:
    log = server.node.logged()
    assert "unexpectedly" not in log
    assert "Traceback" not in log
