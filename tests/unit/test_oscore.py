"""OSCORE beyond the vectors: the option's forms, credentials, replay window, exhaustion, secrecy."""

from __future__ import annotations

import pytest
from tests.support.link_network import SECRETS, credential

from locum.crypto.symmetric import AuthenticationFailed
from locum.errors import ConfigurationError, DecodeError, Unavailable
from locum.link.oscore import (
    ALGORITHMS,
    MAXIMUM_SEQUENCE,
    REPLAY_WINDOW,
    Credential,
    OscoreOption,
    ReplayWindow,
    SecurityContext,
    SequenceExhausted,
    partial_iv,
)

ID_CONTEXT = b"\x01\x02\x03\x04"


@pytest.mark.parametrize("piv", [b"", b"\x00", b"\x01\x02\x03\x04\x05"])
@pytest.mark.parametrize("kid", [None, b"", b"\x01\x02"])
@pytest.mark.parametrize("kid_context", [None, b"", b"context"])
def test_every_form_of_the_option_survives(piv: bytes, kid: bytes | None, kid_context: bytes | None) -> None:
    option = OscoreOption(piv, kid, kid_context)
    assert OscoreOption.parse(option.write()) == option


@pytest.mark.parametrize(
    "data", ["00", "20", "40", "80", "06", "07", "01", "10", "1005", "100100ff", "0100ff", "1903"]
)
def test_a_malformed_option_is_a_decode_error(data: str) -> None:
    """RFC 8613 section 6.1: reserved bits and lengths, parts cut off, parts nobody announced."""
    with pytest.raises(DecodeError):
        OscoreOption.parse(bytes.fromhex(data))


@pytest.mark.parametrize(
    ("kid", "peer", "secret", "algorithm", "reason"),
    [
        (b"a", b"a", bytes(16), ALGORITHMS[0], "different"),
        (b"a" * 8, b"b", bytes(16), ALGORITHMS[0], "at most 7"),
        (b"a", b"b" * 7, bytes(32), ALGORITHMS[1], "at most 6"),
        (b"a", b"b", bytes(15), ALGORITHMS[0], "at least 16"),
        (b"a", b"b", bytes(16), "ROT13", "unknown OSCORE algorithm"),
    ],
)
def test_a_credential_that_cannot_work_is_a_configuration_error(
    kid: bytes, peer: bytes, secret: bytes, algorithm: str, reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        Credential(kid, peer, secret, b"", algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_both_ends_understand_each_other_and_nobody_else(algorithm: str) -> None:
    given = credential(1, algorithm)
    terminal = SecurityContext.of_terminal(given, ID_CONTEXT)
    delegate = SecurityContext.of_delegate(given, ID_CONTEXT)
    request = terminal.seal_request(b"\x05", b"request")
    assert delegate.open_request(b"\x05", request) == b"request"
    response = delegate.seal_response(b"\x05", b"response")
    assert terminal.open_response(b"\x05", response) == b"response"
    own = delegate.seal_response(b"\x05", b"response", piv=b"\x09")
    assert terminal.open_response(b"\x05", own, piv=b"\x09") == b"response"
    for wrong in (
        lambda: delegate.open_request(b"\x06", request),
        lambda: delegate.open_request(b"\x05", request[:-1] + bytes((request[-1] ^ 1,))),
        lambda: delegate.open_request(b"\x05", b"short"),
        lambda: terminal.open_response(b"\x06", response),
        lambda: terminal.open_response(b"\x06", own, piv=b"\x09"),
        lambda: SecurityContext.of_delegate(given, b"other").open_request(b"\x05", request),
        lambda: SecurityContext.of_delegate(credential(2, algorithm), ID_CONTEXT).open_request(b"\x05", request),
    ):
        with pytest.raises(AuthenticationFailed):
            wrong()


def test_partial_ivs_are_as_short_as_can_be_and_end_at_five_bytes() -> None:
    """RFC 8613 sections 5 and 7.2.1."""
    assert [partial_iv(number).hex() for number in (0, 255, 256)] == ["00", "ff", "0100"]
    assert partial_iv(MAXIMUM_SEQUENCE) == b"\xff" * 5
    with pytest.raises(SequenceExhausted, match="enrol"):
        partial_iv(MAXIMUM_SEQUENCE + 1)
    assert issubclass(SequenceExhausted, Unavailable)


def test_the_window_takes_each_number_once() -> None:
    """RFC 8613 section 7.4."""
    window = ReplayWindow(100)
    assert not window.acceptable(100)
    assert not window.acceptable(99)
    for number in (101, 105, 103):
        assert window.acceptable(number)
        window.accept(number)
        assert not window.acceptable(number)
    assert window.acceptable(102)
    assert window.acceptable(104)


def test_the_window_has_an_end_and_survives_jumps() -> None:
    window = ReplayWindow(0)
    window.accept(REPLAY_WINDOW)
    assert not window.acceptable(0)
    assert window.acceptable(1)
    window.accept(REPLAY_WINDOW + 1)
    assert not window.acceptable(1)
    window.accept(MAXIMUM_SEQUENCE)
    assert window.acceptable(MAXIMUM_SEQUENCE - 1)
    assert not window.acceptable(MAXIMUM_SEQUENCE)
    assert not window.acceptable(MAXIMUM_SEQUENCE - REPLAY_WINDOW)


def test_no_secret_shows() -> None:
    for algorithm, secret in SECRETS.items():
        given = credential(1, algorithm)
        shown = repr(given) + repr(SecurityContext.of_terminal(given, ID_CONTEXT))
        assert repr(secret)[2:-1] not in shown
        assert "salt" not in shown
