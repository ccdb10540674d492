"""The client of the link: one delegate, requests in, bytes out and back in, replies out; without I/O.

Never knows what a request asks for. It takes as true only what the channel key proves: answers that nobody
authenticated (they are easily forged) are remembered, and believed only when no other comes.
"""

from __future__ import annotations

from collections import deque

from locum.crypto.symmetric import AuthenticationFailed
from locum.errors import DecodeError, LocumError, Misbehaved, Refused, TimedOut, Unavailable
from locum.link.blockwise import MAXIMUM_BLOCK, ClientTransfer, Reply
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
    StreamReader,
    Type,
    capabilities,
    empty,
    maximum_message_size,
    recognise,
    reset_for,
)
from locum.link.exchange import MessageIds, RandomSource, Recent, Retransmissions, TransmissionParameters
from locum.link.oscore import (
    Credential,
    OscoreOption,
    SecurityContext,
    protect_request,
    unprotect_response,
)
from locum.link.sender import Sender, SequenceStore

#: Requests that may be under way, or waiting, or whose outcome nobody has asked for.
MAXIMUM_EXCHANGES = 256
#: Challenges that one request answers before it gives up.
MAXIMUM_CHALLENGES = 4
#: Separate responses whose Message IDs are remembered, so that a repeated one is acknowledged again.
MAXIMUM_ACKNOWLEDGED = 64
#: Bytes around the payload of a request, at most, without path, identifiers and ID Context.
REQUEST_OVERHEAD = 64
#: Bytes of a token: under OSCORE the request's Partial IV ties the response to it, and the token only finds it.
TOKEN_LENGTH = 1
#: Bytes of a Request-Tag.
REQUEST_TAG_LENGTH = 2
#: Bytes of a token on the plain path.
PLAIN_TOKEN_LENGTH = 2

__all__ = ["Client", "Framing", "Reply", "SequenceStore", "TransmissionParameters"]

_UNKNOWN = "the delegate does not know this terminal or its key: enrol the terminal again"


class _Exchange:
    """One request under way."""

    __slots__ = (
        "challenges",
        "context",
        "deadline",
        "echo",
        "message_id",
        "number",
        "options",
        "payload",
        "refusal",
        "request_piv",
        "sealed",
        "token",
        "transfer",
        "without_id_context",
    )

    def __init__(self, number: int, options: list[Option], payload: bytes) -> None:
        self.number = number
        #: Uri-Path and Uri-Query.
        self.options = options
        self.payload = payload
        self.transfer: ClientTransfer | None = None
        self.token = b""
        self.message_id = -1
        self.context: SecurityContext | None = None
        self.request_piv = b""
        #: The protected message as it was last sealed.
        self.sealed = Message(Code.POST)
        self.without_id_context = False
        self.echo: bytes | None = None
        self.challenges = 0
        self.deadline: float | None = None
        #: What an answer said that nobody authenticated.
        self.refusal: LocumError | None = None


class Client:
    """One delegate as a terminal sees it, over one UDP socket or one TCP connection.

    `credential` is what is set beforehand in both; None means a path that is declared secure (A4), where
    `terminal_name` says who is asking. `sequence` keeps the numbers between processes. All moments are seconds of
    one steady clock. `bytes_sent` and `bytes_received` count what travels, `exchanges` the requests sent on their
    way, blocks and answers to challenges included, repetitions not.
    """

    def __init__(
        self,
        *,
        credential: Credential | None,
        sequence: SequenceStore | None = None,
        framing: Framing,
        random: RandomSource,
        terminal_name: str = "",
        parameters: TransmissionParameters | None = None,
    ) -> None:
        self._sender = None if credential is None else Sender(credential, sequence, random)
        self._name = terminal_name.encode() if credential is None else b""
        self._framing = framing
        self._random = random
        self._parameters = parameters or TransmissionParameters()
        self._message_ids = MessageIds(random)
        self._retransmissions: Retransmissions[int] = Retransmissions(self._parameters, random)
        self._acknowledged: Recent[int, bool] = Recent(MAXIMUM_ACKNOWLEDGED, self._parameters.exchange_lifetime)
        self._output: list[bytes] = []
        self._last_number = 0
        self._waiting: deque[_Exchange] = deque()
        self._active: dict[int, _Exchange] = {}
        self._by_token: dict[bytes, _Exchange] = {}
        self._outcomes: dict[int, Reply | LocumError] = {}
        self._reader = StreamReader()
        #: What the delegate takes in one message of a stream; None until it has said so.
        self._maximum: int | None = None
        #: The ID Context is left out once the delegate knows it, to save bytes on a radio; not where the delegate
        #: failed to find it without, and not on a stream, where a server may discard such a request in silence.
        self._always_name_context = framing is Framing.STREAM
        #: True when the stream can be used no more; the driver then closes it.
        self.closed = False
        self.bytes_sent = 0
        self.bytes_received = 0
        self.exchanges = 0
        if framing is Framing.STREAM:
            self._emit(capabilities())

    # --- the driver's side ---------------------------------------------------------------------------------

    def request(self, path: str, payload: bytes, *, now: float) -> int:
        """Ask: POST `payload`, at most `MAXIMUM_BODY` bytes, to `path`. Returns the number of this exchange.

        Raises: ValueError for a payload too large; Unavailable when too much is under way or the stream is closed.
        """
        if len(payload) > MAXIMUM_BODY:
            raise ValueError(f"a request of {len(payload)} bytes, more than {MAXIMUM_BODY}")
        if self.closed:
            raise Unavailable("the connection to the delegate is closed")
        if len(self._active) + len(self._waiting) + len(self._outcomes) >= MAXIMUM_EXCHANGES:
            raise Unavailable(f"{MAXIMUM_EXCHANGES} requests to the delegate are under way")
        options: list[Option] = [
            (OptionNumber.URI_PATH, segment.encode()) for segment in path.strip("/").split("/") if segment
        ]
        if self._name:
            options.append((OptionNumber.URI_QUERY, b"t=" + self._name))
        self._last_number += 1
        exchange = _Exchange(self._last_number, options, payload)
        if self._framing is Framing.STREAM:
            exchange.deadline = now + self._parameters.response_timeout
        self._waiting.append(exchange)
        self._dispatch(now)
        return exchange.number

    def receive(self, data: bytes, *, now: float) -> None:
        """Take one datagram from the delegate, or bytes of the stream as they arrived. Never raises."""
        self.bytes_received += len(data)
        if self._framing is Framing.DATAGRAM:
            self._receive_datagram(data, now)
        elif not self.closed:
            self._receive_stream(data, now)
        self._dispatch(now)

    def transmit(self) -> list[bytes]:
        """What is to be sent now, in order: each item one datagram, or bytes of the stream."""
        output = self._output
        self._output = []
        return output

    def next_timeout(self) -> float | None:
        """The moment to call `expire`, or None while nothing waits."""
        moments = [exchange.deadline for exchange in self._active.values() if exchange.deadline is not None]
        moments += [exchange.deadline for exchange in self._waiting if exchange.deadline is not None]
        due = self._retransmissions.next_timeout()
        if due is not None:
            moments.append(due)
        return min(moments, default=None)

    def expire(self, *, now: float) -> None:
        """Do what is due at `now`: send again, or give up."""
        again, given_up = self._retransmissions.expire(now)
        for _, datagram in again:
            self._emit(datagram)
        for exchange in (*self._active.values(), *self._waiting):
            late = exchange.deadline is not None and exchange.deadline <= now
            if late or exchange.number in given_up:
                self._finish(exchange, exchange.refusal or TimedOut("the delegate did not answer in time"))
        self._dispatch(now)

    def outcome(self, exchange: int) -> Reply | None:
        """The reply to `exchange`, once; None while it is under way.

        A reply has any response code that the delegate gave, an error's included. Raises: TimedOut; Refused when
        the delegate does not know this terminal; Unavailable when it cannot be reached or cannot answer now;
        Misbehaved, DecodeError for an authentic answer that breaks the protocol; ValueError for an unknown number.
        """
        outcome = self._outcomes.pop(exchange, None)
        if isinstance(outcome, LocumError):
            raise outcome
        if (
            outcome is None
            and exchange not in self._active
            and not any(e.number == exchange for e in self._waiting)
        ):
            raise ValueError(f"no exchange {exchange}")
        return outcome

    def cancel(self, exchange: int) -> None:
        """Forget `exchange`, whatever has become of it; an answer that still comes is discarded."""
        for under_way in (*self._active.values(), *self._waiting):
            if under_way.number == exchange:
                self._finish(under_way, TimedOut("cancelled"))
        self._outcomes.pop(exchange, None)

    def disconnected(self, reason: str = "the connection to the delegate was lost") -> None:
        """The stream has ended, or the network says that the delegate is not there: everything under way fails."""
        self.closed = self._framing is Framing.STREAM
        for exchange in (*self._active.values(), *self._waiting):
            self._finish(exchange, exchange.refusal or Unavailable(reason))

    # --- sending -------------------------------------------------------------------------------------------

    def _dispatch(self, now: float) -> None:
        """Send what waits, as far as NSTART (RFC 7252 section 4.7) or the delegate's stream capabilities allow."""
        stream = self._framing is Framing.STREAM
        while self._waiting and (stream or len(self._retransmissions) < self._parameters.nstart):
            if not self._begin(self._waiting[0], now):
                return

    def _begin(self, exchange: _Exchange, now: float) -> bool:
        """Send the first message of `exchange`, whole or a block; False while the stream's limit is unknown."""
        overhead = REQUEST_OVERHEAD + sum(len(value) + 3 for _, value in exchange.options)
        if self._sender is not None:
            overhead += len(self._sender.context.id_context or b"") + len(self._sender.context.kid)
        room = self._parameters.datagram_size - overhead
        if self._framing is Framing.STREAM:
            room = (self._maximum or BASE_STREAM_MESSAGE) - overhead
        whole = len(exchange.payload) <= room
        if not whole and self._framing is Framing.STREAM and self._maximum is None:
            return False
        # Bodies must not mix: neither those of requests in blocks, nor those of responses at the same time.
        tag = None if whole and not self._active else self._random(REQUEST_TAG_LENGTH)
        block_size = None if whole else min(room, MAXIMUM_BLOCK)
        exchange.transfer = ClientTransfer(exchange.payload, framing=self._framing, block_size=block_size, tag=tag)
        self._waiting.popleft()
        self._active[exchange.number] = exchange
        self._send_next(exchange, now)
        return True

    def _send_next(self, exchange: _Exchange, now: float) -> None:
        """Send the next message of `exchange`, protected with a number of its own."""
        assert exchange.transfer is not None
        options, payload = exchange.transfer.message()
        options += exchange.options
        if exchange.echo is not None:
            options.append((OptionNumber.ECHO, exchange.echo))
        options.sort(key=_number)
        message = Message(Code.POST, b"", tuple(options), payload)
        sender = self._sender
        if sender is None:
            exchange.sealed = message
        else:
            exchange.context, number = sender.take()
            exchange.without_id_context = sender.confirmed and not self._always_name_context
            exchange.sealed, exchange.request_piv = protect_request(
                exchange.context, message, number, with_id_context=not exchange.without_id_context
            )
        self._send(exchange, now)

    def _send_with_id_context(self, exchange: _Exchange, now: float) -> None:
        """Send the same protected message once more, now naming its ID Context.

        Not a new one: if the answer that made this necessary was forged, the delegate has the first already, and
        its replay window keeps it from doing twice what was asked once.
        """
        assert exchange.context is not None
        exchange.without_id_context = False
        option = OscoreOption(exchange.request_piv, exchange.context.kid, exchange.context.id_context)
        exchange.sealed = exchange.sealed._replace(options=((int(OptionNumber.OSCORE), option.write()),))
        self._send(exchange, now)

    def _send(self, exchange: _Exchange, now: float) -> None:
        self._by_token.pop(exchange.token, None)
        exchange.token = self._new_token()
        self._by_token[exchange.token] = exchange
        self.exchanges += 1
        if self._framing is Framing.STREAM:
            exchange.deadline = now + self._parameters.response_timeout
            self._emit(exchange.sealed._replace(token=exchange.token).write_stream())
            return
        exchange.deadline = None
        exchange.message_id = self._message_ids.take()
        message = exchange.sealed._replace(token=exchange.token, message_id=exchange.message_id)
        datagram = message.write_datagram()
        self._retransmissions.start(exchange.number, datagram, now)
        self._emit(datagram)

    def _new_token(self) -> bytes:
        length = PLAIN_TOKEN_LENGTH if self._sender is None else TOKEN_LENGTH
        while True:
            # One byte more when most short ones are taken.
            token = self._random(length + (len(self._by_token) > 128))
            if token not in self._by_token:
                return token

    def _emit(self, data: bytes) -> None:
        self.bytes_sent += len(data)
        self._output.append(data)

    # --- receiving -----------------------------------------------------------------------------------------

    def _receive_datagram(self, data: bytes, now: float) -> None:
        try:
            message = Message.parse_datagram(data)
        except DecodeError:
            return
        kind, code = message.type, message.code
        if code == Code.EMPTY and kind in (Type.ACKNOWLEDGEMENT, Type.RESET):
            for exchange in self._active.values():
                if exchange.message_id == message.message_id:
                    self._empty(exchange, Type(kind), now)
            return
        exchange_of_token = self._by_token.get(message.token)
        if not _is_response(code) or (exchange_of_token is None and kind == Type.CONFIRMABLE):
            self._unexpected(data, message, now)
        elif exchange_of_token is None:
            return
        elif kind == Type.ACKNOWLEDGEMENT:
            if exchange_of_token.message_id == message.message_id:
                self._response(exchange_of_token, message, now)
        elif kind != Type.RESET:
            if kind == Type.CONFIRMABLE:
                self._acknowledged.put(message.message_id, True, now)
                self._emit(empty(Type.ACKNOWLEDGEMENT, message.message_id))
            self._response(exchange_of_token, message, now)

    def _empty(self, exchange: _Exchange, kind: Type, now: float) -> None:
        """The delegate will answer later, or rejects the message; nobody authenticated either."""
        if kind == Type.RESET:
            self._doubt(exchange, Unavailable("the delegate rejects the message"), now)
        elif self._retransmissions.stop(exchange.number) and exchange.deadline is None:
            exchange.deadline = now + self._parameters.response_timeout

    def _unexpected(self, data: bytes, message: Message, now: float) -> None:
        """A ping, a request, or a response to nothing: reset, unless it came before (RFC 7252 section 4.2)."""
        if self._acknowledged.get(message.message_id, now) and _is_response(message.code):
            self._emit(empty(Type.ACKNOWLEDGEMENT, message.message_id))
            return
        reset = reset_for(data)
        if reset is not None:
            self._emit(reset)

    def _receive_stream(self, data: bytes, now: float) -> None:
        self._reader.feed(data)
        try:
            while (message := self._reader.next()) is not None:
                if message.code >= Code.CSM:
                    self._signal(message)
                elif _is_response(message.code) and (exchange := self._by_token.get(message.token)) is not None:
                    self._response(exchange, message, now)
        except LocumError as error:
            self._emit(Message(Code.ABORT, b"", (), str(error).encode()).write_stream())
            self.disconnected(f"the connection to the delegate broke: {error}")

    def _signal(self, message: Message) -> None:
        """One signalling message (RFC 8323 section 5). Raises: LocumError when the connection ends by it."""
        maximum = maximum_message_size(message)
        if message.code == Code.CSM:
            self._maximum = maximum or self._maximum or BASE_STREAM_MESSAGE
        elif message.code == Code.PING:
            self._emit(Message(Code.PONG, message.token).write_stream())
        elif message.code in (Code.RELEASE, Code.ABORT):
            raise Misbehaved("the delegate ended it")

    def _response(self, exchange: _Exchange, message: Message, now: float) -> None:
        """A response found `exchange` by its token; it counts only when it proves to be the delegate's."""
        try:
            inner = self._authenticate(exchange, message)
        except (DecodeError, AuthenticationFailed):
            return
        if inner is None:
            self._unprotected(exchange, message.code, now)
            return
        self._retransmissions.stop(exchange.number)
        try:
            options = recognise(inner.options, RULES)
            challenge = options.get(OptionNumber.ECHO)
            if inner.code == Code.UNAUTHORIZED and challenge is not None:
                self._answer_challenge(exchange, challenge[0])
            else:
                exchange.echo = None
                self._confirm(exchange)
                assert exchange.transfer is not None
                reply = exchange.transfer.accept(inner.code, options, inner.payload)
                if reply is not None:
                    self._finish(exchange, reply)
                    return
        except LocumError as error:
            self._finish(exchange, error)
            return
        exchange.refusal = None
        self._send_next(exchange, now)

    def _confirm(self, exchange: _Exchange) -> None:
        """The delegate has taken a request as fresh: from now on it finds the context by where we send from."""
        if self._sender is not None and self._sender.context is exchange.context:
            self._sender.confirmed = True

    def _authenticate(self, exchange: _Exchange, message: Message) -> Message | None:
        """The delegate's response; None when it has no protection. Raises: DecodeError, AuthenticationFailed."""
        if exchange.context is None:
            return message
        values = recognise(message.options, OUTER_RULES).get(OptionNumber.OSCORE)
        if values is None:
            return None
        option = OscoreOption.parse(values[0])
        return unprotect_response(exchange.context, exchange.request_piv, option, message.payload)

    def _answer_challenge(self, exchange: _Exchange, echo: bytes) -> None:
        """The next message repeats the Echo value, to show that it is fresh (RFC 9175 section 2.3)."""
        exchange.challenges += 1
        if exchange.challenges > MAXIMUM_CHALLENGES:
            raise Unavailable("the delegate never takes the request for fresh")
        exchange.echo = echo

    def _unprotected(self, exchange: _Exchange, code: int, now: float) -> None:
        """An answer without protection: an error that the delegate could not protect, or a forgery."""
        if code in (Code.UNAUTHORIZED, Code.BAD_REQUEST) and exchange.without_id_context:
            self._always_name_context = True
            self._send_with_id_context(exchange, now)
            return
        refusal: LocumError
        if code in (Code.UNAUTHORIZED, Code.BAD_REQUEST):
            refusal = Refused(_UNKNOWN)
        elif code == Code.SERVICE_UNAVAILABLE:
            refusal = Unavailable("the delegate cannot answer now")
        else:
            refusal = Refused(f"the delegate answers {code >> 5}.{code & 31:02} without protection")
        self._doubt(exchange, refusal, now)

    def _doubt(self, exchange: _Exchange, refusal: LocumError, now: float) -> None:
        """Remember what nobody authenticated, and leave the true answer some time to come."""
        if exchange.refusal is None:
            exchange.refusal = refusal
            wait = now + self._parameters.refusal_wait
            exchange.deadline = wait if exchange.deadline is None else min(wait, exchange.deadline)

    def _finish(self, exchange: _Exchange, outcome: Reply | LocumError) -> None:
        self._retransmissions.stop(exchange.number)
        self._by_token.pop(exchange.token, None)
        if self._active.pop(exchange.number, None) is None:
            self._waiting.remove(exchange)
        self._outcomes[exchange.number] = outcome


def _number(option: Option) -> int:
    return option[0]


def _is_response(code: int) -> bool:
    """Classes 2, 4 and 5 (RFC 7252 section 5.9)."""
    return code >> 5 in (2, 4, 5)
