"""What one ISAKMP SA asks of the authority, one exchange after another, and what has to wait meanwhile.

Knows neither the operations nor the messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from locum.handshake import Opening
from locum.ike.engine import IkeSa, Part, Path, State
from locum.ike.header import MAX_MESSAGE, Header
from locum.ike.v1.running import Progress, Running

#: Messages that wait for an authority, of all exchanges together, those of an SA that is not established, and
#: their bytes.
MAX_WAITING = 16
MAX_WAITING_HALF_OPEN = 2
MAX_WAITING_BYTES = MAX_MESSAGE


class Asking(Part):
    """Sets `pending` and `session` of `sa`; every exchange has a session of its own."""

    __slots__ = ("_queue", "_sessions", "_waiting")

    def __init__(self, sa: IkeSa) -> None:
        super().__init__(sa)
        #: exchanges that wait for the authority, the first of which `pending` is about
        self._queue: list[Running[Any]] = []
        self._sessions = 0
        self._waiting: list[tuple[Header, bytes, Path]] = []

    def go_on(self, exchanges: Iterable[Running[Any]]) -> None:
        """Ask what is asked next, unless an answer is still due."""
        for running in exchanges:
            if running.progress is Progress.AUTHORITY and running not in self._queue:
                self._queue.append(running)
        if self.sa.pending is not None or not self._queue:
            return
        running = self._queue[0]
        assert running.asked is not None
        requests = running.asked.requests
        if isinstance(requests[0], Opening):
            self._sessions += 1
            running.session = self._sessions
        self.sa.session = running.session
        self.sa.pending = requests

    def answered(self) -> Running[Any] | None:
        """The exchange that `pending` was about; None when nothing was asked, or the SA is over."""
        if self.sa.pending is None:
            return None
        self.sa.pending = None
        return self._queue.pop(0)

    def wait(self, header: Header, message: bytes, path: Path) -> bool:
        """Keep a message until the authority has answered; False when there are too many, or too long ones."""
        if any(message == waiting for _, waiting, _ in self._waiting):
            return True
        size = sum(len(waiting) for _, waiting, _ in self._waiting)
        most = MAX_WAITING if self.sa.state is State.ESTABLISHED else MAX_WAITING_HALF_OPEN
        if len(self._waiting) >= most or size + len(message) > MAX_WAITING_BYTES:
            return False
        self._waiting.append((header, message, path))
        return True

    def take_waiting(self, take: Callable[[Header, bytes, Path], None]) -> bool:
        """Have the first message taken that waits no more; False when all of them have to wait on."""
        for _ in range(len(self._waiting)):
            waited = self._waiting.pop(0)
            left = len(self._waiting)
            take(*waited)
            if len(self._waiting) == left:
                return True
        return False

    def clear(self) -> None:
        """Nothing is asked, and nothing waits."""
        self.sa.pending = None
        self._queue.clear()
        self._waiting.clear()
