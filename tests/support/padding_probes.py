"""Ciphertexts for whoever wants to know whether a padding was good (Bleichenbacher), and the statistics for it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.asymmetric import rsa

#: TLS 1.2, as a client asks for it.
VERSION = b"\x03\x03"
_PRE_MASTER_LENGTH = 48


def _nonzero(count: int) -> bytes:
    found = os.urandom(count).replace(b"\0", b"")
    while len(found) < count:
        found += os.urandom(count - len(found)).replace(b"\0", b"")
    return found


def _block(length: int, message: bytes, *, head: bytes = b"\0\x02") -> bytes:
    """A block of RSAES-PKCS1-v1_5, or something like it with another `head`."""
    return head + _nonzero(length - len(head) - 1 - len(message)) + b"\0" + message


def _secret(version: bytes = VERSION) -> bytes:
    return version + _nonzero(_PRE_MASTER_LENGTH - 2)


#: What the blocks are like, by what is wrong with them; each is made anew, of `length` bytes.
BLOCKS: dict[str, Callable[[int], bytes]] = {
    "good": lambda length: _block(length, _secret()),
    "wrong-version": lambda length: _block(length, _secret(b"\x03\x01")),
    "short-message": lambda length: _block(length, _nonzero(47)),
    "long-message": lambda length: _block(length, _nonzero(49)),
    "empty-message": lambda length: _block(length, b""),
    "longest-message": lambda length: _block(length, _nonzero(length - 11)),
    "no-separator": lambda length: b"\0\x02" + _nonzero(length - 2),
    "separator-too-early": lambda length: b"\0\x02" + _nonzero(7) + b"\0" + _nonzero(length - 10),
    "separator-at-once": lambda length: b"\0\x02\0" + _nonzero(length - 3),
    "block-type-1": lambda length: _block(length, _secret(), head=b"\0\x01"),
    "block-type-0": lambda length: b"\0\0" + _nonzero(length - 2),
    "first-byte": lambda length: _block(length, _secret(), head=b"\x01\x02"),
    "all-zeros-after-the-head": lambda length: b"\0\x02" + bytes(length - 2),
    "random": lambda length: b"\0" + os.urandom(length - 1),
}
#: Those that a decryption without implicit rejection takes for a message.
CONFORMING = ("good", "wrong-version", "short-message", "long-message", "empty-message", "longest-message")


def probe(public: rsa.RSAPublicKey, kind: str) -> bytes:
    """A ciphertext whose block is of this kind."""
    numbers, length = public.public_numbers(), (public.key_size + 7) // 8
    while True:
        block = int.from_bytes(BLOCKS[kind](length), "big")
        if 1 < block < numbers.n:
            return pow(block, numbers.e, numbers.n).to_bytes(length, "big")


def separation(one: Sequence[float], other: Sequence[float]) -> float:
    """How surely two samples are of different distributions, in standard deviations (Mann-Whitney U).

    Ranks only count, so that a few samples which took very long, as they do on a busy machine, count for little.
    Positive when `one` is the larger. Of equal distributions |z| exceeds 6 once in 500 million times.
    """
    marked = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    ranks = 0.0
    position = 0
    while position < len(marked):
        end = position
        while end < len(marked) and marked[end][0] == marked[position][0]:
            end += 1
        ranks += (position + 1 + end) / 2 * sum(1 for _, side in marked[position:end] if side == 0)
        position = end
    n, m = len(one), len(other)
    u = ranks - n * (n + 1) / 2
    return (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
