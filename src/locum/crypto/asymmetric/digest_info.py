"""DigestInfo: what RSASSA-PKCS1-v1_5 signs in place of a digest (RFC 8017 section 9.2, note 1).

Never hashes anything. For those who have to put it together, or take it apart, themselves: PKCS#11 signs with it.
"""

from __future__ import annotations

#: What comes before the digest, by the hash's name in hashlib.
DIGEST_INFOS = {
    "sha1": bytes.fromhex("3021300906052b0e03021a05000414"),
    "sha224": bytes.fromhex("302d300d06096086480165030402040500041c"),
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
