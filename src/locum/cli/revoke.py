"""`locum revoke`: cuts an edge or a terminal off; whoever serves it heeds that within a second.

Never forgets one: it stays in the list, and under its name it can be given a new credential.
"""

from __future__ import annotations

from typing import Annotated

import typer

from locum.cli.options import DEFAULT_DATA, ConfigOption, DataOption, actor, new_app, open_store
from locum.cli.output import note, say

app = new_app("Cut an edge or a terminal off.")

EdgeArgument = Annotated[str, typer.Argument(metavar="NAME", help="As `locum edges list` shows it.")]
TerminalArgument = Annotated[str, typer.Argument(metavar="NAME", help="As `locum terminals list` shows it.")]


@app.command("edge")
def revoke_edge(name: EdgeArgument, data: DataOption = DEFAULT_DATA, config_file: ConfigOption = None) -> None:
    """Refuse an edge from now on, on connections that are open too."""
    with open_store(data, config_file, create=False) as store:
        changed = store.edges.revoke(name, actor=actor())
    say(f"edge {name} is revoked" + ("" if changed else " already"))
    note(f"for a new credential: locum enroll edge {name} --replace --out DIR")


@app.command("terminal")
def revoke_terminal(
    name: TerminalArgument, data: DataOption = DEFAULT_DATA, config_file: ConfigOption = None
) -> None:
    """Stop serving a terminal, as `locum terminals disable` does."""
    with open_store(data, config_file, create=False) as store:
        changed = store.terminals.set_enabled(name, False, actor=actor())
    say(f"terminal {name} is revoked" + ("" if changed else " already"))
    note(f"for a new credential: locum enroll terminal {name} --replace --out FILE")
