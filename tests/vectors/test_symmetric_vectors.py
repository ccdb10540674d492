"""Published vectors of what a terminal computes: HKDF, the PRF of TLS 1.2, and the AEADs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from locum.crypto.symmetric import (
    AES_128_CCM_8,
    AES_128_GCM,
    AES_256_GCM,
    CHACHA20_POLY1305,
    SHA256,
    SHA384,
    AeadAlgorithm,
    HashAlgorithm,
    hkdf_expand,
    hkdf_extract,
    tls12_prf,
)
from locum.tls import schedule
from locum.tls.registry import CIPHER_SUITES

h = bytes.fromhex


@dataclass(frozen=True)
class Hkdf:
    """RFC 5869 Appendix A."""

    name: str
    secret: bytes
    salt: bytes
    info: bytes
    key: str
    output: str


HKDF = (
    Hkdf(
        "A.1",
        b"\x0b" * 22,
        bytes(range(13)),
        bytes(range(0xF0, 0xFA)),
        "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    Hkdf(
        "A.2",
        bytes(range(0x50)),
        bytes(range(0x60, 0xB0)),
        bytes(range(0xB0, 0x100)),
        "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
        "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    Hkdf(
        "A.3",
        b"\x0b" * 22,
        b"",
        b"",
        "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
)


@pytest.mark.parametrize("vector", HKDF, ids=lambda vector: vector.name)
def test_hkdf_of_rfc_5869(vector: Hkdf) -> None:
    key = hkdf_extract(SHA256, vector.salt, vector.secret)
    assert key == h(vector.key)
    output = h(vector.output)
    assert hkdf_expand(SHA256, key, vector.info, len(output)) == output


@pytest.mark.parametrize(
    ("algorithm", "secret", "seed", "output"),
    [
        (
            SHA256,
            "9bbe436ba940f017b17652849a71db35",
            "a0ba9f936cda311827a6f796ffd5198c",
            "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af"
            "0fa022f7077def17abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff701"
            "87347b66",
        ),
        (
            SHA384,
            "b80b733d6ceefcdc71566ea48e5567df",
            "cd665cf6a8447dd6ff8b27555edb7465",
            "7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cde9ca0faa60be9fe34f82b1233c9146a0",
        ),
    ],
    ids=["SHA256", "SHA384"],
)
def test_the_prf_vectors_of_the_tls_working_group(
    algorithm: HashAlgorithm, secret: str, seed: str, output: str
) -> None:
    """Published on its list: mailarchive.ietf.org/arch/msg/tls/fzVCzk-z3FShgGJ6DOXqM1ydxms."""
    expected = h(output)
    assert tls12_prf(algorithm, h(secret), b"test label", h(seed), len(expected)) == expected


def test_master_secret_and_key_block_of_nist() -> None:
    """NIST CAVP, TLS 1.2 key derivation with SHA-256; its key block begins with ours."""
    master = schedule.master_secret12(
        SHA256,
        h("f8938ecc9edebc5030c0c6a441e213cd24e6f770a50dda07876f8d55da062bcadb386b411fd4fe4313a604fce6c17fbc"),
        h("36c129d01a3200894b9179faac589d9835d58775f9b5ea3587cb8fd0364cae8c")
        + h("f6c9575ed7ddd73e1f7d16eca115415812a43c2b747daaaae043abfb50053fce"),
        False,
    )
    assert master == h(
        "202c88c00f84a17a20027079604787461176455539e705be730890602c289a5001e34eeb3a043e5d52a65e66125188bf"
    )
    server_random = h("ae6c806f8ad4d80784549dff28a4b58fd837681a51d928c3e30ee5ff14f39868")
    client_random = h("62e1fd91f23f558a605f28478c58cf72637b89784d959df7e946d3f07bd1b616")
    block = schedule.key_block12(CIPHER_SUITES[0xCCA8], master, client_random + server_random)
    expected = h(
        "d06139889fffac1e3a71865f504aa5d0d2a2e89506c6f2279b670c3e1b74f531016a2530c51a3a0f7e1d6590d0f0566b"
        "2f387f8d11fd4f731cdd572d2eae927f6f2f81410b25e6960be68985add6c38445ad9f8c64bf8068bf9a6679485d966f"
        "1ad6f68b43495b10a683755ea2b858d70ccac7ec8b053c6bd41ca299d4e51928"
    )
    assert len(block) == 2 * (32 + 12)
    assert expected.startswith(block)
    assert schedule.split_key_block(CIPHER_SUITES[0xCCA8], block) == (
        (expected[:32], expected[64:76]),
        (expected[32:64], expected[76:88]),
    )


@dataclass(frozen=True)
class Aead:
    """One sealing; `sealed` is the ciphertext followed by the tag."""

    name: str
    algorithm: AeadAlgorithm
    key: bytes
    nonce: bytes
    content: bytes
    associated: bytes
    sealed: str


_GCM_CONTENT = h(
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0d"
    "e657ba637b39"
)
_GCM_KEY = h("feffe9928665731c6d6a8f9467308308")
AEADS = (
    Aead(
        "AES-128-GCM, test case 4 of the GCM specification",
        AES_128_GCM,
        _GCM_KEY,
        h("cafebabefacedbaddecaf888"),
        _GCM_CONTENT,
        h("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b39"
        "6a0aac973d58e0915bc94fbc3221a5db94fae95ae7121a47",
    ),
    Aead(
        "AES-256-GCM, test case 16 of the GCM specification",
        AES_256_GCM,
        _GCM_KEY * 2,
        h("cafebabefacedbaddecaf888"),
        _GCM_CONTENT,
        h("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e63"
        "93ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
    ),
    Aead(
        "ChaCha20-Poly1305, RFC 8439 section 2.8.2",
        CHACHA20_POLY1305,
        bytes(range(0x80, 0xA0)),
        h("070000004041424344454647"),
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen "
        b"would be it.",
        h("50515253c0c1c2c3c4c5c6c7"),
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a"
        "9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9d"
        "e576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691",
    ),
    Aead(
        "AES-128-CCM with a tag of 8 bytes, NIST SP 800-38C example 3",
        AES_128_CCM_8,
        bytes(range(0x40, 0x50)),
        bytes(range(0x10, 0x1C)),
        bytes(range(0x20, 0x38)),
        bytes(range(0x14)),
        "e3b201a9f5b71a7a9b1ceaeccd97e70b6176aad9a4428aa5484392fbc1b09951",
    ),
)


@pytest.mark.parametrize("vector", AEADS, ids=lambda vector: vector.name)
def test_sealing_gives_the_published_ciphertext(vector: Aead) -> None:
    key = vector.algorithm.new(vector.key)
    sealed = key.seal(vector.nonce, vector.content, vector.associated)
    assert sealed == h(vector.sealed)
    assert key.open(vector.nonce, sealed, vector.associated) == vector.content
