"""What a ClientHello says, read once and checked as far as that needs no decision.

Never knows what a server wants: `selection` chooses. Unknown code points (GREASE, RFC 8701) are kept and harmless.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from locum.errors import Incompatible
from locum.tls.alerts import IllegalParameter
from locum.tls.extensions import (
    KeyShareEntry,
    OfferedPsks,
    expect_empty,
    parse_alpn,
    parse_client_shares,
    parse_codes,
    parse_offered_psks,
    parse_point_formats,
    parse_psk_modes,
    parse_renegotiation_info,
    parse_server_name,
    parse_status_request,
)
from locum.tls.messages import ClientHello
from locum.tls.registry import EMPTY_RENEGOTIATION_INFO_SCSV, FALLBACK_SCSV, ExtensionType, ProtocolVersion
from locum.values import dataclass

#: The longest server name, in bytes (RFC 1035 section 2.3.4).
MAX_SERVER_NAME = 255

_NO_COMPRESSION = 0
_UNCOMPRESSED_POINTS = 0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOffer:
    """The offer; what is None was not said. Code points are in the client's order.

    `server_name` is in lower case and without a trailing dot, empty when no name was given. `ticket` is that of
    TLS 1.2 (RFC 5077), empty when the client only wants one. `record_size_limit` is the extension's body.
    """

    hello: ClientHello
    versions: tuple[int, ...]
    server_name: str
    groups: tuple[int, ...] | None
    schemes: tuple[int, ...] | None
    shares: tuple[KeyShareEntry, ...] | None
    alpn: tuple[str, ...] | None
    psk_modes: bytes | None
    psks: OfferedPsks | None
    ticket: bytes | None
    record_size_limit: bytes | None
    status: bool
    early_data: bool
    extended_master_secret: bool
    point_formats: bool
    secure_renegotiation: bool
    fallback: bool

    @classmethod
    def of(cls, hello: ClientHello) -> ClientOffer:
        """Read the extensions of `hello`.

        Raises: DecodeError for a malformed one, IllegalParameter for what no client may say.
        """
        found = dict(hello.extensions.items)
        if ExtensionType.PRE_SHARED_KEY in found and hello.extensions.items[-1][0] != ExtensionType.PRE_SHARED_KEY:
            # RFC 8446 section 4.2.11: it "MUST be the last extension in the ClientHello".
            raise IllegalParameter("pre_shared_key is not the last extension")
        if _NO_COMPRESSION not in hello.compression_methods:
            raise IllegalParameter("the client insists on compression")
        psks = _parsed(found, ExtensionType.PRE_SHARED_KEY, parse_offered_psks)
        return cls(
            hello=hello,
            versions=_versions(hello, found),
            server_name=_server_name(found),
            groups=_parsed(found, ExtensionType.SUPPORTED_GROUPS, parse_codes),
            schemes=_parsed(found, ExtensionType.SIGNATURE_ALGORITHMS, parse_codes),
            shares=_shares(found),
            alpn=_parsed(found, ExtensionType.APPLICATION_LAYER_PROTOCOL_NEGOTIATION, parse_alpn),
            psk_modes=_parsed(found, ExtensionType.PSK_KEY_EXCHANGE_MODES, parse_psk_modes),
            psks=psks,
            ticket=found.get(ExtensionType.SESSION_TICKET),
            record_size_limit=found.get(ExtensionType.RECORD_SIZE_LIMIT),
            status=_parsed(found, ExtensionType.STATUS_REQUEST, parse_status_request) or False,
            early_data=_present(found, ExtensionType.EARLY_DATA),
            extended_master_secret=_present(found, ExtensionType.EXTENDED_MASTER_SECRET),
            point_formats=_point_formats(found),
            secure_renegotiation=_secure_renegotiation(hello, found),
            fallback=FALLBACK_SCSV in hello.cipher_suites,
        )

    def share(self, group: int) -> KeyShareEntry | None:
        """The client's key share in this group, if there is one."""
        return next((share for share in self.shares or () if share.group == group), None)

    def agrees_with(self, first: ClientOffer) -> bool:
        """True when this ClientHello, after a HelloRetryRequest, repeats what was decided on.

        Key shares, early data and pre-shared keys may change (RFC 8446 section 4.1.2), and what nobody here knows.
        """
        ours, theirs = self.hello, first.hello
        return (
            ours.legacy_version == theirs.legacy_version
            and ours.random == theirs.random
            and ours.session_id == theirs.session_id
            and ours.cipher_suites == theirs.cipher_suites
            and ours.compression_methods == theirs.compression_methods
            and self.versions == first.versions
            and self.server_name == first.server_name
            and self.groups == first.groups
            and self.schemes == first.schemes
            and self.alpn == first.alpn
            and self.psk_modes == first.psk_modes
            and self.record_size_limit == first.record_size_limit
            and self.status == first.status
        )


def _parsed(found: dict[int, bytes], code: ExtensionType, parse: Callable[[bytes], T]) -> T | None:
    data = found.get(code)
    return parse(data) if data is not None else None


def _present(found: dict[int, bytes], code: ExtensionType) -> bool:
    """True for an extension that says everything by being there."""
    data = found.get(code)
    if data is None:
        return False
    expect_empty(data)
    return True


def _versions(hello: ClientHello, found: dict[int, bytes]) -> tuple[int, ...]:
    """RFC 8446 section 4.2.1: where supported_versions is, nothing else says anything of versions."""
    data = found.get(ExtensionType.SUPPORTED_VERSIONS)
    if data is not None:
        return parse_codes(data, prefix=1)
    return (ProtocolVersion.TLS_1_2,) if hello.legacy_version >= ProtocolVersion.TLS_1_2 else ()


def _server_name(found: dict[int, bytes]) -> str:
    data = found.get(ExtensionType.SERVER_NAME)
    if data is None:
        return ""
    name = parse_server_name(data)
    # It is ASCII, of which the visible may be passed on.
    if len(name) > MAX_SERVER_NAME or not name.isprintable() or " " in name:
        raise IllegalParameter("a server name that no server can have")
    return name.lower().removesuffix(".")


def _shares(found: dict[int, bytes]) -> tuple[KeyShareEntry, ...] | None:
    shares = _parsed(found, ExtensionType.KEY_SHARE, parse_client_shares)
    if shares is not None and len({share.group for share in shares}) != len(shares):
        # RFC 8446 section 4.2.8: "Clients MUST NOT offer multiple KeyShareEntry values for the same group."
        raise IllegalParameter("two key shares in the same group")
    return shares


def _point_formats(found: dict[int, bytes]) -> bool:
    formats = _parsed(found, ExtensionType.EC_POINT_FORMATS, parse_point_formats)
    if formats is not None and _UNCOMPRESSED_POINTS not in formats:
        # RFC 8422 section 5.1.2: clients "MUST include uncompressed in the list".
        raise IllegalParameter("the client cannot use uncompressed points")
    return formats is not None


def _secure_renegotiation(hello: ClientHello, found: dict[int, bytes]) -> bool:
    info = _parsed(found, ExtensionType.RENEGOTIATION_INFO, parse_renegotiation_info)
    if info:
        # RFC 5746 section 3.6: "the server MUST abort the handshake", for this is a first one.
        raise Incompatible("renegotiation_info of a first handshake is not empty")
    return info is not None or EMPTY_RENEGOTIATION_INFO_SCSV in hello.cipher_suites
