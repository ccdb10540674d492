"""Implicit rejection for RSA: what comes out of a ciphertext that was not encrypted to the key (X3).

Never decrypts. Whatever is made here hangs on the key and the ciphertext alone, so that it is the same each time
and at every holder of the key: if it changed, asking twice would tell it from a message.
"""

from __future__ import annotations

import hashlib
import hmac

from locum.crypto.asymmetric.signatures import IKE_RSA_HASH
from locum.keys.port import PrivateKey

#: What is signed to have a secret of the key's own. Neither a digest nor a DigestInfo: nobody has it signed.
LABEL = b"locum: what is to be seen in place of messages that were none"
#: Bytes around a message in RSAES-PKCS1-v1_5 (RFC 8017 section 7.2.1): 00 02, at least eight of padding, 00.
OVERHEAD = 11


def rejection_secret(key: PrivateKey) -> bytes:
    """The secret, as long as the modulus, that every holder of this RSA key comes to. It costs one signature.

    RSASSA-PKCS1-v1_5 is deterministic, and the label is never signed on request. Raises: what `key.sign` raises.
    """
    return key.sign(IKE_RSA_HASH, LABEL)


def instead_of_pre_master(secret: bytes, ciphertext: bytes, version: bytes) -> bytes:
    """A pre-master secret, 48 bytes, that nobody can know (RFC 5246 section 7.4.7.1).

    `version`, which the client asked for, counts: else asking with two versions would show whether the secret
    that is really there begins with one of them.
    """
    return hmac.digest(secret, version + ciphertext, "sha384")


def instead_of_message(secret: bytes, ciphertext: bytes) -> bytes:
    """A message of any length that fits the modulus, which the ciphertext is as long as: `OVERHEAD` at least."""
    stream = hashlib.shake_256(secret + ciphertext).digest(8 + len(ciphertext))
    length = int.from_bytes(stream[:8], "big") % (len(ciphertext) - OVERHEAD + 1)
    return stream[8 : 8 + length]


def take_off_padding(block: bytes, instead: bytes) -> bytes:
    """The message in a decrypted block of RSAES-PKCS1-v1_5, or `instead` when the block is none.

    Both ways do the same work but for where the search ends, some nanoseconds among the hundreds of microseconds
    of a decryption.
    """
    end = block.find(b"\0", 2)
    found = block[end + 1 :]
    good = (block[0] == 0) & (block[1] == 2) & (end >= OVERHEAD - 1)
    return (instead, found)[good]
