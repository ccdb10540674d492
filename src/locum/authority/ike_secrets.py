"""Which pre-shared key, and which post-quantum one, goes with a terminal and a peer (RFC 7296 2.15, RFC 8784).

Knows secrets and for whom they are; never what is made of them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import field
from functools import lru_cache

from locum.authority.databases import ANY, PostquantumSecret, SharedSecret
from locum.authority.ike_identities import Identification, identification_of
from locum.errors import ConfigurationError
from locum.ike.algorithms import Prf
from locum.ike.keying2 import padded_secret
from locum.patterns import PeerPattern, parse_pattern
from locum.values import dataclass

#: RFC 8784 section 5.1: the type of a PPK_IDENTITY that names a key that stays the same, and the longest name.
_FIXED = 2
MAX_PPK_IDENTIFIER = 256
_CACHED = 1024


@dataclass(frozen=True, slots=True)
class KnownSecret:
    """A pre-shared key ready for use; `local` is who the terminal is to say it is, None for whom it likes."""

    peer: PeerPattern
    secret: bytes = field(repr=False)
    local: Identification | None = None
    #: what AUTH is made with, by PRF
    _padded: dict[int, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)

    def auth(self, prf: Prf, octets: bytes) -> bytes:
        """The AUTH data of IKEv2 that proves to know it (RFC 7296 section 2.15)."""
        key = self._padded.get(prf.id)
        if key is None:
            key = self._padded[prf.id] = padded_secret(prf, self.secret)
        return prf(key, octets)

    def proves(self, claimed: str, address: str) -> str:
        """The identity proven by knowing this key, for a peer that claims to be `claimed` and is at `address`.

        That is the claim where the key is for it. A key for an address proves nothing but the address. Empty
        when the key is for neither.
        """
        if claimed and self.peer.matches(claimed):
            return claimed
        return address_identity(address) if self.peer.matches("", address) else ""


@lru_cache(_CACHED)
def address_identity(address: str) -> str:
    """``ip:`` and the address in its normal form; empty when it is none."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return f"ip:{mapped or parsed}"


#: More than any `_distance` of a key that fits.
_NOT_AT_ALL = 4


def _distance(peer: PeerPattern, claimed: str, address: str) -> int:
    """How closely a key for `peer` fits somebody who claims to be `claimed`, at `address`; 0 is the closest."""
    if peer.kind == ANY:
        return 3
    if claimed and peer.matches(claimed):
        return 0 if peer.is_identity else 1
    return 2 if peer.matches("", address) else _NOT_AT_ALL


class SharedSecrets:
    """The pre-shared keys. Raises: ConfigurationError when a row has no secret or an identity that is none."""

    def __init__(self, secrets: Iterable[SharedSecret]) -> None:
        self._by_terminal: dict[str, list[KnownSecret]] = {}
        for row in secrets:
            if not row.secret:
                raise ConfigurationError(f"the pre-shared key of {row.terminal!r} with {row.peer!r} is empty")
            local = identification_of(row.local_identity) if row.local_identity else None
            known = KnownSecret(parse_pattern(row.peer), row.secret, local)
            self._by_terminal.setdefault(row.terminal, []).append(known)
        self._find_once = lru_cache(_CACHED)(self._find)

    def find(self, terminal: str, claimed: str, address: str, *, local: str = "") -> KnownSecret | None:
        """The key for the peer that claims, or is wanted, to be `claimed` (empty: unknown), or is at `address`.

        A key for the identity alone comes before one for several, that before one for the address, and one for
        everybody is the last: who has that one must not pass for a peer that has its own. Of equals a terminal's
        own comes before one for all. One that is for another own identity than `local` (empty: any) is none.
        """
        return self._find_once(terminal, claimed, address, local)

    def _find(self, terminal: str, claimed: str, address: str, local: str) -> KnownSecret | None:
        found: KnownSecret | None = None
        least = _NOT_AT_ALL
        for row in self._of(terminal, local):
            distance = _distance(row.peer, claimed, address)
            if distance < least:
                found, least = row, distance
        return found

    def only(self, terminal: str, *, local: str = "") -> KnownSecret | None:
        """The terminal's key where it has just one: main mode must know it before the peer says who it is."""
        rows = list(self._of(terminal, local))
        return rows[0] if len(rows) == 1 else None

    def _of(self, terminal: str, local: str) -> Iterator[KnownSecret]:
        for name in (terminal, ANY):
            for row in self._by_terminal.get(name, ()):
                if not local or row.local is None or row.local.text == local:
                    yield row


@dataclass(frozen=True, slots=True)
class KnownPpk:
    """A PPK ready for use; `identity` is the content of PPK_IDENTITY."""

    identity: bytes
    secret: bytes = field(repr=False)
    required: bool


class PostquantumSecrets:
    """The PPKs. Raises: ConfigurationError when a row is empty or has too long an identifier."""

    def __init__(self, secrets: Iterable[PostquantumSecret]) -> None:
        self._by_terminal: dict[str, list[tuple[PeerPattern, KnownPpk]]] = {}
        for row in secrets:
            name = row.identifier.encode()
            if not row.secret or not 0 < len(name) <= MAX_PPK_IDENTIFIER:
                raise ConfigurationError(
                    f"the PPK {row.identifier[:80]!r} needs a secret and a name of 1 to {MAX_PPK_IDENTIFIER} bytes"
                )
            known = KnownPpk(bytes((_FIXED,)) + name, row.secret, row.required)
            self._by_terminal.setdefault(row.terminal, []).append((parse_pattern(row.peer), known))

    def all_for(self, terminal: str, identity: str, address: str) -> tuple[KnownPpk, ...]:
        """The PPKs for this terminal and this peer (`identity` empty: unknown), the terminal's own first."""
        return tuple(
            known
            for name in (terminal, ANY)
            for pattern, known in self._by_terminal.get(name, ())
            if pattern.matches(identity, address)
        )
