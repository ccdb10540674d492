"""`locum demo`: the main job on real, unmodified peers, in a directory that goes away afterwards."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from locum.demo.ladder import Ladder

#: Columns where the output is no terminal and so has no width of its own.
PLAIN_WIDTH = 140

app = typer.Typer(
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
)

EveryStepOption = Annotated[
    bool, typer.Option("--every-step", help="Draw every connection step by step, not only one of each way.")
]
KeepOption = Annotated[
    Path | None,
    typer.Option("--keep", metavar="DIR", help="Run in this directory, which must be empty, and keep it."),
]


@app.callback()
def demo(context: typer.Context, every_step: EveryStepOption = False, keep: KeepOption = None) -> int | None:
    """Show the main job: a terminal reaches real, unmodified peers through a delegate.

    Without a command all of it is shown: TLS, IKE where network namespaces and strongSwan can be had, and the key
    server with nginx and curl where these can be had. Exit status 0 when all of what was shown worked.
    """
    if context.invoked_subcommand is not None:
        return None

    def everything(directory: Path, ladder: Ladder) -> bool:
        from locum.demo import ike, keyserver
        from locum.demo.scenario import Demo

        for name in ("tls", "ike", "keyserver"):
            (directory / name).mkdir()
        worked = Demo(directory / "tls", ladder, every_step=every_step).run()
        parts = (
            ("The same for IPsec: IKE with strongSwan", ike.IkeDemo(directory / "ike", ladder), ike.why_left_out),
            (
                "TLS servers without a private key, and their key server",
                keyserver.KeyServerDemo(directory / "keyserver", ladder),
                keyserver.why_left_out,
            ),
        )
        for title, part, why_left_out in parts:
            ladder.title(title)
            part.install_missing()
            if reason := why_left_out():
                ladder.note(f"left out: {reason}", style="yellow")
                continue
            worked = part.run() and worked
        return worked

    return _run(everything, keep)


@app.command()
def tls(every_step: EveryStepOption = False, keep: KeepOption = None) -> int:
    """Fetch pages from openssl s_server, nginx and an OpenSSL 4 server on loopback, from each in six ways."""

    def run(directory: Path, ladder: Ladder) -> bool:
        from locum.demo.scenario import Demo

        return Demo(directory, ladder, every_step=every_step).run()

    return _run(run, keep)


@app.command()
def ike(keep: KeepOption = None) -> int:
    """Have IPsec tunnels with strongSwan, made by IKEv1 and IKEv2, in network namespaces. Needs root."""

    def run(directory: Path, ladder: Ladder) -> bool:
        from locum.demo.ike import IkeDemo

        return IkeDemo(directory, ladder).run()

    return _run(run, keep)


@app.command("keyserver")
def key_server(keep: KeepOption = None) -> int:
    """Have locum's edge and an unmodified nginx serve HTTPS with keys that only a key server holds."""

    def run(directory: Path, ladder: Ladder) -> bool:
        from locum.demo.keyserver import KeyServerDemo

        return KeyServerDemo(directory, ladder).run()

    return _run(run, keep)


def _run(show: Callable[[Path, Ladder], bool], keep: Path | None) -> int:
    """Have something shown in a directory; returns the exit status."""
    from rich.console import Console

    from locum.demo.ladder import Ladder

    # A terminal that cannot show a line of the drawing gets a question mark, not a traceback.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    with _directory(keep) as directory:
        return 0 if show(directory, Ladder(console)) else 1


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    """The directory `keep`, made where it is missing, or one that goes away. Raises: ConfigurationError."""
    from locum.errors import ConfigurationError

    if keep is None:
        with tempfile.TemporaryDirectory(prefix="locum-demo-") as directory:
            yield Path(directory)
        return
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise ConfigurationError(f"{keep} is not empty")
    yield keep.resolve()
