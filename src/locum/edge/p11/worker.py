"""A worker of the agent: reaches the keys, and runs the errands that the parent gives it.

Never sees a client. It holds nothing that cannot be lost: when it ends, in whatever way, its parent gives what it
left undone to the next one.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import signal
import socket
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from locum.crypto.asymmetric.signatures import concatenated
from locum.defects import whereabouts
from locum.edge.p11.errands import (
    MAX_PACKET,
    Errand,
    Task,
    TokenObject,
    encode_complete,
    encode_failure,
    encode_result,
)
from locum.edge.p11.holders import Holders
from locum.edge.p11.objects import certificate_objects, coordinate_length, digest, key_objects
from locum.edge.p11.registry import Rv
from locum.edge.p11.tls_content import bound_signature
from locum.errors import LocumError, Refused, TimedOut, Unavailable
from locum.keyless.operations import Decrypt, KeyOperation, Sign
from locum.keyless.queries import OfferedKey
from locum.keys.port import KeyHolder
from locum.runtime import loop_factory, tune_collector

log = logging.getLogger(__name__)

#: Seconds between looks at which keys there are; after a look that failed, at first and at most.
REFRESH_SECONDS = 15.0
FIRST_RETRY = 0.5
LONGEST_RETRY = 5.0
#: Seconds that errands have to end when the worker is told to.
DRAIN_SECONDS = 10.0


class _Key:
    """One key, and how its signatures are written in PKCS#11."""

    __slots__ = ("coordinate", "holder", "offered")

    def __init__(self, offered: OfferedKey, holder: KeyHolder) -> None:
        self.offered, self.holder = offered, holder
        public_key = load_der_public_key(offered.public_key)
        #: bytes of r and of s; 0 for RSA
        self.coordinate = coordinate_length(public_key) if isinstance(public_key, ec.EllipticCurvePublicKey) else 0

    def operation(self, errand: Errand) -> KeyOperation:
        """What to ask of the key's holder. Raises: Refused when this edge is not permitted that."""
        if errand.task is Task.DECRYPT:
            self._require_raw("decryption")
            return Decrypt(errand.data)
        if errand.task is Task.SIGN_DIGEST:
            self._require_raw("a signature over a digest")
            return Sign(errand.scheme, errand.data)
        bound = bound_signature(errand.scheme, errand.data) if self.offered.bound else None
        if bound is not None:
            return bound
        self._require_raw("a signature over what is not of a TLS handshake")
        return Sign(errand.scheme, hashlib.new(_hash_of(errand.scheme), errand.data).digest())

    def _require_raw(self, what: str) -> None:
        if not self.offered.raw:
            raise Refused(f"{what} with the key '{self.offered.name}' needs the permission for raw operations")


def _hash_of(scheme: str) -> str:
    """The hash at the end of a scheme's name, as `hashlib` calls it."""
    return scheme.rpartition("_")[2].lower()


class Worker:
    """Runs errands that come from `link` with the keys of `holders`, until the parent is gone or says so."""

    def __init__(self, link: socket.socket, holders: Holders, certificates: bytes = b"") -> None:
        link.setblocking(False)
        self._link = link
        self._holders = holders
        self._certificates = certificates
        self._loop = asyncio.get_running_loop()
        self._keys: dict[bytes, _Key] = {}
        self._announced = b""
        self._buffer = memoryview(bytearray(MAX_PACKET))
        self._unsent: deque[bytes] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Announce the keys, run errands, and look from time to time whether the keys have changed."""
        self._loop.add_signal_handler(signal.SIGTERM, self._ended.set)
        self._loop.add_reader(self._link, self._readable)
        try:
            async with asyncio.TaskGroup() as group:
                refreshing = group.create_task(self._keep_keys())
                await self._ended.wait()
                refreshing.cancel()
            if self._running:
                await asyncio.wait(self._running, timeout=DRAIN_SECONDS)
        finally:
            self._loop.remove_reader(self._link)
            self._loop.remove_writer(self._link)

    # --- keys ---------------------------------------------------------------------------------------------

    async def _keep_keys(self) -> None:
        delay = FIRST_RETRY
        while True:
            try:
                self._announce(await self._holders.keys())
                wait, delay = REFRESH_SECONDS, FIRST_RETRY
            except LocumError as error:
                log.warning("no list of keys: %s", error)
                wait, delay = delay, min(2 * delay, LONGEST_RETRY)
            await asyncio.sleep(wait)

    def _announce(self, offered: tuple[OfferedKey, ...]) -> None:
        """Tell the parent which objects there are now, if that is not what it knows."""
        objects: list[TokenObject] = []
        keys: dict[bytes, _Key] = {}
        for key in offered:
            mine = list(key_objects(key))
            if mine:
                keys[key.ski] = _Key(key, self._holders.key(key))
                objects += mine
        objects += certificate_objects(self._certificates, offered) if self._certificates else ()
        current = digest(objects)
        if current == self._announced:
            return
        self._keys, self._announced = keys, current
        for item in objects:
            self._send(item.encode())
        self._send(encode_complete())

    # --- errands ------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            packet = self._buffer[: self._link.recv_into(self._buffer)].tobytes()
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if packet:
            self._begin(Errand.decode(packet))
        else:
            self._ended.set()
            self._loop.remove_reader(self._link)

    def _begin(self, errand: Errand) -> None:
        key = self._keys.get(errand.ski)
        if key is None:
            self._send(encode_result(errand.number, Rv.KEY_HANDLE_INVALID))
            return
        task = self._loop.create_task(self._run_errand(errand, key))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run_errand(self, errand: Errand, key: _Key) -> None:
        try:
            result = await key.holder.perform(key.operation(errand))
            if key.coordinate:
                result = concatenated(result, key.coordinate)
            self._send(encode_result(errand.number, Rv.OK, result))
        except Refused as error:
            log.warning("refused: %s", error)
            self._send(encode_result(errand.number, Rv.KEY_FUNCTION_NOT_PERMITTED))
        except (Unavailable, TimedOut) as error:
            log.warning("key server: %s", error)
            self._send(encode_result(errand.number, Rv.DEVICE_ERROR))
        except Exception as error:
            # Whatever it is, the client is waiting for an answer and for nothing else.
            log.critical("an errand failed unexpectedly", extra=whereabouts(error))
            self._send(encode_result(errand.number, Rv.FUNCTION_FAILED))

    def _send(self, packet: bytes) -> None:
        if not self._unsent:
            try:
                self._link.send(packet)
                return
            except BlockingIOError:
                self._loop.add_writer(self._link, self._flush)
            except OSError:
                self._ended.set()  # the parent is gone, and with it everybody who waits
                return
        self._unsent.append(packet)

    def _flush(self) -> None:
        pending, self._unsent = self._unsent, deque()
        self._loop.remove_writer(self._link)
        for packet in pending:
            self._send(packet)


def run_worker(
    link: socket.socket,
    open_holders: Callable[[], AbstractAsyncContextManager[Holders]],
    *,
    certificates: bytes = b"",
) -> int:
    """Run a worker until its parent ends it; returns the exit status of the process.

    `certificates`, in PEM, are shown as objects of the token. What keeps the worker from beginning is told to the
    parent.
    """

    async def main() -> None:
        async with open_holders() as holders:
            tune_collector()
            await Worker(link, holders, certificates).run()

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(main())
    except LocumError as error:
        link.setblocking(True)
        link.send(encode_failure(str(error)))
        return 1
    return 0
