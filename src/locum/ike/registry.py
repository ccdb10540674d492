"""The code points of IKEv1 (RFC 2407, 2408, 2409) and IKEv2 (RFC 7296 and its IANA registry), with their names.

Knows no length and no preference. Unknown code points survive as integers everywhere; what is implemented
is said in `algorithms`.
"""

from __future__ import annotations

from enum import IntEnum


class Version(IntEnum):
    """The version octet of the header: major version in the upper four bits, minor in the lower."""

    IKE_1 = 0x10
    IKE_2 = 0x20


class ExchangeType(IntEnum):
    """RFC 2408 section 3.1, RFC 2409 appendix A; from 34 on RFC 7296 section 3.1, RFC 9242, RFC 9370."""

    IDENTITY_PROTECTION = 2
    AGGRESSIVE = 4
    INFORMATIONAL_1 = 5
    QUICK_MODE = 32
    IKE_SA_INIT = 34
    IKE_AUTH = 35
    CREATE_CHILD_SA = 36
    INFORMATIONAL = 37
    IKE_INTERMEDIATE = 43
    IKE_FOLLOWUP_KE = 44


class Flags1(IntEnum):
    """RFC 2408 section 3.1; flags combined are plain integers, whose operations cost a tenth of `IntFlag`'s."""

    ENCRYPTION = 0x01
    COMMIT = 0x02
    AUTHENTICATION_ONLY = 0x04


class Flags2(IntEnum):
    """RFC 7296 section 3.1; combined as `Flags1`."""

    INITIATOR = 0x08
    VERSION = 0x10
    RESPONSE = 0x20


class PayloadType1(IntEnum):
    """RFC 2408 section 3.1, RFC 3947 section 3.2; fragments as all of today's IKEv1 programs know them."""

    NONE = 0
    SECURITY_ASSOCIATION = 1
    PROPOSAL = 2
    TRANSFORM = 3
    KEY_EXCHANGE = 4
    IDENTIFICATION = 5
    CERTIFICATE = 6
    CERTIFICATE_REQUEST = 7
    HASH = 8
    SIGNATURE = 9
    NONCE = 10
    NOTIFICATION = 11
    DELETE = 12
    VENDOR_ID = 13
    NAT_D = 20
    NAT_OA = 21
    FRAGMENT = 132


class PayloadType2(IntEnum):
    """RFC 7296 section 3.2, RFC 7383 section 2.5."""

    NONE = 0
    SECURITY_ASSOCIATION = 33
    KEY_EXCHANGE = 34
    IDENTIFICATION_INITIATOR = 35
    IDENTIFICATION_RESPONDER = 36
    CERTIFICATE = 37
    CERTIFICATE_REQUEST = 38
    AUTHENTICATION = 39
    NONCE = 40
    NOTIFY = 41
    DELETE = 42
    VENDOR_ID = 43
    TRAFFIC_SELECTOR_INITIATOR = 44
    TRAFFIC_SELECTOR_RESPONDER = 45
    ENCRYPTED = 46
    CONFIGURATION = 47
    EXTENSIBLE_AUTHENTICATION = 48
    ENCRYPTED_FRAGMENT = 53


class ProtocolId(IntEnum):
    """RFC 2407 section 4.4.1, RFC 7296 section 3.3.1; 1 is ISAKMP in IKEv1."""

    NONE = 0
    IKE = 1
    AH = 2
    ESP = 3


class IdentificationType(IntEnum):
    """RFC 2407 section 4.6.2.1, RFC 7296 section 3.5; subnets and ranges exist in IKEv1 only."""

    IPV4_ADDR = 1
    FQDN = 2
    RFC822_ADDR = 3
    IPV4_ADDR_SUBNET = 4
    IPV6_ADDR = 5
    IPV6_ADDR_SUBNET = 6
    IPV4_ADDR_RANGE = 7
    IPV6_ADDR_RANGE = 8
    DER_ASN1_DN = 9
    DER_ASN1_GN = 10
    KEY_ID = 11


class CertificateEncoding(IntEnum):
    """RFC 2408 section 3.9, RFC 7296 section 3.6."""

    PKCS7 = 1
    X509_SIGNATURE = 4
    CRL = 7
    HASH_AND_URL_X509 = 12
    OCSP_CONTENT = 14
    RAW_PUBLIC_KEY = 15


# --- IKEv2 ------------------------------------------------------------------------------------------------


class TransformType(IntEnum):
    """RFC 7296 section 3.3.2, RFC 9370 section 4.1."""

    ENCRYPTION = 1
    PRF = 2
    INTEGRITY = 3
    KEY_EXCHANGE = 4
    SEQUENCE_NUMBERS = 5
    ADDITIONAL_KEY_EXCHANGE_1 = 6
    ADDITIONAL_KEY_EXCHANGE_2 = 7
    ADDITIONAL_KEY_EXCHANGE_3 = 8
    ADDITIONAL_KEY_EXCHANGE_4 = 9
    ADDITIONAL_KEY_EXCHANGE_5 = 10
    ADDITIONAL_KEY_EXCHANGE_6 = 11
    ADDITIONAL_KEY_EXCHANGE_7 = 12


#: The seven transform types of RFC 9370, in the order of their exchanges.
ADDITIONAL_KEY_EXCHANGES = tuple(TransformType(code) for code in range(6, 13))


class EncryptionId(IntEnum):
    """Transform type 1 (RFC 7296 section 3.3.2, RFC 4106, 4543, 7634), and the same numbers of ESP in IKEv1."""

    DES_IV64 = 1
    DES = 2
    TRIPLE_DES = 3
    RC5 = 4
    IDEA = 5
    CAST = 6
    BLOWFISH = 7
    TRIPLE_IDEA = 8
    DES_IV32 = 9
    NULL = 11
    AES_CBC = 12
    AES_CTR = 13
    AES_GCM_16 = 20
    NULL_AUTH_AES_GMAC = 21
    CHACHA20_POLY1305 = 28


class PrfId(IntEnum):
    """Transform type 2."""

    HMAC_MD5 = 1
    HMAC_SHA1 = 2
    HMAC_TIGER = 3
    HMAC_SHA2_256 = 5
    HMAC_SHA2_384 = 6
    HMAC_SHA2_512 = 7


class IntegrityId(IntEnum):
    """Transform type 3."""

    NONE = 0
    HMAC_MD5_96 = 1
    HMAC_SHA1_96 = 2
    DES_MAC = 3
    KPDK_MD5 = 4
    HMAC_MD5_128 = 6
    AES_128_GMAC = 9
    AES_192_GMAC = 10
    AES_256_GMAC = 11
    HMAC_SHA2_256_128 = 12
    HMAC_SHA2_384_192 = 13
    HMAC_SHA2_512_256 = 14


class KeyExchangeId(IntEnum):
    """Transform types 4 and 6 to 12, and the groups of IKEv1: one registry of numbers for both versions."""

    NONE = 0
    MODP_768 = 1
    MODP_1024 = 2
    MODP_1536 = 5
    MODP_2048 = 14
    MODP_3072 = 15
    MODP_4096 = 16
    MODP_6144 = 17
    MODP_8192 = 18
    ECP_256 = 19
    ECP_384 = 20
    ECP_521 = 21
    MODP_1024_160 = 22
    CURVE25519 = 31
    CURVE448 = 32
    ML_KEM_512 = 35
    ML_KEM_768 = 36
    ML_KEM_1024 = 37


class SequenceNumbers(IntEnum):
    """Transform type 5, and the attribute of RFC 4304 in IKEv1."""

    SHORT = 0
    EXTENDED = 1


#: The one transform attribute of IKEv2: Key Length, in bits (RFC 7296 section 3.3.5).
KEY_LENGTH_ATTRIBUTE = 14


class AuthenticationMethod2(IntEnum):
    """RFC 7296 section 3.8, RFC 4754, RFC 7427."""

    RSA_SIGNATURE = 1
    SHARED_KEY = 2
    ECDSA_256 = 9
    ECDSA_384 = 10
    ECDSA_521 = 11
    DIGITAL_SIGNATURE = 14


class SignatureHash(IntEnum):
    """What SIGNATURE_HASH_ALGORITHMS lists (RFC 7427 section 7, RFC 8420)."""

    SHA1 = 1
    SHA2_256 = 2
    SHA2_384 = 3
    SHA2_512 = 4
    IDENTITY = 5


class TrafficSelectorType(IntEnum):
    """RFC 7296 section 3.13.1."""

    IPV4_ADDR_RANGE = 7
    IPV6_ADDR_RANGE = 8


class NotifyType2(IntEnum):
    """RFC 7296 section 3.10.1 and the RFC that each later one comes from; errors are below 16384."""

    UNSUPPORTED_CRITICAL_PAYLOAD = 1
    INVALID_IKE_SPI = 4
    INVALID_MAJOR_VERSION = 5
    INVALID_SYNTAX = 7
    INVALID_MESSAGE_ID = 9
    INVALID_SPI = 11
    NO_PROPOSAL_CHOSEN = 14
    INVALID_KE_PAYLOAD = 17
    AUTHENTICATION_FAILED = 24
    SINGLE_PAIR_REQUIRED = 34
    NO_ADDITIONAL_SAS = 35
    INTERNAL_ADDRESS_FAILURE = 36
    FAILED_CP_REQUIRED = 37
    TS_UNACCEPTABLE = 38
    INVALID_SELECTORS = 39
    TEMPORARY_FAILURE = 43
    CHILD_SA_NOT_FOUND = 44
    STATE_NOT_FOUND = 47
    INITIAL_CONTACT = 16384
    SET_WINDOW_SIZE = 16385
    ADDITIONAL_TS_POSSIBLE = 16386
    IPCOMP_SUPPORTED = 16387
    NAT_DETECTION_SOURCE_IP = 16388
    NAT_DETECTION_DESTINATION_IP = 16389
    COOKIE = 16390
    USE_TRANSPORT_MODE = 16391
    HTTP_CERT_LOOKUP_SUPPORTED = 16392
    REKEY_SA = 16393
    ESP_TFC_PADDING_NOT_SUPPORTED = 16394
    NON_FIRST_FRAGMENTS_ALSO = 16395
    MOBIKE_SUPPORTED = 16396
    EAP_ONLY_AUTHENTICATION = 16417
    CHILDLESS_IKEV2_SUPPORTED = 16418
    IKEV2_FRAGMENTATION_SUPPORTED = 16430
    SIGNATURE_HASH_ALGORITHMS = 16431
    USE_PPK = 16435
    PPK_IDENTITY = 16436
    NO_PPK_AUTH = 16437
    INTERMEDIATE_EXCHANGE_SUPPORTED = 16438
    ADDITIONAL_KEY_EXCHANGE = 16441


#: Notify types from here on report a status, those below an error, in both versions.
FIRST_STATUS_TYPE = 16384


# --- IKEv1 ------------------------------------------------------------------------------------------------

#: The IPsec DOI and its only situation here (RFC 2407 sections 4.2.1 and 4.6.1).
DOI_ISAKMP = 0
DOI_IPSEC = 1
SITUATION_IDENTITY_ONLY = 1

#: Transform identifier of a phase 1 transform (RFC 2407 section 4.4.2).
KEY_IKE = 1


class OakleyAttribute(IntEnum):
    """Attributes of a phase 1 transform (RFC 2409 appendix A)."""

    ENCRYPTION_ALGORITHM = 1
    HASH_ALGORITHM = 2
    AUTHENTICATION_METHOD = 3
    GROUP_DESCRIPTION = 4
    LIFE_TYPE = 11
    LIFE_DURATION = 12
    PRF = 13
    KEY_LENGTH = 14


class IpsecAttribute(IntEnum):
    """Attributes of a phase 2 transform (RFC 2407 section 4.5, RFC 4304)."""

    LIFE_TYPE = 1
    LIFE_DURATION = 2
    GROUP_DESCRIPTION = 3
    ENCAPSULATION_MODE = 4
    AUTHENTICATION_ALGORITHM = 5
    KEY_LENGTH = 6
    EXTENDED_SEQUENCE_NUMBER = 11


class LifeType(IntEnum):
    """RFC 2407 section 4.5, RFC 2409 appendix A."""

    SECONDS = 1
    KILOBYTES = 2


class EncapsulationMode(IntEnum):
    """RFC 2407 section 4.5, RFC 3947 section 5.1."""

    TUNNEL = 1
    TRANSPORT = 2
    UDP_TUNNEL = 3
    UDP_TRANSPORT = 4


class OakleyEncryption(IntEnum):
    """Phase 1 encryption (RFC 2409 appendix A, RFC 3602)."""

    DES = 1
    IDEA = 2
    BLOWFISH = 3
    RC5 = 4
    TRIPLE_DES = 5
    CAST = 6
    AES = 7


class OakleyHash(IntEnum):
    """Phase 1 hash, which also makes the PRF (RFC 2409 appendix A, RFC 4868)."""

    MD5 = 1
    SHA1 = 2
    TIGER = 3
    SHA2_256 = 4
    SHA2_384 = 5
    SHA2_512 = 6


class IpsecAuthentication(IntEnum):
    """Integrity algorithm of a phase 2 transform (RFC 2407 section 4.5, RFC 4868)."""

    HMAC_MD5 = 1
    HMAC_SHA1 = 2
    DES_MAC = 3
    KPDK = 4
    HMAC_SHA2_256 = 5
    HMAC_SHA2_384 = 6
    HMAC_SHA2_512 = 7


class AhTransform1(IntEnum):
    """Transforms of AH in IKEv1 (RFC 2407 section 4.4.3, RFC 4868); those of ESP are `EncryptionId`."""

    MD5 = 2
    SHA1 = 3
    DES = 4
    SHA2_256 = 5
    SHA2_384 = 6
    SHA2_512 = 7


class AuthenticationMethod1(IntEnum):
    """RFC 2409 appendix A, RFC 4754."""

    PRE_SHARED_KEY = 1
    RSA_SIGNATURE = 3
    RSA_ENCRYPTION = 4
    ECDSA_256 = 9
    ECDSA_384 = 10
    ECDSA_521 = 11


class NotifyType1(IntEnum):
    """RFC 2408 section 3.14.1, RFC 2407 section 4.6.3, RFC 3706 section 5; errors are below 16384."""

    INVALID_PAYLOAD_TYPE = 1
    DOI_NOT_SUPPORTED = 2
    SITUATION_NOT_SUPPORTED = 3
    INVALID_COOKIE = 4
    INVALID_MAJOR_VERSION = 5
    INVALID_MINOR_VERSION = 6
    INVALID_EXCHANGE_TYPE = 7
    INVALID_FLAGS = 8
    INVALID_MESSAGE_ID = 9
    INVALID_PROTOCOL_ID = 10
    INVALID_SPI = 11
    INVALID_TRANSFORM_ID = 12
    ATTRIBUTES_NOT_SUPPORTED = 13
    NO_PROPOSAL_CHOSEN = 14
    BAD_PROPOSAL_SYNTAX = 15
    PAYLOAD_MALFORMED = 16
    INVALID_KEY_INFORMATION = 17
    INVALID_ID_INFORMATION = 18
    INVALID_CERT_ENCODING = 19
    INVALID_CERTIFICATE = 20
    CERT_TYPE_UNSUPPORTED = 21
    INVALID_CERT_AUTHORITY = 22
    INVALID_HASH_INFORMATION = 23
    AUTHENTICATION_FAILED = 24
    INVALID_SIGNATURE = 25
    CONNECTED = 16384
    RESPONDER_LIFETIME = 24576
    REPLAY_STATUS = 24577
    INITIAL_CONTACT = 24578
    R_U_THERE = 36136
    R_U_THERE_ACK = 36137


#: Vendor IDs that announce an ability in IKEv1: NAT traversal (RFC 3947 section 3.1), dead peer detection
#: (RFC 3706 section 5.1) and fragments. Fragmentation's is followed by four octets of flags.
VENDOR_ID_NAT_T = bytes.fromhex("4a131c81070358455c5728f20e95452f")
VENDOR_ID_DPD = bytes.fromhex("afcad71368a1f1c96b8696fc77570100")
VENDOR_ID_FRAGMENTATION = bytes.fromhex("4048b7d56ebce88525e7de7f00d6c2d3")


def name_of(registry: type[IntEnum], code: int) -> str:
    """The registry's name of a code point, or its number."""
    return registry(code).name if code in registry.__members__.values() else str(code)
