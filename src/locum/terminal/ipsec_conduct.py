"""What an IPsec terminal does about what its engine says: install, tell, keep keys, try again (A8, A9, A12).

Decides, and neither sends nor waits: what takes time is asked of a `Driver`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from locum.errors import LocumError, Unavailable
from locum.ike import engine
from locum.ike.configuration import Connection
from locum.ike.engine import Child, IkeSa, State
from locum.ipsec.sa import Expiry
from locum.ipsec.selectors import Address
from locum.terminal.cipher_keys import CipherKeyDatabase, KeyOrigin, SessionKey
from locum.terminal.ipsec_dataplane import Dataplane
from locum.terminal.ipsec_keeping import Keeper
from locum.terminal.ipsec_reports import ChildDown, ChildUp, Problem, Report, SaDown, SaUp, describe_child
from locum.terminal.ipsec_sessions import Sessions
from locum.terminal.steps import Actor, Observer, StepName, TerminalStep


class Driver(Protocol):
    """What conduct needs done by whoever drives the engine."""

    def now(self) -> float:
        """The time of the engine's clock, in seconds."""
        ...

    def live(self) -> list[IkeSa]:
        """The IKE SAs that are not closed."""
        ...

    def abandon(self, sa: IkeSa) -> None:
        """Nothing that is asked for this SA is of use any more."""
        ...

    @property
    def busy(self) -> bool:
        """True when another attempt is going to be made, or none ever again."""
        ...

    def try_again(self, seconds: float) -> None:
        """Make another attempt after so many seconds."""
        ...

    def protected(self, child: Child) -> None:
        """Traffic is protected by this child."""
        ...

    def fail(self, error: BaseException) -> None:
        """This is the end of it."""
        ...


class Conduct:
    """Acts on the events of one connection."""

    def __init__(
        self,
        connection: Connection,
        driver: Driver,
        *,
        dataplane: Dataplane,
        sessions: Sessions,
        keeper: Keeper,
        keys: CipherKeyDatabase[Any],
        respond: bool,
        observer: Observer,
        report: Callable[[Report], None],
    ) -> None:
        """`respond` says that what is missing is the peer's to make."""
        #: why there is no SA, if there is none
        self.last_reason = ""
        self._connection = connection
        self._respond = respond
        self._closing = False
        self._driver = driver
        self._dataplane = dataplane
        self._sessions = sessions
        self._keeper = keeper
        self._keys = keys
        self._observer = observer
        self._report = report
        self._established: set[IkeSa] = set()
        self._entries: dict[IkeSa | Child, SessionKey[Any]] = {}
        self._last_sent = 0.0

    def close(self) -> None:
        """From now on nothing is made that is missing."""
        self._closing = True

    def forget(self) -> None:
        """Wipe the keys of everything that is still there."""
        for entry in self._entries.values():
            self._keys.remove(entry)
        self._entries.clear()

    def act(self, event: engine.Event) -> None:
        """Do what an event asks for. Raises nothing that the event can be blamed for."""
        match event:
            case engine.Established():
                self._sa_up(event.sa)
            case engine.ChildEstablished():
                self._child_up(event.sa, event.child, rekeyed=event.replaced is not None)
            case engine.ChildClosed():
                self._child_down(event.sa, event.child, event.reason)
            case engine.ChildFailed():
                self._child_failed(event)
            case engine.Rekeyed():
                self._rekeyed(event.sa)
            case engine.PathChanged():
                self._moved(event)
            case engine.Closed():
                self._sa_down(event)
            case engine.MessagePassed():
                self._message_passed(event)

    def missing(self, error: LocumError | None, reason: str) -> None:
        """There is no SA, or none for the traffic: try again later, or give up."""
        self.last_reason = reason
        if self._driver.busy:
            return
        error = error or Unavailable(reason)
        delay = self._keeper.down(error, self._driver.now())
        if delay is None:
            self._driver.fail(error)
            return
        if not delay:
            self._tell(StepName.NEXT_DELEGATE, f"after {error}")
        self._report(Problem(reason=f"no SA with {self._connection.remote}: {reason}", seconds=delay))
        self._driver.try_again(delay)

    def look_at_expiry(self) -> None:
        """Have those children replaced that have carried as much as they may."""
        now = self._driver.now()
        try:
            due = self._dataplane.due(now)
        except LocumError as error:
            self._report(Problem(reason=str(error)))
            return
        for child, expiry in due:
            sa = self._dataplane.owner(child)
            if sa is not None and expiry is Expiry.HARD:
                sa.close_child(child, now=now)
            elif sa is not None:
                sa.rekey_child(child, now=now)

    # --- IKE SAs ------------------------------------------------------------------------------------------

    def _sa_up(self, sa: IkeSa) -> None:
        try:
            entry = self._sessions.complete(sa, keys=self._keys)
        except LocumError as error:
            self._report(Problem(reason=str(error)))
            sa.close(now=self._driver.now())
            return
        if entry is not None:
            self._entries[sa] = entry
        self._established.add(sa)
        self._report(SaUp(sa=sa))

    def _rekeyed(self, sa: IkeSa) -> None:
        self._dataplane.adopt(sa)
        if sa not in self._entries:
            try:
                self._store(sa, sa.path.remote, "IKE SA", KeyOrigin.DERIVED)
            except LocumError as error:
                self._report(Problem(reason=str(error)))
                sa.close(now=self._driver.now())
                return
        self._established.add(sa)
        self._report(SaUp(sa=sa, rekeyed=True))

    def _sa_down(self, event: engine.Closed) -> None:
        sa = event.sa
        self._driver.abandon(sa)
        if event.error is not None:
            self._sessions.failed(sa, event.error)
        self._sessions.forget(sa)
        self._drop_entry(sa)
        if sa in self._established:
            self._established.discard(sa)
            self._report(SaDown(sa=sa, error=event.error, reason=event.reason))
        elif self._respond and not self._closing:
            self._report(Problem(reason=f"no SA with {sa.path.remote}: {event.reason}"))
        if self._keeps and not self._driver.live():
            self.missing(event.error, event.reason)

    @property
    def _keeps(self) -> bool:
        """True when what is missing is ours to make."""
        return not self._respond and not self._closing

    # --- children -----------------------------------------------------------------------------------------

    def _child_up(self, sa: IkeSa, child: Child, *, rekeyed: bool) -> None:
        try:
            if child.suite.group is None and self._origin is KeyOrigin.DERIVED:
                self._tell(StepName.DERIVE_KEY, "of the traffic, from the keys of the SA")
            self._store(child, sa.path.remote, "traffic", self._origin)
            self._dataplane.child_up(sa, child)
        except LocumError as error:
            self._drop_entry(child)
            sa.close_child(child, now=self._driver.now())
            self._without_child(sa, error, f"the SA cannot be put into effect: {error}")
            return
        self._tell(StepName.INSTALL, f"{describe_child(child)}: {self._dataplane.name}")
        self._keeper.up(self._driver.now())
        self._report(ChildUp(child=child, rekeyed=rekeyed))
        self._driver.protected(child)

    @property
    def _origin(self) -> KeyOrigin:
        """Who makes the keys of children (A7)."""
        return KeyOrigin.TAKEN if self._connection.keys_from_authority else KeyOrigin.DERIVED

    def _child_down(self, sa: IkeSa, child: Child, reason: str) -> None:
        self._drop_entry(child)
        if not self._dataplane.child_down(child):
            return
        self._report(ChildDown(child=child, reason=reason))
        # Without its SA it is that which is missing, as will be told next.
        if self._keeps and sa.state is State.ESTABLISHED and not self._dataplane.children:
            self.missing(None, reason)

    def _child_failed(self, event: engine.ChildFailed) -> None:
        if event.replaced is not None:
            self._dataplane.not_replaced(event.replaced)
        self._without_child(event.sa, event.error, str(event.error))

    def _without_child(self, sa: IkeSa, error: LocumError, reason: str) -> None:
        """A child of `sa` was not made. Where that is the end of it, `sa` is of no use either."""
        if self._dataplane.children or not self._keeps:
            self._report(Problem(reason=reason))
            return
        self.missing(error, reason)
        if not self._keeper.succeeded:
            sa.close(now=self._driver.now())

    def _moved(self, event: engine.PathChanged) -> None:
        for old, new in event.moved:
            if self._dataplane.owner(old) is None:
                continue
            self._drop_entry(old)
            try:
                self._dataplane.moved(old, new)
                self._store(new, event.sa.path.remote, "traffic", self._origin)
            except LocumError as error:
                self._report(Problem(reason=f"the peer cannot be followed: {error}"))
                event.sa.close_child(new, now=self._driver.now())

    def _message_passed(self, event: engine.MessagePassed) -> None:
        now = self._driver.now()
        seconds = 0.0
        if event.outgoing:
            self._last_sent = now
        elif self._last_sent:
            seconds, self._last_sent = now - self._last_sent, 0.0
        self._observer(
            TerminalStep(
                actor=Actor.PEER,
                operation=StepName.IKE,
                detail=event.description,
                bytes_out=event.length if event.outgoing else 0,
                bytes_in=0 if event.outgoing else event.length,
                seconds=seconds,
            )
        )

    # --- the cipher-key database --------------------------------------------------------------------------

    def _store(self, holder: IkeSa | Child, peer: Address, what: str, origin: KeyOrigin) -> None:
        """S17. Raises: Unavailable when there are too many keys."""
        entry = self._keys.set_session_key(str(peer), holder, origin=origin, established=self._driver.now())
        self._entries[holder] = entry
        self._tell(StepName.STORE_KEY, f"key of the {what} with {peer}, in the cipher-key database")

    def _drop_entry(self, holder: IkeSa | Child) -> None:
        entry = self._entries.pop(holder, None)
        if entry is not None:
            self._keys.remove(entry)

    def _tell(self, operation: StepName, detail: str) -> None:
        self._observer(TerminalStep(actor=Actor.TERMINAL, operation=operation, detail=detail))
