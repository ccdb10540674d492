"""A network between terminal and delegate that loses, repeats, reorders and replays (RFC 7252, RFC 8613)."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support import exchange
from tests.support.delegate_client import DelegateClient
from tests.support.delegation import Delegation, started
from tests.support.peers import Server, ServerOptions
from tests.support.terminal_peer import LOOPBACK, Middleman, wait_until
from tests.support.terminal_system import NAME, REQUEST, fetch

from locum.authority.messages import encode_requests
from locum.demo.peers import PAGE
from locum.link.coap import Code, Message, OptionNumber
from locum.link.oscore import OscoreOption
from locum.terminal import Terminal

pytestmark = pytest.mark.xdist_group("faults-network")

#: Seconds for handshakes of which many datagrams are lost and sent again after 2, 4, 8 and 16 seconds.
PATIENCE = 90.0
TERMINALS = 8
HANDSHAKES = 3
#: Seconds in which an audit entry that should not be there would be written.
AUDIT_SECONDS = 0.5
LIMITS = "[delegate]\nrequests_per_second = 30\nrequest_burst = 60\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Climate:
    """How likely it is that a datagram is lost, repeated, held back, or followed by an old one."""

    loss: float = 0.0
    repeat: float = 0.0
    hold: float = 0.0
    replay: float = 0.0


class Weather:
    """What happens to the datagrams of one direction between two ends; the same for the same seed."""

    def __init__(self, climate: Climate, seed: int) -> None:
        self._random = random.Random(seed)
        self._climate = climate
        self._held: list[bytes] = []
        self._past: deque[bytes] = deque(maxlen=500)
        self.disturbances = 0

    def __call__(self, data: bytes) -> list[bytes]:
        self._past.append(data)
        if self._happens(self._climate.loss):
            return []
        if self._happens(self._climate.hold):
            self._held.append(data)
            return []
        out = [data]
        if self._happens(self._climate.repeat):
            out.append(data)
        if self._happens(self._climate.replay):
            out.append(self._random.choice(self._past))
        # What was held back arrives after something younger.
        return out + [self._held.pop(0) for _ in self._held[:1]]

    def _happens(self, probability: float) -> bool:
        happens = self._random.random() < probability
        self.disturbances += happens
        return happens


@pytest.fixture(scope="module")
def delegation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delegation]:
    with started(Delegation(tmp_path_factory.mktemp("faults-network"), config=LIMITS)) as running:
        yield running


@pytest.fixture(scope="module")
def server(delegation: Delegation) -> Server:
    return delegation.server("nginx", ServerOptions(certificates=(delegation.certificate("p256"),)))


@pytest.fixture
def middleman(delegation: Delegation) -> Iterator[Middleman]:
    with Middleman((LOOPBACK, delegation.node.port)) as running:
        yield running


async def fetch_all(credentials: list[Path], port: int) -> list[bytes]:
    """Some pages for each terminal: all terminals at the same time, the pages of each one after the other."""

    async def one(credential: Path) -> list[bytes]:
        pages = []
        async with Terminal(credential) as terminal:
            for _ in range(HANDSHAKES):
                reader, writer = await terminal.connect_tls(NAME, port, timeout=PATIENCE)
                writer.write(REQUEST)
                pages.append(await reader.read())
                writer.close()
                await writer.wait_closed()
        return pages

    return [page for pages in await asyncio.gather(*map(one, credentials)) for page in pages]


def handed_over(delegation: Delegation, prefix: str) -> int:
    """How many keys the audit log says were handed to terminals whose name begins like this."""
    entries = json.loads(delegation.node.locum("audit", "list", "--json", "--limit", "1000").stdout)
    return sum(
        entry["actor"].startswith(f"terminal:{prefix}") and entry["detail"].startswith("key handed over")
        for entry in entries
    )


CLIMATES = {
    "repeating": Climate(repeat=0.5),
    "reordering": Climate(hold=0.1),
    "losing": Climate(loss=0.03),
    "replaying": Climate(replay=0.5),
    "everything": Climate(loss=0.02, repeat=0.2, hold=0.04, replay=0.3),
}


@pytest.mark.parametrize("name", CLIMATES)
def test_every_handshake_succeeds_and_nothing_is_done_twice(
    delegation: Delegation, server: Server, name: str
) -> None:
    with ExitStack() as running:
        credentials: list[Path] = []
        weathers: list[Weather] = []
        for number in range(TERMINALS):
            middleman = running.enter_context(Middleman((LOOPBACK, delegation.node.port)))
            middleman.to_delegate = Weather(CLIMATES[name], number)
            middleman.to_terminal = Weather(CLIMATES[name], -1 - number)
            weathers += [middleman.to_delegate, middleman.to_terminal]
            credentials.append(delegation.enrol(f"{name}-{number}", "--address", middleman.address))
        pages = asyncio.run(fetch_all(credentials, server.port))
    assert [page.endswith(PAGE) for page in pages] == [True] * TERMINALS * HANDSHAKES
    assert sum(weather.disturbances for weather in weathers) >= TERMINALS, "the weather was bad"
    wait_until(lambda: handed_over(delegation, f"{name}-") >= len(pages))
    time.sleep(AUDIT_SECONDS)
    assert handed_over(delegation, f"{name}-") == len(pages)


def test_a_whole_handshake_replayed_later_gives_nobody_a_key(
    delegation: Delegation, server: Server, middleman: Middleman
) -> None:
    recorded: list[bytes] = []

    def record(data: bytes) -> list[bytes]:
        recorded.append(data)
        return [data]

    middleman.to_delegate = record
    credential = delegation.enrol("recorded", "--address", middleman.address)
    for _ in range(3):
        assert fetch(credential, server.port).endswith(PAGE)
    wait_until(lambda: handed_over(delegation, "recorded") == 3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        for _ in range(3):
            for data in recorded:
                attacker.sendto(data, (LOOPBACK, delegation.node.port))
                time.sleep(0.005)
    assert fetch(credential, server.port).endswith(PAGE)
    wait_until(lambda: handed_over(delegation, "recorded") == 4)
    time.sleep(AUDIT_SECONDS)
    assert handed_over(delegation, "recorded") == 4


@pytest.mark.parametrize("protected", [True, False], ids=["of requests", "of garbage"])
def test_a_flood_is_survived_while_another_terminal_is_served(
    delegation: Delegation, server: Server, protected: bool
) -> None:
    flooder = delegation.enrol(f"flooder-{protected}")
    stop = threading.Event()
    codes: list[int] = []

    def flood_with_requests() -> None:
        start = encode_requests(b"", (exchange.START,))
        with DelegateClient(flooder) as client:
            while not stop.is_set():
                codes.append(client.post(start).code)

    def flood_with_garbage() -> None:
        source = random.Random(5683)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            while not stop.is_set():
                for _ in range(10):
                    # Valid CoAP with a valid OSCORE option: what is false comes last and costs the most.
                    option = OscoreOption(source.randbytes(1), b"\x00\x01", source.randbytes(8)).write()
                    message = Message(
                        Code.POST,
                        source.randbytes(2),
                        ((int(OptionNumber.OSCORE), option),),
                        source.randbytes(200),
                        message_id=source.randrange(65_536),
                    )
                    sock.sendto(message.write_datagram(), (LOOPBACK, delegation.node.port))
                codes.append(0)
                time.sleep(0.005)

    thread = threading.Thread(target=flood_with_requests if protected else flood_with_garbage)
    thread.start()
    try:
        wait_until(lambda: Code.TOO_MANY_REQUESTS in codes if protected else len(codes) > 10)
        credential = delegation.enrol(f"served-{protected}")
        for _ in range(15):
            began = time.monotonic()
            assert fetch(credential, server.port).endswith(PAGE)
            assert time.monotonic() - began < 10
            # As fast as a terminal may that keeps to its rate.
            time.sleep(0.1)
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert "unexpected" not in delegation.node.logged()
    # The flooder itself is served again as soon as it stops.
    if protected:
        time.sleep(1.0)
        assert fetch(flooder, server.port).endswith(PAGE)
