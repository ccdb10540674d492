"""Properties over bytes: however a stream is cut the outcome is the same, and damage ends in a typed error."""

from __future__ import annotations

import contextlib
import random as pseudo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.tls_script import SCRIPTS, Conversation, Recording, Script, record, recorded

from locum.errors import LocumError
from locum.tls.alerts import BadRecordMac, Misbehaved, Truncated, alert_for
from locum.tls.connection import CloseReceived, DataReceived, HandshakeComplete
from locum.tls.messages import serialize
from locum.tls.registry import ContentType

STATES = [(script, played) for script in SCRIPTS for played in range(len(script.steps) + 1)]


def name_of(state: tuple[Script, int]) -> str:
    return f"{state[0].name}, {state[1]} steps played"


def whole_stream(script: Script) -> bytes:
    """Everything a server of this script sends: the handshake, data in several records, and its end."""
    talk = Conversation(script)
    pieces = []
    for step in script.steps:
        pieces.append(talk.step(step))
        talk.deliver(pieces[-1])
    pieces += [talk.seal(ContentType.APPLICATION_DATA, b"data %d" % number) for number in range(3)]
    pieces.append(talk.seal(ContentType.ALERT, b"\x01\x00"))
    return b"".join(pieces)


STREAMS = {script.name: whole_stream(script) for script in SCRIPTS}


def outcome(talk: Conversation) -> tuple[bytes, bytes, list[str]]:
    """What can be seen of a connection: bytes sent, data received, kinds of events."""
    data = b"".join(event.data for event in talk.events if isinstance(event, DataReceived))
    return talk.sent, data, [type(event).__name__ for event in talk.events]


# --- chunking -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
@settings(max_examples=40)
@given(data=st.data())
def test_the_outcome_does_not_depend_on_how_the_stream_is_cut(script: Script, data: st.DataObject) -> None:
    stream = STREAMS[script.name]
    expected = Recording(script)
    expected.deliver(stream)
    assert isinstance(expected.events[-1], CloseReceived)
    talk = Recording(script)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=30)))
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        talk.deliver(stream[start:end])
    assert outcome(talk) == outcome(expected)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
@pytest.mark.parametrize("chunk", [1, 2, 3, 5])
def test_the_outcome_is_the_same_byte_by_byte(script: Script, chunk: int) -> None:
    expected, talk = Recording(script), Recording(script)
    expected.deliver(STREAMS[script.name])
    talk.deliver(STREAMS[script.name], chunk=chunk)
    assert outcome(talk) == outcome(expected)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
@settings(max_examples=40)
@given(data=st.data())
def test_messages_may_be_cut_and_joined_into_records_at_will(script: Script, data: st.DataObject) -> None:
    """RFC 8446 section 5.1: messages may be coalesced or fragmented, but not across a change of keys."""
    talk = Conversation(script)
    waiting = b""
    boundaries = {"server_hello", "hello_retry_request", "finished", "change_cipher_spec", "server_hello_done"}
    for step in script.steps:
        if step == "change_cipher_spec":
            talk.deliver(talk.step(step))
            continue
        message = serialize(talk.message(step))
        seal, sealed = talk.seal, b""
        if step not in boundaries and step != "new_session_ticket" and data.draw(st.booleans()):
            # Let it travel in the same record as what follows.
            waiting += message
            talk._transcript += message
            continue
        content = waiting + message
        waiting = b""
        cuts = sorted(data.draw(st.sets(st.integers(1, len(content) - 1), max_size=4)))
        for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
            sealed += seal(ContentType.HANDSHAKE, content[start:end])
        talk.seal = lambda kind, content: b""  # type: ignore[method-assign]
        talk.say(message, after=step)
        talk.seal = seal  # type: ignore[method-assign]
        talk.deliver(sealed)
    assert talk.client.handshake_complete


# --- damage -----------------------------------------------------------------------------------------------------


def damaged(stream: bytes, data: st.DataObject) -> bytes:
    """`stream` with a stretch of it overwritten, left out or doubled."""
    start = data.draw(st.integers(0, len(stream) - 1))
    end = data.draw(st.integers(start, min(len(stream), start + 40)))
    kind = data.draw(st.sampled_from(["overwrite", "delete", "double", "flip"]))
    if kind == "overwrite":
        return stream[:start] + data.draw(st.binary(min_size=end - start, max_size=end - start)) + stream[end:]
    if kind == "delete":
        return stream[:start] + stream[end:]
    if kind == "double":
        return stream[:end] + stream[start:]
    return stream[:start] + bytes((stream[start] ^ 1 << data.draw(st.integers(0, 7)),)) + stream[start + 1 :]


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_stream_ends_in_a_typed_error_or_as_if_nothing_was(script: Script, data: st.DataObject) -> None:
    stream = STREAMS[script.name]
    expected = Recording(script)
    expected.deliver(stream)
    talk = Recording(script)
    try:
        talk.deliver(damaged(stream, data))
        talk.end_of_stream()
    except LocumError as error:
        talk._settle()
        assert talk.client.pending is None
        # Every byte of data that came before the damage is real.
        assert outcome(expected)[1].startswith(outcome(talk)[1])
        assert isinstance(error, Truncated) or alert_for(error) is not None or not isinstance(error, Misbehaved)
    else:
        # The damage was in a part that means nothing, such as a record's minor version.
        assert outcome(talk)[1:] == outcome(expected)[1:]


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_no_flipped_bit_of_a_protected_record_goes_unnoticed(script: Script) -> None:
    for position in range(5, 5 + 40):
        talk = Conversation(script).play()
        sealed = bytearray(talk.seal(ContentType.APPLICATION_DATA, b"some application data"))
        if position >= len(sealed):
            continue
        sealed[position] ^= 0x40
        with pytest.raises(BadRecordMac):
            talk.deliver(bytes(sealed))


def test_replayed_reordered_and_reflected_records_do_not_authenticate() -> None:
    for script in SCRIPTS:
        talk = Conversation(script).play()
        first = talk.seal(ContentType.APPLICATION_DATA, b"first")
        second = talk.seal(ContentType.APPLICATION_DATA, b"second")
        for stream in (first + first, second + first):
            fresh = Conversation(script).play()
            with pytest.raises(BadRecordMac):
                fresh.deliver(stream)
        reflected = Conversation(script).play()
        reflected.client.send_data(b"our own")
        own = bytes(reflected.client.data_to_send())
        with pytest.raises(BadRecordMac):
            reflected.deliver(own)


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_random_bytes_at_every_state_end_in_a_typed_error(state: tuple[Script, int]) -> None:
    script, played = state
    source = pseudo.Random(f"{script.name} {played}")
    for _ in range(15):
        talk = Conversation(script).play(played)
        with pytest.raises(LocumError):
            talk.deliver(source.randbytes(source.randrange(1, 400)))
            talk.end_of_stream()
        assert not any(isinstance(event, DataReceived) for event in talk.events)


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_random_handshake_messages_at_every_state_end_in_a_typed_error(state: tuple[Script, int]) -> None:
    script, played = state
    source = pseudo.Random(f"{script.name} {played} messages")
    due = script.steps[played] if played < len(script.steps) else "new_session_ticket"
    code = 4 if due == "change_cipher_spec" else serialize(Conversation(script).play(played).message(due))[0]
    for _ in range(15):
        talk = Conversation(script).play(played)
        body = source.randbytes(source.randrange(0, 200))
        message = bytes((code,)) + len(body).to_bytes(3, "big") + body
        with contextlib.suppress(LocumError):
            talk.deliver(talk.seal(ContentType.HANDSHAKE, message))
        assert talk.client.handshake_complete == (played == len(script.steps))


@pytest.mark.parametrize("state", [s for s in STATES if s[1] < len(s[0].steps)], ids=name_of)
def test_every_truncation_and_every_flipped_bit_of_the_message_that_is_due_is_survived(
    state: tuple[Script, int],
) -> None:
    script, played = state
    step = script.steps[played]
    if step == "change_cipher_spec":
        return
    message = serialize(Conversation(script).play(played).message(step))
    variants = [
        bytes((message[0],)) + length.to_bytes(3, "big") + message[4 : 4 + length]
        for length in range(len(message) - 4)
    ]
    for position in range(4, len(message)):
        changed = bytearray(message)
        changed[position] ^= 1 << position % 8
        variants.append(bytes(changed))
    for variant in variants:
        talk = Conversation(script).play(played)
        with contextlib.suppress(LocumError):
            talk.deliver(talk.seal(ContentType.HANDSHAKE, variant))
        assert not any(isinstance(event, HandshakeComplete) for event in talk.events)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_a_handshake_with_any_flipped_bit_is_never_completed(script: Script) -> None:
    """The transcript is what both Finished are about; a record's minor version is not part of it."""
    pieces = recorded(script)
    stream = b"".join(pieces)
    starts = record_starts(stream)
    source = pseudo.Random(script.name)
    for position in range(len(stream)):
        if position - 2 in starts:
            continue
        changed = bytearray(stream)
        changed[position] ^= 1 << source.randrange(8)
        talk = Recording(script)
        with contextlib.suppress(LocumError):
            talk.deliver(bytes(changed))
        assert not talk.client.handshake_complete, position


def record_starts(stream: bytes) -> set[int]:
    """Where the records of a stream begin."""
    starts, position = set(), 0
    while position < len(stream):
        starts.add(position)
        position += 5 + int.from_bytes(stream[position + 3 : position + 5], "big")
    return starts


@given(st.binary(max_size=300))
def test_random_bytes_after_a_client_hello_give_only_typed_errors(data: bytes) -> None:
    talk = Conversation(SCRIPTS[0])
    with pytest.raises(LocumError):
        talk.deliver(record(ContentType.HANDSHAKE, data) if data else b"")
        talk.end_of_stream()
