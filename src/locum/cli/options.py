"""Options that several commands have in common, and the store that they lead to.

Never changes anything in a store.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Annotated, Any

import typer

from locum.cli.output import note
from locum.errors import ConfigurationError
from locum.node import config
from locum.store import Store, open_node_store

DEFAULT_DATA = Path("locum-data")

DataOption = Annotated[
    Path,
    typer.Option(
        "--data", envvar="LOCUM_DATA", metavar="DIR", help="The node's data directory.", show_default=True
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="The node's configuration, if not locum.toml in the data directory."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print a JSON array.")]


def new_app(summary: str) -> typer.Typer:
    """A typer app for the commands under one word."""
    app = typer.Typer(help=summary, add_completion=False, rich_markup_mode=None)

    # With a callback, typer keeps the command's word even where there is only one command.
    @app.callback()
    def _main() -> None:
        pass

    return app


def open_store(data: Path, config_file: Path | None, *, create: bool) -> Store:
    """Open the store of the node in `data`. With `create` a missing data directory is made, and said so."""
    configuration = config.load(data, config_file)
    if create and not data.exists():
        note(f"making the data directory {data}")
    return open_node_store(data, configuration.node.database, create=create)


def actor() -> str:
    """Who gives this command, for the audit log: the user of the process, which no environment can change."""
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = str(number)
    return f"cli:{name}"


def read_file(path: Path, *, limit: int) -> bytes:
    """The content of a file that the user named, at most `limit` bytes. Raises: ConfigurationError."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    if len(data) > limit:
        raise ConfigurationError(f"{path}: larger than {limit} bytes")
    return data


Record = dict[str, Any]
