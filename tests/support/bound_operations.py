"""TLS-bound operations that are in order, and the messages of TLS 1.2 handshakes that they belong to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from locum.crypto.asymmetric.finite_field import ffdhe
from locum.keyless.operations import ClientVerify, MasterSecret, ServerKeyExchange
from locum.tls import schedule
from locum.tls.extensions import Extensions
from locum.tls.messages import ClientHello, Message, ServerHello, serialize
from locum.tls.messages12 import (
    Certificate,
    CertificateRequest,
    CertificateStatus,
    ClientKeyExchange,
    ServerHelloDone,
)
from locum.tls.messages12 import ServerKeyExchange as ServerKeyExchangeMessage
from locum.tls.registry import ExtensionType, SignatureScheme

CLIENT_RANDOM = bytes(range(32))
SEED = bytes(range(32, 64))
VERSION = 0x0303
PRE_MASTER_SECRET = VERSION.to_bytes(2, "big") + bytes(range(100, 146))
#: TLS_RSA_WITH_AES_128_GCM_SHA256, TLS_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
RSA_SHA256, RSA_SHA384, ECDHE = 0x009C, 0x009D, 0xC02F

_EXTENDED = Extensions(((int(ExtensionType.EXTENDED_MASTER_SECRET), b""),))


def curve_parameters() -> bytes:
    """ServerECDHParams with a point of P-256."""
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    encoded = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return bytes((3, 0, 0x17, len(encoded))) + encoded


def finite_field_parameters(bits: int = 2048, public: int = 4, *, prime: int | None = None) -> bytes:
    """ServerDHParams in ffdhe`bits`, or with another prime of as many bytes."""
    group = ffdhe(bits)
    numbers = [(group.prime if prime is None else prime).to_bytes(group.length, "big"), b"\2"]
    numbers.append(public.to_bytes(group.length, "big"))
    return b"".join(len(number).to_bytes(2, "big") + number for number in numbers)


def server_key_exchange(scheme: str, **changes: Any) -> ServerKeyExchange:
    """A ServerKeyExchange with ECDHE."""
    operation = ServerKeyExchange(scheme, CLIENT_RANDOM, bytes(32), curve_parameters())
    return replace(operation, **changes)


@dataclass(kw_only=True)
class Messages:
    """The parts of a TLS 1.2 handshake up to the ClientKeyExchange; `b"".join(parts())` are its bytes."""

    suite: int = RSA_SHA256
    client_random: bytes = CLIENT_RANDOM
    server_random: bytes = schedule.bound_random(SEED)
    client_version: int = VERSION
    server_version: int = VERSION
    client_extensions: Extensions = _EXTENDED
    server_extensions: Extensions = _EXTENDED
    key_exchange: bytes = b""
    status: bool = False
    parameters: bytes | None = None
    requested: tuple[int, ...] | None = None
    client_certificates: tuple[bytes, ...] | None = None

    def parts(self) -> list[bytes]:
        """Each message with its header."""
        messages: list[Message] = [
            ClientHello(
                legacy_version=self.client_version,
                random=self.client_random,
                session_id=b"",
                cipher_suites=(RSA_SHA256, RSA_SHA384, ECDHE),
                extensions=self.client_extensions,
            ),
            ServerHello(
                legacy_version=self.server_version,
                random=self.server_random,
                session_id=b"",
                cipher_suite=self.suite,
                extensions=self.server_extensions,
            ),
            Certificate(certificates=(b"a server",)),
        ]
        if self.status:
            messages.append(CertificateStatus(ocsp_response=b"good"))
        if self.parameters is not None:
            messages.append(ServerKeyExchangeMessage.join(self.parameters, 0x0804, b"signature"))
        if self.requested is not None:
            messages.append(
                CertificateRequest(certificate_types=b"\x01\x40", schemes=self.requested, authorities=())
            )
        messages.append(ServerHelloDone())
        if self.client_certificates is not None:
            messages.append(Certificate(certificates=self.client_certificates))
        messages.append(ClientKeyExchange(body=self.key_exchange))
        return [serialize(message) for message in messages]

    def whole(self) -> bytes:
        """All of them."""
        return b"".join(self.parts())


def client_messages(scheme: str) -> Messages:
    """Of a handshake with ECDHE in which the client is to sign under `scheme`."""
    return Messages(
        suite=ECDHE,
        parameters=curve_parameters(),
        requested=(int(SignatureScheme[scheme]),),
        client_certificates=(b"a client",),
        key_exchange=b"\x01\x04",
    )


def client_verify(scheme: str, messages: Messages | None = None) -> ClientVerify:
    """A client's CertificateVerify over these messages."""
    return ClientVerify(scheme, (messages or client_messages(scheme)).whole())


def encrypted(public_key: rsa.RSAPublicKey, secret: bytes = PRE_MASTER_SECRET) -> bytes:
    """EncryptedPreMasterSecret without its length."""
    return public_key.encrypt(secret, padding.PKCS1v15())


def master_secret(ciphertext: bytes, **changes: Any) -> MasterSecret:
    """A classic master secret."""
    operation = MasterSecret(
        ciphertext=ciphertext,
        client_version=VERSION,
        client_random=CLIENT_RANDOM,
        random_seed=SEED,
        server_random=schedule.bound_random(SEED),
        extended=False,
    )
    return replace(operation, **changes)


def exchange_messages(ciphertext: bytes, **changes: Any) -> Messages:
    """Of a handshake with RSA key exchange and the extended master secret."""
    return replace(Messages(key_exchange=len(ciphertext).to_bytes(2, "big") + ciphertext), **changes)


def extended_master_secret(ciphertext: bytes, messages: Messages | None = None, **changes: Any) -> MasterSecret:
    """An extended master secret over these messages."""
    whole = (messages or exchange_messages(ciphertext)).whole()
    return replace(master_secret(ciphertext), extended=True, messages=whole, **changes)
