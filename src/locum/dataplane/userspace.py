"""IPsec in this process: a TUN device into which the host routes what is to be protected, and sockets (B7, B13).

Puts the parts together, and knows no packet. What this process made is gone when it ends, whatever ends it, but
for one routing rule for each IP version, which leads nowhere then and which the next start removes.

Transport mode works too: what goes to the peer's own address is routed into the device, and what carries our mark
is not. Only what leaves passes by here: unprotected packets that arrive from where protected ones should come from
(RFC 4301 section 5.2) are the business of this host's packet filter.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress

from locum.dataplane import paths
from locum.dataplane.datagrams import EspPort
from locum.dataplane.forwarding import Forwarding
from locum.dataplane.lanes import Lanes
from locum.dataplane.raw import RawSockets
from locum.dataplane.routing import MARK, Routing
from locum.dataplane.spis import Reservations
from locum.dataplane.tun import LEAST_IPV6_MTU, LEAST_MTU, TunDevice
from locum.errors import ConfigurationError, OperationError, Refused, Unavailable
from locum.ipsec.installer import Receive, Used
from locum.ipsec.policy import Action, Policy, PolicyDatabase
from locum.ipsec.processor import Processor
from locum.ipsec.sa import Direction, Expiry, SecurityAssociation
from locum.ipsec.selectors import Address

#: How often the path MTU of every peer is looked at, in seconds.
MTU_INTERVAL = 2.0
#: The MTU of the device before there is an association.
FIRST_MTU = 1400
#: What no policy speaks of is none of our business.
ALLOW_THE_REST = Policy(name="default", action=Action.BYPASS)


class UserspaceInstaller:
    """An `installer.Installer` over a TUN device. `dropped` counts packets that went no further, by reason."""

    name = "tun"

    def __init__(self, *, mark: int = MARK) -> None:
        """`mark` is the SO_MARK of IKE and ESP, which no other program uses for what it wants protected."""
        self.dropped: Counter[str] = Counter()
        self._mark = mark
        self._processor = Processor(PolicyDatabase(default=ALLOW_THE_REST))
        self._ports: list[EspPort] = []
        self._spis = Reservations()
        self._parts: _Parts | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- life ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make the device and the rules that lead to it. Raises: Refused, Unavailable."""
        if self._parts is None:
            self._parts = _Parts(self._processor, self._ports, mark=self._mark, dropped=self.dropped)
            self._look_at_paths()

    def close(self) -> None:
        """Take out everything that was put in, and close every port. May be called twice."""
        while self._ports:
            self._ports.pop().close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._parts is not None:
            self._parts.close()
            self._parts = None
        for sa in tuple(self._processor.associations):
            self._processor.remove(sa)
        self._processor.policies.replace(())

    def _require_device(self) -> _Parts:
        if self._parts is None:
            raise Unavailable("the data plane is not started")
        if self._parts.gone:
            raise Unavailable(f"somebody has removed the device {self._parts.device.name}")
        return self._parts

    @property
    def interface(self) -> str:
        """The name of the device. Raises: Unavailable before `start`."""
        return self._require_device().device.name

    # --- ports --------------------------------------------------------------------------------------------

    def local_address(self, remote: Address) -> Address:
        """See `installer.Installer`."""
        return paths.local_address(remote, mark=self._mark)

    def open_port(
        self, number: int, receive: Receive, *, local: Address | None = None, encapsulated: bool = False
    ) -> EspPort:
        """See `installer.Installer`."""
        parts = self._require_device()
        port = EspPort(
            parts.loop,
            number,
            receive,
            parts.forwarding.arrived,
            local=local,
            encapsulated=encapsulated,
            mark=self._mark,
            dropped=self.dropped,
        )
        self._ports.append(port)
        self._forget()
        return port

    # --- associations -------------------------------------------------------------------------------------

    def reserve_spi(self) -> int:
        """See `installer.Installer`."""
        return self._spis.reserve({sa.spi for sa in self._processor.associations})

    def install(self, associations: Iterable[SecurityAssociation]) -> None:
        """See `installer.Installer`. Raises: Refused for one that is there already; Unavailable."""
        parts = self._require_device()
        added: list[SecurityAssociation] = []
        try:
            for sa in sorted(associations, key=lambda sa: sa.direction is Direction.OUT):
                if sa.direction is Direction.OUT:
                    parts.routing.check_way_back(sa.destination)
                elif sa.encapsulation is None:
                    parts.raw.listen(sa.source.version, sa.protocol)
                self._processor.add(sa)
                added.append(sa)
        except BaseException as error:
            for sa in added:
                self._processor.remove(sa)
            if isinstance(error, ConfigurationError):
                raise Refused(str(error)) from None
            raise
        for sa in added:
            self._spis.release(sa.spi)
        self._forget()
        self._measure()

    def move(self, old: SecurityAssociation, new: SecurityAssociation) -> None:
        """See `installer.Installer`. Raises: Refused when `new` is another association, or `old` not there."""
        if new.encapsulation is None and new.direction is Direction.IN:
            self._require_device().raw.listen(new.source.version, new.protocol)
        try:
            self._processor.move(old, new)
        except ConfigurationError as error:
            raise Refused(str(error)) from None
        self._forget()
        self._measure()

    def remove(self, associations: Iterable[SecurityAssociation]) -> None:
        """See `installer.Installer`."""
        for sa in associations:
            self._processor.remove(sa)
        self._forget()

    def expired(self, now: float) -> list[tuple[SecurityAssociation, Expiry]]:
        """See `installer.Installer`."""
        self._require_device()
        return self._processor.expired(now)

    def used(self, sa: SecurityAssociation) -> Used:
        """See `installer.Installer`."""
        usage = self._processor.usage(sa)
        return Used(usage.packets, usage.bytes) if usage else Used(0, 0)

    # --- policies -----------------------------------------------------------------------------------------

    def set_policies(self, policies: Iterable[Policy]) -> None:
        """See `installer.Installer`."""
        rows, before = tuple(policies), tuple(self._processor.policies)
        routing = self._require_device().routing
        try:
            self._processor.policies.replace(rows)
        except ConfigurationError as error:
            raise Refused(str(error)) from None
        try:
            routing.lead(rows)
            for sender in self._processor.senders:
                routing.check_way_back(sender.sa.destination)
        except OperationError:
            self._processor.policies.replace(before)
            with suppress(OperationError):
                routing.lead(before)
            raise
        self._forget()
        self._measure()

    # --- paths --------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        """Associations, policies or ports have changed."""
        if self._parts is not None:
            self._parts.lanes.forget()
            self._parts.forwarding.forget()

    def _look_at_paths(self) -> None:
        with suppress(Unavailable):
            self._measure()
            self._timer = self._require_device().loop.call_later(MTU_INTERVAL, self._look_at_paths)

    def _measure(self) -> None:
        """Have the kernel hand over packets that the paths of all associations take whole, and none longer."""
        parts = self._require_device()
        longest = parts.lanes.measure(self._processor.senders)
        if longest is not None:
            # There is no IPv6 on a device that takes less.
            six = any(each.start.version == 6 for row in self._processor.policies for each in row.remote)
            with suppress(Unavailable):
                parts.device.set_mtu(max(longest, LEAST_IPV6_MTU if six else LEAST_MTU))


class _Parts:
    """What is there between `start` and `close`."""

    def __init__(self, processor: Processor, ports: list[EspPort], *, mark: int, dropped: Counter[str]) -> None:
        """Raises: Refused, Unavailable; then nothing is left."""
        self.loop = asyncio.get_running_loop()
        #: somebody else has removed the device
        self.gone = False
        self.device = TunDevice.open(mtu=FIRST_MTU)
        try:
            self.routing = Routing(self.device, mark=mark)
        except BaseException:
            self.device.close()
            raise
        self.raw = RawSockets(self.loop, self._arrived_bare, mark=mark, dropped=dropped)
        self.lanes = Lanes(ports, self.raw, mark=mark, dropped=dropped)
        self.forwarding = Forwarding(
            self.device,
            processor,
            open_lane=self.lanes.open,
            send_plain=self.raw.send,
            dropped=dropped,
            now=self.loop.time,
            lost=self._lost,
        )
        try:
            self.routing.open()
            self.device.up()
            self.loop.add_reader(self.device.descriptor, self.forwarding.readable)
        except BaseException:
            self.close()
            raise

    def _lost(self) -> None:
        self.gone = True
        self.loop.remove_reader(self.device.descriptor)

    def _arrived_bare(self, packet: bytes) -> None:
        self.forwarding.arrived_bare(packet)

    def close(self) -> None:
        self.loop.remove_reader(self.device.descriptor)
        self.raw.close()
        self.routing.close()
        self.device.close()
