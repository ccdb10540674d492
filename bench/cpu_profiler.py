"""Runs a module under cProfile with CPU time for a clock: `python cpu_profiler.py OUTPUT -m MODULE ARGUMENTS...`.

With the usual clock a system call is charged with whatever other processes did meanwhile. What is written is for
`report`; pstats would keep only one of the functions that look alike, as the constructors of all dataclasses do.
"""

from __future__ import annotations

import cProfile
import json
import runpy
import sys
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = str(ROOT / "src") + "/"


def main() -> None:
    """Take OUTPUT and -m off the command line, run the rest, and write the profile even when it exits."""
    output, _, module = sys.argv[1:4]
    del sys.argv[1:4]
    # As a script this has its own directory there, where the modules of the repository are not found.
    sys.path[0] = str(ROOT)
    profile = cProfile.Profile(time.process_time)
    profile.enable()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        profile.disable()
        rows = [
            (name_of(entry.code), entry.callcount, entry.inlinetime, entry.totaltime)
            for entry in profile.getstats()
        ]
        Path(output).write_text(json.dumps(rows), encoding="utf-8")


def name_of(code: object) -> str:
    """``ike/endpoint.py:102 Endpoint.receive``, or the name of a built-in function."""
    if isinstance(code, str):
        return code.strip("<>")
    where = f"{code.co_filename.removeprefix(SOURCES)}:{code.co_firstlineno} "  # type: ignore[attr-defined]
    name: str = code.co_qualname  # type: ignore[attr-defined]
    return name if where.startswith("<string>") else where + name


def report(path: Path, handshakes: int, *, lines: int) -> None:
    """Print the functions that ran for every handshake, those with the most time of their own first."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for name, calls, own, cumulative in json.loads(path.read_text(encoding="utf-8")):
        for index, value in enumerate((own, cumulative, calls)):
            sums[name][index] += value
    rows = [
        (own, cumulative, calls, name) for name, (own, cumulative, calls) in sums.items() if calls >= handshakes
    ]
    total = sum(row[0] for row in rows)
    print(f"{'us own':>8} {'share':>6} {'us all':>8} {'calls':>6}  per handshake, of {handshakes}")
    for own, cumulative, calls, name in sorted(rows, reverse=True)[:lines]:
        each = 1e6 / handshakes
        print(f"{own * each:8.1f} {own / total:6.1%} {cumulative * each:8.1f} {calls / handshakes:6.1f}  {name}")


if __name__ == "__main__":
    main()
