"""What the other tests with strongSwan rely on: two of them agree in every mode, and both say the same of it."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.bad_wire import BadWire, bad, perfect
from tests.support.require import require, require_ike_peer

from locum.demo.laboratory import Laboratory, Middle
from locum.demo.namespaces import Namespace, connect
from locum.demo.pki import CertificateAuthority
from locum.demo.strongswan import Child, Connection, StrongSwan
from locum.demo.vici import decode, encode
from locum.errors import DecodeError, Unavailable


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    require_ike_peer()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("pki"), "root")


class Pair:
    """Two charons in a laboratory, in the places of terminal and peer."""

    def __init__(self, running: ExitStack, directory: Path, middle: Middle = Middle.NOTHING) -> None:
        self.laboratory = running.enter_context(Laboratory(middle))
        ends = (self.laboratory.terminal, self.laboratory.peer)
        self.west, self.east = (
            running.enter_context(StrongSwan(end.namespace, directory / str(index), secrets=True))
            for index, end in enumerate(ends)
        )

    def connection(self, **options: object) -> Connection:
        """The connection as the west end has it."""
        west, east = self.laboratory.terminal, self.laboratory.peer
        plain = Connection(
            local=west.address,
            remote=east.address,
            identity="west.example",
            peer_identity="east.example",
            children=(Child(local=[west.network], remote=[east.network]),),
        )
        return replace(plain, **options)  # type: ignore[arg-type]

    @staticmethod
    def mirrored(connection: Connection) -> Connection:
        """The same as the east end has it."""
        return replace(
            connection,
            local=connection.remote,
            remote=connection.local,
            identity=connection.peer_identity,
            peer_identity=connection.identity,
            children=tuple(replace(each, local=each.remote, remote=each.local) for each in connection.children),
        )

    def check(self) -> None:
        """Both ends are up, know the same keys, and packets go through."""
        west, east = self.west.established(), self.east.established()
        assert (west.initiator_spi, west.responder_spi) == (east.initiator_spi, east.responder_spi)
        assert west.initiator and not east.initiator
        assert west.installed[0].spi_in == east.installed[0].spi_out
        names = {"shared Diffie Hellman secret", "encryption initiator key", "encryption responder key"}
        kept = [
            {name: value for name, value in each.secrets() if name in names} for each in (self.west, self.east)
        ]
        assert kept[0] == kept[1] and kept[0].keys() == names
        ends = self.laboratory.terminal, self.laboratory.peer
        ends[0].namespace.run("ping", "-n", "-c", "2", "-i", "0.1", "-W", "5", "-I", ends[0].inner, ends[1].inner)
        assert self.east.sas()[0].installed[0].packets_in >= 1


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


MODES = {
    "main-rsa": {"version": 1, "kind": "rsa2048", "proposals": ["aes128-sha256-modp2048"]},
    "main-psk": {"version": 1, "proposals": ["aes256-sha384-ecp384"]},
    "aggressive-psk": {"version": 1, "aggressive": True, "proposals": ["aes128-sha256-ecp256"]},
    "ike2-rsa": {"kind": "rsa2048"},
    "ike2-ecdsa": {"kind": "p256"},
    "ike2-ed25519": {"kind": "ed25519"},
    "ike2-psk": {"proposals": ["aes256gcm16-prfsha384-x448"]},
}


@pytest.mark.parametrize("mode", MODES)
def test_two_peers_agree_in_every_mode(
    mode: str, running: ExitStack, tmp_path: Path, authority: CertificateAuthority
) -> None:
    pair = Pair(running, tmp_path)
    options = dict(MODES[mode])
    kind = options.pop("kind", None)
    connection = pair.connection(**options)
    for charon, mine in ((pair.west, connection), (pair.east, pair.mirrored(connection))):
        if kind is None:
            charon.share(b"correct horse", mine.identity, mine.peer_identity)
        else:
            charon.trust(authority.der)
            issued = authority.issue(f"{mine.identity}-{kind}", kind=kind, names=(mine.identity,), usage="ipsec")
            mine = replace(mine, certificate=issued)
        charon.load(mine)
    pair.west.initiate()
    pair.check()
    pair.west.terminate()
    pair.east.gone()


def test_peers_agree_over_ipv6(running: ExitStack, tmp_path: Path) -> None:
    pair = Pair(running, tmp_path)
    ends = pair.laboratory.terminal, pair.laboratory.peer
    connection = pair.connection(local=ends[0].address6, remote=ends[1].address6)
    for charon, mine in ((pair.west, connection), (pair.east, pair.mirrored(connection))):
        charon.share(b"correct horse", mine.identity, mine.peer_identity)
        charon.load(mine)
    pair.west.initiate()
    pair.check()


def test_peers_agree_through_address_translation(running: ExitStack, tmp_path: Path) -> None:
    require("nft")
    pair = Pair(running, tmp_path, Middle.NAT)
    connection = pair.connection()
    for charon, mine in ((pair.west, connection), (pair.east, replace(pair.mirrored(connection), remote="%any"))):
        charon.share(b"correct horse", mine.identity, mine.peer_identity)
        charon.load(mine)
    pair.west.initiate()
    pair.check()


def test_a_failure_carries_what_the_peer_said(running: ExitStack, tmp_path: Path) -> None:
    pair = Pair(running, tmp_path)
    connection = pair.connection()
    pair.west.share(b"correct horse", "west.example", "east.example")
    pair.east.share(b"another horse", "west.example", "east.example")
    pair.west.load(connection)
    pair.east.load(pair.mirrored(connection))
    with pytest.raises(Unavailable, match="charon refuses initiate"):
        pair.west.initiate()
    assert "AUTHENTICATION_FAILED" in pair.west.wait_log("AUTHENTICATION_FAILED")
    assert pair.east.sas() == ()


def test_a_namespace_is_gone_with_its_holder() -> None:
    with Namespace("one") as one, Namespace("other") as other:
        connect(one, "eth0", other, "eth0")
        path = one.path
        assert path.exists()
        assert "eth0" in other.ip("link", "show")
    assert not path.exists()
    with pytest.raises(Unavailable, match="the namespace one is not there"):
        one.run("true")


def test_what_a_program_in_a_namespace_says_is_in_the_error() -> None:
    with (
        Namespace("one") as one,
        pytest.raises(Unavailable, match=r'^\S+ link set nothing up in one: .*"nothing"'),
    ):
        one.ip("link", "set", "nothing", "up")


MESSAGE = {"one": "text", "list": ["a", "b"], "section": {"inner": {"x": "y"}, "empty": []}}


def test_control_messages_survive_the_wire() -> None:
    assert decode(encode(MESSAGE)) == MESSAGE
    assert decode(encode({"yes": True, "number": 7, "bytes": b"x"})) == {"yes": "yes", "number": "7", "bytes": "x"}


@pytest.mark.parametrize("length", range(1, len(encode(MESSAGE))))
def test_control_messages_that_end_early_are_whole_messages_or_errors(length: int) -> None:
    data = encode(MESSAGE)[:length]
    try:
        decoded = decode(data)
    except DecodeError:
        return
    assert encode(decoded) == data


def test_a_bad_wire_loses_doubles_and_reorders_and_the_peers_agree_all_the_same(
    running: ExitStack, tmp_path: Path
) -> None:
    pair = Pair(running, tmp_path, Middle.CUT)
    wire = running.enter_context(BadWire(pair.laboratory, bad(1, loss=0.2)))
    connection = pair.connection()
    for charon, mine in ((pair.west, connection), (pair.east, pair.mirrored(connection))):
        charon.share(b"correct horse", mine.identity, mine.peer_identity)
        charon.load(mine)
    pair.west.initiate()
    wire.rule = perfect
    pair.check()


def test_what_a_bad_wire_does_is_the_same_every_time() -> None:
    frame = bytes(12) + b"\x08\x00" + bytes(60)
    ways = [[len(rule(frame)) for _ in range(200)] for rule in (bad(7), bad(7), bad(8))]
    assert ways[0] == ways[1] != ways[2]
    assert {0, 1, 2} == set(ways[0])
