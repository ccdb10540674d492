"""`locum pkcs11`: runs the agent through which unmodified servers use a remote key; prints their settings (X4).

Imports nothing of keys or key servers: that is for the agent's workers, which are processes of their own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from locum.cli.output import announce
from locum.cli.pkcs11_process import WorkerSettings
from locum.edge.p11.agent import MAX_CLIENTS, TIMEOUT, Agent, AgentOptions
from locum.edge.p11.allowed import Allowed
from locum.edge.p11.settings import Modules, Program, Stack, Use, installed_stack, settings_for, show
from locum.errors import ConfigurationError
from locum.names import HostPort
from locum.node import logs

#: Where the agent listens in the settings that are printed, unless told otherwise.
SOCKET = Path("/run/locum/pkcs11.sock")
#: Of the time for a call, what an operation at the key servers may take: then there is still an answer to give.
_SHARE = 0.8

app = typer.Typer(
    help="Let unmodified servers use keys that are at key servers, through PKCS#11.",
    add_completion=False,
    rich_markup_mode=None,
)

SocketOption = Annotated[Path, typer.Option("--socket", metavar="PATH", help="Where clients connect.")]


@app.callback(invoke_without_command=True)
def pkcs11(
    context: typer.Context,
    credential: Annotated[
        Path | None,
        typer.Option("--credential", metavar="DIR", help="The credential from `locum enroll edge`."),
    ] = None,
    path: SocketOption = SOCKET,
    key_servers: Annotated[
        list[str] | None,
        typer.Option("--key-server", metavar="HOST:PORT", help="Instead of those in the credential; repeatable."),
    ] = None,
    policy: Annotated[
        str,
        typer.Option("--policy", metavar="ordered|least", help="The first server that is up, or the least busy."),
    ] = "least",
    uids: Annotated[
        list[int] | None,
        typer.Option("--allow-uid", metavar="N", help="This user may connect, besides your own; repeatable."),
    ] = None,
    users: Annotated[
        list[str] | None, typer.Option("--allow-user", metavar="NAME", help="The same by name; repeatable.")
    ] = None,
    groups: Annotated[
        list[str] | None,
        typer.Option("--allow-group", metavar="NAME", help="Users in this group may connect; repeatable."),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", metavar="FILE", help="Certificates in PEM to show beside the keys."),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, max=600, help="Until a call has its answer.")
    ] = TIMEOUT,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, max=64, help="Processes that talk to key servers.")
    ] = 1,
    max_clients: Annotated[
        int, typer.Option("--max-clients", metavar="N", min=1, max=60_000, help="Connections at a time.")
    ] = MAX_CLIENTS,
) -> None:
    """Run the agent in the foreground.

    Prints one line on standard output when clients can connect, and its log on standard error. SIGHUP replaces
    the workers, with no client noticing; SIGTERM or Ctrl-C ends the agent.
    """
    if context.invoked_subcommand is not None:
        return
    if credential is None:
        raise ConfigurationError("--credential DIR is missing: the directory that `locum enroll edge` has made")
    if policy not in ("ordered", "least"):
        raise ConfigurationError("--policy is ordered or least")
    logs.configure(level="info", form="text")
    settings = WorkerSettings(
        parent=os.getpid(),
        credential=str(credential),
        timeout=timeout * _SHARE,
        policy=policy,
        servers=tuple(str(HostPort.parse(server)) for server in key_servers or ()),
        certificate="" if certificate is None else str(certificate),
    )
    options = AgentOptions(
        path=path,
        allowed=Allowed.of(uids=uids or (), users=users or (), groups=groups or ()),
        worker=settings.command(),
        workers=workers,
        timeout=timeout,
        max_clients=max_clients,
    )
    Agent(options).run(lambda keys: _announce(path, keys))


def _announce(path: Path, keys: int) -> None:
    # Whoever started the agent may have gone with its end of the pipe; it serves clients all the same.
    try:
        announce(f"ready pkcs11={path} keys={keys}")
    except OSError:
        return


@app.command()
def config(
    program: Annotated[Program, typer.Argument(metavar="PROGRAM", show_default=False)],
    path: SocketOption = SOCKET,
    key: Annotated[str, typer.Option("--key", metavar="NAME", help="The key's name at the key server.")] = "NAME",
    directory: Annotated[Path, typer.Option("--directory", metavar="DIR", help="Where the files will be.")] = Path(
        "/etc/locum"
    ),
    stack: Annotated[
        Stack | None,
        typer.Option("--stack", help="What OpenSSL gets to PKCS#11 with; else what is installed here."),
    ] = None,
    part: Annotated[
        str, typer.Option("--part", metavar="FILE", help="This file alone, without the line that names it.")
    ] = "",
) -> None:
    """Print working settings: nginx, apache, haproxy, postgresql, gnutls, java or openssl."""
    use = Use(socket=path.absolute(), key=key, directory=directory.absolute(), modules=Modules.installed())
    parts = settings_for(program, stack or installed_stack(), use)
    if not part:
        print(show(parts), end="")  # noqa: T201
        return
    found = next((each.content for each in parts if each.name == part), None)
    if found is None:
        raise ConfigurationError(f"no file '{part}': there are {', '.join(each.name for each in parts)}")
    print(found, end="")  # noqa: T201
