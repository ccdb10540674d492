"""`locum identity`: client certificates that the delegate may use for terminals (A10).

Never prints a private key, and takes no password as an argument, where other users of the machine could see it.
"""

from __future__ import annotations

import datetime
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    read_file,
)
from locum.cli.output import moment, print_list, say, warn
from locum.cli.pem import PemBlock, is_private_key, read_blocks
from locum.errors import ConfigurationError, LocumError
from locum.handshake import MAX_CERTIFICATES
from locum.store import Identity, Store
from locum.store.policies import EVERY_TERMINAL

if TYPE_CHECKING:
    from cryptography import x509

    from locum.keys.file import FileKey

app = new_app("Client certificates that the delegate uses for terminals.")

#: Longest password of a private key, in bytes.
PASSWORD_LIMIT = 1024


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
    private_key, held = _private_key(key, key_password_file)
    chain = _ordered(cert, _certificates(cert), held.public_key)
    _check_usable(name, chain, held)
    _warn_unfit(chain)
    with open_store(data, config_file, create=True) as store:
        terminals = terminal or _namesake(store, name)
        store.identities.add(
            name,
            chain_pem=_pem(chain),
            private_key_pem=private_key,
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


# --- the private key --------------------------------------------------------------------------------------


def _private_key(path: Path, password_file: Path | None) -> tuple[bytes, FileKey]:
    """The key in `path` as PKCS #8 in PEM without a password, and as it signs."""
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    from locum.keys.file import FileKey

    blocks = [block for block in read_blocks(path) if is_private_key(block)]
    if len(blocks) != 1:
        raise ConfigurationError(f"{path}: one private key is needed, and there are {len(blocks)}")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        warn(f"{path} is open to other users of this machine")
    data = blocks[0].data
    password = _password(path, password_file) if _is_encrypted(blocks[0]) else None
    try:
        held = FileKey.from_pem(data, password)
    except LocumError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    key = load_pem_private_key(data, password)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), held


def _is_encrypted(block: PemBlock) -> bool:
    # PKCS #8 says so in its label, the older forms in a header (RFC 1421 section 4.6.1.1).
    return "ENCRYPTED" in block.label or b"Proc-Type: 4,ENCRYPTED" in block.data


def _password(path: Path, password_file: Path | None) -> bytes:
    if password_file is not None:
        return read_file(password_file, limit=PASSWORD_LIMIT).split(b"\n", 1)[0].rstrip(b"\r")
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{path} is encrypted, and there is nobody to ask; give --key-password-file FILE")
    answer: str = typer.prompt(f"Password of {path}", hide_input=True, err=True)
    return answer.encode()[:PASSWORD_LIMIT]


# --- the chain --------------------------------------------------------------------------------------------


def _certificates(path: Path) -> list[x509.Certificate]:
    from locum.crypto.asymmetric.certificates import load_anchors

    blocks = [block for block in read_blocks(path) if block.label == "CERTIFICATE"]
    if not 1 <= len(blocks) <= MAX_CERTIFICATES:
        raise ConfigurationError(
            f"{path}: 1 to {MAX_CERTIFICATES} certificates are needed, and there are {len(blocks)}"
        )
    try:
        return [load_anchors(block.data)[0] for block in blocks]
    except LocumError:
        raise ConfigurationError(f"{path}: a certificate in it cannot be read") from None


def _ordered(path: Path, certificates: list[x509.Certificate], public_key: bytes) -> list[x509.Certificate]:
    """The chain from the certificate of `public_key` upwards, whatever its order in the file was."""
    from locum.crypto.asymmetric.certificates import public_key_of

    own = next((each for each in certificates if public_key_of(each) == public_key), None)
    if own is None:
        raise ConfigurationError(f"{path}: the private key belongs to no certificate in it")
    chain, rest = [own], [each for each in certificates if each is not own]
    while rest:
        issuer = next((each for each in rest if _has_issued(each, chain[-1])), None)
        if issuer is None:
            stranger = rest[0].subject.rfc4514_string()
            raise ConfigurationError(
                f"{path}: {stranger} is not in the chain above {own.subject.rfc4514_string()}"
            )
        chain.append(issuer)
        rest.remove(issuer)
    return chain


def _has_issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_usable(name: str, chain: list[x509.Certificate], key: FileKey) -> None:
    """Raise ConfigurationError for what a delegate would leave out."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from locum.authority import databases
    from locum.authority.client_identities import ClientIdentities

    certificates = tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)
    ClientIdentities((databases.Identity(name=name, certificates=certificates, key=key),))


def _warn_unfit(chain: list[x509.Certificate]) -> None:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    now = datetime.datetime.now(datetime.UTC)
    for certificate in chain:
        subject = certificate.subject.rfc4514_string()
        if certificate.not_valid_after_utc < now:
            warn(f"{subject} expired on {certificate.not_valid_after_utc:%Y-%m-%d}")
        if certificate.not_valid_before_utc > now:
            warn(f"{subject} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}")
    try:
        purposes = chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return
    useful = {
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
        ExtendedKeyUsageOID.IPSEC_IKE,
    }
    if not useful & set(purposes):
        subject = chain[0].subject.rfc4514_string()
        warn(f"{subject} is meant neither for TLS clients nor for IPsec (extendedKeyUsage)")


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
