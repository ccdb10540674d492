"""README's commands, run exactly as they stand there, on ports of their own."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"<!-- run: ([\w-]+) -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 60
#: What a person does by looking at the screen.
WAIT_FOR_NODE = "until [ -s locum-data/locum.db ]; do sleep 0.1; done; sleep 0.5\n"
GREETING = "Hello from behind TLS.\n"


def free_port() -> int:
    """A port below those that the system gives out by itself, which might be given to another test meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("", port)):
            return port


def blocks(name: str, ports: dict[str, str]) -> list[str]:
    """README's blocks that are run under this name, with the ports that it says replaced by others."""
    found = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    said = re.compile(rf"\b({'|'.join(ports)})\b")
    return [said.sub(lambda port: ports[port[0]], text) for each, text in found if each == name]


def script() -> list[str]:
    """The commands by hand, on free ports."""
    ports = {name: str(free_port()) for name in ("4433", "8080", "5683")}
    return [
        text.replace("locum up", f"locum up --listen 127.0.0.1:{ports['5683']}").replace(
            "enroll terminal meter-7", f"enroll terminal meter-7 --address coap://127.0.0.1:{ports['5683']}"
        )
        for text in blocks("by-hand", ports)
    ]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Types one block after the other into one shell, and returns what the foreground printed."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    environment = {name: value for name, value in os.environ.items() if name != "LOCUM_DATA"}
    process = subprocess.Popen(
        ["bash", "-e"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "stderr").open("wb"),
        text=True,
        process_group=0,
    )
    assert process.stdin is not None and process.stdout is not None
    stdin, stdout = process.stdin, process.stdout
    # What runs in the background keeps the pipe open when a command fails and the shell ends, so it says so.
    stdin.write("trap 'echo ---failed---' EXIT\n")

    def run(block: str) -> str:
        stdin.write(block + "\necho ---end---\n")
        stdin.flush()
        printed = ""
        while not printed.endswith("---end---\n"):
            line = stdout.readline()
            assert line not in ("", "---failed---\n"), (printed, (tmp_path / "stderr").read_text())
            printed += line
        return printed.removesuffix("---end---\n")

    # Whatever hangs ends here, and the test with it.
    watchdog = threading.Timer(SECONDS, os.killpg, (process.pid, signal.SIGKILL))
    watchdog.start()
    yield run
    watchdog.cancel()
    # The shell may have ended by itself; what it left in the background has not.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(BrokenPipeError):
        stdin.close()
    process.wait(SECONDS)
    stdout.close()


def test_commands_by_hand_work_as_written(shell: Callable[[str], str], require: Callable[[str], Path]) -> None:
    for program in ("openssl", "curl"):
        require(program)
    assert shutil.which("bash")
    server, node, admin, terminal, proxy = script()
    shell(server)
    shell(node)
    printed = shell(WAIT_FOR_NODE + admin)
    assert "ready delegate=" in printed
    assert "enrolled terminal meter-7" in printed
    assert shell(terminal).endswith(GREETING)
    assert shell(proxy).endswith(GREETING)


def until_listening(port: str) -> str:
    """What a person does by waiting for the line with `ready`."""
    return f"until (: < /dev/tcp/127.0.0.1/{port}) 2> /dev/null; do sleep 0.1; done\n"


def test_a_key_server_works_as_written(shell: Callable[[str], str], require: Callable[[str], Path]) -> None:
    for program in ("openssl", "curl"):
        require(program)
    ports = {name: str(free_port()) for name in ("2407", "8000", "8443")}
    site, keys, edge, client = blocks("key-server", ports)
    shell(site)
    assert "enrolled edge front-1" in shell(keys)
    shell(until_listening(ports["8000"]) + until_listening(ports["2407"]) + edge)
    printed = shell(until_listening(ports["8443"]) + client)
    assert GREETING in printed
    assert "edge front-1 is revoked" in printed
    # The key server writes what it has counted within a second; the command may be faster.
    assert "edge.revoke" in printed
    shell("until .venv/bin/locum audit list | grep certificate-verify; do sleep 0.2; done\n")
