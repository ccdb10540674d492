"""Network namespaces and the wires between them, made here and gone afterwards, however this process ends.

Knows nothing of what runs in them. Each namespace is held by a process that ends when our end of its standard
input closes, so not even SIGKILL leaves one behind; programs run in it get a signal when we are gone.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from locum.demo.programs import require_program
from locum.errors import Unavailable

COMMAND_TIMEOUT = 30.0
#: Linux: <sched.h>, <linux/ethtool.h>, <linux/sockios.h>.
CLONE_NEWNET = 0x40000000
SIOCETHTOOL = 0x8946
#: Checksums left to the hardware that is none, and segments larger than a packet: off by these commands.
ETHTOOL_OFFLOADS = (0x17, 0x1F, 0x24, 0x2C)
#: The longest name of an interface, in bytes.
INTERFACE_NAME_LIMIT = 15
_INTERFACE_NAME = re.compile(rf"[a-z][a-z0-9-]{{0,{INTERFACE_NAME_LIMIT - 1}}}")


class Namespace:
    """One network namespace with its loopback up; a context manager. `name` is for people."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process that holds it."""
        if self._holder is None:
            raise Unavailable(f"the namespace {self.name} is not there")
        return self._holder.pid

    @property
    def path(self) -> Path:
        """The file that stands for it, while it exists."""
        return Path(f"/proc/{self.pid}/ns/net")

    def open(self) -> Self:
        """Make it. Raises: Unavailable, with the reason, where this cannot be done."""
        unshare = require_program("unshare")
        self._holder = subprocess.Popen(  # noqa: S603 - fixed words
            # Once it has said so it is in the namespace; `read` ends with our end of the pipe.
            [unshare, "--net", "sh", "-c", "echo made; read -r _"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._holder.stdout is not None and self._holder.stderr is not None
        try:
            if not self._holder.stdout.readline():
                reason = self._holder.stderr.read().decode(errors="replace").strip()
                raise Unavailable(f"no network namespace can be made: {_plain(reason)}")
            self.ip("link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Give it up; it is gone when the last program in it has ended. Closing twice is harmless."""
        holder, self._holder = self._holder, None
        if holder is None:
            return
        for stream in (holder.stdin, holder.stdout, holder.stderr):
            if stream is not None:
                stream.close()
        holder.wait()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- programs -----------------------------------------------------------------------------------------

    def command(self, words: Sequence[str | Path]) -> list[str]:
        """The command line that runs `words` in here: same process id, and SIGTERM when we end first."""
        entering = [require_program("setpriv"), "--pdeathsig", "TERM"]
        entering += [require_program("nsenter"), f"--net={self.path}", "--"]
        return [str(word) for word in (*entering, *words)]

    def run(self, *words: str | Path, timeout: float = COMMAND_TIMEOUT, standard_input: str = "") -> str:
        """Run a program in here to its end; returns what it printed. Raises: Unavailable when it fails."""
        try:
            done = subprocess.run(  # noqa: S603 - the caller's words, no shell
                self.command(words),
                input=standard_input,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{words[0]} in {self.name} did not end within {timeout:g} s") from None
        if done.returncode != 0:
            raise Unavailable(f"{' '.join(map(str, words))} in {self.name}: {_plain(done.stdout)}")
        return done.stdout

    def ip(self, *words: str) -> str:
        """Run iproute2's `ip` in here."""
        return self.run(require_program("ip"), *words)

    def configure(self, *lines: str) -> None:
        """Several command lines of `ip`, in one process."""
        self.run(require_program("ip"), "-batch", "-", standard_input="\n".join(lines) + "\n")

    def set_kernel(self, name: str, value: str) -> None:
        """Set a network setting of the kernel, as ``net.ipv4.ip_forward``."""
        with self.entered():
            Path("/proc/sys", *name.split(".")).write_text(f"{value}\n", encoding="ascii")

    # --- this process -------------------------------------------------------------------------------------

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread into this namespace for the length of the block."""
        with Path("/proc/thread-self/ns/net").open("rb") as before, self.path.open("rb") as here:
            _set_namespace(here.fileno())
            try:
                yield
            finally:
                _set_namespace(before.fileno())

    def socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM, protocol: int = 0
    ) -> socket.socket:
        """A socket that lives in here and may be used by any thread."""
        with self.entered():
            return socket.socket(family, kind, protocol)

    def without_offloads(self, interface: str) -> None:
        """Have an interface carry what a wire would: whole checksums, no segments larger than a packet.

        Whoever forwards in user space needs this: without it packets arrive there unfinished.
        """
        with self.socket() as control:
            for command in ETHTOOL_OFFLOADS:
                value = ctypes.create_string_buffer(struct.pack("II", command, 0))
                request = struct.pack("16sP", interface.encode(), ctypes.addressof(value))
                # A kernel that does not know one of them does not do it either.
                with suppress(OSError):
                    fcntl.ioctl(control, SIOCETHTOOL, request.ljust(40, b"\0"))


def connect(west: Namespace, west_interface: str, east: Namespace, east_interface: str) -> None:
    """Lay a wire between two namespaces: a pair of Ethernet interfaces, up, without offloads or addresses."""
    for interface in (west_interface, east_interface):
        if not _INTERFACE_NAME.fullmatch(interface):
            raise Unavailable(f"{interface!r} is no name for an interface")
    west.configure(
        f"link add {west_interface} type veth peer name {east_interface} netns {east.pid}",
        f"link set {west_interface} up",
    )
    east.ip("link", "set", east_interface, "up")
    west.without_offloads(west_interface)
    east.without_offloads(east_interface)


def why_not() -> str:
    """Why namespaces cannot be had here, in one line for people; empty when they can."""
    if not Path("/proc/self/ns/net").exists():
        return "this kernel has no network namespaces"
    if os.geteuid() != 0:
        return "making network namespaces needs root: try with sudo"
    if not Path("/dev/net/tun").exists():
        return "this kernel has no TUN devices: there is no /dev/net/tun"
    try:
        with ExitStack() as made:
            west, east = (made.enter_context(Namespace(name)) for name in ("west", "east"))
            connect(west, "eth0", east, "eth0")
    except Unavailable as error:
        return str(error)
    return ""


def _set_namespace(descriptor: int) -> None:
    """setns(2) for the calling thread; os.setns came with Python 3.12."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise Unavailable(f"a network namespace cannot be entered: {os.strerror(number)}")


def _plain(output: str) -> str:
    """A program's output in one line."""
    return " ".join(output.split()) or "no output"
