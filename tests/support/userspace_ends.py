"""User-space IPsec at both ends of a laboratory, in threads of this process, with associations set by hand."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.support.ipsec import key_of

from locum.dataplane.userspace import UserspaceInstaller
from locum.demo.laboratory import Host
from locum.ipsec.algorithms import AES128_GCM16, EncryptionAlgorithm, IntegrityAlgorithm
from locum.ipsec.policy import Action, Policy, Protection
from locum.ipsec.sa import Direction, Mode, Protocol, SecurityAssociation, UdpEncapsulation
from locum.ipsec.selectors import Address, parse_selectors

Result = TypeVar("Result")
SECONDS = 20
PORT = 4500
#: The SPI of what goes to the first end, and of what goes to the second.
SPIS = (0x1111_1111, 0x2222_2222)
IN_UDP = UdpEncapsulation(source_port=PORT, destination_port=PORT)


class End:
    """An installer in the network of `host`; a context manager. Every access goes through `call`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.messages: list[tuple[bytes, Address, Address, int]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"ipsec-{host.namespace.name}", daemon=True)
        self._installer = UserspaceInstaller()

    def _run(self) -> None:
        with self.host.namespace.entered():
            self._loop = asyncio.new_event_loop()
            try:
                self._loop.call_soon(self._start)
                self._loop.run_forever()
            finally:
                self._loop.close()

    def _start(self) -> None:
        try:
            self._installer.start()
        except BaseException as error:
            self._started.set_exception(error)
        else:
            self._started.set_result(None)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._started.result(SECONDS)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.call(UserspaceInstaller.close)
        self._end()

    def _end(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)

    def call(self, function: Callable[[UserspaceInstaller], Result]) -> Result:
        """What `function` returns or raises when the end's own thread calls it with the installer."""

        async def run() -> Result:
            return function(self._installer)

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(SECONDS)

    def open_port(self, number: int = PORT, *, encapsulated: bool = True, **options: Any) -> Any:
        """A port whose messages come to `messages`."""

        def receive(*message: Any) -> None:
            self.messages.append(message)  # type: ignore[arg-type]

        return self.call(lambda it: it.open_port(number, receive, encapsulated=encapsulated, **options))

    @property
    def dropped(self) -> Counter[str]:
        """What went no further so far."""
        return self.call(lambda it: Counter(it.dropped))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """Associations and a policy between two hosts, from which each gets its own half."""

    first: Host
    second: Host
    encryption: EncryptionAlgorithm | None = AES128_GCM16
    integrity: IntegrityAlgorithm | None = None
    protocol: Protocol = Protocol.ESP
    mode: Mode = Mode.TUNNEL
    outer6: bool = False
    encapsulated: bool = True
    traffic: tuple[str, str] | None = None
    spis: tuple[int, int] = SPIS
    seed: int = 1
    changes: dict[str, Any] = field(default_factory=dict)

    def ends(self) -> tuple[Address, Address]:
        """The addresses between which it runs."""
        hosts = self.first, self.second
        first, second = (ip_address(host.address6 if self.outer6 else host.address) for host in hosts)
        return first, second

    def associations(self, which: int) -> list[SecurityAssociation]:
        """Those of the first end (0) or the second (1), inbound first."""
        ends, other = self.ends(), 1 - which
        traffic = self._traffic()
        common: dict[str, Any] = {
            "protocol": self.protocol,
            "mode": self.mode,
            "encryption": self.encryption,
            "integrity": self.integrity,
            "encapsulation": IN_UDP if self.encapsulated else None,
            "local": traffic[which],
            "remote": traffic[other],
        } | self.changes
        made = []
        for direction, to in ((Direction.IN, which), (Direction.OUT, other)):
            common["encryption_key"] = (
                key_of(self.encryption.keymat_length, self.seed + to) if self.encryption else b""
            )
            common["integrity_key"] = key_of(self.integrity.keymat_length, 7 + to) if self.integrity else b""
            made.append(
                SecurityAssociation(
                    spi=self.spis[to], direction=direction, source=ends[1 - to], destination=ends[to], **common
                )
            )
        return made

    def policy(self, which: int) -> Policy:
        """What the first end (0) or the second (1) protects."""
        traffic = self._traffic()
        return Policy(
            name="tunnel",
            action=Action.PROTECT,
            protection=Protection(mode=self.mode, protocol=self.protocol),
            local=traffic[which],
            remote=traffic[1 - which],
        )

    def _traffic(self) -> tuple[Any, Any]:
        if self.traffic is not None:
            first, second = (parse_selectors(text) for text in self.traffic)
            return first, second
        if self.mode is Mode.TRANSPORT:
            first, second = (parse_selectors(str(end)) for end in self.ends())
            return first, second
        return networks_of(self.first), networks_of(self.second)

    def install(self, *ends: End, policies: Iterable[Policy] | None = None) -> None:
        """Put it to work at both ends, in the order first, second."""
        for which, end in enumerate(ends):
            rows = [self.policy(which)] if policies is None else list(policies)
            end.call(lambda it, which=which: it.install(self.associations(which)))  # type: ignore[misc]
            end.call(lambda it, rows=rows: it.set_policies(rows))  # type: ignore[misc]


def networks_of(host: Host) -> Any:
    """The networks behind a host, IPv4 and IPv6."""
    return parse_selectors(host.network) + parse_selectors(host.network6)
