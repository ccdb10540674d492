"""What else IKE can do, with strongSwan: other identities, PPKs, older signatures, narrower traffic."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network

import pytest
from tests.support.ike_device import TERMINAL
from tests.support.ike_strongswan import PEER_NAME, Bench, Case, Pki

from locum.authority.databases import Identity, PolicyRule, PostquantumSecret, SharedSecret, TrustMaterial
from locum.authority.ike_negotiation import IkeOptions
from locum.authority.local import LocalAuthority
from locum.demo.pki import Issued
from locum.demo.strongswan import Child as PeerChild
from locum.errors import LocumError
from locum.ike.engine import ChildEstablished, Closed, Established
from locum.ike.operations import SaKeysResponse
from locum.ike.traffic_selectors import selector_of
from locum.keys.file import FileKey

ROLES = pytest.mark.parametrize("initiator", [True, False], ids=["initiator", "responder"])
VERSIONS = pytest.mark.parametrize("version", [1, 2])
V1_PROPOSAL = "aes128-sha256-ecp256"
PPK = b"a secret against computers that nobody has yet"


# --- identities -------------------------------------------------------------------------------------------------

#: As a verdict has it, strongSwan's word for it, and what must be in the certificate.
IDENTITIES = {
    "dns": ("dns:{}.example", "{}.example", {"names": ("{}.example",)}),
    "email": ("email:{}@example.org", "{}@example.org", {"names": ("{}@example.org",)}),
    # RFC 4514 has the order of the other turned round.
    "dn": ("dn:CN={},O=example", "O=example, CN={}", {"names": (), "subject": "CN={},O=example"}),
}


def certificate(pki: Pki, kind: str, name: str) -> Issued:
    contents = {
        key: value.format(name) if isinstance(value, str) else tuple(each.format(name) for each in value)
        for key, value in IDENTITIES[kind][2].items()
    }
    return pki.authority.issue(f"{name}-{kind}", usage="ipsec", **contents)  # type: ignore[arg-type]


@ROLES
@VERSIONS
@pytest.mark.parametrize("kind", IDENTITIES)
def test_identities_of_every_kind_are_proven_by_certificates(
    bench: Bench, kind: str, version: int, initiator: bool
) -> None:
    verdict, word, _ = IDENTITIES[kind]
    ours, theirs = (certificate(bench.pki, kind, name) for name in ("meter", "gateway"))
    authority = LocalAuthority(
        trust=TrustMaterial(anchors=(bench.pki.authority.der,)),
        policy=[PolicyRule(terminal=TERMINAL, peer=verdict.format("gateway"), action="allow")],  # type: ignore[arg-type]
        identities=[Identity(name="own", certificates=(ours.der,), key=FileKey.from_pem(ours.key.read_bytes()))],
        now=bench.now,
    )
    case = Case(version=version, own="p256", peer="p256", ike=V1_PROPOSAL)
    # In IKEv1 the responder's identity is not asked for by name, but must be the one that is wanted.
    device = bench.device(case, authority=authority, remote_identity=verdict.format("gateway"))
    bench.load(
        case,
        certificate=theirs,
        identity=word.format("gateway"),
        peer_identity=word.format("meter"),
    )
    if initiator:
        bench.initiate(device, case)
    else:
        bench.charon.initiate()
    device.established()
    assert device.sa.peer_identity == verdict.format("gateway")
    bench.check_traffic(device, case)


@ROLES
@VERSIONS
def test_addresses_are_identities_of_a_shared_secret(bench: Bench, version: int, initiator: bool) -> None:
    case = Case(version=version, ike=V1_PROPOSAL)
    shared = SharedSecret(
        terminal=TERMINAL,
        peer=f"ip:{bench.peer.address}",
        secret=b"between addresses",
        local_identity=f"ip:{bench.us.address}",
    )
    authority = LocalAuthority(
        trust=TrustMaterial(),
        policy=[PolicyRule(terminal=TERMINAL, peer="ip:192.0.2.0/24", action="allow")],  # type: ignore[arg-type]
        secrets=[shared],
        now=bench.now,
    )
    device = bench.device(case, authority=authority, remote_identity="")
    bench.load(case, secret=b"between addresses", identity=bench.peer.address, peer_identity=bench.us.address)
    if initiator:
        bench.initiate(device, case)
    else:
        bench.charon.initiate()
    device.established()
    assert device.sa.peer_identity == f"ip:{bench.peer.address}"
    bench.check_traffic(device, case)


# --- post-quantum pre-shared keys, RFC 8784 ---------------------------------------------------------------------


def ppk(required: bool = False, secret: bytes = PPK) -> PostquantumSecret:
    return PostquantumSecret(
        identifier="both know it", secret=secret, terminal=TERMINAL, peer=f"dns:{PEER_NAME}", required=required
    )


@ROLES
@pytest.mark.parametrize("method", ["psk", "p256"])
def test_a_postquantum_secret_goes_into_the_keys(bench: Bench, method: str, initiator: bool) -> None:
    case = Case(own=method, peer=method)
    device = bench.device(case, authority=bench.authority(case, ppks=[ppk()]), use_ppk=True, ppk_required=True)
    bench.charon.share_postquantum("both know it", PPK)
    bench.load(case, extra={"ppk_id": "both know it", "ppk_required": "yes"})
    if initiator:
        bench.initiate(device, case)
    else:
        bench.charon.initiate()
    child = device.established()
    bench.check_keys(device, child, initiator=initiator)
    bench.check_traffic(device, case)


@ROLES
def test_a_peer_without_the_postquantum_secret_is_served_where_it_is_not_required(
    bench: Bench, initiator: bool
) -> None:
    case = Case()
    device = bench.device(case, authority=bench.authority(case, ppks=[ppk()]), use_ppk=True)
    bench.load(case)
    if initiator:
        bench.initiate(device, case)
    else:
        bench.charon.initiate()
    child = device.established()
    bench.check_keys(device, child, initiator=initiator)
    bench.check_traffic(device, case)


@ROLES
def test_a_peer_without_the_postquantum_secret_is_turned_down_where_it_is_required(
    bench: Bench, initiator: bool
) -> None:
    case = Case()
    authority = bench.authority(case, ppks=[ppk(required=True)])
    device = bench.device(case, authority=authority, use_ppk=True, ppk_required=True)
    bench.load(case)
    if initiator:
        bench.initiate(device, case)
    else:
        bench.charon.initiate(wait=False)
    assert isinstance(device.wait_event(Closed).error, LocumError)
    assert device.seen(Established) == []
    # strongSwan waits for an initiator that leaves after IKE_SA_INIT.
    assert [sa for sa in bench.charon.sas() if sa.state == "ESTABLISHED"] == []


@ROLES
def test_another_postquantum_secret_sets_nothing_up(bench: Bench, initiator: bool) -> None:
    case = Case()
    authority = bench.authority(case, ppks=[ppk(required=True, secret=b"another")])
    device = bench.device(case, authority=authority, use_ppk=True, ppk_required=True)
    bench.charon.share_postquantum("both know it", PPK)
    bench.load(case, extra={"ppk_id": "both know it", "ppk_required": "yes"})
    if initiator:
        bench.initiate(device, case)
    else:
        bench.charon.initiate(wait=False)
    assert isinstance(device.wait_event(Closed).error, LocumError)
    assert device.seen(Established) == []
    bench.charon.gone()


# --- signatures of peers that do not know RFC 7427 --------------------------------------------------------------


@ROLES
@pytest.mark.parametrize("kind", ["p256", "p384", "p521"])
def test_ecdsa_without_rfc_7427(make_bench: Callable[..., Bench], kind: str, initiator: bool) -> None:
    bench = make_bench(settings={"signature_authentication": "no"})
    case = Case(own=kind, peer=kind)
    device = bench.connect(case, initiator=initiator)
    bench.check_traffic(device, case)


@ROLES
def test_rsa_over_sha1_only_where_it_is_allowed(make_bench: Callable[..., Bench], initiator: bool) -> None:
    bench = make_bench(settings={"signature_authentication": "no"})
    case = Case(own="rsa2048", peer="rsa2048")
    strict = bench.device(case)
    bench.load(case)
    if initiator:
        bench.initiate(strict, case)
    else:
        bench.charon.initiate(wait=False)
    assert isinstance(strict.wait_event(Closed).error, LocumError)
    assert strict.seen(Established) == []
    strict.vanish()
    bench.charon.abandon()
    authority = bench.authority(case, options=replace(IkeOptions(), legacy_sha1=True))
    lenient = bench.device(case, authority=authority)
    if initiator:
        bench.initiate(lenient, case)
    else:
        bench.charon.initiate()
    lenient.established()
    bench.check_traffic(lenient, case)


# --- children ---------------------------------------------------------------------------------------------------


@ROLES
def test_traffic_is_narrowed_to_what_both_ends_want(bench: Bench, initiator: bool) -> None:
    case = Case()
    wide = (selector_of(ip_network("10.0.0.0/8")),)
    device = bench.device(case, local_traffic=wide, remote_traffic=wide)
    bench.load(case)
    if initiator:
        bench.initiate(device, case)
    else:
        bench.charon.initiate()
    child = device.established()
    assert [str(each) for each in child.outbound.local] == [bench.us.network]
    assert [str(each) for each in child.outbound.remote] == [bench.peer.network]
    bench.check_traffic(device, case)


def test_an_sa_without_a_child_gets_one_later(bench: Bench) -> None:
    case = Case()
    device = bench.device(case)
    bench.load(case, extra={"childless": "force"})
    bench.charon.initiate(child=None)
    device.wait_event(Established)
    assert device.sa.children == ()
    bench.charon.initiate()
    device.wait_event(ChildEstablished)
    bench.check_traffic(device, case)


def test_keys_of_the_traffic_may_come_from_the_authority(bench: Bench) -> None:
    case = Case(own="p256", peer="p256")
    device = bench.device(case, keys_from_authority=True)
    bench.load(case)
    bench.initiate(device, case)
    child = device.established()
    bench.check_keys(device, child, initiator=True)
    handed_over = device.asked.response(SaKeysResponse).keys
    # Nothing else came: SK_d stays with the authority (A7).
    assert handed_over == child.outbound.encryption_key + child.inbound.encryption_key
    bench.check_traffic(device, case)


@ROLES
def test_several_networks_in_one_child(bench: Bench, initiator: bool) -> None:
    case = Case()
    networks = [bench.us.network, "10.9.0.0/24"]
    device = bench.device(case, local_traffic=tuple(selector_of(ip_network(each)) for each in networks))
    child = PeerChild(local=[bench.peer.network], remote=networks)
    bench.load(case, child={"remote": child.remote})
    if initiator:
        bench.initiate(device, case)
    else:
        bench.charon.initiate()
    made = device.established()
    assert {str(each) for each in made.outbound.local} == set(networks)
    bench.check_traffic(device, case)
