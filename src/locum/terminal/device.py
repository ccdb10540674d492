"""A terminal: its name, its cipher-key database, and one channel per delegate, whichever protocol uses them.

Never opens a socket and knows neither TLS nor IKE.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from locum.authority.port import AuthoritySession
from locum.errors import ConfigurationError
from locum.terminal.channel import IN_PROCESS, Delegates
from locum.terminal.cipher_keys import CipherKeyDatabase
from locum.terminal.credential import DelegateCredential, TerminalCredential, load_credential
from locum.terminal.steps import Observer, ignore


class Authority(Protocol):
    """An authority in the terminal's own process, which then does the public-key work itself: for measurements."""

    def open(self, terminal: str) -> AuthoritySession:
        """A session for one handshake of the terminal of this name."""
        ...


class ChannelDriver(Protocol):
    """What connecting itself needs of a channel, beside asking for an answer."""

    @property
    def name(self) -> str:
        """The delegate's address."""
        ...

    @property
    def secure_path(self) -> bool:
        """True when messages to this delegate are plain (A4)."""
        ...

    def leave(self) -> None:
        """A handshake that had entered is over."""
        ...

    def tell(self, payload: bytes) -> None:
        """Send a message whose answer does not matter, at once or not at all."""
        ...

    def close(self) -> None:
        """Close the socket."""
        ...


C = TypeVar("C", bound=ChannelDriver)


class Device(Generic[C]):
    """A terminal with its cipher-key database and one channel per delegate, whichever driver they are of."""

    def __init__(
        self,
        credential: TerminalCredential | Path | str | None,
        *,
        authority: Authority | None,
        observer: Observer | None,
        channel: Callable[[DelegateCredential, str], C],
    ) -> None:
        """`channel` makes the driver's channel from a delegate's part of the credential and the terminal's name.

        Raises: ConfigurationError for a credential that cannot be used, and unless there is exactly one of
        credential and authority.
        """
        if (credential is None) == (authority is None):
            raise ConfigurationError("a terminal needs either a credential or an authority in its own process")
        self.name = IN_PROCESS
        self.authority = authority
        self.observer = observer or ignore
        #: The cipher-key database of fig 2. What works with a session key is the protocol's own affair.
        self.keys: CipherKeyDatabase[Any] = CipherKeyDatabase()
        self.channels: dict[str, C] = {}
        if credential is not None:
            loaded = (
                credential if isinstance(credential, TerminalCredential) else load_credential(Path(credential))
            )
            self.name = loaded.name
            for delegate in loaded.delegates:
                driver = channel(delegate, loaded.name)
                self.channels[driver.name] = driver
        self.delegates = Delegates(tuple(self.channels) or (IN_PROCESS,))

    def close(self) -> None:
        """Close the channels and wipe their keys. Sessions live on."""
        for name, channel in self.channels.items():
            channel.close()
            self.keys.drop_channel_key(name)
