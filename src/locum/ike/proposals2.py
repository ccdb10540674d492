"""Negotiation in IKEv2: what to offer, what to choose from an offer, and whether an answer keeps to ours.

Knows policies and SA payloads, not exchanges (RFC 7296 sections 2.7 and 3.3, RFC 9370 section 2.2.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from locum.ike import algorithms as alg
from locum.ike.algorithms import Encryption, Group
from locum.ike.errors import AlteredProposal, NoProposalChosen
from locum.ike.header import Attribute
from locum.ike.payloads2 import Proposal, SecurityAssociation, Transform
from locum.ike.policy import ChildPolicy, IkePolicy
from locum.ike.registry import (
    ADDITIONAL_KEY_EXCHANGES,
    KEY_LENGTH_ATTRIBUTE,
    EncryptionId,
    IntegrityId,
    KeyExchangeId,
    ProtocolId,
    SequenceNumbers,
    TransformType,
    name_of,
)
from locum.ike.suites import ChildSuite, IkeSuite
from locum.values import dataclass

_KEY_EXCHANGES = frozenset({TransformType.KEY_EXCHANGE, *ADDITIONAL_KEY_EXCHANGES})
_KNOWN = frozenset(TransformType)

#: Types of which the code point 0 says "none": an answer may leave them out where that was offered.
_OPTIONAL = frozenset({TransformType.INTEGRITY, *_KEY_EXCHANGES})


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeChoice:
    """An IKE SA that was agreed: its algorithms, the proposal to answer with, the peer's SPI (empty at first)."""

    suite: IkeSuite
    proposal: Proposal
    peer_spi: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildChoice:
    """A CHILD_SA that was agreed: its algorithms, the proposal to answer with, the peer's SPI of 4 bytes."""

    suite: ChildSuite
    proposal: Proposal
    peer_spi: bytes


# --- offering -------------------------------------------------------------------------------------------------


def offer_ike(policy: IkePolicy, spi: bytes = b"") -> SecurityAssociation:
    """The SA payload of an initiator; `spi` is empty in IKE_SA_INIT, else the new SPI of 8 bytes.

    AEADs and ciphers that need an integrity algorithm stand in proposals of their own (section 3.3).
    """
    common = (
        *(Transform(type=TransformType.PRF, id=prf.id) for prf in policy.prfs),
        *_key_exchange_transforms(policy.groups, policy.additional),
    )
    return _offer(ProtocolId.IKE, spi, policy.encryptions, policy.integrities, common)


def offer_child(policy: ChildPolicy, spi: bytes, *, first: bool = False) -> SecurityAssociation:
    """The SA payload for a CHILD_SA with our `spi` of 4 bytes.

    `first`: in IKE_AUTH, where there is no key exchange to negotiate (section 1.2).
    """
    common = (
        *(() if first else _key_exchange_transforms(policy.groups, policy.additional)),
        *(
            Transform(type=TransformType.SEQUENCE_NUMBERS, id=int(extended))
            for extended in policy.extended_sequence_numbers
        ),
    )
    if policy.protocol == ProtocolId.AH:
        transforms = (*_integrity_transforms(policy.integrities), *common)
        proposal = Proposal(number=1, protocol=ProtocolId.AH, spi=spi, transforms=transforms)
        return SecurityAssociation(proposals=(proposal,))
    return _offer(ProtocolId.ESP, spi, policy.encryptions, policy.integrities, common)


def _offer(
    protocol: ProtocolId,
    spi: bytes,
    encryptions: Sequence[Encryption],
    integrities: Sequence[alg.Integrity],
    common: tuple[Transform, ...],
) -> SecurityAssociation:
    aeads = tuple(_encryption_transform(each) for each in encryptions if each.aead is not None)
    others = tuple(_encryption_transform(each) for each in encryptions if each.aead is None)
    bodies = []
    if aeads:
        bodies.append((*aeads, *common))
    if others:
        bodies.append((*others, *_integrity_transforms(integrities), *common))
    return SecurityAssociation(
        proposals=tuple(
            Proposal(number=number, protocol=protocol, spi=spi, transforms=body)
            for number, body in enumerate(bodies, 1)
        )
    )


def _encryption_transform(encryption: Encryption) -> Transform:
    bits = encryption.key_bits
    attributes = () if bits is None else (Attribute.of(KEY_LENGTH_ATTRIBUTE, bits),)
    return Transform(type=TransformType.ENCRYPTION, id=encryption.id, attributes=attributes)


def _integrity_transforms(integrities: Sequence[alg.Integrity]) -> tuple[Transform, ...]:
    return tuple(Transform(type=TransformType.INTEGRITY, id=each.id) for each in integrities)


def _key_exchange_transforms(
    groups: Sequence[Group | None], additional: Sequence[Sequence[Group | None]]
) -> tuple[Transform, ...]:
    """Transforms of type 4 and 6 to 12; a type that could only be none is left out (section 1.2)."""
    by_type: Iterable[tuple[TransformType, Sequence[Group | None]]] = (
        (TransformType.KEY_EXCHANGE, groups),
        *zip(ADDITIONAL_KEY_EXCHANGES, additional, strict=False),
    )
    return tuple(
        Transform(type=kind, id=KeyExchangeId.NONE if group is None else group.id)
        for kind, acceptable in by_type
        if any(acceptable)
        for group in acceptable
    )


# --- choosing -------------------------------------------------------------------------------------------------


def choose_ike(
    policy: IkePolicy, offered: SecurityAssociation, *, spi: bytes = b"", preferred_group: int | None = None
) -> IkeChoice:
    """Choose from an initiator's offer: proposals in its order, algorithms within each in the policy's.

    `spi` is empty in IKE_SA_INIT, else our new SPI of 8 bytes. `preferred_group`, the one that the KE payload
    is in, is taken where the policy has it at all: any other would cost another round trip.
    Raises: NoProposalChosen.
    """
    groups = sorted(policy.groups, key=lambda group: group.id != preferred_group)
    for proposal in offered.proposals:
        if proposal.protocol != ProtocolId.IKE or len(proposal.spi) != len(spi):
            continue
        offer = _Offer(proposal)
        prf = offer.first(TransformType.PRF, [prf.id for prf in policy.prfs])
        exchanges = offer.key_exchanges(groups, policy.additional)
        cipher = offer.cipher(policy.encryptions, policy.integrities)
        if prf is None or exchanges is None or cipher is None or not offer.understood:
            continue
        chosen = _answer(proposal, spi, (*cipher, prf, *exchanges))
        return IkeChoice(suite=_ike_suite(chosen), proposal=chosen, peer_spi=proposal.spi)
    raise NoProposalChosen(f"no IKE proposal of the peer is acceptable{_never_negotiated(offered)}")


def restrict_ike(offered: SecurityAssociation, policy: IkePolicy) -> SecurityAssociation:
    """What is left of an offer where only what `policy` allows may be chosen; order and numbers stay.

    A terminal cuts a peer's offer down to what it can do itself before an authority chooses, and an authority
    a terminal's before it is sent. Proposals from which nothing can be chosen are left out.
    Raises: NoProposalChosen when nothing is left.
    """
    kept = []
    for proposal in offered.proposals:
        transforms = tuple(each for each in proposal.transforms if _is_allowed(each, policy))
        # Of every type that was offered something must be left, or an answer would pass over that type.
        if {each.type for each in transforms} != {each.type for each in proposal.transforms}:
            continue
        cut = replace(proposal, transforms=transforms)
        try:
            choose_ike(policy, SecurityAssociation(proposals=(cut,)), spi=proposal.spi)
        except NoProposalChosen:
            continue
        kept.append(cut)
    if not kept:
        raise NoProposalChosen(f"no IKE proposal of the peer is acceptable{_never_negotiated(offered)}")
    return SecurityAssociation(proposals=tuple(kept))


def _is_allowed(transform: Transform, policy: IkePolicy) -> bool:
    if not _attributes_understood(transform):
        return False
    if transform.type == TransformType.ENCRYPTION:
        return any((each.id, each.key_bits) == (transform.id, transform.key_length) for each in policy.encryptions)
    if transform.type == TransformType.PRF:
        return any(each.id == transform.id for each in policy.prfs)
    if transform.type == TransformType.INTEGRITY:
        # NONE beside AEADs says nothing else than leaving the type out (RFC 7296 section 3.3).
        return transform.id == IntegrityId.NONE or any(each.id == transform.id for each in policy.integrities)
    acceptable: Sequence[Group | None] = (None,)
    if transform.type == TransformType.KEY_EXCHANGE:
        acceptable = policy.groups
    elif transform.type in ADDITIONAL_KEY_EXCHANGES:
        index = transform.type - TransformType.ADDITIONAL_KEY_EXCHANGE_1
        acceptable = policy.additional[index] if index < len(policy.additional) else (None,)
    else:
        return False
    return any(transform.id == (KeyExchangeId.NONE if group is None else group.id) for group in acceptable)


def choose_child(
    policy: ChildPolicy, offered: SecurityAssociation, *, spi: bytes, first: bool = False
) -> ChildChoice:
    """As `choose_ike`, for a CHILD_SA with our `spi` of 4 bytes; `first` as in `offer_child`.

    Raises: NoProposalChosen.
    """
    for proposal in offered.proposals:
        if proposal.protocol != policy.protocol:
            continue
        offer = _Offer(_without_key_exchange(proposal) if first else proposal)
        exchanges = () if first else offer.key_exchanges(policy.groups, policy.additional)
        cipher = offer.child_cipher(policy)
        numbers = offer.sequence_numbers(policy.extended_sequence_numbers)
        if exchanges is None or cipher is None or numbers is None or not offer.understood:
            continue
        chosen = _answer(proposal, spi, (*cipher, *exchanges, *numbers))
        return ChildChoice(suite=_child_suite(chosen), proposal=chosen, peer_spi=proposal.spi)
    raise NoProposalChosen(f"no CHILD_SA proposal of the peer is acceptable{_never_negotiated(offered)}")


def _without_key_exchange(proposal: Proposal) -> Proposal:
    kept = tuple(each for each in proposal.transforms if each.type not in _KEY_EXCHANGES)
    return replace(proposal, transforms=kept)


def _answer(proposal: Proposal, spi: bytes, transforms: tuple[Transform, ...]) -> Proposal:
    return Proposal(number=proposal.number, protocol=proposal.protocol, spi=spi, transforms=transforms)


class _Offer:
    """One proposal's transforms by type; those with an attribute that is not understood are left out."""

    def __init__(self, proposal: Proposal) -> None:
        self._by_type: dict[int, list[Transform]] = {}
        for transform in proposal.transforms:
            members = self._by_type.setdefault(transform.type, [])
            if _attributes_understood(transform):
                members.append(transform)

    @property
    def understood(self) -> bool:
        """Section 3.3.6: of a type that is not understood nothing can be chosen, so the proposal is out."""
        return self._by_type.keys() <= _KNOWN

    def first(self, kind: TransformType, wanted: Iterable[int]) -> Transform | None:
        """The first of the wanted code points that is offered."""
        offered = {transform.id: transform for transform in reversed(self._by_type.get(kind, []))}
        return next((offered[code] for code in wanted if code in offered), None)

    def cipher(
        self, encryptions: Sequence[Encryption], integrities: Sequence[alg.Integrity]
    ) -> tuple[Transform, ...] | None:
        """Encryption, and the integrity algorithm that goes with it unless it is an AEAD."""
        offered = self._by_type.get(TransformType.ENCRYPTION, [])
        for encryption in encryptions:
            for transform in offered:
                if transform.id != encryption.id or transform.key_length != encryption.key_bits:
                    continue
                integrity = self._integrity(integrities, none=encryption.aead is not None)
                if integrity is not None:
                    return (transform, *integrity)
        return None

    def child_cipher(self, policy: ChildPolicy) -> tuple[Transform, ...] | None:
        """As `cipher`; for AH integrity alone."""
        if policy.protocol != ProtocolId.AH:
            return self.cipher(policy.encryptions, policy.integrities)
        if TransformType.ENCRYPTION in self._by_type:
            return None
        return self._integrity(policy.integrities, none=False)

    def _integrity(self, integrities: Sequence[alg.Integrity], *, none: bool) -> tuple[Transform, ...] | None:
        if not none:
            chosen = self.first(TransformType.INTEGRITY, [each.id for each in integrities])
        elif TransformType.INTEGRITY not in self._by_type:
            return ()
        else:
            chosen = self.first(TransformType.INTEGRITY, [IntegrityId.NONE])
        return None if chosen is None else (chosen,)

    def key_exchanges(
        self, groups: Sequence[Group | None], additional: Sequence[Sequence[Group | None]]
    ) -> tuple[Transform, ...] | None:
        """One method of each offered key exchange, no two alike (RFC 9370 section 2.2.1)."""
        slots = (groups, *additional)
        kinds = (TransformType.KEY_EXCHANGE, *ADDITIONAL_KEY_EXCHANGES)
        used: set[int] = set()
        chosen: list[Transform] = []
        for index, kind in enumerate(kinds):
            acceptable: Sequence[Group | None] = slots[index] if index < len(slots) else (None,)
            if kind not in self._by_type:
                if None not in acceptable:
                    return None
                continue
            wanted = [KeyExchangeId.NONE if group is None else group.id for group in acceptable]
            transform = self.first(kind, [code for code in wanted if code not in used])
            if transform is None:
                return None
            if transform.id != KeyExchangeId.NONE:
                used.add(transform.id)
            chosen.append(transform)
        return tuple(chosen)

    def sequence_numbers(self, acceptable: Sequence[bool]) -> tuple[Transform, ...] | None:
        """Where the type is missing, numbers are short and the answer has none either."""
        if TransformType.SEQUENCE_NUMBERS not in self._by_type:
            return () if False in acceptable else None
        chosen = self.first(TransformType.SEQUENCE_NUMBERS, [int(extended) for extended in acceptable])
        return None if chosen is None else (chosen,)


def _attributes_understood(transform: Transform) -> bool:
    """Section 3.3.6: only encryption has an attribute, the key length, and has it once."""
    if transform.type != TransformType.ENCRYPTION:
        return not transform.attributes
    return not transform.attributes or (
        len(transform.attributes) == 1
        and transform.attributes[0].type == KEY_LENGTH_ATTRIBUTE
        and transform.attributes[0].short
    )


def _never_negotiated(offered: SecurityAssociation) -> str:
    """For the error's text: what the peer offered that nobody should."""
    names = []
    for proposal in offered.proposals:
        for transform in proposal.transforms:
            if transform.type == TransformType.ENCRYPTION and transform.id in alg.NEVER_ENCRYPTION:
                names.append(name_of(EncryptionId, transform.id))
            elif transform.type == TransformType.KEY_EXCHANGE and transform.id in alg.NEVER_GROUP:
                names.append(name_of(KeyExchangeId, transform.id))
    return f"; never negotiated here: {', '.join(dict.fromkeys(names))}" if names else ""


# --- an answer ------------------------------------------------------------------------------------------------


def accept_ike(offered: SecurityAssociation, answer: SecurityAssociation) -> IkeChoice:
    """What the responder chose from our offer.

    Raises: AlteredProposal unless the answer is one proposal made of what one of ours offers.
    """
    chosen = _accepted(offered, answer)
    return IkeChoice(suite=_ike_suite(chosen), proposal=chosen, peer_spi=chosen.spi)


def accept_child(offered: SecurityAssociation, answer: SecurityAssociation) -> ChildChoice:
    """As `accept_ike`, for a CHILD_SA."""
    chosen = _accepted(offered, answer)
    return ChildChoice(suite=_child_suite(chosen), proposal=chosen, peer_spi=chosen.spi)


def _accepted(offered: SecurityAssociation, answer: SecurityAssociation) -> Proposal:
    if len(answer.proposals) != 1:
        raise AlteredProposal(f"{len(answer.proposals)} proposals where one was to be chosen")
    chosen = answer.proposals[0]
    ours = next((each for each in offered.proposals if each.number == chosen.number), None)
    if ours is None or chosen.protocol != ours.protocol or len(chosen.spi) != len(ours.spi):
        raise AlteredProposal(f"proposal {chosen.number} was not offered like that")
    types = [transform.type for transform in chosen.transforms]
    if len(set(types)) != len(types):
        raise AlteredProposal("two transforms of one type were chosen")
    if not set(chosen.transforms) <= set(ours.transforms):
        raise AlteredProposal("a transform was chosen that was not offered")
    exchanges = [each.id for each in chosen.transforms if each.type in _KEY_EXCHANGES and each.id]
    if len(set(exchanges)) != len(exchanges):
        raise AlteredProposal("one key exchange method was chosen twice")
    for transform in ours.transforms:
        optional = transform.type in _OPTIONAL and any(
            other.type == transform.type and other.id == 0 for other in ours.transforms
        )
        if transform.type not in types and not optional:
            raise AlteredProposal(f"no transform of type {transform.type} was chosen")
    return chosen


def _ike_suite(chosen: Proposal) -> IkeSuite:
    """The algorithms of a chosen proposal; every one was offered, so that all are implemented."""
    by_type = {transform.type: transform for transform in chosen.transforms}
    encryption = _encryption(by_type)
    prf = alg.find_prf(_id(by_type, TransformType.PRF))
    group = _group(by_type, TransformType.KEY_EXCHANGE)
    if encryption is None or prf is None or group is None:
        raise AlteredProposal("a chosen proposal lacks an algorithm")
    return IkeSuite(
        encryption=encryption,
        integrity=alg.find_integrity(_id(by_type, TransformType.INTEGRITY)),
        prf=prf,
        group=group,
        additional=_additional(by_type),
    )


def _child_suite(chosen: Proposal) -> ChildSuite:
    by_type = {transform.type: transform for transform in chosen.transforms}
    extended = _id(by_type, TransformType.SEQUENCE_NUMBERS) == SequenceNumbers.EXTENDED
    return ChildSuite(
        protocol=ProtocolId(chosen.protocol),
        encryption=_encryption(by_type),
        integrity=alg.find_integrity(_id(by_type, TransformType.INTEGRITY)),
        extended_sequence_numbers=extended,
        group=_group(by_type, TransformType.KEY_EXCHANGE),
        additional=_additional(by_type),
    )


def _id(by_type: dict[int, Transform], kind: TransformType) -> int:
    return by_type[kind].id if kind in by_type else 0


def _encryption(by_type: dict[int, Transform]) -> Encryption | None:
    transform = by_type.get(TransformType.ENCRYPTION)
    return None if transform is None else alg.find_encryption(transform.id, transform.key_length)


def _group(by_type: dict[int, Transform], kind: TransformType) -> Group | None:
    return alg.GROUPS.get(_id(by_type, kind))


def _additional(by_type: dict[int, Transform]) -> tuple[Group | None, ...]:
    return tuple(_group(by_type, kind) for kind in ADDITIONAL_KEY_EXCHANGES if kind in by_type)
