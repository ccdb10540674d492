"""What one IKEv2 SA knows: the state that its exchanges read and change, and what follows from a change.

Never runs an exchange, sends a datagram or looks at a clock: `sa` does, and says what time it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, Protocol
from weakref import ReferenceType

from locum.errors import LocumError
from locum.ike.allowance import Allowance, for_further_exchanges
from locum.ike.children import ChildTerms, child_on, host_selector, make_child
from locum.ike.configuration import FRAGMENT_SIZE, FRAGMENT_SIZE_IPV4, Connection
from locum.ike.engine import (
    NAT_PORT,
    ChildClosed,
    ChildEstablished,
    ChildFailed,
    Established,
    Event,
    IkeSa,
    Path,
    PathChanged,
    State,
)
from locum.ike.keying2 import IkeKeys
from locum.ike.nat import detection_hash
from locum.ike.operations import Exchange, IkeStartRequest
from locum.ike.payloads2 import Delete, Notify, Payload
from locum.ike.registry import NotifyType2
from locum.ike.suites import ChildKeys, IkeSuite
from locum.ike.traffic_selectors import TrafficSelector
from locum.ike.v2.channel import Channel, DirectionalKeys
from locum.ike.v2.entries import Children, Entry
from locum.ike.v2.messages import Content
from locum.ike.v2.steps import Task
from locum.values import dataclass

#: Bytes of our nonces: half the longest PRF's key, and more than the 128 bits that RFC 7296 section 2.10 asks for.
NONCE_LENGTH = 32

#: What has failed is tried again after so many seconds, a half more or less at random, then twice that, and so on.
RETRY_AFTER = 3.0
MAX_DOUBLINGS = 6


class Successor(Protocol):
    """An IKE SA that a rekeying made. It is unannounced, and has no children, until it takes over."""

    def take_over(self, *, now: float) -> None:
        """Have the children, and say so."""
        ...

    def retire(self, *, now: float) -> None:
        """It is redundant and was made by us: delete it at both ends, without a word to the driver."""
        ...


class Succession(Protocol):
    """Makes a successor of an SA."""

    def __call__(
        self, sa: Any, /, suite: IkeSuite, keys: IkeKeys, *, own_spi: bytes, peer_spi: bytes, initiator: bool
    ) -> Successor:
        """`initiator` says whether we began the exchange that made the keys."""
        ...


@dataclass(frozen=True, slots=True)
class End:
    """The SA is to end: what the driver is told, and what the peer is told first, if anything.

    Somebody who is in a `hurry` waits for the peer's answer for a short time only.
    """

    error: LocumError | None
    reason: str
    farewell: tuple[Payload, ...] = ()
    hurry: bool = False


@dataclass(slots=True, eq=False)
class Rekeying:
    """A rekeying of the IKE SA that we have begun, and what the peer made meanwhile (RFC 7296 section 2.8.2)."""

    rival: Successor | None = None
    rival_nonce: bytes = field(default=b"", repr=False)


@dataclass(eq=False, slots=True)
class Core:
    """One IKE SA, whose path, connection and events are its owner's; `now` is the moment of the call at hand."""

    #: weak: see `engine.Part`
    owner: ReferenceType[IkeSa]
    #: whether we are the SA's original initiator
    initiator: bool
    channel: Channel
    random: Callable[[int], bytes] = field(repr=False)
    reserve_spi: Callable[[], int]
    succession: Succession
    now: float = 0.0
    suite: IkeSuite | None = None
    sk_d: bytes = field(default=b"", repr=False)
    children: Children = field(default_factory=Children)
    #: when a successor of the SA is made, None for never, and when it is over at the latest
    rekey_at: float | None = None
    ends_at: float | None = None
    #: who is behind a NAT, or wants to be taken for it
    nat_here: bool = False
    nat_there: bool = False
    #: the peer takes the SA for established, and must be told if we do not
    peer_established: bool = False
    rekeying: Rekeying | None = None
    #: key exchanges that the peer may begin, under this SA and its successors together
    further: Allowance = field(default_factory=for_further_exchanges)
    #: exchanges of ours, under way, that make or delete CHILD_SAs
    child_exchanges: int = 0
    #: set by an exchange after which the SA ends
    end: End | None = None
    #: we have said, or are about to say, that the SA ends
    closing: bool = False
    #: what the peer deleted while an exchange of ours was making, or deleting, CHILD_SAs: protocol and its SPI
    deleted_early: set[tuple[int, bytes]] = field(default_factory=set)
    #: the SA that took over; the peer is to delete this one, or we are
    successor: Successor | None = None
    #: half-made CHILD_SAs that the peer has and we have not
    unwanted: list[Delete] = field(default_factory=list)
    #: exchanges in a row that made nothing
    failures: int = 0
    #: exchanges that are begun again, and when
    later: list[tuple[float, Callable[[Core], Task]]] = field(default_factory=list)

    @property
    def sa(self) -> IkeSa:
        """The SA, and without it this is of no use."""
        sa = self.owner()
        assert sa is not None
        return sa

    @property
    def connection(self) -> Connection:
        """What is wanted."""
        return self.sa.connection

    @property
    def path(self) -> Path:
        """Both ends, the peer's as far as is known."""
        return self.sa.path

    @property
    def negotiated(self) -> IkeSuite:
        """The algorithms, known from IKE_SA_INIT on."""
        assert self.suite is not None
        return self.suite

    def emit(self, event: Event) -> None:
        """Tell the driver."""
        self.sa.events.append(event)

    def start_request(
        self, exchange: Exchange, *, initiator: bool, sa: bytes = b"", group: int = 0
    ) -> IkeStartRequest:
        """The opening of a session with the authority; a further one is for whom the peer has proven to be."""
        further, connection = exchange is Exchange.FURTHER, self.connection
        return IkeStartRequest(
            exchange=exchange,
            initiator=initiator,
            sa=sa,
            group=group,
            peer_address=str(self.path.remote),
            local_identity=connection.local_identity,
            remote_identity=self.sa.peer_identity if further else connection.remote_identity,
        )

    def use_keys(self, material: bytes, *, after_response: bool = False) -> None:
        """Protect messages by SK_ai, SK_ar, SK_ei, SK_er. Raises: DecodeError for a wrong length."""
        keys = DirectionalKeys.cut(self.negotiated, material)
        self.channel.use(self.negotiated, keys, after_response=after_response)

    def establish(self, identity: str) -> None:
        """The peer is authentic and allowed: the SA is in force."""
        sa = self.sa
        sa.peer_identity = identity
        sa.algorithms = str(self.negotiated)
        sa.state = State.ESTABLISHED
        self.begin_life()
        self.emit(Established(sa=sa))

    # --- times --------------------------------------------------------------------------------------------

    def fraction(self) -> float:
        """A random number from 0 up to, not including, 1."""
        return int.from_bytes(self.random(4), "big") / (1 << 32)

    def begin_life(self) -> None:
        """Count the lifetime of the SA from now."""
        lifetime = self.connection.timing.ike_lifetime
        self.rekey_at, self.ends_at = self.rekey_moment(lifetime), self.now + lifetime

    def rekey_moment(self, lifetime: float) -> float | None:
        """When to make a successor of what lives `lifetime` seconds from now; None where there can be none."""
        connection = self.connection
        if connection.keys_from_authority:
            return None
        margin = connection.timing.margin * (1 - self.fraction() / 2)
        return self.now + lifetime * (1 - margin)

    def retry_moment(self) -> float:
        """When to try again what has failed: at random, for both ends may have collided, and ever later."""
        wait = RETRY_AFTER * (1 << min(self.failures, MAX_DOUBLINGS))
        self.failures += 1
        return self.now + wait * (0.5 + self.fraction())

    def succeed(self, successor: Successor) -> None:
        """Hand everything over to the SA that a rekeying made."""
        self.successor = successor
        self.rekey_at = self.ends_at = None
        successor.take_over(now=self.now)

    # --- the way ------------------------------------------------------------------------------------------

    @property
    def encapsulated(self) -> bool:
        """True when ESP must travel in UDP."""
        return self.nat_here or self.nat_there

    def nat_notifies(self, *, response: bool) -> tuple[Payload, Payload]:
        """What lets the peer find NATs (RFC 7296 section 2.23); a random source makes it believe in one."""
        header, path = self.channel.header(0, 0, response=response), self.path
        if self.connection.force_encapsulation:
            source = self.random(20)
        else:
            source = detection_hash(header, path.local.packed, path.local_port)
        destination = detection_hash(header, path.remote.packed, path.remote_port)
        return (
            Notify(notify_type=NotifyType2.NAT_DETECTION_SOURCE_IP, data=source),
            Notify(notify_type=NotifyType2.NAT_DETECTION_DESTINATION_IP, data=destination),
        )

    def detect_nat(self, content: Content) -> None:
        """Compare the peer's hashes with what is seen from here; a peer without them knows no NAT traversal."""
        sources, destinations = [], []
        for each in content.all(Notify):
            if each.notify_type == NotifyType2.NAT_DETECTION_SOURCE_IP:
                sources.append(each.data)
            elif each.notify_type == NotifyType2.NAT_DETECTION_DESTINATION_IP:
                destinations.append(each.data)
        if not sources or not destinations:
            return
        header, path = content.header, self.path
        self.nat_there = detection_hash(header, path.remote.packed, path.remote_port) not in sources
        seen = detection_hash(header, path.local.packed, path.local_port) in destinations
        self.nat_here = self.connection.force_encapsulation or not seen

    def float_path(self) -> None:
        """Initiator: from now on use the port of NAT traversal where there is a NAT (RFC 7296 section 2.23)."""
        path = self.path
        if self.encapsulated and not path.marked:
            self.sa.path = Path(path.local, NAT_PORT, path.remote, NAT_PORT)

    def agree_fragments(self, content: Content) -> None:
        """From now on cut long messages, if both ends can (RFC 7383 section 2.3)."""
        if self.connection.fragmentation and content.notify(NotifyType2.IKEV2_FRAGMENTATION_SUPPORTED):
            self.channel.maximum = FRAGMENT_SIZE_IPV4 if self.path.remote.version == 4 else FRAGMENT_SIZE

    def move(self, path: Path) -> None:
        """Follow the peer to where it is now, with all children."""
        self.sa.path = path
        moved = []
        for entry in self.children:
            before, entry.child = entry.child, child_on(entry.child, path)
            moved.append((before, entry.child))
        if moved:
            self.emit(PathChanged(sa=self.sa, moved=tuple(moved)))

    # --- children -----------------------------------------------------------------------------------------

    @property
    def local_traffic(self) -> tuple[TrafficSelector, ...]:
        """What our end of a CHILD_SA is for."""
        return self.connection.local_traffic or (host_selector(self.path.local),)

    @property
    def remote_traffic(self) -> tuple[TrafficSelector, ...]:
        """What the peer's end of a CHILD_SA is for."""
        return self.connection.remote_traffic or (host_selector(self.path.remote),)

    def add_child(self, terms: ChildTerms, keys: ChildKeys, replaced: Entry | None = None) -> Entry:
        """Put a CHILD_SA into force. Raises: as `make_child`."""
        child = make_child(terms, keys, self.path)
        self.failures = 0
        entry = Entry(child, self.rekey_moment(terms.lifetime), self.now + terms.lifetime)
        self.children.add(entry)
        self.emit(ChildEstablished(sa=self.sa, child=child, replaced=replaced.child if replaced else None))
        return entry

    def remove_child(self, entry: Entry, reason: str) -> None:
        """Take a CHILD_SA out of force; one that is not there is no error."""
        if self.children.remove(entry):
            self.emit(ChildClosed(sa=self.sa, child=entry.child, reason=reason))

    def child_failed(self, error: LocumError, replaced: Entry | None = None) -> None:
        """There is no CHILD_SA, or no successor of `replaced`; nobody waits for the one of what is gone."""
        if replaced is None or replaced in self.children:
            self.emit(ChildFailed(sa=self.sa, error=error, replaced=replaced.child if replaced else None))
