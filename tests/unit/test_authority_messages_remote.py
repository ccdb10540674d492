"""`RemoteSession`: a terminal's side of a delegated handshake, against the real authority and against nonsense."""

from collections.abc import Sequence

import cbor2
import pytest
from tests.support import pki
from tests.support.exchange import (
    ECDHE_ECDSA,
    FULL_KEYS,
    START,
    TERMINAL,
    authenticate12,
    authenticate13,
    authority,
    ecdh_parameters,
    server_share,
    start12,
)

from locum.authority.chains import ChainCache
from locum.authority.local import LocalSession
from locum.authority.messages import (
    decode_requests,
    encode_chain_wanted,
    encode_error,
    encode_responses,
)
from locum.authority.remote import RemoteSession, Resend
from locum.errors import DecodeError, Incompatible, LocumError, Misbehaved, Refused, TimedOut, Unavailable
from locum.handshake import Request, Response, Verdict
from locum.tls.operations import (
    ClientKeyExchangeRequest,
    KeyForm,
    MasterSecretRequest,
    MasterSecretResponse,
    ServerFinishedRequest,
    StartResponse,
)

LEAF = pki.leaf(pki.intermediate(pki.ca()))
TOKEN = b"8 bytes."
CHANGED = 0x44


class Delegate:
    """The least that stands between messages and a LocalSession, and a count of what went over the link."""

    def __init__(self, chains: ChainCache | None = None) -> None:
        self.chains = chains if chains is not None else ChainCache()
        self.session: LocalSession | None = authority().open(TERMINAL)
        self.bytes = 0
        self.exchanges = 0

    def post(self, payload: bytes) -> tuple[bytes, int]:
        answer = self._answer(payload)
        self.bytes += len(payload) + len(answer)
        self.exchanges += 1
        return answer, CHANGED

    def _answer(self, payload: bytes) -> bytes:
        message = decode_requests(payload, self.chains)
        assert message.token in (b"", TOKEN)
        if message.chain_wanted:
            return encode_chain_wanted()
        if not message.requests:
            self.session = None
            return cbor2.dumps([])
        assert self.session is not None
        try:
            responses = self.session.perform(message.requests)
        except LocumError as error:
            return encode_error(error)
        self.chains.remember(message.requests, responses)
        return encode_responses(b"" if message.token else TOKEN, message.requests, responses)


def ask(remote: RemoteSession, delegate: Delegate, requests: Sequence[Request]) -> tuple[Response, ...]:
    payload = remote.encode(requests)
    while True:
        outcome = remote.decode(*delegate.post(payload))
        if not isinstance(outcome, Resend):
            return outcome
        payload = outcome.payload


def handshake13(delegate: Delegate) -> RemoteSession:
    remote = RemoteSession()
    (start,) = ask(remote, delegate, [START])
    assert isinstance(start, StartResponse)
    ask(remote, delegate, [server_share(start)[0]])
    verdict, key = ask(remote, delegate, [authenticate13(LEAF), MasterSecretRequest()])
    assert isinstance(verdict, Verdict)
    assert verdict.accepted
    assert isinstance(key, MasterSecretResponse)
    return remote


def test_handshake_of_tls_1_3_takes_three_exchanges_and_less_than_700_bytes() -> None:
    chains = ChainCache()
    first = Delegate(chains)
    handshake13(first)
    assert first.exchanges == 4
    chain = sum(map(len, LEAF.chain))
    second = Delegate(chains)
    handshake13(second)
    assert second.exchanges == 3
    assert second.bytes < 700
    assert first.bytes < second.bytes + chain + 250


def test_handshake_of_tls_1_2_in_the_form_of_keys() -> None:
    remote, delegate = RemoteSession(), Delegate()
    parameters = ecdh_parameters()
    ask(remote, delegate, [start12(key_forms=(KeyForm.KEYS,))])
    exchange = ClientKeyExchangeRequest(cipher_suite=ECDHE_ECDSA, parameters=parameters)
    ask(remote, delegate, [authenticate12(LEAF, parameters), exchange])
    ask(remote, delegate, [FULL_KEYS])
    assert remote.close_payload() != b""
    remote, delegate = RemoteSession(), Delegate()
    ask(remote, delegate, [start12(key_forms=(KeyForm.KEYS,))])
    ask(remote, delegate, [authenticate12(LEAF, parameters), exchange])
    ask(remote, delegate, [FULL_KEYS])
    ask(remote, delegate, [ServerFinishedRequest(finished_hash=bytes(32))])
    assert remote.close_payload() == b""


def test_session_is_over_with_the_last_key() -> None:
    remote = handshake13(Delegate())
    assert remote.close_payload() == b""
    with pytest.raises(Refused):
        remote.encode([MasterSecretRequest()])


def test_session_is_over_with_a_verdict_that_is_not_accepted() -> None:
    remote, delegate = RemoteSession(), Delegate()
    (start,) = ask(remote, delegate, [START])
    assert isinstance(start, StartResponse)
    ask(remote, delegate, [server_share(start)[0]])
    stranger = pki.leaf(pki.ca(name="Unknown"))
    (verdict,) = ask(remote, delegate, [authenticate13(stranger), MasterSecretRequest()])
    assert isinstance(verdict, Verdict)
    assert not verdict.accepted
    assert remote.close_payload() == b""


def test_session_that_is_given_up_is_closed_once() -> None:
    remote, delegate = RemoteSession(), Delegate()
    ask(remote, delegate, [START])
    delegate.post(remote.close_payload())
    assert delegate.session is None
    assert remote.close_payload() == b""
    with pytest.raises(Refused):
        remote.encode([MasterSecretRequest()])


def test_session_that_never_began_has_nothing_to_close() -> None:
    assert RemoteSession().close_payload() == b""


def test_session_can_be_given_up_while_an_answer_is_outstanding() -> None:
    remote, delegate = RemoteSession(), Delegate()
    ask(remote, delegate, [START])
    remote.encode([MasterSecretRequest()])
    assert remote.close_payload() != b""


def test_one_batch_is_under_way_at_a_time() -> None:
    remote = RemoteSession()
    remote.encode([START])
    with pytest.raises(Refused):
        remote.encode([START])


def test_batch_without_requests_is_refused() -> None:
    with pytest.raises(Refused):
        RemoteSession().encode([])


@pytest.mark.parametrize(
    "error", [Refused("no"), Unavailable("x"), TimedOut("x"), Misbehaved("x"), Incompatible("x"), DecodeError("x")]
)
@pytest.mark.parametrize("code", [CHANGED, 0x83, 0xA3])
def test_error_of_the_delegate_is_raised_whatever_the_code(error: LocumError, code: int) -> None:
    remote = RemoteSession()
    remote.encode([START])
    with pytest.raises(type(error), match=str(error)):
        remote.decode(encode_error(error), code)
    with pytest.raises(Refused):
        remote.encode([START])


@pytest.mark.parametrize(
    ("code", "kind", "shown"),
    [
        (0x80, Refused, "4.00"),
        (0x81, Refused, "4.01"),
        (0x84, Refused, "4.04"),
        (0x9D, Unavailable, "4.29"),
        (0xA0, Unavailable, "5.00"),
        (0xA3, Unavailable, "5.03"),
        (0x00, Unavailable, "0.00"),
        (0x62, Unavailable, "3.02"),
    ],
)
@pytest.mark.parametrize("payload", [b"", b"in plain words", encode_chain_wanted()])
def test_failure_without_an_error_goes_by_its_code(
    code: int, kind: type[LocumError], shown: str, payload: bytes
) -> None:
    remote = RemoteSession()
    remote.encode([START])
    with pytest.raises(kind, match=shown.replace(".", r"\.")):
        remote.decode(payload, code)


@pytest.mark.parametrize("payload", [b"", b"nonsense", cbor2.dumps([]), cbor2.dumps([{0: 9, 1: bytes(32)}])])
def test_answer_that_makes_no_sense_is_unavailable(payload: bytes) -> None:
    remote = RemoteSession()
    remote.encode([START])
    with pytest.raises(Unavailable, match="cannot be understood"):
        remote.decode(payload, CHANGED)


def test_answer_to_nothing_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        RemoteSession().decode(encode_chain_wanted(), CHANGED)


def test_delegate_that_asks_for_the_chain_for_ever_is_unavailable() -> None:
    remote, delegate = RemoteSession(), Delegate()
    ask(remote, delegate, [START])
    remote.encode([authenticate13(LEAF)])
    assert isinstance(remote.decode(encode_chain_wanted(), CHANGED), Resend)
    with pytest.raises(Unavailable):
        remote.decode(encode_chain_wanted(), CHANGED)


def test_session_without_a_token_is_unavailable() -> None:
    remote = RemoteSession()
    remote.encode([START])
    (response,) = authority().open(TERMINAL).perform([START])
    with pytest.raises(Unavailable):
        remote.decode(encode_responses(b"", [START], [response]), CHANGED)


def test_second_token_in_a_session_is_unavailable() -> None:
    remote, delegate = RemoteSession(), Delegate()
    ask(remote, delegate, [START])
    requests = [MasterSecretRequest()]
    remote.encode(requests)
    with pytest.raises(Unavailable):
        remote.decode(encode_responses(TOKEN, requests, [MasterSecretResponse(secret=bytes(32))]), CHANGED)


def test_chain_in_full_does_not_show_in_the_representation() -> None:
    assert repr(Resend(b"payload")) == "Resend()"


def test_parameters_come_back_from_what_was_signed() -> None:
    parameters = ecdh_parameters()
    requests = (
        authenticate12(LEAF, parameters),
        ClientKeyExchangeRequest(cipher_suite=ECDHE_ECDSA, parameters=parameters),
    )
    remote, delegate = RemoteSession(), Delegate()
    ask(remote, delegate, [start12()])
    payload = remote.encode(requests)
    delegate.chains.add(requests[0].chain)
    assert decode_requests(payload, delegate.chains).requests == requests
