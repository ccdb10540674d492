"""`Ike2Session`: performs the four operations of IKEv2 (RFC 7296; RFC 7427, 8784, 9242, 9370).

Never knows a message but IKE_SA_INIT. The order is that of the table in `ike.operations`: an initiator proves
itself before it judges, a responder after; SK_d, or the keys of the first CHILD_SA, come after both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from functools import partial
from typing import Any, ClassVar

from locum.authority import ike_key_exchange
from locum.authority.ike2_keys import KeySchedule
from locum.authority.ike2_messages import Half, Spis, check_init_message
from locum.authority.ike_authentication import check_possession
from locum.authority.ike_credentials import preferred
from locum.authority.ike_identities import Identification, parse_identification
from locum.authority.ike_key_exchange import KeyExchange
from locum.authority.ike_negotiation import Offer2
from locum.authority.ike_secrets import KnownPpk, KnownSecret
from locum.authority.ike_session import IkeSession, Judgement
from locum.authority.ike_signatures import find_signer, verify2
from locum.authority.session import Databases
from locum.crypto.asymmetric.certificates import Rejected
from locum.crypto.symmetric import constant_time_equal
from locum.errors import DecodeError, Misbehaved, Refused
from locum.handshake import Fault, Request, Response, Verdict
from locum.ike.algorithms import Group
from locum.ike.header import NO_SPI, SPI_LENGTH
from locum.ike.operations import (
    AdditionalKeyExchangeRequest,
    IkeAuthenticateRequest,
    IkeKeysResponse,
    IkeStartRequest,
    IkeStartResponse,
    KeyExchangeRequest,
    ProveRequest,
    ProveResponse,
    PublicValueRequest,
    PublicValueResponse,
    SaKeysRequest,
    SaKeysResponse,
)
from locum.ike.payloads2 import MAX_NONCE, MIN_NONCE
from locum.ike.registry import ADDITIONAL_KEY_EXCHANGES, AuthenticationMethod2, TransformType
from locum.ike.suites import IkeSuite, Nonces
from locum.values import dataclass

_ADDITIONAL = len(ADDITIONAL_KEY_EXCHANGES)
#: Bytes of one direction's encryption keying material, or integrity key, of a CHILD_SA at most.
_MAX_CHILD_KEY = 64


@dataclass(frozen=True, slots=True)
class _Accepted(Judgement):
    """As `Judgement`, with the pre-shared key and the PPK by which it was proven, None where there was none."""

    secret: KnownSecret | None = field(default=None, repr=False)
    ppk: KnownPpk | None = None


@dataclass(frozen=True, slots=True)
class _OwnProof:
    """How to prove who the terminal is: what the payloads say, and what makes AUTH data of signed octets."""

    identification: Identification
    method: AuthenticationMethod2
    prove: Callable[[bytes], bytes] = field(repr=False)
    certificates: tuple[bytes, ...] = ()


class Ike2Session(IkeSession):
    """One IKE SA from IKE_SA_INIT to the end of IKE_AUTH."""

    __slots__ = ("_exchange", "_offer", "_own", "_peer", "_ppk", "_remaining", "_said", "_schedule", "_suite")

    #: An initiator's public value may come again, once, in the group that the responder wants.
    repeated: ClassVar[dict[type[Request], int]] = {
        PublicValueRequest: 2 + _ADDITIONAL,
        AdditionalKeyExchangeRequest: _ADDITIONAL,
    }

    def __init__(self, databases: Databases, terminal: str) -> None:
        super().__init__(databases, terminal)
        self._offer: Offer2 | None = None
        self._suite: IkeSuite | None = None
        #: Groups of the additional key exchanges that are still to come.
        self._remaining: list[Group] = []
        self._exchange: KeyExchange | None = None
        #: Who the terminal has said it is.
        self._said = ""
        self._forget()

    @property
    def _own_name(self) -> str:
        return self._said

    def _forget(self) -> None:
        super()._forget()
        if self._exchange is not None:
            self._exchange.discard()
        self._exchange = None
        self._schedule: KeySchedule | None = None
        self._own: Half | None = None
        self._peer: Half | None = None
        #: The PPK that an initiator has offered.
        self._ppk: KnownPpk | None = None

    # --- start --------------------------------------------------------------------------------------------

    def _negotiate(self, request: IkeStartRequest) -> IkeStartResponse:
        negotiator = self._databases.negotiator
        if request.initiator:
            self._offer = negotiator.offer2(request.sa)
            body = self._offer.body
            return IkeStartResponse(sa=b"" if body == request.sa else body, group=self._offer.group)
        choice = negotiator.choose2(request.sa, request.group)
        if choice.suite.group.id != request.group:
            return IkeStartResponse(group=choice.suite.group.id, other_group_wanted=True)
        self._agree(choice.suite)
        return IkeStartResponse(sa=choice.body, group=choice.suite.group.id)

    def _agree(self, suite: IkeSuite) -> None:
        self._suite = suite
        self._remaining = [group for group in suite.additional if group is not None]

    # --- generate_key -------------------------------------------------------------------------------------

    def _public_value(self, request: PublicValueRequest) -> PublicValueResponse:
        if self._offer is None:
            raise Refused("a responder's public value is an answer")
        group = ike_key_exchange.find(request.group)
        if self._schedule is not None:
            if self._exchange is not None or self._remaining[:1] != [group]:
                raise Refused(f"an additional key exchange in {group.name} has no turn now")
        else:
            offered = (each for proposal in self._offer.sa.proposals for each in proposal.transforms)
            if not any(each.type == TransformType.KEY_EXCHANGE and each.id == group.id for each in offered):
                raise Refused(f"{group.name} is not among the groups that are allowed")
            if self._exchange is not None:
                self._begin_anew(self._exchange, group)
        self._exchange = KeyExchange(group)
        return PublicValueResponse(public_value=self._exchange.public_value)

    def _begin_anew(self, exchange: KeyExchange, group: Group) -> None:
        """INVALID_KE_PAYLOAD: once, and in another group."""
        if exchange.group is group or self._performed[PublicValueRequest] > 2:
            raise Misbehaved("the peer asks again and again for another group")
        exchange.discard()

    def _keys(self, request: KeyExchangeRequest) -> IkeKeysResponse:
        initiator = self._request.initiator
        self._check_values(request)
        if self._offer is not None:
            self._agree(self._databases.negotiator.accept2(self._offer, request.sa))
        elif request.sa:
            raise Refused("the authority itself has chosen the SA payload")
        suite = self._due(self._suite, request)
        if request.group != suite.group.id:
            raise Misbehaved(f"a public value in group {request.group}, but {suite.group.name} was chosen")
        value, secret = self._complete(suite.group, request.public_value, request)
        own = Half(group=request.group, public_value=value, nonce=request.own_nonce)
        peer = Half(group=request.group, public_value=request.public_value, nonce=request.peer_nonce)
        first, second = (own, peer) if initiator else (peer, own)
        spis = Spis(initiator=request.initiator_spi, responder=request.responder_spi)
        nonces = Nonces(initiator=first.nonce, responder=second.nonce)
        self._own, self._peer = own, peer
        self._schedule = KeySchedule(suite, nonces, spis, secret)
        return IkeKeysResponse(keys=self._schedule.protection, public_value=b"" if initiator else value)

    @staticmethod
    def _check_values(request: KeyExchangeRequest) -> None:
        if not MIN_NONCE <= len(request.peer_nonce) <= MAX_NONCE:
            raise Misbehaved(f"a nonce of {len(request.peer_nonce)} bytes")
        if not MIN_NONCE <= len(request.own_nonce) <= MAX_NONCE:
            raise Refused(f"a nonce of {len(request.own_nonce)} bytes")
        for spi in (request.initiator_spi, request.responder_spi):
            if len(spi) != SPI_LENGTH or spi == NO_SPI:
                raise Refused(f"an SPI of {len(spi)} bytes, or of zeros")

    def _additional(self, request: AdditionalKeyExchangeRequest) -> IkeKeysResponse:
        schedule = self._due(self._schedule, request)
        if not self._remaining or request.group != self._remaining[0].id:
            raise Misbehaved(f"an additional key exchange in group {request.group}, which was not agreed on")
        value, secret = self._complete(self._remaining[0], request.public_value, request)
        del self._remaining[0]
        schedule.add(secret)
        return IkeKeysResponse(keys=schedule.protection, public_value=b"" if self._request.initiator else value)

    def _complete(self, group: Group, peer_value: bytes, request: Request) -> tuple[bytes, bytes]:
        """Our public value and the shared secret."""
        if not self._request.initiator:
            return ike_key_exchange.respond(group, peer_value)
        exchange = self._due(self._exchange, request)
        if exchange.group is not group:
            raise Misbehaved(f"the peer's public value is in {group.name}, not in {exchange.group.name}")
        self._exchange = None
        return exchange.public_value, exchange.complete(peer_value)

    def _complete_schedule(self, request: Request) -> KeySchedule:
        """The keys after all key exchanges; nothing is proven before."""
        schedule = self._due(self._schedule, request)
        if self._remaining:
            raise Refused(f"{type(request).__name__}: an additional key exchange comes first")
        return schedule

    # --- authenticate: our own proof ----------------------------------------------------------------------

    def _prove(self, request: ProveRequest) -> ProveResponse:
        schedule = self._complete_schedule(request)
        initiator = self._request.initiator
        if not initiator:
            self._due(self._judgement, request)
        own = self._due(self._own, request)
        check_init_message(request.message, own, schedule.spis, from_initiator=initiator)
        if initiator:
            self._insist_on(request.remote_identification)
        proof = self._found(lambda: self._own_proof(request), "neither a fitting identity nor a pre-shared key")
        self._said = proof.identification.text
        self._check_not_peers(self._said)
        if initiator:
            self._ppk = self._choose_ppk(peer_supports=request.peer_supports_ppk)
            ppk = self._ppk
        else:
            ppk = self._accepted.ppk

        def prove(secret: bytes | None) -> bytes:
            octets = schedule.signed_octets(
                by_initiator=initiator,
                message=request.message,
                identification=proof.identification.body,
                intermediate=request.intermediate,
                ppk=secret,
            )
            return proof.prove(octets)

        optional = initiator and ppk is not None and not ppk.required
        return ProveResponse(
            identification=proof.identification.body,
            certificates=proof.certificates,
            method=proof.method,
            proof=prove(ppk.secret if ppk is not None else None),
            ppk_identity=ppk.identity if initiator and ppk is not None else b"",
            proof_without_ppk=prove(None) if optional else b"",
        )

    def _own_proof(self, request: ProveRequest) -> _OwnProof | None:
        """A pre-shared key comes first, unless the peer has just proven itself with a certificate."""
        if self._request.initiator:
            return self._by_secret(self._credentials.secret(self._peer_view())) or self._by_identity(request)
        if self._accepted.secret is not None:
            return self._by_secret(self._accepted.secret)
        return self._by_identity(request) or self._by_secret(self._credentials.secret(self._peer_view()))

    def _by_secret(self, known: KnownSecret | None) -> _OwnProof | None:
        if known is None:
            return None
        assert self._suite is not None
        prf = self._suite.prf
        return _OwnProof(
            self._credentials.identification_of(known),
            AuthenticationMethod2.SHARED_KEY,
            lambda octets: known.auth(prf, octets),
        )

    def _by_identity(self, request: ProveRequest) -> _OwnProof | None:
        options = self._databases.ike_options
        identities = self._credentials.identities(self._peer_view())
        for known in preferred(identities, request.authorities, self._databases.authenticator.paths.anchors):
            signer = find_signer(
                known.kind, request.hashes, legacy_sha1=options.legacy_sha1, rsa_pss=options.rsa_pss
            )
            identification = self._credentials.identification_with(known)
            if signer is None or identification is None:
                continue
            identity = known.identity
            return _OwnProof(
                identification,
                signer.method,
                partial(signer.sign, identity.key),
                identity.certificates,
            )
        return None

    # --- post-quantum pre-shared keys ---------------------------------------------------------------------

    def _ppks(self, claimed: Identification | None = None) -> tuple[KnownPpk, ...]:
        view = self._peer_view(claimed)
        return self._databases.ppks.all_for(self._terminal, view.named, view.address)

    def _choose_ppk(self, *, peer_supports: bool) -> KnownPpk | None:
        """The initiator's. Raises: Refused when the peer knows none and one is required."""
        known = self._ppks()
        if peer_supports:
            # One that is required goes before others.
            return min(known, key=lambda each: not each.required, default=None)
        if any(each.required for each in known):
            raise Refused("a post-quantum pre-shared key is required, and the peer does not know how to use one")
        return None

    def _ppk_of(self, request: IkeAuthenticateRequest, claimed: Identification) -> tuple[KnownPpk | None, bytes]:
        """The PPK that the peer has used, and the proof that goes with it or without. Raises: Rejected."""
        if self._request.initiator:
            if request.ppk_confirmed and self._ppk is None:
                raise Rejected(Fault.UNSUPPORTED, "the peer confirms a PPK that was not offered")
            if request.ppk_confirmed:
                return self._ppk, request.proof
            if any(each.required for each in (*self._ppks(), *self._ppks(claimed))):
                raise Rejected(Fault.UNSUPPORTED, "the peer has done without the PPK, which is required")
            return None, request.proof
        known = self._ppks(claimed)
        used = next(
            (each for each in known if request.ppk_identity and each.identity == request.ppk_identity), None
        )
        if used is not None:
            return used, request.proof
        if any(each.required for each in known):
            raise Rejected(Fault.UNSUPPORTED, "the peer has not used the PPK that is required")
        if not request.ppk_identity:
            return None, request.proof
        if not request.proof_without_ppk:
            raise Rejected(Fault.UNSUPPORTED, "the peer's PPK is not known, and it does not do without")
        return None, request.proof_without_ppk

    # --- authenticate: the peer's -------------------------------------------------------------------------

    def _authenticate(self, request: IkeAuthenticateRequest) -> Verdict:
        schedule = self._complete_schedule(request)
        initiator = self._request.initiator
        if initiator and ProveRequest not in self._performed:
            raise Refused("an initiator proves itself first")
        peer = self._due(self._peer, request)
        check_init_message(request.message, peer, schedule.spis, from_initiator=not initiator)
        return self._judged(lambda: self._judge(request, schedule))

    def _judge(self, request: IkeAuthenticateRequest, schedule: KeySchedule) -> Judgement:
        try:
            claimed = parse_identification(request.identification)
        except DecodeError as error:
            raise Rejected(Fault.WRONG_NAME, f"who the peer is: {error}") from None
        ppk, proof = self._ppk_of(request, claimed)
        octets = schedule.signed_octets(
            by_initiator=not self._request.initiator,
            message=request.message,
            identification=claimed.body,
            intermediate=request.intermediate,
            ppk=ppk.secret if ppk is not None else None,
        )
        if request.method == AuthenticationMethod2.SHARED_KEY:
            return self._judge_secret(claimed, proof, octets, ppk)
        return self._judge_signature(request, claimed, proof, octets, ppk)

    def _judge_secret(
        self, claimed: Identification, proof: bytes, octets: bytes, ppk: KnownPpk | None
    ) -> Judgement:
        assert self._suite is not None
        known = self._credentials.secret(self._peer_view(claimed))
        if known is None:
            raise Rejected(Fault.UNKNOWN_ISSUER, f"there is no pre-shared key for {claimed.text}")
        due = known.auth(self._suite.prf, octets)
        if not constant_time_equal(due, proof):
            raise Rejected(Fault.BAD_SIGNATURE, f"{claimed.text} does not know the pre-shared key")
        identities = (known.proves(claimed.text, self._request.peer_address),)
        return self._accept(_Accepted(identities, claimed.text, known, ppk))

    def _judge_signature(
        self,
        request: IkeAuthenticateRequest,
        claimed: Identification,
        proof: bytes,
        octets: bytes,
        ppk: KnownPpk | None,
    ) -> Judgement:
        databases = self._databases
        legacy_sha1 = databases.ike_options.legacy_sha1
        proven = check_possession(
            databases.authenticator.prove_ike(request.chain, claimed, now=databases.now()),
            lambda key: verify2(request.method, key, proof, octets, legacy_sha1=legacy_sha1),
        )
        return self._accept(_Accepted(proven.identities, claimed.text, ppk=ppk))

    def _accept(self, accepted: _Accepted) -> _Accepted:
        """What has been proven is more than what was claimed; a PPK may be required for that. Raises: Rejected."""
        required = [
            each
            for identity in accepted.identities
            for each in self._databases.ppks.all_for(self._terminal, identity, self._request.peer_address)
            if each.required
        ]
        if required and accepted.ppk not in required:
            raise Rejected(Fault.UNSUPPORTED, "the peer has not used the PPK that is required")
        return accepted

    # --- request_key --------------------------------------------------------------------------------------

    @property
    def _accepted(self) -> _Accepted:
        assert isinstance(self._judgement, _Accepted)
        return self._judgement

    def _sa_keys(self, request: SaKeysRequest) -> SaKeysResponse:
        schedule = self._complete_schedule(request)
        self._due(self._judgement, request)
        if ProveRequest not in self._performed:
            raise Refused("the terminal's own proof comes first")
        if (
            not 0 <= request.child_encryption <= _MAX_CHILD_KEY
            or not 0 <= request.child_integrity <= _MAX_CHILD_KEY
        ):
            raise Refused(f"keying material of more than {_MAX_CHILD_KEY} bytes")
        ppk = self._accepted.ppk
        secret = ppk.secret if ppk is not None else None
        length = 2 * (request.child_encryption + request.child_integrity)
        keys = schedule.child_keymat(secret, length) if length else schedule.sk_d(secret)
        return SaKeysResponse(keys=keys, ppk_used=ppk is not None and not self._request.initiator)

    handlers: ClassVar[dict[type[Request], Callable[[Any, Any], Response]]] = {
        IkeStartRequest: IkeSession._begin,
        PublicValueRequest: _public_value,
        KeyExchangeRequest: _keys,
        AdditionalKeyExchangeRequest: _additional,
        ProveRequest: _prove,
        IkeAuthenticateRequest: _authenticate,
        SaKeysRequest: _sa_keys,
    }
