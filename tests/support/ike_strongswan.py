"""strongSwan in the place of the peer, a `Device` of ours in that of the terminal, and what both must agree on."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, TypeVar

from tests.support.ike_device import TERMINAL, Device

from locum.authority.databases import (
    Action,
    Identity,
    PolicyRule,
    PostquantumSecret,
    SharedSecret,
    TrustMaterial,
)
from locum.authority.ike_negotiation import IkeOptions
from locum.authority.local import LocalAuthority
from locum.demo import strongswan
from locum.demo.laboratory import Host, Laboratory, Middle
from locum.demo.pki import CertificateAuthority, Issued
from locum.demo.strongswan import PeerSa, StrongSwan
from locum.demo.traffic import ping
from locum.ike.configuration import Connection, Limits, Mode, Timing
from locum.ike.engine import Child, IkeSa
from locum.ike.operations import SaKeysResponse
from locum.ike.policy import IkePolicy, Phase1Policy
from locum.ike.proposal_names import parse_child_proposals, parse_ike_proposals, parse_phase1_proposals
from locum.ike.registry import Version
from locum.ike.traffic_selectors import selector_of
from locum.keys.file import FileKey

P = TypeVar("P", IkePolicy, Phase1Policy)
OUR_NAME, PEER_NAME = "meter-7.example", "gateway.example"
SECRET = b"correct horse battery staple"
PSK = "psk"
#: Ends that are not expected to fail wait for this long at most, in seconds.
QUICK = Timing(retransmission=0.3, longest_retransmission=2.0, attempts=6, liveness=0)


def _united(first: P, second: P) -> P:
    """The policy that has the encryptions, functions and groups of both."""
    names = ("encryptions", "prfs", "groups", *(("integrities",) if isinstance(first, IkePolicy) else ()))
    changes = {name: tuple(dict.fromkeys((*getattr(first, name), *getattr(second, name)))) for name in names}
    return replace(first, **changes)


class Pki:
    """Certificates by kind of key, for both ends, each made once; a second authority that nobody trusts."""

    def __init__(self, directory: Path) -> None:
        self.authority = CertificateAuthority(directory, "root")
        self.stranger = CertificateAuthority(directory, "stranger")
        self.between = self.authority.intermediate("between")
        self._issued: dict[tuple[str, str, str], Issued] = {}

    def issue(self, name: str, kind: str, *, issuer: str = "authority") -> Issued:
        """A certificate for the DNS name `name`, from `authority`, `between` or `stranger`."""
        key = (name, kind, issuer)
        if key not in self._issued:
            authority: CertificateAuthority = getattr(self, issuer)
            self._issued[key] = authority.issue(f"{name}-{kind}-{issuer}", kind=kind, names=(name,), usage="ipsec")
        return self._issued[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What both ends are set to. `own` and `peer` are `PSK`, or the kind of key each has a certificate for.

    `ike` and `esp` are proposals in words that both programs know. `issuers` are the issuers of both certificates.
    """

    version: int = 2
    aggressive: bool = False
    own: str = PSK
    peer: str = PSK
    ike: str = "aes128-sha256-x25519"
    esp: str = "aes128gcm16"
    ipv6: bool = False
    issuers: tuple[str, str] = ("authority", "authority")
    #: strongSwan's word for how it signs, where it has a choice
    peer_signs: str = ""

    @property
    def with_certificates(self) -> bool:
        """False with a pre-shared key."""
        return self.own != PSK


@dataclass(frozen=True, slots=True)
class Secrets:
    """What strongSwan logged, by its own names."""

    values: Sequence[tuple[str, bytes]] = field(repr=False)

    def __getitem__(self, name: str) -> bytes:
        """The last value of this name."""
        found = [value for each, value in self.values if each == name]
        assert found, f"strongSwan did not log {name!r}, but {sorted({each for each, _ in self.values})}"
        return found[-1]


class Bench:
    """A laboratory with charon in it. Everything it starts ends with `running`."""

    def __init__(
        self,
        running: ExitStack,
        directory: Path,
        pki: Pki,
        *,
        middle: Middle = Middle.NOTHING,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.running = running
        self.pki = pki
        self.laboratory = running.enter_context(Laboratory(middle))
        self.us, self.peer = self.laboratory.terminal, self.laboratory.peer
        self.charon = running.enter_context(
            StrongSwan(self.peer.namespace, directory / "charon", secrets=True, settings=settings)
        )

    # --- addresses ----------------------------------------------------------------------------------------

    @staticmethod
    def address(host: Host, case: Case) -> str:
        """The address on the wire."""
        return host.address6 if case.ipv6 else host.address

    @staticmethod
    def inner(host: Host, case: Case) -> str:
        """The address behind it."""
        return host.inner6 if case.ipv6 else host.inner

    @staticmethod
    def network(host: Host, case: Case) -> str:
        """The network behind it."""
        return host.network6 if case.ipv6 else host.network

    # --- strongSwan's side --------------------------------------------------------------------------------

    def peer_connection(self, case: Case, **changes: Any) -> strongswan.Connection:
        """The connection in strongSwan's words."""
        child = strongswan.Child(
            local=[self.network(self.peer, case)],
            remote=[self.network(self.us, case)],
            proposals=case.esp.split(","),
        )
        made = strongswan.Connection(
            version=case.version,
            aggressive=case.aggressive,
            local=self.address(self.peer, case),
            remote=self.address(self.us, case),
            identity=PEER_NAME,
            peer_identity=OUR_NAME,
            certificate=self.pki.issue(PEER_NAME, case.peer, issuer=case.issuers[1])
            if case.with_certificates
            else None,
            authentication=case.peer_signs,
            proposals=case.ike.split(","),
            children=(child,),
        )
        of_child = changes.pop("child", {})
        return replace(made, children=(replace(child, **of_child),), **changes)

    def load(self, case: Case, *, secret: bytes = SECRET, **changes: Any) -> None:
        """Give strongSwan its connection and what it needs for it; `child` are changes to the child's section."""
        connection = self.peer_connection(case, **changes)
        if case.with_certificates:
            self.charon.trust(self.pki.authority.der)
        else:
            self.charon.share(secret, connection.identity, connection.peer_identity, connection.remote)
        self.charon.load(connection)

    # --- our side -----------------------------------------------------------------------------------------

    def connection(self, case: Case, **changes: Any) -> Connection:
        """The connection in our words; `esp` and `ike` in `changes` are other proposals than the peer's."""
        ike, esp = changes.pop("ike", case.ike), changes.pop("esp", case.esp)
        made = Connection(
            version=Version.IKE_1 if case.version == 1 else Version.IKE_2,
            mode=Mode.AGGRESSIVE if case.aggressive else Mode.MAIN,
            remote=ip_address(self.address(self.peer, case)),
            remote_identity=f"dns:{PEER_NAME}",
            child=parse_child_proposals(esp),
            local_traffic=(selector_of(ip_network(self.network(self.us, case))),),
            remote_traffic=(selector_of(ip_network(self.network(self.peer, case))),),
            timing=QUICK,
        )
        if case.version == 1:
            policy: Phase1Policy = parse_phase1_proposals(
                ike, methods=made.phase1.methods, lifetime=made.phase1.lifetime
            )
            return replace(made, phase1=policy, **changes)
        return replace(made, ike=parse_ike_proposals(ike), **changes)

    def authority(
        self,
        case: Case,
        *,
        secret: bytes = SECRET,
        rules: Sequence[tuple[str, Action]] = (("*", Action.ALLOW),),
        ppks: Sequence[PostquantumSecret] = (),
        options: IkeOptions | None = None,
    ) -> LocalAuthority:
        """What does the public-key work for us, with its databases in memory."""
        identities = []
        if case.with_certificates:
            issued = self.pki.issue(OUR_NAME, case.own, issuer=case.issuers[0])
            identities.append(
                Identity(
                    name="own",
                    certificates=(issued.der, *issued.intermediates),
                    key=FileKey.from_pem(issued.key.read_bytes()),
                )
            )
        shared = SharedSecret(
            terminal=TERMINAL, peer=f"dns:{PEER_NAME}", secret=secret, local_identity=f"dns:{OUR_NAME}"
        )
        return LocalAuthority(
            trust=TrustMaterial(anchors=(self.pki.authority.der,)),
            policy=[PolicyRule(terminal=TERMINAL, peer=peer, action=action) for peer, action in rules],
            identities=identities,
            secrets=() if case.with_certificates else (shared,),
            ppks=ppks,
            ike_options=options or self.options(case),
            now=self.now,
        )

    @staticmethod
    def now() -> float:
        """Seconds since the epoch."""
        return time.time()

    def options(self, case: Case) -> IkeOptions:
        """The authority lets the case's algorithms be negotiated, beside those that it does by itself."""
        plain, wanted = IkeOptions(), self.connection(case)
        if case.version == 1:
            return replace(plain, phase1=_united(plain.phase1, wanted.phase1))
        return replace(plain, policy=_united(plain.policy, wanted.ike))

    def device(
        self,
        case: Case,
        *,
        authority: LocalAuthority | None = None,
        limits: Limits | None = None,
        **changes: Any,
    ) -> Device:
        """Our end, running until the bench ends."""
        chosen = authority or self.authority(case)

        def open_socket(family: int) -> socket.socket:
            return self.us.namespace.socket(family, socket.SOCK_DGRAM)

        return self.running.enter_context(
            Device(
                open_socket,
                lambda: chosen.open(TERMINAL),
                self.connection(case, **changes),
                local=self.address(self.us, case),
                inner=self.inner(self.us, case),
                limits=limits,
            )
        )

    def initiate(self, device: Device, case: Case) -> IkeSa:
        """Have our end begin."""
        return device.initiate(self.address(self.peer, case))

    def connect(self, case: Case, *, initiator: bool, **changes: Any) -> Device:
        """Load both ends, have one begin, wait until both are up, and return our end."""
        device = self.device(case, **changes)
        self.load(case)
        if initiator:
            self.initiate(device, case)
        else:
            self.charon.initiate()
        device.established()
        self.charon.established()
        return device

    # --- what both must agree on --------------------------------------------------------------------------

    def peer_sa(self) -> PeerSa:
        """strongSwan's IKE SA, the newest."""
        return max(self.charon.sas(), key=lambda sa: sa.unique)

    def secrets(self) -> Secrets:
        """What strongSwan has logged so far."""
        return Secrets(self.charon.secrets())

    def check_traffic(self, device: Device, case: Case) -> None:
        """Packets go through both ways, begun by either end."""
        device.ping(self.inner(self.peer, case))
        before = device.echoed
        ping(self.peer, self.us, count=2, ipv6=case.ipv6)
        assert device.echoed >= before + 2, device.refused

    def check_keys(self, device: Device, child: Child, *, initiator: bool) -> None:
        """The keys of SA and child, and the SPIs, are the peer's: `initiator` says who began the last exchange."""
        spis = child.outbound.spi.to_bytes(4, "big"), child.inbound.spi.to_bytes(4, "big")

        def look() -> bool:
            return spis in {(each.spi_in, each.spi_out) for sa in self.charon.sas() for each in sa.installed}

        self.charon.wait(look, "there is no such CHILD_SA")
        secrets = self.secrets()
        ours, theirs = ("initiator", "responder") if initiator else ("responder", "initiator")
        for sa, end in ((child.outbound, ours), (child.inbound, theirs)):
            if sa.encryption_key:
                assert sa.encryption_key == secrets[f"encryption {end} key"]
            if sa.integrity is not None:
                assert sa.integrity_key == secrets[f"integrity {end} key"]

    def check_handed_over(self, device: Device, case: Case) -> None:
        """What the authority handed over for the SA is what strongSwan derived."""
        secrets = self.secrets()
        keys = device.asked.response(SaKeysResponse).keys
        if case.version == 2:
            assert keys == secrets["Sk_d secret"]
        else:
            assert keys == secrets["SKEYID_d"] + secrets["SKEYID_a"] + secrets["SKEYID_e"]
