"""The first requests of an IKE session by hand: what a terminal asks before it has heard anything of its peer."""

from __future__ import annotations

from locum.handshake import Request
from locum.ike.operations import Exchange, IkeStartRequest, IntroduceRequest, PublicValueRequest
from locum.ike.policy import IkePolicy, Phase1Policy
from locum.ike.proposals1 import offer_phase1
from locum.ike.proposals2 import offer_ike
from locum.ike.registry import AuthenticationMethod1
from locum.wire.cursor import Writer


def ike_offer() -> bytes:
    """An SA payload of IKEv2 with everything."""
    writer = Writer()
    offer_ike(IkePolicy()).write(writer)
    return writer.getvalue()


def psk_opening(peer: str) -> tuple[Request, ...]:
    """The batch that begins aggressive mode with a pre-shared key: answered only where there is one for `peer`."""
    writer = Writer()
    offer_phase1(Phase1Policy(methods=(AuthenticationMethod1.PRE_SHARED_KEY,))).write(writer)
    start = IkeStartRequest(
        exchange=Exchange.AGGRESSIVE, initiator=True, sa=writer.getvalue(), remote_identity=peer
    )
    return start, PublicValueRequest(group=19), IntroduceRequest()
