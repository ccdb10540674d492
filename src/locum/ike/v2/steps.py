"""The steps by which an exchange of IKEv2 asks for what the IKE SA does for it; `handshake.Ask` is another one.

Never knows who performs them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from locum.ike.payloads2 import Payload
from locum.ike.registry import ExchangeType
from locum.ike.v2.messages import Content
from locum.values import dataclass

T = TypeVar("T")

#: What an exchange of ours is, and what answers one of the peer's: it returns the last response's payloads.
Task = Generator[Any, Any, None]
Answering = Generator[Any, Any, tuple[Payload, ...]]


@dataclass(frozen=True, slots=True)
class Exchange(Generic[T]):
    """A step: send a request, however often, and send back what `accept` makes of the response.

    A response that `accept` raises a `LocumError` for is dropped where it came in clear, for anybody may have
    sent it, and raises that error in the exchange where it was protected.
    """

    exchange_type: ExchangeType
    payloads: tuple[Payload, ...]
    accept: Callable[[Content], T]


@dataclass(frozen=True, slots=True)
class Reply:
    """A step: answer the request at hand, and send back the next one, a `Content`, when it has come.

    It must be of one of the `expected` exchanges. `link` marks an IKE_FOLLOWUP_KE that goes on with this (RFC
    9370 section 2.2.4): other requests may come in between.
    """

    payloads: tuple[Payload, ...]
    expected: tuple[ExchangeType, ...]
    link: bytes = b""


def exchange(
    exchange_type: ExchangeType, payloads: tuple[Payload, ...], accept: Callable[[Content], T]
) -> Generator[Any, Any, T]:
    """Perform one exchange of ours; what `accept` made of the response."""
    result: T = yield Exchange(exchange_type, payloads, accept)
    return result


def reply(
    payloads: tuple[Payload, ...], *expected: ExchangeType, link: bytes = b""
) -> Generator[Any, Any, Content]:
    """Answer one request of the peer's and wait for the next."""
    request: Content = yield Reply(payloads, expected, link)
    return request


def accepted(content: Content) -> Content:
    """An `Exchange.accept` that takes every response without an error notify."""
    content.raise_error()
    return content
