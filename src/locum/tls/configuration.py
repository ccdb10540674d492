"""What the user of a TLS client decides, checked when it is built."""

from __future__ import annotations

from locum.errors import ConfigurationError
from locum.tls.operations import KeyForm
from locum.tls.record import MAX_PLAINTEXT
from locum.tls.registry import CIPHER_SUITES, ProtocolVersion
from locum.tls.session import SessionTicket
from locum.values import dataclass

#: RFC 8449 section 4: no endpoint may ask for less.
MIN_RECORD_SIZE_LIMIT = 64

#: Most application protocols that are offered or accepted.
MAX_ALPN = 16

_MAX_NAME = 253


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfiguration:
    """One connection's wishes.

    `server_name`: DNS name or textual IP address that the peer must prove. `peer_address`: where the
    connection goes, for the policy. `groups`: empty lets the delegate decide. `record_size_limit`: the most
    plaintext bytes we accept in a record (RFC 8449). `psk_without_dhe` also offers resumption without
    (EC)DHE, which gives up forward secrecy of the resumed session. `client_certificate`: answer a
    CertificateRequest with an identity of the delegate.

    Raises: ConfigurationError for a value that cannot be sent.
    """

    server_name: str
    peer_address: str = ""
    alpn: tuple[str, ...] = ()
    versions: tuple[ProtocolVersion, ...] = (ProtocolVersion.TLS_1_3, ProtocolVersion.TLS_1_2)
    cipher_suites: tuple[int, ...] = tuple(CIPHER_SUITES)
    groups: tuple[int, ...] = ()
    ticket: SessionTicket | None = None
    key_forms: tuple[KeyForm, ...] = (KeyForm.SECRET, KeyForm.KEYS)
    record_size_limit: int | None = None
    compatibility_mode: bool = True
    client_certificate: bool = True
    psk_without_dhe: bool = False

    def __post_init__(self) -> None:
        if not self.server_name or len(self.server_name) > _MAX_NAME or not self.server_name.isascii():
            raise ConfigurationError(
                f"server name {self.server_name!r}: give 1 to {_MAX_NAME} ASCII characters (A-labels for IDNs)"
            )
        if not self.versions or not set(self.versions) <= set(ProtocolVersion):
            raise ConfigurationError("versions: TLS 1.3, TLS 1.2, or both")
        unknown = [code for code in self.cipher_suites if code not in CIPHER_SUITES]
        if unknown or not self.cipher_suites:
            raise ConfigurationError(
                f"unknown cipher suites: {', '.join(f'0x{c:04x}' for c in unknown) or 'none given'}"
            )
        if len(self.alpn) > MAX_ALPN or not all(is_protocol_name(name) for name in self.alpn):
            raise ConfigurationError(f"ALPN: at most {MAX_ALPN} protocols of 1 to 255 bytes, written as Latin-1")
        check_record_size_limit(self.record_size_limit)


def check_record_size_limit(limit: int | None) -> None:
    """Raise ConfigurationError unless `limit` is None or may be sent as a record_size_limit (RFC 8449)."""
    if limit is not None and not MIN_RECORD_SIZE_LIMIT <= limit <= MAX_PLAINTEXT + 1:
        raise ConfigurationError(
            f"record_size_limit {limit}: give {MIN_RECORD_SIZE_LIMIT} to {MAX_PLAINTEXT + 1} bytes"
        )


def is_protocol_name(name: str) -> bool:
    """True for 1 to 255 octets (RFC 7301 section 3.1), each of them written as one character."""
    return 1 <= len(name) <= 255 and all(ord(character) < 256 for character in name)
