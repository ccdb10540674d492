"""What unmodified servers have to be told to use a key through the agent: their settings, file by file.

Knows programs and distributions, and no key: a stub of a private key holds the address of one and no secret.
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from locum.errors import ConfigurationError

#: Where distributions put p11-kit's client module, OpenSSL's engine and OpenSSL's provider for PKCS#11.
_CLIENT = "usr/lib*/*/pkcs11/p11-kit-client.so"
_ENGINE = "usr/lib*/*/engines-*/pkcs11.so"
_PROVIDER = "usr/lib*/*/ossl-modules/pkcs11.so"
#: ... and where they are when nothing is installed here.
_DEFAULT_DIRECTORY = "/usr/lib/x86_64-linux-gnu"

#: The label of the token that the agent shows.
_TOKEN = "locum"  # noqa: S105 - a name
#: The type of PEM, and the string (VisibleString) before the address, that pkcs11-provider takes for a key.
_STUB_LABEL = "PKCS#11 PROVIDER URI"
_STUB_VERSION = b"PKCS#11 Provider URI v1.0"
_LINE = 64


class Program(StrEnum):
    """The programs that there are settings for."""

    NGINX = "nginx"
    APACHE = "apache"
    HAPROXY = "haproxy"
    POSTGRESQL = "postgresql"
    GNUTLS = "gnutls"
    JAVA = "java"
    OPENSSL = "openssl"


class Stack(StrEnum):
    """How OpenSSL gets to a PKCS#11 module: an engine (Debian 12), or a provider (Debian 13 and later)."""

    ENGINE = "engine"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True, kw_only=True)
class Modules:
    """Where p11-kit's client module is, and what OpenSSL loads it with."""

    client: str
    engine: str
    provider: str

    @classmethod
    def installed(cls) -> Modules:
        """Those of this machine; the usual places for what is not here."""
        return cls(
            client=_found(_CLIENT) or f"{_DEFAULT_DIRECTORY}/pkcs11/p11-kit-client.so",
            engine=_found(_ENGINE) or f"{_DEFAULT_DIRECTORY}/engines-3/pkcs11.so",
            provider=_found(_PROVIDER) or f"{_DEFAULT_DIRECTORY}/ossl-modules/pkcs11.so",
        )


def installed_stack() -> Stack:
    """The engine where it is installed and the provider is not; else the provider."""
    return Stack.ENGINE if _found(_ENGINE) and not _found(_PROVIDER) else Stack.PROVIDER


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file: what it is called, what it is for, and what goes into it."""

    name: str
    purpose: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What the settings are for: the agent's socket, the name of a key, a directory for the files."""

    socket: Path
    key: str
    directory: Path = Path("/etc/locum")
    modules: Modules

    @property
    def uri(self) -> str:
        """The key's address (RFC 7512)."""
        return f"pkcs11:token={_TOKEN};object={_escaped(self.key)};type=private"

    @property
    def address(self) -> str:
        """The agent's address, as p11-kit reads it."""
        return f"unix:path={self.socket}"


def settings_for(program: Program, stack: Stack, use: Use) -> tuple[Part, ...]:
    """The files that `program` needs.

    Raises: ConfigurationError where the program cannot use a key with this stack.
    """
    return _SETTINGS[program](stack, use)


def show(parts: tuple[Part, ...]) -> str:
    """All parts as one text for people."""
    return "\n".join(f"# --- {part.name}: {part.purpose}\n{part.content}" for part in parts)


def key_stub(uri: str) -> str:
    """What stands for the private key at `uri` in a PEM file, for pkcs11-provider."""
    address = uri.encode()
    # Two strings in a sequence; the lengths are below 2^16, in their shortest form.
    content = b"\x1a" + _length(_STUB_VERSION) + _STUB_VERSION + b"\x0c" + _length(address) + address
    body = base64.b64encode(b"\x30" + _length(content) + content).decode()
    lines = "\n".join(textwrap.wrap(body, _LINE))
    return f"-----BEGIN {_STUB_LABEL}-----\n{lines}\n-----END {_STUB_LABEL}-----\n"


# --- parts that several programs have ---------------------------------------------------------------------


def openssl_configuration(stack: Stack, use: Use) -> Part:
    """The file OPENSSL_CONF, with which OpenSSL loads p11-kit's client module."""
    if stack is Stack.ENGINE:
        content = f"""\
openssl_conf = locum
[locum]
engines = engines
[engines]
pkcs11 = pkcs11
[pkcs11]
engine_id = pkcs11
dynamic_path = {use.modules.engine}
MODULE_PATH = {use.modules.client}
init = 0
"""
    else:
        content = f"""\
openssl_conf = locum
[locum]
providers = providers
[providers]
default = builtin
pkcs11 = pkcs11
[builtin]
activate = 1
[pkcs11]
module = {use.modules.provider}
pkcs11-module-path = {use.modules.client}
pkcs11-module-quirks = no-deinit no-operation-state
pkcs11-module-cache-pins = cache
activate = 1
"""
    return Part(name="openssl.cnf", purpose=f"put it into {use.directory}", content=content)


def _environment(use: Use, *, openssl: bool = True, preload: bool = False) -> Part:
    lines = [f"P11_KIT_SERVER_ADDRESS={use.address}"]
    if preload:
        lines.append(f"LD_PRELOAD={use.modules.client}")
    if openssl:
        lines.append(f"OPENSSL_CONF={use.directory}/openssl.cnf")
    return Part(
        name="environment",
        purpose="of the program; for a systemd service as EnvironmentFile= in its drop-in",
        content="\n".join(lines) + "\n",
    )


def _stub(use: Use) -> Part:
    return Part(
        name="key.pem",
        purpose=f"put it into {use.directory}; it is the address of the key and no secret",
        content=key_stub(use.uri),
    )


def _key_reference(stack: Stack, use: Use) -> str:
    return use.uri if stack is Stack.ENGINE else f"{use.directory}/key.pem"


def _with_stub(stack: Stack, use: Use, *parts: Part) -> tuple[Part, ...]:
    stub = () if stack is Stack.ENGINE else (_stub(use),)
    return (openssl_configuration(stack, use), *stub, *parts, _environment(use))


# --- programs ---------------------------------------------------------------------------------------------


def nginx_main(stack: Stack) -> tuple[str, ...]:
    """nginx's directives outside of every block."""
    engine = ("ssl_engine pkcs11",) if stack is Stack.ENGINE else ()
    return ("env P11_KIT_SERVER_ADDRESS", "env OPENSSL_CONF", *engine)


def nginx_key(stack: Stack, use: Use) -> str:
    """What nginx is told in place of a key file."""
    return f'"engine:pkcs11:{use.uri}"' if stack is Stack.ENGINE else f"{use.directory}/key.pem"


def _nginx(stack: Stack, use: Use) -> tuple[Part, ...]:
    main = Part(
        name="nginx-main.conf",
        purpose="at the top of nginx.conf, outside of every block",
        content="".join(f"{each};\n" for each in nginx_main(stack)),
    )
    server = Part(
        name="nginx-server.conf",
        purpose="in the server block, beside ssl_certificate",
        content=f"ssl_certificate_key {nginx_key(stack, use)};\n",
    )
    return _with_stub(stack, use, main, server)


def _apache(stack: Stack, use: Use) -> tuple[Part, ...]:
    device = "SSLCryptoDevice pkcs11\n" if stack is Stack.ENGINE else ""
    main = Part(
        name="apache-main.conf", purpose="outside of every block", content=device or "# nothing is needed here\n"
    )
    host = Part(
        name="apache-host.conf",
        purpose="in the VirtualHost, beside SSLCertificateFile",
        content=f'SSLCertificateKeyFile "{_key_reference(stack, use)}"\n',
    )
    return _with_stub(stack, use, main, host)


def _haproxy(stack: Stack, use: Use) -> tuple[Part, ...]:
    _need_provider(stack, "HAProxy reads private keys from PEM files only")
    bind = Part(
        name="haproxy.cfg",
        purpose="a frontend; key.pem goes beside the certificate, as its name with .key",
        content=f"""\
frontend https
    bind :443 ssl crt {use.directory}/certificate.pem
    # {use.directory}/certificate.pem.key is key.pem from above
""",
    )
    # HAProxy 3.0 aborts when the module is loaded later, by the provider.
    return openssl_configuration(stack, use), _stub(use), bind, _environment(use, preload=True)


def _postgresql(stack: Stack, use: Use) -> tuple[Part, ...]:
    client = Part(
        name="libpq",
        purpose="a client whose key is at the key server, in its connection string",
        content=f"sslkey='{f'pkcs11:{use.uri}' if stack is Stack.ENGINE else f'{use.directory}/key.pem'}'\n",
    )
    if stack is Stack.ENGINE:
        server = "# The server reads private keys from PEM files only: it needs pkcs11-provider (Debian 13).\n"
    else:
        server = f"ssl = on\nssl_key_file = '{use.directory}/key.pem'\n"
    part = Part(name="postgresql.conf", purpose="the server, beside ssl_cert_file", content=server)
    return _with_stub(stack, use, part, client)


def _gnutls(stack: Stack, use: Use) -> tuple[Part, ...]:
    module = Part(
        name="locum.module",
        purpose="put it into /etc/pkcs11/modules, or a user's ~/.config/pkcs11/modules",
        content=f"remote: {use.address}\n",
    )
    command = Part(name="command", purpose="for example", content=f"gnutls-serv --x509keyfile '{use.uri}'\n")
    return module, command


def _java(stack: Stack, use: Use) -> tuple[Part, ...]:
    provider = Part(
        name="pkcs11.cfg",
        purpose="the configuration of the SunPKCS11 provider",
        content=f"name = {_TOKEN}\nlibrary = {use.modules.client}\n",
    )
    keystore = Part(
        name="java",
        purpose="the key store; start the agent with --certificate, for Java looks for certificates there too",
        content=f"""\
keytool -addprovider SunPKCS11 -providerarg {use.directory}/pkcs11.cfg -storetype PKCS11 -keystore NONE -list
-Djavax.net.ssl.keyStoreType=PKCS11 -Djavax.net.ssl.keyStore=NONE
""",
    )
    return provider, keystore, _environment(use, openssl=False)


def _openssl_commands(stack: Stack, use: Use) -> tuple[Part, ...]:
    if stack is Stack.ENGINE:
        commands = f"""\
openssl s_server -engine pkcs11 -keyform engine -key '{use.uri}' -cert certificate.pem
openssl s_client -engine pkcs11 -keyform engine -key '{use.uri}' -cert certificate.pem
curl --engine pkcs11 --key-type ENG --key '{use.uri}' --cert certificate.pem https://...
"""
    else:
        commands = f"""\
openssl s_server -key {use.directory}/key.pem -cert certificate.pem
openssl s_client -key {use.directory}/key.pem -cert certificate.pem
curl --key {use.directory}/key.pem --cert certificate.pem https://...
"""
    return _with_stub(stack, use, Part(name="commands", purpose="for example", content=commands))


def _need_provider(stack: Stack, why: str) -> None:
    if stack is Stack.ENGINE:
        raise ConfigurationError(f"{why}: it needs OpenSSL's pkcs11-provider (Debian 13); see --stack provider")


_SETTINGS: dict[Program, Callable[[Stack, Use], tuple[Part, ...]]] = {
    Program.NGINX: _nginx,
    Program.APACHE: _apache,
    Program.HAPROXY: _haproxy,
    Program.POSTGRESQL: _postgresql,
    Program.GNUTLS: _gnutls,
    Program.JAVA: _java,
    Program.OPENSSL: _openssl_commands,
}


def _found(pattern: str) -> str:
    return next((str(path) for path in sorted(Path("/").glob(pattern))), "")


def _escaped(name: str) -> str:
    """A value in a PKCS#11 URI (RFC 7512 section 2.3)."""
    return "".join(
        character if character.isascii() and (character.isalnum() or character in "-._~") else _percent(character)
        for character in name
    )


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())


def _length(content: bytes) -> bytes:
    """The length of `content` in DER."""
    length = len(content)
    if length < 0x80:
        return bytes((length,))
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(octets),)) + octets
