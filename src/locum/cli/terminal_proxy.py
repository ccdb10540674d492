"""The running of `locum terminal proxy`: event loop, signals, the ready line.

Apart from `cli.terminal`, because only this command needs an event loop.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from locum.cli.output import announce, warn
from locum.runtime import loop_factory
from locum.terminal.aio import Terminal
from locum.terminal.proxy import Proxy, ProxyOptions
from locum.terminal.steps import Observer


def run_proxy(options: ProxyOptions, credential: Path, observer: Observer) -> None:
    """Relay until SIGTERM or SIGINT. Raises: LocumError when it cannot begin."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(options, credential, observer))


async def _serve(options: ProxyOptions, credential: Path, observer: Observer) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Terminal(credential, observer=observer) as terminal:
        proxy = Proxy(terminal, options, report=warn)
        announce(f"ready {proxy.listen()}")
        await proxy.serve(stop)
