"""System C from end to end: TLS servers without a private key, and a key server that has them (C1, C2, C4, X4).

Knows the command line of locum, and the configuration of unmodified programs; uses nothing else than a user would.
"""

from __future__ import annotations

import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_connection
from types import TracebackType
from typing import Self

from locum.demo import tls_clients
from locum.demo.ladder import Ladder
from locum.demo.node import DemoNode
from locum.demo.peers import LOOPBACK, PAGE
from locum.demo.pkcs11_nginx import KeylessNginx
from locum.demo.pki import CertificateAuthority, Issued
from locum.demo.process import BackgroundProcess
from locum.demo.programs import can_install, install_programs, missing_programs
from locum.demo.scoreboard import Scoreboard
from locum.demo.tls_clients import Target, Wish
from locum.errors import LocumError, Misbehaved, Unavailable

#: What it needs of the operating system.
PROGRAMS = ("openssl", "curl", "nginx", "p11-kit-client.so", "pkcs11-engine")
SITE = "www.example"
KINDS = ("rsa2048", "p256")
#: The edge that terminates TLS, the one that is cut off, and the one that nginx stands on.
EDGE, CUT_OFF, NGINX = "edge-1", "edge-2", "web-1"
#: How long handshakes go on while a key server is killed, in seconds; how many at once.
LOAD_SECONDS = 4.0
CLIENTS = 4
#: Seconds until a revoked edge must have been refused, and until a handshake must be over.
REFUSAL_TIMEOUT = 5.0
HANDSHAKE_TIMEOUT = 10.0

_RSA, _ECDHE_RSA, _ECDHE_ECDSA = (
    "AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
)
#: What the clients insist on, one after the other, at locum's own edge.
WISHES = (
    ("TLS 1.2, RSA key exchange (fig 2)", Wish(version="1.2", ciphers=_RSA)),
    ("TLS 1.2, ECDHE, RSA", Wish(version="1.2", ciphers=_ECDHE_RSA)),
    ("TLS 1.2, ECDHE, ECDSA", Wish(version="1.2", ciphers=_ECDHE_ECDSA)),
    ("TLS 1.3", Wish(version="1.3")),
)
Client = Callable[[Target, Wish], str]
CLIENT_PROGRAMS: tuple[tuple[str, Client], ...] = (("curl", tls_clients.curl), ("openssl", tls_clients.openssl))


def why_left_out() -> str:
    """Why this cannot be shown here, in one line; empty when it can. Installs nothing."""
    return "; ".join(f"{each.name} is not installed: {each.advice}" for each in missing_programs(PROGRAMS))


class KeyServerDemo:
    """One run in `directory`, shown on `ladder`."""

    def __init__(self, directory: Path, ladder: Ladder) -> None:
        self._directory = directory
        self._ladder = ladder
        self._board = Scoreboard(ladder.console, "TLS without private keys", ("what", "client", "negotiated"))

    def run(self) -> bool:
        """Do all of it; True when everything worked. Raises: Unavailable where nothing can be shown."""
        self.install_missing()
        if reason := why_left_out():
            raise Unavailable(f"the key server cannot be shown here: {reason}")
        with ExitStack() as running:
            stage = self._prepare(running)
            running.enter_context(self._board)
            self._ladder.title("1. An edge without keys, in front of a plain HTTP server")
            edge = running.enter_context(_edge(stage, EDGE))
            self._fetch_all("edge", stage.target(_port(edge, "edge=")))
            self._ladder.title("2. nginx, unmodified, with the same keys through PKCS#11")
            nginx = running.enter_context(
                KeylessNginx(self._directory, NGINX, stage.certificates, show=self._ladder.command)
            )
            self._fetch_some("nginx", stage.target(nginx.port))
            self._ladder.title("3. The key server is killed, and its twin goes on; then the other way round")
            self._fail_over(stage, stage.target(_port(edge, "edge=")))
            self._ladder.title("4. An edge is revoked")
            self._revoke(stage)
        faults = self._board.faults
        for fault in faults:
            self._ladder.note(fault, style="bold red")
        self._ladder.note(
            f"{self._board.count - len(faults)} of {self._board.count} worked.",
            style="bold red" if faults else "bold green",
        )
        return not faults

    def install_missing(self) -> None:
        """Have apt install what is missing, where that can be done; says what it does, and raises nothing."""
        missing = missing_programs(PROGRAMS)
        if missing and can_install():
            self._ladder.note(f"installing {', '.join(each.package for each in missing)} through apt")
            try:
                install_programs(missing)
            except Unavailable as error:
                self._ladder.note(str(error), style="yellow")

    # --- the stage ----------------------------------------------------------------------------------------

    def _prepare(self, running: ExitStack) -> _Stage:
        self._ladder.title("A key server and its twin, on the same databases")
        authority = CertificateAuthority(self._directory, "demo-web-root")
        certificates = tuple(authority.issue(f"{SITE}-{kind}", kind=kind, names=(SITE,)) for kind in KINDS)
        servers = [
            running.enter_context(DemoNode(self._directory, key_server=True, name=name, show=self._ladder.command))
            for name in ("key-server", "twin")
        ]
        node = servers[0]
        for issued in certificates:
            node.command("key", "import", issued.key.name, "--name", issued.kind)
            # From here on the key server holds the only copy.
            issued.key.unlink()
        self._ladder.note("the key files are deleted: the key server holds the only copy", style="green")
        addresses = [word for server in servers for word in ("--server", server.key_server)]
        keys = [word for kind in KINDS for word in ("--key", kind)]
        for name, allowed in ((EDGE, "bound"), (CUT_OFF, "bound"), (NGINX, "raw")):
            node.command("enroll", "edge", name, "--out", name, *keys, "--allow", allowed, *addresses)
        backend = running.enter_context(_Backend())
        return _Stage(
            directory=self._directory,
            servers=servers,
            certificates=certificates,
            authority=authority.path,
            backend=f"{LOOPBACK}:{backend.port}",
            show=self._ladder.command,
        )

    # --- 1 and 2: pages -----------------------------------------------------------------------------------

    def _fetch_all(self, server: str, target: Target) -> None:
        for title, wish in WISHES:
            for name, fetch in CLIENT_PROGRAMS:
                self._fetch(f"{server}: {title}", name, fetch, target, wish)

    def _fetch_some(self, server: str, target: Target) -> None:
        """As `_fetch_all`, without RSA key exchange, which OpenSSL 3 itself cannot do through an engine."""
        for title, wish in WISHES[1:]:
            for name, fetch in CLIENT_PROGRAMS:
                self._fetch(f"{server}: {title}", name, fetch, target, wish)

    def _fetch(self, what: str, name: str, fetch: Client, target: Target, wish: Wish) -> None:
        line = self._board.begin(what, name, "")
        try:
            self._board.end(line, negotiated=fetch(target, wish))
        except LocumError as error:
            self._board.end(line, fault=str(error))

    # --- 3: failover --------------------------------------------------------------------------------------

    def _fail_over(self, stage: _Stage, target: Target) -> None:
        for killed in stage.servers:
            line = self._board.begin(f"{killed.name} killed under load", "Python ssl", "")
            load = Load(target)
            with load:
                time.sleep(LOAD_SECONDS / 2)
                before = load.made
                killed.process.kill()
                time.sleep(LOAD_SECONDS / 2)
            fault = load.fault if load.fault else "" if load.made > before else "no handshake after it was killed"
            self._board.end(
                line, fault=fault, negotiated=f"{load.made} handshakes, {load.made - before} of them afterwards"
            )
            killed.restart()

    # --- 4: revocation ------------------------------------------------------------------------------------

    def _revoke(self, stage: _Stage) -> None:
        line = self._board.begin(f"{CUT_OFF} before and after its revocation", "Python ssl", "")
        with _edge(stage, CUT_OFF) as edge:
            target = stage.target(_port(edge, "edge="))
            try:
                handshake(target)
                stage.servers[0].command("revoke", "edge", CUT_OFF)
                seconds = _until_refused(target)
                if not edge.running:
                    raise Misbehaved("the edge has ended")
            except (LocumError, OSError) as error:
                self._board.end(line, fault=str(error))
                return
        self._board.end(line, negotiated=f"refused {seconds:.1f} s after the command")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """What is there for every part."""

    directory: Path
    servers: list[DemoNode]
    certificates: tuple[Issued, ...]
    authority: Path
    backend: str
    show: Callable[..., None]

    def target(self, port: int) -> Target:
        """The page at this port."""
        return Target(host=LOOPBACK, port=port, name=SITE, authority=self.authority, page=PAGE)


def _edge(stage: _Stage, name: str) -> BackgroundProcess:
    """`locum edge` with both certificates, not yet started."""
    words = ["edge", "--credential", name, "--listen", f"{LOOPBACK}:0", "--backend", stage.backend]
    for issued in stage.certificates:
        words += ["--cert", issued.chain.name]
    stage.show(("locum", *words), "")
    return BackgroundProcess(
        f"locum edge of {name}",
        [sys.executable, "-m", "locum", *words],
        log_path=stage.directory / f"{name}.log",
        ready=lambda log: "ready " in log,
        working_directory=stage.directory,
    )


def _port(edge: BackgroundProcess, word: str) -> int:
    """The port in the line that says that it is ready."""
    words = next(line for line in edge.log.splitlines() if line.startswith("ready ")).split()
    return int(next(each for each in words if each.startswith(word)).rpartition(":")[2])


def handshake(target: Target) -> None:
    """One TLS handshake and one page. Raises: OSError, Misbehaved."""
    context = ssl.create_default_context(cafile=target.authority)
    with (
        create_connection((target.host, target.port), HANDSHAKE_TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname=target.name) as stream,
    ):
        stream.sendall(f"GET / HTTP/1.1\r\nHost: {target.name}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := stream.recv(1 << 14):
            answer += part
    if not answer.endswith(target.page):
        raise Misbehaved(f"this is not the page: {answer[:80]!r}")


def _until_refused(target: Target) -> float:
    """Seconds until no handshake is possible any more. Raises: Misbehaved when one still is after the time-out."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < REFUSAL_TIMEOUT:
        try:
            handshake(target)
        except OSError:
            return passed
    raise Misbehaved(f"it still has handshakes {REFUSAL_TIMEOUT:.0f} s after its revocation")


class Load:
    """Clients that make one handshake after the other while this context lasts."""

    def __init__(self, target: Target) -> None:
        self.made = 0
        self.fault = ""
        self._target = target
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._clients = [threading.Thread(target=self._go_on) for _ in range(CLIENTS)]

    def _go_on(self) -> None:
        while not self._ending.is_set() and not self.fault:
            try:
                handshake(self._target)
            except (LocumError, OSError) as error:
                self.fault = f"a handshake failed: {error}"
                return
            with self._lock:
                self.made += 1

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.set()
        for client in self._clients:
            client.join()


class _Page(BaseHTTPRequestHandler):
    """Answers every GET with the page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAGE)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class _Backend:
    """A plain HTTP server on loopback, in a thread."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _Page)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
