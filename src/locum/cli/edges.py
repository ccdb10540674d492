"""`locum edges`: who may use private keys without having them, and how far (X3); and the options that say so.

Never talks to an edge: a key server heeds what is changed here at once, also on connections that are open.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from locum.cli.key import EVERY_KEY_WORD, find_key
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
from locum.names import check_name
from locum.node import config
from locum.store import Allow, Edge, EdgeRole, Permissions, Store
from locum.store.edges import EVERY_KEY, RATE_LIMIT

app = new_app("The edges that use private keys of the key server.")

KeyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="ID",
        help="A key that it may use, by its name or SKI; `all` is every one. The only key there is if not given.",
    ),
]
AllowOption = Annotated[
    Allow | None,
    typer.Option(
        "--allow",
        help="bound: only what is part of a TLS handshake; raw: whatever it brings, as OpenSSL's engine needs. "
        "New edges: bound.",
    ),
]
RoleOption = Annotated[
    EdgeRole | None, typer.Option("--role", help="Whose handshakes it may have signed. New edges: server.")
]
CertificateOption = Annotated[
    bool | None,
    typer.Option("--certificate/--no-certificate", help="Whether it may fetch certificates, too. New edges: no."),
]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--rate", min=0.0, max=RATE_LIMIT, help="Operations per second in the long run; 0 is the server's default."
    ),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As `locum edges list` shows it.")]


@app.command("list")
def list_edges(
    data: DataOption = DEFAULT_DATA, config_file: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List the edges, those that were revoked too."""
    with open_store(data, config_file, create=False) as store:
        edges = store.edges.all()
    now = time.time()
    print_list(
        [_record(edge, now) for edge in edges],
        ("name", "state", "allow", "role", "keys", "certificates", "rate", "not_after"),
        as_json=as_json,
        empty="no edges; see: locum enroll edge --help",
    )


@app.command("permit")
def permit_edge(
    name: NameArgument,
    key: KeyOption = None,
    allow: AllowOption = None,
    role: RoleOption = None,
    certificate: CertificateOption = None,
    rate: RateOption = None,
    data: DataOption = DEFAULT_DATA,
    config_file: ConfigOption = None,
) -> None:
    """Give an edge other permissions; what is not named stays, and so does its credential.

    With --key, the keys that are named come in the place of those before.
    """
    configuration = config.load(data, config_file)
    with open_store(data, config_file, create=False) as store:
        before = store.edges.get(name)
        if before is None:
            raise ConfigurationError(f"no edge is called {name!r}; see: locum edges list")
        permissions = changed_permissions(
            before,
            keys=chosen_keys(store, key, configuration) if key else None,
            allow=allow,
            roles=role,
            certificates=certificate,
            rate=rate,
        )
        edge = store.edges.permit(name, permissions, actor=actor())
    if not before.allow.raw:
        warn_of_raw(permissions)
    say(f"edge {name} may now: {described(edge)}")


@app.command("remove")
def remove_edge(name: NameArgument, data: DataOption = DEFAULT_DATA, config_file: ConfigOption = None) -> None:
    """Forget an edge, which is refused from then on."""
    with open_store(data, config_file, create=False) as store:
        store.edges.remove(name, actor=actor())
    say(f"removed edge {name}")


# --- what `locum enroll edge` needs too -------------------------------------------------------------------


def changed_permissions(
    before: Edge | Permissions,
    *,
    keys: tuple[str, ...] | None,
    allow: Allow | None,
    roles: EdgeRole | None,
    certificates: bool | None,
    rate: float | None,
) -> Permissions:
    """What was permitted before, but for what is given. Raises: as `Permissions`."""
    return Permissions(
        keys=before.keys if keys is None else keys,
        allow=before.allow if allow is None else allow,
        roles=before.roles if roles is None else roles,
        certificates=before.certificates if certificates is None else certificates,
        rate=before.rate if rate is None else rate,
    )


def chosen_keys(store: Store, named: list[str] | None, configuration: config.Configuration) -> tuple[str, ...]:
    """The names of the keys that are meant; without any, that of the only key there is.

    Raises: ConfigurationError when that is not clear, or there is no such key.
    """
    section = configuration.keyserver
    elsewhere = section.key_directory is not None or bool(section.upstream)
    if named:
        if EVERY_KEY_WORD in named or EVERY_KEY in named:
            return (EVERY_KEY,)
        return tuple(_key_named(store, name, elsewhere=elsewhere) for name in named)
    keys = store.keys.all()
    if len(keys) == 1 and not elsewhere:
        return (keys[0].name,)
    if not keys and not elsewhere:
        raise ConfigurationError("there is no private key yet; see: locum key import --help")
    raise ConfigurationError(
        f"say with --key ID which key the edge may use, or with --key {EVERY_KEY_WORD} every one; "
        "see: locum key list"
    )


def _key_named(store: Store, name: str, *, elsewhere: bool) -> str:
    """The name of the key that is meant by a name or SKI; what is not here may be `elsewhere`, under its name."""
    try:
        return find_key(store, name).name
    except ConfigurationError:
        if elsewhere:
            return check_name(name, "key's name")
        raise


def warn_of_raw(permissions: Permissions) -> None:
    """Warn where an edge may have signed whatever it likes."""
    if permissions.allow.raw:
        warn("with raw operations an edge can have anything signed or decrypted, TLS or not")


def described(edge: Edge) -> str:
    """What an edge may do, in words."""
    keys = "every key" if edge.keys == (EVERY_KEY,) else ", ".join(edge.keys) or "no key"
    roles = "TLS server and client" if edge.roles is EdgeRole.BOTH else f"TLS {edge.roles}"
    allowed = "bound and raw" if edge.allow is Allow.BOTH else str(edge.allow)
    certificates = ", and certificates" if edge.certificates else ""
    return f"{allowed} operations as {roles} with {keys}{certificates}"


def _record(edge: Edge, now: float) -> Record:
    expired = edge.not_after <= now
    return {
        "name": edge.name,
        "state": "revoked" if edge.revoked is not None else "expired" if expired else "enrolled",
        "allow": str(edge.allow),
        "role": str(edge.roles),
        "keys": [EVERY_KEY_WORD if key == EVERY_KEY else key for key in edge.keys],
        "certificates": edge.certificates,
        "rate": edge.rate or None,
        "fingerprint": edge.fingerprint,
        "not_after": moment(edge.not_after),
        "enrolled": moment(edge.created),
        "revoked": None if edge.revoked is None else moment(edge.revoked),
    }
