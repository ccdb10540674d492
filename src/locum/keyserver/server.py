"""One process of a key server: listens, follows the databases, keeps the house, and ends in order.

Never knows a message of the protocol.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import uvloop

from locum.defects import whereabouts
from locum.errors import LocumError, TimedOut, Unavailable
from locum.keys.credential import EdgeCredential
from locum.keys.pool import PoolOptions
from locum.keys.token import TokenKey
from locum.keyserver.answering import Deferred
from locum.keyserver.databases import Databases
from locum.keyserver.elsewhere import DirectoryKeys, InThreads, Upstream
from locum.keyserver.journal import Journal
from locum.keyserver.keyring import HeldKey, held_elsewhere
from locum.keyserver.limits import Bucket, Limits
from locum.keyserver.link import LinkIdentity, make_identity
from locum.keyserver.peer import Peer, Turns
from locum.keyserver.service import KeyService, State
from locum.runtime import tune_collector
from locum.store import Store
from locum.store.audit_writer import AuditWriter
from locum.store.records import AuditEntry, StoredKey

log = logging.getLogger(__name__)

#: Seconds between two rounds of housekeeping, and two lines of counters in the log if anything happened.
HOUSE_SECONDS = 1.0
REPORT_SECONDS = 60.0
#: Connections accepted before anything else gets its turn.
ACCEPTED_AT_ONCE = 32
#: Seconds without accepting after the system had no room for one more connection.
REST_SECONDS = 0.1
#: Seconds for the other end to say goodbye in TLS.
SHUTDOWN_SECONDS = 2.0
#: Seconds for an operation that is performed elsewhere.
ELSEWHERE_SECONDS = 10.0
#: Seconds between two looks at a directory of keys.
DIRECTORY_SECONDS = 2.0
#: Threads for tokens.
TOKEN_THREADS = 8
#: A new certificate is made when the one in use ends in so many seconds.
RENEWAL_SECONDS = 30 * 86_400.0
#: Looks at the databases per second for the sake of strangers.
STRANGER_LOOKS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamOptions:
    """Another key server (C7): the directory of the credential, and how its servers are chosen from."""

    credential: Path
    policy: Literal["ordered", "least"] = "least"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How one process of a key server works. `names` are those by which edges reach it; times in seconds."""

    names: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    legacy_hashes: bool = False
    key_directory: Path | None = None
    upstreams: tuple[UpstreamOptions, ...] = ()
    poll_seconds: float = 0.25
    drain_seconds: float = 5.0


def run(store: Store, listener: socket.socket, options: Options, ready: Callable[[], None]) -> None:
    """Serve at `listener` until SIGTERM; SIGHUP has everything read again. `ready` is called when it serves.

    Raises: LocumError when it cannot begin.
    """
    uvloop.run(KeyServer(store, listener, options).run(ready))


class KeyServer:
    """Everything that runs in the process, and in which order it begins and ends."""

    def __init__(self, store: Store, listener: socket.socket, options: Options) -> None:
        self._store = store
        self._listener = listener
        self._options = options
        self._audit: AuditWriter[AuditEntry] = AuditWriter(store.audit_many)
        self.service = KeyService(
            journal=Journal(self._audit.put, time=time.time),
            limits=options.limits,
            now=time.time,
            clock=time.monotonic,
            random=os.urandom,
            legacy_hashes=options.legacy_hashes,
        )
        self._databases = Databases(store, open_token=self._open_token, clock=time.monotonic)
        self._token_threads = ThreadPoolExecutor(TOKEN_THREADS, "token")
        # One thread, so that a database that hangs delays the next look at it and nothing else.
        self._database_thread = ThreadPoolExecutor(1, "databases")
        self._directory = None if options.key_directory is None else DirectoryKeys(options.key_directory)
        self._directory_due = 0.0
        self._upstreams: list[Upstream] = []
        self._peers: set[Peer] = set()
        #: Those whose handshake has not ended, which `_handshakes` makes.
        self._coming: set[Peer] = set()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers: list[Peer] = []
        self._looks = Bucket(STRANGER_LOOKS, time.monotonic())
        self._stopping = asyncio.Event()
        self._awake = asyncio.Event()
        self._reload = False

    # --- beginning and end --------------------------------------------------------------------------------

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until told to stop. Raises: LocumError when it cannot begin."""
        loop = asyncio.get_running_loop()
        self._loop = loop
        self.turns = Turns(loop.call_soon)
        loop.set_exception_handler(_log_defect)
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._read_again)
        self._identity = self._new_identity()
        self._audit.start()
        try:
            await self._start_upstreams()
            self._databases.others = self._others()
            self.service.use(await self._in_database_thread(self._databases.read))
            self._listen()
            tune_collector()
            ready()
            log.info("started", extra={"keys": len(self.service.state.keyring.keys)})
            await self._work()
        finally:
            await self._end()

    def _stop(self) -> None:
        self._stopping.set()
        self._awake.set()

    def _read_again(self) -> None:
        self._reload = True
        self._awake.set()

    def _new_identity(self) -> LinkIdentity:
        # Before a snapshot is read, so that there is one to hand out.
        self._store.internal.ticket_root(actor="keyserver")
        return make_identity(self._store, self._options.names, now=time.time())

    async def _start_upstreams(self) -> None:
        for each in self._options.upstreams:
            credential = EdgeCredential.load(each.credential)
            upstream = Upstream(credential, PoolOptions(policy=each.policy), self._awake.set)
            await upstream.start()
            self._upstreams.append(upstream)

    async def _in_database_thread(self, work: Callable[[], Any]) -> Any:
        return await self._loop.run_in_executor(self._database_thread, work)

    async def _end(self) -> None:
        """Accept nobody more, answer what has arrived, write the audit log."""
        log.info("stopping", extra={"connections": len(self._peers)})
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()
        for task in self._handshakes:
            task.cancel()
        deadline = self._loop.time() + self._options.drain_seconds
        while self._peers and self._loop.time() < deadline:
            for peer in tuple(self._peers):
                if peer.idle:
                    peer.close()
            await asyncio.sleep(0.01)
        for peer in tuple(self._peers):
            peer.abort()
        for upstream in self._upstreams:
            await upstream.close()
        for task in self._tasks:
            task.cancel()
        self.service.journal.flush()
        await self._loop.run_in_executor(None, self._audit.close)
        self._token_threads.shutdown(wait=False, cancel_futures=True)
        self._database_thread.shutdown(wait=False, cancel_futures=True)
        self._report()
        log.info("stopped")

    # --- accepting ----------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        limits = self._options.limits
        for _ in range(ACCEPTED_AT_ONCE):
            if len(self._handshakes) >= limits.handshakes:
                # Whoever comes next waits in the kernel until one of these has ended, or its time is over.
                self._loop.remove_reader(self._listener)
                return
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("no connection can be accepted", extra={"error": error.strerror})
                self._loop.remove_reader(self._listener)
                self._loop.call_later(REST_SECONDS, self._accept_again)
                return
            if len(self._peers) + len(self._coming) >= limits.connections:
                self.service.counters.turned_away += 1
                self.service.journal.turned_away("", "too many connections")
                connection.close()
                continue
            peer = Peer(self, self._loop.time)
            self._coming.add(peer)
            task = self._loop.create_task(self._shake_hands(connection, peer))
            self._handshakes.add(task)
            task.add_done_callback(self._shaken)

    async def _shake_hands(self, connection: socket.socket, peer: Peer) -> None:
        """TLS; whoever has no certificate of the right CA gets no further, and leaves no trace but a number."""
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            await self._loop.connect_accepted_socket(
                lambda: peer,
                connection,
                ssl=self._identity.context,
                ssl_handshake_timeout=self._options.limits.handshake_seconds,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )
        except OSError:
            self.service.counters.turned_away += 1
            connection.close()
        finally:
            self._coming.discard(peer)

    def _shaken(self, task: asyncio.Task[None]) -> None:
        full = len(self._handshakes) >= self._options.limits.handshakes
        self._handshakes.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log_defect(self._loop, {"exception": task.exception()})
        if full:
            self._accept_again()

    def _accept_again(self) -> None:
        if not self._stopping.is_set() and self._listener.fileno() >= 0:
            self._listen()

    # --- as the owner of connections ----------------------------------------------------------------------

    def made(self, peer: Peer) -> None:
        """As `Owner.made`."""
        self._coming.discard(peer)
        self._peers.add(peer)
        self.service.counters.connections += 1

    def lost(self, peer: Peer) -> None:
        """As `Owner.lost`."""
        self._peers.discard(peer)

    def look(self, peer: Peer) -> bool:
        """As `Owner.look`: an edge that was enrolled a moment ago is not turned away."""
        if not self._looks.refill(time.monotonic()):
            return False
        self._looks.tokens -= 1
        self._strangers.append(peer)
        self._awake.set()
        return True

    def defer(self, peer: Peer, deferred: Deferred) -> None:
        """As `Owner.defer`."""
        task = self._loop.create_task(self._perform(peer, deferred))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _perform(self, peer: Peer, deferred: Deferred) -> None:
        result: bytes | LocumError
        try:
            async with asyncio.timeout(ELSEWHERE_SECONDS):
                result = await deferred.key.holder.perform(deferred.operation)
        except LocumError as error:
            result = error
        except TimeoutError:
            result = TimedOut("the holder of the key did not answer in time")
        except Exception as error:
            log.error("operation failed unexpectedly", extra={"key": deferred.key.name} | whereabouts(error))
            result = Unavailable("the key server failed")
        peer.finish(deferred, result)

    # --- the house ----------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Follow the databases and keep the house until told to stop.

        While a database does not answer the house is kept all the same, and what was read last becomes outdated.
        """
        loop = self._loop
        kept = reported = loop.time()
        following: asyncio.Task[None] | None = None
        while not self._stopping.is_set():
            await self._rest()
            if following is None or following.done():
                if following is not None:
                    following.result()
                following = loop.create_task(self._follow(), name="databases")
            await asyncio.wait((following,), timeout=self._options.poll_seconds)
            self.service.suspended = self._databases.outdated
            now = loop.time()
            if now - kept >= HOUSE_SECONDS:
                kept = now
                self._keep_house(now)
            if now - reported >= REPORT_SECONDS:
                reported = now
                self._report()

    async def _rest(self) -> None:
        """Return when it is time for the next look, or somebody wants one."""
        try:
            async with asyncio.timeout(self._options.poll_seconds):
                await self._awake.wait()
        except TimeoutError:
            pass
        self._awake.clear()

    async def _follow(self) -> None:
        """Go by what the databases hold now, and judge every connection by it."""
        strangers, self._strangers = self._strangers, []
        again, self._reload = self._reload, False
        state: State | None = await self._in_database_thread(partial(self._poll, again))
        if state is not None:
            self.service.use(state)
            for peer in tuple(self._peers):
                peer.judge()
        for peer in strangers:
            peer.judge()
        if again or self._identity.not_after - time.time() < RENEWAL_SECONDS:
            await self._renew_identity()

    def _poll(self, again: bool) -> State | None:
        """In the database thread: what there is now, with keys that are not in the store, if it has changed."""
        if self._directory is not None and (again or self._directory_due <= time.monotonic()):
            self._directory_due = time.monotonic() + DIRECTORY_SECONDS
            self._directory.refresh()
        self._databases.others = self._others()
        return self._databases.poll()

    def _others(self) -> tuple[HeldKey, ...]:
        """Keys that are not in the store."""
        here = () if self._directory is None else self._directory.keys
        return (*here, *(key for upstream in self._upstreams for key in upstream.keys))

    def _open_token(self, row: StoredKey) -> HeldKey:
        """The key of a token. Raises: LocumError."""
        return held_elsewhere(row.name, InThreads(TokenKey.open(row.token), self._token_threads))

    async def _renew_identity(self) -> None:
        """Make a new certificate, for connections from now on; without success the old one stays."""
        try:
            self._identity = await self._in_database_thread(self._new_identity)
        except LocumError as error:
            log.error("no new certificate for the key server", extra={"error": str(error)})

    def _keep_house(self, now: float) -> None:
        self.service.journal.flush()
        for peer in tuple(self._peers):
            reason = peer.overdue(now)
            if reason == "idle":
                peer.close()
            elif reason:
                log.info("connection ended", extra={"reason": reason})
                peer.abort()

    def _report(self) -> None:
        counters = asdict(self.service.counters)
        if any(counters.values()):
            log.info("since the start", extra=counters | {"audit_dropped": self._audit.dropped})


def _log_defect(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A callback failed unexpectedly: what it was for is lost, everything else goes on."""
    error = context.get("exception")
    extra = whereabouts(error) if isinstance(error, BaseException) else {}
    log.error("callback failed unexpectedly", extra=extra)
