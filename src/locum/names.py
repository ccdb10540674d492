"""How things are called in files and on the command line: names, HOST:PORT, and a delegate's coap:// address.

Never resolves a name and knows nothing of what listens at an address.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

from locum.errors import ConfigurationError

#: Longest name of a terminal, a pinned key or an identity, in characters.
NAME_LIMIT = 64
#: Longest DNS name in its textual form, without the final dot (RFC 1035 section 2.3.4).
DNS_NAME_LIMIT = 253
#: Longest text that is looked at as an address; a DNS name, brackets, a scheme and a port fit.
ADDRESS_LIMIT = 320
#: The CoAP port (RFC 7252 section 12.6), where delegates listen unless told otherwise.
COAP_PORT = 5683

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)


def check_name(text: str, what: str = "name") -> str:
    """Return `text` if it can name a terminal, a pinned key or an identity; raise ConfigurationError otherwise.

    1 to 64 ASCII letters, digits, dots, hyphens and underscores, the first and the last a letter or a digit:
    such a name needs no quoting in TOML, in a CoAP query, in a URL or in a shell.
    """
    if len(text) > NAME_LIMIT or not _NAME.fullmatch(text):
        raise ConfigurationError(
            f"{_shown(text)} cannot be a {what}: use 1 to {NAME_LIMIT} letters, digits, '.', '-' and '_', "
            "beginning and ending with a letter or a digit"
        )
    return text


def normalize_dns_name(text: str) -> str:
    """Return a DNS name in lower case without its final dot; raise ConfigurationError when it is none.

    International names are taken in their A-label form only (``xn--...``), as certificates carry them.
    """
    name = text.lower().removesuffix(".")
    if not name.isascii():
        raise ConfigurationError(f"{_shown(text)} is not ASCII: write the name in its xn-- form")
    if not name or len(name) > DNS_NAME_LIMIT or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ConfigurationError(f"{_shown(text)} is not a DNS name")
    return name


@dataclass(frozen=True, slots=True)
class HostPort:
    """A DNS name or IP address, without brackets, and a port of 0..65535."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, default_port: int | None = None) -> HostPort:
        """Read ``HOST:PORT``, with an IPv6 address in brackets; ConfigurationError when it is something else.

        Without a port in the text `default_port` is taken; None demands one.
        """
        if len(text) > ADDRESS_LIMIT:
            raise ConfigurationError(f"{_shown(text)} is too long for HOST:PORT")
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise ConfigurationError(f"{_shown(text)} is not [IPV6]:PORT")
            digits = rest[1:] if rest else None
            return cls(_ipv6(host, text), _port(digits, default_port, text))
        host, colon, digits = text.partition(":")
        if ":" in digits:
            raise ConfigurationError(f"{_shown(text)} is not HOST:PORT (an IPv6 address goes in brackets)")
        return cls(_host(host, text), _port(digits if colon else None, default_port, text))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class DelegateAddress:
    """Where a delegate answers: ``coap://HOST:PORT`` (UDP, RFC 7252) or ``coap+tcp://HOST:PORT`` (RFC 8323)."""

    transport: Literal["udp", "tcp"]
    endpoint: HostPort

    @classmethod
    def parse(cls, text: str) -> DelegateAddress:
        """Read the textual form; the port defaults to 5683. ConfigurationError when it is something else."""
        scheme, separator, rest = text.partition("://")
        if not separator or scheme not in ("coap", "coap+tcp"):
            raise ConfigurationError(f"{_shown(text)} is not coap://HOST:PORT or coap+tcp://HOST:PORT")
        endpoint = HostPort.parse(rest, default_port=COAP_PORT)
        if endpoint.port == 0:
            raise ConfigurationError(f"{_shown(text)}: port 0 cannot be reached")
        return cls("udp" if scheme == "coap" else "tcp", endpoint)

    def __str__(self) -> str:
        return f"{'coap' if self.transport == 'udp' else 'coap+tcp'}://{self.endpoint}"


def _host(host: str, text: str) -> str:
    # Digits and dots alone are an IPv4 address or a mistake, never a name (RFC 1123 section 2.1).
    if re.fullmatch(r"[0-9.]+", host, re.ASCII):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ConfigurationError(f"{_shown(text)}: {_shown(host)} is not an IPv4 address") from None
    try:
        return normalize_dns_name(host)
    except ConfigurationError:
        raise ConfigurationError(f"{_shown(text)} is not HOST:PORT") from None


def _ipv6(host: str, text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError:
        raise ConfigurationError(f"{_shown(text)}: {_shown(host)} is not an IPv6 address") from None


def _port(digits: str | None, default_port: int | None, text: str) -> int:
    if digits is None and default_port is not None:
        return default_port
    if not digits or len(digits) > 5 or not re.fullmatch("[0-9]+", digits, re.ASCII) or int(digits) > 0xFFFF:
        raise ConfigurationError(f"{_shown(text)} needs a port of 0..65535 after the colon")
    return int(digits)


def _shown(text: str) -> str:
    """`text` in quotes for an error message: one line, without control characters, not endless."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
