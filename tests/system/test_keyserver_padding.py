"""Bleichenbacher's question to a real key server: was the padding good? Neither the answer nor its time says so.

Asked are the raw decryption of the published protocol and the bound master secret of TLS 1.2 (X3).
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.support.bound_operations import exchange_messages, extended_master_secret, master_secret
from tests.support.key_pairs import key_pair
from tests.support.key_server_client import KeyServerClient
from tests.support.key_server_process import KeyServerProcess, key_server, ski
from tests.support.key_service import Bench, ask, held
from tests.support.padding_probes import BLOCKS, CONFORMING, probe, separation

from locum.keyless.operations import Decrypt, KeyOperation, Sign
from locum.keyless.registry import Opcode
from locum.keys.file import FileKey
from locum.keys.rejection import take_off_padding
from locum.keyserver.keyring import HeldKey, held_here

#: Standard deviations between two kinds of ciphertexts that are taken for a difference.
DIFFERENT = 6.0
#: Samples of each of two kinds, in turns that nobody can foresee.
SAMPLES = 400

Ask = Callable[[bytes], KeyOperation]
OPERATIONS: dict[str, Ask] = {
    "decrypt": Decrypt,
    "master-secret": master_secret,
    "extended-master-secret": lambda ciphertext: extended_master_secret(ciphertext, exchange_messages(ciphertext)),
}


def public_key() -> rsa.RSAPublicKey:
    public = key_pair("rsa2048").key.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    return public


def message_in(block: bytes) -> bytes:
    message = take_off_padding(block, b"none" * 64)
    assert len(message) <= 245
    return message


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyServerProcess]:
    with key_server(tmp_path_factory.mktemp("keyserver"), ("rsa2048",)) as process:
        yield process


@pytest.fixture(scope="module")
def client(server: KeyServerProcess) -> Iterator[KeyServerClient]:
    with KeyServerClient(server.enrol("probing")) as connection:
        yield connection


# --- the answer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", BLOCKS)
def test_every_padding_gets_an_answer_of_the_same_form_and_always_the_same(
    client: KeyServerClient, operation: str, kind: str
) -> None:
    length = 256 if operation == "decrypt" else 48
    for _ in range(10):
        ciphertext = probe(public_key(), kind)
        request = OPERATIONS[operation](ciphertext)
        first, second = (client.ask(request, ski("rsa2048")) for _ in range(2))
        for answer in (first, second):
            assert (answer.opcode, len(answer.payload), answer.extra) == (Opcode.RESPONSE, length, b"")
        if operation == "decrypt":
            # The padding is new each time; the message is what hangs on the ciphertext.
            assert message_in(first.payload) == message_in(second.payload)
            assert first.payload != second.payload or len(message_in(first.payload)) > 240
        else:
            assert first.payload == second.payload


def test_messages_that_were_made_up_are_as_long_as_any(client: KeyServerClient) -> None:
    lengths = [
        len(message_in(client.ask(Decrypt(probe(public_key(), "random")), ski("rsa2048")).payload))
        for _ in range(60)
    ]
    # Not one length, nor a few: of sixty all lengths up to 245 are likely to be about as many different ones.
    assert len(set(lengths)) > 30
    assert max(lengths) <= 245


def test_good_messages_are_decrypted_so_that_the_probes_are_what_they_seem() -> None:
    private = key_pair("rsa2048").key
    assert isinstance(private, rsa.RSAPrivateKey)
    numbers = private.private_numbers()
    for kind in BLOCKS:
        block = pow(int.from_bytes(probe(public_key(), kind), "big"), numbers.d, public_key().public_numbers().n)
        data = block.to_bytes(256, "big")
        good = data[:2] == b"\0\x02" and data.find(b"\0", 2) >= 10
        assert good == (kind in CONFORMING), kind


# --- the time -----------------------------------------------------------------------------------------------


def interleaved(measure: Callable[[str], float], kinds: tuple[str, str]) -> tuple[list[float], list[float]]:
    """Measure each of both kinds `SAMPLES` times, in an order that nothing can have a rhythm with."""
    order = list(kinds) * SAMPLES
    random.Random(7).shuffle(order)
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for kind in order:
        found[kind].append(measure(kind))
    return found[kinds[0]], found[kinds[1]]


def report(samples: tuple[list[float], list[float]]) -> str:
    medians = [statistics.median(each) / 1000 for each in samples]
    return f"medians of {medians[0]:.1f} and {medians[1]:.1f} microseconds, {separation(*samples):.1f} deviations"


BAD = ("no-separator", "separator-too-early", "first-byte", "random")


@pytest.mark.parametrize("operation", ["decrypt", "master-secret"])
@pytest.mark.parametrize("kind", BAD)
def test_an_edge_cannot_tell_paddings_by_how_long_the_answer_takes(
    client: KeyServerClient, operation: str, kind: str
) -> None:
    samples = interleaved(lambda each: round_trip(client, operation, each), ("good", kind))
    assert abs(separation(*samples)) < DIFFERENT, report(samples)


def test_that_measurement_finds_a_server_that_works_longer_for_good_paddings(client: KeyServerClient) -> None:
    def leaking(kind: str) -> float:
        taken = round_trip(client, "decrypt", kind)
        if kind == "good":
            began = time.perf_counter_ns()
            client.ask(Sign("RSA_PKCS1_SHA256", bytes(32)), ski("rsa2048"))
            taken += time.perf_counter_ns() - began
        return taken

    samples = interleaved(leaking, ("good", "random"))
    assert separation(*samples) > DIFFERENT, report(samples)


def round_trip(client: KeyServerClient, operation: str, kind: str) -> float:
    """Nanoseconds from the request to the answer."""
    request = OPERATIONS[operation](probe(public_key(), kind))
    began = time.perf_counter_ns()
    answer = client.ask(request, ski("rsa2048"))
    taken = time.perf_counter_ns() - began
    assert answer.opcode == Opcode.RESPONSE
    return taken


@pytest.mark.parametrize("operation", ["decrypt", "master-secret"])
@pytest.mark.parametrize("kind", [*BAD, "wrong-version", "short-message"])
def test_the_key_server_spends_the_same_time_of_its_processor_on_every_padding(operation: str, kind: str) -> None:
    samples = measured(held("rsa2048"), operation, kind)
    assert abs(separation(*samples)) < DIFFERENT, report(samples)


def test_that_measurement_finds_a_key_that_looks_twice_at_bad_paddings() -> None:
    samples = measured(held_here("leaking", _Leaking(key_pair("rsa2048").key)), "decrypt", "random")
    assert separation(*samples) < -DIFFERENT, report(samples)


def measured(key: HeldKey, operation: str, kind: str) -> tuple[list[float], list[float]]:
    """Nanoseconds of CPU for "good" and for `kind`, without the network and whoever else wants the processor."""
    connection = Bench([key]).connection()
    ask(connection, OPERATIONS[operation](probe(public_key(), "good")), key)

    def measure(each: str) -> float:
        request = OPERATIONS[operation](probe(public_key(), each))
        began = time.thread_time_ns()
        ask(connection, request, key)
        return time.thread_time_ns() - began

    return interleaved(measure, ("good", kind))


class _Leaking(FileKey):
    """Decrypts, and then does a little more for a padding that is not good: as a log message would be."""

    def decrypt_pkcs1(self, ciphertext: bytes) -> bytes:
        message = super().decrypt_pkcs1(ciphertext)
        if len(message) != 48:
            for _ in range(40):
                ciphertext = bytes(reversed(ciphertext))
        return message
