"""Names and addresses as users write them."""

from __future__ import annotations

import pytest

from locum.errors import ConfigurationError
from locum.names import (
    DelegateAddress,
    HostPort,
    check_name,
    normalize_distinguished_name,
    normalize_dns_name,
    normalize_email,
)


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


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("a@b.example", "a@b.example"),
        ("First.Last+tag@B.Example.", "First.Last+tag@b.example"),
        ("a" * 64 + "@b", "a" * 64 + "@b"),
    ],
)
def test_only_the_domain_of_an_email_address_is_without_case(text: str, normal: str) -> None:
    assert normalize_email(text) == normal


@pytest.mark.parametrize("text", ["", "a", "@b", "a@", "a b@c", '"a"@b', "a@b@c", "é@b", "a@b c", "a" * 65 + "@b"])
def test_what_is_no_email_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        normalize_email(text)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        # The examples of RFC 4514 section 4.
        ("UID=jsmith,DC=example,DC=net", "UID=jsmith,DC=example,DC=net"),
        ("OU=Sales+CN=J.  Smith,DC=example,DC=net", "CN=j. smith+OU=sales,DC=example,DC=net"),
        (r"CN=James \"Jim\" Smith\, III,DC=example,DC=net", r"CN=james \"jim\" smith\, iii,DC=example,DC=net"),
        (r"CN=Before\0dAfter,DC=example,DC=net", "CN=before after,DC=example,DC=net"),
        ("1.3.6.1.4.1.1466.0=#04024869", "1.3.6.1.4.1.1466.0=#04024869"),
        (r"CN=Lu\C4\8Di\C4\87", "CN=lučić"),
        # As people and other programs write them.
        ("cn = a , o = b", "CN=a,O=b"),
        ("2.5.4.3=a,2.5.4.10=b", "CN=a,O=b"),
        ("E=a@b.example,CN=x", "1.2.840.113549.1.9.1=a@b.example,CN=x"),
        ("1.2.840.113549.1.9.1=a@b.example", "1.2.840.113549.1.9.1=a@b.example"),
        (r"CN=\ a \ ", "CN=a"),
        (r"CN=\#a#b=c", r"CN=\#a#b=c"),
        ("CN=#0C0141 ", "CN=#0c0141"),
        (r"CN=a\\,O=b", r"CN=a\\,O=b"),
        ("CN=a\x1b[31m", r"CN=a\1b[31m"),
        ("CN=STRASSE", "CN=strasse"),
        ("CN=Straße", "CN=strasse"),
    ],
)
def test_a_distinguished_name_has_one_normal_form(text: str, normal: str) -> None:
    assert normalize_distinguished_name(text) == normal
    assert normalize_distinguished_name(normal) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "=a",
        "CN=",
        "CN=  ",
        ",CN=a",
        "CN=a,",
        "CN=a+",
        "CN=a;O=b",
        'CN="a"',
        "CN=<a>",
        "CN=a\0",
        "CN=a\\",
        "CN=a\\x",
        "CN=a\\0",
        "CN=\\ff",
        "CN=\udcff",
        "CN=#",
        "CN=#0",
        "CN=#xy",
        "XYZ=a",
        "3.1=a",
        "1.02=a",
        "1=a",
    ],
)
def test_what_is_no_distinguished_name_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a distinguished name") as caught:
        normalize_distinguished_name(text)
    assert "\n" not in str(caught.value)
