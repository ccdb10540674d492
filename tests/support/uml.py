"""A Linux kernel with everything that IPsec takes, as one process: user-mode-linux, with this host's files.

Its root is this host's, read-only, with empty /run and /tmp; the network namespaces in it are its own. An agent in
it (uml_agent.py) calls functions of this checkout, one after the other, and keeps their modules, with what is in
them, from call to call.
"""

from __future__ import annotations

import os
import pickle
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest
from tests.support.require import require, without
from tests.support.uml_agent import Answer, Call, CommandResult, run_command

ROOT = Path(__file__).resolve().parents[2]
#: Where the package puts the kernel's modules, and those wanted at once; the rest is loaded when it is asked for.
MODULES = Path("/usr/lib/uml/modules")
WANTED_MODULES = ("esp4", "esp6", "ah4", "ah6", "xfrm_user", "veth", "tun")
#: Seconds: until the agent says that it is there, for one call, and for the end.
BOOT_TIMEOUT = 60.0
CALL_TIMEOUT = 120.0
HALT_TIMEOUT = 10.0
MEMORY = "512M"
#: Bytes of console output, and lines, that are shown when something goes wrong.
_CONSOLE_TAIL = 4000

#: The device of `con1`: a line to this process, each way.
_LINE = "/dev/tty1"

_INIT = """\
#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/host /run/lock /dev/pts /dev/shm /dev/net
mount -t hostfs -o {work} host /run/host
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o mode=1777 tmp /tmp
{shared}
echo /run/host/modprobe > /proc/sys/kernel/modprobe
for module in {modules}; do /run/host/modprobe "$module"; done
[ -c /dev/net/tun ] || mknod /dev/net/tun c 10 200
ip link set lo up
cd {root}
. /run/host/environment
{python} -m tests.support.uml_agent {line} /run/host/calls
echo o > /proc/sysrq-trigger
sleep {halt:.0f}
"""


class GuestFailed(Exception):
    """A call raised in the guest; the message has its traceback."""


class Guest:
    """A running guest; a context manager. `shared` are directories that are the host's, to be written too."""

    def __init__(self, *, shared: Sequence[Path] = (), memory: str = MEMORY) -> None:
        self._shared = shared
        self._memory = memory
        self._process: subprocess.Popen[bytes] | None = None
        self._calls = 0
        self._to_guest = self._from_guest = -1
        self._unread = b""

    def __enter__(self) -> Self:
        program = require("linux.uml")
        require("modprobe")
        if os.geteuid() != 0:
            # Its files are this user's: as anybody else there would be no root in the guest.
            without("user-mode-linux on this host's own files takes root")
        self._work = Path(tempfile.mkdtemp(prefix="locum-uml-"))
        try:
            self._prepare()
            self._boot(program)
            self._wait(b"ready", BOOT_TIMEOUT)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._process is not None and self._process.poll() is None:
                with suppress(OSError):
                    os.write(self._to_guest, b"halt\n")
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(HALT_TIMEOUT)
        finally:
            self._end()

    # --- calls --------------------------------------------------------------------------------------------

    def call(self, function: Callable[..., Any], *arguments: Any, timeout: float = CALL_TIMEOUT) -> Any:
        """What `function`, of a module of this checkout, returns in the guest. Raises: GuestFailed."""
        self._calls += 1
        request = self._work / "calls" / f"{self._calls}.call"
        name = f"{function.__module__}:{function.__qualname__}"
        request.write_bytes(pickle.dumps(Call(name, arguments)))
        os.write(self._to_guest, b"%d\n" % self._calls)
        self._wait(b"%d" % self._calls, timeout)
        answer: Answer = pickle.loads((self._work / "calls" / f"{self._calls}.answer").read_bytes())
        if answer.failure:
            raise GuestFailed(f"{name} in the guest:\n{answer.failure}")
        return answer.value

    def run(self, *words: str | Path, timeout: float = CALL_TIMEOUT) -> CommandResult:
        """Run a command to its end: its exit status, and what it printed."""
        result: CommandResult = self.call(run_command, [str(word) for word in words], timeout, timeout=timeout + 5)
        return result

    # --- life ---------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        (self._work / "calls").mkdir()
        (self._work / "lib").mkdir()
        (self._work / "lib" / "modules").symlink_to(MODULES)
        self._write("modprobe", '#!/bin/sh\nexec /sbin/modprobe -q -d /run/host "$@"\n')
        kept = ("LANG", "LC_ALL", "PYTEST_CURRENT_TEST")
        lines = [f"export {name}={shlex.quote(os.environ[name])}\n" for name in kept if name in os.environ]
        paths = os.pathsep.join((str(ROOT), str(ROOT / "src")))
        self._write(
            "environment",
            "".join(lines) + f"export PYTHONPYCACHEPREFIX=/tmp/pycache PYTHONPATH={shlex.quote(paths)}\n",
        )
        hidden = [path for path in (ROOT, Path(sys.prefix)) if path.is_relative_to("/tmp")]
        quoted = [shlex.quote(str(path)) for path in (*hidden, *self._shared)]
        mounts = [f"mkdir -p {path}; mount -t hostfs -o {path} host {path}" for path in quoted]
        self._write(
            "init",
            _INIT.format(
                work=self._work,
                modules=" ".join(WANTED_MODULES),
                shared="\n".join(mounts),
                root=shlex.quote(str(ROOT)),
                python=shlex.quote(sys.executable),
                line=_LINE,
                halt=HALT_TIMEOUT,
            ),
        )

    def _write(self, name: str, text: str) -> None:
        path = self._work / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def _boot(self, program: Path) -> None:
        guest_reads, self._to_guest = os.pipe()
        self._from_guest, guest_writes = os.pipe()
        words = [
            f"mem={self._memory}",
            *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"),
            f"init={self._work / 'init'}",
            f"uml_dir={self._work}",
            *("con=null", "con0=null,fd:1", f"con1=fd:{guest_reads},fd:{guest_writes}", "quiet"),
        ]
        try:
            with (self._work / "console").open("wb") as console:
                self._process = subprocess.Popen(
                    [program, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=console,
                    env={**os.environ, "TMPDIR": str(self._work)},
                    pass_fds=(guest_reads, guest_writes),
                    # Its helper processes are in its group, and end with it.
                    start_new_session=True,
                )
        finally:
            os.close(guest_reads)
            os.close(guest_writes)

    def _wait(self, word: bytes, seconds: float) -> None:
        """Read from the line until `word` comes."""
        end = time.monotonic() + seconds
        while True:
            line, newline, rest = self._unread.partition(b"\n")
            if newline:
                self._unread = rest
                if line.strip() == word:
                    return
                continue
            readable, _, _ = select.select([self._from_guest], [], [], max(0.0, end - time.monotonic()))
            received = os.read(self._from_guest, 4096) if readable else b""
            if not received:
                reason = "ended" if readable else f"did not answer within {seconds:g} s"
                self._end(keep=True)
                pytest.fail(f"the guest {reason}; its console:\n{self._console()}")
            self._unread += received

    def _console(self) -> str:
        return (self._work / "console").read_text(errors="replace")[-_CONSOLE_TAIL:]

    def _end(self, *, keep: bool = False) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for descriptor in (self._to_guest, self._from_guest):
            if descriptor >= 0:
                os.close(descriptor)
        self._to_guest = self._from_guest = -1
        if not keep:
            shutil.rmtree(self._work, ignore_errors=True)
