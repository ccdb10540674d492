"""The agent's parent process: the listening socket, every client's socket, and the workers that reach the keys.

Holds no key and no connection to a key server, and imports no cryptography: there is little in it that could
fail. A p11-kit client never reconnects and waits for ever, so each of its calls is answered: a worker that dies is
replaced and its errands are run again, and when time is up the answer is CKR_DEVICE_ERROR.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

from locum.edge.p11.allowed import Allowed, Client, client_of
from locum.edge.p11.conversation import Conversation, KeyUse
from locum.edge.p11.errands import Errand
from locum.edge.p11.registry import Rv
from locum.edge.p11.token import Token
from locum.edge.p11.wire import HEADER_LENGTH, VERSION, FrameReader
from locum.edge.p11.worker_process import WorkerProcess
from locum.errors import ConfigurationError, DecodeError
from locum.hardening import harden

log = logging.getLogger(__name__)

#: Seconds until a call that needs a key is answered, whatever happens.
TIMEOUT = 10.0
#: Clients at a time, at most; any more are closed at once.
MAX_CLIENTS = 4096
#: Calls of one client that wait for a key, at most: until one is answered no more are read.
MAX_WAITING = 64
#: Bytes of answers that a client has not read: above, no more of its calls are read.
MAX_OUTGOING = 64 * 1024
#: Times that an errand is given to a worker: what ends one worker after the other is not tried for ever.
MAX_ATTEMPTS = 3
#: Seconds that calls have to be answered when the agent is told to end.
DRAIN_SECONDS = 5.0
#: Objects made and not freed since the collector looked last, before it looks again: there is little for it here.
GC_THRESHOLD = 50_000
#: Seconds between looks at whose time is up.
TICK = 0.05
#: Seconds without accepting after the system had no room for one more connection.
REST_SECONDS = 0.5
BACKLOG = 512

#: Bytes read from a client at once: more than nearly every call has.
_PIECE = 4096
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """Where clients connect, who may, and how a worker is started.

    `worker` is the command line of a worker, to which the number of its end of the link is added. `timeout` in
    seconds.
    """

    path: Path
    allowed: Allowed
    worker: Sequence[str]
    workers: int = 1
    timeout: float = TIMEOUT
    max_clients: int = MAX_CLIENTS


class _Connection:
    """One client, its conversation, and what is on its way to it."""

    __slots__ = ("client", "closed", "conversation", "greeted", "outgoing", "reader", "socket", "waiting")

    def __init__(self, connection: socket.socket, client: Client, conversation: Conversation) -> None:
        self.socket = connection
        self.client = client
        self.conversation = conversation
        self.reader = FrameReader()
        self.outgoing = bytearray()
        self.greeted = self.closed = False
        self.waiting = 0

    @property
    def taking(self) -> bool:
        """True while calls are taken from this client: only so much may be unanswered or unread."""
        return not self.closed and self.waiting < MAX_WAITING and len(self.outgoing) < MAX_OUTGOING


class _Waiting:
    """A call that waits for a key."""

    __slots__ = ("attempts", "connection", "deadline", "errand", "use", "worker")

    def __init__(self, connection: _Connection, use: KeyUse, errand: Errand, deadline: float) -> None:
        self.connection, self.use, self.errand, self.deadline = connection, use, errand, deadline
        self.attempts = 0
        self.worker: WorkerProcess | None = None


class Agent:
    """Serves clients until it is told to end."""

    def __init__(self, options: AgentOptions) -> None:
        self._options = options
        self._token = Token()
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._connections: set[_Connection] = set()
        self._workers: list[WorkerProcess] = []
        #: in the order of their deadlines, for all have the same time
        self._waiting: dict[int, _Waiting] = {}
        self._unsent: deque[_Waiting] = deque()
        self._numbers = 0
        #: when the loop woke up last, and when it looks at the time again; of the monotonic clock
        self._now = self._looks_at = time.monotonic()
        self._listener: socket.socket | None = None
        #: when to accept clients again; 0 while they are accepted
        self._accepts_at = 0.0
        self._ends_at: float | None = None
        #: something is to be done at some time, whatever happens until then
        self._timed = False
        self._announce: Callable[[int], object] | None = None

    def run(self, announce: Callable[[int], object]) -> None:
        """Serve until SIGTERM or SIGINT, then let calls in flight be answered; SIGHUP replaces the workers.

        `announce` is called when clients can connect, with the number of keys.
        Raises: ConfigurationError when the socket cannot be made or a worker cannot begin.
        """
        self._announce = announce
        for complaint in harden():
            log.info("%s", complaint)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        with self._epoll, self._signals():
            try:
                self._start_workers()
                while self._turn():
                    pass
            finally:
                self._stop()

    # --- the loop -----------------------------------------------------------------------------------------

    def _turn(self) -> bool:
        """Wait for what happens next and handle it; false when everything has come to its end."""
        for fileno, events in self._epoll.poll(TICK if self._timed or self._waiting else -1):
            handler = self._handlers.get(fileno)
            if handler is not None:
                handler(events)
        self._now = now = time.monotonic()
        if now >= self._looks_at:
            self._looks_at = now + TICK
            self._time_passes(now)
        return self._ends_at is None or (bool(self._waiting) and now < self._ends_at)

    def _time_passes(self, now: float) -> None:
        while self._waiting:
            waiting = next(iter(self._waiting.values()))
            if waiting.deadline > now:
                break
            self._give_up(waiting, now)
        if self._ends_at is None:
            for worker in self._workers:
                if worker.due and worker.due <= now:
                    self._start(worker)
            if self._accepts_at and self._accepts_at <= now:
                self._accept_again()
            self._timed = bool(self._accepts_at) or any(worker.due for worker in self._workers)

    def _watch(self, fileno: int, handler: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        self._handlers[fileno] = handler
        self._epoll.register(fileno, events)

    def _forget(self, fileno: int) -> None:
        del self._handlers[fileno]
        self._epoll.unregister(fileno)

    # --- signals ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn signals into bytes of a socket for as long as the block runs."""
        reading, writing = socket.socketpair()
        with reading, writing:
            reading.setblocking(False)
            writing.setblocking(False)
            previous = {number: signal.signal(number, _noted) for number in _SIGNALS}
            descriptor = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
            self._watch(reading.fileno(), lambda _: self._signalled(reading.recv(512)))
            try:
                yield
            finally:
                self._forget(reading.fileno())
                signal.set_wakeup_fd(descriptor)
                for number, handler in previous.items():
                    signal.signal(number, handler)

    def _signalled(self, numbers: bytes) -> None:
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                now = time.monotonic()
                self._ends_at = now + DRAIN_SECONDS if self._ends_at is None else now
                self._timed = True
                self._close_listener()
            elif number == signal.SIGHUP and self._ends_at is None:
                log.info("replacing the workers")
                coming = {each.replaces for each in self._workers}
                for worker in [each for each in self._workers if each.serving and each not in coming]:
                    self._start(WorkerProcess(self._options.worker, replaces=worker))

    # --- workers ------------------------------------------------------------------------------------------

    def _start_workers(self) -> None:
        for _ in range(self._options.workers):
            self._start(WorkerProcess(self._options.worker))

    def _start(self, worker: WorkerProcess) -> None:
        if worker not in self._workers:
            self._workers.append(worker)
        link = worker.start()
        self._watch(link.fileno(), partial(self._from_worker, worker))

    def _from_worker(self, worker: WorkerProcess, events: int) -> None:
        if events & select.EPOLLOUT and worker.flush():
            self._epoll.modify(worker.link.fileno(), select.EPOLLIN)
        result = worker.read()
        if result is not None:
            number, rv, data = result
            waiting = self._waiting.pop(number, None)
            if waiting is not None:
                self._answer(waiting, waiting.use.done(rv, data))
            return
        if worker.ended:
            self._worker_ended(worker)
        elif worker.announced() and not worker.retired:
            self._worker_ready(worker)

    def _worker_ready(self, worker: WorkerProcess) -> None:
        """A worker knows which objects there are: at first, or because they have changed."""
        self._token.replace(worker.objects)
        if worker.replaces is not None:
            old, worker.replaces = worker.replaces, None
            old.retire()
        log.info("a worker has %d keys", self._token.key_count, extra={"pid": worker.pid})
        if self._listener is None and self._ends_at is None:
            self._listen()
        while self._unsent:
            self._give(self._unsent.popleft())

    def _worker_ended(self, worker: WorkerProcess) -> None:
        self._forget(worker.link.fileno())
        worker.reap()
        left = [each for each in self._waiting.values() if each.worker is worker]
        if worker.retired or self._ends_at is not None:
            self._workers.remove(worker)
        elif self._announce is not None:
            raise ConfigurationError(worker.failure or "the agent's worker ended before it knew any keys")
        else:
            log.error("a worker ended and is replaced", extra={"pid": worker.pid, "errands": len(left)})
            worker.rest(time.monotonic())
            self._timed = True
        for waiting in left:
            waiting.worker = None
            self._give(waiting)

    # --- errands ------------------------------------------------------------------------------------------

    def _use_key(self, connection: _Connection, use: KeyUse) -> None:
        self._numbers = self._numbers % 0xFFFFFFFF + 1
        errand = Errand(number=self._numbers, task=use.task, ski=use.ski, scheme=use.scheme, data=use.data)
        waiting = _Waiting(connection, use, errand, self._now + self._options.timeout)
        self._waiting[errand.number] = waiting
        connection.waiting += 1
        self._give(waiting)

    def _give(self, waiting: _Waiting) -> None:
        """Give an errand to the worker that has the least to do, or keep it until there is one."""
        if waiting.errand.number not in self._waiting:
            return
        if waiting.attempts >= MAX_ATTEMPTS:
            log.error("an errand has ended %d workers and is not tried again", waiting.attempts)
            del self._waiting[waiting.errand.number]
            self._answer(waiting, waiting.use.done(Rv.DEVICE_ERROR))
            return
        worker = min((each for each in self._workers if each.serving), key=lambda each: each.load, default=None)
        if worker is None:
            self._unsent.append(waiting)
            return
        waiting.worker = worker
        waiting.attempts += 1
        if not worker.send(waiting.errand.encode()):
            self._epoll.modify(worker.link.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _give_up(self, waiting: _Waiting, now: float) -> None:
        """Time is up: the client gets its answer, and a worker that has said nothing in all that time is ended."""
        del self._waiting[waiting.errand.number]
        log.error(
            "no answer from a key within %g s", self._options.timeout, extra={"pid": waiting.connection.client.pid}
        )
        worker = waiting.worker
        if worker is not None and now - worker.heard_at >= self._options.timeout:
            log.error("a worker that says nothing is ended", extra={"pid": worker.pid})
            worker.kill()
        self._answer(waiting, waiting.use.done(Rv.DEVICE_ERROR))

    def _answer(self, waiting: _Waiting, frame: bytes) -> None:
        if waiting.worker is not None:
            waiting.worker.load -= 1
        connection = waiting.connection
        connection.waiting -= 1
        self._send(connection, frame)
        if connection.waiting == MAX_WAITING - 1 and not connection.closed:
            self._choose_events(connection)
            self._converse(connection)

    # --- clients ------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._listener = _listening(self._options)
        self._accept_again()
        announce, self._announce = self._announce, None
        if announce is not None:
            announce(self._token.key_count)

    def _accept_again(self) -> None:
        self._accepts_at = 0.0
        listener = self._listener
        if listener is not None:
            self._watch(listener.fileno(), lambda _: self._accept(listener))

    def _close_listener(self) -> None:
        if self._listener is not None:
            if not self._accepts_at:
                self._forget(self._listener.fileno())
            self._listener.close()
            self._listener = None
            self._options.path.unlink(missing_ok=True)

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # the client has gone again
            return
        except OSError as error:  # no descriptors are left: whoever waits would be reported without end
            log.warning("no connection: %s", error.strerror)
            self._forget(listener.fileno())
            self._accepts_at = self._now + REST_SECONDS
            self._timed = True
            return
        client = client_of(accepted)
        if not self._options.allowed.allows(accepted, client):
            log.warning("refused a client", extra={"pid": client.pid, "uid": client.uid, "gid": client.gid})
            accepted.close()
            return
        if len(self._connections) >= self._options.max_clients:
            log.warning("too many clients", extra={"pid": client.pid, "uid": client.uid})
            accepted.close()
            return
        accepted.setblocking(False)
        connection = _Connection(accepted, client, Conversation(self._token))
        self._connections.add(connection)
        self._watch(accepted.fileno(), partial(self._from_client, connection))

    def _from_client(self, connection: _Connection, events: int) -> None:
        if events & select.EPOLLOUT:
            self._send(connection, b"")
            self._converse(connection)
        if events == select.EPOLLOUT or connection.closed:
            return
        data = _received(connection.socket)
        if not data:
            if data is not None:
                self._close(connection)
            return
        if len(data) == HEADER_LENGTH:
            # The client writes a frame's header by itself, and is at the rest of it now: let it.
            os.sched_yield()
            data += _received(connection.socket) or b""
        if not connection.greeted:
            connection.greeted = True
            data = data[1:]  # the version that it speaks
            self._send(connection, VERSION)
        connection.reader.add(data)
        self._converse(connection)

    def _converse(self, connection: _Connection) -> None:
        """Handle what a client has sent, one call after the other, for as long as it takes the answers."""
        try:
            while (frame := connection.reader.next()) is not None:
                result = connection.conversation.handle(*frame)
                if isinstance(result, bytes):
                    self._send(connection, result)
                else:
                    self._use_key(connection, result)
                if not connection.taking:
                    self._choose_events(connection)
                    break
        except DecodeError as error:
            log.warning("a client is cut off: %s", error, extra={"pid": connection.client.pid})
            self._close(connection)

    def _send(self, connection: _Connection, data: bytes) -> None:
        """Send, or keep what the socket does not take now."""
        if connection.closed:
            return
        outgoing = connection.outgoing
        if outgoing:
            outgoing += data
            data = bytes(outgoing)
        try:
            sent = connection.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        if outgoing or sent < len(data):
            outgoing[:] = data[sent:]
            self._choose_events(connection)

    def _choose_events(self, connection: _Connection) -> None:
        if not connection.closed:
            reading = select.EPOLLIN if connection.taking else 0
            writing = select.EPOLLOUT if connection.outgoing else 0
            self._epoll.modify(connection.socket.fileno(), reading | writing)

    def _close(self, connection: _Connection) -> None:
        connection.closed = True
        self._forget(connection.socket.fileno())
        connection.socket.close()
        self._connections.discard(connection)

    # --- the end ------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Close everything; workers notice that their parent is gone, and are waited for."""
        self._close_listener()
        for connection in list(self._connections):
            self._close(connection)
        for worker in self._workers:
            worker.stop()


def _noted(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor tells the loop; without a handler Python would not write to it."""


def _received(connection: socket.socket) -> bytes | None:
    """What has come; nothing at the end, and None when there is nothing yet."""
    try:
        return connection.recv(_PIECE)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _listening(options: AgentOptions) -> socket.socket:
    """The listening socket, in place of one that nobody serves any more. Raises: ConfigurationError."""
    path = options.path
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(str(path)) == 0:
                    raise ConfigurationError(f"{path}: another agent serves there")
            path.unlink(missing_ok=True)
        listener.bind(str(path))
        # Who may connect is decided by who it is, not by the mode: see `Allowed`.
        path.chmod(0o666 if options.allowed.others else 0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except (OSError, ConfigurationError) as error:
        listener.close()
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"{path}: no socket can be made there: {error.strerror or error}") from None
    return listener
