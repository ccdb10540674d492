"""`locum identity`: client certificates that the delegate may use for terminals (A10).

Never prints a private key, and takes no password as an argument, where other users of the machine could see it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from locum.cli.chains import chain_of, read_certificates, warn_unfit
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
from locum.cli.private_keys import read_private_key
from locum.errors import ConfigurationError
from locum.store import Identity, Store
from locum.store.policies import EVERY_TERMINAL

if TYPE_CHECKING:
    from cryptography import x509

    from locum.keys.file import FileKey

app = new_app("Client certificates that the delegate uses for terminals.")


@app.command("add")
def add_identity(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the identity.")],
    cert: Annotated[
        Path, typer.Option("--cert", metavar="CHAIN.pem", help="Its certificate, and those above it.")
    ],
    key: Annotated[Path, typer.Option("--key", metavar="KEY.pem", help="Its private key.")],
    terminal: Annotated[
        list[str] | None,
        typer.Option(
            "--terminal",
            metavar="NAME|*",
            help="A terminal that it is for, '*' for all; else the one of its name.",
        ),
    ] = None,
    peer: Annotated[str, typer.Option("--peer", metavar="PATTERN", help="The peers that it is shown to.")] = "*",
    key_password_file: Annotated[
        Path | None,
        typer.Option(
            "--key-password-file", metavar="FILE", help="Its first line decrypts KEY.pem; asked for if not."
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of the one of this name.")
    ] = False,
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
) -> None:
    """Add a client certificate and its key, which is kept sealed."""
    read = read_private_key(key, key_password_file, asked_by="--key-password-file")
    chain = chain_of(cert, read_certificates(cert), read.held.public_key)
    _check_usable(name, chain, read.held)
    _warn_unfit(chain)
    with open_store(data, config_file, create=True) as store:
        terminals = terminal or _namesake(store, name)
        store.identities.add(
            name,
            chain_pem=_pem(chain),
            private_key_pem=read.pkcs8_pem,
            terminals=terminals,
            peer=peer,
            replace=replace,
            actor=actor(),
        )
    whom = "every terminal" if EVERY_TERMINAL in terminals else ", ".join(terminals)
    say(f"added identity {name}: {chain[0].subject.rfc4514_string()}, for {whom}")


@app.command("list")
def list_identities(
    data: DataOption = DEFAULT_DATA, config_file: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List the identities."""
    with open_store(data, config_file, create=False) as store:
        identities = store.identities.all()
    print_list(
        [_record(identity) for identity in identities],
        ("name", "subject", "terminals", "peer", "not_after", "certificates"),
        as_json=as_json,
        empty="no identities; see: locum identity add --help",
    )


@app.command("remove")
def remove_identity(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `locum identity list` shows it.")],
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
) -> None:
    """Remove an identity and its key."""
    with open_store(data, config_file, create=False) as store:
        store.identities.remove(name, actor=actor())
    say(f"removed identity {name}")


def _namesake(store: Store, name: str) -> list[str]:
    """The terminal that is called as the identity is: whoever wants more has to say so."""
    if name not in {terminal.name for terminal in store.terminals.all()}:
        raise ConfigurationError(
            f"no terminal is called {name!r}: say with --terminal which one the identity is for, or '*' for all"
        )
    return [name]


def _check_usable(name: str, chain: list[x509.Certificate], key: FileKey) -> None:
    """Raise ConfigurationError for what a delegate would leave out."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from locum.authority import databases
    from locum.authority.client_identities import ClientIdentities

    certificates = tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)
    ClientIdentities((databases.Identity(name=name, certificates=certificates, key=key),))


def _warn_unfit(chain: list[x509.Certificate]) -> None:
    from cryptography.x509.oid import ExtendedKeyUsageOID

    useful = (
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
        ExtendedKeyUsageOID.IPSEC_IKE,
    )
    warn_unfit(chain, useful, "neither for TLS clients nor for IPsec")


def _pem(chain: list[x509.Certificate]) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in chain)


def _record(identity: Identity) -> Record:
    from cryptography import x509

    chain = x509.load_pem_x509_certificates(identity.chain_pem.encode())
    return {
        "name": identity.name,
        "subject": chain[0].subject.rfc4514_string(),
        "terminals": list(identity.terminals),
        "peer": identity.peer,
        "not_before": moment(chain[0].not_valid_before_utc.timestamp()),
        "not_after": moment(chain[0].not_valid_after_utc.timestamp()),
        "certificates": len(chain),
        "added": moment(identity.added),
    }
