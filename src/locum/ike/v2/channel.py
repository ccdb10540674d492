"""The way to the peer of one IKE SA: SPIs, message ids, keys of both directions, fragments, and repetition.

Knows no payload but the encrypted ones, and no exchange but IKE_INTERMEDIATE, whose messages AUTH covers.
The window is one in each direction (RFC 7296 section 2.3): one request of ours at a time, one of the peer's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from locum.errors import DecodeError
from locum.ike.errors import InvalidMessageId, NotProtected
from locum.ike.header import HEADER_LENGTH, NO_SPI, Header
from locum.ike.keying2 import intermediate_octets
from locum.ike.operations import MAX_INTERMEDIATE
from locum.ike.payloads2 import FINAL, EncryptedFragment, Payload, write_payloads
from locum.ike.protection import (
    Protection,
    Reassembly,
    fragment_message,
    parse_message,
    protection,
    seal_message,
)
from locum.ike.registry import ExchangeType, Flags2, Version
from locum.ike.suites import IkeSuite
from locum.values import dataclass

#: A response is repeated at most so often, whoever repeats the request.
MAX_REPETITIONS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionalKeys:
    """SK_ai, SK_ar, SK_ei and SK_er."""

    ai: bytes = field(repr=False)
    ar: bytes = field(repr=False)
    ei: bytes = field(repr=False)
    er: bytes = field(repr=False)

    @classmethod
    def cut(cls, suite: IkeSuite, material: bytes) -> DirectionalKeys:
        """From all four one after the other. Raises: DecodeError unless they have the suite's lengths."""
        mac, cipher = suite.integrity_length, suite.encryption.material_length
        if len(material) != 2 * (mac + cipher):
            raise DecodeError(f"{len(material)} bytes of keys, not {2 * (mac + cipher)}")
        start = 2 * mac
        return cls(
            ai=material[:mac],
            ar=material[mac:start],
            ei=material[start : start + cipher],
            er=material[start + cipher :],
        )


@dataclass(slots=True)
class Outstanding:
    """A request of ours that waits for its response: `sent` transmissions so far, the next after `interval`."""

    exchange_type: ExchangeType
    message_id: int
    datagrams: tuple[bytes, ...]
    sent: int = 1
    interval: float = 0.0
    due: float = 0.0


class Channel:
    """One end's view of an IKE SA's messages; `maximum` is the largest that goes unfragmented, 0 for any."""

    __slots__ = (
        "_inbound",
        "_last_request",
        "_next",
        "_outbound",
        "_previous",
        "_random",
        "_reassemblies",
        "_repetitions",
        "_response",
        "covered",
        "expected_id",
        "initiator",
        "maximum",
        "next_id",
        "outstanding",
        "own_spi",
        "peer_spi",
    )

    def __init__(
        self, own_spi: bytes, *, initiator: bool, random: Callable[[int], bytes], peer_spi: bytes = NO_SPI
    ) -> None:
        self.own_spi = own_spi
        self.peer_spi = peer_spi
        self.initiator = initiator
        self.maximum = 0
        #: message ids: of our next request, and of the peer's
        self.next_id = self.expected_id = 0
        self.outstanding: Outstanding | None = None
        #: what AUTH covers of IKE_INTERMEDIATE, in order (RFC 9242 section 3.3.2)
        self.covered: list[bytes] = []
        self._random = random
        self._outbound: Protection | None = None
        self._inbound: Protection | None = None
        #: what the last request that was answered came under: a repeated one comes under it again
        self._previous: Protection | None = None
        #: keys that take over when the response at hand has been sent
        self._next: tuple[Protection, Protection] | None = None
        self._last_request = b""
        self._response: tuple[bytes, ...] = ()
        self._repetitions = 0
        self._reassemblies: dict[bool, Reassembly] = {}

    # --- keys ---------------------------------------------------------------------------------------------

    @property
    def protected(self) -> bool:
        """True from the first keys on."""
        return self._outbound is not None or self._next is not None

    def use(self, suite: IkeSuite, keys: DirectionalKeys, *, after_response: bool = False) -> None:
        """Protect by these keys from now on, or from the response on that is about to be sent."""
        by_initiator = protection(suite, keys.ei, keys.ai, self._random)
        by_responder = protection(suite, keys.er, keys.ar, self._random)
        pair = (by_initiator, by_responder) if self.initiator else (by_responder, by_initiator)
        if after_response:
            self._next = pair
        else:
            self._outbound, self._inbound = pair

    def wipe(self, *, repeat: bool = False) -> None:
        """Forget every key, but for the one that tells a repeated request if `repeat`."""
        self._previous = (self._previous or self._inbound) if repeat else None
        self._outbound = self._inbound = self._next = None
        self._reassemblies.clear()
        self.covered.clear()

    # --- out ----------------------------------------------------------------------------------------------

    def header(self, exchange_type: int, message_id: int, *, response: bool) -> Header:
        """The header of a message of ours, without next payload and length."""
        spis = (self.own_spi, self.peer_spi) if self.initiator else (self.peer_spi, self.own_spi)
        return Header(
            initiator_spi=spis[0],
            responder_spi=spis[1],
            version=Version.IKE_2,
            exchange_type=exchange_type,
            flags=(Flags2.INITIATOR if self.initiator else 0) | (Flags2.RESPONSE if response else 0),
            message_id=message_id,
        )

    def write(
        self, exchange_type: ExchangeType, message_id: int, payloads: tuple[Payload, ...], *, response: bool
    ) -> tuple[bytes, ...]:
        """A message as datagrams: in clear before there are keys, then encrypted, and cut where too large."""
        header = self.header(exchange_type, message_id, response=response)
        first, chain = write_payloads(payloads)
        if self._outbound is None:
            return (_in_clear(header, first, chain),)
        if exchange_type == ExchangeType.IKE_INTERMEDIATE:
            self._cover(header, first, chain)
        if self.maximum:
            return fragment_message(self._outbound, header, first, chain, maximum=self.maximum)
        return (seal_message(self._outbound, header, first, chain),)

    def request(
        self, exchange_type: ExchangeType, payloads: tuple[Payload, ...], *, now: float, interval: float
    ) -> Outstanding:
        """Write the next request; its message id is used up, but for IKE_SA_INIT's, which may come again."""
        message_id = self.next_id
        datagrams = self.write(exchange_type, message_id, payloads, response=False)
        if exchange_type != ExchangeType.IKE_SA_INIT:
            self.next_id += 1
        self._last_request = datagrams[0]
        self.outstanding = Outstanding(exchange_type, message_id, datagrams, interval=interval, due=now + interval)
        return self.outstanding

    def respond(self, exchange_type: ExchangeType, payloads: tuple[Payload, ...]) -> tuple[bytes, ...]:
        """Write the response to the request that was read last, and expect the next one."""
        self._response = self.write(exchange_type, self.expected_id, payloads, response=True)
        self._repetitions = 0
        self._previous = self._inbound
        self.expected_id += 1
        self._reassemblies.pop(False, None)
        if self._next is not None:
            self._outbound, self._inbound = self._next
            self._next = None
        return self._response

    # --- in -----------------------------------------------------------------------------------------------

    def open_request(self, header: Header, message: bytes) -> tuple[int, bytes] | None:
        """The first payload's type and the chain of a request; None while fragments of it are missing.

        Raises: InvalidMessageId, NotProtected, DecodeError.
        """
        if header.message_id != self.expected_id:
            raise InvalidMessageId(header.message_id)
        return self._open(header, message, response=False)

    def open_response(self, header: Header, message: bytes) -> tuple[int, bytes] | None:
        """As `open_request`, for the response to the outstanding request, which goes on waiting."""
        waiting = self.outstanding
        if waiting is None or (waiting.message_id, waiting.exchange_type) != (
            header.message_id,
            header.exchange_type,
        ):
            raise InvalidMessageId(header.message_id)
        return self._open(header, message, response=True)

    def answered(self) -> None:
        """The outstanding request has its response."""
        self.outstanding = None
        self._reassemblies.pop(True, None)

    def repetition(self, header: Header, message: bytes) -> tuple[bytes, ...]:
        """The last response once more, for the same request once more; of a fragmented one, its first fragment.

        Raises: InvalidMessageId where there is nothing to repeat, or too often; NotProtected, DecodeError.
        """
        if header.message_id != self.expected_id - 1 or self._repetitions >= MAX_REPETITIONS:
            raise InvalidMessageId(header.message_id)
        if self._previous is not None:
            sealed = parse_message(header, message)
            sealed.open(self._previous)
            # RFC 7383 section 2.6.1: the others are repeated too, and call for nothing.
            if isinstance(sealed.encrypted, EncryptedFragment) and sealed.encrypted.number != 1:
                return ()
        self._repetitions += 1
        return self._response

    def repetition_of_init(self) -> tuple[bytes, ...]:
        """The response to IKE_SA_INIT once more; whoever asks has found the same request, for it came in clear.

        Raises: InvalidMessageId where it is not there yet, superseded, or was repeated too often.
        """
        if self.expected_id != 1 or self._repetitions >= MAX_REPETITIONS:
            raise InvalidMessageId(0)
        self._repetitions += 1
        return self._response

    def _open(self, header: Header, message: bytes, *, response: bool) -> tuple[int, bytes] | None:
        if self._inbound is None:
            if header.next_payload in FINAL:
                raise NotProtected("an encrypted message before there are keys")
            return header.next_payload, message[HEADER_LENGTH:]
        sealed = parse_message(header, message)
        if sealed.clear:
            raise NotProtected("payloads outside of the encrypted one")
        piece = sealed.open(self._inbound)
        if sealed.encrypted is None:
            raise NotProtected("a message in clear where an encrypted one is due")
        first, chain = sealed.encrypted.first, piece
        if isinstance(sealed.encrypted, EncryptedFragment):
            whole = self._reassemblies.setdefault(response, Reassembly()).add(sealed.encrypted, piece)
            if whole is None:
                return None
            first, chain = whole
        if header.exchange_type == ExchangeType.IKE_INTERMEDIATE:
            self._cover(header, first, chain)
        return first, chain

    def _cover(self, header: Header, first: int, chain: bytes) -> None:
        octets = intermediate_octets(header, first, chain)
        if sum(map(len, self.covered)) + len(octets) > MAX_INTERMEDIATE:
            raise DecodeError(f"more than {MAX_INTERMEDIATE} bytes of IKE_INTERMEDIATE")
        self.covered.append(octets)

    @property
    def last_request(self) -> bytes:
        """The outstanding request, or the one that was answered last, where it went out as one datagram."""
        return self._last_request

    @property
    def last_response(self) -> bytes:
        """The last response, where it went out as one datagram."""
        return self._response[0]

    @property
    def held(self) -> int:
        """Bytes of fragments that wait for the rest."""
        return sum(each.held for each in self._reassemblies.values())


def _in_clear(header: Header, first: int, chain: bytes) -> bytes:
    return header.before(first, len(chain)) + chain
