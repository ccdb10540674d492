"""Fragments of IKEv1: a whole message, its header included, cut into FRAGMENT payloads.

Not in any RFC; every IKEv1 program of today does it alike. Fragments are not authenticated, so that what is
held is bounded and may be pushed out; the message that they make is judged like any other.
"""

from __future__ import annotations

from locum.errors import DecodeError
from locum.ike.header import GENERIC_HEADER_LENGTH, HEADER_LENGTH, MAX_MESSAGE, Header, generic_header
from locum.ike.payloads1 import Fragment, body_of
from locum.ike.protection import MIN_FRAGMENT
from locum.ike.registry import PayloadType1

#: Fragment id, number and flags before the piece.
_FRAGMENT_FIELDS = 4

#: The number is one byte, and counts from 1.
MAX_NUMBER = 255


def cut_message(header: Header, message: bytes, identifier: int, *, maximum: int) -> tuple[bytes, ...]:
    """Cut `message`, whose header is `header`, into datagrams of at most `maximum` bytes each.

    It is not cut where it fits whole. `identifier` tells messages apart, 16 bits.
    Raises: ValueError for a `maximum` below `MIN_FRAGMENT`, and for more than `MAX_NUMBER` fragments.
    """
    if maximum < MIN_FRAGMENT:
        raise ValueError(f"fragments of {maximum} bytes are too small")
    if len(message) <= maximum:
        return (message,)
    size = maximum - HEADER_LENGTH - GENERIC_HEADER_LENGTH - _FRAGMENT_FIELDS
    total = -(-len(message) // size)
    if total > MAX_NUMBER:
        raise ValueError(f"{total} fragments")
    clear = header._replace(flags=0)
    datagrams = []
    for number in range(1, total + 1):
        piece = message[(number - 1) * size : number * size]
        body = body_of(Fragment(id=identifier, number=number, last=number == total, data=piece))
        before = clear.before(PayloadType1.FRAGMENT, GENERIC_HEADER_LENGTH + len(body))
        datagrams.append(b"".join((before, generic_header(PayloadType1.NONE, len(body)), body)))
    return tuple(datagrams)


class Reassembly:
    """The fragments of one message at a time; one of another id pushes out what is held."""

    __slots__ = ("_id", "_last", "_pieces")

    def __init__(self) -> None:
        self._id: int | None = None
        self._last: int | None = None
        self._pieces: dict[int, bytes] = {}

    @property
    def held(self) -> int:
        """Bytes that wait for the rest, at most `MAX_MESSAGE`."""
        return sum(map(len, self._pieces.values()))

    def add(self, fragment: Fragment) -> bytes | None:
        """Take one fragment; the whole message once all are there.

        Raises: DecodeError for number 0, a number beyond the last, or more than `MAX_MESSAGE` bytes.
        """
        if fragment.id != self._id:
            self._forget()
            self._id = fragment.id
        if fragment.number in self._pieces:
            return None
        last = fragment.number if fragment.last and self._last is None else self._last
        if not fragment.number or (last is not None and max(fragment.number, *self._pieces, 0) > last):
            raise DecodeError(f"fragment {fragment.number} where {last} is the last")
        if self.held + len(fragment.data) > MAX_MESSAGE:
            self._forget()
            raise DecodeError(f"a message of more than {MAX_MESSAGE} bytes in fragments")
        self._pieces[fragment.number] = fragment.data
        self._last = last
        if last is None or len(self._pieces) < last:
            return None
        whole = b"".join(self._pieces[number] for number in range(1, last + 1))
        self._forget()
        return whole

    def _forget(self) -> None:
        self._pieces.clear()
        self._id = self._last = None
