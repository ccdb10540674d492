"""What an IKE SA costs: the responder beside strongSwan's, the delegate of one, and its terminal.

A real terminal over real sockets, in a process and a namespace of its own, and strongSwan in others. SAs have no
child.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial

from bench.harness import Benchmark, Row, process_seconds
from bench.ike_initiations import Initiator
from bench.ike_laboratory import Case, IkeLaboratory, Responder

#: Seconds of handshakes in one go, before measuring and for each of the rounds that take turns.
WARM_UP = 1.0
SECONDS = 4.0
#: the least of so many rounds counts: whatever else the machine does only ever adds
ROUNDS = 6
#: Seconds after which a responder has forgotten what was deleted: until then it may be asked again, and forgetting
#: costs something too.
FORGETTING = 9.0
#: SAs that a terminal initiates in one round.
INITIATIONS = 300

#: What a terminal prefers of what strongSwan knows, and in IKEv1 what there is.
PSK = Case(version=2, proposal="aes256gcm16-prfsha256-x25519")
P256 = Case(version=2, proposal="aes256gcm16-prfsha256-x25519", kind="p256")
RSA_1 = Case(version=1, proposal="aes128-sha256-ecp256", kind="rsa2048")


def least(laboratory: IkeLaboratory, measured: Sequence[tuple[int, Responder]]) -> list[float]:
    """The least CPU time of each process, by its id, for a handshake with the responder beside it, in ms."""
    responders = dict.fromkeys(responder for _, responder in measured)
    for responder in responders:
        laboratory.drive(responder, WARM_UP)
    best = [float("inf")] * len(measured)
    for _ in range(ROUNDS):
        before = [process_seconds(pid) for pid, _ in measured]
        made = {responder: laboratory.drive(responder, SECONDS) for responder in responders}
        time.sleep(FORGETTING)
        for index, (pid, responder) in enumerate(measured):
            each = (process_seconds(pid) - before[index]) / made[responder]
            best[index] = min(best[index], each * 1000)
    return best


def measure_responder(name: str, case: Case) -> list[Row]:
    """CPU of our responder, with the authority in its process, and of strongSwan's."""
    with IkeLaboratory(case) as laboratory:
        responders = (laboratory.add_terminal(), laboratory.add_strongswan())
        ours, theirs = least(laboratory, [(responder.pid, responder) for responder in responders])
    return [Row(name=name, value=ours, unit="ms", reference="strongSwan as the responder", reference_value=theirs)]


def measure_delegated() -> list[Row]:
    """CPU of the delegate and of the terminal that responds with its help, P-256 certificates."""
    with IkeLaboratory(P256) as laboratory:
        node = laboratory.add_node()
        delegated, local = laboratory.add_terminal(delegated=True), laboratory.add_terminal()
        measured = ((node.process.pid, delegated), (delegated.pid, delegated), (local.pid, local))
        delegate, terminal, alone = least(laboratory, measured)
    return [
        Row(name="delegate-ike2-cpu", value=delegate, unit="ms"),
        Row(
            name="terminal-ike2-cpu",
            value=terminal,
            unit="ms",
            reference="the same terminal with a LocalAuthority",
            reference_value=alone,
        ),
    ]


def measure_initiated() -> list[Row]:
    """CPU of the delegate when its terminal initiates, P-256 certificates."""
    with IkeLaboratory(P256) as laboratory:
        node = laboratory.add_node()
        site, address, peer = laboratory.delegated_ends
        with site.entered():
            initiator = Initiator(laboratory.credential, address, peer, P256.proposal)
            each = asyncio.run(_measure_initiations(initiator, node.process.pid))
    return [Row(name="delegate-ike2-initiator-cpu", value=each, unit="ms")]


async def _measure_initiations(initiator: Initiator, delegate: int) -> float:
    """CPU of the delegate for an SA that its terminal initiates, in milliseconds."""
    best = float("inf")
    with closing(initiator):
        await initiator.make(INITIATIONS // 10)
        for _ in range(ROUNDS):
            before = process_seconds(delegate)
            await initiator.make(INITIATIONS)
            best = min(best, (process_seconds(delegate) - before) / INITIATIONS * 1000)
    return best


BENCHMARKS = (
    Benchmark(("ike2-psk-responder-cpu",), partial(measure_responder, "ike2-psk-responder-cpu", PSK)),
    Benchmark(("ike2-p256-responder-cpu",), partial(measure_responder, "ike2-p256-responder-cpu", P256)),
    Benchmark(("ike1-rsa-responder-cpu",), partial(measure_responder, "ike1-rsa-responder-cpu", RSA_1)),
    Benchmark(("delegate-ike2-cpu", "terminal-ike2-cpu"), measure_delegated),
    Benchmark(("delegate-ike2-initiator-cpu",), measure_initiated),
)
