"""Whole IKE handshakes of two authorities by their operations alone, without engines and networks, for tests.

Each `Play` is one handshake: what a terminal would pass on between its peer and its authority is passed on here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support import pki
from tests.support.exchange import ALLOW_ALL

from locum.authority.databases import Identity, PinnedKey, SharedSecret, TrustMaterial
from locum.authority.local import LocalAuthority, LocalSession
from locum.handshake import PeerChain, Request, Response, Verdict
from locum.ike import keying2
from locum.ike.algorithms import Group
from locum.ike.header import HEADER_LENGTH, NO_SPI, Header, write_chain
from locum.ike.operations import (
    AdditionalKeyExchangeRequest,
    DisclosureRequest,
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
    SaKeysRequest,
    SaKeysResponse,
)
from locum.ike.policy import IkePolicy, Phase1Policy
from locum.ike.proposals1 import offer_phase1
from locum.ike.proposals2 import offer_ike
from locum.ike.registry import AuthenticationMethod1, ExchangeType, Flags2, PayloadType2, SignatureHash, Version
from locum.keys.file import FileKey
from locum.wire.cursor import Writer

LEFT, RIGHT = "left-terminal", "right-terminal"
LEFT_NAME, RIGHT_NAME = "left.example.com", "right.example.com"
LEFT_ADDRESS, RIGHT_ADDRESS = "192.0.2.1", "192.0.2.2"
SECRET = b"correct horse battery staple"
SPI_I, SPI_R = b"initspi1", b"respspi2"
NONCE_I, NONCE_R = bytes(range(32)), bytes(range(100, 132))
ALL_HASHES = tuple(int(each) for each in SignatureHash if each is not SignatureHash.SHA1)


def body_of(payload: Any) -> bytes:
    """A payload's body."""
    writer = Writer()
    payload.write(writer)
    return writer.getvalue()


def identity(name: str, kind: str = "p256", issuer: pki.Issued | None = None, **options: Any) -> Identity:
    """An identity whose certificate is for `name`, issued by `pki.ca()` unless by somebody else."""
    issued = pki.leaf(issuer or pki.ca(), kind, (name,), slot=name, subject=name, purposes=None)
    return Identity(name=kind, certificates=issued.chain, key=FileKey.from_pem(issued.key_pem), **options)


def authority(**options: Any) -> LocalAuthority:
    """An authority that trusts `pki.ca()` and lets everybody reach everything, unless `options` say otherwise."""
    options.setdefault("trust", TrustMaterial(anchors=(pki.ca().pem,)))
    options.setdefault("policy", ALLOW_ALL)
    options.setdefault("now", lambda: pki.EPOCH)
    return LocalAuthority(**options)


def psk_pair(**options: Any) -> tuple[LocalAuthority, LocalAuthority]:
    """Two authorities that share a secret, each for a terminal of its own."""
    return (
        authority(secrets=(SharedSecret(terminal=LEFT, peer=f"dns:{RIGHT}", secret=SECRET),), **options),
        authority(secrets=(SharedSecret(terminal=RIGHT, peer=f"dns:{LEFT}", secret=SECRET),), **options),
    )


def certificate_pair(kind: str = "p256", **options: Any) -> tuple[LocalAuthority, LocalAuthority]:
    """Two authorities with an identity each, and the certificate authority in common."""
    return (
        authority(identities=(identity(LEFT_NAME, kind),), **options),
        authority(identities=(identity(RIGHT_NAME, kind),), **options),
    )


def encryption_pair(**options: Any) -> tuple[LocalAuthority, LocalAuthority]:
    """Two authorities with RSA identities, each of which has pinned the other's key."""
    pairs = ((LEFT_NAME, RIGHT_NAME), (RIGHT_NAME, LEFT_NAME))
    made = []
    for own, other in pairs:
        peer = pki.leaf(pki.ca(), "rsa", (other,), slot=other, subject=other, purposes=None)
        pins = (PinnedKey(name="the-other", key=peer.public_pem, peers=(f"dns:{other}",)),)
        made.append(authority(trust=TrustMaterial(pinned=pins), identities=(identity(own, "rsa"),), **options))
    return made[0], made[1]


def init_message(
    *,
    from_initiator: bool,
    group: int,
    public_value: bytes,
    nonce: bytes,
    spis: tuple[bytes, bytes] = (SPI_I, SPI_R),
    **changes: Any,
) -> bytes:
    """An IKE_SA_INIT message without its SA payload; `changes` are fields of the header."""
    first, payloads = write_chain(
        (
            (PayloadType2.KEY_EXCHANGE, group.to_bytes(2, "big") + b"\0\0" + public_value),
            (PayloadType2.NONCE, nonce),
        )
    )
    header = Header(
        initiator_spi=spis[0],
        responder_spi=NO_SPI if from_initiator else spis[1],
        next_payload=first,
        version=Version.IKE_2,
        exchange_type=ExchangeType.IKE_SA_INIT,
        flags=Flags2.INITIATOR if from_initiator else Flags2.RESPONSE,
        length=HEADER_LENGTH + len(payloads),
    )
    writer = Writer()
    header._replace(**changes).write(writer)
    return writer.getvalue() + payloads


def start2(*, initiator: bool, policy: IkePolicy | None = None, **changes: Any) -> IkeStartRequest:
    """How a session of IKEv2 begins; a responder is shown what the initiator of the same policy offers."""
    chosen = policy or IkePolicy()
    request = IkeStartRequest(
        exchange=Exchange.IKE_2,
        initiator=initiator,
        sa=body_of(offer_ike(chosen)),
        group=0 if initiator else chosen.groups[0].id,
        peer_address=RIGHT_ADDRESS if initiator else LEFT_ADDRESS,
    )
    return replace(request, **changes)


@dataclass
class Play2:
    """IKEv2 between the terminals LEFT, the initiator, and RIGHT; every step is a method, `run` plays them all."""

    left: LocalAuthority
    right: LocalAuthority
    policy: IkePolicy = field(default_factory=IkePolicy)
    remote_identity: str = f"dns:{RIGHT}"
    local_identity: str = ""
    hashes: tuple[int, ...] = ALL_HASHES
    ppk: bool = False
    child: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self.initiator: LocalSession = self.left.open(LEFT)
        self.responder: LocalSession = self.right.open(RIGHT)
        self.intermediate: list[bytes] = []
        self.protection: list[tuple[bytes, bytes]] = []

    @property
    def group(self) -> Group:
        """The group of the first key exchange."""
        return self.policy.groups[0]

    def init(self) -> None:
        """IKE_SA_INIT."""
        start, value = self.initiator.perform(
            [
                start2(
                    initiator=True,
                    policy=self.policy,
                    remote_identity=self.remote_identity,
                    local_identity=self.local_identity,
                ),
                PublicValueRequest(group=self.group.id),
            ]
        )
        assert isinstance(start, IkeStartResponse)
        assert isinstance(value, PublicValueResponse)
        self.value_i = value.public_value
        spis = {"initiator_spi": SPI_I, "responder_spi": SPI_R, "group": self.group.id}
        chosen, keys = self.responder.perform(
            [
                start2(
                    initiator=False,
                    policy=self.policy,
                    sa=start.sa or start2(initiator=True, policy=self.policy).sa,
                ),
                KeyExchangeRequest(public_value=self.value_i, peer_nonce=NONCE_I, own_nonce=NONCE_R, **spis),
            ]
        )
        assert isinstance(chosen, IkeStartResponse)
        assert isinstance(keys, IkeKeysResponse)
        self.value_r = keys.public_value
        self.responder_keys = keys.keys
        self.exchange = KeyExchangeRequest(
            public_value=self.value_r, peer_nonce=NONCE_R, own_nonce=NONCE_I, sa=chosen.sa, **spis
        )
        self.message_i = init_message(
            from_initiator=True, group=self.group.id, public_value=self.value_i, nonce=NONCE_I
        )
        self.message_r = init_message(
            from_initiator=False, group=self.group.id, public_value=self.value_r, nonce=NONCE_R
        )
        (answer,) = self.initiator.perform([self.exchange])
        assert isinstance(answer, IkeKeysResponse)
        self.protection.append((answer.keys, self.responder_keys))

    def additional(self, group: Group) -> None:
        """One IKE_INTERMEDIATE with a key exchange."""
        (value,) = self.initiator.perform([PublicValueRequest(group=group.id)])
        assert isinstance(value, PublicValueResponse)
        request = AdditionalKeyExchangeRequest(group=group.id, public_value=value.public_value)
        (theirs,) = self.responder.perform([request])
        assert isinstance(theirs, IkeKeysResponse)
        (ours,) = self.initiator.perform([replace(request, public_value=theirs.public_value)])
        assert isinstance(ours, IkeKeysResponse)
        self.protection.append((ours.keys, theirs.keys))
        message_id = len(self.intermediate) // 2 + 1
        for data, flags in ((value.public_value, Flags2.INITIATOR), (theirs.public_value, Flags2.RESPONSE)):
            header = Header(
                initiator_spi=SPI_I,
                responder_spi=SPI_R,
                version=Version.IKE_2,
                exchange_type=ExchangeType.IKE_INTERMEDIATE,
                flags=flags,
                message_id=message_id,
            )
            self.intermediate.append(keying2.intermediate_octets(header, PayloadType2.KEY_EXCHANGE, data))

    def prove(self, *, initiator: bool, **changes: Any) -> ProveRequest:
        """How one end asks for its own proof."""
        request = ProveRequest(
            message=self.message_i if initiator else self.message_r,
            intermediate=tuple(self.intermediate),
            hashes=self.hashes,
            peer_supports_ppk=self.ppk,
        )
        return replace(request, **changes)

    def authenticate(self, proof: ProveResponse, *, by_initiator: bool, **changes: Any) -> IkeAuthenticateRequest:
        """How the other end asks for judgement of `proof`."""
        request = IkeAuthenticateRequest(
            chain=PeerChain(proof.certificates),
            identification=proof.identification,
            method=proof.method,
            proof=proof.proof,
            message=self.message_i if by_initiator else self.message_r,
            intermediate=tuple(self.intermediate),
            ppk_identity=proof.ppk_identity,
            proof_without_ppk=proof.proof_without_ppk,
        )
        return replace(request, **changes)

    def prove_initiator(self, **changes: Any) -> ProveResponse:
        """The initiator's proof."""
        (proof,) = self.initiator.perform([self.prove(initiator=True, **changes)])
        assert isinstance(proof, ProveResponse)
        return proof

    def keys_request(self) -> SaKeysRequest:
        """Both ends ask for the same."""
        return SaKeysRequest(child_encryption=self.child[0], child_integrity=self.child[1])

    def answer(self, proof: ProveResponse, **changes: Any) -> tuple[Response, ...]:
        """The responder judges the initiator's proof and makes its own."""
        return self.responder.perform(
            [
                self.authenticate(proof, by_initiator=True, **changes),
                self.prove(initiator=False, remote_identification=proof.identification),
                self.keys_request(),
            ]
        )

    def conclude(self, answer: Sequence[Response], **changes: Any) -> tuple[Response, ...]:
        """The initiator judges the responder's answer."""
        _, proof, keys = answer
        assert isinstance(proof, ProveResponse)
        assert isinstance(keys, SaKeysResponse)
        changes.setdefault("ppk_confirmed", keys.ppk_used)
        return self.initiator.perform(
            [self.authenticate(proof, by_initiator=False, **changes), self.keys_request()]
        )

    def run(self) -> Result:
        """The whole handshake, which must succeed up to the verdicts."""
        self.init()
        for slot in self.policy.additional:
            self.additional(next(group for group in slot if group is not None))
        answer = self.answer(self.prove_initiator())
        if len(answer) < 3:
            return Result(by_responder=_verdict(answer))
        final = self.conclude(answer)
        keys, proof = answer[2], answer[1]
        assert isinstance(keys, SaKeysResponse)
        assert isinstance(proof, ProveResponse)
        last = final[-1]
        return Result(
            by_responder=_verdict(answer),
            by_initiator=_verdict(final),
            responder_keys=keys.keys,
            initiator_keys=last.keys if isinstance(last, SaKeysResponse) else b"",
            method=proof.method,
            ppk_used=keys.ppk_used,
        )


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a handshake ended: both verdicts, and the keys at both ends."""

    by_responder: Verdict
    by_initiator: Verdict | None = None
    initiator_keys: bytes = b""
    responder_keys: bytes = b""
    method: int = 0
    ppk_used: bool = False

    @property
    def agreed(self) -> bool:
        """True when both ends have accepted one another and have the same keys."""
        return (
            self.by_responder.accepted
            and self.by_initiator is not None
            and self.by_initiator.accepted
            and self.initiator_keys == self.responder_keys != b""
        )


def _verdict(responses: Sequence[Response]) -> Verdict:
    return next(each for each in responses if isinstance(each, Verdict))


# --- IKEv1 ------------------------------------------------------------------------------------------------


def policy1(method: AuthenticationMethod1, **changes: Any) -> Phase1Policy:
    """A phase 1 policy with one method."""
    return Phase1Policy(methods=(method,), **changes)


@dataclass
class Play1:
    """IKEv1 between the terminals LEFT, the initiator, and RIGHT, in main or aggressive mode."""

    left: LocalAuthority
    right: LocalAuthority
    policy: Phase1Policy
    exchange: Exchange = Exchange.MAIN
    remote_identity: str = f"dns:{RIGHT}"
    local_identity: str = ""
    responder_address: str = LEFT_ADDRESS

    def __post_init__(self) -> None:
        self.initiator: LocalSession = self.left.open(LEFT)
        self.responder: LocalSession = self.right.open(RIGHT)

    @property
    def hidden(self) -> bool:
        """True with public key encryption."""
        return self.policy.methods == (AuthenticationMethod1.RSA_ENCRYPTION,)

    def start(self, *, initiator: bool, sa: bytes = b"") -> IkeStartRequest:
        """How either session begins."""
        return IkeStartRequest(
            exchange=self.exchange,
            initiator=initiator,
            sa=sa or body_of(offer_phase1(self.policy)),
            group=self.policy.groups[0].id if self.exchange is Exchange.AGGRESSIVE else 0,
            peer_address=RIGHT_ADDRESS if initiator else self.responder_address,
            remote_identity=self.remote_identity if initiator else "",
            local_identity=self.local_identity if initiator else "",
        )

    def keys(self, value: bytes, nonce: bytes, sa: bytes = b"") -> KeyExchangeRequest:
        """How either end asks for keys."""
        return KeyExchangeRequest(
            group=self.policy.groups[0].id,
            public_value=value,
            initiator_spi=SPI_I,
            responder_spi=SPI_R,
            peer_nonce=nonce,
            sa=sa,
        )

    @staticmethod
    def disclosure(hidden: EncryptedIntroductionResponse) -> DisclosureRequest:
        """How the receiver asks for what is encrypted."""
        return DisclosureRequest(
            identification=hidden.identification, nonce=hidden.nonce, certificate_hash=hidden.certificate_hash
        )

    def authenticate(self, proof: ProveResponse) -> IkeAuthenticateRequest:
        """How either end asks for judgement of `proof`."""
        return IkeAuthenticateRequest(
            chain=PeerChain(proof.certificates),
            identification=proof.identification,
            method=proof.method,
            proof=proof.proof,
        )

    def run(self) -> Result:
        """The whole handshake."""
        return self._main() if self.exchange is Exchange.MAIN else self._aggressive()

    def _main(self) -> Result:
        full = self.start(initiator=True)
        (offer,) = self.initiator.perform([full])
        assert isinstance(offer, IkeStartResponse)
        offered = offer.sa or full.sa
        (choice,) = self.responder.perform([self.start(initiator=False, sa=offered)])
        assert isinstance(choice, IkeStartResponse)
        chosen = choice.sa or offered
        first: list[Request] = [PublicValueRequest(group=choice.group, sa=chosen)]
        if self.hidden:
            first.append(EncryptedIntroductionRequest())
        opened = self.initiator.perform(first)
        value = opened[0]
        assert isinstance(value, PublicValueResponse)
        third: list[Request] = [self.keys(value.public_value, value.nonce)]
        if self.hidden:
            assert isinstance(opened[1], EncryptedIntroductionResponse)
            third = [self.disclosure(opened[1]), EncryptedIntroductionRequest(), *third]
        fourth = self.responder.perform(third)
        theirs = fourth[-1]
        assert isinstance(theirs, IkeKeysResponse)
        fifth: list[Request] = [self.keys(theirs.public_value, theirs.nonce), ProveRequest()]
        if self.hidden:
            assert isinstance(fourth[1], EncryptedIntroductionResponse)
            fifth = [self.disclosure(fourth[1]), *fifth]
        *_, ours, proof = self.initiator.perform(fifth)
        assert isinstance(ours, IkeKeysResponse)
        assert isinstance(proof, ProveResponse)
        sixth = self.responder.perform(
            [self.authenticate(proof), ProveRequest(remote_identification=proof.identification)]
        )
        if len(sixth) < 2:
            return Result(by_responder=_verdict(sixth))
        (last,) = self.responder.perform([SaKeysRequest()])
        answer = sixth[1]
        assert isinstance(answer, ProveResponse)
        final = self.initiator.perform([self.authenticate(answer), SaKeysRequest()])
        return _result(sixth, final, last, final[-1], answer)

    def _aggressive(self) -> Result:
        full = self.start(initiator=True)
        introduce = EncryptedIntroductionRequest() if self.hidden else IntroduceRequest()
        offer, value, introduction = self.initiator.perform(
            [full, PublicValueRequest(group=self.policy.groups[0].id), introduce]
        )
        assert isinstance(offer, IkeStartResponse)
        assert isinstance(value, PublicValueResponse)
        offered = offer.sa or full.sa
        requests: list[Request] = [self.start(initiator=False, sa=offered)]
        shown = b""
        if isinstance(introduction, EncryptedIntroductionResponse):
            requests += [self.disclosure(introduction), EncryptedIntroductionRequest()]
        else:
            assert isinstance(introduction, IntroduceResponse)
            shown = introduction.identification
        requests += [self.keys(value.public_value, value.nonce), ProveRequest(remote_identification=shown)]
        second = self.responder.perform(requests)
        choice, theirs, proof = second[0], second[-2], second[-1]
        assert isinstance(choice, IkeStartResponse)
        assert isinstance(theirs, IkeKeysResponse)
        assert isinstance(proof, ProveResponse)
        requests = [
            self.keys(theirs.public_value, theirs.nonce, choice.sa or offered),
            self.authenticate(proof),
            ProveRequest(remote_identification=proof.identification),
            SaKeysRequest(),
        ]
        if self.hidden:
            assert isinstance(second[2], EncryptedIntroductionResponse)
            requests = [self.disclosure(second[2]), *requests]
        third = self.initiator.perform(requests)
        if not isinstance(third[-1], SaKeysResponse):
            return Result(by_responder=_verdict(third))
        own = third[-2]
        assert isinstance(own, ProveResponse)
        final = self.responder.perform([self.authenticate(own), SaKeysRequest()])
        return _result(final, third, final[-1], third[-1], own)


def _result(
    by_responder: Sequence[Response],
    by_initiator: Sequence[Response],
    responder: Response,
    initiator: Response,
    proof: ProveResponse,
) -> Result:
    return Result(
        by_responder=_verdict(by_responder),
        by_initiator=_verdict(by_initiator),
        responder_keys=responder.keys if isinstance(responder, SaKeysResponse) else b"",
        initiator_keys=initiator.keys if isinstance(initiator, SaKeysResponse) else b"",
        method=proof.method,
    )
