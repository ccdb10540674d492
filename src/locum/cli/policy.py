"""`locum policy`: which terminals may talk to which peers, the policy database of A5.

Never decides anything; the delegate does, by these rules.
"""

from __future__ import annotations

from typing import Annotated

import typer

from locum.cli.options import (
    DEFAULT_DATA,
    ConfigOption,
    DataOption,
    JsonOption,
    Record,
    actor,
    new_app,
    open_store,
)
from locum.cli.output import moment, print_list, say
from locum.store import Action, Policy

app = new_app(
    "Which terminals may talk to which peers. Any deny that matches wins; what nothing allows is denied."
)


@app.command("add")
def add_policy(
    terminal: Annotated[str, typer.Option("--terminal", metavar="NAME|*", help="The terminal, or '*' for all.")],
    peer: Annotated[
        str,
        typer.Option(
            "--peer",
            metavar="PATTERN",
            help="dns:NAME, dns:*.example.com (one label), ip:ADDRESS, ip:NETWORK, email:A@B, email:*@B, dn:NAME, "
            "keyid:HEX, pin:NAME, or '*'.",
        ),
    ],
    action: Annotated[Action, typer.Option("--action", help="What to do with a peer that matches.")],
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
) -> None:
    """Add a rule. The order of rules has no meaning."""
    with open_store(data, config_file, create=True) as store:
        policy, added = store.policies.add(terminal, peer, action, actor=actor())
    say(f"{'added' if added else 'there already:'} policy {_described(policy)}")


@app.command("list")
def list_policies(
    data: DataOption = DEFAULT_DATA, config_file: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List the rules."""
    with open_store(data, config_file, create=False) as store:
        policies = store.policies.all()
    print_list(
        [_record(policy) for policy in policies],
        ("id", "terminal", "peer", "action"),
        as_json=as_json,
        empty="no policies: every peer is denied to every terminal; see: locum policy add --help",
    )


@app.command("remove")
def remove_policy(
    ids: Annotated[list[int], typer.Argument(metavar="ID...", help="As `locum policy list` shows it.")],
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
) -> None:
    """Remove rules."""
    with open_store(data, config_file, create=False) as store:
        for policy_id in ids:
            say(f"removed policy {_described(store.policies.remove(policy_id, actor=actor()))}")


def _described(policy: Policy) -> str:
    return f"{policy.id}: {policy.action} {policy.peer} to terminal {policy.terminal}"


def _record(policy: Policy) -> Record:
    return {
        "id": policy.id,
        "terminal": policy.terminal,
        "peer": policy.peer,
        "action": str(policy.action),
        "added": moment(policy.added),
    }
