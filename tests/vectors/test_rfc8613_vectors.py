"""RFC 8613 Appendix C: key derivation at both ends, and protected requests and responses byte for byte."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from tests.support.link_network import SealRecorder

from locum.crypto.symmetric import SHA256, hkdf_expand
from locum.link import oscore
from locum.link.coap import Code, Message, OptionNumber
from locum.link.oscore import (
    Credential,
    OscoreOption,
    SecurityContext,
    partial_iv,
    protect_request,
    unprotect_response,
)

SECRET = bytes(range(1, 17))
SALT = bytes.fromhex("9e7ca92223786340")


@dataclass(frozen=True)
class Vector:
    """One derivation: the client's view; the server's is the mirror image."""

    section: str
    credential: Credential
    id_context: bytes | None
    sender_key: str
    recipient_key: str
    common_iv: str
    sender_nonce: str
    recipient_nonce: str


C1 = Vector(
    "C.1",
    Credential(b"", b"\x01", SECRET, SALT),
    None,
    "f0910ed7295e6ad4b54fc793154302ff",
    "ffb14e093c94c9cac9471648b4f98710",
    "4622d4dd6d944168eefb54987c",
    "4622d4dd6d944168eefb54987c",
    "4722d4dd6d944169eefb54987c",
)
C2 = Vector(
    "C.2",
    Credential(b"\x00", b"\x01", SECRET),
    None,
    "321b26943253c7ffb6003b0b64d74041",
    "e57b5635815177cd679ab4bcec9d7dda",
    "be35ae297d2dace910c52e99f9",
    "bf35ae297d2dace910c52e99f9",
    "bf35ae297d2dace810c52e99f9",
)
C3 = Vector(
    "C.3",
    Credential(b"", b"\x01", SECRET, SALT),
    bytes.fromhex("37cbf3210017a2d3"),
    "af2a1300a5e95788b356336eeecd2b92",
    "e39a0c7c77b43f03b4b39ab9a268699f",
    "2ca58fb85ff1b81c0b7181b85e",
    "2ca58fb85ff1b81c0b7181b85e",
    "2da58fb85ff1b81d0b7181b85e",
)
VECTORS = pytest.mark.parametrize("vector", [C1, C2, C3], ids=lambda vector: vector.section)


@VECTORS
def test_keys_of_the_client(vector: Vector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections C.1.1, C.2.1 and C.3.1."""
    recorder = SealRecorder(monkeypatch)
    SecurityContext.of_terminal(vector.credential, vector.id_context)
    assert [key.hex() for key in recorder.keys] == [vector.sender_key, vector.recipient_key]


@VECTORS
def test_keys_of_the_server(vector: Vector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections C.1.2, C.2.2 and C.3.2."""
    recorder = SealRecorder(monkeypatch)
    SecurityContext.of_delegate(vector.credential, vector.id_context)
    assert [key.hex() for key in recorder.keys] == [vector.recipient_key, vector.sender_key]


@VECTORS
def test_common_iv_by_the_info_structure(vector: Vector) -> None:
    """Sections C.1 to C.3: the info of the Common IV is the array [h'', id_context, 10, "IV", 13]."""
    key = SHA256.hmac(vector.credential.salt or bytes(32), SECRET)
    context = b"\xf6" if vector.id_context is None else bytes((0x40 + len(vector.id_context),)) + vector.id_context
    info = b"\x85\x40" + context + b"\x0a\x62IV\x0d"
    assert hkdf_expand(SHA256, key, info, 13).hex() == vector.common_iv


@VECTORS
def test_nonces_of_both_ends_for_partial_iv_0(vector: Vector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections C.1 to C.3: sender nonce and recipient nonce."""
    recorder = SealRecorder(monkeypatch)
    terminal = SecurityContext.of_terminal(vector.credential, vector.id_context)
    delegate = SecurityContext.of_delegate(vector.credential, vector.id_context)
    terminal.seal_request(b"\x00", b"x")
    delegate.seal_response(b"\x00", b"x", piv=b"\x00")
    assert [nonce.hex() for _, nonce, _, _ in recorder.sealed] == [vector.sender_nonce, vector.recipient_nonce]


@dataclass(frozen=True)
class RequestVector:
    """A request with sequence number 20 before and after protection."""

    section: str
    context: Vector
    unprotected: str
    protected: str
    option: str
    associated_data: str
    nonce: str


REQUESTS = [
    RequestVector(
        "C.4",
        C1,
        "44015d1f00003974396c6f63616c686f737483747631",
        "44025d1f00003974396c6f63616c686f7374620914ff612f1092f1776f1c1668b3825e",
        "0914",
        "8368456e63727970743040488501810a40411440",
        "4622d4dd6d944168eefb549868",
    ),
    RequestVector(
        "C.5",
        C2,
        "440171c30000b932396c6f63616c686f737483747631",
        "440271c30000b932396c6f63616c686f737463091400ff4ed339a5a379b0b8bc731fffb0",
        "091400",
        "8368456e63727970743040498501810a4100411440",
        "bf35ae297d2dace910c52e99ed",
    ),
    RequestVector(
        "C.6",
        C3,
        "44012f8eef9bbf7a396c6f63616c686f737483747631",
        "44022f8eef9bbf7a396c6f63616c686f73746b19140837cbf3210017a2d3ff72cd7273fd331ac45cffbe55c3",
        "19140837cbf3210017a2d3",
        "8368456e63727970743040488501810a40411440",
        "2ca58fb85ff1b81c0b7181b84a",
    ),
]


@pytest.mark.parametrize("vector", REQUESTS, ids=lambda vector: vector.section)
def test_protected_request(vector: RequestVector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections C.4, C.5 and C.6: protected by the client, opened again by the server."""
    recorder = SealRecorder(monkeypatch)
    context = SecurityContext.of_terminal(vector.context.credential, vector.context.id_context)
    message = Message.parse_datagram(bytes.fromhex(vector.unprotected))
    outer = tuple(option for option in message.options if option[0] == OptionNumber.URI_HOST)
    inner = tuple(option for option in message.options if option[0] != OptionNumber.URI_HOST)
    protected, piv = protect_request(
        context, message._replace(options=inner), 20, with_id_context=context.id_context is not None, outer=outer
    )
    assert protected.write_datagram().hex() == vector.protected
    assert piv == b"\x14"
    _, nonce, plaintext, associated_data = recorder.sealed[0]
    assert (nonce.hex(), plaintext.hex(), associated_data.hex()) == (
        vector.nonce,
        "01b3747631",
        vector.associated_data,
    )

    received = Message.parse_datagram(bytes.fromhex(vector.protected))
    option = OscoreOption.parse(dict(received.options)[OptionNumber.OSCORE])
    assert option.write().hex() == vector.option
    delegate = SecurityContext.of_delegate(vector.context.credential, vector.context.id_context)
    opened = Message.parse_plaintext(delegate.open_request(option.piv, received.payload))
    assert (opened.code, opened.options, opened.payload) == (Code.GET, inner, b"")


@pytest.mark.parametrize(
    ("section", "piv", "expected"),
    [
        ("C.7", b"", "64445d1f0000397490ffdbaad1e9a7e7b2a813d3c31524378303cdafae119106"),
        ("C.8", partial_iv(0), "64445d1f00003974920100ff4d4c13669384b67354b2b6175ff4b8658c666a6cf88e"),
    ],
)
def test_protected_response(section: str, piv: bytes, expected: str) -> None:
    """Sections C.7 (the request's nonce) and C.8 (the server's own Partial IV 0)."""
    delegate = SecurityContext.of_delegate(C1.credential, C1.id_context)
    message = Message.parse_datagram(bytes.fromhex("64455d1f00003974ff48656c6c6f20576f726c6421"))
    ciphertext = delegate.seal_response(b"\x14", message.write_plaintext(), piv=piv)
    option = (int(OptionNumber.OSCORE), OscoreOption(piv).write())
    protected = message._replace(code=Code.CHANGED, options=(option,), payload=ciphertext)
    assert protected.write_datagram().hex() == expected, section

    terminal = SecurityContext.of_terminal(C1.credential, C1.id_context)
    received = Message.parse_datagram(bytes.fromhex(expected))
    opened = unprotect_response(terminal, b"\x14", OscoreOption.parse(received.options[0][1]), received.payload)
    assert (opened.code, opened.payload) == (Code.CONTENT, b"Hello World!")


def test_both_algorithms_of_the_registry_are_there() -> None:
    """RFC 9053 sections 4.2 and 4.3: COSE algorithms 10 and 24."""
    assert oscore.ALGORITHMS == ("AES-CCM-16-64-128", "ChaCha20-Poly1305")
