"""Negotiation in IKEv1: what to offer, what to choose from an offer, and whether an answer is one of ours.

Knows policies and SA payloads, not exchanges. A responder returns the chosen transform unmodified, and an
initiator accepts nothing else (RFC 2408 section 4.2, RFC 2409 section 5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice, product

from locum.ike import algorithms as alg
from locum.ike.algorithms import Encryption, Integrity, Prf
from locum.ike.errors import AlteredProposal, NoProposalChosen
from locum.ike.header import Attribute
from locum.ike.payloads1 import MAX_TRANSFORMS, Proposal, SecurityAssociation, Transform
from locum.ike.policy import ChildPolicy, Phase1Policy
from locum.ike.registry import (
    DOI_IPSEC,
    KEY_IKE,
    AhTransform1,
    AuthenticationMethod1,
    EncapsulationMode,
    EncryptionId,
    IpsecAttribute,
    IpsecAuthentication,
    LifeType,
    OakleyAttribute,
    OakleyEncryption,
    OakleyHash,
    ProtocolId,
    SequenceNumbers,
)
from locum.ike.suites import ChildSuite, Phase1Suite
from locum.values import dataclass

_HASHES: dict[int, Prf] = {
    OakleyHash.SHA1: alg.PRF_HMAC_SHA1,
    OakleyHash.SHA2_256: alg.PRF_HMAC_SHA2_256,
    OakleyHash.SHA2_384: alg.PRF_HMAC_SHA2_384,
    OakleyHash.SHA2_512: alg.PRF_HMAC_SHA2_512,
}
_INTEGRITIES: dict[int, Integrity] = {
    IpsecAuthentication.HMAC_SHA1: alg.AUTH_HMAC_SHA1_96,
    IpsecAuthentication.HMAC_SHA2_256: alg.AUTH_HMAC_SHA2_256_128,
    IpsecAuthentication.HMAC_SHA2_384: alg.AUTH_HMAC_SHA2_384_192,
    IpsecAuthentication.HMAC_SHA2_512: alg.AUTH_HMAC_SHA2_512_256,
}

_AH_TRANSFORMS: dict[int, Integrity] = {
    AhTransform1.SHA1: alg.AUTH_HMAC_SHA1_96,
    AhTransform1.SHA2_256: alg.AUTH_HMAC_SHA2_256_128,
    AhTransform1.SHA2_384: alg.AUTH_HMAC_SHA2_384_192,
    AhTransform1.SHA2_512: alg.AUTH_HMAC_SHA2_512_256,
}

#: ESP transforms of IKEv1 that are implemented; ChaCha20-Poly1305 has no number there.
_ESP_TRANSFORMS = frozenset({EncryptionId.NULL, EncryptionId.AES_CBC, EncryptionId.AES_GCM_16})


def _code(table: dict[int, Prf] | dict[int, Integrity], value: Prf | Integrity) -> int:
    return next(code for code, member in table.items() if member is value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase1Choice:
    """An ISAKMP SA that was agreed, and the SA payload to answer with."""

    suite: Phase1Suite
    answer: SecurityAssociation


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase2Choice:
    """A pair of IPsec SAs that was agreed: the SA payload to answer with, and the peer's SPI of 4 bytes."""

    suite: ChildSuite
    answer: SecurityAssociation
    peer_spi: bytes


class _Attributes:
    """A transform's attributes by type. Durations follow their life type, so that pairs may be repeated."""

    def __init__(self, transform: Transform, life_type: int, life_duration: int) -> None:
        self._values: dict[int, int] = {}
        self.lifetimes: dict[int, int] = {}
        self.sound = True
        kind: int | None = None
        for attribute in transform.attributes:
            if attribute.type == life_type:
                self.sound = self.sound and kind is None
                kind = attribute.number
            elif attribute.type == life_duration and kind is not None:
                self.lifetimes[kind] = attribute.number
                kind = None
            elif attribute.type in self._values or attribute.type == life_duration:
                self.sound = False
            else:
                self._values[attribute.type] = attribute.number
        self.sound = self.sound and kind is None

    def get(self, kind: int) -> int | None:
        """The value of this attribute, None where it is missing."""
        return self._values.get(kind)

    def only(self, known: Iterable[int]) -> bool:
        """True when the transform is well formed and has no attribute beyond these and lifetimes."""
        return self.sound and self._values.keys() <= set(known)

    @property
    def seconds(self) -> int | None:
        """The lifetime in seconds, where there is one."""
        return self.lifetimes.get(LifeType.SECONDS)


# --- phase 1 --------------------------------------------------------------------------------------------------


def offer_phase1(policy: Phase1Policy) -> SecurityAssociation:
    """The SA payload of an initiator: one proposal, with a transform for each combination of algorithms.

    At most `MAX_TRANSFORMS` of them, the most preferred first.
    """
    combinations = product(policy.methods, policy.groups, policy.encryptions, policy.prfs)
    transforms = tuple(
        _phase1_transform(
            number,
            Phase1Suite(encryption=encryption, prf=prf, method=method, group=group, lifetime=policy.lifetime),
        )
        for number, (method, group, encryption, prf) in enumerate(islice(combinations, MAX_TRANSFORMS), 1)
    )
    proposal = Proposal(number=1, protocol=ProtocolId.IKE, transforms=transforms)
    return SecurityAssociation(proposals=(proposal,))


def _phase1_transform(number: int, suite: Phase1Suite) -> Transform:
    attributes = [
        Attribute.of(OakleyAttribute.ENCRYPTION_ALGORITHM, OakleyEncryption.AES),
        Attribute.of(OakleyAttribute.KEY_LENGTH, suite.encryption.key_length * 8),
        Attribute.of(OakleyAttribute.HASH_ALGORITHM, _code(_HASHES, suite.prf)),
        Attribute.of(OakleyAttribute.GROUP_DESCRIPTION, suite.group.id),
        Attribute.of(OakleyAttribute.AUTHENTICATION_METHOD, suite.method),
    ]
    if suite.lifetime is not None:
        attributes.append(Attribute.of(OakleyAttribute.LIFE_TYPE, LifeType.SECONDS))
        attributes.append(Attribute.of(OakleyAttribute.LIFE_DURATION, suite.lifetime))
    return Transform(number=number, id=KEY_IKE, attributes=tuple(attributes))


_PHASE1_KNOWN = frozenset(OakleyAttribute) - {OakleyAttribute.PRF}


def _phase1_suite(transform: Transform) -> Phase1Suite | None:
    """The algorithms of a phase 1 transform, None where one of its attributes is not implemented."""
    values = _Attributes(transform, OakleyAttribute.LIFE_TYPE, OakleyAttribute.LIFE_DURATION)
    if transform.id != KEY_IKE or not values.only(_PHASE1_KNOWN):
        return None
    if values.get(OakleyAttribute.ENCRYPTION_ALGORITHM) != OakleyEncryption.AES:
        return None
    encryption = alg.find_encryption(EncryptionId.AES_CBC, values.get(OakleyAttribute.KEY_LENGTH))
    prf = _HASHES.get(values.get(OakleyAttribute.HASH_ALGORITHM) or 0)
    group = alg.GROUPS.get(values.get(OakleyAttribute.GROUP_DESCRIPTION) or 0)
    method = values.get(OakleyAttribute.AUTHENTICATION_METHOD)
    if encryption is None or prf is None or group is None:
        return None
    if method is None or method not in AuthenticationMethod1.__members__.values():
        return None
    return Phase1Suite(
        encryption=encryption,
        prf=prf,
        method=AuthenticationMethod1(method),
        group=group,
        lifetime=values.seconds,
    )


def _phase1_allowed(policy: Phase1Policy, suite: Phase1Suite) -> bool:
    return (
        suite.encryption in policy.encryptions
        and suite.prf in policy.prfs
        and suite.group in policy.groups
        and suite.method in policy.methods
    )


def choose_phase1(policy: Phase1Policy, offered: SecurityAssociation) -> Phase1Choice:
    """Take the first transform, in the initiator's order, that the policy allows.

    Raises: NoProposalChosen, also for another DOI than IPsec's.
    """
    if offered.doi == DOI_IPSEC:
        for proposal, transform in _alternatives(offered, ProtocolId.IKE):
            suite = _phase1_suite(transform)
            if suite is not None and _phase1_allowed(policy, suite):
                answer = replace(offered, proposals=(replace(proposal, transforms=(transform,)),))
                return Phase1Choice(suite=suite, answer=answer)
    raise NoProposalChosen("no phase 1 proposal of the peer is acceptable")


def restrict_phase1(offered: SecurityAssociation, policy: Phase1Policy) -> SecurityAssociation:
    """What is left of an offer where only what `policy` allows may be chosen; order and numbers stay.

    A terminal cuts a peer's offer down to what it can do itself before an authority chooses, and an authority
    a terminal's before it is sent. Raises: NoProposalChosen when nothing is left.
    """
    kept: dict[int, tuple[Proposal, list[Transform]]] = {}
    if offered.doi == DOI_IPSEC:
        for proposal, transform in _alternatives(offered, ProtocolId.IKE):
            suite = _phase1_suite(transform)
            if suite is not None and _phase1_allowed(policy, suite):
                kept.setdefault(proposal.number, (proposal, []))[1].append(transform)
    if not kept:
        raise NoProposalChosen("no phase 1 proposal of the peer is acceptable")
    proposals = tuple(replace(proposal, transforms=tuple(transforms)) for proposal, transforms in kept.values())
    return replace(offered, proposals=proposals)


def accept_phase1(offered: SecurityAssociation, answer: SecurityAssociation) -> Phase1Choice:
    """What the responder chose; AlteredProposal unless it is one of our transforms, unmodified."""
    chosen, transform = _accepted(offered, answer, ProtocolId.IKE)
    suite = _phase1_suite(transform)
    if suite is None:
        raise AlteredProposal(f"proposal {chosen.number} has not the attributes that were offered")
    return Phase1Choice(suite=suite, answer=answer)


# --- phase 2 --------------------------------------------------------------------------------------------------


def offer_phase2(policy: ChildPolicy, spi: bytes) -> SecurityAssociation:
    """The SA payload of quick mode with our `spi` of 4 bytes: one proposal with every combination.

    All are in the first group of the policy, since quick mode has one KE payload for them all (RFC 2409
    section 5.5). At most `MAX_TRANSFORMS` transforms, the most preferred first.
    """
    suites = islice(_phase2_suites(policy), MAX_TRANSFORMS)
    transforms = tuple(_phase2_transform(number, suite) for number, suite in enumerate(suites, 1))
    proposal = Proposal(number=1, protocol=policy.protocol, spi=spi, transforms=transforms)
    return SecurityAssociation(proposals=(proposal,))


def _phase2_suites(policy: ChildPolicy) -> Iterator[ChildSuite]:
    is_ah = policy.protocol == ProtocolId.AH
    encryptions: tuple[Encryption | None, ...] = (None,) if is_ah else policy.encryptions
    for mode, encryption, extended in product(policy.modes, encryptions, policy.extended_sequence_numbers):
        if encryption is not None and encryption.id not in _ESP_TRANSFORMS:
            continue
        aead = encryption is not None and encryption.aead is not None
        integrities: tuple[Integrity | None, ...] = (None,) if aead else policy.integrities
        for integrity in integrities:
            yield ChildSuite(
                protocol=policy.protocol,
                encryption=encryption,
                integrity=integrity,
                extended_sequence_numbers=extended,
                group=policy.groups[0],
                mode=mode,
                lifetime=policy.lifetime,
            )


def _phase2_transform(number: int, suite: ChildSuite) -> Transform:
    attributes = [Attribute.of(IpsecAttribute.ENCAPSULATION_MODE, suite.mode or EncapsulationMode.TUNNEL)]
    code: int
    if suite.encryption is None:
        assert suite.integrity is not None
        code = _code(_AH_TRANSFORMS, suite.integrity)
    else:
        code = suite.encryption.id
        if suite.encryption.key_bits is not None:
            attributes.append(Attribute.of(IpsecAttribute.KEY_LENGTH, suite.encryption.key_bits))
    if suite.integrity is not None:
        attributes.append(
            Attribute.of(IpsecAttribute.AUTHENTICATION_ALGORITHM, _code(_INTEGRITIES, suite.integrity))
        )
    if suite.group is not None:
        attributes.append(Attribute.of(IpsecAttribute.GROUP_DESCRIPTION, suite.group.id))
    if suite.extended_sequence_numbers:
        attributes.append(Attribute.of(IpsecAttribute.EXTENDED_SEQUENCE_NUMBER, SequenceNumbers.EXTENDED))
    if suite.lifetime is not None:
        attributes.append(Attribute.of(IpsecAttribute.LIFE_TYPE, LifeType.SECONDS))
        attributes.append(Attribute.of(IpsecAttribute.LIFE_DURATION, suite.lifetime))
    return Transform(number=number, id=code, attributes=tuple(attributes))


def _phase2_suite(protocol: int, transform: Transform) -> ChildSuite | None:
    """The algorithms of a phase 2 transform, None where one of its attributes is not implemented."""
    values = _Attributes(transform, IpsecAttribute.LIFE_TYPE, IpsecAttribute.LIFE_DURATION)
    mode = values.get(IpsecAttribute.ENCAPSULATION_MODE)
    authentication = values.get(IpsecAttribute.AUTHENTICATION_ALGORITHM)
    number = values.get(IpsecAttribute.GROUP_DESCRIPTION)
    sequence = values.get(IpsecAttribute.EXTENDED_SEQUENCE_NUMBER) or SequenceNumbers.SHORT
    if not values.only(IpsecAttribute) or mode is None or mode not in EncapsulationMode.__members__.values():
        return None
    if sequence not in SequenceNumbers.__members__.values():
        return None
    integrity = _INTEGRITIES.get(authentication or 0)
    group = alg.GROUPS.get(number or 0)
    if (integrity is None) != (authentication is None) or (group is None) != (number is None):
        return None
    encryption = None
    if protocol == ProtocolId.ESP:
        if transform.id in _ESP_TRANSFORMS:
            encryption = alg.find_encryption(transform.id, values.get(IpsecAttribute.KEY_LENGTH))
        if encryption is None or (encryption.aead is None) != (integrity is not None):
            return None
    elif integrity is None or _AH_TRANSFORMS.get(transform.id) is not integrity:
        return None
    return ChildSuite(
        protocol=ProtocolId(protocol),
        encryption=encryption,
        integrity=integrity,
        extended_sequence_numbers=sequence == SequenceNumbers.EXTENDED,
        group=group,
        mode=EncapsulationMode(mode),
        lifetime=values.seconds,
    )


def _phase2_allowed(policy: ChildPolicy, suite: ChildSuite) -> bool:
    return (
        (suite.encryption is None or suite.encryption in policy.encryptions)
        and (suite.integrity is None or suite.integrity in policy.integrities)
        and suite.group in policy.groups
        and suite.mode in policy.modes
        and suite.extended_sequence_numbers in policy.extended_sequence_numbers
    )


def choose_phase2(policy: ChildPolicy, offered: SecurityAssociation, *, spi: bytes) -> Phase2Choice:
    """Take the first transform, in the initiator's order, that the policy allows; `spi` is ours, 4 bytes.

    Bundles, several protocols under one proposal number, are passed over.
    Raises: NoProposalChosen.
    """
    if offered.doi == DOI_IPSEC:
        for proposal, transform in _alternatives(offered, policy.protocol):
            suite = _phase2_suite(proposal.protocol, transform)
            if suite is not None and _phase2_allowed(policy, suite):
                ours = replace(proposal, spi=spi, transforms=(transform,))
                answer = replace(offered, proposals=(ours,))
                return Phase2Choice(suite=suite, answer=answer, peer_spi=proposal.spi)
    raise NoProposalChosen("no quick mode proposal of the peer is acceptable")


def accept_phase2(offered: SecurityAssociation, answer: SecurityAssociation) -> Phase2Choice:
    """What the responder chose; AlteredProposal unless it is one of our transforms, unmodified."""
    protocol = offered.proposals[0].protocol
    chosen, transform = _accepted(offered, answer, protocol)
    suite = _phase2_suite(protocol, transform)
    if suite is None or len(chosen.spi) != len(offered.proposals[0].spi):
        raise AlteredProposal(f"proposal {chosen.number} has not the attributes that were offered")
    return Phase2Choice(suite=suite, answer=answer, peer_spi=chosen.spi)


# --- both -----------------------------------------------------------------------------------------------------


def _alternatives(offered: SecurityAssociation, protocol: int) -> Iterator[tuple[Proposal, Transform]]:
    """Every transform of this protocol that stands alone under its proposal number, in order."""
    numbers = [proposal.number for proposal in offered.proposals]
    for proposal in offered.proposals:
        if proposal.protocol == protocol and numbers.count(proposal.number) == 1:
            for transform in proposal.transforms:
                yield proposal, transform


def _accepted(
    offered: SecurityAssociation, answer: SecurityAssociation, protocol: int
) -> tuple[Proposal, Transform]:
    """The one proposal and transform of an answer, after the check that we offered it so.

    Numbers need not be kept (RFC 2408 section 4.2 says "should"), nor the order of attributes; their values
    must be.
    """
    if offered.doi != answer.doi or len(answer.proposals) != 1 or len(answer.proposals[0].transforms) != 1:
        raise AlteredProposal("one transform of one proposal was to be chosen")
    chosen = answer.proposals[0]
    transform = chosen.transforms[0]
    same = _same_as(transform)
    ours = (each for _, each in _alternatives(offered, protocol))
    if chosen.protocol != protocol or not any(map(same, ours)):
        raise AlteredProposal(f"proposal {chosen.number} was not offered like that")
    return chosen, transform


def _same_as(transform: Transform) -> Callable[[Transform], bool]:
    def key(each: Transform) -> tuple[int, list[tuple[int, bytes, bool]]]:
        return each.id, sorted((item.type, item.value, item.short) for item in each.attributes)

    due = key(transform)
    return lambda each: key(each) == due
