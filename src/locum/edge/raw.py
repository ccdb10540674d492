"""Bound operations where only raw ones are to be had: an edge with raw permission, or a foreign key server (X5).

Never signs anything but what the same bound operation would: it is put together and checked here instead.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable

from locum.crypto.asymmetric.signatures import SCHEMES
from locum.errors import Refused
from locum.keyless.operations import (
    CertificateVerify,
    ClientVerify,
    Decrypt,
    KeyOperation,
    MasterSecret,
    ServerKeyExchange,
    Sign,
)
from locum.keys.bound import (
    certificate_verify_content,
    client_verify_content,
    master_secret_seed,
    server_key_exchange_content,
)
from locum.keys.port import KeyHolder
from locum.tls import schedule

#: RFC 5246 section 7.4.7.1: a pre-master secret, which begins with the version that the client asked for.
_PRE_MASTER_LENGTH = 48
_VERSION_LENGTH = 2


class RawHolder:
    """A `KeyHolder` that has every operation performed as `Sign` or `Decrypt` by another one."""

    def __init__(self, holder: KeyHolder, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self.public_key = holder.public_key
        self._holder = holder
        self._random = random

    def __repr__(self) -> str:
        return f"<RawHolder over {self._holder!r}>"

    async def perform(self, operation: KeyOperation) -> bytes:
        """As `KeyHolder.perform`."""
        match operation:
            case CertificateVerify():
                return await self._sign(operation.scheme, certificate_verify_content(operation))
            case ServerKeyExchange():
                return await self._sign(operation.scheme, server_key_exchange_content(operation))
            case ClientVerify():
                return await self._sign(operation.scheme, client_verify_content(operation))
            case MasterSecret():
                return await self._master_secret(operation)
            case _:
                return await self._holder.perform(operation)

    async def _sign(self, name: str, content: bytes) -> bytes:
        scheme = SCHEMES.get(name)
        if scheme is None:
            raise Refused(f"the signature scheme {name} is not implemented")
        if scheme.hash is None:
            return await self._holder.perform(Sign(name, content, prehashed=False))
        return await self._holder.perform(Sign(name, hashlib.new(scheme.hash.name, content).digest()))

    async def _master_secret(self, operation: MasterSecret) -> bytes:
        """RFC 5246 section 7.4.7.1: with a secret of another form the handshake fails later, as any other does."""
        algorithm, seed = master_secret_seed(operation)
        unknown = self._random(_PRE_MASTER_LENGTH)
        try:
            message = await self._holder.perform(Decrypt(operation.ciphertext))
        except Refused:
            # A key server of others may refuse bad padding, and the client must not see that.
            message = b""
        found = message.ljust(_PRE_MASTER_LENGTH, b"\0")[:_PRE_MASTER_LENGTH]
        right_length = len(message) == _PRE_MASTER_LENGTH
        version = operation.client_version.to_bytes(_VERSION_LENGTH, "big")
        right_version = hmac.compare_digest(found[:_VERSION_LENGTH], version)
        pre_master = (unknown, found)[right_length & right_version]
        return schedule.master_secret12(algorithm, pre_master, seed, operation.extended)
