"""`locum up`: runs a node in the foreground.

Never prints anything on standard output but the one line that says that the node is ready.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from locum.cli.options import DEFAULT_DATA, ConfigOption, DataOption
from locum.cli.output import announce
from locum.keyless.registry import PORT as KEYLESS_PORT
from locum.names import COAP_PORT, HostPort
from locum.node.node import Running, run

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
    key_server: Annotated[
        str | None,
        typer.Option(
            "--key-server",
            metavar="ADDR:PORT",
            help="Run a key server too, and listen here for edges, instead of what the configuration says; "
            "port 0 takes a free one.",
        ),
    ] = None,
    delegate: Annotated[
        bool,
        typer.Option(
            "--delegate/--no-delegate",
            help="Run the delegate. Without it, several nodes can run on one data directory.",
        ),
    ] = True,
) -> None:
    """Run a node in the foreground: the delegate, the key server, and their databases.

    Prints one line on standard output when it is ready, and its log on standard error. SIGTERM or Ctrl-C ends it:
    what is in flight may finish, then it exits with 0.
    """
    run(
        data,
        config_file,
        listen=None if listen is None else HostPort.parse(listen, default_port=COAP_PORT),
        key_server=None if key_server is None else HostPort.parse(key_server, default_port=KEYLESS_PORT),
        delegate=delegate,
        announce=lambda running: _announce(running, data),
    )


def _announce(running: Running, data: Path) -> None:
    words = ["ready"]
    if running.delegate is not None:
        words.append(f"delegate=coap://{running.delegate}")
    if running.key_server is not None:
        words.append(f"keyserver={running.key_server}")
    # Whoever started the node may have gone with its end of the pipe; the node serves all the same.
    try:
        announce(" ".join((*words, f"data={data}")))
    except OSError:
        return
