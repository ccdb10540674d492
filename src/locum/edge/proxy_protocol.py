"""The PROXY protocol, version 2: tells a backend who the client is, and what TLS has found out about it.

Knows no socket. As published by HAProxy (proxy-protocol.txt, sections 2.2 and 2.3).
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from locum.tls.registry import ProtocolVersion
from locum.tls.session import SessionInfo

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
#: Version 2, command PROXY.
_PROXY = 0x21
#: TCP over IPv4 and over IPv6.
_TCP4, _TCP6 = 0x11, 0x21

_ALPN, _AUTHORITY, _SSL = 0x01, 0x02, 0x20
_SSL_VERSION, _SSL_CN, _SSL_CIPHER = 0x21, 0x22, 0x23
#: The client used TLS, showed a certificate in this connection, showed one in this session.
_CLIENT_SSL, _CLIENT_CERT_CONN, _CLIENT_CERT_SESS = 0x01, 0x02, 0x04
#: "Not verified", where there is no certificate.
_UNVERIFIED = 1

_VERSIONS = {ProtocolVersion.TLS_1_2: b"TLSv1.2", ProtocolVersion.TLS_1_3: b"TLSv1.3"}

#: Bytes of the longest value: names and identities come from strangers, and are cut.
_MAX_VALUE = 1024


@dataclass(frozen=True, slots=True)
class Ends:
    """A TCP connection: textual IP addresses and ports of who made it and of who accepted it."""

    source: tuple[str, int]
    destination: tuple[str, int]


def proxy_header(ends: Ends, session: SessionInfo) -> bytes:
    """What goes before a connection's first byte. Of the client it says what was verified, and no more."""
    values = _value(_SSL, _ssl(session))
    if session.alpn is not None:
        values += _value(_ALPN, session.alpn.encode("latin-1"))
    if session.server_name:
        values += _value(_AUTHORITY, session.server_name.encode())
    kind, addresses = _addresses(ends)
    body = addresses + values
    return _SIGNATURE + struct.pack(">BBH", _PROXY, kind, len(body)) + body


def _addresses(ends: Ends) -> tuple[int, bytes]:
    source, destination = (ipaddress.ip_address(host) for host, _ in (ends.source, ends.destination))
    kind, size = (_TCP4, 4) if source.version == 4 else (_TCP6, 16)
    ports = struct.pack(">HH", ends.source[1], ends.destination[1])
    return kind, source.packed[:size] + destination.packed[:size] + ports


def _ssl(session: SessionInfo) -> bytes:
    flags, verify = _CLIENT_SSL, _UNVERIFIED
    values = _value(_SSL_VERSION, _VERSIONS[session.version])
    values += _value(_SSL_CIPHER, session.cipher_suite.name.encode())
    if session.peer_identity:
        flags |= _CLIENT_CERT_SESS | (0 if session.resumed else _CLIENT_CERT_CONN)
        verify = 0
        values += _value(_SSL_CN, session.peer_identity.encode())
    return struct.pack(">BI", flags, verify) + values


def _value(code: int, data: bytes) -> bytes:
    data = data[:_MAX_VALUE]
    return struct.pack(">BH", code, len(data)) + data
