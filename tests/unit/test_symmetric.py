"""The symmetric cryptography of a terminal: lengths, failures, and what must not be shown."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.exceptions import InvalidTag

from locum.crypto import symmetric
from locum.crypto.symmetric import (
    AES_128_CCM,
    AES_128_CCM_8,
    AES_128_GCM,
    AES_256_CCM,
    AES_256_CCM_8,
    AES_256_GCM,
    CHACHA20_POLY1305,
    SHA256,
    SHA384,
    SHA512,
    AeadAlgorithm,
    AuthenticationFailed,
    HashAlgorithm,
    HkdfKey,
    constant_time_equal,
    hkdf_expand,
    hkdf_extract,
    tls12_prf,
)

ALGORITHMS = (AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, AES_128_CCM, AES_128_CCM_8, AES_256_CCM, AES_256_CCM_8)
HASHES = (SHA256, SHA384, SHA512)
NONCE = bytes(range(12))


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)
def test_sealing_and_opening_agree_whole_and_in_place(algorithm: AeadAlgorithm) -> None:
    key = algorithm.new(bytes(algorithm.key_length))
    sealed = key.seal(NONCE, b"content", b"header")
    assert len(sealed) == 7 + algorithm.tag_length
    assert key.open(NONCE, sealed, b"header") == b"content"
    buffer = bytearray(b"content" + bytes(algorithm.tag_length))
    with memoryview(buffer) as view:
        key.seal_into(NONCE, view[:7], b"header", view)
    assert buffer == sealed
    opened = bytearray(7)
    key.open_into(NONCE, sealed, b"header", opened)
    assert opened == b"content"


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)
def test_anything_altered_does_not_open(algorithm: AeadAlgorithm) -> None:
    key = algorithm.new(bytes(algorithm.key_length))
    sealed = key.seal(NONCE, b"content", b"header")
    for position in range(len(sealed)):
        altered = bytearray(sealed)
        altered[position] ^= 1
        with pytest.raises(AuthenticationFailed):
            key.open(NONCE, bytes(altered), b"header")
    for nonce, data, header in (
        (bytes(12), sealed, b"header"),
        (NONCE, sealed, b"Header"),
        (NONCE, sealed[:-1], b"header"),
        (NONCE, sealed + b"x", b"header"),
        (NONCE, b"", b"header"),
        (NONCE, sealed[: algorithm.tag_length - 1], b"header"),
    ):
        with pytest.raises(AuthenticationFailed):
            key.open(nonce, data, header)
    with pytest.raises(InvalidTag):
        key.open_into(NONCE, sealed[:-1] + bytes((sealed[-1] ^ 1,)), b"header", bytearray(7))


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)
def test_a_key_of_another_length_is_a_mistake_of_ours(algorithm: AeadAlgorithm) -> None:
    for length in (0, algorithm.key_length - 1, algorithm.key_length + 1):
        with pytest.raises(ValueError, match=f"a key of {algorithm.key_length} bytes"):
            algorithm.new(bytes(length))


def test_a_key_does_not_show_itself() -> None:
    assert repr(AES_128_GCM.new(b"k" * 16)) == "<AeadKey AES-128-GCM>"


@pytest.mark.parametrize("algorithm", HASHES, ids=lambda algorithm: algorithm.name)
def test_a_hash_is_what_hashlib_says(algorithm: HashAlgorithm) -> None:
    expected = hashlib.new(algorithm.name, b"abc").digest()
    assert algorithm.digest(b"abc") == expected
    assert len(expected) == algorithm.length
    state = algorithm.new()
    state.update(b"a")
    state.update(b"bc")
    assert state.digest() == expected


def test_an_empty_salt_is_a_block_of_zeros() -> None:
    assert hkdf_extract(SHA256, b"", b"secret") == hkdf_extract(SHA256, bytes(32), b"secret")


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 100, 255 * 32])
def test_expansion_is_as_long_as_asked_and_a_prefix_of_a_longer_one(length: int) -> None:
    whole = hkdf_expand(SHA256, b"k" * 32, b"info", 255 * 32)
    assert hkdf_expand(SHA256, b"k" * 32, b"info", length) == whole[:length]
    assert (
        tls12_prf(SHA256, b"s", b"label", b"seed", length)
        == tls12_prf(SHA256, b"s", b"label", b"seed", 9000)[:length]
    )


def test_expansion_beyond_255_blocks_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="255 blocks"):
        hkdf_expand(SHA256, b"k" * 32, b"", 255 * 32 + 1)


@pytest.mark.parametrize("algorithm", [SHA256, SHA384], ids=["sha256", "sha384"])
def test_one_key_of_hkdf_expands_several_values_of_at_most_one_hash(algorithm: HashAlgorithm) -> None:
    key = HkdfKey(algorithm, b"k" * 32)
    for info, length in ((b"one", 12), (b"two", algorithm.length), (b"one", 1)):
        assert key.expand(info, length) == hkdf_expand(algorithm, b"k" * 32, info, 2 * algorithm.length)[:length]
    assert "k" * 8 not in repr(key)
    with pytest.raises(ValueError, match="one block"):
        key.expand(b"one", algorithm.length + 1)


def test_secrets_are_compared_as_a_whole() -> None:
    assert constant_time_equal(b"abc", b"abc")
    assert not constant_time_equal(b"abc", b"abd")
    assert not constant_time_equal(b"abc", b"abcd")
    assert not constant_time_equal(b"", b"a")


def test_comparison_is_left_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(symmetric.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or True)
    assert constant_time_equal(b"a", b"b")
    assert compared == [(b"a", b"b")]
