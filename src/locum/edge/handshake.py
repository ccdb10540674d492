"""The handshake of one connection on asyncio: bytes go to and from the engine, operations to its authority.

Never knows which end of the connection this is.
"""

from __future__ import annotations

import contextlib

from locum.authority.port import AsyncAuthoritySession
from locum.errors import LocumError, Unavailable
from locum.text import what_failed
from locum.tls.connection import Connection
from locum.tls_transport import Wire


async def shake_hands(wire: Wire, connection: Connection, session: AsyncAuthoritySession) -> None:
    """Drive `connection` until its handshake is complete. The caller limits the time.

    Raises: LocumError, of the kind that says who is at fault, after the alert has been sent.
    """
    try:
        connection.start()
        while True:
            while (requests := connection.pending) is not None:
                try:
                    responses = await session.perform(requests)
                except LocumError as error:
                    connection.fail(error)
                    raise
                connection.answer(responses)
            # Once for each turn, however many operations it took: a system call costs more than most of them.
            data = connection.data_to_send()
            if data:
                wire.send(data)
            if connection.handshake_complete:
                return
            connection.receive_data(await wire.read())
    except LocumError:
        if data := connection.data_to_send():
            wire.send(data)
        raise
    except OSError as error:
        # To the engine this is the end of the stream: it lets go of what it knows, long before it is collected.
        with contextlib.suppress(LocumError):
            connection.receive_data(b"")
        raise Unavailable(f"the connection was lost during the handshake: {what_failed(error)}") from None
    finally:
        await session.close()
