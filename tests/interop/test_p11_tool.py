"""`pkcs11-tool` as a user of the agent, with the distribution's own client module in between (C11, X4)."""

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support.p11_agent import agent_process
from tests.support.p11_keys import encrypt, offered, verify_ec, verify_pkcs1, verify_pss, write_keys

from locum.tls.schedule import certificate_verify_content

TIMEOUT = 120.0
CONTENT = b"content"
#: By id, for by label it takes any key.
RSA_KEY, EC_KEY = (("--id", offered(name).ski.hex()) for name in ("rsa", "ec"))
DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


class Tool:
    """`pkcs11-tool` with the agent as its token."""

    def __init__(self, program: Path, module: Path, directory: Path) -> None:
        self._command = [program, "--module", module]
        self._directory = directory
        self._environment = {**os.environ, "P11_KIT_SERVER_ADDRESS": f"unix:path={directory / 'p11.sock'}"}

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *words],
            env=self._environment,
            cwd=self._directory,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )

    def transform(self, data: bytes, *words: str) -> bytes:
        """What comes out for `data`; AssertionError when nothing does."""
        (self._directory / "in").write_bytes(data)
        (self._directory / "out").unlink(missing_ok=True)
        done = self(*words, "-i", "in", "-o", "out")
        assert done.returncode == 0, done.stderr
        return (self._directory / "out").read_bytes()

    def refused(self, data: bytes, *words: str) -> str:
        """What it says when it gets nothing."""
        (self._directory / "in").write_bytes(data)
        (self._directory / "out").unlink(missing_ok=True)
        done = self(*words, "-i", "in", "-o", "out")
        assert done.returncode != 0
        return done.stderr


@pytest.fixture
def tool(tmp_path: Path, require: Callable[[str], Path]) -> Iterator[Callable[..., Tool]]:
    """Starts the agent with the settings of `agent_process`."""
    program, module = require("pkcs11-tool"), require("p11-kit-client.so")
    keys = write_keys(tmp_path)
    with ExitStack() as running:

        def begin(**settings: Any) -> Tool:
            running.enter_context(agent_process(tmp_path, keys, **settings))
            return Tool(program, module, tmp_path)

        yield begin


def test_the_token_is_listed_with_its_keys(tool: Callable[..., Tool]) -> None:
    use = tool()
    assert "token label        : locum" in use("--list-token-slots").stdout
    objects = use("--list-objects").stdout
    assert "Private Key Object; RSA" in objects
    assert "Private Key Object; EC" in objects
    assert "sensitive, always sensitive, never extractable" in objects


def test_signatures_are_made_with_the_raw_permission(tool: Callable[..., Tool]) -> None:
    use, digest = tool(), hashlib.sha256(CONTENT).digest()
    sign = ("--sign", *RSA_KEY, "-m")
    verify_pkcs1(use.transform(CONTENT, *sign, "SHA256-RSA-PKCS"), CONTENT)
    verify_pkcs1(use.transform(DIGEST_INFO + digest, *sign, "RSA-PKCS"), CONTENT)
    verify_pss(use.transform(digest, *sign, "RSA-PKCS-PSS", "--hash-algorithm", "SHA256"), CONTENT)
    verify_ec(use.transform(digest, "--sign", *EC_KEY, "-m", "ECDSA"), CONTENT)


def test_what_is_encrypted_to_the_key_is_decrypted_with_the_raw_permission(tool: Callable[..., Tool]) -> None:
    assert tool().transform(encrypt(b"key material"), "--decrypt", *RSA_KEY, "-m", "RSA-PKCS") == (b"key material")


@pytest.mark.parametrize(
    "words",
    [
        ("--decrypt", *RSA_KEY, "-m", "RSA-PKCS"),
        ("--sign", *RSA_KEY, "-m", "RSA-PKCS"),
        ("--sign", *EC_KEY, "-m", "ECDSA"),
    ],
    ids=["decrypt", "sign", "ecdsa"],
)
def test_without_the_raw_permission_both_are_refused(tool: Callable[..., Tool], words: tuple[str, ...]) -> None:
    assert "CKR_KEY_FUNCTION_NOT_PERMITTED" in tool(raw=False).refused(encrypt(b"key material"), *words)


def test_without_the_raw_permission_contents_of_tls_are_signed_alone(tool: Callable[..., Tool]) -> None:
    use = tool(raw=False)
    content = bytes(64) + b"\x03\x00\x1d\x20" + bytes(32)
    sign = ("--sign", *RSA_KEY, "-m", "SHA256-RSA-PKCS")
    verify_pkcs1(use.transform(content, *sign), content)
    for other in (CONTENT, certificate_verify_content(b"server", bytes(32))):  # TLS 1.3 has no such signatures
        assert "CKR_KEY_FUNCTION_NOT_PERMITTED" in use.refused(other, *sign)


@pytest.mark.parametrize("purpose", ["--sign", "--decrypt"])
def test_the_bare_private_operation_is_never_given(tool: Callable[..., Tool], purpose: str) -> None:
    assert "CKR_MECHANISM_INVALID" in tool().refused(bytes(255) + b"\2", purpose, *RSA_KEY, "-m", "RSA-X-509")
