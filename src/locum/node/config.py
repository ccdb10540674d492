"""The configuration of a node: every setting with its default and its bounds, read from locum.toml.

Never opens what it names. A node without a file runs on the defaults (X8).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from locum.errors import ConfigurationError
from locum.ike.algorithms import GROUPS as IKE_GROUPS
from locum.ike.algorithms import Group
from locum.names import COAP_PORT, DelegateAddress, HostPort
from locum.tls.operations import KeyForm
from locum.tls.registry import CIPHER_SUITES, NamedGroup, ProtocolVersion

#: The file in a data directory.
FILE_NAME = "locum.toml"
#: Largest configuration file in bytes.
FILE_LIMIT = 1024 * 1024
#: Most addresses that terminals may be told.
ADDRESSES_LIMIT = 16

_VERSIONS = {"1.2": ProtocolVersion.TLS_1_2, "1.3": ProtocolVersion.TLS_1_3}
_KEY_FORMS = {"secret": KeyForm.SECRET, "keys": KeyForm.KEYS}
_GROUPS = {group.name.lower(): group for group in NamedGroup}
_IKE_GROUPS = {group.name: group for group in IKE_GROUPS.values()}
_SUITES = {suite.name.lower(): suite.code for suite in CIPHER_SUITES.values()}


def _chosen(names: Iterable[Any], table: dict[str, Any], what: str) -> tuple[Any, ...]:
    """The code points of `names`, in order; ValueError for one that is unknown or there twice."""
    if not isinstance(names, list | tuple):
        raise ValueError(f"a list of {what} is needed")
    found: list[Any] = []
    for name in names:
        if not isinstance(name, str) or name.lower() not in table:
            raise ValueError(f"{str(name)[:60]!r} is not one of {', '.join(table)}")
        if table[name.lower()] in found:
            raise ValueError(f"{name!r} is there twice")
        found.append(table[name.lower()])
    return tuple(found)


def _endpoint(value: Any) -> Any:
    return _parsed(HostPort.parse, value) if isinstance(value, str) else value


def _address(value: Any) -> Any:
    return _parsed(DelegateAddress.parse, value) if isinstance(value, str) else value


def _parsed(parse: Any, text: str) -> Any:
    try:
        return parse(text)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None


Endpoint = Annotated[HostPort, BeforeValidator(_endpoint)]
Address = Annotated[DelegateAddress, BeforeValidator(_address)]
Versions = Annotated[
    tuple[ProtocolVersion, ...], BeforeValidator(lambda names: _chosen(names, _VERSIONS, "TLS versions"))
]
Groups = Annotated[tuple[int, ...], BeforeValidator(lambda names: _chosen(names, _GROUPS, "groups"))]
IkeGroups = Annotated[tuple[Group, ...], BeforeValidator(lambda names: _chosen(names, _IKE_GROUPS, "groups"))]
CipherSuites = Annotated[tuple[int, ...], BeforeValidator(lambda names: _chosen(names, _SUITES, "cipher suites"))]
KeyForms = Annotated[tuple[KeyForm, ...], BeforeValidator(lambda names: _chosen(names, _KEY_FORMS, "key forms"))]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)


class NodeSection(_Section):
    """[node]: where the databases are. Several nodes share one PostgreSQL, and one node key."""

    #: ``postgresql://USER:PASSWORD@HOST/NAME`` or ``sqlite:////absolute/file``; SQLite in the data directory if
    #: not given. It may carry a password, so it stays out of every `repr`.
    database: str | None = Field(default=None, min_length=1, max_length=2048, repr=False)


class DelegateSection(_Section):
    """[delegate]: where it listens, and how much it does for one terminal and for all."""

    #: CoAP over UDP and over TCP; port 0 takes a free one.
    listen: Endpoint = HostPort("127.0.0.1", COAP_PORT)
    #: The delegate's side of A4: plain CoAP is accepted here, and only here.
    secure_path_listen: Endpoint | None = None
    #: What credential files say, when terminals reach the delegate otherwise than by `listen`.
    addresses: Annotated[tuple[Address, ...], Field(max_length=ADDRESSES_LIMIT, strict=False)] = ()
    #: Seconds from the start of a session to its end.
    session_lifetime: float = Field(default=60.0, ge=1.0, le=3600.0)
    #: Sessions at once, of all terminals and of one.
    max_sessions: int = Field(default=10_000, ge=1, le=1_000_000)
    max_sessions_per_terminal: int = Field(default=64, ge=1, le=100_000)
    #: Requests of one terminal: per second in the long run, and at once after a rest.
    requests_per_second: float = Field(default=60.0, gt=0.0, le=1_000_000.0)
    request_burst: float = Field(default=240.0, ge=1.0, le=10_000_000.0)
    #: Largest datagram that is sent, in bytes: larger answers go in blocks (RFC 7959).
    datagram_size: int = Field(default=1280, ge=128, le=65_507)

    @model_validator(mode="after")
    def _differ(self) -> DelegateSection:
        if self.secure_path_listen == self.listen and self.listen.port != 0:
            raise ValueError("secure_path_listen must differ from listen")
        return self


class UpstreamSection(_Section):
    """[[keyserver.upstream]]: another key server, whose keys this one offers as its own (C7)."""

    #: The directory with the credential that this key server has as an edge of the other one.
    credential: Annotated[Path, Field(strict=False)]
    #: Which of the servers in the credential is asked: the first that is up, or the one with the least to do.
    policy: Literal["ordered", "least"] = "least"


class KeyServerSection(_Section):
    """[keyserver]: where it listens, which keys it has, and how much it does for one edge and for all.

    Limits are those of each of its processes.
    """

    #: The keyless protocol over TCP and TLS; without it there is no key server. Port 0 takes a free one.
    listen: Endpoint | None = None
    #: How edges reach it: for its certificate, and for the credentials of edges.
    addresses: Annotated[tuple[Endpoint, ...], Field(max_length=ADDRESSES_LIMIT, strict=False)] = ()
    #: One for each processor that the node may use, unless given.
    processes: int | None = Field(default=None, ge=1, le=1024)
    #: A directory with private keys in PEM, beside those in the database.
    key_directory: Annotated[Path | None, Field(strict=False)] = None
    #: Signatures over MD5 with SHA-1, SHA-1 and SHA-224, for clients that know nothing better.
    legacy_hashes: bool = False
    #: Requests of one edge per second in the long run, where its enrolment does not say otherwise.
    requests_per_second: float = Field(default=100_000.0, gt=0.0, le=10_000_000.0)
    #: Connections at once, and of these, such that have not said yet who they are.
    max_connections: int = Field(default=4096, ge=1, le=100_000)
    max_handshakes: int = Field(default=512, ge=1, le=100_000)
    #: Seconds for the TLS handshake, for the rest of a message that has begun, and without any message.
    handshake_seconds: float = Field(default=10.0, gt=0.0, le=300.0)
    message_seconds: float = Field(default=10.0, gt=0.0, le=300.0)
    idle_seconds: float = Field(default=600.0, gt=0.0, le=86_400.0)
    #: Seconds that operations in flight have to finish when the node ends.
    drain_seconds: float = Field(default=5.0, ge=0.0, le=300.0)
    #: Seconds between two looks at the databases: a change, such as an edge that is revoked, takes effect within.
    poll_seconds: float = Field(default=0.25, ge=0.05, le=60.0)
    upstream: Annotated[tuple[UpstreamSection, ...], Field(max_length=16, strict=False)] = ()


class TlsSection(_Section):
    """[tls]: what the delegate lets its terminals negotiate, the preferred first. Empty lists restrict nothing."""

    versions: Versions = ()
    groups: Groups = ()
    cipher_suites: CipherSuites = ()
    #: Who derives the record keys of TLS 1.2 (A7): "secret" the terminal, "keys" the delegate.
    key_forms: KeyForms = ()


class IkeSection(_Section):
    """[ike]: what the delegate lets its terminals negotiate in both versions of IKE."""

    #: Key exchanges, the preferred first, those of RFC 9370 among them; an empty list restricts nothing.
    groups: IkeGroups = ()
    #: SHA-1 with IKEv1, and RSA signatures over it with peers of IKEv2 that know nothing better.
    legacy_sha1: bool = False
    #: Sign with RSASSA-PSS where the peer knows RFC 7427; without it, with PKCS#1 v1.5.
    rsa_pss: bool = True

    @model_validator(mode="after")
    def _can_begin(self) -> IkeSection:
        if self.groups and all(group.additional_only for group in self.groups):
            raise ValueError("groups must have one for the first key exchange, as x25519")
        return self


class LogSection(_Section):
    """[log]: how much is written to standard error, and in which form."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Configuration(_Section):
    """A whole locum.toml."""

    node: NodeSection = NodeSection()
    delegate: DelegateSection = DelegateSection()
    keyserver: KeyServerSection = KeyServerSection()
    tls: TlsSection = TlsSection()
    ike: IkeSection = IkeSection()
    log: LogSection = LogSection()


def load(data_dir: Path, config_file: Path | None = None) -> Configuration:
    """Read `config_file`, or locum.toml in `data_dir` where there is one, else take the defaults.

    Raises: ConfigurationError with one line that names file and key.
    """
    path = config_file or data_dir / FILE_NAME
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        if config_file is None:
            return Configuration()
        raise ConfigurationError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    try:
        return parse(data)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def parse(data: bytes) -> Configuration:
    """Read the content of a configuration file. Raises: ConfigurationError, naming the key."""
    if len(data) > FILE_LIMIT:
        raise ConfigurationError(f"larger than {FILE_LIMIT} bytes")
    try:
        return Configuration.model_validate(tomllib.loads(data.decode()))
    except ValidationError as error:
        raise ConfigurationError(_first_fault(error)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"not TOML: {error}") from None
    except (ValueError, RecursionError):
        # Not UTF-8, a number without end, or brackets without end.
        raise ConfigurationError("not TOML") from None


def _first_fault(error: ValidationError) -> str:
    """The first fault as ``section.key: what is wrong``. Values are left out: one may hold a password."""
    fault = error.errors(include_url=False, include_context=True, include_input=False)[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{key}: no such setting"
    return f"{key}: {fault['msg'].removeprefix('Value error, ')}"
