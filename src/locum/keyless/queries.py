"""What an edge asks a key server besides operations: the keys and certificates there are for it, and ticket keys.

Never says who may see what; an answer contains what the server has chosen for the one who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any

from locum.errors import DecodeError
from locum.handshake import MAX_CERTIFICATES, MAX_CHAIN
from locum.keyless.registry import DIGEST_LENGTH, MAX_BODY, MAX_SERVER_NAME, SKI_LENGTH, Function
from locum.values import dataclass
from locum.wire.cbor import FLAG, UNTYPED, Kind, Shape, blob, blobs, dump, fixed, integer, load_map, text

#: Bytes of keys or names in one answer; there is a next one for the rest.
PAGE_LENGTH = 48 * 1024
#: Items that are counted at all.
MAX_ITEMS = 1_000_000
#: Longest name of a key or certificate and longest kind, in bytes; longest SubjectPublicKeyInfo.
MAX_NAME = 255
MAX_KIND = 32
MAX_PUBLIC_KEY = 8192
#: Names in one answer, and bytes of the names of one certificate.
MAX_NAMES = 4096
MAX_CERTIFICATE_NAMES = 8 * 1024
#: Longest OCSP response in bytes.
MAX_OCSP = 6 * 1024
#: Longest lifetime of an answer in seconds.
MAX_LIFETIME = 366 * 86_400
#: Bytes of the root of ticket keys.
TICKET_ROOT_LENGTH = 32


# --- keys -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedKey:
    """A key that the one who asks may use: `kind` as in the list of keys, its SubjectPublicKeyInfo, its names on
    the wire, and how it may be used: with raw operations, with bound ones, for a TLS server, for a TLS client.
    """

    name: str
    kind: str
    public_key: bytes
    ski: bytes
    digest: bytes
    raw: bool = False
    bound: bool = True
    server: bool = True
    client: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysQuery:
    """Which keys there are, from number `start` on."""

    start: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysAnswer:
    """Keys, in an order that stays the same, and whether there are `more`."""

    keys: tuple[OfferedKey, ...]
    more: bool = False


# --- certificates -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateQuery:
    """The certificate for a server name (C3)."""

    server_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateAnswer:
    """A certificate chain in DER, the server's own first; a stapled OCSP response or nothing; the key's SKI.

    `names` are the DNS names that it is for. It may be kept for `lifetime` seconds.
    """

    name: str
    names: tuple[str, ...]
    chain: tuple[bytes, ...]
    ski: bytes
    ocsp_response: bytes = b""
    lifetime: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateNamesQuery:
    """Which names there are certificates for, from number `start` on."""

    start: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateNamesAnswer:
    """DNS names, wildcards among them, in an order that stays the same, and whether there are `more`."""

    names: tuple[str, ...]
    more: bool = False


# --- tickets ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketsQuery:
    """The root of the session ticket keys that all edges share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketsAnswer:
    """The root (32 bytes), for how many seconds a key made from it is used, and after how many to ask again."""

    root: bytes = field(repr=False)
    epoch_seconds: int
    lifetime: int


Query = KeysQuery | CertificateQuery | CertificateNamesQuery | TicketsQuery
Answer = KeysAnswer | CertificateAnswer | CertificateNamesAnswer | TicketsAnswer


# --- in CBOR ----------------------------------------------------------------------------------------------


def _texts(count: int, total: int) -> Kind:
    """An array of at most `count` DNS names of together at most `total` bytes."""
    name = text(MAX_SERVER_NAME)

    def decode(value: Any) -> tuple[str, ...]:
        if type(value) is not list or len(value) > count:
            raise DecodeError(f"an array of at most {count} names expected")
        names = tuple(name.decode(each) for each in value)
        if sum(map(len, names)) > total:
            raise DecodeError(f"names of at most {total} bytes in all expected")
        return names

    return Kind(decode, list)


_KEY = Shape(
    OfferedKey,
    UNTYPED,
    {
        1: ("name", text(MAX_NAME)),
        2: ("kind", text(MAX_KIND)),
        3: ("public_key", blob(MAX_PUBLIC_KEY)),
        4: ("ski", fixed(SKI_LENGTH)),
        5: ("digest", fixed(DIGEST_LENGTH)),
        6: ("raw", FLAG),
        7: ("bound", FLAG),
        8: ("server", FLAG),
        9: ("client", FLAG),
    },
)


def _decode_keys(value: Any) -> tuple[OfferedKey, ...]:
    if type(value) is not list or not all(type(each) is dict for each in value):
        raise DecodeError("an array of keys expected")
    return tuple(_KEY.decode(each) for each in value)


_START = integer(MAX_ITEMS)
_QUERIES: dict[bytes, Shape] = {
    Function.KEYS: Shape(KeysQuery, UNTYPED, {1: ("start", _START)}),
    Function.CERTIFICATE: Shape(CertificateQuery, UNTYPED, {1: ("server_name", text(MAX_SERVER_NAME))}),
    Function.CERTIFICATES: Shape(CertificateNamesQuery, UNTYPED, {1: ("start", _START)}),
    Function.TICKETS: Shape(TicketsQuery, UNTYPED, {}),
}
_FUNCTIONS = {shape.message: (function, shape) for function, shape in _QUERIES.items()}
_LIFETIME = integer(MAX_LIFETIME)
_ANSWERS: dict[type, Shape] = {
    KeysQuery: Shape(
        KeysAnswer,
        UNTYPED,
        {
            1: ("keys", Kind(_decode_keys, lambda keys: [_KEY.encode(each) for each in keys])),
            2: ("more", FLAG),
        },
    ),
    CertificateQuery: Shape(
        CertificateAnswer,
        UNTYPED,
        {
            1: ("name", text(MAX_NAME)),
            2: ("names", _texts(MAX_NAMES, MAX_CERTIFICATE_NAMES)),
            3: ("chain", blobs(MAX_CERTIFICATES, MAX_CHAIN, MAX_CHAIN)),
            4: ("ski", fixed(SKI_LENGTH)),
            5: ("ocsp_response", blob(MAX_OCSP)),
            6: ("lifetime", _LIFETIME),
        },
    ),
    CertificateNamesQuery: Shape(
        CertificateNamesAnswer, UNTYPED, {1: ("names", _texts(MAX_NAMES, MAX_BODY)), 2: ("more", FLAG)}
    ),
    TicketsQuery: Shape(
        TicketsAnswer,
        UNTYPED,
        {
            1: ("root", fixed(TICKET_ROOT_LENGTH)),
            2: ("epoch_seconds", integer(MAX_LIFETIME)),
            3: ("lifetime", _LIFETIME),
        },
    ),
}
_ANSWER_SHAPES = {shape.message: shape for shape in _ANSWERS.values()}


def encode_query(query: Query) -> tuple[bytes, bytes]:
    """The function's name and the payload of a query."""
    function, shape = _FUNCTIONS[type(query)]
    return function, dump(shape.encode(query))


def decode_query(function: bytes, payload: bytes) -> Query | None:
    """The query of a function; None when the function is none. Raises: DecodeError."""
    shape = _QUERIES.get(function)
    if shape is None:
        return None
    query: Query = shape.decode(load_map(payload, MAX_BODY))
    return query


def encode_answer(answer: Answer) -> bytes:
    """The payload of the response to a query."""
    return dump(_ANSWER_SHAPES[type(answer)].encode(answer))


def decode_answer(query: Query, payload: bytes) -> Answer:
    """The answer to `query`. Raises: DecodeError."""
    answer: Answer = _ANSWERS[type(query)].decode(load_map(payload, MAX_BODY))
    return answer


def keys_page(keys: Sequence[OfferedKey], query: KeysQuery) -> KeysAnswer:
    """As many of `keys` as one answer takes, from where `query` begins."""
    end = _page_end(keys, query.start, lambda key: len(key.public_key) + 2 * len(key.name) + 128)
    return KeysAnswer(keys=tuple(keys[query.start : end]), more=end < len(keys))


def names_page(names: Sequence[str], query: CertificateNamesQuery) -> CertificateNamesAnswer:
    """As many of `names` as one answer takes, from where `query` begins."""
    end = min(_page_end(names, query.start, lambda name: len(name) + 3), query.start + MAX_NAMES)
    return CertificateNamesAnswer(names=tuple(names[query.start : end]), more=end < len(names))


def _page_end(items: Sequence[Any], start: int, length: Callable[[Any], int]) -> int:
    """The end of the items from `start` that take `PAGE_LENGTH` bytes together, of one at least."""
    room, end = PAGE_LENGTH, start
    while end < len(items):
        room -= length(items[end])
        if room < 0 and end > start:
            break
        end += 1
    return end
