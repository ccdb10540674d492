"""Reading and writing of big-endian integers, fixed blocks and length-prefixed vectors.

Knows nothing of any protocol. Every read is bounded by the bytes at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from struct import Struct

from locum.errors import DecodeError

_U16, _U32 = Struct(">H").pack, Struct(">I").pack


class Reader:
    """A cursor over immutable bytes; every read either succeeds whole or raises `DecodeError`."""

    __slots__ = ("_data", "_end", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._end = len(data)

    @property
    def remaining(self) -> int:
        """Number of bytes not yet read."""
        return self._end - self._position

    def block(self, length: int) -> bytes:
        """Read exactly `length` bytes."""
        start = self._position
        end = start + length
        if end > self._end:
            raise DecodeError(f"{length} bytes expected, {self._end - start} left")
        self._position = end
        return self._data[start:end]

    def integer(self, size: int) -> int:
        """Read an unsigned big-endian integer of `size` bytes."""
        return int.from_bytes(self.block(size), "big")

    def u8(self) -> int:
        """Read one byte as an unsigned integer."""
        position = self._position
        if position >= self._end:
            raise DecodeError("1 bytes expected, 0 left")
        self._position = position + 1
        return self._data[position]

    def u16(self) -> int:
        """Read two bytes as an unsigned integer."""
        position = self._position
        if position + 2 > self._end:
            raise DecodeError(f"2 bytes expected, {self._end - position} left")
        self._position = position + 2
        return self._data[position] << 8 | self._data[position + 1]

    def u24(self) -> int:
        """Read three bytes as an unsigned integer."""
        return self.integer(3)

    def u32(self) -> int:
        """Read four bytes as an unsigned integer."""
        return self.integer(4)

    def vector(self, size: int, *, minimum: int = 0, maximum: int | None = None) -> bytes:
        """Read a vector preceded by its length in `size` bytes; `minimum` and `maximum` bound that length."""
        start = self._position + size
        length = int.from_bytes(self._data[self._position : start], "big")
        end = start + length
        if start > self._end or end > self._end:
            raise DecodeError(f"a vector of {length} bytes expected, {max(self._end - start, 0)} left")
        if length < minimum or (maximum is not None and length > maximum):
            raise DecodeError(f"vector of {length} bytes, outside {minimum}..{maximum}")
        self._position = end
        return self._data[start:end]

    def sub(self, size: int, *, minimum: int = 0, maximum: int | None = None) -> Reader:
        """Read a vector as `vector` does and return a reader of its content."""
        return Reader(self.vector(size, minimum=minimum, maximum=maximum))

    def rest(self) -> bytes:
        """Read everything that is left."""
        start, self._position = self._position, self._end
        return self._data[start:]

    def finish(self) -> None:
        """Raise `DecodeError` unless everything has been read."""
        if self._position != self._end:
            raise DecodeError(f"{self.remaining} bytes too many")


class Writer:
    """A growing buffer; a length prefix is filled in when its vector is complete."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def block(self, data: bytes) -> None:
        """Append `data` as it is."""
        self._buffer += data

    def integer(self, value: int, size: int) -> None:
        """Append an unsigned big-endian integer of `size` bytes; ValueError when it does not fit."""
        try:
            self._buffer += value.to_bytes(size, "big")
        except OverflowError as error:
            raise ValueError(f"{value} does not fit in {size} bytes") from error

    def u8(self, value: int) -> None:
        """Append one byte."""
        if not 0 <= value <= 0xFF:
            raise ValueError(f"{value} does not fit in 1 bytes")
        self._buffer.append(value)

    def u16(self, value: int) -> None:
        """Append two bytes."""
        if not 0 <= value <= 0xFFFF:
            raise ValueError(f"{value} does not fit in 2 bytes")
        self._buffer += _U16(value)

    def u24(self, value: int) -> None:
        """Append three bytes."""
        self.integer(value, 3)

    def u32(self, value: int) -> None:
        """Append four bytes."""
        if not 0 <= value <= 0xFFFFFFFF:
            raise ValueError(f"{value} does not fit in 4 bytes")
        self._buffer += _U32(value)

    def vector(self, data: bytes, size: int) -> None:
        """Append `data` preceded by its length in `size` bytes; ValueError when that does not fit."""
        try:
            self._buffer += len(data).to_bytes(size, "big")
        except OverflowError as error:
            raise ValueError(f"{len(data)} does not fit in {size} bytes") from error
        self._buffer += data

    @contextmanager
    def prefixed(self, size: int) -> Iterator[None]:
        """Whatever is written inside is preceded by its length in `size` bytes."""
        start = len(self._buffer)
        self._buffer += bytes(size)
        yield
        length = len(self._buffer) - start - size
        try:
            self._buffer[start : start + size] = length.to_bytes(size, "big")
        except OverflowError as error:
            raise ValueError(f"{length} bytes do not fit a {size}-byte length") from error

    def getvalue(self) -> bytes:
        """Everything written so far."""
        return bytes(self._buffer)
