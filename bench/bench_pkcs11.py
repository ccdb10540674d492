"""What TLS handshakes cost a machine whose nginx has its key at a key server: nginx and the agent, all processes.

TLS 1.3 with an RSA-2048 certificate. Beside it, in the same run, the same nginx with the key in a file. The key
server, which stands elsewhere in earnest, is not counted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import create_connection
from ssl import SSLContext, create_default_context

from bench.harness import Benchmark, Row, process_seconds

from locum.demo.node import DemoNode
from locum.demo.peers import NginxServer, Server, ServerOptions
from locum.demo.pkcs11_nginx import KeylessNginx
from locum.demo.pki import CertificateAuthority

HANDSHAKES = 400
#: the least of so many rounds counts: whatever else the machine does only ever adds
ROUNDS = 8
WARM_UP = 50
EDGE = "web"
TIMEOUT = 30.0
ONE_PROCESS = "[keyserver]\nprocesses = 1\n"


def family(pid: int) -> Iterator[int]:
    """A process and everything that it has started."""
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
        yield from family(int(child))


def seconds(pids: Sequence[int]) -> float:
    """CPU time of these processes and their descendants so far."""
    return sum(process_seconds(each) for pid in pids for each in family(pid))


def handshakes(server: Server | KeylessNginx, context: SSLContext, count: int) -> None:
    """Do `count` full handshakes, one after the other."""
    for _ in range(count):
        with (
            create_connection(("127.0.0.1", server.port), TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname="localhost"),
        ):
            pass


@contextmanager
def stage() -> Iterator[tuple[KeylessNginx, NginxServer, SSLContext]]:
    """nginx with the agent and a key server, nginx with a file, and what a client trusts."""
    with tempfile.TemporaryDirectory(prefix="locum-bench-") as name, ExitStack() as running:
        directory = Path(name)
        authority = CertificateAuthority(directory, "root")
        issued = authority.issue("leaf", kind="rsa2048")
        node = running.enter_context(DemoNode(directory, key_server=True, configuration=ONE_PROCESS))
        node.command("key", "import", issued.key.name, "--name", issued.kind)
        node.command(
            *("enroll", "edge", EDGE, "--out", EDGE, "--key", issued.kind, "--allow", "raw"),
            *("--server", node.key_server),
        )
        options = ServerOptions(certificates=(issued,), versions=("1.3",), groups="X25519", tickets=False)
        keyless = running.enter_context(KeylessNginx(directory, EDGE, (issued,), options=options))
        with_file = running.enter_context(NginxServer(directory / "file", options))
        yield keyless, with_file, create_default_context(cafile=authority.path)


def measure() -> list[Row]:
    """CPU of nginx and the agent for one handshake, and of nginx with a file key."""
    with stage() as (keyless, with_file, context):
        pids = {
            "keyless": [keyless.nginx.process.pid, keyless.agent.pid],
            "nginx of it": [keyless.nginx.process.pid],
            "file": [with_file.process.pid],
        }
        best = dict.fromkeys(pids, float("inf"))
        for server in (keyless, with_file):
            handshakes(server, context, WARM_UP)
        for _ in range(ROUNDS):
            for server in (keyless, with_file):
                before = {name: seconds(each) for name, each in pids.items()}
                handshakes(server, context, HANDSHAKES)
                for name, each in pids.items():
                    if (name == "file") == (server is with_file):
                        best[name] = min(best[name], (seconds(each) - before[name]) / HANDSHAKES)
    reference = {"reference": "nginx with a file key", "reference_value": best["file"] * 1000}
    return [
        Row(name="pkcs11-nginx-rsa2048", value=best["keyless"] * 1000, unit="ms", **reference),
        Row(name="pkcs11-nginx-rsa2048-nginx", value=best["nginx of it"] * 1000, unit="ms", **reference),
    ]


BENCHMARKS = (Benchmark(("pkcs11-nginx-rsa2048", "pkcs11-nginx-rsa2048-nginx"), measure),)
