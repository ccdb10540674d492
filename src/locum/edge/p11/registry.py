"""The numbers of PKCS#11 2.40 and of the p11-kit remote protocol that the agent knows.

Values only; nothing here says what is done with them.
"""

from __future__ import annotations

from enum import IntEnum


class Call(IntEnum):
    """The calls of the remote protocol that have an answer other than "not supported"."""

    INITIALIZE = 1
    FINALIZE = 2
    GET_INFO = 3
    GET_SLOT_LIST = 4
    GET_SLOT_INFO = 5
    GET_TOKEN_INFO = 6
    GET_MECHANISM_LIST = 7
    GET_MECHANISM_INFO = 8
    OPEN_SESSION = 10
    CLOSE_SESSION = 11
    CLOSE_ALL_SESSIONS = 12
    GET_SESSION_INFO = 13
    LOGIN = 18
    LOGOUT = 19
    GET_ATTRIBUTE_VALUE = 24
    FIND_OBJECTS_INIT = 26
    FIND_OBJECTS = 27
    FIND_OBJECTS_FINAL = 28
    DECRYPT_INIT = 33
    DECRYPT = 34
    DECRYPT_UPDATE = 35
    DECRYPT_FINAL = 36
    SIGN_INIT = 42
    SIGN = 43
    SIGN_UPDATE = 44
    SIGN_FINAL = 45
    SEED_RANDOM = 63
    GENERATE_RANDOM = 64


#: What the client insists on finding before the results of a call: their types, one letter each.
SIGNATURES = {
    Call.GET_INFO: b"vsusv",
    Call.GET_SLOT_LIST: b"au",
    Call.GET_SLOT_INFO: b"ssuvv",
    Call.GET_TOKEN_INFO: b"ssssuuuuuuuuuuuvvs",
    Call.GET_MECHANISM_LIST: b"au",
    Call.GET_MECHANISM_INFO: b"uuu",
    Call.OPEN_SESSION: b"u",
    Call.GET_SESSION_INFO: b"uuuu",
    Call.GET_ATTRIBUTE_VALUE: b"aAu",
    Call.FIND_OBJECTS: b"au",
    Call.DECRYPT: b"ay",
    Call.DECRYPT_UPDATE: b"ay",
    Call.DECRYPT_FINAL: b"ay",
    Call.SIGN: b"ay",
    Call.SIGN_FINAL: b"ay",
    Call.GENERATE_RANDOM: b"ay",
}


class Rv(IntEnum):
    """CK_RV: what a call returns; 0 is success."""

    OK = 0x000
    SLOT_ID_INVALID = 0x003
    GENERAL_ERROR = 0x005
    FUNCTION_FAILED = 0x006
    ARGUMENTS_BAD = 0x007
    ATTRIBUTE_SENSITIVE = 0x011
    ATTRIBUTE_TYPE_INVALID = 0x012
    DATA_INVALID = 0x020
    DATA_LEN_RANGE = 0x021
    DEVICE_ERROR = 0x030
    DEVICE_MEMORY = 0x031
    ENCRYPTED_DATA_LEN_RANGE = 0x041
    FUNCTION_NOT_SUPPORTED = 0x054
    KEY_HANDLE_INVALID = 0x060
    KEY_TYPE_INCONSISTENT = 0x063
    KEY_FUNCTION_NOT_PERMITTED = 0x068
    MECHANISM_INVALID = 0x070
    MECHANISM_PARAM_INVALID = 0x071
    OBJECT_HANDLE_INVALID = 0x082
    OPERATION_ACTIVE = 0x090
    OPERATION_NOT_INITIALIZED = 0x091
    SESSION_COUNT = 0x0B1
    SESSION_HANDLE_INVALID = 0x0B3
    SESSION_PARALLEL_NOT_SUPPORTED = 0x0B4
    TOKEN_WRITE_PROTECTED = 0x0E2
    BUFFER_TOO_SMALL = 0x150


class Mechanism(IntEnum):
    """CK_MECHANISM_TYPE. CKM_RSA_X_509, the bare private operation, is missing on purpose (X3)."""

    RSA_PKCS = 0x0001
    RSA_PKCS_PSS = 0x000D
    SHA256_RSA_PKCS = 0x0040
    SHA384_RSA_PKCS = 0x0041
    SHA512_RSA_PKCS = 0x0042
    SHA256_RSA_PKCS_PSS = 0x0043
    SHA384_RSA_PKCS_PSS = 0x0044
    SHA512_RSA_PKCS_PSS = 0x0045
    SHA256 = 0x0250
    SHA384 = 0x0260
    SHA512 = 0x0270
    ECDSA = 0x1041
    ECDSA_SHA256 = 0x1044
    ECDSA_SHA384 = 0x1045
    ECDSA_SHA512 = 0x1046


#: Mechanisms that come with CK_RSA_PKCS_PSS_PARAMS, those that are not offered included: CKM_SHA1_RSA_PKCS_PSS and
#: CKM_SHA224_RSA_PKCS_PSS.
PSS_MECHANISMS = frozenset((0x0D, 0x0E, 0x43, 0x44, 0x45, 0x47))
#: CKM_RSA_PKCS_OAEP, whose parameters have their own shape too.
OAEP_MECHANISM = 0x09


class ObjectClass(IntEnum):
    """CK_OBJECT_CLASS."""

    CERTIFICATE = 1
    PUBLIC_KEY = 2
    PRIVATE_KEY = 3


class KeyType(IntEnum):
    """CK_KEY_TYPE."""

    RSA = 0
    EC = 3


class CertificateType(IntEnum):
    """CK_CERTIFICATE_TYPE."""

    X_509 = 0


class Attribute(IntEnum):
    """CK_ATTRIBUTE_TYPE."""

    CLASS = 0x000
    TOKEN = 0x001
    PRIVATE = 0x002
    LABEL = 0x003
    VALUE = 0x011
    CERTIFICATE_TYPE = 0x080
    ISSUER = 0x081
    SERIAL_NUMBER = 0x082
    TRUSTED = 0x086
    KEY_TYPE = 0x100
    SUBJECT = 0x101
    ID = 0x102
    SENSITIVE = 0x103
    ENCRYPT = 0x104
    DECRYPT = 0x105
    WRAP = 0x106
    UNWRAP = 0x107
    SIGN = 0x108
    SIGN_RECOVER = 0x109
    VERIFY = 0x10A
    VERIFY_RECOVER = 0x10B
    DERIVE = 0x10C
    MODULUS = 0x120
    MODULUS_BITS = 0x121
    PUBLIC_EXPONENT = 0x122
    PUBLIC_KEY_INFO = 0x129
    EXTRACTABLE = 0x162
    LOCAL = 0x163
    NEVER_EXTRACTABLE = 0x164
    ALWAYS_SENSITIVE = 0x165
    MODIFIABLE = 0x170
    COPYABLE = 0x171
    DESTROYABLE = 0x172
    EC_PARAMS = 0x180
    EC_POINT = 0x181
    ALWAYS_AUTHENTICATE = 0x202
    WRAP_WITH_TRUSTED = 0x210


#: CKA_VALUE, and CKA_PRIVATE_EXPONENT to CKA_COEFFICIENT: what a private key never shows.
SECRET_ATTRIBUTES = frozenset((0x11, 0x123, 0x124, 0x125, 0x126, 0x127, 0x128))

# The types of attribute values on the wire; everything else is an array of bytes.
BYTE_ATTRIBUTES = frozenset(
    (
        *(0x001, 0x002, 0x086, *range(0x103, 0x10D), *range(0x162, 0x166), 0x170, 0x171),
        *(0x200, 0x202, 0x210, 0x301, 0x302, 0x406),
    )
)
ULONG_ATTRIBUTES = frozenset(
    (
        *(0x000, 0x080, 0x087, 0x088, 0x100, 0x121, 0x133, 0x134, 0x160, 0x161, 0x166),
        *(0x201, 0x300, *range(0x400, 0x406), 0x500),
    )
)
MECHANISM_LIST_ATTRIBUTE = 0x40000600
TEMPLATE_ATTRIBUTES = frozenset((0x40000211, 0x40000212, 0x40000213))


class TokenFlag(IntEnum):
    """CK_TOKEN_INFO.flags. Without LOGIN_REQUIRED, for it is the process that is authenticated, not a PIN."""

    RNG = 0x001
    WRITE_PROTECTED = 0x002
    TOKEN_INITIALIZED = 0x400


class MechanismFlag(IntEnum):
    """CK_MECHANISM_INFO.flags."""

    DECRYPT = 0x00000200
    SIGN = 0x00000800
    EC_F_P = 0x00100000
    EC_NAMEDCURVE = 0x00800000
    EC_UNCOMPRESS = 0x01000000


#: CKF_TOKEN_PRESENT of CK_SLOT_INFO, CKF_RW_SESSION and CKF_SERIAL_SESSION of sessions.
TOKEN_PRESENT = 1
RW_SESSION = 2
SERIAL_SESSION = 4

#: "no value": of a length, of CK_ULONG.
NO_LENGTH = 0xFFFFFFFF
UNAVAILABLE_INFORMATION = 0xFFFFFFFFFFFFFFFF
