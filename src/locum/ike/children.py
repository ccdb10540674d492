"""From a negotiation's result to what is installed: a CHILD_SA, or what quick mode made, as two associations.

Never negotiates and never sees a message; the same for both versions of IKE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address, ip_network

from locum.ike.engine import Child, Path
from locum.ike.errors import NoProposalChosen
from locum.ike.registry import ProtocolId
from locum.ike.suites import ChildKeys, ChildSuite, DirectionKeys
from locum.ike.traffic_selectors import TrafficSelector, selector_of
from locum.ipsec import algorithms as esp
from locum.ipsec import selectors as ipsec
from locum.ipsec.sa import Direction, Lifetime, Mode, Protocol, SecurityAssociation, UdpEncapsulation
from locum.ipsec.selectors import Address
from locum.values import dataclass

#: Bytes of an SPI of ESP and AH on the wire.
SPI_LENGTH = 4

#: Without extended sequence numbers an association ends with its 2^32nd packet; the successor is asked for when a
#: quarter of them is left (RFC 4303 section 2.2).
HARD_PACKETS = (1 << 32) - 1
SOFT_PACKETS = 3 << 30

#: Selectors and algorithms that were worked out and are remembered: few connections have many of them.
_REMEMBERED = 256

_PROTOCOLS = {ProtocolId.ESP: Protocol.ESP, ProtocolId.AH: Protocol.AH}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildTerms:
    """What was agreed on, as seen from here.

    `initiator` says whether we began the exchange that made the keys. `inbound_spi` is ours, `outbound_spi` the
    peer's. `local` and `remote` are the selectors as narrowed, none empty. `encapsulated` puts ESP into UDP on
    the ports of the path (RFC 3948). `lifetime` is in seconds from `created`, a moment of the engine's clock.
    `original_addresses` are those that the peer writes on its packets of transport mode, source and destination,
    where a NAT changes them on the way and the peer has told them.
    """

    suite: ChildSuite
    initiator: bool
    inbound_spi: int
    outbound_spi: int
    local: Sequence[TrafficSelector]
    remote: Sequence[TrafficSelector]
    transport: bool
    encapsulated: bool
    lifetime: float
    created: float
    original_addresses: tuple[Address, Address] | None = None


def make_child(terms: ChildTerms, keys: ChildKeys, path: Path) -> Child:
    """Both associations of a CHILD_SA between the ends of `path`.

    Their lifetime in seconds is a backstop: who made them replaces them in time, and removes them. That in
    packets is for whoever counts them: SOFT asks for a successor.
    Raises: NoProposalChosen when an algorithm was agreed on that no packet can be protected with here, which
    happens only where a policy names a legacy one; ConfigurationError when addresses or selectors do not fit.
    """
    ours, theirs = (keys.initiator, keys.responder) if terms.initiator else (keys.responder, keys.initiator)
    return Child(
        inbound=_association(terms, theirs, path, Direction.IN),
        outbound=_association(terms, ours, path, Direction.OUT),
        suite=terms.suite,
    )


def _association(terms: ChildTerms, keys: DirectionKeys, path: Path, direction: Direction) -> SecurityAssociation:
    inbound = direction is Direction.IN
    suite = terms.suite
    packets = None if suite.extended_sequence_numbers else HARD_PACKETS
    return SecurityAssociation(
        spi=terms.inbound_spi if inbound else terms.outbound_spi,
        protocol=_PROTOCOLS[suite.protocol],
        mode=Mode.TRANSPORT if terms.transport else Mode.TUNNEL,
        direction=direction,
        source=path.remote if inbound else path.local,
        destination=path.local if inbound else path.remote,
        encryption=_encryption(suite),
        encryption_key=keys.encryption,
        integrity=_integrity(suite),
        integrity_key=keys.integrity,
        local=tuple(ipsec_selector(each) for each in terms.local),
        remote=tuple(ipsec_selector(each) for each in terms.remote),
        extended_sequence=suite.extended_sequence_numbers,
        encapsulation=_encapsulation(path, inbound=inbound) if terms.encapsulated else None,
        original_addresses=terms.original_addresses if inbound else None,
        lifetime=Lifetime(
            hard_seconds=terms.lifetime, soft_packets=packets and SOFT_PACKETS, hard_packets=packets
        ),
        created=terms.created,
    )


def _encryption(suite: ChildSuite) -> esp.EncryptionAlgorithm | None:
    if suite.encryption is None:
        return None
    found = _encryption_of(suite.encryption.id, suite.encryption.key_bits)
    if found is None:
        raise NoProposalChosen(f"{suite.encryption.name} is not implemented for {suite.protocol.name}")
    return found


_encryption_of = lru_cache(_REMEMBERED)(esp.encryption_of)


def _integrity(suite: ChildSuite) -> esp.IntegrityAlgorithm | None:
    if suite.integrity is None:
        return None
    found = esp.integrity_of(suite.integrity.id)
    if found is None:
        raise NoProposalChosen(f"{suite.integrity.name} is not implemented for {suite.protocol.name}")
    return found


def _encapsulation(path: Path, *, inbound: bool) -> UdpEncapsulation:
    source, destination = path.local_port, path.remote_port
    if inbound:
        source, destination = destination, source
    return UdpEncapsulation(source_port=source, destination_port=destination)


def child_on(child: Child, path: Path) -> Child:
    """The same associations, keys and SPIs between the ends of another path (RFC 7296 section 2.23).

    Whoever installed them goes on with the sequence numbers and windows of the old ones.
    """
    return replace(
        child,
        inbound=_on(child.inbound, path.remote, path.local, path, inbound=True),
        outbound=_on(child.outbound, path.local, path.remote, path, inbound=False),
    )


def _on(
    sa: SecurityAssociation, source: Address, destination: Address, path: Path, *, inbound: bool
) -> SecurityAssociation:
    encapsulation = None if sa.encapsulation is None else _encapsulation(path, inbound=inbound)
    return replace(sa, source=source, destination=destination, encapsulation=encapsulation)


def keys_from_material(suite: ChildSuite, material: bytes) -> ChildKeys:
    """Cut KEYMAT as RFC 7296 section 2.17 orders it, for material that an authority derived.

    Raises: ValueError unless it is exactly as long as the suite needs for both directions.
    """
    cipher, mac = suite.encryption_length, suite.integrity_length
    half = cipher + mac
    if len(material) != 2 * half:
        raise ValueError(f"{len(material)} bytes of keying material, not {2 * half}")
    first, second = material[:half], material[half:]
    return ChildKeys(
        initiator=DirectionKeys(encryption=first[:cipher], integrity=first[cipher:]),
        responder=DirectionKeys(encryption=second[:cipher], integrity=second[cipher:]),
    )


# --- selectors --------------------------------------------------------------------------------------------


@lru_cache(_REMEMBERED)
def ipsec_selector(selector: TrafficSelector) -> ipsec.TrafficSelector:
    """A negotiated selector, which has been narrowed, as an association has it.

    Raises: ConfigurationError for one that is no range; ValueError for one of a type that is not known.
    """
    return ipsec.TrafficSelector(
        start=ip_address(selector.start),
        end=ip_address(selector.end),
        protocol=selector.protocol,
        first_port=selector.start_port,
        last_port=selector.end_port,
    )


@lru_cache(_REMEMBERED)
def host_selector(address: Address) -> TrafficSelector:
    """All traffic of one address: what a connection without selectors is for."""
    return selector_of(ip_network(address))
