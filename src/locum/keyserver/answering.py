"""What one request gets for an answer: judged by the edge's permissions, performed, counted, and written.

Never touches a socket, and never says more of a key that an edge may not use than of one that does not exist.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from locum.defects import whereabouts
from locum.errors import LocumError, OperationError, Refused, Unavailable
from locum.keyless.errors import RequestFault, code_of
from locum.keyless.frames import (
    Frame,
    encode_error,
    encode_frame,
    encode_pong,
    encode_response,
    parse_frame,
)
from locum.keyless.opcodes import pad_block
from locum.keyless.operations import (
    CertificateVerify,
    ClientVerify,
    Decrypt,
    KeyOperation,
    MasterSecret,
    ServerKeyExchange,
    Sign,
)
from locum.keyless.queries import (
    Answer,
    CertificateAnswer,
    CertificateNamesQuery,
    CertificateQuery,
    KeysQuery,
    TicketsQuery,
    encode_answer,
    keys_page,
    names_page,
)
from locum.keyless.registry import ErrorCode
from locum.keyless.requests import BOUND, RAW, Ping, Request, Seal, Unseal, decode_request
from locum.keyserver.grants import Grant, Lane
from locum.keyserver.journal import Use
from locum.keyserver.keyring import HeldKey
from locum.keyserver.service import KeyService

log = logging.getLogger(__name__)

#: Seconds for which an edge may keep a certificate (C3); less when the certificate ends before that.
CERTIFICATE_LIFETIME = 600
#: What a request costs that uses no key, or is refused, in microseconds.
SMALL_COST = 20
_NONCE_LENGTH = 12
_NO_KEY = ""


class Later(Exception):
    """The request cannot be performed now; nothing has been done."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Deferred:
    """An operation that is performed elsewhere, and answered when that is done."""

    number: int
    edge: str
    key: HeldKey
    operation: KeyOperation = field(repr=False)


class Answering:
    """Answers requests for one service."""

    __slots__ = ("_service",)

    def __init__(self, service: KeyService) -> None:
        self._service = service

    def answer(
        self, grant: Grant, data: bytes, longest: int, *, allowed: bool, room: bool
    ) -> tuple[bytes | Deferred, int]:
        """The answer to a whole message, or what has to be done elsewhere first; and what it has cost.

        `longest` is how much an operation may cost now, in microseconds; `allowed` says that the edge may ask at
        all now, `room` that something may be deferred. Raises: Later.
        """
        frame = parse_frame(data)
        try:
            request = decode_request(frame)
        except RequestFault as fault:
            return self._fault(grant, frame.id, _NO_KEY, "", fault), SMALL_COST
        if isinstance(request, Ping):
            return encode_pong(frame.id, request.payload), SMALL_COST
        if not allowed:
            return self._fault(grant, frame.id, _NO_KEY, "", self._why_not()), SMALL_COST
        if isinstance(request, (*RAW, *BOUND)):
            return self._operation(grant, frame, data, request, longest, room)
        return self._query(grant, frame.id, request), SMALL_COST

    def performed(self, deferred: Deferred, result: bytes) -> bytes:
        """The answer to an operation that was performed elsewhere."""
        service = self._service
        service.journal.use(deferred.edge, deferred.key.name, title(deferred.operation)).count += 1
        service.counters.performed += 1
        return encode_response(deferred.number, self._shaped(deferred.key, deferred.operation, result))

    def failed(self, deferred: Deferred, error: LocumError) -> bytes:
        """The answer to an operation that could not be performed elsewhere."""
        return self._error(deferred.edge, deferred.number, deferred.key.name, title(deferred.operation), error)

    def _why_not(self) -> OperationError:
        if self._service.suspended:
            return Unavailable("the key server has not been able to read its databases for long")
        return Unavailable("the edge asks more often than it may")

    # --- operations ---------------------------------------------------------------------------------------

    def _operation(
        self, grant: Grant, frame: Frame, data: bytes, operation: KeyOperation, longest: int, room: bool
    ) -> tuple[bytes | Deferred, int]:
        key_name, name = _NO_KEY, title(operation)
        try:
            key = grant.key(frame.reference)
            key_name = key.name
            grant.check(key, operation)
        except LocumError as error:
            return self._fault(grant, frame.id, key_name, name, error), SMALL_COST
        if key.local is None:
            if not room:
                raise Later
            return Deferred(number=frame.id, edge=grant.edge.name, key=key, operation=operation), SMALL_COST
        if key.cost > longest:
            raise Later
        try:
            result = self._shaped(key, operation, key.local.perform_now(operation))
        except LocumError as error:
            return self._fault(grant, frame.id, key_name, name, error), key.cost
        except Exception as error:
            # A library's fault, or ours: this request fails, and nothing else.
            log.error("operation failed unexpectedly", extra={"key": key_name} | whereabouts(error))
            return self._fault(grant, frame.id, key_name, name, Unavailable("the key server failed")), key.cost
        use = self._service.journal.use(grant.edge.name, key_name, name)
        use.count += 1
        self._service.counters.performed += 1
        self._remember(grant, frame, data, key, operation, use)
        return encode_response(frame.id, result), key.cost

    def _shaped(self, key: HeldKey, operation: KeyOperation, result: bytes) -> bytes:
        """The result as it goes over the wire: a decrypted message in a block of its own (see `pad_block`)."""
        if isinstance(operation, Decrypt):
            return pad_block(result, key.modulus_length, self._service.random)
        return result

    # --- queries ------------------------------------------------------------------------------------------

    def _query(self, grant: Grant, number: int, request: Request) -> bytes:
        service, edge = self._service, grant.edge
        try:
            if isinstance(request, Seal):
                nonce = service.random(_NONCE_LENGTH)
                result = service.state.secrets.seal(edge.name, request.content, now=service.now(), nonce=nonce)
            elif isinstance(request, Unseal):
                result = service.state.secrets.unseal(edge.name, request.sealed, now=service.now())
            else:
                result = encode_answer(self._answered(grant, request))
        except LocumError as error:
            return self._fault(grant, number, _NO_KEY, type(request).__name__.lower(), error)
        return encode_response(number, result)

    def _answered(self, grant: Grant, query: Request) -> Answer:
        """Raises: RequestFault."""
        if isinstance(query, KeysQuery):
            return keys_page(grant.offered(), query)
        if isinstance(query, TicketsQuery):
            if not grant.edge.roles.server:
                raise RequestFault(ErrorCode.CRYPTO, "this edge is no TLS server")
            return self._service.state.secrets.tickets(grant.edge.keys, self._service.now())
        if not grant.edge.certificates:
            raise RequestFault(ErrorCode.CRYPTO, "this edge may not fetch certificates")
        if isinstance(query, CertificateNamesQuery):
            return names_page(grant.certificate_names(), query)
        assert isinstance(query, CertificateQuery)
        return self._certificate(grant, query.server_name)

    def _certificate(self, grant: Grant, server_name: str) -> CertificateAnswer:
        """Raises: RequestFault when there is none whose key the edge may use."""
        found = grant.certificate(server_name)
        remaining = 0.0 if found is None else found.not_after - self._service.now()
        if found is None or remaining <= 0:
            raise RequestFault(ErrorCode.CERTIFICATE_NOT_FOUND)
        return CertificateAnswer(
            name=found.name,
            names=found.names,
            chain=found.chain,
            ski=found.ski,
            ocsp_response=found.ocsp,
            lifetime=int(min(CERTIFICATE_LIFETIME, remaining)),
        )

    # --- what did not work --------------------------------------------------------------------------------

    def _fault(self, grant: Grant, number: int, key: str, operation: str, error: LocumError) -> bytes:
        return self._error(grant.edge.name, number, key, operation, error)

    def _error(self, edge: str, number: int, key: str, operation: str, error: LocumError) -> bytes:
        refused = isinstance(error, Refused)
        if refused:
            self._service.counters.refused += 1
        else:
            self._service.counters.failed += 1
        self._service.journal.refused(edge, key, operation, str(error), failed=not refused)
        return encode_error(number, code_of(error), str(error))

    # --- requests that are alike --------------------------------------------------------------------------

    def _remember(
        self, grant: Grant, frame: Frame, data: bytes, key: HeldKey, operation: KeyOperation, use: Use
    ) -> None:
        """Have further requests that differ in a digest or a transcript hash only go the short way."""
        local = key.local
        if local is None or frame.extra or encode_frame(frame) != data:
            return  # written in another way than this package's, so that the digest may be anywhere
        if isinstance(operation, Sign) and operation.prehashed and frame.payload == operation.content:
            perform, tail = local.signer(operation.scheme), len(operation.content)
        elif isinstance(operation, CertificateVerify) and frame.payload.endswith(operation.transcript_hash):
            tail = len(operation.transcript_hash)
            perform = local.transcript_signer(operation.scheme, operation.role)
        else:
            return
        grant.remember(data, tail, Lane(perform, key.cost, use))


def title(operation: KeyOperation) -> str:
    """What an operation is called in the audit log."""
    if isinstance(operation, Sign):
        return f"sign {operation.scheme}"
    name = _TITLES[type(operation)]
    scheme = getattr(operation, "scheme", "")
    return f"{name} {scheme}" if scheme else name


_TITLES: dict[type, str] = {
    Decrypt: "decrypt",
    CertificateVerify: "certificate-verify",
    ServerKeyExchange: "server-key-exchange",
    ClientVerify: "client-verify",
    MasterSecret: "master-secret",
}
