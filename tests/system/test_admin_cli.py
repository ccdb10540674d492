"""The commands that look after a node's databases, as a user gives them: what they print, keep and refuse."""

from __future__ import annotations

import datetime
import os
import pwd
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.support.disks import small_disk
from tests.support.shell import Shell

from locum.store import Store, open_node_store
from locum.terminal.credential import TerminalCredential, load_credential

pytest_plugins = ["tests.support.postgres", "tests.support.shell_fixtures"]

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
PASSWORD = "correct horse"


def opened(data: str = "locum-data") -> Store:
    return open_node_store(Path(data), create=False)


def make_data(locum: Shell) -> None:
    """Make the default data directory, so that no note about it is printed."""
    locum.ok("policy", "add", "--terminal", "*", "--peer", "*", "--action", "deny")


# --- certificates -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Party:
    """A certificate and its key; made once for all tests."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, password: str | None = None, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
        encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        return self.key.private_bytes(Encoding.PEM, form, encryption)

    @property
    def public_key_pem(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def crl(self, *, age: int = 0, lifetime: int = 30) -> bytes:
        """A CRL that was issued `age` days ago and is good for `lifetime` days."""
        begin = NOW - age * DAY
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(begin).next_update(begin + lifetime * DAY)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def make(
    name: str,
    issuer: Party | None = None,
    *,
    ca: bool = False,
    begin: int = -1,
    end: int = 30,
    usage: x509.KeyUsage | None = None,
) -> Party:
    """A certificate that is valid from `begin` to `end`, in days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).public_key(key.public_key())
    builder = builder.issuer_name(issuer.certificate.subject if issuer else subject)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(NOW + begin * DAY).not_valid_after(NOW + end * DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    if not ca:
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if name == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if usage is not None:
        builder = builder.add_extension(usage, critical=True)
    return Party(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


ROOT = make("root", ca=True)
MIDDLE = make("middle", ROOT, ca=True)
CLIENT = make("client", MIDDLE)
SERVER = make("server", MIDDLE)
KEY_AGREEMENT = x509.KeyUsage(False, False, False, False, True, False, False, False, False)
NOT_FOR_SIGNATURES = make("client", MIDDLE, usage=KEY_AGREEMENT)
OLD_ROOT = make("old root", ca=True, begin=-30, end=-1)


def write(name: str, *parts: bytes) -> Path:
    path = Path(name)
    path.write_bytes(b"".join(parts))
    path.chmod(0o600)
    return path


# --- enroll -----------------------------------------------------------------------------------------------


def enrolled(locum: Shell, *options: str, name: str = "meter", out: str = "meter.cred") -> TerminalCredential:
    locum.ok("enroll", "terminal", name, "--out", out, *options)
    return load_credential(Path(out))


def addresses(credential: TerminalCredential) -> list[str]:
    return [str(delegate.address) for delegate in credential.delegates]


def test_enrolling_makes_a_credential_that_the_delegate_knows(locum: Shell) -> None:
    result = locum.ok("enroll", "terminal", "meter", "--out", "meter.cred")
    assert "enrolled terminal meter (kid 0001, AES-CCM-16-64-128)" in result.out
    assert "no policy allows meter" in result.err
    credential = load_credential(Path("meter.cred"))
    [delegate] = credential.delegates
    assert (credential.name, addresses(credential)) == ("meter", ["coap://127.0.0.1:5683"])
    assert delegate.channel is not None
    assert not delegate.secure_path
    with opened() as store:
        channel = store.terminals.find_channel(delegate.channel.kid)
    assert channel is not None
    assert (channel.secret, channel.salt) == (delegate.channel.secret, delegate.channel.salt)
    assert len(channel.secret) == 16
    assert Path("meter.cred").stat().st_mode & 0o777 == 0o600


def test_no_key_is_printed(locum: Shell) -> None:
    result = locum.ok("enroll", "terminal", "meter", "--out", "meter.cred")
    text = Path("meter.cred").read_text()
    key = text.split('key = "')[1].split('"')[0]
    assert key not in result.out + result.err
    assert key not in locum.ok("terminals", "list", "--json").out


def test_two_terminals_have_different_keys(locum: Shell) -> None:
    channels = [enrolled(locum, name=name, out=name).delegates[0].channel for name in ("a", "b")]
    assert channels[0] is not None
    assert channels[1] is not None
    assert channels[0].secret != channels[1].secret
    assert channels[0].salt != channels[1].salt
    assert channels[0].kid != channels[1].kid


def test_algorithm_and_addresses_can_be_chosen(locum: Shell) -> None:
    options = (
        "--address",
        "coap://a.example",
        "--address",
        "coap+tcp://[::1]:7",
        "--algorithm",
        "ChaCha20-Poly1305",
    )
    credential = enrolled(locum, *options)
    assert addresses(credential) == ["coap://a.example:5683", "coap+tcp://[::1]:7"]
    channels = [delegate.channel for delegate in credential.delegates]
    assert channels[0] == channels[1]
    assert channels[0] is not None
    assert (channels[0].algorithm, len(channels[0].secret)) == ("ChaCha20-Poly1305", 32)


def test_addresses_come_from_the_configuration(locum: Shell) -> None:
    config = write("node.toml", b'[delegate]\nlisten = "[::1]:7000"\n')
    assert addresses(enrolled(locum, "--config", str(config))) == ["coap://[::1]:7000"]
    config.write_text('[delegate]\naddresses = ["coap+tcp://d.example:1"]\n')
    assert addresses(enrolled(locum, "--config", str(config), name="b", out="b")) == ["coap+tcp://d.example:1"]


@pytest.mark.parametrize("listen", ["0.0.0.0:5683", "[::]:5683", "127.0.0.1:0"])
def test_an_address_that_leads_nowhere_is_asked_for(locum: Shell, listen: str) -> None:
    config = write("node.toml", f'[delegate]\nlisten = "{listen}"\n'.encode())
    assert "--address" in locum.refused("enroll", "terminal", "meter", "--out", "x", "--config", config)
    assert not Path("x").exists()


def test_a_secure_path_needs_its_own_endpoint(locum: Shell) -> None:
    refusal = locum.refused("enroll", "terminal", "meter", "--out", "x", "--secure-path")
    assert "secure_path_listen" in refusal
    config = write("node.toml", b'[delegate]\nsecure_path_listen = "127.0.0.1:5684"\n')
    result = locum.ok("enroll", "terminal", "meter", "--out", "x", "--secure-path", "--config", config)
    assert "plain" in result.err
    [delegate] = load_credential(Path("x")).delegates
    assert (delegate.secure_path, str(delegate.address)) == (True, "coap://127.0.0.1:5684")


def test_neither_a_name_nor_a_file_is_taken_twice(locum: Shell) -> None:
    before = enrolled(locum)
    assert "enrolled already" in locum.refused("enroll", "terminal", "meter", "--out", "other.cred")
    assert "exists already" in locum.refused("enroll", "terminal", "other", "--out", "meter.cred")
    assert not Path("other.cred").exists()
    assert load_credential(Path("meter.cred")) == before
    assert [terminal["name"] for terminal in locum.json("terminals", "list")] == ["meter"]


def test_replacing_ends_the_old_key(locum: Shell) -> None:
    before, after = enrolled(locum), enrolled(locum, "--replace")
    old, new = before.delegates[0].channel, after.delegates[0].channel
    assert old is not None
    assert new is not None
    assert old.secret != new.secret
    with opened() as store:
        assert store.terminals.find_channel(old.kid) is None
        assert store.terminals.find_channel(new.kid) is not None
    assert "credential of 'meter'" in locum.refused("enroll", "terminal", "b", "--out", "meter.cred", "--replace")


def test_a_second_delegate_is_appended(locum: Shell) -> None:
    first = enrolled(locum)
    both = enrolled(locum, "--data", "second", "--append", "--address", "coap://192.0.2.2")
    assert both.delegates[0] == first.delegates[0]
    assert addresses(both) == ["coap://127.0.0.1:5683", "coap://192.0.2.2:5683"]
    assert both.delegates[1].channel != both.delegates[0].channel


def test_another_address_of_the_same_delegate_is_appended_under_the_same_key(locum: Shell) -> None:
    enrolled(locum)
    both = enrolled(locum, "--append", "--address", "coap+tcp://127.0.0.1")
    assert both.delegates[0].channel == both.delegates[1].channel
    assert [terminal["kid"] for terminal in locum.json("terminals", "list")] == ["0001"]
    again = ("enroll", "terminal", "meter", "--out", "meter.cred", "--append", "--address", "coap+tcp://127.0.0.1")
    assert "--replace" in locum.refused(*again)


def test_a_new_key_of_one_delegate_leaves_the_others_in_the_credential(locum: Shell) -> None:
    enrolled(locum, "--address", "coap://192.0.2.1", "--address", "coap+tcp://192.0.2.1")
    before = enrolled(locum, "--data", "second", "--append", "--address", "coap://192.0.2.2")
    assert "--append" in locum.refused("enroll", "terminal", "meter", "--out", "meter.cred", "--replace")
    after = enrolled(locum, "--append", "--replace", "--address", "coap://192.0.2.3")
    assert addresses(after) == ["coap://192.0.2.2:5683", "coap://192.0.2.3:5683"]
    assert after.delegates[0] == before.delegates[2]
    with opened() as store:
        channels = [
            delegate.channel and store.terminals.find_channel(delegate.channel.kid) for delegate in after.delegates
        ]
    assert channels[1] is not None
    assert channels[1].secret == (after.delegates[1].channel and after.delegates[1].channel.secret)


def test_appending_needs_the_terminals_own_credential(locum: Shell) -> None:
    assert "no such" in locum.refused("enroll", "terminal", "meter", "--out", "meter.cred", "--append")
    enrolled(locum)
    refusal = locum.refused("enroll", "terminal", "gate", "--out", "meter.cred", "--append", "--data", "second")
    assert "credential of 'meter'" in refusal
    assert not Path("second").exists()


def test_an_enrolment_whose_credential_cannot_be_written_enrolls_nobody(locum: Shell, tmp_path: Path) -> None:
    make_data(locum)
    with small_disk(tmp_path / "disk", 1 << 16) as disk:
        disk.fill()
        refusal = locum.refused("enroll", "terminal", "meter", "--out", disk.path / "meter.cred")
    assert "cannot be written" in refusal
    assert locum.json("terminals", "list") == []


def test_an_enrolment_that_the_database_refuses_leaves_the_files_as_they_were(locum: Shell) -> None:
    enrolled(locum)
    before = Path("meter.cred").read_bytes()
    with opened() as store, store._engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    locum.refused("enroll", "terminal", "meter", "--out", "meter.cred", "--replace")
    assert Path("meter.cred").read_bytes() == before
    locum.refused("enroll", "terminal", "gate", "--out", "gate.cred")
    assert not Path("gate.cred").exists()


# --- trust ------------------------------------------------------------------------------------------------


def test_a_bundle_of_anchors_is_added_once_and_described(locum: Shell) -> None:
    bundle = write("bundle.pem", b"# a comment\n", ROOT.pem, b"\n", MIDDLE.pem)
    result = locum.ok("trust", "add", bundle)
    fingerprint = ROOT.certificate.fingerprint(hashes.SHA256()).hex()
    assert f"added anchor 1: CN=root, valid {NOW - DAY:%Y-%m-%d} to" in result.out
    assert f"sha256:{fingerprint}" in result.out
    assert locum.ok("trust", "add", bundle).out.count("there already") == 2
    listed = locum.json("trust", "list")
    assert [(key["kind"], key["name"]) for key in listed] == [("anchor", "CN=root"), ("anchor", "CN=middle")]
    assert listed[0]["fingerprint"] == fingerprint
    assert "CN=middle" in locum.ok("trust", "list").out


def test_an_expired_anchor_is_added_with_a_warning(locum: Shell) -> None:
    assert "CN=old root expired on" in locum.ok("trust", "add", write("old.pem", OLD_ROOT.pem)).err


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((ROOT.pem, ROOT.key_pem()), "block 2: a private key has no place here"),
        ((ROOT.key_pem(PASSWORD),), "a private key has no place here"),
        ((SERVER.pem,), "CN=server is not a CA; .*--pin"),
        ((SERVER.public_key_pem,), "only with --pin"),
        ((b"hello",), "no PEM block"),
        ((ROOT.certificate.public_bytes(Encoding.DER),), "looks like DER"),
        ((b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",), "block 1: "),
        ((b"-----BEGIN CERTIFICATE-----\nAAAA\n",), "has no end"),
        ((b"-----BEGIN PARAMETERS-----\nAAAA\n-----END PARAMETERS-----\n",), "PARAMETERS is not"),
    ],
)
def test_what_is_no_trust_material_is_refused_and_nothing_added(
    locum: Shell, parts: tuple[bytes, ...], message: str
) -> None:
    make_data(locum)
    refusal = locum.refused("trust", "add", write("file.pem", *parts))
    assert re.search(message, refusal), refusal
    assert locum.json("trust", "list") == []


def test_a_key_is_pinned_for_a_peer_from_a_certificate_or_bare(locum: Shell) -> None:
    locum.ok("trust", "add", "--pin", "--peer", "dns:Server.Example", write("my server.pem", SERVER.pem))
    bare = write("bare.pem", SERVER.public_key_pem)
    locum.ok("trust", "add", "--pin", "--peer", "ip:192.0.2.1", "--name", "bare", bare)
    first, second = locum.json("trust", "list")
    assert (first["name"], first["peer"], first["kind"]) == ("my-server", "dns:server.example", "pin")
    assert second["fingerprint"] == first["fingerprint"]
    assert "called 'bare' already" in locum.refused(
        "trust", "add", "--pin", "--peer", "*", "--name", "bare", write("c.pem", CLIENT.pem)
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--pin", "server.pem"),
        ("--peer", "dns:a", "server.pem"),
        ("--name", "a", "root.pem"),
        ("--pin", "--peer", "dns:a", "server.pem", "root.pem"),
        ("--pin", "--peer", "dns:a", "both.pem"),
        ("--pin", "--peer", "nonsense", "server.pem"),
        ("--pin", "--peer", "pin:a", "server.pem"),
        ("--pin", "--peer", "dns:a", "key.pem"),
        ("missing.pem",),
    ],
)
def test_options_of_trust_that_do_not_fit_are_refused(locum: Shell, arguments: tuple[str, ...]) -> None:
    make_data(locum)
    write("server.pem", SERVER.pem)
    write("root.pem", ROOT.pem)
    write("both.pem", SERVER.pem, ROOT.pem)
    write("key.pem", SERVER.key_pem())
    locum.refused("trust", "add", *arguments)
    assert locum.json("trust", "list") == []


def test_a_newer_crl_takes_the_place_of_the_older_and_never_the_other_way(locum: Shell) -> None:
    old, new, other = (
        write("old.crl", ROOT.crl(age=2)),
        write("new.crl", ROOT.crl()),
        write("other.crl", MIDDLE.crl(age=1)),
    )
    for path in (old, other, new):
        locum.ok("trust", "add", path)
    listed = locum.json("trust", "list")
    assert [(key["kind"], key["name"]) for key in listed] == [("crl", "CN=middle"), ("crl", "CN=root")]
    assert listed[1]["not_before"] == f"{NOW:%Y-%m-%dT%H:%M:%SZ}"
    assert "newer CRL of CN=root" in locum.refused("trust", "add", old)
    assert "there already" in locum.ok("trust", "add", new).out
    assert "expired on" in locum.ok("trust", "add", write("stale.crl", OLD_ROOT.crl(age=9, lifetime=3))).err


def test_keys_are_removed_by_id_fingerprint_name_and_file(locum: Shell) -> None:
    bundle = write("bundle.pem", ROOT.pem, MIDDLE.pem)
    locum.ok("trust", "add", bundle)
    locum.ok("trust", "add", "--pin", "--peer", "dns:a", write("server.pem", SERVER.pem))
    fingerprint = MIDDLE.certificate.fingerprint(hashes.SHA256()).hex()
    assert "removed anchor 2: CN=middle" in locum.ok("trust", "remove", f"SHA256:{fingerprint[:12].upper()}").out
    assert "removed pin 3" in locum.ok("trust", "remove", "server").out
    assert "removed anchor 1" in locum.ok("trust", "remove", "bundle.pem").out
    assert locum.json("trust", "list") == []
    for reference in ("1", "server", fingerprint, "bundle.pem"):
        locum.refused("trust", "remove", reference)


# --- policies ---------------------------------------------------------------------------------------------


def test_policies_are_added_listed_and_removed(locum: Shell) -> None:
    enrolled(locum)
    locum.ok("policy", "add", "--terminal", "meter", "--peer", "dns:*.Example.com", "--action", "allow")
    again = locum.ok("policy", "add", "--terminal", "meter", "--peer", "dns:*.example.com.", "--action", "allow")
    assert "there already: policy 1" in again.out
    locum.ok("policy", "add", "--terminal", "*", "--peer", "ip:192.0.2.0/24", "--action", "deny")
    listed = locum.json("policy", "list")
    assert [(rule["terminal"], rule["peer"], rule["action"]) for rule in listed] == [
        ("meter", "dns:*.example.com", "allow"),
        ("*", "ip:192.0.2.0/24", "deny"),
    ]
    assert "dns:*.example.com" in locum.ok("policy", "list").out
    assert "removed policy 1" in locum.ok("policy", "remove", "1").out
    assert "no policy has the id 1" in locum.refused("policy", "remove", "1")


def test_policies_that_make_no_sense_are_refused(locum: Shell) -> None:
    make_data(locum)
    for terminal, peer in (("ghost", "*"), ("*", "example.com"), ("*", "dns:a.*")):
        locum.refused("policy", "add", "--terminal", terminal, "--peer", peer, "--action", "allow")
    assert locum("policy", "add", "--terminal", "*", "--peer", "*", "--action", "maybe").status == 2
    assert locum("policy", "remove", "x").status == 2


# --- identities -------------------------------------------------------------------------------------------


def test_an_identity_is_kept_in_order_whatever_the_order_in_the_file(locum: Shell) -> None:
    enrolled(locum)
    chain = write("chain.pem", ROOT.pem, CLIENT.pem, MIDDLE.pem)
    key = write("key.pem", CLIENT.key_pem(form=PrivateFormat.TraditionalOpenSSL))
    result = locum.ok("identity", "add", "me", "--cert", chain, "--key", key, "--terminal", "meter")
    assert "added identity me: CN=client, for meter" in result.out
    assert result.err == ""
    with opened() as store:
        [identity] = store.identities.all()
    subjects = [each.subject for each in x509.load_pem_x509_certificates(identity.chain_pem.encode())]
    assert subjects == [party.certificate.subject for party in (CLIENT, MIDDLE, ROOT)]
    assert identity.private_key_pem == CLIENT.key_pem()
    [listed] = locum.json("identity", "list")
    assert (listed["subject"], listed["terminals"], listed["certificates"]) == ("CN=client", ["meter"], 3)
    assert "CN=client" in locum.ok("identity", "list").out
    locum.ok("identity", "remove", "me")
    assert "'me'" in locum.refused("identity", "remove", "me")


def test_an_encrypted_key_is_opened_with_a_password_from_a_file_only(
    locum: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_data(locum)
    monkeypatch.setattr(sys, "stdin", Path(os.devnull).open())  # noqa: SIM115
    cert = write("cert.pem", CLIENT.pem, MIDDLE.pem)
    for number, form in enumerate((PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)):
        key = write("key.pem", CLIENT.key_pem(PASSWORD, form))
        add = ("identity", "add", f"id{number}", "--cert", cert, "--key", key, "--terminal", "*")
        assert "--key-password-file" in locum.refused(*add)
        wrong = locum.refused(*add, "--key-password-file", write("wrong", b"wrong"))
        assert "wrong password" in wrong
        locum.ok(*add, "--key-password-file", write("password", PASSWORD.encode() + b"\n"))
    with opened() as store:
        assert [identity.private_key_pem for identity in store.identities.all()] == [CLIENT.key_pem()] * 2
    assert PASSWORD.encode() not in Path("locum-data/locum.db").read_bytes()


@pytest.mark.parametrize(
    ("cert", "key", "message"),
    [
        ((SERVER.pem,), (CLIENT.key_pem(),), "belongs to no certificate"),
        ((CLIENT.pem, ROOT.pem), (CLIENT.key_pem(),), "CN=root is not in the chain above CN=client"),
        ((CLIENT.pem,), (CLIENT.pem,), "one private key is needed, and there are 0"),
        ((CLIENT.pem,), (CLIENT.key_pem(), SERVER.key_pem()), "there are 2"),
        ((CLIENT.key_pem(),), (CLIENT.key_pem(),), "1 to 10 certificates"),
        ((NOT_FOR_SIGNATURES.pem,), (NOT_FOR_SIGNATURES.key_pem(),), "not for signatures"),
    ],
)
def test_a_certificate_and_a_key_that_do_not_fit_are_refused(
    locum: Shell, cert: tuple[bytes, ...], key: tuple[bytes, ...], message: str
) -> None:
    make_data(locum)
    add = ("identity", "add", "me", "--cert", write("cert.pem", *cert), "--key", write("key.pem", *key))
    add += ("--terminal", "*")
    assert message in locum.refused(*add)
    assert locum.json("identity", "list") == []


def test_what_may_not_work_is_warned_about(locum: Shell) -> None:
    old, key = make("late", ROOT, begin=-9, end=-2), Path("key.pem")
    write("key.pem", old.key_pem())
    key.chmod(0o644)
    everywhere = ("--key", key, "--terminal", "*")
    result = locum.ok("identity", "add", "a", "--cert", write("cert.pem", old.pem), *everywhere)
    assert "CN=late expired on" in result.err
    assert "key.pem is open to other users" in result.err
    write("key.pem", SERVER.key_pem())
    result = locum.ok("identity", "add", "b", "--cert", write("cert.pem", SERVER.pem), *everywhere)
    assert "CN=server is meant neither for TLS clients nor for IPsec" in result.err


def test_an_identity_is_replaced_only_on_demand(locum: Shell) -> None:
    add = (
        "identity",
        "add",
        "me",
        "--cert",
        write("c.pem", CLIENT.pem),
        "--key",
        write("k.pem", CLIENT.key_pem()),
    )
    enrolled(locum, name="me", out="me.cred")
    locum.ok(*add)
    assert "--replace" in locum.refused(*add)
    locum.ok(*add, "--replace", "--peer", "dns:a.example")
    assert locum.json("identity", "list")[0]["peer"] == "dns:a.example"
    assert "'ghost'" in locum.refused(*add, "--replace", "--terminal", "ghost")


def test_an_identity_is_for_its_namesake_unless_somebody_says_more(locum: Shell) -> None:
    enrolled(locum)
    files = ("--cert", write("c.pem", CLIENT.pem), "--key", write("k.pem", CLIENT.key_pem()))
    assert "or '*' for all" in locum.refused("identity", "add", "stranger", *files)
    assert "for meter" in locum.ok("identity", "add", "meter", *files).out
    assert "for every terminal" in locum.ok("identity", "add", "all", *files, "--terminal", "*").out
    listed = {row["name"]: row["terminals"] for row in locum.json("identity", "list")}
    assert listed == {"all": ["*"], "meter": ["meter"]}


# --- terminals and audit ----------------------------------------------------------------------------------


def test_terminals_are_listed_disabled_enabled_and_removed(locum: Shell) -> None:
    enrolled(locum)
    assert "is disabled" in locum.ok("terminals", "disable", "meter").out
    assert "is disabled already" in locum.ok("terminals", "disable", "meter").out
    assert locum.json("terminals", "list")[0]["enabled"] is False
    assert "is enabled" in locum.ok("terminals", "enable", "meter").out
    assert "meter" in locum.ok("terminals", "list").out
    locum.ok("terminals", "remove", "meter")
    assert locum.json("terminals", "list") == []
    for word in ("disable", "enable", "remove"):
        assert "'meter'" in locum.refused("terminals", word, "meter")


def test_what_was_done_is_in_the_audit_log_with_the_real_user(
    locum: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "somebody-else")
    enrolled(locum)
    locum.ok("policy", "add", "--terminal", "meter", "--peer", "*", "--action", "allow")
    entries = locum.json("audit", "list")
    assert [entry["action"] for entry in entries] == ["terminal.enroll", "policy.add"]
    assert {entry["actor"] for entry in entries} == {f"cli:{pwd.getpwuid(os.getuid()).pw_name}"}
    assert len(locum.json("audit", "list", "--limit", "1")) == 1
    assert "policy.add" in locum.ok("audit", "list").out
    assert locum("audit", "list", "--limit", "0").status == 2


def test_control_characters_are_not_printed(locum: Shell) -> None:
    evil = make("evil\x1b[2Jname", ca=True)
    result = locum.ok("trust", "add", write("evil.pem", evil.pem))
    assert "\x1b" not in result.out + result.err
    assert "evil\\x1b[2Jname" in result.out
    assert "\x1b" not in locum.ok("trust", "list").out
    assert "\x1b" not in locum.ok("audit", "list").out


# --- the data directory -----------------------------------------------------------------------------------


def test_the_data_directory_is_an_option_a_variable_or_the_default(
    locum: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = ("policy", "add", "--terminal", "*", "--peer", "*", "--action", "allow")
    assert "making the data directory locum-data" in locum.ok(*add).err
    monkeypatch.setenv("LOCUM_DATA", "from-variable")
    locum.ok(*add)
    locum.ok(*add, "--data", "from-option")
    for name in ("locum-data", "from-variable", "from-option"):
        assert Path(name).stat().st_mode & 0o777 == 0o700
        assert {path.name for path in Path(name).iterdir()} == {"locum.db", "node.key"}


@pytest.mark.parametrize("word", ["terminals", "trust", "policy", "identity", "secret", "audit"])
def test_looking_into_a_directory_that_is_not_there_makes_none(locum: Shell, word: str) -> None:
    assert "no such directory" in locum.refused(word, "list", "--data", "typo")
    assert not Path("typo").exists()


@pytest.mark.parametrize("word", ["terminals", "trust", "policy", "identity", "secret"])
def test_an_empty_list_says_what_to_do(locum: Shell, word: str) -> None:
    make_data(locum)
    if word == "policy":
        locum.ok("policy", "remove", "1")
    result = locum.ok(word, "list")
    assert (result.out, result.err.count("\n")) == ("", 1)
    assert locum.json(word, "list") == []


def test_a_faulty_configuration_is_named(locum: Shell) -> None:
    config = write("node.toml", b"[delegate]\nport = 1\n")
    assert "node.toml: delegate.port: no such setting" in locum.refused("policy", "list", "--config", config)


def test_the_commands_work_on_postgresql(locum: Shell, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres").new_database()
    config = write("node.toml", f'[node]\ndatabase = "{url}"\n'.encode())
    enrolled(locum, "--config", str(config))
    assert locum.json("terminals", "list", "--config", config)[0]["name"] == "meter"
    assert {path.name for path in Path("locum-data").iterdir()} == {"node.key"}


def test_the_program_itself_prints_one_line_and_exits_with_one(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "locum", "policy", "list", "--data", tmp_path / "typo"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("locum: error: ")
    assert result.stderr.count("\n") == 1
