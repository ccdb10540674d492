"""What a responder makes of an initiator's offer of phase 1, before its authority chooses and after.

Knows SA payloads and a policy. Small offers are remembered with what came of them: peers make few different ones.
"""

from __future__ import annotations

from functools import lru_cache

from locum.ike.payloads1 import SecurityAssociation, body_of
from locum.ike.policy import Phase1Policy
from locum.ike.proposals1 import accept_phase1, restrict_phase1
from locum.ike.suites import Phase1Suite
from locum.wire.cursor import Reader

#: So many of each are remembered, made of SA payloads of so many bytes at most.
_REMEMBERED = 64
_MAX_REMEMBERED = 1024


def cut_down(policy: Phase1Policy, sa: bytes) -> bytes:
    """What may be chosen from the offer in the SA payload with this body, as such a body.

    Raises: DecodeError, NoProposalChosen.
    """
    return (_cut_down_once if len(sa) <= _MAX_REMEMBERED else _cut_down)(policy, sa)


def accept(sa: bytes, answer: bytes) -> Phase1Suite:
    """What the authority's `answer` chooses from `sa`, an offer that was cut down.

    Raises: DecodeError, AlteredProposal.
    """
    return (_accept_once if len(sa) <= _MAX_REMEMBERED else _accept)(sa, answer)


def _cut_down(policy: Phase1Policy, sa: bytes) -> bytes:
    offered = _parse(sa)
    left = restrict_phase1(offered, policy)
    # Where nothing was cut, the very bytes that HASH_I covers need not be sent twice to the authority.
    return sa if left == offered else body_of(left)


def _accept(sa: bytes, answer: bytes) -> Phase1Suite:
    return accept_phase1(_parse(sa), _parse(answer)).suite


def _parse(body: bytes) -> SecurityAssociation:
    reader = Reader(body)
    parsed = SecurityAssociation.parse(reader)
    reader.finish()
    return parsed


_cut_down_once = lru_cache(_REMEMBERED)(_cut_down)
_accept_once = lru_cache(_REMEMBERED)(_accept)
