"""The four operations of A1 as TLS asks them: plain requests and responses, answered by an authority.

Nothing here says who answers or how the messages travel. Each operation has a request for every shape that
TLS 1.3 and 1.2 need; lengths are in bytes, code points are those of `registry`.
"""

from __future__ import annotations

from dataclasses import field
from enum import IntEnum
from typing import ClassVar

from locum.handshake import Opening, Operation, PeerAuthentication, Request, Response
from locum.values import dataclass


class KeyForm(IntEnum):
    """Who derives the record keys of TLS 1.2 (A7; paras 72 and 92).

    SECRET: the key response carries the master secret and the terminal derives the key block.
    KEYS: the delegate derives the key block and both Finished values; the terminal never has the master
    secret, and so can neither resume nor export.
    """

    SECRET = 0
    KEYS = 1


# --- start ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest(Opening):
    """What the terminal can do and whom it wants to reach (figs 4 and 14; para 112).

    `groups`, when not empty, limits and orders the groups; the delegate otherwise decides. The first group
    that is left gets a key share. `server_name` is a DNS name or a textual IP address, and what the peer's
    certificate must be good for; `peer_address` is where the terminal connects to, for the policy.
    `resumption` says that a pre-shared key will be offered, so that no peer certificate may be seen.
    """

    versions: tuple[int, ...]
    cipher_suites: tuple[int, ...]
    groups: tuple[int, ...] = ()
    server_name: str
    peer_address: str = ""
    key_forms: tuple[KeyForm, ...] = (KeyForm.SECRET, KeyForm.KEYS)
    resumption: bool = False

    @property
    def peer(self) -> str:
        """The server's name."""
        return self.server_name

    @property
    def without_authentication(self) -> bool:
        """A server that resumes a session shows no certificate."""
        return self.resumption


@dataclass(frozen=True, slots=True, kw_only=True)
class StartResponse(Response):
    """The chosen method: everything of a ClientHello that the delegate has a say in, in order of preference."""

    versions: tuple[int, ...]
    cipher_suites: tuple[int, ...]
    groups: tuple[int, ...]
    signature_schemes: tuple[int, ...]
    key_share_group: int
    key_share: bytes
    key_form: KeyForm


# --- generate_key -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyShareRequest(Request):
    """TLS 1.3, after a HelloRetryRequest: a new key share in `group`, which was among those started with."""

    operation: ClassVar[Operation] = Operation.GENERATE_KEY
    group: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyShareResponse(Response):
    """The client's key share for the group asked for (KeyShareEntry.key_exchange)."""

    key_share: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeSecretsRequest(Request):
    """TLS 1.3 without a pre-shared key: complete the exchange and derive the handshake traffic secrets.

    `transcript_hash` is Transcript-Hash(ClientHello..ServerHello) with the hash of `cipher_suite`.
    """

    operation: ClassVar[Operation] = Operation.GENERATE_KEY
    cipher_suite: int
    group: int
    key_share: bytes
    transcript_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeSecretsResponse(Response):
    """RFC 8446 section 7.1: client and server handshake traffic secrets, each one hash long."""

    client_secret: bytes = field(repr=False)
    server_secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedSecretRequest(Request):
    """TLS 1.3 with a pre-shared key that only the terminal has: the bare (EC)DHE secret."""

    operation: ClassVar[Operation] = Operation.GENERATE_KEY
    group: int
    key_share: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedSecretResponse(Response):
    """The (EC)DHE shared secret; the terminal runs the key schedule itself (the other form of A7)."""

    secret: bytes = field(repr=False)

    @property
    def last(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKeyExchangeRequest(Request):
    """TLS 1.2: make the ClientKeyExchange (para 115).

    `parameters` is the ServerECDHParams or ServerDHParams as received, empty for RSA key exchange, where the
    pre-master secret is encrypted to the key of the certificate authenticated before in this session.
    """

    operation: ClassVar[Operation] = Operation.GENERATE_KEY
    cipher_suite: int
    parameters: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKeyExchangeResponse(Response):
    """The body of the ClientKeyExchange message, its inner length included."""

    body: bytes


# --- authenticate -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticateRequest(PeerAuthentication):
    """Verify the peer: its chain, and its signature over what only this handshake contains (para 114).

    `content` is the transcript hash of the CertificateVerify in TLS 1.3 (the delegate adds the context string
    of RFC 8446 section 4.4.3), and client random + server random + parameters in TLS 1.2 (RFC 8422 section 5.4).
    With RSA key exchange there is no signature: `scheme` is 0, and possession is proven by the Finished.
    Answered by a `Verdict`.
    """

    version: int
    cipher_suite: int
    scheme: int
    signature: bytes = b""
    content: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificateRequest(Request):
    """The peer asked for a certificate: which one does the delegate have for this terminal and peer?

    `schemes` are the peer's signature_algorithms, `authorities` the DER names it accepts (empty: any).
    """

    operation: ClassVar[Operation] = Operation.AUTHENTICATE
    version: int
    schemes: tuple[int, ...]
    authorities: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificateResponse(Response):
    """The chain to send, in DER, the terminal's own first; empty when there is none that fits."""

    certificates: tuple[bytes, ...]
    scheme: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSignatureRequest(Request):
    """Sign the client's CertificateVerify with the identity chosen before in this session.

    `content` is the transcript hash in TLS 1.3. In TLS 1.2 it is ClientHello, ServerHello and CertificateRequest
    with their headers: the authority writes the other messages itself (see `signed_messages12`).
    """

    operation: ClassVar[Operation] = Operation.AUTHENTICATE
    version: int
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSignatureResponse(Response):
    """The signature of the client's CertificateVerify, under the scheme of the ClientCertificateResponse."""

    signature: bytes


# --- request_key ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterSecretRequest(Request):
    """TLS 1.3: hand over the master secret, only after an accepted verdict in this session."""

    operation: ClassVar[Operation] = Operation.REQUEST_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionKeysRequest(Request):
    """TLS 1.2: hand over the master secret or the key block, only after an accepted verdict (para 117).

    `seed` is the session hash when `extended` (RFC 7627), else client random + server random. For
    `KeyForm.KEYS`, `randoms` is client random + server random and `finished_hash` the hash of all messages
    before the client's Finished; both are empty for `KeyForm.SECRET`.
    """

    operation: ClassVar[Operation] = Operation.REQUEST_KEY
    extended: bool
    seed: bytes
    randoms: bytes = b""
    finished_hash: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterSecretResponse(Response):
    """The master secret: one hash long in TLS 1.3, 48 bytes in TLS 1.2."""

    secret: bytes = field(repr=False)

    @property
    def last(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBlockResponse(Response):
    """TLS 1.2, `KeyForm.KEYS`: client key, server key, client IV, server IV, and the client's verify_data."""

    key_block: bytes = field(repr=False)
    client_verify_data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFinishedRequest(Request):
    """TLS 1.2, `KeyForm.KEYS`: the verify_data to expect from the server; ends the session.

    `finished_hash` is the hash of all messages before the server's Finished.
    """

    operation: ClassVar[Operation] = Operation.REQUEST_KEY
    finished_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFinishedResponse(Response):
    """The verify_data (12 bytes) that the server's Finished must carry."""

    server_verify_data: bytes

    @property
    def last(self) -> bool:
        """Always."""
        return True
