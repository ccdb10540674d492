"""A client of the p11-kit remote protocol, written for the tests: what `p11-kit-client.so` sends, and more."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from locum.edge.p11.registry import Call, Mechanism, ObjectClass, Rv

TIMEOUT = 60.0
SHA256_PSS = (0x250, 2, 32)


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def byte_array(data: bytes) -> bytes:
    return b"\1" + u32(len(data)) + data


def message(call: int, arguments: bytes = b"", signature: bytes = b"") -> bytes:
    return u32(call) + u32(len(signature)) + signature + arguments


def frame(code: int, content: bytes, options: bytes = b"") -> bytes:
    return struct.pack(">III", code, len(options), len(content)) + options + content


def mechanism(kind: int, parameters: tuple[int, int, int] | None = None) -> bytes:
    return u32(kind) + (b"".join(map(u64, parameters)) if parameters else b"\xff\xff\xff\xff")


@dataclass(frozen=True)
class Reply:
    """`rv` is 0 for an answer, whose results are in `data`."""

    code: int
    rv: int
    data: bytes = b""


def parse_reply(code: int, content: bytes) -> Reply:
    call, length = struct.unpack_from(">II", content)
    data = content[8 + length :]
    return Reply(code, int.from_bytes(data, "big")) if call == 0 else Reply(code, Rv.OK, data)


class Failure(Exception):
    def __init__(self, rv: int) -> None:
        super().__init__(f"0x{rv:x}")
        self.rv = rv


class P11Client:
    """One connection; each method is one call and raises `Failure`."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(str(path))
        self.socket.sendall(b"\0")
        assert self.read(1) == b"\0"
        self._code = 16

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> P11Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = self.socket.recv(length - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def send(self, call: int, arguments: bytes = b"") -> int:
        self._code += 1
        content = message(call, arguments)
        # As p11-kit does it: header and message in one write each.
        self.socket.sendall(struct.pack(">III", self._code, 0, len(content)))
        self.socket.sendall(content)
        return self._code

    def receive(self) -> Reply:
        code, options, length = struct.unpack(">III", self.read(12))
        assert options == 0
        return parse_reply(code, self.read(length))

    def call(self, call: int, arguments: bytes = b"") -> bytes:
        code = self.send(call, arguments)
        reply = self.receive()
        assert reply.code == code
        if reply.rv != Rv.OK:
            raise Failure(reply.rv)
        return reply.data

    def open_session(self) -> int:
        return int.from_bytes(self.call(Call.OPEN_SESSION, u64(1) + u64(4)), "big")

    def private_key(self, session: int, label: str) -> int:
        label_bytes = label.encode()
        template = (
            u32(2)
            + (u32(0) + b"\1" + u32(8) + u64(ObjectClass.PRIVATE_KEY))
            + (u32(3) + b"\1" + u32(len(label_bytes)) + u32(len(label_bytes)) + label_bytes)
        )
        self.call(Call.FIND_OBJECTS_INIT, u64(session) + template)
        found = self.call(Call.FIND_OBJECTS, u64(session) + u32(8))
        self.call(Call.FIND_OBJECTS_FINAL, u64(session))
        assert found[:5] == b"\1" + u32(1), found
        return int.from_bytes(found[5:], "big")

    def sign(
        self,
        session: int,
        key: int,
        kind: int,
        data: bytes,
        parameters: tuple[int, int, int] | None = None,
    ) -> bytes:
        self.call(Call.SIGN_INIT, u64(session) + mechanism(kind, parameters) + u64(key))
        result = self.call(Call.SIGN, u64(session) + byte_array(data) + u32(1024))
        assert result[:1] == b"\1"
        return result[5:]

    def decrypt(self, session: int, key: int, data: bytes) -> bytes:
        self.call(Call.DECRYPT_INIT, u64(session) + mechanism(Mechanism.RSA_PKCS) + u64(key))
        result = self.call(Call.DECRYPT, u64(session) + byte_array(data) + u32(1024))
        assert result[:1] == b"\1"
        return result[5:]
