"""The keyless protocol, whatever arrives: round trips, any fragmentation, and nothing but typed errors."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from locum.errors import LocumError
from locum.keyless.frames import Frame, FrameReader, encode_frame
from locum.keyless.opcodes import pad_block
from locum.keyless.operations import CertificateVerify, Decrypt, MasterSecret, Role, ServerKeyExchange, Sign
from locum.keyless.registry import SIGNING
from locum.keyless.requests import Ping, Request, decode_request, encode_request
from locum.keys.rejection import take_off_padding
from locum.tls.registry import SignatureScheme

SETTINGS = settings(max_examples=200)
SKI = st.one_of(st.just(b""), st.binary(min_size=20, max_size=20))
FRAMES = st.builds(
    Frame,
    id=st.integers(0, 0xFFFFFFFF),
    opcode=st.integers(1, 0xFF),
    payload=st.binary(max_size=300),
    ski=SKI,
    digest=st.one_of(st.just(b""), st.binary(min_size=32, max_size=32)),
    server_name=st.binary(max_size=50),
    function=st.binary(max_size=64),
    extra=st.binary(max_size=50),
)
SCHEMES = st.sampled_from(list(SignatureScheme)).map(lambda scheme: scheme.name)
RANDOMS = st.binary(min_size=32, max_size=32)
REQUESTS: st.SearchStrategy[Request] = st.one_of(
    st.builds(Ping, st.binary(max_size=100)),
    st.builds(Decrypt, st.binary(max_size=1024)),
    st.sampled_from(list(SIGNING.values())).flatmap(
        lambda signing: st.builds(
            Sign,
            st.just(signing.scheme),
            st.binary(min_size=signing.digest_length, max_size=signing.digest_length or 100),
            st.just(signing.digest_length > 0),
        )
    ),
    st.builds(Sign, st.from_regex(r"\A[A-Z0-9_]{1,48}\Z"), st.binary(max_size=100), st.booleans()).filter(
        lambda sign: sign.scheme not in {signing.scheme for signing in SIGNING.values()}
    ),
    st.builds(CertificateVerify, SCHEMES, st.sampled_from(Role), st.binary(max_size=64)),
    st.builds(ServerKeyExchange, SCHEMES, RANDOMS, RANDOMS, st.binary(max_size=300)),
    st.builds(
        MasterSecret,
        st.binary(max_size=512),
        st.integers(0, 0xFFFF),
        RANDOMS,
        RANDOMS,
        RANDOMS,
        st.sampled_from(("sha256", "sha384")),
        st.booleans(),
        st.binary(max_size=500),
    ),
)


@SETTINGS
@given(st.lists(FRAMES, max_size=5), st.data())
def test_frames_are_read_back_from_a_stream_cut_anywhere(frames: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(map(encode_frame, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = FrameReader()
    found: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:end])
    assert found == frames
    assert reader.pending == 0


@SETTINGS
@given(REQUESTS, SKI.filter(bool))
def test_requests_are_read_back(request: Request, ski: bytes) -> None:
    (frame,) = FrameReader().feed(encode_request(5, request))
    assert decode_request(frame) == request


@SETTINGS
@given(st.binary(max_size=400), st.data())
def test_random_bytes_give_the_same_frames_whole_and_cut(stream: bytes, data: st.DataObject) -> None:
    stream = b"\x01\x00\x00" + stream
    whole = FrameReader()
    expected = whole.feed(stream)
    cut = data.draw(st.integers(0, len(stream)))
    reader = FrameReader()
    found = reader.feed(stream[:cut])
    if reader.fault is None:
        found += reader.feed(stream[cut:])
    assert found == expected
    assert (reader.fault is None) == (whole.fault is None)
    for frame in found:
        try:
            decode_request(frame)
        except LocumError:
            continue


@SETTINGS
@given(st.binary(max_size=245), st.integers(0, 2**32))
def test_a_message_survives_its_block(message: bytes, seed: int) -> None:
    block = pad_block(message, 256, Random(seed).randbytes)
    assert len(block) == 256
    assert take_off_padding(block, b"?") == message
