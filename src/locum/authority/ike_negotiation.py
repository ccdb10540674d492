"""The chosen method of IKE (A1 start): what of an SA payload is offered, chosen or accepted by the options.

Knows SA payloads and policies of both versions; no terminal, no peer and no key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field, replace
from functools import lru_cache
from typing import Protocol, TypeVar

from locum.authority.ike_key_exchange import PERFORMED
from locum.errors import ConfigurationError
from locum.ike import algorithms as alg
from locum.ike import payloads1, payloads2
from locum.ike.algorithms import Group
from locum.ike.policy import IkePolicy, Phase1Policy
from locum.ike.proposals1 import accept_phase1, choose_phase1, restrict_phase1
from locum.ike.proposals2 import accept_ike, choose_ike, restrict_ike
from locum.ike.registry import ADDITIONAL_KEY_EXCHANGES, AuthenticationMethod1, TransformType
from locum.ike.suites import IkeSuite, Phase1Suite
from locum.values import dataclass
from locum.wire.cursor import Reader, Writer

#: Negotiations remembered, of SA payloads up to so many bytes: one delegate's peers make few different offers.
_CACHED = 128
_MAX_CACHED_SA = 1024

#: Transforms of IKEv1 that are offered at most.
MAX_OFFERED = 64

#: Additional key exchanges (RFC 9370) that may be agreed on, those against quantum computers first. What is
#: performed of them is what both ends offer, so that every one may also be left out.
_ADDITIONAL: tuple[Group | None, ...] = (
    alg.ML_KEM_768,
    alg.ML_KEM_1024,
    alg.CURVE25519,
    alg.ECP_256,
    alg.ECP_384,
    alg.ECP_521,
    alg.CURVE448,
    alg.MODP_3072,
    alg.MODP_4096,
    alg.MODP_2048,
    None,
)


def _default_policy() -> IkePolicy:
    return IkePolicy(additional=(_ADDITIONAL,) * len(ADDITIONAL_KEY_EXCHANGES))


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeOptions:
    """What an authority lets IKE negotiate; a terminal cuts its own offers down before.

    `legacy_sha1` accepts and makes RSA signatures over SHA-1 (auth method 1 of IKEv2), where a peer knows no
    RFC 7427. `rsa_pss` signs with RSASSA-PSS towards peers that know RFC 7427, else with PKCS#1 v1.5; both are
    accepted. Raises: ConfigurationError for a key exchange that cannot be performed.
    """

    policy: IkePolicy = field(default_factory=_default_policy)
    phase1: Phase1Policy = field(default_factory=lambda: Phase1Policy(methods=tuple(AuthenticationMethod1)))
    legacy_sha1: bool = False
    rsa_pss: bool = True

    @property
    def groups(self) -> frozenset[Group]:
        """Every key exchange that is allowed anywhere, and so in a further exchange."""
        additional = (group for slot in self.policy.additional for group in slot if group is not None)
        return frozenset((*self.policy.groups, *self.phase1.groups, *additional))

    def __post_init__(self) -> None:
        for group in self.groups - PERFORMED:
            raise ConfigurationError(f"the key exchange {group} is not implemented")


@dataclass(frozen=True, slots=True)
class Offer2:
    """An initiator's SA payload of IKEv2, parsed and as bytes, and the first group that it offers."""

    sa: payloads2.SecurityAssociation
    body: bytes
    group: int


@dataclass(frozen=True, slots=True)
class Choice2:
    """What a responder of IKEv2 chose: its algorithms, and the SA payload that says so."""

    suite: IkeSuite
    body: bytes


@dataclass(frozen=True, slots=True)
class Offer1:
    """An initiator's SA payload of IKEv1, parsed and as bytes, with what its first transform says."""

    sa: payloads1.SecurityAssociation
    body: bytes
    first: Phase1Suite


@dataclass(frozen=True, slots=True)
class Choice1:
    """What a responder of IKEv1 chose: its algorithms, and the SA payload that says so."""

    suite: Phase1Suite
    body: bytes


class Negotiator:
    """Negotiates by one `IkeOptions`, and remembers the last small negotiations that came to something.

    Raises, everywhere: DecodeError for a malformed SA payload, NoProposalChosen when nothing is left of it.
    """

    def __init__(self, options: IkeOptions) -> None:
        self._options = options
        self._offer2_remembered = lru_cache(_CACHED)(self._offer2)
        self._choose2_remembered = lru_cache(_CACHED)(self._choose2)
        self._offer1_remembered = lru_cache(_CACHED)(self._offer1)
        self._choose1_remembered = lru_cache(_CACHED)(self._choose1)
        self._checked1_remembered = lru_cache(_CACHED)(self._checked1)

    # --- IKEv2 --------------------------------------------------------------------------------------------

    def offer2(self, sa: bytes) -> Offer2:
        """What an initiator offers of all that it can do."""
        return (self._offer2_remembered if len(sa) <= _MAX_CACHED_SA else self._offer2)(sa)

    def _offer2(self, sa: bytes) -> Offer2:
        offered = restrict_ike(_parse(payloads2.SecurityAssociation.parse, sa), self._options.policy)
        return Offer2(offered, _write(offered), _first_group(offered))

    def choose2(self, sa: bytes, group: int) -> Choice2:
        """What a responder chooses, in the group of the KE payload if that can be."""
        return (self._choose2_remembered if len(sa) <= _MAX_CACHED_SA else self._choose2)(sa, group)

    def _choose2(self, sa: bytes, group: int) -> Choice2:
        offered = _parse(payloads2.SecurityAssociation.parse, sa)
        choice = choose_ike(self._options.policy, offered, preferred_group=group)
        return Choice2(choice.suite, _write(payloads2.SecurityAssociation(proposals=(choice.proposal,))))

    @staticmethod
    def accept2(offer: Offer2, answer: bytes) -> IkeSuite:
        """What the responder chose from `offer`. Raises: AlteredProposal when that was not offered."""
        return accept_ike(offer.sa, _parse(payloads2.SecurityAssociation.parse, answer)).suite

    # --- IKEv1 --------------------------------------------------------------------------------------------

    def offer1(self, sa: bytes, methods: tuple[AuthenticationMethod1, ...], *, single: bool) -> Offer1:
        """What an initiator offers of all that it can do, authenticated by one of `methods`.

        `single`: in aggressive mode the first message contains what depends on group and method, so all
        transforms have those of the first.
        """
        offer = self._offer1_remembered if len(sa) <= _MAX_CACHED_SA else self._offer1
        return offer(sa, methods, single)

    def _offer1(self, sa: bytes, methods: tuple[AuthenticationMethod1, ...], single: bool) -> Offer1:
        policy = replace(self._options.phase1, methods=methods)
        offered = restrict_phase1(_parse(payloads1.SecurityAssociation.parse, sa), policy)
        first = choose_phase1(policy, offered).suite
        if single:
            offered = restrict_phase1(offered, replace(policy, methods=(first.method,), groups=(first.group,)))
        offered = _short(offered)
        return Offer1(offered, _write(offered), first)

    def check_offer1(self, sa: bytes) -> None:
        """See that an SA payload which HASH_I and HASH_R will cover is one, with nothing behind it."""
        (self._checked1_remembered if len(sa) <= _MAX_CACHED_SA else self._checked1)(sa)

    @staticmethod
    def _checked1(sa: bytes) -> None:
        _parse(payloads1.SecurityAssociation.parse, sa)

    def choose1(self, sa: bytes, methods: tuple[AuthenticationMethod1, ...], group: int) -> Choice1:
        """What a responder chooses, authenticated by one of `methods`; in `group`, unless that is 0."""
        return (self._choose1_remembered if len(sa) <= _MAX_CACHED_SA else self._choose1)(sa, methods, group)

    def _choose1(self, sa: bytes, methods: tuple[AuthenticationMethod1, ...], group: int) -> Choice1:
        policy = replace(self._options.phase1, methods=methods)
        if group:
            policy = replace(policy, groups=tuple(each for each in policy.groups if each.id == group))
        choice = choose_phase1(policy, _parse(payloads1.SecurityAssociation.parse, sa))
        return Choice1(choice.suite, _write(choice.answer))

    def allowed_methods(self, possible: Sequence[AuthenticationMethod1]) -> tuple[AuthenticationMethod1, ...]:
        """Of the possible methods of IKEv1 those that the options allow, in their order."""
        return tuple(method for method in self._options.phase1.methods if method in possible)

    @staticmethod
    def accept1(offer: Offer1, answer: bytes) -> Phase1Suite:
        """What the responder chose from `offer`. Raises: AlteredProposal when that was not offered."""
        return accept_phase1(offer.sa, _parse(payloads1.SecurityAssociation.parse, answer)).suite


def _short(offered: payloads1.SecurityAssociation) -> payloads1.SecurityAssociation:
    """The first proposal with as many transforms as fit a datagram; the rest is less preferred."""
    proposal = offered.proposals[0]
    return replace(offered, proposals=(replace(proposal, transforms=proposal.transforms[:MAX_OFFERED]),))


def _first_group(offered: payloads2.SecurityAssociation) -> int:
    """The group that the initiator put first: what it prefers goes into its KE payload."""
    kinds = (each for each in offered.proposals[0].transforms if each.type == TransformType.KEY_EXCHANGE)
    return next(kinds).id


P = TypeVar("P")


def _parse(parse: Callable[[Reader], P], body: bytes) -> P:
    reader = Reader(body)
    parsed = parse(reader)
    reader.finish()
    return parsed


class _Writable(Protocol):
    def write(self, writer: Writer) -> None: ...


def _write(payload: _Writable) -> bytes:
    writer = Writer()
    payload.write(writer)
    return writer.getvalue()
