"""What may be asked of a private key, wherever it is: the raw operations, and those bound to TLS (X3).

Values only: who performs them, and whether somebody may, is decided elsewhere. A raw operation signs or decrypts
what the asker brings. A bound one says what a handshake consists of; whoever has the key builds what is signed.
"""

from __future__ import annotations

from dataclasses import field
from enum import IntEnum

from locum.values import dataclass

#: Longest content that is signed, in bytes: a whole message of EdDSA or ML-DSA, or the messages of a handshake.
MAX_CONTENT = 48 * 1024
RANDOM_LENGTH = 32


class Role(IntEnum):
    """Whose CertificateVerify is signed (RFC 8446 section 4.4.3)."""

    SERVER = 0
    CLIENT = 1


@dataclass(frozen=True, slots=True)
class Sign:
    """Raw: sign `content` under the scheme of this IANA name; `prehashed` as in `PrivateKey.sign`."""

    scheme: str
    content: bytes
    prehashed: bool = True


@dataclass(frozen=True, slots=True)
class Decrypt:
    """Raw: RSAES-PKCS1-v1_5 with implicit rejection; the result is at most the modulus less 11 bytes."""

    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class CertificateVerify:
    """Bound: the signature of a TLS 1.3 CertificateVerify (RFC 8446 section 4.4.3)."""

    scheme: str
    role: Role
    transcript_hash: bytes


@dataclass(frozen=True, slots=True)
class ServerKeyExchange:
    """Bound: the signature of a TLS 1.2 ServerKeyExchange over both randoms (32 bytes each) and the parameters.

    `parameters` is a ServerECDHParams with a named curve, or a ServerDHParams with a group of RFC 7919: anything
    else is refused by whoever signs.
    """

    scheme: str
    client_random: bytes
    server_random: bytes
    parameters: bytes


@dataclass(frozen=True, slots=True)
class ClientVerify:
    """Bound: the signature of a TLS 1.2 client's CertificateVerify over all messages before it (C8).

    `messages` begins with a ClientHello and ends with a ClientKeyExchange.
    """

    scheme: str
    messages: bytes


@dataclass(frozen=True, slots=True)
class MasterSecret:
    """Bound: the master secret (48 bytes) of a TLS 1.2 handshake with RSA key exchange (C1, fig 2).

    The server random must be `schedule.bound_random(random_seed)`: who recorded a handshake does not know the
    seed, so that a later holder of the permission cannot open it. `hash` is "sha256" or "sha384", of the PRF.
    With `extended` the session hash is computed over `messages`, all of the handshake up to and with the
    ClientKeyExchange (RFC 7627), which must contain both randoms and the ciphertext; without, `messages` is empty.
    """

    ciphertext: bytes
    client_version: int
    client_random: bytes
    random_seed: bytes = field(repr=False)
    server_random: bytes = b""
    hash: str = "sha256"
    extended: bool = True
    messages: bytes = b""


#: Whatever a private key can be asked.
KeyOperation = Sign | Decrypt | CertificateVerify | ServerKeyExchange | ClientVerify | MasterSecret
RawOperation = Sign | Decrypt
