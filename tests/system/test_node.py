"""A real node: how it starts, what it serves, how it ends, and what a crash leaves behind (A3, A4, A12, X8)."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from tests.support import exchange, pki
from tests.support.delegate_client import DelegateClient
from tests.support.node import LOCUM, Node, running_node

from locum.authority.messages import encode_requests
from locum.authority.remote import RemoteSession
from locum.errors import LocumError, Refused, Unavailable
from locum.link.coap import Code, Message, OptionNumber, StreamReader
from locum.link.oscore import OscoreOption
from locum.tls.operations import MasterSecretRequest, StartResponse

ROOT = pki.ca()
PEER = pki.leaf(pki.intermediate(ROOT))


def prepare(node: Node) -> Node:
    """Trust the test's root and allow everything, before the node's first look at its databases."""
    root = node.data.parent / "root.pem"
    root.write_bytes(ROOT.pem)
    node.trust(root)
    node.allow()
    return node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = prepare(Node(tmp_path / "node"))
    node.start()
    yield node
    node.stop()


# --- start and end ----------------------------------------------------------------------------------------


def test_a_node_says_that_it_is_ready_and_ends_cleanly_at_sigterm(tmp_path: Path) -> None:
    node = Node(tmp_path / "node").start()
    assert node.ready_line == f"ready delegate=coap://127.0.0.1:{node.port} data={node.data}"
    process = node.process
    assert process is not None and process.stdout is not None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert process.stdout.read() == "", "exactly one line is printed"
    assert "started" in node.logged()
    assert "stopped" in node.logged()
    node.stop()


def test_ctrl_c_ends_a_node_as_well(tmp_path: Path) -> None:
    node = Node(tmp_path / "node").start()
    assert node.process is not None
    node.process.send_signal(signal.SIGINT)
    assert node.process.wait(10) == 0
    node.stop()


def test_the_data_directory_and_what_is_in_it_belong_to_the_owner_alone(node: Node) -> None:
    assert node.data.stat().st_mode & 0o777 == 0o700
    for path in node.data.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def refused(*arguments: str | Path, node: Node | None = None) -> str:
    """Run `locum up` where it must not start; returns its one line of error."""
    environment = None if node is None else node.environment
    result = subprocess.run([LOCUM, "up", *arguments], capture_output=True, text=True, timeout=20, env=environment)
    assert result.returncode == 1
    assert result.stdout == ""
    *_, line = result.stderr.splitlines()
    assert line.startswith("locum: error: ")
    assert "Traceback" not in result.stderr
    return line


def test_a_second_node_on_the_same_data_is_refused_and_harms_nothing(node: Node) -> None:
    credential = node.enrol("meter")
    line = refused("--data", node.data, "--listen", "127.0.0.1:0")
    assert "another node runs on this data directory" in line
    assert str(node.pid) in line
    with DelegateClient(credential) as terminal:
        terminal.handshake(PEER)


def test_a_port_in_use_is_one_clear_line(node: Node, tmp_path: Path) -> None:
    line = refused("--data", tmp_path / "other", "--listen", node.address)
    assert "the port is in use" in line
    assert node.address in line


def test_a_udp_port_in_use_is_refused_too(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert "the port is in use" in refused("--data", tmp_path / "node", "--listen", f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("listen", "complaint"),
    [
        ("192.0.2.1:5683", "does not have that address"),
        ("127.0.0.1:99999", "port"),
        ("nowhere.invalid:5683", "cannot listen"),
    ],
)
def test_an_address_that_cannot_be_listened_at_is_one_clear_line(
    tmp_path: Path, listen: str, complaint: str
) -> None:
    assert complaint in refused("--data", tmp_path / "node", "--listen", listen)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[delegate]\nlisten = 5683\n", "delegate.listen"),
        ("[delegate]\nsession_lifetime = 0\n", "delegate.session_lifetime"),
        ("[delegate\n", "not TOML"),
        ("[delegate]\nlissten = '127.0.0.1:1'\n", "no such setting"),
    ],
)
def test_a_bad_configuration_is_one_clear_line_that_names_file_and_key(
    tmp_path: Path, content: str, complaint: str
) -> None:
    file = tmp_path / "locum.toml"
    file.write_text(content)
    line = refused("--data", tmp_path / "node", "--config", file)
    assert str(file) in line
    assert complaint in line


def test_a_wrong_or_missing_node_key_is_one_clear_line(tmp_path: Path) -> None:
    node = Node(tmp_path / "node").start()
    node.stop()
    key = node.data / "node.key"
    right = key.read_bytes()
    key.write_bytes(bytes(32))
    assert "wrong node key" in refused("--data", node.data)
    key.unlink()
    assert "node.key is missing" in refused("--data", node.data)
    key.write_bytes(right)
    key.chmod(0o644)
    assert "chmod 600" in refused("--data", node.data)
    key.chmod(0o600)
    assert node.start().stop() == 0


def test_a_damaged_database_is_one_clear_line(tmp_path: Path) -> None:
    data = tmp_path / "node"
    data.mkdir(mode=0o700)
    (data / "locum.db").write_bytes(b"this is not a database" * 1000)
    assert "not a database" in refused("--data", data)


def test_a_data_directory_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be made" in refused("--data", tmp_path / "file" / "node")


# --- service ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["UDP", "TCP"])
def test_a_terminal_completes_handshakes(node: Node, stream: bool) -> None:
    with DelegateClient(node.enrol("meter"), stream=stream) as terminal:
        first, second = terminal.handshake(PEER), terminal.handshake(PEER)
    assert len(first) == len(second) == 32
    assert first != second


def test_one_session_may_move_between_udp_and_tcp(node: Node) -> None:
    credential = node.enrol("meter")
    with DelegateClient(credential) as datagrams, DelegateClient(credential, stream=True) as stream:
        session = RemoteSession()
        (start,) = datagrams.perform(session, exchange.START)
        assert isinstance(start, StartResponse)
        stream.perform(session, exchange.server_share(start)[0])
        verdict, _ = datagrams.perform(session, exchange.authenticate13(PEER), MasterSecretRequest())
        assert getattr(verdict, "accepted", False)


def test_a_message_replayed_over_the_other_transport_is_not_performed_again(node: Node) -> None:
    """Both transports share one replay window; else the same nonce would protect two different answers."""
    credential = node.enrol("meter")
    with DelegateClient(credential) as terminal:
        terminal.handshake(PEER)
        first = oscore_option(Message.parse_datagram(terminal.sent[0]))
    del terminal
    with DelegateClient(credential, stream=True) as terminal:
        terminal.handshake(PEER)
        captured = requests_of(terminal)
    assert first is not None
    contexts = {option.kid_context for message in captured if (option := oscore_option(message)) is not None}
    assert contexts == {first.kid_context}, "one context, known to be fresh over both transports"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        attacker.connect(("127.0.0.1", node.port))
        attacker.settimeout(2.0)
        for number, message in enumerate(captured):
            attacker.send(message._replace(message_id=number, token=b"xy").write_datagram())
            assert not protected_by_the_requests_nonce(Message.parse_datagram(attacker.recv(2000)))


def test_200_terminals_at_once_are_all_served(tmp_path: Path) -> None:
    with running_node(tmp_path) as node:
        prepare(node)
        credentials = [enrolled_directly(node, f"meter-{number}") for number in range(200)]
        time.sleep(1.0)
        failures: list[BaseException] = []

        def work(credential: Path) -> None:
            try:
                with DelegateClient(credential) as terminal:
                    terminal.handshake(PEER)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(credential,)) for credential in credentials]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []


def test_a_flood_of_one_terminal_is_limited_while_another_is_served(tmp_path: Path) -> None:
    config = "[delegate]\nrequests_per_second = 5\nrequest_burst = 20\n"
    with running_node(tmp_path, config=config) as node:
        prepare(node)
        start = encode_requests(b"", (exchange.START,))
        with DelegateClient(node.enrol("flood")) as flood, DelegateClient(node.enrol("meter")) as meter:
            time.sleep(1.0)
            codes = [flood.post(start).code for _ in range(60)]
            assert codes[:20] == [Code.CHANGED] * 20
            assert Code.TOO_MANY_REQUESTS in codes[20:]
            meter.handshake(PEER)
            with pytest.raises(Unavailable, match="too many requests"):
                flood.perform(RemoteSession(), exchange.START)


def test_garbage_on_both_transports_does_not_disturb_a_terminal_at_work(node: Node) -> None:
    random = Random(5683)
    stop = threading.Event()

    def shower() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            while not stop.is_set():
                for _ in range(20):
                    datagrams.sendto(random.randbytes(random.randrange(1200)), ("127.0.0.1", node.port))
                with socket.create_connection(("127.0.0.1", node.port)) as stream:
                    stream.sendall(random.randbytes(random.randrange(1, 3000)))
                time.sleep(0.005)

    thread = threading.Thread(target=shower)
    thread.start()
    try:
        credential = node.enrol("meter")
        for stream in (False, True):
            with DelegateClient(credential, stream=stream) as terminal:
                for _ in range(20):
                    terminal.handshake(PEER)
    finally:
        stop.set()
        thread.join()
    assert "Traceback" not in node.logged()
    assert "unexpected" not in node.logged()


def test_mangled_copies_of_real_messages_do_not_disturb_a_terminal_at_work(node: Node) -> None:
    random = Random(8613)
    with DelegateClient(node.enrol("meter")) as terminal:
        terminal.handshake(PEER)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
            for _ in range(10):
                for original in terminal.sent[-12:]:
                    mangled = bytearray(original)
                    for _ in range(random.randrange(1, 4)):
                        mangled[random.randrange(len(mangled))] = random.randrange(256)
                    attacker.sendto(mangled[: random.randrange(1, len(mangled) + 1)], ("127.0.0.1", node.port))
                terminal.handshake(PEER)


# --- the secure path (A4) ---------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_plain_messages_are_accepted_on_the_secure_path_and_nowhere_else(tmp_path: Path) -> None:
    port = free_port()
    with running_node(tmp_path, config=f'[delegate]\nsecure_path_listen = "127.0.0.1:{port}"\n') as node:
        prepare(node)
        credential = node.enrol("meter")
        secure_path = ("127.0.0.1", port)
        time.sleep(1.0)
        for stream in (False, True):
            with DelegateClient(credential, plain_name="meter", address=secure_path, stream=stream) as terminal:
                terminal.handshake(PEER)
            with DelegateClient(credential, plain_name="stranger", address=secure_path, stream=stream) as terminal:
                assert terminal.post(encode_requests(b"", (exchange.START,))).code == Code.UNAUTHORIZED
            plain_elsewhere = DelegateClient(credential, plain_name="meter", stream=stream)
            with plain_elsewhere as terminal, pytest.raises(LocumError):
                terminal.handshake(PEER)
            protected_here = DelegateClient(credential, address=secure_path, stream=stream)
            with protected_here as terminal, pytest.raises(LocumError):
                terminal.handshake(PEER)
        with DelegateClient(credential) as terminal:
            terminal.handshake(PEER)


# --- ending with work under way, crashes ------------------------------------------------------------------


def test_at_sigterm_sessions_in_flight_are_finished_and_new_ones_refused(node: Node) -> None:
    with DelegateClient(node.enrol("meter")) as terminal, DelegateClient(node.enrol("other")) as other:
        session = RemoteSession()
        (start,) = terminal.perform(session, exchange.START)
        assert isinstance(start, StartResponse)
        other.handshake(PEER)
        assert node.process is not None
        node.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        with pytest.raises(Unavailable, match="being stopped"):
            other.perform(RemoteSession(), exchange.START)
        terminal.perform(session, exchange.server_share(start)[0])
        verdict, _ = terminal.perform(session, exchange.authenticate13(PEER), MasterSecretRequest())
        assert getattr(verdict, "accepted", False)
        assert node.stop() == 0
    assert "completed=2" in node.logged()


def test_after_a_crash_terminals_go_on_and_no_nonce_is_used_twice(tmp_path: Path) -> None:
    node = prepare(Node(tmp_path / "node"))
    node.start()
    credential = node.enrol("meter")
    numbers: list[bytes] = []
    with DelegateClient(credential) as terminal:
        for _ in range(3):
            terminal.handshake(PEER)
            node.kill()
            node.start()
        numbers = own_numbers(terminal)
        assert len(numbers) >= 3, "every new process challenges a terminal that it does not know to be fresh"
        assert len(set(numbers)) == len(numbers)
    with DelegateClient(credential) as terminal:
        terminal.handshake(PEER)
        assert not set(own_numbers(terminal)) & set(numbers)
    node.stop()


def test_messages_replayed_after_a_crash_are_not_performed_again(tmp_path: Path) -> None:
    node = prepare(Node(tmp_path / "node"))
    node.start()
    with DelegateClient(node.enrol("meter")) as terminal:
        terminal.handshake(PEER)
        captured = list(terminal.sent)
    node.kill()
    node.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        attacker.connect(("127.0.0.1", node.port))
        attacker.settimeout(2.0)
        for data in captured:
            attacker.send(data)
            assert not protected_by_the_requests_nonce(Message.parse_datagram(attacker.recv(2000)))
    assert node.stop() == 0
    assert "completed=" not in node.logged().rpartition("started")[2]


def test_a_delegate_that_was_restarted_in_mid_handshake_says_so(node: Node) -> None:
    with DelegateClient(node.enrol("meter")) as terminal:
        session = RemoteSession()
        (start,) = terminal.perform(session, exchange.START)
        assert isinstance(start, StartResponse)
        node.kill()
        node.start()
        with pytest.raises(Unavailable, match="begin again"):
            terminal.perform(session, exchange.server_share(start)[0])
        terminal.handshake(PEER)


def test_a_killed_node_leaves_no_lock_and_a_whole_audit_log(node: Node) -> None:
    with DelegateClient(node.enrol("meter")) as terminal:
        terminal.handshake(PEER)
    time.sleep(1.0)
    node.kill()
    node.start()
    assert node.locum("audit", "list").stdout.count("key handed over") == 1


def test_the_log_and_the_audit_log_contain_no_secret(node: Node) -> None:
    credential = node.enrol("meter")
    with DelegateClient(credential) as terminal:
        master = terminal.handshake(PEER)
        token_and_key = encode_requests(bytes(8), (MasterSecretRequest(),))
        terminal.post(token_and_key)
    node.stop()
    everything = node.logged() + node.locum("audit", "list", "--json").stdout
    key = next(line for line in credential.read_text().splitlines() if line.startswith("key"))
    assert key.split('"')[1] not in everything
    assert master.hex() not in everything
    node.start()


def test_a_terminal_whose_key_is_wrong_is_turned_away(node: Node) -> None:
    credential = node.enrol("meter")
    lines = credential.read_text().splitlines()
    wrong = [('key = "' + "A" * 22 + '=="') if line.startswith("key") else line for line in lines]
    other = credential.with_name("wrong")
    other.write_text("\n".join(wrong))
    other.chmod(0o600)
    with DelegateClient(other) as terminal, pytest.raises((Refused, Unavailable)):
        terminal.handshake(PEER)


# --- reading what passed ----------------------------------------------------------------------------------


def enrolled_directly(node: Node, name: str) -> Path:
    """As `Node.enrol`, without a process for each."""
    from typer.testing import CliRunner

    from locum.cli.enroll import app

    credential = node.data.parent / f"{name}.credential"
    arguments = ["terminal", name, "--data", str(node.data), "--out", str(credential), "--address", node.url]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return credential


def requests_of(terminal: DelegateClient) -> list[Message]:
    """What a terminal sent over a stream, each with the ID Context that only the first ones carry."""
    reader = StreamReader()
    reader.feed(b"".join(terminal.sent))
    messages: list[Message] = []
    id_context: bytes | None = None
    while (message := reader.next()) is not None:
        option = oscore_option(message)
        if option is None:
            continue
        id_context = option.kid_context or id_context
        others = tuple(each for each in message.options if each[0] != OptionNumber.OSCORE)
        whole = (int(OptionNumber.OSCORE), option._replace(kid_context=id_context).write())
        messages.append(message._replace(options=(*others, whole)))
    assert len(messages) >= 3
    return messages


def oscore_option(message: Message) -> OscoreOption | None:
    """The OSCORE option of an answer, or None when it is not protected."""
    values = [value for number, value in message.options if number == OptionNumber.OSCORE]
    return OscoreOption.parse(values[0]) if values else None


def protected_by_the_requests_nonce(answer: Message) -> bool:
    """True for an answer that a request which was not fresh must never get."""
    option = oscore_option(answer)
    return option is not None and not option.piv


def own_numbers(terminal: DelegateClient) -> list[bytes]:
    """The Partial IVs of the delegate itself, of which every nonce is made once."""
    options = [oscore_option(Message.parse_datagram(data)) for data in terminal.received]
    return [option.piv for option in options if option is not None and option.piv]
