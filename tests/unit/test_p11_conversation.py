"""One client's calls: sessions, objects, signatures and decryptions; the test itself plays the key."""

import hashlib

import pytest
from tests.support.p11_client import SHA256_PSS, Reply, byte_array, mechanism, message, parse_reply, u32, u64
from tests.support.p11_keys import HANDLES, RSA, token

from locum.edge.p11.conversation import MAX_RANDOM, MAX_SESSIONS, Conversation, KeyUse
from locum.edge.p11.errands import Task
from locum.edge.p11.mechanisms import MAX_CONTENT
from locum.edge.p11.registry import Attribute, Call, Mechanism, Rv
from locum.errors import DecodeError

DIGEST = hashlib.sha256(b"content").digest()


class Caller:
    """Calls a `Conversation` and takes its answers apart."""

    def __init__(self, *, raw: bool = True, bound: bool = True) -> None:
        self.conversation = Conversation(token(raw=raw, bound=bound))
        self.session = int.from_bytes(self.ok(Call.OPEN_SESSION, u64(1) + u64(4)), "big")

    def call(self, call: int, arguments: bytes = b"") -> Reply | KeyUse:
        answer = self.conversation.handle(5, message(call, arguments))
        return parse_reply(5, answer[12:]) if isinstance(answer, bytes) else answer

    def ok(self, call: int, arguments: bytes = b"") -> bytes:
        answer = self.call(call, arguments)
        assert isinstance(answer, Reply)
        assert answer.rv == Rv.OK, hex(answer.rv)
        return answer.data

    def rv(self, call: int, arguments: bytes = b"") -> int:
        answer = self.call(call, arguments)
        assert isinstance(answer, Reply)
        return answer.rv

    def use(self, call: int, arguments: bytes = b"") -> KeyUse:
        answer = self.call(call, arguments)
        assert isinstance(answer, KeyUse)
        return answer

    def sign_init(self, kind: int, key: int, parameters: tuple[int, int, int] | None = None) -> int:
        return self.rv(Call.SIGN_INIT, u64(self.session) + mechanism(kind, parameters) + u64(key))

    def decrypt_init(self, kind: int = Mechanism.RSA_PKCS, key: int = HANDLES.rsa) -> int:
        return self.rv(Call.DECRYPT_INIT, u64(self.session) + mechanism(kind) + u64(key))

    def sign_arguments(self, data: bytes, room: int = 1024) -> bytes:
        return u64(self.session) + byte_array(data) + u32(room)


@pytest.fixture
def caller() -> Caller:
    return Caller()


def finished(use: KeyUse, result: bytes, rv: int = Rv.OK) -> Reply:
    return parse_reply(5, use.done(rv, result)[12:])


# --- without keys -----------------------------------------------------------------------------------------


def test_slot_and_token_are_described(caller: Caller) -> None:
    assert caller.ok(Call.INITIALIZE) == b""
    assert len(caller.ok(Call.GET_INFO)) == 2 + 36 + 8 + 36 + 2
    assert caller.ok(Call.GET_SLOT_LIST, b"\1" + u32(0)) == b"\0" + u32(1)
    assert caller.ok(Call.GET_SLOT_LIST, b"\1" + u32(4)) == b"\1" + u32(1) + u64(1)
    assert len(caller.ok(Call.GET_SLOT_INFO, u64(1))) == 68 + 36 + 8 + 4
    info = caller.ok(Call.GET_TOKEN_INFO, u64(1))
    assert info.startswith(u32(32) + b"locum".ljust(32))
    assert len(info) == 36 + 36 + 20 + 20 + 11 * 8 + 4 + 20


@pytest.mark.parametrize("call", [Call.GET_SLOT_INFO, Call.GET_TOKEN_INFO, Call.GET_MECHANISM_LIST])
def test_there_is_one_slot(caller: Caller, call: Call) -> None:
    assert caller.rv(call, u64(2) + u32(0)) == Rv.SLOT_ID_INVALID


@pytest.mark.parametrize("call", [0, 9, 14, 20, 30, 37, 46, 58, 60, 62, 65, 66, 87, 0xFFFFFFFF])
def test_every_other_call_is_answered_as_not_supported(caller: Caller, call: int) -> None:
    assert caller.rv(call, bytes(64)) == Rv.FUNCTION_NOT_SUPPORTED


@pytest.mark.parametrize("call", [each for each in Call if each not in (1, 2, 3)])
def test_a_call_that_breaks_off_is_answered_too(caller: Caller, call: Call) -> None:
    assert caller.rv(call, b"\0\0") == Rv.ARGUMENTS_BAD


def test_what_is_no_message_is_an_error(caller: Caller) -> None:
    with pytest.raises(DecodeError):
        caller.conversation.handle(5, b"\0\0")


def test_sessions_open_and_close(caller: Caller) -> None:
    other = caller.ok(Call.OPEN_SESSION, u64(1) + u64(6))
    assert caller.ok(Call.GET_SESSION_INFO, other) == u64(1) + u64(2) + u64(6) + u64(0)
    assert caller.ok(Call.GET_SESSION_INFO, u64(caller.session)) == u64(1) + u64(0) + u64(4) + u64(0)
    caller.ok(Call.LOGIN, other + u64(1) + byte_array(b"1234"))
    caller.ok(Call.LOGOUT, other)
    caller.ok(Call.CLOSE_SESSION, other)
    assert caller.rv(Call.CLOSE_SESSION, other) == Rv.SESSION_HANDLE_INVALID
    caller.ok(Call.CLOSE_ALL_SESSIONS, u64(1))
    assert caller.rv(Call.GET_SESSION_INFO, u64(caller.session)) == Rv.SESSION_HANDLE_INVALID


def test_sessions_are_bounded(caller: Caller) -> None:
    for _ in range(MAX_SESSIONS - 1):
        caller.ok(Call.OPEN_SESSION, u64(1) + u64(4))
    assert caller.rv(Call.OPEN_SESSION, u64(1) + u64(4)) == Rv.SESSION_COUNT
    caller.ok(Call.FINALIZE)
    caller.ok(Call.OPEN_SESSION, u64(1) + u64(4))


def test_random_bytes_are_given_up_to_a_limit(caller: Caller) -> None:
    first, second = (caller.ok(Call.GENERATE_RANDOM, u64(caller.session) + u32(32)) for _ in range(2))
    assert first[:5] == b"\1" + u32(32)
    assert first != second
    assert caller.rv(Call.GENERATE_RANDOM, u64(caller.session) + u32(MAX_RANDOM + 1)) == Rv.ARGUMENTS_BAD
    assert caller.ok(Call.SEED_RANDOM, u64(caller.session) + byte_array(b"seed")) == b""


# --- objects ----------------------------------------------------------------------------------------------


def test_objects_are_found_by_any_attribute(caller: Caller) -> None:
    session = u64(caller.session)
    template = u32(1) + u32(Attribute.LABEL) + b"\1" + u32(2) + u32(2) + b"ec"
    caller.ok(Call.FIND_OBJECTS_INIT, session + template)
    assert caller.rv(Call.FIND_OBJECTS_INIT, session + template) == Rv.OPERATION_ACTIVE
    assert caller.ok(Call.FIND_OBJECTS, session + u32(1)) == b"\1" + u32(1) + u64(HANDLES.ec)
    assert caller.ok(Call.FIND_OBJECTS, session + u32(9)) == b"\1" + u32(1) + u64(HANDLES.ec_public)
    assert caller.ok(Call.FIND_OBJECTS, session + u32(9)) == b"\1" + u32(0)
    caller.ok(Call.FIND_OBJECTS_FINAL, session)
    assert caller.rv(Call.FIND_OBJECTS, session + u32(1)) == Rv.OPERATION_NOT_INITIALIZED
    assert caller.rv(Call.FIND_OBJECTS_FINAL, session) == Rv.OPERATION_NOT_INITIALIZED


def wanted(*items: tuple[int, int]) -> bytes:
    return u32(len(items)) + b"".join(u32(kind) + u32(room) for kind, room in items)


def test_attributes_are_shown(caller: Caller) -> None:
    question = (
        u64(caller.session) + u64(HANDLES.rsa) + wanted((Attribute.MODULUS, 0), (Attribute.PUBLIC_EXPONENT, 8))
    )
    modulus = u32(0x120) + b"\1" + u32(256) + b"\xff" * 4
    exponent = u32(0x122) + b"\1" + u32(3) + u32(3) + b"\1\0\1"
    assert caller.ok(Call.GET_ATTRIBUTE_VALUE, question) == u32(2) + modulus + exponent + u64(Rv.OK)
    assert (
        caller.rv(Call.GET_ATTRIBUTE_VALUE, u64(caller.session) + u64(99) + wanted()) == Rv.OBJECT_HANDLE_INVALID
    )


@pytest.mark.parametrize(
    ("handle", "kind", "room", "rv"),
    [
        (HANDLES.rsa, 0x123, 512, Rv.ATTRIBUTE_SENSITIVE),
        (HANDLES.ec, 0x11, 512, Rv.ATTRIBUTE_SENSITIVE),
        (HANDLES.ec_public, 0x11, 512, Rv.ATTRIBUTE_TYPE_INVALID),
        (HANDLES.rsa, 0x180, 512, Rv.ATTRIBUTE_TYPE_INVALID),
        (HANDLES.rsa, Attribute.MODULUS, 255, Rv.BUFFER_TOO_SMALL),
    ],
)
def test_attributes_that_are_not_shown_say_why(caller: Caller, handle: int, kind: int, room: int, rv: Rv) -> None:
    question = u64(caller.session) + u64(handle) + wanted((kind, room))
    assert caller.ok(Call.GET_ATTRIBUTE_VALUE, question) == u32(1) + u32(kind) + b"\0" + u64(rv)


def test_mechanisms_depend_on_the_permissions() -> None:
    def listed(caller: Caller) -> set[int]:
        data = caller.ok(Call.GET_MECHANISM_LIST, u64(1) + u32(64))
        return {int.from_bytes(data[start : start + 8], "big") for start in range(5, len(data), 8)}

    assert {Mechanism.RSA_PKCS, Mechanism.ECDSA, Mechanism.ECDSA_SHA256} <= listed(Caller())
    bound = listed(Caller(raw=False))
    assert not {Mechanism.RSA_PKCS, Mechanism.ECDSA} & bound
    assert {Mechanism.ECDSA_SHA256, Mechanism.SHA256_RSA_PKCS_PSS} <= bound
    info = Caller().ok(Call.GET_MECHANISM_INFO, u64(1) + u64(Mechanism.RSA_PKCS))
    assert info == u64(2048) + u64(8192) + u64(0xA00)
    assert Caller(raw=False).rv(Call.GET_MECHANISM_INFO, u64(1) + u64(Mechanism.ECDSA)) == Rv.MECHANISM_INVALID


# --- signatures -------------------------------------------------------------------------------------------


def test_a_signature_is_asked_for_and_given(caller: Caller) -> None:
    assert caller.sign_init(Mechanism.ECDSA, HANDLES.ec) == Rv.OK
    use = caller.use(Call.SIGN, caller.sign_arguments(DIGEST))
    assert (use.task, use.scheme, use.data) == (Task.SIGN_DIGEST, "ECDSA_SECP256R1_SHA256", DIGEST)
    assert finished(use, bytes(64)) == Reply(5, Rv.OK, b"\1" + u32(64) + bytes(64))
    assert caller.rv(Call.SIGN, caller.sign_arguments(DIGEST)) == Rv.OPERATION_NOT_INITIALIZED


def test_a_question_for_the_length_leaves_the_operation_active(caller: Caller) -> None:
    caller.sign_init(Mechanism.RSA_PKCS_PSS, HANDLES.rsa, SHA256_PSS)
    for room in (0, 255):
        assert caller.ok(Call.SIGN, caller.sign_arguments(DIGEST, room)) == b"\0" + u32(256)
    assert caller.use(Call.SIGN, caller.sign_arguments(DIGEST, 256)).scheme == "RSA_PSS_RSAE_SHA256"


def test_a_content_may_come_in_pieces(caller: Caller) -> None:
    caller.sign_init(Mechanism.ECDSA_SHA256, HANDLES.ec)
    for piece in (b"one ", b"two"):
        caller.ok(Call.SIGN_UPDATE, u64(caller.session) + byte_array(piece))
    assert caller.ok(Call.SIGN_FINAL, u64(caller.session) + u32(0)) == b"\0" + u32(64)
    use = caller.use(Call.SIGN_FINAL, u64(caller.session) + u32(64))
    assert (use.task, use.data) == (Task.SIGN_CONTENT, b"one two")


def test_a_content_in_pieces_is_bounded(caller: Caller) -> None:
    caller.sign_init(Mechanism.ECDSA_SHA256, HANDLES.ec)
    caller.ok(Call.SIGN_UPDATE, u64(caller.session) + byte_array(bytes(MAX_CONTENT)))
    assert caller.rv(Call.SIGN_UPDATE, u64(caller.session) + byte_array(b"x")) == Rv.DATA_LEN_RANGE
    assert caller.rv(Call.SIGN_FINAL, u64(caller.session) + u32(64)) == Rv.OPERATION_NOT_INITIALIZED


@pytest.mark.parametrize(
    ("kind", "key", "rv"),
    [
        (3, HANDLES.rsa, Rv.MECHANISM_INVALID),
        (Mechanism.ECDSA, HANDLES.rsa, Rv.KEY_TYPE_INCONSISTENT),
        (Mechanism.RSA_PKCS, HANDLES.ec, Rv.KEY_TYPE_INCONSISTENT),
        (Mechanism.RSA_PKCS, HANDLES.rsa_public, Rv.KEY_HANDLE_INVALID),
        (Mechanism.RSA_PKCS, 99, Rv.KEY_HANDLE_INVALID),
    ],
    ids=["RSA_X_509", "ECDSA with RSA", "RSA with EC", "public key", "no key"],
)
def test_what_does_not_fit_is_refused_at_once(caller: Caller, kind: int, key: int, rv: Rv) -> None:
    assert caller.sign_init(kind, key) == rv


@pytest.mark.parametrize(
    ("kind", "key", "parameters"),
    [
        (Mechanism.ECDSA, HANDLES.ec, None),
        (Mechanism.RSA_PKCS, HANDLES.rsa, None),
        (Mechanism.RSA_PKCS_PSS, HANDLES.rsa, SHA256_PSS),
    ],
)
def test_without_the_raw_permission_no_digest_is_signed(
    kind: int, key: int, parameters: tuple[int, int, int] | None
) -> None:
    assert Caller(raw=False).sign_init(kind, key, parameters) == Rv.KEY_FUNCTION_NOT_PERMITTED


def test_a_failed_use_of_the_key_is_the_answer(caller: Caller) -> None:
    caller.sign_init(Mechanism.ECDSA, HANDLES.ec)
    use = caller.use(Call.SIGN, caller.sign_arguments(DIGEST))
    assert finished(use, b"", Rv.DEVICE_ERROR) == Reply(5, Rv.DEVICE_ERROR)
    assert caller.sign_init(Mechanism.ECDSA, HANDLES.ec) == Rv.OK


# --- decryption -------------------------------------------------------------------------------------------

CIPHERTEXT = bytes(RSA.key_size // 8)


def test_a_message_is_decrypted(caller: Caller) -> None:
    assert caller.decrypt_init() == Rv.OK
    assert caller.ok(Call.DECRYPT, caller.sign_arguments(CIPHERTEXT, 0)) == b"\0" + u32(245)
    use = caller.use(Call.DECRYPT, caller.sign_arguments(CIPHERTEXT, 245))
    assert (use.task, use.data, use.scheme) == (Task.DECRYPT, CIPHERTEXT, "")
    assert finished(use, b"secret") == Reply(5, Rv.OK, b"\1" + u32(6) + b"secret")
    assert caller.rv(Call.DECRYPT, caller.sign_arguments(CIPHERTEXT)) == Rv.OPERATION_NOT_INITIALIZED


def test_a_message_that_found_no_room_is_kept_and_not_decrypted_again(caller: Caller) -> None:
    caller.decrypt_init()
    use = caller.use(Call.DECRYPT, caller.sign_arguments(CIPHERTEXT, 3))
    assert finished(use, b"secret") == Reply(5, Rv.OK, b"\0" + u32(6))
    assert caller.ok(Call.DECRYPT, caller.sign_arguments(CIPHERTEXT, 6)) == b"\1" + u32(6) + b"secret"
    assert caller.rv(Call.DECRYPT, caller.sign_arguments(CIPHERTEXT)) == Rv.OPERATION_NOT_INITIALIZED


def test_a_ciphertext_may_come_in_pieces(caller: Caller) -> None:
    caller.decrypt_init()
    for piece in (CIPHERTEXT[:100], CIPHERTEXT[100:]):
        assert caller.ok(Call.DECRYPT_UPDATE, caller.sign_arguments(piece, 300)) == b"\1" + u32(0)
    assert caller.use(Call.DECRYPT_FINAL, u64(caller.session) + u32(300)).data == CIPHERTEXT


def test_what_cannot_be_decrypted_is_refused(caller: Caller) -> None:
    assert caller.decrypt_init(3) == Rv.MECHANISM_INVALID
    assert caller.decrypt_init(key=HANDLES.ec) == Rv.KEY_TYPE_INCONSISTENT
    assert Caller(raw=False).decrypt_init() == Rv.KEY_FUNCTION_NOT_PERMITTED
    caller.decrypt_init()
    assert caller.rv(Call.DECRYPT, caller.sign_arguments(CIPHERTEXT[1:])) == Rv.ENCRYPTED_DATA_LEN_RANGE
