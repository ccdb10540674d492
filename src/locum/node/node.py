"""A node in the foreground: builds its roles from the configuration, runs them, and ends them in order.

Never knows a protocol: what is answered, and how, is the business of the roles.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import uvloop

from locum.authority.local import IkeOptions, LocalOptions
from locum.defects import whereabouts
from locum.delegate.channels import Channels
from locum.delegate.databases import Databases, Loaded
from locum.delegate.endpoint import Endpoint
from locum.delegate.journal import Journal
from locum.delegate.limits import RateLimits
from locum.delegate.service import DelegateService
from locum.delegate.sessions import SessionLimits
from locum.delegate.sockets import BoundSockets, bind
from locum.errors import ConfigurationError
from locum.hardening import harden
from locum.ike import algorithms
from locum.keyserver import server as keyserver
from locum.keyserver.limits import Limits
from locum.keyserver.server import UpstreamOptions
from locum.link.exchange import TransmissionParameters
from locum.names import HostPort
from locum.node import config, logs
from locum.node.config import Configuration, DelegateSection, IkeSection, KeyServerSection, TlsSection
from locum.node.lock import DataLock
from locum.processes import Ready, Reservation, Worker, supervise
from locum.runtime import tune_collector
from locum.store import Store, make_data_directory, open_node_store
from locum.store.audit_writer import AuditWriter
from locum.store.records import AuditEntry

log = logging.getLogger(__name__)

#: Seconds between two looks at the databases: a change of configuration takes effect within this time.
POLL_SECONDS = 0.5
#: Seconds that handshakes in flight have to finish when the node ends.
DRAIN_SECONDS = 2.0
#: Times that the node looks meanwhile whether they have.
DRAIN_LOOKS = 100
#: Seconds between two lines of counters in the log, if anything happened.
REPORT_SECONDS = 60.0

#: IKEv1 has no numbers for these.
_IKE_2_ONLY = (algorithms.CURVE25519, algorithms.CURVE448)

#: The workers of a node with several processes.
DELEGATE, KEY_SERVER = "delegate", "keyserver"
#: Seconds that processes have to end, beyond what they are told to drain within.
ENDING_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Where the roles of a node that serves are reached; None for one that it does not have."""

    delegate: HostPort | None = None
    key_server: HostPort | None = None


Announce = Callable[[Running], None]
Endpoints = list[tuple[BoundSockets, bool]]


def run(
    data_dir: Path,
    config_file: Path | None,
    *,
    listen: HostPort | None = None,
    key_server: HostPort | None = None,
    delegate: bool = True,
    announce: Announce,
) -> None:
    """Run a node on `data_dir` until SIGTERM or SIGINT; `announce` is told where once all of it serves.

    `listen`, of the delegate, and `key_server` override the configuration. Without a delegate several nodes may
    run on the same data directory. Raises: LocumError, with one line, when it cannot start.
    """
    complaints = harden()
    configuration = config.load(data_dir, config_file)
    logs.configure(level=configuration.log.level, form=configuration.log.format)
    for complaint in complaints:
        log.warning(complaint)
    keys_at = key_server or configuration.keyserver.listen
    if not delegate and keys_at is None:
        raise ConfigurationError("without the delegate there is nothing to run; add --key-server ADDR:PORT")
    make_data_directory(data_dir)
    with contextlib.ExitStack() as stack:
        endpoints: Endpoints = []
        if delegate:
            stack.enter_context(DataLock(data_dir))
            endpoints = bind_endpoints(configuration.delegate, listen or configuration.delegate.listen)
        if keys_at is None:
            where = Running(delegate=endpoints[0][0].address)
            _run_delegate(data_dir, configuration, endpoints, lambda: announce(where))
            return
        place = Reservation(keys_at)
        where = Running(delegate=endpoints[0][0].address if delegate else None, key_server=place.address)
        supervise(
            _workers(data_dir, configuration, endpoints, place),
            announce=lambda _: announce(where),
            grace=max(DRAIN_SECONDS, configuration.keyserver.drain_seconds) + ENDING_SECONDS,
        )


def _workers(
    data_dir: Path, configuration: Configuration, endpoints: Endpoints, place: Reservation
) -> list[Worker]:
    """The processes of a node with a key server. None of them is the parent, which so never sees a key."""
    options = key_server_options(configuration.keyserver, place.address)

    def delegate(ready: Ready) -> None:
        _run_delegate(data_dir, configuration, endpoints, lambda: ready(""))

    def key_server(ready: Ready) -> None:
        for sockets, _ in endpoints:
            sockets.close()
        with open_node_store(data_dir, configuration.node.database) as store:
            keyserver.run(store, place.listener(), options, lambda: ready(""))

    processes = configuration.keyserver.processes or len(os.sched_getaffinity(0))
    workers = [Worker(name=f"{KEY_SERVER}-{number}", run=key_server) for number in range(1, processes + 1)]
    return [Worker(name=DELEGATE, run=delegate), *workers] if endpoints else workers


def _run_delegate(
    data_dir: Path, configuration: Configuration, endpoints: Endpoints, ready: Callable[[], None]
) -> None:
    with open_node_store(data_dir, configuration.node.database) as store:
        uvloop.run(Node(configuration, store, endpoints).run(ready))


def bind_endpoints(settings: DelegateSection, listen: HostPort) -> Endpoints:
    """The sockets of every endpoint, and whether it is protected; the first is. Raises: ConfigurationError."""
    bound = [(bind(listen), True)]
    if settings.secure_path_listen is not None:
        try:
            bound.append((bind(settings.secure_path_listen), False))
        except ConfigurationError:
            bound[0][0].close()
            raise
    return bound


def key_server_options(settings: KeyServerSection, address: HostPort) -> keyserver.Options:
    """What [keyserver] says, for each of its processes; `address` is where they listen."""
    reached = (*settings.addresses, address)
    return keyserver.Options(
        names=tuple(dict.fromkeys(each.host for each in reached if each.reachable)),
        limits=Limits(
            rate=settings.requests_per_second,
            connections=settings.max_connections,
            handshakes=settings.max_handshakes,
            handshake_seconds=settings.handshake_seconds,
            message_seconds=settings.message_seconds,
            idle_seconds=settings.idle_seconds,
        ),
        legacy_hashes=settings.legacy_hashes,
        key_directory=settings.key_directory,
        upstreams=tuple(
            UpstreamOptions(credential=each.credential, policy=each.policy) for each in settings.upstream
        ),
        poll_seconds=settings.poll_seconds,
        drain_seconds=settings.drain_seconds,
    )


class Node:
    """A delegate's process: everything that runs in it, and in which order it begins and ends."""

    def __init__(self, configuration: Configuration, store: Store, bound: Endpoints) -> None:
        settings = configuration.delegate
        self._settings = settings
        self._bound = bound
        self._channels = Channels(store.terminals, clock=time.monotonic)
        self._databases = Databases(
            store,
            _options(configuration.tls),
            self._channels,
            ike_options=_ike_options(configuration.ike),
            now=time.time,
            clock=time.monotonic,
        )
        self._audit: AuditWriter[AuditEntry] = AuditWriter(store.audit_many)
        self._service = DelegateService(
            authority=self._databases,
            serves=self._serves,
            journal=Journal(self._audit.put, time=time.time),
            random=os.urandom,
            session_limits=SessionLimits(
                lifetime=settings.session_lifetime,
                overall=settings.max_sessions,
                per_terminal=settings.max_sessions_per_terminal,
            ),
            rate_limits=RateLimits(rate=settings.requests_per_second, burst=settings.request_burst),
            effort=time.thread_time,
        )
        self._endpoints: list[Endpoint] = []
        self._stopping = asyncio.Event()

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until told to stop; `ready` is called when it serves. Raises: LocumError when it cannot begin."""
        self._databases.use(self._databases.read())
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_defect)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._audit.start()
        try:
            for sockets, protected in self._bound:
                endpoint = self._endpoint(sockets, protected=protected)
                self._endpoints.append(endpoint)
                await endpoint.start()
            tune_collector()
            ready()
            log.info("started", extra={"delegate": self._endpoints[0].address})
            await self._work()
        finally:
            await self._end()

    def _serves(self, terminal: str, plain: bool) -> bool:
        serves = self._channels.serves
        return serves(terminal) or (self._databases.look() and serves(terminal))

    def _endpoint(self, sockets: BoundSockets, *, protected: bool) -> Endpoint:
        if not protected:
            log.warning("secure path: messages are plain here", extra={"delegate": sockets.address})
        return Endpoint(
            sockets,
            self._service,
            credentials=self._channels if protected else None,
            random=os.urandom,
            parameters=TransmissionParameters(datagram_size=self._settings.datagram_size),
        )

    async def _work(self) -> None:
        """Follow the databases and keep the house until told to stop.

        While a database does not answer the house is kept all the same, and what was read last becomes outdated.
        """
        loop = asyncio.get_running_loop()
        reported = loop.time()
        # One thread, so that a database that hangs delays the next look at it and nothing else.
        with ThreadPoolExecutor(1, "databases") as executor:
            look: asyncio.Future[Loaded | None] | None = None
            while not await self._stopped_within(POLL_SECONDS):
                look = look or loop.run_in_executor(executor, self._databases.poll)
                await asyncio.wait((look,), timeout=POLL_SECONDS)
                if look.done():
                    changed, look = look.result(), None
                    if changed is not None:
                        self._databases.use(changed)
                self._service.suspend(self._databases.outdated)
                self._service.expire(now=loop.time())
                for endpoint in self._endpoints:
                    endpoint.close_idle()
                if loop.time() - reported >= REPORT_SECONDS:
                    reported = loop.time()
                    self._report()

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _end(self) -> None:
        """Open no more sessions, let those in flight finish, wipe what is left, write the audit log."""
        loop = asyncio.get_running_loop()
        log.info("stopping", extra={"sessions": len(self._service.sessions)})
        self._service.end_sessions()
        for endpoint in self._endpoints:
            endpoint.stop_accepting()
        for _ in range(DRAIN_LOOKS):
            if not len(self._service.sessions):
                break
            await asyncio.sleep(DRAIN_SECONDS / DRAIN_LOOKS)
        self._service.close()
        for endpoint in self._endpoints:
            await endpoint.close()
        await loop.run_in_executor(None, self._audit.close)
        self._report()
        log.info("stopped")

    def _report(self) -> None:
        counters = asdict(self._service.counters)
        if any(counters.values()):
            log.info("since the start", extra=counters | {"audit_dropped": self._audit.dropped})


def _options(tls: TlsSection) -> LocalOptions:
    """What the configuration allows; a list that is empty there restricts nothing."""
    chosen: dict[str, tuple[Any, ...]] = {
        "versions": tls.versions,
        "cipher_suites": tls.cipher_suites,
        "groups": tls.groups,
        "key_forms": tls.key_forms,
    }
    return replace(LocalOptions(), **{name: codes for name, codes in chosen.items() if codes})


def _ike_options(ike: IkeSection) -> IkeOptions:
    """What the configuration allows. Raises: ConfigurationError for a group that nobody here can perform."""
    options = IkeOptions(legacy_sha1=ike.legacy_sha1, rsa_pss=ike.rsa_pss)
    policy, phase1 = options.policy, options.phase1
    if ike.groups:
        first = tuple(group for group in ike.groups if not group.additional_only)
        # With any of them, or none, in every place: what the two ends both offer is performed.
        policy = replace(policy, groups=first, additional=((*ike.groups, None),) * len(policy.additional))
        phase1 = replace(phase1, groups=tuple(group for group in first if group not in _IKE_2_ONLY))
    if ike.legacy_sha1:
        phase1 = replace(phase1, prfs=(*phase1.prfs, algorithms.PRF_HMAC_SHA1))
    return replace(options, policy=policy, phase1=phase1)


def _log_defect(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A callback failed unexpectedly: the message that caused it has no answer, everything else goes on."""
    error = context.get("exception")
    extra = whereabouts(error) if isinstance(error, BaseException) else {}
    log.error("callback failed unexpectedly", extra=extra)
