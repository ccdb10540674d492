"""Whatever terminals send, in whatever order: every message has an answer, and the bounds hold (A3)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.support import exchange, pki
from tests.support.ike_offers import ike_offer

from locum.authority.messages import decode_responses, encode_requests
from locum.authority.remote import PATH
from locum.delegate.journal import SESSION_ACTION, Journal
from locum.delegate.limits import RateLimits
from locum.delegate.service import DelegateService
from locum.delegate.sessions import SessionLimits
from locum.handshake import PeerChain, Request
from locum.ike import operations as ike
from locum.link.coap import Code
from locum.store.records import AuditEntry
from locum.tls.operations import (
    ClientSignatureRequest,
    KeyShareRequest,
    MasterSecretRequest,
    ServerFinishedRequest,
    SharedSecretRequest,
    StartResponse,
)

PEER = pki.leaf(pki.ca())
TERMINALS = ("a", "b", "c")
LIMITS = SessionLimits(lifetime=60.0, overall=4, per_terminal=2)
OPENINGS: tuple[Request, ...] = (
    exchange.START,
    ike.IkeStartRequest(exchange=ike.Exchange.IKE_2, initiator=True, sa=ike_offer(), peer_address="192.0.2.1"),
    ike.IkeStartRequest(exchange=ike.Exchange.IKE_2, initiator=False, sa=ike_offer(), group=31),
    ike.IkeStartRequest(exchange=ike.Exchange.IKE_2, initiator=False, sa=ike_offer(), group=2),
    ike.IkeStartRequest(exchange=ike.Exchange.MAIN, initiator=False, sa=bytes(20)),
    ike.IkeStartRequest(exchange=ike.Exchange.FURTHER, initiator=False, group=31),
)
REQUESTS: tuple[Request, ...] = (
    KeyShareRequest(group=23),
    SharedSecretRequest(group=29, key_share=bytes(32)),
    exchange.authenticate13(PEER),
    MasterSecretRequest(),
    ClientSignatureRequest(version=0x0304, content=bytes(32)),
    ServerFinishedRequest(finished_hash=bytes(32)),
    ike.PublicValueRequest(group=31),
    ike.KeyExchangeRequest(
        group=31,
        public_value=bytes(31) + b"\x09",
        initiator_spi=b"initiate",
        responder_spi=b"respond.",
        peer_nonce=bytes(32),
        own_nonce=bytes(32),
    ),
    ike.SharedSecretRequest(group=31, public_value=bytes(31) + b"\x09", more=True),
    ike.IkeAuthenticateRequest(chain=PeerChain(()), identification=b"\x02\0\0\0peer", proof=bytes(32), method=2),
    ike.IntroduceRequest(),
    ike.ProveRequest(),
    ike.SaKeysRequest(),
)


class Delegate:
    """A service with a real authority, unlimited in rate, and a clock moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.audited: list[AuditEntry] = []
        self.journal = Journal(self.audited.append, time=lambda: 0.0)
        count = iter(range(1, 1 << 40))
        self.service = DelegateService(
            authority=exchange.authority(),
            serves=lambda terminal, plain: True,
            journal=self.journal,
            random=lambda length: next(count).to_bytes(length, "big"),
            session_limits=LIMITS,
            rate_limits=RateLimits(rate=1e9, burst=1e9),
        )

    def post(self, terminal: str, payload: bytes) -> tuple[Code, bytes]:
        answer = self.service.handle(terminal, PATH, payload, now=self.now)
        return answer.code, answer.payload


@given(st.lists(st.tuples(st.sampled_from(TERMINALS), st.binary(max_size=300)), max_size=20))
def test_random_bytes_are_refused_and_leave_a_session_alone(messages: list[tuple[str, bytes]]) -> None:
    delegate = Delegate()
    _, payload = delegate.post("a", encode_requests(b"", (exchange.START,)))
    answer = decode_responses(payload, (exchange.START,))
    for terminal, data in messages:
        assert delegate.post(terminal, data)[0] in (Code.BAD_REQUEST, Code.NOT_FOUND)
    (start,) = answer.responses
    assert isinstance(start, StartResponse)
    request, _ = exchange.server_share(start)
    assert delegate.post("a", encode_requests(answer.token, (request,)))[0] == Code.CHANGED


@given(st.data())
def test_a_mangled_message_of_one_terminal_never_touches_the_session_of_another(data: st.DataObject) -> None:
    delegate = Delegate()
    tokens = {}
    for terminal in ("a", "b"):
        _, payload = delegate.post(terminal, encode_requests(b"", (exchange.START,)))
        tokens[terminal] = decode_responses(payload, (exchange.START,)).token
    batch = data.draw(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=4, unique_by=type))
    message = bytearray(encode_requests(tokens["a"], batch, with_chain=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    delegate.post("b", bytes(message))
    if delegate.service.sessions.count("b") == 1:
        assert delegate.service.sessions.find(tokens["a"], "a", now=delegate.now) is not None


class AnyOrder(RuleBasedStateMachine):
    """Terminals that send operations, ends and foreign tokens in any order, while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.delegate = Delegate()
        self.tokens: list[tuple[str, bytes]] = []
        self.opened = 0

    @rule(
        terminal=st.sampled_from(TERMINALS),
        opening=st.sampled_from(OPENINGS),
        more=st.lists(st.sampled_from(REQUESTS), max_size=2),
    )
    def begin(self, terminal: str, opening: Request, more: list[Request]) -> None:
        room, _ = self.delegate.service.sessions.room_for(terminal)
        requests = (opening, *more)
        code, payload = self.delegate.post(terminal, encode_requests(b"", requests, with_chain=True))
        assert (code != Code.SERVICE_UNAVAILABLE) == room
        if room:
            self.opened += 1
        if code == Code.CHANGED:
            self.tokens.append((terminal, decode_responses(payload, requests).token))

    @rule(
        index=st.integers(0, 30),
        asker=st.sampled_from(TERMINALS),
        requests=st.lists(st.sampled_from(REQUESTS), max_size=3),
    )
    def go_on(self, index: int, asker: str, requests: list[Request]) -> None:
        if not self.tokens:
            return
        owner, token = self.tokens[index % len(self.tokens)]
        alive = self.delegate.service.sessions.find(token, owner, now=self.delegate.now) is not None
        code, _ = self.delegate.post(asker, encode_requests(token, requests, with_chain=True))
        if asker != owner or not alive:
            assert code == Code.NOT_FOUND
            assert (self.delegate.service.sessions.find(token, owner, now=self.delegate.now) is not None) == alive
        else:
            assert code in (Code.CHANGED, Code.FORBIDDEN)

    @rule(seconds=st.sampled_from((1.0, 20.0, 61.0)))
    def wait(self, seconds: float) -> None:
        self.delegate.now += seconds

    @invariant()
    def bounds_hold(self) -> None:
        sessions = self.delegate.service.sessions
        assert len(sessions) <= LIMITS.overall
        assert all(sessions.count(terminal) <= LIMITS.per_terminal for terminal in TERMINALS)
        assert sum(sessions.count(terminal) for terminal in TERMINALS) == len(sessions)

    @invariant()
    def every_session_is_open_or_counted_and_audited_once(self) -> None:
        counters = self.delegate.service.counters
        ended = counters.completed + counters.further + counters.rejected + counters.failed
        assert ended + len(self.delegate.service.sessions) == self.opened
        entries = [entry for entry in self.delegate.audited if entry.action == SESSION_ACTION]
        told = sum(
            int(entry.detail.split("; ")[1].split()[0]) for entry in entries if "more before" in entry.detail
        )
        untold = sum(
            int(seen[1]) for key, seen in self.delegate.journal._refusals.items() if SESSION_ACTION in key
        )
        assert len(entries) + told + untold == ended


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
