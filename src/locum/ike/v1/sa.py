"""The ISAKMP SA of IKEv1: which exchange a datagram is for, what the authority is asked, its time and its end.

Never holds a long-term key: phase 1 asks an authority. What is in the messages is said by `main_mode`,
`aggressive_mode`, `quick_mode` and `informational`; quick modes and children are kept by `phase2`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from locum.errors import LocumError, TimedOut, Unauthenticated
from locum.handshake import PeerRejected, Response
from locum.ike.configuration import Connection, Mode
from locum.ike.engine import (
    Child,
    ChildClosed,
    Closed,
    Datagram,
    Established,
    IkeSa,
    Path,
    PathChanged,
    Rekeyed,
    State,
)
from locum.ike.errors import NotProtected, UnexpectedMessage, notify1_for, notify_received
from locum.ike.header import NO_SPI, SPI_LENGTH, Header
from locum.ike.keying1 import phase2_iv
from locum.ike.nat import KEEPALIVE
from locum.ike.operations import RejectedWithFarewell
from locum.ike.payloads1 import Notification
from locum.ike.protection import CbcChain
from locum.ike.registry import FIRST_STATUS_TYPE, ExchangeType, Flags1, NotifyType1, PayloadType1
from locum.ike.v1 import aggressive_mode, informational, main_mode, messages
from locum.ike.v1.asking import Asking
from locum.ike.v1.channel import Channel, read
from locum.ike.v1.core import Core
from locum.ike.v1.informational import (
    Answered,
    Asked,
    ChildDeleted,
    Failure,
    InitialContact,
    Lifetime,
    News,
    SaDeleted,
    news_of,
)
from locum.ike.v1.isakmp import Isakmp
from locum.ike.v1.kept import OVERLAP, renewal
from locum.ike.v1.lineage import Lineage
from locum.ike.v1.liveness import Liveness
from locum.ike.v1.messages import Message
from locum.ike.v1.phase1 import Outcome, Phase1
from locum.ike.v1.phase2 import Phase2
from locum.ike.v1.quick_mode import Agreement
from locum.ike.v1.running import Progress, Running
from locum.ike.v1.steps import Steps
from locum.ike.v1.traffic import identification

#: Answers to R-U-THERE that are kept to be repeated.
MAX_ANSWERS = 4

_Running = Running[Outcome] | Running[Agreement]
_EXCHANGES = {Mode.MAIN: ExchangeType.IDENTITY_PROTECTION, Mode.AGGRESSIVE: ExchangeType.AGGRESSIVE}
_BEGIN: dict[Mode, tuple[Callable[[Phase1], Steps[Outcome]], Callable[[Phase1], Steps[Outcome]]]] = {
    Mode.MAIN: (main_mode.initiate, main_mode.respond),
    Mode.AGGRESSIVE: (aggressive_mode.initiate, aggressive_mode.respond),
}


class Ike1Sa(IkeSa):
    """One ISAKMP SA, from its first message to its end."""

    __slots__ = (
        "_ancestry",
        "_answers",
        "_asking",
        "_before",
        "_channel",
        "_core",
        "_established_at",
        "_first",
        "_keepalive_at",
        "_liveness",
        "_phase1",
        "_phase2",
        "_remove_at",
        "_renew_at",
        "_successor",
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
        """As `IkeSa`. Raises: ConfigurationError for traffic that quick mode cannot speak of."""
        outgoing: list[Datagram] = []
        self._channel = Channel(path, _cookie(random), initiator=initiator, send=outgoing.append)
        super().__init__(
            connection, path, initiator=initiator, random=random, reserve_spi=reserve_spi, observed=observed
        )
        self.outgoing = outgoing
        for selector in (*connection.local_traffic, *connection.remote_traffic):
            identification(selector)
        self._core = Core(self, connection, self._channel, random=random, reserve_spi=reserve_spi)
        self._phase1 = Phase1(connection=connection, channel=self._channel, initiator=initiator)
        #: phase 1 under way; it stays for a while after its end, to repeat its last message
        self._first: Running[Outcome] | None = None
        self._phase2 = Phase2(self._core)
        self._liveness = Liveness(connection.timing, 0, able=False, now=0.0)
        self._asking = Asking(self)
        self._answers: OrderedDict[bytes, tuple[bytes, ...]] = OrderedDict()
        #: when this SA needs a successor, and when it must go
        self._renew_at: float | None = None
        self._remove_at: float | None = None
        self._keepalive_at: float | None = None
        self._successor: Ike1Sa | None = None
        #: what this SA was begun to succeed, and those of it that were there then
        self._ancestry: Lineage | None = None
        self._before: tuple[IkeSa, ...] = ()
        self._established_at = 0.0

    def __repr__(self) -> str:
        return f"<Ike1Sa {self.own_spi.hex()} {self.state.name}>"

    # --- what everybody may know ----------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The path that messages take now."""
        return self._channel.path

    @path.setter
    def path(self, path: Path) -> None:
        self._channel.path = path

    @property
    def own_spi(self) -> bytes:
        return self._channel.own_cookie

    @property
    def peer_spi(self) -> bytes:
        return self._channel.peer_cookie

    @property
    def children(self) -> tuple[Child, ...]:
        return self._phase2.children if self._leads else ()

    @property
    def _leads(self) -> bool:
        """True for the SA of a lineage that looks after the children."""
        return self._core.lineage.leader is self

    # --- what a driver does ---------------------------------------------------------------------------------

    def start(self, *, now: float) -> None:
        self._phase1.initial_contact = self.initial_contact
        self._begin_phase1(now=now)
        self._settle(now=now)

    def receive(self, header: Header, message: bytes, path: Path, *, now: float) -> None:
        self._take_or_drop(header, message, path, now=now)
        self._settle(now=now)

    def answer(self, responses: tuple[Response, ...], *, now: float) -> None:
        running = self._asking.answered()
        if running is not None:
            running.answer(responses, now=now)
            self._settle(now=now)
        self.touched(self)

    def fail(self, error: LocumError, *, now: float) -> None:
        running = self._asking.answered()
        if running is not None:
            running.fail(error, now=now)
            self._settle(now=now)
        self.touched(self)

    def create_child(self, *, now: float) -> None:
        if self._usable:
            self._phase2.begin(now=now)
            self._settle(now=now)
        self.touched(self)

    def rekey_child(self, child: Child, *, now: float) -> None:
        if self._usable:
            self._phase2.begin(child, now=now)
            self._settle(now=now)
        self.touched(self)

    def rekey(self, *, now: float) -> None:
        if self._usable and not self._succession:
            self._reauthenticate(now=now)
        self.touched(self)

    def close_child(self, child: Child, *, now: float) -> None:
        if self.state is State.ESTABLISHED:
            self._phase2.close(child, "deleted here")
        self.touched(self)

    def close(self, *, now: float) -> None:
        if self.state is State.ESTABLISHED and self._leads:
            self._phase2.close_all("deleted here")
        self._delete_and_end("deleted here")
        self.touched(self)

    def check_liveness(self, *, now: float) -> None:
        self._check_liveness(now=now)
        self.touched(self)

    def forget(self, reason: str) -> None:
        led = self._leads
        super().forget(reason)
        if led:
            self._core.lineage.children.clear()
        self._drop_everything()

    def next_timeout(self) -> float | None:
        if self.state is State.ESTABLISHED:
            return min((each for each in self._timers() if each is not None), default=None)
        return self._first.next_timeout() if self._first is not None else None

    def _timers(self) -> Iterator[float | None]:
        for running in self._exchanges():
            yield running.next_timeout()
        yield from (self._remove_at, self._keepalive_at, self._core.lineage.retires_at(self))
        if self._usable:
            yield from (self._renew_at, self._liveness.next_timeout())
        if self._leads:
            yield self._phase2.next_timeout()

    def expire(self, *, now: float) -> None:
        for running in tuple(self._exchanges()):
            running.expire(now=now)
        self._settle(now=now)
        if self.state is State.ESTABLISHED:
            self._expire_self(now=now)
        if self.state is State.ESTABLISHED and self._leads:
            self._phase2.expire(usable=self._usable, now=now)
        self._settle(now=now)

    # --- exchanges and the authority ------------------------------------------------------------------------

    @property
    def _usable(self) -> bool:
        """True while new exchanges may begin under this SA."""
        return self.state is State.ESTABLISHED and not self._core.lineage.is_superseded(self)

    def _exchanges(self) -> Iterator[_Running]:
        if self._first is not None:
            yield self._first
        yield from self._phase2.running()

    def _begin_phase1(self, *, now: float) -> Running[Outcome]:
        mode = self.connection.mode
        steps = _BEGIN[mode][0 if self.initiator else 1](self._phase1)
        self._first = Running(steps, self._core.around, exchange_type=_EXCHANGES[mode], now=now)
        self._first.start(now=now)
        return self._first

    def _settle(self, *, now: float) -> None:
        """See to what has become of the exchanges, until nothing is left to be done."""
        while self.state is not State.CLOSED and self._settle_once(now=now):
            pass
        if self.state is State.CLOSED:
            return
        self._asking.go_on(self._exchanges())

    def _settle_once(self, *, now: float) -> bool:
        first = self._first
        if self.state is State.ESTABLISHED:
            if first is not None and now >= first.deadline:
                self._first = None
            return self._phase2.settle(now=now) or self._take_waiting(now=now)
        if first is not None and first.error is not None:
            self._phase1_failed(first, first.error)
            return True
        if first is not None and first.result is not None:
            self._phase1_done(first, first.result, now=now)
            return True
        return self._take_waiting(now=now)

    # --- messages -------------------------------------------------------------------------------------------

    def _take_or_drop(self, header: Header, message: bytes, path: Path, *, now: float) -> None:
        if self.state is State.CLOSED:
            return
        try:
            taken = self._take(header, message, path, now=now)
        except LocumError:
            taken = False
        self.dropped += not taken

    def _take(self, header: Header, message: bytes, path: Path, *, now: float) -> bool:
        """Take a whole message; False when it was dropped. Raises: LocumError, for which it is dropped too."""
        channel = self._channel
        if not channel.belongs(header) or (self.state is State.CONNECTING and path.remote != self.path.remote):
            return False
        if header.next_payload == PayloadType1.FRAGMENT:
            whole = channel.reassemble(header, message)
            if whole is None:
                return True
            header, message = whole
        if header.exchange_type in (ExchangeType.IDENTITY_PROTECTION, ExchangeType.AGGRESSIVE):
            return self._take_phase1(header, message, path, now=now)
        if header.exchange_type == ExchangeType.INFORMATIONAL_1 and not header.flags & Flags1.ENCRYPTION:
            return self._take_hint(read(header, message, None)[0], now=now)
        if NO_SPI in (self.peer_spi, header.responder_spi):
            return False
        if header.exchange_type == ExchangeType.QUICK_MODE:
            return self._take_quick_mode(header, message, path, now=now)
        if header.exchange_type == ExchangeType.INFORMATIONAL_1:
            return self._take_informational(header, message, path, now=now)
        return False

    def _take_waiting(self, *, now: float) -> bool:
        def take(header: Header, message: bytes, path: Path) -> None:
            self._take_or_drop(header, message, path, now=now)

        return self._asking.take_waiting(take)

    def _take_phase1(self, header: Header, message: bytes, path: Path, *, now: float) -> bool:
        first = self._first
        if self.initiator and header.responder_spi in (NO_SPI, self.own_spi):
            # A message of our own that was sent back: a responder has a cookie, and not ours.
            return False
        if first is None:
            if self.state is not State.CONNECTING or self.initiator:
                return False
            first = self._begin_phase1(now=now)
            if header.exchange_type != first.exchange_type:
                self._channel.learn(header)
                first.fail(UnexpectedMessage("the peer begins in another mode than this connection's"), now=now)
        if header.message_id or header.exchange_type != first.exchange_type:
            return False
        if first.progress is Progress.AUTHORITY and not first.knows(message):
            return self._asking.wait(header, message, path)

        def accepted() -> None:
            if self.peer_spi == NO_SPI:
                self._channel.learn(header)
            if not self.initiator:
                # The initiator goes over to port 4500 (RFC 3947 section 4), and its NAT chooses what we see of it.
                self.path = path

        return first.receive(header, message, now=now, accepted=accepted)

    def _take_quick_mode(self, header: Header, message: bytes, path: Path, *, now: float) -> bool:
        isakmp = self._core.isakmp
        if isakmp is None:
            # The peer is done with phase 1 already where our keys are still being fetched.
            fetching = self._first is not None and self._first.progress is Progress.AUTHORITY
            return fetching and self._asking.wait(header, message, path)

        def heard() -> None:
            self._heard(path, now=now)

        running = self._phase2.find(header.message_id)
        if running is None:
            return self._phase2.take(isakmp, header, message, heard, now=now)
        if running.progress is Progress.AUTHORITY and not running.knows(message):
            return self._asking.wait(header, message, path)
        return running.receive(header, message, now=now, accepted=heard)

    def _take_informational(self, header: Header, message: bytes, path: Path, *, now: float) -> bool:
        isakmp, message_id = self._core.isakmp, header.message_id
        if isakmp is None:
            return self._take_sealed_hint(header, message, now=now)
        if message in self._answers:
            self._channel.transmit(self._answers[message])
            return True
        # CONNECTED has the message id of the quick mode that it is about (RFC 2408 section 3.1).
        running = self._phase2.find(message_id)
        if running is None and not self._core.message_ids.is_new(message_id):
            return False
        opened, _ = read(header, message, isakmp.chain(message_id) if running is None else running.chain)
        messages.INFORMATIONAL.check(opened.payloads)
        if not isakmp.vouches_for(opened):
            raise NotProtected("an informational message whose HASH does not verify")
        if running is None:
            self._core.message_ids.use(message_id)
        self._core.passed(False, "informational", opened.payloads.items, len(message))
        self._heard(path, now=now)
        for news in news_of(opened, self._channel.cookies):
            if self.state is State.ESTABLISHED:
                self._heed(news, opened, now=now)
        return True

    def _heard(self, path: Path, *, now: float) -> None:
        """An authentic message, not seen before, came by this path."""
        self._liveness.heard(now=now)
        if path != self.path and self._channel.nat_there:
            # The peer's NAT has another idea of it now, and its packets come from there too.
            self.path = path
            self._core.emit(PathChanged(sa=self, moved=self._phase2.move(path)))

    # --- phase 1 --------------------------------------------------------------------------------------------

    def _phase1_done(self, first: Running[Outcome], outcome: Outcome, *, now: float) -> None:
        suite, timing = outcome.suite, self.connection.timing
        self._core.isakmp = Isakmp.of(suite, outcome.keys, first.last_block)
        self.state, self._established_at = State.ESTABLISHED, now
        self._core.lineage.join(self, self._core)
        self.peer_identity = outcome.identity
        self.algorithms = f"{suite}/{suite.method.name}"
        self.initial_contact = self._phase1.initial_contact
        self._set_lifetime(min(timing.ike_lifetime, float(suite.lifetime or timing.ike_lifetime)), now=now)
        sequence = int.from_bytes(self._random(4), "big")
        self._liveness = Liveness(timing, sequence, able=self._phase1.dpd, now=now)
        if self._channel.nat_here:
            self._keepalive_at = now + timing.keepalive
        self._core.emit(Established(sa=self))
        if not self.initiator and suite.lifetime is not None and timing.ike_lifetime < suite.lifetime:
            self._core.inform(informational.lifetime(self._channel.cookies, timing.ike_lifetime))
        if self._ancestry is not None:
            self._succeed(self._ancestry)
        elif self.initiator:
            self._phase2.begin(now=now)

    def _set_lifetime(self, lifetime: float, *, now: float) -> None:
        self._remove_at = now + lifetime
        self._renew_at = now + renewal(lifetime, self.connection.timing, self._random)

    def _phase1_failed(self, first: Running[Outcome], error: LocumError) -> None:
        # To a peer that has not answered, or that has ended it itself, there is nothing to say.
        spoken = not self.initiator or self.peer_spi != NO_SPI
        reason = notify1_for(error) if spoken and not first.given_up else None
        if not self._take_leave(error) and reason is not None:
            self._core.inform_in_clear(informational.failure(reason))
        self._end(error, str(error))

    def _take_leave(self, error: LocumError) -> bool:
        """Delete the SA at a peer that was turned down after its last message; False where that cannot be."""
        verdict = error.verdict if isinstance(error, PeerRejected) else None
        chain = self._sealing(self._phase1.farewell)
        if not isinstance(verdict, RejectedWithFarewell) or chain is None:
            return False
        deletion = informational.sa_deletion(self._channel.cookies)
        self._core.take_leave(self._phase1.farewell, verdict.farewell, deletion, chain)
        return True

    def _take_hint(self, message: Message, *, now: float) -> bool:
        """A message in clear: during phase 1 it may be the only one that there will be; later it means little."""
        messages.INFORMATIONAL_CLEAR.check(message.payloads)
        types = [each.notify_type for each in message.all(Notification)]
        errors = [code for code in types if code < FIRST_STATUS_TYPE]
        if self.state is State.CONNECTING and self._first is not None and errors:
            self._core.passed(False, "informational", message.payloads.items, len(message.whole))
            self._first.hint(notify_received(NotifyType1, errors[0]), now=now)
            return True
        if NotifyType1.INVALID_COOKIE in errors:
            # The peer may have lost this SA: whether it has, an authentic answer tells, or none.
            self._check_liveness(now=now)
        return False

    def _take_sealed_hint(self, header: Header, message: bytes, *, now: float) -> bool:
        """Encrypted, but under keys of which none for a HASH has been handed over yet."""
        chain = self._sealing(header.message_id)
        return chain is not None and self._take_hint(read(header, message, chain)[0], now=now)

    def _sealing(self, message_id: int) -> CbcChain | None:
        """The encryption of an informational message before the SA is established, once there is any."""
        first, suite = self._first, self._phase1.suite
        if first is None or first.chain is None or suite is None:
            return None
        return CbcChain(first.chain.key, phase2_iv(suite.prf, first.chain.iv, message_id))

    # --- informational --------------------------------------------------------------------------------------

    def _heed(self, news: News, message: Message, *, now: float) -> None:
        match news:
            case SaDeleted():
                self._end(None, "deleted by the peer")
            case ChildDeleted(protocol, spi):
                self._phase2.deleted_by_peer(protocol, spi)
            case Asked(sequence):
                answer = informational.i_am_here(self._channel.cookies, sequence)
                self._answers[message.whole] = self._core.inform(answer)
                while len(self._answers) > MAX_ANSWERS:
                    self._answers.popitem(last=False)
            case Answered():
                pass  # any authentic message shows that the peer is alive
            case InitialContact():
                self.initial_contact = self.initial_contact or not self.initiator
            case Lifetime(seconds, None, None):
                if self._remove_at is not None and now + seconds < self._remove_at:
                    self._set_lifetime(seconds, now=now)
            case Lifetime(seconds, protocol, spi) if protocol is not None and spi is not None:
                self._phase2.shorten(protocol, spi, seconds, now=now)
            case Failure(notify_type, spi):
                self._phase2.told_of_failure(notify_received(NotifyType1, notify_type), spi, now=now)

    def _check_liveness(self, *, now: float) -> None:
        if self._usable and self._liveness.able and not self._liveness.asking:
            self._ask_for_life(now=now)

    def _ask_for_life(self, *, now: float) -> None:
        self._core.inform(informational.are_you_there(self._channel.cookies, self._liveness.ask(now=now)))

    # --- time -----------------------------------------------------------------------------------------------

    def _expire_self(self, *, now: float) -> None:
        if self._remove_at is not None and now >= self._remove_at:
            if self._core.lineage.members == (self,):
                self._phase2.close_all("its lifetime is over")
            self._delete_and_end("its lifetime is over")
            return
        if self._keepalive_at is not None and now >= self._keepalive_at:
            self.outgoing.append(Datagram(self.path, KEEPALIVE))
            self._keepalive_at = now + self.connection.timing.keepalive
        retires_at = self._core.lineage.retires_at(self)
        if retires_at is not None:
            if now >= retires_at:
                self._retire(now=now)
            return
        if self._liveness.dead(now=now):
            self._end(TimedOut("the peer is dead: it gives no sign of life"), "the peer is dead")
            return
        if self._liveness.due(now=now):
            self._ask_for_life(now=now)
        due = self._renew_at is not None and now >= self._renew_at
        if (due or self._core.message_ids.enough) and not self._succession:
            self._reauthenticate(now=now)
        elif due:
            self._renew_at = now + self.connection.timing.handshake

    # --- succession and end ---------------------------------------------------------------------------------

    @property
    def _succession(self) -> bool:
        """True while a successor is being made."""
        return self._successor is not None and self._successor.state is State.CONNECTING

    def _reauthenticate(self, *, now: float) -> None:
        """Phase 1 anew, in an SA of its own, which takes over when it is established; else it is tried again."""
        self._renew_at = now + self.connection.timing.handshake
        successor = Ike1Sa(
            self.connection,
            self.path,
            initiator=True,
            random=self._random,
            reserve_spi=self._reserve_spi,
            observed=self.observed,
        )
        successor._ancestry = self._core.lineage
        successor._before = self._core.lineage.members
        self._successor = successor
        self.begun.append(successor)
        successor.start(now=now)

    def _succeed(self, ancestry: Lineage) -> None:
        """What this SA was begun for, unless the peer is somebody else now, or nothing is left to be succeeded."""
        self._ancestry = None
        leader = ancestry.leader
        if leader is None:
            self._delete_and_end("nothing is left to be taken over")
        elif leader.peer_identity != self.peer_identity:
            error = Unauthenticated(f"the peer was {leader.peer_identity} and now is {self.peer_identity}")
            self._delete_and_end(str(error), error)
        else:
            for other in ancestry.members:
                if isinstance(other, Ike1Sa):
                    self.take_over(other, older=other in self._before)

    def take_over(self, other: Ike1Sa, *, older: bool) -> None:
        """Share the children of another established SA with the same peer: this one comes after it.

        One that is not `older`, which was established after this one had begun, is a rival: both ends have made
        a successor at once. Of two rivals the one with the higher cookie CKY-I stays, at both ends. What has a
        successor is used no more, and deleted by the end that began that, or in case of rivals by its own.
        """
        if other.state is not State.ESTABLISHED or self.state is not State.ESTABLISHED:
            return
        led = other._leads
        lineage = other._core.lineage
        lineage.adopt(self._core.lineage)
        old, new = (other, self) if older or other._first_cookie < self._first_cookie else (self, other)
        deletes = new.initiator if older else old.initiator
        lineage.supersede(
            old, until=self._established_at + (OVERLAP if deletes else self.connection.timing.handshake)
        )
        if led and self._leads:
            self._core.emit(Rekeyed(sa=self, replaced=other))
        other.touched(other)

    @property
    def _first_cookie(self) -> bytes:
        return self._channel.cookies.initiator

    def _retire(self, *, now: float) -> None:
        """Go, unless the successor has gone before."""
        lineage = self._core.lineage
        if all(lineage.is_superseded(each) for each in lineage.members):
            lineage.revive(self)
            self._renew_at = now
        else:
            self._delete_and_end("replaced")

    def _delete_and_end(self, reason: str, error: LocumError | None = None) -> None:
        """Tell the peer, and be over."""
        if self.state is State.ESTABLISHED:
            self._core.inform(informational.sa_deletion(self._channel.cookies))
        self._end(error, reason)

    def _end(self, error: LocumError | None, reason: str) -> None:
        """Be over. The children go on under another SA of the lineage, if there is one."""
        if self.state is State.CLOSED:
            return
        led, lineage = self._leads, self._core.lineage
        lineage.leave(self)
        heir = lineage.leader
        self.state = State.CLOSED
        if heir is None:
            for kept in lineage.children:
                self._core.emit(ChildClosed(sa=self, child=kept.child, reason=reason))
            lineage.children.clear()
        elif led:
            self._core.emit(Rekeyed(sa=heir, replaced=self))
            heir.touched(heir)
        self._core.emit(Closed(sa=self, error=error, reason=reason))
        self._drop_everything()

    def _drop_everything(self) -> None:
        self._asking.clear()
        self._first = self._core.isakmp = None
        self._ancestry = self._successor = None
        self._core.lineage.leave(self)
        # What may still be said to it finds nothing, and disturbs nobody.
        self._core.lineage = Lineage()
        self._before = ()
        self._phase2.clear()
        self._answers.clear()


def _cookie(random: Callable[[int], bytes]) -> bytes:
    """Eight random bytes that are not all zero."""
    while (cookie := random(SPI_LENGTH)) == NO_SPI:
        pass
    return cookie
