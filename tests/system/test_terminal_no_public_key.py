"""A whole delegated handshake in a process that cannot load any public-key code, X.509 or a database.

That a terminal contains none of it is what the program claims; an import contract checks the sources, this the
running process.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.peers import OpensslServer, Server
from tests.support.terminal_system import NAME, REQUEST, Setting, setting

from locum.demo.peers import PAGE

#: Where `tests` is.
ROOT = Path(__file__).resolve().parents[2]

FORBIDDEN = (
    "OpenSSL",
    "alembic",
    "cryptography.hazmat.primitives.asymmetric",
    "cryptography.hazmat.primitives.serialization",
    "cryptography.x509",
    "locum.authority.local",
    "locum.crypto.asymmetric",
    "locum.delegate",
    "locum.store",
    "sqlalchemy",
    "ssl",
)

PROLOGUE = f"""
import sys

FORBIDDEN = {FORBIDDEN!r}

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if any(name == bad or name.startswith(bad + ".") for bad in FORBIDDEN):
            raise ImportError(f"{{name}} must not be imported")

assert not [name for name in sys.modules if name.startswith(FORBIDDEN)]
sys.meta_path.insert(0, Refusal())
"""

EPILOGUE = """
loaded = [name for name in sys.modules if any(name == bad or name.startswith(bad + ".") for bad in FORBIDDEN)]
assert not loaded, loaded
"""

BLOCKING = """
from locum.terminal import connect_tls_blocking
with connect_tls_blocking(host, port, credential=credential, **options) as session:
    session.sendall(request)
    with session.makefile("rb") as file:
        sys.stdout.buffer.write(file.read())
"""

ASYNCIO = """
import asyncio
from locum.terminal import connect_tls

async def main():
    reader, writer = await connect_tls(host, port, credential=credential, **options)
    writer.write(request)
    sys.stdout.buffer.write(await reader.read())
    writer.close()
    await writer.wait_closed()

asyncio.run(main())
"""

COMMAND = """
from locum.cli.main import run
words = ["terminal", "tls", f"{host}:{port}", "--credential", str(credential)]
assert run(words) == 0
"""

PROXY = """
import asyncio
from locum.names import HostPort
from locum.terminal import Terminal
from locum.terminal.proxy import Proxy, ProxyOptions

async def main():
    settings = ProxyOptions(listen=HostPort("127.0.0.1", 0), to=HostPort(host, port))
    async with Terminal(credential) as terminal:
        proxy = Proxy(terminal, settings, report=print)
        address, stop = proxy.listen(), asyncio.Event()
        serving = asyncio.ensure_future(proxy.serve(stop))
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(request)
        sys.stdout.buffer.write(await reader.read())
        writer.close()
        stop.set()
        await serving

asyncio.run(main())
"""

IPSEC = """
import asyncio
from ipaddress import ip_address
import locum.cli.terminal_ipsec_run
from tests.support.ipsec_hosts import MemoryHost, Wire
from locum.terminal import IpsecTerminal
from locum.terminal.ipsec_options import IpsecOptions, connection

def end(wire, credential, own, peer, respond):
    wanted = connection(IpsecOptions(**options), ip_address(peer))
    return IpsecTerminal(credential, connection=wanted, installer=MemoryHost(wire, own), respond=respond)

async def main():
    wire, (west, east) = Wire(), credential.split()
    async with end(wire, east, "192.0.2.2", "192.0.2.1", True) as responder:
        async with end(wire, west, "192.0.2.1", "192.0.2.2", False) as initiator:
            await initiator.up(within=30)
            await responder.up(within=30)
            print("up")

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with setting(tmp_path_factory.mktemp("terminal-imports")) as running:
        yield running


@pytest.fixture(scope="module")
def server(world: Setting, require: Any) -> Iterator[Server]:
    require("openssl")
    with OpensslServer(world.directory / "s_server", world.server_options) as running:
        yield running


@pytest.fixture(scope="module")
def credential(world: Setting) -> Path:
    return world.enrol("device")


@pytest.fixture(scope="module")
def pair(world: Setting) -> str:
    """Credentials of two terminals with certificates, which talk IKE to one another."""
    credentials = []
    for name in ("west", "east"):
        credentials.append(str(world.enrol(name)))
        issued = world.authority.issue(name, names=(f"{name}.example.com",), usage="ipsec")
        world.node.locum("identity", "add", name, "--cert", issued.chain, "--key", issued.key)
    return " ".join(credentials)


def run_without_public_key_code(
    body: str, credential: Path | str, port: int, options: str = "{}"
) -> subprocess.CompletedProcess[bytes]:
    """Run `body` in a process of its own behind the refusal of imports."""
    facts = (
        f"host, port = {NAME!r}, {port}\ncredential = {str(credential)!r}\n"
        f"request = {REQUEST!r}\noptions = {options}\n"
    )
    program = "\n".join((PROLOGUE, facts, body, EPILOGUE))
    return subprocess.run(
        [sys.executable, "-c", program], input=REQUEST, capture_output=True, timeout=60, cwd=ROOT
    )


@pytest.mark.parametrize(
    "body", [BLOCKING, ASYNCIO, COMMAND, PROXY], ids=["blocking", "asyncio", "command", "proxy"]
)
def test_a_handshake_needs_no_public_key_code(credential: Path, server: Server, body: str) -> None:
    done = run_without_public_key_code(body, credential, server.port)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.endswith(PAGE)


@pytest.mark.parametrize("version", [0x0303, 0x0304])
def test_neither_version_needs_any(credential: Path, server: Server, version: int) -> None:
    options = f"dict(versions=(__import__('locum.tls.registry').tls.registry.ProtocolVersion({version}),))"
    done = run_without_public_key_code(BLOCKING, credential, server.port, options)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.endswith(PAGE)


@pytest.mark.parametrize(
    "options",
    [
        "dict(version='2')",
        "dict(version='2', esp='aes256gcm16-x25519', proposal='aes256gcm16-prfsha256-x25519-ke1_mlkem768')",
        "dict(version='1')",
        "dict(version='1', mode='aggressive')",
    ],
    ids=["ikev2", "mlkem", "main", "aggressive"],
)
def test_ike_needs_none_at_either_end(pair: str, options: str) -> None:
    done = run_without_public_key_code(IPSEC, pair, 0, options)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == b"up\n"


@pytest.mark.parametrize("module", ["ssl", "cryptography.x509", "locum.crypto.asymmetric.groups", "sqlalchemy"])
def test_the_refusal_itself_works(credential: Path, module: str) -> None:
    done = run_without_public_key_code(f"import {module}", credential, 0)
    assert done.returncode != 0
    assert b"must not be imported" in done.stderr
