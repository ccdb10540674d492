"""A terminal in a namespace, as small as can be: an IKE endpoint on two UDP sockets, and ESP by hand.

A thread drives the endpoint; tests give orders and wait for what they expect. It answers echo requests that come
through the tunnel and can send some. The authority may be any that performs operations at once.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Self, TypeVar

from tests.support.echo import parse_echo, request

from locum.authority.port import AuthoritySession
from locum.errors import DecodeError, LocumError
from locum.handshake import Request, Response
from locum.ike.configuration import Connection, Limits
from locum.ike.endpoint import Endpoint
from locum.ike.engine import (
    IKE_PORT,
    NAT_PORT,
    Child,
    ChildClosed,
    ChildEstablished,
    Established,
    Event,
    IkeSa,
    MessagePassed,
    Path,
    PathChanged,
    State,
)
from locum.ike.nat import KEEPALIVE
from locum.ipsec.modes import EspInbound, EspOutbound
from locum.ipsec.udp import Kind, classify, mark_ike

T = TypeVar("T")
PATIENCE = 10.0
LARGEST_DATAGRAM = 65_535
TERMINAL = "meter-7"


@dataclass
class Asked:
    """Everything that was asked of the authority, in order."""

    requests: list[Request] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)

    def response(self, kind: type[T]) -> T:
        """The only response of this kind."""
        (found,) = (each for each in self.responses if isinstance(each, kind))
        return found


class Device:
    """A context manager. `local` and `inner` are our address and the one behind it that the peer may ping."""

    def __init__(
        self,
        open_socket: Callable[[int], socket.socket],
        open_session: Callable[[], AuthoritySession],
        connection: Connection,
        *,
        local: str,
        inner: str,
        limits: Limits | None = None,
    ) -> None:
        """`open_socket` makes a UDP socket of an address family in the right namespace."""
        self.local = ip_address(local)
        self.inner = inner
        self.events: list[Event] = []
        self.asked = Asked()
        #: Echo requests of the peer that were answered, and the numbers of our own that were.
        self.echoed = 0
        self.answers: set[int] = set()
        #: What became of datagrams that made no sense.
        self.refused: list[Exception] = []
        #: Called with each datagram; those for which it says True are lost.
        self.lose: Callable[[bool, bytes], bool] = lambda outgoing, datagram: False
        self.fault: BaseException | None = None
        self._open_session = open_session
        self._sessions: dict[tuple[int, int], AuthoritySession] = {}
        self._kept: list[IkeSa] = []
        spis = random.Random(1)
        self.endpoint = Endpoint(
            connection,
            random=os.urandom,
            reserve_spi=lambda: spis.randrange(0x1_0000, 1 << 32),
            limits=limits or Limits(),
            observed=True,
        )
        self._receivers: dict[int, EspInbound] = {}
        self._senders: list[EspOutbound] = []
        self._orders: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]]] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        family = socket.AF_INET if self.local.version == 4 else socket.AF_INET6
        self._sockets = {}
        for port in (IKE_PORT, NAT_PORT):
            opened = open_socket(family)
            opened.setblocking(False)
            opened.bind((local, port))
            self._sockets[port] = opened
            self._selector.register(opened, selectors.EVENT_READ, port)
        self._wake_in, self._wake_out = socket.socketpair()
        self._selector.register(self._wake_in, selectors.EVENT_READ, 0)
        self._over = False
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.vanish()
        if self.fault is not None and kind is None:
            raise self.fault

    def vanish(self) -> None:
        """End without a word to the peer. Vanishing twice is harmless."""
        if self._over:
            return
        self._over = True
        self._wake_out.send(b"x")
        self._thread.join(PATIENCE)
        for each in (*self._sockets.values(), self._wake_in, self._wake_out):
            each.close()
        self._selector.close()

    # --- orders -------------------------------------------------------------------------------------------

    def order(self, what: Callable[[], T]) -> T:
        """Have the thread do this; returns what it returned. Anything about SAs must go this way."""
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._orders.put((what, answer))
        self._wake_out.send(b"x")
        return answer.get(timeout=PATIENCE)  # type: ignore[no-any-return]

    def initiate(self, remote: str, *, port: int = IKE_PORT) -> IkeSa:
        """Begin an IKE SA with `remote`."""
        path = Path(self.local, port, ip_address(remote), port)
        return self.order(lambda: self.endpoint.initiate(path, now=time.monotonic()))

    @property
    def live(self) -> list[IkeSa]:
        """The IKE SAs that are not over; one that is stays for a while, to answer what comes again."""
        return self.order(lambda: [sa for sa in self.endpoint.sas if sa.state is not State.CLOSED])

    @property
    def sa(self) -> IkeSa:
        """The only IKE SA that is not over."""
        (found,) = self.live
        return found

    def wait(self, look: Callable[[], T], *, patience: float = PATIENCE) -> T:
        """Wait until `look` finds something true."""
        deadline = time.monotonic() + patience
        while not (found := look()):
            if self.fault is not None:
                raise self.fault
            assert time.monotonic() < deadline, "\n".join(map(str, self.events))
            time.sleep(0.01)
        return found

    def wait_event(self, kind: type[T], *, count: int = 1, patience: float = PATIENCE) -> T:
        """Wait for the event number `count` of this kind, counted from 1; returns it."""
        self.wait(lambda: len(self.seen(kind)) >= count, patience=patience)
        return self.seen(kind)[count - 1]

    def seen(self, kind: type[T]) -> list[T]:
        """Every event of this kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    def established(self) -> Child:
        """Wait for an IKE SA and its first CHILD_SA."""
        self.wait_event(Established)
        return self.wait_event(ChildEstablished).child

    def messages(self) -> list[str]:
        """The messages that passed: ``> IKE_SA_INIT request: ...`` for what we sent, ``<`` for what came."""
        return [f"{'>' if each.outgoing else '<'} {each.description}" for each in self.seen(MessagePassed)]

    def ping(self, destination: str, *, count: int = 2, size: int = 56, patience: float = PATIENCE) -> None:
        """Send echo requests through the tunnel, again and again, until so many were answered."""
        base = len(self.answers)
        deadline = time.monotonic() + patience
        number = max(self.answers, default=0)
        while len(self.answers) < base + count:
            if self.fault is not None:
                raise self.fault
            assert time.monotonic() < deadline, (self.refused[-3:], self.events[-3:])
            number += 1
            packet = request(self.inner, destination, number, size=size).packet()
            self.order(lambda packet=packet: self._send_inside(packet))  # type: ignore[misc]
            time.sleep(0.02)

    # --- the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._over:
                self._wait_and_receive()
                self._obey()
                self.endpoint.expire(now=time.monotonic())
                self._turn()
        except BaseException as error:
            self.fault = error

    def _wait_and_receive(self) -> None:
        due = self.endpoint.next_timeout()
        pause = PATIENCE if due is None else max(0.0, due - time.monotonic())
        for key, _ in self._selector.select(pause):
            if key.data == 0:
                self._wake_in.recv(1024)
                continue
            with contextlib.suppress(BlockingIOError):
                while True:
                    data, (host, port, *_rest) = key.fileobj.recvfrom(LARGEST_DATAGRAM)  # type: ignore[union-attr]
                    if not self.lose(False, data):
                        self._receive(data, Path(self.local, key.data, ip_address(host), port))

    def _receive(self, data: bytes, path: Path) -> None:
        try:
            if path.local_port == IKE_PORT:
                self.endpoint.receive(data, path, now=time.monotonic())
                self._turn()
                return
            found = classify(data)
        except DecodeError as error:
            self.refused.append(error)
            return
        if found.kind is Kind.IKE:
            self.endpoint.receive(found.payload, path, now=time.monotonic())
            self._turn()
        elif found.kind is Kind.ESP:
            self._deliver(found.payload)

    def _obey(self) -> None:
        while not self._orders.empty():
            what, answer = self._orders.get()
            answer.put(what())
            self._turn()

    def _turn(self) -> None:
        """Perform what is asked for, send what there is, and note what happened, until nothing is left."""
        while True:
            waiting = self.endpoint.waiting()
            for sa in waiting:
                self._perform(sa)
            for datagram in self.endpoint.transmit():
                path = datagram.path
                plain = datagram.message == KEEPALIVE or not path.marked
                data = datagram.message if plain else mark_ike(datagram.message)
                if not self.lose(True, data):
                    with contextlib.suppress(OSError):
                        self._sockets[path.local_port].sendto(data, (str(path.remote), path.remote_port))
            self._note(self.endpoint.events())
            if not waiting:
                return

    def _perform(self, sa: IkeSa) -> None:
        assert sa.pending is not None
        requests: Sequence[Request] = sa.pending
        # The SA is kept, so that its number is never another's.
        self._kept.append(sa)
        number = id(sa), sa.session
        if number not in self._sessions:
            self._sessions[number] = self._open_session()
        self.asked.requests += requests
        try:
            responses = self._sessions[number].perform(requests)
        except LocumError as error:
            sa.fail(error, now=time.monotonic())
            return
        self.asked.responses += responses
        sa.answer(responses, now=time.monotonic())

    def _note(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, ChildEstablished):
                self._install(event.child)
            elif isinstance(event, ChildClosed):
                self._remove(event.child)
            elif isinstance(event, PathChanged):
                for before, after in event.moved:
                    self._remove(before)
                    self._install(after)
            # Last: whoever waits for the event finds it in effect.
            self.events.append(event)

    # --- ESP ----------------------------------------------------------------------------------------------

    def _install(self, child: Child) -> None:
        self._receivers[child.inbound.spi] = EspInbound(child.inbound)
        self._senders.append(EspOutbound(child.outbound))

    def _remove(self, child: Child) -> None:
        self._receivers.pop(child.inbound.spi, None)
        self._senders = [each for each in self._senders if each.sa is not child.outbound]

    def _deliver(self, esp: bytes) -> None:
        receiver = self._receivers.get(int.from_bytes(esp[:4], "big"))
        if receiver is None:
            return
        try:
            packet = receiver.unprotect_payload(esp)
        except LocumError as error:
            self.refused.append(error)
            return
        echo = parse_echo(packet) if packet is not None else None
        if echo is None:
            return
        if echo.reply:
            self.answers.add(int.from_bytes(echo.body[2:4], "big"))
        elif echo.destination == ip_address(self.inner).packed:
            self.echoed += 1
            self._send_inside(echo.answer().packet())

    def _send_inside(self, packet: bytes) -> None:
        if not self._senders:
            return
        sender = self._senders[-1]
        ports = sender.sa.encapsulation
        assert ports is not None, "this device has ESP in UDP only"
        outer = sender.protect(packet)
        header = (20 if sender.sa.source.version == 4 else 40) + 8
        data = outer[header:]
        if not self.lose(True, data):
            with contextlib.suppress(OSError):
                self._sockets[ports.source_port].sendto(data, (str(sender.sa.destination), ports.destination_port))
