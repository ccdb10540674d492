"""CREATE_CHILD_SA for CHILD_SAs: another one, or the successor of one (RFC 7296 sections 1.3.1 and 1.3.3).

Never touches the IKE SA's own keys. Where both ends rekey the same CHILD_SA at once, the lowest nonce says which
of the successors has to go (section 2.8.1).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import field
from functools import partial
from typing import Any

from locum.errors import LocumError
from locum.ike.errors import Busy, ChildSaNotFound, IllegalValue, NoAdditionalSas, NotifyReceived
from locum.ike.keying2 import child_keys
from locum.ike.payloads2 import Delete, Nonce, Notify, Payload
from locum.ike.registry import ExchangeType, NotifyType2
from locum.ike.suites import ChildKeys, ChildSuite, Nonces
from locum.ike.v2 import key_exchanges, negotiation
from locum.ike.v2.core import NONCE_LENGTH, Core
from locum.ike.v2.deletion import delete_children
from locum.ike.v2.entries import MAX_CHILDREN, Entry, Progress
from locum.ike.v2.key_exchanges import Half
from locum.ike.v2.messages import Content
from locum.ike.v2.negotiation import Agreement, Offer
from locum.ike.v2.steps import Answering, Task, exchange
from locum.values import dataclass

#: A peer that is busy is asked for another CHILD_SA so many times.
MAX_TRIES = 8


@dataclass(frozen=True, slots=True)
class _Made:
    """A CHILD_SA that an exchange of ours made, and the nonces of that exchange."""

    entry: Entry
    nonces: Nonces = field(repr=False)


def lowest(nonces: Nonces) -> bytes:
    """The lower of both, compared octet by octet (RFC 7296 section 2.8.1)."""
    return min(nonces.initiator, nonces.responder)


# --- ours -------------------------------------------------------------------------------------------------


def create_child(core: Core, tries: int = MAX_TRIES) -> Task:
    """Make another CHILD_SA for the connection's traffic; a peer that is busy is asked so many times."""
    try:
        yield from _make(core, None)
    except LocumError as error:
        if _is_temporary(error) and tries > 1:
            core.later.append((core.retry_moment(), partial(create_child, tries=tries - 1)))
        else:
            core.child_failed(error)


def _is_temporary(error: LocumError) -> bool:
    """The peer is busy with an exchange that collides with ours (RFC 7296 section 2.25)."""
    return isinstance(error, NotifyReceived) and error.notify_type == NotifyType2.TEMPORARY_FAILURE


def rekey_child(core: Core, entry: Entry) -> Task:
    """Make a successor of a CHILD_SA, then delete the one of the two, or three, that is not needed any more."""
    if entry not in core.children or entry.progress is not Progress.INSTALLED:
        return
    entry.progress = Progress.REKEYING
    try:
        made = yield from _make(core, entry)
    except LocumError as error:
        yield from _not_rekeyed(core, entry, error)
        return
    rival = entry.rival
    if rival is not None and rival in core.children and lowest(made.nonces) < entry.rival_nonce:
        entry.progress = Progress.REPLACED
        yield from delete_children(core, (made.entry,), "both ends have made a successor")
    else:
        yield from delete_children(core, (entry,), "rekeyed")


def _not_rekeyed(core: Core, entry: Entry, error: LocumError) -> Task:
    if entry.rival is not None:
        # The peer's successor is in force, and the peer deletes the old one.
        entry.progress = Progress.REPLACED
    elif isinstance(error, NotifyReceived) and error.notify_type == NotifyType2.CHILD_SA_NOT_FOUND:
        # Section 2.25.1: there is nothing to rekey at the other end.
        core.remove_child(entry, "the peer does not know it")
        yield from create_child(core)
    else:
        # It is tried again as long as it lives.
        entry.progress, entry.rekey_at = Progress.INSTALLED, core.retry_moment()
        if not _is_temporary(error):
            core.child_failed(error, entry)


def _make(core: Core, replaced: Entry | None) -> Generator[Any, Any, _Made]:
    core.child_exchanges += 1
    try:
        offer, nonce = negotiation.offer(core), core.random(NONCE_LENGTH)
        half, response = yield from _ask(core, offer, nonce, replaced)
        try:
            agreement, keys, nonces = yield from _agree(core, offer, nonce, half, response)
            made = _Made(core.add_child(agreement.terms, keys, replaced), nonces)
        except LocumError:
            core.unwanted.append(Delete(protocol=core.connection.child.protocol, spis=(offer.spi_bytes,)))
            raise
        if (made.entry.protocol, made.entry.outbound_spi) in core.deleted_early:
            core.remove_child(made.entry, "deleted by the peer")
        return made
    finally:
        core.child_exchanges -= 1
        core.deleted_early.clear()


def _ask(
    core: Core, offer: Offer, nonce: bytes, replaced: Entry | None
) -> Generator[Any, Any, tuple[Half, Content]]:
    """The exchange, once more where the responder wants another group."""
    groups = core.connection.child.groups
    half = yield from key_exchanges.begin(core, groups[0] if groups else None)
    while True:
        payloads = (*_rekey_notify(replaced), offer.sa, Nonce(data=nonce), *half.payloads, *offer.traffic)
        response = yield from exchange(ExchangeType.CREATE_CHILD_SA, payloads, accept_group)
        if response.notify(NotifyType2.INVALID_KE_PAYLOAD) is None:
            return half, response
        half = yield from key_exchanges.begin_again(core, half, response, groups)


def accept_group(response: Content) -> Content:
    """Raises: NotifyReceived for every error but that another group is wanted."""
    if response.notify(NotifyType2.INVALID_KE_PAYLOAD) is None:
        response.raise_error()
    return response


def _rekey_notify(replaced: Entry | None) -> tuple[Payload, ...]:
    if replaced is None:
        return ()
    notify_type = NotifyType2.REKEY_SA
    return (Notify(notify_type=notify_type, protocol=replaced.protocol, spi=replaced.inbound_spi),)


def _agree(
    core: Core, offer: Offer, nonce: bytes, half: Half, response: Content
) -> Generator[Any, Any, tuple[Agreement, ChildKeys, Nonces]]:
    agreement = negotiation.accept(core, offer, response)
    suite = agreement.suite
    groups = key_exchanges.groups_of(suite.group, suite.additional)
    if groups and groups[0].id != half.group:
        raise IllegalValue(f"{groups[0].name} was chosen, which our KE payload is not in")
    secrets = yield from key_exchanges.complete(core, groups, response)
    nonces = Nonces(initiator=nonce, responder=response.one(Nonce).data)
    return agreement, _keys(core, suite, nonces, secrets), nonces


def _keys(core: Core, suite: ChildSuite, nonces: Nonces, secrets: tuple[bytes, ...]) -> ChildKeys:
    first = secrets[0] if secrets else b""
    return child_keys(core.negotiated.prf, suite, core.sk_d, nonces, first, secrets[1:])


# --- the peer's -------------------------------------------------------------------------------------------


def answer(core: Core, request: Content) -> Answering:
    """Make the CHILD_SA that the peer asks for.

    Raises: Busy (section 2.25), NoAdditionalSas, ChildSaNotFound, InvalidKeyExchange, NoProposalChosen,
    TrafficSelectorsUnacceptable, and what the authority raises.
    """
    _check_moment(core)
    replaced = _replaced(core, request)
    # Each may have a successor beside it; a peer that never deletes what it has replaced does not get ever more.
    room = MAX_CHILDREN if replaced is None else 2 * MAX_CHILDREN
    if len(core.children) >= room:
        raise NoAdditionalSas(f"there are {room} CHILD_SAs already")
    agreement = negotiation.choose(core, request)
    suite = agreement.suite
    groups = key_exchanges.groups_of(suite.group, suite.additional)
    key_exchanges.check_group(groups, request)
    nonces = Nonces(initiator=request.one(Nonce).data, responder=core.random(NONCE_LENGTH))
    before = (*agreement.sa, Nonce(data=nonces.responder))
    secrets, payloads = yield from key_exchanges.answer(core, groups, request, before, agreement.traffic)
    # While the authority was at work, or the peer went on with IKE_FOLLOWUP_KE, things may have changed.
    _check_moment(core)
    if replaced is not None and replaced not in core.children:
        raise ChildSaNotFound(replaced.protocol, replaced.outbound_spi)
    entry = core.add_child(agreement.terms, _keys(core, suite, nonces, secrets), replaced)
    if replaced is not None and replaced.progress is Progress.REKEYING:
        replaced.rival, replaced.rival_nonce = entry, lowest(nonces)
    elif replaced is not None:
        replaced.progress = Progress.REPLACED
    return payloads


def _check_moment(core: Core) -> None:
    if core.rekeying is not None or core.closing or core.successor is not None:
        raise Busy("the IKE SA is being rekeyed or closed")
    if not core.sk_d:
        raise NoAdditionalSas("the keys of further CHILD_SAs are not here to be made")


def _replaced(core: Core, request: Content) -> Entry | None:
    """The CHILD_SA that is to be rekeyed, None where another one is to be made."""
    notify = request.notify(NotifyType2.REKEY_SA)
    if notify is None:
        return None
    entry = core.children.by_outbound(notify.protocol, notify.spi)
    if entry is None and core.child_exchanges:
        # It may be the one that we are making, and the response is on its way.
        raise Busy("a CHILD_SA is being made or deleted")
    if entry is None:
        raise ChildSaNotFound(notify.protocol, notify.spi)
    if entry.progress in (Progress.DELETING, Progress.REPLACED):
        raise Busy("the CHILD_SA is being deleted")
    return entry
