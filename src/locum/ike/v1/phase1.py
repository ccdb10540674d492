"""What main and aggressive mode have in common: abilities, certificates, proofs, and what phase 1 ends in.

Never derives a key and never judges a peer: an authority does both (A8).
"""

from __future__ import annotations

from dataclasses import field, replace

from locum.crypto.symmetric import AesCbcKey
from locum.errors import DecodeError
from locum.handshake import MAX_CERTIFICATES, MAX_CHAIN, PeerChain, PeerRejected, Response, Verdict, expect, random
from locum.ike.configuration import Connection, Mode
from locum.ike.engine import IKE_PORT, NAT_PORT
from locum.ike.keying1 import IsakmpKeys, PublicValues, encryption_key, phase1_iv
from locum.ike.operations import (
    DisclosureRequest,
    Exchange,
    IkeAuthenticateRequest,
    IkeStartRequest,
    IkeStartResponse,
    KeyExchangeRequest,
    ProveRequest,
    ProveResponse,
    SaKeysResponse,
)
from locum.ike.payloads1 import (
    Certificate,
    CertificateRequest,
    Ciphertext,
    Hash,
    KeyExchange,
    NatDetection,
    Nonce,
    Notification,
    Payload,
    SecurityAssociation,
    Signature,
    Unknown,
    VendorId,
    body_of,
)
from locum.ike.policy import Phase1Policy
from locum.ike.proposals1 import accept_phase1, choose_phase1, offer_phase1
from locum.ike.protection import CbcChain
from locum.ike.registry import (
    VENDOR_ID_DPD,
    VENDOR_ID_FRAGMENTATION,
    VENDOR_ID_NAT_T,
    AuthenticationMethod1,
    CertificateEncoding,
    NotifyType1,
    PayloadType1,
)
from locum.ike.suites import Phase1Suite
from locum.ike.v1 import offers
from locum.ike.v1.channel import Channel
from locum.ike.v1.messages import SIGNATURE_METHODS, Message
from locum.ike.v1.steps import Steps
from locum.values import dataclass
from locum.wire.cursor import Reader

#: What follows the vendor ID of fragmentation: fragments are understood.
_FRAGMENTATION_FLAGS = bytes.fromhex("80000000")

_RSA_ENCRYPTION = AuthenticationMethod1.RSA_ENCRYPTION


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What phase 1 ends in: the algorithms, the keys, and who the peer is, in the form of a verdict."""

    suite: Phase1Suite
    keys: IsakmpKeys = field(repr=False)
    identity: str


@dataclass(slots=True, kw_only=True)
class Phase1:
    """One phase 1 under way, as both ends of it see it.

    `initial_contact` is said by an initiator, and heard by a responder. `dpd` and `nat_traversal` tell what the
    peer can do. `suite` is there once it has been agreed on, and `farewell`, a message id, when the peer takes the
    SA for established before we do.
    """

    connection: Connection
    channel: Channel
    initiator: bool
    initial_contact: bool = False
    dpd: bool = False
    nat_traversal: bool = False
    suite: Phase1Suite | None = None
    farewell: int = 0

    # --- negotiation ----------------------------------------------------------------------------------------

    def offer(self) -> SecurityAssociation:
        """Everything that we can do. In aggressive mode, whose first message has a public value already, all in
        the first group; and public key encryption alone or not at all, which makes another first message."""
        policy = self.connection.phase1
        if policy.lifetime is not None:
            # What is kept here, whatever the policy would have.
            lifetime = max(1, min(policy.lifetime, int(self.connection.timing.ike_lifetime)))
            policy = replace(policy, lifetime=lifetime)
        if self.connection.mode is Mode.AGGRESSIVE:
            one_group = replace(policy, groups=policy.groups[:1])
            policy = _of_one_kind(one_group, encrypted=self.prefers_encryption)
        return offer_phase1(policy)

    @property
    def prefers_encryption(self) -> bool:
        """True when public key encryption is our most preferred method."""
        return self.connection.phase1.methods[:1] == (_RSA_ENCRYPTION,)

    def start(
        self, exchange: Exchange, sa: bytes, initiator_sa: bytes = b"", *, group: int = 0
    ) -> IkeStartRequest:
        """The request that opens the session with the authority; `sa` is our offer, or what is left of theirs.

        `group` is that of the public value which came with the offer.
        """
        return IkeStartRequest(
            exchange=exchange,
            initiator=self.initiator,
            sa=sa,
            initiator_sa=b"" if initiator_sa == sa else initiator_sa,
            group=group,
            peer_address=str(self.channel.path.remote),
            local_identity=self.connection.local_identity,
            remote_identity=self.connection.remote_identity,
        )

    @staticmethod
    def left_of(offer: SecurityAssociation, response: IkeStartResponse) -> tuple[SecurityAssociation, Payload]:
        """What the authority has left of our offer, and the payload to send, byte by byte what HASH_I covers."""
        body = response.sa or body_of(offer)
        return SecurityAssociation.parse(Reader(body)), body_payload(PayloadType1.SECURITY_ASSOCIATION, body)

    def restricted(self, message: Message) -> bytes:
        """The peer's offer, cut down to what we can do, as the body of an SA payload. Raises: NoProposalChosen."""
        return offers.cut_down(self.connection.phase1, message.body(PayloadType1.SECURITY_ASSOCIATION))

    def restricted_to_one_group(self, message: Message) -> tuple[bytes, Phase1Suite]:
        """As `restricted`, for aggressive mode: nothing that would make another first message than this one.

        That is a matter of the first transform that we can do, which is returned too. Raises: NoProposalChosen.
        """
        policy = self.connection.phase1
        first = choose_phase1(policy, message.one(SecurityAssociation)).suite
        policy = _of_one_kind(replace(policy, groups=(first.group,)), encrypted=encrypts(first))
        return offers.cut_down(policy, message.body(PayloadType1.SECURITY_ASSOCIATION)), first

    def accept(self, offer: SecurityAssociation, message: Message) -> Phase1Suite:
        """An initiator's algorithms: what the peer chose from our offer. Raises: AlteredProposal."""
        self.suite = accept_phase1(offer, message.one(SecurityAssociation)).suite
        return self.suite

    def chosen(self, restricted: bytes, response: IkeStartResponse) -> tuple[Phase1Suite, bytes]:
        """A responder's algorithms, and the body of the SA payload that says so to the peer.

        Raises: AlteredProposal when the authority chose something that was not offered.
        """
        answer = response.sa or restricted
        self.suite = offers.accept(restricted, answer)
        return self.suite, answer

    # --- abilities ------------------------------------------------------------------------------------------

    def vendor_ids(self) -> tuple[Payload, ...]:
        """What we can do besides."""
        ids = [VENDOR_ID_NAT_T, VENDOR_ID_DPD]
        if self.connection.fragmentation:
            ids.append(VENDOR_ID_FRAGMENTATION + _FRAGMENTATION_FLAGS)
        return tuple(VendorId(data=each) for each in ids)

    def learn(self, message: Message) -> None:
        """What the peer can do besides, and whether it knows no other SA with us."""
        for vendor_id in message.all(VendorId):
            data = vendor_id.data
            self.dpd = self.dpd or data == VENDOR_ID_DPD
            self.nat_traversal = self.nat_traversal or data == VENDOR_ID_NAT_T
            if data[: len(VENDOR_ID_FRAGMENTATION)] == VENDOR_ID_FRAGMENTATION:
                self.channel.fragments = self.connection.fragmentation
        if not self.initiator and message.encrypted:
            self.initial_contact = self.initial_contact or any(
                each.notify_type == NotifyType1.INITIAL_CONTACT for each in message.all(Notification)
            )

    def nat_detection(self, suite: Phase1Suite) -> Steps[tuple[Payload, ...]]:
        """NAT-D where the peer knows it; with `force_encapsulation` of an address that nobody has."""
        if not self.nat_traversal:
            return ()
        hidden = b""
        if self.connection.force_encapsulation:
            hidden = yield from random(suite.prf.length)
        return self.channel.nat_detection(suite, hidden=hidden)

    def detect_nat(self, suite: Phase1Suite, message: Message) -> None:
        """Judge by the peer's NAT-D payloads."""
        received = message.all(NatDetection)
        if not self.nat_traversal or not received:
            return
        self.channel.nat_here = self.connection.force_encapsulation
        self.channel.detect_nat(suite, received)

    def float(self) -> None:
        """The initiator goes on on port 4500 where there is a NAT (RFC 3947 section 4)."""
        path = self.channel.path
        if self.channel.nat and not path.marked:
            local = NAT_PORT if path.local_port == IKE_PORT else path.local_port
            self.channel.path = replace(path, local_port=local, remote_port=NAT_PORT)

    # --- proofs ---------------------------------------------------------------------------------------------

    def certificate_requests(self, methods: tuple[AuthenticationMethod1, ...]) -> tuple[Payload, ...]:
        """Any certificate will do, where one is used at all."""
        if SIGNATURE_METHODS.isdisjoint(methods):
            return ()
        return (CertificateRequest(encoding=CertificateEncoding.X509_SIGNATURE, authority=b""),)

    def prove(self, messages: tuple[Message, ...], peer_identification: bytes = b"") -> ProveRequest:
        """Ask for our proof; `messages` are those in which the peer may have said whom it trusts."""
        requests = [each for message in messages for each in message.all(CertificateRequest)]
        return ProveRequest(
            authorities=tuple(
                each.authority
                for each in requests[:MAX_CERTIFICATES]
                if each.encoding == CertificateEncoding.X509_SIGNATURE and each.authority
            ),
            remote_identification=peer_identification,
        )

    def initial_contact_payload(self) -> tuple[Payload, ...]:
        """INITIAL_CONTACT, where it is to be said (RFC 2407 section 4.6.3.3)."""
        if not (self.initiator and self.initial_contact):
            return ()
        cookies = self.channel.cookies.both
        return (Notification(notify_type=NotifyType1.INITIAL_CONTACT, spi=cookies),)


def encrypts(suite: Phase1Suite) -> bool:
    """True for public key encryption, whose identities and nonces only the authority sees."""
    return suite.method == _RSA_ENCRYPTION


def body_payload(kind: PayloadType1, body: bytes) -> Payload:
    """A payload whose body is known as bytes: what an authority made, or what the peer sent."""
    return Unknown(type=kind, body=body)


def key_exchange(phase1: Phase1, suite: Phase1Suite, message: Message, sa: bytes = b"") -> KeyExchangeRequest:
    """Have the keys made of the peer's public value and nonce in `message`.

    Its nonce is passed on unless it is encrypted, and stays with the authority. `sa` is the chosen SA payload in
    aggressive mode, where it was not said before.
    """
    cookies = phase1.channel.cookies
    return KeyExchangeRequest(
        group=suite.group.id,
        public_value=message.one(KeyExchange).data,
        initiator_spi=cookies.initiator,
        responder_spi=cookies.responder,
        peer_nonce=b"" if encrypts(suite) else message.one(Nonce).data,
        sa=sa,
    )


def _of_one_kind(policy: Phase1Policy, *, encrypted: bool) -> Phase1Policy:
    """The policy with public key encryption alone, or without it: either makes its own first message."""
    methods = tuple(each for each in policy.methods if (each == _RSA_ENCRYPTION) == encrypted)
    return replace(policy, methods=methods)


def proof_payloads(suite: Phase1Suite, proof: ProveResponse) -> tuple[Payload, ...]:
    """Certificates and SIG, or HASH: what stands behind the ID payload."""
    if suite.method not in SIGNATURE_METHODS:
        return (Hash(data=proof.proof),)
    certificates = (
        Certificate(encoding=CertificateEncoding.X509_SIGNATURE, data=each) for each in proof.certificates
    )
    return (*certificates, Signature(data=proof.proof))


def authentication_of(
    suite: Phase1Suite, message: Message, identification: bytes, *, farewell: int = 0
) -> IkeAuthenticateRequest:
    """Ask for judgement of the peer by its ID, certificates, and SIG or HASH.

    `farewell` is the message id for telling it that it is turned down, 0 where that takes no authority.
    Raises: DecodeError for more certificates than anybody needs.
    """
    signed = suite.method in SIGNATURE_METHODS
    proof = message.one(Signature).data if signed else message.one(Hash).data
    return IkeAuthenticateRequest(
        chain=chain_of(message) if signed else PeerChain(()),
        identification=identification,
        method=suite.method,
        proof=proof,
        farewell=farewell,
    )


def chain_of(message: Message) -> PeerChain:
    """The certificates of a message in their order; those of unknown encodings and CRLs are passed over."""
    certificates = tuple(
        each.data for each in message.all(Certificate) if each.encoding == CertificateEncoding.X509_SIGNATURE
    )
    if len(certificates) > MAX_CERTIFICATES or sum(map(len, certificates)) > MAX_CHAIN:
        raise DecodeError(f"{len(certificates)} certificates of {sum(map(len, certificates))} bytes")
    return PeerChain(certificates)


def accepted(responses: tuple[Response, ...], index: int) -> str:
    """The identity in the verdict at `index`. Raises: PeerRejected unless it is positive."""
    verdict = expect(responses, index, Verdict)
    if not verdict.accepted:
        raise PeerRejected(verdict)
    return verdict.identity


def isakmp_keys_of(suite: Phase1Suite, response: SaKeysResponse) -> IsakmpKeys:
    """SKEYID_d, SKEYID_a and SKEYID_e. Raises: DecodeError for material of another length."""
    length = suite.prf.length
    if len(response.keys) != 3 * length:
        raise DecodeError(f"{len(response.keys)} bytes of keys where {3 * length} are due")
    d, a, e = (response.keys[at : at + length] for at in range(0, 3 * length, length))
    return IsakmpKeys(d=d, a=a, e=e)


def phase1_chain(suite: Phase1Suite, skeyid_e: bytes, values: PublicValues) -> CbcChain:
    """The encryption of phase 1 from its first IV on. Raises: DecodeError for a SKEYID_e of another length."""
    if len(skeyid_e) != suite.prf.length:
        raise DecodeError(f"a SKEYID_e of {len(skeyid_e)} bytes where {suite.prf.length} are due")
    key = encryption_key(suite.prf, skeyid_e, suite.encryption)
    return CbcChain(AesCbcKey(key), phase1_iv(suite.prf, values))


# --- public key encryption, RFC 2409 section 5.2 ----------------------------------------------------------


def encrypted_payloads(identification: bytes, nonce: bytes, certificate_hash: bytes = b"") -> tuple[Payload, ...]:
    """[HASH(1),] <ID_b>PubKey, <N_b>PubKey."""
    hashes = (Hash(data=certificate_hash),) if certificate_hash else ()
    return (
        *hashes,
        Ciphertext(type=PayloadType1.IDENTIFICATION, data=identification),
        Ciphertext(type=PayloadType1.NONCE, data=nonce),
    )


def disclosure(message: Message, *, from_initiator: bool) -> DisclosureRequest:
    """Have the peer's ID and nonce decrypted; an initiator may say by HASH(1) to which certificate they are."""
    bodies = {each.type: each.data for each in message.all(Ciphertext)}
    used = message.get(Hash) if from_initiator else None
    return DisclosureRequest(
        identification=bodies[PayloadType1.IDENTIFICATION],
        nonce=bodies[PayloadType1.NONCE],
        certificate_hash=used.data if used is not None else b"",
    )
