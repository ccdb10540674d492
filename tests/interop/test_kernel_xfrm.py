"""The kernel installer against a real kernel, in user-mode-linux: its keys, its policies, packets that go through.

What the kernel protects, ESP and AH of ours open, and the other way round: two implementations that agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

import pytest
from tests.support import kernel_guest
from tests.support.ipsec import ESP_SUITES, ah_sa, esp_sa, far_end, key_of
from tests.support.kernel_guest import ECHO, Setting
from tests.support.uml import Guest

from locum.ipsec import algorithms
from locum.ipsec.algorithms import EncryptionAlgorithm, IntegrityAlgorithm
from locum.ipsec.ip import ICMP, ICMPV6, checksum, ipv4_header, ipv6_header, parse
from locum.ipsec.modes import Inbound, inbound, outbound
from locum.ipsec.policy import Action, Policy, Protection
from locum.ipsec.sa import Expiry, Lifetime, Mode, Protocol, SecurityAssociation, UdpEncapsulation
from locum.ipsec.selectors import parse_selectors
from locum.ipsec.udp import NAT_TRAVERSAL_PORT

pytestmark = pytest.mark.xdist_group("uml-xfrm")

#: The hosts' own addresses, and those behind them: tests.support.kernel_guest has them from the laboratory.
OUTER = {4: ("192.0.2.1", "203.0.113.2"), 6: ("2001:db8::1", "2001:db8:0:1::2")}
INNER = {4: ("10.1.0.1", "10.2.0.1"), 6: ("2001:db8:1::1", "2001:db8:2::1")}
NETWORKS = {4: ("10.1.0.0/24", "10.2.0.0/24"), 6: ("2001:db8:1::/64", "2001:db8:2::/64")}
AH_SUITES = (algorithms.SHA2_256_128, algorithms.SHA2_384_192, algorithms.SHA2_512_256)
NEIGHBOURS = parse_selectors(f"any[icmpv6/{133 * 256}-{137 * 256 + 255}]")
MODES = tuple(Mode)
VERSIONS = (4, 6)
PORTS = UdpEncapsulation(source_port=NAT_TRAVERSAL_PORT, destination_port=NAT_TRAVERSAL_PORT)


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    with Guest() as running:
        running.call(kernel_guest.addresses)
        yield running


@pytest.fixture(autouse=True)
def _clean(guest: Guest) -> Iterator[None]:
    yield
    guest.call(kernel_guest.begin_anew)


# --- both ends --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An association in each direction, as the sending end has it, and the policy of the left end."""

    forward: SecurityAssociation
    backward: SecurityAssociation
    policy: Policy

    def policies(self, end: str) -> list[Policy]:
        """The policies of one end; neighbour discovery of IPv6 stays out of them."""
        own = self.policy if end == "left" else mirrored(self.policy)
        return [Policy(name="neighbours", action=Action.BYPASS, local=NEIGHBOURS, remote=NEIGHBOURS), own]

    def associations(self, end: str) -> list[SecurityAssociation]:
        """The associations of one end."""
        if end == "left":
            return [self.forward, far_end(self.backward)]
        return [far_end(self.forward), self.backward]

    def setting(self, *ends: str) -> Setting:
        """What the installers of these ends are told."""
        return Setting(
            associations={end: self.associations(end) for end in ends},
            policies={end: self.policies(end) for end in ends},
        )


def mirrored(policy: Policy) -> Policy:
    """The policy of the other end."""
    protection = policy.protection
    if protection is not None:
        protection = replace(
            protection, tunnel_local=protection.tunnel_remote, tunnel_remote=protection.tunnel_local
        )
    return replace(policy, local=policy.remote, remote=policy.local, protection=protection)


def pair(sa: SecurityAssociation, *, mode: Mode, version: int = 4, inner: int = 0, spi: int = 0x1001) -> Pair:
    """Like `sa` in both directions, between hosts (transport) or networks (tunnel) of IP `version`.

    `inner` is the version inside of a tunnel, where it is another.
    """
    left, right = (ip_address(each) for each in OUTER[version])
    tunnel = mode is Mode.TUNNEL
    near, far = (parse_selectors(each) for each in (NETWORKS[inner or version] if tunnel else OUTER[version]))
    forward = replace(sa, spi=spi, mode=mode, source=left, destination=right, local=near, remote=far)
    backward = replace(
        forward,
        spi=spi + 0x1000,
        source=right,
        destination=left,
        local=far,
        remote=near,
        encryption_key=key_of(len(sa.encryption_key), spi & 0xFF),
        integrity_key=key_of(len(sa.integrity_key), spi + 1 & 0xFF),
    )
    ends = (left, right) if tunnel else (None, None)
    protection = Protection(protocol=sa.protocol, mode=mode, tunnel_local=ends[0], tunnel_remote=ends[1])
    policy = Policy(name="protected", action=Action.PROTECT, local=near, remote=far, protection=protection)
    return Pair(forward=forward, backward=backward, policy=policy)


def ends_of(mode: Mode, version: int) -> tuple[str, str]:
    """Who talks to whom through an association of this mode."""
    return INNER[version] if mode is Mode.TUNNEL else OUTER[version]


def echo(source: str, destination: str, number: int, *, reply: bool = False, payload: bytes = b"locum") -> bytes:
    """A whole packet with an echo request, or its reply."""
    one, other = ip_address(source), ip_address(destination)
    version = one.version
    message = kernel_guest.echo_request(version, number, payload)
    message = bytes((ECHO[version][reply], 0, 0, 0)) + message[4:]
    addresses = one.packed + other.packed
    pseudo = addresses + len(message).to_bytes(4, "big") + bytes((0, 0, 0, ICMPV6)) if version == 6 else b""
    message = message[:2] + checksum(pseudo + message).to_bytes(2, "big") + message[4:]
    if version == 4:
        return ipv4_header(one.packed, other.packed, ICMP, 20 + len(message), hop_limit=64) + message
    return ipv6_header(one.packed, other.packed, ICMPV6, 40 + len(message), hop_limit=64) + message


def echo_kinds(packets: Sequence[bytes]) -> list[int]:
    """The ICMP types of whole packets."""
    return [packet[parse(packet).payload] for packet in packets]


def opened_by_us(pair: Pair, packets: Sequence[bytes]) -> list[bytes]:
    """What our own ESP or AH finds in packets of both directions."""
    receivers: dict[bytes, Inbound] = {
        sa.destination.packed: inbound(far_end(sa)) for sa in (pair.forward, pair.backward)
    }
    found = [receivers[parse(packet).destination].unprotect(packet) for packet in packets]
    assert None not in found
    return [packet for packet in found if packet is not None]


def name_of(value: object) -> str:
    """Identifiers of test cases."""
    if isinstance(value, tuple):
        return "-".join(name_of(each) for each in value if each is not None)
    if isinstance(value, EncryptionAlgorithm | IntegrityAlgorithm):
        return value.name
    return f"ipv{value}" if isinstance(value, int) else str(value)


def suite_sa(suite: tuple[EncryptionAlgorithm, IntegrityAlgorithm | None], **changes: Any) -> SecurityAssociation:
    """An ESP association of these algorithms."""
    return esp_sa(*suite, **changes)


GCM = suite_sa((algorithms.AES256_GCM16, None))


# --- packets ----------------------------------------------------------------------------------------------


def check_both_ways(guest: Guest, pair: Pair, source: str, destination: str, protocol: int) -> str:
    """Kernel to kernel, and ours reads along; then ours to kernel and back. The states of the left kernel."""
    setting = pair.setting("left", "right")
    seen = guest.call(kernel_guest.protected_pings, setting, source, destination, 2)
    version = ip_address(source).version
    request, reply = ECHO[version]
    assert seen.answered == 2
    assert {parse(packet).protocol for packet in seen.wire} == {protocol}
    assert echo_kinds(opened_by_us(pair, seen.wire)) == [request, reply] * 2
    assert not seen.left_over

    sender, receiver = outbound(pair.forward), inbound(far_end(pair.backward))
    packets = [sender.protect(echo(source, destination, number)) for number in (1, 2)]
    replies = guest.call(kernel_guest.answers, pair.setting("right"), packets, 2)
    found = [receiver.unprotect(packet) for packet in replies]
    payloads = [packet[parse(packet).payload + 8 :] for packet in found if packet]
    assert echo_kinds([packet for packet in found if packet]) == [reply] * 2
    assert payloads == [b"locum"] * 2
    states: str = seen.states
    return states


@pytest.mark.parametrize("version", VERSIONS, ids=name_of)
@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("suite", ESP_SUITES, ids=name_of)
def test_esp_of_the_kernel_and_ours_open_each_other(
    guest: Guest, suite: tuple[EncryptionAlgorithm, IntegrityAlgorithm | None], mode: Mode, version: int
) -> None:
    made = pair(suite_sa(suite), mode=mode, version=version)
    states = check_both_ways(guest, made, *ends_of(mode, version), Protocol.ESP)
    for sa in (made.forward, made.backward):
        assert f"spi {sa.spi:#010x}" in states
        assert not sa.encryption_key or f"0x{sa.encryption_key.hex()}" in states
        assert not sa.integrity_key or f"0x{sa.integrity_key.hex()}" in states
    assert states.count(f"mode {mode}") == 2


@pytest.mark.parametrize("version", VERSIONS, ids=name_of)
@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("integrity", AH_SUITES, ids=name_of)
def test_ah_of_the_kernel_and_ours_open_each_other(
    guest: Guest, integrity: IntegrityAlgorithm, mode: Mode, version: int
) -> None:
    made = pair(ah_sa(integrity), mode=mode, version=version)
    states = check_both_ways(guest, made, *ends_of(mode, version), Protocol.AH)
    for sa in (made.forward, made.backward):
        assert f"0x{sa.integrity_key.hex()} {integrity.icv_length * 8}" in states


@pytest.mark.parametrize("version", VERSIONS, ids=name_of)
@pytest.mark.parametrize("protocol", tuple(Protocol), ids=lambda each: each.name)
def test_extended_sequence_numbers_are_authenticated_alike(guest: Guest, protocol: Protocol, version: int) -> None:
    kind = esp_sa if protocol is Protocol.ESP else ah_sa
    made = pair(kind(extended_sequence=True, replay_window=128), mode=Mode.TUNNEL, version=version)
    states = check_both_ways(guest, made, *ends_of(Mode.TUNNEL, version), protocol)
    assert states.count("replay_window 128, bitmap-length 4") == 2


@pytest.mark.parametrize(("outer", "inner"), [(4, 6), (6, 4)], ids=name_of)
def test_a_tunnel_carries_the_other_version_of_ip(guest: Guest, outer: int, inner: int) -> None:
    made = pair(GCM, mode=Mode.TUNNEL, version=outer, inner=inner)
    check_both_ways(guest, made, *INNER[inner], Protocol.ESP)


@pytest.mark.parametrize("version", VERSIONS, ids=name_of)
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_esp_inside_of_udp_passes_through_the_port_of_ike(guest: Guest, mode: Mode, version: int) -> None:
    for end in ("left", "right"):
        guest.call(kernel_guest.open_port, end, NAT_TRAVERSAL_PORT, True)
    made = pair(replace(GCM, encapsulation=PORTS), mode=mode, version=version)
    states = check_both_ways(guest, made, *ends_of(mode, version), 17)
    assert states.count("espinudp sport 4500 dport 4500") == 2


# --- policies ---------------------------------------------------------------------------------------------


def ping(guest: Guest, *, answered: bool, version: int = 4, mode: Mode = Mode.TUNNEL, end: str = "left") -> bool:
    """Ping from one end to the other, between networks or hosts."""
    source, destination = ends_of(mode, version)
    if end == "right":
        source, destination = destination, source
    answer: bool = guest.call(kernel_guest.ping, end, source, destination, answered)
    return answer


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_nothing_leaves_unprotected_while_there_is_no_association(guest: Guest, mode: Mode) -> None:
    guest.call(kernel_guest.set_policies, "left", pair(GCM, mode=mode).policies("left"))
    guest.call(kernel_guest.wire, 0)
    assert not ping(guest, answered=False, mode=mode)
    assert guest.call(kernel_guest.wire, 0) == []


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_nothing_unprotected_gets_in(guest: Guest, mode: Mode) -> None:
    guest.call(kernel_guest.set_up, pair(GCM, mode=mode).setting("right"))
    assert not ping(guest, answered=False, mode=mode)


def test_what_is_outside_of_all_policies_goes_its_way(guest: Guest) -> None:
    guest.call(kernel_guest.set_up, pair(GCM, mode=Mode.TUNNEL).setting("left", "right"))
    assert ping(guest, answered=True, mode=Mode.TRANSPORT)
    assert echo_kinds(guest.call(kernel_guest.wire, 2)) == list(ECHO[4])


def test_the_first_row_that_matches_decides(guest: Guest) -> None:
    networks = {"local": parse_selectors("10.1.0.0/24"), "remote": parse_selectors("10.2.0.0/24")}
    bypass = Policy(name="bypass", action=Action.BYPASS, **networks)
    discard = Policy(name="discard", action=Action.DISCARD, **networks)
    wider = Policy(
        name="wider", action=Action.DISCARD, local=parse_selectors("10.0.0.0/8"), remote=networks["remote"]
    )
    guest.call(kernel_guest.set_policies, "left", [bypass, wider])
    assert ping(guest, answered=True)
    guest.call(kernel_guest.set_policies, "left", [wider, bypass])
    assert not ping(guest, answered=False)
    guest.call(kernel_guest.set_policies, "left", [discard, bypass])
    assert not ping(guest, answered=False)
    guest.call(kernel_guest.set_policies, "left", [])
    assert ping(guest, answered=True)


def test_a_range_of_icmp_types_is_what_a_policy_says(guest: Guest) -> None:
    """Echo requests are type 8: those from 4 to 7 say nothing about them, those from 5 to 9 do."""
    for types, passes in ((range(4, 8), True), (range(5, 10), False)):
        selector = f"any[icmp/{types[0] << 8}-{types[-1] << 8 | 255}]"
        rows = [
            Policy(
                name="some",
                action=Action.DISCARD,
                local=parse_selectors(selector),
                remote=parse_selectors(selector),
            )
        ]
        guest.call(kernel_guest.set_policies, "left", rows)
        assert ping(guest, answered=passes) is passes


def test_an_association_carries_nothing_but_its_own_traffic(guest: Guest) -> None:
    """What is inside of an authentic packet must be what was agreed on (RFC 4301 section 5.2 step 4)."""
    made = pair(GCM, mode=Mode.TUNNEL)
    sender = outbound(replace(made.forward, local=parse_selectors("any")))
    foreign = sender.protect(echo("192.0.2.1", "10.2.0.1", 1))
    own = sender.protect(echo("10.1.0.1", "10.2.0.1", 2))
    replies = guest.call(kernel_guest.answers, made.setting("right"), [foreign, own], 1)
    (found,) = opened_by_us(made, replies)
    assert found[parse(found).payload + 6 :][:2] == b"\0\2"


def test_associations_between_the_same_hosts_do_not_carry_each_others_traffic(guest: Guest) -> None:
    one, other = pair(GCM, mode=Mode.TUNNEL), pair(GCM, mode=Mode.TUNNEL, version=4, inner=6, spi=0x5001)
    for each in (one, other):
        for end in ("left", "right"):
            guest.call(kernel_guest.install, end, each.associations(end))
    for end in ("left", "right"):
        guest.call(
            kernel_guest.set_policies, end, [*one.policies(end), replace(other.policies(end)[1], name="six")]
        )
    guest.call(kernel_guest.wire, 0)
    for version, expected in ((4, one), (6, other)):
        assert ping(guest, answered=True, version=version)
        packets = guest.call(kernel_guest.wire, 2)
        assert len(opened_by_us(expected, packets)) == 2


def test_a_packet_is_accepted_once(guest: Guest) -> None:
    made = pair(GCM, mode=Mode.TUNNEL)
    packet = outbound(made.forward).protect(echo("10.1.0.1", "10.2.0.1", 1))
    assert len(guest.call(kernel_guest.answers, made.setting("right"), [packet] * 3, 1)) == 1


@pytest.mark.parametrize("version", VERSIONS, ids=name_of)
def test_this_host_speaks_to_a_network_behind_a_tunnel_from_the_address_that_is_protected(
    guest: Guest, version: int
) -> None:
    def way() -> str:
        text: str = guest.call(kernel_guest.ip, "left", "route", "get", INNER[version][1])
        return text

    before = way()
    assert f"src {OUTER[version][0]} " in before
    guest.call(kernel_guest.set_policies, "left", pair(GCM, mode=Mode.TUNNEL, version=version).policies("left"))
    assert f"src {INNER[version][0]} " in way()
    guest.call(kernel_guest.set_policies, "left", [])
    assert way().split(" uid ")[0] == before.split(" uid ")[0]
    assert "450" not in guest.call(kernel_guest.ip, "left", "rule")


def test_a_route_that_this_host_has_of_its_own_is_not_overruled(guest: Guest) -> None:
    own = ("10.2.0.0/24", "via", "192.0.2.254", "src", "192.0.2.1")
    guest.call(kernel_guest.ip, "left", "route", "add", *own)
    try:
        guest.call(kernel_guest.set_policies, "left", pair(GCM, mode=Mode.TUNNEL).policies("left"))
        assert "src 192.0.2.1 " in guest.call(kernel_guest.ip, "left", "route", "get", "10.2.0.1")
    finally:
        guest.call(kernel_guest.ip, "left", "route", "delete", *own)


# --- life -------------------------------------------------------------------------------------------------


def test_a_successor_takes_over_without_loss_and_the_old_one_goes(guest: Guest) -> None:
    old = pair(GCM, mode=Mode.TUNNEL)
    new = pair(replace(GCM, encryption_key=key_of(36, 9)), mode=Mode.TUNNEL, spi=0x3001)
    guest.call(kernel_guest.set_up, old.setting("left", "right"))
    policies = guest.call(kernel_guest.shown, "left", "policy")
    assert ping(guest, answered=True)
    receiving, sending = new.associations("right")
    for step, end, associations in (
        (kernel_guest.install, "right", [receiving]),
        (kernel_guest.install, "left", new.associations("left")),
        (kernel_guest.install, "right", [sending]),
        (kernel_guest.remove, "left", old.associations("left")),
        (kernel_guest.remove, "right", old.associations("right")),
    ):
        guest.call(step, end, associations)
        assert ping(guest, answered=True)
    guest.call(kernel_guest.wire, 0)
    assert ping(guest, answered=True)
    assert echo_kinds(opened_by_us(new, guest.call(kernel_guest.wire, 2))) == list(ECHO[4])
    assert guest.call(kernel_guest.shown, "left", "policy") == policies


def test_what_is_removed_is_gone_and_what_is_not_ours_stays(guest: Guest) -> None:
    foreign_state = ("src", "192.0.2.1", "dst", "203.0.113.2", "proto", "esp", "spi", "0x77")
    foreign_policy = ("src", "10.9.0.0/24", "dst", "10.8.0.0/24", "dir", "out")
    null = ("enc", "ecb(cipher_null)", "", "auth", "hmac(sha256)", "0x" + "11" * 32)
    guest.call(kernel_guest.ip, "left", "xfrm", "state", "add", *foreign_state, "mode", "tunnel", *null)
    guest.call(kernel_guest.ip, "left", "xfrm", "policy", "add", *foreign_policy, "action", "allow")
    try:
        made = pair(GCM, mode=Mode.TUNNEL)
        guest.call(kernel_guest.set_up, made.setting("left"))
        assert guest.call(kernel_guest.take_down, made.setting("left")) == 2
        assert "0x00000077" in guest.call(kernel_guest.shown, "left", "state")
        assert "src 10.9.0.0/24 dst 10.8.0.0/24" in guest.call(kernel_guest.shown, "left", "policy")
    finally:
        guest.call(kernel_guest.ip, "left", "xfrm", "state", "delete", *foreign_state)
        guest.call(kernel_guest.ip, "left", "xfrm", "policy", "delete", *foreign_policy)


def test_removing_what_is_not_there_is_no_error(guest: Guest) -> None:
    made = pair(GCM, mode=Mode.TUNNEL)
    guest.call(kernel_guest.remove, "left", made.associations("left"))
    guest.call(kernel_guest.install, "left", made.associations("left"))
    guest.call(kernel_guest.remove, "left", made.associations("left") * 2)
    assert guest.call(kernel_guest.left_over) == 0


def test_all_are_installed_or_none(guest: Guest) -> None:
    one = pair(GCM, mode=Mode.TUNNEL)
    (first, second), other = one.associations("left"), pair(ah_sa(), mode=Mode.TUNNEL, spi=0x5001)
    impossible = pair(ah_sa(algorithms.AH_AES128_GMAC), mode=Mode.TUNNEL, spi=0x7001).forward
    guest.call(kernel_guest.set_policies, "left", one.policies("left"))
    policies = guest.call(kernel_guest.shown, "left", "policy")
    kind, text = guest.call(kernel_guest.refusal, "install", "left", [first, second, impossible])
    assert (kind, "aes128gmac" in text) == ("Refused", True)
    assert not guest.call(kernel_guest.shown, "left", "state")
    assert guest.call(kernel_guest.shown, "left", "policy") == policies

    guest.call(kernel_guest.install, "left", [first])
    kind, text = guest.call(kernel_guest.refusal, "install", "left", [second, other.forward, first])
    assert (kind, f"{first.spi:#010x}" in text) == ("Refused", True)
    assert guest.call(kernel_guest.shown, "left", "state").count(" spi ") == 1


def test_policies_of_another_program_are_left_alone(guest: Guest) -> None:
    row = pair(GCM, mode=Mode.TUNNEL).policy
    foreign = ("src", "10.1.0.0/24", "dst", "10.2.0.0/24", "dir", "out")
    guest.call(kernel_guest.ip, "left", "xfrm", "policy", "add", *foreign, "action", "block", "priority", "7")
    try:
        kind, text = guest.call(kernel_guest.refusal, "set_policies", "left", [row])
        assert (kind, "another program" in text) == ("Refused", True)
        assert "priority 7" in guest.call(kernel_guest.shown, "left", "policy")
        assert guest.call(kernel_guest.left_over) == 1
    finally:
        guest.call(kernel_guest.ip, "left", "xfrm", "policy", "delete", *foreign)


def test_what_a_killed_process_left_keeps_traffic_in_and_is_taken_over(guest: Guest) -> None:
    made = pair(GCM, mode=Mode.TUNNEL)
    guest.call(kernel_guest.set_policies, "left", made.policies("left"))
    guest.call(kernel_guest.be_killed, "left")
    assert not ping(guest, answered=False)
    guest.call(kernel_guest.set_up, made.setting("left", "right"))
    assert ping(guest, answered=True)


def test_lifetimes_are_counted_and_kept(guest: Guest) -> None:
    lifetime = Lifetime(soft_packets=2, hard_packets=4, soft_seconds=100, hard_seconds=200)
    made = pair(replace(GCM, lifetime=lifetime, created=1000.0), mode=Mode.TUNNEL)
    guest.call(kernel_guest.set_up, made.setting("left", "right"))
    expired = kernel_guest.expired
    assert guest.call(expired, "left", 1000.0) == []
    both = made.associations("left")[::-1]
    assert guest.call(expired, "left", 1100.0) == [(sa, Expiry.SOFT) for sa in both]
    assert guest.call(expired, "left", 1200.0) == [(sa, Expiry.HARD) for sa in both]
    assert ping(guest, answered=True) and ping(guest, answered=True)
    assert guest.call(kernel_guest.used, "left", made.forward).packets == 2
    assert guest.call(expired, "left", 1000.0) == [(sa, Expiry.SOFT) for sa in both]
    assert ping(guest, answered=True) and ping(guest, answered=True)
    assert not ping(guest, answered=False)
    assert (made.forward, Expiry.HARD) in guest.call(expired, "left", 1000.0)
    guest.call(kernel_guest.remove, "left", both)
    assert guest.call(kernel_guest.used, "left", made.forward) == (0, 0)


@pytest.mark.parametrize("extended", [False, True], ids=["short", "extended"])
def test_a_moved_association_goes_on_with_its_numbers(guest: Guest, extended: bool) -> None:
    """The left host gets another address: keys stay, no number comes twice, and the replay window goes along."""
    old = pair(replace(GCM, extended_sequence=extended), mode=Mode.TUNNEL)
    elsewhere = ip_address("192.0.2.77")
    new = replace(
        old,
        forward=replace(old.forward, source=elsewhere),
        backward=replace(old.backward, destination=elsewhere),
        policy=replace(
            old.policy, protection=replace(old.policy.protection or Protection(), tunnel_local=elsewhere)
        ),
    )
    guest.call(kernel_guest.ip, "left", "address", "add", "192.0.2.77/24", "dev", "eth0")
    try:
        guest.call(kernel_guest.set_up, old.setting("left", "right"))
        assert ping(guest, answered=True) and ping(guest, answered=True)
        before = guest.call(kernel_guest.wire, 4)
        for end in ("left", "right"):
            for one, other in zip(old.associations(end), new.associations(end), strict=True):
                guest.call(kernel_guest.move, end, one, other)
            guest.call(kernel_guest.set_policies, end, new.policies(end))
        # The last packets from before come once more, and find that they are known.
        guest.call(kernel_guest.inject, [with_source(each, elsewhere.packed) for each in before[::2]])
        assert guest.call(kernel_guest.wire, 0) == []
        assert ping(guest, answered=True)
        after = guest.call(kernel_guest.wire, 2)
        numbers = [int.from_bytes(packet[24:28], "big") for packet in (*before[::2], *after[::2])]
        assert numbers[:2] == [1, 2] and numbers[2] > 2
        assert echo_kinds(opened_by_us(new, after)) == list(ECHO[4])
        assert guest.call(kernel_guest.shown, "left", "state").count(" spi ") == 2
    finally:
        guest.call(kernel_guest.ip, "left", "address", "delete", "192.0.2.77/24", "dev", "eth0")


def with_source(packet: bytes, source: bytes) -> bytes:
    """An IPv4 packet without options from another address."""
    ip = parse(packet)
    header = ipv4_header(
        source, ip.destination, ip.protocol, ip.length, hop_limit=60, dont_fragment=ip.dont_fragment
    )
    return header + packet[20:]


@pytest.mark.parametrize("encapsulated", [False, True], ids=["plain", "encapsulated"])
@pytest.mark.parametrize("version", VERSIONS, ids=name_of)
def test_ike_goes_past_policies_for_everything(guest: Guest, version: int, encapsulated: bool) -> None:
    everything = Policy(name="everything", action=Action.DISCARD)
    for end in ("left", "right"):
        guest.call(kernel_guest.open_port, end, 4500 if encapsulated else 500, encapsulated)
        neighbours = pair(GCM, mode=Mode.TUNNEL).policies(end)[0]
        guest.call(kernel_guest.set_policies, end, [neighbours, everything])
    assert not ping(guest, answered=False, version=version, mode=Mode.TRANSPORT)
    left, right = OUTER[version]
    number = 4500 if encapsulated else 500
    received = guest.call(kernel_guest.send_message, "left", b"an IKE message", left, right, number)
    assert received == [(b"an IKE message", ip_address(right), ip_address(left), number)]


def test_spis_are_those_that_nobody_uses(guest: Guest) -> None:
    spis = guest.call(kernel_guest.reserve_spis, "left", 64)
    assert len(set(spis)) == 64
    assert all(256 <= spi < 1 << 32 for spi in spis)
