"""A delegate's service with scripted surroundings and a clock moved by hand: no sockets and no cryptography."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from locum.authority.messages import Answer, decode_responses, encode_requests
from locum.authority.remote import PATH
from locum.delegate.journal import SESSION_ACTION, Journal
from locum.delegate.limits import RateLimits
from locum.delegate.service import Authority, DelegateService, ServiceAnswer
from locum.delegate.sessions import SessionLimits
from locum.handshake import Fault, PeerChain, Request, Response, Verdict
from locum.ike import operations as ike
from locum.link.coap import Code
from locum.store.records import AuditEntry
from locum.tls.operations import (
    AuthenticateRequest,
    HandshakeSecretsRequest,
    HandshakeSecretsResponse,
    KeyForm,
    MasterSecretRequest,
    MasterSecretResponse,
    SharedSecretRequest,
    SharedSecretResponse,
    StartRequest,
    StartResponse,
)

SECRET = b"secret-bytes-of-the-master-key!!"
START = StartRequest(versions=(0x0304,), cipher_suites=(0x1301,), server_name="peer.example")
KEYS = HandshakeSecretsRequest(cipher_suite=0x1301, group=29, key_share=bytes(32), transcript_hash=bytes(32))
CHAIN = PeerChain((b"leaf", b"issuer"))
AUTHENTICATE = AuthenticateRequest(
    version=0x0304, cipher_suite=0x1301, chain=CHAIN, scheme=0x0403, signature=b"s", content=bytes(32)
)
MASTER = MasterSecretRequest()
ACCEPTED = Verdict(authentic=True, allowed=True, identity="dns:peer.example")
DENIED = Verdict(
    authentic=True, allowed=False, identity="dns:peer.example", reason="no rule allows it", fault=Fault.POLICY
)


class ScriptedSession:
    """An authority's session that answers by the kind of request, and fails where it was told to."""

    def __init__(self, authority: ScriptedAuthority) -> None:
        self.authority = authority
        self.performed: list[Request] = []
        self.closed = False

    def perform(self, requests: Sequence[Request]) -> tuple[Response, ...]:
        assert not self.closed, "a session was used after its end"
        responses: list[Response] = []
        for request in requests:
            self.performed.append(request)
            response = self.authority.answers[type(request)]
            if isinstance(response, Exception):
                raise response
            responses.append(response)
            if response.ends_batch:
                break
        return tuple(responses)

    def close(self) -> None:
        self.closed = True


class ScriptedAuthority:
    session: type[ScriptedSession] = ScriptedSession

    def __init__(self) -> None:
        self.opened: list[ScriptedSession] = []
        self.answers: dict[type[Request], Response | Exception] = {
            StartRequest: StartResponse(
                versions=(0x0304,),
                cipher_suites=(0x1301,),
                groups=(29,),
                signature_schemes=(0x0403,),
                key_share_group=29,
                key_share=bytes(32),
                key_form=KeyForm.SECRET,
            ),
            HandshakeSecretsRequest: HandshakeSecretsResponse(client_secret=SECRET, server_secret=SECRET),
            AuthenticateRequest: ACCEPTED,
            MasterSecretRequest: MasterSecretResponse(secret=SECRET),
            SharedSecretRequest: SharedSecretResponse(secret=SECRET),
            ike.IkeStartRequest: ike.IkeStartResponse(group=31),
            ike.KeyExchangeRequest: ike.IkeKeysResponse(keys=SECRET, public_value=bytes(32)),
            ike.IkeAuthenticateRequest: ACCEPTED,
            ike.ProveRequest: ike.ProveResponse(identification=b"\x02\0\0\0meter", proof=b"p"),
            ike.SaKeysRequest: ike.SaKeysResponse(keys=SECRET),
            ike.SharedSecretRequest: ike.SharedSecretResponse(secret=SECRET),
        }

    def open(self, terminal: str) -> ScriptedSession:
        session = self.session(self)
        self.opened.append(session)
        return session


class Bench:
    """A service with scripted surroundings and a clock that is moved by hand."""

    def __init__(
        self,
        *,
        session_limits: SessionLimits | None = None,
        rate_limits: RateLimits | None = None,
        serves: Callable[[str, bool], bool] = lambda terminal, plain: True,
        authority: Authority | None = None,
    ) -> None:
        self.effort = 0.0
        self.authority = ScriptedAuthority()
        self.audited: list[AuditEntry] = []
        self.now = 1000.0
        numbers = itertools.count(1)
        self.service = DelegateService(
            authority=authority or self.authority,
            serves=serves,
            journal=Journal(self.audited.append, time=lambda: 1.7e9),
            random=lambda length: next(numbers).to_bytes(length, "big"),
            session_limits=session_limits,
            rate_limits=rate_limits or RateLimits(rate=1e6, burst=1e6),
            effort=lambda: self.effort,
        )

    @property
    def ended(self) -> list[AuditEntry]:
        return [entry for entry in self.audited if entry.action == SESSION_ACTION]

    def post(
        self, payload: bytes, terminal: str = "meter", path: str = PATH, *, plain: bool = False
    ) -> ServiceAnswer:
        return self.service.handle(terminal, path, payload, now=self.now, plain=plain)

    def ask(self, token: bytes, *requests: Request, terminal: str = "meter", with_chain: bool = True) -> Answer:
        answer = self.post(encode_requests(token, requests, with_chain=with_chain), terminal)
        assert answer.code == Code.CHANGED, answer
        return decode_responses(answer.payload, requests)

    def start(self, terminal: str = "meter") -> bytes:
        token = self.ask(b"", START, terminal=terminal).token
        assert token
        return token

    def error(self, answer: ServiceAnswer) -> Exception:
        error = decode_responses(answer.payload, (START,)).error
        assert error is not None
        return error
