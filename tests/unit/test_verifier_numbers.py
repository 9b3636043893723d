"""The verifier's domain of numbers, at few bits: each result that a run can have is among what is said."""

from __future__ import annotations

import random
from itertools import product

import pytest

from ebpfjit.bits import Width
from ebpfjit.isa import semantics
from ebpfjit.verifier.numbers import BITS, SIGNED, Bits, Domain, Number

W4 = Width(4)
DOMAIN = Domain(6)
OPERATIONS = sorted(semantics.BINARY.keys() - {"ROTATE", "MULHI"})
ALL_BITS: list[Bits] = [(value, mask) for mask in range(16) for value in range(16) if not value & mask]


def values_of(bits: Bits) -> list[int]:
    return [value for value in range(16) if value & ~bits[1] == bits[0]]


@pytest.mark.parametrize("meaning", BITS)
def test_known_bits_of_all_numbers_of_four_bits(meaning: str) -> None:
    rule, operation = BITS[meaning], semantics.BINARY[meaning]
    results = {(x, y): operation(W4, x, y) for x in range(16) for y in range(16)}
    members = {bits: values_of(bits) for bits in ALL_BITS}
    for a, b in product(ALL_BITS, repeat=2):
        value, mask = rule(W4, a, b)
        assert not value & mask
        for x in members[a]:
            for y in members[b]:
                assert results[x, y] & ~mask == value, (a, b, x, y)


@pytest.mark.parametrize("meaning", SIGNED)
def test_signed_ranges_of_all_numbers_of_four_bits(meaning: str) -> None:
    rule, operation = SIGNED[meaning], semantics.BINARY[meaning]
    results = {(x, y): W4.signed(operation(W4, x & 15, y & 15)) for x in range(-8, 8) for y in range(-8, 8)}
    ranges = [(low, high) for low in range(-8, 8) for high in range(low, 8)]
    for a, b in product(ranges, repeat=2):
        low, high = rule(W4, a, b)
        row = [results[x, y] for x in range(a[0], a[1] + 1) for y in range(b[0], b[1] + 1)]
        assert low <= min(row), (a, b)
        assert max(row) <= high, (a, b)


def some_number(rng: random.Random) -> tuple[Number, list[int]]:
    """Return what is known of a number of 6 bits (its half has 3), and all that it may be."""
    x = rng.randrange(64)
    low, signed, half = x & 7, DOMAIN.full.signed(x), DOMAIN.half.signed(x & 7)
    mask = rng.choice((63, rng.getrandbits(6) & rng.getrandbits(6)))
    ranges = (
        rng.choice(((0, 63), sorted((x, rng.randrange(64))))),
        rng.choice(((-32, 31), sorted((signed, rng.randrange(-32, 32))))),
        rng.choice(((0, 7), sorted((low, rng.randrange(8))))),
        rng.choice(((-4, 3), sorted((half, rng.randrange(-4, 4))))),
    )
    raw = (x & ~mask, mask, *(each for limits in ranges for each in limits))
    members = [value for value in range(64) if Number(*raw).has(value, DOMAIN)]
    found = DOMAIN.number(*raw)
    assert found is not None
    assert all(found.has(value, DOMAIN) for value in members), raw
    return found, members


def check_pair(a: Number, b: Number, first: list[int], second: list[int]) -> None:
    pairs = list(product(first, second))
    for is_full, w in ((True, DOMAIN.full), (False, DOMAIN.half)):
        for meaning in OPERATIONS:
            operation, result = semantics.BINARY[meaning], DOMAIN.binary(meaning, is_full, a, b)
            for value in {operation(w, x & w.mask, y & w.mask) for x, y in pairs}:
                assert result.has(value, DOMAIN), (meaning, is_full, a, b, value)
        for meaning, condition in semantics.CONDITION.items():
            after = {holds: DOMAIN.assume(meaning, is_full, a, b, holds=holds) for holds in (True, False)}
            for x, y in pairs:
                known = after[condition(w, x & w.mask, y & w.mask)]
                assert known is not None, (meaning, is_full, a, b, x, y)
                assert known[0].has(x, DOMAIN), (meaning, is_full, a, b, x, y)
                assert known[1].has(y, DOMAIN), (meaning, is_full, a, b, x, y)
    assert all(DOMAIN.either(a, b).has(value, DOMAIN) for value in first + second)
    both = DOMAIN.both(a, b)
    assert all(both is not None and both.has(value, DOMAIN) for value in set(first) & set(second))


def check_parts(a: Number, members: list[int]) -> None:
    for bits in range(1, 7):
        cut = DOMAIN.truncated(a, bits)
        assert all(cut.has(value & (1 << bits) - 1, DOMAIN) for value in members), (a, bits)
        for is_full, w in ((True, DOMAIN.full), (False, DOMAIN.half)):
            if bits <= w.bits:
                extended = DOMAIN.extended(a, bits, is_full)
                wanted = {Width(bits).signed(value & (1 << bits) - 1) & w.mask for value in members}
                assert all(extended.has(value, DOMAIN) for value in wanted), (a, bits, is_full)


def test_numbers_of_six_bits() -> None:
    """All operations, comparisons and casts of some numbers, with all values that these may have."""
    rng = random.Random(20)
    for _ in range(120):
        (a, first), (b, second) = some_number(rng), some_number(rng)
        check_pair(a, b, first, second)
        check_parts(a, first)
