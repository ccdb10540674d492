"""locum's own operations on a key, each the name of a function and a map in CBOR (X3).

Never knows what is signed in the end; whoever has the key builds that.
"""

from __future__ import annotations

import re
from typing import Any

from locum.errors import DecodeError
from locum.keyless.opcodes import MAX_CIPHERTEXT
from locum.keyless.operations import (
    MAX_CONTENT,
    RANDOM_LENGTH,
    CertificateVerify,
    ClientVerify,
    KeyOperation,
    MasterSecret,
    Role,
    ServerKeyExchange,
    Sign,
)
from locum.keyless.registry import MAX_BODY, Function
from locum.tls.registry import SignatureScheme
from locum.wire.cbor import FLAG, UNTYPED, Kind, Shape, blob, dump, fixed, integer, load_map, member

#: Longest transcript hash in bytes.
MAX_HASH = 64
#: Longest ServerDHParams in bytes: three numbers of 8,192 bits, each with its length.
MAX_PARAMETERS = 3 * (1024 + 2)
#: Longest name of a scheme.
MAX_SCHEME = 48
_NAME = re.compile(rf"[A-Z0-9_]{{1,{MAX_SCHEME}}}")

_NAMES = {int(scheme): scheme.name for scheme in SignatureScheme}
_CODES = {name: code for code, name in _NAMES.items()}


def _decode_scheme(value: Any) -> str:
    name = _NAMES.get(value) if type(value) is int else None
    if name is None:
        raise DecodeError("a signature scheme of TLS expected")
    return name


def _encode_scheme(name: str) -> int:
    code = _CODES.get(name)
    if code is None:
        raise ValueError(f"{name} is not a signature scheme of TLS")
    return code


def _decode_name(value: Any) -> str:
    """The name of any scheme, which ends up in the audit log: it has no room for words of the one who asks."""
    if type(value) is not str or not _NAME.fullmatch(value):
        raise DecodeError("the name of a signature scheme expected")
    return value


def _decode_hash(value: Any) -> str:
    if value not in ("sha256", "sha384"):
        raise DecodeError("sha256 or sha384 expected")
    return str(value)


_SCHEME = Kind(_decode_scheme, _encode_scheme)
_RANDOM = fixed(RANDOM_LENGTH)
_MESSAGES = blob(MAX_CONTENT)

#: Every function that is an operation on a key. The numbers of the fields are never given to others.
SHAPES: dict[bytes, Shape] = {
    Function.CERTIFICATE_VERIFY: Shape(
        CertificateVerify,
        UNTYPED,
        {1: ("scheme", _SCHEME), 2: ("role", member(Role)), 3: ("transcript_hash", blob(MAX_HASH))},
    ),
    Function.SERVER_KEY_EXCHANGE: Shape(
        ServerKeyExchange,
        UNTYPED,
        {
            1: ("scheme", _SCHEME),
            2: ("client_random", _RANDOM),
            3: ("server_random", _RANDOM),
            4: ("parameters", blob(MAX_PARAMETERS)),
        },
    ),
    Function.CLIENT_VERIFY: Shape(ClientVerify, UNTYPED, {1: ("scheme", _SCHEME), 2: ("messages", _MESSAGES)}),
    Function.MASTER_SECRET: Shape(
        MasterSecret,
        UNTYPED,
        {
            1: ("ciphertext", blob(MAX_CIPHERTEXT)),
            2: ("client_version", integer(0xFFFF)),
            3: ("client_random", _RANDOM),
            4: ("random_seed", _RANDOM),
            5: ("server_random", _RANDOM),
            6: ("hash", Kind(_decode_hash)),
            7: ("extended", FLAG),
            8: ("messages", _MESSAGES),
        },
    ),
    # Raw: for the schemes that the published protocol has no opcode for.
    Function.SIGN: Shape(
        Sign,
        UNTYPED,
        {1: ("scheme", Kind(_decode_name)), 2: ("content", blob(MAX_CONTENT)), 3: ("prehashed", FLAG)},
    ),
}
_FUNCTIONS = {shape.message: (function, shape) for function, shape in SHAPES.items()}


def _prefixes() -> dict[bytes, tuple[str, Role, int]]:
    """What the payload of a CertificateVerify begins with, before the transcript hash of 32 or 48 bytes."""
    shape = SHAPES[Function.CERTIFICATE_VERIFY]
    found = {}
    for scheme in _CODES:
        for role in Role:
            for length in (32, 48):
                payload = dump(shape.encode(CertificateVerify(scheme, role, bytes(length))))
                found[payload[:-length]] = (scheme, role, length)
    return found


#: Every TLS 1.3 handshake asks for one, so that it is written and read without looking at each field.
_BY_PREFIX = _prefixes()
_PREFIXES = {what: prefix for prefix, what in _BY_PREFIX.items()}
(_PREFIX_LENGTH,) = set(map(len, _BY_PREFIX))


def encode_function(operation: KeyOperation) -> tuple[bytes, bytes]:
    """The function's name and the payload of an operation. Raises: ValueError for what does not travel."""
    if type(operation) is CertificateVerify:
        transcript_hash = operation.transcript_hash
        prefix = _PREFIXES.get((operation.scheme, operation.role, len(transcript_hash)))
        if prefix is not None:
            return Function.CERTIFICATE_VERIFY, prefix + transcript_hash
    function, shape = _FUNCTIONS[type(operation)]
    return function, dump(shape.encode(operation))


def decode_function(function: bytes, payload: bytes) -> KeyOperation | None:
    """The operation of a function; None when the function is none. Raises: DecodeError."""
    shape = SHAPES.get(function)
    if shape is None:
        return None
    if function == Function.CERTIFICATE_VERIFY:
        known = _BY_PREFIX.get(payload[:_PREFIX_LENGTH])
        if known is not None and len(payload) == _PREFIX_LENGTH + known[2]:
            return CertificateVerify(known[0], known[1], payload[_PREFIX_LENGTH:])
    operation: KeyOperation = shape.decode(load_map(payload, MAX_BODY))
    return operation
