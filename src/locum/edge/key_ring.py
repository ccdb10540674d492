"""Whose key is where: an edge's own keys, and those that key servers let it use, by public key (C5, C10).

Never holds a key that is at a key server, nor knows what certificates are for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol

from locum.crypto.asymmetric.key_names import names_of
from locum.edge.certificates import AbsentKey
from locum.edge.raw import RawHolder
from locum.errors import ConfigurationError, LocumError
from locum.keyless.errors import RequestFault
from locum.keyless.queries import CertificateAnswer, OfferedKey, TicketsAnswer
from locum.keyless.registry import ErrorCode
from locum.keys.performing import LocalHolder
from locum.keys.port import KeyHolder, PrivateKey

log = logging.getLogger(__name__)


class KeyServers(Protocol):
    """What an edge asks of its key servers; `locum.keys.pool.KeyServerPool` is it."""

    async def keys(self) -> tuple[OfferedKey, ...]:
        """The keys that this edge may use. Raises: LocumError; Refused by a server that has no such question."""
        ...

    def key(self, offered: OfferedKey) -> KeyHolder:
        """The holder of one of them."""
        ...

    async def certificate(self, server_name: str) -> CertificateAnswer:
        """The certificate for a name. Raises: LocumError; Refused when there is none."""
        ...

    async def certificate_names(self) -> tuple[str, ...]:
        """The names that there are certificates for, wildcards among them. Raises: LocumError."""
        ...

    async def tickets(self) -> TicketsAnswer:
        """The root of the ticket keys. Raises: LocumError."""
        ...


#: What a server answers that speaks the published protocol and no more.
_UNKNOWN = frozenset((ErrorCode.BAD_OPCODE, ErrorCode.UNEXPECTED_OPCODE, ErrorCode.FORMAT))


def unknown_question(error: LocumError) -> bool:
    """True when a key server does not know the question, because it is not one of locum."""
    return isinstance(error, RequestFault) and error.code in _UNKNOWN


class KeyRing:
    """Holders by their public keys. Own keys come first: they cost no way.

    A key server that cannot tell what it has, as one that speaks the published protocol and no more, is taken to
    have whatever key is asked for, and to perform raw operations with it (X5).
    """

    def __init__(self, own: Iterable[PrivateKey] = (), *, servers: KeyServers | None = None) -> None:
        self._own = {key.public_key: LocalHolder(key) for key in own}
        self._servers = servers
        self._offered: dict[bytes, OfferedKey] = {}
        self._remote: dict[bytes, KeyHolder] = {}
        self._mute = False
        self._reason = "no key server is configured" if servers is None else "the key server has not answered yet"

    @property
    def own_keys(self) -> tuple[bytes, ...]:
        """The public keys of the keys that are here."""
        return tuple(self._own)

    async def refresh(self) -> bool:
        """Ask the key servers what they have; true when that is something else than before.

        Raises: LocumError when they cannot say; what they said before stays.
        """
        if self._servers is None:
            return False
        try:
            offered = {key.public_key: key for key in await self._servers.keys() if key.server}
        except LocumError as error:
            if not unknown_question(error):
                self._reason = f"the key server cannot be asked: {error}"
                raise
            if self._mute:
                return False
            log.info("the key server does not say which keys it has", extra={"reason": str(error)})
            self._mute = True
            return True
        self._reason = "the key server does not offer this key to this edge"
        if offered == self._offered and not self._mute:
            return False
        self._mute = False
        self._offered = offered
        self._remote = {public_key: self._remote_holder(key) for public_key, key in offered.items()}
        return True

    def holder(self, public_key: bytes) -> KeyHolder:
        """The holder of a key; while there is none, one that says why there is none."""
        found = self._own.get(public_key) or self._remote.get(public_key)
        if found is None and self._mute:
            found = self._remote[public_key] = self._assumed(public_key)
        return found or AbsentKey(public_key, self._reason)

    def _remote_holder(self, offered: OfferedKey) -> KeyHolder:
        assert self._servers is not None
        holder = self._servers.key(offered)
        return holder if offered.bound else RawHolder(holder)

    def _assumed(self, public_key: bytes) -> KeyHolder:
        try:
            names = names_of(public_key)
        except ConfigurationError as error:
            return AbsentKey(public_key, str(error))
        return self._remote_holder(
            OfferedKey(
                name=names.ski.hex(),
                kind=names.kind,
                public_key=public_key,
                ski=names.ski,
                digest=bytes.fromhex(names.digest),
                raw=True,
                bound=False,
            )
        )
