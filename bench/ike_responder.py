"""A terminal that responds to IKE and keeps no data plane busy, for measurements: the real driver, in a process.

`python -m bench.ike_responder DIRECTORY LOCAL REMOTE VERSION PROPOSAL [CREDENTIAL]`: prints "ready" and goes on
until SIGTERM. With a credential file it asks a delegate; without, an authority in this process, made of the files
in DIRECTORY.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from locum.authority.databases import Action, Identity, PolicyRule, SharedSecret, TrustMaterial
from locum.authority.local import LocalAuthority
from locum.dataplane.userspace import UserspaceInstaller
from locum.ike.configuration import Limits
from locum.keys.file import FileKey
from locum.runtime import loop_factory, tune_collector
from locum.terminal.ipsec import IpsecTerminal
from locum.terminal.ipsec_options import IpsecOptions, connection

#: What may be in the directory: the root that both ends trust, our chain and key, a pre-shared key.
ROOT, CHAIN, KEY, SECRET = "root.pem", "responder.chain.pem", "responder.key.pem", "secret"
RESPONDER, INITIATOR = "responder.example", "initiator.example"
_MANY = 1 << 20
#: As the reference is configured: nobody is turned away, or asked for a cookie.
NO_LIMITS = Limits(
    cookie_threshold=_MANY,
    half_open=_MANY,
    half_open_per_address=_MANY,
    begun_per_second=_MANY,
    begun_at_once=_MANY,
    established=_MANY,
)


def local_authority(directory: Path) -> LocalAuthority:
    """An authority in this process, with what the files in `directory` give it."""
    secret, chain, root = directory / SECRET, directory / CHAIN, directory / ROOT
    secrets = []
    if secret.exists():
        secrets.append(
            SharedSecret(
                terminal="*",
                peer=f"dns:{INITIATOR}",
                secret=secret.read_bytes(),
                local_identity=f"dns:{RESPONDER}",
            )
        )
    identities = []
    if chain.exists():
        certificates = x509.load_pem_x509_certificates(chain.read_bytes())
        identities.append(
            Identity(
                name=RESPONDER,
                certificates=tuple(each.public_bytes(Encoding.DER) for each in certificates),
                key=FileKey.from_pem((directory / KEY).read_bytes()),
            )
        )
    return LocalAuthority(
        trust=TrustMaterial(anchors=(root.read_bytes(),)),
        policy=(PolicyRule(terminal="*", peer=f"dns:{INITIATOR}", action=Action.ALLOW),),
        identities=identities,
        secrets=secrets,
        now=time.time,
    )


async def respond(directory: Path, local: str, remote: str, version: str, proposal: str, credential: str) -> None:
    """Respond until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with IpsecTerminal(
        Path(credential) if credential else None,
        authority=None if credential else local_authority(directory),
        connection=connection(IpsecOptions(version=version, proposal=proposal), ip_address(remote)),
        installer=UserspaceInstaller(),
        respond=True,
        local=ip_address(local),
        limits=NO_LIMITS,
    ):
        tune_collector()
        print("ready", flush=True)
        await stopped.wait()


def main() -> None:
    """Take the command line, and respond."""
    directory, local, remote, version, proposal, *credential = sys.argv[1:]
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(respond(Path(directory), local, remote, version, proposal, "".join(credential)))


if __name__ == "__main__":
    main()
