"""What every IKE session has in common: the start, the judgement of the peer by policy, and who is who.

Never knows how a proof is made or checked in which version. Who may be denied whatever it proves is denied at the
start; who is allowed is found out by what has been proven.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TypeVar

from locum.authority.databases import Decision
from locum.authority.ike_credentials import Credentials, PeerView
from locum.authority.ike_identities import Identification, parse_identification, wanted_identity
from locum.authority.session import Databases, Session
from locum.crypto.asymmetric.certificates import Rejected
from locum.errors import Refused
from locum.handshake import Fault, Verdict
from locum.ike.operations import MAX_SA, IkeStartRequest, IkeStartResponse
from locum.values import dataclass

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Judgement:
    """Who the peer has proven to be: its identities, the most telling first, as in a `Verdict`.

    `claimed` is who it says it is, which with a pre-shared key for its address it has not proven.
    """

    identities: tuple[str, ...]
    claimed: str


class IkeSession(Session):
    """One IKE SA, or one further exchange under it. A failed operation ends it."""

    protocol = "IKE"

    __slots__ = ("_credentials", "_judgement", "_start", "_wanted")

    def __init__(self, databases: Databases, terminal: str) -> None:
        super().__init__(databases, terminal)
        self._start: IkeStartRequest | None = None
        self._wanted: Identification | None = None
        self._credentials = Credentials(databases, terminal, None)
        #: What an accepted verdict was given for.
        self._judgement: Judgement | None = None

    @property
    def _started(self) -> bool:
        return self._start is not None

    def _forget(self) -> None:
        #: A pre-shared key may be in it.
        self._judgement = None

    @property
    def _request(self) -> IkeStartRequest:
        assert self._start is not None
        return self._start

    # --- start --------------------------------------------------------------------------------------------

    def _begin(self, request: IkeStartRequest) -> IkeStartResponse:
        """Refuse a peer that policy denies whatever it proves, and choose the method."""
        if max(len(request.sa), len(request.initiator_sa)) > MAX_SA:
            raise Refused(f"an SA payload of more than {MAX_SA} bytes")
        self._wanted = self._name_peer(request.remote_identity)
        local = wanted_identity(request.local_identity, "the terminal's identity")
        self._credentials = Credentials(self._databases, self._terminal, local)
        self._check_foreseen(request)
        self._start = request
        return self._negotiate(request)

    def _name_peer(self, text: str) -> Identification | None:
        """Whom the terminal wants to reach. Raises: Refused when that can be nobody."""
        return wanted_identity(text, "the identity that is wanted")

    def _check_foreseen(self, request: IkeStartRequest) -> None:
        """Raises: Refused when policy denies the peer whatever it proves."""
        decision = self._foresee(request)
        if not decision.allowed and self._databases.refresh():
            decision = self._foresee(request)
        if not decision.allowed:
            raise Refused(decision.reason)

    def _foresee(self, request: IkeStartRequest) -> Decision:
        """What policy says of the peer that is wanted, or of its address, before it has proven anything."""
        policy = self._databases.policy
        if self._wanted is None:
            return policy.foresee(self._terminal, request.peer_address)
        wanted = self._wanted.text
        return policy.decide(
            self._terminal,
            (wanted,),
            request.peer_address,
            possible=self._databases.authenticator.possible_pins(wanted),
        )

    @abstractmethod
    def _negotiate(self, request: IkeStartRequest) -> IkeStartResponse:
        """Choose the method. Raises: DecodeError, NoProposalChosen, Refused."""

    # --- authenticate -------------------------------------------------------------------------------------

    def _judged(self, judge: Callable[[], Judgement]) -> Verdict:
        """Both results (A6), with one more look at the databases before anybody is turned away."""
        verdict = self._verdict(judge)
        if not verdict.accepted and self._databases.refresh():
            verdict = self._verdict(judge)
        return verdict

    def _verdict(self, judge: Callable[[], Judgement]) -> Verdict:
        try:
            judgement = judge()
            self._check_not_own(judgement.claimed)
            self._check_wanted(judgement)
        except Rejected as rejected:
            return Verdict(authentic=False, allowed=False, reason=str(rejected), fault=rejected.fault)
        identity = judgement.identities[0]
        decision = self._databases.policy.decide(self._terminal, judgement.identities, self._request.peer_address)
        if not decision.allowed:
            return Verdict(
                authentic=True, allowed=False, identity=identity, reason=decision.reason, fault=Fault.POLICY
            )
        self._judgement = judgement
        return Verdict(authentic=True, allowed=True, identity=identity)

    def _check_wanted(self, judgement: Judgement) -> None:
        if self._wanted is not None and self._wanted.text not in judgement.identities:
            proven = judgement.identities[-1]
            raise Rejected(Fault.WRONG_NAME, f"the peer has proven to be {proven}, not {self._wanted.text}")

    @property
    @abstractmethod
    def _own_name(self) -> str:
        """Who the terminal says it is, in the form of a verdict; empty while that is not settled."""

    def _check_not_own(self, claimed: str) -> None:
        """An end that meets itself was sent its own messages, and knows every secret. Raises: Rejected."""
        if claimed == self._own_name:
            raise Rejected(Fault.WRONG_NAME, f"the peer says it is {claimed}, which is the terminal itself")

    def _check_not_peers(self, own: str) -> None:
        """As `_check_not_own`, for an end that judges the other before it says its own name. Raises: Refused."""
        if self._judgement is not None and own == self._judgement.claimed:
            raise Refused(f"the peer says it is {own}, which is the terminal itself")

    def _insist_on(self, identification: bytes) -> None:
        """The peer that an initiator names in its own message is the one that is wanted; empty names nobody."""
        if not identification:
            return
        named = parse_identification(identification)
        if self._wanted is not None and self._wanted.text != named.text:
            raise Refused(f"the session was started for {self._wanted.text}, not for {named.text}")
        if self._wanted is None:
            self._wanted = named
            self._check_foreseen(self._request)

    # --- who is who ---------------------------------------------------------------------------------------

    def _peer_view(self, claimed: Identification | None = None) -> PeerView:
        """What is known of the peer now: what it has proven, else what it claims, else who is wanted."""
        address = self._request.peer_address
        if self._judgement is not None:
            return PeerView(self._judgement.identities, address)
        named = claimed or self._wanted
        return PeerView((named.text,) if named is not None else (), address)

    def _found(self, find: Callable[[], F | None], what: str) -> F:
        """What `find` finds, after another look at the databases if need be. Raises: Refused."""
        found = find()
        if found is None and self._databases.refresh():
            found = find()
        if found is None:
            view = self._peer_view()
            peer = view.identities[0] if view.identities else f"ip:{view.address}"
            raise Refused(
                f"terminal {self._terminal!r} has {what} for {peer}; "
                "'locum secret add' or 'locum identity add' gives it one"
            )
        return found
