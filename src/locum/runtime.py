"""The event loop and the collector of processes that run for long and answer many.

Knows nothing of what they do.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

#: Objects made and not freed since the collector looked last, before it looks again.
GC_THRESHOLD = 50_000


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, which is faster, where it is installed; None for asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def tune_collector() -> None:
    """What exists now stays for ever: the collector need not look at it again, nor so often at the rest."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 100)
