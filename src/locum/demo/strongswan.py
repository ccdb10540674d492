"""strongSwan's charon, unmodified, in a network namespace: started, configured, watched, ended.

Knows charon's configuration and its log, and nothing of what it talks to (A11). Configuration, control socket and
log are in private directories; nothing of the system's own strongSwan is used but its programs.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from locum.demo.namespaces import Namespace
from locum.demo.pki import Issued
from locum.demo.process import BackgroundProcess
from locum.demo.programs import require_program
from locum.demo.vici import Vici
from locum.errors import Unavailable

T = TypeVar("T")

#: Seconds that something asked of charon may take.
PATIENCE = 10.0
POLL_INTERVAL = 0.02
ABANDON_TIME = 0.1
PLUGINS = (
    "random nonce x509 revocation constraints pubkey pkcs1 pkcs8 pem openssl drbg kdf {kernel} "
    "socket-default vici updown counters"
)
#: charon keeps its own packets out of the tunnel by this mark, when it does ESP itself.
MARK = "0x42"
APPARMOR_PROFILES = Path("/sys/kernel/security/apparmor/profiles")
#: Levels of charon's log: what it does, and with `secrets` every value that it computes.
LOG_LEVELS = {"default": 1, "ike": 2, "cfg": 2, "knl": 1}
SECRET_LOG_LEVELS = {"ike": 4, "chd": 4}
_DUMP = re.compile(r"^(?:\S+ )?\d+\[\w{3}\] (?:<[^>]*> )?(?P<name>.+) => (?P<length>\d+) bytes @ 0x")
_DUMP_LINE = re.compile(r"^(?:\S+ )?\d+\[\w{3}\] (?:<[^>]*> )? *\d+: (?P<hex>(?:[0-9A-F]{2} )+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """What charon protects, by its own words: networks, proposals, lifetimes in seconds (0 for never).

    `soft` and `hard` are when it makes a successor, and when it gives up. `extra` is anything else of a
    ``children.<name>`` section.
    """

    name: str = "net"
    local: Sequence[str]
    remote: Sequence[str]
    transport: bool = False
    proposals: Sequence[str] = ("aes128gcm16", "aes128-sha256")
    soft: float = 0
    hard: float = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def section(self) -> dict[str, Any]:
        """As charon takes it."""
        return {
            "mode": "transport" if self.transport else "tunnel",
            "esp_proposals": list(self.proposals),
            "local_ts": list(self.local),
            "remote_ts": list(self.remote),
            "rekey_time": f"{self.soft:g}s",
            "life_time": f"{self.hard:g}s",
            "rand_time": "0s",
            **self.extra,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A connection of charon's, by its own words.

    `certificate` is its own; without one it uses pre-shared keys, given to charon by `StrongSwan.share`.
    `authentication` narrows how it signs, as ``ike:rsa/pss-sha256``, and `peer_authentication` what it takes.
    Times are in seconds, 0 for never; `liveness` is that of DPD. `extra` is anything else of a
    ``connections.<name>`` section.
    """

    name: str = "net"
    version: int = 2
    aggressive: bool = False
    local: str
    remote: str
    identity: str
    peer_identity: str
    certificate: Issued | None = field(default=None, repr=False)
    authentication: str = ""
    peer_authentication: str = ""
    proposals: Sequence[str] = ("aes128-sha256-x25519",)
    children: Sequence[Child] = ()
    soft: float = 0
    hard: float = 0
    liveness: float = 0
    liveness_timeout: float = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def section(self) -> dict[str, Any]:
        """As charon takes it."""
        method = "psk" if self.certificate is None else "pubkey"
        own: dict[str, Any] = {"auth": self.authentication or method, "id": self.identity}
        if self.certificate is not None:
            # Every certificate of the chain, its own first.
            own["certs"] = [self.certificate.der]
        section: dict[str, Any] = {
            "version": self.version,
            "aggressive": self.aggressive,
            "local_addrs": [self.local],
            "remote_addrs": [self.remote],
            "proposals": list(self.proposals),
            "local-1": own,
            "remote-1": {"auth": self.peer_authentication or method, "id": self.peer_identity},
            "rekey_time": f"{0 if self.version == 1 else self.soft:g}s",
            "reauth_time": f"{self.soft if self.version == 1 else 0:g}s",
            "over_time": f"{max(0, self.hard - self.soft):g}s",
            "rand_time": "0s",
            "dpd_delay": f"{self.liveness:g}s",
            "dpd_timeout": f"{self.liveness_timeout:g}s",
            "mobike": False,
            "unique": "never",
            "children": {child.name: child.section() for child in self.children},
        }
        if not self.children and self.version == 2:
            section["childless"] = "force"
        section.update(self.extra)
        return section


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerChild:
    """A CHILD_SA as charon lists it. SPIs are 4 bytes."""

    name: str
    state: str
    mode: str
    encapsulated: bool
    spi_in: bytes
    spi_out: bytes
    algorithms: str
    packets_in: int
    packets_out: int
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSa:
    """An IKE SA as charon lists it; `unique` is its number, and SPIs are 8 bytes."""

    name: str
    unique: int
    version: int
    state: str
    initiator: bool
    initiator_spi: bytes
    responder_spi: bytes
    identity: str
    peer_identity: str
    algorithms: str
    children: tuple[PeerChild, ...]

    @property
    def installed(self) -> tuple[PeerChild, ...]:
        """The CHILD_SAs that carry packets."""
        return tuple(child for child in self.children if child.state == "INSTALLED")


class StrongSwan:
    """One charon in `namespace`; a context manager. Its configuration and log are in `directory`.

    With `userspace` it does ESP itself over a TUN device, in UDP always, and only in tunnel mode; without, the
    kernel does. `secrets` has it log every key. `settings` are added to its section of strongswan.conf.
    """

    def __init__(
        self,
        namespace: Namespace,
        directory: Path,
        *,
        userspace: bool = True,
        secrets: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.namespace = namespace
        self.directory = directory
        self._userspace = userspace
        self._levels = {**LOG_LEVELS, **(SECRET_LOG_LEVELS if secrets else {})}
        self._settings = dict(settings or {})
        self._program = require_program("charon-systemd")
        if userspace:
            require_program("strongswan-libipsec")
        require_program("strongswan-openssl")
        self._process: BackgroundProcess | None = None
        self._private: tempfile.TemporaryDirectory[str] | None = None

    # --- life ---------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start it and wait until it takes commands. Raises: Unavailable."""
        self.directory.mkdir(parents=True, exist_ok=True)
        # The path of a Unix socket has room for 108 bytes, so this is not in `directory`.
        self._private = tempfile.TemporaryDirectory(prefix="locum-")
        configuration = self.directory / "strongswan.conf"
        configuration.write_text(settings_text({"charon-systemd": self._daemon_settings()}), encoding="utf-8")
        program = self._program
        if APPARMOR_PROFILES.exists():
            # Debian confines charon to the system's own configuration, by its path.
            program = Path(shutil.copy(program, self._private.name))
        self._process = BackgroundProcess(
            "strongSwan",
            self.namespace.command([program]),
            log_path=self.directory / "charon.out",
            ready=lambda _: self._listens(),
            environment={"STRONGSWAN_CONF": str(configuration)},
        )
        try:
            self._process.start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End it in order, telling its peers. Stopping twice is harmless."""
        self._end(BackgroundProcess.stop)

    def kill(self) -> None:
        """End it as a crash would. Killing twice is harmless."""
        self._end(BackgroundProcess.kill)

    def _end(self, how: Callable[[BackgroundProcess], object]) -> None:
        if self._process is not None:
            how(self._process)
        if self._private is not None:
            self._private.cleanup()
        self._process = self._private = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id, while it runs."""
        if self._process is None:
            raise Unavailable("strongSwan is not running")
        return self._process.pid

    def cpu_seconds(self) -> float:
        """CPU time that it has used, user and system, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # --- configuration ------------------------------------------------------------------------------------

    def load(self, connection: Connection) -> None:
        """Have it accept this connection, and initiate it when it is asked to; replaces one of the same name."""
        if connection.certificate is not None:
            for authority in connection.certificate.intermediates:
                self.trust(authority, anchor=False)
            self._request("load-key", {"type": "any", "data": connection.certificate.key.read_bytes()})
        self._request("load-conn", {connection.name: connection.section()})

    def unload(self, name: str) -> None:
        """Forget a connection; SAs that it made stay."""
        self._request("unload-conn", {"name": name})

    def trust(self, certificate: bytes, *, anchor: bool = True) -> None:
        """Add a certificate, DER: a trust anchor, or an intermediate that goes with its own chain."""
        flag = {"flag": "CA"} if anchor else {"flag": "NONE"}
        self._request("load-cert", {"type": "X509", "data": certificate, **flag})

    def share(self, secret: bytes, *identities: str) -> None:
        """Add a pre-shared key between these identities."""
        self._request("load-shared", {"type": "IKE", "data": secret, "owners": list(identities)})

    def share_postquantum(self, identifier: str, secret: bytes) -> None:
        """Add a post-quantum pre-shared key (RFC 8784)."""
        self._request("load-shared", {"type": "PPK", "data": secret, "owners": [identifier]})

    def forget_credentials(self) -> None:
        """Forget every key, secret and certificate that was given to it."""
        self._request("clear-creds")
        self._request("flush-certs")

    def control(self) -> Vici:
        """A connection for commands of one's own. Raises: Unavailable."""
        return Vici(self._socket)

    # --- orders -------------------------------------------------------------------------------------------

    def initiate(self, connection: str = "net", child: str | None = "net", *, wait: bool = True) -> None:
        """Make a connection's SAs, the IKE SA alone when `child` is None.

        Raises: Unavailable when it `wait`s and they are not there within `PATIENCE`; the log says why.
        """
        message: dict[str, Any] = {"ike": connection, "init-limits": False, "loglevel": -1}
        message["timeout"] = int(PATIENCE * 1000) if wait else -1
        if child is not None:
            message["child"] = child
        self._request("initiate", message)

    def terminate(self, connection: str = "net", *, child: str | None = None, wait: bool = True) -> None:
        """Delete the SAs of a connection, or its CHILD_SAs of this name only."""
        what = {"child": child} if child is not None else {"ike": connection}
        timeout = int(PATIENCE * 1000) if wait else -1
        self._request("terminate", {**what, "timeout": timeout, "loglevel": -1})

    def abandon(self) -> None:
        """Delete every SA, and drop it after `ABANDON_TIME` whatever the peer says to that."""
        for sa in self.sas():
            # It may be gone by itself meanwhile.
            with suppress(Unavailable):
                message = {"ike-id": sa.unique, "force": True, "timeout": int(ABANDON_TIME * 1000)}
                self._request("terminate", message)

    def rekey(self, connection: str = "net", *, child: str | None = None, anew: bool = False) -> None:
        """Make successors of a connection's IKE SAs, of CHILD_SAs, or with `anew` authenticate again."""
        what = {"child": child} if child is not None else {"ike": connection}
        self._request("rekey", {**what, "reauth": anew})

    # --- what it says -------------------------------------------------------------------------------------

    def version(self) -> str:
        """Its name and version, as ``strongSwan 5.9.8``."""
        with self.control() as vici:
            return f"strongSwan {vici.request('version')['version']}"

    def sas(self) -> tuple[PeerSa, ...]:
        """Every IKE SA, half-open ones included."""
        with self.control() as vici:
            listed = vici.listing("list-sas", "list-sa")
        return tuple(_sa(name, section) for event in listed for name, section in event.items())

    def established(self, *, children: int = 1, patience: float = PATIENCE) -> PeerSa:
        """Wait for an IKE SA that is up with so many CHILD_SAs. Raises: Unavailable with the end of the log."""

        def look() -> PeerSa | None:
            ready = (sa for sa in self.sas() if sa.state == "ESTABLISHED" and len(sa.installed) >= children)
            return next(ready, None)

        return self.wait(look, "no SA was established", patience=patience)

    def gone(self, *, patience: float = PATIENCE) -> None:
        """Wait until it has no IKE SA any more. Raises: Unavailable with the end of the log."""
        self.wait(lambda: not self.sas(), "its SAs are still there", patience=patience)

    def wait(self, look: Callable[[], T | None], fault: str, *, patience: float = PATIENCE) -> T:
        """Wait until `look` finds something true. Raises: Unavailable with `fault` and the end of the log."""
        deadline = time.monotonic() + patience
        while True:
            if found := look():
                return found
            if time.monotonic() > deadline:
                raise Unavailable(f"{fault} within {patience:g} s; strongSwan says:\n{self.tail()}")
            time.sleep(POLL_INTERVAL)

    def wait_log(self, text: str, *, since: int = 0, patience: float = PATIENCE) -> str:
        """Wait for a line with `text` in the log after the first `since` characters; returns it."""

        def look() -> str | None:
            return next((line for line in self.log[since:].splitlines() if text in line), None)

        return self.wait(look, f"strongSwan did not log {text!r}", patience=patience)

    @property
    def log(self) -> str:
        """Everything it has logged."""
        path = self.directory / "charon.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def tail(self, lines: int = 40) -> str:
        """The end of its log, without our own questions and without dumps."""
        kept = [line for line in self.log.splitlines() if "vici" not in line and not _DUMP_LINE.match(line)]
        return "\n".join(kept[-lines:])

    def secrets(self, *, since: int = 0) -> list[tuple[str, bytes]]:
        """Every value that it logged after the first `since` characters, by its own names and in order.

        Only with `secrets`; "shared Diffie Hellman secret", "SKEYID_d", "SKEYSEED", "Sk_ei secret",
        "encryption initiator key" and so on.
        """
        return parse_secrets(self.log[since:])

    # --- insides ------------------------------------------------------------------------------------------

    def _daemon_settings(self) -> dict[str, Any]:
        kernel = "kernel-libipsec kernel-netlink" if self._userspace else "kernel-netlink"
        plugins: dict[str, Any] = {"vici": {"socket": f"unix://{self._socket}"}}
        if self._userspace:
            plugins["kernel-libipsec"] = {"allow_peer_ts": "yes"}
            plugins["kernel-netlink"] = {"fwmark": f"!{MARK}"}
            plugins["socket-default"] = {"fwmark": MARK}
        log = {"path": self.directory / "charon.log", "flush_line": "yes", "time_format": "%H:%M:%S"}
        return {
            "load": PLUGINS.format(kernel=kernel),
            "retransmit_timeout": "0.4",
            "retransmit_tries": "4",
            "i_dont_care_about_security_and_use_aggressive_mode_psk": "yes",
            "plugins": plugins,
            "filelog": {"log": {**log, **self._levels}},
            **self._settings,
        }

    @property
    def _socket(self) -> Path:
        if self._private is None:
            raise Unavailable("strongSwan is not running")
        return Path(self._private.name) / "vici"

    def _listens(self) -> bool:
        try:
            with self.control() as vici:
                vici.request("version")
        except Unavailable:
            return False
        return True

    def _request(self, command: str, message: Mapping[str, Any] | None = None) -> None:
        with self.control() as vici:
            vici.request(command, message)


def parse_secrets(log: str) -> list[tuple[str, bytes]]:
    """Every value that charon has dumped into this log, by its names and in order."""
    found: list[tuple[str, bytes]] = []
    for line in log.splitlines():
        head, more = _DUMP.match(line), _DUMP_LINE.match(line)
        if head is not None:
            found.append((head["name"], b""))
        elif more is not None and found:
            name, data = found[-1]
            found[-1] = (name, data + bytes.fromhex(more["hex"]))
    return found


def settings_text(section: Mapping[str, Any], *, indentation: str = "") -> str:
    """Nested settings in strongSwan's own syntax."""
    lines = []
    for name, value in section.items():
        if isinstance(value, Mapping):
            inner = settings_text(value, indentation=indentation + "  ")
            lines.append(f"{indentation}{name} {{\n{inner}{indentation}}}\n")
        else:
            lines.append(f"{indentation}{name} = {value}\n")
    return "".join(lines)


def _algorithms(section: Mapping[str, str]) -> str:
    names = ("encr-alg", "encr-keysize", "integ-alg", "prf-alg", "dh-group")
    return "/".join(section[name] for name in names if section.get(name))


def _sa(name: str, section: Mapping[str, Any]) -> PeerSa:
    return PeerSa(
        name=name,
        unique=int(section["uniqueid"]),
        version=int(section["version"]),
        state=section["state"],
        initiator=section.get("initiator") == "yes",
        initiator_spi=bytes.fromhex(section.get("initiator-spi", "").zfill(16)),
        responder_spi=bytes.fromhex(section.get("responder-spi", "").zfill(16)),
        identity=section.get("local-id", ""),
        peer_identity=section.get("remote-id", ""),
        algorithms=_algorithms(section),
        children=tuple(_child(child) for child in section.get("child-sas", {}).values()),
    )


def _child(section: Mapping[str, str]) -> PeerChild:
    return PeerChild(
        name=section["name"],
        state=section["state"],
        mode=section.get("mode", ""),
        encapsulated=section.get("encap") == "yes",
        spi_in=bytes.fromhex(section.get("spi-in", "").zfill(8)),
        spi_out=bytes.fromhex(section.get("spi-out", "").zfill(8)),
        algorithms=_algorithms(section),
        packets_in=int(section.get("packets-in", 0)),
        packets_out=int(section.get("packets-out", 0)),
        bytes_in=int(section.get("bytes-in", 0)),
        bytes_out=int(section.get("bytes-out", 0)),
    )
