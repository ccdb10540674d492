"""The names of algorithms as people write them: ``aes256gcm16-prfsha256-x25519``, and the policies they make.

Knows no payload and no peer. The words are those that other IPsec programs have in their configuration.

A proposal is words joined by hyphens, in any order; several proposals are separated by commas. What they name is
united, in the order of the text: the policy accepts every combination of it, none weaker than the weakest named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from locum.errors import ConfigurationError
from locum.ike import algorithms as alg
from locum.ike.algorithms import GROUPS, Encryption, Group, Integrity, Prf
from locum.ike.policy import ChildPolicy, IkePolicy, Phase1Policy
from locum.ike.registry import ADDITIONAL_KEY_EXCHANGES, AuthenticationMethod1, EncapsulationMode, ProtocolId

#: The longest text that is looked at, in characters, and the most proposals in it.
MAX_TEXT = 1024
MAX_PROPOSALS = 16

ENCRYPTION_NAMES: Mapping[str, Encryption] = {
    "aes128gcm16": alg.ENCR_AES_GCM_16_128,
    "aes128gcm": alg.ENCR_AES_GCM_16_128,
    "aes128gcm128": alg.ENCR_AES_GCM_16_128,
    "aes256gcm16": alg.ENCR_AES_GCM_16_256,
    "aes256gcm": alg.ENCR_AES_GCM_16_256,
    "aes256gcm128": alg.ENCR_AES_GCM_16_256,
    "chacha20poly1305": alg.ENCR_CHACHA20_POLY1305,
    "aes": alg.ENCR_AES_CBC_128,
    "aes128": alg.ENCR_AES_CBC_128,
    "aes192": alg.ENCR_AES_CBC_192,
    "aes256": alg.ENCR_AES_CBC_256,
    "null": alg.ENCR_NULL,
}

INTEGRITY_NAMES: Mapping[str, Integrity] = {
    "sha256": alg.AUTH_HMAC_SHA2_256_128,
    "sha2_256": alg.AUTH_HMAC_SHA2_256_128,
    "sha384": alg.AUTH_HMAC_SHA2_384_192,
    "sha2_384": alg.AUTH_HMAC_SHA2_384_192,
    "sha512": alg.AUTH_HMAC_SHA2_512_256,
    "sha2_512": alg.AUTH_HMAC_SHA2_512_256,
    "sha1": alg.AUTH_HMAC_SHA1_96,
    "sha": alg.AUTH_HMAC_SHA1_96,
}

PRF_NAMES: Mapping[str, Prf] = {
    "prfsha256": alg.PRF_HMAC_SHA2_256,
    "prfsha384": alg.PRF_HMAC_SHA2_384,
    "prfsha512": alg.PRF_HMAC_SHA2_512,
    "prfsha1": alg.PRF_HMAC_SHA1,
}

GROUP_NAMES: Mapping[str, Group] = {
    **{group.name: group for group in GROUPS.values()},
    "curve25519": alg.CURVE25519,
    "curve448": alg.CURVE448,
}

_SEQUENCE_NUMBERS = {"esn": True, "noesn": False}
#: ``ke1_mlkem768``: the first additional key exchange (RFC 9370).
_ADDITIONAL = tuple(f"ke{number}_" for number in range(1, len(ADDITIONAL_KEY_EXCHANGES) + 1))
_NO_GROUP = "none"

#: What other programs know, and nobody should use any more (RFC 8247, RFC 8221).
_NEVER = frozenset(
    {"des", "3des", "cast128", "idea", "blowfish", "blowfish128", "blowfish192", "blowfish256"}
    | {"md5", "md5_128", "prfmd5", "modp768", "modp1024", "modp1536", "modp1024s160", "modp2048s224"}
    | {"modp2048s256", "ecp192", "modpnone"}
)

_DEFAULT_IKE = IkePolicy()
_DEFAULT_CHILD = ChildPolicy()

T = TypeVar("T")


def parse_ike_proposals(text: str) -> IkePolicy:
    """The proposals of an IKE SA of IKEv2, as ``aes256gcm16-prfsha384-x25519-ke1_mlkem768``.

    Without a ``prf...`` the integrity algorithm says which it is. Raises: ConfigurationError, with the word that
    is wrong or the kind of word that is missing.
    """
    names = _parse(text)
    names.refuse(names.sequence_numbers, "esn and noesn are for ESP and AH")
    _need(names.encryptions, text, "an encryption algorithm, as aes256gcm16")
    _need(names.groups, text, "a key exchange, as x25519")
    _need_prf(names, text)
    if any(encryption.aead is None for encryption in names.encryptions):
        _need(
            names.integrities, text, "an integrity algorithm, as sha256, for encryption that has none of its own"
        )
    return IkePolicy(
        encryptions=_unique(names.encryptions),
        prfs=_unique(names.prfs),
        integrities=_unique(names.integrities) or _DEFAULT_IKE.integrities,
        groups=_unique(group for group in names.groups if group is not None),
        additional=names.additional_exchanges(),
    )


def parse_phase1_proposals(
    text: str, *, methods: tuple[AuthenticationMethod1, ...], lifetime: int | None
) -> Phase1Policy:
    """The proposals of an ISAKMP SA of IKEv1, as ``aes256-sha256-modp2048``; `lifetime` is in seconds.

    The integrity algorithm's hash is what IKEv1 calls the hash. Raises: ConfigurationError.
    """
    names = _parse(text)
    names.refuse(names.sequence_numbers, "esn and noesn are for ESP and AH")
    names.refuse(names.additional, "additional key exchanges are for IKEv2")
    _need(names.encryptions, text, "an encryption algorithm, as aes256")
    _need(names.groups, text, "a key exchange, as modp2048")
    _need_prf(names, text)
    return Phase1Policy(
        methods=methods,
        encryptions=_unique(names.encryptions),
        prfs=_unique(names.prfs),
        groups=_unique(group for group in names.groups if group is not None),
        lifetime=lifetime,
    )


def parse_child_proposals(
    text: str,
    *,
    protocol: ProtocolId = ProtocolId.ESP,
    modes: tuple[EncapsulationMode, ...] = _DEFAULT_CHILD.modes,
    lifetime: int | None = _DEFAULT_CHILD.lifetime,
) -> ChildPolicy:
    """The proposals of a CHILD_SA or of quick mode, as ``aes128gcm16-x25519-esn``; AH has no encryption.

    A key exchange asks for perfect forward secrecy; where only some proposals have one, it may be left out.
    `modes` and `lifetime` (seconds) are as in `ChildPolicy`. Raises: ConfigurationError.
    """
    names = _parse(text, child=True)
    names.refuse(names.named_prfs, "prf... is for IKE alone")
    names.refuse([each for each in names.integrities if each.legacy], "sha1 is for IKE alone")
    names.refuse(
        names.additional and names.groups == [None], "ke1_... comes after a first key exchange, as x25519"
    )
    if protocol == ProtocolId.AH:
        names.refuse(names.encryptions, "AH encrypts nothing: name an integrity algorithm, as sha256")
        _need(names.integrities, text, "an integrity algorithm, as sha256")
    else:
        _need(names.encryptions, text, "an encryption algorithm, as aes256gcm16")
        if any(encryption.aead is None for encryption in names.encryptions):
            _need(names.integrities, text, "an integrity algorithm, as sha256, for encryption without its own")
    return ChildPolicy(
        protocol=protocol,
        encryptions=_unique(names.encryptions) or _DEFAULT_CHILD.encryptions,
        integrities=_unique(names.integrities) or _DEFAULT_CHILD.integrities,
        groups=_unique(names.groups) or (None,),
        additional=names.additional_exchanges(),
        extended_sequence_numbers=_unique(names.sequence_numbers) or _DEFAULT_CHILD.extended_sequence_numbers,
        modes=modes,
        lifetime=lifetime,
    )


@dataclass(slots=True)
class _Names:
    """What a text names, in its order, with repetitions."""

    text: str
    encryptions: list[Encryption] = field(default_factory=list)
    integrities: list[Integrity] = field(default_factory=list)
    prfs: list[Prf] = field(default_factory=list)
    #: those of `prfs` that a word of their own named
    named_prfs: list[Prf] = field(default_factory=list)
    groups: list[Group | None] = field(default_factory=list)
    #: by the exchange's number, from 0
    additional: dict[int, list[Group | None]] = field(default_factory=dict)
    sequence_numbers: list[bool] = field(default_factory=list)

    def refuse(self, found: object, why: str) -> None:
        """ConfigurationError when there is something where there must be nothing."""
        if found:
            raise ConfigurationError(f"{_shown(self.text)}: {why}")

    def additional_exchanges(self) -> tuple[tuple[Group | None, ...], ...]:
        """One tuple for each additional key exchange, from ke1 on without a gap."""
        if sorted(self.additional) != list(range(len(self.additional))):
            raise ConfigurationError(
                f"{_shown(self.text)}: additional key exchanges begin at ke1 and leave none out"
            )
        return tuple(_unique(self.additional[number]) for number in range(len(self.additional)))


def _parse(text: str, *, child: bool = False) -> _Names:
    """Read every proposal of `text`; each word must be known and allowed."""
    proposals = [each.strip().lower() for each in text[: MAX_TEXT + 1].split(",")]
    if len(text) > MAX_TEXT or len(proposals) > MAX_PROPOSALS:
        raise ConfigurationError(f"more than {MAX_PROPOSALS} proposals, or {MAX_TEXT} characters of them")
    names = _Names(text)
    parsed = [_parse_proposal(proposal, text) for proposal in proposals]
    esn_named = any(each.sequence_numbers for each in parsed)
    for each in parsed:
        names.encryptions += each.encryptions
        names.integrities += each.integrities
        names.named_prfs += each.prfs
        names.prfs += each.prfs or [_prf_of(integrity) for integrity in each.integrities]
        names.groups += each.groups or ([None] if child else [])
        names.sequence_numbers += each.sequence_numbers or ([False] if esn_named else [])
    for number in {number for each in parsed for number in each.additional}:
        # Where one proposal does without an additional exchange, all may.
        names.additional[number] = [group for each in parsed for group in each.additional.get(number, [None])]
    return names


def _parse_proposal(proposal: str, text: str) -> _Names:
    names = _Names(text)
    for word in proposal.split("-"):
        if word in ENCRYPTION_NAMES:
            names.encryptions.append(ENCRYPTION_NAMES[word])
        elif word in INTEGRITY_NAMES:
            names.integrities.append(INTEGRITY_NAMES[word])
        elif word in PRF_NAMES:
            names.prfs.append(PRF_NAMES[word])
        elif word in GROUP_NAMES:
            names.groups.append(_first_exchange(word, text))
        elif word in _SEQUENCE_NUMBERS:
            names.sequence_numbers.append(_SEQUENCE_NUMBERS[word])
        elif word.startswith(_ADDITIONAL):
            number, _, group = word[2:].partition("_")
            names.additional.setdefault(int(number) - 1, []).append(_additional_exchange(group, word, text))
        else:
            raise _unknown(word, text)
    return names


def _first_exchange(word: str, text: str) -> Group:
    group = GROUP_NAMES[word]
    if group.additional_only:
        raise ConfigurationError(f"{_shown(text)}: {word} can be an additional key exchange only: ke1_{word}")
    return group


def _additional_exchange(name: str, word: str, text: str) -> Group | None:
    if name == _NO_GROUP:
        return None
    if name not in GROUP_NAMES:
        raise _unknown(name if name in _NEVER else word, text)
    return GROUP_NAMES[name]


def _prf_of(integrity: Integrity) -> Prf:
    return next(prf for prf in alg.PRFS if prf.hash is integrity.hash)


def _need(found: object, text: str, what: str) -> None:
    if not found:
        raise ConfigurationError(f"{_shown(text)} does not name {what}")


def _need_prf(names: _Names, text: str) -> None:
    _need(names.prfs, text, "a pseudo-random function, as prfsha256")


def _unknown(word: str, text: str) -> ConfigurationError:
    if word in _NEVER:
        return ConfigurationError(f"{_shown(text)}: {word} is too weak and never negotiated")
    if not word:
        return ConfigurationError(
            f"{_shown(text)}: a word is missing: write aes256gcm16-prfsha256-x25519, for example"
        )
    return ConfigurationError(f"{_shown(text)}: {_shown(word)} is not an algorithm that is known here")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _unique(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))
