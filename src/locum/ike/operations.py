"""The four operations of A1 as IKE asks them, in both versions: requests and responses, answered by an authority.

Nothing here says who answers or how the messages travel. SA payloads are bodies without their generic header, as
they are on the wire; lengths are in bytes, code points are those of `registry`.

One IKE SA is one session with the authority. What is asked in one batch, by the terminal's part in the exchange:

==================  ==========================================================================================
IKEv2 initiator     [Start, PublicValue] IKE_SA_INIT [KeyExchange, Prove] IKE_AUTH [Authenticate, SaKeys]
IKEv2 responder     IKE_SA_INIT [Start, KeyExchange] IKE_AUTH [Authenticate, Prove, SaKeys]
main, initiator     [Start] message 2 [PublicValue] message 4 [KeyExchange, Prove] message 6 [Authenticate, SaKeys]
main, responder     message 1 [Start] message 3 [KeyExchange] message 5 [Authenticate, Prove] [SaKeys] (fig 12)
aggr., initiator    [Start, PublicValue, Introduce] message 2 [KeyExchange, Authenticate, Prove, SaKeys]
aggr., responder    message 1 [Start, KeyExchange, Prove] message 3 [Authenticate, SaKeys]
further exchange    [Start, PublicValue] [SharedSecret], or as responder [Start, SharedSecret]
==================  ==========================================================================================

With public key encryption (RFC 2409 section 5.2) identities and nonces go through the authority encrypted, and
`IkeAuthenticateRequest.identification`, `KeyExchangeRequest.peer_nonce` and the nonces in responses are empty:

==================  ==========================================================================================
main, initiator     [Start] message 2 [PublicValue, EncryptedIntroduction] message 4 [Disclosure, KeyExchange,
                    Prove] message 6 [Authenticate, SaKeys]
main, responder     message 1 [Start] message 3 [Disclosure, EncryptedIntroduction, KeyExchange] message 5
                    [Authenticate, Prove] [SaKeys]
aggr., initiator    [Start, PublicValue, EncryptedIntroduction] message 2 [Disclosure, KeyExchange, Authenticate,
                    Prove, SaKeys]
aggr., responder    message 1 [Start, Disclosure, EncryptedIntroduction, KeyExchange, Prove] message 3
                    [Authenticate, SaKeys]
==================  ==========================================================================================

A further exchange is one under an SA that is established: perfect forward secrecy of a CHILD_SA or of quick mode,
and the rekeying of an IKE SA. Nothing is authenticated in it but by that SA, whose keys the terminal has.
"""

from __future__ import annotations

from dataclasses import field
from enum import IntEnum
from typing import ClassVar

from locum.handshake import Opening, Operation, PeerAuthentication, Request, Response, Verdict
from locum.values import dataclass

#: An SA payload's body, a message of IKE_SA_INIT or IKE_INTERMEDIATE, and all of the latter together.
MAX_SA = 8 * 1024
MAX_INIT_MESSAGE = 16 * 1024
MAX_INTERMEDIATE = 48 * 1024
#: An identification's body: a distinguished name is the longest.
MAX_IDENTIFICATION = 2048
#: A public value or KEM ciphertext; modp8192 is 1,024 and ML-KEM-1024 1,568.
MAX_PUBLIC_VALUE = 2048
#: AUTH, SIG or HASH data.
MAX_PROOF = 8 * 1024


class Exchange(IntEnum):
    """What a session is for."""

    IKE_2 = 0
    MAIN = 1
    AGGRESSIVE = 2
    #: A further key exchange under an SA that is established.
    FURTHER = 3


# --- start ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeStartRequest(Opening):
    """What the terminal can do and whom it deals with (figs 4 and 12, S122).

    `sa` is, for an initiator, an SA payload with everything it can do, which the authority may cut down; for a
    responder the peer's SA payload, cut down by the terminal to what it can do itself. `initiator_sa` is the
    peer's SA payload as received where that is another one (IKEv1: HASH_I and HASH_R cover it). `group` is the
    group of the KE payload that came with it, 0 where none did.

    `peer_address` is textual. `remote_identity` is whom the terminal wants to reach, and nobody else, in the
    form of a `Verdict` (``dns:``, ``ip:``, ``email:``, ``dn:``, ``keyid:``), empty for anybody whom policy
    allows; `local_identity` is who it wants to be, empty for what the authority has. In a `FURTHER` exchange
    `sa` is empty, and `remote_identity` is whom the peer has proven to be, which may be a pinned key (``pin:``).
    """

    exchange: Exchange
    initiator: bool
    sa: bytes = b""
    initiator_sa: bytes = b""
    group: int = 0
    peer_address: str = ""
    local_identity: str = ""
    remote_identity: str = ""

    @property
    def peer(self) -> str:
        """The identity that is wanted, or the address."""
        return self.remote_identity or self.peer_address

    @property
    def without_authentication(self) -> bool:
        """In a further exchange the SA that protects it proves who the peer is."""
        return self.further

    @property
    def further(self) -> bool:
        """Only the exchange says so."""
        return self.exchange is Exchange.FURTHER

    @property
    def uninvited(self) -> bool:
        """A responder answers strangers; in a further exchange they are none any more."""
        return not self.initiator and not self.further


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeStartResponse(Response):
    """The chosen method.

    `sa` is the SA payload to offer (initiator), or the one proposal chosen (responder; its SPI and, in IKEv1,
    everything else as in the offer); empty where it is the same as in the request. `group` is the group to use
    where that is known: the first offered, or the one chosen. A responder's KE payload in another group
    must come again in this one: the batch ends and so does the session (INVALID_KE_PAYLOAD).
    """

    sa: bytes = b""
    group: int = 0
    other_group_wanted: bool = False

    @property
    def ends_batch(self) -> bool:
        """Nothing can be done with a public value in another group."""
        return self.other_group_wanted

    @property
    def last(self) -> bool:
        """The peer begins anew, in a session of its own."""
        return self.other_group_wanted


# --- generate_key -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicValueRequest(Request):
    """Our half of a key exchange that we begin: the KE payload's content in `group`.

    Asked again, with another group, after INVALID_KE_PAYLOAD; and for every additional key exchange (RFC 9370).
    `sa` is the chosen SA payload in main mode, which has been learnt since the start.
    """

    operation: ClassVar[Operation] = Operation.GENERATE_KEY
    group: int
    sa: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicValueResponse(Response):
    """The public value, as long as the group says, and in IKEv1 the nonce that goes with it (fig 12, S154)."""

    public_value: bytes
    nonce: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyExchangeRequest(Request):
    """The first key exchange of an SA is complete: make its keys.

    `public_value` is the peer's. SPIs (IKEv1: cookies) are 8 bytes each. `sa` is the chosen SA payload where
    an initiator has learnt it from the peer, empty for a responder, and in main mode where it was said before.
    In IKEv1 our own nonce is the authority's and `own_nonce` is empty; in IKEv2 it is the terminal's.
    """

    operation: ClassVar[Operation] = Operation.GENERATE_KEY
    group: int
    public_value: bytes
    initiator_spi: bytes
    responder_spi: bytes
    peer_nonce: bytes
    own_nonce: bytes = b""
    sa: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeKeysResponse(Response):
    """What the terminal needs to go on, which is not yet what it needs to talk to the peer.

    `keys` are, in IKEv2, SK_ai, SK_ar, SK_ei and SK_er one after the other with the lengths of the suite (RFC
    7296 section 2.14); in IKEv1 SKEYID_e, one hash long, in aggressive mode too, where it opens message 3. A
    responder also gets its `public_value`, and in IKEv1 its `nonce`.
    """

    keys: bytes = field(repr=False)
    public_value: bytes = b""
    nonce: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdditionalKeyExchangeRequest(Request):
    """An additional key exchange in IKE_INTERMEDIATE is complete: make the next keys (RFC 9370 section 2.2.2).

    The initiator asked for a `PublicValueRequest` before. Answered by `IkeKeysResponse`, with a responder's
    own public value or ciphertext.
    """

    operation: ClassVar[Operation] = Operation.GENERATE_KEY
    group: int
    public_value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedSecretRequest(Request):
    """Complete one key exchange of a `FURTHER` session; the terminal makes the keys itself (A9).

    `more` says that another one follows in this session (RFC 9370 section 2.2.4); without it the session ends.
    """

    operation: ClassVar[Operation] = Operation.GENERATE_KEY
    group: int
    public_value: bytes
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedSecretResponse(Response):
    """The shared secret, and a responder's own public value or ciphertext."""

    secret: bytes = field(repr=False)
    public_value: bytes = b""
    more: bool = False

    @property
    def last(self) -> bool:
        """Nothing follows unless more was announced."""
        return not self.more


# --- authenticate -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class IntroduceRequest(Request):
    """Aggressive mode, initiator: who we are, which message 1 says before anything is known of the peer."""

    operation: ClassVar[Operation] = Operation.AUTHENTICATE


@dataclass(frozen=True, slots=True, kw_only=True)
class IntroduceResponse(Response):
    """Our identification: body of the ID payload, without its generic header."""

    identification: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ProveRequest(Request):
    """Make our own proof: ID, certificates, and AUTH, SIG or HASH (fig 12, S155).

    `message` is our own IKE_SA_INIT message as sent last, empty in IKEv1: what is signed begins with it, and the
    authority looks whether it carries the public value, nonce and SPIs of this session. `intermediate` are the
    messages of IKE_INTERMEDIATE as RFC 9242 section 3.3.2 has them covered, ours and the peer's alternating,
    the initiator's first. `hashes` are the peer's SIGNATURE_HASH_ALGORITHMS (RFC 7427), empty without that
    notify. `authorities` are those of the peer's CERTREQ: SHA-1 of public keys, 20 bytes each, in IKEv2;
    distinguished names in DER in IKEv1; empty for any. `certificate_wanted` is False where the peer sent no
    CERTREQ, and then our chain is sent all the same. `peer_supports_ppk` says that both ends sent USE_PPK (RFC
    8784). `remote_identification` is the body of the IDr that an initiator insists on, or of the IDi received.
    """

    operation: ClassVar[Operation] = Operation.AUTHENTICATE
    message: bytes = b""
    intermediate: tuple[bytes, ...] = ()
    hashes: tuple[int, ...] = ()
    authorities: tuple[bytes, ...] = ()
    peer_supports_ppk: bool = False
    remote_identification: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProveResponse(Response):
    """Our proof, ready for the wire.

    `method` is the AUTH payload's auth method in IKEv2, the negotiated one in IKEv1. `proof` is the AUTH data
    (RFC 7427's AlgorithmIdentifier included), the SIG or the HASH. With a PPK `ppk_identity` is the content of
    PPK_IDENTITY, and `proof_without_ppk` that of NO_PPK_AUTH where doing without is allowed.
    """

    identification: bytes
    certificates: tuple[bytes, ...] = ()
    method: int = 0
    proof: bytes
    ppk_identity: bytes = b""
    proof_without_ppk: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeAuthenticateRequest(PeerAuthentication):
    """Judge the peer by what it showed; the chain is empty with a pre-shared key. Answered by a `Verdict`.

    `identification` is the body of its ID payload, `method` and `proof` as in `ProveResponse`; in IKEv1 the
    method is that of the suite, and `proof` the SIG or HASH. `message` is its IKE_SA_INIT message as received,
    `intermediate` as in `ProveRequest`. A responder passes on `ppk_identity` and `proof_without_ppk`; an
    initiator sets `ppk_confirmed` when the peer answered with PPK_IDENTITY.

    `farewell` is the message id, above 0, under which main mode's initiator would tell a peer that it is turned
    down, which takes the SA for established and heeds nothing without a HASH: a `RejectedWithFarewell` has it.
    """

    identification: bytes
    method: int = 0
    proof: bytes
    message: bytes = b""
    intermediate: tuple[bytes, ...] = ()
    ppk_identity: bytes = b""
    proof_without_ppk: bytes = b""
    ppk_confirmed: bool = False
    farewell: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedWithFarewell(Verdict):
    """A verdict that is not accepted, and the HASH of the message that deletes the SA (RFC 2409 section 5.7).

    It stands before one Delete payload with the SA's cookies, which the authority has composed itself, and is good
    for nothing else.
    """

    farewell: bytes


# --- public key encryption, RFC 2409 section 5.2 ----------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptedIntroductionRequest(Request):
    """IKEv1 with public key encryption: our ID and nonce, encrypted to the key of the peer's certificate.

    The initiator asks before message 3 of main mode or message 1 of aggressive mode, the responder after
    `DisclosureRequest`. The nonce is the authority's own, as in `PublicValueResponse`.
    """

    operation: ClassVar[Operation] = Operation.GENERATE_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptedIntroductionResponse(Response):
    """Bodies of the payloads: <IDii_b>Pubkey_r and <Ni_b>Pubkey_r, and HASH(1) of the certificate used if sent."""

    identification: bytes
    nonce: bytes
    certificate_hash: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisclosureRequest(Request):
    """Decrypt the peer's ID and nonce, which then stand for `peer_nonce` in this session.

    Whether they decrypt is not told: what does not is replaced by random bytes, and the HASH will not verify.
    """

    operation: ClassVar[Operation] = Operation.GENERATE_KEY
    identification: bytes
    nonce: bytes
    certificate_hash: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisclosureResponse(Response):
    """Nothing: what was encrypted stays with the authority until the peer has proven who it is."""


# --- request_key ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SaKeysRequest(Request):
    """Hand over the keys of the SA, only after an accepted verdict in this session (S133).

    With `child_encryption` or `child_integrity`, the lengths in bytes of one direction's keying material, the
    authority derives the first CHILD_SA's keys and keeps SK_d (the other form of A7; IKEv2 only).
    """

    operation: ClassVar[Operation] = Operation.REQUEST_KEY
    child_encryption: int = 0
    child_integrity: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SaKeysResponse(Response):
    """IKEv2: SK_d, or the whole KEYMAT of the first CHILD_SA. IKEv1: SKEYID_d, SKEYID_a, SKEYID_e, one hash each.

    A responder is told with `ppk_used` that the peer's PPK was used, and so is to be confirmed (RFC 8784).
    """

    keys: bytes = field(repr=False)
    ppk_used: bool = False

    @property
    def last(self) -> bool:
        """Always."""
        return True
