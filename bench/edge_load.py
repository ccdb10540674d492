"""Clients of a TLS server, in a process of their own: `python -m bench.edge_load WHAT PORT NAME SECONDS`.

WHAT is `handshakes`, each of them full and on a new connection, or `bulk`, which reads one page without end.
Begins when a line comes on standard input, and prints how many handshakes or bytes there were.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable

LOOPBACK = "127.0.0.1"
#: Handshakes, and streams, that one process has under way at a time.
THREADS = {"handshakes": 8, "bulk": 1}
PIECE = 1 << 18
PATIENCE = 30.0


def context() -> ssl.SSLContext:
    """TLS 1.3 for HTTP, and no thought given to whom it is: the server is what is measured."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.set_alpn_protocols(["http/1.1"])
    return made


def handshake(made: ssl.SSLContext, port: int, name: str) -> int:
    """One handshake, ended in order; returns 1."""
    with (
        socket.create_connection((LOOPBACK, port), PATIENCE) as plain,
        made.wrap_socket(plain, server_hostname=name) as stream,
        contextlib.suppress(OSError),
    ):
        stream.unwrap()
    return 1


class Stream:
    """One page that is read for as long as anybody wants."""

    def __init__(self, made: ssl.SSLContext, port: int, name: str) -> None:
        plain = socket.create_connection((LOOPBACK, port), PATIENCE)
        self._stream = made.wrap_socket(plain, server_hostname=name)
        self._stream.sendall(f"GET /stream HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        self._room = memoryview(bytearray(PIECE))

    def read(self) -> int:
        """Read a piece; returns its bytes."""
        return self._stream.recv_into(self._room)


def main() -> None:
    """Work for the time that is given, in several threads."""
    what, port, name, seconds = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    totals = []

    def work() -> None:
        made = context()
        step: Callable[[], int] = (
            (lambda: handshake(made, port, name)) if what == "handshakes" else Stream(made, port, name).read
        )
        done = 0
        while time.monotonic() < end:
            done += step()
        totals.append(done)

    print("ready", flush=True)
    sys.stdin.readline()
    end = time.monotonic() + seconds
    threads = [threading.Thread(target=work) for _ in range(THREADS[what])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(sum(totals), flush=True)


if __name__ == "__main__":
    main()
