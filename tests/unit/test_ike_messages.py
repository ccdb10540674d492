"""Headers, chains and payloads at their limits, and what an unknown payload leads to."""

from __future__ import annotations

import pytest

from locum.errors import DecodeError
from locum.ike import payloads1, payloads2
from locum.ike import traffic_selectors as ts
from locum.ike.errors import UnsupportedCriticalPayload, UnsupportedVersion
from locum.ike.header import (
    MAX_ATTRIBUTES,
    MAX_MESSAGE,
    MAX_PAYLOADS,
    Attribute,
    Header,
    parse_attributes,
    parse_chain,
    parse_header,
    write_chain,
)
from locum.ike.registry import (
    ExchangeType,
    NotifyType1,
    NotifyType2,
    PayloadType1,
    PayloadType2,
    ProtocolId,
    name_of,
)
from locum.wire.cursor import Reader, Writer

HEADER = Header(
    initiator_spi=b"initiatr",
    version=0x20,
    exchange_type=ExchangeType.IKE_SA_INIT,
    flags=0x08,
    message_id=0,
    length=28,
)


def written(header: Header) -> bytes:
    writer = Writer()
    header.write(writer)
    return writer.getvalue()


# --- header and chain -----------------------------------------------------------------------------------------


def test_a_minor_version_from_the_future_is_read_like_ours() -> None:
    assert parse_header(written(HEADER._replace(version=0x29))).major_version == 2


@pytest.mark.parametrize("version", [0x00, 0x30, 0xF0])
def test_another_major_version_is_unsupported(version: int) -> None:
    with pytest.raises(UnsupportedVersion):
        parse_header(written(HEADER._replace(version=version)))


@pytest.mark.parametrize("length", [0, 27, 29, 0xFFFFFFFF])
def test_a_length_other_than_the_datagrams_is_refused(length: int) -> None:
    with pytest.raises(DecodeError, match="says it has"):
        parse_header(written(HEADER._replace(length=length)))


def test_an_initiator_spi_of_zero_is_refused() -> None:
    with pytest.raises(DecodeError, match="zero"):
        parse_header(written(HEADER._replace(initiator_spi=bytes(8))))


def test_a_header_that_is_cut_is_refused() -> None:
    with pytest.raises(DecodeError):
        parse_header(written(HEADER)[:27])


def test_a_datagram_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(DecodeError, match="65508"):
        parse_header(bytes(MAX_MESSAGE + 1))


def test_as_many_payloads_as_allowed_are_read_and_one_more_is_refused() -> None:
    vendor = (PayloadType2.VENDOR_ID, b"")
    first, chain = write_chain([vendor] * MAX_PAYLOADS)
    assert len(parse_chain(first, chain)) == MAX_PAYLOADS
    first, chain = write_chain([vendor] * (MAX_PAYLOADS + 1))
    with pytest.raises(DecodeError, match="payloads"):
        parse_chain(first, chain)


@pytest.mark.parametrize("length", [0, 3])
def test_a_payload_shorter_than_its_header_is_refused(length: int) -> None:
    with pytest.raises(DecodeError, match=f"{length} bytes"):
        parse_chain(PayloadType2.NONCE, bytes((PayloadType2.NONCE, 0, 0, length)) * 4)


def test_an_empty_chain_has_no_payload() -> None:
    assert write_chain(()) == (0, b"")
    assert payloads2.parse_payloads(0, b"") == ()


def test_a_payload_that_does_not_fit_its_length_field_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="65536"):
        write_chain(((PayloadType2.CERTIFICATE, bytes(65532)),))


def test_too_many_attributes_are_refused() -> None:
    writer = Writer()
    for _ in range(MAX_ATTRIBUTES + 1):
        Attribute.of(14, 128).write(writer)
    with pytest.raises(DecodeError, match="attributes"):
        parse_attributes(Reader(writer.getvalue()))


def test_a_long_number_takes_the_long_form_of_an_attribute() -> None:
    assert Attribute.of(12, 65535) == Attribute(12, b"\xff\xff")
    long = Attribute.of(12, 65536)
    assert (long.short, long.number) == (False, 65536)
    writer = Writer()
    with pytest.raises(ValueError, match="two bytes"):
        Attribute(12, b"\1").write(writer)


# --- IKEv2 ----------------------------------------------------------------------------------------------------


def test_an_unknown_payload_is_kept_and_a_critical_one_is_not_tolerated() -> None:
    # RFC 7296 section 2.5: "If the critical flag is not set and the payload type is unsupported, that payload
    # MUST be ignored."
    assert payloads2.parse_payloads(200, b"\0\0\0\5\1") == (payloads2.Unknown(type=200, body=b"\1"),)
    with pytest.raises(UnsupportedCriticalPayload) as caught:
        payloads2.parse_payloads(200, b"\0\x80\0\5\1")
    assert caught.value.payload_type == 200


@pytest.mark.parametrize("kind", [PayloadType2.CONFIGURATION, PayloadType2.EXTENSIBLE_AUTHENTICATION])
def test_the_critical_bit_says_nothing_in_a_payload_of_the_rfc_itself(kind: PayloadType2) -> None:
    assert payloads2.parse_payloads(kind, b"\0\x80\0\5\1") == (payloads2.Unknown(type=kind, body=b"\1"),)


def test_the_critical_bit_of_a_known_payload_is_ignored() -> None:
    assert payloads2.parse_payloads(PayloadType2.VENDOR_ID, b"\0\x80\0\5\1") == (payloads2.VendorId(data=b"\1"),)


@pytest.mark.parametrize("kind", [PayloadType2.ENCRYPTED, PayloadType2.ENCRYPTED_FRAGMENT])
def test_an_encrypted_payload_inside_of_one_is_refused(kind: PayloadType2) -> None:
    with pytest.raises(DecodeError, match="encrypted"):
        payloads2.parse_payloads(kind, b"\0\0\0\5\1")


@pytest.mark.parametrize(("length", "accepted"), [(15, False), (16, True), (256, True), (257, False)])
def test_a_nonce_has_16_to_256_bytes(length: int, accepted: bool) -> None:
    if accepted:
        assert len(payloads2.Nonce.parse(Reader(bytes(length))).data) == length
    else:
        with pytest.raises(DecodeError, match="nonce"):
            payloads2.Nonce.parse(Reader(bytes(length)))


def sa2(*proposals: bytes) -> bytes:
    parts = []
    for index, body in enumerate(proposals):
        more = 0 if index == len(proposals) - 1 else 2
        parts.append(bytes((more, 0)) + (len(body) + 4).to_bytes(2, "big") + body)
    return b"".join(parts)


TRANSFORM = bytes.fromhex("03000008 02000005")
LAST_TRANSFORM = bytes.fromhex("00000008 04000013")


@pytest.mark.parametrize(
    ("proposal", "what"),
    [
        (bytes((1, 1, 4, 1)) + bytes(4) + LAST_TRANSFORM, "an SPI of 4 bytes"),
        (bytes((1, 3, 8, 1)) + bytes(8) + LAST_TRANSFORM, "an SPI of 8 bytes"),
        (bytes((1, 1, 0, 2)) + LAST_TRANSFORM, "marked"),
        (bytes((1, 1, 0, 1)) + TRANSFORM + LAST_TRANSFORM, "marked"),
        (bytes((1, 1, 0, 65)) + TRANSFORM * 64 + LAST_TRANSFORM, "transforms"),
        (bytes((1, 1, 0, 1)) + bytes((0, 0, 0, 3, 4, 0, 0, 19)), "3 bytes"),
        (bytes((1, 1, 0, 1)) + LAST_TRANSFORM + b"\0", "too many"),
    ],
)
def test_malformed_proposals_are_refused(proposal: bytes, what: str) -> None:
    with pytest.raises(DecodeError, match=what):
        payloads2.SecurityAssociation.parse(Reader(sa2(proposal)))


def test_more_proposals_than_allowed_are_refused() -> None:
    proposal = bytes((1, 1, 0, 1)) + LAST_TRANSFORM
    whole = sa2(*[proposal] * payloads2.MAX_PROPOSALS)
    assert len(payloads2.SecurityAssociation.parse(Reader(whole)).proposals) == payloads2.MAX_PROPOSALS
    with pytest.raises(DecodeError, match="proposals"):
        payloads2.SecurityAssociation.parse(Reader(sa2(*[proposal] * (payloads2.MAX_PROPOSALS + 1))))


def test_a_proposal_whose_mark_is_unknown_is_refused() -> None:
    with pytest.raises(DecodeError, match="marked 7"):
        payloads2.SecurityAssociation.parse(Reader(b"\7" + sa2(bytes((1, 1, 0, 0)))[1:]))


def test_an_sa_without_a_proposal_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="proposal"):
        payloads2.write_payloads((payloads2.SecurityAssociation(proposals=()),))


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (bytes((0, 0, 0, 0)), "0 traffic selectors"),
        (bytes((65, 0, 0, 0)) + bytes(65 * 16), "65 traffic selectors"),
        (bytes((1, 0, 0, 0, 7, 0, 0, 17)) + bytes(13), "17 bytes"),
        (bytes((1, 0, 0, 0, 9, 0, 0, 3)), "3 bytes"),
    ],
)
def test_malformed_traffic_selectors_are_refused(body: bytes, what: str) -> None:
    with pytest.raises(DecodeError, match=what):
        ts.TrafficSelectorsInitiator.parse(Reader(body))


def test_a_selector_whose_addresses_have_the_wrong_length_cannot_be_written() -> None:
    selector = ts.TrafficSelector(ts_type=7, start=bytes(4), end=bytes(16))
    with pytest.raises(ValueError, match="4 bytes"):
        payloads2.write_payloads((ts.TrafficSelectorsInitiator(selectors=(selector,)),))


@pytest.mark.parametrize(
    "body",
    [
        bytes((3, 4)) + (257).to_bytes(2, "big") + bytes(257 * 4),
        bytes((3, 8, 0, 1)) + bytes(8),
        bytes((1, 4, 0, 1)) + bytes(4),
        bytes((1, 0, 0xFF, 0xFF)),
    ],
)
def test_deletions_of_too_many_or_strange_spis_are_refused(body: bytes) -> None:
    with pytest.raises(DecodeError, match="SPIs"):
        payloads2.Delete.parse(Reader(body))


def test_an_identification_by_address_has_an_addresss_length() -> None:
    with pytest.raises(DecodeError, match="5 bytes"):
        payloads2.IdentificationInitiator.parse(Reader(bytes((1, 0, 0, 0)) + bytes(5)))


def test_a_certificate_request_is_cut_into_hashes() -> None:
    request = payloads2.CertificateRequest(encoding=4, data=b"a" * 20 + b"b" * 20 + b"c")
    assert request.authorities == (b"a" * 20, b"b" * 20)


@pytest.mark.parametrize(("number", "total"), [(0, 1), (2, 1), (1, 0)])
def test_a_fragment_outside_its_total_is_refused(number: int, total: int) -> None:
    (raw,) = parse_chain(
        PayloadType2.ENCRYPTED_FRAGMENT,
        b"\0\0\0\x08" + number.to_bytes(2, "big") + total.to_bytes(2, "big"),
        final=payloads2.FINAL,
    )
    with pytest.raises(DecodeError, match="fragment"):
        payloads2.EncryptedFragment.of(raw)


# --- IKEv1 ----------------------------------------------------------------------------------------------------


def test_padding_is_left_behind_up_to_its_limit_only() -> None:
    first, chain = payloads1.write_payloads((payloads1.Hash(data=bytes(20)),))
    padded = chain + b"\xa5" * payloads1.MAX_PADDING
    parsed = payloads1.parse_payloads(first, padded, maximum_padding=payloads1.MAX_PADDING)
    assert parsed.chain == chain
    for data, maximum in ((padded + b"\0", payloads1.MAX_PADDING), (padded, 0)):
        with pytest.raises(DecodeError, match="behind the last payload"):
            payloads1.parse_payloads(first, data, maximum_padding=maximum)


def test_what_follows_the_hash_is_kept_with_its_headers() -> None:
    payloads = (payloads1.Hash(data=bytes(20)), payloads1.Nonce(data=bytes(16)), payloads1.VendorId(data=b"v"))
    first, chain = payloads1.write_payloads(payloads)
    assert payloads1.parse_payloads(first, chain).after_first() == chain[24:]
    assert payloads1.parse_payloads(0, b"").after_first() == b""


def test_public_key_encryption_makes_identity_and_nonce_ciphertext() -> None:
    cipher = tuple(
        payloads1.Ciphertext(type=kind, data=bytes(257))
        for kind in (PayloadType1.IDENTIFICATION, PayloadType1.NONCE)
    )
    first, chain = payloads1.write_payloads(cipher)
    assert payloads1.parse_payloads(first, chain, public_key_encryption=True).items == cipher
    with pytest.raises(DecodeError, match="nonce"):
        payloads1.parse_payloads(first, chain)


def test_another_situation_is_refused() -> None:
    with pytest.raises(DecodeError, match="situation 2"):
        payloads1.SecurityAssociation.parse(Reader(bytes.fromhex("0000000100000002")))


@pytest.mark.parametrize(
    ("proposals", "what"),
    [
        # a proposal among the proposals that names a transform as the next one
        ("03000010 01010001 00000008 01010000", "payload 3"),
        # two transforms announced, one there
        ("00000010 01010002 00000008 01010000", "2 were announced"),
        ("00000010 01030001 00000008 01010000", "an SPI of 0 bytes"),
        ("00000003", "3 bytes"),
        ("00000008 01011100", "an SPI of 17 bytes"),
    ],
)
def test_malformed_proposals_of_version_1_are_refused(proposals: str, what: str) -> None:
    with pytest.raises(DecodeError, match=what):
        payloads1.SecurityAssociation.parse(Reader(bytes.fromhex("0000000100000001" + proposals)))


def test_more_transforms_than_allowed_are_refused() -> None:
    transform = payloads1.Transform(number=1, id=1)
    many = payloads1.Proposal(number=1, protocol=1, transforms=(transform,) * (payloads1.MAX_TRANSFORMS + 1))
    body = payloads1.body_of(payloads1.SecurityAssociation(proposals=(many,)))
    with pytest.raises(DecodeError, match="transform"):
        payloads1.SecurityAssociation.parse(Reader(body))


@pytest.mark.parametrize("proposal", [(), (payloads1.Proposal(number=1, protocol=1, transforms=()),)])
def test_nothing_empty_can_be_written(proposal: tuple[payloads1.Proposal, ...]) -> None:
    with pytest.raises(ValueError, match="no"):
        payloads1.body_of(payloads1.SecurityAssociation(proposals=proposal))


@pytest.mark.parametrize(
    ("kind", "body", "what"),
    [
        (PayloadType1.IDENTIFICATION, bytes((4, 0, 0, 0)) + bytes(4), "type 4 with 4 bytes"),
        (PayloadType1.NOTIFICATION, bytes(4) + bytes((1, 17, 0, 1)) + bytes(17), "17 bytes"),
        (PayloadType1.DELETE, bytes(4) + bytes((3, 4, 0, 0)), "0 SPIs"),
        (PayloadType1.DELETE, bytes(4) + bytes((3, 4, 1, 1)) + bytes(257 * 4), "257 SPIs"),
        (PayloadType1.DELETE, bytes(4) + bytes((1, 8, 0, 1)) + bytes(8), "8 bytes"),
        (PayloadType1.NAT_OA, bytes((2, 0, 0, 0)) + bytes(4), "type 2"),
        (PayloadType1.NAT_OA, bytes((5, 0, 0, 0)) + bytes(4), "4 bytes"),
        (PayloadType1.NONCE, bytes(7), "7 bytes"),
    ],
)
def test_malformed_payloads_of_version_1_are_refused(kind: PayloadType1, body: bytes, what: str) -> None:
    first, chain = write_chain(((kind, body),))
    with pytest.raises(DecodeError, match=what):
        payloads1.parse_payloads(first, chain)


def test_a_deletion_without_spi_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="SPI"):
        payloads1.body_of(payloads1.Delete(protocol=ProtocolId.ESP, spis=()))


def test_code_points_have_names() -> None:
    assert name_of(NotifyType2, 14) == "NO_PROPOSAL_CHOSEN"
    assert name_of(NotifyType1, 12345) == "12345"
