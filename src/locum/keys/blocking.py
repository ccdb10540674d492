"""Keys at key servers for callers that block, as a delegate's identities do: a pool on a thread of its own (C7).

Never used on an event loop whose other work must go on while a key server thinks.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, TypeVar

from cryptography.hazmat.primitives.hashes import Hash

from locum.crypto.asymmetric.signatures import SCHEMES
from locum.errors import Unavailable
from locum.keyless.operations import Decrypt, Sign
from locum.keyless.queries import OfferedKey
from locum.keys.credential import EdgeCredential
from locum.keys.pool import KeyServerPool, PoolOptions
from locum.keys.remote import RemoteKey
from locum.names import HostPort
from locum.runtime import loop_factory

T = TypeVar("T")


class BlockingKeys:
    """The key servers of one credential, for any number of threads."""

    def __init__(
        self,
        credential: EdgeCredential,
        *,
        servers: Sequence[HostPort] | None = None,
        options: PoolOptions | None = None,
    ) -> None:
        """Arguments are those of `KeyServerPool`."""
        self._pool = KeyServerPool(credential, servers=servers, options=options)
        self._runner = asyncio.Runner(loop_factory=loop_factory())
        self._loop = self._runner.get_loop()
        self._lock = threading.Lock()
        self._stop = asyncio.Event()
        self._closed = False
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="key servers", daemon=True)
        self._thread.start()
        self._started.wait()

    def __enter__(self) -> BlockingKeys:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread; what still waits gets Unavailable."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def keys(self) -> tuple[OfferedKey, ...]:
        """The keys that may be used. Raises: Refused, Unavailable, TimedOut."""
        return self.wait(self._pool.keys())

    def key(self, offered: OfferedKey) -> RemotePrivateKey:
        """One of them."""
        return RemotePrivateKey(self, self._pool.key(offered))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` on the thread of the pool. Raises: what it raises, and Unavailable after `close`."""
        with self._lock:
            if self._closed:
                work.close()
                raise Unavailable("the connections to the key servers are closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result()

    def _run(self) -> None:
        with self._runner:
            self._runner.run(self._serve())

    async def _serve(self) -> None:
        async with self._pool:
            self._started.set()
            await self._stop.wait()
        # What `close` has failed still has to tell the threads that wait for it.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)


class RemotePrivateKey:
    """A `PrivateKey` at a key server. It needs the permission for raw operations there."""

    __slots__ = ("_key", "_keys")

    def __init__(self, keys: BlockingKeys, key: RemoteKey) -> None:
        self._keys = keys
        self._key = key

    def __repr__(self) -> str:
        return f"<RemotePrivateKey {self._key.offered.name}>"

    @property
    def public_key(self) -> bytes:
        """The SubjectPublicKeyInfo in DER."""
        return self._key.public_key

    def sign(self, scheme: str, content: bytes, *, prehashed: bool = False) -> bytes:
        """As `PrivateKey.sign`. Only a digest travels where the scheme allows it."""
        known = SCHEMES.get(scheme)
        if known is not None and known.hash is not None and not prehashed:
            state = Hash(known.hash)
            state.update(content)
            content, prehashed = state.finalize(), True
        return self._keys.wait(self._key.perform(Sign(scheme, content, prehashed)))

    def decrypt_pkcs1(self, ciphertext: bytes) -> bytes:
        """As `PrivateKey.decrypt_pkcs1`."""
        return self._keys.wait(self._key.perform(Decrypt(ciphertext)))
