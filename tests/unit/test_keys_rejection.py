"""Implicit rejection: what comes out instead of a message, and which blocks are none (RFC 8017 section 7.2.2)."""

import pytest
from tests.support import bound_operations as bound
from tests.support import pki

from locum.keys.file import FileKey
from locum.keys.rejection import (
    OVERHEAD,
    instead_of_message,
    instead_of_pre_master,
    rejection_secret,
    take_off_padding,
)

SECRET = bytes(256)
INSTEAD = b"something else"
PADDING = b"\x55" * 8


def test_every_holder_of_a_key_has_the_same_secret_and_no_other_key_has() -> None:
    first = rejection_secret(FileKey(pki.key("rsa")))
    assert first == rejection_secret(FileKey(pki.key("rsa")))
    assert first != rejection_secret(FileKey(pki.key("rsa", "other")))


def test_what_comes_instead_hangs_on_secret_ciphertext_and_version() -> None:
    secrets = {
        instead_of_pre_master(secret, ciphertext, version)
        for secret in (SECRET, b"\1" * 256)
        for ciphertext in (bytes(256), b"\1" * 256)
        for version in (b"\3\3", b"\3\2")
    }
    assert len(secrets) == 8
    assert {len(secret) for secret in secrets} == {len(bound.PRE_MASTER_SECRET)}


def test_messages_that_come_instead_have_every_length_that_fits() -> None:
    length = 32
    lengths = {len(instead_of_message(SECRET, number.to_bytes(length, "big"))) for number in range(1000)}
    assert lengths == set(range(length - OVERHEAD + 1))


@pytest.mark.parametrize("message", [b"", b"\0", b"message", bytes(48)], ids=len)
def test_message_of_a_good_block_comes_out(message: bytes) -> None:
    assert take_off_padding(b"\0\2" + PADDING + b"\0" + message, INSTEAD) == message


@pytest.mark.parametrize(
    "block",
    [
        b"\1\2" + PADDING + b"\0message",
        b"\0\1" + PADDING + b"\0message",
        b"\2\0" + PADDING + b"\0message",
        b"\0\2" + PADDING[1:] + b"\0message",
        b"\0\2\0" + PADDING + b"\0message",
        b"\0\2" + PADDING + b"\1message",
        bytes(32),
    ],
    ids=["first", "type", "swapped", "short padding", "no padding", "no end", "zeros"],
)
def test_block_that_is_none_gives_what_comes_instead(block: bytes) -> None:
    assert take_off_padding(block, INSTEAD) == INSTEAD
