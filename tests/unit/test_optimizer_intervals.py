"""Rules over intervals, all of them at 4 and 6 bits: each result that an operation can have lies inside."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, reduce
from operator import or_

from ebpfjit.bits import W64, Width
from ebpfjit.isa import semantics
from ebpfjit.isa.spec import Kind
from ebpfjit.isa.table import TABLE
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.optimizer import intervals
from ebpfjit.optimizer.intervals import MIRRORED, RELATIONS, SIGNED, Interval, compared, low_zeros, zeros_of
from tests.support.rows import over

W4, W6 = Width(4), Width(6)


@cache
def all_intervals(w: Width) -> tuple[Interval, ...]:
    return tuple((low, high) for low in range(w.mask + 1) for high in range(low, w.mask + 1))


@cache
def members(w: Width, low: int, high: int) -> int:
    """The numbers of an interval as a mask."""
    return (1 << high + 1) - (1 << low)


def union(masks: list[int]) -> int:
    return reduce(or_, masks, 0)


def columns(w: Width, operation: Callable[[int, int], int], b: Interval) -> list[int]:
    """What an operation makes of each number with some number of an interval, as masks."""
    return [union([1 << operation(x, y) for y in range(b[0], b[1] + 1)]) for x in range(w.mask + 1)]


def check_all(w: Width, meaning: str, bs: tuple[Interval, ...]) -> None:
    """Hold a rule against all that the operation makes of any interval and one of these."""
    rule, operation = intervals.BINARY[meaning], semantics.BINARY[meaning]
    for b in bs:
        made = columns(w, lambda x, y: operation(w, x, y), b)
        for low in range(w.mask + 1):
            results = 0
            for high in range(low, w.mask + 1):
                results |= made[high]
                least, most = rule(w, (low, high), b)
                assert 0 <= least <= most <= w.mask
                assert not results & ~members(w, least, most), (meaning, (low, high), b)


def test_each_operation_has_a_rule() -> None:
    binary = {row.meaning for row in (*TABLE, *UNENCODED.values()) if row.kind is Kind.BINARY}
    assert binary - intervals.BINARY.keys() == set()


@over("meaning", intervals.BINARY)
def test_each_rule_at_4_bits(meaning: str) -> None:
    check_all(W4, meaning, all_intervals(W4))


SOME = () if "EBPFJIT_PROVE" in os.environ else (0, 37, 63)
"""Lengths of intervals: all of them take a minute."""


@over("meaning", intervals.BINARY)
def test_each_rule_at_6_bits(meaning: str) -> None:
    """With all intervals where EBPFJIT_PROVE is set; else with some, which are the second of the two."""
    some = [b for b in all_intervals(W6) if not SOME or (b[1] - b[0] in SOME and b[0] % 3 != 1)]
    check_all(W6, meaning, tuple(some))


def test_rules_are_as_narrow_as_their_operations_where_both_are_numbers() -> None:
    for meaning in ("ADD", "SUB", "RSH", "DIV"):
        rule, operation = intervals.BINARY[meaning], semantics.BINARY[meaning]
        for x in range(16):
            for y in range(16):
                assert rule(W4, (x, x), (y, y)) == (operation(W4, x, y),) * 2 or not y


@over("meaning", RELATIONS)
@over("holds", [True, False])
def test_comparisons(meaning: str, holds: bool) -> None:
    """Where a comparison comes out one way with some number of an interval, dst lies where it is said to."""
    condition, relation, signed = (
        semantics.CONDITION[meaning],
        RELATIONS[meaning][not holds],
        meaning in SIGNED,
    )
    numbers = range(W4.mask + 1)
    for b in all_intervals(W4):
        fits = [any(condition(W4, x, y) == holds for y in range(b[0], b[1] + 1)) for x in numbers]
        for a in all_intervals(W4):
            left = [x for x in range(a[0], a[1] + 1) if fits[x]]
            found = compared(W4, relation, a, b, signed=signed)
            if found is None:
                assert not left, (meaning, a, b)
            else:
                assert a[0] <= found[0] <= found[1] <= a[1]
                assert not left or found[0] <= left[0] <= left[-1] <= found[1], (meaning, a, b)


@over("meaning", RELATIONS)
def test_relations_the_other_way_round(meaning: str) -> None:
    """What a is to b says what b is to a."""
    symbols = {"<": "JLT", "<=": "JLE", ">": "JGT", ">=": "JGE", "==": "JEQ", "!=": "JNE"}
    for relation in RELATIONS[meaning]:
        here, there = (semantics.CONDITION[symbols[each]] for each in (relation, MIRRORED[relation]))
        assert all(here(W4, x, y) == there(W4, y, x) for x in range(16) for y in range(16))


@over("meaning", intervals.BINARY)
def test_low_zeros(meaning: str) -> None:
    operation = semantics.BINARY[meaning]
    for x in range(64):
        for y in range(64):
            a, b, result = zeros_of(x, 6), zeros_of(y, 6), operation(W6, x, y)
            for amount in (None, y % 6):
                zeros = min(low_zeros(meaning, a, b, amount), 6)
                assert result & (1 << zeros) - 1 == 0, (x, y, amount)


def test_zeros_of_numbers() -> None:
    assert [zeros_of(number) for number in (0, 1, 2, 12, -8, 1 << 63)] == [64, 0, 1, 2, 3, 63]


def test_signed_and_unsigned() -> None:
    for a in all_intervals(W4):
        for convert, read in ((intervals.as_signed, W4.signed), (intervals.as_unsigned, W4.wrap)):
            source = a if convert is intervals.as_signed else (a[0] - 8, a[1] - 8)
            low, high = convert(W4, source)
            assert all(low <= read(x) <= high for x in range(source[0], source[1] + 1))
    assert intervals.as_signed(W64, (1 << 63, (1 << 64) - 1)) == (-(1 << 63), -1)
