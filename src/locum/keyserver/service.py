"""What all connections of a key server share: the state that they go by, and who may do what by it (X3).

Never touches a socket, a file or a clock. Every request is judged by the newest state of the databases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from locum.keyserver.grants import Grant
from locum.keyserver.journal import Journal
from locum.keyserver.keyring import CertificateNames, Keyring
from locum.keyserver.limits import Bucket, Limits
from locum.keyserver.shared import SharedSecrets
from locum.store.records import Edge

#: Why a fingerprint that no edge has may not ask.
UNKNOWN = "no such edge"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class State:
    """The databases as of one moment, ready for use. `edges` go by the fingerprint of their certificate."""

    generation: int
    edges: Mapping[str, Edge]
    keyring: Keyring
    certificates: CertificateNames
    secrets: SharedSecrets = field(repr=False)


@dataclass(slots=True)
class Counters:
    """What has happened since the start: of requests, and of what became of them."""

    connections: int = 0
    turned_away: int = 0
    requests: int = 0
    performed: int = 0
    refused: int = 0
    failed: int = 0


class KeyService:
    """One for all connections of a process. Without `use` nobody may do anything.

    `now` gives seconds since the epoch, `clock` never runs backwards; `random` gives as many bytes as are wanted.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        limits: Limits,
        now: Callable[[], float],
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        legacy_hashes: bool = False,
    ) -> None:
        self.journal = journal
        self.limits = limits
        self.now = now
        self.clock = clock
        self.random = random
        self.counters = Counters()
        #: True while the databases have not been read for so long that a revocation could have been missed.
        self.suspended = False
        self._legacy_hashes = legacy_hashes
        self._state: State | None = None
        self._grants: dict[str, Grant] = {}
        self._buckets: dict[str, Bucket] = {}

    @property
    def state(self) -> State:
        """The newest state. There must be one."""
        assert self._state is not None
        return self._state

    def use(self, state: State) -> None:
        """Go by `state` from now on, on every connection."""
        self.journal.forget()
        self._state = state
        self._grants.clear()
        names = {edge.name for edge in state.edges.values()}
        for name in self._buckets.keys() - names:
            del self._buckets[name]

    def grant(self, fingerprint: str) -> Grant | None:
        """The permissions of whoever shows a certificate with this fingerprint; None for a stranger."""
        found = self._grants.get(fingerprint)
        if found is None and self._state is not None:
            edge = self._state.edges.get(fingerprint)
            if edge is not None:
                found = self._grants[fingerprint] = Grant(
                    edge, self._state.keyring, self._state.certificates, legacy_hashes=self._legacy_hashes
                )
        return found

    def objection(self, fingerprint: str) -> tuple[str, str]:
        """Who shows this certificate, and why he may not connect; an empty reason when he may."""
        grant = self.grant(fingerprint)
        if grant is None:
            return fingerprint, UNKNOWN
        return grant.edge.name, grant.may_connect(self.now())

    def bucket(self, edge: Edge) -> Bucket:
        """How much the edge may ask now, whichever connection it uses."""
        rate = edge.rate or self.limits.rate
        found = self._buckets.get(edge.name)
        if found is None:
            found = self._buckets[edge.name] = Bucket(rate, self.clock())
        else:
            found.change(rate)
        return found
