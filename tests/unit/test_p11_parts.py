"""Errands between parent and worker, objects and their handles, and who may connect."""

import os
import socket

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from tests.support.p11_keys import EC, HANDLES, RSA, offered, token
from tests.support.p11_worker import offered_key
from tests.support.peers import CertificateAuthority

from locum.edge.p11.allowed import Allowed, Client, client_of
from locum.edge.p11.errands import Errand, Task, TokenObject, decode_result, encode_result
from locum.edge.p11.mechanisms import Failed
from locum.edge.p11.objects import certificate_objects, key_objects
from locum.edge.p11.registry import Attribute, ObjectClass, Rv
from locum.errors import ConfigurationError, DecodeError


@given(
    st.builds(
        Errand,
        number=st.integers(1, 0xFFFFFFFF),
        task=st.sampled_from(Task),
        ski=st.binary(min_size=20, max_size=20),
        scheme=st.sampled_from(("", "ECDSA_SECP256R1_SHA256", "RSA_PSS_RSAE_SHA512")),
        data=st.binary(max_size=300),
    )
)
def test_errands_survive_the_link(errand: Errand) -> None:
    assert Errand.decode(errand.encode()) == errand


def test_results_survive_the_link() -> None:
    assert decode_result(encode_result(7, Rv.DEVICE_ERROR, b"data")) == (7, Rv.DEVICE_ERROR, b"data")


@pytest.mark.parametrize("packet", [b"", b"\1\2", bytes(25), bytes(4) + b"\1" + bytes(20) + b"\xff"])
def test_packets_that_are_no_errands_are_errors(packet: bytes) -> None:
    with pytest.raises(DecodeError):
        Errand.decode(packet)


@pytest.mark.parametrize("packet", [b"\2", b"\2\xff", b"\2\x83\1\2\3"])
def test_packets_that_are_no_objects_are_errors(packet: bytes) -> None:
    with pytest.raises(DecodeError):
        TokenObject.decode(packet)


def test_objects_survive_the_link() -> None:
    for item in key_objects(offered("rsa")):
        assert TokenObject.decode(item.encode()) == item


def test_an_object_keeps_its_handle_through_changes() -> None:
    made = token()
    ec_objects = list(key_objects(offered("ec")))
    made.replace(ec_objects)
    assert made.key_count == 1
    with pytest.raises(Failed):
        made.private_key(HANDLES.rsa)
    assert made.private_key(HANDLES.ec) == ec_objects[0]
    made.replace([*key_objects(offered("rsa")), *ec_objects])
    assert made.private_key(HANDLES.rsa).length == RSA.key_size // 8
    assert made.private_key(HANDLES.ec).length == 64


def test_keys_that_clients_have_no_mechanism_for_are_left_out() -> None:
    public_key = ed25519.Ed25519PrivateKey.generate().public_key()
    spki = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert list(key_objects(offered_key("ed", spki, raw=True, bound=True))) == []


def test_a_public_key_is_a_point_in_an_octet_string() -> None:
    point = EC.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    for item in key_objects(offered("ec")):
        assert item.attributes[Attribute.EC_POINT] == b"\x04\x41" + point


def test_certificates_are_objects_beside_their_keys(tmp_path) -> None:
    issued = CertificateAuthority(tmp_path, "ca").issue("leaf")
    spki = issued.private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key = offered_key("web", spki, raw=True, bound=True)
    (item, *_) = certificate_objects(issued.chain.read_bytes(), [key])
    assert item.attributes[Attribute.CLASS] == ObjectClass.CERTIFICATE
    assert item.attributes[Attribute.LABEL] == b"web"
    assert item.attributes[Attribute.ID] == key.ski
    assert item.attributes[Attribute.VALUE] == issued.der
    assert item.ski == b""
    with pytest.raises(ConfigurationError):
        list(certificate_objects(b"nothing", []))


# --- who may connect --------------------------------------------------------------------------------------


def test_the_kernel_tells_who_connects() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = client_of(ours)
        assert client == Client(pid=os.getpid(), uid=os.geteuid(), gid=os.getegid())
        assert Allowed.of().allows(ours, client)
        assert not Allowed.of().others


def test_users_and_groups_are_allowed_by_number_and_name() -> None:
    stranger = Client(pid=1, uid=54_321, gid=54_321)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not Allowed.of().allows(ours, stranger)
        assert Allowed.of(uids=[54_321]).allows(ours, stranger)
        assert Allowed.of(users=["root"]).uids == {0, os.geteuid()}
        assert Allowed(uids=frozenset(), gids=frozenset((54_321,))).allows(ours, stranger)
        own_groups = Allowed(uids=frozenset(), gids=frozenset(os.getgroups() or (os.getegid(),)))
        assert own_groups.allows(ours, Client(pid=1, uid=54_321, gid=os.getegid()))
        assert not Allowed(uids=frozenset(), gids=frozenset((54_322,))).allows(ours, stranger)
    assert Allowed.of(groups=["root"]).others


@pytest.mark.parametrize("names", [{"users": ["nobody-of-that-name"]}, {"groups": ["no-such-group"]}])
def test_names_that_do_not_exist_are_errors(names: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigurationError, match="on this machine"):
        Allowed.of(**names)
