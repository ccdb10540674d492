"""What is told to the kernel and read from it, without one: formats, errors, and the choice of an installer."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.ipsec import ESP_SUITES, ah_sa, esp_sa, far_end

from locum.dataplane import choice, xfrm
from locum.dataplane.choice import choose_installer
from locum.dataplane.kernel import KernelInstaller
from locum.dataplane.kernel_netlink import NetlinkError, NetlinkSocket, attribute, attributes
from locum.dataplane.rtnetlink import parse_way
from locum.dataplane.spd import kernel_policies
from locum.dataplane.userspace import UserspaceInstaller
from locum.dataplane.xfrm import SEQUENCE_LEAP, PolicyDirection, Progress
from locum.errors import ConfigurationError, DecodeError, OperationError, Refused, Unavailable
from locum.ipsec import algorithms
from locum.ipsec.installer import Used
from locum.ipsec.policy import Action, Policy
from locum.ipsec.sa import DontFragment, Lifetime, SecurityAssociation

#: Sizes of structures on 64-bit machines (linux/xfrm.h), and where some of their parts are.
STATE, POLICY, LIMITS, FLAGS = 224, 168, 96, 216
REPLAY_EXTENDED = 23


def told(sa: SecurityAssociation, progress: Progress | None = None) -> tuple[bytes, dict[int, bytes]]:
    """The fixed part of what the kernel is told, and the attributes."""
    body = xfrm.state(sa, 7, progress)
    return body[:STATE], dict(attributes(body[STATE:]))


# --- formats ----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=5))
def test_attributes_come_back_as_they_went(pairs: list[tuple[int, bytes]]) -> None:
    assert list(attributes(b"".join(attribute(*pair) for pair in pairs))) == pairs


@given(st.binary(max_size=400))
def test_whatever_the_kernel_might_say_is_read_or_refused(data: bytes) -> None:
    readers = (xfrm.parse_spi, xfrm.parse_progress, xfrm.parse_policy_number, parse_way, attributes)
    for read in readers:
        with suppress(DecodeError):
            result = read(data)
            if isinstance(result, Iterator):
                list(result)


def test_an_association_is_told_with_its_limits() -> None:
    lifetime = Lifetime(soft_seconds=59.5, hard_seconds=60, hard_bytes=1 << 40, soft_packets=5)
    fixed, _ = told(esp_sa(lifetime=lifetime))
    unlimited = (1 << 64) - 1
    assert struct.unpack_from("8Q", fixed, LIMITS) == (unlimited, 1 << 40, 5, unlimited, 60, 60, 0, 0)


def test_the_spi_comes_back_from_what_the_kernel_reports() -> None:
    fixed, _ = told(esp_sa(spi=0xC0FFEE01))
    assert xfrm.parse_spi(fixed) == 0xC0FFEE01


@pytest.mark.parametrize("version", [4, 6])
def test_ah_is_aligned_as_its_version_of_ip_asks(version: int) -> None:
    address = ip_address("192.0.2.1" if version == 4 else "2001:db8::1")
    fixed, _ = told(ah_sa(source=address, destination=address))
    assert bool(fixed[FLAGS] & 64) is (version == 4)


def test_keys_are_in_no_text() -> None:
    sa = esp_sa(encryption_key=b"k" * 20)
    with pytest.raises(Refused) as raised:
        xfrm.state(replace(sa, dont_fragment=DontFragment.SET), 7)
    assert "kkkk" not in str(raised.value) + repr(sa)


def test_what_no_kernel_has_is_refused() -> None:
    with pytest.raises(Refused, match="aes256gmac"):
        xfrm.state(ah_sa(algorithms.AH_AES256_GMAC), 7)


@pytest.mark.parametrize(("encryption", "integrity"), ESP_SUITES, ids=lambda each: each.name if each else "")
def test_every_algorithm_of_esp_is_told(
    encryption: algorithms.EncryptionAlgorithm, integrity: algorithms.IntegrityAlgorithm | None
) -> None:
    sa = esp_sa(encryption, integrity)
    _, found = told(sa)
    values = b"".join(found.values())
    assert sa.encryption_key in values
    assert sa.integrity_key in values


@pytest.mark.parametrize("extended", [False, True], ids=["short", "extended"])
def test_a_moved_sender_leaps_ahead_and_a_moved_receiver_does_not(extended: bool) -> None:
    sa = esp_sa(extended_sequence=extended)
    sent = 0xFFFF_FFFF - 5
    kept = struct.pack("@6I", 2, sent, 9, 3 if extended else 0, 1, 64) + b"windows!"
    progress = Progress(Used(0, 0), None, kept)
    for end, leap in ((sa, SEQUENCE_LEAP), (far_end(sa), 0)):
        value = told(end, progress)[1][REPLAY_EXTENDED]
        words, low, received, high, received_high, size = struct.unpack_from("@6I", value)
        expected = (3 << 32 | sent) + leap if extended else min(sent + leap, 0xFFFF_FFFF)
        assert high << 32 | low == expected
        assert (words, received, received_high, size, value[24:]) == (2, 9, 1, 64, b"windows!")


def test_a_policy_has_the_number_that_it_was_given() -> None:
    policies = kernel_policies([Policy(name="all", action=Action.DISCARD)], {}, 1)
    for policy in policies.values():
        body = policy.write(xfrm.POLICY_NUMBERS - 1)
        assert xfrm.parse_policy_number(body) == xfrm.POLICY_NUMBERS - 1
        assert len(policy.write()) == POLICY
    assert {direction for direction, _ in policies} == set(PolicyDirection)


# --- errors and choice ------------------------------------------------------------------------------------


def test_a_part_that_the_kernel_has_not_is_unavailable() -> None:
    with pytest.raises(NetlinkError) as raised:
        NetlinkSocket(99)
    assert raised.value.code == errno.EPROTONOSUPPORT


def test_an_installer_that_was_not_started_says_so() -> None:
    installer = KernelInstaller()
    with pytest.raises(Unavailable, match="start it first"):
        installer.reserve_spi()
    installer.close()


def refuse(error: OperationError, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: KernelInstaller) -> None:
        raise error

    monkeypatch.setattr(choice.KernelInstaller, "start", start)


def test_auto_takes_the_kernel_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice.KernelInstaller, "start", lambda self: None)
    said: list[str] = []
    assert isinstance(choose_installer("auto", explain=said.append), KernelInstaller)
    assert said == ["data plane: kernel, since it has ESP"]


def test_auto_takes_tun_where_the_kernel_does_not_work_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(Unavailable("this kernel has no ESP"), monkeypatch)
    said: list[str] = []
    assert isinstance(choose_installer("auto", explain=said.append), UserspaceInstaller)
    assert said == ["data plane: tun, since the kernel does not do it: this kernel has no ESP"]


def test_the_kernel_alone_is_refused_in_one_line_where_it_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(Refused("run as root"), monkeypatch)
    with pytest.raises(Refused, match="run as root"):
        choose_installer("kernel")


def test_tun_alone_does_not_ask_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(Unavailable("not to be asked"), monkeypatch)
    said: list[str] = []
    assert isinstance(choose_installer("tun", explain=said.append), UserspaceInstaller)
    assert said == ["data plane: tun, as asked for"]


def test_what_is_no_data_plane_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="auto, kernel, tun"):
        choose_installer("both")
