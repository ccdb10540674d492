"""How things are called in files and on the command line: names of all kinds, HOST:PORT, and coap:// addresses.

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
#: The attribute types of distinguished names that have a name in RFC 4514 section 3, and others that people write.
_ATTRIBUTE_TYPES = {
    "2.5.4.3": "CN",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "SN": "2.5.4.4",
    "SERIALNUMBER": "2.5.4.5",
    "TITLE": "2.5.4.12",
    "GN": "2.5.4.42",
    "E": "1.2.840.113549.1.9.1",
    "EMAIL": "1.2.840.113549.1.9.1",
    "EMAILADDRESS": "1.2.840.113549.1.9.1",
}
_SHORT_TYPES = frozenset(name for name in _ATTRIBUTE_TYPES.values() if name.isalpha())

_OID = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]*))+", re.ASCII)
_HEX = re.compile(r"(?:[0-9a-f]{2})+", re.ASCII)
#: A local part of an e-mail address: printable ASCII without the spaces and quotes that RFC 5321 allows in quotes.
_LOCAL_PART = re.compile(r"[!#-?A-Z\[\]^-~]{1,64}", re.ASCII)
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


def normalize_email(text: str) -> str:
    """Return an e-mail address with its domain as a DNS name in its normal form; ConfigurationError if it is none.

    The local part, of 1 to 64 ASCII characters and without quotes, stays as it is: RFC 5321 section 2.4 leaves it
    to the domain whether its case matters.
    """
    local, at, domain = text.rpartition("@")
    if not at or not _LOCAL_PART.fullmatch(local):
        raise ConfigurationError(f"{_shown(text)} is not an e-mail address")
    return f"{local}@{normalize_dns_name(domain)}"


# --- distinguished names ----------------------------------------------------------------------------------


def normalize_distinguished_name(text: str) -> str:
    """Return a distinguished name, written as in RFC 4514, in its normal form; ConfigurationError when it is none.

    Two names that X.500 takes for the same have the same normal form: types by their short names in upper case or
    as numbers, values in lower case with single spaces and only the escapes that are needed, attributes of one RDN
    sorted. The order of the RDNs is part of the name, the most specific one first.
    """
    try:
        rdns = [sorted(_attribute(each) for each in _split(rdn, "+")) for rdn in _split(text, ",")]
    except ValueError as error:
        why = "not UTF-8" if isinstance(error, UnicodeError) else error
        raise ConfigurationError(f"{_shown(text)} is not a distinguished name (RFC 4514): {why}") from None
    return ",".join("+".join(attributes) for attributes in rdns)


def _split(text: str, separator: str) -> list[str]:
    """The parts of `text` between separators that have no backslash before them."""
    parts, begin, index = [], 0, 0
    while index < len(text):
        if text[index] == separator:
            parts.append(text[begin:index])
            begin = index + 1
        index += 2 if text[index] == "\\" else 1
    return [*parts, text[begin:]]


def _attribute(text: str) -> str:
    """One TYPE=VALUE in its normal form; ValueError when it is none."""
    written, equals, value = text.partition("=")
    name = written.strip(" ").upper()
    name = _ATTRIBUTE_TYPES.get(name, name)
    if not equals or (name not in _SHORT_TYPES and not _OID.fullmatch(name)):
        raise ValueError(f"{_shown(written)} is not the type of an attribute")
    value = value.lstrip(" ")
    if value.startswith("#"):
        octets = value[1:].rstrip(" ").lower()
        if not _HEX.fullmatch(octets):
            raise ValueError("what follows '#' is in hexadecimal")
        return f"{name}=#{octets}"
    plain = " ".join(_unescape(value).casefold().split())
    if not plain:
        raise ValueError(f"{name} has no value")
    return f"{name}={_escape(plain)}"


def _unescape(value: str) -> str:
    """The characters that a value stands for (RFC 4514 section 2.4); ValueError when some may not stand there."""
    octets, index = bytearray(), 0
    while index < len(value):
        character = value[index]
        if character in '"+,;<>\0':
            raise ValueError(f"{character!r} needs a backslash before it")
        if character != "\\":
            octets += character.encode()
            index += 1
        elif value[index + 1 : index + 2] in tuple(' "#+,;<=>\\'):
            octets += value[index + 1].encode()
            index += 2
        elif _HEX.fullmatch(value[index + 1 : index + 3].lower()):
            octets.append(int(value[index + 1 : index + 3], 16))
            index += 3
        else:
            raise ValueError("a backslash stands before a special character or two hexadecimal digits")
    return octets.decode()


def _escape(value: str) -> str:
    """`value`, which neither begins nor ends with a space, with the escapes that it needs to be read again."""
    shown = []
    for index, character in enumerate(value):
        if character in '"+,;<>\\' or (character == "#" and index == 0):
            shown.append("\\" + character)
        elif character.isprintable():
            shown.append(character)
        else:
            shown.extend(f"\\{octet:02x}" for octet in character.encode())
    return "".join(shown)


# --- addresses --------------------------------------------------------------------------------------------


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

    @property
    def reachable(self) -> bool:
        """False for the unspecified address and port 0: one can listen there, and not connect."""
        try:
            return self.port != 0 and not ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return self.port != 0


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
