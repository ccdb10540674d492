"""nginx of the operating system with keys that are at a key server: the agent, and nginx told to use it (X4).

Nothing of nginx is changed, and it never has a key: it gets to one through OpenSSL's engine for PKCS#11, p11-kit
and the agent.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from locum.demo.peers import NginxServer, ServerOptions
from locum.demo.pki import Issued
from locum.demo.process import BackgroundProcess
from locum.edge.p11.settings import Modules, Stack, Use, nginx_key, nginx_main, openssl_configuration

#: What it needs of the operating system.
PROGRAMS = ("nginx", "p11-kit-client.so", "pkcs11-engine")


def keyless_nginx(directory: Path, options: ServerOptions, socket: Path) -> NginxServer:
    """nginx, not started, whose keys are used through the agent at `socket`.

    Each certificate's key has the kind of the certificate as its name.
    """
    directory.mkdir(parents=True, exist_ok=True)

    def use(name: str) -> Use:
        return Use(socket=socket, key=name, directory=directory, modules=Modules.installed())

    configuration = openssl_configuration(Stack.ENGINE, use(""))
    path = directory / configuration.name
    path.write_text(configuration.content, encoding="utf-8")
    return NginxServer(
        directory,
        options,
        main=nginx_main(Stack.ENGINE),
        environment={"P11_KIT_SERVER_ADDRESS": use("").address, "OPENSSL_CONF": str(path)},
        key=lambda issued: nginx_key(Stack.ENGINE, use(issued.kind)),
    )


class KeylessNginx:
    """An agent with the credential `edge` in `directory`, and nginx with it; a context manager.

    `options` are those of nginx, if it is to do more than to have these certificates. `show` is told the agent's
    command line.
    """

    def __init__(
        self,
        directory: Path,
        edge: str,
        certificates: tuple[Issued, ...],
        *,
        options: ServerOptions | None = None,
        show: Callable[[Sequence[str], str], None] = lambda words, output: None,
    ) -> None:
        socket = f"{edge}.sock"
        words = ["pkcs11", "--credential", edge, "--socket", socket]
        show(("locum", *words), "")
        self.agent = BackgroundProcess(
            f"locum pkcs11 of {edge}",
            [sys.executable, "-m", "locum", *words],
            log_path=directory / f"{edge}.log",
            ready=lambda log: "ready pkcs11=" in log,
            working_directory=directory,
        )
        options = options or ServerOptions(certificates=certificates)
        self.nginx = keyless_nginx(directory / f"nginx-{edge}", options, (directory / socket).absolute())

    @property
    def port(self) -> int:
        """Where nginx listens, on loopback."""
        return self.nginx.port

    def __enter__(self) -> Self:
        self.agent.start()
        try:
            self.nginx.start()
        except BaseException:
            self.agent.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.nginx.stop()
        self.agent.stop()
