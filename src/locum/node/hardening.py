"""What a node does to its own process before it holds a secret.

Never knows what the secrets are.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource

log = logging.getLogger(__name__)

#: Open files that a node with all its streams may have, where the hard limit allows it.
MAXIMUM_FILES = 8192
#: prctl(2): option that says whether the process may be dumped and traced by its own user.
PR_SET_DUMPABLE = 4


def harden() -> None:
    """No core dumps, no tracing by other processes of the same user, files for the owner only, and enough of them.

    Memory that holds keys may still be swapped out: an encrypted swap is the administrator's part.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MAXIMUM_FILES:
        enough = MAXIMUM_FILES if hard == resource.RLIM_INFINITY else min(hard, MAXIMUM_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        log.warning("the process could not be made undumpable", extra={"errno": ctypes.get_errno()})
