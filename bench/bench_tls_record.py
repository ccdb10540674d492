"""The record layer against pyOpenSSL: sealing 16 KiB records of TLS 1.3, AES-128-GCM, one core, in memory."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from bench.harness import Benchmark, Row, alternate
from OpenSSL import SSL

from locum.demo.pki import CertificateAuthority
from locum.tls.record import MAX_PLAINTEXT, RecordWriter, protection
from locum.tls.registry import CIPHER_SUITES, ContentType

RECORDS = 1500
ROUNDS = 9
TLS_AES_128_GCM_SHA256 = 0x1301
MEGABYTE = 1_000_000


def our_writer() -> RecordWriter:
    """A record writer with a key, as after a handshake."""
    suite = CIPHER_SUITES[TLS_AES_128_GCM_SHA256]
    writer = RecordWriter()
    writer.protection = protection(suite, bytes(suite.aead.key_length), bytes(12))
    return writer


def openssl_connection() -> SSL.Connection:
    """The server's end of a pyOpenSSL connection over memory BIOs, after its handshake."""
    with tempfile.TemporaryDirectory(prefix="locum-bench-") as directory:
        leaf = CertificateAuthority(Path(directory), "root").issue("leaf")
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.use_certificate_chain_file(str(leaf.chain))
        context.use_privatekey_file(str(leaf.key))
    context.set_tls13_ciphersuites(b"TLS_AES_128_GCM_SHA256")
    client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    server = SSL.Connection(context, None)
    client.set_connect_state()
    server.set_accept_state()
    for _ in range(3):
        for end, other in ((client, server), (server, client)):
            with suppress(SSL.WantReadError):
                end.do_handshake()
            with suppress(SSL.WantReadError):
                other.bio_write(end.bio_read(65_536))
    assert server.get_cipher_name() == "TLS_AES_128_GCM_SHA256"
    return server


def measure() -> list[Row]:
    """Seal the same record again and again with both."""
    content = bytes(MAX_PLAINTEXT)
    writer, connection = our_writer(), openssl_connection()

    def ours() -> None:
        for _ in range(RECORDS):
            writer.write(ContentType.APPLICATION_DATA, content)
            writer.take()

    def theirs() -> None:
        for _ in range(RECORDS):
            connection.send(content)
            connection.bio_read(MAX_PLAINTEXT + 256)

    volume = RECORDS * MAX_PLAINTEXT / MEGABYTE
    mine, reference = (volume / seconds for seconds in alternate((ours, theirs), rounds=ROUNDS))
    return [Row(name="tls-record-seal", value=mine, unit="MB/s", reference="pyOpenSSL", reference_value=reference)]


BENCHMARKS = (Benchmark(("tls-record-seal",), measure),)
