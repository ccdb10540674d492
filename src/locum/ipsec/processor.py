"""A packet's way through the databases: protect, bypass or discard, out and in (RFC 4301 sections 5.1 and 5.2).

Never agrees on an association: where one is missing it says so, and whoever can will agree on one.
"""

from __future__ import annotations

from locum.errors import DecodeError
from locum.ipsec.faults import DiscardedByPolicy, NoAssociation, UnknownAssociation
from locum.ipsec.ip import UDP, flow_of, parse
from locum.ipsec.modes import Inbound, Outbound, Usage, inbound, outbound
from locum.ipsec.policy import Action, Policy, PolicyDatabase
from locum.ipsec.sa import Direction, Expiry, Mode, Protocol, SaDatabase, SecurityAssociation
from locum.ipsec.selectors import MAX_REMEMBERED_FLOWS, Address, Flow
from locum.ipsec.udp import decapsulate


class MissingAssociation(NoAssociation):
    """`NoAssociation`, with what an agreement has to be about: the policy, and the flow that asked."""

    def __init__(self, policy: Policy, flow: Flow) -> None:
        super().__init__(f"policy {policy.name} protects this traffic, and no association is there yet")
        self.policy = policy
        self.flow = flow


class Processor:
    """Policies and associations of one end, and the packets that go through them.

    Not for use by several threads at a time.
    """

    def __init__(self, policies: PolicyDatabase) -> None:
        self.policies = policies
        self.associations = SaDatabase()
        self._senders: dict[tuple[Protocol, int, Address], Outbound] = {}
        self._receivers: dict[tuple[Protocol, int], Inbound] = {}
        self._chosen: dict[Flow, Outbound | Policy] = {}
        self._generations = (0, 0)

    def add(self, sa: SecurityAssociation, *, first_sequence: int = 1) -> None:
        """Put an association to work; the newest outbound one is used first. Raises: ConfigurationError."""
        if sa.direction is Direction.IN:
            receiver = inbound(sa)
            self.associations.add(sa)
            self._receivers[sa.protocol, sa.spi] = receiver
        else:
            sender = outbound(sa, first_sequence=first_sequence, first_identification=1)
            self.associations.add(sa)
            self._senders[sa.identity] = sender

    def remove(self, sa: SecurityAssociation) -> None:
        """Forget an association, its keys included; one that is not there is no error."""
        if not any(other is sa for other in self.associations):
            return
        self.associations.remove(sa)
        if sa.direction is Direction.IN:
            del self._receivers[sa.protocol, sa.spi]
        else:
            del self._senders[sa.identity]
            self._chosen.clear()

    def move(self, old: SecurityAssociation, new: SecurityAssociation) -> None:
        """Put `new`, the same association at other addresses, in the place of `old`; its numbers go on.

        Raises: ConfigurationError when it is another association, or `old` is not there.
        """
        self.associations.replace(old, new)
        if new.direction is Direction.IN:
            self._receivers[new.protocol, new.spi].follow(new)
        else:
            sender = self._senders.pop(old.identity)
            sender.follow(new)
            self._senders[new.identity] = sender

    def protect(self, packet: bytes) -> bytes:
        """The packet to send for one that leaves: protected, or as it is where the policy says bypass.

        Raises: DiscardedByPolicy, MissingAssociation, and what `Outbound.protect` raises.
        """
        chosen = self.choose(packet)
        return packet if isinstance(chosen, Policy) else chosen.protect(packet)

    def choose(self, packet: bytes) -> Outbound | Policy:
        """What protects a packet that leaves; or the policy that lets it go as it is.

        Raises: DiscardedByPolicy, MissingAssociation, DecodeError.
        """
        flow = flow_of(packet)
        generations = self.policies.generation, self.associations.generation
        if generations != self._generations:
            self._chosen.clear()
            self._generations = generations
        chosen = self._chosen.get(flow)
        if chosen is None:
            chosen = self._choose(flow)
            if len(self._chosen) >= MAX_REMEMBERED_FLOWS:
                self._chosen.clear()
            self._chosen[flow] = chosen
        return chosen

    def _choose(self, flow: Flow) -> Outbound | Policy:
        policy = self.policies.lookup(flow, Direction.OUT)
        if policy.action is Action.DISCARD:
            raise DiscardedByPolicy(f"policy {policy.name} discards this traffic")
        if policy.action is Action.BYPASS:
            return policy
        sa = self.associations.outbound(flow)
        if sa is None:
            raise MissingAssociation(policy, flow)
        return self._senders[sa.identity]

    def unprotect(self, packet: bytes) -> bytes | None:
        """The packet to deliver for one that arrived; None when it was a dummy.

        What comes unprotected is delivered where the policy says bypass, and only there.
        Raises: DiscardedByPolicy, UnknownAssociation, and what `Inbound.unprotect` raises.
        """
        receiver = self._receiver_of(packet)
        if receiver is not None:
            return receiver.unprotect(packet)
        policy = self.policies.lookup(flow_of(packet), Direction.IN)
        if policy.action is not Action.BYPASS:
            raise DiscardedByPolicy(f"policy {policy.name} does not let this traffic in unprotected")
        return packet

    @property
    def needs_whole_packets(self) -> bool:
        """True when a fragment cannot be decided about, or not be protected, as it is (RFC 4301 section 7)."""
        if any(sender.sa.mode is Mode.TRANSPORT for sender in self._senders.values()):
            return True
        return any(not each.any_port for policy in self.policies for each in (*policy.local, *policy.remote))

    def receiver(self, protocol: Protocol, spi: int) -> Inbound | None:
        """Who opens what comes with this SPI."""
        return self._receivers.get((protocol, spi))

    @property
    def senders(self) -> tuple[Outbound, ...]:
        """Outbound associations at work."""
        return tuple(self._senders.values())

    def usage(self, sa: SecurityAssociation) -> Usage | None:
        """What an association that is at work has carried."""
        if sa.direction is Direction.IN:
            receiver = self._receivers.get((sa.protocol, sa.spi))
            return receiver.usage if receiver else None
        sender = self._senders.get(sa.identity)
        return sender.usage if sender else None

    def _receiver_of(self, packet: bytes) -> Inbound | None:
        """Who opens `packet`; None when it is not protected."""
        ip = parse(packet)
        body = packet[ip.payload : ip.length]
        if ip.protocol == UDP and not ip.fragment_offset:
            receiver = self._encapsulated(body)
            if receiver is not None:
                return receiver
        if ip.protocol not in (Protocol.ESP, Protocol.AH) or ip.fragment_offset:
            return None
        protocol = Protocol(ip.protocol)
        spi = body[:4] if protocol is Protocol.ESP else body[4:8]
        receiver = self._receivers.get((protocol, int.from_bytes(spi, "big")))
        if receiver is None:
            raise UnknownAssociation(f"no association has the SPI 0x{spi.hex()}")
        return receiver

    def _encapsulated(self, segment: bytes) -> Inbound | None:
        try:
            spi = int.from_bytes(decapsulate(segment)[:4], "big")
        except DecodeError:
            return None
        receiver = self._receivers.get((Protocol.ESP, spi))
        if receiver is None or receiver.sa.encapsulation is None:
            return None
        # Any other UDP whose first bytes happen to be an SPI keeps its way through the policies.
        ports = receiver.sa.encapsulation
        expected = ports.destination_port.to_bytes(2, "big")
        return receiver if segment[2:4] == expected else None

    def expired(self, now: float) -> list[tuple[SecurityAssociation, Expiry]]:
        """The associations that need a successor, or an end, at time `now` in seconds."""
        found: list[tuple[SecurityAssociation, Expiry]] = []
        for sa in self.associations:
            counted = self.usage(sa)
            assert counted is not None
            expiry = sa.lifetime.expiry(
                age=now - sa.created, used_bytes=counted.bytes, used_packets=counted.packets
            )
            if expiry is not Expiry.NONE:
                found.append((sa, expiry))
        return found
