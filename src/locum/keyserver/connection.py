"""One connection of an edge, without its socket: requests are recognised, judged, performed, answered, in turns.

Never knows more of the other end than the fingerprint of its certificate.

Nearly all requests of a connection are alike but for their id and the digest at their end. What the others mean is
found out once, in `answering`, and remembered as a lane until the databases change: a signature over a digest then
costs a look-up, the signature, and its share of one write.
"""

from __future__ import annotations

from collections import deque

from locum.errors import LocumError
from locum.keyless.frames import FrameReader, encode_error, encode_response
from locum.keyless.registry import HEADER_LENGTH
from locum.keyserver.answering import Answering, Deferred, Later
from locum.keyserver.grants import Grant
from locum.keyserver.service import KeyService

#: Where the id is in a message.
_ID = slice(4, HEADER_LENGTH)


class Connection:
    """Requests of whoever has shown the certificate with this `fingerprint`.

    `receive` takes bytes, `turn` works on what they contain and returns the bytes to send. When `closing` says
    why, the connection is to be closed after what has been returned has been sent.
    """

    __slots__ = (
        "_answering",
        "_deferred",
        "_fingerprint",
        "_frames",
        "_reader",
        "_service",
        "closing",
        "under_way",
        "waiting",
    )

    def __init__(self, service: KeyService, fingerprint: str) -> None:
        self._service = service
        self._fingerprint = fingerprint
        self._answering = Answering(service)
        self._reader = FrameReader()
        self._frames: deque[bytes] = deque()
        self._deferred: list[Deferred] = []
        #: Bytes of whole requests that wait for their turn.
        self.waiting = 0
        #: Operations that are performed elsewhere and have not been answered.
        self.under_way = 0
        self.closing = ""

    @property
    def incomplete(self) -> bool:
        """True while a message has begun and has not ended."""
        return self._reader.pending > 0

    @property
    def ready(self) -> bool:
        """True when `turn` has something to do."""
        return bool(self._frames) and self.under_way < self._service.limits.under_way

    @property
    def idle(self) -> bool:
        """True when every request has been answered."""
        return not self._frames and not self.under_way

    def receive(self, data: bytes) -> int:
        """Take bytes as they have arrived; returns how many messages they complete.

        What follows a message that cannot be followed is dropped.
        """
        if self._reader.fault is not None:
            return 0
        frames = self._reader.cut(data)
        self._frames += frames
        self.waiting += sum(map(len, frames))
        return len(frames)

    def turn(self, *, only_short: bool) -> bytes:
        """Work for about as long as the limits say; returns the answers.

        With `only_short` an operation that takes long is left for later, and so is what comes after it.
        """
        answers: list[bytes] = []
        grant = self._judged()
        if grant is not None:
            self._work(grant, answers, only_short)
        fault = self._reader.fault
        if fault is not None and not self._frames and not self.closing:
            answers.append(encode_error(fault.id, fault.code, str(fault)))
            self.closing = str(fault)
        return b"".join(answers)

    def take_deferred(self) -> list[Deferred]:
        """The operations that have to be performed elsewhere; each ends with `complete` or `fail`."""
        found, self._deferred = self._deferred, []
        return found

    def complete(self, deferred: Deferred, result: bytes) -> bytes:
        """An operation was performed elsewhere; returns the answer, empty when nobody may have it any more."""
        self.under_way -= 1
        return b"" if self._judged() is None else self._answering.performed(deferred, result)

    def fail(self, deferred: Deferred, error: LocumError) -> bytes:
        """An operation could not be performed elsewhere; returns the answer."""
        self.under_way -= 1
        return b"" if self._judged() is None else self._answering.failed(deferred, error)

    def _judged(self) -> Grant | None:
        """What this edge may do now; None, and the end of the connection, when that is nothing any more."""
        service = self._service
        who, reason = service.objection(self._fingerprint)
        if not reason:
            return service.grant(self._fingerprint)
        self._frames.clear()
        self.waiting = 0
        if not self.closing:
            service.journal.turned_away(who, reason)
            service.counters.turned_away += 1
            self.closing = reason
        return None

    def _work(self, grant: Grant, answers: list[bytes], only_short: bool) -> None:
        service, frames = self._service, self._frames
        limits, bucket = service.limits, service.bucket(grant.edge)
        allowed = 0 if service.suspended else bucket.refill(service.clock())
        longest = limits.short if only_short else limits.longest
        budget, done = limits.turn, 0
        while frames and budget > 0:
            performed, budget = self._short_way(grant, answers, allowed - done, longest, budget)
            service.counters.performed += performed
            done += performed
            if not frames or budget <= 0:
                break
            room = self.under_way < limits.under_way
            try:
                found, cost = self._answering.answer(grant, frames[0], longest, allowed=done < allowed, room=room)
            except Later:
                break
            if isinstance(found, Deferred):
                self._deferred.append(found)
                self.under_way += 1
            else:
                answers.append(found)
            budget -= cost
            done += 1
            self.waiting -= len(frames.popleft())
        bucket.tokens -= min(done, allowed)
        service.counters.requests += done

    def _short_way(
        self, grant: Grant, answers: list[bytes], most: int, longest: int, budget: int
    ) -> tuple[int, int]:
        """Answer requests that are recognised, up to the first that is not; returns how many, and what is left.

        Whatever is done here, is done for every signature: this is where the server's time goes.
        """
        frames, lanes_by_length, heads = self._frames, grant.lanes, _HEADS
        done = 0
        for frame in frames:
            lanes = lanes_by_length.get(len(frame))
            if lanes is None or budget <= 0 or done >= most:
                break
            lane = lanes.by_middle.get(frame[lanes.middle])
            if lane is None or lane.cost > longest:
                break
            try:
                answer = lane.perform(frame[lanes.tail])
            except Exception:  # whatever it is: on the long way it is met again, and reported
                del lanes.by_middle[frame[lanes.middle]]
                break
            before, after = heads.get(len(answer)) or _head(len(answer))
            answers += (before, frame[_ID], after, answer)
            lane.use.count += 1
            budget -= lane.cost
            done += 1
        if done == len(frames):
            frames.clear()
            self.waiting = 0
        else:
            self.waiting -= sum(len(frames.popleft()) for _ in range(done))
        return done, budget


#: By the length of a signature: what an answer with it begins with, up to the id, and what comes after that.
_HEADS: dict[int, tuple[bytes, bytes]] = {}
#: Lengths that are remembered: those of all kinds of keys, with ECDSA a few for each.
_MAXIMUM_HEADS = 128


def _head(length: int) -> tuple[bytes, bytes]:
    frame = encode_response(0, bytes(length))
    head = frame[: _ID.start], frame[_ID.stop : len(frame) - length]
    if len(_HEADS) < _MAXIMUM_HEADS:
        _HEADS[length] = head
    return head
