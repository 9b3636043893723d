"""Claims: the verifier's rules for known bits and signed ranges hold what they say, at 32 and 64 bits.

for all x, y that have the known bits (v, m), (v', m'):   x op y has those of rule((v, m), (v', m'))
for all a0 <= x <= a1, b0 <= y <= b1, signed:             low <= x op y <= high
"""

from __future__ import annotations

from collections.abc import Iterator

from ebpfjit.isa import semantics
from ebpfjit.optimizer.intervals import Interval
from ebpfjit.prove.claims import Claim, Statement, assume
from ebpfjit.prove.range_rules import OF_INTEGERS, WIDTHS, bool_of, holds
from ebpfjit.prove.symbolic import Integer, SymbolicWidth, Truth, variable
from ebpfjit.prove.theories import Integers, Vectors
from ebpfjit.verifier.numbers import BITS, SIGNED, Bits

ROOM = "verifier"

_AT_FEW_BITS = frozenset({"MUL"})
"""Products of two numbers of which nothing else is known: at few bits in the tests only."""


def verifier_rules() -> Iterator[Claim]:
    """Yield the claims of `verifier.numbers`."""
    for w in WIDTHS:
        for meaning in sorted(BITS.keys() - _AT_FEW_BITS):
            yield Claim(ROOM, f"known bits of {meaning}, {w.bits} bits", _bits(w, meaning))
        for meaning in sorted(SIGNED.keys() - _AT_FEW_BITS):
            theories = (Integers, Vectors) if meaning in OF_INTEGERS else (Vectors, Integers)
            yield Claim(ROOM, f"{meaning} of signed ranges, {w.bits} bits", _signed(w, meaning), theories)


def _known(w: SymbolicWidth, name: str) -> tuple[Bits, Integer]:
    """Return any known bits, and any number that has them."""
    value, mask = variable(f"{name}_value", w.bits), variable(f"{name}_mask", w.bits)
    assume(bool_of(value & mask == 0))
    x = variable(name, w.bits)
    assume(bool_of(x & ~mask & w.mask == value))
    return (value, mask), x


def _bits(w: SymbolicWidth, meaning: str) -> Statement:
    def statement() -> Truth | bool:
        (a, x), (b, y) = _known(w, "x"), _known(w, "y")
        value, mask = BITS[meaning](w, a, b)
        made = semantics.BINARY[meaning](w, x, y)
        return bool_of(made & ~mask & w.mask == value) & bool_of(value & mask == 0)

    return statement


def _range(w: SymbolicWidth, name: str) -> tuple[Interval, Integer]:
    """Return any signed range, and any number in it."""
    low, high = (w.signed(variable(f"{name}_{end}", w.bits)) for end in ("low", "high"))
    x = w.signed(variable(name, w.bits))
    assume((low <= x) & (x <= high))
    return (low, high), x


def _signed(w: SymbolicWidth, meaning: str) -> Statement:
    def statement() -> Truth | bool:
        (a, x), (b, y) = _range(w, "x"), _range(w, "y")
        found = SIGNED[meaning](w, a, b)
        return holds(found, w.signed(semantics.BINARY[meaning](w, w.wrap(x), w.wrap(y))))

    return statement
