"""One worker of the agent as its parent sees it: the process, the link to it, and how much it has to do.

Never knows what an errand is for. A worker that died is started again after a while that grows.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Sequence

from locum.edge.p11.errands import MAX_PACKET, Kind, TokenObject, decode_result
from locum.errors import DecodeError

log = logging.getLogger(__name__)

#: Seconds before a worker that died is replaced: at once, then more, and at most so many.
FIRST_DELAY = 0.05
LONGEST_DELAY = 5.0
#: Seconds after which a worker that has lived so long counts as sound again.
SOUND_SECONDS = 10.0
#: Seconds that a worker has to end by itself.
STOP_SECONDS = 3.0


class WorkerProcess:
    """One place for a worker, and the process that has it now.

    `replaces` is the worker that is retired as soon as this one is ready.
    """

    def __init__(self, command: Sequence[str], *, replaces: WorkerProcess | None = None) -> None:
        self._command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._buffer = memoryview(bytearray(MAX_PACKET))
        self._unsent: deque[bytes] = deque()
        self._coming: list[TokenObject] = []
        self._delay = 0.0
        self._started_at = 0.0
        self._news = False
        self.replaces = replaces
        self.objects: list[TokenObject] = []
        #: errands that it has not answered
        self.load = 0
        #: when it said something last, in seconds of the monotonic clock
        self.heard_at = 0.0
        #: when it is to be started again; 0 when it is not
        self.due = 0.0
        self.pid = 0
        self.ready = self.ended = self.retired = False
        self.failure = ""

    @property
    def serving(self) -> bool:
        """True when errands can be given to it."""
        return self.ready and not self.retired and not self.ended

    @property
    def link(self) -> socket.socket:
        """Our end of the link, while there is one."""
        assert self._link is not None
        return self._link

    def start(self) -> socket.socket:
        """Start the process; returns our end of the link to it."""
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._link.setblocking(False)
            self._process = subprocess.Popen(  # noqa: S603 - our own words, no shell
                [*self._command, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        self.pid = self._process.pid
        self.due, self.load = 0.0, 0
        self.ready = self.ended = False
        self._started_at = self.heard_at = time.monotonic()
        return self._link

    def send(self, packet: bytes) -> bool:
        """Send one errand; false when it has to wait until the link takes more, and `flush` is called."""
        self.load += 1
        if not self._unsent:
            try:
                self.link.send(packet)
                return True
            except BlockingIOError:
                pass
            except OSError:  # it has died; that is read from the link next
                return True
        self._unsent.append(packet)
        return False

    def flush(self) -> bool:
        """Send what had to wait; true when nothing is left."""
        with contextlib.suppress(OSError):
            while self._unsent:
                self.link.send(self._unsent[0])
                self._unsent.popleft()
        return not self._unsent

    def read(self) -> tuple[int, int, bytes] | None:
        """Read one packet: number, CK_RV and data of an errand that it has finished, or None for all else."""
        try:
            packet = self._buffer[: self.link.recv_into(self._buffer)].tobytes()
        except BlockingIOError:
            return None
        except OSError:
            packet = b""
        if not packet:
            self.ended = True
            return None
        self.heard_at = time.monotonic()
        try:
            if packet[0] == Kind.RESULT:
                return decode_result(packet)
            self._learn(packet)
        except DecodeError as error:
            log.error("a worker says what nobody understands: %s", error)
            self.kill()
        return None

    def _learn(self, packet: bytes) -> None:
        if packet[0] == Kind.OBJECT:
            self._coming.append(TokenObject.decode(packet))
        elif packet[0] == Kind.COMPLETE:
            self.objects, self._coming = self._coming, []
            self.ready = self._news = True
        elif packet[0] == Kind.FAILED:
            self.failure = packet[1:].decode(errors="replace")

    def announced(self) -> bool:
        """True once after it has said which objects there are."""
        news, self._news = self._news, False
        return news

    def retire(self) -> None:
        """Have it finish what it has and end."""
        self.retired = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def rest(self, now: float) -> None:
        """It has died: have it started again, later when it did not live long."""
        if now - self._started_at >= SOUND_SECONDS:
            self._delay = 0.0
        self.due = now + self._delay
        self._delay = min(LONGEST_DELAY, max(FIRST_DELAY, 2 * self._delay))

    def reap(self) -> None:
        """It has closed its end of the link, so nothing more can come of it: close ours, and end the process."""
        self.kill()
        self.stop()

    def stop(self) -> None:
        """Close the link, with which a worker ends by itself, and wait for the process."""
        if self._link is not None:
            self._link.close()
            self._link = None
        self._unsent.clear()
        self._coming.clear()
        if self._process is not None:
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
