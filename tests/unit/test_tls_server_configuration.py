"""What a TLS server can be configured with, and what it cannot."""

from __future__ import annotations

from typing import Any

import pytest

from locum.errors import ConfigurationError
from locum.tls.registry import CIPHER_SUITES, HYBRID_GROUPS, KeyExchange, NamedGroup, ProtocolVersion
from locum.tls.server_configuration import (
    DEFAULT_CIPHER_SUITES,
    DEFAULT_GROUPS,
    MAX_AUTHORITIES,
    MAX_TICKET_COUNT,
    ClientCertificates,
    ServerConfiguration,
)


@pytest.mark.parametrize(
    "wrong",
    [
        {"versions": ()},
        {"versions": (0x0302,)},
        {"cipher_suites": ()},
        {"cipher_suites": (0x1301, 0xC013)},
        {"cipher_suites": (0x1301, 0x1302)},
        {"groups": ()},
        {"groups": (0x0019,)},
        {"alpn": ("",)},
        {"alpn": ("x" * 256,)},
        {"alpn": ("h\u20ac",)},
        {"alpn": ("x",) * 17},
        {"ticket_count": -1},
        {"ticket_count": MAX_TICKET_COUNT + 1},
        {"session_lifetime": 0},
        {"session_lifetime": 604_801},
        {"client_schemes": ()},
        {"client_authorities": (b"",)},
        {"client_authorities": (b"x",) * (MAX_AUTHORITIES + 1)},
        {"client_authorities": (b"x" * 16_385,)},
        {"record_size_limit": 63},
        {"record_size_limit": 16_386},
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ServerConfiguration(**wrong)
    (name,) = wrong
    assert name.lower().split("_")[0] in str(caught.value).lower()


def test_by_default_forward_secrecy_comes_first_and_short_tags_do_not_come_at_all() -> None:
    exchanges = [CIPHER_SUITES[code].key_exchange for code in DEFAULT_CIPHER_SUITES]
    assert set(exchanges[exchanges.index(KeyExchange.RSA) :]) == {KeyExchange.RSA}
    assert all(CIPHER_SUITES[code].aead.tag_length == 16 for code in DEFAULT_CIPHER_SUITES)
    assert DEFAULT_GROUPS[0] in HYBRID_GROUPS
    assert NamedGroup.FFDHE2048 not in DEFAULT_GROUPS
    assert ServerConfiguration().versions == (ProtocolVersion.TLS_1_3, ProtocolVersion.TLS_1_2)


def test_servers_that_ask_clients_for_other_things_have_other_resumption_contexts() -> None:
    asks = ClientCertificates.REQUIRED
    contexts = [
        ServerConfiguration().resumption_context,
        ServerConfiguration(session_context=b"x").resumption_context,
        ServerConfiguration(client_certificates=asks).resumption_context,
        ServerConfiguration(client_certificates=ClientCertificates.OPTIONAL).resumption_context,
        ServerConfiguration(client_certificates=asks, client_authorities=(b"ab",)).resumption_context,
        ServerConfiguration(client_certificates=asks, client_authorities=(b"a", b"b")).resumption_context,
        ServerConfiguration(client_certificates=asks, session_context=b"ab").resumption_context,
    ]
    assert len(set(contexts)) == len(contexts)
    assert ServerConfiguration(alpn=("h2",)).resumption_context == contexts[0]
