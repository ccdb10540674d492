"""`locum key` and `locum certificate` as a user gives them: what they take, keep, show and refuse."""

from __future__ import annotations

import io
import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.support.key_pairs import key_pair
from tests.support.shell import Shell
from tests.support.softhsm import PIN, SoftHsm, soft_hsm
from tests.support.web_certificates import DAY, authority, root, web_certificate

from locum.crypto.asymmetric.key_names import names_of
from locum.store import Store, StoredKey, open_node_store

pytest_plugins = ["tests.support.shell_fixtures"]

PASSWORD = b"correct horse"


def opened() -> Store:
    return open_node_store(Path("locum-data"), create=False)


def kept() -> list[StoredKey]:
    with opened() as store:
        return store.keys.all()


def write(name: str, data: bytes, mode: int = 0o600) -> Path:
    path = Path(name)
    path.write_bytes(data)
    path.chmod(mode)
    return path


def given(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Let standard input be a pipe with `data` in it."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


# --- key import and generate ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "ed25519", "ml-dsa-65"])
def test_an_imported_key_is_kept_whole_under_the_name_of_its_file(locum: Shell, kind: str) -> None:
    pair = key_pair(kind)
    added = locum.ok("key", "import", write("web.pem", pair.pem()))
    ski = names_of(pair.public_key).ski.hex()
    assert f"imported key web ({kind}, ski {ski})" in added.out
    assert "locum enroll edge" in added.err
    [key] = kept()
    assert (key.name, key.kind, key.public_key, key.private_key) == ("web", kind, pair.public_key, pair.pkcs8)


def test_a_key_comes_from_standard_input_under_a_given_name(locum: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, key_pair().pem())
    assert "--name" in locum.refused("key", "import", "-")
    given(monkeypatch, key_pair().pem())
    locum.ok("key", "import", "-", "--name", "web")
    assert [key.name for key in kept()] == ["web"]


def test_an_encrypted_key_is_opened_with_a_password_from_a_file(
    locum: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write("web.pem", key_pair().pem(PASSWORD))
    given(monkeypatch, b"")
    assert "--password-file" in locum.refused("key", "import", file)
    wrong = locum.refused("key", "import", file, "--password-file", write("wrong", b"horse\n"))
    assert "wrong password" in wrong
    assert "horse" not in wrong.replace("wrong password", "")
    locum.ok("key", "import", file, "--password-file", write("password", PASSWORD + b"\nmore\n"))
    assert kept()[0].private_key == key_pair().pkcs8


def test_a_key_file_that_others_can_read_is_taken_with_a_warning(locum: Shell) -> None:
    result = locum.ok("key", "import", write("web.pem", key_pair().pem(), 0o644))
    assert "warning: web.pem is open to other users" in result.err


def test_a_file_without_exactly_one_usable_key_is_refused(locum: Shell) -> None:
    certificate = write("certificate.pem", web_certificate().pem)
    assert "one private key is needed, and there are 0" in locum.refused("key", "import", certificate)
    two = write("two.pem", key_pair().pem() + key_pair(number=1).pem())
    assert "there are 2" in locum.refused("key", "import", two)
    assert "No such file" in locum.refused("key", "import", "missing.pem")
    assert not Path("locum-data").exists()


@pytest.mark.parametrize("name", ["all", "a b", "*"])
def test_a_name_that_means_something_else_is_refused(locum: Shell, name: str) -> None:
    file = write("web.pem", key_pair().pem())
    assert "--name" in locum.refused("key", "import", file, "--name", name)


def test_the_same_key_is_not_imported_twice(locum: Shell) -> None:
    file = write("web.pem", key_pair().pem())
    locum.ok("key", "import", file)
    assert "there already, as 'web'" in locum.refused("key", "import", file, "--name", "other")


def test_a_key_is_made_and_never_shown(locum: Shell) -> None:
    made = locum.ok("key", "generate", "p256")
    [key] = kept()
    assert (key.name, key.kind) == ("p256", "p256")
    assert "locum key csr p256" in made.err
    assert "PRIVATE" not in made.out + made.err
    locum.ok("key", "generate", "ed25519", "--name", "second")
    assert "is not a kind of key: rsa2048, rsa3072" in locum.refused("key", "generate", "rsa1024")
    assert [key.name for key in kept()] == ["p256", "second"]


def test_keys_are_listed_with_what_is_public(locum: Shell) -> None:
    locum.ok("key", "import", write("web.pem", key_pair("rsa2048").pem()))
    [listed] = locum.json("key", "list")
    pair = key_pair("rsa2048")
    names = names_of(pair.public_key)
    assert (listed["name"], listed["kind"], listed["ski"]) == ("web", "rsa2048", names.ski.hex())
    assert (listed["digest"], listed["token"]) == (names.digest, "")
    public_key = load_pem_public_key(str(listed["public_key"]).encode())
    assert public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == pair.public_key
    table = locum.ok("key", "list").out
    assert names.ski.hex() in table
    assert "PRIVATE" not in table


def test_a_removed_key_is_gone_and_its_edges_are_named(locum: Shell) -> None:
    locum.ok("key", "import", write("web.pem", key_pair().pem()))
    locum.ok("enroll", "edge", "edge-1", "--out", "edge-1", "--server", "127.0.0.1:2407")
    removed = locum.ok("key", "remove", "web")
    assert "no longer for the edges edge-1" in removed.err
    assert "no keys" in locum.ok("key", "list").err
    assert "no key is called 'web'" in locum.refused("key", "remove", "web")


# --- key token --------------------------------------------------------------------------------------------


def with_token(hsm: SoftHsm, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `locum` in a process of its own: a token's library is set up once in the life of one."""
    command = [sys.executable, "-m", "locum", *arguments]
    environment = {**os.environ, **hsm.environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_key_in_a_token_stays_there(locum: Shell, tmp_path: Path) -> None:
    hsm = soft_hsm(tmp_path)
    hsm.store(key_pair().key, "web", "01")
    added = with_token(hsm, "key", "token", hsm.uri("web"))
    assert added.returncode == 0, added.stderr
    assert "added key web (p256, ski " in added.stdout
    [key] = kept()
    assert (key.public_key, key.private_key) == (key_pair().public_key, None)
    assert key.token.startswith("pkcs11:token=locum%20test;object=web;type=private?module-path=/")
    [listed] = locum.json("key", "list")
    assert (listed["token"], PIN in str(listed)) == (key.token, False)
    assert "is in a token" in locum.refused("key", "csr", "web", "--dns", "a.example")


def test_a_key_that_is_not_in_the_token_is_not_added(locum: Shell, tmp_path: Path) -> None:
    hsm = soft_hsm(tmp_path)
    refused = with_token(hsm, "key", "token", hsm.uri("web"))
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert not Path("locum-data").exists()


def test_a_pin_is_not_taken_from_the_command_line(locum: Shell) -> None:
    message = locum.refused("key", "token", "pkcs11:object=web?module-path=/lib/x.so&pin-value=1234")
    assert "pin-source" in message
    assert "1234" not in message


# --- key csr ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "ed25519", "ml-dsa-65"])
def test_a_signing_request_is_for_the_names_and_the_key(locum: Shell, kind: str) -> None:
    locum.ok("key", "import", write("web.pem", key_pair(kind).pem()))
    printed = locum.ok("key", "csr", "web", "--dns", "*.Shop.example", "--dns", "192.0.2.1").out
    request = x509.load_pem_x509_csr(printed.encode())
    assert request.is_signature_valid
    public_key = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert public_key == key_pair(kind).public_key
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["*.shop.example"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("192.0.2.1")]
    assert request.subject.rfc4514_string() == "CN=*.shop.example"
    assert [each["action"] for each in locum.json("audit", "list")] == ["key.add", "key.csr"]


def test_a_signing_request_for_a_long_name_has_no_common_name(locum: Shell) -> None:
    locum.ok("key", "generate", "p256", "--name", "web")
    name = f"{'a' * 60}.{'b' * 60}.example"
    request = x509.load_pem_x509_csr(locum.ok("key", "csr", "web", "--dns", name).out.encode())
    assert list(request.subject) == []
    assert request.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


def test_a_signing_request_needs_a_key_here_and_names(locum: Shell) -> None:
    locum.ok("key", "generate", "p256", "--name", "web")
    assert "no key is called 'other'" in locum.refused("key", "csr", "other", "--dns", "a.example")
    assert "is not a DNS name" in locum.refused("key", "csr", "web", "--dns", "a b")
    assert [each["action"] for each in locum.json("audit", "list")] == ["key.add"]


# --- certificate ------------------------------------------------------------------------------------------

HOSTS = (
    x509.DNSName("www.Example"),
    x509.DNSName("*.shop.example"),
    x509.DNSName("www.example"),
    x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
)


def test_a_certificate_is_kept_in_order_with_its_names(locum: Shell) -> None:
    leaf = web_certificate(HOSTS)
    locum.ok("key", "import", write("web.pem", leaf.pair.pem()))
    added = locum.ok("certificate", "add", write("www.pem", root().pem + leaf.pem + authority().pem))
    assert "added certificate www for www.example, *.shop.example, 192.0.2.1" in added.out
    assert "--certificate" in added.err
    with opened() as store:
        [kept_certificate] = store.certificates.all()
    assert kept_certificate.chain == (leaf.der, authority().der, root().der)
    assert kept_certificate.names == ("www.example", "*.shop.example", "192.0.2.1")
    [listed] = locum.json("certificate", "list")
    assert (listed["name"], listed["key"], listed["certificates"], listed["ocsp"]) == ("www", "web", 3, False)
    assert "www.example, *.shop.example" in locum.ok("certificate", "list").out


def test_a_certificate_without_its_key_is_kept_with_a_hint(locum: Shell) -> None:
    added = locum.ok("certificate", "add", write("www.pem", web_certificate().pem))
    assert "no key here belongs to it" in added.err
    assert locum.json("certificate", "list")[0]["key"] is None


def test_a_certificate_that_will_not_work_is_kept_with_a_warning(locum: Shell) -> None:
    old = locum.ok("certificate", "add", write("old.pem", web_certificate(end=-1).pem))
    assert "warning: CN=server expired on" in old.err
    client = web_certificate(purpose=ExtendedKeyUsageOID.CLIENT_AUTH)
    assert (
        "meant for something else than TLS servers"
        in locum.ok("certificate", "add", write("client.pem", client.pem)).err
    )


def test_a_certificate_that_names_nobody_or_another_chain_is_refused(locum: Shell) -> None:
    assert "names no host" in locum.refused("certificate", "add", write("root.pem", root().pem))
    stranger = write("two.pem", web_certificate().pem + root().pem)
    assert "is not in the chain above" in locum.refused("certificate", "add", stranger)
    no_certificate = locum.refused("certificate", "add", write("key.pem", key_pair().pem()))
    assert "1 to 10 certificates are needed, and there are 0" in no_certificate


def test_a_certificate_is_renewed_in_its_place(locum: Shell) -> None:
    locum.ok("certificate", "add", write("www.pem", web_certificate().pem))
    newer = web_certificate(end=60)
    file = write("www.pem", newer.pem)
    assert "--replace" in locum.refused("certificate", "add", file)
    locum.ok("certificate", "add", file, "--replace")
    with opened() as store:
        assert [certificate.chain for certificate in store.certificates.all()] == [(newer.der,)]
    locum.ok("certificate", "remove", "www")
    assert "no certificates" in locum.ok("certificate", "list").err
    assert "no certificate is called" in locum.refused("certificate", "remove", "www")


def test_an_ocsp_response_is_kept_when_it_is_good_and_about_this_certificate(locum: Shell) -> None:
    leaf = web_certificate()
    chain = write("www.pem", leaf.pem + authority().pem)
    response = leaf.ocsp_response()
    added = locum.ok("certificate", "add", chain, "--ocsp", write("www.ocsp", response))
    assert "good until" in added.err
    newer = leaf.ocsp_response(until=2 * DAY)
    locum.ok("certificate", "ocsp", "www", write("newer.ocsp", newer))
    with opened() as store:
        assert store.certificates.all()[0].ocsp == newer
    locum.ok("certificate", "ocsp", "www")
    assert locum.json("certificate", "list")[0]["ocsp"] is False


def test_an_ocsp_response_that_clients_would_refuse_is_refused(locum: Shell) -> None:
    leaf, other = web_certificate(), web_certificate(pair=key_pair(number=7))
    chain = write("www.pem", leaf.pem + authority().pem)

    def refused(response: bytes, file: Path = chain) -> str:
        return locum.refused("certificate", "add", file, "--ocsp", write("www.ocsp", response))

    assert "revoked" in refused(leaf.ocsp_response(status=ocsp.OCSPCertStatus.REVOKED))
    assert "another certificate" in refused(other.ocsp_response())
    assert "was good until" in refused(leaf.ocsp_response(until=-DAY / 2))
    assert "malformed" in refused(b"garbage")
    assert "empty" in refused(b"")
    assert "issuer's certificate" in refused(leaf.ocsp_response(), write("leaf.pem", leaf.pem))
