"""Published vectors: NIST CAVP's of the IKE key derivation functions (SP 800-135), RFC 3602's, RFC 7634's.

The CAVP cases are the sample ones that libreswan carries in programs/cavp (test.acvp.ikev1_dsa,
test.acvp.ikev1_psk, test.acvp.ikev2); all are with HMAC-SHA1.
"""

from __future__ import annotations

import pytest

from locum.crypto.symmetric import AesCbcKey
from locum.ike import keying1, keying2
from locum.ike.algorithms import ENCR_CHACHA20_POLY1305, PRF_HMAC_SHA1
from locum.ike.header import parse_header
from locum.ike.payloads2 import Encrypted, Notify, parse_payloads
from locum.ike.protection import AeadProtection, parse_message
from locum.ike.registry import NotifyType2
from locum.ike.suites import Nonces

h = bytes.fromhex


def isakmp_keys(skeyid: bytes, secret: bytes, cookies: keying1.Cookies) -> tuple[bytes, bytes, bytes]:
    keys = keying1.isakmp_keys(PRF_HMAC_SHA1, skeyid, secret, cookies)
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
