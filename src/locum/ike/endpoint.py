"""All IKE SAs of one end of a connection: which a datagram belongs to, whom to begin with, and what goes out.

Never knows a key. Strangers cost it a bounded amount of memory, and with cookies none (RFC 7296 section 2.6).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from locum.crypto.symmetric import SHA256
from locum.errors import DecodeError, LocumError
from locum.ike.allowance import Allowance
from locum.ike.configuration import Connection, Limits
from locum.ike.cookies import CookieJar
from locum.ike.engine import Closed, Datagram, Established, Event, IkeSa, Path, Rekeyed, State
from locum.ike.errors import UnsupportedVersion
from locum.ike.header import HEADER_LENGTH, NO_SPI, Header, parse_chain, parse_header
from locum.ike.payloads2 import FINAL, Notify, write_payloads
from locum.ike.registry import ExchangeType, Flags2, NotifyType2, PayloadType2, Version
from locum.ike.v1.sa import Ike1Sa
from locum.ike.v2.sa import Ike2Sa
from locum.wire.cursor import Reader

#: Notifies without protection, INVALID_IKE_SPI and INVALID_MAJOR_VERSION: at most so many in a second.
MAX_UNPROTECTED_NOTIFIES = 10
#: Timers in the heap, those included that mean nothing any more, for each SA that there is.
MAX_TIMERS_PER_SA = 8

#: Events after which an SA is in force that was not before.
_TAKES_EFFECT = (Established, Rekeyed)
_KINDS: dict[Version, type[IkeSa]] = {Version.IKE_1: Ike1Sa, Version.IKE_2: Ike2Sa}
_FIRST_EXCHANGES_1 = frozenset({ExchangeType.IDENTITY_PROTECTION, ExchangeType.AGGRESSIVE})


@dataclass(slots=True, eq=False)
class _Kept:
    """What the endpoint remembers of one SA; `order` counts adoptions and establishments together."""

    order: int
    spi: bytes
    #: where the peer was when the SA was established
    address: bytes = b""
    #: address and SHA-256 of the first message
    beginning: tuple[bytes, bytes] | None = None
    half_open: bytes = b""
    identity: str = ""
    established: int = 0
    due: float | None = None
    #: the `pending` that the driver has taken
    taken: object = None


class Endpoint:
    """The SAs of one connection. Nothing raises but `initiate`, for a connection that does not fit the path.

    `random` gives that many bytes from a cryptographic source, `reserve_spi` SPIs for inbound associations.
    A driver hands in datagrams without non-ESP marker, and after every call of a method, here or of an SA,
    takes `transmit`, `events` and `waiting`; when `next_timeout` has come it calls `expire`.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        random: Callable[[int], bytes],
        reserve_spi: Callable[[], int],
        limits: Limits | None = None,
        observed: bool = False,
    ) -> None:
        self.connection = connection
        self.limits = limits or Limits()
        #: datagrams that belonged to nothing here, or that strangers were refused by
        self.dropped = 0
        self._random = random
        self._reserve_spi = reserve_spi
        self._observed = observed
        self._cookies = CookieJar(random)
        self._sas: dict[IkeSa, _Kept] = {}
        self._by_spi: dict[bytes, IkeSa] = {}
        #: responder's SAs by where they began: what a first message belongs to that has come before (RFC 7296
        #: section 2.1). One with the same SPI that is not the same may be forged, and does not stand in its way.
        self._by_beginning: dict[tuple[bytes, bytes], IkeSa] = {}
        self._by_identity: dict[str, dict[IkeSa, None]] = {}
        self._half_open = 0
        self._half_open_from: dict[bytes, int] = {}
        #: IKEv1: half-open SAs whose peer has not returned our cookie, oldest first
        self._unproven: dict[IkeSa, None] = {}
        self._established = 0
        #: established SAs by where they were established from
        self._established_from: dict[bytes, int] = {}
        #: SAs that strangers may begin, and those who come from where an SA is established
        self._for_strangers = Allowance(per_second=self.limits.begun_per_second, at_once=self.limits.begun_at_once)
        self._for_known = Allowance(per_second=self.limits.known_per_second, at_once=self.limits.known_at_once)
        self._order = 0
        self._outgoing: list[Datagram] = []
        self._events: list[Event] = []
        self._waiting: dict[IkeSa, None] = {}
        self._timers: list[tuple[float, int, IkeSa]] = []
        self._notifies: tuple[float, int] = (0.0, 0)
        self._closing = False

    # --- what a driver calls ------------------------------------------------------------------------------

    def initiate(self, path: Path, *, now: float) -> IkeSa:
        """Begin an SA with the other end of `path`, and return it."""
        sa = self._new(path, initiator=True)
        sa.initial_contact = not any(
            other.state is not State.CLOSED and other.path.remote == path.remote for other in self._sas
        )
        self._adopt(sa)
        sa.start(now=now)
        self._attend(sa)
        return sa

    def receive(self, message: bytes, path: Path, *, now: float) -> None:
        """Take a datagram: a whole IKE message without non-ESP marker, or a keepalive."""
        try:
            header = parse_header(message)
        except UnsupportedVersion:
            self._refuse_version(message, path, now)
            return
        except DecodeError:
            self.dropped += 1
            return
        if header.major_version != self.connection.version >> 4:
            self.dropped += 1
            return
        sa = self._find(header, path)
        if sa is None:
            sa = self._beginner(header, message, path, now)
        if sa is not None:
            sa.receive(header, message, path, now=now)
            self._attend(sa)

    @property
    def busy(self) -> bool:
        """True when `transmit`, `events` or `waiting` has something to give."""
        return bool(self._outgoing or self._events or self._waiting)

    def transmit(self) -> list[Datagram]:
        """What is to be sent, in this order; each is given once."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def events(self) -> list[Event]:
        """What has happened since the last call."""
        events, self._events = self._events, []
        return events

    def waiting(self) -> list[IkeSa]:
        """The SAs whose `pending` was not given here before; each is to get `answer` or `fail`."""
        if not self._waiting:
            return []
        waiting = list(self._waiting)
        self._waiting.clear()
        for sa in waiting:
            self._sas[sa].taken = sa.pending
        return waiting

    @property
    def sas(self) -> tuple[IkeSa, ...]:
        """Every SA, those included that are closed and stay a moment to repeat their last answer."""
        return tuple(self._sas)

    @property
    def half_open(self) -> int:
        """Responder's SAs whose peer has not been authenticated: what `Limits` bounds."""
        return self._half_open

    def next_timeout(self) -> float | None:
        """When `expire` is due; None for never."""
        timers = self._timers
        while timers:
            if self._is_set(timers[0]):
                return timers[0][0]
            heappop(timers)
        return None

    def expire(self, *, now: float) -> None:
        """Have every SA do what is due."""
        due: list[IkeSa] = []
        while (first := self.next_timeout()) is not None and first <= now:
            sa = heappop(self._timers)[2]
            self._sas[sa].due = None
            due.append(sa)
        for sa in due:
            sa.expire(now=now)
            self._attend(sa)

    def close(self, *, now: float) -> None:
        """Delete every SA at both ends, and begin none any more."""
        self._closing = True
        for sa in self.sas:
            sa.close(now=now)
            self._attend(sa)

    # --- finding the SA -----------------------------------------------------------------------------------

    def _find(self, header: Header, path: Path) -> IkeSa | None:
        """The SA with one of these SPIs."""
        if self.connection.version == Version.IKE_2:
            ours = header.responder_spi if header.flags & Flags2.INITIATOR else header.initiator_spi
            sa = self._by_spi.get(ours)
        else:
            sa = self._by_spi.get(header.initiator_spi) or self._by_spi.get(header.responder_spi)
        if sa is not None:
            theirs = header.responder_spi if sa.initiator else header.initiator_spi
            if sa.peer_spi not in (NO_SPI, theirs):
                return None
            if sa in self._unproven and header.responder_spi == sa.own_spi and path.remote == sa.path.remote:
                del self._unproven[sa]
            return sa
        return None

    def _beginner(self, header: Header, message: bytes, path: Path, now: float) -> IkeSa | None:
        """The SA that this same message has begun before, or a new one where it may; None where nothing begins."""
        if header.responder_spi != NO_SPI:
            self._refuse_spi(header, message, path, now)
            return None
        beginning = path.remote.packed, SHA256.digest(message)
        sa = self._by_beginning.get(beginning)
        if sa is not None:
            return sa
        if header.message_id or not self._is_first(header):
            self._refuse_spi(header, message, path, now)
            return None
        return self._stranger(header, message, path, beginning, now)

    def _stranger(
        self, header: Header, message: bytes, path: Path, beginning: tuple[bytes, bytes], now: float
    ) -> IkeSa | None:
        """A new SA for a first message that may begin one; None where nothing begins."""
        wanted, source = self.connection.remote, beginning[0]
        # A message of our own that was sent back would have us talk to ourselves.
        ours = header.initiator_spi in self._by_spi
        if ours or self._closing or (wanted is not None and path.remote != wanted) or not self._room(source):
            self.dropped += 1
            return None
        if self._wants_cookie(source, now) and not self._cookie_shown(header, message, path, now):
            return None
        if not self._may_begin(source, now):
            self.dropped += 1
            return None
        sa = self._new(path, initiator=False)
        kept = self._adopt(sa)
        kept.beginning = beginning
        self._by_beginning[beginning] = sa
        self._count_half_open(sa, kept, source)
        return sa

    def _is_first(self, header: Header) -> bool:
        if self.connection.version == Version.IKE_1:
            return header.exchange_type in _FIRST_EXCHANGES_1
        request = header.flags & (Flags2.INITIATOR | Flags2.RESPONSE) == Flags2.INITIATOR
        return header.exchange_type == ExchangeType.IKE_SA_INIT and request

    def _room(self, source: bytes) -> bool:
        """True where a half-open SA may be had by this address, if need be in another one's place."""
        limits = self.limits
        return (
            (self._half_open < self._places(source) or bool(self._unproven))
            and self._half_open_from.get(source, 0) < limits.half_open_per_address
            and self._established + self._half_open < limits.established
        )

    def _places(self, source: bytes) -> int:
        """Half-open SAs that there may be, altogether, for this address to get another one."""
        known = source in self._established_from
        return self.limits.half_open + (self.limits.known_half_open if known else 0)

    def _may_begin(self, source: bytes, now: float) -> bool:
        """Have one beginning, and a place for it. SAs that end at once cost a question to the authority too."""
        known = source in self._established_from
        if not (self._for_strangers.take(now=now) or (known and self._for_known.take(now=now))):
            return False
        if self._half_open >= self._places(source):
            oldest = next(iter(self._unproven))
            oldest.forget("its peer has not returned our cookie, and others come")
            self._attend(oldest)
        return True

    def _wants_cookie(self, source: bytes, now: float) -> bool:
        """True in a flood; and where half of what one address gets is gone, lest others spend it in its name."""
        if self.connection.version == Version.IKE_1:
            return False
        scarce = 2 * self._for_strangers.left(now=now) < self.limits.begun_at_once
        if scarce or self._half_open >= self.limits.cookie_threshold:
            return True
        return 2 * self._half_open_from.get(source, 0) >= self.limits.half_open_per_address

    def _cookie_shown(self, header: Header, message: bytes, path: Path, now: float) -> bool:
        """True for a request with a cookie of ours; any other is answered with one and forgotten."""
        nonce, cookie = _nonce_and_cookie(header, message)
        if not nonce:
            self.dropped += 1
            return False
        claim = (nonce, path.remote, header.initiator_spi)
        if cookie and self._cookies.proves(cookie, *claim, now=now):
            return True
        answer = Notify(notify_type=NotifyType2.COOKIE, data=self._cookies.make(*claim, now=now))
        self._answer_in_clear(header, message, path, answer)
        return False

    # --- notifies that belong to no SA --------------------------------------------------------------------

    def _refuse_spi(self, header: Header, message: bytes, path: Path, now: float) -> None:
        """RFC 7296 section 2.21.4: a request for an SA that is not here; never an answer to an answer."""
        self.dropped += 1
        if self.connection.version == Version.IKE_1 or header.flags & Flags2.RESPONSE:
            return
        if header.exchange_type != ExchangeType.IKE_SA_INIT and self._may_notify(now):
            self._answer_in_clear(header, message, path, Notify(notify_type=NotifyType2.INVALID_IKE_SPI))

    def _refuse_version(self, message: bytes, path: Path, now: float) -> None:
        """RFC 7296 section 2.5: a higher major version is told ours, 2."""
        self.dropped += 1
        header = Header.parse(Reader(message[:HEADER_LENGTH]))
        if self.connection.version != Version.IKE_2 or header.major_version < 2 or header.flags & Flags2.RESPONSE:
            return
        if self._may_notify(now):
            self._answer_in_clear(header, message, path, Notify(notify_type=NotifyType2.INVALID_MAJOR_VERSION))

    def _may_notify(self, now: float) -> bool:
        since, count = self._notifies
        if now - since >= 1.0:
            since, count = now, 0
        self._notifies = since, count + 1
        return count < MAX_UNPROTECTED_NOTIFIES

    def _answer_in_clear(self, header: Header, message: bytes, path: Path, notify: Notify) -> None:
        """SPIs, exchange and message id as in the request; nothing that is larger than what asked for it."""
        first, chain = write_payloads((notify,))
        length = HEADER_LENGTH + len(chain)
        if length > len(message):
            return
        flags = Flags2.RESPONSE | (~header.flags & Flags2.INITIATOR)
        answer = header._replace(version=Version.IKE_2, flags=flags)
        self._outgoing.append(Datagram(path, answer.before(first, len(chain)) + chain))

    # --- keeping the SAs ----------------------------------------------------------------------------------

    def _new(self, path: Path, *, initiator: bool) -> IkeSa:
        return _KINDS[self.connection.version](
            self.connection,
            path,
            initiator=initiator,
            random=self._random,
            reserve_spi=self._reserve_spi,
            observed=self._observed,
        )

    def _adopt(self, sa: IkeSa) -> _Kept:
        self._order += 1
        kept = self._sas[sa] = _Kept(self._order, sa.own_spi)
        self._by_spi[kept.spi] = sa
        sa.touched = self._attend
        return kept

    def _attend(self, sa: IkeSa) -> None:
        """Take over what an SA has to say after something was done to it."""
        kept = self._sas.get(sa)
        if kept is None:
            return
        if sa.outgoing:
            self._outgoing += sa.outgoing
            sa.outgoing.clear()
        if sa.begun:
            begun = tuple(sa.begun)
            sa.begun.clear()
            for each in begun:
                self._adopt(each)
                self._attend(each)
        if sa.events:
            self._take_events(sa)
            if sa not in self._sas:
                # Heeding an event looked at this SA too, and it was over.
                return
            if sa.outgoing or sa.begun:
                self._attend(sa)
                return
        if sa.initial_contact and kept.established and not sa.initiator:
            # IKEv1 may say so only after it is established.
            self._forget_before(sa, kept)
        due = sa.next_timeout()
        if sa.state is State.CLOSED and due is None:
            self._dismiss(sa, kept)
            return
        if due != kept.due:
            kept.due = due
            if due is not None:
                self._set_timer(due, sa)
        self._note_pending(sa, kept)

    def _take_events(self, sa: IkeSa) -> None:
        events, sa.events = sa.events, []
        for event in events:
            self._events.append(event)
            self._heed(event, sa)
            if sa.events:
                # Heeding it was another one, which comes next.
                self._take_events(sa)

    def _set_timer(self, due: float, sa: IkeSa) -> None:
        """Timers that were set before stay until their time comes, or until most of all are such."""
        self._order += 1
        heappush(self._timers, (due, self._order, sa))
        if len(self._timers) > MAX_TIMERS_PER_SA * (len(self._sas) + 1):
            self._timers = [timer for timer in self._timers if self._is_set(timer)]
            heapify(self._timers)

    def _is_set(self, timer: tuple[float, int, IkeSa]) -> bool:
        kept = self._sas.get(timer[2])
        return kept is not None and kept.due == timer[0]

    def _note_pending(self, sa: IkeSa, kept: _Kept) -> None:
        if sa.pending is None:
            self._waiting.pop(sa, None)
            kept.taken = None
        elif sa.pending is not kept.taken:
            self._waiting[sa] = None

    def _heed(self, event: Event, looked_at: IkeSa) -> None:
        """What an event means for the endpoint itself; one of an SA that was dismissed means nothing.

        `looked_at` is the SA that is being attended to anyway.
        """
        sa = event.sa
        kept = self._sas.get(sa)
        if kept is None:
            return
        if isinstance(event, _TAKES_EFFECT):
            self._note_established(sa, kept)
            if sa is not looked_at:
                self._attend(sa)
        elif isinstance(event, Closed):
            self._forget_established(sa, kept)

    def _note_established(self, sa: IkeSa, kept: _Kept) -> None:
        self._uncount_half_open(sa, kept)
        if not kept.established:
            self._order += 1
            kept.established = self._order
            self._established += 1
            kept.address = sa.path.remote.packed
            self._established_from[kept.address] = self._established_from.get(kept.address, 0) + 1
            kept.identity = sa.peer_identity
            self._by_identity.setdefault(kept.identity, {})[sa] = None
        if sa.initial_contact and not sa.initiator:
            self._forget_before(sa, kept)
        if isinstance(sa, Ike1Sa) and not sa.initiator:
            self._hand_over(sa, kept)

    def _forget_before(self, sa: IkeSa, kept: _Kept) -> None:
        """INITIAL_CONTACT (RFC 7296 section 2.4): SAs with this peer from before `sa` began are of no use to it.

        One that was made meanwhile stays: both ends may have begun at once.
        """
        sa.initial_contact = False
        for other in tuple(self._by_identity.get(kept.identity, ())):
            if other is not sa and self._sas[other].established < kept.order:
                other.forget("the peer has begun anew")
                self._attend(other)

    def _hand_over(self, sa: Ike1Sa, kept: _Kept) -> None:
        """A peer that has authenticated anew goes on with the children that it has (IKEv1)."""
        for other in tuple(self._by_identity.get(kept.identity, ())):
            if other is not sa and isinstance(other, Ike1Sa) and other.path.remote == sa.path.remote:
                sa.take_over(other, older=self._sas[other].established < kept.order)
                self._attend(other)

    def _forget_established(self, sa: IkeSa, kept: _Kept) -> None:
        if kept.established:
            kept.established = 0
            self._established -= 1
            _uncount(self._established_from, kept.address)
            same = self._by_identity[kept.identity]
            del same[sa]
            if not same:
                del self._by_identity[kept.identity]

    def _dismiss(self, sa: IkeSa, kept: _Kept) -> None:
        self._uncount_half_open(sa, kept)
        self._forget_established(sa, kept)
        del self._sas[sa]
        self._by_spi.pop(kept.spi, None)
        if kept.beginning is not None and self._by_beginning.get(kept.beginning) is sa:
            del self._by_beginning[kept.beginning]
        self._waiting.pop(sa, None)

    def _count_half_open(self, sa: IkeSa, kept: _Kept, source: bytes) -> None:
        kept.half_open = source
        if self.connection.version == Version.IKE_1:
            self._unproven[sa] = None
        self._half_open += 1
        self._half_open_from[source] = self._half_open_from.get(source, 0) + 1

    def _uncount_half_open(self, sa: IkeSa, kept: _Kept) -> None:
        source, kept.half_open = kept.half_open, b""
        if source:
            self._unproven.pop(sa, None)
            self._half_open -= 1
            _uncount(self._half_open_from, source)


def _uncount(counts: dict[bytes, int], source: bytes) -> None:
    counts[source] -= 1
    if not counts[source]:
        del counts[source]


def _nonce_and_cookie(header: Header, message: bytes) -> tuple[bytes, bytes]:
    """Ni and the cookie of an IKE_SA_INIT request, empty where there is none, without reading the rest."""
    try:
        chain = parse_chain(header.next_payload, message[HEADER_LENGTH:], final=FINAL)
        nonce = next((raw.body for raw in chain if raw.type == PayloadType2.NONCE), b"")
        first = chain[0] if chain else None
        if first is None or first.type != PayloadType2.NOTIFY:
            return nonce, b""
        notify = Notify.parse(Reader(first.body))
    except LocumError:
        return b"", b""
    return nonce, notify.data if notify.notify_type == NotifyType2.COOKIE else b""
