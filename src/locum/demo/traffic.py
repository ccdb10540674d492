"""Packets through a tunnel, and proof that it was one: pings, TCP streams, and what passed on the wire outside.

Knows packet headers and nothing of keys.
"""

from __future__ import annotations

import hashlib
import os
import re
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from locum.demo.laboratory import WIRE, Host
from locum.demo.programs import require_program
from locum.errors import DecodeError, Misbehaved, Unavailable
from locum.ike.engine import IKE_PORT, NAT_PORT
from locum.ipsec.ip import UDP, parse
from locum.ipsec.sa import Protocol
from locum.ipsec.udp import HEADER_LENGTH, Kind, classify

#: Bytes that go through the tunnel in each direction over TCP.
STREAM_LENGTH = 2 * 1024 * 1024
STREAM_TIMEOUT = 30.0
PINGS = 3
ETHERNET_HEADER = 14
#: From <linux/if_ether.h>.
ETH_P_ALL = 3
#: From <asm-generic/socket.h>; and bytes of packets, with what the kernel keeps beside each, that wait for a look.
SO_RCVBUFFORCE = 33
WIRE_BUFFER = 64 << 20
_IP_TYPES = (b"\x08\x00", b"\x86\xdd")
_RECEIVED = re.compile(r"(\d+) (?:packets )?received")


def ping(source: Host, destination: Host, *, count: int = PINGS, ipv6: bool = False) -> int:
    """Ping between the inner addresses of two hosts until `count` answers have come; returns how many were sent.

    The first packets may get lost where the ends install their associations one after the other.
    Raises: Unavailable when too few came back.
    """
    from_address = source.inner6 if ipv6 else source.inner
    to_address = destination.inner6 if ipv6 else destination.inner
    sent = 0
    for attempt in range(1 + PINGS):
        words = ["-n", "-i", "0.05", "-W", "1", "-c", str(count), "-I", from_address, to_address]
        try:
            printed = source.namespace.run(require_program("ping"), *words)
        except Unavailable:
            if attempt == PINGS:
                raise
            printed = ""
        sent += count
        found = _RECEIVED.search(printed)
        if found is not None and int(found[1]) == count:
            return sent
    raise Unavailable(f"no answers to pings from {source.namespace.name}")


def stream(source: Host, destination: Host, *, length: int = STREAM_LENGTH, ipv6: bool = False) -> float:
    """Send `length` random bytes over TCP between the inner addresses; returns the seconds that it took.

    Raises: Misbehaved when other bytes arrive, Unavailable when they do not.
    """
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    address = destination.inner6 if ipv6 else destination.inner
    data = os.urandom(length)
    received = hashlib.sha256()

    def receive() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(STREAM_TIMEOUT)
            while piece := connection.recv(65_536):
                received.update(piece)
            # The sender stops its clock when everything has arrived.
            connection.sendall(b"!")

    with (
        destination.namespace.socket(family, socket.SOCK_STREAM) as listener,
        source.namespace.socket(family, socket.SOCK_STREAM) as sender,
    ):
        listener.settimeout(STREAM_TIMEOUT)
        listener.bind((address, 0))
        listener.listen(1)
        thread = threading.Thread(target=_quietly(receive), daemon=True)
        thread.start()
        sender.settimeout(STREAM_TIMEOUT)
        try:
            sender.bind((source.inner6 if ipv6 else source.inner, 0))
            started = time.monotonic()
            sender.connect(listener.getsockname()[:2])
            sender.sendall(data)
            sender.shutdown(socket.SHUT_WR)
            sender.recv(1)
        except OSError as error:
            raise Unavailable(f"TCP from {source.namespace.name} to {address}: {error}") from None
        seconds = time.monotonic() - started
        thread.join(STREAM_TIMEOUT)
    if received.digest() != hashlib.sha256(data).digest():
        raise Misbehaved(f"other bytes arrived at {address} than were sent")
    return seconds


def _quietly(task: Callable[[], None]) -> Callable[[], None]:
    """`task` without its errors of the network, which the other end has as well."""

    def run() -> None:
        try:
            task()
        except OSError:
            return

    return run


@dataclass(frozen=True, slots=True)
class Passed:
    """Packets by kind: IKE, ESP, and any that had an inner address in clear."""

    ike: int = 0
    esp: int = 0
    clear: int = 0


class WireTap:
    """Counts what passes on the wire of `host`, both ways, while the context lasts."""

    def __init__(self, host: Host, *others: Host) -> None:
        """`others` are the hosts whose inner addresses, as those of `host`, must not be seen."""
        self._host = host
        self._hidden = [inside.network for each in (host, *others) for inside in (each.inside, each.inside6)]
        self._counts = {"ike": 0, "esp": 0, "clear": 0}
        self._over = threading.Event()

    @property
    def passed(self) -> Passed:
        """What has passed so far."""
        self._catch_up()
        return Passed(**self._counts)

    def _catch_up(self) -> None:
        """Wait until there is nothing more to look at: packets can come faster than they are counted."""
        deadline = time.monotonic() + STREAM_TIMEOUT
        while not self._over.is_set() and time.monotonic() < deadline:
            if not select.select([self._socket], [], [], 0)[0]:
                return
            time.sleep(0.01)

    def __enter__(self) -> Self:
        self._socket = self._host.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        # Where the kernel does ESP, packets come faster than they are counted here: none is to be lost.
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, WIRE_BUFFER)
        self._socket.bind((WIRE, ETH_P_ALL))
        self._thread = threading.Thread(target=self._watch, name="wire", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._catch_up()
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _watch(self) -> None:
        while not self._over.is_set():
            readable, _, _ = select.select([self._socket], [], [], 0.1)
            if readable:
                kind = self._kind(self._socket.recv(65_535))
                if kind:
                    self._counts[kind] += 1

    def _kind(self, frame: bytes) -> str:
        """What a frame is, empty for what does not matter, as the search for neighbours."""
        if frame[12:14] not in _IP_TYPES:
            return ""
        try:
            ip = parse(frame[ETHERNET_HEADER:])
            if any(ip_address(end) in network for end in (ip.source, ip.destination) for network in self._hidden):
                return "clear"
            if ip.protocol == Protocol.ESP:
                return "esp"
            return _udp_kind(frame[ETHERNET_HEADER + ip.payload :]) if ip.protocol == UDP else ""
        except DecodeError:
            return ""


def _udp_kind(segment: bytes) -> str:
    ports = {int.from_bytes(segment[:2], "big"), int.from_bytes(segment[2:4], "big")}
    if IKE_PORT in ports:
        return "ike"
    if NAT_PORT not in ports:
        return ""
    kind = classify(segment[HEADER_LENGTH:]).kind
    return {Kind.IKE: "ike", Kind.ESP: "esp"}.get(kind, "")
