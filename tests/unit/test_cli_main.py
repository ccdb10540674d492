"""The command `locum`: lazy dispatch, and every error as one line with the right exit status."""

import os
import subprocess
import sys
import types
from collections.abc import Callable

import pytest
import typer

from locum import __version__
from locum.cli import main
from locum.errors import ConfigurationError


def install(monkeypatch: pytest.MonkeyPatch, command: Callable[..., object]) -> None:
    """Make `locum fake` run `command`."""
    module = types.ModuleType("fake_module")
    module.app = typer.Typer()  # type: ignore[attr-defined]
    module.app.command()(command)
    monkeypatch.setitem(sys.modules, "fake_module", module)
    monkeypatch.setitem(main.COMMANDS, "fake", main.Command("fake", "fake_module", "app", "A fake."))


def test_help_lists_every_command_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--help"]) == 0
    printed = capsys.readouterr().out
    for command in main.COMMANDS.values():
        assert f"  {command.name} " in printed
        assert command.summary in printed


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out == f"locum {__version__}\n"


def test_no_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([]) == 2
    assert "Usage" in capsys.readouterr().out


def test_unknown_command_is_one_line_and_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["frobnicate"]) == 2
    assert capsys.readouterr().err == "locum: error: No command 'frobnicate'. See: locum --help\n"


def test_typed_error_becomes_one_line_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise ConfigurationError("the file\nis not there")

    install(monkeypatch, command)
    assert main.run(["fake"]) == 1
    assert capsys.readouterr().err == "locum: error: the file is not there\n"


def test_what_a_peer_wrote_into_an_error_cannot_control_the_users_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise ConfigurationError("the peer says \x1b[2J\x07 and \x9b31m")

    install(monkeypatch, command)
    assert main.run(["fake"]) == 1
    assert capsys.readouterr().err == "locum: error: the peer says \\x1b[2J\\x07 and \\x9b31m\n"


def test_operating_system_error_becomes_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise PermissionError(13, "Permission denied", "/somewhere")

    install(monkeypatch, command)
    assert main.run(["fake"]) == 1
    assert capsys.readouterr().err == "locum: error: [Errno 13] Permission denied: '/somewhere'\n"


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        raise ZeroDivisionError

    install(monkeypatch, command)
    with pytest.raises(ZeroDivisionError):
        main.run(["fake"])


def test_wrong_option_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, lambda: None)
    assert main.run(["fake", "--nonsense"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("locum: error: No such option: --nonsense") and printed.count("\n") == 1


@pytest.mark.parametrize("status", [0, 1, 3])
def test_status_of_the_command_is_passed_on(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    install(monkeypatch, lambda: status)
    assert main.run(["fake"]) == status


def test_exit_inside_a_command_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        raise typer.Exit(7)

    install(monkeypatch, command)
    assert main.run(["fake"]) == 7


def test_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        raise KeyboardInterrupt

    install(monkeypatch, command)
    assert main.run(["fake"]) == 130


def test_reader_that_has_gone_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "locum", "--help"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


def loaded_by(*arguments: str) -> list[str]:
    """The names of all modules that a command line has loaded when it is done."""
    code = f"import sys\nfrom locum.cli.main import run\nrun({list(arguments)})\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def test_help_of_all_commands_loads_none_of_them() -> None:
    heavy = ("locum.cli.", "sqlalchemy", "cryptography", "typer")
    assert [name for name in loaded_by("--help") if name.startswith(heavy)] == ["locum.cli.main"]


def test_terminal_commands_load_no_database_and_no_public_key_code() -> None:
    heavy = (
        "alembic",
        "cryptography.hazmat.primitives.asymmetric",
        "cryptography.x509",
        "locum.crypto.asymmetric",
        "locum.store",
        "sqlalchemy",
    )
    assert [name for name in loaded_by("terminal", "tls", "--help") if name.startswith(heavy)] == []
