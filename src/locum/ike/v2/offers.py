"""What a responder makes of an initiator's offer in IKE_SA_INIT, before its authority chooses and after.

Knows SA payloads and a policy. Small offers are remembered with what came of them: peers make few different ones.
"""

from __future__ import annotations

from functools import lru_cache

from locum.ike.payloads2 import Payload, SecurityAssociation, Written, body_of
from locum.ike.policy import IkePolicy
from locum.ike.proposals2 import accept_ike, restrict_ike
from locum.ike.suites import IkeSuite
from locum.values import dataclass
from locum.wire.cursor import Reader

#: So many of each are remembered, made of SA payloads of so many bytes at most.
_REMEMBERED = 64
_MAX_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class Offer:
    """What is left of an offer after `restrict_ike`, and the same as the body of an SA payload."""

    sa: SecurityAssociation
    body: bytes


@dataclass(frozen=True, slots=True)
class Choice:
    """The algorithms that were chosen, and the SA payload that says so."""

    suite: IkeSuite
    sa: Payload


def cut_down(policy: IkePolicy, sa: bytes) -> Offer:
    """What may be chosen from the offer in the SA payload with this body.

    Raises: DecodeError, NoProposalChosen.
    """
    return (_cut_down_once if len(sa) <= _MAX_REMEMBERED else _cut_down)(policy, sa)


def accept(policy: IkePolicy, sa: bytes, answer: bytes) -> Choice:
    """What the authority's `answer` chooses from `sa`, an offer that was cut down by `policy`.

    Raises: DecodeError, AlteredProposal.
    """
    return (_accept_once if len(sa) <= _MAX_REMEMBERED else _accept)(policy, sa, answer)


def _cut_down(policy: IkePolicy, sa: bytes) -> Offer:
    offered = restrict_ike(_parse(sa), policy)
    return Offer(offered, body_of(offered))


def _accept(policy: IkePolicy, sa: bytes, answer: bytes) -> Choice:
    choice = accept_ike(cut_down(policy, sa).sa, _parse(answer))
    chosen = SecurityAssociation(proposals=(choice.proposal,))
    return Choice(choice.suite, Written(chosen.type, body_of(chosen)))


def _parse(body: bytes) -> SecurityAssociation:
    reader = Reader(body)
    parsed = SecurityAssociation.parse(reader)
    reader.finish()
    return parsed


_cut_down_once = lru_cache(_REMEMBERED)(_cut_down)
_accept_once = lru_cache(_REMEMBERED)(_accept)
