"""The delegate's security contexts: found by kid and ID Context, proven fresh by Echo, bounded and forgotten.

Never knows CoAP messages or sockets; what must outlast the process it asks of the credential source.

A context that is not at hand, because it is new, or was forgotten in a restart or for lack of room, has no replay
window. A request in it is answered with a challenge (RFC 8613 Appendix B.1.2, RFC 9175 section 2.3); the window
begins with the request that repeats the challenge, which the terminal therefore made after it. A challenge is a
random value, kept here and good for one acceptance only: the request that answers it can never be replayed, even
when its context is forgotten again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Protocol

from locum.crypto.symmetric import constant_time_equal
from locum.link.exchange import RandomSource
from locum.link.oscore import MAXIMUM_ID_CONTEXT, Credential, ReplayWindow, SecurityContext
from locum.values import dataclass

#: Seconds that a credential is used before the source is asked again whether it still holds.
CREDENTIAL_LIFETIME = 1.0
#: Seconds that a terminal has to answer a challenge.
CHALLENGE_LIFETIME = 120.0
#: Bytes of an Echo value.
ECHO_LENGTH = 8
#: Sender sequence numbers that are reserved at once; a restart loses what is left of them.
RESERVATION = 256


class CredentialSource(Protocol):
    """Where the delegate's credentials and its persistent sequence numbers are kept."""

    def find(self, kid: bytes) -> tuple[str, Credential] | None:
        """The terminal's name and credential, or None. Asked for every request of an unknown terminal."""
        ...

    def reserve(self, kid: bytes, count: int) -> int:
        """The first of `count` sender sequence numbers that were never reserved before, also by other nodes.

        Raises: LocumError when that cannot be made to outlast this process.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextLimits:
    """How much is remembered: terminals, for each its contexts and its unanswered challenges, and remotes."""

    terminals: int = 4096
    contexts: int = 64
    challenges: int = 64
    bindings: int = 8192


class Context:
    """One security context of one terminal. `window` is None until the terminal has proven itself fresh."""

    __slots__ = ("id_context", "security", "terminal", "window")

    def __init__(self, terminal: Terminal, id_context: bytes, security: SecurityContext) -> None:
        self.terminal = terminal
        self.id_context = id_context
        self.security = security
        self.window: ReplayWindow | None = None


class _Challenge:
    __slots__ = ("context", "echo", "issued")

    def __init__(self, context: Context, echo: bytes, issued: float) -> None:
        self.context = context
        self.echo = echo
        self.issued = issued


class Terminal:
    """What is remembered of one terminal."""

    __slots__ = ("challenges", "checked", "contexts", "credential", "kid", "name", "next_number", "reserved")

    def __init__(self, kid: bytes, name: str, credential: Credential, now: float) -> None:
        self.kid = kid
        self.name = name
        self.credential = credential
        self.checked = now
        self.contexts: OrderedDict[bytes, Context] = OrderedDict()
        self.challenges: OrderedDict[bytes, _Challenge] = OrderedDict()
        self.next_number = 0
        self.reserved = 0


class ContextTable:
    """All contexts of a delegate. Every table is bounded, and no terminal can push out another's contexts."""

    def __init__(self, source: CredentialSource, *, random: RandomSource, limits: ContextLimits) -> None:
        self._source = source
        self._random = random
        self._limits = limits
        self._terminals: OrderedDict[bytes, Terminal] = OrderedDict()
        #: The context last used from each remote, so that its terminal need not repeat the ID Context.
        self._bindings: OrderedDict[Hashable, Context] = OrderedDict()

    def find(self, remote: Hashable, kid: bytes, id_context: bytes | None, now: float) -> Context | None:
        """The context that a request names, not yet authenticated; None when there is no such terminal.

        A request without an ID Context means the one last used by this terminal from this `remote`.
        Raises: LocumError when the credential source fails.
        """
        if id_context is None:
            bound = self._bindings.get(remote)
            if bound is None or bound.terminal.kid != kid:
                return None
            id_context = bound.id_context
        elif len(id_context) > MAXIMUM_ID_CONTEXT:
            return None
        terminal = self._terminal(kid, now)
        if terminal is None:
            return None
        context = terminal.contexts.get(id_context)
        if context is not None:
            return context
        challenge = terminal.challenges.get(id_context)
        if challenge is not None:
            return challenge.context
        return Context(terminal, id_context, SecurityContext.of_delegate(terminal.credential, id_context))

    def authenticated(self, context: Context, remote: Hashable) -> None:
        """A fresh request of `context` has been verified: keep the context, and let `remote` stand for it."""
        terminal = context.terminal
        terminal.contexts.move_to_end(context.id_context)
        self._terminals.move_to_end(terminal.kid)
        bindings = self._bindings
        bindings[remote] = context
        bindings.move_to_end(remote)
        if len(bindings) > self._limits.bindings:
            bindings.popitem(last=False)

    def admit(self, context: Context, sequence: int, echo: bytes | None, now: float) -> bool:
        """Open the window of `context` at `sequence` if `echo` answers its challenge, which is thereby used up."""
        terminal = context.terminal
        challenge = terminal.challenges.get(context.id_context)
        if (
            challenge is None
            or echo is None
            or challenge.issued + CHALLENGE_LIFETIME < now
            or not constant_time_equal(challenge.echo, echo)
        ):
            return False
        del terminal.challenges[context.id_context]
        self._remember(terminal)
        context.window = ReplayWindow(sequence)
        terminal.contexts[context.id_context] = context
        if len(terminal.contexts) > self._limits.contexts:
            terminal.contexts.popitem(last=False)
        return True

    def challenge(self, context: Context, now: float) -> bytes:
        """The Echo value that a request in `context` must repeat; the same one until it is used or too old."""
        terminal = context.terminal
        self._remember(terminal)
        challenges = terminal.challenges
        challenge = challenges.get(context.id_context)
        if challenge is None or challenge.issued + CHALLENGE_LIFETIME < now:
            challenge = _Challenge(context, self._random(ECHO_LENGTH), now)
            challenges[context.id_context] = challenge
            challenges.move_to_end(context.id_context)
            if len(challenges) > self._limits.challenges:
                challenges.popitem(last=False)
        return challenge.echo

    def take_number(self, terminal: Terminal) -> int:
        """A sender sequence number of the delegate that was never used. Raises: LocumError."""
        if terminal.next_number == terminal.reserved:
            terminal.next_number = self._source.reserve(terminal.kid, RESERVATION)
            terminal.reserved = terminal.next_number + RESERVATION
        number = terminal.next_number
        terminal.next_number += 1
        return number

    def disconnected(self, remote: Hashable) -> None:
        """Nothing more will come from `remote`, a stream."""
        self._bindings.pop(remote, None)

    def _terminal(self, kid: bytes, now: float) -> Terminal | None:
        """The terminal of that kid, asking the source when it is unknown or was not asked for a while."""
        terminal = self._terminals.get(kid)
        if terminal is not None and terminal.checked + CREDENTIAL_LIFETIME >= now:
            return terminal
        found = self._source.find(kid)
        if terminal is not None:
            if found == (terminal.name, terminal.credential):
                terminal.checked = now
                return terminal
            del self._terminals[kid]
        if found is None or found[1].kid != kid:
            return None
        return Terminal(kid, *found, now)

    def _remember(self, terminal: Terminal) -> None:
        """Keep `terminal`, of which a message has been authenticated."""
        self._terminals[terminal.kid] = terminal
        self._terminals.move_to_end(terminal.kid)
        if len(self._terminals) > self._limits.terminals:
            self._terminals.popitem(last=False)
