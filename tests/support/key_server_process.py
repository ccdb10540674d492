"""Real key servers for tests: keys of many kinds, and edges that are enrolled in the store, as the commands do.

A command for each edge would take longer than what is tested with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.key_pairs import key_pair
from tests.support.key_server_client import PATIENCE, KeyServerClient
from tests.support.node import Node

from locum.crypto.asymmetric.key_names import names_of
from locum.keys.credential import EdgeCredential
from locum.keys.link_pki import SERVER_NAME, Issued, LinkIssuer, new_authority, pem_of
from locum.names import HostPort
from locum.store import Allow, EdgeRole, LinkAuthority, Permissions, open_node_store

ACTOR = "test"
YEAR = 365 * 86_400.0


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until `condition` holds; fail with `what` when it never does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def ski(kind: str) -> bytes:
    """By what a request means the key of this kind."""
    return names_of(key_pair(kind).public_key).ski


class KeyServerProcess:
    """A node that is a key server with a key of each of `kinds`, called after its kind.

    `settings` are those of [keyserver]. A `twin` has the data, and the keys, of another one.
    """

    def __init__(
        self,
        directory: Path,
        kinds: Sequence[str] = ("p256",),
        *,
        processes: int = 1,
        twin: KeyServerProcess | None = None,
        **settings: object,
    ) -> None:
        self.directory = directory
        data, config = directory / "node", ""
        if twin is None:
            keys = directory / "keys"
            keys.mkdir(mode=0o700)
            for kind in kinds:
                path = keys / f"{kind}.key"
                path.touch(mode=0o600)
                path.write_bytes(key_pair(kind).pem())
            lines = {"processes": processes, "key_directory": f'"{keys}"', **settings}
            config = "[keyserver]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items())
        name = "" if twin is None else "twin"
        self.node = Node(data, key_server="127.0.0.1:0", name=name, config=config)
        self.node.start()
        self.store = open_node_store(data, create=False)

    @property
    def address(self) -> HostPort:
        """Where it listens."""
        return HostPort.parse(self.node.key_server)

    @property
    def authority(self) -> LinkAuthority:
        """The CA of its link."""
        return self.store.internal.link_authority(lambda: new_authority(now=time.time()), actor=ACTOR)

    def issue(self, name: str, *, now: float | None = None, lifetime: float = YEAR) -> Issued:
        """A certificate for an edge, from its CA, which alone lets nobody in."""
        issuer = LinkIssuer(self.authority.certificate, self.authority.private_key)
        return issuer.edge(name, now=time.time() if now is None else now, lifetime=lifetime)

    def credential(self, name: str, issued: Issued, *others: KeyServerProcess) -> EdgeCredential:
        """The credential of an edge, for this key server and `others`, written where the test keeps it."""
        return EdgeCredential(
            name=name,
            server_name=SERVER_NAME,
            servers=tuple(each.address for each in (self, *others)),
            certificate=issued.certificate_pem,
            key=issued.private_key_pem,
            ca=pem_of(self.authority.certificate),
        ).write(self.directory / f"edge-{name}", replace=True)

    def enrol(
        self,
        name: str,
        *others: KeyServerProcess,
        issued: Issued | None = None,
        not_after: float = 0.0,
        keys: tuple[str, ...] = ("*",),
        **permissions: Any,
    ) -> EdgeCredential:
        """An edge that may do everything with `keys` unless `permissions` say otherwise."""
        issued = issued or self.issue(name)
        everything: dict[str, Any] = {"allow": Allow.BOTH, "roles": EdgeRole.BOTH, "certificates": True}
        self.store.edges.enroll(
            name,
            fingerprint=issued.fingerprint,
            not_after=not_after or issued.not_after,
            permissions=Permissions(keys=keys, **(everything | permissions)),
            actor=ACTOR,
        )
        return self.credential(name, issued, *others)

    def revoke(self, name: str) -> None:
        """As `locum revoke edge`."""
        self.store.edges.revoke(name, actor=ACTOR)

    def permit(self, name: str, *, keys: tuple[str, ...] = ("*",), **permissions: Any) -> None:
        """Give an edge other permissions."""
        self.store.edges.permit(name, Permissions(keys=keys, **permissions), actor=ACTOR)

    def audited(self, text: str) -> bool:
        """True when an entry of the audit log has `text` in its detail."""
        return any(text in entry.detail for entry in self.store.audit.newest(1000))

    def memory(self) -> int:
        """The most bytes of memory that one of its workers has ever had."""
        return max(peak_memory(pid) for pid in self.node.workers)

    def close(self) -> None:
        """End it."""
        self.store.close()
        self.node.stop()


@contextmanager
def key_server(directory: Path, kinds: Sequence[str] = ("p256",), **settings: Any) -> Iterator[KeyServerProcess]:
    """A `KeyServerProcess` that ends with the block."""
    process = KeyServerProcess(directory, kinds, **settings)
    try:
        yield process
    finally:
        process.close()


def peak_memory(pid: int) -> int:
    """The most bytes of memory that a process has had at a time."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def is_served(credential: EdgeCredential) -> bool:
    """True when a new connection with this credential is answered."""
    try:
        with KeyServerClient(credential) as client:
            return client.is_alive()
    except OSError:
        return False
