"""LocalAuthority: client certificates, chosen for terminal and peer, and the signatures with them (A10)."""

import dataclasses
from collections.abc import Sequence

import pytest
from tests.support import pki
from tests.support.exchange import (
    EXTENDED_KEYS,
    RANDOMS,
    TERMINAL,
    TRANSCRIPT_HASH,
    authenticate12,
    authenticate13,
    authority,
    ecdh_parameters,
    exchanged12,
    identity,
    keyed13,
    message12,
    start12,
    told12,
)

from locum.authority.client_identities import ClientIdentities
from locum.authority.databases import Identity
from locum.authority.local import LocalSession
from locum.crypto.asymmetric.signatures import PublicKey, verify
from locum.errors import ConfigurationError, DecodeError, Refused, Unavailable
from locum.keys.file import FileKey
from locum.tls.operations import (
    ClientCertificateRequest,
    ClientCertificateResponse,
    ClientSignatureRequest,
    ClientSignatureResponse,
    MasterSecretRequest,
    MasterSecretResponse,
)
from locum.tls.registry import ProtocolVersion, SignatureScheme
from locum.tls.schedule import certificate_verify_content

TLS_1_3, TLS_1_2 = ProtocolVersion.TLS_1_3, ProtocolVersion.TLS_1_2
LEAF = pki.leaf(pki.ca())
EVERY_SCHEME = tuple(int(scheme) for scheme in SignatureScheme)
ANY13 = ClientCertificateRequest(version=TLS_1_3, schemes=EVERY_SCHEME)
ANY12 = ClientCertificateRequest(version=TLS_1_2, schemes=EVERY_SCHEME)


def session13(*identities: Identity) -> LocalSession:
    session = authority(identities=identities).open(TERMINAL)
    keyed13(session)
    session.perform([authenticate13(LEAF)])
    return session


def session12(*identities: Identity) -> LocalSession:
    session = authority(identities=identities).open(TERMINAL)
    exchanged12(session, LEAF)
    return session


def chosen(session: LocalSession, request: ClientCertificateRequest = ANY13) -> ClientCertificateResponse:
    (response,) = session.perform([request])
    assert isinstance(response, ClientCertificateResponse)
    return response


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        ("p256", SignatureScheme.ECDSA_SECP256R1_SHA256),
        ("p384", SignatureScheme.ECDSA_SECP384R1_SHA384),
        ("rsa", SignatureScheme.RSA_PSS_RSAE_SHA256),
        ("ed25519", SignatureScheme.ED25519),
        ("mldsa65", SignatureScheme.MLDSA65),
    ],
)
def test_signature_of_tls_1_3_covers_the_clients_context(kind: str, scheme: SignatureScheme) -> None:
    session = session13(identity(kind))
    response = chosen(session)
    assert response.scheme == scheme
    signed, key = session.perform(
        [ClientSignatureRequest(version=TLS_1_3, content=TRANSCRIPT_HASH), MasterSecretRequest()]
    )
    assert isinstance(signed, ClientSignatureResponse)
    assert isinstance(key, MasterSecretResponse)
    content = certificate_verify_content(b"client", TRANSCRIPT_HASH)
    public = PublicKey.of(pki.client(pki.ca(), kind).certificate.public_key())
    verify(scheme.name, public, signed.signature, content, strict=True)


def certificate12(certificates: Sequence[bytes]) -> bytes:
    entries = b"".join(len(data).to_bytes(3, "big") + data for data in certificates)
    return message12(11, len(entries).to_bytes(3, "big") + entries)


@pytest.mark.parametrize("kind", ["p256", "rsa", "ed25519"])
def test_signature_of_tls_1_2_covers_the_messages(kind: str) -> None:
    """RFC 5246 section 7.4.8: "all handshake messages sent or received, starting at client hello"."""
    session = authority(identities=(identity(kind),)).open(TERMINAL)
    server, exchange = exchanged12(session, LEAF)
    client = chosen(session, ANY12)
    client_hello, server_hello, certificate_request = told12()
    told = client_hello + server_hello + certificate_request
    signed, _ = session.perform([ClientSignatureRequest(version=TLS_1_2, content=told), EXTENDED_KEYS])
    assert isinstance(signed, ClientSignatureResponse)
    proof = server.scheme.to_bytes(2, "big") + len(server.signature).to_bytes(2, "big") + server.signature
    messages = (
        client_hello,
        server_hello,
        certificate12(LEAF.chain),
        message12(12, server.content[64:] + proof),
        certificate_request,
        message12(14, b""),
        certificate12(client.certificates),
        message12(16, exchange),
    )
    public = PublicKey.of(pki.client(pki.ca(), kind).certificate.public_key())
    scheme = SignatureScheme(client.scheme)
    verify(scheme.name, public, signed.signature, b"".join(messages), strict=False)


FOREIGN_RANDOMS = bytes(64)


@pytest.mark.parametrize(
    "told",
    [
        (),
        told12()[:2],
        (*told12(), told12()[2]),
        (told12()[1], told12()[0], told12()[2]),
        told12(randoms=RANDOMS[:32] + FOREIGN_RANDOMS[32:]),
        told12(randoms=FOREIGN_RANDOMS[:32] + RANDOMS[32:]),
        told12(suite=0xC02C),
        (*told12()[:2], message12(13, b"")),
        (*told12()[:2], told12()[2][:-1]),
        (b"any bytes that somebody wants to have signed",),
        (certificate_verify_content(b"client", bytes(32)),),
        (bytes(32),),
    ],
)
def test_nothing_but_the_messages_of_this_handshake_is_signed_in_tls_1_2(told: tuple[bytes, ...]) -> None:
    """A terminal that is not honest must not get signatures that are of use elsewhere."""
    session = session12(identity())
    chosen(session, ANY12)
    with pytest.raises((Refused, DecodeError)):
        session.perform([ClientSignatureRequest(version=TLS_1_2, content=b"".join(told))])
    with pytest.raises(Refused, match="over"):
        session.perform([EXTENDED_KEYS])


def test_no_signature_in_tls_1_2_before_the_client_key_exchange() -> None:
    """It is what makes the signed messages fresh: nobody but the authority knows its secret."""
    session = authority(identities=(identity(),)).open(TERMINAL)
    session.perform([start12(), authenticate12(LEAF, ecdh_parameters()), ANY12])
    with pytest.raises(Refused):
        session.perform([ClientSignatureRequest(version=TLS_1_2, content=b"".join(told12()))])


def test_pkcs1_where_the_peer_of_tls_1_2_knows_nothing_else() -> None:
    request = ClientCertificateRequest(version=TLS_1_2, schemes=(SignatureScheme.RSA_PKCS1_SHA384,))
    assert chosen(session12(identity("rsa")), request).scheme == SignatureScheme.RSA_PKCS1_SHA384


def test_pkcs1_is_never_chosen_for_tls_1_3() -> None:
    request = ClientCertificateRequest(version=TLS_1_3, schemes=(SignatureScheme.RSA_PKCS1_SHA256,))
    assert chosen(session13(identity("rsa")), request).certificates == ()


@pytest.mark.parametrize(
    ("identities", "request_"),
    [
        ((), ANY13),
        ((identity(terminals=("meter-8",)),), ANY13),
        ((identity(peers=("dns:other.example.com",)),), ANY13),
        ((identity(peers=("pin:lab",)),), ANY13),
        ((identity(),), ClientCertificateRequest(version=TLS_1_3, schemes=(SignatureScheme.ED25519,))),
        ((identity(),), ClientCertificateRequest(version=TLS_1_3, schemes=())),
        ((identity(),), dataclasses.replace(ANY13, authorities=(b"\x30\x00",))),
    ],
    ids=["none", "terminal", "peer", "pin", "scheme", "no-scheme", "authority"],
)
def test_without_a_fitting_identity_the_chain_is_empty(
    identities: tuple[Identity, ...], request_: ClientCertificateRequest
) -> None:
    assert chosen(session13(*identities), request_) == ClientCertificateResponse(certificates=())


@pytest.mark.parametrize(
    "options",
    [
        {"terminals": (TERMINAL,)},
        {"terminals": ("meter-8", TERMINAL)},
        {"peers": (f"dns:{pki.PEER_NAME}",)},
        {"peers": ("dns:other.example.com", "dns:*.example.com")},
        {"peers": (f"ip:{pki.PEER_ADDRESS}",)},
    ],
    ids=str,
)
def test_identity_for_this_terminal_and_peer_is_chosen(options: dict[str, tuple[str, ...]]) -> None:
    known = identity(**options)
    assert chosen(session13(known)).certificates == known.certificates


def test_authority_of_the_peer_chooses_the_identity() -> None:
    other = pki.client(pki.ca(name="Other Root"), "p256")
    identities = (
        identity(),
        Identity(name="other", certificates=other.chain, key=FileKey.from_pem(other.key_pem)),
    )
    wanted = pki.ca(name="Other Root").certificate.subject.public_bytes()
    request = dataclasses.replace(ANY13, authorities=(b"\x30\x00", wanted))
    assert chosen(session13(*identities), request).certificates == other.chain


def test_authority_above_an_intermediate_counts() -> None:
    issued = pki.client(pki.intermediate(pki.ca()), "p256")
    known = Identity(name="deep", certificates=issued.chain, key=FileKey.from_pem(issued.key_pem))
    request = dataclasses.replace(ANY13, authorities=(pki.ca().certificate.subject.public_bytes(),))
    assert chosen(session13(known), request).certificates == issued.chain


def test_valid_identity_comes_before_an_expired_one() -> None:
    old = pki.client(pki.ca(), "p256", not_after=pki.NOW - pki.DAY / 2)
    expired = Identity(name="old", certificates=old.chain, key=FileKey.from_pem(old.key_pem))
    valid = identity("p384")
    assert chosen(session13(expired, valid)).certificates == valid.certificates
    assert chosen(session13(expired)).certificates == old.chain


def test_an_identity_added_a_moment_ago_is_chosen() -> None:
    looks: list[bool] = []
    added = identity()

    def look() -> bool:
        looks.append(True)
        found.identities = ClientIdentities([added])
        return True

    found = authority(refresh=look)
    session = found.open(TERMINAL)
    keyed13(session)
    session.perform([authenticate13(LEAF)])
    assert chosen(session).certificates == added.certificates
    assert looks == [True]


def test_no_signature_without_an_identity() -> None:
    session = session13()
    chosen(session)
    with pytest.raises(Refused):
        session.perform([ClientSignatureRequest(version=TLS_1_3, content=TRANSCRIPT_HASH)])


def test_no_identity_before_the_verdict() -> None:
    session = authority(identities=(identity(),)).open(TERMINAL)
    keyed13(session)
    with pytest.raises(Refused):
        session.perform([ANY13])


def test_no_signature_before_an_identity() -> None:
    with pytest.raises(Refused):
        session13(identity()).perform([ClientSignatureRequest(version=TLS_1_3, content=TRANSCRIPT_HASH)])


def test_identity_and_verdict_in_one_batch() -> None:
    session = authority(identities=(identity(),)).open(TERMINAL)
    keyed13(session)
    responses = session.perform([authenticate13(LEAF), ANY13])
    assert isinstance(responses[1], ClientCertificateResponse)


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(100)])
def test_tls_1_3_signs_a_transcript_hash_and_nothing_else(content: bytes) -> None:
    session = session13(identity())
    chosen(session)
    with pytest.raises(Refused):
        session.perform([ClientSignatureRequest(version=TLS_1_3, content=content)])


def test_content_of_tls_1_2_is_not_signed_in_tls_1_3() -> None:
    session = session13(identity())
    chosen(session)
    with pytest.raises(Refused):
        session.perform([ClientSignatureRequest(version=TLS_1_2, content=b"".join(told12()))])


def test_identity_for_another_version_is_refused() -> None:
    with pytest.raises(Refused):
        session13(identity()).perform([ANY12])


def test_holder_of_the_key_that_cannot_be_reached_ends_the_session() -> None:
    class Unreachable:
        public_key = FileKey.from_pem(pki.client(pki.ca()).key_pem).public_key

        def sign(self, scheme: str, content: bytes, *, prehashed: bool = False) -> bytes:
            raise Unavailable("the key server is away")

    session = session13(dataclasses.replace(identity(), key=Unreachable()))
    chosen(session)
    with pytest.raises(Unavailable):
        session.perform([ClientSignatureRequest(version=TLS_1_3, content=TRANSCRIPT_HASH)])
    with pytest.raises(Refused, match="over"):
        session.perform([MasterSecretRequest()])


# --- identities that cannot be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"key": FileKey.from_pem(pki.client(pki.ca(), "p384").key_pem)}, "not that of its certificate"),
        ({"certificates": ()}, "chain"),
        ({"certificates": (b"rubbish",)}, "not a certificate"),
        ({"peers": ("rubbish",)}, "rubbish"),
    ],
)
def test_identity_that_cannot_be_used_is_a_configuration_error(changes: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        authority(identities=(dataclasses.replace(identity(), **changes),))  # type: ignore[arg-type]


def test_identity_whose_certificate_is_not_for_signatures_is_a_configuration_error() -> None:
    issued = pki.client(pki.ca(), "rsa", usage=("key_encipherment",))
    known = Identity(name="x", certificates=issued.chain, key=FileKey.from_pem(issued.key_pem))
    with pytest.raises(ConfigurationError, match="keyUsage"):
        authority(identities=(known,))


def test_representation_of_an_identity_shows_no_key() -> None:
    assert "Key" not in repr(identity())
