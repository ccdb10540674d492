"""Fuzz targets of the IKE engine: bytes given to endpoints before, during and after a handshake, sealed ones too.

Whatever arrives, an endpoint stays within its limits, its timers can be run, and what was established stays so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from tests.support.ike_memory import Host, Network, network

from locum.ike.configuration import Connection, Limits, Timing
from locum.ike.engine import Closed, IkeSa, State
from locum.ike.protection import seal_message
from locum.ike.registry import ExchangeType, Version
from locum.ike.v2.channel import Channel

_TIMING = Timing(liveness=0.0, handshake=5.0, attempts=2, ike_lifetime=1e9, child_lifetime=1e9)
_LIMITS = Limits(cookie_threshold=4, half_open=8, half_open_per_address=6)
_CONNECTIONS = {version: Connection(version=version, timing=_TIMING) for version in Version}

#: What the peer may say under the keys of an SA; the first byte of an input chooses.
_EXCHANGES = (
    ExchangeType.INFORMATIONAL,
    ExchangeType.CREATE_CHILD_SA,
    ExchangeType.IKE_FOLLOWUP_KE,
    ExchangeType.IKE_AUTH,
)


def _fresh(version: Version) -> Network:
    return network(_CONNECTIONS[version], limits=_LIMITS)


def _check(host: Host, made: Network) -> None:
    """Within limits, and nothing left when time has gone by."""
    endpoint = host.endpoint
    assert endpoint.half_open <= _LIMITS.half_open
    made.disturb = lambda passage: ()
    made.advance(60.0)
    assert endpoint.half_open == 0
    assert all(sa.state is State.ESTABLISHED for sa in host.live)


# --- before -------------------------------------------------------------------------------------------------


def _stranger(version: Version) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        made = _fresh(version)
        made.inject(made.right, data)
        _check(made.right, made)

    return run


# --- during -------------------------------------------------------------------------------------------------


def _initiating(version: Version) -> Callable[[bytes], None]:
    """The answer to a first message: the input, with the cookies that make it one."""

    def run(data: bytes) -> None:
        made = _fresh(version)
        sa = made.initiate()
        made.disturb = lambda passage: ()
        made.run()
        made.inject(made.left, sa.own_spi + data[8:])
        _check(made.left, made)

    return run


def _responding(version: Version) -> Callable[[bytes], None]:
    """The message after the first answer: the input, with the cookies of the half-open SA."""

    def run(data: bytes) -> None:
        made = _fresh(version)
        made.disturb = lambda passage: ((0.0, passage),) if passage.number <= 2 else ()
        made.initiate()
        made.run()
        sa = made.right.sa
        made.inject(made.right, sa.peer_spi + sa.own_spi + data[16:])
        _check(made.right, made)

    return run


# --- after --------------------------------------------------------------------------------------------------


@cache
def _established(version: Version) -> Network:
    made = _fresh(version).connect()
    assert len(made.right.installed) == 1
    made.disturb = lambda passage: ()
    return made


def _after(version: Version) -> Callable[[bytes], None]:
    """Nothing that is not authentic has an effect: the same SA sees every input."""

    def run(data: bytes) -> None:
        made = _established(version)
        sa, child = made.right.current, made.right.child
        made.log.clear()
        made.inject(made.right, data)
        made.inject(made.right, sa.peer_spi + sa.own_spi + data[16:])
        made.advance(6.0)
        assert made.right.current is sa
        assert sa.state is State.ESTABLISHED
        assert made.right.child is child
        made.right.asked.clear()

    return run


def _channel(sa: IkeSa) -> Channel:
    return sa._core.channel  # type: ignore[attr-defined,no-any-return]


def _sealed(made: Network, exchange_type: ExchangeType, first: int, chain: bytes) -> bytes:
    """A request of the left end's with this inside."""
    channel = _channel(made.left.sa)
    assert channel._outbound is not None
    header = channel.header(exchange_type, channel.next_id, response=False)
    return seal_message(channel._outbound, header, first, chain)


def _inside(data: bytes) -> None:
    """A peer that has the keys: exchange, first payload's type, and the chain of payloads."""
    if len(data) < 2:
        return
    made = _fresh(Version.IKE_2).connect()
    made.inject(made.right, _sealed(made, _EXCHANGES[data[0] % len(_EXCHANGES)], data[1], data[2:]))
    _check(made.right, made)
    # The SA is as it was, or it is over and the driver was told.
    assert made.right.live or made.right.of(Closed)
    assert len(made.right.installed) <= 2


def _inside_auth(data: bytes) -> None:
    """An initiator that has the keys and has proven nothing: the chain of IKE_AUTH."""
    if not data:
        return
    made = _fresh(Version.IKE_2)
    made.disturb = lambda passage: ((0.0, passage),) if passage.number <= 2 else ()
    made.initiate()
    made.run()
    channel = _channel(made.left.sa)
    channel.next_id = 1
    made.inject(made.right, _sealed(made, ExchangeType.IKE_AUTH, data[0], data[1:]))
    assert not made.right.installed
    _check(made.right, made)
    assert not made.right.live


#: See `tests.support.fuzz`.
STRIDE = 7

TARGETS: dict[str, Callable[[bytes], None]] = {
    **{f"stranger{version >> 4}": _stranger(version) for version in Version},
    **{f"initiating{version >> 4}": _initiating(version) for version in Version},
    **{f"responding{version >> 4}": _responding(version) for version in Version},
    **{f"after{version >> 4}": _after(version) for version in Version},
    "inside2": _inside,
    "inside_auth2": _inside_auth,
}


def _recorded(version: Version, number: int) -> bytes:
    """A message of a handshake of ours."""
    made = network(replace(_CONNECTIONS[version], fragmentation=False)).connect()
    return made.log[number].message


def _inside_seeds() -> tuple[bytes, ...]:
    """Inputs of `_inside` that a peer might send."""
    delete = bytes((0, 0, 0, 8, 1, 0, 0, 0))
    notify = bytes((0, 0, 0, 8, 0, 0, 0x40, 0x00))
    nonce = bytes((0, 0, 0, 36)) + bytes(32)
    return (b"\0*" + delete, b"\0)" + notify, b"\1(" + nonce, b"\2)" + notify, b"\3)" + notify)


SEEDS: dict[str, tuple[bytes, ...]] = {
    **{f"stranger{version >> 4}": (_recorded(version, 0),) for version in Version},
    **{f"initiating{version >> 4}": (_recorded(version, 1),) for version in Version},
    **{f"responding{version >> 4}": (_recorded(version, 2),) for version in Version},
    **{f"after{version >> 4}": (_recorded(version, 3),) for version in Version},
    "inside2": _inside_seeds(),
    "inside_auth2": (bytes((35, 39, 0, 0, 8, 2, 0, 0, 0)), bytes((41, 0, 0, 0, 8, 0, 0, 0x40, 0x00))),
}
