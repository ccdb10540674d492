"""Connecting without I/O: which delegate is asked, when another one is, what the peer notices of it (A4, A12)."""

from __future__ import annotations

import pytest
from tests.support.terminal_memory import PEER_IP, World

from locum.authority.messages import encode_error
from locum.errors import Refused, Unavailable
from locum.handshake import PeerRejected
from locum.link.coap import Code
from locum.terminal.channel import ANSWER_TIMEOUT, HOLD_DOWN, LONGEST_PAUSE, Answer, DelegateFailed
from locum.terminal.connecting import AskDelegate
from locum.terminal.steps import Actor, StepName
from locum.tls.registry import NamedGroup

FIRST, SECOND, THIRD = (f"coap://192.0.2.{number}:5683" for number in (101, 102, 103))


def names(world: World) -> list[StepName]:
    return [step.operation for step in world.steps if step.actor is Actor.TERMINAL]


def silent(*numbers: int) -> object:
    """Messages of these numbers get no answer."""

    def interfere(step: AskDelegate, number: int) -> DelegateFailed | None:
        return DelegateFailed(step.delegate, "no answer") if number in numbers else None

    return interfere


def saying(code: int, payload: bytes, *numbers: int) -> object:
    """Messages of these numbers get this answer."""

    def interfere(step: AskDelegate, number: int) -> Answer | None:
        return Answer(delegate=step.delegate, code=code, payload=payload) if number in numbers else None

    return interfere


def test_a_tls13_handshake_takes_three_messages_once_the_chain_is_known() -> None:
    world = World()
    assert world.connect(groups=(NamedGroup.X25519,)).info.peer_identity == "dns:peer.example.com"
    first = len(world.asked)
    world.delegates[FIRST].operations.clear()
    world.connect(groups=(NamedGroup.X25519,))
    assert (first, len(world.asked) - first) == (4, 3)
    assert world.delegates[FIRST].operations == [
        "StartRequest",
        "HandshakeSecretsRequest",
        "AuthenticateRequest",
        "MasterSecretRequest",
    ]
    assert world.device.channels[FIRST].told == []


def test_the_cost_of_a_chain_asked_for_is_counted_with_its_operation() -> None:
    world = World()
    world.connect(groups=(NamedGroup.X25519,))
    costs = {step.operation: step.bytes_out for step in world.steps if step.actor is Actor.DELEGATE}
    assert costs[StepName.AUTHENTICATE] == 20
    assert costs[StepName.GENERATE_KEY] == 10


def test_the_delegate_is_told_where_the_terminal_connects_to() -> None:
    payloads: list[bytes] = []
    world = World(interfere=lambda step, number: payloads.append(step.payload))
    world.connect()
    assert PEER_IP.encode() in payloads[0]
    assert b"peer.example.com" in payloads[0]


def test_the_channel_key_is_set_for_a_path_that_is_not_secure() -> None:
    world = World()
    world.connect()
    assert names(world)[:2] == [StepName.SECURE_PATH, StepName.CHANNEL_KEY]
    assert world.device.keys.has_channel_key(FIRST)
    world.device.close()
    assert not world.device.keys.has_channel_key(FIRST)
    assert world.device.channels[FIRST].closed


def test_a_secure_path_needs_no_channel_key() -> None:
    world = World(secure_path=True)
    world.connect()
    assert StepName.CHANNEL_KEY not in names(world)


def test_the_next_delegate_is_asked_on_the_same_connection_while_the_peer_has_noticed_nothing() -> None:
    world = World(2, interfere=silent(1))
    world.connect()
    assert world.asked[:2] == [FIRST, SECOND]
    assert (world.dialled, world.hung_up) == (1, 0)
    assert names(world).count(StepName.NEXT_DELEGATE) == 1


@pytest.mark.parametrize("number", [2, 3, 4])
def test_after_the_client_hello_everything_begins_anew_with_the_next_delegate(number: int) -> None:
    world = World(2, interfere=silent(number))
    world.connect()
    assert world.asked[number - 1 : number + 1] == [FIRST, SECOND]
    assert (world.dialled, world.hung_up) == (2, 1)
    assert len(world.device.keys.sessions()) == 1


def test_the_peer_is_told_that_the_first_attempt_has_failed() -> None:
    world = World(2, interfere=silent(2))
    world.connect()
    # A fatal internal_error alert in plaintext, between the first ClientHello and the second.
    assert world.to_peer.count(b"\x15\x03\x03\x00\x02\x02\x50") == 1


def test_the_peer_is_bothered_twice_at_most() -> None:
    world = World(3, interfere=silent(2, 4))
    with pytest.raises(Unavailable, match=f"{FIRST}: no answer; delegate {SECOND}: no answer"):
        world.connect()
    assert world.dialled == 2
    assert THIRD not in world.asked


def test_one_delegate_that_fails_is_one_clear_error() -> None:
    world = World(interfere=silent(1))
    with pytest.raises(DelegateFailed, match=rf"^delegate {FIRST}: no answer$"):
        world.connect()
    assert world.to_peer == b""
    assert names(world)[-1] is StepName.ERROR
    assert world.device.keys.sessions() == ()


def test_a_delegate_restarted_in_mid_handshake_has_lost_the_session_and_that_is_said() -> None:
    world = World()

    def restart(step: AskDelegate, number: int) -> None:
        if number == 2:
            world.delegates[FIRST].forget_sessions()

    world._interfere = restart
    with pytest.raises(DelegateFailed, match="no such session"):
        world.connect()
    assert world.to_peer.endswith(b"\x15\x03\x03\x00\x02\x02\x50")


@pytest.mark.parametrize("payload", [b"", b"\xff", b"nonsense", b"\x81\xa1\x00\x00", b"\x80"])
def test_an_answer_that_makes_no_sense_is_the_delegates_failure(payload: bytes) -> None:
    world = World(interfere=saying(Code.CHANGED, payload, 1))
    with pytest.raises(DelegateFailed):
        world.connect()


def test_nonsense_from_one_delegate_leads_to_the_next() -> None:
    world = World(2, interfere=saying(Code.CHANGED, b"nonsense", 1))
    world.connect()
    assert world.asked[:2] == [FIRST, SECOND]


def test_a_refusal_is_final_for_every_delegate() -> None:
    world = World(2, interfere=saying(Code.FORBIDDEN, encode_error(Refused("not for you")), 1))
    with pytest.raises(Refused, match="not for you"):
        world.connect()
    assert world.asked == [FIRST]


def test_a_rejected_peer_is_final_for_every_delegate() -> None:
    world = World(2)
    with pytest.raises(PeerRejected):
        world.connect(server_name="other.example.com")
    assert set(world.asked) == {FIRST}
    assert world.dialled == 1
    assert world.device.keys.sessions() == ()


def test_a_delegate_that_failed_is_asked_last_for_a_while() -> None:
    world = World(2, interfere=silent(1))
    world.connect()
    world.asked.clear()
    world._interfere = lambda step, number: None
    world.connect()
    assert set(world.asked) == {SECOND}
    world.asked.clear()
    world.now += HOLD_DOWN
    world.connect()
    assert set(world.asked) == {FIRST}


def test_the_last_delegate_has_all_the_time_that_is_left_and_others_have_less() -> None:
    deadlines: list[float] = []

    def note(step: AskDelegate, number: int) -> DelegateFailed | None:
        deadlines.append(step.deadline - 1000.0)
        return DelegateFailed(step.delegate, "no answer") if number == 1 else None

    World(2, interfere=note).connect(timeout=20.0)
    assert deadlines[:2] == [ANSWER_TIMEOUT, 20.0]


def test_no_further_delegate_is_tried_when_the_time_is_over() -> None:
    world = World(2, interfere=silent(1))
    world.step_seconds = 6.0
    with pytest.raises(DelegateFailed):
        world.connect(timeout=5.0)
    assert world.asked == [FIRST]


def test_a_delegate_that_wants_fewer_requests_is_asked_again_later() -> None:
    busy = encode_error(Unavailable("too many requests"))
    world = World(interfere=saying(Code.TOO_MANY_REQUESTS, busy, 1, 2, 4))
    world.connect()
    assert len(world.pauses) == 3
    assert all(0 < pause <= LONGEST_PAUSE for pause in world.pauses)
    assert world.dialled == 1


def test_waiting_for_a_busy_delegate_ends_with_the_time() -> None:
    busy = encode_error(Unavailable("too many requests"))
    world = World(interfere=saying(Code.TOO_MANY_REQUESTS, busy, *range(1, 100)))
    with pytest.raises(DelegateFailed, match="too many requests"):
        world.connect(timeout=10.0)
    assert sum(world.pauses) <= 10.0


def test_a_peer_that_ends_the_stream_is_at_fault_and_the_delegate_is_told_to_forget() -> None:
    world = World()
    read = world._read
    world._read = lambda: b""  # type: ignore[method-assign]
    with pytest.raises(Exception, match="ended the stream during the handshake"):
        world.connect()
    assert len(world.device.channels[FIRST].told) == 1
    world._read = read  # type: ignore[method-assign]
    assert world.delegates[FIRST].handle(world.device.channels[FIRST].told[0])[0] == Code.CHANGED
    assert world.delegates[FIRST].ended == 1


@pytest.mark.parametrize("numbers", [(), (1,), (2,), (3,), (4,)])
def test_every_handshake_that_entered_a_channel_leaves_it(numbers: tuple[int, ...]) -> None:
    world = World(2, interfere=silent(*numbers))
    world.connect()
    assert [channel.inside for channel in world.device.channels.values()] == [0, 0]
