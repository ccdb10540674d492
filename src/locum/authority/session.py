"""What every session with a `LocalAuthority` is made of: the databases it asks, and the order it insists on.

Never knows a protocol. Nothing comes before the start or after the end, and any failure is the end, which forgets
every secret; which operation may follow which is for the protocol's own session to say.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeVar

from locum.authority.client_identities import ClientIdentities
from locum.authority.databases import Identity, Policy, PolicyRule, PostquantumSecret, SharedSecret, TrustMaterial
from locum.authority.ike_authentication import IkeAuthenticator
from locum.authority.ike_negotiation import IkeOptions, Negotiator
from locum.authority.ike_secrets import PostquantumSecrets, SharedSecrets
from locum.authority.selection import LocalOptions
from locum.errors import Refused
from locum.handshake import Opening, Request, Response

T = TypeVar("T")


class Databases:
    """The databases of A5 in the form that sessions use, with the clock and the randomness that go with them.

    Whoever changes them puts other ones in the place of `authenticator`, `policy`, `identities`, `secrets` and
    `ppks`; sessions look at them anew in every operation. The arguments are those of `LocalAuthority`.
    """

    def __init__(
        self,
        *,
        trust: TrustMaterial,
        policy: Iterable[PolicyRule],
        identities: Iterable[Identity] = (),
        secrets: Iterable[SharedSecret] = (),
        ppks: Iterable[PostquantumSecret] = (),
        options: LocalOptions | None = None,
        ike_options: IkeOptions | None = None,
        now: Callable[[], float],
        random: Callable[[int], bytes] = os.urandom,
        refresh: Callable[[], bool] = lambda: False,
    ) -> None:
        self.options = options or LocalOptions()
        self.ike_options = ike_options or IkeOptions()
        self.negotiator = Negotiator(self.ike_options)
        self.now = now
        self.random = random
        self.refresh = refresh
        self.authenticator = IkeAuthenticator(trust)
        self.policy = Policy(policy)
        self.identities = ClientIdentities(identities)
        self.secrets = SharedSecrets(secrets)
        self.ppks = PostquantumSecrets(ppks)


class Session(ABC):
    """One handshake. A failed operation ends it: what it held is forgotten and everything later is Refused."""

    #: What performs each kind of request; a request of any other kind is no operation of this protocol.
    handlers: ClassVar[dict[type[Request], Callable[[Any, Any], Response]]]
    protocol: ClassVar[str]
    #: How often each kind may be performed in one session, where that is not once.
    repeated: ClassVar[dict[type[Request], int]] = {}

    __slots__ = ("_batch", "_databases", "_over", "_performed", "_terminal")

    def __init__(self, databases: Databases, terminal: str) -> None:
        self._databases = databases
        self._terminal = terminal
        self._over = False
        self._performed: dict[type[Request], int] = {}
        self._batch: tuple[Request, ...] = ()

    def perform(self, requests: Sequence[Request]) -> tuple[Response, ...]:
        """As `AuthoritySession.perform`.

        Raises: Refused for an operation out of turn or a peer that policy denies from the start; Misbehaved,
        Incompatible or DecodeError when the peer's key exchange is at fault; and what a `PrivateKey` raises.
        """
        responses: list[Response] = []
        self._batch = tuple(requests)
        try:
            for request in requests:
                response = self._perform(request)
                responses.append(response)
                if response.ends_batch:
                    self.close()
                    break
                if response.last:
                    self.close()
        except BaseException:
            self.close()
            raise
        finally:
            self._batch = ()
        return tuple(responses)

    def close(self) -> None:
        """Forget everything; harmless when done before."""
        if not self._over:
            self._over = True
            self._forget()

    @property
    def over(self) -> bool:
        """True when nothing more can be asked."""
        return self._over

    @property
    @abstractmethod
    def _started(self) -> bool:
        """True when the start has been performed."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop every secret, and with them what they were for."""

    def _perform(self, request: Request) -> Response:
        kind = type(request)
        handler = self.handlers.get(kind)
        if handler is None:
            raise Refused(f"{kind.__name__} is not an operation of {self.protocol}")
        if self._over:
            raise Refused(f"{kind.__name__}: the session is over")
        times = self._performed.get(kind, 0)
        if times >= self.repeated.get(kind, 1):
            raise Refused(f"{kind.__name__}: performed in this session before")
        if not self._started and not isinstance(request, Opening):
            raise Refused(f"{kind.__name__}: the session has not been started")
        self._performed[kind] = times + 1
        return handler(self, request)

    @staticmethod
    def _due(value: T | None, request: Request) -> T:
        """`value`, which earlier operations must have left behind."""
        if value is None:
            raise Refused(f"{type(request).__name__}: its turn has not come, or is over")
        return value

    @staticmethod
    def _check_length(what: str, value: bytes, length: int) -> None:
        if len(value) != length:
            raise Refused(f"a {what} of {len(value)} bytes, not {length}")
