"""The client's offer: what a ClientHello says, made of the user's wishes and the delegate's choice.

Knows both versions' extensions, because one ClientHello serves both; decides nothing about answers.
"""

from __future__ import annotations

from dataclasses import field, replace

from locum.errors import OperationError
from locum.tls import schedule
from locum.tls.alerts import IllegalParameter, UnsupportedExtension
from locum.tls.configuration import ClientConfiguration
from locum.tls.extensions import (
    Extensions,
    KeyShareEntry,
    binders_length,
    is_ip_address,
    write_alpn,
    write_client_shares,
    write_codes,
    write_offered_psk,
    write_server_name,
    write_status_request,
    write_u16,
)
from locum.tls.messages import ClientHello, serialize
from locum.tls.operations import StartResponse
from locum.tls.registry import CIPHER_SUITES, ExtensionType, ProtocolVersion, PskKeyExchangeMode
from locum.tls.session import SessionTicket
from locum.tls.transcript import Transcript
from locum.values import dataclass
from locum.wire.cursor import Writer

_UNCOMPRESSED_POINTS_ONLY = b"\x01\x00"
_NO_RENEGOTIATION_YET = b"\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Everything of one ClientHello; a HelloRetryRequest replaces parts of it.

    `session_id` is echoed by the server: 32 random bytes in compatibility mode or with a TLS 1.2 ticket.
    `ticket` is the one offered, None when there is none of use. `now` is in seconds since the epoch.
    """

    configuration: ClientConfiguration
    method: StartResponse
    random: bytes
    session_id: bytes
    ticket: SessionTicket | None
    now: float
    share: KeyShareEntry | None
    cookie: bytes | None = field(default=None)

    def __post_init__(self) -> None:
        wishes, method = self.configuration, self.method
        fits = (
            method.versions
            and set(method.versions) <= set(wishes.versions)
            and set(method.cipher_suites) <= set(wishes.cipher_suites)
            and method.groups
            and (not wishes.groups or set(method.groups) <= set(wishes.groups))
            and method.signature_schemes
            and method.key_form in wishes.key_forms
            and any(CIPHER_SUITES[code].version in method.versions for code in method.cipher_suites)
            and (self.share is None or self.share.group in method.groups)
        )
        if not fits:
            raise OperationError("the authority chose a method that was not offered to it")

    @property
    def offers13(self) -> bool:
        """True when TLS 1.3 is among the versions."""
        return ProtocolVersion.TLS_1_3 in self.method.versions

    @property
    def offers12(self) -> bool:
        """True when TLS 1.2 is among the versions."""
        return ProtocolVersion.TLS_1_2 in self.method.versions

    @property
    def cipher_suites(self) -> tuple[int, ...]:
        """The suites of the versions that are offered, in the authority's order."""
        return tuple(c for c in self.method.cipher_suites if CIPHER_SUITES[c].version in self.method.versions)

    @property
    def psk(self) -> SessionTicket | None:
        """The ticket when it is one of TLS 1.3."""
        ticket = self.ticket
        return ticket if ticket is not None and ticket.version is ProtocolVersion.TLS_1_3 else None

    @property
    def ticket12(self) -> SessionTicket | None:
        """The ticket when it is one of TLS 1.2."""
        ticket = self.ticket
        return ticket if ticket is not None and ticket.version is ProtocolVersion.TLS_1_2 else None

    def after_retry(self, *, share: KeyShareEntry | None, cookie: bytes | None, suite_hash: str) -> Offer:
        """The second offer (RFC 8446 section 4.1.2); a PSK of another hash than the suite's is withdrawn."""
        psk = self.psk
        keeps = psk is None or psk.suite.hash.name == suite_hash
        return replace(self, share=share, cookie=cookie, ticket=self.ticket if keeps else None)

    def client_hello(self, transcript: Transcript) -> bytes:
        """The ClientHello with its header, PSK binder included; `transcript` is what came before it."""
        data = serialize(
            ClientHello(
                random=self.random,
                session_id=self.session_id,
                cipher_suites=self.cipher_suites,
                extensions=self.extensions(),
            )
        )
        psk = self.psk
        if psk is None:
            return data
        # RFC 8446 section 4.2.11.2: the binder is made over everything that stands before the binders.
        algorithm = psk.suite.hash
        truncated = data[: -binders_length(algorithm.length)]
        key = schedule.binder_key(algorithm, psk.secret)
        binder = schedule.finished_mac(algorithm, key, transcript.hash_with(algorithm, truncated))
        return data[: -len(binder)] + binder

    def extensions(self) -> Extensions:
        """The extensions in the order they are sent; pre_shared_key is last, as it must be."""
        wishes, method = self.configuration, self.method
        items: list[tuple[int, bytes]] = []
        if not is_ip_address(wishes.server_name):
            # RFC 6066 section 3: the name goes "without a trailing dot".
            items.append((ExtensionType.SERVER_NAME, write_server_name(wishes.server_name.removesuffix("."))))
        items.append((ExtensionType.STATUS_REQUEST, write_status_request()))
        items.append((ExtensionType.SUPPORTED_GROUPS, write_codes(method.groups)))
        items.append((ExtensionType.SIGNATURE_ALGORITHMS, write_codes(method.signature_schemes)))
        if wishes.alpn:
            items.append((ExtensionType.APPLICATION_LAYER_PROTOCOL_NEGOTIATION, write_alpn(wishes.alpn)))
        if wishes.record_size_limit is not None:
            items.append((ExtensionType.RECORD_SIZE_LIMIT, write_u16(wishes.record_size_limit)))
        if self.offers12:
            items += self._extensions12()
        if self.offers13:
            items += self._extensions13()
        return Extensions(tuple(items))

    def _extensions12(self) -> list[tuple[int, bytes]]:
        ticket = self.ticket12
        return [
            (ExtensionType.EC_POINT_FORMATS, _UNCOMPRESSED_POINTS_ONLY),
            (ExtensionType.EXTENDED_MASTER_SECRET, b""),
            (ExtensionType.SESSION_TICKET, ticket.ticket if ticket is not None else b""),
            (ExtensionType.RENEGOTIATION_INFO, _NO_RENEGOTIATION_YET),
        ]

    def _extensions13(self) -> list[tuple[int, bytes]]:
        items: list[tuple[int, bytes]] = [
            (ExtensionType.SUPPORTED_VERSIONS, write_codes(self.method.versions, prefix=1)),
        ]
        if self.cookie is not None:
            writer = Writer()
            writer.vector(self.cookie, 2)
            items.append((ExtensionType.COOKIE, writer.getvalue()))
        modes = [PskKeyExchangeMode.PSK_DHE_KE]
        if self.configuration.psk_without_dhe:
            modes.append(PskKeyExchangeMode.PSK_KE)
        items.append((ExtensionType.PSK_KEY_EXCHANGE_MODES, bytes((len(modes), *modes))))
        shares = (self.share,) if self.share is not None else ()
        items.append((ExtensionType.KEY_SHARE, write_client_shares(shares)))
        psk = self.psk
        if psk is not None:
            body = write_offered_psk(psk.ticket, psk.obfuscated_age(self.now), psk.suite.hash.length)
            items.append((ExtensionType.PRE_SHARED_KEY, body))
        return items

    def check_answers(self, answers: Extensions, allowed: frozenset[ExtensionType]) -> None:
        """Every extension of an answer must have been offered, and belong into that message.

        Raises: UnsupportedExtension, IllegalParameter (RFC 8446 section 4.2).
        """
        offered = self.extensions().types()
        for code in answers.types():
            if code not in offered and code != ExtensionType.COOKIE:
                raise UnsupportedExtension(f"the server answers extension {code}, which was not offered")
            if code not in allowed:
                raise IllegalParameter(f"extension {code} does not belong into this message")
