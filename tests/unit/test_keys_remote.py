"""`RemoteKey`: what a decryption at a key server comes to, whatever that server does with the padding (X5)."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.key_pairs import key_pair

from locum.crypto.asymmetric.key_names import names_of
from locum.errors import Unavailable
from locum.keyless.frames import KeyReference
from locum.keyless.operations import Decrypt, KeyOperation, Sign
from locum.keyless.queries import OfferedKey
from locum.keys.remote import RemoteKey

CIPHERTEXT = bytes(range(256))
BLOCK = b"\0\2" + b"\x55" * 205 + b"\0" + b"message" * 6 + b"!" * 6
BAD = {
    "other type": b"\0\1" + BLOCK[2:],
    "first byte": b"\1" + BLOCK[1:],
    "short padding": b"\0\2\0" + BLOCK[3:],
    "no end of the padding": b"\0\2" + b"\x55" * 254,
}


class Server:
    """A key server that answers everything alike."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    async def perform(self, reference: KeyReference, operation: KeyOperation) -> bytes:
        assert reference.ski
        return self._answer


def decrypted(answer: bytes, ciphertext: bytes = CIPHERTEXT) -> bytes:
    public_key = key_pair("rsa2048").public_key
    names = names_of(public_key)
    offered = OfferedKey(
        name="web", kind=names.kind, public_key=public_key, ski=names.ski, digest=bytes.fromhex(names.digest)
    )
    key = RemoteKey(Server(answer), offered)
    assert asyncio.run(key.perform(Sign("RSA_PKCS1_SHA256", bytes(32)))) == answer
    return asyncio.run(key.perform(Decrypt(ciphertext)))


def test_the_message_comes_out_of_a_good_block() -> None:
    assert decrypted(BLOCK) == b"message" * 6 + b"!" * 6


@pytest.mark.parametrize("block", BAD.values(), ids=BAD)
def test_a_block_with_bad_padding_gives_other_bytes_and_always_the_same(block: bytes) -> None:
    found = decrypted(block)
    assert found == decrypted(block)
    assert found == decrypted(BAD["first byte"])
    assert found != decrypted(block, CIPHERTEXT[::-1])
    assert len(found) <= len(CIPHERTEXT) - 11


@pytest.mark.parametrize("answer", [b"", BLOCK[1:], BLOCK + b"\0"], ids=len)
def test_an_answer_of_another_length_is_the_servers_fault(answer: bytes) -> None:
    with pytest.raises(Unavailable, match="no block"):
        decrypted(answer)
