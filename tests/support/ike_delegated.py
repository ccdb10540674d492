"""An authority for `ike_memory` that is a delegate: operations go through messages and the delegate's service."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tests.support.ike_memory import BEGINNING

from locum.authority.local import LocalAuthority
from locum.authority.remote import PATH, RemoteSession, Resend
from locum.delegate.journal import SESSION_ACTION, Journal
from locum.delegate.limits import RateLimits
from locum.delegate.service import DelegateService
from locum.delegate.sessions import SessionLimits
from locum.handshake import Request, Response
from locum.store.records import AuditEntry


class Delegate:
    """A delegate's service before `authority`. `sizes` has the bytes of each request and of its answer."""

    def __init__(self, authority: LocalAuthority) -> None:
        self.audited: list[AuditEntry] = []
        self.sizes: list[tuple[int, int]] = []
        self.asked: list[tuple[Request, ...]] = []
        numbers = itertools.count(1)
        self.service = DelegateService(
            authority=authority,
            serves=lambda terminal, plain: not plain,
            journal=Journal(self.audited.append, time=lambda: BEGINNING),
            random=lambda length: next(numbers).to_bytes(length, "big"),
            session_limits=SessionLimits(),
            rate_limits=RateLimits(rate=1e6, burst=1e6),
        )

    def open(self, terminal: str) -> DelegatedSession:
        """As `LocalAuthority.open`."""
        return DelegatedSession(self, terminal)

    def post(self, terminal: str, payload: bytes) -> tuple[bytes, int]:
        """One exchange over the link."""
        answer = self.service.handle(terminal, PATH, payload, now=BEGINNING)
        self.sizes.append((len(payload), len(answer.payload)))
        return answer.payload, int(answer.code)

    @property
    def ended(self) -> list[tuple[str, str]]:
        """How sessions ended: the outcome and the detail of each entry in the audit log."""
        return [(entry.outcome, entry.detail) for entry in self.audited if entry.action == SESSION_ACTION]


class DelegatedSession:
    """A terminal's side of a session, as `AuthoritySession`."""

    def __init__(self, delegate: Delegate, terminal: str) -> None:
        self._delegate = delegate
        self._terminal = terminal
        self._remote = RemoteSession()

    def perform(self, requests: Sequence[Request]) -> tuple[Response, ...]:
        self._delegate.asked.append(tuple(requests))
        payload = self._remote.encode(requests)
        while True:
            outcome = self._remote.decode(*self._delegate.post(self._terminal, payload))
            if not isinstance(outcome, Resend):
                return outcome
            payload = outcome.payload

    def close(self) -> None:
        payload = self._remote.close_payload()
        if payload:
            self._delegate.post(self._terminal, payload)
