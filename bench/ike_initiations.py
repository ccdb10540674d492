"""IKE SAs that a terminal initiates with a delegate's help, one after the other, for measurements.

The engine and its way to the delegate are the terminal's own; a socket stands for its data plane.
"""

from __future__ import annotations

import asyncio
import os
import socket
from ipaddress import ip_address
from pathlib import Path

from bench.ike_responder import INITIATOR, RESPONDER

from locum.errors import Unavailable
from locum.ike.endpoint import Endpoint
from locum.ike.engine import IKE_PORT, Closed, Established, IkeSa, State
from locum.ike.engine import Path as Way
from locum.terminal.aio_channel import AsyncChannel
from locum.terminal.device import Device
from locum.terminal.ipsec_options import IpsecOptions, connection
from locum.terminal.ipsec_sessions import Sessions

PATIENCE = 5.0
_LARGEST = 65_535


class Initiator:
    """A terminal at `local` that makes SAs with the peer at `remote`. To be used in one event loop."""

    def __init__(self, credential: Path, local: str, remote: str, proposal: str) -> None:
        options = IpsecOptions(
            proposal=proposal, local_identity=f"dns:{RESPONDER}", remote_identity=f"dns:{INITIATOR}"
        )
        self._way = Way(ip_address(local), IKE_PORT, ip_address(remote), IKE_PORT)
        self._endpoint = Endpoint(
            connection(options, self._way.remote),
            random=os.urandom,
            reserve_spi=lambda: 1 << 31 | int.from_bytes(os.urandom(3), "big"),
        )
        self._device: Device[AsyncChannel] = Device(
            credential, authority=None, observer=None, channel=AsyncChannel
        )
        self._sessions = Sessions(self._device, patience=PATIENCE)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind((local, IKE_PORT))

    def close(self) -> None:
        """Close the sockets."""
        self._sessions.close()
        self._device.close()
        self._socket.close()

    async def make(self, count: int) -> None:
        """Make `count` SAs, and delete each again. Raises: LocumError."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            sa = self._endpoint.initiate(self._way, now=loop.time())
            async with asyncio.timeout(PATIENCE):
                while sa.state is not State.CLOSED:
                    await self._go_on(sa, loop)

    async def _go_on(self, sa: IkeSa, loop: asyncio.AbstractEventLoop) -> None:
        """Do what the engine wants done; when there is nothing, wait for the peer."""
        for event in self._endpoint.events():
            if isinstance(event, Established):
                self._sessions.complete(sa, keys=self._device.keys)
                sa.close(now=loop.time())
            elif isinstance(event, Closed) and event.error is not None:
                raise Unavailable(f"no SA: {event.error}")
        for datagram in self._endpoint.transmit():
            self._socket.sendto(datagram.message, (str(datagram.path.remote), datagram.path.remote_port))
        for waiting in self._endpoint.waiting():
            assert waiting.pending is not None
            responses = await self._sessions.perform(waiting, waiting.session, waiting.pending)
            waiting.answer(responses, now=loop.time())
        if not self._endpoint.busy and sa.state is not State.CLOSED:
            message = await loop.sock_recv(self._socket, _LARGEST)
            self._endpoint.receive(message, self._way, now=loop.time())
