"""Two IKE endpoints in memory, each with an authority, a clock for both, and a network between that misbehaves.

Whatever happens to a datagram is decided by `Network.disturb`; without it each arrives at once and once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from ipaddress import ip_address
from typing import Any, TypeVar

from tests.support import pki
from tests.support.tls_memory import Deterministic

from locum.authority.databases import (
    Action,
    Identity,
    PolicyRule,
    PostquantumSecret,
    SharedSecret,
    TrustMaterial,
)
from locum.authority.local import LocalAuthority
from locum.authority.port import AuthoritySession
from locum.errors import LocumError
from locum.handshake import Opening, Request, Response
from locum.ike.configuration import Connection, Limits
from locum.ike.endpoint import Endpoint
from locum.ike.engine import (
    IKE_PORT,
    Child,
    ChildClosed,
    ChildEstablished,
    Closed,
    Datagram,
    Established,
    Event,
    IkeSa,
    Path,
    PathChanged,
    Rekeyed,
    State,
)
from locum.ipsec.selectors import Address
from locum.keys.file import FileKey

E = TypeVar("E", bound=Event)

TERMINAL = "meter-7"
LEFT_ADDRESS, RIGHT_ADDRESS = ip_address("192.0.2.1"), ip_address("198.51.100.2")
LEFT_NAME, RIGHT_NAME = "left.example.com", "right.example.com"
SECRET = b"correct horse battery"

#: The moment at which everything begins, in seconds.
BEGINNING = 1000.0
#: More datagrams than this without an end mean that both ends answer one another for ever.
MAX_DATAGRAMS = 5000


# --- authorities ------------------------------------------------------------------------------------------


def psk_authority(own: str, peer: str, *, secret: bytes = SECRET, **settings: Any) -> LocalAuthority:
    """An authority with one pre-shared key: our DNS name and the peer's."""
    shared = SharedSecret(terminal=TERMINAL, peer=f"dns:{peer}", secret=secret, local_identity=f"dns:{own}")
    return authority(own, secrets=(shared,), **settings)


def certificate_authority(
    own: str, *, kind: str = "p256", issuer: pki.Issued | None = None, **settings: Any
) -> LocalAuthority:
    """An authority with a certificate for our DNS name, under the test root that it also trusts."""
    issued = pki.leaf(issuer or pki.ca(), kind, (own,), slot=f"ike:{own}:{kind}", subject=own, purposes=None)
    identity = Identity(name=own, certificates=issued.chain, key=FileKey.from_pem(issued.key_pem))
    return authority(own, identities=(identity,), **settings)


def authority(
    own: str,
    *,
    rules: Sequence[tuple[str, Action]] = (("*", Action.ALLOW),),
    identities: Iterable[Identity] = (),
    secrets: Iterable[SharedSecret] = (),
    ppks: Sequence[PostquantumSecret] = (),
    trust: TrustMaterial | None = None,
    **settings: Any,
) -> LocalAuthority:
    """An authority whose policy is `rules`, pairs of a peer's pattern and what is done with it."""
    return LocalAuthority(
        trust=trust or TrustMaterial(anchors=(pki.ca().pem,)),
        policy=[PolicyRule(terminal="*", peer=peer, action=action) for peer, action in rules],
        identities=tuple(identities),
        secrets=tuple(secrets),
        ppks=ppks,
        now=lambda: pki.EPOCH,
        random=Deterministic(f"authority of {own}".encode()),
        **settings,
    )


# --- an end -----------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Host:
    """An endpoint, its authority, and what a driver keeps. `held` keeps operations until `Network.release`."""

    name: str
    address: Address
    endpoint: Endpoint
    authority: LocalAuthority
    events: list[Event] = field(default_factory=list)
    installed: list[Child] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)
    #: what the authority would not do
    refusals: list[LocumError] = field(default_factory=list)
    hold: bool = False
    held: list[tuple[IkeSa, tuple[Request, ...], int]] = field(default_factory=list)
    sessions: dict[tuple[int, int], AuthoritySession] = field(default_factory=dict)
    #: SAs whose sessions are in `sessions` stay alive, so that their `id` is not used again
    kept: list[IkeSa] = field(default_factory=list)

    def work(self, now: float) -> None:
        """Have everything performed that is asked, and act on events, until there is neither."""
        while True:
            waiting = self.endpoint.waiting()
            for sa in waiting:
                assert sa.pending is not None
                task = (sa, sa.pending, sa.session)
                if self.hold:
                    self.held.append(task)
                else:
                    self.perform(*task, now=now)
            events = self.endpoint.events()
            for event in events:
                self._note(event)
            if not waiting and not events:
                return

    def perform(self, sa: IkeSa, requests: tuple[Request, ...], number: int, *, now: float) -> None:
        """Have one batch performed in its session, and hand in the answers."""
        key = (id(sa), number)
        if isinstance(requests[0], Opening):
            assert key not in self.sessions, "a session's number was used before"
            self.sessions[key] = self.authority.open(TERMINAL)
            self.kept.append(sa)
        self.asked += requests
        responses: tuple[Response, ...]
        try:
            responses = self.sessions[key].perform(requests)
        except LocumError as error:
            self.refusals.append(error)
            sa.fail(error, now=now)
            return
        sa.answer(responses, now=now)

    def _note(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, ChildEstablished):
            self.installed.append(event.child)
        elif isinstance(event, ChildClosed):
            self.installed.remove(event.child)
        elif isinstance(event, PathChanged):
            for before, after in event.moved:
                self.installed[self.installed.index(before)] = after

    # --- what happened ------------------------------------------------------------------------------------

    def of(self, kind: type[E]) -> list[E]:
        """Every event of this kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def sa(self) -> IkeSa:
        """The only SA that is not closed."""
        (sa,) = self.live
        return sa

    @property
    def current(self) -> IkeSa:
        """The SA that was established last, as far as the driver has been told."""
        return next(event.sa for event in reversed(self.events) if isinstance(event, Established | Rekeyed))

    @property
    def live(self) -> list[IkeSa]:
        """The SAs that are not closed."""
        return [sa for sa in self.endpoint.sas if sa.state is not State.CLOSED]

    @property
    def child(self) -> Child:
        """The only CHILD_SA that is installed."""
        (child,) = self.installed
        return child

    @property
    def error(self) -> LocumError | None:
        """What the last SA that closed died of."""
        return self.of(Closed)[-1].error


# --- the network ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Passage:
    """A datagram on its way: `number` counts all of them, `sender` is the name of who sent it."""

    number: int
    sender: str
    datagram: Datagram

    @property
    def message(self) -> bytes:
        """The IKE message."""
        return self.datagram.message

    def altered(self, message: bytes) -> Passage:
        """The same with other content."""
        return replace(self, datagram=Datagram(self.datagram.path, message))

    def moved(self, **ends: Any) -> Passage:
        """The same from or to elsewhere: fields of `Path`, as the sender sees it."""
        return replace(self, datagram=replace(self.datagram, path=replace(self.datagram.path, **ends)))


#: What becomes of a datagram: each copy that arrives, after so many seconds.
Disturbance = Callable[[Passage], Iterable[tuple[float, Passage]]]


def undisturbed(passage: Passage) -> Iterable[tuple[float, Passage]]:
    """It arrives."""
    return ((0.0, passage),)


@dataclass(eq=False)
class Network:
    """Both ends and the clock. Datagrams reach whoever has the destination's address; all others are lost."""

    left: Host
    right: Host
    now: float = BEGINNING
    disturb: Disturbance = undisturbed
    #: every datagram that was sent, before anything happened to it
    log: list[Passage] = field(default_factory=list)
    _flying: list[tuple[float, int, Passage]] = field(default_factory=list)
    _count: int = 0

    def initiate(self, *, port: int = IKE_PORT) -> IkeSa:
        """The left end begins."""
        path = Path(self.left.address, port, self.right.address, port)
        return self.left.endpoint.initiate(path, now=self.now)

    def connect(self) -> Network:
        """The left end begins, and both run until nothing is left to be done now."""
        self.initiate()
        self.run()
        return self

    def run(self, *, until: float | None = None) -> None:
        """Carry datagrams and have operations performed; with `until` timers too, up to that moment.

        Without it the clock moves only as far as delayed datagrams have to travel.
        """
        self._work()
        while (moment := self._next(timers=until is not None)) is not None and (until is None or moment <= until):
            self.now = max(self.now, moment)
            while self._flying and self._flying[0][0] <= self.now:
                self._deliver(heappop(self._flying)[2])
                self._work()
            if until is not None:
                for host in (self.left, self.right):
                    host.endpoint.expire(now=self.now)
            self._work()
        if until is not None:
            self.now = until

    def advance(self, seconds: float) -> None:
        """Let time go by, with everything that happens meanwhile."""
        self.run(until=self.now + seconds)

    def release(self, host: Host) -> None:
        """Have what `host` held performed now, and go on."""
        host.hold = False
        held, host.held = host.held, []
        for task in held:
            host.perform(*task, now=self.now)
        self.run()

    def inject(self, host: Host, message: bytes, *, source: Address | None = None, port: int = IKE_PORT) -> None:
        """Give `host` a message from nowhere, by default in the other end's name."""
        other = self.right if host is self.left else self.left
        host.endpoint.receive(message, Path(host.address, port, source or other.address, port), now=self.now)
        self.run()

    def _next(self, *, timers: bool) -> float | None:
        moments = [self._flying[0][0]] if self._flying else []
        if timers:
            for host in (self.left, self.right):
                due = host.endpoint.next_timeout()
                if due is not None:
                    moments.append(due)
        return min(moments, default=None)

    def _work(self) -> None:
        for host in (self.left, self.right):
            host.work(self.now)
            for datagram in host.endpoint.transmit():
                self._send(host, datagram)

    def _send(self, host: Host, datagram: Datagram) -> None:
        assert len(self.log) < MAX_DATAGRAMS, "both ends answer one another for ever"
        passage = Passage(len(self.log) + 1, host.name, datagram)
        self.log.append(passage)
        for delay, each in self.disturb(passage):
            self._count += 1
            heappush(self._flying, (self.now + delay, self._count, each))

    def _deliver(self, passage: Passage) -> None:
        path = passage.datagram.path
        for host in (self.left, self.right):
            if host.address == path.remote:
                arrived = Path(path.remote, path.remote_port, path.local, path.local_port)
                host.endpoint.receive(passage.message, arrived, now=self.now)


def network(
    left: Connection,
    right: Connection | None = None,
    *,
    authorities: tuple[LocalAuthority, LocalAuthority] | None = None,
    limits: Limits | None = None,
    observed: bool = False,
    seed: str = "",
) -> Network:
    """Two ends with these connections, by default the same, and by default with one pre-shared key.

    A left one that does not say whom it wants wants the right end, by its DNS name. Another `seed` gives other
    random numbers.
    """
    by_left, by_right = authorities or (
        psk_authority(LEFT_NAME, RIGHT_NAME),
        psk_authority(RIGHT_NAME, LEFT_NAME),
    )
    right = right or left
    if not left.remote_identity:
        left = replace(left, remote_identity=f"dns:{RIGHT_NAME}")
    return Network(
        _host("left", LEFT_ADDRESS, left, by_left, limits, observed, seed),
        _host("right", RIGHT_ADDRESS, right, by_right, limits, observed, seed),
    )


def _host(
    name: str,
    address: Address,
    connection: Connection,
    by: LocalAuthority,
    limits: Limits | None,
    observed: bool,
    seed: str,
) -> Host:
    random = Deterministic((name + seed).encode())
    spis = iter(range(0x1000 + ord(name[0]) * 0x10000, 1 << 32))
    endpoint = Endpoint(
        connection,
        random=random,
        reserve_spi=lambda: next(spis),
        limits=limits,
        observed=observed,
    )
    return Host(name, address, endpoint, by)


def keys_agree(network: Network) -> bool:
    """True when what one end sends with is what the other receives with, for everything that is installed."""
    left = {
        (each.outbound.spi, each.outbound.encryption_key, each.outbound.integrity_key)
        for each in network.left.installed
    }
    right = {
        (each.inbound.spi, each.inbound.encryption_key, each.inbound.integrity_key)
        for each in network.right.installed
    }
    back = {
        (each.outbound.spi, each.outbound.encryption_key, each.outbound.integrity_key)
        for each in network.right.installed
    }
    there = {
        (each.inbound.spi, each.inbound.encryption_key, each.inbound.integrity_key)
        for each in network.left.installed
    }
    return left == right and back == there and len(left) == len(network.left.installed)
