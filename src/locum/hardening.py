"""What a process that holds keys does to itself before it holds one.

Never knows what the secrets are, nor what the process is for.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from pathlib import Path

#: Open files that a process with all its connections may have, where the hard limit allows it.
MAXIMUM_FILES = 65_536

# prctl(2), mlockall(2) and capabilities(7)
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK = 14


def harden() -> tuple[str, ...]:
    """No core dumps, no tracing by other processes of the user, memory that is not swapped, enough open files.

    Files that it makes are for their owner only. Children inherit everything but the locked memory: each calls
    this itself. Returns what the system did not allow, one line each, for the log.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _raise_limit(resource.RLIMIT_NOFILE, MAXIMUM_FILES)
    libc = ctypes.CDLL(None, use_errno=True)
    complaints = []
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        complaints.append(f"the process could not be made undumpable: {os.strerror(ctypes.get_errno())}")
    if not _may_lock_everything():
        complaints.append(
            "memory with keys may be swapped out; fix: an unlimited RLIMIT_MEMLOCK, the capability CAP_IPC_LOCK, "
            "or no swap that is not encrypted"
        )
    elif libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        complaints.append(f"memory with keys may be swapped out: {os.strerror(ctypes.get_errno())}")
    return tuple(complaints)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent, the process `parent`, ends in whatever way."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel was told
        os._exit(1)


def _may_lock_everything() -> bool:
    """True when no limit can make a later allocation fail because everything is locked."""
    _raise_limit(resource.RLIMIT_MEMLOCK, resource.RLIM_INFINITY)
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_IPC_LOCK & 1)
    return False


def _raise_limit(which: int, wanted: int) -> None:
    """Raise a soft limit to `wanted`, or as far as the hard limit goes."""
    soft, hard = resource.getrlimit(which)
    infinity = resource.RLIM_INFINITY
    if soft == infinity or (wanted != infinity and soft >= wanted):
        return
    reachable = wanted if hard == infinity else hard if wanted == infinity else min(hard, wanted)
    resource.setrlimit(which, (reachable, hard))
