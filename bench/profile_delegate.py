"""Where the delegate's time goes: `python -m bench.profile_delegate` prints a profile of TLS 1.3 handshakes.

CPU time, in shares rather than amounts: the profiler makes Python code about three times as slow, and calls of
libraries hardly slower.
"""

from __future__ import annotations

import asyncio
import pstats
import tempfile
from pathlib import Path

from bench.bench_tls13_delegated import Stage, handshakes, stage

from locum.terminal import Terminal

HANDSHAKES = 1000
LINES = 40
PROFILER = Path(__file__).with_name("cpu_profiler.py")
SOURCES = str(Path(__file__).resolve().parent.parent / "src") + "/"


async def load(started: Stage) -> None:
    """The handshakes."""
    async with Terminal(started.credential) as terminal:
        await handshakes(terminal, started.server, HANDSHAKES)


def report(path: Path) -> None:
    """Print the functions that ran for every handshake, those with the most time of their own first."""
    rows = []
    # The attribute is there since Python 2; only the stubs do not know it.
    for (file, line, name), (_, calls, own, cumulative, _) in pstats.Stats(str(path)).stats.items():  # type: ignore[attr-defined]
        if calls >= HANDSHAKES:
            where = "" if file == "~" else f"{file.removeprefix(SOURCES)}:{line} "
            rows.append((own, cumulative, calls, f"{where}{name}"))
    total = sum(row[0] for row in rows)
    print(f"{'us own':>8} {'share':>6} {'us all':>8} {'calls':>6}  per handshake, of {HANDSHAKES}")
    for own, cumulative, calls, name in sorted(rows, reverse=True)[:LINES]:
        each = 1e6 / HANDSHAKES
        print(f"{own * each:8.1f} {own / total:6.1%} {cumulative * each:8.1f} {calls / HANDSHAKES:6.1f}  {name}")


def main() -> None:
    """Profile and print."""
    with tempfile.TemporaryDirectory(prefix="locum-profile-") as directory:
        output = Path(directory) / "profile"
        with stage(interpreter_options=(str(PROFILER), str(output))) as started:
            asyncio.run(load(started))
        report(output)


if __name__ == "__main__":
    main()
