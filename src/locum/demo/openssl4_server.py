"""A TLS server on the OpenSSL inside `cryptography`, run as a process of its own: a peer like any other.

Takes its settings as one JSON argument, prints `listening PORT`, serves files of its working directory over
HTTP/1.0 or echoes. Knows nothing of locum's own TLS.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from OpenSSL import SSL

REQUEST_LIMIT = 16_384
CONNECTION_TIMEOUT = 60.0
VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
#: From <openssl/ssl.h>; pyOpenSSL has no names for them.
OP_ALLOW_NO_DHE_KEX = 1 << 10
OP_PREFER_NO_DHE_KEX = 1 << 35


def make_context(settings: dict[str, Any]) -> SSL.Context:
    """A server context as the settings of `peers.Openssl4Server` say."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    versions = sorted(VERSIONS[version] for version in settings["versions"])
    context.set_min_proto_version(versions[0])
    context.set_max_proto_version(versions[-1])
    for chain, key in settings["certificates"]:
        context.use_certificate_chain_file(chain)
        context.use_privatekey_file(key)
    context.set_session_id(b"locum-demo")
    if settings["ciphers"]:
        context.set_cipher_list(settings["ciphers"].encode())
    if settings["suites"]:
        context.set_tls13_ciphersuites(settings["suites"].encode())
    if not settings["tickets"]:
        context.set_options(SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if settings["resume_without_dhe"]:
        context.set_options(OP_ALLOW_NO_DHE_KEX | OP_PREFER_NO_DHE_KEX)
    if settings["client_ca"]:
        context.load_verify_locations(settings["client_ca"])
        context.load_client_ca(settings["client_ca"].encode())
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    if settings["ocsp_response"]:
        response = Path(settings["ocsp_response"]).read_bytes()
        context.set_ocsp_server_callback(lambda connection, data: response)
    if settings["alpn"]:
        offered = [name.encode() for name in settings["alpn"]]
        context.set_alpn_select_callback(
            lambda connection, names: next(
                (name for name in offered if name in names), SSL.NO_OVERLAPPING_PROTOCOLS
            )
        )
    _set_lists(context, settings["groups"], settings["signature_algorithms"])
    return context


def _set_lists(context: SSL.Context, groups: str, signature_algorithms: str) -> None:
    """Set what pyOpenSSL has no method for, through the bindings it is made of."""
    from OpenSSL._util import lib

    raw = context._context
    if groups and lib.SSL_CTX_set1_curves_list(raw, groups.encode()) != 1:
        raise ValueError(f"this OpenSSL does not know the groups {groups}")
    if signature_algorithms and lib.SSL_CTX_set1_sigalgs_list(raw, signature_algorithms.encode()) != 1:
        raise ValueError(f"this OpenSSL does not know the signature algorithms {signature_algorithms}")


def serve(settings: dict[str, Any]) -> None:
    """Accept connections until the process is ended."""
    context = make_context(settings)
    answer = _echo if settings["echo"] else _page
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        print(f"listening {listener.getsockname()[1]}", flush=True)  # noqa: T201
        while True:
            accepted, _ = listener.accept()
            threading.Thread(target=_connection, args=(context, accepted, answer), daemon=True).start()


def _connection(context: SSL.Context, accepted: socket.socket, answer: Any) -> None:
    accepted.setblocking(True)
    connection = SSL.Connection(context, accepted)
    connection.set_accept_state()
    try:
        connection.do_handshake()
        print(  # noqa: T201
            f"{connection.get_protocol_version_name()} {connection.get_cipher_name()} "
            f"group={connection.get_group_name()} client={_subject(connection)}",
            flush=True,
        )
        answer(connection)
        connection.shutdown()
        accepted.shutdown(socket.SHUT_WR)
        while accepted.recv(4096):
            pass
    except (SSL.Error, OSError) as error:
        print(f"failed: {error!r}", flush=True)  # noqa: T201
    finally:
        accepted.close()


def _subject(connection: SSL.Connection) -> str:
    certificate = connection.get_peer_certificate()
    return "none" if certificate is None else str(certificate.get_subject().CN)


def _echo(connection: SSL.Connection) -> None:
    while True:
        try:
            data = connection.recv(16_384)
        except SSL.ZeroReturnError:
            return
        connection.sendall(data)


def _page(connection: SSL.Connection) -> None:
    request = b""
    while b"\r\n\r\n" not in request and len(request) < REQUEST_LIMIT:
        request += connection.recv(4096)
    words = request.split(b" ", 2)
    # Only the last part of the path counts, so that nothing outside the working directory can be named.
    page = Path(Path(words[1].decode("ascii", "replace")).name or "index.html") if len(words) == 3 else Path()
    if page.is_file():
        connection.sendall(b"HTTP/1.0 200 ok\r\nContent-type: text/plain\r\n\r\n" + page.read_bytes())
    else:
        connection.sendall(b"HTTP/1.0 404 not found\r\n\r\n")


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
