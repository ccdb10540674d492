"""The sessions that IKE SAs have with an authority: with delegates in their order, or with one in this process.

Never looks into a message of IKE. Each session goes its own way through figs 4 and 5 (A1, A2, A12).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from locum.authority.port import AuthoritySession
from locum.authority.remote import RemoteSession, Resend
from locum.errors import LocumError, Refused, TimedOut, Unavailable
from locum.handshake import Opening, Request, Response
from locum.ike.engine import IkeSa
from locum.link.coap import Code
from locum.terminal.aio_channel import AsyncChannel
from locum.terminal.channel import (
    ANSWER_TIMEOUT,
    FIRST_PAUSE,
    IN_PROCESS,
    LONGEST_PAUSE,
    Answer,
    Attempts,
    DelegateFailed,
)
from locum.terminal.cipher_keys import CipherKeyDatabase, SessionKey
from locum.terminal.device import Device
from locum.terminal.flow import Flow, Stage
from locum.terminal.steps import Actor, Cost, StepName, TerminalStep

#: Seconds after which a session that nobody asked anything of is given up, as the delegate does at its end. An
#: exchange that the peer has turned down leaves one behind.
SESSION_TIME = 60.0
_NEVER = float("inf")


class Sessions:
    """Every session of the IKE SAs of one terminal, by SA and by the number that the SA knows it under."""

    def __init__(self, device: Device[AsyncChannel], *, patience: float) -> None:
        """`patience` is the time in seconds that the last delegate has for one answer."""
        self._device = device
        self._patience = patience
        self._sessions: dict[tuple[IkeSa, int], _Session] = {}
        #: of the SAs that are being set up: the session in which the peer is authenticated
        self._flows: dict[IkeSa, Flow] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def immediate(self) -> bool:
        """True when the authority is in this process, and `perform_here` has the answer at once."""
        return self._device.authority is not None

    def perform_here(self, sa: IkeSa, number: int, requests: tuple[Request, ...]) -> tuple[Response, ...]:
        """As `perform`, without waiting, by the authority in this process. Raises: LocumError."""
        opening = requests[0]
        begins = isinstance(opening, Opening)
        session = self._opened(opening, IN_PROCESS) if isinstance(opening, Opening) else self._found(sa, number)
        try:
            responses = session.perform_here(requests)
        except BaseException:
            if begins:
                session.end()
            self._drop(sa, number)
            raise
        if begins:
            self._keep(sa, number, session)
        self._settle(sa, number, session, responses)
        return responses

    async def perform(self, sa: IkeSa, number: int, requests: tuple[Request, ...]) -> tuple[Response, ...]:
        """Have `requests` performed in session `number` of `sa`, which an `Opening` begins.

        A session is begun with the next delegate where one cannot be asked; a later request has no other.
        Raises: LocumError; `DelegateFailed` where another delegate may help next time. The session is over then.
        """
        opening = requests[0]
        if isinstance(opening, Opening):
            return await self._begin(sa, number, requests, opening)
        session = self._found(sa, number)
        deadline = self._clock() + self._patience
        if len(self._device.channels) > 1:
            deadline = min(deadline, self._clock() + ANSWER_TIMEOUT)
        try:
            responses = await session.perform(requests, deadline=deadline)
        except BaseException as error:
            self._drop(sa, number)
            if isinstance(error, DelegateFailed):
                self._device.delegates.failed(error.delegate, self._clock())
            raise
        self._settle(sa, number, session, responses)
        return responses

    def complete(self, sa: IkeSa, *, keys: CipherKeyDatabase[Any]) -> SessionKey[Any] | None:
        """S15 to S17: `sa` is established, and its keys go into the database; None where it came of another SA.

        Raises: Malfunction when its session has not gone the way of the figures.
        """
        flow = self._flows.pop(sa, None)
        return None if flow is None else flow.complete(sa, keys=keys, resumed=False, now=self._clock())

    def failed(self, sa: IkeSa, error: LocumError) -> None:
        """S19: `sa` ended before it was established."""
        flow = self._flows.pop(sa, None)
        if flow is not None and flow.stage is not Stage.FAILED:
            flow.failed(error)

    def forget(self, sa: IkeSa) -> None:
        """`sa` is over: so is every session of it."""
        self._flows.pop(sa, None)
        for owner, number in [key for key in self._sessions if key[0] is sa]:
            self._drop(owner, number)

    def close(self) -> None:
        """Give every session up."""
        if self._timer is not None:
            self._timer.cancel()
        for sa, number in list(self._sessions):
            self._drop(sa, number)

    async def _begin(
        self, sa: IkeSa, number: int, requests: tuple[Request, ...], opening: Opening
    ) -> tuple[Response, ...]:
        now = self._clock()
        attempts = Attempts(self._device.delegates, now=now, deadline=now + self._patience)
        while True:
            delegate = attempts.next()
            session = self._opened(opening, delegate)
            try:
                responses = await session.begin(requests, deadline=attempts.answer_deadline(self._clock()))
            except DelegateFailed as error:
                session.end()
                # Nothing of this session has been shown to the peer: another delegate begins it as well.
                attempts.failed(error, peer_touched=False, now=self._clock())
                self._tell(f"after {error}")
            except BaseException:
                session.end()
                raise
            else:
                attempts.worked(delegate)
                self._keep(sa, number, session)
                self._settle(sa, number, session, responses)
                return responses

    def _opened(self, opening: Opening, delegate: str) -> _Session:
        return _Session(self._device, delegate, peer=opening.peer, further=opening.without_authentication)

    def _found(self, sa: IkeSa, number: int) -> _Session:
        session = self._sessions.get((sa, number))
        if session is None:
            raise Refused("the session with the authority is over")
        return session

    def _keep(self, sa: IkeSa, number: int, session: _Session) -> None:
        self._drop(sa, number)
        self._sessions[sa, number] = session
        if not session.further:
            self._flows[sa] = session.flow

    def _settle(self, sa: IkeSa, number: int, session: _Session, responses: Sequence[Response]) -> None:
        """End the session when that was the last of it, or wait for what comes next."""
        # Where something ended it, nothing was performed after that.
        if responses[-1].last or responses[-1].ends_batch:
            self._drop(sa, number)
        else:
            session.until = self._clock() + SESSION_TIME
            if self._timer is None:
                self._look_later(session.until)

    def _look_later(self, due: float) -> None:
        self._timer = asyncio.get_running_loop().call_at(due, self._give_up)

    def _give_up(self) -> None:
        """Drop the sessions that nobody has asked anything of for long."""
        self._timer = None
        now = self._clock()
        for sa, number in [key for key, session in self._sessions.items() if session.until <= now]:
            self._drop(sa, number)
        if self._sessions:
            # One that is being asked ends by itself, or is looked at when it has been.
            due = min(session.until for session in self._sessions.values())
            self._look_later(min(due, now + SESSION_TIME))

    def _drop(self, sa: IkeSa, number: int) -> None:
        session = self._sessions.pop((sa, number), None)
        if session is not None:
            session.end()

    def _tell(self, detail: str) -> None:
        self._device.observer(TerminalStep(actor=Actor.TERMINAL, operation=StepName.NEXT_DELEGATE, detail=detail))

    @staticmethod
    def _clock() -> float:
        return asyncio.get_running_loop().time()


class _Session:
    """One session with one authority."""

    def __init__(self, device: Device[AsyncChannel], delegate: str, *, peer: str, further: bool) -> None:
        self.further = further
        self.flow = Flow(peer=peer, observer=device.observer)
        self._delegate = delegate
        self._channel = device.channels.get(delegate)
        self._remote = RemoteSession()
        self._local: AuthoritySession | None = (
            None if device.authority is None else device.authority.open(device.name)
        )
        self._entered = False
        #: until when it is kept while nobody asks anything; never given up while something is asked
        self.until = _NEVER
        secure = self._channel is None or self._channel.secure_path
        if not secure:
            device.keys.set_channel_key(delegate, self._channel)
        self.flow.path(delegate, secure=secure, keys=device.keys)

    async def begin(self, requests: tuple[Request, ...], *, deadline: float) -> tuple[Response, ...]:
        """Wait for one's turn with the delegate, then `perform`. Raises: as that."""
        if self._channel is not None:
            await self._channel.enter(deadline=deadline)
            self._entered = True
        return await self.perform(requests, deadline=deadline)

    async def perform(self, requests: tuple[Request, ...], *, deadline: float) -> tuple[Response, ...]:
        """Ask the delegate for `requests` until `deadline` of the loop's clock. Raises: LocumError."""
        self.until = _NEVER
        try:
            self.flow.ask(requests)
            return await self._perform_there(requests, deadline)
        except LocumError as error:
            self.flow.failed(error)
            raise

    def perform_here(self, requests: tuple[Request, ...]) -> tuple[Response, ...]:
        """Ask the authority in this process for `requests`. Raises: LocumError."""
        assert self._local is not None
        loop = asyncio.get_running_loop()
        try:
            self.flow.ask(requests)
            started = loop.time()
            responses = self._local.perform(requests)
            self._answered(requests, responses, Cost(seconds=loop.time() - started))
        except LocumError as error:
            self.flow.failed(error)
            raise
        return responses

    async def _perform_there(self, requests: tuple[Request, ...], deadline: float) -> tuple[Response, ...]:
        payload, cost = self._remote.encode(requests), Cost()
        while True:
            answer = await self._post(payload, deadline)
            cost += answer.cost
            try:
                outcome = self._remote.decode(answer.payload, answer.code)
            except (Unavailable, TimedOut) as error:
                raise DelegateFailed(self._delegate, error) from None
            if not isinstance(outcome, Resend):
                self._answered(requests, outcome, cost)
                return outcome
            payload = outcome.payload

    async def _post(self, payload: bytes, deadline: float) -> Answer:
        """Post once, and again for as long as the delegate wants fewer requests: it has not looked at them."""
        assert self._channel is not None
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE
        answer = await self._channel.post(payload, deadline=deadline)
        while answer.code == Code.TOO_MANY_REQUESTS and loop.time() + pause < deadline:
            await asyncio.sleep(pause * (0.5 + os.urandom(1)[0] / 510))
            pause = min(2 * pause, LONGEST_PAUSE)
            answer = await self._channel.post(payload, deadline=deadline)
        return answer

    def _answered(self, requests: tuple[Request, ...], responses: tuple[Response, ...], cost: Cost) -> None:
        self.flow.answered(requests, responses, cost=cost)
        if self.further and responses[-1].last:
            self.flow.derived("from the shared secret, under the keys of the SA")

    def end(self) -> None:
        """Whatever the outcome, nobody keeps more of this session than is needed."""
        if self._local is not None:
            self._local.close()
        if self._channel is None:
            return
        payload = self._remote.close_payload()
        if payload:
            self._channel.tell(payload)
        if self._entered:
            self._entered = False
            self._channel.leave()
