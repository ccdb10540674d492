"""RFC 8448 sections 3 to 7: every secret, key, Finished and binder, from the records and the (EC)DHE secret."""

from __future__ import annotations

import pytest
from tests.vectors.rfc8448 import Trace, load
from tests.vectors.rfc8448_exchange import shared_secret
from tests.vectors.rfc8448_records import SUITE, contents, handshake_bytes, handshake_messages

from locum.crypto.symmetric import SHA256
from locum.tls import schedule
from locum.tls.extensions import binders_length, parse_server_share
from locum.tls.messages import HEADER_LENGTH, ServerHello
from locum.tls.messages13 import NewSessionTicket
from locum.tls.receiving import parse_message
from locum.tls.registry import ContentType, ExtensionType, HandshakeType

FULL = (3, 5, 6, 7)


def hello_messages(trace: Trace) -> bytes:
    """ClientHello and ServerHello; after a HelloRetryRequest the first ClientHello is its hash."""
    first = handshake_bytes(trace["client_hello"])
    server = handshake_bytes(trace["server_hello"])
    if "hello_retry_request" not in trace:
        return first + server
    stand_in = bytes((HandshakeType.MESSAGE_HASH, 0, 0, 32)) + SHA256.digest(first)
    retry, second = trace["hello_retry_request"], trace["second_client_hello"]
    return stand_in + handshake_bytes(retry) + handshake_bytes(second) + server


@pytest.mark.parametrize("section", FULL)
def test_every_secret_of_a_full_handshake_is_the_rfcs(section: int) -> None:
    trace = load()[section]
    hash_of = SHA256.digest
    assert schedule.early_secret(SHA256) == trace["early_secret"]
    shared = shared_secret(trace)
    assert shared == trace.get("shared_secret", shared)
    secret = schedule.handshake_secret(SHA256, shared)
    assert secret == trace["handshake_secret"]

    messages = hello_messages(trace)
    client, server = schedule.handshake_traffic_secrets(SHA256, secret, hash_of(messages))
    assert (client, server) == (trace["c_hs_traffic"], trace["s_hs_traffic"])
    server_keys, client_keys = schedule.traffic_keys(SUITE, server), schedule.traffic_keys(SUITE, client)
    assert server_keys == (trace["server_handshake_key"], trace["server_handshake_iv"])
    assert client_keys == (trace["client_handshake_key"], trace["client_handshake_iv"])

    flight = handshake_messages(trace["server_flight"], server_keys)
    finished = flight[-1]
    messages += b"".join(flight[:-1])
    assert schedule.finished_mac(SHA256, server, hash_of(messages)) == finished[HEADER_LENGTH:]
    messages += finished

    master = schedule.master_secret(SHA256, secret)
    assert master == trace.get("master_secret", master)
    write, read = schedule.application_traffic_secrets(SHA256, master, hash_of(messages))
    assert (write, read) == (trace["c_ap_traffic"], trace["s_ap_traffic"])
    assert schedule.traffic_keys(SUITE, write) == (trace["client_application_key"], trace["client_application_iv"])
    assert schedule.traffic_keys(SUITE, read) == (trace["server_application_key"], trace["server_application_iv"])
    assert schedule.derive_secret(SHA256, master, b"exp master", hash_of(messages)) == trace["exp_master"]

    own = handshake_messages(trace["client_flight"], client_keys)
    messages += b"".join(own[:-1])
    assert schedule.finished_mac(SHA256, client, hash_of(messages)) == own[-1][HEADER_LENGTH:]
    messages += own[-1]
    resumption = schedule.derive_secret(SHA256, master, b"res master", hash_of(messages))
    assert resumption == trace["res_master"]


def test_the_resumption_secret_comes_with_the_ticket_of_section_3() -> None:
    trace = load()[3]
    keys = schedule.traffic_keys(SUITE, trace["s_ap_traffic"])
    ((kind, content),) = contents(trace["new_session_ticket"], keys)
    assert kind == ContentType.HANDSHAKE
    ticket = parse_message(NewSessionTicket, content)
    assert (ticket.lifetime, ticket.nonce) == (30, b"\0\0")
    assert schedule.resumption_psk(SHA256, trace["res_master"], ticket.nonce) == trace["resumption"]
    assert trace["resumption"] == load()[4]["psk"]


def test_the_binder_of_section_4_is_made_as_the_rfc_makes_it() -> None:
    trace = load()[4]
    assert schedule.early_secret(SHA256, trace["psk"]) == trace["early_secret"]
    hello = handshake_bytes(trace["client_hello"])
    truncated = hello[: -binders_length(SHA256.length)]
    assert SHA256.digest(truncated) == trace["binder_hash"]
    key = schedule.binder_key(SHA256, trace["psk"])
    assert key == trace["binder_key"]
    assert schedule.finished_mac(SHA256, key, trace["binder_hash"]) == trace["binder"]
    assert hello.endswith(trace["binder"])


def test_the_secrets_of_the_resumed_session_of_section_4_are_the_rfcs() -> None:
    trace = load()[4]
    secret = schedule.handshake_secret(SHA256, shared_secret(trace), trace["psk"])
    assert secret == trace["handshake_secret"]
    messages = hello_messages(trace)
    client, server = schedule.handshake_traffic_secrets(SHA256, secret, SHA256.digest(messages))
    assert (client, server) == (trace["c_hs_traffic"], trace["s_hs_traffic"])
    keys = schedule.traffic_keys(SUITE, server)
    assert keys == (trace["server_handshake_key"], trace["server_handshake_iv"])
    flight = handshake_bytes(trace["server_flight"], keys)
    finished = handshake_messages(trace["server_flight"], keys)[-1]
    before = SHA256.digest(messages + flight[: -len(finished)])
    assert schedule.finished_mac(SHA256, server, before) == finished[HEADER_LENGTH:]
    messages += flight
    master = schedule.master_secret(SHA256, secret)
    write, read = schedule.application_traffic_secrets(SHA256, master, SHA256.digest(messages))
    assert (write, read) == (trace["c_ap_traffic"], trace["s_ap_traffic"])
    assert schedule.traffic_keys(SUITE, read) == (trace["server_application_key"], trace["server_application_iv"])
    assert schedule.derive_secret(SHA256, master, b"exp master", SHA256.digest(messages)) == trace["exp_master"]
    # With early data the client also sends EndOfEarlyData, which the transcript contains.
    end_of_early_data = bytes((HandshakeType.END_OF_EARLY_DATA, 0, 0, 0))
    own = handshake_bytes(trace["client_finished"], schedule.traffic_keys(SUITE, client))
    due = schedule.finished_mac(SHA256, client, SHA256.digest(messages + end_of_early_data))
    assert own[HEADER_LENGTH:] == due
    for name, secret in (("client_data", write), ("server_data", read)):
        ((kind, content),) = contents(trace[name], schedule.traffic_keys(SUITE, secret))
        assert (kind, content) == (ContentType.APPLICATION_DATA, bytes(range(50)))


def test_the_share_in_every_server_hello_is_in_the_group_of_the_trace() -> None:
    for section, group in ((3, 0x001D), (4, 0x001D), (5, 0x0017), (6, 0x001D), (7, 0x001D)):
        hello = parse_message(ServerHello, handshake_bytes(load()[section]["server_hello"]))
        share = parse_server_share(hello.extensions.get(ExtensionType.KEY_SHARE) or b"")
        assert share.group == group
