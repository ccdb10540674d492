"""`locum certificate`: certificates that the key server may hand to edges which have none of their own (C3).

Never needs the private key that belongs to one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from locum.cli.chains import chain_in, read_certificates, warn_unfit
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
from locum.cli.output import moment, note, print_list, say
from locum.errors import ConfigurationError, LocumError
from locum.names import check_name, normalize_dns_name
from locum.store import NewCertificate, ServedCertificate, Store

if TYPE_CHECKING:
    from cryptography import x509

app = new_app("Certificates that the key server may hand out.")

#: Largest file with an OCSP response in bytes; the store takes less.
OCSP_FILE_LIMIT = 64 * 1024

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As `locum certificate list` shows it.")]


@app.command("add")
def add_certificate(
    file: Annotated[Path, typer.Argument(metavar="FILE.pem", help="The certificate, and those above it.")],
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="What to call it; the file's name without its end if not given."
        ),
    ] = None,
    ocsp: Annotated[
        Path | None, typer.Option("--ocsp", metavar="FILE", help="An OCSP response in DER to staple to it.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of the one of this name.")
    ] = False,
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
) -> None:
    """Add a certificate, for the host names in its subjectAltName."""
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID

    from locum.crypto.asymmetric.certificates import public_key_of
    from locum.crypto.asymmetric.key_names import names_of

    chain = chain_in(file, read_certificates(file))
    response = b"" if ocsp is None else _ocsp_response(ocsp, chain)
    new = NewCertificate(
        name=_certificate_name(file.stem if name is None else name),
        names=_host_names(file, chain[0]),
        chain=tuple(certificate.public_bytes(Encoding.DER) for certificate in chain),
        ski=names_of(public_key_of(chain[0])).ski,
        not_after=min(certificate.not_valid_after_utc.timestamp() for certificate in chain),
        ocsp=response,
    )
    useful = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    warn_unfit(chain, useful, "for something else than TLS servers")
    with open_store(data, config_file, create=True) as store:
        added = store.certificates.add(new, actor=actor(), replace=replace)
        say(f"added certificate {added.name} for {', '.join(added.names)}")
        _note_next(store, added)


@app.command("ocsp")
def set_ocsp(
    name: NameArgument,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The OCSP response in DER; if not given, none any more.")
    ] = None,
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
) -> None:
    """Give a certificate a newer OCSP response to staple."""
    from cryptography import x509

    with open_store(data, config_file, create=False) as store:
        found = next((each for each in store.certificates.all() if each.name == name), None)
        if found is None:
            raise ConfigurationError(f"no certificate is called {name!r}; see: locum certificate list")
        chain = [x509.load_der_x509_certificate(certificate) for certificate in found.chain]
        store.certificates.set_ocsp(name, b"" if file is None else _ocsp_response(file, chain), actor=actor())
    say(f"certificate {name} has {'no' if file is None else 'another'} OCSP response")


@app.command("list")
def list_certificates(
    data: DataOption = DEFAULT_DATA, config_file: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List the certificates, and which keys they belong to."""
    with open_store(data, config_file, create=False) as store:
        keys = {key.ski: key.name for key in store.keys.all()}
        records = [_record(certificate, keys) for certificate in store.certificates.all()]
    print_list(
        records,
        ("name", "names", "key", "not_after", "certificates", "ocsp"),
        as_json=as_json,
        empty="no certificates; see: locum certificate add --help",
    )


@app.command("remove")
def remove_certificate(
    name: NameArgument, data: DataOption = DEFAULT_DATA, config_file: ConfigOption = None
) -> None:
    """Remove a certificate; its key stays."""
    with open_store(data, config_file, create=False) as store:
        store.certificates.remove(name, actor=actor())
    say(f"removed certificate {name}")


def _certificate_name(name: str) -> str:
    try:
        return check_name(name, "certificate's name")
    except LocumError as error:
        raise ConfigurationError(f"{error}; choose one with --name") from None


def _host_names(file: Path, leaf: x509.Certificate) -> tuple[str, ...]:
    """The DNS names, wildcards among them, and IP addresses that a certificate is for."""
    from locum.crypto.asymmetric.certificates import subject_of

    try:
        subject = subject_of(leaf)
        names = [
            ("*." if name.startswith("*.") else "") + normalize_dns_name(name.removeprefix("*."))
            for name in subject.dns_names
        ]
    except LocumError as error:
        raise ConfigurationError(f"{file}: {error}") from None
    # A name may be there twice.
    return tuple(dict.fromkeys((*names, *map(str, subject.addresses))))


def _ocsp_response(file: Path, chain: Sequence[x509.Certificate]) -> bytes:
    """The response in `file`, when it is good and about the first certificate of `chain`."""
    from locum.crypto.asymmetric.revocation import check_staple

    response = read_file(file, limit=OCSP_FILE_LIMIT)
    if len(chain) < 2:
        raise ConfigurationError(f"{file}: to check it, the issuer's certificate must be in the chain")
    try:
        until = min(check_staple(chain, response, now=time.time()), default=0.0)
    except LocumError as error:
        raise ConfigurationError(f"{file}: {error}") from None
    if not until:
        raise ConfigurationError(f"{file}: empty")
    note(f"the OCSP response is good until {moment(until)}")
    return response


def _note_next(store: Store, certificate: ServedCertificate) -> None:
    if certificate.ski not in {key.ski for key in store.keys.all()}:
        note(f"no key here belongs to it (ski {certificate.ski.hex()}); see: locum key import --help")
    elif not any(edge.certificates for edge in store.edges.all()):
        note("no edge may fetch it yet; see: locum enroll edge --help, option --certificate")


def _record(certificate: ServedCertificate, keys: dict[bytes, str]) -> Record:
    return {
        "name": certificate.name,
        "names": list(certificate.names),
        "key": keys.get(certificate.ski),
        "ski": certificate.ski.hex(),
        "not_after": moment(certificate.not_after),
        "certificates": len(certificate.chain),
        "ocsp": bool(certificate.ocsp),
        "added": moment(certificate.added),
    }
