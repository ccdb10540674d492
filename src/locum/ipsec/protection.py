"""The cryptographic half of ESP: what happens to a payload between its header and its ICV.

Knows keys and where sequence numbers go, but counts nothing, and nothing of what is inside (RFC 4303 section 3).
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable

from locum.crypto.symmetric import AeadKey, AuthenticationFailed, CbcChain, MacKey
from locum.errors import DecodeError
from locum.ipsec.sa import SecurityAssociation

#: SPI and sequence number, in bytes.
HEADER_LENGTH = 8

_IV_LENGTH = 8
_IV_END = HEADER_LENGTH + _IV_LENGTH
#: SPI, sequence number and IV.
_START = struct.Struct("!4sIQ")
_LOW = 0xFFFF_FFFF


class Protection(ABC):
    """One key in one direction; a `number` is a whole sequence number, of which a packet shows the lower half."""

    __slots__ = ("_spi",)

    def __init__(self, spi: int) -> None:
        self._spi = spi.to_bytes(4, "big")

    @abstractmethod
    def seal(self, number: int, plaintext: bytes) -> bytes:
        """A whole ESP packet around `plaintext`, which ends with the trailer; no number may come twice."""

    @abstractmethod
    def open(self, packet: bytes, number: int) -> bytes:
        """The plaintext of a packet no shorter than IV and ICV ask. Raises: AuthenticationFailed, DecodeError."""

    def seal_run(self, number: int, plaintexts: Iterable[bytes]) -> list[bytes]:
        """ESP packets around these, with numbers from `number` on."""
        return [self.seal(each, plaintext) for each, plaintext in enumerate(plaintexts, number)]

    def open_run(self, packets: Iterable[bytes], number: int, minimum: int) -> list[bytes]:
        """The plaintexts of those packets that show the numbers from `number` on one after the other.

        What is shorter than `minimum`, of another association, or not authentic, ends the run.
        """
        opened: list[bytes] = []
        for each, packet in enumerate(packets, number):
            if packet[:HEADER_LENGTH] != self._spi + (each & _LOW).to_bytes(4, "big") or len(packet) < minimum:
                break
            try:
                opened.append(self.open(packet, each))
            except (AuthenticationFailed, DecodeError):
                break
        return opened


class CombinedMode(Protection):
    """AES-GCM (RFC 4106) and ChaCha20-Poly1305 (RFC 7634): one pass for secrecy and integrity.

    The explicit IV is the sequence number in 8 bytes: never the same twice under one key, since the number is not.
    """

    __slots__ = ("_extended", "_open", "_salt", "_seal")

    def __init__(self, sa: SecurityAssociation) -> None:
        super().__init__(sa.spi)
        key, self._salt = _combined_key(sa)
        self._seal, self._open = key.seal, key.open
        self._extended = sa.extended_sequence

    def seal(self, number: int, plaintext: bytes) -> bytes:
        iv = number.to_bytes(8, "big")
        header = self._spi + iv[4:]
        associated = self._spi + iv if self._extended else header
        return header + iv + self._seal(self._salt + iv, plaintext, associated)

    def open(self, packet: bytes, number: int) -> bytes:
        associated = self._spi + number.to_bytes(8, "big") if self._extended else packet[:HEADER_LENGTH]
        return self._open(self._salt + packet[HEADER_LENGTH:_IV_END], packet[_IV_END:], associated)

    def seal_run(self, number: int, plaintexts: Iterable[bytes]) -> list[bytes]:
        start, spi, salt, encrypt, extended = _START.pack, self._spi, self._salt, self._seal, self._extended
        sealed = []
        for plaintext in plaintexts:
            packet = start(spi, number & _LOW, number)
            iv = packet[HEADER_LENGTH:]
            associated = spi + iv if extended else packet[:HEADER_LENGTH]
            sealed.append(packet + encrypt(salt + iv, plaintext, associated))
            number += 1
        return sealed

    def open_run(self, packets: Iterable[bytes], number: int, minimum: int) -> list[bytes]:
        spi, salt, decrypt, extended = self._spi, self._salt, self._open, self._extended
        opened = []
        for packet in packets:
            header = spi + (number & _LOW).to_bytes(4, "big")
            if not packet.startswith(header) or len(packet) < minimum:
                break
            associated = spi + number.to_bytes(8, "big") if extended else header
            try:
                opened.append(decrypt(salt + packet[HEADER_LENGTH:_IV_END], packet[_IV_END:], associated))
            except AuthenticationFailed:
                break
            number += 1
        return opened


class NullGmac(Protection):
    """NULL encryption with AES-GMAC (RFC 4543 section 3): header, IV and payload in clear, authenticated (B13)."""

    __slots__ = ("_extended", "_open", "_salt", "_seal", "_tag_length")

    def __init__(self, sa: SecurityAssociation) -> None:
        super().__init__(sa.spi)
        key, self._salt = _combined_key(sa)
        self._seal, self._open = key.seal, key.open
        self._tag_length = key.algorithm.tag_length
        self._extended = sa.extended_sequence

    def seal(self, number: int, plaintext: bytes) -> bytes:
        iv = number.to_bytes(8, "big")
        packet = self._spi + iv[4:] + iv + plaintext
        return packet + self._seal(self._salt + iv, b"", self._associated(packet, iv))

    def open(self, packet: bytes, number: int) -> bytes:
        body, tag = packet[: -self._tag_length], packet[-self._tag_length :]
        associated = self._associated(body, number.to_bytes(8, "big"))
        self._open(self._salt + packet[HEADER_LENGTH:_IV_END], tag, associated)
        return body[_IV_END:]

    def _associated(self, body: bytes, number: bytes) -> bytes:
        return self._spi + number + body[HEADER_LENGTH:] if self._extended else body


def _combined_key(sa: SecurityAssociation) -> tuple[AeadKey, bytes]:
    encryption = sa.encryption
    assert encryption is not None and encryption.aead is not None
    length = encryption.key_length
    return encryption.aead.new(sa.encryption_key[:length]), sa.encryption_key[length:]


class EncryptThenMac(Protection):
    """AES-CBC (RFC 3602) or NULL (RFC 2410), and HMAC over everything in front of the ICV (RFC 4868).

    Of an extended sequence number the upper half is authenticated too, after the rest (RFC 4303 section 2.2.1).
    """

    __slots__ = ("_chain", "_extended", "_mac", "_tag_length")

    def __init__(self, sa: SecurityAssociation) -> None:
        super().__init__(sa.spi)
        encryption, integrity = sa.encryption, sa.integrity
        assert encryption is not None and integrity is not None and integrity.mac is not None
        self._chain = CbcChain(sa.encryption_key) if encryption.confidential else None
        self._mac: MacKey = integrity.mac.new(sa.integrity_key)
        self._tag_length = integrity.icv_length
        self._extended = sa.extended_sequence

    def seal(self, number: int, plaintext: bytes) -> bytes:
        whole = number.to_bytes(8, "big")
        body = plaintext if self._chain is None else self._chain.encrypt(number, plaintext)
        packet = self._spi + whole[4:] + body
        return packet + self._mac.tag(packet + whole[:4] if self._extended else packet)

    def open(self, packet: bytes, number: int) -> bytes:
        body, tag = packet[: -self._tag_length], packet[-self._tag_length :]
        self._mac.verify(body + (number >> 32).to_bytes(4, "big") if self._extended else body, tag)
        if self._chain is None:
            return body[HEADER_LENGTH:]
        try:
            return self._chain.decrypt(body[HEADER_LENGTH:])
        except ValueError:
            raise DecodeError("an ESP packet that is not made of whole AES blocks") from None


def protection(sa: SecurityAssociation) -> Protection:
    """What the algorithms of an ESP association stand for."""
    assert sa.encryption is not None
    if sa.encryption.aead is None:
        return EncryptThenMac(sa)
    return CombinedMode(sa) if sa.encryption.confidential else NullGmac(sa)
