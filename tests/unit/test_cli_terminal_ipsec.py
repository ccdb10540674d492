"""What `locum terminal ipsec` adds to the terminal that it runs: addresses, the choice of a data plane, hints."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from tests.support.ipsec_hosts import MemoryHost, Wire

from locum.cli import terminal_ipsec_run
from locum.cli.terminal_ipsec_run import Running, run_ipsec
from locum.errors import ConfigurationError, Incompatible, LocumError, Unavailable
from locum.ike.errors import NoProposalChosen
from locum.terminal.ipsec_options import IpsecOptions

CREDENTIAL = 'name = "west"\n[[delegates]]\naddress = "coap://127.0.0.1:5683"\nsecure_path = true\n'
REASON = "data plane: memory, for a test"


@pytest.fixture
def credential(tmp_path: Path) -> Path:
    path = tmp_path / "west.credential"
    path.touch(mode=0o600)
    path.write_text(CREDENTIAL)
    return path


@pytest.fixture(autouse=True)
def outcome(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What keeping the SA ends with, and what terminal was to do it."""
    found: dict[str, Any] = {"error": None}

    async def keep(terminal: Any, within: float | None) -> None:
        found["connection"] = terminal._connection
        if found["error"] is not None:
            raise found["error"]

    def choose(kind: str, *, explain: Callable[[str], None]) -> MemoryHost:
        explain(REASON)
        return MemoryHost(Wire(), "192.0.2.1")

    monkeypatch.setattr(terminal_ipsec_run, "_keep", keep)
    monkeypatch.setattr(terminal_ipsec_run, "choose_installer", choose)
    return found


def running(peer: str = "192.0.2.2", *, local: str = "", dataplane: str = "auto") -> Running:
    return Running(
        peer=peer,
        respond=False,
        local=local,
        port=None,
        peer_port=None,
        dataplane=dataplane,
        timeout=None,
        observer=None,
    )


def test_which_data_plane_auto_took_is_said_on_standard_error(
    credential: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_ipsec(credential, IpsecOptions(), running())
    assert capsys.readouterr() == ("", f"locum: {REASON}\n")
    run_ipsec(credential, IpsecOptions(), running(dataplane="tun"))
    assert capsys.readouterr() == ("", "")


def test_a_mistake_is_said_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LocumError, match="no such credential file"):
        run_ipsec(tmp_path / "none", IpsecOptions(), running())
    assert capsys.readouterr() == ("", "")


def test_a_peer_may_be_named(credential: Path, outcome: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(name: str, *_: Any, **__: Any) -> list[Any]:
        assert name == "gw.example.com"
        return [(socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("2001:db8::2", 0, 0, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    run_ipsec(credential, IpsecOptions(), running("GW.example.com"))
    assert outcome["connection"].remote == ip_address("2001:db8::2")


def test_a_name_without_an_address_is_said(credential: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(Unavailable, match=r"gw\.example\.com: Name or service not known"):
        run_ipsec(credential, IpsecOptions(), running("gw.example.com"))


@pytest.mark.parametrize("text", ["-", "a b", "192.0.2.2/32", "192.0.2.2:500"])
def test_what_is_neither_an_address_nor_a_name_is_refused(credential: Path, text: str) -> None:
    with pytest.raises(ConfigurationError):
        run_ipsec(credential, IpsecOptions(), running(text))


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (IpsecOptions(version="1", mode="aggressive"), True),
        (IpsecOptions(version="1", mode="aggressive", aggressive_psk=True), False),
        (IpsecOptions(version="1", mode="aggressive", methods="rsa"), False),
        (IpsecOptions(version="1"), False),
        (IpsecOptions(), False),
    ],
    ids=["withheld", "allowed", "not-wanted", "main", "ikev2"],
)
def test_a_pre_shared_key_that_was_held_back_is_named_as_the_reason(
    credential: Path, outcome: dict[str, Any], options: IpsecOptions, hint: bool
) -> None:
    outcome["error"] = NoProposalChosen("no phase 1 proposal of the peer is acceptable")
    with pytest.raises(Incompatible, match="no phase 1 proposal") as refusal:
        run_ipsec(credential, options, running())
    assert ("--allow-aggressive-psk" in str(refusal.value)) is hint
