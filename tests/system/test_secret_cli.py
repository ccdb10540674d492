"""`locum secret` as a user gives it: where secrets come from, which are taken, and that none is ever shown."""

from __future__ import annotations

import base64
import io
import os
import pty
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from tests.support.shell import Result, Shell

from locum.cli.secret import INPUT_LIMIT
from locum.store import SharedSecret, SharedSecretKind, open_node_store
from locum.store.secrets import SECRET_LIMIT

pytest_plugins = ["tests.support.shell_fixtures"]

SECRET = b"correct horse battery staple"
ADD = ("secret", "add", "--terminal", "meter")


@pytest.fixture
def node(locum: Shell) -> Shell:
    """A node with the terminal `meter`."""
    locum.ok("enroll", "terminal", "meter", "--out", "meter.credential")
    return locum


def given(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Let standard input be a pipe with `data` in it."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def kept() -> list[SharedSecret]:
    with open_node_store(Path("locum-data"), create=False) as store:
        return store.secrets.all()


def write(name: str, data: bytes, mode: int = 0o600) -> Path:
    path = Path(name)
    path.write_bytes(data)
    path.chmod(mode)
    return path


def assert_silent(result: Result) -> None:
    """Nothing of the secret is shown, not even a word of it."""
    assert not any(word in result.out + result.err for word in SECRET.decode().split())


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_a_secret_is_one_line_of_standard_input(
    node: Shell, monkeypatch: pytest.MonkeyPatch, ending: bytes
) -> None:
    given(monkeypatch, SECRET + ending)
    added = node.ok(*ADD, "--peer", "Peer.Example")
    assert "terminal meter and dns:peer.example" in added.out
    assert_silent(added)
    [secret] = kept()
    assert (secret.secret, secret.kind, secret.local_identity) == (SECRET, SharedSecretKind.PRE_SHARED_KEY, "")


@pytest.mark.parametrize(
    ("written", "peer"),
    [
        ("192.0.2.1", "ip:192.0.2.1"),
        ("2001:DB8::1", "ip:2001:db8::1"),
        ("alice@Example.com", "email:alice@example.com"),
        ("dn:CN=Peer,O=Example", "dn:CN=peer,O=example"),
        ("keyid:00FF", "keyid:00ff"),
        ("*", "*"),
    ],
)
def test_a_peer_is_named_in_any_form(node: Shell, written: str, peer: str) -> None:
    node.ok(*ADD, "--peer", written, "--local-id", "meter@example.com", write("psk", SECRET))
    [secret] = kept()
    assert (secret.peer, secret.local_identity) == (peer, "email:meter@example.com")


@pytest.mark.parametrize(
    ("option", "written"),
    [
        ("--hex", SECRET.hex().encode() + b"\n"),
        ("--hex", SECRET.hex(" ", 2).upper().encode()),
        ("--base64", base64.encodebytes(SECRET)),
    ],
)
def test_a_secret_may_be_written_in_hexadecimal_or_base64(node: Shell, option: str, written: bytes) -> None:
    node.ok(*ADD, "--peer", "peer.example", option, write("psk", written))
    assert kept()[0].secret == SECRET


def test_a_post_quantum_key_is_named_and_may_be_required(node: Shell) -> None:
    key = write("ppk", bytes(range(32)).hex().encode())
    added = node.ok(*ADD, "--peer", "peer.example", "--ppk", "ppk-1", "--required", "--hex", key)
    assert "post-quantum pre-shared key ppk-1 (id 1)" in added.out
    [secret] = kept()
    assert (secret.kind, secret.identifier, secret.required) == (SharedSecretKind.POST_QUANTUM, "ppk-1", True)


def test_a_terminal_asks_twice_and_shows_nothing(node: Shell) -> None:
    command = [sys.executable, "-m", "locum", *ADD, "--peer", "peer.example"]
    main, side = pty.openpty()
    with subprocess.Popen(command, stdin=side, stdout=side, stderr=side, start_new_session=True) as process:
        os.close(side)
        shown = b""
        for prompt in (b"Shared secret: ", b"confirmation: "):
            while prompt not in shown:
                shown += os.read(main, 1024)
            while termios.tcgetattr(main)[3] & termios.ECHO:
                time.sleep(0.01)
            os.write(main, SECRET + b"\n")
        while chunk := _read(main):
            shown += chunk
    os.close(main)
    assert process.returncode == 0, shown
    assert b"horse" not in shown
    assert kept()[0].secret == SECRET


def _read(descriptor: int) -> bytes:
    """What the other side of a pseudo-terminal has written; nothing when it is closed."""
    try:
        return os.read(descriptor, 1024)
    except OSError:
        return b""


LONG = b"horse" * 8
REFUSED: dict[str, tuple[bytes, tuple[str, ...], str]] = {
    "short": (b"horse" * 3, (), "of 15 bytes can be guessed: at least 16"),
    "short for quantum computers": (b"horse" * 6, ("--ppk", "x"), "of 30 bytes can be guessed: at least 32"),
    "empty": (b"\n", ("--weak",), "1 to 512 bytes, not 0"),
    "long": (b"horse" * 200, (), "1 to 512 bytes, not 1000"),
    "endless": (b"horse" * INPUT_LIMIT, (), f"larger than {INPUT_LIMIT} bytes"),
    "two lines": (LONG + b"\nhorse", (), "one line without control characters"),
    "zero byte": (LONG + b"\x00", (), "one line without control characters"),
    "not hexadecimal": (LONG, ("--hex",), "is not hexadecimal"),
    "odd hexadecimal": (b"0" * 33, ("--hex",), "is not hexadecimal"),
    "cut base64": (b"horse" * 5, ("--base64",), "is not base64"),
    "not base64": (b"horse!!!" * 4, ("--base64",), "is not base64"),
    "two forms": (LONG, ("--hex", "--base64"), "not both"),
    "required": (LONG, ("--required",), "only a post-quantum"),
    "post-quantum identity": (LONG, ("--ppk", "x", "--local-id", "a.example"), "no identity of the terminal"),
    "peers by a star": (LONG, ("--peer", "*.example"), "does not name one peer"),
    "peers by a network": (LONG, ("--peer", "ip:192.0.2.0/24"), "does not name one peer"),
    "local identity": (LONG, ("--local-id", "dn:CN=a\\0"), "not a distinguished name"),
    "identity that IKE cannot carry": (LONG, ("--local-id", "dn:C=Germany"), "cannot be written as"),
    "unknown terminal": (LONG, ("--terminal", "ghost"), "'ghost'"),
}


@pytest.mark.parametrize(("data", "options", "message"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("way", ["file", "standard input"])
def test_what_is_no_secret_is_refused_without_showing_it(
    node: Shell, monkeypatch: pytest.MonkeyPatch, data: bytes, options: tuple[str, ...], message: str, way: str
) -> None:
    given(monkeypatch, b"" if way == "file" else data)
    files = [write("psk", data)] if way == "file" else []
    error = node.refused(*ADD, "--peer", "peer.example", *options, *files)
    assert message in error
    assert "horse" not in error
    assert kept() == []


def test_a_short_secret_is_taken_with_a_warning_when_that_is_wanted(node: Shell) -> None:
    added = node.ok(*ADD, "--peer", "peer.example", "--weak", write("psk", b"horse"))
    assert added.err == "locum: warning: a pre-shared key of 5 bytes can be guessed\n"
    assert kept()[0].secret == b"horse"


def test_the_longest_secret_is_taken(node: Shell) -> None:
    node.ok(*ADD, "--peer", "peer.example", "--hex", write("psk", (b"\xff" * SECRET_LIMIT).hex(" ").encode()))
    assert kept()[0].secret == b"\xff" * SECRET_LIMIT


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_file_that_others_can_read_is_refused(node: Shell, mode: int) -> None:
    error = node.refused(*ADD, "--peer", "peer.example", write("psk", SECRET, mode))
    assert "open to other users; fix: chmod 600 psk" in error
    assert kept() == []


def test_a_file_that_is_not_there_is_named(node: Shell) -> None:
    assert "nowhere: no such shared secret" in node.refused(*ADD, "--peer", "peer.example", "nowhere")


def test_a_secret_is_replaced_only_on_demand(node: Shell) -> None:
    node.ok(*ADD, "--peer", "peer.example", write("psk", SECRET))
    again = (*ADD, "--peer", "peer.example", write("other", b"another" * 4))
    assert "--replace puts this one in its place" in node.refused(*again)
    node.ok(*again, "--replace")
    assert [secret.secret for secret in kept()] == [b"another" * 4]


def test_the_list_has_everything_but_the_secrets(node: Shell) -> None:
    node.ok(*ADD, "--peer", "peer.example", "--local-id", "meter.example", write("psk", SECRET))
    node.ok(*ADD, "--peer", "*", "--ppk", "ppk-1", write("ppk", b"horse staple" * 4))
    listed = node.json("secret", "list")
    assert [(row["id"], row["terminal"], row["peer"], row["kind"], row["local_id"]) for row in listed] == [
        (1, "meter", "dns:peer.example", "psk", "dns:meter.example"),
        (2, "meter", "*", "ppk", ""),
    ]
    assert listed[0].keys() == {"id", "terminal", "peer", "kind", "local_id", "ppk_id", "required", "added"}
    for shown in (node.ok("secret", "list"), node.ok("secret", "list", "--json"), node.ok("audit", "list")):
        assert_silent(shown)
        assert SECRET.hex() not in shown.out
    assert SECRET not in Path("locum-data/locum.db").read_bytes()


def test_secrets_are_removed_by_their_ids(node: Shell) -> None:
    for peer in ("a.example", "b.example", "c.example"):
        node.ok(*ADD, "--peer", peer, write("psk", SECRET))
    assert node.ok("secret", "remove", "1", "3").out.count("removed") == 2
    assert [secret.peer for secret in kept()] == ["dns:b.example"]
    assert "id 1; see: locum secret list" in node.refused("secret", "remove", "1")
    node.ok("terminals", "remove", "meter")
    assert node.json("secret", "list") == []
