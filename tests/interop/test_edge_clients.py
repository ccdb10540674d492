"""`locum edge` in front of a plain HTTP server, with its keys at a real key server: curl and openssl s_client.

Fig 2 with RSA key exchange, (EC)DHE and TLS 1.3, and whatever else these clients can be told to do.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.support import pki
from tests.support.require import require

from locum.demo.node import DemoNode
from locum.demo.process import BackgroundProcess
from locum.demo.tls_clients import Target, Wish, curl, openssl
from locum.errors import LocumError

LOOPBACK = "127.0.0.1"
SITE = "site.example.com"
PAGE = b"<p>the page behind the edge</p>\n"
CLIENTS = {"curl": curl, "openssl": openssl}
WISHES = {
    "tls13": Wish(version="1.3"),
    "tls13-rsa": Wish(version="1.3", signatures="rsa_pss_rsae_sha256"),
    "tls13-p256": Wish(version="1.3", signatures="ecdsa_secp256r1_sha256"),
    "ecdhe-ecdsa": Wish(version="1.2", ciphers="ECDHE-ECDSA-AES128-GCM-SHA256"),
    "ecdhe-ecdsa-chacha": Wish(version="1.2", ciphers="ECDHE-ECDSA-CHACHA20-POLY1305"),
    "ecdhe-rsa": Wish(version="1.2", ciphers="ECDHE-RSA-AES256-GCM-SHA384"),
    "rsa": Wish(version="1.2", ciphers="AES128-GCM-SHA256"),
    "rsa-sha384": Wish(version="1.2", ciphers="AES256-GCM-SHA384"),
    "rsa-ccm": Wish(version="1.2", ciphers="AES128-CCM"),
}
#: curl cannot be told which signatures to offer.
CASES = [
    (client, wish) for client in CLIENTS for wish in WISHES if client == "openssl" or not WISHES[wish].signatures
]


class Page(BaseHTTPRequestHandler):
    """Answers every GET with the page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAGE)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@dataclass(frozen=True)
class Stage:
    """A key server with both keys, and the backend."""

    directory: Path
    node: DemoNode
    backend: str
    authority: Path

    def enroll(self, name: str, *words: str) -> None:
        keys = ("--key", "p256", "--key", "rsa")
        self.node.command("enroll", "edge", name, "--out", name, *keys, "--server", self.node.key_server, *words)

    @contextmanager
    def edge(self, credential: str, *words: str) -> Iterator[Target]:
        command = [sys.executable, "-m", "locum", "edge", "--credential", credential, "--processes", "2"]
        command += ["--listen", f"{LOOPBACK}:0", "--backend", self.backend, *words]
        with BackgroundProcess(
            "locum edge",
            command,
            log_path=self.directory / f"edge-{credential}.log",
            ready=lambda log: "ready edge=" in log,
            working_directory=self.directory,
        ) as edge:
            found = re.search(r"ready edge=\S+:(\d+)", edge.log)
            assert found is not None
            yield Target(host=LOOPBACK, port=int(found[1]), name=SITE, authority=self.authority, page=PAGE)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    for program in ("curl", "openssl"):
        require(program)
    directory = tmp_path_factory.mktemp("edge")
    authority = directory / "root.pem"
    authority.write_bytes(pki.ca().pem)
    backend = ThreadingHTTPServer((LOOPBACK, 0), Page)
    serving = threading.Thread(target=backend.serve_forever, daemon=True)
    serving.start()
    with DemoNode(directory, key_server=True) as node:
        for kind in ("p256", "rsa"):
            issued = pki.leaf(pki.ca(), kind, (SITE,), slot=f"interop {kind}")
            chain, key = issued.write(directory, kind)
            node.command("key", "import", key.name, "--name", kind)
            key.unlink()
            response = pki.ocsp_response(pki.ca(), issued.certificate)
            chain.with_name(f"{chain.name}.ocsp").write_bytes(response)
            node.command("certificate", "add", chain.name)
        found = Stage(directory, node, f"{LOOPBACK}:{backend.server_port}", authority)
        found.enroll("bound")
        found.enroll("raw", "--allow", "raw")
        found.enroll("fetching", "--certificate")
        yield found
    backend.shutdown()
    serving.join()


FILES = ("--cert", "p256.pem", "--cert", "rsa.pem")


@pytest.fixture(scope="module", params=["bound", "raw"])
def edge(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Target]:
    with stage.edge(request.param, *FILES) as target:
        yield target


@pytest.mark.parametrize(("client", "wish"), CASES)
def test_a_page_comes_through(edge: Target, client: str, wish: str) -> None:
    CLIENTS[client](edge, WISHES[wish])


def test_certificates_can_be_at_the_key_server_alone(stage: Stage) -> None:
    with stage.edge("fetching") as target:
        assert curl(target, WISHES["tls13"])
        assert openssl(target, WISHES["tls13"])


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_shows_a_client_certificate(stage: Stage, version: str) -> None:
    clients = stage.directory / "clients.pem"
    clients.write_bytes(pki.ca(name="Clients").pem)
    chain, key = pki.client(pki.ca(name="Clients")).write(stage.directory, "client")
    with stage.edge("bound", *FILES, "--client-ca", clients.name) as target:
        words = [
            *("curl", "-sS", "--cacert", str(target.authority), "--resolve", f"{SITE}:{target.port}:{LOOPBACK}"),
            *(f"--tlsv{version}", "--tls-max", version, f"https://{SITE}:{target.port}/"),
        ]
        refused = subprocess.run(words, capture_output=True, check=False, timeout=60)
        assert refused.returncode != 0
        identified = [*words, "--cert", str(chain), "--key", str(key)]
        assert subprocess.run(identified, capture_output=True, check=True, timeout=60).stdout == PAGE


def s_client(target: Target, *words: str) -> str:
    """What openssl s_client says about a connection that it makes and ends."""
    command = ["openssl", "s_client", "-connect", f"{target.host}:{target.port}", "-servername", SITE]
    command += ["-CAfile", str(target.authority), "-verify_return_error", *words]
    request = f"GET / HTTP/1.1\r\nHost: {SITE}\r\nConnection: close\r\n\r\n".encode()
    done = subprocess.run([*command, "-ign_eof"], input=request, capture_output=True, check=False, timeout=60)
    return done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_gets_a_stapled_response_that_it_finds_good(edge: Target, version: str) -> None:
    assert "OCSP Response Status: successful" in s_client(edge, version, "-status")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_resumes_its_session(edge: Target, version: str, tmp_path: Path) -> None:
    session = str(tmp_path / "session")
    assert "New, TLS" in s_client(edge, version, "-sess_out", session)
    assert "Reused, TLS" in s_client(edge, version, "-sess_in", session)


@pytest.mark.parametrize("group", ["P-256", "P-384", "X25519", "X448"])
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_chooses_the_group(edge: Target, group: str, version: str) -> None:
    # Without P-256 among the groups, TLS 1.2 takes the RSA certificate (RFC 8422 section 5.1).
    said = s_client(edge, version, "-groups", group)
    assert PAGE.decode() in said
    assert "Verification: OK" in said


def test_a_group_that_was_offered_without_a_share_is_asked_for_again(stage: Stage) -> None:
    with stage.edge("bound", *FILES) as target:
        # OpenSSL sends a share for the first group only, which this edge does not have.
        said = s_client(target, "-tls1_3", "-groups", "P-521:P-384")
    assert PAGE.decode() in said


def test_openssl_is_told_that_there_is_no_renegotiation(edge: Target) -> None:
    command = ["openssl", "s_client", "-connect", f"{edge.host}:{edge.port}", "-servername", SITE, "-tls1_2"]
    done = subprocess.run(command, input=b"R\n", capture_output=True, check=False, timeout=60)
    assert b"no renegotiation" in done.stderr


def test_an_edge_that_is_revoked_has_no_more_handshakes(stage: Stage) -> None:
    stage.enroll("cut-off")
    with stage.edge("cut-off", *FILES) as target:
        assert curl(target, WISHES["tls13"])
        stage.node.command("revoke", "edge", "cut-off")
        for _ in range(100):
            try:
                curl(replace(target), WISHES["tls13"])
            except LocumError:
                break
        else:
            pytest.fail("it still has handshakes")
