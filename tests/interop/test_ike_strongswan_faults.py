"""With strongSwan: nothing is set up that should not be, each end says why, and trouble is survived."""

import itertools
import random
import socket
from collections.abc import Callable

import pytest
from tests.support.ike_device import Device
from tests.support.ike_strongswan import PEER_NAME, Bench, Case

from locum.authority.databases import Action
from locum.errors import LocumError, Unauthenticated
from locum.handshake import Verdict
from locum.ike.configuration import Limits, Timing
from locum.ike.engine import Closed, Established

ROLES = pytest.mark.parametrize("initiator", [True, False], ids=["initiator", "responder"])
VERSIONS = pytest.mark.parametrize("version", [1, 2])
V1_PROPOSAL = "aes128-sha256-ecp256"


def begin(bench: Bench, device: Device, case: Case, *, initiator: bool) -> None:
    """Have one end begin, without waiting for how it ends."""
    if initiator:
        bench.initiate(device, case)
    else:
        bench.charon.initiate(wait=False)


def nothing_carries_packets(bench: Bench, *, initiator: bool) -> None:
    """strongSwan has no CHILD_SA; and no IKE SA where we have turned it down after its last message, as initiator.

    Where it began, it may hold on to that for a while: what is refused in clear may be a forgery.
    """
    if initiator:
        bench.charon.gone()
    assert [child for sa in bench.charon.sas() for child in sa.children] == []


def closed(device: Device) -> LocumError:
    """The error that the only SA of our end ends with."""
    error = device.wait_event(Closed).error
    assert error is not None
    assert device.seen(Established) == []
    return error


@ROLES
@VERSIONS
def test_a_wrong_secret_sets_nothing_up(bench: Bench, version: int, initiator: bool) -> None:
    case = Case(version=version, ike=V1_PROPOSAL)
    device = bench.device(case)
    bench.load(case, secret=b"another secret")
    begin(bench, device, case, initiator=initiator)
    if version == 2:
        error = closed(device)
        # The initiator proves itself first, and so is the one that is turned down.
        assert "AUTHENTICATION_FAILED" in str(error) if initiator else isinstance(error, Unauthenticated)
        bench.charon.gone()
    else:
        # In IKEv1 another secret makes messages that cannot be read, so nobody answers them.
        bench.charon.wait_log("could not decrypt payloads" if initiator else "sending retransmit 2")
    assert device.seen(Established) == []
    assert not [sa for sa in bench.charon.sas() if sa.state == "ESTABLISHED"]


@ROLES
@VERSIONS
def test_a_peer_whose_certificate_nobody_trusts_is_turned_down(
    bench: Bench, version: int, initiator: bool
) -> None:
    case = Case(version=version, own="p256", peer="p256", ike=V1_PROPOSAL, issuers=("authority", "stranger"))
    device = bench.device(case)
    bench.load(case)
    begin(bench, device, case, initiator=initiator)
    assert isinstance(closed(device), Unauthenticated)
    nothing_carries_packets(bench, initiator=initiator)


@ROLES
@VERSIONS
def test_a_peer_turns_down_our_certificate_and_we_hear_of_it(bench: Bench, version: int, initiator: bool) -> None:
    case = Case(version=version, own="p256", peer="p256", ike=V1_PROPOSAL, issuers=("stranger", "authority"))
    device = bench.device(case)
    bench.load(case)
    begin(bench, device, case, initiator=initiator)
    bench.charon.wait_log("no trusted ECDSA public key found")
    device.wait_event(Closed)
    assert not [sa for sa in bench.charon.sas() if sa.state == "ESTABLISHED"]


@ROLES
@VERSIONS
def test_a_peer_that_is_somebody_else_is_turned_down(bench: Bench, version: int, initiator: bool) -> None:
    case = Case(version=version, own="p256", peer="p256", ike=V1_PROPOSAL)
    device = bench.device(case, remote_identity="dns:elsewhere.example")
    bench.load(case)
    begin(bench, device, case, initiator=initiator)
    # In IKEv2 an initiator says whom it wants, and the peer may be the first to notice.
    assert isinstance(closed(device), LocumError)
    nothing_carries_packets(bench, initiator=initiator)


@ROLES
@VERSIONS
def test_a_peer_that_policy_denies_is_turned_down(bench: Bench, version: int, initiator: bool) -> None:
    """A6: it has proven who it is, and both verdicts are told apart."""
    case = Case(version=version, own="p256", peer="p256", ike=V1_PROPOSAL)
    authority = bench.authority(case, rules=[("dns:other.example", Action.ALLOW)])
    device = bench.device(case, authority=authority, remote_identity="")
    bench.load(case)
    begin(bench, device, case, initiator=initiator)
    assert isinstance(closed(device), LocumError)
    verdict = device.asked.response(Verdict)
    assert verdict.authentic
    assert not verdict.allowed
    assert verdict.identity == f"dns:{PEER_NAME}"
    nothing_carries_packets(bench, initiator=initiator)


@ROLES
@VERSIONS
def test_without_a_common_proposal_both_ends_stop(bench: Bench, version: int, initiator: bool) -> None:
    case = Case(version=version, ike="aes128-sha256-ecp256")
    device = bench.device(case, ike="aes256-sha384-ecp384")
    bench.load(case)
    begin(bench, device, case, initiator=initiator)
    if initiator:
        assert "NO_PROPOSAL_CHOSEN" in str(closed(device))
    else:
        bench.charon.wait_log("NO_PROP")
        assert device.seen(Established) == []
    bench.charon.gone()


@ROLES
def test_without_a_common_esp_proposal_there_is_no_child(bench: Bench, initiator: bool) -> None:
    case = Case(esp="aes128-sha256")
    device = bench.device(case, esp="aes256-sha512")
    bench.load(case)
    begin(bench, device, case, initiator=initiator)
    bench.charon.wait_log("NO_PROP")
    assert [child for sa in device.live for child in sa.children] == []


@ROLES
@VERSIONS
def test_traffic_that_the_other_end_does_not_want_has_no_child(
    bench: Bench, version: int, initiator: bool
) -> None:
    case = Case(version=version, ike=V1_PROPOSAL)
    device = bench.device(case)
    bench.load(case, child={"local": ["10.77.0.0/24"], "remote": ["10.78.0.0/24"]})
    begin(bench, device, case, initiator=initiator)
    bench.charon.wait_log("TS_UNACCEPT" if version == 2 else "INVAL_ID")
    assert [child for sa in device.live for child in sa.children] == []


# --- detours of IKE_SA_INIT -------------------------------------------------------------------------------------


def test_the_group_of_our_first_message_is_corrected_by_the_peer(bench: Bench) -> None:
    case = Case(ike="aes128-sha256-ecp384")
    device = bench.device(case, ike="aes128-sha256-x25519,aes128-sha256-ecp384")
    bench.load(case)
    bench.initiate(device, case)
    device.established()
    assert any("INVALID_KE" in message for message in device.messages())
    bench.check_traffic(device, case)


def test_the_group_of_the_peers_first_message_is_corrected_by_us(bench: Bench) -> None:
    case = Case(ike="aes128-sha256-x25519-ecp384")
    device = bench.device(case, ike="aes128-sha256-ecp384")
    bench.load(case)
    bench.charon.initiate()
    device.established()
    bench.charon.wait_log("INVAL_KE")
    bench.check_traffic(device, case)


def test_a_cookie_that_we_ask_for_comes_back(bench: Bench) -> None:
    case = Case()
    device = bench.device(case, limits=Limits(cookie_threshold=0))
    bench.load(case)
    bench.charon.initiate()
    device.established()
    bench.charon.wait_log("COOKIE")
    bench.check_traffic(device, case)


def test_a_cookie_that_the_peer_asks_for_goes_back(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(settings={"cookie_threshold": 1, "cookie_threshold_ip": 1, "half_open_timeout": 60})
    case = Case()
    bench.load(case)
    # One that nobody goes on with.
    abandoned = bench.device(case, timing=Timing(attempts=1))
    abandoned.lose = lambda outgoing, _: not outgoing
    bench.initiate(abandoned, case)
    bench.charon.wait(lambda: bench.charon.sas(), "nothing is half-open")
    abandoned.lose = lambda *_: True
    abandoned.vanish()
    device = bench.device(case)
    bench.initiate(device, case)
    device.established()
    assert any("COOKIE" in message for message in device.messages())
    bench.check_traffic(device, case)


@ROLES
@VERSIONS
def test_long_messages_go_in_fragments(make_bench: Callable[..., Bench], version: int, initiator: bool) -> None:
    bench = make_bench(settings={"fragment_size": 576})
    case = Case(version=version, own="rsa3072", peer="rsa3072", ike=V1_PROPOSAL, issuers=("between", "between"))
    device = bench.device(case)
    bench.load(case, extra={"fragmentation": "yes"})
    begin(bench, device, case, initiator=initiator)
    device.established()
    bench.charon.established()
    bench.charon.wait_log("received fragment #")
    bench.charon.wait_log("splitting IKE")
    bench.check_traffic(device, case)


# --- the wire ---------------------------------------------------------------------------------------------------


@ROLES
@VERSIONS
@pytest.mark.parametrize("seed", [1, 2])
def test_lost_messages_are_sent_again(bench: Bench, version: int, initiator: bool, seed: int) -> None:
    case = Case(version=version, own="p256", peer="p256", ike=V1_PROPOSAL)
    device = bench.device(case)
    dice = random.Random(seed)
    # The first message of either end is always lost.
    fate = itertools.chain([True, False, True], iter(lambda: dice.random() < 0.3, None))
    device.lose = lambda *_: next(fate)
    bench.load(case)
    begin(bench, device, case, initiator=initiator)
    device.wait_event(Established, patience=20)
    bench.charon.established(patience=20)
    device.lose = lambda *_: False
    bench.check_traffic(device, case)


@ROLES
@VERSIONS
def test_messages_that_come_twice_change_nothing(bench: Bench, version: int, initiator: bool) -> None:
    case = Case(version=version, ike=V1_PROPOSAL)
    device = bench.device(case)
    twice: list[bytes] = []

    def note(outgoing: bool, datagram: bytes) -> bool:
        if not outgoing:
            twice.append(datagram)
        return False

    device.lose = note
    bench.load(case)
    begin(bench, device, case, initiator=initiator)
    device.established()
    bench.charon.established()
    sender = bench.peer.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        for datagram in list(twice):
            sender.sendto(datagram, (bench.us.address, 4500 if datagram[:4] == bytes(4) else 500))
    bench.check_traffic(device, case)
    assert len(device.seen(Established)) == 1
    assert len(device.sa.children) == 1


# --- ends that go away ------------------------------------------------------------------------------------------


@VERSIONS
def test_a_peer_that_was_restarted_is_taken_back(bench: Bench, version: int) -> None:
    case = Case(version=version, ike=V1_PROPOSAL)
    device = bench.device(case)
    bench.load(case, extra={"unique": "replace"})
    bench.charon.initiate()
    device.established()
    bench.charon.kill()
    bench.charon.start()
    bench.load(case, extra={"unique": "replace"})
    bench.charon.initiate()
    device.wait_event(Established, count=2)
    bench.check_traffic(device, case)


@VERSIONS
def test_a_peer_that_went_silent_is_noticed(bench: Bench, version: int) -> None:
    case = Case(version=version, ike=V1_PROPOSAL)
    timing = Timing(retransmission=0.2, longest_retransmission=0.3, attempts=3, liveness=0.5)
    device = bench.device(case, timing=timing)
    bench.load(case)
    bench.initiate(device, case)
    device.established()
    bench.charon.kill()
    error = device.wait_event(Closed).error
    assert isinstance(error, LocumError)


@VERSIONS
def test_a_peer_that_asks_for_signs_of_life_gets_them(bench: Bench, version: int) -> None:
    case = Case(version=version, ike=V1_PROPOSAL)
    device = bench.device(case)
    bench.load(case, liveness=1)
    bench.initiate(device, case)
    device.established()
    before = len(bench.charon.log)
    bench.charon.wait_log("sending DPD request", since=before)
    answer = "parsed INFORMATIONAL response" if version == 2 else "N(DPD_ACK)"
    bench.charon.wait_log(answer, since=before)
    bench.check_traffic(device, case)
