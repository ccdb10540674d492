"""The agent's listening socket when the system has no room for one more connection."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from locum.edge.p11.agent import REST_SECONDS, Agent, AgentOptions
from locum.edge.p11.allowed import Allowed


class Full(socket.socket):
    """A listening socket of a process without descriptors left."""

    full = True

    def accept(self) -> tuple[socket.socket, object]:
        if self.full:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Full]:
    with Full(socket.AF_UNIX) as found:
        found.bind(str(tmp_path / "socket"))
        found.listen()
        found.setblocking(False)
        yield found


def test_without_room_the_agent_rests_and_then_accepts_again(listener: Full, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    agent = Agent(AgentOptions(path=path, allowed=Allowed.of(), worker=("true",)))
    agent._listener = listener
    agent._accept_again()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        agent._turn()
        assert listener.fileno() not in agent._handlers
        listener.full = False
        agent._time_passes(agent._now)
        assert listener.fileno() not in agent._handlers
        agent._time_passes(agent._now + 2 * REST_SECONDS)
        assert listener.fileno() in agent._handlers
        agent._turn()
        assert len(agent._connections) == 1
    agent._stop()
    assert not path.exists()
    agent._epoll.close()


def test_an_agent_that_rests_can_be_ended(listener: Full, tmp_path: Path) -> None:
    agent = Agent(AgentOptions(path=tmp_path / "socket", allowed=Allowed.of(), worker=("true",)))
    agent._listener = listener
    agent._accept_again()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "socket"))
        agent._turn()
    agent._stop()
    assert not (tmp_path / "socket").exists()
    agent._epoll.close()
