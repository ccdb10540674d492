"""Unmodified TLS clients that fetch one page: curl, and openssl s_client.

Knows nothing of who answers, nor where its key is.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from locum.demo.programs import require_program
from locum.errors import Misbehaved, TimedOut, Unavailable

#: Seconds that one page may take.
FETCH_TIMEOUT = 20.0
#: How much of what a client says goes into an error message, in characters.
COMPLAINT = 200
_CURL_NEGOTIATED = re.compile(r"SSL connection using (TLSv[\d.]+) / (\S+)")
_OPENSSL_NEGOTIATED = re.compile(r"^New, (TLSv[\d.]+), Cipher is (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a client is told to insist on: the version, OpenSSL's names of suites (TLS 1.2) and of signatures."""

    version: str
    ciphers: str = ""
    signatures: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the page is, under which name, and the authority that vouches for it (a PEM file)."""

    host: str
    port: int
    name: str
    authority: Path
    page: bytes


def curl(target: Target, wish: Wish) -> str:
    """Fetch the page; returns what was negotiated.

    Raises: LocumError when that, or the page, is not as it should be.
    """
    words: list[str | Path] = [require_program("curl"), "-sS", "-v", "--http1.1", "--cacert", target.authority]
    words += ["--resolve", f"{target.name}:{target.port}:{target.host}", f"--tlsv{wish.version}"]
    words += ["--tls-max", wish.version, "--max-time", str(FETCH_TIMEOUT)]
    words += ["--ciphers", wish.ciphers] if wish.ciphers else []
    done = _run([*words, f"https://{target.name}:{target.port}/"], b"")
    return _checked(done, _CURL_NEGOTIATED.search(done.stderr.decode(errors="replace")), target, wish)


def openssl(target: Target, wish: Wish) -> str:
    """As `curl`, through openssl s_client."""
    words: list[str | Path] = [require_program("openssl"), "s_client", "-connect", f"{target.host}:{target.port}"]
    words += ["-servername", target.name, "-CAfile", target.authority, "-verify_return_error", "-ign_eof"]
    words += ["-tls1_3" if wish.version == "1.3" else "-tls1_2"]
    words += ["-cipher", wish.ciphers] if wish.ciphers else []
    words += ["-sigalgs", wish.signatures] if wish.signatures else []
    request = f"GET / HTTP/1.1\r\nHost: {target.name}\r\nConnection: close\r\n\r\n"
    done = _run(words, request.encode())
    return _checked(done, _OPENSSL_NEGOTIATED.search(done.stdout.decode(errors="replace")), target, wish)


def _run(words: Sequence[str | Path], standard_input: bytes) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603 - our own words, no shell
            words, input=standard_input, capture_output=True, timeout=FETCH_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise TimedOut(f"{words[0]} had no answer within {FETCH_TIMEOUT:.0f} s") from None


def _checked(
    done: subprocess.CompletedProcess[bytes], negotiated: re.Match[str] | None, target: Target, wish: Wish
) -> str:
    complaint = " ".join(done.stderr.decode(errors="replace").split())[-COMPLAINT:]
    if done.returncode != 0 or negotiated is None:
        raise Unavailable(f"no handshake: {complaint}")
    version, suite = negotiated.groups()
    if version != f"TLSv{wish.version}" or (wish.ciphers and suite not in wish.ciphers.split(":")):
        raise Misbehaved(f"{version} and {suite} were negotiated")
    if target.page not in done.stdout:
        raise Misbehaved(f"this is not the page: {done.stdout[-COMPLAINT:]!r}")
    return f"{version}, {suite}"
