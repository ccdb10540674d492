"""Every error has its notify in both versions, and some are answered with silence."""

from __future__ import annotations

import pytest

from locum import errors as base
from locum.crypto.symmetric import AuthenticationFailed as TagFailed
from locum.handshake import Fault, Verdict
from locum.ike import errors as e
from locum.ike.registry import NotifyType1, NotifyType2, ProtocolId


def every(kind: type[base.LocumError]) -> set[type[base.LocumError]]:
    found = {kind}
    for each in kind.__subclasses__():
        found |= every(each)
    return found


SAMPLES: dict[type[base.LocumError], base.LocumError] = {
    e.InvalidMessageId: e.InvalidMessageId(7),
    e.UnsupportedCriticalPayload: e.UnsupportedCriticalPayload(200),
    e.InvalidKeyExchange: e.InvalidKeyExchange(31),
    e.ChildSaNotFound: e.ChildSaNotFound(ProtocolId.ESP, b"\1\2\3\4"),
    e.NotifyReceived: e.notify_received(NotifyType2, 14),
    e.PeerRejected: e.PeerRejected(Verdict(authentic=False, allowed=False, fault=Fault.EXPIRED)),
}
OURS = sorted(
    (kind for kind in every(base.LocumError) if kind.__module__ in (base.__name__, e.__name__)),
    key=lambda kind: kind.__name__,
)
SILENT = {e.NotProtected, e.NotifyReceived}


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_every_error_has_an_answer_or_is_silent_in_both_versions(kind: type[base.LocumError]) -> None:
    error = SAMPLES[kind] if kind in SAMPLES else kind("what went wrong")
    for answer, registry in ((e.notify2_for(error), NotifyType2), (e.notify1_for(error), NotifyType1)):
        if kind in SILENT:
            assert answer is None
        else:
            assert answer is not None
            assert answer.notify_type in registry.__members__.values()
            assert answer.notify_type < 16384


@pytest.mark.parametrize(
    ("error", "two", "one"),
    [
        (base.DecodeError("x"), NotifyType2.INVALID_SYNTAX, NotifyType1.PAYLOAD_MALFORMED),
        (base.Misbehaved("x"), NotifyType2.INVALID_SYNTAX, NotifyType1.PAYLOAD_MALFORMED),
        (e.UnexpectedMessage("x"), NotifyType2.INVALID_SYNTAX, NotifyType1.INVALID_EXCHANGE_TYPE),
        (e.NoProposalChosen("x"), NotifyType2.NO_PROPOSAL_CHOSEN, NotifyType1.NO_PROPOSAL_CHOSEN),
        (e.AlteredProposal("x"), NotifyType2.NO_PROPOSAL_CHOSEN, NotifyType1.BAD_PROPOSAL_SYNTAX),
        (e.AuthenticationFailed("x"), NotifyType2.AUTHENTICATION_FAILED, NotifyType1.INVALID_HASH_INFORMATION),
        (e.InvalidSpi("x"), NotifyType2.INVALID_IKE_SPI, NotifyType1.INVALID_COOKIE),
        (
            e.TrafficSelectorsUnacceptable("x"),
            NotifyType2.TS_UNACCEPTABLE,
            NotifyType1.INVALID_ID_INFORMATION,
        ),
        (base.Unavailable("x"), NotifyType2.TEMPORARY_FAILURE, NotifyType1.NO_PROPOSAL_CHOSEN),
        (base.ConfigurationError("x"), NotifyType2.TEMPORARY_FAILURE, NotifyType1.NO_PROPOSAL_CHOSEN),
        (e.UnsupportedVersion("x"), NotifyType2.INVALID_MAJOR_VERSION, NotifyType1.INVALID_MAJOR_VERSION),
    ],
)
def test_an_error_is_answered_with_its_own_word(
    error: base.LocumError, two: NotifyType2, one: NotifyType1
) -> None:
    assert e.notify2_for(error) == e.Notification(two)
    assert e.notify1_for(error) == e.Notification(one)


@pytest.mark.parametrize(
    ("error", "data"),
    [
        (e.UnsupportedCriticalPayload(200), b"\xc8"),
        (e.InvalidMessageId(7), b"\0\0\0\7"),
        (e.InvalidKeyExchange(31), b"\0\x1f"),
    ],
)
def test_a_notify_carries_what_the_rfc_says(error: base.LocumError, data: bytes) -> None:
    answer = e.notify2_for(error)
    assert answer is not None
    assert answer.data == data


def test_a_child_sa_that_is_not_there_is_named() -> None:
    answer = e.notify2_for(e.ChildSaNotFound(ProtocolId.ESP, b"\1\2\3\4"))
    assert answer == e.Notification(NotifyType2.CHILD_SA_NOT_FOUND, protocol=ProtocolId.ESP, spi=b"\1\2\3\4")


def test_what_is_not_authentic_is_never_answered() -> None:
    for error in (e.NotProtected("x"), TagFailed("x"), e.notify_received(NotifyType1, 14)):
        assert e.notify2_for(error) is None
        assert e.notify1_for(error) is None


@pytest.mark.parametrize("fault", Fault)
def test_a_refusal_tells_an_ikev2_peer_nothing_but_that(fault: Fault) -> None:
    error = e.PeerRejected(Verdict(authentic=fault is Fault.POLICY, allowed=False, fault=fault, reason="why"))
    assert "why" in str(error)
    assert e.notify2_for(error) == e.Notification(NotifyType2.AUTHENTICATION_FAILED)
    assert e.notify1_for(error) is not None


def test_a_received_notify_is_named_in_its_version() -> None:
    assert str(e.notify_received(NotifyType2, 38)) == "the peer sent TS_UNACCEPTABLE"
    assert str(e.notify_received(NotifyType1, 16)) == "the peer sent PAYLOAD_MALFORMED"
    assert e.notify_received(NotifyType1, 9999).notify_type == 9999
