"""What the user of a TLS server decides, checked when it is built.

Never knows a certificate or its key: whoever answers the operations of `server_operations` has those.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum
from functools import lru_cache

from locum.errors import ConfigurationError
from locum.tls.configuration import MAX_ALPN, check_record_size_limit, is_protocol_name
from locum.tls.registry import CIPHER_SUITES, NamedGroup, ProtocolVersion, SignatureScheme
from locum.tls.session import MAX_TICKET_LIFETIME
from locum.tls.tickets import TicketKeys
from locum.values import dataclass

#: Most tickets sent after a full handshake of TLS 1.3; after a resumed one there is one.
MAX_TICKET_COUNT = 8

#: Most names of certificate authorities in a CertificateRequest, and the bytes of all of them.
MAX_AUTHORITIES = 256
MAX_AUTHORITIES_LENGTH = 16_384

#: Forward secrecy first (RFC 9325 section 4.2); suites with a shortened tag are for who asks for them.
_WHOLE_TAG = 16
DEFAULT_CIPHER_SUITES = tuple(code for code, suite in CIPHER_SUITES.items() if suite.aead.tag_length == _WHOLE_TAG)

#: The most preferred first. DHE with finite fields costs much and is for who asks for it.
DEFAULT_GROUPS = (
    NamedGroup.X25519MLKEM768,
    NamedGroup.SECP256R1MLKEM768,
    NamedGroup.X25519,
    NamedGroup.SECP256R1,
    NamedGroup.SECP384R1,
    NamedGroup.X448,
)


class ClientCertificates(IntEnum):
    """Whether a client is asked for a certificate, and must show one (C8)."""

    NONE = 0
    OPTIONAL = 1
    REQUIRED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfiguration:
    """The wishes of a server; one serves for all of its connections.

    Every tuple has the most preferred first, and the server's preference decides; of `versions` it is always the
    highest that the client knows. `alpn`: when it is empty, what
    clients say is ignored; when not, a client that offers none of it is refused (RFC 7301 section 3.2).
    `tickets`: the ring for session tickets, None for no resumption; `ticket_count` of them are sent after a full
    handshake of TLS 1.3. `session_lifetime`: seconds for which a full handshake may be resumed.
    `session_context` keeps apart servers that share ticket keys, but not what a client must prove to them.
    `client_authorities`: DER names of those whose client certificates are accepted; empty: does not say.
    `client_schemes`: signature schemes of client certificates. `record_size_limit`: the most plaintext bytes that
    we accept in a record (RFC 8449). `compatibility_mode`: RFC 8446 appendix D.4, for clients that ask for it.

    Raises: ConfigurationError for a value that cannot be used.
    """

    versions: tuple[ProtocolVersion, ...] = (ProtocolVersion.TLS_1_3, ProtocolVersion.TLS_1_2)
    cipher_suites: tuple[int, ...] = DEFAULT_CIPHER_SUITES
    groups: tuple[int, ...] = DEFAULT_GROUPS
    alpn: tuple[str, ...] = ()
    tickets: TicketKeys | None = None
    ticket_count: int = 2
    session_lifetime: int = 86_400
    session_context: bytes = b""
    client_certificates: ClientCertificates = ClientCertificates.NONE
    client_authorities: tuple[bytes, ...] = ()
    client_schemes: tuple[int, ...] = tuple(SignatureScheme)
    record_size_limit: int | None = None
    compatibility_mode: bool = True

    def __post_init__(self) -> None:
        if not self.versions or not set(self.versions) <= set(ProtocolVersion):
            raise ConfigurationError("versions: TLS 1.3, TLS 1.2, or both")
        unknown = [code for code in self.cipher_suites if code not in CIPHER_SUITES]
        if unknown or not self.cipher_suites:
            raise ConfigurationError(
                f"unknown cipher suites: {', '.join(f'0x{c:04x}' for c in unknown) or 'none given'}"
            )
        if not set(self.versions) <= {CIPHER_SUITES[code].version for code in self.cipher_suites}:
            raise ConfigurationError("cipher_suites: none for one of the versions; give one, or leave it out")
        if not self.groups or not set(self.groups) <= set(NamedGroup):
            raise ConfigurationError("groups: at least one, and only those that are implemented")
        if len(self.alpn) > MAX_ALPN or not all(is_protocol_name(name) for name in self.alpn):
            raise ConfigurationError(f"ALPN: at most {MAX_ALPN} protocols of 1 to 255 bytes, written as Latin-1")
        if not 0 <= self.ticket_count <= MAX_TICKET_COUNT:
            raise ConfigurationError(f"ticket_count {self.ticket_count}: give 0 to {MAX_TICKET_COUNT}")
        if not 0 < self.session_lifetime <= MAX_TICKET_LIFETIME:
            raise ConfigurationError(
                f"session_lifetime {self.session_lifetime}: give 1 to {MAX_TICKET_LIFETIME} seconds"
            )
        self._check_clients()
        check_record_size_limit(self.record_size_limit)

    def _check_clients(self) -> None:
        if not self.client_schemes:
            raise ConfigurationError("client_schemes: at least one signature scheme")
        names = self.client_authorities
        if len(names) > MAX_AUTHORITIES or sum(map(len, names)) > MAX_AUTHORITIES_LENGTH or not all(names):
            raise ConfigurationError(
                f"client_authorities: at most {MAX_AUTHORITIES} names of {MAX_AUTHORITIES_LENGTH} bytes together"
            )

    @property
    def resumption_context(self) -> bytes:
        """What a ticket is bound to beside its key: 32 bytes that stand for all that a client must prove.

        Without it, who may talk to one server could resume at another that asks for other certificates.
        """
        return _resumption_context(self.session_context, self.client_certificates, self.client_authorities)


@lru_cache(maxsize=64)
def _resumption_context(context: bytes, asked: ClientCertificates, authorities: tuple[bytes, ...]) -> bytes:
    state = hashlib.sha256(bytes((asked,)))
    for part in (context, *authorities):
        state.update(len(part).to_bytes(4, "big"))
        state.update(part)
    return state.digest()
