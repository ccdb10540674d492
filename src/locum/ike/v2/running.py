"""How the exchanges of one IKE SA are run: messages in and out, one exchange of each end at a time.

Never reads a payload and looks at no clock; what an SA begins, and when, `sa` says.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any
from weakref import ref

from locum.errors import LocumError, Refused
from locum.handshake import Ask, Opening, Request, Response
from locum.ike.configuration import Connection
from locum.ike.engine import Datagram, IkeSa, MessagePassed, Path, State
from locum.ike.errors import Notification, StateNotFound, UnexpectedMessage, notify2_for
from locum.ike.header import SPI_LENGTH, Header
from locum.ike.payloads2 import Notify, Payload, SecurityAssociation
from locum.ike.registry import ExchangeType, Flags2, NotifyType2, ProtocolId
from locum.ike.v2 import child_exchanges, deletion, rekeying, responder
from locum.ike.v2.channel import Channel
from locum.ike.v2.core import Core, End
from locum.ike.v2.key_exchanges import link_of
from locum.ike.v2.messages import Content, describe, read
from locum.ike.v2.steps import Answering, Exchange, Reply, Task

#: An IKE_FOLLOWUP_KE comes within so many seconds, or what it goes on with is forgotten.
FOLLOWUP_PATIENCE = 30.0

#: What may be asked of an SA that is established.
_ESTABLISHED = frozenset({ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL, ExchangeType.IKE_FOLLOWUP_KE})


@dataclass(slots=True, eq=False)
class Running:
    """A generator under way. `step` is what it waits for, None while that is the authority."""

    generator: Generator[Any, Any, Any]
    #: of one that answers the peer: the request at hand, and where it came from
    exchange_type: ExchangeType | None = None
    path: Path | None = None
    step: Exchange[Any] | Reply | None = None
    session: int = 0

    @property
    def own(self) -> bool:
        """True for an exchange that we have begun."""
        return self.exchange_type is None


class Runner(IkeSa):
    """The part of `Ike2Sa` that runs generators: at most one of ours, and one that answers the peer."""

    __slots__ = (
        "_asks",
        "_core",
        "_followed",
        "_followed_until",
        "_init_request",
        "_last_heard",
        "_last_sent",
        "_ours",
        "_queue",
        "_sessions",
        "_theirs",
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
        own_spi: bytes = b"",
    ) -> None:
        super().__init__(
            connection, path, initiator=initiator, random=random, reserve_spi=reserve_spi, observed=observed
        )
        channel = Channel(own_spi or random(SPI_LENGTH), initiator=initiator, random=random)
        succession = type(self)._begin_successor
        self._core = Core(ref(self), initiator, channel, random, reserve_spi, succession)
        #: exchanges of ours that wait for their turn
        self._queue: list[Callable[[Core], Task]] = []
        self._ours: Running | None = None
        self._theirs: Running | None = None
        #: an exchange of the peer's that goes on with IKE_FOLLOWUP_KE, and until when
        self._followed: Running | None = None
        self._followed_until = 0.0
        self._asks: list[tuple[Running, tuple[Request, ...]]] = []
        self._sessions = 0
        self._init_request = b""
        self._last_heard = self._last_sent = 0.0

    @property
    def own_spi(self) -> bytes:
        return self._core.channel.own_spi

    @property
    def peer_spi(self) -> bytes:
        return self._core.channel.peer_spi

    @abstractmethod
    def _begin_successor(self, *args: Any, **keywords: Any) -> Any:
        """`Core.succession`."""

    @abstractmethod
    def _finish(self, error: LocumError | None, reason: str, *, linger: bool = False) -> None:
        """The SA is over, now; to `linger` is to repeat the last response if it is asked for again."""

    @abstractmethod
    def _hinted(self, error: LocumError) -> None:
        """A response in clear says that nothing will come of the handshake; anybody may have sent it."""

    @abstractmethod
    def _claimed(self, request: Content) -> None:
        """The peer uses this SA."""

    @abstractmethod
    def _settle(self) -> None:
        """Begin what can be begun, or end, after something has happened."""

    # --- messages in --------------------------------------------------------------------------------------

    def receive(self, header: Header, message: bytes, path: Path, *, now: float) -> None:
        self._core.now = now
        try:
            if bool(header.flags & Flags2.INITIATOR) == self.initiator:
                raise UnexpectedMessage("a message of our own")
            if header.flags & Flags2.RESPONSE:
                self._receive_response(header, message, path)
            elif header.exchange_type == ExchangeType.IKE_SA_INIT:
                self._receive_init(header, message, path)
            else:
                self._receive_request(header, message, path)
        except LocumError:
            self.dropped += 1
        self._settle()

    def _receive_init(self, header: Header, message: bytes, path: Path) -> None:
        """The message that this SA was made for, or the same once more."""
        channel = self._core.channel
        if self.initiator or (self._init_request and message != self._init_request):
            raise UnexpectedMessage("a second IKE_SA_INIT request")
        if self._init_request:
            for datagram in channel.repetition_of_init():
                self._transmit(datagram, path)
            return
        self._init_request = message
        opened = channel.open_request(header, message)
        assert opened is not None
        running = self._theirs = Running(self._refusing(), ExchangeType.IKE_SA_INIT, path)
        try:
            content = read(header, *opened, message)
        except LocumError as error:
            self._failed(running, error)
            return
        self._observe(content.header, content.payloads, len(message), outgoing=False)
        running.generator = responder.establish(self._core, content)
        self._advance(running)

    @staticmethod
    def _refusing() -> Answering:
        """Stands for an exchange that was not begun, because the request is malformed."""
        yield from ()
        return ()

    def _receive_request(self, header: Header, message: bytes, path: Path) -> None:
        channel = self._core.channel
        if header.message_id == channel.expected_id - 1:
            for datagram in channel.repetition(header, message):
                self._transmit(datagram, path)
            return
        due = self._due()
        if header.exchange_type not in due:
            raise UnexpectedMessage(f"exchange {header.exchange_type} is not due")
        opened = channel.open_request(header, message)
        if opened is None:
            return
        self._heard(path)
        exchange_type = ExchangeType(header.exchange_type)
        try:
            content = read(header, *opened)
            self._observe(header, content.payloads, len(message), outgoing=False)
            self._claimed(content)
            running, value = self._whose(content, exchange_type)
        except LocumError as error:
            running = self._theirs or Running(self._refusing())
            running.exchange_type, running.path = exchange_type, path
            self._theirs = running
            self._failed(running, error)
            return
        running.exchange_type, running.path, running.step = exchange_type, path, None
        self._theirs = running
        self._advance(running, value)

    def _due(self) -> frozenset[ExchangeType] | tuple[ExchangeType, ...]:
        """The exchanges that the peer may begin or go on with now; none while a request of its is at work."""
        if self._theirs is not None:
            step = self._theirs.step
            return step.expected if isinstance(step, Reply) else ()
        return _ESTABLISHED if self.state is State.ESTABLISHED else ()

    def _whose(self, request: Content, exchange_type: ExchangeType) -> tuple[Running, Content | None]:
        """The generator that a request is for, and what to send it: a new one is not sent anything."""
        if self._theirs is not None:
            return self._theirs, request
        if exchange_type == ExchangeType.IKE_FOLLOWUP_KE:
            followed, self._followed = self._followed, None
            if followed is None or not isinstance(followed.step, Reply) or followed.step.link != link_of(request):
                raise StateNotFound("an IKE_FOLLOWUP_KE that goes on with nothing")
            return followed, request
        return Running(self._answer_to(request, exchange_type)), None

    def _answer_to(self, request: Content, exchange_type: ExchangeType) -> Answering:
        if exchange_type == ExchangeType.INFORMATIONAL:
            return deletion.answer(self._core, request)
        # Whatever came before is given up by whoever begins anew (RFC 9370 section 2.2.4).
        self._forget_followed()
        proposals = request.one(SecurityAssociation).proposals
        if proposals[0].protocol == ProtocolId.IKE:
            return rekeying.answer(self._core, request)
        return child_exchanges.answer(self._core, request)

    def _forget_followed(self) -> None:
        if self._followed is not None:
            self._followed.generator.close()
            self._followed = None

    def _receive_response(self, header: Header, message: bytes, path: Path) -> None:
        running, channel = self._ours, self._core.channel
        if running is None or not isinstance(running.step, Exchange):
            raise UnexpectedMessage("a response that nobody waits for")
        opened = channel.open_response(header, message)
        if opened is None:
            return
        step = running.step
        if header.exchange_type == ExchangeType.IKE_SA_INIT:
            try:
                content = read(header, *opened, message)
                result = step.accept(content)
            except UnexpectedMessage:
                raise
            except LocumError as error:
                self._hinted(error)
                raise
            self._last_heard = self._core.now
        else:
            self._heard(path)
            channel.answered()
            running.step = None
            try:
                content = read(header, *opened)
                self._check_fatal(content)
                result = step.accept(content)
            except LocumError as error:
                self._advance(running, error=error)
                return
        self._observe(header, content.payloads, len(message), outgoing=False)
        channel.answered()
        running.step = None
        self._advance(running, result)

    def _check_fatal(self, content: Content) -> None:
        """RFC 7296 section 2.21.3: INVALID_SYNTAX is the end of an SA, whatever it answers."""
        if self.state is State.ESTABLISHED and content.notify(NotifyType2.INVALID_SYNTAX) is not None:
            self._core.end = End(content.error, "the peer reports an error")

    def _heard(self, path: Path) -> None:
        """A message is authentic and newer than all before it."""
        core = self._core
        if self.state is State.CONNECTING and path.remote != self.path.remote:
            # The authority was told another address, and the connection may be for that one only.
            raise UnexpectedMessage("a handshake that goes on from another address")
        self._last_heard = core.now
        if path == self.path:
            return
        if self.state is State.CONNECTING:
            # An initiator goes on from another port (RFC 7296 section 2.23).
            if not self.initiator:
                self.path = path
        elif core.nat_there and not core.nat_here:
            core.move(path)

    # --- messages out -------------------------------------------------------------------------------------

    def _transmit(self, message: bytes, path: Path) -> None:
        self._last_sent = self._core.now
        self.outgoing.append(Datagram(path, message))

    def _observe(self, header: Header, payloads: tuple[Payload, ...], length: int, *, outgoing: bool) -> None:
        if self.observed:
            description = describe(header, payloads)
            self.events.append(MessagePassed(sa=self, outgoing=outgoing, description=description, length=length))

    def _send_request(self, running: Running, step: Exchange[Any]) -> None:
        running.step = step
        core = self._core
        outstanding = core.channel.request(
            step.exchange_type, step.payloads, now=core.now, interval=self.connection.timing.retransmission
        )
        for datagram in outstanding.datagrams:
            self._transmit(datagram, self.path)
        if self.observed:
            header = core.channel.header(step.exchange_type, outstanding.message_id, response=False)
            self._observe(header, step.payloads, sum(map(len, outstanding.datagrams)), outgoing=True)

    def _send_response(self, running: Running, payloads: tuple[Payload, ...]) -> None:
        channel = self._core.channel
        assert running.exchange_type is not None
        assert running.path is not None
        datagrams = channel.respond(running.exchange_type, payloads)
        for datagram in datagrams:
            # RFC 7296 section 2.11: an answer goes where the request came from.
            self._transmit(datagram, running.path)
        if self.observed:
            header = channel.header(running.exchange_type, channel.expected_id - 1, response=True)
            self._observe(header, payloads, sum(map(len, datagrams)), outgoing=True)

    # --- generators ---------------------------------------------------------------------------------------

    def _begin(self, task: Task) -> None:
        """Run an exchange of ours."""
        self._ours = Running(task)
        self._advance(self._ours)

    def _advance(self, running: Running, value: Any = None, *, error: LocumError | None = None) -> None:
        """Let a generator go on to its next step."""
        try:
            generator = running.generator
            step = generator.send(value) if error is None else generator.throw(error)
        except StopIteration as stop:
            self._finished(running, stop.value)
        except LocumError as failure:
            self._failed(running, failure)
        else:
            if isinstance(step, Ask):
                self._ask(running, step.requests)
            elif isinstance(step, Exchange):
                self._send_request(running, step)
            else:
                self._send_reply(running, step)

    def _send_reply(self, running: Running, step: Reply) -> None:
        self._send_response(running, step.payloads)
        running.step = step
        if step.link:
            self._theirs, self._followed = None, running
            self._followed_until = self._core.now + FOLLOWUP_PATIENCE

    def _finished(self, running: Running, payloads: tuple[Payload, ...] | None) -> None:
        if running.own:
            self._ours = None
            return
        self._send_response(running, payloads or ())
        self._theirs = None

    def _failed(self, running: Running, error: LocumError) -> None:
        if running.own:
            self._ours = None
            if self.state is State.CONNECTING:
                self._core.end = End(error, str(error), self._farewell(error))
            return
        self._theirs = None
        notification = _notification(error, running.exchange_type)
        if notification is not None:
            self._send_response(running, (_notify(notification),))
        fatal = notification is not None and notification.notify_type == NotifyType2.INVALID_SYNTAX
        if self.state is State.CONNECTING or fatal:
            self._core.end = End(error, str(error))

    def _farewell(self, error: LocumError) -> tuple[Payload, ...]:
        """What the responder is told that takes the SA for established (RFC 7296 section 2.21.2)."""
        if not self._core.peer_established:
            return ()
        notification = notify2_for(error)
        if notification is not None and notification.notify_type == NotifyType2.AUTHENTICATION_FAILED:
            return (_notify(notification),)
        return (deletion.DELETE_SA,)

    def _stop_all(self) -> None:
        """Give every generator up."""
        for running in (self._ours, self._theirs, self._followed):
            if running is not None:
                running.generator.close()
        self._ours = self._theirs = self._followed = None
        self._asks.clear()
        self._queue.clear()
        self.pending = None

    # --- the authority ------------------------------------------------------------------------------------

    def _ask(self, running: Running, requests: tuple[Request, ...]) -> None:
        if isinstance(requests[0], Opening):
            running.session = self._sessions
            self._sessions += 1
        self._asks.append((running, requests))
        self._offer_pending()

    def _offer_pending(self) -> None:
        if self.pending is None and self._asks:
            running, requests = self._asks[0]
            self.session, self.pending = running.session, requests

    def answer(self, responses: tuple[Response, ...], *, now: float) -> None:
        self._answered(now, responses, None)

    def fail(self, error: LocumError, *, now: float) -> None:
        self._answered(now, None, error)

    def _answered(self, now: float, responses: tuple[Response, ...] | None, error: LocumError | None) -> None:
        self._core.now = now
        if self.pending is None:
            return
        running, _ = self._asks.pop(0)
        self.pending = None
        self._advance(running, responses, error=error)
        self._offer_pending()
        self._settle()
        self.touched(self)


def _notify(notification: Notification) -> Notify:
    return Notify(
        notify_type=notification.notify_type,
        data=notification.data,
        protocol=notification.protocol,
        spi=notification.spi,
    )


def _notification(error: LocumError, exchange_type: ExchangeType | None) -> Notification | None:
    """As `notify2_for`; an authority that refuses a peer has decided, and does not want it to try again."""
    if isinstance(error, Refused):
        if exchange_type == ExchangeType.IKE_SA_INIT:
            return Notification(NotifyType2.NO_PROPOSAL_CHOSEN)
        if exchange_type in (ExchangeType.IKE_AUTH, ExchangeType.IKE_INTERMEDIATE):
            return Notification(NotifyType2.AUTHENTICATION_FAILED)
    return notify2_for(error)
