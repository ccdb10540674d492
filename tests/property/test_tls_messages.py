"""Messages and extensions: what is written is read back, and any bytes give a message or a typed error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.errors import DecodeError, LocumError
from locum.handshake import MAX_CERTIFICATES
from locum.tls import extensions as ext
from locum.tls import messages12, messages13
from locum.tls.alerts import IllegalParameter
from locum.tls.extensions import MAX_EXTENSIONS, Extensions, KeyShareEntry
from locum.tls.messages import CertificateVerify, ClientHello, Finished, ServerHello, serialize
from locum.tls.receiving import message_name, parse_message
from locum.tls.registry import KeyExchange
from locum.wire.cursor import Reader

u8, u16, u32 = st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
octets = st.binary(max_size=60)
some = st.binary(min_size=1, max_size=60)
random32 = st.binary(min_size=32, max_size=32)
session_id = st.binary(max_size=32)
codes = st.lists(u16, min_size=1, max_size=20).map(tuple)
extension_lists = st.lists(st.tuples(u16, octets), max_size=8, unique_by=lambda item: item[0]).map(
    lambda items: Extensions(tuple(items))
)

MESSAGES: dict[str, st.SearchStrategy[Any]] = {
    "ClientHello": st.builds(
        ClientHello,
        legacy_version=u16,
        random=random32,
        session_id=session_id,
        cipher_suites=codes,
        compression_methods=some,
        extensions=extension_lists,
    ),
    "ServerHello": st.builds(
        ServerHello,
        legacy_version=u16,
        random=random32,
        session_id=session_id,
        cipher_suite=u16,
        compression_method=u8,
        extensions=extension_lists,
    ),
    "CertificateVerify": st.builds(CertificateVerify, scheme=u16, signature=some),
    "Finished": st.builds(Finished, verify_data=octets),
    "EncryptedExtensions": st.builds(messages13.EncryptedExtensions, extensions=extension_lists),
    "CertificateRequest 1.3": st.builds(messages13.CertificateRequest, context=octets, extensions=extension_lists),
    "Certificate 1.3": st.builds(
        messages13.Certificate,
        context=octets,
        entries=st.lists(st.tuples(some, extension_lists), max_size=4).map(tuple),
    ),
    "NewSessionTicket 1.3": st.builds(
        messages13.NewSessionTicket,
        lifetime=u32,
        age_add=u32,
        nonce=octets,
        ticket=some,
        extensions=extension_lists,
    ),
    "KeyUpdate": st.builds(messages13.KeyUpdate, update_requested=st.booleans()),
    "HelloRequest": st.builds(messages12.HelloRequest),
    "Certificate 1.2": st.builds(
        messages12.Certificate, certificates=st.lists(some, max_size=MAX_CERTIFICATES).map(tuple)
    ),
    "CertificateStatus": st.builds(messages12.CertificateStatus, ocsp_response=some),
    "ServerKeyExchange": st.builds(messages12.ServerKeyExchange, body=octets),
    "CertificateRequest 1.2": st.builds(
        messages12.CertificateRequest,
        certificate_types=some,
        schemes=codes,
        authorities=st.lists(some, max_size=5).map(tuple),
    ),
    "ServerHelloDone": st.builds(messages12.ServerHelloDone),
    "ClientKeyExchange": st.builds(messages12.ClientKeyExchange, body=octets),
    "NewSessionTicket 1.2": st.builds(messages12.NewSessionTicket, lifetime_hint=u32, ticket=octets),
}


@pytest.mark.parametrize("name", MESSAGES)
@given(data=st.data())
def test_every_message_is_read_as_it_was_written(name: str, data: st.DataObject) -> None:
    message = data.draw(MESSAGES[name])
    raw = serialize(message)
    assert raw[0] == message.type
    assert int.from_bytes(raw[1:4], "big") == len(raw) - 4
    assert parse_message(type(message), raw) == message
    assert serialize(parse_message(type(message), raw)) == raw


#: Messages whose body is whatever is left, so that any length is one.
ANY_LENGTH = ("Finished", "ServerKeyExchange", "ClientKeyExchange")


@pytest.mark.parametrize("name", [name for name in MESSAGES if name not in ANY_LENGTH])
@given(data=st.data())
def test_every_message_is_refused_when_cut_or_lengthened(name: str, data: st.DataObject) -> None:
    message = data.draw(MESSAGES[name])
    raw = serialize(message)
    with pytest.raises(LocumError):
        parse_message(type(message), raw + data.draw(some))
    if len(raw) > 4:
        cut = raw[: data.draw(st.integers(4, len(raw) - 1))]
        try:
            shorter = parse_message(type(message), cut)
        except DecodeError:
            return
        # Only a hello of TLS 1.2 may end before its extensions.
        assert name in ("ClientHello", "ServerHello")
        assert shorter.extensions == Extensions()


@pytest.mark.parametrize("name", MESSAGES)
@given(data=st.data(), body=st.binary(max_size=200))
def test_any_bytes_are_a_message_that_is_written_the_same_or_a_typed_error(
    name: str, data: st.DataObject, body: bytes
) -> None:
    kind = type(data.draw(MESSAGES[name]))
    raw = bytes((kind.type,)) + len(body).to_bytes(3, "big") + body
    try:
        message = parse_message(kind, raw)
    except LocumError:
        return
    written = serialize(message)
    # A hello without extensions field is written with an empty one.
    assert written in (raw, raw[:1] + (len(body) + 2).to_bytes(3, "big") + body + b"\0\0")


def test_more_extensions_than_allowed_are_refused() -> None:
    def many(count: int) -> bytes:
        body = b"".join(code.to_bytes(2, "big") + b"\0\0" for code in range(count))
        return len(body).to_bytes(2, "big") + body

    assert len(Extensions.parse(Reader(many(MAX_EXTENSIONS))).items) == MAX_EXTENSIONS
    with pytest.raises(DecodeError, match="more than"):
        Extensions.parse(Reader(many(MAX_EXTENSIONS + 1)))


@given(extension_lists.filter(lambda extensions: bool(extensions.items)), st.data())
def test_an_extension_that_occurs_twice_is_refused_wherever_it_stands(
    extensions: Extensions, data: st.DataObject
) -> None:
    items = list(extensions.items)
    items.insert(data.draw(st.integers(0, len(items))), (data.draw(st.sampled_from(items))[0], b"again"))
    raw = b"".join(code.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body for code, body in items)
    with pytest.raises(IllegalParameter, match="twice"):
        Extensions.parse(Reader(len(raw).to_bytes(2, "big") + raw))


# --- bodies of extensions -----------------------------------------------------------------------------------

hosts = st.text("abcdefghijklmnopqrstuvwxyz0123456789-.", min_size=1, max_size=253)
latin1 = st.text(st.characters(max_codepoint=255), min_size=1, max_size=255)
shares = st.lists(st.builds(KeyShareEntry, u16, some), max_size=5).map(tuple)
BODIES: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    "codes": (codes, ext.write_codes, ext.parse_codes),
    "versions": (codes, lambda v: ext.write_codes(v, prefix=1), lambda d: ext.parse_codes(d, prefix=1)),
    "u16": (u16, ext.write_u16, ext.parse_u16),
    "server_name": (hosts, ext.write_server_name, ext.parse_server_name),
    "alpn": (st.lists(latin1, min_size=1, max_size=4).map(tuple), ext.write_alpn, ext.parse_alpn),
    "shares": (shares, ext.write_client_shares, ext.parse_client_shares),
    "status": (some, ext.write_certificate_status, ext.parse_certificate_status),
    "names": (st.lists(some, max_size=5).map(tuple), ext.write_names, ext.parse_names),
}
PARSERS: dict[str, Callable[[bytes], Any]] = {
    **{name: body[2] for name, body in BODIES.items()},
    "server_share": ext.parse_server_share,
    "cookie": ext.parse_cookie,
    "point_formats": ext.parse_point_formats,
    "empty": ext.expect_empty,
}


@pytest.mark.parametrize("name", BODIES)
@given(data=st.data())
def test_every_extension_is_read_as_it_was_written_and_refused_when_cut_or_lengthened(
    name: str, data: st.DataObject
) -> None:
    strategy, write, parse = BODIES[name]
    value = data.draw(strategy)
    raw = write(value)
    assert parse(raw) == value
    for damaged in (raw + b"\0", raw[:-1]):
        with pytest.raises(DecodeError):
            parse(damaged)


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=100))
def test_any_bytes_are_an_extension_or_a_typed_error(name: str, data: bytes) -> None:
    try:
        PARSERS[name](data)
    except LocumError:
        return


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("codes", b"\0\0"),
        ("codes", b"\0\x03abc"),
        ("server_name", b"\0\0"),
        ("server_name", b"\0\x04\x01\0\x01a"),
        ("server_name", b"\0\x04\0\0\x01\xff"),
        ("server_name", b"\0\x03\0\0\0"),
        ("server_name", b"\0\x08\0\0\x01a\0\0\x01b"),
        ("alpn", b"\0\x02\0\0"),
        ("alpn", b"\0\0"),
        ("cookie", b"\0\0"),
        ("status", b"\x02\0\0\x01x"),
        ("status", b"\x01\0\0\0"),
        ("names", b"\0\x02\0\0"),
        ("point_formats", b"\0"),
        ("empty", b"\0"),
    ],
)
def test_values_that_the_rfcs_rule_out_are_refused(name: str, data: bytes) -> None:
    with pytest.raises(DecodeError):
        PARSERS[name](data)


# --- ServerKeyExchange --------------------------------------------------------------------------------------


@given(group=u16, point=some, scheme=u16, signature=some)
def test_elliptic_parameters_are_cut_out_as_they_were_sent(
    group: int, point: bytes, scheme: int, signature: bytes
) -> None:
    parameters = b"\x03" + group.to_bytes(2, "big") + bytes((len(point),)) + point
    signed = scheme.to_bytes(2, "big") + len(signature).to_bytes(2, "big") + signature
    message = messages12.ServerKeyExchange(body=parameters + signed)
    assert message.split(KeyExchange.ECDHE) == (parameters, scheme, signature, group)


@given(p=some, g=some, y=some, scheme=u16, signature=some)
def test_finite_field_parameters_are_cut_out_as_they_were_sent(
    p: bytes, g: bytes, y: bytes, scheme: int, signature: bytes
) -> None:
    parameters = b"".join(len(part).to_bytes(2, "big") + part for part in (p, g, y))
    signed = scheme.to_bytes(2, "big") + len(signature).to_bytes(2, "big") + signature
    message = messages12.ServerKeyExchange(body=parameters + signed)
    assert message.split(KeyExchange.DHE) == (parameters, scheme, signature, None)
    with pytest.raises(DecodeError):
        messages12.ServerKeyExchange(body=parameters + signed + b"x").split(KeyExchange.DHE)


@pytest.mark.parametrize(
    ("code", "name"), [(1, "ClientHello"), (14, "ServerHelloDone"), (99, "handshake message 99")]
)
def test_messages_are_called_by_their_names(code: int, name: str) -> None:
    assert message_name(code) == name
