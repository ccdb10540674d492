"""Sessions of IKE SAs with delegates (A12): who is asked, who is asked next, and that every session has an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from tests.support.terminal_memory import credential

from locum.authority.chains import ChainCache
from locum.authority.messages import decode_requests, encode_error, encode_responses
from locum.errors import LocumError, Refused, Unavailable
from locum.handshake import Request, Response
from locum.ike import operations as ike
from locum.ike.operations import Exchange
from locum.link.coap import Code
from locum.terminal import ipsec_sessions
from locum.terminal.channel import Answer, DelegateFailed
from locum.terminal.credential import DelegateCredential
from locum.terminal.device import Device
from locum.terminal.flow import Malfunction
from locum.terminal.ipsec_sessions import Sessions
from locum.terminal.steps import Cost, StepName, TerminalStep

FIRST, SECOND = "coap://192.0.2.101:5683", "coap://192.0.2.102:5683"
TOKEN = b"8 bytes."
START = ike.IkeStartRequest(exchange=Exchange.IKE_2, initiator=True, sa=b"sa", peer_address="192.0.2.7")
FURTHER = ike.IkeStartRequest(exchange=Exchange.FURTHER, initiator=True, peer_address="192.0.2.7")
PUBLIC = ike.PublicValueRequest(group=31)
SHARE = ike.SharedSecretRequest(group=31, public_value=bytes(32))
ANSWERS: dict[type[Request], Response] = {
    ike.IkeStartRequest: ike.IkeStartResponse(group=31),
    ike.PublicValueRequest: ike.PublicValueResponse(public_value=bytes(32)),
    ike.SharedSecretRequest: ike.SharedSecretResponse(secret=bytes(32)),
}

Act = Callable[["FakeChannel", bytes], Awaitable[tuple[int, bytes]]]


async def play(channel: FakeChannel, payload: bytes) -> tuple[int, bytes]:
    """What a delegate does."""
    message = decode_requests(payload, ChainCache())
    responses = tuple(ANSWERS[type(request)] for request in message.requests)
    token = b"" if message.token else TOKEN
    return Code.CHANGED, encode_responses(token, message.requests, responses)


class FakeChannel:
    """An `AsyncChannel` without a link."""

    def __init__(self, delegate: DelegateCredential, terminal: str) -> None:
        self.name = str(delegate.address)
        self.address = delegate.address
        self.secure_path = delegate.secure_path
        self.act: Act = play
        self.posts = self.inside = 0
        self.left = asyncio.Event()
        self.told: list[bytes] = []

    async def enter(self, *, deadline: float) -> None:
        self.inside += 1

    def leave(self) -> None:
        self.inside -= 1
        self.left.set()

    async def post(self, payload: bytes, *, deadline: float) -> Answer:
        self.posts += 1
        code, answer = await self.act(self, payload)
        return Answer(delegate=self.name, code=code, payload=answer, cost=Cost(bytes_out=10, bytes_in=20))

    def tell(self, payload: bytes) -> None:
        self.told.append(payload)

    def close(self) -> None:
        pass


class World:
    """Two delegates and the sessions of one SA with them."""

    def __init__(self) -> None:
        self.steps: list[TerminalStep] = []
        device: Device[Any] = Device(
            credential(2), authority=None, observer=self.steps.append, channel=FakeChannel
        )
        self.device = device
        self.first, self.second = (device.channels[name] for name in (FIRST, SECOND))
        self.sessions = Sessions(device, patience=30.0)
        self.sa: Any = object()

    async def perform(self, *requests: Request, number: int = 1) -> tuple[Response, ...]:
        return await self.sessions.perform(self.sa, number, requests)


async def dead(channel: FakeChannel, payload: bytes) -> tuple[int, bytes]:
    raise DelegateFailed(channel.name, "no answer")


def failing(error: LocumError) -> Act:
    async def act(channel: FakeChannel, payload: bytes) -> tuple[int, bytes]:
        return Code.INTERNAL_SERVER_ERROR, encode_error(error)

    return act


def run(body: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        await body(World())

    asyncio.run(main())


def test_a_session_stays_with_the_delegate_that_began_it() -> None:
    async def body(world: World) -> None:
        await world.perform(FURTHER, PUBLIC)
        await world.perform(SHARE)
        assert (world.first.posts, world.second.posts) == (2, 0)
        assert world.first.inside == 0

    run(body)


def test_a_session_that_ended_by_itself_is_not_ended_once_more() -> None:
    async def body(world: World) -> None:
        await world.perform(FURTHER, PUBLIC)
        await world.perform(SHARE)
        world.sessions.forget(world.sa)
        assert world.first.told == []

    run(body)


def test_a_dead_delegate_is_replaced_before_anything_was_shown_to_the_peer() -> None:
    async def body(world: World) -> None:
        world.first.act = dead
        await world.perform(START, PUBLIC)
        assert (world.first.posts, world.second.posts) == (1, 1)
        assert world.first.inside == 0
        assert [step.detail for step in world.steps if step.operation is StepName.NEXT_DELEGATE] == [
            f"after delegate {FIRST}: no answer"
        ]

    run(body)


def test_the_delegate_that_failed_is_asked_last_the_next_time() -> None:
    async def body(world: World) -> None:
        world.first.act = dead
        await world.perform(START, PUBLIC)
        await world.perform(FURTHER, PUBLIC, number=2)
        assert (world.first.posts, world.second.posts) == (1, 2)

    run(body)


def test_when_no_delegate_can_be_asked_the_error_names_them_all() -> None:
    async def body(world: World) -> None:
        world.first.act = world.second.act = dead
        with pytest.raises(Unavailable, match=f"{FIRST}.*{SECOND}"):
            await world.perform(START, PUBLIC)
        assert world.first.inside == world.second.inside == 0

    run(body)


def test_a_refusal_is_not_carried_to_another_delegate() -> None:
    async def body(world: World) -> None:
        world.first.act = failing(Refused("no policy allows it"))
        with pytest.raises(Refused, match="no policy allows it"):
            await world.perform(START, PUBLIC)
        assert world.second.posts == 0
        assert world.first.inside == 0

    run(body)


def test_a_delegate_that_dies_in_the_middle_ends_the_session_and_is_asked_last() -> None:
    async def body(world: World) -> None:
        await world.perform(FURTHER, PUBLIC)
        world.first.act = dead
        with pytest.raises(DelegateFailed):
            await world.perform(SHARE)
        assert world.first.inside == 0
        await world.perform(FURTHER, PUBLIC, number=2)
        assert world.second.posts == 1

    run(body)


def test_a_session_that_is_over_is_refused() -> None:
    async def body(world: World) -> None:
        with pytest.raises(Refused, match="is over"):
            await world.perform(SHARE)

    run(body)


def test_sessions_of_one_sa_do_not_mix() -> None:
    async def body(world: World) -> None:
        await world.perform(FURTHER, PUBLIC, number=1)
        await world.perform(FURTHER, PUBLIC, number=2)
        assert world.first.inside == 2
        await world.perform(SHARE, number=1)
        assert world.first.inside == 1
        await world.perform(SHARE, number=2)
        assert world.first.inside == 0

    run(body)


def test_an_sa_that_is_over_has_its_delegate_forget_what_was_under_way() -> None:
    async def body(world: World) -> None:
        await world.perform(START, PUBLIC)
        world.sessions.forget(world.sa)
        assert world.first.inside == 0
        assert len(world.first.told) == 1
        assert decode_requests(world.first.told[0], ChainCache()).requests == ()

    run(body)


def test_a_session_that_nobody_asks_anything_of_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipsec_sessions, "SESSION_TIME", 0.01)

    async def body(world: World) -> None:
        await world.perform(FURTHER, PUBLIC)
        await world.first.left.wait()
        assert len(world.first.told) == 1

    run(body)


def test_a_request_that_is_cancelled_leaves_nothing_behind() -> None:
    async def body(world: World) -> None:
        reached = asyncio.Event()

        async def hang(channel: FakeChannel, payload: bytes) -> tuple[int, bytes]:
            reached.set()
            await asyncio.Event().wait()
            raise AssertionError

        world.first.act = hang
        task = asyncio.ensure_future(world.perform(START, PUBLIC))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert world.first.inside == 0

    run(body)


def test_a_delegate_that_wants_fewer_requests_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipsec_sessions, "FIRST_PAUSE", 0.001)

    async def body(world: World) -> None:
        async def busy_once(channel: FakeChannel, payload: bytes) -> tuple[int, bytes]:
            if channel.posts == 1:
                return Code.TOO_MANY_REQUESTS, encode_error(Unavailable("too many requests"))
            return await play(channel, payload)

        world.first.act = busy_once
        await world.perform(START, PUBLIC)
        assert (world.first.posts, world.second.posts) == (2, 0)

    run(body)


def test_operations_out_of_the_figures_order_never_reach_a_delegate() -> None:
    async def body(world: World) -> None:
        await world.perform(START, PUBLIC)
        with pytest.raises(Malfunction):
            await world.perform(ike.SaKeysRequest())
        assert world.first.posts == 1
        assert world.first.inside == 0

    run(body)


def test_costs_are_those_of_the_link() -> None:
    async def body(world: World) -> None:
        await world.perform(FURTHER, PUBLIC)
        costs = [(step.operation, step.bytes_out, step.bytes_in) for step in world.steps if step.bytes_out]
        assert costs == [(StepName.START, 10, 20)]

    run(body)


# --- an authority in the same process -------------------------------------------------------------------------


class AuthorityHere:
    """An authority that answers at once, and counts its sessions that are still open."""

    def __init__(self) -> None:
        self.opened = 0
        self.fault: LocumError | None = None

    def open(self, terminal: str) -> AuthorityHere:
        self.opened += 1
        return self

    def perform(self, requests: Sequence[Request]) -> tuple[Response, ...]:
        if self.fault is not None:
            raise self.fault
        return tuple(ANSWERS[type(request)] for request in requests)

    def close(self) -> None:
        self.opened -= 1


def here(body: Callable[[AuthorityHere, Sessions, Any], None]) -> None:
    async def main() -> None:
        authority = AuthorityHere()
        device: Device[Any] = Device(None, authority=authority, observer=None, channel=FakeChannel)
        sessions = Sessions(device, patience=30.0)
        assert sessions.immediate
        body(authority, sessions, object())

    asyncio.run(main())


def test_an_authority_in_this_process_answers_at_once() -> None:
    def body(authority: AuthorityHere, sessions: Sessions, sa: Any) -> None:
        assert sessions.perform_here(sa, 1, (FURTHER, PUBLIC)) == (ANSWERS[type(FURTHER)], ANSWERS[type(PUBLIC)])
        assert authority.opened == 1
        sessions.perform_here(sa, 1, (SHARE,))
        assert authority.opened == 0
        with pytest.raises(Refused, match="is over"):
            sessions.perform_here(sa, 1, (SHARE,))

    here(body)


@pytest.mark.parametrize("begun", [False, True], ids=["at the start", "later"])
def test_a_failure_here_ends_the_session(begun: bool) -> None:
    def body(authority: AuthorityHere, sessions: Sessions, sa: Any) -> None:
        if begun:
            sessions.perform_here(sa, 1, (FURTHER, PUBLIC))
        authority.fault = Refused("no")
        with pytest.raises(Refused, match="no"):
            sessions.perform_here(sa, 1, (SHARE,) if begun else (FURTHER, PUBLIC))
        assert authority.opened == 0

    here(body)


def test_what_is_out_of_the_figures_order_never_reaches_the_authority_here() -> None:
    def body(authority: AuthorityHere, sessions: Sessions, sa: Any) -> None:
        with pytest.raises(Malfunction):
            sessions.perform_here(sa, 1, (START, ike.SaKeysRequest()))
        assert authority.opened == 0

    here(body)
