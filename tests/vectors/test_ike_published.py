"""Published vectors: NIST CAVP's of the IKE key derivation functions (SP 800-135), RFC 3602's, RFC 7634's.

The CAVP cases with HMAC-SHA1 are the sample ones that libreswan carries in programs/cavp (test.acvp.ikev1_dsa,
test.acvp.ikev1_psk, test.acvp.ikev2); those with HMAC-SHA2 the samples of NIST's that NSS carries in its tests
(gtests/common/testvectors, ike-sha256-vectors.h and ike-sha384-vectors.h, cases 2 to 8).
"""

from __future__ import annotations

import pytest

from locum.crypto.symmetric import AesCbcKey
from locum.ike import keying1, keying2
from locum.ike.algorithms import (
    ENCR_CHACHA20_POLY1305,
    PRF_HMAC_SHA1,
    PRF_HMAC_SHA2_256,
    PRF_HMAC_SHA2_384,
    Prf,
)
from locum.ike.header import parse_header
from locum.ike.payloads2 import Encrypted, Notify, parse_payloads
from locum.ike.protection import AeadProtection, parse_message
from locum.ike.registry import NotifyType2
from locum.ike.suites import Nonces

h = bytes.fromhex


def isakmp_keys(
    skeyid: bytes, secret: bytes, cookies: keying1.Cookies, prf: Prf = PRF_HMAC_SHA1
) -> tuple[bytes, bytes, bytes]:
    keys = keying1.isakmp_keys(prf, skeyid, secret, cookies)
    return keys.d, keys.a, keys.e


def test_ikev1_with_signatures() -> None:
    cookies = keying1.Cookies(initiator=h("8c3bcd3a69831d7f"), responder=h("d2d9a7ff4fbe95a7"))
    nonces = Nonces(initiator=h("69a62284195f1680"), responder=h("80c94ba25c8abda5"))
    secret = h("8ba4cbc73c0187301dc19a975823854dbd641c597f637f8d053a83b9514673eb")
    skeyid = keying1.skeyid_for_signatures(PRF_HMAC_SHA1, nonces, secret)
    assert skeyid == h("707197817fb2d90cf54d1842606bdea59b9f4823")
    assert isakmp_keys(skeyid, secret, cookies) == (
        h("384be709a8a5e63c3ed160cfe3921c4b37d5b32d"),
        h("48b327575abe3adba0f279849e289022a13e2b47"),
        h("a4a415c8e0c38c0da847c356cc61c24df8025560"),
    )


def test_ikev1_with_a_pre_shared_key() -> None:
    cookies = keying1.Cookies(initiator=h("83d374c30b3b5082"), responder=h("5afc0da06c728029"))
    nonces = Nonces(initiator=h("b9a2d0e922dc66dd"), responder=h("2130166863b5ddef"))
    secret = h("739003ba2c11c982946c65e26acf661fbf8ebb78011a9fead79efa12fe3e71cc")
    skeyid = keying1.skeyid_for_pre_shared_key(PRF_HMAC_SHA1, nonces, h("75"))
    assert skeyid == h("62b04d112877e442fc3282fc37c076997718a0b9")
    assert isakmp_keys(skeyid, secret, cookies) == (
        h("369e5aad1bdb5faf6a3d929d500cdc236710a9ab"),
        h("588e957d8d790d093b3a39f121473473af78e9bb"),
        h("cd74b0c048219db81384d3fda8f6cda51e398a2b"),
    )


def test_ikev2() -> None:
    prf = PRF_HMAC_SHA1
    nonces = Nonces(initiator=h("32b50d5f4a3763f3"), responder=h("9206a04b26564cb1"))
    spis = h("34c9e7c188868785") + h("3ff77d760d2b2199")
    secret = h("4b2c1f971981a8ad8d0abeafabf38cf75fc8349c148142465ed9c8b516b8be52")
    renewed = h("863f3c9d06efd39d2b907b97f8699e5dd5251ef64a2a176f36ee40c87d4f9330")
    length = 1056 // 8

    seed = keying2.skeyseed(prf, nonces, secret)
    assert seed == h("a9a7b222b59f8f48645f28a1db5b5f5d7479cba7")
    material = keying2.prf_plus(prf, seed, nonces.both + spis, length)
    assert material == h(
        "a14293677cc80ff8f9cc0eee30d895da9d8f405666e30ef0dfcb63c634a46002a2a63080e514a062768b76606f9fa5e992204fc5"
        "a670bde3f10d6b027113936a5c55b648a194ae587b0088d52204b702c979fa280870d2ed41efa9c549fd11198af1670b143d384b"
        "d275c5f594cf266b05ebadca855e4249520a441a81157435a7a56cc4"
    )
    sk_d = material[: prf.length]
    assert keying2.prf_plus(prf, sk_d, nonces.both, length) == h(
        "8059e3ee8810e6c3a91bc8bcd2a7a41151b8d0e6ae239c7b38093ad85ef4c5811a8e7b5d1cdabd9560b2d5e092d1f24e2d4b85ec"
        "cdf0ad0dc9abd94b51ee71814ca6dbc8bb51b6309f5b9545c7eb35cf5580b1e521a8fe20754a2d883ba0c2cf285f524aea6545b3"
        "3106bc03e614296d319d41d4b50b3f510b1c0a22f3e664994d234cb4"
    )
    assert keying2.prf_plus(prf, sk_d, renewed + nonces.both, length) == h(
        "bb43244c1860ad65ee1e211ffe8bb3661750c8f89cb9f547df7f4fa61d37301628190e38c66232eab4b3ab14c400a5197dd3730e"
        "d4820a8a10394d51e1c0400052f63ebd36b0e7ef53aaed31eba4a5080d7d4b5666023a8bbb5ffb7857240f9a05884d1b7d2f9337"
        "08450b7b3288f1fc863ab49fa901227cffc06e27899c7054d56fd74c"
    )
    assert keying2.rekeyed_skeyseed(prf, sk_d, nonces, renewed) == h("63e81194946ebd05df7df5ebf5d8750056bf1f1d")


# --- HMAC-SHA2 --------------------------------------------------------------------------------------------


def test_ikev1_with_signatures_and_sha_384() -> None:
    prf = PRF_HMAC_SHA2_384
    secret = h("1724dbd893523764bfef8c6fa927856fccfb77ae254358cce29c2769a32915c1")
    nonces = Nonces(initiator=h("cec89d845add83ef"), responder=h("cebd43ab71d17db9"))
    cookies = keying1.Cookies(initiator=h("1c8aba986a00af0f"), responder=h("b049d9672f73c920"))
    skeyid = keying1.skeyid_for_signatures(prf, nonces, secret)
    assert skeyid == h(
        "6e4514610bf82d0ab7bf0260096f6146a153c712071abb633ced813c572156c783e36874a65a64690ca701d40d56ea18"
    )
    assert isakmp_keys(skeyid, secret, cookies, prf) == (
        h("b083234e9ed7745911f93eb31faa66fcf88906266830eb17ef166d295cb1f86a3543b8b8efa5df918533df537e9c809c"),
        h("938295a374aceb4147a8024c9a007dd313403fd8fd7070dbd0cfbe1ccd308dbfbb7b9e9c64049e4df44ff551016cb7b5"),
        h("8595b249dc1fa8599729f87eb6b9dd13bfbfdfd4f9ebd78929bab6ecc402539ad32cb6e7ef4ba6a0f53da14e4df07ed4"),
    )


def test_ikev1_with_sha_256() -> None:
    secret = h("a1ff3dc6cf9b4c04709943cb4ca1f1789bcf360b03f1d027de3ae8ee039e9155")
    skeyid = h("750c5c94b9c2ec20b68033e024dadf0fa87e8b48c6561b21c72478451a06583d")
    cookies = keying1.Cookies(initiator=h("6c6beb72631ddc3d"), responder=h("b84e24b22cffbd14"))
    assert isakmp_keys(skeyid, secret, cookies, PRF_HMAC_SHA2_256) == (
        h("a4f7ca7de913814813e3312099e7c943bd293483f387532330237f1b20957310"),
        h("1d4b705746c43b0a6fcbb8db33983c0f24ff6f8b6543e3779fed227c6067f004"),
        h("03e6f16cd9ce9f64b5cdc5b34cca7163483ba5389a30afebef3d14640b0a815e"),
    )


@pytest.mark.parametrize(
    ("prf", "key", "initiator", "responder", "skeyid"),
    [
        (
            PRF_HMAC_SHA2_256,
            "a0",
            "ead9ced494868f41",
            "f1aff4f425a94f18",
            "558a99b299773d267cf7c8ef073bf3b7af362c206c75a538403c5ef884d4cace",
        ),
        (
            PRF_HMAC_SHA2_384,
            "9e",
            "d6596b7e5b398534",
            "136fbdfa8d0ceb8e",
            "b54fa27cb4251051e44a659d73591845691d11f1874bf4e4088e5df6462d28e57a3a2af3ab4f9b746a8f5766f8785f2b",
        ),
    ],
    ids=["sha256", "sha384"],
)
def test_ikev1_with_a_pre_shared_key_and_sha_2(
    prf: Prf, key: str, initiator: str, responder: str, skeyid: str
) -> None:
    nonces = Nonces(initiator=h(initiator), responder=h(responder))
    assert keying1.skeyid_for_pre_shared_key(prf, nonces, h(key)) == h(skeyid)


def test_ikev2_with_sha_256() -> None:
    prf = PRF_HMAC_SHA2_256
    nonces = Nonces(initiator=h("3f302be1abcb28e1"), responder=h("8c332ee006064c9b"))
    spis = h("40dac39e1e1a8640") + h("8619a1cf9a6e4c07")
    secret = h("0f4d257d7a58fc4545c7d7a88119eee5d5c9690c5b4c989171d3abbfd99d1d29")
    renewed = h("25f3b12d6f282739256e39bf54eda53b60ffcf379bb7bcc90c27b4c4c578616c")
    seed = keying2.skeyseed(prf, nonces, secret)
    assert seed == h("5f00d1bd2c58ec224b1e6b71fa0f19a1faa7a193952c444411b47c1a9d8ba6fe")
    material = keying2.prf_plus(prf, seed, nonces.both + spis, 132)
    assert material == h(
        "0b137d669b0947d7d026d593f0305ad401ff0c471357d695778a9c7f4b4869ece98aca531188d16041b3bb936d2dbb3b4993a6e7"
        "68a809160de45d0283f273a6cdf6854379e31be72b8d3d1fa990cf9c5b015ca9f918a7df6253c958114a09d4e1c19bdcd4db14b2"
        "9d98db1a74ad405c588662c14a04d0d36aa4ab55e90f8986d12d4aad"
    )
    assert keying2.rekeyed_skeyseed(prf, material[: prf.length], nonces, renewed) == h(
        "2d63f6debc92048b4fef3889c4c99ca67d6496e0fac14a2bca9a2d6566ff2398"
    )


def test_ikev2_with_sha_384() -> None:
    prf = PRF_HMAC_SHA2_384
    nonces = Nonces(initiator=h("fd1b572a8e735591"), responder=h("6013b0ef88dacd3d"))
    spis = h("2116ad07ce61f749") + h("24880e55f11a65b7")
    secret = h("d3288cd87565101e88fe3bad918f31939d8dd26ff1071f8b2d7f447524e58d7c")
    renewed = h("3358f620539473aee8d07e779764c4c6a9aabddc79a28e136b3bac021dbde44a")
    seed = keying2.skeyseed(prf, nonces, secret)
    assert seed == h(
        "69fe7a1ac94adaeb711295f5fe004b1a8d6a0b65d05692758ce8ad2f7a45f59d7d0b596f51f7dfcf3330061888f6a94f"
    )
    material = keying2.prf_plus(prf, seed, nonces.both + spis, 132)
    assert material == h(
        "4f904c2025c90c817ea5ff9b662a6fdb445a73b57cdf09eacd379b95e1f03cacb04cd6deeda4f952191dd9bc1f7a9502471a648d"
        "74dc06d38112de48a42501f6b1a3ad55c2099cd9a648e5f17e5bf3e34bf9b5953decb768a34f875fe2b78dca0c2fcca81ec1a412"
        "006dfaed38fa06882e61f4c148105fb8e231fdb33c4d484c001721d4"
    )
    assert keying2.rekeyed_skeyseed(prf, material[: prf.length], nonces, renewed) == h(
        "e0548c1682e13bce454026b3b1bdf42985b24e4e7408095a7c529de38c3d1fcb04c9fe6868042a34c9614c6c99e3fcea"
    )


# --- ciphers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "iv", "plaintext", "ciphertext"),
    [
        (
            "06a9214036b8a15b512e03d534120006",
            "3dafba429d9eb430b422da802c9fac41",
            b"Single block msg".hex(),
            "e353779c1079aeb82708942dbe77181a",
        ),
        (
            "c286696d887c9aa0611bbb3e2025a45a",
            "562e17996d093d28ddb3ba695a2e6f58",
            bytes(range(32)).hex(),
            "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
        ),
    ],
    ids=["case 1", "case 2"],
)
def test_aes_cbc_of_rfc_3602(key: str, iv: str, plaintext: str, ciphertext: str) -> None:
    assert AesCbcKey(h(key)).encrypt(h(iv), h(plaintext)) == h(ciphertext)
    assert AesCbcKey(h(key)).decrypt(h(iv), h(ciphertext)) == h(plaintext)


def test_an_encrypted_payload_of_rfc_7634_appendix_b() -> None:
    key = AeadProtection(ENCR_CHACHA20_POLY1305, bytes(range(0x80, 0xA4)))
    message = h(
        "c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029"
        "1011121314151617"
        "610394701f8d017f7c12924889"
        "6b71bfe25236efd7cdc67066906315b2"
    )
    sealed = parse_message(parse_header(message), message)
    assert isinstance(sealed.encrypted, Encrypted)
    (notify,) = parse_payloads(sealed.encrypted.first, sealed.open(key))
    assert notify == Notify(notify_type=NotifyType2.SET_WINDOW_SIZE, data=bytes((0, 0, 0, 10)))
