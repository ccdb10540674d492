"""How packets of an association leave this host: inside of UDP or bare, and how long they may be for that.

Knows sockets and associations; which packet goes where is decided elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from locum.dataplane.datagrams import EspPort
from locum.dataplane.paths import path_mtu
from locum.dataplane.raw import RawSockets
from locum.dataplane.tun import LEAST_IPV6_MTU, LEAST_MTU
from locum.errors import LocumError, OperationError
from locum.ipsec.modes import EspOutbound, Outbound
from locum.ipsec.selectors import Address

SendAll = Callable[[list[bytes]], None]


class Lane:
    """Where packets of some flows go: `send` protects and sends them, and drops what cannot be; it raises nothing.

    `packets` wait to be sent; `longest` is the longest packet, in bytes, that gets there whole.
    """

    __slots__ = ("longest", "packets", "send")

    def __init__(self, send: SendAll, longest: int) -> None:
        self.packets: list[bytes] = []
        self.send = send
        self.longest = longest


class Lanes:
    """One lane for each outbound association and traffic class. `dropped` counts what was not sent, by reason."""

    def __init__(self, ports: Iterable[EspPort], raw: RawSockets, *, mark: int, dropped: Counter[str]) -> None:
        """`ports` may change; `forget` is to be called then."""
        self._ports = ports
        self._raw = raw
        self._mark = mark
        self._dropped = dropped
        self._lanes: dict[tuple[Outbound, int], Lane] = {}

    def forget(self) -> None:
        """Begin anew: associations or ports have changed."""
        self._lanes.clear()

    def open(self, outbound: Outbound, traffic_class: int) -> Lane | None:
        """The lane for packets with this traffic class; None when there is no socket for it."""
        key = outbound, traffic_class
        lane = self._lanes.get(key)
        if lane is None:
            send = (
                self._encapsulated(outbound, traffic_class) if outbound.sa.encapsulation else self._bare(outbound)
            )
            if send is not None:
                lane = self._lanes[key] = Lane(send, _longest(outbound, self._path(outbound.sa.destination)))
        return lane

    def measure(self, outbound: Iterable[Outbound]) -> int | None:
        """Look at the paths of these: the longest packet that all of them take whole, None without any."""
        paths: dict[Address, int] = {}
        lengths: dict[Outbound, int] = {}
        for sender in outbound:
            remote = sender.sa.destination
            if remote not in paths:
                paths[remote] = self._path(remote)
            lengths[sender] = _longest(sender, paths[remote])
        for (sender, _), lane in self._lanes.items():
            lane.longest = lengths.get(sender, lane.longest)
        return min(lengths.values(), default=None)

    def _path(self, remote: Address) -> int:
        """The path MTU."""
        try:
            return path_mtu(remote, mark=self._mark)
        except OperationError:
            return LEAST_IPV6_MTU  # there is no way now, and every one takes this much

    def _bare(self, outbound: Outbound) -> SendAll:
        def send(packets: list[bytes]) -> None:
            for packet in packets:
                try:
                    self._raw.send(outbound.protect(packet), outbound.sa.destination)
                except LocumError as error:
                    self._dropped[type(error).__name__] += 1

        return send

    def _encapsulated(self, outbound: Outbound, traffic_class: int) -> SendAll | None:
        sa = outbound.sa
        assert sa.encapsulation is not None and isinstance(outbound, EspOutbound)
        numbers = sa.encapsulation
        port = next((port for port in self._ports if port.serves(sa.source, numbers.source_port)), None)
        if port is None:
            return None
        # RFC 4301 section 5.1.2: congestion notification is copied in any case.
        traffic_class = traffic_class if sa.copy_dscp else traffic_class & 3
        send_all = port.towards(sa.source, sa.destination, numbers.destination_port, traffic_class)

        def send(packets: list[bytes]) -> None:
            try:
                send_all(outbound.payloads(packets))
            except LocumError as error:
                if len(packets) == 1:
                    self._dropped[type(error).__name__] += 1
                else:
                    for packet in packets:
                        send([packet])

        return send


def _longest(outbound: Outbound, mtu: int) -> int:
    """The longest packet that gets over a path in one piece; in IPv4 at least what every host takes."""
    return max(outbound.longest(mtu), LEAST_MTU)
