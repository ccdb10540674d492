"""The terminal's flow of figs 4 and 5, as a monitor over the operations that a key exchange asks for (A1, A2, A8).

Never knows how TLS or IKE works: it sees operations and answers go by, in the order of the figures or not.

The boxes: secure path? (S1), else set the channel key (S2); start (S3, S4); then, until all information is
there (S12), key generation (S5 to S7) or authentication (S8 to S11); key request (S13, S14); derive the session
key or take it (S15, S16); store it (S17). Where neither is needed and something is missing: malfunction (S18).
A peer that is not authentic or not allowed: error handling (S19), and no key is set.

An IKE SA goes this way once. Every further key exchange under it goes it again and shorter: the peer is proven by
the SA, so after key generation all information is there, and the key is derived from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from locum.errors import LocumError, OperationError
from locum.handshake import Opening, Operation, PeerAuthentication, Request, Response, Verdict
from locum.ike.operations import SaKeysRequest
from locum.terminal.cipher_keys import CipherKeyDatabase, Holder, KeyOrigin, SessionKey
from locum.terminal.steps import OPERATION_NAMES, Actor, Cost, Observer, StepName, TerminalStep, describe, ignore
from locum.tls.operations import KeyBlockResponse

#: Operations that one handshake may ask for. TLS with HelloRetryRequest and a client certificate needs 8, IKEv2
#: with INVALID_KE_PAYLOAD and seven additional key exchanges 21.
MAXIMUM_OPERATIONS = 24


class Malfunction(OperationError):
    """What figs 4 and 5 rule out happened (S18; para 74): operations or answers out of their order."""


class Stage(Enum):
    """How far along the figures a handshake is."""

    PATH = auto()
    START = auto()
    EXCHANGE = auto()
    KEY = auto()
    COMPLETE = auto()
    FAILED = auto()


#: Operations that may be asked for, and change nothing of what may be asked for next.
_WITHOUT_EFFECT = ((Stage.EXCHANGE, Operation.AUTHENTICATE), (Stage.KEY, Operation.REQUEST_KEY))


class Flow:
    """One handshake's way through figs 4 and 5.

    Call `path`, then `ask` before and `answered` after each message to the delegate, then `complete` or `failed`.
    Every one of them tells `observer` what happened. A violation raises `Malfunction`, and is the end.
    """

    def __init__(self, *, peer: str, observer: Observer = ignore) -> None:
        self.stage = Stage.PATH
        self._peer = peer
        self._observer = observer
        #: Nobody needs words that nobody hears.
        self._observed = observer is not ignore
        self._asked = 0
        self._key_generated = False
        self._authenticated = False
        self._without_authentication = False
        self._origin = KeyOrigin.DERIVED

    def path(self, delegate: str, *, secure: bool, keys: CipherKeyDatabase[Holder]) -> None:
        """S1 and S2: a path that is not secure needs the channel key in the cipher-key database (A4)."""
        if self.stage is not Stage.PATH:
            self._malfunction("the path to the delegate changed in the middle of a handshake")
        if secure:
            self._tell(StepName.SECURE_PATH, f"{delegate}: secure, plain messages")
        else:
            self._tell(StepName.SECURE_PATH, f"{delegate}: not secure, every message is encrypted")
            if not keys.has_channel_key(delegate):
                self._malfunction(f"no channel key is set for {delegate}")
            self._tell(StepName.CHANNEL_KEY, "set beforehand, in the cipher-key database")
        self.stage = Stage.START

    def ask(self, requests: Sequence[Request]) -> None:
        """Check operations that are about to be asked for, in one message, against the figures."""
        authentication_asked = self._authenticated
        for request in requests:
            self._asked += 1
            if self._asked > MAXIMUM_OPERATIONS:
                self._malfunction(f"more than {MAXIMUM_OPERATIONS} operations in one handshake")
            authentication_asked |= isinstance(request, PeerAuthentication)
            self._advance(request, authentication_asked=authentication_asked)

    def _advance(self, request: Request, *, authentication_asked: bool) -> None:
        """Move on by one operation, or stop at one that is out of its order."""
        stage, operation = self.stage, request.operation
        if stage is Stage.EXCHANGE and operation is Operation.GENERATE_KEY:
            self._key_generated = True
        elif stage is Stage.EXCHANGE and operation is Operation.REQUEST_KEY:
            self._check_all_there(authentication_asked)
            self.stage = Stage.KEY
        elif stage is Stage.START and operation is Operation.START:
            self._without_authentication = isinstance(request, Opening) and request.without_authentication
            self.stage = Stage.EXCHANGE
        elif (stage, operation) not in _WITHOUT_EFFECT:
            self._malfunction(f"{OPERATION_NAMES[operation]} asked for out of turn")

    def _check_all_there(self, authentication_asked: bool) -> None:
        """S12, at the key request: both a generated key and an authenticated peer."""
        if not self._key_generated and not authentication_asked:
            self._malfunction("neither key generation nor authentication was needed")
        if not self._key_generated:
            self._malfunction("the key is requested before one was generated")
        if not authentication_asked:
            self._malfunction("the key is requested before the peer was authenticated")

    def answered(self, requests: Sequence[Request], responses: Sequence[Response], *, cost: Cost) -> None:
        """Check the answers to what was asked last; `cost` is that of the whole message and its answer."""
        if len(responses) > len(requests):
            self._malfunction(f"{len(responses)} answers to {len(requests)} operations")
        ended = False
        for request, response in zip(requests, responses, strict=False):
            if ended:
                self._malfunction("an answer follows the rejection of the peer or of its group")
            if self._observed:
                self._tell_answer(request, response, cost)
                cost = Cost()
            self._judge(request, response)
            ended = response.ends_batch
        if ended:
            self.stage = Stage.FAILED
        elif len(responses) < len(requests):
            self._malfunction(f"{len(responses)} answers to {len(requests)} operations")

    def _tell_answer(self, request: Request, response: Response, cost: Cost) -> None:
        self._observer(
            TerminalStep(
                actor=Actor.DELEGATE,
                operation=OPERATION_NAMES[request.operation],
                detail=describe(request, response),
                bytes_out=cost.bytes_out,
                bytes_in=cost.bytes_in,
                seconds=cost.seconds,
            )
        )

    def _judge(self, request: Request, response: Response) -> None:
        """S11 for a verdict, S15 for a key response."""
        if isinstance(request, PeerAuthentication) != isinstance(response, Verdict):
            self._malfunction("a verdict is the answer to an authentication, and to nothing else")
        if isinstance(response, Verdict):
            self._authenticated = response.accepted
        if isinstance(response, KeyBlockResponse) or (isinstance(request, SaKeysRequest) and _takes_keys(request)):
            self._origin = KeyOrigin.TAKEN

    def complete(
        self, holder: Holder, *, keys: CipherKeyDatabase[Holder], resumed: bool, now: float
    ) -> SessionKey[Holder]:
        """S15 to S17: the handshake has its key; store it and return its entry.

        A resumed session has all its information from the start: its key comes from the one before it.
        """
        if resumed:
            if self.stage is not Stage.EXCHANGE or not self._without_authentication:
                self._malfunction("a session was resumed that was not offered")
        elif self.stage is not Stage.KEY:
            self._malfunction("the handshake ended without a key from the delegate")
        elif not self._authenticated:
            self._malfunction("the handshake ended without an authenticated peer")
        entry = keys.set_session_key(self._peer, holder, origin=self._origin, established=now)
        if self._origin is KeyOrigin.DERIVED:
            self._tell(StepName.DERIVE_KEY, "from the session before" if resumed else "from the key response")
        else:
            self._tell(StepName.TAKE_KEY, "from the key response")
        self.stage = Stage.COMPLETE
        self._tell(StepName.STORE_KEY, f"session key for {self._peer}, in the cipher-key database")
        return entry

    def derived(self, what: str) -> None:
        """S16 of a further key exchange: the terminal makes the keys of `what` itself (A9).

        The SA that protects the exchange has proven the peer; nothing but the shared secret was missing.
        """
        if self.stage is not Stage.EXCHANGE or not self._without_authentication or not self._key_generated:
            self._malfunction("a further key exchange ended without its shared secret")
        self.stage = Stage.COMPLETE
        self._tell(StepName.DERIVE_KEY, what)

    def failed(self, error: LocumError) -> None:
        """S19: the handshake is over and no key is set."""
        self.stage = Stage.FAILED
        self._tell(StepName.ERROR, str(error))

    def _malfunction(self, what: str) -> None:
        self.stage = Stage.FAILED
        self._tell(StepName.MALFUNCTION, what)
        raise Malfunction(f"malfunction in the key exchange with {self._peer}: {what}")

    def _tell(self, operation: StepName, detail: str) -> None:
        if self._observed:
            self._observer(TerminalStep(actor=Actor.TERMINAL, operation=operation, detail=detail))


def _takes_keys(request: SaKeysRequest) -> bool:
    """True when the delegate derives the keys of the traffic itself (A7)."""
    return bool(request.child_encryption or request.child_integrity)
