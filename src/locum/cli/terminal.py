"""`locum terminal`: talk TLS or IPsec to a peer through a delegate, by hand or for another program.

Imports no database, no X.509 and no public-key code: a device without them runs this.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from locum.cli.output import note, warn
from locum.cli.steps import show_step
from locum.cli.terminal_ipsec import ipsec
from locum.errors import ConfigurationError, DecodeError, LocumError, Misbehaved, Unavailable
from locum.files import NoSuchFile, read_private, write_private
from locum.names import HostPort
from locum.terminal.blocking import connect_tls_blocking
from locum.terminal.channel import CONNECT_TIMEOUT
from locum.terminal.options import IDLE_TIMEOUT, MAXIMUM_CONNECTIONS, TlsOptions
from locum.terminal.steps import Observer, ignore, version_name
from locum.terminal.tls_socket import SocketTimedOut, TlsSocket
from locum.tls.registry import CIPHER_SUITES, NamedGroup, ProtocolVersion, group_name
from locum.tls.session import SessionInfo, SessionTicket

#: Bytes moved at once between the peer and standard input or output.
PIECE = 65_536

#: Seconds without a byte from the peer after our close_notify, until the connection is closed all the same.
CLOSE_WAIT = 10.0

#: Seconds between looks at whether that time is up.
TICK = 0.25

#: Largest ticket file in bytes.
TICKET_LIMIT = 131_072

_TICKET = "ticket file"
_VERSIONS = {"1.2": (ProtocolVersion.TLS_1_2,), "1.3": (ProtocolVersion.TLS_1_3,)}

app = typer.Typer(
    help="Talk TLS or IPsec to a peer through a delegate.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.command()(ipsec)

CredentialOption = Annotated[
    Path, typer.Option("--credential", metavar="FILE", help="The credential file from `locum enroll terminal`.")
]
ServerNameOption = Annotated[
    str, typer.Option("--server-name", metavar="N", help="The name that the peer must prove, if not HOST.")
]
AlpnOption = Annotated[
    str, typer.Option("--alpn", metavar="P,..", help="Application protocols to offer, the preferred first.")
]
TlsOption = Annotated[str, typer.Option("--tls", metavar="1.2|1.3", help="This version of TLS only.")]
GroupsOption = Annotated[
    str, typer.Option("--groups", metavar="G,..", help="Groups to offer, as X25519MLKEM768; else the delegate's.")
]
SuitesOption = Annotated[
    str, typer.Option("--cipher-suites", metavar="S,..", help="Cipher suites to offer, by their IANA names.")
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="For connecting, handshake included.")
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show every step on standard error.")]


@app.command()
def tls(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", show_default=False)],
    credential: CredentialOption,
    server_name: ServerNameOption = "",
    alpn: AlpnOption = "",
    version: TlsOption = "",
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="FILE", help="Resume with the ticket in FILE; the new one goes there."),
    ] = None,
    groups: GroupsOption = "",
    cipher_suites: SuitesOption = "",
    timeout: TimeoutOption = CONNECT_TIMEOUT,
    verbose: VerboseOption = False,
) -> None:
    """Standard input to the peer, the peer to standard output, as `openssl s_client` does.

    The end of standard input sends close_notify; what the peer still sends is read. Exit status 0 after an
    orderly end, 1 when the peer's stream was cut off; after our close_notify that is a warning only.
    """
    peer = HostPort.parse(address)
    options = tls_options(server_name, alpn, version, groups, cipher_suites, timeout)
    if resume is not None:
        options["ticket"] = _read_ticket(resume)
        options["on_ticket"] = lambda ticket: _keep_ticket(resume, ticket)
    observer: Observer = show_step if verbose else ignore
    with connect_tls_blocking(
        peer.host, peer.port, credential=credential, observer=observer, **options
    ) as session:
        note(f"connected to {peer}: {_describe(session.session)}")
        _Relay(session).run()


@app.command()
def proxy(
    listen: Annotated[
        str,
        typer.Option("--listen", metavar="ADDR:PORT", help="Where programs connect, in plaintext."),
    ],
    to: Annotated[str, typer.Option("--to", metavar="HOST:PORT", help="The TLS server.")],
    credential: CredentialOption,
    server_name: ServerNameOption = "",
    alpn: AlpnOption = "",
    version: TlsOption = "",
    groups: GroupsOption = "",
    cipher_suites: SuitesOption = "",
    timeout: TimeoutOption = CONNECT_TIMEOUT,
    max_connections: Annotated[
        int, typer.Option("--max-connections", metavar="N", min=1, help="Relayed at a time; others wait.")
    ] = MAXIMUM_CONNECTIONS,
    idle_timeout: Annotated[
        float,
        typer.Option("--idle-timeout", metavar="SECONDS", help="For a connection that carries nothing."),
    ] = IDLE_TIMEOUT,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Listen on an address that other machines can reach.")
    ] = False,
    verbose: VerboseOption = False,
) -> None:
    """Give unmodified programs on this device TLS through the delegate: they connect to ADDR:PORT in plaintext.

    Prints `ready ADDR:PORT` when it listens. SIGTERM and SIGINT end it in order.
    """
    # Loaded here, because `locum terminal tls` needs no event loop and starts faster without.
    from locum.cli.terminal_proxy import run_proxy
    from locum.terminal.proxy import ProxyOptions

    options = ProxyOptions(
        listen=HostPort.parse(listen),
        to=HostPort.parse(to),
        tls=tls_options(server_name, alpn, version, groups, cipher_suites, timeout),
        maximum_connections=max_connections,
        idle_timeout=idle_timeout,
        allow_remote=allow_remote,
    )
    run_proxy(options, credential, show_step if verbose else ignore)


def tls_options(
    server_name: str, alpn: str, version: str, groups: str, cipher_suites: str, timeout: float
) -> TlsOptions:
    """What the command line says of TLS; empty texts leave the default. Raises: ConfigurationError."""
    options = TlsOptions(timeout=timeout)
    if server_name:
        options["server_name"] = server_name
    if alpn:
        options["alpn"] = tuple(_words(alpn))
    if version:
        if version not in _VERSIONS:
            raise ConfigurationError(f"--tls {version!r}: give 1.2 or 1.3")
        options["versions"] = _VERSIONS[version]
    if groups:
        options["groups"] = tuple(_group(word) for word in _words(groups))
    if cipher_suites:
        options["cipher_suites"] = tuple(_suite(word) for word in _words(cipher_suites))
    return options


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _group(word: str) -> int:
    names = {group.name: int(group) for group in NamedGroup}
    if word.upper() not in names:
        raise ConfigurationError(f"--groups {word!r}: known are {', '.join(names)}")
    return names[word.upper()]


def _suite(word: str) -> int:
    codes = {suite.name: code for code, suite in CIPHER_SUITES.items()}
    if word.upper() not in codes:
        raise ConfigurationError(f"--cipher-suites {word!r}: known are {', '.join(codes)}")
    return codes[word.upper()]


# --- tickets ------------------------------------------------------------------------------------------------


def _read_ticket(path: Path) -> SessionTicket | None:
    """The ticket in `path`, or None when there is no file. Raises: ConfigurationError."""
    try:
        return SessionTicket.from_bytes(read_private(path, what=_TICKET, limit=TICKET_LIMIT))
    except NoSuchFile:
        return None
    except DecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def _keep_ticket(path: Path, ticket: SessionTicket) -> None:
    try:
        write_private(path, ticket.to_bytes(), what=_TICKET, replace=True)
    except LocumError as error:
        # The connection works without; only the next one cannot be resumed.
        warn(str(error))


# --- progress -----------------------------------------------------------------------------------------------


def _describe(session: SessionInfo) -> str:
    words = [version_name(session.version), session.cipher_suite.name]
    if session.group is not None:
        words.append(group_name(session.group))
    words.append(f"peer {session.peer_identity}")
    if session.alpn is not None:
        words.append(f"ALPN {session.alpn}")
    words += ["client certificate"] * session.client_authenticated + ["resumed"] * session.resumed
    return ", ".join(words)


# --- standard input and output ------------------------------------------------------------------------------


class _Relay:
    """Standard input to the peer in a thread of its own, the peer to standard output in the caller's."""

    def __init__(self, session: TlsSocket) -> None:
        self._session = session
        self._closed_at: float | None = None

    def run(self) -> None:
        """Until the peer ends its stream. Raises: LocumError when that was not in order."""
        threading.Thread(target=self._send, name="standard input", daemon=True).start()
        heard_at = time.monotonic()
        while True:
            try:
                data = self._session.recv_within(PIECE, TICK)
            except SocketTimedOut:
                if self._closed_at is not None and time.monotonic() - max(heard_at, self._closed_at) > CLOSE_WAIT:
                    note(f"closed: nothing came within {CLOSE_WAIT:g} s after the end of standard input")
                    return
                continue
            except (Misbehaved, Unavailable) as error:
                if self._closed_at is None:
                    raise
                # Many servers answer our close_notify by closing TCP and nothing else.
                warn(f"{error}; our side had been closed before")
                return
            if not data:
                return
            heard_at = time.monotonic()
            _write_all(1, data)

    def _send(self) -> None:
        # When the peer is gone, the receiving side finds out too, and says so.
        with contextlib.suppress(LocumError, OSError):
            while data := _read_piece(0):
                self._session.sendall(data)
            self._closed_at = time.monotonic()
            self._session.shutdown(socket.SHUT_WR)


def _read_piece(descriptor: int) -> bytes:
    """What there is to read, none at the end; a descriptor that was never open is at its end."""
    try:
        return os.read(descriptor, PIECE)
    except OSError:
        return b""


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            # Somebody else made our standard output non-blocking.
            select.select([], [descriptor], [])
