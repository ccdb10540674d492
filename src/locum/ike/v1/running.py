"""One exchange under way: steps its generator, knows its last messages, and repeats what may have been lost.

Knows neither what the messages mean nor which other exchanges there are.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Generic, TypeVar

from locum.errors import LocumError, TimedOut
from locum.handshake import Ask, Random
from locum.ike.configuration import Timing
from locum.ike.errors import AuthenticationFailed, NotifyReceived, NotProtected
from locum.ike.header import Header
from locum.ike.payloads1 import Payload
from locum.ike.protection import CbcChain
from locum.ike.registry import Flags1
from locum.ike.v1.channel import Channel, read
from locum.ike.v1.messages import Message
from locum.ike.v1.steps import Encrypt, Receive, Repeat, Send, Steps
from locum.values import dataclass

T = TypeVar("T")

#: Our last message is sent again at most so often because the peer's came again.
MAX_REPLAYS = 16

#: The same for a message that may be much longer than the one that it answers, from a peer whose address may be
#: forged (`Repeat.SPARINGLY`), and how often it is sent without being asked for again.
MAX_SPARING_REPLAYS = 3
SPARING_ATTEMPTS = 2

#: Seconds that an exchange still waits for its answer after a notify in clear said that there will be none:
#: anybody can send that, and the answer may come all the same.
HINT_GRACE = 3.0


class Progress(Enum):
    """What an exchange waits for."""

    PEER = auto()
    AUTHORITY = auto()
    #: it ended in a result, and lives on to answer repetitions of the peer's last message
    DONE = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an exchange needs of the SA that it belongs to.

    `passed` hears of every message: whether it goes out, its name, payloads, and length in bytes.
    """

    channel: Channel
    timing: Timing
    random: Callable[[int], bytes]
    passed: Callable[[bool, str, tuple[Payload, ...], int], None]


class Running(Generic[T]):
    """One exchange. `result` is there when it is DONE, `error` when it has FAILED."""

    def __init__(
        self,
        generator: Steps[T],
        surroundings: Surroundings,
        *,
        exchange_type: int,
        message_id: int = 0,
        chain: CbcChain | None = None,
        now: float,
    ) -> None:
        self.exchange_type = exchange_type
        self.message_id = message_id
        #: which session with the authority is this exchange's, 0 before it has one
        self.session = 0
        self.chain = chain
        self.result: T | None = None
        self.error: LocumError | None = None
        #: the peer's last message that was accepted
        self.last: Message | None = None
        #: the peer did not answer
        self.given_up = False
        #: when the exchange is given up, or forgotten once it is done
        self.deadline = now + surroundings.timing.handshake
        self._generator = generator
        self._around = surroundings
        self._step: Ask | Receive | None = None
        #: the peer's last message that was accepted, and ours since
        self._received = b""
        self._sent: tuple[bytes, ...] = ()
        self._replays = 0
        self._attempts = self._most_attempts = 0
        #: whoever has no answer asks again
        self._sparing = False
        self._repeat_at: float | None = None
        self._hint: NotifyReceived | None = None
        self._hint_until = 0.0
        self._unreadable = False

    # --- what the SA sees -----------------------------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        """What the exchange waits for."""
        if self.error is not None:
            return Progress.FAILED
        if self._step is None:
            return Progress.DONE
        return Progress.AUTHORITY if isinstance(self._step, Ask) else Progress.PEER

    @property
    def asked(self) -> Ask | None:
        """The operations that the exchange waits for."""
        return self._step if isinstance(self._step, Ask) else None

    def start(self, *, now: float) -> None:
        """Go as far as possible."""
        self._advance(None, now=now)

    def answer(self, responses: tuple[Any, ...], *, now: float) -> None:
        """The operations were performed."""
        self._advance(responses, now=now)

    def fail(self, error: LocumError, *, now: float) -> None:
        """Something that the exchange needs did not happen; it may end otherwise than with this error."""
        self._advance(error, now=now)

    def knows(self, message: bytes) -> bool:
        """True for the peer's last message, come again."""
        return self._received == message

    def receive(
        self, header: Header, message: bytes, *, now: float, accepted: Callable[[], None] = lambda: None
    ) -> bool:
        """Take a whole message; False when it was dropped. Raises: LocumError for one that cannot be read.

        `accepted` is called before a new message takes effect. The peer's last one, come again, is answered with
        ours (RFC 2408 section 5.1).
        """
        if self._received == message:
            self._replay()
            return True
        step = self._step
        if not isinstance(step, Receive):
            return False
        try:
            opened, chain = self._open(step, header, message)
        except LocumError:
            self._unreadable = self._unreadable or bool(header.flags & Flags1.ENCRYPTION)
            raise
        self.chain, self.last = chain, opened
        self._received, self._sent = message, ()
        self._repeat_at, self._hint, self._replays = None, None, 0
        accepted()
        self._around.passed(False, step.rule.name, opened.payloads.items, len(message))
        self._advance(opened, now=now)
        return True

    def _open(self, step: Receive, header: Header, message: bytes) -> tuple[Message, CbcChain | None]:
        """Read a message and look whether it is the one that is due. Raises: LocumError."""
        opened, chain = read(header, message, self.chain, public_key_encryption=step.public_key_encryption)
        if step.encrypted is not None and step.encrypted != opened.encrypted:
            raise NotProtected(f"{step.rule.name} in clear" if step.encrypted else f"{step.rule.name} encrypted")
        step.rule.check(opened.payloads)
        if not step.authentic(opened):
            raise NotProtected(f"{step.rule.name} whose HASH does not verify")
        return opened, chain

    def hint(self, notification: NotifyReceived, *, now: float) -> None:
        """An error notify that anybody may have sent: wait a short time for what it denies, then believe it."""
        if self._hint is None and self.progress is Progress.PEER:
            self._hint, self._hint_until = notification, now + HINT_GRACE

    def next_timeout(self) -> float | None:
        """When `expire` is due; None while an authority is at work, which has time limits of its own."""
        if self.progress is Progress.AUTHORITY:
            return None
        due = self._given_up_at
        return due if self._repeat_at is None else min(due, self._repeat_at)

    @property
    def _given_up_at(self) -> float:
        return self.deadline if self._hint is None else min(self.deadline, self._hint_until)

    def expire(self, *, now: float) -> None:
        """Send again, or give up."""
        if now >= self._given_up_at:
            self._give_up(now=now)
        elif self._repeat_at is not None and now >= self._repeat_at:
            self._repeat(now=now)

    def _repeat(self, *, now: float) -> None:
        if self._attempts < self._most_attempts:
            self._around.channel.transmit(self._sent)
            self._schedule(now=now)
        elif self._sparing:
            self._repeat_at = None
        else:
            self._give_up(now=now)

    @property
    def last_block(self) -> bytes:
        """What the IVs of phase 2 come from, once phase 1 is done (RFC 2409 appendix B)."""
        assert self.chain is not None
        return self.chain.iv

    # --- inside ---------------------------------------------------------------------------------------------

    def _give_up(self, *, now: float) -> None:
        if self.progress is Progress.PEER:
            self.given_up = True
            self._advance(self._hint or self._silence(), now=now)

    def _silence(self) -> LocumError:
        """What it means that the message which is due did not come."""
        if self._unreadable and not self.message_id:
            return AuthenticationFailed("the peer's messages cannot be read: most likely the secrets differ")
        return TimedOut("the peer does not answer")

    def _advance(self, value: Any, *, now: float) -> None:
        """Step the generator until it waits for something; an error is raised inside it."""
        self._step = None
        try:
            while True:
                if isinstance(value, LocumError):
                    step = self._generator.throw(value)
                else:
                    step = self._generator.send(value)
                value = None
                match step:
                    case Ask() | Receive():
                        self._step = step
                        return
                    case Random(length):
                        value = self._around.random(length)
                    case Encrypt(chain):
                        self.chain = chain
                    case Send():
                        self._send(step, now=now)
        except StopIteration as stop:
            self.result = stop.value
            # From now on it is there for repetitions only.
            self.deadline = now + self._around.timing.handshake
        except LocumError as error:
            self.error = error
            self._repeat_at = None

    def _send(self, step: Send, *, now: float) -> None:
        channel = self._around.channel
        self._sent, self.chain = channel.write(self.exchange_type, self.message_id, step.payloads, self.chain)
        channel.transmit(self._sent)
        self._around.passed(True, step.name, step.payloads, sum(map(len, self._sent)))
        self._attempts = 0
        self._sparing = step.repeat is Repeat.SPARINGLY
        timing = self._around.timing
        self._most_attempts = {
            Repeat.UNTIL_ANSWERED: timing.attempts,
            Repeat.SPARINGLY: min(SPARING_ATTEMPTS, timing.attempts),
            Repeat.ON_REQUEST: 0,
        }[step.repeat]
        self._repeat_at = None
        if self._most_attempts:
            self._schedule(now=now)

    def _schedule(self, *, now: float) -> None:
        timing = self._around.timing
        self._repeat_at = now + min(timing.retransmission * 2**self._attempts, timing.longest_retransmission)
        self._attempts += 1

    def _replay(self) -> None:
        if self._sent and self._replays < (MAX_SPARING_REPLAYS if self._sparing else MAX_REPLAYS):
            self._replays += 1
            self._around.channel.transmit(self._sent)
