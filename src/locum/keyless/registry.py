"""The numbers of the keyless protocol: tags, opcodes, error codes, and what each opcode for signing signs (X5).

Knows nothing of keys, nor of who may use them.
"""

from __future__ import annotations

from enum import IntEnum

from locum.values import dataclass

#: The version in every header.
MAJOR_VERSION = 1
MINOR_VERSION = 0
#: TCP port of a key server.
PORT = 2407
#: Bytes of the header: version (2), length of the body (2), id (4).
HEADER_LENGTH = 8
#: Longest body, as its length has two bytes.
MAX_BODY = 0xFFFF
#: Largest id of a request.
MAX_ID = 0xFFFF_FFFF
#: Length of the names of a key: SHA-1 of its subjectPublicKey bits, and SHA-256 of its modulus in upper-case hex.
SKI_LENGTH = 20
DIGEST_LENGTH = 32
#: Longest server name, longest name of a function, and longest reason with an error, in bytes.
MAX_SERVER_NAME = 255
MAX_FUNCTION = 64
MAX_REASON = 256


class Tag(IntEnum):
    """What an item of a body is. Others are ignored."""

    DIGEST = 0x01
    SERVER_NAME = 0x02
    CLIENT_ADDRESS = 0x03
    SKI = 0x04
    SERVER_ADDRESS = 0x05
    CERTIFICATE_ID = 0x06
    OPCODE = 0x11
    PAYLOAD = 0x12
    FUNCTION = 0x13
    EXTRA = 0x14
    PADDING = 0x20


class Opcode(IntEnum):
    """What is asked, or how it went. `MALFORMED` is never sent: it marks a body that could not be read."""

    MALFORMED = 0x00
    RSA_DECRYPT = 0x01
    RSA_SIGN_MD5_SHA1 = 0x02
    RSA_SIGN_SHA1 = 0x03
    RSA_SIGN_SHA224 = 0x04
    RSA_SIGN_SHA256 = 0x05
    RSA_SIGN_SHA384 = 0x06
    RSA_SIGN_SHA512 = 0x07
    ECDSA_SIGN_MD5_SHA1 = 0x12
    ECDSA_SIGN_SHA1 = 0x13
    ECDSA_SIGN_SHA224 = 0x14
    ECDSA_SIGN_SHA256 = 0x15
    ECDSA_SIGN_SHA384 = 0x16
    ECDSA_SIGN_SHA512 = 0x17
    ED25519_SIGN = 0x18
    SEAL = 0x21
    UNSEAL = 0x22
    RPC = 0x23
    CUSTOM = 0x24
    RSA_PSS_SIGN_SHA256 = 0x35
    RSA_PSS_SIGN_SHA384 = 0x36
    RSA_PSS_SIGN_SHA512 = 0x37
    RESPONSE = 0xF0
    PING = 0xF1
    PONG = 0xF2
    ERROR = 0xFF


class ErrorCode(IntEnum):
    """The one byte of an error's payload."""

    CRYPTO = 0x01
    KEY_NOT_FOUND = 0x02
    READ = 0x03
    VERSION_MISMATCH = 0x04
    BAD_OPCODE = 0x05
    UNEXPECTED_OPCODE = 0x06
    FORMAT = 0x07
    INTERNAL = 0x08
    CERTIFICATE_NOT_FOUND = 0x09
    EXPIRED = 0x0A


class Family(IntEnum):
    """The kinds of keys that the opcodes tell apart; opcode and key must fit."""

    RSA = 1
    ECDSA = 2
    ED25519 = 3


@dataclass(frozen=True, slots=True)
class Signing:
    """What an opcode for signing means: the scheme's name and the length of the digest in bytes.

    A length of 0 means that the whole content is signed. A name with ECDSA says the hash and not the curve.
    `legacy` marks hashes that are not safe any more: under these a server signs only when it is told to.
    """

    family: Family
    scheme: str
    digest_length: int
    legacy: bool = False


#: The names of those that are not safe any more are made like the others; MD5 with SHA-1 is that of TLS 1.1.
SIGNING: dict[int, Signing] = {
    Opcode.RSA_SIGN_MD5_SHA1: Signing(Family.RSA, "RSA_PKCS1_MD5_SHA1", 36, legacy=True),
    Opcode.RSA_SIGN_SHA1: Signing(Family.RSA, "RSA_PKCS1_SHA1", 20, legacy=True),
    Opcode.RSA_SIGN_SHA224: Signing(Family.RSA, "RSA_PKCS1_SHA224", 28, legacy=True),
    Opcode.RSA_SIGN_SHA256: Signing(Family.RSA, "RSA_PKCS1_SHA256", 32),
    Opcode.RSA_SIGN_SHA384: Signing(Family.RSA, "RSA_PKCS1_SHA384", 48),
    Opcode.RSA_SIGN_SHA512: Signing(Family.RSA, "RSA_PKCS1_SHA512", 64),
    Opcode.ECDSA_SIGN_MD5_SHA1: Signing(Family.ECDSA, "ECDSA_MD5_SHA1", 36, legacy=True),
    Opcode.ECDSA_SIGN_SHA1: Signing(Family.ECDSA, "ECDSA_SHA1", 20, legacy=True),
    Opcode.ECDSA_SIGN_SHA224: Signing(Family.ECDSA, "ECDSA_SHA224", 28, legacy=True),
    Opcode.ECDSA_SIGN_SHA256: Signing(Family.ECDSA, "ECDSA_SECP256R1_SHA256", 32),
    Opcode.ECDSA_SIGN_SHA384: Signing(Family.ECDSA, "ECDSA_SECP384R1_SHA384", 48),
    Opcode.ECDSA_SIGN_SHA512: Signing(Family.ECDSA, "ECDSA_SECP521R1_SHA512", 64),
    Opcode.ED25519_SIGN: Signing(Family.ED25519, "ED25519", 0),
    Opcode.RSA_PSS_SIGN_SHA256: Signing(Family.RSA, "RSA_PSS_RSAE_SHA256", 32),
    Opcode.RSA_PSS_SIGN_SHA384: Signing(Family.RSA, "RSA_PSS_RSAE_SHA384", 48),
    Opcode.RSA_PSS_SIGN_SHA512: Signing(Family.RSA, "RSA_PSS_RSAE_SHA512", 64),
}
#: The schemes that are refused unless a server is told otherwise.
LEGACY_SCHEMES = frozenset(signing.scheme for signing in SIGNING.values() if signing.legacy)
#: The opcode that signs under a scheme; a key that is for RSASSA-PSS only signs as any RSA key does.
OPCODE_OF_SCHEME: dict[str, int] = {signing.scheme: opcode for opcode, signing in SIGNING.items()} | {
    "RSA_PSS_PSS_SHA256": Opcode.RSA_PSS_SIGN_SHA256,
    "RSA_PSS_PSS_SHA384": Opcode.RSA_PSS_SIGN_SHA384,
    "RSA_PSS_PSS_SHA512": Opcode.RSA_PSS_SIGN_SHA512,
}


class Function:
    """The names of locum's own operations, asked with the opcode `CUSTOM` and a payload in CBOR."""

    CERTIFICATE_VERIFY = b"locum/certificate-verify"
    SERVER_KEY_EXCHANGE = b"locum/server-key-exchange"
    CLIENT_VERIFY = b"locum/client-verify"
    MASTER_SECRET = b"locum/master-secret"
    SIGN = b"locum/sign"
    KEYS = b"locum/keys"
    CERTIFICATE = b"locum/certificate"
    CERTIFICATES = b"locum/certificates"
    TICKETS = b"locum/tickets"
