"""Which numbers an operation can make of numbers that lie between others: small pure functions over a width.

    *      low..high  low..high      low..high
    AND    5 .. 9     0 .. 7     ->  0 .. 7
    RSH    0 .. 255   4 .. 4     ->  0 .. 15

Numbers are unsigned, an interval is (lowest, highest), both in it. What a rule gives holds each result that
`isa.semantics` can give; the unit tests try all at 4 and 6 bits. Where a rule knows nothing it gives the
width's whole interval.
"""

from __future__ import annotations

from collections.abc import Callable

from ebpfjit.bits import Width

Interval = tuple[int, int]

Rule = Callable[[Width, Interval, Interval], Interval]


def _add(w: Width, a: Interval, b: Interval) -> Interval:
    low, high = a[0] + b[0], a[1] + b[1]
    if high <= w.mask:
        return low, high
    return (low - w.mask - 1, high - w.mask - 1) if low > w.mask else (0, w.mask)


def _sub(w: Width, a: Interval, b: Interval) -> Interval:
    low, high = a[0] - b[1], a[1] - b[0]
    if low >= 0:
        return low, high
    return (low + w.mask + 1, high + w.mask + 1) if high < 0 else (0, w.mask)


def _mul(w: Width, a: Interval, b: Interval) -> Interval:
    high = a[1] * b[1]
    return (a[0] * b[0], high) if high <= w.mask else (0, w.mask)


def _and(w: Width, a: Interval, b: Interval) -> Interval:
    return 0, min(a[1], b[1])


def _or(w: Width, a: Interval, b: Interval) -> Interval:
    return max(a[0], b[0]), (1 << max(a[1], b[1]).bit_length()) - 1


def _xor(w: Width, a: Interval, b: Interval) -> Interval:
    return 0, (1 << max(a[1], b[1]).bit_length()) - 1


def _lsh(w: Width, a: Interval, b: Interval) -> Interval:
    by = b[1] % w.bits
    if b[0] != b[1] or a[1] << by > w.mask:
        return 0, w.mask
    return a[0] << by, a[1] << by


def _any(w: Width, a: Interval, b: Interval) -> Interval:
    return 0, w.mask


def _rsh(w: Width, a: Interval, b: Interval) -> Interval:
    if b[0] != b[1]:
        return 0, a[1]
    by = b[0] % w.bits
    return a[0] >> by, a[1] >> by


def _arsh(w: Width, a: Interval, b: Interval) -> Interval:
    return _rsh(w, a, b) if a[1] >> w.bits - 1 == 0 else (0, w.mask)


def _div(w: Width, a: Interval, b: Interval) -> Interval:
    return (a[0] // b[1], a[1] // b[0]) if b[0] else (0, a[1])


def _mod(w: Width, a: Interval, b: Interval) -> Interval:
    if a[1] < b[0]:
        return a
    return (0, min(a[1], b[1] - 1)) if b[0] else (0, a[1])


def _sdiv(w: Width, a: Interval, b: Interval) -> Interval:
    return _div(w, a, b) if (a[1] | b[1]) >> w.bits - 1 == 0 else (0, w.mask)


def _smod(w: Width, a: Interval, b: Interval) -> Interval:
    return _mod(w, a, b) if (a[1] | b[1]) >> w.bits - 1 == 0 else (0, w.mask)


BINARY: dict[str, Rule] = {
    "ADD": _add,
    "SUB": _sub,
    "MUL": _mul,
    "DIV": _div,
    "SDIV": _sdiv,
    "OR": _or,
    "AND": _and,
    "LSH": _lsh,
    "RSH": _rsh,
    "MOD": _mod,
    "SMOD": _smod,
    "XOR": _xor,
    "ARSH": _arsh,
    "ROTATE": _any,
    "MULHI": lambda w, a, b: (a[0] * b[0] >> w.bits, a[1] * b[1] >> w.bits),
}
"""The interval of dst op src, by meaning."""


# -- comparisons ------------------------------------------------------------------------------------------

MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
"""What b is to a, where a is that to b."""

#                     holds        does not
RELATIONS: dict[str, tuple[str, str]] = {
    "JEQ": ("==", "!="),
    "JNE": ("!=", "=="),
    "JGT": (">", "<="),
    "JGE": (">=", "<"),
    "JLT": ("<", ">="),
    "JLE": ("<=", ">"),
    "JSGT": (">", "<="),
    "JSGE": (">=", "<"),
    "JSLT": ("<", ">="),
    "JSLE": ("<=", ">"),
}
"""What a comparison says of dst and src; those in SIGNED of both read as signed."""

SIGNED = frozenset({"JSGT", "JSGE", "JSLT", "JSLE"})


def related(relation: str, a: Interval, b: Interval) -> Interval | None:
    """Return where `a` lies if it has this relation to some number of `b`; None: nowhere."""
    low, high = a
    match relation:
        case "==":
            low, high = max(low, b[0]), min(high, b[1])
        case "!=":
            if b[0] == b[1]:
                low += low == b[0]
                high -= high == b[0]
        case "<":
            high = min(high, b[1] - 1)
        case "<=":
            high = min(high, b[1])
        case ">":
            low = max(low, b[0] + 1)
        case _:
            low = max(low, b[0])
    return (low, high) if low <= high else None


def as_signed(w: Width, a: Interval) -> Interval:
    """Return an interval of the same numbers read as signed."""
    half = 1 << w.bits - 1
    if a[1] < half:
        return a
    return (a[0] - 2 * half, a[1] - 2 * half) if a[0] >= half else (-half, half - 1)


def as_unsigned(w: Width, a: Interval) -> Interval:
    """Return an interval of the same signed numbers as unsigned ones."""
    if a[0] >= 0:
        return a
    return (a[0] + w.mask + 1, a[1] + w.mask + 1) if a[1] < 0 else (0, w.mask)


def compared(w: Width, relation: str, a: Interval, b: Interval, *, signed: bool) -> Interval | None:
    """Return where dst lies if it has a relation to src, both read as signed or not; None: nowhere."""
    if not signed:
        return related(relation, a, b)
    found = related(relation, as_signed(w, a), as_signed(w, b))
    if found is None:
        return None
    low, high = as_unsigned(w, found)
    low, high = max(low, a[0]), min(high, a[1])
    return (low, high) if low <= high else None


# -- multiples --------------------------------------------------------------------------------------------


def zeros_of(number: int, most: int = 64) -> int:
    """Return how many of the low bits of a number are zero."""
    return (number & -number).bit_length() - 1 if number else most


def low_zeros(meaning: str, a: int, b: int, amount: int | None) -> int:
    """Return how many low bits of dst op src are surely zero, from those of both; `amount`: src, if known."""
    match meaning:
        case "ADD" | "SUB" | "OR" | "XOR":
            return min(a, b)
        case "AND":
            return max(a, b)
        case "MUL":
            return a + b
        case "LSH":
            return a + amount if amount is not None else a
        case "RSH" | "ARSH":
            return max(a - amount, 0) if amount is not None else 0
        case _:
            return 0
