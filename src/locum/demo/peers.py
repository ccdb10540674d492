"""Real TLS servers, unmodified, on loopback: OpenSSL's s_server, nginx, and an OpenSSL 4 in a process of its own.

Each takes the same `ServerOptions` and is a context manager. Nothing here knows that delegates exist (A11).
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from locum.demo.pki import Issued
from locum.demo.process import BackgroundProcess
from locum.demo.programs import require_program
from locum.errors import ConfigurationError, Unavailable

LOOPBACK = "127.0.0.1"
PAGE = b"It works, and the peer cannot tell.\n"
_ACCEPTING = re.compile(r"^ACCEPT \S*:(\d+)$", re.MULTILINE)
_LISTENING = re.compile(r"^listening (\d+)$", re.MULTILINE)
#: What each server calls the protocol versions.
_NGINX_VERSIONS = {"1.2": "TLSv1.2", "1.3": "TLSv1.3"}
_OPENSSL_VERSIONS = {"1.2": "-tls1_2", "1.3": "-tls1_3"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How a TLS server is to behave; names of suites and groups are OpenSSL's.

    certificates: one, or one RSA and one ECDSA. versions: any of "1.2", "1.3". ciphers: TLS 1.2 suites, colons
    between. suites: TLS 1.3 suites. groups: in the server's order. client_ca: ask for a client certificate
    from this authority (PEM file), and insist. ocsp_response: DER file to staple. tickets: session tickets.
    resume_without_dhe: TLS 1.3 resumption without a key exchange (psk_ke) is allowed and preferred.
    middlebox_compatibility: send the ChangeCipherSpec of RFC 8446 appendix D.4. record_size: largest
    record sent, in bytes. dhparam: PEM file for DHE. alpn: protocols to choose from. echo: send back
    what comes, instead of serving `pages` (file name to content) over HTTP.
    """

    certificates: tuple[Issued, ...]
    versions: tuple[str, ...] = ("1.2", "1.3")
    ciphers: str = ""
    suites: str = ""
    groups: str = ""
    signature_algorithms: str = ""
    client_ca: Path | None = None
    ocsp_response: Path | None = None
    tickets: bool = True
    resume_without_dhe: bool = False
    middlebox_compatibility: bool = True
    record_size: int = 0
    dhparam: Path | None = None
    alpn: tuple[str, ...] = ()
    echo: bool = False
    pages: Mapping[str, bytes] = field(default_factory=lambda: {"index.html": PAGE})

    def __post_init__(self) -> None:
        if not self.certificates or not self.versions or set(self.versions) - set(_NGINX_VERSIONS):
            raise ConfigurationError("a server needs a certificate, and versions among 1.2 and 1.3")


class Server(ABC):
    """A running server: `host` and `port` to connect to, `name` for people, `log` for failure messages."""

    host = LOOPBACK
    #: Options that this server cannot follow; asking for one is an error, not a surprise.
    unsupported: tuple[str, ...] = ()

    def __init__(self, name: str, directory: Path, options: ServerOptions) -> None:
        defaults = ServerOptions(certificates=options.certificates)
        for option in self.unsupported:
            if getattr(options, option) != getattr(defaults, option):
                raise ConfigurationError(f"{name} has no option {option}")
        self.name = name
        self.options = options
        self.directory = directory
        self.port = 0
        self._process: BackgroundProcess | None = None
        directory.mkdir(parents=True, exist_ok=True)
        for file_name, content in options.pages.items():
            (directory / file_name).write_bytes(content)

    @property
    def process(self) -> BackgroundProcess:
        """The process behind it; Unavailable when it was not started."""
        if self._process is None:
            raise Unavailable(f"{self.name} is not running")
        return self._process

    @property
    def log(self) -> str:
        """What the server has printed so far."""
        return "" if self._process is None else self._process.log

    @abstractmethod
    def start(self) -> Self:
        """Start it and wait until it accepts connections; Unavailable when it does not."""

    def stop(self) -> None:
        """End it. Stopping twice is harmless."""
        if self._process is not None:
            self._process.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class OpensslServer(Server):
    """`openssl s_server` of the operating system: one connection at a time, files over HTTP/1.0.

    With `echo` it sends each line back reversed. `interactive` gives its ordinary mode instead, in which
    `process.write` sends to the peer, and the lines b"k" and b"K" update keys, one-sided and both ways.
    """

    def __init__(
        self, directory: Path, options: ServerOptions, *, interactive: bool = False, extra: Sequence[str] = ()
    ) -> None:
        self._program = require_program("openssl")
        self._interactive = interactive
        self._extra = tuple(extra)
        super().__init__(f"openssl s_server {openssl_version(self._program)}", directory, options)

    def start(self) -> Self:
        self._process = BackgroundProcess(
            self.name,
            [self._program, "s_server", "-accept", f"{LOOPBACK}:0", *self._arguments(), *self._extra],
            log_path=self.directory / "s_server.log",
            ready=lambda log: _ACCEPTING.search(log) is not None,
            working_directory=self.directory,
        ).start()
        self.port = _port(_ACCEPTING, self.log)
        return self

    def _arguments(self) -> list[str | Path]:
        options = self.options
        arguments: list[str | Path] = []
        for certificate, prefix in zip(options.certificates, ("-", "-d"), strict=False):
            arguments += [f"{prefix}cert", certificate.chain, f"{prefix}key", certificate.key]
            arguments += [f"{prefix}cert_chain", certificate.chain]
        if len(options.versions) == 1:
            arguments.append(_OPENSSL_VERSIONS[options.versions[0]])
        else:
            arguments += ["-min_protocol", "TLSv1.2"]
        if options.client_ca is not None:
            arguments += ["-CAfile", options.client_ca, "-Verify", "3", "-verify_return_error"]
        if options.alpn:
            arguments += ["-alpn", ",".join(options.alpn)]
        arguments += [
            word
            for flag, value in (
                ("-cipher", options.ciphers),
                ("-ciphersuites", options.suites),
                ("-groups", options.groups),
                ("-sigalgs", options.signature_algorithms),
                ("-status_file", options.ocsp_response),
                ("-max_send_frag", str(options.record_size or "")),
                ("-dhparam", options.dhparam),
            )
            if value
            for word in (flag, value)
        ]
        flags = {
            "-no_ticket": not options.tickets,
            "-allow_no_dhe_kex": options.resume_without_dhe,
            "-no_middlebox": not options.middlebox_compatibility,
            "-rev": options.echo,
            "-WWW": not options.echo and not self._interactive,
        }
        return arguments + [flag for flag, wanted in flags.items() if wanted]


class NginxServer(Server):
    """nginx of the operating system, one worker, with its own configuration, on no port that anybody else has.

    It says in each answer's headers what it saw: X-Protocol, X-Cipher, X-Curve, X-Resumed, X-Client.
    """

    unsupported = ("echo", "resume_without_dhe", "middlebox_compatibility", "alpn", "signature_algorithms")

    def __init__(
        self,
        directory: Path,
        options: ServerOptions,
        *,
        extra: Sequence[str] = (),
        main: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        key: Callable[[Issued], str] = lambda issued: str(issued.key),
    ) -> None:
        """`extra` directives go into the server's block, `main` ones outside of every block; `key` says where each
        certificate's key is, in nginx's words.
        """
        self._program = require_program("nginx")
        self._extra = tuple(extra)
        self._main = tuple(main)
        self._environment = dict(environment or {})
        self._key = key
        super().__init__(f"nginx {nginx_version(self._program)}", directory, options)

    def start(self) -> Self:
        # nginx cannot tell which port it got, so it inherits a socket that already has one.
        with socket.create_server((LOOPBACK, 0), backlog=512) as listener:
            self.port = listener.getsockname()[1]
            configuration = self.directory / "nginx.conf"
            configuration.write_text(self._configuration(), encoding="utf-8")
            pid_file = self.directory / "nginx.pid"
            pid_file.unlink(missing_ok=True)
            log = self.directory / "nginx.log"
            self._process = BackgroundProcess(
                self.name,
                [self._program, "-p", self.directory, "-c", configuration, "-e", "stderr"],
                log_path=log,
                ready=lambda _: pid_file.exists() and pid_file.stat().st_size > 0,
                environment=self._environment | {"NGINX": f"{listener.fileno()};"},
                inherited=[listener.fileno()],
            ).start()
        return self

    def _configuration(self) -> str:
        options = self.options
        directives = [f"listen {LOOPBACK}:{self.port} ssl", f"root {self.directory}"]
        for certificate in options.certificates:
            directives += [
                f"ssl_certificate {certificate.chain}",
                f"ssl_certificate_key {self._key(certificate)}",
            ]
        directives.append("ssl_protocols " + " ".join(_NGINX_VERSIONS[version] for version in options.versions))
        directives.append(f"ssl_session_tickets {'on' if options.tickets else 'off'}")
        if options.client_ca is not None:
            directives += [
                f"ssl_client_certificate {options.client_ca}",
                "ssl_verify_client on",
                "ssl_verify_depth 3",
            ]
        if options.ocsp_response is not None:
            directives += ["ssl_stapling on", f"ssl_stapling_file {options.ocsp_response}"]
        directives += [
            f"{name} {value}"
            for name, value in (
                ("ssl_ciphers", options.ciphers),
                ("ssl_conf_command Ciphersuites", options.suites),
                ("ssl_ecdh_curve", options.groups),
                ("ssl_buffer_size", options.record_size),
                ("ssl_dhparam", options.dhparam),
            )
            if value
        ]
        directives += self._extra
        return _NGINX_CONFIGURATION.format(
            # A worker that gave up root could not read pages in a private directory.
            user="user root;" if os.geteuid() == 0 else "",
            main="\n".join(f"{each};" for each in self._main),
            directory=self.directory,
            directives="\n    ".join(f"{each};" for each in directives),
        )


_NGINX_CONFIGURATION = """\
{user}
{main}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
events {{ worker_connections 512; }}
http {{
  access_log {directory}/access.log;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    {directives}
    ssl_session_cache shared:peers:1m;
    add_header X-Protocol $ssl_protocol;
    add_header X-Cipher $ssl_cipher;
    add_header X-Curve $ssl_curve;
    add_header X-Resumed $ssl_session_reused;
    add_header X-Client $ssl_client_s_dn;
  }}
}}
"""


class Openssl4Server(Server):
    """The OpenSSL 4 inside the `cryptography` package, through pyOpenSSL, in a process of its own.

    It knows what older ones do not: ML-KEM hybrid groups and ML-DSA certificates.
    """

    unsupported = ("dhparam", "record_size", "middlebox_compatibility")

    def __init__(self, directory: Path, options: ServerOptions) -> None:
        super().__init__(f"OpenSSL {openssl4_version()} (pyOpenSSL)", directory, options)

    def start(self) -> Self:
        options = self.options
        settings = {
            "certificates": [[str(each.chain), str(each.key)] for each in options.certificates],
            "versions": options.versions,
            "ciphers": options.ciphers,
            "suites": options.suites,
            "groups": options.groups,
            "signature_algorithms": options.signature_algorithms,
            "client_ca": str(options.client_ca or ""),
            "ocsp_response": str(options.ocsp_response or ""),
            "tickets": options.tickets,
            "resume_without_dhe": options.resume_without_dhe,
            "alpn": options.alpn,
            "echo": options.echo,
        }
        self._process = BackgroundProcess(
            self.name,
            [sys.executable, "-m", "locum.demo.openssl4_server", json.dumps(settings)],
            log_path=self.directory / "openssl4.log",
            ready=lambda log: _LISTENING.search(log) is not None,
            working_directory=self.directory,
        ).start()
        self.port = _port(_LISTENING, self.log)
        return self


def openssl_version(program: Path) -> str:
    """The version of an openssl program, as in "3.0.19"; Unavailable when it does not say."""
    return _version([program, "version"], r"OpenSSL (\S+)")


def nginx_version(program: Path) -> str:
    """The version of an nginx program, as in "1.22.1"; Unavailable when it does not say."""
    return _version([program, "-v"], r"nginx/(\S+)")


def openssl4_version() -> str:
    """The version of the OpenSSL inside `cryptography`; Unavailable when pyOpenSSL is not installed."""
    try:
        from OpenSSL import SSL
    except ImportError:
        raise Unavailable("pyOpenSSL is not installed: pip install 'locum[demo]'") from None
    return SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode().split()[1]


def _version(command: Sequence[str | Path], pattern: str) -> str:
    done = subprocess.run(  # noqa: S603 - a program found by name, fixed words
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10, check=False
    )
    found = re.search(pattern, done.stdout)
    if found is None:
        raise Unavailable(f"{command[0]} does not tell its version")
    return found[1]


def _port(pattern: re.Pattern[str], log: str) -> int:
    found = pattern.search(log)
    assert found is not None
    return int(found[1])
