"""The parts of `locum demo ike` that need no network: what is read from programs, and what is checked."""

import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from locum.cli import main
from locum.cli.steps import line_of
from locum.demo import ike, keyserver, namespaces, scenario
from locum.demo.ipsec_terminal import parse_step
from locum.demo.ladder import Ladder
from locum.demo.programs import PROGRAMS, Program
from locum.demo.strongswan import parse_secrets, settings_text
from locum.errors import Misbehaved, Unavailable
from locum.terminal.steps import Actor, StepName, TerminalStep

STEP = TerminalStep(
    actor=Actor.PEER,
    operation=StepName.IKE,
    detail="main mode 5: IDii, CERT, SIG  (not a count)",
    bytes_out=12,
    bytes_in=345,
    seconds=0.0123,
)


@pytest.mark.parametrize("actor", Actor)
@pytest.mark.parametrize("operation", StepName)
def test_every_step_is_read_back_from_its_line(actor: Actor, operation: StepName) -> None:
    step = replace(STEP, actor=actor, operation=operation)
    read = parse_step(f"{0.5:10.4f}  {line_of(step)}")
    assert read is not None
    assert read.seconds == pytest.approx(step.seconds, abs=1e-4)
    assert replace(read, seconds=step.seconds) == step


def test_a_step_without_bytes_and_time_is_read_back() -> None:
    step = TerminalStep(actor=Actor.TERMINAL, operation=StepName.DERIVE_KEY, detail="from the key response")
    assert parse_step(line_of(step)) == step


@pytest.mark.parametrize(
    "line", ["", "ready local=*", "SA up: 10.1.0.0/24", "delegate", "locum: warning: no delegate  ike  answers"]
)
def test_other_lines_are_no_steps(line: str) -> None:
    assert parse_step(line) is None


KEY = TerminalStep(actor=Actor.DELEGATE, operation=StepName.REQUEST_KEY)
LAST = TerminalStep(actor=Actor.PEER, operation=StepName.IKE, detail="main mode 6: ID, SIG")
QUICK = replace(LAST, detail="quick mode 1: HASH, SA")


def test_messages_of_quick_mode_are_counted_behind_the_key() -> None:
    assert ike.quick_mode_messages([LAST, KEY, LAST, QUICK, replace(LAST, actor=Actor.TERMINAL), QUICK]) == 2


def test_a_delegate_that_was_asked_in_quick_mode_is_noticed() -> None:
    with pytest.raises(Misbehaved, match="quick mode"):
        ike.quick_mode_messages([KEY, QUICK, replace(KEY, operation=StepName.GENERATE_KEY)])


LOG = """\
12:00:01 10[CHD] <net|1> shared secret => 20 bytes @ 0x7f01
12:00:01 10[CHD] <net|1>    0: 00 01 02 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F  ................
12:00:01 10[CHD] <net|1>   16: 10 11 12 13                                      ....
12:00:01 10[IKE] something else => of no interest
12:00:02 11[IKE] SKEYID_d => 2 bytes @ 0x7f02
12:00:02 11[IKE]    0: AB CD                                            ..
"""


def test_secrets_are_read_from_the_log() -> None:
    assert parse_secrets(LOG) == [("shared secret", bytes(range(20))), ("SKEYID_d", b"\xab\xcd")]


def test_settings_are_written_as_strongswan_reads_them() -> None:
    assert settings_text({"a": 1, "b": {"c": "yes", "d": {}}}) == "a = 1\nb {\n  c = yes\n  d {\n  }\n}\n"


# --- where it cannot be shown -----------------------------------------------------------------------------------


def test_whoever_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert ike.why_left_out() == "making network namespaces needs root: try with sudo"
    with pytest.raises(Unavailable, match="IKE cannot be shown here: making network namespaces needs root"):
        ike.IkeDemo(tmp_path, Ladder(Console())).run()


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ike, "why_not", lambda: "")
    monkeypatch.setitem(PROGRAMS, "charon-systemd", Program("no-such-charon", "charon-systemd"))
    reason = ike.why_left_out()
    assert "no-such-charon is not installed: sudo apt-get install --no-install-recommends charon-systemd" in reason


def test_a_namespace_that_cannot_be_made_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gets so far")

    def fail(*_: object) -> None:
        raise Unavailable("no network namespace can be made: Operation not permitted")

    monkeypatch.setattr(namespaces.Namespace, "open", fail)
    assert namespaces.why_not() == "no network namespace can be made: Operation not permitted"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Whether each part of the whole demo works, in place of the part itself."""
    works = {"tls": True, "ike": True, "keyserver": True}
    monkeypatch.setattr(scenario.Demo, "run", lambda self: works["tls"])
    for name, module, demo in (
        ("ike", ike, ike.IkeDemo),
        ("keyserver", keyserver, keyserver.KeyServerDemo),
    ):
        monkeypatch.setattr(module, "why_left_out", lambda: "")
        monkeypatch.setattr(module, "missing_programs", lambda names: [])
        monkeypatch.setattr(demo, "run", lambda self, name=name: works[name])
    return works


@pytest.mark.parametrize("tls_works", [True, False])
@pytest.mark.parametrize("left_out", [ike, keyserver], ids=["ike", "keyserver"])
def test_the_whole_demo_leaves_a_part_out_with_a_line(
    left_out: ModuleType,
    tls_works: bool,
    parts: dict[str, bool],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts["tls"] = tls_works
    monkeypatch.setattr(left_out, "why_left_out", lambda: "what it needs is not here")
    assert main.run(["demo"]) == (0 if tls_works else 1)
    assert capsys.readouterr().out.count("left out: what it needs is not here") == 1


@pytest.mark.parametrize("failing", ["", "tls", "ike", "keyserver"])
def test_the_whole_demo_works_when_all_parts_do(failing: str, parts: dict[str, bool]) -> None:
    if failing:
        parts[failing] = False
    assert main.run(["demo"]) == (1 if failing else 0)


def test_ike_alone_fails_with_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ike, "why_left_out", lambda: "there is no strongSwan")
    monkeypatch.setattr(ike, "missing_programs", lambda names: [])
    assert main.run(["demo", "ike"]) == 1
    assert capsys.readouterr().err == "locum: error: IKE cannot be shown here: there is no strongSwan\n"
