"""The processes of `locum edge`: prefork, each with its own event loop, sharing one address (C9).

Never holds a key in the parent; each worker reads what it needs by itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from locum.edge.proxy import Proxy, ProxyOptions
from locum.edge.service import Edge, EdgeOptions
from locum.edge.tls_server import Limits, TlsServer
from locum.errors import ConfigurationError
from locum.hardening import harden
from locum.names import HostPort
from locum.processes import Ready, Reservation, Worker, supervise
from locum.runtime import loop_factory, tune_collector
from locum.tls.tickets import ROOT_LENGTH

#: Most processes of one edge.
MAXIMUM_PROCESSES = 256
#: Seconds that a worker has beyond the time in which its connections may end.
GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """A running edge: where it listens, and in how many processes; one for each core unless given."""

    listen: HostPort
    edge: EdgeOptions
    proxy: ProxyOptions
    limits: Limits = field(default_factory=Limits)
    processes: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.processes <= MAXIMUM_PROCESSES:
            raise ConfigurationError(f"1 to {MAXIMUM_PROCESSES} processes")


def run_edge(options: RunOptions, *, announce: Callable[[HostPort], None]) -> None:
    """Run until SIGTERM or SIGINT; `announce` is called with the address when every process serves.

    Raises: LocumError when it cannot begin.
    """
    harden()
    reservation = Reservation(options.listen)
    # Without a key server, the processes of this edge have this root in common; it opens no ticket of any other.
    edge = dataclasses.replace(options.edge, ticket_root=os.urandom(ROOT_LENGTH))
    count = options.processes or len(os.sched_getaffinity(0))
    workers = [
        Worker(
            name=f"edge worker {number}",
            run=partial(_work, reservation, dataclasses.replace(options, edge=edge)),
        )
        for number in range(1, count + 1)
    ]
    try:
        supervise(
            workers,
            announce=lambda _: announce(reservation.address),
            grace=options.limits.drain_timeout + GRACE_SECONDS,
        )
    finally:
        reservation.close()


def _work(reservation: Reservation, options: RunOptions, ready: Ready) -> None:
    """One worker. Raises: LocumError when it cannot begin."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(reservation, options, ready))


async def _serve(reservation: Reservation, options: RunOptions, ready: Ready) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    async with Edge(options.edge) as edge:
        reloads: set[asyncio.Task[None]] = set()

        def reload() -> None:
            task = loop.create_task(edge.reload())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, reload)
        server = TlsServer(
            reservation.listener(),
            edge.authority,
            edge.configuration,
            Proxy(options.proxy).serve,
            limits=options.limits,
        )
        tune_collector()
        ready("")
        await server.run(stop)
