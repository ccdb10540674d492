"""`TokenUri`: where a key in a PKCS#11 token is, as a ``pkcs11:`` URI (RFC 7512).

Never holds a PIN: it says which file has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from locum.errors import ConfigurationError

#: Longest URI in characters.
MAX_URI = 2048
#: Longest value of an attribute in bytes: twice what PKCS#11 has room for in a token's label.
MAX_VALUE = 256

_SCHEME = "pkcs11:"
_FILE = "file:"
#: RFC 7512 section 2.3: pk11-attr; what is not percent-encoded there.
_SAFE_IN_PATH = ":[]@!$'()*+,=&"
_SAFE_IN_QUERY = ":[]@!$'()*+,=/?|"
_VALUE = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=&/?|]|%[0-9A-Fa-f]{2})*", re.ASCII)
_TEXT_ATTRIBUTES = ("token", "manufacturer", "model", "serial", "object")
_TOKEN_ATTRIBUTES = ("token", "manufacturer", "model", "serial", "slot-id")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUri:
    """A private key's place: the library, which token, which object in it, and the file with the PIN.

    `module` and `pin_file` are absolute paths; without a PIN file the token is used without a login. Empty
    attributes say nothing, and `id` is what the token calls CKA_ID.
    """

    module: str
    pin_file: str = ""
    token: str = ""
    manufacturer: str = ""
    model: str = ""
    serial: str = ""
    slot: int | None = None
    object: str = ""
    id: bytes = b""

    @classmethod
    def parse(cls, text: str) -> TokenUri:
        """Read a URI. Raises: ConfigurationError for what is none, has a PIN in it, or names no library or key."""
        if len(text) > MAX_URI or not text.startswith(_SCHEME):
            raise ConfigurationError(f"a PKCS#11 URI begins with {_SCHEME} and has at most {MAX_URI} characters")
        path, _, query = text.removeprefix(_SCHEME).partition("?")
        attributes = _attributes(path, ";") | {
            f"?{name}": value for name, value in _attributes(query, "&").items()
        }
        if "?pin-value" in attributes:
            raise ConfigurationError("a PIN does not belong into a URI: write pin-source=file:/PATH instead")
        if attributes.pop("type", b"private") != b"private":
            raise ConfigurationError("a PKCS#11 URI for a private key has type=private, or no type")
        slot = attributes.pop("slot-id", None)
        uri = cls(
            module=_path(attributes.pop("?module-path", b""), "module-path"),
            pin_file=_pin_file(attributes.pop("?pin-source", b"")),
            slot=None if slot is None else _number(slot),
            id=attributes.pop("id", b""),
            **{name: _text(name, attributes.pop(name, b"")) for name in _TEXT_ATTRIBUTES},
        )
        if attributes:
            raise ConfigurationError(f"the PKCS#11 URI has an attribute that is not known: {min(attributes)!r}")
        if not uri.module:
            raise ConfigurationError("the PKCS#11 URI names no library: end it with ?module-path=/PATH/LIBRARY.so")
        if not uri.object and not uri.id:
            raise ConfigurationError("the PKCS#11 URI names no key: it needs object=LABEL or id=%NN")
        return uri

    def __str__(self) -> str:
        path = [*self._written(*_TOKEN_ATTRIBUTES), *self._written("object")]
        if self.id:
            path.append("id=" + "".join(f"%{octet:02X}" for octet in self.id))
        path.append("type=private")
        query = [f"module-path={quote(self.module, _SAFE_IN_QUERY)}"]
        if self.pin_file:
            query.append(f"pin-source={_FILE}{quote(self.pin_file, _SAFE_IN_QUERY)}")
        return f"{_SCHEME}{';'.join(path)}?{'&'.join(query)}"

    @property
    def place(self) -> str:
        """The part that says which token is meant."""
        return _SCHEME + ";".join(self._written(*_TOKEN_ATTRIBUTES))

    def _written(self, *names: str) -> Iterator[str]:
        for name in names:
            value = getattr(self, name.replace("-id", ""))
            if value not in ("", None):
                yield f"{name}={quote(str(value), _SAFE_IN_PATH)}"


def _attributes(part: str, separator: str) -> dict[str, bytes]:
    """Names and values, each name once (RFC 7512 section 2.3)."""
    found: dict[str, bytes] = {}
    for written in part.split(separator) if part else ():
        name, equals, value = written.partition("=")
        if not equals or not _VALUE.fullmatch(value):
            raise ConfigurationError("a PKCS#11 URI is made of NAME=VALUE, with %NN for unusual characters")
        octets = unquote_to_bytes(value)
        if name in found or len(octets) > MAX_VALUE:
            raise ConfigurationError(f"{name[:32]!r} is in the PKCS#11 URI twice, or is too long")
        found[name] = octets
    return found


def _text(name: str, octets: bytes) -> str:
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name} in the PKCS#11 URI is not UTF-8") from None
    if not text.isprintable():
        raise ConfigurationError(f"{name} in the PKCS#11 URI has unprintable characters")
    return text


def _number(octets: bytes) -> int:
    if not octets.isdigit() or int(octets) >= 1 << 64:
        raise ConfigurationError("slot-id in the PKCS#11 URI is not a number of 64 bits")
    return int(octets)


def _path(octets: bytes, name: str) -> str:
    path = _text(name, octets)
    if path and not path.startswith("/"):
        raise ConfigurationError(f"{name} in the PKCS#11 URI is not an absolute path")
    return path and "/" + path.lstrip("/")


def _pin_file(octets: bytes) -> str:
    """RFC 7512 section 2.4: a file; a program to run, which it also knows, is not run here."""
    if octets.startswith(b"file://") and not octets.startswith(b"file:///"):
        raise ConfigurationError("pin-source in the PKCS#11 URI is a file of another host")
    return _path(octets.removeprefix(_FILE.encode()), "pin-source")
