"""Frames of the keyless protocol: as the published protocol has them, in any order, and what is refused (X5)."""

from __future__ import annotations

import struct

import pytest

from locum.errors import DecodeError, Refused, TimedOut, Unavailable
from locum.keyless.errors import RequestFault, code_of, error_of
from locum.keyless.frames import (
    Frame,
    FrameReader,
    RejectedStream,
    encode_error,
    encode_frame,
    encode_pong,
    encode_response,
)
from locum.keyless.registry import MAX_BODY, ErrorCode, Opcode, Tag

SKI = bytes(range(20))


def item(tag: int, data: bytes) -> bytes:
    return struct.pack(">BH", tag, len(data)) + data


def message(body: bytes, *, number: int = 7, version: tuple[int, int] = (1, 0)) -> bytes:
    return struct.pack(">BBHI", *version, len(body), number) + body


def read(data: bytes) -> Frame:
    (frame,) = FrameReader().feed(data)
    return frame


#: As peers of the published protocol write it: padded to 1,024 bytes, with addresses, in an order of their own.
PUBLISHED = (
    item(Tag.OPCODE, b"\x15")
    + item(Tag.PAYLOAD, b"d" * 32)
    + item(Tag.SKI, SKI)
    + item(Tag.DIGEST, b"D" * 32)
    + item(Tag.CLIENT_ADDRESS, b"\x7f\0\0\1")
    + item(Tag.SERVER_ADDRESS, b"\x7f\0\0\2")
    + item(Tag.SERVER_NAME, b"Example.COM")
)
PADDED = PUBLISHED + item(Tag.PADDING, bytes(1024 - 8 - 3 - len(PUBLISHED)))


def test_a_request_of_the_published_protocol_is_read() -> None:
    assert len(message(PADDED)) == 1024
    frame = read(message(PADDED))
    assert frame == Frame(7, Opcode.ECDSA_SIGN_SHA256, b"d" * 32, SKI, b"D" * 32, b"Example.COM")
    assert frame.reference.ski == SKI
    assert frame.reference.server_name == "example.com"


def test_a_frame_without_anything_but_an_opcode_is_read() -> None:
    assert read(message(item(Tag.OPCODE, b"\xf1"))) == Frame(7, Opcode.PING)


def test_what_is_written_has_the_published_form() -> None:
    frame = Frame(7, 0x15, b"d" * 32, SKI)
    assert encode_frame(frame) == message(
        item(Tag.OPCODE, b"\x15") + item(Tag.SKI, SKI) + item(Tag.PAYLOAD, b"d" * 32)
    )
    assert encode_response(9, b"r") == message(item(Tag.OPCODE, b"\xf0") + item(Tag.PAYLOAD, b"r"), number=9)
    assert encode_pong(9, b"r") == message(item(Tag.OPCODE, b"\xf2") + item(Tag.PAYLOAD, b"r"), number=9)
    assert encode_error(9, 2) == message(item(Tag.OPCODE, b"\xff") + item(Tag.PAYLOAD, b"\2"), number=9)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(0, 0x05, b"p", SKI),
        Frame(1, 0x24, b"p", SKI, function=b"locum/keys"),
        Frame(2, 0x24, b"", SKI, function=b"locum/keys"),
        Frame(2, 0x24, b"p", function=b"locum/keys"),
        Frame(3, 0x24, b"p", SKI, b"D" * 32, b"a.test", b"f", b"extra"),
        Frame(4, 0xF0, b"p"),
        Frame(0xFFFFFFFF, 0xFF, b"\1", extra=b"why"),
        Frame(5, 0x01, b"p", digest=b"D" * 32),
        Frame(6, 0x01, b"p", server_name=b"a.test"),
    ],
    ids=lambda frame: f"{frame.id}-{frame.opcode:02x}",
)
def test_a_frame_is_read_back_as_it_was_written(frame: Frame) -> None:
    assert read(encode_frame(frame)) == frame


@pytest.mark.parametrize("pieces", [1, 3, 8, 9, 100])
def test_frames_are_read_however_the_stream_is_cut(pieces: int) -> None:
    frames = [Frame(number, 0x15, bytes(number * 40), SKI) for number in range(10)]
    stream = b"".join(map(encode_frame, frames)) + message(PADDED) + encode_frame(frames[0])[:-1]
    reader = FrameReader()
    found = []
    for start in range(0, len(stream), pieces):
        found += reader.feed(stream[start : start + pieces])
    assert found[:10] == frames
    assert len(found) == 11
    assert reader.pending == len(encode_frame(frames[0])) - 1
    assert reader.fault is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", b"no opcode"),
        (item(Tag.PAYLOAD, b"x"), b"no opcode"),
        (item(Tag.OPCODE, b"\0"), b"the opcode 00"),
        (item(Tag.OPCODE, b"\1\2"), b"an item 11 of 2 bytes"),
        (item(Tag.OPCODE, b"\1") * 2, b"two items 11"),
        (item(Tag.OPCODE, b"\1") + b"\x12", b"cut off"),
        (item(Tag.OPCODE, b"\1") + b"\x12\0", b"cut off"),
        (item(Tag.OPCODE, b"\1") + b"\x12\0\2x", b"longer than the message"),
        (item(Tag.OPCODE, b"\1") + item(Tag.SKI, SKI) + b"\x12\xff\xff" + bytes(40), b"longer than the message"),
        (item(Tag.OPCODE, b"\1") + item(Tag.SKI, b"short"), b"an item 04 of 5 bytes"),
        (item(Tag.OPCODE, b"\1") + item(Tag.DIGEST, b"short"), b"an item 01 of 5 bytes"),
        (item(Tag.OPCODE, b"\1") + item(Tag.SERVER_NAME, b"x" * 256), b"an item 02 of 256 bytes"),
        (item(Tag.OPCODE, b"\x24") + item(Tag.FUNCTION, b"x" * 65), b"an item 13 of 65 bytes"),
        (
            item(Tag.OPCODE, b"\x24")
            + item(Tag.SKI, SKI)
            + item(Tag.FUNCTION, b"x" * 65)
            + item(Tag.PAYLOAD, b""),
            b"an item 13 of 65 bytes",
        ),
    ],
    ids=range(14),
)
def test_a_body_that_cannot_be_read_is_marked_and_the_next_frame_is_read(body: bytes, reason: bytes) -> None:
    malformed, following = FrameReader().feed(message(body) + message(item(Tag.OPCODE, b"\xf1")))
    assert (malformed.id, malformed.opcode) == (7, Opcode.MALFORMED)
    assert reason in malformed.extra
    assert following.opcode == Opcode.PING


def test_items_of_unknown_kinds_are_ignored() -> None:
    body = item(0x15, b"trace") + item(0x99, b"") + item(Tag.OPCODE, b"\xf1") + item(0x99, b"again")
    assert read(message(body)) == Frame(7, Opcode.PING)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (message(b"", version=(2, 0)), ErrorCode.VERSION_MISMATCH),
        (b"GET / HTTP/1.1\r\n\r\n", ErrorCode.VERSION_MISMATCH),
        (struct.pack(">BBHI", 1, 0, 2049, 7), ErrorCode.FORMAT),
    ],
    ids=["version", "other protocol", "too long"],
)
def test_a_stream_that_cannot_be_followed_gives_what_came_before_and_then_nothing(
    header: bytes, code: ErrorCode
) -> None:
    reader = FrameReader(max_body=2048)
    assert reader.feed(message(item(Tag.OPCODE, b"\xf1")) + header + bytes(64)) == [Frame(7, Opcode.PING)]
    assert isinstance(reader.fault, RejectedStream)
    assert reader.fault.code is code
    with pytest.raises(DecodeError):
        reader.feed(b"x")


def test_another_minor_version_is_read() -> None:
    assert read(message(item(Tag.OPCODE, b"\xf1"), version=(1, 9))).opcode == Opcode.PING


@pytest.mark.parametrize(
    "frame",
    [
        Frame(1, 0x18, bytes(MAX_BODY)),
        Frame(1, 0x18, bytes(MAX_BODY), SKI),
        Frame(1, 0x18, bytes(MAX_BODY - 33), SKI, function=b"f"),
        Frame(1, 0x18, bytes(MAX_BODY + 1), digest=b"D" * 32),
        Frame(1, 0x18, bytes(MAX_BODY - 30), digest=b"D" * 32),
    ],
    ids=range(5),
)
def test_what_does_not_fit_a_frame_is_not_written(frame: Frame) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        encode_frame(frame)
    with pytest.raises(ValueError, match="do not fit"):
        encode_response(1, bytes(MAX_BODY))


def test_a_server_name_that_is_not_ascii_is_no_reference() -> None:
    with pytest.raises(DecodeError):
        _ = Frame(1, 1, server_name=b"\xff").reference


def test_a_frame_does_not_show_its_payload() -> None:
    assert "secret" not in repr(Frame(1, 0xF0, b"secret"))


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestFault(ErrorCode.KEY_NOT_FOUND), ErrorCode.KEY_NOT_FOUND),
        (Refused("no"), ErrorCode.CRYPTO),
        (DecodeError("what"), ErrorCode.FORMAT),
        (Unavailable("later"), ErrorCode.INTERNAL),
        (TimedOut("late"), ErrorCode.INTERNAL),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.name,
)
def test_every_error_has_a_code(error: Refused, code: ErrorCode) -> None:
    assert code_of(error) is code


@pytest.mark.parametrize("code", ErrorCode, ids=lambda code: code.name)
def test_only_what_may_pass_is_worth_another_try(code: ErrorCode) -> None:
    passing = code in (ErrorCode.READ, ErrorCode.INTERNAL)
    assert isinstance(error_of(bytes((code,)), b""), Unavailable if passing else RequestFault)


@pytest.mark.parametrize("payload", [b"", b"\x77", b"\1\2"])
def test_an_error_that_nobody_knows_is_a_refusal(payload: bytes) -> None:
    assert type(error_of(payload, b"")) is Refused


def test_a_reason_arrives_as_one_printable_line_of_limited_length() -> None:
    frame = read(encode_error(1, ErrorCode.CRYPTO, "no\x1b[31m " + "é" * 500))
    assert len(frame.extra) <= 256
    text = str(error_of(frame.payload, frame.extra))
    assert text.startswith("no?[31m é")
    assert text.isprintable()
