"""Requests of the keyless protocol: every operation and query there and back, and every fault with its code."""

from __future__ import annotations

import cbor2
import pytest

from locum.errors import DecodeError
from locum.handshake import MAX_CHAIN
from locum.keyless.bound import SHAPES
from locum.keyless.errors import RequestFault
from locum.keyless.frames import Frame, FrameReader, KeyReference, encode_response
from locum.keyless.opcodes import pad_block
from locum.keyless.operations import (
    MAX_CONTENT,
    CertificateVerify,
    ClientVerify,
    Decrypt,
    MasterSecret,
    Role,
    ServerKeyExchange,
    Sign,
)
from locum.keyless.queries import (
    MAX_CERTIFICATE_NAMES,
    MAX_OCSP,
    Answer,
    CertificateAnswer,
    CertificateNamesAnswer,
    CertificateNamesQuery,
    CertificateQuery,
    KeysAnswer,
    KeysQuery,
    OfferedKey,
    Query,
    TicketsAnswer,
    TicketsQuery,
    decode_answer,
    encode_answer,
    keys_page,
    names_page,
)
from locum.keyless.registry import LEGACY_SCHEMES, MAX_BODY, SIGNING, ErrorCode, Function, Opcode
from locum.keyless.requests import MAX_SEALED, Ping, Request, Seal, Unseal, decode_request, encode_request
from locum.keys.rejection import take_off_padding
from locum.tls.registry import SignatureScheme

KEY = KeyReference(ski=b"s" * 20)
#: The opcodes as the published protocol numbers them, with scheme and length of the digest.
PUBLISHED = {
    0x02: ("RSA_PKCS1_MD5_SHA1", 36),
    0x03: ("RSA_PKCS1_SHA1", 20),
    0x04: ("RSA_PKCS1_SHA224", 28),
    0x05: ("RSA_PKCS1_SHA256", 32),
    0x06: ("RSA_PKCS1_SHA384", 48),
    0x07: ("RSA_PKCS1_SHA512", 64),
    0x12: ("ECDSA_MD5_SHA1", 36),
    0x13: ("ECDSA_SHA1", 20),
    0x14: ("ECDSA_SHA224", 28),
    0x15: ("ECDSA_SECP256R1_SHA256", 32),
    0x16: ("ECDSA_SECP384R1_SHA384", 48),
    0x17: ("ECDSA_SECP521R1_SHA512", 64),
    0x35: ("RSA_PSS_RSAE_SHA256", 32),
    0x36: ("RSA_PSS_RSAE_SHA384", 48),
    0x37: ("RSA_PSS_RSAE_SHA512", 64),
}
REQUESTS: list[Request] = [
    Decrypt(b"c" * 256),
    Sign("ED25519", b"the whole message", prehashed=False),
    Sign("MLDSA65", b"the whole message", prehashed=False),
    Sign("ED448", b"m" * MAX_CONTENT, prehashed=False),
    Sign("RSA_PKCS1_SHA256", b"not a digest", prehashed=False),
    CertificateVerify("ECDSA_SECP256R1_SHA256", Role.SERVER, b"h" * 32),
    CertificateVerify("RSA_PSS_RSAE_SHA384", Role.CLIENT, b"h" * 48),
    CertificateVerify("ED25519", Role.SERVER, b"h" * 20),
    ServerKeyExchange("RSA_PKCS1_SHA256", b"c" * 32, b"s" * 32, b"\x03\x00\x17\x41" + b"p" * 65),
    ClientVerify("ECDSA_SECP384R1_SHA384", b"m" * MAX_CONTENT),
    MasterSecret(b"c" * 256, 0x0303, b"c" * 32, b"r" * 32, b"s" * 32, "sha384", True, b"m" * MAX_CONTENT),
    MasterSecret(b"c" * 1024, 0x0303, b"c" * 32, b"r" * 32, b"s" * 32, extended=False),
    Ping(b"anybody?"),
    Seal(b"content"),
    Unseal(b"sealed"),
    KeysQuery(),
    KeysQuery(start=100),
    CertificateQuery(server_name="a.test"),
    CertificateNamesQuery(start=7),
    TicketsQuery(),
]


def read(data: bytes) -> Frame:
    (frame,) = FrameReader().feed(data)
    return frame


def fault_of(frame: Frame) -> ErrorCode:
    with pytest.raises(RequestFault) as caught:
        decode_request(frame)
    return caught.value.code


def name_of(value: object) -> str:
    return f"{type(value).__name__}-{REQUESTS.index(value)}" if value in REQUESTS else repr(value)  # type: ignore[operator]


@pytest.mark.parametrize("request_", REQUESTS, ids=name_of)
def test_a_request_is_read_back_as_it_was_written(request_: Request) -> None:
    frame = read(encode_request(3, request_, KEY))
    assert decode_request(frame) == request_
    assert frame.reference == KEY


@pytest.mark.parametrize("opcode", PUBLISHED, ids=lambda opcode: f"{opcode:02x}")
def test_the_opcodes_for_signing_are_those_of_the_published_protocol(opcode: int) -> None:
    scheme, length = PUBLISHED[opcode]
    operation = Sign(scheme, b"d" * length)
    frame = read(encode_request(1, operation, KEY))
    assert (frame.opcode, frame.payload) == (opcode, b"d" * length)
    assert decode_request(frame) == operation
    assert fault_of(Frame(1, opcode, b"d" * (length - 1), b"s" * 20)) is ErrorCode.FORMAT
    assert fault_of(Frame(1, opcode, b"", b"s" * 20)) is ErrorCode.FORMAT


def test_every_opcode_for_signing_is_tested_and_the_unsafe_hashes_are_marked() -> None:
    assert set(SIGNING) == {*PUBLISHED, 0x18}
    assert {scheme for scheme, length in PUBLISHED.values() if length in (20, 28, 36)} == LEGACY_SCHEMES


def test_an_rsa_key_for_pss_only_signs_with_the_opcodes_of_pss() -> None:
    frame = read(encode_request(1, Sign("RSA_PSS_PSS_SHA256", b"d" * 32), KEY))
    assert frame.opcode == Opcode.RSA_PSS_SIGN_SHA256


@pytest.mark.parametrize("reference", [KeyReference(digest=b"d" * 32), KeyReference(server_name="a.test")])
def test_a_key_goes_by_any_of_its_names(reference: KeyReference) -> None:
    assert read(encode_request(1, Decrypt(b"c"), reference)).reference == reference


@pytest.mark.parametrize("scheme", SignatureScheme, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("role", Role, ids=lambda role: role.name)
@pytest.mark.parametrize("length", [0, 32, 48, 64])
def test_the_short_way_of_a_certificate_verify_writes_and_reads_what_the_long_one_does(
    scheme: SignatureScheme, role: Role, length: int
) -> None:
    operation = CertificateVerify(scheme.name, role, b"h" * length)
    payload = cbor2.dumps(SHAPES[Function.CERTIFICATE_VERIFY].encode(operation))
    frame = read(encode_request(1, operation, KEY))
    assert (frame.function, frame.payload) == (Function.CERTIFICATE_VERIFY, payload)
    assert decode_request(frame) == operation


# --- faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (Frame(1, Opcode.MALFORMED, extra=b"why"), ErrorCode.FORMAT),
        (Frame(1, Opcode.MALFORMED), ErrorCode.FORMAT),
        (Frame(1, 0x08), ErrorCode.BAD_OPCODE),
        (Frame(1, 0x77), ErrorCode.BAD_OPCODE),
        (Frame(1, Opcode.RPC), ErrorCode.BAD_OPCODE),
        (Frame(1, Opcode.CUSTOM), ErrorCode.BAD_OPCODE),
        (Frame(1, Opcode.CUSTOM, function=b"locum/nothing"), ErrorCode.BAD_OPCODE),
        (Frame(1, Opcode.RESPONSE, b"x"), ErrorCode.UNEXPECTED_OPCODE),
        (Frame(1, Opcode.PONG), ErrorCode.UNEXPECTED_OPCODE),
        (Frame(1, Opcode.ERROR), ErrorCode.UNEXPECTED_OPCODE),
        (Frame(1, Opcode.RSA_DECRYPT, bytes(1025)), ErrorCode.FORMAT),
        (Frame(1, Opcode.ED25519_SIGN, bytes(MAX_CONTENT + 1)), ErrorCode.FORMAT),
        (Frame(1, Opcode.SEAL, bytes(MAX_SEALED + 1)), ErrorCode.FORMAT),
    ],
    ids=range(13),
)
def test_what_cannot_be_asked_has_its_code(frame: Frame, code: ErrorCode) -> None:
    assert fault_of(frame) is code


VERIFY = {1: 0x0403, 2: 0, 3: b"h" * 32}


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        cbor2.dumps(VERIFY) + b"\0",
        cbor2.dumps([VERIFY]),
        cbor2.dumps({1: 0x0403, 2: 0}),
        cbor2.dumps(VERIFY | {4: 1}),
        cbor2.dumps(VERIFY | {0: 1}),
        cbor2.dumps(VERIFY | {1: 0x0808 + 0x4000}),
        cbor2.dumps(VERIFY | {1: "ED25519"}),
        cbor2.dumps(VERIFY | {2: 2}),
        cbor2.dumps(VERIFY | {2: False}),
        cbor2.dumps(VERIFY | {3: b"h" * 65}),
        cbor2.dumps(VERIFY | {3: "h" * 32}),
        cbor2.dumps({1: 0x0403, 2: 0, 3.0: b"h" * 32}),
        cbor2.dumps(cbor2.CBORTag(55799, VERIFY)),
        b"\xbf\x01\x19\x04\x03\x02\x00\x03\x58\x20" + b"h" * 32 + b"\xff",
        b"\xa3\x01\x1a\x00\x00\x04\x03\x02\x00\x03\x58\x20" + b"h" * 32,
    ],
    ids=range(17),
)
def test_a_malformed_function_call_is_a_fault_of_its_format(payload: bytes) -> None:
    frame = Frame(1, Opcode.CUSTOM, payload, b"s" * 20, function=Function.CERTIFICATE_VERIFY)
    assert fault_of(frame) is ErrorCode.FORMAT


@pytest.mark.parametrize("name", ["", "ED25519\n", "of mine", "x" * 49, "ED25519" * 7, 7, b"ED25519"], ids=repr)
def test_the_name_of_a_raw_scheme_has_no_room_for_other_words(name: object) -> None:
    payload = cbor2.dumps({1: name, 2: b"content", 3: False})
    frame = Frame(1, Opcode.CUSTOM, payload, b"s" * 20, function=Function.SIGN)
    assert fault_of(frame) is ErrorCode.FORMAT


def test_a_scheme_that_is_not_of_tls_does_not_travel_in_a_bound_operation() -> None:
    with pytest.raises(ValueError, match="not a signature scheme of TLS"):
        encode_request(1, CertificateVerify("IKE_RSA_PKCS1_SHA1", Role.SERVER, bytes(32)), KEY)


# --- the padded block -------------------------------------------------------------------------------------


def test_a_decryption_is_answered_with_a_whole_block() -> None:
    sources = iter((b"\0\1\0\2\0\3\0\4", b"\0\5\0\6", b"\7\x08"))
    block = pad_block(b"mm", 13, lambda length: next(sources)[:length])
    assert block == b"\0\x02\1\2\3\4\5\6\7\x08\0mm"
    assert take_off_padding(block, b"?") == b"mm"


@pytest.mark.parametrize("length", [0, 1, 48, 245])
def test_a_message_of_any_length_comes_out_of_its_block(length: int) -> None:
    block = pad_block(bytes(length), 256, lambda count: b"\xaa" * count)
    assert len(block) == 256
    assert take_off_padding(block, b"?") == bytes(length)


def test_a_message_that_leaves_no_room_for_padding_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        pad_block(bytes(246), 256, bytes)


# --- answers ----------------------------------------------------------------------------------------------

OFFERED = OfferedKey(name="web", kind="p256", public_key=b"spki", ski=b"s" * 20, digest=b"d" * 32, client=True)
ANSWERS: list[tuple[Query, Answer]] = [
    (KeysQuery(), KeysAnswer(keys=(OFFERED,), more=True)),
    (KeysQuery(), KeysAnswer(keys=())),
    (
        CertificateQuery(server_name="a.test"),
        CertificateAnswer(
            name="web", names=("a.test", "*.b.test"), chain=(b"leaf", b"ca"), ski=b"s" * 20, lifetime=3600
        ),
    ),
    (CertificateNamesQuery(), CertificateNamesAnswer(names=("a.test",))),
    (TicketsQuery(), TicketsAnswer(root=b"r" * 32, epoch_seconds=3600, lifetime=60)),
]


@pytest.mark.parametrize(("query", "answer"), ANSWERS, ids=range(len(ANSWERS)))
def test_an_answer_is_read_back_as_it_was_written(query: Query, answer: Answer) -> None:
    assert decode_answer(query, encode_answer(answer)) == answer


def test_the_largest_certificate_fits_a_frame() -> None:
    name = "n" * 250
    answer = CertificateAnswer(
        name="x" * 255,
        names=(name,) * (MAX_CERTIFICATE_NAMES // len(name)),
        chain=(bytes(MAX_CHAIN),),
        ski=bytes(20),
        ocsp_response=bytes(MAX_OCSP),
        lifetime=1,
    )
    assert len(encode_response(1, encode_answer(answer))) <= MAX_BODY
    assert decode_answer(CertificateQuery(server_name="n"), encode_answer(answer)) == answer


@pytest.mark.parametrize(
    ("query", "payload"),
    [
        (KeysQuery(), cbor2.dumps({1: [1]})),
        (KeysQuery(), cbor2.dumps({1: b""})),
        (KeysQuery(), cbor2.dumps({1: [{1: "x"}]})),
        (CertificateNamesQuery(), cbor2.dumps({1: [1]})),
        (CertificateNamesQuery(), cbor2.dumps({1: "x"})),
        (CertificateQuery(server_name="x"), cbor2.dumps({1: "x", 2: ["n" * 255] * 40, 3: [b"x"], 4: bytes(20)})),
        (TicketsQuery(), cbor2.dumps({1: bytes(31), 2: 1, 3: 1})),
        (TicketsQuery(), b""),
    ],
    ids=range(8),
)
def test_a_malformed_answer_is_an_error(query: Query, payload: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_answer(query, payload)


def test_pages_hold_everything_once_and_fit_a_frame() -> None:
    keys = [
        OfferedKey(name=f"key-{n}", kind="ml-dsa-65", public_key=bytes(1974), ski=bytes(20), digest=bytes(32))
        for n in range(100)
    ]
    found: list[OfferedKey] = []
    more = True
    while more:
        page = keys_page(keys, KeysQuery(start=len(found)))
        assert len(encode_response(1, encode_answer(page))) <= MAX_BODY
        found += page.keys
        more = page.more
    assert found == keys
    names = [f"{'x' * 60}.{n}.test" for n in range(10_000)]
    first = names_page(names, CertificateNamesQuery())
    assert len(encode_response(1, encode_answer(first))) <= MAX_BODY
    assert first.more
    assert names_page(names, CertificateNamesQuery(start=10_000)) == CertificateNamesAnswer(names=())


def test_secrets_stay_out_of_what_is_shown() -> None:
    secrets = [
        TicketsAnswer(root=b"secret".ljust(32), epoch_seconds=1, lifetime=1),
        Seal(b"secret"),
        MasterSecret(b"", 0, b"", b"secret"),
    ]
    assert not any("secret" in repr(each) for each in secrets)
