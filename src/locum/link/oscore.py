"""OSCORE (RFC 8613): credentials, security contexts, the compressed option, the replay window.

Never knows how messages travel, and never chooses a sequence number: whoever holds a context does, once each.
"""

from __future__ import annotations

from dataclasses import field
from typing import NamedTuple

import cbor2

from locum.crypto.symmetric import (
    AES_128_CCM_8,
    CHACHA20_POLY1305,
    SHA256,
    AeadAlgorithm,
    AeadKey,
    hkdf_expand,
    hkdf_extract,
)
from locum.errors import ConfigurationError, DecodeError, Unavailable
from locum.link.coap import Code, Message, Option, OptionNumber
from locum.values import dataclass

AES_CCM_16_64_128 = "AES-CCM-16-64-128"
CHACHA20_POLY1305_NAME = "ChaCha20-Poly1305"

#: The largest Partial IV: 5 bytes (RFC 8613 section 7.2.1).
MAXIMUM_SEQUENCE = (1 << 40) - 1
#: Sequence numbers behind the highest that are still acceptable once (RFC 8613 section 3.2.2 has 32).
REPLAY_WINDOW = 64
#: The least entropy that a key set beforehand may have, in bytes.
MINIMUM_SECRET = 16
#: Bytes of an ID Context; longer ones are not looked up.
MAXIMUM_ID_CONTEXT = 32

_PARTIAL_IV = 5
_ALL_SEEN = (1 << REPLAY_WINDOW) - 1


class _Suite(NamedTuple):
    """An AEAD as OSCORE names it: COSE algorithm number and nonce length in bytes (RFC 9053 section 4)."""

    aead: AeadAlgorithm
    number: int
    nonce_length: int


_SUITES = {
    AES_CCM_16_64_128: _Suite(AES_128_CCM_8, 10, 13),
    CHACHA20_POLY1305_NAME: _Suite(CHACHA20_POLY1305, 24, 12),
}
ALGORITHMS = tuple(_SUITES)


class SequenceExhausted(Unavailable):
    """Every sequence number of a context has been used; only a new context can go on."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What is set beforehand in terminal and delegate (A4; claim 6), and nothing else.

    `kid` is the terminal's Sender ID and `peer_id` the delegate's, each at most 7 bytes (6 with ChaCha20-Poly1305)
    and not the same. `secret` is the Master Secret, at least 16 bytes; `salt` the Master Salt, possibly empty.
    `algorithm` is one of `ALGORITHMS`. Raises: ConfigurationError.
    """

    kid: bytes
    peer_id: bytes
    secret: bytes = field(repr=False)
    salt: bytes = field(repr=False, default=b"")
    algorithm: str = AES_CCM_16_64_128

    def __post_init__(self) -> None:
        suite = _SUITES.get(self.algorithm)
        if suite is None:
            raise ConfigurationError(f"unknown OSCORE algorithm {self.algorithm!r}: use {' or '.join(ALGORITHMS)}")
        longest = suite.nonce_length - 6
        if len(self.kid) > longest or len(self.peer_id) > longest:
            raise ConfigurationError(f"OSCORE identifiers have at most {longest} bytes with {self.algorithm}")
        if self.kid == self.peer_id:
            raise ConfigurationError("terminal and delegate need different OSCORE identifiers")
        if len(self.secret) < MINIMUM_SECRET:
            raise ConfigurationError(f"an OSCORE key has at least {MINIMUM_SECRET} bytes")


def partial_iv(sequence: int) -> bytes:
    """A sequence number as Partial IV, 1 to 5 bytes (RFC 8613 section 5). Raises: SequenceExhausted."""
    if sequence > MAXIMUM_SEQUENCE:
        raise SequenceExhausted("the sequence numbers of this channel key are used up: enrol the terminal again")
    return sequence.to_bytes((sequence.bit_length() + 7) >> 3 or 1, "big")


class SecurityContext:
    """Keys of both directions for one ID Context, seen from one end (RFC 8613 section 3).

    The caller gives every sequence number at most once to `seal_request` and `seal_response` together, and
    seals at most one response without a number of its own for each request.
    """

    __slots__ = (
        "_aad",
        "_nonce_length",
        "_recipient",
        "_recipient_iv",
        "_sender",
        "_sender_iv",
        "id_context",
        "kid",
    )

    def __init__(
        self, credential: Credential, id_context: bytes | None, sender_id: bytes, recipient_id: bytes
    ) -> None:
        suite = _SUITES[credential.algorithm]
        self.id_context = id_context
        #: Sender ID of the terminal, the only one that makes requests.
        self.kid = credential.kid
        key = hkdf_extract(SHA256, credential.salt, credential.secret)

        def derive(identifier: bytes, kind: str, length: int) -> bytes:
            info = cbor2.dumps([identifier, id_context, suite.number, kind, length])
            return hkdf_expand(SHA256, key, info, length)

        self._sender: AeadKey = suite.aead.new(derive(sender_id, "Key", suite.aead.key_length))
        self._recipient: AeadKey = suite.aead.new(derive(recipient_id, "Key", suite.aead.key_length))
        common_iv = derive(b"", "IV", suite.nonce_length)
        self._nonce_length = suite.nonce_length
        self._sender_iv = _nonce_base(common_iv, sender_id)
        self._recipient_iv = _nonce_base(common_iv, recipient_id)
        self._aad = tuple(_aad_prefix(suite.number, self.kid, length) for length in range(_PARTIAL_IV + 1))

    @classmethod
    def of_terminal(cls, credential: Credential, id_context: bytes | None) -> SecurityContext:
        """The context as the terminal uses it."""
        return cls(credential, id_context, credential.kid, credential.peer_id)

    @classmethod
    def of_delegate(cls, credential: Credential, id_context: bytes | None) -> SecurityContext:
        """The context as the delegate uses it."""
        return cls(credential, id_context, credential.peer_id, credential.kid)

    def __repr__(self) -> str:
        return f"<SecurityContext kid={self.kid.hex()}>"

    def seal_request(self, piv: bytes, plaintext: bytes) -> bytes:
        """Encrypt a request under its own, fresh Partial IV (RFC 8613 section 8.1)."""
        return self._sender.seal(self._nonce(self._sender_iv, piv), plaintext, self._associated_data(piv))

    def open_request(self, piv: bytes, ciphertext: bytes) -> bytes:
        """Decrypt a request (RFC 8613 section 8.2). Raises: AuthenticationFailed."""
        return self._recipient.open(self._nonce(self._recipient_iv, piv), ciphertext, self._associated_data(piv))

    def seal_response(self, request_piv: bytes, plaintext: bytes, *, piv: bytes = b"") -> bytes:
        """Encrypt a response to the request of `request_piv` (RFC 8613 section 8.3).

        Under a fresh `piv` of this end, or, when that is empty, under the request's nonce.
        """
        if piv:
            nonce = self._nonce(self._sender_iv, piv)
        else:
            nonce = self._nonce(self._recipient_iv, request_piv)
        return self._sender.seal(nonce, plaintext, self._associated_data(request_piv))

    def open_response(self, request_piv: bytes, ciphertext: bytes, *, piv: bytes = b"") -> bytes:
        """Decrypt the response to the request of `request_piv` (section 8.4). Raises: AuthenticationFailed."""
        if piv:
            nonce = self._nonce(self._recipient_iv, piv)
        else:
            nonce = self._nonce(self._sender_iv, request_piv)
        return self._recipient.open(nonce, ciphertext, self._associated_data(request_piv))

    def _nonce(self, base: int, piv: bytes) -> bytes:
        return (base ^ int.from_bytes(piv, "big")).to_bytes(self._nonce_length, "big")

    def _associated_data(self, request_piv: bytes) -> bytes:
        return self._aad[len(request_piv)] + request_piv + _NO_CLASS_I_OPTIONS


_NO_CLASS_I_OPTIONS = cbor2.dumps(b"")


def _nonce_base(common_iv: bytes, identifier: bytes) -> int:
    """The nonce of `identifier` for Partial IV 0, as an integer (RFC 8613 section 5.2)."""
    length = len(common_iv)
    block = bytes((len(identifier),)) + identifier.rjust(length - 1 - _PARTIAL_IV, b"\0") + bytes(_PARTIAL_IV)
    return int.from_bytes(common_iv, "big") ^ int.from_bytes(block, "big")


def _aad_prefix(algorithm: int, kid: bytes, piv_length: int) -> bytes:
    """The Enc_structure (RFC 8613 section 5.4) up to a request Partial IV of `piv_length` bytes."""
    external = cbor2.dumps([1, [algorithm], kid, bytes(piv_length), b""])
    return cbor2.dumps(["Encrypt0", b"", external])[: -piv_length - len(_NO_CLASS_I_OPTIONS)]


class OscoreOption(NamedTuple):
    """The value of the OSCORE option: the compressed COSE header (RFC 8613 section 6.1).

    `piv` is empty, `kid` and `kid_context` are None where the option does not carry them.
    """

    piv: bytes = b""
    kid: bytes | None = None
    kid_context: bytes | None = None

    @classmethod
    def parse(cls, data: bytes) -> OscoreOption:
        """Parse an option value. Raises: DecodeError."""
        if not data:
            return _EMPTY_OPTION
        flags = data[0]
        stop = 1 + (flags & 0x07)
        if flags & 0xE0 or not flags or stop > 1 + _PARTIAL_IV or stop > len(data):
            raise DecodeError("OSCORE option: reserved bits, or cut off")
        piv = data[1:stop]
        kid_context = None
        if flags & 0x10:
            start = stop + 1
            if start > len(data) or start + data[stop] > len(data):
                raise DecodeError("OSCORE option: kid context cut off")
            stop = start + data[stop]
            kid_context = data[start:stop]
        if flags & 0x08:
            return cls(piv, data[stop:], kid_context)
        if stop != len(data):
            raise DecodeError("OSCORE option: bytes without a meaning")
        return cls(piv, None, kid_context)

    def write(self) -> bytes:
        """The option value; empty when there is nothing to say."""
        flags = len(self.piv)
        tail = self.piv
        if self.kid_context is not None:
            flags |= 0x10
            tail += bytes((len(self.kid_context),)) + self.kid_context
        if self.kid is not None:
            flags |= 0x08
            tail += self.kid
        return bytes((flags,)) + tail if flags else b""


_EMPTY_OPTION = OscoreOption()


def protect_request(
    context: SecurityContext,
    message: Message,
    sequence: int,
    *,
    with_id_context: bool,
    outer: tuple[Option, ...] = (),
) -> tuple[Message, bytes]:
    """Protect a request with a sequence number that was never used; returns it and its Partial IV.

    `outer` are the options that stay outside, in order and below the OSCORE option's number.
    Raises: SequenceExhausted.
    """
    piv = partial_iv(sequence)
    ciphertext = context.seal_request(piv, message.write_plaintext())
    value = OscoreOption(piv, context.kid, context.id_context if with_id_context else None).write()
    options = (*outer, (int(OptionNumber.OSCORE), value))
    return Message(Code.POST, message.token, options, ciphertext, message.type, message.message_id), piv


def unprotect_response(
    context: SecurityContext, request_piv: bytes, option: OscoreOption, ciphertext: bytes
) -> Message:
    """The message inside of a response to that request. Raises: DecodeError, AuthenticationFailed."""
    return Message.parse_plaintext(context.open_response(request_piv, ciphertext, piv=option.piv))


class ReplayWindow:
    """Which sequence numbers of a terminal have been seen (RFC 8613 section 7.4).

    Begins at a number that is known to be fresh; everything up to it counts as seen (Appendix B.1.2).
    """

    __slots__ = ("_highest", "_seen")

    def __init__(self, fresh: int) -> None:
        self._highest = fresh
        self._seen = _ALL_SEEN

    def acceptable(self, sequence: int) -> bool:
        """True unless `sequence` was seen or lies behind the window."""
        behind = self._highest - sequence
        return behind < 0 or (behind < REPLAY_WINDOW and not self._seen >> behind & 1)

    def accept(self, sequence: int) -> None:
        """Remember an acceptable `sequence`, after its message has been authenticated."""
        ahead = sequence - self._highest
        if ahead > 0:
            self._highest = sequence
            # A jump beyond the window leaves nothing of it; shifting by its length would cost memory.
            self._seen = (self._seen << ahead & _ALL_SEEN if ahead < REPLAY_WINDOW else 0) | 1
        else:
            self._seen |= 1 << -ahead
