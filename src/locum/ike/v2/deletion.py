"""INFORMATIONAL exchanges: deletion of CHILD_SAs and of the IKE SA, signs of life, errors (RFC 7296 section 1.4).

Never decides when: timers and drivers do.
"""

from __future__ import annotations

from collections.abc import Sequence

from locum.ike.payloads2 import MAX_SPIS, Delete, Notify, Payload
from locum.ike.registry import ExchangeType, NotifyType2, ProtocolId
from locum.ike.v2.core import Core, End
from locum.ike.v2.entries import Entry, Progress
from locum.ike.v2.messages import Content
from locum.ike.v2.steps import Answering, Task, exchange

#: What deletes the IKE SA itself.
DELETE_SA = Delete(protocol=ProtocolId.IKE)

#: Errors that a peer reports in a request of its own, and that end the SA (RFC 7296 sections 2.21.2 and 2.21.3).
FATAL = frozenset({NotifyType2.AUTHENTICATION_FAILED, NotifyType2.INVALID_SYNTAX})


# --- ours -------------------------------------------------------------------------------------------------


def check_liveness(core: Core) -> Task:
    """Ask for a sign of life: that there is an answer is all."""
    yield from exchange(ExchangeType.INFORMATIONAL, (), _whatever)


def delete_children(core: Core, entries: Sequence[Entry], reason: str) -> Task:
    """Delete CHILD_SAs at both ends; ours go when the peer has answered, for packets may be on their way."""
    entries = [entry for entry in entries if entry in core.children]
    if not entries:
        return
    for entry in entries:
        entry.progress = Progress.DELETING
    core.child_exchanges += 1
    try:
        yield from exchange(ExchangeType.INFORMATIONAL, tuple(entry.delete for entry in entries), _whatever)
    finally:
        core.child_exchanges -= 1
    for entry in entries:
        core.remove_child(entry, reason)


def delete_unwanted(core: Core, unwanted: Delete) -> Task:
    """Delete what the peer has made and we could not."""
    yield from exchange(ExchangeType.INFORMATIONAL, (unwanted,), _whatever)


def say_farewell(core: Core, farewell: tuple[Payload, ...]) -> Task:
    """Tell the peer that the SA is over; there is nothing to be done about what it answers."""
    yield from exchange(ExchangeType.INFORMATIONAL, farewell, _whatever)


def _whatever(content: Content) -> Content:
    return content


# --- the peer's -------------------------------------------------------------------------------------------


def answer(core: Core, request: Content) -> Answering:
    """Do what the peer asks for, and say which halves of ours are gone with that."""
    deleted: dict[int, list[bytes]] = {}
    for payload in request.all(Delete):
        if payload.protocol == ProtocolId.IKE:
            core.end = End(None, "deleted by the peer")
            continue
        for spi in payload.spis:
            entry = core.children.by_outbound(payload.protocol, spi)
            # Section 2.25.1: what we are deleting ourselves, the peer has our word for already.
            if entry is None or entry.progress is Progress.DELETING:
                if entry is None and core.child_exchanges and len(core.deleted_early) < MAX_SPIS:
                    # The response that makes it may have been overtaken.
                    core.deleted_early.add((payload.protocol, spi))
                continue
            deleted.setdefault(payload.protocol, []).append(entry.inbound_spi)
            core.remove_child(entry, "deleted by the peer")
    for notify in request.all(Notify):
        _heed(core, request, notify)
    yield from ()
    return tuple(Delete(protocol=protocol, spis=tuple(spis)) for protocol, spis in deleted.items())


def _heed(core: Core, request: Content, notify: Notify) -> None:
    if notify.notify_type in FATAL:
        core.end = End(request.error, "the peer reports an error")
