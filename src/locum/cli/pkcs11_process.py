"""How the agent of `locum pkcs11` starts one of its workers: the command line, and what is told on it.

Imports nothing that a worker needs: the agent itself does without.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

#: The program of a worker.
MODULE = "locum.cli.pkcs11_worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What a worker is told on its command line, which every user of the machine can read: no secret.

    `parent` is the agent's process id, without which a worker does not live on. `timeout` in seconds, for one
    operation.
    """

    parent: int
    credential: str
    timeout: float
    policy: str = "least"
    servers: tuple[str, ...] = ()
    certificate: str = ""

    def command(self) -> tuple[str, ...]:
        """The command line, up to the number of the descriptor of the link."""
        # Without -P it would import whatever the directory that it is started in calls like one of its modules.
        return sys.executable, "-P", "-m", MODULE, json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> WorkerSettings:
        """What `command` has written."""
        return cls(**json.loads(text))
