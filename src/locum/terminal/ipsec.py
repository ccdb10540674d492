"""The asyncio driver of IKE: `IpsecTerminal` has security associations made with a peer, and keeps them (A8, A9).

Contains no protocol and no public-key code: it moves messages between the ports of an installer, the engine of IKE
and the delegates, puts into effect what was agreed on, and takes it out again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any

from locum.errors import ConfigurationError, LocumError, TimedOut
from locum.handshake import Request
from locum.ike import engine
from locum.ike.configuration import Connection, Limits
from locum.ike.endpoint import Endpoint
from locum.ike.engine import IKE_PORT, NAT_PORT, Child, IkeSa, State
from locum.ike.nat import KEEPALIVE
from locum.ipsec.installer import Installer, Port
from locum.ipsec.selectors import Address, TrafficSelector
from locum.names import DelegateAddress
from locum.terminal.aio_channel import AsyncChannel
from locum.terminal.cipher_keys import CipherKeyDatabase
from locum.terminal.credential import TerminalCredential
from locum.terminal.device import Authority, Device
from locum.terminal.ipsec_conduct import Conduct
from locum.terminal.ipsec_dataplane import Dataplane
from locum.terminal.ipsec_keeping import Keeper
from locum.terminal.ipsec_reports import Ready, Report
from locum.terminal.ipsec_sessions import Sessions
from locum.terminal.steps import Observer

#: Seconds that the peer has to answer when everything is deleted at the end.
CLOSE_TIME = 3.0

#: Seconds between looks at how much each association has carried.
EXPIRY_INTERVAL = 5.0

_IP_PROTOCOLS = {"udp": 17, "tcp": 6}


def _ignore(_: object) -> None:
    """What is told to those who do not listen."""


class IpsecTerminal:
    """One connection with one peer: an asynchronous context manager that has SAs made and kept, and deletes them.

    An initiator tries again, with growing pauses, when the SA is lost; a responder waits. What may pass by itself
    is tried again the first time too; everything else then is the end, which `up` and `wait` raise.
    """

    def __init__(
        self,
        credential: TerminalCredential | Path | str | None = None,
        *,
        connection: Connection,
        installer: Installer,
        authority: Authority | None = None,
        respond: bool = False,
        local: Address | None = None,
        port: int | None = None,
        peer_port: int | None = None,
        observer: Observer | None = None,
        on_report: Callable[[Report], None] = _ignore,
        on_event: Callable[[engine.Event], None] = _ignore,
        limits: Limits | None = None,
    ) -> None:
        """`credential` is a credential file or what was read from it; `authority` stands for the delegates.

        `installer` has not been started. `local` is the address to be used, else the one towards the peer. IKE is
        spoken on ports 500 and 4500, or with `port` on that one alone, always with the non-ESP marker, and then
        with `peer_port` of the peer (4500). `observer` is told every step, `on_report` what is of lasting
        interest, `on_event` everything that the engine says. Raises: ConfigurationError.
        """
        if connection.remote is None and not respond:
            raise ConfigurationError("an initiator needs to know its peer's address")
        if local is not None and connection.remote is not None and local.version != connection.remote.version:
            raise ConfigurationError(f"{local} and {connection.remote} are addresses of different IP versions")
        self._device: Device[AsyncChannel] = Device(
            credential, authority=authority, observer=observer, channel=AsyncChannel
        )
        self._connection = connection
        self._installer = installer
        self._respond = respond
        self._local = local
        self._numbers = (IKE_PORT, NAT_PORT) if port is None else (port,)
        self._peer_port = peer_port or (IKE_PORT if port is None else NAT_PORT)
        self._report = on_report
        self._on_event = on_event
        self._endpoint = Endpoint(
            connection,
            random=os.urandom,
            reserve_spi=installer.reserve_spi,
            limits=limits or Limits(),
            observed=observer is not None or on_event is not _ignore,
        )
        self._sessions = Sessions(self._device, patience=connection.timing.handshake)
        self._ports: dict[int, Port] = {}
        self._asked: dict[IkeSa, tuple[tuple[Request, ...], asyncio.Task[None]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._again: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._closing = False
        self._pumping = False

    # --- for whoever uses it ------------------------------------------------------------------------------

    @property
    def keys(self) -> CipherKeyDatabase[Any]:
        """The cipher-key database of fig 2: of every IKE SA and every child that is in force."""
        return self._device.keys

    @property
    def sas(self) -> tuple[IkeSa, ...]:
        """The IKE SAs that there are, those under way included."""
        return self._endpoint.sas

    @property
    def children(self) -> tuple[Child, ...]:
        """The children in effect, the oldest first."""
        return self._dataplane.children

    async def __aenter__(self) -> IpsecTerminal:
        self._loop = asyncio.get_running_loop()
        self._up: asyncio.Future[Child] = self._loop.create_future()
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self._drained = asyncio.Event()
        # Whether anybody waits for it or not.
        self._failure.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._dataplane = Dataplane(self._installer, self._connection, outside=await self._delegate_selectors())
        self._conduct = Conduct(
            self._connection,
            self,
            dataplane=self._dataplane,
            sessions=self._sessions,
            keeper=Keeper(delegates=len(self._device.channels), random=os.urandom),
            keys=self.keys,
            respond=self._respond,
            observer=self._device.observer,
            report=self._report,
        )
        try:
            self._start()
        except BaseException:
            self._release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def up(self, *, within: float | None = None) -> Child:
        """Wait until traffic is protected for the first time, `within` seconds at most. Raises: LocumError."""
        waiting: set[asyncio.Future[Any]] = {self._up, self._failure}
        await asyncio.wait(waiting, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if self._up.done():
            return self._up.result()
        if self._failure.done():
            self._failure.result()
        reason = self._conduct.last_reason
        reason = f": {reason}" if reason else ""
        raise TimedOut(f"no SA with {self._connection.remote or 'any peer'} within {within:g} s{reason}")

    async def wait(self) -> None:
        """Wait for the end, which only a failure brings. Raises: LocumError."""
        await asyncio.shield(self._failure)

    async def close(self) -> None:
        """Delete every SA at the peer, and take out everything that was put in. Closing twice is harmless."""
        if self._closing:
            return
        self._closing = True
        self._conduct.close()
        for timer in (self._again, self._expiry):
            if timer is not None:
                timer.cancel()
        try:
            self._drained.clear()
            self._pump(self._endpoint.close)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIME):
                    await self._drained.wait()
        finally:
            self._release()

    def rekey(self) -> None:
        """Make successors of every IKE SA now."""
        for sa in self._endpoint.sas:
            if sa.state is State.ESTABLISHED:
                sa.rekey(now=self.now())
        self._pump()

    def rekey_children(self) -> None:
        """Make successors of every child now."""
        for child in self._dataplane.children:
            sa = self._dataplane.owner(child)
            if sa is not None:
                sa.rekey_child(child, now=self.now())
        self._pump()

    # --- beginning and end --------------------------------------------------------------------------------

    def _start(self) -> None:
        self._installer.start()
        for number in self._numbers:
            port = self._open_port(number)
            self._ports[port.number] = port
        remote = self._connection.remote
        if remote is not None:
            self._dataplane.expect(self._own_address(remote), remote)
        self._report(Ready(local=self._local, ports=tuple(self._ports), dataplane=self._installer.name))
        self._expiry = self._loop.call_later(EXPIRY_INTERVAL, self._look_at_expiry)
        if not self._respond:
            self._attempt()

    def _open_port(self, number: int) -> Port:
        def receive(message: bytes, local: Address, remote: Address, remote_port: int) -> None:
            path = engine.Path(local, port.number, remote, remote_port)
            self._endpoint.receive(message, path, now=self.now())
            self._pump()

        port = self._installer.open_port(number, receive, local=self._local, encapsulated=number != IKE_PORT)
        return port

    def _own_address(self, remote: Address) -> Address:
        return self._local or self._installer.local_address(remote)

    async def _delegate_selectors(self) -> tuple[TrafficSelector, ...]:
        """Traffic to the delegates, which must be reachable without the SAs that they are asked about."""
        found = [await _selectors_of(channel.address) for channel in self._device.channels.values()]
        return tuple(selector for selectors in found for selector in selectors)

    def _release(self) -> None:
        """Let go of everything, in the order in which nothing is sent unprotected."""
        self._closing = True
        for timer in (self._timer, self._again, self._expiry):
            if timer is not None:
                timer.cancel()
        for _, task in self._asked.values():
            task.cancel()
        self._asked.clear()
        self._sessions.close()
        self._conduct.forget()
        try:
            self._installer.close()
        finally:
            self._device.close()

    # --- for `Conduct` ------------------------------------------------------------------------------------

    def now(self) -> float:
        """The time of the event loop, which is the engine's."""
        return self._loop.time()

    def live(self) -> list[IkeSa]:
        """The IKE SAs that are not closed."""
        return [sa for sa in self._endpoint.sas if sa.state is not State.CLOSED]

    def abandon(self, sa: IkeSa) -> None:
        """Stop to ask for anything for this SA."""
        asked = self._asked.pop(sa, None)
        if asked is not None:
            asked[1].cancel()

    @property
    def busy(self) -> bool:
        """True when another attempt is going to be made, or none ever again."""
        return self._again is not None or self._failure.done()

    def try_again(self, seconds: float) -> None:
        """Make another attempt after so many seconds."""
        self._again = self._loop.call_later(seconds, self._attempt)

    def protected(self, child: Child) -> None:
        """Tell whoever waits for the first child."""
        if not self._up.done():
            self._up.set_result(child)

    def fail(self, error: BaseException) -> None:
        """This is the end of it; whoever waits is told."""
        if not self._failure.done():
            self._failure.set_exception(error)

    # --- an initiator's attempts --------------------------------------------------------------------------

    def _attempt(self) -> None:
        """Make what is missing: an SA, or a child of the one that there is."""
        self._again = None
        live = self.live()
        if not live:
            self._initiate()
        elif not self._dataplane.children:
            established = next((sa for sa in live if sa.state is State.ESTABLISHED), None)
            if established is not None:
                established.create_child(now=self.now())
        self._pump()

    def _initiate(self) -> None:
        remote = self._connection.remote
        assert remote is not None
        try:
            local = self._own_address(remote)
            self._dataplane.expect(local, remote)
            path = engine.Path(local, self._numbers[0], remote, self._peer_port)
            self._endpoint.initiate(path, now=self.now())
        except LocumError as error:
            self._conduct.missing(error, str(error))

    # --- the pump -----------------------------------------------------------------------------------------

    def _pump(self, begin: Callable[..., None] | None = None) -> None:
        """Call `begin` with the time, then do what the engine wants done, until it wants nothing more."""
        if self._pumping:
            return
        self._pumping = True
        try:
            if begin is not None:
                begin(now=self.now())
            while self._endpoint.busy:
                self._step()
        except Exception as error:
            # Nobody above this would stop the terminal, which must not go on half alive.
            self.fail(error)
        finally:
            self._pumping = False
        self._schedule()
        if self._closing and not self.live():
            self._drained.set()

    def _step(self) -> None:
        """One round."""
        datagrams, events = self._endpoint.transmit(), self._endpoint.events()
        for event in events:
            self._on_event(event)
            self._conduct.act(event)
        # Last: who has our answer may send at once what an association must be there for (RFC 7296 section 2.8).
        for datagram in datagrams:
            self._send(datagram)
        for sa in self._endpoint.waiting():
            self._ask(sa)

    def _send(self, datagram: engine.Datagram) -> None:
        path, port = datagram.path, self._ports.get(datagram.path.local_port)
        if port is None:
            return
        if datagram.message == KEEPALIVE:
            port.send_keepalive(path.local, path.remote, path.remote_port)
        else:
            port.send(datagram.message, path.local, path.remote, path.remote_port)

    def _schedule(self) -> None:
        due = self._endpoint.next_timeout()
        if self._timer is not None:
            # Too early does no harm, and happens less often than something else becoming due.
            if due is None or self._timer_due <= due:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer_due = due
            self._timer = self._loop.call_at(due, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._pump(self._endpoint.expire)

    def _look_at_expiry(self) -> None:
        self._expiry = self._loop.call_later(EXPIRY_INTERVAL, self._look_at_expiry)
        self._conduct.look_at_expiry()
        self._pump()

    # --- operations ---------------------------------------------------------------------------------------

    def _ask(self, sa: IkeSa) -> None:
        """Have what `sa` waits for performed, unless that is under way."""
        requests = sa.pending
        if requests is None:
            return
        if self._sessions.immediate:
            self._perform_here(sa, requests)
            return
        asked = self._asked.get(sa)
        if asked is not None:
            if asked[0] is requests:
                return
            asked[1].cancel()
        task = self._loop.create_task(self._perform(sa, sa.session, requests))
        task.add_done_callback(self._performed)
        self._asked[sa] = requests, task

    def _perform_here(self, sa: IkeSa, requests: tuple[Request, ...]) -> None:
        try:
            responses = self._sessions.perform_here(sa, sa.session, requests)
        except LocumError as error:
            sa.fail(error, now=self.now())
        else:
            sa.answer(responses, now=self.now())

    async def _perform(self, sa: IkeSa, session: int, requests: tuple[Request, ...]) -> None:
        try:
            responses = await self._sessions.perform(sa, session, requests)
        except LocumError as error:
            if self._is_asked(sa, requests):
                sa.fail(error, now=self.now())
        else:
            if self._is_asked(sa, requests):
                sa.answer(responses, now=self.now())
        self._pump()

    def _is_asked(self, sa: IkeSa, requests: tuple[Request, ...]) -> bool:
        """True when `sa` still waits for these; nobody is asked any more then."""
        self._asked.pop(sa, None)
        return sa.pending is requests

    def _performed(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.fail(error)


async def _selectors_of(delegate: DelegateAddress) -> list[TrafficSelector]:
    """Traffic to one delegate, at every address that its name has now; none where it has none."""
    endpoint, protocol = delegate.endpoint, _IP_PROTOCOLS[delegate.transport]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(endpoint.host, endpoint.port)
    except OSError:
        return []
    addresses = dict.fromkeys(ip_address(each[4][0]) for each in found)
    return [
        TrafficSelector(
            start=address, end=address, protocol=protocol, first_port=endpoint.port, last_port=endpoint.port
        )
        for address in addresses
    ]
