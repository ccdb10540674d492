"""A real delegate, terminals enrolled at it, and real servers started when they are first asked for (A11).

Each process is started once and reused by all tests of a module; what both ends say of a connection is compared.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import pki
from tests.support.node import Node
from tests.support.peers import (
    CertificateAuthority,
    NginxServer,
    Openssl4Server,
    OpensslServer,
    Server,
    ServerOptions,
)
from tests.support.require import require
from tests.support.terminal_system import NAME, read_page

from locum.cli.main import run
from locum.terminal import TerminalStep, TlsSocket, connect_tls_blocking
from locum.tls.registry import ProtocolVersion
from locum.tls.session import SessionInfo, SessionTicket

TERMINAL = "meter-7"
TLS12, TLS13 = ProtocolVersion.TLS_1_2, ProtocolVersion.TLS_1_3
#: The three unmodified servers by the names that tests have for them.
SERVERS: Mapping[str, type[Server]] = {
    "s_server": OpensslServer,
    "nginx": NginxServer,
    "OpenSSL 4": Openssl4Server,
}
#: s_server answers with a page about the connection, nginx with headers.
_TELLING: Mapping[type[Server], tuple[str, ...]] = {
    OpensslServer: ("-www",),
    NginxServer: ("add_header X-Name $ssl_server_name", "add_header X-Alpn $ssl_alpn_protocol"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFiles:
    """A chain and a key in PEM files, for `ServerOptions` and for `locum identity add`."""

    chain: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a server says of a connection, in its own words; None where it says nothing.

    `client` is the common name of the terminal's certificate, or empty.
    """

    version: str
    cipher: str
    client: str
    resumed: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One page fetched: the session as the terminal knows it, its steps, and what the server saw."""

    session: SessionInfo
    steps: tuple[TerminalStep, ...]
    tickets: tuple[SessionTicket, ...]
    page: bytes
    seen: Seen

    def asked(self) -> list[str]:
        """The details of all steps, in order."""
        return [step.detail for step in self.steps]


class Delegation:
    """A node in `directory`/node that trusts `authority` and, unless told otherwise, lets everybody reach anybody.

    Changes made before `start` are in force from the first connection on.
    """

    def __init__(
        self, directory: Path, *, config: str = "", policy: bool = True, data: Path | None = None
    ) -> None:
        for program in ("openssl", "nginx"):
            require(program)
        self.directory = directory
        self.node = Node(data or directory / "node", config=config)
        self.authority = CertificateAuthority(directory, "root")
        self.locum("trust", "add", self.authority.path)
        if policy:
            self.locum("policy", "add", "--terminal", "*", "--peer", "*", "--action", "allow")
        self._running = ExitStack()
        self._servers: dict[str, Server] = {}
        self._credentials: dict[str, Path] = {}
        self._certificates: dict[str, Any] = {}

    def locum(self, *words: str | Path) -> None:
        """Run an administrator's command on this node's data, without a process for it."""
        assert run([*map(str, words), "--data", str(self.node.data)]) == 0, words

    def start(self) -> None:
        """Start the node."""
        self.node.start()
        self._running.callback(self.node.stop)

    def close(self) -> None:
        """End all processes."""
        self._running.close()

    def enrol(self, name: str = TERMINAL, *options: str | Path) -> Path:
        """The credential file of the terminal `name`, enrolled with `options` when it is first asked for."""
        if name not in self._credentials:
            credential = self.directory / f"{name}.credential"
            words = options if "--address" in options else ("--address", self.node.url, *options)
            self.locum("enroll", "terminal", name, "--out", credential, *words)
            self._credentials[name] = credential
        return self._credentials[name]

    def certificate(self, kind: str) -> Any:
        """A server certificate of the authority with a key of this kind, for `NAME` and loopback."""
        if kind not in self._certificates:
            self._certificates[kind] = self.authority.issue(f"server-{kind}", kind=kind)
        return self._certificates[kind]

    def files(self, issued: pki.Issued, stem: str) -> KeyFiles:
        """A certificate of `tests.support.pki` as files."""
        chain, key = issued.write(self.directory, stem)
        return KeyFiles(chain=chain, key=key)

    def server(self, kind: str, options: ServerOptions, *extra: str, telling: bool = True) -> Server:
        """The running server of this kind and with these options, which says what it sees if it is `telling`.

        `extra` are words of s_server's command line, or directives for nginx.
        """
        key = repr((kind, options, extra, telling))
        if key not in self._servers:
            made = SERVERS[kind]
            words = (*(_TELLING.get(made, ()) if telling else ()), *extra)
            more: dict[str, Any] = {"extra": words} if words else {}
            directory = self.directory / f"server-{len(self._servers)}"
            self._servers[key] = self._running.enter_context(made(directory, options, **more))
        return self._servers[key]

    def connect(self, server: Server, *, credential: Path | None = None, **options: Any) -> TlsSocket:
        """A session with `server` through the delegate."""
        host = options.pop("host", NAME)
        return connect_tls_blocking(host, server.port, credential=credential or self.enrol(), **options)

    def visit(self, server: Server, *, credential: Path | None = None, **options: Any) -> Visit:
        """Fetch a page from a `telling` server. Raises: what connecting and receiving raise."""
        steps: list[TerminalStep] = []
        with self.connect(server, credential=credential, observer=steps.append, **options) as session:
            page = read_page(session)
            return Visit(
                session=session.session,
                steps=tuple(steps),
                tickets=session.session_tickets,
                page=page,
                seen=what_was_seen(server, page),
            )


@contextmanager
def started(delegation: Delegation) -> Iterator[Delegation]:
    """`delegation` with its node running; all of its processes end with the block."""
    try:
        delegation.start()
        yield delegation
    finally:
        delegation.close()


def what_was_seen(server: Server, page: bytes) -> Seen:
    """What a `telling` server says of the connection over which `page` came."""
    text = page.decode()
    if isinstance(server, OpensslServer):
        kind, version, cipher = _found(r"^(New|Reused), (\S+), Cipher is (\S+)$", text).groups()
        client = _optional(r"Subject: CN ?= ?(\S+)", text)
        return Seen(version=version, cipher=cipher, resumed=kind == "Reused", client=client)
    if isinstance(server, NginxServer):
        header = dict(line.split(": ", 1) for line in text.split("\r\n\r\n")[0].split("\r\n") if ": " in line)
        client = header.get("X-Client", "").removeprefix("CN=")
        resumed = header["X-Resumed"] == "r"
        return Seen(version=header["X-Protocol"], cipher=header["X-Cipher"], resumed=resumed, client=client)
    # The OpenSSL 4 server logs before it answers.
    line = [line for line in server.log.splitlines() if line.startswith("TLSv1.")][-1]
    version, cipher, client = _found(r"^(\S+) (\S+) group=\S+ client=(\S+)$", line).groups()
    return Seen(version=version, cipher=cipher, client="" if client == "none" else client)


def _found(pattern: str, text: str) -> re.Match[str]:
    found = re.search(pattern, text, re.MULTILINE)
    assert found is not None, text
    return found


def _optional(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return "" if found is None else found[1]


def openssl(directory: Path, *words: str | Path) -> None:
    """Run the openssl command in `directory`."""
    done = subprocess.run([require("openssl"), *words], cwd=directory, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
