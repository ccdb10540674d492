"""A delegate without a network for tests of `connecting`: the real messages, the real operations, no link.

Plays the driver as well, against an OpenSSL 4 server in memory, and can lose or spoil any answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from OpenSSL import SSL
from tests.support import pki
from tests.support.tls_memory import TERMINAL, authority, server_context

from locum.authority.chains import ChainCache
from locum.authority.local import LocalSession
from locum.authority.messages import (
    decode_requests,
    encode_chain_wanted,
    encode_error,
    encode_responses,
)
from locum.errors import LocumError, Unavailable
from locum.link.coap import Code
from locum.link.oscore import AES_CCM_16_64_128, Credential
from locum.names import DelegateAddress
from locum.terminal.channel import Answer
from locum.terminal.connecting import (
    AskDelegate,
    Dial,
    EnterChannel,
    HangUp,
    Pause,
    ReadFromPeer,
    SendToPeer,
    Step,
    connecting,
)
from locum.terminal.credential import DelegateCredential, TerminalCredential
from locum.terminal.device import Device
from locum.terminal.negotiation import Established
from locum.terminal.options import TlsOptions
from locum.terminal.steps import Cost, Observer

TOKEN = b"8 bytes."
PEER_IP = "192.0.2.7"


class MemoryDelegate:
    """Answers messages as a delegate does; knows nobody's chain until it has seen it."""

    def __init__(self) -> None:
        self._authority = authority()
        self._chains = ChainCache()
        self._session: LocalSession | None = None
        self.operations: list[str] = []
        self.ended = 0

    def forget_sessions(self) -> None:
        """As after a restart."""
        self._session = None

    def handle(self, payload: bytes) -> tuple[int, bytes]:
        """The CoAP code and the payload of the answer to one message."""
        message = decode_requests(payload, self._chains)
        if message.token and self._session is None:
            return Code.NOT_FOUND, encode_error(Unavailable("no such session"))
        if message.chain_wanted:
            return Code.CHANGED, encode_chain_wanted()
        if not message.requests:
            self.ended += 1
            self._session = None
            return Code.CHANGED, b"\x80"
        if not message.token:
            self._session = self._authority.open(TERMINAL)
        assert self._session is not None
        self.operations += [type(request).__name__ for request in message.requests]
        responses = self._session.perform(message.requests)
        self._chains.remember(message.requests, responses)
        payload = encode_responses(b"" if message.token else TOKEN, message.requests, responses)
        return Code.CHANGED, payload


class MemoryChannel:
    """A channel for `Device` that only notes what it is told."""

    def __init__(self, delegate: DelegateCredential, terminal: str) -> None:
        self.name = str(delegate.address)
        self.secure_path = delegate.secure_path
        self.told: list[bytes] = []
        self.inside = 0
        self.closed = False

    def leave(self) -> None:
        self.inside -= 1

    def tell(self, payload: bytes) -> None:
        self.told.append(payload)

    def close(self) -> None:
        self.closed = True


def credential(count: int = 1, *, secure_path: bool = False) -> TerminalCredential:
    """A credential for delegates at 192.0.2.101, .102, and so on."""
    channel = Credential(kid=b"\0\1", peer_id=b"\0", secret=bytes(16), salt=b"", algorithm=AES_CCM_16_64_128)
    return TerminalCredential(
        name=TERMINAL,
        delegates=tuple(
            DelegateCredential(
                address=DelegateAddress.parse(f"coap://192.0.2.{101 + number}"),
                secure_path=secure_path,
                channel=None if secure_path else channel,
            )
            for number in range(count)
        ),
    )


Interfere = Callable[[AskDelegate, int], Answer | LocumError | None]


class World:
    """Drives one `connecting` in memory and records it. Time passes only in pauses, one second per step else.

    `interfere(step, number)` may answer the delegate's message `number` (from 1) in the delegate's place, or
    return an error to throw; None lets the delegate answer.
    """

    def __init__(
        self, count: int = 1, *, secure_path: bool = False, interfere: Interfere = lambda step, number: None
    ) -> None:
        self.steps: list[Any] = []
        self.device: Device[MemoryChannel] = Device(
            credential(count, secure_path=secure_path),
            authority=None,
            observer=self.steps.append,
            channel=MemoryChannel,
        )
        self.delegates = {name: MemoryDelegate() for name in self.device.channels}
        self.asked: list[str] = []
        self.pauses: list[float] = []
        self.dialled = self.hung_up = 0
        self.to_peer = b""
        self.now = 1000.0
        self.step_seconds = 0.0
        self._interfere = interfere
        self._context = server_context()
        self._server: SSL.Connection | None = None

    def connect(self, **options: Any) -> Established:
        """Connect. Raises: what `connecting` raises."""
        wishes = TlsOptions(server_name=pki.PEER_NAME)
        wishes.update(options)  # type: ignore[typeddict-item]
        timeout = options.get("timeout", 30.0)
        return self._drive(
            connecting(self.device, "peer.example.com", 443, wishes, clock=lambda: self.now, timeout=timeout)
        )

    def _drive(self, steps: Generator[Step, Any, Established]) -> Established:
        step = next(steps)
        while True:
            self.now += self.step_seconds
            try:
                result = self._perform(step)
            except LocumError as error:
                step = steps.throw(error)
                continue
            try:
                step = steps.send(result)
            except StopIteration as stop:
                established: Established = stop.value
                return established

    def _perform(self, step: Step) -> object:
        match step:
            case Dial():
                self.dialled += 1
                self._server = SSL.Connection(self._context, None)
                self._server.set_accept_state()
                return PEER_IP
            case HangUp():
                self.hung_up += 1
                self._server = None
            case Pause(seconds):
                self.pauses.append(seconds)
                self.now += seconds
            case SendToPeer(data):
                self.to_peer += data
                assert self._server is not None
                self._server.bio_write(bytes(data))
            case ReadFromPeer():
                return self._read()
            case EnterChannel():
                self.device.channels[step.delegate].inside += 1
            case AskDelegate():
                return self._ask(step)
        return None

    def _read(self) -> bytes:
        assert self._server is not None
        try:
            self._server.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error:
            return b""
        return self._server.bio_read(65_536)

    def _ask(self, step: AskDelegate) -> Answer:
        self.asked.append(step.delegate)
        answer = self._interfere(step, len(self.asked))
        if isinstance(answer, LocumError):
            raise answer
        if answer is not None:
            return answer
        code, payload = self.delegates[step.delegate].handle(step.payload)
        return Answer(delegate=step.delegate, code=code, payload=payload, cost=Cost(bytes_out=10, bytes_in=20))


__all__ = ["MemoryChannel", "MemoryDelegate", "Observer", "World", "credential"]
