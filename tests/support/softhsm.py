"""A PKCS#11 token to test with: SoftHSM, its tokens in a directory of the test's own."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pkcs11
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.support.require import require

from locum.keys.token import TokenKey

PIN = "a pin of 1234"
LABEL = "locum test"
TIMEOUT = 60.0


@dataclass
class SoftHsm:
    """The library, the directory with its tokens, and the file with the PIN.

    `environment` is what other programs need to see the same tokens; this process has it while the fixture lasts.
    """

    library: Path
    utility: Path
    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"SOFTHSM2_CONF": str(self.directory / "softhsm2.conf")}

    @property
    def pin_file(self) -> Path:
        return self.directory / "pin"

    def prepare(self) -> None:
        """Write the configuration and the PIN, and make an empty token."""
        tokens = self.directory / "tokens"
        tokens.mkdir()
        (self.directory / "softhsm2.conf").write_text(
            f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        self.pin_file.write_text(f"{PIN}\n")
        self.pin_file.chmod(0o600)
        self.run("--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", "so pin")

    def run(self, *arguments: str) -> None:
        """Run softhsm2-util."""
        subprocess.run(
            [self.utility, "--module", self.library, *arguments],
            env={**os.environ, **self.environment},
            check=True,
            capture_output=True,
            timeout=TIMEOUT,
        )

    def store(self, key: Any, label: str, identifier: str) -> None:
        """Put a private key, and the public one with it, into the token; `identifier` in hexadecimal."""
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = self.directory / f"{label}.pem"
        path.write_bytes(pem)
        self.run("--import", str(path), "--token", LABEL, "--label", label, "--id", identifier, "--pin", PIN)
        path.unlink()

    def uri(self, label: str = "", **changes: str) -> str:
        """The URI of the key with this label; other attributes and query attributes as given."""
        path = {"token": LABEL.replace(" ", "%20"), "object": label} | changes
        query = {"module-path": str(self.library), "pin-source": f"file:{self.pin_file}"}
        query |= {name: path.pop(name) for name in tuple(query) if name in path}
        return f"pkcs11:{_written(path, ';')}?{_written(query, '&')}"

    def key(self, label: str) -> TokenKey:
        """The key with this label."""
        return TokenKey.open(self.uri(label))

    def session(self) -> pkcs11.Session:
        """A session that can write, for what no key does."""
        token = pkcs11.lib(str(self.library)).get_token(token_label=LABEL)
        try:
            return token.open(rw=True, user_pin=PIN)
        except pkcs11.UserAlreadyLoggedIn:
            return token.open(rw=True)


def _written(attributes: dict[str, str], separator: str) -> str:
    return separator.join(f"{name}={value}" for name, value in attributes.items() if value)


def soft_hsm(directory: Path) -> SoftHsm:
    """SoftHSM with an empty token in `directory`, or the end of this test."""
    hsm = SoftHsm(require("softhsm2.so"), require("softhsm2-util"), directory)
    hsm.prepare()
    return hsm
