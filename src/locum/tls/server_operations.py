"""The four operations of A1 as a TLS server asks them: what needs a public key or a private one (C1, C2).

Nothing here says who answers: an edge does the key exchange itself and has the private key used where it is.
Lengths are in bytes, code points are those of `registry`.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

from locum.handshake import Opening, Operation, PeerAuthentication, Request, Response
from locum.values import dataclass

# --- start ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStartRequest(Opening):
    """What the client offers, as far as it decides about the certificate.

    `server_name` is empty without SNI. `signature_schemes` are those that the client verifies handshakes with,
    `versions` those that both sides know, the preferred first. `groups` are its supported_groups, in TLS 1.2 the
    curves of certificates too (RFC 8422 section 5.1); None where it does not say.
    """

    server_name: str
    versions: tuple[int, ...]
    cipher_suites: tuple[int, ...]
    signature_schemes: tuple[int, ...]
    alpn: tuple[str, ...] = ()
    groups: tuple[int, ...] | None = None

    @property
    def peer(self) -> str:
        """The name that the client asks for."""
        return self.server_name

    @property
    def uninvited(self) -> bool:
        """Always: it is the client that begins."""
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStartResponse(Response):
    """The certificate to show, and what its key can do.

    `schemes13` and `schemes12` are the offered schemes that the key can sign under in each version, the preferred
    first, and that whoever holds the key lets us use. `rsa_key_exchange` says that the key may also decrypt
    pre-master secrets (RFC 5246 section 7.4.7.1). With all of them empty and false no handshake is possible.
    """

    certificates: tuple[bytes, ...]
    ocsp_response: bytes = b""
    schemes13: tuple[int, ...] = ()
    schemes12: tuple[int, ...] = ()
    rsa_key_exchange: bool = False


# --- generate_key -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerShareRequest(Request):
    """TLS 1.3: a key share of ours for the client's, `key_share`, in `group` (KeyShareEntry.key_exchange)."""

    operation: ClassVar[Operation] = Operation.GENERATE_KEY
    group: int
    key_share: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerShareResponse(Response):
    """Our key share, and the shared secret from which the server runs the key schedule itself."""

    key_share: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerParametersRequest(Request):
    """TLS 1.2 with (EC)DHE: an ephemeral key in `group`, and a signature over it (RFC 8422 section 5.4, RFC 7919).

    The randoms have 32 bytes each.
    """

    operation: ClassVar[Operation] = Operation.GENERATE_KEY
    group: int
    scheme: int
    client_random: bytes
    server_random: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerParametersResponse(Response):
    """ServerECDHParams or ServerDHParams as they go into the ServerKeyExchange, and their signature."""

    parameters: bytes
    signature: bytes


# --- authenticate -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSignatureRequest(Request):
    """TLS 1.3: sign the server's CertificateVerify over `transcript_hash` (RFC 8446 section 4.4.3)."""

    operation: ClassVar[Operation] = Operation.AUTHENTICATE
    scheme: int
    transcript_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSignatureResponse(Response):
    """The signature of the CertificateVerify."""

    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAuthenticateRequest(PeerAuthentication):
    """Verify a client: its chain, and its signature over this handshake (C8). Answered by a `Verdict`.

    `content` is the transcript hash in TLS 1.3 and all messages before the CertificateVerify in TLS 1.2.
    """

    version: int
    scheme: int
    signature: bytes
    content: bytes


# --- request_key ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerMasterSecretRequest(Request):
    """TLS 1.2: the master secret from the ClientKeyExchange (fig 2). Answered by a `MasterSecretResponse`.

    `key_exchange` is the body of that message. `messages` are all handshake messages with their headers, up to and
    with the ClientKeyExchange: whoever computes the extended master secret (RFC 7627) hashes them itself, and sees
    in them which handshake it is. `random_seed`, 32 bytes, is what the server random was made of (see
    `schedule.bound_random`); with (EC)DHE it is empty.
    """

    operation: ClassVar[Operation] = Operation.REQUEST_KEY
    cipher_suite: int
    extended: bool
    client_random: bytes
    server_random: bytes
    key_exchange: bytes
    messages: bytes
    random_seed: bytes = field(repr=False, default=b"")
