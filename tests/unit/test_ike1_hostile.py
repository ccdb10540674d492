"""IKEv1 under attack: certificates by the dozen, and floods of messages while the authority is at work."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.ike1_memory import only, prepared
from tests.support.ike_memory import LEFT_ADDRESS, RIGHT_ADDRESS

from locum.handshake import MAX_CERTIFICATES, MAX_CHAIN
from locum.ike.configuration import Mode
from locum.ike.engine import Path, State
from locum.ike.header import parse_header
from locum.ike.operations import IkeAuthenticateRequest
from locum.ike.payloads1 import Certificate, Payload
from locum.ike.registry import CertificateEncoding
from locum.ike.v1 import aggressive_mode, main_mode
from locum.ike.v1.asking import MAX_WAITING, MAX_WAITING_BYTES, Asking

MODES = pytest.mark.parametrize("mode", list(Mode), ids=[mode.value for mode in Mode])
#: Certificates that a peer shows, of so many bytes each; the first is its own.
BOMBS = {
    "as many as allowed": (MAX_CERTIFICATES, 100),
    "one too many": (MAX_CERTIFICATES + 1, 100),
    "too long": (2, MAX_CHAIN),
}


@MODES
@pytest.mark.parametrize("bomb", BOMBS)
def test_certificate_bombs_are_refused_before_anybody_looks_at_them(mode: Mode, bomb: str) -> None:
    count, size = BOMBS[bomb]
    made = prepared("p256", mode)
    module: Any = main_mode if mode is Mode.MAIN else aggressive_mode
    honest = module.proof_payloads
    armed = [True]

    def bombing(*arguments: Any) -> tuple[Payload, ...]:
        payloads: tuple[Payload, ...] = honest(*arguments)
        if not armed:
            return payloads
        armed.clear()
        own, *rest = payloads
        more = Certificate(encoding=CertificateEncoding.X509_SIGNATURE, data=bytes(size))
        return (own, *[more] * (count - 1), *rest[-1:])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "proof_payloads", bombing)
        made.connect()
    # Who goes first with its certificates is the one that has been made to throw them.
    victim, bomber = (made.right, made.left) if mode is Mode.MAIN else (made.left, made.right)
    assert not armed
    looked = [each for each in victim.asked if isinstance(each, IkeAuthenticateRequest)]
    assert bool(looked) == (bomb == "as many as allowed")
    if not looked:
        assert all(sa.state is not State.ESTABLISHED for sa in victim.endpoint.sas)
        assert victim.installed == bomber.installed == []


@pytest.mark.parametrize(("length", "room"), [(100, MAX_WAITING), (30_000, 2)], ids=["many", "long"])
def test_what_waits_for_an_authority_is_bounded_in_number_and_bytes(length: int, room: int) -> None:
    made = prepared("psk").connect()
    asking, path = Asking(only(made.right)), Path(RIGHT_ADDRESS, 500, LEFT_ADDRESS, 500)
    header = parse_header(made.log[0].message)
    messages = [number.to_bytes(2, "big") + bytes(length - 2) for number in range(2 * MAX_WAITING)]
    taken = [asking.wait(header, message, path) for message in messages]
    assert taken == [True] * room + [False] * (2 * MAX_WAITING - room)
    # One that comes again takes no more.
    assert asking.wait(header, messages[0], path)
    assert sum(len(message) for _, message, _ in asking._waiting) == room * length <= MAX_WAITING_BYTES
