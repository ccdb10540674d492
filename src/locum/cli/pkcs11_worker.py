"""A worker of `locum pkcs11`, a process of its own: `python -m locum.cli.pkcs11_worker SETTINGS DESCRIPTOR`.

Started by the agent's parent alone; never by a person.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from locum.cli.pkcs11_process import WorkerSettings
from locum.edge.p11.worker import run_worker
from locum.hardening import die_with, harden
from locum.keys.credential import EdgeCredential
from locum.keys.pool import KeyServerPool, PoolOptions
from locum.names import HostPort
from locum.node import logs


def main(arguments: list[str]) -> int:
    """Run one worker; returns the exit status."""
    settings = WorkerSettings.parse(arguments[0])
    die_with(settings.parent)
    harden()  # the parent has logged what the system does not allow
    logs.configure(level="info", form="text")
    link = socket.socket(fileno=int(arguments[1]))
    os.set_inheritable(link.fileno(), False)

    def pool() -> KeyServerPool:
        options = PoolOptions(
            policy="ordered" if settings.policy == "ordered" else "least", timeout=settings.timeout
        )
        servers = [HostPort.parse(server) for server in settings.servers]
        credential = EdgeCredential.load(Path(settings.credential))
        return KeyServerPool(credential, servers=servers or None, options=options)

    certificates = Path(settings.certificate).read_bytes() if settings.certificate else b""
    return run_worker(link, pool, certificates=certificates)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
