"""Phase 2 of one ISAKMP SA: its quick modes, and the CHILD_SAs that they make, renew and remove.

Knows no phase 1, and no driver: the SA hands in messages and time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from locum.errors import LocumError, Refused
from locum.ike.algorithms import Group
from locum.ike.children import SPI_LENGTH, ChildTerms, child_on, make_child
from locum.ike.engine import Child, ChildClosed, ChildEstablished, ChildFailed, Path
from locum.ike.errors import Busy, NotifyReceived, notify1_for
from locum.ike.header import Header
from locum.ike.payloads1 import KeyExchange, SecurityAssociation
from locum.ike.policy import ChildPolicy
from locum.ike.registry import EncapsulationMode, ExchangeType, NotifyType1
from locum.ike.v1 import informational, quick_mode
from locum.ike.v1.core import Core
from locum.ike.v1.isakmp import Isakmp
from locum.ike.v1.kept import MAX_CHILDREN, Children, Kept, renewal
from locum.ike.v1.quick_mode import Agreement, Quick
from locum.ike.v1.running import Progress, Running
from locum.ike.v1.steps import Steps
from locum.ike.v1.traffic import Traffic
from locum.ipsec.sa import Protocol

#: Quick modes under way at once, those that only stay to repeat their last message included.
MAX_QUICK_MODES = 32


@dataclass(slots=True, eq=False)
class _QuickMode:
    """A quick mode under way.

    An initiator makes a successor of `replaced`, has told its `spi`, and offers what is in `group`, None for none.
    `before` are the children that were there when it began: what the peer makes can only replace one of them.
    """

    running: Running[Agreement]
    initiator: bool
    before: tuple[Kept, ...]
    spi: int = 0
    group: Group | None = None
    replaced: Kept | None = None
    settled: bool = False


class Phase2:
    """The quick modes of one SA, and the children of its lineage."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._quick: dict[int, _QuickMode] = {}

    @property
    def _children(self) -> Children:
        return self._core.lineage.children

    @property
    def children(self) -> tuple[Child, ...]:
        """Those in force, oldest first."""
        return tuple(each.child for each in self._children)

    def running(self) -> Iterator[Running[Agreement]]:
        """Every quick mode."""
        return (each.running for each in tuple(self._quick.values()))

    def find(self, message_id: int) -> Running[Agreement] | None:
        """The quick mode with this message id."""
        quick = self._quick.get(message_id)
        return None if quick is None else quick.running

    # --- beginning ------------------------------------------------------------------------------------------

    def begin(self, replaced: Child | None = None, *, now: float) -> None:
        """Make a child for the connection's traffic, or a successor of `replaced`, if that is still there."""
        kept = self._children.find(replaced) if replaced is not None else None
        if replaced is None or kept is not None:
            self._begin(kept, now=now)

    def _begin(self, kept: Kept | None, *, insisted: bool = False, now: float) -> None:
        """`insisted` says that the peer will have no child without perfect forward secrecy."""
        core = self._core
        isakmp = core.isakmp
        if isakmp is None:
            return
        if kept is not None:
            kept.renew_at = None
        full = len(self._quick) >= MAX_QUICK_MODES or len(self._children) >= MAX_CHILDREN
        message_id = None if full else core.message_ids.draw(core.random)
        if message_id is None:
            error = Refused("there are too many CHILD_SAs or exchanges under this ISAKMP SA")
            self._say_failed(kept, error, now=now)
            return
        spi = core.reserve_spi()
        quick = self._quick_of(isakmp, message_id, initiator=True, reserve_spi=lambda: spi)
        group = _offered_group(quick, kept, insisted=insisted)
        quick = replace(quick, policy=replace(quick.policy, groups=(group,)))
        if kept is not None:
            quick = replace(quick, traffic=replace(quick.traffic, local=kept.local, remote=kept.remote))
        running = self._run(isakmp, message_id, quick_mode.initiate(quick), now=now)
        before = tuple(self._children)
        self._quick[message_id] = _QuickMode(
            running, initiator=True, before=before, spi=spi, group=group, replaced=kept
        )
        running.start(now=now)

    def take(
        self, isakmp: Isakmp, header: Header, message: bytes, heard: Callable[[], None], *, now: float
    ) -> bool:
        """Take the first message of a quick mode of the peer's; False when it was dropped. Raises: LocumError."""
        core, message_id = self._core, header.message_id
        room = len(self._quick) < MAX_QUICK_MODES and len(self._children) < MAX_CHILDREN
        if not room or not core.message_ids.is_new(message_id):
            return False
        quick = self._quick_of(isakmp, message_id, initiator=False, reserve_spi=core.reserve_spi)
        running = self._run(isakmp, message_id, quick_mode.respond(quick), now=now)
        running.start(now=now)

        def accepted() -> None:
            self._check_pace(running, now=now)
            core.message_ids.use(message_id)
            self._quick[message_id] = _QuickMode(running, initiator=False, before=tuple(self._children))
            heard()

        return running.receive(header, message, now=now, accepted=accepted)

    def _check_pace(self, running: Running[Agreement], *, now: float) -> None:
        """Raises: Busy for a key exchange too many; a first message that is dropped for it comes again."""
        wanted = running.last is not None and running.last.get(KeyExchange) is not None
        if wanted and not self._core.lineage.further.take(now=now):
            raise Busy("the peer begins key exchanges too often")

    def _run(self, isakmp: Isakmp, message_id: int, steps: Steps[Agreement], *, now: float) -> Running[Agreement]:
        return Running(
            steps,
            self._core.around,
            exchange_type=ExchangeType.QUICK_MODE,
            message_id=message_id,
            chain=isakmp.chain(message_id),
            now=now,
        )

    def _quick_of(
        self, isakmp: Isakmp, message_id: int, *, initiator: bool, reserve_spi: Callable[[], int]
    ) -> Quick:
        core = self._core
        nat = core.channel.nat
        return Quick(
            isakmp=isakmp,
            message_id=message_id,
            policy=self._policy(),
            lifetime=core.timing.child_lifetime,
            traffic=Traffic.of(core.connection, core.channel.path, initiator=initiator, nat=nat),
            reserve_spi=reserve_spi,
            peer_identity=core.sa.peer_identity,
        )

    def _policy(self) -> ChildPolicy:
        """The connection's, with the encapsulation that fits the path, and the lifetime that is kept here."""
        core = self._core
        policy, transport = core.connection.child, core.connection.transport
        mode = EncapsulationMode.TRANSPORT if transport else EncapsulationMode.TUNNEL
        if core.channel.nat:
            mode = EncapsulationMode.UDP_TRANSPORT if transport else EncapsulationMode.UDP_TUNNEL
        lifetime = policy.lifetime
        if lifetime is not None:
            lifetime = max(1, min(lifetime, int(core.timing.child_lifetime)))
        return replace(policy, modes=(mode,), lifetime=lifetime)

    # --- what becomes of them -------------------------------------------------------------------------------

    def settle(self, *, now: float) -> bool:
        """See to one quick mode that has ended; False when there is none."""
        for message_id, quick in tuple(self._quick.items()):
            if quick.running.progress is Progress.FAILED:
                del self._quick[message_id]
                self._failed(quick, now=now)
                return True
            if quick.running.result is not None and not quick.settled:
                quick.settled = True
                self._done(quick, quick.running.result, now=now)
                return True
            if quick.settled and now >= quick.running.deadline:
                # It only stayed to repeat its last message.
                del self._quick[message_id]
        return False

    def _done(self, quick: _QuickMode, agreement: Agreement, *, now: float) -> None:
        core = self._core
        terms = ChildTerms(
            suite=agreement.suite,
            initiator=agreement.initiator,
            inbound_spi=agreement.inbound_spi,
            outbound_spi=agreement.outbound_spi,
            local=(agreement.local,),
            remote=(agreement.remote,),
            transport=core.connection.transport,
            encapsulated=core.channel.nat,
            lifetime=agreement.lifetime,
            created=now,
            original_addresses=agreement.original_addresses,
        )
        try:
            child = make_child(terms, agreement.keys, core.channel.path)
        except LocumError as error:
            if quick.initiator:
                self._say_failed(quick.replaced, error, now=now)
            return
        kept = Kept(
            child=child,
            local=agreement.local,
            remote=agreement.remote,
            initiator=agreement.initiator,
            remove_at=now + agreement.lifetime,
            renew_at=now + renewal(agreement.lifetime, core.timing, core.random),
        )
        # Whoever makes another pair for the same traffic makes a successor: quick mode has no other word for it.
        old = self._children.newest_for(kept.traffic, quick.before)
        self._children.add(kept)
        core.emit(ChildEstablished(sa=core.sa, child=child, replaced=old.child if old is not None else None))
        if old is not None:
            self._replace(old, kept, now=now)

    def _replace(self, old: Kept, new: Kept, *, now: float) -> None:
        """`old` goes; and of several successors, which both ends may have made at once, one is kept."""
        new.replaces = old
        if old.retire_at is None:
            old.retire(ours=new.initiator, now=now)
        for message_id, quick in tuple(self._quick.items()):
            if quick.initiator and quick.replaced is old and quick.running.progress is Progress.PEER:
                # What we had begun for the same is not needed any more.
                del self._quick[message_id]
        rivals = self._children.successors_of(old)
        for rival in sorted(rivals, key=lambda each: each.rank)[:-1]:
            rival.retire(ours=rival.initiator, now=now)

    def _failed(self, quick: _QuickMode, *, now: float) -> None:
        """Say so to the peer, where it is not its own word, and to the driver, where we began."""
        error, last = quick.running.error, quick.running.last
        assert error is not None
        reason = None if quick.running.given_up or last is None else notify1_for(error)
        if reason is not None and last is not None:
            proposal = last.one(SecurityAssociation).proposals[0]
            self._core.inform(informational.failure(reason, protocol=proposal.protocol, spi=proposal.spi))
        if quick.initiator and self._insists(quick, error):
            self._begin(quick.replaced, insisted=True, now=now)
        elif quick.initiator:
            self._say_failed(quick.replaced, error, now=now)

    def _insists(self, quick: _QuickMode, error: LocumError) -> bool:
        """True when the peer may want perfect forward secrecy, which we can do and did not offer."""
        refused = isinstance(error, NotifyReceived) and error.notify_type == NotifyType1.NO_PROPOSAL_CHOSEN
        able = quick.group is None and any(self._core.connection.child.groups)
        return refused and able and (quick.replaced is None or quick.replaced in self._children)

    def _say_failed(self, kept: Kept | None, error: LocumError, *, now: float) -> None:
        """A successor is tried for again while there is time."""
        core = self._core
        core.emit(ChildFailed(sa=core.sa, error=error, replaced=kept.child if kept is not None else None))
        if kept is not None:
            kept.renew_at = now + core.timing.handshake

    def told_of_failure(self, error: NotifyReceived, spi: bytes, *, now: float) -> None:
        """An authentic error notify ends the quick mode that it names, or the only one that it can be about."""
        ours = [each for each in self._quick.values() if each.initiator and each.running.progress is Progress.PEER]
        named = [each for each in ours if each.spi.to_bytes(SPI_LENGTH, "big") == spi]
        found = named or ours
        if len(found) == 1:
            found[0].running.fail(error, now=now)

    # --- children -------------------------------------------------------------------------------------------

    def close(self, child: Child, reason: str) -> None:
        """Delete a child at both ends, if it is still there."""
        kept = self._children.find(child)
        if kept is not None:
            self._close(kept, reason)

    def _close(self, kept: Kept, reason: str) -> None:
        self._children.remove(kept)
        self._core.inform(informational.child_deletion(kept.child.inbound.protocol, kept.child.inbound.spi))
        self._core.emit(ChildClosed(sa=self._core.sa, child=kept.child, reason=reason))

    def deleted_by_peer(self, protocol: Protocol, spi: int) -> None:
        """The peer has removed the association that we send under this SPI to."""
        kept = self._children.sent_under(protocol, spi)
        if kept is not None:
            self._children.remove(kept)
            self._core.emit(ChildClosed(sa=self._core.sa, child=kept.child, reason="deleted by the peer"))

    def shorten(self, protocol: Protocol, spi: int, seconds: float, *, now: float) -> None:
        """The peer's end of a child lives so long only."""
        kept = self._children.sent_under(protocol, spi)
        if kept is not None and now + seconds < kept.remove_at:
            kept.remove_at = now + seconds
            if kept.renew_at is not None:
                kept.renew_at = now + renewal(seconds, self._core.timing, self._core.random)

    def move(self, path: Path) -> tuple[tuple[Child, Child], ...]:
        """Have the children whose packets go in UDP use another path; each with what replaces it."""
        moved = []
        for kept in self._children:
            if kept.child.inbound.encapsulation is not None:
                old, kept.child = kept.child, child_on(kept.child, path)
                moved.append((old, kept.child))
        return tuple(moved)

    def close_all(self, reason: str) -> None:
        """Delete every child at both ends."""
        for kept in self._children:
            self._close(kept, reason)

    def clear(self) -> None:
        """Forget every quick mode."""
        self._quick.clear()

    # --- time -----------------------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        """When `expire` is due for the children."""
        return self._children.next_timeout()

    def expire(self, *, usable: bool, now: float) -> None:
        """Remove the children that are over, and renew those that soon will be where the SA is `usable`."""
        for kept in self._children:
            if now >= kept.remove_at:
                self._close(kept, "its lifetime is over")
            elif kept.retire_at is not None and now >= kept.retire_at:
                self._retire(kept, now=now)
            elif kept.renew_at is not None and now >= kept.renew_at:
                kept.renew_at = None
                if usable:
                    self._begin(kept, now=now)

    def _retire(self, kept: Kept, *, now: float) -> None:
        """Delete what has been replaced, unless its successor has gone before it."""
        others = [each for each in self._children if each.traffic == kept.traffic and each is not kept]
        if any(each.retire_at is None for each in others):
            self._close(kept, "replaced")
        else:
            kept.retire_at, kept.renew_at = None, now


def _offered_group(quick: Quick, kept: Kept | None, *, insisted: bool) -> Group | None:
    """The one group that all proposals of a quick mode are in (RFC 2409 section 5.5), None without one.

    A successor's is that of what it replaces. To a peer that insists on one it is the group of phase 1, which it
    can do, or else the best that we have.
    """
    groups = quick.policy.groups
    if insisted:
        agreed = quick.isakmp.suite.group
        return agreed if agreed in groups else next(group for group in groups if group is not None)
    if kept is not None and kept.child.suite.group is not None:
        return kept.child.suite.group
    return groups[0]
