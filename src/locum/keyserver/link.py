"""TLS between edges and the key server: mutual authentication by a CA of its own (C6).

Never knows what an edge may do: here it shows who it is, and no more.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from locum.errors import ConfigurationError
from locum.keys.link_pki import Issued, LinkIssuer, new_authority, pem_of
from locum.store import Store
from locum.store.records import LinkAuthority

#: What existing peers of the protocol speak below TLS 1.3.
CIPHERS_12 = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
#: The actor of what is made when it is first needed.
ACTOR = "keyserver"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkIdentity:
    """What the server shows to edges, and what it expects of them."""

    context: ssl.SSLContext
    not_after: float


def make_identity(store: Store, names: Sequence[str], *, now: float) -> LinkIdentity:
    """A new certificate for this server, which is reached by `names`, from the CA of the link.

    The CA is made where there is none yet. Its key is not kept. Raises: LocumError.
    """
    authority = store.internal.link_authority(lambda: _authority(now), actor=ACTOR)
    issued = LinkIssuer(authority.certificate, authority.private_key).server(names, now=now)
    return LinkIdentity(context=_context(issued, authority.certificate), not_after=issued.not_after)


def _authority(now: float) -> LinkAuthority:
    made = new_authority(now=now)
    return LinkAuthority(certificate=made.certificate, private_key=made.private_key)


def _context(issued: Issued, authority: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS_12)
    # Connections are long: tickets would be sent for nothing, and renegotiation is nobody's need.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=pem_of(authority).decode("ascii"))
    _load(context, issued.certificate_pem + issued.private_key_pem)
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Give certificate and key to OpenSSL, which takes them from files only: from one that is in memory."""
    descriptor = os.memfd_create("locum", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"the key server's certificate cannot be used: {error}") from None
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def fingerprint(connection: ssl.SSLObject | ssl.SSLSocket) -> str:
    """The SHA-256 of the certificate that the other end has shown, in hexadecimal; empty without one."""
    certificate = connection.getpeercert(binary_form=True)
    return hashlib.sha256(certificate).hexdigest() if certificate else ""
