"""The protection of IKE messages: SK and SKF payloads of IKEv2, CBC with a chained IV in IKEv1.

Knows keys and bytes; which exchange a message belongs to, and whether its id is due, is not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from struct import Struct
from typing import Protocol

from locum.crypto.symmetric import AES_BLOCK, AesCbcHmacKey, AesCbcKey, AuthenticationFailed
from locum.errors import DecodeError
from locum.ike.algorithms import AEAD_IV, Encryption
from locum.ike.errors import NotProtected
from locum.ike.header import (
    GENERIC_HEADER_LENGTH,
    HEADER_LENGTH,
    MAX_MESSAGE,
    Header,
    RawPayload,
    generic_header,
    parse_chain,
)
from locum.ike.payloads2 import FINAL, Encrypted, EncryptedFragment
from locum.ike.registry import PayloadType2
from locum.ike.suites import IkeSuite
from locum.values import dataclass

#: Fragment number and total number, behind the generic header of SKF (RFC 7383 section 2.5).
_POSITION = Struct(">2H")
FRAGMENT_HEADER_LENGTH = _POSITION.size

#: A message is cut into at most so many fragments, and one that claims more is not reassembled.
MAX_FRAGMENTS = 128

#: The smallest datagram that can be asked for, in bytes: any IPv6 path carries 1,280, any IPv4 host takes 576.
MIN_FRAGMENT = 256


# --- one direction of an IKEv2 SA -----------------------------------------------------------------------------


class Protection(Protocol):
    """The keys of one direction; what is sealed begins with an IV and ends with an ICV."""

    def sealed_length(self, plaintext: int) -> int:
        """Bytes of IV, ciphertext with padding, and ICV for so many bytes of plaintext."""
        ...

    def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """Pad, encrypt and authenticate; `sealed_length` bytes."""
        ...

    def open(self, sealed: bytes, associated_data: bytes) -> bytes:
        """The plaintext without its padding; NotProtected when the ICV does not verify."""
        ...


class AeadProtection:
    """AES-GCM and ChaCha20-Poly1305 (RFC 5282, RFC 7634): the IV counts the messages sealed."""

    __slots__ = ("_key", "_overhead", "_salt", "_sent")

    def __init__(self, encryption: Encryption, material: bytes) -> None:
        if encryption.aead is None:
            raise ValueError(f"{encryption.name} is no AEAD")
        self._key = encryption.aead.new(material[: encryption.key_length])
        self._salt = material[encryption.key_length :]
        self._overhead = AEAD_IV + 1 + encryption.aead.tag_length
        self._sent = 0

    def sealed_length(self, plaintext: int) -> int:
        return plaintext + self._overhead

    def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        iv = self._sent.to_bytes(AEAD_IV, "big")
        # Counted before use: should sealing fail, the IV is lost rather than used twice.
        self._sent += 1
        return iv + self._key.seal(self._salt + iv, plaintext + b"\0", associated_data)

    def open(self, sealed: bytes, associated_data: bytes) -> bytes:
        if len(sealed) < self._overhead:
            raise NotProtected("an encrypted payload shorter than IV and ICV")
        try:
            padded = self._key.open(self._salt + sealed[:AEAD_IV], sealed[AEAD_IV:], associated_data)
        except AuthenticationFailed:
            raise NotProtected("an encrypted payload does not authenticate") from None
        return _without_padding(padded)


class CbcProtection:
    """AES-CBC with HMAC (RFC 7296 section 3.14): the IV is random, the ICV covers the whole message."""

    __slots__ = ("_key", "_random")

    def __init__(
        self, suite: IkeSuite, material: bytes, integrity_key: bytes, random: Callable[[int], bytes]
    ) -> None:
        if suite.integrity is None:
            raise ValueError(f"{suite.encryption.name} needs an integrity algorithm")
        self._key = AesCbcHmacKey(material, integrity_key, suite.integrity.hash, suite.integrity.tag_length)
        self._random = random

    def sealed_length(self, plaintext: int) -> int:
        return AES_BLOCK + (plaintext // AES_BLOCK + 1) * AES_BLOCK + self._key.tag_length

    def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        padding = -(len(plaintext) + 1) % AES_BLOCK
        iv = self._random(AES_BLOCK)
        padded = b"".join((plaintext, bytes(padding), bytes((padding,))))
        return iv + self._key.seal(iv, padded, associated_data)

    def open(self, sealed: bytes, associated_data: bytes) -> bytes:
        if len(sealed) < 2 * AES_BLOCK + self._key.tag_length:
            raise NotProtected("an encrypted payload shorter than IV, one block and ICV")
        try:
            padded = self._key.open(sealed[:AES_BLOCK], sealed[AES_BLOCK:], associated_data)
        except AuthenticationFailed:
            raise NotProtected("an encrypted payload does not authenticate") from None
        return _without_padding(padded)


def _without_padding(padded: bytes) -> bytes:
    """Cut the padding, whose last byte is its length; it was authenticated, so its content does not matter."""
    end = len(padded) - 1 - padded[-1]
    if end < 0:
        raise DecodeError("more padding than plaintext")
    return padded[:end]


def protection(
    suite: IkeSuite, encryption_key: bytes, integrity_key: bytes, random: Callable[[int], bytes]
) -> Protection:
    """One direction's protection from SK_ei and SK_ai, or from SK_er and SK_ar."""
    if suite.encryption.aead is not None:
        return AeadProtection(suite.encryption, encryption_key)
    return CbcProtection(suite, encryption_key, integrity_key, random)


# --- IKEv2 messages -------------------------------------------------------------------------------------------


def seal_message(key: Protection, header: Header, first: int, chain: bytes) -> bytes:
    """A whole message with nothing but one SK payload around `chain`, whose first payload is of type `first`.

    `header` comes without next payload and length. Raises: ValueError when the message exceeds `MAX_MESSAGE`.
    """
    body = key.sealed_length(len(chain))
    length = HEADER_LENGTH + GENERIC_HEADER_LENGTH + body
    if length > MAX_MESSAGE:
        raise ValueError(f"a message of {length} bytes")
    associated = header.before(PayloadType2.ENCRYPTED, GENERIC_HEADER_LENGTH + body) + generic_header(first, body)
    return associated + key.seal(chain, associated)


def fragment_message(
    key: Protection, header: Header, first: int, chain: bytes, *, maximum: int
) -> tuple[bytes, ...]:
    """As `seal_message`, cut into messages of at most `maximum` bytes each (RFC 7383 section 2.5).

    The message is not cut where it fits whole. Raises: ValueError for a `maximum` below `MIN_FRAGMENT`, and
    where more than `MAX_FRAGMENTS` would be needed.
    """
    if maximum < MIN_FRAGMENT:
        raise ValueError(f"fragments of {maximum} bytes are too small")
    around = HEADER_LENGTH + GENERIC_HEADER_LENGTH
    if around + key.sealed_length(len(chain)) <= maximum:
        return (seal_message(key, header, first, chain),)
    # Nothing costs more than sealing nothing: the most padding that CBC adds is a whole block.
    piece = maximum - around - FRAGMENT_HEADER_LENGTH - key.sealed_length(0)
    total = -(-len(chain) // piece)
    if total > MAX_FRAGMENTS:
        raise ValueError(f"{total} fragments")
    return tuple(
        _seal_fragment(
            key,
            header,
            first if index == 0 else PayloadType2.NONE,
            (index + 1, total),
            chain[index * piece : (index + 1) * piece],
        )
        for index in range(total)
    )


def _seal_fragment(key: Protection, header: Header, first: int, position: tuple[int, int], piece: bytes) -> bytes:
    body = FRAGMENT_HEADER_LENGTH + key.sealed_length(len(piece))
    before = header.before(PayloadType2.ENCRYPTED_FRAGMENT, GENERIC_HEADER_LENGTH + body)
    associated = b"".join((before, generic_header(first, body), _POSITION.pack(*position)))
    return associated + key.seal(piece, associated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A message of IKEv2 as received: what stands in clear, and the encrypted payload or fragment, if any."""

    header: Header
    clear: tuple[RawPayload, ...]
    encrypted: Encrypted | EncryptedFragment | None
    message: bytes = field(repr=False)

    def open(self, key: Protection) -> bytes:
        """The chain inside, or the fragment's piece of it.

        Raises: NotProtected when there is none or it does not authenticate, DecodeError for bad padding.
        """
        if self.encrypted is None:
            raise NotProtected("a message in clear where an encrypted one is due")
        data = self.encrypted.data
        return key.open(data, self.message[: len(self.message) - len(data)])


def parse_message(header: Header, message: bytes) -> Sealed:
    """Cut a whole message, `header` included, into payloads, opening none.

    Raises: DecodeError for a malformed chain or bytes behind it.
    """
    chain = parse_chain(header.next_payload, message[HEADER_LENGTH:], final=FINAL)
    if (chain[-1].end if chain else 0) != len(message) - HEADER_LENGTH:
        raise DecodeError("bytes behind the last payload")
    encrypted: Encrypted | EncryptedFragment | None = None
    if chain and chain[-1].type == PayloadType2.ENCRYPTED:
        encrypted = Encrypted.of(chain[-1])
    elif chain and chain[-1].type == PayloadType2.ENCRYPTED_FRAGMENT:
        encrypted = EncryptedFragment.of(chain[-1])
    clear = chain if encrypted is None else chain[:-1]
    return Sealed(header=header, clear=clear, encrypted=encrypted, message=message)


class Reassembly:
    """The fragments of one message, each opened before it comes here; holds at most `MAX_MESSAGE` bytes."""

    __slots__ = ("_first", "_pieces", "_total")

    def __init__(self) -> None:
        self._first = 0
        self._total = 0
        self._pieces: dict[int, bytes] = {}

    @property
    def held(self) -> int:
        """Bytes of plaintext that wait for the rest."""
        return sum(map(len, self._pieces.values()))

    def add(self, fragment: EncryptedFragment, piece: bytes) -> tuple[int, bytes] | None:
        """Take one authentic fragment; the first payload's type and the chain once all are there.

        A higher total than before starts again, a lower one is left out, as is a fragment that is here
        already (RFC 7383 section 2.6). Raises: DecodeError beyond `MAX_FRAGMENTS` or `MAX_MESSAGE`.
        """
        if fragment.total > MAX_FRAGMENTS:
            raise DecodeError(f"a message in {fragment.total} fragments")
        if fragment.total > self._total:
            self._pieces.clear()
            self._total = fragment.total
        if fragment.total < self._total or fragment.number in self._pieces:
            return None
        if self.held + len(piece) > MAX_MESSAGE:
            self._pieces.clear()
            raise DecodeError(f"a message of more than {MAX_MESSAGE} bytes in fragments")
        self._pieces[fragment.number] = piece
        if fragment.number == 1:
            self._first = fragment.first
        if len(self._pieces) < self._total:
            return None
        whole = b"".join(self._pieces[number] for number in range(1, self._total + 1))
        first = self._first
        self._pieces.clear()
        self._total = self._first = 0
        return first, whole


# --- IKEv1 ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CbcChain:
    """Encryption of IKEv1: every message's IV is the last ciphertext block of the one before (appendix B).

    Immutable, so that a message that turns out to be forged does not move the chain: the chain to go on with
    is returned, and the caller keeps it only when the message is accepted.
    """

    key: AesCbcKey
    iv: bytes = field(repr=False)

    def seal(self, chain: bytes) -> tuple[bytes, CbcChain]:
        """Pad with zeros and encrypt; the ciphertext, and the chain for the next message."""
        ciphertext = self.key.encrypt(self.iv, chain + bytes(-len(chain) % AES_BLOCK))
        return ciphertext, CbcChain(self.key, ciphertext[-AES_BLOCK:])

    def open(self, ciphertext: bytes) -> tuple[bytes, CbcChain]:
        """Decrypt; the plaintext with its padding, and the chain for the next message.

        Nothing is authenticated here: the HASH or SIG payload inside does that.
        Raises: NotProtected unless there are whole blocks, at least one.
        """
        if not ciphertext or len(ciphertext) % AES_BLOCK:
            raise NotProtected(f"an encrypted message of {len(ciphertext)} bytes")
        return self.key.decrypt(self.iv, ciphertext), CbcChain(self.key, ciphertext[-AES_BLOCK:])
