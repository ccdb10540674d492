"""Every IKE operation at every state of a session: typed errors only, and no key without an accepted verdict."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.ike_authority import (
    RIGHT,
    RIGHT_NAME,
    Play1,
    Play2,
    authority,
    certificate_pair,
    encryption_pair,
    identity,
    policy1,
    psk_pair,
    start2,
)

from locum.authority import ike_key_exchange
from locum.authority.databases import Action, PolicyRule
from locum.authority.local import LocalAuthority, LocalSession
from locum.errors import LocumError, Refused
from locum.handshake import Request, Response, Verdict
from locum.ike import algorithms as alg
from locum.ike.algorithms import Group
from locum.ike.operations import (
    Exchange,
    IkeStartRequest,
    ProveRequest,
    ProveResponse,
    PublicValueRequest,
    SaKeysRequest,
    SaKeysResponse,
    SharedSecretRequest,
    SharedSecretResponse,
)
from locum.ike.policy import IkePolicy
from locum.ike.registry import AuthenticationMethod1 as Method

SECRET = bytes(range(32))


def _value(group: Group, length: int) -> bytes:
    return hashlib.shake_128(group.name.encode()).digest(length)


class FixedExchange:
    """A key exchange that always comes out the same, so that what was recorded can be replayed."""

    def __init__(self, group: Group) -> None:
        self.group, self.public_value = group, _value(group, group.initiator_length)

    def complete(self, peer_value: bytes) -> bytes:
        return SECRET

    def discard(self) -> None:
        """Nothing is held."""


def _respond(group: Group, peer_value: bytes) -> tuple[bytes, bytes]:
    return _value(group, group.responder_length), SECRET


@pytest.fixture(scope="module", autouse=True)
def fixed_exchanges() -> Iterator[None]:
    patches = _patched()
    yield
    patches.undo()


def _patched() -> pytest.MonkeyPatch:
    patches = pytest.MonkeyPatch()
    patches.setattr(ike_key_exchange, "respond", _respond)
    for module in ("ike1_session", "ike2_session", "ike_further_session"):
        patches.setattr(f"locum.authority.{module}.KeyExchange", FixedExchange)
    return patches


@dataclasses.dataclass(frozen=True)
class Flow:
    """One session that works: whose it is, and what is asked in it one after the other."""

    authority: LocalAuthority
    terminal: str
    requests: tuple[Request, ...]


def _recorded(play: Play1 | Play2) -> list[Flow]:
    """Both sessions of a handshake that succeeds."""
    asked: list[list[Request]] = []
    for session in (play.initiator, play.responder):
        requests: list[Request] = []
        asked.append(requests)
        _record(session, requests)
    assert play.run().agreed
    owners = ((play.left, "left-terminal"), (play.right, "right-terminal"))
    return [Flow(owner, name, tuple(requests)) for (owner, name), requests in zip(owners, asked, strict=True)]


def _record(session: LocalSession, requests: list[Request]) -> None:
    """Have every request that this session is asked noted down."""
    original = LocalSession.perform

    class Recording(LocalSession):
        __slots__ = ()

        def perform(self, batch: Any) -> tuple[Response, ...]:
            requests.extend(batch)
            return original(self, batch)

    session.__class__ = Recording


OPTIONS: dict[str, Any] = {"random": lambda length: bytes(range(length))}
TWO = IkePolicy(groups=(alg.CURVE25519,), additional=((alg.ML_KEM_768,), (alg.ECP_256,)))


def _plays() -> Iterator[Play1 | Play2]:
    name = f"dns:{RIGHT_NAME}"
    yield Play2(*psk_pair(**OPTIONS))
    yield Play2(*psk_pair(**OPTIONS), policy=TWO)
    yield Play2(*certificate_pair(**OPTIONS), remote_identity=name)
    for exchange in (Exchange.MAIN, Exchange.AGGRESSIVE):
        yield Play1(*psk_pair(**OPTIONS), policy1(Method.PRE_SHARED_KEY), exchange)
        yield Play1(*certificate_pair(**OPTIONS), policy1(Method.ECDSA_256), exchange, remote_identity=name)
        pair = encryption_pair(**OPTIONS)
        yield Play1(*pair, policy1(Method.RSA_ENCRYPTION), exchange, remote_identity=name)


def _further(*, initiator: bool) -> Flow:
    start = IkeStartRequest(exchange=Exchange.FURTHER, initiator=initiator)
    value = SharedSecretRequest(group=31, public_value=bytes(32), more=True)
    middle: tuple[Request, ...] = (PublicValueRequest(group=31),) if initiator else ()
    return Flow(
        authority(**OPTIONS),
        RIGHT,
        (start, *middle, value, *middle, dataclasses.replace(value, more=False)),
    )


def _flows() -> tuple[Flow, ...]:
    patches = _patched()
    try:
        flows = [flow for play in _plays() for flow in _recorded(play)]
    finally:
        patches.undo()
    return (*flows, _further(initiator=True), _further(initiator=False))


FLOWS = _flows()
DENIED = authority(
    identities=(identity(RIGHT_NAME),),
    policy=(PolicyRule(terminal="*", peer="*", action=Action.DENY),),
)
#: Everything that is ever asked, in all of the flows.
POOL = tuple({repr(request): request for flow in FLOWS for request in flow.requests}.values())


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: type(flow.requests[-1]).__name__)
def test_every_flow_works_by_itself_and_all_at_once(flow: Flow) -> None:
    responses = flow.authority.open(flow.terminal).perform(flow.requests)
    assert len(responses) == len(flow.requests)
    assert responses[-1].last


@st.composite
def walks(draw: st.DrawFn) -> tuple[Flow, list[Request]]:
    """A good beginning, then anything; or a good handshake with one request put in, left out or moved."""
    flow = draw(st.sampled_from(FLOWS))
    requests = list(flow.requests)
    if draw(st.booleans()):
        kept = requests[: draw(st.integers(0, len(requests)))]
        return flow, kept + draw(st.lists(st.sampled_from(POOL), max_size=6))
    position = draw(st.integers(0, len(requests)))
    requests[position : position + draw(st.integers(0, 1))] = draw(st.lists(st.sampled_from(POOL), max_size=1))
    if draw(st.booleans()):
        requests.append(requests.pop(draw(st.integers(0, len(requests) - 1))) if requests else SaKeysRequest())
    return flow, requests


@settings(max_examples=200)
@given(walks())
def test_no_order_of_operations_gets_a_key_without_a_verdict(walk: tuple[Flow, list[Request]]) -> None:
    flow, requests = walk
    session = flow.authority.open(flow.terminal)
    start: IkeStartRequest | None = None
    accepted = ended = False
    for request in requests:
        try:
            (response,) = session.perform([request])
        except LocumError as error:
            if ended:
                assert isinstance(error, Refused)
            ended = True
            continue
        assert not ended
        start = request if isinstance(request, IkeStartRequest) else start
        assert start is not None
        accepted = accepted or (isinstance(response, Verdict) and response.accepted)
        _check_guarded(start, response, accepted=accepted)
        ended = response.last or response.ends_batch


def _check_guarded(start: IkeStartRequest, response: Response, *, accepted: bool) -> None:
    if isinstance(response, SaKeysResponse):
        assert accepted
    if isinstance(response, SharedSecretResponse):
        assert start.exchange is Exchange.FURTHER
    proves_late = {Exchange.IKE_2: False, Exchange.MAIN: False, Exchange.AGGRESSIVE: True}
    if isinstance(response, ProveResponse) and start.initiator is proves_late[start.exchange]:
        assert accepted


@settings(max_examples=100)
@given(st.lists(st.sampled_from(POOL), min_size=1, max_size=8))
def test_peer_that_policy_denies_gets_nothing_at_all(requests: list[Request]) -> None:
    session = DENIED.open(RIGHT)
    for request in requests:
        with pytest.raises(LocumError):
            session.perform([request])


def _damaged(request: Request) -> st.SearchStrategy[Request]:
    """The request with one of its fields replaced by another value of its type."""

    @st.composite
    def build(draw: st.DrawFn) -> Request:
        fields = dataclasses.fields(request)
        if not fields:
            return request
        field = draw(st.sampled_from(fields))
        value: Any = getattr(request, field.name)
        match value:
            case bool():
                value = not value
            case Exchange():
                value = draw(st.sampled_from(Exchange))
            case int():
                value = draw(st.integers(0, 0xFFFF))
            case bytes():
                value = draw(st.one_of(st.binary(max_size=100), _altered(value)))
            case str():
                value = draw(st.text(max_size=30))
            case tuple():
                value = draw(st.sampled_from([(), (*value, *value), (b"x",) * 20]))
        return dataclasses.replace(request, **{field.name: value})

    return build()


def _altered(value: bytes) -> st.SearchStrategy[bytes]:
    """`value` with one byte changed, or cut short."""
    if not value:
        return st.just(b"\0")
    position = st.integers(0, len(value) - 1)
    return st.one_of(
        st.builds(lambda at: value[:at] + bytes((value[at] ^ 0x41,)) + value[at + 1 :], position),
        st.builds(lambda at: value[:at], position),
    )


@settings(max_examples=200)
@given(st.data())
def test_damaged_operation_is_a_typed_error_or_a_verdict_or_does_no_harm(data: st.DataObject) -> None:
    flow = data.draw(st.sampled_from(FLOWS))
    position = data.draw(st.integers(0, len(flow.requests) - 1))
    session = flow.authority.open(flow.terminal)
    session.perform(flow.requests[:position])
    try:
        session.perform([data.draw(_damaged(flow.requests[position]))])
        session.perform(flow.requests[position + 1 :])
    except LocumError as error:
        assert "\n" not in str(error)
        assert str(error)


@settings(max_examples=100)
@given(st.data())
def test_batches_may_be_cut_anywhere(data: st.DataObject) -> None:
    flow = data.draw(st.sampled_from(FLOWS))
    at_once = Exchange.AGGRESSIVE is getattr(flow.requests[0], "exchange", None)
    session = flow.authority.open(flow.terminal)
    responses: list[Response] = []
    rest = list(flow.requests)
    while rest:
        # In aggressive mode who the peer says it is must be asked about in one batch with the rest of its message.
        length = len(rest) if at_once else data.draw(st.integers(1, len(rest)))
        responses += session.perform(rest[:length])
        del rest[:length]
    assert responses[-1].last


def test_start_of_a_session_is_its_first_request() -> None:
    for flow in FLOWS:
        for request in flow.requests[1:]:
            with pytest.raises(Refused):
                flow.authority.open(flow.terminal).perform([request])
    with pytest.raises(Refused, match="operation"):
        DENIED.open(RIGHT).perform([ProveRequest(), start2(initiator=True)])
