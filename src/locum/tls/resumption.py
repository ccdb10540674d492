"""Which sessions a server lets resume, in both versions, and for how long its tickets are good.

Never knows how a ticket is sealed, nor in which message it travels.
"""

from __future__ import annotations

from locum.tls.client_offer import ClientOffer
from locum.tls.registry import ProtocolVersion
from locum.tls.server_configuration import ClientCertificates, ServerConfiguration
from locum.tls.tickets import TicketState


def open_ticket(
    wishes: ServerConfiguration, offer: ClientOffer, ticket: bytes, *, version: ProtocolVersion, moment: float
) -> TicketState | None:
    """The state of `ticket` if it may be resumed at `moment`, in seconds; None asks for a full handshake.

    The name must be the same again (RFC 6066 section 3), a client certificate must have been shown where one is
    required, and the last full handshake must not be too long ago, however often it was resumed since.
    """
    if wishes.tickets is None:
        return None
    state = wishes.tickets.open(ticket, now=moment, context=wishes.resumption_context)
    if state is None or not (
        state.version is version
        and state.server_name == offer.server_name
        and moment < state.authenticated_at + wishes.session_lifetime
        and (bool(state.peer_identity) or wishes.client_certificates is not ClientCertificates.REQUIRED)
    ):
        return None
    return state


def ticket_lifetime(wishes: ServerConfiguration, *, authenticated_at: float, moment: float) -> int:
    """Seconds for which a ticket made at `moment` can be used; 0 when none can be made."""
    if wishes.tickets is None:
        return 0
    left = int(authenticated_at + wishes.session_lifetime - moment)
    return max(0, min(wishes.tickets.lifetime(moment), left))
