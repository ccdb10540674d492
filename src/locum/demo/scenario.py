"""The main job from end to end: a node, a terminal, unmodified servers, and a page from each in every way.

Knows the terminal's Python API and the command line; uses nothing else of a node than a user would (A11).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from locum.demo.ladder import Ladder, Outcome, Tally
from locum.demo.node import DemoNode
from locum.demo.peers import PAGE, NginxServer, Openssl4Server, OpensslServer, Server, ServerOptions
from locum.demo.pki import CertificateAuthority
from locum.demo.programs import can_install, install_programs, missing_programs
from locum.errors import LocumError, Misbehaved, Unavailable
from locum.terminal import connect_tls
from locum.terminal.steps import TerminalStep, version_name
from locum.tls.registry import CIPHER_SUITES, KeyExchange, NamedGroup, ProtocolVersion, group_name
from locum.tls.session import SessionInfo, SessionTicket

TERMINAL_NAME = "meter-7"
SERVER_NAME = "localhost"
FETCH_TIMEOUT = 30.0
PAGE_LIMIT = 65_536
#: Every suite that a way below asks for, by OpenSSL's names.
CIPHERS = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:AES128-GCM-SHA256:AES256-GCM-SHA384"
ECDHE_ECDSA = tuple(code for code, suite in CIPHER_SUITES.items() if suite.name.startswith("TLS_ECDHE_ECDSA"))
RSA = tuple(code for code, suite in CIPHER_SUITES.items() if suite.key_exchange is KeyExchange.RSA)
TLS13 = (ProtocolVersion.TLS_1_3,)
TLS12 = (ProtocolVersion.TLS_1_2,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to fetch a page: what the terminal offers, and what must have come of it.

    `group` is the one expected, None for none; `groups` are those offered besides.
    """

    title: str
    versions: tuple[ProtocolVersion, ...] = TLS13
    cipher_suites: tuple[int, ...] = tuple(CIPHER_SUITES)
    group: NamedGroup | None = NamedGroup.X25519
    groups: tuple[NamedGroup, ...] = ()
    client_certificate: bool = False
    resumed: bool = False

    def check(self, session: SessionInfo) -> None:
        """Raises: Misbehaved when the connection was made in another way."""
        expected = (*self.versions, self.group, self.client_certificate, self.resumed)
        if expected != (session.version, session.group, session.client_authenticated, session.resumed):
            raise Misbehaved(f"not {self.title}, but {describe(session)}")


WAYS = (
    Way(title="TLS 1.3, X25519"),
    Way(title="TLS 1.3, X25519MLKEM768", group=NamedGroup.X25519MLKEM768),
    # In TLS 1.2 the groups also say which curves a certificate may be on (RFC 8422 section 5.1.1).
    Way(title="TLS 1.2, ECDHE-ECDSA", versions=TLS12, cipher_suites=ECDHE_ECDSA, groups=(NamedGroup.SECP256R1,)),
    Way(title="TLS 1.2, RSA key exchange", versions=TLS12, cipher_suites=RSA, group=None),
    Way(title="TLS 1.3, client certificate", client_certificate=True),
    Way(title="TLS 1.3, resumed session", resumed=True),
)


def describe(session: SessionInfo) -> str:
    """The facts of a session in a few words."""
    words = [version_name(session.version)]
    if session.group is not None:
        words.append(group_name(session.group))
    words.append(session.cipher_suite.name.removeprefix("TLS_"))
    words += ["client certificate"] * session.client_authenticated + ["resumed"] * session.resumed
    return ", ".join(words)


class Demo:
    """One run in `directory`, shown on `ladder`. `every_step` draws all connections, not one of each way."""

    def __init__(self, directory: Path, ladder: Ladder, *, every_step: bool = False) -> None:
        self._directory = directory
        self._ladder = ladder
        self._every_step = every_step
        self._outcomes: list[Outcome] = []
        self._left_out: list[str] = []

    def run(self) -> bool:
        """Do all of it; True when every page that was asked for arrived, and at least one was."""
        with ExitStack() as running:
            authority = CertificateAuthority(self._directory, "demo-root")
            credential = self._prepare_node(running, authority)
            servers = self._start_servers(running, authority)
            for number, way in enumerate(WAYS, 1):
                self._ladder.title(f"{number} of {len(WAYS)}: {way.title}")
                for index, (plain, demanding) in enumerate(servers):
                    server = demanding if way.client_certificate else plain
                    self._fetch(way, server, credential, draw=self._every_step or index == 0)
        self._ladder.summary(self._outcomes)
        for reason in self._left_out:
            self._ladder.note(f"left out: {reason}", style="yellow")
        tried = [outcome for outcome in self._outcomes if not outcome.skipped]
        worked = bool(tried) and not any(outcome.fault for outcome in tried)
        self._ladder.note(
            f"{sum(not outcome.fault for outcome in tried)} of {len(tried)} pages received.",
            style="bold green" if worked else "bold red",
        )
        return worked

    # --- the node, as a user would set it up --------------------------------------------------------------

    def _prepare_node(self, running: ExitStack, authority: CertificateAuthority) -> Path:
        """Start a node, enrol a terminal, and say whom it may talk to; returns the credential file."""
        self._ladder.title("A node, and a terminal that it stands in for")
        identity = authority.issue(TERMINAL_NAME, usage="client", names=(f"{TERMINAL_NAME}.example",))
        node = running.enter_context(DemoNode(self._directory, show=self._ladder.command))
        credential = node.enroll(TERMINAL_NAME)
        peer = f"dns:{SERVER_NAME}"
        node.command("trust", "add", authority.path.name)
        node.command("policy", "add", "--terminal", TERMINAL_NAME, "--peer", peer, "--action", "allow")
        node.command("identity", "add", TERMINAL_NAME, "--cert", identity.chain.name, "--key", identity.key.name)
        return credential

    # --- the peers ----------------------------------------------------------------------------------------

    def _start_servers(self, running: ExitStack, authority: CertificateAuthority) -> list[tuple[Server, Server]]:
        """Start each kind of server twice: one that asks for no client certificate, one that insists on it."""
        self._ladder.title("Real, unmodified servers")
        self._install_missing()
        intermediate = authority.intermediate("demo-intermediate")
        certificates = tuple(intermediate.issue(f"server-{kind}", kind=kind) for kind in ("p256", "rsa2048"))
        plain = ServerOptions(certificates=certificates, ciphers=CIPHERS)
        demanding = replace(plain, client_ca=authority.path)
        servers: list[tuple[Server, Server]] = []
        kinds: tuple[Callable[[Path, ServerOptions], Server], ...] = (Openssl4Server, OpensslServer, NginxServer)
        for kind in kinds:
            directory = self._directory / f"peer-{len(servers) + len(self._left_out)}"
            try:
                pair = (
                    running.enter_context(kind(directory / "plain", plain)),
                    running.enter_context(kind(directory / "demanding", demanding)),
                )
            except Unavailable as error:
                self._left_out.append(str(error))
                self._ladder.note(f"left out: {error}", style="yellow")
                continue
            ports = f"port {pair[0].port}, and port {pair[1].port} for clients with a certificate"
            self._ladder.note(f"{pair[0].name} on {pair[0].host} {ports}")
            servers.append(pair)
        return servers

    def _install_missing(self) -> None:
        missing = missing_programs(("openssl", "nginx"))
        if missing and can_install():
            self._ladder.note(f"installing {', '.join(program.name for program in missing)} through apt")
            try:
                install_programs(missing)
            except Unavailable as error:
                self._ladder.note(str(error), style="yellow")

    # --- the terminal -------------------------------------------------------------------------------------

    def _fetch(self, way: Way, server: Server, credential: Path, *, draw: bool) -> None:
        """Fetch the page in one way and note how it went."""
        if way.group is NamedGroup.X25519MLKEM768 and not isinstance(server, Openssl4Server):
            reason = f"{way.title}: {server.name} does not know this group; the OpenSSL 4 peer does"
            self._outcomes.append(Outcome(way=way.title, peer=server.name, skipped=reason))
            self._ladder.note(reason, style="dim")
            return
        try:
            ticket = None
            if way.resumed:
                if draw:
                    self._ladder.note("A first connection, not drawn, gets a ticket.", style="dim")
                first = replace(way, resumed=False)
                ticket = asyncio.run(_Fetch(first, server, credential, None, lambda _: None).run()).ticket
            if draw:
                self._ladder.heads()
            fetch = asyncio.run(
                _Fetch(way, server, credential, ticket, self._ladder.step if draw else lambda _: None).run()
            )
            outcome = Outcome(
                way=way.title,
                peer=server.name,
                negotiated=fetch.negotiated,
                tally=fetch.tally,
                seconds=fetch.seconds,
            )
        except (LocumError, OSError) as error:
            outcome = Outcome(way=way.title, peer=server.name, fault=str(error) or type(error).__name__)
        self._outcomes.append(outcome)
        self._ladder.result(outcome)


class _Fetch:
    """One connection of the terminal: handshake through the delegate, one page, orderly end."""

    def __init__(
        self,
        way: Way,
        server: Server,
        credential: Path,
        ticket: SessionTicket | None,
        show: Callable[[TerminalStep], None],
    ) -> None:
        self._way = way
        self._server = server
        self._credential = credential
        self._offered = ticket
        self._show = show
        self.tally = Tally()
        self.ticket: SessionTicket | None = None
        self.negotiated = ""
        self.seconds = 0.0

    async def run(self) -> _Fetch:
        """Fetch the page; returns itself. Raises: LocumError or OSError."""
        started = time.monotonic()
        reader, writer = await connect_tls(
            self._server.host,
            self._server.port,
            credential=self._credential,
            server_name=SERVER_NAME,
            versions=self._way.versions,
            cipher_suites=self._way.cipher_suites,
            groups=() if self._way.group is None else (self._way.group, *self._way.groups),
            ticket=self._offered,
            on_ticket=self._keep,
            observer=self._observe,
        )
        self.seconds = time.monotonic() - started
        session: SessionInfo = writer.get_extra_info("tls")
        self.negotiated = describe(session)
        self._way.check(session)
        try:
            writer.write(f"GET /index.html HTTP/1.0\r\nHost: {SERVER_NAME}\r\n\r\n".encode())
            answer = await asyncio.wait_for(reader.read(PAGE_LIMIT), FETCH_TIMEOUT)
            while not reader.at_eof():
                answer += await asyncio.wait_for(reader.read(PAGE_LIMIT), FETCH_TIMEOUT)
        finally:
            writer.close()
            await writer.wait_closed()
        if not answer.endswith(PAGE):
            raise Misbehaved(f"this is not the page: {answer[:80]!r}")
        return self

    def _observe(self, step: TerminalStep) -> None:
        self.tally.add(step)
        self._show(step)

    def _keep(self, ticket: SessionTicket) -> None:
        self.ticket = ticket
