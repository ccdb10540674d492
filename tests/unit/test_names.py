"""Names and addresses as users write them."""

from __future__ import annotations

import pytest

from locum.errors import ConfigurationError
from locum.names import DelegateAddress, HostPort, check_name, normalize_dns_name


@pytest.mark.parametrize("name", ["a", "meter-7", "A.b_c-9", "7" * 64])
def test_plain_names_are_taken_as_they_are(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".a", "a-", "a b", "a/b", "a" * 65, "é", "a\n", "٣"])
def test_names_that_need_quoting_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a name"):
        check_name(name)


@pytest.mark.parametrize(
    ("text", "host", "port", "normal"),
    [
        ("127.0.0.1:5683", "127.0.0.1", 5683, None),
        ("Example.COM.:443", "example.com", 443, "example.com:443"),
        ("[::1]:0", "::1", 0, None),
        ("[2001:DB8::0]:65535", "2001:db8::", 65535, "[2001:db8::]:65535"),
        ("localhost:1", "localhost", 1, None),
    ],
)
def test_host_and_port_are_read_and_written(text: str, host: str, port: int, normal: str | None) -> None:
    parsed = HostPort.parse(text)
    assert (parsed.host, parsed.port) == (host, port)
    assert str(parsed) == (normal or text)
    assert HostPort.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":1",
        "a",
        "a:",
        "a:x",
        "a:65536",
        "a:-1",
        "a:1:2",
        "::1",
        "[::1]",
        "[::1]x",
        "[::1",
        "[a]:1",
        "1.2.3:4",
        "256.1.1.1:1",
        "a b:1",
        "a:٣",
        "a:0000001",
        "a" * 400 + ":1",
        "a:1 ",
    ],
)
def test_what_is_not_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        HostPort.parse(text)


@pytest.mark.parametrize(
    ("text", "transport", "normal"),
    [
        ("coap://127.0.0.1:5683", "udp", "coap://127.0.0.1:5683"),
        ("coap://delegate.example", "udp", "coap://delegate.example:5683"),
        ("coap+tcp://[::1]", "tcp", "coap+tcp://[::1]:5683"),
        ("coap+tcp://a:1", "tcp", "coap+tcp://a:1"),
    ],
)
def test_a_delegates_address_is_read_and_written(text: str, transport: str, normal: str) -> None:
    address = DelegateAddress.parse(text)
    assert (address.transport, str(address)) == (transport, normal)
    assert DelegateAddress.parse(normal) == address


@pytest.mark.parametrize(
    "text", ["", "a:1", "coaps://a", "http://a", "coap://", "coap://a/kx", "coap://a:0", "coap:a"]
)
def test_what_is_no_delegates_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        DelegateAddress.parse(text)


def test_an_international_name_is_asked_for_in_its_ascii_form() -> None:
    with pytest.raises(ConfigurationError, match="xn--"):
        normalize_dns_name("bücher.example")
