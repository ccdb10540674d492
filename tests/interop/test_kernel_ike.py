"""`locum terminal ipsec` and strongSwan, both over the kernel's IPsec, in user-mode-linux (A8, A9, A11).

What strongSwan cannot do without a kernel: raw ESP, and transport mode. The keys are those that both kernels show.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support import kernel_ike_guest
from tests.support.kernel_ike_guest import Case, Rekeyed, Result
from tests.support.require import require
from tests.support.uml import Guest, GuestFailed

from locum.demo.programs import IKE_PROGRAMS

pytestmark = pytest.mark.xdist_group("uml-ike")

#: Pings that may be lost while one end has the successor and the other does not yet.
FEW = 2


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    for name in IKE_PROGRAMS:
        require(name)
    with Guest() as running:
        running.call(kernel_ike_guest.open_site)
        yield running


def do(guest: Guest, case: Case) -> Result:
    """One case, with the logs of both ends should it fail."""
    try:
        result: Result = guest.call(kernel_ike_guest.do, case)
    except GuestFailed as error:
        raise AssertionError(f"{error}\n{guest.call(kernel_ike_guest.log)}") from None
    return result


def check(guest: Guest, case: Case) -> Result:
    """Packets pass both ways by associations that are the same in both kernels, and nothing stays behind."""
    result = do(guest, case)
    assert set(result.ours) == set(result.theirs)
    assert len(result.ours) == 2
    for state in result.ours:
        assert state.protocol == "esp"
        assert state.mode == ("transport" if case.transport else "tunnel")
        assert state.encapsulated is case.encapsulated
        assert state.keys
    # Two pings each way, and their answers; a stream besides in a tunnel.
    assert result.received >= 4 and result.sent >= 4
    assert (result.received == result.sent == 4) or not case.transport or case.ipv6
    assert result.status == 0
    assert not result.left_over
    return result


@pytest.mark.parametrize("transport", [False, True], ids=["tunnel", "transport"])
@pytest.mark.parametrize("respond", [True, False], ids=["responder", "initiator"])
@pytest.mark.parametrize("version", [1, 2])
def test_both_kernels_have_the_keys_that_were_agreed_on(
    guest: Guest, version: int, respond: bool, transport: bool
) -> None:
    # One algorithm with one key, and two with a key each.
    proposal = "aes128-sha512" if transport else "aes256gcm16"
    result = check(guest, Case(version=version, respond=respond, transport=transport, proposal=proposal))
    assert all(len(state.keys) == (2 if transport else 1) for state in result.ours)


@pytest.mark.parametrize("version", [1, 2])
def test_transport_mode_between_ipv6_addresses(guest: Guest, version: int) -> None:
    check(guest, Case(version=version, transport=True, ipv6=True))


def test_auto_takes_the_kernel_and_esp_in_udp_shares_the_port_of_ike(guest: Guest) -> None:
    result = check(guest, Case(encapsulated=True, dataplane="auto"))
    assert any("data plane: kernel, since it has ESP" in line for line in result.lines)


@pytest.mark.parametrize(
    ("version", "by_peer"), [(1, True), (2, True), (2, False)], ids=["1-by-peer", "2-by-peer", "2-by-us"]
)
def test_rekeying_changes_keys_and_loses_nothing_to_speak_of(guest: Guest, version: int, by_peer: bool) -> None:
    case = Case(version=version, lifetime=0 if by_peer else 10)
    result: Rekeyed = guest.call(kernel_ike_guest.rekeyed, case, by_peer)
    successors = [state for state in result.after if state not in result.before]
    assert len(successors) == 2
    assert not {state.keys for state in result.before} & {state.keys for state in successors}
    assert result.sent > 0
    assert result.sent - result.answered <= FEW


def test_traffic_of_a_command_that_was_killed_stays_in_until_the_next(guest: Guest) -> None:
    assert guest.call(kernel_ike_guest.killed_and_again, Case()) == [True, False, True]


def test_an_sa_that_the_peer_deletes_is_taken_out(guest: Guest) -> None:
    lines = guest.call(kernel_ike_guest.deleted_by_peer, Case(respond=True))
    assert any(line.startswith("SA down:") for line in lines)
