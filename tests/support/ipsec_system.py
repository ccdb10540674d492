"""Two terminals of ours, each in a namespace, and a delegate that both reach: real processes throughout."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.peers import CertificateAuthority

from locum.cli.main import run
from locum.demo.ipsec_terminal import IpsecTerminal
from locum.demo.laboratory import Host, Laboratory, Middle
from locum.demo.namespaces import connect
from locum.demo.node import DATA, DemoNode
from locum.terminal.credential import TerminalCredential, load_credential, save_credential

WEST, EAST = "west", "east"
#: Where each reaches the delegates.
HOSTS = {WEST: "198.51.100.2", EAST: "198.51.101.2"}
#: The link between the second terminal and the delegate.
SECOND_LINK = "link1"
SECOND_TERMINAL, SECOND_DELEGATE = "198.51.101.1/24", "198.51.101.2/24"
SECONDS = 30


class Site:
    """Terminals `west` and `east`, with certificates of one authority that the delegate keeps for them."""

    def __init__(self, directory: Path, middle: Middle = Middle.NOTHING) -> None:
        self.directory = directory
        self._middle = middle
        self._running = ExitStack()
        self._numbers = count(1)

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running.close()

    def _open(self) -> None:
        self.laboratory = self._running.enter_context(Laboratory(self._middle))
        self.west, self.east = self.laboratory.terminal, self.laboratory.peer
        delegate = self.laboratory.delegate
        connect(self.east.namespace, SECOND_LINK, delegate, SECOND_LINK)
        self.east.namespace.ip("addr", "add", SECOND_TERMINAL, "dev", SECOND_LINK)
        delegate.ip("addr", "add", SECOND_DELEGATE, "dev", SECOND_LINK)
        self.authority = CertificateAuthority(self.directory, "root")
        self.node = self.start_node(WEST, EAST)

    def start_node(self, *terminals: str) -> DemoNode:
        """Another node with everything that these terminals need: a delegate among several."""
        authority, name = self.authority, f"node-{next(self._numbers)}"
        directory = self.directory / name
        directory.mkdir()
        node = DemoNode(directory, listen="0.0.0.0", namespace=self.laboratory.delegate)
        self._running.enter_context(node)
        administer(node, "trust", "add", authority.path)
        administer(node, "policy", "add", "--terminal", "*", "--peer", "dns:*.example", "--action", "allow")
        port = node.address.rpartition(":")[2]
        for terminal in terminals:
            address = f"coap://{HOSTS[terminal]}:{port}"
            credential = directory / path_of(terminal)
            administer(node, "enroll", "terminal", terminal, "--address", address, "--out", credential)
            issued = authority.issue(f"{name}-{terminal}", names=(f"{terminal}.example",), usage="ipsec")
            words = ("--cert", issued.chain, "--key", issued.key, "--terminal", terminal)
            administer(node, "identity", "add", terminal, *words)
        return node

    def credential(self, terminal: str, *nodes: DemoNode) -> Path:
        """A credential for `terminal`, with these delegates in this order; with none, the one that always runs."""
        path = self.directory / f"{terminal}-{next(self._numbers)}.credential"
        loaded = [load_credential(node.directory / path_of(terminal)) for node in nodes or (self.node,)]
        delegates = tuple(delegate for each in loaded for delegate in each.delegates)
        save_credential(path, TerminalCredential(name=terminal, delegates=delegates))
        return path

    def host(self, terminal: str) -> Host:
        """The namespace of a terminal, and its addresses."""
        return self.west if terminal == WEST else self.east

    def run(self, terminal: str, credential: Path, *options: str) -> IpsecTerminal:
        """The command on one side towards the other, for the networks behind both; not yet started."""
        here, there = self.host(terminal), self.host(EAST if terminal == WEST else WEST)
        return self.run_towards(terminal, credential, there.address, *self._networks(here, there), *options)

    def run_between(self, terminal: str, credential: Path, *options: str, ipv6: bool) -> IpsecTerminal:
        """The same for what is between both hosts themselves."""
        there = self.host(EAST if terminal == WEST else WEST)
        return self.run_towards(terminal, credential, there.address6 if ipv6 else there.address, *options)

    @staticmethod
    def _networks(here: Host, there: Host) -> tuple[str, ...]:
        return "--local-ts", here.network, "--remote-ts", there.network

    def run_towards(self, terminal: str, credential: Path, peer: str, *options: str) -> IpsecTerminal:
        """The command on one side towards an address, by its options alone."""
        words = ["--credential", str(credential), "--peer", peer, "--dataplane", "tun", *options]
        name = f"{terminal}-{next(self._numbers)}"
        return IpsecTerminal(self.host(terminal).namespace, self.directory, name, words)

    def network_state(self, terminal: str) -> str:
        """Everything of a terminal's namespace that a command could leave behind."""
        namespace = self.host(terminal).namespace
        families = [namespace.ip(family, what) for family in ("-4", "-6") for what in ("rule", "route")]
        return "\n".join((namespace.ip("-o", "link"), *families))


def administer(node: DemoNode, *words: str | Path) -> None:
    """Run an administrator's command on a node's data, without a process for it."""
    assert run([*map(str, words), "--data", str(node.directory / DATA)]) == 0, words


def path_of(terminal: str) -> str:
    """What a credential is called in a node's directory."""
    return f"{terminal}.credential"


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """`locum terminal ipsec WORDS`, to its end, where it comes by itself."""
    return subprocess.run(
        [sys.executable, "-m", "locum", "terminal", "ipsec", *words],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
