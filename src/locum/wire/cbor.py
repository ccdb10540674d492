"""How a frozen dataclass becomes a CBOR map with integer keys, and back, strictly (RFC 8949).

Knows kinds of values and their limits; no protocol, no message and no operation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from enum import IntEnum
from functools import lru_cache
from typing import Any, TypeVar

import cbor2

from locum.errors import DecodeError
from locum.values import dataclass

#: The key under which a map says which message it is, where nothing else does.
TYPE = 0
#: The number of a message whose map does not say which one it is.
UNTYPED = -1
#: Containers within containers: message, map, list of byte strings, and one to spare.
_MAX_DEPTH = 4
#: Lists of code points remembered, written and read: they are the same in nearly every handshake.
_CACHED = 256

T = TypeVar("T", list[Any], dict[Any, Any])


# --- what a value may be ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """How one value is written and read; `encode` None means that the value is written as it is.

    `decode` raises DecodeError for everything that the value may not be.
    """

    decode: Callable[[Any], Any]
    encode: Callable[[Any], Any] | None = None


def blob(maximum: int) -> Kind:
    """A byte string of at most `maximum` bytes."""

    def decode(value: Any) -> bytes:
        if type(value) is not bytes or len(value) > maximum:
            raise DecodeError(f"a byte string of at most {maximum} bytes expected")
        return value

    return Kind(decode)


def fixed(length: int) -> Kind:
    """A byte string of exactly `length` bytes."""

    def decode(value: Any) -> bytes:
        if type(value) is not bytes or len(value) != length:
            raise DecodeError(f"a byte string of {length} bytes expected")
        return value

    return Kind(decode)


def text(maximum: int, *, cut: bool = False) -> Kind:
    """A text string of at most `maximum` bytes in UTF-8; `cut` shortens a longer one when it is written."""

    def decode(value: Any) -> str:
        if type(value) is not str or len(value.encode()) > maximum:
            raise DecodeError(f"a text of at most {maximum} bytes expected")
        return value

    return Kind(decode, (lambda value: one_line(value, maximum)) if cut else None)


def one_line(value: str, maximum: int) -> str:
    """`value` as one line of at most `maximum` bytes in UTF-8."""
    line = " ".join(value.split())
    return line.encode(errors="replace")[:maximum].decode(errors="ignore")


def integer(maximum: int) -> Kind:
    """An integer of 0 to `maximum`."""

    def decode(value: Any) -> int:
        if type(value) is not int or not 0 <= value <= maximum:
            raise DecodeError(f"an integer of 0 to {maximum} expected")
        return value

    return Kind(decode, int)


def member(enumeration: type[IntEnum]) -> Kind:
    """A member of `enumeration` by its value."""
    members = {int(each): each for each in enumeration}

    def decode(value: Any) -> IntEnum:
        if type(value) is not int or value not in members:
            raise DecodeError(f"a {enumeration.__name__} expected")
        return members[value]

    return Kind(decode, int)


def members(enumeration: type[IntEnum]) -> Kind:
    """Members of `enumeration`, at least one, as a byte string of their values."""
    known = {int(each): each for each in enumeration}

    def decode(value: Any) -> tuple[IntEnum, ...]:
        if type(value) is not bytes or not value or not known.keys() >= set(value):
            raise DecodeError(f"a byte string of one {enumeration.__name__} in each byte expected")
        return tuple([known[each] for each in value])

    return Kind(decode, bytes)


def _decode_flag(value: Any) -> bool:
    if type(value) is not bool:
        raise DecodeError("true or false expected")
    return value


#: True or false.
FLAG = Kind(_decode_flag)


def codes(maximum: int) -> Kind:
    """At most `maximum` code points, as a byte string of two bytes for each."""

    def decode(value: Any) -> tuple[int, ...]:
        if type(value) is not bytes or len(value) % 2 or len(value) > 2 * maximum:
            raise DecodeError(f"at most {maximum} code points of two bytes each expected")
        return _split_codes(value)

    return Kind(decode, encode_codes)


@lru_cache(_CACHED)
def _split_codes(value: bytes) -> tuple[int, ...]:
    return tuple([value[i] << 8 | value[i + 1] for i in range(0, len(value), 2)])


@lru_cache(_CACHED)
def encode_codes(values: tuple[int, ...]) -> bytes:
    """Code points as two bytes each."""
    return b"".join([value.to_bytes(2, "big") for value in values])


def blobs(count: int, each: int, total: int) -> Kind:
    """An array of at most `count` byte strings, none empty, of at most `each` and together `total` bytes."""

    def decode(value: Any) -> tuple[bytes, ...]:
        if type(value) is not list or len(value) > count:
            raise DecodeError(f"an array of at most {count} byte strings expected")
        for item in value:
            if type(item) is not bytes or not 1 <= len(item) <= each:
                raise DecodeError(f"an array of byte strings of 1 to {each} bytes expected")
        if sum(map(len, value)) > total:
            raise DecodeError(f"an array of at most {total} bytes in all expected")
        return tuple(value)

    return Kind(decode, list)


# --- messages ---------------------------------------------------------------------------------------------


class Shape:
    """One message: its class, the number of its type, and key, name and kind of each field.

    The number is `UNTYPED` where something outside the map says which message it is.

    A field at the default that its dataclass gives it is not written; one without a default must be there.
    `known` has, by names of fields, what the receiver can take a value from instead: a function of the context,
    which is the same at both ends. Such a field is written when it differs from that.
    """

    __slots__ = ("_fields", "_known", "_required", "message", "type")

    def __init__(
        self,
        message: type[Any],
        number: int,
        described: dict[int, tuple[str, Kind]],
        *,
        known: dict[str, Callable[[Any], Any]] | None = None,
    ) -> None:
        self.message = message
        self.type = number
        self._known = known or {}
        defaults = {each.name: each.default for each in fields(message)}
        assert sorted(defaults) == sorted(name for name, _ in described.values()), message
        assert self._known.keys() <= defaults.keys(), message
        self._fields = {
            key: (name, kind, defaults[name], self._known.get(name)) for key, (name, kind) in described.items()
        }
        self._required = frozenset(
            name for name, _, default, known in self._fields.values() if default is MISSING and known is None
        )

    def key_of(self, name: str) -> int:
        """The key of the field `name`."""
        return next(key for key, described in self._fields.items() if described[0] == name)

    def encode(self, message: Any, context: Any = None) -> dict[int, Any]:
        """The map for `message`."""
        encoded: dict[int, Any] = {} if self.type == UNTYPED else {TYPE: self.type}
        for key, (name, kind, default, known) in self._fields.items():
            value = getattr(message, name)
            expected = default if known is None else known(context)
            if expected is MISSING or value != expected:
                encoded[key] = value if kind.encode is None else kind.encode(value)
        return encoded

    def decode(self, encoded: dict[Any, Any], context: Any = None) -> Any:
        """The message of a map. Raises: DecodeError when a key is unknown, missing or has a wrong value."""
        values: dict[str, Any] = {}
        for key, value in encoded.items():
            if key == TYPE and self.type != UNTYPED:
                continue
            described = self._fields.get(key)
            if described is None:
                raise DecodeError(f"{self.message.__name__} has no key {key!r:.20}")
            name, kind = described[:2]
            try:
                values[name] = kind.decode(value)
            except DecodeError as error:
                raise DecodeError(f"{self.message.__name__}.{name}: {error}") from None
        for name, known in self._known.items():
            if name not in values:
                values[name] = known(context)
        if not values.keys() >= self._required:
            missing = ", ".join(sorted(self._required - values.keys()))
            raise DecodeError(f"{self.message.__name__} lacks {missing}")
        return self.message(**values)


def shape_of(item: Any, registry: dict[int, Shape]) -> Shape:
    """The shape that a map says it has. Raises: DecodeError when it is no map or of an unknown type."""
    if type(item) is not dict:
        raise DecodeError("a map expected")
    number = item.get(TYPE)
    shape = registry.get(number) if type(number) is int else None
    if shape is None:
        raise DecodeError(f"unknown type {number!r:.20}")
    return shape


# --- bytes ------------------------------------------------------------------------------------------------


class _NoTags(dict[int, Callable[..., Any]]):
    """Semantic tags have no place in these messages: whichever decoder is looked for, there is an error."""

    def __missing__(self, tag: int) -> Callable[..., Any]:
        raise DecodeError(f"CBOR tag {tag}")


_NO_TAGS = _NoTags()
_INTEGER_KEYS = frozenset((int,))
_CONTAINERS: dict[type, str] = {list: "array", dict: "map"}


def dump(item: list[Any] | dict[int, Any]) -> bytes:
    """Write one array or map in preferred serialization."""
    return cbor2.dumps(item)


def load_array(payload: bytes, maximum: int) -> list[Any]:
    """Read one array in preferred serialization (RFC 8949 section 4.1) that fills `payload`, of `maximum` bytes.

    Raises: DecodeError, also for tags, indefinite lengths, and keys that occur twice or are no integers.
    """
    items = _load(payload, maximum, list)
    # To Python false and true, and 0.0 and 1.0, are the same keys as 0 and 1.
    if any(type(item) is dict and not _INTEGER_KEYS.issuperset(map(type, item)) for item in items):
        raise DecodeError("a key that is no integer")
    return items


def load_map(payload: bytes, maximum: int) -> dict[int, Any]:
    """As `load_array`, one map whose keys are integers."""
    item = _load(payload, maximum, dict)
    if not _INTEGER_KEYS.issuperset(map(type, item)):
        raise DecodeError("a key that is no integer")
    return item


def _load(payload: bytes, maximum: int, container: type[T]) -> T:
    if len(payload) > maximum:
        raise DecodeError(f"a message of {len(payload)} bytes, more than {maximum}")
    try:
        message = cbor2.loads(
            payload,
            max_depth=_MAX_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            semantic_decoders=_NO_TAGS,
        )
        # One comparison finds trailing bytes and every longer form of a number or length.
        preferred = type(message) is container and cbor2.dumps(message) == payload
    except Exception as error:
        raise DecodeError(f"not CBOR as this protocol uses it: {error}") from None
    if not preferred:
        raise DecodeError(f"not one CBOR {_CONTAINERS[container]} in preferred serialization")
    item: T = message
    return item
