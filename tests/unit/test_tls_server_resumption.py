"""Resumption at the TLS server: which tickets are taken, which are given, and for how long."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.tls_faults import extension, fields
from tests.support.tls_script import MASTER, NOW, PSK, TLS12, TLS13
from tests.support.tls_server_script import BY_NAME, CLIENT_IDENTITY, SESSION_ID, Conversation, Script, ring

from locum.errors import Incompatible, Refused
from locum.tls import messages12, messages13
from locum.tls.alerts import AlertDescription
from locum.tls.messages import serialize
from locum.tls.receiving import parse_message
from locum.tls.registry import CIPHER_SUITES, ExtensionType
from locum.tls.server13 import MAX_IDENTITIES
from locum.tls.server_configuration import ClientCertificates
from locum.tls.server_operations import ServerShareRequest

E, A = ExtensionType, AlertDescription
S13, S12 = BY_NAME["1.3"], BY_NAME["1.2 ECDHE"]


def resumed(script: Script, ticket: bytes, **settings: Any) -> Conversation:
    """A conversation whose hello offers this ticket."""
    talk = Conversation(script, **settings)
    hello = talk.client_hello()
    if script.version is TLS13:
        hello = talk.with_psk(hello, ticket)
    else:
        hello = extension(E.SESSION_TICKET, ticket)(hello)
    talk.listening = False
    talk.server.receive_data(talk.say(serialize(hello)))
    return talk


def accepted(talk: Conversation) -> bool:
    """Whether the ticket was taken: a full handshake asks for a certificate first."""
    pending = talk.server.pending
    return pending is None or isinstance(pending[0], ServerShareRequest)


RESUMED = {TLS13: (BY_NAME["1.3 resumed"], PSK), TLS12: (BY_NAME["1.2 resumed"], MASTER)}
OTHER = {TLS13: CIPHER_SUITES[0x1302], TLS12: CIPHER_SUITES[0xC030]}
REQUIRED = {"client_certificates": ClientCertificates.REQUIRED}


@pytest.mark.parametrize("version", [TLS13, TLS12], ids=lambda version: version.name)
@pytest.mark.parametrize(
    ("fields", "settings", "taken"),
    [
        ({}, {}, True),
        ({"server_name": "other.example.com"}, {}, False),
        ({"authenticated_at": NOW - 86_399}, {}, True),
        ({"authenticated_at": NOW - 86_400}, {}, False),
        ({"authenticated_at": NOW - 100}, {"session_lifetime": 100}, False),
        ({"peer_identity": CLIENT_IDENTITY}, REQUIRED, True),
        ({}, REQUIRED, False),
    ],
    ids=["good", "name", "almost old", "old", "short lifetime", "client certificate", "no client certificate"],
)
def test_a_ticket_is_taken_when_a_full_handshake_would_come_to_the_same(
    version: Any, fields: dict[str, Any], settings: dict[str, Any], taken: bool
) -> None:
    script, secret = RESUMED[version]
    ticket = Conversation(script, **settings).ticket(secret, **fields)
    assert accepted(resumed(script, ticket, **settings)) == taken


@pytest.mark.parametrize("version", [TLS13, TLS12], ids=lambda version: version.name)
def test_a_ticket_of_another_server_context_hash_or_version_asks_for_a_full_handshake(version: Any) -> None:
    script, secret = RESUMED[version]
    good = Conversation(script).ticket(secret)
    assert not accepted(resumed(script, b"x" * len(good)))
    assert not accepted(resumed(script, good[:-1] + bytes((good[-1] ^ 1,))))
    assert not accepted(resumed(script, good, session_context=b"elsewhere"))
    assert not accepted(resumed(script, good, client_certificates=ClientCertificates.OPTIONAL))
    assert not accepted(resumed(script, good, tickets=None))
    other = Conversation(script).ticket(bytes(48), suite=OTHER[version])
    assert not accepted(resumed(script, other))
    wrong = TLS12 if version is TLS13 else TLS13
    foreign, foreign_secret = RESUMED[wrong]
    assert not accepted(resumed(script, Conversation(foreign).ticket(foreign_secret)))


def test_the_first_good_ticket_of_several_is_taken_and_not_too_many_are_tried() -> None:
    for bad, taken in ((1, True), (MAX_IDENTITIES - 1, True), (MAX_IDENTITIES, False)):
        talk = Conversation(BY_NAME["1.3 resumed"])
        hello = talk.with_psk(talk.client_hello(), before=[b"x" * 40] * bad)
        talk.server.receive_data(talk.say(serialize(hello), after="client_hello"))
        assert accepted(talk) == taken
        if taken:
            assert talk.server.pending is not None
            talk.server.answer(talk.answerer.perform(talk.server.pending))
            talk._settle()
            assert talk.server_hello.extensions.get(E.PRE_SHARED_KEY) == bad.to_bytes(2, "big")


def test_psk_ke_alone_is_not_spoken() -> None:
    """Without (EC)DHE a session would have no forward secrecy."""
    script = BY_NAME["1.3 resumed"]
    talk = Conversation(script)
    hello = talk.with_psk(extension(E.PSK_KEY_EXCHANGE_MODES, b"\x01\x00")(talk.client_hello()))
    talk.server.receive_data(talk.say(serialize(hello)))
    assert not accepted(talk)


def heard_tickets(script: Script, change: Any = None, **settings: Any) -> list[bytes]:
    """The NewSessionTickets of a whole handshake."""
    talk = Conversation(script, **settings)
    hello = talk.client_hello()
    if change is not None:
        hello = change(hello)
        hello = talk.with_psk(hello) if script.name == "1.3 resumed" else hello
    talk.deliver(talk.say(serialize(hello), after="client_hello"))
    for step in script.steps[1:]:
        talk.deliver(talk.step(step))
    assert talk.server.handshake_complete
    return talk.tickets


def test_as_many_tickets_are_sent_as_are_wanted_and_one_after_a_resumption() -> None:
    assert len(heard_tickets(S13)) == 2
    assert len(heard_tickets(S13, ticket_count=8)) == 8
    assert heard_tickets(S13, ticket_count=0) == []
    assert heard_tickets(S13, tickets=None) == []
    assert len(heard_tickets(BY_NAME["1.3 resumed"])) == 1
    assert len(heard_tickets(S12)) == 1
    assert heard_tickets(S12, tickets=None) == []
    assert heard_tickets(BY_NAME["1.2 resumed"]) == []


def test_tickets_are_for_clients_that_can_use_them() -> None:
    assert heard_tickets(S13, extension(E.PSK_KEY_EXCHANGE_MODES, None)) == []
    assert heard_tickets(S13, extension(E.PSK_KEY_EXCHANGE_MODES, b"\x01\x00")) == []
    assert heard_tickets(S12, extension(E.SESSION_TICKET, None)) == []
    assert heard_tickets(S12, extension(E.EXTENDED_MASTER_SECRET, None)) == []


def test_a_ticket_says_how_long_it_can_be_used() -> None:
    left = ring().lifetime(NOW)
    (hint,) = heard_tickets(S12)
    assert parse_message(messages12.NewSessionTicket, hint).lifetime_hint == left
    (short,) = heard_tickets(S12, session_lifetime=77)
    assert parse_message(messages12.NewSessionTicket, short).lifetime_hint == 77
    first, second = (parse_message(messages13.NewSessionTicket, raw) for raw in heard_tickets(S13))
    assert first.lifetime == second.lifetime == left
    assert first.nonce != second.nonce
    # The session that is resumed began a minute ago, and resuming does not prolong it.
    (again,) = heard_tickets(BY_NAME["1.3 resumed"], session_lifetime=77)
    assert parse_message(messages13.NewSessionTicket, again).lifetime == 17


def test_a_resumed_session_keeps_the_clients_identity() -> None:
    for script, secret in RESUMED.values():
        talk = Conversation(script)
        ticket = talk.ticket(secret, peer_identity=CLIENT_IDENTITY)
        hello = talk.client_hello()
        hello = talk.with_psk(hello, ticket) if script.version is TLS13 else extension(35, ticket)(hello)
        talk.deliver(talk.say(serialize(hello), after="client_hello"))
        for step in script.steps[1:]:
            talk.deliver(talk.step(step))
        assert talk.server.session is not None
        assert talk.server.session.resumed
        assert talk.server.session.client_authenticated
        assert talk.server.session.peer_identity == CLIENT_IDENTITY


def test_in_tls_12_a_ticket_without_a_session_id_cannot_be_answered_and_is_not_taken() -> None:
    talk = Conversation(BY_NAME["1.2 resumed"])
    talk.server.receive_data(talk.say(serialize(fields(session_id=b"")(talk.client_hello()))))
    assert not accepted(talk)
    talk = Conversation(BY_NAME["1.2 resumed"]).play(1)
    assert talk.server_hello.session_id == SESSION_ID
    assert Conversation(S12).play(1).server_hello.session_id == b""


def test_a_session_is_not_resumed_without_the_extended_master_secret() -> None:
    """RFC 7627 section 5.3: "the server MUST abort the abbreviated handshake"."""
    talk = Conversation(BY_NAME["1.2 resumed"])
    with pytest.raises(Incompatible, match="extended"):
        talk.deliver(talk.say(serialize(extension(E.EXTENDED_MASTER_SECRET, None)(talk.client_hello()))))
    assert talk.last_alert == A.HANDSHAKE_FAILURE


def test_without_the_extended_master_secret_there_is_no_exporter() -> None:
    talk = Conversation(S12)
    hello = extension(E.EXTENDED_MASTER_SECRET, None)(talk.client_hello())
    talk.deliver(talk.say(serialize(hello), after="client_hello"))
    for step in S12.steps[1:]:
        talk.deliver(talk.step(step))
    assert talk.server.session is not None
    with pytest.raises(Refused):
        talk.server.session.export_keying_material("EXPORTER-x", b"", 32)
