"""Runs the benchmarks of every bench/bench_*.py and writes bench/results.json.

`python -m bench.run [--only prefix]`: with a prefix only those are measured, and the other rows are kept.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.harness import Benchmark
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"


def benchmarks(prefix: str) -> Iterator[Benchmark]:
    """Every benchmark with a row whose name begins with `prefix`."""
    for path in sorted(HERE.glob("bench_*.py")):
        for benchmark in importlib.import_module(f"bench.{path.stem}").BENCHMARKS:
            if any(name.startswith(prefix) for name in benchmark.names):
                yield benchmark


def earlier() -> dict[str, dict[str, Any]]:
    """The rows of the last results by name; none when there are none, or they are damaged."""
    try:
        return {row["name"]: row for row in json.loads(RESULTS.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "value", "unit", "reference", "reference value", "ratio"):
        table.add_column(heading, justify="right" if heading in ("value", "reference value", "ratio") else "left")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console(width=160, highlight=False).print(table)


def main() -> int:
    """Measure, write, print; 2 when no benchmark has such a name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", metavar="PREFIX", help="measure the rows whose names begin so")
    prefix = parser.parse_args().only
    chosen = list(benchmarks(prefix))
    if not chosen:
        print(f"no benchmark begins with '{prefix}'", file=sys.stderr)
        return 2
    kept = earlier() if prefix else {}
    measured = []
    for benchmark in chosen:
        print("measuring " + ", ".join(benchmark.names), file=sys.stderr)
        measured += [row.as_json() for row in benchmark.measure()]
    rows = list((kept | {str(row["name"]): row for row in measured}).values())
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    show(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
