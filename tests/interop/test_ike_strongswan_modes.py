"""Every mode and algorithm with strongSwan, begun by either end: keys compared, packets both ways."""

from dataclasses import replace

import pytest
from tests.support.ike_strongswan import Bench, Case

ROLES = pytest.mark.parametrize("initiator", [True, False], ids=["initiator", "responder"])

V1_PROPOSAL = "aes128-sha256-ecp256"
MODES = {
    "main-rsa": Case(version=1, own="rsa2048", peer="rsa2048", ike="aes128-sha256-modp2048", esp="aes128-sha256"),
    "main-p256": Case(version=1, own="p256", peer="p256", ike=V1_PROPOSAL),
    "main-p384": Case(version=1, own="p384", peer="p384", ike="aes256-sha384-ecp384"),
    "main-p521": Case(version=1, own="p521", peer="p521", ike="aes256-sha512-ecp521"),
    "main-psk": Case(version=1, ike=V1_PROPOSAL),
    "aggressive-rsa": Case(version=1, aggressive=True, own="rsa2048", peer="rsa2048", ike=V1_PROPOSAL),
    "aggressive-p256": Case(version=1, aggressive=True, own="p256", peer="p256", ike=V1_PROPOSAL),
    "aggressive-psk": Case(version=1, aggressive=True, ike="aes256-sha384-ecp384"),
    "ike2-rsa": Case(own="rsa2048", peer="rsa2048"),
    "ike2-rsa-pss": Case(own="rsa3072", peer="rsa3072", peer_signs="ike:rsa/pss-sha256"),
    "ike2-p256": Case(own="p256", peer="p256"),
    "ike2-p384": Case(own="p384", peer="p384"),
    "ike2-p521": Case(own="p521", peer="p521"),
    "ike2-ed25519": Case(own="ed25519", peer="ed25519"),
    "ike2-ed448": Case(own="ed448", peer="ed448"),
    "ike2-mixed": Case(own="p256", peer="rsa2048", issuers=("between", "between")),
    "ike2-psk": Case(),
    "ike2-psk-ipv6": Case(ipv6=True),
    "main-rsa-ipv6": Case(version=1, own="rsa2048", peer="rsa2048", ike=V1_PROPOSAL, ipv6=True),
}


def check(bench: Bench, case: Case, *, initiator: bool) -> None:
    device = bench.connect(case, initiator=initiator)
    child = device.sa.children[0]
    bench.check_keys(device, child, initiator=initiator)
    bench.check_handed_over(device, case)
    bench.check_traffic(device, case)
    assert device.sa.peer_identity == "dns:gateway.example"
    assert device.refused == []


@ROLES
@pytest.mark.parametrize("mode", MODES)
def test_both_ends_derive_the_same_keys_and_packets_pass(bench: Bench, mode: str, initiator: bool) -> None:
    check(bench, MODES[mode], initiator=initiator)


GROUPS = (
    "modp2048",
    "modp3072",
    "modp4096",
    "modp6144",
    "modp8192",
    "ecp256",
    "ecp384",
    "ecp521",
    "x25519",
    "x448",
)


@ROLES
@pytest.mark.parametrize("group", GROUPS)
def test_every_group_of_ike2(bench: Bench, group: str, initiator: bool) -> None:
    check(bench, Case(ike=f"aes128-sha256-{group}"), initiator=initiator)


@ROLES
@pytest.mark.parametrize("group", GROUPS[:8])
def test_every_group_of_ike1(bench: Bench, group: str, initiator: bool) -> None:
    check(bench, Case(version=1, ike=f"aes128-sha256-{group}"), initiator=initiator)


@ROLES
@pytest.mark.parametrize(
    "proposal",
    [
        "aes128-sha256",
        "aes192-sha256",
        "aes256-sha384",
        "aes256-sha512",
        "aes128gcm16-prfsha256",
        "aes256gcm16-prfsha384",
        "chacha20poly1305-prfsha512",
    ],
)
def test_every_protection_of_ike2(bench: Bench, proposal: str, initiator: bool) -> None:
    check(bench, Case(ike=f"{proposal}-x25519"), initiator=initiator)


@ROLES
@pytest.mark.parametrize("proposal", ["aes192-sha256", "aes256-sha384", "aes256-sha512"])
def test_every_protection_of_ike1(bench: Bench, proposal: str, initiator: bool) -> None:
    check(bench, Case(version=1, ike=f"{proposal}-ecp256"), initiator=initiator)


ESP = ("aes256gcm16", "aes128-sha256", "aes192-sha384", "aes256-sha512", "null-sha256")


@ROLES
@pytest.mark.parametrize(
    ("version", "esp"),
    # IKEv1 has no number for ChaCha20.
    [(1, each) for each in ESP] + [(2, each) for each in (*ESP, "chacha20poly1305")],
)
def test_every_esp_transform(bench: Bench, esp: str, version: int, initiator: bool) -> None:
    check(bench, Case(version=version, ike=V1_PROPOSAL, esp=esp), initiator=initiator)


@ROLES
@pytest.mark.parametrize("version", [1, 2])
def test_sha1_where_a_policy_names_it(bench: Bench, version: int, initiator: bool) -> None:
    case = Case(version=version, ike="aes128-sha1-modp2048")
    check(bench, case, initiator=initiator)


@ROLES
def test_a_tunnel_for_ipv6_through_ipv4(bench: Bench, initiator: bool) -> None:
    case = Case()
    inside = replace(case, ipv6=True)
    connection = bench.connection(inside)
    device = bench.device(case, local_traffic=connection.local_traffic, remote_traffic=connection.remote_traffic)
    device.inner = bench.us.inner6
    networks = {"local": [bench.peer.network6], "remote": [bench.us.network6]}
    bench.load(case, child=networks)
    if initiator:
        bench.initiate(device, case)
    else:
        bench.charon.initiate()
    device.established()
    bench.charon.established()
    bench.check_traffic(device, inside)
