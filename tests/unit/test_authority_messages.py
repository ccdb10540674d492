"""The CBOR messages between terminal and delegate: what they look like, and what is refused."""

import dataclasses
from typing import Any

import cbor2
import pytest

from locum.authority import messages
from locum.authority.chains import ChainCache
from locum.authority.messages import (
    MAX_MESSAGE,
    MAX_REQUESTS,
    ErrorCode,
    decode_requests,
    decode_responses,
    encode_chain_wanted,
    encode_error,
    encode_requests,
    encode_responses,
)
from locum.authority.shapes import MAX_SIGNATURE, MAX_TEXT
from locum.authority.shapes_tls import MAX_PARAMETERS
from locum.crypto.asymmetric import certificates
from locum.errors import (
    DecodeError,
    Incompatible,
    LocumError,
    Misbehaved,
    Refused,
    TimedOut,
    Unauthenticated,
    Unavailable,
)
from locum.handshake import MAX_CERTIFICATES, MAX_CHAIN, Fault, PeerChain, Request, Response, Verdict
from locum.ike import operations as ike_operations
from locum.link.coap import MAXIMUM_BODY
from locum.tls import operations
from locum.tls.alerts import IllegalParameter
from locum.tls.operations import (
    AuthenticateRequest,
    ClientKeyExchangeRequest,
    KeyBlockResponse,
    KeyForm,
    KeyShareRequest,
    KeyShareResponse,
    MasterSecretRequest,
    MasterSecretResponse,
    SessionKeysRequest,
    SharedSecretResponse,
    StartRequest,
    StartResponse,
)

TOKEN = b"8 bytes."
START = StartRequest(versions=(0x0304,), cipher_suites=(0x1301, 0x1302), server_name="a.example")
STARTED = StartResponse(
    versions=(0x0304,),
    cipher_suites=(0x1301, 0x1302),
    groups=(0x1D,),
    signature_schemes=(0x0403,),
    key_share_group=0x1D,
    key_share=bytes(32),
    key_form=KeyForm.SECRET,
)
CHAIN = PeerChain((b"leaf", b"intermediate"), b"ocsp")
AUTHENTICATE = AuthenticateRequest(
    version=0x0304, cipher_suite=0x1301, chain=CHAIN, scheme=0x0403, signature=b"s", content=bytes(32)
)
ACCEPTED = Verdict(authentic=True, allowed=True, identity="dns:a.example")
REJECTED = Verdict(authentic=False, allowed=False, reason="no", fault=Fault.EXPIRED)


def operations_of(base: type) -> set[type]:
    return {
        each
        for protocol in (operations, ike_operations)
        for each in vars(protocol).values()
        if isinstance(each, type) and issubclass(each, base) and each.__module__ == protocol.__name__
    }


def test_every_request_and_response_has_a_type() -> None:
    assert {shape.message for shape in messages._REQUESTS} == operations_of(Request)
    assert {shape.message for shape in messages._RESPONSES} == operations_of(Response) | {Verdict}


@pytest.mark.parametrize("registry", [messages._REQUESTS, messages._RESPONSES], ids=["requests", "responses"])
def test_types_are_unique(registry: tuple[Any, ...]) -> None:
    types = [shape.type for shape in registry]
    assert len(set(types)) == len(types)
    assert not {messages._ERROR, messages._CHAIN_WANTED} & set(types)


# --- bytes on the wire -------------------------------------------------------------------------------------


def test_start_has_no_token_and_leaves_out_what_is_default() -> None:
    assert cbor2.loads(encode_requests(b"", [START])) == [
        {0: 1, 1: b"\x03\x04", 2: b"\x13\x01\x13\x02", 4: "a.example"}
    ]


def test_later_messages_begin_with_the_token() -> None:
    assert cbor2.loads(encode_requests(TOKEN, [MasterSecretRequest()])) == [TOKEN, {0: 9}]


def test_end_of_a_session_is_its_token() -> None:
    assert cbor2.loads(encode_requests(TOKEN, [])) == [TOKEN]
    message = decode_requests(encode_requests(TOKEN, []), ChainCache())
    assert (message.token, message.requests, message.chain_wanted) == (TOKEN, (), False)


def test_method_that_is_as_offered_is_not_repeated() -> None:
    encoded = encode_responses(TOKEN, [START], [STARTED])
    assert cbor2.loads(encoded)[1].keys() == {0, 3, 4, 5, 6, 7}
    answer = decode_responses(encoded, [START])
    assert (answer.token, answer.responses) == (TOKEN, (STARTED,))


def test_method_that_differs_from_the_offer_is_written_out() -> None:
    other = dataclasses.replace(STARTED, cipher_suites=(0x1302, 0x1301))
    assert decode_responses(encode_responses(b"", [START], [other]), [START]).responses == (other,)


def test_accepted_verdict_is_short() -> None:
    encoded = encode_responses(b"", [AUTHENTICATE], [ACCEPTED])
    assert cbor2.loads(encoded) == [{0: 6, 3: "dns:a.example"}]
    assert decode_responses(encoded, [AUTHENTICATE]).responses == (ACCEPTED,)


@pytest.mark.parametrize("authentic", [True, False])
def test_verdict_that_is_not_accepted_is_written_out(authentic: bool) -> None:
    verdict = Verdict(authentic=authentic, allowed=False, reason="why", fault=Fault.POLICY)
    encoded = encode_responses(b"", [AUTHENTICATE], [verdict])
    assert decode_responses(encoded, [AUTHENTICATE]).responses == (verdict,)


def test_verdict_with_one_result_is_not_taken_for_good() -> None:
    with pytest.raises(DecodeError):
        decode_responses(cbor2.dumps([{0: 6, 1: True}]), [AUTHENTICATE])
    with pytest.raises(DecodeError):
        decode_responses(cbor2.dumps([{0: 6, 2: True}]), [AUTHENTICATE])


def test_parameters_that_were_just_signed_are_not_repeated() -> None:
    signed = dataclasses.replace(AUTHENTICATE, version=0x0303, content=bytes(64) + b"parameters")
    exchange = ClientKeyExchangeRequest(cipher_suite=0xC02B, parameters=b"parameters")
    encoded = encode_requests(TOKEN, [signed, exchange], with_chain=True)
    assert encoded.count(b"parameters") == 1
    assert decode_requests(encoded, ChainCache()).requests == (signed, exchange)


@pytest.mark.parametrize("parameters", [b"others", b""])
def test_other_parameters_are_written_out(parameters: bytes) -> None:
    signed = dataclasses.replace(AUTHENTICATE, version=0x0303, content=bytes(64) + b"parameters")
    exchange = ClientKeyExchangeRequest(cipher_suite=0xC02B, parameters=parameters)
    encoded = encode_requests(TOKEN, [signed, exchange], with_chain=True)
    assert decode_requests(encoded, ChainCache()).requests == (signed, exchange)


# --- chains ------------------------------------------------------------------------------------------------


def test_chain_travels_as_its_digest() -> None:
    encoded = encode_requests(TOKEN, [AUTHENTICATE])
    assert cbor2.loads(encoded)[1][3] == CHAIN.digest
    assert b"leaf" not in encoded


def test_known_chain_is_found_by_its_digest() -> None:
    chains = ChainCache()
    chains.add(CHAIN)
    assert decode_requests(encode_requests(TOKEN, [AUTHENTICATE]), chains).requests == (AUTHENTICATE,)


def test_unknown_chain_is_wanted_and_nothing_else_is_said() -> None:
    message = decode_requests(encode_requests(TOKEN, [AUTHENTICATE, MasterSecretRequest()]), ChainCache())
    assert (message.token, message.requests, message.chain_wanted) == (TOKEN, (), True)
    answer = decode_responses(encode_chain_wanted(), [AUTHENTICATE])
    assert (answer.chain_wanted, answer.responses) == (True, ())


def test_chain_can_be_sent_in_full() -> None:
    encoded = encode_requests(TOKEN, [AUTHENTICATE], with_chain=True)
    assert decode_requests(encoded, ChainCache()).requests == (AUTHENTICATE,)


def test_only_chains_of_authentic_peers_are_remembered() -> None:
    chains = ChainCache()
    chains.remember([AUTHENTICATE, MasterSecretRequest()], [REJECTED])
    assert len(chains) == 0
    chains.remember([AUTHENTICATE], [dataclasses.replace(ACCEPTED, allowed=False)])
    assert chains.find(CHAIN.digest) == CHAIN


def test_least_recently_used_chain_is_forgotten_first() -> None:
    chains = ChainCache(maximum_chains=2)
    first, second, third = (PeerChain((bytes((number,)),)) for number in range(3))
    chains.add(first)
    chains.add(second)
    chains.find(first.digest)
    chains.add(third)
    assert [chains.find(each.digest) for each in (first, second, third)] == [first, None, third]


def test_a_terminal_pushes_out_only_the_chains_that_it_brought_itself() -> None:
    chains = ChainCache(maximum_share=100)
    of_others = PeerChain((bytes(60),))
    chains.add(of_others, terminal="other")
    flood = [PeerChain((bytes(40), bytes((number,)))) for number in range(50)]
    for chain in flood:
        chains.add(chain, terminal="meter")
    assert chains.find(of_others.digest) == of_others
    assert [chain for chain in flood if chains.find(chain.digest)] == flood[-2:]
    chains.add(PeerChain((bytes(101),)), terminal="meter")
    assert len(chains) == 3


def test_bytes_of_chains_are_bounded() -> None:
    chains = ChainCache(maximum_bytes=100)
    small, large, huge = PeerChain((bytes(10),)), PeerChain((bytes(95),)), PeerChain((bytes(101),))
    chains.add(small)
    chains.add(huge)
    assert chains.find(small.digest) == small
    chains.add(large)
    chains.add(large)
    assert [chains.find(each.digest) for each in (small, large, huge)] == [None, large, None]
    assert len(chains) == 1


# --- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        Refused("no"),
        Unavailable("later"),
        TimedOut("slow"),
        Misbehaved("bad share"),
        Incompatible("group"),
        Unauthenticated("who"),
        DecodeError("short"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_error_arrives_as_it_was(error: LocumError) -> None:
    answer = decode_responses(encode_error(error), [START])
    assert type(answer.error) is type(error)
    assert str(answer.error) == str(error)


def test_error_of_a_special_kind_travels_as_its_base() -> None:
    assert type(decode_responses(encode_error(IllegalParameter("x")), [START]).error) is Misbehaved
    assert type(decode_responses(encode_error(LocumError("x")), [START]).error) is Refused


def test_every_error_code_has_a_class() -> None:
    assert messages._ERRORS.keys() == set(ErrorCode)


def test_text_of_an_error_is_one_line_of_limited_length() -> None:
    encoded = encode_error(Refused("two\nlines " + "ü" * 1000))
    error = decode_responses(encoded, [START]).error
    assert str(error).startswith("two lines ü")
    assert len(str(error).encode()) <= MAX_TEXT


def test_reason_of_a_verdict_is_cut_to_fit() -> None:
    verdict = dataclasses.replace(REJECTED, reason="x" * 5000)
    (decoded,) = decode_responses(encode_responses(b"", [AUTHENTICATE], [verdict]), [AUTHENTICATE]).responses
    assert isinstance(decoded, Verdict)
    assert decoded.reason == "x" * MAX_TEXT


def test_error_code_of_a_newer_delegate_is_a_refusal() -> None:
    assert type(decode_responses(cbor2.dumps([{0: 14, 1: 99, 2: "new"}]), [START]).error) is Refused


# --- strictness --------------------------------------------------------------------------------------------

GOOD_START = {0: 1, 1: b"\x03\x04", 2: b"\x13\x01", 4: "a"}


def bad(message: Any) -> bytes:
    return cbor2.dumps(message)


BAD_REQUESTS = {
    "empty": b"",
    "not an array": bad({0: 1}),
    "empty array": bad([]),
    "trailing byte": bad([GOOD_START]) + b"\0",
    "truncated": bad([GOOD_START])[:-1],
    "indefinite array": b"\x9f" + bad(GOOD_START) + b"\xff",
    "longer form of an integer": bad([GOOD_START]).replace(b"\xa4\x00\x01", b"\xa4\x00\x18\x01"),
    "key twice": b"\x81\xa2\x00\x09\x00\x09",
    "tag": b"\x81" + cbor2.dumps(cbor2.CBORTag(1000, GOOD_START)),
    "big number": bad([GOOD_START | {5: 1 << 70}]),
    "date": b"\x81\xa1\x00\xc1\x00",
    "float": bad([GOOD_START | {7: 1.0}]),
    "undefined": b"\x81\xa1\x00\xf7",
    "bomb": b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
    "nested": b"\x81" * 500 + b"\x00",
    "token too short": bad([b"7 bytes", {0: 9}]),
    "token too long": bad([b"9 bytes..", {0: 9}]),
    "two tokens": bad([TOKEN, TOKEN]),
    "request that is no map": bad([TOKEN, 9]),
    "unknown type": bad([TOKEN, {0: 99}]),
    "type of a response": bad([TOKEN, {0: 14, 1: 1, 2: ""}]),
    "type that is a truth value": bad([TOKEN, {0: True}]),
    "no type": bad([TOKEN, {1: 9}]),
    "unknown key": bad([GOOD_START | {99: 1}]),
    "false for key 0": bad([TOKEN, {False: 2, 1: 29}]),
    "true for key 1": bad([TOKEN, {0: 2, True: 29}]),
    "1.0 for key 1": bad([TOKEN, {0: 2, 1.0: 29}]),
    "text key": bad([GOOD_START | {"1": 1}]),
    "missing field": bad([{0: 1, 1: b"\x03\x04", 2: b"\x13\x01"}]),
    "odd code points": bad([GOOD_START | {1: b"\x03\x04\x03"}]),
    "too many code points": bad([GOOD_START | {2: bytes(2 * 129)}]),
    "code points as an array": bad([GOOD_START | {1: [0x0304]}]),
    "name as bytes": bad([GOOD_START | {4: b"a"}]),
    "name too long": bad([GOOD_START | {4: "a" * 256}]),
    "unknown key form": bad([GOOD_START | {6: b"\x07"}]),
    "no key form": bad([GOOD_START | {6: b""}]),
    "flag as a number": bad([GOOD_START | {7: 1}]),
    "start with a token": bad([TOKEN, GOOD_START]),
    "no token and no start": bad([{0: 9}]),
    "two starts": bad([GOOD_START, GOOD_START]),
    "start that is not first": bad([{0: 9}, GOOD_START]),
    "group out of range": bad([TOKEN, {0: 2, 1: 0x10000}]),
    "negative group": bad([TOKEN, {0: 2, 1: -1}]),
    "key share too long": bad([TOKEN, {0: 4, 1: 29, 2: bytes(4097)}]),
    "too many requests": bad([TOKEN] + [{0: 9}] * (MAX_REQUESTS + 1)),
    "too long": bad([TOKEN, {0: 8, 1: 0x0303, 2: bytes(MAX_MESSAGE)}]),
    "chain without a certificate": bad([TOKEN, {0: 6, 1: 0, 2: 0, 3: [b""], 4: 0}]),
    "chain with an empty certificate": bad([TOKEN, {0: 6, 1: 0, 2: 0, 3: [b"", b"a", b""], 4: 0}]),
    "chain with too many certificates": bad(
        [TOKEN, {0: 6, 1: 0, 2: 0, 3: [b""] + [b"a"] * (MAX_CERTIFICATES + 1), 4: 0}]
    ),
    "chain too long": bad([TOKEN, {0: 6, 1: 0, 2: 0, 3: [b"", bytes(65537)], 4: 0}]),
    "chain of numbers": bad([TOKEN, {0: 6, 1: 0, 2: 0, 3: [b"", 5], 4: 0}]),
    "digest too short": bad([TOKEN, {0: 6, 1: 0, 2: 0, 3: bytes(31), 4: 0}]),
    "empty authority": bad([TOKEN, {0: 7, 1: 0x0304, 2: b"", 3: [b""]}]),
    "too many authorities": bad([TOKEN, {0: 7, 1: 0x0304, 2: b"", 3: [b"a"] * 513}]),
    "authorities too long": bad([TOKEN, {0: 7, 1: 0x0304, 2: b"", 3: [bytes(2048)] * 40}]),
}


def test_what_a_message_may_hold_fits_the_link() -> None:
    assert MAX_MESSAGE == MAXIMUM_BODY
    assert (MAX_CERTIFICATES, MAX_CHAIN) == (certificates.MAX_CERTIFICATES, certificates.MAX_CHAIN_BYTES)
    longest = dataclasses.replace(
        AUTHENTICATE,
        chain=PeerChain(tuple([bytes(MAX_CHAIN // MAX_CERTIFICATES)] * MAX_CERTIFICATES), b""),
        signature=bytes(MAX_SIGNATURE),
        content=bytes(MAX_PARAMETERS),
    )
    requests = [longest, ClientKeyExchangeRequest(cipher_suite=0xC02B, parameters=longest.content[64:])]
    encoded = encode_requests(TOKEN, requests, with_chain=True)
    assert decode_requests(encoded, ChainCache()).requests == tuple(requests)


@pytest.mark.parametrize("payload", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_bad_request_is_a_decode_error(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_requests(payload, ChainCache())


BAD_RESPONSES = {
    "empty": b"",
    "empty array": bad([]),
    "not a map": bad([5]),
    "answer to something else": bad([{0: 9, 1: bytes(32)}]),
    "request as an answer": bad([{0: 2, 1: 29}]),
    "too many": bad([{0: 2, 1: b"x"}, {0: 2, 1: b"x"}]),
    "token too long": bad([bytes(9), {0: 2, 1: b"x"}]),
    "missing field": bad([{0: 2}]),
    "unknown key": bad([{0: 2, 1: b"x", 2: b"x"}]),
    "true for key 1": bad([{0: 2, True: b"x"}]),
    "error without text": bad([{0: 14, 1: 1}]),
    "error with more": bad([{0: 14, 1: 1, 2: "", 3: 0}]),
    "error with a wrong code": bad([{0: 14, 1: "1", 2: ""}]),
    "error with a long text": bad([{0: 14, 1: 1, 2: "x" * 513}]),
    "chain wanted with more": bad([{0: 15, 1: 1}]),
    "error with a token": bad([TOKEN, {0: 14, 1: 1, 2: ""}]),
}


@pytest.mark.parametrize("payload", BAD_RESPONSES.values(), ids=BAD_RESPONSES.keys())
def test_bad_response_is_a_decode_error(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_responses(payload, [KeyShareRequest(group=29)])


@pytest.mark.parametrize("fault", [99, -1, True, "x", None])
def test_verdict_with_an_unknown_fault_is_a_decode_error(fault: Any) -> None:
    with pytest.raises(DecodeError):
        decode_responses(cbor2.dumps([{0: 6, 1: False, 2: False, 5: fault}]), [AUTHENTICATE])


def test_fewer_responses_than_requests_are_a_decode_error() -> None:
    requests = [KeyShareRequest(group=29), MasterSecretRequest()]
    with pytest.raises(DecodeError):
        decode_responses(encode_responses(b"", requests, [KeyShareResponse(key_share=b"x")]), requests)


def test_verdict_that_is_not_accepted_ends_the_batch() -> None:
    requests = [AUTHENTICATE, MasterSecretRequest()]
    encoded = encode_responses(b"", requests, [REJECTED])
    assert decode_responses(encoded, requests).responses == (REJECTED,)
    with pytest.raises(DecodeError):
        decode_responses(
            encode_responses(b"", requests, [REJECTED, MasterSecretResponse(secret=bytes(32))]), requests
        )
    with pytest.raises(DecodeError):
        decode_responses(encode_responses(b"", requests, [ACCEPTED]), requests)


@pytest.mark.parametrize(
    "response",
    [MasterSecretResponse(secret=bytes(48)), KeyBlockResponse(key_block=bytes(40), client_verify_data=bytes(12))],
)
def test_keys_of_tls_1_2_come_in_either_form(response: Response) -> None:
    request = SessionKeysRequest(extended=True, seed=bytes(32))
    assert decode_responses(encode_responses(b"", [request], [response]), [request]).responses == (response,)


def test_bare_secret_answers_nothing_but_the_request_for_it() -> None:
    with pytest.raises(DecodeError, match="does not answer"):
        decode_responses(
            encode_responses(b"", [START], [SharedSecretResponse(secret=bytes(32))]), [MasterSecretRequest()]
        )
