"""The cipher-key database of fig 2: entries, their limit, and their end."""

from __future__ import annotations

import gc
import weakref

import pytest

from locum.errors import Unavailable
from locum.terminal.cipher_keys import CipherKeyDatabase, KeyOrigin, SessionKey


class Holder:
    """Stands for the object that works with a key."""


def add(database: CipherKeyDatabase[Holder], peer: str = "peer:443", now: float = 1.0) -> SessionKey[Holder]:
    return database.set_session_key(peer, Holder(), origin=KeyOrigin.DERIVED, established=now)


def test_a_wiped_key_is_let_go_of_and_can_do_nothing_more() -> None:
    database: CipherKeyDatabase[Holder] = CipherKeyDatabase()
    entry = add(database)
    alive = weakref.ref(entry.holder)
    database.remove(entry)
    gc.collect()
    assert entry.wiped
    assert alive() is None
    assert database.sessions() == ()
    with pytest.raises(Unavailable, match="peer:443 has been wiped"):
        _ = entry.holder


def test_removing_twice_is_harmless() -> None:
    database: CipherKeyDatabase[Holder] = CipherKeyDatabase()
    entry = add(database)
    database.remove(entry)
    database.remove(entry)
    assert database.sessions() == ()


def test_session_keys_are_bounded() -> None:
    database: CipherKeyDatabase[Holder] = CipherKeyDatabase(maximum=2)
    first = add(database)
    add(database)
    with pytest.raises(Unavailable, match="2 session keys"):
        add(database)
    database.remove(first)
    add(database)


def test_sessions_are_listed_the_oldest_first() -> None:
    database: CipherKeyDatabase[Holder] = CipherKeyDatabase()
    add(database, "late", 2.0)
    add(database, "early", 1.0)
    assert [entry.peer for entry in database.sessions()] == ["early", "late"]


def test_two_sessions_with_one_peer_are_two_keys() -> None:
    database: CipherKeyDatabase[Holder] = CipherKeyDatabase()
    first, second = add(database), add(database)
    database.remove(first)
    assert not second.wiped


def test_wiping_the_database_wipes_every_key() -> None:
    database: CipherKeyDatabase[Holder] = CipherKeyDatabase()
    entries = [add(database) for _ in range(3)]
    database.set_channel_key("coap://192.0.2.1:5683", object())
    database.wipe()
    assert all(entry.wiped for entry in entries)
    assert not database.has_channel_key("coap://192.0.2.1:5683")


def test_a_channel_key_is_there_until_it_is_dropped() -> None:
    database: CipherKeyDatabase[Holder] = CipherKeyDatabase()
    database.set_channel_key("coap://192.0.2.1:5683", object())
    assert database.has_channel_key("coap://192.0.2.1:5683")
    database.drop_channel_key("coap://192.0.2.1:5683")
    database.drop_channel_key("coap://192.0.2.1:5683")
    assert not database.has_channel_key("coap://192.0.2.1:5683")
