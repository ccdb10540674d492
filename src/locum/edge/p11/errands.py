"""What the parent, which has the clients, and its workers, which reach the keys, say to one another.

Never knows what is signed. One packet of a SOCK_SEQPACKET socket is one message; both ends are of one version.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any

import cbor2

from locum.edge.p11.registry import Rv
from locum.errors import DecodeError
from locum.values import dataclass

#: Longest packet, in bytes: a content to sign with its head, or the attributes of one object.
MAX_PACKET = 64 * 1024
#: Bytes of a subject key identifier, by which both name a key.
SKI_LENGTH = 20

_ERRAND = struct.Struct(">IB20sB")
_RESULT = struct.Struct(">IQ")


class Task(IntEnum):
    """What is to be done with a key."""

    #: sign the digest that is given
    SIGN_DIGEST = 1
    #: sign the content that is given, which is hashed on the way
    SIGN_CONTENT = 2
    #: decrypt RSAES-PKCS1-v1_5
    DECRYPT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """Parent to worker: one operation with the key `ski`; `scheme` is the IANA name, empty to decrypt."""

    number: int
    task: Task
    ski: bytes
    scheme: str
    data: bytes

    def encode(self) -> bytes:
        """The packet."""
        name = self.scheme.encode()
        return _ERRAND.pack(self.number, self.task, self.ski, len(name)) + name + self.data

    @classmethod
    def decode(cls, packet: bytes) -> Errand:
        """Read a packet. Raises: DecodeError."""
        try:
            number, task, ski, length = _ERRAND.unpack_from(packet)
            start = _ERRAND.size + length
            if start > len(packet):
                raise DecodeError("an errand that ends before its data")
            name = packet[_ERRAND.size : start].decode()
            return cls(number=number, task=Task(task), ski=ski, scheme=name, data=packet[start:])
        except (struct.error, ValueError) as error:
            raise DecodeError(f"not an errand: {error}") from None


class Kind(IntEnum):
    """The first byte of what a worker says."""

    RESULT = 1
    #: the next object that there is now; `COMPLETE` follows the last
    OBJECT = 2
    COMPLETE = 3
    #: the worker cannot begin; the reason is for people
    FAILED = 4


_RESULT_KIND = bytes((Kind.RESULT,))


def encode_result(number: int, rv: Rv, data: bytes = b"") -> bytes:
    """Worker to parent: the errand `number` ended with this CK_RV; `data` is the signature or the message."""
    return _RESULT_KIND + _RESULT.pack(number, rv) + data


def decode_result(packet: bytes) -> tuple[int, int, bytes]:
    """Number, CK_RV and data of a result. Raises: DecodeError."""
    try:
        number, rv = _RESULT.unpack_from(packet, 1)
    except struct.error as error:
        raise DecodeError(f"not a result: {error}") from None
    return number, rv, packet[1 + _RESULT.size :]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenObject:
    """One object of the token: its attributes, and of a private key what it is and may be used for.

    `ski` is empty for an object that nothing can be done with. `length` is that of a signature, in bytes. `raw`
    and `bound` are the permissions of this edge (X3).
    """

    attributes: dict[int, int | bytes]
    ski: bytes = b""
    length: int = 0
    raw: bool = False
    bound: bool = False

    def encode(self) -> bytes:
        """Worker to parent: the packet."""
        fields = (self.attributes, self.ski, self.length, self.raw, self.bound)
        return bytes((Kind.OBJECT,)) + cbor2.dumps(fields)

    @classmethod
    def decode(cls, packet: bytes) -> TokenObject:
        """Read a packet. Raises: DecodeError."""
        try:
            fields: Any = cbor2.loads(packet[1:])
            attributes, ski, length, raw, bound = fields
        except (cbor2.CBORError, ValueError, TypeError) as error:
            raise DecodeError(f"not an object: {error}") from None
        return cls(attributes=attributes, ski=ski, length=length, raw=raw, bound=bound)


def encode_complete() -> bytes:
    """Worker to parent: these were all objects; errands are welcome."""
    return bytes((Kind.COMPLETE,))


def encode_failure(reason: str) -> bytes:
    """Worker to parent: it cannot begin."""
    return bytes((Kind.FAILED,)) + reason.encode()[: MAX_PACKET - 1]
