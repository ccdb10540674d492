"""What a delegated TLS 1.3 handshake costs: the delegate, the link, and the terminal.

X25519, a server certificate on P-256 with one intermediate, OSCORE over UDP. A real `locum up` process, a real
nginx, and the terminal in this process.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.counting import CallCounter
from bench.harness import Benchmark, Row, process_seconds
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding

from locum.authority.databases import Action, PolicyRule, TrustMaterial
from locum.authority.local import LocalAuthority
from locum.crypto.symmetric import AES_128_CCM_8, SHA256
from locum.demo.node import DemoNode
from locum.demo.peers import NginxServer, Server, ServerOptions
from locum.demo.pki import CertificateAuthority
from locum.terminal import Terminal
from locum.terminal.steps import Actor, TerminalStep
from locum.tls.registry import NamedGroup, ProtocolVersion

HANDSHAKES = 300
#: the least of so many rounds counts: whatever else the machine does only ever adds
ROUNDS = 10
WARM_UP = 30
COUNTED = 20
TERMINAL = "bench"
#: What the delegate's part of a handshake consists of: HMACs from early to master secret, messages on the link.
KEY_SCHEDULE_HMACS = 7
MESSAGES = 3
CONTENT = bytes(100)
#: One terminal does all handshakes, so it must be allowed more than a device would be.
NO_LIMITS = "[delegate]\nrequests_per_second = 1e6\nrequest_burst = 1e7\n"


@dataclass(slots=True)
class Link:
    """What went over the link to the delegate, from a terminal's steps."""

    round_trips: int = 0
    octets: int = 0

    def observe(self, step: TerminalStep) -> None:
        """Count one step."""
        if step.actor is Actor.DELEGATE:
            self.round_trips += step.bytes_out > 0
            self.octets += step.bytes_out + step.bytes_in


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that is started for a measurement."""

    root: Path
    server: Server
    #: behind a chain that nobody has seen before the measurement
    unseen: Server
    #: bytes of that chain, in DER
    unseen_chain: int
    node: DemoNode
    credential: Path

    def delegate_seconds(self) -> float:
        """CPU time of the delegate process so far."""
        return process_seconds(self.node.process.pid)

    def local_authority(self) -> LocalAuthority:
        """An authority in this process that decides as the delegate does."""
        return LocalAuthority(
            trust=TrustMaterial(anchors=(self.root.read_bytes(),)),
            policy=(PolicyRule(terminal="*", peer="dns:localhost", action=Action.ALLOW),),
            now=time.time,
        )


@contextmanager
def stage(*, interpreter_options: Sequence[str] = ()) -> Iterator[Stage]:
    """A node with one terminal enrolled, and nginx twice, each behind a chain of two."""
    with tempfile.TemporaryDirectory(prefix="locum-bench-") as name:
        directory = Path(name)
        root = CertificateAuthority(directory, "root")
        intermediate = root.intermediate("intermediate")
        leaves = intermediate.issue("leaf"), intermediate.issue("unseen")
        servers = [
            NginxServer(
                directory / f"nginx-{index}",
                ServerOptions(certificates=(leaf,), versions=("1.3",), groups="X25519", tickets=False),
            )
            for index, leaf in enumerate(leaves)
        ]
        chain = (leaves[1].certificate, intermediate.certificate)
        unseen_chain = sum(len(certificate.public_bytes(Encoding.DER)) for certificate in chain)
        node = DemoNode(directory, configuration=NO_LIMITS, interpreter_options=interpreter_options)
        with servers[0] as server, servers[1] as unseen, node:
            credential = node.enroll(TERMINAL)
            node.command("trust", "add", root.path.name)
            node.command("policy", "add", "--terminal", TERMINAL, "--peer", "dns:localhost", "--action", "allow")
            time.sleep(1.0)  # a running node notices changes within this time
            yield Stage(root.path, server, unseen, unseen_chain, node, credential)


async def handshakes(terminal: Terminal, server: Server, count: int) -> None:
    """Do `count` handshakes one after the other."""
    for _ in range(count):
        _, writer = await terminal.connect_tls(
            server.host,
            server.port,
            server_name="localhost",
            versions=(ProtocolVersion.TLS_1_3,),
            groups=(NamedGroup.X25519,),
        )
        writer.transport.abort()


def cryptography_seconds() -> float:
    """CPU time of the cryptography that a delegate does for one handshake, in this process."""
    peer_key = ec.generate_private_key(ec.SECP256R1())
    signature = peer_key.sign(CONTENT, ec.ECDSA(hashes.SHA256()))
    public_key = peer_key.public_key()
    share = x25519.X25519PrivateKey.generate().public_key().public_bytes_raw()
    channel = AES_128_CCM_8.new(bytes(16))
    sealed = channel.seal(bytes(13), CONTENT, b"")
    started = time.process_time()
    for _ in range(HANDSHAKES):
        key = x25519.X25519PrivateKey.generate()
        key.public_key().public_bytes_raw()
        key.exchange(x25519.X25519PublicKey.from_public_bytes(share))
        public_key.verify(signature, CONTENT, ec.ECDSA(hashes.SHA256()))
        for _ in range(KEY_SCHEDULE_HMACS):
            SHA256.hmac(CONTENT, CONTENT)
        for _ in range(MESSAGES):
            channel.open(bytes(13), sealed, b"")
            channel.seal(bytes(13), CONTENT, b"")
    return (time.process_time() - started) / HANDSHAKES


def measure_delegate() -> list[Row]:
    """CPU of the delegate process, round trips and bytes."""
    with stage() as started:
        return asyncio.run(_measure_delegate(started))


async def _measure_delegate(started: Stage) -> list[Row]:
    links = {"first": Link(), "warm-up": Link(), "later": Link()}
    part = "warm-up"
    async with Terminal(started.credential, observer=lambda step: links[part].observe(step)) as terminal:
        await handshakes(terminal, started.server, WARM_UP)
        part = "first"
        await handshakes(terminal, started.unseen, 1)
        part = "later"
        best = alone = float("inf")
        for _ in range(ROUNDS):
            before = started.delegate_seconds()
            await handshakes(terminal, started.server, HANDSHAKES)
            best = min(best, (started.delegate_seconds() - before) / HANDSHAKES)
            alone = min(alone, cryptography_seconds())
    first, later = links["first"], links["later"]
    return [
        Row(
            name="delegate-tls13-cpu",
            value=best * 1000,
            unit="ms",
            reference="X25519, ECDSA, HMAC and AES-CCM of one handshake alone",
            reference_value=alone * 1000,
        ),
        Row(
            name="delegate-tls13-round-trips", value=later.round_trips / (ROUNDS * HANDSHAKES), unit="round trips"
        ),
        Row(name="delegate-tls13-bytes", value=later.octets / (ROUNDS * HANDSHAKES), unit="bytes"),
        Row(
            name="delegate-tls13-bytes-first",
            value=first.octets,
            unit="bytes",
            reference="the chain alone, which has not been seen before",
            reference_value=started.unseen_chain,
        ),
    ]


def measure_terminal() -> list[Row]:
    """CPU of the terminal, delegated and with the authority in its own process, and its cryptographic calls."""
    with stage() as started:
        return asyncio.run(_measure_terminal(started))


async def _measure_terminal(started: Stage) -> list[Row]:
    best = {"delegated": float("inf"), "local": float("inf")}
    calls: dict[str, Counter[str]] = {}
    async with (
        Terminal(started.credential) as delegated,
        Terminal(authority=started.local_authority()) as local,
    ):
        terminals = {"delegated": delegated, "local": local}
        for terminal in terminals.values():
            await handshakes(terminal, started.server, WARM_UP)
        for _ in range(ROUNDS):
            for name, terminal in terminals.items():
                before = time.process_time()
                await handshakes(terminal, started.server, HANDSHAKES)
                spent = (time.process_time() - before) / (HANDSHAKES)
                best[name] = min(best[name], spent)
        for name, terminal in terminals.items():
            with CallCounter() as counter:
                await handshakes(terminal, started.server, COUNTED)
            calls[name] = counter.counts
    reference = "the same engine with a LocalAuthority"
    return [
        Row(
            name="terminal-tls13-cpu",
            value=best["delegated"] * 1000,
            unit="ms",
            reference=reference,
            reference_value=best["local"] * 1000,
        ),
        *(
            Row(
                name=f"terminal-tls13-{kind}-calls",
                value=calls["delegated"][kind] / COUNTED,
                unit="calls",
                reference=reference,
                reference_value=calls["local"][kind] / COUNTED,
            )
            for kind in CALL_KINDS
        ),
    ]


CALL_KINDS = ("aead", "hash", "hmac", "asymmetric")

BENCHMARKS = (
    Benchmark(
        (
            "delegate-tls13-cpu",
            "delegate-tls13-round-trips",
            "delegate-tls13-bytes",
            "delegate-tls13-bytes-first",
        ),
        measure_delegate,
    ),
    Benchmark(("terminal-tls13-cpu", *(f"terminal-tls13-{kind}-calls" for kind in CALL_KINDS)), measure_terminal),
)
