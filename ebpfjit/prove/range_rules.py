"""Claims: each rule over intervals holds what it says, at 32 and 64 bits.

for all a0 <= x <= a1, b0 <= y <= b1:   low <= x op y <= high      (low, high) = rule((a0, a1), (b0, b1))
"""

from __future__ import annotations

from collections.abc import Iterator

from ebpfjit.bits import Width
from ebpfjit.isa import semantics
from ebpfjit.optimizer import intervals
from ebpfjit.optimizer.intervals import MIRRORED, RELATIONS, SIGNED, Interval
from ebpfjit.prove.claims import Claim, Statement, assume
from ebpfjit.prove.symbolic import W32, W64, Integer, Truth, chosen, less, variable, within
from ebpfjit.prove.theories import Integers, Vectors

WIDTHS = (W32, W64)
ROOM = "ranges"


def range_rules() -> Iterator[Claim]:
    """Yield the claims of `optimizer.intervals`."""
    for w in WIDTHS:
        yield Claim(ROOM, f"numbers of {w.bits} bits read as signed", _signed(w))
        for meaning in intervals.BINARY:
            theories = (Integers, Vectors) if meaning in OF_INTEGERS else (Vectors, Integers)
            yield Claim(ROOM, f"{meaning} of intervals, {w.bits} bits", _binary(w, meaning), theories)
        for meaning in RELATIONS:
            for holds in (True, False):
                name = f"{meaning} {'holds' if holds else 'does not hold'}, {w.bits} bits"
                yield Claim(ROOM, name, _comparison(w, meaning, holds))
        yield Claim(ROOM, f"intervals read as signed, {w.bits} bits", _as_signed(w))
        yield Claim(ROOM, f"intervals of signed numbers read as unsigned, {w.bits} bits", _as_unsigned(w))
        for meaning in intervals.BINARY:
            yield Claim(ROOM, f"low zeros of {meaning}, {w.bits} bits", _low_zeros(w, meaning))


OF_INTEGERS = frozenset({"MUL", "DIV", "MOD", "SDIV", "SMOD", "MULHI"})
"""Operations of which bits are of no use."""


def interval(w: Width, name: str) -> Interval:
    """Return any interval of a width."""
    low, high = variable(f"{name}_low", w.bits), variable(f"{name}_high", w.bits)
    assume(low <= high)
    return low, high


def member(of: Interval, name: str, bits: int) -> Integer:
    """Return any number of an interval."""
    x = variable(name, bits)
    assume((of[0] <= x) & (x <= of[1]))
    return x


def holds(found: Interval, number: Integer) -> Truth | bool:
    """Return whether a number lies in an interval."""
    inside: Truth | bool = (found[0] <= number) & (number <= found[1])
    return inside


def _signed(w: Width) -> Statement:
    def statement() -> Truth | bool:
        x = variable("x", w.bits + 3)
        return bool_of(Width(w.bits).signed(x) == w.signed(x))

    return statement


def bool_of(truth: Truth | bool) -> Truth | bool:
    """Return what a comparison gives, which type checkers take for a bool."""
    return truth


def _binary(w: Width, meaning: str) -> Statement:
    def statement() -> Truth | bool:
        a, b = interval(w, "a"), interval(w, "b")
        found = intervals.BINARY[meaning](w, a, b)
        x, y = member(a, "x", w.bits), member(b, "y", w.bits)
        forks = Width(w.bits)  # by the signs of operands, which leaves divisions of what has none
        return holds(found, semantics.BINARY[meaning](forks, x, y)) & (found[0] >= 0) & (found[1] <= w.mask)

    return statement


def _comparison(w: Width, meaning: str, comes_out: bool) -> Statement:
    def statement() -> Truth | bool:
        relation, signed = RELATIONS[meaning][not comes_out], meaning in SIGNED
        a, b = interval(w, "a"), interval(w, "b")
        x, y = member(a, "x", w.bits), member(b, "y", w.bits)
        found = intervals.compared(w, relation, a, b, signed=signed)
        other = intervals.compared(w, MIRRORED[relation], b, a, signed=signed)
        assume(bool_of(semantics.CONDITION[meaning](w, x, y) == comes_out))
        if found is None or other is None:
            return False
        return holds(found, x) & holds(other, y) & (a[0] <= found[0]) & (found[1] <= a[1])

    return statement


def _as_signed(w: Width) -> Statement:
    def statement() -> Truth | bool:
        a = interval(w, "a")
        return holds(intervals.as_signed(w, a), w.signed(member(a, "x", w.bits)))

    return statement


def _as_unsigned(w: Width) -> Statement:
    def statement() -> Truth | bool:
        low, high = (w.signed(variable(name, w.bits)) for name in ("low", "high"))
        x = w.signed(variable("x", w.bits))
        assume((low <= x) & (x <= high))
        return holds(intervals.as_unsigned(w, (low, high)), w.wrap(x))

    return statement


def _low_zeros(w: Width, meaning: str) -> Statement:
    def statement() -> Truth | bool:
        x, y, by = variable("x", w.bits), variable("y", w.bits), within("by", 0, w.bits - 1)
        a, b = within("a", 0, 64), within("b", 0, 64)
        for number, zeros in ((x, a), (y, b)):
            assume(bool_of(number & (1 << zeros) - 1 == 0))
        amount = by if variable("is_known", 1) else None
        if amount is not None:
            assume(bool_of(y % w.bits == by))
        found = intervals.low_zeros(meaning, a, b, amount)
        made = semantics.BINARY[meaning](w, x, y)
        kept = chosen(less(found, w.bits), found, w.bits) & 127
        return bool_of(made & (1 << kept) - 1 == 0)

    return statement
