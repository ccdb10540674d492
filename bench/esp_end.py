"""One end of a tunnel with keys set by hand, for measurements: our user-space IPsec and nothing else.

`python -m bench.esp_end LOCAL REMOTE LOCAL_NETWORK REMOTE_NETWORK CIPHER (first|second)`: prints "ready", goes on
until its standard input ends, and then prints what it has dropped.
"""

from __future__ import annotations

import asyncio
import json
import sys
from ipaddress import ip_address

import uvloop

from locum.dataplane.userspace import UserspaceInstaller
from locum.ipsec.algorithms import ENCRYPTION
from locum.ipsec.policy import Action, Policy, Protection
from locum.ipsec.sa import Direction, SecurityAssociation, UdpEncapsulation
from locum.ipsec.selectors import parse_selectors

PORT = 4500
SPIS = {"first": 0x1000_0001, "second": 0x1000_0002}


async def serve(local: str, remote: str, inside: str, outside: str, cipher: str, which: str) -> None:
    """Put two associations to work until standard input ends."""
    encryption = ENCRYPTION[cipher]
    installer = UserspaceInstaller()
    installer.start()
    installer.open_port(PORT, lambda *_: None, encapsulated=True)
    here, there = parse_selectors(inside), parse_selectors(outside)
    other = next(name for name in SPIS if name != which)
    associations = [
        SecurityAssociation(
            spi=SPIS[which if direction is Direction.IN else other],
            direction=direction,
            source=ip_address(local if direction is Direction.OUT else remote),
            destination=ip_address(remote if direction is Direction.OUT else local),
            encryption=encryption,
            encryption_key=bytes(range(encryption.keymat_length)),
            encapsulation=UdpEncapsulation(source_port=PORT, destination_port=PORT),
            local=here,
            remote=there,
        )
        for direction in Direction
    ]
    installer.install(associations)
    installer.set_policies(
        [Policy(name="all", action=Action.PROTECT, protection=Protection(), local=here, remote=there)]
    )
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    print("ready", flush=True)
    await ended.wait()
    print(json.dumps(dict(installer.dropped)), flush=True)
    installer.close()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:]))
