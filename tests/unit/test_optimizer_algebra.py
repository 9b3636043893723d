"""The rules of arithmetic with constants, for all operands at a few small widths."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ebpfjit.bits import Width
from ebpfjit.isa import semantics
from ebpfjit.optimizer.rules import algebra, divisions
from tests.support.rows import over

WIDTHS = [Width(bits) for bits in (4, 5, 6)]


def meant(w: Width, found: algebra.Simpler, x: int) -> int:
    """What a rule says of x."""
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
            return w.wrap(Width(k).signed(x))
    assert 0 <= k <= w.mask
    return semantics.BINARY[meaning](w, x, k)


def wrong_with(w: Width, meaning: str) -> Iterator[tuple[int, int]]:
    for k in range(w.mask + 1):
        found = algebra.WITH_CONSTANT[meaning](w, k)
        if found is not None:
            yield from (
                (x, k) for x in range(w.mask + 1) if meant(w, found, x) != semantics.BINARY[meaning](w, x, k)
            )


@over("w", WIDTHS)
@over("meaning", algebra.WITH_CONSTANT)
def test_with_a_constant(w: Width, meaning: str) -> None:
    assert not [*wrong_with(w, meaning)]


@over("w", WIDTHS[:2])
@over("pair", algebra.CHAINS)
def test_behind_another(w: Width, pair: tuple[str, str]) -> None:
    first, then = (semantics.BINARY[meaning] for meaning in pair)
    numbers = range(w.mask + 1)
    for j in numbers:
        for k in numbers:
            found = algebra.CHAINS[pair](w, j, k)
            if found is not None:
                assert [meant(w, found, x) for x in numbers] == [
                    then(w, first(w, x, j), k) for x in numbers
                ], (j, k)


@over("w", WIDTHS)
@over("meaning", algebra.OF_ITSELF)
def test_of_itself(w: Width, meaning: str) -> None:
    for x in range(w.mask + 1):
        assert meant(w, algebra.OF_ITSELF[meaning], x) == semantics.BINARY[meaning](w, x, x)


@over("w", WIDTHS[:2])
@over("meaning", semantics.BINARY)
def test_of_few_bits(w: Width, meaning: str) -> None:
    """What an operation comes to, and how many bits it leaves, where its operands have few."""
    result = semantics.BINARY[meaning]
    for n in range(w.bits + 1):
        for k in range(w.mask + 1):
            rule = algebra.OF_FEW_BITS.get(meaning)
            found = None if rule is None else rule(w, n, k)
            bits = algebra.BITS.get(meaning, lambda w, n, k: w.bits)(w, n, k)
            of_two = algebra.BITS_OF_TWO.get(meaning, lambda n, m: w.bits)(n, k.bit_length())
            for x in range(1 << n):
                made = result(w, x, k)
                assert found is None or meant(w, found, x) == made, (n, k, x)
                assert made.bit_length() <= min(bits, of_two), (n, k, x)


@over("w", WIDTHS[:2])
def test_shifted_up_and_down(w: Width) -> None:
    for n in range(w.bits + 1):
        for j in range(w.mask + 1):
            for k in range(w.mask + 1):
                found = algebra.of_few_bits_shifted(w, n, j, k)
                for x in range(1 << n if found else 0):
                    assert found is not None
                    assert meant(w, found, x) == semantics.rsh(w, semantics.lsh(w, x, j), k)


@over("w", WIDTHS)
@over("meaning", sorted(algebra.COMMUTATIVE))
def test_operands_may_be_exchanged(w: Width, meaning: str) -> None:
    operation = semantics.BINARY[meaning]
    assert all(operation(w, x, y) == operation(w, y, x) for x in range(w.mask + 1) for y in range(x))


@over("w", WIDTHS)
def test_divisions_by_constants(w: Width) -> None:
    found = 0
    for n in range(1, w.bits + 1):
        for d in range(3, w.mask + 1):
            it = divisions.reciprocal(w, n, d) if d & (d - 1) else None
            if it is not None:
                found += 1
                assert it.factor <= w.mask
                numbers = range(1 << n)
                assert [semantics.mulhi(w, x >> it.before, it.factor) >> it.behind for x in numbers] == [
                    x // d for x in numbers
                ], (n, d)
    assert found > w.mask * w.bits // 2


@pytest.mark.parametrize("d", [3, 7, 10, 12, 1000, 65521, 1000000007, 0xFFFFFFFF, 10**12])
def test_divisions_at_64_bits(d: int) -> None:
    for n in (16, 32, 48, 64):
        it = divisions.reciprocal(Width(64), n, d)
        top = (1 << n) - 1
        for x in (0, 1, d - 1, d, d + 1, top, top - 1, top // d * d, top // d * d - 1, top // 2):
            if it is not None and 0 <= x <= top:
                assert (x >> it.before) * it.factor >> 64 >> it.behind == x // d
    assert divisions.reciprocal(Width(64), 32, 7) is not None
    assert divisions.reciprocal(Width(64), 64, 7) is None  # it would take 65 bits


def test_a_number_less_what_its_quotient_makes_is_the_remainder() -> None:
    w, of = WIDTHS[-1], semantics.BINARY
    for a in range(w.mask + 1):
        for d in range(w.mask + 1):
            product = of["MUL"](w, of["DIV"](w, a, d), d)
            assert of["SUB"](w, a, product) == of["MOD"](w, a, d)
