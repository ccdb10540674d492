"""What the tests of IKE with the kernel's IPsec have done in a guest (uml.py): strongSwan and our command over it.

The functions are called from outside; the network, the delegate's node and charon stay from call to call.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

from locum.cli.main import run
from locum.demo.ipsec_terminal import IpsecTerminal
from locum.demo.laboratory import Host, Laboratory, Middle
from locum.demo.node import DemoNode
from locum.demo.pki import CertificateAuthority
from locum.demo.programs import require_program
from locum.demo.strongswan import Child, Connection, StrongSwan
from locum.demo.traffic import stream
from locum.errors import Unavailable

TERMINAL, OUR_NAME, PEER_NAME = "meter-7", "meter-7.example", "gateway.example"
IKE = {1: "aes256-sha256-ecp256", 2: "aes256gcm16-prfsha256-x25519"}
UP = ("SA up:", "SA rekeyed:")
#: Bytes that go through a tunnel in each direction: the guest is slow.
LENGTH = 256 * 1024
PATIENCE = 20.0
_STATE = re.compile(r"^src (\S+) dst (\S+)\n\tproto (\S+) spi (\S+) reqid \S+ mode (\S+)$", re.MULTILINE)
_SUMMARY = re.compile(r"(\d+) packets transmitted, (\d+) (?:packets )?received")
_KEY = re.compile(r"^\t(?:aead|auth-trunc|enc) (\S+) (0x[0-9a-f]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What both ends do. `proposal` is that of ESP, in words that both know."""

    version: int = 2
    respond: bool = False
    transport: bool = False
    ipv6: bool = False
    encapsulated: bool = False
    proposal: str = "aes256gcm16"
    dataplane: str = "kernel"
    lifetime: float = 0


@dataclass(frozen=True, slots=True)
class State:
    """An association as `ip xfrm state` shows it, its keys by algorithm."""

    source: str
    destination: str
    protocol: str
    spi: str
    mode: str
    keys: tuple[tuple[str, str], ...] = field(repr=False)
    encapsulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a case: associations at both ends while it was up, what the command printed, what was left.

    `received` and `sent` are the packets that strongSwan's kernel counted.
    """

    ours: Sequence[State]
    theirs: Sequence[State]
    received: int
    sent: int
    lines: Sequence[str]
    status: int
    left_over: str


class Site:
    """A network with a router between both ends, a delegate's node, and charon over the kernel."""

    def __init__(self, running: ExitStack) -> None:
        self.directory = Path(mkdtemp())
        self.laboratory = running.enter_context(Laboratory(Middle.ROUTER))
        self.us, self.peer = self.laboratory.terminal, self.laboratory.peer
        for host in (self.us, self.peer):
            self._route(host)
        self.authority = CertificateAuthority(self.directory, "root")
        self.node = running.enter_context(
            DemoNode(self.directory, listen=self.laboratory.delegate_address, namespace=self.laboratory.delegate)
        )
        self.credential = self.directory / "credential"
        own = self.authority.issue("own", names=(OUR_NAME,), usage="ipsec")
        self._command("enroll", "terminal", TERMINAL, "--address", self.node.address, "--out", self.credential)
        self._command("trust", "add", self.authority.path)
        self._command("policy", "add", "--terminal", TERMINAL, "--peer", f"dns:{PEER_NAME}", "--action", "allow")
        self._command("identity", "add", "own", "--cert", own.chain, "--key", own.key, "--terminal", TERMINAL)
        self.certificate = self.authority.issue("peer", names=(PEER_NAME,), usage="ipsec")
        self.charon = running.enter_context(
            StrongSwan(self.peer.namespace, self.directory / "charon", userspace=False)
        )
        self.charon.trust(self.authority.der)
        self._runs = count(1)

    def _command(self, *words: str | Path) -> None:
        """A command of the administrator, in this process: in a guest, starting one takes seconds."""
        assert run([*map(str, words), "--data", str(self.directory / "node")]) == 0

    def _route(self, host: Host) -> None:
        """The router knows the way to the network behind `host`, for what is sent without a tunnel."""
        router = self.laboratory.middle
        assert router is not None
        for network, address in ((host.network, host.address), (host.network6, host.address6)):
            router.ip("route", "add", network, "via", address)

    def load(self, case: Case) -> None:
        """Give strongSwan its connection."""
        ours, theirs = (host.address6 if case.ipv6 else host.address for host in (self.us, self.peer))
        prefix = "/128" if case.ipv6 else "/32"
        networks = (ours + prefix, theirs + prefix) if case.transport else (self.us.network, self.peer.network)
        child = Child(
            local=[networks[1]], remote=[networks[0]], transport=case.transport, proposals=[case.proposal]
        )
        self.charon.load(
            Connection(
                version=case.version,
                local=theirs,
                remote=ours,
                identity=PEER_NAME,
                peer_identity=OUR_NAME,
                certificate=self.certificate,
                proposals=[IKE[case.version]],
                children=[child],
                extra={"encap": case.encapsulated},
            )
        )

    @contextmanager
    def up(self, case: Case) -> Iterator[IpsecTerminal]:
        """The command, with an SA."""
        self.load(case)
        peer = self.peer.address6 if case.ipv6 else self.peer.address
        words = ["--credential", str(self.credential), "--peer", peer, "--ike", str(case.version)]
        words += ["--proposal", IKE[case.version], "--esp", case.proposal, "--dataplane", case.dataplane]
        words += ["--respond"] if case.respond else []
        words += ["--force-encapsulation"] if case.encapsulated else []
        words += ["--child-lifetime", str(case.lifetime)] if case.lifetime else []
        if case.transport:
            words += ["--transport"]
        else:
            words += ["--local-ts", self.us.network, "--remote-ts", self.peer.network]
        name = f"terminal-{next(self._runs)}"
        with IpsecTerminal(self.us.namespace, self.directory, name, words) as terminal:
            if case.respond:
                self.charon.initiate()
            terminal.wait(*UP, patience=PATIENCE)
            self.until(lambda: bool(self.charon.sas()) and bool(self.charon.sas()[-1].installed))
            yield terminal

    def restart_peer(self) -> None:
        """Have charon forget everything, as in a crash and a boot."""
        self.charon.kill()
        for what in ("state", "policy"):
            self.peer.namespace.ip("xfrm", what, "flush")
        self.charon.start()
        self.charon.trust(self.authority.der)

    def states(self, host: Host) -> list[State]:
        """The associations of a host."""
        return parse_states(host.namespace.ip("xfrm", "state"))

    def left_over(self) -> str:
        """What is in the kernels of both ends, policies of sockets aside, once the peer has deleted its own."""
        self.until(lambda: not self.charon.sas())
        found = [host.namespace.ip("xfrm", what) for host in (self.us, self.peer) for what in ("state", "policy")]
        rules = [line for line in self.us.namespace.ip("rule").splitlines() if "4500" in line or "4501" in line]
        policies = [text for text in found if re.search(r"\b(dir|spi)\b", text)]
        return "\n".join((*policies, *rules))

    @staticmethod
    def until(condition: Callable[[], object]) -> None:
        """Wait for something, not for ever."""
        until = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < until, "it did not come to that"
            time.sleep(0.05)


_running = ExitStack()
_sites: list[Site] = []


def site() -> Site:
    """The site, made once."""
    if not _sites:
        _sites.append(Site(_running))
    return _sites[0]


def open_site() -> None:
    """Make it."""
    site()


def parse_states(text: str) -> list[State]:
    """What `ip xfrm state` prints."""
    found = []
    for entry in re.split(r"^(?=src )", text, flags=re.MULTILINE)[1:]:
        head = _STATE.match(entry)
        assert head is not None, entry
        keys = tuple((name, key) for name, key in _KEY.findall(entry))
        found.append(State(*head.groups(), keys=keys, encapsulated="espinudp" in entry))
    return found


def pings(end: str, case: Case) -> None:
    """Ping the other end through the associations, from the address that the host itself takes for that."""
    here, there = (site().us, site().peer) if end == "us" else (site().peer, site().us)
    if case.transport:
        target = there.address6 if case.ipv6 else there.address
    else:
        target = there.inner
    here.namespace.run("ping", "-n", "-c", "2", "-i", "0.05", "-W", "5", target)


def do(case: Case) -> Result:
    """One case, from the beginning to the end."""
    place = site()
    with place.up(case) as terminal:
        pings("us", case)
        pings("peer", case)
        if not case.transport:
            stream(place.us, place.peer, length=LENGTH)
            stream(place.peer, place.us, length=LENGTH)
        ours, theirs = place.states(place.us), place.states(place.peer)
        child = place.charon.sas()[-1].installed[-1]
        status = terminal.stop()
        lines = list(terminal.lines)
    return Result(
        ours=ours,
        theirs=theirs,
        received=child.packets_in,
        sent=child.packets_out,
        lines=lines,
        status=status,
        left_over=place.left_over(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rekeyed:
    """Our associations before and after rekeying, and how many pings were sent and answered meanwhile."""

    before: Sequence[State]
    after: Sequence[State]
    sent: int
    answered: int


def rekeyed(case: Case, by_peer: bool) -> Rekeyed:
    """Have the peer make a successor, or wait for our end to make one."""
    place = site()
    with place.up(case) as terminal:
        before = place.states(place.us)
        words = [require_program("ping"), "-n", "-i", "0.05", place.peer.inner]
        with subprocess.Popen(place.us.namespace.command(words), stdout=subprocess.PIPE, text=True) as pinging:
            assert pinging.stdout is not None
            try:
                # The first line comes with the first answer.
                pinging.stdout.readline()
                if by_peer:
                    place.charon.rekey(child="net")
                terminal.wait("SA rekeyed:", patience=PATIENCE)
                # In IKEv1 the predecessor stays for as long as it lives.
                place.until(lambda: len(place.states(place.us)) == (4 if case.version == 1 else 2))
            finally:
                pinging.send_signal(signal.SIGINT)
            summary = _SUMMARY.search(pinging.stdout.read())
        assert summary is not None
        after = place.states(place.us)
    assert not place.left_over()
    return Rekeyed(before=before, after=after, sent=int(summary[1]), answered=int(summary[2]))


def killed_and_again(case: Case) -> Sequence[bool]:
    """Whether pings pass while the SA is up, when the command was killed and the peer has forgotten, and again."""
    place, passed = site(), []
    with place.up(case) as terminal:
        passed.append(_passes(case))
        terminal.kill()
    place.restart_peer()
    passed.append(_passes(case))
    with place.up(case) as terminal:
        passed.append(_passes(case))
        terminal.stop()
    place.us.namespace.ip("xfrm", "state", "flush")
    assert not place.left_over()
    return passed


def deleted_by_peer(case: Case) -> list[str]:
    """What our command says when the peer deletes the SA; nothing of it is left then but the policies."""
    place = site()
    with place.up(case) as terminal:
        place.charon.terminate()
        terminal.wait("SA down:", patience=PATIENCE)
        place.until(lambda: not place.states(place.us))
        assert not _passes(case)
        lines = list(terminal.lines)
    assert not place.left_over()
    return lines


def _passes(case: Case) -> bool:
    try:
        site().us.namespace.run("ping", "-n", "-c", "1", "-W", "1", site().peer.inner)
    except Unavailable:
        return False
    return True


def log() -> str:
    """The last lines of the command, and of charon."""
    logs = sorted(site().directory.glob("terminal-*.log"), key=lambda path: path.stat().st_mtime)
    return "\n".join(
        subprocess.run(["tail", "-n", "40", str(path)], stdout=subprocess.PIPE, text=True, check=True).stdout
        for path in (logs[-1], *site().directory.glob("charon/*"))
    )
