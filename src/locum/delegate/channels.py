"""The cipher-key database as the link needs it (A4, A5): channel keys by kid, and sequence numbers in stock.

Never knows what travels in a channel, and never makes the link wait for a locked database if it can be foreseen.

A database that cannot be read leaves everybody served whose key is at hand; nobody is let in unseen. A database
that cannot be written leaves everybody served for whom there are numbers in stock; without a number the delegate
cannot challenge a terminal that it does not know to be fresh, and is silent rather than use a nonce twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from locum.delegate.limits import RateLimiter, RateLimits
from locum.errors import ConfigurationError, LocumError, Refused, Unavailable
from locum.link.oscore import Credential
from locum.store.records import Channel, Terminal

log = logging.getLogger(__name__)

#: Sequence numbers in one block of the stock, and the most of them that one answer to the link may need.
BLOCK = 256
#: Terminals for which a block is kept in stock; the others' numbers are fetched when they are needed.
STOCKED_TERMINALS = 256
#: Seconds after a failed write during which the link is told so at once instead of trying again.
WRITE_PAUSE = 10.0
#: The same for reads. A database that is away must not make every message wait for it.
READ_PAUSE = 2.0
#: Kids that are not in the last list read from the database and are looked up there all the same, per second: a
#: terminal enrolled a moment ago is served at once, and made-up kids do not keep the database busy.
UNKNOWN_LOOKUPS = RateLimits(rate=20.0, burst=40.0)


class ChannelStore(Protocol):
    """The part of the store's terminals that is needed here."""

    def find_channel(self, kid: bytes) -> Channel | None: ...

    def reserve(self, kid: bytes, count: int) -> int: ...


class Channels:
    """The enrolled and enabled terminals with their keys; a `link.contexts.CredentialSource`.

    `restock` may be called from another thread than everything else, which is called from one.
    `clock` never runs backwards, in seconds.
    """

    def __init__(self, store: ChannelStore, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._names: dict[bytes, str] = {}
        self._served: set[str] = set()
        self._credentials: dict[bytes, tuple[str, Credential]] = {}
        self._stock: dict[bytes, int] = {}
        self._lookups = RateLimiter(UNKNOWN_LOOKUPS)
        self._unusable: set[bytes] = set()
        self._read_again = self._write_again = 0.0
        self._failing = False

    def serves(self, terminal: str) -> bool:
        """True when a terminal of this name is enrolled and enabled."""
        return terminal in self._served

    def find(self, kid: bytes) -> tuple[str, Credential] | None:
        """The name and credential of the enabled terminal with this kid, or None.

        Raises: LocumError when they must come from the database and cannot.
        """
        known = self._credentials.get(kid)
        if known is not None:
            return known
        if kid in self._unusable or (kid not in self._names and self._lookups.take("", self._clock())):
            return None
        return self._look_up(kid)

    def reserve(self, kid: bytes, count: int) -> int:
        """The first of `count` numbers that were never used. Raises: LocumError when there are none to be had."""
        if count <= BLOCK:
            first = self._stock.pop(kid, None)
            if first is not None:
                return first
        if self._clock() < self._write_again:
            raise Unavailable("no sequence numbers: the database cannot be written")
        return self._reserve(kid, count)

    def use(self, terminals: Iterable[Terminal]) -> None:
        """Go by this list of terminals from now on."""
        names = {terminal.kid: terminal.name for terminal in terminals if terminal.enabled}
        self._credentials = {kid: found for kid, found in self._credentials.items() if kid in names}
        self._names = names
        self._served = set(names.values())
        self._unusable.clear()
        for kid in frozenset(self._stock) - names.keys():
            self._stock.pop(kid, None)

    def restock(self) -> None:
        """Fetch a block of numbers for every terminal that has none in stock, up to `STOCKED_TERMINALS`."""
        if self._clock() < self._write_again:
            return
        for kid in self._wanting():
            try:
                self._stock[kid] = self._reserve(kid, BLOCK)
            except Refused:
                continue  # removed a moment ago, or out of numbers: the others still want theirs
            except LocumError:
                return  # `_reserve` has said so already

    def _wanting(self) -> Sequence[bytes]:
        stocked = frozenset(self._stock)
        return [kid for kid in self._names if kid not in stocked][: max(0, STOCKED_TERMINALS - len(stocked))]

    def _look_up(self, kid: bytes) -> tuple[str, Credential] | None:
        if self._clock() < self._read_again:
            raise Unavailable("no channel key: the database cannot be read")
        try:
            channel = self._store.find_channel(kid)
        except ConfigurationError as error:
            # Somebody must see to it; until the databases change, asking again would only fill the log.
            if kid in self._names:
                self._unusable.add(kid)
            log.error("channel key cannot be used", extra={"kid": kid.hex(), "error": str(error)})
            return None
        except LocumError:
            self._read_again = self._clock() + READ_PAUSE
            raise
        if channel is None:
            return None
        found = (
            channel.terminal,
            Credential(
                kid=channel.kid,
                peer_id=channel.delegate_id,
                secret=channel.secret,
                salt=channel.salt,
                algorithm=channel.algorithm,
            ),
        )
        self._credentials[kid] = found
        self._served.add(channel.terminal)
        return found

    def _reserve(self, kid: bytes, count: int) -> int:
        try:
            first = self._store.reserve(kid, count)
        except Refused:
            raise
        except LocumError as error:
            self._write_again = self._clock() + WRITE_PAUSE
            if not self._failing:
                self._failing = True
                log.error(
                    "sequence numbers cannot be reserved; terminals that must be challenged are turned away",
                    extra={"error": str(error)},
                )
            raise
        if self._failing:
            self._failing = False
            log.warning("sequence numbers can be reserved again")
        return first
