"""Prefork: a parent that holds nothing, and workers that it starts, replaces when they die, and ends in order.

Never knows what a worker does. The parent has no threads, no event loop and no keys, so that there is little in it
that could fail, and nothing worth stealing.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from locum.defects import whereabouts
from locum.errors import ConfigurationError, LocumError
from locum.hardening import die_with, harden
from locum.names import HostPort

log = logging.getLogger(__name__)

#: Seconds before a worker that died is replaced: at first, and at most when it dies again and again.
FIRST_DELAY = 0.05
LONGEST_DELAY = 10.0
#: Seconds after which a worker that has lived so long counts as sound again.
SOUND_SECONDS = 10.0
#: Seconds that workers have to finish what they do, before they are killed.
GRACE_SECONDS = 30.0
#: Bytes of what a worker says when it is ready, or why it cannot begin.
REPORT_LIMIT = 4096
#: Connections that wait to be accepted, for each worker.
BACKLOG = 1024

_READY, _FAILED = b"+", b"-"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

#: What a worker calls once it serves, with something for `announce` to know.
Ready = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One process: `run` works until it gets SIGTERM, then finishes what is in flight and returns.

    It is called in the child, with SIGHUP and SIGINT ignored: SIGHUP is for itself to handle (read everything
    again), SIGINT is the parent's. It raises a LocumError when it cannot begin.
    """

    name: str
    run: Callable[[Ready], None]


@dataclass(slots=True)
class _Child:
    """A worker's process, or the wait for the next one."""

    worker: Worker
    pid: int = 0
    pipe: int = -1
    report: bytes = b""
    started: float = 0.0
    delay: float = FIRST_DELAY
    due: float = 0.0
    ready: bool = field(default=False)


def supervise(
    workers: Sequence[Worker], *, announce: Callable[[Mapping[str, str]], None], grace: float = GRACE_SECONDS
) -> None:
    """Run `workers` until SIGTERM or SIGINT, which they then get as SIGTERM; SIGHUP is passed on.

    `announce` is called once, with what each worker said, when all of them are ready. From then on a worker that
    dies is replaced. At the end they have `grace` seconds; a second SIGTERM or SIGINT cuts that short.
    Raises: LocumError when a worker cannot begin the first time; none is left running.
    """
    _Supervisor(workers, announce, grace).run()


class _Supervisor:
    def __init__(
        self, workers: Sequence[Worker], announce: Callable[[Mapping[str, str]], None], grace: float
    ) -> None:
        self._children = [_Child(worker) for worker in workers]
        self._announce = announce
        self._grace = grace
        self._announced = False
        self._deadline: float | None = None
        self._selector = selectors.DefaultSelector()
        self._reading, self._writing = socket.socketpair()

    def run(self) -> None:
        gc.collect()
        gc.freeze()  # so that the collector of a child touches no page that it shares with its siblings
        with self._signals(), self._selector:
            try:
                while self._step():
                    pass
            finally:
                self._kill()
                self._reading.close()
                self._writing.close()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn signals into bytes of a socket for as long as the block runs."""
        for end in (self._reading, self._writing):
            end.setblocking(False)
        self._selector.register(self._reading, selectors.EVENT_READ)
        previous = {number: signal.signal(number, _noted) for number in _SIGNALS}
        descriptor = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _step(self) -> bool:
        """Start who is due, and wait for what happens next; false when everything has ended."""
        now = time.monotonic()
        if self._deadline is None:
            for child in self._children:
                if not child.pid and child.due <= now:
                    self._start(child)
        elif not any(child.pid for child in self._children):
            return False
        elif now >= self._deadline:
            log.warning("workers did not finish in time and are killed")
            return False
        for key, _ in self._selector.select(self._patience(now)):
            if key.data is None:
                for number in self._reading.recv(512):
                    self._signalled(number)
            else:
                self._listen(key.data)
        self._reap()
        return True

    def _patience(self, now: float) -> float | None:
        """Seconds until something is to be done without anything having happened."""
        if self._deadline is not None:
            return max(0.0, self._deadline - now)
        return min((max(0.0, child.due - now) for child in self._children if not child.pid), default=None)

    def _signalled(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._send(signal.SIGHUP)
        elif number in (signal.SIGTERM, signal.SIGINT):
            if self._deadline is None:
                self._deadline = time.monotonic() + self._grace
                self._send(signal.SIGTERM)
            else:
                self._deadline = time.monotonic()

    def _send(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, number)

    def _start(self, child: _Child) -> None:
        """Start a worker; while the system has no room for its process, the others go on without it."""
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        # Until the child has its own handlers, its signals would be taken for the parent's.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        ends: tuple[int, ...] = ()
        try:
            reading, writing = ends = os.pipe()
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for end in ends:
                os.close(end)
            self._not_started(child, error)
            return
        if pid == 0:
            # Nothing of the parent's stack may run in the child: it leaves by os._exit alone.
            code = 1
            try:
                self._leave_parent(reading, parent)
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                code = _work(child.worker, writing)
            finally:
                os._exit(code)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(writing)
        child.pid, child.pipe, child.report, child.ready = pid, reading, b"", False
        child.started = time.monotonic()
        self._selector.register(reading, selectors.EVENT_READ, child)

    def _leave_parent(self, reading: int, parent: int) -> None:
        """In the child: give up what is the parent's."""
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        die_with(parent)
        self._selector.close()
        self._reading.close()
        self._writing.close()
        os.close(reading)
        for sibling in self._children:
            if sibling.pipe >= 0:
                os.close(sibling.pipe)

    def _listen(self, child: _Child) -> None:
        """Read what a worker says. At the end of it its process has ended, or has said everything."""
        data = os.read(child.pipe, REPORT_LIMIT)
        child.report += data
        if data and len(child.report) <= REPORT_LIMIT:
            return
        self._selector.unregister(child.pipe)
        os.close(child.pipe)
        child.pipe = -1
        if not child.report.startswith(_READY):
            return
        child.ready = True
        if not self._announced and all(each.ready for each in self._children):
            self._announced = True
            self._announce({each.worker.name: each.report[1:].decode() for each in self._children})

    def _reap(self) -> None:
        for child in self._children:
            if not child.pid:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: _Child, code: int) -> None:
        while child.pipe >= 0:
            self._listen(child)
        child.pid = 0
        if self._deadline is not None:
            return
        reason = child.report[1:].decode(errors="replace") if child.report.startswith(_FAILED) else ""
        if not self._announced:
            raise ConfigurationError(reason or f"the {child.worker.name} ended before it was ready (code {code})")
        now = time.monotonic()
        if child.ready and now - child.started >= SOUND_SECONDS:
            child.delay = FIRST_DELAY
        log.error(
            "worker ended and is replaced",
            extra={"worker": child.worker.name, "code": code, "delay": child.delay}
            | ({"reason": reason} if reason else {}),
        )
        _postpone(child, now)

    def _not_started(self, child: _Child, error: OSError) -> None:
        if not self._announced:
            raise ConfigurationError(f"the {child.worker.name} cannot be started: {error.strerror}")
        log.error("worker cannot be started", extra={"worker": child.worker.name, "error": error.strerror})
        _postpone(child, time.monotonic())

    def _kill(self) -> None:
        """End whoever is left, at once."""
        self._send(signal.SIGKILL)
        for child in self._children:
            if child.pid:
                os.waitpid(child.pid, 0)
                child.pid = 0
            if child.pipe >= 0:
                os.close(child.pipe)
                child.pipe = -1


def _postpone(child: _Child, now: float) -> None:
    child.due = now + child.delay
    child.delay = min(LONGEST_DELAY, child.delay * 2)


def _noted(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor tells the supervisor; without a handler Python would not write to it."""


def _work(worker: Worker, pipe: int) -> int:
    """In the child: run the worker; returns the exit code."""
    pending = [pipe]

    def report(kind: bytes, text: str) -> None:
        if pending:
            with contextlib.suppress(OSError):
                os.write(pipe, (kind + text.encode())[:REPORT_LIMIT])
            os.close(pending.pop())

    harden()  # locked memory is not inherited
    try:
        worker.run(lambda text: report(_READY, text))
    except LocumError as error:
        report(_FAILED, str(error))
        return 1
    except Exception as error:
        log.critical("worker failed unexpectedly", extra={"worker": worker.name} | whereabouts(error))
        return 1
    return 0


# --- the address that all workers listen at ---------------------------------------------------------------


class Reservation:
    """An address that this process keeps for its workers; each of them opens a `listener` of its own.

    The kernel spreads connections over the listeners (SO_REUSEPORT), and leaves out those of a worker that died.
    Raises: ConfigurationError when another program listens there, or the machine has no such address.
    """

    def __init__(self, address: HostPort) -> None:
        bind(address, shared=False).close()  # of the same user, another program could share it unnoticed
        self._socket = bind(address, shared=True)
        self.address = HostPort(address.host, self._socket.getsockname()[1])

    def listener(self) -> socket.socket:
        """A new listening socket, not blocking. Raises: ConfigurationError."""
        found = bind(self.address, shared=True)
        found.listen(BACKLOG)
        return found

    def close(self) -> None:
        """Give up the address; listeners go on."""
        self._socket.close()


def bind(address: HostPort, *, shared: bool) -> socket.socket:
    """A TCP socket bound to `address` and not blocking; `shared` with others of this user that say so too.

    Raises: ConfigurationError.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"cannot listen at {address}: {error.strerror}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(place)
    except OSError as error:
        bound.close()
        raise ConfigurationError(f"cannot listen at {address}: {why_not_bound(error)}") from None
    bound.setblocking(False)
    return bound


def why_not_bound(error: OSError) -> str:
    """Why bind(2) or listen(2) failed, for a person."""
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; is another node running? Choose another"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "not allowed; ports below 1024 need CAP_NET_BIND_SERVICE"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    return error.strerror or str(error)
