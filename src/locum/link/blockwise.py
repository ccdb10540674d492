"""Block-wise transfer (RFC 7959): large bodies cut into blocks and put together again, at both ends.

Works on unprotected messages, so that every block is authenticated; never knows how a message travels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import field
from typing import Generic, NamedTuple, TypeVar

from locum.errors import DecodeError, Misbehaved
from locum.link.coap import MAXIMUM_BODY, Code, Framing, Option, OptionNumber, uint
from locum.values import dataclass

#: Block sizes are 16 << SZX with SZX 0..6.
MAXIMUM_SZX = 6
MAXIMUM_BLOCK = 16 << MAXIMUM_SZX
#: Several blocks of the largest size in one message of a stream (RFC 8323 section 6): understood, never sent.
BERT_SZX = 7


class Block(NamedTuple):
    """The value of a Block1 or Block2 option (RFC 7959 section 2.2)."""

    number: int
    more: bool
    szx: int

    @classmethod
    def parse(cls, data: bytes, framing: Framing) -> Block:
        """Parse an option value of 0 to 3 bytes. Raises: DecodeError for a size not for this framing."""
        value = int.from_bytes(data, "big")
        if value & 7 == BERT_SZX and framing is Framing.DATAGRAM:
            raise DecodeError("reserved block size")
        return cls(value >> 4, bool(value & 8), value & 7)

    def write(self) -> bytes:
        """The option value."""
        return uint(self.number << 4 | self.more << 3 | self.szx)

    @property
    def size(self) -> int:
        """Bytes of a whole block."""
        return 16 << min(self.szx, MAXIMUM_SZX)

    @property
    def offset(self) -> int:
        """Where this block begins in the body."""
        return self.number * self.size

    def fits(self, length: int) -> bool:
        """True when a payload of `length` bytes is right: whole, except that the last block may be shorter."""
        if self.szx == BERT_SZX:
            return not self.more or (length > 0 and length % self.size == 0)
        return length == self.size if self.more else length <= self.size


def block_of(options: Mapping[int, list[bytes]], number: OptionNumber, framing: Framing) -> Block | None:
    """The Block1 or Block2 option among recognised options. Raises: DecodeError."""
    values = options.get(number)
    return None if values is None else Block.parse(values[0], framing)


def szx_for(size: int) -> int:
    """The largest SZX whose blocks fit in `size` bytes, 0 at least."""
    return max(0, min(MAXIMUM_SZX, size.bit_length() - 5))


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered: a response code (`Code`) and the whole body."""

    code: int
    payload: bytes = field(repr=False)


class ClientTransfer:
    """One request and its response, cut into as many messages as they need, seen from the client.

    Alternate `message` and `accept` until the latter returns a reply. `block_size` is None for a request that
    goes whole. `tag` is the Request-Tag, which keeps this transfer apart from others of the same client: RFC 9175
    section 3.4 asks for one wherever bodies could otherwise be mixed.
    """

    __slots__ = ("_etag", "_framing", "_next", "_offset", "_payload", "_received", "_szx", "_tag")

    def __init__(self, payload: bytes, *, framing: Framing, block_size: int | None, tag: bytes | None) -> None:
        self._payload = payload
        self._framing = framing
        self._szx = None if block_size is None else szx_for(block_size)
        self._tag = tag
        self._offset = 0
        #: The block of the response to ask for, once a first one has come.
        self._next: Block | None = None
        self._received = bytearray()
        self._etag: list[bytes] | None = None

    def message(self) -> tuple[list[Option], bytes]:
        """Options, in order, and payload of the request to send now."""
        options: list[Option] = []
        payload = b"" if self._next is not None else self._payload
        if self._next is not None:
            options.append((OptionNumber.BLOCK2, self._next.write()))
        elif self._szx is not None:
            block, payload = self._block1()
            options.append((OptionNumber.BLOCK1, block.write()))
            if self._offset == 0:
                options.append((OptionNumber.SIZE1, uint(len(self._payload))))
        if self._tag is not None:
            options.append((OptionNumber.REQUEST_TAG, self._tag))
        return options, payload

    def accept(self, code: int, options: Mapping[int, list[bytes]], payload: bytes) -> Reply | None:
        """Take the response to the last `message`: the reply when it is whole, None when there is more to ask for.

        Raises: DecodeError, Misbehaved (blocks that do not follow one another, or a body beyond `MAXIMUM_BODY`).
        """
        if self._szx is not None and self._next is None:
            block1 = block_of(options, OptionNumber.BLOCK1, self._framing)
            if block1 is not None and self._go_on(code, block1):
                return None
        if code == Code.CONTINUE:
            raise Misbehaved("the delegate asks to go on where nothing is left")
        block2 = block_of(options, OptionNumber.BLOCK2, self._framing)
        if block2 is None:
            if self._next is not None and code < Code.BAD_REQUEST:
                raise Misbehaved("the delegate's response ends without its last block")
            return Reply(code, payload)
        return self._collect(code, options.get(OptionNumber.ETAG), block2, payload)

    def _block1(self) -> tuple[Block, bytes]:
        assert self._szx is not None
        size = 16 << self._szx
        chunk = self._payload[self._offset : self._offset + size]
        more = self._offset + size < len(self._payload)
        return Block(self._offset >> (self._szx + 4), more, self._szx), chunk

    def _go_on(self, code: int, block1: Block) -> bool:
        """True when a further block of the request is to be sent."""
        assert self._szx is not None
        if code == Code.REQUEST_ENTITY_TOO_LARGE and self._offset == 0 and block1.szx < self._szx:
            # RFC 7959 section 2.9.3: the server wants smaller blocks from the start
            self._szx = block1.szx
            return True
        if code != Code.CONTINUE:
            return False
        sent, chunk = self._block1()
        if not sent.more or block1.number != sent.number:
            raise Misbehaved("the delegate acknowledges a block that was not sent")
        self._offset += len(chunk)
        self._szx = min(self._szx, block1.szx)
        return True

    def _collect(self, code: int, etag: list[bytes] | None, block2: Block, payload: bytes) -> Reply | None:
        if self._next is None and not self._received:
            self._etag = etag
        if block2.offset != len(self._received) or etag != self._etag:
            raise Misbehaved("the delegate's blocks do not belong together")
        if not block2.fits(len(payload)):
            raise Misbehaved("a block of the delegate's response is not full")
        if len(self._received) + len(payload) > MAXIMUM_BODY:
            raise Misbehaved(f"the delegate's response has more than {MAXIMUM_BODY} bytes")
        self._received += payload
        if not block2.more:
            return Reply(code, bytes(self._received))
        self._next = Block(len(self._received) // block2.size, False, min(block2.szx, MAXIMUM_SZX))
        return None


V = TypeVar("V")


class Shelf(Generic[V]):
    """Unfinished bodies by owner and key: bounded for each owner, in all, and in time (seconds)."""

    def __init__(self, per_owner: int, total: int, lifetime: float) -> None:
        self._per_owner = per_owner
        self._total = total
        self._lifetime = lifetime
        self._entries: OrderedDict[tuple[Hashable, Hashable], tuple[float, V]] = OrderedDict()
        self._counts: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, owner: Hashable, key: Hashable, now: float) -> V | None:
        """What lies there, unless it is too old."""
        self.forget(now)
        entry = self._entries.get((owner, key))
        return None if entry is None else entry[1]

    def put(self, owner: Hashable, key: Hashable, value: V, now: float) -> None:
        """Lay `value` there; an owner with too many loses its oldest, and so does the whole."""
        self.forget(now)
        self.pop(owner, key)
        self._entries[owner, key] = (now, value)
        self._counts[owner] = self._counts.get(owner, 0) + 1
        if self._counts[owner] > self._per_owner:
            self.pop(*next(place for place in self._entries if place[0] == owner))
        elif len(self._entries) > self._total:
            self.pop(*next(iter(self._entries)))

    def pop(self, owner: Hashable, key: Hashable) -> None:
        """Take away what lies there, if anything does."""
        if self._entries.pop((owner, key), None) is not None:
            self._counts[owner] -= 1
            if not self._counts[owner]:
                del self._counts[owner]

    def next_timeout(self) -> float | None:
        """The moment at which the oldest is too old."""
        for moment, _ in self._entries.values():
            return moment + self._lifetime
        return None

    def forget(self, now: float) -> None:
        """Take away everything that is too old."""
        while self._entries:
            place = next(iter(self._entries))
            if self._entries[place][0] + self._lifetime > now:
                return
            self.pop(*place)


class Upload:
    """A request's body as its blocks arrive (RFC 7959 section 2.5)."""

    __slots__ = ("_body",)

    def __init__(self) -> None:
        self._body = bytearray()

    def add(self, block: Block, payload: bytes) -> int | None:
        """Append one block. Returns None, or the code of the refusal; the upload is over then."""
        if block.offset != len(self._body):
            return Code.REQUEST_ENTITY_INCOMPLETE
        if not block.fits(len(payload)):
            return Code.BAD_REQUEST
        if len(self._body) + len(payload) > MAXIMUM_BODY:
            return Code.REQUEST_ENTITY_TOO_LARGE
        self._body += payload
        return None

    def body(self) -> bytes:
        """Everything so far."""
        return bytes(self._body)


@dataclass(frozen=True, slots=True)
class Download:
    """A response's body while it is fetched block by block (RFC 7959 section 2.4); `etag` tells it from others."""

    code: int
    body: bytes = field(repr=False)
    etag: bytes

    def block(self, number: int, szx: int) -> tuple[Block, bytes] | None:
        """The block of that number and size, or None beyond the end."""
        block = Block(number, False, min(szx, MAXIMUM_SZX))
        chunk = self.body[block.offset : block.offset + block.size]
        if not chunk:
            return None
        return block._replace(more=block.offset + block.size < len(self.body)), chunk
