"""`locum enroll edge`, `locum edges` and `locum revoke` as a user gives them: credentials and permissions."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from tests.support.key_pairs import key_pair
from tests.support.shell import Shell

from locum.errors import Unavailable
from locum.keys.credential import EdgeCredential
from locum.keys.link_pki import SERVER_NAME, fingerprint_of
from locum.names import HostPort
from locum.store import Allow, Edge, EdgeRole, Store, open_node_store

pytest_plugins = ["tests.support.shell_fixtures"]

SERVER = ("--server", "192.0.2.1")


def opened() -> Store:
    return open_node_store(Path("locum-data"), create=False)


def enrolled() -> list[Edge]:
    with opened() as store:
        return store.edges.all()


def import_key(locum: Shell, name: str, number: int = 0) -> None:
    file = Path(f"{name}.pem")
    file.write_bytes(key_pair("p256", number).pem())
    file.chmod(0o600)
    locum.ok("key", "import", file)


@pytest.fixture
def node(locum: Shell) -> Shell:
    """A node with the key `web`."""
    import_key(locum, "web")
    return locum


def configure(text: str) -> None:
    Path("locum-data/locum.toml").write_text(text)


# --- enroll edge ------------------------------------------------------------------------------------------


def test_an_enrolled_edge_has_a_credential_that_the_key_server_knows(node: Shell) -> None:
    result = node.ok("enroll", "edge", "edge-1", "--out", "edge-1", *SERVER)
    assert "enrolled edge edge-1 (bound operations as TLS server with web)" in result.out
    assert "wrote edge-1 for 192.0.2.1:2407" in result.out
    assert "locum edge --credential edge-1" in result.err
    credential = EdgeCredential.load(Path("edge-1"))
    certificate = x509.load_pem_x509_certificate(credential.certificate)
    authority = x509.load_pem_x509_certificate(credential.ca)
    certificate.verify_directly_issued_by(authority)
    key = load_pem_private_key(credential.key, None)
    assert key.public_key() == certificate.public_key()
    assert (credential.name, credential.server_name) == ("edge-1", SERVER_NAME)
    assert credential.servers == (HostPort("192.0.2.1", 2407),)
    with opened() as store:
        snapshot = store.key_server_snapshot()
    [edge] = snapshot.edges
    assert edge.fingerprint == fingerprint_of(certificate.public_bytes(Encoding.DER))
    assert edge.not_after == certificate.not_valid_after_utc.timestamp()
    assert (edge.keys, edge.allow, edge.roles) == (("web",), Allow.BOUND, EdgeRole.SERVER)
    assert (edge.certificates, edge.rate) == (False, 0.0)
    assert snapshot.ca_certificate == authority.public_bytes(Encoding.DER)


def test_a_credential_is_for_its_owner_only(node: Shell) -> None:
    node.ok("enroll", "edge", "edge-1", "--out", "a/b", *SERVER)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (Path("a/b"), *Path("a/b").iterdir())}
    assert modes == {
        "b": 0o700,
        "credential.toml": 0o600,
        "certificate.pem": 0o600,
        "key.pem": 0o600,
        "ca.pem": 0o600,
    }


def test_no_private_key_of_an_edge_stays_in_the_database(node: Shell) -> None:
    node.ok("enroll", "edge", "edge-1", "--out", "edge-1", *SERVER)
    key = load_pem_private_key(EdgeCredential.load(Path("edge-1")).key, None)
    public_key = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with opened() as store:
        assert [each.name for each in store.keys.all()] == ["web"]
    assert public_key not in b"".join(path.read_bytes() for path in Path("locum-data").iterdir())


def test_permissions_are_as_they_were_given(node: Shell) -> None:
    import_key(node, "mail", 1)
    with opened() as store:
        ski = next(key.ski for key in store.keys.all() if key.name == "mail").hex()
    result = node.ok(
        *("enroll", "edge", "edge-1", "--out", "edge-1", *SERVER),
        *("--key", "web", "--key", ski, "--allow", "both", "--role", "both", "--certificate", "--rate", "2.5"),
    )
    assert "bound and raw operations as TLS server and client with mail, web, and certificates" in result.out
    assert "warning: with raw operations" in result.err
    [edge] = enrolled()
    assert (edge.keys, edge.allow, edge.roles) == (("mail", "web"), Allow.BOTH, EdgeRole.BOTH)
    assert (edge.certificates, edge.rate) == (True, 2.5)


@pytest.mark.parametrize("word", ["all", "*"])
def test_an_edge_may_have_every_key(node: Shell, word: str) -> None:
    node.ok("enroll", "edge", "edge-1", "--out", "edge-1", *SERVER, "--key", word)
    assert enrolled()[0].keys == ("*",)
    assert node.json("edges", "list")[0]["keys"] == ["all"]


def test_it_must_be_clear_which_key_is_meant(locum: Shell) -> None:
    def refused(*options: str) -> str:
        return locum.refused("enroll", "edge", "edge-1", "--out", "edge-1", *SERVER, *options)

    locum.ok("policy", "add", "--terminal", "*", "--peer", "*", "--action", "deny")
    assert "no private key yet" in refused()
    import_key(locum, "web")
    import_key(locum, "mail", 1)
    message = refused()
    assert "--key ID" in message
    assert "--key all" in message
    assert "no key is called 'other'" in refused("--key", "other")
    assert not Path("edge-1").exists()
    assert enrolled() == []


def test_a_key_that_is_elsewhere_is_permitted_by_its_name(node: Shell) -> None:
    configure('[keyserver]\nkey_directory = "/etc/keys"\n')
    assert "--key ID" in node.refused("enroll", "edge", "edge-1", "--out", "edge-1", *SERVER)
    node.ok("enroll", "edge", "edge-1", "--out", "edge-1", *SERVER, "--key", "from-a-file")
    assert enrolled()[0].keys == ("from-a-file",)
    with opened() as store:
        ski = store.keys.all()[0].ski.hex()
    node.ok("edges", "permit", "edge-1", "--key", "from-a-file", "--key", ski)
    assert enrolled()[0].keys == ("from-a-file", "web")


@pytest.mark.parametrize(
    ("configuration", "servers"),
    [
        ('addresses = ["keys.example:2407", "[2001:db8::1]:99"]', ["keys.example:2407", "[2001:db8::1]:99"]),
        ('listen = "192.0.2.7:2500"', ["192.0.2.7:2500"]),
        ('listen = "192.0.2.7:2500"\naddresses = ["keys.example:1"]', ["keys.example:1"]),
    ],
)
def test_an_edge_is_told_the_servers_of_the_configuration(
    node: Shell, configuration: str, servers: list[str]
) -> None:
    configure(f"[keyserver]\n{configuration}\n")
    node.ok("enroll", "edge", "edge-1", "--out", "edge-1")
    assert [str(server) for server in EdgeCredential.load(Path("edge-1")).servers] == servers


@pytest.mark.parametrize("listen", ["", 'listen = "0.0.0.0:2407"', 'listen = "127.0.0.1:0"'])
def test_an_edge_is_not_told_where_nobody_can_be_reached(node: Shell, listen: str) -> None:
    configure(f"[keyserver]\n{listen}\n")
    assert "--server HOST:PORT" in node.refused("enroll", "edge", "edge-1", "--out", "edge-1")


def test_every_edge_has_the_same_authority_and_a_name_of_its_own(node: Shell) -> None:
    for name in ("edge-1", "edge-2"):
        node.ok("enroll", "edge", name, "--out", name, *SERVER)
    first, second = (EdgeCredential.load(Path(name)) for name in ("edge-1", "edge-2"))
    assert first.ca == second.ca
    assert first.key != second.key
    assert "is enrolled already" in node.refused("enroll", "edge", "edge-1", "--out", "other", *SERVER)
    assert not Path("other").exists()


def test_replacing_gives_a_new_certificate_and_keeps_the_servers(node: Shell) -> None:
    node.ok("enroll", "edge", "edge-1", "--out", "edge-1", *SERVER)
    before = EdgeCredential.load(Path("edge-1"))
    assert "--replace" in node.refused("enroll", "edge", "edge-1", "--out", "edge-1", *SERVER)
    node.ok("enroll", "edge", "edge-1", "--out", "edge-1", "--replace", "--days", "7")
    after = EdgeCredential.load(Path("edge-1"))
    assert after.servers == before.servers
    assert after.certificate != before.certificate
    certificate = x509.load_pem_x509_certificate(after.certificate)
    assert enrolled()[0].fingerprint == fingerprint_of(certificate.public_bytes(Encoding.DER))
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 7


def test_replacing_keeps_the_permissions_that_are_not_named(node: Shell) -> None:
    import_key(node, "other", 1)
    options = ("--allow", "both", "--role", "both", "--certificate", "--rate", "7")
    node.ok("enroll", "edge", "edge-1", "--out", "edge-1", *SERVER, "--key", "web", *options)
    [before] = enrolled()
    node.ok("enroll", "edge", "edge-1", "--out", "edge-1", "--replace", "--allow", "bound", "--no-certificate")
    [after] = enrolled()
    assert (
        (after.keys, after.roles, after.rate)
        == (before.keys, before.roles, before.rate)
        == (
            ("web",),
            EdgeRole.BOTH,
            7.0,
        )
    )
    assert (after.allow, after.certificates) == (Allow.BOUND, False)
    node.ok("enroll", "edge", "edge-1", "--out", "edge-1", "--replace", "--key", "other")
    assert enrolled()[0].keys == ("other",)


def test_the_next_step_is_one_that_the_edge_may_take(node: Shell) -> None:
    for name, options, command in (
        ("site", (), "locum edge --credential site"),
        ("agent", ("--allow", "raw"), "locum pkcs11 --credential agent"),
        ("client", ("--role", "client"), "locum pkcs11 --credential client"),
    ):
        assert command in node.ok("enroll", "edge", name, "--out", name, *SERVER, *options).err


def test_the_credential_of_another_edge_is_not_replaced(node: Shell) -> None:
    node.ok("enroll", "edge", "edge-1", "--out", "edge-1", *SERVER)
    refused = node.refused("enroll", "edge", "edge-2", "--out", "edge-1", *SERVER, "--replace")
    assert "has the credential of 'edge-1', not of 'edge-2'" in refused
    Path("file").write_text("")
    assert "not a directory" in node.refused("enroll", "edge", "edge-2", "--out", "file", *SERVER)
    assert [edge.name for edge in enrolled()] == ["edge-1"]


@pytest.mark.parametrize("again", [False, True], ids=["new", "replaced"])
def test_a_credential_that_cannot_be_written_leaves_everything_as_it_was(
    node: Shell, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    if again:
        node.ok("enroll", "edge", "edge-1", "--out", "edge-1", *SERVER)
    before = {path: path.read_bytes() for path in Path().glob("edge-1/*")}
    edges = enrolled()
    write = EdgeCredential.write

    def fail_once(self: EdgeCredential, directory: Path, *, replace: bool = False) -> EdgeCredential:
        monkeypatch.setattr(EdgeCredential, "write", write)
        write(self, directory, replace=replace)
        raise Unavailable("the disk is full")

    monkeypatch.setattr(EdgeCredential, "write", fail_once)
    options = ("--replace",) if again else ()
    assert "the disk is full" in node.refused("enroll", "edge", "edge-1", "--out", "edge-1", *SERVER, *options)
    assert {path: path.read_bytes() for path in Path().glob("edge-1/*")} == before
    assert Path("edge-1").exists() == again
    assert enrolled() == edges


def test_a_file_that_is_in_the_way_is_left_alone(node: Shell) -> None:
    Path("edge-1").mkdir()
    Path("edge-1/ca.pem").write_text("mine")
    assert "exists already" in node.refused("enroll", "edge", "edge-1", "--out", "edge-1", *SERVER)
    assert [(path.name, path.read_text()) for path in Path("edge-1").iterdir()] == [("ca.pem", "mine")]
    assert enrolled() == []


# --- edges and revoke -------------------------------------------------------------------------------------


@pytest.fixture
def with_edge(node: Shell) -> Shell:
    """A node with the edge `edge-1`."""
    node.ok("enroll", "edge", "edge-1", "--out", "edge-1", *SERVER, "--rate", "5", "--certificate")
    return node


def test_edges_are_listed_with_what_they_may_do(with_edge: Shell) -> None:
    [listed] = with_edge.json("edges", "list")
    [edge] = enrolled()
    shown = {name: listed[name] for name in ("name", "state", "allow", "role", "keys", "certificates", "rate")}
    assert shown == {
        "name": "edge-1",
        "state": "enrolled",
        "allow": "bound",
        "role": "server",
        "keys": ["web"],
        "certificates": True,
        "rate": 5.0,
    }
    assert (listed["fingerprint"], listed["revoked"]) == (edge.fingerprint, None)
    assert "edge-1" in with_edge.ok("edges", "list").out


def test_an_edge_is_revoked_and_listed_so(with_edge: Shell) -> None:
    revoked = with_edge.ok("revoke", "edge", "edge-1")
    assert "edge edge-1 is revoked\n" in revoked.out
    assert "locum enroll edge edge-1 --replace" in revoked.err
    assert enrolled()[0].revoked is not None
    assert with_edge.json("edges", "list")[0]["state"] == "revoked"
    assert "is revoked already" in with_edge.ok("revoke", "edge", "edge-1").out
    assert "no edge is called 'other'" in with_edge.refused("revoke", "edge", "other")


def test_a_revoked_edge_comes_back_with_a_new_credential_only(with_edge: Shell) -> None:
    before = enrolled()[0].fingerprint
    with_edge.ok("revoke", "edge", "edge-1")
    with_edge.ok("enroll", "edge", "edge-1", "--out", "edge-1", "--replace")
    [edge] = enrolled()
    assert edge.revoked is None
    assert edge.fingerprint != before


def test_permissions_that_are_not_named_stay(with_edge: Shell) -> None:
    import_key(with_edge, "mail", 1)
    before = EdgeCredential.load(Path("edge-1"))
    changed = with_edge.ok("edges", "permit", "edge-1", "--key", "mail")
    assert "bound operations as TLS server with mail, and certificates" in changed.out
    [edge] = enrolled()
    assert (edge.keys, edge.allow, edge.certificates, edge.rate) == (("mail",), Allow.BOUND, True, 5.0)
    raw = with_edge.ok(
        "edges", "permit", "edge-1", "--allow", "raw", "--role", "client", "--no-certificate", "--rate", "0"
    )
    assert "warning: with raw operations" in raw.err
    [edge] = enrolled()
    assert (edge.keys, edge.allow, edge.roles) == (("mail",), Allow.RAW, EdgeRole.CLIENT)
    assert (edge.certificates, edge.rate) == (False, 0.0)
    assert EdgeCredential.load(Path("edge-1")) == before
    assert "no edge is called 'other'" in with_edge.refused("edges", "permit", "other")


def test_a_removed_edge_is_forgotten(with_edge: Shell) -> None:
    with_edge.ok("edges", "remove", "edge-1")
    assert "no edges" in with_edge.ok("edges", "list").err
    assert "no edge is called" in with_edge.refused("edges", "remove", "edge-1")


def test_a_revoked_terminal_is_no_longer_served(locum: Shell) -> None:
    locum.ok("enroll", "terminal", "meter", "--out", "meter.credential")
    assert "terminal meter is revoked\n" in locum.ok("revoke", "terminal", "meter").out
    with opened() as store:
        assert [terminal.enabled for terminal in store.terminals.all()] == [False]
    assert "is revoked already" in locum.ok("revoke", "terminal", "meter").out
    assert "no terminal is called 'other'" in locum.refused("revoke", "terminal", "other")


def test_every_change_is_in_the_audit_log(with_edge: Shell) -> None:
    with_edge.ok("edges", "permit", "edge-1", "--allow", "both")
    with_edge.ok("revoke", "edge", "edge-1")
    with_edge.ok("edges", "remove", "edge-1")
    entries = with_edge.json("audit", "list")
    assert [(entry["action"], entry["subject"]) for entry in entries] == [
        ("key.add", "web"),
        ("link.authority", "made"),
        ("edge.enroll", "edge-1"),
        ("edge.permit", "edge-1"),
        ("edge.revoke", "edge-1"),
        ("edge.remove", "edge-1"),
    ]
    assert all(str(entry["actor"]).startswith("cli:") for entry in entries)
    assert "both as server, certificates, 5/s: web" in str(entries[3]["detail"])
