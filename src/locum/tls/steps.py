"""The steps by which a TLS handshake speaks to its record layer, beside the asking of `locum.handshake`.

A handshake yields them in the order of the RFC's ladder; a `Connection` carries them out.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import field
from typing import Any, TypeVar

from locum.tls.registry import CipherSuite, ProtocolVersion
from locum.values import dataclass


@dataclass(frozen=True, slots=True)
class Send:
    """Send one handshake message, header included."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Receive:
    """Wait for the peer's next handshake message; the answer is (type, whole message with header)."""


@dataclass(frozen=True, slots=True)
class SendChangeCipherSpec:
    """Send change_cipher_spec: real in TLS 1.2, a dummy for middleboxes in TLS 1.3 (RFC 8446 D.4)."""


@dataclass(frozen=True, slots=True)
class ReceiveChangeCipherSpec:
    """TLS 1.2: wait for the peer's change_cipher_spec; no handshake message may come before it."""


@dataclass(frozen=True, slots=True)
class SetVersion:
    """The version is agreed; the record layer follows its rules from here on."""

    version: ProtocolVersion


@dataclass(frozen=True, slots=True)
class ReadKeys:
    """Open everything that follows with this key; nothing of the old key's epoch may be left over."""

    suite: CipherSuite
    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WriteKeys:
    """Seal everything that follows with this key."""

    suite: CipherSuite
    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RecordLimits:
    """record_size_limit was agreed (RFC 8449): plaintext bytes that we may send, and that we accept."""

    send: int
    receive: int


@dataclass(frozen=True, slots=True)
class Tolerate:
    """TLS 1.3: what a server lets pass until the first record opens under the handshake's key.

    `early_data` bytes of records of 0-RTT data are dropped unread (RFC 8446 section 4.2.10); and an alert may
    come in clear, from a client that gives up before it uses any key.
    """

    early_data: int


T = TypeVar("T")

#: A handshake, or a part of one: yields steps, is sent their answers, returns its result.
Handshake = Generator[Any, Any, T]
