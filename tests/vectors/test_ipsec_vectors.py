"""Published packets of ESP and AH, from RFCs and from another implementation.

- draft-mcgrew-gcm-test-01: AES-GCM in ESP (RFC 4106), with extended sequence numbers too, and AES-GMAC (RFC 4543).
- RFC 7634 Appendix A: ChaCha20-Poly1305 in ESP.
- RFC 3602 section 4, cases 5 to 8: AES-CBC in ESP (these have no ICV; one is added before they are opened).
- OpenDataPlane, test/validation/api/ipsec/test_vectors.h: AH, ESP-NULL, AES-CBC with HMAC-SHA2, AES-GMAC.
- RFC 4231 test case 1, cut as in RFC 4868: HMAC-SHA2.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from tests.support.ipsec import ah_sa, esp_sa

from locum.crypto.symmetric import HMAC_SHA2_256_128, HMAC_SHA2_384_192, HMAC_SHA2_512_256, MacAlgorithm, MacKey
from locum.ipsec import algorithms
from locum.ipsec.algorithms import EncryptionAlgorithm, IntegrityAlgorithm
from locum.ipsec.esp import EspReceiver, EspSender
from locum.ipsec.ip import IPV4
from locum.ipsec.modes import inbound, outbound
from locum.ipsec.protection import protection
from locum.ipsec.sa import Direction, DontFragment, Mode, SecurityAssociation, UdpEncapsulation

h = bytes.fromhex

GCM = (
    # name, key, nonce (salt and IV), associated data (SPI and sequence number), plaintext, ciphertext, tag
    (
        "1, extended sequence number",
        "4c80cdefbb5d10da906ac73c3613a634",
        "2e443b684956ed7e3b244cfe",
        "000043218765432100000000",
        "45000048699a000080114db7c0a80102c0a801010a9bf15638d3010000010000"
        "00000000045f736970045f756470037369700963796265726369747902646b00"
        "0021000101020201",
        "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34"
        "cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce"
        "61bc17d768fd9732",
        "459018148f6cbe722fd04796562dfdb4",
    ),
    (
        "2",
        "feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "0000a5f80000000a",
        "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d00100"
        "0001000000000000037369700963796265726369747902646b00000100010001",
        "deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c"
        "3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1",
        "83b70d3aa8bc6ee4c309e9d85a41ad4a",
    ),
    (
        "3, a key of 256 bits",
        "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        "112233440102030405060708",
        "4a2cbfe300000002",
        "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b40101040201020201",
        "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d347f0545659f14e99def842d8e",
        "b335f4eecfdbf831824b4c4915956c96",
    ),
    (
        "8, extended sequence number",
        "abbccddef00112233445566778899aab",
        "decaf888cafedebaceface74",
        "000001000000000000000001",
        "4500004933ba00007f119106c3fb1d10c2b1d326c02831ce0035dd7b800302d5"
        "00004e20001e8c18d75b81dc91baa0476b91b924b280389d92c963bac046ec95"
        "9b6266c04722b14923010101",
        "18a6fd42f72cbf4ab2a2ea901f73d814e3e7f243d95412e1c349c1d2fbec168f"
        "9190feebaf2cb01984e65863965d7472b79da345e0e780191f0d2f0e0f496c22"
        "6f2127b27db35724e7845d68",
        "651f57e65f354f75ff17015769623436",
    ),
    (
        "9, extended sequence number and a key of 256 bits",
        "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        "73616c74616e640169766563",
        "17405e67156f3126dd0db99b",
        "45080028732c00004006e9f90a0106120a01038f06b88023dd6bafbecb71260250101f646d540001",
        "f2d69ecdbd5a0d5b8d5ef38bad4da58d1f278fde98ef67549d524a3018d9a57ff4d3a31ce673119e",
        "451626c2415771e3b7eebca614c89b35",
    ),
    (
        "12, nothing but padding",
        "7d773d00c144c525ac619d18c84a3f47",
        "d966426743457e9182443bc6",
        "335467aeffffffff",
        "01020201",
        "437f866b",
        "cb3f699fe9b0822bac961c4504bef270",
    ),
)


def test_rfc4106_packets_of_mcgrew_are_opened() -> None:
    for name, key, nonce, associated, plaintext, ciphertext, tag in GCM:
        header = h(associated)
        extended = len(header) == 12
        sa = esp_sa(
            algorithms.AES128_GCM16 if len(h(key)) == 16 else algorithms.AES256_GCM16,
            encryption_key=h(key) + h(nonce)[:4],
            spi=int.from_bytes(header[:4], "big"),
            extended_sequence=extended,
        )
        packet = header[:4] + header[-4:] + h(nonce)[4:] + h(ciphertext) + h(tag)
        number = int.from_bytes(header[4:], "big")
        assert protection(sa).open(packet, number) == h(plaintext), name
        if h(plaintext)[-1] == 1:  # in most of them the trailer says ICMP around an IP packet
            receiver = EspReceiver(replace(sa, direction=Direction.IN))
            receiver.sequence.highest = number - 1
            opened = receiver.open(packet)
            assert opened is not None
            assert (opened.next_header, opened.payload) == (1, h(plaintext)[: -2 - h(plaintext)[-2]]), name


ICMP = "0800fb3712340000babe01234567cafe" + bytes(range(0x5C)).hex()
IP4_ICMP = h("45000080000000004001ac27c0a86f02c0a8de02" + ICMP)
#: With a Hop-by-Hop header of padding options.
IP6_ICMP = h(
    "600000000074004020010db800000000021143fffe4ad70a20010db80000000000000000000000163a00010001000100" + ICMP
)
TUNNEL4 = ip_address("10.0.111.2"), ip_address("10.0.222.2")
TUNNEL6 = ip_address("2001:db8::211:43ff:fe4a:d70a"), ip_address("2001:db8::16")
IP6_TUNNEL_ENDS = "20010db800000000021143fffe4ad70a20010db8000000000000000000000016"

#: ESP-NULL and AH with HMAC-SHA-256-128, SPI 123, the first packet: what is protected, how, and the outcome.
ODP: tuple[tuple[str, bytes, Mode, Any, str], ...] = (
    ("esp", IP4_ICMP, Mode.TRANSPORT, None,
     "4500009c000000004032abdac0a86f02c0a8de02" "0000007b00000001" + ICMP
     + "01020201" "e981cd659b250b33e2f383f16d14b41f"),
    ("esp", IP4_ICMP, Mode.TUNNEL, TUNNEL4,
     "450000b00000000040321918" "0a006f020a00de02" "0000007b00000001" + IP4_ICMP.hex()
     + "01020204" "738df69a26064da1883765ab0de9953b"),
    ("esp", IP4_ICMP, Mode.TUNNEL, TUNNEL6,
     "60000000009c3240" + IP6_TUNNEL_ENDS + "0000007b00000001" + IP4_ICMP.hex()
     + "01020204" "738df69a26064da1883765ab0de9953b"),
    ("esp", IP6_ICMP, Mode.TRANSPORT, TUNNEL6,
     "6000000000900040" + IP6_TUNNEL_ENDS + "3200010001000100" "0000007b00000001" + ICMP
     + "0102023a" "20a6897b0a525bca9856d1fe56c7a45b"),
    ("esp", IP6_ICMP, Mode.TUNNEL, TUNNEL4,
     "450000cc00000000403218fc" "0a006f020a00de02" "0000007b00000001" + IP6_ICMP.hex()
     + "01020229" "d0966edac508cc0ed122a5ed1307d9cd"),
    ("esp", IP6_ICMP, Mode.TUNNEL, TUNNEL6,
     "6000000000b83240" + IP6_TUNNEL_ENDS + "0000007b00000001" + IP6_ICMP.hex()
     + "01020229" "d0966edac508cc0ed122a5ed1307d9cd"),
    ("ah", IP4_ICMP, Mode.TRANSPORT, None,
     "4500009c000000004033abd9c0a86f02c0a8de02" "010500000000007b00000001"
     "6c2ef71f7c7039a34a7701479e457351" + ICMP),
    ("ah", IP4_ICMP, Mode.TUNNEL, TUNNEL4,
     "450000b00000000040331917" "0a006f020a00de02" "040500000000007b00000001"
     "d5359b21e6149b421f00fa36734c53cf" + IP4_ICMP.hex()),
    ("ah", IP4_ICMP, Mode.TUNNEL, TUNNEL6,
     "6000000000a03340" + IP6_TUNNEL_ENDS + "040600000000007b00000001"
     "2b45bed29c9c3e0de032afa02d26e19100000000" + IP4_ICMP.hex()),
    ("ah", IP6_ICMP, Mode.TRANSPORT, TUNNEL6,
     "6000000000940040" + IP6_TUNNEL_ENDS + "3300010001000100" "3a0600000000007b00000001"
     "d9148727201ac266c1ca992b8aae2f2700000000" + ICMP),
    ("ah", IP6_ICMP, Mode.TUNNEL, TUNNEL4,
     "450000cc00000000403318fb" "0a006f020a00de02" "290500000000007b00000001"
     "7fde8a48c5c5fa52b8f6c2e38f10b247" + IP6_ICMP.hex()),
    ("ah", IP6_ICMP, Mode.TUNNEL, TUNNEL6,
     "6000000000bc3340" + IP6_TUNNEL_ENDS + "290600000000007b00000001"
     "62962b403e53764a4d7ff622353c74e200000000" + IP6_ICMP.hex()),
)  # fmt: skip


def odp_sa(kind: str, mode: Mode, ends: Any, direction: Direction) -> SecurityAssociation:
    source, destination = ends or (ip_address("192.168.111.2"), ip_address("192.168.222.2"))
    changes: dict[str, Any] = {
        "spi": 123 + 256,
        "mode": mode,
        "source": source,
        "destination": destination,
        "direction": direction,
        "integrity_key": b"\x5a" * 32,
        "dont_fragment": DontFragment.CLEAR,
    }
    if kind == "ah":
        return with_spi(ah_sa(algorithms.SHA2_256_128, **changes), 123)
    return with_spi(esp_sa(algorithms.NULL, algorithms.SHA2_256_128, **changes), 123)


def with_spi(sa: SecurityAssociation, spi: int) -> SecurityAssociation:
    """An association with an SPI that is reserved, as test packets have it, and refused everywhere else."""
    object.__setattr__(sa, "spi", spi)
    return sa


@pytest.mark.parametrize("kind, packet, mode, ends, expected", ODP)
def test_packets_of_another_implementation_are_made_and_opened(
    kind: str, packet: bytes, mode: Mode, ends: Any, expected: str
) -> None:
    assert outbound(odp_sa(kind, mode, ends, Direction.OUT)).protect(packet).hex() == expected
    assert inbound(odp_sa(kind, mode, ends, Direction.IN)).unprotect(h(expected)) == packet


def test_rfc3948_packet_of_another_implementation_is_made_and_opened() -> None:
    ports = UdpEncapsulation(source_port=4500, destination_port=4500)
    expected = (
        "450000a4000000004011abf3c0a86f02c0a8de02" "1194119400900000" "0000007b00000001" + ICMP
        + "01020201" "e981cd659b250b33e2f383f16d14b41f"
    )  # fmt: skip
    sender = outbound(replaced(odp_sa("esp", Mode.TRANSPORT, None, Direction.OUT), ports))
    assert sender.protect(IP4_ICMP).hex() == expected
    receiver = inbound(replaced(odp_sa("esp", Mode.TRANSPORT, None, Direction.IN), ports))
    assert receiver.unprotect(h(expected)) == IP4_ICMP


def replaced(sa: SecurityAssociation, ports: UdpEncapsulation) -> SecurityAssociation:
    object.__setattr__(sa, "encapsulation", ports)
    return sa


#: AES-CBC with HMAC-SHA2, SPI 123, the first packet: algorithms, and everything behind the IP header.
CBC: tuple[tuple[EncryptionAlgorithm, bytes, IntegrityAlgorithm, str], ...] = (
    (algorithms.AES128_CBC, b"\xa5" * 16, algorithms.SHA2_256_128,
     "0000007b00000001" "96fa745678e4bb0c9e6e4aeb44d9f2e6"
     "2fb3a6fe2c2ece653a57e3095d663632b1c25958b6e59ea207f8264a64f51601"
     "518ee54b072c4b23fa4e6edb35c71d3042d90fba8a697e29e7bd15e9359e81e7"
     "9ec97d669958ec4529d0a4fdf1e75b3e2a771d8f2b73baf872d2a00b90b9739c"
     "de3cc3b89197c428fa6da841b683c8aa" "8a3910070297bb1c59b77033a426a2b8"),
    (algorithms.AES128_CBC, b"\xa5" * 16, algorithms.SHA2_384_192,
     "0000007b00000001" "cdc78d99f76521f640e34c5e90844cf3"
     "b59ca23db6094f40734a331290b2f1241fd3a3895312b0986eecdeb8f2bbe003"
     "ee861c2ce21226894d8a6a89d0316866e814e7d7aad82a610362b7468e98a7fd"
     "96e7bb5df0c742e1ef961c79c0a460692cc8021ff4bf8fa40eb535ca5123c562"
     "1354bbcb2a4add79329f72a6ebe90461" "79bcb62dcc14c8eafa5b578d0aec56b7cab2389b0579f8dd"),
    (algorithms.AES128_CBC, b"\xa5" * 16, algorithms.SHA2_512_256,
     "0000007b00000001" "f96b50a97b4ec9df7029e276dc121e8f"
     "9a7c5b96cdcb7607f3b08631a4f0a3dbb60846d4b22c1586df4eb9d275b51830"
     "251538bbbd178b01c6c414e8e7c2c763704dcb0295683685116676a073d4a91c"
     "33ffe60480476da4631a158957b7394f61718f4baf3c310d9b1aea2138b86489"
     "9676c7d2fc8e360235fede40c7d8608d"
     "e8666bb74fb2a508f17682a93eed39ac178fa8fe584d40edfed9356013b520f8"),
)  # fmt: skip


@pytest.mark.parametrize("encryption, key, integrity, packet", CBC)
def test_rfc4868_packets_of_another_implementation_are_opened(
    encryption: EncryptionAlgorithm, key: bytes, integrity: IntegrityAlgorithm, packet: str
) -> None:
    integrity_key = b"\x5a" * integrity.key_length
    sa = esp_sa(encryption, integrity, direction=Direction.IN, encryption_key=key, integrity_key=integrity_key)
    opened = EspReceiver(with_spi(sa, 123)).open(h(packet))
    assert opened is not None
    assert (opened.next_header, opened.payload.hex()) == (1, ICMP)


RFC3602 = (
    # key, packet without ICV, next header, payload
    (
        "90d382b410eeba7ad938c46cec1a82bf",
        "0000432100000001e96e8c08ab465763fd098d45dd3ff893f663c25d325c18c6a9453e194e120849a4870b66cc6b9965"
        "330013b4898dc856a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874aa269add047ad2d59"
        "13ac19b7cfbad4a6",
        1,
        "08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627"
        "28292a2b2c2d2e2f3031323334353637",
    ),
    (
        "90d382b410eeba7ad938c46cec1a82bf",
        "000043210000000869d08df7d203329db093fc4924e5bd80f51995881ec4e0c4488987ce742e8109689bb379d2d750c0"
        "d915dca346a89f75",
        1,
        "0800b5e8a80a0500a69c083d0b660e00777777777777777777777777",
    ),
    (
        "0123456789abcdef0123456789abcdef",
        "0000876500000002f4e765244f6407adf13dc1380f673f37773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a9301"
        "3c1b0ea1a0cf70f8e4ecaec78ac53aad7a0f022b859243c647752e94a859352b8a4d4d2decd136e5c177f132ad3fbfb2"
        "201ac9904c74ee0a109e0ca1e4dfe9d5a100b842f1c22f0d",
        4,
        "45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d02a2040008090a0b0c0d0e0f10111213"
        "1415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637",
    ),
    (
        "0123456789abcdef0123456789abcdef",
        "000087650000000585d47224b5f3dd5d2101d4ea8dffab2215b92683819596a8047232cc00f7048fe45318e11f8a0f62"
        "ede3c3fc61203bb50f980a08c9843fd3a1b06d5c07ff9639b7eb7dfb3512e5de435e7207ed971ef3d2726d9b5ef6affc"
        "6d17a0decbb13892",
        4,
        "45000044090c00004001f990c0a87b03c0a87bc80800d63caa0a0200c69c083da3de0300ffffffffffffffffffffffff"
        "ffffffffffffffffffffffffffffffffffffffff",
    ),
)


@pytest.mark.parametrize("key, packet, next_header, payload", RFC3602)
def test_rfc3602_packets_are_opened(key: str, packet: str, next_header: int, payload: str) -> None:
    sa = esp_sa(
        algorithms.AES128_CBC,
        algorithms.SHA2_256_128,
        direction=Direction.IN,
        encryption_key=h(key),
        spi=int(packet[:8], 16),
    )
    icv = HMAC_SHA2_256_128.new(sa.integrity_key).tag(h(packet))
    opened = EspReceiver(sa).open(h(packet) + icv)
    assert opened is not None
    assert (opened.next_header, opened.payload.hex()) == (next_header, payload)


def test_rfc7634_packet_is_opened() -> None:
    sa = esp_sa(
        algorithms.CHACHA20POLY1305,
        direction=Direction.IN,
        encryption_key=bytes(range(0x80, 0xA0)) + h("a0a1a2a3"),
        spi=0x01020304,
    )
    packet = h(
        "01020304000000051011121314151617"
        "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f7"
        "2aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0"
        "76aaa8266b7fb0f7b11b369907e1ad43"
    )
    inner = h(
        "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f10111213"
        "1415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637"
    )
    receiver = EspReceiver(sa)
    opened = receiver.open(packet)
    assert opened is not None and opened == (IPV4, inner)
    # The same, sealed with our own choice of IV, differs in nothing but what the IV changes.
    resealed = EspSender(replace(sa, direction=Direction.OUT), first_sequence=5).seal(inner, IPV4)
    assert resealed[:8] == packet[:8] and len(resealed) == len(packet)


GMAC = (
    # key and salt, packet with SPI, sequence number, IV, payload, trailer and ICV; draft-mcgrew-gcm-test-01 test
    # 15 says ICMP in its trailer, OpenDataPlane has the same packet with IPv4
    (
        "4c80cdefbb5d10da906ac73c3613a634" "22433c64",
        "0000432100000007000000000000000045000030da3a00008001df3bc0a80005c0a800010800c6cd0200070061626364"
        "65666768696a6b6c6d6e6f707172737401020201" "f2a9a836e155106aa8dcd618e4099aaa",
    ),
    (
        "4c80cdefbb5d10da906ac73c3613a634" "22433c64",
        "0000432100000007000000000000000045000030da3a00008001df3bc0a80005c0a800010800c6cd0200070061626364"
        "65666768696a6b6c6d6e6f707172737401020204" "594f4055428d399a9d66c15e77023a98",
    ),
)  # fmt: skip


@pytest.mark.parametrize("key, packet", GMAC)
def test_rfc4543_packets_in_esp_are_opened(key: str, packet: str) -> None:
    sa = esp_sa(algorithms.NULL_AES128_GMAC, direction=Direction.IN, encryption_key=h(key), spi=0x4321)
    opened = EspReceiver(sa).open(h(packet))
    assert opened is not None
    assert opened.payload == h(packet)[16:-20]


def test_rfc4543_packet_in_ah_is_opened() -> None:
    packet = h(
        "450000a4000000004033abd1c0a86f02c0a8de02" "010700000000007b00000001"
        "0100000000000000" "d60ecc223179597268c958fb8bb0bbd5" + ICMP
    )  # fmt: skip
    sa = ah_sa(
        algorithms.AH_AES128_GMAC,
        direction=Direction.IN,
        mode=Mode.TRANSPORT,
        integrity_key=b"\xa5" * 16 + h("cafebabe"),
    )
    assert inbound(with_spi(sa, 123)).unprotect(packet) == IP4_ICMP


@pytest.mark.parametrize(
    "algorithm, expected",
    [
        (HMAC_SHA2_256_128, "b0344c61d8db38535ca8afceaf0bf12b"),
        (HMAC_SHA2_384_192, "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec6"),
        (HMAC_SHA2_512_256, "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde"),
    ],
)
def test_rfc4231_case_1_is_cut_as_rfc4868_says(algorithm: MacAlgorithm, expected: str) -> None:
    # HMAC fills a short key up with zeros, so the vector's 20 bytes can be made a key of full length.
    key = (b"\x0b" * 20).ljust(algorithm.key_length, b"\0")
    mac: MacKey = algorithm.new(key)
    assert mac.tag(b"Hi There").hex() == expected
    mac.verify(b"Hi There", h(expected))
