"""The one token that clients see: its objects and their handles, its slot and its mechanisms.

Never knows a client or a session. The objects come from a worker and may change; a handle keeps its object.
"""

from __future__ import annotations

from collections.abc import Sequence

from locum.edge.p11 import wire
from locum.edge.p11.errands import TokenObject
from locum.edge.p11.mechanisms import SIGNING, Failed
from locum.edge.p11.registry import (
    SECRET_ATTRIBUTES,
    TOKEN_PRESENT,
    UNAVAILABLE_INFORMATION,
    Attribute,
    KeyType,
    Rv,
    TokenFlag,
)
from locum.edge.p11.wire import Value, text, ulong

SLOT = 1
LABEL = "locum"
#: RSA and elliptic-curve key sizes, in bits, that mechanisms are said to take.
_SIZES = {KeyType.RSA: (2048, 8192), KeyType.EC: (256, 521)}

_CRYPTOKI_VERSION = b"\x02\x28"
_OWN_VERSION = b"\x00\x01"

#: What tells one object from every other.
_IDENTITY = (Attribute.CLASS, Attribute.ID, Attribute.LABEL)


class Token:
    """Everything that calls without a session, and searches, are answered from."""

    def __init__(self) -> None:
        self._objects: dict[int, TokenObject] = {}
        self._handles: dict[tuple[int | bytes, ...], int] = {}

    @property
    def key_count(self) -> int:
        """Number of private keys."""
        return sum(1 for each in self._objects.values() if each.ski)

    def replace(self, objects: Sequence[TokenObject]) -> None:
        """These are the objects from now on. One that was there before keeps its handle, also after an absence."""
        self._objects = {self._handle(each): each for each in objects}

    def _handle(self, item: TokenObject) -> int:
        identity = tuple(item.attributes[kind] for kind in _IDENTITY)
        return self._handles.setdefault(identity, len(self._handles) + 1)

    def find(self, template: Sequence[tuple[int, Value]]) -> list[int]:
        """Handles of the objects that have every attribute of the template."""
        return [
            handle
            for handle, item in self._objects.items()
            if all(value is not None and item.attributes.get(kind) == value for kind, value in template)
        ]

    def private_key(self, handle: int) -> TokenObject:
        """The private key with this handle. Raises: Failed."""
        item = self._objects.get(handle)
        if item is None or not item.ski:
            raise Failed(Rv.KEY_HANDLE_INVALID)
        return item

    def attributes(self, handle: int, wanted: Sequence[tuple[int, int]]) -> bytes:
        """The results of C_GetAttributeValue. Raises: Failed."""
        item = self._objects.get(handle)
        if item is None:
            raise Failed(Rv.OBJECT_HANDLE_INVALID)
        rv = Rv.OK
        items = []
        for kind, room in wanted:
            value = item.attributes.get(kind)
            if value is None:
                secret = item.ski and kind in SECRET_ATTRIBUTES
                rv = Rv.ATTRIBUTE_SENSITIVE if secret else Rv.ATTRIBUTE_TYPE_INVALID
                items.append(wire.no_attribute(kind))
            elif room and room < wire.attribute_length(kind, value):
                rv = Rv.BUFFER_TOO_SMALL
                items.append(wire.no_attribute(kind))
            else:
                items.append(wire.attribute(kind, value, room))
        return wire.attributes(items, rv)

    def mechanisms(self) -> list[int]:
        """The mechanisms that some key here can be used with.

        CKM_RSA_PKCS_PSS is always among those of RSA: pkcs11-provider looks for it before it uses one with a hash.
        """
        keys = {(each.attributes[Attribute.KEY_TYPE], each.raw) for each in self._objects.values() if each.ski}
        return [
            mechanism
            for mechanism, how in SIGNING.items()
            if (how.key_type, True) in keys or ((how.whole or how.pss) and (how.key_type, False) in keys)
        ]

    def mechanism_info(self, mechanism: int) -> bytes:
        """The results of C_GetMechanismInfo. Raises: Failed."""
        if mechanism not in self.mechanisms():
            raise Failed(Rv.MECHANISM_INVALID)
        how = SIGNING[mechanism]
        smallest, largest = _SIZES[how.key_type]
        return ulong(smallest) + ulong(largest) + ulong(how.flags)


def info() -> bytes:
    """The results of C_GetInfo."""
    return _CRYPTOKI_VERSION + text("locum", 32) + ulong(0) + text("locum PKCS#11 agent", 32) + _OWN_VERSION


def check_slot(slot: int) -> None:
    """Raise Failed unless `slot` is the one there is."""
    if slot != SLOT:
        raise Failed(Rv.SLOT_ID_INVALID)


def slot_info() -> bytes:
    """The results of C_GetSlotInfo."""
    versions = _OWN_VERSION * 2
    return text("locum key server", 64) + text("locum", 32) + ulong(TOKEN_PRESENT) + versions


def token_info() -> bytes:
    """The results of C_GetTokenInfo."""
    flags = TokenFlag.RNG | TokenFlag.WRITE_PROTECTED | TokenFlag.TOKEN_INITIALIZED
    sessions, pin_lengths, memory = (0, 0, 0, 0), (255, 0), (UNAVAILABLE_INFORMATION,) * 4
    return b"".join(
        (
            text(LABEL, 32),
            text("locum", 32),
            text("agent", 16),
            text("1", 16),
            ulong(flags),
            *map(ulong, (*sessions, *pin_lengths, *memory)),
            _OWN_VERSION * 2,
            text("", 16),
        )
    )
