"""Block-wise transfer (RFC 7959): option values, both ends of a transfer, and what does not fit together."""

from __future__ import annotations

import pytest
from tests.support.link_network import SECRETS, pair

from locum.errors import DecodeError, Misbehaved
from locum.link.blockwise import Block, ClientTransfer, Download, Reply, Shelf, Upload, szx_for
from locum.link.coap import MAXIMUM_BODY, Code, Framing, OptionNumber
from locum.link.exchange import TransmissionParameters

BLOCK1, BLOCK2, ETAG = int(OptionNumber.BLOCK1), int(OptionNumber.BLOCK2), int(OptionNumber.ETAG)


@pytest.mark.parametrize(
    ("value", "block"), [("", (0, 0, 0)), ("06", (0, 0, 6)), ("1e", (1, 1, 6)), ("fffff8", (1048575, 1, 0))]
)
def test_block_values(value: str, block: tuple[int, int, int]) -> None:
    parsed = Block.parse(bytes.fromhex(value), Framing.DATAGRAM)
    assert parsed == block
    assert parsed.write().hex() == value


def test_size_7_means_many_blocks_on_a_stream_and_nothing_in_a_datagram() -> None:
    """RFC 8323 section 6."""
    with pytest.raises(DecodeError, match="reserved"):
        Block.parse(b"\x07", Framing.DATAGRAM)
    block = Block.parse(b"\x2f", Framing.STREAM)
    assert (block.offset, block.fits(4096), block.fits(4095), block.fits(0)) == (2048, True, False, False)
    assert Block(2, False, 7).fits(100)


@pytest.mark.parametrize(("room", "size"), [(1024, 1024), (5000, 1024), (1023, 512), (64, 64), (16, 16), (3, 16)])
def test_blocks_are_as_large_as_the_room_allows(room: int, size: int) -> None:
    assert 16 << szx_for(room) == size


def transfer(size: int, block: int | None = 64) -> ClientTransfer:
    return ClientTransfer(bytes(size), framing=Framing.DATAGRAM, block_size=block, tag=b"\x01")


def test_a_request_goes_in_blocks_and_takes_the_size_that_the_server_prefers() -> None:
    """RFC 7959 section 3.2, figure 8: 128-byte blocks begun, 32-byte blocks gone on with."""
    made = transfer(200, 128)
    options, payload = made.message()
    assert dict(options) == {BLOCK1: b"\x0b", OptionNumber.SIZE1: b"\xc8", OptionNumber.REQUEST_TAG: b"\x01"}
    assert len(payload) == 128
    assert made.message() == (options, payload), "asking twice changes nothing"
    assert made.accept(Code.CONTINUE, {BLOCK1: [Block(0, True, 1).write()]}, b"") is None
    sizes = []
    for number in (4, 5, 6):
        options, payload = made.message()
        block = Block.parse(dict(options)[BLOCK1], Framing.DATAGRAM)
        assert (block.number, block.szx) == (number, 1)
        sizes.append(len(payload))
        code = Code.CONTINUE if block.more else Code.CHANGED
        reply = made.accept(code, {BLOCK1: [block.write()]}, b"")
    assert sizes == [32, 32, 8]
    assert reply == Reply(Code.CHANGED, b"")


def test_a_server_that_finds_the_first_block_too_large_gets_smaller_ones() -> None:
    """RFC 7959 section 2.9.3."""
    made = transfer(200, 128)
    made.message()
    assert made.accept(Code.REQUEST_ENTITY_TOO_LARGE, {BLOCK1: [Block(0, True, 0).write()]}, b"") is None
    assert len(made.message()[1]) == 16


def test_an_error_in_mid_request_is_the_reply() -> None:
    made = transfer(200)
    made.message()
    reply = made.accept(Code.REQUEST_ENTITY_INCOMPLETE, {BLOCK1: [Block(0, True, 2).write()]}, b"")
    assert reply == Reply(Code.REQUEST_ENTITY_INCOMPLETE, b"")


@pytest.mark.parametrize(
    "responses",
    [
        [(Code.CONTINUE, {}, b"")],
        [(Code.CONTINUE, {BLOCK1: [Block(3, True, 2).write()]}, b"")],
        [(Code.CONTENT, {BLOCK2: [Block(1, True, 0).write()]}, bytes(16))],
        [(Code.CONTENT, {BLOCK2: [Block(0, True, 0).write()]}, bytes(15))],
        [(Code.CONTENT, {BLOCK2: [Block(0, True, 0).write()]}, bytes(16)), (Code.CONTENT, {}, b"")],
        [
            (Code.CONTENT, {BLOCK2: [Block(0, True, 0).write()], ETAG: [b"1"]}, bytes(16)),
            (Code.CONTENT, {BLOCK2: [Block(1, True, 0).write()], ETAG: [b"2"]}, bytes(16)),
        ],
        [
            (Code.CONTENT, {BLOCK2: [Block(number, True, 6).write()]}, bytes(1024))
            for number in range(MAXIMUM_BODY // 1024 + 1)
        ],
    ],
    ids=["nothing left", "other block", "not the first", "not full", "no last", "other body", "too much"],
)
def test_blocks_that_do_not_fit_together_are_misbehaviour(
    responses: list[tuple[int, dict[int, list[bytes]], bytes]],
) -> None:
    made = transfer(100)
    with pytest.raises(Misbehaved):
        for response in responses:
            assert made.accept(*response) is None


def test_an_upload_takes_blocks_in_order_only() -> None:
    upload = Upload()
    assert upload.add(Block(0, True, 0), bytes(16)) is None
    assert upload.add(Block(2, True, 0), bytes(16)) == Code.REQUEST_ENTITY_INCOMPLETE
    assert upload.add(Block(1, True, 0), bytes(15)) == Code.BAD_REQUEST
    assert upload.add(Block(1, False, 0), bytes(17)) == Code.BAD_REQUEST
    assert upload.add(Block(1, False, 0), b"end") is None
    assert upload.body() == bytes(16) + b"end"


def test_a_download_gives_blocks_of_any_size_and_none_beyond_its_end() -> None:
    download = Download(Code.CONTENT, bytes(range(40)), b"e")
    assert download.block(0, 6) == (Block(0, False, 6), bytes(range(40)))
    assert download.block(2, 0) == (Block(2, False, 0), bytes(range(32, 40)))
    assert download.block(1, 0) == (Block(1, True, 0), bytes(range(16, 32)))
    assert download.block(3, 0) is None
    assert "\\x01" not in repr(download)


def test_a_shelf_is_bounded_for_each_owner_in_all_and_in_time() -> None:
    shelf: Shelf[int] = Shelf(per_owner=2, total=3, lifetime=10.0)
    for key in range(3):
        shelf.put("a", key, key, 0.0)
    assert [shelf.get("a", key, 0.0) for key in range(3)] == [None, 1, 2]
    shelf.put("a", 2, 22, 1.0)
    shelf.put("b", 0, 0, 2.0)
    assert len(shelf) == 3
    shelf.put("c", 0, 0, 3.0)
    assert shelf.get("a", 1, 3.0) is None
    assert shelf.get("a", 2, 3.0) == 22
    assert shelf.next_timeout() == 11.0
    assert shelf.get("a", 2, 11.0) is None
    shelf.forget(13.0)
    assert (len(shelf), shelf.next_timeout()) == (0, None)


@pytest.mark.parametrize("algorithm", list(SECRETS))
@pytest.mark.parametrize("size", [1, 1100, 1101, 1200, 3000, MAXIMUM_BODY])
def test_bodies_of_any_size_arrive_both_ways_and_no_datagram_exceeds_its_limit(algorithm: str, size: int) -> None:
    network, client = pair(algorithm)
    body = bytes(index % 253 for index in range(size))
    network.application = lambda request: (Code.CONTENT, request.payload[::-1])
    assert network.ask(client, body).payload == body[::-1]
    assert max(len(data) for _, _, data in network.travelled) <= TransmissionParameters().datagram_size


def test_a_larger_datagram_size_carries_in_one_what_else_takes_blocks() -> None:
    network, client = pair(parameters=TransmissionParameters(datagram_size=8192))
    network.ask(client, b"")
    before = client.exchanges
    assert len(network.ask(client, bytes(5000)).payload) > 5000
    assert client.exchanges == before + 1


@pytest.mark.parametrize("size", [128, 600])
def test_a_small_datagram_size_makes_small_blocks(size: int) -> None:
    network, client = pair(parameters=TransmissionParameters(datagram_size=size))
    assert network.ask(client, bytes(1000)).payload == b"terminal-1 /kx " + bytes(1000)
    assert max(len(data) for _, _, data in network.travelled) <= size


def test_concurrent_bodies_of_one_terminal_do_not_mix() -> None:
    """RFC 9175 section 3.4."""
    network, client = pair(parameters=TransmissionParameters(nstart=3))
    network.ask(client, b"")
    network.application = lambda request: (Code.CONTENT, request.payload * 3)
    bodies = [bytes((index,)) * size for index, size in enumerate((900, 1000, 2500))]
    exchanges = [client.request("/kx", body, now=network.now) for body in bodies]
    for exchange, body in zip(exchanges, bodies, strict=True):
        assert network.run(client, exchange).payload == body * 3
