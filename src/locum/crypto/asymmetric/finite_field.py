"""The finite-field Diffie-Hellman groups of RFC 7919 (ffdhe) and RFC 3526 (MODP), made from their definitions.

Knows numbers only. A prime of these families is 2^b - 2^(b-64) - 1 + 2^64 * (floor(2^(b-130) * c) + x), with c the
number e in RFC 7919 appendix A and pi in RFC 3526, and x a small offset: that is shorter, and easier to check,
than thousands of hexadecimal digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

#: RFC 7919 appendix A: bits and offset of ffdhe2048 to ffdhe8192.
_FFDHE = {2048: 560316, 3072: 2625351, 4096: 5736041, 6144: 15705020, 8192: 10965728}
#: RFC 3526 sections 3 to 7: bits and offset of the MODP groups 14 to 18.
_MODP = {2048: 124476, 3072: 1690314, 4096: 240904, 6144: 929484, 8192: 4743158}

_GENERATOR = 2
#: Extra bits while a constant is computed, to be cut off with the rounding errors in them.
_GUARD = 64


@dataclass(frozen=True, slots=True)
class FiniteFieldGroup:
    """A safe-prime group: `prime` p, generator g = 2, order of the subgroup q = (p - 1) / 2."""

    name: str
    bits: int
    prime: int

    generator = _GENERATOR

    @property
    def order(self) -> int:
        """The order of the subgroup of quadratic residues."""
        return (self.prime - 1) // 2

    @property
    def length(self) -> int:
        """Bytes of an element."""
        return self.bits // 8


@cache
def ffdhe(bits: int) -> FiniteFieldGroup:
    """The group ffdhe`bits` of RFC 7919; KeyError when there is none."""
    return FiniteFieldGroup(f"ffdhe{bits}", bits, _prime(bits, _e(bits), _FFDHE[bits]))


@cache
def modp(bits: int) -> FiniteFieldGroup:
    """The MODP group of this size of RFC 3526; KeyError when there is none."""
    return FiniteFieldGroup(f"modp{bits}", bits, _prime(bits, _pi(bits), _MODP[bits]))


def find_group(prime: int, generator: int) -> FiniteFieldGroup | None:
    """The group with exactly this prime and generator, or None: parameters of unknown origin prove nothing."""
    bits = prime.bit_length()
    if generator != _GENERATOR or bits not in _FFDHE:
        return None
    return next((group for group in (ffdhe(bits), modp(bits)) if group.prime == prime), None)


def _prime(bits: int, constant: int, offset: int) -> int:
    """`constant` is floor(2^(bits - 130) * c)."""
    return (1 << bits) - (1 << (bits - 64)) - 1 + ((constant + offset) << 64)


def _e(bits: int) -> int:
    """floor(2^(bits - 130) * e), by the series of inverse factorials."""
    term = total = 1 << (bits - 130 + _GUARD)
    divisor = 1
    while term:
        term //= divisor
        total += term
        divisor += 1
    return total >> _GUARD


def _pi(bits: int) -> int:
    """floor(2^(bits - 130) * pi), by Machin's formula pi = 16 arctan(1/5) - 4 arctan(1/239)."""
    unit = 1 << (bits - 130 + _GUARD)
    return (16 * _arctan_inverse(5, unit) - 4 * _arctan_inverse(239, unit)) >> _GUARD


def _arctan_inverse(x: int, unit: int) -> int:
    """arctan(1/x) in units of 1/`unit`."""
    power = total = unit // x
    divisor, sign = 3, -1
    while power:
        power //= x * x
        total += sign * (power // divisor)
        divisor, sign = divisor + 2, -sign
    return total
