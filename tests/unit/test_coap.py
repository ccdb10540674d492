"""CoAP messages: options, datagrams (RFC 7252 section 3) and streams (RFC 8323 section 3)."""

from __future__ import annotations

import pytest

from locum.errors import DecodeError
from locum.link import coap
from locum.link.coap import RULES, Code, Message, OptionNumber, StreamReader, Type, UnacceptableOption


def test_a_datagram_is_written_as_the_rfc_draws_it() -> None:
    """RFC 7252 appendix A, figure 16: GET /temperature, and its piggybacked response."""
    request = Message(Code.GET, b"", ((OptionNumber.URI_PATH, b"temperature"),), message_id=0x7D34)
    assert request.write_datagram() == bytes.fromhex("40017d34bb") + b"temperature"
    response = Message(Code.CONTENT, b"", (), b"22.3 C", Type.ACKNOWLEDGEMENT, 0x7D34)
    assert response.write_datagram() == bytes.fromhex("60457d34ff") + b"22.3 C"
    for message in (request, response):
        assert Message.parse_datagram(message.write_datagram()) == message


@pytest.mark.parametrize("length", [0, 1, 12, 13, 268, 269, 1000])
@pytest.mark.parametrize("number", [1, 12, 13, 268, 269, 65535])
def test_every_form_of_option_delta_and_length_survives(number: int, length: int) -> None:
    message = Message(Code.POST, b"ab", ((number, b"v" * length), (number, b"")), b"payload", message_id=7)
    assert Message.parse_datagram(message.write_datagram()) == message
    plaintext = message.write_plaintext()
    assert Message.parse_plaintext(plaintext) == Message(Code.POST, b"", message.options, b"payload")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "datagram of 0 bytes"),
        (b"\x40\x01\x00", "datagram of 3 bytes"),
        (b"\x80\x01\x00\x00", "version 2"),
        (b"\x49\x01\x00\x00" + bytes(9), "token length"),
        (b"\x44\x01\x00\x00\x01", "token length"),
        (b"\x40\x00\x00\x00\x00", "empty message with content"),
        (b"\x41\x00\x00\x00\x00", "empty message with content"),
        (b"\x40\x01\x00\x00\xff", "without payload"),
        (b"\x40\x01\x00\x00\xb4\x61", "cut off"),
        (b"\x40\x01\x00\x00\xf0", "reserved"),
        (b"\x40\x01\x00\x00\x0f", "reserved"),
        (b"\x40\x01\x00\x00\xd0", "cut off"),
        (b"\x40\x01\x00\x00\xe0\x00", "cut off"),
        (b"\x40\x01\x00\x00\xe0\xff\xff", "out of range"),
        (b"\x40\x01\x00\x00" + b"\x00" * (coap.MAXIMUM_OPTIONS + 1), "too many options"),
    ],
)
def test_a_malformed_datagram_is_a_decode_error(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        Message.parse_datagram(data)


def test_nothing_inside_of_the_protection_is_a_decode_error() -> None:
    with pytest.raises(DecodeError, match="nothing"):
        Message.parse_plaintext(b"")


def test_options_out_of_order_are_never_written() -> None:
    with pytest.raises(ValueError, match="order"):
        Message(Code.POST, b"", ((11, b"a"), (3, b"b"))).write_datagram()


def test_only_a_confirmable_message_of_this_version_is_reset() -> None:
    """RFC 7252 sections 3 and 4.2."""
    assert coap.reset_for(b"\x40\x01\x12\x34\xff") == b"\x70\x00\x12\x34"
    assert coap.reset_for(b"\x50\x01\x12\x34\xff") is None
    assert coap.reset_for(b"\xc0\x01\x12\x34\xff") is None
    assert coap.reset_for(b"\x40") is None


def test_unknown_elective_options_are_left_out_and_critical_ones_raise() -> None:
    """RFC 7252 section 5.4.1."""
    assert coap.recognise([(OptionNumber.URI_PATH, b"kx"), (2048, b"?")], RULES) == {11: [b"kx"]}
    with pytest.raises(UnacceptableOption, match="critical option 2049"):
        coap.recognise([(2049, b"")], RULES)


def test_a_wrong_length_or_a_repetition_counts_as_unknown() -> None:
    """RFC 7252 sections 5.4.3 and 5.4.5."""
    assert coap.recognise([(OptionNumber.ECHO, b"")], RULES) == {}
    assert coap.recognise([(OptionNumber.ETAG, b"1"), (OptionNumber.ETAG, b"2")], RULES) == {4: [b"1"]}
    assert coap.recognise([(OptionNumber.URI_PATH, b"a"), (OptionNumber.URI_PATH, b"b")], RULES) == {
        11: [b"a", b"b"]
    }
    for options in ([(OptionNumber.BLOCK1, bytes(4))], [(OptionNumber.BLOCK1, b""), (OptionNumber.BLOCK1, b"")]):
        with pytest.raises(UnacceptableOption):
            coap.recognise(options, RULES)


@pytest.mark.parametrize("size", [0, 1, 11, 12, 13, 267, 268, 269, 65804, 65805, 66000])
def test_a_stream_carries_messages_of_every_length_form(size: int) -> None:
    """RFC 8323 section 3.2: lengths in the nibble, in 1, 2 and 4 further bytes."""
    message = Message(Code.POST, b"t", (), bytes(size))
    reader = StreamReader()
    reader.feed(message.write_stream() * 2)
    assert [reader.next(), reader.next(), reader.next()] == [message, message, None]


def test_a_stream_message_is_refused_by_its_length_alone() -> None:
    reader = StreamReader()
    reader.feed(b"\xf0\x00\x01\x00\x00")
    with pytest.raises(DecodeError, match="more than"):
        reader.next()


def test_a_stream_message_with_a_long_token_is_refused() -> None:
    reader = StreamReader()
    reader.feed(b"\x09")
    with pytest.raises(DecodeError, match="token"):
        reader.next()


def test_capabilities_announce_that_a_whole_body_goes_in_one_message() -> None:
    """RFC 8323 section 5.3."""
    reader = StreamReader()
    reader.feed(coap.capabilities())
    message = reader.next()
    assert message is not None
    assert (coap.maximum_message_size(message) or 0) >= coap.MAXIMUM_BODY
    assert coap.maximum_message_size(Message(Code.CSM)) is None
    assert coap.maximum_message_size(Message(Code.PING, b"", ((2, b""),))) is None
    with pytest.raises(UnacceptableOption):
        coap.maximum_message_size(Message(Code.CSM, b"", ((3, b""),)))
