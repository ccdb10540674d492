"""The peer's half of a delegated handshake, reduced to what an authority sees of it, for tests.

Uses `cryptography` directly, not the code under test, for everything that the authority computes too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, x25519
from tests.support import pki

from locum.authority.databases import Action, Identity, PolicyRule, TrustMaterial
from locum.authority.local import LocalAuthority, LocalSession
from locum.handshake import PeerChain, Request
from locum.keys.file import FileKey
from locum.tls.operations import (
    AuthenticateRequest,
    ClientKeyExchangeRequest,
    ClientKeyExchangeResponse,
    HandshakeSecretsRequest,
    SessionKeysRequest,
    StartRequest,
    StartResponse,
)
from locum.tls.registry import CIPHER_SUITES, NamedGroup, ProtocolVersion, SignatureScheme
from locum.tls.schedule import certificate_verify_content

TERMINAL = "meter-7"
TLS_AES_128_GCM_SHA256 = 0x1301
ECDHE_ECDSA = 0xC02B
ECDHE_RSA = 0xC02F
DHE_RSA = 0x009E
RSA = 0x009C
RANDOMS = bytes(range(64))
TRANSCRIPT_HASH = bytes(32)
ALLOW_ALL = (PolicyRule(terminal="*", peer="*", action=Action.ALLOW),)

START = StartRequest(
    versions=(ProtocolVersion.TLS_1_3, ProtocolVersion.TLS_1_2),
    cipher_suites=tuple(CIPHER_SUITES),
    server_name=pki.PEER_NAME,
    peer_address=pki.PEER_ADDRESS,
)


def start12(**changes: Any) -> StartRequest:
    """A StartRequest for TLS 1.2 alone."""
    return replace(START, versions=(ProtocolVersion.TLS_1_2,), **changes)


def authority(**options: Any) -> LocalAuthority:
    """An authority that trusts `pki.ca()` and lets everybody reach everything, unless `options` say otherwise."""
    options.setdefault("trust", TrustMaterial(anchors=(pki.ca().pem,)))
    options.setdefault("policy", ALLOW_ALL)
    options.setdefault("now", lambda: pki.EPOCH)
    return LocalAuthority(**options)


def identity(kind: str = "p256", **options: Any) -> Identity:
    """A client identity certified by `pki.ca()`."""
    issued = pki.client(pki.ca(), kind)
    return Identity(name=kind, certificates=issued.chain, key=FileKey.from_pem(issued.key_pem), **options)


def server_share(start: StartResponse) -> tuple[HandshakeSecretsRequest, bytes]:
    """The request that completes an X25519 exchange, and the shared secret that a server computes."""
    assert start.key_share_group == NamedGroup.X25519
    private = x25519.X25519PrivateKey.generate()
    secret = private.exchange(x25519.X25519PublicKey.from_public_bytes(start.key_share))
    request = HandshakeSecretsRequest(
        cipher_suite=TLS_AES_128_GCM_SHA256,
        group=NamedGroup.X25519,
        key_share=private.public_key().public_bytes_raw(),
        transcript_hash=TRANSCRIPT_HASH,
    )
    return request, secret


def keyed13(session: LocalSession, start: StartRequest = START) -> None:
    """Bring a session to where TLS 1.3 has its handshake secrets."""
    (response,) = session.perform([start])
    assert isinstance(response, StartResponse)
    session.perform([server_share(response)[0]])


def authenticate13(
    leaf: pki.Issued,
    scheme: int = SignatureScheme.ECDSA_SECP256R1_SHA256,
    *,
    chain: PeerChain | None = None,
    signature: bytes | None = None,
) -> AuthenticateRequest:
    """The authentication of a TLS 1.3 server with a P-256 key, unless a `signature` is given."""
    if signature is None:
        content = certificate_verify_content(b"server", TRANSCRIPT_HASH)
        signature = leaf.key.sign(content, ec.ECDSA(hashes.SHA256()))
    return AuthenticateRequest(
        version=ProtocolVersion.TLS_1_3,
        cipher_suite=TLS_AES_128_GCM_SHA256,
        chain=chain or PeerChain(leaf.chain),
        scheme=scheme,
        signature=signature,
        content=TRANSCRIPT_HASH,
    )


def ecdh_parameters(group: int = NamedGroup.X25519, point: bytes | None = None) -> bytes:
    """ServerECDHParams (RFC 8422 section 5.4); an X25519 point unless another is given."""
    if point is None:
        point = x25519.X25519PrivateKey.generate().public_key().public_bytes_raw()
    return b"\x03" + group.to_bytes(2, "big") + bytes((len(point),)) + point


def authenticate12(leaf: pki.Issued, parameters: bytes, *, suite: int | None = None) -> AuthenticateRequest:
    """The authentication of a TLS 1.2 server with ECDHE, its key P-256 or RSA."""
    content = RANDOMS + parameters
    if isinstance(leaf.key, rsa.RSAPrivateKey):
        scheme = SignatureScheme.RSA_PKCS1_SHA256
        signature = leaf.key.sign(content, padding.PKCS1v15(), hashes.SHA256())
    else:
        scheme = SignatureScheme.ECDSA_SECP256R1_SHA256
        signature = leaf.key.sign(content, ec.ECDSA(hashes.SHA256()))
    default = ECDHE_RSA if isinstance(leaf.key, rsa.RSAPrivateKey) else ECDHE_ECDSA
    return AuthenticateRequest(
        version=ProtocolVersion.TLS_1_2,
        cipher_suite=suite or default,
        chain=PeerChain(leaf.chain),
        scheme=scheme,
        signature=signature,
        content=content,
    )


def message12(code: int, body: bytes) -> bytes:
    """A handshake message with its header."""
    return bytes((code,)) + len(body).to_bytes(3, "big") + body


def told12(*, randoms: bytes = RANDOMS, suite: int = ECDHE_ECDSA) -> tuple[bytes, bytes, bytes]:
    """ClientHello, ServerHello and CertificateRequest of TLS 1.2, as short as they can be."""
    version, code = b"\x03\x03", suite.to_bytes(2, "big")
    return (
        message12(1, version + randoms[:32] + b"\0" + b"\0\2" + code + b"\1\0"),
        message12(2, version + randoms[32:] + b"\0" + code + b"\0"),
        message12(13, b"\1\x40" + b"\0\2\4\3" + b"\0\0"),
    )


def authenticate_rsa(leaf: pki.Issued) -> AuthenticateRequest:
    """The authentication of a TLS 1.2 server with RSA key exchange."""
    return AuthenticateRequest(
        version=ProtocolVersion.TLS_1_2, cipher_suite=RSA, chain=PeerChain(leaf.chain), scheme=0
    )


def exchanged12(
    session: LocalSession, leaf: pki.Issued, start: StartRequest | None = None
) -> tuple[AuthenticateRequest, bytes]:
    """Bring a session to where TLS 1.2 with ECDHE has its pre-master secret.

    Returns the authentication of the server and the body of the ClientKeyExchange.
    """
    parameters = ecdh_parameters()
    authenticate = authenticate12(leaf, parameters)
    requests: tuple[Request, ...] = (
        start or start12(),
        authenticate,
        ClientKeyExchangeRequest(cipher_suite=ECDHE_ECDSA, parameters=parameters),
    )
    exchange = session.perform(requests)[2]
    assert isinstance(exchange, ClientKeyExchangeResponse)
    return authenticate, exchange.body


EXTENDED_KEYS = SessionKeysRequest(extended=True, seed=bytes(32))
FULL_KEYS = SessionKeysRequest(extended=True, seed=bytes(32), randoms=RANDOMS, finished_hash=TRANSCRIPT_HASH)
