"""The way to the peer of one ISAKMP SA: cookies, path, whole messages into datagrams and back, fragments.

Knows no exchange: what is sent and what is due is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

from locum.errors import DecodeError
from locum.ike.configuration import FRAGMENT_SIZE, FRAGMENT_SIZE_IPV4
from locum.ike.engine import Datagram, Path
from locum.ike.errors import NotProtected, UnexpectedMessage
from locum.ike.fragments1 import Reassembly, cut_message
from locum.ike.header import HEADER_LENGTH, MAX_MESSAGE, NO_SPI, Header, parse_chain, parse_header
from locum.ike.keying1 import Cookies
from locum.ike.nat import detection_hash
from locum.ike.payloads1 import MAX_PADDING, Fragment, NatDetection, Payload, parse_payloads, write_payloads
from locum.ike.protection import CbcChain
from locum.ike.registry import Flags1, PayloadType1, Version
from locum.ike.suites import Phase1Suite
from locum.ike.v1.messages import Message
from locum.wire.cursor import Reader


class Channel:
    """One end's view of both cookies and of the path between them."""

    def __init__(
        self, path: Path, own_cookie: bytes, *, initiator: bool, send: Callable[[Datagram], None]
    ) -> None:
        self.path = path
        self.initiator = initiator
        self.cookies = Cookies(
            initiator=own_cookie if initiator else NO_SPI, responder=NO_SPI if initiator else own_cookie
        )
        #: messages may be cut into fragments: both ends want it
        self.fragments = False
        #: what is behind a NAT, as NAT-D payloads showed it
        self.nat_here = self.nat_there = False
        self._send = send
        self._reassembly = Reassembly()
        self._fragment_id = 0

    @property
    def own_cookie(self) -> bytes:
        """Ours, 8 bytes."""
        return self.cookies.initiator if self.initiator else self.cookies.responder

    @property
    def peer_cookie(self) -> bytes:
        """The peer's, zero while it is not known."""
        return self.cookies.responder if self.initiator else self.cookies.initiator

    @property
    def nat(self) -> bool:
        """True when there is a NAT between the ends, or one of them wants the other to believe so."""
        return self.nat_here or self.nat_there

    # --- out ------------------------------------------------------------------------------------------------

    def header(self, exchange_type: int, message_id: int = 0, flags: int = 0) -> Header:
        """The header of a message, without next payload and length."""
        return Header(
            initiator_spi=self.cookies.initiator,
            responder_spi=self.cookies.responder,
            version=Version.IKE_1,
            exchange_type=exchange_type,
            flags=flags,
            message_id=message_id,
        )

    def write(
        self, exchange_type: int, message_id: int, payloads: tuple[Payload, ...], chain: CbcChain | None
    ) -> tuple[tuple[bytes, ...], CbcChain | None]:
        """A message as datagrams' contents, and the chain to go on with. Without a chain it is in clear."""
        first, body = write_payloads(payloads)
        flags = 0
        if chain is not None:
            flags = Flags1.ENCRYPTION
            body, chain = chain.seal(body)
        header = self.header(exchange_type, message_id, flags)
        message = _with_header(header, first, body)
        return self._in_fragments(header, message), chain

    def _in_fragments(self, header: Header, message: bytes) -> tuple[bytes, ...]:
        maximum = FRAGMENT_SIZE_IPV4 if self.path.remote.version == 4 else FRAGMENT_SIZE
        if not self.fragments or len(message) <= maximum:
            return (message,)
        self._fragment_id = self._fragment_id % 0xFFFF + 1
        return cut_message(header, message, self._fragment_id, maximum=maximum)

    def transmit(self, messages: tuple[bytes, ...]) -> None:
        """Hand over what `write` gave, for the path as it is now."""
        for message in messages:
            self._send(Datagram(self.path, message))

    # --- in -------------------------------------------------------------------------------------------------

    def belongs(self, header: Header) -> bool:
        """True when the cookies are ours, or the peer's is still to be learnt from this message."""
        expected = self.cookies
        if self.initiator:
            return header.initiator_spi == expected.initiator and (
                header.responder_spi == expected.responder or expected.responder == NO_SPI
            )
        if expected.initiator == NO_SPI:
            return header.responder_spi == NO_SPI
        # The peer's first message, which it may repeat, knows nothing of our cookie.
        return header.initiator_spi == expected.initiator and header.responder_spi in (NO_SPI, expected.responder)

    def learn(self, header: Header) -> None:
        """Take the peer's cookie from its first message that was accepted."""
        if self.initiator:
            self.cookies = Cookies(initiator=self.cookies.initiator, responder=header.responder_spi)
        else:
            self.cookies = Cookies(initiator=header.initiator_spi, responder=self.cookies.responder)

    def reassemble(self, header: Header, message: bytes) -> tuple[Header, bytes] | None:
        """Take a fragment; the whole message once all are there. Raises: DecodeError, UnexpectedMessage."""
        chain = parse_chain(header.next_payload, message[HEADER_LENGTH:], final=(PayloadType1.FRAGMENT,))
        reader = Reader(chain[0].body)
        whole = self._reassembly.add(Fragment.parse(reader))
        if whole is None:
            return None
        inner = parse_header(whole)
        if inner.next_payload == PayloadType1.FRAGMENT or not self.belongs(inner):
            raise UnexpectedMessage("fragments that make no message of this SA")
        return inner, whole

    # --- NAT ------------------------------------------------------------------------------------------------

    def nat_detection(self, suite: Phase1Suite, *, hidden: bytes = b"") -> tuple[NatDetection, NatDetection]:
        """NAT-D for the peer's address, then ours (RFC 3947 section 3.2); `hidden` stands for ours if given."""
        header, path = self.header(0), self.path
        remote = detection_hash(header, path.remote.packed, path.remote_port, suite.prf.hash)
        local = hidden or detection_hash(header, path.local.packed, path.local_port, suite.prf.hash)
        return NatDetection(data=remote), NatDetection(data=local)

    def detect_nat(self, suite: Phase1Suite, received: tuple[NatDetection, ...]) -> None:
        """Compare with what the peer sees: the first is about us, all others about itself."""
        if len(received) < 2:
            return
        theirs, ours = self.nat_detection(suite)
        self.nat_here = self.nat_here or received[0].data != ours.data
        self.nat_there = all(each.data != theirs.data for each in received[1:])


def _with_header(header: Header, first: int, body: bytes) -> bytes:
    length = HEADER_LENGTH + len(body)
    if length > MAX_MESSAGE:
        raise ValueError(f"a message of {length} bytes")
    return header.before(first, len(body)) + body


def read(
    header: Header, message: bytes, chain: CbcChain | None, *, public_key_encryption: bool = False
) -> tuple[Message, CbcChain | None]:
    """Cut a whole message into payloads, opened with `chain` if it says that it is encrypted.

    The chain to go on with is returned; it is to be kept only when the message turns out to be authentic.
    Raises: NotProtected for an encrypted message where there is no chain, DecodeError for a malformed one.
    """
    body = message[HEADER_LENGTH:]
    encrypted = bool(header.flags & Flags1.ENCRYPTION)
    if encrypted:
        if chain is None:
            raise NotProtected("an encrypted message before there are keys")
        body, chain = chain.open(body)
    if not header.next_payload:
        raise DecodeError("a message without payloads")
    payloads = parse_payloads(
        header.next_payload,
        body,
        maximum_padding=MAX_PADDING if encrypted else 0,
        public_key_encryption=public_key_encryption,
    )
    return Message(header, payloads, encrypted, message), chain
