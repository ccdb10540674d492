"""Reading and writing of integers, blocks and vectors, at and around every limit."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.errors import DecodeError
from locum.wire.cursor import Reader, Writer


def test_integers_are_big_endian() -> None:
    reader = Reader(bytes.fromhex("01 0203 040506 0708090a 0b"))
    assert (reader.u8(), reader.u16(), reader.u24(), reader.u32()) == (0x01, 0x0203, 0x040506, 0x0708090A)
    assert reader.remaining == 1
    assert reader.rest() == b"\x0b"
    reader.finish()


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_an_integer_that_is_not_all_there_is_refused(size: int) -> None:
    reader = Reader(bytes(size - 1))
    with pytest.raises(DecodeError, match=f"{size} bytes expected, {size - 1} left"):
        reader.integer(size)
    # A failed read takes nothing.
    assert reader.remaining == size - 1


def test_a_block_is_exactly_as_long_as_asked() -> None:
    reader = Reader(b"abc")
    assert reader.block(0) == b""
    assert reader.block(3) == b"abc"
    with pytest.raises(DecodeError):
        reader.block(1)


def test_what_is_left_over_is_refused() -> None:
    reader = Reader(b"ab")
    with pytest.raises(DecodeError, match="2 bytes too many"):
        reader.finish()


@pytest.mark.parametrize(
    ("length", "minimum", "maximum", "fits"),
    [
        (0, 0, None, True),
        (0, 1, None, False),
        (3, 3, 3, True),
        (4, 0, 3, False),
        (2, 3, 4, False),
        (255, 0, None, True),
    ],
)
def test_a_vectors_length_is_checked_against_both_bounds(
    length: int, minimum: int, maximum: int | None, fits: bool
) -> None:
    data = bytes((length,)) + bytes(length)
    if fits:
        assert Reader(data).vector(1, minimum=minimum, maximum=maximum) == bytes(length)
        assert Reader(data).sub(1, minimum=minimum, maximum=maximum).remaining == length
        return
    for read in (Reader(data).vector, Reader(data).sub):
        with pytest.raises(DecodeError, match=f"vector of {length} bytes"):
            read(1, minimum=minimum, maximum=maximum)


def test_a_vector_that_is_longer_than_what_there_is_is_refused() -> None:
    with pytest.raises(DecodeError):
        Reader(b"\xff\xff\xffab").vector(3)


def test_a_reader_of_a_vector_does_not_see_beyond_it() -> None:
    reader = Reader(b"\x01ab")
    inner = reader.sub(1)
    assert inner.rest() == b"a"
    with pytest.raises(DecodeError):
        inner.u8()
    assert reader.u8() == ord("b")


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_an_integer_that_does_not_fit_is_a_mistake_of_ours(size: int) -> None:
    writer = Writer()
    writer.integer((1 << 8 * size) - 1, size)
    assert writer.getvalue() == b"\xff" * size
    for value in (1 << 8 * size, -1):
        with pytest.raises(ValueError, match="does not fit"):
            writer.integer(value, size)


def test_prefixes_nest_and_are_filled_in_last() -> None:
    writer = Writer()
    with writer.prefixed(2):
        writer.u8(7)
        with writer.prefixed(1):
            writer.block(b"ab")
        with writer.prefixed(3):
            pass
    assert writer.getvalue() == bytes.fromhex("0007 07 02 6162 000000")


def test_content_that_does_not_fit_its_prefix_is_a_mistake_of_ours() -> None:
    writer = Writer()
    with pytest.raises(ValueError, match="256 bytes"), writer.prefixed(1):
        writer.block(bytes(256))
    with pytest.raises(ValueError, match="does not fit"):
        Writer().vector(bytes(256), 1)


@given(st.lists(st.one_of(st.integers(0, 2**32 - 1), st.binary(max_size=40)), max_size=20))
def test_what_is_written_is_read_back(values: list[int | bytes]) -> None:
    writer = Writer()
    for value in values:
        if isinstance(value, int):
            writer.u32(value)
        else:
            writer.vector(value, 2)
    reader = Reader(writer.getvalue())
    assert [reader.u32() if isinstance(value, int) else reader.vector(2) for value in values] == values
    reader.finish()


@given(
    st.binary(max_size=64),
    st.lists(st.sampled_from(["u8", "u16", "u24", "u32", "vector", "sub", "rest"]), max_size=12),
)
def test_any_reads_of_any_bytes_end_in_a_value_or_a_decode_error(data: bytes, reads: list[str]) -> None:
    reader = Reader(data)
    for read in reads:
        before = reader.remaining
        with contextlib.suppress(DecodeError):
            getattr(reader, read)(*((1,) if read in ("vector", "sub") else ()))
        assert 0 <= reader.remaining <= before
