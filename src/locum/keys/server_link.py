"""One key server as its user sees it: a connection over mutual TLS that is kept, pipelined and watched (C4, C6).

Never knows what a request asks, nor whether another server could answer it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from locum.errors import ConfigurationError, LocumError, Unavailable
from locum.keyless.frames import Frame, FrameReader
from locum.keyless.requests import Ping, encode_request
from locum.keys.credential import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, EdgeCredential
from locum.names import HostPort

log = logging.getLogger(__name__)

#: The suites of TLS 1.2 that are offered; those of TLS 1.3 are all good.
CIPHERS_12 = "ECDHE+AESGCM:ECDHE+CHACHA20"
#: A connection that has lasted for so many seconds was a good one: after it the back-off begins anew.
STABLE = 1.0
#: The id of pings, which no other request has.
PING_ID = 0
#: What goes with a ping: no edge needs to learn anything from the answer.
_PING = encode_request(PING_ID, Ping())
#: Servers that do not accept a certificate often say no more than this.
_UNHEARD = " before an answer came: has this edge been revoked, or was it enrolled elsewhere?"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """Times of one link, in seconds.

    `connect_timeout` is for TCP, TLS and the first answer together. A link that has been silent for
    `ping_interval` is asked, and one that then says nothing for `ping_timeout` is given up. After a failure the
    next attempt comes within `first_delay`, doubled with every further one up to `longest_delay`, half of it at
    random.
    """

    connect_timeout: float = 5.0
    ping_interval: float = 5.0
    ping_timeout: float = 2.0
    first_delay: float = 0.05
    longest_delay: float = 5.0


class Call:
    """One request, wherever it is under way; its id is the same with every server."""

    __slots__ = ("answer", "attempts", "frame", "hedged", "links", "number", "started", "tried")

    def __init__(self, number: int, frame: bytes, answer: asyncio.Future[bytes], started: float) -> None:
        self.number = number
        self.frame = frame
        self.answer = answer
        #: In seconds of the loop's clock.
        self.started = started
        self.attempts = 0
        self.hedged = False
        #: Where it is under way.
        self.links: list[ServerLink] = []
        #: Who has said that it cannot do it now.
        self.tried: list[ServerLink] = []


class Owner(Protocol):
    """Who uses a link, and hears from it."""

    def came_up(self, link: ServerLink) -> None:
        """The link takes calls now."""

    def went_down(self, link: ServerLink, calls: list[Call]) -> None:
        """The link takes no calls any more; `calls` were under way and have no answer."""

    def answered(self, link: ServerLink, call: Call, frame: Frame) -> None:
        """`frame` is the answer to `call`."""


class ServerLink:
    """The connection to one key server: opened, watched, and opened again for as long as it is wanted."""

    def __init__(
        self, server: HostPort, credential: EdgeCredential, *, options: LinkOptions, owner: Owner
    ) -> None:
        self.server = server
        self.owner = owner
        #: What is under way here, by id.
        self.pending: dict[int, Call] = {}
        #: True while calls can be sent.
        self.up = False
        #: True from the moment that an answer is overdue until something is heard again.
        self.slow = False
        #: Requests that were answered.
        self.answered = 0
        #: Why it is not up, for people to read.
        self.reason = "not connected yet"
        self._credential = credential
        self._options = options
        self._context: ssl.SSLContext | None = None
        self._connection: _Connection | None = None
        self._probing = False
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<ServerLink {self.server} {'up' if self.up else 'down'}>"

    def start(self) -> None:
        """Begin to connect, on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._keep_connected(), name=f"link {self.server}")

    async def close(self) -> None:
        """Give up the connection; calls that are under way are the owner's matter."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def send(self, call: Call) -> None:
        """Send a call; only while the link is up."""
        assert self._connection is not None
        self.pending[call.number] = call
        self._connection.send(call.frame)

    def overdue(self) -> None:
        """An answer is late: others are preferred until something is heard, and the server is asked for a sign."""
        self.slow = True
        if self.up and not self._probing:
            self._probe()

    @property
    def congested(self) -> bool:
        """True while what was sent waits to be taken by the network."""
        return self._connection is not None and self._connection.paused

    # --- the connection ------------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            try:
                connection = await self._connect()
                try:
                    began = loop.time()
                    self._come_up(connection)
                    await self._watch(connection)
                    log.warning(
                        "a key server was lost", extra={"server": str(self.server), "reason": connection.reason}
                    )
                finally:
                    connection.abort()
                    self._go_down(connection.reason)
                failures = 0 if loop.time() - began > STABLE else failures + 1
            except (OSError, LocumError) as error:
                self._failed(_why(error))
                failures += 1
            except Exception:
                log.exception("a defect while connecting to a key server", extra={"server": str(self.server)})
                self._failed("a defect in locum, which is in its log")
                failures += 1
            await asyncio.sleep(self._delay(failures))

    def _delay(self, failures: int) -> float:
        """Seconds until the next attempt; the random half keeps many edges from coming back all at once."""
        options = self._options
        longest = min(options.longest_delay, options.first_delay * 2.0 ** min(failures, 16))
        return longest * (0.5 + random.random() / 2)

    async def _connect(self) -> _Connection:
        """A connection on which the server has answered: only that, in TLS 1.3, says that it takes us."""
        if self._context is None:
            self._context = client_context(self._credential)
        async with asyncio.timeout(self._options.connect_timeout):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self._heard),
                self.server.host,
                self.server.port,
                ssl=self._context,
                server_hostname=self._credential.server_name,
            )
            try:
                connection.send(_PING)
                if not await connection.alive:
                    raise Unavailable(f"{connection.reason}{_UNHEARD}")
            except BaseException:
                connection.abort()
                raise
        return connection

    def _failed(self, reason: str) -> None:
        if reason != self.reason:
            log.warning("a key server cannot be reached", extra={"server": str(self.server), "reason": reason})
        self.reason = reason
        # What was wrong may be repaired in the files.
        self._context = None

    def _come_up(self, connection: _Connection) -> None:
        log.info("a key server is up", extra={"server": str(self.server)})
        self._connection = connection
        self.up, self.slow, self._probing, self.reason = True, False, False, ""
        self.owner.came_up(self)

    def _go_down(self, reason: str) -> None:
        self.up, self._connection, self.reason = False, None, reason
        calls = list(self.pending.values())
        self.pending.clear()
        self.owner.went_down(self, calls)

    async def _watch(self, connection: _Connection) -> None:
        """Return when the connection is lost; ask the server for a sign of life whenever it has been silent."""
        while True:
            heard = connection.heard
            done, _ = await asyncio.wait((connection.lost,), timeout=self._options.ping_interval)
            if done:
                return
            if connection.heard == heard and not self._probing:
                self._probe()

    def _probe(self) -> None:
        connection = self._connection
        assert connection is not None
        self._probing = True
        connection.send(_PING)
        loop = asyncio.get_running_loop()
        loop.call_later(self._options.ping_timeout, self._judge, connection, connection.heard)

    def _judge(self, connection: _Connection, heard: int) -> None:
        if connection is not self._connection:
            return
        self._probing = False
        if connection.heard == heard:
            connection.reason = f"no sign of life within {self._options.ping_timeout:g} s"
            connection.abort()

    def _heard(self, frames: list[Frame]) -> None:
        self.slow = False
        pending, owner = self.pending, self.owner
        for frame in frames:
            call = pending.pop(frame.id, None)
            if call is not None:
                self.answered += 1
                owner.answered(self, call, frame)


class _Connection(asyncio.Protocol):
    """One TCP connection: frames in, and bytes out that are gathered for one turn of the loop."""

    def __init__(self, receive: Callable[[list[Frame]], None]) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._receive = receive
        self._reader = FrameReader()
        self._transport: asyncio.WriteTransport | None = None
        self._output: list[bytes] = []
        self.paused = False
        #: How often something has arrived.
        self.heard = 0
        #: True when the first frame has come, False when the connection was lost before.
        self.alive: asyncio.Future[bool] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.reason = "the key server closed the connection"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.WriteTransport", transport)
        if self._output:
            self._flush()

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if reader.fault is not None:
            return
        self.heard += 1
        frames = reader.feed(data)
        if frames:
            if not self.alive.done():
                self.alive.set_result(True)
            self._receive(frames)
        if reader.fault is not None:
            self.reason = f"not the keyless protocol: {reader.fault}"
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None and not isinstance(error, ConnectionResetError):
            self.reason = _why(error)
        self._transport = None
        if not self.alive.done():
            self.alive.set_result(False)
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def send(self, frame: bytes) -> None:
        """Send `frame` with everything else that is sent in this turn of the loop."""
        output = self._output
        output.append(frame)
        if len(output) == 1:
            self._loop.call_soon(self._flush)

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        if self._transport is not None and self._output:
            self._transport.write(b"".join(self._output))
            self._output.clear()


# --- TLS --------------------------------------------------------------------------------------------------


def client_context(credential: EdgeCredential) -> ssl.SSLContext:
    """What an edge speaks to key servers: TLS 1.3 or 1.2, its own certificate, and one authority to trust.

    Raises: ConfigurationError when the files of the credential do not belong together, or are not in a directory.
    """
    directory = credential.directory
    if directory is None:
        raise ConfigurationError("the credential is in no directory: write it first")
    # The files are read again, so that a credential that has been renewed is used from the next connection on.
    credential = EdgeCredential.load(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS_12)
    context.options |= ssl.OP_NO_COMPRESSION
    try:
        context.load_verify_locations(cadata=credential.ca.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise ConfigurationError(f"{directory / AUTHORITY_FILE}: not a certificate in PEM") from None
    try:
        context.load_cert_chain(directory / CERTIFICATE_FILE, directory / KEY_FILE, password=_no_password)
    except (ssl.SSLError, ValueError):
        raise ConfigurationError(
            f"{directory}: {CERTIFICATE_FILE} and {KEY_FILE} do not belong together, or are not in PEM"
        ) from None
    return context


def _no_password() -> str:
    """Keeps OpenSSL from asking a person at the terminal."""
    return ""


def _why(error: BaseException) -> str:
    """An error of a connection for people to read."""
    if isinstance(error, LocumError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'unknown reason').lower().replace('_', ' ')}"
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return f"the connection was lost{_UNHEARD}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "the connection was lost"
