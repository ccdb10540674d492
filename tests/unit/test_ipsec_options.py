"""The words of `locum terminal ipsec` and the connection they make, and mistakes in them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from locum.errors import ConfigurationError
from locum.ike import algorithms as alg
from locum.ike.configuration import Connection, Mode
from locum.ike.policy import IkePolicy
from locum.ike.registry import AuthenticationMethod1, EncapsulationMode, ProtocolId, Version
from locum.ike.traffic_selectors import selector_of
from locum.terminal.ipsec_options import IpsecOptions, connection, identity

PEER = ip_address("192.0.2.7")
PEER6 = ip_address("2001:db8::7")


def made(**words: object) -> Connection:
    return connection(replace(IpsecOptions(), **words), PEER)


def test_nothing_said_is_ikev2_with_the_defaults_of_the_engine() -> None:
    wanted = made()
    assert wanted.version == Version.IKE_2
    assert wanted.remote == PEER
    assert wanted.ike == IkePolicy()
    assert wanted.local_traffic == wanted.remote_traffic == ()
    assert (wanted.timing.ike_lifetime, wanted.timing.child_lifetime, wanted.timing.liveness) == (14400, 3600, 30)


def test_proposals_go_where_they_belong() -> None:
    wanted = made(proposal="aes128gcm16-prfsha256-ecp256", esp="aes256gcm16-x25519")
    assert wanted.ike.groups == (alg.ECP_256,)
    assert wanted.child.groups == (alg.CURVE25519,)
    assert wanted.child.protocol == ProtocolId.ESP
    assert made(ah="sha256").child.protocol == ProtocolId.AH


def test_in_ikev1_the_proposal_is_that_of_the_first_phase_and_lifetimes_are_offered() -> None:
    wanted = made(version="1", proposal="aes256-sha256-modp3072", lifetime=600.0, child_lifetime=300.0)
    assert wanted.version == Version.IKE_1
    assert wanted.phase1.groups == (alg.MODP_3072,)
    assert wanted.phase1.lifetime == 600
    assert wanted.child.lifetime == 300
    assert wanted.timing.ike_lifetime == 600.0


def test_traffic_is_written_as_networks() -> None:
    wanted = made(local_traffic=("10.1.0.0/16", "10.3.0.0/16"), remote_traffic=("any",))
    assert wanted.local_traffic == tuple(selector_of(ip_network(net)) for net in ("10.1.0.0/16", "10.3.0.0/16"))
    assert wanted.remote_traffic == (selector_of(ip_network("0.0.0.0/0")),)
    assert connection(IpsecOptions(remote_traffic=("any",)), PEER6).remote_traffic == (
        selector_of(ip_network("::/0")),
    )


def test_transport_mode_is_asked_for_in_both_versions() -> None:
    assert made(transport=True).transport
    assert made(transport=True, version="1").child.modes == (EncapsulationMode.TRANSPORT,)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ({}, True),
        ({"mode": "aggressive"}, False),
        ({"mode": "aggressive", "aggressive_psk": True}, True),
        ({"methods": "psk"}, True),
        ({"methods": "psk", "mode": "aggressive", "aggressive_psk": True}, True),
    ],
    ids=["main", "aggressive", "aggressive-allowed", "main-psk", "aggressive-psk-allowed"],
)
def test_aggressive_mode_takes_a_pre_shared_key_only_when_told_to(words: dict[str, object], offered: bool) -> None:
    methods = made(version="1", **words).phase1.methods
    assert (AuthenticationMethod1.PRE_SHARED_KEY in methods) is offered


def test_ways_to_authenticate_are_offered_in_the_order_written() -> None:
    wanted = made(version="1", methods="rsa-encryption,rsa")
    assert wanted.phase1.methods == (AuthenticationMethod1.RSA_ENCRYPTION, AuthenticationMethod1.RSA_SIGNATURE)
    assert made(version="1", mode="aggressive", methods="rsa").mode is Mode.AGGRESSIVE


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("", ""),
        ("GW.example.com", "dns:gw.example.com"),
        ("dns:gw.example.com.", "dns:gw.example.com"),
        ("192.0.2.7", "ip:192.0.2.7"),
        ("2001:DB8::7", "ip:2001:db8::7"),
        ("ip:192.0.2.7", "ip:192.0.2.7"),
        ("ops@example.com", "email:ops@example.com"),
        ("keyid:0AFF", "keyid:0aff"),
        ("CN=gw,O=example", "dn:CN=gw,O=example"),
        ("dn:CN=gw,O=example", "dn:CN=gw,O=example"),
    ],
)
def test_an_identity_is_told_by_its_looks_or_by_its_word(text: str, normal: str) -> None:
    assert identity(text) == normal


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"version": "3"}, "give 1 or 2"),
        ({"mode": "quick"}, "give main or aggressive"),
        ({"mode": "aggressive"}, "are for IKEv1"),
        ({"methods": "psk"}, "are for IKEv1"),
        ({"version": "1", "methods": "eap"}, "'eap' is not a way to authenticate"),
        ({"version": "1", "mode": "aggressive", "methods": "psk"}, "--allow-aggressive-psk"),
        ({"version": "1", "mode": "aggressive", "methods": "rsa,psk"}, "--allow-aggressive-psk"),
        ({"esp": "aes256gcm16", "ah": "sha256"}, "not both"),
        ({"proposal": "3des-sha256-modp2048"}, "too weak"),
        ({"version": "1", "proposal": "aes256gcm16-prfsha256-modp2048"}, "take AES-CBC"),
        ({"local_traffic": ("10.1.0.0/8",)}, "host bits set"),
        ({"remote_traffic": ("nowhere",)}, "is not an address"),
        ({"version": "1", "local_traffic": ("10.1.0.0/16", "10.2.0.0/16")}, "one network at each end"),
        ({"version": "1", "ppk_required": True}, "for IKEv2"),
        ({"version": "1", "keys_from_authority": True}, "for IKEv2"),
        ({"local_identity": "dns:*.example.com"}, "does not name one peer"),
        ({"remote_identity": "pin:gateway"}, "does not name one peer"),
        ({"remote_identity": "keyid:xyz"}, "not a key ID"),
        ({"liveness": -1.0}, "positive"),
        ({"lifetime": 0.0}, "positive"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "-".join(value),
)
def test_a_mistake_is_said_in_one_line(words: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as refusal:
        made(**words)
    assert "\n" not in str(refusal.value)
