"""The running of `locum terminal ipsec`: event loop, signals, and the lines that are printed.

Apart from `cli.terminal_ipsec`, because only this command needs the engine of IKE.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from locum.cli.output import announce, note, warn
from locum.dataplane.choice import AUTO, choose_installer
from locum.errors import ConfigurationError, Incompatible, Unavailable
from locum.ipsec.selectors import Address
from locum.names import normalize_dns_name
from locum.runtime import loop_factory, tune_collector
from locum.terminal.ipsec import IpsecTerminal
from locum.terminal.ipsec_options import IpsecOptions, connection
from locum.terminal.ipsec_reports import Problem, Report
from locum.terminal.steps import Observer

#: What ends the command.
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What the command line says beside the connection itself; None leaves the default. Times are in seconds."""

    peer: str
    respond: bool
    local: str
    port: int | None
    peer_port: int | None
    dataplane: str
    timeout: float | None
    observer: Observer | None


def run_ipsec(credential: Path, options: IpsecOptions, running: Running) -> None:
    """Have SAs until SIGTERM or SIGINT. Raises: LocumError when there are none, or none any more."""
    remote = _resolve(running.peer)
    wanted = connection(options, remote)
    local = _address(running.local) if running.local else None

    reasons: list[str] = []
    terminal = IpsecTerminal(
        credential,
        connection=wanted,
        installer=choose_installer(running.dataplane, explain=reasons.append),
        respond=running.respond,
        local=local,
        port=running.port,
        peer_port=running.peer_port,
        observer=running.observer,
        on_report=_show,
    )
    if running.dataplane == AUTO:
        # Said last, when nothing is wrong with anything else.
        for reason in reasons:
            note(reason)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_keep(terminal, running.timeout))
    except Incompatible as error:
        if not options.withholds_psk:
            raise
        raise Incompatible(f"{error}; a pre-shared key is used only with --allow-aggressive-psk") from None


async def _keep(terminal: IpsecTerminal, within: float | None) -> None:
    """Until a signal, or a failure. Raises: LocumError."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.set)
    async with terminal:
        tune_collector()
        stopped = loop.create_task(stop.wait())
        kept = loop.create_task(_up_and_on(terminal, within))
        await asyncio.wait({stopped, kept}, return_when=asyncio.FIRST_COMPLETED)
        failed = kept.done()
        if not failed:
            note("interrupted: the SAs are being deleted at both ends")
        stopped.cancel()
        kept.cancel()
        await terminal.close()
        for number in SIGNALS:
            # One more signal must not kill what is about to end in order.
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        if failed:
            kept.result()


async def _up_and_on(terminal: IpsecTerminal, within: float | None) -> None:
    await terminal.up(within=within)
    await terminal.wait()


def _show(report: Report) -> None:
    if isinstance(report, Problem):
        warn(str(report))
    else:
        # A program that waits for this line must get it at once, from a pipe too.
        announce(str(report))


def _resolve(text: str) -> Address:
    """The address that is written, or the first that the name has. Raises: LocumError."""
    try:
        return ip_address(text)
    except ValueError:
        name = normalize_dns_name(text)
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise Unavailable(f"{name}: {error.strerror}") from None
    return ip_address(found[0][4][0])


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise ConfigurationError(f"--local {text!r} is not an IP address") from None
