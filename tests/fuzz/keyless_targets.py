"""Fuzz targets of the keyless protocol: the stream, what is asked in it, and what is answered."""

from __future__ import annotations

from collections.abc import Callable

from locum.errors import LocumError
from locum.keyless.errors import error_of
from locum.keyless.frames import Frame, FrameReader, encode_error, encode_frame, encode_response
from locum.keyless.operations import CertificateVerify, Decrypt, MasterSecret, Role, ServerKeyExchange, Sign
from locum.keyless.queries import (
    CertificateAnswer,
    CertificateNamesQuery,
    CertificateQuery,
    KeysAnswer,
    KeysQuery,
    OfferedKey,
    Query,
    TicketsQuery,
    decode_answer,
    encode_answer,
)
from locum.keyless.registry import Function, Opcode
from locum.keyless.requests import decode_request, encode_request


def _requests(data: bytes) -> None:
    reader = FrameReader()
    for frame in reader.feed(data):
        try:
            request = decode_request(frame)
            encoded = encode_request(frame.id, request, frame.reference)
        except LocumError:
            continue
        (again,) = FrameReader().feed(encoded)
        assert decode_request(again) == request


def _function(function: bytes) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        try:
            decode_request(Frame(1, Opcode.CUSTOM, data, b"s" * 20, function=function))
        except LocumError:
            return

    return target


def _answers(data: bytes) -> None:
    for frame in FrameReader().feed(data):
        if frame.opcode == Opcode.ERROR:
            assert str(error_of(frame.payload, frame.extra)).isprintable()
        elif frame.opcode != Opcode.MALFORMED:
            assert FrameReader().feed(encode_frame(frame)) == [frame]


def _answer(query: Query) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        try:
            answer = decode_answer(query, data)
        except LocumError:
            return
        assert decode_answer(query, encode_answer(answer)) == answer

    return target


_MASTER_SECRET = MasterSecret(b"c" * 256, 0x0303, b"c" * 32, b"r" * 32, b"s" * 32, "sha384", True, b"m" * 80)
_REQUESTS = (
    Sign("ECDSA_SECP256R1_SHA256", b"d" * 32),
    Decrypt(b"c" * 256),
    CertificateVerify("ED25519", Role.SERVER, b"h" * 32),
    ServerKeyExchange("RSA_PKCS1_SHA256", b"c" * 32, b"s" * 32, b"p" * 69),
    _MASTER_SECRET,
    KeysQuery(start=5),
)
_KEYS = KeysAnswer(
    keys=(OfferedKey(name="web", kind="p256", public_key=b"spki", ski=b"s" * 20, digest=b"d" * 32),), more=True
)
_CERTIFICATE = CertificateAnswer(name="web", names=("a.test",), chain=(b"der",), ski=b"s" * 20, lifetime=60)


def _payload(request: object) -> bytes:
    (frame,) = FrameReader().feed(encode_request(1, request))  # type: ignore[arg-type]
    return frame.payload


TARGETS: dict[str, Callable[[bytes], None]] = {
    "requests": _requests,
    "answers": _answers,
    "certificate_verify": _function(Function.CERTIFICATE_VERIFY),
    "server_key_exchange": _function(Function.SERVER_KEY_EXCHANGE),
    "client_verify": _function(Function.CLIENT_VERIFY),
    "master_secret": _function(Function.MASTER_SECRET),
    "sign": _function(Function.SIGN),
    "keys_answer": _answer(KeysQuery()),
    "certificate_answer": _answer(CertificateQuery(server_name="a.test")),
    "names_answer": _answer(CertificateNamesQuery()),
    "tickets_answer": _answer(TicketsQuery()),
}
SEEDS: dict[str, list[bytes]] = {
    "requests": [encode_request(1, request) for request in _REQUESTS],
    "answers": [encode_response(1, b"signature"), encode_error(1, 2, "no such key")],
    "certificate_verify": [_payload(_REQUESTS[2])],
    "server_key_exchange": [_payload(_REQUESTS[3])],
    "master_secret": [_payload(_MASTER_SECRET)],
    "sign": [_payload(Sign("MLDSA65", b"m", prehashed=False))],
    "keys_answer": [encode_answer(_KEYS)],
    "certificate_answer": [encode_answer(_CERTIFICATE)],
    "block": [b"\0\2" + b"x" * 205 + b"\0" + b"m" * 48],
}
