"""Certificates of IKE peers: purposes and usages of RFC 4945, revocation, and what is remembered of a chain."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.support import pki
from tests.support.ike_authority import LEFT_NAME, RIGHT_NAME, Play2, authority, identity

from locum.authority.authentication import CACHE_LIFETIME
from locum.authority.databases import Identity, TrustMaterial
from locum.authority.ike_authentication import IkeAuthenticator
from locum.authority.ike_identities import identification_of
from locum.crypto.asymmetric.certificates import PathValidator, Rejected, public_key_hash
from locum.handshake import Fault, PeerChain
from locum.keys.file import FileKey

CLAIMED = identification_of(f"dns:{pki.PEER_NAME}")


def prove(
    leaf: pki.Issued, trust: TrustMaterial | None = None, *, now: float = pki.EPOCH, claimed: Any = CLAIMED
) -> Any:
    trust = trust or TrustMaterial(anchors=(pki.ca().pem,))
    return IkeAuthenticator(trust).prove_ike(PeerChain(leaf.chain), claimed, now=now)


def rejected(*args: Any, **options: Any) -> Fault:
    with pytest.raises(Rejected) as caught:
        prove(*args, **options)
    return caught.value.fault


@pytest.mark.parametrize(
    "purposes",
    [
        None,
        (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,),
        (ExtendedKeyUsageOID.IPSEC_IKE,),
        (ExtendedKeyUsageOID.SERVER_AUTH,),
        (ExtendedKeyUsageOID.CLIENT_AUTH,),
        (ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.IPSEC_IKE),
    ],
    ids=lambda purposes: "-".join(each.dotted_string for each in purposes) if purposes else "none",
)
def test_purposes_that_ike_certificates_have_are_accepted(purposes: Any) -> None:
    (proven,) = prove(pki.leaf(pki.ca(), purposes=purposes))
    assert proven.identities == (f"dns:{pki.PEER_NAME}",)


@pytest.mark.parametrize("purpose", [ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.OCSP_SIGNING], ids=str)
def test_certificate_for_something_else_is_not_accepted(purpose: x509.ObjectIdentifier) -> None:
    assert rejected(pki.leaf(pki.ca(), purposes=(purpose,))) is Fault.BAD_CERTIFICATE


def test_certificate_for_clients_alone_is_still_none_for_a_tls_server() -> None:
    leaf = pki.leaf(pki.ca(), purposes=(ExtendedKeyUsageOID.CLIENT_AUTH,))
    with pytest.raises(Rejected):
        PathValidator([pki.ca().pem]).validate(leaf.chain, b"", pki.PEER_NAME, now=pki.EPOCH)


@pytest.mark.parametrize(
    ("usage", "accepted"),
    [
        (None, True),
        (("digital_signature",), True),
        (("content_commitment",), True),
        (("key_encipherment",), False),
        (("key_agreement",), False),
    ],
    ids=str,
)
def test_key_usage_must_allow_signatures_of_some_kind(usage: Any, accepted: bool) -> None:
    leaf = pki.leaf(pki.ca(), "p256", (LEFT_NAME,), slot=LEFT_NAME, usage=usage)
    good = identity(LEFT_NAME)
    left = authority(identities=(good,))
    right = authority(identities=(identity(RIGHT_NAME),))
    play = Play2(left, right, remote_identity=f"dns:{RIGHT_NAME}")
    play.init()
    (verdict, *_) = play.answer(play.prove_initiator(), chain=PeerChain(leaf.chain))
    assert verdict.accepted is accepted  # type: ignore[attr-defined]
    if not accepted:
        assert verdict.fault is Fault.UNSUPPORTED  # type: ignore[attr-defined]


def test_certificate_without_alternative_names_is_good_for_its_subject() -> None:
    leaf = pki.leaf(pki.ca(), names=(), subject="gateway")
    (proven,) = prove(leaf, claimed=identification_of("dn:CN=gateway"))
    assert proven.identities == ("dn:CN=gateway",)
    assert rejected(leaf) is Fault.WRONG_NAME


@pytest.mark.parametrize(
    ("leaf", "fault"),
    [
        pytest.param(pki.leaf(pki.ca(name="Unknown")), Fault.UNKNOWN_ISSUER, id="unknown issuer"),
        pytest.param(pki.leaf(pki.ca(), not_after=pki.NOW - pki.DAY / 2), Fault.EXPIRED, id="expired"),
        pytest.param(pki.leaf(pki.ca(), not_before=pki.NOW + pki.DAY), Fault.EXPIRED, id="not yet valid"),
        pytest.param(pki.leaf(pki.ca(), names=("other.example.com",)), Fault.WRONG_NAME, id="other name"),
        pytest.param(
            pki.leaf(pki.intermediate(pki.ca(), is_ca=False, name="Pretender")),
            Fault.BAD_CERTIFICATE,
            id="no authority",
        ),
    ],
)
def test_every_fault_has_its_kind(leaf: pki.Issued, fault: Fault) -> None:
    assert rejected(leaf) is fault


def test_revoked_certificate_is_not_accepted() -> None:
    leaf = pki.leaf(pki.ca())
    trust = TrustMaterial(anchors=(pki.ca().pem,), crls=(pki.crl(pki.ca(), [leaf.certificate]),))
    assert rejected(leaf, trust) is Fault.REVOKED
    stale = pki.crl(pki.ca(), next_update=pki.NOW - datetime.timedelta(hours=1))
    assert rejected(leaf, TrustMaterial(anchors=(pki.ca().pem,), crls=(stale,))) is Fault.BAD_STATUS_RESPONSE


def test_intermediate_authority_is_part_of_the_chain() -> None:
    leaf = pki.leaf(pki.intermediate(pki.ca()))
    assert prove(leaf)
    with pytest.raises(Rejected):
        IkeAuthenticator(TrustMaterial(anchors=(pki.ca().pem,))).prove_ike(
            PeerChain(leaf.chain[:1]), CLAIMED, now=pki.EPOCH
        )


@pytest.mark.parametrize(
    "chain", [(b"",), (b"\x30\x03\x02\x01\x01",), (b"x",) * 11], ids=["empty", "junk", "many"]
)
def test_what_is_no_certificate_is_a_bad_one(chain: tuple[bytes, ...]) -> None:
    with pytest.raises(Rejected) as caught:
        IkeAuthenticator(TrustMaterial(anchors=(pki.ca().pem,))).prove_ike(
            PeerChain(chain), CLAIMED, now=pki.EPOCH
        )
    assert caught.value.fault is Fault.BAD_CERTIFICATE


def test_without_trust_anchors_nobody_is_authentic() -> None:
    assert rejected(pki.leaf(pki.ca()), TrustMaterial()) is Fault.UNKNOWN_ISSUER


def test_chain_is_validated_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    authenticator = IkeAuthenticator(TrustMaterial(anchors=(pki.ca().pem,)))
    calls: list[float] = []
    original = authenticator.paths.validate_ike

    def validate(chain: Any, *, now: float) -> Any:
        calls.append(now)
        return original(chain, now=now)

    monkeypatch.setattr(authenticator.paths, "validate_ike", validate)
    chain = PeerChain(pki.leaf(pki.ca()).chain)
    for seconds in (0.0, CACHE_LIFETIME - 1, CACHE_LIFETIME + 1):
        authenticator.prove_ike(chain, CLAIMED, now=pki.EPOCH + seconds)
    assert calls == [pki.EPOCH, pki.EPOCH + CACHE_LIFETIME + 1]


def test_what_is_remembered_is_for_one_identity() -> None:
    authenticator = IkeAuthenticator(TrustMaterial(anchors=(pki.ca().pem,)))
    chain = PeerChain(pki.leaf(pki.ca()).chain)
    authenticator.prove_ike(chain, CLAIMED, now=pki.EPOCH)
    with pytest.raises(Rejected):
        authenticator.prove_ike(chain, identification_of("dns:other.example.com"), now=pki.EPOCH)


def test_peer_that_names_an_authority_by_its_key_gets_a_certificate_from_it() -> None:
    other = pki.ca(name="Other Root")
    first, second = identity(LEFT_NAME, issuer=other), identity(LEFT_NAME)
    left = authority(identities=(first, second))
    right = authority(identities=(identity(RIGHT_NAME),))
    shown = []
    for authorities in ((), (public_key_hash(pki.ca().certificate),), (bytes(20),)):
        play = Play2(left, right, remote_identity=f"dns:{RIGHT_NAME}")
        play.init()
        shown.append(play.prove_initiator(authorities=authorities).certificates)
    assert shown == [first.certificates, second.certificates, first.certificates]


def test_identity_that_is_valid_comes_before_one_that_is_not() -> None:
    old = pki.leaf(pki.ca(), "p256", (LEFT_NAME,), slot=LEFT_NAME, not_after=pki.NOW - pki.DAY / 2, purposes=None)
    expired = Identity(name="old", certificates=old.chain, key=FileKey.from_pem(old.key_pem))
    left = authority(identities=(expired, identity(LEFT_NAME)))
    right = authority(identities=(identity(RIGHT_NAME),))
    assert Play2(left, right, remote_identity=f"dns:{RIGHT_NAME}").run().agreed


def test_identity_without_the_wanted_name_is_not_used() -> None:
    left = authority(identities=(identity("other.example.com"), identity(LEFT_NAME)))
    right = authority(identities=(identity(RIGHT_NAME),))
    play = Play2(left, right, remote_identity=f"dns:{RIGHT_NAME}", local_identity=f"dns:{LEFT_NAME}")
    result = play.run()
    assert result.agreed
    assert result.by_responder.identity == f"dns:{LEFT_NAME}"
    by_subject = Play2(left, right, remote_identity=f"dns:{RIGHT_NAME}", local_identity=f"dn:CN={LEFT_NAME}")
    assert by_subject.run().by_responder.identity == f"dn:CN={LEFT_NAME}"
