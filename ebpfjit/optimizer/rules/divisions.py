"""How numbers are divided by a constant: multiplied by its reciprocal.

    x // d == (x * m >> bits) >> s      for all x below 2**n, with m below 2**bits

T. Granlund and P. L. Montgomery, "Division by Invariant Integers using Multiplication" (1994).
"""

from __future__ import annotations

from typing import NamedTuple

from ebpfjit.bits import Width


class Reciprocal(NamedTuple):
    """What x is shifted right by, multiplied by, and what the high half of that is shifted right by."""

    before: int
    factor: int
    behind: int


def reciprocal(w: Width, n: int, d: int) -> Reciprocal | None:
    """Return what divides each x below 2**n by d, which is no power of two; None where w is too small for it.

    With top = 2**(bits + s) and m = top / d, rounded up, m * d is top + e for some e below d. x * m / top is
    x / d + x * e / (d * top): of which the whole part is that of x / d where x * e is below top.
    """
    found = _of_all(w, n, d)
    if found is None and not d & 1:
        zeros = (d & -d).bit_length() - 1
        found = _of_all(w, n - zeros, d >> zeros)
        return None if found is None else found._replace(before=zeros)
    return found


def _of_all(w: Width, n: int, d: int) -> Reciprocal | None:
    for shift in range(w.bits):
        top = 1 << (w.bits + shift)
        factor = -(-top // d)
        if factor > w.mask:
            return None
        if (factor * d - top) * ((1 << n) - 1) < top:
            return Reciprocal(0, factor, shift)
    return None
