"""IKE payloads of both versions: what is written is read back, and any bytes give payloads or a typed error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locum.errors import DecodeError, LocumError
from locum.ike import payloads1 as p1
from locum.ike import payloads2 as p2
from locum.ike import traffic_selectors as ts
from locum.ike.header import MAX_ATTRIBUTES, Attribute, Header, parse_header, write_chain
from locum.ike.registry import ProtocolId
from locum.wire.cursor import Reader, Writer

u8, u16, u32 = st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
octets = st.binary(max_size=60)
spi4 = st.binary(min_size=4, max_size=4)
spi16 = st.binary(min_size=16, max_size=16)

attributes = st.lists(
    st.one_of(
        st.builds(lambda kind, number: Attribute.of(kind, number), st.integers(0, 0x7FFF), u32),
        st.builds(Attribute, type=st.integers(0, 0x7FFF), value=octets, short=st.just(False)),
    ),
    max_size=MAX_ATTRIBUTES,
).map(tuple)

#: Identification data by type: an address has its length, anything else any.
id_type = st.sampled_from([2, 3, 9, 10, 11, 99])
nonce16 = st.binary(min_size=16, max_size=256)
nonce8 = st.binary(min_size=8, max_size=256)


def protocol_and_spi(ike: tuple[int, ...]) -> st.SearchStrategy[tuple[int, bytes]]:
    return st.one_of(
        st.tuples(st.sampled_from([ProtocolId.AH, ProtocolId.ESP]), spi4),
        st.sampled_from(ike).flatmap(
            lambda size: st.tuples(st.just(ProtocolId.IKE), st.binary(min_size=size, max_size=size))
        ),
    )


transforms2 = st.lists(st.builds(p2.Transform, type=u8, id=u16, attributes=attributes), max_size=5).map(tuple)
proposals2 = st.builds(
    lambda number, where, transforms: p2.Proposal(
        number=number, protocol=where[0], spi=where[1], transforms=transforms
    ),
    u8,
    protocol_and_spi((0, 8)),
    transforms2,
)
transforms1 = st.lists(
    st.builds(p1.Transform, number=u8, id=u8, attributes=attributes), min_size=1, max_size=5
).map(tuple)
proposals1 = st.builds(
    lambda number, where, transforms: p1.Proposal(
        number=number, protocol=where[0], spi=where[1], transforms=transforms
    ),
    u8,
    protocol_and_spi((0, 8, 16)),
    transforms1,
)


def selector(kind: int, size: int) -> st.SearchStrategy[ts.TrafficSelector]:
    address = st.binary(min_size=size, max_size=size)
    return st.builds(
        ts.TrafficSelector,
        ts_type=st.just(kind),
        protocol=u8,
        start_port=u16,
        end_port=u16,
        start=address,
        end=address,
    )


selectors = st.lists(
    st.one_of(
        selector(7, 4),
        selector(8, 16),
        st.builds(ts.TrafficSelector, ts_type=st.just(9), protocol=u8, start=octets),
    ),
    min_size=1,
    max_size=5,
).map(tuple)

IKE_2: dict[str, st.SearchStrategy[Any]] = {
    "SA": st.builds(p2.SecurityAssociation, proposals=st.lists(proposals2, min_size=1, max_size=4).map(tuple)),
    "KE": st.builds(p2.KeyExchange, group=u16, data=octets),
    "IDi": st.builds(p2.IdentificationInitiator, id_type=id_type, data=octets),
    "IDr": st.builds(p2.IdentificationResponder, id_type=st.just(1), data=spi4),
    "CERT": st.builds(p2.Certificate, encoding=u8, data=octets),
    "CERTREQ": st.builds(p2.CertificateRequest, encoding=u8, data=octets),
    "AUTH": st.builds(p2.Authentication, method=u8, data=octets),
    "Nonce": st.builds(p2.Nonce, data=nonce16),
    "Notify": st.builds(p2.Notify, notify_type=u16, data=octets, protocol=u8, spi=octets),
    "Delete of ESP": st.builds(
        p2.Delete, protocol=st.just(ProtocolId.ESP), spis=st.lists(spi4, max_size=5).map(tuple)
    ),
    "Delete of IKE": st.just(p2.Delete(protocol=ProtocolId.IKE)),
    "Vendor ID": st.builds(p2.VendorId, data=octets),
    "TSi": st.builds(ts.TrafficSelectorsInitiator, selectors=selectors),
    "TSr": st.builds(ts.TrafficSelectorsResponder, selectors=selectors),
    "unknown": st.builds(p2.Unknown, type=st.sampled_from([1, 32, 47, 48, 49, 52, 200, 255]), body=octets),
}

IKE_1: dict[str, st.SearchStrategy[Any]] = {
    "SA": st.builds(
        p1.SecurityAssociation, doi=u32, proposals=st.lists(proposals1, min_size=1, max_size=4).map(tuple)
    ),
    "KE": st.builds(p1.KeyExchange, data=octets),
    "ID": st.builds(p1.Identification, id_type=id_type, protocol=u8, port=u16, data=octets),
    "ID of a subnet": st.builds(
        p1.Identification, id_type=st.just(6), protocol=u8, port=u16, data=st.binary(min_size=32, max_size=32)
    ),
    "CERT": st.builds(p1.Certificate, encoding=u8, data=octets),
    "CR": st.builds(p1.CertificateRequest, encoding=u8, authority=octets),
    "HASH": st.builds(p1.Hash, data=octets),
    "SIG": st.builds(p1.Signature, data=octets),
    "NONCE": st.builds(p1.Nonce, data=nonce8),
    "N": st.builds(
        p1.Notification,
        doi=u32,
        protocol=u8,
        notify_type=u16,
        spi=st.binary(max_size=16),
        data=octets,
    ),
    "D of ESP": st.builds(
        p1.Delete, doi=u32, protocol=st.just(3), spis=st.lists(spi4, min_size=1, max_size=5).map(tuple)
    ),
    "D of ISAKMP": st.builds(
        p1.Delete, doi=u32, protocol=st.just(1), spis=st.lists(spi16, min_size=1, max_size=2).map(tuple)
    ),
    "VID": st.builds(p1.VendorId, data=octets),
    "NAT-D": st.builds(p1.NatDetection, data=octets),
    "NAT-OA": st.builds(p1.NatOriginalAddress, id_type=st.just(1), address=spi4),
    "fragment": st.builds(p1.Fragment, id=u16, number=u8, last=st.booleans(), data=octets),
    "unknown": st.builds(p1.Unknown, type=st.sampled_from([14, 15, 22, 33, 133, 255]), body=octets),
}


def read2(first: int, data: bytes) -> tuple[Any, ...]:
    return p2.parse_payloads(first, data)


def read1(first: int, data: bytes) -> tuple[Any, ...]:
    return p1.parse_payloads(first, data).items


Read = Callable[[int, bytes], tuple[Any, ...]]
VERSIONS: tuple[tuple[Read, Any, dict[str, st.SearchStrategy[Any]]], ...] = (
    (read1, p1.write_payloads, IKE_1),
    (read2, p2.write_payloads, IKE_2),
)
EVERY = [
    pytest.param(read, write, strategy, id=f"{version}-{name}")
    for version, (read, write, table) in enumerate(VERSIONS, 1)
    for name, strategy in table.items()
]


@pytest.mark.parametrize(("read", "write", "strategy"), EVERY)
@given(data=st.data())
def test_every_payload_is_read_as_it_was_written(
    read: Read, write: Any, strategy: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    payload = data.draw(strategy)
    first, chain = write((payload,))
    assert first == payload.type
    assert int.from_bytes(chain[2:4], "big") == len(chain)
    assert read(first, chain) == (payload,)


@pytest.mark.parametrize(("read", "write", "table"), VERSIONS, ids=("1", "2"))
@given(data=st.data())
def test_a_chain_is_read_as_it_was_written(
    read: Read, write: Any, table: dict[str, st.SearchStrategy[Any]], data: st.DataObject
) -> None:
    payloads = tuple(data.draw(st.lists(st.one_of(*table.values()), max_size=6)))
    first, chain = write(payloads)
    assert read(first, chain) == payloads


@pytest.mark.parametrize(("read", "write", "table"), VERSIONS, ids=("1", "2"))
@given(data=st.data())
def test_a_chain_that_is_cut_or_lengthened_is_refused(
    read: Read, write: Any, table: dict[str, st.SearchStrategy[Any]], data: st.DataObject
) -> None:
    payloads = tuple(data.draw(st.lists(st.one_of(*table.values()), min_size=1, max_size=4)))
    first, chain = write(payloads)
    with pytest.raises(DecodeError):
        read(first, chain + data.draw(st.binary(min_size=1, max_size=20)))
    with pytest.raises(DecodeError):
        read(first, chain[: data.draw(st.integers(0, len(chain) - 1))])


#: Payloads whose body is fields and lists to the very end, so that a shorter or longer body is malformed.
EXACT = [
    pytest.param(parse, strategy, id=name)
    for name, parse, strategy in (
        ("SA 2", p2.SecurityAssociation.parse, IKE_2["SA"]),
        ("TSi 2", ts.TrafficSelectorsInitiator.parse, IKE_2["TSi"]),
        ("D 2", p2.Delete.parse, IKE_2["Delete of ESP"]),
        ("SA 1", p1.SecurityAssociation.parse, IKE_1["SA"]),
        ("D 1", p1.Delete.parse, IKE_1["D of ESP"]),
    )
]


@pytest.mark.parametrize(("parse", "strategy"), EXACT)
@settings(max_examples=40)
@given(data=st.data())
def test_a_body_of_another_length_is_refused(
    parse: Callable[[Reader], Any], strategy: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    writer = Writer()
    data.draw(strategy).write(writer)
    body = writer.getvalue()
    wrong = body[: data.draw(st.integers(0, len(body) - 1))]
    for each in (wrong, body + b"\0"):
        with pytest.raises(DecodeError):
            reader = Reader(each)
            parse(reader)
            reader.finish()


@pytest.mark.parametrize("read", [read1, read2], ids=("1", "2"))
@given(first=u8, body=st.binary(max_size=300))
def test_any_bytes_give_payloads_or_a_typed_error(read: Read, first: int, body: bytes) -> None:
    try:
        read(first, body)
    except LocumError:
        return


@pytest.mark.parametrize("read", [read1, read2], ids=("1", "2"))
@given(kind=st.integers(1, 255), body=st.binary(max_size=200))
def test_any_body_gives_a_payload_or_a_typed_error(read: Read, kind: int, body: bytes) -> None:
    first, chain = write_chain(((kind, body),))
    try:
        read(first, chain)
    except LocumError:
        return


@given(
    header=st.builds(
        Header,
        initiator_spi=st.binary(min_size=8, max_size=8).filter(any),
        responder_spi=st.binary(min_size=8, max_size=8),
        next_payload=u8,
        version=st.sampled_from([0x10, 0x20, 0x2F]),
        exchange_type=u8,
        flags=u8,
        message_id=u32,
        length=st.just(28),
    )
)
def test_a_header_is_read_as_it_was_written(header: Header) -> None:
    writer = Writer()
    header.write(writer)
    assert parse_header(writer.getvalue()) == header
