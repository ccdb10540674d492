"""The command `locum`: finds the module of the command's first word and turns errors into one line.

Imports next to nothing of locum: `locum terminal` must never load a database or public-key code.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from typing import Any

from locum import __version__
from locum.errors import LocumError
from locum.text import printable

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Command:
    """A first word: where its typer app is, and the line that `locum --help` shows."""

    name: str
    module: str
    app: str
    summary: str


COMMANDS = {
    command.name: command
    for command in (
        Command("up", "locum.cli.up", "app", "Run a node in the foreground: delegate, key server, databases."),
        Command("demo", "locum.cli.demo", "app", "Show the main job on real, unmodified servers."),
        Command("enroll", "locum.cli.admin", "enroll_app", "Make the credential of a new terminal or edge."),
        Command("revoke", "locum.cli.revoke", "app", "Cut an edge or a terminal off."),
        Command("terminals", "locum.cli.admin", "terminals_app", "List or remove terminals."),
        Command("trust", "locum.cli.admin", "trust_app", "Trust anchors, pinned keys and CRLs that verify peers."),
        Command("policy", "locum.cli.admin", "policy_app", "Which terminals may talk to which peers."),
        Command("identity", "locum.cli.admin", "identity_app", "Client certificates used for terminals."),
        Command("secret", "locum.cli.admin", "secret_app", "Secrets that terminals share with peers of IKE."),
        Command("key", "locum.cli.key", "app", "Private keys that the key server uses for edges."),
        Command("certificate", "locum.cli.certificate", "app", "Certificates that the key server hands out."),
        Command("edges", "locum.cli.edges", "app", "Who may use which private keys, and how far."),
        Command("audit", "locum.cli.admin", "audit_app", "Read the audit log."),
        Command("edge", "locum.cli.edge", "app", "Terminate TLS with private keys that are at a key server."),
        Command("pkcs11", "locum.cli.pkcs11", "app", "Let unmodified servers use private keys at a key server."),
        Command("terminal", "locum.cli.terminal", "app", "Talk TLS or IPsec to a peer through a delegate."),
    )
}


def main() -> None:
    """Run `locum` with the arguments of this process, and end the process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line, without the program's name; returns the exit status.

    0 done, 1 failed with one line on standard error, 2 wrong usage, 130 interrupted.
    """
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
    except LocumError as error:
        complain(one_line(error))
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python must not try to flush into it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        complain(one_line(error))
        return EXIT_FAILED
    return status


def one_line(message: object) -> str:
    """The message with every run of white space turned into one space; never empty."""
    return " ".join(str(message).split()) or type(message).__name__


def complain(message: str) -> None:
    """Print the one line that a user sees of an error; a peer or a delegate may have written part of it."""
    print(f"locum: error: {printable(message)}", file=sys.stderr)  # noqa: T201


def load_app(command: Command) -> Any:
    """Import the module of `command` and return its typer app."""
    return getattr(importlib.import_module(command.module), command.app)


def _dispatch(arguments: list[str]) -> int:
    match arguments:
        case ["--version", *_]:
            print(f"locum {__version__}")  # noqa: T201
            return 0
        case [] | ["--help" | "-h" | "help", *_]:
            print(help_text())  # noqa: T201
            return 0 if arguments else EXIT_USAGE
        case [word, *rest] if word in COMMANDS:
            return _run_app(COMMANDS[word], rest)
        case _:
            complain(f"No command '{arguments[0]}'. See: locum --help")
            return EXIT_USAGE


def help_text() -> str:
    """What `locum --help` prints: one line per command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {command.name:<{width}}  {command.summary}" for command in COMMANDS.values()]
    return "\n".join(
        (
            "Usage: locum COMMAND [OPTIONS]",
            "",
            "The stand-in for key exchange: a delegate does the public-key work of TLS and IKE for devices.",
            "",
            "Commands:",
            *lines,
            "",
            "Options:",
            f"  {'--version':<{width}}  Print the version.",
            f"  {'--help':<{width}}  Print this; `locum COMMAND --help` says more.",
        )
    )


def _run_app(command: Command, arguments: list[str]) -> int:
    """Run a typer app so that its errors come back here instead of being printed by it."""
    import typer
    import typer.main

    program = typer.main.get_command(load_app(command))
    try:
        result = program.main(args=arguments, prog_name=f"locum {command.name}", standalone_mode=False)
    except typer.TyperException as error:
        complain(f"{one_line(error.format_message())} See: locum {command.name} --help")
        return error.exit_code
    except typer.Abort:
        return EXIT_INTERRUPTED
    return result if isinstance(result, int) else 0
