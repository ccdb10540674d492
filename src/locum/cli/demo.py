"""`locum demo`: the main job on real servers, in a directory that goes away afterwards."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

#: Columns where the output is no terminal and so has no width of its own.
PLAIN_WIDTH = 140

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def demo(
    every_step: Annotated[
        bool, typer.Option("--every-step", help="Draw every connection step by step, not only one of each way.")
    ] = False,
    keep: Annotated[
        Path | None, typer.Option("--keep", help="Run in this directory, which must be empty, and keep it.")
    ] = None,
) -> int:
    """Show the main job: a terminal fetches pages from real, unmodified TLS servers through a delegate.

    Starts a node, enrols a terminal, starts openssl s_server, nginx and an OpenSSL 4 server on loopback, and
    fetches a page from each in six ways. Exit status 0 when all of it worked.
    """
    from locum.demo.ladder import Ladder
    from locum.demo.scenario import Demo
    from locum.errors import ConfigurationError

    # A terminal that cannot show a line of the drawing gets a question mark, not a traceback.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    ladder = Ladder(console)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise ConfigurationError(f"{keep} is not empty")
        return 0 if Demo(keep.resolve(), ladder, every_step=every_step).run() else 1
    with tempfile.TemporaryDirectory(prefix="locum-demo-") as directory:
        return 0 if Demo(Path(directory), ladder, every_step=every_step).run() else 1
