"""IKEv2 under attack: messages malformed, altered, replayed, reflected, out of turn; of strangers and peers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from tests.support.ike_memory import (
    LEFT_NAME,
    RIGHT_NAME,
    Network,
    Passage,
    certificate_authority,
    keys_agree,
    network,
    undisturbed,
)

from locum.ike.configuration import Connection, Timing
from locum.ike.engine import Closed, Established, IkeSa, State
from locum.ike.errors import NotifyReceived
from locum.ike.header import HEADER_LENGTH, NO_SPI, Header, parse_header
from locum.ike.payloads2 import (
    Authentication,
    Certificate,
    Delete,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    SecurityAssociation,
    Unknown,
    parse_payloads,
    write_payloads,
)
from locum.ike.protection import fragment_message, seal_message
from locum.ike.registry import ExchangeType, Flags2, NotifyType2, PayloadType2, ProtocolId, Version
from locum.ike.v2 import initiator, negotiation
from locum.ike.v2.channel import Channel
from locum.wire.cursor import Writer

QUICK = Connection(timing=Timing(attempts=3, handshake=12.0, liveness=0.0))

#: Every third byte is enough for a message's every field to be cut and altered.
STEP = 3


def connected() -> Network:
    return network(QUICK).connect()


def undisturbed_sa(made: Network) -> bool:
    """The SA that was established is as it was, and still answers."""
    made.disturb = undisturbed
    for host in (made.left, made.right):
        if len(host.installed) != 1 or any(event.sa is host.current for event in host.of(Closed)):
            return False
        host.current.check_liveness(now=made.now)
    made.run()
    before = len(made.left.of(Closed)) + len(made.right.of(Closed))
    made.advance(10.0)
    return before == len(made.left.of(Closed)) + len(made.right.of(Closed)) and keys_agree(made)


def channel_of(sa: IkeSa) -> Channel:
    """The keys and message ids of one end: a peer that misbehaves has them too."""
    return sa._core.channel  # type: ignore[attr-defined,no-any-return]


def clear(header: Header, *payloads: Payload) -> bytes:
    """A message without protection."""
    first, chain = write_payloads(payloads)
    writer = Writer()
    header._replace(next_payload=first, length=HEADER_LENGTH + len(chain)).write(writer)
    writer.block(chain)
    return writer.getvalue()


def forge(made: Network, exchange_type: ExchangeType, *payloads: Payload) -> list[str]:
    """Have the left end send a protected request that it never would; what the right end answers, by notify."""
    sa = made.left.sa
    channel = channel_of(sa)
    (message,) = channel.write(exchange_type, channel.next_id, payloads, response=False)
    channel.next_id += 1
    begun = len(made.log)
    made.inject(made.right, message)
    return notifies_in(made, begun, sa)


def notifies_in(made: Network, begun: int, sa: IkeSa) -> list[str]:
    """The notifies of what the right end has sent since."""
    found = []
    for passage in made.log[begun:]:
        if passage.sender != "right" or not passage.message[19] & Flags2.RESPONSE:
            continue
        header = parse_header(passage.message)
        inner = channel_of(sa)._open(header, passage.message, response=True)
        assert inner is not None
        found += [
            NotifyType2(each.notify_type).name for each in parse_payloads(*inner) if isinstance(each, Notify)
        ]
    return found


# --- bytes that were altered on the way ---------------------------------------------------------------------


def variants(message: bytes) -> Iterable[bytes]:
    """The message cut short at many places, with one bit flipped at many, and with something behind it."""
    for length in range(0, len(message), STEP):
        yield message[:length]
        # Also where the length field fits.
        yield message[:24] + max(length, HEADER_LENGTH).to_bytes(4, "big") + message[28 : max(length, 28)]
    for position in range(0, len(message), STEP):
        yield message[:position] + bytes((message[position] ^ (1 << position % 8),)) + message[position + 1 :]
    yield message + b"\0"


@pytest.mark.parametrize("number", [3, 4])
def test_no_altered_copy_of_a_handshake_message_keeps_the_true_one_from_its_effect(number: int) -> None:
    made = network(QUICK)
    flooded: list[int] = []

    def disturb(passage: Passage) -> Iterable[tuple[float, Passage]]:
        if passage.number != number or flooded:
            return ((0.0, passage),)
        copies = [passage.altered(each) for each in variants(passage.message)]
        flooded.append(len(copies))
        return ((0.0, each) for each in (*copies, passage))

    made.disturb = disturb
    made.initiate()
    made.advance(1.0)
    assert flooded[0] > 50
    assert made.left.of(Established)
    assert made.right.of(Established)
    assert keys_agree(made)
    assert len(made.left.installed) == 1


@pytest.mark.parametrize("number", [1, 2])
def test_an_altered_copy_of_ike_sa_init_is_dropped_or_ends_in_a_failed_proof_at_both_ends(number: int) -> None:
    original = connected().log[number - 1].message
    for altered in variants(original):
        made = network(QUICK)
        made.disturb = lambda passage, altered=altered: (  # type: ignore[misc]
            ((0.0, passage.altered(altered)), (0.01, passage)) if passage.number == number else ((0.0, passage),)
        )
        made.initiate()
        made.advance(20.0)
        assert len(made.left.installed) == len(made.right.installed) <= 1
        assert keys_agree(made)
        assert len(made.left.live) == len(made.right.live) == len(made.left.installed)


@pytest.mark.parametrize("begin", ["liveness", "create", "rekey child", "rekey", "delete"])
def test_no_altered_copy_of_a_later_message_has_any_effect(begin: str) -> None:
    made = connected()
    sa, child = made.left.sa, made.left.child
    actions: dict[str, Callable[[], None]] = {
        "liveness": lambda: sa.check_liveness(now=made.now),
        "create": lambda: sa.create_child(now=made.now),
        "rekey child": lambda: sa.rekey_child(child, now=made.now),
        "rekey": lambda: sa.rekey(now=made.now),
        "delete": lambda: sa.close_child(child, now=made.now),
    }
    seen: list[bytes] = []

    def disturb(passage: Passage) -> Iterable[tuple[float, Passage]]:
        seen.append(passage.message)
        copies = [passage.altered(each) for each in variants(passage.message)]
        return ((0.0, each) for each in (*copies, passage))

    made.disturb = disturb
    actions[begin]()
    made.run()
    made.disturb = undisturbed
    assert made.left.of(Closed) == made.right.of(Closed) or begin == "rekey"
    made.advance(2.0)
    assert keys_agree(made)
    assert len(made.left.installed) == {"create": 2, "delete": 0}.get(begin, 1)


def test_everything_that_was_ever_sent_can_be_replayed_to_either_end_without_effect() -> None:
    made = connected()
    made.left.sa.rekey_child(made.left.child, now=made.now)
    made.right.sa.create_child(now=made.now)
    made.run()
    made.left.sa.rekey(now=made.now)
    made.run()
    children = (tuple(made.left.installed), tuple(made.right.installed))
    closed = len(made.left.of(Closed)) + len(made.right.of(Closed))
    for passage in tuple(made.log):
        for host in (made.left, made.right):
            made.inject(host, passage.message)
    assert (tuple(made.left.installed), tuple(made.right.installed)) == children
    made.advance(30.0)
    # IKE_SA_INIT alone begins something, which ends by itself.
    assert len(made.left.live) == len(made.right.live) == 1
    assert len(made.left.of(Established)) == len(made.right.of(Established)) == 1
    assert all(event.sa.peer_identity == "" for event in made.right.of(Closed)[closed:])
    assert keys_agree(made)


def test_answers_are_repeated_a_bounded_number_of_times() -> None:
    made = connected()
    request = made.log[2].message
    begun = len(made.log)
    for _ in range(40):
        made.inject(made.right, request)
    assert [each.message for each in made.log[begun:]] == [made.log[3].message] * 16
    assert undisturbed_sa(made)


def test_our_own_messages_sent_back_to_us_have_no_effect() -> None:
    made = connected()
    made.left.sa.check_liveness(now=made.now)
    made.run()
    begun = len(made.log)
    for passage in made.log[2:begun]:
        made.inject(made.left if passage.sender == "left" else made.right, passage.message)
    # At most the word that there is no such SA, no longer than what asked for it.
    assert all(len(passage.message) == 36 for passage in made.log[begun:])
    assert undisturbed_sa(made)


# --- strangers that forge messages in clear -----------------------------------------------------------------


def spoofed(made: Network, exchange_type: ExchangeType, *payloads: Payload, response: bool) -> bytes:
    """A message in clear with the SPIs of the SA, in the left end's name."""
    sa = made.left.sa
    header = Header(
        initiator_spi=sa.own_spi,
        responder_spi=sa.peer_spi,
        version=Version.IKE_2,
        exchange_type=exchange_type,
        flags=Flags2.INITIATOR | (Flags2.RESPONSE if response else 0),
        message_id=channel_of(made.right.sa).expected_id,
    )
    return clear(header, *payloads)


@pytest.mark.parametrize("response", [False, True], ids=["request", "response"])
@pytest.mark.parametrize(
    "payload",
    [
        Delete(protocol=ProtocolId.IKE),
        Notify(notify_type=NotifyType2.AUTHENTICATION_FAILED),
        Notify(notify_type=NotifyType2.INVALID_SYNTAX),
        Notify(notify_type=NotifyType2.INVALID_IKE_SPI),
    ],
    ids=lambda payload: getattr(payload, "notify_type", "delete"),
)
def test_nobody_ends_an_sa_with_a_message_in_clear(payload: Payload, response: bool) -> None:
    made = connected()
    if response:
        # Something that a response could be for.
        made.disturb = lambda passage: ()
        made.right.sa.check_liveness(now=made.now)
        made.run()
    message = spoofed(made, ExchangeType.INFORMATIONAL, payload, response=response)
    made.inject(made.right, message)
    assert made.right.sa.state is State.ESTABLISHED
    assert made.right.sa.dropped == 1
    assert undisturbed_sa(made)


@pytest.mark.parametrize(
    "forged",
    [
        (Notify(notify_type=NotifyType2.NO_PROPOSAL_CHOSEN),),
        (Notify(notify_type=NotifyType2.INVALID_SYNTAX),),
        (Notify(notify_type=NotifyType2.INVALID_KE_PAYLOAD, data=b"\0\x02"),),
        (Notify(notify_type=NotifyType2.INVALID_KE_PAYLOAD, data=b"\0"),),
        (Notify(notify_type=NotifyType2.COOKIE, data=b""),),
        (Notify(notify_type=NotifyType2.COOKIE, data=bytes(65)),),
        (Nonce(data=bytes(32)),),
        (SecurityAssociation(proposals=()), KeyExchange(group=31, data=bytes(32)), Nonce(data=bytes(32))),
    ],
    ids=["refused", "syntax", "group-2", "group-short", "cookie-empty", "cookie-long", "nonce", "empty-sa"],
)
def test_a_forged_answer_to_ike_sa_init_only_makes_the_true_one_hurry(forged: tuple[Payload, ...]) -> None:
    made = network(QUICK)

    def disturb(passage: Passage) -> Iterable[tuple[float, Passage]]:
        return ((1.0, passage),) if passage.sender == "right" and passage.number == 2 else ((0.0, passage),)

    made.disturb = disturb
    sa = made.initiate()
    made.run(until=made.now)
    header = Header(
        initiator_spi=sa.own_spi,
        responder_spi=b"attacker",
        version=Version.IKE_2,
        exchange_type=ExchangeType.IKE_SA_INIT,
        flags=Flags2.RESPONSE,
    )
    try:
        message = clear(header, *forged)
    except ValueError:
        # What no end of ours would write.
        message = clear(header, Unknown(type=PayloadType2.SECURITY_ASSOCIATION, body=b""), *forged[1:])
    made.inject(made.left, message)
    made.advance(5.0)
    assert sa.state is State.ESTABLISHED
    assert sa.dropped >= 1


def test_forged_cookies_and_groups_cannot_keep_an_initiator_busy_for_ever() -> None:
    made = network(QUICK)
    sa = made.initiate()
    made.disturb = lambda passage: ()
    made.run()
    header = Header(
        initiator_spi=sa.own_spi,
        version=Version.IKE_2,
        exchange_type=ExchangeType.IKE_SA_INIT,
        flags=Flags2.RESPONSE,
    )
    for number in range(50):
        made.inject(made.left, clear(header, Notify(notify_type=NotifyType2.COOKIE, data=bytes((number,)) * 8)))
        group = Notify(notify_type=NotifyType2.INVALID_KE_PAYLOAD, data=number.to_bytes(2, "big"))
        made.inject(made.left, clear(header, group))
    # Three cookies, and each group of our own once.
    assert len(made.log) <= 3 + 10
    made.advance(20.0)
    assert sa.state is State.CLOSED


# --- peers that have the keys and misbehave -----------------------------------------------------------------

OUT_OF_TURN: list[tuple[ExchangeType, tuple[Payload, ...]]] = [
    (ExchangeType.INFORMATIONAL, (KeyExchange(group=31, data=bytes(32)),)),
    (ExchangeType.INFORMATIONAL, (Nonce(data=bytes(32)),)),
    (ExchangeType.INFORMATIONAL, (Authentication(method=2, data=bytes(32)),)),
    (ExchangeType.CREATE_CHILD_SA, ()),
    (ExchangeType.CREATE_CHILD_SA, (Nonce(data=bytes(32)),)),
    (ExchangeType.CREATE_CHILD_SA, (Delete(protocol=ProtocolId.IKE),)),
    (ExchangeType.CREATE_CHILD_SA, (Nonce(data=bytes(32)), Nonce(data=bytes(32)))),
    (ExchangeType.CREATE_CHILD_SA, (Certificate(encoding=4, data=b"x"),)),
    (ExchangeType.IKE_FOLLOWUP_KE, ()),
]


@pytest.mark.parametrize(("exchange_type", "payloads"), OUT_OF_TURN)
def test_payloads_out_of_turn_are_a_syntax_error_and_the_end(
    exchange_type: ExchangeType, payloads: tuple[Payload, ...]
) -> None:
    made = connected()
    assert forge(made, exchange_type, *payloads) == ["INVALID_SYNTAX"]
    # RFC 7296 section 2.21.3: at both ends.
    assert made.right.live == []
    assert made.right.installed == []


@pytest.mark.parametrize("exchange_type", ["IKE_SA_INIT", "IKE_AUTH", "IKE_INTERMEDIATE"])
def test_exchanges_that_are_over_are_not_answered(exchange_type: str) -> None:
    made = connected()
    channel = channel_of(made.left.sa)
    (message,) = channel.write(ExchangeType[exchange_type], channel.next_id, (), response=False)
    begun = len(made.log)
    made.inject(made.right, message)
    assert len(made.log) == begun
    assert undisturbed_sa(made)


@pytest.mark.parametrize("message_id", [0, 3, 7, 0xFFFFFFFF])
def test_message_ids_outside_of_the_window_are_not_answered(message_id: int) -> None:
    made = connected()
    channel = channel_of(made.left.sa)
    assert channel.next_id == 2
    (message,) = channel.write(ExchangeType.INFORMATIONAL, message_id, (), response=False)
    begun = len(made.log)
    made.inject(made.right, message)
    assert len(made.log) == begun
    assert made.right.sa.dropped == 1
    assert undisturbed_sa(made)


def test_a_critical_payload_that_is_unknown_refuses_the_request_and_nothing_else() -> None:
    made = connected()
    sa = made.left.sa
    channel = channel_of(sa)
    header = channel.header(ExchangeType.INFORMATIONAL, channel.next_id, response=False)
    assert channel._outbound is not None
    message = seal_message(channel._outbound, header, 200, b"\0\x80\0\x08" + bytes(4))
    channel.next_id += 1
    begun = len(made.log)
    made.inject(made.right, message)
    assert notifies_in(made, begun, sa) == ["UNSUPPORTED_CRITICAL_PAYLOAD"]
    assert undisturbed_sa(made)


def test_an_unknown_payload_that_is_not_critical_is_skipped() -> None:
    made = connected()
    assert forge(made, ExchangeType.INFORMATIONAL, Unknown(type=200, body=b"later")) == []
    assert undisturbed_sa(made)


def test_unknown_notifies_are_skipped_in_requests() -> None:
    made = connected()
    notifies = [Notify(notify_type=code, data=b"x") for code in (8192, 16999, 40960)]
    assert forge(made, ExchangeType.INFORMATIONAL, *notifies) == []
    assert undisturbed_sa(made)


def test_the_deletion_of_children_that_do_not_exist_is_answered_with_nothing() -> None:
    made = connected()
    strange = Delete(protocol=ProtocolId.ESP, spis=(b"nope", b"none"))
    assert forge(made, ExchangeType.INFORMATIONAL, strange) == []
    assert undisturbed_sa(made)


def test_the_rekeying_of_a_child_that_does_not_exist_is_refused() -> None:
    made = connected()
    offer = negotiation.offer(made.left.sa._core)  # type: ignore[attr-defined]
    rekey = Notify(notify_type=NotifyType2.REKEY_SA, protocol=ProtocolId.ESP, spi=b"nope")
    answer = forge(made, ExchangeType.CREATE_CHILD_SA, rekey, offer.sa, Nonce(data=bytes(32)), *offer.traffic)
    assert answer == ["CHILD_SA_NOT_FOUND"]
    assert undisturbed_sa(made)


def test_a_followup_that_follows_nothing_is_refused() -> None:
    made = connected()
    link = Notify(notify_type=NotifyType2.ADDITIONAL_KEY_EXCHANGE, data=b"never")
    ke = KeyExchange(group=31, data=bytes(32))
    assert forge(made, ExchangeType.IKE_FOLLOWUP_KE, ke, link) == ["STATE_NOT_FOUND"]
    assert undisturbed_sa(made)


def test_an_error_that_the_peer_reports_ends_the_sa() -> None:
    made = connected()
    forge(made, ExchangeType.INFORMATIONAL, Notify(notify_type=NotifyType2.AUTHENTICATION_FAILED))
    assert made.right.live == []
    assert isinstance(made.right.error, NotifyReceived)


@pytest.mark.parametrize("count", [10, 11])
def test_certificate_bombs_are_refused_before_anybody_looks_at_them(count: int) -> None:
    authorities = (certificate_authority(LEFT_NAME), certificate_authority(RIGHT_NAME))
    made = network(QUICK, authorities=authorities)
    honest = initiator._auth_payloads

    def bomb(*arguments: Any) -> tuple[Payload, ...]:
        payloads = honest(*arguments)
        certificates = [each for each in payloads if isinstance(each, Certificate)]
        return (*certificates * (count - len(certificates)), *payloads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(initiator, "_auth_payloads", bomb)
        made.connect()
    asked = [type(each).__name__ for each in made.right.asked]
    assert ("IkeAuthenticateRequest" in asked) == (count <= 10)
    if count > 10:
        assert made.right.live == []


def test_an_initiator_that_wants_eap_is_refused() -> None:
    made = network(QUICK)
    honest = initiator._auth_payloads
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            initiator,
            "_auth_payloads",
            lambda *arguments: tuple(each for each in honest(*arguments) if not isinstance(each, Authentication)),
        )
        made.connect()
    assert isinstance(made.left.error, NotifyReceived)
    assert made.left.error.notify_type == NotifyType2.AUTHENTICATION_FAILED
    assert made.right.live == []


def test_fragments_that_never_become_a_message_hold_a_bounded_amount() -> None:
    made = connected()
    channel = channel_of(made.left.sa)
    channel.maximum = 576
    big = Unknown(type=200, body=bytes(60_000))
    first, chain = write_payloads((big,))
    header = channel.header(ExchangeType.INFORMATIONAL, channel.next_id, response=False)
    assert channel._outbound is not None
    fragments = fragment_message(channel._outbound, header, first, chain, maximum=576)
    for fragment in fragments[:-1]:
        made.inject(made.right, fragment)
        made.inject(made.right, fragment)
    assert 0 < channel_of(made.right.sa).held <= 65_507
    begun = len(made.log)
    made.inject(made.right, fragments[-1])
    # Whole now, and answered; nothing is held any more.
    assert len(made.log) == begun + 1
    assert channel_of(made.right.sa).held == 0


def test_secrets_are_in_no_text() -> None:
    made = connected()
    for host in (made.left, made.right):
        core = host.sa._core  # type: ignore[attr-defined]
        shown = repr(core) + repr(core.channel) + repr(host.events) + str(host.sa) + repr(list(core.children))
        for secret in (core.sk_d, host.child.inbound.encryption_key, host.child.outbound.encryption_key):
            assert secret
            assert secret.hex() not in shown
            assert repr(secret)[2:-1] not in shown


def test_an_sa_that_is_over_has_forgotten_its_keys() -> None:
    made = connected()
    left, right = made.left.sa, made.right.sa
    left.close(now=made.now)
    made.run()
    made.advance(20.0)
    for sa in (left, right):
        core = sa._core  # type: ignore[attr-defined]
        assert core.sk_d == b""
        assert (core.channel._inbound, core.channel._outbound, core.channel._previous) == (None, None, None)


def test_a_zero_spi_belongs_to_nobody() -> None:
    made = connected()
    header = Header(
        initiator_spi=NO_SPI,
        version=Version.IKE_2,
        exchange_type=ExchangeType.IKE_SA_INIT,
        flags=Flags2.INITIATOR,
    )
    made.inject(made.right, clear(header, Nonce(data=bytes(32))))
    assert made.right.endpoint.dropped == 1
    assert undisturbed_sa(made)
