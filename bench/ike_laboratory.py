"""strongSwan as the initiator of IKE SAs, as many as it can make, and what it can be driven against.

The initiator has a namespace, and so has each responder, on a wire of its own. The initiator is kept on one core,
responders on another. SAs have no child (RFC 6023; in IKEv1 phase 1 alone): the key exchange is all there is.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from bench.harness import process_seconds
from bench.ike_responder import CHAIN, INITIATOR, RESPONDER, ROOT, SECRET

from locum.demo.namespaces import Namespace, connect
from locum.demo.node import DemoNode
from locum.demo.pki import CertificateAuthority, Issued
from locum.demo.process import BackgroundProcess
from locum.demo.strongswan import Connection, StrongSwan
from locum.demo.vici import Vici
from locum.errors import LocumError, Unavailable

INITIATOR_CORE, RESPONDER_CORE = 0, 1
#: So many connections are made at the same time, each again and again.
WORKERS = 8
#: Seconds that making one may take, and that a responder is left alone afterwards to be done with the last ones.
PATIENCE = 5.0
SETTLING = 0.5
#: In IKEv1 the initiator takes an SA again that was made with equal settings, so each connection has a lifetime of
#: its own, from this one on, in seconds.
LIFETIME = 4000
TERMINAL = "bench"
#: One terminal does all handshakes, so it must be allowed more than a device would be.
NO_LIMITS = "[delegate]\nrequests_per_second = 1e6\nrequest_burst = 1e7\n"
#: strongSwan at its best: no log, no limits, tables for many SAs.
QUICK: Mapping[str, Any] = {
    "reuse_ikesa": "no",
    "dos_protection": "no",
    "init_limit_half_open": 0,
    "ikesa_table_size": 4096,
    "ikesa_table_segments": 16,
    "journal": {"default": -1},
    "filelog": {},
}
#: The initiator's commands each hold a thread until the SA is there.
INITIATOR_THREADS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is agreed on: the version, strongSwan's word for the algorithms, the kind of both ends' certificates.

    Without a kind it is a pre-shared key.
    """

    version: int
    proposal: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Responder:
    """A responder that runs: the process, and its address as the initiator sees it."""

    name: str
    pid: int
    address: str

    def seconds(self) -> float:
        """CPU time so far."""
        return process_seconds(self.pid)


class IkeLaboratory:
    """The initiator of one case, and whatever is added; a context manager. Raises: Unavailable."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._running = ExitStack()
        self._namespace = Namespace("initiator")
        self._wires = 0

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            self.directory = Path(starting.enter_context(tempfile.TemporaryDirectory(prefix="locum-bench-ike-")))
            self._make_credentials()
            starting.enter_context(self._namespace)
            settings = {**QUICK, "threads": INITIATOR_THREADS}
            self._initiator = self._charon(self._namespace, "initiator", settings)
            starting.enter_context(self._initiator)
            self._give_credentials(self._initiator)
            pin(self._initiator.pid, INITIATOR_CORE)
            self._running = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running.close()

    # --- responders ---------------------------------------------------------------------------------------

    def add_strongswan(self) -> Responder:
        """strongSwan as it comes, with the settings of the initiator."""
        site, local, remote = self._site("strongswan")
        charon = self._running.enter_context(self._charon(site, "strongswan", QUICK))
        self._give_credentials(charon)
        charon.load(self._connection("any", local, remote, initiator=False))
        return self._added(Responder("strongswan", charon.pid, local), remote)

    def add_terminal(
        self, *, delegated: bool = False, interpreter_options: Sequence[str | Path] = ()
    ) -> Responder:
        """A terminal in a process of its own, with an authority there, or `delegated` to `add_node`'s."""
        name = "delegated" if delegated else "terminal"
        if delegated:
            site, local, remote = self._delegated_site
        else:
            site, local, remote = self._site(name)
        words = [sys.executable, *interpreter_options, "-m", "bench.ike_responder", self.directory]
        words += [local, remote, str(self._case.version), self._case.proposal]
        words += [self._credential] if delegated else []
        process = BackgroundProcess(
            name,
            site.command(words),
            log_path=self.directory / f"{name}.log",
            ready=lambda log: log.startswith("ready"),
        )
        self._running.enter_context(process)
        return self._added(Responder(name, process.pid, local), remote)

    def add_node(self, *, interpreter_options: Sequence[str] = ()) -> DemoNode:
        """A delegate, with one terminal enrolled that has the responder's certificate."""
        self._delegated_site = self._site("delegated")
        node = DemoNode(
            self.directory,
            namespace=self._delegated_site[0],
            configuration=NO_LIMITS,
            interpreter_options=interpreter_options,
        )
        self._running.enter_context(node)
        self._credential = node.enroll(TERMINAL)
        node.command("trust", "add", ROOT)
        node.command("policy", "add", "--terminal", TERMINAL, "--peer", f"dns:{INITIATOR}", "--action", "allow")
        own = self._certificates[RESPONDER]
        words = ("--cert", own.chain.name, "--key", own.key.name, "--terminal", TERMINAL)
        node.command("identity", "add", RESPONDER, *words)
        return node

    def _added(self, responder: Responder, initiator: str) -> Responder:
        """Have the initiator know it, under as many names as there are workers."""
        pin(responder.pid, RESPONDER_CORE)
        for number in range(WORKERS):
            name = f"{responder.name}-{number}"
            connection = self._connection(name, initiator, responder.address, soft=LIFETIME + number)
            self._initiator.load(connection)
        return responder

    def _site(self, name: str) -> tuple[Namespace, str, str]:
        """A namespace on a new wire to the initiator; its address there, and the initiator's."""
        self._wires += 1
        interface = f"wire{self._wires}"
        addresses = [IPv4Interface(f"192.0.2.{4 * self._wires + end}/30") for end in (1, 2)]
        site = self._running.enter_context(Namespace(name))
        connect(site, interface, self._namespace, interface)
        for namespace, address in zip((site, self._namespace), addresses, strict=True):
            namespace.configure(f"addr add {address} dev {interface}")
        return site, str(addresses[0].ip), str(addresses[1].ip)

    # --- credentials --------------------------------------------------------------------------------------

    def _make_credentials(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._authority = CertificateAuthority(self.directory, Path(ROOT).stem, kind=self._case.kind or "p256")
        self._certificates: dict[str, Issued] = {}
        if not self._case.kind:
            (self.directory / SECRET).write_bytes(self._secret)
            return
        for name in (INITIATOR, RESPONDER):
            stem = CHAIN.partition(".")[0] if name == RESPONDER else "initiator"
            self._certificates[name] = self._authority.issue(
                stem, kind=self._case.kind, names=(name,), usage="ipsec"
            )

    def _give_credentials(self, charon: StrongSwan) -> None:
        charon.trust(self._authority.der)
        if not self._case.kind:
            charon.share(self._secret, INITIATOR, RESPONDER)

    def _charon(self, namespace: Namespace, name: str, settings: Mapping[str, Any]) -> StrongSwan:
        return StrongSwan(namespace, self.directory / name, userspace=False, settings=settings)

    def _connection(
        self,
        name: str,
        local: str,
        remote: str,
        *,
        initiator: bool = True,
        soft: float = 0,
        extra: Mapping[str, Any] = MappingProxyType({}),
    ) -> Connection:
        own, other = (INITIATOR, RESPONDER) if initiator else (RESPONDER, INITIATOR)
        return Connection(
            name=name,
            version=self._case.version,
            local=local,
            remote=remote,
            identity=own,
            peer_identity=other,
            certificate=self._certificates.get(own),
            proposals=(self._case.proposal,),
            soft=soft,
            extra=extra,
        )

    # --- as responder -------------------------------------------------------------------------------------

    @property
    def delegated_ends(self) -> tuple[Namespace, str, str]:
        """The namespace of the terminal with a delegate, its address, and that of strongSwan, which answers it."""
        site, local, remote = self._delegated_site
        self._initiator.load(self._connection("any", remote, local, extra={"childless": "allow"}))
        return site, local, remote

    @property
    def credential(self) -> Path:
        """The credential file of the terminal with a delegate."""
        return self._credential

    # --- measuring ----------------------------------------------------------------------------------------

    def drive(self, responder: Responder, seconds: float) -> int:
        """Make SAs with `responder` and delete them, for so many seconds; returns how many there were.

        Raises: Unavailable when one could not be made.
        """
        end = time.monotonic() + seconds
        with ExitStack() as controls:
            workers = [
                _Worker(controls.enter_context(self._control()), f"{responder.name}-{number}", end)
                for number in range(WORKERS)
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        time.sleep(SETTLING)
        for worker in workers:
            if worker.fault is not None:
                raise Unavailable(f"a handshake with {responder.name} failed: {worker.fault}")
        return sum(worker.made for worker in workers)

    def _control(self) -> Vici:
        """A connection for commands that is served: charon lets few wait to be."""
        control = self._initiator.control()
        control.request("version")
        return control


class _Worker(threading.Thread):
    """Makes one connection and deletes it, again and again until `end` of the monotonic clock."""

    def __init__(self, control: Vici, name: str, end: float) -> None:
        super().__init__()
        self.made = 0
        self.fault: LocumError | None = None
        self._control, self._connection, self._end = control, name, end

    def run(self) -> None:
        os.sched_setaffinity(0, {core(INITIATOR_CORE)})
        initiate = {"ike": self._connection, "timeout": int(PATIENCE * 1000), "init-limits": False, "loglevel": -1}
        terminate = {"ike": self._connection, "timeout": -1, "loglevel": -1}
        try:
            while time.monotonic() < self._end:
                self._control.request("initiate", initiate)
                self.made += 1
                # The one before may still be about to go, and cannot be terminated twice.
                with suppress(Unavailable):
                    self._control.request("terminate", terminate)
        except LocumError as error:
            self.fault = error


def core(number: int) -> int:
    """The core of this number, or the last one that there is."""
    available = sorted(os.sched_getaffinity(os.getpid()))
    return available[min(number, len(available) - 1)]


def pin(pid: int, number: int) -> None:
    """Keep every thread of a process on one core, and those that it begins later."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core(number)})
