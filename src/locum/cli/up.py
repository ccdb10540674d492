"""`locum up`: runs a node in the foreground.

Never prints anything on standard output but the one line that says that the node is ready.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from locum.cli.options import DEFAULT_DATA, ConfigOption, DataOption
from locum.names import COAP_PORT, HostPort
from locum.node.node import run

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def up(
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="ADDR:PORT",
            help="Where the delegate listens, UDP and TCP, instead of what the configuration says; "
            "port 0 takes a free one.",
        ),
    ] = None,
) -> None:
    """Run a node in the foreground: the delegate and its databases.

    Prints one line on standard output when it is ready, and its log on standard error. SIGTERM or Ctrl-C ends it:
    sessions in flight may finish, then it exits with 0.
    """
    address = None if listen is None else HostPort.parse(listen, default_port=COAP_PORT)
    run(data, config_file, address, announce=lambda delegate: _announce(delegate, data))


def _announce(delegate: HostPort, data: Path) -> None:
    # Whoever started the node may have gone with its end of the pipe; the node serves terminals all the same.
    try:
        print(f"ready delegate=coap://{delegate} data={data}", flush=True)  # noqa: T201
    except OSError:
        return
