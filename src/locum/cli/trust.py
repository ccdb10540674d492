"""`locum trust`: trust anchors, pinned keys and CRLs, the authentication-key database of A5.

Looks into what it is given as far as to say what it is; whether a peer is authentic is decided elsewhere.
"""

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
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
)
from locum.cli.output import moment, print_list, say, warn
from locum.cli.pem import PemBlock, is_private_key, read_blocks
from locum.errors import ConfigurationError, LocumError
from locum.store import AuthenticationKey, AuthenticationKeyKind, NewKey, Store

if TYPE_CHECKING:
    from cryptography import x509

app = new_app("Trust anchors, pinned keys and CRLs: what the delegate verifies peers with.")

#: Hexadecimal digits of a fingerprint that are enough to name a key.
FINGERPRINT_PREFIX = 8


@app.command("add")
def add_trust(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE.pem...", help="CA certificates, one or many in a file; CRLs; what --pin pins."
        ),
    ],
    pin: Annotated[
        bool, typer.Option("--pin", help="Trust exactly this key, a certificate's or a bare one, without a CA.")
    ] = False,
    peer: Annotated[
        str | None,
        typer.Option("--peer", metavar="PATTERN", help="With --pin: the peers whose key it is, such as dns:NAME."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="With --pin: what to call it; the file's name if not."),
    ] = None,
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
) -> None:
    """Add trust anchors, a pinned key, or CRLs: what is in a file decides."""
    _quieten()
    if pin and (peer is None or len(files) != 1):
        raise ConfigurationError("--pin takes one file, and --peer PATTERN to say whose key it is")
    if not pin and (peer is not None or name is not None):
        raise ConfigurationError("--peer and --name go with --pin")
    blocks = [block for file in files for block in read_blocks(file)]
    with open_store(data, config_file, create=True) as store:
        if pin:
            new = [_pinned(blocks, name or _name_from(files[0]), peer or "")]
        else:
            known = store.trust.all()
            new = [_anchor_or_crl(block, known) for block in blocks]
        for key, added in store.trust.add(new, actor=actor()):
            say(f"{'added' if added else 'there already:'} {_described(key)}")
            _warn_validity(key)


@app.command("list")
def list_trust(
    data: DataOption = DEFAULT_DATA, config_file: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List what verifies peers."""
    _quieten()
    with open_store(data, config_file, create=False) as store:
        keys = store.trust.all()
    print_list(
        [_record(key) for key in keys],
        ("id", "kind", "name", "peer", "not_before", "not_after", "fingerprint"),
        as_json=as_json,
        empty="no trust anchors: no peer can be authenticated; see: locum trust add --help",
    )


@app.command("remove")
def remove_trust(
    references: Annotated[
        list[str],
        typer.Argument(
            metavar="ID|FINGERPRINT|FILE.pem...", help="As `locum trust list` shows it, or what was added."
        ),
    ],
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
) -> None:
    """Remove keys by id, by the first digits of the fingerprint, by a pinned key's name, or by the file."""
    _quieten()
    with open_store(data, config_file, create=False) as store:
        found = [key.id for reference in references for key in _find(store, reference)]
        for key in store.trust.remove(found, actor=actor()):
            say(f"removed {_described(key)}")


def _quieten() -> None:
    """Old roots have serial numbers that RFC 5280 forbids; the user can do nothing about the library's warning."""
    from cryptography.utils import CryptographyDeprecationWarning

    warnings.simplefilter("ignore", CryptographyDeprecationWarning)


# --- what is in a file ------------------------------------------------------------------------------------


def _anchor_or_crl(block: PemBlock, known: Sequence[AuthenticationKey]) -> NewKey:
    match block.label:
        case "CERTIFICATE":
            return _anchor(block)
        case "X509 CRL":
            return _crl(block, known)
        case "PUBLIC KEY":
            raise ConfigurationError(f"{block.where}: a bare public key is trusted only with --pin --peer PATTERN")
    raise _unfit(block)


def _anchor(block: PemBlock) -> NewKey:
    certificate = _certificate(block)
    name = certificate.subject.rfc4514_string()
    if not _is_authority(certificate):
        raise ConfigurationError(
            f"{block.where}: {name} is not a CA; to trust exactly this key add --pin --peer PATTERN"
        )
    return NewKey(kind=AuthenticationKeyKind.ANCHOR, name=name, der=_der(certificate))


def _crl(block: PemBlock, known: Sequence[AuthenticationKey]) -> NewKey:
    """A CRL, which replaces the older ones that the same key of the same issuer has signed."""
    from locum.crypto.asymmetric.revocation import load_crl

    try:
        crl = load_crl(block.data)
    except LocumError as error:
        raise ConfigurationError(f"{block.where}: {error}") from None
    der, name = _der(crl), crl.issuer.rfc4514_string()
    replaces: list[int] = []
    for key in known:
        if key.kind is not AuthenticationKeyKind.CRL or key.der == der:
            continue
        other = load_crl(key.der)
        if other.issuer == crl.issuer and _issuer_key(other) == _issuer_key(crl):
            if other.last_update_utc > crl.last_update_utc:
                raise ConfigurationError(f"{block.where}: a newer CRL of {name} is there already (id {key.id})")
            replaces.append(key.id)
    return NewKey(kind=AuthenticationKeyKind.CRL, name=name, der=der, replaces=tuple(replaces))


def _pinned(blocks: Sequence[PemBlock], name: str, peer: str) -> NewKey:
    from locum.crypto.asymmetric.certificates import load_public_key

    block = blocks[0]
    if block.label not in ("CERTIFICATE", "PUBLIC KEY"):
        raise _unfit(block)
    if len(blocks) > 1:
        raise ConfigurationError(
            f"{block.path}: --pin takes one certificate or public key, and there are {len(blocks)}"
        )
    try:
        return NewKey(kind=AuthenticationKeyKind.PIN, name=name, der=load_public_key(block.data), peer=peer)
    except LocumError as error:
        raise ConfigurationError(f"{block.path}: {error}") from None


def _unfit(block: PemBlock) -> ConfigurationError:
    if is_private_key(block):
        return ConfigurationError(
            f"{block.where}: a private key has no place here; give the certificate or the public key"
        )
    return ConfigurationError(f"{block.where}: {block.label} is not a certificate, a CRL or a public key")


def _certificate(block: PemBlock) -> x509.Certificate:
    from locum.crypto.asymmetric.certificates import load_anchors

    try:
        return load_anchors(block.data)[0]
    except LocumError as error:
        raise ConfigurationError(f"{block.where}: {error}") from None


def _is_authority(certificate: x509.Certificate) -> bool:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False


def _issuer_key(crl: x509.CertificateRevocationList) -> bytes | None:
    from cryptography import x509

    try:
        return crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return None


def _der(item: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return item.public_bytes(Encoding.DER)


def _name_from(path: Path) -> str:
    """A pinned key's name from its file's: what a name cannot have becomes a hyphen."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._") or "pin"


# --- what is in the store ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Validity:
    begin: datetime.datetime | None = None
    end: datetime.datetime | None = None


def _validity(key: AuthenticationKey) -> _Validity:
    from cryptography import x509

    if key.kind is AuthenticationKeyKind.ANCHOR:
        certificate = x509.load_der_x509_certificate(key.der)
        return _Validity(certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    if key.kind is AuthenticationKeyKind.CRL:
        crl = x509.load_der_x509_crl(key.der)
        return _Validity(crl.last_update_utc, crl.next_update_utc)
    return _Validity()


def _described(key: AuthenticationKey) -> str:
    validity = _validity(key)
    parts = [f"{key.kind} {key.id}: {key.name}"]
    if key.peer:
        parts.append(f"for {key.peer}")
    if validity.begin and validity.end:
        parts.append(f"valid {validity.begin:%Y-%m-%d} to {validity.end:%Y-%m-%d}")
    return ", ".join([*parts, f"sha256:{key.fingerprint}"])


def _warn_validity(key: AuthenticationKey) -> None:
    validity, now = _validity(key), datetime.datetime.now(datetime.UTC)
    if validity.end is not None and validity.end < now:
        warn(f"{key.name} expired on {validity.end:%Y-%m-%d}")
    if validity.begin is not None and validity.begin > now:
        warn(f"{key.name} is not valid before {validity.begin:%Y-%m-%d}")


def _record(key: AuthenticationKey) -> Record:
    validity = _validity(key)
    return {
        "id": key.id,
        "kind": str(key.kind),
        "name": key.name,
        "peer": key.peer,
        "not_before": validity.begin and moment(validity.begin.timestamp()),
        "not_after": validity.end and moment(validity.end.timestamp()),
        "fingerprint": key.fingerprint,
        "added": moment(key.added),
    }


def _find(store: Store, reference: str) -> list[AuthenticationKey]:
    """The keys that `reference` names: all in a file, or one by id, name or fingerprint."""
    known = store.trust.all()
    path = Path(reference)
    if path.suffix and path.is_file():
        ders = {der for block in read_blocks(path) for der in _possible_ders(block)}
        found = [key for key in known if key.der in ders]
        if not found:
            raise ConfigurationError(f"{path}: nothing in it was added; see: locum trust list")
        return found
    prefix = reference.lower().removeprefix("sha256:").replace(":", "")
    found = [
        key
        for key in known
        if reference == str(key.id)
        or (key.kind is AuthenticationKeyKind.PIN and key.name == reference)
        or (len(prefix) >= FINGERPRINT_PREFIX and key.fingerprint.startswith(prefix))
    ]
    if len(found) != 1:
        fault = "several keys have" if found else "no key has"
        raise ConfigurationError(f"{fault} the id, name or fingerprint {reference!r}; see: locum trust list")
    return found


def _possible_ders(block: PemBlock) -> list[bytes]:
    """What a block may have been kept as: itself, or the public key in it when it was pinned."""
    from locum.crypto.asymmetric.certificates import load_public_key
    from locum.crypto.asymmetric.revocation import load_crl

    if block.label == "CERTIFICATE":
        return [_der(_certificate(block)), load_public_key(block.data)]
    if block.label == "X509 CRL":
        return [_der(load_crl(block.data))]
    if block.label == "PUBLIC KEY":
        return [load_public_key(block.data)]
    raise _unfit(block)
