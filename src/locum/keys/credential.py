"""An edge's credential: a directory with its certificate and key, an authority to trust, and key servers (C6).

Never knows how the directory came to the edge, nor what it may be used for.
"""

from __future__ import annotations

import contextlib
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from locum.errors import ConfigurationError, Unavailable
from locum.files import FileThere, read_private, write_private
from locum.keyless.registry import PORT
from locum.names import HostPort, check_name, normalize_dns_name

#: The files of a credential.
CREDENTIAL_FILE = "credential.toml"
CERTIFICATE_FILE = "certificate.pem"
KEY_FILE = "key.pem"
AUTHORITY_FILE = "ca.pem"
#: Largest of them, in bytes.
FILE_LIMIT = 64 * 1024
#: Most key servers in one credential.
SERVERS_LIMIT = 16

_FIELDS = {"name", "server_name", "servers"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeCredential:
    """Who an edge is to its key servers, and who they must be.

    `certificate` is the edge's chain and `ca` the authority of the key servers' certificates, which are for
    `server_name`; both in PEM, as `key`. `servers` are in the order in which they are preferred. `directory` is
    where it was read from or written to.
    """

    name: str
    server_name: str
    servers: tuple[HostPort, ...]
    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)
    ca: bytes = field(repr=False)
    directory: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_name(self.name, "edge's name")
        if normalize_dns_name(self.server_name) != self.server_name:
            raise ConfigurationError("server_name is a DNS name in lower case")
        if not 1 <= len(self.servers) <= SERVERS_LIMIT:
            raise ConfigurationError(f"a credential names 1 to {SERVERS_LIMIT} key servers")
        if len(set(self.servers)) != len(self.servers):
            raise ConfigurationError("a key server is in the credential twice")
        if any(server.port == 0 for server in self.servers):
            raise ConfigurationError("servers: port 0 cannot be reached")

    @classmethod
    def load(cls, directory: Path) -> EdgeCredential:
        """Read a credential. Raises: ConfigurationError, naming file and field; its key must be private."""
        path = directory / CREDENTIAL_FILE
        table = _parse(_read(path), path)
        certificate, ca = (_read(directory / name) for name in (CERTIFICATE_FILE, AUTHORITY_FILE))
        key = read_private(directory / KEY_FILE, what="key of a credential", limit=FILE_LIMIT)
        try:
            return cls(
                name=_string(table, "name"),
                server_name=_string(table, "server_name"),
                servers=_servers(table.get("servers")),
                certificate=certificate,
                key=key,
                ca=ca,
                directory=directory,
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from None

    def write(self, directory: Path, *, replace: bool = False) -> EdgeCredential:
        """Write the files, every one of mode 0600, into `directory`, which is made if need be.

        Returns this credential with its directory. Raises: FileThere when there is one already and not `replace`;
        Unavailable when it cannot be written.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"{directory}: the directory cannot be made: {error.strerror}") from None
        if not replace and (directory / CREDENTIAL_FILE).exists():
            raise FileThere(f"{directory / CREDENTIAL_FILE}: the credential exists already")
        # The file that makes it a credential comes last: what is half written is none.
        for name, data in (
            (KEY_FILE, self.key),
            (CERTIFICATE_FILE, self.certificate),
            (AUTHORITY_FILE, self.ca),
            (CREDENTIAL_FILE, self.render()),
        ):
            write_private(directory / name, data, what="file of a credential", replace=replace)
        return EdgeCredential(
            name=self.name,
            server_name=self.server_name,
            servers=self.servers,
            certificate=self.certificate,
            key=self.key,
            ca=self.ca,
            directory=directory,
        )

    def render(self) -> bytes:
        """The content of credential.toml. No value in it needs quoting beyond its quotation marks."""
        servers = ", ".join(f'"{server}"' for server in self.servers)
        lines = (
            "# locum: the credential of one edge, with certificate.pem, key.pem and ca.pem beside it.",
            f'name = "{self.name}"',
            f'server_name = "{self.server_name}"',
            f"servers = [{servers}]",
            "",
        )
        return "\n".join(lines).encode()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file; a credential is made by: locum enroll edge") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > FILE_LIMIT:
        raise ConfigurationError(f"{path}: larger than {FILE_LIMIT} bytes")
    return data


def _parse(data: bytes, path: Path) -> dict[str, Any]:
    table: dict[str, Any] = {}
    # Not UTF-8, not TOML, a number without end, or brackets without end.
    with contextlib.suppress(ValueError, RecursionError):
        table = tomllib.loads(data.decode())
    if not table:
        raise ConfigurationError(f"{path}: not TOML, or empty")
    unknown = sorted(set(table) - _FIELDS)
    if unknown:
        raise ConfigurationError(f"{path}: {unknown[0]!r} is not known here")
    return table


def _string(table: dict[str, Any], name: str) -> str:
    value = table.get(name)
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} is missing" if value is None else f"{name} is not a string")
    return value


def _servers(value: Any) -> tuple[HostPort, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ConfigurationError("servers is a list of HOST:PORT")
    return tuple(HostPort.parse(each, default_port=PORT) for each in value)
