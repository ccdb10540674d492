"""Runs a module under cProfile with CPU time for a clock: `python cpu_profiler.py OUTPUT -m MODULE ARGUMENTS...`.

With the usual clock a system call is charged with whatever other processes did meanwhile.
"""

from __future__ import annotations

import cProfile
import runpy
import sys
import time


def main() -> None:
    """Take OUTPUT and -m off the command line, run the rest, and write the profile even when it exits."""
    output, _, module = sys.argv[1:4]
    del sys.argv[1:4]
    profile = cProfile.Profile(time.process_time)
    profile.enable()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        profile.disable()
        profile.dump_stats(output)


if __name__ == "__main__":
    main()
