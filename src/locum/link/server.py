"""The server of the link: bytes from anywhere in, authenticated requests out, answers back; without I/O.

Never knows what a request asks for. Whatever arrives, it answers by the RFCs or discards, and goes on (A3).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import field

from locum.crypto.symmetric import AuthenticationFailed
from locum.errors import DecodeError, LocumError, Misbehaved, Unavailable
from locum.link.blockwise import Block, Download, Shelf, Upload, block_of, szx_for
from locum.link.coap import (
    BASE_STREAM_MESSAGE,
    MAXIMUM_BODY,
    OUTER_RULES,
    RULES,
    Code,
    Framing,
    Message,
    Option,
    OptionNumber,
    Options,
    StreamReader,
    Type,
    UnacceptableOption,
    capabilities,
    empty,
    maximum_message_size,
    recognise,
    reset_for,
    uint,
)
from locum.link.contexts import Context, ContextLimits, ContextTable, CredentialSource
from locum.link.exchange import MessageIds, RandomSource, Recent, Retransmissions, TransmissionParameters
from locum.link.oscore import OscoreOption, partial_iv
from locum.values import dataclass

#: Bytes around the payload of a response, at most: header, token, options with ETag and Block1, markers, tag.
RESPONSE_OVERHEAD = 56
#: Bytes of the ETag by which the blocks of one response are told from those of another.
ETAG_LENGTH = 2
#: Bytes of a terminal's name on a plain endpoint.
MAXIMUM_NAME = 64

__all__ = ["CredentialSource", "Framing", "IncomingRequest", "Limits", "Server", "TransmissionParameters"]

_OSCORE = int(OptionNumber.OSCORE)
_NAME_QUERY = b"t="


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a server remembers; the oldest is forgotten first. Counts, and seconds for `body_lifetime`.

    `exchanges` are answers kept for repeated requests, `bodies` are unfinished block-wise transfers in each
    direction (of at most 64 KiB each), `separate` are answers that wait for their acknowledgement, `connections`
    are streams.
    """

    contexts: ContextLimits = field(default_factory=ContextLimits)
    exchanges: int = 16384
    bodies: int = 256
    bodies_per_terminal: int = 8
    body_lifetime: float = 60.0
    separate: int = 4096
    connections: int = 4096


class _Exchange:
    """One request as it arrived, and what its answer needs."""

    __slots__ = (
        "acknowledged",
        "answer",
        "answered",
        "block1",
        "body_key",
        "context",
        "message_id",
        "outer_code",
        "own_number",
        "owner",
        "remote",
        "request_piv",
        "szx",
        "token",
        "type",
    )

    def __init__(self, message: Message, remote: Hashable) -> None:
        self.remote = remote
        self.outer_code = message.code
        self.token = message.token
        self.type = message.type
        self.message_id = message.message_id
        self.context: Context | None = None
        self.request_piv = b""
        #: The answer needs a nonce of the delegate's own, because the request is not known to be fresh.
        self.own_number = False
        self.owner: Hashable = remote
        self.body_key: Hashable = None
        self.block1: Block | None = None
        self.szx: int | None = None
        self.acknowledged = False
        self.answered = False
        self.answer: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IncomingRequest:
    """A whole request to be answered with `Server.respond`, once.

    `terminal` is the name of the terminal that the request is authenticated for; on a plain endpoint it is the
    name that the request claims, possibly empty. `path` begins with a slash: ``/kx``.
    """

    remote: Hashable
    terminal: str
    path: str
    payload: bytes = field(repr=False)
    _exchange: _Exchange = field(repr=False)


class _Connection:
    """One stream: what has arrived of it, and what its other end can take."""

    __slots__ = ("error", "maximum", "reader")

    def __init__(self) -> None:
        self.reader = StreamReader()
        self.maximum = BASE_STREAM_MESSAGE
        self.error: LocumError | None = None


class _Answer(LocumError):
    """Ends the work on a request with an answer that the application has no part in."""

    def __init__(self, code: int, text: bytes = b"", options: Options = ()) -> None:
        super().__init__(f"answered with {code:#04x}")
        self.code = code
        self.text = text
        self.options = options


class Server:
    """One endpoint: one UDP socket, or all connections of one TCP port.

    With `credentials` it serves requests that OSCORE protects; with `plain` also, and only then, unprotected ones:
    that is for a path declared secure (A4). Servers that answer under the same credentials, over UDP and over TCP,
    must share one `ContextTable`: else a request replayed from one to the other looks fresh there. `remote` is any
    hashable name of where bytes come from and go to; on a stream it names one connection. All moments are seconds
    of one steady clock.
    """

    def __init__(
        self,
        *,
        credentials: CredentialSource | ContextTable | None,
        plain: bool = False,
        framing: Framing,
        random: RandomSource,
        parameters: TransmissionParameters | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._parameters = parameters or TransmissionParameters()
        self._limits = limits or Limits()
        self._framing = framing
        self._plain = plain
        self._random = random
        if credentials is not None and not isinstance(credentials, ContextTable):
            credentials = ContextTable(credentials, random=random, limits=self._limits.contexts)
        self._contexts = credentials
        self._output: list[tuple[bytes, Hashable]] = []
        self._exchanges: Recent[tuple[Hashable, bytes], _Exchange] = Recent(
            self._limits.exchanges, self._parameters.exchange_lifetime
        )
        self._unanswered: deque[tuple[float, _Exchange]] = deque()
        self._separate: Retransmissions[tuple[Hashable, int]] = Retransmissions(self._parameters, random)
        self._message_ids = MessageIds(random)
        shelf = self._limits.bodies_per_terminal, self._limits.bodies, self._limits.body_lifetime
        self._uploads: Shelf[Upload] = Shelf(*shelf)
        self._downloads: Shelf[Download] = Shelf(*shelf)
        self._connections: dict[Hashable, _Connection] = {}

    # --- the driver's side ---------------------------------------------------------------------------------

    def receive(self, data: bytes, remote: Hashable, *, now: float) -> list[IncomingRequest]:
        """Take one datagram, or bytes of a stream as they arrived; returns the requests to answer.

        Never raises for a datagram. For a stream raises LocumError when it cannot go on: send what `transmit` has
        for it, then close it and call `disconnected`.
        """
        if self._framing is Framing.STREAM:
            return self._receive_stream(data, remote, now)
        request = self._receive_datagram(data, remote, now)
        return [] if request is None else [request]

    def respond(self, request: IncomingRequest, code: int, payload: bytes, *, now: float) -> None:
        """Answer `request` with a response code (`Code`) and a body of at most `MAXIMUM_BODY` bytes.

        Raises: ValueError when it was answered before, or the body is too large.
        """
        exchange = request._exchange
        if exchange.answered:
            raise ValueError("this request has been answered")
        if len(payload) > MAXIMUM_BODY:
            raise ValueError(f"a response of {len(payload)} bytes, more than {MAXIMUM_BODY}")
        options: list[Option] = []
        szx = self._response_szx(exchange, len(payload))
        if szx is not None:
            download = Download(code, payload, self._random(ETAG_LENGTH))
            self._downloads.put(exchange.owner, exchange.body_key, download, now)
            block, payload = download.block(0, szx) or (Block(0, False, szx), b"")
            options += (OptionNumber.ETAG, download.etag), (OptionNumber.BLOCK2, block.write())
        if exchange.block1 is not None:
            options.append((OptionNumber.BLOCK1, exchange.block1.write()))
        self._answer(exchange, code, tuple(options), payload, now)

    def transmit(self) -> list[tuple[bytes, Hashable]]:
        """What is to be sent now, and where to, in order."""
        output = self._output
        self._output = []
        return output

    def next_timeout(self) -> float | None:
        """The moment to call `expire`, or None while nothing waits."""
        unanswered = self._unanswered
        while unanswered and unanswered[0][1].answered:
            unanswered.popleft()
        due = unanswered[0][0] if unanswered else None
        for store in (self._separate, self._uploads, self._downloads):
            at = store.next_timeout()
            if at is not None and (due is None or at < due):
                due = at
        return due

    def expire(self, *, now: float) -> None:
        """Do what is due at `now`: acknowledge requests that still wait for an answer, repeat answers."""
        unanswered = self._unanswered
        while unanswered and unanswered[0][0] <= now:
            _, exchange = unanswered.popleft()
            if not exchange.answered:
                exchange.acknowledged = True
                self._output.append((empty(Type.ACKNOWLEDGEMENT, exchange.message_id), exchange.remote))
        again, _ = self._separate.expire(now)
        self._output += [(datagram, remote) for (remote, _), datagram in again]
        self._exchanges.forget(now)
        self._uploads.forget(now)
        self._downloads.forget(now)

    def disconnected(self, remote: Hashable) -> None:
        """A stream has ended: forget what was kept for it."""
        self._connections.pop(remote, None)
        if self._contexts is not None:
            self._contexts.disconnected(remote)

    # --- datagrams and streams -----------------------------------------------------------------------------

    def _receive_datagram(self, data: bytes, remote: Hashable, now: float) -> IncomingRequest | None:
        try:
            message = Message.parse_datagram(data)
        except DecodeError:
            self._reset(data, remote)
            return None
        code = message.code
        kind = message.type
        if not 0 < code < 32 or kind > Type.NON_CONFIRMABLE:
            if kind > Type.NON_CONFIRMABLE:
                self._separate.stop((remote, message.message_id))
            else:
                # A ping, a response nobody asked for, a reserved code: rejected (RFC 7252 sections 4.2 and 4.3).
                self._reset(data, remote)
            return None
        key = (remote, data[2 : 4 + len(message.token)])
        known = self._exchanges.get(key, now)
        if known is not None:
            self._repeat(known)
            return None
        exchange = _Exchange(message, remote)
        request = self._work(exchange, message, key, now)
        if request is not None and kind == Type.CONFIRMABLE:
            self._unanswered.append((now + self._parameters.acknowledgement_delay, exchange))
        return request

    def _repeat(self, exchange: _Exchange) -> None:
        """The same request has come again (RFC 7252 section 4.2)."""
        if exchange.type != Type.CONFIRMABLE:
            return
        if exchange.acknowledged:
            self._output.append((empty(Type.ACKNOWLEDGEMENT, exchange.message_id), exchange.remote))
        elif exchange.answer is not None:
            self._output.append((exchange.answer, exchange.remote))

    def _reset(self, data: bytes, remote: Hashable) -> None:
        reset = reset_for(data)
        if reset is not None:
            self._output.append((reset, remote))

    def _receive_stream(self, data: bytes, remote: Hashable, now: float) -> list[IncomingRequest]:
        connection = self._connections.get(remote)
        if connection is None:
            if len(self._connections) >= self._limits.connections:
                raise Unavailable("too many connections")
            connection = self._connections[remote] = _Connection()
            self._output.append((capabilities(), remote))
        if connection.error is not None:
            raise connection.error
        requests: list[IncomingRequest] = []
        connection.reader.feed(data)
        try:
            while (message := connection.reader.next()) is not None:
                if message.code >= Code.CSM:
                    self._signal(connection, message, remote)
                elif 0 < message.code < 32:
                    request = self._work(_Exchange(message, remote), message, None, now)
                    if request is not None:
                        requests.append(request)
        except LocumError as error:
            self._output.append((Message(Code.ABORT, b"", (), str(error).encode()).write_stream(), remote))
            connection.error = error
            if not requests:
                raise
        return requests

    def _signal(self, connection: _Connection, message: Message, remote: Hashable) -> None:
        """One signalling message (RFC 8323 section 5). Raises: LocumError when the connection ends by it."""
        maximum = maximum_message_size(message)
        if maximum is not None:
            connection.maximum = maximum
        elif message.code == Code.PING:
            self._output.append((Message(Code.PONG, message.token).write_stream(), remote))
        elif message.code == Code.ABORT:
            raise Misbehaved("the connection was aborted by its other end")

    # --- from a message to a request -----------------------------------------------------------------------

    def _work(
        self, exchange: _Exchange, message: Message, key: tuple[Hashable, bytes] | None, now: float
    ) -> IncomingRequest | None:
        """Authenticate and understand one request; answers it here unless the application has to.

        Requests that nobody authenticated leave nothing behind, and so are never remembered under `key`.
        """
        try:
            inner = self._open(exchange, message, now)
        except LocumError as error:
            self._send(exchange, *_refusal(error), now)
            return None
        if key is not None:
            self._exchanges.put(key, exchange, now)
        if exchange.own_number:
            self._challenge(exchange, now)
            return None
        try:
            return self._understand(exchange, inner, now)
        except LocumError as error:
            self._answer(exchange, *_refusal(error), now)
            return None

    def _challenge(self, exchange: _Exchange, now: float) -> None:
        """Ask the terminal to say it again, so that it is known to be fresh (RFC 8613 Appendix B.1.2)."""
        contexts, context = self._contexts, exchange.context
        assert contexts is not None and context is not None
        try:
            echo = contexts.challenge(context, now)
            self._answer(exchange, Code.UNAUTHORIZED, ((int(OptionNumber.ECHO), echo),), b"", now)
        except LocumError as error:
            self._send(exchange, *_refusal(error), now)

    def _open(self, exchange: _Exchange, message: Message, now: float) -> Message:
        """The request inside of the protection (RFC 8613 section 8.2), its context noted in `exchange`.

        Raises: _Answer, UnacceptableOption for what is answered without protection; LocumError.
        """
        contexts = self._contexts
        if _OSCORE not in [number for number, _ in message.options]:
            if not self._plain:
                raise _Answer(Code.UNAUTHORIZED, b"OSCORE is required here")
            return message
        if contexts is None:
            raise _Answer(Code.BAD_OPTION, b"OSCORE is not spoken here")
        values = recognise(message.options, OUTER_RULES)[_OSCORE]
        if message.code not in (Code.POST, Code.FETCH):
            raise _Answer(Code.METHOD_NOT_ALLOWED)
        try:
            option = OscoreOption.parse(values[0])
        except DecodeError:
            raise _Answer(Code.BAD_OPTION, b"Failed to decode COSE") from None
        if not option.piv or option.kid is None or not message.payload:
            raise _Answer(Code.BAD_OPTION, b"Failed to decode COSE")
        context = contexts.find(exchange.remote, option.kid, option.kid_context, now)
        if context is None:
            raise _Answer(Code.UNAUTHORIZED, b"Security context not found")
        sequence = int.from_bytes(option.piv, "big")
        window = context.window
        if window is not None and not window.acceptable(sequence):
            raise _Answer(Code.UNAUTHORIZED, b"Replay detected")
        try:
            plaintext = context.security.open_request(option.piv, message.payload)
        except AuthenticationFailed:
            raise _Answer(Code.BAD_REQUEST, b"Decryption failed") from None
        exchange.context = context
        exchange.request_piv = option.piv
        if window is not None:
            window.accept(sequence)
        return self._admit(exchange, plaintext, sequence, now)

    def _admit(self, exchange: _Exchange, plaintext: bytes, sequence: int, now: float) -> Message:
        """Parse what was protected, and settle whether the request is fresh (RFC 8613 Appendix B.1.2)."""
        contexts, context = self._contexts, exchange.context
        assert contexts is not None and context is not None
        try:
            inner = Message.parse_plaintext(plaintext)
        except DecodeError:
            raise _Answer(Code.BAD_REQUEST, b"no CoAP message inside") from None
        if context.window is None:
            echo = next((value for number, value in inner.options if number == OptionNumber.ECHO), None)
            if not contexts.admit(context, sequence, echo, now):
                exchange.own_number = True
                return inner
        contexts.authenticated(context, exchange.remote)
        return inner

    def _understand(self, exchange: _Exchange, message: Message, now: float) -> IncomingRequest | None:
        """The request for the application, or None when this was a block that has been answered here.

        Raises: _Answer, UnacceptableOption, DecodeError for what is answered with the request's own protection.
        """
        options = recognise(message.options, RULES)
        if message.code != Code.POST:
            raise _Answer(Code.METHOD_NOT_ALLOWED)
        try:
            path = "/" + b"/".join(options.get(OptionNumber.URI_PATH, ())).decode()
            terminal = self._name(exchange, options)
        except UnicodeDecodeError:
            raise _Answer(Code.BAD_OPTION, b"not UTF-8") from None
        payload = message.payload
        if exchange.context is not None:
            exchange.owner = exchange.context.terminal.kid
        if OptionNumber.BLOCK1 in options or OptionNumber.BLOCK2 in options:
            payload = self._block(exchange, options, path, payload, now)
        else:
            exchange.body_key = _body_key(exchange, options, path)
        return IncomingRequest(
            remote=exchange.remote, terminal=terminal, path=path, payload=payload, _exchange=exchange
        )

    def _name(self, exchange: _Exchange, options: dict[int, list[bytes]]) -> str:
        """Who is asking: the context's terminal, or on a plain endpoint whoever the query names."""
        if exchange.context is not None:
            return exchange.context.terminal.name
        for query in options.get(OptionNumber.URI_QUERY, ()):
            if query.startswith(_NAME_QUERY) and len(query) <= len(_NAME_QUERY) + MAXIMUM_NAME:
                return query[len(_NAME_QUERY) :].decode()
        return ""

    # --- block-wise ----------------------------------------------------------------------------------------

    def _block(
        self, exchange: _Exchange, options: dict[int, list[bytes]], path: str, payload: bytes, now: float
    ) -> bytes:
        """The whole payload, once its last block is there. Raises: _Answer until then, DecodeError."""
        key = exchange.body_key = _body_key(exchange, options, path)
        block2 = block_of(options, OptionNumber.BLOCK2, self._framing)
        block1 = block_of(options, OptionNumber.BLOCK1, self._framing)
        if block2 is not None:
            exchange.szx = block2.szx
            if block2.number and block1 is None:
                raise self._next_block(exchange, block2, now)
        if block1 is None:
            return payload
        announced = int.from_bytes(options.get(OptionNumber.SIZE1, [b""])[0], "big")
        upload = Upload() if block1.number == 0 else self._uploads.get(exchange.owner, key, now)
        code: int | None = Code.REQUEST_ENTITY_INCOMPLETE
        if announced > MAXIMUM_BODY:
            code = Code.REQUEST_ENTITY_TOO_LARGE
        elif upload is not None:
            code = upload.add(block1, payload)
        if upload is None or code is not None:
            self._uploads.pop(exchange.owner, key)
            size = (int(OptionNumber.SIZE1), uint(MAXIMUM_BODY))
            too_large = code == Code.REQUEST_ENTITY_TOO_LARGE
            raise _Answer(code or Code.REQUEST_ENTITY_INCOMPLETE, b"", (size,) if too_large else ())
        szx = block1.szx
        if self._framing is Framing.DATAGRAM:
            szx = min(szx, szx_for(self._parameters.datagram_size - RESPONSE_OVERHEAD))
        if block1.more:
            self._uploads.put(exchange.owner, key, upload, now)
            value = Block(block1.number, True, szx).write()
            raise _Answer(Code.CONTINUE, b"", ((int(OptionNumber.BLOCK1), value),))
        self._uploads.pop(exchange.owner, key)
        exchange.block1 = Block(block1.number, False, block1.szx)
        return upload.body()

    def _next_block(self, exchange: _Exchange, block2: Block, now: float) -> _Answer:
        """A further block of a response that was too large to go whole."""
        download = self._downloads.get(exchange.owner, exchange.body_key, now)
        found = None if download is None else download.block(block2.number, block2.szx)
        if download is None or found is None:
            return _Answer(Code.REQUEST_ENTITY_INCOMPLETE)
        block, payload = found
        if block.more:
            # Its lifetime counts from the last block that was asked for.
            self._downloads.put(exchange.owner, exchange.body_key, download, now)
        else:
            self._downloads.pop(exchange.owner, exchange.body_key)
        options = (int(OptionNumber.ETAG), download.etag), (int(OptionNumber.BLOCK2), block.write())
        return _Answer(download.code, payload, options)

    def _response_szx(self, exchange: _Exchange, size: int) -> int | None:
        """The size of blocks in which a response of `size` bytes goes, or None when it goes whole."""
        if self._framing is Framing.STREAM:
            connection = self._connections.get(exchange.remote)
            room = BASE_STREAM_MESSAGE if connection is None else connection.maximum
        else:
            room = self._parameters.datagram_size
        room -= RESPONSE_OVERHEAD
        if exchange.szx is not None:
            # The client has named a size: none of its blocks may be larger (RFC 7959 section 2.4).
            room = min(room, Block(0, False, exchange.szx).size)
        return None if size <= room else szx_for(room)

    # --- answers -------------------------------------------------------------------------------------------

    def _answer(self, exchange: _Exchange, code: int, options: Options, payload: bytes, now: float) -> None:
        """Answer under the protection that the request had. Raises: LocumError when no number can be had."""
        context = exchange.context
        if context is None:
            self._send(exchange, code, options, payload, now)
            return
        piv = b""
        if exchange.own_number:
            assert self._contexts is not None
            piv = partial_iv(self._contexts.take_number(context.terminal))
        plaintext = Message(code, b"", options, payload).write_plaintext()
        ciphertext = context.security.seal_response(exchange.request_piv, plaintext, piv=piv)
        outer = Code.CHANGED if exchange.outer_code == Code.POST else Code.CONTENT
        self._send(exchange, outer, ((_OSCORE, OscoreOption(piv).write()),), ciphertext, now)

    def _send(self, exchange: _Exchange, code: int, options: Options, payload: bytes, now: float) -> None:
        """Put an answer on its way: on the stream, in the acknowledgement, or in a message of its own."""
        exchange.answered = True
        if self._framing is Framing.STREAM:
            self._output.append((Message(code, exchange.token, options, payload).write_stream(), exchange.remote))
            return
        kind = Type.ACKNOWLEDGEMENT
        message_id = exchange.message_id
        if exchange.acknowledged:
            kind = Type.CONFIRMABLE
        elif exchange.type == Type.NON_CONFIRMABLE:
            kind = Type.NON_CONFIRMABLE
        if kind != Type.ACKNOWLEDGEMENT:
            message_id = self._message_ids.take()
        datagram = Message(code, exchange.token, options, payload, kind, message_id).write_datagram()
        if kind == Type.CONFIRMABLE:
            if len(self._separate) < self._limits.separate:
                self._separate.start((exchange.remote, message_id), datagram, now)
        else:
            exchange.answer = datagram
        self._output.append((datagram, exchange.remote))


def _refusal(error: LocumError) -> tuple[int, Options, bytes]:
    """Code, options and diagnostic payload by which a request that raised `error` is answered."""
    if isinstance(error, _Answer):
        return error.code, error.options, error.text
    if isinstance(error, UnacceptableOption):
        return Code.BAD_OPTION, (), str(error).encode()
    if isinstance(error, DecodeError):
        return Code.BAD_REQUEST, (), str(error).encode()
    return Code.SERVICE_UNAVAILABLE, (), b""


def _body_key(exchange: _Exchange, options: dict[int, list[bytes]], path: str) -> Hashable:
    """What tells the bodies of one owner apart: the context or the remote, the resource, the Request-Tag."""
    source = exchange.remote if exchange.context is None else exchange.context.id_context
    tag = options.get(OptionNumber.REQUEST_TAG)
    return source, path, None if tag is None else tag[0]
