"""A key exchange under an SA that is established: perfect forward secrecy, and the rekeying of an IKE SA.

Never authenticates anybody: the SA that protects the exchange has done that, and the terminal makes the keys (A9).
The terminal says whom the peer has proven to be, so that one whom policy denies by now gets no new keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from locum.authority import ike_key_exchange
from locum.authority.databases import Decision
from locum.authority.ike_identities import Identification
from locum.authority.ike_key_exchange import KeyExchange
from locum.authority.ike_session import IkeSession
from locum.authority.session import Databases
from locum.errors import Misbehaved, Refused
from locum.handshake import Request, Response
from locum.ike.algorithms import Group
from locum.ike.operations import (
    IkeStartRequest,
    IkeStartResponse,
    PublicValueRequest,
    PublicValueResponse,
    SharedSecretRequest,
    SharedSecretResponse,
)
from locum.ike.registry import ADDITIONAL_KEY_EXCHANGES

#: How an identity begins that is a pinned key.
_PIN = "pin:"

#: Key exchanges of one session: the one that every CREATE_CHILD_SA may have, and the additional ones.
MAX_EXCHANGES = 1 + len(ADDITIONAL_KEY_EXCHANGES)


class FurtherSession(IkeSession):
    """One CREATE_CHILD_SA with its IKE_FOLLOWUP_KEs, or one quick mode."""

    __slots__ = ("_exchange",)

    #: An initiator's public value may come again, once, in the group that the responder wants.
    repeated: ClassVar[dict[type[Request], int]] = {
        PublicValueRequest: MAX_EXCHANGES + 1,
        SharedSecretRequest: MAX_EXCHANGES,
    }

    def __init__(self, databases: Databases, terminal: str) -> None:
        super().__init__(databases, terminal)
        self._exchange: KeyExchange | None = None

    @property
    def _own_name(self) -> str:
        return ""

    def _name_peer(self, text: str) -> Identification | None:
        return None if text.startswith(_PIN) else super()._name_peer(text)

    def _foresee(self, request: IkeStartRequest) -> Decision:
        """What policy says by now of whom the peer has proven to be.

        A verdict names a pinned key without the identity that it was shown with. That is known where the key is
        pinned for one peer alone; else only rules that deny the key, or everybody, count.
        """
        databases, address = self._databases, request.peer_address
        if self._wanted is not None:
            return databases.policy.decide(self._terminal, (self._wanted.text,), address)
        proven = request.remote_identity
        if not proven:
            return super()._foresee(request)
        pins = [pin for pin in databases.authenticator.pins if pin.identity == proven]
        if not pins:
            return Decision(False, f"the peer's key {proven} is not pinned any more")
        peers = [pattern for pin in pins for pattern in pin.peers]
        if len(peers) == 1 and peers[0].is_identity:
            return databases.policy.decide(self._terminal, (proven, str(peers[0])), address)
        return databases.policy.foresee(self._terminal, address, proven)

    def _forget(self) -> None:
        super()._forget()
        if self._exchange is not None:
            self._exchange.discard()
            self._exchange = None

    def _negotiate(self, request: IkeStartRequest) -> IkeStartResponse:
        if request.sa or request.initiator_sa:
            raise Refused("a further exchange is negotiated by the terminal alone")
        return IkeStartResponse()

    def _group(self, code: int) -> Group:
        group = ike_key_exchange.find(code)
        if group not in self._databases.ike_options.groups:
            raise Refused(f"key exchange in {group.name} is not allowed")
        return group

    def _public_value(self, request: PublicValueRequest) -> PublicValueResponse:
        if not self._request.initiator:
            raise Refused("a responder's public value is an answer")
        if self._exchange is not None:
            if SharedSecretRequest in self._performed or self._exchange.group.id == request.group:
                raise Refused("this key exchange has been begun")
            self._exchange.discard()
        self._exchange = KeyExchange(self._group(request.group))
        return PublicValueResponse(public_value=self._exchange.public_value)

    def _shared_secret(self, request: SharedSecretRequest) -> SharedSecretResponse:
        group = self._group(request.group)
        if not self._request.initiator:
            value, secret = ike_key_exchange.respond(group, request.public_value)
            return SharedSecretResponse(secret=secret, public_value=value, more=request.more)
        exchange = self._due(self._exchange, request)
        if exchange.group is not group:
            raise Misbehaved(f"the peer's public value is in {group.name}, not in {exchange.group.name}")
        self._exchange = None
        return SharedSecretResponse(secret=exchange.complete(request.public_value), more=request.more)

    handlers: ClassVar[dict[type[Request], Callable[[Any, Any], Response]]] = {
        IkeStartRequest: IkeSession._begin,
        PublicValueRequest: _public_value,
        SharedSecretRequest: _shared_secret,
    }
