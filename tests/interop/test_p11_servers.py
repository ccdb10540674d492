"""Unmodified servers and clients of this distribution with keys that they reach through the agent (X4, C8)."""

import os
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.p11_agent import agent_process
from tests.support.peers import (
    BackgroundProcess,
    CertificateAuthority,
    Issued,
    NginxServer,
    OpensslServer,
    ServerOptions,
)
from tests.support.postgres import USER, Cluster
from tests.support.require import without

from locum.demo.namespaces import why_not
from locum.demo.pkcs11_nginx import keyless_nginx
from locum.edge.p11.settings import Modules, Program, Stack, Use, settings_for

pytest_plugins = ("tests.support.postgres",)

KINDS = ("rsa2048", "p256")
TIMEOUT = 120.0
#: curl's words for each way to do a handshake; the first two need an RSA key, the third an ECDSA key
WISHES = {
    "1.3": ("--tlsv1.3",),
    "1.2 ECDHE-RSA": ("--tls-max", "1.2", "--ciphers", "ECDHE-RSA-AES128-GCM-SHA256"),
    "1.2 ECDHE-ECDSA": ("--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    "1.2 RSA": ("--tls-max", "1.2", "--ciphers", "AES128-GCM-SHA256"),
}


class Stage:
    """The agent, and certificates whose keys it alone can be asked for."""

    def __init__(self, directory: Path, require: Callable[[str], Path], running: ExitStack) -> None:
        self.directory = directory
        self.require = require
        self.running = running
        self.authority = CertificateAuthority(directory, "root")
        self.certificates = tuple(self.authority.issue(kind, kind=kind) for kind in KINDS)
        self.client = self.authority.issue("client", kind="p256", usage="client", subject="CN=locum")
        self.socket = directory / "p11.sock"
        for program in ("p11-kit-client.so", "pkcs11-engine"):
            require(program)

    def start_agent(self, **settings: Any) -> BackgroundProcess:
        keys = {issued.kind: issued.key for issued in self.certificates} | {"client": self.client.key}
        return self.running.enter_context(agent_process(self.directory, keys, **settings))

    def use(self, key: str) -> Use:
        return Use(socket=self.socket, key=key, directory=self.directory, modules=Modules.installed())

    def environment(self) -> dict[str, str]:
        """What `locum pkcs11 config` says that a program needs, with the file that it names."""
        parts = {part.name: part.content for part in settings_for(Program.OPENSSL, Stack.ENGINE, self.use("any"))}
        (self.directory / "openssl.cnf").write_text(parts["openssl.cnf"])
        return dict(line.split("=", 1) for line in parts["environment"].splitlines())

    def curl(self, port: int, *words: str | Path, environment: Mapping[str, str] | None = None) -> str:
        """The page at this port; AssertionError when there is none."""
        command = [self.require("curl"), "-sS", "--cacert", self.authority.path, *words]
        done = subprocess.run(
            [*command, f"https://localhost:{port}/index.html"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env={**os.environ, **(environment or {})},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def stage(tmp_path: Path, require: Callable[[str], Path]) -> Iterator[Stage]:
    with ExitStack() as running:
        yield Stage(tmp_path, require, running)


def nginx(stage: Stage, **options: Any) -> NginxServer:
    stage.require("nginx")
    options = {"certificates": stage.certificates, "ciphers": "ALL", "tickets": False} | options
    return stage.running.enter_context(
        keyless_nginx(stage.directory / "nginx", ServerOptions(**options), stage.socket)
    )


# --- nginx ------------------------------------------------------------------------------------------------


# RSA key exchange through an engine is beyond OpenSSL 3 itself.
@pytest.mark.parametrize("wish", list(WISHES)[:3])
def test_nginx_serves_with_both_keys(stage: Stage, wish: str) -> None:
    stage.start_agent()
    server = nginx(stage)
    assert "It works" in stage.curl(server.port, *WISHES[wish])


def test_nginx_signs_with_pss_for_clients_that_want_rsa(stage: Stage) -> None:
    stage.start_agent()
    server = nginx(stage)
    done = subprocess.run(
        [
            stage.require("openssl"),
            "s_client",
            "-connect",
            f"localhost:{server.port}",
            "-sigalgs",
            "rsa_pss_rsae_sha256",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert "Peer signature type: RSA-PSS" in done.stdout


def handshakes(stage: Stage, port: int, ending: threading.Event, faults: list[str], done: list[int]) -> None:
    context = ssl.create_default_context(cafile=stage.authority.path)
    while not ending.is_set():
        try:
            with (
                socket.create_connection(("localhost", port), TIMEOUT) as plain,
                context.wrap_socket(plain, server_hostname="localhost"),
            ):
                done.append(1)
        except OSError as error:
            faults.append(repr(error))
            return


@contextmanager
def load(stage: Stage, port: int) -> Iterator[Callable[[], None]]:
    """Clients that do one handshake after the other; gives a function that waits for more of them."""
    ending, faults, done = threading.Event(), list[str](), list[int]()
    clients = [threading.Thread(target=handshakes, args=(stage, port, ending, faults, done)) for _ in range(3)]
    for client in clients:
        client.start()

    def go_on() -> None:
        wanted, deadline = len(done) + 10, time.monotonic() + TIMEOUT
        while not faults and len(done) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    try:
        yield go_on
    finally:
        ending.set()
        for client in clients:
            client.join()
    assert faults == []


def test_a_worker_of_the_agent_killed_under_load_costs_nginx_no_handshake(stage: Stage) -> None:
    agent = stage.start_agent()
    server = nginx(stage)
    with load(stage, server.port) as go_on:
        for _ in range(3):
            go_on()
            for pid in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split():
                os.kill(int(pid), 9)
        go_on()
    assert "a worker ended and is replaced" in agent.log


def test_nginx_is_reloaded_while_it_serves(stage: Stage) -> None:
    stage.start_agent()
    server = nginx(stage)
    with load(stage, server.port) as go_on:
        go_on()
        os.kill(server.process.pid, 1)
        go_on()


# --- Apache -----------------------------------------------------------------------------------------------

_APACHE = """\
ServerRoot {directory}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule ssl_module {modules}/mod_ssl.so
ServerName localhost
User {user}
PidFile {directory}/apache.pid
ErrorLog /dev/stderr
DocumentRoot {directory}/docs
Listen 127.0.0.1:{port}
SSLSessionCache none
{main}
<VirtualHost *>
  SSLEngine on
  SSLCertificateFile {certificate}
  {host}
</VirtualHost>
"""


@pytest.mark.parametrize("kind", KINDS)
def test_apache_serves_with_a_key_of_the_agent(stage: Stage, kind: str) -> None:
    program = stage.require("apache2")
    # Its workers give up root, and ask for themselves.
    stage.start_agent(uids=[65_534])
    stage.directory.chmod(0o755)
    for above in stage.directory.parents:
        if above.stat().st_uid == os.geteuid() and above.name.startswith(("pytest-", "popen-")):
            above.chmod(0o711)
    (stage.directory / "docs").mkdir()
    (stage.directory / "docs" / "index.html").write_text("It works.\n")
    issued = next(each for each in stage.certificates if each.kind == kind)
    parts = {part.name: part.content for part in settings_for(Program.APACHE, Stack.ENGINE, stage.use(kind))}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = stage.directory / "apache.conf"
    configuration.write_text(
        _APACHE.format(
            directory=stage.directory,
            modules="/usr/lib/apache2/modules",
            user="nobody",
            port=port,
            main=parts["apache-main.conf"],
            certificate=issued.chain,
            host=parts["apache-host.conf"],
        )
    )
    server = BackgroundProcess(
        "apache2",
        [program, "-DFOREGROUND", "-f", configuration],
        log_path=stage.directory / "apache.log",
        ready=lambda log: "resuming normal operations" in log,
        environment=stage.environment(),
    )
    with server:
        for wish in ("1.3", f"1.2 ECDHE-{'RSA' if kind == 'rsa2048' else 'ECDSA'}"):
            assert stage.curl(port, *WISHES[wish]) == "It works.\n"


# --- GnuTLS -----------------------------------------------------------------------------------------------


def test_gnutls_serves_in_every_mode(stage: Stage) -> None:
    """In a network namespace, for `gnutls-serv` listens at every address that there is."""
    server, curl = stage.require("gnutls-serv"), stage.require("curl")
    if reason := why_not():
        without(reason)
    stage.start_agent()
    keys = [
        word
        for issued in stage.certificates
        for word in ("--x509keyfile", f"'{stage.use(issued.kind).uri}'", "--x509certfile", str(issued.chain))
    ]
    fetches = [
        f"{curl} -sS --cacert {stage.authority.path} {' '.join(words)} -o /dev/null"
        f" -w '{name}: %{{http_code}}\\n' https://localhost:5556/"
        for name, words in WISHES.items()
    ]
    serving = f"{server} --provider={Modules.installed().client} --http --port 5556 {' '.join(keys)}"
    script = "\n".join(
        (
            "ip link set lo up",
            f"{serving} >serv.log 2>&1 &",
            "for each in $(seq 600); do grep -q done serv.log && break; sleep 0.1; done",
            *fetches,
            "kill $!",
        )
    )
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script],
        cwd=stage.directory,
        env={**os.environ, **stage.environment(), "OPENSSL_CONF": "/etc/ssl/openssl.cnf"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.stdout.splitlines() == [f"{name}: 200" for name in WISHES], done.stderr


# --- clients whose key is at the agent (C8) ---------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_curl_authenticates_with_a_key_of_the_agent(stage: Stage, version: str) -> None:
    stage.start_agent()
    options = ServerOptions(
        certificates=stage.certificates[1:], versions=(version,), client_ca=stage.authority.path
    )
    with NginxServer(stage.directory / "server", options) as server:
        words = ("--engine", "pkcs11", "--key-type", "ENG", "--key", stage.use("client").uri, "-D", "-")
        page = stage.curl(server.port, *words, "--cert", stage.client.chain, environment=stage.environment())
    assert "It works" in page
    assert re.search(r"X-Client: .*locum", page)


def test_openssl_serves_with_a_key_of_the_agent(stage: Stage) -> None:
    stage.start_agent()
    certificate: Issued = stage.certificates[0]
    engine = ("-engine", "pkcs11", "-keyform", "engine", "-key", stage.use(certificate.kind).uri)

    class Server(OpensslServer):
        def start(self) -> "Server":
            os.environ.update(environment)
            try:
                return super().start()
            finally:
                for name in environment:
                    del os.environ[name]

    environment = stage.environment()
    with Server(stage.directory / "server", ServerOptions(certificates=(certificate,)), extra=engine) as server:
        assert "It works" in stage.curl(server.port, "--http0.9", *WISHES["1.3"])


def test_a_client_of_postgresql_authenticates_with_a_key_of_the_agent(stage: Stage, postgres: Cluster) -> None:
    """libpq of the system, in `psql`. The server reads keys from PEM files: it needs OpenSSL's provider."""
    stage.start_agent()
    psql, server = stage.require("psql"), stage.certificates[1]
    # A loopback address of its own, where the usual port is free.
    address = "127.83." + ".".join(map(str, os.getpid().to_bytes(4, "big")[2:]))
    with tempfile.TemporaryDirectory(prefix="locum-pg-") as name:
        cluster = postgres.sibling(Path(name))
        for file_name, content in (
            ("server.crt", server.chain.read_bytes()),
            ("server.key", server.key.read_bytes()),
            ("root.crt", stage.authority.path.read_bytes()),
            ("pg_hba.conf", b"local all all trust\nhostssl all all 127.0.0.0/8 cert map=any\n"),
            ("pg_ident.conf", f"any /.* {USER}\n".encode()),
        ):
            path = cluster.directory / "data" / file_name
            path.write_bytes(content)
            path.chmod(0o600)
            cluster.own(path)
        cluster.start("ssl=on", "ssl_ca_file=root.crt", f"listen_addresses={address}")
        try:
            query = "SELECT version, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            settings = {
                "host": address,
                "user": USER,
                "dbname": "postgres",
                "sslmode": "require",
                "sslcert": str(stage.client.chain),
                "sslkey": f"pkcs11:{stage.use('client').uri}",
            }
            done = subprocess.run(
                [psql, " ".join(f"{name}='{value}'" for name, value in settings.items()), "-Atc", query],
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                env={**os.environ, **stage.environment()},
            )
        finally:
            cluster.stop()
    assert done.stdout.startswith("TLSv1.3|"), done.stderr
    assert "locum" in done.stdout
