"""The p11-kit remote protocol: frames in any pieces, arguments that lie about themselves, all results."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.p11_client import byte_array, frame, message, u32, u64

from locum.edge.p11 import wire
from locum.edge.p11.registry import Attribute, Call, Rv
from locum.edge.p11.wire import MAX_ATTRIBUTES, MAX_MESSAGE, MAX_OPTIONS, Arguments, FrameReader, parse_call
from locum.errors import DecodeError

FRAMES = [(7, b"first"), (8, b""), (0xFFFFFFFF, b"x" * 3000)]
STREAM = b"".join(frame(code, content, b"locum.module") for code, content in FRAMES)


def read_all(reader: FrameReader) -> list[tuple[int, bytes]]:
    found = []
    while (each := reader.next()) is not None:
        found.append(each)
    return found


@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=12))
def test_frames_come_out_whole_however_they_are_cut(cuts: list[int]) -> None:
    reader, found = FrameReader(), []
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(edges):
        reader.add(STREAM[start:end])
        found += read_all(reader)
    assert found == FRAMES


def test_frames_that_are_not_taken_yet_wait_for_their_turn() -> None:
    reader = FrameReader()
    reader.add(STREAM)
    assert reader.next() == FRAMES[0]
    reader.add(frame(9, b"later"))
    assert read_all(reader) == [*FRAMES[1:], (9, b"later")]


@pytest.mark.parametrize(
    ("code", "options", "length"),
    [(0, 0, 8), (1, MAX_OPTIONS + 1, 8), (1, 0, MAX_MESSAGE + 1), (0x47455420, 0x2F204854, 0x54502F31)],
    ids=["code 0", "long options", "long message", "http"],
)
def test_a_header_that_no_client_sends_is_an_error(code: int, options: int, length: int) -> None:
    reader = FrameReader()
    reader.add(u32(code) + u32(options) + u32(length))
    with pytest.raises(DecodeError):
        reader.next()


def test_the_call_and_its_arguments_are_found_behind_the_signature() -> None:
    call, arguments = parse_call(message(43, u64(5) + byte_array(b"data") + u32(256), b"uayfy"))
    assert (call, arguments.ulong(), arguments.byte_array(), arguments.room()) == (43, 5, b"data", 256)
    arguments.finish()


@pytest.mark.parametrize("content", [b"", b"\0\0\0", u32(1), u32(1) + u32(5) + b"ab"])
def test_a_message_without_call_or_signature_is_an_error(content: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_call(content)


def test_null_pointers_are_read() -> None:
    arguments = Arguments(b"\0" + u32(20) + u32(0xFFFFFFFF) + u32(0xFFFFFFFF))
    assert arguments.byte_array() == b""
    assert arguments.raw() is None
    assert arguments.room() == 0
    arguments.finish()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (u32(1) + u32(0xFFFFFFFF), (1, (0, 0, 0))),
        (u32(0xD) + u64(0x250) + u64(2) + u64(32), (0xD, (0x250, 2, 32))),
        (u32(0x43) + u64(0x250) + u64(2) + u64(32), (0x43, (0x250, 2, 32))),
        (u32(9) + u64(0x250) + u64(2) + u64(1) + u32(0xFFFFFFFF), (9, (0, 0, 0))),
        (u32(0x1082) + u32(16) + bytes(16), (0x1082, (0, 0, 0))),
    ],
    ids=["rsa-pkcs", "pss", "sha256-pss", "oaep", "aes-cbc"],
)
def test_mechanisms_are_read_with_their_parameters(content: bytes, expected: object) -> None:
    arguments = Arguments(content)
    assert arguments.mechanism() == expected
    arguments.finish()


def test_templates_hold_values_of_each_type() -> None:
    items = [
        u32(Attribute.TOKEN) + b"\1" + u32(1) + b"\1",
        u32(Attribute.CLASS) + b"\1" + u32(8) + u64(3),
        u32(Attribute.LABEL) + b"\1" + u32(3) + u32(3) + b"web",
        u32(Attribute.ID) + b"\0",
        u32(0x40000600) + b"\1" + u32(8) + u32(1) + u64(1),
    ]
    arguments = Arguments(u32(len(items)) + b"".join(items))
    assert arguments.template() == [
        (Attribute.TOKEN, 1),
        (Attribute.CLASS, 3),
        (Attribute.LABEL, b"web"),
        (Attribute.ID, None),
        (0x40000600, None),
    ]
    arguments.finish()


@pytest.mark.parametrize(
    "content",
    [
        u32(MAX_ATTRIBUTES + 1),
        u32(1) + u32(0x40000211) + b"\1" + u32(24) + u32(1),
        u32(2) + u32(3) + b"\1" + u32(9),
    ],
    ids=["too many", "nested", "cut off"],
)
def test_templates_beyond_their_limits_are_errors(content: bytes) -> None:
    with pytest.raises(DecodeError):
        Arguments(content).template()


def test_values_are_given_where_there_is_room_and_their_lengths_elsewhere() -> None:
    assert wire.byte_array(b"abc", 3) == b"\1" + u32(3) + b"abc"
    assert wire.byte_array(b"abc", 2) == wire.byte_array(b"abc", 0) == b"\0" + u32(3)
    assert wire.ulong_array((1, 2), 2) == b"\1" + u32(2) + u64(1) + u64(2)
    assert wire.ulong_array((1, 2), 1) == b"\0" + u32(2)
    assert wire.attribute(Attribute.LABEL, b"abc", 8) == u32(3) + b"\1" + u32(3) + u32(3) + b"abc"
    assert wire.attribute(Attribute.LABEL, b"abc", 0) == u32(3) + b"\1" + u32(3) + b"\xff" * 4
    assert wire.attribute(Attribute.SIGN, 1, 1) == u32(0x108) + b"\1" + u32(1) + b"\1"
    assert wire.attribute(Attribute.KEY_TYPE, 3, 8) == u32(0x100) + b"\1" + u32(8) + u64(3)


def test_answers_carry_the_code_of_the_question() -> None:
    assert wire.answer(9, Call.OPEN_SESSION, u64(4)) == frame(9, message(10, u64(4), b"u"))
    assert wire.failure(9, Rv.DEVICE_ERROR) == frame(9, message(0, u64(0x30), b"u"))
