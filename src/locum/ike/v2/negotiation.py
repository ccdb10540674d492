"""What is agreed on of a CHILD_SA beside its keys: algorithms, selectors, mode; for both ends and all exchanges.

Never makes a key or an association (RFC 7296 sections 1.3, 2.9 and 2.23.1).
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from locum.ike.children import SPI_LENGTH, ChildTerms, host_selector
from locum.ike.errors import IllegalValue, NoProposalChosen, TrafficSelectorsUnacceptable
from locum.ike.payloads2 import Notify, Payload, SecurityAssociation
from locum.ike.proposals2 import ChildChoice, accept_child, choose_child, offer_child
from locum.ike.registry import NotifyType2, ProtocolId
from locum.ike.suites import ChildSuite
from locum.ike.traffic_selectors import (
    TrafficSelector,
    TrafficSelectorsInitiator,
    TrafficSelectorsResponder,
    is_within,
    narrow,
)
from locum.ike.v2.core import Core
from locum.ike.v2.messages import Content
from locum.ipsec.sa import LAST_RESERVED_SPI
from locum.ipsec.selectors import Address
from locum.values import dataclass

_TRANSPORT = Notify(notify_type=NotifyType2.USE_TRANSPORT_MODE)


@dataclass(frozen=True, slots=True)
class Offer:
    """What we ask for in one exchange, and the SPI of our half."""

    spi: int
    sa: SecurityAssociation
    initiator: TrafficSelectorsInitiator
    responder: TrafficSelectorsResponder
    transport: bool

    @property
    def spi_bytes(self) -> bytes:
        """The SPI as on the wire."""
        return self.spi.to_bytes(SPI_LENGTH, "big")

    @property
    def traffic(self) -> tuple[Payload, ...]:
        """TSi, TSr, and the wish for transport mode."""
        return (self.initiator, self.responder, *((_TRANSPORT,) if self.transport else ()))


@dataclass(frozen=True, slots=True)
class Agreement:
    """What both ends agreed on; where we were asked, `sa` and `traffic` are what we answer, around Nr and KE."""

    suite: ChildSuite
    terms: ChildTerms
    sa: tuple[Payload, ...] = ()
    traffic: tuple[Payload, ...] = ()


@dataclass(frozen=True, slots=True)
class _Traffic:
    """Selectors of the peer's as they are here; what it writes on its packets, where a NAT changes that."""

    local: tuple[TrafficSelector, ...]
    remote: tuple[TrafficSelector, ...]
    original: tuple[Address, Address] | None = None


def offer(core: Core, *, first: bool = False) -> Offer:
    """Everything that the connection may have; `first` in IKE_AUTH, where there is no key exchange."""
    spi = core.reserve_spi()
    return Offer(
        spi,
        offer_child(core.connection.child, spi.to_bytes(SPI_LENGTH, "big"), first=first),
        TrafficSelectorsInitiator(selectors=core.local_traffic),
        TrafficSelectorsResponder(selectors=core.remote_traffic),
        core.connection.transport,
    )


def accept(core: Core, asked: Offer, response: Content) -> Agreement:
    """What the responder made of our offer.

    Raises: AlteredProposal, UnexpectedMessage, TrafficSelectorsUnacceptable for selectors beyond ours,
    NoProposalChosen when it will not have transport mode, and tunnel mode is not what we want.
    """
    choice = accept_child(asked.sa, response.one(SecurityAssociation))
    if asked.transport and response.notify(NotifyType2.USE_TRANSPORT_MODE) is None:
        raise NoProposalChosen("the peer does not accept transport mode")
    local = response.one(TrafficSelectorsInitiator).selectors
    remote = response.one(TrafficSelectorsResponder).selectors
    seen = _as_seen_here(core, local, remote)
    if not is_within(seen.local, asked.initiator.selectors) or not is_within(
        seen.remote, asked.responder.selectors
    ):
        raise TrafficSelectorsUnacceptable("the peer's traffic selectors go beyond ours")
    return Agreement(choice.suite, _terms(core, choice, asked.spi, seen, initiator=True))


def choose(core: Core, request: Content, *, first: bool = False) -> Agreement:
    """What we make of the peer's offer.

    Raises: NoProposalChosen, also where one end wants transport mode and the other does not;
    TrafficSelectorsUnacceptable, UnexpectedMessage.
    """
    offered = request.one(SecurityAssociation)
    asked_i, asked_r = request.one(TrafficSelectorsInitiator), request.one(TrafficSelectorsResponder)
    transport = request.notify(NotifyType2.USE_TRANSPORT_MODE) is not None
    if core.connection.transport and not transport:
        raise NoProposalChosen("the peer does not want transport mode")
    seen = _as_seen_here(core, asked_r.selectors, asked_i.selectors)
    remote, local = narrow(seen.remote, core.remote_traffic), narrow(seen.local, core.local_traffic)
    if not remote or not local:
        raise TrafficSelectorsUnacceptable("nothing of the peer's traffic selectors is allowed")
    spi = core.reserve_spi()
    choice = choose_child(core.connection.child, offered, spi=spi.to_bytes(SPI_LENGTH, "big"), first=first)
    return Agreement(
        choice.suite,
        _terms(core, choice, spi, replace(seen, local=local, remote=remote), initiator=False),
        (SecurityAssociation(proposals=(choice.proposal,)),),
        (
            # Behind a NAT these are the addresses that our packets have when they leave.
            TrafficSelectorsInitiator(selectors=remote),
            TrafficSelectorsResponder(selectors=local),
            *((_TRANSPORT,) if core.connection.transport else ()),
        ),
    )


def _as_seen_here(core: Core, local: tuple[TrafficSelector, ...], remote: tuple[TrafficSelector, ...]) -> _Traffic:
    """The peer's selectors for either end, as they are on our side of a NAT.

    RFC 7296 section 2.23.1: in transport mode each end names the addresses that it sees, and the other puts those
    of the path in their place before anything else; the former are what the peer's checksums were made for.
    """
    if not (core.connection.transport and core.encapsulated):
        return _Traffic(local, remote)
    here, there = host_selector(core.path.local), host_selector(core.path.remote)
    source, destination = _only_address(remote, there), _only_address(local, here)
    return _Traffic(
        _at(local, here),
        _at(remote, there),
        (source, destination) if source is not None and destination is not None else None,
    )


def _only_address(selectors: tuple[TrafficSelector, ...], host: TrafficSelector) -> Address | None:
    """The one address, of the same version as that of `host`, that all of these are for; None without one."""
    same = all(each.ts_type == host.ts_type for each in selectors)
    ends = {end for each in selectors for end in (each.start, each.end)}
    return ip_address(ends.pop()) if same and len(ends) == 1 else None


def _at(selectors: tuple[TrafficSelector, ...], host: TrafficSelector) -> tuple[TrafficSelector, ...]:
    """The same protocols and ports at another address; what is not of its version stays, and matches nothing."""
    return tuple(
        replace(each, start=host.start, end=host.end) if each.ts_type == host.ts_type else each
        for each in selectors
    )


def _terms(
    core: Core,
    choice: ChildChoice,
    spi: int,
    traffic: _Traffic,
    *,
    initiator: bool,
) -> ChildTerms:
    outbound = int.from_bytes(choice.peer_spi, "big")
    if outbound <= LAST_RESERVED_SPI:
        raise IllegalValue(f"the peer's SPI {outbound} is reserved")
    return ChildTerms(
        suite=choice.suite,
        initiator=initiator,
        inbound_spi=spi,
        outbound_spi=outbound,
        local=traffic.local,
        remote=traffic.remote,
        transport=core.connection.transport,
        encapsulated=core.encapsulated and choice.suite.protocol == ProtocolId.ESP,
        lifetime=core.connection.timing.child_lifetime,
        created=core.now,
        original_addresses=traffic.original,
    )
