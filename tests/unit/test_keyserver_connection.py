"""A connection of the key server, in memory: what is asked, what is answered, and in whose turn (X3, X5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from tests.support.key_pairs import key_pair
from tests.support.key_service import NOW, Bench, answered, ask, asked, certificate, edge, held

from locum.errors import Refused, Unavailable
from locum.keyless.frames import Frame, KeyReference, encode_frame
from locum.keyless.operations import CertificateVerify, ClientVerify, Decrypt, Role, ServerKeyExchange, Sign
from locum.keyless.queries import (
    CertificateAnswer,
    CertificateNamesQuery,
    CertificateQuery,
    KeysAnswer,
    KeysQuery,
    TicketsAnswer,
    TicketsQuery,
    decode_answer,
)
from locum.keyless.registry import ErrorCode, Opcode
from locum.keyless.requests import Ping, Request, Seal, Unseal, encode_request
from locum.keyserver.keyring import held_elsewhere
from locum.keyserver.limits import Limits
from locum.keyserver.shared import SEAL_PERIOD
from locum.store.records import Allow, EdgeRole

P256, P384, RSA, ED25519 = held("p256"), held("p384"), held("rsa2048"), held("ed25519")
KEYS = (P256, P384, RSA, ED25519)
DIGEST = bytes(range(32))
SIGN_P256 = Sign("ECDSA_SECP256R1_SHA256", DIGEST)
SIGN_RSA = Sign("RSA_PKCS1_SHA256", DIGEST)
VERIFY_P256 = CertificateVerify("ECDSA_SECP256R1_SHA256", Role.SERVER, DIGEST)


def code(answer: Frame) -> ErrorCode:
    """The error that an answer is."""
    assert answer.opcode == Opcode.ERROR
    return ErrorCode(answer.payload[0])


def verify_p256(signature: bytes, digest: bytes) -> None:
    public = key_pair("p256").key.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(signature, digest, ec.ECDSA(Prehashed(hashes.SHA256())))


# --- operations -------------------------------------------------------------------------------------------


def test_a_digest_is_signed_with_the_key_that_is_meant() -> None:
    answer = ask(Bench(KEYS).connection(), SIGN_P256, P256)
    assert answer.opcode == Opcode.RESPONSE
    verify_p256(answer.payload, DIGEST)


def test_a_request_that_is_recognised_is_answered_like_the_first_of_its_kind() -> None:
    connection = Bench(KEYS).connection()
    for number in range(3):
        digest = bytes([number]) * 32
        verify_p256(ask(connection, replace(SIGN_P256, content=digest), P256).payload, digest)


def test_every_signature_has_its_own_digest_when_many_arrive_at_once() -> None:
    connection = Bench(KEYS).connection()
    digests = {number: bytes([number]) * 32 for number in range(1, 40)}
    data = b"".join(asked(replace(SIGN_P256, content=digest), P256, n) for n, digest in digests.items())
    connection.receive(data)
    answers = answered(connection.turn(only_short=False))
    assert sorted(answer.id for answer in answers) == sorted(digests)
    for answer in answers:
        verify_p256(answer.payload, digests[answer.id])


def test_requests_are_answered_alike_however_the_stream_is_cut() -> None:
    data = b"".join(asked(replace(SIGN_RSA, content=bytes([n]) * 32), RSA, n) for n in range(5))
    expected: list[Frame] | None = None
    for size in (len(data), 1, 7, 61, 64):
        connection = Bench(KEYS).connection()
        answers = b""
        for start in range(0, len(data), size):
            connection.receive(data[start : start + size])
            answers += connection.turn(only_short=False)
        expected = expected or answered(answers)
        assert answered(answers) == expected


def test_padding_and_another_order_of_items_make_no_difference() -> None:
    connection = Bench(KEYS).connection()
    items = b"\x12\x00\x20" + DIGEST + b"\x20\x00\x05zzzzz" + b"\x04\x00\x14" + RSA.ski + b"\x11\x00\x01\x05"
    for number in (1, 2):
        connection.receive(b"\x01\x00" + len(items).to_bytes(2, "big") + number.to_bytes(4, "big") + items)
        (answer,) = answered(connection.turn(only_short=False))
        assert answer.payload == ask(Bench(KEYS).connection(), SIGN_RSA, RSA).payload


def test_what_comes_after_the_digest_of_a_recognised_request_is_never_signed() -> None:
    connection = Bench(KEYS).connection()
    plain = ask(connection, SIGN_RSA, RSA).payload
    # As long as a request that is known, and with other bytes at its end: the digest is elsewhere.
    items = b"\x11\x00\x01\x05\x04\x00\x14" + RSA.ski + b"\x12\x00\x20" + DIGEST
    shuffled = b"\x12\x00\x20" + DIGEST + b"\x11\x00\x01\x05" + b"\x04\x00\x14" + RSA.ski
    assert len(items) == len(shuffled)
    connection.receive(b"\x01\x00" + len(items).to_bytes(2, "big") + b"\0\0\0\x01" + shuffled)
    (answer,) = answered(connection.turn(only_short=False))
    assert answer.payload == plain


def test_keys_are_found_by_digest_and_by_server_name() -> None:
    bench = Bench(KEYS, certificates=[certificate(RSA, ["*.example.com", "example.com"])])
    connection = bench.connection()
    expected = ask(connection, SIGN_RSA, RSA).payload
    for reference in (
        KeyReference(digest=RSA.digest),
        KeyReference(server_name="www.example.com"),
        KeyReference(server_name="EXAMPLE.com"),
    ):
        connection.receive(encode_request(1, SIGN_RSA, reference))
        (answer,) = answered(connection.turn(only_short=False))
        assert answer.payload == expected, reference


def test_a_decrypted_message_comes_in_a_block_of_its_own() -> None:
    public = key_pair("rsa2048").key.public_key()
    ciphertext = public.encrypt(b"message", padding.PKCS1v15())  # type: ignore[union-attr]
    block = ask(Bench(KEYS).connection(), Decrypt(ciphertext), RSA).payload
    assert len(block) == 256
    assert block.startswith(b"\0\x02")
    assert block.endswith(b"\0message")


def test_a_ciphertext_that_is_none_gives_a_block_like_any_other() -> None:
    connection = Bench(KEYS).connection()
    first, second = (ask(connection, Decrypt(b"\x01" * 256), RSA) for _ in range(2))
    assert first.opcode == second.opcode == Opcode.RESPONSE
    assert first.payload.startswith(b"\0\x02")
    message = first.payload[first.payload.index(b"\0", 2) :]
    assert second.payload.endswith(message), "the same ciphertext gives the same message"


@pytest.mark.parametrize(
    ("request_", "key"),
    [
        (SIGN_RSA, P256),
        (SIGN_P256, RSA),
        (Sign("ED25519", b"any message", prehashed=False), P256),
        (Sign("ED25519", b"any message", prehashed=False), RSA),
        (SIGN_RSA, ED25519),
        (Decrypt(b"\x01" * 256), P256),
        (Decrypt(b"\x01" * 256), ED25519),
        (CertificateVerify("RSA_PKCS1_SHA256", Role.SERVER, DIGEST), RSA),
        (CertificateVerify("ECDSA_SECP384R1_SHA384", Role.SERVER, DIGEST), P256),
    ],
    ids=[
        "rsa-opcode-on-p256",
        "ecdsa-opcode-on-rsa",
        "ed25519-opcode-on-p256",
        "ed25519-opcode-on-rsa",
        "rsa-opcode-on-ed25519",
        "decrypt-on-p256",
        "decrypt-on-ed25519",
        "pkcs1-in-tls13",
        "another-curve-in-tls13",
    ],
)
def test_operation_and_key_must_fit(request_: Request, key: object) -> None:
    connection = Bench(KEYS).connection()
    assert code(ask(connection, request_, key)) is ErrorCode.CRYPTO  # type: ignore[arg-type]


def test_hashes_that_are_not_safe_are_refused_unless_the_server_is_told_otherwise() -> None:
    request = Sign("RSA_PKCS1_SHA1", b"d" * 20)
    assert code(ask(Bench(KEYS).connection(), request, RSA)) is ErrorCode.CRYPTO
    assert ask(Bench(KEYS, legacy_hashes=True).connection(), request, RSA).opcode == Opcode.RESPONSE


# --- permissions ------------------------------------------------------------------------------------------


def test_an_edge_without_raw_permission_gets_nothing_signed_that_is_not_tls() -> None:
    connection = Bench(KEYS, [edge(allow=Allow.BOUND)]).connection()
    for request, key in (
        (SIGN_P256, P256),
        (SIGN_RSA, RSA),
        (Sign("ED25519", b"m", prehashed=False), ED25519),
        (Decrypt(b"\x01" * 256), RSA),
        (Sign("RSA_PSS_PSS_SHA256", b"not a digest", prehashed=False), RSA),
    ):
        answer = ask(connection, request, key)
        assert code(answer) is ErrorCode.CRYPTO
        assert b"bound to TLS only" in answer.extra
    assert ask(connection, VERIFY_P256, P256).opcode == Opcode.RESPONSE


def test_an_edge_with_raw_permission_alone_may_not_use_bound_operations() -> None:
    connection = Bench(KEYS, [edge(allow=Allow.RAW)]).connection()
    assert code(ask(connection, VERIFY_P256, P256)) is ErrorCode.CRYPTO
    assert ask(connection, SIGN_P256, P256).opcode == Opcode.RESPONSE


def test_whose_handshakes_are_signed_depends_on_the_role() -> None:
    bench = Bench(KEYS, [edge(roles=EdgeRole.SERVER)])
    connection = bench.connection()
    as_client = replace(VERIFY_P256, role=Role.CLIENT)
    exchange = ServerKeyExchange("ECDSA_SECP256R1_SHA256", bytes(32), bytes(32), b"\x03\0\x1d\x20" + bytes(32))
    assert ask(connection, VERIFY_P256, P256).opcode == Opcode.RESPONSE
    assert ask(connection, exchange, P256).opcode == Opcode.RESPONSE
    for request in (as_client, ClientVerify("ECDSA_SECP256R1_SHA256", b"messages")):
        assert b"no TLS client" in ask(connection, request, P256).extra
    bench.permit(roles=EdgeRole.CLIENT)
    assert ask(connection, as_client, P256).opcode == Opcode.RESPONSE
    for request in (VERIFY_P256, exchange):
        assert b"no TLS server" in ask(connection, request, P256).extra
    assert b"no TLS server" in ask(connection, TicketsQuery()).extra


def test_a_key_that_an_edge_may_not_use_looks_like_one_that_is_not_there() -> None:
    connection = Bench(KEYS, [edge(keys=("p256",))]).connection()
    not_allowed = ask(connection, SIGN_RSA, RSA)
    missing = ask(connection, SIGN_RSA, held("rsa2048", number=1))
    assert code(not_allowed) is ErrorCode.KEY_NOT_FOUND
    assert not_allowed == missing


def test_a_permission_that_is_withdrawn_ends_for_requests_that_are_recognised_too() -> None:
    bench = Bench(KEYS)
    connection = bench.connection()
    assert ask(connection, SIGN_P256, P256).opcode == Opcode.RESPONSE
    bench.permit(allow=Allow.BOUND)
    assert code(ask(connection, SIGN_P256, P256)) is ErrorCode.CRYPTO
    bench.permit(keys=("rsa2048",))
    assert code(ask(connection, VERIFY_P256, P256)) is ErrorCode.KEY_NOT_FOUND


@pytest.mark.parametrize("end", ["revoked", "removed", "expired"])
def test_an_edge_that_is_cut_off_gets_no_answer_and_no_connection(end: str) -> None:
    bench = Bench(KEYS)
    connection = bench.connection()
    ask(connection, SIGN_P256, P256)
    if end == "revoked":
        bench.permit(revoked=NOW)
    elif end == "removed":
        bench.change(edges=[edge("other")])
    else:
        bench.now += 366 * 86_400
    connection.receive(asked(SIGN_P256, P256))
    assert connection.turn(only_short=False) == b""
    assert connection.closing
    assert connection.idle
    assert ("keyserver", "keyserver.connection") in [entry[:2] for entry in bench.audited()]


def test_a_stranger_gets_no_answer() -> None:
    connection = Bench(KEYS).connection("nobody")
    connection.receive(asked(Ping()))
    assert connection.turn(only_short=False) == b""
    assert connection.closing


def test_an_edge_that_asks_more_often_than_it_may_is_put_off() -> None:
    bench = Bench(KEYS, [edge(rate=10.0)])
    connection = bench.connection()
    answers = [ask(connection, SIGN_P256, P256) for _ in range(12)]
    assert [answer.opcode for answer in answers] == [Opcode.RESPONSE] * 10 + [Opcode.ERROR] * 2
    assert code(answers[-1]) is ErrorCode.INTERNAL
    assert ask(connection, Ping(b"still there?")).payload == b"still there?"
    bench.clock += 0.5
    again = [ask(connection, SIGN_P256, P256) for _ in range(6)]
    assert [answer.opcode for answer in again] == [Opcode.RESPONSE] * 5 + [Opcode.ERROR]


def test_a_batch_counts_as_often_as_it_has_requests() -> None:
    connection = Bench(KEYS, [edge(rate=10.0)]).connection()
    connection.receive(b"".join(asked(SIGN_P256, P256, number) for number in range(20)))
    answers = answered(connection.turn(only_short=False))
    assert [answer.opcode for answer in answers] == [Opcode.RESPONSE] * 10 + [Opcode.ERROR] * 10


def test_without_a_look_at_the_databases_for_long_nothing_is_performed() -> None:
    bench = Bench(KEYS)
    connection = bench.connection()
    ask(connection, SIGN_P256, P256)
    bench.service.suspended = True
    assert code(ask(connection, SIGN_P256, P256)) is ErrorCode.INTERNAL


# --- the protocol -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (Frame(1, 0x77), ErrorCode.BAD_OPCODE),
        (Frame(1, Opcode.RPC, b"x"), ErrorCode.BAD_OPCODE),
        (Frame(1, Opcode.RESPONSE, b"x"), ErrorCode.UNEXPECTED_OPCODE),
        (Frame(1, Opcode.PONG), ErrorCode.UNEXPECTED_OPCODE),
        (Frame(1, Opcode.ERROR, b"\x01"), ErrorCode.UNEXPECTED_OPCODE),
        (Frame(1, Opcode.CUSTOM, b"", function=b"locum/raw"), ErrorCode.BAD_OPCODE),
        (Frame(1, Opcode.CUSTOM, b"\xff", function=b"locum/keys"), ErrorCode.FORMAT),
        (Frame(1, Opcode.RSA_SIGN_SHA256, b"short", RSA.ski), ErrorCode.FORMAT),
        (Frame(1, Opcode.RSA_SIGN_SHA256, DIGEST), ErrorCode.KEY_NOT_FOUND),
        (Frame(1, Opcode.UNSEAL, b"nothing"), ErrorCode.FORMAT),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, ErrorCode) else f"{value.opcode:02x}",
)
def test_a_bad_request_gets_its_error_and_the_next_one_its_answer(frame: Frame, expected: ErrorCode) -> None:
    connection = Bench(KEYS).connection()
    connection.receive(encode_frame(frame) + asked(Ping(b"x")))
    error, pong = answered(connection.turn(only_short=False))
    assert code(error) is expected
    assert (pong.opcode, pong.payload) == (Opcode.PONG, b"x")
    assert not connection.closing


@pytest.mark.parametrize(
    ("header", "expected"),
    [(b"\x02\x00\x00\x00\x00\x00\x00\x09", ErrorCode.VERSION_MISMATCH), (b"GET / HT", ErrorCode.VERSION_MISMATCH)],
    ids=["version-2", "http"],
)
def test_a_stream_of_something_else_ends_with_an_error(header: bytes, expected: ErrorCode) -> None:
    connection = Bench(KEYS).connection()
    connection.receive(asked(SIGN_P256, P256) + header + b"x" * 100)
    answers = answered(connection.turn(only_short=False))
    assert [answer.opcode for answer in answers] == [Opcode.RESPONSE, Opcode.ERROR]
    assert code(answers[1]) is expected
    assert connection.closing
    connection.receive(asked(SIGN_P256, P256))
    assert connection.turn(only_short=False) == b""


def test_the_keys_that_an_edge_may_use_are_offered_as_it_may_use_them() -> None:
    connection = Bench(
        KEYS, [edge(keys=("rsa2048", "p256"), allow=Allow.BOUND, roles=EdgeRole.SERVER)]
    ).connection()
    answer = decode_answer(KeysQuery(), ask(connection, KeysQuery()).payload)
    assert isinstance(answer, KeysAnswer)
    assert [(key.name, key.raw, key.bound, key.server, key.client) for key in answer.keys] == [
        ("p256", False, True, True, False),
        ("rsa2048", False, True, True, False),
    ]
    assert answer.keys[1].public_key == RSA.public_key


def test_a_certificate_is_handed_out_for_its_names_until_it_ends() -> None:
    served = certificate(RSA, ["www.example.com"], ocsp=b"staple", not_after=NOW + 100)
    bench = Bench(KEYS, certificates=[served])
    connection = bench.connection()
    query = CertificateQuery(server_name="www.example.com")
    answer = decode_answer(query, ask(connection, query).payload)
    assert isinstance(answer, CertificateAnswer)
    assert (answer.chain, answer.ski, answer.ocsp_response) == (served.chain, RSA.ski, b"staple")
    assert answer.lifetime == 100
    other = ask(connection, CertificateQuery(server_name="other.example.com"))
    assert code(other) is ErrorCode.CERTIFICATE_NOT_FOUND
    bench.now += 101
    assert code(ask(connection, query)) is ErrorCode.CERTIFICATE_NOT_FOUND


def test_certificates_are_for_edges_that_may_fetch_them_and_use_their_keys() -> None:
    served = [certificate(RSA, ["rsa.example.com"]), certificate(P256, ["p256.example.com"])]
    bench = Bench(KEYS, [edge(keys=("p256",))], served)
    connection = bench.connection()
    names = decode_answer(CertificateNamesQuery(), ask(connection, CertificateNamesQuery()).payload)
    assert names.names == ("p256.example.com",)  # type: ignore[union-attr]
    missing = ask(connection, CertificateQuery(server_name="rsa.example.com"))
    assert code(missing) is ErrorCode.CERTIFICATE_NOT_FOUND
    bench.permit(certificates=False)
    assert code(ask(connection, CertificateQuery(server_name="p256.example.com"))) is ErrorCode.CRYPTO


def test_edges_that_may_use_the_same_keys_get_the_same_root_of_ticket_keys() -> None:
    bench = Bench(KEYS, [edge("one", keys=("p256", "rsa")), edge("two", keys=("rsa", "p256"))])
    first, second = tickets_of(bench, "one", "two")
    assert first == second
    assert 0 < first.lifetime <= 600


def test_an_edge_of_other_keys_cannot_open_the_tickets_of_this_ones_sites() -> None:
    bench = Bench(KEYS, [edge("one", keys=("p256", "rsa")), edge("two", keys=("p256",)), edge("three")])
    assert len({answer.root for answer in tickets_of(bench, "one", "two", "three")}) == 3


def tickets_of(bench: Bench, *edges: str) -> list[TicketsAnswer]:
    answers = [ask(bench.connection(name), TicketsQuery()).payload for name in edges]
    found = [decode_answer(TicketsQuery(), each) for each in answers]
    assert all(isinstance(each, TicketsAnswer) for each in found)
    return found  # type: ignore[return-value]


def test_what_was_sealed_for_an_edge_is_opened_for_it_alone_and_for_a_time() -> None:
    bench = Bench(KEYS, [edge("one"), edge("two")])
    connection = bench.connection("one")
    sealed = ask(connection, Seal(b"ticket")).payload
    assert b"ticket" not in sealed
    assert ask(connection, Unseal(sealed)).payload == b"ticket"
    assert code(ask(bench.connection("two"), Unseal(sealed))) is ErrorCode.CRYPTO
    altered = sealed[:-1] + bytes([sealed[-1] ^ 1])
    assert code(ask(connection, Unseal(altered))) is ErrorCode.CRYPTO
    bench.now += 2 * SEAL_PERIOD
    assert code(ask(connection, Unseal(sealed))) is ErrorCode.EXPIRED


# --- turns ------------------------------------------------------------------------------------------------


def test_long_operations_are_left_for_later_where_only_short_ones_are_done() -> None:
    connection = Bench(KEYS).connection()
    connection.receive(asked(SIGN_P256, P256, 1) + asked(SIGN_RSA, RSA, 2) + asked(SIGN_P256, P256, 3))
    assert [answer.id for answer in answered(connection.turn(only_short=True))] == [1]
    assert connection.ready
    assert [answer.id for answer in answered(connection.turn(only_short=False))] == [2, 3]
    assert not connection.ready


def test_a_long_operation_that_is_recognised_is_left_for_later_as_well() -> None:
    connection = Bench(KEYS).connection()
    ask(connection, SIGN_RSA, RSA)
    connection.receive(asked(SIGN_RSA, RSA))
    assert connection.turn(only_short=True) == b""
    assert answered(connection.turn(only_short=False))


def test_one_turn_does_no_more_than_the_limits_say() -> None:
    connection = Bench(KEYS, limits=Limits(turn=3 * RSA.cost)).connection()
    connection.receive(b"".join(asked(SIGN_RSA, RSA, number) for number in range(10)))
    sizes = []
    while connection.ready:
        sizes.append(len(answered(connection.turn(only_short=False))))
    assert sizes == [3, 3, 3, 1]
    assert connection.waiting == 0


# --- keys that are elsewhere ------------------------------------------------------------------------------


class Far:
    """A holder that the test answers for."""

    public_key = RSA.public_key

    async def perform(self, operation: object) -> bytes:
        raise AssertionError("the connection asks nobody itself")


@pytest.fixture
def far() -> Iterator[Bench]:
    yield Bench([held_elsewhere("far", Far()), P256], limits=Limits(under_way=2))


def test_an_operation_performed_elsewhere_is_answered_when_it_is_done(far: Bench) -> None:
    connection = far.connection()
    connection.receive(asked(SIGN_RSA, RSA, 1) + asked(SIGN_P256, P256, 2))
    assert [answer.id for answer in answered(connection.turn(only_short=True))] == [2]
    (deferred,) = connection.take_deferred()
    assert deferred.operation == SIGN_RSA
    assert not connection.idle
    (answer,) = answered(connection.complete(deferred, b"signature"))
    assert (answer.id, answer.opcode, answer.payload) == (1, Opcode.RESPONSE, b"signature")
    assert connection.idle
    assert ("edge:edge", "keyserver.use", "far", "ok", "sign RSA_PKCS1_SHA256") in far.audited()


def test_an_operation_that_fails_elsewhere_says_whether_another_server_may_do_it(far: Bench) -> None:
    connection = far.connection()
    for error, expected in ((Unavailable("gone"), ErrorCode.INTERNAL), (Refused("no"), ErrorCode.CRYPTO)):
        connection.receive(asked(SIGN_RSA, RSA))
        connection.turn(only_short=True)
        (deferred,) = connection.take_deferred()
        (answer,) = answered(connection.fail(deferred, error))
        assert code(answer) is expected


def test_so_many_operations_are_under_way_elsewhere_and_the_others_wait(far: Bench) -> None:
    connection = far.connection()
    connection.receive(b"".join(asked(SIGN_RSA, RSA, number) for number in range(5)))
    connection.turn(only_short=True)
    waiting = connection.take_deferred()
    assert len(waiting) == 2
    assert not connection.ready
    connection.complete(waiting[0], b"signature")
    assert connection.ready
    connection.turn(only_short=True)
    assert len(connection.take_deferred()) == 1


def test_an_edge_that_was_revoked_meanwhile_gets_no_result(far: Bench) -> None:
    connection = far.connection()
    connection.receive(asked(SIGN_RSA, RSA))
    connection.turn(only_short=True)
    (deferred,) = connection.take_deferred()
    far.permit(revoked=NOW)
    assert connection.complete(deferred, b"signature") == b""
    assert connection.closing


# --- the audit log ----------------------------------------------------------------------------------------


def test_equal_uses_of_a_key_are_one_entry_with_their_number() -> None:
    bench = Bench(KEYS)
    connection = bench.connection()
    for _ in range(3):
        ask(connection, SIGN_P256, P256)
    ask(connection, VERIFY_P256, P256)
    assert bench.audited() == [
        ("edge:edge", "keyserver.use", "p256", "ok", "sign ECDSA_SECP256R1_SHA256 (3 times)"),
        ("edge:edge", "keyserver.use", "p256", "ok", "certificate-verify ECDSA_SECP256R1_SHA256"),
    ]
    ask(connection, SIGN_P256, P256)
    assert bench.audited()[2:] == [("edge:edge", "keyserver.use", "p256", "ok", "sign ECDSA_SECP256R1_SHA256")]


def test_uses_that_were_counted_before_a_change_of_the_databases_are_not_lost() -> None:
    bench = Bench(KEYS)
    connection = bench.connection()
    ask(connection, SIGN_P256, P256)
    bench.change()
    ask(connection, SIGN_P256, P256)
    assert [entry[4] for entry in bench.audited()] == ["sign ECDSA_SECP256R1_SHA256"] * 2


def test_refusals_are_audited_and_cannot_fill_the_log() -> None:
    bench = Bench(KEYS, [edge(allow=Allow.BOUND)])
    connection = bench.connection()
    for number in range(200):
        ask(connection, SIGN_P256, P256)
        connection.receive(encode_frame(Frame(1, Opcode.RSA_SIGN_SHA256, bytes(number % 30), RSA.ski)))
        connection.turn(only_short=False)
    entries = bench.audited()
    assert len(entries) <= 17
    assert (
        "edge:edge",
        "keyserver.refusal",
        "p256",
        "refused",
        "sign ECDSA_SECP256R1_SHA256: this edge may use operations bound to TLS only (200 times)",
    ) in entries


def test_counters_tell_what_became_of_requests() -> None:
    bench = Bench(KEYS, [edge(rate=3.0)])
    connection = bench.connection()
    for request, key in ((SIGN_P256, P256), (SIGN_P256, P256), (SIGN_P256, RSA), (SIGN_P256, P256)):
        ask(connection, request, key)
    counters = bench.service.counters
    assert (counters.requests, counters.performed, counters.refused, counters.failed) == (4, 2, 1, 1)
