"""CREATE_CHILD_SA for the IKE SA itself: a successor with new keys, which inherits the CHILD_SAs, at both ends.

Never authenticates anybody anew. Where both ends rekey at once, the lowest nonce says which of the successors has
to go (RFC 7296 sections 1.3.2, 2.8.2 and 2.18).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from locum.errors import LocumError
from locum.ike.algorithms import Group
from locum.ike.errors import Busy, IllegalValue, NoAdditionalSas
from locum.ike.header import NO_SPI, SPI_LENGTH
from locum.ike.keying2 import ike_keys, rekeyed_skeyseed
from locum.ike.payloads2 import KeyExchange, Nonce, Payload, SecurityAssociation
from locum.ike.proposals2 import IkeChoice, accept_ike, choose_ike, offer_ike
from locum.ike.registry import ExchangeType, NotifyType2
from locum.ike.suites import Nonces
from locum.ike.v2 import key_exchanges
from locum.ike.v2.child_exchanges import accept_group, lowest
from locum.ike.v2.core import NONCE_LENGTH, Core, End, Rekeying, Successor
from locum.ike.v2.deletion import DELETE_SA
from locum.ike.v2.key_exchanges import Half
from locum.ike.v2.messages import Content
from locum.ike.v2.steps import Answering, Task, exchange

# --- ours -------------------------------------------------------------------------------------------------


def rekey(core: Core) -> Task:
    """Make a successor and delete this SA; a failure is tried again later, as long as the SA lives."""
    if core.successor is not None:
        return
    rekeying = core.rekeying = Rekeying()
    try:
        successor, nonces = yield from _make(core)
    except LocumError:
        core.rekeying = None
        core.rekey_at = core.retry_moment()
        if rekeying.rival is not None:
            core.succeed(rekeying.rival)
        return
    core.rekeying = None
    if rekeying.rival is not None and lowest(nonces) < rekeying.rival_nonce:
        successor.retire(now=core.now)
        # The peer, which made it, deletes this SA.
        core.succeed(rekeying.rival)
        return
    core.succeed(successor)
    core.end = End(None, "rekeyed", (DELETE_SA,))


def _make(core: Core) -> Generator[Any, Any, tuple[Successor, Nonces]]:
    policy = core.connection.ike
    own_spi, nonce = core.random(SPI_LENGTH), core.random(NONCE_LENGTH)
    offered = offer_ike(policy, spi=own_spi)
    half = yield from key_exchanges.begin(core, policy.groups[0])
    while True:
        payloads: tuple[Payload, ...] = (offered, Nonce(data=nonce), *half.payloads)
        response = yield from exchange(ExchangeType.CREATE_CHILD_SA, payloads, accept_group)
        if response.notify(NotifyType2.INVALID_KE_PAYLOAD) is None:
            break
        half = yield from key_exchanges.begin_again(core, half, response, policy.groups)
    choice = accept_ike(offered, response.one(SecurityAssociation))
    groups = _groups(choice, half)
    secrets = yield from key_exchanges.complete(core, groups, response)
    nonces = Nonces(initiator=nonce, responder=response.one(Nonce).data)
    return _successor(core, choice, nonces, secrets, own_spi, initiator=True), nonces


def _groups(choice: IkeChoice, half: Half) -> Sequence[Group]:
    if choice.peer_spi == NO_SPI:
        raise IllegalValue("an SPI of zero for a rekeyed IKE SA")
    groups = key_exchanges.groups_of(choice.suite.group, choice.suite.additional)
    if groups[0].id != half.group:
        raise IllegalValue(f"{groups[0].name} was chosen, which our KE payload is not in")
    return groups


def _successor(
    core: Core, choice: IkeChoice, nonces: Nonces, secrets: tuple[bytes, ...], own_spi: bytes, *, initiator: bool
) -> Successor:
    seed = rekeyed_skeyseed(core.negotiated.prf, core.sk_d, nonces, secrets[0], secrets[1:])
    spis = (own_spi, choice.peer_spi) if initiator else (choice.peer_spi, own_spi)
    keys = ike_keys(choice.suite, seed, nonces, *spis)
    return core.succession(
        core.sa, choice.suite, keys, own_spi=own_spi, peer_spi=choice.peer_spi, initiator=initiator
    )


# --- the peer's -------------------------------------------------------------------------------------------


def answer(core: Core, request: Content) -> Answering:
    """Make the successor that the peer asks for.

    Raises: Busy (section 2.25.2), NoAdditionalSas where SK_d is not here, InvalidKeyExchange, NoProposalChosen.
    """
    _check_moment(core)
    ke = request.one(KeyExchange)
    own_spi = core.random(SPI_LENGTH)
    choice = choose_ike(
        core.connection.ike, request.one(SecurityAssociation), spi=own_spi, preferred_group=ke.group
    )
    if choice.peer_spi == NO_SPI:
        raise IllegalValue("an SPI of zero for a rekeyed IKE SA")
    groups = key_exchanges.groups_of(choice.suite.group, choice.suite.additional)
    key_exchanges.check_group(groups, request)
    nonces = Nonces(initiator=request.one(Nonce).data, responder=core.random(NONCE_LENGTH))
    before = (SecurityAssociation(proposals=(choice.proposal,)), Nonce(data=nonces.responder))
    secrets, payloads = yield from key_exchanges.answer(core, groups, request, before, ())
    _check_moment(core)
    successor = _successor(core, choice, nonces, secrets, own_spi, initiator=False)
    if core.rekeying is not None:
        core.rekeying.rival, core.rekeying.rival_nonce = successor, lowest(nonces)
    else:
        core.succeed(successor)
    return payloads


def _check_moment(core: Core) -> None:
    if core.closing or core.successor is not None or core.child_exchanges:
        raise Busy("the IKE SA is being closed, or a CHILD_SA of it made or deleted")
    if core.rekeying is not None and core.rekeying.rival is not None:
        raise Busy("the peer has rekeyed the IKE SA already")
    if not core.sk_d:
        raise NoAdditionalSas("the keys of a further IKE SA are not here to be made")
