"""OpenSSL's names for the suites and groups that are implemented, for servers and their command lines."""

from __future__ import annotations

from locum.tls.registry import NamedGroup

#: Every implemented suite, by its code point.
SUITES_13 = {
    0x1301: "TLS_AES_128_GCM_SHA256",
    0x1302: "TLS_AES_256_GCM_SHA384",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
    0x1304: "TLS_AES_128_CCM_SHA256",
    0x1305: "TLS_AES_128_CCM_8_SHA256",
}
SUITES_12 = {
    0xC02B: "ECDHE-ECDSA-AES128-GCM-SHA256",
    0xC02C: "ECDHE-ECDSA-AES256-GCM-SHA384",
    0xCCA9: "ECDHE-ECDSA-CHACHA20-POLY1305",
    0xC02F: "ECDHE-RSA-AES128-GCM-SHA256",
    0xC030: "ECDHE-RSA-AES256-GCM-SHA384",
    0xCCA8: "ECDHE-RSA-CHACHA20-POLY1305",
    0xC0AC: "ECDHE-ECDSA-AES128-CCM",
    0xC0AE: "ECDHE-ECDSA-AES128-CCM8",
    0x009E: "DHE-RSA-AES128-GCM-SHA256",
    0x009F: "DHE-RSA-AES256-GCM-SHA384",
    0xCCAA: "DHE-RSA-CHACHA20-POLY1305",
    0xC09E: "DHE-RSA-AES128-CCM",
    0x009C: "AES128-GCM-SHA256",
    0x009D: "AES256-GCM-SHA384",
    0xC09C: "AES128-CCM",
}
#: Groups of TLS 1.2 and 1.3 that every OpenSSL knows, and those that only OpenSSL 4 knows.
CLASSICAL_GROUPS = {
    NamedGroup.X25519: "X25519",
    NamedGroup.SECP256R1: "P-256",
    NamedGroup.SECP384R1: "P-384",
    NamedGroup.X448: "X448",
}
HYBRID_GROUPS = {
    NamedGroup.X25519MLKEM768: "X25519MLKEM768",
    NamedGroup.SECP256R1MLKEM768: "SecP256r1MLKEM768",
}
GROUPS = CLASSICAL_GROUPS | HYBRID_GROUPS
