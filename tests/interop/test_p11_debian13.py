"""Unmodified servers of Debian 13, with OpenSSL's provider, whose edge may do nothing but TLS handshakes (X3, X4).

They live in a directory tree that `debootstrap` makes in two minutes, named by LOCUM_DEBIAN13; without it they are
skipped, in CI too:

    debootstrap --variant=minbase trixie DIR --include=\
        nginx-light,haproxy,postgresql,pkcs11-provider,p11-kit,p11-kit-modules,openssl
"""

import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from tests.support.p11_agent import agent_process
from tests.support.peers import BackgroundProcess, CertificateAuthority, Issued

from locum.edge.p11.settings import Modules, Program, Stack, Use, settings_for

TREE = Path(os.environ.get("LOCUM_DEBIAN13", ""))
TIMEOUT = 120.0
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
MODULES = Modules(
    client=f"{LIBRARIES}/pkcs11/p11-kit-client.so", engine="", provider=f"{LIBRARIES}/ossl-modules/pkcs11.so"
)
RSA_KEY_EXCHANGE = ("-tls1_2", "-cipher", "AES128-GCM-SHA256")

pytestmark = [
    pytest.mark.skipif("LOCUM_DEBIAN13" not in os.environ, reason="LOCUM_DEBIAN13 names no tree of Debian 13"),
    pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root"),
    pytest.mark.xdist_group("debian13"),
]


class Stage:
    """The agent outside, and a directory inside of the tree with what a server needs for one key."""

    def __init__(
        self, running: ExitStack, kind: str, *, raw: bool = False, program: Program = Program.NGINX
    ) -> None:
        self._running = running
        name = running.enter_context(tempfile.TemporaryDirectory(prefix="locum-", dir=TREE / "srv"))
        self.outside = Path(name)
        self.outside.chmod(0o755)
        self.inside = Path("/") / self.outside.relative_to(TREE)
        authority = CertificateAuthority(self.outside, "root")
        self.issued: Issued = authority.issue("leaf", kind=kind)
        users = [int(line.split(":")[2]) for line in (TREE / "etc/passwd").read_text().splitlines()]
        self.agent = running.enter_context(
            agent_process(self.outside, {"key": self.issued.key}, raw=raw, uids=users)
        )
        use = Use(socket=self.inside / "p11.sock", key="key", directory=self.inside, modules=MODULES)
        self.parts = {part.name: part.content for part in settings_for(program, Stack.PROVIDER, use)}
        for file_name in ("openssl.cnf", "key.pem"):
            (self.outside / file_name).write_text(self.parts[file_name])
        (self.outside / "certificate.pem").write_bytes(self.issued.chain.read_bytes())
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def start(self, *command: str, user: str = "") -> BackgroundProcess:
        """A program in the tree, in service as soon as something listens at `port`."""
        identity = (f"--userspec={user}",) if user else ()
        words = self.parts["environment"].split()  # for the program alone, and not for chroot
        return self._running.enter_context(
            BackgroundProcess(
                command[0],
                ["chroot", *identity, TREE, "env", *words, *command],
                log_path=self.outside / "server.log",
                ready=lambda _: self._listening(),
                working_directory=Path("/"),
            )
        )

    def _listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def handshake(self, *words: str) -> str:
        """What s_client negotiates; empty when it gets nowhere."""
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{self.port}", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        found = re.search(r"^New, (\S+), Cipher is (?!\(NONE\))", done.stdout, re.MULTILINE)
        return found[1] if found and "Verification" in done.stdout and done.returncode == 0 else ""


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    with ExitStack() as running:
        yield partial(Stage, running)


NGINX = """\
{main}
user www-data;
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
  access_log off;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers ALL:@SECLEVEL=0;
    ssl_session_tickets off;
    ssl_certificate {directory}/certificate.pem;
    {server}
  }}
}}
"""


def start_nginx(stage: Stage) -> None:
    configuration = NGINX.format(
        main=stage.parts["nginx-main.conf"],
        server=stage.parts["nginx-server.conf"],
        directory=stage.inside,
        port=stage.port,
    )
    (stage.outside / "nginx.conf").write_text(configuration)
    stage.start("/usr/sbin/nginx", "-c", f"{stage.inside}/nginx.conf", "-e", "stderr")


@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
def test_nginx_of_an_edge_that_may_do_handshakes_alone(stage: Callable[..., Stage], kind: str) -> None:
    bound = stage(kind)
    start_nginx(bound)
    assert bound.handshake("-tls1_3") == "TLSv1.3"
    assert bound.handshake("-tls1_2", "-cipher", "ECDHE+AESGCM") == "TLSv1.2"
    assert bound.handshake(*RSA_KEY_EXCHANGE) == ""


def test_nginx_does_rsa_key_exchange_with_the_raw_permission(stage: Callable[..., Stage]) -> None:
    raw = stage("rsa2048", raw=True)
    start_nginx(raw)
    assert raw.handshake(*RSA_KEY_EXCHANGE) == "TLSv1.2"


def test_haproxy_of_an_edge_that_may_do_handshakes_alone(stage: Callable[..., Stage]) -> None:
    bound = stage("rsa2048", program=Program.HAPROXY)
    (bound.outside / "certificate.pem.key").write_text(bound.parts["key.pem"])
    (bound.outside / "haproxy.cfg").write_text(
        "global\n  user www-data\ndefaults\n  mode http\n  timeout client 9s\n  timeout server 9s\n"
        "  timeout connect 9s\nfrontend https\n"
        f"  bind 127.0.0.1:{bound.port} ssl crt {bound.inside}/certificate.pem\n  http-request return status 200\n"
    )
    bound.start("/usr/sbin/haproxy", "-db", "-f", f"{bound.inside}/haproxy.cfg")
    assert bound.handshake("-tls1_3") == "TLSv1.3"
    assert bound.handshake("-tls1_2") == "TLSv1.2"


def run_inside(command: Sequence[str]) -> None:
    subprocess.run(["chroot", "--userspec=postgres:postgres", TREE, *command], check=True, capture_output=True)


def test_postgresql_of_an_edge_that_may_do_handshakes_alone(stage: Callable[..., Stage]) -> None:
    bound = stage("rsa2048", program=Program.POSTGRESQL)
    programs = Path("/") / sorted(TREE.glob("usr/lib/postgresql/*/bin"))[-1].relative_to(TREE)
    owner = next(
        line.split(":") for line in (TREE / "etc/passwd").read_text().splitlines() if line.startswith("postgres:")
    )
    key = bound.outside / "key.pem"
    data = bound.outside / "data"
    data.mkdir()
    for path in (key, data):
        os.chown(path, int(owner[2]), int(owner[3]))
        path.chmod(0o700 if path == data else 0o600)
    run_inside([f"{programs}/initdb", "-D", f"{bound.inside}/data", "-A", "trust", "--no-sync"])
    settings = {
        "ssl": "on",
        "ssl_cert_file": f"{bound.inside}/certificate.pem",
        "ssl_key_file": f"{bound.inside}/key.pem",
        "listen_addresses": "127.0.0.1",
        "port": str(bound.port),
        "unix_socket_directories": "",
    }
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    bound.start(f"{programs}/postgres", "-D", f"{bound.inside}/data", *words, user="postgres:postgres")
    deadline = time.monotonic() + TIMEOUT
    while bound.handshake("-starttls", "postgres", "-tls1_3") != "TLSv1.3":
        assert time.monotonic() < deadline, (bound.outside / "server.log").read_text()
