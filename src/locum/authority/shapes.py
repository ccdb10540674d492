"""What the messages of every protocol have in common in CBOR: a peer's chain, the verdict on it, and limits.

Never knows one protocol's operations, nor any public-key algorithm.
"""

from __future__ import annotations

from typing import Any

from locum.errors import DecodeError
from locum.handshake import MAX_CERTIFICATES, MAX_CHAIN, Fault, PeerChain, Verdict
from locum.wire.cbor import FLAG, Kind, Shape, blobs, codes, integer, member, text

#: Code points in one list.
MAX_CODES = 128
#: A server name or an address, in bytes of UTF-8.
MAX_NAME = 255
#: The identity of a verdict: of a distinguished name in DER every byte may take three in its textual form.
MAX_IDENTITY = 3 * 2048 + 8
#: The reason of a verdict or the text of an error, in bytes of UTF-8; longer ones are cut when written.
MAX_TEXT = 512
#: Certification authorities in a certificate request: their number, and the bytes of one distinguished name.
MAX_AUTHORITIES = 512
MAX_DISTINGUISHED_NAME = 2048
#: A signature; ML-DSA-87 is 4,627 bytes.
MAX_SIGNATURE = 8192

CODE = integer(0xFFFF)
CODES = codes(MAX_CODES)
CERTIFICATES = blobs(MAX_CERTIFICATES, MAX_CHAIN, MAX_CHAIN)
AUTHORITIES = blobs(MAX_AUTHORITIES, MAX_DISTINGUISHED_NAME, MAX_CHAIN)


# --- the chain --------------------------------------------------------------------------------------------


def _encode_chain(chain: PeerChain) -> list[bytes]:
    """The body of a chain: the OCSP response, which may be empty, and the certificates; nothing for no chain."""
    return [chain.ocsp_response, *chain.certificates] if chain.certificates else []


def _decode_chain(value: Any) -> PeerChain:
    if type(value) is PeerChain:
        return value  # found by its digest
    if type(value) is not list or not 2 <= len(value) <= MAX_CERTIFICATES + 1:
        raise DecodeError(f"an OCSP response and 1 to {MAX_CERTIFICATES} certificates expected")
    for item in value:
        if type(item) is not bytes:
            raise DecodeError("a certificate chain of byte strings expected")
    if sum(map(len, value)) > MAX_CHAIN or not all(value[1:]):
        raise DecodeError(f"a certificate chain of at most {MAX_CHAIN} bytes and no empty certificate expected")
    return PeerChain(tuple(value[1:]), value[0])


def _decode_chain_or_none(value: Any) -> PeerChain:
    return PeerChain(()) if value == [] else _decode_chain(value)


#: At least one certificate.
CHAIN = Kind(_decode_chain, _encode_chain)
#: The same, or an empty array for a peer that proves itself without certificates.
CHAIN_OR_NONE = Kind(_decode_chain_or_none, _encode_chain)


# --- the verdict ------------------------------------------------------------------------------------------


class _VerdictShape(Shape):
    """As every shape, but that both results are good is not written: the two are left out, or neither."""

    __slots__ = ()

    def encode(self, message: Any, context: Any = None) -> dict[int, Any]:
        encoded = super().encode(message, context)
        if message.accepted:
            del encoded[1], encoded[2]
        return encoded

    def decode(self, encoded: dict[Any, Any], context: Any = None) -> Any:
        if 1 not in encoded and 2 not in encoded:
            encoded = encoded | {1: True, 2: True}
        return super().decode(encoded, context)


VERDICT_FIELDS = {
    1: ("authentic", FLAG),
    2: ("allowed", FLAG),
    3: ("identity", text(MAX_IDENTITY)),
    4: ("reason", text(MAX_TEXT, cut=True)),
    5: ("fault", member(Fault)),
}
VERDICT = _VerdictShape(Verdict, 6, VERDICT_FIELDS)
