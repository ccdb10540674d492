"""Delegates that fail in every way, with both drivers: one clear error, or the next delegate (A12)."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.peers import NginxServer, Server
from tests.support.terminal_peer import LOOPBACK, Middleman, wait_until
from tests.support.terminal_system import NAME, REQUEST, Setting, fetch, setting

from locum.demo.peers import PAGE
from locum.errors import OperationError, Refused
from locum.handshake import PeerRejected
from locum.terminal import channel, connect_tls
from locum.terminal.channel import DelegateFailed
from locum.terminal.steps import Actor, StepName, TerminalStep

Fetch = Callable[..., bytes]

#: Seconds that a delegate gets for an answer while there is another one, in these tests.
IMPATIENCE = 1.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with setting(tmp_path_factory.mktemp("terminal-faults")) as running:
        yield running


@pytest.fixture(scope="module")
def server(world: Setting, require: Any) -> Iterator[Server]:
    require("nginx")
    with NginxServer(world.directory / "nginx", world.server_options) as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent delegate is given up sooner than in real life."""
    monkeypatch.setattr(channel, "ANSWER_TIMEOUT", IMPATIENCE)


@pytest.fixture
def middleman(world: Setting) -> Iterator[Middleman]:
    with Middleman((LOOPBACK, world.node.port)) as running:
        yield running


async def _fetch(credential: Path, port: int, **options: Any) -> bytes:
    reader, writer = await connect_tls(NAME, port, credential=credential, **options)
    writer.write(REQUEST)
    page = await reader.read()
    writer.close()
    await writer.wait_closed()
    return page


def fetch_with_asyncio(credential: Path, port: int, **options: Any) -> bytes:
    return asyncio.run(_fetch(credential, port, **options))


@pytest.fixture(params=[fetch, fetch_with_asyncio], ids=["blocking", "asyncio"])
def get(request: pytest.FixtureRequest) -> Fetch:
    function: Fetch = request.param
    return function


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A terminal's name for this test alone."""
    return re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[-60:].strip("-")


def closed_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOOPBACK, 0))
        port: int = sock.getsockname()[1]
        return port


def lose(data: bytes) -> list[bytes]:
    return []


def check(page: bytes) -> None:
    assert page.endswith(PAGE)


@pytest.mark.parametrize("scheme", ["coap", "coap+tcp"])
def test_an_unreachable_delegate_is_told_at_once(
    world: Setting, server: Server, get: Fetch, name: str, scheme: str
) -> None:
    address = f"{scheme}://{LOOPBACK}:{closed_port()}"
    credential = world.enrol(name, address)
    started = time.monotonic()
    with pytest.raises(DelegateFailed, match=rf"^delegate {re.escape(address)}: .*refused"):
        get(credential, server.port)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("scheme", ["coap", "coap+tcp"])
def test_a_second_delegate_takes_over_from_an_unreachable_one(
    world: Setting, server: Server, get: Fetch, name: str, scheme: str
) -> None:
    credential = world.enrol(name, f"{scheme}://{LOOPBACK}:{closed_port()}", world.node.url)
    steps: list[TerminalStep] = []
    check(get(credential, server.port, observer=steps.append))
    assert [step.operation for step in steps].count(StepName.NEXT_DELEGATE) == 1


def test_a_delegate_is_reached_over_tcp_too(world: Setting, server: Server, get: Fetch, name: str) -> None:
    credential = world.enrol(name, world.node.url.replace("coap:", "coap+tcp:"))
    for _ in range(2):
        check(get(credential, server.port))


def test_a_silent_delegate_ends_in_a_time_out(
    world: Setting, server: Server, middleman: Middleman, get: Fetch, name: str
) -> None:
    middleman.to_delegate = lose
    credential = world.enrol(name, middleman.address)
    with pytest.raises(DelegateFailed, match=r"no answer within 0\.[45] s"):
        get(credential, server.port, timeout=0.5)


def test_a_second_delegate_takes_over_from_a_silent_one(
    world: Setting, server: Server, middleman: Middleman, get: Fetch, name: str
) -> None:
    middleman.to_terminal = lose
    credential = world.enrol(name, middleman.address, world.node.url)
    started = time.monotonic()
    check(get(credential, server.port))
    assert IMPATIENCE <= time.monotonic() - started < IMPATIENCE + 5


def test_a_slow_delegate_is_waited_for(
    world: Setting, server: Server, middleman: Middleman, get: Fetch, name: str
) -> None:
    middleman.delay = 0.15
    credential = world.enrol(name, middleman.address)
    steps: list[TerminalStep] = []
    check(get(credential, server.port, observer=steps.append))
    waited = [step.seconds for step in steps if step.actor is Actor.DELEGATE and step.bytes_out]
    assert all(seconds >= 0.3 for seconds in waited)


@pytest.mark.parametrize(
    "nonsense", [b"", b"\xff" * 40, bytes(4), b"\x60\x44", b"GET / HTTP/1.1\r\n\r\n"], ids=range(5)
)
def test_nonsense_beside_the_delegates_answers_is_ignored(
    world: Setting, server: Server, middleman: Middleman, get: Fetch, name: str, nonsense: bytes
) -> None:
    middleman.to_terminal = lambda data: [nonsense, data, nonsense]
    check(get(world.enrol(name, middleman.address), server.port))


def test_nonsense_in_place_of_the_delegates_answers_ends_in_a_time_out(
    world: Setting, server: Server, middleman: Middleman, get: Fetch, name: str
) -> None:
    # The same message ids and tokens as the true answers, and anything but what the delegate said.
    middleman.to_terminal = lambda data: [data[:-8] + bytes(8)]
    credential = world.enrol(name, middleman.address)
    with pytest.raises(OperationError):
        get(credential, server.port, timeout=1.0)


def test_nonsense_leads_to_the_next_delegate(
    world: Setting, server: Server, middleman: Middleman, get: Fetch, name: str
) -> None:
    middleman.to_terminal = lambda data: [data[:-8] + bytes(8)]
    check(get(world.enrol(name, middleman.address, world.node.url), server.port))


def test_repeated_and_reordered_datagrams_change_nothing(
    world: Setting, server: Server, middleman: Middleman, get: Fetch, name: str
) -> None:
    seen: list[bytes] = []

    def again(data: bytes) -> list[bytes]:
        seen.append(data)
        return [data, *reversed(seen)]

    middleman.to_delegate = again
    middleman.to_terminal = lambda data: [data, data]
    check(get(world.enrol(name, middleman.address), server.port))


def test_a_wrong_channel_key_is_one_clear_line(world: Setting, server: Server, get: Fetch, name: str) -> None:
    credential = world.enrol(name)
    spoil_key(credential)
    with pytest.raises(OperationError, match="enrol the terminal again"):
        get(credential, server.port)


def test_a_wrong_channel_key_at_one_delegate_leads_to_the_next(
    world: Setting, server: Server, middleman: Middleman, get: Fetch, name: str
) -> None:
    credential = world.enrol(name, middleman.address, world.node.url)
    spoil_key(credential)
    check(get(credential, server.port))


def spoil_key(credential: Path) -> None:
    """Replace the first channel key in a credential."""
    spoilt = re.sub(
        r'key = "[^"]+"', f'key = "{base64.b64encode(bytes(16)).decode()}"', credential.read_text(), count=1
    )
    credential.write_text(spoilt)


class Restart:
    """Kills and restarts the node when the terminal sends datagram `number`, before it arrives."""

    def __init__(self, world: Setting, number: int) -> None:
        self._world = world
        self._left = number

    def __call__(self, data: bytes) -> list[bytes]:
        self._left -= 1
        if self._left == 0:
            self._world.node.kill()
            self._world.node.start()
        return [data]


def known(world: Setting, server: Server, credential: Path) -> Path:
    """The credential, after one handshake: from now on each message is one datagram."""
    check(fetch(credential, server.port))
    return credential


@pytest.mark.parametrize("number", [2, 3])
def test_a_delegate_restarted_in_mid_handshake_has_lost_the_session_and_that_is_said(
    world: Setting, server: Server, middleman: Middleman, get: Fetch, name: str, number: int
) -> None:
    credential = known(world, server, world.enrol(name, middleman.address))
    middleman.to_delegate = Restart(world, number)
    with pytest.raises(DelegateFailed, match="no such session"):
        get(credential, server.port)
    # The one after it works: the restart has cost the handshakes in flight and nothing else.
    check(get(credential, server.port))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_delegate_lost_in_mid_handshake_is_replaced_by_the_next(
    world: Setting, server: Server, middleman: Middleman, get: Fetch, name: str, number: int
) -> None:
    credential = known(world, server, world.enrol(name, middleman.address, world.node.url))
    left = number

    def disappear(data: bytes) -> list[bytes]:
        nonlocal left
        left -= 1
        return [data] if left > 0 else []

    middleman.to_delegate = disappear
    check(get(credential, server.port))


def test_a_removed_policy_is_a_rejection_and_not_a_reason_to_ask_another_delegate(
    world: Setting, server: Server, get: Fetch, name: str
) -> None:
    credential = world.enrol(name, world.node.url, f"coap://{LOOPBACK}:{closed_port()}")
    world.node.allow(terminal=name, peer=f"dns:{NAME}", action="deny")
    with pytest.raises((PeerRejected, Refused), match="polic"):
        # A running node reads its databases again every now and then.
        for _ in range(20):
            check(get(credential, server.port))
            time.sleep(0.2)


def test_messages_go_plain_where_both_sides_call_the_path_secure(
    tmp_path: Path, server: Server, get: Fetch, name: str
) -> None:
    port = closed_port()
    config = f'[delegate]\nsecure_path_listen = "{LOOPBACK}:{port}"\n'
    seen: list[bytes] = []

    def watch(data: bytes) -> list[bytes]:
        seen.append(data)
        return [data]

    with setting(tmp_path, config=config) as plain, Middleman((LOOPBACK, port)) as middleman:
        middleman.to_delegate = watch
        with NginxServer(tmp_path / "nginx", plain.server_options) as own:
            credential = plain.enrol(name, middleman.address, options=("--secure-path",))
            wait_until(lambda: served(credential, own))
            check(get(credential, own.port))
            assert any(NAME.encode() in data for data in seen)
            # Only one side calling it secure is not enough: the ordinary endpoint takes no plain message.
            text = credential.read_text().replace(middleman.address, plain.node.url)
            credential.write_text(text)
            with pytest.raises(OperationError):
                get(credential, own.port, timeout=10.0)


def served(credential: Path, server: Server) -> bool:
    """Whether the node has read that this terminal is enrolled."""
    try:
        fetch(credential, server.port)
    except Refused:
        return False
    return True


def test_the_channel_shows_nothing_of_the_peers_name(
    world: Setting, server: Server, middleman: Middleman, get: Fetch, name: str
) -> None:
    seen: list[bytes] = []

    def watch(data: bytes) -> list[bytes]:
        seen.append(data)
        return [data]

    middleman.to_delegate = middleman.to_terminal = watch
    check(get(world.enrol(name, middleman.address), server.port))
    assert len(seen) >= 6
    assert not any(NAME.encode() in data or name.encode() in data for data in seen)
