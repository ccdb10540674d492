"""The programs of the operating system that play the peers: where they are, and how to get them.

Knows Debian's package manager and nothing of TLS.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from locum.errors import LocumError, Unavailable

#: Directories of programs that are often missing from an ordinary user's PATH.
SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
#: Debian asks this file before it starts the service of a package just installed; 101 says no.
SERVICE_POLICY = Path("/usr/sbin/policy-rc.d")
APT_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class Program:
    """A program by the name of its file, the Debian package it is in, and where else it may be."""

    name: str
    package: str
    patterns: tuple[str, ...] = field(default=())

    def find(self) -> Path | None:
        """The program's path, or None when it is not installed."""
        path = os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_DIRECTORIES))
        found = shutil.which(self.name, path=path)
        if found is not None:
            return Path(found)
        matches = (match for pattern in self.patterns for match in sorted(Path("/").glob(pattern), reverse=True))
        return next(matches, None)

    @property
    def advice(self) -> str:
        """What a person types to get it."""
        return f"sudo apt-get install --no-install-recommends {self.package}"


def _plugin(name: str) -> str:
    """Where distributions put a plugin of strongSwan."""
    return f"usr/lib*/*/plugins/libstrongswan-{name}.so"


PROGRAMS = {
    program.name: program
    for program in (
        Program("openssl", "openssl"),
        Program("nginx", "nginx"),
        Program("curl", "curl"),
        Program("postgres", "postgresql", ("usr/lib/postgresql/*/bin/postgres",)),
        Program("psql", "postgresql-client"),
        Program("charon-systemd", "charon-systemd"),
        Program("swanctl", "strongswan-swanctl"),
        # Not programs, but charon cannot do without: its cryptography, and ESP where the kernel has none.
        Program("strongswan-openssl", "libstrongswan-standard-plugins", (_plugin("openssl"),)),
        Program("strongswan-libipsec", "libcharon-extra-plugins", (_plugin("kernel-libipsec"),)),
        Program("ip", "iproute2"),
        Program("ping", "iputils-ping"),
        Program("nft", "nftables"),
        Program("nsenter", "util-linux"),
        Program("setpriv", "util-linux"),
        Program("unshare", "util-linux"),
        Program("linux.uml", "user-mode-linux"),
        Program("modprobe", "kmod"),
        # What servers get a remote key with, and a token to keep one in; libraries, most of them.
        Program("p11-kit", "p11-kit"),
        Program("p11-kit-client.so", "p11-kit-modules", ("usr/lib*/*/pkcs11/p11-kit-client.so",)),
        Program("pkcs11-engine", "libengine-pkcs11-openssl", ("usr/lib*/*/engines-*/pkcs11.so",)),
        Program("pkcs11-tool", "opensc"),
        Program("softhsm2-util", "softhsm2"),
        Program("softhsm2.so", "libsofthsm2", ("usr/lib*/softhsm/libsofthsm2.so",)),
        Program("apache2", "apache2-bin"),
        Program("gnutls-cli", "gnutls-bin"),
        Program("gnutls-serv", "gnutls-bin"),
    )
}

#: What `locum demo ike` needs of the operating system.
IKE_PROGRAMS = (
    "charon-systemd",
    "strongswan-openssl",
    "strongswan-libipsec",
    "ip",
    "ping",
    "nsenter",
    "setpriv",
    "unshare",
)


class ProgramMissing(Unavailable):
    """A program is not installed; the message names the Debian package that has it."""

    def __init__(self, program: Program) -> None:
        super().__init__(f"{program.name} is not installed: {program.advice}")
        self.program = program


def require_program(name: str) -> Path:
    """The path of the program `name`, one of `PROGRAMS`; `ProgramMissing` when it is not installed."""
    program = PROGRAMS[name]
    path = program.find()
    if path is None:
        raise ProgramMissing(program)
    return path


def missing_programs(names: Sequence[str]) -> list[Program]:
    """Those of `names` that are not installed, in the order given."""
    return [PROGRAMS[name] for name in names if PROGRAMS[name].find() is None]


def can_install() -> bool:
    """True for root on a system with apt."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install_programs(programs: Sequence[Program]) -> None:
    """Install the packages of `programs` through apt, starting none of their services.

    Raises: Unavailable when apt fails; its last line of output is in the message.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    packages = list(dict.fromkeys(program.package for program in programs))
    with _services_kept_down():
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
        ):
            _run(command, environment)


def _run(command: Sequence[str], environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed words and package names from the table above
            command, env=environment, capture_output=True, text=True, timeout=APT_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]} {command[1]}: {error}") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"{command[0]} {command[1]} failed: {lines[-1] if lines else done.returncode}")


@contextmanager
def _services_kept_down() -> Iterator[None]:
    """Keep fresh services from occupying their usual ports; an existing policy is left alone."""
    if SERVICE_POLICY.exists():
        yield
        return
    SERVICE_POLICY.write_text("#!/bin/sh\nexit 101\n")
    SERVICE_POLICY.chmod(0o755)
    try:
        yield
    finally:
        SERVICE_POLICY.unlink(missing_ok=True)


def main(names: Sequence[str]) -> int:
    """Install the programs `names` as far as possible; say what stays missing. 0 when all are there."""
    wanted = missing_programs(names)
    if wanted and can_install():
        print("installing " + " ".join(program.package for program in wanted), file=sys.stderr)  # noqa: T201
        try:
            install_programs(wanted)
        except LocumError as error:
            print(f"{error}", file=sys.stderr)  # noqa: T201
    left = missing_programs(names)
    for program in left:
        print(f"{ProgramMissing(program)}", file=sys.stderr)  # noqa: T201
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
