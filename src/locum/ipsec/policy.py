"""The policy database: which traffic is protected, bypassed or discarded (RFC 4301 section 4.4.1, B4).

Never holds a key, and never looks at more of a packet than its selectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from locum.errors import ConfigurationError
from locum.ipsec.algorithms import EncryptionAlgorithm, IntegrityAlgorithm
from locum.ipsec.sa import Direction, Mode, Protocol
from locum.ipsec.selectors import ANY, MAX_REMEMBERED_FLOWS, Address, Flow, TrafficSelector, flow_matches

#: Rows of a policy database.
MAX_POLICIES = 10_000


class Action(StrEnum):
    """What is done with a packet (B4)."""

    PROTECT = "protect"
    BYPASS = "bypass"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One acceptable combination of algorithms."""

    encryption: EncryptionAlgorithm | None = None
    integrity: IntegrityAlgorithm | None = None
    extended_sequence: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """How traffic is to be protected: what an association for it must be like.

    `tunnel_local` and `tunnel_remote` are the ends of the tunnel; None stands for the packet's own addresses.
    `proposals` are in order of preference.
    """

    protocol: Protocol = Protocol.ESP
    mode: Mode = Mode.TUNNEL
    tunnel_local: Address | None = None
    tunnel_remote: Address | None = None
    proposals: tuple[Proposal, ...] = ()

    def __post_init__(self) -> None:
        if self.mode is Mode.TRANSPORT and (self.tunnel_local or self.tunnel_remote):
            raise ConfigurationError("transport mode has no tunnel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One row: traffic between `local` and `remote`, in both directions, and what is done with it (B4).

    A direction of its own restricts the row to it. Raises: ConfigurationError.
    """

    name: str
    action: Action
    local: tuple[TrafficSelector, ...] = ANY
    remote: tuple[TrafficSelector, ...] = ANY
    direction: Direction | None = None
    protection: Protection | None = None

    def __post_init__(self) -> None:
        if (self.action is Action.PROTECT) != (self.protection is not None):
            raise ConfigurationError(f"policy {self.name}: only `protect` says how, and it must")
        if not self.local or not self.remote:
            raise ConfigurationError(f"policy {self.name}: no traffic selectors")

    def matches(self, flow: Flow, direction: Direction) -> bool:
        """True when this row speaks of `flow` in `direction`."""
        if self.direction is not None and self.direction is not direction:
            return False
        here, there = (self.local, self.remote) if direction is Direction.OUT else (self.remote, self.local)
        return flow_matches(flow, here, there)


#: What holds where no row matches (RFC 4301 section 4.4.1).
DISCARD_THE_REST = Policy(name="default", action=Action.DISCARD)


class PolicyDatabase:
    """Rows in order; the first that matches decides.

    Remembers the verdicts of at most `MAX_REMEMBERED_FLOWS` flows. Raises: ConfigurationError for more than
    `MAX_POLICIES` rows, or two with one name.
    """

    def __init__(self, policies: Iterable[Policy] = (), *, default: Policy = DISCARD_THE_REST) -> None:
        self._default = default
        self._rows: tuple[Policy, ...] = ()
        self._remembered: dict[tuple[Flow, Direction], Policy] = {}
        #: goes up whenever the rows change
        self.generation = 0
        self.replace(policies)

    def __iter__(self) -> Iterator[Policy]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def replace(self, policies: Iterable[Policy]) -> None:
        """Put these rows in the place of all others, at once."""
        rows = tuple(policies)
        if len(rows) > MAX_POLICIES:
            raise ConfigurationError(f"{len(rows)} policies, more than {MAX_POLICIES}")
        if len({row.name for row in rows}) != len(rows):
            raise ConfigurationError("two policies have the same name")
        self._rows = rows
        self._remembered.clear()
        self.generation += 1

    def lookup(self, flow: Flow, direction: Direction) -> Policy:
        """The row that decides about `flow`, a packet in `direction`."""
        key = flow, direction
        policy = self._remembered.get(key)
        if policy is None:
            policy = next((row for row in self._rows if row.matches(flow, direction)), self._default)
            if len(self._remembered) >= MAX_REMEMBERED_FLOWS:
                self._remembered.clear()
            self._remembered[key] = policy
        return policy
