"""The TLS client and its authority: answers that are nonsense, operations that fail, and negative verdicts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.tls_script import BY_NAME, Conversation, ScriptedAuthority

from locum.errors import OperationError, Refused, TimedOut, Unavailable
from locum.handshake import Fault as VerdictFault
from locum.handshake import PeerRejected, Request, Response, Verdict
from locum.tls.alerts import AlertDescription
from locum.tls.operations import HandshakeSecretsResponse, KeyShareResponse, MasterSecretResponse, StartResponse
from locum.tls.registry import NamedGroup

A = AlertDescription


class Faulty(ScriptedAuthority):
    """An authority of which one answer is replaced."""

    def __init__(self, kind: type[Response], answer: Any) -> None:
        super().__init__()
        self._kind, self._answer = kind, answer

    def _one(self, request: Request) -> Response:
        response = super()._one(request)
        if not isinstance(response, self._kind):
            return response
        return self._answer(response) if callable(self._answer) else self._answer  # type: ignore[no-any-return]


def start(**values: Any) -> Any:
    return lambda response: replace(response, **values)


NONSENSE: list[tuple[type[Response], Any]] = [
    (StartResponse, KeyShareResponse(key_share=b"x")),
    (StartResponse, start(versions=())),
    (StartResponse, start(versions=(0x0302,))),
    (StartResponse, start(cipher_suites=())),
    (StartResponse, start(cipher_suites=(0x0A0A,))),
    (StartResponse, start(cipher_suites=(0xC02F,), versions=(0x0304,))),
    (StartResponse, start(groups=())),
    (StartResponse, start(groups=(NamedGroup.X448,))),
    (StartResponse, start(signature_schemes=())),
    (StartResponse, start(key_share=b"")),
    (HandshakeSecretsResponse, MasterSecretResponse(secret=bytes(32))),
    (HandshakeSecretsResponse, HandshakeSecretsResponse(client_secret=bytes(31), server_secret=bytes(32))),
    (HandshakeSecretsResponse, HandshakeSecretsResponse(client_secret=bytes(32), server_secret=b"")),
    (Verdict, MasterSecretResponse(secret=bytes(32))),
    (MasterSecretResponse, Verdict(authentic=True, allowed=True)),
    (MasterSecretResponse, MasterSecretResponse(secret=b"")),
    (MasterSecretResponse, MasterSecretResponse(secret=bytes(48))),
]


@pytest.mark.parametrize(("kind", "answer"), NONSENSE)
def test_a_nonsensical_answer_of_the_authority_is_its_fault_and_not_the_peers(
    kind: type[Response], answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.tls_script.ScriptedAuthority", lambda **_: Faulty(kind, answer))
    talk = None
    with pytest.raises(OperationError):
        talk = Conversation(BY_NAME["1.3"])
        talk.play()
    if talk is not None:
        assert talk.last_alert == A.INTERNAL_ERROR


def test_groups_that_were_not_offered_to_the_authority_are_its_fault() -> None:
    with pytest.raises(OperationError, match="not offered"):
        Conversation(BY_NAME["1.3"], groups=(NamedGroup.SECP256R1,))


def test_an_empty_second_share_of_the_authority_is_its_fault() -> None:
    talk = Conversation(BY_NAME["1.3 HelloRetryRequest"])
    talk.authority = Faulty(KeyShareResponse, KeyShareResponse(key_share=b""))
    with pytest.raises(OperationError):
        talk.play(1)


@pytest.mark.parametrize("error", [Refused("no"), Unavailable("gone"), TimedOut("slow")], ids=repr)
def test_an_operation_that_fails_ends_the_handshake_with_internal_error(error: OperationError) -> None:
    talk = Conversation(BY_NAME["1.3"])
    talk.client.receive_data(talk.step("server_hello"))
    assert talk.client.pending is not None
    with pytest.raises(type(error)) as caught:
        talk.client.fail(error)
    assert caught.value is error
    assert bytes(talk.client.data_to_send()) == b"\x15\x03\x03\x00\x02\x02\x50"
    with pytest.raises(RuntimeError):
        talk.client.fail(error)


@pytest.mark.parametrize(
    ("fault", "alert"),
    [
        (VerdictFault.BAD_CERTIFICATE, A.BAD_CERTIFICATE),
        (VerdictFault.EXPIRED, A.CERTIFICATE_EXPIRED),
        (VerdictFault.UNKNOWN_ISSUER, A.UNKNOWN_CA),
        (VerdictFault.WRONG_NAME, A.BAD_CERTIFICATE),
        (VerdictFault.REVOKED, A.CERTIFICATE_REVOKED),
        (VerdictFault.BAD_SIGNATURE, A.DECRYPT_ERROR),
        (VerdictFault.UNSUPPORTED, A.UNSUPPORTED_CERTIFICATE),
        (VerdictFault.BAD_STATUS_RESPONSE, A.BAD_CERTIFICATE_STATUS_RESPONSE),
        (VerdictFault.POLICY, A.ACCESS_DENIED),
        (VerdictFault.NONE, A.CERTIFICATE_UNKNOWN),
    ],
)
@pytest.mark.parametrize("name", ["1.3", "1.3 client certificate", "1.2 ECDHE", "1.2 RSA"])
def test_a_negative_verdict_becomes_the_alert_for_its_reason(name: str, fault: VerdictFault, alert: A) -> None:
    talk = Conversation(BY_NAME[name])
    denied = Verdict(authentic=fault is VerdictFault.POLICY, allowed=False, reason="because", fault=fault)
    talk.authority = Faulty(Verdict, denied)
    with pytest.raises(PeerRejected, match="because") as caught:
        talk.play()
    assert caught.value.verdict is denied
    assert talk.last_alert == alert
    assert not talk.client.handshake_complete
    assert talk.events == []


def test_the_server_learns_of_a_bad_verdict_under_the_handshake_key() -> None:
    talk = Conversation(BY_NAME["1.3"])
    talk.authority = Faulty(Verdict, Verdict(authentic=False, allowed=False, fault=VerdictFault.EXPIRED))
    with pytest.raises(PeerRejected):
        talk.play()
    # The alert is no plain record: it came out of a protected one.
    assert talk.alerts == [(2, A.CERTIFICATE_EXPIRED)]
    assert b"\x15\x03\x03\x00\x02" not in talk.sent
