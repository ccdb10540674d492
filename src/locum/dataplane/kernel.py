"""IPsec of the Linux kernel, told through XFRM netlink which associations and policies to have (B7, B13).

Never handles a packet, and leaves alone what other programs told the kernel.

A process that is killed leaves its policies behind, which keep its traffic from going out unprotected until the
same ones are set again, and its associations, for as long as their lifetimes last.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import secrets
import socket
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address

from locum.dataplane import xfrm
from locum.dataplane.datagrams import EspPort
from locum.dataplane.kernel_netlink import NetlinkError, NetlinkSocket
from locum.dataplane.kernel_routes import KernelRoutes
from locum.dataplane.paths import local_address
from locum.dataplane.routing import MARK
from locum.dataplane.spd import Bundle, kernel_policies
from locum.dataplane.spis import Reservations
from locum.dataplane.xfrm import KernelPolicy, PolicyDirection, Selector
from locum.errors import ConfigurationError, OperationError, Refused, Unavailable
from locum.ipsec import algorithms
from locum.ipsec.installer import Receive, Used
from locum.ipsec.policy import MAX_POLICIES, Policy
from locum.ipsec.sa import (
    Direction,
    Expiry,
    Lifetime,
    Mode,
    Protocol,
    SecurityAssociation,
)
from locum.ipsec.selectors import Address

#: What we number ourselves has these bits first: bundles, so that no other program has the same; and policies, by
#: which those of a locum that is gone are known.
OWN_NUMBERS = 0x6C
_BUNDLE_BITS = 24
_POLICY_BITS = 22
#: Should the end of a probe be lost, the kernel forgets the probe after so many seconds.
_PROBE_LIFETIME = 5
_LOOPBACK = IPv4Address("127.0.0.1")

# linux/in.h, linux/in6.h and linux/udp.h; Python has no names for them.
_IP_XFRM_POLICY = 17
_IPV6_XFRM_POLICY = 35
_UDP_ENCAP = 100
_UDP_ENCAP_ESPINUDP = 2

_Key = tuple[Direction, tuple[Protocol, int, Address]]
_Policies = dict[tuple[PolicyDirection, Selector], KernelPolicy]


class KernelInstaller:
    """The kernel's IPsec as an `Installer`. Not for use by several threads at a time.

    It acts on the network namespace of the thread that calls `start`. IPv6 finds its neighbours by ICMPv6, and
    policies speak of that too: a row for a whole network should be preceded by one that bypasses types 133 to 137.
    """

    name = "kernel"

    def __init__(self) -> None:
        #: what ports of this installer did not send or understand, by reason
        self.dropped: Counter[str] = Counter()
        self._socket: NetlinkSocket | None = None
        self._routes: KernelRoutes | None = None
        self._associations: dict[_Key, SecurityAssociation] = {}
        self._bundles: dict[Bundle, int] = {}
        self._rows: tuple[Policy, ...] = ()
        self._policies: _Policies = {}
        self._spis = Reservations()
        self._ports: list[EspPort] = []
        self._counter = itertools.count(secrets.randbits(_BUNDLE_BITS))
        self._trap = self._new_number(_BUNDLE_BITS)

    # --- life ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """See that this kernel has ESP, and that this user may have it. Raises: Unavailable, Refused."""
        try:
            self._socket = NetlinkSocket(socket.NETLINK_XFRM)
            self._probe()
            self._routes = KernelRoutes()
        except NetlinkError as error:
            self.close()
            raise _not_allowed(error) or Unavailable(f"this kernel has no IPsec: {error}") from None
        except BaseException:
            self.close()
            raise

    def _probe(self) -> None:
        """Add an association that carries nothing, and remove it."""
        probe = SecurityAssociation(
            spi=self.reserve_spi(),
            mode=Mode.TRANSPORT,
            direction=Direction.IN,
            source=_LOOPBACK,
            destination=_LOOPBACK,
            encryption=algorithms.AES128_GCM16,
            encryption_key=secrets.token_bytes(algorithms.AES128_GCM16.keymat_length),
            lifetime=Lifetime(hard_seconds=_PROBE_LIFETIME),
        )
        self._add(probe, self._trap)
        self._delete(probe)
        self._spis.release(probe.spi)

    def close(self) -> None:
        """Take out everything that was put in, and close every port. May be called twice."""
        for port in self._ports:
            port.close()
        self._ports.clear()
        if self._routes is not None:
            self._routes.close()
            self._routes = None
        if self._socket is None:
            return
        # What cannot be removed must not keep the rest from being removed.
        for policy in list(self._policies.values()):
            with suppress(OperationError):
                self._delete_policy(policy)
        for sa in self._associations.values():
            with suppress(OperationError):
                self._delete(sa)
        self._policies.clear()
        self._associations.clear()
        self._bundles.clear()
        self._rows = ()
        self._socket.close()
        self._socket = None

    @property
    def _kernel(self) -> NetlinkSocket:
        if self._socket is None:
            raise Unavailable("the kernel's IPsec is not in use: start it first")
        return self._socket

    # --- ports --------------------------------------------------------------------------------------------

    def local_address(self, remote: Address) -> Address:
        """The address that this host has towards `remote` outside of all tunnels. Raises: Unavailable."""
        return local_address(remote, mark=MARK, prepare=_bypass_policies)

    def open_port(
        self, number: int, receive: Receive, *, local: Address | None = None, encapsulated: bool = False
    ) -> EspPort:
        """A port that policies do not touch, and whose ESP the kernel takes. Raises: Unavailable, Refused."""
        port = EspPort(
            asyncio.get_running_loop(),
            number,
            receive,
            _nothing_for_us,
            local=local,
            encapsulated=encapsulated,
            mark=MARK,
            dropped=self.dropped,
            prepare=_share_with_esp if encapsulated else _bypass_policies,
        )
        self._ports.append(port)
        return port

    # --- associations -------------------------------------------------------------------------------------

    def reserve_spi(self) -> int:
        """An SPI that nothing in this namespace uses."""
        return self._spis.reserve({xfrm.parse_spi(body) for body in self._kernel.dump(xfrm.GET_STATE)})

    def install(self, associations: Iterable[SecurityAssociation]) -> None:
        """Put these into effect, inbound ones first: all of them, or none and an error.

        Raises: Refused for one that is there already, and for what the kernel cannot express; Unavailable.
        """
        new = sorted(associations, key=lambda sa: sa.direction is Direction.OUT)
        bundles = dict(self._bundles)
        added: list[SecurityAssociation] = []
        try:
            for sa in new:
                bundle = Bundle.of(sa)
                # The newest stands last; a successor keeps the number, and with it the policies.
                number = self._bundles.pop(bundle, None) or self._new_number(_BUNDLE_BITS)
                self._bundles[bundle] = number
                self._add(sa, number)
                self._associations[_key(sa)] = sa
                added.append(sa)
            self._refresh_policies()
        except BaseException:
            for sa in added:
                with suppress(OperationError):
                    self._delete(sa)
                self._associations.pop(_key(sa), None)
            self._bundles = bundles
            with suppress(OperationError):
                self._refresh_policies()
            raise
        for sa in new:
            self._spis.release(sa.spi)

    def move(self, old: SecurityAssociation, new: SecurityAssociation) -> None:
        """Put `new` in the place of `old`; packets that come between the two are lost.

        Sequence numbers leap ahead (`xfrm.SEQUENCE_LEAP`). Raises: Refused when `old` is not there, Unavailable.
        """
        if _key(old) not in self._associations:
            raise Refused(f"the association with SPI {old.spi:#010x} is not installed")
        bundle = Bundle.of(new)
        number = self._bundles.get(bundle) or self._new_number(_BUNDLE_BITS)
        progress = xfrm.parse_progress(self._kernel.query(xfrm.GET_STATE, xfrm.state_id(old)))
        self._delete(old)
        del self._associations[_key(old)]
        try:
            self._add(new, number, progress)
            self._bundles[bundle] = number
            self._associations[_key(new)] = new
        finally:
            self._forget_empty_bundles()
            self._refresh_policies()

    def remove(self, associations: Iterable[SecurityAssociation]) -> None:
        """Take these out of effect; one that is not there is no error. Raises: Unavailable."""
        for sa in associations:
            if self._associations.pop(_key(sa), None) is not None:
                self._delete(sa)
        self._forget_empty_bundles()
        self._refresh_policies()

    def expired(self, now: float) -> list[tuple[SecurityAssociation, Expiry]]:
        """Associations that need a successor (SOFT) or must go (HARD) at time `now`, in seconds."""
        found: list[tuple[SecurityAssociation, Expiry]] = []
        for sa in self._associations.values():
            lifetime = sa.lifetime
            counted = (lifetime.soft_bytes, lifetime.hard_bytes, lifetime.soft_packets, lifetime.hard_packets)
            used = Used(0, 0) if counted == (None,) * 4 else self._counted(sa)
            if used is None:
                # The kernel has removed it: that is what a hard limit means to it.
                expiry = Expiry.HARD
            else:
                expiry = lifetime.expiry(age=now - sa.created, used_bytes=used.bytes, used_packets=used.packets)
            if expiry is not Expiry.NONE:
                found.append((sa, expiry))
        return found

    def used(self, sa: SecurityAssociation) -> Used:
        """What an association has carried, as the kernel counts it: outbound with the outer header of a tunnel."""
        return (self._counted(sa) if _key(sa) in self._associations else None) or Used(0, 0)

    def _counted(self, sa: SecurityAssociation) -> Used | None:
        """What the kernel has counted; None when it has no such association any more."""
        try:
            return xfrm.parse_progress(self._kernel.query(xfrm.GET_STATE, xfrm.state_id(sa))).used
        except NetlinkError as error:
            if error.code == errno.ESRCH:
                return None
            raise

    def _add(self, sa: SecurityAssociation, number: int, progress: xfrm.Progress | None = None) -> None:
        try:
            self._kernel.request(xfrm.NEW_STATE, xfrm.state(sa, number, progress))
        except NetlinkError as error:
            raise _explain(error, f"an association with SPI {sa.spi:#010x} to {sa.destination}", sa) from None

    def _delete(self, sa: SecurityAssociation) -> None:
        try:
            self._kernel.request(xfrm.DELETE_STATE, xfrm.state_id(sa))
        except NetlinkError as error:
            if error.code != errno.ESRCH:
                raise

    # --- policies -----------------------------------------------------------------------------------------

    def set_policies(self, policies: Iterable[Policy]) -> None:
        """Put these policies, in this order, in the place of those that were set: all, or none and an error.

        Raises: ConfigurationError for too many, Refused for what the kernel cannot express or another program
        has a policy for; Unavailable.
        """
        before, self._rows = self._rows, tuple(policies)
        try:
            if len(self._rows) > MAX_POLICIES:
                raise ConfigurationError(f"{len(self._rows)} policies, more than {MAX_POLICIES}")
            self._put_rows()
        except BaseException:
            self._rows = before
            with suppress(OperationError):
                self._put_rows()
            raise

    def _put_rows(self) -> None:
        self._refresh_policies()
        if self._routes is not None:
            self._routes.set(self._rows)

    def _refresh_policies(self) -> None:
        """Tell the kernel what has changed; what protects comes before what protected goes."""
        wanted = kernel_policies(self._rows, self._bundles, self._trap)
        for key, policy in wanted.items():
            if self._policies.get(key) != policy:
                self._set_policy(policy, ours=key in self._policies)
                self._policies[key] = policy
        for key in [key for key in self._policies if key not in wanted]:
            self._delete_policy(self._policies[key])
            del self._policies[key]

    def _set_policy(self, policy: KernelPolicy, *, ours: bool) -> None:
        kind = xfrm.UPDATE_POLICY if ours else xfrm.NEW_POLICY
        body = policy.write(self._new_number(_POLICY_BITS))
        try:
            try:
                self._kernel.request(kind, body)
            except NetlinkError as error:
                if error.code != errno.EEXIST or not self._is_left_over(policy):
                    raise
                self._kernel.request(xfrm.UPDATE_POLICY, body)
        except NetlinkError as error:
            what = f"a policy for what goes from {policy.selector.source} to {policy.selector.destination}"
            if error.code == errno.EEXIST:
                raise Refused(f"another program has set {what}") from None
            raise _explain(error, what) from None

    def _is_left_over(self, policy: KernelPolicy) -> bool:
        """True when the policy that is in the way belongs to a locum that was killed."""
        number = xfrm.parse_policy_number(self._kernel.query(xfrm.GET_POLICY, policy.write_id()))
        return number >> _POLICY_BITS == OWN_NUMBERS

    def _delete_policy(self, policy: KernelPolicy) -> None:
        try:
            self._kernel.request(xfrm.DELETE_POLICY, policy.write_id())
        except NetlinkError as error:
            if error.code != errno.ENOENT:
                raise

    def _new_number(self, bits: int) -> int:
        return OWN_NUMBERS << bits | next(self._counter) % (1 << bits)

    def _forget_empty_bundles(self) -> None:
        alive = {Bundle.of(sa) for sa in self._associations.values()}
        self._bundles = {bundle: number for bundle, number in self._bundles.items() if bundle in alive}


def _key(sa: SecurityAssociation) -> _Key:
    return sa.direction, sa.identity


def _not_allowed(error: NetlinkError) -> Refused | None:
    if error.code != errno.EPERM:
        return None
    return Refused("the kernel's IPsec takes CAP_NET_ADMIN: run as root")


def _explain(error: NetlinkError, what: str, sa: SecurityAssociation | None = None) -> OperationError:
    """The error for people, who are told what the kernel did not do, why, and what may be done about it."""
    if refusal := _not_allowed(error):
        return refusal
    if error.code == errno.EEXIST:
        return Refused(f"the kernel has {what} already")
    if sa is not None and error.code in _MISSING:
        suite = [each.name for each in (sa.encryption, sa.integrity) if each is not None]
        return Unavailable(f"this kernel has no {sa.protocol.name} with {'-'.join(suite)}: {error}")
    return Unavailable(f"the kernel does not take {what}: {error}")


#: What the kernel says when it has no ESP or AH, or an algorithm of theirs is missing.
_MISSING = frozenset(
    (errno.ENOENT, errno.ENOSYS, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.ESRCH, errno.ENOEXEC)
)


def _bypass_policies(sock: socket.socket) -> None:
    """Have what goes through this socket go past all policies, as IKE must. Raises: OSError."""
    version = 4 if sock.family == socket.AF_INET else 6
    level, option = (
        (socket.IPPROTO_IP, _IP_XFRM_POLICY) if version == 4 else (socket.IPPROTO_IPV6, _IPV6_XFRM_POLICY)
    )
    for direction in (PolicyDirection.IN, PolicyDirection.OUT):
        sock.setsockopt(level, option, xfrm.socket_bypass(version, direction))


def _nothing_for_us(
    datagrams: list[bytes], _local: bytes, _remote: tuple[str, int], _traffic_class: int
) -> list[bytes]:
    """What arrived on an encapsulated port although the kernel takes ESP there: all of it is IKE's."""
    return datagrams


def _share_with_esp(sock: socket.socket) -> None:
    """Besides, have the kernel take ESP from what arrives (RFC 3948). Raises: OSError."""
    _bypass_policies(sock)
    try:
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_ENCAP, _UDP_ENCAP_ESPINUDP)
    except OSError:
        # Before Linux 5.8 IPv6 had none of this; such a kernel then refuses the associations too.
        if sock.family != socket.AF_INET6:
            raise
