"""The monitor of figs 4 and 5 over the operations of IKE (A1, A2, A8): order, origin of keys, what is told."""

from __future__ import annotations

import pytest

from locum.errors import Unavailable
from locum.handshake import Fault, PeerChain, Request, Response, Verdict
from locum.ike import operations as ike
from locum.ike.operations import Exchange
from locum.ike.registry import AuthenticationMethod1, AuthenticationMethod2, KeyExchangeId
from locum.terminal.cipher_keys import CipherKeyDatabase, KeyOrigin
from locum.terminal.flow import MAXIMUM_OPERATIONS, Flow, Malfunction, Stage
from locum.terminal.steps import Cost, StepName, TerminalStep

DELEGATE = "coap://192.0.2.1:5683"
SECRET = b"this must never be shown to anybody"
GROUP = KeyExchangeId.CURVE25519

START = ike.IkeStartRequest(exchange=Exchange.IKE_2, initiator=True, sa=b"sa", peer_address="192.0.2.7")
STARTED = ike.IkeStartResponse(group=GROUP)
FURTHER = ike.IkeStartRequest(exchange=Exchange.FURTHER, initiator=True, peer_address="192.0.2.7")
PUBLIC = ike.PublicValueRequest(group=GROUP)
PUBLISHED = ike.PublicValueResponse(public_value=bytes(32))
EXCHANGE = ike.KeyExchangeRequest(
    group=GROUP, public_value=bytes(32), initiator_spi=bytes(8), responder_spi=bytes(8), peer_nonce=bytes(32)
)
EXCHANGED = ike.IkeKeysResponse(keys=SECRET)
PROVE = ike.ProveRequest(message=b"IKE_SA_INIT")
PROVEN = ike.ProveResponse(
    identification=b"", certificates=(b"leaf", b"ca"), method=AuthenticationMethod2.DIGITAL_SIGNATURE, proof=SECRET
)
AUTHENTICATE = ike.IkeAuthenticateRequest(chain=PeerChain(()), identification=b"", proof=b"")
ACCEPTED = Verdict(authentic=True, allowed=True, identity="dns:gw.example.com")
FORGED = Verdict(authentic=False, allowed=False, reason="AUTH does not verify", fault=Fault.BAD_SIGNATURE)
KEYS = ike.SaKeysRequest()
CHILD_KEYS = ike.SaKeysRequest(child_encryption=36)
HANDED = ike.SaKeysResponse(keys=SECRET)
SHARE = ike.SharedSecretRequest(group=GROUP, public_value=bytes(32))
SHARED = ike.SharedSecretResponse(secret=SECRET)


class Observed:
    """A flow on a secure path, its cipher-key database, and everything the observer was told."""

    def __init__(self) -> None:
        self.steps: list[TerminalStep] = []
        self.keys: CipherKeyDatabase[object] = CipherKeyDatabase()
        self.flow = Flow(peer="192.0.2.7", observer=self.steps.append)
        self.flow.path(DELEGATE, secure=True, keys=self.keys)

    def exchange(self, *pairs: tuple[Request, Response]) -> Observed:
        requests, responses = zip(*pairs, strict=True)
        self.flow.ask(requests)
        self.flow.answered(requests, responses, cost=Cost(bytes_out=100, bytes_in=50, seconds=0.5))
        return self

    def complete(self) -> KeyOrigin:
        return self.flow.complete(object(), keys=self.keys, resumed=False, now=1.0).origin

    @property
    def names(self) -> list[StepName]:
        return [step.operation for step in self.steps]


def test_an_initiator_of_ikev2_goes_through_the_boxes_in_three_messages() -> None:
    observed = (
        Observed().exchange((START, STARTED), (PUBLIC, PUBLISHED)).exchange((EXCHANGE, EXCHANGED), (PROVE, PROVEN))
    )
    assert observed.exchange((AUTHENTICATE, ACCEPTED), (KEYS, HANDED)).complete() is KeyOrigin.DERIVED
    assert observed.names == [
        StepName.SECURE_PATH,
        StepName.START,
        StepName.GENERATE_KEY,
        StepName.GENERATE_KEY,
        StepName.AUTHENTICATE,
        StepName.AUTHENTICATE,
        StepName.REQUEST_KEY,
        StepName.DERIVE_KEY,
        StepName.STORE_KEY,
    ]


def test_a_responder_of_main_mode_goes_through_the_boxes_as_in_figure_12() -> None:
    observed = Observed().exchange((START, STARTED)).exchange((EXCHANGE, EXCHANGED))
    observed.exchange((AUTHENTICATE, ACCEPTED), (PROVE, PROVEN)).exchange((KEYS, HANDED))
    assert observed.complete() is KeyOrigin.DERIVED


def test_aggressive_mode_needs_two_messages() -> None:
    introduce = ike.IntroduceRequest(), ike.IntroduceResponse(identification=b"")
    observed = Observed().exchange((START, STARTED), (PUBLIC, PUBLISHED), introduce)
    observed.exchange((EXCHANGE, EXCHANGED), (AUTHENTICATE, ACCEPTED), (PROVE, PROVEN), (KEYS, HANDED))
    assert observed.complete() is KeyOrigin.DERIVED


def test_keys_of_the_child_that_the_delegate_derived_are_taken() -> None:
    observed = Observed().exchange((START, STARTED), (EXCHANGE, EXCHANGED))
    observed.exchange((AUTHENTICATE, ACCEPTED), (PROVE, PROVEN), (CHILD_KEYS, HANDED))
    assert observed.complete() is KeyOrigin.TAKEN
    assert StepName.TAKE_KEY in observed.names


def test_the_key_is_not_requested_before_the_peer_is_authenticated() -> None:
    observed = Observed().exchange((START, STARTED), (EXCHANGE, EXCHANGED))
    with pytest.raises(Malfunction, match="before the peer was authenticated"):
        observed.flow.ask((KEYS,))


def test_a_peer_that_is_rejected_ends_the_batch_and_the_flow() -> None:
    observed = Observed().exchange((START, STARTED), (EXCHANGE, EXCHANGED))
    requests = (AUTHENTICATE, PROVE, KEYS)
    observed.flow.ask(requests)
    observed.flow.answered(requests, (FORGED,), cost=Cost())
    assert observed.flow.stage is Stage.FAILED
    with pytest.raises(Malfunction):
        observed.complete()


def test_a_group_that_must_change_ends_the_batch_without_a_key() -> None:
    observed = Observed()
    requests = (START, EXCHANGE)
    observed.flow.ask(requests)
    wanted = ike.IkeStartResponse(group=KeyExchangeId.ECP_256, other_group_wanted=True)
    observed.flow.answered(requests, (wanted,), cost=Cost())
    assert observed.flow.stage is Stage.FAILED
    assert observed.steps[-1].detail == "the peer is to come again with ecp256"


def test_an_answer_behind_the_end_of_a_batch_is_a_malfunction() -> None:
    observed = Observed()
    requests = (START, EXCHANGE)
    observed.flow.ask(requests)
    wanted = ike.IkeStartResponse(group=KeyExchangeId.ECP_256, other_group_wanted=True)
    with pytest.raises(Malfunction, match="follows the rejection"):
        observed.flow.answered(requests, (wanted, EXCHANGED), cost=Cost())


def test_a_further_key_exchange_needs_neither_authentication_nor_a_key_request() -> None:
    observed = Observed().exchange((FURTHER, STARTED), (PUBLIC, PUBLISHED)).exchange((SHARE, SHARED))
    observed.flow.derived("of the traffic")
    assert observed.flow.stage is Stage.COMPLETE
    assert observed.names[-2:] == [StepName.GENERATE_KEY, StepName.DERIVE_KEY]


@pytest.mark.parametrize("opening", [START, FURTHER], ids=["authenticated", "further"])
def test_no_key_is_derived_without_a_shared_secret(opening: Request) -> None:
    observed = Observed().exchange((opening, STARTED))
    with pytest.raises(Malfunction, match="without its shared secret"):
        observed.flow.derived("of the traffic")


def test_a_session_that_authenticates_cannot_end_like_a_further_one() -> None:
    observed = Observed().exchange((START, STARTED), (EXCHANGE, EXCHANGED))
    with pytest.raises(Malfunction):
        observed.flow.derived("of the traffic")


def test_seven_additional_key_exchanges_fit_and_no_more_than_the_limit_does() -> None:
    observed = (
        Observed()
        .exchange((START, STARTED), (PUBLIC, PUBLISHED), (PUBLIC, PUBLISHED))
        .exchange((EXCHANGE, EXCHANGED))
    )
    additional = ike.AdditionalKeyExchangeRequest(group=KeyExchangeId.ML_KEM_768, public_value=b"")
    for _ in range(7):
        observed.exchange((PUBLIC, PUBLISHED)).exchange((additional, EXCHANGED))
    observed.exchange((PROVE, PROVEN)).exchange((AUTHENTICATE, ACCEPTED), (KEYS, HANDED))
    assert observed.complete() is KeyOrigin.DERIVED
    other = Observed().exchange((START, STARTED))
    with pytest.raises(Malfunction, match="more than"):
        other.flow.ask((PUBLIC,) * MAXIMUM_OPERATIONS)


def test_details_say_what_was_done_and_never_a_secret() -> None:
    observed = (
        Observed().exchange((START, STARTED), (PUBLIC, PUBLISHED)).exchange((EXCHANGE, EXCHANGED), (PROVE, PROVEN))
    )
    observed.exchange((AUTHENTICATE, ACCEPTED), (KEYS, HANDED)).complete()
    details = [step.detail for step in observed.steps]
    assert details[1:7] == [
        "IKEv2 as initiator; x25519",
        "our public value, x25519",
        "keys of the handshake, x25519",
        "our proof: digital signature, 2 certificates",
        "dns:gw.example.com is authentic and allowed",
        "keys of the SA",
    ]
    assert SECRET.decode() not in repr(observed.steps)


@pytest.mark.parametrize(
    ("request_", "response", "detail"),
    [
        (
            ike.IkeStartRequest(exchange=Exchange.MAIN, initiator=False),
            ike.IkeStartResponse(),
            "IKEv1 main mode as responder",
        ),
        (PUBLIC, ike.PublicValueResponse(public_value=b"", nonce=b"n"), "our public value and nonce, x25519"),
        (
            ike.AdditionalKeyExchangeRequest(group=KeyExchangeId.ML_KEM_768, public_value=b""),
            EXCHANGED,
            "keys after an additional key exchange, mlkem768",
        ),
        (SHARE, SHARED, "shared secret, x25519"),
        (ike.IntroduceRequest(), ike.IntroduceResponse(identification=b""), "our identification"),
        (
            ike.ProveRequest(),
            ike.ProveResponse(identification=b"", proof=b"", method=AuthenticationMethod1.PRE_SHARED_KEY),
            "our proof: pre-shared key",
        ),
        (PROVE, ike.ProveResponse(identification=b"", proof=b"", method=77), "our proof: method 77"),
        (
            ike.EncryptedIntroductionRequest(),
            ike.EncryptedIntroductionResponse(identification=b"", nonce=b""),
            "our identification and nonce, encrypted to the peer",
        ),
        (
            ike.DisclosureRequest(identification=b"", nonce=b""),
            ike.DisclosureResponse(),
            "the peer's identification and nonce, decrypted",
        ),
        (
            CHILD_KEYS,
            ike.SaKeysResponse(keys=b"", ppk_used=True),
            "keys of the CHILD_SA, derived there, with a post-quantum pre-shared key",
        ),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else type(value).__name__,
)
def test_every_operation_has_words(request_: Request, response: Response, detail: str) -> None:
    from locum.terminal.steps import describe

    assert describe(request_, response) == detail


def test_a_failure_is_told_and_no_key_is_set() -> None:
    observed = Observed().exchange((START, STARTED))
    observed.flow.failed(Unavailable("no answer"))
    assert observed.steps[-1].operation is StepName.ERROR
    assert observed.keys.sessions() == ()
