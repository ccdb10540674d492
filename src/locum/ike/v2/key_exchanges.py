"""Key exchanges under an SA that is established: perfect forward secrecy, and the rekeying of the SA itself.

Never knows what the secrets are for. The authority performs them in a session of its own; additional ones
follow in IKE_FOLLOWUP_KE (RFC 7296 section 1.3, RFC 9370 section 2.2.4).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from locum.handshake import Ask, Request, expect
from locum.ike.algorithms import Group
from locum.ike.errors import (
    Busy,
    IllegalValue,
    InvalidKeyExchange,
    NoProposalChosen,
    StateNotFound,
    UnexpectedMessage,
)
from locum.ike.operations import (
    Exchange,
    PublicValueRequest,
    PublicValueResponse,
    SharedSecretRequest,
    SharedSecretResponse,
)
from locum.ike.payloads2 import KeyExchange, Notify, Payload
from locum.ike.registry import ExchangeType, NotifyType2
from locum.ike.v2.core import Core
from locum.ike.v2.messages import Content
from locum.ike.v2.steps import accepted, exchange, reply
from locum.values import dataclass

#: Bytes by which an IKE_FOLLOWUP_KE is told to belong to an exchange of ours; of a peer's, at most so many.
LINK_LENGTH = 16
MAX_LINK = 256

#: The method NONE among those offered, for an exchange without a key exchange.
_NONE = 0
_GROUP_LENGTH = 2


@dataclass(frozen=True, slots=True)
class Half:
    """Our public value in a first key exchange, `group` 0 for none at all; `again` after INVALID_KE_PAYLOAD."""

    group: int
    public_value: bytes = b""
    again: bool = False

    @property
    def payloads(self) -> tuple[Payload, ...]:
        """The KE payload, if there is one."""
        return (KeyExchange(group=self.group, data=self.public_value),) if self.group else ()


Again = Generator[Any, Any, Half]


def groups_of(first: Group | None, additional: Sequence[Group | None]) -> tuple[Group, ...]:
    """The key exchanges to perform, in order. Raises: NoProposalChosen for additional ones to none at all."""
    groups = tuple(group for group in (first, *additional) if group is not None)
    if groups and first is None:
        raise NoProposalChosen("additional key exchanges without a first one")
    return groups


# --- as initiator -----------------------------------------------------------------------------------------


def begin(core: Core, group: Group | None) -> Generator[Any, Any, Half]:
    """Have the authority begin a key exchange in `group`, in a new session."""
    if group is None:
        return Half(_NONE)
    start = core.start_request(Exchange.FURTHER, initiator=True, group=group.id)
    responses = yield Ask((start, PublicValueRequest(group=group.id)))
    return Half(group.id, expect(responses, 1, PublicValueResponse).public_value)


def begin_again(core: Core, before: Half, response: Content, acceptable: Sequence[Group | None]) -> Again:
    """After INVALID_KE_PAYLOAD: in the group that the responder wants.

    Raises: IllegalValue when we did not offer that one, or have tried it.
    """
    notify = response.notify(NotifyType2.INVALID_KE_PAYLOAD)
    code = int.from_bytes(notify.data, "big") if notify is not None and len(notify.data) == _GROUP_LENGTH else 0
    group = next((each for each in acceptable if each is not None and each.id == code), None)
    if group is None or before.again or group.id == before.group:
        raise IllegalValue(f"a KE payload is wanted in group {code}, which was not offered, or tried before")
    if before.group:
        responses = yield Ask((PublicValueRequest(group=group.id),))
        value = expect(responses, 0, PublicValueResponse).public_value
    else:
        value = (yield from begin(core, group)).public_value
    return Half(group.id, value, again=True)


def complete(core: Core, groups: Sequence[Group], response: Content) -> Generator[Any, Any, tuple[bytes, ...]]:
    """All shared secrets, in order, after the response to the first exchange.

    Raises: IllegalValue for a KE payload in another group or of another length.
    """
    secrets: list[bytes] = []
    for index, group in enumerate(groups):
        ke = response.one(KeyExchange)
        if ke.group != group.id or len(ke.data) != group.responder_length:
            raise IllegalValue(f"a KE payload in group {ke.group} of {len(ke.data)} bytes")
        following = groups[index + 1] if index + 1 < len(groups) else None
        requests: list[Request] = [
            SharedSecretRequest(group=group.id, public_value=ke.data, more=following is not None)
        ]
        if following is not None:
            requests.append(PublicValueRequest(group=following.id))
        responses = yield Ask(tuple(requests))
        secrets.append(expect(responses, 0, SharedSecretResponse).secret)
        if following is not None:
            own = expect(responses, 1, PublicValueResponse).public_value
            link = response.notify(NotifyType2.ADDITIONAL_KEY_EXCHANGE)
            if link is None:
                raise UnexpectedMessage("a response that does not say how to go on")
            payloads = (KeyExchange(group=following.id, data=own), link)
            response = yield from exchange(ExchangeType.IKE_FOLLOWUP_KE, payloads, accepted)
    return tuple(secrets)


# --- as responder -----------------------------------------------------------------------------------------


def check_group(groups: Sequence[Group], request: Content) -> None:
    """Raises: InvalidKeyExchange when the KE payload is missing where one is due, or in another group."""
    ke = request.get(KeyExchange)
    if groups and (ke is None or ke.group != groups[0].id):
        raise InvalidKeyExchange(groups[0].id)


def answer(
    core: Core, groups: Sequence[Group], request: Content, before: tuple[Payload, ...], after: tuple[Payload, ...]
) -> Generator[Any, Any, tuple[tuple[bytes, ...], tuple[Payload, ...]]]:
    """All shared secrets, and the payloads of the last response, which is still to be sent.

    The first response is `before`, KE, `after`. Raises: IllegalValue, StateNotFound; Busy for a peer that makes us
    ask the authority too often.
    """
    if groups and not core.further.take(now=core.now):
        raise Busy("the peer begins key exchanges too often")
    secrets: list[bytes] = []
    payloads = (*before, *after)
    for index, group in enumerate(groups):
        ke = request.one(KeyExchange)
        if ke.group != group.id or len(ke.data) != group.initiator_length:
            raise IllegalValue(f"a KE payload in group {ke.group} of {len(ke.data)} bytes")
        more = index + 1 < len(groups)
        secret_request = SharedSecretRequest(group=group.id, public_value=ke.data, more=more)
        requests: tuple[Request, ...] = (secret_request,)
        if index == 0:
            requests = (core.start_request(Exchange.FURTHER, initiator=False, group=group.id), secret_request)
        responses = yield Ask(requests)
        answered = expect(responses, len(requests) - 1, SharedSecretResponse)
        secrets.append(answered.secret)
        own = KeyExchange(group=group.id, data=answered.public_value)
        payloads = (*before, own, *after) if index == 0 else (own,)
        if more:
            link = core.random(LINK_LENGTH)
            notify = Notify(notify_type=NotifyType2.ADDITIONAL_KEY_EXCHANGE, data=link)
            request = yield from reply((*payloads, notify), ExchangeType.IKE_FOLLOWUP_KE, link=link)
    return tuple(secrets), payloads


def link_of(request: Content) -> bytes:
    """What an IKE_FOLLOWUP_KE says it goes on with. Raises: StateNotFound when it says nothing usable."""
    notify = request.notify(NotifyType2.ADDITIONAL_KEY_EXCHANGE)
    if notify is None or not 0 < len(notify.data) <= MAX_LINK:
        raise StateNotFound("an IKE_FOLLOWUP_KE that does not say what it goes on with")
    return notify.data
