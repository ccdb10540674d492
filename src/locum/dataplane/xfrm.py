"""What the Linux kernel is told about IPsec: associations and policies as it wants to read them (linux/xfrm.h).

Writes and reads bytes only. Which policies there are, and when something is told, is decided elsewhere.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from locum.dataplane.kernel_netlink import attribute, attributes
from locum.errors import DecodeError, Refused
from locum.ipsec import algorithms
from locum.ipsec.installer import Used
from locum.ipsec.sa import Direction, DontFragment, Mode, Protocol, SecurityAssociation
from locum.ipsec.selectors import Address

NEW_STATE, DELETE_STATE, GET_STATE = 0x10, 0x11, 0x12
NEW_POLICY, DELETE_POLICY, GET_POLICY, UPDATE_POLICY = 0x13, 0x14, 0x15, 0x19

#: Packets that an outbound association leaves out when it is moved: the kernel may have sent some after it was
#: asked how far it is, and no sequence number may come twice.
SEQUENCE_LEAP = 1 << 12
#: Numbers that a policy can be given are below this.
POLICY_NUMBERS = 1 << 29

_ALGORITHM_ENCRYPTION, _ENCAPSULATION, _TEMPLATE, _REPLAY_VALUE = 2, 4, 5, 10
_ALGORITHM_AEAD, _ALGORITHM_TRUNCATED, _REPLAY_EXTENDED, _EXTRA_FLAGS = 18, 20, 23, 24

_NO_PATH_MTU, _ANY_INNER_FAMILY, _ALIGN_4, _EXTENDED_SEQUENCE = 4, 32, 64, 128
_CLEAR_DSCP = 1
_ESP_IN_UDP = 2
_ANY_ALGORITHM = (1 << 32) - 1
_UNLIMITED = (1 << 64) - 1
_ALLOW, _BLOCK = 0, 1
_AF_INET, _AF_INET6 = 2, 10
_MODES = {Mode.TRANSPORT: 0, Mode.TUNNEL: 1}

# Integers are in the byte order and alignment of this machine, but for ports and SPIs, which are as on the wire.
_SELECTOR = struct.Struct("@16s16s2s2s2s2sHBBBiI")
_ID = struct.Struct("@16s4sB3x")
_STATE = struct.Struct("@56s24s16s8Q4Q3IIIHBBB0Q")
_STATE_ID = struct.Struct("@16s4sHBx")
_TEMPLATE_ENTRY = struct.Struct("@24sH2x16sIBBB3I")
_POLICY = struct.Struct("@56s8Q4QIIBBBB0Q")
_POLICY_ID = struct.Struct("@56sIB3x")
_ENCAPSULATION_ENTRY = struct.Struct("@H2s2s2x16s")
_KEY = struct.Struct("@64sI")
_KEY_WITH_TAG = struct.Struct("@64sII")
_REPLAY = struct.Struct("@III")
_REPLAY_WORDS = struct.Struct("@6I")
_WORD_BITS = 32
_DIRECTION_BITS = 3

_AEAD_NAMES = {
    algorithms.AES128_GCM16: b"rfc4106(gcm(aes))",
    algorithms.AES256_GCM16: b"rfc4106(gcm(aes))",
    algorithms.CHACHA20POLY1305: b"rfc7539esp(chacha20,poly1305)",
    algorithms.NULL_AES128_GMAC: b"rfc4543(gcm(aes))",
    algorithms.NULL_AES256_GMAC: b"rfc4543(gcm(aes))",
}
_ENCRYPTION_NAMES = {
    algorithms.AES128_CBC: b"cbc(aes)",
    algorithms.AES192_CBC: b"cbc(aes)",
    algorithms.AES256_CBC: b"cbc(aes)",
    algorithms.NULL: b"ecb(cipher_null)",
}
_INTEGRITY_NAMES = {
    algorithms.SHA2_256_128: b"hmac(sha256)",
    algorithms.SHA2_384_192: b"hmac(sha384)",
    algorithms.SHA2_512_256: b"hmac(sha512)",
}

Network = IPv4Network | IPv6Network


# --- associations -----------------------------------------------------------------------------------------


class Progress(NamedTuple):
    """How far an association in the kernel is: what it has carried, and its sequence numbers as it keeps them."""

    used: Used
    replay: bytes | None
    extended_replay: bytes | None


def state(sa: SecurityAssociation, bundle: int, progress: Progress | None = None) -> bytes:
    """The body of NEW_STATE for `sa`.

    `bundle` (1 to 2**32-1, the kernel calls it reqid) is what policies find it by. With `progress` it goes on
    from where another one was, an outbound one `SEQUENCE_LEAP` further. Raises: Refused for what no kernel can.
    """
    if sa.dont_fragment is DontFragment.SET:
        raise Refused("the kernel copies the don't-fragment bit of a packet or clears it: it cannot set it")
    body = [
        _state_info(sa, bundle),
        *_algorithms(sa),
        *_replay(sa, progress),
    ]
    if not sa.copy_dscp:
        body.append(attribute(_EXTRA_FLAGS, struct.pack("@I", _CLEAR_DSCP)))
    if sa.encapsulation is not None:
        ports = (
            sa.encapsulation.source_port.to_bytes(2, "big"),
            sa.encapsulation.destination_port.to_bytes(2, "big"),
        )
        body.append(attribute(_ENCAPSULATION, _ENCAPSULATION_ENTRY.pack(_ESP_IN_UDP, *ports, bytes(16))))
    return b"".join(body)


def state_id(sa: SecurityAssociation) -> bytes:
    """The body of GET_STATE and DELETE_STATE."""
    return _STATE_ID.pack(
        sa.destination.packed, sa.spi.to_bytes(4, "big"), _family(sa.destination.version), sa.protocol
    )


def parse_spi(body: bytes) -> int:
    """The SPI of an association that the kernel reports. Raises: DecodeError."""
    if len(body) < _STATE.size:
        raise DecodeError("the kernel reports an association that is cut off")
    spi: bytes = _ID.unpack(_STATE.unpack_from(body)[1])[1]
    return int.from_bytes(spi, "big")


def parse_progress(body: bytes) -> Progress:
    """How far an association is that the kernel reports. Raises: DecodeError."""
    if len(body) < _STATE.size:
        raise DecodeError("the kernel reports an association that is cut off")
    carried, packets = _STATE.unpack_from(body)[11:13]
    found = dict(attributes(body[_STATE.size :]))
    short, extended = found.get(_REPLAY_VALUE), found.get(_REPLAY_EXTENDED)
    if (short is not None and len(short) < _REPLAY.size) or (
        extended is not None and len(extended) < _REPLAY_WORDS.size
    ):
        raise DecodeError("the kernel reports sequence numbers that are cut off")
    return Progress(Used(packets, carried), short, extended)


def _state_info(sa: SecurityAssociation, bundle: int) -> bytes:
    tunnel = sa.mode is Mode.TUNNEL
    flags = _ANY_INNER_FAMILY if tunnel else 0
    if sa.dont_fragment is DontFragment.CLEAR:
        flags |= _NO_PATH_MTU
    if sa.protocol is Protocol.AH and sa.source.version == 4:
        # RFC 4302 section 3.3.3.2.1: in IPv4 AH is a multiple of 4 bytes; the kernel's own habit is 8.
        flags |= _ALIGN_4
    if sa.extended_sequence:
        flags |= _EXTENDED_SEQUENCE
    family = _family(sa.source.version)
    identity = _ID.pack(sa.destination.packed, sa.spi.to_bytes(4, "big"), sa.protocol)
    nothing_counted = (0,) * 7
    # The window of this structure ends at 32 packets, so it stays 0: `_replay` says it. So does the selector,
    # which cannot say what traffic selectors can: policies do.
    return _STATE.pack(
        bytes(_SELECTOR.size),
        identity,
        sa.source.packed,
        *_limits(sa),
        *nothing_counted,
        0,
        bundle,
        family,
        _MODES[sa.mode],
        0,
        flags,
    )


def _limits(sa: SecurityAssociation) -> tuple[int, ...]:
    lifetime = sa.lifetime
    limits = (lifetime.soft_bytes, lifetime.hard_bytes, lifetime.soft_packets, lifetime.hard_packets)
    seconds = (lifetime.soft_seconds, lifetime.hard_seconds)
    # For times 0 means no limit, for the others 2**64-1. The kernel counts whole seconds.
    times = (math.ceil(each) if each is not None else 0 for each in seconds)
    return (*(_UNLIMITED if each is None else each for each in limits), *times, 0, 0)


def _algorithms(sa: SecurityAssociation) -> list[bytes]:
    found = []
    encryption, integrity = sa.encryption, sa.integrity
    if encryption is not None and encryption.aead is not None:
        header = _KEY_WITH_TAG.pack(_AEAD_NAMES[encryption], len(sa.encryption_key) * 8, encryption.icv_length * 8)
        found.append(attribute(_ALGORITHM_AEAD, header + sa.encryption_key))
    elif encryption is not None:
        header = _KEY.pack(_ENCRYPTION_NAMES[encryption], len(sa.encryption_key) * 8)
        found.append(attribute(_ALGORITHM_ENCRYPTION, header + sa.encryption_key))
    if integrity is not None:
        name = _INTEGRITY_NAMES.get(integrity)
        if name is None:
            raise Refused(f"AH of the Linux kernel has no {integrity.name}")
        header = _KEY_WITH_TAG.pack(name, len(sa.integrity_key) * 8, integrity.icv_length * 8)
        found.append(attribute(_ALGORITHM_TRUNCATED, header + sa.integrity_key))
    return found


def _replay(sa: SecurityAssociation, progress: Progress | None) -> list[bytes]:
    """The window, and where in it to begin: the long form where there is a window, else the short one."""
    if not sa.replay_window:
        if progress is None or progress.replay is None:
            return []
        sent, received, window = _REPLAY.unpack_from(progress.replay)
        return [attribute(_REPLAY_VALUE, _REPLAY.pack(_leap(sa, sent), received, window))]
    words = math.ceil(sa.replay_window / _WORD_BITS)
    if progress is None or progress.extended_replay is None:
        fresh = _REPLAY_WORDS.pack(words, 0, 0, 0, 0, sa.replay_window)
        return [attribute(_REPLAY_EXTENDED, fresh + bytes(words * 4))]
    _words, sent, received, sent_high, received_high, window = _REPLAY_WORDS.unpack_from(progress.extended_replay)
    whole = _leap(sa, sent_high << 32 | sent)
    header = _REPLAY_WORDS.pack(words, whole & _ANY_ALGORITHM, received, whole >> 32, received_high, window)
    return [attribute(_REPLAY_EXTENDED, header + progress.extended_replay[_REPLAY_WORDS.size :])]


def _leap(sa: SecurityAssociation, sent: int) -> int:
    """The last number that counts as sent. At the end of all numbers it stays there, and the kernel sends none."""
    if sa.direction is Direction.IN:
        return sent
    return min(sent + SEQUENCE_LEAP, (1 << (64 if sa.extended_sequence else 32)) - 1)


# --- policies ---------------------------------------------------------------------------------------------


class PolicyDirection(IntEnum):
    """Where in its way the kernel looks at a packet: arriving here, leaving here, passing through."""

    IN = 0
    OUT = 1
    FORWARD = 2


class Bits(NamedTuple):
    """16-bit numbers that agree with `value` where `mask` has ones."""

    value: int
    mask: int


ANY_PORT = Bits(0, 0)


class Selector(NamedTuple):
    """The packets of one policy. With ICMP the ports are type and code, in either direction."""

    source: Network
    destination: Network
    protocol: int = 0
    source_port: Bits = ANY_PORT
    destination_port: Bits = ANY_PORT

    def write(self) -> bytes:
        """As struct xfrm_selector."""
        ports = (*self.destination_port, *self.source_port)
        return _SELECTOR.pack(
            self.destination.network_address.packed,
            self.source.network_address.packed,
            *(number.to_bytes(2, "big") for number in ports),
            _family(self.source.version),
            self.destination.prefixlen,
            self.source.prefixlen,
            self.protocol,
            0,
            0,
        )


class Template(NamedTuple):
    """The association that a policy asks for. `source` and `destination` None are the packet's own addresses."""

    protocol: Protocol
    mode: Mode
    version: int
    source: Address | None
    destination: Address | None
    bundle: int

    def write(self) -> bytes:
        """As struct xfrm_user_tmpl."""
        source, destination = (end.packed if end else b"" for end in (self.source, self.destination))
        return _TEMPLATE_ENTRY.pack(
            _ID.pack(destination, bytes(4), self.protocol),
            _family(self.version),
            source,
            self.bundle,
            _MODES[self.mode],
            0,
            0,
            *(_ANY_ALGORITHM,) * 3,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelPolicy:
    """One policy as the kernel has it: allowed, through `template` if there is one, or blocked.

    Of several that match, the one with the lowest `priority` decides.
    """

    direction: PolicyDirection
    selector: Selector
    priority: int
    blocked: bool = False
    template: Template | None = None

    @property
    def key(self) -> tuple[PolicyDirection, Selector]:
        """What the kernel has one policy for and no more."""
        return self.direction, self.selector

    def write(self, number: int = 0) -> bytes:
        """The body of NEW_POLICY and UPDATE_POLICY.

        A new policy has this number in `POLICY_NUMBERS` where it is free, by which `parse_policy_number` knows it.
        """
        index = number << _DIRECTION_BITS | self.direction if number else 0
        body = _policy_info(
            self.selector.write(), self.direction, self.priority, index=index, blocked=self.blocked
        )
        return body + attribute(_TEMPLATE, self.template.write()) if self.template else body

    def write_id(self) -> bytes:
        """The body of GET_POLICY and DELETE_POLICY."""
        return _POLICY_ID.pack(self.selector.write(), 0, self.direction)


def socket_bypass(version: int, direction: PolicyDirection) -> bytes:
    """struct xfrm_userpolicy_info for a socket whose packets of IP `version` go past all policies."""
    selector = _SELECTOR.pack(*(bytes(16),) * 2, *(bytes(2),) * 4, _family(version), 0, 0, 0, 0, 0)
    return _policy_info(selector, direction, 0)


def parse_policy_number(body: bytes) -> int:
    """The number of a policy that the kernel reports. Raises: DecodeError."""
    if len(body) < _POLICY.size:
        raise DecodeError("the kernel reports a policy that is cut off")
    index: int = _POLICY.unpack_from(body)[14]
    return index >> _DIRECTION_BITS


def _policy_info(
    selector: bytes, direction: PolicyDirection, priority: int, *, index: int = 0, blocked: bool = False
) -> bytes:
    no_limits = (*(_UNLIMITED,) * 4, *(0,) * 4)
    nothing_counted = (0,) * 4
    action = _BLOCK if blocked else _ALLOW
    return _POLICY.pack(selector, *no_limits, *nothing_counted, priority, index, direction, action, 0, 0)


def _family(version: int) -> int:
    return _AF_INET if version == 4 else _AF_INET6
