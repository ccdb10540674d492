"""What a finished handshake leaves: the session's facts, its exporter, and a client's tickets for resumption.

Knows no file and no clock; a ticket's bytes contain a secret and belong into a file of mode 0600.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from locum.errors import DecodeError, Refused
from locum.tls import schedule
from locum.tls.registry import CIPHER_SUITES, CipherSuite, ProtocolVersion
from locum.tls.schedule import MASTER_SECRET_LENGTH
from locum.values import dataclass
from locum.wire.cursor import Reader, Writer

#: Seven days: no ticket is used longer, whatever the server says (RFC 8446 section 4.6.1).
MAX_TICKET_LIFETIME = 604_800

#: A server that names no lifetime (a hint of 0 in TLS 1.2) gets this many seconds.
DEFAULT_TICKET_LIFETIME = 7_200

#: The longest ticket that is kept, in bytes: with it, a cookie and all else a ClientHello still holds together.
MAX_TICKET = 1 << 14

#: Keying material from a label, a context and a length in bytes.
Exporter = Callable[[bytes, bytes, int], bytes]

_MAGIC = b"locum ticket 1\n"
_MAX_TICKET_FILE = 2 * MAX_TICKET


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTicket:
    """A ticket and the secret that goes with it: PSK (one hash long) or TLS 1.2 master secret (48 bytes).

    `issued_at` and `lifetime` are in seconds, `age_add` in milliseconds. `peer_identity` is what the
    authority said of the peer when it was authenticated.
    """

    version: ProtocolVersion
    suite: CipherSuite
    server_name: str
    peer_identity: str
    ticket: bytes = field(repr=False)
    secret: bytes = field(repr=False)
    issued_at: float
    lifetime: int
    age_add: int = 0

    @property
    def expires_at(self) -> float:
        """When this ticket stops being of use, in seconds since the epoch."""
        return self.issued_at + min(self.lifetime, MAX_TICKET_LIFETIME)

    def usable(self, server_name: str, now: float) -> bool:
        """True when this ticket was issued by a server of this name and has not expired."""
        return self.server_name == server_name and self.issued_at <= now < self.expires_at

    def obfuscated_age(self, now: float) -> int:
        """obfuscated_ticket_age (RFC 8446 section 4.2.11.1)."""
        return (int((now - self.issued_at) * 1000) + self.age_add) % (1 << 32)

    def to_bytes(self) -> bytes:
        """For a file; contains the secret."""
        writer = Writer()
        writer.block(_MAGIC)
        writer.u16(self.version)
        writer.u16(self.suite.code)
        writer.vector(self.server_name.encode(), 2)
        writer.vector(self.peer_identity.encode(), 2)
        writer.vector(self.ticket, 2)
        writer.vector(self.secret, 1)
        writer.integer(round(self.issued_at * 1000), 8)
        writer.u32(self.lifetime)
        writer.u32(self.age_add)
        return writer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> SessionTicket:
        """The inverse of `to_bytes`; DecodeError when `data` is anything else."""
        if len(data) > _MAX_TICKET_FILE or not data.startswith(_MAGIC):
            raise DecodeError("this is not a session ticket of locum")
        reader = Reader(data[len(_MAGIC) :])
        version, code = reader.u16(), reader.u16()
        suite = CIPHER_SUITES.get(code)
        if suite is None or version != suite.version:
            raise DecodeError(f"the session ticket is for the unknown cipher suite 0x{code:04x}")
        try:
            names = reader.vector(2).decode(), reader.vector(2).decode()
        except UnicodeDecodeError:
            raise DecodeError("the session ticket's names are not UTF-8") from None
        ticket = cls(
            version=suite.version,
            suite=suite,
            server_name=names[0],
            peer_identity=names[1],
            ticket=reader.vector(2, minimum=1, maximum=MAX_TICKET),
            secret=reader.vector(1, minimum=32, maximum=48),
            issued_at=reader.integer(8) / 1000,
            lifetime=reader.u32(),
            age_add=reader.u32(),
        )
        reader.finish()
        length = suite.hash.length if suite.version is ProtocolVersion.TLS_1_3 else MASTER_SECRET_LENGTH
        if len(ticket.secret) != length:
            raise DecodeError(f"the session ticket's secret has {len(ticket.secret)} bytes, not {length}")
        return ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """The facts of an established session.

    `group` is None where no (EC)DHE took place. `peer_certificates` (DER) are empty in a resumed session;
    `peer_identity` then is that of the session it came from. At a server, `server_name` is what the client asked
    for, and `peer_identity` what its certificate proved; both may be empty.
    """

    version: ProtocolVersion
    cipher_suite: CipherSuite
    group: int | None
    server_name: str
    peer_identity: str
    alpn: str | None
    resumed: bool
    client_authenticated: bool
    peer_certificates: tuple[bytes, ...] = field(repr=False)
    _exporter: Exporter | None = field(repr=False, default=None)

    def export_keying_material(self, label: str, context: bytes, length: int) -> bytes:
        """Exporter of RFC 8446 section 7.5 or RFC 5705; `length` in bytes.

        Raises: Refused where the terminal does not have the master secret, or TLS 1.2 ran without RFC 7627.
        """
        if self._exporter is None:
            raise Refused("this session cannot export keying material")
        return self._exporter(label.encode("ascii"), context, length)


def exporter13(suite: CipherSuite, secret: bytes) -> Exporter:
    """The exporter of RFC 8446 section 7.5, from the exporter master secret."""

    def export(label: bytes, context: bytes, length: int) -> bytes:
        return schedule.exporter(suite.hash, secret, label, context, length)

    return export


def exporter12(suite: CipherSuite, master: bytes, randoms: bytes) -> Exporter:
    """The exporter of RFC 5705 section 4, always with a context; `randoms` is client random + server random."""

    def export(label: bytes, context: bytes, length: int) -> bytes:
        seed = randoms + len(context).to_bytes(2, "big") + context
        return schedule.exporter12(suite.hash, master, label, seed, length)

    return export
