"""`locum enroll edge`: an edge's client certificate, and what it may have done with which private keys (X3).

Never prints a key, and never leaves an edge enrolled whose credential could not be written.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from locum.cli.edges import (
    AllowOption,
    CertificateOption,
    KeyOption,
    RateOption,
    RoleOption,
    changed_permissions,
    chosen_keys,
    described,
    warn_of_raw,
)
from locum.cli.options import DEFAULT_DATA, ConfigOption, DataOption, actor, open_store
from locum.cli.output import note, say
from locum.errors import ConfigurationError
from locum.keyless.registry import PORT
from locum.keys.credential import AUTHORITY_FILE, CERTIFICATE_FILE, CREDENTIAL_FILE, KEY_FILE, EdgeCredential
from locum.keys.link_pki import DAY, EDGE_LIFETIME, SERVER_NAME, Issued, LinkIssuer, new_authority, pem_of
from locum.names import HostPort
from locum.node import config
from locum.store import Edge, LinkAuthority, Permissions, Store

#: What a credential consists of.
FILES = (CREDENTIAL_FILE, CERTIFICATE_FILE, KEY_FILE, AUTHORITY_FILE)
DEFAULT_DAYS = EDGE_LIFETIME // DAY


def enroll_edge(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the edge is called, in permissions and logs.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where to write its credential; made if need be.")
    ],
    key: KeyOption = None,
    allow: AllowOption = None,
    role: RoleOption = None,
    certificate: CertificateOption = None,
    rate: RateOption = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            "--server",
            metavar="HOST:PORT",
            help="Where the edge reaches this key server; several are used as one. "
            "From the configuration if not given.",
        ),
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, help="How long its certificate is good.")] = DEFAULT_DAYS,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Give an edge that is enrolled a new certificate; the old one ends. What is not named stays.",
        ),
    ] = False,
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
) -> None:
    """Enroll an edge: a TLS server or PKCS#11 agent without private keys. Its credential goes into DIR."""
    configuration = config.load(data, config_file)
    before = _existing(out, name, replace=replace)
    servers = _servers(server, before, configuration)
    with open_store(data, config_file, create=True) as store:
        enrolled = store.edges.get(name) if replace else None
        permissions = changed_permissions(
            enrolled or Permissions(keys=chosen_keys(store, key, configuration)),
            keys=chosen_keys(store, key, configuration) if key else None,
            allow=allow,
            roles=role,
            certificates=certificate,
            rate=rate,
        )
        edge = _enroll(store, name, out, before, servers, permissions, lifetime=days * DAY, replace=replace)
        warn_of_raw(permissions)
        say(f"enrolled edge {name} ({described(edge)})")
        say(f"wrote {out} for {', '.join(map(str, servers))}")
        if before is None:
            note(f"next, on the edge: {_next_command(out, permissions)}")


def _next_command(out: Path, permissions: Permissions) -> str:
    if permissions.roles.server and permissions.allow.bound:
        return f"locum edge --credential {out} --listen ADDR:PORT --backend ADDR:PORT"
    return f"locum pkcs11 --credential {out} --socket PATH"


def _enroll(
    store: Store,
    name: str,
    out: Path,
    before: EdgeCredential | None,
    servers: tuple[HostPort, ...],
    permissions: Permissions,
    *,
    lifetime: float,
    replace: bool,
) -> Edge:
    now = time.time()
    authority = store.internal.link_authority(lambda: new_authority(now=now), actor=actor())
    issued = LinkIssuer(authority.certificate, authority.private_key).edge(name, now=now, lifetime=lifetime)
    credential = _credential(name, servers, issued, authority)
    kept = {path for path in (out, *(out / name for name in FILES)) if path.exists()}

    def deliver(_: Edge) -> None:
        credential.write(out, replace=before is not None)

    try:
        return store.edges.enroll(
            name,
            fingerprint=issued.fingerprint,
            not_after=issued.not_after,
            permissions=permissions,
            actor=actor(),
            replace=replace,
            deliver=deliver,
        )
    except BaseException:
        _put_back(out, before, kept)
        raise


def _credential(
    name: str, servers: tuple[HostPort, ...], issued: Issued, authority: LinkAuthority
) -> EdgeCredential:
    return EdgeCredential(
        name=name,
        server_name=SERVER_NAME,
        servers=servers,
        certificate=issued.certificate_pem,
        key=issued.private_key_pem,
        ca=pem_of(authority.certificate),
    )


def _existing(out: Path, name: str, *, replace: bool) -> EdgeCredential | None:
    """The credential to replace, or None without one. Raises: ConfigurationError when DIR is in the way."""
    if out.exists() and not out.is_dir():
        raise ConfigurationError(f"{out} exists already and is not a directory")
    if not (out / CREDENTIAL_FILE).exists():
        return None
    if not replace:
        raise ConfigurationError(f"{out} has a credential already; --replace puts a new one in its place")
    before = EdgeCredential.load(out)
    if before.name != name:
        raise ConfigurationError(f"{out} has the credential of {before.name!r}, not of {name!r}")
    return before


def _servers(
    named: list[str] | None, before: EdgeCredential | None, configuration: config.Configuration
) -> tuple[HostPort, ...]:
    """Where the key servers are: as named, as in the credential that is replaced, or as configured."""
    if named:
        return tuple(HostPort.parse(text, default_port=PORT) for text in named)
    if before is not None:
        return before.servers
    section = configuration.keyserver
    servers = section.addresses or (() if section.listen is None else (section.listen,))
    if not servers or not all(server.reachable for server in servers):
        raise ConfigurationError(
            "say with --server HOST:PORT where the edge reaches the key server, "
            "or with addresses in [keyserver] of locum.toml"
        )
    return tuple(servers)


def _put_back(out: Path, before: EdgeCredential | None, kept: set[Path]) -> None:
    """Undo the writing of a credential that does not hold: of what is there now, only `kept` was there before."""
    if before is not None:
        before.write(out, replace=True)
        return
    for path in (out / name for name in FILES):
        if path not in kept:
            path.unlink(missing_ok=True)
    if out not in kept and out.exists():
        out.rmdir()
