"""Every meaning against RFC 9669's text: all operands at 4 bits, the edges at 32 and 64."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product

import pytest
from support import reference

from ebpfjit.bits import W16, W32, W64, Width
from ebpfjit.isa import semantics
from ebpfjit.isa.table import TABLE
from tests.support.rows import over

W4 = Width(4)
BYTE_ORDERS = {f"{word}{bits}": bits for word in ("LE", "BE", "BSWAP") for bits in (16, 32, 64)}
EXTENSIONS = {f"MOVSX{bits}": bits for bits in (8, 16, 32)}


def operands(width: Width) -> Iterable[int]:
    return range(16) if width is W4 else reference.edges(width.bits)


def disagreements(
    got: Callable[..., object], wanted: Callable[..., object], cases: Iterable[tuple[int, ...]]
) -> list[str]:
    results = ((case, got(*case), wanted(*case)) for case in cases)
    return [
        f"{tuple(map(hex, case))}: got {found!r}, RFC 9669 says {right!r}"
        for case, found, right in results
        if found != right or type(found) is not type(right)
    ][:10]


def test_there_is_an_expectation_for_every_meaning() -> None:
    assert set(semantics.BINARY) == set(reference.ARITHMETIC)
    assert set(semantics.CONDITION) == set(reference.COMPARISONS)
    assert set(semantics.MOVE) == {"MOV", *EXTENSIONS}
    assert set(semantics.UNARY) == {"NEG", *BYTE_ORDERS}
    assert set(semantics.ATOMIC) == {"ADD", "OR", "AND", "XOR", "XCHG", "CMPXCHG"}
    known = {
        *semantics.BINARY, *semantics.CONDITION, *semantics.MOVE, *semantics.UNARY, *semantics.ATOMIC, ""
    }  # fmt: skip
    assert {row.meaning for row in TABLE} <= known


@over("width", [W4, W32, W64])
@over("name", reference.ARITHMETIC)
def test_arithmetic(name: str, width: Width) -> None:
    cases = product(operands(width), repeat=2) if width is W4 else sampled(width)
    wanted = reference.ARITHMETIC[name]
    found = disagreements(
        lambda a, b: semantics.BINARY[name](width, a, b), lambda a, b: wanted(width.bits, a, b), cases
    )
    assert found == []


def sampled(width: Width) -> Iterable[tuple[int, int]]:
    """Pairs of edges: each with each of the most telling ones, both ways round."""
    bits = width.bits
    top = 2 ** (bits - 1)
    telling = (
        0,
        1,
        2,
        3,
        7,
        bits - 1,
        bits,
        bits + 1,
        2 * bits,
        top - 1,
        top,
        top + 1,
        2**bits - 2,
        2**bits - 1,
    )
    for a, b in product(reference.edges(bits), telling):
        yield a, b
        yield b, a


@over("width", [W4, W32, W64])
@over("name", reference.COMPARISONS)
def test_comparisons(name: str, width: Width) -> None:
    cases = product(operands(width), repeat=2) if width is W4 else sampled(width)
    wanted = reference.COMPARISONS[name]
    found = disagreements(
        lambda a, b: semantics.CONDITION[name](width, a, b), lambda a, b: wanted(width.bits, a, b), cases
    )
    assert found == []


@over("width", [W4, W32, W64])
def test_negation_and_copy(width: Width) -> None:
    bits = width.bits
    cases = [(a,) for a in operands(width)]
    assert (
        disagreements(lambda a: semantics.UNARY["NEG"](width, a), lambda a: reference.negate(bits, a), cases)
        == []
    )
    assert disagreements(lambda a: semantics.MOVE["MOV"](width, a), lambda a: a, cases) == []


def test_a_32_bit_copy_drops_the_upper_half() -> None:
    assert semantics.MOVE["MOV"](W32, 0x1_2345_6789) == 0x2345_6789


WIDER = [
    (name, width) for name, bits in EXTENSIONS.items() for width in (W16, W32, W64) if bits <= width.bits
]


@pytest.mark.parametrize(("name", "width"), WIDER, ids=[f"{name} to {width.bits}" for name, width in WIDER])
def test_sign_extension(name: str, width: Width) -> None:
    source_bits = EXTENSIONS[name]
    low = range(1 << 16) if source_bits <= 16 else reference.edges(32)
    above = 0 if width is W16 else 0xA5 << (width.bits - 8)
    cases = [(a | above,) for a in low]
    found = disagreements(
        lambda a: semantics.MOVE[name](width, a),
        lambda a: reference.sign_extend(width.bits, source_bits, a),
        cases,
    )
    assert found == []


@pytest.mark.parametrize("name", BYTE_ORDERS)
def test_byte_order(name: str) -> None:
    bits = BYTE_ORDERS[name]
    wanted = reference.truncate if name.startswith("LE") else reference.swap
    low = range(1 << 16) if bits == 16 else reference.edges(bits)
    above = 0xDEAD_BEEF_CAFE_0000 if bits == 16 else 0xDEAD_BEEF_0000_0000 if bits == 32 else 0
    cases = [(a | extra,) for a in low for extra in {0, above}]
    found = disagreements(lambda a: semantics.UNARY[name](W64, a), lambda a: wanted(bits, a), cases)
    assert found == []


def test_byte_order_by_hand() -> None:
    assert semantics.UNARY["BE16"](W64, 0xFFFF_FFFF_FFFF_1122) == 0x2211
    assert semantics.UNARY["BE32"](W64, 0xFFFF_FFFF_1122_3344) == 0x4433_2211
    assert semantics.UNARY["BSWAP64"](W64, 0x1122_3344_5566_7788) == 0x8877_6655_4433_2211
    assert semantics.UNARY["LE32"](W64, 0xFFFF_FFFF_1122_3344) == 0x1122_3344


@over("width", [W4, W32, W64])
@over("name", semantics.ATOMIC)
def test_new_value_of_an_atomic(name: str, width: Width) -> None:
    """The comparison of CMPXCHG is the engine's: the meaning is the case where it succeeds."""
    cases = product(operands(width), repeat=2) if width is W4 else sampled(width)

    def wanted(memory: int, src: int) -> int:
        return reference.atomic(width.bits, name, memory, src, r0=memory)[0]

    assert disagreements(lambda m, s: semantics.ATOMIC[name](width, m, s), wanted, cases) == []


#  name    bits  dst                   src                   result: by hand, from the RFC and Linux
BY_HAND = (
    ("SDIV", 64, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF, 0x8000000000000000),
    ("SDIV", 32, 0x80000000, 0xFFFFFFFF, 0x80000000),
    ("SMOD", 64, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF, 0),
    ("SMOD", 32, 0x80000000, 0xFFFFFFFF, 0),
    ("SMOD", 64, -13 % 2**64, 3, -1 % 2**64),  # "where -13 % 3 == -1"
    ("SMOD", 64, 13, -3 % 2**64, 1),
    ("SDIV", 64, -13 % 2**64, 3, -4 % 2**64),
    ("SDIV", 64, 13, 0, 0),
    ("SMOD", 64, -13 % 2**64, 0, -13 % 2**64),
    ("DIV", 64, -1 % 2**64, 0, 0),
    ("MOD", 32, 0xFFFFFFFF, 0, 0xFFFFFFFF),
    ("DIV", 64, 1, 2**64 - 1, 0),
    ("LSH", 64, 1, 64, 1),
    ("LSH", 32, 1, 63, 0x80000000),
    ("RSH", 32, 0x80000000, 31, 1),
    ("ARSH", 64, 0x8000000000000000, 63, 2**64 - 1),
    ("ARSH", 32, 0x80000000, 32, 0x80000000),
    ("MUL", 64, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF, 0x8000000000000000),
    ("SUB", 32, 0, 1, 0xFFFFFFFF),
    ("ADD", 64, 2**64 - 1, 1, 0),
)  # fmt: skip


@over(("name", "bits", "dst", "src", "result"), BY_HAND)
def test_results_by_hand(name: str, bits: int, dst: int, src: int, result: int) -> None:
    assert semantics.BINARY[name](Width(bits), dst, src) == result
    assert reference.ARITHMETIC[name](bits, dst, src) == result
