"""For which traffic a quick mode is: client identities, their check against policy, and original addresses.

Knows addresses and selectors, no key and no message but its ID and NAT-OA payloads (RFC 2409 5.5, RFC 3947 5).
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from locum.errors import ConfigurationError
from locum.ike.children import host_selector
from locum.ike.configuration import Connection
from locum.ike.engine import Path
from locum.ike.errors import TrafficSelectorsUnacceptable, UnexpectedMessage
from locum.ike.payloads1 import Identification, NatOriginalAddress, Payload
from locum.ike.registry import IdentificationType
from locum.ike.traffic_selectors import (
    TrafficSelector,
    identification_from_selector,
    is_within,
    selector_from_identification,
)
from locum.ike.v1.messages import Message
from locum.ipsec.selectors import Address
from locum.values import dataclass

_ADDRESS_TYPES = {4: IdentificationType.IPV4_ADDR, 6: IdentificationType.IPV6_ADDR}


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What both ends of `path` may protect: `local` and `remote`, as seen from here.

    `initiator` is who began the quick mode. With `transport` and a NAT in between (`nat`) the addresses that a
    peer names are those behind the NAT; what counts are those of the path (RFC 3948 section 3.1.2).
    """

    path: Path
    initiator: bool
    local: TrafficSelector
    remote: TrafficSelector
    transport: bool
    nat: bool

    @classmethod
    def of(cls, connection: Connection, path: Path, *, initiator: bool, nat: bool) -> Traffic:
        """What `connection` is for; an end without selectors is its address."""
        local = connection.local_traffic[0] if connection.local_traffic else host_selector(path.local)
        remote = connection.remote_traffic[0] if connection.remote_traffic else host_selector(path.remote)
        return cls(
            path=path, initiator=initiator, local=local, remote=remote, transport=connection.transport, nat=nat
        )

    @property
    def _addresses(self) -> tuple[Address, Address]:
        """Of the initiator and of the responder, as seen from here."""
        ends = (self.path.local, self.path.remote)
        return ends if self.initiator else (ends[1], ends[0])

    def identifications(self) -> tuple[Payload, ...]:
        """IDci and IDcr of an offer. Raises: ConfigurationError for what quick mode cannot say."""
        return identification(self.local), identification(self.remote)

    def original_addresses(self) -> tuple[Payload, ...]:
        """NAT-OAi and NAT-OAr, in transport mode through a NAT (RFC 3947 section 5.2)."""
        if not (self.transport and self.nat):
            return ()
        return tuple(
            NatOriginalAddress(id_type=_ADDRESS_TYPES[each.version], address=each.packed)
            for each in self._addresses
        )

    def told_addresses(self, message: Message) -> tuple[Address, Address] | None:
        """What the peer writes on its packets, source and destination, where a NAT changes it and it says so."""
        told = message.all(NatOriginalAddress)
        if not (self.transport and self.nat) or len(told) != 2:
            return None
        initiators, responders = (ip_address(each.address) for each in told)
        return (responders, initiators) if self.initiator else (initiators, responders)

    def offered(self, message: Message) -> tuple[TrafficSelector, TrafficSelector]:
        """Responder: local and remote selector of an offer, which is taken as a whole or not at all.

        Raises: TrafficSelectorsUnacceptable for more than our policy has; UnexpectedMessage, DecodeError.
        """
        initiators, responders = self._read(message)
        if not is_within((initiators,), (self.remote,)) or not is_within((responders,), (self.local,)):
            raise TrafficSelectorsUnacceptable("the peer wants other traffic protected than is allowed here")
        return responders, initiators

    @staticmethod
    def echoed(message: Message) -> tuple[Payload, ...]:
        """Responder: IDci and IDcr of an answer, those of the offer."""
        return message.all(Identification)

    def answered(self, message: Message) -> tuple[TrafficSelector, TrafficSelector]:
        """Initiator: local and remote selector as agreed. Raises: TrafficSelectorsUnacceptable for others."""
        initiators, responders = self._read(message)
        local, remote = (self._as_on_path(each, address) for each, address in self._ends())
        if (initiators, responders) != (local, remote):
            raise TrafficSelectorsUnacceptable("the peer answered with other traffic than was offered")
        return local, remote

    def _ends(self) -> tuple[tuple[TrafficSelector, Address], tuple[TrafficSelector, Address]]:
        return (self.local, self.path.local), (self.remote, self.path.remote)

    def _read(self, message: Message) -> tuple[TrafficSelector, TrafficSelector]:
        """What the ID payloads say of the initiator's and of the responder's end; both may be left out."""
        identifications = message.all(Identification)
        addresses = self._addresses
        if not identifications:
            return host_selector(addresses[0]), host_selector(addresses[1])
        if len(identifications) != 2:
            raise UnexpectedMessage("one identification where quick mode has two or none")
        first, second = (
            self._as_on_path(selector_from_identification(each), address)
            for each, address in zip(identifications, addresses, strict=True)
        )
        return first, second

    def _as_on_path(self, selector: TrafficSelector, address: Address) -> TrafficSelector:
        """In transport mode, one host's traffic as it is on the path. Raises: TrafficSelectorsUnacceptable."""
        if not self.transport:
            return selector
        single = len(selector.start) == len(address.packed) and selector.start == selector.end
        if not single or (not self.nat and selector.start != address.packed):
            raise TrafficSelectorsUnacceptable("transport mode is between the two hosts themselves")
        return replace(selector, start=address.packed, end=address.packed)


def identification(selector: TrafficSelector) -> Identification:
    """The ID payload for a selector; one address is said as such. Raises: ConfigurationError for a port range."""
    try:
        subnet = identification_from_selector(selector)
    except ValueError as error:
        raise ConfigurationError(f"IKEv1: {error}") from None
    if selector.start != selector.end:
        return subnet
    four = len(selector.start) == 4
    kind = IdentificationType.IPV4_ADDR if four else IdentificationType.IPV6_ADDR
    return replace(subnet, id_type=kind, data=selector.start)
