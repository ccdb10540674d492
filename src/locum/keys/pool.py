"""Key servers as one: whoever is up answers, a slow one is overtaken, a lost one costs nothing (C4, C7).

Never holds a key, and never looks into an answer.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

from locum.errors import DecodeError, OperationError, Refused, TimedOut, Unavailable
from locum.keyless.errors import error_of
from locum.keyless.frames import Frame, KeyReference
from locum.keyless.operations import KeyOperation
from locum.keyless.queries import (
    Answer,
    CertificateAnswer,
    CertificateNamesAnswer,
    CertificateNamesQuery,
    CertificateQuery,
    KeysAnswer,
    KeysQuery,
    OfferedKey,
    Query,
    TicketsAnswer,
    TicketsQuery,
    decode_answer,
)
from locum.keyless.registry import MAX_ID, Opcode
from locum.keyless.requests import NO_KEY, Request, Seal, Unseal, encode_request
from locum.keys.credential import EdgeCredential
from locum.keys.remote import RemoteKey
from locum.keys.server_link import PING_ID, Call, LinkOptions, ServerLink
from locum.names import HostPort

#: How often a call is sent at most, because the server that had it was lost: it may be what it died of.
MAX_ATTEMPTS = 8
#: Hedged requests that may be sent at once, and how many more for every answer: servers that are busy are not
#: helped by being asked everything twice.
HEDGE_CREDIT = 256.0
HEDGE_RATE = 0.1
#: Pages of keys or names that are asked for.
MAX_PAGES = 1024

_RESPONSE, _ERROR = int(Opcode.RESPONSE), int(Opcode.ERROR)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """How the servers are used.

    `policy` "ordered" takes the first that is up, in the order of the credential; "least" the one with the least
    work outstanding. An operation that takes longer than `hedge_delay` seconds is asked of another server too
    (None: never), and one without answer after `timeout` seconds fails, as does one beyond `max_outstanding`.
    """

    policy: Literal["ordered", "least"] = "least"
    timeout: float = 5.0
    hedge_delay: float | None = 0.05
    max_outstanding: int = 4096
    link: LinkOptions = field(default_factory=LinkOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """One key server, to show: `reason` says why it is not up."""

    server: HostPort
    up: bool
    slow: bool
    outstanding: int
    answered: int
    reason: str


class KeyServerPool:
    """The key servers of one credential, for the event loop that it is entered on.

    `servers` replaces those of the credential. Entering begins to connect and does not wait; operations wait for a
    server that is up until their time is over.
    """

    def __init__(
        self,
        credential: EdgeCredential,
        *,
        servers: Sequence[HostPort] | None = None,
        options: PoolOptions | None = None,
    ) -> None:
        self._options = options or PoolOptions()
        self._links = [
            ServerLink(server, credential, options=self._options.link, owner=self)
            for server in servers or credential.servers
        ]
        self._calls: dict[int, Call] = {}
        self._last_number = PING_ID
        self._turn = 0
        self._hedges = HEDGE_CREDIT
        self._timer: asyncio.TimerHandle | None = None
        #: When the timer goes off.
        self._due = math.inf
        #: Seconds from the beginning of a call to the first look at it.
        hedge_delay = math.inf if self._options.hedge_delay is None else self._options.hedge_delay
        self._soonest = min(self._options.timeout, hedge_delay)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> KeyServerPool:
        self._loop = asyncio.get_running_loop()
        for link in self._links:
            link.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; what is under way fails with Unavailable."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._due = None, math.inf
        for call in self._calls.values():
            _fail(call, Unavailable("the connections to the key servers were closed"))
        for link in self._links:
            await link.close()

    # --- asking --------------------------------------------------------------------------------------------

    async def perform(self, reference: KeyReference, operation: KeyOperation) -> bytes:
        """Have `operation` performed with the key `reference`.

        Returns what the protocol answers: a signature, a master secret, or for `Decrypt` the padded block.
        Raises: Refused, finally; Unavailable when no server can do it; TimedOut.
        """
        return await self.ask(operation, reference)

    async def ask(self, request: Request, reference: KeyReference = NO_KEY) -> bytes:
        """Ask any request; returns the payload of the answer. Raises: as `perform`."""
        loop = self._loop
        if loop is None:
            raise Unavailable("the connections to the key servers are closed")
        if len(self._calls) >= self._options.max_outstanding:
            raise Unavailable(f"{len(self._calls)} operations are waiting for the key servers")
        number = self._new_number()
        try:
            frame = encode_request(number, request, reference)
        except ValueError as error:
            raise Refused(f"this cannot be asked of a key server: {error}") from None
        call = Call(number, frame, loop.create_future(), loop.time())
        self._calls[number] = call
        self._dispatch(call)
        due = call.started + self._soonest
        if due < self._due:
            self._arm(due)
        try:
            return await call.answer
        finally:
            del self._calls[number]
            for link in call.links:
                link.pending.pop(number, None)

    async def ready(self, wait: float) -> None:
        """Return as soon as a server is up. Raises: Unavailable, with the reasons, when none is after `wait` s."""
        if self._loop is None:
            raise Unavailable("the connections to the key servers are closed")
        if any(link.up for link in self._links):
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(wait):
                await waiter
        except TimeoutError:
            raise Unavailable(self._why_down()) from None
        finally:
            self._waiting.remove(waiter)

    async def keys(self) -> tuple[OfferedKey, ...]:
        """The keys that this edge may use. Raises: as `perform`."""
        found: list[OfferedKey] = []
        for _ in range(MAX_PAGES):
            answer = await self._query(KeysQuery(start=len(found)))
            assert isinstance(answer, KeysAnswer)
            found += answer.keys
            if not answer.more or not answer.keys:
                break
        return tuple(found)

    async def certificate(self, server_name: str) -> CertificateAnswer:
        """The certificate for a server name (C3). Raises: as `perform`; Refused when there is none."""
        answer = await self._query(CertificateQuery(server_name=server_name))
        assert isinstance(answer, CertificateAnswer)
        return answer

    async def certificate_names(self) -> tuple[str, ...]:
        """The DNS names that there are certificates for, wildcards among them. Raises: as `perform`."""
        found: list[str] = []
        for _ in range(MAX_PAGES):
            answer = await self._query(CertificateNamesQuery(start=len(found)))
            assert isinstance(answer, CertificateNamesAnswer)
            found += answer.names
            if not answer.more or not answer.names:
                break
        return tuple(found)

    async def tickets(self) -> TicketsAnswer:
        """The root of the session ticket keys that all edges share. Raises: as `perform`."""
        answer = await self._query(TicketsQuery())
        assert isinstance(answer, TicketsAnswer)
        return answer

    async def seal(self, content: bytes) -> bytes:
        """`content` encrypted by the key server. Raises: as `perform`."""
        return await self.ask(Seal(content))

    async def unseal(self, sealed: bytes) -> bytes:
        """What `seal` had encrypted. Raises: as `perform`."""
        return await self.ask(Unseal(sealed))

    def key(self, offered: OfferedKey) -> RemoteKey:
        """A key of the servers, as a `KeyHolder`."""
        return RemoteKey(self, offered)

    def status(self) -> tuple[ServerStatus, ...]:
        """Every server, in the order of the credential."""
        return tuple(
            ServerStatus(
                server=link.server,
                up=link.up,
                slow=link.slow,
                outstanding=len(link.pending),
                answered=link.answered,
                reason=link.reason,
            )
            for link in self._links
        )

    async def _query(self, query: Query) -> Answer:
        try:
            return decode_answer(query, await self.ask(query))
        except DecodeError as error:
            raise Unavailable(f"the key server's answer is malformed: {error}") from None

    def _new_number(self) -> int:
        number = self._last_number
        while True:
            number = number % MAX_ID + 1
            if number not in self._calls:
                self._last_number = number
                return number

    # --- choosing ------------------------------------------------------------------------------------------

    def _dispatch(self, call: Call) -> bool:
        """Send `call` to a server; False when none takes it now."""
        link = self._choose(call)
        if link is None:
            return False
        call.attempts += 1
        call.links.append(link)
        link.send(call)
        return True

    def _choose(self, call: Call) -> ServerLink | None:
        """The best server that is up and has neither got the call nor said that it cannot do it."""
        best, best_rank = None, (math.inf, math.inf)
        ordered = self._options.policy == "ordered"
        self._turn += 1
        for index, link in enumerate(self._links):
            if not link.up or link in call.links or link in call.tried:
                continue
            load: float = index if ordered else len(link.pending)
            rank = (link.slow + link.congested, load)
            # Of two with the same load each gets its turn.
            if rank < best_rank or (rank == best_rank and self._turn % len(self._links) == index):
                best, best_rank = link, rank
        return best

    # --- what becomes of it --------------------------------------------------------------------------------

    def answered(self, link: ServerLink, call: Call, frame: Frame) -> None:
        """As `Owner.answered`."""
        call.links.remove(link)
        if call.answer.done():
            return
        self._hedges = min(HEDGE_CREDIT, self._hedges + HEDGE_RATE)
        if frame.opcode == _RESPONSE:
            call.answer.set_result(frame.payload)
            return
        error: OperationError
        if frame.opcode == _ERROR:
            error = error_of(frame.payload, frame.extra)
        else:
            error = Unavailable(f"the key server answered with the opcode {frame.opcode:02x}")
        if not isinstance(error, Unavailable):
            _fail(call, error)
            return
        call.tried.append(link)
        # It may be under way elsewhere; else another server is asked, once each.
        if not call.links and not self._dispatch(call):
            _fail(call, error)

    def came_up(self, link: ServerLink) -> None:
        """As `Owner.came_up`: what has waited for a server goes out."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        for call in self._calls.values():
            if not call.links and not call.answer.done():
                self._dispatch(call)

    def went_down(self, link: ServerLink, calls: list[Call]) -> None:
        """As `Owner.went_down`: every call goes to another server, or waits for one."""
        for call in calls:
            call.links.remove(link)
            if call.links or call.answer.done():
                continue
            if call.attempts >= MAX_ATTEMPTS:
                _fail(call, Unavailable(f"{call.attempts} connections were lost while a key server was at it"))
            else:
                self._dispatch(call)

    # --- time ----------------------------------------------------------------------------------------------

    def _arm(self, due: float) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_at(due, self._sweep)

    def _sweep(self) -> None:
        """Fail what is too late, hedge what is slow, and come back when the next call is due.

        Calls are in the order in which they began, so that the first one that is not due ends it.
        """
        assert self._loop is not None
        now = self._loop.time()
        timeout, hedge_delay = self._options.timeout, self._options.hedge_delay
        due = math.inf
        for call in self._calls.values():
            end = call.started + timeout
            if now >= end:
                _fail(call, self._too_late(call))
                continue
            due = min(due, end)
            if hedge_delay is None:
                break
            if not call.hedged:
                hedge_at = call.started + hedge_delay
                if now < hedge_at:
                    due = min(due, hedge_at)
                    break
                self._hedge(call)
        self._timer, self._due = None, math.inf
        if due < math.inf:
            self._arm(due)

    def _hedge(self, call: Call) -> None:
        """Ask another server too, if there is one."""
        call.hedged = True
        if not call.links or call.answer.done():
            return
        for link in call.links:
            link.overdue()
        if self._hedges >= 1.0 and self._dispatch(call):
            self._hedges -= 1.0

    def _too_late(self, call: Call) -> OperationError:
        if call.links:
            return TimedOut(f"no key server has answered within {self._options.timeout:g} s")
        return Unavailable(self._why_down())

    def _why_down(self) -> str:
        reasons = [f"{link.server}: {link.reason}" for link in self._links if not link.up]
        return "no key server can be reached: " + ("; ".join(reasons) or "too late")


def _fail(call: Call, error: OperationError) -> None:
    if not call.answer.done():
        call.answer.set_exception(error)
