"""The ring of ticket keys: who opens what, for how long, and what a ticket says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from locum.errors import ConfigurationError, DecodeError
from locum.tls.registry import CIPHER_SUITES
from locum.tls.session import MAX_TICKET, MAX_TICKET_LIFETIME
from locum.tls.tickets import (
    KEY_LENGTH,
    MAX_EPOCH,
    MAX_KEYS,
    MIN_EPOCH,
    NAME_LENGTH,
    NONCE_LENGTH,
    TicketKey,
    TicketKeys,
    TicketState,
)

EPOCH = 3600
NOW = 1000.0 * EPOCH + 10
ROOT, NONCE = bytes(range(32)), bytes(NONCE_LENGTH)
STATE = TicketState(
    suite=CIPHER_SUITES[0x1302],
    secret=b"\x5a" * 48,
    server_name="www.example.com",
    peer_identity="dns:client.example.com",
    authenticated_at=1234.5,
)


def derived(now: float = NOW, root: bytes = ROOT, epoch: int = EPOCH) -> TicketKeys:
    return TicketKeys.derived(root, epoch, now)


def sealed(keys: TicketKeys, now: float = NOW, context: bytes = b"") -> bytes:
    ticket = keys.seal(STATE, now=now, nonce=NONCE, context=context)
    assert ticket is not None
    return ticket


def key(number: int, start: float, end: float) -> TicketKey:
    return TicketKey(name=bytes((number,)) * NAME_LENGTH, key=bytes(KEY_LENGTH), valid_from=start, valid_until=end)


# --- the ring -----------------------------------------------------------------------------------------------


def test_whoever_has_the_root_opens_the_ticket() -> None:
    assert derived().open(sealed(derived()), now=NOW) == STATE
    assert derived(root=bytes(32)).open(sealed(derived()), now=NOW) is None
    assert derived(epoch=EPOCH * 2).open(sealed(derived()), now=NOW) is None


@pytest.mark.parametrize(
    ("later", "opens"), [(0, True), (EPOCH, True), (2 * EPOCH - 11, True), (2 * EPOCH - 10, False)]
)
def test_a_key_opens_for_two_epochs(later: float, opens: bool) -> None:
    ticket = sealed(derived())
    assert (derived(NOW + later).open(ticket, now=NOW + later) is not None) == opens
    assert (derived().open(ticket, now=NOW + later) is not None) == opens


def test_a_server_whose_clock_is_behind_opens_the_next_epochs_tickets_and_seals_none() -> None:
    ahead = sealed(derived(NOW + EPOCH), now=NOW + EPOCH)
    assert derived().open(ahead, now=NOW) == STATE
    assert sealed(derived())[:NAME_LENGTH] != ahead[:NAME_LENGTH]


def test_a_ring_goes_on_sealing_through_the_next_epoch_and_then_ends() -> None:
    keys = derived()
    names = {sealed(keys, now=NOW + step * EPOCH)[:NAME_LENGTH] for step in range(3)}
    assert len(names) == 2
    assert keys.lifetime(NOW + 3 * EPOCH) == 0
    assert keys.seal(STATE, now=NOW + 3 * EPOCH, nonce=NONCE) is None


def test_the_lifetime_is_what_is_left_of_the_key() -> None:
    assert derived().lifetime(NOW) == 2 * EPOCH - 10
    assert TicketKeys((key(1, 0, 10**9),)).lifetime(5) == MAX_TICKET_LIFETIME
    assert TicketKeys(()).lifetime(NOW) == 0


def test_the_newest_key_whose_time_has_come_seals() -> None:
    ring = TicketKeys((key(1, 0, 100), key(3, 50, 100), key(2, 20, 100)))
    assert [sealed(ring, now=now)[0] for now in (0, 19, 20, 50, 99)] == [1, 1, 2, 3, 3]


def test_keys_can_be_replaced_and_those_that_are_gone_open_nothing() -> None:
    ring = TicketKeys((key(1, 0, 100),))
    old = sealed(ring, now=1)
    ring.replace((key(2, 0, 100), key(1, 0, 100)))
    assert ring.open(old, now=1) == STATE
    ring.replace(TicketKeys((key(2, 0, 100),)))
    assert ring.open(old, now=1) is None
    assert ring.open(sealed(ring, now=1), now=1) == STATE


def test_epochs_before_1970_do_not_matter_to_a_clock_that_was_never_set() -> None:
    assert derived(0).open(sealed(derived(0), now=0), now=0) == STATE


@pytest.mark.parametrize(
    "make",
    [
        lambda: derived(root=bytes(31)),
        lambda: derived(epoch=MIN_EPOCH - 1),
        lambda: derived(epoch=MAX_EPOCH + 1),
        lambda: TicketKey(name=bytes(15), key=bytes(KEY_LENGTH), valid_from=0, valid_until=1),
        lambda: TicketKey(name=bytes(NAME_LENGTH), key=bytes(16), valid_from=0, valid_until=1),
        lambda: key(1, 5, 5),
        lambda: TicketKeys((key(1, 0, 1), key(1, 0, 2))),
        lambda: TicketKeys(key(number, 0, 1) for number in range(MAX_KEYS + 1)),
    ],
    ids=["root", "short epoch", "long epoch", "name", "key", "never valid", "same name", "too many"],
)
def test_keys_that_cannot_be_are_refused(make: object) -> None:
    with pytest.raises(ConfigurationError):
        make()  # type: ignore[operator]


def test_no_repr_shows_a_key_or_a_secret() -> None:
    ring = TicketKeys((TicketKey(name=bytes(16), key=b"\xee" * 32, valid_from=0, valid_until=1),))
    for shown in (repr(ring), repr(ring._keys[0]), repr(STATE)):
        assert "ee" * 4 not in shown
        assert "5a5a" not in shown.lower()
        assert "\\xee" not in shown
        assert "ZZZ" not in shown


# --- the ticket ---------------------------------------------------------------------------------------------


def test_a_ticket_is_opened_in_the_context_it_was_sealed_in_and_in_no_other() -> None:
    ticket = sealed(derived(), context=b"here")
    assert derived().open(ticket, now=NOW, context=b"here") == STATE
    assert derived().open(ticket, now=NOW, context=b"there") is None
    assert derived().open(ticket, now=NOW) is None


def test_a_ticket_with_any_flipped_bit_or_of_any_other_length_stays_closed() -> None:
    ticket = sealed(derived())
    for position in range(len(ticket)):
        forged = ticket[:position] + bytes((ticket[position] ^ 1,)) + ticket[position + 1 :]
        assert derived().open(forged, now=NOW) is None
        assert derived().open(ticket[:position], now=NOW) is None
    assert derived().open(ticket + b"\0", now=NOW) is None
    assert derived().open(ticket[:NAME_LENGTH] + bytes(MAX_TICKET), now=NOW) is None


def test_tickets_of_the_same_state_have_nothing_in_common_but_the_keys_name() -> None:
    keys = derived()
    one = keys.seal(STATE, now=NOW, nonce=b"\1" * NONCE_LENGTH)
    two = keys.seal(STATE, now=NOW, nonce=b"\2" * NONCE_LENGTH)
    assert one is not None
    assert two is not None
    assert one[:NAME_LENGTH] == two[:NAME_LENGTH]
    assert all(one[i : i + 4] != two[i : i + 4] for i in range(NAME_LENGTH, len(one) - 4))
    assert STATE.server_name.encode() not in one


@pytest.mark.parametrize("code", [0x1301, 0x1302, 0xC02F, 0xC030], ids=hex)
def test_a_state_survives_its_bytes(code: int) -> None:
    suite = CIPHER_SUITES[code]
    length = suite.hash.length if code < 0x1400 else 48
    state = replace(STATE, suite=suite, secret=bytes(length), server_name="", peer_identity="")
    assert TicketState.from_bytes(state.to_bytes()) == state
    assert state.version is suite.version
    with pytest.raises(DecodeError):
        TicketState.from_bytes(replace(state, secret=bytes(length - 1)).to_bytes())


def test_a_state_of_another_format_or_suite_or_cut_anywhere_is_refused() -> None:
    data = STATE.to_bytes()
    for wrong in (
        b"\2" + data[1:],
        data[:1] + b"\x13\xff" + data[3:],
        data + b"\0",
        *(data[:n] for n in range(len(data))),
    ):
        with pytest.raises(DecodeError):
            TicketState.from_bytes(wrong)
    with pytest.raises(DecodeError, match="UTF-8"):
        TicketState.from_bytes(data.replace(b"www", b"\xff\xff\xff"))
