"""Claims: what the rules of arithmetic with constants say comes to the same, at 32 and 64 bits.

The constants are any as well, so a rule is proven for all of them at once. Where it asks for the length of a
constant it is run for each length.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from ebpfjit.isa import semantics
from ebpfjit.optimizer.rules import algebra, divisions
from ebpfjit.prove.claims import Claim, Statement, assume, each_of
from ebpfjit.prove.range_rules import WIDTHS, bool_of
from ebpfjit.prove.symbolic import W64, Integer, Number, SymbolicWidth, Truth, variable, within
from ebpfjit.prove.theories import Integers, Vectors

ROOM = "algebra"
PRODUCTS = (Integers, Vectors)


def algebra_rules() -> Iterator[Claim]:
    """Yield the claims of `rules.algebra`."""
    for w in WIDTHS:
        keys = (0, 1, w.mask)
        for meaning in algebra.WITH_CONSTANT:
            yield Claim(
                ROOM, f"{meaning} with a constant, {w.bits} bits", _with_constant(w, meaning), keys=keys
            )
        for meaning in algebra.OF_ITSELF:
            yield Claim(ROOM, f"{meaning} of itself, {w.bits} bits", _of_itself(w, meaning))
        for meaning in sorted(algebra.COMMUTATIVE):
            yield Claim(ROOM, f"{meaning} with its operands exchanged, {w.bits} bits", _exchanged(w, meaning))
        for first, then in algebra.CHAINS:
            yield Claim(ROOM, f"{first} then {then} with constants, {w.bits} bits", _chain(w, first, then))
        for meaning in algebra.OF_FEW_BITS:
            yield Claim(ROOM, f"{meaning} of few bits, {w.bits} bits", _of_few_bits(w, meaning))
        yield Claim(ROOM, f"few bits shifted up and down, {w.bits} bits", _few_bits_shifted(w))
        for meaning in algebra.BITS:
            theories = PRODUCTS if meaning == "MUL" else (Vectors,)
            yield Claim(
                ROOM, f"bits of {meaning} with a constant, {w.bits} bits", _bits(w, meaning), theories
            )
        for meaning in algebra.BITS_OF_TWO:
            theories = PRODUCTS if meaning == "MUL" else (Vectors,)
            yield Claim(ROOM, f"bits of {meaning}, {w.bits} bits", _bits_of_two(w, meaning), theories)
    yield from reciprocals()


def meant(w: SymbolicWidth, found: algebra.Simpler, x: Integer) -> Integer:
    """Return what a rule says comes out for x."""
    meaning, k = found
    match meaning:
        case algebra.SAME:
            return x
        case algebra.CONSTANT:
            return k
        case algebra.NEGATED:
            return w.wrap(-x)
        case algebra.UNSIGNED:
            return x & ((1 << k) - 1)
        case algebra.SIGNED:
            # The low k bits with their sign: as if they were moved up and down again.
            return semantics.arsh(w, semantics.lsh(w, x, w.bits - k), w.bits - k)
    assert (k >= 0) & (k <= w.mask)
    return semantics.BINARY[meaning](w, x, k)


def _with_constant(w: SymbolicWidth, meaning: str) -> Statement:
    def statement() -> Truth | bool:
        x, k = variable("x", w.bits), variable("k", w.bits)
        if meaning == "DIV":
            each_of(k.bit_length())
        found = algebra.WITH_CONSTANT[meaning](w, k)
        return True if found is None else bool_of(meant(w, found, x) == semantics.BINARY[meaning](w, x, k))

    return statement


def _of_itself(w: SymbolicWidth, meaning: str) -> Statement:
    def statement() -> Truth | bool:
        x = variable("x", w.bits)
        return bool_of(meant(w, algebra.OF_ITSELF[meaning], x) == semantics.BINARY[meaning](w, x, x))

    return statement


def _exchanged(w: SymbolicWidth, meaning: str) -> Statement:
    def statement() -> Truth | bool:
        x, y = variable("x", w.bits), variable("y", w.bits)
        return bool_of(semantics.BINARY[meaning](w, x, y) == semantics.BINARY[meaning](w, y, x))

    return statement


def _chain(w: SymbolicWidth, first: str, then: str) -> Statement:
    def statement() -> Truth | bool:
        x, j, k = (variable(name, w.bits) for name in "xjk")
        if first == then and first in ("RSH", "ARSH", "ROTATE"):
            each_of(j % w.bits)
        found = algebra.CHAINS[first, then](w, j, k)
        if found is None:
            return True
        made = semantics.BINARY[then](w, semantics.BINARY[first](w, x, j), k)
        return bool_of(meant(w, found, x) == made)

    return statement


def few(name: str, w: SymbolicWidth, n: Integer) -> Integer:
    """Return any number of which only the low n bits may be not 0."""
    x = variable(name, w.bits)
    assume(bool_of(x >> n == 0))
    return x


def at_least_0(number: Integer) -> Integer:
    """Return a small number that is not below 0, which its bounds need not say."""
    return number & 0xFF if isinstance(number, Number) and number.low < 0 else number


def _of_few_bits(w: SymbolicWidth, meaning: str) -> Statement:
    def statement() -> Truth | bool:
        n, k = within("n", 0, w.bits), variable("k", w.bits)
        x = few("x", w, n)
        found = algebra.OF_FEW_BITS[meaning](w, n, k)
        return True if found is None else bool_of(meant(w, found, x) == semantics.BINARY[meaning](w, x, k))

    return statement


def _few_bits_shifted(w: SymbolicWidth) -> Statement:
    def statement() -> Truth | bool:
        n, j, k = within("n", 0, w.bits), variable("j", w.bits), variable("k", w.bits)
        x = few("x", w, n)
        each_of(j % w.bits)
        found = algebra.of_few_bits_shifted(w, n, j, k)
        made = semantics.rsh(w, semantics.lsh(w, x, j), k)
        return True if found is None else bool_of(meant(w, found, x) == made)

    return statement


def _bits(w: SymbolicWidth, meaning: str) -> Statement:
    def statement() -> Truth | bool:
        n, k = within("n", 0, w.bits), variable("k", w.bits)
        x = few("x", w, n)
        most = algebra.BITS[meaning](w, n, k)
        return bool_of(semantics.BINARY[meaning](w, x, k) >> at_least_0(most) == 0)

    return statement


def _bits_of_two(w: SymbolicWidth, meaning: str) -> Statement:
    def statement() -> Truth | bool:
        n, m = within("n", 0, w.bits), within("m", 0, w.bits)
        x, y = few("x", w, n), few("y", w, m)
        most = algebra.BITS_OF_TWO[meaning](n, m)
        return bool_of(semantics.BINARY[meaning](w, x, y) >> at_least_0(most) == 0)

    return statement


def reciprocals() -> Iterator[Claim]:
    """Yield the claims of `rules.divisions`: why reciprocals divide, and of some divisors that theirs do."""
    name = "x * m // top is x // d, where m * d is little more than top"
    yield Claim(ROOM, name, _reciprocals, (Integers,))
    yield Claim(ROOM, "x // d is (x >> z) // (d >> z), where d has z low zeros", _even, (Integers,))
    for n in (32, 64):
        for d in divisors(n):
            yield Claim(ROOM, f"the reciprocal of {d}, for {n} bits", _reciprocal(n, d), (Integers,))


def divisors(n: int) -> list[int]:
    """Return some numbers of n bits that are no powers of two."""
    chance = random.Random(n)
    some = [chance.getrandbits(chance.randrange(3, n + 1)) for _ in range(30)]
    found = [*range(3, 32), 60, 100, 641, 1000, 1 << 20 | 1, (1 << n - 1) + 1, (1 << n) - 1, *some]
    return sorted({d for d in found if d & (d - 1)})


def _reciprocals() -> Truth | bool:
    x, most = variable("x", 64), variable("most", 64)
    d, m, top = variable("d", 64), variable("m", 64), variable("top", 129)
    assume((x <= most) & (d >= 1) & (top >= 1))
    more = m * d - top
    assume((more >= 0) & (more < d) & (more * most < top))
    return bool_of(x * m // top == x // d)


def _even() -> Truth | bool:
    x, odd, z = variable("x", 64), variable("odd", 64), within("z", 0, 63)
    assume(odd >= 1)
    return bool_of(x // (odd << z) == (x >> z) // odd)


def _reciprocal(n: int, d: int) -> Statement:
    def statement() -> Truth | bool:
        it = divisions.reciprocal(W64, n, d)
        if it is None:
            return True
        x = variable("x", n)
        return bool_of(semantics.mulhi(W64, x >> it.before, it.factor) >> it.behind == x // d)

    return statement
