"""Fuzz targets: what a key is asked for as bound to TLS, the PKCS#11 URI, and decrypted blocks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from tests.support import bound_operations as bound

from locum.errors import LocumError
from locum.keyless.operations import ClientVerify
from locum.keys.bound import client_verify_content, master_secret_seed, server_key_exchange_content
from locum.keys.rejection import OVERHEAD, take_off_padding
from locum.keys.token_uri import TokenUri

_SCHEME = "ECDSA_SECP256R1_SHA256"
_CIPHERTEXT = bytes(256)
_URI = b"pkcs11:token=a%20b;object=k;id=%01;type=private?module-path=/x.so&pin-source=file:/pin"


def _parameters(data: bytes) -> None:
    """The input are the parameters of a ServerKeyExchange."""
    with suppress(LocumError):
        assert server_key_exchange_content(bound.server_key_exchange(_SCHEME, parameters=data)).endswith(data)


def _client_messages(data: bytes) -> None:
    """The input are the messages before a client's CertificateVerify."""
    with suppress(LocumError):
        assert client_verify_content(ClientVerify(_SCHEME, data)) == data


def _exchange_messages(data: bytes) -> None:
    """The input are the messages of an RSA key exchange."""
    with suppress(LocumError):
        master_secret_seed(replace(bound.master_secret(_CIPHERTEXT), extended=True, messages=data))


def _uri(data: bytes) -> None:
    with suppress(LocumError):
        uri = TokenUri.parse(data.decode("utf-8", "surrogateescape"))
        assert TokenUri.parse(str(uri)) == uri


def _block(data: bytes) -> None:
    """The input is a decrypted block: either its end comes out, or what was to come out instead."""
    block = data.rjust(2 * OVERHEAD, b"\xff")
    message = take_off_padding(block, b"instead")
    assert message == b"instead" or (block.endswith(b"\0" + message) and block.startswith(b"\0\2"))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "server_key_exchange_parameters": _parameters,
    "client_verify_messages": _client_messages,
    "master_secret_messages": _exchange_messages,
    "token_uri": _uri,
    "decrypted_block": _block,
}
SEEDS = {
    "server_key_exchange_parameters": [bound.curve_parameters(), bound.finite_field_parameters()],
    "client_verify_messages": [bound.client_messages(_SCHEME).whole()],
    "master_secret_messages": [
        bound.exchange_messages(_CIPHERTEXT).whole(),
        bound.exchange_messages(_CIPHERTEXT, status=True, requested=(0x0804,), client_certificates=()).whole(),
    ],
    "token_uri": [_URI],
    "decrypted_block": [b"\0\2" + b"\x55" * 8 + b"\0message"],
}
