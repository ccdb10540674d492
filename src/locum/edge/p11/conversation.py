"""One client's side of the token: its sessions, and the answer to each of its calls.

Does no input or output and uses no key. A call that needs one gives a `KeyUse`, whose answer is made when the
result is there; every other is answered at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from locum.edge.p11 import token as tokens
from locum.edge.p11 import wire
from locum.edge.p11.errands import Task, TokenObject
from locum.edge.p11.mechanisms import MAX_CONTENT, SIGNING, Failed, Signing, scheme_and_content, signing
from locum.edge.p11.registry import RW_SESSION, SERIAL_SESSION, Attribute, Call, KeyType, Mechanism, Rv
from locum.edge.p11.token import Token
from locum.edge.p11.wire import Arguments, ulong
from locum.errors import DecodeError

#: Sessions of one client, at most: a server opens one for each of its threads.
MAX_SESSIONS = 1024
#: Random bytes given at once, at most.
MAX_RANDOM = 16 * 1024
#: Longest ciphertext that is decrypted, in bytes: the largest RSA modulus that there is.
MAX_CIPHERTEXT = 1024
#: Bytes that PKCS#1 v1.5 padding takes at least.
_PADDING = 11

#: CK_STATE: read-only and read-write, both without a login.
_PUBLIC_SESSION = {False: 0, True: 2}


class _Signature:
    """C_SignInit has been called, and what came since."""

    __slots__ = ("content", "how", "key", "parameters")

    def __init__(self, key: TokenObject, how: Signing, parameters: tuple[int, int, int]) -> None:
        self.key, self.how, self.parameters = key, how, parameters
        self.content: bytearray | None = None


class _Decryption:
    """C_DecryptInit has been called; `message` is there once it is decrypted, when there was no room for it."""

    __slots__ = ("content", "key", "message")

    def __init__(self, key: TokenObject) -> None:
        self.key = key
        self.content: bytearray | None = None
        self.message: bytes | None = None


class _Session:
    __slots__ = ("decryption", "found", "signature", "writable")

    def __init__(self, writable: bool) -> None:
        self.writable = writable
        self.found: list[int] | None = None
        self.signature: _Signature | None = None
        self.decryption: _Decryption | None = None


class KeyUse:
    """A call that waits for a key to be used: what is to be done, and how the call is then answered.

    `scheme` is the IANA name of the signature scheme, empty to decrypt.
    """

    __slots__ = ("_call", "_code", "_results", "data", "scheme", "ski", "task")

    def __init__(
        self, results: Callable[[bytes], bytes], *, task: Task, ski: bytes, scheme: str, data: bytes
    ) -> None:
        self._results = results
        self.task, self.ski, self.scheme, self.data = task, ski, scheme, data
        self._code, self._call = 0, Call.SIGN

    def answers(self, code: int, call: Call) -> KeyUse:
        """Say which frame, and which call, this answers."""
        self._code, self._call = code, call
        return self

    def done(self, rv: int, result: bytes = b"") -> bytes:
        """The frame that answers the call, now that the key was used or, with an `rv` other than 0, was not."""
        if rv != Rv.OK:
            return wire.failure(self._code, rv)
        return wire.answer(self._code, self._call, self._results(result))


class Conversation:
    """Everything that one client has said and that still matters."""

    def __init__(self, token: Token) -> None:
        self._token = token
        self._sessions: dict[int, _Session] = {}
        self._last = 0

    def handle(self, code: int, message: bytes) -> bytes | KeyUse:
        """Answer one call: with the frame for it, or with the use of a key that it takes.

        Raises: DecodeError for a message that is none.
        """
        number, arguments = wire.parse_call(message)
        handler = _HANDLERS.get(number)
        if handler is None:
            return wire.failure(code, Rv.FUNCTION_NOT_SUPPORTED)
        try:
            results = handler(self, arguments)
        except Failed as failed:
            return wire.failure(code, failed.rv)
        except DecodeError:
            return wire.failure(code, Rv.ARGUMENTS_BAD)
        if isinstance(results, bytes):
            return wire.answer(code, Call(number), results)
        return results.answers(code, Call(number))

    def _session(self, arguments: Arguments) -> _Session:
        session = self._sessions.get(arguments.ulong())
        if session is None:
            raise Failed(Rv.SESSION_HANDLE_INVALID)
        return session

    # --- without a session --------------------------------------------------------------------------------

    def _initialize(self, arguments: Arguments) -> bytes:
        return b""

    def _finalize(self, arguments: Arguments) -> bytes:
        self._sessions.clear()
        return b""

    def _get_info(self, arguments: Arguments) -> bytes:
        return tokens.info()

    def _get_slot_list(self, arguments: Arguments) -> bytes:
        arguments.u8()  # with a token or without: there is one
        return wire.ulong_array((tokens.SLOT,), arguments.room())

    def _get_slot_info(self, arguments: Arguments) -> bytes:
        tokens.check_slot(arguments.ulong())
        return tokens.slot_info()

    def _get_token_info(self, arguments: Arguments) -> bytes:
        tokens.check_slot(arguments.ulong())
        return tokens.token_info()

    def _get_mechanism_list(self, arguments: Arguments) -> bytes:
        tokens.check_slot(arguments.ulong())
        return wire.ulong_array(self._token.mechanisms(), arguments.room())

    def _get_mechanism_info(self, arguments: Arguments) -> bytes:
        tokens.check_slot(arguments.ulong())
        return self._token.mechanism_info(arguments.ulong())

    # --- sessions -----------------------------------------------------------------------------------------

    def _open_session(self, arguments: Arguments) -> bytes:
        tokens.check_slot(arguments.ulong())
        flags = arguments.ulong()
        if not flags & SERIAL_SESSION:
            raise Failed(Rv.SESSION_PARALLEL_NOT_SUPPORTED)
        if len(self._sessions) >= MAX_SESSIONS:
            raise Failed(Rv.SESSION_COUNT)
        self._last += 1
        # A session for writing is given, as many programs ask for one without need; there is nothing to write.
        self._sessions[self._last] = _Session(bool(flags & RW_SESSION))
        return ulong(self._last)

    def _close_session(self, arguments: Arguments) -> bytes:
        if self._sessions.pop(arguments.ulong(), None) is None:
            raise Failed(Rv.SESSION_HANDLE_INVALID)
        return b""

    def _close_all_sessions(self, arguments: Arguments) -> bytes:
        tokens.check_slot(arguments.ulong())
        self._sessions.clear()
        return b""

    def _get_session_info(self, arguments: Arguments) -> bytes:
        session = self._session(arguments)
        flags = SERIAL_SESSION | (RW_SESSION if session.writable else 0)
        return ulong(tokens.SLOT) + ulong(_PUBLIC_SESSION[session.writable]) + ulong(flags) + ulong(0)

    def _login(self, arguments: Arguments) -> bytes:
        # The process has proven who it is by being there; a PIN that a program insists on giving is of no use.
        self._session(arguments)
        return b""

    # --- objects ------------------------------------------------------------------------------------------

    def _find_objects_init(self, arguments: Arguments) -> bytes:
        session = self._session(arguments)
        if session.found is not None:
            raise Failed(Rv.OPERATION_ACTIVE)
        session.found = self._token.find(arguments.template())
        return b""

    def _find_objects(self, arguments: Arguments) -> bytes:
        session, room = self._session(arguments), arguments.room()
        if session.found is None:
            raise Failed(Rv.OPERATION_NOT_INITIALIZED)
        given, session.found = session.found[:room], session.found[room:]
        return wire.ulong_array(given, max(room, 1))

    def _find_objects_final(self, arguments: Arguments) -> bytes:
        session = self._session(arguments)
        if session.found is None:
            raise Failed(Rv.OPERATION_NOT_INITIALIZED)
        session.found = None
        return b""

    def _get_attribute_value(self, arguments: Arguments) -> bytes:
        self._session(arguments)
        return self._token.attributes(arguments.ulong(), arguments.wanted())

    # --- signatures ---------------------------------------------------------------------------------------

    def _sign_init(self, arguments: Arguments) -> bytes:
        session = self._session(arguments)
        mechanism, parameters = arguments.mechanism()
        how = signing(mechanism, parameters)
        key = self._usable_key(arguments, how.key_type)
        if not how.whole and not key.raw:
            raise Failed(Rv.KEY_FUNCTION_NOT_PERMITTED)
        if session.signature is not None:
            raise Failed(Rv.OPERATION_ACTIVE)
        session.signature = _Signature(key, how, parameters)
        return b""

    def _usable_key(self, arguments: Arguments, key_type: KeyType) -> TokenObject:
        key = self._token.private_key(arguments.ulong())
        if key.attributes[Attribute.KEY_TYPE] != key_type:
            raise Failed(Rv.KEY_TYPE_INCONSISTENT)
        return key

    def _sign(self, arguments: Arguments) -> bytes | KeyUse:
        session, data, room = self._session(arguments), arguments.byte_array(), arguments.room()
        return self._finish_signature(session, data, room)

    def _sign_update(self, arguments: Arguments) -> bytes:
        session, data = self._session(arguments), arguments.byte_array()
        operation = session.signature
        if operation is None:
            raise Failed(Rv.OPERATION_NOT_INITIALIZED)
        content = operation.content = operation.content or bytearray()
        if len(content) + len(data) > MAX_CONTENT:
            session.signature = None
            raise Failed(Rv.DATA_LEN_RANGE)
        content += data
        return b""

    def _sign_final(self, arguments: Arguments) -> bytes | KeyUse:
        session, room = self._session(arguments), arguments.room()
        operation = session.signature
        data = b"" if operation is None or operation.content is None else bytes(operation.content)
        return self._finish_signature(session, data, room)

    def _finish_signature(self, session: _Session, data: bytes, room: int) -> bytes | KeyUse:
        operation = session.signature
        if operation is None:
            raise Failed(Rv.OPERATION_NOT_INITIALIZED)
        if room < operation.key.length:
            return wire.length_only(operation.key.length)  # the operation stays active
        session.signature = None
        scheme, content = scheme_and_content(operation.how, operation.parameters[0], data)
        return KeyUse(
            lambda signature: wire.byte_array(signature, room),
            task=Task.SIGN_CONTENT if operation.how.whole else Task.SIGN_DIGEST,
            ski=operation.key.ski,
            scheme=scheme,
            data=content,
        )

    # --- decryption ---------------------------------------------------------------------------------------

    def _decrypt_init(self, arguments: Arguments) -> bytes:
        session = self._session(arguments)
        mechanism, _ = arguments.mechanism()
        if mechanism != Mechanism.RSA_PKCS:
            raise Failed(Rv.MECHANISM_INVALID)
        key = self._usable_key(arguments, SIGNING[mechanism].key_type)
        if not key.raw:
            raise Failed(Rv.KEY_FUNCTION_NOT_PERMITTED)
        if session.decryption is not None:
            raise Failed(Rv.OPERATION_ACTIVE)
        session.decryption = _Decryption(key)
        return b""

    def _decrypt(self, arguments: Arguments) -> bytes | KeyUse:
        session, data, room = self._session(arguments), arguments.byte_array(), arguments.room()
        return self._finish_decryption(session, data, room)

    def _decrypt_update(self, arguments: Arguments) -> bytes:
        session, data, room = self._session(arguments), arguments.byte_array(), arguments.room()
        operation = session.decryption
        if operation is None:
            raise Failed(Rv.OPERATION_NOT_INITIALIZED)
        content = operation.content = operation.content or bytearray()
        if len(content) + len(data) > MAX_CIPHERTEXT:
            session.decryption = None
            raise Failed(Rv.ENCRYPTED_DATA_LEN_RANGE)
        content += data
        return wire.byte_array(b"", max(room, 1))

    def _decrypt_final(self, arguments: Arguments) -> bytes | KeyUse:
        session, room = self._session(arguments), arguments.room()
        operation = session.decryption
        data = b"" if operation is None or operation.content is None else bytes(operation.content)
        return self._finish_decryption(session, data, room)

    def _finish_decryption(self, session: _Session, data: bytes, room: int) -> bytes | KeyUse:
        operation = session.decryption
        if operation is None:
            raise Failed(Rv.OPERATION_NOT_INITIALIZED)
        if operation.message is not None:
            return _give_message(session, operation, room)
        if not room:
            return wire.length_only(operation.key.length - _PADDING)
        session.decryption = None
        if len(data) != operation.key.length:
            raise Failed(Rv.ENCRYPTED_DATA_LEN_RANGE)

        def results(message: bytes) -> bytes:
            operation.message = message
            return _give_message(session, operation, room)

        return KeyUse(results, task=Task.DECRYPT, ski=operation.key.ski, scheme="", data=data)

    # --- random -------------------------------------------------------------------------------------------

    def _seed_random(self, arguments: Arguments) -> bytes:
        self._session(arguments)
        return b""

    def _generate_random(self, arguments: Arguments) -> bytes:
        self._session(arguments)
        length = arguments.room()
        if length > MAX_RANDOM:
            raise Failed(Rv.ARGUMENTS_BAD)
        return wire.byte_array(os.urandom(length), max(length, 1))


def _give_message(session: _Session, operation: _Decryption, room: int) -> bytes:
    """A decrypted message, or its length where there is no room: then it is kept until the caller makes some."""
    message = operation.message or b""
    if len(message) > room:
        session.decryption = operation
        return wire.length_only(len(message))
    session.decryption = None
    return wire.byte_array(message, max(room, 1))


_HANDLERS: dict[int, Callable[[Conversation, Arguments], bytes | KeyUse]] = {
    Call.INITIALIZE: Conversation._initialize,
    Call.FINALIZE: Conversation._finalize,
    Call.GET_INFO: Conversation._get_info,
    Call.GET_SLOT_LIST: Conversation._get_slot_list,
    Call.GET_SLOT_INFO: Conversation._get_slot_info,
    Call.GET_TOKEN_INFO: Conversation._get_token_info,
    Call.GET_MECHANISM_LIST: Conversation._get_mechanism_list,
    Call.GET_MECHANISM_INFO: Conversation._get_mechanism_info,
    Call.OPEN_SESSION: Conversation._open_session,
    Call.CLOSE_SESSION: Conversation._close_session,
    Call.CLOSE_ALL_SESSIONS: Conversation._close_all_sessions,
    Call.GET_SESSION_INFO: Conversation._get_session_info,
    Call.LOGIN: Conversation._login,
    Call.LOGOUT: Conversation._login,
    Call.GET_ATTRIBUTE_VALUE: Conversation._get_attribute_value,
    Call.FIND_OBJECTS_INIT: Conversation._find_objects_init,
    Call.FIND_OBJECTS: Conversation._find_objects,
    Call.FIND_OBJECTS_FINAL: Conversation._find_objects_final,
    Call.DECRYPT_INIT: Conversation._decrypt_init,
    Call.DECRYPT: Conversation._decrypt,
    Call.DECRYPT_UPDATE: Conversation._decrypt_update,
    Call.DECRYPT_FINAL: Conversation._decrypt_final,
    Call.SIGN_INIT: Conversation._sign_init,
    Call.SIGN: Conversation._sign,
    Call.SIGN_UPDATE: Conversation._sign_update,
    Call.SIGN_FINAL: Conversation._sign_final,
    Call.SEED_RANDOM: Conversation._seed_random,
    Call.GENERATE_RANDOM: Conversation._generate_random,
}
