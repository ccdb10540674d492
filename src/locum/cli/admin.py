"""The commands that look after a node's databases; here `locum terminals` and `locum audit`, the others beside it.

Never talks to a running node: it notices within a second what changed in its store.
"""

from __future__ import annotations

from typing import Annotated

import typer

from locum.cli.enroll import app as enroll_app
from locum.cli.enroll_edge import enroll_edge
from locum.cli.identity import app as identity_app
from locum.cli.options import DEFAULT_DATA, ConfigOption, DataOption, JsonOption, actor, new_app, open_store
from locum.cli.output import moment, print_list, say
from locum.cli.policy import app as policy_app
from locum.cli.secret import app as secret_app
from locum.cli.trust import app as trust_app
from locum.store.audit import READ_LIMIT

__all__ = ["audit_app", "enroll_app", "identity_app", "policy_app", "secret_app", "terminals_app", "trust_app"]

#: Entries that `locum audit list` shows unless told otherwise.
DEFAULT_LIMIT = 50

terminals_app = new_app("The terminals that are enrolled.")
audit_app = new_app("The audit log: every key use, refusal and change of policy.")

enroll_app.command("edge")(enroll_edge)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As `locum terminals list` shows it.")]


@terminals_app.command("list")
def list_terminals(
    data: DataOption = DEFAULT_DATA, config_file: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List the terminals."""
    with open_store(data, config_file, create=False) as store:
        terminals = store.terminals.all()
    records = [
        {
            "name": terminal.name,
            "kid": terminal.kid.hex(),
            "algorithm": terminal.algorithm,
            "enabled": terminal.enabled,
            "enrolled": moment(terminal.created),
        }
        for terminal in terminals
    ]
    columns = ("name", "kid", "algorithm", "enabled", "enrolled")
    print_list(records, columns, as_json=as_json, empty="no terminals; see: locum enroll terminal --help")


@terminals_app.command("remove")
def remove_terminal(name: NameArgument, data: DataOption = DEFAULT_DATA, config_file: ConfigOption = None) -> None:
    """Remove a terminal with its channel key, its policy rules and its shared secrets."""
    with open_store(data, config_file, create=False) as store:
        store.terminals.remove(name, actor=actor())
    say(f"removed terminal {name}")


@terminals_app.command("disable")
def disable_terminal(
    name: NameArgument, data: DataOption = DEFAULT_DATA, config_file: ConfigOption = None
) -> None:
    """Stop serving a terminal, and keep everything that belongs to it."""
    with open_store(data, config_file, create=False) as store:
        changed = store.terminals.set_enabled(name, False, actor=actor())
    say(f"terminal {name} is disabled" + ("" if changed else " already"))


@terminals_app.command("enable")
def enable_terminal(name: NameArgument, data: DataOption = DEFAULT_DATA, config_file: ConfigOption = None) -> None:
    """Serve a terminal again."""
    with open_store(data, config_file, create=False) as store:
        changed = store.terminals.set_enabled(name, True, actor=actor())
    say(f"terminal {name} is enabled" + ("" if changed else " already"))


@audit_app.command("list")
def list_audit(
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=READ_LIMIT, help="How many of the newest entries.")
    ] = DEFAULT_LIMIT,
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the newest entries, the newest last."""
    with open_store(data, config_file, create=False) as store:
        entries = store.audit.newest(limit)
    records = [
        {
            "time": moment(entry.time),
            "actor": entry.actor,
            "action": entry.action,
            "subject": entry.subject,
            "outcome": str(entry.outcome),
            "detail": entry.detail,
        }
        for entry in entries
    ]
    print_list(records, tuple(records[0]) if records else (), as_json=as_json, empty="the audit log is empty")
