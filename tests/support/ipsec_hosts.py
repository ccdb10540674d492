"""Hosts in memory for tests of the IPsec terminal: installers that record what they are told, joined by a wire.

Datagrams travel through the event loop, without sockets; what arrives may be dropped or looked at by a test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import count

from locum.errors import LocumError, Unavailable
from locum.ipsec.installer import Receive, Used
from locum.ipsec.policy import Policy
from locum.ipsec.sa import Expiry, SecurityAssociation
from locum.ipsec.selectors import Address

_SPIS = count(0x1000)


@dataclass(slots=True)
class Wire:
    """What joins hosts: by address and port."""

    ports: dict[tuple[Address, int], MemoryPort] = field(default_factory=dict)
    #: true for a message that gets lost
    loses: Callable[[bytes], bool] = lambda message: False
    carried: list[bytes] = field(default_factory=list)
    keepalives: int = 0

    def carry(self, message: bytes, source: tuple[Address, int], destination: tuple[Address, int]) -> None:
        """Bring a message to the port that it is for, if there is one."""
        self.carried.append(message)
        if not self.loses(message):
            asyncio.get_running_loop().call_soon(self._arrive, message, source, destination)

    def _arrive(self, message: bytes, source: tuple[Address, int], destination: tuple[Address, int]) -> None:
        port = self.ports.get(destination)
        if port is not None:
            port.receive(message, destination[0], *source)


class MemoryPort:
    """One UDP port of one host."""

    def __init__(self, host: MemoryHost, number: int, receive: Receive, *, encapsulated: bool) -> None:
        self.number = number
        self.encapsulated = encapsulated
        self.receive = receive
        self._host = host
        host.wire.ports[host.address, number] = self

    def send(self, message: bytes, local: Address, remote: Address, remote_port: int) -> None:
        self._host.wire.carry(message, (local, self.number), (remote, remote_port))

    def send_keepalive(self, local: Address, remote: Address, remote_port: int) -> None:
        self._host.wire.keepalives += 1

    def close(self) -> None:
        self._host.wire.ports.pop((self._host.address, self.number), None)


class MemoryHost:
    """An installer that puts nothing into effect but remembers everything."""

    name = "memory"

    def __init__(self, wire: Wire, address: str) -> None:
        self.wire = wire
        self.address = ip_address(address)
        self.started = self.closed = False
        self.associations: list[SecurityAssociation] = []
        self.policies: tuple[Policy, ...] = ()
        self.moves: list[tuple[SecurityAssociation, SecurityAssociation]] = []
        self.expiring: list[tuple[SecurityAssociation, Expiry]] = []
        #: raised by `install`
        self.fault: LocumError | None = None
        #: numbers that `open_port` refuses
        self.taken: set[int] = set()
        self._ports: list[MemoryPort] = []

    def start(self) -> None:
        assert not self.started
        self.started = True

    def local_address(self, remote: Address) -> Address:
        return self.address

    def open_port(
        self, number: int, receive: Receive, *, local: Address | None = None, encapsulated: bool = False
    ) -> MemoryPort:
        if number in self.taken:
            raise Unavailable(f"UDP port {number} cannot be used: Address already in use")
        port = MemoryPort(self, number, receive, encapsulated=encapsulated)
        self._ports.append(port)
        return port

    def reserve_spi(self) -> int:
        return next(_SPIS)

    def install(self, associations: Iterable[SecurityAssociation]) -> None:
        if self.fault is not None:
            raise self.fault
        self.associations += associations

    def move(self, old: SecurityAssociation, new: SecurityAssociation) -> None:
        self.moves.append((old, new))
        self.associations[self.associations.index(old)] = new

    def remove(self, associations: Iterable[SecurityAssociation]) -> None:
        for association in associations:
            self.associations = [each for each in self.associations if each is not association]

    def set_policies(self, policies: Iterable[Policy]) -> None:
        self.policies = tuple(policies)

    def expired(self, now: float) -> list[tuple[SecurityAssociation, Expiry]]:
        expiring, self.expiring = self.expiring, []
        return expiring

    def used(self, sa: SecurityAssociation) -> Used:
        return Used(0, 0)

    def close(self) -> None:
        self.closed = True
        for port in self._ports:
            port.close()
        self.associations, self.policies = [], ()
