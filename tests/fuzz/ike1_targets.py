"""Fuzz targets of IKEv1's exchanges: strangers' messages, and what an authentic peer may say that is nonsense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.support.ike1_memory import connected, only, prepared
from tests.support.ike_memory import Network
from tests.vectors.strongswan_ike import RECORDINGS

from locum.ike.configuration import Mode
from locum.ike.engine import State
from locum.ike.header import HEADER_LENGTH, MAX_MESSAGE
from locum.ike.keying1 import hash_1
from locum.ike.payloads1 import Hash, body_of
from locum.ike.registry import ExchangeType, Flags1, PayloadType1, Version
from locum.ike.v1.sa import Ike1Sa

#: An SA is used for so many inputs, then made anew: its message ids come to an end.
_USES = 500

_kept: dict[str, tuple[Network, int]] = {}


def _established(name: str) -> Network:
    """Two ends with an SA; another target has others."""
    net, uses = _kept.get(name, (None, _USES))
    if net is None or uses >= _USES or not net.left.live or not net.right.live:
        net, uses = connected(), 0
    _kept[name] = net, uses + 1
    return net


def _message(cookies: bytes, first: int, exchange_type: int, flags: int, message_id: bytes, body: bytes) -> bytes:
    length = (HEADER_LENGTH + len(body)).to_bytes(4, "big")
    return cookies + bytes((first, Version.IKE_1, exchange_type, flags)) + message_id + length + body


def _first_message(mode: Mode) -> Callable[[bytes], None]:
    exchange = ExchangeType.IDENTITY_PROTECTION if mode is Mode.MAIN else ExchangeType.AGGRESSIVE

    def run(data: bytes) -> None:
        """A stranger's first message to a responder; the first byte is the first payload's type."""
        if data:
            net = prepared("psk", mode)
            cookies = b"stranger" + bytes(8)
            net.inject(net.right, _message(cookies, data[0], exchange, 0, bytes(4), data[1:]))

    return run


def _answer(mode: Mode) -> Callable[[bytes], None]:
    exchange = ExchangeType.IDENTITY_PROTECTION if mode is Mode.MAIN else ExchangeType.AGGRESSIVE

    def run(data: bytes) -> None:
        """Messages to an initiator that waits for its answer; each begins with its length in two bytes."""
        net = prepared("psk", mode)
        net.disturb = lambda passage: ()
        sa = net.initiate()
        net.run()
        while len(data) > 3:
            length = int.from_bytes(data[:2], "big") % 2048
            body, first, data = data[3 : 3 + length], data[2], data[3 + length :]
            net.inject(net.left, _message(sa.own_spi + b"answerer", first, exchange, 0, bytes(4), body))

    return run


def _datagram(data: bytes) -> None:
    """Anything at all for an established SA, behind its cookies: nothing of it is authentic."""
    net = _established("datagram")
    left, right = net.left.child, net.right.child
    cookies = only(net.right)._channel.cookies.both
    body = data[4:]
    net.inject(net.right, cookies + data[:4] + data[:4] + (HEADER_LENGTH + len(body)).to_bytes(4, "big") + body)
    assert (net.left.child, net.right.child) == (left, right)


def _authentic(exchange_type: ExchangeType) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        """A chain of payloads behind a HASH that verifies; the first byte is the first payload's type."""
        if not data or len(data) > MAX_MESSAGE - 256:
            return
        net = _established(exchange_type.name)
        sender, receiver = only(net.left), only(net.right)
        isakmp = sender._core.isakmp
        assert isakmp is not None
        message_id = sender._core.message_ids.draw(sender._random)
        assert message_id is not None
        rest = data[1:]
        due = body_of(Hash(data=hash_1(isakmp.suite.prf, isakmp.keys.a, message_id, rest)))
        chain = bytes((data[0], 0)) + (4 + len(due)).to_bytes(2, "big") + due + rest
        body, _ = isakmp.chain(message_id).seal(chain)
        message = _message(
            sender._channel.cookies.both,
            PayloadType1.HASH,
            exchange_type,
            Flags1.ENCRYPTION,
            message_id.to_bytes(4, "big"),
            body,
        )
        net.inject(net.right, message)
        assert _sound(receiver)
        # What a new quick mode has begun is not gone on with.
        receiver._phase2.clear()

    return run


def _sound(sa: Ike1Sa) -> bool:
    """An SA has ended in order, or is as it was; its children may have been deleted."""
    return sa.state is State.CLOSED or (sa.state is State.ESTABLISHED and len(sa.children) <= 1)


def _fragments(data: bytes) -> None:
    """Fragments for an established SA: one of up to 255 bytes after another."""
    net = _established("fragments")
    child = net.right.child
    cookies = only(net.right)._channel.cookies.both
    while data:
        piece, data = data[1 : 1 + data[0]], data[1 + data[0] :]
        body = bytes(2) + (4 + len(piece)).to_bytes(2, "big") + piece
        net.inject(net.right, _message(cookies, PayloadType1.FRAGMENT, 32, 0, bytes(4), body))
    assert net.right.child is child


def _body(name: str, index: int) -> bytes:
    message = RECORDINGS[name].message(index)
    return message[16:17] + message[HEADER_LENGTH:]


def _said(exchange_type: ExchangeType) -> tuple[bytes, ...]:
    """What our own ends say behind the HASH, as seeds."""
    net = connected()
    left = only(net.left)
    said: list[bytes] = []
    isakmp = left._core.isakmp
    assert isakmp is not None
    watched = replace(isakmp)
    net.left.sa.rekey_child(net.left.child, now=net.now)
    net.left.sa.check_liveness(now=net.now)
    net.left.sa.close(now=net.now)
    net.run()
    for passage in net.log:
        header = passage.message[:HEADER_LENGTH]
        if passage.sender == "left" and header[18] == exchange_type:
            message_id = int.from_bytes(header[20:24], "big")
            plaintext, _ = watched.chain(message_id).open(passage.message[HEADER_LENGTH:])
            behind = int.from_bytes(plaintext[2:4], "big")
            said.append(plaintext[:1] + plaintext[behind:])
    return tuple(said)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "main_first": _first_message(Mode.MAIN),
    "aggressive_first": _first_message(Mode.AGGRESSIVE),
    "main_answer": _answer(Mode.MAIN),
    "aggressive_answer": _answer(Mode.AGGRESSIVE),
    "datagram": _datagram,
    "quick_mode": _authentic(ExchangeType.QUICK_MODE),
    "informational": _authentic(ExchangeType.INFORMATIONAL_1),
    "fragments": _fragments,
}

_ANSWER = _body("v1-aggressive-psk-sha1", 1)

SEEDS: dict[str, tuple[bytes, ...]] = {
    "main_first": (_body("v1-main-psk", 0),),
    "aggressive_first": (_body("v1-aggressive-psk-sha1", 0),),
    "aggressive_answer": ((len(_ANSWER) - 1).to_bytes(2, "big") + _ANSWER,),
    "quick_mode": _said(ExchangeType.QUICK_MODE)[:1],
    "informational": _said(ExchangeType.INFORMATIONAL_1),
}
