"""Certificates that only the key server has, fetched by name and kept for a time (C3; claims 8, 9, 19; fig 3).

Never writes one to a file. How long one is kept is for the key server to say, and for the edge to shorten.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from locum.edge.certificates import CertificateIndex, Chain, Choice, Served, staple_end
from locum.edge.key_ring import KeyRing, KeyServers
from locum.errors import ConfigurationError, Refused, Unavailable
from locum.tls.server_operations import ServerStartRequest

log = logging.getLogger(__name__)

#: Names that are remembered with a certificate, and without one: strangers ask for any name they like.
MAX_NAMES = 4096
#: Seconds for which a name is remembered that there is no certificate for.
ABSENT_SECONDS = 5.0
#: Names that are asked for at a time.
MAX_QUESTIONS = 64
#: Longest name that is asked for, in characters.
MAX_NAME = 253


@dataclass(slots=True)
class _Entry:
    """What is known of a name: certificates, or None, from `fetched` until `until` (seconds of the clock)."""

    index: CertificateIndex | None
    fetched: float
    until: float


class FetchedCertificates:
    """The key server's certificates. `lifetime`, in seconds, is the longest that one is kept; 0 asks each time.

    A certificate is fetched again when half its time is over, without anybody waiting for it. `now` gives seconds
    since the epoch, and is the clock.
    """

    def __init__(self, servers: KeyServers, ring: KeyRing, *, lifetime: float, now: Callable[[], float]) -> None:
        self._servers = servers
        self._ring = ring
        self._lifetime = lifetime
        self._now = now
        #: The longest unused first.
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        #: Apart from the others, so that whoever asks for what is not there pushes out nothing that is.
        self._absent: OrderedDict[str, _Entry] = OrderedDict()
        self._questions: dict[str, asyncio.Task[_Entry]] = {}

    async def choose(self, request: ServerStartRequest) -> Choice | None:
        """The certificate for this client; None when the key server has none for the name.

        Raises: LocumError when the key server cannot be asked.
        """
        index = await self._find(request.server_name.lower().removesuffix("."))
        return index.choose(request) if index is not None else None

    def forget(self) -> None:
        """Fetch everything anew from here on."""
        self._entries.clear()
        self._absent.clear()

    async def _find(self, name: str) -> CertificateIndex | None:
        if len(name) > MAX_NAME:
            return None
        now = self._now()
        entry = self._entries.get(name) or self._absent.get(name)
        # A clock that was set back must not make an entry live longer.
        if entry is None or not entry.fetched <= now < entry.until:
            return (await self._ask(name)).index
        if entry.index is not None:
            self._entries.move_to_end(name)
            if now > (entry.fetched + entry.until) / 2 and len(self._questions) < MAX_QUESTIONS:
                self._question(name)
        return entry.index

    async def _ask(self, name: str) -> _Entry:
        # Whoever gives up waiting must not take the answer from those who wait for the same name.
        return await asyncio.shield(self._question(name))

    def _question(self, name: str) -> asyncio.Task[_Entry]:
        """The one question about `name` that is under way."""
        task = self._questions.get(name)
        if task is None:
            if len(self._questions) >= MAX_QUESTIONS:
                raise Unavailable(f"{MAX_QUESTIONS} certificates are being fetched, the most at a time")
            task = self._questions[name] = asyncio.ensure_future(self._fetch(name))
            task.add_done_callback(lambda done: self._answered(name, done))
        return task

    def _answered(self, name: str, task: asyncio.Task[_Entry]) -> None:
        del self._questions[name]
        # Looked at here, because nobody may be waiting for it.
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("certificate cannot be fetched", extra={"server_name": name, "error": str(error)})

    async def _fetch(self, name: str) -> _Entry:
        try:
            answer = await self._servers.certificate(name or await self._first_name())
        except Refused:
            return self._remember(name, None, ABSENT_SECONDS)
        try:
            chain = Chain.read(answer.chain)
            until = staple_end(answer.ocsp_response) if answer.ocsp_response else 0.0
        except ConfigurationError as error:
            raise Unavailable(f"the key server's certificate for {name!r} cannot be used: {error}") from None
        holder = self._ring.holder(chain.public_key)
        served = Served(chain=chain, holder=holder, ocsp=answer.ocsp_response, ocsp_until=until)
        index = CertificateIndex((served,), now=self._now())
        return self._remember(name, index, min(self._lifetime, answer.lifetime))

    async def _first_name(self) -> str:
        """The name whose certificate is for clients that name none. Raises: Refused when there is no name."""
        names = await self._servers.certificate_names()
        if not names:
            raise Refused("the key server has no certificate for this edge")
        return next((name for name in names if not name.startswith("*.")), names[0].replace("*", "www", 1))

    def _remember(self, name: str, index: CertificateIndex | None, seconds: float) -> _Entry:
        now = self._now()
        entry = _Entry(index, now, now + seconds)
        entries, others = (self._absent, self._entries) if index is None else (self._entries, self._absent)
        others.pop(name, None)
        entries[name] = entry
        entries.move_to_end(name)
        if len(entries) > MAX_NAMES:
            entries.popitem(last=False)
        return entry
