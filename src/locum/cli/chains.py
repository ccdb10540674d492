"""Certificate chains that a user names, in PEM: read, put in order, and looked at for what will not work.

Never decides whom a certificate proves; that is for whoever it is shown to.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from locum.cli.output import warn
from locum.cli.pem import read_blocks
from locum.errors import ConfigurationError, LocumError
from locum.handshake import MAX_CERTIFICATES

if TYPE_CHECKING:
    from cryptography import x509


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Every certificate in `path`, 1 to 10; ConfigurationError when one cannot be read."""
    from locum.crypto.asymmetric.certificates import load_anchors

    blocks = [block for block in read_blocks(path) if block.label == "CERTIFICATE"]
    if not 1 <= len(blocks) <= MAX_CERTIFICATES:
        raise ConfigurationError(
            f"{path}: 1 to {MAX_CERTIFICATES} certificates are needed, and there are {len(blocks)}"
        )
    try:
        return [load_anchors(block.data)[0] for block in blocks]
    except LocumError:
        raise ConfigurationError(f"{path}: a certificate in it cannot be read") from None


def chain_of(path: Path, certificates: Sequence[x509.Certificate], public_key: bytes) -> list[x509.Certificate]:
    """The chain from the certificate of `public_key` upwards, whatever its order in the file was."""
    from locum.crypto.asymmetric.certificates import public_key_of

    own = next((each for each in certificates if public_key_of(each) == public_key), None)
    if own is None:
        raise ConfigurationError(f"{path}: the private key belongs to no certificate in it")
    return _ordered(path, own, certificates)


def chain_in(path: Path, certificates: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The chain from the certificate upwards that has issued none of the others, whatever its order was."""
    lowest = (
        each
        for each in certificates
        if not any(_has_issued(each, other) for other in certificates if other is not each)
    )
    own = next(lowest, certificates[0])
    return _ordered(path, own, certificates)


def _ordered(
    path: Path, own: x509.Certificate, certificates: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    chain, rest = [own], [each for each in certificates if each is not own]
    while rest:
        issuer = next((each for each in rest if _has_issued(each, chain[-1])), None)
        if issuer is None:
            stranger = rest[0].subject.rfc4514_string()
            raise ConfigurationError(
                f"{path}: {stranger} is not in the chain above {own.subject.rfc4514_string()}"
            )
        chain.append(issuer)
        rest.remove(issuer)
    return chain


def _has_issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def warn_unfit(
    chain: Sequence[x509.Certificate], purposes: Collection[x509.ObjectIdentifier], meant_for: str
) -> None:
    """Warn of certificates that are not valid now, and of one that has none of the `purposes` it is for."""
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    for certificate in chain:
        subject = certificate.subject.rfc4514_string()
        if certificate.not_valid_after_utc < now:
            warn(f"{subject} expired on {certificate.not_valid_after_utc:%Y-%m-%d}")
        if certificate.not_valid_before_utc > now:
            warn(f"{subject} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}")
    try:
        found = chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return
    if not set(purposes) & set(found):
        warn(f"{chain[0].subject.rfc4514_string()} is meant {meant_for} (extendedKeyUsage)")
