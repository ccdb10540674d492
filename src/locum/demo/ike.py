"""System A over IKE from end to end: strongSwan, unmodified, sets up IPsec with a terminal without public keys.

Knows the command line of locum, and strongSwan's configuration; uses nothing else than a user would (A8, A9, A11).
Three namespaces: the terminal has a wire to the peer, and a link to the delegate; both ends have a network behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from locum.demo import strongswan
from locum.demo.ipsec_terminal import IpsecTerminal
from locum.demo.laboratory import Host, Laboratory
from locum.demo.ladder import Ladder, Outcome
from locum.demo.namespaces import why_not
from locum.demo.node import DemoNode
from locum.demo.pki import CertificateAuthority, Issued
from locum.demo.programs import IKE_PROGRAMS, can_install, install_programs, missing_programs
from locum.demo.strongswan import StrongSwan
from locum.demo.traffic import STREAM_LENGTH, WireTap, ping, stream
from locum.errors import LocumError, Misbehaved, Unavailable
from locum.terminal.steps import Actor, StepName, TerminalStep

TERMINAL_NAME = "meter-7"
TERMINAL_IDENTITY = "meter-7.example"
#: Who the peer is: with a certificate, and with a pre-shared key.
PEER_IDENTITY, PEER_WITH_SECRET = "gateway.example", "branch.example"
SECRET = "a secret that both ends know from elsewhere"  # noqa: S105 - for one run
SUITE = "aes256-sha256-ecp256"
SUITE_2 = "aes256gcm16-prfsha256-x25519"
CHILD_SUITE = "aes128gcm16"
#: No packet on the wire is larger, in bytes.
LARGEST_PACKET = 1500
#: How the terminal's report of a CHILD_SA begins.
_UP = ("SA up:", "SA rekeyed:")
_CHILD = re.compile(r"\b(?:ESP|AH)/[^,]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to make an IPsec SA. `key` is the kind of both ends' certificates, empty for a pre-shared key."""

    title: str
    version: int
    aggressive: bool = False
    responds: bool = False
    key: str = ""

    @property
    def peer(self) -> str:
        """Who the peer is in this way."""
        return PEER_IDENTITY if self.key else PEER_WITH_SECRET

    @property
    def proposal(self) -> str:
        """The algorithms of the IKE SA, in words that both programs know."""
        return SUITE if self.version == 1 else SUITE_2


WAYS = (
    Way(title="IKEv1 main mode, RSA signatures, the terminal responds", version=1, responds=True, key="rsa2048"),
    Way(title="IKEv1 main mode, RSA signatures, the terminal initiates", version=1, key="rsa2048"),
    Way(
        title="IKEv1 aggressive mode, RSA signatures, the terminal initiates",
        version=1,
        aggressive=True,
        key="rsa2048",
    ),
    Way(title="IKEv2, certificates, the terminal initiates", version=2, key="p256"),
    Way(title="IKEv2, certificates, the terminal responds", version=2, responds=True, key="p256"),
    Way(title="IKEv2, pre-shared key, the terminal initiates", version=2),
)


def why_left_out() -> str:
    """Why this cannot be shown here, in one line; empty when it can. Installs nothing."""
    if reason := why_not():
        return reason
    missing = missing_programs(IKE_PROGRAMS)
    return "; ".join(f"{each.name} is not installed: {each.advice}" for each in missing)


class IkeDemo:
    """One run in `directory`, shown on `ladder`."""

    def __init__(self, directory: Path, ladder: Ladder) -> None:
        self._directory = directory
        self._ladder = ladder
        self._outcomes: list[Outcome] = []

    def run(self) -> bool:
        """Do all of it; True when packets went through every tunnel. Raises: Unavailable where nothing can be."""
        self.install_missing()
        if reason := why_left_out():
            raise Unavailable(f"IKE cannot be shown here: {reason}")
        with ExitStack() as running:
            stage = self._prepare(running)
            for number, way in enumerate(WAYS, 1):
                self._ladder.title(f"{number} of {len(WAYS)}: {way.title}")
                self._outcomes.append(self._show(stage, way))
                self._ladder.result(self._outcomes[-1])
        self._ladder.summary(self._outcomes)
        worked = not any(outcome.fault for outcome in self._outcomes)
        count = sum(not outcome.fault for outcome in self._outcomes)
        self._ladder.note(
            f"{count} of {len(WAYS)} tunnels carried packets both ways.",
            style="bold green" if worked else "bold red",
        )
        return worked

    def install_missing(self) -> None:
        """Have apt install what is missing, where that can be done; says what it does, and raises nothing."""
        missing = missing_programs(IKE_PROGRAMS)
        if missing and can_install():
            self._ladder.note(f"installing {', '.join(each.package for each in missing)} through apt")
            try:
                install_programs(missing)
            except Unavailable as error:
                self._ladder.note(str(error), style="yellow")

    # --- the stage ----------------------------------------------------------------------------------------

    def _prepare(self, running: ExitStack) -> _Stage:
        self._ladder.title("Three network namespaces, and a node in one of them, as the delegate")
        laboratory = running.enter_context(Laboratory())
        terminal, peer = laboratory.terminal, laboratory.peer
        self._ladder.note(
            f"{terminal.network} behind the terminal {terminal.address} ===== the peer {peer.address} with "
            f"{peer.network} behind; the delegate {laboratory.delegate_address} on a link of its own"
        )
        authority = CertificateAuthority(self._directory, "demo-ike-root")
        node = running.enter_context(
            DemoNode(
                self._directory,
                listen=laboratory.delegate_address,
                namespace=laboratory.delegate,
                show=self._ladder.command,
            )
        )
        credential = self._set_up_node(node, authority)
        self._ladder.title("An unmodified strongSwan, as the peer")
        charon = running.enter_context(StrongSwan(peer.namespace, self._directory / "strongswan"))
        charon.trust(authority.der)
        charon.share(SECRET.encode(), TERMINAL_IDENTITY, PEER_WITH_SECRET)
        certificates = {
            key: authority.issue(f"{PEER_IDENTITY}-{key}", kind=key, names=(PEER_IDENTITY,), usage="ipsec")
            for key in ("rsa2048", "p256")
        }
        version = charon.version()
        self._ladder.note(f"{version}: it knows neither of delegates nor of locum")
        return _Stage(
            directory=self._directory,
            laboratory=laboratory,
            charon=charon,
            peer_name=version,
            credential=credential,
            certificates=certificates,
        )

    @staticmethod
    def _set_up_node(node: DemoNode, authority: CertificateAuthority) -> Path:
        """What an administrator does: a terminal, whom it may reach, its certificates, and a secret it shares."""
        credential = node.enroll(TERMINAL_NAME)
        node.command("trust", "add", authority.path.name)
        for peer in (PEER_IDENTITY, PEER_WITH_SECRET):
            node.command(
                "policy", "add", "--terminal", TERMINAL_NAME, "--peer", f"dns:{peer}", "--action", "allow"
            )
        for key in ("rsa2048", "p256"):
            name = f"{TERMINAL_NAME}-{key}"
            issued = authority.issue(name, kind=key, names=(TERMINAL_IDENTITY,), usage="ipsec")
            words = ("--cert", issued.chain.name, "--key", issued.key.name, "--terminal", TERMINAL_NAME)
            node.command("identity", "add", name, *words)
        node.command(
            *("secret", "add", "--terminal", TERMINAL_NAME, "--peer", f"dns:{PEER_WITH_SECRET}"),
            *("--local-id", f"dns:{TERMINAL_IDENTITY}"),
            standard_input=SECRET,
        )
        return credential

    # --- one way ------------------------------------------------------------------------------------------

    def _show(self, stage: _Stage, way: Way) -> Outcome:
        """One tunnel from its first message to its end."""
        outcome = Outcome(way=way.title, peer=stage.peer_name, achieved="packets passed")
        try:
            stage.load(way)
            return self._run(stage, way, outcome)
        except LocumError as error:
            return replace(outcome, fault=str(error))
        finally:
            stage.charon.abandon()

    def _run(self, stage: _Stage, way: Way, outcome: Outcome) -> Outcome:
        connecting = True

        def draw(step: TerminalStep) -> None:
            if connecting:
                outcome.tally.add(step)
            self._ladder.step(step)

        terminal = stage.run_terminal(way, draw)
        self._ladder.command(("locum", *terminal.arguments), "")
        self._ladder.heads()
        with WireTap(stage.peer, stage.terminal) as tap, terminal:
            if way.responds:
                stage.charon.initiate()
            found = _CHILD.search(terminal.wait(*_UP))
            connecting = False
            seconds = terminal.at - (terminal.began or 0.0)
            self._ladder.note(f"it printed: {terminal.wait('ready ')}", style="dim")
            stage.charon.established()
            self._note_figures(way, terminal)
            self._carry(stage, tap)
            if way.version == 1:
                self._rekey(stage, terminal)
            self._ladder.note("At its end the terminal deletes the SA at both ends:", style="dim")
            terminal.stop()
            stage.charon.gone()
        negotiated = f"{way.proposal}, {found[0] if found else CHILD_SUITE}"
        return replace(outcome, negotiated=negotiated, seconds=seconds)

    def _note_figures(self, way: Way, terminal: IpsecTerminal) -> None:
        """Say which figure that was, after a look whether it was. Raises: Misbehaved."""
        if way.version != 1:
            return
        mode = "aggressive mode" if way.aggressive else "main mode"
        figure = " (fig 12)" if way.responds else ""
        own = quick_mode_messages(terminal.steps)
        self._ladder.note(
            f"{mode} with the delegate{figure}, then quick mode by the terminal alone (fig 13): "
            f"{own} messages with the peer, none with the delegate",
            style="green",
        )

    def _carry(self, stage: _Stage, tap: WireTap) -> None:
        """Packets both ways, and what of them was to be seen outside. Raises: LocumError."""
        before = tap.passed
        ping(stage.terminal, stage.peer)
        ping(stage.peer, stage.terminal)
        speeds = [
            STREAM_LENGTH / stream(*ends) / 1e6
            for ends in ((stage.terminal, stage.peer), (stage.peer, stage.terminal))
        ]
        passed = tap.passed
        count = passed.esp - before.esp
        if passed.clear or count < 2 * STREAM_LENGTH // LARGEST_PACKET:
            raise Misbehaved(f"{passed.clear} packets on the wire were in clear, and {count} were ESP")
        self._ladder.note(
            f"pings answered both ways; TCP, {STREAM_LENGTH // 2**20} MiB each way: {speeds[0]:.1f} MB/s to the "
            f"peer, {speeds[1]:.1f} back; on the wire {count} packets of ESP and none in clear",
            style="green",
        )

    def _rekey(self, stage: _Stage, terminal: IpsecTerminal) -> None:
        """Quick mode once more, begun by the peer. Raises: LocumError."""
        self._ladder.note("The peer wants new keys for the traffic, in another quick mode (fig 13):", style="dim")
        stage.charon.rekey(child="net")
        terminal.wait(*_UP, count=2)
        quick_mode_messages(terminal.steps)
        ping(stage.terminal, stage.peer)
        self._ladder.note("pings answered under the new keys; the delegate was not asked", style="green")


def quick_mode_messages(steps: Sequence[TerminalStep]) -> int:
    """How many messages of quick mode went to and from the peer, after the key of the SA was handed over.

    Raises: Misbehaved when the delegate was asked anything after that (A9).
    """
    handed_over = max(number for number, step in enumerate(steps) if step.operation is StepName.REQUEST_KEY)
    after = steps[handed_over + 1 :]
    if any(step.actor is Actor.DELEGATE for step in after):
        raise Misbehaved("the delegate was asked for something in quick mode, which is the terminal's own")
    return sum(step.detail.startswith("quick mode") for step in after)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """What is there for every way."""

    directory: Path
    laboratory: Laboratory
    charon: StrongSwan
    peer_name: str
    credential: Path
    certificates: Mapping[str, Issued] = field(repr=False)

    @property
    def terminal(self) -> Host:
        return self.laboratory.terminal

    @property
    def peer(self) -> Host:
        return self.laboratory.peer

    def load(self, way: Way) -> None:
        """Set strongSwan up for this way."""
        child = strongswan.Child(
            local=[self.peer.network], remote=[self.terminal.network], proposals=[CHILD_SUITE]
        )
        self.charon.load(
            strongswan.Connection(
                version=way.version,
                aggressive=way.aggressive,
                local=self.peer.address,
                remote=self.terminal.address,
                identity=way.peer,
                peer_identity=TERMINAL_IDENTITY,
                certificate=self.certificates[way.key] if way.key else None,
                proposals=[way.proposal],
                children=[child],
            )
        )

    def run_terminal(self, way: Way, show: Callable[[TerminalStep], None]) -> IpsecTerminal:
        """The terminal, not yet started."""
        words = ["--credential", self.credential.name, "--peer", self.peer.address]
        words += ["--respond"] if way.responds else []
        words += ["--ike", str(way.version)]
        words += ["--mode", "aggressive"] if way.aggressive else []
        words += ["--remote-id", f"dns:{way.peer}", "--proposal", way.proposal, "--esp", CHILD_SUITE]
        words += ["--local-ts", self.terminal.network, "--remote-ts", self.peer.network]
        name = way.title.replace(" ", "-").replace(",", "")
        return IpsecTerminal(self.terminal.namespace, self.directory, name, words, show=show)
