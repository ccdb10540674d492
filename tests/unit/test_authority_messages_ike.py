"""IKE's operations in CBOR: what they look like, what is left out, and what is refused."""

import dataclasses
from typing import Any

import cbor2
import pytest

from locum.authority.chains import ChainCache
from locum.authority.messages import (
    MAX_MESSAGE,
    decode_requests,
    decode_responses,
    encode_chain_wanted,
    encode_requests,
    encode_responses,
)
from locum.authority.remote import RemoteSession, Resend
from locum.authority.shapes_ike import MAX_INTERMEDIATE_MESSAGES
from locum.errors import DecodeError, Refused
from locum.handshake import Fault, PeerChain, Request, Response, Verdict
from locum.ike import operations as ike
from locum.tls import operations as tls

TOKEN = b"8 bytes."
CHANGED = 0x44
SA = bytes(48)
START = ike.IkeStartRequest(
    exchange=ike.Exchange.IKE_2, initiator=False, sa=SA, group=31, peer_address="192.0.2.9"
)
STARTED = ike.IkeStartResponse(sa=bytes(44), group=31)
OTHER_GROUP = ike.IkeStartResponse(group=19, other_group_wanted=True)
KEYS = ike.KeyExchangeRequest(
    group=31,
    public_value=bytes(32),
    initiator_spi=b"initiate",
    responder_spi=b"respond.",
    peer_nonce=bytes(32),
    own_nonce=bytes(32),
)
KEYED = ike.IkeKeysResponse(keys=bytes(72), public_value=bytes(32))
CHAIN = PeerChain((b"leaf", b"intermediate"))
IDENTIFICATION = b"\x02\0\0\0peer.example"
AUTHENTICATE = ike.IkeAuthenticateRequest(
    chain=CHAIN, identification=IDENTIFICATION, method=14, proof=bytes(70), message=bytes(300)
)
WITHOUT_CHAIN = dataclasses.replace(AUTHENTICATE, chain=PeerChain(()), method=2)
PROVE = ike.ProveRequest(message=bytes(280), hashes=(2, 3, 4), remote_identification=IDENTIFICATION)
PROVED = ike.ProveResponse(identification=b"\x02\0\0\0meter", certificates=(b"own",), method=14, proof=bytes(70))
ACCEPTED = Verdict(authentic=True, allowed=True, identity="dns:peer.example")
REJECTED = Verdict(authentic=False, allowed=False, reason="no", fault=Fault.BAD_SIGNATURE)
SA_KEYS = ike.SaKeysRequest()
HANDED_OVER = ike.SaKeysResponse(keys=bytes(32))
FURTHER = ike.IkeStartRequest(exchange=ike.Exchange.FURTHER, initiator=True, group=31)
SECRET = ike.SharedSecretRequest(group=31, public_value=bytes(32))


def survives(requests: list[Request], *responses: Response) -> bool:
    """True when the requests, with their chain in full, and the responses arrive as they were sent."""
    token = b"" if isinstance(requests[0], ike.IkeStartRequest) else TOKEN
    message = decode_requests(encode_requests(token, requests, with_chain=True), ChainCache())
    answer = decode_responses(encode_responses(b"", requests, responses), requests)
    return (message.requests, answer.responses) == (tuple(requests), responses)


# --- bytes on the wire -------------------------------------------------------------------------------------


def test_whole_responder_of_ikev2_survives() -> None:
    assert survives([START, KEYS], STARTED, KEYED)
    assert survives([AUTHENTICATE, PROVE, SA_KEYS], ACCEPTED, PROVED, HANDED_OVER)


def test_whole_initiator_of_main_mode_survives_however_it_ends() -> None:
    last = dataclasses.replace(AUTHENTICATE, message=b"", farewell=0xFFFFFFFF)
    assert survives([last, SA_KEYS], ACCEPTED, HANDED_OVER)
    parting = ike.RejectedWithFarewell(
        authentic=True, allowed=False, identity="dns:peer.example", fault=Fault.POLICY, farewell=bytes(32)
    )
    assert survives([last, SA_KEYS], parting)


def test_start_leaves_out_what_is_default() -> None:
    assert cbor2.loads(encode_requests(b"", [START])) == [
        {0: 32, 1: 0, 2: False, 3: SA, 5: 31, 6: "192.0.2.9"},
    ]


def test_group_that_came_with_the_offer_is_not_repeated() -> None:
    assert cbor2.loads(encode_responses(b"", [START], [STARTED])) == [{0: 32, 1: bytes(44)}]
    assert survives([START], dataclasses.replace(STARTED, group=0))
    assert survives([dataclasses.replace(START, initiator=True, group=0)], STARTED)


def test_request_that_says_nothing_is_its_type() -> None:
    requests = [ike.IntroduceRequest(), ike.EncryptedIntroductionRequest(), SA_KEYS]
    assert cbor2.loads(encode_requests(TOKEN, requests)) == [TOKEN, {0: 37}, {0: 40}, {0: 42}]


def test_what_both_proofs_cover_is_sent_once() -> None:
    intermediate = (bytes(1200), bytes(1100))
    judged = dataclasses.replace(AUTHENTICATE, intermediate=intermediate)
    prove = dataclasses.replace(PROVE, intermediate=intermediate)
    encoded = encode_requests(TOKEN, [judged, prove], with_chain=True)
    assert cbor2.loads(encoded)[2].keys() == {0, 1, 3}
    assert survives([judged, prove], ACCEPTED, PROVED)


@pytest.mark.parametrize("identification", [b"", b"\x02\0\0\0another"])
@pytest.mark.parametrize("intermediate", [(), (b"x",)])
def test_what_another_proof_covers_is_written_out(identification: bytes, intermediate: tuple[bytes, ...]) -> None:
    judged = dataclasses.replace(AUTHENTICATE, intermediate=(b"first", b"second"))
    prove = dataclasses.replace(PROVE, intermediate=intermediate, remote_identification=identification)
    assert survives([judged, prove], ACCEPTED, PROVED)


def test_nothing_is_taken_from_the_judgement_of_another_protocol() -> None:
    judged = tls.AuthenticateRequest(
        version=0x0303, cipher_suite=0xC02B, chain=CHAIN, scheme=0x0403, content=bytes(64) + b"parameters"
    )
    exchange = tls.ClientKeyExchangeRequest(cipher_suite=0xC02B, parameters=b"parameters")
    for requests in ([judged, PROVE], [AUTHENTICATE, exchange], [judged, AUTHENTICATE, exchange]):
        encoded = encode_requests(TOKEN, requests, with_chain=True)
        assert decode_requests(encoded, ChainCache()).requests == tuple(requests)


def test_keys_of_a_responder_take_less_than_400_bytes() -> None:
    requests = [START, KEYS]
    assert len(encode_requests(b"", requests)) + len(encode_responses(TOKEN, requests, [STARTED, KEYED])) < 400


def test_post_quantum_handshake_with_a_long_chain_fits_one_message() -> None:
    chain = PeerChain(tuple(bytes([number]) * 2000 for number in range(4)))
    intermediate = (bytes(1700),) * MAX_INTERMEDIATE_MESSAGES
    requests = [dataclasses.replace(AUTHENTICATE, chain=chain, intermediate=intermediate), PROVE, SA_KEYS]
    encoded = encode_requests(TOKEN, requests, with_chain=True)
    assert len(encoded) < MAX_MESSAGE
    assert decode_requests(encoded, ChainCache()).requests == tuple(requests)


# --- chains ------------------------------------------------------------------------------------------------


def test_chain_travels_as_its_digest() -> None:
    encoded = encode_requests(TOKEN, [AUTHENTICATE, PROVE])
    assert cbor2.loads(encoded)[1][3] == CHAIN.digest
    assert decode_requests(encoded, ChainCache()).chain_wanted
    chains = ChainCache()
    chains.add(CHAIN)
    assert decode_requests(encoded, chains).requests == (AUTHENTICATE, PROVE)


@pytest.mark.parametrize("with_chain", [True, False])
def test_peer_without_certificates_has_an_empty_chain_and_no_digest(with_chain: bool) -> None:
    encoded = encode_requests(TOKEN, [WITHOUT_CHAIN], with_chain=with_chain)
    assert cbor2.loads(encoded)[1][3] == []
    assert decode_requests(encoded, ChainCache()).requests == (WITHOUT_CHAIN,)


def test_empty_chain_is_not_remembered() -> None:
    chains = ChainCache()
    chains.remember([WITHOUT_CHAIN, AUTHENTICATE], [ACCEPTED, ACCEPTED])
    assert len(chains) == 1
    assert chains.find(PeerChain(()).digest) is None


# --- turns -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("later", [[], [ike.PublicValueRequest(group=31)], [KEYS]])
def test_message_without_a_token_begins_with_an_opening_and_has_no_other(later: list[Request]) -> None:
    assert decode_requests(encode_requests(b"", [START, *later]), ChainCache()).requests == (START, *later)
    for token, requests in (
        (b"", [*later, START, START]),
        (b"", [START, *later, FURTHER]),
        (TOKEN, [START, *later]),
        (TOKEN, [*later, START]),
    ):
        with pytest.raises(DecodeError, match="opened by one request"):
            decode_requests(encode_requests(token, requests), ChainCache())


def test_responder_that_wants_another_group_ends_the_batch() -> None:
    requests = [START, KEYS]
    encoded = encode_responses(TOKEN, requests, [OTHER_GROUP])
    assert decode_responses(encoded, requests).responses == (OTHER_GROUP,)


@pytest.mark.parametrize("responses", [[STARTED], [OTHER_GROUP, KEYED], [STARTED, KEYED, KEYED]])
def test_batch_that_ends_elsewhere_is_a_decode_error(responses: list[Response]) -> None:
    encoded = encode_responses(TOKEN, [START, KEYS, KEYS], responses)
    with pytest.raises(DecodeError):
        decode_responses(encoded, [START, KEYS])


def test_verdict_that_is_not_accepted_ends_the_batch() -> None:
    assert survives([AUTHENTICATE, PROVE, SA_KEYS], REJECTED)


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (KEYS, PROVED),
        (SA_KEYS, KEYED),
        (SA_KEYS, ACCEPTED),
        (AUTHENTICATE, HANDED_OVER),
        (SECRET, tls.SharedSecretResponse(secret=bytes(32))),
        (ike.PublicValueRequest(group=31), tls.KeyShareResponse(key_share=bytes(32))),
    ],
)
def test_answer_to_something_else_is_a_decode_error(request_: Request, response: Response) -> None:
    with pytest.raises(DecodeError, match="does not answer"):
        decode_responses(encode_responses(b"", [request_], [response]), [request_])


# --- strictness --------------------------------------------------------------------------------------------

GOOD_START = {0: 32, 1: 0, 2: True}
GOOD_KEYS = {0: 34, 1: 31, 2: b"x", 3: bytes(8), 4: bytes(8), 5: b"n"}
GOOD_AUTHENTICATE = {0: 39, 1: b"", 3: [], 4: b""}

BAD_REQUESTS: dict[str, list[Any]] = {
    "unknown exchange": [GOOD_START | {1: 4}],
    "exchange as a truth value": [GOOD_START | {1: False}],
    "start without an exchange": [{0: 32, 2: True}],
    "start without a role": [{0: 32, 1: 0}],
    "role as a number": [GOOD_START | {2: 1}],
    "SA too long": [GOOD_START | {3: bytes(ike.MAX_SA + 1)}],
    "group out of range": [GOOD_START | {5: 0x10000}],
    "identity too long": [GOOD_START | {8: "a" * 1025}],
    "unknown key": [GOOD_START | {9: 0}],
    "SPI too short": [TOKEN, GOOD_KEYS | {3: bytes(7)}],
    "SPI too long": [TOKEN, GOOD_KEYS | {4: bytes(9)}],
    "nonce too long": [TOKEN, GOOD_KEYS | {5: bytes(257)}],
    "public value too long": [TOKEN, GOOD_KEYS | {2: bytes(ike.MAX_PUBLIC_VALUE + 1)}],
    "keys without a nonce": [TOKEN, {key: value for key, value in GOOD_KEYS.items() if key != 5}],
    "chain of a single part": [TOKEN, GOOD_AUTHENTICATE | {3: [b"ocsp"]}],
    "chain with an empty certificate": [TOKEN, GOOD_AUTHENTICATE | {3: [b"", b""]}],
    "chain that is missing": [TOKEN, {0: 39, 1: b"", 4: b""}],
    "digest too long": [TOKEN, GOOD_AUTHENTICATE | {3: bytes(33)}],
    "identification too long": [TOKEN, GOOD_AUTHENTICATE | {1: bytes(ike.MAX_IDENTIFICATION + 1)}],
    "proof too long": [TOKEN, GOOD_AUTHENTICATE | {4: bytes(ike.MAX_PROOF + 1)}],
    "first message too long": [TOKEN, GOOD_AUTHENTICATE | {5: bytes(ike.MAX_INIT_MESSAGE + 1)}],
    "too many intermediate messages": [TOKEN, GOOD_AUTHENTICATE | {6: [b"x"] * (MAX_INTERMEDIATE_MESSAGES + 1)}],
    "intermediate messages too long": [TOKEN, GOOD_AUTHENTICATE | {6: [bytes(ike.MAX_INIT_MESSAGE)] * 4}],
    "empty intermediate message": [TOKEN, GOOD_AUTHENTICATE | {6: [b""]}],
    "keys of a child too long": [TOKEN, {0: 42, 1: 65}],
    "negative length": [TOKEN, {0: 42, 1: -1}],
    "type between the protocols": [TOKEN, {0: 31}],
    "type after the last": [TOKEN, {0: 43}],
}


@pytest.mark.parametrize("message", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_bad_request_is_a_decode_error(message: list[Any]) -> None:
    with pytest.raises(DecodeError):
        decode_requests(cbor2.dumps(message), ChainCache())


@pytest.mark.parametrize(
    "message",
    [[GOOD_START], [TOKEN, GOOD_KEYS], [TOKEN, GOOD_AUTHENTICATE]],
    ids=["start", "keys", "authenticate"],
)
def test_what_the_bad_requests_are_made_of_is_good(message: list[Any]) -> None:
    assert decode_requests(cbor2.dumps(message), ChainCache()).requests


# --- the session -------------------------------------------------------------------------------------------


def answered(remote: RemoteSession, requests: list[Request], *responses: Response, token: bytes = b"") -> None:
    remote.encode(requests)
    assert remote.decode(encode_responses(token, requests, responses), CHANGED) == responses


def test_session_is_over_when_the_keys_are_handed_over() -> None:
    remote = RemoteSession()
    answered(remote, [START, KEYS], STARTED, KEYED, token=TOKEN)
    remote.encode([AUTHENTICATE, PROVE, SA_KEYS])
    resend = remote.decode(encode_chain_wanted(), CHANGED)
    assert isinstance(resend, Resend)
    assert decode_requests(resend.payload, ChainCache()).requests == (AUTHENTICATE, PROVE, SA_KEYS)
    answer = encode_responses(b"", [AUTHENTICATE, PROVE, SA_KEYS], [ACCEPTED, PROVED, HANDED_OVER])
    assert remote.decode(answer, CHANGED) == (ACCEPTED, PROVED, HANDED_OVER)
    assert remote.close_payload() == b""


def test_session_is_over_when_another_group_is_wanted() -> None:
    remote = RemoteSession()
    answered(remote, [START, KEYS], OTHER_GROUP, token=TOKEN)
    assert remote.close_payload() == b""
    with pytest.raises(Refused):
        remote.encode([KEYS])


def test_session_of_a_further_exchange_is_over_with_its_last_secret() -> None:
    remote = RemoteSession()
    answered(remote, [FURTHER], ike.IkeStartResponse(group=31), token=TOKEN)
    more = dataclasses.replace(SECRET, more=True)
    answered(remote, [more], ike.SharedSecretResponse(secret=bytes(32), more=True))
    answered(remote, [SECRET], ike.SharedSecretResponse(secret=bytes(32)))
    assert remote.close_payload() == b""
