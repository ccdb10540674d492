"""The code points of TLS that locum speaks (IANA TLS registries), with their names.

Unknown code points survive as integers everywhere; these tables only say what is implemented.
"""

from __future__ import annotations

from enum import IntEnum

from locum.crypto.symmetric import (
    AES_128_CCM,
    AES_128_CCM_8,
    AES_128_GCM,
    AES_256_GCM,
    CHACHA20_POLY1305,
    SHA256,
    SHA384,
    AeadAlgorithm,
    HashAlgorithm,
)
from locum.values import dataclass


class ProtocolVersion(IntEnum):
    """Versions on the wire; nothing below TLS 1.2 is ever negotiated."""

    TLS_1_2 = 0x0303
    TLS_1_3 = 0x0304


class ContentType(IntEnum):
    """RFC 8446 section 5.1."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23


class HandshakeType(IntEnum):
    """RFC 8446 section 4, RFC 5246 section 7.4, RFC 6066."""

    HELLO_REQUEST = 0
    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    NEW_SESSION_TICKET = 4
    END_OF_EARLY_DATA = 5
    ENCRYPTED_EXTENSIONS = 8
    CERTIFICATE = 11
    SERVER_KEY_EXCHANGE = 12
    CERTIFICATE_REQUEST = 13
    SERVER_HELLO_DONE = 14
    CERTIFICATE_VERIFY = 15
    CLIENT_KEY_EXCHANGE = 16
    FINISHED = 20
    CERTIFICATE_STATUS = 22
    KEY_UPDATE = 24
    MESSAGE_HASH = 254


class ExtensionType(IntEnum):
    """RFC 8446 section 4.2 and the RFC that each one comes from."""

    SERVER_NAME = 0
    STATUS_REQUEST = 5
    SUPPORTED_GROUPS = 10
    EC_POINT_FORMATS = 11
    SIGNATURE_ALGORITHMS = 13
    APPLICATION_LAYER_PROTOCOL_NEGOTIATION = 16
    EXTENDED_MASTER_SECRET = 23
    RECORD_SIZE_LIMIT = 28
    SESSION_TICKET = 35
    PRE_SHARED_KEY = 41
    EARLY_DATA = 42
    SUPPORTED_VERSIONS = 43
    COOKIE = 44
    PSK_KEY_EXCHANGE_MODES = 45
    CERTIFICATE_AUTHORITIES = 47
    SIGNATURE_ALGORITHMS_CERT = 50
    KEY_SHARE = 51
    RENEGOTIATION_INFO = 0xFF01


#: Signals among the cipher suites (RFC 5746 section 3.3, RFC 7507).
EMPTY_RENEGOTIATION_INFO_SCSV = 0x00FF
FALLBACK_SCSV = 0x5600


class PskKeyExchangeMode(IntEnum):
    """RFC 8446 section 4.2.9."""

    PSK_KE = 0
    PSK_DHE_KE = 1


class NamedGroup(IntEnum):
    """RFC 8446 section 4.2.7, RFC 7919, and the hybrid groups of draft-ietf-tls-ecdhe-mlkem."""

    SECP256R1 = 0x0017
    SECP384R1 = 0x0018
    X25519 = 0x001D
    X448 = 0x001E
    FFDHE2048 = 0x0100
    FFDHE3072 = 0x0101
    FFDHE4096 = 0x0102
    FFDHE6144 = 0x0103
    FFDHE8192 = 0x0104
    SECP256R1MLKEM768 = 0x11EB
    X25519MLKEM768 = 0x11EC


class SignatureScheme(IntEnum):
    """RFC 8446 section 4.2.3; ML-DSA of draft-ietf-tls-mldsa."""

    RSA_PKCS1_SHA256 = 0x0401
    ECDSA_SECP256R1_SHA256 = 0x0403
    RSA_PKCS1_SHA384 = 0x0501
    ECDSA_SECP384R1_SHA384 = 0x0503
    RSA_PKCS1_SHA512 = 0x0601
    ECDSA_SECP521R1_SHA512 = 0x0603
    RSA_PSS_RSAE_SHA256 = 0x0804
    RSA_PSS_RSAE_SHA384 = 0x0805
    RSA_PSS_RSAE_SHA512 = 0x0806
    ED25519 = 0x0807
    ED448 = 0x0808
    RSA_PSS_PSS_SHA256 = 0x0809
    RSA_PSS_PSS_SHA384 = 0x080A
    RSA_PSS_PSS_SHA512 = 0x080B
    MLDSA44 = 0x0904
    MLDSA65 = 0x0905
    MLDSA87 = 0x0906


class KeyExchange(IntEnum):
    """How a TLS 1.2 suite agrees on the pre-master secret; TLS 1.3 suites say nothing of it."""

    ANY = 0
    RSA = 1
    DHE = 2
    ECDHE = 3


class Authentication(IntEnum):
    """Which kind of certificate key a TLS 1.2 suite demands."""

    ANY = 0
    RSA = 1
    ECDSA = 2


@dataclass(frozen=True, slots=True, repr=False)
class CipherSuite:
    """One suite: what it is called, its AEAD and hash, and for TLS 1.2 its key exchange and signature.

    `implicit_nonce` is the number of bytes of the record nonce that come from the key block: 4 for GCM and
    CCM in TLS 1.2 (RFC 5288, RFC 6655), 12 for ChaCha20-Poly1305 (RFC 7905) and for TLS 1.3.
    """

    code: int
    name: str
    version: ProtocolVersion
    aead: AeadAlgorithm
    hash: HashAlgorithm
    key_exchange: KeyExchange = KeyExchange.ANY
    authentication: Authentication = Authentication.ANY
    implicit_nonce: int = 12

    def __repr__(self) -> str:
        return self.name


def _tls13(code: int, name: str, aead: AeadAlgorithm, algorithm: HashAlgorithm) -> CipherSuite:
    return CipherSuite(code, name, ProtocolVersion.TLS_1_3, aead, algorithm)


def _tls12(code: int, exchange: KeyExchange, authentication: Authentication, name: str) -> CipherSuite:
    words = name.split("_WITH_")[1]
    aead, implicit = {
        "AES_128_GCM_SHA256": (AES_128_GCM, 4),
        "AES_256_GCM_SHA384": (AES_256_GCM, 4),
        "CHACHA20_POLY1305_SHA256": (CHACHA20_POLY1305, 12),
        "AES_128_CCM": (AES_128_CCM, 4),
        "AES_128_CCM_8": (AES_128_CCM_8, 4),
    }[words]
    algorithm = SHA384 if words.endswith("SHA384") else SHA256
    return CipherSuite(code, name, ProtocolVersion.TLS_1_2, aead, algorithm, exchange, authentication, implicit)


_RSA, _ECDSA = Authentication.RSA, Authentication.ECDSA

#: Every implemented suite by code point, the most preferred first.
CIPHER_SUITES: dict[int, CipherSuite] = {
    suite.code: suite
    for suite in (
        _tls13(0x1301, "TLS_AES_128_GCM_SHA256", AES_128_GCM, SHA256),
        _tls13(0x1302, "TLS_AES_256_GCM_SHA384", AES_256_GCM, SHA384),
        _tls13(0x1303, "TLS_CHACHA20_POLY1305_SHA256", CHACHA20_POLY1305, SHA256),
        _tls13(0x1304, "TLS_AES_128_CCM_SHA256", AES_128_CCM, SHA256),
        _tls13(0x1305, "TLS_AES_128_CCM_8_SHA256", AES_128_CCM_8, SHA256),
        _tls12(0xC02B, KeyExchange.ECDHE, _ECDSA, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        _tls12(0xC02C, KeyExchange.ECDHE, _ECDSA, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        _tls12(0xCCA9, KeyExchange.ECDHE, _ECDSA, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
        _tls12(0xC02F, KeyExchange.ECDHE, _RSA, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
        _tls12(0xC030, KeyExchange.ECDHE, _RSA, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
        _tls12(0xCCA8, KeyExchange.ECDHE, _RSA, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
        _tls12(0xC0AC, KeyExchange.ECDHE, _ECDSA, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM"),
        _tls12(0xC0AE, KeyExchange.ECDHE, _ECDSA, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8"),
        _tls12(0x009E, KeyExchange.DHE, _RSA, "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256"),
        _tls12(0x009F, KeyExchange.DHE, _RSA, "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384"),
        _tls12(0xCCAA, KeyExchange.DHE, _RSA, "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
        _tls12(0xC09E, KeyExchange.DHE, _RSA, "TLS_DHE_RSA_WITH_AES_128_CCM"),
        _tls12(0x009C, KeyExchange.RSA, _RSA, "TLS_RSA_WITH_AES_128_GCM_SHA256"),
        _tls12(0x009D, KeyExchange.RSA, _RSA, "TLS_RSA_WITH_AES_256_GCM_SHA384"),
        _tls12(0xC09C, KeyExchange.RSA, _RSA, "TLS_RSA_WITH_AES_128_CCM"),
    )
}


#: Groups that only TLS 1.3 knows, and that keep what is recorded today closed to a quantum computer.
HYBRID_GROUPS: frozenset[int] = frozenset((NamedGroup.X25519MLKEM768, NamedGroup.SECP256R1MLKEM768))

#: RFC 7919 section 2: every code point of this range is that of a finite-field group, known or not.
FINITE_FIELD_RANGE = range(0x0100, 0x0200)


_GROUP_NAMES = {int(group): group.name for group in NamedGroup}
_SCHEME_NAMES = {int(scheme): scheme.name for scheme in SignatureScheme}


def group_name(code: int) -> str:
    """The IANA name of a group, or its code point in hexadecimal."""
    return _GROUP_NAMES.get(code) or f"0x{code:04x}"


def scheme_name(code: int) -> str:
    """The IANA name of a signature scheme, or its code point in hexadecimal."""
    return _SCHEME_NAMES.get(code) or f"0x{code:04x}"


_NOT_RSA = frozenset(
    {
        SignatureScheme.ECDSA_SECP256R1_SHA256,
        SignatureScheme.ECDSA_SECP384R1_SHA384,
        SignatureScheme.ECDSA_SECP521R1_SHA512,
        SignatureScheme.ED25519,
        SignatureScheme.ED448,
    }
)

#: RSASSA-PKCS1-v1_5: in TLS 1.3 for certificates only, never in a CertificateVerify (RFC 8446 section 4.4.3).
PKCS1_SCHEMES = frozenset(
    {
        SignatureScheme.RSA_PKCS1_SHA256,
        SignatureScheme.RSA_PKCS1_SHA384,
        SignatureScheme.RSA_PKCS1_SHA512,
    }
)


def scheme_authentication(code: int) -> Authentication:
    """Which TLS 1.2 suites a scheme may sign for; EdDSA goes with the ECDSA suites (RFC 8422 section 5.4)."""
    return Authentication.ECDSA if code in _NOT_RSA else Authentication.RSA
