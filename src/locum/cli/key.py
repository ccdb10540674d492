"""`locum key`: the private keys that the key server uses for edges (C1, C2, X6).

Never prints a private key, and takes no password as an argument, where other users of the machine could see it.
"""

from __future__ import annotations

import time
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
from locum.cli.output import moment, note, print_list, say
from locum.cli.private_keys import STANDARD_INPUT, pkcs8_der, read_private_key
from locum.errors import ConfigurationError, LocumError
from locum.names import check_name
from locum.store import AuditEntry, Outcome, Store, StoredKey
from locum.text import printable

app = new_app("The private keys that the key server uses for edges.")

#: What `--key` means by this is every key, so no key is called so.
EVERY_KEY_WORD = "all"

KeyArgument = Annotated[str, typer.Argument(metavar="NAME", help="As `locum key list` shows it.")]


@app.command("import")
def import_key(
    file: Annotated[Path, typer.Argument(metavar="FILE|-", help="The key in PEM; - is standard input.")],
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="What to call it; the file's name without its end if not given."
        ),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option("--password-file", metavar="FILE", help="Its first line decrypts the key; asked for if not."),
    ] = None,
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
) -> None:
    """Import a private key in PEM; it is kept sealed. Afterwards the file is no longer needed."""
    if name is None and file == STANDARD_INPUT:
        raise ConfigurationError("say with --name what to call the key")
    name = _key_name(file.stem if name is None else name)
    read = read_private_key(file, password_file, asked_by="--password-file")
    with open_store(data, config_file, create=True) as store:
        added = store.keys.add(name, public_key=read.held.public_key, private_key=read.pkcs8_der, actor=actor())
        _say_added("imported", added, store)


@app.command("generate")
def generate_key(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help="rsa2048 (3072, 4096), p256 (p384, p521), ed25519, ml-dsa-65, ..."),
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What to call it; as its kind if not given.")
    ] = None,
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
) -> None:
    """Make a private key, which never leaves the key server."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from locum.keys.generation import generate

    name = _key_name(kind if name is None else name)
    key = generate(kind)
    public_key = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with open_store(data, config_file, create=True) as store:
        added = store.keys.add(name, public_key=public_key, private_key=pkcs8_der(key), actor=actor())
        _say_added("made", added, store)
    note(f"for a certificate: locum key csr {name} --dns NAME")


@app.command("token")
def token_key(
    uri: Annotated[
        str,
        typer.Argument(
            metavar="pkcs11:...",
            help="Which key it is (RFC 7512), with module-path, and pin-source=file:FILE for the PIN.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What to call it; the object's name if not given.")
    ] = None,
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
) -> None:
    """Use a key that stays in a PKCS#11 token, which must be there now."""
    from locum.keys.token import TokenKey
    from locum.keys.token_uri import TokenUri

    place = TokenUri.parse(uri)
    name = _key_name(place.object if name is None else name)
    held = TokenKey(place)
    with open_store(data, config_file, create=True) as store:
        added = store.keys.add(name, public_key=held.public_key, token=str(place), actor=actor())
        _say_added("added", added, store)


@app.command("csr")
def certificate_request(
    name: KeyArgument,
    dns: Annotated[
        list[str], typer.Option("--dns", metavar="NAME", help="A host name or IP address that it is to be for.")
    ],
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
) -> None:
    """Print a certificate signing request for a key, in PEM, for a certification authority."""
    from locum.keys.generation import signing_request

    with open_store(data, config_file, create=False) as store:
        key = find_key(store, name)
        if key.private_key is None:
            raise ConfigurationError(f"{name} is in a token: make the signing request with the token's own tools")
        request = signing_request(key.private_key, dns)
        entry = AuditEntry(
            time=time.time(),
            actor=actor(),
            action="key.csr",
            subject=name,
            outcome=Outcome.OK,
            detail=f"for {', '.join(dns)}",
        )
        store.audit.append([entry])
    typer.echo(request, nl=False)


@app.command("list")
def list_keys(
    data: DataOption = DEFAULT_DATA, config_file: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List the keys; never what is private of them."""
    with open_store(data, config_file, create=False) as store:
        keys = store.keys.all()
    print_list(
        [_record(key) for key in keys],
        ("name", "kind", "ski", "token", "added"),
        as_json=as_json,
        empty="no keys; see: locum key import --help",
    )


@app.command("remove")
def remove_key(name: KeyArgument, data: DataOption = DEFAULT_DATA, config_file: ConfigOption = None) -> None:
    """Remove a key for good, and with it every edge's permission to use it."""
    with open_store(data, config_file, create=False) as store:
        edges = store.keys.remove(name, actor=actor())
    say(f"removed key {name}")
    if edges:
        note(f"no longer for the edges {', '.join(edges)}")


def find_key(store: Store, name: str) -> StoredKey:
    """The key of this name, or with this SKI in hexadecimal. Raises: ConfigurationError."""
    for key in store.keys.all():
        if name in (key.name, key.ski.hex()):
            return key
    raise ConfigurationError(f"no key is called {name!r}; see: locum key list")


def _key_name(name: str) -> str:
    try:
        check_name(name, "key's name")
    except LocumError as error:
        raise ConfigurationError(f"{error}; choose one with --name") from None
    if name == EVERY_KEY_WORD:
        raise ConfigurationError(f"{name!r} means every key, so none is called so; choose another with --name")
    return name


def _say_added(how: str, key: StoredKey, store: Store) -> None:
    say(f"{how} key {key.name} ({key.kind}, ski {key.ski.hex()})")
    if not store.edges.all():
        note("no edge may use it yet; see: locum enroll edge --help")


def _record(key: StoredKey) -> Record:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

    public_key = load_der_public_key(key.public_key)
    return {
        "name": key.name,
        "kind": key.kind,
        "ski": key.ski.hex(),
        "digest": key.digest,
        "token": printable(key.token),
        "public_key": public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        "added": moment(key.added),
    }
