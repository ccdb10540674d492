"""What the parts of one ISAKMP SA share: the way to the peer, keys, message ids, and how they say what happened.

Decides nothing: when an SA begins and ends, and what it does meanwhile, is said by its parts.
"""

from __future__ import annotations

from collections.abc import Callable

from locum.ike.configuration import Connection
from locum.ike.engine import Event, IkeSa, MessagePassed, Part
from locum.ike.payloads1 import Hash, Payload
from locum.ike.protection import CbcChain
from locum.ike.registry import ExchangeType
from locum.ike.v1.channel import Channel
from locum.ike.v1.isakmp import Isakmp
from locum.ike.v1.lineage import Lineage
from locum.ike.v1.message_ids import MessageIds
from locum.ike.v1.messages import describe
from locum.ike.v1.running import Surroundings


class Core(Part):
    """One for each SA; `sa` is who its events are about. `isakmp` is None before the SA is established."""

    __slots__ = (
        "channel",
        "connection",
        "isakmp",
        "lineage",
        "message_ids",
        "random",
        "reserve_spi",
        "timing",
    )

    def __init__(
        self,
        sa: IkeSa,
        connection: Connection,
        channel: Channel,
        *,
        random: Callable[[int], bytes],
        reserve_spi: Callable[[], int],
    ) -> None:
        super().__init__(sa)
        self.connection = connection
        self.timing = connection.timing
        self.channel = channel
        self.random = random
        self.reserve_spi = reserve_spi
        self.isakmp: Isakmp | None = None
        #: what it shares with those before and after it
        self.lineage = Lineage()
        self.message_ids = MessageIds()

    @property
    def around(self) -> Surroundings:
        """What a running exchange needs."""
        return Surroundings(self.channel, self.timing, self.random, self.passed)

    def emit(self, event: Event) -> None:
        """Say that something happened."""
        self.sa.events.append(event)

    def passed(self, outgoing: bool, name: str, payloads: tuple[Payload, ...], length: int) -> None:
        """Say that a message was sent or accepted, to those who want to know."""
        if self.sa.observed:
            description = f"{name}: {describe(payloads)}"
            self.emit(MessagePassed(sa=self.sa, outgoing=outgoing, description=description, length=length))

    def inform(self, *payloads: Payload) -> tuple[bytes, ...]:
        """Send an informational message under a message id of its own; what was sent, nothing without keys."""
        isakmp = self.isakmp
        message_id = self.message_ids.draw(self.random)
        if isakmp is None or message_id is None:
            return ()
        return self._transmit(message_id, isakmp.with_hash(message_id, payloads), isakmp.chain(message_id))

    def inform_in_clear(self, *payloads: Payload) -> None:
        """As `inform`, for an SA that has no keys yet, and will have none."""
        self._transmit(int.from_bytes(self.random(4), "big") | 1, payloads, None)

    def take_leave(self, message_id: int, proof: bytes, payload: Payload, chain: CbcChain) -> None:
        """Send an informational message whose HASH, `proof`, an authority has made: there are no keys for one."""
        self._transmit(message_id, (Hash(data=proof), payload), chain)

    def _transmit(
        self, message_id: int, payloads: tuple[Payload, ...], chain: CbcChain | None
    ) -> tuple[bytes, ...]:
        sent, _ = self.channel.write(ExchangeType.INFORMATIONAL_1, message_id, payloads, chain)
        self.channel.transmit(sent)
        self.passed(True, "informational", payloads, sum(map(len, sent)))
        return sent
