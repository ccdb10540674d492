"""Negotiated CHILD_SAs as pairs of associations; cookies."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from tests.support.tls_memory import Deterministic

from locum.errors import ConfigurationError
from locum.ike import algorithms as alg
from locum.ike.children import (
    HARD_PACKETS,
    SOFT_PACKETS,
    ChildTerms,
    child_on,
    host_selector,
    ipsec_selector,
    keys_from_material,
    make_child,
)
from locum.ike.cookies import COOKIE_LENGTH, SECRET_LIFETIME, CookieJar
from locum.ike.engine import Path
from locum.ike.errors import NoProposalChosen
from locum.ike.registry import ProtocolId
from locum.ike.suites import ChildKeys, ChildSuite, DirectionKeys
from locum.ike.traffic_selectors import TrafficSelector, selector_of
from locum.ipsec.sa import Direction, Mode, UdpEncapsulation

HERE, THERE = ip_address("192.0.2.1"), ip_address("198.51.100.2")
PATH = Path(HERE, 4500, THERE, 14500)

SUITE = ChildSuite(protocol=ProtocolId.ESP, encryption=alg.ENCR_AES_GCM_16_128, integrity=None)
KEYS = ChildKeys(
    initiator=DirectionKeys(encryption=b"i" * 20, integrity=b""),
    responder=DirectionKeys(encryption=b"r" * 20, integrity=b""),
)
TERMS = ChildTerms(
    suite=SUITE,
    initiator=True,
    inbound_spi=0x1001,
    outbound_spi=0x2002,
    local=(selector_of(ip_network("10.1.0.0/16")),),
    remote=(selector_of(ip_network("10.2.0.0/16"), protocol=6, port=443),),
    transport=False,
    encapsulated=False,
    lifetime=3600.0,
    created=7.0,
)


def test_each_direction_has_the_keys_of_its_sender() -> None:
    ours = make_child(TERMS, KEYS, PATH)
    assert (ours.outbound.encryption_key, ours.inbound.encryption_key) == (b"i" * 20, b"r" * 20)
    theirs = make_child(replace(TERMS, initiator=False), KEYS, PATH)
    assert (theirs.outbound.encryption_key, theirs.inbound.encryption_key) == (b"r" * 20, b"i" * 20)


def test_addresses_and_spis_follow_the_packets() -> None:
    child = make_child(TERMS, KEYS, PATH)
    assert (child.inbound.direction, child.outbound.direction) == (Direction.IN, Direction.OUT)
    assert (child.inbound.source, child.inbound.destination) == (THERE, HERE)
    assert (child.outbound.source, child.outbound.destination) == (HERE, THERE)
    assert (child.inbound.spi, child.outbound.spi) == (0x1001, 0x2002)
    for sa in (child.inbound, child.outbound):
        assert [str(each) for each in sa.local] == ["10.1.0.0/16"]
        assert [str(each) for each in sa.remote] == ["10.2.0.0/16[tcp/443]"]
        assert sa.mode is Mode.TUNNEL
        assert sa.created == 7.0


def test_esp_in_udp_has_the_ports_of_the_path() -> None:
    child = make_child(replace(TERMS, encapsulated=True), KEYS, PATH)
    assert child.outbound.encapsulation == UdpEncapsulation(source_port=4500, destination_port=14500)
    assert child.inbound.encapsulation == UdpEncapsulation(source_port=14500, destination_port=4500)
    assert make_child(TERMS, KEYS, PATH).outbound.encapsulation is None


def test_short_sequence_numbers_limit_the_packets() -> None:
    short = make_child(TERMS, KEYS, PATH).outbound.lifetime
    assert (short.soft_packets, short.hard_packets) == (SOFT_PACKETS, HARD_PACKETS)
    extended = make_child(replace(TERMS, suite=replace(SUITE, extended_sequence_numbers=True)), KEYS, PATH)
    assert extended.outbound.lifetime.hard_packets is None
    assert extended.outbound.extended_sequence
    assert extended.outbound.lifetime.hard_seconds == 3600.0


def test_a_child_moves_to_another_path_with_its_keys() -> None:
    child = make_child(replace(TERMS, encapsulated=True), KEYS, PATH)
    moved = child_on(child, Path(HERE, 4500, ip_address("203.0.113.9"), 999))
    assert moved.outbound.destination == moved.inbound.source == ip_address("203.0.113.9")
    assert moved.outbound.encapsulation == UdpEncapsulation(source_port=4500, destination_port=999)
    assert moved.inbound.encryption_key == child.inbound.encryption_key
    assert (moved.inbound.spi, moved.outbound.spi) == (child.inbound.spi, child.outbound.spi)


@pytest.mark.parametrize("encryption", [each for each in alg.ENCRYPTIONS if each.aead is None], ids=str)
@pytest.mark.parametrize("integrity", [each for each in alg.INTEGRITIES if not each.legacy], ids=str)
def test_every_transform_of_ike_is_one_of_esp(encryption: alg.Encryption, integrity: alg.Integrity) -> None:
    suite = replace(SUITE, encryption=encryption, integrity=integrity)
    half = suite.encryption_length + suite.integrity_length
    keys = keys_from_material(suite, bytes(range(2 * half)))
    child = make_child(replace(TERMS, suite=suite), keys, PATH)
    assert child.outbound.encryption_key + child.outbound.integrity_key == bytes(range(half))
    assert child.inbound.encryption_key + child.inbound.integrity_key == bytes(range(half, 2 * half))


def test_keying_material_has_exactly_the_length_of_the_suite() -> None:
    for length in (39, 41):
        with pytest.raises(ValueError, match="bytes of keying material"):
            keys_from_material(SUITE, bytes(length))


def test_a_legacy_algorithm_that_packets_cannot_be_protected_with_is_refused() -> None:
    suite = replace(SUITE, encryption=alg.ENCR_AES_CBC_128, integrity=alg.AUTH_HMAC_SHA1_96)
    keys = keys_from_material(suite, bytes(72))
    if alg.AUTH_HMAC_SHA1_96.id in {each.transform_id for each in _esp_integrities()}:
        pytest.skip("HMAC-SHA1-96 is implemented for packets")
    with pytest.raises(NoProposalChosen):
        make_child(replace(TERMS, suite=suite), keys, PATH)


def _esp_integrities() -> list[object]:
    from locum.ipsec.algorithms import INTEGRITY

    return list(INTEGRITY.values())


def test_a_selector_without_a_range_is_refused() -> None:
    backwards = TrafficSelector(ts_type=7, start=bytes((10, 0, 0, 9)), end=bytes((10, 0, 0, 1)), end_port=65535)
    with pytest.raises(ConfigurationError):
        ipsec_selector(backwards)
    with pytest.raises(ValueError, match="address"):
        ipsec_selector(TrafficSelector(ts_type=99, start=b"what", end=b""))


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_a_host_is_all_traffic_of_one_address(address: str) -> None:
    selector = ipsec_selector(host_selector(ip_address(address)))
    assert selector.start == selector.end == ip_address(address)
    assert selector.any_port
    assert selector.protocol == 0


# --- cookies ------------------------------------------------------------------------------------------------

CLAIM = (b"n" * 32, HERE, b"s" * 8)


def test_a_cookie_proves_itself_for_its_time_and_as_long_again_at_most() -> None:
    jar = CookieJar(Deterministic())
    cookie = jar.make(*CLAIM, now=0.0)
    assert len(cookie) == COOKIE_LENGTH <= 64
    for moment in (0.0, SECRET_LIFETIME - 1, SECRET_LIFETIME + 1):
        assert jar.proves(cookie, *CLAIM, now=moment)
    assert not jar.proves(cookie, *CLAIM, now=3 * SECRET_LIFETIME)


def test_a_cookie_is_not_proven_after_a_long_rest() -> None:
    jar = CookieJar(Deterministic())
    cookie = jar.make(*CLAIM, now=0.0)
    assert not jar.proves(cookie, *CLAIM, now=2 * SECRET_LIFETIME + 1)


@pytest.mark.parametrize(
    "other",
    [(b"N" + b"n" * 31, HERE, b"s" * 8), (b"n" * 32, THERE, b"s" * 8), (b"n" * 32, HERE, b"S" * 8)],
    ids=["nonce", "address", "spi"],
)
def test_a_cookie_proves_nothing_else(other: tuple[bytes, object, bytes]) -> None:
    jar = CookieJar(Deterministic())
    cookie = jar.make(*CLAIM, now=0.0)
    assert not jar.proves(cookie, *other, now=0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("altered", [b"", b"\1", bytes(COOKIE_LENGTH), bytes(COOKIE_LENGTH + 1)], ids=len)
def test_what_was_not_made_here_is_no_cookie(altered: bytes) -> None:
    jar = CookieJar(Deterministic())
    assert not jar.proves(altered, *CLAIM, now=0.0)
    jar.make(*CLAIM, now=0.0)
    assert not jar.proves(altered, *CLAIM, now=0.0)
