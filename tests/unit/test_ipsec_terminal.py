"""`IpsecTerminal` with everything real but the network and the data plane, which are in memory (A8, A9, A12)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from tests.support import ike_memory
from tests.support.ike_memory import LEFT_NAME, RIGHT_NAME
from tests.support.ipsec_hosts import MemoryHost, Wire

from locum.authority.databases import Action as Rule
from locum.authority.local import LocalAuthority
from locum.authority.port import AuthoritySession
from locum.errors import ConfigurationError, LocumError, Refused, TimedOut, Unauthenticated, Unavailable
from locum.ike.configuration import Connection, Mode, Timing
from locum.ike.engine import Child, MessagePassed
from locum.ike.proposal_names import parse_child_proposals
from locum.ike.registry import Version
from locum.ike.traffic_selectors import selector_of
from locum.ipsec.policy import Action
from locum.ipsec.sa import Expiry, SecurityAssociation
from locum.terminal import ipsec, ipsec_keeping
from locum.terminal.cipher_keys import KeyOrigin
from locum.terminal.ipsec import IpsecTerminal
from locum.terminal.ipsec_reports import ChildDown, ChildUp, Problem, Ready, Report, SaDown, SaUp
from locum.terminal.steps import Actor, StepName, TerminalStep

LEFT, RIGHT = ip_address("192.0.2.1"), ip_address("192.0.2.2")
LEFT_NET, RIGHT_NET = (selector_of(ip_network(each)) for each in ("10.1.0.0/16", "10.2.0.0/16"))
QUICK = Timing(retransmission=0.05, longest_retransmission=0.2, attempts=4, handshake=2.0, liveness=0)
PFS = parse_child_proposals("aes256gcm16-x25519")
#: Nothing here takes longer than this, in seconds, unless it is broken.
PATIENCE = 20.0


class Named:
    """An authority that knows the terminal by the name of the tests."""

    def __init__(self, authority: LocalAuthority) -> None:
        self._authority = authority
        self.fault: LocumError | None = None

    def open(self, terminal: str) -> AuthoritySession:
        if self.fault is not None:
            raise self.fault
        return self._authority.open(ike_memory.TERMINAL)


class End:
    """One end: its host in memory, its terminal, and what it was told."""

    def __init__(self, wire: Wire, *, left: bool, respond: bool, **options: Any) -> None:
        own, other = (LEFT, RIGHT) if left else (RIGHT, LEFT)
        traffic = (LEFT_NET,), (RIGHT_NET,)
        local, remote = traffic if left else traffic[::-1]
        self.host = MemoryHost(wire, str(own))
        self.authority = Named(options.pop("authority", None) or authority(left=left))
        self.reports: list[Report] = []
        self.steps: list[TerminalStep] = []
        self.events: list[Any] = []
        self._changed = asyncio.Event()
        keywords = {name: options.pop(name) for name in ("port", "peer_port") if name in options}
        connection = Connection(
            remote=other, local_traffic=local, remote_traffic=remote, **{"timing": QUICK, **options}
        )
        self.terminal = IpsecTerminal(
            authority=self.authority,
            connection=connection,
            installer=self.host,
            respond=respond,
            observer=self.steps.append,
            on_report=self._note,
            on_event=self.events.append,
            **keywords,
        )

    def _note(self, report: Report) -> None:
        self.reports.append(report)
        self._changed.set()

    def of(self, kind: type[Report]) -> list[Any]:
        return [report for report in self.reports if isinstance(report, kind)]

    async def told(self, kind: type[Report], count: int = 1) -> Any:
        """Wait for the report number `count` of this kind."""
        async with asyncio.timeout(PATIENCE):
            while len(self.of(kind)) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.of(kind)[count - 1]


def authority(*, left: bool, **settings: Any) -> LocalAuthority:
    return ike_memory.certificate_authority(LEFT_NAME if left else RIGHT_NAME, **settings)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ipsec_keeping, "FIRST_DELAY", 0.02)
    monkeypatch.setattr(ipsec, "EXPIRY_INTERVAL", 0.02)
    yield


def run(body: Callable[[Wire], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(2 * PATIENCE):
            await body(Wire())

    asyncio.run(main())


def both(wire: Wire, **options: Any) -> tuple[End, End]:
    return End(wire, left=True, respond=False, **options), End(wire, left=False, respond=True, **options)


KINDS: dict[str, dict[str, Any]] = {
    "ikev2": {},
    "ikev2-pfs": {"child": PFS},
    "keys-from-authority": {"keys_from_authority": True},
    "main": {"version": Version.IKE_1},
    "aggressive": {"version": Version.IKE_1, "mode": Mode.AGGRESSIVE},
    "quick-pfs": {"version": Version.IKE_1, "child": PFS},
}
every_kind = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())


# --- from nothing to an SA, and to nothing again ----------------------------------------------------------


@every_kind
def test_both_ends_have_the_same_associations_until_one_ends_them(options: dict[str, Any]) -> None:
    async def body(wire: Wire) -> None:
        left, right = both(wire, **options)
        async with right.terminal:
            async with left.terminal as terminal:
                child = await terminal.up(within=PATIENCE)
                await right.told(ChildUp)
                assert mirrored(child, right.terminal.children[0])
                assert [row.action for row in left.host.policies] == [Action.PROTECT]
                assert len(left.host.associations) == len(right.host.associations) == 2
            await right.told(SaDown)
            assert right.host.associations == []
            assert right.terminal.children == ()
            assert [row.action for row in right.host.policies] == [Action.PROTECT]
            assert right.terminal.keys.sessions() == ()
        assert left.host.closed
        assert right.host.closed
        assert wire.ports == {}

    run(body)


def mirrored(one: Child, other: Child) -> bool:
    """True when what one end sends with, the other receives with."""

    def secret(sa: SecurityAssociation) -> tuple[object, ...]:
        return sa.spi, sa.encryption_key, sa.integrity_key, sa.source, sa.destination

    return secret(one.inbound) == secret(other.outbound) and secret(one.outbound) == secret(other.inbound)


def test_reports_tell_a_person_what_happened() -> None:
    async def body(wire: Wire) -> None:
        left, right = both(wire)
        async with right.terminal, left.terminal as terminal:
            await terminal.up(within=PATIENCE)
            ready, up, child = left.reports
            assert str(ready) == "ready local=* ports=500,4500 dataplane=memory"
            assert str(up).startswith(f"IKE SA up: IKEv2 {LEFT} - {RIGHT} (dns:{RIGHT_NAME}), ")
            assert str(child).startswith("SA up: 10.1.0.0/16 === 10.2.0.0/16, tunnel, ESP/AES-GCM-16-256, SPI ")

    run(body)


@every_kind
def test_keys_are_in_the_database_while_they_are_in_force(options: dict[str, Any]) -> None:
    async def body(wire: Wire) -> None:
        left, right = both(wire, **options)
        async with right.terminal, left.terminal as terminal:
            child = await terminal.up(within=PATIENCE)
            sessions = terminal.keys.sessions()
            assert {type(entry.holder) for entry in sessions} == {type(terminal.sas[0]), Child}
            taken = options.get("keys_from_authority", False)
            origin = KeyOrigin.TAKEN if taken else KeyOrigin.DERIVED
            assert next(entry for entry in sessions if entry.holder is child).origin is origin
        assert terminal.keys.sessions() == ()

    run(body)


def test_steps_go_through_the_figures_and_show_every_message() -> None:
    async def body(wire: Wire) -> None:
        left, right = both(wire)
        async with right.terminal, left.terminal as terminal:
            await terminal.up(within=PATIENCE)
            names = [step.operation for step in left.steps if step.operation is not StepName.IKE]
            assert names == [
                StepName.SECURE_PATH,
                StepName.START,
                StepName.GENERATE_KEY,
                StepName.GENERATE_KEY,
                StepName.AUTHENTICATE,
                StepName.AUTHENTICATE,
                StepName.REQUEST_KEY,
                StepName.DERIVE_KEY,
                StepName.STORE_KEY,
                StepName.DERIVE_KEY,
                StepName.STORE_KEY,
                StepName.INSTALL,
            ]
            messages = [step for step in left.steps if step.operation is StepName.IKE]
            assert [bool(step.bytes_out) for step in messages] == [True, False, True, False]
            assert all(step.actor is Actor.PEER for step in messages)
            assert messages[0].detail.startswith("IKE_SA_INIT")
            assert sum(isinstance(event, MessagePassed) for event in left.events) == 4

    run(body)


def test_quick_mode_is_the_terminals_own_affair() -> None:
    async def body(wire: Wire) -> None:
        left, right = both(wire, version=Version.IKE_1)
        async with right.terminal, left.terminal as terminal:
            await terminal.up(within=PATIENCE)
            last_key = max(n for n, step in enumerate(left.steps) if step.operation is StepName.REQUEST_KEY)
            after = left.steps[last_key + 1 :]
            assert not any(step.actor is Actor.DELEGATE for step in after)
            assert sum(step.operation is StepName.IKE for step in after) == 3

    run(body)


def test_on_one_port_everything_has_the_marker() -> None:
    async def body(wire: Wire) -> None:
        ends = (
            End(wire, left=True, respond=False, port=10500, peer_port=10501),
            End(wire, left=False, respond=True, port=10501),
        )
        async with ends[1].terminal, ends[0].terminal as terminal:
            await terminal.up(within=PATIENCE)
            assert {(number, port.encapsulated) for (_, number), port in wire.ports.items()} == {
                (10500, True),
                (10501, True),
            }

    run(body)


# --- keeping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ikev2", "ikev2-pfs", "main", "quick-pfs"])
def test_a_child_is_replaced_and_its_key_with_it(name: str) -> None:
    async def body(wire: Wire) -> None:
        left, right = both(wire, **KINDS[name])
        async with right.terminal, left.terminal as terminal:
            child = await terminal.up(within=PATIENCE)
            terminal.rekey_children()
            report = await left.told(ChildUp, 2)
            assert report.rekeyed or name in ("main", "quick-pfs")
            await left.told(ChildDown)
            (successor,) = terminal.children
            assert successor is not child
            await right.told(ChildDown)
            assert mirrored(successor, right.terminal.children[0])
            holders = [entry.holder for entry in terminal.keys.sessions()]
            assert successor in holders
            assert child not in holders

    run(body)


@pytest.mark.parametrize("name", ["ikev2", "main"])
def test_an_ike_sa_is_replaced_and_has_the_children(name: str) -> None:
    async def body(wire: Wire) -> None:
        left, right = both(wire, **KINDS[name])
        async with right.terminal, left.terminal as terminal:
            child = await terminal.up(within=PATIENCE)
            terminal.rekey()
            await left.told(SaDown)
            assert any(report.rekeyed for report in left.of(SaUp))
            assert child in terminal.children
            holders = [entry.holder for entry in terminal.keys.sessions()]
            assert len(holders) == 2
            terminal.rekey_children()
            await left.told(ChildDown)
            assert len(terminal.children) == 1

    run(body)


def test_an_association_that_has_carried_enough_is_replaced_once() -> None:
    async def body(wire: Wire) -> None:
        left, right = both(wire)
        async with right.terminal, left.terminal as terminal:
            child = await terminal.up(within=PATIENCE)
            left.host.expiring = [(child.outbound, Expiry.SOFT)]
            await left.told(ChildUp, 2)
            await left.told(ChildDown)
            assert len(terminal.children) == 1

    run(body)


def test_an_association_that_must_not_go_on_is_closed_and_made_again() -> None:
    async def body(wire: Wire) -> None:
        left, right = both(wire)
        async with right.terminal, left.terminal as terminal:
            child = await terminal.up(within=PATIENCE)
            left.host.expiring = [(child.inbound, Expiry.HARD)]
            await left.told(ChildDown)
            problem = await left.told(Problem)
            assert problem.seconds is not None
            await left.told(ChildUp, 2)
            assert terminal.children[0] is not child

    run(body)


def test_a_peer_that_went_away_is_found_again() -> None:
    async def body(wire: Wire) -> None:
        timing = replace(QUICK, liveness=0.1)
        left, right = both(wire, timing=timing)
        async with left.terminal as terminal:
            async with right.terminal:
                await terminal.up(within=PATIENCE)
                wire.loses = lambda message: True
                await left.told(SaDown)
                assert [row.action for row in left.host.policies] == [Action.PROTECT]
                assert left.host.associations == []
            wire.loses = lambda message: False
            again = End(wire, left=False, respond=True, timing=timing)
            async with again.terminal:
                await left.told(ChildUp, 2)
                await again.told(ChildUp)
        assert any("trying again" in str(report) for report in left.of(Problem))

    run(body)


def test_a_peer_that_ends_the_sa_is_asked_again() -> None:
    async def body(wire: Wire) -> None:
        left, right = both(wire)
        async with left.terminal as terminal:
            async with right.terminal:
                await terminal.up(within=PATIENCE)
            await left.told(SaDown)
            again = End(wire, left=False, respond=True)
            async with again.terminal:
                await left.told(ChildUp, 2)

    run(body)


def test_a_peer_that_is_not_there_yet_is_waited_for() -> None:
    async def body(wire: Wire) -> None:
        left, right = both(wire)
        async with left.terminal as terminal:
            await left.told(Problem)
            async with right.terminal:
                await terminal.up(within=PATIENCE)

    run(body)


def test_a_bad_wire_costs_time_and_nothing_else() -> None:
    async def body(wire: Wire) -> None:
        count = iter(range(10**6))
        wire.loses = lambda message: next(count) % 3 == 0
        left, right = both(wire)
        async with right.terminal, left.terminal as terminal:
            await terminal.up(within=PATIENCE)
            await right.told(ChildUp)

    run(body)


# --- giving up --------------------------------------------------------------------------------------------


def test_without_an_sa_in_time_the_error_says_why() -> None:
    async def body(wire: Wire) -> None:
        left, _ = both(wire)
        async with left.terminal as terminal:
            with pytest.raises(TimedOut, match=f"no SA with {RIGHT} within 0.5 s"):
                await terminal.up(within=0.5)

    run(body)


def test_a_refusal_before_the_first_sa_is_the_end() -> None:
    async def body(wire: Wire) -> None:
        left, _ = both(wire, authority=authority(left=True, rules=(("*", Rule.DENY),)))
        async with left.terminal as terminal:
            with pytest.raises((Refused, Unauthenticated)):
                await terminal.up(within=PATIENCE)
            with pytest.raises((Refused, Unauthenticated)):
                await terminal.wait()

    run(body)


def test_a_peer_that_rejects_us_is_the_end_and_it_goes_on_waiting_for_others() -> None:
    async def body(wire: Wire) -> None:
        left = End(wire, left=True, respond=False)
        right = End(wire, left=False, respond=True, authority=authority(left=False, rules=()))
        async with right.terminal, left.terminal as terminal:
            with pytest.raises(LocumError):
                await terminal.up(within=PATIENCE)
            problem = await right.told(Problem)
            assert str(problem).startswith(f"no SA with {LEFT}: ")
            assert right.terminal.sas == () or right.host.associations == []

    run(body)


def test_an_authority_that_cannot_be_had_is_tried_again() -> None:
    async def body(wire: Wire) -> None:
        left, right = both(wire)
        left.authority.fault = Unavailable("the database is busy")
        async with right.terminal, left.terminal as terminal:
            problem = await left.told(Problem)
            assert "the database is busy" in str(problem)
            left.authority.fault = None
            await terminal.up(within=PATIENCE)

    run(body)


def test_what_cannot_be_installed_is_deleted_at_the_peer_and_said() -> None:
    async def body(wire: Wire) -> None:
        left, right = both(wire)
        left.host.fault = Refused("this kernel has no AES-GCM")
        async with right.terminal, left.terminal as terminal:
            with pytest.raises(Refused, match="this kernel has no AES-GCM"):
                await terminal.up(within=PATIENCE)
            await right.told(ChildDown)
            assert left.host.associations == []

    run(body)


@pytest.mark.parametrize("taken", [500, 4500])
def test_a_port_that_is_taken_leaves_nothing_behind(taken: int) -> None:
    async def body(wire: Wire) -> None:
        left, _ = both(wire)
        left.host.taken = {taken}
        with pytest.raises(Unavailable, match=f"UDP port {taken}"):
            async with left.terminal:
                raise AssertionError
        assert left.host.closed
        assert wire.ports == {}

    run(body)


def test_an_error_in_an_observer_ends_the_terminal_and_is_not_lost() -> None:
    async def body(wire: Wire) -> None:
        left, right = both(wire)

        def broken(event: Any) -> None:
            raise ZeroDivisionError

        left.terminal._on_event = broken
        async with right.terminal, left.terminal as terminal:
            with pytest.raises(ZeroDivisionError):
                await terminal.up(within=PATIENCE)

    run(body)


def test_a_peer_that_does_not_answer_holds_up_the_end_for_a_short_time_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ipsec, "CLOSE_TIME", 0.05)

    async def body(wire: Wire) -> None:
        left, right = both(wire)
        async with right.terminal, left.terminal as terminal:
            await terminal.up(within=PATIENCE)
            wire.loses = lambda message: True
            await terminal.close()
            assert left.host.closed
            await terminal.close()

    run(body)


def test_a_delete_that_was_lost_is_sent_again_before_the_end() -> None:
    async def body(wire: Wire) -> None:
        left, right = both(wire)
        async with left.terminal as terminal:
            async with right.terminal:
                await terminal.up(within=PATIENCE)
                await right.told(ChildUp)
                before = len(wire.carried)
                # Whatever is sent first from now on does not arrive.
                wire.loses = lambda message: len(wire.carried) == before + 1
                await right.terminal.close()
            await left.told(SaDown)

    run(body)


def test_an_initiator_needs_a_peer_and_addresses_of_one_version() -> None:
    host = MemoryHost(Wire(), str(LEFT))
    with pytest.raises(ConfigurationError, match="peer's address"):
        IpsecTerminal(authority=Named(authority(left=True)), connection=Connection(), installer=host)
    with pytest.raises(ConfigurationError, match="different IP versions"):
        IpsecTerminal(
            authority=Named(authority(left=True)),
            connection=Connection(remote=RIGHT),
            installer=host,
            local=ip_address("2001:db8::1"),
        )


def test_a_terminal_is_ready_before_anything_happens() -> None:
    async def body(wire: Wire) -> None:
        _, right = both(wire)
        async with right.terminal:
            assert [type(report) for report in right.reports] == [Ready]
            assert [row.action for row in right.host.policies] == [Action.PROTECT]

    run(body)
