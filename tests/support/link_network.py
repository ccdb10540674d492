"""Both ends of the link in memory: credentials, sequence stores, and a network that can lose and reorder."""

from __future__ import annotations

import random as random_module
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import pytest

from locum.crypto.symmetric import AeadAlgorithm, AeadKey
from locum.errors import LocumError, Unavailable
from locum.link.blockwise import Reply
from locum.link.client import Client
from locum.link.coap import Code, Framing
from locum.link.exchange import TransmissionParameters
from locum.link.oscore import Credential
from locum.link.server import IncomingRequest, Limits, Server

SECRETS = {"AES-CCM-16-64-128": bytes(range(16)), "ChaCha20-Poly1305": bytes(range(32))}


def credential(number: int = 1, algorithm: str = "AES-CCM-16-64-128") -> Credential:
    """The credential of terminal `number`."""
    return Credential(number.to_bytes(2, "big"), b"\x00", SECRETS[algorithm], b"salt", algorithm)


def seeded(seed: int) -> Callable[[int], bytes]:
    """A reproducible source of bytes."""
    return random_module.Random(seed).randbytes


class MemoryCredentials:
    """The delegate's side of the store; outlives servers, as a database does."""

    def __init__(self, *credentials: Credential) -> None:
        self.by_kid = {item.kid: (f"terminal-{int.from_bytes(item.kid, 'big')}", item) for item in credentials}
        self.reserved: dict[bytes, int] = {}
        self.failure: LocumError | None = None
        self.lookups = 0

    def find(self, kid: bytes) -> tuple[str, Credential] | None:
        self.lookups += 1
        if self.failure is not None:
            raise self.failure
        return self.by_kid.get(kid)

    def reserve(self, kid: bytes, count: int) -> int:
        if self.failure is not None:
            raise self.failure
        first = self.reserved.get(kid, 0)
        self.reserved[kid] = first + count
        return first


class MemoryStore:
    """The terminal's sequence store; outlives clients, as a file does."""

    def __init__(self, id_context: bytes = b"\x11\x22\x33\x44\x55\x66\x77\x88") -> None:
        self.id_context = id_context
        self.next = 0
        self.reservations = 0
        self.broken = False

    def load(self) -> tuple[bytes, int]:
        if self.broken:
            raise Unavailable("the state file cannot be read")
        return self.id_context, self.next

    def reserve(self, upto: int) -> None:
        if self.broken:
            raise Unavailable("the disk is full")
        assert upto > self.next
        self.next = upto
        self.reservations += 1


class SealRecorder:
    """Watches every AEAD key that is made: the keys, and (key, nonce, plaintext, associated data) of each seal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[bytes] = []
        self.sealed: list[tuple[bytes, bytes, bytes, bytes]] = []
        new = AeadAlgorithm.new

        def recording(algorithm: AeadAlgorithm, key: bytes) -> AeadKey:
            self.keys.append(key)
            made = new(algorithm, key)
            seal = made.seal

            def record(nonce: bytes, data: bytes, associated_data: bytes) -> bytes:
                self.sealed.append((key, nonce, data, associated_data))
                return seal(nonce, data, associated_data)

            made.seal = record  # type: ignore[assignment]
            return made

        monkeypatch.setattr(AeadAlgorithm, "new", recording)

    def repeated_nonces(self) -> int:
        """How often a nonce was used again under the same key."""
        return len(self.sealed) - len({(key, nonce) for key, nonce, _, _ in self.sealed})


def echo_back(request: IncomingRequest) -> tuple[int, bytes]:
    """The application that most tests use: says who asked for what."""
    return Code.CONTENT, f"{request.terminal} {request.path} ".encode() + request.payload


Application = Callable[[IncomingRequest], tuple[int, bytes]]


@dataclass
class Network:
    """A server, clients by their remote, the clock, and everything that travelled.

    `fate` decides what becomes of one datagram: the delays in seconds after which it arrives, none if it is lost.
    """

    server: Server
    application: Application = echo_back
    fate: Callable[[bytes], list[float]] = lambda data: [0.01]
    now: float = 1000.0
    clients: dict[Hashable, Client] = field(default_factory=dict)
    travelled: list[tuple[Hashable, bool, bytes]] = field(default_factory=list)
    requests: list[IncomingRequest] = field(default_factory=list)
    _flying: list[tuple[float, int, Hashable, bool, bytes]] = field(default_factory=list)
    _count: int = 0

    def collect(self) -> None:
        """Put on the way whatever the two sides have to send."""
        for remote, client in self.clients.items():
            for data in client.transmit():
                self._fly(remote, True, data)
        for data, to in self.server.transmit():
            self._fly(to, False, data)

    def _fly(self, remote: Hashable, upwards: bool, data: bytes) -> None:
        self.travelled.append((remote, upwards, data))
        for delay in self.fate(data):
            self._count += 1
            self._flying.append((self.now + delay, self._count, remote, upwards, data))

    def step(self) -> bool:
        """Let the next thing happen; False when nothing ever will."""
        self.collect()
        moments = [item[0] for item in self._flying]
        moments += [
            due for end in (self.server, *self.clients.values()) if (due := end.next_timeout()) is not None
        ]
        if not moments:
            return False
        self.now = max(self.now, min(moments))
        self._flying.sort()
        while self._flying and self._flying[0][0] <= self.now:
            _, _, remote, upwards, data = self._flying.pop(0)
            if upwards:
                self.deliver(data, remote)
            elif remote in self.clients:
                self.clients[remote].receive(data, now=self.now)
        self.server.expire(now=self.now)
        for client in self.clients.values():
            client.expire(now=self.now)
        self.collect()
        return True

    def deliver(self, data: bytes, remote: Hashable) -> None:
        """Bytes reach the server, and the application answers at once."""
        for request in self.server.receive(data, remote, now=self.now):
            self.requests.append(request)
            self.server.respond(request, *self.application(request), now=self.now)

    def run(self, client: Client, exchange: int, *, steps: int = 2000) -> Reply:
        """Let things happen until `exchange` has an outcome."""
        for _ in range(steps):
            reply = client.outcome(exchange)
            if reply is not None:
                return reply
            assert self.step(), "nothing will ever happen again"
        raise AssertionError(f"no outcome after {steps} steps")

    def ask(self, client: Client, payload: bytes, path: str = "/kx") -> Reply:
        """One request and its reply."""
        return self.run(client, client.request(path, payload, now=self.now))


def make_server(
    credentials: MemoryCredentials | None,
    *,
    plain: bool = False,
    framing: Framing = Framing.DATAGRAM,
    seed: int = 1,
    parameters: TransmissionParameters | None = None,
    limits: Limits | None = None,
) -> Server:
    return Server(
        credentials=credentials,
        plain=plain,
        framing=framing,
        random=seeded(seed),
        parameters=parameters,
        limits=limits,
    )


def make_client(
    given: Credential | None,
    *,
    store: MemoryStore | None = None,
    framing: Framing = Framing.DATAGRAM,
    seed: int = 2,
    name: str = "",
    parameters: TransmissionParameters | None = None,
) -> Client:
    return Client(
        credential=given,
        sequence=store,
        framing=framing,
        random=seeded(seed),
        terminal_name=name,
        parameters=parameters,
    )


def pair(
    algorithm: str = "AES-CCM-16-64-128",
    *,
    framing: Framing = Framing.DATAGRAM,
    store: MemoryStore | None = None,
    parameters: TransmissionParameters | None = None,
) -> tuple[Network, Client]:
    """A network with one server and one terminal that shares a credential with it."""
    given = credential(1, algorithm)
    network = Network(make_server(MemoryCredentials(given), framing=framing, parameters=parameters))
    client = make_client(given, store=store, framing=framing, parameters=parameters)
    network.clients["terminal"] = client
    return network, client
