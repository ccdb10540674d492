"""Keys at key servers for callers that block: the port `PrivateKey` over a pool on a thread (C7)."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support import key_servers
from tests.support.key_servers import KeyServer

from locum.errors import Refused, Unavailable
from locum.keyless.frames import Frame, encode_response
from locum.keyless.operations import Decrypt, Sign
from locum.keyless.queries import KeysAnswer, KeysQuery, encode_answer
from locum.keyless.requests import Request
from locum.keys.blocking import BlockingKeys
from locum.keys.pool import PoolOptions
from locum.keys.port import PrivateKey

OFFERED = key_servers.offered()
OPTIONS = PoolOptions(timeout=30, hedge_delay=None)


def answer(frame: Frame, request: Request) -> bytes | None:
    match request:
        case KeysQuery():
            return encode_response(frame.id, encode_answer(KeysAnswer(keys=(OFFERED,))))
        case Decrypt():
            padding = b"x" * (len(request.ciphertext) - len(b"\0\2\0message"))
            return encode_response(frame.id, b"\0\2" + padding + b"\0message")
        case Sign():
            return encode_response(frame.id, f"{request.scheme} {request.prehashed} ".encode() + request.content)
    raise AssertionError(request)


@contextmanager
def running(server: KeyServer) -> Iterator[None]:
    """`server` on a thread with a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(30)
        yield
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KeyServer]:
    server = KeyServer(key_servers.server_context(tmp_path), answer)
    with running(server):
        yield server


def test_a_key_signs_and_decrypts_and_only_digests_travel(tmp_path: Path, server: KeyServer) -> None:
    with BlockingKeys(key_servers.credential(tmp_path / "edge", [server.address]), options=OPTIONS) as keys:
        assert keys.keys() == (OFFERED,)
        key: PrivateKey = keys.key(OFFERED)
        assert key.public_key == b"spki"
        digest = hashlib.sha256(b"content").digest()
        signed = b"ECDSA_SECP256R1_SHA256 True " + digest
        assert key.sign("ECDSA_SECP256R1_SHA256", b"content") == signed
        assert key.sign("ECDSA_SECP256R1_SHA256", digest, prehashed=True) == signed
        assert key.sign("MLDSA65", b"content") == b"MLDSA65 False content"
        assert key.decrypt_pkcs1(bytes(256)) == b"message"
        assert "web" in repr(key)


def test_a_refusal_reaches_the_caller(tmp_path: Path, server: KeyServer) -> None:
    server.behaviour = key_servers.refuse
    credential = key_servers.credential(tmp_path / "edge", [server.address])
    with BlockingKeys(credential, options=OPTIONS) as keys, pytest.raises(Refused, match="not for you"):
        keys.key(OFFERED).sign("ED25519", b"content")


def test_closing_frees_whoever_waits_and_further_use_is_refused(tmp_path: Path, server: KeyServer) -> None:
    server.behaviour = key_servers.keep_silent
    keys = BlockingKeys(key_servers.credential(tmp_path / "edge", [server.address]), options=OPTIONS)
    errors: list[Exception] = []

    def ask() -> None:
        try:
            keys.key(OFFERED).sign("ED25519", b"content")
        except Unavailable as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not server.received:
        thread.join(0.005)
    keys.close()
    thread.join(30)
    assert "closed" in str(errors[0])
    keys.close()
    with pytest.raises(Unavailable, match="closed"):
        keys.keys()
