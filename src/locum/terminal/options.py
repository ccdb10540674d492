"""What a caller may choose for one connection, and how it becomes the TLS engine's configuration.

The same for both drivers; never opens anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

from locum.tls.configuration import ClientConfiguration
from locum.tls.operations import KeyForm
from locum.tls.registry import ProtocolVersion
from locum.tls.session import SessionTicket

#: Connections that a proxy relays at a time unless told otherwise; others wait in the listening socket's backlog.
MAXIMUM_CONNECTIONS = 256

#: Seconds without a byte in either direction after which a proxy closes a connection, unless told otherwise.
IDLE_TIMEOUT = 600.0

_ENGINE_OPTIONS = frozenset(
    (
        "alpn",
        "versions",
        "cipher_suites",
        "groups",
        "ticket",
        "client_certificate",
        "record_size_limit",
        "key_forms",
        "psk_without_dhe",
    )
)


class TlsOptions(TypedDict, total=False):
    """Keyword arguments of every connecting function; all may be left out.

    `server_name`: DNS name or textual IP address that the peer must prove (the host connected to).
    `alpn`: application protocols to offer, the preferred first.
    `versions`: TLS 1.3 and 1.2 unless given.
    `cipher_suites`, `groups`: code points to offer; all suites, and what the delegate decides, unless given.
    `ticket`: from an earlier session with this peer, to resume it.
    `on_ticket`: called with each new ticket of the session.
    `client_certificate`: answer a request for a certificate with an identity that the delegate has (true).
    `record_size_limit`: plaintext bytes per record to accept, 64 to 16385 (RFC 8449).
    `key_forms`: who may derive the record keys of TLS 1.2 (A7); both forms unless given, the delegate chooses.
    `psk_without_dhe`: offer resumption without (EC)DHE too, which costs forward secrecy (false).
    `timeout`: seconds for connecting, handshake included (30).
    """

    server_name: str | None
    alpn: tuple[str, ...]
    versions: tuple[ProtocolVersion, ...]
    cipher_suites: tuple[int, ...]
    groups: tuple[int, ...]
    ticket: SessionTicket | None
    on_ticket: Callable[[SessionTicket], None] | None
    client_certificate: bool
    record_size_limit: int | None
    key_forms: tuple[KeyForm, ...]
    psk_without_dhe: bool
    timeout: float


def configuration(options: TlsOptions, *, host: str, peer_address: str) -> ClientConfiguration:
    """The engine's configuration for a peer called `host` and reached at the textual IP address `peer_address`.

    Raises: ConfigurationError for a value that TLS cannot express.
    """
    wishes: dict[str, Any] = {name: value for name, value in options.items() if name in _ENGINE_OPTIONS}
    return ClientConfiguration(server_name=options.get("server_name") or host, peer_address=peer_address, **wishes)
