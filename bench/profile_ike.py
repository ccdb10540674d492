"""Where the time of an IKE SA goes: `python -m bench.profile_ike (psk|p256|rsa|delegate)` prints a profile.

That of our responder, with the authority in its process; with `delegate` that of the delegate of a responder. CPU
time, in shares rather than amounts, as in `profile_delegate`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from bench import cpu_profiler
from bench.bench_ike_responder import FORGETTING, P256, PSK, RSA_1
from bench.ike_laboratory import IkeLaboratory

CASES = {"psk": PSK, "p256": P256, "rsa": RSA_1, "delegate": P256}
SECONDS = 5.0
LINES = 50


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=CASES)
    what = parser.parse_args().what
    with tempfile.TemporaryDirectory(prefix="locum-profile-") as directory:
        output = Path(directory) / "profile"
        options = (cpu_profiler.__file__, str(output))
        with IkeLaboratory(CASES[what]) as laboratory:
            if what == "delegate":
                laboratory.add_node(interpreter_options=options)
                responder = laboratory.add_terminal(delegated=True)
            else:
                responder = laboratory.add_terminal(interpreter_options=options)
            count = laboratory.drive(responder, SECONDS)
            time.sleep(FORGETTING)
        cpu_profiler.report(output, count, lines=LINES)


if __name__ == "__main__":
    main()
