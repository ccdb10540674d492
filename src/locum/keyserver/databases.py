"""The databases of a key server: read at one moment, used until they have changed (X3, X6).

Never writes to the store. Keys are made ready for use once, and kept for as long as they are in the store.

When the store cannot be read, what was read last stays in force: a broken disk stops no handshake. As nobody can
be cut off meanwhile, that is over after `STALE_SECONDS`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.serialization import load_der_private_key

from locum.defects import whereabouts
from locum.errors import ConfigurationError, LocumError, Unavailable
from locum.keys.file import FileKey
from locum.keyserver.keyring import CertificateNames, HeldKey, Keyring, held_here
from locum.keyserver.service import State
from locum.keyserver.shared import SharedSecrets
from locum.store import Store
from locum.store.records import KeyServerSnapshot, StoredKey

log = logging.getLogger(__name__)

#: Seconds without a look at the store after which nothing is performed any more.
STALE_SECONDS = 3600.0

#: Seconds until a token that was not there is looked for again.
TOKEN_SECONDS = 10.0

#: Makes the key of a row whose private key is in a token.
OpenToken = Callable[[StoredKey], HeldKey]


class Databases:
    """The newest state of the store, with keys that are elsewhere beside those in it.

    Everything but `others` may run in another thread than the rest of the program, one call at a time. `clock`
    never runs backwards, in seconds.
    """

    def __init__(self, store: Store, *, open_token: OpenToken, clock: Callable[[], float]) -> None:
        self._store = store
        self._open_token = open_token
        self._clock = clock
        #: By the row's number and its key's SKI: neither is ever given to another key.
        self._ready: dict[tuple[int, bytes], HeldKey] = {}
        self._snapshot: KeyServerSnapshot | None = None
        self._used: tuple[HeldKey, ...] = ()
        self._read_at = clock()
        self._failing = False
        #: When to look for tokens again that were not there.
        self._token_due: float | None = None
        #: Keys from elsewhere: a directory, other key servers. To be replaced as a whole.
        self.others: tuple[HeldKey, ...] = ()

    @property
    def outdated(self) -> bool:
        """True when the store has not answered for so long that nothing may be performed."""
        return self._clock() - self._read_at > STALE_SECONDS

    def read(self) -> State:
        """Read everything. Raises: LocumError when the store fails or holds what nobody can work with."""
        snapshot = self._store.key_server_snapshot()
        self._snapshot = snapshot
        self._read_at = self._clock()
        return self._state(snapshot)

    def poll(self) -> State | None:
        """What there is now if it has changed, else None. Raises nothing: a failure is logged once."""
        try:
            snapshot = self._snapshot
            if snapshot is not None and self._store.generation() == snapshot.generation:
                self._read_at = self._clock()
                self._recovered()
                missing = self._token_due is not None and self._token_due <= self._clock()
                return self._state(snapshot) if missing or self.others != self._used else None
            state = self.read()
        except LocumError as error:
            if not self._failing:
                self._failing = True
                log.error("databases cannot be read; the last state stays in force", extra={"error": str(error)})
            return None
        self._recovered()
        log.info("databases read", extra={"generation": state.generation, "keys": len(state.keyring.keys)})
        return state

    def _recovered(self) -> None:
        if self._failing:
            self._failing = False
            log.warning("databases can be read again")

    def _state(self, snapshot: KeyServerSnapshot) -> State:
        self._used = self.others
        certificates = CertificateNames(snapshot.certificates)
        return State(
            generation=snapshot.generation,
            edges={edge.fingerprint: edge for edge in snapshot.edges},
            keyring=Keyring((*self._keys(snapshot.keys), *self._used), certificates),
            certificates=certificates,
            secrets=SharedSecrets(snapshot.ticket_root),
        )

    def _keys(self, stored: Sequence[StoredKey]) -> list[HeldKey]:
        self._token_due = None
        ready = {}
        for row in stored:
            known = self._ready.get((row.id, row.ski)) or self._prepared(row)
            if known is not None:
                ready[row.id, row.ski] = known
        self._ready = ready
        return list(ready.values())

    def _prepared(self, row: StoredKey) -> HeldKey | None:
        """The key of a row, ready for use; None, and a line in the log, when it cannot be used."""
        try:
            if row.private_key is None:
                return self._open_token(row)
            key = FileKey(load_der_private_key(row.private_key, None))
            if key.public_key != row.public_key:
                raise ConfigurationError("the private key does not belong to the public key")
            return held_here(row.name, key)
        except LocumError as error:
            if isinstance(error, Unavailable):
                self._token_due = self._clock() + TOKEN_SECONDS
            log.error("key cannot be used", extra={"key": row.name, "error": str(error)})
        except (ValueError, TypeError) as error:
            # The text of a library's error about a key is not ours to log.
            log.error("key cannot be used", extra={"key": row.name} | whereabouts(error))
        return None
