"""`TlsSession`: performs the four operations of TLS 1.2 and 1.3.

Never knows how requests arrive. It enforces the order: nothing before the start, every operation once, no key
before an accepted verdict, nothing after the last key, and after any failure nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from locum.authority.authentication import Proven, check_possession
from locum.authority.client_identities import ClientIdentity
from locum.authority.databases import Decision, named_identity
from locum.authority.key_exchange12 import ClientExchange, perform_key_exchange
from locum.authority.selection import FINITE_FIELD_GROUPS, Method, choose
from locum.authority.session import Databases, Session
from locum.crypto.asymmetric import groups
from locum.crypto.asymmetric.certificates import Rejected
from locum.crypto.asymmetric.groups import KeyAgreement
from locum.errors import Misbehaved, Refused
from locum.handshake import Fault, Request, Response, Verdict
from locum.tls import schedule
from locum.tls.operations import (
    AuthenticateRequest,
    ClientCertificateRequest,
    ClientCertificateResponse,
    ClientKeyExchangeRequest,
    ClientKeyExchangeResponse,
    ClientSignatureRequest,
    ClientSignatureResponse,
    HandshakeSecretsRequest,
    HandshakeSecretsResponse,
    KeyBlockResponse,
    KeyForm,
    KeyShareRequest,
    KeyShareResponse,
    MasterSecretRequest,
    MasterSecretResponse,
    ServerFinishedRequest,
    ServerFinishedResponse,
    SessionKeysRequest,
    SharedSecretRequest,
    SharedSecretResponse,
    StartRequest,
    StartResponse,
)
from locum.tls.registry import CIPHER_SUITES, CipherSuite, KeyExchange, ProtocolVersion, group_name
from locum.tls.signed_messages12 import RANDOMS, signed_messages


class TlsSession(Session):
    """One handshake of TLS. A failed operation ends it."""

    protocol = "TLS"

    __slots__ = (
        "_agreement",
        "_agreement_group",
        "_chosen",
        "_exchange",
        "_method",
        "_proven",
        "_secret",
        "_seen",
        "_start",
        "_suite",
    )

    def __init__(self, databases: Databases, terminal: str) -> None:
        super().__init__(databases, terminal)
        self._start: StartRequest | None = None
        self._method: Method | None = None
        self._agreement: KeyAgreement | None = None
        self._forget()

    @property
    def _started(self) -> bool:
        return self._method is not None

    def _forget(self) -> None:
        """Drop every secret, and with them what they were for."""
        if self._agreement is not None:
            self._agreement.discard()
        self._agreement = None
        self._agreement_group = 0
        #: TLS 1.3: the handshake secret. TLS 1.2 with `KeyForm.KEYS`: the master secret.
        self._secret: bytes | None = None
        self._exchange: ClientExchange | None = None
        self._suite: CipherSuite | None = None
        self._proven: Proven | None = None
        #: What proved it: the request that was answered with an accepted verdict.
        self._seen: AuthenticateRequest | None = None
        self._chosen: ClientIdentity | None = None

    # --- start --------------------------------------------------------------------------------------------

    def _begin(self, request: StartRequest) -> StartResponse:
        """Refuse a peer that policy denies whatever it proves, choose the method, and make a key share."""
        decision = self._foresee(request)
        if not decision.allowed and self._databases.refresh():
            decision = self._foresee(request)
        if not decision.allowed:
            raise Refused(decision.reason)
        method = choose(request, self._databases.options)
        share = b""
        if method.key_share_group:
            self._agreement_group = method.key_share_group
            self._agreement = groups.start(group_name(method.key_share_group))
            share = self._agreement.share
        self._start, self._method = request, method
        return StartResponse(
            versions=method.versions,
            cipher_suites=method.cipher_suites,
            groups=method.groups,
            signature_schemes=method.signature_schemes,
            key_share_group=method.key_share_group,
            key_share=share,
            key_form=method.key_form,
        )

    def _foresee(self, request: StartRequest) -> Decision:
        """What policy says of the peer that was named, before it has proven anything."""
        identity = named_identity(request.server_name)
        return self._databases.policy.decide(
            self._terminal,
            (identity,),
            request.peer_address,
            possible=self._databases.authenticator.possible_pins(identity),
        )

    # --- generate_key -------------------------------------------------------------------------------------

    def _new_share(self, request: KeyShareRequest) -> KeyShareResponse:
        """HelloRetryRequest (RFC 8446 section 4.1.4): the share in the first group is of no use any more."""
        agreement = self._due(self._agreement, request)
        if (
            request.group not in self._offered.groups
            or request.group in FINITE_FIELD_GROUPS
            or request.group == self._agreement_group
        ):
            raise Misbehaved(f"the server asks for a key share in {group_name(request.group)}")
        agreement.discard()
        self._agreement_group = request.group
        self._agreement = groups.start(group_name(request.group))
        return KeyShareResponse(key_share=self._agreement.share)

    def _complete(self, request: HandshakeSecretsRequest | SharedSecretRequest) -> bytes:
        agreement = self._due(self._agreement, request)
        if request.group != self._agreement_group:
            raise Misbehaved(f"the server's key share is in {group_name(request.group)}")
        self._agreement = None
        return agreement.complete(request.key_share)

    def _handshake_secrets(self, request: HandshakeSecretsRequest) -> HandshakeSecretsResponse:
        suite = self._offered_suite(request.cipher_suite, ProtocolVersion.TLS_1_3)
        self._check_length("transcript hash", request.transcript_hash, suite.hash.length)
        secret = schedule.handshake_secret(suite.hash, self._complete(request))
        self._suite, self._secret = suite, secret
        client, server = schedule.handshake_traffic_secrets(suite.hash, secret, request.transcript_hash)
        return HandshakeSecretsResponse(client_secret=client, server_secret=server)

    def _shared_secret(self, request: SharedSecretRequest) -> SharedSecretResponse:
        """With a pre-shared key the peer proves itself by knowing it, and only the terminal can check that."""
        if self._start is None or not self._start.resumption:
            raise Refused("a bare shared secret is given only in a session started with resumption")
        secret = self._complete(request)
        self.close()
        return SharedSecretResponse(secret=secret)

    def _client_key_exchange(self, request: ClientKeyExchangeRequest) -> ClientKeyExchangeResponse:
        suite = self._suite12(request)
        if request.cipher_suite != suite.code:
            raise Refused("the ClientKeyExchange is for another cipher suite than was authenticated")
        # What the peer signed are the parameters to use; nothing else may take their place.
        if suite.key_exchange is not KeyExchange.RSA and request.parameters != self._signed[RANDOMS:]:
            raise Refused("the parameters of the key exchange are not those that were authenticated")
        assert self._proven is not None
        self._exchange = perform_key_exchange(
            suite.key_exchange,
            request.parameters,
            offered_groups=self._offered.groups,
            peer_key=self._proven.peer.key,
            random=self._databases.random,
        )
        return ClientKeyExchangeResponse(body=self._exchange.body)

    # --- authenticate -------------------------------------------------------------------------------------

    def _authenticate(self, request: AuthenticateRequest) -> Verdict:
        """Both results (A6): is the peer authentic, and may it access this terminal?"""
        self._check_moment(request)
        verdict = self._judge(request)
        if not verdict.accepted and self._databases.refresh():
            verdict = self._judge(request)
        return verdict

    def _judge(self, request: AuthenticateRequest) -> Verdict:
        assert self._start is not None
        databases = self._databases
        try:
            proven = databases.authenticator.prove(request.chain, self._start.server_name, now=databases.now())
            check_possession(request, proven.peer)
        except Rejected as rejected:
            return Verdict(authentic=False, allowed=False, reason=str(rejected), fault=rejected.fault)
        identity = proven.identities[0]
        decision = databases.policy.decide(self._terminal, proven.identities, self._start.peer_address)
        if not decision.allowed:
            return Verdict(
                authentic=True, allowed=False, identity=identity, reason=decision.reason, fault=Fault.POLICY
            )
        self._proven, self._seen = proven, request
        return Verdict(authentic=True, allowed=True, identity=identity)

    def _check_moment(self, request: AuthenticateRequest) -> None:
        """Refuse an authentication that does not belong to what has happened in this session."""
        if request.version == ProtocolVersion.TLS_1_3:
            suite = self._offered_suite(request.cipher_suite, ProtocolVersion.TLS_1_3)
            if self._secret is None or suite is not self._suite:
                raise Refused("in TLS 1.3 the handshake secrets of the same cipher suite come first")
            self._check_length("transcript hash", request.content, suite.hash.length)
            return
        suite = self._offered_suite(request.cipher_suite, ProtocolVersion.TLS_1_2)
        if request.version != ProtocolVersion.TLS_1_2 or self._secret is not None:
            raise Refused(f"version 0x{request.version:04x} is not the one of this handshake")
        if suite.key_exchange is KeyExchange.RSA and (request.signature or request.content):
            raise Refused("with RSA key exchange nothing is signed")
        if suite.key_exchange is not KeyExchange.RSA and len(request.content) <= RANDOMS:
            raise Refused("the signed content is both randoms and the parameters of the key exchange")
        self._suite = suite
        if self._agreement is not None:
            self._agreement.discard()
            self._agreement = None

    def _client_certificate(self, request: ClientCertificateRequest) -> ClientCertificateResponse:
        proven = self._due(self._proven, request)
        self._check_version(request.version)
        self._chosen = self._choose(request, proven)
        if self._chosen is None and self._databases.refresh():
            self._chosen = self._choose(request, proven)
        if self._chosen is None:
            return ClientCertificateResponse(certificates=())
        return ClientCertificateResponse(certificates=self._chosen.certificates, scheme=self._chosen.scheme)

    def _choose(self, request: ClientCertificateRequest, proven: Proven) -> ClientIdentity | None:
        assert self._start is not None
        return self._databases.identities.choose(
            request,
            terminal=self._terminal,
            peer=proven.identities,
            address=self._start.peer_address,
            now=self._databases.now(),
        )

    def _client_signature(self, request: ClientSignatureRequest) -> ClientSignatureResponse:
        """Sign, in TLS 1.2, for this handshake alone; in TLS 1.3 as a client of TLS 1.3 and nothing else."""
        chosen = self._due(self._chosen, request)
        self._check_version(request.version)
        assert self._suite is not None
        if request.version == ProtocolVersion.TLS_1_3:
            self._check_length("transcript hash", request.content, self._suite.hash.length)
            return ClientSignatureResponse(
                signature=chosen.sign(schedule.certificate_verify_content(b"client", request.content))
            )
        content = signed_messages(
            request.content,
            seen=self._due(self._seen, request),
            certificates=chosen.certificates,
            key_exchange=self._due(self._exchange, request).body,
        )
        return ClientSignatureResponse(signature=chosen.sign(content))

    # --- request_key --------------------------------------------------------------------------------------

    def _master_secret(self, request: MasterSecretRequest) -> MasterSecretResponse:
        secret, _ = self._due(self._secret, request), self._due(self._proven, request)
        self._check_version(ProtocolVersion.TLS_1_3)
        assert self._suite is not None
        master = schedule.master_secret(self._suite.hash, secret)
        self.close()
        return MasterSecretResponse(secret=master)

    def _session_keys(self, request: SessionKeysRequest) -> MasterSecretResponse | KeyBlockResponse:
        """Para 117; in the form that was chosen at the start (A7)."""
        exchange = self._due(self._exchange, request)
        suite = self._suite12(request)
        self._check_seed(request, suite)
        master = schedule.master_secret12(suite.hash, exchange.pre_master_secret, request.seed, request.extended)
        self._exchange = None
        if self._offered.key_form is KeyForm.SECRET:
            self.close()
            return MasterSecretResponse(secret=master)
        self._check_length("randoms", request.randoms, RANDOMS)
        self._check_length("transcript hash", request.finished_hash, suite.hash.length)
        self._secret = master
        return KeyBlockResponse(
            key_block=schedule.key_block12(suite, master, request.randoms),
            client_verify_data=schedule.verify_data12(
                suite.hash, master, b"client finished", request.finished_hash
            ),
        )

    def _check_seed(self, request: SessionKeysRequest, suite: CipherSuite) -> None:
        self._check_length("seed", request.seed, suite.hash.length if request.extended else RANDOMS)
        # Where the peer has signed the randoms, the keys are made of those and no others.
        signed = self._signed[:RANDOMS]
        used = request.randoms if request.extended else request.seed
        if signed and used and used != signed:
            raise Refused("the randoms are not those that were authenticated")

    def _server_finished(self, request: ServerFinishedRequest) -> ServerFinishedResponse:
        master = self._due(self._secret, request)
        suite = self._suite12(request)
        self._check_length("transcript hash", request.finished_hash, suite.hash.length)
        expected = schedule.verify_data12(suite.hash, master, b"server finished", request.finished_hash)
        self.close()
        return ServerFinishedResponse(server_verify_data=expected)

    # --- what must hold -----------------------------------------------------------------------------------

    @property
    def _signed(self) -> bytes:
        """TLS 1.2: both randoms and the parameters, as the peer has signed them; empty with RSA key exchange."""
        return self._seen.content if self._seen is not None else b""

    @property
    def _offered(self) -> Method:
        assert self._method is not None
        return self._method

    def _offered_suite(self, code: int, version: ProtocolVersion) -> CipherSuite:
        """The suite, if it was offered and is of this version; the server may choose no other."""
        suite = CIPHER_SUITES.get(code)
        if suite is None or code not in self._offered.cipher_suites or suite.version is not version:
            raise Refused(f"the cipher suite 0x{code:04x} was not offered for {version.name}")
        return suite

    def _suite12(self, request: Request) -> CipherSuite:
        """The suite of an authenticated TLS 1.2 handshake."""
        self._due(self._proven, request)
        self._check_version(ProtocolVersion.TLS_1_2)
        assert self._suite is not None
        return self._suite

    def _check_version(self, version: int) -> None:
        if self._suite is None or self._suite.version != version:
            raise Refused(f"version 0x{version:04x} is not the one of this handshake")

    handlers: ClassVar[dict[type[Request], Callable[[Any, Any], Response]]] = {
        StartRequest: _begin,
        KeyShareRequest: _new_share,
        HandshakeSecretsRequest: _handshake_secrets,
        SharedSecretRequest: _shared_secret,
        ClientKeyExchangeRequest: _client_key_exchange,
        AuthenticateRequest: _authenticate,
        ClientCertificateRequest: _client_certificate,
        ClientSignatureRequest: _client_signature,
        MasterSecretRequest: _master_secret,
        SessionKeysRequest: _session_keys,
        ServerFinishedRequest: _server_finished,
    }
