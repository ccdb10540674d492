"""The chosen method (A1 start): what of a terminal's offer goes into its ClientHello, and in which order.

Knows code points and preferences, no cryptography and no policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from locum.errors import ConfigurationError, Refused
from locum.tls.operations import KeyForm, StartRequest
from locum.tls.registry import (
    CIPHER_SUITES,
    HYBRID_GROUPS,
    KeyExchange,
    NamedGroup,
    ProtocolVersion,
    SignatureScheme,
    group_name,
)
from locum.values import dataclass

#: Choices remembered: the terminals of one delegate make few different offers.
_CACHED = 256

_TLS_1_2, _TLS_1_3 = ProtocolVersion.TLS_1_2, ProtocolVersion.TLS_1_3

#: The groups that a terminal gets when it does not say otherwise, the most preferred first: the cheapest on both
#: ends, then the post-quantum hybrid, which costs 2.3 KB on the wire and is one HelloRetryRequest away.
DEFAULT_GROUPS: tuple[int, ...] = (
    NamedGroup.X25519,
    NamedGroup.SECP256R1,
    NamedGroup.X25519MLKEM768,
    NamedGroup.SECP384R1,
    NamedGroup.SECP256R1MLKEM768,
    NamedGroup.X448,
    NamedGroup.FFDHE2048,
    NamedGroup.FFDHE3072,
    NamedGroup.FFDHE4096,
)

#: Groups that only TLS 1.2 uses here (RFC 7919), and the bits of their primes.
FINITE_FIELD_BITS: dict[int, int] = {
    NamedGroup.FFDHE2048: 2048,
    NamedGroup.FFDHE3072: 3072,
    NamedGroup.FFDHE4096: 4096,
    NamedGroup.FFDHE6144: 6144,
    NamedGroup.FFDHE8192: 8192,
}
FINITE_FIELD_GROUPS: frozenset[int] = frozenset(FINITE_FIELD_BITS)

#: What peers may sign with. PKCS#1 v1.5 is for TLS 1.2 handshakes and, in both versions, for certificates.
_SCHEMES: tuple[int, ...] = (
    SignatureScheme.ECDSA_SECP256R1_SHA256,
    SignatureScheme.ED25519,
    SignatureScheme.RSA_PSS_RSAE_SHA256,
    SignatureScheme.ECDSA_SECP384R1_SHA384,
    SignatureScheme.RSA_PSS_RSAE_SHA384,
    SignatureScheme.ECDSA_SECP521R1_SHA512,
    SignatureScheme.RSA_PSS_RSAE_SHA512,
    SignatureScheme.ED448,
    SignatureScheme.RSA_PSS_PSS_SHA256,
    SignatureScheme.RSA_PSS_PSS_SHA384,
    SignatureScheme.RSA_PSS_PSS_SHA512,
    SignatureScheme.RSA_PKCS1_SHA256,
    SignatureScheme.RSA_PKCS1_SHA384,
    SignatureScheme.RSA_PKCS1_SHA512,
)
#: ML-DSA exists in TLS 1.3 only.
_SCHEMES_1_3: tuple[int, ...] = (
    SignatureScheme.MLDSA44,
    SignatureScheme.MLDSA65,
    SignatureScheme.MLDSA87,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOptions:
    """What a node's configuration allows, in its order of preference (for suites: the registry's order).

    Raises: ConfigurationError when something is empty or not implemented.
    """

    versions: tuple[int, ...] = (_TLS_1_3, _TLS_1_2)
    cipher_suites: tuple[int, ...] = tuple(CIPHER_SUITES)
    groups: tuple[int, ...] = DEFAULT_GROUPS
    key_forms: tuple[KeyForm, ...] = (KeyForm.SECRET, KeyForm.KEYS)

    def __post_init__(self) -> None:
        known: tuple[tuple[str, Sequence[int], Sequence[int]], ...] = (
            ("version", self.versions, tuple(ProtocolVersion)),
            ("cipher suite", self.cipher_suites, tuple(CIPHER_SUITES)),
            ("group", self.groups, tuple(NamedGroup)),
            ("key form", self.key_forms, tuple(KeyForm)),
        )
        for what, chosen, possible in known:
            unknown = [code for code in chosen if code not in possible]
            if unknown or not chosen:
                raise ConfigurationError(
                    f"{what}s: {unknown or 'none'}; possible are {[int(c) for c in possible]}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """The choice: as `StartResponse`, before a key share is made. `key_share_group` is 0 when none is needed."""

    versions: tuple[int, ...]
    cipher_suites: tuple[int, ...]
    groups: tuple[int, ...]
    signature_schemes: tuple[int, ...]
    key_share_group: int
    key_form: KeyForm


def choose(request: StartRequest, options: LocalOptions) -> Method:
    """Choose the method for a terminal's offer. Raises: Refused when nothing is left of it."""
    return _choose(request.versions, request.cipher_suites, request.groups, request.key_forms, options)


@lru_cache(_CACHED)
def _choose(
    offered_versions: tuple[int, ...],
    offered_suites: tuple[int, ...],
    offered_groups: tuple[int, ...],
    key_forms: tuple[KeyForm, ...],
    options: LocalOptions,
) -> Method:
    versions = tuple(version for version in offered_versions if version in options.versions)
    suites = tuple(
        code
        for code, suite in CIPHER_SUITES.items()
        if code in offered_suites and code in options.cipher_suites and suite.version in versions
    )
    # A version without a suite cannot be negotiated, so it must not be offered.
    versions = tuple(v for v in versions if any(CIPHER_SUITES[code].version == v for code in suites))
    if not versions:
        raise Refused("the terminal's offer and this delegate have no version or no cipher suite in common")
    groups = _groups(offered_groups, options, versions, suites)
    share = next((group for group in groups if group not in FINITE_FIELD_GROUPS), 0) if _TLS_1_3 in versions else 0
    if _TLS_1_3 in versions and not share:
        raise Refused("the terminal's offer and this delegate have no group for TLS 1.3 in common")
    form = next((form for form in options.key_forms if form in key_forms), None)
    if form is None:
        raise Refused("the terminal and this delegate have no key form in common")
    return Method(
        versions=versions,
        cipher_suites=suites,
        groups=groups,
        signature_schemes=_SCHEMES + _SCHEMES_1_3 if _TLS_1_3 in versions else _SCHEMES,
        key_share_group=share,
        key_form=form,
    )


def _groups(
    offered: tuple[int, ...], options: LocalOptions, versions: tuple[int, ...], suites: tuple[int, ...]
) -> tuple[int, ...]:
    """The groups in order; Refused when the terminal named only groups that are not allowed."""
    ordered = [g for g in offered if g in options.groups] if offered else options.groups
    finite = any(CIPHER_SUITES[code].key_exchange is KeyExchange.DHE for code in suites)
    groups = tuple(
        group
        for group in dict.fromkeys(ordered)
        if (group not in FINITE_FIELD_GROUPS or finite) and (group not in HYBRID_GROUPS or _TLS_1_3 in versions)
    )
    if not groups:
        named = ", ".join(group_name(group) for group in offered or options.groups)
        raise Refused(f"of the groups {named} none can be used here")
    return groups
