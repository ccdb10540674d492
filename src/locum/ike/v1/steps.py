"""The steps that the exchanges of IKEv1 yield besides those of every handshake: send, receive, encrypt.

An exchange is a generator; `running` answers its steps. Knows neither keys nor datagrams.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import field
from enum import Enum, auto
from typing import Any, TypeVar

from locum.ike.payloads1 import Payload
from locum.ike.protection import CbcChain
from locum.ike.v1.messages import Message, Rule
from locum.values import dataclass

T = TypeVar("T")

#: An exchange that ends in a `T`.
Steps = Generator[Any, Any, T]


class Repeat(Enum):
    """Who makes up for a message that is lost."""

    #: we, until the next one arrives
    UNTIL_ANSWERED = auto()
    #: we, once more, and then the peer, a few times: it has not even proven to be where it says it is
    SPARINGLY = auto()
    #: the peer, by repeating its own
    ON_REQUEST = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """A step: send these payloads in one message, encrypted once `Encrypt` was said."""

    name: str
    payloads: tuple[Payload, ...]
    repeat: Repeat = Repeat.UNTIL_ANSWERED


@dataclass(frozen=True, slots=True, kw_only=True)
class Receive:
    """A step: the next message, which is sent back as `Message`.

    One that breaks `rule` or that `authentic` does not vouch for is dropped and moves nothing. `encrypted` says
    whether it must be, None that both will do. With `public_key_encryption` ID and nonce are `Ciphertext`.
    """

    rule: Rule
    encrypted: bool | None = False
    public_key_encryption: bool = False
    authentic: Callable[[Message], bool] = field(default=lambda message: True, repr=False)


@dataclass(frozen=True, slots=True)
class Encrypt:
    """A step: from now on what is sent is encrypted, and what is received is opened, with this chain."""

    chain: CbcChain


def receive(step: Receive) -> Steps[Message]:
    """The next message that fits."""
    message: Message = yield step
    return message
