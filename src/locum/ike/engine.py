"""An IKE SA as its driver sees it, whichever the version: datagrams, operations, timers and events, no I/O.

Never knows a payload. `v1` and `v2` derive from `IkeSa`; `endpoint` finds the SA that a datagram belongs to.

A driver, after every call, sends what `Endpoint.transmit` gives, acts on `Endpoint.events`, has the operations
performed that `IkeSa.pending` of the SAs in `Endpoint.waiting` name, and calls `expire` when `next_timeout` says.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import field
from enum import Enum, auto
from weakref import ref

from locum.errors import LocumError
from locum.handshake import Request, Response
from locum.ike.configuration import Connection
from locum.ike.header import Header
from locum.ike.suites import ChildSuite
from locum.ipsec.sa import SecurityAssociation
from locum.ipsec.selectors import Address
from locum.values import dataclass

#: The two ports of IKE: plain, and with a non-ESP marker before every message (RFC 3948, RFC 7296 section 2.23).
IKE_PORT = 500
NAT_PORT = 4500


@dataclass(frozen=True, slots=True)
class Path:
    """Both ends of a datagram's way, as seen from here."""

    local: Address
    local_port: int
    remote: Address
    remote_port: int

    @property
    def marked(self) -> bool:
        """True when messages on this path have the non-ESP marker: neither port is 500."""
        return IKE_PORT not in (self.local_port, self.remote_port)


@dataclass(frozen=True, slots=True)
class Datagram:
    """An IKE message to be sent, without the non-ESP marker that the driver puts before it where `path.marked`.

    `nat.KEEPALIVE` is sent as it is.
    """

    path: Path
    message: bytes = field(repr=False)


class State(Enum):
    """How far along an IKE SA is."""

    CONNECTING = auto()
    ESTABLISHED = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Child:
    """A CHILD_SA, or what quick mode made: one association in each direction."""

    inbound: SecurityAssociation
    outbound: SecurityAssociation
    suite: ChildSuite


# --- events -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to `sa`."""

    sa: IkeSa = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Established(Event):
    """The peer is authentic and allowed, and the IKE SA may be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEstablished(Event):
    """Associations to be installed; `replaced` is the CHILD_SA that they take over from, deleted later."""

    child: Child
    replaced: Child | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildClosed(Event):
    """Associations to be removed."""

    child: Child
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildFailed(Event):
    """A CHILD_SA was not made, or no successor of `replaced`, which goes on meanwhile; the IKE SA is unharmed."""

    error: LocumError
    replaced: Child | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rekeyed(Event):
    """`sa` has taken over from `replaced`, and has its children."""

    replaced: IkeSa = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PathChanged(Event):
    """The peer is reached otherwise: each child in `moved` is replaced by the one beside it."""

    moved: tuple[tuple[Child, Child], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed(Event):
    """The IKE SA is over, its children were closed before. `error` is None when it was ended in order."""

    error: LocumError | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagePassed(Event):
    """A message that was sent or accepted: ``IKE_AUTH request: IDi, CERT, AUTH, SA, TSi, TSr``, for people."""

    outgoing: bool
    description: str
    length: int


# --- the SA -----------------------------------------------------------------------------------------------


def _nobody(sa: IkeSa) -> None:
    """An SA without an endpoint has nobody to tell."""


class Part:
    """A part of an SA, which refers back to it weakly: an SA that is over is gone, and waits for no collector."""

    __slots__ = ("_owner",)

    def __init__(self, sa: IkeSa) -> None:
        self._owner = ref(sa)

    @property
    def sa(self) -> IkeSa:
        """The SA that this is a part of, and without which it is of no use."""
        sa = self._owner()
        assert sa is not None
        return sa


class IkeSa(ABC):
    """One IKE SA, or ISAKMP SA.

    All times are in seconds of one clock that never runs backwards. Bad input raises nothing: it is counted,
    answered where that is right, and logged nowhere; an SA that ends does so with a `Closed` event.
    """

    __slots__ = (
        "__weakref__",
        "_random",
        "_reserve_spi",
        "algorithms",
        "begun",
        "connection",
        "dropped",
        "events",
        "initial_contact",
        "initiator",
        "observed",
        "outgoing",
        "path",
        "peer_identity",
        "pending",
        "session",
        "state",
        "touched",
    )

    def __init__(
        self,
        connection: Connection,
        path: Path,
        *,
        initiator: bool,
        random: Callable[[int], bytes],
        reserve_spi: Callable[[], int],
        observed: bool = False,
    ) -> None:
        """`reserve_spi` gives SPIs for inbound associations; `observed` asks for `MessagePassed` events."""
        self.connection = connection
        self.path = path
        self.initiator = initiator
        self.state = State.CONNECTING
        self.observed = observed
        #: who the peer has proven to be, in the form of a verdict; empty before
        self.peer_identity = ""
        #: INITIAL_CONTACT: an initiator says that it has no other SA with this peer, set by the endpoint before
        #: `start`; a responder has heard so, and its endpoint forgets others with `peer_identity`
        self.initial_contact = False
        #: the algorithms agreed on, for people
        self.algorithms = ""
        #: operations that wait for an authority
        self.pending: tuple[Request, ...] | None = None
        #: which of this SA's sessions with the authority they belong to: several exchanges may be under way, each
        #: with a session of its own, which an `Opening` begins under a number that was not used before
        self.session = 0
        #: drained by the endpoint
        self.outgoing: list[Datagram] = []
        self.events: list[Event] = []
        #: SAs that this one has begun, drained by the endpoint, which looks after them from then on (IKEv1: a
        #: reauthentication is an SA of its own from its first message; it says `Rekeyed` when it has taken over)
        self.begun: list[IkeSa] = []
        #: the endpoint's, which thereby looks at this SA again: every method that a driver calls by itself,
        #: `answer`, `fail` and those from `create_child` on, ends with ``self.touched(self)``
        self.touched: Callable[[IkeSa], None] = _nobody
        #: messages dropped: not authentic, out of turn, malformed
        self.dropped = 0
        self._random = random
        self._reserve_spi = reserve_spi

    def forget(self, reason: str) -> None:
        """Be over at once, without a word to the peer: it has begun anew, or does not know this SA any more."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self.pending = None
        self.events += [ChildClosed(sa=self, child=child, reason=reason) for child in self.children]
        self.events.append(Closed(sa=self, error=None, reason=reason))

    @property
    @abstractmethod
    def own_spi(self) -> bytes:
        """Our SPI or cookie, 8 bytes: what the endpoint finds this SA by."""

    @property
    @abstractmethod
    def peer_spi(self) -> bytes:
        """The peer's SPI or cookie, zero while it is not known."""

    @property
    @abstractmethod
    def children(self) -> tuple[Child, ...]:
        """The CHILD_SAs that are in force, those about to be deleted included."""

    @abstractmethod
    def start(self, *, now: float) -> None:
        """Initiator: begin."""

    @abstractmethod
    def receive(self, header: Header, message: bytes, path: Path, *, now: float) -> None:
        """Take a whole message with one of this SA's SPIs, parsed as far as its header."""

    @abstractmethod
    def answer(self, responses: tuple[Response, ...], *, now: float) -> None:
        """The answers to `pending`."""

    @abstractmethod
    def fail(self, error: LocumError, *, now: float) -> None:
        """`pending` was not performed."""

    @abstractmethod
    def next_timeout(self) -> float | None:
        """When `expire` is due; None for never."""

    @abstractmethod
    def expire(self, *, now: float) -> None:
        """Do what is due: send again, rekey, ask for a sign of life, give up."""

    @abstractmethod
    def create_child(self, *, now: float) -> None:
        """Make another CHILD_SA for the connection's traffic."""

    @abstractmethod
    def rekey_child(self, child: Child, *, now: float) -> None:
        """Make a successor of `child`, then delete it."""

    @abstractmethod
    def rekey(self, *, now: float) -> None:
        """Make a successor of this SA, which inherits its children; in IKEv1, authenticate anew."""

    @abstractmethod
    def close_child(self, child: Child, *, now: float) -> None:
        """Delete `child` at both ends."""

    @abstractmethod
    def close(self, *, now: float) -> None:
        """Delete this SA at both ends. IKEv2 waits for the answer, for a short time."""

    @abstractmethod
    def check_liveness(self, *, now: float) -> None:
        """Ask the peer for a sign of life."""
