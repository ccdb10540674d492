"""A wire that loses, delays, doubles and reorders: a program in the namespace between two others."""

from __future__ import annotations

import heapq
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from types import TracebackType
from typing import Self

from locum.demo.laboratory import EAST, WEST, Laboratory

#: From <linux/if_ether.h> and <linux/if_packet.h>.
_ETH_P_ALL, _PACKET_OUTGOING = 3, 4
_UDP_TYPES = (b"\x08\x00", b"\x86\xdd")

#: For each frame, the seconds after which a copy of it goes on: none is lost, several are doubled.
Rule = Callable[[bytes], Sequence[float]]


def perfect(_frame: bytes) -> Sequence[float]:
    """Everything goes on at once."""
    return (0.0,)


def bad(seed: int, *, loss: float = 0.1, late: float = 0.2, double: float = 0.1, delay: float = 0.05) -> Rule:
    """Random losses, delays of up to `delay` seconds, and doubles, always the same ones for a seed.

    The search for neighbours is spared: it has its own patience, which is not what is looked at.
    """
    dice = random.Random(seed)

    def rule(frame: bytes) -> Sequence[float]:
        if frame[12:14] not in _UDP_TYPES or frame[20:21] == b"\x3a":
            return (0.0,)
        if dice.random() < loss:
            return ()
        times = [dice.random() * delay if dice.random() < late else 0.0]
        return (*times, delay) if dice.random() < double else times

    return rule


class BadWire:
    """Carries frames between both interfaces of a laboratory's middle, each by `rule`; a context manager."""

    def __init__(self, laboratory: Laboratory, rule: Rule = perfect) -> None:
        assert laboratory.middle is not None
        self.rule = rule
        self._sockets = []
        for interface in (WEST, EAST):
            opened = laboratory.middle.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            opened.bind((interface, _ETH_P_ALL))
            self._sockets.append(opened)
        self._waiting: list[tuple[float, int, socket.socket, bytes]] = []
        self._number = count()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        for each in self._sockets:
            each.close()

    def _run(self) -> None:
        west, east = self._sockets
        while not self._over.is_set():
            pause = 0.1
            if self._waiting:
                pause = min(pause, max(0.0, self._waiting[0][0] - time.monotonic()))
            readable, _, _ = select.select([west, east], [], [], pause)
            for each in readable:
                self._take(each, east if each is west else west)
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                _, _, out, frame = heapq.heappop(self._waiting)
                with suppress(OSError):
                    out.send(frame)

    def _take(self, come: socket.socket, out: socket.socket) -> None:
        frame, address = come.recvfrom(65_535)
        # What we send ourselves is heard here as well.
        if address[2] == _PACKET_OUTGOING:
            return
        now = time.monotonic()
        for delay in self.rule(frame):
            heapq.heappush(self._waiting, (now + delay, next(self._number), out, frame))
