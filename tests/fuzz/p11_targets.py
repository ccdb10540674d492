"""Fuzz targets of the PKCS#11 agent: whatever a client sends, and what parent and worker say to one another."""

from __future__ import annotations

from contextlib import suppress

from tests.support.p11_client import SHA256_PSS, byte_array, frame, mechanism, message, u32, u64
from tests.support.p11_keys import HANDLES, offered, token

from locum.edge.p11.conversation import Conversation, KeyUse
from locum.edge.p11.errands import Errand, Task, TokenObject, decode_result, encode_result
from locum.edge.p11.objects import key_objects
from locum.edge.p11.registry import Call, Mechanism, Rv
from locum.edge.p11.tls_content import bound_signature
from locum.edge.p11.wire import FrameReader, parse_call
from locum.errors import LocumError
from locum.tls.schedule import certificate_verify_content

TOKEN = token()


def frames(data: bytes) -> None:
    """A reader of frames, given the data in two pieces; every call is parsed."""
    reader = FrameReader()
    for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
        reader.add(piece)
        with suppress(LocumError):
            while (each := reader.next()) is not None:
                parse_call(each[1])


def conversation(data: bytes) -> None:
    """A client that sends these frames, after it has opened a session; keys that answer at once."""
    talk = Conversation(TOKEN)
    talk.handle(1, message(Call.OPEN_SESSION, u64(1) + u64(4)))
    reader = FrameReader()
    reader.add(data)
    with suppress(LocumError):
        while (each := reader.next()) is not None:
            answer = talk.handle(*each)
            if isinstance(answer, KeyUse):
                answer.done(Rv.OK, bytes(256))


def one_call(data: bytes) -> None:
    """The first byte chooses the call, the rest are its arguments, once a signature has been begun."""
    talk = Conversation(TOKEN)
    talk.handle(1, message(Call.OPEN_SESSION, u64(1) + u64(4)))
    talk.handle(2, message(Call.SIGN_INIT, u64(1) + mechanism(Mechanism.ECDSA_SHA256) + u64(HANDLES.ec)))
    with suppress(LocumError):
        talk.handle(3, message(data[0] if data else 0, data[1:]))


def errand(data: bytes) -> None:
    with suppress(LocumError):
        Errand.decode(data)


def result(data: bytes) -> None:
    with suppress(LocumError):
        decode_result(data)


def token_object(data: bytes) -> None:
    with suppress(LocumError):
        TokenObject.decode(data)


def tls_content(data: bytes) -> None:
    bound_signature("ECDSA_SECP256R1_SHA256", data)


TARGETS = {
    "frames": frames,
    "conversation": conversation,
    "call": one_call,
    "errand": errand,
    "result": result,
    "object": token_object,
    "tls_content": tls_content,
}

_INIT = u64(1) + mechanism(Mechanism.RSA_PKCS_PSS, SHA256_PSS) + u64(HANDLES.rsa)
_SIGN = u64(1) + byte_array(bytes(32)) + u32(256)
_TEMPLATE = u64(1) + u32(2) + u32(0) + b"\1" + u32(8) + u64(3) + u32(3) + b"\1" + u32(2) + u32(2) + b"ec"
_STREAM = b"".join(
    frame(code, message(call, arguments))
    for code, (call, arguments) in enumerate(
        (
            (Call.GET_INFO, b""),
            (Call.FIND_OBJECTS_INIT, _TEMPLATE),
            (Call.FIND_OBJECTS, u64(1) + u32(8)),
            (Call.GET_ATTRIBUTE_VALUE, u64(1) + u64(HANDLES.ec) + u32(1) + u32(0x181) + u32(99)),
            (Call.SIGN_INIT, _INIT),
            (Call.SIGN, _SIGN),
        ),
        1,
    )
)
SEEDS = {
    "frames": [_STREAM],
    "conversation": [_STREAM],
    "call": [bytes((Call.SIGN_FINAL,)) + u64(1) + u32(64), bytes((Call.FIND_OBJECTS_INIT,)) + _TEMPLATE],
    "errand": [Errand(number=1, task=Task.SIGN_DIGEST, ski=bytes(20), scheme="ED25519", data=b"x").encode()],
    "result": [encode_result(1, Rv.OK, bytes(64))],
    "object": [item.encode() for item in key_objects(offered("ec"))],
    "tls_content": [certificate_verify_content(b"server", bytes(32)), bytes(64) + b"\x03\x00\x1d\x20" + bytes(32)],
}
