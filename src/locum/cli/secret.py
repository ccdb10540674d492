"""`locum secret`: pre-shared keys, post-quantum ones too, that terminals have in common with peers of IKE.

Never takes a secret as an argument, where other users of the machine could see it, and never shows one.
"""

from __future__ import annotations

import base64
import binascii
import sys
from pathlib import Path
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
from locum.cli.output import moment, print_list, say, warn
from locum.errors import ConfigurationError
from locum.files import read_private
from locum.store import NewSecret, SharedSecret, SharedSecretKind
from locum.store.secrets import SECRET_LIMIT

app = new_app("Secrets that terminals share with peers of IKE.")

#: Fewest bytes of a secret unless --weak: 128 bits, and for a post-quantum one 256 (RFC 8784 section 6).
MINIMUM = {SharedSecretKind.PRE_SHARED_KEY: 16, SharedSecretKind.POST_QUANTUM: 32}
#: Most bytes of a file or of standard input: a secret in hexadecimal with white space, and more is a mistake.
INPUT_LIMIT = 4 * SECRET_LIMIT

_NAMES = {
    SharedSecretKind.PRE_SHARED_KEY: "pre-shared key",
    SharedSecretKind.POST_QUANTUM: "post-quantum pre-shared key",
}


@app.command("add")
def add_secret(
    terminal: Annotated[str, typer.Option("--terminal", metavar="NAME", help="The terminal that has the secret.")],
    peer: Annotated[
        str,
        typer.Option(
            "--peer",
            metavar="ID",
            help="Who has it too: a DNS name, IP address or e-mail address, dn:NAME, keyid:HEX, or '*' for all.",
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Where the secret is, mode 0600; standard input if not given."),
    ] = None,
    local_id: Annotated[
        str,
        typer.Option("--local-id", metavar="ID", help="Who the terminal is to the peer; dns:NAME if not given."),
    ] = "",
    ppk: Annotated[
        str,
        typer.Option("--ppk", metavar="PPK_ID", help="A post-quantum pre-shared key (RFC 8784), known by PPK_ID."),
    ] = "",
    required: Annotated[bool, typer.Option("--required", help="With --ppk: no connection without it.")] = False,
    in_hex: Annotated[bool, typer.Option("--hex", help="The secret is written in hexadecimal.")] = False,
    in_base64: Annotated[bool, typer.Option("--base64", help="The secret is written in base64.")] = False,
    weak: Annotated[
        bool, typer.Option("--weak", help="Take a secret that is too short to withstand guessing.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of the one for the same.")
    ] = False,
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
) -> None:
    """Add a secret: asked for without echo, or read from standard input or a file. It is kept sealed.

    As text it is one line of at least 16 characters; 32 bytes with --ppk; 512 bytes at most.
    """
    if in_hex and in_base64:
        raise ConfigurationError("--hex or --base64, not both")
    new = NewSecret(
        terminal=terminal,
        peer=peer,
        secret=_decoded(_read(file), in_hex=in_hex, in_base64=in_base64),
        local_identity=local_id,
        identifier=ppk,
        required=required,
    )
    _check_usable(new)
    _check_strength(new, weak=weak)
    with open_store(data, config_file, create=False) as store:
        added = store.secrets.add(new, replace=replace, actor=actor())
    say(f"added {_described(added)}")


@app.command("list")
def list_secrets(
    data: DataOption = DEFAULT_DATA, config_file: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List who shares secrets with whom, and since when; never the secrets."""
    with open_store(data, config_file, create=False) as store:
        secrets = store.secrets.all()
    print_list(
        [_record(secret) for secret in secrets],
        ("id", "terminal", "peer", "kind", "local_id", "ppk_id", "required", "added"),
        as_json=as_json,
        empty="no shared secrets; see: locum secret add --help",
    )


@app.command("remove")
def remove_secret(
    ids: Annotated[list[int], typer.Argument(metavar="ID...", help="As `locum secret list` shows it.")],
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
) -> None:
    """Remove secrets."""
    with open_store(data, config_file, create=False) as store:
        for secret_id in ids:
            store.secrets.remove(secret_id, actor=actor())
            say(f"removed shared secret {secret_id}")


# --- the secret -------------------------------------------------------------------------------------------


def _read(file: Path | None) -> bytes:
    """The secret as it is written: in a file that only its owner can read, on standard input, or asked for."""
    if file is not None:
        return read_private(file, what="shared secret", limit=INPUT_LIMIT)
    if sys.stdin.isatty():
        answer: str = typer.prompt("Shared secret", hide_input=True, confirmation_prompt=True, err=True)
        return answer.encode(errors="surrogateescape")
    written = sys.stdin.buffer.read(INPUT_LIMIT + 1)
    if len(written) > INPUT_LIMIT:
        raise ConfigurationError(f"standard input: the shared secret is larger than {INPUT_LIMIT} bytes")
    return written


def _decoded(written: bytes, *, in_hex: bool, in_base64: bool) -> bytes:
    """The secret itself. Errors say nothing of what was written."""
    if in_hex or in_base64:
        digits = b"".join(written.split())
        try:
            return binascii.unhexlify(digits) if in_hex else base64.b64decode(digits, validate=True)
        except ValueError:
            raise ConfigurationError(f"the secret is not {'hexadecimal' if in_hex else 'base64'}") from None
    line = written.removesuffix(b"\n").removesuffix(b"\r")
    if any(octet < 0x20 or octet == 0x7F for octet in line):
        raise ConfigurationError(
            "a secret as text is one line without control characters; write any other with --hex or --base64"
        )
    return line


def _check_usable(new: NewSecret) -> None:
    """Raise ConfigurationError for what a delegate would leave out: an identity that IKE cannot carry."""
    from locum.authority.ike_identities import identification_of

    if new.local_identity:
        identification_of(new.local_identity)


def _check_strength(new: NewSecret, *, weak: bool) -> None:
    minimum = MINIMUM[new.kind]
    if len(new.secret) >= minimum:
        return
    found = f"a {_NAMES[new.kind]} of {len(new.secret)} bytes can be guessed"
    if not weak:
        raise ConfigurationError(f"{found}: at least {minimum} are needed, unless --weak says that it shall be so")
    warn(found)


# --- what is shown ----------------------------------------------------------------------------------------


def _described(secret: SharedSecret) -> str:
    named = f" {secret.identifier}" if secret.identifier else ""
    return f"{_NAMES[secret.kind]}{named} (id {secret.id}) of terminal {secret.terminal} and {secret.peer}"


def _record(secret: SharedSecret) -> Record:
    return {
        "id": secret.id,
        "terminal": secret.terminal,
        "peer": secret.peer,
        "kind": str(secret.kind),
        "local_id": secret.local_identity,
        "ppk_id": secret.identifier,
        "required": secret.required,
        "added": moment(secret.added),
    }
