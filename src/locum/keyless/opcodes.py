"""The raw operations as the published keyless protocol has them: an opcode, and a digest or a ciphertext (X5).

Never knows which key is meant, nor whether it may be used like that.
"""

from __future__ import annotations

from collections.abc import Callable

from locum.keyless.errors import RequestFault
from locum.keyless.operations import MAX_CONTENT, Decrypt, Sign
from locum.keyless.registry import OPCODE_OF_SCHEME, SIGNING, ErrorCode, Opcode

#: Longest ciphertext in bytes: an RSA modulus of 8,192 bits.
MAX_CIPHERTEXT = 1024
#: Bytes around the message in a block of RSAES-PKCS1-v1_5: 00 02, at least eight of padding, 00.
BLOCK_OVERHEAD = 11


def encode_raw(operation: Sign | Decrypt) -> tuple[int, bytes] | None:
    """Opcode and payload of a raw operation; None for a signature that no published opcode is for."""
    if type(operation) is Decrypt:
        return Opcode.RSA_DECRYPT, operation.ciphertext
    assert type(operation) is Sign
    opcode = OPCODE_OF_SCHEME.get(operation.scheme)
    if opcode is None or operation.prehashed != (SIGNING[opcode].digest_length > 0):
        return None
    return opcode, operation.content


def decode_raw(opcode: int, payload: bytes) -> Sign | Decrypt | None:
    """The raw operation of an opcode; None when the opcode stands for none. Raises: RequestFault."""
    signing = SIGNING.get(opcode)
    if signing is not None:
        length = signing.digest_length
        if length and len(payload) != length:
            raise RequestFault(ErrorCode.FORMAT, f"a digest of {len(payload)} bytes instead of {length}")
        if len(payload) > MAX_CONTENT:
            raise RequestFault(ErrorCode.FORMAT, f"a content of more than {MAX_CONTENT} bytes")
        return Sign(signing.scheme, payload, length > 0)
    if opcode == Opcode.RSA_DECRYPT:
        if len(payload) > MAX_CIPHERTEXT:
            raise RequestFault(ErrorCode.FORMAT, f"a ciphertext of {len(payload)} bytes")
        return Decrypt(payload)
    return None


def pad_block(message: bytes, length: int, random: Callable[[int], bytes]) -> bytes:
    """The answer to `RSA_DECRYPT`: `message` in a block of `length` bytes, as many as the modulus has.

    Peers of the published protocol expect the whole block and take the padding off themselves (RFC 8017 section
    7.2.2). It is made anew here: the one that was decrypted, good or bad, has not left the decryption, and so
    says nothing. Raises: ValueError when the message does not fit.
    """
    wanted = length - len(message) - 3
    if wanted < BLOCK_OVERHEAD - 3:
        raise ValueError(f"a message of {len(message)} bytes does not fit a block of {length}")
    padding = random(wanted).replace(b"\0", b"")
    while len(padding) < wanted:
        padding += random(wanted - len(padding)).replace(b"\0", b"")
    return b"".join((b"\0\x02", padding, b"\0", message))
