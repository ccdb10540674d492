"""A node, certificates and credentials for system tests of the terminal: real processes throughout."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.node import LOCUM, Node, running_node
from tests.support.peers import CertificateAuthority, Issued, ServerOptions

from locum.terminal import TlsSocket, connect_tls_blocking

NAME = "localhost"
REQUEST = b"GET /index.html HTTP/1.0\r\n\r\n"
SECONDS = 60


class Setting:
    """A running node that trusts one authority and lets every terminal reach every peer that it vouches for."""

    def __init__(self, node: Node, directory: Path) -> None:
        self.node = node
        self.directory = directory
        self.authority = CertificateAuthority(directory, "root")
        self.certificate: Issued = self.authority.issue("server", names=(NAME, "127.0.0.1"))
        node.trust(self.authority.path)
        node.allow()

    @property
    def server_options(self) -> ServerOptions:
        return ServerOptions(certificates=(self.certificate,))

    def enrol(self, name: str, *addresses: str, options: tuple[str, ...] = ()) -> Path:
        """A credential for a new terminal that reaches the delegate at these addresses, or at its own."""
        credential = self.directory / f"{name}.credential"
        words = [word for address in addresses or (self.node.url,) for word in ("--address", address)]
        self.node.locum("enroll", "terminal", name, "--out", credential, *words, *options)
        return credential

    @staticmethod
    def terminal(*words: str | Path, data: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run `locum terminal ...` with `data` as standard input, to its end."""
        done = subprocess.run([LOCUM, "terminal", *words], input=data, capture_output=True, timeout=SECONDS)
        assert not check or done.returncode == 0, done.stderr.decode()
        return done


@contextmanager
def setting(directory: Path, *, config: str = "") -> Iterator[Setting]:
    """A `Setting` whose node ends with the block."""
    with running_node(directory, config=config) as node:
        yield Setting(node, directory)


def fetch(credential: Path, port: int, **options: Any) -> bytes:
    """One page through the delegate. Raises: what connecting and receiving raise."""
    with connect_tls_blocking(NAME, port, credential=credential, **options) as session:
        return read_page(session)


def read_page(session: TlsSocket) -> bytes:
    """Ask for the page and read it to the end of the stream."""
    session.sendall(REQUEST)
    with session.makefile("rb") as file:
        return bytes(file.read())
