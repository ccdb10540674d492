"""Where the delegate's time goes: `python -m bench.profile_delegate` prints a profile of TLS 1.3 handshakes.

CPU time, in shares rather than amounts: the profiler makes Python code about three times as slow, and calls of
libraries hardly slower.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from bench import cpu_profiler
from bench.bench_tls13_delegated import Stage, handshakes, stage

from locum.terminal import Terminal

HANDSHAKES = 1000
LINES = 40


async def load(started: Stage) -> None:
    """The handshakes."""
    async with Terminal(started.credential) as terminal:
        await handshakes(terminal, started.server, HANDSHAKES)


def main() -> None:
    """Profile and print."""
    with tempfile.TemporaryDirectory(prefix="locum-profile-") as directory:
        output = Path(directory) / "profile"
        with stage(interpreter_options=(cpu_profiler.__file__, str(output))) as started:
            asyncio.run(load(started))
        cpu_profiler.report(output, HANDSHAKES, lines=LINES)


if __name__ == "__main__":
    main()
