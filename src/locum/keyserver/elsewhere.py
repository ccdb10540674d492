"""Keys that are not in the store: in a directory, in a token, and at other key servers (X6, C7).

Never decides who may use them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from locum.errors import LocumError
from locum.keyless.operations import KeyOperation
from locum.keyless.queries import OfferedKey
from locum.keys.credential import EdgeCredential
from locum.keys.directory import KeyDirectory
from locum.keys.performing import LocalHolder
from locum.keys.pool import KeyServerPool, PoolOptions
from locum.keys.port import PrivateKey
from locum.keyserver.keyring import HeldKey, held_elsewhere, held_here

log = logging.getLogger(__name__)

#: Seconds between two looks at which keys another key server offers, while it answers, and while it does not.
LOOK_SECONDS = 30.0
RETRY_SECONDS = 1.0


class InThreads:
    """A `KeyHolder` whose key makes whoever asks wait: others wait for it, the event loop does not."""

    def __init__(self, key: PrivateKey, executor: Executor) -> None:
        """Raises: Incompatible for a key that nothing here can sign with."""
        self._holder = LocalHolder(key)
        self._executor = executor

    @property
    def public_key(self) -> bytes:
        """The SubjectPublicKeyInfo in DER."""
        return self._holder.public_key

    async def perform(self, operation: KeyOperation) -> bytes:
        """As `KeyHolder.perform`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._holder.perform_now, operation)


class DirectoryKeys:
    """The keys of a directory of PEM files. Raises: LocumError when there is something wrong with it."""

    def __init__(self, path: Path) -> None:
        self._directory = KeyDirectory(path)
        self._problems: tuple[str, ...] = ()
        #: As of the last look.
        self.keys: tuple[HeldKey, ...] = ()
        self._take()

    def refresh(self) -> None:
        """Look again. Raises nothing: what is wrong is logged once, and what was there before stays."""
        try:
            if self._directory.refresh():
                self._take()
            problems = self._directory.problems
        except LocumError as error:
            problems = (str(error),)
        if problems != self._problems:
            for problem in problems:
                log.error("key directory", extra={"error": problem})
        self._problems = problems

    def _take(self) -> None:
        # One that has not changed stays the same object, and with it what has been found out about it.
        known = {key.name: key for key in self.keys}
        self.keys = tuple(
            known[name] if name in known and known[name].public_key == key.public_key else held_here(name, key)
            for name, key in self._directory.keys.items()
        )
        log.info("keys from the directory", extra={"keys": len(self.keys)})


class Upstream:
    """Another key server, or several with the same keys, of which this one is an edge.

    `changed` is called when `keys` has become another. Enter it on the event loop that it is used on.
    """

    def __init__(self, credential: EdgeCredential, options: PoolOptions, changed: Callable[[], None]) -> None:
        self._pool = KeyServerPool(credential, options=options)
        self._name = credential.name
        self._changed = changed
        self._task: asyncio.Task[None] | None = None
        self._offered: tuple[OfferedKey, ...] = ()
        #: What it has offered the last time that it answered.
        self.keys: tuple[HeldKey, ...] = ()

    async def start(self) -> None:
        """Begin to connect, and to follow which keys there are."""
        await self._pool.__aenter__()
        self._task = asyncio.get_running_loop().create_task(self._follow(), name=f"upstream {self._name}")

    async def close(self) -> None:
        """Close every connection to it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._pool.close()

    async def _follow(self) -> None:
        failing = False
        while True:
            try:
                await self._look()
                failing = False
            except LocumError as error:
                if not failing:
                    failing = True
                    log.error("no list of keys from upstream", extra={"edge": self._name, "error": str(error)})
            await asyncio.sleep(RETRY_SECONDS if failing else LOOK_SECONDS)

    async def _look(self) -> None:
        """Ask which keys there are. Raises: LocumError."""
        offered = await self._pool.keys()
        if offered == self._offered:
            return
        self._offered = offered
        keys = []
        for each in offered:
            try:
                keys.append(
                    held_elsewhere(
                        each.name,
                        self._pool.key(each),
                        raw=each.raw,
                        bound=each.bound,
                        server=each.server,
                        client=each.client,
                    )
                )
            except LocumError as error:
                log.error("key cannot be used", extra={"key": each.name, "error": str(error)})
        self.keys = tuple(keys)
        log.info("keys from upstream", extra={"edge": self._name, "keys": len(keys)})
        self._changed()
