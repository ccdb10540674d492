"""`Ike2Sa`: one IKE SA of version 2, from its first message, or from the SA that it replaces, to its deletion.

Never reads a payload and never runs a step: it owns the timers, says what begins and when, and how it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil

from locum.errors import LocumError, TimedOut
from locum.ike.configuration import Connection
from locum.ike.engine import Child, ChildClosed, Closed, Path, Rekeyed, State
from locum.ike.header import Header
from locum.ike.keying2 import IkeKeys
from locum.ike.nat import KEEPALIVE
from locum.ike.payloads2 import Delete
from locum.ike.registry import ProtocolId
from locum.ike.suites import IkeSuite
from locum.ike.v2 import child_exchanges, deletion, initiator, rekeying
from locum.ike.v2.channel import DirectionalKeys
from locum.ike.v2.core import Core, End
from locum.ike.v2.entries import Entry, Progress
from locum.ike.v2.messages import Content
from locum.ike.v2.running import Runner
from locum.ike.v2.steps import Task

#: A driver that closes an SA waits so many seconds for the peer's answer.
CLOSE_PATIENCE = 3.0
#: What has said its last word repeats it for so many seconds, should the peer ask again.
LINGER = 8.0
#: After an error in clear, which anybody may have sent, a true answer has so many seconds left to come.
HINT_PATIENCE = 2.0
#: A successor that neither takes over nor is deleted is given up after so many seconds.
UNANNOUNCED = 120.0

NEVER = float("inf")


class Ike2Sa(Runner):
    """See `IkeSa`. `own_spi` is given to the successor of another SA, 8 bytes."""

    __slots__ = (
        "_announced",
        "_connecting_until",
        "_deadline",
        "_ending",
        "_held_by",
        "_hint",
        "_predecessor",
    )

    def __init__(
        self,
        connection: Connection,
        path: Path,
        *,
        initiator: bool,
        random: Callable[[int], bytes],
        reserve_spi: Callable[[], int],
        observed: bool = False,
        own_spi: bytes = b"",
    ) -> None:
        super().__init__(
            connection,
            path,
            initiator=initiator,
            random=random,
            reserve_spi=reserve_spi,
            observed=observed,
            own_spi=own_spi,
        )
        self._predecessor: Ike2Sa | None = None
        #: the predecessor whose peer may not have heard yet that this SA exists
        self._held_by: Ike2Sa | None = None
        #: false for a successor that has not taken over: the driver knows nothing of it
        self._announced = True
        #: when a handshake is given up
        self._connecting_until = NEVER
        self._hint: LocumError | None = None
        #: when a close, a successor's wait, or lingering is over
        self._deadline = NEVER
        self._ending: End | None = None

    @property
    def children(self) -> tuple[Child, ...]:
        return tuple(entry.child for entry in self._core.children)

    # --- beginning ----------------------------------------------------------------------------------------

    def start(self, *, now: float) -> None:
        self._core.now = now
        self._connecting_until = now + self.connection.timing.handshake
        self._begin(initiator.establish(self._core))
        self._settle()

    def receive(self, header: Header, message: bytes, path: Path, *, now: float) -> None:
        if self._connecting_until == NEVER:
            self._connecting_until = now + self.connection.timing.handshake
        super().receive(header, message, path, now=now)

    def _heard(self, path: Path) -> None:
        self._held_by = None
        super()._heard(path)

    def _hinted(self, error: LocumError) -> None:
        if self._hint is None:
            self._hint = error
            self._connecting_until = min(self._connecting_until, self._core.now + HINT_PATIENCE)

    # --- succession ---------------------------------------------------------------------------------------

    def _begin_successor(
        self, suite: IkeSuite, keys: IkeKeys, *, own_spi: bytes, peer_spi: bytes, initiator: bool
    ) -> Ike2Sa:
        """`Core.succession`."""
        sa = Ike2Sa(
            self.connection,
            self.path,
            initiator=initiator,
            random=self._random,
            reserve_spi=self._reserve_spi,
            observed=self.observed,
            own_spi=own_spi,
        )
        sa._predecessor, sa._announced = self, False
        sa._deadline = self._core.now + UNANNOUNCED
        sa.state, sa.peer_identity, sa.algorithms = State.ESTABLISHED, self.peer_identity, str(suite)
        before, core = self._core, sa._core
        core.suite, core.sk_d, core.now = suite, keys.sk_d, before.now
        core.nat_here, core.nat_there = before.nat_here, before.nat_there
        core.further = before.further
        core.channel.peer_spi, core.channel.maximum = peer_spi, before.channel.maximum
        core.channel.use(suite, DirectionalKeys(ai=keys.sk_ai, ar=keys.sk_ar, ei=keys.sk_ei, er=keys.sk_er))
        self.begun.append(sa)
        return sa

    def take_over(self, *, now: float) -> None:
        """Have the children of the SA that this one succeeds, and what it still was to do, and say so."""
        before = self._predecessor
        assert before is not None
        self._predecessor, self._announced, self._deadline = None, True, NEVER
        self._held_by = None if self.initiator else before
        self._core.now = self._last_heard = self._last_sent = now
        self._core.begin_life()
        self._core.children.take_all(before._core.children)
        self._queue += before._queue
        before._queue.clear()
        self._core.later += before._core.later
        before._deadline = now + self.connection.timing.handshake
        before.events.append(Rekeyed(sa=self, replaced=before))

    def _claimed(self, request: Content) -> None:
        """A peer that uses what it made while we were rekeying has decided: our own attempt is of no use.

        It does no more than delete what has to go (RFC 7296 section 2.8.2).
        """
        before = self._predecessor
        if before is None or any(each.protocol == ProtocolId.IKE for each in request.all(Delete)):
            return
        core = before._core
        core.now, core.rekeying = self._core.now, None
        if before._ours is not None:
            before._cancel_ours()
            core.channel.answered()
        core.succeed(self)
        before.touched(before)

    def retire(self, *, now: float) -> None:
        """Redundant, and made by us: delete it at both ends, without a word to the driver."""
        self._core.now = now
        self._predecessor = None
        self._core.end = End(None, "redundant", (deletion.DELETE_SA,))
        self._settle()

    # --- what a driver calls ------------------------------------------------------------------------------

    def create_child(self, *, now: float) -> None:
        self._enqueue(child_exchanges.create_child, now)

    def rekey_child(self, child: Child, *, now: float) -> None:
        entry = self._heir._core.children.of(child)
        if entry is not None:
            self._enqueue(partial(child_exchanges.rekey_child, entry=entry), now)

    def rekey(self, *, now: float) -> None:
        self._enqueue(rekeying.rekey, now)

    def close_child(self, child: Child, *, now: float) -> None:
        entry = self._heir._core.children.of(child)
        if entry is not None:
            self._enqueue(partial(_delete, entry=entry, reason="closed here"), now)

    def check_liveness(self, *, now: float) -> None:
        self._enqueue(deletion.check_liveness, now)

    def close(self, *, now: float) -> None:
        self._core.now = now
        if self.state is not State.CLOSED and not self._core.closing:
            told = self.state is State.ESTABLISHED or self._core.peer_established
            self._core.end = End(None, "closed here", (deletion.DELETE_SA,) if told else (), hurry=True)
            self._settle()
        self.touched(self)

    def forget(self, reason: str) -> None:
        self._finish(None, reason)

    @property
    def _heir(self) -> Ike2Sa:
        """This SA, or the one that has taken over."""
        successor = self._core.successor
        return successor._heir if isinstance(successor, Ike2Sa) else self

    def _enqueue(self, task: Callable[[Core], Task], now: float) -> None:
        """Do it when its turn comes, or have whoever took over do it; nothing where the SA is not in force."""
        heir = self._heir
        if heir.state is State.ESTABLISHED and heir._announced and not heir._core.closing:
            heir._core.now = now
            heir._queue.append(task)
            heir._settle()
        heir.touched(heir)

    # --- ends ---------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        self._settle_here()
        if self._core.successor is None:
            return
        heir = self._heir
        if heir is not self:
            # It may have inherited what is to be done.
            heir._settle()
            heir.touched(heir)

    def _settle_here(self) -> None:
        core = self._core
        while self.state is not State.CLOSED:
            if core.end is not None:
                end, core.end = core.end, None
                self._come_to(end)
            elif self._ours is not None:
                return
            elif self._ending is not None:
                if self._ending.farewell:
                    farewell = self._ending.farewell
                    self._ending = End(self._ending.error, self._ending.reason)
                    self._begin(deletion.say_farewell(core, farewell))
                else:
                    self._finish(self._ending.error, self._ending.reason)
            elif core.unwanted:
                self._begin(deletion.delete_unwanted(core, core.unwanted.pop()))
            elif self._queue and self._may_begin:
                self._begin(self._queue.pop(0)(core))
            else:
                return

    @property
    def _may_begin(self) -> bool:
        """True when exchanges of ours have a chance: the peer knows this SA, and no other has taken over."""
        held = self._held_by is not None and self._held_by.state is not State.CLOSED
        return self.state is State.ESTABLISHED and self._core.successor is None and not held

    def _come_to(self, end: End) -> None:
        """End at once where the peer knows; else tell it first, when the request under way has its answer."""
        if not end.farewell or not self._core.channel.protected:
            self._finish(end.error, end.reason, linger=self._core.channel.expected_id > 1)
            return
        core = self._core
        core.closing = True
        self._ending = end
        self._deadline = core.now + CLOSE_PATIENCE if end.hurry else NEVER
        self._queue.clear()
        core.unwanted.clear()
        if self._ours is not None and self._ours.step is None:
            # The authority is still at work for an exchange that nobody needs any more.
            self._cancel_ours()

    def _cancel_ours(self) -> None:
        ours, self._ours = self._ours, None
        assert ours is not None
        ours.generator.close()
        if self._asks and self._asks[0][0] is ours:
            self.pending = None
        self._asks = [each for each in self._asks if each[0] is not ours]
        self._offer_pending()

    def _finish(self, error: LocumError | None, reason: str, *, linger: bool = False) -> None:
        if self.state is State.CLOSED:
            return
        core = self._core
        if core.rekeying is not None and core.rekeying.rival is not None:
            # Our own rekeying is forgotten, the peer's is done (RFC 7296 section 2.25.2).
            core.succeed(core.rekeying.rival)
        self._stop_all()
        if core.successor is not None:
            error, reason = None, "rekeyed"
        self.state = State.CLOSED
        if self._announced:
            self.events += [ChildClosed(sa=self, child=child, reason=reason) for child in self.children]
            self.events.append(Closed(sa=self, error=error, reason=reason))
        for entry in core.children:
            core.children.remove(entry)
        core.sk_d, self._init_request = b"", b""
        core.channel.wipe(repeat=linger)
        # In whole seconds, so that many are forgotten in one go.
        self._deadline = ceil(core.now + LINGER) if linger else NEVER

    # --- timers -------------------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        if self.state is State.CLOSED:
            return None if self._deadline == NEVER else self._deadline
        core = self._core
        earliest = self._deadline
        if self.state is State.CONNECTING:
            earliest = min(earliest, self._connecting_until)
        elif self._in_force:
            earliest = min(earliest, self._next_moment_of_life())
        if core.channel.outstanding is not None:
            earliest = min(earliest, core.channel.outstanding.due)
        if self._followed is not None:
            earliest = min(earliest, self._followed_until)
        return None if earliest == NEVER else earliest

    @property
    def _in_force(self) -> bool:
        """True for an SA that is established and that neither end is about to leave."""
        core = self._core
        return self.state is State.ESTABLISHED and self._announced and not core.closing and core.successor is None

    def _next_moment_of_life(self) -> float:
        core, timing = self._core, self.connection.timing
        moment = NEVER if core.ends_at is None else core.ends_at
        if core.rekey_at is not None:
            moment = min(moment, core.rekey_at)
        if timing.liveness and self._ours is None:
            moment = min(moment, self._last_heard + timing.liveness)
        if core.nat_here:
            moment = min(moment, self._last_sent + timing.keepalive)
        for entry in core.children:
            moment = min(moment, entry.next_moment)
        for later, _ in core.later:
            moment = min(moment, later)
        return moment

    def expire(self, *, now: float) -> None:
        core = self._core
        core.now = now
        if self.state is State.CLOSED:
            if now >= self._deadline:
                self._deadline = NEVER
                core.channel.wipe()
            return
        if now >= self._deadline or (self.state is State.CONNECTING and now >= self._connecting_until):
            self._give_up()
        elif core.channel.outstanding is not None and now >= core.channel.outstanding.due:
            self._repeat()
        if self._followed is not None and now >= self._followed_until:
            self._forget_followed()
        if self._in_force:
            self._live()
        self._settle()

    def _give_up(self) -> None:
        """The time of a handshake, a close or a wait is up."""
        if self._ending is not None:
            self._finish(self._ending.error, self._ending.reason)
        elif not self._announced:
            # The peer has given up what made it, or never heard that it was made.
            self._finish(None, "redundant")
        elif self._core.successor is not None:
            # The peer, which was to delete this SA, has not.
            self._core.end = End(None, "rekeyed", (deletion.DELETE_SA,))
            self._deadline = NEVER
        else:
            error = self._hint or TimedOut("the handshake took too long")
            self._core.end = End(error, str(error), self._farewell(error))

    def _repeat(self) -> None:
        """Send the request again, or take the peer for dead (RFC 7296 section 2.4)."""
        core, timing = self._core, self.connection.timing
        outstanding = core.channel.outstanding
        assert outstanding is not None
        if outstanding.sent >= timing.attempts:
            self._die(TimedOut(f"no answer after {outstanding.sent} transmissions"))
            return
        outstanding.sent += 1
        outstanding.interval = min(2 * outstanding.interval, timing.longest_retransmission)
        outstanding.due = core.now + outstanding.interval
        for datagram in outstanding.datagrams:
            self._transmit(datagram, self.path)

    def _die(self, error: TimedOut) -> None:
        if self._ending is not None:
            self._finish(self._ending.error, self._ending.reason)
        else:
            self._finish(self._hint or error, str(self._hint or error))

    def _live(self) -> None:
        """What is due in the life of an SA that is established."""
        core, timing, now = self._core, self.connection.timing, self._core.now
        if core.ends_at is not None and now >= core.ends_at:
            core.end = End(None, "its lifetime is over", (deletion.DELETE_SA,))
            return
        if core.rekey_at is not None and now >= core.rekey_at:
            core.rekey_at = None
            self._queue.append(rekeying.rekey)
        for entry in core.children:
            if now >= entry.next_moment:
                self._outlived(entry)
        if core.later:
            self._queue += [task for moment, task in core.later if now >= moment]
            core.later = [each for each in core.later if now < each[0]]
        if timing.liveness and self._ours is None and now >= self._last_heard + timing.liveness:
            self._queue.append(deletion.check_liveness)
        if core.nat_here and now >= self._last_sent + timing.keepalive:
            self._transmit(KEEPALIVE, self.path)

    def _outlived(self, entry: Entry) -> None:
        if self._core.now >= entry.ends_at:
            entry.ends_at = NEVER
            self._queue.append(partial(_delete, entry=entry, reason="its lifetime is over"))
        elif entry.progress is Progress.INSTALLED:
            entry.rekey_at = None
            self._queue.append(partial(child_exchanges.rekey_child, entry=entry))


def _delete(core: Core, entry: Entry, reason: str) -> Task:
    yield from deletion.delete_children(core, (entry,), reason)
