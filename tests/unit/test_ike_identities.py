"""Who an IKE peer says it is: payloads, texts, and what a certificate is good for."""

from __future__ import annotations

import pytest
from cryptography import x509
from tests.support import pki

from locum.authority.ike_identities import (
    identification_of,
    identities_of,
    parse_identification,
    proves,
    wanted_identity,
)
from locum.crypto.asymmetric.certificates import Subject, subject_of
from locum.errors import ConfigurationError, DecodeError, Refused
from locum.ike.registry import IdentificationType as Type


def body(kind: int, data: bytes) -> bytes:
    return bytes((kind, 0, 0, 0)) + data


NAME = x509.Name.from_rfc4514_string("CN=Gateway One,O=Example Corp,C=NL")

PAIRS = [
    pytest.param(body(Type.FQDN, b"Peer.Example.com"), "dns:peer.example.com", id="dns"),
    pytest.param(body(Type.IPV4_ADDR, bytes((192, 0, 2, 7))), "ip:192.0.2.7", id="ipv4"),
    pytest.param(body(Type.IPV6_ADDR, bytes.fromhex("20010db8" + "0" * 23 + "1")), "ip:2001:db8::1", id="ipv6"),
    pytest.param(body(Type.RFC822_ADDR, b"Ann@Example.com"), "email:Ann@example.com", id="email"),
    pytest.param(body(Type.DER_ASN1_DN, NAME.public_bytes()), "dn:CN=gateway one,O=example corp,C=nl", id="dn"),
    pytest.param(body(Type.KEY_ID, b"\xc0\xff\xee"), "keyid:c0ffee", id="keyid"),
]


@pytest.mark.parametrize(("payload", "text"), PAIRS)
def test_payload_is_read_as_the_text_of_a_verdict(payload: bytes, text: str) -> None:
    parsed = parse_identification(payload)
    assert parsed.text == text
    assert parsed.body == payload
    assert parsed.kind == payload[0]
    assert parsed.data == payload[4:]


@pytest.mark.parametrize(("payload", "text"), PAIRS)
def test_text_is_written_as_a_payload_that_says_so(payload: bytes, text: str) -> None:
    written = identification_of(text)
    assert written.body[0] == payload[0]
    assert parse_identification(written.body).text == text == written.text


def test_distinguished_name_is_sent_as_it_was_written() -> None:
    assert identification_of("dn:CN=Gateway One,O=Example Corp,C=NL").data == NAME.public_bytes()


def test_mapped_address_is_the_ipv4_address() -> None:
    mapped = bytes(10) + b"\xff\xff" + bytes((192, 0, 2, 7))
    assert parse_identification(body(Type.IPV6_ADDR, mapped)).text == "ip:192.0.2.7"


def test_protocol_and_port_of_ikev1_do_not_matter_for_the_text() -> None:
    assert parse_identification(bytes((1, 17, 1, 244, 192, 0, 2, 7))).text == "ip:192.0.2.7"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bytes(4),
        body(Type.FQDN, b""),
        body(Type.FQDN, b"not a name"),
        body(Type.FQDN, b"*.example.com"),
        body(Type.FQDN, b"\xff"),
        body(Type.IPV4_ADDR, bytes(3)),
        body(Type.IPV6_ADDR, bytes(4)),
        body(Type.RFC822_ADDR, b"nobody"),
        body(Type.RFC822_ADDR, b"*@example.com"),
        body(Type.DER_ASN1_DN, b"\x30\x80"),
        body(Type.DER_ASN1_DN, b"\x30\x00"),
        body(Type.DER_ASN1_GN, b"\x82\x01a"),
        body(Type.IPV4_ADDR_SUBNET, bytes(8)),
        body(99, b"x"),
        body(Type.KEY_ID, bytes(3000)),
    ],
    ids=lambda payload: payload[:12].hex() or "empty",
)
def test_identification_that_names_nobody_is_a_decode_error(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_identification(payload)


@pytest.mark.parametrize("text", ["", "pin:x", "*", "dns:*.example.com", "dn:nonsense", "keyid:xyz", "x:y"])
def test_text_that_is_no_identity_is_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigurationError):
        identification_of(text)


def test_terminal_names_nobody_or_somebody() -> None:
    assert wanted_identity("", "x") is None
    with pytest.raises(Refused, match="what: "):
        wanted_identity("dns:", "what")


def certificate(names: tuple[str, ...] = (), subject: str = "gateway", **options: object) -> Subject:
    return subject_of(pki.leaf(pki.ca(), "p256", names, subject=subject, **options).certificate)  # type: ignore[arg-type]


def test_certificate_stands_for_its_names_addresses_and_subject() -> None:
    found = identities_of(certificate(("a.example.com", "192.0.2.1", "b.example.com")))
    assert [each.text for each in found] == [
        "dns:a.example.com",
        "dns:b.example.com",
        "ip:192.0.2.1",
        "dn:CN=gateway",
    ]


def test_mail_address_in_a_certificate_is_an_identity() -> None:
    extension = (x509.SubjectAlternativeName([x509.RFC822Name("ann@example.com")]), False)
    found = identities_of(certificate(extensions=(extension,)))
    assert [each.text for each in found] == ["email:ann@example.com", "dn:CN=gateway"]


def test_wildcard_proves_nobody() -> None:
    subject = certificate(("*.example.com",))
    assert not proves(subject, identification_of("dns:a.example.com"))
    assert [each.text for each in identities_of(subject)] == ["dn:CN=gateway"]


def test_common_name_proves_no_dns_name() -> None:
    assert not proves(certificate(subject="a.example.com"), identification_of("dns:a.example.com"))


def test_name_in_another_string_type_is_the_same_name() -> None:
    printable = x509.Name(
        [x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway", x509.name._ASN1Type.PrintableString)]
    )
    utf8 = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway", x509.name._ASN1Type.UTF8String)])
    assert printable.public_bytes() != utf8.public_bytes()
    for name in (printable, utf8):
        assert proves(certificate(), parse_identification(body(Type.DER_ASN1_DN, name.public_bytes())))
    other = x509.Name.from_rfc4514_string("CN=gateway,O=Other")
    assert not proves(certificate(), parse_identification(body(Type.DER_ASN1_DN, other.public_bytes())))


def test_certificate_without_any_name_stands_for_nobody() -> None:
    assert identities_of(Subject(x509.Name([]))) == ()
