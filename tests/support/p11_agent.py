"""An agent with keys in files, as a process of its own: `python -m tests.support.p11_agent SETTINGS`.

SETTINGS is JSON: socket, keys (name to path), and what `p11_worker` and `AgentOptions` may be told besides.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from locum.demo.process import BackgroundProcess
from locum.edge.p11.agent import Agent, AgentOptions
from locum.edge.p11.allowed import Allowed
from locum.node import logs


def agent_process(directory: Path, keys: dict[str, Path], **settings: Any) -> BackgroundProcess:
    """The agent, not started; its socket is `directory / "p11.sock"`."""
    told = {"socket": str(directory / "p11.sock"), "keys": {name: str(path) for name, path in keys.items()}}
    return BackgroundProcess(
        "locum pkcs11",
        [sys.executable, "-m", "tests.support.p11_agent", json.dumps(told | settings)],
        log_path=directory / "agent.log",
        ready=lambda log: "ready pkcs11=" in log,
        working_directory=Path(__file__).resolve().parents[2],
    )


def main() -> None:
    settings = json.loads(sys.argv[1])
    logs.configure(level="info", form="text")
    options = AgentOptions(
        path=Path(settings["socket"]),
        allowed=Allowed.of(uids=settings.get("uids", ())),
        worker=(sys.executable, "-m", "tests.support.p11_worker", json.dumps(settings)),
        **{name: settings[name] for name in ("workers", "timeout", "max_clients") if name in settings},
    )
    Agent(options).run(lambda keys: os.write(1, f"ready pkcs11={options.path} keys={keys}\n".encode()))


if __name__ == "__main__":
    main()
