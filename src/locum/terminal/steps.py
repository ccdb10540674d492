"""What an observer of a terminal is told: one `TerminalStep` for each thing that somebody did.

Never holds a secret: details name algorithms, peers and verdicts, and count bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from locum.handshake import Operation, Request, Response, Verdict
from locum.terminal import ike_steps
from locum.tls import operations
from locum.tls.registry import CIPHER_SUITES, ProtocolVersion, group_name, scheme_name
from locum.values import dataclass


class Actor(StrEnum):
    """The three parties of system A."""

    TERMINAL = "terminal"
    DELEGATE = "delegate"
    PEER = "peer"


class StepName(StrEnum):
    """The boxes of figs 4 and 5, by their step numbers, and the traffic with the peer between them."""

    SECURE_PATH = "secure path"  #: S1, is the path to the delegate secure?
    CHANNEL_KEY = "channel key"  #: S2, the key set beforehand goes into the cipher-key database
    START = "start"  #: S3, S4
    GENERATE_KEY = "generate key"  #: S5 to S7
    AUTHENTICATE = "authenticate"  #: S8 to S11
    REQUEST_KEY = "request key"  #: S13, S14
    DERIVE_KEY = "derive key"  #: S16, the terminal makes the session key from the key response
    TAKE_KEY = "take key"  #: S15, the session key was in the key response
    STORE_KEY = "store key"  #: S17
    MALFUNCTION = "malfunction"  #: S18
    ERROR = "error"  #: S19
    TLS = "tls"  #: messages of a TLS handshake to and from the peer
    IKE = "ike"  #: a message of IKE to or from the peer
    INSTALL = "install"  #: security associations put into effect, or taken out
    NEXT_DELEGATE = "next delegate"  #: one did not answer, another is asked (A12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a step took: bytes sent, bytes received, seconds until the last of them."""

    bytes_out: int = 0
    bytes_in: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            bytes_out=self.bytes_out + other.bytes_out,
            bytes_in=self.bytes_in + other.bytes_in,
            seconds=self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalStep:
    """One step: who did what, the bytes that it cost on the way out and in, and the seconds it took.

    Bytes of a delegate's step are those on the link, CoAP and OSCORE included. Operations that travelled in
    the same message as the one before them count nothing.
    """

    actor: Actor
    operation: StepName
    detail: str = ""
    bytes_out: int = 0
    bytes_in: int = 0
    seconds: float = 0.0


Observer = Callable[[TerminalStep], None]


def ignore(_step: TerminalStep) -> None:
    """The observer of those who watch nothing."""


OPERATION_NAMES = {
    Operation.START: StepName.START,
    Operation.GENERATE_KEY: StepName.GENERATE_KEY,
    Operation.AUTHENTICATE: StepName.AUTHENTICATE,
    Operation.REQUEST_KEY: StepName.REQUEST_KEY,
}


def version_name(code: int) -> str:
    """``TLS 1.3``, ``TLS 1.2`` or the code point in hexadecimal."""
    names = {ProtocolVersion.TLS_1_3: "TLS 1.3", ProtocolVersion.TLS_1_2: "TLS 1.2"}
    return next((name for version, name in names.items() if version == code), f"0x{code:04x}")


def suite_name(code: int) -> str:
    """The IANA name of a cipher suite, or its code point in hexadecimal."""
    return CIPHER_SUITES[code].name if code in CIPHER_SUITES else f"0x{code:04x}"


def describe(request: Request, response: Response) -> str:
    """One line, without secrets, on what was asked and what came back."""
    if isinstance(response, Verdict):
        return _describe_verdict(response)
    match request, response:
        case operations.StartRequest(), operations.StartResponse():
            versions = ", ".join(version_name(version) for version in response.versions)
            return f"{versions}; key share {group_name(response.key_share_group)}"
        case operations.KeyShareRequest(), _:
            return f"another key share, {group_name(request.group)}"
        case operations.HandshakeSecretsRequest(), _:
            return f"handshake secrets, {group_name(request.group)}, {suite_name(request.cipher_suite)}"
        case operations.SharedSecretRequest(), _:
            return f"shared secret, {group_name(request.group)}"
        case operations.ClientKeyExchangeRequest(), _:
            return f"ClientKeyExchange, {suite_name(request.cipher_suite)}"
        case operations.ClientCertificateRequest(), operations.ClientCertificateResponse():
            if not response.certificates:
                return "no client certificate fits"
            return f"client certificate, {scheme_name(response.scheme)}"
        case operations.ClientSignatureRequest(), _:
            return "client CertificateVerify"
        case operations.MasterSecretRequest() | operations.SessionKeysRequest(), operations.KeyBlockResponse():
            return "key block"
        case operations.MasterSecretRequest() | operations.SessionKeysRequest(), _:
            return "master secret"
        case operations.ServerFinishedRequest(), _:
            return "server Finished to expect"
    return ike_steps.describe(request, response) or type(request).__name__


def _describe_verdict(verdict: Verdict) -> str:
    if verdict.accepted:
        return f"{verdict.identity} is authentic and allowed"
    if verdict.authentic:
        return f"{verdict.identity} is authentic but not allowed: {verdict.reason}"
    return f"not authentic: {verdict.reason}"
