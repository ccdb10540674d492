"""The message layer of CoAP over datagrams (RFC 7252 section 4): its times, retransmission, deduplication.

Never knows what a message means, who sent it, or what time it is: moments come in as seconds of any steady clock.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from locum.values import dataclass

#: Stopped retransmissions that may lie in the heap before it is cleaned.
_SLACK = 64

#: A source of cryptographic random bytes: length in, bytes out.
RandomSource = Callable[[int], bytes]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransmissionParameters:
    """Times in seconds and sizes in bytes by which messages travel (RFC 7252 section 4.8).

    `datagram_size` is the largest datagram that is sent whole; what is larger goes block-wise. The default fits
    the smallest IPv6 path after its headers; one known to carry more (loopback, jumbo frames) may be given more.
    `response_timeout` bounds the wait for an answer once the other end has acknowledged the request, and on a
    stream. `refusal_wait` is how long an answer that nobody authenticated leaves time for the true one.
    `acknowledgement_delay` is how long a server waits for its application before it acknowledges without answer.
    """

    ack_timeout: float = 2.0
    ack_random_factor: float = 1.5
    max_retransmit: int = 4
    nstart: int = 1
    exchange_lifetime: float = 247.0
    response_timeout: float = 30.0
    refusal_wait: float = 2.0
    acknowledgement_delay: float = 0.5
    datagram_size: int = 1232


class _Pending:
    __slots__ = ("at", "datagram", "left", "timeout")

    def __init__(self, datagram: bytes, timeout: float, at: float, left: int) -> None:
        self.datagram = datagram
        self.timeout = timeout
        self.at = at
        self.left = left


class Retransmissions(Generic[K]):
    """Confirmable messages that nobody has acknowledged, each under a key of the caller (RFC 7252 section 4.2)."""

    def __init__(self, parameters: TransmissionParameters, random: RandomSource) -> None:
        self._parameters = parameters
        self._random = random
        self._pending: dict[K, _Pending] = {}
        self._heap: list[tuple[float, int, K, _Pending]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._pending)

    def start(self, key: K, datagram: bytes, now: float) -> None:
        """`datagram` has been sent; send it again until `stop`, with the time-outs doubling."""
        parameters = self._parameters
        spread = int.from_bytes(self._random(2), "big") / 0xFFFF * (parameters.ack_random_factor - 1)
        timeout = parameters.ack_timeout * (1 + spread)
        pending = _Pending(datagram, timeout, now + timeout, parameters.max_retransmit)
        self._pending[key] = pending
        self._push(key, pending)

    def stop(self, key: K) -> bool:
        """Send it no more; False when it was not being sent."""
        return self._pending.pop(key, None) is not None

    def next_timeout(self) -> float | None:
        """The moment to call `expire`, or None."""
        heap = self._heap
        while heap:
            at, _, key, pending = heap[0]
            if self._pending.get(key) is pending and pending.at == at:
                return at
            heapq.heappop(heap)
        return None

    def expire(self, now: float) -> tuple[list[tuple[K, bytes]], list[K]]:
        """What is due: `(key, datagram)` to send again, and the keys given up."""
        again: list[tuple[K, bytes]] = []
        given_up: list[K] = []
        while (at := self.next_timeout()) is not None and at <= now:
            _, _, key, pending = heapq.heappop(self._heap)
            if pending.left == 0:
                del self._pending[key]
                given_up.append(key)
                continue
            pending.left -= 1
            pending.timeout *= 2
            pending.at = now + pending.timeout
            self._push(key, pending)
            again.append((key, pending.datagram))
        return again, given_up

    def _push(self, key: K, pending: _Pending) -> None:
        if len(self._heap) > 2 * len(self._pending) + _SLACK:
            # What was stopped early still lies in the heap; on a busy link that would be minutes of messages.
            self._heap = [entry for entry in self._heap if self._pending.get(entry[2]) is entry[3]]
            heapq.heapify(self._heap)
        self._serial += 1
        heapq.heappush(self._heap, (pending.at, self._serial, key, pending))


class Recent(Generic[K, V]):
    """A memory of at most `limit` entries, none older than `lifetime` seconds; the oldest is forgotten first."""

    __slots__ = ("_entries", "_lifetime", "_limit")

    def __init__(self, limit: int, lifetime: float) -> None:
        self._limit = limit
        self._lifetime = lifetime
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, now: float) -> V | None:
        """What was put under `key`, unless it is too old."""
        entry = self._entries.get(key)
        if entry is None or entry[0] + self._lifetime < now:
            return None
        return entry[1]

    def put(self, key: K, value: V, now: float) -> None:
        """Remember `value` as the newest, forgetting what is too old or too much."""
        entries = self._entries
        if key in entries:
            del entries[key]
        entries[key] = (now, value)
        if len(entries) > self._limit:
            entries.popitem(last=False)
        self.forget(now)

    def forget(self, now: float) -> None:
        """Drop everything older than the lifetime."""
        entries = self._entries
        horizon = now - self._lifetime
        while entries:
            key = next(iter(entries))
            if entries[key][0] >= horizon:
                return
            del entries[key]


class MessageIds:
    """Message IDs of one end: from a random first one upwards (RFC 7252 section 4.4)."""

    __slots__ = ("_next",)

    def __init__(self, random: RandomSource) -> None:
        self._next = int.from_bytes(random(2), "big")

    def take(self) -> int:
        """The next Message ID, 0..65535."""
        self._next = (self._next + 1) & 0xFFFF
        return self._next
