"""A terminal's credential file: its name, and for each delegate the address and the key set beforehand (A4).

Never knows how the file came to the terminal, nor anything of public keys.
"""

from __future__ import annotations

import base64
import binascii
import tomllib
from collections.abc import Iterable
from dataclasses import field
from pathlib import Path
from typing import Any

from locum.errors import ConfigurationError
from locum.files import read_private, write_private
from locum.link.oscore import AES_CCM_16_64_128, CHACHA20_POLY1305_NAME, Credential
from locum.names import DelegateAddress, check_name
from locum.terminal.sequence import STATE_SUFFIX, Sequence, SequenceState, channel_name
from locum.values import dataclass

#: Length of a channel key in bytes, by algorithm.
KEY_LENGTHS = {AES_CCM_16_64_128: 16, CHACHA20_POLY1305_NAME: 32}
#: Length in bytes of the salt that an enrolment makes.
SALT_LENGTH = 8
#: Longest salt in bytes.
SALT_LIMIT = 64
#: Largest credential file in bytes.
FILE_LIMIT = 64 * 1024
#: Most delegates in one credential.
DELEGATES_LIMIT = 16

_WHAT = "credential file"
_CHANNEL_FIELDS = ("kid", "delegate_id", "key", "salt", "algorithm")
_FIELDS = {"address", "secure_path", *_CHANNEL_FIELDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegateCredential:
    """How to reach one delegate, and what protects the messages.

    `secure_path` is the terminal's side of A4: messages to this address go plain. `channel` may be missing
    only then. `state` keeps the sequence numbers; without it every use begins with a new ID Context.
    """

    address: DelegateAddress
    secure_path: bool = False
    channel: Credential | None = None
    state: SequenceState | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.channel is None and not self.secure_path:
            raise ConfigurationError(f"delegate {self.address}: a key is needed unless secure_path = true")

    @property
    def channel_name(self) -> bytes | None:
        """What the channel is called in the state file, or None when there is none."""
        if self.channel is None:
            return None
        parts = (self.channel.kid, self.channel.peer_id, self.channel.secret, self.channel.salt)
        return channel_name(str(self.address).encode(), self.channel.algorithm.encode(), *parts)

    @property
    def sequence(self) -> Sequence | None:
        """The sequence numbers, for one new user of the channel."""
        name = self.channel_name
        return None if name is None or self.state is None else self.state.sequence(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalCredential:
    """The whole file: a terminal's name and its delegates, to be tried in this order (A12)."""

    name: str
    delegates: tuple[DelegateCredential, ...]

    def __post_init__(self) -> None:
        check_name(self.name, "terminal's name")
        if not 1 <= len(self.delegates) <= DELEGATES_LIMIT:
            raise ConfigurationError(f"a credential names 1 to {DELEGATES_LIMIT} delegates")
        addresses = [str(delegate.address) for delegate in self.delegates]
        twice = next((address for address in addresses if addresses.count(address) > 1), None)
        if twice is not None:
            raise ConfigurationError(f"delegate {twice} is in the credential twice")


def load_credential(path: Path) -> TerminalCredential:
    """Read a credential file; the sequence numbers are then kept in ``<path>.state``.

    Raises: ConfigurationError, naming file and field, when it is not there, malformed or open to other users.
    """
    data = read_private(path, what=_WHAT, limit=FILE_LIMIT)
    try:
        credential = parse_credential(data)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    names = [delegate.channel_name for delegate in credential.delegates]
    state = SequenceState(path.with_name(path.name + STATE_SUFFIX), [name for name in names if name is not None])
    return TerminalCredential(
        name=credential.name, delegates=tuple(_with_state(delegate, state) for delegate in credential.delegates)
    )


def save_credential(path: Path, credential: TerminalCredential, *, replace: bool = False) -> None:
    """Write a credential file, mode 0600. Raises: FileThere unless `replace`; Unavailable."""
    write_private(path, render_credential(credential), what=_WHAT, replace=replace)


def parse_credential(data: bytes) -> TerminalCredential:
    """Read the content of a credential file. Raises: ConfigurationError, naming the field."""
    try:
        document = tomllib.loads(data.decode())
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"not TOML: {error}") from None
    except (ValueError, RecursionError):
        # Not UTF-8, a number without end, or brackets without end.
        raise ConfigurationError("not TOML") from None
    _refuse_unknown(document, {"name", "delegates"}, "")
    tables = document.get("delegates")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigurationError("[[delegates]] is missing")
    return TerminalCredential(
        name=_string(document, "name", ""),
        delegates=tuple(_parse_delegate(table, f"delegates {number}: ") for number, table in enumerate(tables, 1)),
    )


def render_credential(credential: TerminalCredential) -> bytes:
    """The content of a credential file. No value in it needs quoting beyond its quotation marks."""
    lines = [
        "# locum: the credential of one terminal. It is a secret and belongs on one device only.",
        f'name = "{credential.name}"',
    ]
    for delegate in credential.delegates:
        lines += ["", "[[delegates]]", f'address = "{delegate.address}"']
        if delegate.channel is not None:
            lines += [
                f'kid = "{delegate.channel.kid.hex()}"',
                f'delegate_id = "{delegate.channel.peer_id.hex()}"',
                f'key = "{base64.b64encode(delegate.channel.secret).decode()}"',
                f'salt = "{base64.b64encode(delegate.channel.salt).decode()}"',
                f'algorithm = "{delegate.channel.algorithm}"',
            ]
        lines.append(f"secure_path = {'true' if delegate.secure_path else 'false'}")
    return "\n".join([*lines, ""]).encode()


def _parse_delegate(table: dict[str, Any], where: str) -> DelegateCredential:
    _refuse_unknown(table, _FIELDS, where)
    secure_path = table.get("secure_path", False)
    if not isinstance(secure_path, bool):
        raise ConfigurationError(f"{where}secure_path is true or false")
    try:
        address = DelegateAddress.parse(_string(table, "address", where))
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}{error}") from None
    if secure_path and not any(name in table for name in _CHANNEL_FIELDS):
        return DelegateCredential(address=address, secure_path=True)
    return DelegateCredential(address=address, secure_path=secure_path, channel=_parse_channel(table, where))


def _parse_channel(table: dict[str, Any], where: str) -> Credential:
    algorithm = _string(table, "algorithm", where)
    if algorithm not in KEY_LENGTHS:
        raise ConfigurationError(f"{where}algorithm is one of {', '.join(KEY_LENGTHS)}")
    secret, salt = _base64(table, "key", where), _base64(table, "salt", where)
    if len(secret) != KEY_LENGTHS[algorithm]:
        raise ConfigurationError(
            f"{where}key has {KEY_LENGTHS[algorithm]} bytes for {algorithm}, not {len(secret)}"
        )
    if len(salt) > SALT_LIMIT:
        raise ConfigurationError(f"{where}salt has at most {SALT_LIMIT} bytes")
    try:
        return Credential(
            kid=_hex(table, "kid", where),
            peer_id=_hex(table, "delegate_id", where),
            secret=secret,
            salt=salt,
            algorithm=algorithm,
        )
    except ConfigurationError as error:
        raise ConfigurationError(str(error) if str(error).startswith(where) else f"{where}{error}") from None


def _with_state(delegate: DelegateCredential, state: SequenceState) -> DelegateCredential:
    return DelegateCredential(
        address=delegate.address, secure_path=delegate.secure_path, channel=delegate.channel, state=state
    )


def _refuse_unknown(table: dict[str, Any], known: Iterable[str], where: str) -> None:
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise ConfigurationError(f"{where}{unknown[0]!r} is not known here")


def _string(table: dict[str, Any], name: str, where: str) -> str:
    value = table.get(name)
    if not isinstance(value, str):
        raise ConfigurationError(
            f"{where}{name} is missing" if value is None else f"{where}{name} is not a string"
        )
    return value


def _hex(table: dict[str, Any], name: str, where: str) -> bytes:
    try:
        return bytes.fromhex(_string(table, name, where))
    except ValueError:
        raise ConfigurationError(f"{where}{name} is not hexadecimal") from None


def _base64(table: dict[str, Any], name: str, where: str) -> bytes:
    try:
        return base64.b64decode(_string(table, name, where), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError(f"{where}{name} is not base64") from None
