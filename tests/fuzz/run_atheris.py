"""The long run: every fuzz target under atheris (libFuzzer), each in a process of its own.

`python -m tests.fuzz.run_atheris --seconds 60 [--only prefix]`; exit status 1 when an input got something out.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

LARGEST_INPUT = 4096
#: Beyond its time, a process may take this long to come to its end, in seconds.
GRACE = 60


def run_one(name: str, arguments: list[str]) -> None:
    """Fuzz one target in this process, which libFuzzer then ends."""
    import atheris

    with atheris.instrument_imports(include=["locum", "tests.fuzz"]):
        from tests.support.fuzz import collect

        targets = {target.name: target for target in collect(name)}
    corpus = Path(arguments[-1])
    for index, seed in enumerate(targets[name].seeds):
        (corpus / f"seed-{index}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *arguments], targets[name].call)
    atheris.Fuzz()


def run_all(prefix: str, seconds: int) -> int:
    """Fuzz every target whose name begins with `prefix` for `seconds`; returns the number that failed."""
    from tests.support.fuzz import collect

    failed = 0
    for target in collect(prefix):
        with tempfile.TemporaryDirectory(prefix="locum-fuzz-") as directory:
            corpus = Path(directory) / "corpus"
            corpus.mkdir()
            options = [f"-max_total_time={seconds}", f"-max_len={LARGEST_INPUT}", f"-artifact_prefix={directory}/"]
            done = subprocess.run(
                [sys.executable, "-m", "tests.fuzz.run_atheris", "--target", target.name, *options, str(corpus)],
                capture_output=True,
                text=True,
                timeout=seconds + GRACE,
                check=False,
            )
            inputs = len(list(corpus.iterdir()))
            print(f"{target.name:<40} {'ok' if done.returncode == 0 else 'FAILED'}  corpus {inputs}", flush=True)
            if done.returncode != 0:
                failed += 1
                print(done.stderr[-4000:] or done.stdout[-4000:])
                for artifact in Path(directory).glob("crash-*"):
                    print(f"input: {artifact.read_bytes()!r}")
    return failed


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--only", default="", help="targets whose names begin so")
    parser.add_argument("--target", help="run this one in this process; what follows goes to libFuzzer")
    known, rest = parser.parse_known_args()
    if known.target:
        run_one(known.target, rest)
        return 0
    return 1 if run_all(known.only, known.seconds) else 0


if __name__ == "__main__":
    sys.exit(main())
