"""`Ike1Session`: performs the four operations of IKEv1, main and aggressive mode (RFC 2409, figs 12 and 13).

Never knows a message. The order is that of the tables in `ike.operations`. Quick mode is the terminal's own (A9).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar, TypeVar

from locum.authority import ike_key_exchange
from locum.authority.client_identities import KnownIdentity
from locum.authority.ike1_encryption import Disclosed, Recipient, disclose, encrypt, find_recipient
from locum.authority.ike1_keys import Phase1Keys
from locum.authority.ike_authentication import check_possession
from locum.authority.ike_credentials import PeerView, preferred
from locum.authority.ike_identities import Identification, parse_identification
from locum.authority.ike_key_exchange import KeyExchange
from locum.authority.ike_negotiation import Offer1
from locum.authority.ike_secrets import KnownSecret
from locum.authority.ike_session import IkeSession, Judgement
from locum.authority.ike_signatures import METHOD1_KINDS, sign1, verify1
from locum.authority.session import Databases
from locum.crypto.asymmetric.certificates import Rejected
from locum.crypto.asymmetric.signatures import PublicKey
from locum.crypto.symmetric import constant_time_equal
from locum.errors import DecodeError, Misbehaved, Refused
from locum.handshake import Fault, Request, Response, Verdict
from locum.ike import keying1
from locum.ike.errors import NoProposalChosen
from locum.ike.header import NO_SPI, SPI_LENGTH
from locum.ike.keying1 import Cookies, PublicValues
from locum.ike.operations import (
    DisclosureRequest,
    DisclosureResponse,
    EncryptedIntroductionRequest,
    EncryptedIntroductionResponse,
    Exchange,
    IkeAuthenticateRequest,
    IkeKeysResponse,
    IkeStartRequest,
    IkeStartResponse,
    IntroduceRequest,
    IntroduceResponse,
    KeyExchangeRequest,
    ProveRequest,
    ProveResponse,
    PublicValueRequest,
    PublicValueResponse,
    RejectedWithFarewell,
    SaKeysRequest,
    SaKeysResponse,
)
from locum.ike.payloads1 import MAX_NONCE, MIN_NONCE
from locum.ike.registry import AuthenticationMethod1
from locum.ike.suites import Nonces, Phase1Suite
from locum.values import dataclass

N = TypeVar("N")

#: Bytes of our own nonce.
_NONCE = 32
_PSK = AuthenticationMethod1.PRE_SHARED_KEY
_ENCRYPTION = AuthenticationMethod1.RSA_ENCRYPTION


@dataclass(frozen=True, slots=True)
class _Own:
    """Who the terminal is in this session: an identity with its key, or a name that goes with a shared secret."""

    identification: Identification
    known: KnownIdentity | None = field(default=None, repr=False)


class Ike1Session(IkeSession):
    """One ISAKMP SA, from its SA payloads to SKEYID_d, SKEYID_a and SKEYID_e."""

    __slots__ = (
        "_disclosed",
        "_exchange",
        "_keys",
        "_nonce",
        "_offer",
        "_own",
        "_recipient",
        "_sa",
        "_secret",
        "_suite",
    )

    def __init__(self, databases: Databases, terminal: str) -> None:
        super().__init__(databases, terminal)
        self._offer: Offer1 | None = None
        self._suite: Phase1Suite | None = None
        #: The body of the initiator's SA payload, which both HASHes cover.
        self._sa = b""
        self._exchange: KeyExchange | None = None
        self._forget()

    def _forget(self) -> None:
        super()._forget()
        if self._exchange is not None:
            self._exchange.discard()
        self._exchange = None
        self._nonce = b""
        self._keys: Phase1Keys | None = None
        self._secret: KnownSecret | None = None
        self._own: _Own | None = None
        self._disclosed: Disclosed | None = None
        self._recipient: Recipient | None = None

    @property
    def _own_name(self) -> str:
        return self._own.identification.text if self._own is not None else ""

    # --- start --------------------------------------------------------------------------------------------

    def _negotiate(self, request: IkeStartRequest) -> IkeStartResponse:
        try:
            return self._choose(request)
        except NoProposalChosen:
            # What there was nothing for a moment ago may have been added since.
            if not self._databases.refresh():
                raise
            return self._choose(request)

    def _choose(self, request: IkeStartRequest) -> IkeStartResponse:
        view = self._peer_view(self._claimed_in_batch())
        if request.initiator:
            self._offer = self._first_that(
                view,
                lambda methods: self._databases.negotiator.offer1(
                    request.sa, methods, single=request.exchange is Exchange.AGGRESSIVE
                ),
            )
            body, group = self._offer.body, self._offer.first.group.id
            self._sa = body
        else:
            self._databases.negotiator.check_offer1(request.initiator_sa or request.sa)
            choice = self._first_that(
                view, lambda methods: self._databases.negotiator.choose1(request.sa, methods, request.group)
            )
            body, group = choice.body, choice.suite.group.id
            self._suite = choice.suite
            self._sa = request.initiator_sa or request.sa
        return IkeStartResponse(sa=b"" if body == request.sa else body, group=group)

    def _first_that(self, view: PeerView, negotiate: Callable[[tuple[AuthenticationMethod1, ...]], N]) -> N:
        """Negotiate with the methods that are possible: a shared key alone where there is one for this peer.

        A responder goes on to the others where the peer does not offer that. Raises: NoProposalChosen.
        """
        others = self._certificate_methods(view)
        if self._credentials.secret(view) is not None:
            attempts = [(_PSK,)] if self._request.initiator else [(_PSK,), others]
        elif self._credentials.secret_before_identity(view) is not None:
            attempts = [(*others, _PSK)]
        else:
            attempts = [others]
        allowed = [self._databases.negotiator.allowed_methods(methods) for methods in attempts]
        if not any(allowed):
            raise NoProposalChosen(
                f"terminal {self._terminal!r} has neither a fitting identity nor a pre-shared key for this peer; "
                "'locum secret add' or 'locum identity add' gives it one"
            )
        for methods in allowed[:-1]:
            try:
                return negotiate(methods)
            except NoProposalChosen:
                continue
        return negotiate(allowed[-1])

    def _certificate_methods(self, view: PeerView) -> tuple[AuthenticationMethod1, ...]:
        """What the terminal's identities can do towards this peer; a responder's at first to anybody."""
        found = []
        for known in self._identities(view):
            found += [method for method, kind in METHOD1_KINDS.items() if kind is known.kind]
            if known.may_encipher and self._can_encrypt(view):
                found.append(_ENCRYPTION)
        return tuple(dict.fromkeys(found))

    def _identities(self, view: PeerView) -> list[KnownIdentity]:
        anybody = not self._request.initiator and not view.identities
        return self._credentials.identities(view, anybody=anybody)

    def _can_encrypt(self, view: PeerView) -> bool:
        """True when there is a public key for the peer; a responder learns only later whose it has to be."""
        authenticator = self._databases.authenticator
        if not self._request.initiator:
            return bool(authenticator.pins)
        return bool(authenticator.encryption_keys(view.named, view.address))

    def _claimed_in_batch(self) -> Identification | None:
        """Aggressive mode: whom the peer says it is comes with what the first operations are asked for."""
        if self._request.exchange is not Exchange.AGGRESSIVE:
            return None
        for request in self._batch:
            body = b""
            if isinstance(request, ProveRequest) and not self._request.initiator:
                body = request.remote_identification
            elif isinstance(request, IkeAuthenticateRequest):
                body = request.identification
            if body:
                return parse_identification(body)
        return None

    # --- generate_key -------------------------------------------------------------------------------------

    @property
    def _method(self) -> AuthenticationMethod1 | None:
        """The method, as far as it is settled: in aggressive mode our offer has only one."""
        if self._suite is not None:
            return self._suite.method
        if self._offer is not None and self._request.exchange is Exchange.AGGRESSIVE:
            return self._offer.first.method
        return None

    def _public_value(self, request: PublicValueRequest) -> PublicValueResponse:
        offer = self._due(self._offer, request)
        group = ike_key_exchange.find(request.group)
        if self._request.exchange is Exchange.MAIN:
            self._suite = self._databases.negotiator.accept1(offer, request.sa)
            chosen = self._suite.group
        else:
            chosen = offer.first.group
        if group is not chosen:
            raise Refused(f"a public value in {group.name}, but {chosen.name} was chosen")
        self._exchange = KeyExchange(group)
        nonce = b"" if self._method is _ENCRYPTION else self._own_nonce()
        return PublicValueResponse(public_value=self._exchange.public_value, nonce=nonce)

    def _own_nonce(self) -> bytes:
        if not self._nonce:
            self._nonce = self._databases.random(_NONCE)
        return self._nonce

    def _make_keys(self, request: KeyExchangeRequest) -> IkeKeysResponse:
        initiator = self._request.initiator
        cookies = Cookies(initiator=request.initiator_spi, responder=request.responder_spi)
        for cookie in (cookies.initiator, cookies.responder):
            if len(cookie) != SPI_LENGTH or cookie == NO_SPI:
                raise Refused(f"a cookie of {len(cookie)} bytes, or of zeros")
        if initiator and self._request.exchange is Exchange.AGGRESSIVE:
            self._suite = self._databases.negotiator.accept1(self._due(self._offer, request), request.sa)
        suite = self._due(self._suite, request)
        if request.group != suite.group.id:
            raise Misbehaved(f"a public value in group {request.group}, but {suite.group.name} was chosen")
        nonces = self._nonces(request)
        value, secret = self._complete(request, suite)
        values = (value, request.public_value) if initiator else (request.public_value, value)
        self._keys = Phase1Keys(
            suite.prf,
            self._skeyid(suite, nonces, cookies, secret),
            secret,
            cookies=cookies,
            values=PublicValues(initiator=values[0], responder=values[1]),
            sa=self._sa,
        )
        hidden = initiator or suite.method is _ENCRYPTION
        return IkeKeysResponse(
            keys=self._keys.skeyid_e,
            public_value=b"" if initiator else value,
            nonce=b"" if hidden else self._own_nonce(),
        )

    def _nonces(self, request: KeyExchangeRequest) -> Nonces:
        theirs = request.peer_nonce
        if self._method is _ENCRYPTION:
            theirs = self._due(self._disclosed, request).nonce
            if not self._nonce:
                raise Refused("with public key encryption our own nonce comes first")
        if not MIN_NONCE <= len(theirs) <= MAX_NONCE:
            raise Misbehaved(f"a nonce of {len(theirs)} bytes")
        ours = self._own_nonce()
        first, second = (ours, theirs) if self._request.initiator else (theirs, ours)
        return Nonces(initiator=first, responder=second)

    def _complete(self, request: KeyExchangeRequest, suite: Phase1Suite) -> tuple[bytes, bytes]:
        """Our public value and the shared secret."""
        if not self._request.initiator:
            return ike_key_exchange.respond(suite.group, request.public_value)
        exchange = self._due(self._exchange, request)
        if exchange.group is not suite.group:
            raise Misbehaved(f"{suite.group.name} was chosen where {exchange.group.name} had been offered")
        self._exchange = None
        return exchange.public_value, exchange.complete(request.public_value)

    def _skeyid(self, suite: Phase1Suite, nonces: Nonces, cookies: Cookies, secret: bytes) -> bytes:
        if suite.method is _PSK:
            self._secret = self._secret or self._find_secret()
            return keying1.skeyid_for_pre_shared_key(suite.prf, nonces, self._secret.secret)
        if suite.method is _ENCRYPTION:
            return keying1.skeyid_for_public_key_encryption(suite.prf, nonces, cookies)
        return keying1.skeyid_for_signatures(suite.prf, nonces, secret)

    def _find_secret(self) -> KnownSecret:
        """The pre-shared key with the peer: by what it claims, in main mode by what is known without that."""
        view = self._peer_view(self._claimed_in_batch())
        return self._found(lambda: self._credentials.secret_before_identity(view), "no pre-shared key")

    # --- public key encryption ----------------------------------------------------------------------------

    def _disclose(self, request: DisclosureRequest) -> DisclosureResponse:
        if self._method is not _ENCRYPTION or self._keys is not None:
            raise Refused("nothing is disclosed but with public key encryption, and before there are keys")
        if self._request.initiator:
            known = self._due(self._own, request).known
        else:
            suite = self._due(self._suite, request)
            known = find_recipient(self._enciphering(), request.certificate_hash, suite.prf)
            self._own = self._own_with(known) if known is not None else None
        self._disclosed = disclose(known, request.identification, request.nonce, self._databases.random)
        return DisclosureResponse()

    def _enciphering(self) -> list[KnownIdentity]:
        return [known for known in self._identities(self._peer_view()) if known.may_encipher]

    def _own_with(self, known: KnownIdentity) -> _Own | None:
        identification = self._credentials.identification_with(known)
        return _Own(identification, known) if identification is not None else None

    def _introduce_encrypted(self, request: EncryptedIntroductionRequest) -> EncryptedIntroductionResponse:
        if self._method is not _ENCRYPTION or self._keys is not None:
            raise Refused("an identity is encrypted with public key encryption only, and before there are keys")
        if self._request.initiator:
            self._own = self._found(self._own_enciphering, "no identity with an RSA key")
            self._recipient = self._found(self._wanted_recipient, "no pinned RSA key to encrypt to")
        else:
            self._recipient = self._recipient_of(
                self._due(self._disclosed, request), self._due(self._own, request)
            )
        own = self._due(self._own, request)
        key = self._recipient.key
        return EncryptedIntroductionResponse(
            identification=encrypt(key, own.identification.body), nonce=encrypt(key, self._own_nonce())
        )

    def _own_enciphering(self) -> _Own | None:
        known = next(iter(self._enciphering()), None)
        return self._own_with(known) if known is not None else None

    def _wanted_recipient(self) -> Recipient | None:
        view = self._peer_view()
        found = self._databases.authenticator.encryption_keys(view.named, view.address)
        return Recipient(found[0][1], found[0][0]) if found else None

    def _recipient_of(self, disclosed: Disclosed, own: _Own) -> Recipient:
        """The peer's key; for somebody unknown our own, so that nobody can tell one from the other."""
        claimed = disclosed.claimed.text if disclosed.claimed is not None else ""
        found = self._databases.authenticator.encryption_keys(claimed, "") if claimed else ()
        if found:
            return Recipient(found[0][1], found[0][0])
        assert own.known is not None
        return Recipient(PublicKey.from_der(own.known.identity.key.public_key))

    # --- authenticate -------------------------------------------------------------------------------------

    @property
    def _proves_first(self) -> bool:
        """In main mode the initiator, in aggressive mode the responder proves itself before it judges."""
        return self._request.initiator == (self._request.exchange is Exchange.MAIN)

    def _introduce(self, request: IntroduceRequest) -> IntroduceResponse:
        offer = self._due(self._offer, request)
        if self._request.exchange is not Exchange.AGGRESSIVE or self._keys is not None:
            raise Refused("only the initiator of aggressive mode introduces itself before anything is known")
        if offer.first.method is _ENCRYPTION:
            raise Refused("with public key encryption an identity is not said in clear")
        self._own = self._choose_own(offer.first.method, ())
        return IntroduceResponse(identification=self._own.identification.body)

    def _choose_own(
        self, method: AuthenticationMethod1, authorities: tuple[bytes, ...], claimed: Identification | None = None
    ) -> _Own:
        """Who the terminal is, by `method`, towards the peer as it is known now. Raises: Refused."""
        if method is _PSK:
            self._secret = self._secret or self._find_secret()
            return _Own(self._credentials.identification_of(self._secret))

        def find() -> _Own | None:
            view = self._peer_view(claimed)
            fitting = [each for each in self._identities(view) if each.kind is METHOD1_KINDS[method]]
            anchors = self._databases.authenticator.paths.anchors
            known = next(iter(preferred(fitting, authorities, anchors)), None)
            return self._own_with(known) if known is not None else None

        return self._found(find, "no fitting identity")

    def _prove(self, request: ProveRequest) -> ProveResponse:
        keys, suite = self._due(self._keys, request), self._due(self._suite, request)
        if not self._proves_first:
            self._due(self._judgement, request)
        if self._own is None:
            claimed = self._claimed_in_batch()
            self._own = self._choose_own(suite.method, request.authorities, claimed)
        own = self._own
        self._check_not_peers(own.identification.text)
        proof = keys.hash_of(own.identification.body, initiator=self._request.initiator)
        certificates: tuple[bytes, ...] = ()
        if suite.method in METHOD1_KINDS:
            assert own.known is not None
            proof = sign1(suite.method, suite.prf, own.known.identity.key, proof)
            certificates = own.known.identity.certificates
        return ProveResponse(
            identification=b"" if suite.method is _ENCRYPTION else own.identification.body,
            certificates=certificates,
            method=suite.method,
            proof=proof,
        )

    def _authenticate(self, request: IkeAuthenticateRequest) -> Verdict:
        keys, suite = self._due(self._keys, request), self._due(self._suite, request)
        if self._proves_first and ProveRequest not in self._performed:
            raise Refused("this end proves itself before it judges the other")
        if request.method != suite.method:
            raise Refused(f"authentication method {request.method}, but {suite.method.name} was agreed on")
        verdict = self._verdict_on(request, keys, suite)
        if verdict.accepted or not request.farewell:
            return verdict
        if not (self._request.initiator and self._request.exchange is Exchange.MAIN):
            raise Refused("only who ends main mode has to take leave of a peer that it turns down")
        return RejectedWithFarewell(
            authentic=verdict.authentic,
            allowed=verdict.allowed,
            identity=verdict.identity,
            reason=verdict.reason,
            fault=verdict.fault,
            farewell=keys.farewell(request.farewell),
        )

    def _verdict_on(self, request: IkeAuthenticateRequest, keys: Phase1Keys, suite: Phase1Suite) -> Verdict:
        if suite.method is _ENCRYPTION:
            disclosed = self._due(self._disclosed, request)
            return self._judged(lambda: self._judge_disclosed(request, keys, disclosed))
        return self._judged(lambda: self._judge(request, keys, suite))

    def _judge(self, request: IkeAuthenticateRequest, keys: Phase1Keys, suite: Phase1Suite) -> Judgement:
        try:
            claimed = parse_identification(request.identification)
        except DecodeError as error:
            raise Rejected(Fault.WRONG_NAME, f"who the peer is: {error}") from None
        due = keys.hash_of(claimed.body, initiator=not self._request.initiator)
        if suite.method is not _PSK:
            databases = self._databases
            candidates = databases.authenticator.prove_ike(request.chain, claimed, now=databases.now())
            proven = check_possession(
                candidates, lambda key: verify1(suite.method, suite.prf, key, request.proof, due)
            )
            return Judgement(proven.identities, claimed.text)
        assert self._secret is not None
        if not constant_time_equal(due, request.proof):
            raise Rejected(Fault.BAD_SIGNATURE, f"{claimed.text} does not know the pre-shared key")
        identity = self._secret.proves(claimed.text, self._request.peer_address)
        if not identity:
            raise Rejected(
                Fault.WRONG_NAME,
                f"the peer says it is {claimed.text}, but has the pre-shared key of {self._secret.peer}",
            )
        self._check_own_secret(claimed, self._secret)
        return Judgement((identity,), claimed.text)

    def _check_own_secret(self, claimed: Identification, used: KnownSecret) -> None:
        """In main mode the key was chosen before the peer said who it is: it must be the one for that.

        Somebody who has the key for everybody must not pass for a peer that has its own. Raises: Rejected.
        """
        due = self._credentials.secret(PeerView((claimed.text,), self._request.peer_address))
        if due is not None and due.peer != used.peer and used.peer.matches(claimed.text):
            raise Rejected(Fault.WRONG_NAME, f"{claimed.text} has a pre-shared key of its own, and used another")

    def _judge_disclosed(
        self, request: IkeAuthenticateRequest, keys: Phase1Keys, disclosed: Disclosed
    ) -> Judgement:
        """With public key encryption: who could decrypt our nonce has the pinned key that it was encrypted to."""
        due = keys.hash_of(disclosed.body, initiator=not self._request.initiator)
        pin = self._recipient.pin if self._recipient is not None else None
        if not constant_time_equal(due, request.proof) or pin is None or disclosed.claimed is None:
            raise Rejected(Fault.BAD_SIGNATURE, "the peer did not prove to hold a key that is pinned for it")
        claimed = disclosed.claimed.text
        if not pin.is_for(claimed):
            raise Rejected(Fault.WRONG_NAME, f"the peer says it is {claimed}, for which its key is not pinned")
        return Judgement((pin.identity, claimed), claimed)

    # --- request_key --------------------------------------------------------------------------------------

    def _sa_keys(self, request: SaKeysRequest) -> SaKeysResponse:
        keys = self._due(self._keys, request)
        self._due(self._judgement, request)
        if ProveRequest not in self._performed:
            raise Refused("the terminal's own proof comes first")
        if request.child_encryption or request.child_integrity:
            raise Refused("in IKEv1 quick mode's keys are made by the terminal")
        return SaKeysResponse(keys=keys.all)

    handlers: ClassVar[dict[type[Request], Callable[[Any, Any], Response]]] = {
        IkeStartRequest: IkeSession._begin,
        PublicValueRequest: _public_value,
        KeyExchangeRequest: _make_keys,
        DisclosureRequest: _disclose,
        EncryptedIntroductionRequest: _introduce_encrypted,
        IntroduceRequest: _introduce,
        ProveRequest: _prove,
        IkeAuthenticateRequest: _authenticate,
        SaKeysRequest: _sa_keys,
    }
