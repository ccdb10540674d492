"""Every request of the keyless protocol as a value, written as a frame and read from one.

Never knows who asks, nor who answers.
"""

from __future__ import annotations

from dataclasses import field

from locum.errors import DecodeError
from locum.keyless.bound import decode_function, encode_function
from locum.keyless.errors import RequestFault
from locum.keyless.frames import Frame, KeyReference, encode_frame
from locum.keyless.opcodes import decode_raw, encode_raw
from locum.keyless.operations import (
    CertificateVerify,
    ClientVerify,
    Decrypt,
    KeyOperation,
    MasterSecret,
    ServerKeyExchange,
    Sign,
)
from locum.keyless.queries import (
    Query,
    decode_query,
    encode_query,
)
from locum.keyless.registry import ErrorCode, Opcode
from locum.values import dataclass

#: Longest content that is sealed, in bytes.
MAX_SEALED = 16 * 1024
#: The classes of the operations on a key, by how an edge must be allowed to use it.
RAW = (Sign, Decrypt)
BOUND = (CertificateVerify, ServerKeyExchange, ClientVerify, MasterSecret)


@dataclass(frozen=True, slots=True)
class Ping:
    """Is anybody there? The payload comes back."""

    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Seal:
    """Encrypt `content`, at most `MAX_SEALED` bytes, for whoever may unseal it."""

    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unseal:
    """Decrypt what a `Seal` made."""

    sealed: bytes


Request = KeyOperation | Ping | Seal | Unseal | Query
NO_KEY = KeyReference()

_CUSTOM = int(Opcode.CUSTOM)


def encode_request(number: int, request: Request, reference: KeyReference = NO_KEY) -> bytes:
    """The frame that asks `request` under the id `number`, of the key `reference` if it is an operation on one.

    Raises: ValueError for what does not fit the protocol.
    """
    opcode, payload, function = _CUSTOM, b"", b""
    if isinstance(request, BOUND):
        function, payload = encode_function(request)
    elif isinstance(request, RAW):
        raw = encode_raw(request)
        if raw is not None:
            opcode, payload = raw
        else:
            function, payload = encode_function(request)
    elif isinstance(request, Ping):
        opcode, payload = Opcode.PING, request.payload
    elif isinstance(request, Seal):
        opcode, payload = Opcode.SEAL, request.content
    elif isinstance(request, Unseal):
        opcode, payload = Opcode.UNSEAL, request.sealed
    else:
        function, payload = encode_query(request)
    name = reference.server_name.encode("ascii") if reference.server_name else b""
    return encode_frame(Frame(number, opcode, payload, reference.ski, reference.digest, name, function))


def decode_request(frame: Frame) -> Request:
    """What a frame asks. Raises: RequestFault, with the code to answer with."""
    opcode, payload = frame.opcode, frame.payload
    raw = decode_raw(opcode, payload)
    if raw is not None:
        return raw
    if opcode == Opcode.CUSTOM:
        return _decode_custom(frame.function, payload)
    if opcode == Opcode.PING:
        return Ping(payload)
    if opcode == Opcode.SEAL:
        if len(payload) > MAX_SEALED:
            raise RequestFault(ErrorCode.FORMAT, f"more than {MAX_SEALED} bytes to seal")
        return Seal(payload)
    if opcode == Opcode.UNSEAL:
        return Unseal(payload)
    if opcode == Opcode.MALFORMED:
        raise RequestFault(ErrorCode.FORMAT, frame.extra.decode() or "no opcode")
    if opcode in (Opcode.RESPONSE, Opcode.PONG, Opcode.ERROR):
        raise RequestFault(ErrorCode.UNEXPECTED_OPCODE)
    raise RequestFault(ErrorCode.BAD_OPCODE)


def _decode_custom(function: bytes, payload: bytes) -> Request:
    try:
        request = decode_function(function, payload) or decode_query(function, payload)
    except DecodeError as error:
        raise RequestFault(ErrorCode.FORMAT, str(error)) from None
    if request is None:
        raise RequestFault(ErrorCode.BAD_OPCODE, "the key server does not know this function")
    return request
