"""The terminal's side of its delegates, without I/O: secure path or not, who is asked next, what an answer cost.

Never opens a socket, and never looks into a payload; both drivers, asyncio and blocking, are built on it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import field

from locum.authority.remote import PATH
from locum.errors import ConfigurationError, LocumError, OperationError, Refused, Unavailable
from locum.link.client import Client
from locum.link.coap import MAXIMUM_BODY, Framing
from locum.link.exchange import TransmissionParameters
from locum.terminal.credential import DelegateCredential
from locum.terminal.steps import Cost
from locum.text import what_failed
from locum.values import dataclass

#: Seconds that connecting to a peer, handshake included, may take unless the caller says otherwise.
CONNECT_TIMEOUT = 30.0

#: Seconds that a delegate has for one answer while another delegate could be asked instead. The last one has
#: all the time that is left.
ANSWER_TIMEOUT = 5.0

#: Handshakes of one process that one delegate is asked about at a time; others wait. A delegate gives room to so
#: many sessions of a terminal, and drops the oldest beyond.
MAXIMUM_HANDSHAKES = 32

#: Seconds during which a delegate that failed is asked only after all others.
HOLD_DOWN = 30.0

#: Times that a handshake is begun anew, with another delegate, after the peer has been sent a ClientHello.
MAXIMUM_RESTARTS = 1

#: Seconds before a delegate that wants fewer requests is asked again; doubled each time, and spread at random
#: between half and all of it, so that many handshakes of one terminal do not come back together.
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 4.0

#: What an authority in the terminal's own process is called where a delegate's address would stand.
IN_PROCESS = "in-process"

#: Bytes of one datagram from a delegate; IP allows no more.
MAXIMUM_DATAGRAM = 65_535


#: Bytes of a datagram to a delegate on the same machine, where nothing on the way is smaller.
LOOPBACK_DATAGRAM = 16_384


class DelegateFailed(Unavailable):
    """This delegate did not do its part; another one may (A12). `refused` when it would do so again."""

    def __init__(self, delegate: str, reason: LocumError | OSError | str) -> None:
        super().__init__(f"delegate {delegate}: {_reason(reason)}")
        self.delegate = delegate
        self.refused = isinstance(reason, Refused)


def _reason(reason: LocumError | OSError | str) -> str:
    return what_failed(reason) if isinstance(reason, OSError) else str(reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A delegate's answer as it came over the link, and what it cost there, CoAP and OSCORE included."""

    delegate: str
    code: int
    payload: bytes = field(repr=False)
    cost: Cost = field(default_factory=Cost)


class Channel:
    """The link to one delegate: requests in flight, and what they cost. Times are seconds of a monotonic clock.

    The terminal's half of the decision of A4: messages are plain only where the credential says that the path is
    secure, and under the channel key everywhere else. The delegate decides for itself.
    """

    def __init__(self, delegate: DelegateCredential, *, terminal: str, random: Callable[[int], bytes]) -> None:
        self.name = str(delegate.address)
        self.secure_path = delegate.secure_path
        self.delegate = delegate
        self._terminal = terminal
        self._random = random
        self._parameters = TransmissionParameters()
        if _is_loopback(delegate.address.endpoint.host):
            self._parameters = TransmissionParameters(datagram_size=LOOPBACK_DATAGRAM)
        self._sequence = None if delegate.secure_path else delegate.sequence
        self._started: dict[int, tuple[float, int, int]] = {}
        self._client = self._new_client()

    @property
    def framing(self) -> Framing:
        """Datagrams or a stream, by the delegate's address."""
        return Framing.DATAGRAM if self.delegate.address.transport == "udp" else Framing.STREAM

    def renew(self) -> None:
        """Begin with a new stream, which knows nothing of the one before; everything in flight is lost."""
        self._started.clear()
        self._client = self._new_client()

    def _new_client(self) -> Client:
        return Client(
            credential=None if self.secure_path else self.delegate.channel,
            sequence=self._sequence,
            framing=self.framing,
            random=self._random,
            terminal_name=self._terminal,
            parameters=self._parameters,
        )

    def post(self, payload: bytes, *, now: float) -> int:
        """Send a message of operations; returns the number that `settled` and `abandon` know it by.

        Raises: DelegateFailed when it cannot be sent; Refused when it is too large for any delegate.
        """
        if len(payload) > MAXIMUM_BODY:
            raise Refused(f"delegate {self.name}: {len(payload)} bytes are too much for one message")
        before = (now, self._client.bytes_sent, self._client.bytes_received)
        try:
            exchange = self._client.request(PATH, payload, now=now)
        except LocumError as error:
            raise DelegateFailed(self.name, error) from None
        self._started[exchange] = before
        return exchange

    def settled(self, exchange: int, *, now: float) -> Answer | None:
        """The answer to an exchange, or None while it is under way. Raises: DelegateFailed."""
        try:
            reply = self._client.outcome(exchange)
        except LocumError as error:
            self._started.pop(exchange, None)
            raise DelegateFailed(self.name, error) from None
        if reply is None:
            return None
        started, sent, received = self._started.pop(exchange)
        cost = Cost(
            bytes_out=self._client.bytes_sent - sent,
            bytes_in=self._client.bytes_received - received,
            seconds=now - started,
        )
        return Answer(delegate=self.name, code=reply.code, payload=reply.payload, cost=cost)

    def abandon(self, exchange: int) -> None:
        """Nobody waits for this exchange any more."""
        if self._started.pop(exchange, None) is not None:
            self._client.cancel(exchange)

    def receive(self, data: bytes, *, now: float) -> None:
        """Take bytes from the delegate: one datagram, or a piece of the stream."""
        self._client.receive(data, now=now)

    def disconnected(self, reason: OSError | str) -> None:
        """The socket is gone, or the system says that nobody is there: everything in flight fails."""
        self._client.disconnected(_reason(reason))

    @property
    def closed(self) -> bool:
        """True when the stream can be used no more."""
        return self._client.closed

    def transmit(self) -> list[bytes]:
        """What to send to the delegate now, one item per datagram."""
        return self._client.transmit()

    def next_timeout(self) -> float | None:
        """When to call `expire`."""
        return self._client.next_timeout()

    def expire(self, *, now: float) -> None:
        """Time has passed: retransmit, or give up."""
        self._client.expire(now=now)


class Delegates:
    """The delegates of a credential in their order, those that failed lately behind the others (A12)."""

    def __init__(self, names: tuple[str, ...]) -> None:
        if not names:
            raise ConfigurationError("the credential names no delegate")
        self._names = names
        self._held_until = dict.fromkeys(names, float("-inf"))

    def order(self, now: float) -> tuple[str, ...]:
        """All delegates, the one to ask first in front."""
        return tuple(sorted(self._names, key=lambda name: self._held_until[name] > now))

    def failed(self, name: str, now: float) -> None:
        """Hold this one down for a while."""
        self._held_until[name] = now + HOLD_DOWN

    def worked(self, name: str) -> None:
        """It answers again."""
        self._held_until[name] = float("-inf")


class Attempts:
    """One connection's way through the delegates: each is tried once, and the peer is bothered twice at most."""

    def __init__(self, delegates: Delegates, *, now: float, deadline: float) -> None:
        self.deadline = deadline
        self._delegates = delegates
        self._left = list(delegates.order(now))
        self._restarts = 0
        self._errors: list[DelegateFailed] = []

    def next(self) -> str:
        """The delegate to try now; call it first, and after each `failed`."""
        return self._left.pop(0)

    def answer_deadline(self, now: float) -> float:
        """Until when the delegate under way may take for one answer."""
        return min(self.deadline, now + ANSWER_TIMEOUT) if self._left else self.deadline

    def worked(self, name: str) -> None:
        """The handshake is complete."""
        self._delegates.worked(name)

    def failed(self, error: DelegateFailed, *, peer_touched: bool, now: float) -> None:
        """Go on to the next delegate after `error`; `peer_touched` when the peer was sent anything.

        Raises: an OperationError that sums up, when there is no other delegate, no time, or no restart left.
        """
        self._delegates.failed(error.delegate, now)
        self._errors.append(error)
        self._restarts += peer_touched
        if not self._left or now >= self.deadline or self._restarts > MAXIMUM_RESTARTS:
            raise self._summary()

    def _summary(self) -> OperationError:
        if len(self._errors) == 1:
            return self._errors[0]
        return Unavailable("no delegate could do it: " + "; ".join(str(error) for error in self._errors))


def late(delegate: str, seconds: float) -> DelegateFailed:
    """The error of a delegate that took too long for one answer."""
    return DelegateFailed(delegate, f"no answer within {seconds:.1f} s")


def crowded(delegate: str) -> DelegateFailed:
    """The error of a handshake that never got its turn."""
    return DelegateFailed(delegate, f"{MAXIMUM_HANDSHAKES} handshakes are under way already")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
