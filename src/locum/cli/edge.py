"""`locum edge`: terminate TLS for a plain backend, with private keys that are at a key server.

Never reads a key or a certificate itself: the edge's processes do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from locum.cli.output import announce
from locum.edge.certificate_files import CertificateFile
from locum.edge.proxy import IDLE_TIMEOUT, ProxyOptions, parse_backend
from locum.edge.service import CERTIFICATE_LIFETIME, EdgeOptions
from locum.edge.tls_server import HANDSHAKE_TIMEOUT, MAXIMUM_CONNECTIONS, Limits
from locum.edge.workers import RunOptions, run_edge
from locum.errors import ConfigurationError
from locum.keyless.registry import PORT
from locum.names import HostPort
from locum.node.logs import configure
from locum.tls.registry import ProtocolVersion

Policy = Literal["ordered", "least"]

#: The HTTPS port.
DEFAULT_PORT = 443

_VERSIONS = {"1.2": (ProtocolVersion.TLS_1_2,), "1.3": (ProtocolVersion.TLS_1_3,)}

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def edge(
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDR:PORT", help="Where clients connect; port 0 takes a free one.")
    ],
    backend: Annotated[
        str, typer.Option("--backend", metavar="ADDR:PORT", help="Where plaintext goes: HOST:PORT or unix:PATH.")
    ],
    credential: Annotated[
        Path | None,
        typer.Option("--credential", metavar="DIR", help="The directory that `locum enroll edge` has made."),
    ] = None,
    certificates: Annotated[
        list[Path] | None,
        typer.Option(
            "--cert",
            metavar="FILE",
            help="A certificate with its chain in PEM; again for others. The key server's are shown for all "
            "names that no file is for.",
        ),
    ] = None,
    ocsp: Annotated[
        list[Path] | None,
        typer.Option(
            "--ocsp",
            metavar="FILE",
            help="An OCSP response in DER for the --cert in the same place; else FILE.ocsp.",
        ),
    ] = None,
    own_keys: Annotated[
        list[Path] | None,
        typer.Option("--own-key", metavar="FILE", help="A private key in PEM that is here; again for others."),
    ] = None,
    key_servers: Annotated[
        list[str] | None,
        typer.Option(
            "--key-server", metavar="HOST:PORT", help="A key server, in place of those in the credential; again."
        ),
    ] = None,
    policy: Annotated[
        str,
        typer.Option(
            "--policy", metavar="ordered|least", help="The first key server that is up, or the least busy one."
        ),
    ] = "ordered",
    certificate_lifetime: Annotated[
        float,
        typer.Option(
            "--certificate-lifetime",
            metavar="SECONDS",
            min=0.0,
            help="The longest that a certificate of the key server is kept; 0 fetches it for each handshake.",
        ),
    ] = CERTIFICATE_LIFETIME,
    version: Annotated[str, typer.Option("--tls", metavar="1.2|1.3", help="This version of TLS only.")] = "",
    alpn: Annotated[
        str, typer.Option("--alpn", metavar="P,..", help="Application protocols, the preferred first.")
    ] = "",
    client_ca: Annotated[
        list[Path] | None,
        typer.Option(
            "--client-ca",
            metavar="FILE",
            help="Clients must show a certificate of these authorities, in PEM; again for others, or for CRLs.",
        ),
    ] = None,
    client_optional: Annotated[
        bool, typer.Option("--client-optional", help="With --client-ca: clients without a certificate may too.")
    ] = False,
    proxy_protocol: Annotated[
        bool,
        typer.Option("--proxy-protocol", help="Tell the backend who the client is: PROXY protocol, version 2."),
    ] = False,
    processes: Annotated[
        int, typer.Option("--processes", metavar="N", min=0, help="Processes; one for each core if not given.")
    ] = 0,
    max_connections: Annotated[
        int,
        typer.Option("--max-connections", metavar="N", min=1, help="At a time, for each process; others wait."),
    ] = MAXIMUM_CONNECTIONS,
    handshake_timeout: Annotated[
        float, typer.Option("--handshake-timeout", metavar="SECONDS", help="For a client's handshake.")
    ] = HANDSHAKE_TIMEOUT,
    idle_timeout: Annotated[
        float, typer.Option("--idle-timeout", metavar="SECONDS", help="For a connection that carries nothing.")
    ] = IDLE_TIMEOUT,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log every handshake that fails and why connections end.")
    ] = False,
) -> None:
    """Terminate TLS for a plain backend, with private keys that are at a key server.

    Prints `ready edge=ADDR:PORT` when it serves, and its log on standard error. SIGHUP reads certificates again;
    SIGTERM or Ctrl-C lets connections end, and ends it.
    """
    options = RunOptions(
        listen=HostPort.parse(listen, default_port=DEFAULT_PORT),
        edge=EdgeOptions(
            credential=credential,
            key_servers=tuple(HostPort.parse(each, default_port=PORT) for each in key_servers or ()),
            policy=_policy(policy),
            certificates=_certificates(certificates or [], ocsp or []),
            own_keys=tuple(own_keys or ()),
            certificate_lifetime=certificate_lifetime,
            alpn=tuple(word.strip() for word in alpn.split(",") if word.strip()),
            client_authorities=tuple(client_ca or ()),
            client_optional=client_optional,
            versions=_versions(version),
        ),
        proxy=ProxyOptions(
            backend=parse_backend(backend), proxy_protocol=proxy_protocol, idle_timeout=idle_timeout
        ),
        limits=Limits(maximum_connections=max_connections, handshake_timeout=handshake_timeout),
        processes=processes,
    )
    configure(level="info" if verbose else "warning", form="text")
    run_edge(options, announce=_announce)


def _announce(address: HostPort) -> None:
    # Whoever started the edge may have gone with its end of the pipe; clients are served all the same.
    try:
        announce(f"ready edge={address}")
    except OSError:
        return


def _policy(text: str) -> Policy:
    for policy in get_args(Policy):
        if text == policy:
            return policy  # type: ignore[no-any-return]
    raise ConfigurationError(f"--policy {text!r}: give ordered or least")


def _versions(text: str) -> tuple[ProtocolVersion, ...]:
    if not text:
        return (ProtocolVersion.TLS_1_3, ProtocolVersion.TLS_1_2)
    if text not in _VERSIONS:
        raise ConfigurationError(f"--tls {text!r}: give 1.2 or 1.3")
    return _VERSIONS[text]


def _certificates(files: list[Path], ocsp: list[Path]) -> tuple[CertificateFile, ...]:
    if len(ocsp) > len(files):
        raise ConfigurationError("--ocsp: more of them than --cert")
    responses = [*ocsp, *([None] * (len(files) - len(ocsp)))]
    return tuple(
        CertificateFile(certificate=file, ocsp=response) for file, response in zip(files, responses, strict=True)
    )
