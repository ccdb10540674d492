"""Session tickets of a server, of both versions, and the ring of keys under which they are sealed (RFC 5077).

Knows no clock, no file and no other server: whoever derives a ring from the same root opens the same tickets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from struct import Struct

from locum.crypto.symmetric import AES_256_GCM, SHA256, AuthenticationFailed, hkdf_expand, hkdf_extract
from locum.errors import ConfigurationError, DecodeError
from locum.tls.registry import CIPHER_SUITES, CipherSuite, ProtocolVersion
from locum.tls.schedule import MASTER_SECRET_LENGTH
from locum.tls.session import MAX_TICKET, MAX_TICKET_LIFETIME
from locum.values import dataclass
from locum.wire.cursor import Reader

#: Bytes of a key's name, of its AES-256-GCM key, of a nonce, and of the root that rings are derived from.
NAME_LENGTH = 16
KEY_LENGTH = AES_256_GCM.key_length
NONCE_LENGTH = 12
ROOT_LENGTH = 32

#: Keys in one ring, and the shortest and longest epoch, in seconds: a key opens for two of them, and no ticket
#: lives for more than seven days (RFC 8446 section 4.6.1).
MAX_KEYS = 16
MIN_EPOCH = 60
MAX_EPOCH = MAX_TICKET_LIFETIME // 2

_ROOT_SALT = b"locum ticket keys"
_EPOCH_LABEL = b"locum ticket epoch"
_FORMAT = 1
#: Format, cipher suite, time of the authentication in milliseconds; lengths of secret, name and identity.
_HEAD = Struct(">BHQBHH")


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketState:
    """What a session can be resumed from.

    `secret` is the PSK of the ticket (one hash long) or the master secret of TLS 1.2 (48 bytes). `server_name` is
    the SNI, which must be the same again. `peer_identity` is what a client certificate proved, or empty.
    `authenticated_at` is when the last full handshake took place, in seconds since the epoch: resuming does not
    make an authentication any younger.
    """

    suite: CipherSuite
    secret: bytes = field(repr=False)
    server_name: str
    peer_identity: str = ""
    authenticated_at: float

    @property
    def version(self) -> ProtocolVersion:
        """The version of the session."""
        return self.suite.version

    def to_bytes(self) -> bytes:
        """What is sealed; contains the secret."""
        secret, name, identity = self.secret, self.server_name.encode(), self.peer_identity.encode()
        moment = round(self.authenticated_at * 1000)
        head = _HEAD.pack(_FORMAT, self.suite.code, moment, len(secret), len(name), len(identity))
        return b"".join((head, secret, name, identity))

    @classmethod
    def from_bytes(cls, data: bytes) -> TicketState:
        """The inverse of `to_bytes`; DecodeError when `data` is anything else."""
        reader = Reader(data)
        format_, code, moment, *lengths = _HEAD.unpack(reader.block(_HEAD.size))
        secret, name, identity = (reader.block(length) for length in lengths)
        reader.finish()
        suite = CIPHER_SUITES.get(code)
        if format_ != _FORMAT or suite is None:
            raise DecodeError("a ticket of another format, or for an unknown cipher suite")
        if len(secret) != (
            suite.hash.length if suite.version is ProtocolVersion.TLS_1_3 else MASTER_SECRET_LENGTH
        ):
            raise DecodeError(f"a ticket with a secret of {len(secret)} bytes")
        try:
            names = name.decode(), identity.decode()
        except UnicodeDecodeError:
            raise DecodeError("a ticket whose names are not UTF-8") from None
        return cls(
            suite=suite,
            secret=secret,
            server_name=names[0],
            peer_identity=names[1],
            authenticated_at=moment / 1000,
        )


class TicketKey:
    """One AES-256-GCM key and its name: seals from `valid_from` on, opens until `valid_until` (seconds).

    It also opens before `valid_from`, for the clock of a server that sealed with it may be ahead of ours.
    Nonces are random: far fewer than 2^32 tickets are sealed under one key (NIST SP 800-38D section 8.3).
    """

    __slots__ = ("_aead", "name", "valid_from", "valid_until")

    def __init__(self, *, name: bytes, key: bytes, valid_from: float, valid_until: float) -> None:
        if len(name) != NAME_LENGTH or len(key) != KEY_LENGTH:
            raise ConfigurationError(
                f"a ticket key has a name of {NAME_LENGTH} bytes and a key of {KEY_LENGTH}, "
                f"not {len(name)} and {len(key)}"
            )
        if not valid_from < valid_until:
            raise ConfigurationError("a ticket key that is never valid")
        self.name = name
        self.valid_from = valid_from
        self.valid_until = valid_until
        self._aead = AES_256_GCM.new(key)

    def __repr__(self) -> str:
        return f"<TicketKey {self.name.hex()} from {self.valid_from:.0f} until {self.valid_until:.0f}>"

    def seal(self, nonce: bytes, content: bytes, context: bytes) -> bytes:
        """Name, nonce and sealed content; the name and `context` are authenticated with it."""
        return b"".join((self.name, nonce, self._aead.seal(nonce, content, self.name + context)))

    def open(self, ticket: bytes, context: bytes) -> bytes:
        """The inverse of `seal`. Raises: AuthenticationFailed."""
        nonce, sealed = ticket[NAME_LENGTH : NAME_LENGTH + NONCE_LENGTH], ticket[NAME_LENGTH + NONCE_LENGTH :]
        return self._aead.open(nonce, sealed, self.name + context)


class TicketKeys:
    """The ring: seals under the newest key whose time has come, opens under every one that has not expired.

    A connection's configuration refers to it, and it can be given other keys meanwhile (`replace`). Neither
    method ever says why it does nothing: without a ticket there is a full handshake, and that is all.
    """

    __slots__ = ("_by_name", "_keys")

    def __init__(self, keys: Iterable[TicketKey]) -> None:
        self._keys: tuple[TicketKey, ...] = ()
        self._by_name: dict[bytes, TicketKey] = {}
        self.replace(keys)

    def __repr__(self) -> str:
        return f"<TicketKeys {len(self._keys)}>"

    @classmethod
    def derived(cls, root: bytes, epoch_seconds: int, now: float) -> TicketKeys:
        """The keys of the epoch that `now` (seconds since the epoch) is in, and of those before and after it.

        All who have the same `root`, 32 bytes, derive the same keys from it by HKDF (RFC 5869). A key seals for
        one epoch and opens for two, so the ring must be derived again before the next epoch ends. The root is not
        kept: without it, who reads this memory opens the tickets of at most these epochs.
        Raises: ConfigurationError for a root or an epoch of another length.
        """
        if len(root) != ROOT_LENGTH:
            raise ConfigurationError(f"the root of ticket keys has {ROOT_LENGTH} bytes, not {len(root)}")
        if not MIN_EPOCH <= epoch_seconds <= MAX_EPOCH:
            raise ConfigurationError(
                f"an epoch of ticket keys lasts {MIN_EPOCH} to {MAX_EPOCH} seconds, not {epoch_seconds}"
            )
        current = int(now // epoch_seconds)
        secret = hkdf_extract(SHA256, _ROOT_SALT, root)
        return cls(_derived_key(secret, epoch_seconds, epoch) for epoch in (current + 1, current, current - 1))

    def replace(self, keys: TicketKeys | Iterable[TicketKey]) -> None:
        """Take these keys from here on, or those of another ring; what is not among them opens nothing any more.

        Raises: ConfigurationError for more than `MAX_KEYS` keys, or two of the same name.
        """
        found = keys._keys if isinstance(keys, TicketKeys) else tuple(keys)
        by_name = {key.name: key for key in found}
        if len(found) > MAX_KEYS or len(by_name) != len(found):
            raise ConfigurationError(f"give at most {MAX_KEYS} ticket keys, each with a name of its own")
        self._keys = tuple(sorted(found, key=lambda key: key.valid_from, reverse=True))
        self._by_name = by_name

    def lifetime(self, now: float) -> int:
        """For how many whole seconds a ticket sealed at `now` will be opened; 0 when none can be sealed."""
        key = self._sealing_key(now)
        return min(int(key.valid_until - now), MAX_TICKET_LIFETIME) if key is not None else 0

    def seal(self, state: TicketState, *, now: float, nonce: bytes, context: bytes = b"") -> bytes | None:
        """A ticket for `state`, or None when no key is valid at `now`; `nonce` is 12 random bytes.

        `context` tells apart who may open it: under another one, it stays closed.
        """
        key = self._sealing_key(now)
        return key.seal(nonce, state.to_bytes(), context) if key is not None else None

    def open(self, ticket: bytes, *, now: float, context: bytes = b"") -> TicketState | None:
        """The state of a ticket; None when it is unknown, expired, forged or of another context."""
        if not NAME_LENGTH + NONCE_LENGTH < len(ticket) <= MAX_TICKET:
            return None
        key = self._by_name.get(ticket[:NAME_LENGTH])
        if key is None or now >= key.valid_until:
            return None
        try:
            return TicketState.from_bytes(key.open(ticket, context))
        except (AuthenticationFailed, DecodeError):
            return None

    def _sealing_key(self, now: float) -> TicketKey | None:
        for key in self._keys:
            if key.valid_from <= now < key.valid_until:
                return key
        return None


def _derived_key(secret: bytes, epoch_seconds: int, epoch: int) -> TicketKey:
    info = _EPOCH_LABEL + epoch_seconds.to_bytes(4, "big") + epoch.to_bytes(8, "big", signed=True)
    material = hkdf_expand(SHA256, secret, info, NAME_LENGTH + KEY_LENGTH)
    start = epoch * epoch_seconds
    return TicketKey(
        name=material[:NAME_LENGTH],
        key=material[NAME_LENGTH:],
        valid_from=start,
        valid_until=start + 2 * epoch_seconds,
    )
