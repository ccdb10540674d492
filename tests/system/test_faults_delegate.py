"""A delegate that is away, lost, restarted, a stranger or talking nonsense: one line for the user, no key (A2)."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.delegation import Delegation, started
from tests.support.node import LOCUM
from tests.support.peers import Server, ServerOptions
from tests.support.terminal_peer import LOOPBACK, Middleman
from tests.support.terminal_system import NAME, REQUEST

from locum.demo.peers import PAGE

pytestmark = pytest.mark.xdist_group("faults-delegate")

SECONDS = 60
Edit = Callable[[bytes], list[bytes]]


@pytest.fixture(scope="module")
def delegation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delegation]:
    with started(Delegation(tmp_path_factory.mktemp("faults-delegate"))) as running:
        yield running


@pytest.fixture(scope="module")
def server(delegation: Delegation) -> Server:
    return delegation.server("nginx", ServerOptions(certificates=(delegation.certificate("p256"),)))


@pytest.fixture
def middleman(delegation: Delegation) -> Iterator[Middleman]:
    with Middleman((LOOPBACK, delegation.node.port)) as running:
        yield running


@pytest.fixture
def credential(delegation: Delegation, middleman: Middleman, request: pytest.FixtureRequest) -> Path:
    """A terminal of this test's own, which reaches the delegate through the middleman."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[-60:].strip("-")
    return delegation.enrol(name, "--address", middleman.address)


def talk(server: Server, credential: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """`locum terminal tls` at this server."""
    command = [LOCUM, "terminal", "tls", f"{NAME}:{server.port}", "--credential", credential, *words]
    return subprocess.run(command, input=REQUEST, capture_output=True, timeout=SECONDS)


def only_line(done: subprocess.CompletedProcess[bytes]) -> str:
    """The error of a command that failed: one line, nothing else anywhere."""
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("locum: error: ")
    return line


class After:
    """Lets `count` datagrams pass, then does something once, before the next one goes on."""

    def __init__(self, count: int, action: Callable[[], object]) -> None:
        self._left = count
        self._action = action

    def __call__(self, data: bytes) -> list[bytes]:
        self._left -= 1
        if self._left == -1:
            self._action()
        return [data]


def lose(data: bytes) -> list[bytes]:
    return []


# --- away -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["coap", "coap+tcp"])
def test_an_unreachable_delegate_is_named(delegation: Delegation, server: Server, scheme: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((LOOPBACK, 0))
        port = taken.getsockname()[1]
    name = f"to-nobody-{scheme}".replace("+", "-")
    credential = delegation.enrol(name, "--address", f"{scheme}://{LOOPBACK}:{port}")
    line = only_line(talk(server, credential))
    assert line == f"locum: error: delegate {scheme}://{LOOPBACK}:{port}: Connection refused"


def test_a_delegate_that_does_not_answer_is_given_up_after_the_timeout(
    server: Server, credential: Path, middleman: Middleman
) -> None:
    middleman.to_terminal = lose
    began = time.monotonic()
    line = only_line(talk(server, credential, "--timeout", "1"))
    assert re.search(rf"delegate {middleman.address}: no answer within [01]\.\d s", line)
    assert time.monotonic() - began < 10


def test_a_slow_delegate_is_waited_for(server: Server, credential: Path, middleman: Middleman) -> None:
    middleman.delay = 0.2
    done = talk(server, credential)
    assert done.stdout.endswith(PAGE), done.stderr


# --- lost in mid-handshake --------------------------------------------------------------------------------


@pytest.mark.parametrize("passed", [1, 2, 3])
def test_a_delegate_killed_in_mid_handshake_is_one_line_and_no_key(
    delegation: Delegation, server: Server, credential: Path, middleman: Middleman, passed: int
) -> None:
    assert talk(server, credential).stdout.endswith(PAGE)
    middleman.to_delegate = After(passed - 1, delegation.node.kill)
    try:
        line = only_line(talk(server, credential, "--timeout", "2"))
        assert f"delegate {middleman.address}: no answer within" in line
    finally:
        delegation.node.start()
    middleman.to_delegate = lambda data: [data]
    assert talk(server, credential).stdout.endswith(PAGE), "nothing is left over from the one that failed"


@pytest.mark.parametrize("passed", [1, 2])
def test_a_delegate_killed_and_restarted_in_mid_handshake_says_to_begin_again(
    delegation: Delegation, server: Server, credential: Path, middleman: Middleman, passed: int
) -> None:
    assert talk(server, credential).stdout.endswith(PAGE)

    def restart() -> None:
        delegation.node.kill()
        delegation.node.start()

    middleman.to_delegate = After(passed, restart)
    line = only_line(talk(server, credential))
    assert "the delegate has no such session, or has it no more: begin again" in line
    assert talk(server, credential).stdout.endswith(PAGE)


def test_a_delegate_restarted_between_two_handshakes_is_not_noticed(
    delegation: Delegation, server: Server, credential: Path
) -> None:
    for _ in range(3):
        assert talk(server, credential).stdout.endswith(PAGE)
        delegation.node.kill()
        delegation.node.start()
    assert talk(server, credential).stdout.endswith(PAGE)


# --- a stranger -------------------------------------------------------------------------------------------


def test_a_wrong_channel_key_says_to_enrol_again(server: Server, credential: Path) -> None:
    text = credential.read_text()
    credential.write_text(re.sub(r'key = "[^"]+"', f'key = "{"A" * 22}=="', text))
    assert "enrol the terminal again" in only_line(talk(server, credential))


def test_a_terminal_that_was_removed_is_told_so(delegation: Delegation, server: Server) -> None:
    credential = delegation.enrol("removed")
    delegation.locum("terminals", "remove", "removed")
    deadline = time.monotonic() + SECONDS
    # A terminal that was served a moment ago is let in until the delegate has looked at its databases.
    while (done := talk(server, credential)).returncode == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert re.search("enrol the terminal again|not served here", only_line(done))


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda data: [],
        lambda data: [b"HTTP/1.1 200 OK\r\n\r\n"],
        lambda data: [data[:4]],
        lambda data: [data[:-1]],
        lambda data: [data + b"\x00"],
        lambda data: [bytes(len(data))],
        lambda data: [data[:-9] + bytes((data[-9] ^ 1,)) + data[-8:]],
    ],
    ids=["silence", "HTTP", "header alone", "cut short", "too long", "zeros", "one bit flipped"],
)
def test_nonsense_instead_of_answers_is_one_line(
    server: Server, credential: Path, middleman: Middleman, nonsense: Edit
) -> None:
    middleman.to_terminal = nonsense
    assert f"delegate {middleman.address}: " in only_line(talk(server, credential, "--timeout", "1"))


@pytest.mark.parametrize("talkative", [True, False], ids=["that talks", "that is silent"])
def test_something_else_on_the_delegates_tcp_port_is_one_line(
    delegation: Delegation, server: Server, talkative: bool
) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            sock, _ = listener.accept()
            with sock:
                if talkative:
                    sock.sendall(b"220 mail.example ESMTP\r\n")
                while sock.recv(4096):
                    pass

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        name = f"misled-{'talk' if talkative else 'silent'}"
        credential = delegation.enrol(name, "--address", f"coap+tcp://{LOOPBACK}:{port}")
        line = only_line(talk(server, credential, "--timeout", "1.5"))
        thread.join(SECONDS)
    assert f"delegate coap+tcp://{LOOPBACK}:{port}: " in line
